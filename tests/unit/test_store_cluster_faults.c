/* SPDX-License-Identifier: Apache-2.0 */
/* What the world does to a store of a cluster: kill -9 in the middle of a commit, full
 * quotas, disks and maps, a writer that hangs. */
#include "tests/unit/store_cluster_faults.h"

/* --- kill -9 --- */

/* What the child will have done when it says so: value and mail belong together. */
enum said { SAID_LIVE = 1, SAID_GOING, SAID_GONE, SAID_TOMB, SAID_ASIDE };
struct ack {
    struct msg_id id;
    uint32_t said;
};

static void tell(int out, const struct message *m, enum said said)
{
    struct ack a = {m->id, said};
    if (write(out, &a, sizeof(a)) != (ssize_t)sizeof(a))
        _exit(1);
}

static void end_one(struct store *s, const struct message *m, unsigned how, int out)
{
    struct unit_id id = {m->id, 0};
    struct store_row gone = unit_row_of(id, (struct slice){0});
    tell(out, m, SAID_GOING);
    if (how == 0 && remove_unit(s, id, (struct slice){0}) == ERR_OK) {
        tell(out, m, SAID_GONE);
    } else if (how == 1 && remove_unit(s, id, SLICE("tomb")) == ERR_OK) {
        tell(out, m, SAID_TOMB);
    } else if (how == 2 && run_cluster(s, (struct store_cluster){.aside = &id,
                                              .aside_count = 1,
                                              .aside_reason = SLICE("old"),
                                              .rows = &gone,
                                              .row_count = 1}) == ERR_OK) {
        tell(out, m, SAID_ASIDE);
    } else {
        _exit(4);
    }
}

/* A batch of copies, each with its row, a long row of the node and facts of the one
 * before. */
static void churn_round(
    struct store *s, struct msg_id_source *ids, uint64_t *seed, int out)
{
    enum { COUNT = 8 };
    static char big[STORE_ROW_VALUE_MAX];
    struct store_cluster c[COUNT];
    struct store_op *ops[COUNT];
    struct unit_record *u[COUNT];
    struct store_row rows[COUNT][2];
    struct message *m[COUNT];
    for (unsigned i = 0; i < COUNT; i++) {
        m[i] = make_message(msg_id_next(ids, wall_now()),
            random_body(seed, below(seed, 30000)), 1, 3, seed);
        u[i] = copy_of(m[i], 0, NULL);
        rows[i][0] = unit_row_of(u[i]->id, SLICE("live"));
        rows[i][1] = node_row_of("cfg", slice_make(big, below(seed, sizeof(big))));
        c[i] = (struct store_cluster){
            .op.kind = STORE_OP_CLUSTER, .copy = u[i], .rows = rows[i], .row_count = 2};
        ops[i] = &c[i].op;
    }
    run_ops(s, ops, COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        if (ops[i]->result != ERR_OK)
            _exit(3);
        tell(out, m[i], SAID_LIVE);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        if (i % 4 < 3)
            end_one(s, m[i], i % 4, out);
        unit_record_free(u[i]);
        message_unref(m[i]);
    }
}

static void churn(const char *dir, int out)
{
    struct store *s = open_dir_store(dir, 256 * MIB, 0);
    struct scan_result r;
    struct msg_id_source ids;
    if (!s || store_scan(s, ignore_unit, NULL, NULL, &r) != ERR_OK)
        _exit(2);
    uint64_t seed = 99 + store_identity(s).epoch;
    msg_id_source_init(&ids, 5, store_identity(s).epoch, 0);
    for (;;)
        churn_round(s, &ids, &seed, out);
}

struct ledger {
    struct ack *acks;
    unsigned count;
};

static void note(struct ledger *l, const struct ack *a)
{
    for (unsigned i = l->count; i-- > 0;)
        if (msg_id_eq(l->acks[i].id, a->id)) {
            l->acks[i].said = a->said;
            return;
        }
    l->acks = mem_realloc(l->acks, (l->count + 1) * sizeof(*l->acks));
    l->acks[l->count++] = *a;
}

static void ignore_quar(const struct store_quarantined *q, void *ctx)
{
    (void)ctx;
    assert_true(q->releasable);
}

static void check_ledger(struct store *s, const struct ledger *l)
{
    for (unsigned i = 0; i < l->count; i++) {
        struct unit_id id = {l->acks[i].id, 0};
        enum said said = (enum said)l->acks[i].said;
        struct unit_record *u = NULL;
        enum err mail = store_read_unit(s, id, &u), row = read_unit_row(s, id);
        unit_record_free(u);
        assert_int_equal(store_read_quar(s, id, ignore_quar, NULL) == ERR_OK,
            mail != ERR_OK && row != ERR_OK && said == SAID_ASIDE);
        if (said == SAID_LIVE)
            assert_true(mail == ERR_OK && row == ERR_OK);
        else if (said == SAID_GOING)
            assert_true(mail != ERR_OK || row == ERR_OK);
        else
            assert_true(mail != ERR_OK && (row == ERR_OK) == (said == SAID_TOMB));
    }
}

