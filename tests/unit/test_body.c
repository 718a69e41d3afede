/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/crc32c.h"
#include "queue/message.h"

static char *pattern(size_t len)
{
    char *p = mem_alloc(len + 1);
    for (size_t i = 0; i < len; i++)
        p[i] = (char)(i * 31 + i / 4076);
    return p;
}

/* Appends in pieces of `step`, then looks at everything from outside. */
static void check(size_t size, size_t step)
{
    char *want = pattern(size);
    struct body *b = body_new();
    struct body_row_cursor at;
    for (size_t i = 0; i < size; i += step)
        body_append(b, slice_make(want + i, size - i < step ? size - i : step));
    assert_int_equal(body_size(b), size);
    assert_int_equal(body_crc(b), crc32c(0, want, size));
    assert_int_equal(body_rows(b), (size + BODY_ROW_BYTES - 1) / BODY_ROW_BYTES);
    assert_true(body_memory(b) >= size && body_memory(b) <= 2 * size + 8192);
    body_rows_from(b, 0, &at);
    for (uint32_t r = 0; r < body_rows(b); r++) {
        size_t from = (size_t)r * BODY_ROW_BYTES;
        size_t len = size - from < BODY_ROW_BYTES ? size - from : BODY_ROW_BYTES;
        struct slice row = body_row_next(&at), same = body_row(b, r);
        assert_int_equal(row.len, len);
        assert_memory_equal(row.ptr, want + from, len);
        assert_ptr_equal(row.ptr, same.ptr);
    }
    assert_int_equal(body_row_next(&at).len, 0);
    assert_int_equal(body_row(b, body_rows(b)).len, 0);
    struct slice tail = body_tail(b, 2);
    assert_int_equal(tail.len, size < 2 ? size : 2);
    assert_memory_equal(tail.ptr, want + size - tail.len, tail.len);
    assert_int_equal(body_tail(b, 9).len, size < 4 ? size : 4);
    body_unref(b);
    free(want);
}

static void test_sizes(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 2, 3, 4, 5, 2015, 2016, 2017, 4075, 4076, 4077,
        8152, 8153, 12228, 65216, 65217, 300000, 1100000};
    static const size_t steps[] = {1, 7, 2016, 4076, 5000, 2000000};
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        for (unsigned k = sizes[i] > 100000; k < sizeof(steps) / sizeof(steps[0]); k++)
            check(sizes[i], steps[k]);
}

/* As a big body goes to disk: rows are dropped from the front while it grows. */
static void test_drop(void **state)
{
    (void)state;
    enum { SIZE = 3000000, STEP = 50000 };
    char *want = pattern(SIZE);
    struct body *b = body_new();
    uint32_t dropped = 0;
    for (size_t i = 0; i < SIZE; i += STEP) {
        body_append(b, slice_make(want + i, STEP));
        uint32_t full = (uint32_t)(body_size(b) / BODY_ROW_BYTES);
        for (uint32_t r = full > 20 ? full - 20 : 0; r < full; r++)
            assert_memory_equal(
                body_row(b, r).ptr, want + (size_t)r * BODY_ROW_BYTES, BODY_ROW_BYTES);
        if (full > 20)
            dropped = full - 20;
        body_drop_before(b, dropped);
        assert_true(body_memory(b) < 800000);
    }
    assert_int_equal(body_row(b, 0).len, 0);
    assert_int_equal(body_size(b), SIZE);
    assert_int_equal(body_crc(b), crc32c(0, want, SIZE));
    assert_memory_equal(body_tail(b, 4).ptr, want + SIZE - 4, 4);
    body_drop_before(b, UINT32_MAX); /* the last chunk is not full: it stays */
    assert_int_equal(body_row(b, body_rows(b) - 1).len, SIZE % BODY_ROW_BYTES);
    body_append(b, SLICE("more"));
    assert_memory_equal(body_tail(b, 4).ptr, "more", 4);
    body_unref(b);
    free(want);
}

static void test_drop_all(void **state)
{
    (void)state;
    char *want = pattern(BODY_ROW_BYTES);
    struct body *b = body_new();
    body_append(b, slice_make(want, BODY_ROW_BYTES));
    body_drop_before(b, 1);
    assert_null(body_chunks(b));
    body_append(b, SLICE("next"));
    assert_int_equal(body_rows(b), 2);
    assert_true(slice_eq(body_row(b, 1), SLICE("next")));
    assert_int_equal(body_row(b, 0).len, 0);
    body_unref(b);
    free(want);
}

static void test_message(void **state)
{
    (void)state;
    struct message *m = message_new();
    m->body = body_new();
    struct body *kept = body_ref(m->body);
    m->helo = arena_printf(m->arena, "host%u.example", 7u);
    assert_ptr_equal(message_ref(m), m);
    message_unref(m);
    assert_true(slice_eq(m->helo, SLICE("host7.example")));
    message_unref(m);
    message_unref(NULL);
    unit_record_free(NULL);
    body_append(kept, SLICE("still here"));
    body_unref(kept);
    body_unref(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_drop),
        cmocka_unit_test(test_drop_all),
        cmocka_unit_test(test_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
