/* SPDX-License-Identifier: Apache-2.0 */
/* DNS messages and names as bytes, cut at every length and with every byte turned. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "dnsbl/wire.h"

/* ---- making messages ---- */

struct packet {
    unsigned char bytes[65536];
    size_t len;
};

static void put(struct packet *p, const void *bytes, size_t len)
{
    assert_true(len <= sizeof(p->bytes) - p->len);
    memcpy(p->bytes + p->len, bytes, len);
    p->len += len;
}

static void put16(struct packet *p, unsigned v)
{
    put(p, (unsigned char[]){(unsigned char)(v >> 8), (unsigned char)v}, 2);
}

static void put32(struct packet *p, uint32_t v)
{
    put16(p, v >> 16);
    put16(p, v & 0xffff);
}

/* "a.b" uncompressed; "" is the root. */
static void put_name(struct packet *p, const char *name)
{
    while (*name) {
        const char *dot = strchr(name, '.');
        size_t n = dot ? (size_t)(dot - name) : strlen(name);
        put(p, (unsigned char[]){(unsigned char)n}, 1);
        put(p, name, n);
        name += n + (dot != NULL);
    }
    put(p, "", 1);
}

/* NXDOMAIN is rcode 3. The question is for `name`, at offset 12. */
static void begin(struct packet *p, unsigned rcode, const char *name, unsigned type)
{
    p->len = 0;
    put16(p, 1);
    put16(p, 0x8180 | rcode);
    put16(p, 1);
    put16(p, 0);
    put16(p, 0);
    put16(p, 0);
    put_name(p, name);
    put16(p, type);
    put16(p, 1);
}

static void count_rr(struct packet *p, unsigned section)
{
    size_t at = 6 + 2 * section;
    unsigned n = (unsigned)p->bytes[at] << 8 | p->bytes[at + 1];
    n++;
    p->bytes[at] = (unsigned char)(n >> 8);
    p->bytes[at + 1] = (unsigned char)n;
}

/* `owner` NULL: a pointer to the question's name. */
static void put_rr(struct packet *p, unsigned section, const char *owner, unsigned type,
    uint32_t ttl, const void *rdata, size_t len)
{
    count_rr(p, section);
    if (owner)
        put_name(p, owner);
    else
        put16(p, 0xc00c);
    put16(p, type);
    put16(p, 1);
    put32(p, ttl);
    put16(p, (unsigned)len);
    put(p, rdata, len);
}

static size_t wire_name(const char *name, unsigned char *out)
{
    struct packet *p = mem_zalloc(sizeof(*p));
    put_name(p, name);
    size_t len = p->len;
    memcpy(out, p->bytes, len);
    free(p);
    return len;
}

static void put_mx(struct packet *p, unsigned preference, const char *target)
{
    unsigned char rdata[300] = {
        (unsigned char)(preference >> 8), (unsigned char)preference};
    put_rr(p, 0, NULL, DNS_MX, 300, rdata, 2 + wire_name(target, rdata + 2));
}

static void put_cname(
    struct packet *p, const char *owner, const char *target, uint32_t ttl)
{
    unsigned char rdata[300];
    put_rr(p, 0, owner, DNS_CNAME, ttl, rdata, wire_name(target, rdata));
}

static struct dns_answer parse(
    const struct packet *p, const char *name, enum dns_type type, struct arena *arena)
{
    struct dns_answer a = {.why = "", .why_bogus = ""};
    dns_wire_answer(slice_make(p->bytes, p->len), name, type, arena, &a);
    return a;
}

static struct packet packet; /* too big for the stack of a test */

/* ---- names ---- */

