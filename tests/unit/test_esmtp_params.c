/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/esmtp_params.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#define X10 "xxxxxxxxxx"
#define X100 X10 X10 X10 X10 X10 X10 X10 X10 X10 X10

static const struct {
    const char *in;
    enum esmtp_fault fault;
    const char *culprit;
} MAIL_CASES[] = {
    {"", ESMTP_FAULT_NONE, ""},
    {" ", ESMTP_FAULT_NONE, ""},
    {" SIZE=0", ESMTP_FAULT_NONE, ""},
    {" size=12345678901234567890", ESMTP_FAULT_NONE, ""},
    {" SIZE=123456789012345678901", ESMTP_FAULT_SYNTAX, "SIZE"},
    {" SIZE=", ESMTP_FAULT_SYNTAX, "SIZE"},
    {" SIZE", ESMTP_FAULT_SYNTAX, "SIZE"},
    {" SIZE=1x", ESMTP_FAULT_SYNTAX, "SIZE"},
    {" SIZE=+1", ESMTP_FAULT_SYNTAX, "SIZE"},
    {" SIZE=1 SIZE=1", ESMTP_FAULT_REPEATED, "SIZE"},
    {"  BODY=7BIT   RET=FULL\t", ESMTP_FAULT_NONE, ""},
    {" body=8bitmime ret=hdrs", ESMTP_FAULT_NONE, ""},
    {" BODY=BINARYMIME", ESMTP_FAULT_UNSUPPORTED, "BODY"},
    {" BODY=9BIT", ESMTP_FAULT_SYNTAX, "BODY"},
    {" RET=ALL", ESMTP_FAULT_SYNTAX, "RET"},
    {" SMTPUTF8", ESMTP_FAULT_NONE, ""},
    {" SMTPUTF8=yes", ESMTP_FAULT_SYNTAX, "SMTPUTF8"},
    {" ENVID=" X100, ESMTP_FAULT_NONE, ""},
    {" ENVID=" X100 "x", ESMTP_FAULT_SYNTAX, "ENVID"},
    {" ENVID=", ESMTP_FAULT_SYNTAX, "ENVID"},
    {" ENVID=a+20b", ESMTP_FAULT_NONE, ""},
    {" ENVID=a+0Db", ESMTP_FAULT_SYNTAX, "ENVID"},
    {" ENVID=a+FFb", ESMTP_FAULT_SYNTAX, "ENVID"},
    {" ENVID=a+2", ESMTP_FAULT_SYNTAX, "ENVID"},
    {" ENVID=a+", ESMTP_FAULT_SYNTAX, "ENVID"},
    {" ENVID=a+GG", ESMTP_FAULT_SYNTAX, "ENVID"},
    {" ENVID=a=b", ESMTP_FAULT_SYNTAX, "ENVID"},
    {" ENVID=\xc3\xa9", ESMTP_FAULT_SYNTAX, "ENVID"},
    {" AUTH=<>", ESMTP_FAULT_NONE, ""},
    {" AUTH=e+3Dmc2@example.com", ESMTP_FAULT_NONE, ""},
    {" AUTH=user", ESMTP_FAULT_NONE, ""},
    {" AUTH=a+0D@example.com", ESMTP_FAULT_SYNTAX, "AUTH"},
    {" AUTH=", ESMTP_FAULT_SYNTAX, "AUTH"},
    {" FOO", ESMTP_FAULT_UNKNOWN, "FOO"},
    {" =x", ESMTP_FAULT_UNKNOWN, ""},
    {" NOTIFY=NEVER", ESMTP_FAULT_UNKNOWN, "NOTIFY"},
};

static void checks_mail(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof MAIL_CASES / sizeof *MAIL_CASES; i++) {
        struct esmtp_mail out;
        enum esmtp_fault fault;
        struct slice culprit = SLICE("");
        enum parse got =
            esmtp_mail_parse(slice_str(MAIL_CASES[i].in), &out, &fault, &culprit);
        if (fault != MAIL_CASES[i].fault ||
            !slice_eq(culprit, slice_str(MAIL_CASES[i].culprit)))
            fail_msg("'%s': fault %d", MAIL_CASES[i].in, fault);
        assert_int_equal(got, fault == ESMTP_FAULT_NONE ? PARSE_DONE : PARSE_BAD);
    }
}

