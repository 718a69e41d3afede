/* SPDX-License-Identifier: Apache-2.0 */
/* The server engine. The first octets choose the settings, the size of the pieces and how
 * the handler answers (at once, later, refusing); the rest is what the client sends.
 * Whatever it sends: nothing it says is a line of ours, no CR or LF reaches a body but as
 * CRLF, each transaction that begins ends once, and no address holds a control character.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "node/smtp/server.h"
#include "proto/smtp_reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct session {
    struct smtp_server *server;
    struct smtp_request *open;
    int open_yes; /* what takes it */
    uint8_t mood;
    unsigned asked;
    bool in_transaction, in_auth;
    bool after_cr;
    uint64_t body_size;
    struct smtp_reply_parser replies;
};

static void expect_clean(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        INVARIANT((unsigned char)s.ptr[i] >= ' ' && s.ptr[i] != 127);
}

/* Now or later, yes or no, as the mood and the count say. */
static void respond(struct session *f, struct smtp_request *q, int yes)
{
    unsigned turn = f->asked++;
    if ((f->mood & 1) && turn % 3 == 1) {
        INVARIANT(!f->open);
        f->open = q;
        f->open_yes = yes;
    } else if ((f->mood & 2) && turn % 5 == 4) {
        smtp_answer_err(q, turn % 2 ? ERR_USER_UNKNOWN : ERR_STORE_FULL);
    } else {
        smtp_answer(q, yes, NULL, SLICE("as you wish\n\rand more"));
    }
}

static void on_ready(void *ctx)
{
    (void)ctx;
}

static void on_auth_start(void *ctx, struct smtp_request *q, struct slice mechanism,
    bool has_initial, struct slice initial)
{
    struct session *f = ctx;
    INVARIANT(!f->in_auth && !f->in_transaction && mechanism.len > 0);
    INVARIANT(has_initial || initial.len == 0);
    f->in_auth = true;
    smtp_answer_challenge(q, SLICE("Username:"));
}

static void on_auth_response(void *ctx, struct smtp_request *q, struct slice response)
{
    struct session *f = ctx;
    INVARIANT(f->in_auth);
    if (response.len == 0) {
        smtp_answer_challenge(q, response);
        return;
    }
    f->in_auth = false;
    smtp_answer(q, response.ptr[0] == 'y' ? 235 : 535, NULL, SLICE("x"));
}

static void on_auth_cancel(void *ctx)
{
    struct session *f = ctx;
    INVARIANT(f->in_auth);
    f->in_auth = false;
}

static void on_mail(void *ctx, struct smtp_request *q, const struct smtp_path *path,
    const struct esmtp_mail *params)
{
    struct session *f = ctx;
    INVARIANT(!f->in_transaction);
    f->in_transaction = true;
    f->body_size = 0;
    f->after_cr = false;
    expect_clean(path->address);
    expect_clean(params->envid);
    expect_clean(params->auth);
    expect_clean(smtp_server_helo(f->server));
    respond(f, q, 250);
}

static void on_rcpt(void *ctx, struct smtp_request *q, const struct smtp_path *path,
    const struct esmtp_rcpt *params)
{
    struct session *f = ctx;
    INVARIANT(f->in_transaction && path->address.len > 0);
    expect_clean(path->address);
    expect_clean(params->orcpt);
    respond(f, q, 250);
}

static void on_data(void *ctx, struct smtp_request *q)
{
    struct session *f = ctx;
    INVARIANT(f->in_transaction && smtp_server_recipients(f->server) > 0);
    respond(f, q, 354);
}

static void on_body(void *ctx, struct slice bytes)
{
    struct session *f = ctx;
    INVARIANT(f->in_transaction && bytes.len > 0);
    for (size_t i = 0; i < bytes.len; i++) {
        char c = bytes.ptr[i];
        INVARIANT((c == '\n') == f->after_cr && c != '\0');
        f->after_cr = c == '\r';
    }
    f->body_size += bytes.len;
}

static void on_body_end(
    void *ctx, struct smtp_request *q, const struct smtp_body_info *info)
{
    struct session *f = ctx;
    INVARIANT(f->in_transaction && info->size == f->body_size && !f->after_cr);
    INVARIANT(info->header->done);
    respond(f, q, 250);
}

static void on_transaction_end(void *ctx, enum smtp_transaction_end how)
{
    struct session *f = ctx;
    INVARIANT(f->in_transaction && how <= SMTP_END_LOST);
    f->in_transaction = false;
}

