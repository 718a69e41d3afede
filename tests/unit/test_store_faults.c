/* SPDX-License-Identifier: Apache-2.0 */
/* What the world does to a store: full disks and maps, flipped bytes, a second daemon,
 * kill -9, a clock that jumps. */
#include "tests/unit/store_faults.h"

#include <sys/resource.h>

#define QUOTA (32 * MIB)

static struct message *new_message(uint64_t *ids, uint64_t *seed, uint64_t size)
{
    struct body *b = random_body(seed, size);
    return make_message(make_id(ids), b, 1, 2, seed);
}

static enum err accept_new(struct store *s, uint64_t *ids, uint64_t *seed, uint64_t size)
{
    struct message *m = new_message(ids, seed, size);
    enum err e = do_accept(s, m, 0);
    message_unref(m);
    return e;
}

/* --- space --- */

static void test_quota(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct store *s = open_dir_store(dir, QUOTA, 0);
    struct store_stats st;
    uint64_t ids = 0, seed = 9;
    unsigned accepted = 0;
    assert_int_equal(store_admit(s, 1000), ERR_OK);
    assert_int_equal(store_admit(s, QUOTA), ERR_STORE_FULL);
    assert_int_equal(store_admit(s, UINT64_MAX), ERR_STORE_FULL);
    while (accept_new(s, &ids, &seed, 400000) == ERR_OK)
        accepted++;
    store_stats(s, &st);
    assert_true(accepted > 40 && accepted < 60);
    assert_true(st.used_bytes <= QUOTA / 10 * 7 + 100000);
    assert_int_equal(store_admit(s, 400000), ERR_STORE_FULL);
    /* A DSN and the end of a unit always go through. */
    struct unit_id first;
    assert_int_equal(store_list(s, NULL, keep_id, &first), ERR_OK);
    struct message *dsn = new_message(&ids, &seed, 300000);
    struct store_settle e = {.op.kind = STORE_OP_SETTLE,
        .unit = first,
        .unit_done = true,
        .dsns = &dsn,
        .dsn_count = 1};
    assert_int_equal(run_op_wait(s, &e.op), ERR_OK);
    message_unref(dsn);
    while (end_first(s))
        ;
    assert_int_equal(store_admit(s, 400000), ERR_OK);
    assert_int_equal(accept_new(s, &ids, &seed, 400000), ERR_OK);
    check_whole(s);
    store_close(s);
    remove_dir(dir);
}

/* The file may not outgrow what was preallocated, however often the queue turns over. */
static void test_turnover(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct store *s = open_dir_store(dir, QUOTA, 0);
    struct store_stats st;
    uint64_t ids = 0, seed = 9;
    for (unsigned round = 0; round < 12; round++) {
        for (unsigned i = 0; i < 20; i++)
            assert_int_equal(accept_new(s, &ids, &seed, 500000), ERR_OK);
        while (end_first(s))
            ;
    }
    sweep_all(s);
    store_stats(s, &st);
    assert_true(st.allocated_bytes <= 2 * QUOTA);
    assert_int_equal(st.body_rows, 0);
    store_close(s);
    remove_dir(dir);
}

static void test_map_full(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct store *s = open_dir_store(dir, QUOTA, 3 * MIB);
    uint64_t ids = 0, seed = 4;
    struct store_accept a[40];
    struct store_op *ops[40];
    unsigned ok = 0, full = 0;
    for (unsigned i = 0; i < 40; i++) {
        a[i] = (struct store_accept){
            .op.kind = STORE_OP_ACCEPT, .message = new_message(&ids, &seed, 150000)};
        ops[i] = &a[i].op;
    }
    run_ops(s, ops, 40);
    for (unsigned i = 0; i < 40; i++) {
        ok += a[i].op.result == ERR_OK;
        full += a[i].op.result == ERR_STORE_FULL;
        struct unit_record *u;
        struct unit_id id = {a[i].message->id, 0};
        enum err e = store_read_unit(s, id, &u);
        assert_int_equal(e, a[i].op.result == ERR_OK ? ERR_OK : ERR_STORE_NOT_FOUND);
        if (e == ERR_OK)
            unit_record_free(u);
        message_unref(a[i].message);
    }
    assert_int_equal(ok + full, 40);
    assert_true(ok > 5 && full > 5);
    check_whole(s);
    while (end_first(s))
        ;
    check_whole(s);
    store_close(s);
    remove_dir(dir);
}

