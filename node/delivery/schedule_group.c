/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "node/delivery/destination.h"

static struct group_list *bucket_of(struct schedule *s, struct slice domain, int rule)
{
    uint64_t hash = slice_hash(domain, s->hash_key + (uint64_t)(int64_t)rule);
    return &s->groups[hash % TABLE_BUCKETS];
}

struct group *group_find(struct schedule *s, struct slice domain, int rule)
{
    struct group_list *bucket = bucket_of(s, domain, rule);
    struct group *g;
    LIST_FOREACH (g, bucket, bucket)
        if (g->rule == rule && slice_eq(g->domain, domain))
            return g;
    g = mem_zalloc(sizeof(*g));
    g->schedule = s;
    g->domain = slice_make(mem_strdup(domain), domain.len);
    g->rule = rule;
    TAILQ_INIT(&g->ready);
    TAILQ_INIT(&g->failed);
    LIST_INSERT_HEAD(bucket, g, bucket);
    return g;
}

void group_set_rule(struct group *g, int rule)
{
    g->rule = rule;
    LIST_INSERT_HEAD(bucket_of(g->schedule, g->domain, rule), g, bucket);
}

void group_leave_destination(struct group *g)
{
    struct destination *d = g->destination;
    if (!d)
        return;
    if (g->in_turn)
        TAILQ_REMOVE(&d->turns, g, turn);
    g->in_turn = false;
    d->ready_count -= g->ready_count;
    d->group_count--;
    LIST_REMOVE(g, member);
    g->destination = NULL;
    destination_forget_if_empty(g->schedule, d);
}

void group_drop_route(struct group *g)
{
    g->route_outdated = g->route_state == ROUTE_ASKED;
    if (g->route_state != ROUTE_KNOWN)
        return;
    group_leave_destination(g);
    route_unref(g->route);
    g->route = NULL;
    g->route_state = ROUTE_NONE;
}

void group_forget_if_empty(struct group *g)
{
    if (g->unit_count > 0 || g->route_state == ROUTE_ASKED || g->failure)
        return;
    group_drop_route(g);
    LIST_REMOVE(g, bucket);
    /* mem_strdup made it; slices are const by nature */
    free((void *)(uintptr_t)g->domain.ptr);
    free(g);
}

static void take_turn(struct group *g)
{
    if (g->in_turn || !g->destination || g->ready_count == 0 || g->failure)
        return;
    TAILQ_INSERT_TAIL(&g->destination->turns, g, turn);
    g->in_turn = true;
}

void group_add_ready(struct group *g, struct sched_unit *unit)
{
    units_unwait(g->schedule->units, unit);
    unit->place = UNIT_READY;
    TAILQ_INSERT_TAIL(&g->ready, unit, line);
    g->ready_count++;
    g->schedule->ready++;
    if (g->destination)
        g->destination->ready_count++;
    take_turn(g);
}

void group_remove_ready(struct group *g, struct sched_unit *unit)
{
    TAILQ_REMOVE(&g->ready, unit, line);
    g->ready_count--;
    g->schedule->ready--;
    if (!g->destination)
        return;
    g->destination->ready_count--;
    if (g->in_turn && g->ready_count == 0) {
        TAILQ_REMOVE(&g->destination->turns, g, turn);
        g->in_turn = false;
    }
}

struct sched_unit *group_take_ready(struct group *g)
{
    struct sched_unit *unit = TAILQ_FIRST(&g->ready);
    if (!unit)
        return NULL;
    group_remove_ready(g, unit);
    unit->place = UNIT_ACTIVE;
    g->schedule->active++;
    return unit;
}

void group_fail(struct group *g, const struct failure_note *why)
{
    if (g->ready_count == 0)
        return;
    if (!g->failure) {
        g->failure = mem_alloc(sizeof(*g->failure));
        TAILQ_INSERT_TAIL(&g->schedule->failing, g, failing);
        if (g->in_turn)
            TAILQ_REMOVE(&g->destination->turns, g, turn);
        g->in_turn = false;
    }
    *g->failure = *why;
    groups_fail_some(g->schedule);
}

