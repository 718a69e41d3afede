/* SPDX-License-Identifier: Apache-2.0 */
/* A router on a loop that nobody runs, and a resolver of tables: for the tests of
 * routing. */
#ifndef TESTS_UNIT_ROUTE_BENCH_H
#define TESTS_UNIT_ROUTE_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "base/loop.h"
#include "node/delivery/route.h"

#define BASE_SETTINGS                                                                    \
    "hostname: mx.us.example\n"                                                          \
    "postmaster: admin@us.example\n"                                                     \
    "data_dir: /var/tmp\n"                                                               \
    "self: {names: [backup.us.example], addresses: [203.0.113.9]}\n"                     \
    "listeners:\n"                                                                       \
    "  - {name: in, listen: [\"127.0.0.5:2525\"], service: mx}\n"

/* ---- a resolver of tables ---- */

struct zone_mx {
    const char *domain;
    enum err result;
    const char *hosts[4]; /* "10 name" */
    uint32_t ttl;
};
struct zone_host {
    const char *name;
    enum err result;
    const char *ips[4];
};

static const struct zone_mx mx_table[] = {
    {"plain.example", ERR_OK, {"10 a.example", "20 b.example"}, 300},
    {"twin.example", ERR_OK, {"5 b.example", "7 a.example"}, 300},
    {"equal.example", ERR_OK,
        {"10 a.example", "10 b.example", "10 c.example", "20 d.example"}, 300},
    {"null.example", ERR_DNS_NULL_MX, {NULL}, 300},
    {"nx.example", ERR_DNS_NXDOMAIN, {NULL}, 300},
    {"bogus.example", ERR_DNS_BOGUS, {NULL}, 0},
    {"shut.example", ERR_OVERLOADED, {NULL}, 0},
    {"ours.example", ERR_OK, {"10 mx.us.example", "20 a.example"}, 300},
    {"second.example", ERR_OK,
        {"10 a.example", "20 backup.us.example", "20 b.example", "30 c.example"}, 300},
    {"byaddress.example", ERR_OK, {"10 natted.example", "20 a.example"}, 300},
    {"later.example", ERR_OK, {"10 a.example", "20 natted.example", "20 b.example"}, 300},
    {"implicit.example", ERR_OK, {"0 implicit.example"}, 300},
    {"lost.example", ERR_OK, {"10 gone.example", "20 empty.example"}, 300},
    {"sick.example", ERR_OK, {"10 gone.example", "20 sick-host.example"}, 300},
    {"half.example", ERR_OK, {"10 sick-host.example", "20 b.example"}, 300},
    {"multicast.example", ERR_OK, {"10 odd.example"}, 300},
    {"brief.example", ERR_OK, {"10 a.example"}, 0},
};
static const struct zone_host host_table[] = {
    {"a.example", ERR_OK, {"2001:db8::a", "192.0.2.1"}},
    {"b.example", ERR_OK, {"192.0.2.2"}},
    {"c.example", ERR_OK, {"192.0.2.3"}},
    {"d.example", ERR_OK, {"192.0.2.4"}},
    {"natted.example", ERR_OK, {"192.0.2.77", "203.0.113.9"}},
    {"implicit.example", ERR_OK, {"192.0.2.5"}},
    {"gone.example", ERR_DNS_NXDOMAIN, {NULL}},
    {"empty.example", ERR_DNS_NO_ADDRESS, {NULL}},
    {"sick-host.example", ERR_DNS_SERVFAIL, {NULL}},
    {"odd.example", ERR_OK, {"224.0.0.1", "0.0.0.0"}},
    {"relay.example", ERR_OK, {"192.0.2.8"}},
};

static unsigned mx_asked, host_asked;

static void mx_arrives(struct mail *mail, void *owner)
{
    struct mx_query *q = CONTAINER_OF(mail, struct mx_query, mail);
    q->done(q, owner);
}

static void fake_ask_mx(struct resolver *r, struct mx_query *q)
{
    (void)r;
    mx_asked++;
    q->arena = arena_new(256);
    q->set = (struct mx_set){.result = ERR_DNS_NXDOMAIN, .why = "not in the table"};
    for (size_t i = 0; i < sizeof(mx_table) / sizeof(mx_table[0]); i++) {
        const struct zone_mx *z = &mx_table[i];
        if (strcmp(z->domain, q->domain) != 0)
            continue;
        struct mx_host *hosts = arena_alloc(q->arena, 4 * sizeof(*hosts));
        q->set = (struct mx_set){.result = z->result,
            .why = z->result ? "the table says so" : "",
            .ttl = z->ttl,
            .hosts = hosts};
        for (unsigned j = 0; j < 4 && z->hosts[j]; j++) {
            hosts[j].preference = (uint16_t)strtoul(z->hosts[j], NULL, 10);
            hosts[j].name = strchr(z->hosts[j], ' ') + 1;
            hosts[j].implicit = strcmp(hosts[j].name, q->domain) == 0;
            q->set.count++;
        }
    }
    mailbox_post(q->reply_to, &q->mail, mx_arrives);
}