static void test_name_check(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out; /* NULL: refused */
    } rows[] = {{"example.org", "example.org"}, {"Example.ORG.", "example.org"},
        {".", ""}, {"", NULL}, {"..", NULL}, {"a..b", NULL}, {".a", NULL}, {"a.", "a"},
        {"_25._tcp.mx", "_25._tcp.mx"},
        {"0/25.2.0.192.in-addr.arpa", "0/25.2.0.192.in-addr.arpa"}, {"a b", NULL},
        {"a*b", NULL}, {"a\\032b", NULL}, {"b\xc3\xbc.de", NULL}, {"a;b", NULL},
        {"[192.0.2.1]", NULL}, {"192.0.2.1", "192.0.2.1"},
        {"xn--bcher-kva.example", "xn--bcher-kva.example"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char out[256] = "untouched";
        bool ok = dns_name_check(slice_str(rows[i].in), out);
        assert_int_equal(ok, rows[i].out != NULL);
        assert_string_equal(out, rows[i].out ? rows[i].out : "untouched");
    }
    assert_false(dns_name_check(slice_make("a\0b", 3), (char[256]){0}));
}

static void test_name_lengths(void **state)
{
    (void)state;
    char text[400], out[256];
    for (size_t label = 1; label < 80; label++) {
        memset(text, 'a', label);
        assert_int_equal(dns_name_check(slice_make(text, label), out), label <= 63);
    }
    for (size_t len = 1; len < 300; len++) {
        for (size_t i = 0; i < len; i++)
            text[i] = i % 2 ? '.' : 'a';
        struct slice name = slice_make(text, len);
        /* An even length ends in a dot, which does not count. */
        assert_int_equal(dns_name_check(name, out), len - (len % 2 == 0) <= 253);
    }
}

static void test_reverse_names(void **state)
{
    (void)state;
    struct ipaddr ip;
    char out[256];
    assert_true(ipaddr_parse(SLICE("192.0.2.25"), &ip));
    dns_reverse_name(ip, out);
    assert_string_equal(out, "25.2.0.192.in-addr.arpa");
    assert_true(ipaddr_parse(SLICE("2001:db8::1"), &ip));
    dns_reverse_name(ip, out);
    assert_string_equal(
        out, "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa");
}

static void test_host_check(void **state)
{
    (void)state;
    assert_true(dns_host_check("mx.example.org"));
    assert_true(dns_host_check("192.0.2.1"));
    assert_false(dns_host_check(""));
    assert_false(dns_host_check("foo\\032bar"));
    assert_false(dns_host_check("0/25.example"));
    assert_false(dns_host_check("*.example"));
}

static bool name_at(
    const unsigned char *bytes, size_t len, size_t at, size_t *end, char *out)
{
    *end = at;
    return dns_wire_name(slice_make(bytes, len), end, out);
}

static void test_wire_names(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len, at, end;
        const char *out; /* NULL: refused */
    } rows[] = {
        {"", 0, 0, 0, NULL},
        {"\0", 1, 0, 1, ""},
        {"\1A\2bc\0", 6, 0, 6, "a.bc"},
        {"\1A\2bc", 5, 0, 0, NULL},
        {"\5abc\0", 5, 0, 0, NULL},
        {"\1a\0\1b\xc0\0", 7, 3, 7, "b.a"},
        {"\1a\0\xc0\0\xc0\3", 7, 5, 7, "a"},
        {"\xc0\0", 2, 0, 0, NULL},              /* to itself */
        {"\1a\0\1b\xc0\3", 7, 3, 0, NULL},      /* to its own start */
        {"\1a\xc0\4\1b\xc0\0", 8, 0, 0, NULL},  /* forwards */
        {"\1a\0\xc0", 4, 3, 0, NULL},           /* half a pointer */
        {"\x41q\0", 3, 0, 0, NULL},             /* label type 01 */
        {"\x80q\0", 3, 0, 0, NULL},             /* label type 10 */
        {"\4a.\0b\0", 6, 0, 6, "a\\046\\000b"}, /* a dot and a NUL inside a label */
        {"\3 \x7f\xff\0", 5, 0, 5, "\\032\\127\\255"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char out[DNS_NAME_TEXT_MAX];
        size_t end;
        bool ok = name_at(
            (const unsigned char *)rows[i].bytes, rows[i].len, rows[i].at, &end, out);
        assert_int_equal(ok, rows[i].out != NULL);
        if (ok) {
            assert_string_equal(out, rows[i].out);
            assert_int_equal(end, rows[i].end);
        } else {
            assert_int_equal(end, rows[i].at); /* nothing is consumed on bad */
        }
    }
}

