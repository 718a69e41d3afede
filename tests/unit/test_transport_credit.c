/* SPDX-License-Identifier: Apache-2.0 */
/* Credit as numbers, with a wire between that loses and repeats as ZeroMQ does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cluster/transport_credit.h"

#define WINDOW 1000

static const struct mono t0 = {1000 * NS_PER_S};
static const struct stream_id first = {7, 1}, second = {7, 2}, reborn = {8, 1};

static void test_sender(void **state)
{
    (void)state;
    struct credit_out out = {0};
    assert_int_equal(credit_out_room(&out), 0);
    assert_false(credit_out_wants_word(&out));
    credit_out_grant(&out, (struct stream_id){0, 0}, 500, 0, t0); /* no stream yet */
    assert_int_equal(credit_out_room(&out), 0);
    credit_out_begin(&out, first, t0);
    assert_true(credit_out_wants_word(&out));
    credit_out_grant(&out, second, 500, 0, t0);
    credit_out_grant(&out, reborn, 500, 0, t0);
    assert_int_equal(credit_out_room(&out), 0);
    credit_out_grant(&out, first, 500, 0, t0);
    assert_int_equal(credit_out_room(&out), 500);
    assert_false(credit_out_wants_word(&out));
    out.sent += 300;
    assert_true(credit_out_wants_word(&out));
    credit_out_grant(&out, first, 700, 300, t0);
    credit_out_grant(&out, first, 600, 100, t0); /* an older word comes later */
    credit_out_grant(&out, first, 700, 300, t0); /* and one twice */
    assert_int_equal(credit_out_room(&out), 400);
    assert_false(credit_out_wants_word(&out));
    credit_out_end(&out);
    assert_int_equal(credit_out_room(&out), 0);
}

static void test_stuck(void **state)
{
    (void)state;
    struct credit_out out;
    credit_out_begin(&out, first, t0);
    credit_out_grant(&out, first, 500, 0, t0);
    out.sent = 400;
    assert_false(credit_out_is_stuck(&out, mono_add_ms(t0, 20000)));
    credit_out_grant(&out, first, 500, 0, mono_add_ms(t0, 15000)); /* no progress */
    assert_true(credit_out_is_stuck(&out, mono_add_ms(t0, 20001)));
    credit_out_grant(&out, first, 500, 100, mono_add_ms(t0, 19000));
    assert_false(credit_out_is_stuck(&out, mono_add_ms(t0, 20001)));
    credit_out_grant(&out, first, 900, 400, mono_add_ms(t0, 21000));
    assert_false(credit_out_is_stuck(&out, mono_add_ms(t0, 900000))); /* all is seen */
}

static void test_receiver(void **state)
{
    (void)state;
    struct credit_in in = {{0, 0}, 0, 0, 0, 0};
    assert_int_equal(credit_in_take(&in, first, 0, 10), CREDIT_STRANGE);
    assert_false(credit_in_open(&in, (struct stream_id){7, 0}, 0));
    credit_in_extend(&in, WINDOW, WINDOW);
    assert_int_equal(in.limit, 0); /* nobody to give it to */
    assert_true(credit_in_open(&in, first, 0));
    assert_int_equal(credit_in_take(&in, first, 0, 1), CREDIT_OVER);
    credit_in_extend(&in, WINDOW, 600);
    assert_int_equal(in.limit, 600);
    credit_in_extend(&in, WINDOW, 5000);
    assert_int_equal(in.limit, WINDOW);
    assert_int_equal(credit_in_take(&in, first, 0, 400), CREDIT_OK);
    assert_int_equal(credit_in_take(&in, first, 0, 400), CREDIT_LATE);
    assert_int_equal(credit_in_take(&in, second, 400, 1), CREDIT_STRANGE);
    assert_int_equal(credit_in_take(&in, reborn, 400, 1), CREDIT_STRANGE);
    assert_int_equal(credit_in_take(&in, first, 400, 601), CREDIT_OVER);
    assert_int_equal(credit_in_take(&in, first, 1001, 0), CREDIT_OVER);
    assert_int_equal(credit_in_take(&in, first, UINT64_MAX, 2), CREDIT_OVER);
    assert_int_equal(credit_in_take(&in, first, 900, UINT64_MAX - 100), CREDIT_OVER);
    assert_int_equal(credit_in_committed(&in), WINDOW);
    credit_in_extend(&in, WINDOW, 5000);
    assert_int_equal(in.limit, WINDOW);                                /* 400 are held */
    assert_int_equal(credit_in_take(&in, first, 700, 100), CREDIT_OK); /* 300 got lost */
    credit_in_extend(&in, WINDOW, 5000);
    assert_int_equal(in.limit, 1300);
    credit_in_consumed(&in, 500);
    credit_in_extend(&in, WINDOW, 5000);
    assert_int_equal(in.limit, 1800);
    credit_in_consumed(&in, 500); /* more than there was */
    assert_int_equal(in.held, 0);
    assert_int_equal(credit_in_committed(&in), WINDOW);
}

