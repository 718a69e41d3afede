/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/smtp_reply.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

struct read_case {
    const char *name, *input;
    enum parse want;
    int code;
    const char *status, *text;
    unsigned lines;
    size_t used; /* 0: all of it */
};

static const struct read_case READ_CASES[] = {
    {"plain", "250 ok\r\n", PARSE_DONE, 250, "", "ok", 1, 0},
    {"bare LF", "250 ok\n", PARSE_DONE, 250, "", "ok", 1, 0},
    {"no text", "250\r\n", PARSE_DONE, 250, "", "", 1, 0},
    {"no text, LF", "354\n", PARSE_DONE, 354, "", "", 1, 0},
    {"blank only", "250 \r\n", PARSE_DONE, 250, "", "", 1, 0},
    {"enhanced", "550 5.1.1 no such user\r\n", PARSE_DONE, 550, "5.1.1",
        "5.1.1 no such user", 1, 0},
    {"enhanced alone", "250 2.0.0\r\n", PARSE_DONE, 250, "2.0.0", "2.0.0", 1, 0},
    {"enhanced, three digits", "421 4.123.456 x\r\n", PARSE_DONE, 421, "4.123.456",
        "4.123.456 x", 1, 0},
    {"enhanced, other class", "550 4.1.1 x\r\n", PARSE_DONE, 550, "", "4.1.1 x", 1, 0},
    {"enhanced, four digits", "550 5.1.1111 x\r\n", PARSE_DONE, 550, "", "5.1.1111 x", 1,
        0},
    {"enhanced, an address", "550 5.1.1.1 x\r\n", PARSE_DONE, 550, "", "5.1.1.1 x", 1, 0},
    {"enhanced, incomplete", "550 5.1. x\r\n", PARSE_DONE, 550, "", "5.1. x", 1, 0},
    {"lines", "250-mx.example.org\r\n250-SIZE 1000\r\n250 HELP\r\n", PARSE_DONE, 250, "",
        "mx.example.org\nSIZE 1000\nHELP", 3, 0},
    {"empty lines", "250-\r\n250-\n250\r\n", PARSE_DONE, 250, "", "\n\n", 3, 0},
    {"lines with status", "550-5.7.1 no\r\n550 5.7.1 never\r\n", PARSE_DONE, 550, "5.7.1",
        "5.7.1 no\n5.7.1 never", 2, 0},
    {"the next reply stays", "250 a\r\n354 b\r\n", PARSE_DONE, 250, "", "a", 1, 7},
    {"bare CR is text", "250 a\rb\r\n", PARSE_DONE, 250, "", "a\rb", 1, 0},
    {"CR CR LF", "250 a\r\r\n", PARSE_DONE, 250, "", "a\r", 1, 0},
    {"codes differ", "250-a\r\n251 b\r\n", PARSE_BAD, 0, "", "", 0, 0},
    {"letters", "hello\r\n", PARSE_BAD, 0, "", "", 0, 0},
    {"TLS record", "\x16\x03\x01", PARSE_BAD, 0, "", "", 0, 0},
    {"1yz", "150 x\r\n", PARSE_BAD, 0, "", "", 0, 0},
    {"6yz", "650 x\r\n", PARSE_BAD, 0, "", "", 0, 0},
    {"four digits", "2500 x\r\n", PARSE_BAD, 0, "", "", 0, 0},
    {"two digits", "25 x\r\n", PARSE_BAD, 0, "", "", 0, 0},
    {"empty line", "\r\n", PARSE_BAD, 0, "", "", 0, 0},
    {"text at once", "250ok\r\n", PARSE_BAD, 0, "", "", 0, 0},
    {"HTTP", "HTTP/1.1 400 Bad Request\r\n", PARSE_BAD, 0, "", "", 0, 0},
    {"unfinished line", "250 o", PARSE_MORE, 0, "", "", 0, 0},
    {"unfinished reply", "250-o\r\n", PARSE_MORE, 0, "", "", 0, 0},
    {"CR held", "250 o\r", PARSE_MORE, 0, "", "", 0, 0},
};

