/* SPDX-License-Identifier: Apache-2.0 */
/* One settlement under way, for settle*.c. */
#ifndef NODE_DELIVERY_SETTLE_INTERNAL_H
#define NODE_DELIVERY_SETTLE_INTERNAL_H

#include "node/delivery/settle.h"

/* failure, delay, success: at most one DSN of each kind comes from one settlement, and
 * one more for the postmaster when it is a DSN itself that fails. */
#define SETTLEMENT_DSNS 4

struct settlement {
    struct rights_settle outcome;
    struct delivery_loop *dl;
    struct settings *settings;
    struct parcel *parcel;
    void (*settled)(void *ctx);
    void *ctx;
    struct wall now;
    bool clock_trusted;
    bool expires; /* past the unit's lifetime: what would be deferred is final */
    struct rcpt_record *records; /* those that changed; in the parcel's arena */
    uint16_t *index;             /* position of each in the unit */
    unsigned record_count;
    struct timer again;
    unsigned tries;
    struct message *dsns[SETTLEMENT_DSNS];
    unsigned dsn_count;
};

/* settle_dsn.c */
bool settlement_wants_dsn(const struct settlement *t);
/* On a helper, reading the body when it is not in memory; then settlement_store. */
void settlement_make_dsns(struct settlement *t);
/* They found no room. What bounces is taken back, but a notice of success is lost then,
 * and the log says so. */
void settlement_drop_dsns(struct settlement *t, enum err why);
/* The report of recipients that failed without a parcel; NULL: none is to be sent. On a
 * helper. The log hears of it once it is durable. */
struct message *settle_report_failure(const struct unit_record *u,
    const struct rcpt_record *const *rcpts, unsigned count, struct store *store,
    const struct settings *settings, struct wall now);
void settle_log_report(const struct unit_record *u, const struct message *dsn);

/* settle.c */
/* The event of a recipient that is in this state now, and its counter. */
enum log_event settle_event_of(enum rcpt_state state);
void settle_count(enum rcpt_state state, bool possible_duplicate);
void settlement_store(struct settlement *t);
void settlement_free(struct settlement *t);

#endif
