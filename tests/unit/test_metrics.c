/* SPDX-License-Identifier: Apache-2.0 */
#include "base/metrics.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define THREADS 4
#define ADDS 100000

static void *count(void *arg)
{
    (void)arg;
    for (int i = 0; i < ADDS; i++)
        metric_add(METRIC_received_total, 1);
    return NULL;
}

static void test_sums_over_threads_that_ended(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    metric_add(METRIC_received_total, 5);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count, NULL), 0);
    int64_t seen = 0;
    for (int i = 0; i < 100; i++) { /* never goes back while threads end */
        int64_t now = metric_read(METRIC_received_total);
        assert_true(now >= seen);
        seen = now;
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(metric_read(METRIC_received_total), 5 + THREADS * ADDS);
}

static void test_gauges(void **state)
{
    (void)state;
    metric_set(METRIC_queue_units, 7);
    metric_set(METRIC_queue_units, 3);
    assert_int_equal(metric_read(METRIC_queue_units), 3);
    metric_add(METRIC_connections_open, 2);
    metric_add(METRIC_connections_open, -1);
    assert_int_equal(metric_read(METRIC_connections_open), 1);
}

static void test_render(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 65536);
    metric_add(METRIC_commit_seconds_total, 1500001);
    metrics_render(&out);
    buf_append_char(&out, '\0');
    const char *text = buf_slice(&out).ptr;
    assert_false(out.failed);
    assert_non_null(
        strstr(text, "# TYPE baton_received_total counter\nbaton_received_total "));
    assert_non_null(
        strstr(text, "# TYPE baton_queue_units gauge\nbaton_queue_units 3\n"));
    assert_non_null(strstr(text, "\nbaton_commit_seconds_total 1.500001\n"));
    for (unsigned i = 0; i < METRIC_COUNT; i++)
        assert_non_null(strstr(text, metric_name((enum metric)i)));
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums_over_threads_that_ended),
        cmocka_unit_test(test_gauges),
        cmocka_unit_test(test_render),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
