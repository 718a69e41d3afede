/* SPDX-License-Identifier: Apache-2.0 */
/* One playing of a scenario: the owner of a client engine, who writes down what the
 * engine calls back and checks what must hold of every result. Included once, by
 * test_client_scenarios.c, which reads the files. */
#ifndef TESTS_UNIT_CLIENT_PLAY_H
#define TESTS_UNIT_CLIENT_PLAY_H

#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "node/smtp/client.h"
#include "queue/message.h"

#define TX_MAX 16
#define RCPT_MAX 2000

enum gate { GATE_OPEN, GATE_CLOSED, GATE_HOLD, GATE_STEPS };

struct planned {
    struct smtp_client_tx tx;
    struct smtp_client_rcpt *rcpts;
    struct buf body;
    bool size_auto;
};

struct fate {
    enum err err;
    bool dup;
};

struct play {
    struct arena *arena;
    const char *file;
    int line;
    bool strict; /* check C: and E: lines */
    bool by_octet;
    size_t cut_at; /* octets of the server after which the connection is lost */
    size_t fed;
    bool cut;
    struct smtp_client_config config;
    struct smtp_client *c;
    struct mono now;
    struct buf said;   /* by the client */
    struct buf events; /* lines */
    struct buf last_text;
    struct planned plan[TX_MAX];
    unsigned planned, started, done;
    size_t body_at;
    bool later, stalled, ready, closed;
    enum gate gate;
    size_t gate_step;
    bool dot_left; /* the running transaction's last octet */
    struct fate fates[TX_MAX * 4];
    unsigned fate_count;
    struct fate *reference;
    unsigned reference_count;
};

static void fail_at(struct play *p, const char *what, struct slice got)
{
    fail_msg("%s:%d: %s; got <%.*s>", p->file, p->line, what, (int)got.len, got.ptr);
}

/* --- the owner --- */

static void event(struct play *p, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    buf_printf(&p->events, "%s\n", line);
}

static void on_start_tls(void *ctx)
{
    event(ctx, "starttls");
}

static void start_next(struct play *p)
{
    if (!p->ready || p->started >= p->planned)
        return;
    p->ready = false;
    p->body_at = 0;
    p->dot_left = false;
    smtp_client_start(p->c, &p->plan[p->started++].tx, p->now);
}

static void on_ready(void *ctx)
{
    struct play *p = ctx;
    assert_int_equal(p->started, p->done);
    p->ready = true;
    event(p, "ready");
    start_next(p);
}

static enum smtp_body_state on_body(void *ctx, struct slice *out)
{
    struct play *p = ctx;
    if (p->later)
        return SMTP_BODY_LATER;
    struct slice rest = slice_from(buf_slice(&p->plan[p->started - 1].body), p->body_at);
    if (rest.len == 0)
        return SMTP_BODY_END;
    *out = slice_head(rest, p->by_octet && rest.len < 3000 ? 1 : 4076);
    p->body_at += out->len;
    return SMTP_BODY_MORE;
}

static void write_final(struct play *p, size_t max)
{
    struct slice final = slice_head(smtp_client_final(p->c), max);
    /* "final" means that nothing else waits. */
    assert_int_equal(buf_len(smtp_client_output(p->c)), 0);
    buf_append(&p->said, final);
    p->dot_left = final.len == smtp_client_final(p->c).len;
    smtp_client_final_written(p->c, final.len, p->now);
}

static void on_final(void *ctx)
{
    struct play *p = ctx;
    assert_true(smtp_client_final(p->c).len > 0);
    if (p->gate == GATE_CLOSED)
        smtp_client_final_refused(p->c, p->now);
    else if (p->gate == GATE_OPEN)
        write_final(p, SIZE_MAX);
    if (p->gate != GATE_OPEN)
        event(p, "final");
}

