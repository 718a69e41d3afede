/* SPDX-License-Identifier: Apache-2.0 */
#include "node/delivery/rights.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/alloc.h"

#define DAY_MS INT64_C(86400000)
#define BEHIND_MS INT64_C(600000)

struct rights {
    struct store *store;
    uint32_t epoch;
    atomic_bool gate_open;
    atomic_uint attempts;
    /* Wall time less BOOTTIME when the clock was last known good: from then on wall time
     * must advance as BOOTTIME does. 0: it never was. */
    _Atomic int64_t good_offset_ms;
};

static void trust_from(struct rights *r, struct wall now)
{
    int64_t offset = now.ms - mono_now().ns / NS_PER_MS;
    atomic_store_explicit(&r->good_offset_ms, offset ? offset : 1, memory_order_relaxed);
}

struct rights *rights_new(struct store *store)
{
    struct rights *r = mem_zalloc(sizeof(*r));
    struct store_identity who = store_identity(store);
    r->store = store;
    r->epoch = who.epoch;
    struct wall now = wall_now();
    /* A new store has nothing that could have aged. */
    if (who.last_commit.ms == 0 || (now.ms >= who.last_commit.ms - BEHIND_MS &&
                                       now.ms <= who.last_commit.ms + DAY_MS))
        trust_from(r, now);
    atomic_init(&r->gate_open, true);
    return r;
}

void rights_free(struct rights *r)
{
    free(r);
}

static void accept_stored(struct store_op *op, void *owner)
{
    struct store_accept *stored = CONTAINER_OF(op, struct store_accept, op);
    struct rights_accept *a = CONTAINER_OF(stored, struct rights_accept, store);
    /* The one copy that a node alone promises is durable, or is not there. */
    a->done(a, op->result, owner);
}

void rights_accept(struct rights *r, struct rights_accept *a)
{
    a->rights = r;
    a->store.op.kind = STORE_OP_ACCEPT;
    a->store.op.reply_to = a->reply_to;
    a->store.op.done = accept_stored;
    store_submit(r->store, &a->store.op);
}

enum err rights_begin(struct rights *r, struct unit_id unit, struct attempt *out)
{
    if (!rights_may_deliver(r))
        return ERR_RIGHT_MISSING;
    uint32_t count = atomic_fetch_add_explicit(&r->attempts, 1, memory_order_relaxed) + 1;
    *out = (struct attempt){
        .unit = unit, .id = (uint64_t)r->epoch << 32 | count, .epoch = r->epoch};
    return ERR_OK;
}

void rights_intent(
    struct rights *r, struct attempt *a, const uint16_t *rcpts, unsigned count)
{
    (void)r;
    (void)rcpts;
    (void)count;
    /* No other holder exists that could have to know. */
    a->intent_acked = true;
}

bool rights_gate_open(const struct rights *r, const struct attempt *a)
{
    return a->intent_acked && a->epoch == r->epoch &&
           atomic_load_explicit(&r->gate_open, memory_order_acquire);
}

void rights_outcome(struct rights *r, struct store_settle *settle)
{
    settle->op.kind = STORE_OP_SETTLE;
    store_submit(r->store, &settle->op);
}

void rights_close_gate(struct rights *r)
{
    atomic_store_explicit(&r->gate_open, false, memory_order_release);
}

bool rights_may_deliver(const struct rights *r)
{
    return atomic_load_explicit(&r->gate_open, memory_order_acquire);
}

bool rights_clock_trusted(const struct rights *r, struct wall now)
{
    int64_t good = atomic_load_explicit(&r->good_offset_ms, memory_order_relaxed);
    int64_t drift = now.ms - mono_now().ns / NS_PER_MS - good;
    return good != 0 && drift >= -BEHIND_MS && drift <= DAY_MS;
}

void rights_clock_accept(struct rights *r, struct wall now)
{
    trust_from(r, now);
    store_clock_accept(r->store, now);
}
