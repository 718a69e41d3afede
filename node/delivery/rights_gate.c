/* SPDX-License-Identifier: Apache-2.0 */
/* The gate's value: one writer, readers that take no lock. Every field is an atomic of
 * its own, stored with release and read with acquire, so that the sequence says truly
 * whether what was read belongs together (fences would do as well, but the thread
 * sanitizer does not see them). */
#include "node/delivery/rights_internal.h"

void rights_publish_gate(struct rights *r, const struct rights_gate_value *v)
{
    struct gate_lock *g = &r->gate;
    unsigned at = atomic_load_explicit(&g->sequence, memory_order_relaxed);
    atomic_store_explicit(&g->sequence, at + 1, memory_order_relaxed);
    atomic_store_explicit(&g->epoch, v->epoch, memory_order_release);
    atomic_store_explicit(&g->frozen, v->frozen, memory_order_release);
    atomic_store_explicit(&g->is_static, v->is_static, memory_order_release);
    atomic_store_explicit(&g->lease_end_ns, v->lease_end.ns, memory_order_release);
    atomic_store_explicit(&g->dot_margin_ns, v->dot_margin_ns, memory_order_release);
    atomic_store_explicit(&g->start_margin_ns, v->start_margin_ns, memory_order_release);
    atomic_store_explicit(&g->sequence, at + 2, memory_order_release);
}

static bool read_once(const struct gate_lock *g, struct rights_gate_value *v)
{
    unsigned at = atomic_load_explicit(&g->sequence, memory_order_acquire);
    v->epoch = atomic_load_explicit(&g->epoch, memory_order_acquire);
    v->frozen = atomic_load_explicit(&g->frozen, memory_order_acquire);
    v->is_static = atomic_load_explicit(&g->is_static, memory_order_acquire);
    v->lease_end.ns = atomic_load_explicit(&g->lease_end_ns, memory_order_acquire);
    v->dot_margin_ns = atomic_load_explicit(&g->dot_margin_ns, memory_order_acquire);
    v->start_margin_ns = atomic_load_explicit(&g->start_margin_ns, memory_order_acquire);
    return at % 2 == 0 && at == atomic_load_explicit(&g->sequence, memory_order_relaxed);
}

struct rights_gate_value gate_read(const struct gate_lock *g)
{
    struct rights_gate_value v;
    while (!read_once(g, &v)) {
        /* A few stores of the writer's away. */
    }
    return v;
}

bool gate_has_time(const struct rights_gate_value *v, int64_t margin_ns)
{
    if (v->epoch == 0 || v->frozen)
        return false;
    return v->is_static || mono_now().ns + margin_ns <= v->lease_end.ns;
}

bool rights_closed(const struct rights *r)
{
    return atomic_load_explicit(&r->closed, memory_order_acquire);
}

/* A session of this node that has ended gives no right, whatever the ticket was told. */
static enum gate of_ticket(const struct rights *r, const struct attempt_ticket *t)
{
    int state = atomic_load_explicit(&t->state, memory_order_acquire);
    if (state == TICKET_ASKED)
        return GATE_WAIT;
    if (state != TICKET_GRANTED && state != TICKET_OPEN)
        return GATE_CLOSED;
    struct rights_gate_value v = gate_read(&r->gate);
    if (v.epoch != atomic_load_explicit(&t->epoch, memory_order_relaxed))
        return GATE_CLOSED;
    return state == TICKET_OPEN && gate_has_time(&v, v.dot_margin_ns) ? GATE_OPEN
                                                                      : GATE_WAIT;
}

enum gate rights_gate(const struct rights *r, const struct attempt *a)
{
    if (rights_closed(r))
        return GATE_CLOSED;
    if (!r->backend)
        return a->id && a->epoch == r->epoch ? GATE_OPEN : GATE_CLOSED;
    return a->ticket ? of_ticket(r, a->ticket) : GATE_CLOSED;
}

enum gate rights_granted(
    const struct rights *r, struct attempt *a, struct rights_grant *out)
{
    struct attempt_ticket *t = a->ticket;
    *out = (struct rights_grant){.rcpts = UINT64_MAX};
    if (!t)
        return rights_gate(r, a);
    enum ticket_state state =
        (enum ticket_state)atomic_load_explicit(&t->state, memory_order_acquire);
    if (state == TICKET_ASKED)
        return GATE_WAIT;
    if (state != TICKET_GRANTED && state != TICKET_OPEN)
        return GATE_CLOSED;
    a->id = atomic_load_explicit(&t->id, memory_order_relaxed);
    a->epoch = atomic_load_explicit(&t->epoch, memory_order_relaxed);
    out->rcpts = atomic_load_explicit(&t->granted, memory_order_relaxed) & t->rcpts;
    out->doubt = atomic_load_explicit(&t->doubt, memory_order_relaxed) & out->rcpts;
    out->cause = out->doubt ? atomic_load_explicit(&t->cause, memory_order_relaxed) : 0;
    return out->rcpts ? GATE_OPEN : GATE_CLOSED;
}

void rights_close_gate(struct rights *r)
{
    atomic_store_explicit(&r->closed, true, memory_order_release);
}

bool rights_may_deliver(const struct rights *r)
{
    if (rights_closed(r))
        return false;
    if (!r->backend)
        return true;
    struct rights_gate_value v = gate_read(&r->gate);
    return gate_has_time(&v, v.start_margin_ns);
}

void rights_publish_accept(struct rights *r, enum err result)
{
    atomic_store_explicit(&r->accept, (int)result, memory_order_release);
}

enum err rights_may_accept(const struct rights *r)
{
    return (enum err)atomic_load_explicit(&r->accept, memory_order_acquire);
}
