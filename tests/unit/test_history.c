/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/metrics.h"
#include "queue/history.h"

#define WEEK_MS (7 * 24 * INT64_C(3600000))
#define MIB (UINT64_C(1) << 20)

static char *temp_dir(void)
{
    char path[] = "/var/tmp/baton-history-XXXXXX";
    assert_non_null(mkdtemp(path));
    return mem_strdup(slice_str(path));
}

/* Calls `each` with the path of every file of the directory; how many there are. */
static unsigned each_file(const char *dir, const char *suffix,
    void (*each)(const char *path, void *ctx), void *ctx)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    unsigned count = 0;
    while ((e = readdir(d))) {
        char path[512];
        if (e->d_name[0] == '.' ||
            !slice_ends_nocase(slice_str(e->d_name), slice_str(suffix)))
            continue;
        snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        count++;
        if (each)
            each(path, ctx);
    }
    closedir(d);
    return count;
}

static void remove_file(const char *path, void *ctx)
{
    (void)ctx;
    unlink(path);
}

static void remove_dir(char *dir)
{
    each_file(dir, "", remove_file, NULL);
    assert_int_equal(rmdir(dir), 0);
    free(dir);
}

static struct history *open_history(const char *dir, uint64_t max)
{
    char why[256] = "";
    struct history *h = history_open(dir, WEEK_MS, max, why, sizeof(why));
    if (!h)
        print_error("%s\n", why);
    assert_non_null(h);
    return h;
}

static struct msg_id id_of(unsigned n)
{
    struct msg_id_source s;
    msg_id_source_init(&s, 1, 1, 0);
    return msg_id_next(&s, (struct wall){1700000000000 + n});
}

static void sink(struct history *h, enum log_event event, unsigned n, const char *key,
    const char *address)
{
    struct record r;
    record_init(&r, event);
    record_msg_id(&r, "id", id_of(n));
    record_str(&r, key, address);
    record_str(&r, "why",
        "a text that makes the record as long as they are in real life, with "
        "the reply of the next hop: 250 2.0.0 Ok: queued as 4FJqKX2mZpz1yP");
    history_sink(&r, h);
}

/* Two records a message: from s<n % 10>, to r<n>. */
static void sink_message(struct history *h, unsigned n)
{
    char address[64];
    snprintf(address, sizeof(address), "S%u@Example.net", n % 10);
    sink(h, LOG_EV_RECEIVED, n, "from", address);
    snprintf(address, sizeof(address), "r%u@example.org", n);
    sink(h, LOG_EV_DELIVERED, n, "to", address);
}

struct seen {
    unsigned count;
    unsigned received;
    struct msg_id last;
    bool ordered;
};

static void note(const struct record *r, void *ctx)
{
    struct seen *s = ctx;
    s->count++;
    s->received += r->event == LOG_EV_RECEIVED;
    if (s->count > 1 && memcmp(s->last.bytes, r->id.bytes, MSG_ID_BYTES) > 0)
        s->ordered = false;
    s->last = r->id;
}

static struct seen by_id(struct history *h, unsigned n)
{
    struct seen s = {.ordered = true};
    assert_int_equal(history_find_id(h, id_of(n), note, &s), ERR_OK);
    return s;
}

static struct seen by_address(struct history *h, const char *address, unsigned max)
{
    struct seen s = {.ordered = true};
    assert_int_equal(history_find_address(h, slice_str(address), max, note, &s), ERR_OK);
    return s;
}

static void fill(struct history *h, unsigned from, unsigned to)
{
    for (unsigned n = from; n < to; n++) {
        sink_message(h, n);
        if (n % 2000 == 0) /* a search waits for the thread: nothing is dropped */
            (void)by_id(h, n);
    }
}

static void check_all(struct history *h, unsigned messages)
{
    for (unsigned n = 0; n < messages; n += messages / 50 + 1) {
        char address[64];
        struct seen s = by_id(h, n);
        assert_int_equal(s.count, 2);
        assert_int_equal(s.received, 1);
        snprintf(address, sizeof(address), "R%u@EXAMPLE.org", n);
        s = by_address(h, address, 10);
        assert_int_equal(s.count, 2);
        assert_true(msg_id_eq(s.last, id_of(n)));
    }
    assert_int_equal(by_id(h, messages + 7).count, 0);
    assert_int_equal(by_address(h, "nobody@example.org", 10).count, 0);
    struct seen s = by_address(h, "s3@example.net", 20);
    assert_int_equal(s.count, 40);
    assert_true(s.ordered);
    assert_true(msg_id_eq(s.last, id_of(messages - 10 + 3)));
    assert_int_equal(by_address(h, "s3@example.net", 10000).count, messages / 10 * 2);
}

static void test_find(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct history *h = open_history(dir, 16 * MIB);
    fill(h, 0, 10000);
    assert_true(each_file(dir, ".log", NULL, NULL) >= 3);
    check_all(h, 10000);
    history_close(h);
    assert_int_equal(
        each_file(dir, ".log", NULL, NULL), each_file(dir, ".idx", NULL, NULL));
    h = open_history(dir, 16 * MIB);
    check_all(h, 10000);
    fill(h, 10000, 11000);
    check_all(h, 11000);
    history_close(h);
    remove_dir(dir);
}

