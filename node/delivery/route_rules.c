/* SPDX-License-Identifier: Apache-2.0 */
/* The rule table. Every entry of `routes` has a shape: which of user, sender and listener
 * it names. Entries are found by hash under shape, values and domain, so a match looks at
 * each shape in use (one, usually) times the labels of the domain, however long the list
 * is. The shapes are in order of specificity. */
#include "node/delivery/route_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/random.h"
#include "node/delivery/why.h"

enum sender_kind { SENDER_ADDRESS, SENDER_DOMAIN, SENDER_ANY, SENDER_KINDS };
#define SHAPES (2 * SENDER_KINDS * 2)
#define NULL_SENDER "<>" /* what a rule calls the null reverse-path */
#define KNOWN_FIRST 64

/* An entry of `routes`, or a relay domain (which has a table of its own). */
struct rule {
    uint64_t hash;
    int next; /* in its bucket, file order; -1: none */
    unsigned index;
    struct slice user, sender, listener, domain;
};

struct table {
    struct rule *rules;
    unsigned count;
    int *buckets;
    unsigned mask;
};

/* What a combination of sources came to; so that matching need not compare contents. */
struct known {
    int hop, tls, auth; /* as in struct choice */
    int rule;           /* -1: an empty place */
};

struct route_rules {
    struct settings *settings;
    uint64_t key;
    struct arena *arena; /* of the tables; new with each settings */
    struct table routes, relays;
    bool shape_used[SHAPES];
    bool suffixes_used;  /* some route or relay domain begins with a dot */
    struct known *known; /* open addressing; at most half full */
    unsigned known_count, known_mask;
    struct arena *kept; /* of the treatments, which are for good */
    struct treatment **treatments;
    unsigned treatment_count, treatment_cap;
};

/* Who decides what: index in settings->routes, or one of these. */
enum { BY_DNS = -1, NOBODY = -2, BY_RELAY = -3 /* and below: BY_RELAY - index */ };
/* No padding: it is hashed as bytes. */
struct choice {
    int hop, tls, auth;
};

/* ---- tables ---- */

static uint64_t hash_rule(uint64_t key, const struct rule *r)
{
    uint64_t h = slice_hash(r->user, key);
    h = slice_hash_nocase(r->sender, h);
    h = slice_hash(r->listener, h);
    return slice_hash_nocase(r->domain, h);
}

static void table_init(struct table *t, struct arena *arena, unsigned count)
{
    unsigned buckets = 16;
    while (buckets < count * 2)
        buckets *= 2;
    t->rules = arena_alloc(arena, count * sizeof(*t->rules));
    t->buckets = arena_alloc(arena, buckets * sizeof(*t->buckets));
    for (unsigned i = 0; i < buckets; i++)
        t->buckets[i] = -1;
    t->mask = buckets - 1;
    t->count = 0;
}

static void table_add(struct table *t, uint64_t key, struct rule rule)
{
    rule.hash = hash_rule(key, &rule);
    rule.next = -1;
    int *end = &t->buckets[rule.hash & t->mask];
    while (*end >= 0)
        end = &t->rules[*end].next;
    *end = (int)t->count;
    t->rules[t->count++] = rule;
}

static bool same(const struct rule *a, const struct rule *b)
{
    return a->hash == b->hash && slice_eq(a->user, b->user) &&
           slice_eq_nocase(a->sender, b->sender) && slice_eq(a->listener, b->listener) &&
           slice_eq_nocase(a->domain, b->domain);
}

/* The first entry like `want` from number `i` on; -1: none. */
static int table_next(const struct table *t, const struct rule *want, int i)
{
    while (i >= 0 && !same(&t->rules[i], want))
        i = t->rules[i].next;
    return i;
}

static int table_find(const struct table *t, const struct rule *want)
{
    return table_next(t, want, t->buckets[want->hash & t->mask]);
}

/* ---- from settings ---- */

static enum sender_kind sender_kind(struct slice sender)
{
    return sender.len == 0        ? SENDER_ANY
           : sender.ptr[0] == '@' ? SENDER_DOMAIN
                                  : SENDER_ADDRESS;
}

