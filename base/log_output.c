/* SPDX-License-Identifier: Apache-2.0 */
/* Lines gather in a block per thread; a block leaves in one write when its thread
 * flushes, when it is full, when a line is urgent, and at the latest after a second, by
 * the sweeper. Writing is serialised, so blocks never mix. A reader that stalls costs one
 * short wait, then lines. */
#include "base/log_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/metrics.h"

/* All of one write may wait so long for a reader; after that none waits until it reads.
 */
#define STALL_MS 200
#define SWEEP_MS 1000

enum output_kind { OUTPUT_UNKNOWN, OUTPUT_FILE, OUTPUT_PIPE, OUTPUT_SOCKET };

static struct {
    pthread_once_t key_once;
    pthread_key_t key;
    pthread_mutex_t list_lock; /* taken before a block's lock, never inside one */
    struct log_block *blocks;
    pthread_mutex_t write_lock; /* innermost */
    enum output_kind kind;
    bool stalled;
    bool torn; /* the last line that went out has no end */
    uint64_t lost;
    atomic_bool swept; /* a sweeper runs */
    atomic_bool pending;
    sem_t wake;
} output = {.key_once = PTHREAD_ONCE_INIT,
    .list_lock = PTHREAD_MUTEX_INITIALIZER,
    .write_lock = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local struct log_block *own;

bool log_output_is_journal(void)
{
    const char *text = getenv("JOURNAL_STREAM");
    struct stat st;
    uint64_t dev, ino;
    if (!text || fstat(STDERR_FILENO, &st) != 0)
        return false;
    struct slice s = slice_str(text);
    size_t colon = slice_find(s, ':');
    return slice_u64(slice_head(s, colon), UINT64_MAX, &dev) &&
           slice_u64(slice_from(s, colon + 1), UINT64_MAX, &ino) && dev == st.st_dev &&
           ino == st.st_ino;
}

static enum output_kind output_kind(void)
{
    struct stat st;
    if (fstat(STDERR_FILENO, &st) != 0)
        return OUTPUT_FILE;
    return S_ISFIFO(st.st_mode)   ? OUTPUT_PIPE
           : S_ISSOCK(st.st_mode) ? OUTPUT_SOCKET
                                  : OUTPUT_FILE;
}

static bool wait_writable(struct mono until)
{
    int64_t left = mono_diff_ms(until, mono_now());
    struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
    return poll(&p, 1, left > 0 ? (int)left : 0) > 0 && (p.revents & POLLOUT);
}

/* The descriptor is shared with whoever started us, so O_NONBLOCK is not ours to set. A
 * pipe that polls writable takes PIPE_BUF bytes without blocking; a socket takes a flag.
 */
static ssize_t write_some(struct slice s)
{
    if (output.kind == OUTPUT_SOCKET)
        return send(STDERR_FILENO, s.ptr, s.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (output.kind == OUTPUT_PIPE)
        s = slice_head(s, PIPE_BUF);
    return write(STDERR_FILENO, s.ptr, s.len);
}

/* Returns what is left. */
static struct slice write_all(struct slice s)
{
    struct mono until = mono_add_ms(mono_now(), output.stalled ? 0 : STALL_MS);
    while (s.len) {
        if (output.kind != OUTPUT_FILE && !wait_writable(until))
            break;
        ssize_t n = write_some(s);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN && wait_writable(until))
            continue;
        if (n <= 0)
            break;
        s = slice_from(s, (size_t)n);
    }
    return s;
}

static uint64_t count_lines(struct slice s)
{
    uint64_t lines = 0;
    for (size_t i = 0; i < s.len; i++)
        lines += s.ptr[i] == '\n';
    return lines;
}

static bool own_up(void)
{
    char line[96];
    int n =
        snprintf(line, sizeof(line), "%sbaton: %" PRIu64 " log lines were lost here\n",
            output.torn ? "\n" : "", output.lost);
    struct slice left = write_all(slice_make(line, (size_t)n));
    output.torn = left.len < (size_t)n && left.len > 0;
    if (left.len)
        return false;
    output.lost = 0;
    return true;
}

static void write_block(struct slice s)
{
    pthread_mutex_lock(&output.write_lock);
    if (output.kind == OUTPUT_UNKNOWN)
        output.kind = output_kind();
    struct slice left = s;
    if (output.lost == 0 || own_up())
        left = write_all(s);
    output.stalled = left.len > 0;
    if (left.len) {
        uint64_t lines = count_lines(left);
        output.lost += lines;
        if (left.len < s.len)
            output.torn = left.ptr[-1] != '\n';
        metric_add(METRIC_log_lines_lost_total, (int64_t)lines);
    }
    pthread_mutex_unlock(&output.write_lock);
}

static void block_write(struct log_block *block)
{
    if (block->len)
        write_block(slice_make(block->bytes, block->len));
    block->len = 0;
}

/* A thread ends: its block leaves with it. */
static void block_free(void *arg)
{
    struct log_block *block = arg;
    pthread_mutex_lock(&output.list_lock);
    *block->at = block->next;
    if (block->next)
        block->next->at = block->at;
    pthread_mutex_unlock(&output.list_lock);
    block_write(block);
    pthread_mutex_destroy(&block->lock);
    own = NULL;
    free(block);
}

static void make_key(void)
{
    if (pthread_key_create(&output.key, block_free) != 0)
        die("baton: out of thread keys");
}

static struct log_block *block_new(void)
{
    struct log_block *block = mem_alloc(sizeof(*block));
    pthread_once(&output.key_once, make_key);
    pthread_mutex_init(&block->lock, NULL);
    block->len = 0;
    pthread_mutex_lock(&output.list_lock);
    block->next = output.blocks;
    block->at = &output.blocks;
    if (block->next)
        block->next->at = &block->next;
    output.blocks = block;
    pthread_mutex_unlock(&output.list_lock);
    pthread_setspecific(output.key, block);
    return block;
}

struct log_block *log_block_take(size_t room)
{
    if (!own)
        own = block_new();
    pthread_mutex_lock(&own->lock);
    if (room > LOG_BLOCK_BYTES - own->len)
        block_write(own);
    return own;
}

void log_block_give(struct log_block *block, bool now)
{
    bool sweep = false;
    if (now || !atomic_load_explicit(&output.swept, memory_order_relaxed))
        block_write(block);
    else
        sweep = !atomic_load_explicit(&output.pending, memory_order_relaxed);
    pthread_mutex_unlock(&block->lock);
    /* The sweeper is woken by the first line after a sweep, and sleeps for ever in a
     * daemon that has nothing to say. */
    if (sweep && !atomic_exchange(&output.pending, true))
        sem_post(&output.wake);
}

void log_flush(void)
{
    struct log_block *block = own;
    if (!block)
        return;
    pthread_mutex_lock(&block->lock);
    block_write(block);
    pthread_mutex_unlock(&block->lock);
}

void log_flush_all(void)
{
    pthread_mutex_lock(&output.list_lock);
    for (struct log_block *b = output.blocks; b; b = b->next) {
        pthread_mutex_lock(&b->lock);
        block_write(b);
        pthread_mutex_unlock(&b->lock);
    }
    pthread_mutex_unlock(&output.list_lock);
}

static void *sweep(void *arg)
{
    (void)arg;
    for (;;) {
        while (sem_wait(&output.wake) != 0)
            ;
        /* Nobody posts meanwhile: `pending` is set. */
        poll(NULL, 0, SWEEP_MS);
        atomic_store(&output.pending, false);
        log_flush_all();
    }
    return NULL;
}

void log_output_start(void)
{
    pthread_t thread;
    sigset_t all, before;
    if (atomic_exchange(&output.swept, true))
        return;
    sem_init(&output.wake, 0, 0);
    atexit(log_flush_all);
    /* Signals are for the main thread, which waits for them. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&thread, NULL, sweep, NULL) != 0)
        die("baton: cannot start the log's thread");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_setname_np(thread, "log");
    pthread_detach(thread);
}
