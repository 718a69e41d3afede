/* SPDX-License-Identifier: Apache-2.0 */
/* What the resolver makes of answers, of what libunbound prints, and of trust anchor
 * files; no DNS server is asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "dnsbl/resolver_internal.h"

/* ---- MX ---- */

static struct mx_set mx_of(struct arena *arena, struct dns_answer a)
{
    struct mx_set set;
    if (!a.canonical)
        a.canonical = "example.org";
    if (!a.why)
        a.why = a.result ? "MX of example.org: the table says so" : "";
    resolver_mx_from_answer("example.org", &a, arena, &set);
    assert_int_equal(set.why[0] != '\0', set.result != ERR_OK);
    assert_int_equal(set.count > 0, set.result == ERR_OK);
    return set;
}

static void test_mx(void **state)
{
    (void)state;
    struct arena *arena = arena_new(1024);
    struct dns_record r[] = {{.preference = 20, .name = "b"},
        {.preference = 10, .name = "a"}, {.preference = 5, .name = "b"},
        {.preference = 1, .name = ""}, {.preference = 2, .name = "bad\\032name"}};
    struct mx_set set =
        mx_of(arena, (struct dns_answer){.count = 5, .records = r, .ttl = 7});
    assert_int_equal(set.count, 2);
    assert_string_equal(
        set.hosts[0].name, "b"); /* twice there: by its better preference */
    assert_int_equal(set.hosts[0].preference, 5);
    assert_string_equal(set.hosts[1].name, "a");
    assert_int_equal(set.ttl, 7);
    set = mx_of(arena, (struct dns_answer){.count = 1, .records = &r[3]});
    assert_int_equal(set.result, ERR_DNS_NULL_MX);
    set = mx_of(arena, (struct dns_answer){.count = 1, .records = &r[4]});
    assert_int_equal(set.result, ERR_DNS_NO_ADDRESS);
    set = mx_of(arena, (struct dns_answer){.canonical = "real.example"});
    assert_string_equal(set.hosts[0].name, "real.example");
    assert_true(set.hosts[0].implicit);
    set = mx_of(arena, (struct dns_answer){.canonical = ""}); /* a CNAME to the root */
    assert_int_equal(set.result, ERR_DNS_NO_ADDRESS);
    set = mx_of(arena,
        (struct dns_answer){.result = ERR_DNS_BOGUS, .security = DNS_BOGUS_ANSWER});
    assert_int_equal(set.result, ERR_DNS_BOGUS);
    assert_int_equal(set.security, DNS_BOGUS_ANSWER);
    arena_free(arena);
}

static void test_mx_bounds(void **state)
{
    (void)state;
    struct arena *arena = arena_new(1024);
    struct dns_record r[100];
    for (unsigned i = 0; i < 100; i++)
        r[i] = (struct dns_record){.preference = (uint16_t)(i % 60 == 59 ? 0 : 100),
            .name = arena_printf(arena, "h%u", i).ptr};
    struct mx_set set = mx_of(arena, (struct dns_answer){.count = 100, .records = r});
    assert_int_equal(set.count, 50);
    assert_string_equal(set.hosts[0].name, "h59"); /* the best is among them */
    for (unsigned i = 1; i < 50; i++)
        assert_true(set.hosts[i - 1].preference <= set.hosts[i].preference);
    arena_free(arena);
}

/* ---- addresses ---- */

static struct dns_record four[] = {{.name = "", .ip = {4, {192, 0, 2, 1}}},
    {.name = "", .ip = {4, {192, 0, 2, 2}}}, {.name = "", .ip = {4, {192, 0, 2, 3}}}};
static struct dns_record six[] = {{.name = "", .ip = {6, {0x20, 1}}}};

static struct host_query host(
    bool want4, struct dns_answer v4, bool want6, struct dns_answer v6)
{
    struct host_query q = {.name = "h.example", .want_v4 = want4, .want_v6 = want6};
    q.v4.answer = v4;
    q.v6.answer = v6;
    q.v4.answer.why = v4.result ? "A of h.example: failed" : "";
    q.v6.answer.why = v6.result ? "AAAA of h.example: failed" : "";
    resolver_host_from_answers(&q);
    return q;
}

