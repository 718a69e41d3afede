/* SPDX-License-Identifier: Apache-2.0 */
/* Tickets: what the backend says of an attempt, and when the asker hears of it. */
#include <stdlib.h>

#include "base/alloc.h"
#include "node/delivery/rights_internal.h"

struct attempt_ticket *ticket_new(
    struct unit_id unit, uint64_t rcpts, const struct rights_asker *asker)
{
    struct attempt_ticket *t = mem_zalloc(sizeof(*t));
    atomic_init(&t->refs, 1);
    atomic_init(&t->state, TICKET_ASKED);
    t->unit = unit;
    t->rcpts = rcpts;
    t->reply_to = asker->reply_to;
    t->changed = asker->changed;
    t->ctx = asker->ctx;
    return t;
}

struct attempt_ticket *ticket_ref(struct attempt_ticket *t)
{
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void ticket_unref(struct attempt_ticket *t)
{
    if (t && atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) == 1)
        free(t);
}

static void change_arrived(struct mail *mail, void *owner)
{
    struct attempt_ticket *t = CONTAINER_OF(mail, struct attempt_ticket, mail);
    /* Before the state is read, and as an exchange, so that whoever found it posted is
     * seen: what changes from here on is told anew. */
    atomic_exchange(&t->posted, false);
    if (t->ctx)
        t->changed(t, owner);
    ticket_unref(t);
}

/* What an asker may still learn; all else stays as it is. */
static bool may_follow(int from, enum ticket_state to)
{
    switch (to) {
    case TICKET_REFUSED:
    case TICKET_GRANTED:
        return from == TICKET_ASKED;
    case TICKET_OPEN:
        return from == TICKET_GRANTED;
    case TICKET_CLOSED:
        return from != TICKET_REFUSED && from != TICKET_CLOSED;
    case TICKET_ASKED:
        break;
    }
    return false;
}

static void move(struct attempt_ticket *t, enum ticket_state to)
{
    int from = atomic_load(&t->state);
    do {
        if (!may_follow(from, to))
            return;
    } while (!atomic_compare_exchange_weak(&t->state, &from, (int)to));
    if (atomic_exchange(&t->posted, true))
        return; /* it is on its way and will see this, too */
    mailbox_post(t->reply_to, &ticket_ref(t)->mail, change_arrived);
}

void ticket_doubt(struct attempt_ticket *t, uint64_t rcpts, char cause)
{
    atomic_store_explicit(&t->doubt, rcpts, memory_order_relaxed);
    atomic_store_explicit(&t->cause, cause, memory_order_relaxed);
}

void ticket_answer(
    struct attempt_ticket *t, uint64_t attempt, uint64_t rcpts, uint32_t epoch)
{
    if (atomic_load(&t->state) != TICKET_ASKED)
        return;
    atomic_store_explicit(&t->id, attempt, memory_order_relaxed);
    atomic_store_explicit(&t->granted, rcpts, memory_order_relaxed);
    atomic_store_explicit(&t->epoch, epoch, memory_order_relaxed);
    move(t, rcpts && attempt ? TICKET_GRANTED : TICKET_REFUSED); /* publishes these */
}

void ticket_open(struct attempt_ticket *t)
{
    move(t, TICKET_OPEN);
}

void ticket_close(struct attempt_ticket *t)
{
    move(t, TICKET_CLOSED);
}
