/* SPDX-License-Identifier: Apache-2.0 */
/* Who may send what to whom: one table of clients and addresses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants those first */
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "node/intake/policy.h"

static char list_file[] = "/var/tmp/baton-test-policy-XXXXXX";
static struct settings *settings;
static struct policy *policy;

static const char yaml[] =
    "hostname: mx.test.example\n"
    "postmaster: admin@ops.example\n"
    "self: {names: [relay.test.example], addresses: [203.0.113.5]}\n"
    "listeners:\n"
    "  - {name: mx, listen: ['127.0.0.1:0'], service: mx}\n"
    "relay_clients: [10.0.0.0/8, '192.0.2.7', '2001:db8::/48']\n"
    "may_send_as: {alice: [alice@corp.example, '@alice.example'], mute: []}\n"
    "relay_domains:\n"
    "  - {domain: example.org, next_hop: mx, recipients: any}\n"
    "  - {domain: .example.org, next_hop: mx, recipients: verify}\n"
    "  - {domain: deep.sub.example.org, next_hop: mx, recipients: '%s'}\n"
    "  - {domain: .sub.example.org, next_hop: mx, recipients: any}\n"
    "  - {domain: xn--bcher-kva.example, next_hop: mx, recipients: any}\n"
    "routes:\n"
    "  - {domain: routed.example, next_hop: ['[192.0.2.30]:25']}\n"
    "  - {domain: .wild.example, next_hop: ['[192.0.2.30]:25']}\n";

struct want {
    const char *rcpt; /* with brackets */
    enum service service;
    const char *user; /* or "" */
    bool relay_client;
    enum policy_action action;
    int code;
    const char *goes_to; /* or NULL: as given */
};

static const struct want recipients[] = {
    /* mx: relay domains only, whoever asks */
    {"<a@example.org>", SERVICE_MX, "", false, POLICY_ACCEPT, 0, NULL},
    {"<a@EXAMPLE.ORG>", SERVICE_MX, "", false, POLICY_ACCEPT, 0, NULL},
    {"<a@elsewhere.example>", SERVICE_MX, "", false, POLICY_REFUSE, 550, NULL},
    {"<a@elsewhere.example>", SERVICE_MX, "", true, POLICY_REFUSE, 550, NULL},
    {"<a@xexample.org>", SERVICE_MX, "", false, POLICY_REFUSE, 550, NULL},
    {"<a@org>", SERVICE_MX, "", false, POLICY_REFUSE, 550, NULL},
    {"<a@[192.0.2.1]>", SERVICE_MX, "", false, POLICY_REFUSE, 550, NULL},
    {"<a@b\xc3\xbc"
     "cher.example>",
        SERVICE_MX, "", false, POLICY_ACCEPT, 0, NULL},
    /* the most specific entry decides */
    {"<a@x.example.org>", SERVICE_MX, "", false, POLICY_VERIFY, 0, NULL},
    {"<a@x.sub.example.org>", SERVICE_MX, "", false, POLICY_ACCEPT, 0, NULL},
    {"<joe@deep.sub.example.org>", SERVICE_MX, "", false, POLICY_ACCEPT, 0, NULL},
    {"<Jane@deep.sub.example.org>", SERVICE_MX, "", false, POLICY_ACCEPT, 0, NULL},
    {"<jim@deep.sub.example.org>", SERVICE_MX, "", false, POLICY_REFUSE, 550, NULL},
    {"<a@y.deep.sub.example.org>", SERVICE_MX, "", false, POLICY_ACCEPT, 0, NULL},
    /* old tricks: routes through us */
    {"<@example.org:a@elsewhere.example>", SERVICE_MX, "", false, POLICY_REFUSE, 550,
        NULL},
    {"<a%elsewhere.example@example.org>", SERVICE_MX, "", false, POLICY_ACCEPT, 0, NULL},
    {"<\"a@elsewhere.example\"@mx.test.example>", SERVICE_MX, "", false, POLICY_REFUSE,
        550, NULL},
    /* postmaster and abuse */
    {"<postmaster>", SERVICE_MX, "", false, POLICY_ACCEPT, 0, "admin@ops.example"},
    {"<POSTMASTER@mx.test.example>", SERVICE_MX, "", false, POLICY_ACCEPT, 0,
        "admin@ops.example"},
    {"<abuse@relay.test.example>", SERVICE_MX, "", false, POLICY_ACCEPT, 0,
        "admin@ops.example"},
    {"<abuse@[203.0.113.5]>", SERVICE_MX, "", false, POLICY_ACCEPT, 0,
        "admin@ops.example"},
    {"<abuse@[203.0.113.6]>", SERVICE_MX, "", false, POLICY_REFUSE, 550, NULL},
    {"<joe@mx.test.example>", SERVICE_MX, "", false, POLICY_REFUSE, 550, NULL},
    {"<abuse@deep.sub.example.org>", SERVICE_MX, "", false, POLICY_ACCEPT, 0, NULL},
    {"<postmaster@x.example.org>", SERVICE_MX, "", false, POLICY_ACCEPT, 0, NULL},
    {"<postmaster@elsewhere.example>", SERVICE_MX, "", false, POLICY_REFUSE, 550, NULL},
    /* submission: users and relay clients, to anybody */
    {"<a@elsewhere.example>", SERVICE_SUBMISSION, "alice", false, POLICY_LOOKUP, 0, NULL},
    {"<a@elsewhere.example>", SERVICE_SUBMISSION, "", true, POLICY_LOOKUP, 0, NULL},
    {"<a@elsewhere.example>", SERVICE_SUBMISSION, "", false, POLICY_REFUSE, 530, NULL},
    {"<a@example.org>", SERVICE_SUBMISSION, "", false, POLICY_REFUSE, 530, NULL},
    {"<a@example.org>", SERVICE_SUBMISSION, "alice", false, POLICY_ACCEPT, 0, NULL},
    {"<a@routed.example>", SERVICE_SUBMISSION, "alice", false, POLICY_ACCEPT, 0, NULL},
    {"<a@x.wild.example>", SERVICE_SUBMISSION, "alice", false, POLICY_ACCEPT, 0, NULL},
    {"<a@wild.example>", SERVICE_SUBMISSION, "alice", false, POLICY_LOOKUP, 0, NULL},
    {"<a@[192.0.2.1]>", SERVICE_SUBMISSION, "alice", false, POLICY_ACCEPT, 0, NULL},
};

