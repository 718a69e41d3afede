/* SPDX-License-Identifier: Apache-2.0 */
#include "node/smtp/client_internal.h"

#include <inttypes.h>

#include "base/alloc.h"
#include "proto/esmtp_params.h"

/* --- may it be sent at all? --- */

static bool has_non_ascii(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] >= 0x80)
            return true;
    return false;
}

/* Intake has parsed the address. This is the last look before it becomes part of a
 * command line: nothing may end the path or the line early. */
static bool path_is_safe(struct slice address)
{
    bool quoted = false;
    for (size_t i = 0; i < address.len; i++) {
        unsigned char u = (unsigned char)address.ptr[i];
        if (u < 0x20 || u == 0x7f)
            return false;
        if (quoted && u == '\\')
            i++;
        else if (u == '"')
            quoted = !quoted;
        else if (!quoted && (u == '<' || u == '>' || u == ' '))
            return false;
    }
    return !quoted && address.len <= 1024;
}

static enum err message_obstacle(const struct smtp_client *c)
{
    const struct smtp_client_tx *tx = c->tx.given;
    if (c->caps.size_max && tx->size > c->caps.size_max)
        return ERR_TOO_BIG;
    if (c->tx.utf8 && !(c->caps.flags & SMTP_CAP_SMTPUTF8))
        return ERR_NEEDS_SMTPUTF8;
    if (tx->eight_bit && !(c->caps.flags & SMTP_CAP_8BITMIME) &&
        c->config->eight_bit == SMTP_EIGHT_BIT_BOUNCE)
        return ERR_NEEDS_8BITMIME;
    return path_is_safe(tx->reverse_path) ? ERR_OK : ERR_BAD_SENDER;
}

static void decide_error(
    struct smtp_client *c, unsigned i, enum smtp_phase phase, enum err err)
{
    struct verdict v;
    verdict_from_error(&v, err, phase);
    client_decide(c, i, phase, &v);
}

/* Recipients this hop can never get, and those over its RCPTMAX (RFC 9422). */
static void decide_in_advance(struct smtp_client *c)
{
    unsigned left = c->caps.rcpt_max ? c->caps.rcpt_max : UINT32_MAX;
    for (unsigned i = 0; i < c->tx.given->rcpt_count; i++) {
        struct slice address = c->tx.given->rcpts[i].address;
        bool utf8 = has_non_ascii(address);
        if (address.len == 0 || !path_is_safe(address)) {
            decide_error(c, i, SMTP_PHASE_RCPT, ERR_BAD_ADDRESS);
        } else if (utf8 && !(c->caps.flags & SMTP_CAP_SMTPUTF8)) {
            decide_error(c, i, SMTP_PHASE_RCPT, ERR_NEEDS_SMTPUTF8);
        } else if (left == 0) {
            decide_error(c, i, SMTP_PHASE_RCPT, ERR_REMOTE_TRANSIENT);
            c->results[i].too_many = true;
        } else {
            left--;
            c->tx.utf8 |= utf8;
        }
    }
}

static void make_slots(struct smtp_client *c, unsigned count)
{
    if (count > c->slots_cap) {
        c->slots = mem_realloc(c->slots, count * sizeof(*c->slots));
        c->results = mem_realloc(c->results, count * sizeof(*c->results));
        c->slots_cap = count;
    }
    memset(c->slots, 0, count * sizeof(*c->slots));
    memset(c->results, 0, count * sizeof(*c->results));
}

/* The rule at the top of client.h. */
static bool choose_bdat(const struct smtp_client *c)
{
    if (!(c->caps.flags & SMTP_CAP_CHUNKING))
        return false;
    return c->config->chunking == SMTP_CHUNKING_PREFER ||
           (c->config->chunking == SMTP_CHUNKING_AS_NEEDED &&
               c->tx.given->lacks_final_crlf);
}

static void make_tx(struct smtp_client *c, const struct smtp_client_tx *given)
{
    INVARIANT(given->rcpt_count > 0);
    make_slots(c, given->rcpt_count);
    buf_clear(&c->texts);
    c->outcome = (struct smtp_outcome){0};
    c->tx = (struct client_tx){.given = given};
}

void client_tx_too_late(struct smtp_client *c, const struct smtp_client_tx *given)
{
    struct verdict v = c->end;
    if (v.err == ERR_OK)
        verdict_from_error(&v, ERR_CONNECTION_LOST, SMTP_PHASE_IDLE);
    make_tx(c, given);
    c->outcome.connection_failed = true;
    /* On a connection that has carried nothing, one more would only do the same. */
    c->outcome.stale = c->transactions > 0 && (v.code == 0 || v.code == 421);
    client_decide_rest(c, SMTP_PHASE_IDLE, &v);
    client_tx_finish(c);
}

