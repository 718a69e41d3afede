/* SPDX-License-Identifier: Apache-2.0 */
/* What a cluster asks of the store. The same tapes run on the LMDB store and on the RAM
 * store, which share nothing but the writer thread and must say and hold the same. */
#include "tests/unit/store_cluster_helper.h"
#include "tests/unit/store_faults.h"
#include "tests/unit/store_text.h"

#define MESSAGES 40
#define UNITS_MAX 3
#define RCPTS_MAX 4
#define NODE_ROWS 12

struct tape {
    uint64_t seed, ids;
    struct store *lmdb, *ram;
    char *dir;
    struct message *m[MESSAGES]; /* that other nodes, or we, once made */
    unsigned count;
    struct buf a, b;
};

/* --- rows --- */

static void print_row(const struct store_row *row, void *ctx)
{
    struct buf *b = ctx;
    buf_printf(b, "row %d ", row->table);
    for (unsigned i = 0; i < row->key_len; i++)
        buf_printf(b, "%02x", row->key[i]);
    buf_printf(b, " %zu %016llx\n", row->value.len,
        (unsigned long long)slice_hash(row->value, 7));
}

/* --- comparing --- */

static bool print_quar(const struct store_quarantined *q, void *ctx)
{
    struct buf *b = ctx;
    char id[UNIT_ID_TEXT_MAX];
    unit_id_format(q->id, id);
    buf_printf(b, "quar %s (%.*s) rows=%u damaged=%u releasable=%d\n", id,
        SLICE_ARG(q->reason), q->rows, q->damaged, q->releasable);
    return !q->unit || print_record(q->unit, ctx);
}

static void print_node_rows(struct store *s, struct buf *b)
{
    char *room = mem_alloc(STORE_ROW_VALUE_MAX), key[16];
    for (unsigned i = 0; i < NODE_ROWS; i++) {
        size_t len;
        snprintf(key, sizeof(key), "row%u", i);
        enum err e = store_read_row(
            s, STORE_ROW_NODE, slice_str(key), room, STORE_ROW_VALUE_MAX, &len);
        buf_printf(b, "%s: %s %zu %016llx\n", key, err_name(e), len,
            (unsigned long long)slice_hash(slice_make(room, len), 7));
    }
    free(room);
}

static void print_bodies(struct tape *t, struct store *s, struct buf *b)
{
    for (unsigned i = 0; i < t->count; i++) {
        struct body *body;
        enum err e = store_load_body(s, t->m[i]->id, 64 * MIB, &body);
        buf_printf(b, "body %u %s\n", i, err_name(e));
        if (e != ERR_OK)
            continue;
        assert_int_equal(body_crc(body), t->m[i]->body_crc);
        body_unref(body);
    }
}

static void print_store(struct tape *t, struct store *s, struct buf *b)
{
    struct store_stats st;
    buf_clear(b);
    assert_int_equal(store_list(s, NULL, print_record, b), ERR_OK);
    assert_int_equal(store_list_quar(s, NULL, print_quar, b), ERR_OK);
    print_node_rows(s, b);
    print_bodies(t, s, b);
    store_stats(s, &st);
    buf_printf(b, "units=%llu rcpts=%llu held=%llu aside=%llu rows=%llu bodies=%llu\n",
        (unsigned long long)st.units, (unsigned long long)st.recipients,
        (unsigned long long)st.held, (unsigned long long)st.quarantined,
        (unsigned long long)st.rows, (unsigned long long)st.bodies);
    buf_append_char(b, '\0');
    assert_false(b->failed);
}

static void compare(struct tape *t)
{
    struct store_check c;
    print_store(t, t->lmdb, &t->a);
    print_store(t, t->ram, &t->b);
    assert_string_equal(buf_slice(&t->a).ptr, buf_slice(&t->b).ptr);
    store_lmdb_check(t->lmdb, &c);
    assert_int_equal(c.problems, 0);
}

/* --- making --- */

static enum err both(struct tape *t, struct store_cluster c)
{
    enum err a = run_cluster(t->lmdb, c), b = run_cluster(t->ram, c);
    assert_int_equal(a, b);
    return a;
}

