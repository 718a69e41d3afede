/* SPDX-License-Identifier: Apache-2.0 */
/* The cache of routes: lifetimes, bounds, sharing, reload and stop. */
#include "tests/unit/route_bench.h"

static void test_cache(void **state)
{
    (void)state;
    struct bench *b = bench_new("");
    struct route *first = route_ref(ask(b, "plain.example"));
    assert_ptr_equal(ask(b, "plain.example"), first);
    assert_int_equal(mx_asked, 1);
    assert_false(route_is_stale(first, mono_now()));
    assert_false(route_is_stale(first, mono_add_ms(mono_now(), 290000)));
    assert_true(route_is_stale(first, mono_add_ms(mono_now(), 301000)));
    router_forget(b->router, SLICE("plain.example"));
    assert_ptr_not_equal(ask(b, "plain.example"), first);
    assert_int_equal(mx_asked, 2);
    route_unref(first);
    /* Bounds of the lifetime. */
    ask(b, "brief.example");
    assert_false(route_is_stale(b->got, mono_add_ms(mono_now(), ROUTE_TTL_MIN_MS - 100)));
    assert_true(route_is_stale(b->got, mono_add_ms(mono_now(), ROUTE_TTL_MIN_MS + 100)));
    ask(b, "bogus.example");
    assert_false(
        route_is_stale(b->got, mono_add_ms(mono_now(), ROUTE_TTL_FAILED_MS - 100)));
    assert_true(
        route_is_stale(b->got, mono_add_ms(mono_now(), ROUTE_TTL_FAILED_MS + 100)));
    bench_free(b);
}

static void test_askers_share_a_lookup(void **state)
{
    (void)state;
    struct bench *b = bench_new("");
    int rule = rule_for(b, "plain.example");
    for (int i = 0; i < 100; i++)
        router_ask(b->router, SLICE("plain.example"), rule, take, b);
    assert_int_equal(b->answers, 0);
    drain(b);
    assert_int_equal(b->answers, 100);
    assert_int_equal(mx_asked, 1);
    bench_free(b);
}

static void test_cache_is_bounded(void **state)
{
    (void)state;
    struct bench *b = bench_new("");
    char domain[32];
    for (unsigned i = 0; i < ROUTE_CACHE_MAX + 500; i++) {
        snprintf(domain, sizeof(domain), "n%u.example", i);
        router_ask(b->router, slice_str(domain), rule_for(b, domain), take, b);
        assert_true(router_pending(b->router) <= ROUTE_LOOKUPS_MAX);
    }
    drain(b);
    assert_int_equal(b->answers, ROUTE_CACHE_MAX + 500);
    unsigned asked = mx_asked;
    ask(b, domain); /* the last: there */
    assert_int_equal(mx_asked, asked);
    ask(b, "n0.example"); /* the first: gone */
    assert_int_equal(mx_asked, asked + 1);
    bench_free(b);
}

static void test_reload_and_stop(void **state)
{
    (void)state;
    struct bench *b = bench_new("");
    int rule = rule_for(b, "plain.example");
    router_ask(b->router, SLICE("plain.example"), rule, take, b);
    struct settings *s = settings_of(BASE_SETTINGS);
    router_reload(b->router, s); /* under way: ends all the same */
    settings_unref(s);
    drain(b);
    assert_int_equal(b->answers, 1);
    assert_hops(b->got, "a.example:25 b.example:25");
    ask(b, "plain.example"); /* was not kept */
    assert_int_equal(mx_asked, 2);
    router_ask(b->router, SLICE("equal.example"), rule, take, b);
    router_stop(b->router);
    assert_failure(b->got, ERR_SHUTTING_DOWN);
    router_ask(b->router, SLICE("plain.example"), rule, take, b);
    assert_failure(b->got, ERR_SHUTTING_DOWN);
    assert_int_equal(router_pending(b->router), 1);
    bench_free(b);
}

static void ask_from_within(struct route *route, void *ctx)
{
    struct bench *b = ctx;
    take(route, ctx);
    if (b->answers < 5)
        router_ask(b->router, SLICE("twin.example"), rule_for(b, "twin.example"),
            ask_from_within, b);
}

static void test_asking_from_an_answer(void **state)
{
    (void)state;
    struct bench *b = bench_new("");
    router_ask(b->router, SLICE("plain.example"), rule_for(b, "plain.example"),
        ask_from_within, b);
    drain(b);
    assert_int_equal(b->answers, 5);
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_askers_share_a_lookup),
        cmocka_unit_test(test_cache_is_bounded),
        cmocka_unit_test(test_reload_and_stop),
        cmocka_unit_test(test_asking_from_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
