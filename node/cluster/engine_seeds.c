/* SPDX-License-Identifier: Apache-2.0 */
/* Where members may be that are not where they were: the seeds of the settings, names
 * among them looked up by our resolver and again while somebody is missed. An address is
 * a hint and no more: a scout goes there, and only whoever proves the key of a member is
 * that member. So nodes whose addresses all changed at once find each other again.
 *
 * Gentle: a few tries at a time and a few in each turn of the thread, rounds ever farther
 * apart; first what members said of themselves, then a name that begins like the member's
 * (mx2.mail for mx2), then all with all. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"
#include "dnsbl/resolver.h"
#include "node/cluster/members_internal.h"

#define GRACE_MS 2000 /* a link that is slow to come, or back in a moment */
#define WAIT_FIRST_MS 1000
#define WAIT_MAX_MS 30000
#define WAIT_NAME_MS 300000 /* all is well but a name that nobody knows */
#define ANSWER_MS 2000      /* a round waits so long for names */
#define TRIES_A_TURN 8
#define SAID 2 /* addresses that a member itself has given */

struct seed {
    const struct seed_settings *setting;
    struct ipaddr ips[32];
    unsigned count;
    bool is_asked;     /* and has not been answered */
    char problem[300]; /* why there is no address; "": there is, or it is not known yet */
};

struct engine_seeds {
    struct settings *settings; /* of which they are */
    struct seed seed[SETTINGS_SEEDS_MAX];
    unsigned count;
    uint64_t generation; /* of the settings: older answers are nobody's */
    unsigned lookups;    /* at the resolver */
    bool was_missed;
    struct mono round_at; /* next round */
    int64_t wait_ms;      /* and then the next */
    /* the round under way: at which member, and at which of its addresses */
    bool is_trying;
    struct mono try_at;
    unsigned peer, at;
};

struct lookup {
    struct host_query query;
    struct engine_seeds *seeds;
    uint64_t generation;
    unsigned index;
};

/* --- names --- */

static void complain(
    const struct engine *e, struct seed *s, const struct host_addresses *found)
{
    char why[300];
    snprintf(why, sizeof(why), "%.280s",
        found->why && found->why[0] ? found->why : err_text(found->result));
    if (strcmp(why, s->problem) == 0)
        return;
    snprintf(s->problem, sizeof(s->problem), "%s", why);
    log_say(LOG_EV_CLUSTER_PROBLEM,
        "cluster.seeds: %s cannot be resolved: %s; it is asked again, and the node goes "
        "on without; next step: mend the name in DNS (batonctl resolve %s A) or the "
        "resolver's settings, or take it out of %s:%d",
        s->setting->text, s->problem, s->setting->name, e->settings->file,
        settings_line(e->settings, "cluster.seeds"));
}

static void take_answer(
    const struct engine *e, struct seed *s, const struct host_addresses *found)
{
    s->is_asked = false;
    if (found->result == ERR_SHUTTING_DOWN)
        return;
    if (found->result != ERR_OK || found->count == 0) {
        complain(e, s, found); /* what was known stays: it may still be true */
        return;
    }
    if (s->problem[0])
        log_say(
            LOG_EV_CLUSTER, "cluster.seeds: %s has an address again", s->setting->text);
    s->problem[0] = '\0';
    s->count = 0;
    for (unsigned i = 0; i < found->count && i < 32; i++)
        s->ips[s->count++] = found->ips[i];
}

static void answered(struct host_query *q, void *owner)
{
    struct lookup *l = CONTAINER_OF(q, struct lookup, query);
    struct engine_seeds *seeds = l->seeds;
    seeds->lookups--;
    if (l->generation == seeds->generation)
        take_answer(owner, &seeds->seed[l->index], &q->found);
    free(l);
}

static void ask(struct engine *e, unsigned index)
{
    struct seed *s = &e->seeds->seed[index];
    if (!s->setting->name[0] || s->is_asked || !e->deps.resolver)
        return;
    struct lookup *l = mem_zalloc(sizeof(*l));
    l->seeds = e->seeds;
    l->generation = e->seeds->generation;
    l->index = index;
    snprintf(l->query.name, sizeof(l->query.name), "%s", s->setting->name);
    l->query.want_v4 = l->query.want_v6 = true;
    l->query.reply_to = e->box;
    l->query.done = answered;
    s->is_asked = true;
    e->seeds->lookups++;
    resolver_ask_host(e->deps.resolver, &l->query);
}

