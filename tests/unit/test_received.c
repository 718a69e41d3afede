/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "node/mail/received.h"

static struct received example(void)
{
    struct received r = {.helo = SLICE("client.example.org"),
        .rdns = SLICE("host1.example.org"),
        .hostname = SLICE("mx1.example.net"),
        .with = "ESMTPS",
        .tls_version = "TLSv1.3",
        .tls_cipher = "TLS_AES_256_GCM_SHA384",
        .for_address = SLICE("bob@example.net"),
        .time = {INT64_C(1795362218123)}};
    ipaddr_parse(SLICE("192.0.2.7"), &r.client);
    msg_id_parse(SLICE("01kaq4a5xg0000000000000001"), &r.id);
    return r;
}

static void expect(const struct received *r, const char *want)
{
    struct buf out;
    buf_init(&out, RECEIVED_MAX);
    assert_true(received_append(&out, r));
    buf_append_char(&out, '\0');
    assert_string_equal(buf_slice(&out).ptr, want);
    buf_fini(&out);
}

static void test_whole(void **state)
{
    (void)state;
    struct received r = example();
    expect(&r, "Received: from client.example.org (host1.example.org [192.0.2.7])\r\n"
               "\tby mx1.example.net with ESMTPS\r\n"
               "\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384)\r\n"
               "\tid 01kaq4a5xg0000000000000001\r\n"
               "\tfor <bob@example.net>;\r\n"
               "\tSun, 22 Nov 2026 15:43:38 +0000 (UTC)\r\n");
}

static void test_bare(void **state)
{
    (void)state;
    struct received r = example();
    r.rdns = r.for_address = SLICE("");
    r.tls_version = NULL;
    r.with = "SMTP";
    ipaddr_parse(SLICE("2001:db8::1"), &r.client);
    expect(&r, "Received: from client.example.org (unknown [IPv6:2001:db8::1])\r\n"
               "\tby mx1.example.net with SMTP\r\n"
               "\tid 01kaq4a5xg0000000000000001;\r\n"
               "\tSun, 22 Nov 2026 15:43:38 +0000 (UTC)\r\n");
}

static void test_local(void **state)
{
    (void)state;
    struct received r = example();
    r.helo = r.for_address = SLICE("");
    r.client.family = 0;
    r.tls_version = NULL;
    r.with = NULL;
    expect(&r, "Received: by mx1.example.net\r\n"
               "\tid 01kaq4a5xg0000000000000001;\r\n"
               "\tSun, 22 Nov 2026 15:43:38 +0000 (UTC)\r\n");
}

/* What a stranger says can neither end the field nor open a comment. */
static void test_hostile(void **state)
{
    (void)state;
    struct received r = example();
    r.helo = SLICE("a\r\nBcc: x (y) \\;");
    r.for_address = SLICE("b\r\n@x");
    r.tls_version = NULL;
    expect(&r, "Received: from a??Bcc:?x??y???? (host1.example.org [192.0.2.7])\r\n"
               "\tby mx1.example.net with ESMTPS\r\n"
               "\tid 01kaq4a5xg0000000000000001;\r\n"
               "\tSun, 22 Nov 2026 15:43:38 +0000 (UTC)\r\n");
}

static void test_no_room(void **state)
{
    (void)state;
    struct received r = example();
    for (size_t max = 0; max < 230; max++) {
        struct buf out;
        buf_init(&out, max);
        assert_false(received_append(&out, &r));
        buf_fini(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_bare),
        cmocka_unit_test(test_local),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_no_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
