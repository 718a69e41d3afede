/* SPDX-License-Identifier: Apache-2.0 */
/* `why ADDRESS`: what would happen to mail for it now, and what keeps the mail that is
 * there. The queue is looked at first, on a helper; then the scheduler says the rest. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "node/control/handlers_internal.h"
#include "node/delivery/why.h"
#include "proto/smtp_path.h"

/* The oldest come first, and they are what is asked for. */
#define LOOK_UNITS 20000
#define LOOK_MS 700
#define LINE_MAX 65536
#define HOPS_SHOWN 20

struct why {
    struct work work;
    struct schedule_why asked;
    char address[SMTP_ADDRESS_MAX + 1];
    struct mono started;
    unsigned seen;
    bool looked_at_all;
    uint64_t waiting, held;
    struct wall oldest, last_attempt, next_due;
    char last_reply[512], last_mx[256];
};

/* --- the queue --- */

static void take_last(struct why *y, const struct rcpt_record *r)
{
    if (rcpt_state_is_final(r->state) || r->last_attempt.ms <= y->last_attempt.ms)
        return;
    y->last_attempt = r->last_attempt;
    snprintf(y->last_reply, sizeof(y->last_reply), "%.*s", SLICE_ARG(r->last_reply));
    snprintf(y->last_mx, sizeof(y->last_mx), "%.*s", SLICE_ARG(r->last_mx));
}

static void look_at_unit(struct why *y, const struct unit_record *u)
{
    y->waiting++;
    y->held += u->held;
    if (y->oldest.ms == 0)
        y->oldest = u->message->created;
    if (!u->held && (y->next_due.ms == 0 || u->next_due.ms < y->next_due.ms))
        y->next_due = u->next_due;
    for (unsigned i = 0; i < u->rcpt_count; i++)
        take_last(y, &u->rcpts[i]);
}

static bool look(const struct unit_record *u, void *ctx)
{
    struct why *y = ctx;
    const struct message *m = u->message;
    if (m->unit_count && slice_eq(m->units[0].domain, slice_str(y->asked.domain)) &&
        unit_is_ours(y->work.handlers, u->id))
        look_at_unit(y, u);
    y->looked_at_all = ++y->seen < LOOK_UNITS &&
                       mono_diff_ms(mono_now(), y->started) < LOOK_MS &&
                       !atomic_load_explicit(&y->work.cancelled, memory_order_relaxed);
    return y->looked_at_all;
}

static void why_run(struct work *w)
{
    struct why *y = CONTAINER_OF(w, struct why, work);
    y->looked_at_all = true;
    w->err = store_list(w->handlers->sources.store, NULL, look, y);
}

/* --- the answer --- */

static json_t *hop_json(const struct route *route, unsigned i)
{
    const struct route_hop *hop = route_hop(route, i);
    const char *why;
    unsigned count;
    json_t *o = json_object(), *ips = json_array();
    const struct ipaddr *known = route_hop_ips(route, i, &count, &why);
    for (unsigned j = 0; known && j < count; j++)
        json_array_append_new(ips, json_ip(known[j]));
    json_set_text(o, "name", slice_str(hop->name));
    json_object_set_new(o, "port", json_integer(hop->port));
    if (route_by_mx(route) && !hop->implicit)
        json_object_set_new(o, "preference", json_integer(hop->preference));
    json_object_set_new(o, "implicit", json_boolean(hop->implicit));
    json_object_set_new(o, "looked_up", json_boolean(known != NULL));
    json_object_set_new(o, "addresses", ips);
    json_set_text(o, "why", slice_str(why));
    return o;
}

