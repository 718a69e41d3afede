/* SPDX-License-Identifier: Apache-2.0 */
/* Of test_server_scenarios.c: one run of a scenario, and the handler that writes down
 * what it is told and answers as the scenario says. */
#ifndef TESTS_UNIT_SERVER_SCENARIO_H
#define TESTS_UNIT_SERVER_SCENARIO_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "node/smtp/server.h"

#define EVENTS_MAX 4096

enum kind { MAIL, RCPT, DATA, END, AUTH, RESPONSE, STARTTLS, VRFY, XCLIENT, KIND_COUNT };
static const char *const KINDS[KIND_COUNT] = {
    "mail", "rcpt", "data", "end", "auth", "response", "starttls", "vrfy", "xclient"};

struct answer {
    bool is_later, is_challenge;
    int code;
    char status[16];
    char text[256];
};

struct run {
    const char *file;
    int line;
    size_t piece; /* 0: all at once */
    bool only_whole;
    struct smtp_server_config config;
    char mechanisms[64];
    struct smtp_server *server;
    struct mono now;
    struct answer answers[KIND_COUNT];
    struct smtp_request *open[16];
    unsigned open_count;
    struct buf input;  /* sent by the client, not used yet */
    struct buf output; /* said by the server, not looked at yet */
    struct buf body;
    char *events[EVENTS_MAX];
    unsigned event_count, event_seen;
    bool is_new;
    bool is_ready;
};

#define FAIL(r, ...)                                                                     \
    do {                                                                                 \
        print_error("%s:%d (pieces of %zu): ", (r)->file, (r)->line, (r)->piece);        \
        print_error(__VA_ARGS__);                                                        \
        print_error("\n");                                                               \
        fail();                                                                          \
    } while (0)

/* --- what the handler is told --- */

static void escape(struct buf *out, struct slice in)
{
    for (size_t i = 0; i < in.len; i++) {
        unsigned char c = (unsigned char)in.ptr[i];
        if (c == '\r')
            buf_append_str(out, "\\r");
        else if (c == '\n')
            buf_append_str(out, "\\n");
        else if (c < ' ' || c > '~' || c == '\\')
            buf_printf(out, "\\x%02X", c);
        else
            buf_append_char(out, (char)c);
    }
}

static void told(struct run *r, struct buf *text)
{
    assert_true(r->event_count < EVENTS_MAX);
    r->events[r->event_count++] = mem_strdup(buf_slice(text));
    buf_fini(text);
}

