/* SPDX-License-Identifier: Apache-2.0 */
/* A hostile server against the SMTP client engine. The first octets of the input choose
 * the configuration, then each octet below 16 is an event of the owner and everything
 * else is said by the server. Checked at every step: each transaction is done exactly
 * once, nothing is delivered whose last octet has not left, and only then can it be in
 * doubt. */
#include <stdlib.h>

#include "base/alloc.h"
#include "node/smtp/client.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct rig {
    struct smtp_client *c;
    struct mono now;
    unsigned started, done;
    unsigned body_left;
    bool closed, dot_left, later, ready;
    uint8_t mode;
};

static const struct smtp_client_rcpt rcpts[] = {
    {SLICE_INIT("a@example.org"), SLICE_INIT("rfc822;x+y@example.org"), 6},
    {SLICE_INIT("\xc3\xa9@example.org"), {NULL, 0}, 0},
    {SLICE_INIT("\"b c\"@example.org"), {NULL, 0}, 1},
};
static const char block[4076] = "\r\n.\r\n..\r\n";

static void on_start_tls(void *ctx)
{
    struct rig *r = ctx;
    if (r->mode & 1)
        smtp_client_tls_started(r->c, true, r->now);
}

static void start(struct rig *r)
{
    static const struct smtp_client_tx tx[2] = {
        {.reverse_path = SLICE_INIT("s@example.org"), .rcpts = rcpts, .rcpt_count = 3},
        {.rcpts = rcpts, .rcpt_count = 1, .lacks_final_crlf = true, .eight_bit = true}};
    r->body_left = r->mode & 2 ? 40 : 1;
    r->dot_left = false;
    r->ready = false;
    unsigned which = r->started++ & 1;
    smtp_client_start(r->c, &tx[which], r->now);
}

static void on_ready(void *ctx)
{
    struct rig *r = ctx;
    INVARIANT(r->started == r->done);
    r->ready = true;
    if (r->mode & 4)
        start(r);
}

static enum smtp_body_state on_body(void *ctx, struct slice *out)
{
    struct rig *r = ctx;
    if (r->later)
        return SMTP_BODY_LATER;
    if (r->body_left == 0)
        return SMTP_BODY_END;
    r->body_left--;
    *out = slice_make(block, sizeof(block));
    return SMTP_BODY_MORE;
}

static void write_final(struct rig *r, size_t max)
{
    size_t all = smtp_client_final(r->c).len;
    size_t n = all < max ? all : max;
    if (all == 0)
        return;
    INVARIANT(buf_len(smtp_client_output(r->c)) == 0);
    r->dot_left = n == all;
    smtp_client_final_written(r->c, n, r->now);
}

static void on_final(void *ctx)
{
    struct rig *r = ctx;
    if (r->mode & 8)
        write_final(r, SIZE_MAX);
}

static void on_done(void *ctx, const struct smtp_outcome *o)
{
    struct rig *r = ctx;
    r->done++;
    INVARIANT(r->done == r->started);
    for (unsigned i = 0; i < o->count; i++) {
        const struct smtp_rcpt_result *result = &o->results[i];
        INVARIANT(result->err != ERR_OK || r->dot_left);
        INVARIANT(!result->possible_duplicate || (r->dot_left && result->err != ERR_OK));
        INVARIANT(result->status.len >= 5 && result->text.len > 0);
        INVARIANT(result->text.len <= SMTP_RESULT_TEXT_MAX);
    }
}

static void on_closed(void *ctx, const struct smtp_client_end *end)
{
    struct rig *r = ctx;
    INVARIANT(!r->closed && r->started == r->done && end->phase < SMTP_PHASE_CLOSED);
    r->closed = true;
}

static void flush(struct rig *r, size_t max)
{
    struct buf *out = smtp_client_output(r->c);
    size_t n = buf_len(out) < max ? buf_len(out) : max;
    buf_consume(out, n);
    smtp_client_written(r->c, r->now);
}

static void owner_event(struct rig *r, uint8_t what)
{
    if (what == 0)
        smtp_client_eof(r->c, r->now);
    else if (what == 1)
        smtp_client_quit(r->c, r->now);
    else if (what == 2)
        smtp_client_abort(r->c, ERR_SHUTTING_DOWN, r->now);
    else if (what == 3)
        smtp_client_tls_started(r->c, true, r->now);
    else if (what == 4)
        smtp_client_tls_started(r->c, false, r->now);
    else if (what == 5)
        write_final(r, 100);
    else if (what == 6)
        write_final(r, SIZE_MAX);
    else if (what == 7)
        smtp_client_final_refused(r->c, r->now);
    else if (what == 8)
        r->later = true;
    else if (what == 9)
        r->later = false, smtp_client_body_ready(r->c, r->now);
    else if (what == 11 && r->ready && !r->closed)
        start(r);
    else if (what == 12)
        flush(r, 3);
    else if (what == 14)
        r->now = mono_add_ms(r->now, 150000), smtp_client_tick(r->c, r->now);
    else if (what == 15)
        flush(r, SIZE_MAX);
}

static bool is_said(uint8_t octet)
{
    return octet >= 16 || octet == '\r' || octet == '\n';
}

static void run(struct rig *r, const uint8_t *data, size_t size)
{
    for (size_t at = 0; at < size;) {
        size_t end = at;
        while (end < size && is_said(data[end]) && data[end] != '\n')
            end++;
        if (end < size && data[end] == '\n')
            end++;
        if (end > at)
            smtp_client_feed(r->c, slice_make(data + at, end - at), r->now);
        else
            owner_event(r, data[end++]);
        if (r->mode & 16)
            flush(r, SIZE_MAX);
        at = end;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct smtp_client_handler handler = {
        on_start_tls, on_ready, on_body, on_final, on_done, on_closed};
    if (size < 2)
        return 0;
    struct smtp_client_config config = {.ehlo_name = SLICE("relay.example.org"),
        .tls = (enum delivery_tls)(data[0] & 3),
        .tls_implicit = (data[0] & 4) != 0,
        .eight_bit = data[0] & 8 ? SMTP_EIGHT_BIT_SEND : SMTP_EIGHT_BIT_BOUNCE,
        .chunking = data[0] & 16 ? SMTP_CHUNKING_PREFER : SMTP_CHUNKING_AS_NEEDED};
    if (data[0] & 32) {
        config.user = SLICE("user");
        config.password = SLICE("password");
    }
    struct rig r = {.now = {NS_PER_S}, .mode = data[1]};
    r.c = smtp_client_new(&config, &handler, &r, r.now);
    run(&r, data + 2, size - 2);
    smtp_client_eof(r.c, r.now);
    INVARIANT(r.closed && r.started == r.done);
    smtp_client_free(r.c);
    return 0;
}
