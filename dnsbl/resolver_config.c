/* SPDX-License-Identifier: Apache-2.0 */
#include "dnsbl/resolver_internal.h"

#include <stdio.h>

#include "base/alloc.h"
#include "dnsbl/wire.h"

static bool copy_zone(struct resolver_config *c, const char *text, const char **out,
    char *why, size_t why_size)
{
    char zone[256];
    if (!dns_name_check(slice_str(text), zone)) {
        snprintf(why, why_size, "resolver: '%.100s' is not a domain name", text);
        return false;
    }
    *out = arena_strdup(c->arena, slice_str(zone));
    return true;
}

static bool copy_zones(
    struct resolver_config *c, const struct settings *s, char *why, size_t why_size)
{
    c->stub_count = s->resolver.stub_count;
    c->stubs = arena_alloc(c->arena, c->stub_count * sizeof(*c->stubs));
    for (unsigned i = 0; i < c->stub_count; i++) {
        c->stubs[i] = s->resolver.stubs[i];
        if (!copy_zone(c, s->resolver.stubs[i].zone, &c->stubs[i].zone, why, why_size))
            return false;
    }
    c->insecure_count = s->resolver.insecure.count;
    c->insecure = arena_alloc(c->arena, c->insecure_count * sizeof(*c->insecure));
    for (unsigned i = 0; i < c->insecure_count; i++)
        if (!copy_zone(c, s->resolver.insecure.items[i], &c->insecure[i], why, why_size))
            return false;
    return true;
}

/* libunbound refuses it, and says it in a way that nobody understands. */
static bool check_conflict(
    const struct resolver_config *c, const char *zone, char *why, size_t why_size)
{
    for (unsigned i = 0; i < c->anchor_count; i++)
        if (strcmp(c->anchors[i].zone, zone) == 0) {
            snprintf(why, why_size,
                "resolver: zone %.100s is insecure and has a trust anchor: it can be "
                "only one",
                *zone ? zone : ".");
            return false;
        }
    return true;
}

static bool check_conflicts(const struct resolver_config *c, char *why, size_t why_size)
{
    for (unsigned i = 0; i < c->insecure_count; i++)
        if (!check_conflict(c, c->insecure[i], why, why_size))
            return false;
    for (unsigned i = 0; i < c->stub_count; i++)
        if (c->stubs[i].insecure && !check_conflict(c, c->stubs[i].zone, why, why_size))
            return false;
    return true;
}

struct resolver_config *resolver_config_new(
    const struct settings *s, char *why, size_t why_size)
{
    struct arena *arena = arena_new(1024);
    struct resolver_config *c = arena_alloc(arena, sizeof(*c));
    c->arena = arena;
    c->data_dir = arena_strdup(arena, slice_str(s->data_dir));
    c->trust_anchor = arena_strdup(arena, slice_str(s->resolver.trust_anchor));
    c->bogus_name = arena_strdup(arena, slice_str(s->resolver.bogus_test));
    c->cache_bytes = s->resolver.cache_bytes;
    c->dnssec = s->resolver.dnssec;
    c->forward_count = s->resolver.forward_count;
    c->forward = arena_alloc(arena, c->forward_count * sizeof(*c->forward));
    if (c->forward_count)
        memcpy(c->forward, s->resolver.forward, c->forward_count * sizeof(*c->forward));
    if (copy_zones(c, s, why, why_size) &&
        (!c->dnssec || (resolver_anchors_prepare(c, false, why, why_size) &&
                           check_conflicts(c, why, why_size))))
        return c;
    resolver_config_free(c);
    return NULL;
}

void resolver_config_free(struct resolver_config *c)
{
    if (c)
        arena_free(c->arena);
}

static bool netaddr_same(struct netaddr a, struct netaddr b)
{
    return a.port == b.port && ipaddr_eq(a.ip, b.ip);
}

static bool same_lists(const struct resolver_config *a, const struct resolver_config *b)
{
    if (a->forward_count != b->forward_count || a->stub_count != b->stub_count ||
        a->insecure_count != b->insecure_count)
        return false;
    for (unsigned i = 0; i < a->forward_count; i++)
        if (!netaddr_same(a->forward[i], b->forward[i]))
            return false;
    for (unsigned i = 0; i < a->stub_count; i++)
        if (strcmp(a->stubs[i].zone, b->stubs[i].zone) != 0 ||
            !netaddr_same(a->stubs[i].address, b->stubs[i].address) ||
            a->stubs[i].insecure != b->stubs[i].insecure)
            return false;
    for (unsigned i = 0; i < a->insecure_count; i++)
        if (strcmp(a->insecure[i], b->insecure[i]) != 0)
            return false;
    return true;
}

bool resolver_config_same(
    const struct resolver_config *a, const struct resolver_config *b)
{
    return a->dnssec == b->dnssec && a->cache_bytes == b->cache_bytes &&
           strcmp(a->data_dir, b->data_dir) == 0 &&
           strcmp(a->trust_anchor, b->trust_anchor) == 0 &&
           strcmp(a->bogus_name, b->bogus_name) == 0 &&
           a->anchor_source == b->anchor_source && same_lists(a, b);
}
