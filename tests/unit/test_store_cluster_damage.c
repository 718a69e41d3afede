/* SPDX-License-Identifier: Apache-2.0 */
/* Flipped bytes in a store of a cluster: in rows, in their keys, in mail. */
#include "tests/unit/store_cluster_faults.h"

struct damage {
    char *dir;
    struct store *s;
    struct message *m; /* two units, two recipients each */
    uint64_t ids, seed;
};

static void damage_begin(struct damage *d)
{
    *d = (struct damage){.dir = temp_dir(), .seed = 8};
    d->s = open_dir_store(d->dir, QUOTA, 0);
    d->m = make_message(make_id(&d->ids), random_body(&d->seed, 5000), 2, 1, &d->seed);
    fill_unit(d->m, &d->m->units[0], 0, 2, &d->seed);
    d->m->units[0].rcpts[1].address = SLICE("rcpt-marker@example.org");
    assert_int_equal(store_copy(d->s, d->m, 0, SLICE("row-marker-zero")), ERR_OK);
    assert_int_equal(store_copy(d->s, d->m, 1, SLICE("row-marker-one")), ERR_OK);
    assert_int_equal(copy_new(d->s, &d->ids, &d->seed, 1000), ERR_OK);
}

static void damage_do(struct damage *d, struct slice bytes, size_t at)
{
    store_close(d->s);
    flip_bytes(d->dir, bytes, at);
    d->s = open_dir_store(d->dir, QUOTA, 0);
    assert_non_null(d->s);
}

static void see(const struct store_quarantined *q, void *ctx)
{
    *(struct store_quarantined *)ctx = *q;
}

/* Unit 0 is aside with its row, the others are not. */
static void expect_aside(struct damage *d, struct store_quarantined *q)
{
    struct unit_id id = {d->m->id, 0};
    struct store_stats st;
    struct unit_record *u;
    uint64_t damaged;
    unsigned rows = 0;
    assert_int_equal(store_read_unit(d->s, id, &u), ERR_STORE_NOT_FOUND);
    assert_int_equal(read_unit_row(d->s, id), ERR_STORE_NOT_FOUND);
    assert_int_equal(store_read_quar(d->s, id, see, q), ERR_OK);
    store_stats(d->s, &st);
    assert_int_equal(st.units, 2);
    assert_int_equal(
        store_scan_rows(d->s, STORE_ROW_UNIT, count_row, &rows, &damaged), ERR_OK);
    assert_int_equal(damaged, 0);
    assert_int_equal(rows, 2);
    check_whole(d->s);
}

/* What went aside goes for good, and the rest too; nothing is left. */
static void damage_end(struct damage *d)
{
    struct store_check c;
    struct store_quar drop = {.unit = {d->m->id, 0}, .verb = STORE_QUAR_DROP};
    store_close(d->s);
    d->s = open_dir_store(d->dir, QUOTA, 0);
    assert_int_equal(scan(d->s).damaged, 0);
    assert_int_equal(run_quar(d->s, drop), ERR_OK);
    assert_int_equal(run_quar(d->s, drop), ERR_STORE_NOT_FOUND);
    while (remove_first(d->s))
        ;
    store_lmdb_check(d->s, &c);
    assert_int_equal(c.problems + c.units + c.rcpts + c.bodies + c.body_rows, 0);
    assert_int_equal(c.unit_rows, 0);
    store_close(d->s);
    message_unref(d->m);
    remove_dir(d->dir);
}

static void test_damaged_row(void **state)
{
    struct damage d;
    struct store_quarantined q;
    uint64_t damaged;
    unsigned rows = 0;
    (void)state;
    damage_begin(&d);
    damage_do(&d, SLICE("row-marker-zero"), 2);
    assert_int_equal(
        store_scan_rows(d.s, STORE_ROW_UNIT, count_row, &rows, &damaged), ERR_OK);
    assert_int_equal(damaged, 1);
    assert_int_equal(rows, 2);
    assert_int_equal(scan(d.s).damaged, 0);
    expect_aside(&d, &q);
    assert_true(q.rows == 4 && q.damaged == 1 && q.releasable);
    /* The mail itself is whole: it can come back, and be ours alone. */
    struct store_quar release = {.unit = {d.m->id, 0}, .verb = STORE_QUAR_RELEASE};
    assert_int_equal(run_quar(d.s, release), ERR_OK);
    check_whole(d.s);
    store_close(d.s);
    d.s = open_dir_store(d.dir, QUOTA, 0);
    assert_int_equal(scan(d.s).damaged, 0);
    struct unit_id id = {d.m->id, 0};
    assert_int_equal(run_cluster(d.s, (struct store_cluster){.aside = &id,
                                          .aside_count = 1,
                                          .aside_reason = SLICE("again")}),
        ERR_OK);
    damage_end(&d);
}

