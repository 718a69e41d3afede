/* SPDX-License-Identifier: Apache-2.0 */
/* State of the cluster that changes at run time: the last write wins, in any order. */
#include "node/control/shared.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/random.h"

#define T0 INT64_C(1800000000000)
static struct wall now = {T0};
static struct shared *a, *b, *c;

static int setup(void **state)
{
    (void)state;
    a = mem_zalloc(sizeof(*a));
    b = mem_zalloc(sizeof(*b));
    c = mem_zalloc(sizeof(*c));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(a);
    free(b);
    free(c);
    return 0;
}

static unsigned tell(const struct shared *from, struct shared *to)
{
    json_t *rows = shared_json(from);
    unsigned taken = shared_merge(to, rows, now);
    json_decref(rows);
    return taken;
}

static void test_nets(void **state)
{
    (void)state;
    static const struct {
        const char *text, *key; /* NULL: refused */
    } rows[] = {{"10.1.2.3/8", "10.0.0.0/8"}, {"192.0.2.7", "192.0.2.7/32"},
        {"2001:db8::/32", "2001:db8::/32"}, {"0.0.0.0/0", NULL}, {"10.0.0.0/7", NULL},
        {"::/0", NULL}, {"2001:db8::/31", NULL}, {"", NULL}, {"x", NULL},
        {"10.0.0.0/33", NULL}, {"10.0.0.0/8 ", NULL}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char key[SHARED_KEY_MAX] = "", why[256] = "";
        bool ok = shared_net(slice_str(rows[i].text), key, why, sizeof(why));
        if (ok != (rows[i].key != NULL))
            fail_msg("%s: %s", rows[i].text, why);
        if (ok)
            assert_string_equal(key, rows[i].key);
        else
            assert_true(why[0] != '\0');
    }
}

static void test_write_and_end(void **state)
{
    (void)state;
    struct cidr nets[4];
    assert_non_null(shared_write(
        a, SHARED_ALLOW, "10.0.0.0/8", (struct wall){T0 + 1000}, false, "mx1", now));
    assert_non_null(
        shared_write(a, SHARED_LOCK, "alice", (struct wall){0}, false, "mx1", now));
    assert_int_equal(shared_nets(a, now, nets, 4), 1);
    assert_non_null(shared_find(a, SHARED_ALLOW, "10.0.0.0/8", now));
    assert_null(shared_find(a, SHARED_LOCK, "10.0.0.0/8", now));
    struct wall later = {T0 + 1000};
    assert_int_equal(shared_nets(a, later, nets, 4), 0);
    assert_null(shared_find(a, SHARED_ALLOW, "10.0.0.0/8", later));
    shared_write(a, SHARED_LOCK, "alice", (struct wall){0}, true, "mx2", now);
    assert_null(shared_find(a, SHARED_LOCK, "alice", now));
    assert_int_equal(a->count, 2);
    struct wall long_after = {T0 + 2000 + SHARED_GONE_MS};
    json_t *rows = shared_json(a);
    shared_sweep(a, long_after);
    assert_int_equal(a->count, 0);
    assert_int_equal(shared_merge(a, rows, long_after), 0);
    json_decref(rows);
}

/* A removal wins over what it removed, also where the clock is behind. */
static void test_removal_stays(void **state)
{
    (void)state;
    struct wall behind = {T0 - 3600000};
    shared_write(a, SHARED_ALLOW, "10.0.0.0/8", (struct wall){0}, false, "mx1", now);
    assert_int_equal(tell(a, b), 1);
    shared_write(b, SHARED_ALLOW, "10.0.0.0/8", (struct wall){0}, true, "mx2", behind);
    assert_int_equal(tell(a, b), 0);
    assert_int_equal(tell(b, a), 1);
    assert_null(shared_find(a, SHARED_ALLOW, "10.0.0.0/8", now));
    assert_int_equal(shared_hash(a), shared_hash(b));
}