static void test_disk_does_not_grow(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct store *s = open_dir_store(dir, QUOTA, 0);
    uint64_t ids = 0, seed = 4;
    unsigned accepted = 0;
    store_lmdb_set_allocate(s, no_space);
    while (accept_new(s, &ids, &seed, 200000) == ERR_OK)
        accepted++;
    assert_true(accepted > 0 && accepted < 80);
    assert_int_equal(store_admit(s, 1), ERR_STORE_FULL);
    while (end_first(s))
        accepted--;
    assert_int_equal(accepted, 0);
    store_lmdb_set_allocate(s, posix_fallocate);
    /* The writer looks again by itself, about once a second. */
    for (unsigned i = 0; i < 500 && store_admit(s, 1) != ERR_OK; i++) {
        struct mailbox *box = mailbox_new(NULL);
        mailbox_wait(box, 20);
        mailbox_free(box);
    }
    assert_int_equal(store_admit(s, 1), ERR_OK);
    assert_int_equal(accept_new(s, &ids, &seed, 200000), ERR_OK);
    check_whole(s);
    store_close(s);
    remove_dir(dir);
}

/* --- in a child, because LMDB is not for forks and die() ends --- */

static void limit_file_size(const char *dir)
{
    char path[256];
    struct stat st;
    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    if (stat(path, &st) != 0)
        _exit(3);
    struct rlimit limit = {(rlim_t)st.st_size, (rlim_t)st.st_size};
    signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
        _exit(4);
}

/* A real refusal of the file system to grow the file: mail is refused, nothing breaks. */
static void fill_limited(const char *dir, int out)
{
    struct store *s = open_dir_store(dir, QUOTA, 0);
    uint64_t ids = 0, seed = 4;
    uint32_t n = 0;
    limit_file_size(dir);
    while (accept_new(s, &ids, &seed, 200000) == ERR_OK)
        n++;
    for (; n > 0; n--)
        if (!end_first(s))
            _exit(5);
    if (end_first(s) || write(out, "x", 1) != 1)
        _exit(6);
    store_close(s);
}

static void test_file_size_limit(void **state)
{
    (void)state;
    char *dir = temp_dir();
    char said;
    struct child c = start_child(fill_limited, dir);
    assert_int_equal(read(c.out, &said, 1), 1);
    assert_int_equal(end_child(&c), 0);
    remove_dir(dir);
}

static int pretend(int fd, off_t at, off_t len)
{
    (void)fd;
    (void)at;
    (void)len;
    return 0;
}

/* Nothing was preallocated although it was said to be: the commit itself fails. */
static void fill_until_death(const char *dir, int out)
{
    struct store *s = open_dir_store(dir, QUOTA, 0);
    uint64_t ids = 0, seed = 4;
    store_lmdb_set_allocate(s, pretend);
    limit_file_size(dir);
    dup2(out, STDERR_FILENO);
    for (;;)
        (void)accept_new(s, &ids, &seed, 300000);
}

static void test_commit_error_is_the_end(void **state)
{
    (void)state;
    char *dir = temp_dir(), said[1024] = "";
    struct child c = start_child(fill_until_death, dir);
    size_t len = 0;
    ssize_t n;
    while ((n = read(c.out, said + len, sizeof(said) - 1 - len)) > 0)
        len += (size_t)n;
    int status = end_child(&c);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 70);
    assert_non_null(strstr(said, "commit failed"));
    assert_non_null(strstr(said, dir));
    struct store *s = open_dir_store(dir, QUOTA, 0);
    assert_false(store_identity(s).clean_shutdown);
    assert_int_equal(scan(s).damaged, 0);
    check_whole(s);
    store_close(s);
    remove_dir(dir);
}

/* --- kill -9 --- */

struct ack {
    struct msg_id id;
    uint32_t kind; /* 0: a settle is about to go, 1: accepted, 2: settled */
    uint32_t crc;
};

static void tell(int out, struct msg_id id, uint32_t kind, uint32_t crc)
{
    struct ack a = {id, kind, crc};
    if (write(out, &a, sizeof(a)) != (ssize_t)sizeof(a))
        _exit(1);
}

