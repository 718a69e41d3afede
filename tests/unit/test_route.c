/* SPDX-License-Identifier: Apache-2.0 */
/* Routing against a resolver of tables: rules, RFC 5321 5.1, who we are. */
#include "tests/unit/route_bench.h"

/* ---- DNS ---- */

static void test_outcomes(void **state)
{
    (void)state;
    static const struct {
        const char *domain;
        enum err result;
        const char *hops;
    } rows[] = {
        {"plain.example", ERR_OK, "a.example:25 b.example:25"},
        {"implicit.example", ERR_OK, "implicit.example:25"},
        {"null.example", ERR_DNS_NULL_MX, ""},
        {"nx.example", ERR_DNS_NXDOMAIN, ""},
        {"bogus.example", ERR_DNS_BOGUS, ""},
        {"shut.example", ERR_OVERLOADED, ""},
        {"ours.example", ERR_MAIL_LOOP, ""},
        {"second.example", ERR_OK, "a.example:25"},
        {"byaddress.example", ERR_MAIL_LOOP, ""},
        {"later.example", ERR_OK, "a.example:25 natted.example:25 b.example:25"},
        {"lost.example", ERR_DNS_NO_ADDRESS, ""},
        {"sick.example", ERR_DNS_SERVFAIL, ""},
        {"half.example", ERR_OK, "sick-host.example:25 b.example:25"},
        {"multicast.example", ERR_NO_USABLE_ADDRESS, ""},
        {"[192.0.2.55]", ERR_OK, "[192.0.2.55]:25"},
        {"[IPv6:2001:db8::5]", ERR_OK, "[IPv6:2001:db8::5]:25"},
        {"[203.0.113.9]", ERR_MAIL_LOOP, ""},
        {"[127.0.0.5]", ERR_MAIL_LOOP, ""},
        {"[224.0.0.1]", ERR_NO_USABLE_ADDRESS, ""},
        {"[nonsense]", ERR_ADDRESS_LITERAL_BAD, ""},
    };
    struct bench *b = bench_new("");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct route *route = ask(b, rows[i].domain);
        print_message("%s: %s %s\n", rows[i].domain, err_name(route_result(route)),
            route_why(route));
        if (rows[i].result == ERR_OK)
            assert_hops(route, rows[i].hops);
        else
            assert_failure(route, rows[i].result);
    }
    bench_free(b);
}

/* Of a relay domain only hosts better than any of us are tried, even when it takes the
 * addresses of a later group to know that. */
static void test_relay_domain(void **state)
{
    (void)state;
    struct bench *b =
        bench_new("relay_domains:\n"
                  "  - {domain: later.example, next_hop: mx, recipients: any}\n"
                  "  - {domain: ours.example, next_hop: mx, recipients: any}\n"
                  "  - {domain: .under.example, next_hop: [\"[192.0.2.40]:2500\"], "
                  "recipients: any}\n"
                  "routes:\n"
                  "  - {domain: \"*\", next_hop: [\"[192.0.2.41]:26\"], tls: encrypt}\n"
                  "  - {domain: later.example, tls: verify}\n");
    assert_hops(ask(b, "later.example"), "a.example:25");
    assert_int_equal(route_tls(b->got), DELIVERY_TLS_VERIFY);
    assert_failure(ask(b, "ours.example"), ERR_MAIL_LOOP);
    assert_hops(ask(b, "x.under.example"), "[192.0.2.40]:2500");
    assert_int_equal(route_tls(b->got), DELIVERY_TLS_MAY); /* not that of another's hop */
    assert_hops(ask(b, "under.example"), "[192.0.2.41]:26");
    assert_int_equal(route_tls(b->got), DELIVERY_TLS_ENCRYPT);
    bench_free(b);
}

