/* SPDX-License-Identifier: Apache-2.0 */
#include "node/intake/open_relay.h"

#include <libpsl.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"

#define WIDEST_V4 8
#define WIDEST_V6 32
/* Public addresses that all networks of a list may hold together: two /8, or 256 IPv6
 * /32. The largest organisations hold less. */
#define V4_TOGETHER (UINT64_C(2) << 24)
#define V6_TOGETHER UINT64_C(256)

bool open_relay_too_wide(struct cidr net, char *why, size_t why_size)
{
    char text[NETADDR_TEXT_MAX];
    unsigned widest = net.ip.family == 4 ? WIDEST_V4 : WIDEST_V6;
    if (net.bits >= widest)
        return false;
    cidr_format(net, text);
    snprintf(why, why_size, "%s is wider than /%u", text, widest);
    return true;
}

/* --- a default route in disguise --- */

/* Nobody out there comes from these (RFC 6890), so they count for nothing. */
static bool is_private(struct cidr net)
{
    static const struct cidr ranges[] = {
        {{4, {10}}, 8},
        {{4, {127}}, 8},
        {{4, {172, 16}}, 12},
        {{4, {192, 168}}, 16},
        {{4, {169, 254}}, 16},
        {{4, {100, 64}}, 10},
    };
    for (unsigned i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
        if (net.bits >= ranges[i].bits && cidr_contains(ranges[i], net.ip))
            return true;
    return false;
}

struct range {
    uint64_t from, to; /* both in */
};

/* IPv4: addresses. IPv6: /64 networks, of which a /32 has 2^32. */
static struct range range_of(struct cidr net)
{
    unsigned bytes = net.ip.family == 4 ? 4 : 8, bits = bytes * 8;
    struct range r = {0};
    for (unsigned i = 0; i < bytes; i++)
        r.from = r.from << 8 | net.ip.bytes[i];
    unsigned host_bits = net.bits < bits ? bits - net.bits : 0;
    r.to = host_bits >= 64 ? UINT64_MAX : r.from | ((UINT64_C(1) << host_bits) - 1);
    return r;
}

static int by_start(const void *a, const void *b)
{
    const struct range *x = a, *y = b;
    return (x->from > y->from) - (x->from < y->from);
}

/* The union: overlaps count once. Stops short of overflow. */
static uint64_t covered(struct range *ranges, unsigned count)
{
    uint64_t sum = 0, next = 0;
    bool any = false;
    qsort(ranges, count, sizeof(*ranges), by_start);
    for (unsigned i = 0; i < count; i++) {
        uint64_t from = any && ranges[i].from < next ? next : ranges[i].from;
        if (any && ranges[i].to < next)
            continue;
        uint64_t size = ranges[i].to - from;
        if (size >= UINT64_MAX - sum - 1 || ranges[i].to == UINT64_MAX)
            return UINT64_MAX;
        sum += size + 1;
        next = ranges[i].to + 1;
        any = true;
    }
    return sum;
}

static uint64_t covered_by(const struct cidr_list *nets, unsigned family)
{
    unsigned count = 0;
    struct range *ranges = mem_alloc((nets->count + 1) * sizeof(*ranges));
    for (unsigned i = 0; i < nets->count; i++)
        if (nets->items[i].ip.family == family && !is_private(nets->items[i]))
            ranges[count++] = range_of(nets->items[i]);
    uint64_t sum = count ? covered(ranges, count) : 0;
    free(ranges);
    return sum;
}

bool open_relay_too_much(const struct cidr_list *nets, char *why, size_t why_size)
{
    if (covered_by(nets, 4) > V4_TOGETHER) {
        snprintf(why, why_size,
            "the IPv4 networks together hold more than two /8: a default route in "
            "disguise");
        return true;
    }
    if (covered_by(nets, 6) > V6_TOGETHER << 32) {
        snprintf(why, why_size,
            "the IPv6 networks together hold more than 256 /32: a default route in "
            "disguise");
        return true;
    }
    return false;
}

/* --- domains --- */

bool open_relay_is_everybody(const char *domain, char *why, size_t why_size)
{
    const char *bare = domain;
    while (*bare == '.' || *bare == '*')
        bare++;
    if (!*bare) {
        snprintf(why, why_size, "\"%s\" is every domain there is", domain);
        return true;
    }
    const psl_ctx_t *list = psl_builtin();
    if (!list || !psl_is_public_suffix2(list, bare, PSL_TYPE_ANY | PSL_TYPE_NO_STAR_RULE))
        return false;
    snprintf(
        why, why_size, "%s is a public suffix: strangers register names under it", bare);
    return true;
}

/* --- the settings --- */

static void check_nets(const struct settings *s, const struct cidr_list *nets, int line,
    const char *key, const char *meaning, struct settings_problems *problems)
{
    char why[200];
    bool any = false;
    for (unsigned i = 0; i < nets->count; i++)
        if (open_relay_too_wide(nets->items[i], why, sizeof(why))) {
            settings_problem(problems, s->file, line, key, "%s: %s", why, meaning);
            any = true;
        }
    if (!any && open_relay_too_much(nets, why, sizeof(why)))
        settings_problem(problems, s->file, line, key, "%s: %s", why, meaning);
}

/* Only clients that need no AUTH can reach it. */
static bool is_confined(const struct listener_settings *l)
{
    bool loopback = true;
    for (unsigned i = 0; i < l->listen_count; i++)
        loopback = loopback && ipaddr_is_loopback(l->listen[i].ip);
    return loopback || l->allow.count > 0;
}

static void check_listener(
    const struct settings *s, unsigned index, struct settings_problems *problems)
{
    const struct listener_settings *l = &s->listeners[index];
    char key[64];
    snprintf(key, sizeof(key), "listeners[%u].allow", index);
    check_nets(
        s, &l->allow, l->line, key, "leave it out when anybody may connect", problems);
    snprintf(key, sizeof(key), "listeners[%u].proxy_protocol", index);
    check_nets(s, &l->proxy_from, l->line, key,
        "who can send a PROXY header can be anybody, a relay client too (open relay)",
        problems);
    snprintf(key, sizeof(key), "listeners[%u].xclient_from", index);
    check_nets(s, &l->xclient_from, l->line, key,
        "who can say XCLIENT can be anybody, a relay client too (open relay)", problems);
    snprintf(key, sizeof(key), "listeners[%u].tls", index);
    if (l->service == SERVICE_SUBMISSION && l->tls == LISTENER_TLS_NONE &&
        *s->users.file && !is_confined(l))
        settings_problem(problems, s->file, l->line, key,
            "AUTH without TLS shows passwords to everybody on the way, and then it is an "
            "open relay: set tls: required, or confine the listener to relay clients "
            "with allow");
}

void open_relay_check(const struct settings *s, struct settings_problems *problems)
{
    char why[400];
    check_nets(s, &s->relay_clients, s->relay_clients_line, "relay_clients",
        "whoever is in it may send to anybody (open relay)", problems);
    for (unsigned i = 0; i < s->listener_count; i++)
        check_listener(s, i, problems);
    for (unsigned i = 0; i < s->relay_domain_count; i++) {
        char key[64];
        snprintf(key, sizeof(key), "relay_domains[%u].domain", i);
        if (open_relay_is_everybody(s->relay_domains[i].domain, why, sizeof(why)))
            settings_problem(
                problems, s->file, s->relay_domains[i].line, key, "%s (open relay)", why);
    }
}