static const struct dns_answer some4 = {
    .count = 3, .records = four, .ttl = 50, .security = DNS_SECURE};
static const struct dns_answer some6 = {
    .count = 1, .records = six, .ttl = 40, .security = DNS_SECURE};
static const struct dns_answer none = {.ttl = 60};

static struct dns_answer failed(enum err result)
{
    return (struct dns_answer){.result = result,
        .security = result == ERR_DNS_BOGUS ? DNS_BOGUS_ANSWER : DNS_INSECURE};
}

static void test_host_found(void **state)
{
    (void)state;
    struct host_query q = host(true, some4, true, some6);
    assert_int_equal(q.found.result, ERR_OK);
    assert_int_equal(q.found.count, 4);
    assert_int_equal(q.found.ips[0].family, 6);
    assert_int_equal(q.found.ips[1].family, 4);
    assert_int_equal(q.found.security, DNS_SECURE);
    assert_int_equal(q.found.ttl, 40);
    assert_string_equal(q.why_text, "");
    struct dns_answer plain = some6;
    plain.security = DNS_INSECURE;
    assert_int_equal(host(true, some4, true, plain).found.security, DNS_INSECURE);
    q = host(true, some4, true, failed(ERR_DNS_BOGUS));
    assert_int_equal(q.found.result, ERR_OK);
    assert_int_equal(q.found.security, DNS_SECURE);
    assert_non_null(strstr(q.why_text, "AAAA of h.example"));
    q = host(true, some4, true, none); /* nothing is wrong with that */
    assert_string_equal(q.why_text, "");
    q = host(false, none, true, some6);
    assert_int_equal(q.found.count, 1);
}

static void test_host_not_found(void **state)
{
    (void)state;
    static const struct {
        enum err v4, v6, result;
    } rows[] = {
        {ERR_OK, ERR_OK, ERR_DNS_NO_ADDRESS},
        {ERR_DNS_NXDOMAIN, ERR_DNS_NXDOMAIN, ERR_DNS_NXDOMAIN},
        {ERR_DNS_NXDOMAIN, ERR_OK, ERR_DNS_NO_ADDRESS},
        {ERR_OK, ERR_DNS_SERVFAIL, ERR_DNS_SERVFAIL},
        {ERR_DNS_SERVFAIL, ERR_DNS_NXDOMAIN, ERR_DNS_SERVFAIL},
        {ERR_DNS_TIMEOUT, ERR_DNS_BOGUS, ERR_DNS_BOGUS},
        {ERR_DNS_TIMEOUT, ERR_OK, ERR_DNS_TIMEOUT},
        {ERR_OVERLOADED, ERR_OK, ERR_OVERLOADED},
        {ERR_DNS_BAD_NAME, ERR_DNS_BAD_NAME, ERR_DNS_BAD_NAME},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct host_query q = host(true, failed(rows[i].v4), true, failed(rows[i].v6));
        assert_int_equal(q.found.result, rows[i].result);
        assert_int_equal(q.found.count, 0);
        assert_true(strlen(q.why_text) > 0);
        assert_int_equal(
            q.found.security == DNS_BOGUS_ANSWER, q.found.result == ERR_DNS_BOGUS);
    }
}

static void test_host_bounds(void **state)
{
    (void)state;
    struct dns_record many4[60], many6[60];
    for (unsigned i = 0; i < 60; i++) {
        many4[i] = (struct dns_record){.name = "", .ip = {4, {10, 0, 0, (uint8_t)i}}};
        many6[i] = (struct dns_record){.name = "", .ip = {6, {0x20, (uint8_t)i}}};
    }
    struct dns_answer v4 = {.count = 60, .records = many4};
    struct dns_answer v6 = {.count = 60, .records = many6};
    struct host_query q = host(true, v4, true, v6);
    assert_int_equal(q.found.count, 32);
    unsigned of4 = 0;
    for (unsigned i = 0; i < 32; i++)
        of4 += q.found.ips[i].family == 4;
    assert_int_equal(of4, 16); /* neither family pushes the other out */
    assert_int_equal(host(true, v4, true, none).found.count, 32);
}