/* What must hold at every cut. */
static void check_fate(struct play *p, unsigned i, const struct smtp_rcpt_result *r)
{
    struct fate *want = &p->reference[p->fate_count];
    assert_true(p->fate_count < p->reference_count);
    if (r->err == ERR_OK && want->err != ERR_OK)
        fail_msg(
            "%s cut at %zu: rcpt %u delivered out of nothing", p->file, p->cut_at, i);
    if (err_class(r->err) == ERR_CLASS_PERMANENT && r->err != want->err)
        fail_msg("%s cut at %zu: rcpt %u bounced by a cut", p->file, p->cut_at, i);
    if (r->possible_duplicate && !p->dot_left)
        fail_msg("%s cut at %zu: rcpt %u in doubt before the dot", p->file, p->cut_at, i);
    /* The dot left, it would have been taken, and the 250 was cut away. */
    if (p->dot_left && want->err == ERR_OK && r->err != ERR_OK && !r->possible_duplicate)
        fail_msg("%s cut at %zu: rcpt %u may be twice, unsaid", p->file, p->cut_at, i);
}

static void on_result(struct play *p, unsigned i, const struct smtp_rcpt_result *r)
{
    assert_true(r->status.len >= 5);
    assert_true(r->possible_duplicate == false || r->err != ERR_OK);
    char digit = r->err == ERR_OK                           ? '2'
                 : err_class(r->err) == ERR_CLASS_PERMANENT ? '5'
                                                            : '4';
    assert_int_equal(r->status.ptr[0], digit);
    assert_true(r->text.len > 0 && r->text.len <= SMTP_RESULT_TEXT_MAX);
    if (p->reference)
        check_fate(p, i, r);
    if (p->fate_count < TX_MAX * 4)
        p->fates[p->fate_count++] = (struct fate){r->err, r->possible_duplicate};
    event(p, "rcpt %u %s %d %.*s %s%s%s%s", i, err_name(r->err), r->code,
        SLICE_ARG(r->status), smtp_phase_name(r->phase),
        r->possible_duplicate ? " dup" : "", r->too_many ? " many" : "",
        r->blames_us ? " blames" : "");
    buf_clear(&p->last_text);
    buf_append(&p->last_text, r->text);
}

static void on_done(void *ctx, const struct smtp_outcome *o)
{
    struct play *p = ctx;
    p->done++;
    assert_int_equal(p->done, p->started);
    assert_int_equal(o->count, p->plan[p->done - 1].tx.rcpt_count);
    unsigned delivered = 0;
    for (unsigned i = 0; i < o->count; i++) {
        delivered += o->results[i].err == ERR_OK;
        if (o->count <= 4)
            on_result(p, i, &o->results[i]);
    }
    assert_int_equal(delivered, o->delivered);
    event(p, "done %u%s%s%s%s", o->delivered, o->connection_failed ? " failed" : "",
        o->stale ? " stale" : "", o->possible_duplicate ? " dup" : "",
        o->dsn_passed_on ? " dsn" : "");
}

static void on_closed(void *ctx, const struct smtp_client_end *e)
{
    struct play *p = ctx;
    assert_false(p->closed);
    assert_int_equal(p->started, p->done);
    p->closed = true;
    if (e->err == ERR_OK)
        event(p, "closed OK");
    else
        event(p, "closed %s %s %d %.*s%s%s", err_name(e->err), smtp_phase_name(e->phase),
            e->code, SLICE_ARG(e->status), e->retry_in_clear ? " clear" : "",
            e->blames_us ? " blames" : "");
    buf_clear(&p->last_text);
    buf_append(&p->last_text, e->text);
}

static const struct smtp_client_handler handler = {
    on_start_tls, on_ready, on_body, on_final, on_done, on_closed};

static void flush(struct play *p)
{
    struct buf *out = smtp_client_output(p->c);
    while (!p->stalled && buf_len(out)) {
        size_t n = p->by_octet && buf_len(out) < 3000 ? 1 : buf_len(out);
        buf_append(&p->said, slice_head(buf_slice(out), n));
        buf_consume(out, n);
        if (p->closed)
            continue;
        smtp_client_written(p->c, p->now);
    }
}

static void feed(struct play *p, struct slice bytes)
{
    if (p->cut)
        return;
    if (p->fed + bytes.len >= p->cut_at) {
        bytes = slice_head(bytes, p->cut_at - p->fed);
        p->cut = true;
    }
    p->fed += bytes.len;
    size_t step = p->by_octet ? 1 : bytes.len;
    for (size_t at = 0; at < bytes.len; at += step) {
        smtp_client_feed(p->c, slice_head(slice_from(bytes, at), step), p->now);
        flush(p);
    }
    if (p->cut)
        smtp_client_eof(p->c, p->now);
}

#endif
