/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the file that are lists: each item has a struct of its own. */
#include "base/settings_internal.h"

#define COUNT(array) (unsigned)(sizeof(array) / sizeof((array)[0]))
#define DAY_MS INT64_C(86400000)

/* --- listeners --- */
static void listener_name(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct listener_settings *l = target;
    if (read_text(r, at, t, 64, &l->name) && l->name[0] == '\0')
        reader_problem(r, at, "must not be empty");
}

static void listener_listen(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct listener_settings *l = target;
    read_netaddr_list(r, at, t, &l->listen, &l->listen_count);
}

/* Unset until settings_finish knows the rest. */
#define UNSET 0xff

static void listener_service(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct listener_settings *l = target;
    unsigned which;
    if (read_choice(r, at, t, CHOICES_SERVICE, &which))
        l->service = (enum service)which;
}

static void listener_tls(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct listener_settings *l = target;
    unsigned which;
    if (read_choice(r, at, t, CHOICES_LISTENER_TLS, &which))
        l->tls = (enum listener_tls)which;
}

static void listener_line_ends(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct listener_settings *l = target;
    unsigned which;
    if (read_choice(r, at, t, CHOICES_LINE_ENDS, &which))
        l->line_ends = (enum line_ends)which;
}

static void listener_connections(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct listener_settings *l = target;
    read_count(r, at, t, 1, 1000000, &l->max_connections);
}

static void listener_size(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct listener_settings *l = target;
    read_size(r, at, t, 65536, UINT64_C(1) << 31, &l->max_message_bytes);
}

static void listener_recipients(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct listener_settings *l = target;
    read_count(r, at, t, 100, 65535, &l->max_recipients);
}

static void listener_allow(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct listener_settings *l = target;
    read_cidr_list(r, at, t, &l->allow);
    if (l->allow.count == 0)
        reader_problem(r, at, "names no network; leave the key out to allow everybody");
}

static void proxy_from(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct listener_settings *l = target;
    read_cidr_list(r, at, t, &l->proxy_from);
}

static void listener_proxy(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    static const struct key_reader keys[] = {{"from", proxy_from}};
    struct listener_settings *l = target;
    read_map(r, at, t, NULL, keys, COUNT(keys), target);
    if (l->proxy_from.count == 0)
        reader_problem(r, at, "needs from: the networks of the proxies");
}

static void listener_xclient(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct listener_settings *l = target;
    read_cidr_list(r, at, t, &l->xclient_from);
}

static bool listener_item(
    struct reader *r, const struct spot *at, const struct tree *t, void *element)
{
    static const struct key_reader keys[] = {{"name", listener_name},
        {"listen", listener_listen}, {"service", listener_service}, {"tls", listener_tls},
        {"line_ends", listener_line_ends}, {"max_connections", listener_connections},
        {"max_message_size", listener_size}, {"max_recipients", listener_recipients},
        {"allow", listener_allow}, {"proxy_protocol", listener_proxy},
        {"xclient_from", listener_xclient}};
    struct listener_settings *l = element;
    unsigned before = r->problems->count;
    *l = (struct listener_settings){.name = "", .line = t->line};
    l->service = (enum service)UNSET;
    l->tls = (enum listener_tls)UNSET;
    l->line_ends = (enum line_ends)UNSET;
    read_map(r, at, t, NULL, keys, COUNT(keys), l);
    if (r->problems->count > before)
        return true;
    if (l->listen_count == 0)
        reader_problem(r, at, "needs listen: the addresses, like [\"0.0.0.0:25\"]");
    if ((unsigned)l->service == UNSET)
        reader_problem(r, at, "needs service: mx or submission");
    return true;
}

void read_listeners(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    (void)target;
    r->s->listeners = read_list(
        r, at, t, sizeof(struct listener_settings), listener_item, &r->s->listener_count);
}

void read_relay_clients(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    (void)target;
    r->s->relay_clients_line = at->line;
    read_cidr_list(r, at, t, &r->s->relay_clients);
}

/* --- relay_domains --- */
static void relay_domain(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct relay_domain_settings *d = target;
    if (read_domain(r, at, t, true, &d->domain) && strcmp(d->domain, "*") == 0)
        reader_problem(r, at, "\"*\" would make an open relay; name the domains");
}

static void relay_next_hop(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct relay_domain_settings *d = target;
    read_next_hop(r, at, t, &d->next_hop);
}

