/* SPDX-License-Identifier: Apache-2.0 */
/* From a treatment and a domain to a route. Hosts come from DNS, from the settings or
 * from an address literal; then our own names are cut off; then addresses are looked up,
 * one group of equal preference after the other, until a usable host is found (for relay
 * domains, all groups); then what turned out to be us by address is cut off. Runs on the
 * router's loop; frees itself. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "node/delivery/route_internal.h"

struct host_step {
    struct host_query query;
    struct lookup *lookup;
    unsigned host;
};

struct lookup {
    struct loop *loop;
    struct route *route; /* being made */
    enum treatment_kind kind;
    lookup_fn *done;
    void *ctx;
    struct mx_query mx;
    uint32_t ttl;       /* seconds, the least of all answers that count */
    bool some_failed;   /* for now: look again soon */
    unsigned group_end; /* hosts before this are known */
    unsigned pending;
    struct host_step *steps;
};

static void finish(struct lookup *l)
{
    struct route *route = l->route;
    int64_t ttl_ms =
        l->ttl > ROUTE_TTL_MAX_MS / 1000 ? ROUTE_TTL_MAX_MS : l->ttl * 1000ll;
    if (route->result != ERR_OK)
        route->host_count = 0;
    if ((route->result != ERR_OK || l->some_failed) && ttl_ms > ROUTE_TTL_FAILED_MS)
        ttl_ms = ROUTE_TTL_FAILED_MS;
    /* A failure that DNS gives no lifetime is kept for a while, too: the next message
     * would only wait for it again. */
    if (route->result != ERR_OK && err_class(route->result) == ERR_CLASS_TRANSIENT)
        ttl_ms = ROUTE_TTL_FAILED_MS;
    if (ttl_ms < ROUTE_TTL_MIN_MS)
        ttl_ms = ROUTE_TTL_MIN_MS;
    route->expires = mono_add_ms(loop_now(l->loop), ttl_ms);
    route_seal(route);
    l->done(route, l->ctx);
    free(l->steps);
    free(l);
}

static void fail(struct lookup *l, enum err result, const char *why)
{
    l->route->result = result;
    l->route->why = arena_strdup(l->route->arena, slice_str(why));
    finish(l);
}

static void lower_ttl(struct lookup *l, uint32_t ttl)
{
    if (ttl < l->ttl)
        l->ttl = ttl;
}

/* ---- us ---- */

/* Hosts that rank with `preference` or behind it go. */
static void cut(struct route *route, uint16_t preference)
{
    unsigned n = 0;
    while (n < route->host_count && route->hosts[n].hop.preference < preference)
        n++;
    route->host_count = n;
}

static void say_loop(struct lookup *l, const char *host)
{
    l->route->result = ERR_MAIL_LOOP;
    l->route->why = arena_printf(l->route->arena,
        "mail loops back to us: no host is preferred to %s, "
        "which is ourselves",
        host)
                        .ptr;
}

/* The hosts are in order of preference, so the first that is us decides. */
static bool cut_by_name(struct lookup *l)
{
    struct route *route = l->route;
    for (unsigned i = 0; i < route->host_count; i++) {
        const char *name = route->hosts[i].hop.name;
        if (!route_us_is_name(route->us, name))
            continue;
        cut(route, route->hosts[i].hop.preference);
        if (route->host_count == 0)
            say_loop(l, name);
        break;
    }
    return route->host_count > 0;
}

static bool cut_by_address(struct lookup *l)
{
    struct route *route = l->route;
    for (unsigned i = 0; i < route->host_count && i < l->group_end; i++) {
        const struct route_host *host = &route->hosts[i];
        if (!host->known || host->result != ERR_MAIL_LOOP)
            continue;
        const char *name = host->hop.name;
        cut(route, host->hop.preference);
        if (route->host_count == 0)
            say_loop(l, name);
        break;
    }
    return route->host_count > 0;
}

/* ---- addresses ---- */

