/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of a store in trouble share: children that are killed, bytes that are
 * flipped, disks that are full. */
#ifndef TESTS_UNIT_STORE_FAULTS_H
#define TESTS_UNIT_STORE_FAULTS_H

#include <poll.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/unit/store_helper.h"

static inline bool keep_id(const struct unit_record *u, void *ctx)
{
    *(struct unit_id *)ctx = u->id;
    return false;
}

/* Ends the first unit of the queue; false when it is empty. */
static inline bool end_first(struct store *s)
{
    struct unit_id id = {{{0}}, UINT16_MAX};
    assert_int_equal(store_list(s, NULL, keep_id, &id), ERR_OK);
    return id.unit != UINT16_MAX && do_done(s, id) == ERR_OK;
}

static inline void check_whole(struct store *s)
{
    struct store_check c;
    store_lmdb_check(s, &c);
    assert_int_equal(c.problems, 0);
}

static inline int no_space(int fd, off_t at, off_t len)
{
    (void)fd;
    (void)at;
    (void)len;
    return ENOSPC;
}

struct child {
    pid_t pid;
    int out; /* what it writes */
};

static inline struct child start_child(
    void (*run)(const char *dir, int out), const char *dir)
{
    int ends[2];
    struct child c;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    c.pid = fork();
    assert_true(c.pid >= 0);
    if (c.pid == 0) {
        close(ends[0]);
        run(dir, ends[1]);
        _exit(0);
    }
    close(ends[1]);
    c.out = ends[0];
    return c;
}

static inline int end_child(struct child *c)
{
    int status;
    close(c->out);
    assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
    return status;
}

static inline void sweep_all(struct store *s)
{
    struct store_check c;
    do_barrier(s);
    for (;;) {
        store_lmdb_check(s, &c);
        assert_int_equal(c.problems, 0);
        if (c.gone == 0)
            break;
        poll(NULL, 0, 20); /* it comes to this when nothing else is to be done */
    }
    assert_int_equal(c.parts, 0);
}

/* Changes the byte `at` wherever these stand in the data file, old copies of pages too.
 */
static inline void flip_bytes(const char *dir, struct slice bytes, size_t at)
{
    char path[256];
    struct stat st;
    unsigned found = 0;
    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    char *all = mem_alloc((size_t)st.st_size);
    assert_int_equal(pread(fd, all, (size_t)st.st_size, 0), st.st_size);
    for (char *p = all;
         (p = memmem(p, (size_t)(all + st.st_size - p), bytes.ptr, bytes.len));
         p++, found++)
        assert_int_equal(pwrite(fd, "#", 1, p - all + (off_t)at), 1);
    assert_true(found > 0);
    free(all);
    close(fd);
}

static inline void flip(const char *dir, const char *text)
{
    flip_bytes(dir, slice_str(text), 2);
}

#endif