/* Most specific first. */
static unsigned shape_of(bool user, enum sender_kind sender, bool listener)
{
    return ((user ? 0u : 1u) * SENDER_KINDS + (unsigned)sender) * 2 +
           (listener ? 0u : 1u);
}

static struct slice domain_key(const char *domain)
{
    return strcmp(domain, "*") == 0 ? slice_str("") : slice_str(domain);
}

static void read_routes(struct route_rules *rules, const struct settings *s)
{
    table_init(&rules->routes, rules->arena, s->route_count);
    memset(rules->shape_used, 0, sizeof(rules->shape_used));
    for (unsigned i = 0; i < s->route_count; i++) {
        const struct route_settings *r = &s->routes[i];
        struct rule rule = {.index = i,
            .user = slice_str(r->user),
            .sender = slice_str(r->sender),
            .listener = slice_str(r->listener),
            .domain = domain_key(r->domain)};
        table_add(&rules->routes, rules->key, rule);
        rules->shape_used[shape_of(
            rule.user.len > 0, sender_kind(rule.sender), rule.listener.len > 0)] = true;
        rules->suffixes_used |= rule.domain.len && rule.domain.ptr[0] == '.';
    }
}

static void read_relays(struct route_rules *rules, const struct settings *s)
{
    table_init(&rules->relays, rules->arena, s->relay_domain_count);
    for (unsigned i = 0; i < s->relay_domain_count; i++) {
        struct rule rule = {.index = i, .domain = slice_str(s->relay_domains[i].domain)};
        table_add(&rules->relays, rules->key, rule);
        rules->suffixes_used |= rule.domain.len && rule.domain.ptr[0] == '.';
    }
}

static void forget_known(struct route_rules *rules, unsigned places)
{
    free(rules->known);
    rules->known = mem_alloc(places * sizeof(*rules->known));
    for (unsigned i = 0; i < places; i++)
        rules->known[i].rule = -1;
    rules->known_mask = places - 1;
    rules->known_count = 0;
}

struct route_rules *route_rules_new(void)
{
    struct route_rules *rules = mem_zalloc(sizeof(*rules));
    rules->key = random_u64();
    rules->kept = arena_new(1024);
    return rules;
}

void route_rules_set(struct route_rules *rules, struct settings *settings)
{
    struct settings *old = rules->settings;
    arena_free(rules->arena);
    rules->arena = arena_new(4096);
    rules->settings = settings_ref(settings);
    forget_known(rules, KNOWN_FIRST);
    rules->suffixes_used = false;
    read_routes(rules, settings);
    read_relays(rules, settings);
    settings_unref(old);
}

void route_rules_free(struct route_rules *rules)
{
    if (!rules)
        return;
    free(rules->treatments);
    free(rules->known);
    arena_free(rules->kept);
    arena_free(rules->arena);
    settings_unref(rules->settings);
    free(rules);
}

/* ---- treatments: by content, for good ---- */

static enum delivery_tls tls_from_text(const char *text)
{
    return strcmp(text, "none") == 0      ? DELIVERY_TLS_NONE
           : strcmp(text, "encrypt") == 0 ? DELIVERY_TLS_ENCRYPT
           : strcmp(text, "verify") == 0  ? DELIVERY_TLS_VERIFY
                                          : DELIVERY_TLS_MAY;
}

static const struct next_hop *hop_of(const struct settings *s, int hop)
{
    if (hop <= BY_RELAY)
        return &s->relay_domains[BY_RELAY - hop].next_hop;
    return hop >= 0 ? &s->routes[hop].next_hop : NULL;
}

/* Borrowed from the settings. */
static struct treatment treatment_of(const struct settings *s, const struct choice *c)
{
    const struct next_hop *next = hop_of(s, c->hop);
    struct treatment t = {
        .tls = c->tls >= 0 ? s->routes[c->tls].tls : tls_from_text(s->delivery.tls),
        .auth_file = c->auth >= 0 ? s->routes[c->auth].auth_file : ""};
    if (!next || next->by_mx) {
        t.kind = c->hop <= BY_RELAY ? TREAT_RELAY_MX : TREAT_MX;
        return t;
    }
    t.kind = TREAT_HOPS;
    t.hops = next->hops;
    t.hop_count = next->hop_count < ROUTE_HOPS_MAX ? next->hop_count : ROUTE_HOPS_MAX;
    return t;
}

