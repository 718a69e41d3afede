/* SPDX-License-Identifier: Apache-2.0 */
/* Counters per client: limits at their edges, keys, eviction, many threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants those first */
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>

#include "node/intake/clients.h"

static struct ipaddr ip(const char *text)
{
    struct ipaddr out;
    assert_true(ipaddr_parse(slice_str(text), &out));
    return out;
}

static const struct clients_limits limits = {
    .connections = 5, .per_client = 2, .rate = {1000, 1000}};

static const struct mono t0 = {NS_PER_S};

static void connections_at_once(void **state)
{
    struct clients *all = clients_new(100);
    (void)state;
    assert_int_equal(
        clients_connect(all, ip("192.0.2.1"), &limits, false, t0), CLIENTS_OK);
    assert_int_equal(
        clients_connect(all, ip("192.0.2.1"), &limits, false, t0), CLIENTS_OK);
    assert_int_equal(
        clients_connect(all, ip("192.0.2.1"), &limits, false, t0), CLIENTS_TOO_MANY);
    assert_int_equal(clients_connect(all, ip("::ffff:192.0.2.1"), &limits, false, t0),
        CLIENTS_TOO_MANY);
    assert_int_equal(
        clients_connect(all, ip("192.0.2.1"), &limits, true, t0), CLIENTS_OK);
    assert_int_equal(clients_open_of(all, ip("192.0.2.1")), 3);
    clients_disconnect(all, ip("192.0.2.1"), t0);
    clients_disconnect(all, ip("192.0.2.1"), t0);
    assert_int_equal(
        clients_connect(all, ip("192.0.2.1"), &limits, false, t0), CLIENTS_OK);
    assert_int_equal(clients_open(all), 2);
    clients_free(all);
}

static void ipv6_counts_by_64(void **state)
{
    struct clients *all = clients_new(100);
    (void)state;
    assert_int_equal(
        clients_connect(all, ip("2001:db8::1"), &limits, false, t0), CLIENTS_OK);
    assert_int_equal(
        clients_connect(all, ip("2001:db8::2:3:4:5"), &limits, false, t0), CLIENTS_OK);
    assert_int_equal(
        clients_connect(all, ip("2001:db8::9"), &limits, false, t0), CLIENTS_TOO_MANY);
    assert_int_equal(
        clients_connect(all, ip("2001:db8:0:1::9"), &limits, false, t0), CLIENTS_OK);
    clients_free(all);
}

static void all_together(void **state)
{
    struct clients *all = clients_new(100);
    char text[32];
    (void)state;
    for (int i = 0; i < 5; i++) {
        snprintf(text, sizeof(text), "192.0.2.%d", i);
        assert_int_equal(clients_connect(all, ip(text), &limits, false, t0), CLIENTS_OK);
    }
    assert_int_equal(
        clients_connect(all, ip("192.0.2.9"), &limits, false, t0), CLIENTS_FULL);
    assert_int_equal(
        clients_connect(all, ip("192.0.2.9"), &limits, true, t0), CLIENTS_FULL);
    clients_disconnect(all, ip("192.0.2.0"), t0);
    assert_int_equal(
        clients_connect(all, ip("192.0.2.9"), &limits, false, t0), CLIENTS_OK);
    clients_free(all);
}

static void connection_rate(void **state)
{
    struct clients *all = clients_new(100);
    struct clients_limits slow = {
        .connections = 100, .per_client = 100, .rate = {3, 60000}};
    struct ipaddr a = ip("192.0.2.1");
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(clients_connect(all, a, &slow, false, t0), CLIENTS_OK);
        clients_disconnect(all, a, t0);
    }
    assert_int_equal(clients_connect(all, a, &slow, false, t0), CLIENTS_TOO_FAST);
    assert_int_equal(
        clients_connect(all, a, &slow, false, mono_add_ms(t0, 19999)), CLIENTS_TOO_FAST);
    assert_int_equal(
        clients_connect(all, a, &slow, false, mono_add_ms(t0, 20000)), CLIENTS_OK);
    assert_int_equal(
        clients_connect(all, a, &slow, false, mono_add_ms(t0, 20001)), CLIENTS_TOO_FAST);
    assert_int_equal(clients_connect(all, a, &slow, true, t0), CLIENTS_OK);
    assert_int_equal(clients_open(all), 2);
    clients_free(all);
}

static void wrong_passwords(void **state)
{
    struct clients *all = clients_new(100);
    struct ipaddr a = ip("192.0.2.1"), b = ip("192.0.2.2");
    struct slice joe = SLICE("joe"), jane = SLICE("jane");
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_true(clients_may_authenticate(all, a, joe, 3, t0));
        clients_auth_failed(all, a, joe, 3, t0);
    }
    assert_false(clients_address_may_authenticate(all, a, 3, t0));
    assert_false(clients_may_authenticate(all, a, jane, 3, t0)); /* by address */
    assert_false(clients_may_authenticate(all, b, joe, 3, t0));  /* by user */
    assert_true(clients_may_authenticate(all, b, jane, 3, t0));
    assert_true(clients_may_authenticate(all, a, jane, 3, mono_add_ms(t0, 20000)));
    assert_true(clients_may_authenticate(all, b, joe, 3, mono_add_ms(t0, 20000)));
    clients_free(all);
}

static void memory_is_bounded(void **state)
{
    struct clients *all = clients_new(640);
    struct clients_limits many = {
        .connections = 100000, .per_client = 10, .rate = {1000, 1000}};
    struct ipaddr stays = ip("198.51.100.1");
    (void)state;
    assert_int_equal(clients_connect(all, stays, &many, false, t0), CLIENTS_OK);
    for (unsigned i = 0; i < 20000; i++) {
        struct ipaddr a = {.family = 4, .bytes = {10, (uint8_t)(i >> 8), (uint8_t)i}};
        assert_int_equal(clients_connect(all, a, &many, false, t0), CLIENTS_OK);
        clients_disconnect(all, a, t0);
    }
    assert_true(clients_entries(all) <= 640 + 64 + 1);
    assert_int_equal(clients_open_of(all, stays), 1); /* open ones are never forgotten */
    clients_free(all);
}

static void *hammer(void *arg)
{
    struct clients_limits many = {
        .connections = 100000, .per_client = 100000, .rate = {1000000000, 1000}};
    struct clients *all = arg;
    for (unsigned i = 0; i < 20000; i++) {
        struct ipaddr a = {.family = 4, .bytes = {10, 0, 0, (uint8_t)(i % 50)}};
        if (clients_connect(all, a, &many, true, t0) != CLIENTS_OK)
            return all;
        clients_disconnect(all, a, t0);
    }
    return NULL;
}

static void threads_agree(void **state)
{
    struct clients *all = clients_new(100);
    pthread_t ids[4];
    (void)state;
    for (int i = 0; i < 4; i++)
        pthread_create(&ids[i], NULL, hammer, all);
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(ids[i], &failed);
        assert_null(failed);
    }
    assert_int_equal(clients_open(all), 0);
    clients_free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connections_at_once),
        cmocka_unit_test(ipv6_counts_by_64),
        cmocka_unit_test(all_together),
        cmocka_unit_test(connection_rate),
        cmocka_unit_test(wrong_passwords),
        cmocka_unit_test(memory_is_bounded),
        cmocka_unit_test(threads_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