static bool has_problem(const struct engine_seeds *seeds)
{
    for (unsigned i = 0; i < seeds->count; i++)
        if (seeds->seed[i].problem[0])
            return true;
    return false;
}

static bool is_waiting(const struct engine_seeds *seeds)
{
    for (unsigned i = 0; i < seeds->count; i++)
        if (seeds->seed[i].is_asked)
            return true;
    return false;
}

/* --- tries --- */

/* The nth address of a seed. */
static struct netaddr seed_address(const struct seed *s, unsigned n)
{
    struct netaddr a = s->setting->address;
    if (s->setting->name[0])
        a.ip = s->ips[n];
    return a;
}

static unsigned seed_count(const struct seed *s)
{
    return s->setting->name[0] ? s->count : 1;
}

/* "mx2.mail.example" for the member mx2. */
static bool is_namesake(const struct seed *s, const struct engine_peer *p)
{
    struct slice name = slice_str(s->setting->name);
    struct slice member =
        slice_make(p->ident.name, strnlen(p->ident.name, sizeof(p->ident.name)));
    return name.len > 0 &&
           (slice_eq_nocase(slice_head(name, slice_find(name, '.')), member) ||
               slice_eq_nocase(name, member));
}

/* Address number `n` for this member: what it said, then its namesakes', then all others.
 * False: there are no more. */
static bool candidate(
    const struct engine *e, const struct engine_peer *p, unsigned n, struct netaddr *out)
{
    if (n < SAID) {
        *out = n == 0 ? p->said : ident_address(&p->ident);
        return true;
    }
    n -= SAID;
    for (int namesakes = 1; namesakes >= 0; namesakes--)
        for (unsigned i = 0; i < e->seeds->count; i++) {
            const struct seed *s = &e->seeds->seed[i];
            if (is_namesake(s, p) != (namesakes == 1))
                continue;
            if (n < seed_count(s)) {
                *out = seed_address(s, n);
                return true;
            }
            n -= seed_count(s);
        }
    return false;
}

static bool same(struct netaddr a, struct netaddr b)
{
    return a.port == b.port && ipaddr_eq(a.ip, b.ip);
}

static bool is_missed(const struct engine_peer *p)
{
    return !p->is_linked && mono_now().ns >= p->patience.ns;
}

/* The lanes are there already, or nobody can be. */
static bool is_useless(
    const struct engine *e, const struct engine_peer *p, unsigned n, struct netaddr a)
{
    return a.ip.family == 0 || a.port == 0 || a.port == UINT16_MAX ||
           ipaddr_is_unspecified(a.ip) || same(a, p->at) ||
           same(a, members_own_address(e)) || (n == 1 && same(a, p->said));
}

/* One address of one member more. False: no room for another try now. */
static bool try_next(struct engine *e)
{
    struct engine_seeds *seeds = e->seeds;
    struct engine_peer *p = &e->peer[seeds->peer];
    struct netaddr a;
    if (!is_missed(p) || !candidate(e, p, seeds->at, &a)) {
        seeds->peer++;
        seeds->at = 0;
        return true;
    }
    if (!is_useless(e, p, seeds->at, a) && !transport_scout(e->transport, p->node, a))
        return false;
    seeds->at++;
    return true;
}

static void try_some(struct engine *e)
{
    struct engine_seeds *seeds = e->seeds;
    unsigned tries = 0, before;
    while (tries < TRIES_A_TURN && seeds->peer < e->peer_count) {
        before = seeds->peer;
        if (!try_next(e))
            return;
        tries += seeds->peer == before;
    }
    seeds->is_trying = seeds->peer < e->peer_count;
}

void engine_scouted(
    struct engine *e, uint64_t node, struct netaddr address, bool is_there)
{
    char text[NETADDR_TEXT_MAX];
    struct engine_peer *p = engine_peer(e, node);
    if (!p || !is_there || !is_missed(p))
        return;
    netaddr_format(address, text);
    log_say(LOG_EV_CLUSTER, "member %.30s is found at %s", p->ident.name, text);
    members_connect(e, p, address);
    p->patience = mono_add_ms(mono_now(), GRACE_MS);
}

/* --- rounds --- */

