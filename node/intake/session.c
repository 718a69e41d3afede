/* SPDX-License-Identifier: Apache-2.0 */
#include "node/intake/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/metrics.h"
#include "node/intake/session_internal.h"

/* A proxy sends its header at once; a handshake takes a few round trips. */
#define PROXY_TIMEOUT_MS 10000
#define HANDSHAKE_TIMEOUT_MS 60000

static size_t on_data(struct conn *c, struct slice bytes, void *owner);
static void on_secured(struct conn *c, void *owner);
static void on_drained(struct conn *c, void *owner);
static void on_closed(struct conn *c, enum err why, void *owner);

static const struct conn_handler conn_events = {
    .data = on_data,
    .secured = on_secured,
    .drained = on_drained,
    .closed = on_closed,
};

struct mono session_now(const struct session *s)
{
    return loop_now(s->il->loop);
}

/* --- the end --- */

static void forget(struct session *s)
{
    smtp_server_free(s->engine); /* ends a transaction and an AUTH exchange */
    session_auth_fini(s);
    session_count_out(s);
    atomic_fetch_sub_explicit(&s->service->open, 1, memory_order_relaxed);
    LIST_REMOVE(s, link);
    intake_loop_count(s->il, -1);
    metric_add(METRIC_connections_open, -1);
    timer_fini(&s->timer);
    intake_config_unref(s->config);
    free(s);
}

static void log_disconnect(const struct session *s, const char *why)
{
    struct record r;
    record_init(&r, LOG_EV_DISCONNECT);
    record_ip(&r, "client", s->client.ip);
    record_str(&r, "listener", s->listener->name);
    record_int(&r, "messages", s->messages);
    record_int(&r, "ms", mono_diff_ms(session_now(s), s->since));
    record_str(&r, "why", why);
    record_emit(&r);
}

void session_close(struct session *s, const char *why)
{
    log_disconnect(s, why);
    conn_close(s->conn);
    forget(s);
}

/* What is written still goes out. `linger`: the client may be in the middle of a
 * sentence, and a reset would take our last word from it. */
static void say_goodbye(struct session *s, bool linger, const char *why)
{
    log_disconnect(s, why);
    if (s->engine) {
        struct buf *out = smtp_server_output(s->engine);
        conn_write(s->conn, buf_slice(out));
        buf_clear(out);
    }
    conn_finish(s->conn, linger);
    forget(s);
}

void session_turn_away(struct session *s, const char *line, const char *why)
{
    metric_add(METRIC_connections_refused_total, 1);
    if (line && s->listener->tls != LISTENER_TLS_IMPLICIT)
        conn_write(s->conn, slice_str(line));
    say_goodbye(s, true, why);
}

/* --- engine and connection, hand in hand --- */

static bool says_221(struct smtp_server *engine)
{
    return slice_starts(buf_slice(smtp_server_output(engine)), SLICE("221"));
}

static void start_tls(struct session *s)
{
    struct buf *out = smtp_server_output(s->engine);
    conn_write(s->conn, buf_slice(out)); /* what the kernel did not take yet */
    buf_clear(out);
    s->state = SESSION_TLS;
    timer_set(&s->timer, mono_add_ms(session_now(s), HANDSHAKE_TIMEOUT_MS));
    conn_start_tls_server(s->conn, s->config->tls);
}

/* The timer fires at the earliest deadline ever set and then looks again: in the flow of
 * commands this costs nothing. */
static void keep_deadline(struct session *s)
{
    struct mono deadline = smtp_server_deadline(s->engine);
    if (deadline.ns != MONO_NEVER.ns)
        timer_set(&s->timer, deadline);
}

/* Writes what there is and does what the engine asks for. False: the session is gone. */
static bool pump(struct session *s)
{
    bool closing = smtp_server_closing(s->engine);
    bool polite = closing && says_221(s->engine);
    if (closing) {
        say_goodbye(s, !polite, polite ? "quit" : "closed by us");
        return false;
    }
    conn_drain(s->conn, smtp_server_output(s->engine));
    if (smtp_server_tls_pending(s->engine)) {
        start_tls(s);
        return true;
    }
    keep_deadline(s);
    return true;
}

static size_t feed(struct session *s, struct slice bytes)
{
    size_t used = 0;
    for (;;) {
        used += smtp_server_feed(s->engine, slice_from(bytes, used), session_now(s));
        if (!pump(s))
            return bytes.len;
        if (s->state == SESSION_TLS || used == bytes.len)
            return used;
        if (!smtp_server_wants_input(s->engine))
            return used;
    }
}

static size_t on_data(struct conn *c, struct slice bytes, void *owner)
{
    struct session *s = owner;
    (void)c;
    if (s->state == SESSION_PROXY) {
        session_proxy_input(s, bytes);
        return 0;
    }
    return feed(s, bytes);
}

