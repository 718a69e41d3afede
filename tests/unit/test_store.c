/* SPDX-License-Identifier: Apache-2.0 */
/* Tapes: random operations from a seed, on the LMDB store, on the RAM store and on a
 * model, which must say the same after each step. */
#include "tests/unit/store_faults.h"
#include "tests/unit/store_text.h"

#define MODEL_UNITS 400
#define MODEL_RCPTS 4

struct model_rcpt {
    enum rcpt_state state;
    uint16_t attempts;
    int64_t due;
    char reply[40];
};
struct model_unit {
    struct message *m; /* a reference */
    unsigned index;
    bool held;
    char reason[16];
    int64_t due;
    struct model_rcpt rcpts[MODEL_RCPTS];
};
struct tape {
    uint64_t seed, ids;
    struct store *lmdb, *ram;
    char *dir;
    struct model_unit units[MODEL_UNITS];
    unsigned count;
    struct buf want, got;
};

static void print_model(struct buf *b, const struct model_unit *u)
{
    const struct message_unit *unit = &u->m->units[u->index];
    print_unit(b, u->m, unit, u->held, slice_str(u->reason), u->due);
    for (uint16_t i = 0; i < unit->rcpt_count; i++)
        print_rcpt(b, &unit->rcpts[i], u->rcpts[i].state, u->rcpts[i].attempts,
            u->rcpts[i].due, slice_str(u->rcpts[i].reply));
}

/* --- the model --- */

static struct unit_id model_id(const struct model_unit *u)
{
    return (struct unit_id){u->m->id, u->m->units[u->index].unit};
}

static int model_cmp(const void *a, const void *b)
{
    return unit_id_cmp(model_id(a), model_id(b));
}

static struct model_unit *model_find(struct tape *t, struct unit_id id)
{
    for (unsigned i = 0; i < t->count; i++)
        if (unit_id_cmp(model_id(&t->units[i]), id) == 0)
            return &t->units[i];
    return NULL;
}

static enum err model_accept(struct tape *t, struct message *m)
{
    for (unsigned i = 0; i < t->count; i++)
        if (msg_id_eq(t->units[i].m->id, m->id))
            return ERR_STORE_EXISTS;
    for (unsigned i = 0; i < m->unit_count; i++) {
        struct model_unit *u = &t->units[t->count++];
        *u = (struct model_unit){.m = message_ref(m), .index = i, .due = m->created.ms};
        for (unsigned r = 0; r < MODEL_RCPTS; r++)
            u->rcpts[r].due = m->created.ms;
    }
    qsort(t->units, t->count, sizeof(t->units[0]), model_cmp);
    return ERR_OK;
}

static void model_remove(struct tape *t, struct model_unit *u)
{
    message_unref(u->m);
    memmove(u, u + 1, (size_t)(t->units + t->count - u - 1) * sizeof(*u));
    t->count--;
}

static enum err model_settle(struct tape *t, const struct store_settle *e)
{
    struct model_unit *u = model_find(t, e->unit);
    if (!u)
        return ERR_STORE_NOT_FOUND;
    for (uint16_t i = 0; i < e->rcpt_count && !e->unit_done; i++)
        if (e->rcpts[i].rcpt.index >= u->m->units[u->index].rcpt_count)
            return ERR_STORE_NOT_FOUND;
    for (uint16_t i = 0; i < e->rcpt_count && !e->unit_done; i++) {
        struct model_rcpt *r = &u->rcpts[e->rcpts[i].rcpt.index];
        if (r->state >= RCPT_DELIVERED && e->rcpts[i].state != RCPT_DELIVERED)
            continue;
        r->state = e->rcpts[i].state;
        r->attempts = e->rcpts[i].attempts;
        r->due = e->rcpts[i].next_due.ms;
        snprintf(r->reply, sizeof(r->reply), "%.*s", SLICE_ARG(e->rcpts[i].last_reply));
    }
    u->due = e->next_due.ms;
    if (e->unit_done)
        model_remove(t, u);
    for (unsigned i = 0; i < e->dsn_count; i++)
        (void)model_accept(t, e->dsns[i]);
    return ERR_OK;
}

/* --- comparing --- */