static void kill_round(const char *dir, struct ledger *l, uint64_t *seed)
{
    struct child c = start_child(churn, dir);
    unsigned acks = 1 + below(seed, 150), rows = 0;
    uint64_t damaged;
    struct ack a;
    for (unsigned i = 0; i < acks && read(c.out, &a, sizeof(a)) == sizeof(a); i++)
        note(l, &a);
    kill(c.pid, SIGKILL);
    while (read(c.out, &a, sizeof(a)) == sizeof(a))
        note(l, &a);
    int status = end_child(&c);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    struct store *s = open_dir_store(dir, 256 * MIB, 0);
    assert_non_null(s);
    assert_int_equal(
        store_scan_rows(s, STORE_ROW_NODE, count_row, &rows, &damaged), ERR_OK);
    assert_int_equal(rows, 1);
    assert_int_equal(scan(s).damaged, 0);
    assert_int_equal(
        store_scan_rows(s, STORE_ROW_UNIT, count_row, &rows, &damaged), ERR_OK);
    assert_int_equal(damaged, 0);
    check_ledger(s, l);
    sweep_all(s);
    store_close(s);
}

/* An operation whose answer was under way may be done or not, but never half. */
static void test_kill(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct ledger l = {0};
    uint64_t seed = 4321;
    const char *rounds = getenv("TEST_KILL_ROUNDS");
    unsigned count = rounds ? (unsigned)strtoul(rounds, NULL, 10) : 12;
    for (unsigned i = 0; i < count; i++)
        kill_round(dir, &l, &seed);
    assert_true(l.count > 20);
    free(l.acks);
    remove_dir(dir);
}

/* --- space --- */

/* Messages stop at 70 %, copies at 80, what must not fail goes on. */
static void test_quota(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct store *s = open_dir_store(dir, QUOTA, 0);
    struct store_stats st;
    uint64_t ids = 0, seed = 9;
    struct message *m = new_message(&ids, &seed, 400000);
    while (store_admit(s, 400000) == ERR_OK)
        assert_int_equal(copy_new(s, &ids, &seed, 400000), ERR_OK);
    assert_int_equal(do_accept(s, m, 0), ERR_STORE_FULL);
    struct store_row row = unit_row_of((struct unit_id){m->id, 0}, SLICE("live"));
    struct store_cluster own = {
        .may_fail = true, .message = m, .rows = &row, .row_count = 1};
    assert_int_equal(run_cluster(s, own), ERR_STORE_FULL);
    assert_int_equal(read_unit_row(s, (struct unit_id){m->id, 0}), ERR_STORE_NOT_FOUND);
    unsigned more = 0;
    while (copy_new(s, &ids, &seed, 400000) == ERR_OK)
        more++;
    assert_true(more >= 4 && more <= 9);
    store_stats(s, &st);
    assert_false(st.intake_open);
    assert_true(st.copies_open); /* for small ones */
    assert_int_equal(store_admit_copy(s, 400000), ERR_STORE_FULL);
    assert_true(st.used_bytes <= QUOTA / 10 * 8 + 100000);
    assert_int_equal(st.rows, st.units);
    struct store_cluster must = own;
    must.may_fail = false;
    assert_int_equal(run_cluster(s, must), ERR_OK);
    while (remove_first(s))
        ;
    assert_int_equal(store_admit(s, 400000), ERR_OK);
    check_whole(s);
    store_close(s);
    message_unref(m);
    remove_dir(dir);
}

static void test_disk_does_not_grow(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct store *s = open_dir_store(dir, QUOTA, 0);
    struct store_stats st;
    uint64_t ids = 0, seed = 4;
    unsigned copies = 0;
    store_lmdb_set_allocate(s, no_space);
    while (copy_new(s, &ids, &seed, 200000) == ERR_OK)
        copies++;
    store_stats(s, &st);
    assert_true(copies > 0 && copies < 80 && st.disk_full);
    assert_int_equal(store_admit_copy(s, 1), ERR_STORE_FULL);
    assert_int_equal(st.units, copies);
    assert_int_equal(st.rows, copies);
    while (remove_first(s))
        copies--;
    assert_int_equal(copies, 0);
    check_whole(s);
    store_close(s);
    remove_dir(dir);
}

