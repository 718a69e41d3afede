/* SPDX-License-Identifier: Apache-2.0 */
#include "node/control/cluster_alarms.h"

#include <stdio.h>
#include <string.h>

#include "node/control/members.h"

/* --- who --- */

typedef bool who_fn(const struct engine_status *st, const struct engine_member *m);

/* "mx2, mx3"; how many there are. */
static unsigned names(const struct engine_status *st, who_fn *who, char *out, size_t size)
{
    unsigned count = 0;
    size_t used = 0;
    out[0] = '\0';
    for (unsigned i = 0; i < st->member_count; i++) {
        const struct engine_member *m = &st->members[i];
        if (m->state == MEMBER_LEFT || !who(st, m))
            continue;
        int len = used < size ? snprintf(out + used, size - used, "%s%s",
                                    count ? ", " : "", m->name)
                              : 0;
        used += len > 0 ? (size_t)len : 0;
        count++;
    }
    return count;
}

#define FENCED 2

static bool is_down(const struct engine_member *m)
{
    return !m->is_self && m->view == 2 && m->state != MEMBER_JOINING;
}

/* Nobody takes over from it before somebody says so. */
static bool waits_for_word(const struct engine_status *st, const struct engine_member *m)
{
    return is_down(m) && st->mode == MODE_STATIC && m->session != FENCED;
}

static bool is_dead(const struct engine_status *st, const struct engine_member *m)
{
    return is_down(m) && !waits_for_word(st, m);
}

static bool is_joining(const struct engine_status *st, const struct engine_member *m)
{
    (void)st;
    return !m->is_self && m->view == 2 && m->state == MEMBER_JOINING;
}

static bool is_draining(const struct engine_status *st, const struct engine_member *m)
{
    (void)st;
    return m->state == MEMBER_DRAINING;
}

static bool differs(const struct engine_status *st, const struct engine_member *m)
{
    const struct engine_member *self = member_self(st);
    return self && !m->is_self && m->settings_hash && self->settings_hash &&
           m->settings_hash != self->settings_hash;
}

/* --- what --- */

static void voters(const struct engine_status *st, unsigned *all_out, unsigned *here_out)
{
    *all_out = *here_out = 0;
    for (unsigned i = 0; i < st->member_count; i++) {
        const struct engine_member *m = &st->members[i];
        if (!(m->roles & ROLE_VOTER))
            continue;
        ++*all_out;
        *here_out += m->is_self || m->view != 2;
    }
}

bool cluster_lacks_lease(const struct engine_status *st)
{
    const struct engine_member *self = member_self(st);
    return st->lease_ms <= 0 && self && (self->roles & (ROLE_STORE | ROLE_EGRESS));
}

static bool no_lease(const struct engine_status *st, char *text, size_t size)
{
    const struct engine_member *self = member_self(st);
    unsigned all, here;
    if (!cluster_lacks_lease(st))
        return false;
    voters(st, &all, &here);
    snprintf(text, size,
        "%s has no lease (%s): it delivers nothing, and takes no new mail for long; %u "
        "of "
        "%u voters answer it",
        self->name, st->state ? st->state : "starting", here, all);
    return true;
}

static bool not_a_member(const struct engine_status *st, char *text, size_t size)
{
    if (member_self(st))
        return false;
    snprintf(text, size, "this node is no member of the cluster %s%s", st->name,
        st->member_count ? ": it was removed, or another took its name" : " yet");
    return true;
}

static bool copies_short(const struct engine_status *st, char *text, size_t size)
{
    if (st->copies_short == 0)
        return false;
    snprintf(text, size, "%llu %s fewer copies than the %u that are promised",
        (unsigned long long)st->copies_short,
        st->copies_short == 1 ? "message has" : "messages have", st->copies);
    return true;
}

static bool node_down(const struct engine_status *st, char *text, size_t size)
{
    char who[160];
    unsigned count = names(st, is_dead, who, sizeof(who));
    if (count)
        snprintf(text, size, "%s %s down", who, count == 1 ? "is" : "are");
    return count > 0;
}

static bool peer_down(const struct engine_status *st, char *text, size_t size)
{
    char who[160];
    unsigned count = names(st, waits_for_word, who, sizeof(who));
    if (count)
        snprintf(text, size,
            "%s is down, and without a third vote nobody takes over: its mail waits for "
            "it",
            who);
    return count > 0;
}

static bool settings_differ(const struct engine_status *st, char *text, size_t size)
{
    char who[160];
    unsigned count = names(st, differs, who, sizeof(who));
    if (count)
        snprintf(text, size, "settings of %s differ from this node's", who);
    return count > 0;
}

static bool on_the_move(const struct engine_status *st, char *text, size_t size)
{
    char coming[100], going[100];
    unsigned c = names(st, is_joining, coming, sizeof(coming));
    unsigned g = names(st, is_draining, going, sizeof(going));
    if (c && g)
        snprintf(text, size, "%s did not finish joining, %s drains", coming, going);
    else if (c)
        snprintf(text, size, "%s did not finish joining", coming);
    else if (g)
        snprintf(text, size, "%s %s", going, g == 1 ? "drains" : "drain");
    return c || g;
}

static bool seed_unknown(const struct engine_status *st, char *text, size_t size)
{
    if (st->seeds_failing == 0)
        return false;
    int len =
        snprintf(text, size, "cluster.seeds: cannot be resolved: %s", st->seed_problem);
    if (st->seeds_failing > 1 && len > 0 && (size_t)len < size)
        snprintf(text + len, size - (size_t)len, "; and %u more", st->seeds_failing - 1);
    return true;
}

const struct cluster_alarm cluster_alarms[CLUSTER_ALARMS] = {
    {"no_lease", no_lease, CONTROL_AT_RISK, false, true,
        "start the voters that are down (batonctl node ls) and mend the network between "
        "them; when a majority is lost for ever: batonctl force-config"},
    {"not_a_member", not_a_member, CONTROL_DEGRADED, false, true,
        "when it joins: see its log; when it was removed: give it an empty data_dir and "
        "a "
        "token of batonctl cluster token"},
    {"copies_short", copies_short, CONTROL_AT_RISK, false, false,
        "start the nodes that are down, or let another join: copies are then made by "
        "themselves"},
    {"node_down", node_down, CONTROL_DEGRADED, true, false,
        "start batond there; when its disk is lost: batonctl remove NODE, and join a new "
        "one with a token"},
    {"peer_down_static", peer_down, CONTROL_DEGRADED, true, false,
        "start it; when it cannot come back, power it off, then batonctl force-fence "
        "NODE "
        "--i-have-powered-off NODE; a witness would have voted"},
    {"settings_differ", settings_differ, CONTROL_DEGRADED, true, false,
        "batonctl status names the keys; make them the same, then batonctl reload on "
        "each"},
    {"on_the_move", on_the_move, CONTROL_NOTICE, true, false,
        "batonctl node ls shows how far it is; start what does not run, or batonctl "
        "remove "
        "it"},
    {"seed_unknown", seed_unknown, CONTROL_NOTICE, false, false,
        "mend the name in DNS (batonctl resolve NAME A), or take it out of "
        "cluster.seeds; the node works without as long as it sees the others"},
};
