/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/smtp_command.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "proto/utf8.h"
#include "proto/xclient.h"

#define LITERAL(text) SLICE_INIT(text)

static const struct {
    struct slice line;
    enum smtp_line_fault want;
    const char *verb, *argument;
} LINES[] = {
    {LITERAL("QUIT"), SMTP_LINE_OK, "QUIT", ""},
    {LITERAL("quit  "), SMTP_LINE_OK, "quit", ""},
    {LITERAL("MAIL FROM:<a@b>"), SMTP_LINE_OK, "MAIL", "FROM:<a@b>"},
    {LITERAL("MAIL\tFROM:<a@b> \t"), SMTP_LINE_OK, "MAIL", "FROM:<a@b>"},
    {LITERAL("X-FOO bar baz"), SMTP_LINE_OK, "X-FOO", "bar baz"},
    {LITERAL("VRFY \xc3\xa9"), SMTP_LINE_OK, "VRFY", "\xc3\xa9"},
    {LITERAL(""), SMTP_LINE_EMPTY, "", ""},
    {LITERAL("  \t"), SMTP_LINE_EMPTY, "", ""},
    {LITERAL(" QUIT"), SMTP_LINE_VERB, "", ""},
    {LITERAL("250 ok"), SMTP_LINE_VERB, "", ""},
    {LITERAL("NOOP\0"), SMTP_LINE_CONTROL, "", ""},
    {LITERAL("\0"), SMTP_LINE_CONTROL, "", ""},
    {LITERAL("NOOP a\rb"), SMTP_LINE_CONTROL, "", ""},
    {LITERAL("NOOP a\nb"), SMTP_LINE_CONTROL, "", ""},
    {LITERAL("\r"), SMTP_LINE_CONTROL, "", ""},
    {LITERAL("NOOP \x7f"), SMTP_LINE_CONTROL, "", ""},
    {LITERAL("NOOP \x1b[2J"), SMTP_LINE_CONTROL, "", ""},
    {LITERAL("NOOP \xc3"), SMTP_LINE_UTF8, "", ""},
    {LITERAL("NOOP \xc0\xaf"), SMTP_LINE_UTF8, "", ""},
};

static void splits_lines(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof LINES / sizeof *LINES; i++) {
        struct smtp_command c;
        enum smtp_line_fault fault;
        enum parse got = smtp_command_parse(LINES[i].line, &c, &fault);
        if (fault != LINES[i].want)
            fail_msg("%s: fault %d", LINES[i].line.ptr, fault);
        assert_int_equal(got, fault == SMTP_LINE_OK ? PARSE_DONE : PARSE_BAD);
        if (got == PARSE_DONE) {
            assert_true(slice_eq(c.verb, slice_str(LINES[i].verb)));
            assert_true(slice_eq(c.argument, slice_str(LINES[i].argument)));
        }
    }
}

static void takes_keywords(void **state)
{
    (void)state;
    struct slice argument = SLICE("from: \t<a@b> SIZE=1");
    assert_true(smtp_command_keyword(&argument, SLICE("FROM:")));
    assert_true(slice_eq(argument, SLICE("<a@b> SIZE=1")));
    assert_false(smtp_command_keyword(&argument, SLICE("FROM:")));
    argument = SLICE("FROM");
    assert_false(smtp_command_keyword(&argument, SLICE("FROM:")));
    argument = SLICE("FROM <a@b>");
    assert_false(smtp_command_keyword(&argument, SLICE("FROM:")));
}

static void knows_http(void **state)
{
    (void)state;
    assert_true(smtp_line_is_http(SLICE("GET / HTTP/1.1")));
    assert_true(smtp_line_is_http(SLICE("post /x HTTP/1.0")));
    assert_true(smtp_line_is_http(SLICE("PRI * HTTP/2.0")));
    assert_true(smtp_line_is_http(SLICE("Host: x")));
    assert_false(smtp_line_is_http(SLICE("GETX")));
    assert_false(smtp_line_is_http(SLICE("EHLO host:")));
    assert_false(smtp_line_is_http(SLICE("HELP")));
    assert_false(smtp_line_is_http(SLICE("")));
}