/* The engine may take input again, or has something to say. */
void session_ready(void *session)
{
    struct session *s = session;
    if (s->state != SESSION_SMTP || !pump(s) || s->state != SESSION_SMTP)
        return;
    bool wants_input = smtp_server_wants_input(s->engine);
    if (s->eof && wants_input)
        say_goodbye(s, false, "closed by peer");
    else if (wants_input)
        conn_resume(s->conn);
}

static void on_drained(struct conn *c, void *owner)
{
    struct session *s = owner;
    (void)c;
    if (s->engine && s->state == SESSION_SMTP)
        session_ready(s);
}

static void log_tls_error(const struct session *s)
{
    struct record r;
    record_init(&r, LOG_EV_TLS_ERROR);
    record_ip(&r, "client", s->client.ip);
    record_str(&r, "listener", s->listener->name);
    record_str(&r, "why", conn_why(s->conn));
    record_emit(&r);
}

static void on_closed(struct conn *c, enum err why, void *owner)
{
    struct session *s = owner;
    bool answers = s->state == SESSION_SMTP && !smtp_server_wants_input(s->engine);
    if (why == ERR_OK && answers) {
        s->eof = true; /* it may still want the answer that is on its way */
        return;
    }
    if (why == ERR_TLS_FAILED)
        log_tls_error(s);
    session_close(s, conn_why(c));
}

void session_config(const struct session *s, struct smtp_server_config *out)
{
    const struct settings *settings = s->config->settings;
    const struct listener_settings *l = s->listener;
    bool submission = l->service == SERVICE_SUBMISSION;
    enum listener_tls tls = s->config->tls ? l->tls : LISTENER_TLS_NONE;
    *out = (struct smtp_server_config){
        .hostname = settings->hostname,
        .service = "Baton",
        .tls = tls == LISTENER_TLS_REQUIRED   ? SMTP_TLS_REQUIRED
               : tls == LISTENER_TLS_OPTIONAL ? SMTP_TLS_OFFERED
                                              : SMTP_TLS_NONE,
        .tls_is_active = conn_tls_info(s->conn)->on,
        .auth_mechanisms = submission && s->config->users
                               ? auth_users_mechanisms(s->config->users)
                               : NULL,
        .max_message_bytes = l->max_message_bytes,
        .max_recipients = l->max_recipients,
        .max_errors = settings->limits.errors,
        .max_hops = settings->limits.hops,
        .line_ends = l->line_ends == LINE_ENDS_NORMALISE ? SMTP_LINE_ENDS_NORMALISE
                                                         : SMTP_LINE_ENDS_REJECT,
        .xclient_allowed = s->xclient_ok,
        .command_timeout_ms = settings->limits.command_timeout_ms,
        .data_timeout_ms = settings->limits.data_timeout_ms,
        .data_rate_bytes = settings->limits.data_rate_bytes,
    };
}

static void on_refused(
    void *session, struct slice verb, struct slice argument, struct slice reply)
{
    const struct session *s = session;
    struct record r;
    metric_add(METRIC_refused_total, 1);
    record_init(&r, LOG_EV_REFUSED);
    record_ip(&r, "client", s->client.ip);
    record_str(&r, "listener", s->listener->name);
    if (*s->user)
        record_str(&r, "user", s->user);
    record_slice(&r, "helo", smtp_server_helo(s->engine));
    record_slice(&r, "command", verb);
    if (argument.len)
        record_slice(&r, "argument", argument);
    record_slice(&r, "reply", reply);
    record_emit(&r);
}

const struct smtp_server_handler session_handler = {
    .ready = session_ready,
    .auth_start = session_auth_start,
    .auth_response = session_auth_response,
    .auth_cancel = session_auth_cancel,
    .mail = session_mail,
    .rcpt = session_rcpt,
    .data = session_data,
    .body = session_body,
    .body_end = session_body_end,
    .transaction_end = session_transaction_end,
    .vrfy = session_vrfy,
    .xclient = session_xclient,
    .refused = on_refused,
};

/* --- the beginning --- */

static void start_engine(struct session *s)
{
    struct smtp_server_config config;
    session_config(s, &config);
    s->state = SESSION_SMTP;
    s->engine = smtp_server_new(&config, &session_handler, s, session_now(s));
    smtp_server_start(s->engine, session_now(s));
    if (s->shutting_down)
        smtp_server_shutdown(s->engine, ERR_SHUTTING_DOWN);
    (void)pump(s);
}

static void on_secured(struct conn *c, void *owner)
{
    struct session *s = owner;
    (void)c;
    if (!s->engine) {
        start_engine(s);
        return;
    }
    s->state = SESSION_SMTP;
    smtp_server_tls_started(s->engine, session_now(s));
    if (s->shutting_down)
        smtp_server_shutdown(s->engine, ERR_SHUTTING_DOWN);
    (void)pump(s);
}