static void on_xclient(void *ctx, struct smtp_request *q, const struct xclient *x)
{
    (void)x;
    respond(ctx, q, 220);
}

static void on_vrfy(void *ctx, struct smtp_request *q, struct slice argument)
{
    for (size_t i = 0; i < argument.len; i++) /* a tab is a blank in a command line */
        INVARIANT(argument.ptr[i] == '\t' || (unsigned char)argument.ptr[i] >= ' ');
    respond(ctx, q, 252);
}

static void on_refused(
    void *ctx, struct slice verb, struct slice argument, struct slice reply)
{
    (void)ctx;
    INVARIANT(verb.len <= 16 && argument.len <= 200 && reply.len > 3);
    expect_clean(reply);
}

static const struct smtp_server_handler HANDLER = {
    .ready = on_ready,
    .auth_start = on_auth_start,
    .auth_response = on_auth_response,
    .auth_cancel = on_auth_cancel,
    .mail = on_mail,
    .rcpt = on_rcpt,
    .data = on_data,
    .body = on_body,
    .body_end = on_body_end,
    .transaction_end = on_transaction_end,
    .vrfy = on_vrfy,
    .xclient = on_xclient,
    .refused = on_refused,
};

/* All that we say must be replies. */
static void write_out(struct session *f)
{
    struct buf *out = smtp_server_output(f->server);
    while (buf_len(out) > 0) {
        size_t used;
        enum parse got = smtp_reply_feed(&f->replies, buf_slice(out), &used);
        INVARIANT(got != PARSE_BAD);
        buf_consume(out, used);
    }
}

static void answer_late(struct session *f)
{
    struct smtp_request *q = f->open;
    f->open = NULL;
    if (!q)
        return;
    if (f->mood & 4)
        smtp_request_drop(q);
    else
        smtp_answer(q,
            f->asked % 7 == 0   ? 421
            : f->asked % 3 == 0 ? 550
                                : f->open_yes,
            NULL, SLICE("late"));
}

static void play(struct session *f, struct slice in, size_t piece)
{
    struct mono now = {1};
    smtp_server_start(f->server, now);
    while (in.len > 0) {
        size_t used = smtp_server_feed(f->server, slice_head(in, piece), now);
        in = slice_from(in, used);
        now = mono_add_ms(now, 50);
        write_out(f);
        if (smtp_server_tls_pending(f->server))
            smtp_server_tls_started(f->server, now);
        if (used == 0) {
            INVARIANT(f->open || smtp_server_wants_input(f->server));
            answer_late(f);
        }
        smtp_server_tick(f->server, now);
    }
    if (f->mood & 8)
        smtp_server_shutdown(f->server, ERR_SHUTTING_DOWN);
    write_out(f);
}

static struct smtp_server_config config_of(uint8_t a, uint8_t b)
{
    return (struct smtp_server_config){
        .hostname = "mx.test",
        .tls = a % 3 == 0   ? SMTP_TLS_NONE
               : a % 3 == 1 ? SMTP_TLS_OFFERED
                            : SMTP_TLS_REQUIRED,
        .tls_is_active = a & 4,
        .auth_mechanisms = a & 8 ? "PLAIN LOGIN" : NULL,
        .max_message_bytes = a & 16 ? 100 : 0,
        .max_recipients = 5,
        .max_errors = 1000,
        .max_hops = 3,
        .max_header_bytes = a & 32 ? 50 : 0,
        .max_text_line_bytes = a & 64 ? 30 : 0,
        .line_ends = b & 1 ? SMTP_LINE_ENDS_NORMALISE : SMTP_LINE_ENDS_REJECT,
        .xclient_allowed = b & 2,
        .no_smtputf8 = b & 4,
        .data_rate_bytes = b & 8 ? 100 : 0,
    };
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    struct session f = {.mood = data[2]};
    struct smtp_server_config config = config_of(data[0], data[1]);
    smtp_reply_parser_init(&f.replies);
    f.server = smtp_server_new(&config, &HANDLER, &f, (struct mono){0});
    play(&f, slice_make(data + 4, size - 4), data[3] ? data[3] : 4096);
    smtp_server_free(f.server);
    INVARIANT(!f.in_transaction && !f.in_auth);
    if (f.open)
        smtp_request_drop(f.open);
    smtp_reply_parser_fini(&f.replies);
    return 0;
}
