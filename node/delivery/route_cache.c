/* SPDX-License-Identifier: Apache-2.0 */
/* The router: rules, and the cache of routes. One entry per (domain, rule), or per rule
 * alone where the domain does not matter. Askers of an unknown route wait in its entry;
 * so many lookups run at one time, the rest in line. */
#include <stdlib.h>

#include "base/alloc.h"
#include "base/metrics.h"
#include "base/random.h"
#include "node/delivery/route_internal.h"

#define BUCKETS 8192

struct asker {
    STAILQ_ENTRY(asker) next;
    route_fn *done;
    void *ctx;
};

STAILQ_HEAD(asker_list, asker);

enum entry_state { ENTRY_WAITING, ENTRY_LOOKING_UP, ENTRY_KNOWN };

struct entry {
    LIST_ENTRY(entry) bucket;
    TAILQ_ENTRY(entry) line; /* KNOWN: by last use; WAITING: in line */
    struct router *router;
    uint64_t hash;
    int rule;
    enum entry_state state;
    bool orphan; /* in no table any more: a reload or a stop came between */
    struct route *route;
    struct asker_list askers;
    size_t domain_len;
    char domain[];
};

TAILQ_HEAD(entry_line, entry);

struct router {
    struct loop *loop;
    struct route_dns dns;
    struct route_rules *rules;
    struct route_us *us;
    uint64_t hash_key;
    LIST_HEAD(, entry) buckets[BUCKETS];
    struct entry_line known, waiting;
    unsigned known_count, looking_up;
    bool
        starting; /* a lookup that needs no DNS ends where it starts: no recursion then */
    bool stopped;
};

/* ---- entries ---- */

static struct entry *find(struct router *r, uint64_t hash, struct slice domain, int rule)
{
    struct entry *e;
    LIST_FOREACH (e, &r->buckets[hash % BUCKETS], bucket) {
        if (e->hash == hash && e->rule == rule &&
            slice_eq(slice_make(e->domain, e->domain_len), domain))
            return e;
    }
    return NULL;
}

static struct entry *add(struct router *r, uint64_t hash, struct slice domain, int rule)
{
    struct entry *e = mem_zalloc(sizeof(*e) + domain.len + 1);
    e->router = r;
    e->hash = hash;
    e->rule = rule;
    e->domain_len = domain.len;
    if (domain.len)
        memcpy(e->domain, domain.ptr, domain.len);
    STAILQ_INIT(&e->askers);
    LIST_INSERT_HEAD(&r->buckets[hash % BUCKETS], e, bucket);
    return e;
}

static void count_known(struct router *r, int change)
{
    r->known_count += (unsigned)change;
    metric_set(METRIC_routes_cached, r->known_count);
}

static void take_out(struct entry *e)
{
    struct router *r = e->router;
    if (e->orphan)
        return;
    LIST_REMOVE(e, bucket);
    if (e->state == ENTRY_KNOWN) {
        TAILQ_REMOVE(&r->known, e, line);
        count_known(r, -1);
    } else if (e->state == ENTRY_WAITING) {
        TAILQ_REMOVE(&r->waiting, e, line);
    }
    e->orphan = true;
}

static void drop(struct entry *e)
{
    take_out(e);
    route_unref(e->route);
    free(e);
}

static void become_known(struct entry *e, struct route *route)
{
    struct router *r = e->router;
    e->state = ENTRY_KNOWN;
    e->route = route_ref(route);
    TAILQ_INSERT_TAIL(&r->known, e, line);
    count_known(r, 1);
    if (r->known_count > ROUTE_CACHE_MAX)
        drop(TAILQ_FIRST(&r->known));
}

/* Askers may ask again from within `done`, and make their entry go: they leave it first.
 */
static void answer(struct entry *e, struct route *route)
{
    struct asker_list list = STAILQ_HEAD_INITIALIZER(list);
    struct asker *a;
    STAILQ_CONCAT(&list, &e->askers);
    while ((a = STAILQ_FIRST(&list))) {
        STAILQ_REMOVE_HEAD(&list, next);
        a->done(route_ref(route), a->ctx);
        free(a);
    }
}

/* ---- lookups ---- */

static void start_waiting(struct router *r);

static void looked_up(struct route *route, void *ctx)
{
    struct entry *e = ctx;
    struct router *r = e->router;
    r->looking_up--;
    bool orphan = e->orphan;
    if (!orphan)
        become_known(e, route);
    answer(e, route);
    if (orphan)
        free(e);
    route_unref(route);
    start_waiting(r);
}

static void start(struct router *r, struct entry *e)
{
    const struct treatment *t = route_rules_treatment(r->rules, e->rule);
    e->state = ENTRY_LOOKING_UP;
    r->looking_up++;
    metric_add(METRIC_route_lookups_total, 1);
    lookup_start(
        r->loop, &r->dns, r->us, t, slice_make(e->domain, e->domain_len), looked_up, e);
}