/* 127 labels of one byte fill 255 bytes; one more is too much. Each byte at its worst,
 * the text is four times as long. */
static void test_longest_names(void **state)
{
    (void)state;
    unsigned char bytes[400];
    char out[DNS_NAME_TEXT_MAX];
    size_t end;
    for (unsigned labels = 1; labels < 140; labels++) {
        for (unsigned i = 0; i < labels; i++) {
            bytes[2 * i] = 1;
            bytes[2 * i + 1] = 0xff;
        }
        bytes[2 * labels] = 0;
        assert_int_equal(name_at(bytes, 2 * labels + 1, 0, &end, out), labels <= 127);
    }
    for (unsigned i = 0; i < 4; i++) {
        bytes[64 * i] = i < 3 ? 63 : 61;
        memset(bytes + 64 * i + 1, 0, 63);
    }
    bytes[254] = 0;
    assert_true(name_at(bytes, 255, 0, &end, out));
    assert_int_equal(strlen(out), (63 * 3 + 61) * 4 + 3);
}

/* A chain of pointers, each to the one before: long, but it ends. */
static void test_pointer_chains(void **state)
{
    (void)state;
    unsigned char *bytes = mem_zalloc(16384);
    char out[DNS_NAME_TEXT_MAX];
    size_t end, at = 3;
    memcpy(bytes, "\1a\0", 3);
    for (size_t target = 0; at + 2 <= 16383; target = at, at += 2) {
        bytes[at] = (unsigned char)(0xc0 | target >> 8);
        bytes[at + 1] = (unsigned char)target;
    }
    assert_true(name_at(bytes, at, at - 2, &end, out));
    assert_string_equal(out, "a");
    free(bytes);
}

/* ---- answers ---- */

static void test_types(void **state)
{
    (void)state;
    struct arena *arena = arena_new(1024);
    struct dns_answer a;
    begin(&packet, 0, "example.org", DNS_A);
    put_rr(&packet, 0, NULL, DNS_A, 60, "\300\0\2\1", 4);
    put_rr(&packet, 0, NULL, DNS_A, 30, "\300\0\2\2", 4);
    a = parse(&packet, "example.org", DNS_A, arena);
    assert_int_equal(a.result, ERR_OK);
    assert_int_equal(a.count, 2);
    assert_int_equal(a.ttl, 30);
    assert_int_equal(a.records[1].ip.bytes[3], 2);
    assert_string_equal(a.canonical, "example.org");

    begin(&packet, 0, "x", DNS_TXT);
    put_rr(&packet, 0, NULL, DNS_TXT, 60, "\3abc\0\2de", 8);
    a = parse(&packet, "x", DNS_TXT, arena);
    assert_true(slice_eq(a.records[0].data, SLICE("abcde")));

    begin(&packet, 0, "x", DNS_TLSA);
    put_rr(&packet, 0, NULL, DNS_TLSA, 60, "\3\1\1hash", 7);
    a = parse(&packet, "x", DNS_TLSA, arena);
    assert_true(slice_eq(a.records[0].data, SLICE("\3\1\1hash")));

    begin(&packet, 0, "x", DNS_MX);
    put_mx(&packet, 10, "mx.example.org");
    put_mx(&packet, 0, "");
    a = parse(&packet, "x", DNS_MX, arena);
    assert_int_equal(a.count, 2);
    assert_string_equal(a.records[0].name, "mx.example.org");
    assert_string_equal(a.records[1].name, "");
    arena_free(arena);
}