static bool same_hop(const struct hop *a, const struct hop *b)
{
    return strcmp(a->host, b->host) == 0 && a->port == b->port &&
           a->address.port == b->address.port && ipaddr_eq(a->address.ip, b->address.ip);
}

static bool same_treatment(const struct treatment *a, const struct treatment *b)
{
    if (a->kind != b->kind || a->tls != b->tls || a->hop_count != b->hop_count ||
        strcmp(a->auth_file, b->auth_file) != 0)
        return false;
    for (unsigned i = 0; i < a->hop_count; i++)
        if (!same_hop(&a->hops[i], &b->hops[i]))
            return false;
    return true;
}

static int keep_treatment(struct route_rules *rules, const struct treatment *t)
{
    for (unsigned i = 0; i < rules->treatment_count; i++)
        if (same_treatment(rules->treatments[i], t))
            return (int)i;
    struct treatment *copy = arena_alloc(rules->kept, sizeof(*copy));
    *copy = *t;
    copy->auth_file = arena_strdup(rules->kept, slice_str(t->auth_file));
    copy->hops = arena_alloc(rules->kept, t->hop_count * sizeof(*copy->hops));
    for (unsigned i = 0; i < t->hop_count; i++) {
        copy->hops[i] = t->hops[i];
        copy->hops[i].host = arena_strdup(rules->kept, slice_str(t->hops[i].host));
    }
    if (rules->treatment_count == rules->treatment_cap) {
        rules->treatment_cap = rules->treatment_cap * 2 + 8;
        rules->treatments = mem_realloc(
            rules->treatments, rules->treatment_cap * sizeof(struct treatment *));
    }
    rules->treatments[rules->treatment_count] = copy;
    return (int)rules->treatment_count++;
}

const struct treatment *route_rules_treatment(const struct route_rules *rules, int rule)
{
    INVARIANT(rule >= 0 && (unsigned)rule < rules->treatment_count);
    return rules->treatments[rule];
}

/* Where the choice is, or the empty place where it belongs. */
static struct known *known_place(const struct route_rules *rules, const struct choice *c)
{
    uint64_t h = slice_hash(slice_make(c, sizeof(*c)), rules->key);
    for (unsigned i = (unsigned)h & rules->known_mask;; i = (i + 1) & rules->known_mask) {
        struct known *k = &rules->known[i];
        if (k->rule < 0 || (k->hop == c->hop && k->tls == c->tls && k->auth == c->auth))
            return k;
    }
}

static void grow_known(struct route_rules *rules)
{
    struct known *old = rules->known;
    unsigned count = rules->known_mask + 1;
    rules->known = NULL;
    forget_known(rules, count * 2);
    for (unsigned i = 0; i < count; i++) {
        struct choice c = {.hop = old[i].hop, .tls = old[i].tls, .auth = old[i].auth};
        if (old[i].rule < 0)
            continue;
        *known_place(rules, &c) = old[i];
        rules->known_count++;
    }
    free(old);
}

static int rule_of(struct route_rules *rules, const struct choice *c)
{
    struct known *k = known_place(rules, c);
    if (k->rule >= 0)
        return k->rule;
    struct treatment t = treatment_of(rules->settings, c);
    int rule = keep_treatment(rules, &t);
    *k = (struct known){.hop = c->hop, .tls = c->tls, .auth = c->auth, .rule = rule};
    if (++rules->known_count > rules->known_mask / 2)
        grow_known(rules);
    return rule;
}

/* ---- matching ---- */

/* Domains to look under: the domain, its parents as ".parent", and "" for any. */
static bool next_domain(const struct route_rules *rules, struct slice *at)
{
    if (at->len == 0)
        return false;
    size_t dot = rules->suffixes_used ? slice_find(slice_from(*at, 1), '.') + 1 : at->len;
    *at = at->ptr[0] == '[' ? slice_from(*at, at->len) : slice_from(*at, dot);
    return true;
}

