/* SPDX-License-Identifier: Apache-2.0 */
/* New settings under a running schedule. */
#include <stdlib.h>

#include "base/alloc.h"
#include "node/delivery/destination.h"

bool schedule_rules_need_message(const struct settings *settings)
{
    for (unsigned i = 0; i < settings->route_count; i++) {
        const struct route_settings *r = &settings->routes[i];
        if (r->sender[0] || r->user[0] || r->listener[0])
            return true;
    }
    return false;
}

struct reload_note {
    struct mail mail;
    struct schedule *schedule;
    struct settings *settings;
};

/* Rules may have moved. Where the domain alone decides, a group gets its new rule here;
 * where the message has a say, each unit finds its own when it is read next. */
static void rematch_groups(struct schedule *s)
{
    struct group_list all = LIST_HEAD_INITIALIZER(all);
    struct group *g;
    for (unsigned i = 0; i < TABLE_BUCKETS; i++) {
        while ((g = LIST_FIRST(&s->groups[i]))) {
            LIST_REMOVE(g, bucket);
            LIST_INSERT_HEAD(&all, g, bucket);
        }
    }
    while ((g = LIST_FIRST(&all))) {
        struct route_facts facts = {.domain = g->domain};
        LIST_REMOVE(g, bucket);
        group_drop_route(g);
        group_set_rule(g, router_match(s->router, &facts));
        group_advance(g);
    }
}

static void reload_arrived(struct mail *mail, void *owner)
{
    struct reload_note *note = CONTAINER_OF(mail, struct reload_note, mail);
    struct schedule *s = note->schedule;
    (void)owner;
    router_reload(s->router, note->settings);
    settings_unref(s->settings);
    s->settings = note->settings;
    s->generation++;
    s->match_needs_message = schedule_rules_need_message(s->settings);
    rematch_groups(s);
    schedule_quota_reload(s);
    free(note);
}

void schedule_reload(struct schedule *s, struct settings *settings)
{
    struct reload_note *note = mem_alloc(sizeof(*note));
    note->schedule = s;
    note->settings = settings_ref(settings);
    mailbox_post(loop_mailbox(s->loop), &note->mail, reload_arrived);
}