static void add_route(json_t *o, const struct schedule_why *a)
{
    static const char *const kinds[] = {"dns", "routes", "relay_domains"};
    static const char *const tls[] = {"none", "may", "encrypt", "verify"};
    const struct route *route = a->route;
    json_t *hops = json_array();
    for (unsigned i = 0; i < route_hop_count(route) && i < HOPS_SHOWN; i++)
        json_array_append_new(hops, hop_json(route, i));
    json_object_set_new(o, "source", json_string(kinds[a->origin.kind]));
    json_object_set_new(o, "line", json_integer(a->origin.line));
    json_set_text(o, "entry", slice_str(a->origin.entry));
    json_object_set_new(o, "result", json_string(err_name(route_result(route))));
    json_set_text(o, "why", slice_str(route_why(route)));
    json_object_set_new(o, "by_mx", json_boolean(route_by_mx(route)));
    json_object_set_new(o, "security",
        route_by_mx(route) ? json_string(dns_security_name(route_security(route)))
                           : json_null());
    json_object_set_new(o, "tls", json_string(tls[(unsigned)route_tls(route) % 4]));
    json_object_set_new(o, "auth", json_boolean(route_auth_file(route)[0] != '\0'));
    json_object_set_new(o, "hops", hops);
}

/* Of the limits, what this node may use now. */
static json_t *share_json(const struct schedule_why *a, enum quota_kind kind)
{
    uint32_t share = a->share[kind];
    return share == QUOTA_NO_LIMIT ? json_null() : json_integer(share);
}

static json_t *destination_json(const struct schedule_why *a)
{
    if (!a->known)
        return json_null();
    json_t *o = json_pack("{s:i,s:i,s:i,s:I}", "sessions", (int)a->sessions, "window",
        (int)a->window, "failures", (int)a->failures, "down_ms", (json_int_t)a->down_ms);
    json_object_set_new(o, "connections_share", share_json(a, QUOTA_CONNECTIONS));
    json_object_set_new(o, "rate_share", share_json(a, QUOTA_MESSAGES));
    json_set_text(o, "last_failure", slice_str(a->down_why.text));
    json_set_text(o, "last_failure_mx", slice_str(a->down_why.mx));
    return o;
}

static json_t *queue_json(const struct why *y)
{
    json_t *o = json_pack("{s:I,s:I,s:I,s:b}", "messages", (json_int_t)y->asked.units,
        "due", (json_int_t)y->asked.ready, "held", (json_int_t)y->held, "complete",
        y->looked_at_all);
    json_object_set_new(o, "oldest", json_time(y->oldest));
    json_object_set_new(o, "next_due", json_time(y->next_due));
    json_object_set_new(o, "last_attempt", json_time(y->last_attempt));
    json_set_text(o, "last_reply", slice_str(y->last_reply));
    json_set_text(o, "last_mx", slice_str(y->last_mx));
    return o;
}

__attribute__((format(printf, 2, 3))) static void block(
    json_t *list, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    json_array_append_new(list, control_text(slice_str(text)));
}

static void blocked_by_limits(json_t *list, const struct schedule_why *a)
{
    if (a->sessions >= a->share[QUOTA_CONNECTIONS])
        block(list,
            "%" PRIu64 " messages wait for one of %u connections, this node's share of "
            "limits.destination_connections",
            a->ready, a->share[QUOTA_CONNECTIONS]);
    else if (a->sessions >= a->window)
        block(list, "%" PRIu64 " messages wait for one of %u connections", a->ready,
            a->window);
    if (a->is_throttled)
        block(list,
            "%" PRIu64 " messages wait for their turn: limits.destination_rate is used "
            "up",
            a->ready);
}

