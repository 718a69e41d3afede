/* SPDX-License-Identifier: Apache-2.0 */
/* `events`: the newest records of the log, and with "follow" those that come. A tap on
 * the log keeps packed records in a ring of bytes; who follows reads from the ring at its
 * own pace, and is told how many it missed when the ring has overtaken it. So a slow
 * follower costs nothing, and no follower costs a copy of some hundred bytes a record. */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "base/alloc.h"
#include "base/log.h"
#include "node/control/handlers_internal.h"

#define RING_BYTES (1u << 20)
#define LAST_DEFAULT 50
#define LAST_MAX 10000
/* Records handed to one follower before the others have their turn. */
#define BURST 256

/* In the ring: length u32, then the packed record; a length of SKIP fills up to the end.
 */
#define SKIP UINT32_MAX

struct follower {
    TAILQ_ENTRY(follower) entry;
    struct control_request *req;
    struct tap *tap;
    enum log_level level;
    uint64_t at;  /* position in the ring, counted from the start of time */
    uint64_t seq; /* of the record there */
    bool slow;    /* waits for its client to read */
};

struct tap {
    pthread_mutex_t lock; /* the ring; held for a copy of one record */
    unsigned char *ring;
    uint64_t head, tail;         /* positions: next to be written, oldest kept */
    uint64_t head_seq, tail_seq; /* records ever written, ever dropped */
    atomic_uint followers_waiting;
    atomic_bool woken;
    struct mail wake;
    struct loop *loop;
    TAILQ_HEAD(, follower) followers; /* the loop's */
};

/* --- the ring; the lock is held --- */

static void put_length(struct tap *t, uint64_t at, uint32_t length)
{
    memcpy(t->ring + at % RING_BYTES, &length, sizeof(length));
}

static uint32_t length_at(const struct tap *t, uint64_t at)
{
    uint32_t length;
    memcpy(&length, t->ring + at % RING_BYTES, sizeof(length));
    return length;
}

/* Entries begin at multiples of 4, so a length never wraps. */
static uint64_t entry_size(uint32_t length)
{
    return 4 + ((uint64_t)length + 3) / 4 * 4;
}

/* Over the filler at the end of the ring, if that is what is at this position. */
static uint64_t skip_filler(const struct tap *t, uint64_t at)
{
    if (at < t->head && length_at(t, at) == SKIP)
        at += RING_BYTES - at % RING_BYTES;
    return at;
}

static void drop_oldest(struct tap *t)
{
    t->tail = skip_filler(t, t->tail);
    t->tail += entry_size(length_at(t, t->tail));
    t->tail_seq++;
}

static void make_room(struct tap *t, uint64_t size)
{
    uint64_t to_end = RING_BYTES - t->head % RING_BYTES;
    uint64_t need = size <= to_end ? size : size + to_end;
    while (t->tail_seq < t->head_seq && t->head + need - t->tail > RING_BYTES)
        drop_oldest(t);
    if (t->tail_seq == t->head_seq)
        t->tail = t->head;
    if (size <= to_end)
        return;
    put_length(t, t->head, SKIP);
    t->head += to_end;
    if (t->tail_seq == t->head_seq)
        t->tail = t->head;
}

/* --- the log's side: any thread --- */

static void wake_loop(struct mail *mail, void *owner);

static void tap_sink(const struct record *r, void *ctx)
{
    struct tap *t = ctx;
    unsigned char packed[RECORD_PACKED_MAX];
    uint32_t len = (uint32_t)record_pack(r, packed, sizeof(packed));
    if (len == 0)
        return;
    pthread_mutex_lock(&t->lock);
    make_room(t, entry_size(len));
    put_length(t, t->head, len);
    memcpy(t->ring + t->head % RING_BYTES + 4, packed, len);
    t->head += entry_size(len);
    t->head_seq++;
    pthread_mutex_unlock(&t->lock);
    if (atomic_load_explicit(&t->followers_waiting, memory_order_relaxed) &&
        !atomic_exchange(&t->woken, true))
        mailbox_post(loop_mailbox(t->loop), &t->wake, wake_loop);
}

/* --- the followers' side: the loop's thread --- */

/* The next record of a follower; its missing ones are counted in *lost_out. */
static bool next_record(
    struct tap *t, struct follower *f, struct record *out, uint64_t *lost_out)
{
    unsigned char packed[RECORD_PACKED_MAX];
    uint32_t len = 0;
    pthread_mutex_lock(&t->lock);
    if (f->seq < t->tail_seq) {
        *lost_out += t->tail_seq - f->seq;
        f->seq = t->tail_seq;
        f->at = t->tail;
    }
    if (f->seq < t->head_seq) {
        f->at = skip_filler(t, f->at);
        len = length_at(t, f->at);
        memcpy(packed, t->ring + f->at % RING_BYTES + 4, len);
        f->at += entry_size(len);
        f->seq++;
    }
    pthread_mutex_unlock(&t->lock);
    return len && record_unpack(slice_make(packed, len), out);
}