static void takes_mail(void **state)
{
    (void)state;
    struct esmtp_mail m;
    enum esmtp_fault fault;
    struct slice in = SLICE(" SIZE=42 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ+2B3 "
                            "AUTH=e+3Dmc2@example.com");
    assert_int_equal(esmtp_mail_parse(in, &m, &fault, NULL), PARSE_DONE);
    assert_int_equal(m.size, 42);
    assert_true(m.has_body && m.body == ESMTP_BODY_8BITMIME && m.smtputf8);
    assert_int_equal(m.ret, ESMTP_RET_HDRS);
    assert_true(slice_eq(m.envid, SLICE("QQ+3")));
    assert_true(m.has_auth && slice_eq(m.auth, SLICE("e=mc2@example.com")));
    assert_int_equal(esmtp_mail_parse(SLICE(" AUTH=user"), &m, &fault, NULL), PARSE_DONE);
    assert_true(m.has_auth && m.auth.len == 0 && m.size == 0 && !m.smtputf8);
    assert_int_equal(
        esmtp_mail_parse(SLICE(" SIZE=99999999999999999999"), &m, &fault, NULL),
        PARSE_DONE);
    assert_true(m.size == UINT64_MAX);
}

static const struct {
    const char *in;
    enum esmtp_fault fault;
    uint8_t notify;
    const char *orcpt;
} RCPT_CASES[] = {
    {"", ESMTP_FAULT_NONE, 0, ""},
    {" NOTIFY=NEVER", ESMTP_FAULT_NONE, 1, ""},
    {" notify=success,failure,delay", ESMTP_FAULT_NONE, 14, ""},
    {" NOTIFY=DELAY,DELAY", ESMTP_FAULT_NONE, 8, ""},
    {" NOTIFY=NEVER,DELAY", ESMTP_FAULT_SYNTAX, 0, ""},
    {" NOTIFY=", ESMTP_FAULT_SYNTAX, 0, ""},
    {" NOTIFY=SUCCESS,", ESMTP_FAULT_SYNTAX, 0, ""},
    {" NOTIFY=,SUCCESS", ESMTP_FAULT_SYNTAX, 0, ""},
    {" NOTIFY", ESMTP_FAULT_SYNTAX, 0, ""},
    {" ORCPT=rfc822;a@b.example", ESMTP_FAULT_NONE, 0, "rfc822;a@b.example"},
    {" ORCPT=rfc822;a+2Bb@b.example", ESMTP_FAULT_NONE, 0, "rfc822;a+b@b.example"},
    {" ORCPT=rfc822;a+2bb", ESMTP_FAULT_NONE, 0, "rfc822;a+b"},
    {" ORCPT=X400;/c=us", ESMTP_FAULT_SYNTAX, 0, ""},
    {" ORCPT=X400;/c+3Dus", ESMTP_FAULT_NONE, 0, "X400;/c=us"},
    {" ORCPT=rfc822", ESMTP_FAULT_SYNTAX, 0, ""},
    {" ORCPT=rfc822;", ESMTP_FAULT_SYNTAX, 0, ""},
    {" ORCPT=;a@b", ESMTP_FAULT_SYNTAX, 0, ""},
    {" ORCPT=a+20b;c", ESMTP_FAULT_SYNTAX, 0, ""},
    {" ORCPT=rfc822;a+0A", ESMTP_FAULT_SYNTAX, 0, ""},
    {" ORCPT=rfc822;a+C3+A9", ESMTP_FAULT_SYNTAX, 0, ""},
    {" ORCPT=utf-8;\xc3\xa9@b", ESMTP_FAULT_NONE, 0, "utf-8;\xc3\xa9@b"},
    {" ORCPT=utf-8;\\x{E9}@b", ESMTP_FAULT_NONE, 0, "utf-8;\xc3\xa9@b"},
    {" ORCPT=utf-8;\\x{1F600}", ESMTP_FAULT_NONE, 0, "utf-8;\xf0\x9f\x98\x80"},
    {" ORCPT=utf-8;\\x{5C}", ESMTP_FAULT_NONE, 0, "utf-8;\\"},
    {" ORCPT=utf-8;\\x{D800}", ESMTP_FAULT_SYNTAX, 0, ""},
    {" ORCPT=utf-8;\\x{110000}", ESMTP_FAULT_SYNTAX, 0, ""},
    {" ORCPT=utf-8;\\x{0A}", ESMTP_FAULT_SYNTAX, 0, ""},
    {" ORCPT=utf-8;\\x{}", ESMTP_FAULT_SYNTAX, 0, ""},
    {" ORCPT=utf-8;\\x{E9", ESMTP_FAULT_SYNTAX, 0, ""},
    {" ORCPT=utf-8;\\a", ESMTP_FAULT_SYNTAX, 0, ""},
    {" ORCPT=utf-8;\xff", ESMTP_FAULT_SYNTAX, 0, ""},
    {" SIZE=1", ESMTP_FAULT_UNKNOWN, 0, ""},
    {" ORCPT=rfc822;a ORCPT=rfc822;b", ESMTP_FAULT_REPEATED, 0, ""},
    {" ORCPT=rfc822;" X100 X100 X100 X100 X100, ESMTP_FAULT_SYNTAX, 0, ""},
};

