/* SPDX-License-Identifier: Apache-2.0 */
/* Life of the history: the sink's buffers, the thread that writes them, segments that
 * come and go. */
#include "queue/history.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/crc32c.h"
#include "base/metrics.h"
#include "queue/history_internal.h"
#include "queue/record.h"

#define BUFFER_BYTES ((size_t)2 << 20)
#define TICK_MS 250
#define SYNC_MS 1000
#define SEGMENT_MAX (UINT64_C(32) << 20)
#define SEGMENT_MIN (UINT64_C(64) << 10)

/* --- the sink: any thread, quick --- */

static void wake(struct history *h)
{
    uint64_t one = 1;
    if (write(h->wake_fd, &one, sizeof(one)) < 0)
        return; /* full counter: it is awake */
}

void history_sink(const struct record *r, void *history)
{
    struct history *h = history;
    unsigned char packed[FRAME_MAX];
    if (!r->has_id)
        return;
    size_t len = record_pack(r, packed, sizeof(packed));
    if (len == 0)
        return;
    pthread_mutex_lock(&h->lock);
    size_t before = h->used;
    bool fits = before + FRAME_HEAD + len <= BUFFER_BYTES;
    if (fits) {
        unsigned char *at = h->buffers[h->filling] + before;
        put_be32(at, (uint32_t)len); /* its sum is put in by the thread */
        memcpy(at + FRAME_HEAD, packed, len);
        h->used += FRAME_HEAD + len;
    }
    bool half = before < BUFFER_BYTES / 2 && h->used >= BUFFER_BYTES / 2;
    pthread_mutex_unlock(&h->lock);
    if (!fits)
        metric_add(METRIC_history_lost_total, 1);
    if (half)
        wake(h);
}

/* --- segments come --- */

static struct segment *add_segment(struct history *h, struct segment s)
{
    if (h->count == h->room) {
        h->room = h->room ? h->room * 2 : 32;
        h->segments = mem_realloc(h->segments, h->room * sizeof(*h->segments));
    }
    h->segments[h->count] = s;
    return &h->segments[h->count++];
}

