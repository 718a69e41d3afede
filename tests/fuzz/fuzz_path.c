/* SPDX-License-Identifier: Apache-2.0 */
/* Paths, addresses, MAIL and RCPT parameters: what is taken is safe to send on, and what
 * was taken is taken again from what it was made into. */
#include <stdint.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "proto/esmtp_params.h"
#include "proto/smtp_path.h"
#include "proto/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect_clean(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        INVARIANT(c >= ' ' && c != 127);
    }
    INVARIANT(utf8_is_valid(s));
}

static void path(struct slice in, enum smtp_path_kind kind)
{
    struct smtp_path p, again;
    size_t used;
    if (smtp_path_parse(in, kind, &p, &used) != PARSE_DONE)
        return;
    INVARIANT(used >= 2 && used <= in.len && in.ptr[used - 1] == '>');
    expect_clean(p.address);
    expect_clean(p.routing);
    INVARIANT(utf8_is_ascii(p.routing));
    if (p.routing.len == 0)
        return;
    INVARIANT(smtp_address_parse(p.address, &again) == PARSE_DONE);
    INVARIANT(slice_eq(again.address, p.address) && slice_eq(again.routing, p.routing));
    INVARIANT(again.is_utf8 == p.is_utf8 && again.is_literal == p.is_literal);
}

static void orcpt_again(struct slice orcpt, bool has_utf8)
{
    struct esmtp_rcpt rcpt;
    enum esmtp_fault fault;
    struct buf out;
    buf_init(&out, 100000);
    buf_append_str(&out, " ORCPT=");
    INVARIANT(esmtp_orcpt_append(&out, orcpt, has_utf8));
    INVARIANT(esmtp_rcpt_parse(buf_slice(&out), &rcpt, &fault, NULL) == PARSE_DONE);
    INVARIANT(slice_eq(rcpt.orcpt, orcpt));
    buf_fini(&out);
}

static void parameters(struct slice in)
{
    struct esmtp_mail mail;
    struct esmtp_rcpt rcpt;
    enum esmtp_fault fault;
    if (esmtp_mail_parse(in, &mail, &fault, NULL) == PARSE_DONE) {
        expect_clean(mail.envid);
        expect_clean(mail.auth);
    }
    if (esmtp_rcpt_parse(in, &rcpt, &fault, NULL) == PARSE_DONE && rcpt.orcpt.len > 0) {
        expect_clean(rcpt.orcpt);
        orcpt_again(rcpt.orcpt, false);
        orcpt_again(rcpt.orcpt, true);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = slice_make(data, size);
    path(in, SMTP_REVERSE_PATH);
    path(in, SMTP_FORWARD_PATH);
    parameters(in);
    if (smtp_helo_is_valid(in))
        expect_clean(in);
    return 0;
}