static void check_bodies(struct tape *t, struct store *s)
{
    for (unsigned i = 0; i < t->count; i++) {
        struct body *b;
        const struct message *m = t->units[i].m;
        assert_int_equal(store_load_body(s, m->id, MIB * 64, &b), ERR_OK);
        assert_int_equal(body_size(b), m->size);
        assert_int_equal(body_crc(b), m->body_crc);
        body_unref(b);
    }
}

static void check_store(struct tape *t, struct store *s, bool bodies)
{
    struct store_stats stats;
    uint64_t open = 0, held = 0;
    buf_clear(&t->want);
    buf_clear(&t->got);
    for (unsigned i = 0; i < t->count; i++) {
        print_model(&t->want, &t->units[i]);
        held += t->units[i].held;
        for (unsigned r = 0; r < t->units[i].m->units[t->units[i].index].rcpt_count; r++)
            open += t->units[i].rcpts[r].state < RCPT_DELIVERED;
    }
    assert_int_equal(store_list(s, NULL, print_record, &t->got), ERR_OK);
    buf_append_char(&t->want, '\0');
    buf_append_char(&t->got, '\0');
    assert_string_equal(buf_slice(&t->got).ptr, buf_slice(&t->want).ptr);
    store_stats(s, &stats);
    assert_int_equal(stats.units, t->count);
    assert_int_equal(stats.recipients, open);
    assert_int_equal(stats.held, held);
    if (bodies)
        check_bodies(t, s);
}

static void check_lmdb(struct tape *t)
{
    struct store_check c;
    store_lmdb_check(t->lmdb, &c);
    assert_int_equal(c.problems, 0);
    assert_int_equal(c.quarantined, 0);
    assert_int_equal(c.units, t->count);
}

/* --- steps --- */

/* The same operation for both stores. */
#define BOTH(t, type, ...)                                                               \
    do {                                                                                 \
        struct type on_lmdb = {__VA_ARGS__}, on_ram = {__VA_ARGS__};                     \
        enum err lmdb_says = run_op_wait((t)->lmdb, &on_lmdb.op);                        \
        enum err ram_says = run_op_wait((t)->ram, &on_ram.op);                           \
        assert_int_equal(lmdb_says, want);                                               \
        assert_int_equal(ram_says, want);                                                \
    } while (0)

static uint64_t body_size_of(struct tape *t)
{
    static const uint64_t edges[] = {0, 1, 4075, 4076, 4077, 8152, 65216, 65217};
    if (below(&t->seed, 6) == 0)
        return edges[below(&t->seed, 8)];
    return below(&t->seed, below(&t->seed, 8) ? 6000 : 90000);
}

static struct message *tape_message(struct tape *t, unsigned units)
{
    struct body *b = random_body(&t->seed, body_size_of(t));
    return make_message(make_id(&t->ids), b, units, MODEL_RCPTS, &t->seed);
}

static void step_accept(struct tape *t)
{
    struct message *m = tape_message(t, 1 + below(&t->seed, 3));
    enum err want = model_accept(t, m);
    BOTH(t, store_accept, .op.kind = STORE_OP_ACCEPT, .message = m);
    if (below(&t->seed, 8) == 0) {
        want = model_accept(t, m);
        BOTH(t, store_accept, .op.kind = STORE_OP_ACCEPT, .message = m);
    }
    message_unref(m);
}

/* A body that arrives in pieces; some never become a message. */
static void step_big(struct tape *t)
{
    struct message *m = tape_message(t, 2);
    uint32_t rows = (uint32_t)(m->size / BODY_ROW_BYTES);
    if (below(&t->seed, 2))
        rows = body_rows(m->body);
    uint32_t first = rows / 2, done = 0;
    enum err want = ERR_OK;
    for (uint32_t n = first; done < rows; n = rows - done) {
        n = n ? n : 1;
        BOTH(t, store_body_rows, .op.kind = STORE_OP_BODY_ROWS, .id = m->id,
            .body = m->body, .first_row = done, .row_count = n);
        done += n;
    }
    if (below(&t->seed, 3) == 0) {
        want = rows ? ERR_OK : ERR_STORE_NOT_FOUND;
        BOTH(t, store_body_drop, .op.kind = STORE_OP_BODY_DROP, .id = m->id);
    } else {
        want = model_accept(t, m);
        BOTH(t, store_accept, .op.kind = STORE_OP_ACCEPT, .message = m,
            .rows_on_disk = rows);
        want = ERR_STORE_NOT_FOUND;
        BOTH(t, store_body_drop, .op.kind = STORE_OP_BODY_DROP, .id = m->id);
    }
    message_unref(m);
}

