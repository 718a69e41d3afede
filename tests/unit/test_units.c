/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h> /* cmocka wants these four first */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/random.h"
#include "node/delivery/retry.h"
#include "node/delivery/units.h"

static struct unit_id id_of(unsigned n)
{
    struct unit_id id = {.unit = (uint16_t)n};
    id.msg.bytes[0] = (unsigned char)(n >> 16);
    return id;
}

static void check_order(struct units *u, unsigned expected)
{
    int64_t last = INT64_MIN;
    for (unsigned n = 0; n < expected; n++) {
        struct sched_unit *unit = units_next_due(u);
        assert_non_null(unit);
        assert_true(unit->due_ms >= last);
        last = unit->due_ms;
        units_unwait(u, unit);
    }
    assert_null(units_next_due(u));
}

static void test_due_order(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 50; round++) {
        struct units *u = units_new();
        unsigned count = 1 + (unsigned)random_below(2000), removed = 0;
        struct sched_unit **all = mem_zalloc(count * sizeof(struct sched_unit *));
        for (unsigned i = 0; i < count; i++) {
            all[i] = units_add(u, id_of(i));
            units_wait(u, all[i], (int64_t)random_below(500));
        }
        for (unsigned i = 0; i < count; i++) {
            if (random_below(4) == 0)
                units_wait(u, all[i], (int64_t)random_below(500)); /* moved */
            else if (random_below(4) == 0) {
                units_remove(u, all[i]);
                removed++;
            }
        }
        assert_int_equal(units_count(u), count - removed);
        check_order(u, count - removed);
        free(all);
        units_free(u);
    }
}

static void test_memory_per_unit(void **state)
{
    (void)state;
    struct units *u = units_new();
    enum { COUNT = 100000 };
    units_index(u);
    for (unsigned i = 0; i < COUNT; i++)
        units_wait(u, units_add(u, id_of(i)), i);
    /* The promise is 200 bytes a unit for all of the process. */
    assert_true(units_memory(u) / COUNT < 150);
    units_free(u);
}

static void test_retry_grows_within_bounds(void **state)
{
    (void)state;
    static const struct {
        unsigned attempts;
        int64_t least, most;
    } table[] = {{1, 240000, 360000}, {2, 480000, 720000}, {3, 960000, 1440000},
        {10, 11520000, 17280000}, {60000, 11520000, 17280000}};
    for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        for (unsigned n = 0; n < 1000; n++) {
            int64_t wait = retry_wait_ms(300000, 14400000, table[i].attempts);
            assert_true(wait >= table[i].least && wait <= table[i].most);
        }
    }
    assert_true(retry_wait_ms(100, 100, 1) >= 100);
    assert_true(retry_in_doubt_ms(1000, 4000, 1) >= 1800000);
}

/* The index against a plain array, with ids that collide in the table often. */
static void test_index(void **state)
{
    (void)state;
    enum { IDS = 4000 };
    struct units *u = units_new();
    struct sched_unit **known = mem_zalloc(IDS * sizeof(struct sched_unit *));
    unsigned count = 0;
    units_index(u);
    for (unsigned step = 0; step < 60000; step++) {
        unsigned n = (unsigned)random_below(IDS);
        assert_ptr_equal(units_find(u, id_of(n)), known[n]);
        if (known[n]) {
            units_remove(u, known[n]);
            known[n] = NULL;
            count--;
        } else {
            known[n] = units_add(u, id_of(n));
            count++;
        }
    }
    assert_int_equal(units_count(u), count);
    for (unsigned n = 0; n < IDS; n++)
        assert_ptr_equal(units_find(u, id_of(n)), known[n]);
    free(known);
    units_free(u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_due_order),
        cmocka_unit_test(test_index),
        cmocka_unit_test(test_memory_per_unit),
        cmocka_unit_test(test_retry_grows_within_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
