/* SPDX-License-Identifier: Apache-2.0 */
/* The octets of a message. Two rules stand against smuggling: only CRLF.CRLF ends DATA,
 * and no CR or LF leaves here but as CRLF. A line starts behind a CRLF and nowhere else,
 * also where a bare LF is normalised: the client that dot-stuffed saw it so, and a "."
 * behind a bare LF is an ordinary character. Runs of the input are handed on as they are,
 * without a copy. */
#include "node/smtp/server.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/alloc.h"
#include "node/smtp/server_internal.h"

static const struct refusal BARE_LF = {
    550, "5.5.2", "bare LF in the message: lines end with CRLF (RFC 5321 2.3.8)"};
static const struct refusal BARE_CR = {
    550, "5.5.2", "bare CR in the message: lines end with CRLF (RFC 5321 2.3.8)"};
static const struct refusal HAS_NUL = {550, "5.6.0", "NUL in the message (RFC 2045 2.7)"};
static const struct refusal TOO_BIG = {552, "5.3.4", "message is larger than the limit"};
static const struct refusal HEADER_TOO_BIG = {
    552, "5.3.4", "header section is too large"};
static const struct refusal TOO_MANY_HOPS = {554, "5.4.6", "too many hops: a mail loop"};
static const struct refusal LINE_TOO_LONG = {
    550, "5.6.0", "a line of the message is too long"};

/* --- handing out --- */

static void fault(struct transaction *t, const struct refusal *why)
{
    if (!t->fault)
        t->fault = why;
}

struct octets {
    bool has_nul, has_8bit;
};

/* Eight at a time; the second term has a top bit exactly where an octet is zero, or one
 * above a zero, so it is nonzero just when there is one. */
static struct octets look_at(struct slice run)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = ones << 7;
    uint64_t word, high = 0, zero = 0;
    for (; run.len >= sizeof word; run = slice_from(run, sizeof word)) {
        memcpy(&word, run.ptr, sizeof word);
        high |= word;
        zero |= (word - ones) & ~word;
    }
    for (size_t i = 0; i < run.len; i++) {
        unsigned char c = (unsigned char)run.ptr[i];
        high |= c;
        zero |= c == 0 ? tops : 0;
    }
    return (struct octets){(zero & tops) != 0, (high & tops) != 0};
}

static void check_header(struct smtp_server *s, struct transaction *t, struct slice run)
{
    if (t->header.done)
        return;
    header_scan_feed(&t->header, run);
    if (t->header.header_bytes > s->config.max_header_bytes ||
        (!t->header.done && t->header.offset > s->config.max_header_bytes))
        fault(t, &HEADER_TOO_BIG);
    if (t->header.count[HEADER_RECEIVED] > s->config.max_hops)
        fault(t, &TOO_MANY_HOPS);
}

/* A run whose line ends are good. */
static void hand_out(struct smtp_server *s, struct slice run)
{
    struct transaction *t = s->txn;
    uint64_t limit = s->config.max_message_bytes;
    if (run.len == 0 || t->fault)
        return;
    struct octets seen = look_at(run);
    if (seen.has_nul)
        fault(t, &HAS_NUL);
    if (limit > 0 && t->size + run.len > limit)
        fault(t, &TOO_BIG);
    check_header(s, t, run);
    if (t->fault)
        return;
    t->has_8bit |= seen.has_8bit;
    t->size += run.len;
    t->ends_with_crlf =
        run.len >= 2 && run.ptr[run.len - 2] == '\r' && run.ptr[run.len - 1] == '\n';
    s->in_callback = true;
    s->handler->body(s->ctx, run);
    s->in_callback = false;
}

/* --- scanning --- */

struct cursor {
    struct slice in;
    size_t at;  /* next octet to look at */
    size_t run; /* first octet not handed out */
    size_t lf;  /* the next LF at or behind `at`, in.len: none; each octet is searched
                   once,  however many bare CR or LF there are */
};

/* Hands out what lies before `end` and goes on at `next`. */
static void flush(struct smtp_server *s, struct cursor *c, size_t end, size_t next)
{
    hand_out(s, slice_make(c->in.ptr + c->run, end - c->run));
    c->run = c->at = next;
}

/* In place of a bare CR or LF. */
static void bare(struct smtp_server *s, const struct refusal *why)
{
    struct transaction *t = s->txn;
    if (s->config.line_ends == SMTP_LINE_ENDS_REJECT)
        fault(t, why);
    else
        hand_out(s, SLICE("\r\n"));
    t->line = LINE_TEXT;
    t->line_bytes = 0;
}

static void count_line(struct smtp_server *s, size_t octets)
{
    struct transaction *t = s->txn;
    t->line_bytes += octets;
    if (s->config.max_text_line_bytes > 0 &&
        t->line_bytes > s->config.max_text_line_bytes)
        fault(t, &LINE_TOO_LONG);
}

