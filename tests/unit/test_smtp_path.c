/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/smtp_path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define X10 "xxxxxxxxxx"
#define X60 X10 X10 X10 X10 X10 X10
#define X250 X60 X60 X60 X60 X10

struct path_case {
    const char *input;
    const char *address; /* NULL: bad */
    const char *local, *routing;
};

static const struct path_case FORWARD[] = {
    {"<a@b.example>", "a@b.example", "a", "b.example"},
    {"<A.B+c@B.Example>", "A.B+c@b.example", "A.B+c", "b.example"},
    {"<!#$%&'*+-/=?^_`{|}~@b.example>", "!#$%&'*+-/=?^_`{|}~@b.example",
        "!#$%&'*+-/=?^_`{|}~", "b.example"},
    {"<a@localhost>", "a@localhost", "a", "localhost"},
    {"<a@my_host.example>", "a@my_host.example", "a", "my_host.example"},
    {"<\"a b\"@b.example>", "\"a b\"@b.example", "\"a b\"", "b.example"},
    {"<\"a@b\"@b.example>", "\"a@b\"@b.example", "\"a@b\"", "b.example"},
    {"<\"a\\\"b\\\\\"@b.example>", "\"a\\\"b\\\\\"@b.example", "\"a\\\"b\\\\\"",
        "b.example"},
    {"<\"\"@b.example>", "\"\"@b.example", "\"\"", "b.example"},
    {"<\">\"@b.example>", "\">\"@b.example", "\">\"", "b.example"},
    {"<a@[192.0.2.1]>", "a@[192.0.2.1]", "a", "[192.0.2.1]"},
    {"<a@[IPv6:2001:DB8::1]>", "a@[IPv6:2001:DB8::1]", "a", "[IPv6:2001:db8::1]"},
    {"<a@[IPv6:2001:db8:0::1]>", "a@[IPv6:2001:db8:0::1]", "a", "[IPv6:2001:db8::1]"},
    {"<a@[IPv6:::ffff:192.0.2.1]>", "a@[IPv6:::ffff:192.0.2.1]", "a", "[192.0.2.1]"},
    {"<@c.example:a@b.example>", "a@b.example", "a", "b.example"},
    {"<@c.example,@d.example:a@b.example>", "a@b.example", "a", "b.example"},
    {"<postmaster>", "postmaster", "postmaster", ""},
    {"<PostMaster>", "postmaster", "postmaster", ""},
    {"<d\xc3\xb8rte@s\xc3\xb8rensen.example>", "d\xc3\xb8rte@s\xc3\xb8rensen.example",
        "d\xc3\xb8rte", "xn--srensen-q1a.example"},
    {"<a@B\xc3\x9c"
     "cher.example>",
        "a@b\xc3\x9c"
        "cher.example",
        "a", "xn--bcher-kva.example"},
    {"<a@fa\xc3\x9f.example>", "a@fa\xc3\x9f.example", "a", "xn--fa-hia.example"},
    {"<a@xn--bcher-kva.example>", "a@xn--bcher-kva.example", "a",
        "xn--bcher-kva.example"},
    {"<" X60 X60 "@b.example>", X60 X60 "@b.example", X60 X60, "b.example"},
    {"<>", NULL, NULL, NULL},
    {"<a>", NULL, NULL, NULL},
    {"<postmaster@>", NULL, NULL, NULL},
    {"<a@>", NULL, NULL, NULL},
    {"<@b.example>", NULL, NULL, NULL},
    {"a@b.example", NULL, NULL, NULL},
    {"<a@b.example", NULL, NULL, NULL},
    {"<a@b.example>>", "a@b.example", "a", "b.example"}, /* the rest is the caller's */
    {"< a@b.example>", NULL, NULL, NULL},
    {"<a@b.example >", NULL, NULL, NULL},
    {"<a b@b.example>", NULL, NULL, NULL},
    {"<.a@b.example>", NULL, NULL, NULL},
    {"<a.@b.example>", NULL, NULL, NULL},
    {"<a..b@b.example>", NULL, NULL, NULL},
    {"<a@b@b.example>", NULL, NULL, NULL},
    {"<a,b@b.example>", NULL, NULL, NULL},
    {"<a@.example>", NULL, NULL, NULL},
    {"<a@b..example>", NULL, NULL, NULL},
    {"<a@b.example.>", NULL, NULL, NULL},
    {"<a@-b.example>", NULL, NULL, NULL},
    {"<a@b-.example>", NULL, NULL, NULL},
    {"<a@b.example\r\nRCPT TO:<c@d>>", NULL, NULL, NULL},
    {"<\"a\r\nb\"@b.example>", NULL, NULL, NULL},
    {"<\"a\tb\"@b.example>", NULL, NULL, NULL},
    {"<\"a\\\nb\"@b.example>", NULL, NULL, NULL},
    {"<\"a\\\xc3\xa9\"@b.example>", NULL, NULL, NULL},
    {"<\"a\x7f\"@b.example>", NULL, NULL, NULL},
    {"<\"a@b.example>", NULL, NULL, NULL},
    {"<\"a\"b@b.example>", NULL, NULL, NULL},
    {"<\"a\\\"@b.example>", NULL, NULL, NULL},
    {"<a@[192.0.2]>", NULL, NULL, NULL},
    {"<a@[192.0.2.256]>", NULL, NULL, NULL},
    {"<a@[2001:db8::1]>", NULL, NULL, NULL},
    {"<a@[IPv6:192.0.2.1]>", NULL, NULL, NULL},
    {"<a@[x-tag:foo]>", NULL, NULL, NULL},
    {"<a@[192.0.2.1>", NULL, NULL, NULL},
    {"<a@[]>", NULL, NULL, NULL},
    {"<a\xff@b.example>", NULL, NULL, NULL},
    {"<a@\xff.example>", NULL, NULL, NULL},
    {"<a@\xe2\x98.example>", NULL, NULL, NULL},
    {"<@c.example a@b.example>", NULL, NULL, NULL},
    {"<@c.example,a@b.example>", NULL, NULL, NULL},
    {"<@c..example:a@b.example>", NULL, NULL, NULL},
    {"<" X250 X10 "@b.example>", NULL, NULL, NULL},
    {"<a@" X60 "xxxx.example>", NULL, NULL, NULL},
    {"<a@" X60 "." X60 "." X60 "." X60 "." X60 ">", NULL, NULL, NULL},
};