static void churn(const char *dir, int out)
{
    struct store *s = open_dir_store(dir, 256 * MIB, 0);
    if (!s || store_scan(s, ignore_unit, NULL, NULL, &(struct scan_result){0}) != ERR_OK)
        _exit(2);
    struct msg_id_source source;
    struct store_accept a[8];
    struct store_op *ops[8];
    uint64_t seed = 99 + store_identity(s).epoch;
    msg_id_source_init(&source, 5, store_identity(s).epoch, 0);
    for (;;) {
        for (unsigned i = 0; i < 8; i++) {
            struct body *b = random_body(&seed, below(&seed, 30000));
            struct message *m =
                make_message(msg_id_next(&source, wall_now()), b, 1, 3, &seed);
            a[i] = (struct store_accept){.op.kind = STORE_OP_ACCEPT, .message = m};
            ops[i] = &a[i].op;
        }
        run_ops(s, ops, 8);
        for (unsigned i = 0; i < 8; i++)
            tell(out, a[i].message->id, 1, a[i].message->body_crc);
        for (unsigned i = 0; i < 8; i += 2) {
            tell(out, a[i].message->id, 0, 0);
            if (do_done(s, (struct unit_id){a[i].message->id, 0}) != ERR_OK)
                _exit(4);
            tell(out, a[i].message->id, 2, 0);
        }
        /* A body that will never become a message. */
        struct msg_id lone = msg_id_next(&source, wall_now());
        if (do_rows(s, lone, a[1].message->body, 0, body_rows(a[1].message->body) / 2) !=
            ERR_OK)
            _exit(5);
        for (unsigned i = 0; i < 8; i++)
            message_unref(a[i].message);
    }
}

struct ledger {
    struct ack *rows;
    unsigned count;
};

static void note(struct ledger *l, const struct ack *a)
{
    for (unsigned i = l->count; i-- > 0;)
        if (msg_id_eq(l->rows[i].id, a->id)) {
            l->rows[i].kind = a->kind;
            return;
        }
    l->rows = mem_realloc(l->rows, (l->count + 1) * sizeof(*l->rows));
    l->rows[l->count++] = *a;
}

static void check_ledger(struct store *s, const struct ledger *l)
{
    for (unsigned i = 0; i < l->count; i++) {
        const struct ack *a = &l->rows[i];
        struct unit_record *u;
        enum err e = store_read_unit(s, (struct unit_id){a->id, 0}, &u);
        if (a->kind == 1)
            assert_int_equal(e, ERR_OK);
        else if (a->kind == 2)
            assert_int_equal(e, ERR_STORE_NOT_FOUND);
        if (e != ERR_OK)
            continue;
        struct body *b;
        assert_int_equal(store_load_body(s, a->id, MIB, &b), ERR_OK);
        assert_int_equal(body_crc(b), u->message->body_crc);
        body_unref(b);
        unit_record_free(u);
    }
}

static void kill_round(const char *dir, struct ledger *l, uint64_t *seed)
{
    struct child c = start_child(churn, dir);
    unsigned acks = 1 + below(seed, 150);
    struct ack a;
    ssize_t n;
    for (unsigned i = 0; i < acks && read(c.out, &a, sizeof(a)) == sizeof(a); i++)
        note(l, &a);
    kill(c.pid, SIGKILL);
    while ((n = read(c.out, &a, sizeof(a))) == sizeof(a))
        note(l, &a);
    int status = end_child(&c);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    struct store *s = open_dir_store(dir, 256 * MIB, 0);
    assert_non_null(s);
    assert_false(store_identity(s).clean_shutdown);
    struct scan_result r = scan(s);
    assert_int_equal(r.damaged, 0);
    check_ledger(s, l);
    sweep_all(s);
    store_close(s);
}

static void test_kill(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct ledger l = {0};
    uint64_t seed = 1234;
    const char *rounds = getenv("TEST_KILL_ROUNDS");
    unsigned count = rounds ? (unsigned)strtoul(rounds, NULL, 10) : 20;
    for (unsigned i = 0; i < count; i++)
        kill_round(dir, &l, &seed);
    assert_true(l.count > 20);
    free(l.rows);
    remove_dir(dir);
}

/* --- damage --- */

static struct message *marked_message(uint64_t *ids, const char *sender, const char *rcpt)
{
    uint64_t seed = 8;
    struct body *b = body_new();
    body_append(b, SLICE("body-marker-of-damage\r\n"));
    struct message *m = make_message(make_id(ids), b, 2, 1, &seed);
    m->reverse_path = slice_str(sender);
    m->units[0].rcpt_count = 2;
    m->units[0].rcpts = arena_alloc(m->arena, 2 * sizeof(struct recipient));
    m->units[0].rcpts[0].address = SLICE("sound@example.org");
    m->units[0].rcpts[1] = (struct recipient){.address = slice_str(rcpt), .index = 1};
    return m;
}

