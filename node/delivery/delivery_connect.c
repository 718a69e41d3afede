/* SPDX-License-Identifier: Apache-2.0 */
/* The connection of a session: TCP, TLS, and the engine between its bytes and its
 * requests. */
#include <stdio.h>

#include "base/alloc.h"
#include "base/metrics.h"
#include "node/delivery/outgoing.h"

/* How long an address that did not answer is left alone by other sessions. */
#define DEAD_MS 60000
/* How long one whose STARTTLS fails is spoken to in clear. */
#define CLEAR_MS 3600000
/* While a cluster has the say: a lease that comes back tells nobody. */
#define LOOK_MS 250

static void fill_failure(struct delivery *d, enum err err, const char *text)
{
    struct failure_note *f = &d->last_failure;
    if (slice_eq_nocase(slice_str(text), slice_str(err_text(err))))
        text = ""; /* the system says what we say */
    *f = (struct failure_note){.err = err};
    snprintf(f->status, sizeof(f->status), "%s", err_status(err));
    snprintf(
        f->text, sizeof(f->text), "%s%s%s", err_text(err), text[0] ? ": " : "", text);
    snprintf(f->mx, sizeof(f->mx), "%s", hops_name(d));
}

/* --- what the engine asks for --- */

static void engine_start_tls(void *ctx)
{
    struct delivery *d = ctx;
    const struct route_hop *hop = route_hop(d->route, d->order[d->hop]);
    struct tls_target target = {.name = hop->numeric ? "" : hop->name,
        .address = d->address,
        .check = route_tls(d->route) == DELIVERY_TLS_VERIFY ? TLS_CHECK_VERIFY
                                                            : TLS_CHECK_NONE};
    conn_start_tls_client(d->conn, d->dl->env->tls, &target);
}

static void engine_ready(void *ctx)
{
    struct delivery *d = ctx;
    if (!d->opened_told) {
        d->opened_told = true;
        schedule_session_event(d->dl->env->schedule, &d->opened);
    }
    d->state = DELIVERY_IDLE;
    outgoing_next_parcel(d);
}

static void engine_closed(void *ctx, const struct smtp_client_end *end)
{
    struct delivery *d = ctx;
    struct failure_note *f = &d->end;
    d->ended = true;
    d->end_ok = end->err == ERR_OK;
    d->end_was_ready = end->was_ready;
    d->end_retry_in_clear = end->retry_in_clear;
    *f = (struct failure_note){.err = end->err, .code = end->code};
    snprintf(
        f->status, sizeof(f->status), "%.*s", SLICE_ARG(slice_head(end->status, 11)));
    snprintf(f->text, sizeof(f->text), "%.*s", SLICE_ARG(slice_head(end->text, 511)));
    snprintf(f->mx, sizeof(f->mx), "%s", hops_name(d));
}

const struct smtp_client_handler outgoing_engine_handler = {
    .start_tls = engine_start_tls,
    .ready = engine_ready,
    .body = outgoing_engine_body,
    .final_ready = outgoing_engine_final_ready,
    .done = outgoing_engine_done,
    .closed = engine_closed,
};

/* --- pumping --- */

static void write_output(struct delivery *d)
{
    struct buf *out = smtp_client_output(d->client);
    while (!d->ended && !d->lost && buf_len(out) > 0 && conn_unsent(d->conn) == 0) {
        size_t n = 0;
        if (conn_send_direct(d->conn, buf_slice(out), &n) != ERR_OK) {
            /* Read what the server may have said before it went; then this is its end. */
            d->lost = true;
            return;
        }
        if (n == 0)
            return; /* `drained` goes on */
        buf_consume(out, n);
        smtp_client_written(d->client, mono_now());
    }
}

static void last_words(struct delivery *d)
{
    /* The polite QUIT, if it goes without waiting. */
    struct buf *out = smtp_client_output(d->client);
    size_t n = 0;
    if (!d->lost && buf_len(out) > 0 && conn_unsent(d->conn) == 0 &&
        conn_send_direct(d->conn, buf_slice(out), &n) != ERR_OK)
        d->lost = true;
}

void outgoing_drop_connection(struct delivery *d)
{
    if (d->client)
        smtp_client_free(d->client);
    d->client = NULL;
    if (d->conn && d->lost)
        conn_close(d->conn);
    else if (d->conn)
        conn_finish(d->conn, false);
    d->conn = NULL;
    timer_cancel(&d->timer);
    d->ended = d->lost = d->final_waiting = d->asking = false;
    d->messages = 0;
}

