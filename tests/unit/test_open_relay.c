/* SPDX-License-Identifier: Apache-2.0 */
/* Settings that would make an open relay are refused, with the line that does it;
 * settings that would not are not. Also what else intake_check looks at. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants those first */
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/intake/intake.h"
#include "node/intake/open_relay.h"

#define HEAD "hostname: mx.test.example\npostmaster: a@ops.example\n"
#define MX "listeners:\n  - {name: mx, listen: ['127.0.0.1:0'], service: mx}\n"

/* `want` is all that is said, or its beginning when it ends in "...". */
static const struct {
    const char *name, *yaml, *want;
} rows[] = {
    {"plain", HEAD MX, ""},
    {"everybody is a relay client", HEAD MX "relay_clients: [0.0.0.0/0]\n",
        "t:5: relay_clients: 0.0.0.0/0 is wider than /8: ..."},
    {"half of everybody", HEAD MX "relay_clients: [0.0.0.0/1, 128.0.0.0/1]\n",
        "t:5: relay_clients: 0.0.0.0/1 is wider than /8: ..."},
    {"a /7", HEAD MX "relay_clients: [10.0.0.0/7]\n", "t:5: relay_clients: ..."},
    {"a /8 is a big customer", HEAD MX "relay_clients: [17.0.0.0/8]\n", ""},
    {"private networks",
        HEAD MX
        "relay_clients: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, "
        "127.0.0.0/8, '::1']\n",
        ""},
    {"a default route in disguise",
        HEAD MX "relay_clients: [16.0.0.0/8, 17.0.0.0/8, 18.0.0.0/8]\n",
        "t:5: relay_clients: the IPv4 networks together hold more than two /8: ..."},
    {"the same /8 thrice is one",
        HEAD MX "relay_clients: [16.0.0.0/8, 16.0.0.0/8, 16.1.0.0/16, 16.2.0.0/16]\n",
        ""},
    {"all of IPv6", HEAD MX "relay_clients: ['::/0']\n", "t:5: relay_clients: ..."},
    {"an IPv6 /31", HEAD MX "relay_clients: ['2001:db8::/31']\n",
        "t:5: relay_clients: ..."},
    {"an IPv6 /32", HEAD MX "relay_clients: ['2001:db8::/32']\n", ""},
    {"IPv4-mapped default route", HEAD MX "relay_clients: ['::ffff:0.0.0.0/96']\n",
        "t:5: relay_clients: 0.0.0.0/0 is wider than /8: ..."},
    {"allow everybody",
        HEAD "listeners:\n"
             "  - {name: mx, listen: ['127.0.0.1:0'], service: mx, allow: [0.0.0.0/0]}\n",
        "t:4: listeners[0].allow: 0.0.0.0/0 is wider than /8: ..."},
    {"PROXY from anywhere",
        HEAD "listeners:\n"
             "  - {name: mx, listen: ['127.0.0.1:0'], service: mx, "
             "proxy_protocol: {from: [0.0.0.0/0]}}\n",
        "t:4: listeners[0].proxy_protocol: 0.0.0.0/0 is wider than /8: ..."},
    {"XCLIENT from anywhere",
        HEAD
        "listeners:\n"
        "  - {name: mx, listen: ['127.0.0.1:0'], service: mx, xclient_from: ['::/0']}\n",
        "t:4: listeners[0].xclient_from: ::/0 is wider than /32: ..."},
    {"relay to everybody",
        HEAD MX "relay_domains:\n  - {domain: '*', next_hop: mx, recipients: any}\n",
        "t:6: relay_domains[0].domain: ..."},
    {"relay to a top level domain",
        HEAD MX "relay_domains:\n  - {domain: com, next_hop: mx, recipients: any}\n",
        "t:6: relay_domains[0].domain: com is a public suffix: ..."},
    {"relay to all under a suffix",
        HEAD MX "relay_domains:\n  - {domain: .co.uk, next_hop: mx, recipients: any}\n",
        "t:6: relay_domains[0].domain: co.uk is a public suffix: ..."},
    {"relay to all under a domain",
        HEAD MX
        "relay_domains:\n  - {domain: .example.co.uk, next_hop: mx, recipients: any}\n",
        ""},
    {"mx without postmaster", "hostname: mx.test.example\n" MX,
        "t:3: listeners[0].service: mx needs postmaster: ..."},
    {"postmaster at ourselves",
        "hostname: mx.test.example\n"
        "postmaster: me@mx.test.example\n" MX,
        "t:2: postmaster: me@mx.test.example is at our own name, ..."},
    {"certificate without key", HEAD MX "tls: {certificate: /nowhere/c.pem}\n", "t..."},
    {"files that are not there",
        HEAD MX "tls: {certificate: /nowhere/c.pem, key: /nowhere/k.pem}\n"
                "users: {file: /nowhere/users}\n",
        "t:5: tls.certificate: cannot read certificate /nowhere/c.pem: No such file or "
        "directory\nt:6: users.file: cannot read /nowhere/users: No such file or "
        "directory\n"},
    {"TLS required without certificate",
        HEAD
        "listeners:\n"
        "  - {name: s, listen: ['127.0.0.1:0'], service: submission, tls: required}\n",
        "t..."},
    {"AUTH without TLS",
        HEAD "listeners:\n"
             "  - {name: s, listen: ['0.0.0.0:0'], service: submission, tls: none}\n"
             "users: {file: /dev/null}\n",
        "t:4: listeners[0].tls: AUTH without TLS ..."},
    {"nobody else can reach it",
        HEAD "listeners:\n"
             "  - {name: s, listen: ['127.0.0.1:0'], service: submission, tls: none}\n",
        ""},
    {"not an address to send as", HEAD MX "may_send_as: {joe: ['a b@c']}\n", "t..."},
};

