/* SPDX-License-Identifier: Apache-2.0 */
/* A route once it is known: what it says, and the addresses of its hops. */
#include "node/delivery/route.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/random.h"
#include "node/delivery/route_internal.h"

#define ADDRESSES_MAX 32

struct route *route_new(struct route_us *us, const struct route_dns *dns)
{
    struct arena *arena = arena_new(768);
    struct route *route = arena_alloc(arena, sizeof(*route));
    route->arena = arena;
    route->us = route_us_ref(us);
    route->dns = *dns;
    route->why = route->name = route->auth_file = "";
    atomic_init(&route->refs, 1);
    return route;
}

struct route *route_ref(struct route *route)
{
    atomic_fetch_add_explicit(&route->refs, 1, memory_order_relaxed);
    return route;
}

void route_unref(struct route *route)
{
    if (!route || atomic_fetch_sub_explicit(&route->refs, 1, memory_order_acq_rel) != 1)
        return;
    route_us_unref(route->us);
    arena_free(route->arena);
}

enum err route_result(const struct route *route)
{
    return route->result;
}

const char *route_why(const struct route *route)
{
    return route->why;
}

uint64_t route_key(const struct route *route)
{
    return route->key;
}

const char *route_name(const struct route *route)
{
    return route->name;
}

bool route_is_stale(const struct route *route, struct mono now)
{
    return now.ns >= route->expires.ns;
}

enum delivery_tls route_tls(const struct route *route)
{
    return route->tls;
}

const char *route_auth_file(const struct route *route)
{
    return route->auth_file;
}

enum dns_security route_security(const struct route *route)
{
    return route->security;
}

bool route_by_mx(const struct route *route)
{
    return route->by_mx;
}

unsigned route_hop_count(const struct route *route)
{
    return route->host_count;
}

const struct route_hop *route_hop(const struct route *route, unsigned hop)
{
    INVARIANT(hop < route->host_count);
    return &route->hosts[hop].hop;
}

const struct ipaddr *route_hop_ips(
    const struct route *route, unsigned hop, unsigned *count_out, const char **why_out)
{
    const struct route_host *host = &route->hosts[hop];
    *count_out = host->known ? host->ip_count : 0;
    *why_out = host->known && host->why ? host->why : "";
    return host->known ? host->ips : NULL;
}

void route_order(const struct route *route, uint8_t order[ROUTE_HOPS_MAX])
{
    unsigned start = 0;
    for (unsigned i = 0; i < route->host_count; i++) {
        const struct route_host *host = &route->hosts[i];
        if (host->hop.preference != route->hosts[start].hop.preference)
            start = i;
        unsigned j = start + (unsigned)random_below(i - start + 1);
        order[i] = order[j];
        order[j] = (uint8_t)i;
    }
}

/* ---- addresses ---- */

/* What the addresses that were found mean for us; those that can be used go to `out`. */
static enum err judge(const struct route *route, const struct route_hop *hop,
    const struct host_addresses *found, struct ipaddr *out, unsigned *count)
{
    const struct route_us *us = route->us;
    *count = 0;
    if (found->result != ERR_OK)
        return route->foreign || err_class(found->result) == ERR_CLASS_TRANSIENT
                   ? found->result
                   : ERR_NO_USABLE_ADDRESS;
    for (unsigned i = 0; i < found->count; i++) {
        struct netaddr a = {found->ips[i], hop->port};
        if (route->foreign ? route_us_is_address(us, a) : route_us_is_listener(us, a))
            return route->foreign ? ERR_MAIL_LOOP : ERR_NO_USABLE_ADDRESS;
        if (route_us_may_use(us, a.ip))
            out[(*count)++] = a.ip;
    }
    return *count ? ERR_OK : ERR_NO_USABLE_ADDRESS;
}

static const char *judge_text(const struct route *route, enum err result)
{
    return result == ERR_MAIL_LOOP ? "the host is ourselves"
           : route->foreign        ? "the host has no address that mail can be sent to"
                                   : "the host is ourselves, or has no usable address";
}

void route_host_take(
    struct route *route, struct route_host *host, const struct host_addresses *found)
{
    struct ipaddr ips[ADDRESSES_MAX];
    host->known = true;
    host->security = found->security;
    host->result = judge(route, &host->hop, found, ips, &host->ip_count);
    host->why = "";
    if (found->why && found->why[0])
        host->why = arena_strdup(route->arena, slice_str(found->why));
    else if (host->result != ERR_OK)
        host->why = arena_printf(
            route->arena, "%s: %s", host->hop.name, judge_text(route, host->result))
                        .ptr;
    if (host->result != ERR_OK)
        host->ip_count = 0;
    host->ips = arena_alloc(route->arena, host->ip_count * sizeof(*ips));
    memcpy(host->ips, ips, host->ip_count * sizeof(*ips));
}