static int find_relay(const struct route_rules *rules, struct slice domain)
{
    for (bool more = rules->relays.count > 0; more && domain.len;
         more = next_domain(rules, &domain)) {
        struct rule want = {.domain = domain};
        want.hash = hash_rule(rules->key, &want);
        int found = table_find(&rules->relays, &want);
        if (found >= 0)
            return BY_RELAY - (int)rules->relays.rules[found].index;
    }
    return NOBODY;
}

/* An entry that matches, in order of specificity. True: no other need be looked at. */
static bool consider(const struct route_settings *r, int index, struct choice *c)
{
    bool gives_hop = r->has_next_hop;
    if (gives_hop && c->hop != NOBODY)
        return false; /* written for another hop: nothing of it applies */
    if (r->has_tls && c->tls == NOBODY)
        c->tls = index;
    if (r->auth_file[0] && c->auth == NOBODY)
        c->auth = index;
    if (gives_hop)
        c->hop = index;
    return gives_hop;
}

static bool consider_all(
    const struct route_rules *rules, const struct rule *want, struct choice *c)
{
    int i = table_find(&rules->routes, want);
    while (i >= 0) {
        const struct rule *rule = &rules->routes.rules[i];
        if (consider(&rules->settings->routes[rule->index], (int)rule->index, c))
            return true;
        i = table_next(&rules->routes, want, rule->next);
    }
    return false;
}

static struct slice sender_key(const struct route_facts *f, enum sender_kind kind)
{
    struct slice sender = f->sender.len ? f->sender : SLICE(NULL_SENDER);
    if (kind == SENDER_ANY)
        return slice_make("", 0);
    return kind == SENDER_ADDRESS ? sender : slice_from(sender, slice_rfind(sender, '@'));
}

static bool consider_shape(struct route_rules *rules, unsigned shape,
    const struct route_facts *f, struct choice *c)
{
    bool user = shape < SHAPES / 2, listener = shape % 2 == 0;
    enum sender_kind kind = (enum sender_kind)(shape / 2 % SENDER_KINDS);
    struct rule want = {.sender = sender_key(f, kind)};
    if (user)
        want.user = f->user;
    if (listener)
        want.listener = f->listener;
    if ((user && want.user.len == 0) || (listener && want.listener.len == 0) ||
        (kind != SENDER_ANY && want.sender.len == 0))
        return false;
    want.domain = f->domain;
    do {
        want.hash = hash_rule(rules->key, &want);
        if (consider_all(rules, &want, c))
            return true;
    } while (next_domain(rules, &want.domain));
    return false;
}

static struct choice choose(struct route_rules *rules, const struct route_facts *facts)
{
    struct choice c = {
        .hop = find_relay(rules, facts->domain), .tls = NOBODY, .auth = NOBODY};
    for (unsigned shape = 0; shape < SHAPES; shape++)
        if (rules->shape_used[shape] && consider_shape(rules, shape, facts, &c))
            break;
    if (c.hop == NOBODY)
        c.hop = BY_DNS;
    return c;
}

int route_rules_match(struct route_rules *rules, const struct route_facts *facts)
{
    struct choice c = choose(rules, facts);
    return rule_of(rules, &c);
}

void route_rules_origin(
    struct route_rules *rules, const struct route_facts *facts, struct route_origin *out)
{
    struct choice c = choose(rules, facts);
    const struct settings *s = rules->settings;
    const char *entry = "";
    *out = (struct route_origin){.kind = ROUTE_FROM_DNS};
    if (c.hop >= 0) {
        out->kind = ROUTE_FROM_ROUTES;
        out->line = s->routes[c.hop].line;
        entry = s->routes[c.hop].domain[0] ? s->routes[c.hop].domain : "*";
    } else if (c.hop <= BY_RELAY) {
        out->kind = ROUTE_FROM_RELAY_DOMAINS;
        out->line = s->relay_domains[BY_RELAY - c.hop].line;
        entry = s->relay_domains[BY_RELAY - c.hop].domain;
    }
    snprintf(out->entry, sizeof(out->entry), "%s", entry);
}
