/* SPDX-License-Identifier: Apache-2.0 */
/* The seam between the relay and the cluster. Whoever accepts a message, starts an
 * attempt, writes a final dot or reports an outcome asks here, and nowhere else. On a
 * node alone the answers are local: the store's commit is the only copy, and the gate is
 * open while the process may deliver. The cluster core takes this place later without a
 * caller changing. The events are those of the protocol: accept, want-attempt, intent,
 * gate, outcome. */
#ifndef NODE_DELIVERY_RIGHTS_H
#define NODE_DELIVERY_RIGHTS_H

#include "queue/store.h"

struct rights;

struct rights *rights_new(struct store *store);
void rights_free(struct rights *r);

/* --- accept: `done` with ERR_OK means that all the copies we promise are durable: 250
 * may be said. Any other result means that nothing of it was or will be sent. --- */
struct rights_accept {
    struct store_accept store; /* fill message, rows_on_disk */
    struct mailbox *reply_to;
    void (*done)(struct rights_accept *a, enum err result, void *owner);
    struct rights *rights;
};
void rights_accept(struct rights *r, struct rights_accept *a);

/* --- an attempt --- */
struct attempt {
    struct unit_id unit;
    uint64_t id;    /* epoch << 32 | counter, unique per session of this node */
    uint32_t epoch; /* in which the right was given */
    bool intent_acked;
};
/* ERR_RIGHT_MISSING: not ours to deliver now. Any thread. */
enum err rights_begin(
    struct rights *r, struct unit_id unit, struct attempt *out) MUST_CHECK;
/* Announces which recipients may be in doubt once the dot is out; acknowledged at once on
 * a node alone. Any thread, at once after rights_begin. */
void rights_intent(
    struct rights *r, struct attempt *a, const uint16_t *rcpts, unsigned count);
/* The gate: the last thing read before the write of the final dot. No lock. */
bool rights_gate_open(const struct rights *r, const struct attempt *a);
/* Outcomes are facts: always taken, whoever owns. Durable when `done` runs
 * (settle.op.done). */
void rights_outcome(struct rights *r, struct store_settle *settle);
/* Shutting down, or storage stalled: no attempt starts, no dot leaves. */
void rights_close_gate(struct rights *r);
bool rights_may_deliver(const struct rights *r);

/* Is the wall clock fit for rules by age (expire, delay DSN)? At start it must not be
 * more than a day past the last committed time, nor 10 minutes before it, unless the
 * operator accepts it; from then on it must advance with CLOCK_BOOTTIME within the same
 * bounds. */
bool rights_clock_trusted(const struct rights *r, struct wall now);
void rights_clock_accept(struct rights *r, struct wall now);

#endif