/* Order within a family by a hash with the asker's own salt: connections spread over the
 * addresses, and whoever asks twice finds them where they were. */
static void spread(struct netaddr *list, unsigned count, uint64_t salt)
{
    uint64_t rank[ADDRESSES_MAX];
    for (unsigned i = 0; i < count; i++) {
        struct netaddr a = list[i];
        uint64_t r = slice_hash(slice_make(a.ip.bytes, sizeof(a.ip.bytes)), salt);
        unsigned j = i;
        for (; j > 0 && rank[j - 1] > r; j--) {
            rank[j] = rank[j - 1];
            list[j] = list[j - 1];
        }
        rank[j] = r;
        list[j] = a;
    }
}

/* IPv6 first, then in turns. */
static void give(struct route_lookup *l, const struct route_hop *hop,
    const struct ipaddr *ips, unsigned count)
{
    struct netaddr v4[ADDRESSES_MAX], v6[ADDRESSES_MAX];
    unsigned four = 0, six = 0;
    uint64_t salt = (uint64_t)(uintptr_t)l;
    for (unsigned i = 0; i < count; i++) {
        struct netaddr a = {ips[i], hop->port};
        if (a.ip.family == 6)
            v6[six++] = a;
        else
            v4[four++] = a;
    }
    spread(v4, four, salt);
    spread(v6, six, salt);
    l->count = 0;
    for (unsigned i = 0; i < six || i < four; i++) {
        if (i < six)
            l->addresses[l->count++] = v6[i];
        if (i < four)
            l->addresses[l->count++] = v4[i];
    }
}

static void lookup_answered(struct host_query *q, void *owner)
{
    struct route_lookup *l = CONTAINER_OF(q, struct route_lookup, host);
    struct route *route = l->route;
    const struct route_hop *hop = &route->hosts[l->hop].hop;
    struct ipaddr ips[ADDRESSES_MAX];
    unsigned count = 0;
    l->result = judge(route, hop, &q->found, ips, &count);
    l->security = q->found.security;
    l->why = q->found.why ? q->found.why : "";
    if (l->result != ERR_OK && !l->why[0])
        l->why = judge_text(route, l->result);
    if (l->result == ERR_OK)
        give(l, hop, ips, count);
    l->route = NULL;
    route_unref(route);
    l->done(l, owner);
}

bool route_addresses(struct route *route, unsigned hop, struct route_lookup *l)
{
    INVARIANT(hop < route->host_count);
    const struct route_host *host = &route->hosts[hop];
    l->hop = hop;
    l->count = 0;
    if (host->known) {
        l->result = host->result;
        l->why = host->why;
        l->security = host->security;
        give(l, &host->hop, host->ips, host->ip_count);
        return true;
    }
    l->route = route_ref(route);
    l->host = (struct host_query){.want_v4 = route->us->ipv4,
        .want_v6 = route->us->ipv6,
        .reply_to = l->reply_to,
        .done = lookup_answered};
    snprintf(l->host.name, sizeof(l->host.name), "%s", host->hop.name);
    route->dns.ask_host(route->dns.resolver, &l->host);
    return false;
}

/* ---- the destination ---- */

static int by_name(const void *a, const void *b)
{
    const struct route_host *const *x = a, *const *y = b;
    int order = strcmp((*x)->hop.name, (*y)->hop.name);
    return order ? order : (int)(*x)->hop.port - (int)(*y)->hop.port;
}

/* The same on every node, for the limits that they share; and not to be chosen by who
 * names the hosts, so that nobody takes another destination's share. */
static void add_to_key(EVP_MD_CTX *md, struct slice text, uint64_t number)
{
    uint64_t head[2] = {text.len, number};
    INVARIANT(EVP_DigestUpdate(md, head, sizeof(head)) == 1 &&
              EVP_DigestUpdate(md, text.ptr, text.len) == 1);
}

void route_seal(struct route *route)
{
    const struct route_host *sorted[ROUTE_HOPS_MAX];
    unsigned char sum[32];
    if (route->host_count == 0)
        return;
    for (unsigned i = 0; i < route->host_count; i++)
        sorted[i] = &route->hosts[i];
    qsort(sorted, route->host_count, sizeof(*sorted), by_name);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    INVARIANT(md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1);
    for (unsigned i = 0; i < route->host_count; i++)
        add_to_key(md, slice_str(sorted[i]->hop.name), sorted[i]->hop.port);
    add_to_key(md, slice_str(route->auth_file), (uint64_t)route->tls);
    INVARIANT(EVP_DigestFinal_ex(md, sum, NULL) == 1);
    EVP_MD_CTX_free(md);
    memcpy(&route->key, sum, sizeof(route->key));
    const struct route_hop *best = &route->hosts[0].hop;
    route->name = best->port == 25
                      ? best->name
                      : arena_printf(route->arena, "%s:%u", best->name, best->port).ptr;
}