static void test_negative(void **state)
{
    (void)state;
    struct arena *arena = arena_new(1024);
    static const unsigned char soa[] = "\0\0" /* two root names */
                                       "\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0\074";
    begin(&packet, 3, "gone", DNS_MX);
    put_rr(&packet, 1, NULL, DNS_SOA, 3600, soa, 22);
    struct dns_answer a = parse(&packet, "gone", DNS_MX, arena);
    assert_int_equal(a.result, ERR_DNS_NXDOMAIN);
    assert_int_equal(a.ttl, 60);
    begin(&packet, 0, "gone", DNS_MX);
    put_rr(&packet, 1, NULL, DNS_SOA, 10, soa, 22);
    a = parse(&packet, "gone", DNS_MX, arena);
    assert_int_equal(a.result, ERR_OK);
    assert_int_equal(a.count, 0);
    assert_int_equal(a.ttl, 10);
    begin(&packet, 2, "gone", DNS_MX);
    assert_int_equal(parse(&packet, "gone", DNS_MX, arena).result, ERR_DNS_SERVFAIL);
    begin(&packet, 5, "gone", DNS_MX);
    assert_int_equal(parse(&packet, "gone", DNS_MX, arena).result, ERR_DNS_SERVFAIL);
    arena_free(arena);
}

static void test_cname_chains(void **state)
{
    (void)state;
    struct arena *arena = arena_new(1024);
    begin(&packet, 0, "a", DNS_A);
    put_rr(&packet, 0, "c", DNS_A, 500, "\300\0\2\1", 4); /* in any order */
    put_cname(&packet, "b", "c", 400);
    put_cname(&packet, "a", "b", 300);
    put_rr(&packet, 0, "other", DNS_A, 5, "\300\0\2\2", 4); /* nobody asked */
    struct dns_answer a = parse(&packet, "a", DNS_A, arena);
    assert_int_equal(a.count, 1);
    assert_int_equal(a.ttl, 300);
    assert_string_equal(a.canonical, "c");
    /* Asked for itself it is not followed. */
    a = parse(&packet, "a", DNS_CNAME, arena);
    assert_int_equal(a.count, 1);
    assert_string_equal(a.records[0].name, "b");
    assert_string_equal(a.canonical, "a");
    begin(&packet, 0, "a", DNS_A);
    put_cname(&packet, "a", "b", 300);
    put_cname(&packet, "b", "a", 300);
    a = parse(&packet, "a", DNS_A, arena);
    assert_int_equal(a.result, ERR_DNS_SERVFAIL);
    assert_string_equal(a.why, "the chain of CNAMEs does not end");
    arena_free(arena);
}

/* A record that cannot be is left out; when none is left that is a failure, not "no
 * record": mail must not go to the domain itself because its MX was garbled. */
static void test_malformed_rdata(void **state)
{
    (void)state;
    static const struct {
        enum dns_type type;
        const char *rdata;
        size_t len;
    } rows[] = {{DNS_A, "\1\2\3", 3}, {DNS_A, "\1\2\3\4\5", 5}, {DNS_A, "", 0},
        {DNS_AAAA, "\1\2\3\4", 4}, {DNS_MX, "\0\1", 2}, {DNS_MX, "\0\1\1a", 4},
        {DNS_MX, "\0\1\1a\0x", 6}, {DNS_MX, "\0\1\xc0\xff", 4}, {DNS_PTR, "", 0},
        {DNS_TXT, "", 0}, {DNS_TXT, "\4abc", 4}, {DNS_TLSA, "\1\1\1", 3},
        {DNS_SOA, "\0\0\0", 3}, {DNS_SOA, "\1a\0\0", 4}};
    struct arena *arena = arena_new(1024);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        begin(&packet, 0, "x", rows[i].type);
        put_rr(&packet, 0, NULL, rows[i].type, 60, rows[i].rdata, rows[i].len);
        struct dns_answer a = parse(&packet, "x", rows[i].type, arena);
        assert_int_equal(a.result, ERR_DNS_SERVFAIL);
        assert_int_equal(a.count, 0);
    }
    begin(&packet, 0, "x", DNS_MX);
    put_rr(&packet, 0, NULL, DNS_MX, 60, "\0", 1);
    put_mx(&packet, 10, "good");
    struct dns_answer a = parse(&packet, "x", DNS_MX, arena);
    assert_int_equal(a.result, ERR_OK);
    assert_int_equal(a.count, 1);
    arena_free(arena);
}

