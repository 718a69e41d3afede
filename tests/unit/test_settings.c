/* SPDX-License-Identifier: Apache-2.0 */
#include "base/settings.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/random.h"
#include "base/settings_internal.h"

static struct settings_problems problems;
#define HEAD "hostname: mx.example.net\n"
#define CLUSTER HEAD "cluster:\n  name: prod\n  node: mx1\n  listen: 10.0.0.1:7420\n"

static int setup(void **state)
{
    (void)state;
    settings_problems_init(&problems);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    settings_problems_fini(&problems);
    return 0;
}

static const char *problem_text(void)
{
    buf_append_char(&problems.text, '\0');
    return buf_slice(&problems.text).ptr;
}

static struct settings *parse(const char *yaml)
{
    struct settings *s = settings_parse(slice_str(yaml), "f", &problems);
    if (!s)
        fail_msg("%s", problem_text());
    return s;
}

/* The same again for one row of a table. */
static void expect_problem(const char *yaml, const char *want)
{
    settings_problems_fini(&problems);
    settings_problems_init(&problems);
    struct settings *s = settings_parse(slice_str(yaml), "f", &problems);
    if (s || !strstr(problem_text(), want))
        fail_msg("from:\n%s\nwanted: %s\ngot: %s", yaml, want, problem_text());
}

static void test_defaults(void **state)
{
    (void)state;
    struct settings *s = parse(HEAD);
    assert_string_equal(s->hostname, "mx.example.net");
    assert_string_equal(s->data_dir, "/var/lib/baton");
    assert_string_equal(s->control, "/run/baton/control.sock");
    assert_int_equal(s->queue.quota_bytes, UINT64_C(20000000000));
    assert_int_equal(s->history.keep_ms, 7 * 86400000);
    assert_int_equal(s->limits.client_rate.count, 1000);
    assert_int_equal(s->limits.client_rate.per_ms, 60000);
    assert_int_equal(s->limits.idle_connection_ms, 5000);
    assert_true(s->resolver.dnssec);
    assert_int_equal(s->relay_clients.count, 2);
    char text[NETADDR_TEXT_MAX];
    cidr_format(s->relay_clients.items[0], text);
    assert_string_equal(text, "127.0.0.0/8");
    cidr_format(s->relay_clients.items[1], text);
    assert_string_equal(text, "::1/128");
    assert_int_equal(s->listener_count, 0);
    assert_int_equal(s->api.listen_count, 0);
    settings_unref(s);
}

/* The file in the documentation, less what is not built. */
static const char whole[] =
    "hostname: mx1.example.net\ndata_dir: /var/lib/baton\ncontrol: "
    "/run/baton/control.sock\n"
    "log: {level: info, format: json}\nloops: 0\n"
    "self: {names: [lb.example.net], addresses: [192.0.2.77, '2001:db8::77']}\n"
    "postmaster: admin@example.net\nqueue: {quota: 20GB}\nhistory: {keep: 7d, max: 2GB}\n"
    "stop_timeout: 90s\ntls: {certificate: /etc/baton/tls.crt, key: /etc/baton/tls.key}\n"
    "listeners:\n"
    "  - {name: mx, listen: [\"0.0.0.0:25\", \"[::]:25\"], service: mx, allow: "
    "[10.0.0.0/8]}\n"
    "  - {name: submission, listen: [\"0.0.0.0:587\"], service: submission, tls: "
    "required,\n"
    "     max_connections: 7, max_message_size: 1MB, max_recipients: 200}\n"
    "  - {name: submissions, listen: [\"0.0.0.0:465\"], service: submission, tls: "
    "implicit,\n"
    "     proxy_protocol: {from: [192.0.2.0/24]}, xclient_from: ['[::1]/128']}\n"
    "relay_clients: [\"127.0.0.0/8\", \"[::1]/128\"]\n"
    "users: {file: /etc/baton/users}\n"
    "may_send_as: {alice: [Alice@Example.NET, '@example.org'], bob: carl@example.com}\n"
    "relay_domains:\n"
    "  - {domain: Example.ORG., next_hop: mx, recipients: verify, hold_for: 10d,\n"
    "     verify_when_down: defer, delay_warning: off}\n"
    "  - {domain: .example.com, next_hop: ['[192.0.2.10]:25', "
    "'relay.example.net:2525'],\n"
    "     recipients: /etc/baton/list}\n"
    "routes:\n"
    "  - {domain: '*', next_hop: ['[127.0.0.1]:2526', 127.0.0.1, '[2001:db8::1]',\n"
    "     '[big.example]:587', small.example]}\n"
    "  - {sender: '@example.net', tls: verify, auth: /etc/baton/auth}\n"
    "  - {user: alice, listener: mx, next_hop: mx}\n"
    "resolver:\n  dnssec: true\n  trust_anchor: /usr/share/dns/root.key\n"
    "  forward: [192.0.2.53, '2001:db8::53@5353']\n"
    "  stubs: [{zone: test., address: \"127.0.0.1@5353\", insecure: true}]\n"
    "  insecure: [home.arpa]\n"
    "retry: {first: 5m, max: 4h, give_up: 5d, delay_warning: 4h}\n"
    "limits: {client_connections: 50, client_rate: 1000/1m, data_rate: 1KB}\n"
    "delivery: {eight_bit: convert, tls: encrypt, ipv6: no}\n"
    "api: {listen: [\"127.0.0.1:8025\"]}\n";