static void relay_recipients(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct relay_domain_settings *d = target;
    const char *text;
    if (!read_text(r, at, t, 4000, &text))
        return;
    if (strcmp(text, "any") == 0) {
        d->recipients = RECIPIENTS_ANY;
    } else if (strcmp(text, "verify") == 0) {
        d->recipients = RECIPIENTS_VERIFY;
    } else if (strchr(text, '/')) {
        d->recipients = RECIPIENTS_FILE;
        d->recipients_file = text;
    } else {
        reader_problem(
            r, at, "must be any, verify, or the path of a file (with a \"/\")");
    }
}

static void relay_when_down(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct relay_domain_settings *d = target;
    unsigned which;
    if (read_choice(r, at, t, CHOICES_VERIFY_DOWN, &which))
        d->verify_when_down = (enum verify_down)which;
}

static void relay_hold_for(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct relay_domain_settings *d = target;
    read_duration(r, at, t, 1000, 365 * DAY_MS, &d->hold_for_ms);
}

static void relay_delay_warning(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct relay_domain_settings *d = target;
    read_duration(r, at, t, 0, 365 * DAY_MS, &d->delay_warning_ms);
}

static bool relay_item(
    struct reader *r, const struct spot *at, const struct tree *t, void *element)
{
    static const struct key_reader keys[] = {{"domain", relay_domain},
        {"next_hop", relay_next_hop}, {"recipients", relay_recipients},
        {"verify_when_down", relay_when_down}, {"hold_for", relay_hold_for},
        {"delay_warning", relay_delay_warning}};
    struct relay_domain_settings *d = element;
    *d = (struct relay_domain_settings){
        .domain = "", .recipients_file = "", .hold_for_ms = 14 * DAY_MS, .line = t->line};
    unsigned before = r->problems->count;
    read_map(r, at, t, NULL, keys, COUNT(keys), d);
    if (r->problems->count > before)
        return true;
    if (d->domain[0] == '\0')
        reader_problem(r, at, "needs domain: the domain to accept mail for");
    if (!d->next_hop.by_mx && d->next_hop.hop_count == 0)
        reader_problem(r, at, "needs next_hop: mx, or hosts like [\"[192.0.2.10]:25\"]");
    return true;
}

void read_relay_domains(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    (void)target;
    r->s->relay_domains = read_list(r, at, t, sizeof(struct relay_domain_settings),
        relay_item, &r->s->relay_domain_count);
}

/* --- routes --- */
static void route_domain(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct route_settings *route = target;
    read_domain(r, at, t, true, &route->domain);
}

static void route_sender(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct route_settings *route = target;
    read_address(r, at, t, true, &route->sender);
}

static void route_user(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct route_settings *route = target;
    read_text(r, at, t, 255, &route->user);
}

static void route_listener(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct route_settings *route = target;
    read_text(r, at, t, 64, &route->listener);
}

static void route_next_hop(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct route_settings *route = target;
    read_next_hop(r, at, t, &route->next_hop);
    route->has_next_hop = true;
}

static void route_tls(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct route_settings *route = target;
    unsigned which;
    if (!read_choice(r, at, t, CHOICES_DELIVERY_TLS, &which))
        return;
    route->tls = (enum delivery_tls)which;
    route->has_tls = true;
}

static void route_auth(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    struct route_settings *route = target;
    read_text(r, at, t, 4000, &route->auth_file);
}

static bool route_item(
    struct reader *r, const struct spot *at, const struct tree *t, void *element)
{
    static const struct key_reader keys[] = {{"domain", route_domain},
        {"sender", route_sender}, {"user", route_user}, {"listener", route_listener},
        {"next_hop", route_next_hop}, {"tls", route_tls}, {"auth", route_auth}};
    struct route_settings *route = element;
    *route = (struct route_settings){.domain = "",
        .sender = "",
        .user = "",
        .listener = "",
        .auth_file = "",
        .line = t->line};
    unsigned before = r->problems->count;
    read_map(r, at, t, NULL, keys, COUNT(keys), route);
    if (r->problems->count > before)
        return true;
    if (!route->domain[0] && !route->sender[0] && !route->user[0] && !route->listener[0])
        reader_problem(r, at,
            "matches nothing: give domain (\"*\" for all), sender, user or "
            "listener");
    if (!route->has_next_hop && !route->has_tls && !route->auth_file[0])
        reader_problem(r, at, "does nothing: give next_hop, tls or auth");
    return true;
}

void read_routes(
    struct reader *r, const struct spot *at, const struct tree *t, void *target)
{
    (void)target;
    r->s->routes = read_list(
        r, at, t, sizeof(struct route_settings), route_item, &r->s->route_count);
}