__attribute__((format(printf, 2, 3))) static void tell(
    struct run *r, const char *format, ...)
{
    char line[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    struct buf text;
    buf_init(&text, 4096);
    buf_append_str(&text, line);
    told(r, &text);
}

static void give(struct smtp_request *q, const struct answer *a)
{
    if (a->is_challenge)
        smtp_answer_challenge(q, slice_str(a->text));
    else if (a->code == 0)
        smtp_answer_close(q);
    else
        smtp_answer(q, a->code, a->status[0] ? a->status : NULL, slice_str(a->text));
}

static void respond(struct run *r, struct smtp_request *q, enum kind kind)
{
    if (r->answers[kind].is_later) {
        assert_true(r->open_count < 16);
        r->open[r->open_count++] = q;
    } else {
        give(q, &r->answers[kind]);
    }
}

static void on_ready(void *ctx)
{
    struct run *r = ctx;
    r->is_ready = true;
}

static void on_starttls(void *ctx, struct smtp_request *q)
{
    tell(ctx, "starttls");
    respond(ctx, q, STARTTLS);
}

static void on_auth_start(void *ctx, struct smtp_request *q, struct slice mechanism,
    bool has_initial, struct slice initial)
{
    struct buf text;
    buf_init(&text, 20000);
    buf_append_str(&text, "auth ");
    buf_append(&text, mechanism);
    buf_append_str(&text, has_initial ? " initial=" : " no initial");
    escape(&text, initial);
    told(ctx, &text);
    respond(ctx, q, AUTH);
}

static void on_auth_response(void *ctx, struct smtp_request *q, struct slice response)
{
    struct buf text;
    buf_init(&text, 20000);
    buf_append_str(&text, "response ");
    escape(&text, response);
    told(ctx, &text);
    respond(ctx, q, RESPONSE);
}

static void on_auth_cancel(void *ctx)
{
    tell(ctx, "auth cancelled");
}

static void on_mail(void *ctx, struct smtp_request *q, const struct smtp_path *path,
    const struct esmtp_mail *p)
{
    static const char *const ret[] = {"", " ret=full", " ret=hdrs"};
    struct run *r = ctx;
    struct buf text;
    buf_init(&text, 20000);
    buf_printf(&text, "mail <%.*s>", SLICE_ARG(path->address));
    if (path->routing.len > 0)
        buf_printf(&text, " routing=%.*s", SLICE_ARG(path->routing));
    if (p->size > 0)
        buf_printf(&text, " size=%llu", (unsigned long long)p->size);
    if (p->has_body)
        buf_append_str(&text, p->body == ESMTP_BODY_8BITMIME ? " 8bit" : " 7bit");
    buf_append_str(&text, p->smtputf8 ? " smtputf8" : "");
    buf_append_str(&text, ret[p->ret]);
    if (p->envid.len > 0)
        buf_printf(&text, " envid=%.*s", SLICE_ARG(p->envid));
    if (p->has_auth)
        buf_printf(&text, " auth=<%.*s>", SLICE_ARG(p->auth));
    buf_printf(&text, " with %s", smtp_server_with(r->server));
    told(r, &text);
    buf_clear(&r->body);
    respond(r, q, MAIL);
}

static void on_rcpt(void *ctx, struct smtp_request *q, const struct smtp_path *path,
    const struct esmtp_rcpt *p)
{
    struct buf text;
    buf_init(&text, 20000);
    buf_printf(&text, "rcpt <%.*s>", SLICE_ARG(path->address));
    if (path->routing.len > 0)
        buf_printf(&text, " routing=%.*s", SLICE_ARG(path->routing));
    if (p->notify)
        buf_printf(&text, " notify=%u", p->notify);
    if (p->orcpt.len > 0)
        buf_printf(&text, " orcpt=%.*s", SLICE_ARG(p->orcpt));
    told(ctx, &text);
    respond(ctx, q, RCPT);
}

static void on_data(void *ctx, struct smtp_request *q)
{
    tell(ctx, "data");
    respond(ctx, q, DATA);
}

static void on_body(void *ctx, struct slice bytes)
{
    struct run *r = ctx;
    assert_true(bytes.len > 0);
    assert_true(smtp_server_in_message(r->server));
    buf_append(&r->body, bytes);
}

static void on_body_end(
    void *ctx, struct smtp_request *q, const struct smtp_body_info *info)
{
    struct run *r = ctx;
    struct buf text;
    buf_init(&text, 1u << 20);
    assert_int_equal(info->size, buf_len(&r->body));
    buf_printf(&text, "message%s%s%s received=%u: ", info->has_8bit ? " 8bit" : "",
        info->by_bdat ? " bdat" : "", info->ends_with_crlf ? "" : " no-crlf",
        info->header->count[HEADER_RECEIVED]);
    if (info->size <= 4096)
        escape(&text, buf_slice(&r->body));
    else
        buf_printf(&text, "%llu octets", (unsigned long long)info->size);
    told(r, &text);
    respond(r, q, END);
}

static void on_transaction_end(void *ctx, enum smtp_transaction_end how)
{
    static const char *const words[] = {
        "accepted", "refused", "reset", "quit", "closed", "lost"};
    tell(ctx, "end %s", words[how]);
}

static void on_vrfy(void *ctx, struct smtp_request *q, struct slice argument)
{
    tell(ctx, "vrfy %.*s", SLICE_ARG(argument));
    respond(ctx, q, VRFY);
}

static void on_xclient(void *ctx, struct smtp_request *q, const struct xclient *x)
{
    struct buf text;
    buf_init(&text, 4096);
    buf_append_str(&text, "xclient");
    for (int i = 0; i < XCLIENT_COUNT; i++) {
        if (x->given[i])
            buf_printf(&text, " %d=%.*s", i, SLICE_ARG(x->text[i]));
    }
    told(ctx, &text);
    respond(ctx, q, XCLIENT);
}

static void on_refused(
    void *ctx, struct slice verb, struct slice argument, struct slice reply)
{
    struct buf text;
    buf_init(&text, 4096);
    buf_printf(&text, "refused %.*s(", SLICE_ARG(verb));
    escape(&text, argument);
    buf_printf(&text, ") %.*s", SLICE_ARG(reply));
    told(ctx, &text);
}

static const struct smtp_server_handler HANDLER = {
    .ready = on_ready,
    .starttls = on_starttls,
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

#endif