/* What asks for patience comes before what is final. */
static bool is_softer(enum err a, enum err b)
{
    return b == ERR_OK ||
           (err_class(a) == ERR_CLASS_TRANSIENT && err_class(b) != ERR_CLASS_TRANSIENT);
}

static bool some_usable(const struct route *route, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (route->hosts[i].result == ERR_OK)
            return true;
    return false;
}

/* All are known, and none can be used. */
static void conclude_failure(struct lookup *l)
{
    struct route *route = l->route;
    enum err worst = ERR_OK;
    const char *why = "";
    for (unsigned i = 0; i < route->host_count; i++)
        if (is_softer(route->hosts[i].result, worst)) {
            worst = route->hosts[i].result;
            why = route->hosts[i].why;
        }
    /* A host that does not exist is not the domain that does not exist. */
    if (worst == ERR_DNS_NXDOMAIN && !route->hosts[0].hop.implicit)
        worst = ERR_DNS_NO_ADDRESS;
    fail(l, worst, why);
}

static void ask_group(struct lookup *l);

static void group_known(struct lookup *l)
{
    struct route *route = l->route;
    if (!cut_by_address(l)) {
        finish(l);
        return;
    }
    bool all = l->group_end >= route->host_count;
    bool usable = some_usable(
        route, l->group_end < route->host_count ? l->group_end : route->host_count);
    if (!all && (l->kind == TREAT_RELAY_MX || !usable))
        ask_group(l);
    else if (!usable)
        conclude_failure(l);
    else
        finish(l);
}

static void host_answered(struct host_query *q, void *owner)
{
    (void)owner;
    struct host_step *step = CONTAINER_OF(q, struct host_step, query);
    struct lookup *l = step->lookup;
    struct route_host *host = &l->route->hosts[step->host];
    route_host_take(l->route, host, &q->found);
    if (q->found.result == ERR_OK)
        lower_ttl(l, q->found.ttl);
    else
        l->some_failed = true;
    if (--l->pending == 0)
        group_known(l);
}

static void ask_host(struct lookup *l, unsigned i)
{
    struct host_step *step = &l->steps[i];
    const struct route *route = l->route;
    *step = (struct host_step){.lookup = l,
        .host = i,
        .query = {.want_v4 = route->us->ipv4,
            .want_v6 = route->us->ipv6,
            .reply_to = loop_mailbox(l->loop),
            .done = host_answered}};
    snprintf(step->query.name, sizeof(step->query.name), "%s", route->hosts[i].hop.name);
    route->dns.ask_host(route->dns.resolver, &step->query);
}

/* The next hosts of equal preference. */
static void ask_group(struct lookup *l)
{
    struct route *route = l->route;
    unsigned start = l->group_end, end = start;
    while (end < route->host_count &&
           route->hosts[end].hop.preference == route->hosts[start].hop.preference)
        end++;
    l->group_end = end;
    for (unsigned i = start; i < end; i++)
        l->pending += !route->hosts[i].known;
    if (l->pending == 0) {
        group_known(l);
        return;
    }
    if (!l->steps)
        l->steps = mem_zalloc(route->host_count * sizeof(*l->steps));
    /* Answers come by mail, never from in here. */
    for (unsigned i = start; i < end; i++)
        if (!route->hosts[i].known)
            ask_host(l, i);
}

/* ---- hosts ---- */

static void set_numeric(struct lookup *l, struct route_host *host, struct netaddr a)
{
    char text[NETADDR_TEXT_MAX];
    struct host_addresses found = {
        .result = ERR_OK, .why = "", .count = 1, .ips = {a.ip}};
    ipaddr_format_literal(a.ip, text);
    host->hop.name = arena_strdup(l->route->arena, slice_str(text));
    host->hop.port = a.port;
    host->hop.numeric = true;
    route_host_take(l->route, host, &found);
}