static void test_listeners(void **state)
{
    (void)state;
    struct settings *s = parse(whole);
    assert_int_equal(s->listener_count, 3);
    const struct listener_settings *l = s->listeners;
    assert_int_equal(l[0].listen_count, 2);
    assert_int_equal(l[0].listen[1].port, 25);
    assert_int_equal(l[0].service, SERVICE_MX);
    assert_int_equal(l[0].tls, LISTENER_TLS_OPTIONAL);
    assert_int_equal(l[0].line_ends, LINE_ENDS_REJECT);
    assert_int_equal(l[0].max_connections, 10000);
    assert_int_equal(l[0].max_message_bytes, 50000000);
    assert_int_equal(l[0].max_recipients, 1000);
    assert_int_equal(l[0].allow.count, 1);
    assert_int_equal(l[0].line, 13);
    assert_int_equal(l[1].tls, LISTENER_TLS_REQUIRED);
    assert_int_equal(l[1].line_ends, LINE_ENDS_NORMALISE);
    assert_int_equal(l[1].max_connections, 7);
    assert_int_equal(l[1].max_message_bytes, 1000000);
    assert_int_equal(l[1].max_recipients, 200);
    assert_int_equal(l[2].proxy_from.count, 1);
    assert_int_equal(l[2].xclient_from.count, 1);
    settings_unref(s);
}

static void test_domains_and_routes(void **state)
{
    (void)state;
    struct settings *s = parse(whole);
    assert_int_equal(s->relay_domain_count, 2);
    const struct relay_domain_settings *d = s->relay_domains;
    assert_string_equal(d[0].domain, "example.org");
    assert_true(d[0].next_hop.by_mx);
    assert_int_equal(d[0].recipients, RECIPIENTS_VERIFY);
    assert_int_equal(d[0].verify_when_down, VERIFY_DOWN_DEFER);
    assert_int_equal(d[0].hold_for_ms, 10 * 86400000);
    assert_string_equal(d[1].domain, ".example.com");
    assert_string_equal(d[1].recipients_file, "/etc/baton/list");
    assert_int_equal(d[1].hold_for_ms, 14 * 86400000);
    assert_string_equal(d[1].next_hop.hops[1].host, "relay.example.net");
    assert_int_equal(d[1].next_hop.hops[1].port, 2525);
    const struct route_settings *r = s->routes;
    assert_int_equal(s->route_count, 3);
    assert_string_equal(r[0].domain, "*");
    assert_int_equal(r[0].next_hop.hop_count, 5);
    assert_string_equal(r[0].next_hop.hops[0].host, "");
    assert_int_equal(r[0].next_hop.hops[0].address.port, 2526);
    assert_int_equal(r[0].next_hop.hops[1].port, 25);
    assert_int_equal(r[0].next_hop.hops[2].address.ip.family, 6);
    assert_string_equal(r[0].next_hop.hops[3].host, "big.example");
    assert_int_equal(r[0].next_hop.hops[3].port, 587);
    assert_true(r[1].has_tls && r[1].tls == DELIVERY_TLS_VERIFY && !r[1].has_next_hop);
    assert_true(r[2].has_next_hop && r[2].next_hop.by_mx);
    assert_string_equal(s->may_send_as[0].addresses.items[0], "Alice@example.net");
    assert_string_equal(s->may_send_as[0].addresses.items[1], "@example.org");
    assert_int_equal(s->may_send_as[1].addresses.count, 1);
    assert_int_equal(s->resolver.forward[0].port, 53);
    assert_int_equal(s->resolver.forward[1].port, 5353);
    assert_string_equal(s->resolver.stubs[0].zone, "test");
    assert_true(s->resolver.stubs[0].insecure);
    assert_false(s->delivery.ipv6);
    settings_unref(s);
}

