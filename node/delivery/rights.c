/* SPDX-License-Identifier: Apache-2.0 */
#include "node/delivery/rights.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "node/delivery/rights_internal.h"

#define DAY_MS INT64_C(86400000)
#define BEHIND_MS INT64_C(600000)

static void trust_from(struct rights *r, struct wall now)
{
    int64_t offset = now.ms - mono_now().ns / NS_PER_MS;
    atomic_store_explicit(&r->good_offset_ms, offset ? offset : 1, memory_order_relaxed);
}

struct rights *rights_new(
    struct store *store, const struct rights_backend *backend, void *ctx)
{
    struct rights *r = mem_zalloc(sizeof(*r));
    struct store_identity who = store_identity(store);
    r->store = store;
    r->backend = backend;
    r->ctx = ctx;
    r->epoch = who.epoch;
    struct wall now = wall_now();
    /* A new store has nothing that could have aged. */
    if (who.last_commit.ms == 0 || (now.ms >= who.last_commit.ms - BEHIND_MS &&
                                       now.ms <= who.last_commit.ms + DAY_MS))
        trust_from(r, now);
    atomic_init(&r->accept, backend ? ERR_COPIES_UNAVAILABLE : ERR_OK);
    return r;
}

void rights_bind(struct rights *r, void *ctx)
{
    r->ctx = ctx;
}

void rights_free(struct rights *r)
{
    free(r);
}

bool rights_clustered(const struct rights *r)
{
    return r->backend != NULL;
}

/* --- accept --- */

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
    if (r->backend) {
        r->backend->accept(r->ctx, a);
        return;
    }
    a->store.op.kind = STORE_OP_ACCEPT;
    a->store.op.reply_to = a->reply_to;
    a->store.op.done = accept_stored;
    store_submit(r->store, &a->store.op);
}

/* --- repetitions --- */

bool rights_repeat(struct rights *r, struct rights_repeat *q)
{
    q->found = RIGHTS_REPEAT_NEW;
    if (!r->backend || !r->backend->repeat)
        return false;
    r->backend->repeat(r->ctx, q);
    return true;
}

void rights_repeat_told(
    struct rights *r, const struct repeat_key *key, struct msg_id id, bool accepted)
{
    if (r->backend && r->backend->repeat_told)
        r->backend->repeat_told(r->ctx, key, id, accepted);
}

/* --- an attempt --- */

enum err rights_begin(struct rights *r, struct unit_id unit, uint64_t rcpts,
    const struct rights_asker *asker, struct attempt *a)
{
    if (a->id || a->ticket)
        return ERR_OK;
    if (!rights_may_deliver(r))
        return ERR_RIGHT_MISSING;
    *a = (struct attempt){.unit = unit};
    if (r->backend) {
        a->ticket = ticket_new(unit, rcpts, asker);
        r->backend->begin(r->ctx, ticket_ref(a->ticket));
        return ERR_OK;
    }
    uint32_t count = atomic_fetch_add_explicit(&r->attempts, 1, memory_order_relaxed) + 1;
    a->id = (uint64_t)r->epoch << 32 | count;
    a->epoch = r->epoch;
    return ERR_OK;
}

void rights_leave(struct attempt *a)
{
    if (a->ticket)
        a->ticket->ctx = NULL;
}

void rights_end(struct rights *r, struct attempt *a, bool tried_nothing)
{
    struct attempt_ticket *t = a->ticket;
    bool outcome_known = !tried_nothing && a->id != 0;
    *a = (struct attempt){.unit = a->unit};
    if (!t)
        return;
    t->ctx = NULL;
    if (outcome_known)
        ticket_unref(t);
    else
        r->backend->gone(r->ctx, t);
}

/* --- outcomes --- */

void rights_settle_facts(struct rights_settle *settle)
{
    settle->delivered = settle->failed = settle->doubt = 0;
    for (unsigned i = 0; i < settle->store.rcpt_count; i++) {
        const struct rcpt_record *rec = &settle->store.rcpts[i];
        uint64_t bit = rights_bit(rec->rcpt.index);
        settle->tried |= settle->attempt_id ? bit : 0;
        if (rec->state == RCPT_DELIVERED)
            settle->delivered |= bit;
        else if (rcpt_state_is_final(rec->state))
            settle->failed |= bit;
        else if (rec->state == RCPT_IN_DOUBT)
            settle->doubt |= bit;
    }
}

void rights_outcome(struct rights *r, struct rights_settle *settle)
{
    settle->store.op.kind = STORE_OP_SETTLE;
    if (r->backend)
        r->backend->outcome(r->ctx, settle);
    else
        store_submit(r->store, &settle->store.op);
}

void rights_suspect(struct rights *r, struct unit_id unit)
{
    if (r->backend && r->backend->suspect)
        r->backend->suspect(r->ctx, unit);
}

void rights_offer(struct rights *r, struct unit_id unit)
{
    if (r->backend && r->backend->offer)
        r->backend->offer(r->ctx, unit);
}

bool rights_shares_limits(const struct rights *r)
{
    return r->backend && r->backend->need;
}

void rights_need(struct rights *r, const struct quota_need *need)
{
    if (rights_shares_limits(r))
        r->backend->need(r->ctx, need);
}

/* --- the clock --- */

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