static void test_lookup_of_hops(void **state)
{
    (void)state;
    struct bench *b = bench_new("");
    struct route_lookup l = {.reply_to = loop_mailbox(b->loop)};
    struct route *route = ask(b, "later.example");
    assert_true(route_addresses(route, 0, &l)); /* the best group is known */
    assert_int_equal(l.result, ERR_OK);
    assert_int_equal(l.count, 2);
    assert_int_equal(l.addresses[0].ip.family, 6);
    assert_int_equal(l.addresses[1].port, 25);
    bench_free(b);
}

static struct route_lookup *answered;

static void lookup_done(struct route_lookup *l, void *owner)
{
    (void)owner;
    answered = l;
}

static void test_late_lookup(void **state)
{
    (void)state;
    struct bench *b = bench_new("");
    struct route_lookup l = {.reply_to = loop_mailbox(b->loop), .done = lookup_done};
    struct route *route = route_ref(ask(b, "later.example"));
    assert_false(route_addresses(route, 2, &l));
    drain(b);
    assert_ptr_equal(answered, &l);
    assert_int_equal(l.result, ERR_OK);
    assert_int_equal(l.count, 1);
    assert_false(route_addresses(route, 1, &l)); /* us, by address */
    route_unref(route);                          /* the lookup keeps it */
    drain(b);
    assert_int_equal(l.result, ERR_MAIL_LOOP);
    assert_true(strlen(l.why) > 0);
    bench_free(b);
}

static void test_same_asker_same_order(void **state)
{
    (void)state;
    struct bench *b =
        bench_new("routes:\n  - {domain: \"*\", next_hop: [\"a.example:25\"]}\n");
    struct route *route = ask(b, "x.example");
    struct route_lookup l = {0}, again;
    assert_true(route_addresses(route, 0, &l));
    again = l;
    for (int i = 0; i < 10; i++) {
        assert_true(route_addresses(route, 0, &l));
        assert_memory_equal(
            l.addresses, again.addresses, sizeof(l.addresses[0]) * l.count);
    }
    bench_free(b);
}

static void test_order_is_shuffled(void **state)
{
    (void)state;
    struct bench *b = bench_new("");
    struct route *route = ask(b, "equal.example");
    unsigned first[4] = {0};
    for (int i = 0; i < 400; i++) {
        uint8_t order[ROUTE_HOPS_MAX];
        unsigned seen = 0;
        route_order(route, order);
        for (int j = 0; j < 4; j++)
            seen |= 1u << order[j];
        assert_int_equal(seen, 15);
        assert_int_equal(order[3], 3);
        first[order[0]]++;
    }
    assert_true(first[0] > 40 && first[1] > 40 && first[2] > 40);
    bench_free(b);
}

/* Tenants of one provider share, whatever the order of their MX. */
static void test_destination_key(void **state)
{
    (void)state;
    struct bench *b =
        bench_new("routes:\n  - {domain: twin.example, user: u, tls: verify}\n");
    uint64_t plain = route_key(ask(b, "plain.example"));
    assert_true(route_key(ask(b, "twin.example")) == plain);
    assert_true(route_key(ask(b, "equal.example")) != plain);
    struct route_facts facts = {.domain = SLICE("twin.example"), .user = SLICE("u")};
    router_ask(b->router, facts.domain, router_match(b->router, &facts), take, b);
    drain(b);
    assert_int_equal(route_tls(b->got), DELIVERY_TLS_VERIFY);
    assert_true(route_key(b->got) != plain);
    assert_string_equal(route_name(b->got), "b.example");
    bench_free(b);
}

/* ---- rules ---- */