static enum err both_quar(struct tape *t, struct store_quar q)
{
    enum err a = run_quar(t->lmdb, q), b = run_quar(t->ram, q);
    assert_int_equal(a, b);
    return a;
}

static struct message *new_message(struct tape *t)
{
    uint64_t size = below(&t->seed, below(&t->seed, 6) ? 9000 : 120000);
    struct body *b = random_body(&t->seed, size);
    return make_message(
        make_id(&t->ids), b, 1 + below(&t->seed, UNITS_MAX), RCPTS_MAX, &t->seed);
}

static struct message *pick_message(struct tape *t)
{
    if (t->count == 0 || (t->count < MESSAGES && below(&t->seed, 4) == 0))
        t->m[t->count++] = new_message(t);
    return t->m[below(&t->seed, t->count)];
}

static struct unit_id pick_unit(struct tape *t)
{
    const struct message *m = pick_message(t);
    return (struct unit_id){m->id, (uint16_t)below(&t->seed, m->unit_count)};
}

static struct rcpt_record random_rcpt(struct tape *t, const struct recipient *r)
{
    return (struct rcpt_record){.rcpt = *r,
        .state = (enum rcpt_state)below(&t->seed, 8),
        .attempts = (uint16_t)below(&t->seed, 30),
        .next_due = {1700000000000 + below(&t->seed, 1000000)},
        .last_reply = SLICE("450 4.2.1 try later"),
        .last_status = SLICE("4.2.1")};
}

/* As a peer has it: some states of its own. */
static struct unit_record *make_copy(
    struct tape *t, const struct message *m, unsigned unit)
{
    struct rcpt_record rcpts[RCPTS_MAX];
    const struct message_unit *u = &m->units[unit];
    for (uint16_t i = 0; i < u->rcpt_count; i++)
        rcpts[i] = random_rcpt(t, &u->rcpts[i]);
    struct unit_record *copy = copy_of(m, unit, rcpts);
    copy->held = below(&t->seed, 4) == 0;
    copy->hold_reason = copy->held ? SLICE("held there") : SLICE("");
    copy->next_due.ms = 1700000000000 + below(&t->seed, 1000000);
    return copy;
}

/* --- steps --- */

static void step_own(struct tape *t)
{
    struct message *m = pick_message(t);
    struct store_row rows[UNITS_MAX];
    for (unsigned i = 0; i < m->unit_count; i++)
        rows[i] = unit_row_of((struct unit_id){m->id, (uint16_t)i}, SLICE("ours"));
    both(
        t, (struct store_cluster){
               .may_fail = true, .message = m, .rows = rows, .row_count = m->unit_count});
}

static void step_copy(struct tape *t)
{
    struct message *m = pick_message(t);
    struct unit_record *u = make_copy(t, m, below(&t->seed, m->unit_count));
    struct store_row rows[2] = {
        unit_row_of(u->id, SLICE("a copy")), node_row_of("row1", SLICE("met it"))};
    if (below(&t->seed, 4) == 0) { /* it must be here already */
        body_unref(u->message->body);
        u->message->body = NULL;
    }
    if (below(&t->seed, 8) == 0)
        u->message->body_crc ^= 1;
    both(t, (struct store_cluster){
                .may_fail = true, .copy = u, .rows = rows, .row_count = 2});
    unit_record_free(u);
}

/* Its body came in pieces. */
static void step_big_copy(struct tape *t)
{
    struct message *m = pick_message(t);
    struct unit_record *u = make_copy(t, m, 0);
    struct store_row row = unit_row_of(u->id, SLICE("a big copy"));
    uint32_t rows = body_rows(m->body), half = rows / 2;
    enum err e = ERR_OK;
    for (uint32_t at = 0; at < rows && e == ERR_OK; at += half ? half : 1) {
        uint32_t n = rows - at < half || half == 0 ? rows - at : half;
        struct store_body_rows a = {.op.kind = STORE_OP_BODY_ROWS,
            .id = m->id,
            .body = m->body,
            .first_row = at,
            .row_count = n,
            .copy = true};
        struct store_body_rows b = a;
        e = run_op_wait(t->lmdb, &a.op);
        assert_int_equal(run_op_wait(t->ram, &b.op), e);
    }
    if (below(&t->seed, 2)) {
        body_unref(u->message->body);
        u->message->body = NULL;
    }
    both(t, (struct store_cluster){.may_fail = true,
                .copy = u,
                .rows_on_disk = rows,
                .rows = &row,
                .row_count = 1});
    do_drop(t->lmdb, m->id);
    do_drop(t->ram, m->id);
    unit_record_free(u);
}