static void start_waiting(struct router *r)
{
    struct entry *e;
    if (r->starting)
        return;
    r->starting = true;
    while (r->looking_up < ROUTE_LOOKUPS_MAX && (e = TAILQ_FIRST(&r->waiting))) {
        TAILQ_REMOVE(&r->waiting, e, line);
        start(r, e);
    }
    r->starting = false;
}

/* ---- asking ---- */

static struct route *refusal(struct router *r, enum err result)
{
    struct route *route = route_new(r->us, &r->dns);
    route->result = result;
    route->why = err_text(result);
    route->expires = loop_now(r->loop);
    return route;
}

static void wait_for(struct entry *e, route_fn *done, void *ctx)
{
    struct asker *a = mem_alloc(sizeof(*a));
    *a = (struct asker){.done = done, .ctx = ctx};
    STAILQ_INSERT_TAIL(&e->askers, a, next);
}

void router_ask(
    struct router *r, struct slice domain, int rule, route_fn *done, void *ctx)
{
    if (r->stopped) {
        done(refusal(r, ERR_SHUTTING_DOWN), ctx);
        return;
    }
    if (route_rules_treatment(r->rules, rule)->kind == TREAT_HOPS)
        domain = slice_make("", 0);
    uint64_t hash = slice_hash(domain, r->hash_key + (uint64_t)rule);
    struct entry *e = find(r, hash, domain, rule);
    if (e && e->state == ENTRY_KNOWN) {
        if (!route_is_stale(e->route, loop_now(r->loop))) {
            TAILQ_REMOVE(&r->known, e, line);
            TAILQ_INSERT_TAIL(&r->known, e, line);
            done(route_ref(e->route), ctx);
            return;
        }
        drop(e);
        e = NULL;
    }
    if (e) {
        wait_for(e, done, ctx);
        return;
    }
    e = add(r, hash, domain, rule);
    wait_for(e, done, ctx);
    e->state = ENTRY_WAITING;
    TAILQ_INSERT_TAIL(&r->waiting, e, line);
    start_waiting(r);
}

int router_match(struct router *r, const struct route_facts *facts)
{
    return route_rules_match(r->rules, facts);
}

void router_origin(
    struct router *r, const struct route_facts *facts, struct route_origin *out)
{
    route_rules_origin(r->rules, facts, out);
}

void router_forget(struct router *r, struct slice domain)
{
    struct entry *e = TAILQ_FIRST(&r->known);
    while (e) {
        struct entry *next = TAILQ_NEXT(e, line);
        if (slice_eq(slice_make(e->domain, e->domain_len), domain))
            drop(e);
        e = next;
    }
}

/* ---- life ---- */

struct router *router_new(
    struct loop *loop, const struct route_dns *dns, struct settings *settings)
{
    struct router *r = mem_zalloc(sizeof(*r));
    r->loop = loop;
    r->dns = *dns;
    if (!r->dns.ask_mx)
        r->dns.ask_mx = resolver_ask_mx;
    if (!r->dns.ask_host)
        r->dns.ask_host = resolver_ask_host;
    r->hash_key = random_u64();
    r->rules = route_rules_new();
    TAILQ_INIT(&r->known);
    TAILQ_INIT(&r->waiting);
    router_reload(r, settings);
    return r;
}

/* What is under way ends under the old settings, for those who asked under them. */
void router_reload(struct router *r, struct settings *settings)
{
    struct entry *e;
    for (unsigned i = 0; i < BUCKETS; i++)
        while ((e = LIST_FIRST(&r->buckets[i]))) {
            if (e->state == ENTRY_KNOWN)
                drop(e);
            else if (e->state == ENTRY_LOOKING_UP)
                take_out(e);
            else
                LIST_REMOVE(e, bucket); /* back below: it has not begun */
        }
    TAILQ_FOREACH (e, &r->waiting, line)
        LIST_INSERT_HEAD(&r->buckets[e->hash % BUCKETS], e, bucket);
    route_rules_set(r->rules, settings);
    route_us_unref(r->us);
    r->us = route_us_new(settings);
}

void router_stop(struct router *r)
{
    struct entry *e;
    struct route *route = refusal(r, ERR_SHUTTING_DOWN);
    r->stopped = true;
    for (unsigned i = 0; i < BUCKETS; i++)
        while ((e = LIST_FIRST(&r->buckets[i]))) {
            bool known_or_waiting = e->state != ENTRY_LOOKING_UP;
            take_out(e);
            answer(e, route);
            if (known_or_waiting)
                drop(e);
        }
    route_unref(route);
}

unsigned router_pending(const struct router *r)
{
    return r->looking_up;
}

void router_free(struct router *r)
{
    if (!r)
        return;
    if (!r->stopped)
        router_stop(r);
    INVARIANT(r->looking_up == 0);
    route_rules_free(r->rules);
    route_us_unref(r->us);
    free(r);
}