static void host_arrives(struct mail *mail, void *owner)
{
    struct host_query *q = CONTAINER_OF(mail, struct host_query, mail);
    q->done(q, owner);
}

static void fake_ask_host(struct resolver *r, struct host_query *q)
{
    (void)r;
    host_asked++;
    q->found = (struct host_addresses){
        .result = ERR_DNS_NXDOMAIN, .why = "not in the table", .ttl = 300};
    for (size_t i = 0; i < sizeof(host_table) / sizeof(host_table[0]); i++) {
        const struct zone_host *z = &host_table[i];
        if (strcmp(z->name, q->name) != 0)
            continue;
        q->found = (struct host_addresses){
            .result = z->result, .why = z->result ? z->name : "", .ttl = 300};
        for (unsigned j = 0; j < 4 && z->ips[j]; j++)
            assert_true(
                ipaddr_parse(slice_str(z->ips[j]), &q->found.ips[q->found.count++]));
    }
    mailbox_post(q->reply_to, &q->mail, host_arrives);
}

/* ---- the bench ---- */

static const struct route_dns dns = {.ask_mx = fake_ask_mx, .ask_host = fake_ask_host};

struct bench {
    struct loop *loop;
    struct router *router;
    struct route *got;
    unsigned answers;
};

static inline struct settings *settings_of(const char *yaml)
{
    struct settings_problems problems;
    settings_problems_init(&problems);
    struct settings *s = settings_parse(slice_str(yaml), "test.yaml", &problems);
    if (!s)
        fail_msg("%.*s", SLICE_ARG(buf_slice(&problems.text)));
    settings_problems_fini(&problems);
    return s;
}

static inline struct bench *bench_new(const char *more)
{
    char yaml[8192];
    struct bench *b = mem_zalloc(sizeof(*b));
    snprintf(yaml, sizeof(yaml), "%s%s", BASE_SETTINGS, more);
    struct settings *s = settings_of(yaml);
    b->loop = loop_new();
    b->router = router_new(b->loop, &dns, s);
    settings_unref(s);
    mx_asked = host_asked = 0;
    return b;
}

static inline void drain(struct bench *b)
{
    while (mailbox_drain(loop_mailbox(b->loop)) > 0)
        ;
}

static inline void bench_free(struct bench *b)
{
    route_unref(b->got);
    router_stop(b->router);
    drain(b);
    assert_int_equal(router_pending(b->router), 0);
    router_free(b->router);
    loop_free(b->loop);
    free(b);
}

static inline void take(struct route *route, void *ctx)
{
    struct bench *b = ctx;
    route_unref(b->got);
    b->got = route;
    b->answers++;
}

static inline int rule_for(struct bench *b, const char *domain)
{
    struct route_facts facts = {
        .domain = slice_str(domain), .sender = SLICE("x@y.example")};
    return router_match(b->router, &facts);
}

static inline struct route *ask(struct bench *b, const char *domain)
{
    unsigned before = b->answers;
    router_ask(b->router, slice_str(domain), rule_for(b, domain), take, b);
    drain(b);
    assert_int_equal(b->answers, before + 1);
    return b->got;
}

/* "a.example:25 b.example:25" in their stored order. */
static inline void assert_hops(struct route *route, const char *want)
{
    char text[1024] = "";
    for (unsigned i = 0; i < route_hop_count(route); i++) {
        const struct route_hop *hop = route_hop(route, i);
        size_t n = strlen(text);
        snprintf(
            text + n, sizeof(text) - n, "%s%s:%u", n ? " " : "", hop->name, hop->port);
    }
    assert_string_equal(text, want);
    assert_int_equal(route_result(route), ERR_OK);
}

static inline void assert_failure(struct route *route, enum err result)
{
    if (route_result(route) != result)
        fail_msg("%s, not %s", err_name(route_result(route)), err_name(result));
    assert_int_equal(route_hop_count(route), 0);
    assert_true(strlen(route_why(route)) > 0);
}

#endif