static const struct {
    const char *yaml, *want;
} mistakes[] = {
    {HEAD "hostnam: x\n", "f:2: hostnam: unknown key; the nearest is \"hostname\"\n"},
    {HEAD "log:\n  levle: info\n",
        "f:3: log.levle: unknown key; the nearest is \"level\""},
    {HEAD "log: {xyzzy: 1}\n", "unknown key; here are level, format\n"},
    {HEAD "quota: 5GB\n", "unknown key here; \"quota\" belongs under \"queue\""},
    {HEAD "log: {postmaster: x}\n", "\"postmaster\" belongs at the top level"},
    {HEAD "log: {level: loud}\n",
        "f:2: log.level: must be one of: debug|info|warn|error"},
    {HEAD "stop_timeout: 90\n", "f:2: stop_timeout: must be a duration"},
    {HEAD "stop_timeout: 2h\n", "out of range: 0 to 1h"},
    {HEAD "queue: {quota: 20XB}\n", "f:2: queue.quota: must be a size"},
    {HEAD "queue: {quota: 1MB}\n", "out of range: 16MiB to 1TiB"},
    {HEAD "limits: {client_rate: 5}\n", "must be a rate"},
    {HEAD "limits: {client_rate: 5/2d}\n", "per at most 1d"},
    {HEAD "limits: {hops: -1}\n", "must be a whole number"},
    {HEAD "limits: {hops: [1]}\n", "must be one value, not a list"},
    {HEAD "limits: {hops: }\n", "has no value"},
    {HEAD "limits: 3\n", "f:2: limits: must be a mapping"},
    {HEAD "limits: {hops: 1, hops: 2}\n", "f:2: hops: given twice (before in line 2)"},
    {HEAD "hostname: y.example\n", "f:2: hostname: given twice (before in line 1)"},
    {"hostname: -bad-\n", "is not a host name"},
    {"hostname: ''\n", "must have 1 to 255 bytes"},
    {HEAD "postmaster: nobody\n", "must be an address"},
    {HEAD "data_dir: \"a\\nb\"\n", "control character"},
    {HEAD "egress: []\n", "f:2: egress: not built in this version"},
    {HEAD "pools: []\n", "f:2: pools: not built in this version"},
    {HEAD "dnsbl: []\n", "f:2: dnsbl: not built in this version"},
    {HEAD "dnsbl_interval: 5m\n", "f:2: dnsbl_interval: not built in this version"},
    {HEAD "cluster:\n  name: x\n", "f:2: cluster.node: is missing"},
    {HEAD "cluster:\n  node: x\n", "f:2: cluster.name: is missing"},
    {HEAD "cluster:\n  name: x\n  node: y\n", "f:2: cluster.listen: is missing"},
    {CLUSTER "  nam: x\n", "cluster.nam: unknown key; the nearest is \"name\""},
    {CLUSTER "  zone: 'a b'\n", "f:6: cluster.zone: must be letters, digits"},
    {CLUSTER "  zone: -a\n", "cluster.zone: must be letters, digits"},
    {CLUSTER "  role: king\n", "f:6: cluster.role: must be one of: node|witness"},
    {CLUSTER "  weight: 17\n", "f:6: cluster.weight: out of range: 1 to 16"},
    {CLUSTER "  lease: 4s\n", "f:6: cluster.lease: out of range: 5s to 10m"},
    {CLUSTER "  copies: 2\n  min_copies: 3\n",
        "f:7: cluster.min_copies: is more than copies, 2"},
    {CLUSTER "  advertise: mx1.example:7420\n",
        "f:6: cluster.advertise: must be a numeric address"},
    {CLUSTER "  advertise: 0.0.0.0:7420\n",
        "f:6: cluster.advertise: nobody can reach that address"},
    {CLUSTER "  advertise: 10.0.0.1:65535\n", "needs a port from 1 to 65534"},
    {CLUSTER "  seeds: ['10.0.0.2:0']\n",
        "f:6: cluster.seeds[0]: needs a port from 1 to 65534"},
    {CLUSTER "  seeds: ['10.0.0.2', 'mx2.example:65535']\n",
        "f:6: cluster.seeds[1]: needs a port from 1 to 65534"},
    {CLUSTER "  seeds: ['mx2.example:99999']\n", "needs a port from 1 to 65534"},
    {CLUSTER "  seeds: ['10.0.0.300:7420']\n",
        "f:6: cluster.seeds[0]: must be an address or a name and a port"},
    {CLUSTER "  seeds: ['mx2.example:']\n", "must be an address or a name and a port"},
    {CLUSTER "  seeds: ['mx 2:7420']\n", "must be an address or a name and a port"},
    {CLUSTER "  seeds: [':7420']\n", "must be an address or a name and a port"},
    {CLUSTER "  seeds: ['a..b:7420']\n", "must be an address or a name and a port"},
    {CLUSTER "  seeds: ['0.0.0.0:7420']\n",
        "f:6: cluster.seeds[0]: nobody is at that address"},
    {CLUSTER "  seeds: [a1, a2, a3, a4, a5, a6, a7, a8, a9, b0, b1, b2, b3, b4, b5, b6, "
             "b7, b8, b9, c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, d0, d1, d2, d3]\n",
        "f:6: cluster.seeds: at most 32"},
    {HEAD "cluster: {name: x, node: y, listen: '0.0.0.0:7420'}\n",
        "f:2: cluster.advertise: is needed when listen is any address"},
    {HEAD "cluster: {name: x, node: y, listen: '10.0.0.1:65535'}\n",
        "f:2: cluster.listen: bodies need the next port"},
    {HEAD "cluster: {name: x, node: y, listen: 'mx1:7420'}\n",
        "f:2: cluster.listen: must be a numeric address"},
    {HEAD "cluster: {name: x, node: '../y', listen: '10.0.0.1:7420'}\n",
        "f:2: cluster.node: must be letters, digits"},
    {HEAD "cluster: {name: a123456789b123456789c123456789, node: y}\n",
        "f:2: cluster.name: must have 1 to 29 bytes"},
    {CLUSTER "api: {listen: '0.0.0.0:7421'}\n",
        "f:5: cluster.listen: port 7421 (for bodies) is taken by api.listen"},
    {CLUSTER "listeners: [{listen: '10.0.0.1:7420', service: submission}]\n",
        "f:5: cluster.listen: port 7420 is taken by submission"},
    {CLUSTER "  role: witness\n"
             "listeners: [{listen: '10.0.0.1:25', service: submission}]\n",
        "f:7: listeners: a witness takes no mail"},
    {HEAD "cluster: [x]\n", "f:2: cluster: must be a mapping"},
    {HEAD "routes: [{domain: a.example, pool: x}]\n",
        "f:2: routes[0].pool: not built in this version"},
    {HEAD "routes: [{next_hop: mx}]\n", "f:2: routes[0]: matches nothing"},
    {HEAD "routes: [{domain: a.example}]\n", "f:2: routes[0]: does nothing"},
    {HEAD "routes: [{domain: a.example, next_hop: [192.0.2.1.3]}]\n",
        "f:2: routes[0].next_hop[0]: must be a host like"},
    {HEAD "routes: [{domain: a.example, next_hop: ['192.0.2.1:0']}]\n", "must be a host"},
    {HEAD "routes: [{domain: a.example, next_hop: []}]\n", "next_hop: has no value"},
    {HEAD "routes: [{domain: a..example, next_hop: mx}]\n", "is not a domain name"},
    {HEAD "routes: [{domain: b\xc3\xbc"
          "cher.example, next_hop: mx}]\n",
        "A-label"},
    {HEAD "routes: [{listener: nope, next_hop: mx}]\n", "no listener is named \"nope\""},
    {HEAD "routes:\n- {domain: a.example, next_hop: mx}\n- {domain: a.example, tls: "
          "may}\n",
        "f:4: routes: matches the same mail as line 3"},
    {HEAD "relay_domains: [{domain: '*', next_hop: mx}]\n", "open relay"},
    {HEAD "relay_domains: [{domain: a.example}]\n", "needs next_hop"},
    {HEAD "relay_domains: [{next_hop: mx}]\n", "needs domain"},
    {HEAD "relay_domains: [{domain: a.example, next_hop: mx, recipients: file}]\n",
        "must be any, verify, or the path"},
    {HEAD "relay_domains:\n- {domain: a.example, next_hop: mx}\n"
          "- {domain: A.example., next_hop: mx}\n",
        "f:4: relay_domains: a.example is given twice (before in line 3)"},
    {HEAD "relay_clients: [10.0.0.0/33]\n", "f:2: relay_clients[0]: must be a network"},
    {HEAD "listeners: [{listen: ['0.0.0.0:25'], service: mx}]\n",
        "listeners[0].service: mx needs postmaster"},
    {HEAD "listeners: [{listen: ['0.0.0.0'], service: mx}]\n",
        "f:2: listeners[0].listen[0]: must be an address and a port"},
    {HEAD "listeners: [{service: submission}]\n", "listeners[0]: needs listen"},
    {HEAD "listeners: [{listen: ['0.0.0.0:25']}]\n", "needs service"},
    {HEAD "listeners: [{listen: ['0.0.0.0:25'], service: submission, tls: required}]\n",
        "needs tls: {certificate: FILE, key: FILE}"},
    {HEAD "listeners:\n- {listen: ['0.0.0.0:25'], service: submission}\n"
          "- {listen: ['0.0.0.0:26'], service: submission}\n",
        "f:4: listeners[1].name: \"submission\" is the name of the listener in line "
        "3 too"},
    {HEAD "listeners: [{listen: ['0.0.0.0:25', '0.0.0.0:25'], service: submission}]\n",
        "0.0.0.0:25 is given twice"},
    {HEAD "listeners: [{listen: '0.0.0.0:25', service: submission, allow: []}]\n",
        "names no network"},
    {HEAD "listeners: [{listen: '0.0.0.0:1', service: submission, proxy_protocol: "
          "{}}]\n",
        "needs from"},
    {HEAD "listeners: [{listen: '0.0.0.0:1', service: submission, tsl: none}]\n",
        "listeners[0].tsl: unknown key; the nearest is \"tls\""},
    {HEAD "tls: {certificate: /a}\n", "needs tls.key"},
    {HEAD "tls: {key: /a}\n", "needs tls.certificate"},
    {HEAD "retry: {first: 5h}\n", "retry.first: is longer than retry.max"},
    {HEAD "delivery: {ipv4: false, ipv6: false}\n", "no mail could leave"},
    {HEAD "may_send_as: [x]\n", "must be a mapping"},
    {HEAD "may_send_as: {a: [x]}\n", "f:2: may_send_as.a[0]: must be an address"},
    {HEAD "resolver: {forward: [example.net]}\n", "must be an address like 192.0.2.53"},
    {HEAD "resolver: {stubs: [{zone: test}]}\n", "needs address"},
    {HEAD "self: {addresses: [x]}\n", "must be an IP address"},
    {"- a\n", "must be a mapping"},
    {"hostname: *x\n", "f:1: YAML: aliases"},
    {"hostname: &x y\n", "f:1: YAML: anchors"},
    {"hostname: !!str y\n", "f:1: YAML: tags"},
    {"a: [[[[[[[[[[[[1]]]]]]]]]]]]\n", "nested too deeply"},
    {"a: b\n---\nc: d\n", "only one document"},
    {"a: [1, 2\n", "YAML: "},
    {"a: \xff\n", "YAML: "},
    {"a:\n\t- b\n", "f:2: YAML: "},
    {"{[a]: b}\n", "a key must be a plain name"},
};

