/* SPDX-License-Identifier: Apache-2.0 */
#include "node/intake/repeats.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants those first */
#include <cmocka.h>

static struct repeat_key key_of(unsigned n)
{
    struct repeat_key k = {.bytes = {(unsigned char)n, (unsigned char)(n >> 8), 7}};
    return k;
}

static struct msg_id id_of(unsigned n)
{
    struct msg_id id = {.bytes = {(unsigned char)n, (unsigned char)(n >> 8)}};
    return id;
}

static const struct mono start = {.ns = 1000 * NS_PER_MS};

static struct mono after(int64_t ms)
{
    return mono_add_ms(start, ms);
}

static enum repeat begin(struct repeats *r, unsigned n, int64_t ms, struct msg_id *id)
{
    struct repeat_key k = key_of(n);
    return repeats_begin(r, &k, id_of(n + 100), after(ms), 1000, id);
}

static void end(struct repeats *r, unsigned n, bool accepted)
{
    struct repeat_key k = key_of(n);
    repeats_end(r, &k, accepted);
}

static void test_known_within_the_window(void **state)
{
    struct repeats *r = repeats_new(16);
    struct msg_id id;
    (void)state;
    assert_int_equal(begin(r, 1, 0, &id), REPEAT_NEW);
    assert_int_equal(begin(r, 1, 1, &id), REPEAT_BUSY);
    end(r, 1, true);
    assert_int_equal(begin(r, 1, 999, &id), REPEAT_KNOWN);
    assert_memory_equal(id.bytes, id_of(101).bytes, MSG_ID_BYTES);
    assert_int_equal(begin(r, 2, 999, &id), REPEAT_NEW);
    assert_int_equal(begin(r, 1, 1000, &id), REPEAT_NEW);
    repeats_free(r);
}

static void test_refused_is_forgotten(void **state)
{
    struct repeats *r = repeats_new(16);
    struct msg_id id;
    (void)state;
    assert_int_equal(begin(r, 1, 0, &id), REPEAT_NEW);
    end(r, 1, false);
    assert_int_equal(begin(r, 1, 1, &id), REPEAT_NEW);
    /* a commit that takes longer than the window is still the same message */
    assert_int_equal(begin(r, 1, 5000, &id), REPEAT_BUSY);
    repeats_free(r);
}

static void test_other_nodes_mail(void **state)
{
    struct repeats *r = repeats_new(16);
    struct repeat_key k = key_of(3);
    struct msg_id id;
    (void)state;
    repeats_learn(r, &k, id_of(9), after(0));
    repeats_learn(r, &k, id_of(8), after(500));
    assert_int_equal(repeats_asked(r, &k, id_of(7), after(999), 1000, &id), REPEAT_KNOWN);
    assert_memory_equal(id.bytes, id_of(9).bytes, MSG_ID_BYTES);
    assert_int_equal(begin(r, 3, 10, &id), REPEAT_KNOWN);
    assert_int_equal(repeats_asked(r, &k, id_of(7), after(1000), 1000, &id), REPEAT_NEW);
    repeats_free(r);
}

static void test_kept_for_other_nodes(void **state)
{
    struct repeats *r = repeats_new(16);
    struct repeat_key k = key_of(4), other = key_of(5);
    struct msg_id id;
    (void)state;
    assert_int_equal(repeats_asked(r, &k, id_of(1), after(0), 1000, &id), REPEAT_NEW);
    assert_int_equal(repeats_asked(r, &k, id_of(2), after(1), 1000, &id), REPEAT_BUSY);
    assert_int_equal(begin(r, 4, 2, &id), REPEAT_BUSY);
    repeats_told(r, &k, id_of(2), false, after(3)); /* of another message */
    assert_int_equal(begin(r, 4, 4, &id), REPEAT_BUSY);
    repeats_told(r, &k, id_of(1), true, after(5));
    assert_int_equal(repeats_asked(r, &k, id_of(2), after(6), 1000, &id), REPEAT_KNOWN);
    assert_memory_equal(id.bytes, id_of(1).bytes, MSG_ID_BYTES);
    /* the second keeper was not asked, only told */
    repeats_told(r, &other, id_of(6), true, after(7));
    assert_int_equal(begin(r, 5, 8, &id), REPEAT_KNOWN);
    repeats_told(r, &other, id_of(6), false, after(9)); /* too late */
    assert_int_equal(begin(r, 5, 10, &id), REPEAT_KNOWN);
    repeats_free(r);
}

/* It asked, and died: its message does not keep the client waiting for ever. */
static void test_an_asker_that_says_nothing(void **state)
{
    struct repeats *r = repeats_new(16);
    struct repeat_key k = key_of(6);
    struct msg_id id;
    (void)state;
    assert_int_equal(repeats_asked(r, &k, id_of(1), after(0), 1000, &id), REPEAT_NEW);
    assert_int_equal(repeats_asked(r, &k, id_of(2), after(REPEAT_BUSY_MS - 1), 1000, &id),
        REPEAT_BUSY);
    assert_int_equal(
        repeats_asked(r, &k, id_of(2), after(REPEAT_BUSY_MS), 1000, &id), REPEAT_NEW);
    repeats_learn(r, &k, id_of(1), after(REPEAT_BUSY_MS)); /* another message's */
    assert_int_equal(begin(r, 6, REPEAT_BUSY_MS, &id), REPEAT_BUSY);
    repeats_learn(r, &k, id_of(2), after(REPEAT_BUSY_MS)); /* its heir speaks */
    assert_int_equal(begin(r, 6, REPEAT_BUSY_MS, &id), REPEAT_KNOWN);
    repeats_free(r);
}

static void test_bounded(void **state)
{
    struct repeats *r = repeats_new(16);
    struct msg_id id;
    (void)state;
    for (unsigned n = 0; n < 1000; n++) {
        assert_int_equal(begin(r, n, n, &id), REPEAT_NEW);
        end(r, n, true);
    }
    assert_int_equal(repeats_count(r), 16);
    assert_int_equal(begin(r, 999, 1000, &id), REPEAT_KNOWN);
    assert_int_equal(begin(r, 900, 1000, &id), REPEAT_NEW);
    repeats_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_within_the_window),
        cmocka_unit_test(test_refused_is_forgotten),
        cmocka_unit_test(test_other_nodes_mail),
        cmocka_unit_test(test_kept_for_other_nodes),
        cmocka_unit_test(test_an_asker_that_says_nothing),
        cmocka_unit_test(test_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