/* Rows with a hole before them, and a message with more rows than came, are refused. */
static void step_hole(struct tape *t)
{
    struct body *b = random_body(&t->seed, 20000);
    struct message *m = make_message(make_id(&t->ids), b, 1, 1, &t->seed);
    enum err want = ERR_STORE_NOT_FOUND;
    BOTH(t, store_body_rows, .op.kind = STORE_OP_BODY_ROWS, .id = m->id, .body = b,
        .first_row = 1, .row_count = 2);
    BOTH(t, store_accept, .op.kind = STORE_OP_ACCEPT, .message = m, .rows_on_disk = 3);
    message_unref(m);
}

static struct unit_id pick_unit(struct tape *t)
{
    if (t->count && below(&t->seed, 15))
        return model_id(&t->units[below(&t->seed, t->count)]);
    return (struct unit_id){make_id(&t->ids), 3};
}

static unsigned make_outcomes(
    struct tape *t, struct unit_id id, struct rcpt_record *out, char reply[40])
{
    const struct model_unit *u = model_find(t, id);
    unsigned n = 0;
    snprintf(reply, 40, "450 4.2.1 try %u later", below(&t->seed, 100));
    for (uint16_t i = 0; u && i < u->m->units[u->index].rcpt_count; i++) {
        if (below(&t->seed, 2))
            continue;
        out[n++] = (struct rcpt_record){.rcpt = u->m->units[u->index].rcpts[i],
            .state = (enum rcpt_state)below(&t->seed, 8),
            .attempts = (uint16_t)below(&t->seed, 30),
            .next_due = {1700000000000 + below(&t->seed, 1000000)},
            .last_reply = slice_str(reply)};
    }
    if (n && below(&t->seed, 12) == 0)
        out[n - 1].rcpt.index = 77;
    return n;
}

static void step_settle(struct tape *t)
{
    struct unit_id id = pick_unit(t);
    struct rcpt_record rcpts[MODEL_RCPTS];
    char reply[40];
    struct message *dsn = below(&t->seed, 3) ? NULL : tape_message(t, 1);
    struct store_settle e = {.op.kind = STORE_OP_SETTLE,
        .unit = id,
        .rcpts = rcpts,
        .rcpt_count = (uint16_t)make_outcomes(t, id, rcpts, reply),
        .unit_done = below(&t->seed, 3) == 0,
        .next_due = {1700000000000 + below(&t->seed, 1000000)},
        .dsns = &dsn,
        .dsn_count = dsn != NULL};
    for (unsigned twice = 0; twice < 2; twice++) {
        struct store_settle a = e, b = e;
        enum err want = model_settle(t, &e);
        assert_int_equal(run_op_wait(t->lmdb, &a.op), want);
        assert_int_equal(run_op_wait(t->ram, &b.op), want);
    }
    message_unref(dsn);
}

static void step_hold(struct tape *t)
{
    struct unit_id id = pick_unit(t);
    struct model_unit *u = model_find(t, id);
    bool hold = below(&t->seed, 2);
    enum err want = u ? ERR_OK : ERR_STORE_NOT_FOUND;
    if (u) {
        u->held = hold;
        snprintf(u->reason, sizeof(u->reason), "%s", hold ? "operator" : "");
    }
    BOTH(t, store_hold, .op.kind = STORE_OP_HOLD, .unit = id, .hold = hold,
        .reason = SLICE("operator"));
}

static void step_due(struct tape *t)
{
    struct unit_id id = pick_unit(t);
    struct model_unit *u = model_find(t, id);
    struct wall due = {1700000000000 + below(&t->seed, 1000000)};
    enum err want = u ? ERR_OK : ERR_STORE_NOT_FOUND;
    if (u)
        u->due = due.ms;
    for (unsigned i = 0; u && i < MODEL_RCPTS; i++)
        if (u->rcpts[i].state < RCPT_DELIVERED)
            u->rcpts[i].due = due.ms;
    BOTH(t, store_due, .op.kind = STORE_OP_DUE, .unit = id, .next_due = due);
}

