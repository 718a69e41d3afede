/* SPDX-License-Identifier: Apache-2.0 */
/* Our client engine against our server engine, in memory, in portions of every size: what
 * goes in at one end comes out at the other, octet by octet, by DATA and by BDAT, through
 * every extension that both have. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "node/smtp/client.h"
#include "node/smtp/server.h"

#define MESSAGES 6

struct pair {
    struct smtp_client *client;
    struct smtp_server *server;
    struct mono now;
    size_t portion; /* octets carried at a time */
    /* client's side */
    struct smtp_client_tx tx;
    struct buf body;
    size_t body_at;
    unsigned started, delivered, refused;
    bool closed;
    bool by_data;
    /* server's side */
    struct buf got;
    struct buf envelope;
    bool tls;
};

/* --- the server's owner --- */

static void on_mail(void *ctx, struct smtp_request *r, const struct smtp_path *path,
    const struct esmtp_mail *params)
{
    struct pair *p = ctx;
    buf_clear(&p->envelope);
    buf_printf(&p->envelope, "from <%.*s> size %d body %d ret %d envid %.*s utf8 %d",
        SLICE_ARG(path->address), params->size > 0, (int)params->body, (int)params->ret,
        SLICE_ARG(params->envid), params->smtputf8);
    smtp_answer(r, 250, "2.1.0", SLICE("ok"));
}

static void on_rcpt(void *ctx, struct smtp_request *r, const struct smtp_path *path,
    const struct esmtp_rcpt *params)
{
    struct pair *p = ctx;
    if (slice_starts(path->address, SLICE("nobody@"))) {
        smtp_answer(r, 550, "5.1.1", SLICE("no such user"));
        return;
    }
    buf_printf(&p->envelope, " to <%.*s> notify %u orcpt %.*s", SLICE_ARG(path->address),
        (unsigned)params->notify, SLICE_ARG(params->orcpt));
    smtp_answer(r, 250, "2.1.5", SLICE("ok"));
}

static void on_body(void *ctx, struct slice bytes)
{
    struct pair *p = ctx;
    buf_append(&p->got, bytes);
}

static void on_body_end(
    void *ctx, struct smtp_request *r, const struct smtp_body_info *info)
{
    struct pair *p = ctx;
    assert_int_equal(info->size, buf_len(&p->got));
    smtp_answer(r, 250, "2.0.0", SLICE("queued"));
}

static void on_transaction_end(void *ctx, enum smtp_transaction_end how)
{
    (void)ctx;
    (void)how;
}

static void on_server_ready(void *ctx)
{
    (void)ctx;
}

static const struct smtp_server_handler server_handler = {.ready = on_server_ready,
    .mail = on_mail,
    .rcpt = on_rcpt,
    .body = on_body,
    .body_end = on_body_end,
    .transaction_end = on_transaction_end};

/* --- the client's owner --- */

static void on_start_tls(void *ctx)
{
    struct pair *p = ctx;
    p->tls = true;
}

static void on_ready(void *ctx)
{
    struct pair *p = ctx;
    if (p->started++ == MESSAGES) {
        smtp_client_quit(p->client, p->now);
        return;
    }
    p->body_at = 0;
    buf_clear(&p->got);
    smtp_client_start(p->client, &p->tx, p->now);
}

static enum smtp_body_state on_pull(void *ctx, struct slice *out)
{
    struct pair *p = ctx;
    struct slice rest = slice_from(buf_slice(&p->body), p->body_at);
    if (rest.len == 0)
        return SMTP_BODY_END;
    *out = slice_head(rest, p->portion < 4076 ? p->portion : 4076);
    p->body_at += out->len;
    return SMTP_BODY_MORE;
}

/* carry_to_server writes it. */
static void on_final(void *ctx)
{
    (void)ctx;
}

static void on_done(void *ctx, const struct smtp_outcome *o)
{
    struct pair *p = ctx;
    p->delivered += o->delivered;
    for (unsigned i = 0; i < o->count; i++)
        p->refused += o->results[i].err == ERR_REMOTE_PERMANENT;
    struct slice want = buf_slice(&p->body), got = buf_slice(&p->got);
    if (o->delivered == 0)
        return;
    bool crlf = want.len >= 2 && memcmp(want.ptr + want.len - 2, "\r\n", 2) == 0;
    bool added = got.len == want.len + 2 && !crlf;
    assert_true(added || got.len == want.len);
    assert_memory_equal(got.ptr, want.ptr, want.len);
    /* Only DATA adds a line end. */
    assert_int_equal(added, p->by_data && !crlf);
}

static void on_closed(void *ctx, const struct smtp_client_end *end)
{
    struct pair *p = ctx;
    assert_int_equal(end->err, ERR_OK);
    p->closed = true;
}

static const struct smtp_client_handler client_handler = {
    on_start_tls, on_ready, on_pull, on_final, on_done, on_closed};

/* --- the wire --- */

static bool carry_to_server(struct pair *p)
{
    struct buf *out = smtp_client_output(p->client);
    struct slice bytes = slice_head(buf_slice(out), p->portion);
    if (bytes.len && !p->tls) {
        size_t used = smtp_server_feed(p->server, bytes, p->now);
        buf_consume(out, used);
        smtp_client_written(p->client, p->now);
        return used > 0;
    }
    struct slice final = slice_head(smtp_client_final(p->client), p->portion);
    if (final.len == 0)
        return false;
    assert_int_equal(buf_len(out), 0);
    size_t used = smtp_server_feed(p->server, final, p->now);
    smtp_client_final_written(p->client, used, p->now);
    return used > 0;
}