static void timer_fired(struct timer *t)
{
    struct session *s = CONTAINER_OF(t, struct session, timer);
    if (s->state == SESSION_PROXY) {
        session_turn_away(s, NULL, "no PROXY header came");
    } else if (s->state == SESSION_TLS) {
        session_close(s, "TLS handshake took too long");
    } else {
        smtp_server_tick(s->engine, session_now(s));
        (void)pump(s);
    }
}

static void log_connect(const struct session *s)
{
    char local[NETADDR_TEXT_MAX];
    struct record r;
    if (log_get_level() > LOG_DEBUG)
        return;
    netaddr_format(conn_local(s->conn), local);
    record_init(&r, LOG_EV_CONNECT);
    record_ip(&r, "client", s->client.ip);
    record_int(&r, "port", s->client.port);
    record_str(&r, "listener", s->listener->name);
    record_str(&r, "local", local);
    record_emit(&r);
}

/* Only connections that have passed every limit that needs no header come here. */
static struct session *new_session(
    const struct intake_door *door, int fd, struct netaddr peer)
{
    struct intake_loop *il = door->il;
    struct session *s = mem_zalloc(sizeof(*s));
    s->il = il;
    s->config = intake_config_ref(door->config);
    s->listener = door->listener;
    s->service = door->service;
    s->peer = s->client = peer;
    s->since = loop_now(il->loop);
    s->conn = conn_accept(il->conns, fd, peer, &conn_events, s);
    timer_init(&s->timer, il->loop, timer_fired);
    LIST_INSERT_HEAD(&il->sessions, s, link);
    atomic_fetch_add_explicit(&s->service->open, 1, memory_order_relaxed);
    intake_loop_count(il, +1);
    metric_add(METRIC_connections_open, 1);
    return s;
}

void session_accept(const struct intake_door *door, int fd, struct netaddr peer)
{
    metric_add(METRIC_connections_total, 1);
    struct session *s = new_session(door, fd, peer);
    if (s->listener->proxy_from.count) {
        s->state = SESSION_PROXY;
        conn_start_peek(s->conn);
        if (cidr_list_contains(&s->listener->proxy_from, peer.ip))
            timer_set(&s->timer, mono_add_ms(s->since, PROXY_TIMEOUT_MS));
        else
            session_turn_away(s, NULL, "not a trusted proxy");
        return;
    }
    session_set_client(s, peer, true);
    session_admit(s);
}

static const char *refusal(const struct session *s, enum clients_verdict verdict)
{
    switch (verdict) {
    case CLIENTS_OK:
        break;
    case CLIENTS_FULL:
        return "421 4.3.2 Too many connections, try again later\r\n";
    case CLIENTS_TOO_MANY:
        return "421 4.7.0 Too many connections from your address\r\n";
    case CLIENTS_TOO_FAST:
        return "421 4.7.0 Connecting too often, slow down\r\n";
    }
    uint32_t open = atomic_load_explicit(&s->service->open, memory_order_relaxed);
    if (s->listener->max_connections && open > s->listener->max_connections)
        return "421 4.3.2 Too many connections, try again later\r\n";
    if (s->il->draining)
        return "421 4.3.2 Service shutting down\r\n";
    return NULL;
}

void session_admit(struct session *s)
{
    enum clients_verdict verdict;
    const struct cidr_list *allow = &s->listener->allow;
    if (allow->count && !cidr_list_contains(allow, s->client.ip)) {
        session_turn_away(s, "554 5.7.1 Your address may not connect here\r\n",
            "not in the listener's allow list");
        return;
    }
    session_count_in(s, s->client.ip, &verdict);
    const char *line = refusal(s, verdict);
    if (line) {
        struct record r;
        record_init(&r, verdict == CLIENTS_FULL ? LOG_EV_OVERLOAD : LOG_EV_REFUSED);
        record_ip(&r, "client", s->client.ip);
        record_str(&r, "listener", s->listener->name);
        record_slice(&r, "reply", slice_trim(slice_str(line)));
        record_emit(&r);
        session_turn_away(s, line, "over a limit");
        return;
    }
    log_connect(s);
    if (s->listener->tls != LISTENER_TLS_IMPLICIT) {
        start_engine(s);
        return;
    }
    s->state = SESSION_TLS;
    timer_set(&s->timer, mono_add_ms(session_now(s), HANDSHAKE_TIMEOUT_MS));
    conn_start_tls_server(s->conn, s->config->tls);
}

void session_shut_down(struct session *s)
{
    s->shutting_down = true;
    if (s->state == SESSION_PROXY) {
        session_turn_away(s, NULL, "shutting down");
        return;
    }
    if (s->state != SESSION_SMTP)
        return; /* said as soon as the handshake is done */
    smtp_server_shutdown(s->engine, ERR_SHUTTING_DOWN);
    (void)pump(s);
}

void session_kill(struct session *s)
{
    session_close(s, "shutting down");
}

struct session *session_first(struct intake_loop *il)
{
    return LIST_FIRST(&il->sessions);
}

struct session *session_next(struct session *s)
{
    return LIST_NEXT(s, link);
}
