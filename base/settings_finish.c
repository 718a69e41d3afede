/* SPDX-License-Identifier: Apache-2.0 */
/* After the file has been read: defaults that follow from other keys, and what does not
 * go together. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/settings_internal.h"

void settings_problem_at(
    struct reader *r, const char *key, int line, const char *format, ...)
{
    char what[400];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    settings_problem(r->problems, r->s->file, line, key, "%s", what);
}

static void finish_hostname(struct reader *r)
{
    char name[256];
    struct settings *s = r->s;
    int line = settings_line(r->s, "hostname");
    if (line) {
        if (!domain_is_sound(slice_str(s->hostname)))
            settings_problem_at(
                r, "hostname", line, "\"%.80s\" is not a host name", s->hostname);
        return;
    }
    if (settings_find_hostname(name))
        s->hostname = arena_strdup(s->arena, slice_str(name));
    else
        settings_problem_at(r, "hostname", 0,
            "this machine has no fully qualified name (hostname -f); write one, like "
            "hostname: mx1.example.net");
}

static void check_postmaster(struct reader *r)
{
    struct slice s = slice_str(r->s->postmaster);
    size_t sign = slice_rfind(s, '@');
    if (s.len == 0)
        return;
    if (sign == 0 || sign >= s.len || !domain_is_sound(slice_from(s, sign + 1)) ||
        slice_find(s, '<') < s.len || slice_find(s, '>') < s.len)
        settings_problem_at(r, "postmaster", settings_line(r->s, "postmaster"),
            "must be an address like admin@example.net");
}

static void check_tls(struct reader *r)
{
    const struct settings *s = r->s;
    if (s->tls.certificate[0] && !s->tls.key[0])
        settings_problem_at(r, "tls.certificate", settings_line(r->s, "tls.certificate"),
            "needs tls.key, the file of its private key");
    if (s->tls.key[0] && !s->tls.certificate[0])
        settings_problem_at(r, "tls.key", settings_line(r->s, "tls.key"),
            "needs tls.certificate, the file of its certificate");
}

static void check_retry(struct reader *r)
{
    const struct settings *s = r->s;
    if (s->retry.first_ms > s->retry.max_ms)
        settings_problem_at(r, "retry.first", settings_line(r->s, "retry.first"),
            "is longer than retry.max, the longest wait");
    if (s->retry.give_up_ms < s->retry.first_ms)
        settings_problem_at(r, "retry.give_up", settings_line(r->s, "retry.give_up"),
            "is shorter than retry.first: nothing would be tried twice");
}

static void check_delivery(struct reader *r)
{
    const struct settings *s = r->s;
    if (!s->delivery.ipv4 && !s->delivery.ipv6)
        settings_problem_at(r, "delivery.ipv4", settings_line(r->s, "delivery.ipv4"),
            "and ipv6 are both off: no mail could leave");
}

static void finish_relay_clients(struct reader *r)
{
    static const struct cidr loopback[] = {{{4, {127}}, 8}, {{6, {[15] = 1}}, 128}};
    struct settings *s = r->s;
    if (s->relay_clients_line)
        return;
    s->relay_clients.items = arena_alloc(s->arena, sizeof(loopback));
    memcpy(s->relay_clients.items, loopback, sizeof(loopback));
    s->relay_clients.count = 2;
}

/* --- listeners --- */

static void listener_key(unsigned index, const char *key, char out[64])
{
    snprintf(out, 64, "listeners[%u].%s", index, key);
}

/* What is not given is 0xff, as settings_lists.c leaves it. */
#define UNSET 0xff

static void finish_listener(struct settings *s, struct listener_settings *l)
{
    bool submission = l->service == SERVICE_SUBMISSION;
    if (!l->name[0])
        l->name = submission ? "submission" : "mx";
    if ((unsigned)l->tls == UNSET)
        l->tls = s->tls.certificate[0] ? LISTENER_TLS_OPTIONAL : LISTENER_TLS_NONE;
    if ((unsigned)l->line_ends == UNSET)
        l->line_ends = submission ? LINE_ENDS_NORMALISE : LINE_ENDS_REJECT;
    if (!l->max_connections)
        l->max_connections = s->limits.connections;
    if (!l->max_message_bytes)
        l->max_message_bytes = s->limits.message_size_bytes;
    if (!l->max_recipients)
        l->max_recipients = s->limits.recipients;
}

static void check_listener(struct reader *r, unsigned index)
{
    const struct settings *s = r->s;
    const struct listener_settings *l = &s->listeners[index];
    char key[64];
    if (l->tls != LISTENER_TLS_NONE && !s->tls.certificate[0]) {
        listener_key(index, "tls", key);
        settings_problem_at(r, key, l->line, "needs tls: {certificate: FILE, key: FILE}");
    }
    if (l->service == SERVICE_MX && !s->postmaster[0]) {
        listener_key(index, "service", key);
        settings_problem_at(r, key, l->line,
            "mx needs postmaster: the address that gets mail for postmaster and abuse");
    }
    for (unsigned i = 0; i < index; i++)
        if (strcmp(s->listeners[i].name, l->name) == 0) {
            listener_key(index, "name", key);
            settings_problem_at(r, key, l->line,
                "\"%.64s\" is the name of the listener in line %d too", l->name,
                s->listeners[i].line);
            break;
        }
}