static void step_facts(struct tape *t)
{
    const struct message *m = pick_message(t);
    const struct message_unit *u = &m->units[below(&t->seed, m->unit_count)];
    struct rcpt_record rcpts[RCPTS_MAX + 1];
    struct unit_id id = {m->id, u->unit};
    struct store_row row = unit_row_of(id, SLICE("facts"));
    uint16_t n = 0;
    for (uint16_t i = 0; i < u->rcpt_count; i++)
        if (below(&t->seed, 2))
            rcpts[n++] = random_rcpt(t, &u->rcpts[i]);
    if (below(&t->seed, 4) == 0) {
        rcpts[n] = random_rcpt(t, &u->rcpts[0]);
        rcpts[n++].rcpt.index = 50;
    }
    struct store_settle settle = {.unit = id,
        .rcpts = rcpts,
        .rcpt_count = n,
        .unit_done = below(&t->seed, 5) == 0,
        .next_due = {1700000000000 + below(&t->seed, 1000000)}};
    assert_int_equal(
        both(t, (struct store_cluster){.settle = &settle, .rows = &row, .row_count = 1}),
        ERR_OK);
}

/* Forgotten: mail and row; or done: the row stays. */
static void step_remove(struct tape *t)
{
    struct unit_id ids[2] = {pick_unit(t), pick_unit(t)};
    struct slice left = below(&t->seed, 2) ? SLICE("tombstone") : (struct slice){0};
    struct store_row rows[2] = {unit_row_of(ids[0], left), unit_row_of(ids[1], left)};
    bool aside = below(&t->seed, 3) == 0;
    assert_int_equal(both(t, (struct store_cluster){.remove = ids,
                                 .remove_count = aside ? 0 : 2,
                                 .aside = ids,
                                 .aside_count = aside ? 2 : 0,
                                 .aside_reason = SLICE("older than its tombstone"),
                                 .rows = rows,
                                 .row_count = 2}),
        ERR_OK);
}

static void step_quar(struct tape *t)
{
    struct unit_id id = pick_unit(t);
    struct store_row row = unit_row_of(id, SLICE("released"));
    bool release = below(&t->seed, 3) > 0, clustered = below(&t->seed, 2);
    enum err e = both_quar(t, (struct store_quar){.unit = id,
                                  .verb = release ? STORE_QUAR_RELEASE : STORE_QUAR_DROP,
                                  .rows = &row,
                                  .row_count = release && clustered});
    if (e != ERR_OK || !release)
        return;
    /* It is due now, by two clocks. */
    struct store_due a = {.op.kind = STORE_OP_DUE, .unit = id, .next_due = {17}}, b = a;
    assert_int_equal(run_op_wait(t->lmdb, &a.op), ERR_OK);
    assert_int_equal(run_op_wait(t->ram, &b.op), ERR_OK);
}

static void step_rows(struct tape *t)
{
    char *value = mem_alloc(STORE_ROW_VALUE_MAX);
    struct store_row rows[3];
    size_t len = below(&t->seed, 3) ? below(&t->seed, 200)
                                    : below(&t->seed, STORE_ROW_VALUE_MAX + 1);
    for (size_t i = 0; i < len; i++)
        value[i] = (char)next_random(&t->seed);
    for (unsigned i = 0; i < 3; i++) {
        char key[16];
        snprintf(key, sizeof(key), "row%u", below(&t->seed, NODE_ROWS));
        bool delete = below(&t->seed, 4) == 0;
        rows[i] = node_row_of(key, delete ? (struct slice){0} : slice_make(value, len));
    }
    assert_int_equal(
        both(t, (struct store_cluster){.rows = rows, .row_count = 3}), ERR_OK);
    free(value);
}