static void good_line_end(struct transaction *t)
{
    t->line = t->is_bdat ? LINE_TEXT : LINE_START; /* a chunk has no dots to look for */
    t->line_bytes = 0;
}

/* The rest of a line as far as it is here. */
static void scan_text(struct smtp_server *s, struct cursor *c)
{
    struct transaction *t = s->txn;
    if (c->lf < c->at)
        c->lf = c->at + slice_find(slice_from(c->in, c->at), '\n');
    struct slice line = slice_make(c->in.ptr + c->at, c->lf - c->at);
    size_t cr = c->at + slice_find(line, '\r');
    count_line(s, cr - c->at);
    if (cr == c->in.len) {
        flush(s, c, cr, cr);
    } else if (cr == c->lf) {
        flush(s, c, cr, cr + 1);
        bare(s, &BARE_LF);
    } else if (cr + 1 == c->in.len) {
        flush(s, c, cr, cr + 1);
        t->line = LINE_CR;
    } else if (cr + 1 == c->lf) {
        c->at = c->lf + 1;
        good_line_end(t);
    } else {
        flush(s, c, cr, cr + 1);
        bare(s, &BARE_CR);
    }
}

/* What follows a CR that was held back. */
static void scan_after_cr(struct smtp_server *s, struct cursor *c)
{
    if (c->in.ptr[c->at] != '\n') {
        bare(s, &BARE_CR);
        return;
    }
    c->run = ++c->at;
    hand_out(s, SLICE("\r\n"));
    good_line_end(s->txn);
}

/* What follows "." at the start of a line: the end, or a dot that was stuffed (RFC 5321
 * 4.5.2: dropped whatever follows it). */
static void scan_after_dot(struct smtp_server *s, struct cursor *c)
{
    if (c->in.ptr[c->at] == '\r') {
        s->txn->line = LINE_DOT_CR;
        c->run = ++c->at;
    } else {
        s->txn->line = LINE_TEXT;
    }
}

static void scan_line_start(struct smtp_server *s, struct cursor *c)
{
    if (c->in.ptr[c->at] != '.') {
        s->txn->line = LINE_TEXT;
        return;
    }
    flush(s, c, c->at, c->at + 1);
    s->txn->line = LINE_DOT;
}

/* Scans until `in` is used up or DATA has ended; returns how much was used. */
static size_t scan(struct smtp_server *s, struct slice in, bool *ended_out)
{
    struct cursor c = {.in = in};
    c.lf = slice_find(in, '\n');
    *ended_out = false;
    while (c.at < in.len && !*ended_out) {
        switch (s->txn->line) {
        case LINE_START:
            scan_line_start(s, &c);
            break;
        case LINE_TEXT:
            scan_text(s, &c);
            break;
        case LINE_CR:
            scan_after_cr(s, &c);
            break;
        case LINE_DOT:
            scan_after_dot(s, &c);
            break;
        case LINE_DOT_CR:
            *ended_out = in.ptr[c.at] == '\n';
            if (*ended_out)
                c.run = ++c.at;
            else
                bare(s, &BARE_CR);
            break;
        }
    }
    flush(s, &c, c.at, c.at);
    return c.at;
}

/* --- the end --- */

static void finish(struct smtp_server *s)
{
    struct transaction *t = s->txn;
    header_scan_end(&t->header);
    s->verb = t->is_bdat ? SLICE("BDAT") : SLICE("DATA");
    s->argument = SLICE("");
    if (t->fault) {
        server_refuse(s, t->fault);
        server_transaction_end(s, SMTP_END_REFUSED);
        return;
    }
    struct smtp_body_info info = {.size = t->size,
        .has_8bit = t->has_8bit,
        .by_bdat = t->is_bdat,
        .ends_with_crlf = t->ends_with_crlf || !t->is_bdat,
        .header = &t->header};
    struct smtp_request *r = server_request_open(s, REQUEST_BODY_END);
    s->handler->body_end(s->ctx, r, &info);
    server_request_settle(s);
}

void server_body_answered(struct smtp_server *s, int code)
{
    bool is_accepted = code < 300;
    if (is_accepted) {
        s->messages++;
        s->errors = 0;
        s->idle_commands = 0;
    }
    server_transaction_end(s, is_accepted ? SMTP_END_ACCEPTED : SMTP_END_REFUSED);
}

/* --- DATA --- */

static void ask_data(struct smtp_server *s)
{
    if (!s->handler->data) {
        if (!s->txn->is_bdat)
            server_reply(s, 354, NULL, SLICE("end with CRLF.CRLF"));
        server_data_answered(s, 354);
        return;
    }
    struct smtp_request *r = server_request_open(s, REQUEST_DATA);
    s->handler->data(s->ctx, r);
    server_request_settle(s);
}

void server_data(struct smtp_server *s, struct slice argument)
{
    (void)argument;
    ask_data(s);
}