/* Many at once: they share a transaction and keep their order. */
static void step_burst(struct tape *t)
{
    struct store_accept accept[2][12];
    struct store_settle settle[2][12];
    struct store_op *ops[2][24];
    struct message *m[12];
    for (unsigned i = 0; i < 12; i++) {
        m[i] = tape_message(t, 1);
        bool settles = below(&t->seed, 2);
        if (!settles)
            (void)model_accept(t, m[i]);
        for (unsigned s = 0; s < 2; s++) {
            accept[s][i] =
                (struct store_accept){.op.kind = STORE_OP_ACCEPT, .message = m[i]};
            settle[s][i] = (struct store_settle){.op.kind = STORE_OP_SETTLE,
                .unit = {settles ? m[i]->id : make_id(&t->ids), 0},
                .unit_done = true};
            ops[s][2 * i] = &accept[s][i].op;
            ops[s][2 * i + 1] = &settle[s][i].op;
        }
    }
    run_ops(t->lmdb, ops[0], 24);
    run_ops(t->ram, ops[1], 24);
    for (unsigned i = 0; i < 24; i++)
        assert_int_equal(ops[0][i]->result, ops[1][i]->result);
    for (unsigned i = 0; i < 12; i++)
        message_unref(m[i]);
}

static void count_unit(const struct scan_unit *u, void *ctx)
{
    struct tape *t = ctx;
    const struct model_unit *m = model_find(t, u->id);
    assert_non_null(m);
    const struct message_unit *unit = &m->m->units[m->index];
    unsigned open = 0;
    for (unsigned i = 0; i < unit->rcpt_count; i++)
        open += m->rcpts[i].state < RCPT_DELIVERED;
    assert_int_equal(u->open_rcpts, open);
    assert_true(slice_eq(u->domain, unit->domain));
    assert_int_equal(u->next_due.ms, m->due);
    assert_int_equal(u->expires.ms, unit->expires.ms);
    assert_int_equal(u->created.ms, m->m->created.ms);
    assert_int_equal(u->held, m->held);
    assert_int_equal(u->size, m->m->size);
}

static void step_reopen(struct tape *t)
{
    struct scan_result r;
    uint32_t epoch = store_identity(t->lmdb).epoch;
    uint64_t node = store_identity(t->lmdb).node_id;
    store_close(t->lmdb);
    t->lmdb = open_dir_store(t->dir, 64 * MIB, 0);
    assert_non_null(t->lmdb);
    assert_int_equal(store_identity(t->lmdb).epoch, epoch + 1);
    assert_int_equal(store_identity(t->lmdb).node_id, node);
    assert_true(store_identity(t->lmdb).clean_shutdown);
    assert_false(store_identity(t->lmdb).created);
    assert_int_equal(store_scan(t->lmdb, count_unit, NULL, t, &r), ERR_OK);
    assert_int_equal(r.units, t->count);
    assert_int_equal(r.damaged, 0);
    assert_int_equal(store_scan(t->ram, count_unit, NULL, t, &r), ERR_OK);
    assert_int_equal(r.units, t->count);
}

static void step_one(struct tape *t)
{
    unsigned what = below(&t->seed, 100);
    if (t->count > MODEL_UNITS - 40 || (what >= 50 && what < 75))
        step_settle(t);
    else if (what < 30)
        step_accept(t);
    else if (what < 40)
        step_big(t);
    else if (what < 43)
        step_hole(t);
    else if (what < 50)
        step_burst(t);
    else if (what < 83)
        step_hold(t);
    else if (what < 92)
        step_due(t);
    else if (what < 96)
        step_reopen(t);
    else
        do_barrier(t->lmdb);
}

