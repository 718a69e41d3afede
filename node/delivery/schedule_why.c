/* SPDX-License-Identifier: Apache-2.0 */
#include "node/delivery/why.h"

#include "base/alloc.h"
#include "node/delivery/destination.h"

static void answered(struct mail *mail, void *owner)
{
    struct schedule_why *w = CONTAINER_OF(mail, struct schedule_why, mail);
    w->done(w, owner);
}

static void look_at_groups(const struct schedule *s, struct schedule_why *w)
{
    for (unsigned i = 0; i < TABLE_BUCKETS; i++) {
        const struct group *g;
        LIST_FOREACH (g, &s->groups[i], bucket) {
            if (!slice_eq(g->domain, slice_str(w->domain)))
                continue;
            w->units += g->unit_count;
            w->ready += g->ready_count;
            w->busy = w->busy || g->failure;
        }
    }
}

static void look_at_destination(struct schedule *s, struct schedule_why *w)
{
    const struct destination *d = destination_known(s, route_key(w->route));
    if (!d)
        return;
    w->known = true;
    w->sessions = d->session_count;
    w->window = d->window;
    w->failures = d->failures;
    int64_t down_ms = mono_diff_ms(d->down_until, mono_now());
    w->down_ms = destination_is_down(d) && down_ms > 0 ? down_ms : 0;
    if (d->failures > 0)
        w->down_why = d->down_why;
    memcpy(w->share, d->quota.share, sizeof(w->share));
    w->is_throttled = d->throttled;
}

static void routed(struct route *route, void *ctx)
{
    struct schedule_why *w = ctx;
    w->route = route;
    w->paused = w->schedule->paused;
    look_at_groups(w->schedule, w);
    if (route_result(route) == ERR_OK)
        look_at_destination(w->schedule, w);
    mailbox_post(w->reply_to, &w->mail, answered);
}

static void asked(struct mail *mail, void *owner)
{
    struct schedule_why *w = CONTAINER_OF(mail, struct schedule_why, mail);
    struct schedule *s = w->schedule;
    struct route_facts facts = {
        .domain = slice_str(w->domain), .sender = slice_str(w->sender)};
    (void)owner;
    router_origin(s->router, &facts, &w->origin);
    router_ask(s->router, facts.domain, router_match(s->router, &facts), routed, w);
}

void schedule_ask_why(struct schedule *s, struct schedule_why *w)
{
    w->schedule = s;
    mailbox_post(loop_mailbox(s->loop), &w->mail, asked);
}
