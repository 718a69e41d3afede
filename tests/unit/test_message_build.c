/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h> /* cmocka wants these four first */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "node/intake/message_build.h"

static struct slice domain_name(struct message *m, unsigned domain)
{
    char room[64];
    snprintf(room, sizeof(room), "d%u.example", domain);
    return arena_dup(m->arena, slice_str(room));
}

static struct slice address(struct message *m, unsigned domain, unsigned user)
{
    char room[64];
    snprintf(room, sizeof(room), "u%u@d%u.example", user, domain);
    return arena_dup(m->arena, slice_str(room));
}

static struct listed_recipient rcpt(struct message *m, unsigned domain, unsigned user)
{
    return (struct listed_recipient){
        .routing = domain_name(m, domain), .rcpt.address = address(m, domain, user)};
}

static void build(struct message *m, struct recipient_list *l)
{
    struct settings_problems problems;
    settings_problems_init(&problems);
    struct settings *s =
        settings_parse(SLICE("hostname: mx.test.example\npostmaster: p@x.example\n"),
            "test.yaml", &problems);
    assert_non_null(s);
    message_build_units(m, l, s);
    settings_unref(s);
    settings_problems_fini(&problems);
}

/* So many recipients of one domain make units of these sizes, and each is in one. */
static void check_split(unsigned count, const unsigned *want, unsigned units)
{
    struct message *m = message_new();
    struct recipient_list l = {0};
    for (unsigned i = 0; i < count; i++) {
        struct listed_recipient r = rcpt(m, 1, 1000 + i);
        recipient_list_add(&l, &r);
    }
    build(m, &l);
    assert_int_equal(m->unit_count, units);
    unsigned user = 1000;
    for (unsigned i = 0; i < units; i++) {
        assert_int_equal(m->units[i].unit, i);
        assert_int_equal(m->units[i].rcpt_count, want[i]);
        assert_true(slice_eq(m->units[i].domain, SLICE("d1.example")));
        for (unsigned at = 0; at < want[i]; at++) {
            struct slice want_address = address(m, 1, user++);
            assert_int_equal(m->units[i].rcpts[at].index, at);
            assert_true(slice_eq(m->units[i].rcpts[at].address, want_address));
        }
    }
    recipient_list_fini(&l);
    message_unref(m);
}

static void a_unit_has_64_recipients_at_most(void **state)
{
    (void)state;
    check_split(1, (unsigned[]){1}, 1);
    check_split(64, (unsigned[]){64}, 1);
    check_split(65, (unsigned[]){64, 1}, 2);
    check_split(200, (unsigned[]){64, 64, 64, 8}, 4);
}

static void domains_do_not_share_units(void **state)
{
    struct message *m = message_new();
    struct recipient_list l = {0};
    (void)state;
    for (unsigned i = 0; i < 130; i++) {
        struct listed_recipient r = rcpt(m, i % 2, 1000 + i);
        recipient_list_add(&l, &r);
    }
    build(m, &l);
    assert_int_equal(m->unit_count, 4); /* 65 of each */
    assert_true(slice_eq(m->units[1].domain, SLICE("d0.example")));
    assert_true(slice_eq(m->units[2].domain, SLICE("d1.example")));
    recipient_list_fini(&l);
    message_unref(m);
}

static bool add(struct message *m, struct recipient_list *l, unsigned domain, unsigned n)
{
    struct listed_recipient r = rcpt(m, domain, n);
    if (!recipient_list_fits(l, r.routing))
        return false;
    recipient_list_add(l, &r);
    return true;
}

/* However the recipients come: what fits makes MESSAGE_UNITS_MAX units, never more. */
static void a_message_has_128_units_at_most(void **state)
{
    struct message *m = message_new();
    struct recipient_list l = {0};
    (void)state;
    for (unsigned d = 0; d < MESSAGE_UNITS_MAX; d++)
        assert_true(add(m, &l, d, 0));
    assert_false(add(m, &l, MESSAGE_UNITS_MAX, 0));
    for (unsigned n = 1; n < UNIT_RCPTS_MAX; n++)
        assert_true(add(m, &l, 7, n));
    assert_false(add(m, &l, 7, UNIT_RCPTS_MAX)); /* would be another unit of it */
    assert_true(add(m, &l, 8, 1));
    build(m, &l);
    assert_int_equal(m->unit_count, MESSAGE_UNITS_MAX);
    recipient_list_fini(&l);
    message_unref(m);
}

static void one_domain_fills_all_units(void **state)
{
    struct message *m = message_new();
    struct recipient_list l = {0};
    (void)state;
    for (unsigned n = 0; n < UNIT_RCPTS_MAX * MESSAGE_UNITS_MAX; n++)
        assert_true(add(m, &l, 1, n));
    assert_false(add(m, &l, 1, 100000));
    assert_false(add(m, &l, 2, 0));
    build(m, &l);
    assert_int_equal(m->unit_count, MESSAGE_UNITS_MAX);
    recipient_list_fini(&l);
    message_unref(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_unit_has_64_recipients_at_most),
        cmocka_unit_test(domains_do_not_share_units),
        cmocka_unit_test(a_message_has_128_units_at_most),
        cmocka_unit_test(one_domain_fills_all_units),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
