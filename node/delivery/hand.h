/* SPDX-License-Identifier: Apache-2.0 */
/* An operator's hand on units of the queue: the scheduler lets go of them, so that no
 * attempt can start meanwhile; what was said is made durable; then they go back with what
 * became of them. An attempt that is under way wins: such a unit is busy.
 *
 *   schedule_hand_take   -> done: each unit is taken, busy, gone, or as it should be
 *   (STORE_OP_HOLD, STORE_OP_DUE, or ending_build and rights_outcome)
 *   schedule_hand_give   -> done: they are scheduled again, or forgotten
 *
 * In a cluster a unit may become another node's while it is in hand: it is forgotten when
 * it comes back, as after an attempt. */
#ifndef NODE_DELIVERY_HAND_H
#define NODE_DELIVERY_HAND_H

#include "node/delivery/rights.h"

struct schedule;
struct settings;

#define HAND_MAX 64

enum hand_want {
    HAND_HOLD,    /* those that are not held */
    HAND_RELEASE, /* those that are */
    HAND_RETRY,   /* those that are not */
    HAND_END,     /* all; none without the right to deliver */
};
enum hand_found {
    HAND_TAKEN,
    HAND_BUSY,     /* an attempt is under way, or it is being read, or we are stopping */
    HAND_AS_IT_IS, /* nothing to do */
    HAND_GONE,     /* ended meanwhile, or another node's */
};
enum hand_fate {
    HAND_UNCHANGED,
    HAND_HELD,
    HAND_DUE,   /* tried at once; what is known of the destination is forgotten */
    HAND_REST,  /* some recipients ended; the others at `due` */
    HAND_ENDED, /* all did */
};
struct hand_unit {
    struct unit_id id; /* the asker's */
    enum hand_found found;
    uint64_t rcpts; /* by rights_bit: others may be under way on another node */
    bool was_held, was_ready;
    struct sched_unit *unit; /* the scheduler's */
    enum hand_fate fate;     /* the asker's, before it is given back */
    struct wall due;
    uint16_t in_doubt; /* recipients, with HAND_REST */
};
struct hand {
    struct mail mail;
    struct schedule *schedule;
    struct mailbox *reply_to;
    void (*done)(struct hand *h, void *owner); /* in reply_to's thread */
    enum hand_want want;
    unsigned count;
    struct hand_unit units[HAND_MAX];
};
/* Any thread; `h` is the scheduler's until `done`. What was taken must be given back. */
void schedule_hand_take(struct schedule *s, struct hand *h);
void schedule_hand_give(struct schedule *s, struct hand *h);

/* --- the end of recipients by an operator's word --- */
struct ending {
    struct rights_settle outcome; /* built; hand in with rights_outcome */
    struct unit_record *record;
    unsigned skipped; /* wanted, but under way on another node */
    bool some;        /* there is something to settle */
    enum err err;
    uint16_t in_doubt; /* of those that stay */
    struct message *dsn;
};
struct ending_ask {
    struct store *store;
    const struct settings *settings;
    enum rcpt_state state; /* EXPIRED, BOUNCED: with a report; DROPPED: without */
    struct slice reason;   /* outlives the ending */
    struct wall now;
    bool (*wants)(const struct unit_record *u, const struct rcpt_record *r, void *ctx);
    void *ctx;
};
/* On a helper: reads the unit, and its body for the report. */
void ending_build(
    struct ending *e, const struct hand_unit *unit, const struct ending_ask *ask);
/* Once it is durable: a line for each recipient. */
void ending_log(const struct ending *e);
/* Its memory, but for the struct. */
void ending_fini(struct ending *e);

#endif