struct damage {
    const char *dir;
    uint64_t ids;
    struct message *m;
};

static struct store *damage_begin(struct damage *d)
{
    struct store *s = open_dir_store(d->dir, QUOTA, 0);
    d->m =
        marked_message(&d->ids, "sender-marker@example.net", "rcpt-marker@example.org");
    assert_int_equal(do_accept(s, d->m, 0), ERR_OK);
    uint64_t seed = 1;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(accept_new(s, &d->ids, &seed, 100), ERR_OK);
    return s;
}

static struct store *damage_reopen(struct damage *d, struct store *s, const char *text)
{
    store_close(s);
    flip(d->dir, text);
    return open_dir_store(d->dir, QUOTA, 0);
}

static void damage_end(struct damage *d, struct store *s)
{
    check_whole(s);
    store_close(s);
    s = open_dir_store(d->dir, QUOTA, 0);
    assert_int_equal(scan(s).damaged, 0); /* mended for good */
    while (end_first(s))
        ;
    store_close(s);
    message_unref(d->m);
}

static void test_damaged_recipient(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct damage d = {.dir = dir};
    struct unit_record *u;
    struct store_stats st;
    struct store *s = damage_reopen(&d, damage_begin(&d), "rcpt-marker@example.org");
    struct unit_id id = {d.m->id, 0};
    assert_int_equal(store_read_unit(s, id, &u), ERR_STORE_DAMAGED);
    struct scan_result r = scan(s);
    assert_int_equal(r.damaged, 1);
    assert_int_equal(r.units, 5);
    assert_int_equal(store_read_unit(s, id, &u), ERR_OK);
    assert_int_equal(u->rcpt_count, 1);
    assert_true(slice_eq(u->rcpts[0].rcpt.address, SLICE("sound@example.org")));
    unit_record_free(u);
    store_stats(s, &st);
    assert_int_equal(st.quarantined, 1);
    damage_end(&d, s);
    remove_dir(dir);
}

static void test_damaged_unit(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct damage d = {.dir = dir};
    struct unit_record *u;
    struct body *b;
    struct store_stats st;
    struct store *s = damage_reopen(&d, damage_begin(&d), "sender-marker@example.net");
    assert_int_equal(do_done(s, (struct unit_id){d.m->id, 0}), ERR_STORE_DAMAGED);
    struct scan_result r = scan(s);
    assert_int_equal(r.units, 3);
    assert_int_equal(r.damaged, 5); /* two units, three recipients */
    store_stats(s, &st);
    assert_int_equal(st.quarantined, 5);
    assert_int_equal(
        store_read_unit(s, (struct unit_id){d.m->id, 0}, &u), ERR_STORE_NOT_FOUND);
    /* The body stays for the operator. */
    assert_int_equal(store_load_body(s, d.m->id, 1000, &b), ERR_OK);
    body_unref(b);
    damage_end(&d, s);
    remove_dir(dir);
}

static void test_damaged_body(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct damage d = {.dir = dir};
    struct body *b;
    char *out = mem_alloc(16 * BODY_ROW_BYTES);
    size_t len;
    struct store *s = damage_reopen(&d, damage_begin(&d), "body-marker-of-damage");
    assert_int_equal(store_load_body(s, d.m->id, 1000, &b), ERR_STORE_DAMAGED);
    assert_null(b);
    assert_int_equal(store_read_body(s, d.m->id, 0, out, &len), ERR_STORE_DAMAGED);
    assert_int_equal(len, 0);
    assert_int_equal(scan(s).damaged, 0); /* bodies are checked when they are read */
    free(out);
    store_close(s);
    message_unref(d.m);
    remove_dir(dir);
}

static void test_damaged_identity(void **state)
{
    (void)state;
    char *dir = temp_dir(), why[512] = "";
    struct damage d = {.dir = dir};
    struct store *s = damage_begin(&d);
    uint64_t node = store_identity(s).node_id;
    char text[9] = "";
    memcpy(text, &node, 8);
    if (strlen(text) == 8) {
        struct store_settings set = {.dir = dir, .quota_bytes = QUOTA};
        s = damage_reopen(&d, s, text);
        assert_null(s);
        assert_null(store_open(&set, why, sizeof(why)));
        assert_non_null(strstr(why, "damaged"));
    } else {
        store_close(s);
    }
    message_unref(d.m);
    remove_dir(dir);
}