void client_tx_begin(struct smtp_client *c, const struct smtp_client_tx *given)
{
    make_tx(c, given);
    c->tx.utf8 = given->smtputf8 || has_non_ascii(given->reverse_path);
    c->tx.bdat = choose_bdat(c);
    c->transactions++;
    enum err err = message_obstacle(c);
    if (err != ERR_OK) {
        struct verdict v;
        verdict_from_error(&v, err, SMTP_PHASE_MAIL);
        client_decide_rest(c, SMTP_PHASE_MAIL, &v);
    } else {
        decide_in_advance(c);
    }
    if (c->tx.decided == given->rcpt_count)
        client_tx_end(c);
    else
        client_enter(c, c->rset_due ? SMTP_PHASE_RSET : SMTP_PHASE_MAIL);
}

/* --- commands --- */

static void send_mail(struct smtp_client *c)
{
    const struct smtp_client_tx *tx = c->tx.given;
    uint32_t caps = c->caps.flags;
    struct buf *out = &c->out;
    buf_append_str(out, "MAIL FROM:<");
    buf_append(out, tx->reverse_path);
    buf_append_char(out, '>');
    if ((caps & SMTP_CAP_SIZE) && tx->size)
        buf_printf(out, " SIZE=%" PRIu64, tx->size);
    if ((caps & SMTP_CAP_8BITMIME) && tx->eight_bit)
        buf_append_str(out, " BODY=8BITMIME");
    if (c->tx.utf8)
        buf_append_str(out, " SMTPUTF8");
    if ((caps & SMTP_CAP_DSN) && tx->ret != SMTP_RET_UNSET)
        buf_append_str(out, tx->ret == SMTP_RET_FULL ? " RET=FULL" : " RET=HDRS");
    if ((caps & SMTP_CAP_DSN) && tx->envid.len) {
        buf_append_str(out, " ENVID=");
        xtext_append(out, tx->envid);
    }
    buf_append_str(out, "\r\n");
    client_command_added(c);
    c->tx.mail_sent = true;
    c->rset_due = true;
}

static void send_rcpt(struct smtp_client *c)
{
    const struct smtp_client_rcpt *rcpt = &c->tx.given->rcpts[c->tx.rcpt_sent];
    struct buf *out = &c->out;
    buf_append_str(out, "RCPT TO:<");
    buf_append(out, rcpt->address);
    buf_append_char(out, '>');
    if ((c->caps.flags & SMTP_CAP_DSN) && rcpt->notify) {
        buf_append_str(out, " NOTIFY=");
        esmtp_notify_append(out, rcpt->notify);
    }
    if ((c->caps.flags & SMTP_CAP_DSN) && rcpt->orcpt.len) {
        buf_append_str(out, " ORCPT=");
        esmtp_orcpt_append(out, rcpt->orcpt, c->tx.utf8);
    }
    buf_append_str(out, "\r\n");
    client_command_added(c);
    c->slots[c->tx.rcpt_sent++].sent = true;
}

/* The next command of the transaction; false when there is none to send now. */
static bool send_next(struct smtp_client *c)
{
    struct client_tx *tx = &c->tx;
    if (tx->refused || tx->lone_dot)
        return false;
    if (!tx->mail_sent && c->rset_due) {
        buf_append_str(&c->out, "RSET\r\n");
        client_command_added(c);
        c->rset_due = false;
        return true;
    }
    if (!tx->mail_sent) {
        send_mail(c);
        return true;
    }
    while (tx->rcpt_sent < tx->given->rcpt_count &&
           c->slots[tx->rcpt_sent].step == RCPT_DECIDED)
        tx->rcpt_sent++;
    if (tx->rcpt_sent < tx->given->rcpt_count) {
        send_rcpt(c);
        return true;
    }
    /* While a RCPT is unanswered DATA goes along with it (RFC 2920 3.1). */
    if (tx->bdat || tx->data_sent || (tx->accepted == 0 && c->unanswered == 0))
        return false;
    buf_append_str(&c->out, "DATA\r\n");
    client_command_added(c);
    tx->data_sent = true;
    return true;
}

void client_tx_send(struct smtp_client *c)
{
    bool pipelining = (c->caps.flags & SMTP_CAP_PIPELINING) != 0;
    while (buf_len(&c->out) < CLIENT_OUT_HIGH && (pipelining || c->unanswered == 0) &&
           send_next(c))
        ;
}

/* --- replies --- */

/* Which reply is awaited now, and whether that needs something to be sent. */
static void move_on(struct smtp_client *c)
{
    struct client_tx *tx = &c->tx;
    client_tx_send(c);
    while (tx->rcpt_at < tx->rcpt_sent && !c->slots[tx->rcpt_at].sent)
        tx->rcpt_at++;
    bool more_rcpts = !tx->refused && tx->rcpt_sent < tx->given->rcpt_count;
    if (tx->rcpt_at < tx->rcpt_sent || more_rcpts)
        client_await(c, SMTP_PHASE_RCPT);
    else if (tx->data_sent)
        client_await(c, SMTP_PHASE_DATA);
    else if (tx->accepted == 0)
        client_tx_end(c);
    else
        client_enter(c, tx->bdat ? SMTP_PHASE_BODY : SMTP_PHASE_DATA);
}