void engine_seeds_lost(struct engine *e, struct engine_peer *p)
{
    p->patience = mono_add_ms(mono_now(), GRACE_MS);
    if (!e->seeds)
        return;
    e->seeds->was_missed = false; /* rounds begin anew, soon */
    e->seeds->wait_ms = WAIT_FIRST_MS;
}

static bool is_somebody_missed(const struct engine *e)
{
    for (unsigned i = 0; i < e->peer_count; i++)
        if (!e->peer[i].is_linked)
            return true;
    return false;
}

static void begin_round(struct engine *e)
{
    struct engine_seeds *seeds = e->seeds;
    struct mono now = mono_now();
    for (unsigned i = 0; i < seeds->count; i++)
        ask(e, i);
    seeds->is_trying = true;
    seeds->try_at = mono_add_ms(now, ANSWER_MS);
    seeds->peer = seeds->at = 0;
    seeds->round_at = mono_add_ms(now, seeds->wait_ms);
    seeds->wait_ms = seeds->wait_ms * 2 < WAIT_MAX_MS ? seeds->wait_ms * 2 : WAIT_MAX_MS;
}

static void all_is_well(struct engine *e)
{
    struct engine_seeds *seeds = e->seeds;
    seeds->was_missed = seeds->is_trying = false;
    seeds->wait_ms = WAIT_FIRST_MS;
    if (!has_problem(seeds) || mono_now().ns < seeds->round_at.ns)
        return;
    for (unsigned i = 0; i < seeds->count; i++)
        if (seeds->seed[i].problem[0])
            ask(e, i);
    seeds->round_at = mono_add_ms(mono_now(), WAIT_NAME_MS);
}

void engine_seeds_tick(struct engine *e)
{
    struct engine_seeds *seeds = e->seeds;
    struct mono now = mono_now();
    if (e->is_stopping || e->wants_join)
        return; /* who has not joined is a stranger to them */
    if (!is_somebody_missed(e)) {
        all_is_well(e);
        return;
    }
    if (!seeds->was_missed) {
        seeds->was_missed = true;
        seeds->round_at = mono_add_ms(now, GRACE_MS);
    }
    if (!seeds->is_trying && now.ns >= seeds->round_at.ns)
        begin_round(e);
    if (seeds->is_trying && (now.ns >= seeds->try_at.ns || !is_waiting(seeds)))
        try_some(e);
}

void engine_seeds_status(const struct engine *e, struct engine_status *s)
{
    for (unsigned i = 0; e->seeds && i < e->seeds->count; i++) {
        const struct seed *seed = &e->seeds->seed[i];
        if (seed->problem[0] && s->seeds_failing++ == 0)
            snprintf(s->seed_problem, sizeof(s->seed_problem), "%.100s: %.290s",
                seed->setting->text, seed->problem);
    }
}

/* --- life --- */

static void take_settings(struct engine *e)
{
    struct engine_seeds *seeds = e->seeds;
    settings_unref(seeds->settings);
    seeds->settings = settings_ref(e->settings);
    seeds->generation++;
    seeds->count = e->settings->cluster.seed_count;
    memset(seeds->seed, 0, sizeof(seeds->seed));
    for (unsigned i = 0; i < seeds->count; i++)
        seeds->seed[i].setting = &seeds->settings->cluster.seeds[i];
    seeds->wait_ms = WAIT_FIRST_MS;
    seeds->was_missed = seeds->is_trying = false;
    /* Each is looked up at the start, so that one that is wrong is known before it is
     * needed. */
    for (unsigned i = 0; i < seeds->count; i++)
        ask(e, i);
    seeds->round_at = mono_add_ms(mono_now(), WAIT_NAME_MS);
}

void engine_seeds_start(struct engine *e)
{
    e->seeds = mem_zalloc(sizeof(*e->seeds));
    take_settings(e);
}

void engine_seeds_reload(struct engine *e)
{
    take_settings(e);
}

unsigned engine_seeds_pending(const struct engine *e)
{
    return e->seeds ? e->seeds->lookups : 0;
}

void engine_seeds_fini(struct engine *e)
{
    if (!e->seeds)
        return;
    INVARIANT(e->seeds->lookups == 0);
    settings_unref(e->seeds->settings);
    free(e->seeds);
    e->seeds = NULL;
}