static void print_scanned(const struct scan_unit *u, void *ctx)
{
    char id[UNIT_ID_TEXT_MAX];
    unit_id_format(u->id, id);
    buf_printf(ctx, "%s clustered=%d held=%d open=%u %.*s\n", id, u->clustered, u->held,
        u->open_rcpts, SLICE_ARG(u->domain));
}

static void print_start(struct store *s, struct buf *b)
{
    struct scan_result r;
    uint64_t damaged;
    buf_clear(b);
    assert_int_equal(store_scan_rows(s, STORE_ROW_NODE, print_row, b, &damaged), ERR_OK);
    assert_int_equal(damaged, 0);
    assert_int_equal(store_scan(s, print_scanned, NULL, b, &r), ERR_OK);
    assert_int_equal(r.damaged, 0);
    assert_int_equal(store_scan_rows(s, STORE_ROW_UNIT, print_row, b, &damaged), ERR_OK);
    assert_int_equal(damaged, 0);
    buf_append_char(b, '\0');
}

static void step_reopen(struct tape *t)
{
    store_close(t->lmdb);
    t->lmdb = open_dir_store(t->dir, 64 * MIB, 0);
    assert_non_null(t->lmdb);
    print_start(t->lmdb, &t->a);
    print_start(t->ram, &t->b);
    assert_string_equal(buf_slice(&t->a).ptr, buf_slice(&t->b).ptr);
}

static void step_one(struct tape *t)
{
    unsigned what = below(&t->seed, 100);
    if (what < 15)
        step_own(t);
    else if (what < 40)
        step_copy(t);
    else if (what < 47)
        step_big_copy(t);
    else if (what < 65)
        step_facts(t);
    else if (what < 78)
        step_remove(t);
    else if (what < 88)
        step_quar(t);
    else if (what < 96)
        step_rows(t);
    else
        step_reopen(t);
}

/* Everything goes, and nothing of it is left. */
static void empty(struct tape *t)
{
    struct store_check c;
    for (unsigned i = 0; i < t->count; i++)
        for (uint16_t u = 0; u < t->m[i]->unit_count; u++) {
            struct unit_id id = {t->m[i]->id, u};
            struct store_row row = unit_row_of(id, (struct slice){0});
            both(t, (struct store_cluster){
                        .remove = &id, .remove_count = 1, .rows = &row, .row_count = 1});
            both_quar(t, (struct store_quar){.unit = id, .verb = STORE_QUAR_DROP});
        }
    compare(t);
    sweep_all(t->lmdb);
    store_lmdb_check(t->lmdb, &c);
    assert_int_equal(c.units + c.rcpts + c.bodies + c.body_rows + c.parts + c.gone, 0);
    assert_int_equal(c.quarantined + c.unit_rows, 0);
}

static void tape_open(struct tape *t, uint64_t seed)
{
    *t = (struct tape){.seed = seed, .dir = temp_dir()};
    buf_init(&t->a, 16 * MIB);
    buf_init(&t->b, 16 * MIB);
    t->lmdb = open_dir_store(t->dir, 64 * MIB, 0);
    t->ram = store_open_ram(64 * MIB);
}

static void tape_close(struct tape *t)
{
    store_close(t->lmdb);
    store_close(t->ram);
    remove_dir(t->dir);
    for (unsigned i = 0; i < t->count; i++)
        message_unref(t->m[i]);
    buf_fini(&t->a);
    buf_fini(&t->b);
}

static void play(uint64_t seed)
{
    struct tape t;
    tape_open(&t, seed);
    for (unsigned i = 0; i < 200; i++) {
        step_one(&t);
        compare(&t);
    }
    empty(&t);
    tape_close(&t);
}

static void test_tapes(void **state)
{
    (void)state;
    const char *given = getenv("TEST_SEED");
    if (given) {
        play(strtoull(given, NULL, 0));
        return;
    }
    for (uint64_t seed = 1; seed <= 6; seed++) {
        print_message("TEST_SEED=%llu\n", (unsigned long long)seed * 7919);
        play(seed * 7919);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