static const struct {
    const char *text;
    bool want;
} UTF8_CASES[] = {
    {"", true},
    {"ascii", true},
    {"\xc3\xa9", true},
    {"\xe2\x82\xac", true},
    {"\xf0\x9f\x98\x80", true},
    {"\xf4\x8f\xbf\xbf", true},
    {"\xf4\x90\x80\x80", false}, /* over U+10FFFF */
    {"\xed\xa0\x80", false},     /* a surrogate */
    {"\xc0\x80", false},         /* NUL, too long */
    {"\xc1\xbf", false},
    {"\xe0\x9f\xbf", false},
    {"\xf0\x8f\xbf\xbf", false},
    {"\x80", false},
    {"\xc3", false},
    {"\xe2\x82", false},
    {"\xf0\x9f\x98", false},
    {"\xc3(", false},
    {"\xff", false},
};

static void checks_utf8(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof UTF8_CASES / sizeof *UTF8_CASES; i++) {
        if (utf8_is_valid(slice_str(UTF8_CASES[i].text)) != UTF8_CASES[i].want)
            fail_msg("case %zu", i);
    }
    uint32_t code;
    assert_int_equal(utf8_next(SLICE("\xe2\x82\xacx"), &code), 3);
    assert_int_equal(code, 0x20ac);
    assert_int_equal(utf8_next(SLICE(""), &code), 0);
}

static const struct {
    const char *in;
    enum parse want;
} XCLIENT_CASES[] = {
    {"NAME=a.example ADDR=192.0.2.1", PARSE_DONE},
    {"addr=IPV6:2001:db8::1", PARSE_DONE},
    {"ADDR=2001:db8::1 PORT=25 DESTADDR=192.0.2.2 DESTPORT=587", PARSE_DONE},
    {"NAME=[UNAVAILABLE] LOGIN=[TEMPUNAVAIL] PROTO=ESMTP HELO=x", PARSE_DONE},
    {"LOGIN=user+40example", PARSE_DONE},
    {"", PARSE_BAD},
    {"NAME", PARSE_BAD},
    {"NAME=", PARSE_BAD},
    {"NAME=a NAME=b", PARSE_BAD},
    {"ADDR=host", PARSE_BAD},
    {"ADDR=", PARSE_BAD},
    {"PORT=65536", PARSE_BAD},
    {"PROTO=LMTP", PARSE_BAD},
    {"FOO=bar", PARSE_BAD},
    {"LOGIN=a+0Ab", PARSE_BAD},
    {"LOGIN=a+20b", PARSE_BAD},
    {"HELO=a+28b", PARSE_BAD},
    {"NAME=a+", PARSE_BAD},
};

static void parses_xclient(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof XCLIENT_CASES / sizeof *XCLIENT_CASES; i++) {
        struct xclient x;
        if (xclient_parse(slice_str(XCLIENT_CASES[i].in), &x) != XCLIENT_CASES[i].want)
            fail_msg("%s", XCLIENT_CASES[i].in);
    }
    struct xclient x;
    assert_int_equal(
        xclient_parse(SLICE("ADDR=::ffff:192.0.2.1 PORT=25 LOGIN=a+40b PROTO=SMTP"), &x),
        PARSE_DONE);
    assert_int_equal(x.addr.family, 4);
    assert_int_equal(x.port, 25);
    assert_false(x.is_esmtp);
    assert_true(slice_eq(x.text[XCLIENT_LOGIN], SLICE("a@b")));
    assert_false(x.given[XCLIENT_NAME]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splits_lines),
        cmocka_unit_test(takes_keywords),
        cmocka_unit_test(knows_http),
        cmocka_unit_test(checks_utf8),
        cmocka_unit_test(parses_xclient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