static void recipient_table(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(recipients) / sizeof(recipients[0]); i++) {
        const struct want *want = &recipients[i];
        struct policy_client client = {.service = want->service,
            .is_relay_client = want->relay_client,
            .has_tls = true,
            .auth_offered = true,
            .user = slice_str(want->user)};
        struct smtp_path path;
        struct policy_rcpt got;
        size_t used;
        if (smtp_path_parse(slice_str(want->rcpt), SMTP_FORWARD_PATH, &path, &used) !=
            PARSE_DONE)
            fail_msg("cannot parse %s", want->rcpt);
        policy_recipient(policy, &client, &path, &got);
        if (got.verdict.action != want->action || got.verdict.code != want->code)
            fail_msg("row %u %s: action %d code %d", i, want->rcpt, got.verdict.action,
                got.verdict.code);
        if (want->action == POLICY_REFUSE)
            continue;
        struct slice to = want->goes_to ? slice_str(want->goes_to) : path.address;
        if (!slice_eq(got.address, to))
            fail_msg("row %u goes to %.*s", i, SLICE_ARG(got.address));
    }
}

static const struct {
    const char *from, *user;
    enum service service;
    bool relay_client, has_tls, auth_offered;
    int code; /* 0: accepted */
} senders[] = {
    {"<>", "", SERVICE_MX, false, false, false, 0},
    {"<a@b.example>", "", SERVICE_MX, false, false, false, 0},
    {"<a@b.example>", "", SERVICE_SUBMISSION, true, false, false, 0},
    {"<a@b.example>", "", SERVICE_SUBMISSION, false, true, true, 530},
    {"<a@b.example>", "", SERVICE_SUBMISSION, false, false, true, 530},
    {"<a@b.example>", "", SERVICE_SUBMISSION, false, false, false, 550},
    {"<a@b.example>", "bob", SERVICE_SUBMISSION, false, true, true, 0},
    {"<alice@corp.example>", "alice", SERVICE_SUBMISSION, false, true, true, 0},
    {"<Alice@Corp.Example>", "alice", SERVICE_SUBMISSION, false, true, true, 0},
    {"<any@alice.example>", "alice", SERVICE_SUBMISSION, false, true, true, 0},
    {"<>", "alice", SERVICE_SUBMISSION, false, true, true, 0},
    {"<bob@corp.example>", "alice", SERVICE_SUBMISSION, false, true, true, 553},
    {"<a@x.alice.example>", "alice", SERVICE_SUBMISSION, false, true, true, 553},
    {"<bob@corp.example>", "alice", SERVICE_SUBMISSION, true, true, true, 553},
    {"<a@b.example>", "mute", SERVICE_SUBMISSION, false, true, true, 553},
};

