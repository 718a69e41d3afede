/* SPDX-License-Identifier: Apache-2.0 */
/* The message itself (RFC 3462, 6522): its header, the part for programs (RFC 3464) and
 * what is returned of the original. */
#include "node/mail/dsn_internal.h"

#include <stdio.h>

#include "base/alloc.h"
#include "node/mail/encode.h"
#include "proto/esmtp_params.h"

bool dsn_is_reply(struct slice last_reply)
{
    return last_reply.len >= 3 && last_reply.ptr[0] >= '2' && last_reply.ptr[0] <= '5' &&
           ascii_is_digit(last_reply.ptr[1]) && ascii_is_digit(last_reply.ptr[2]) &&
           (last_reply.len == 3 || last_reply.ptr[3] == ' ');
}

void dsn_status(enum dsn_kind kind, struct slice status, char out[16])
{
    char digit = kind == DSN_FAILURE ? '5' : kind == DSN_DELAY ? '4' : '2';
    bool usable = status.len >= 5 && status.len <= 9 && status.ptr[1] == '.' &&
                  (digit != '2' || status.ptr[0] == '2');
    struct slice rest = usable ? slice_from(status, 1) : SLICE(".0.0");
    snprintf(out, 16, "%c%.*s", digit, SLICE_ARG(rest));
}

/* --- text in fields --- */

/* Printable, on one line; what is not ASCII stays only in an international DSN. */
static void add_clean(struct buf *out, const struct dsn_draft *d, struct slice text)
{
    char *room = buf_reserve(out, text.len + 1);
    if (!room)
        return;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char u = (unsigned char)text.ptr[i];
        bool bad = u < 0x20 || u == 0x7f || (u >= 0x80 && !d->utf8);
        room[i] = bad ? '?' : (char)u;
    }
    buf_commit(out, text.len);
}

/* A long value is folded at blanks. */
static void add_folded(
    struct buf *out, const struct dsn_draft *d, const char *start, struct slice text)
{
    buf_append_str(out, start);
    size_t column = strlen(start);
    while (text.len) {
        size_t max = column < 60 ? 76 - column : 16;
        size_t len = text.len;
        if (len > max) {
            size_t blank = slice_rfind(slice_head(text, max), ' ');
            len = blank > 0 && blank < max ? blank : max;
        }
        add_clean(out, d, slice_head(text, len));
        text = slice_from(text, len);
        if (text.len) {
            /* Folding eats no octet: a blank goes to the next line, else one is added. */
            buf_append_str(out, text.ptr[0] == ' ' ? "\r\n" : "\r\n ");
            column = 1;
        }
    }
    buf_append_str(out, "\r\n");
}

/* "rfc822; bob@example.net", or the forms of RFC 6533 3 for an address in UTF-8. */
static void add_address(
    struct buf *out, const struct dsn_draft *d, struct slice type, struct slice address)
{
    bool utf8 = has_8bit(address);
    if (!utf8) {
        buf_append(out, type);
        buf_append_str(out, "; ");
        add_clean(out, d, address);
        return;
    }
    buf_append_str(out, "utf-8; ");
    if (d->utf8) {
        add_clean(out, d, address);
        return;
    }
    struct buf wire;
    buf_init(&wire, 8192);
    struct buf typed;
    buf_init(&typed, 2048);
    buf_append_str(&typed, "utf-8;");
    buf_append(&typed, address);
    if (esmtp_orcpt_append(&wire, buf_slice(&typed), false))
        add_clean(out, d, slice_from(buf_slice(&wire), 6));
    buf_fini(&typed);
    buf_fini(&wire);
}

static void add_original_recipient(
    struct buf *out, const struct dsn_draft *d, struct slice orcpt)
{
    size_t semicolon = slice_find(orcpt, ';');
    if (orcpt.len == 0 || semicolon == orcpt.len)
        return;
    buf_append_str(out, "Original-Recipient: ");
    add_address(out, d, slice_head(orcpt, semicolon), slice_from(orcpt, semicolon + 1));
    buf_append_str(out, "\r\n");
}

static void add_date(struct buf *out, const char *name, struct wall t)
{
    char date[48];
    wall_format_rfc5322(t, date);
    buf_printf(out, "%s: %s\r\n", name, date);
}

