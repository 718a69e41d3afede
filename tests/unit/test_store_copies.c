/* SPDX-License-Identifier: Apache-2.0 */
/* Copies, facts and the quarantine of a store of a cluster: one thing each, on the LMDB
 * store and on the RAM store. */
#include "tests/unit/store_cluster_helper.h"

static void on_both(void (*run)(struct store *s))
{
    char *dir = temp_dir();
    struct store_check c;
    struct store *s = open_dir_store(dir, 64 * MIB, 0);
    run(s);
    store_lmdb_check(s, &c);
    assert_int_equal(c.problems, 0);
    store_close(s);
    remove_dir(dir);
    s = store_open_ram(64 * MIB);
    run(s);
    store_close(s);
}

static struct message *three_units(void)
{
    uint64_t seed = 21, ids = 5;
    struct body *b = random_body(&seed, 30000);
    return make_message(make_id(&ids), b, 3, 2, &seed);
}

static uint64_t bodies(struct store *s)
{
    struct store_stats st;
    store_stats(s, &st);
    return st.bodies;
}

static enum err remove_one(struct store *s, const struct message *m, unsigned unit)
{
    struct unit_id id = {m->id, (uint16_t)unit};
    struct store_row row = unit_row_of(id, (struct slice){0});
    return run_cluster(
        s, (struct store_cluster){
               .remove = &id, .remove_count = 1, .rows = &row, .row_count = 1});
}

/* Units come one by one, the body once; the last one that goes takes it along. */
static void share(struct store *s)
{
    struct message *m = three_units();
    struct unit_record *bare = copy_of(m, 1, NULL);
    struct store_row row = unit_row_of(bare->id, SLICE("x"));
    struct store_cluster without = {.copy = bare, .rows = &row, .row_count = 1};
    struct body *b;
    body_unref(bare->message->body);
    bare->message->body = NULL;
    assert_int_equal(run_cluster(s, without), ERR_STORE_NOT_FOUND);
    assert_int_equal(store_copy(s, m, 0, SLICE("x")), ERR_OK);
    assert_int_equal(run_cluster(s, without), ERR_OK);
    assert_int_equal(store_copy(s, m, 2, SLICE("x")), ERR_OK);
    assert_int_equal(store_copy(s, m, 2, SLICE("again")), ERR_OK);
    assert_int_equal(bodies(s), 1);
    assert_int_equal(remove_one(s, m, 0), ERR_OK);
    assert_int_equal(remove_one(s, m, 0), ERR_OK); /* not there is fine */
    assert_int_equal(remove_one(s, m, 2), ERR_OK);
    assert_int_equal(store_load_body(s, m->id, MIB, &b), ERR_OK);
    assert_int_equal(body_crc(b), m->body_crc);
    body_unref(b);
    assert_int_equal(remove_one(s, m, 1), ERR_OK);
    assert_int_equal(bodies(s), 0);
    unit_record_free(bare);
    message_unref(m);
}

static void test_share(void **state)
{
    (void)state;
    on_both(share);
}

/* What a copy or a fact says does not undo what is final here; DELIVERED beats all. */
static void finals(struct store *s)
{
    static const enum rcpt_state was[] = {RCPT_DELIVERED, RCPT_BOUNCED, RCPT_DEFERRED};
    static const enum rcpt_state said[] = {RCPT_QUEUED, RCPT_DELIVERED, RCPT_EXPIRED};
    static const enum rcpt_state want[] = {RCPT_DELIVERED, RCPT_DELIVERED, RCPT_EXPIRED};
    uint64_t seed = 3, ids = 9;
    struct message *m = make_message(make_id(&ids), random_body(&seed, 100), 1, 1, &seed);
    struct rcpt_record r[3] = {0};
    struct unit_record *u;
    fill_unit(m, &m->units[0], 0, 3, &seed);
    for (unsigned twice = 0; twice < 2; twice++) {
        for (unsigned i = 0; i < 3; i++)
            r[i].state = twice ? said[i] : was[i];
        struct unit_record *copy = copy_of(m, 0, r);
        struct store_row row = unit_row_of(copy->id, SLICE("x"));
        assert_int_equal(
            run_cluster(
                s, (struct store_cluster){.copy = copy, .rows = &row, .row_count = 1}),
            ERR_OK);
        unit_record_free(copy);
    }
    assert_int_equal(store_read_unit(s, (struct unit_id){m->id, 0}, &u), ERR_OK);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(u->rcpts[i].state, want[i]);
    unit_record_free(u);
    assert_int_equal(remove_one(s, m, 0), ERR_OK);
    message_unref(m);
}

static void test_finals(void **state)
{
    (void)state;
    on_both(finals);
}

/* Another body under the same id, and a body that is not what its envelope says. */
static void wrong_body(struct store *s)
{
    struct message *m = three_units(), *other = three_units();
    char text[8];
    size_t len;
    assert_int_equal(store_copy(s, m, 0, SLICE("mine")), ERR_OK);
    other->body_crc ^= 1;
    assert_int_equal(store_copy(s, other, 0, SLICE("his")), ERR_STORE_EXISTS);
    assert_int_equal(store_copy(s, other, 1, SLICE("his")), ERR_STORE_EXISTS);
    unsigned char key[UNIT_ID_BYTES];
    unit_id_key((struct unit_id){m->id, 0}, key);
    struct slice k = slice_make(key, sizeof(key));
    assert_int_equal(store_read_row(s, STORE_ROW_UNIT, k, text, 8, &len), ERR_OK);
    assert_true(slice_eq(slice_make(text, len), SLICE("mine")));
    assert_int_equal(store_read_row(s, STORE_ROW_UNIT, k, text, 3, &len), ERR_TOO_BIG);
    assert_int_equal(remove_one(s, m, 0), ERR_OK);
    assert_int_equal(store_copy(s, other, 0, SLICE("his")), ERR_STORE_DAMAGED);
    assert_int_equal(
        store_read_row(s, STORE_ROW_UNIT, k, text, 8, &len), ERR_STORE_NOT_FOUND);
    assert_int_equal(bodies(s), 0);
    message_unref(other);
    message_unref(m);
}

