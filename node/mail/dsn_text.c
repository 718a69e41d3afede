/* SPDX-License-Identifier: Apache-2.0 */
/* The part for people. It says what happened, to whom, why, what was tried and what
 * happens next, in that order and in words, and keeps the codes for those who look for
 * them. */
#include "node/mail/dsn_internal.h"

#include "base/utf8.h"

/* Reasons by "subject.detail" of the enhanced status code; the first row that fits is
 * taken, a row ending in "." fits all details. */
static const struct {
    const char *code;
    const char *reason;
} reasons[] = {
    {"1.1", "there is no such address; check the part before the @"},
    {"1.2", "there is no such domain, or it takes no mail; check the part behind the @"},
    {"1.3", "the address is not written as an address can be"},
    {"1.6", "the mailbox has moved and left no new address"},
    {"1.7", "the sender's address is not accepted there"},
    {"1.8", "the sender's domain is not accepted there"},
    {"1.10", "the domain says that it accepts no mail"},
    {"1.", "the address is not accepted there"},
    {"2.1", "the mailbox is disabled"},
    {"2.2", "the mailbox is full"},
    {"2.3", "the message is too large for the mailbox"},
    {"2.", "there is a problem with the mailbox"},
    {"3.1", "the other mail system is full"},
    {"3.4", "the message is too large for the other mail system"},
    {"3.", "there is a problem with the other mail system"},
    {"4.1", "the mail server for this address does not answer"},
    {"4.2", "the connection to the mail server breaks"},
    {"4.3", "the domain's name servers fail"},
    {"4.4", "no way to the mail server is known"},
    {"4.6", "the mail would go in a circle"},
    {"4.7", "it could not be delivered in the time it had"},
    {"4.", "the mail server cannot be reached"},
    {"5.3", "too many recipients at once"},
    {"5.", "the two mail systems do not understand each other"},
    {"6.3", "the message has 8-bit text and the other mail system takes only 7-bit"},
    {"6.7",
        "the address or message needs international e-mail (SMTPUTF8), which the other "
        "mail system does not have"},
    {"6.", "the other mail system cannot take this kind of content"},
    {"7.1", "the other mail system refuses it by its rules"},
    {"7.5", "a secure connection to the mail server could not be made"},
    {"7.8", "the mail server refused our credentials"},
    {"7.", "the other mail system refuses it for reasons of security or policy"},
};

const char *dsn_reason(struct slice status)
{
    struct slice code = slice_from(status, 2);
    for (size_t i = 0; i < sizeof(reasons) / sizeof(*reasons); i++) {
        struct slice want = slice_str(reasons[i].code);
        bool group = want.ptr[want.len - 1] == '.';
        if (group ? slice_starts(code, want) : slice_eq(code, want))
            return reasons[i].reason;
    }
    return NULL;
}

#define TEXT_COLUMNS 74

/* What a peer said: visible characters only, broken into lines. */
static void add_wrapped(struct buf *out, const char *indent, struct slice text)
{
    while (text.len) {
        size_t max = TEXT_COLUMNS - strlen(indent);
        size_t len = text.len < max ? text.len : max;
        if (len < text.len) {
            size_t blank = slice_rfind(slice_head(text, len), ' ');
            len = blank > 0 && blank < len ? blank : len;
            while (len > 1 && ((unsigned char)text.ptr[len] & 0xc0) == 0x80)
                len--;
        }
        buf_append_str(out, indent);
        buf_append(out, slice_head(text, len));
        buf_append_str(out, "\r\n");
        text = slice_from(text, len);
        while (text.len && text.ptr[0] == ' ')
            text = slice_from(text, 1);
    }
}

static void add_quoted(struct buf *out, const char *indent, struct slice text)
{
    struct buf clean;
    buf_init(&clean, 16384);
    utf8_escape(text, &clean);
    add_wrapped(out, indent, buf_slice(&clean));
    buf_fini(&clean);
}

static void add_opening(struct buf *out, const struct dsn_draft *d)
{
    const char *these = d->rcpt_count > 1 ? "these recipients" : "this recipient";
    const char *your = d->double_bounce
                           ? "A delivery notice that has no sender to return to"
                           : "Your message";
    switch (d->request->kind) {
    case DSN_FAILURE:
        buf_printf(out, "%s could not be delivered to %s:\r\n", your, these);
        break;
    case DSN_DELAY:
        buf_printf(out, "Your message has not been delivered to %s yet:\r\n", these);
        break;
    case DSN_RELAYED:
        buf_printf(
            out, "Your message was passed on to the next mail system for %s:\r\n", these);
        break;
    case DSN_EXPANDED:
        buf_printf(out, "Your message was passed on to the members of %s:\r\n", these);
        break;
    case DSN_DELIVERED:
    case DSN_KIND_COUNT:
        buf_printf(out, "Your message was delivered to %s:\r\n", these);
        break;
    }
}

