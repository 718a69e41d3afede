/* SPDX-License-Identifier: Apache-2.0 */
/* Who waits with DATA while processors are short, who does not, and for how long. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "node/intake/pace.h"

#define BUDGET 1000
#define WAITERS 3

/* A kernel that says what the test wants: ns a millisecond of time. */
static uint64_t delay_per_ms;
static bool kernel_is_silent;

static bool fake_delay(struct pace *p, uint64_t *out)
{
    (void)p;
    *out = (uint64_t)(mono_now().ns / NS_PER_MS) * delay_per_ms;
    return !kernel_is_silent;
}

struct waiter {
    struct pace_wait wait;
    unsigned turn; /* 0: not yet */
};

static struct {
    struct loop *loop;
    struct hot_memory hot;
    struct pace_memory memory;
    struct pace pace;
    struct waiter waiters[WAITERS];
    unsigned turns;
} w;

static void its_turn(struct pace_wait *wait)
{
    struct waiter *me = CONTAINER_OF(wait, struct waiter, wait);
    me->turn = ++w.turns;
}

static void leave_one(uint64_t bytes)
{
    atomic_fetch_sub(&w.hot.bytes, bytes);
    atomic_fetch_add(&w.hot.left, 1);
}

static void until(struct mono end)
{
    while (mono_diff_ms(end, mono_now()) > 0)
        ;
}

/* As a busy node looks: full, letting go, and short of processors. */
static int set_up(void **state)
{
    (void)state;
    memset(&w, 0, sizeof(w));
    delay_per_ms = NS_PER_MS / 2;
    kernel_is_silent = false;
    w.loop = loop_new();
    w.memory.hot = &w.hot;
    pace_init(&w.pace, w.loop, &w.memory);
    w.pace.run_delay = fake_delay;
    for (unsigned i = 0; i < WAITERS; i++)
        w.waiters[i].wait =
            (struct pace_wait){.bytes = 100, .budget = BUDGET, .go = its_turn};
    atomic_store(&w.hot.bytes, BUDGET);
    atomic_store(&w.hot.left, 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    pace_fini(&w.pace);
    loop_free(w.loop);
    return 0;
}

/* As transaction_begin does. */
static bool line_up(unsigned i)
{
    atomic_fetch_add(&w.memory.reserved, 100);
    return pace_line_up(&w.pace, &w.waiters[i].wait);
}

/* The first look only begins to measure. */
static void measure(void)
{
    atomic_fetch_add(&w.hot.bytes, 1);
    assert_false(pace_line_up(&w.pace, &w.waiters[0].wait));
    atomic_fetch_sub(&w.hot.bytes, 1);
    until(mono_add_ms(mono_now(), 30));
    leave_one(0);
}

static void test_goes_when_there_is_room(void **state)
{
    (void)state;
    measure();
    atomic_store(&w.hot.bytes, 800);
    assert_false(line_up(0)); /* 900 of 1000 */
    assert_false(line_up(1));
    assert_true(line_up(2));
    pace_leave(&w.pace, &w.waiters[2].wait);
}

static void test_goes_when_nothing_is_known_of_memory(void **state)
{
    (void)state;
    measure();
    w.memory.hot = NULL;
    assert_false(line_up(0));
}

static void test_goes_when_processors_have_time(void **state)
{
    (void)state;
    delay_per_ms = NS_PER_MS / 10;
    measure();
    assert_false(line_up(0));
}

static void test_goes_when_the_kernel_says_nothing(void **state)
{
    (void)state;
    measure();
    kernel_is_silent = true;
    until(mono_add_ms(mono_now(), 25));
    leave_one(0);
    assert_false(line_up(0));
}

static void test_goes_when_nothing_leaves(void **state)
{
    (void)state;
    measure();
    assert_true(line_up(0));
    struct mono begin = mono_now();
    while (!w.waiters[0].turn)
        loop_once(w.loop);
    assert_true(mono_diff_ms(mono_now(), begin) < PACE_WAIT_MS);
    assert_false(line_up(1));
    assert_int_equal(atomic_load(&w.memory.waiting), 0);
}

static void test_waits_for_room_in_turn(void **state)
{
    (void)state;
    measure();
    for (unsigned i = 0; i < WAITERS; i++)
        assert_true(line_up(i));
    assert_int_equal(atomic_load(&w.memory.waiting), 300);
    pace_leave(&w.pace, &w.waiters[1].wait);
    leave_one(100);
    while (!w.waiters[0].turn)
        loop_once(w.loop);
    assert_int_equal(w.waiters[0].turn, 1);
    leave_one(100);
    while (!w.waiters[2].turn)
        loop_once(w.loop);
    assert_int_equal(w.waiters[2].turn, 2);
    assert_int_equal(w.waiters[1].turn, 0);
    assert_int_equal(atomic_load(&w.memory.waiting), 0);
}

static void test_waits_no_longer_than_that(void **state)
{
    (void)state;
    measure();
    assert_true(line_up(0));
    struct mono begin = mono_now();
    while (!w.waiters[0].turn) {
        leave_one(0); /* it goes on, but there is no room */
        loop_once(w.loop);
    }
    assert_true(mono_diff_ms(mono_now(), begin) >= PACE_WAIT_MS - 1);
}

int main(void)
{
#define PACE_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        PACE_TEST(test_goes_when_there_is_room),
        PACE_TEST(test_goes_when_nothing_is_known_of_memory),
        PACE_TEST(test_goes_when_processors_have_time),
        PACE_TEST(test_goes_when_the_kernel_says_nothing),
        PACE_TEST(test_goes_when_nothing_leaves),
        PACE_TEST(test_waits_for_room_in_turn),
        PACE_TEST(test_waits_no_longer_than_that),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