static void test_wrong_body(void **state)
{
    (void)state;
    on_both(wrong_body);
}

struct seen {
    unsigned count;
    struct unit_id id;
    bool releasable;
    unsigned rows;
};

static bool see_quar(const struct store_quarantined *q, void *ctx)
{
    struct seen *seen = ctx;
    assert_true(slice_eq(q->reason, SLICE("too old")));
    assert_int_equal(q->damaged, 0);
    assert_non_null(q->unit);
    seen->count++;
    seen->id = q->id;
    seen->releasable = q->releasable;
    seen->rows = q->rows;
    return true;
}

static void see_one(const struct store_quarantined *q, void *ctx)
{
    see_quar(q, ctx);
}

static void quarantine(struct store *s)
{
    struct message *m = three_units();
    struct unit_id id = {m->id, 1};
    struct seen seen = {0};
    struct store_row gone = unit_row_of(id, (struct slice){0});
    struct unit_record *u;
    assert_int_equal(store_copy(s, m, 1, SLICE("x")), ERR_OK);
    assert_int_equal(run_cluster(s, (struct store_cluster){.aside = &id,
                                        .aside_count = 1,
                                        .aside_reason = SLICE("too old"),
                                        .rows = &gone,
                                        .row_count = 1}),
        ERR_OK);
    assert_int_equal(store_read_unit(s, id, &u), ERR_STORE_NOT_FOUND);
    assert_int_equal(store_list_quar(s, NULL, see_quar, &seen), ERR_OK);
    assert_int_equal(seen.count, 1);
    assert_true(unit_id_cmp(seen.id, id) == 0 && seen.releasable);
    assert_int_equal(seen.rows, 1 + m->units[1].rcpt_count);
    assert_int_equal(bodies(s), 1);
    /* It came again meanwhile, alive: released it would be there twice. */
    assert_int_equal(store_copy(s, m, 1, SLICE("x")), ERR_OK);
    struct store_quar verb = {.unit = id, .verb = STORE_QUAR_RELEASE};
    assert_int_equal(run_quar(s, verb), ERR_STORE_EXISTS);
    assert_int_equal(store_read_quar(s, id, see_one, &seen), ERR_OK);
    assert_false(seen.releasable);
    assert_int_equal(remove_one(s, m, 1), ERR_OK);
    assert_int_equal(run_quar(s, verb), ERR_OK);
    assert_int_equal(store_read_unit(s, id, &u), ERR_OK);
    assert_int_equal(u->rcpt_count, m->units[1].rcpt_count);
    unit_record_free(u);
    assert_int_equal(run_quar(s, verb), ERR_STORE_NOT_FOUND);
    assert_int_equal(remove_one(s, m, 1), ERR_OK);
    assert_int_equal(bodies(s), 0);
    message_unref(m);
}

static void test_quarantine(void **state)
{
    (void)state;
    on_both(quarantine);
}

/* Many at once: in the order they were given, those refused without a trace. */
static void order(struct store *s)
{
    enum { COUNT = 40 };
    struct store_cluster c[COUNT];
    struct store_op *ops[COUNT];
    struct store_row rows[COUNT];
    char values[COUNT][8], out[8];
    size_t len;
    struct message *m = three_units();
    struct unit_record *bad = copy_of(m, 0, NULL);
    bad->message->body_crc ^= 1;
    for (unsigned i = 0; i < COUNT; i++) {
        snprintf(values[i], sizeof(values[i]), "%u", i);
        bool spoilt = i % 4 == 3;
        rows[i] = spoilt ? unit_row_of(bad->id, slice_str(values[i]))
                         : node_row_of("k", slice_str(values[i]));
        c[i] = (struct store_cluster){.op.kind = STORE_OP_CLUSTER,
            .copy = spoilt ? bad : NULL,
            .rows = &rows[i],
            .row_count = 1};
        ops[i] = &c[i].op;
    }
    run_ops(s, ops, COUNT);
    for (unsigned i = 0; i < COUNT; i++)
        assert_int_equal(c[i].op.result, i % 4 == 3 ? ERR_STORE_DAMAGED : ERR_OK);
    assert_int_equal(store_read_row(s, STORE_ROW_NODE, SLICE("k"), out, 8, &len), ERR_OK);
    assert_true(slice_eq(slice_make(out, len), SLICE("38")));
    struct store_stats st;
    store_stats(s, &st);
    assert_int_equal(st.rows + st.units + st.bodies, 0);
    unit_record_free(bad);
    message_unref(m);
}

static void test_order(void **state)
{
    (void)state;
    on_both(order);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_share),
        cmocka_unit_test(test_finals),
        cmocka_unit_test(test_wrong_body),
        cmocka_unit_test(test_quarantine),
        cmocka_unit_test(test_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
