/* SPDX-License-Identifier: Apache-2.0 */
/* The value of the dot gate, read by threads that take no lock while one thread writes:
 * no reader ever sees parts of two values. Made for the thread sanitizer as well. */
#include "node/delivery/rights_internal.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define READERS 3
#define ROUNDS 200000

static struct rights RIGHTS;
static atomic_bool STOP;

/* Every field follows from `n`, so that a mixture is seen. */
static struct rights_gate_value value_of(uint32_t n)
{
    return (struct rights_gate_value){.epoch = n,
        .frozen = n % 2,
        .is_static = n % 3 == 0,
        .lease_end = {(int64_t)n * 7},
        .dot_margin_ns = (int64_t)n * 11,
        .start_margin_ns = (int64_t)n * 13};
}

static bool is_whole(const struct rights_gate_value *v)
{
    struct rights_gate_value want = value_of(v->epoch);
    return v->frozen == want.frozen && v->is_static == want.is_static &&
           v->lease_end.ns == want.lease_end.ns &&
           v->dot_margin_ns == want.dot_margin_ns &&
           v->start_margin_ns == want.start_margin_ns;
}

struct reader {
    pthread_t thread;
    uint64_t torn, backwards;
};

static void *read_on(void *arg)
{
    struct reader *r = arg;
    uint32_t last = 0;
    while (!atomic_load(&STOP)) {
        struct rights_gate_value v = gate_read(&RIGHTS.gate);
        r->torn += !is_whole(&v);
        r->backwards += v.epoch < last;
        last = v.epoch;
    }
    return NULL;
}

static void readers_see_whole_values_in_order(void **unused)
{
    (void)unused;
    struct reader reader[READERS] = {0};
    struct rights_gate_value v = value_of(0);
    rights_publish_gate(&RIGHTS, &v);
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&reader[i].thread, NULL, read_on, &reader[i]), 0);
    for (uint32_t n = 1; n <= ROUNDS; n++) {
        v = value_of(n);
        rights_publish_gate(&RIGHTS, &v);
    }
    atomic_store(&STOP, true);
    for (int i = 0; i < READERS; i++) {
        pthread_join(reader[i].thread, NULL);
        assert_int_equal(reader[i].torn, 0);
        assert_int_equal(reader[i].backwards, 0);
    }
    v = gate_read(&RIGHTS.gate);
    assert_int_equal(v.epoch, ROUNDS);
}

static void time_is_left_until_the_margin(void **unused)
{
    (void)unused;
    struct rights_gate_value v = {.epoch = 1};
    int64_t now = mono_now().ns;
    v.lease_end.ns = now + 3600 * INT64_C(1000000000);
    assert_true(gate_has_time(&v, 0));
    assert_false(gate_has_time(&v, 3601 * INT64_C(1000000000)));
    v.frozen = true;
    assert_false(gate_has_time(&v, 0));
    v.frozen = false;
    v.lease_end.ns = now - 1;
    assert_false(gate_has_time(&v, 0));
    v.is_static = true;
    assert_true(gate_has_time(&v, 0));
    v.epoch = 0;
    assert_false(gate_has_time(&v, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_see_whole_values_in_order),
        cmocka_unit_test(time_is_left_until_the_margin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