static void connection_ended(struct delivery *d)
{
    bool was_ready = d->end_was_ready, clear = d->end_retry_in_clear, ok = d->end_ok;
    /* Says it is ready, and goes before it took a single MAIL: it never was. Without this
     * the mail would come back to it at once, and for ever. */
    if (d->messages == 0 && (d->current || d->line))
        was_ready = false;
    last_words(d);
    outgoing_drop_connection(d);
    if (ok) {
        outgoing_close(d, false);
        return;
    }
    d->last_failure = d->end;
    if (!was_ready && clear && !d->in_clear) {
        hops_note_dead(d, true, CLEAR_MS);
        outgoing_connect(d, d->address);
        return;
    }
    if (!was_ready) {
        outgoing_setup_failed(d, d->end.code != 0);
        return;
    }
    /* A server that ends an idle connection has done nothing wrong. */
    bool in_hand = d->current != NULL && !d->gate_refused;
    if (outgoing_salvage(d))
        return;
    outgoing_close(d, in_hand);
}

void outgoing_pump(struct delivery *d)
{
    if (d->in_engine || !d->client)
        return;
    d->in_engine = true;
    write_output(d);
    if (d->lost && !d->ended)
        smtp_client_eof(d->client, mono_now());
    d->in_engine = false;
    if (d->ended)
        connection_ended(d);
    else
        outgoing_arm(d);
}

void outgoing_arm(struct delivery *d)
{
    struct mono at = smtp_client_deadline(d->client);
    if (d->state == DELIVERY_IDLE && !d->current && !d->quitting)
        at = mono_add_ms(mono_now(), d->settings->limits.idle_connection_ms);
    if (outgoing_waits_for_right(d)) {
        struct mono look = mono_add_ms(mono_now(), LOOK_MS);
        at = look.ns < at.ns ? look : at;
    }
    timer_set(&d->timer, at);
}

/* --- what the connection says --- */

static void conn_connected(struct conn *c, void *owner)
{
    struct delivery *d = owner;
    (void)c;
    d->client_config.tls = d->in_clear ? DELIVERY_TLS_NONE : route_tls(d->route);
    d->client =
        smtp_client_new(&d->client_config, &outgoing_engine_handler, d, mono_now());
    outgoing_pump(d);
}

static size_t conn_data(struct conn *c, struct slice bytes, void *owner)
{
    struct delivery *d = owner;
    (void)c;
    if (!d->client)
        return bytes.len;
    d->in_engine = true;
    smtp_client_feed(d->client, bytes, mono_now());
    d->in_engine = false;
    outgoing_pump(d);
    return bytes.len;
}

static void conn_secured(struct conn *c, void *owner)
{
    struct delivery *d = owner;
    (void)c;
    d->in_engine = true;
    smtp_client_tls_started(d->client, true, mono_now());
    d->in_engine = false;
    outgoing_pump(d);
}

static void conn_drained(struct conn *c, void *owner)
{
    struct delivery *d = owner;
    (void)c;
    if (!d->client)
        return;
    if (smtp_client_final(d->client).len > 0)
        outgoing_write_final(d);
    outgoing_pump(d);
}

static void conn_closed(struct conn *c, enum err why, void *owner)
{
    struct delivery *d = owner;
    if (!d->client) {
        fill_failure(d, why, conn_why(c));
        hops_note_dead(d, false, DEAD_MS);
        d->lost = true;
        outgoing_drop_connection(d);
        outgoing_setup_failed(d, false);
        return;
    }
    d->in_engine = true;
    if (why == ERR_TLS_FAILED && smtp_client_phase(d->client) == SMTP_PHASE_TLS)
        smtp_client_tls_started(d->client, false, mono_now());
    else
        smtp_client_eof(d->client, mono_now());
    d->in_engine = false;
    d->lost = true;
    outgoing_pump(d);
}

static const struct conn_handler conn_events = {.connected = conn_connected,
    .data = conn_data,
    .secured = conn_secured,
    .drained = conn_drained,
    .closed = conn_closed};

void outgoing_connect(struct delivery *d, struct netaddr address)
{
    struct conn_target target = {
        .to = address, .timeout_ms = d->settings->limits.connect_timeout_ms};
    d->address = address;
    ipaddr_format(address.ip, d->ip);
    d->in_clear = hops_must_be_clear(d) && route_tls(d->route) == DELIVERY_TLS_MAY;
    d->state = DELIVERY_CONNECTING;
    d->conn = conn_connect(d->dl->conns, &target, &conn_events, d);
}

void outgoing_setup_failed(struct delivery *d, bool by_protocol)
{
    if (d->state == DELIVERY_CLOSED)
        return;
    if (d->quitting) {
        outgoing_close(d, false);
        return;
    }
    if (hops_next(d, by_protocol))
        return;
    outgoing_fail_all(d);
    outgoing_close(d, true);
}