static void check(const struct read_case *c, const struct smtp_reply_parser *p,
    enum parse got, size_t used)
{
    if (got != c->want)
        fail_msg("%s: got %d, want %d", c->name, got, c->want);
    if (got != PARSE_DONE)
        return;
    assert_int_equal(p->reply.code, c->code);
    assert_string_equal(p->reply.status, c->status);
    assert_true(slice_eq(p->reply.text, slice_str(c->text)));
    assert_int_equal(p->reply.line_count, c->lines);
    assert_int_equal(used, c->used ? c->used : strlen(c->input));
}

/* Feeds in two pieces, the first `cut` long. */
static void run_cut(const struct read_case *c, size_t cut)
{
    struct smtp_reply_parser p;
    smtp_reply_parser_init(&p);
    struct slice in = slice_str(c->input);
    size_t used, total = 0;
    enum parse got = smtp_reply_feed(&p, slice_head(in, cut), &used);
    total += used;
    if (got == PARSE_MORE) {
        assert_int_equal(used, cut);
        got = smtp_reply_feed(&p, slice_from(in, cut), &used);
        total += used;
    }
    check(c, &p, got, total);
    smtp_reply_parser_fini(&p);
}

static void run_bytewise(const struct read_case *c)
{
    struct smtp_reply_parser p;
    smtp_reply_parser_init(&p);
    enum parse got = PARSE_MORE;
    size_t total = 0;
    for (const char *at = c->input; *at && got == PARSE_MORE; at++) {
        size_t used;
        got = smtp_reply_feed(&p, slice_make(at, 1), &used);
        total += used;
    }
    check(c, &p, got, total);
    smtp_reply_parser_fini(&p);
}

static void reads_replies(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof READ_CASES / sizeof *READ_CASES; i++) {
        const struct read_case *c = &READ_CASES[i];
        for (size_t cut = 0; cut <= strlen(c->input); cut++)
            run_cut(c, cut);
        run_bytewise(c);
    }
}

static void reads_one_after_the_other(void **state)
{
    (void)state;
    struct smtp_reply_parser p;
    smtp_reply_parser_init(&p);
    struct slice in = SLICE("250 2.1.0 a\r\n550-5.1.1 b\r\n550 5.1.1 c\r\n354 go\r\n");
    static const int codes[] = {250, 550, 354};
    for (int i = 0; i < 3; i++) {
        size_t used;
        assert_int_equal(smtp_reply_feed(&p, in, &used), PARSE_DONE);
        assert_int_equal(p.reply.code, codes[i]);
        in = slice_from(in, used);
    }
    assert_int_equal(in.len, 0);
    assert_string_equal(p.reply.status, "");
    smtp_reply_parser_fini(&p);
}

static void bounds_what_it_keeps(void **state)
{
    (void)state;
    struct smtp_reply_parser p;
    smtp_reply_parser_init(&p);
    char line[5000];
    memset(line, 'x', sizeof line);
    memcpy(line, "250 ", 4);
    memcpy(line + sizeof line - 2, "\r\n", 2);
    size_t used;
    assert_int_equal(
        smtp_reply_feed(&p, slice_make(line, sizeof line), &used), PARSE_DONE);
    assert_int_equal(used, sizeof line);
    assert_int_equal(p.reply.text.len, SMTP_REPLY_LINE_MAX);
    assert_true(p.reply.is_cut);
    line[3] = '-';
    enum parse got = PARSE_MORE;
    size_t fed = 0;
    while (got == PARSE_MORE) {
        got = smtp_reply_feed(&p, slice_make(line, sizeof line), &used);
        fed += sizeof line;
    }
    assert_int_equal(got, PARSE_BAD);
    assert_in_range(fed, SMTP_REPLY_BYTES_MAX, SMTP_REPLY_BYTES_MAX + sizeof line);
    assert_int_equal(smtp_reply_feed(&p, SLICE("250 ok\r\n"), &used), PARSE_BAD);
    assert_int_equal(used, 0);
    smtp_reply_parser_fini(&p);
}