/* ---- what libunbound prints ---- */

static void test_reasons(void **state)
{
    (void)state;
    struct resolver_log *log = mem_zalloc(sizeof(*log));
    resolver_log_line(log,
        "[17] libunbound[5:0] error: SERVFAIL <a.example. MX IN>: all the "
        "servers failed");
    assert_string_equal(
        resolver_log_reason(log, "a.example", DNS_MX), "all the servers failed");
    assert_string_equal(resolver_log_reason(log, "a.example", DNS_A), "");
    /* Out of the cache, without a reason: the old one stays. */
    resolver_log_line(log,
        "[17] libunbound[5:0] error: SERVFAIL <a.example. MX IN>: SERVFAIL in cache");
    assert_string_equal(
        resolver_log_reason(log, "a.example", DNS_MX), "all the servers failed");
    resolver_log_line(
        log, "[17] libunbound[5:0] info: validation failure <b.example. A IN>: expired");
    assert_string_equal(resolver_log_reason(log, "b.example", DNS_A), "expired");
    /* Bounded: the oldest go. */
    for (int i = 0; i < 2 * REASONS_MAX; i++) {
        char line[100];
        snprintf(line, sizeof(line), "SERVFAIL <n%d. A IN>: r%d", i, i);
        resolver_log_line(log, line);
    }
    assert_string_equal(resolver_log_reason(log, "a.example", DNS_MX), "");
    assert_string_equal(resolver_log_reason(log, "n127", DNS_A), "r127");
    /* Hostile or odd lines do no harm. */
    resolver_log_line(log, "SERVFAIL <");
    resolver_log_line(log, "SERVFAIL <>: ");
    resolver_log_line(log, "");
    assert_string_equal(
        resolver_log_shorten("validation failure <a. MX IN>: signature expired"),
        "signature expired");
    assert_string_equal(resolver_log_shorten("other"), "other");
    free(log);
}

/* ---- the self-test's verdicts ---- */

static void test_judge(void **state)
{
    (void)state;
    static const struct {
        enum probe_kind kind;
        bool answered;
        enum dns_security security;
        enum resolver_health want;
    } rows[] = {
        {PROBE_ANCHOR, false, DNS_INSECURE, RESOLVER_UNTESTED},
        {PROBE_ANCHOR, true, DNS_SECURE, RESOLVER_VALIDATES},
        {PROBE_ANCHOR, true, DNS_INSECURE, RESOLVER_FAILED},
        {PROBE_ANCHOR, true, DNS_BOGUS_ANSWER, RESOLVER_FAILED},
        {PROBE_WRONG_ANCHOR, false, DNS_INSECURE, RESOLVER_UNTESTED},
        {PROBE_WRONG_ANCHOR, true, DNS_SECURE, RESOLVER_FAILED},
        {PROBE_WRONG_ANCHOR, true, DNS_INSECURE, RESOLVER_FAILED},
        {PROBE_WRONG_ANCHOR, true, DNS_BOGUS_ANSWER, RESOLVER_VALIDATES},
        {PROBE_BOGUS_NAME, true, DNS_SECURE, RESOLVER_FAILED},
        {PROBE_BOGUS_NAME, true, DNS_INSECURE, RESOLVER_FAILED},
        {PROBE_BOGUS_NAME, true, DNS_BOGUS_ANSWER, RESOLVER_VALIDATES},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[WHY_MAX];
        enum resolver_health got = resolver_test_judge(rows[i].kind, "zone.example",
            rows[i].answered, rows[i].security, "why", text);
        assert_int_equal(got, rows[i].want);
        assert_int_equal(text[0] != '\0', got == RESOLVER_FAILED);
        assert_int_equal(strstr(text, "zone.example") != NULL, got == RESOLVER_FAILED);
    }
}

