/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/proxy_header.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#define SIG "\r\n\r\n\0\r\nQUIT\n"
#define LITERAL(text) text, sizeof(text) - 1

static const struct {
    const char *name, *input;
    size_t len;
    enum parse want;
    const char *source, *destination; /* NULL: local */
} CASES[] = {
    {"v1 IPv4", LITERAL("PROXY TCP4 192.0.2.1 198.51.100.2 56324 25\r\n"), PARSE_DONE,
        "192.0.2.1:56324", "198.51.100.2:25"},
    {"v1 IPv6", LITERAL("PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n"), PARSE_DONE,
        "[2001:db8::1]:1", "[2001:db8::2]:65535"},
    {"v1 mapped becomes IPv4", LITERAL("PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n"),
        PARSE_DONE, "192.0.2.1:1", "[2001:db8::2]:2"},
    {"v1 unknown", LITERAL("PROXY UNKNOWN\r\n"), PARSE_DONE, NULL, NULL},
    {"v1 unknown with more", LITERAL("PROXY UNKNOWN ffff::1 ffff::1 1 2\r\n"), PARSE_DONE,
        NULL, NULL},
    {"v1 family and address differ",
        LITERAL("PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n"), PARSE_BAD, NULL, NULL},
    {"v1 one of each", LITERAL("PROXY TCP6 2001:db8::1 192.0.2.1 1 2\r\n"), PARSE_BAD,
        NULL, NULL},
    {"v1 bad family", LITERAL("PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n"), PARSE_BAD, NULL,
        NULL},
    {"v1 port too large", LITERAL("PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n"),
        PARSE_BAD, NULL, NULL},
    {"v1 port with a zero in front", LITERAL("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n"),
        PARSE_BAD, NULL, NULL},
    {"v1 port missing", LITERAL("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n"), PARSE_BAD, NULL,
        NULL},
    {"v1 one word more", LITERAL("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n"), PARSE_BAD,
        NULL, NULL},
    {"v1 two blanks", LITERAL("PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n"), PARSE_BAD, NULL,
        NULL},
    {"v1 bare LF", LITERAL("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n"), PARSE_BAD, NULL,
        NULL},
    {"v1 bare CR", LITERAL("PROXY TCP4 192.0.2.1 192.0.2.2 1\r 2\r\n"), PARSE_BAD, NULL,
        NULL},
    {"v1 NUL", LITERAL("PROXY TCP4 192.0.2.1\0 192.0.2.2 1 2\r\n"), PARSE_BAD, NULL,
        NULL},
    {"v1 endless",
        LITERAL("PROXY UNKNOWN xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
                "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        PARSE_BAD, NULL, NULL},
    {"a client without header", LITERAL("EHLO x.example\r\n"), PARSE_BAD, NULL, NULL},
    {"lower case", LITERAL("proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n"), PARSE_BAD, NULL,
        NULL},
    {"v2 IPv4", LITERAL(SIG "\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x02\x01\0\0\x19"),
        PARSE_DONE, "192.0.2.1:256", "198.51.100.2:25"},
    {"v2 IPv4 with a TLV",
        LITERAL(
            SIG "\x21\x11\0\x10\xc0\0\x02\x01\xc6\x33\x64\x02\x01\0\0\x19\x04\0\x01x"),
        PARSE_DONE, "192.0.2.1:256", "198.51.100.2:25"},
    {"v2 IPv6",
        LITERAL(
            SIG "\x21\x21\0\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8"
                "\0\0\0\0\0\0\0\0\0\0\0\x02\0\x01\0\x02"),
        PARSE_DONE, "[2001:db8::1]:1", "[2001:db8::2]:2"},
    {"v2 mapped becomes IPv4",
        LITERAL(
            SIG "\x21\x21\0\x24\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\x02\x01\x20\x01\x0d\xb8"
                "\0\0\0\0\0\0\0\0\0\0\0\x02\0\x01\0\x02"),
        PARSE_DONE, "192.0.2.1:1", "[2001:db8::2]:2"},
    {"v2 local", LITERAL(SIG "\x20\0\0\0"), PARSE_DONE, NULL, NULL},
    {"v2 local with an address", LITERAL(SIG "\x20\x11\0\x0c............"), PARSE_DONE,
        NULL, NULL},
    {"v2 unspecified", LITERAL(SIG "\x21\0\0\0"), PARSE_DONE, NULL, NULL},
    {"v2 UNIX", LITERAL(SIG "\x21\x31\0\0"), PARSE_BAD, NULL, NULL},
    {"v2 datagram", LITERAL(SIG "\x21\x12\0\x0c............"), PARSE_BAD, NULL, NULL},
    {"v2 address too short", LITERAL(SIG "\x21\x11\0\x04...."), PARSE_BAD, NULL, NULL},
    {"v2 version 1", LITERAL(SIG "\x11\x11\0\x0c............"), PARSE_BAD, NULL, NULL},
    {"v2 command 2", LITERAL(SIG "\x22\x11\0\x0c............"), PARSE_BAD, NULL, NULL},
    {"v2 too long", LITERAL(SIG "\x21\x11\xff\xff"), PARSE_BAD, NULL, NULL},
    {"signature broken", LITERAL("\r\n\r\n\0\r\nQUIX\n\x21\x11\0\0"), PARSE_BAD, NULL,
        NULL},
};

static void expect_address(struct netaddr got, const char *want)
{
    char text[NETADDR_TEXT_MAX];
    netaddr_format(got, text);
    assert_string_equal(text, want);
}

static void parses(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct proxy_header h;
        size_t used;
        enum parse got =
            proxy_header_parse(slice_make(CASES[i].input, CASES[i].len), &h, &used);
        if (got != CASES[i].want)
            fail_msg("%s: got %d", CASES[i].name, got);
        assert_int_equal(used, got == PARSE_DONE ? CASES[i].len : 0);
        if (got != PARSE_DONE)
            continue;
        assert_int_equal(h.is_local, CASES[i].source == NULL);
        if (!h.is_local) {
            expect_address(h.source, CASES[i].source);
            expect_address(h.destination, CASES[i].destination);
        }
    }
}

/* Cut anywhere, a good header is unfinished and never bad; what follows is not looked at.
 */
static void cut_at_every_length(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        if (CASES[i].want != PARSE_DONE)
            continue;
        struct proxy_header h;
        size_t used;
        char *copy;
        for (size_t len = 0; len < CASES[i].len; len++) {
            copy = malloc(len + 1); /* of its own, so that a read past the end is seen */
            memcpy(copy, CASES[i].input, len);
            assert_int_equal(
                proxy_header_parse(slice_make(copy, len), &h, &used), PARSE_MORE);
            free(copy);
        }
        copy = malloc(CASES[i].len + 12);
        memcpy(copy, CASES[i].input, CASES[i].len);
        memcpy(copy + CASES[i].len, "EHLO x\r\n\r\n.\n", 12);
        assert_int_equal(
            proxy_header_parse(slice_make(copy, CASES[i].len + 12), &h, &used),
            PARSE_DONE);
        assert_int_equal(used, CASES[i].len);
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses),
        cmocka_unit_test(cut_at_every_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
