/* SPDX-License-Identifier: Apache-2.0 */
/* Units out of the scheduler into an operator's hand and back. In hand a unit looks like
 * one with an attempt under way, so that all that may happen to that is right for it. */
#include "base/alloc.h"
#include "node/delivery/destination.h"
#include "node/delivery/hand.h"

static void answered(struct mail *mail, void *owner)
{
    struct hand *h = CONTAINER_OF(mail, struct hand, mail);
    h->done(h, owner);
}

/* --- take --- */

static enum hand_found may_take(
    const struct schedule *s, const struct sched_unit *unit, enum hand_want want)
{
    if (!unit)
        return HAND_GONE;
    bool held = unit->place == UNIT_HELD;
    if (s->stopping || unit->place == UNIT_ACTIVE || unit->place == UNIT_STARTING)
        return HAND_BUSY;
    if (want == HAND_END)
        return s->paused ? HAND_BUSY : HAND_TAKEN;
    return held == (want == HAND_RELEASE) ? HAND_TAKEN : HAND_AS_IT_IS;
}

static void take_out(struct schedule *s, struct sched_unit *unit)
{
    if (unit->place == UNIT_HELD) {
        s->held--;
    } else if (unit->place == UNIT_WAITING) {
        schedule_leave_failed_line(unit);
    } else {
        group_remove_ready(unit->group, unit);
        if (unit->group->ready_count == 0)
            group_stop_failing(unit->group);
    }
    units_unwait(s->units, unit);
    unit->place = UNIT_ACTIVE;
}

static void take_one(struct schedule *s, struct hand_unit *u, enum hand_want want)
{
    struct sched_unit *unit = units_find(s->units, u->id);
    u->found = may_take(s, unit, want);
    u->fate = HAND_UNCHANGED;
    if (u->found != HAND_TAKEN)
        return;
    u->unit = unit;
    u->rcpts = unit->rcpts;
    u->was_held = unit->place == UNIT_HELD;
    u->was_ready = unit->place == UNIT_READY;
    u->due.ms = unit->due_ms;
    take_out(s, unit);
}

static void take_asked(struct mail *mail, void *owner)
{
    struct hand *h = CONTAINER_OF(mail, struct hand, mail);
    (void)owner;
    for (unsigned i = 0; i < h->count; i++)
        take_one(h->schedule, &h->units[i], h->want);
    mailbox_post(h->reply_to, &h->mail, answered);
}

void schedule_hand_take(struct schedule *s, struct hand *h)
{
    h->schedule = s;
    mailbox_post(loop_mailbox(s->loop), &h->mail, take_asked);
}

/* --- give back --- */

static void hold(struct schedule *s, struct sched_unit *unit)
{
    schedule_forget_hot(s, unit);
    unit->place = UNIT_HELD;
    unit->nudged = false;
    s->held++;
    units_wait(s->units, unit, unit->expires_ms);
}

static void wait_until(struct schedule *s, struct sched_unit *unit, int64_t due)
{
    if (unit->nudged && unit->due_ms < due)
        due = unit->due_ms;
    unit->nudged = false;
    unit->place = UNIT_WAITING;
    schedule_unit_wait(s, unit, due);
}

/* What was found out about its destination may be what the operator has mended. */
static void forget_destination(struct schedule *s, struct group *g)
{
    if (g->destination)
        g->destination->down_until = (struct mono){0};
    if (g->route_state != ROUTE_KNOWN)
        return;
    group_drop_route(g);
    router_forget(s->router, g->domain);
}

static void put_back(struct schedule *s, struct hand_unit *u)
{
    struct sched_unit *unit = u->unit;
    if (u->fate == HAND_ENDED) {
        schedule_unit_gone(s, unit);
    } else if (unit->cancelled || unit->restarted) {
        schedule_cancelled_home(s, unit);
    } else if (u->fate == HAND_HELD || (u->fate != HAND_DUE && u->was_held)) {
        if (u->fate == HAND_REST)
            schedule_set_doubt(s, unit, u->in_doubt);
        hold(s, unit);
    } else if (u->fate == HAND_DUE || (u->fate == HAND_UNCHANGED && u->was_ready)) {
        unit->nudged = false;
        group_add_ready(unit->group, unit);
        group_advance(unit->group);
    } else if (u->fate == HAND_REST) {
        schedule_forget_hot(s, unit);
        schedule_set_doubt(s, unit, u->in_doubt);
        wait_until(s, unit, u->due.ms);
    } else {
        wait_until(s, unit, u->due.ms);
    }
}

static void give_asked(struct mail *mail, void *owner)
{
    struct hand *h = CONTAINER_OF(mail, struct hand, mail);
    struct schedule *s = h->schedule;
    (void)owner;
    /* All of them first: each then asks for its route once. */
    for (unsigned i = 0; i < h->count; i++)
        if (h->units[i].found == HAND_TAKEN && h->units[i].fate == HAND_DUE)
            forget_destination(s, h->units[i].unit->group);
    for (unsigned i = 0; i < h->count; i++)
        if (h->units[i].found == HAND_TAKEN)
            put_back(s, &h->units[i]);
    mailbox_post(h->reply_to, &h->mail, answered);
}

void schedule_hand_give(struct schedule *s, struct hand *h)
{
    h->schedule = s;
    mailbox_post(loop_mailbox(s->loop), &h->mail, give_asked);
}
