/* SPDX-License-Identifier: Apache-2.0 */
/* Re-reading: all of it once in its time, damage reported with the units it hits. */
#include "queue/scrub.h"

#include "tests/unit/store_faults.h"

#define HOUR_NS (INT64_C(3600) * 1000000000)
#define MESSAGES 20

struct found {
    struct unit_id id[16];
    enum scrub_find what[16];
    unsigned count;
};

static void note_found(struct unit_id id, enum scrub_find what, void *ctx)
{
    struct found *f = ctx;
    assert_true(f->count < 16);
    f->id[f->count] = id;
    f->what[f->count++] = what;
}

struct world {
    struct store *s;
    struct scrub c;
    struct found f;
    struct mono now;
    struct message *m[MESSAGES];
};

static void fill(struct world *w, struct store *s)
{
    uint64_t seed = 5, ids = 0;
    *w = (struct world){.s = s, .now = {1}};
    for (unsigned i = 0; i < MESSAGES; i++) {
        struct body *b;
        if (i == 7) {
            b = body_new();
            body_append(b, SLICE("body-marker-of-damage\r\n"));
        } else {
            b = random_body(&seed, i == 3 ? 0 : below(&seed, 90000));
        }
        w->m[i] = make_message(make_id(&ids), b, i == 7 ? 2 : 1, 2, &seed);
        if (i == 11)
            w->m[i]->units[0].rcpts[0].address = SLICE("rcpt-marker@example.org");
        assert_int_equal(do_accept(s, w->m[i], 0), ERR_OK);
    }
}

static void empty(struct world *w)
{
    for (unsigned i = 0; i < MESSAGES; i++)
        message_unref(w->m[i]);
}

static uint64_t body_row_count(struct store *s)
{
    struct store_stats st;
    store_stats(s, &st);
    return st.body_rows;
}

static void step(struct world *w, int64_t ns)
{
    w->now.ns += ns;
    assert_int_equal(scrub_step(w->s, &w->c, w->now, note_found, &w->f), ERR_OK);
}

/* A hundredth an hour, not all at once after a pause, and everything in the end. */
static void pace(struct store *s)
{
    struct world w;
    fill(&w, s);
    uint64_t all = body_row_count(s);
    step(&w, HOUR_NS);
    assert_int_equal(w.c.rows, 0); /* the clock starts with the first */
    for (unsigned i = 0; i < 50 * 60; i++)
        step(&w, HOUR_NS / 60);
    assert_int_equal(w.c.rounds, 0);
    assert_in_range(w.c.rows, all / 2 - 20, all / 2 + 36);
    for (unsigned i = 0; i < 60 * 60; i++)
        step(&w, HOUR_NS / 60);
    assert_int_equal(w.c.rounds, 1);
    uint64_t before = w.c.rows;
    step(&w, 1000 * HOUR_NS);
    assert_in_range(w.c.rows - before, 1, SCRUB_STEP_ROWS + 16);
    assert_int_equal(w.f.count + w.c.damaged, 0);
    empty(&w);
}

static void test_pace(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct store *s = open_dir_store(dir, 64 * MIB, 0);
    pace(s);
    store_close(s);
    remove_dir(dir);
    s = store_open_ram(64 * MIB);
    pace(s);
    store_close(s);
}

static void test_damage(void **state)
{
    (void)state;
    struct world w;
    char *dir = temp_dir();
    fill(&w, open_dir_store(dir, 64 * MIB, 0));
    store_close(w.s);
    flip(dir, "body-marker-of-damage");
    flip(dir, "rcpt-marker@example.org");
    w.s = open_dir_store(dir, 64 * MIB, 0);
    while (w.c.rounds == 0)
        step(&w, HOUR_NS);
    assert_int_equal(w.f.count, 3);
    assert_int_equal(w.c.damaged, 3);
    for (uint16_t i = 0; i < 2; i++) {
        assert_true(unit_id_cmp(w.f.id[i], (struct unit_id){w.m[7]->id, i}) == 0);
        assert_int_equal(w.f.what[i], SCRUB_BODY);
    }
    assert_true(unit_id_cmp(w.f.id[2], (struct unit_id){w.m[11]->id, 0}) == 0);
    assert_int_equal(w.f.what[2], SCRUB_HEAD);
    store_close(w.s);
    empty(&w);
    remove_dir(dir);
}

/* What goes while it is read is no damage. */
static void test_gone(void **state)
{
    (void)state;
    struct world w;
    fill(&w, store_open_ram(64 * MIB));
    step(&w, HOUR_NS);
    while (w.c.row == 0)
        step(&w, HOUR_NS);
    for (unsigned i = 0; i < MESSAGES; i++)
        for (uint16_t u = 0; u < w.m[i]->unit_count; u++)
            assert_int_equal(do_done(w.s, (struct unit_id){w.m[i]->id, u}), ERR_OK);
    uint64_t seed = 9, ids = 1000;
    struct message *last =
        make_message(make_id(&ids), random_body(&seed, 30000), 1, 1, &seed);
    assert_int_equal(do_accept(w.s, last, 0), ERR_OK);
    while (w.c.rounds == 0)
        step(&w, HOUR_NS);
    assert_int_equal(w.f.count, 0);
    message_unref(last);
    store_close(w.s);
    empty(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pace),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