static void refuses_endless_lines(void **state)
{
    (void)state;
    struct smtp_reply_parser p;
    smtp_reply_parser_init(&p);
    enum parse got = PARSE_MORE;
    unsigned lines = 0;
    while (got == PARSE_MORE) {
        size_t used;
        got = smtp_reply_feed(&p, SLICE("250-\r\n"), &used);
        lines++;
    }
    assert_int_equal(got, PARSE_BAD);
    assert_int_equal(lines, SMTP_REPLY_LINES_MAX + 1);
    smtp_reply_parser_fini(&p);
}

struct write_case {
    int code;
    const char *status, *text, *want;
};
static const struct write_case WRITE_CASES[] = {
    {250, "2.0.0", "ok", "250 2.0.0 ok\r\n"},
    {354, NULL, "go ahead", "354 go ahead\r\n"},
    {250, NULL, "mx\nSIZE 5\nHELP", "250-mx\r\n250-SIZE 5\r\n250 HELP\r\n"},
    {550, "5.7.1", "no\r\nnever", "550-5.7.1 no\r\n550 5.7.1 never\r\n"},
    {550, "5.7.1", "a\rb\tc\x01\xc3\xa9", "550 5.7.1 a?b?c???\r\n"},
    {220, NULL, "", "220 \r\n"},
};

static void writes_replies(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof WRITE_CASES / sizeof *WRITE_CASES; i++) {
        const struct write_case *c = &WRITE_CASES[i];
        struct buf out;
        buf_init(&out, 1000);
        assert_true(smtp_reply_append(&out, c->code, c->status, slice_str(c->text)));
        assert_true(slice_eq(buf_slice(&out), slice_str(c->want)));
        buf_fini(&out);
    }
}

static void cuts_long_lines(void **state)
{
    (void)state;
    char text[2000];
    memset(text, 'y', sizeof text);
    struct buf out;
    buf_init(&out, 1000);
    assert_true(smtp_reply_append(&out, 550, "5.123.123", slice_make(text, sizeof text)));
    assert_in_range(buf_len(&out), 400, 512);
    assert_false(smtp_reply_append(&out, 550, NULL, slice_make(text, sizeof text)) &&
                 smtp_reply_append(&out, 550, NULL, slice_make(text, sizeof text)));
    buf_fini(&out);
}

static void iterates_lines(void **state)
{
    (void)state;
    struct slice rest = SLICE("a\n\nb"), line;
    assert_true(smtp_reply_next_line(&rest, &line) && slice_eq(line, SLICE("a")));
    assert_true(smtp_reply_next_line(&rest, &line) && line.len == 0);
    assert_true(smtp_reply_next_line(&rest, &line) && slice_eq(line, SLICE("b")));
    assert_false(smtp_reply_next_line(&rest, &line));
}

static void splits_status(void **state)
{
    (void)state;
    char status[SMTP_STATUS_MAX];
    struct slice rest;
    assert_true(smtp_status_split(SLICE("5.1.1 no such user"), 550, status, &rest));
    assert_string_equal(status, "5.1.1");
    assert_true(slice_eq(rest, SLICE("no such user")));
    assert_false(smtp_status_split(SLICE("no 5.1.1"), 550, status, &rest));
    assert_string_equal(status, "");
    assert_true(slice_eq(rest, SLICE("no 5.1.1")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_replies),
        cmocka_unit_test(reads_one_after_the_other),
        cmocka_unit_test(bounds_what_it_keeps),
        cmocka_unit_test(refuses_endless_lines),
        cmocka_unit_test(writes_replies),
        cmocka_unit_test(cuts_long_lines),
        cmocka_unit_test(iterates_lines),
        cmocka_unit_test(splits_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