#define RULES                                                                            \
    "routes:\n"                                                                          \
    "  - {domain: \"*\", next_hop: [\"[192.0.2.100]:1\"], auth: /etc/a}\n"               \
    "  - {domain: .sub.example, next_hop: [\"[192.0.2.100]:2\"]}\n"                      \
    "  - {domain: .deep.sub.example, next_hop: [\"[192.0.2.100]:3\"]}\n"                 \
    "  - {domain: x.sub.example, next_hop: [\"[192.0.2.100]:4\"]}\n"                     \
    "  - {listener: in, next_hop: [\"[192.0.2.100]:5\"]}\n"                              \
    "  - {sender: \"@corp.example\", next_hop: [\"[192.0.2.100]:6\"]}\n"                 \
    "  - {sender: boss@corp.example, next_hop: [\"[192.0.2.100]:7\"]}\n"                 \
    "  - {user: bulk, next_hop: [\"[192.0.2.100]:8\"]}\n"                                \
    "  - {user: bulk, domain: x.sub.example, next_hop: [\"[192.0.2.100]:9\"]}\n"         \
    "  - {domain: tls.example, tls: verify}\n"                                           \
    "  - {domain: viamx.example, next_hop: mx}\n"

static void test_most_specific(void **state)
{
    (void)state;
    static const struct {
        const char *domain, *sender, *user, *listener;
        unsigned port;
        const char *auth;
    } rows[] = {
        {"any.example", "a@b.example", "", "", 1, "/etc/a"},
        {"sub.example", "a@b.example", "", "", 1, "/etc/a"},
        {"y.sub.example", "a@b.example", "", "", 2, ""},
        {"z.deep.sub.example", "a@b.example", "", "", 3, ""},
        {"x.sub.example", "a@b.example", "", "", 4, ""},
        {"x.sub.example", "a@b.example", "", "in", 5, ""},
        {"x.sub.example", "a@corp.example", "", "in", 6, ""},
        {"x.sub.example", "A@Corp.Example", "", "in", 6, ""},
        {"x.sub.example", "boss@corp.example", "", "in", 7, ""},
        {"any.example", "boss@corp.example", "bulk", "in", 8, ""},
        {"x.sub.example", "boss@corp.example", "bulk", "in", 9, ""},
        {"tls.example", "", "", "", 1, "/etc/a"},
        {"[192.0.2.1]", "", "", "", 1, "/etc/a"},
    };
    struct bench *b = bench_new(RULES);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct route_facts facts = {.domain = slice_str(rows[i].domain),
            .sender = slice_str(rows[i].sender),
            .user = slice_str(rows[i].user),
            .listener = slice_str(rows[i].listener)};
        router_ask(b->router, facts.domain, router_match(b->router, &facts), take, b);
        drain(b);
        assert_int_equal(route_result(b->got), ERR_OK);
        assert_int_equal(route_hop(b->got, 0)->port, rows[i].port);
        assert_string_equal(route_auth_file(b->got), rows[i].auth);
    }
    ask(b, "tls.example");
    assert_int_equal(route_tls(b->got), DELIVERY_TLS_VERIFY);
    assert_false(route_by_mx(b->got));
    assert_failure(ask(b, "viamx.example"), ERR_DNS_NXDOMAIN);
    assert_int_equal(mx_asked, 1);
    bench_free(b);
}

static void test_rule_numbers(void **state)
{
    (void)state;
    struct bench *b = bench_new(RULES);
    int any = rule_for(b, "any.example");
    assert_int_equal(rule_for(b, "other.example"), any);
    assert_int_not_equal(rule_for(b, "x.sub.example"), any);
    /* Numbers outlive a reload, and mean what they meant. */
    struct settings *s = settings_of(BASE_SETTINGS);
    router_reload(b->router, s);
    settings_unref(s);
    assert_int_not_equal(rule_for(b, "any.example"), any);
    router_ask(b->router, SLICE("any.example"), any, take, b);
    drain(b);
    assert_int_equal(route_hop(b->got, 0)->port, 1);
    s = settings_of(BASE_SETTINGS RULES);
    router_reload(b->router, s);
    settings_unref(s);
    assert_int_equal(rule_for(b, "any.example"), any);
    bench_free(b);
}