/* --- the rest --- */

static void test_second_daemon(void **state)
{
    (void)state;
    char *dir = temp_dir(), why[512] = "", pid[32];
    struct store_settings set = {.dir = dir, .quota_bytes = QUOTA};
    struct store *s = open_dir_store(dir, QUOTA, 0);
    assert_null(store_open(&set, why, sizeof(why)));
    snprintf(pid, sizeof(pid), "process %ld;", (long)getpid());
    assert_non_null(strstr(why, pid));
    assert_non_null(strstr(why, dir));
    store_close(s);
    set.dir = "/nonexistent/parent/queue";
    assert_null(store_open(&set, why, sizeof(why)));
    assert_non_null(strstr(why, set.dir));
    remove_dir(dir);
}

static void test_foreign_file(void **state)
{
    (void)state;
    char *dir = temp_dir(), path[256], why[512] = "";
    struct store_settings set = {.dir = dir, .quota_bytes = QUOTA};
    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    FILE *f = fopen(path, "w");
    for (unsigned i = 0; i < 10000; i++)
        fputs("not a queue ", f);
    fclose(f);
    assert_null(store_open(&set, why, sizeof(why)));
    assert_non_null(strstr(why, "no queue of ours"));
    remove_dir(dir);
}

/* A body of more pages than a transaction may free goes in several, behind a mark. */
static void test_big_delete(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct store *s = open_dir_store(dir, 128 * MIB, 0);
    struct store_check c;
    uint64_t ids = 0, seed = 6;
    struct body *b = random_body(&seed, 30 * MIB);
    struct message *m = make_message(make_id(&ids), b, 1, 1, &seed);
    uint32_t rows = body_rows(b), step = 256, done = 0;
    for (; done + step <= rows; done += step)
        assert_int_equal(do_rows(s, m->id, b, done, step), ERR_OK);
    assert_int_equal(do_accept(s, m, done), ERR_OK);
    store_close(s);
    s = open_dir_store(dir, 128 * MIB, 0);
    assert_int_equal(scan(s).units, 1);
    assert_int_equal(do_done(s, (struct unit_id){m->id, 0}), ERR_OK);
    store_lmdb_check(s, &c);
    assert_int_equal(c.problems, 0);
    sweep_all(s);
    store_lmdb_check(s, &c);
    assert_int_equal(c.body_rows + c.bodies + c.gone + c.parts, 0);
    message_unref(m);
    store_close(s);
    remove_dir(dir);
}

static void test_clock(void **state)
{
    (void)state;
    const int64_t day = 24 * INT64_C(3600000);
    char *dir = temp_dir();
    uint64_t ids = 0, seed = 4;
    struct store *s = open_dir_store(dir, QUOTA, 0);
    int64_t began = store_last_commit(s).ms;
    wall_shift_ms(10 * day);
    store_close(s);
    s = open_dir_store(dir, QUOTA, 0);
    assert_int_equal(store_last_commit(s).ms, began);
    assert_int_equal(accept_new(s, &ids, &seed, 10), ERR_OK);
    assert_int_equal(store_last_commit(s).ms, began);
    store_clock_accept(s, wall_now());
    do_barrier(s);
    assert_true(store_last_commit(s).ms >= began + 10 * day);
    store_close(s);
    s = open_dir_store(dir, QUOTA, 0);
    assert_true(store_identity(s).last_commit.ms >= began + 10 * day);
    wall_shift_ms(-10 * day);
    store_close(s);
    remove_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kill),
        cmocka_unit_test(test_file_size_limit),
        cmocka_unit_test(test_commit_error_is_the_end),
        cmocka_unit_test(test_quota),
        cmocka_unit_test(test_turnover),
        cmocka_unit_test(test_map_full),
        cmocka_unit_test(test_disk_does_not_grow),
        cmocka_unit_test(test_damaged_recipient),
        cmocka_unit_test(test_damaged_unit),
        cmocka_unit_test(test_damaged_body),
        cmocka_unit_test(test_damaged_identity),
        cmocka_unit_test(test_second_daemon),
        cmocka_unit_test(test_foreign_file),
        cmocka_unit_test(test_big_delete),
        cmocka_unit_test(test_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