/* In memory of its own, so that a read past the end is seen. */
static enum parse parse(const char *text, size_t len, enum smtp_path_kind kind,
    struct smtp_path *out, size_t *used)
{
    char *copy = malloc(len ? len : 1);
    memcpy(copy, text, len);
    enum parse got = smtp_path_parse(slice_make(copy, len), kind, out, used);
    free(copy);
    return got;
}

static void parses_forward_paths(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof FORWARD / sizeof *FORWARD; i++) {
        const struct path_case *c = &FORWARD[i];
        struct smtp_path p;
        size_t used;
        enum parse got = parse(c->input, strlen(c->input), SMTP_FORWARD_PATH, &p, &used);
        if (got != (c->address ? PARSE_DONE : PARSE_BAD))
            fail_msg("%s: %d", c->input, got);
        assert_int_equal(used > 0, got == PARSE_DONE);
        if (got != PARSE_DONE)
            continue;
        if (!slice_eq(p.address, slice_str(c->address)) ||
            !slice_eq(p.routing, slice_str(c->routing)))
            fail_msg(
                "%s: %.*s, %.*s", c->input, SLICE_ARG(p.address), SLICE_ARG(p.routing));
        assert_true(slice_eq(p.local, slice_str(c->local)));
        assert_int_equal(c->input[used - 1], '>');
    }
}

/* A path is whole or bad; no prefix of one is another. */
static void cut_at_every_length(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof FORWARD / sizeof *FORWARD; i++) {
        struct smtp_path p;
        size_t used, whole;
        const char *text = FORWARD[i].input;
        if (parse(text, strlen(text), SMTP_FORWARD_PATH, &p, &whole) != PARSE_DONE)
            continue;
        for (size_t len = 0; len < whole; len++) {
            assert_int_equal(parse(text, len, SMTP_FORWARD_PATH, &p, &used), PARSE_BAD);
            assert_int_equal(used, 0);
        }
    }
}

