/* SPDX-License-Identifier: Apache-2.0 */
#include "node/smtp/client_internal.h"

#include <stdio.h>

#include "base/alloc.h"

/* In front of a BDAT chunk there is room for its command, so that both are one run. */
#define BDAT_HEAD 32

void client_body_begin(struct smtp_client *c)
{
    int64_t ms = c->config->timeouts.body_ms;
    c->tx.body_until = mono_add_ms(c->now, ms > 0 ? ms : 3600000);
    client_set_deadline(c);
    buf_clear(&c->staged);
    /* Room at once for what is announced and some doubled dots, rather than by doubling.
     */
    uint64_t size = c->tx.given->size + c->tx.given->size / 32 + 64;
    buf_reserve(&c->staged, size < SMTP_FINAL_BYTES ? (size_t)size : SMTP_FINAL_BYTES);
    if (c->tx.bdat)
        buf_append(&c->staged, SLICE("                                "));
}

/* --- staging --- */

/* Copies octets as DATA wants them: a dot at the start of a line is doubled (RFC 5321
 * 4.5.2), runs between are copied whole. A dot behind a bare LF is doubled too: stored
 * mail has none, and if it had, a server that takes LF for a line end must not see a lone
 * dot. */
static void stage_stuffed(struct smtp_client *c, struct slice bytes)
{
    bool at_line_start = c->tx.pulled == 0 || c->tx.last[1] == '\n';
    if (at_line_start && bytes.len && bytes.ptr[0] == '.')
        buf_append_char(&c->staged, '.');
    size_t from = 0;
    for (size_t at = 0; at < bytes.len;) {
        const char *lf = memchr(bytes.ptr + at, '\n', bytes.len - at);
        if (!lf)
            break;
        at = (size_t)(lf - bytes.ptr) + 1;
        if (at < bytes.len && bytes.ptr[at] == '.') {
            /* The dot itself twice: at the end of this run and the start of the next. */
            buf_append(&c->staged, slice_make(bytes.ptr + from, at + 1 - from));
            from = at;
        }
    }
    buf_append(&c->staged, slice_from(bytes, from));
}

static void remember_last(struct client_tx *tx, struct slice bytes)
{
    if (bytes.len >= 2) {
        memcpy(tx->last, bytes.ptr + bytes.len - 2, 2);
    } else {
        tx->last[0] = tx->last[1];
        tx->last[1] = bytes.ptr[0];
    }
}

static void stage(struct smtp_client *c)
{
    size_t room = SMTP_FINAL_BYTES - buf_len(&c->staged);
    struct slice bytes = slice_head(c->tx.piece, room);
    if (c->tx.bdat)
        buf_append(&c->staged, bytes);
    else
        stage_stuffed(c, bytes);
    remember_last(&c->tx, bytes);
    c->tx.pulled += bytes.len;
    c->tx.piece = slice_from(c->tx.piece, bytes.len);
}

/* Puts the command right before the chunk and drops the rest of the room kept for it. */
static void head_chunk(struct smtp_client *c, bool last)
{
    char head[BDAT_HEAD];
    size_t octets = buf_len(&c->staged) - BDAT_HEAD;
    int len = snprintf(head, sizeof(head), "BDAT %zu%s\r\n", octets, last ? " LAST" : "");
    buf_consume(&c->staged, BDAT_HEAD - (size_t)len);
    memcpy(c->staged.mem + c->staged.head, head, (size_t)len);
}

/* A full stage becomes the output; true when it did. More body follows for sure, so what
 * leaves here can never be the last octets. */
static bool flush_stage(struct smtp_client *c)
{
    bool pipelining = (c->caps.flags & SMTP_CAP_PIPELINING) != 0;
    if (buf_len(&c->out) > 0 || (c->tx.bdat && !pipelining && c->unanswered > 0))
        return false;
    if (c->tx.bdat) {
        head_chunk(c, false);
        client_command_added(c);
    }
    struct buf full = c->staged;
    c->staged = c->out;
    c->out = full;
    buf_clear(&c->staged);
    if (c->tx.bdat)
        buf_append(&c->staged, SLICE("                                "));
    return true;
}

/* --- pulling --- */

