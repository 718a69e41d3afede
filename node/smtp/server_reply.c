/* SPDX-License-Identifier: Apache-2.0 */
#include "node/smtp/server.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "node/smtp/server_internal.h"
#include "proto/base64.h"
#include "proto/smtp_reply.h"

/* --- replies --- */

/* The first line of the reply that starts at `from` in the output, for the log. */
static struct slice reply_line(const struct smtp_server *s, size_t from)
{
    struct slice reply = slice_from(buf_slice(&s->out), from);
    return slice_head(reply, slice_find(reply, '\r'));
}

void server_reply(struct smtp_server *s, int code, const char *status, struct slice text)
{
    size_t from = buf_len(&s->out);
    INVARIANT(code >= 200 && code < 600);
    bool fits = smtp_reply_append(&s->out, code, status, text);
    INVARIANT(
        fits); /* input stops at a fraction of the maximum, replies are a few lines */
    if (code < 400)
        return;
    if (code >= 500)
        s->errors++;
    if (s->handler->refused)
        s->handler->refused(s->ctx, s->verb, s->argument, reply_line(s, from));
}

void server_refuse(struct smtp_server *s, const struct refusal *why)
{
    server_reply(s, why->code, why->status, slice_str(why->text));
}

/* A message on its way is finished before a shutdown closes. */
static bool may_close(const struct smtp_server *s)
{
    return s->state != STATE_CLOSING && s->state != STATE_TLS &&
           !smtp_server_in_message(s);
}

void server_after_command(struct smtp_server *s)
{
    static const struct refusal too_many = {421, "4.7.0", "too many errors, closing"};
    if (s->is_shutting_down && may_close(s)) {
        s->verb = s->argument = SLICE("");
        smtp_server_refuse(
            s, 421, err_status(s->shutdown_why), slice_str(err_text(s->shutdown_why)));
    } else if (s->errors >= s->config.max_errors && !s->request && may_close(s)) {
        server_close(s, &too_many);
    }
}

/* --- the one request --- */

/* The command line is gone when the answer comes later. */
static void keep_command(struct smtp_server *s)
{
    struct slice verb = slice_head(s->verb, SMTP_VERB_MAX);
    struct slice argument = slice_head(s->argument, COMMAND_KEPT);
    memmove(s->kept, verb.ptr, verb.len);
    memmove(s->kept + SMTP_VERB_MAX, argument.ptr, argument.len);
    s->verb = slice_make(s->kept, verb.len);
    s->argument = slice_make(s->kept + SMTP_VERB_MAX, argument.len);
}

struct smtp_request *server_request_open(struct smtp_server *s, enum request_kind kind)
{
    INVARIANT(!s->request);
    struct smtp_request *r = s->spare ? s->spare : mem_alloc(sizeof *r);
    s->spare = NULL;
    r->server = s;
    s->request = r;
    s->request_kind = kind;
    s->in_callback = true;
    s->answered = 0;
    return r;
}

void server_request_cancel(struct smtp_server *s)
{
    if (!s->request)
        return;
    s->request->server = NULL; /* from now on the handler's alone */
    s->request = NULL;
}

/* What an answer does besides being said. */
static void dispatch(struct smtp_server *s, int code)
{
    switch (s->request_kind) {
    case REQUEST_STARTTLS:
        server_tls_answered(s, code);
        break;
    case REQUEST_AUTH:
        server_auth_answered(s, code);
        break;
    case REQUEST_MAIL:
        server_mail_answered(s, code);
        break;
    case REQUEST_RCPT:
        server_rcpt_answered(s, code);
        break;
    case REQUEST_DATA:
        server_data_answered(s, code);
        break;
    case REQUEST_BODY_END:
        server_body_answered(s, code);
        break;
    case REQUEST_XCLIENT:
        server_xclient_answered(s, code);
        break;
    case REQUEST_VRFY:
        break;
    }
}

static void apply(struct smtp_server *s, int code)
{
    s->restart_wait = true;
    dispatch(s, code);
    if (code == 421)
        server_close_silently(s);
    server_after_command(s);
}

void server_request_settle(struct smtp_server *s)
{
    s->in_callback = false;
    if (s->answered > 0)
        apply(s, s->answered);
    else if (s->request)
        keep_command(s);
}

/* --- answers --- */

/* Takes the handle back; NULL when it was cancelled, which frees it. */
static struct smtp_server *take_back(struct smtp_request *r)
{
    struct smtp_server *s = r->server;
    if (!s) {
        free(r);
        return NULL;
    }
    INVARIANT(s->request == r);
    s->request = NULL;
    s->spare = r;
    return s;
}

/* Inside the callback the handler is not done yet: what follows waits for its return. */
static void answered(struct smtp_server *s, int code)
{
    if (s->in_callback) {
        s->answered = code;
        return;
    }
    apply(s, code);
    s->handler->ready(s->ctx); /* may free s */
}

/* The class's own status code, where the handler has none to give. */
static const char *default_status(enum request_kind kind, int code)
{
    if (code >= 300)
        return code < 400 ? NULL : code < 500 ? "4.0.0" : "5.0.0";
    return kind == REQUEST_MAIL   ? "2.1.0"
           : kind == REQUEST_RCPT ? "2.1.5"
           : kind == REQUEST_AUTH ? "2.7.0"
                                  : "2.0.0";
}

/* What the engine says by itself, later or not at all. */
static bool is_unsaid(const struct smtp_server *s, int code)
{
    bool is_chunk_accepted =
        s->request_kind == REQUEST_DATA && s->txn->is_bdat && code == 354;
    return is_chunk_accepted || (s->request_kind == REQUEST_XCLIENT && code == 220);
}

void smtp_answer(struct smtp_request *r, int code, const char *status, struct slice text)
{
    struct smtp_server *s = take_back(r);
    if (!s)
        return;
    if (!is_unsaid(s, code)) {
        bool has_status = code != 354 && code != 334;
        if (!status && has_status)
            status = default_status(s->request_kind, code);
        server_reply(s, code, has_status ? status : NULL, text);
    }
    answered(s, code);
}

void smtp_answer_close(struct smtp_request *r)
{
    struct smtp_server *s = take_back(r);
    if (s)
        answered(s, 421); /* what a 421 does, without saying it */
}

void smtp_answer_err(struct smtp_request *r, enum err e)
{
    smtp_answer(r, err_code(e), err_status(e), slice_str(err_text(e)));
}

void smtp_answer_challenge(struct smtp_request *r, struct slice challenge)
{
    struct smtp_server *s = take_back(r);
    if (!s)
        return;
    INVARIANT(s->request_kind == REQUEST_AUTH);
    /* By hand: a challenge may be longer than a line of a reply. */
    bool fits = buf_append(&s->out, SLICE("334 ")) && base64_encode(&s->out, challenge) &&
                buf_append(&s->out, SLICE("\r\n"));
    INVARIANT(fits);
    answered(s, 334);
}

void smtp_request_drop(struct smtp_request *r)
{
    smtp_answer(r, 451, "4.3.0", SLICE("try again later"));
}

bool smtp_request_is_live(const struct smtp_request *r)
{
    return r->server != NULL;
}
