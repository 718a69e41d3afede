/* SPDX-License-Identifier: Apache-2.0 */
#include "node/smtp/client_internal.h"

#include <stdio.h>

#include "base/alloc.h"

/* --- verdicts --- */

static void text_char(struct verdict *v, char c)
{
    unsigned char u = (unsigned char)c;
    if (v->text_len < sizeof(v->text))
        v->text[v->text_len++] = u < 0x20 || u == 0x7f ? '?' : c;
}

static void text_add(struct verdict *v, struct slice s)
{
    for (size_t i = 0; i < s.len && v->text_len < sizeof(v->text); i++)
        text_char(v, s.ptr[i] == '\t' ? ' ' : s.ptr[i]);
}

/* A cut must not leave half a UTF-8 character at the end. */
static void text_close(struct verdict *v)
{
    if (v->text_len < sizeof(v->text))
        return;
    uint16_t n = v->text_len;
    while (n && ((unsigned char)v->text[n - 1] & 0xc0) == 0x80)
        n--;
    if (n && (unsigned char)v->text[n - 1] >= 0xc0)
        v->text_len = (uint16_t)(n - 1);
}

/* The reply's own enhanced code counts when its class is the code's (the parser sees to
 * that). What a permanent
 * refusal means to us may be transient (552 to RCPT, a refused connection): then its
 * class digit follows us, because a status of 5.x.y beside "will be tried again" helps
 * nobody. */
static void verdict_status(
    struct verdict *v, enum smtp_phase phase, const struct smtp_reply *r)
{
    char digit = v->err == ERR_OK                           ? '2'
                 : err_class(v->err) == ERR_CLASS_PERMANENT ? '5'
                                                            : '4';
    const char *rest = r->status[0] ? r->status + 1 : smtp_status_for(v->code, phase);
    snprintf(v->status, sizeof(v->status), "%c%s", digit, rest);
}

void verdict_from_reply(
    struct verdict *v, enum err err, enum smtp_phase phase, const struct smtp_reply *r)
{
    v->err = err;
    v->code = (uint16_t)r->code;
    v->text_len = 0;
    char code[8];
    snprintf(code, sizeof(code), "%03u", (unsigned)v->code);
    text_add(v, slice_str(code));
    struct slice rest = r->text;
    struct slice line;
    while (smtp_reply_next_line(&rest, &line)) {
        line = slice_trim(line);
        if (line.len)
            text_char(v, ' ');
        text_add(v, line);
    }
    text_close(v);
    verdict_status(v, phase, r);
    v->blames_us =
        err != ERR_OK && smtp_reply_blames_address(slice_make(v->text, v->text_len));
}

void verdict_by_class(
    struct verdict *v, enum smtp_phase phase, const struct smtp_reply *r)
{
    enum err err = r->code / 100 == 2   ? ERR_OK
                   : r->code / 100 == 5 ? ERR_REMOTE_PERMANENT
                                        : ERR_REMOTE_TRANSIENT;
    /* RFC 5321 4.5.3.1.10: 552 to RCPT is "too many recipients" of old, and means 452. */
    if (phase == SMTP_PHASE_RCPT && r->code == 552)
        err = ERR_REMOTE_TRANSIENT;
    verdict_from_reply(v, err, phase, r);
}

void verdict_from_error(struct verdict *v, enum err err, enum smtp_phase phase)
{
    v->err = err;
    v->code = 0;
    v->blames_us = false;
    v->text_len = 0;
    text_add(v, slice_str(err_text(err)));
    if (err == ERR_CONNECTION_LOST || err == ERR_REPLY_TIMEOUT ||
        err == ERR_BAD_PROTOCOL) {
        text_char(v, ' ');
        text_add(v, slice_str(smtp_phase_phrase(phase)));
    }
    snprintf(v->status, sizeof(v->status), "%s", err_status(err));
}

/* --- recipients --- */

/* The texts of a transaction lie in one buffer. A text equal to the one before is not
 * stored again: a thousand recipients are mostly refused with the same words. Past the
 * bound the recipients share the text "" and keep code and status. */
static void slot_text(
    struct smtp_client *c, struct rcpt_slot *slot, const struct verdict *v)
{
    struct slice have = buf_slice(&c->texts);
    struct slice text = slice_make(v->text, v->text_len);
    slot->text_len = (uint16_t)text.len;
    if (have.len >= text.len && slice_eq(slice_from(have, have.len - text.len), text)) {
        slot->text_at = (uint32_t)(have.len - text.len);
        return;
    }
    slot->text_at = (uint32_t)have.len;
    if (!buf_append(&c->texts, text))
        slot->text_len = 0;
}