static void test_problems(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++)
        expect_problem(mistakes[i].yaml, mistakes[i].want);
}

static void test_all_problems_at_once(void **state)
{
    (void)state;
    expect_problem(HEAD "loops: x\npostmaster: y\nlog: {level: z}\n", "f:2: loops:");
    assert_int_equal(problems.count, 3);
    assert_non_null(strstr(problem_text(), "f:3: postmaster:"));
    assert_non_null(strstr(problem_text(), "f:4: log.level:"));
}

static void test_many_problems_are_bounded(void **state)
{
    (void)state;
    struct buf yaml;
    buf_init(&yaml, 1 << 19);
    buf_append_str(&yaml, HEAD);
    for (int i = 0; i < 5000; i++)
        buf_printf(&yaml, "k%d: v\n", i);
    assert_null(settings_parse(buf_slice(&yaml), "f", &problems));
    assert_non_null(strstr(problem_text(), "f: and more\n"));
    assert_true(buf_len(&problems.text) < 65536);
    buf_fini(&yaml);
}

static void test_too_large(void **state)
{
    (void)state;
    char *big = calloc(1, (1 << 20) + 1);
    memset(big, '#', 1 << 20);
    assert_null(settings_parse(slice_make(big, (1 << 20) + 1), "f", &problems));
    assert_non_null(strstr(problem_text(), "larger than 1 MiB"));
    free(big);
}