static json_t *blocked_json(const struct why *y)
{
    const struct schedule_why *a = &y->asked;
    const struct rights *rights = y->work.handlers->sources.rights;
    json_t *list = json_array();
    if (route_result(a->route) != ERR_OK)
        block(list, "there is no way to it: %s", route_why(a->route));
    if (a->down_ms > 0)
        block(list, "the next hop did not answer; it is left alone for %" PRId64 " s: %s",
            a->down_ms / 1000 + 1, a->down_why.text);
    if (a->paused)
        block(list, "this node has no lease, so it delivers nothing");
    else if (!rights_may_deliver(rights))
        block(list, "this node may not deliver now");
    if (!rights_clock_trusted(rights, wall_now()))
        block(list, "the clock is not trusted, so mail does not expire: "
                    "batonctl clock accept");
    if (y->held > 0)
        block(list, "%" PRIu64 " of its messages %s held: batonctl queue release",
            y->held, y->held == 1 ? "is" : "are");
    if (a->known && a->down_ms == 0 && a->ready > 0)
        blocked_by_limits(list, a);
    return list;
}

static void why_known(struct schedule_why *a, void *owner)
{
    struct why *y = CONTAINER_OF(a, struct why, asked);
    json_t *o = json_object();
    (void)owner;
    json_set_text(o, "node", slice_str(y->work.handlers->sources.node));
    json_set_text(o, "address", slice_str(y->address));
    json_set_text(o, "domain", slice_str(a->domain));
    add_route(o, a);
    json_object_set_new(o, "destination", destination_json(a));
    json_object_set_new(o, "queue", queue_json(y));
    json_object_set_new(o, "blocked", blocked_json(y));
    route_unref(a->route);
    json_line(o, &y->work.lines);
    work_continue(&y->work, false);
}

static void why_done(struct work *w)
{
    struct why *y = CONTAINER_OF(w, struct why, work);
    if (w->err != ERR_OK || w->handlers->stopped) {
        work_continue(w, false);
        return;
    }
    y->asked.reply_to = loop_mailbox(w->handlers->loop);
    y->asked.done = why_known;
    schedule_ask_why(w->handlers->sources.schedule, &y->asked);
}

static void why_free(struct work *w)
{
    free(CONTAINER_OF(w, struct why, work));
}

/* "user@example.org", or a domain alone. */
static bool take_address(struct why *y, const char *text)
{
    struct smtp_path path;
    char whole[SMTP_ADDRESS_MAX + 1];
    bool domain_alone = !strchr(text, '@');
    if (strlen(text) > SMTP_DOMAIN_MAX + (domain_alone ? 0 : SMTP_LOCAL_MAX + 1))
        return false;
    snprintf(whole, sizeof(whole), "%s%s", domain_alone ? "postmaster@" : "", text);
    if (smtp_address_parse(slice_str(whole), &path) != PARSE_DONE || !path.routing.len ||
        path.routing.len >= sizeof(y->asked.domain))
        return false;
    snprintf(y->address, sizeof(y->address), "%s", text);
    snprintf(y->asked.domain, sizeof(y->asked.domain), "%.*s", SLICE_ARG(path.routing));
    return true;
}

static void handle_why(struct control_request *req, json_t *args, void *ctx)
{
    struct control_handlers *h = ctx;
    const char *address, *from;
    if (!control_arg_text(req, args, "address", &address) ||
        !control_arg_text(req, args, "from", &from))
        return;
    if (!h->sources.schedule) {
        control_fail(req, 1, NULL, "this node delivers nothing");
        return;
    }
    struct why *y = mem_zalloc(sizeof(*y));
    from = from && strcmp(from, "<>") != 0 ? from : "";
    if (!address || !take_address(y, address) ||
        strlen(from) >= sizeof(y->asked.sender)) {
        free(y);
        control_fail(req, 1, "give user@example.org or example.org", "no address: %.80s",
            address ? address : "");
        return;
    }
    snprintf(y->asked.sender, sizeof(y->asked.sender), "%s", from);
    work_init(&y->work, h, req, LINE_MAX);
    y->work.run = why_run;
    y->work.done = why_done;
    y->work.free = why_free;
    y->started = mono_now();
    work_start(&y->work);
}

void why_register(struct control *c, struct control_handlers *h)
{
    control_register(c, "why", CONTROL_READS, handle_why, h);
}
