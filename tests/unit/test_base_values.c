/* SPDX-License-Identifier: Apache-2.0 */
/* The small values of base/: slice, buf, arena, ids, netaddr, crc32c, clock, utf8, err.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/crc32c.h"
#include "base/err.h"
#include "base/ids.h"
#include "base/netaddr.h"
#include "base/random.h"
#include "base/utf8.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* --- slice --- */

static void test_slice_compare(void **state)
{
    (void)state;
    assert_true(slice_eq(SLICE(""), slice_make(NULL, 0)));
    assert_true(slice_eq_nocase(SLICE("Ab{"), SLICE("aB{")));
    assert_false(slice_eq_nocase(SLICE("["), SLICE("{"))); /* 32 apart, no letters */
    assert_false(slice_eq_nocase(SLICE("\xc3\x84"), SLICE("\xc3\xa4")));
    assert_true(slice_starts_nocase(SLICE("IPv6:::1"), SLICE("ipV6:")));
    assert_true(slice_ends_nocase(SLICE("a.Example"), SLICE(".example")));
    assert_false(slice_ends_nocase(SLICE("example"), SLICE(".example")));
    assert_true(slice_cmp(SLICE("a"), SLICE("ab")) < 0);
    assert_true(slice_cmp(SLICE("b"), SLICE("ab")) > 0);
    assert_int_equal(slice_cmp(SLICE("a\0b"), SLICE("a\0b")), 0);
    assert_true(slice_hash_nocase(SLICE("ABC"), 5) == slice_hash_nocase(SLICE("abc"), 5));
    assert_true(slice_hash(SLICE("abc"), 5) != slice_hash(SLICE("abc"), 6));
}

static void test_slice_cut(void **state)
{
    (void)state;
    struct slice s = SLICE("a@b@c");
    assert_int_equal(slice_find(s, '@'), 1);
    assert_int_equal(slice_rfind(s, '@'), 3);
    assert_int_equal(slice_find(s, 'x'), 5);
    assert_int_equal(slice_from(s, 99).len, 0);
    assert_int_equal(slice_head(s, 99).len, 5);
    assert_true(slice_eq(slice_trim(SLICE(" \t a b\r\n")), SLICE("a b")));
    assert_int_equal(slice_trim(SLICE(" \t ")).len, 0);
}

static void test_slice_u64(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t max;
        bool ok;
        uint64_t want;
    } rows[] = {{"0", 5, true, 0}, {"5", 5, true, 5}, {"6", 5, false, 0},
        {"007", 9, true, 7}, {"", 9, false, 0}, {"-1", 9, false, 0}, {"+1", 9, false, 0},
        {" 1", 9, false, 0}, {"1x", 9, false, 0},
        {"18446744073709551615", UINT64_MAX, true, UINT64_MAX},
        {"18446744073709551616", UINT64_MAX, false, 0},
        {"99999999999999999999999", UINT64_MAX, false, 0}, {"9", 3, false, 0},
        {"10", 10, true, 10}, {"11", 10, false, 0}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint64_t value = 77;
        bool ok = slice_u64(slice_str(rows[i].text), rows[i].max, &value);
        if (ok != rows[i].ok || value != (ok ? rows[i].want : 77))
            fail_msg("%s", rows[i].text);
    }
}

/* --- buf --- */

static void test_buf(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1000);
    assert_int_equal(buf_len(&b), 0);
    assert_true(buf_append_str(&b, "hello "));
    assert_true(buf_printf(&b, "%d", 42));
    assert_true(slice_eq(buf_slice(&b), SLICE("hello 42")));
    buf_consume(&b, 6);
    assert_true(slice_eq(buf_slice(&b), SLICE("42")));
    char *room = buf_reserve(&b, 998);
    assert_non_null(room);
    memset(room, 'x', 998);
    buf_commit(&b, 998);
    assert_int_equal(buf_len(&b), 1000);
    assert_false(buf_append_char(&b, 'y'));
    assert_true(b.failed);
    assert_int_equal(buf_len(&b), 1000);
    buf_consume(&b, 1000);
    buf_clear(&b);
    assert_false(b.failed);
    buf_fini(&b);
}

static void test_buf_long_printf(void **state)
{
    (void)state;
    struct buf b;
    char x[2000];
    memset(x, 'x', sizeof(x) - 1);
    x[sizeof(x) - 1] = '\0';
    buf_init(&b, 5000);
    assert_true(buf_printf(&b, "%s!", x));
    assert_int_equal(buf_len(&b), 2000);
    assert_true(buf_printf(&b, "%s!", x));
    assert_false(buf_printf(&b, "%s!", x));
    assert_int_equal(buf_len(&b), 4000);
    buf_fini(&b);
}