/* Random writes at three nodes, told around in random order: all end up the same. */
static void test_any_order(void **state)
{
    (void)state;
    struct shared *all[] = {a, b, c};
    static const char *const names[] = {"mx1", "mx2", "mx3"};
    for (int round = 0; round < 300; round++) {
        unsigned at = (unsigned)random_below(3);
        char key[32];
        snprintf(key, sizeof(key), "u%u", (unsigned)random_below(20));
        struct wall when = {T0 + (int64_t)random_below(5)};
        if (random_below(3))
            shared_write(all[at], SHARED_LOCK, key, (struct wall){0},
                random_below(2) == 0, names[at], when);
        else
            tell(all[at], all[random_below(3)]);
    }
    for (int i = 0; i < 2; i++)
        for (int x = 0; x < 3; x++)
            for (int y = 0; y < 3; y++)
                tell(all[x], all[y]);
    assert_int_equal(shared_hash(a), shared_hash(b));
    assert_int_equal(shared_hash(a), shared_hash(c));
    assert_true(a->count > 10);
}

static void test_garbage(void **state)
{
    (void)state;
    static const char *const rows[] = {"{}", "{\"a\":1}", "[1,null,[],\"x\"]",
        "[{\"kind\":\"allow\"}]",
#define ROW(kind, key, until, stamp, by, gone)                                           \
    "[{\"kind\":\"" kind "\",\"key\":" key ",\"until\":" until ",\"stamp\":" stamp       \
    ",\"by\":\"" by "\",\"gone\":" gone "}]"
        ROW("allow", "\"0.0.0.0/0\"", "0", "1", "x", "false"),
        ROW("allow", "\"10.0.0.1/8\"", "0", "1", "x", "false"),
        ROW("allow", "7", "0", "1", "x", "false"),
        ROW("other", "\"x\"", "0", "1", "x", "false"),
        ROW("lock", "\"\"", "0", "1", "x", "false"),
        ROW("lock", "\"a\\nb\"", "0", "1", "x", "false"),
        ROW("lock", "\"a\"", "-1", "1", "x", "false"),
        ROW("lock", "\"a\"", "0", "9223372036854775807", "x", "false"),
        ROW("lock", "\"a\"", "0", "\"1\"", "x", "false"),
        ROW("lock", "\"a\"", "0", "1", "", "false"),
        ROW("lock", "\"a\"", "0", "1", "a123456789b123456789c123456789d1", "false"),
        ROW("lock", "\"a\"", "0", "1", "x", "0")};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        json_t *j = json_loads(rows[i], 0, NULL);
        if (!j)
            fail_msg("not JSON: %s", rows[i]);
        if (shared_merge(a, j, now) != 0 || a->count)
            fail_msg("taken: %s", rows[i]);
        json_decref(j);
    }
}

static void test_bounds(void **state)
{
    (void)state;
    static struct cidr nets[SHARED_ROWS_MAX];
    char key[32];
    for (int i = 0; i < SHARED_ROWS_MAX; i++) {
        snprintf(key, sizeof(key), "u%d", i);
        assert_non_null(
            shared_write(a, SHARED_LOCK, key, (struct wall){0}, false, "mx1", now));
    }
    assert_null(
        shared_write(a, SHARED_LOCK, "more", (struct wall){0}, false, "mx1", now));
    assert_non_null(
        shared_write(a, SHARED_LOCK, "u7", (struct wall){0}, true, "mx1", now));
    assert_int_equal(tell(a, b), SHARED_ROWS_MAX);
    assert_int_equal(shared_hash(a), shared_hash(b));
    /* Each for itself is fine; together they would be the Internet. */
    for (int i = 1; i < 100; i++) {
        snprintf(key, sizeof(key), "%d.0.0.0/8", i);
        shared_write(c, SHARED_ALLOW, key, (struct wall){0}, false, "mx1", now);
    }
    unsigned count = shared_nets(c, now, nets, SHARED_ROWS_MAX);
    assert_in_range(count, 2, 3); /* 10.0.0.0/8 is private, and not counted */
    assert_int_equal(shared_nets(c, now, nets, 1), 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {TEST(test_nets), TEST(test_write_and_end),
        TEST(test_removal_stays), TEST(test_any_order), TEST(test_garbage),
        TEST(test_bounds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
