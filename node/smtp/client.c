/* SPDX-License-Identifier: Apache-2.0 */
#include "node/smtp/client.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "node/smtp/client_internal.h"

/* Stage and output change places, so both may hold the most that either does: a stage of
 * SMTP_FINAL_BYTES in which every octet that can be a doubled dot is one, and commands.
 */
#define CLIENT_BUF_MAX (3 * SMTP_FINAL_BYTES)

struct smtp_client *smtp_client_new(const struct smtp_client_config *config,
    const struct smtp_client_handler *handler, void *ctx, struct mono now)
{
    struct smtp_client *c = mem_zalloc(sizeof(*c));
    c->config = config;
    c->handler = handler;
    c->ctx = ctx;
    c->now = now;
    smtp_reply_parser_init(&c->parser);
    buf_init(&c->in, CLIENT_IN_MAX);
    buf_init(&c->out, CLIENT_BUF_MAX);
    buf_init(&c->staged, CLIENT_BUF_MAX);
    buf_init(&c->texts, CLIENT_TEXTS_MAX);
    client_enter(c, config->tls_implicit ? SMTP_PHASE_TLS : SMTP_PHASE_GREETING);
    return c;
}

void smtp_client_free(struct smtp_client *c)
{
    if (!c)
        return;
    if (c->out.mem && c->config->user.len)
        explicit_bzero(c->out.mem, c->out.cap);
    smtp_reply_parser_fini(&c->parser);
    buf_fini(&c->in);
    buf_fini(&c->out);
    buf_fini(&c->staged);
    buf_fini(&c->texts);
    free(c->slots);
    free(c->results);
    free(c);
}

/* --- the pump --- */

/* A reply to nothing. 421 is the one thing a server may say unasked. */
static void unsolicited(struct smtp_client *c, const struct smtp_reply *r)
{
    if (c->phase == SMTP_PHASE_QUIT)
        client_close_ok(c);
    else if (r->code == 421)
        client_fail_reply(c, ERR_REMOTE_TRANSIENT, r);
    else if (c->phase == SMTP_PHASE_BODY)
        client_body_interrupted(c, r);
    else
        client_fail(c, ERR_BAD_PROTOCOL);
}

static bool take_reply(struct smtp_client *c)
{
    if (buf_len(&c->in) == 0 || c->phase == SMTP_PHASE_CLOSED)
        return false;
    if (c->phase == SMTP_PHASE_TLS) { /* in clear, from anybody */
        buf_clear(&c->in);
        return false;
    }
    size_t used;
    enum parse parsed = smtp_reply_feed(&c->parser, buf_slice(&c->in), &used);
    buf_consume(&c->in, used);
    if (parsed == PARSE_MORE)
        return false;
    if (parsed == PARSE_BAD) {
        client_fail(c, ERR_BAD_PROTOCOL);
    } else if (c->unanswered == 0 || !c->command_left) {
        unsolicited(c, &c->parser.reply);
    } else {
        c->unanswered--;
        c->tx.replies++;
        client_on_reply(c, &c->parser.reply);
    }
    return true;
}

static bool take_event(struct smtp_client *c, enum client_event event)
{
    if (!(c->events & (unsigned)event))
        return false;
    c->events &= ~(unsigned)event;
    return true;
}

static bool tx_is_talking(const struct smtp_client *c)
{
    return c->tx.given && (c->phase == SMTP_PHASE_RSET || c->phase == SMTP_PHASE_MAIL ||
                              c->phase == SMTP_PHASE_RCPT || c->phase == SMTP_PHASE_DATA);
}

/* The transaction that smtp_client_start has noted. */
static bool take_start(struct smtp_client *c)
{
    const struct smtp_client_tx *given = c->tx_next;
    if (!given || (c->phase != SMTP_PHASE_IDLE && c->phase != SMTP_PHASE_CLOSED))
        return false;
    c->tx_next = NULL;
    c->events &= ~(unsigned)EVENT_READY;
    if (c->phase == SMTP_PHASE_IDLE)
        client_tx_begin(c, given);
    else
        client_tx_too_late(c, given);
    return true;
}

/* Some of the output may have been written since it was last looked at. */
static void note_written(struct smtp_client *c)
{
    size_t len = buf_len(&c->out);
    if (len != c->out_known) {
        c->command_left = true;
        if (c->phase == SMTP_PHASE_BODY)
            client_set_deadline(c);
    }
    c->out_known = len;
}

static bool call_back(struct smtp_client *c)
{
    if (take_event(c, EVENT_START_TLS))
        c->handler->start_tls(c->ctx);
    else if (take_event(c, EVENT_READY))
        c->handler->ready(c->ctx);
    else if (take_event(c, EVENT_FINAL))
        c->handler->final_ready(c->ctx);
    else
        return false;
    note_written(c);
    return true;
}

/* One thing that is due; false when there is none. Outcomes first, then what the server
 * has said, and only then new work: a 421 right behind a 250 is seen before the next
 * message. */
static bool step(struct smtp_client *c)
{
    c->out_known = buf_len(&c->out);
    if (take_event(c, EVENT_DONE)) {
        c->handler->done(c->ctx, &c->outcome);
        note_written(c);
        return true;
    }
    return take_reply(c) || take_start(c) || call_back(c) || client_body_pump(c);
}

/* Ends every entry point. Touches nothing after `closed`, in which the engine may be
 * freed. */