/* The map has no room for all of a batch: each is there whole, or not at all. */
static void test_map_full(void **state)
{
    (void)state;
    enum { COUNT = 40 };
    char *dir = temp_dir();
    struct store *s = open_dir_store(dir, QUOTA, 3 * MIB);
    uint64_t ids = 0, seed = 4;
    struct store_cluster c[COUNT];
    struct store_op *ops[COUNT];
    struct store_row rows[COUNT];
    unsigned ok = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        struct message *m = new_message(&ids, &seed, 150000);
        struct unit_record *u = copy_of(m, 0, NULL);
        rows[i] = unit_row_of(u->id, SLICE("live"));
        c[i] = (struct store_cluster){
            .op.kind = STORE_OP_CLUSTER, .copy = u, .rows = &rows[i], .row_count = 1};
        ops[i] = &c[i].op;
        message_unref(m);
    }
    run_ops(s, ops, COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        struct unit_record *u = NULL;
        bool done = c[i].op.result == ERR_OK;
        assert_true(done || c[i].op.result == ERR_STORE_FULL);
        assert_int_equal(store_read_unit(s, c[i].copy->id, &u) == ERR_OK, done);
        assert_int_equal(read_unit_row(s, c[i].copy->id) == ERR_OK, done);
        unit_record_free(u);
        body_unref(c[i].copy->message->body);
        c[i].copy->message->body = NULL;
        ok += done;
    }
    for (unsigned i = 0; i < COUNT; i++) {
        struct unit_id id = c[i].copy->id;
        assert_int_equal(remove_unit(s, id, (struct slice){0}), ERR_OK);
        message_unref(c[i].copy->message);
    }
    assert_true(ok > 5 && ok < 35);
    check_whole(s);
    store_close(s);
    remove_dir(dir);
}

/* A big body goes in several transactions; until then its id is taken. */
static void test_copy_while_sweeping(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct store *s = open_dir_store(dir, 128 * MIB, 0);
    uint64_t ids = 0, seed = 6;
    struct message *m = new_message(&ids, &seed, 30 * MIB);
    struct unit_id id = {m->id, 0};
    struct store_row live = unit_row_of(id, SLICE("live"));
    struct store_row gone = unit_row_of(id, (struct slice){0});
    struct unit_record *u = copy_of(m, 0, NULL);
    assert_int_equal(store_copy(s, m, 0, SLICE("live")), ERR_OK);
    struct store_cluster c[2] = {{.op.kind = STORE_OP_CLUSTER,
                                     .remove = &id,
                                     .remove_count = 1,
                                     .rows = &gone,
                                     .row_count = 1},
        {.op.kind = STORE_OP_CLUSTER, .copy = u, .rows = &live, .row_count = 1}};
    struct store_body_rows r = {
        .op.kind = STORE_OP_BODY_ROWS, .id = m->id, .body = m->body, .row_count = 4};
    struct store_op *ops[] = {&c[0].op, &c[1].op, &r.op};
    run_ops(s, ops, 3);
    assert_int_equal(c[0].op.result, ERR_OK);
    assert_int_equal(c[1].op.result, ERR_STORE_EXISTS);
    assert_int_equal(r.op.result, ERR_STORE_EXISTS);
    sweep_all(s);
    assert_int_equal(store_copy(s, m, 0, SLICE("live")), ERR_OK);
    check_whole(s);
    unit_record_free(u);
    message_unref(m);
    store_close(s);
    remove_dir(dir);
}

/* --- a writer that hangs --- */

static int gate[2];

static int wait_at_gate(int fd, off_t at, off_t len)
{
    char c;
    ssize_t n = read(gate[0], &c, 1);
    return n == 1 ? posix_fallocate(fd, at, len) : EIO;
}

static void test_commit_age(void **state)
{
    (void)state;
    char *dir = temp_dir();
    uint64_t ids = 0, seed = 4;
    unsigned *done;
    assert_int_equal(pipe(gate), 0);
    struct store *s = open_dir_store(dir, QUOTA, 0);
    do_barrier(s);
    assert_int_equal(store_commit_age_ms(s), 0);
    store_lmdb_set_allocate(s, wait_at_gate);
    struct store_accept a = {.op.kind = STORE_OP_ACCEPT};
    do { /* until one needs more disk than was taken ahead, and hangs */
        message_unref(a.message);
        a.message = new_message(&ids, &seed, 400000);
        a.op.reply_to = reply_box(&done);
        a.op.done = box_done;
        store_submit(s, &a.op);
        while (*done == 0 && store_commit_age_ms(s) < 200) {
            mailbox_wait(a.op.reply_to, 20);
            mailbox_drain(a.op.reply_to);
        }
    } while (*done);
    assert_true(store_commit_age_ms(s) >= 200);
    assert_int_equal(write(gate[1], "................", 16), 16);
    while (*done == 0) {
        mailbox_wait(a.op.reply_to, -1);
        mailbox_drain(a.op.reply_to);
    }
    assert_int_equal(a.op.result, ERR_OK);
    message_unref(a.message);
    store_lmdb_set_allocate(s, posix_fallocate);
    do_barrier(s);
    do_barrier(s);
    assert_true(store_commit_age_ms(s) < 200);
    store_close(s);
    close(gate[0]);
    close(gate[1]);
    remove_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kill),
        cmocka_unit_test(test_quota),
        cmocka_unit_test(test_disk_does_not_grow),
        cmocka_unit_test(test_map_full),
        cmocka_unit_test(test_copy_while_sweeping),
        cmocka_unit_test(test_commit_age),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