static void test_verdict(void **state)
{
    (void)state;
    enum { U = RESOLVER_UNTESTED, V = RESOLVER_VALIDATES, F = RESOLVER_FAILED };
    /* two anchors, the wrong anchor, the bogus name */
    static const int rows[][5] = {{V, V, V, V, V}, {V, U, V, V, V}, {U, U, V, V, U},
        {V, V, U, V, U}, {V, V, V, U, V}, {V, F, V, V, F}, {V, V, F, V, F},
        {V, V, V, F, F}, {U, U, U, U, U}, {U, U, U, F, F}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct probe probes[4] = {{.kind = PROBE_ANCHOR}, {.kind = PROBE_ANCHOR},
            {.kind = PROBE_WRONG_ANCHOR}, {.kind = PROBE_BOGUS_NAME}};
        for (int j = 0; j < 4; j++)
            probes[j].verdict = (enum resolver_health)rows[i][j];
        assert_int_equal(resolver_test_verdict(probes, 4), rows[i][4]);
    }
}

/* ---- settings and anchors ---- */

struct room {
    char dir[64];
    char anchor[80];
    struct settings settings;
};

static int room_setup(void **state)
{
    struct room *room = mem_zalloc(sizeof(*room));
    snprintf(room->dir, sizeof(room->dir), "/var/tmp/baton-resolver-XXXXXX");
    assert_non_null(mkdtemp(room->dir));
    snprintf(room->anchor, sizeof(room->anchor), "%s/source", room->dir);
    room->settings.data_dir = room->dir;
    room->settings.resolver.trust_anchor = room->anchor;
    room->settings.resolver.bogus_test = "";
    room->settings.resolver.dnssec = true;
    room->settings.resolver.cache_bytes = 1 << 20;
    *state = room;
    return 0;
}

static int room_teardown(void **state)
{
    static const char *const files[] = {
        "source", "root.key", "corp.example.key", "trust-anchor.source"};
    struct room *room = *state;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        char path[128];
        snprintf(path, sizeof(path), "%s/%s", room->dir, files[i]);
        unlink(path);
    }
    int failed_to_remove = rmdir(room->dir);
    free(room);
    return failed_to_remove;
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static const char *read_text(const struct room *room, const char *name)
{
    static char text[4096];
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", room->dir, name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
    fclose(f);
    return text;
}

#define ROOT_DS                                                                          \
    ". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D"

static void test_anchors_by_zone(void **state)
{
    struct room *room = *state;
    char why[WHY_MAX];
    write_text(room->anchor, "; a comment ( with a parenthesis\n" ROOT_DS "\n\n"
                             "Corp.Example. 3600 IN DNSKEY ( 257 3 13 ; in\n"
                             "  abcd )\n"
                             "corp.example. DS 1 13 2 00 ;;state=2 [  VALID  ]\n");
    struct resolver_config *c = resolver_config_new(&room->settings, why, sizeof(why));
    assert_non_null(c);
    assert_int_equal(c->anchor_count, 2);
    assert_string_equal(c->anchors[0].zone, "");
    assert_string_equal(c->anchors[1].zone, "corp.example");
    assert_string_equal(read_text(room, "root.key"), ROOT_DS "\n");
    const char *corp = read_text(room, "corp.example.key");
    assert_non_null(strstr(corp, "abcd )\n"));
    assert_non_null(strstr(corp, ";;state=2"));
    assert_null(strstr(corp, "20326"));
    resolver_config_free(c);
}

static void test_copy_leads(void **state)
{
    struct room *room = *state;
    char why[WHY_MAX], path[128];
    write_text(room->anchor, ROOT_DS "\n");
    resolver_config_free(resolver_config_new(&room->settings, why, sizeof(why)));
    snprintf(path, sizeof(path), "%s/root.key", room->dir);
    write_text(path, "rolled\n"); /* as RFC 5011 would */
    resolver_config_free(resolver_config_new(&room->settings, why, sizeof(why)));
    assert_string_equal(read_text(room, "root.key"), "rolled\n");
    write_text(room->anchor, "; newer\n" ROOT_DS "\n");
    resolver_config_free(resolver_config_new(&room->settings, why, sizeof(why)));
    assert_string_equal(read_text(room, "root.key"), ROOT_DS "\n");
    write_text(path, "");
    resolver_config_free(resolver_config_new(&room->settings, why, sizeof(why)));
    assert_string_equal(read_text(room, "root.key"), ROOT_DS "\n");
}

