/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/header_scan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

struct scan_case {
    const char *name, *input;
    bool done; /* before the end was said */
    bool no_header_end;
    bool has_8bit;
    uint32_t header_bytes, body_start;
    unsigned received;
    const char *fields; /* "kind:start-end" of each, in order */
};

static const struct scan_case CASES[] = {
    {"empty", "", false, true, false, 0, 0, 0, ""},
    {"no header", "\r\nbody", true, false, false, 0, 2, 0, ""},
    {"one field", "To: a\r\n\r\nbody\r\n", true, false, false, 7, 9, 0, "23:0-7"},
    {"bare LF", "To: a\n\nbody\n", true, false, false, 6, 7, 0, "23:0-6"},
    {"folded", "To: a,\r\n\tb\r\n c\r\nCc: d\r\n\r\n", true, false, false, 23, 25, 0,
        "23:0-16 3:16-23"},
    {"folded blank line", "To: a\r\n \r\nCc: d\r\n\r\n", true, false, false, 17, 19, 0,
        "23:0-10 3:10-17"},
    {"case", "tO: a\r\nbCC: b\r\nMESSAGE-id: <c>\r\n\r\n", true, false, false, 32, 34, 0,
        "23:0-7 2:7-15 9:15-32"},
    {"blanks before the colon", "Bcc \t: b\r\n\r\n", true, false, false, 10, 12, 0,
        "2:0-10"},
    {"received",
        "Received: a\r\n\tb\r\nreceived:c\r\nX-Received: d\r\n\r\nReceived: e\r\n", true,
        false, false, 44, 46, 2, ""},
    {"no field", "To: a\r\nhello there\r\n\r\n", true, true, false, 7, 7, 0, "23:0-7"},
    {"no field at once", "hello\r\n", true, true, false, 0, 0, 0, ""},
    {"starts folded", " x: y\r\n\r\n", true, true, false, 0, 0, 0, ""},
    {"no colon in the line", "To\r\n\r\n", true, true, false, 0, 0, 0, ""},
    {"colon alone", ": x\r\n\r\n", true, true, false, 0, 0, 0, ""},
    {"CR alone in a line start", "To: a\r\n\rx", true, true, false, 7, 7, 0, "23:0-7"},
    {"8-bit value", "To: \xc3\xa9\r\n\r\n", true, false, true, 8, 10, 0, "23:0-8"},
    {"8-bit body only", "To: a\r\n\r\n\xc3\xa9", true, false, false, 7, 9, 0, "23:0-7"},
    {"8-bit name", "T\xc3\xb6: a\r\n\r\n", true, true, false, 0, 0, 0, ""},
    {"ends in a value", "To: a\r\nCc: d", false, true, false, 12, 12, 0, "23:0-7 3:7-12"},
    {"ends behind a line", "To: a\r\n", false, true, false, 7, 7, 0, "23:0-7"},
    {"ends in a name", "To: a\r\nCc", false, true, false, 7, 7, 0, "23:0-7"},
    {"ends in the empty line", "To: a\r\n\r", false, true, false, 7, 7, 0, "23:0-7"},
    {"long name", "X-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: a\r\nTo: b\r\n\r\n", true,
        false, false, 55, 57, 0, "23:48-55"},
    {"a prefix is not the name", "T: a\r\nTos: b\r\nResent-To: c\r\n\r\n", true, false,
        false, 28, 30, 0, "19:14-28"},
    {"all we remove", "Return-Path: <a>\r\nBcc: b\r\nResent-Bcc: c\r\nDate: d\r\n\r\n",
        true, false, false, 50, 52, 0, "20:0-18 2:18-26 13:26-41 6:41-50"},
};

static void check(const struct scan_case *c, const struct header_scan *h)
{
    char fields[1000] = "";
    size_t len = 0;
    for (unsigned i = 0; i < h->field_count; i++)
        len += (size_t)snprintf(fields + len, sizeof fields - len, "%s%d:%u-%u",
            i ? " " : "", (int)h->fields[i].kind, h->fields[i].start, h->fields[i].end);
    if (strcmp(fields, c->fields) != 0 || h->header_bytes != c->header_bytes ||
        h->body_start != c->body_start)
        fail_msg("%s: %s, header %u, body %u", c->name, fields, h->header_bytes,
            h->body_start);
    assert_true(h->done);
    assert_int_equal(h->no_header_end, c->no_header_end);
    assert_int_equal(h->has_8bit, c->has_8bit);
    assert_int_equal(h->count[HEADER_RECEIVED], c->received);
}

/* In pieces of `piece` octets, after a first one of `first`. */
static void run(const struct scan_case *c, size_t first, size_t piece)
{
    struct header_scan h;
    header_scan_init(&h);
    struct slice rest = slice_str(c->input);
    enum parse got = header_scan_feed(&h, slice_head(rest, first));
    for (rest = slice_from(rest, first); rest.len > 0; rest = slice_from(rest, piece))
        got = header_scan_feed(&h, slice_head(rest, piece));
    assert_int_equal(got, c->done ? PARSE_DONE : PARSE_MORE);
    header_scan_end(&h);
    check(c, &h);
}

static void scans(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        for (size_t first = 0; first <= strlen(CASES[i].input); first++)
            run(&CASES[i], first, 1000);
        run(&CASES[i], 0, 1);
        run(&CASES[i], 0, 3);
    }
}

static void says_when_there_are_too_many(void **state)
{
    (void)state;
    struct header_scan h;
    header_scan_init(&h);
    for (int i = 0; i < HEADER_FIELDS_MAX + 10; i++) {
        assert_int_equal(h.overflow, i > HEADER_FIELDS_MAX);
        header_scan_feed(&h, SLICE("Bcc: x\r\nX: y\r\n"));
    }
    header_scan_feed(&h, SLICE("\r\n"));
    assert_true(h.done && h.overflow);
    assert_int_equal(h.field_count, HEADER_FIELDS_MAX);
    assert_int_equal(h.count[HEADER_BCC], HEADER_FIELDS_MAX + 10);
    assert_int_equal(
        h.fields[HEADER_FIELDS_MAX - 1].end, (HEADER_FIELDS_MAX - 1) * 14 + 8);
}

static void finds_fields(void **state)
{
    (void)state;
    struct header_scan h;
    header_scan_init(&h);
    struct slice text = SLICE("X: y\r\nDate: now\r\nDate: then\r\n\r\n");
    header_scan_feed(&h, text);
    const struct header_field *f = header_scan_find(&h, HEADER_DATE);
    assert_non_null(f);
    struct slice value = slice_make(text.ptr + f->value, f->end - f->value);
    assert_true(slice_eq(value, SLICE(" now\r\n")));
    assert_null(header_scan_find(&h, HEADER_TO));
    assert_int_equal(h.count[HEADER_DATE], 2);
    assert_int_equal(header_kind_of(SLICE("Auto-Submitted")), HEADER_AUTO_SUBMITTED);
    assert_int_equal(header_kind_of(SLICE("")), HEADER_OTHER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scans),
        cmocka_unit_test(says_when_there_are_too_many),
        cmocka_unit_test(finds_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