/* Random appends and consumes against a simple model. */
static void test_buf_model(void **state)
{
    (void)state;
    struct buf b;
    static char model[100000];
    size_t head = 0, tail = 0;
    buf_init(&b, 3000);
    while (tail < sizeof(model) - 200) {
        size_t n = (size_t)random_below(200);
        random_bytes(model + tail, n);
        bool fits = tail - head + n <= 3000;
        assert_int_equal(buf_append(&b, slice_make(model + tail, n)), fits);
        tail += fits ? n : 0;
        size_t take = (size_t)random_below(tail - head + 1) / 2;
        buf_consume(&b, take);
        head += take;
        assert_true(slice_eq(buf_slice(&b), slice_make(model + head, tail - head)));
    }
    buf_fini(&b);
}

/* --- arena --- */

static void test_arena(void **state)
{
    (void)state;
    struct arena *a = arena_new(100);
    for (size_t i = 1; i < 3000; i += 7) {
        char *p = arena_alloc(a, i);
        assert_int_equal((uintptr_t)p % 16, 0);
        for (size_t j = 0; j < i; j++)
            assert_int_equal(p[j], 0);
        memset(p, 'x', i);
    }
    struct slice s = arena_dup(a, SLICE("a\0b"));
    assert_int_equal(s.len, 3);
    assert_int_equal(s.ptr[3], 0);
    assert_true(slice_eq(arena_printf(a, "%s-%d", "x", 7), SLICE("x-7")));
    assert_string_equal(arena_strdup(a, SLICE("")), "");
    assert_true(arena_bytes(a) > 600000);
    arena_free(a);
    arena_free(NULL);
}

/* --- ids --- */

static void test_ids_round_trip(void **state)
{
    (void)state;
    for (int i = 0; i < 2000; i++) {
        struct unit_id id, back;
        char text[UNIT_ID_TEXT_MAX];
        unsigned char key[UNIT_ID_BYTES];
        random_bytes(id.msg.bytes, MSG_ID_BYTES);
        id.unit = (uint16_t)random_below(65536);
        unit_id_format(id, text);
        assert_true(unit_id_parse(slice_str(text), &back));
        assert_int_equal(unit_id_cmp(id, back), 0);
        text[MSG_ID_TEXT] = '\0';
        for (char *c = text; *c; c++)
            *c = ascii_upper(*c);
        assert_true(msg_id_parse(slice_str(text), &back.msg));
        assert_true(msg_id_eq(id.msg, back.msg));
        unit_id_key(id, key);
        assert_int_equal(unit_id_cmp(id, unit_id_from_key(key)), 0);
    }
}

static void test_ids_refused(void **state)
{
    (void)state;
    static const char *const rows[] = {"", "8zzzzzzzzzzzzzzzzzzzzzzzzz",
        "0000000000000000000000000", "000000000000000000000000000",
        "0000000000000000000000000u", "0000000000000000000000000 ",
        "0000000000000000000000000\n"};
    static const char *const units[] = {"00000000000000000000000000",
        "00000000000000000000000000-", "00000000000000000000000000-65536",
        "00000000000000000000000000-x", "00000000000000000000000000_1"};
    struct unit_id id;
    for (size_t i = 0; i < COUNT(rows); i++)
        assert_false(msg_id_parse(slice_str(rows[i]), &id.msg));
    for (size_t i = 0; i < COUNT(units); i++)
        assert_false(unit_id_parse(slice_str(units[i]), &id));
}

static void test_ids_are_unique_and_sorted(void **state)
{
    (void)state;
    struct msg_id_source a, b;
    struct msg_id before = {{0}}, id;
    msg_id_source_init(&a, 1, 2, 0);
    msg_id_source_init(&b, 1, 2, 1);
    for (int i = 0; i < 1100000; i++) { /* over 2^20 in one millisecond */
        id = msg_id_next(&a, (struct wall){1000});
        if (memcmp(before.bytes, id.bytes, MSG_ID_BYTES) >= 0)
            fail_msg("%d", i);
        before = id;
    }
    assert_int_equal(msg_id_time(id).ms, 1001);
    struct msg_id back = msg_id_next(&a, (struct wall){5}); /* the clock went back */
    assert_true(memcmp(id.bytes, back.bytes, MSG_ID_BYTES) < 0);
    struct msg_id other = msg_id_next(&b, (struct wall){1000});
    assert_false(msg_id_eq(other, id));
}