static void play(uint64_t seed)
{
    struct tape *t = mem_zalloc(sizeof(*t));
    t->seed = seed;
    t->dir = temp_dir();
    buf_init(&t->want, 16 * MIB);
    buf_init(&t->got, 16 * MIB);
    t->lmdb = open_dir_store(t->dir, 64 * MIB, 0);
    t->ram = store_open_ram(64 * MIB);
    assert_true(store_identity(t->lmdb).created);
    for (unsigned i = 0; i < 150; i++) {
        step_one(t);
        check_store(t, t->lmdb, i % 16 == 0);
        check_store(t, t->ram, i % 16 == 0);
        check_lmdb(t);
    }
    while (t->count) {
        assert_int_equal(do_done(t->lmdb, model_id(&t->units[0])), ERR_OK);
        assert_int_equal(do_done(t->ram, model_id(&t->units[0])), ERR_OK);
        model_remove(t, &t->units[0]);
    }
    check_store(t, t->lmdb, true);
    sweep_all(t->lmdb);
    struct store_check c;
    store_lmdb_check(t->lmdb, &c);
    assert_int_equal(c.bodies + c.body_rows + c.rcpts + c.parts + c.gone, 0);
    store_close(t->lmdb);
    store_close(t->ram);
    remove_dir(t->dir);
    buf_fini(&t->want);
    buf_fini(&t->got);
    free(t);
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

/* --- reads --- */

static void read_all(struct store *s)
{
    uint64_t seed = 5, ids = 0;
    struct body *b = random_body(&seed, 200000);
    struct message *m = make_message(make_id(&ids), b, 3, 2, &seed);
    struct unit_id units[8];
    char *out = mem_alloc(16 * BODY_ROW_BYTES), text[8];
    size_t len, total = 0;
    struct body *loaded;
    assert_int_equal(do_accept(s, m, 0), ERR_OK);
    for (uint32_t row = 0;; row += 16) {
        assert_int_equal(store_read_body(s, m->id, row, out, &len), ERR_OK);
        if (len == 0)
            break;
        assert_memory_equal(out, body_row(b, row).ptr, BODY_ROW_BYTES);
        total += len;
    }
    assert_int_equal(total, 200000);
    assert_int_equal(store_load_body(s, m->id, 199999, &loaded), ERR_TOO_BIG);
    assert_null(loaded);
    assert_int_equal(store_units_of(s, m->id, units, 8), 3);
    assert_int_equal(units[2].unit, 2);
    assert_int_equal(store_units_of(s, m->id, units, 2), 2);
    struct store_meta meta = {
        .op.kind = STORE_OP_META, .name = "anchor", .value = SLICE("x42")};
    assert_int_equal(run_op_wait(s, &meta.op), ERR_OK);
    assert_int_equal(store_read_meta(s, "anchor", text, sizeof(text), &len), ERR_OK);
    assert_int_equal(len, 3);
    assert_memory_equal(text, "x42", 3);
    assert_int_equal(store_read_meta(s, "anchor", text, 2, &len), ERR_TOO_BIG);
    assert_int_equal(
        store_read_meta(s, "other", text, sizeof(text), &len), ERR_STORE_NOT_FOUND);
    struct unit_record *u;
    assert_int_equal(
        store_read_unit(s, (struct unit_id){make_id(&ids), 0}, &u), ERR_STORE_NOT_FOUND);
    assert_int_equal(store_load_body(s, make_id(&ids), 10, &loaded), ERR_STORE_NOT_FOUND);
    free(out);
    message_unref(m);
}

static void test_reads(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct store *s = open_dir_store(dir, 64 * MIB, 0);
    read_all(s);
    store_close(s);
    remove_dir(dir);
    s = store_open_ram(64 * MIB);
    read_all(s);
    store_close(s);
}

/* More than one batch takes at once: what is left over needs no new mail to be run. */
static void test_many_batches(void **state)
{
    (void)state;
    enum { COUNT = 700 };
    char *dir = temp_dir();
    struct store *s = open_dir_store(dir, 64 * MIB, 0);
    struct store_accept *a = mem_zalloc(COUNT * sizeof(*a));
    struct store_op *ops[COUNT];
    struct store_stats stats;
    uint64_t seed = 3, ids = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        struct body *b = random_body(&seed, 20000);
        a[i].op.kind = STORE_OP_ACCEPT;
        a[i].message = make_message(make_id(&ids), b, 1, 1, &seed);
        ops[i] = &a[i].op;
    }
    run_ops(s, ops, COUNT);
    store_stats(s, &stats);
    assert_int_equal(stats.units, COUNT);
    assert_true(stats.commits >= 3);
    for (unsigned i = 0; i < COUNT; i++) {
        assert_int_equal(a[i].op.result, ERR_OK);
        message_unref(a[i].message);
    }
    free(a);
    store_close(s);
    remove_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads),
        cmocka_unit_test(test_many_batches),
        cmocka_unit_test(test_tapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