static void pump(struct smtp_client *c)
{
    if (c->depth > 0)
        return;
    c->depth = 1;
    do {
        if (tx_is_talking(c))
            client_tx_send(c);
    } while (step(c));
    c->depth = 0;
    c->out_known = buf_len(&c->out);
    if (!take_event(c, EVENT_CLOSED))
        return;
    struct smtp_client_end end = {.err = c->end.err,
        .phase = c->end_phase,
        .code = c->end.code,
        .status = slice_str(c->end.status),
        .text = slice_make(c->end.text, c->end.text_len),
        .retry_in_clear = c->retry_in_clear,
        .blames_us = c->end.blames_us,
        .was_ready = c->was_ready};
    c->handler->closed(c->ctx, &end);
}

/* Begins every entry point. */
static void enter(struct smtp_client *c, struct mono now)
{
    c->now = now;
    note_written(c);
}

/* --- what the owner tells --- */

void smtp_client_feed(struct smtp_client *c, struct slice bytes, struct mono now)
{
    enter(c, now);
    if (c->phase == SMTP_PHASE_CLOSED)
        return;
    if (!buf_append(&c->in, bytes))
        client_fail(c, ERR_BAD_PROTOCOL);
    pump(c);
}

struct buf *smtp_client_output(struct smtp_client *c)
{
    return &c->out;
}

void smtp_client_written(struct smtp_client *c, struct mono now)
{
    enter(c, now);
    if (c->phase != SMTP_PHASE_CLOSED)
        pump(c);
}

struct mono smtp_client_deadline(const struct smtp_client *c)
{
    return c->deadline;
}

void smtp_client_tick(struct smtp_client *c, struct mono now)
{
    enter(c, now);
    if (c->phase == SMTP_PHASE_CLOSED || now.ns < c->deadline.ns)
        return;
    if (c->phase == SMTP_PHASE_QUIT)
        client_close_ok(c);
    else if (c->phase == SMTP_PHASE_TLS)
        client_fail(c, ERR_TLS_FAILED);
    else if (c->phase == SMTP_PHASE_BODY && c->tx.pull_waits)
        client_fail(c, ERR_IO);
    else
        client_fail(c, ERR_REPLY_TIMEOUT);
    pump(c);
}

void smtp_client_eof(struct smtp_client *c, struct mono now)
{
    enter(c, now);
    if (c->phase == SMTP_PHASE_CLOSED)
        return;
    if (c->phase == SMTP_PHASE_QUIT)
        client_close_ok(c);
    else
        client_fail(c, ERR_CONNECTION_LOST);
    pump(c);
}

void smtp_client_tls_started(struct smtp_client *c, bool ok, struct mono now)
{
    enter(c, now);
    if (c->phase != SMTP_PHASE_TLS)
        return;
    buf_clear(&c->in);
    smtp_reply_parser_fini(&c->parser);
    smtp_reply_parser_init(&c->parser);
    c->events &= ~(unsigned)EVENT_START_TLS;
    c->caps = (struct smtp_caps){0};
    c->encrypted = ok;
    if (ok)
        client_enter(c, c->config->tls_implicit ? SMTP_PHASE_GREETING : SMTP_PHASE_EHLO);
    else
        client_fail(c, ERR_TLS_FAILED);
    pump(c);
}

void smtp_client_start(
    struct smtp_client *c, const struct smtp_client_tx *tx, struct mono now)
{
    enter(c, now);
    INVARIANT(!c->tx.given && !c->tx_next);
    c->tx_next = tx;
    pump(c);
}

void smtp_client_body_ready(struct smtp_client *c, struct mono now)
{
    enter(c, now);
    c->tx.pull_waits = false;
    if (c->phase == SMTP_PHASE_BODY)
        client_set_deadline(c);
    pump(c);
}

void smtp_client_final_written(struct smtp_client *c, size_t n, struct mono now)
{
    enter(c, now);
    if (c->phase != SMTP_PHASE_BODY || !c->tx.final_asked)
        return;
    buf_consume(&c->staged, n);
    if (buf_len(&c->staged) == 0) {
        c->unanswered = 1;
        c->command_left = true;
        client_await(c, SMTP_PHASE_DOT);
    } else if (n > 0) {
        client_set_deadline(c);
    }
    pump(c);
}

void smtp_client_final_refused(struct smtp_client *c, struct mono now)
{
    enter(c, now);
    if (c->phase == SMTP_PHASE_BODY)
        client_fail(c, ERR_GATE_CLOSED);
    pump(c);
}

void smtp_client_quit(struct smtp_client *c, struct mono now)
{
    enter(c, now);
    c->quit_wanted = true;
    if (c->phase == SMTP_PHASE_IDLE && !c->tx_next) {
        c->events &= ~(unsigned)EVENT_READY;
        client_enter(c, SMTP_PHASE_QUIT);
    } else if (!c->tx.given && !c->tx_next && c->phase < SMTP_PHASE_IDLE) {
        client_close_ok(c);
    }
    pump(c);
}

void smtp_client_abort(struct smtp_client *c, enum err why, struct mono now)
{
    enter(c, now);
    if (c->phase != SMTP_PHASE_CLOSED)
        client_fail(c, why);
    pump(c);
}

enum smtp_phase smtp_client_phase(const struct smtp_client *c)
{
    return c->phase;
}

const struct smtp_caps *smtp_client_caps(const struct smtp_client *c)
{
    return &c->caps;
}

bool smtp_client_encrypted(const struct smtp_client *c)
{
    return c->encrypted;
}

unsigned smtp_client_transactions(const struct smtp_client *c)
{
    return c->transactions;
}