/* print -> parse -> print is the identity, and nothing is lost on the way. */
static void check_round_trip(struct settings *s)
{
    struct buf once, twice;
    buf_init(&once, 1 << 20);
    buf_init(&twice, 1 << 20);
    settings_print(s, &once);
    struct settings *back = settings_parse(buf_slice(&once), "f", &problems);
    if (!back)
        fail_msg("%s\n%.*s", problem_text(), SLICE_ARG(buf_slice(&once)));
    settings_print(back, &twice);
    assert_true(slice_eq(buf_slice(&once), buf_slice(&twice)));
    assert_int_equal(settings_cluster_hash(s), settings_cluster_hash(back));
    settings_unref(back);
    buf_fini(&once);
    buf_fini(&twice);
}

static void test_cluster(void **state)
{
    (void)state;
    struct settings *s = parse(CLUSTER);
    char text[NETADDR_TEXT_MAX];
    assert_true(s->cluster.is_set);
    assert_string_equal(settings_node_name(s), "mx1");
    assert_int_equal(s->cluster.copies, 2);
    assert_int_equal(s->cluster.min_copies, 0);
    assert_int_equal(s->cluster.lease_ms, 15000);
    assert_int_equal(s->cluster.in_doubt_hold_ms, 180000);
    assert_int_equal(s->cluster.stale_hold_ms, 600000);
    netaddr_format(s->cluster.advertise, text);
    assert_string_equal(text, "10.0.0.1:7420");
    check_round_trip(s);
    settings_unref(s);
    s = parse(HEAD "cluster:\n");
    assert_false(s->cluster.is_set);
    assert_string_equal(settings_node_name(s), "mx.example.net");
    check_round_trip(s);
    settings_unref(s);
    s = parse(
        HEAD "cluster: {name: prod, node: w_1.a-b, role: witness, zone: r1, weight: "
             "16, copies: 3,\n min_copies: 2, lease: 5s, in_doubt_hold: 1m, "
             "stale_hold: 0, join: /etc/x,\n listen: '[::]:7420', advertise: "
             "'[2001:db8::1]'}\n");
    assert_int_equal(s->cluster.advertise.port, 7420);
    check_round_trip(s);
    settings_unref(s);
}

static void test_seeds(void **state)
{
    (void)state;
    struct settings *s = parse(CLUSTER "  seeds: ['10.0.0.2:7500', '[2001:db8::2]', "
                                       "2001:db8::3, 'MX2.example.net.:7422', mail]\n");
    static const struct {
        const char *name, *address;
    } want[] = {{"", "10.0.0.2:7500"}, {"", "[2001:db8::2]:7420"},
        {"", "[2001:db8::3]:7420"}, {"mx2.example.net", NULL}, {"mail", NULL}};
    static const uint16_t ports[] = {7500, 7420, 7420, 7422, 7420};
    assert_int_equal(s->cluster.seed_count, 5);
    for (unsigned i = 0; i < 5; i++) {
        const struct seed_settings *seed = &s->cluster.seeds[i];
        char text[NETADDR_TEXT_MAX];
        assert_string_equal(seed->name, want[i].name);
        assert_int_equal(seed->address.port, ports[i]);
        netaddr_format(seed->address, text);
        if (want[i].address)
            assert_string_equal(text, want[i].address);
        else
            assert_int_equal(seed->address.ip.family, 0);
    }
    check_round_trip(s);
    /* Each node may have its own. */
    struct settings *none = parse(CLUSTER);
    assert_int_equal(settings_cluster_hash(s), settings_cluster_hash(none));
    settings_unref(none);
    settings_unref(s);
}