/* "mx.example.net said:" */
static void add_reply(struct buf *out, const struct rcpt_record *r)
{
    if (r->last_reply.len == 0)
        return;
    bool said = dsn_is_reply(r->last_reply);
    if (said && r->last_mx.len) {
        buf_append_str(out, "    ");
        utf8_escape(slice_head(r->last_mx, 255), out);
        buf_append_str(out, " said:\r\n");
    } else {
        buf_append_str(
            out, said ? "    The other server said:\r\n" : "    In detail:\r\n");
    }
    add_quoted(out, "        ", r->last_reply);
}

static void add_attempts(struct buf *out, const struct rcpt_record *r)
{
    char date[48];
    if (r->attempts == 0 || r->last_attempt.ms == 0)
        return;
    wall_format_rfc5322(r->last_attempt, date);
    if (r->attempts == 1)
        buf_printf(out, "    Tried once, on %s.\r\n", date);
    else
        buf_printf(
            out, "    Tried %u times, last on %s.\r\n", (unsigned)r->attempts, date);
}

static void add_recipient(
    struct buf *out, const struct dsn_draft *d, const struct rcpt_record *r)
{
    buf_append_str(out, "\r\n  ");
    utf8_escape(r->rcpt.address, out);
    buf_append_str(out, "\r\n");
    bool bad = d->request->kind == DSN_FAILURE || d->request->kind == DSN_DELAY;
    char status[16];
    dsn_status(d->request->kind, r->last_status, status);
    const char *reason = bad ? dsn_reason(slice_str(status)) : NULL;
    if (r->state == RCPT_EXPIRED)
        add_wrapped(out, "    ",
            SLICE("The time for its delivery is over; the last attempt failed:"));
    if (reason) {
        char sentence[256];
        struct buf b = {
            .mem = sentence, .cap = sizeof(sentence), .max = sizeof(sentence)};
        buf_append_str(&b, "Reason: ");
        buf_append_str(&b, reason);
        buf_append_char(&b, '.');
        add_wrapped(out, "    ", buf_slice(&b));
    }
    add_reply(out, r);
    if (bad)
        add_attempts(out, r);
}

static void add_next(struct buf *out, const struct dsn_draft *d)
{
    char date[48];
    switch (d->request->kind) {
    case DSN_FAILURE:
        buf_append_str(out, "\r\nWhat happens next: nothing by itself. We do not try "
                            "again, and the message\r\n"
                            "is no longer in our queue.\r\n");
        buf_append_str(out, d->full ? "It is attached to this notice.\r\n"
                                    : "Its header is attached to this notice.\r\n");
        break;
    case DSN_DELAY:
        wall_format_rfc5322(d->request->retry_until, date);
        buf_printf(out,
            "\r\nWhat happens next: we go on trying until %s.\r\n"
            "You need not send it again. If it cannot be delivered by then you will be "
            "told.\r\n",
            date);
        break;
    case DSN_RELAYED:
        buf_append_str(out, "\r\nWhat happens next: that system does not confirm "
                            "delivery, so you will hear no\r\n"
                            "more of this message unless it comes back.\r\n");
        break;
    case DSN_EXPANDED:
    case DSN_DELIVERED:
    case DSN_KIND_COUNT:
        buf_append_str(out, "\r\nNo action is needed.\r\n");
        break;
    }
}

void dsn_write_text(struct buf *out, const struct dsn_draft *d)
{
    char id[MSG_ID_TEXT + 1], date[48];
    msg_id_format(d->request->unit.msg, id);
    wall_format_rfc5322(d->request->original->created, date);
    struct slice host = d->request->hostname;
    buf_printf(out, "This is the mail system of %.*s.\r\n\r\n", SLICE_ARG(host));
    add_opening(out, d);
    unsigned named = d->rcpt_count < DSN_NAMED_MAX ? d->rcpt_count : DSN_NAMED_MAX;
    for (unsigned i = 0; i < named; i++)
        add_recipient(out, d, d->rcpts[i]);
    if (named < d->rcpt_count)
        buf_printf(out, "\r\n  and %u more, all named in the delivery report below.\r\n",
            d->rcpt_count - named);
    add_next(out, d);
    buf_printf(out,
        "\r\nThe message came to us on %s\r\n"
        "and has the queue ID %s. For help quote that ID to\r\n"
        "postmaster@%.*s.\r\n",
        date, id, SLICE_ARG(host));
}