/* --- addresses --- */

static void test_ipaddr(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want; /* NULL: refused */
    } rows[] = {{"192.0.2.1", "192.0.2.1"}, {"2001:DB8::1", "2001:db8::1"},
        {"::ffff:192.0.2.1", "192.0.2.1"}, {"::ffff:c000:201", "192.0.2.1"},
        {"::1", "::1"}, {"192.0.2", NULL}, {"192.0.2.256", NULL}, {"192.0.2.01", NULL},
        {"", NULL}, {"::1%lo", NULL}, {"1:2:3:4:5:6:7:8:9", NULL}, {" ::1", NULL}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct ipaddr ip;
        char text[NETADDR_TEXT_MAX];
        bool ok = ipaddr_parse(slice_str(rows[i].text), &ip);
        if (ok != (rows[i].want != NULL))
            fail_msg("%s", rows[i].text);
        if (!ok)
            continue;
        ipaddr_format(ip, text);
        assert_string_equal(text, rows[i].want);
    }
    struct ipaddr ip;
    assert_false(ipaddr_parse(SLICE("::1\0"), &ip));
    assert_true(ipaddr_parse_literal(SLICE("[IPv6:2001:db8::1]"), &ip) && ip.family == 6);
    assert_true(ipaddr_parse_literal(SLICE("[192.0.2.1]"), &ip) && ip.family == 4);
    assert_false(ipaddr_parse_literal(SLICE("[2001:db8::1]"), &ip));
    assert_false(ipaddr_parse_literal(SLICE("[IPv6:192.0.2.1]"), &ip));
    assert_false(ipaddr_parse_literal(SLICE("192.0.2.1"), &ip));
    assert_true(ipaddr_parse(SLICE("2001:db8:1:2:3:4:5:6"), &ip));
    char text[NETADDR_TEXT_MAX];
    ipaddr_format(ipaddr_client_key(ip), text);
    assert_string_equal(text, "2001:db8:1:2::");
    ipaddr_format_literal(ip, text);
    assert_string_equal(text, "[IPv6:2001:db8:1:2:3:4:5:6]");
}

static void test_netaddr(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint16_t port;
        const char *want;
    } rows[] = {{"192.0.2.1:25", 0, "192.0.2.1:25"},
        {"[192.0.2.1]:25", 0, "192.0.2.1:25"}, {"[::]:25", 0, "[::]:25"},
        {"192.0.2.1", 25, "192.0.2.1:25"}, {"[2001:db8::1]", 25, "[2001:db8::1]:25"},
        {"2001:db8::1", 25, "[2001:db8::1]:25"},
        {"[::ffff:192.0.2.1]:1", 0, "192.0.2.1:1"}, {"192.0.2.1", 0, NULL},
        {"192.0.2.1:", 25, NULL}, {"192.0.2.1:65536", 0, NULL}, {"[::1", 25, NULL},
        {"[::1]x", 25, NULL}, {"[::1]:", 25, NULL}, {":25", 0, NULL}, {"", 25, NULL}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct netaddr a, back;
        char text[NETADDR_TEXT_MAX];
        struct sockaddr_storage sa;
        bool ok = netaddr_parse(slice_str(rows[i].text), rows[i].port, &a);
        if (ok != (rows[i].want != NULL))
            fail_msg("%s", rows[i].text);
        if (!ok)
            continue;
        netaddr_format(a, text);
        assert_string_equal(text, rows[i].want);
        netaddr_to_sockaddr(a, &sa);
        assert_true(netaddr_from_sockaddr((struct sockaddr *)&sa, &back));
        assert_true(ipaddr_eq(a.ip, back.ip) && a.port == back.port);
    }
}