static void use_hops(struct lookup *l, const struct treatment *t)
{
    struct route *route = l->route;
    route->hosts = arena_alloc(route->arena, t->hop_count * sizeof(*route->hosts));
    route->host_count = t->hop_count;
    for (unsigned i = 0; i < t->hop_count; i++) {
        struct route_host *host = &route->hosts[i];
        host->hop.preference = (uint16_t)i; /* in the order they are written */
        if (t->hops[i].host[0] == '\0') {
            set_numeric(l, host, t->hops[i].address);
            continue;
        }
        host->hop.name = arena_strdup(route->arena, slice_str(t->hops[i].host));
        host->hop.port = t->hops[i].port ? t->hops[i].port : 25;
    }
    ask_group(l);
}

static void use_literal(struct lookup *l, struct slice domain)
{
    struct ipaddr ip;
    struct route *route = l->route;
    if (!ipaddr_parse_literal(domain, &ip)) {
        fail(l, ERR_ADDRESS_LITERAL_BAD, "not a valid address literal");
        return;
    }
    route->foreign = true;
    route->hosts = arena_alloc(route->arena, sizeof(*route->hosts));
    route->host_count = 1;
    set_numeric(l, &route->hosts[0], (struct netaddr){ip, route->us->mx_port});
    ask_group(l);
}

static void take_hosts(struct route *route, const struct mx_set *set)
{
    route->host_count = set->count < ROUTE_HOPS_MAX ? set->count : ROUTE_HOPS_MAX;
    route->hosts = arena_alloc(route->arena, route->host_count * sizeof(*route->hosts));
    for (unsigned i = 0; i < route->host_count; i++)
        route->hosts[i].hop = (struct route_hop){
            .name = arena_strdup(route->arena, slice_str(set->hosts[i].name)),
            .port = route->us->mx_port,
            .preference = set->hosts[i].preference,
            .implicit = set->hosts[i].implicit};
}

static void mx_answered(struct mx_query *q, void *owner)
{
    (void)owner;
    struct lookup *l = CONTAINER_OF(q, struct lookup, mx);
    enum err result = q->set.result;
    lower_ttl(l, q->set.ttl);
    l->route->security = q->set.security;
    if (result == ERR_OK)
        take_hosts(l->route, &q->set);
    else
        l->route->why = arena_strdup(l->route->arena, slice_str(q->set.why));
    mx_query_release(q);
    if (result != ERR_OK) {
        l->route->result = result;
        finish(l);
    } else if (cut_by_name(l)) {
        ask_group(l);
    } else {
        finish(l);
    }
}

static void use_mx(struct lookup *l, struct slice domain)
{
    l->route->by_mx = l->route->foreign = true;
    l->mx = (struct mx_query){.reply_to = loop_mailbox(l->loop), .done = mx_answered};
    memcpy(l->mx.domain, domain.ptr, domain.len);
    l->mx.domain[domain.len] = '\0';
    l->route->dns.ask_mx(l->route->dns.resolver, &l->mx);
}

void lookup_start(struct loop *loop, const struct route_dns *dns, struct route_us *us,
    const struct treatment *t, struct slice domain, lookup_fn *done, void *ctx)
{
    struct lookup *l = mem_zalloc(sizeof(*l));
    l->loop = loop;
    l->route = route_new(us, dns);
    l->kind = t->kind;
    l->done = done;
    l->ctx = ctx;
    l->ttl = UINT32_MAX;
    l->route->tls = t->tls;
    l->route->auth_file = arena_strdup(l->route->arena, slice_str(t->auth_file));
    if (t->kind == TREAT_HOPS)
        use_hops(l, t);
    else if (domain.len && domain.ptr[0] == '[')
        use_literal(l, domain);
    else if (domain.len >= sizeof(l->mx.domain) || memchr(domain.ptr, 0, domain.len))
        fail(l, ERR_DNS_BAD_NAME, "not a valid domain name");
    else
        use_mx(l, domain);
}