static bool send_record(struct follower *f, const struct record *r)
{
    char line[RECORD_LINE_MAX];
    if (r->level < f->level)
        return true;
    size_t len = record_render_json(r, line, sizeof(line) - 1);
    line[len] = '\n';
    return control_reply_lines(f->req, slice_make(line, len + 1));
}

/* True when there may be more for it. */
static bool feed(struct follower *f)
{
    struct record r;
    for (unsigned i = 0; i < BURST && !f->slow; i++) {
        uint64_t lost = 0;
        bool got = next_record(f->tap, f, &r, &lost);
        if (lost)
            control_reply(f->req, json_pack("{s:s,s:I}", "event", "events_lost", "count",
                                      (json_int_t)lost));
        if (!got)
            return false;
        f->slow = !send_record(f, &r);
    }
    return !f->slow;
}

static void feed_all(struct tap *t)
{
    struct follower *f;
    bool more = false;
    TAILQ_FOREACH (f, &t->followers, entry)
        more = feed(f) || more;
    if (more && !atomic_exchange(&t->woken, true))
        mailbox_post(loop_mailbox(t->loop), &t->wake, wake_loop);
}

static void wake_loop(struct mail *mail, void *owner)
{
    struct tap *t = CONTAINER_OF(mail, struct tap, wake);
    (void)owner;
    /* Before looking: what comes after the look wakes again. */
    atomic_store(&t->woken, false);
    feed_all(t);
}

static void follower_gone(struct control_request *req)
{
    struct follower *f = req->state;
    TAILQ_REMOVE(&f->tap->followers, f, entry);
    atomic_fetch_sub(&f->tap->followers_waiting, 1);
    control_finish(req, 0);
    free(f);
}

static void follower_drained(struct control_request *req)
{
    struct follower *f = req->state;
    if (!f->slow)
        return;
    f->slow = false;
    feed_all(f->tap);
}

/* Stands at the n-th newest record. */
static void go_back(struct tap *t, struct follower *f, uint64_t n)
{
    pthread_mutex_lock(&t->lock);
    f->at = t->tail;
    f->seq = t->tail_seq;
    uint64_t skip = t->head_seq - t->tail_seq > n ? t->head_seq - t->tail_seq - n : 0;
    for (; skip; skip--) {
        f->at = skip_filler(t, f->at);
        f->at += entry_size(length_at(t, f->at));
        f->seq++;
    }
    pthread_mutex_unlock(&t->lock);
}

static void follow(struct tap *t, struct follower *f)
{
    struct follower *kept = mem_alloc(sizeof(*kept));
    *kept = *f;
    kept->req->state = kept;
    kept->req->on_cancel = follower_gone;
    kept->req->on_drained = follower_drained;
    atomic_fetch_add(&t->followers_waiting, 1);
    TAILQ_INSERT_TAIL(&t->followers, kept, entry);
    feed_all(t);
}

static void handle_events(struct control_request *req, json_t *args, void *ctx)
{
    struct control_handlers *h = ctx;
    struct follower f = {.req = req, .tap = h->tap, .level = LOG_INFO};
    int64_t last = LAST_DEFAULT;
    bool wanted = false;
    const char *level;
    if (!control_arg_bool(req, args, "follow", &wanted) ||
        !control_arg_int(req, args, "last", 0, LAST_MAX, &last) ||
        !control_arg_text(req, args, "level", &level))
        return;
    if (level && !log_level_parse(slice_str(level), &f.level)) {
        control_fail(
            req, 1, "give one of: debug, info, warn, error", "no such log level");
        return;
    }
    go_back(h->tap, &f, (uint64_t)last);
    if (wanted) {
        follow(h->tap, &f);
        return;
    }
    /* A megabyte of records stays far below what may wait unsent: no pauses. */
    for (int64_t i = 0; i <= last && (feed(&f) || f.slow); i++)
        f.slow = false;
    control_finish(req, 0);
}

void events_register(struct control *c, struct control_handlers *h)
{
    struct tap *t = mem_zalloc(sizeof(*t));
    pthread_mutex_init(&t->lock, NULL);
    t->ring = mem_alloc(RING_BYTES);
    t->loop = h->loop;
    TAILQ_INIT(&t->followers);
    h->tap = t;
    log_add_sink(tap_sink, t);
    control_register(c, "events", CONTROL_READS, handle_events, h);
}

void events_free(struct control_handlers *h)
{
    (void)h; /* the log goes on calling the tap until the process ends */
}
