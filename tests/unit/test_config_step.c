/* SPDX-License-Identifier: Apache-2.0 */
/* Versions as values: what one change makes of the version before, and what it may not.
 */
#include "cluster/core/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define MAIL (ROLE_STORE | ROLE_EGRESS)

static struct core_cfg members(uint8_t count, uint8_t voters)
{
    struct core_cfg c = {.ver = 7, .mode_ver = 1, .voters_ver = 3, .prev_ver = 1};
    c.mode = MODE_QUORUM;
    c.copies = 2;
    c.min_copies = 1;
    c.count = count;
    for (uint8_t i = 0; i < count; i++) {
        c.member[i].node = i + 1u;
        c.member[i].weight = 1;
        c.member[i].roles = (uint8_t)(MAIL | (i < voters ? ROLE_VOTER : 0));
    }
    return c;
}

static struct cfg_change pair_with(uint64_t node)
{
    struct cfg_change c = {.op = CFG_ROLES, .node = node, .mode = MODE_STATIC};
    c.roles = MAIL | ROLE_VOTER;
    return c;
}

static void two_become_static_in_one_step(void **state)
{
    struct core_cfg c = members(2, 1);
    struct cfg_change change = pair_with(2);
    (void)state;
    assert_true(cfg_apply(&c, &change));
    assert_true(cfg_valid(&c));
    assert_int_equal(c.mode, MODE_STATIC);
    assert_int_equal(cfg_voters(&c), 2);
    assert_int_equal(c.ver, 8);
    assert_int_equal(c.mode_ver, 8);
    assert_int_equal(c.voters_ver, 8);
    assert_int_equal(c.prev_ver, 3);
    assert_int_equal(c.was_voters, 0); /* static mode takes over no table */
}

static void a_pair_is_made_of_two(void **state)
{
    struct cfg_change change = pair_with(2);
    struct core_cfg three = members(3, 1), both = members(2, 2), second = members(2, 1);
    (void)state;
    assert_false(cfg_apply(&three, &change));
    assert_false(cfg_apply(&both, &change));
    change.roles = MAIL; /* a vote that is not given */
    assert_false(cfg_apply(&second, &change));
    second = members(2, 1);
    change = pair_with(1); /* who has it already */
    assert_false(cfg_apply(&second, &change));
    second = members(2, 1);
    second.mode = MODE_STATIC;
    change = pair_with(2);
    assert_false(cfg_apply(&second, &change));
}

static void a_vote_alone_keeps_the_mode(void **state)
{
    struct core_cfg c = members(2, 1);
    struct cfg_change change = pair_with(2);
    (void)state;
    change.mode = 0;
    assert_true(cfg_apply(&c, &change));
    assert_int_equal(c.mode, MODE_QUORUM);
    assert_int_equal(c.was_voters, 1);
    assert_int_equal(c.mode_ver, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_become_static_in_one_step),
        cmocka_unit_test(a_pair_is_made_of_two),
        cmocka_unit_test(a_vote_alone_keeps_the_mode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