static void test_cidr(void **state)
{
    (void)state;
    static const struct {
        const char *net, *ip;
        bool want;
    } rows[] = {{"10.0.0.0/8", "10.255.0.1", true}, {"10.0.0.0/8", "11.0.0.1", false},
        {"10.0.0.0/8", "::ffff:10.1.2.3", true},
        {"::ffff:10.0.0.0/104", "10.1.2.3", true}, {"[::1]/128", "::1", true},
        {"2001:db8::/33", "2001:db8:7fff::1", true},
        {"2001:db8::/33", "2001:db8:8000::1", false}, {"0.0.0.0/0", "192.0.2.1", true},
        {"0.0.0.0/0", "::1", false}, {"::/0", "192.0.2.1", false},
        {"192.0.2.1", "192.0.2.1", true}, {"192.0.2.1", "192.0.2.2", false},
        {"192.0.2.129/25", "192.0.2.200", true}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct cidr net;
        struct ipaddr ip;
        assert_true(cidr_parse(slice_str(rows[i].net), &net));
        assert_true(ipaddr_parse(slice_str(rows[i].ip), &ip));
        if (cidr_contains(net, ip) != rows[i].want)
            fail_msg("%s %s", rows[i].net, rows[i].ip);
    }
    static const char *const bad[] = {"10.0.0.0/33", "10.0.0.0/", "10.0.0.0/x", "::/129",
        "/8", "", "::ffff:0.0.0.0/0", "::ffff:10.0.0.0/95", "10.0.0.0/-1"};
    struct cidr net;
    for (size_t i = 0; i < COUNT(bad); i++)
        if (cidr_parse(slice_str(bad[i]), &net))
            fail_msg("%s", bad[i]);
}

/* --- crc32c --- */

static uint32_t slow_crc(const unsigned char *p, size_t len)
{
    uint32_t crc = UINT32_MAX;
    while (len--) {
        crc ^= *p++;
        for (int k = 0; k < 8; k++)
            crc = crc & 1 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
    }
    return ~crc;
}

static void test_crc32c(void **state)
{
    (void)state;
    unsigned char bytes[300];
    assert_int_equal(
        crc32c(0, "123456789", 9), 0xe3069283); /* RFC 3720 B.4's polynomial */
    assert_int_equal(crc32c(0, "", 0), 0);
    for (size_t len = 0; len < sizeof(bytes); len++) {
        random_bytes(bytes, sizeof(bytes));
        size_t cut = (size_t)random_below(len + 1);
        assert_int_equal(crc32c(0, bytes, len), slow_crc(bytes, len));
        assert_int_equal(
            crc32c(crc32c(0, bytes, cut), bytes + cut, len - cut), slow_crc(bytes, len));
    }
}

/* Long runs are done in lanes: lengths at and around each number of them. */
static void test_crc32c_long(void **state)
{
    (void)state;
    static unsigned char bytes[20000];
    for (unsigned round = 0; round < 200; round++) {
        random_bytes(bytes, sizeof(bytes));
        size_t at = (size_t)random_below(64), cut = (size_t)random_below(9000);
        size_t len = 4000 + (size_t)random_below(sizeof(bytes) - 64 - 4000);
        if (cut > len)
            cut = len;
        uint32_t whole = slow_crc(bytes + at, len);
        assert_int_equal(crc32c(0, bytes + at, len), whole);
        assert_int_equal(
            crc32c(crc32c(0, bytes + at, cut), bytes + at + cut, len - cut), whole);
    }
}

/* --- clock --- */

static void test_clock_texts(void **state)
{
    (void)state;
    char text[48];
    wall_format_iso((struct wall){INT64_C(1795362218123)}, text);
    assert_string_equal(text, "2026-11-22T15:43:38.123Z");
    wall_format_iso((struct wall){-1}, text);
    assert_string_equal(text, "1969-12-31T23:59:59.999Z");
    wall_format_rfc5322((struct wall){INT64_C(1795362218123)}, text);
    assert_string_equal(text, "Sun, 22 Nov 2026 15:43:38 +0000 (UTC)");
    wall_format_rfc5322((struct wall){INT64_C(951827696000)}, text);
    assert_string_equal(text, "Tue, 29 Feb 2000 12:34:56 +0000 (UTC)");
    static const struct {
        int64_t ms;
        const char *want;
    } rows[] = {{0, "0s"}, {999, "0s"}, {59000, "59s"}, {60000, "1m"}, {61000, "1m1s"},
        {3600000, "1h"}, {3661000, "1h1m"}, {90000000, "1d1h"},
        {86400000 * 400ll, "400d"}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        duration_format(rows[i].ms, text);
        assert_string_equal(text, rows[i].want);
    }
}

static void test_clock_shift(void **state)
{
    (void)state;
    int64_t before = wall_now().ms;
    wall_shift_ms(86400000);
    assert_true(wall_now().ms - before >= 86400000);
    wall_shift_ms(0);
    assert_true(wall_now().ms - before < 60000);
    struct mono a = mono_now(), b = mono_now();
    assert_true(b.ns >= a.ns);
    assert_int_equal(mono_diff_ms(mono_add_ms(a, 1500), a), 1500);
}

/* --- utf8 --- */

