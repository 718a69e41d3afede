/* SPDX-License-Identifier: Apache-2.0 */
#include "node/smtp/server.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "node/smtp/server_internal.h"

static const struct refusal BAD_SENDER = {501, "5.1.7", "bad sender address syntax"};
static const struct refusal BAD_RECIPIENT = {
    501, "5.1.3", "bad recipient address syntax"};
static const struct refusal NEEDS_UTF8 = {
    553, "5.6.7", "an address with non-ASCII characters needs the SMTPUTF8 parameter"};

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

/* "FROM:<path> parameters": splits, parses the path, leaves the parameters. */
static bool take_path(struct slice *argument, struct slice keyword,
    enum smtp_path_kind kind, struct smtp_path *path)
{
    size_t used;
    if (!smtp_command_keyword(argument, keyword) ||
        smtp_path_parse(*argument, kind, path, &used) != PARSE_DONE)
        return false;
    *argument = slice_from(*argument, used);
    return argument->len == 0 || argument->ptr[0] == ' ' || argument->ptr[0] == '\t';
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
    if (!take_path(&argument, SLICE("FROM:"), SMTP_REVERSE_PATH, &path)) {
        server_refuse(s, &BAD_SENDER);
        return;
    }
    if (esmtp_mail_parse(argument, &params, &fault, &culprit) != PARSE_DONE) {
        refuse_parameter(s, fault, culprit);
        return;
    }
    const struct refusal *why = check_mail(s, &path, &params);
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

void server_rcpt(struct smtp_server *s, struct slice argument)
{
    static const struct refusal too_many = {452, "4.5.3", "too many recipients"};
    struct smtp_path path;
    struct esmtp_rcpt params;
    enum esmtp_fault fault;
    struct slice culprit;
    if (!take_path(&argument, SLICE("TO:"), SMTP_FORWARD_PATH, &path)) {
        server_refuse(s, &BAD_RECIPIENT);
        return;
    }
    if (esmtp_rcpt_parse(argument, &params, &fault, &culprit) != PARSE_DONE) {
        refuse_parameter(s, fault, culprit);
        return;
    }
    if (s->txn->recipients >= s->config.max_recipients) {
        server_refuse(s, &too_many);
        return;
    }
    if (path.is_utf8 && !s->txn->smtputf8) {
        server_refuse(s, &NEEDS_UTF8);
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