/* The row is there, but under another key: nobody says any more whose the mail is. */
static void test_damaged_key(void **state)
{
    unsigned char want[UNIT_ID_BYTES + 8];
    struct damage d;
    struct store_quarantined q;
    (void)state;
    damage_begin(&d);
    unit_id_key((struct unit_id){d.m->id, 0}, want);
    memcpy(want + UNIT_ID_BYTES, "row-mark", 8);
    damage_do(&d, slice_make(want, sizeof(want)), UNIT_ID_BYTES - 1);
    assert_int_equal(scan(d.s).damaged, 4);
    expect_aside(&d, &q);
    assert_true(q.rows == 3 && q.damaged == 0 && q.releasable);
    damage_end(&d);
}

static void test_damaged_mail(void **state)
{
    struct damage d;
    struct store_quarantined q;
    (void)state;
    damage_begin(&d);
    damage_do(&d, SLICE("rcpt-marker@example.org"), 2);
    assert_int_equal(scan(d.s).damaged, 4);
    expect_aside(&d, &q);
    assert_true(q.rows == 4 && q.damaged == 1 && q.releasable);
    struct store_quar release = {.unit = {d.m->id, 0}, .verb = STORE_QUAR_RELEASE};
    struct unit_record *u;
    assert_int_equal(run_quar(d.s, release), ERR_OK);
    assert_int_equal(store_read_unit(d.s, release.unit, &u), ERR_OK);
    assert_int_equal(u->rcpt_count, 1);
    unit_record_free(u);
    check_whole(d.s);
    assert_int_equal(remove_unit(d.s, release.unit, (struct slice){0}), ERR_OK);
    damage_end(&d); /* the damaged recipient is still there to be dropped */
}

/* Facts of other nodes pass over what is damaged; a removal takes it along. */
static void test_work_on_damage(void **state)
{
    struct damage d;
    struct unit_record *u;
    (void)state;
    damage_begin(&d);
    damage_do(&d, SLICE("rcpt-marker@example.org"), 2);
    struct unit_id id = {d.m->id, 0};
    struct rcpt_record r = {.rcpt = d.m->units[0].rcpts[0], .state = RCPT_DELIVERED};
    struct store_settle fact = {.unit = id, .rcpts = &r, .rcpt_count = 1};
    assert_int_equal(run_cluster(d.s, (struct store_cluster){.settle = &fact}), ERR_OK);
    assert_int_equal(store_read_unit(d.s, id, &u), ERR_STORE_DAMAGED);
    assert_int_equal(remove_unit(d.s, id, (struct slice){0}), ERR_OK);
    check_whole(d.s);
    assert_int_equal(scan(d.s).damaged, 0);
    store_close(d.s);
    message_unref(d.m);
    remove_dir(d.dir);
}

static void test_damaged_node_row(void **state)
{
    char *dir = temp_dir(), value[9000];
    unsigned rows = 0;
    uint64_t damaged;
    (void)state;
    memset(value, 'v', sizeof(value));
    memcpy(value + 8500, "deep-in-the-third-page", 22);
    struct store *s = open_dir_store(dir, QUOTA, 0);
    struct store_row row[2] = {node_row_of("cfg", slice_make(value, sizeof(value))),
        node_row_of("meta", SLICE("x"))};
    assert_int_equal(
        run_cluster(s, (struct store_cluster){.rows = row, .row_count = 2}), ERR_OK);
    assert_int_equal(
        store_scan_rows(s, STORE_ROW_NODE, count_row, &rows, &damaged), ERR_OK);
    assert_int_equal(rows, 2);
    store_close(s);
    flip(dir, "deep-in-the-third-page");
    s = open_dir_store(dir, QUOTA, 0);
    assert_int_equal(store_scan_rows(s, STORE_ROW_NODE, count_row, &rows, &damaged),
        ERR_STORE_DAMAGED);
    size_t len;
    assert_int_equal(store_read_row(s, STORE_ROW_NODE, SLICE("cfg"), value, 9000, &len),
        ERR_STORE_DAMAGED);
    /* Written anew it is whole. */
    row[0].value = SLICE("short");
    assert_int_equal(
        run_cluster(s, (struct store_cluster){.rows = row, .row_count = 1}), ERR_OK);
    assert_int_equal(
        store_scan_rows(s, STORE_ROW_NODE, count_row, &rows, &damaged), ERR_OK);
    check_whole(s);
    store_close(s);
    remove_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damaged_row),
        cmocka_unit_test(test_damaged_key),
        cmocka_unit_test(test_damaged_mail),
        cmocka_unit_test(test_work_on_damage),
        cmocka_unit_test(test_damaged_node_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