/* Thousands of relay domains and routes: found by hash, numbered by content. */
static void test_many_rules(void **state)
{
    (void)state;
    struct buf yaml;
    buf_init(&yaml, 4 << 20);
    buf_append_str(&yaml, BASE_SETTINGS "routes:\n");
    for (int i = 0; i < 1000; i++)
        buf_printf(&yaml, "  - {domain: d%d.example, next_hop: [\"[192.0.2.1]:%d\"]}\n",
            i, 1000 + i % 100);
    struct settings_problems problems;
    settings_problems_init(&problems);
    struct settings *s = settings_parse(buf_slice(&yaml), "test.yaml", &problems);
    assert_non_null(s);
    settings_problems_fini(&problems);
    buf_fini(&yaml);
    struct bench *b = bench_new("");
    router_reload(b->router, s);
    settings_unref(s);
    for (int i = 0; i < 1000; i++) {
        char domain[32];
        snprintf(domain, sizeof(domain), "d%d.example", i);
        assert_int_equal(route_hop(ask(b, domain), 0)->port, 1000 + i % 100);
    }
    assert_int_equal(rule_for(b, "d7.example"), rule_for(b, "d107.example"));
    bench_free(b);
}

/* ---- fixed hops ---- */

static void test_fixed_hops(void **state)
{
    (void)state;
    struct bench *b =
        bench_new("routes:\n"
                  "  - {domain: list.example, next_hop: [\"gone.example:587\", "
                  "\"relay.example:587\", "
                  "\"[192.0.2.9]:25\"]}\n"
                  "  - {domain: typo.example, next_hop: [\"gone.example:25\"]}\n"
                  "  - {domain: self.example, next_hop: [\"[127.0.0.5]:2525\"]}\n"
                  "  - {domain: beside.example, next_hop: [\"[127.0.0.5]:2526\"]}\n");
    assert_hops(
        ask(b, "list.example"), "gone.example:587 relay.example:587 [192.0.2.9]:25");
    uint8_t order[ROUTE_HOPS_MAX];
    route_order(b->got, order);
    assert_true(order[0] == 0 && order[1] == 1 && order[2] == 2);
    /* A slip in the settings defers. */
    assert_failure(ask(b, "typo.example"), ERR_NO_USABLE_ADDRESS);
    assert_failure(ask(b, "self.example"), ERR_NO_USABLE_ADDRESS);
    assert_hops(ask(b, "beside.example"), "[127.0.0.5]:2526");
    assert_int_equal(mx_asked, 0);
    bench_free(b);
}

static void test_families(void **state)
{
    (void)state;
    struct bench *b = bench_new("delivery: {ipv4: false}\n");
    struct route_lookup l;
    assert_failure(ask(b, "[192.0.2.55]"), ERR_NO_USABLE_ADDRESS);
    struct route *route = ask(b, "plain.example");
    assert_true(route_addresses(route, 0, &l));
    assert_int_equal(l.count, 1);
    assert_int_equal(l.addresses[0].ip.family, 6);
    bench_free(b);
}

/* On a port other than 25 an address of ours is us only with the listener's port. */
static void test_port_of_listener(void **state)
{
    (void)state;
    struct bench *b = bench_new("delivery: {port: 2526}\n");
    assert_hops(ask(b, "[127.0.0.5]"), "[127.0.0.5]:2526");
    bench_free(b);
    b = bench_new("delivery: {port: 2525}\n");
    assert_failure(ask(b, "[127.0.0.5]"), ERR_MAIL_LOOP);
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_outcomes),
        cmocka_unit_test(test_relay_domain),
        cmocka_unit_test(test_lookup_of_hops),
        cmocka_unit_test(test_late_lookup),
        cmocka_unit_test(test_same_asker_same_order),
        cmocka_unit_test(test_order_is_shuffled),
        cmocka_unit_test(test_destination_key),
        cmocka_unit_test(test_most_specific),
        cmocka_unit_test(test_rule_numbers),
        cmocka_unit_test(test_many_rules),
        cmocka_unit_test(test_fixed_hops),
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_port_of_listener),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