static void on_mail(struct smtp_client *c, const struct smtp_reply *r)
{
    if (r->code / 100 == 2) {
        move_on(c);
        return;
    }
    struct verdict v;
    verdict_by_class(&v, SMTP_PHASE_MAIL, r);
    /* The text says that it is our address they will not have: no fault of the mail's. */
    if (v.blames_us) {
        client_fail_reply(c, ERR_REMOTE_TRANSIENT, r);
        return;
    }
    client_decide_rest(c, SMTP_PHASE_MAIL, &v);
    c->tx.refused = true;
    move_on(c);
}

/* "452 too many recipients" behind one that was accepted: the rest may go next. */
static bool is_too_many(const struct smtp_client *c, const struct smtp_reply *r)
{
    if ((r->code != 452 && r->code != 552) || c->tx.accepted == 0)
        return false;
    return r->status[0] == '\0' || strcmp(r->status + 1, ".5.3") == 0;
}

static void on_rcpt(struct smtp_client *c, const struct smtp_reply *r)
{
    unsigned i = c->tx.rcpt_at++;
    struct rcpt_slot *slot = &c->slots[i];
    if (slot->step == RCPT_DECIDED) {
        c->tx.stray_ok |= r->code / 100 == 2;
    } else if (r->code / 100 == 2) {
        slot->step = RCPT_ACCEPTED;
        c->tx.accepted++;
    } else {
        struct verdict v;
        verdict_by_class(&v, SMTP_PHASE_RCPT, r);
        client_decide(c, i, SMTP_PHASE_RCPT, &v);
        c->results[i].too_many = is_too_many(c, r);
    }
    move_on(c);
}

/* 354. Without a recipient a lone dot ends it, and nothing is delivered; but if the
 * server took recipients of a MAIL that it refused, nobody knows what a dot would do:
 * hang up. */
static void on_go_ahead(struct smtp_client *c)
{
    if (c->tx.accepted) {
        client_enter(c, SMTP_PHASE_BODY);
    } else if (c->tx.stray_ok) {
        client_fail(c, ERR_BAD_PROTOCOL);
    } else {
        c->tx.lone_dot = true;
        buf_append_str(&c->out, ".\r\n");
        client_command_added(c);
        client_await(c, SMTP_PHASE_DATA);
    }
}

static void on_data(struct smtp_client *c, const struct smtp_reply *r)
{
    if (r->code / 100 == 3 && !c->tx.lone_dot) {
        on_go_ahead(c);
    } else if (r->code / 100 >= 4) {
        struct verdict v;
        verdict_by_class(&v, SMTP_PHASE_DATA, r);
        client_decide_accepted(c, SMTP_PHASE_DATA, &v);
        client_tx_end(c);
    } else if (c->tx.lone_dot && r->code / 100 == 2) {
        client_tx_end(c);
    } else {
        client_fail(c, ERR_BAD_PROTOCOL);
    }
}

static void on_rset(struct smtp_client *c, const struct smtp_reply *r)
{
    if (r->code / 100 != 2) {
        client_fail_reply(c, ERR_REMOTE_TRANSIENT, r);
        return;
    }
    client_await(c, SMTP_PHASE_MAIL);
    client_tx_send(c);
}

void client_tx_reply(struct smtp_client *c, const struct smtp_reply *r)
{
    if (r->code / 100 == 3 && c->phase != SMTP_PHASE_DATA) {
        client_fail(c, ERR_BAD_PROTOCOL);
        return;
    }
    if (c->phase == SMTP_PHASE_RSET)
        on_rset(c, r);
    else if (c->phase == SMTP_PHASE_MAIL)
        on_mail(c, r);
    else if (c->phase == SMTP_PHASE_RCPT)
        on_rcpt(c, r);
    else
        on_data(c, r);
}

/* --- the end --- */

void client_tx_finish(struct smtp_client *c)
{
    unsigned count = c->tx.given->rcpt_count;
    INVARIANT(c->tx.decided == count && c->tx.accepted == 0);
    struct slice texts = buf_slice(&c->texts);
    for (unsigned i = 0; i < count; i++)
        c->results[i].text =
            slice_head(slice_from(texts, c->slots[i].text_at), c->slots[i].text_len);
    c->outcome.results = c->results;
    c->outcome.count = count;
    c->outcome.dsn_passed_on = (c->caps.flags & SMTP_CAP_DSN) != 0;
    if (c->tx.completed)
        c->rset_due = false;
    c->tx = (struct client_tx){0};
    c->events |= EVENT_DONE;
    /* A connection that waits for the next message must not keep a big one's memory. */
    buf_clear(&c->staged);
    if (buf_len(&c->out) == 0)
        buf_clear(&c->out);
}

void client_tx_end(struct smtp_client *c)
{
    client_tx_finish(c);
    bool last = c->caps.mail_max && c->transactions >= c->caps.mail_max;
    client_enter(c, c->quit_wanted || last ? SMTP_PHASE_QUIT : SMTP_PHASE_IDLE);
}