static void test_warnings(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 4096);
    struct settings *s = parse(CLUSTER);
    assert_int_equal(settings_warnings(s, &out), 0);
    settings_unref(s);
    s = parse(CLUSTER "  in_doubt_hold: 179s\n  copies: 1\n");
    assert_int_equal(settings_warnings(s, &out), 2);
    buf_append_char(&out, '\0');
    assert_non_null(
        strstr(buf_slice(&out).ptr, "f:6: cluster.in_doubt_hold: under 180s"));
    assert_non_null(strstr(buf_slice(&out).ptr, "\nf:7: cluster.copies: with one copy"));
    settings_unref(s);
    buf_fini(&out);
}

struct keys {
    char text[4096];
    uint64_t sum;
};

static void one_key(const char *key, uint64_t hash, void *ctx)
{
    struct keys *k = ctx;
    size_t len = strlen(k->text);
    snprintf(k->text + len, sizeof(k->text) - len, "%s=%" PRIx64 "\n", key, hash);
}

/* What is in the hash and what is in the list are the same. */
static void test_cluster_each(void **state)
{
    (void)state;
    struct keys a = {.text = ""}, b = {.text = ""};
    struct settings *s = parse(CLUSTER);
    struct settings *t = parse(CLUSTER "retry: {first: 6m}\nloops: 3\n");
    settings_cluster_each(s, one_key, &a);
    settings_cluster_each(t, one_key, &b);
    assert_non_null(strstr(a.text, "\nrelay_clients="));
    assert_non_null(strstr(a.text, "\ncluster.copies="));
    assert_null(strstr(a.text, "loops="));
    assert_null(strstr(a.text, "cluster.node="));
    unsigned differ = 0;
    char *x = a.text, *y = b.text;
    while (*x && *y) {
        size_t n = strcspn(x, "\n"), m = strcspn(y, "\n");
        if (n != m || memcmp(x, y, n) != 0) {
            assert_memory_equal(x, "retry.first=", 12);
            differ++;
        }
        x += n + 1;
        y += m + 1;
    }
    assert_int_equal(differ, 1);
    assert_true(*x == '\0' && *y == '\0');
    settings_unref(s);
    settings_unref(t);
}

static void test_print_round_trip(void **state)
{
    (void)state;
    struct settings *s = parse(whole);
    check_round_trip(s);
    settings_unref(s);
}

/* A random but allowed value of a parameter, as text. */
static void random_value(const struct param *p, struct buf *out)
{
    uint64_t span = p->max - p->min;
    uint64_t value =
        p->min + (span == UINT64_MAX ? random_u64() : random_below(span + 1));
    char text[64];
    if (random_below(4) == 0)
        value = random_below(2) ? p->min : p->max;
    switch (p->type) {
    case PARAM_BOOL:
        buf_append_str(out, value ? "true" : "false");
        return;
    case PARAM_COUNT:
        buf_printf(out, "%" PRIu64, value);
        return;
    case PARAM_SIZE:
        size_print(value, text);
        break;
    case PARAM_DURATION:
        duration_print((int64_t)value, text);
        break;
    case PARAM_RATE:
        rate_print(
            (struct rate){(uint32_t)value, (int64_t)random_below(86400000) + 1}, text);
        break;
    case PARAM_TEXT:
        buf_append(out, slice_str(p->initial[0] ? p->initial : "/some/file"));
        return;
    }
    buf_append_str(out, text);
}

static void test_random_round_trip(void **state)
{
    (void)state;
    for (int round = 0; round < 200; round++) {
        struct buf yaml;
        const char *section = "top";
        buf_init(&yaml, 1 << 16);
        for (unsigned i = 0; i < param_count; i++) {
            const struct param *p = &params[i];
            if (strcmp(p->section, section) != 0)
                buf_printf(&yaml, "%s:\n", section = p->section);
            /* first <= max and the like are tested elsewhere */
            if (strcmp(section, "retry") == 0 || strcmp(section, "cluster") == 0 ||
                strcmp(p->type == PARAM_BOOL ? "" : p->name, "postmaster") == 0)
                continue;
            if (strcmp(p->name, "ipv4") == 0)
                continue;
            buf_printf(&yaml, "%s%s: ", strcmp(section, "top") ? "  " : "", p->name);
            if (strcmp(p->name, "hostname") == 0)
                buf_append_str(&yaml, "h.example");
            else
                random_value(p, &yaml);
            buf_append_char(&yaml, '\n');
        }
        struct settings *s = settings_parse(buf_slice(&yaml), "f", &problems);
        if (!s)
            fail_msg("%s\n%.*s", problem_text(), SLICE_ARG(buf_slice(&yaml)));
        check_round_trip(s);
        settings_unref(s);
        buf_fini(&yaml);
    }
}