static bool begin_segment(struct history *h)
{
    char name[24];
    uint64_t number = h->count ? h->segments[h->count - 1].number + 1 : 1;
    segment_name(number, "log", name);
    int fd = openat(h->dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    pthread_mutex_lock(&h->list_lock);
    add_segment(h, (struct segment){.number = number});
    h->log_fd = fd;
    index_clear(&h->index);
    pthread_mutex_unlock(&h->list_lock);
    return true;
}

static void seal_segment(struct history *h)
{
    if (h->log_fd < 0)
        return;
    struct segment *s = &h->segments[h->count - 1];
    pthread_mutex_lock(&h->list_lock);
    /* Without an index it cannot be found until the next start, which makes one. */
    (void)index_write(h->dir_fd, s, &h->index);
    index_clear(&h->index);
    close(h->log_fd);
    h->log_fd = -1;
    pthread_mutex_unlock(&h->list_lock);
}

static bool must_rotate(const struct history *h, uint32_t more)
{
    const struct segment *s = &h->segments[h->count - 1];
    int64_t age = s->last_ms - s->first_ms;
    return s->bytes && (s->bytes + more > h->segment_max || age > h->keep_ms / 16);
}

/* --- segments go --- */

static void drop_oldest(struct history *h)
{
    static const char *const suffixes[] = {"idx", "log"};
    char name[24];
    for (unsigned i = 0; i < 2; i++) {
        segment_name(h->segments[0].number, suffixes[i], name);
        unlinkat(h->dir_fd, name, 0);
    }
    pthread_mutex_lock(&h->list_lock);
    h->count--;
    memmove(h->segments, h->segments + 1, h->count * sizeof(*h->segments));
    pthread_mutex_unlock(&h->list_lock);
}

static void expire(struct history *h)
{
    uint64_t total = 0;
    int64_t before = wall_now().ms - h->keep_ms;
    for (unsigned i = 0; i < h->count; i++)
        total += (uint64_t)h->segments[i].bytes + h->segments[i].index_bytes;
    unsigned open = h->log_fd >= 0;
    while (h->count > open) {
        struct segment *s = &h->segments[0];
        bool old = atomic_load(&h->clock_trusted) && s->last_ms < before;
        if (!old && total <= h->max_bytes)
            return;
        total -= (uint64_t)s->bytes + s->index_bytes;
        drop_oldest(h);
    }
}

/* --- the thread --- */

static void count_lost(const unsigned char *frames, size_t len)
{
    int64_t lost = 0;
    for (size_t at = 0; at < len; at += FRAME_HEAD + get_be32(frames + at))
        lost++;
    metric_add(METRIC_history_lost_total, lost);
}

static void say_broken(struct history *h, int error)
{
    if (!h->broken)
        log_say(LOG_EV_ALARM, "%s: cannot write the history: %s; trace will have a gap",
            h->dir, strerror(error));
    h->broken = true;
}

static void write_piece(struct history *h, const unsigned char *frames, uint32_t len)
{
    struct record r;
    if (h->log_fd < 0 && !begin_segment(h)) {
        say_broken(h, errno);
        count_lost(frames, len);
        return;
    }
    struct segment *s = &h->segments[h->count - 1];
    ssize_t n = pwrite(h->log_fd, frames, len, s->bytes);
    if (n != (ssize_t)len) {
        say_broken(h, n < 0 ? errno : ENOSPC);
        count_lost(frames, len);
        if (ftruncate(h->log_fd, s->bytes) != 0)
            seal_segment(h);
        return;
    }
    h->broken = false;
    pthread_mutex_lock(&h->list_lock);
    for (uint32_t at = 0; at < len; at += FRAME_HEAD + get_be32(frames + at)) {
        struct slice packed = {
            (const char *)frames + at + FRAME_HEAD, get_be32(frames + at)};
        if (record_unpack(packed, &r) && r.has_id)
            index_record(&h->index, s, &r, s->bytes + at);
    }
    s->bytes += len;
    pthread_mutex_unlock(&h->list_lock);
}

/* Sums up the frames and writes them in as many pieces as segments want. */
static void write_buffer(struct history *h, unsigned char *frames, size_t len)
{
    size_t from = 0, at = 0;
    while (at < len) {
        uint32_t size = get_be32(frames + at);
        put_be32(frames + at + 4, crc32c(0, frames + at + FRAME_HEAD, size));
        size_t piece = at - from;
        if (h->log_fd >= 0 && must_rotate(h, (uint32_t)piece + FRAME_HEAD + size)) {
            if (piece)
                write_piece(h, frames + from, (uint32_t)piece);
            from = at;
            seal_segment(h);
            expire(h);
        } else if (h->log_fd < 0 && piece + FRAME_HEAD + size > h->segment_max && piece) {
            write_piece(h, frames + from, (uint32_t)piece);
            from = at;
        }
        at += FRAME_HEAD + size;
    }
    if (at > from)
        write_piece(h, frames + from, (uint32_t)(at - from));
}

static void sync_sometimes(struct history *h)
{
    struct mono now = mono_now();
    if (h->log_fd < 0 || mono_diff_ms(now, h->synced_at) < SYNC_MS)
        return;
    h->synced_at = now;
    if (fdatasync(h->log_fd) != 0)
        say_broken(h, errno);
}

/* Takes what the sinks filled and gives them the other buffer. */
static bool run_once(struct history *h)
{
    pthread_mutex_lock(&h->lock);
    unsigned char *frames = h->buffers[h->filling];
    size_t len = h->used;
    uint64_t asked = h->flush_asked;
    bool stop = h->stop;
    h->filling = !h->filling;
    h->used = 0;
    pthread_mutex_unlock(&h->lock);
    if (len) {
        write_buffer(h, frames, len);
        sync_sometimes(h);
    }
    pthread_mutex_lock(&h->lock);
    h->flush_done = asked;
    pthread_cond_broadcast(&h->flushed);
    pthread_mutex_unlock(&h->lock);
    return !stop;
}

static void *history_main(void *arg)
{
    struct history *h = arg;
    struct pollfd p = {.fd = h->wake_fd, .events = POLLIN};
    struct mono looked_at = mono_now();
    pthread_setname_np(pthread_self(), "baton-history");
    while (run_once(h)) {
        uint64_t count;
        if (poll(&p, 1, TICK_MS) > 0 && read(h->wake_fd, &count, sizeof(count)) < 0)
            continue;
        if (mono_diff_ms(mono_now(), looked_at) >= 60000) {
            looked_at = mono_now();
            expire(h);
        }
    }
    seal_segment(h);
    return NULL;
}

void history_flush(struct history *h)
{
    pthread_mutex_lock(&h->lock);
    uint64_t mine = ++h->flush_asked;
    wake(h);
    while (h->flush_done < mine)
        pthread_cond_wait(&h->flushed, &h->lock);
    pthread_mutex_unlock(&h->lock);
}

void history_trust_clock(struct history *h, bool trusted)
{
    atomic_store(&h->clock_trusted, trusted);
}

/* --- life --- */

static int by_number(const void *a, const void *b)
{
    const struct segment *x = a, *y = b;
    return (x->number > y->number) - (x->number < y->number);
}

static bool parse_name(const char *name, uint64_t *number_out)
{
    char back[24];
    unsigned long long number = strtoull(name, NULL, 16);
    segment_name(number, "log", back);
    *number_out = number;
    return number > 0 && strcmp(back, name) == 0;
}

static bool list_segments(struct history *h)
{
    int fd = dup(h->dir_fd);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;
    if (!d) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    while ((e = readdir(d))) {
        struct stat st;
        uint64_t number;
        if (parse_name(e->d_name, &number) && fstatat(h->dir_fd, e->d_name, &st, 0) == 0)
            add_segment(
                h, (struct segment){.number = number,
                       .bytes = st.st_size < UINT32_MAX ? (uint32_t)st.st_size : 0});
    }
    closedir(d);
    if (h->count)
        qsort(h->segments, h->count, sizeof(*h->segments), by_number);
    return true;
}

/* Segments without a sound index get one; the last run's open one among them. */
static void mend_segments(struct history *h)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < h->count; i++) {
        struct segment s = h->segments[i];
        char name[24];
        bool ok = index_read(h->dir_fd, &s);
        if (!ok) {
            index_clear(&h->index);
            ok = segment_rebuild(h->dir_fd, &s, &h->index) && s.bytes > 0 &&
                 index_write(h->dir_fd, &s, &h->index);
            index_clear(&h->index);
        }
        segment_name(s.number, "log", name);
        if (ok || (s.bytes == 0 && unlinkat(h->dir_fd, name, 0) != 0))
            h->segments[kept++] = s;
    }
    h->count = kept;
}