static void pull(struct smtp_client *c)
{
    struct slice bytes = {0};
    c->tx.pull_waits = true; /* before: the owner may say body_ready inside the call */
    enum smtp_body_state state = c->handler->body(c->ctx, &bytes);
    if (c->phase != SMTP_PHASE_BODY || state == SMTP_BODY_LATER)
        return;
    c->tx.pull_waits = false;
    if (state == SMTP_BODY_FAILED)
        client_fail(c, ERR_IO);
    else if (state == SMTP_BODY_END)
        c->tx.pulled_all = true;
    else
        c->tx.piece = bytes;
}

/* All octets are staged: what ends the message goes behind them. A body that is not as
 * long as announced is damaged, and must not be completed by a dot. */
static void close_stage(struct smtp_client *c)
{
    struct client_tx *tx = &c->tx;
    if (tx->given->size && tx->pulled != tx->given->size) {
        client_fail(c, ERR_IO);
        return;
    }
    tx->closed_stage = true;
    if (tx->bdat)
        return;
    bool ended = tx->pulled == 0 || (tx->last[0] == '\r' && tx->last[1] == '\n');
    buf_append_str(&c->staged, ended ? ".\r\n" : "\r\n.\r\n");
}

/* The last write is due when all else has left and every chunk before it is acknowledged.
 */
static bool offer_final(struct smtp_client *c)
{
    if (buf_len(&c->out) > 0 || c->unanswered > 0)
        return false;
    if (c->tx.bdat)
        head_chunk(c, true);
    c->tx.final_asked = true;
    c->events |= EVENT_FINAL;
    client_set_deadline(c);
    return true;
}

/* One step; false when nothing can be done now. */
static bool body_step(struct smtp_client *c)
{
    struct client_tx *tx = &c->tx;
    if (tx->refused || tx->final_asked)
        return false;
    if (tx->closed_stage)
        return offer_final(c);
    if (tx->piece.len) {
        if (buf_len(&c->staged) >= SMTP_FINAL_BYTES && !flush_stage(c))
            return false;
        stage(c);
        return true;
    }
    if (tx->pulled_all) {
        close_stage(c);
        return true;
    }
    if (tx->pull_waits)
        return false;
    pull(c);
    return c->phase != SMTP_PHASE_BODY || !tx->pull_waits;
}

bool client_body_pump(struct smtp_client *c)
{
    bool changed = false;
    while (c->phase == SMTP_PHASE_BODY && body_step(c))
        changed = true;
    return changed;
}

/* --- replies --- */

static void on_chunk(struct smtp_client *c, const struct smtp_reply *r)
{
    client_set_deadline(c);
    if (r->code / 100 == 3) {
        client_fail(c, ERR_BAD_PROTOCOL);
        return;
    }
    if (r->code / 100 >= 4 && !c->tx.refused) {
        struct verdict v;
        verdict_by_class(&v, SMTP_PHASE_BODY, r);
        client_decide_accepted(c, SMTP_PHASE_BODY, &v);
        c->tx.refused = true;
    }
    if (c->tx.refused && c->unanswered == 0)
        client_tx_end(c);
}

static void on_dot(struct smtp_client *c, const struct smtp_reply *r)
{
    if (r->code / 100 == 3) { /* says nothing: in doubt */
        client_fail(c, ERR_BAD_PROTOCOL);
        return;
    }
    struct verdict v;
    verdict_by_class(&v, SMTP_PHASE_DOT, r);
    client_decide_accepted(c, SMTP_PHASE_DOT, &v);
    c->tx.completed = v.err == ERR_OK;
    client_tx_end(c);
}

void client_body_reply(struct smtp_client *c, const struct smtp_reply *r)
{
    if (c->phase == SMTP_PHASE_DOT)
        on_dot(c, r);
    else
        on_chunk(c, r);
}

/* The dot has not left, so the message is not taken, whatever the server says. A refusal
 * now (552, too much data) is its verdict; anything else is nonsense. In both cases the
 * connection cannot be brought back in step. */
void client_body_interrupted(struct smtp_client *c, const struct smtp_reply *r)
{
    if (r->code / 100 < 4) {
        client_fail(c, ERR_BAD_PROTOCOL);
        return;
    }
    struct verdict v;
    verdict_by_class(&v, SMTP_PHASE_BODY, r);
    client_decide_accepted(c, SMTP_PHASE_BODY, &v);
    client_fail_reply(c, ERR_REMOTE_TRANSIENT, r);
}

/* --- the last write --- */

struct slice smtp_client_final(const struct smtp_client *c)
{
    if (c->phase != SMTP_PHASE_BODY || !c->tx.final_asked)
        return (struct slice){"", 0};
    return buf_slice(&c->staged);
}
