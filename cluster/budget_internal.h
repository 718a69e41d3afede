/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by budget.c (the asker) and budget_desk.c (the coordinator) only. */
#ifndef CLUSTER_BUDGET_INTERNAL_H
#define CLUSTER_BUDGET_INTERNAL_H

#include "cluster/budget.h"

#define BUDGET_BUCKETS 4096u

/* A destination that we ask for. */
struct need {
    struct need *next; /* of its bucket */
    struct budget_need now;
    uint32_t leased[BUDGET_KINDS], told[BUDGET_KINDS];
    uint32_t peak[BUDGET_KINDS]; /* what may be in use, as far as the need says */
    int64_t lease_until;
    int64_t asked_at;         /* the last question; 0: none yet */
    int64_t unanswered_since; /* 0: the last question was answered, or none was put */
    uint32_t told_serial;
    bool is_open;  /* that question has no answer yet */
    bool is_dirty; /* something changed that the coordinator should hear of */
};

/* What a node holds of a destination that we coordinate. */
struct holder {
    uint64_t node;
    uint64_t sent_ns; /* of its newest question */
    uint32_t epoch;
    uint32_t held[BUDGET_KINDS], want[BUDGET_KINDS];
    int64_t until;
};

struct desk {
    struct desk *next; /* of its bucket */
    uint64_t key;
    struct holder *holder;
    unsigned count, room;
};

struct budgets {
    uint64_t node;
    const struct budget_events *events;
    void *ctx;
    uint64_t seed;
    struct budget_limits limits;
    struct budget_member member[BUDGET_MEMBERS];
    unsigned member_count;
    unsigned senders; /* of them: may_send */
    bool is_alone;    /* nobody else may send */
    /* Who was reachable before the last change, for keys that stayed with us. */
    struct budget_member before[BUDGET_MEMBERS];
    unsigned before_count;
    bool was_alone;
    int64_t changed_at;
    unsigned changes; /* within the last lease */
    uint32_t told_floor[BUDGET_KINDS];
    bool has_told_floor;
    struct need **needs;
    unsigned need_count;
    struct desk **desks;
    unsigned desk_count, holder_count;
    int64_t swept_at;
    int64_t answer_ns;      /* how long answers take, of late */
    struct msg_budget *out; /* by member: questions that leave together */
};

uint32_t budget_bucket(const struct budgets *b, uint64_t key);
/* Which of them is first for the key, of those that can be reached; 0: none. */
uint64_t budget_first(const struct budget_member *m, unsigned count, uint64_t key);
uint32_t budget_floor(const struct budgets *b, unsigned kind);
uint32_t budget_even(const struct budgets *b, unsigned kind, uint64_t key, uint64_t node);

/* budget_desk.c. False: no answer. `grant` may be `ask`. */
bool desk_answer(struct budgets *b, uint64_t node, uint32_t epoch, uint64_t sent_ns,
    const struct budget_entry *ask, int64_t now, struct budget_entry *grant);
void desk_sweep(struct budgets *b, int64_t now);
void desks_free(struct budgets *b);

#endif