static bool matches(const char *got, const char *want)
{
    size_t len = strlen(want);
    if (len >= 3 && strcmp(want + len - 3, "...") == 0)
        return strncmp(got, want, len - 3) == 0;
    return strcmp(got, want) == 0;
}

static void table(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct settings_problems problems;
        settings_problems_init(&problems);
        struct settings *s = settings_parse(slice_str(rows[i].yaml), "t", &problems);
        if (s)
            intake_check(s, &problems);
        buf_append_char(&problems.text, '\0');
        if (!matches(problems.text.mem + problems.text.head, rows[i].want))
            fail_msg("%s\nwant %s\ngot %s", rows[i].name, rows[i].want,
                problems.text.mem + problems.text.head);
        settings_problems_fini(&problems);
        settings_unref(s);
    }
}

static void everybody(void **state)
{
    static const struct {
        const char *domain;
        bool is;
    } domains[] = {{"*", true}, {".", true}, {"", true}, {"*.", true}, {"com", true},
        {".com", true}, {"*.com", true}, {"co.uk", true}, {"example.com", false},
        {"example.co.uk", false}, {".example.org", false}, {"lan", false},
        {"internal.lan", false}, {"github.io", true}, {"someone.github.io", false}};
    char why[400];
    (void)state;
    for (unsigned i = 0; i < sizeof(domains) / sizeof(domains[0]); i++)
        if (open_relay_is_everybody(domains[i].domain, why, sizeof(why)) != domains[i].is)
            fail_msg("%s", domains[i].domain);
}

/* 256 /16 make a /8, 768 of them three: however it is cut, the sum is seen. */
static void cut_small(void **state)
{
    struct cidr nets[1024];
    struct cidr_list list = {.items = nets};
    char why[400];
    (void)state;
    for (unsigned i = 0; i < 768; i++)
        nets[list.count++] =
            (struct cidr){{4, {(uint8_t)(20 + i / 256), (uint8_t)(i % 256)}}, 16};
    assert_true(open_relay_too_much(&list, why, sizeof(why)));
    list.count = 512;
    assert_false(open_relay_too_much(&list, why, sizeof(why)));
    list.count = 0;
    for (unsigned i = 0; i < 300; i++)
        nets[list.count++] =
            (struct cidr){{6, {0x20, (uint8_t)(i / 256), (uint8_t)(i % 256)}}, 32};
    assert_true(open_relay_too_much(&list, why, sizeof(why)));
    list.count = 256;
    assert_false(open_relay_too_much(&list, why, sizeof(why)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table),
        cmocka_unit_test(everybody),
        cmocka_unit_test(cut_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