static void test_bad_anchors(void **state)
{
    struct room *room = *state;
    static const char *const bad[] = {"", "\n\n", "; only\n", "example. A 192.0.2.1\n",
        "a..b. DS 1 2 3 4\n", "../x. DS 1 2 3 4\n", "a/b. DS 1 2 3 4\n", " DS 1 2 3 4\n",
        "((((", "$ORIGIN . DS\n"};
    char why[WHY_MAX];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        write_text(room->anchor, bad[i]);
        why[0] = '\0';
        assert_null(resolver_config_new(&room->settings, why, sizeof(why)));
        assert_non_null(strstr(why, room->anchor));
    }
    unlink(room->anchor);
    assert_null(resolver_config_new(&room->settings, why, sizeof(why)));
    assert_non_null(strstr(why, "No such file"));
    room->settings.resolver.dnssec = false;
    struct resolver_config *c = resolver_config_new(&room->settings, why, sizeof(why));
    assert_non_null(c);
    resolver_config_free(c);
}

static void test_conflicts_and_names(void **state)
{
    struct room *room = *state;
    char why[WHY_MAX];
    const char *insecure[] = {"Corp.Example."};
    struct stub_settings stub = {.zone = "corp.example", .insecure = true};
    write_text(room->anchor, "corp.example. DS 1 13 2 00\n");
    room->settings.resolver.insecure = (struct text_list){insecure, 1};
    assert_null(resolver_config_new(&room->settings, why, sizeof(why)));
    assert_non_null(strstr(why, "zone corp.example is insecure and has a trust anchor"));
    room->settings.resolver.insecure.count = 0;
    room->settings.resolver.stubs = &stub;
    room->settings.resolver.stub_count = 1;
    assert_null(resolver_config_new(&room->settings, why, sizeof(why)));
    stub = (struct stub_settings){.zone = "bad zone"};
    assert_null(resolver_config_new(&room->settings, why, sizeof(why)));
    assert_non_null(strstr(why, "'bad zone' is not a domain name"));
    stub.zone = "fine";
    struct resolver_config *a = resolver_config_new(&room->settings, why, sizeof(why));
    struct resolver_config *b = resolver_config_new(&room->settings, why, sizeof(why));
    assert_true(resolver_config_same(a, b));
    resolver_config_free(b);
    stub.address.port = 5353;
    b = resolver_config_new(&room->settings, why, sizeof(why));
    assert_false(resolver_config_same(a, b));
    resolver_config_free(a);
    resolver_config_free(b);
}

static void test_texts(void **state)
{
    (void)state;
    enum dns_type type;
    assert_true(dns_type_parse(SLICE("aaaa"), &type));
    assert_int_equal(type, DNS_AAAA);
    assert_string_equal(dns_type_name(type), "AAAA");
    assert_false(dns_type_parse(SLICE("ANY"), &type));
    assert_string_equal(dns_security_name(DNS_BOGUS_ANSWER), "bogus");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mx),
        cmocka_unit_test(test_mx_bounds),
        cmocka_unit_test(test_host_found),
        cmocka_unit_test(test_host_not_found),
        cmocka_unit_test(test_host_bounds),
        cmocka_unit_test(test_reasons),
        cmocka_unit_test(test_judge),
        cmocka_unit_test(test_verdict),
        cmocka_unit_test_setup_teardown(test_anchors_by_zone, room_setup, room_teardown),
        cmocka_unit_test_setup_teardown(test_copy_leads, room_setup, room_teardown),
        cmocka_unit_test_setup_teardown(test_bad_anchors, room_setup, room_teardown),
        cmocka_unit_test_setup_teardown(
            test_conflicts_and_names, room_setup, room_teardown),
        cmocka_unit_test(test_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