static void fail_one(struct schedule *s, struct group *g)
{
    struct parcel *parcel = schedule_make_parcel(s, group_take_ready(g));
    s->failing_active++;
    parcel->without_session = true;
    delivery_fail(schedule_least_busy(s), s->settings, parcel, g->failure);
}

void group_stop_failing(struct group *g)
{
    if (!g->failure)
        return;
    TAILQ_REMOVE(&g->schedule->failing, g, failing);
    free(g->failure);
    g->failure = NULL;
    take_turn(g);
}

void groups_fail_some(struct schedule *s)
{
    struct group *g;
    while (!s->stopping && !s->paused && (g = TAILQ_FIRST(&s->failing))) {
        while (g->ready_count > 0 && s->failing_active < FAILING_MAX)
            fail_one(s, g);
        if (g->ready_count > 0)
            return;
        TAILQ_REMOVE(&s->failing, g, failing);
        free(g->failure);
        g->failure = NULL;
        group_forget_if_empty(g);
    }
}

void group_expire_one(struct sched_unit *unit, const struct failure_note *why)
{
    struct group *g = unit->group;
    struct schedule *s = g->schedule;
    TAILQ_REMOVE(&g->ready, unit, line);
    TAILQ_INSERT_HEAD(&g->ready, unit, line);
    struct parcel *parcel = schedule_make_parcel(s, group_take_ready(g));
    parcel->without_session = true;
    s->failing_active++;
    delivery_fail(schedule_least_busy(s), s->settings, parcel, why);
}

void group_expire_ready(struct group *g, int64_t now_ms)
{
    struct failure_note why = {.err = ERR_EXPIRED};
    struct sched_unit *unit, *next;
    snprintf(why.text, sizeof(why.text),
        "lifetime over while waiting for a connection to the destination");
    for (unit = TAILQ_FIRST(&g->ready); unit; unit = next) {
        next = TAILQ_NEXT(unit, line);
        if (unit->expires_ms > now_ms || g->schedule->failing_active >= FAILING_MAX)
            continue;
        group_expire_one(unit, &why);
    }
}

static void route_failed(struct group *g)
{
    struct failure_note why = {.err = route_result(g->route)};
    why.code = (uint16_t)err_code(why.err);
    snprintf(why.status, sizeof(why.status), "%s", err_status(why.err));
    snprintf(why.text, sizeof(why.text), "%s", route_why(g->route));
    group_fail(g, &why);
}

static void join_destination(struct group *g)
{
    g->destination = destination_find(g->schedule, route_key(g->route));
    g->destination->group_count++;
    LIST_INSERT_HEAD(&g->destination->members, g, member);
    g->destination->ready_count += g->ready_count;
    take_turn(g);
}

static void route_arrived(struct route *route, void *ctx)
{
    struct group *g = ctx;
    g->route = route;
    g->route_state = ROUTE_KNOWN;
    if (g->route_outdated) {
        group_drop_route(g);
    } else if (route_result(route) == ERR_OK) {
        join_destination(g);
    }
    group_advance(g);
    group_forget_if_empty(g);
}

void group_advance(struct group *g)
{
    struct schedule *s = g->schedule;
    if (g->ready_count == 0 || g->failure || s->stopping || s->paused)
        return;
    if (g->route_state == ROUTE_KNOWN && route_is_stale(g->route, loop_now(s->loop)))
        group_drop_route(g);
    if (g->route_state == ROUTE_NONE) {
        g->route_state = ROUTE_ASKED;
        router_ask(s->router, g->domain, g->rule, route_arrived, g);
        return; /* possibly answered already, and advanced from there */
    }
    if (g->route_state == ROUTE_ASKED)
        return;
    if (!g->destination)
        route_failed(g);
    else if (destination_is_down(g->destination))
        group_fail(g, &g->destination->down_why);
    else
        destination_dispatch(s, g->destination);
}