/* --- message/delivery-status --- */

static void add_message_fields(struct buf *out, const struct dsn_draft *d)
{
    const struct dsn_request *r = d->request;
    char id[MSG_ID_TEXT + 1];
    if (r->original->envid.len) {
        buf_append_str(out, "Original-Envelope-Id: ");
        add_clean(out, d, r->original->envid);
        buf_append_str(out, "\r\n");
    }
    buf_append_str(out, "Reporting-MTA: dns; ");
    add_clean(out, d, r->hostname);
    buf_append_str(out, "\r\n");
    if (r->original->helo.len) {
        buf_append_str(out, "Received-From-MTA: dns; ");
        add_clean(out, d, slice_head(r->original->helo, 255));
        buf_append_str(out, "\r\n");
    }
    add_date(out, "Arrival-Date", r->original->created);
    msg_id_format(r->unit.msg, id);
    buf_printf(out, "X-Queue-ID: %s\r\n", id);
}

static void add_recipient_fields(
    struct buf *out, const struct dsn_draft *d, const struct rcpt_record *r)
{
    static const char *const actions[DSN_KIND_COUNT] = {
        "failed", "delayed", "relayed", "delivered", "expanded"};
    char status[16];
    dsn_status(d->request->kind, r->last_status, status);
    buf_append_str(out, "\r\n");
    add_original_recipient(out, d, r->rcpt.orcpt);
    buf_append_str(out, "Final-Recipient: ");
    add_address(out, d, SLICE("rfc822"), r->rcpt.address);
    buf_printf(
        out, "\r\nAction: %s\r\nStatus: %s\r\n", actions[d->request->kind], status);
    if (r->last_mx.len) {
        buf_append_str(out, "Remote-MTA: dns; ");
        add_clean(out, d, slice_head(r->last_mx, 255));
        buf_append_str(out, "\r\n");
    }
    if (r->last_reply.len)
        add_folded(out, d,
            dsn_is_reply(r->last_reply) ? "Diagnostic-Code: smtp; "
                                        : "Diagnostic-Code: x-baton; ",
            r->last_reply);
    if (r->last_attempt.ms)
        add_date(out, "Last-Attempt-Date", r->last_attempt);
    if (d->request->kind == DSN_DELAY)
        add_date(out, "Will-Retry-Until", d->request->retry_until);
}

void dsn_write_status(struct buf *out, const struct dsn_draft *d)
{
    add_message_fields(out, d);
    for (unsigned i = 0; i < d->rcpt_count; i++)
        add_recipient_fields(out, d, d->rcpts[i]);
}

/* --- the message --- */

static const char *subject(const struct dsn_draft *d)
{
    static const char *const subjects[DSN_KIND_COUNT] = {"Undeliverable mail",
        "Delayed mail (still being tried)", "Mail passed on", "Mail delivered",
        "Mail passed on to a list"};
    return d->double_bounce ? "Undeliverable notice" : subjects[d->request->kind];
}

static void add_header(struct buf *out, const struct dsn_draft *d, const char *id)
{
    struct slice host = d->request->hostname;
    struct slice rcpt = d->rcpts[0]->rcpt.address;
    buf_printf(
        out, "From: Mail Delivery System <MAILER-DAEMON@%.*s>\r\nTo: <", SLICE_ARG(host));
    add_clean(out, d, d->to);
    buf_printf(out, ">\r\nSubject: %s", subject(d));
    if (d->utf8 || !has_8bit(rcpt)) {
        const char *blank = rcpt.len > 30 ? "\r\n " : " ";
        buf_printf(out, "%sfor ", blank);
        add_clean(out, d, slice_head(rcpt, 320));
        if (d->rcpt_count > 1)
            buf_printf(out, "%sand %u more", blank, d->rcpt_count - 1);
    }
    buf_append_str(out, "\r\n");
    add_date(out, "Date", d->request->now);
    buf_printf(out,
        "Message-ID: <%s@%.*s>\r\n"
        "Auto-Submitted: auto-replied\r\n"
        "MIME-Version: 1.0\r\n"
        "Content-Type: multipart/report; report-type=%s;\r\n"
        "\tboundary=\"=_%s\"\r\n",
        id, SLICE_ARG(host), d->utf8 ? "global-delivery-status" : "delivery-status", id);
}