static void parses_reverse_paths(void **state)
{
    (void)state;
    struct smtp_path p;
    size_t used;
    assert_int_equal(
        smtp_path_parse(SLICE("<> SIZE=1"), SMTP_REVERSE_PATH, &p, &used), PARSE_DONE);
    assert_int_equal(used, 2);
    assert_int_equal(p.address.len, 0);
    assert_int_equal(p.routing.len, 0);
    assert_int_equal(
        smtp_path_parse(SLICE("<postmaster>"), SMTP_REVERSE_PATH, &p, &used), PARSE_BAD);
    assert_int_equal(
        smtp_path_parse(SLICE("<a@b> X"), SMTP_REVERSE_PATH, &p, &used), PARSE_DONE);
    assert_int_equal(used, 5);
    assert_false(p.is_utf8);
    assert_int_equal(
        smtp_path_parse(slice_make("<a\0@b>", 6), SMTP_REVERSE_PATH, &p, &used),
        PARSE_BAD);
    assert_int_equal(
        smtp_path_parse(slice_make("<\"\0\"@b>", 7), SMTP_REVERSE_PATH, &p, &used),
        PARSE_BAD);
}

static void parses_addresses(void **state)
{
    (void)state;
    struct smtp_path p;
    assert_int_equal(smtp_address_parse(SLICE("a@B.example"), &p), PARSE_DONE);
    assert_true(slice_eq(p.domain, SLICE("b.example")));
    assert_int_equal(smtp_address_parse(SLICE("a@b.example "), &p), PARSE_BAD);
    assert_int_equal(smtp_address_parse(SLICE("<a@b.example>"), &p), PARSE_BAD);
    assert_int_equal(smtp_address_parse(SLICE("a@b.example,c@d"), &p), PARSE_BAD);
    assert_int_equal(smtp_address_parse(SLICE(""), &p), PARSE_BAD);
    assert_int_equal(smtp_address_parse(SLICE("\xc3\xa9@b.example"), &p), PARSE_DONE);
    assert_true(p.is_utf8);
}

static void maps_domains(void **state)
{
    (void)state;
    char out[SMTP_DOMAIN_MAX + 1];
    assert_true(smtp_domain_to_ascii(SLICE("EXAMPLE.org"), out));
    assert_string_equal(out, "example.org");
    assert_true(smtp_domain_to_ascii(SLICE("\xc3\x9c"
                                           "BUNG.example"),
        out));
    assert_string_equal(out, "xn--bung-zra.example");
    assert_false(smtp_domain_to_ascii(SLICE(""), out));
    assert_false(smtp_domain_to_ascii(SLICE("[192.0.2.1]"), out));
    assert_false(smtp_domain_to_ascii(SLICE("a b"), out));
    assert_false(smtp_domain_to_ascii(slice_make("a\0b", 3), out));
    char text[300];
    size_t len =
        smtp_domain_to_unicode(SLICE("xn--bcher-kva.example"), text, sizeof text);
    assert_true(slice_eq(slice_make(text, len), SLICE("b\xc3\xbc"
                                                      "cher.example")));
    len = smtp_domain_to_unicode(SLICE("example.org"), text, 4);
    assert_int_equal(len, 3);
}

static void checks_helo(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "a.example", "my_pc", "[192.0.2.1]",
        "[IPv6:::1]", "192.0.2.1", "::1", "\xc3\xbcx.example"};
    static const char *const bad[] = {
        "", "a b", "a(b)", "<a>", "a\r", "[a]", "a;b", "\"a\"", "\xff", "a\\b", "a/b"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(smtp_helo_is_valid(slice_str(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(smtp_helo_is_valid(slice_str(bad[i])));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses_forward_paths),
        cmocka_unit_test(cut_at_every_length),
        cmocka_unit_test(parses_reverse_paths),
        cmocka_unit_test(parses_addresses),
        cmocka_unit_test(maps_domains),
        cmocka_unit_test(checks_helo),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
