/* SPDX-License-Identifier: Apache-2.0 */
#include "node/smtp/server.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "node/smtp/server_internal.h"

static const struct refusal MAIL_SYNTAX = {
    501, "5.5.4", "syntax: MAIL FROM:<address> [parameters]"};
static const struct refusal RCPT_SYNTAX = {
    501, "5.5.4", "syntax: RCPT TO:<address> [parameters]"};
static const struct refusal BAD_SENDER = {501, "5.1.7", "bad sender address syntax"};
static const struct refusal BAD_RECIPIENT = {
    501, "5.1.3", "bad recipient address syntax"};
static const struct refusal NEEDS_UTF8 = {
    553, "5.6.7", "an address with non-ASCII characters needs the SMTPUTF8 parameter"};

/* RCPT commands in one transaction, as a multiple of the recipients it may have. */
#define RCPT_TRIES_FACTOR 10

static void transaction_begin(struct smtp_server *s, const struct esmtp_mail *params)
{
    struct transaction *t = mem_alloc(sizeof *t);
    memset(t, 0, offsetof(struct transaction, header));
    t->smtputf8 = params->smtputf8;
    header_scan_init(&t->header);
    s->txn = t;
}

void server_transaction_end(struct smtp_server *s, enum smtp_transaction_end how)
{
    if (!s->txn)
        return;
    server_request_cancel(s);
    free(s->txn);
    s->txn = NULL;
    s->handler->transaction_end(s->ctx, how);
}

/* One text for each way in which parameters are bad, with the one that is. */
static void refuse_parameter(
    struct smtp_server *s, enum esmtp_fault fault, struct slice keyword)
{
    bool is_unknown = fault == ESMTP_FAULT_UNKNOWN || fault == ESMTP_FAULT_UNSUPPORTED;
    const char *text = fault == ESMTP_FAULT_UNKNOWN       ? "unknown parameter "
                       : fault == ESMTP_FAULT_UNSUPPORTED ? "value not supported: "
                       : fault == ESMTP_FAULT_REPEATED    ? "parameter given twice: "
                                                          : "bad value of parameter ";
    struct buf line;
    buf_init(&line, 256);
    buf_append_str(&line, text);
    buf_append(&line, slice_head(keyword, 64));
    server_reply(s, is_unknown ? 555 : 501, "5.5.4", buf_slice(&line));
    buf_fini(&line);
}

/* "FROM:<path> parameters": parses the path and leaves the parameters; NULL, or why not.
 */
static const struct refusal *take_path(
    struct slice *argument, enum smtp_path_kind kind, struct smtp_path *path)
{
    bool is_mail = kind == SMTP_REVERSE_PATH;
    size_t used;
    if (!smtp_command_keyword(argument, is_mail ? SLICE("FROM:") : SLICE("TO:")))
        return is_mail ? &MAIL_SYNTAX : &RCPT_SYNTAX;
    if (smtp_path_parse(*argument, kind, path, &used) != PARSE_DONE)
        return is_mail ? &BAD_SENDER : &BAD_RECIPIENT;
    *argument = slice_from(*argument, used);
    bool is_separated =
        argument->len == 0 || argument->ptr[0] == ' ' || argument->ptr[0] == '\t';
    return is_separated ? NULL : is_mail ? &BAD_SENDER : &BAD_RECIPIENT;
}

/* What the parameters ask for and we do not do; NULL: nothing. */
static const struct refusal *check_mail(const struct smtp_server *s,
    const struct smtp_path *path, const struct esmtp_mail *params)
{
    static const struct refusal too_big = {
        552, "5.3.4", "message is larger than the limit (see SIZE)"};
    static const struct refusal no_utf8 = {555, "5.5.4", "SMTPUTF8 is not offered"};
    uint64_t limit = s->config.max_message_bytes;
    if (params->smtputf8 && s->config.no_smtputf8)
        return &no_utf8;
    if (path->is_utf8 && !params->smtputf8)
        return &NEEDS_UTF8;
    return limit > 0 && params->size > limit ? &too_big : NULL;
}

void server_mail(struct smtp_server *s, struct slice argument)
{
    struct smtp_path path;
    struct esmtp_mail params;
    enum esmtp_fault fault;
    struct slice culprit;
    const struct refusal *why = take_path(&argument, SMTP_REVERSE_PATH, &path);
    if (why) {
        server_refuse(s, why);
        return;
    }
    if (esmtp_mail_parse(argument, &params, &fault, &culprit) != PARSE_DONE) {
        refuse_parameter(s, fault, culprit);
        return;
    }
    why = check_mail(s, &path, &params);
    if (why) {
        server_refuse(s, why);
        return;
    }
    transaction_begin(s, &params);
    struct smtp_request *r = server_request_open(s, REQUEST_MAIL);
    s->handler->mail(s->ctx, r, &path, &params);
    server_request_settle(s);
}

void server_mail_answered(struct smtp_server *s, int code)
{
    if (code >= 300)
        server_transaction_end(s, SMTP_END_REFUSED);
}

/* What the transaction has no room for; NULL: nothing. */
static const struct refusal *check_rcpt(
    struct smtp_server *s, const struct smtp_path *path)
{
    static const struct refusal too_many = {452, "4.5.3", "too many recipients"};
    if (s->txn->recipients >= s->config.max_recipients)
        return &too_many;
    return path->is_utf8 && !s->txn->smtputf8 ? &NEEDS_UTF8 : NULL;
}

void server_rcpt(struct smtp_server *s, struct slice argument)
{
    /* Refusals by 4yz are not the client's errors, so those of RCPT need a bound of their
     * own. */
    static const struct refusal endless = {
        421, "4.7.0", "too many recipients tried, closing"};
    struct smtp_path path;
    struct esmtp_rcpt params;
    enum esmtp_fault fault;
    struct slice culprit;
    if (s->txn->tries++ / RCPT_TRIES_FACTOR > s->config.max_recipients) {
        server_close(s, &endless);
        return;
    }
    const struct refusal *why = take_path(&argument, SMTP_FORWARD_PATH, &path);
    if (why) {
        server_refuse(s, why);
        return;
    }
    if (esmtp_rcpt_parse(argument, &params, &fault, &culprit) != PARSE_DONE) {
        refuse_parameter(s, fault, culprit);
        return;
    }
    why = check_rcpt(s, &path);
    if (why) {
        server_refuse(s, why);
        return;
    }
    struct smtp_request *r = server_request_open(s, REQUEST_RCPT);
    s->handler->rcpt(s->ctx, r, &path, &params);
    server_request_settle(s);
}

void server_rcpt_answered(struct smtp_server *s, int code)
{
    if (code < 300)
        s->txn->recipients++;
}