/* What is held of the old stream counts against the new one; old streams never return. */
static void test_new_stream(void **state)
{
    (void)state;
    struct credit_in in = {{0, 0}, 0, 0, 0, 0};
    assert_true(credit_in_open(&in, second, 0));
    credit_in_extend(&in, WINDOW, WINDOW);
    assert_int_equal(credit_in_take(&in, second, 0, 700), CREDIT_OK);
    assert_false(credit_in_open(&in, first, 0));
    assert_true(credit_in_open(&in, second, 0)); /* a reminder */
    assert_int_equal(in.high, 700);
    assert_true(credit_in_open(&in, reborn, 50));
    assert_int_equal(credit_in_take(&in, second, 700, 1), CREDIT_STRANGE);
    credit_in_extend(&in, WINDOW, WINDOW);
    assert_int_equal(in.limit, 350); /* 50 are gone, 300 are free */
    assert_int_equal(credit_in_committed(&in), WINDOW);
    credit_in_consumed(&in, 700);
    credit_in_extend(&in, WINDOW, WINDOW);
    assert_int_equal(in.limit, 1050);
}

static void test_numbers_end(void **state)
{
    (void)state;
    struct credit_in in = {{0, 0}, 0, 0, 0, 0};
    assert_true(credit_in_open(&in, first, UINT64_MAX - 10));
    credit_in_extend(&in, WINDOW, WINDOW);
    assert_int_equal(in.limit, UINT64_MAX);
    assert_int_equal(credit_in_take(&in, first, UINT64_MAX - 10, 11), CREDIT_OVER);
    assert_int_equal(credit_in_take(&in, first, UINT64_MAX - 10, 10), CREDIT_OK);
    credit_in_consumed(&in, 10);
    credit_in_extend(&in, WINDOW, WINDOW);
    assert_int_equal(in.limit, UINT64_MAX);
}

static void test_worth_telling(void **state)
{
    (void)state;
    struct credit_in in = {{0, 0}, 0, 0, 0, 0};
    assert_false(credit_in_is_worth_telling(&in, 4)); /* an eighth of it is nothing */
    credit_in_open(&in, first, 0);
    in.limit = 124;
    assert_false(credit_in_is_worth_telling(&in, WINDOW));
    in.limit = 125;
    assert_true(credit_in_is_worth_telling(&in, WINDOW));
    in.told = 125;
    assert_false(credit_in_is_worth_telling(&in, WINDOW));
}

/* --- both ends, and ZeroMQ between --- */

struct piece {
    struct stream_id id;
    uint64_t offset, len;
};
struct wire {
    struct piece pieces[64];
    unsigned count;
    uint64_t seed;
};

static uint64_t draw(struct wire *w, uint64_t below)
{
    w->seed = w->seed * 6364136223846793005u + 1442695040888963407u;
    return (w->seed >> 33) % below;
}

static void transmit(struct wire *w, struct credit_out *out)
{
    uint64_t len = 1 + draw(w, 300);
    if (credit_out_room(out) < len || w->count == 64)
        return;
    w->pieces[w->count++] = (struct piece){out->id, out->sent, len};
    out->sent += len;
}

/* Mostly the oldest; after a reconnect any. */
static void arrive(struct wire *w, struct credit_in *in, uint64_t *held)
{
    if (w->count == 0)
        return;
    unsigned which = draw(w, 8) == 0 ? (unsigned)draw(w, w->count) : 0;
    struct piece p = w->pieces[which];
    memmove(&w->pieces[which], &w->pieces[which + 1], (w->count - which - 1) * sizeof(p));
    w->count--;
    enum credit_verdict verdict = credit_in_take(in, p.id, p.offset, p.len);
    assert_int_not_equal(verdict, CREDIT_OVER); /* an honest sender never is */
    *held += verdict == CREDIT_OK ? p.len : 0;
}

/* Never more than the window held or promised; and when the wire behaves again, all of
 * the window is there. */
static void test_random_walks(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct wire w = {.count = 0, .seed = seed};
        struct credit_out out = {0};
        struct credit_in in = {{0, 0}, 0, 0, 0, 0};
        uint64_t held = 0, number = 0;
        for (unsigned step = 0; step < 2000 || w.count > 0; step++) {
            uint64_t what = draw(&w, step < 2000 ? 40 : 3);
            if (what == 39) { /* the connection breaks, some of it is lost */
                while (w.count > 0 && draw(&w, 3) != 0)
                    w.count--;
                credit_out_begin(&out, (struct stream_id){7, ++number}, t0);
            } else if (what > 20 && what < 36) {
                transmit(&w, &out);
            } else if (what > 3 || step >= 2000) {
                arrive(&w, &in, &held);
            } else if (held > 0) {
                uint64_t some = 1 + draw(&w, held);
                credit_in_consumed(&in, some);
                held -= some;
            }
            if (draw(&w, 3) == 0 && out.id.number != 0)
                credit_in_open(&in, out.id, out.sent);
            credit_in_extend(&in, WINDOW, WINDOW);
            assert_int_equal(in.held, held);
            assert_true(credit_in_committed(&in) <= WINDOW);
            if (draw(&w, 2) == 0) /* half of the words get lost */
                credit_out_grant(&out, in.id, in.limit, in.high, t0);
        }
        credit_out_begin(&out, (struct stream_id){7, ++number}, t0);
        credit_in_open(&in, out.id, out.sent);
        credit_in_consumed(&in, held);
        credit_in_extend(&in, WINDOW, WINDOW);
        credit_out_grant(&out, in.id, in.limit, in.high, t0);
        assert_int_equal(credit_out_room(&out), WINDOW);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sender),
        cmocka_unit_test(test_stuck),
        cmocka_unit_test(test_receiver),
        cmocka_unit_test(test_new_stream),
        cmocka_unit_test(test_numbers_end),
        cmocka_unit_test(test_worth_telling),
        cmocka_unit_test(test_random_walks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