static void test_bounds(void **state)
{
    (void)state;
    struct arena *arena = arena_new(1024);
    begin(&packet, 0, "x", DNS_A);
    for (int i = 0; i < 500; i++)
        put_rr(&packet, 0, NULL, DNS_A, 60, "\300\0\2\1", 4);
    assert_int_equal(parse(&packet, "x", DNS_A, arena).count, 100);
    for (int i = 0; i < 600; i++)
        put_rr(&packet, 0, NULL, DNS_A, 60, "\300\0\2\1", 4);
    assert_int_equal(parse(&packet, "x", DNS_A, arena).result, ERR_DNS_SERVFAIL);
    begin(&packet, 0, "x", DNS_A);
    put_rr(&packet, 0, NULL, DNS_A, 0xffffffff, "\300\0\2\1", 4); /* RFC 2181 8 */
    assert_int_equal(parse(&packet, "x", DNS_A, arena).ttl, 0);
    arena_free(arena);
}

static void whole_answer(void)
{
    static const unsigned char soa[] = "\0\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0\074";
    begin(&packet, 0, "alias.example.org", DNS_MX);
    put_cname(&packet, "alias.example.org", "example.org", 300);
    put_rr(&packet, 0, "example.org", DNS_MX, 60, "\0\012\2mx\xc0\x12", 7);
    put_rr(&packet, 0, "example.org", DNS_MX, 60, "\0\024\3mx2\xc0\x12", 8);
    put_rr(&packet, 1, NULL, DNS_SOA, 3600, soa, 22);
}

static void check_sane(const struct dns_answer *a)
{
    assert_true(a->count <= 100);
    assert_non_null(a->canonical);
    assert_true(strlen(a->canonical) < DNS_NAME_TEXT_MAX);
    assert_true(a->result == ERR_OK || a->count == 0);
    for (unsigned i = 0; i < a->count; i++)
        assert_true(strlen(a->records[i].name) < DNS_NAME_TEXT_MAX);
}

/* In memory of exactly that size, so that the sanitizer sees a step behind the end. */
static void parse_exactly(const unsigned char *bytes, size_t len, enum dns_type type)
{
    struct arena *arena = arena_new(1024);
    unsigned char *copy = mem_alloc(len ? len : 1);
    struct dns_answer a = {.why = "", .why_bogus = ""};
    memcpy(copy, bytes, len);
    dns_wire_answer(slice_make(copy, len), "alias.example.org", type, arena, &a);
    check_sane(&a);
    free(copy);
    arena_free(arena);
}

static void test_cut_anywhere(void **state)
{
    (void)state;
    struct arena *arena = arena_new(1024);
    whole_answer();
    struct dns_answer a = parse(&packet, "alias.example.org", DNS_MX, arena);
    assert_int_equal(a.count, 2);
    assert_string_equal(a.records[1].name, "mx2.example.org");
    for (size_t len = 0; len < packet.len; len++) {
        struct packet *cut = mem_alloc(sizeof(*cut));
        memcpy(cut->bytes, packet.bytes, len);
        cut->len = len;
        assert_int_equal(
            parse(cut, "alias.example.org", DNS_MX, arena).result, ERR_DNS_SERVFAIL);
        free(cut);
        parse_exactly(packet.bytes, len, DNS_MX);
    }
    arena_free(arena);
}

static void test_turn_every_byte(void **state)
{
    (void)state;
    static const enum dns_type types[] = {DNS_MX, DNS_A, DNS_TXT, DNS_SOA, DNS_CNAME};
    whole_answer();
    for (size_t i = 0; i < packet.len; i++)
        for (unsigned value = 0; value < 256; value++) {
            unsigned char before = packet.bytes[i];
            packet.bytes[i] = (unsigned char)value;
            parse_exactly(packet.bytes, packet.len, types[value % 5]);
            packet.bytes[i] = before;
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_name_check),
        cmocka_unit_test(test_name_lengths),
        cmocka_unit_test(test_reverse_names),
        cmocka_unit_test(test_host_check),
        cmocka_unit_test(test_wire_names),
        cmocka_unit_test(test_longest_names),
        cmocka_unit_test(test_pointer_chains),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_negative),
        cmocka_unit_test(test_cname_chains),
        cmocka_unit_test(test_malformed_rdata),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_cut_anywhere),
        cmocka_unit_test(test_turn_every_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