/* A part that may have to be encoded: text is, when it has octets above 127 and the DSN
 * has to pass any path. */
static void add_text_part(struct body *out, const char *type, struct slice text)
{
    char head[256];
    bool coded = has_8bit(text);
    int n = snprintf(head, sizeof(head),
        "Content-Type: %s\r\nContent-Transfer-Encoding: %s\r\n\r\n", type,
        coded ? "quoted-printable" : "7bit");
    body_append(out, slice_make(head, (size_t)n));
    if (coded)
        encode_qp(out, text);
    else
        body_append(out, text);
}

static bool body_has_8bit(const struct body *b)
{
    for (const struct body_chunk *c = body_chunks(b); c; c = c->next)
        if (has_8bit(slice_make(c->bytes, c->len)))
            return true;
    return false;
}

/* Whole: message/rfc822 must not be encoded (RFC 2046 5.2.1), so an 8-bit original makes
 * an 8-bit DSN. */
static void add_full(struct body *out, struct dsn_draft *d)
{
    bool eight = body_has_8bit(d->request->body);
    bool global = d->request->original->smtputf8 && has_8bit(d->header);
    char head[256];
    int n = snprintf(head, sizeof(head),
        "Content-Description: The message\r\n"
        "Content-Type: message/%s\r\nContent-Transfer-Encoding: %s\r\n\r\n",
        global ? "global" : "rfc822", eight ? "8bit" : "7bit");
    body_append(out, slice_make(head, (size_t)n));
    d->is_8bit |= eight;
    for (const struct body_chunk *c = body_chunks(d->request->body); c; c = c->next)
        body_append(out, slice_make(c->bytes, c->len));
}

static void add_returned(struct body *out, struct dsn_draft *d)
{
    if (d->full) {
        add_full(out, d);
        return;
    }
    bool global = d->request->original->smtputf8 && has_8bit(d->header);
    body_append(out, SLICE("Content-Description: The message's header\r\n"));
    add_text_part(
        out, global ? "message/global-headers" : "text/rfc822-headers", d->header);
}

static void add_delivery_status(struct body *out, struct dsn_draft *d)
{
    struct buf status;
    buf_init(&status, DSN_PART_MAX);
    dsn_write_status(&status, d);
    bool eight = has_8bit(buf_slice(&status));
    body_append(
        out, SLICE("Content-Description: Delivery report\r\nContent-Type: message/"));
    body_append(out,
        d->utf8 ? SLICE("global-delivery-status\r\n") : SLICE("delivery-status\r\n"));
    if (eight)
        body_append(out, SLICE("Content-Transfer-Encoding: 8bit\r\n"));
    body_append(out, SLICE("\r\n"));
    body_append(out, buf_slice(&status));
    d->is_8bit |= eight;
    buf_fini(&status);
}

static void add_words(struct body *out, const struct dsn_draft *d)
{
    struct buf text;
    buf_init(&text, DSN_PART_MAX);
    dsn_write_text(&text, d);
    body_append(out, SLICE("Content-Description: Notification\r\n"));
    add_text_part(out,
        has_8bit(buf_slice(&text)) ? "text/plain; charset=utf-8"
                                   : "text/plain; charset=us-ascii",
        buf_slice(&text));
    buf_fini(&text);
}

static void add_boundary(struct body *out, const char *id, bool last)
{
    body_append(out, SLICE("\r\n--=_"));
    body_append(out, slice_str(id));
    body_append(out, last ? SLICE("--\r\n") : SLICE("\r\n"));
}

struct body *dsn_write(struct dsn_draft *d)
{
    char id[MSG_ID_TEXT + 1];
    msg_id_format(d->id, id);
    struct buf head;
    buf_init(&head, 16384);
    add_header(&head, d, id);
    d->is_8bit |= has_8bit(buf_slice(&head));
    struct body *out = body_new();
    body_append(out, buf_slice(&head));
    buf_fini(&head);
    add_boundary(out, id, false);
    add_words(out, d);
    add_boundary(out, id, false);
    add_delivery_status(out, d);
    add_boundary(out, id, false);
    add_returned(out, d);
    add_boundary(out, id, true);
    return out;
}