static void test_without_id(void **state)
{
    (void)state;
    char *dir = temp_dir(), why[256];
    struct history *h = open_history(dir, 16 * MIB);
    struct record r;
    record_init(&r, LOG_EV_START);
    history_sink(&r, h);
    assert_null(history_open(dir, WEEK_MS, MIB, why, sizeof(why)));
    assert_non_null(strstr(why, dir));
    history_close(h);
    assert_int_equal(each_file(dir, ".log", NULL, NULL), 0);
    assert_null(history_open("/nonexistent/dir/history", WEEK_MS, MIB, why, sizeof(why)));
    remove_dir(dir);
}

/* --- torn tails --- */

static void crash_after(const char *dir, unsigned messages)
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        struct history *h = open_history(dir, 16 * MIB);
        fill(h, 0, messages);
        (void)by_id(h, 0);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

struct tear {
    off_t cut;
    bool garbage;
};

static void tear_file(const char *path, void *ctx)
{
    const struct tear *t = ctx;
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size - t->cut), 0);
    int fd = open(path, O_WRONLY | O_APPEND);
    if (t->garbage)
        assert_int_equal(write(fd, "\0\0\1\0garbage of a torn write", 27), 27);
    close(fd);
}

static void test_torn_tail(void **state)
{
    (void)state;
    for (unsigned cut = 0; cut < 400; cut += 13) {
        char *dir = temp_dir();
        struct tear t = {(off_t)cut, cut % 2 == 0};
        crash_after(dir, 30);
        assert_int_equal(each_file(dir, ".idx", NULL, NULL), 0);
        assert_int_equal(each_file(dir, ".log", tear_file, &t), 1);
        struct history *h = open_history(dir, 16 * MIB);
        for (unsigned n = 0; n < 28; n++)
            assert_int_equal(by_id(h, n).count, 2);
        assert_true(by_id(h, 29).count <= (cut == 0 ? 2u : 1u));
        sink_message(h, 31);
        assert_int_equal(by_id(h, 31).count, 2);
        history_close(h);
        remove_dir(dir);
    }
}

static void test_lost_index(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct tear none = {44, true};
    struct history *h = open_history(dir, 16 * MIB);
    fill(h, 0, 10000);
    history_close(h);
    each_file(dir, ".idx", tear_file, &none);
    h = open_history(dir, 16 * MIB);
    check_all(h, 10000);
    history_close(h);
    each_file(dir, ".idx", remove_file, NULL);
    h = open_history(dir, 16 * MIB);
    check_all(h, 10000);
    history_close(h);
    remove_dir(dir);
}

/* --- expiry --- */

static void add_size(const char *path, void *ctx)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    *(uint64_t *)ctx += (uint64_t)st.st_size;
}

static void test_expiry_by_size(void **state)
{
    (void)state;
    char *dir = temp_dir();
    uint64_t size = 0;
    struct history *h = open_history(dir, MIB);
    fill(h, 0, 10000);
    each_file(dir, "", add_size, &size);
    assert_true(size < MIB + 3 * (MIB / 16));
    assert_int_equal(by_id(h, 0).count, 0);
    assert_int_equal(by_id(h, 9999).count, 2);
    history_close(h);
    remove_dir(dir);
}

static void test_expiry_by_age(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct history *h = open_history(dir, 16 * MIB);
    fill(h, 0, 5000);
    history_trust_clock(h, false);
    wall_shift_ms(2 * WEEK_MS);
    fill(h, 5000, 10000);
    fill(h, 10000, 15000);
    assert_int_equal(by_id(h, 0).count, 2); /* nothing leaves under a clock in doubt */
    history_trust_clock(h, true);
    fill(h, 15000, 20000);
    assert_int_equal(by_id(h, 0).count, 0);
    assert_int_equal(by_id(h, 10000).count, 2);
    history_close(h);
    wall_shift_ms(-2 * WEEK_MS);
    remove_dir(dir);
}

/* Faster than any disk: what does not fit is dropped and counted, the rest can be found.
 */
static void test_behind(void **state)
{
    (void)state;
    enum { MESSAGES = 60000 };
    char *dir = temp_dir();
    struct history *h = open_history(dir, 64 * MIB);
    int64_t before = metric_read(METRIC_history_lost_total);
    for (unsigned n = 0; n < MESSAGES; n++)
        sink_message(h, n);
    int64_t lost = metric_read(METRIC_history_lost_total) - before;
    unsigned found = 0;
    for (unsigned k = 0; k < 10; k++) {
        char address[32];
        snprintf(address, sizeof(address), "s%u@example.net", k);
        found += by_address(h, address, 10000).count;
    }
    print_message("%lld of %u dropped\n", (long long)lost, 2 * MESSAGES);
    assert_true(found <= 2 * MESSAGES - (unsigned)lost);
    assert_true(found + 2 * (unsigned)lost >= 2 * MESSAGES);
    history_close(h);
    remove_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_torn_tail),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_without_id),
        cmocka_unit_test(test_lost_index),
        cmocka_unit_test(test_expiry_by_size),
        cmocka_unit_test(test_expiry_by_age),
        cmocka_unit_test(test_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