size_t server_data_feed(struct smtp_server *s, struct slice in)
{
    bool is_over;
    size_t used = scan(s, in, &is_over);
    s->data_bytes += used;
    if (is_over) {
        server_set_state(s, STATE_COMMAND);
        s->restart_wait = true;
        finish(s);
    }
    return used;
}

/* --- BDAT (RFC 3030 2) --- */

static const struct refusal ALREADY_SAID = {0};

struct chunk_argument {
    uint64_t size;
    bool is_last;
};

static bool parse_chunk(struct slice argument, struct chunk_argument *out)
{
    struct slice digits = slice_head(argument, slice_find(argument, ' '));
    struct slice last = slice_trim(slice_from(argument, digits.len));
    out->is_last = slice_eq_nocase(last, SLICE("LAST"));
    return slice_u64(digits, INT64_MAX, &out->size) && (last.len == 0 || out->is_last);
}

/* Refuses the message for good: chunks that are on their way find no transaction. */
static void refuse_chunk(struct smtp_server *s, const struct refusal *why)
{
    server_refuse(s, why);
    server_transaction_end(s, SMTP_END_REFUSED);
}

/* All octets of the chunk are here. */
static void chunk_end(struct smtp_server *s)
{
    struct transaction *t = s->txn;
    server_set_state(s, STATE_COMMAND);
    s->restart_wait = true;
    if (s->chunk_refusal) {
        if (s->chunk_refusal != &ALREADY_SAID)
            server_refuse(s, s->chunk_refusal);
        return;
    }
    if (s->is_last_chunk && t->line == LINE_CR)
        bare(s, &BARE_CR);
    if (s->is_last_chunk) {
        finish(s);
    } else if (t->fault) {
        refuse_chunk(s, t->fault);
    } else {
        char text[64];
        snprintf(text, sizeof text, "%" PRIu64 " octets received", s->chunk_size);
        server_reply(s, 250, "2.0.0", slice_str(text));
    }
}

static void chunk_begin(struct smtp_server *s)
{
    server_set_state(s, STATE_CHUNK);
    uint64_t limit = s->config.max_message_bytes;
    bool is_limited = !s->chunk_refusal && limit > 0;
    if (is_limited && (s->txn->size > limit || s->chunk_left > limit - s->txn->size))
        fault(s->txn, &TOO_BIG);
    if (s->chunk_left == 0)
        chunk_end(s);
}

/* Nothing to put the octets into: they are read, thrown away, and this is said. */
static const struct refusal *no_place_for_chunk(const struct smtp_server *s)
{
    static const struct refusal tls_first = {530, "5.7.0", "STARTTLS first"};
    static const struct refusal mail_first = {503, "5.5.1", "MAIL first"};
    static const struct refusal no_recipients = {554, "5.5.1", "no valid recipients"};
    if (s->config.tls == SMTP_TLS_REQUIRED && !s->is_tls)
        return &tls_first;
    switch (server_phase(s)) {
    case PHASE_RCPT:
    case PHASE_BDAT:
        return NULL;
    case PHASE_MAIL:
        return &no_recipients;
    case PHASE_HELLO:
    case PHASE_READY:
    case PHASE_ANY:
        break;
    }
    return &mail_first;
}

void server_bdat(struct smtp_server *s, struct slice argument)
{
    /* Where the octets end is not known, so what follows must not be taken for commands.
     */
    static const struct refusal bad = {501, "5.5.4", "syntax: BDAT size [LAST]; closing"};
    struct chunk_argument chunk;
    if (!parse_chunk(argument, &chunk)) {
        server_close(s, &bad);
        return;
    }
    s->chunk_left = s->chunk_size = chunk.size;
    s->is_last_chunk = chunk.is_last;
    s->chunk_refusal = no_place_for_chunk(s);
    if (s->chunk_refusal)
        s->restart_data = true;
    if (s->chunk_refusal || s->txn->is_bdat) {
        chunk_begin(s);
        return;
    }
    s->txn->is_bdat = true;
    s->txn->line = LINE_TEXT;
    ask_data(s);
}

void server_data_answered(struct smtp_server *s, int code)
{
    bool is_bdat = s->txn->is_bdat;
    INVARIANT(code == 354 || code >= 400);
    s->restart_data = true;
    s->txn->is_started = code == 354;
    if (!s->txn->is_started) {
        server_transaction_end(s, SMTP_END_REFUSED);
        s->chunk_refusal = &ALREADY_SAID; /* the octets come all the same */
    }
    if (is_bdat)
        chunk_begin(s);
    else if (code == 354)
        server_set_state(s, STATE_DATA);
}

size_t server_chunk_feed(struct smtp_server *s, struct slice in)
{
    size_t used = in.len < s->chunk_left ? in.len : (size_t)s->chunk_left;
    bool is_over;
    if (!s->chunk_refusal)
        scan(s, slice_head(in, used), &is_over);
    s->data_bytes += used;
    s->chunk_left -= used;
    if (s->chunk_left == 0)
        chunk_end(s);
    return used;
}