static void test_utf8(void **state)
{
    (void)state;
    static const struct {
        struct slice text;
        bool valid;
    } rows[] = {{SLICE_INIT(""), true},
        {SLICE_INIT("a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"), true},
        {SLICE_INIT("\x80"), false}, {SLICE_INIT("\xc0\xaf"), false},
        {SLICE_INIT("\xc1\xbf"), false}, {SLICE_INIT("\xe0\x80\xaf"), false},
        {SLICE_INIT("\xed\xa0\x80"), false}, {SLICE_INIT("\xf4\x90\x80\x80"), false},
        {SLICE_INIT("\xf5\x80\x80\x80"), false}, {SLICE_INIT("\xf0\x80\x80\x80"), false},
        {SLICE_INIT("\xe2\x82"), false}, {SLICE_INIT("\xc3("), false},
        {SLICE_INIT("\xf4\x8f\xbf\xbf"), true}, {SLICE_INIT("a\0b"), true}};
    for (size_t i = 0; i < COUNT(rows); i++)
        if (utf8_valid(rows[i].text) != rows[i].valid)
            fail_msg("row %zu", i);
    for (uint32_t code = 0; code < 0x110000; code += 7) {
        char text[4];
        uint32_t back;
        size_t len = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
        static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
        for (size_t i = len - 1, left = code; i > 0; i--, left >>= 6)
            text[i] = (char)(0x80 | (left & 0x3f));
        text[0] = (char)(lead[len] | code >> 6 * (len - 1));
        bool surrogate = code >= 0xd800 && code < 0xe000;
        assert_int_equal(utf8_decode(slice_make(text, len), &back), surrogate ? 0 : len);
        if (!surrogate)
            assert_int_equal(back, code);
        for (size_t cut = 0; cut < len; cut++)
            assert_int_equal(utf8_decode(slice_make(text, cut), &back), 0);
    }
}

static void test_utf8_for_people(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 1000);
    utf8_escape(
        SLICE("a\\\n\x1b\x7f\xff\xc3\xa9\xc2\x9b\xe2\x80\xae\xf3\xa0\x81\x81"), &out);
    assert_true(slice_eq(buf_slice(&out),
        SLICE("a\\\\\\n\\x1b\\x7f\\xff\xc3\xa9\\u009b\\u202e\\U000e0041")));
    buf_fini(&out);
    assert_int_equal(utf8_columns(SLICE("abc")), 3);
    assert_int_equal(utf8_columns(SLICE("e\xcc\x81")), 1);
    assert_int_equal(utf8_columns(SLICE("\xe6\x97\xa5\xe6\x9c\xac")), 4);
    assert_false(utf8_is_visible(0x200b));
    assert_false(utf8_is_visible(0xffff));
    assert_true(utf8_is_visible(0x20ac));
}

/* --- errors --- */

static void test_errors(void **state)
{
    (void)state;
    assert_int_equal(err_code(ERR_OK), 250);
    for (unsigned i = 0; i < ERR_COUNT; i++) {
        enum err e = (enum err)i;
        int class = err_class(e) == ERR_CLASS_PERMANENT   ? '5'
                    : err_class(e) == ERR_CLASS_TRANSIENT ? '4'
                                                          : '2';
        /* The class, the code and the enhanced code agree, or a bounce would say
         * otherwise. */
        assert_int_equal(err_code(e) / 100, class - '0');
        assert_int_equal(err_status(e)[0], class);
        assert_true(strlen(err_text(e)) > 0 && strlen(err_name(e)) > 0);
    }
}

static void test_random(void **state)
{
    (void)state;
    unsigned seen[7] = {0};
    for (int i = 0; i < 7000; i++)
        seen[random_below(7)]++;
    for (int i = 0; i < 7; i++)
        assert_true(seen[i] > 700 && seen[i] < 1300);
    assert_int_equal(random_below(1), 0);
    assert_true(random_u64() != random_u64());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slice_compare),
        cmocka_unit_test(test_slice_cut),
        cmocka_unit_test(test_slice_u64),
        cmocka_unit_test(test_buf),
        cmocka_unit_test(test_buf_long_printf),
        cmocka_unit_test(test_buf_model),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_ids_round_trip),
        cmocka_unit_test(test_ids_refused),
        cmocka_unit_test(test_ids_are_unique_and_sorted),
        cmocka_unit_test(test_ipaddr),
        cmocka_unit_test(test_netaddr),
        cmocka_unit_test(test_cidr),
        cmocka_unit_test(test_crc32c),
        cmocka_unit_test(test_crc32c_long),
        cmocka_unit_test(test_clock_texts),
        cmocka_unit_test(test_clock_shift),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_utf8_for_people),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
