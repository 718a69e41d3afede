/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each node may take of a destination's limits (connections at once, messages in a
 * period), so that all nodes together keep them.
 *
 * The members order themselves by hash for each destination; the first that can be
 * reached is its coordinator. Who needs more than its floor asks there what it may use,
 * and is given a lease of BUDGET_LEASE_NS, counted from the sending of the question.
 * Grants go by demand: small wants are met, large ones share the rest evenly. Nobody uses
 * more than it holds, and the coordinator never lets what is held pass the limit:
 *
 *   floor   a quarter of an even share (rounded down) that needs no question
 *   lease   what the coordinator granted
 *   even    limit / members that may be sending: when the coordinator has not answered
 *           for one lease, by when all leases that it gave are over
 *
 * A new coordinator first listens for one lease: whoever holds something asks within it.
 * For members that it cannot reach but that are not fenced it keeps an even share. So the
 * sum stays within the limit while members agree who is alive; where they differ for
 * longer than a lease it is passed by one even share a node at most. Work in hand is not
 * cut off: a connection over the share ends after its message.
 *
 * Hints, no rights: nothing here decides who owns mail. Time and members come in, frames
 * and shares go out; no clock, no socket. One thread. Bounded: BUDGET_KEYS destinations
 * asked for and as many coordinated; what does not fit lives by floor and even share.
 */
#ifndef CLUSTER_BUDGET_H
#define CLUSTER_BUDGET_H

#include <stdbool.h>

#include "cluster/core/msg.h"

#define BUDGET_LEASE_NS (3 * INT64_C(1000000000))
#define BUDGET_KEYS 65536u
#define BUDGET_HOLDERS 131072u /* of all coordinated destinations together */
#define BUDGET_MEMBERS 120u
#define BUDGET_NO_LIMIT UINT32_MAX

struct budget_limits {
    uint32_t most[BUDGET_KINDS]; /* 0: no limit */
    int64_t period_ns;           /* in which BUDGET_MESSAGES are counted */
};

/* A member that may deliver. */
struct budget_member {
    uint64_t node;
    bool is_reachable; /* alive as far as is known; ourselves always */
    bool may_send;     /* has a session that is not closed for ever */
};

/* What this node has in use of a destination, and would like to. Both 0: it needs no more
 * than the floor. */
struct budget_need {
    uint64_t key;
    uint32_t serial; /* comes back with the share */
    uint32_t have[BUDGET_KINDS], want[BUDGET_KINDS];
    uint32_t may[BUDGET_KINDS]; /* the share that is in force there */
};

struct budget_events {
    /* A frame for `to`; may be lost. `grant`: MSG_BUDGET_GRANT, else MSG_BUDGET_ASK. */
    void (*send)(void *ctx, uint64_t to, bool grant, const struct msg_budget *msg);
    /* What may be in use of the destination from now on. It follows from the need of
     * this serial, so a need that was lowered since must not be raised by it. */
    void (*share)(
        void *ctx, uint64_t key, uint32_t serial, const uint32_t share[BUDGET_KINDS]);
    /* What may be in use of a destination that no need was told of. */
    void (*floor)(void *ctx, const uint32_t floor[BUDGET_KINDS]);
};

struct budget_counts {
    uint32_t needs;       /* destinations of which this node uses more than the floor */
    uint32_t without;     /* those without a lease: floor or even share */
    uint32_t coordinated; /* destinations that this node divides */
};

struct budgets;

/* `events` and what ctx points to outlive it. */
struct budgets *budgets_new(uint64_t node, const struct budget_events *events, void *ctx);
void budgets_free(struct budgets *b);
void budgets_limits(struct budgets *b, const struct budget_limits *limits, int64_t now);
/* Those of the configuration that may deliver, with ourselves if we may; in any order.
 * Above BUDGET_MEMBERS are left out. */
void budgets_members(
    struct budgets *b, const struct budget_member *members, unsigned count, int64_t now);
void budgets_need(struct budgets *b, const struct budget_need *need, int64_t now);
/* A frame of a member; `epoch` of its session: older frames are passed over. */
void budgets_asked(struct budgets *b, uint64_t from, uint32_t epoch,
    const struct msg_budget *msg, int64_t now);
void budgets_granted(
    struct budgets *b, uint64_t from, const struct msg_budget *msg, int64_t now);
/* A few times a second. */
void budgets_tick(struct budgets *b, int64_t now);
struct budget_counts budgets_counts(const struct budgets *b);
/* Who divides the destination as far as this node knows; 0: nobody, there is no other
 * node to share with. */
uint64_t budgets_coordinator(const struct budgets *b, uint64_t key);

#endif