/* Each parameter: its ends are taken, one past them is not, its default is in range. */
static void try_param(const struct param *p, const char *value, bool want)
{
    char yaml[300];
    bool top = strcmp(p->section, "top") == 0;
    snprintf(yaml, sizeof(yaml), "%s{hostname: h.example, %s%s%s: \"%s\"%s}", "",
        top ? "" : p->section, top ? "" : ": {", p->name, value, top ? "" : "}");
    settings_problems_fini(&problems);
    settings_problems_init(&problems);
    struct settings *s = settings_parse(slice_str(yaml), "f", &problems);
    bool refused =
        strstr(problem_text(), "out of range") || strstr(problem_text(), "must be");
    if (refused == want)
        fail_msg("%s.%s = %s: %s", p->section, p->name, value, problem_text());
    settings_unref(s);
}

static void test_ranges(void **state)
{
    (void)state;
    char value[64];
    for (unsigned i = 0; i < param_count; i++) {
        const struct param *p = &params[i];
        const char *unit = p->type == PARAM_DURATION ? "ms"
                           : p->type == PARAM_RATE   ? "/1m"
                                                     : "";
        if (p->type == PARAM_BOOL || p->type == PARAM_TEXT)
            continue;
        snprintf(value, sizeof(value), "%" PRIu64 "%s", p->min, unit);
        try_param(p, value, true);
        snprintf(value, sizeof(value), "%" PRIu64 "%s", p->max, unit);
        try_param(p, value, true);
        snprintf(value, sizeof(value), "%" PRIu64 "%s", p->max + 1, unit);
        try_param(p, value, false);
        snprintf(value, sizeof(value), "%" PRIu64 "%s", p->min - 1, unit);
        try_param(p, value, false);
    }
}

static void test_units(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t want; /* -1: refused */
    } durations[] = {{"0", 0}, {"30s", 30000}, {"5m", 300000}, {"4h", 14400000},
        {"5d", 432000000}, {"1w", 604800000}, {"250ms", 250}, {"1h30m", 5400000},
        {"1m500ms", 60500}, {"", -1}, {"5", -1}, {"5x", -1}, {"m", -1}, {"30m1h", -1},
        {"1h1h", -1}, {"-5s", -1}, {"5 s", -1}, {"1.5h", -1}, {"5S", -1},
        {"9223372036854775807ms", INT64_MAX}, {"9223372036854775808ms", -1},
        {"99999999999999999w", -1}, {"106751991167d99999999999999ms", -1}};
    for (size_t i = 0; i < sizeof(durations) / sizeof(durations[0]); i++) {
        int64_t ms = -1;
        bool ok = duration_parse(slice_str(durations[i].text), &ms);
        assert_int_equal(ok, durations[i].want >= 0);
        assert_true(ms == durations[i].want);
    }
    static const struct {
        const char *text;
        uint64_t want; /* 7: refused */
    } sizes[] = {{"0", 0}, {"512", 512}, {"512B", 512}, {"64KB", 64000}, {"64KiB", 65536},
        {"64kB", 64000}, {"50MB", 50000000}, {"1GiB", 1 << 30},
        {"2TB", UINT64_C(2000000000000)}, {"", 7}, {"KB", 7}, {"5 MB", 7}, {"5mb", 7},
        {"5MBx", 7}, {"-1", 7}, {"99999999999TB", 7}, {"18446744073709551616", 7}};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint64_t bytes = 7;
        size_parse(slice_str(sizes[i].text), &bytes);
        assert_true(bytes == sizes[i].want);
    }
    struct rate rate;
    assert_true(rate_parse(SLICE("1000/1m"), &rate) && rate.count == 1000);
    assert_int_equal(rate.per_ms, 60000);
    assert_true(rate_parse(SLICE("10/s"), &rate) && rate.per_ms == 1000);
    assert_false(rate_parse(SLICE("10"), &rate));
    assert_false(rate_parse(SLICE("10/"), &rate));
    assert_false(rate_parse(SLICE("10/0"), &rate));
    assert_false(rate_parse(SLICE("/s"), &rate));
}