static void sender_table(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(senders) / sizeof(senders[0]); i++) {
        struct policy_client client = {.service = senders[i].service,
            .is_relay_client = senders[i].relay_client,
            .has_tls = senders[i].has_tls,
            .auth_offered = senders[i].auth_offered,
            .user = slice_str(senders[i].user)};
        struct smtp_path path;
        size_t used;
        assert_int_equal(
            smtp_path_parse(slice_str(senders[i].from), SMTP_REVERSE_PATH, &path, &used),
            PARSE_DONE);
        struct policy_verdict v = policy_sender(policy, &client, &path);
        if (v.code != senders[i].code || (v.code != 0) != (v.action == POLICY_REFUSE))
            fail_msg("row %u %s: code %d", i, senders[i].from, v.code);
    }
}

static void relay_client_addresses(void **state)
{
    static const struct {
        const char *ip;
        bool is;
    } rows[] = {{"10.1.2.3", true}, {"::ffff:10.1.2.3", true}, {"11.1.2.3", false},
        {"192.0.2.7", true}, {"::ffff:c000:207", true}, {"192.0.2.8", false},
        {"2001:db8::1", true}, {"2001:db8:1::1", false}, {"::10.1.2.3", false}};
    (void)state;
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct ipaddr ip;
        assert_true(ipaddr_parse(slice_str(rows[i].ip), &ip));
        if (policy_is_relay_client(policy, ip) != rows[i].is)
            fail_msg("%s", rows[i].ip);
    }
}

static void bad_recipient_lists_are_named(void **state)
{
    static const char text[] =
        "hostname: h.example\npostmaster: a@b.example\nlisteners:\n"
        "  - {name: mx, listen: ['127.0.0.1:0'], service: mx}\n"
        "relay_domains:\n"
        "  - {domain: example.org, next_hop: mx, recipients: /nowhere/list}\n";
    struct settings_problems problems;
    (void)state;
    settings_problems_init(&problems);
    struct settings *s = settings_parse(slice_str(text), "t.yaml", &problems);
    assert_non_null(s);
    policy_unref(policy_new(s, &problems));
    assert_int_equal(problems.count, 1);
    buf_append_char(&problems.text, '\0');
    assert_string_equal(problems.text.mem,
        "t.yaml:6: recipients: cannot read /nowhere/list: No such file or directory\n");
    settings_problems_fini(&problems);
    settings_unref(s);
}

static int set_up(void **state)
{
    struct settings_problems problems;
    char text[4096];
    int fd = mkstemp(list_file);
    (void)state;
    FILE *list = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (!list)
        return -1;
    fputs("joe@deep.sub.example.org\n# no one\njane\n", list);
    fclose(list);
    snprintf(text, sizeof(text), yaml, list_file);
    settings_problems_init(&problems);
    settings = settings_parse(slice_str(text), "test.yaml", &problems);
    if (settings)
        policy = policy_new(settings, &problems);
    if (problems.count)
        printf("%.*s", SLICE_ARG(buf_slice(&problems.text)));
    bool good = problems.count == 0;
    settings_problems_fini(&problems);
    return good ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    policy_unref(policy);
    settings_unref(settings);
    return unlink(list_file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recipient_table),
        cmocka_unit_test(sender_table),
        cmocka_unit_test(relay_client_addresses),
        cmocka_unit_test(bad_recipient_lists_are_named),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