static void parses_rcpt(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof RCPT_CASES / sizeof *RCPT_CASES; i++) {
        struct esmtp_rcpt out;
        enum esmtp_fault fault;
        enum parse got =
            esmtp_rcpt_parse(slice_str(RCPT_CASES[i].in), &out, &fault, NULL);
        if (fault != RCPT_CASES[i].fault)
            fail_msg("'%s': fault %d", RCPT_CASES[i].in, fault);
        if (got != PARSE_DONE)
            continue;
        assert_int_equal(out.notify, RCPT_CASES[i].notify);
        assert_true(slice_eq(out.orcpt, slice_str(RCPT_CASES[i].orcpt)));
    }
}

/* Cut at every length, in memory of its own: never a read past the end. */
static void cut_at_every_length(void **state)
{
    (void)state;
    struct slice text =
        SLICE(" NOTIFY=SUCCESS,DELAY ORCPT=utf-8;\\x{1F600}+@\xc3\xa9 X=+2");
    for (size_t len = 0; len <= text.len; len++) {
        char *copy = malloc(len ? len : 1);
        memcpy(copy, text.ptr, len);
        struct esmtp_rcpt rcpt;
        struct esmtp_mail mail;
        enum esmtp_fault fault;
        (void)esmtp_rcpt_parse(slice_make(copy, len), &rcpt, &fault, NULL);
        (void)esmtp_mail_parse(slice_make(copy, len), &mail, &fault, NULL);
        free(copy);
    }
}

static void xtext_goes_round(void **state)
{
    (void)state;
    char all[256];
    for (int i = 0; i < 256; i++)
        all[i] = (char)i;
    struct buf out;
    buf_init(&out, 1000);
    assert_true(xtext_append(&out, slice_make(all, sizeof all)));
    char back[256];
    size_t len;
    assert_true(xtext_decode(buf_slice(&out), back, sizeof back, &len));
    assert_int_equal(len, sizeof all);
    assert_memory_equal(back, all, sizeof all);
    assert_false(xtext_decode(buf_slice(&out), back, sizeof back - 1, &len));
    buf_fini(&out);
    buf_init(&out, 10);
    assert_false(xtext_append(&out, slice_make(all, sizeof all)));
    buf_fini(&out);
}

static const struct {
    const char *orcpt, *plain, *utf8;
} ORCPT_CASES[] = {
    {"rfc822;a+b@c d", "rfc822;a+2Bb@c+20d", "rfc822;a+2Bb@c+20d"},
    {"utf-8;\xc3\xa9+=\\@b", "utf-8;\\x{E9}\\x{2B}\\x{3D}\\x{5C}@b",
        "utf-8;\xc3\xa9\\x{2B}\\x{3D}\\x{5C}@b"},
    {"utf-8;\xf0\x9f\x98\x80", "utf-8;\\x{1F600}", "utf-8;\xf0\x9f\x98\x80"},
};

static void writes_orcpt(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ORCPT_CASES / sizeof *ORCPT_CASES; i++) {
        for (int has_utf8 = 0; has_utf8 < 2; has_utf8++) {
            struct buf out;
            buf_init(&out, 1000);
            buf_append_str(&out, " ORCPT=");
            size_t head = buf_len(&out);
            assert_true(
                esmtp_orcpt_append(&out, slice_str(ORCPT_CASES[i].orcpt), has_utf8));
            const char *want = has_utf8 ? ORCPT_CASES[i].utf8 : ORCPT_CASES[i].plain;
            assert_true(slice_eq(slice_from(buf_slice(&out), head), slice_str(want)));
            struct esmtp_rcpt rcpt;
            enum esmtp_fault fault;
            assert_int_equal(
                esmtp_rcpt_parse(buf_slice(&out), &rcpt, &fault, NULL), PARSE_DONE);
            assert_true(slice_eq(rcpt.orcpt, slice_str(ORCPT_CASES[i].orcpt)));
            buf_fini(&out);
        }
    }
}

static void writes_notify(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 100);
    assert_true(esmtp_notify_append(&out, 0));
    assert_int_equal(buf_len(&out), 0);
    assert_true(esmtp_notify_append(&out, ESMTP_NOTIFY_SUCCESS | ESMTP_NOTIFY_DELAY));
    assert_true(slice_eq(buf_slice(&out), SLICE("SUCCESS,DELAY")));
    buf_clear(&out);
    assert_true(esmtp_notify_append(&out, ESMTP_NOTIFY_NEVER));
    assert_true(slice_eq(buf_slice(&out), SLICE("NEVER")));
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checks_mail),
        cmocka_unit_test(takes_mail),
        cmocka_unit_test(parses_rcpt),
        cmocka_unit_test(cut_at_every_length),
        cmocka_unit_test(xtext_goes_round),
        cmocka_unit_test(writes_orcpt),
        cmocka_unit_test(writes_notify),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