static void test_units_round_trip(void **state)
{
    (void)state;
    for (int i = 0; i < 20000; i++) {
        char text[32];
        int64_t ms, value = (int64_t)(random_u64() >> (1 + random_below(63)));
        uint64_t bytes;
        duration_print(value, text);
        assert_true(duration_parse(slice_str(text), &ms) && ms == value);
        size_print((uint64_t)value, text);
        assert_true(size_parse(slice_str(text), &bytes) && bytes == (uint64_t)value);
    }
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void test_hostname(void **state)
{
    (void)state;
    char dir[] = "/var/tmp/baton-test-XXXXXX", hosts[64], mailname[64], out[256];
    assert_non_null(mkdtemp(dir));
    snprintf(hosts, sizeof(hosts), "%s/hosts", dir);
    snprintf(mailname, sizeof(mailname), "%s/mailname", dir);
    write_file(hosts, "127.0.0.1 localhost\n# 1.1.1.1 mx1.wrong.example\n"
                      "127.0.1.1 mx1.localdomain other.example.net\n"
                      "192.0.2.1\tMX1.Example.Net mx1 # comment\n");
    write_file(mailname, "mx2.example.org\n");
    assert_true(hostname_from(SLICE("Full.example"), hosts, mailname, out));
    assert_string_equal(out, "full.example");
    assert_true(hostname_from(SLICE("mx1"), hosts, mailname, out));
    assert_string_equal(out, "mx1.example.net");
    assert_true(hostname_from(SLICE("mx2"), hosts, mailname, out));
    assert_string_equal(out, "mx2.example.org");
    assert_false(hostname_from(SLICE("mx3"), hosts, mailname, out));
    assert_false(hostname_from(SLICE("host.localdomain"), hosts, mailname, out));
    assert_false(hostname_from(SLICE(""), hosts, mailname, out));
    unlink(hosts);
    unlink(mailname);
    assert_false(hostname_from(SLICE("mx1"), hosts, mailname, out));
    rmdir(dir);
}

static void test_files(void **state)
{
    (void)state;
    char path[] = "/var/tmp/baton-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    write_file(path, HEAD);
    struct settings *s = settings_read(path, &problems);
    assert_non_null(s);
    assert_string_equal(s->file, path);
    settings_unref(s);
    unlink(path);
    assert_null(settings_read(path, &problems));
    assert_non_null(strstr(problem_text(), "there is no such file"));
    assert_null(settings_read("/var/tmp", &problems));
}

static void test_hash_and_restart(void **state)
{
    (void)state;
    struct settings *a = parse(HEAD);
    struct settings *b = parse("hostname: other.example\ndata_dir: /elsewhere\nloops: 3\n"
                               "queue: {quota: 1GB}\n");
    struct settings *c = parse(HEAD "retry: {first: 6m}\n");
    struct settings *d = parse(HEAD "routes: [{domain: x.example, next_hop: mx}]\n");
    assert_int_equal(settings_cluster_hash(a), settings_cluster_hash(b));
    assert_int_not_equal(settings_cluster_hash(a), settings_cluster_hash(c));
    assert_int_not_equal(settings_cluster_hash(a), settings_cluster_hash(d));
    struct buf out;
    buf_init(&out, 4096);
    assert_int_equal(settings_need_restart(a, b, &out), 3);
    assert_true(slice_eq(buf_slice(&out), SLICE("data_dir\nloops\nqueue.quota\n")));
    assert_int_equal(settings_need_restart(a, c, &out), 0);
    buf_fini(&out);
    settings_unref(settings_ref(a));
    settings_unref(a);
    settings_unref(b);
    settings_unref(c);
    settings_unref(d);
    settings_unref(NULL);
}

static void test_lines(void **state)
{
    (void)state;
    struct settings *s = parse(whole);
    assert_int_equal(settings_line(s, "hostname"), 1);
    assert_int_equal(settings_line(s, "queue.quota"), 8);
    assert_int_equal(settings_line(s, "tls.key"), 11);
    assert_int_equal(settings_line(s, "may_send_as"), 20);
    assert_int_equal(settings_line(s, "relay_domains"), 21);
    assert_int_equal(settings_line(s, "relay_domains.domain"), 0);
    assert_int_equal(settings_line(s, "limits.hops"), 0);
    settings_unref(s);
}

/* Cut anywhere, the file is refused or read, never worse. */
static void test_cut_at_every_length(void **state)
{
    (void)state;
    for (size_t len = 0; len < sizeof(whole) - 1; len++) {
        char *copy = malloc(len + 1);
        memcpy(copy, whole, len);
        settings_unref(settings_parse(slice_make(copy, len), "f", &problems));
        buf_clear(&problems.text);
        problems.count = 0;
        free(copy);
    }
}

/* baton.yaml(5) has the table as it is: make params_doc, and run it, when this fails. */
static void test_document(void **state)
{
    (void)state;
    struct buf table, page;
    char bytes[4096];
    size_t n;
    buf_init(&table, 1 << 20);
    buf_init(&page, 1 << 20);
    settings_document(&table);
    buf_append_char(&table, '\0');
    FILE *file = fopen(TEST_SOURCE_DIR "/../docs/man/baton.yaml.5", "re");
    assert_non_null(file);
    while ((n = fread(bytes, 1, sizeof(bytes), file)) > 0)
        buf_append(&page, slice_make(bytes, n));
    fclose(file);
    buf_append_char(&page, '\0');
    if (!strstr(buf_slice(&page).ptr, buf_slice(&table).ptr))
        fail_msg("docs/man/baton.yaml.5 is out of date: run params_doc");
    buf_fini(&table);
    buf_fini(&page);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_defaults),
        TEST(test_listeners),
        TEST(test_domains_and_routes),
        TEST(test_problems),
        TEST(test_all_problems_at_once),
        TEST(test_many_problems_are_bounded),
        TEST(test_too_large),
        TEST(test_cluster),
        TEST(test_seeds),
        TEST(test_warnings),
        TEST(test_cluster_each),
        TEST(test_print_round_trip),
        TEST(test_random_round_trip),
        TEST(test_ranges),
        TEST(test_units),
        TEST(test_units_round_trip),
        TEST(test_hostname),
        TEST(test_files),
        TEST(test_hash_and_restart),
        TEST(test_lines),
        TEST(test_cut_at_every_length),
        TEST(test_document),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
