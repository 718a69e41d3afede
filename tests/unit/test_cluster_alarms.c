/* SPDX-License-Identifier: Apache-2.0 */
/* What a snapshot of the cluster says to whom it wakes. */
#include "node/control/cluster_alarms.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "node/control/members.h"

#define NODE_ROLES (ROLE_VOTER | ROLE_STORE | ROLE_EGRESS)

static struct engine_status st;

static void three_nodes(void)
{
    st = (struct engine_status){.name = "prod",
        .mode = MODE_QUORUM,
        .copies = 2,
        .state = "ready",
        .lease_ms = 9000,
        .member_count = 3};
    for (unsigned i = 0; i < 3; i++) {
        st.members[i] = (struct engine_member){.node = i + 1,
            .roles = NODE_ROLES,
            .state = MEMBER_UP,
            .is_self = i == 0,
            .settings_hash = 7};
        snprintf(st.members[i].name, sizeof(st.members[i].name), "mx%u", i + 1);
    }
}

/* "code: text\n" of all that hold. */
static const char *all(void)
{
    static char out[2048];
    out[0] = '\0';
    for (unsigned i = 0; i < CLUSTER_ALARMS; i++) {
        char text[256] = "";
        if (cluster_alarms[i].look(&st, text, sizeof(text)))
            snprintf(out + strlen(out), sizeof(out) - strlen(out), "%s: %s\n",
                cluster_alarms[i].code, text);
    }
    return out;
}

static void test_alarms(void **state)
{
    (void)state;
    three_nodes();
    assert_string_equal(all(), "");
    st.members[2].view = 2;
    assert_string_equal(all(), "node_down: mx3 is down\n");
    st.members[1].view = 2;
    st.lease_ms = 0;
    st.state = "opening";
    assert_string_equal(all(),
        "no_lease: mx1 has no lease (opening): it delivers nothing, and takes no new "
        "mail "
        "for long; 1 of 3 voters answer it\nnode_down: mx2, mx3 are down\n");
    st.members[0].roles = ROLE_VOTER; /* a witness */
    assert_string_equal(all(), "node_down: mx2, mx3 are down\n");
    three_nodes();
    st.mode = MODE_STATIC;
    st.lease_ms = INT64_MAX;
    st.members[1].view = 2;
    assert_string_equal(all(),
        "peer_down_static: mx2 is down, and without a third vote nobody takes over: its "
        "mail waits for it\n");
    st.members[1].session = 2; /* and then it was said */
    assert_string_equal(all(), "node_down: mx2 is down\n");
    three_nodes();
    st.copies_short = 1;
    assert_string_equal(
        all(), "copies_short: 1 message has fewer copies than the 2 that are promised\n");
    three_nodes();
    st.members[1].settings_hash = 8;
    st.members[2].settings_hash = 0; /* not heard yet */
    assert_string_equal(
        all(), "settings_differ: settings of mx2 differ from this node's\n");
    three_nodes();
    st.members[1].state = MEMBER_DRAINING;
    st.members[2].state = MEMBER_JOINING;
    st.members[2].view = 2;
    assert_string_equal(all(), "on_the_move: mx3 did not finish joining, mx2 drains\n");
    three_nodes();
    st.seeds_failing = 1;
    snprintf(st.seed_problem, sizeof(st.seed_problem), "mx9.test:7420: NXDOMAIN");
    assert_string_equal(all(),
        "seed_unknown: cluster.seeds: cannot be resolved: mx9.test:7420: NXDOMAIN\n");
    st.seeds_failing = 3;
    assert_string_equal(all(),
        "seed_unknown: cluster.seeds: cannot be resolved: mx9.test:7420: NXDOMAIN; and 2 "
        "more\n");
    three_nodes();
    st.members[0].is_self = false;
    assert_string_equal(all(),
        "not_a_member: this node is no member of the cluster prod: it "
        "was removed, or another took its name\n");
    st = (struct engine_status){.name = "prod"};
    assert_string_equal(
        all(), "not_a_member: this node is no member of the cluster prod yet\n");
}

/* More names than fit are cut, not overrun; every alarm has its next step. */
static void test_many(void **state)
{
    (void)state;
    three_nodes();
    st.member_count = CORE_MEMBERS_MAX;
    for (unsigned i = 1; i < CORE_MEMBERS_MAX; i++) {
        st.members[i] = (struct engine_member){
            .roles = NODE_ROLES, .state = MEMBER_UP, .view = 2, .settings_hash = 9};
        snprintf(st.members[i].name, sizeof(st.members[i].name),
            "a-rather-long-name-of-mx%u", i + 1);
    }
    const char *text = all();
    assert_non_null(strstr(text, "node_down: a-rather-long-name-of-mx2, "));
    assert_true(strlen(text) < 700);
    for (unsigned i = 0; i < CLUSTER_ALARMS; i++) {
        assert_true(
            strlen(cluster_alarms[i].code) < sizeof(((struct control_alarm *)0)->code));
        assert_in_range(strlen(cluster_alarms[i].next_step), 20,
            sizeof(((struct control_alarm *)0)->next_step) - 1);
    }
}

static void test_members(void **state)
{
    (void)state;
    three_nodes();
    st.members[1].state = MEMBER_LEFT;
    assert_null(member_find(&st, "mx2"));
    assert_ptr_equal(member_find(&st, "mx3"), &st.members[2]);
    assert_null(member_find(&st, ""));
    assert_ptr_equal(member_self(&st), &st.members[0]);
    json_t *cluster = cluster_json(&st);
    assert_int_equal(json_integer_value(json_object_get(cluster, "nodes")), 2);
    json_decref(cluster);
    assert_string_equal(member_view_name(2), "dead");
    assert_string_equal(member_view_name(9), "unknown");
    assert_string_equal(member_session_name(2), "fenced");
    assert_string_equal(member_session_name(3), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alarms),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_members),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