static bool carry_to_client(struct pair *p)
{
    struct buf *out = smtp_server_output(p->server);
    struct slice bytes = slice_head(buf_slice(out), p->portion);
    if (bytes.len == 0)
        return false;
    char copy[65536];
    size_t len = bytes.len < sizeof(copy) ? bytes.len : sizeof(copy);
    memcpy(copy, bytes.ptr, len);
    buf_consume(out, len);
    smtp_client_feed(p->client, slice_make(copy, len), p->now);
    smtp_server_feed(
        p->server, SLICE(""), p->now); /* its output may have been in the way */
    return true;
}

static bool shake_hands(struct pair *p)
{
    if (!p->tls || buf_len(smtp_server_output(p->server)))
        return false;
    p->tls = false;
    assert_true(smtp_server_tls_pending(p->server));
    smtp_server_tls_started(p->server, p->now);
    smtp_client_tls_started(p->client, true, p->now);
    return true;
}

static void talk(struct pair *p)
{
    while (!p->closed)
        assert_true(carry_to_server(p) || carry_to_client(p) || shake_hands(p));
}

/* --- cases --- */

/* Lines of all kinds, many dots; the seed picks them. */
static void make_body(struct buf *b, unsigned seed, size_t size, bool final_crlf)
{
    static const char *const bits[] = {".", "..", "\r\n", "\r\n.\r\n", "\r\n..",
        "text of a line ", "=", "\r\n\r\n", ".\r\n", "x"};
    buf_init(b, 1 << 20);
    buf_append_str(b, "Subject: x\r\n\r\n");
    while (buf_len(b) < size) {
        seed = seed * 1103515245u + 12345u;
        buf_append_str(b, bits[(seed >> 16) % 10]);
    }
    buf_append_str(b, final_crlf ? "\r\n" : "end");
}

struct variant {
    size_t portion, size;
    bool final_crlf, starttls;
    enum smtp_chunking chunking;
};

static void run(const struct variant *v, unsigned seed)
{
    static const struct smtp_client_rcpt rcpts[] = {
        {SLICE_INIT("bob@example.net"), SLICE_INIT("rfc822;B+b=c@example.com"), 6},
        {SLICE_INIT("nobody@example.net"), SLICE_INIT(""), 0},
        {SLICE_INIT("\"a b\"@example.net"), SLICE_INIT(""), 1}};
    struct pair p = {.portion = v->portion, .now = {NS_PER_S}};
    make_body(&p.body, seed, v->size, v->final_crlf);
    buf_init(&p.got, 1 << 20);
    buf_init(&p.envelope, 4096);
    p.tx = (struct smtp_client_tx){.reverse_path = SLICE("alice+1@example.org"),
        .envid = SLICE("id+1"),
        .ret = SMTP_RET_HDRS,
        .rcpts = rcpts,
        .rcpt_count = 3,
        .size = buf_len(&p.body),
        .lacks_final_crlf = !v->final_crlf};
    struct smtp_server_config server = {.hostname = "mx.example.net",
        .tls = v->starttls ? SMTP_TLS_REQUIRED : SMTP_TLS_NONE};
    struct smtp_client_config client = {.ehlo_name = SLICE("relay.example.org"),
        .tls = v->starttls ? DELIVERY_TLS_ENCRYPT : DELIVERY_TLS_MAY,
        .chunking = v->chunking};
    p.by_data = v->chunking == SMTP_CHUNKING_NEVER ||
                (v->chunking == SMTP_CHUNKING_AS_NEEDED && v->final_crlf);
    p.server = smtp_server_new(&server, &server_handler, &p, p.now);
    p.client = smtp_client_new(&client, &client_handler, &p, p.now);
    smtp_server_start(p.server, p.now);
    talk(&p);
    assert_int_equal(p.delivered, 2 * MESSAGES);
    assert_int_equal(p.refused, MESSAGES);
    assert_true(slice_eq(buf_slice(&p.envelope),
        SLICE("from <alice+1@example.org> size 1 body 0 ret 2 envid id+1 utf8 0"
              " to <bob@example.net> notify 6 orcpt rfc822;B+b=c@example.com"
              " to <\"a b\"@example.net> notify 1 orcpt ")));
    smtp_client_free(p.client);
    smtp_server_free(p.server);
    buf_fini(&p.body);
    buf_fini(&p.got);
    buf_fini(&p.envelope);
}

static void test_all(void **state)
{
    (void)state;
    static const size_t portions[] = {1, 2, 3, 7, 61, 1000, 65536};
    static const size_t sizes[] = {0, 100, 5000, 66000, 200000};
    for (size_t i = 0; i < 7; i++)
        for (size_t s = 0; s < 5; s++)
            for (unsigned bits = 0; bits < 12; bits++) {
                if (portions[i] < 61 && sizes[s] > 5000)
                    continue;
                struct variant v = {portions[i], sizes[s], bits & 1, (bits & 2) != 0,
                    (enum smtp_chunking)(bits / 4)};
                run(&v, (unsigned)(i * 100 + s * 10 + bits));
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