static bool open_dir(struct history *h, char *why, size_t why_size)
{
    if (mkdir(h->dir, 0700) != 0 && errno != EEXIST) {
        snprintf(why, why_size,
            "%s: cannot make it: %s; make its parent, or set data_dir", h->dir,
            strerror(errno));
        return false;
    }
    h->dir_fd = open(h->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (h->dir_fd < 0 || !list_segments(h)) {
        snprintf(why, why_size,
            "%s: cannot open it: %s; it must belong to the user we run as", h->dir,
            strerror(errno));
        return false;
    }
    if (flock(h->dir_fd, LOCK_EX | LOCK_NB) != 0) {
        snprintf(
            why, why_size, "%s: in use by another process; stop that one first", h->dir);
        return false;
    }
    return true;
}

static void release(struct history *h)
{
    if (h->dir_fd >= 0)
        close(h->dir_fd);
    if (h->wake_fd >= 0)
        close(h->wake_fd);
    index_fini(&h->index);
    pthread_mutex_destroy(&h->lock);
    pthread_mutex_destroy(&h->list_lock);
    pthread_cond_destroy(&h->flushed);
    free(h->buffers[0]);
    free(h->buffers[1]);
    free(h->segments);
    free(h->dir);
    free(h);
}

static uint32_t segment_size(uint64_t max_bytes)
{
    uint64_t size = max_bytes / 16;
    size = size > SEGMENT_MAX ? SEGMENT_MAX : size;
    return (uint32_t)(size < SEGMENT_MIN ? SEGMENT_MIN : size);
}

struct history *history_open(
    const char *dir, int64_t keep_ms, uint64_t max_bytes, char *why, size_t why_size)
{
    struct history *h = mem_zalloc(sizeof(*h));
    h->dir = mem_strdup(slice_str(dir));
    h->keep_ms = keep_ms;
    h->max_bytes = max_bytes;
    h->segment_max = segment_size(max_bytes);
    h->dir_fd = h->log_fd = -1;
    h->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    atomic_init(&h->clock_trusted, true);
    pthread_mutex_init(&h->lock, NULL);
    pthread_mutex_init(&h->list_lock, NULL);
    pthread_cond_init(&h->flushed, NULL);
    h->buffers[0] = mem_alloc(BUFFER_BYTES);
    h->buffers[1] = mem_alloc(BUFFER_BYTES);
    if (!open_dir(h, why, why_size)) {
        release(h);
        return NULL;
    }
    mend_segments(h);
    if (pthread_create(&h->thread, NULL, history_main, h) != 0)
        die("baton: cannot start the thread of the history: raise the limit of threads");
    return h;
}

void history_close(struct history *h)
{
    if (!h)
        return;
    pthread_mutex_lock(&h->lock);
    h->stop = true;
    pthread_mutex_unlock(&h->lock);
    wake(h);
    pthread_join(h->thread, NULL);
    release(h);
}