static void check_address_once(
    struct reader *r, unsigned index, struct netaddr address, unsigned upto)
{
    const struct settings *s = r->s;
    char key[64], text[NETADDR_TEXT_MAX];
    if (address.port == 0)
        return; /* the kernel picks one: for tests */
    for (unsigned i = 0; i <= index; i++) {
        const struct listener_settings *l = &s->listeners[i];
        unsigned count = i == index ? upto : l->listen_count;
        for (unsigned j = 0; j < count; j++) {
            if (l->listen[j].port != address.port ||
                !ipaddr_eq(l->listen[j].ip, address.ip))
                continue;
            netaddr_format(address, text);
            listener_key(index, "listen", key);
            settings_problem_at(
                r, key, s->listeners[index].line, "%s is given twice", text);
            return;
        }
    }
}

#define LISTENERS_MAX 64
#define LISTEN_MAX 64

static void finish_listeners(struct reader *r)
{
    struct settings *s = r->s;
    if (s->listener_count > LISTENERS_MAX) {
        settings_problem_at(r, "listeners", s->listeners[LISTENERS_MAX].line,
            "more than %d", LISTENERS_MAX);
        return;
    }
    for (unsigned i = 0; i < s->listener_count; i++) {
        struct listener_settings *l = &s->listeners[i];
        if (l->listen_count > LISTEN_MAX) {
            settings_problem_at(
                r, "listeners", l->line, "more than %d addresses", LISTEN_MAX);
            return;
        }
        finish_listener(s, l);
        check_listener(r, i);
        for (unsigned j = 0; j < l->listen_count; j++)
            check_address_once(r, i, l->listen[j], j);
    }
}

/* --- lists that may be long: sorted, then neighbours compared --- */

static int by_domain(const void *a, const void *b)
{
    const struct relay_domain_settings *x = *(struct relay_domain_settings *const *)a;
    const struct relay_domain_settings *y = *(struct relay_domain_settings *const *)b;
    int order = strcmp(x->domain, y->domain);
    return order ? order : x->line - y->line;
}

static void check_relay_domains(struct reader *r)
{
    struct settings *s = r->s;
    unsigned n = s->relay_domain_count;
    if (n < 2)
        return;
    struct relay_domain_settings **all =
        mem_alloc(n * sizeof(struct relay_domain_settings *));
    for (unsigned i = 0; i < n; i++)
        all[i] = &s->relay_domains[i];
    qsort(all, n, sizeof(struct relay_domain_settings *), by_domain);
    for (unsigned i = 1; i < n; i++)
        if (all[i]->domain[0] && strcmp(all[i]->domain, all[i - 1]->domain) == 0)
            settings_problem_at(r, "relay_domains", all[i]->line,
                "%s is given twice (before in line %d)", all[i]->domain,
                all[i - 1]->line);
    free(all);
}

static int by_match(const void *a, const void *b)
{
    const struct route_settings *x = *(struct route_settings *const *)a;
    const struct route_settings *y = *(struct route_settings *const *)b;
    int order = strcmp(x->domain, y->domain);
    order = order ? order : strcmp(x->sender, y->sender);
    order = order ? order : strcmp(x->user, y->user);
    return order ? order : strcmp(x->listener, y->listener);
}

static void check_route_listener(struct reader *r, const struct route_settings *route)
{
    const struct settings *s = r->s;
    for (unsigned i = 0; i < s->listener_count; i++)
        if (strcmp(s->listeners[i].name, route->listener) == 0)
            return;
    if (route->listener[0])
        settings_problem_at(
            r, "routes", route->line, "no listener is named \"%.64s\"", route->listener);
}

static void check_routes(struct reader *r)
{
    struct settings *s = r->s;
    unsigned n = s->route_count;
    if (n == 0)
        return;
    struct route_settings **all = mem_alloc(n * sizeof(struct route_settings *));
    for (unsigned i = 0; i < n; i++) {
        all[i] = &s->routes[i];
        check_route_listener(r, all[i]);
    }
    qsort(all, n, sizeof(struct route_settings *), by_match);
    for (unsigned i = 1; i < n; i++) {
        int x = all[i]->line, y = all[i - 1]->line;
        if (by_match(&all[i], &all[i - 1]) == 0)
            settings_problem_at(r, "routes", x > y ? x : y,
                "matches the same mail as line %d", x > y ? y : x);
    }
    free(all);
}

void settings_finish(struct reader *r)
{
    bool sound = r->problems->count == 0;
    finish_hostname(r);
    finish_relay_clients(r);
    check_postmaster(r);
    check_tls(r);
    check_retry(r);
    check_delivery(r);
    /* Half-read items would only cause complaints that follow from the first. */
    if (!sound)
        return;
    finish_listeners(r);
    settings_finish_cluster(r);
    check_relay_domains(r);
    check_routes(r);
}