void client_decide(
    struct smtp_client *c, unsigned i, enum smtp_phase phase, const struct verdict *v)
{
    struct rcpt_slot *slot = &c->slots[i];
    struct smtp_rcpt_result *result = &c->results[i];
    INVARIANT(slot->step != RCPT_DECIDED);
    if (slot->step == RCPT_ACCEPTED)
        c->tx.accepted--;
    slot->step = RCPT_DECIDED;
    c->tx.decided++;
    memcpy(slot->status, v->status, sizeof(slot->status));
    slot_text(c, slot, v);
    *result = (struct smtp_rcpt_result){.err = v->err,
        .phase = phase,
        .code = v->code,
        .blames_us = v->blames_us,
        .status = slice_str(slot->status)};
    if (v->err == ERR_OK)
        c->outcome.delivered++;
}

void client_decide_accepted(
    struct smtp_client *c, enum smtp_phase phase, const struct verdict *v)
{
    for (unsigned i = 0; i < c->tx.given->rcpt_count && c->tx.accepted; i++)
        if (c->slots[i].step == RCPT_ACCEPTED)
            client_decide(c, i, phase, v);
}

void client_decide_rest(
    struct smtp_client *c, enum smtp_phase phase, const struct verdict *v)
{
    for (unsigned i = 0; i < c->tx.given->rcpt_count; i++)
        if (c->slots[i].step != RCPT_DECIDED)
            client_decide(c, i, phase, v);
}

/* Those for whom the last octet may have left, and nobody said what became of it: D7. */
static void decide_in_doubt(struct smtp_client *c, const struct verdict *v)
{
    for (unsigned i = 0; i < c->tx.given->rcpt_count; i++) {
        if (c->slots[i].step != RCPT_ACCEPTED)
            continue;
        client_decide(c, i, SMTP_PHASE_DOT, v);
        c->results[i].possible_duplicate = true;
        c->outcome.possible_duplicate = true;
    }
}

/* --- the end of the connection --- */

static void fail_transaction(struct smtp_client *c, const struct verdict *v)
{
    if (c->phase == SMTP_PHASE_DOT && v->code == 0)
        decide_in_doubt(c, v);
    c->outcome.connection_failed = true;
    c->outcome.stale =
        c->transactions > 1 && ((c->tx.replies == 0 && v->err == ERR_CONNECTION_LOST) ||
                                   (c->tx.replies <= 1 && v->code == 421));
    client_decide_rest(c, c->phase, v);
    client_tx_finish(c);
}

void client_close(struct smtp_client *c, const struct verdict *v)
{
    if (c->phase == SMTP_PHASE_CLOSED)
        return;
    if (c->tx.given)
        fail_transaction(c, v);
    c->end = *v;
    c->end_phase = c->phase;
    c->phase = SMTP_PHASE_CLOSED;
    c->deadline = MONO_NEVER;
    c->unanswered = 0;
    c->events = (c->events & EVENT_DONE) | EVENT_CLOSED;
    buf_clear(&c->in);
}

/* An opportunistic handshake that fails must not keep mail from a server that would take
 * it in clear: nothing of any message has been said, so a second connection repeats
 * nothing. */
static bool may_retry_in_clear(const struct smtp_client *c, enum err err)
{
    return c->phase == SMTP_PHASE_TLS && c->config->tls == DELIVERY_TLS_MAY &&
           !c->config->tls_implicit && c->config->user.len == 0 &&
           (err == ERR_TLS_FAILED || err == ERR_CONNECTION_LOST ||
               err == ERR_REPLY_TIMEOUT);
}

void client_fail(struct smtp_client *c, enum err err)
{
    struct verdict v;
    c->retry_in_clear = may_retry_in_clear(c, err);
    /* "554 go away" to EHLO and a hang-up before HELO is answered: the 554 is the news.
     */
    if (err == ERR_CONNECTION_LOST && c->phase == SMTP_PHASE_HELO && c->refusal.code)
        v = c->refusal;
    else
        verdict_from_error(&v, err, c->phase);
    buf_clear(&c->out);
    client_close(c, &v);
}

/* A QUIT left in the output, for the owner to write if it goes at once; not where the
 * server may take it for part of a message, nor behind half a command. */
static void part_politely(struct smtp_client *c, bool allowed)
{
    bool clean = allowed && !c->tx.data_sent && !c->tx.bdat && buf_len(&c->out) == 0;
    buf_clear(&c->out);
    if (clean)
        buf_append_str(&c->out, "QUIT\r\n");
}

void client_fail_politely(struct smtp_client *c, enum err err)
{
    client_fail(c, err);
    part_politely(c, true);
}

void client_fail_reply(struct smtp_client *c, enum err err, const struct smtp_reply *r)
{
    struct verdict v;
    verdict_from_reply(&v, err, c->phase, r);
    part_politely(c, r->code != 421);
    client_close(c, &v);
}

void client_close_ok(struct smtp_client *c)
{
    struct verdict v = {.err = ERR_OK};
    client_close(c, &v);
}
