/* SPDX-License-Identifier: Apache-2.0 */
/* The writer thread and the doors; what is behind them is in store_lmdb*.c and
 * store_ram.c. */
#include "queue/store.h"

#include <poll.h>
#include <stdlib.h>
#include <time.h>

#include "base/alloc.h"
#include "base/metrics.h"
#include "queue/store_internal.h"

/* Gathering: see there. */
#define GATHER_MS_MAX 1u
#define GATHER_OPS 48u
#define GATHER_SLICE_NS 150000
#define RATE_MAX 20000u

/* --- forming batches --- */

static void take_op(struct mail *mail, void *owner)
{
    struct store *s = owner;
    struct store_op *op = CONTAINER_OF(mail, struct store_op, mail);
    op->next = NULL;
    *s->end = op;
    s->end = &op->next;
}

uint64_t store_dsn_bytes(const struct store_settle *e)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < e->dsn_count; i++)
        bytes += store_message_bytes(e->dsns[i], 0);
    return bytes;
}

uint64_t store_message_bytes(const struct message *m, uint32_t row)
{
    uint64_t done = (uint64_t)row * BODY_ROW_BYTES;
    uint64_t bytes = m->size > done ? m->size - done : 0;
    for (unsigned i = 0; i < m->unit_count; i++)
        bytes += ROW_OVERHEAD_BYTES * (1u + m->units[i].rcpt_count);
    return bytes;
}

static uint64_t op_bytes(struct store_op *op)
{
    if (op->kind == STORE_OP_ACCEPT) {
        struct store_accept *a = CONTAINER_OF(op, struct store_accept, op);
        return store_message_bytes(a->message, a->rows_on_disk);
    }
    if (op->kind == STORE_OP_BODY_ROWS) {
        struct store_body_rows *r = CONTAINER_OF(op, struct store_body_rows, op);
        return (uint64_t)r->row_count * BODY_ROW_BYTES;
    }
    if (op->kind == STORE_OP_SETTLE) {
        struct store_settle *e = CONTAINER_OF(op, struct store_settle, op);
        return ROW_OVERHEAD_BYTES + store_dsn_bytes(e);
    }
    if (op->kind == STORE_OP_CLUSTER)
        return store_cluster_bytes(CONTAINER_OF(op, struct store_cluster, op));
    return ROW_OVERHEAD_BYTES;
}

static unsigned take_batch(struct store *s)
{
    uint64_t bytes = 0;
    unsigned count = 0;
    while (s->first && count < STORE_BATCH_OPS) {
        bytes += op_bytes(s->first);
        if (count && bytes > s->batch_bytes)
            break;
        s->batch[count++] = s->first;
        s->first = s->first->next;
    }
    if (!s->first)
        s->end = &s->first;
    return count;
}

static void answer_op(struct mail *mail, void *owner)
{
    struct store_op *op = CONTAINER_OF(mail, struct store_op, mail);
    op->done(op, owner);
}

static void count_batch(struct store *s, unsigned ops, int64_t ns)
{
    struct store_counters *c = &s->counters;
    atomic_fetch_add_explicit(&c->commits, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->operations, ops, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->commit_ns_total, (uint64_t)ns, memory_order_relaxed);
    if ((uint64_t)ns > atomic_load_explicit(&c->commit_ns_max, memory_order_relaxed))
        atomic_store_explicit(&c->commit_ns_max, (uint64_t)ns, memory_order_relaxed);
    metric_add(METRIC_commits_total, 1);
    metric_add(METRIC_commit_operations_total, ops);
    metric_add(METRIC_commit_seconds_total, ns / 1000);
    metric_set(METRIC_queue_bytes, (int64_t)atomic_load(&c->used));
    metric_set(METRIC_queue_units, (int64_t)atomic_load(&c->units));
    metric_set(METRIC_queue_recipients, (int64_t)atomic_load(&c->recipients));
    metric_set(METRIC_queue_held, (int64_t)atomic_load(&c->held));
}

/* A commit costs 300 us of CPU, most of it the kernel's, whatever is in it: on a fast
 * disk a writer that commits whenever something waits burns a core on batches of five. So
 * above 1,000 operations a second it lets some gather: for 1 ms at most since the last
 * batch began (3 ms were cheaper still, but deliveries wait for their outcomes, and a
 * destination's 20 connections then took a third less), and no longer than operations
 * keep coming, because those who come back only after our answer would wait for us while
 * we wait for them. Light load is never held up. */
static void gather(struct store *s)
{
    const struct timespec slice = {.tv_nsec = GATHER_SLICE_NS};
    uint64_t limit_ms = s->rate / 1000 < GATHER_MS_MAX ? s->rate / 1000 : GATHER_MS_MAX;
    struct mono end = mono_add_ms(s->batch_at, (int64_t)limit_ms);
    uint32_t seen = 0, depth = mailbox_depth(s->box);
    while (limit_ms && depth != seen && depth < GATHER_OPS && mono_now().ns < end.ns) {
        seen = depth;
        ppoll(NULL, 0, &slice, NULL);
        depth = mailbox_depth(s->box);
    }
}

static void note_rate(struct store *s, unsigned ops, struct mono began)
{
    int64_t ns = began.ns - s->batch_at.ns;
    uint64_t now = (uint64_t)(ops * NS_PER_S / (ns > 0 ? ns : 1));
    s->rate = (s->rate * 7 + (now < RATE_MAX ? now : RATE_MAX)) / 8;
    s->batch_at = began;
}

static void note_oldest(struct store *s, const struct store_op *op)
{
    atomic_store_explicit(
        &s->oldest_ns, op ? op->submitted_at.ns : 0, memory_order_relaxed);
}

static void run_batch(struct store *s, unsigned count)
{
    struct mono began = mono_now();
    note_rate(s, count, began);
    note_oldest(s, count ? s->batch[0] : NULL);
    s->backend->run(s, s->batch, count);
    count_batch(s, count, mono_now().ns - began.ns);
    for (unsigned i = 0; i < count; i++)
        mailbox_post(s->batch[i]->reply_to, &s->batch[i]->mail, answer_op);
    note_oldest(s, s->first);
}

static void *writer_main(void *arg)
{
    struct store *s = arg;
    pthread_setname_np(pthread_self(), "baton-writer");
    for (;;) {
        int wait_ms = s->first || s->stopping ? 0 : s->backend->idle_ms(s);
        if (wait_ms > 0 && mailbox_wait(s->box, wait_ms))
            gather(s);
        mailbox_take(s->box);
        if (s->stopping && !s->first)
            return NULL;
        if (s->first || wait_ms == 0)
            run_batch(s, take_batch(s));
    }
}

/* --- life --- */

void store_init(struct store *s, const struct store_backend *backend, uint64_t quota)
{
    s->backend = backend;
    s->box = mailbox_new(s);
    s->end = &s->first;
    s->quota = quota;
    s->intake_limit = quota / 10 * 7;
    s->copy_limit = quota / 10 * 8;
    s->batch_bytes = quota / 16 < STORE_BATCH_BYTES ? quota / 16 : STORE_BATCH_BYTES;
    atomic_init(&s->disk_grows, true);
    atomic_flag_clear(&s->nudged);
    metric_set(METRIC_queue_quota_bytes, (int64_t)quota);
}

void store_start(struct store *s)
{
    if (pthread_create(&s->writer, NULL, writer_main, s) != 0)
        die("baton: cannot start the thread that writes the queue: raise the limit of "
            "threads");
}

static void take_stop(struct mail *mail, void *owner)
{
    struct store *s = owner;
    (void)mail;
    s->stopping = true;
}

void store_stop(struct store *s)
{
    if (s->stopped)
        return;
    mailbox_post(s->box, &s->stop, take_stop);
    pthread_join(s->writer, NULL);
    s->stopped = true;
}

void store_close(struct store *s)
{
    if (!s)
        return;
    store_stop(s);
    s->backend->close(s);
}

void store_fini(struct store *s)
{
    mailbox_free(s->box);
    free(s);
}

/* --- the clock --- */

struct wall store_last_commit(const struct store *s)
{
    return (struct wall){atomic_load(&s->last_commit_ms)};
}

static void take_nudge(struct mail *mail, void *owner)
{
    struct store *s = owner;
    (void)mail;
    atomic_flag_clear(&s->nudged);
}

void store_clock_accept(struct store *s, struct wall now)
{
    atomic_store(&s->clock_accepted_ms, now.ms);
    if (!atomic_flag_test_and_set(&s->nudged))
        mailbox_post(s->box, &s->nudge, take_nudge);
}

int64_t store_clock_step(struct store *s, struct wall now)
{
    int64_t accepted = atomic_exchange(&s->clock_accepted_ms, 0);
    int64_t last = accepted ? accepted : atomic_load(&s->last_commit_ms);
    if (now.ms > last && now.ms - last <= STORE_CLOCK_JUMP_MS)
        last = now.ms;
    atomic_store(&s->last_commit_ms, last);
    return last;
}

/* --- room and counters --- */

bool store_has_room(const struct store *s, uint64_t bytes, uint64_t batched, bool copy)
{
    uint64_t used = atomic_load_explicit(&s->counters.used, memory_order_relaxed);
    uint64_t limit = copy ? s->copy_limit : s->intake_limit;
    return atomic_load_explicit(&s->disk_grows, memory_order_relaxed) &&
           used + batched <= limit && bytes <= limit - used - batched;
}

enum err store_admit(const struct store *s, uint64_t bytes)
{
    return store_has_room(s, bytes, 0, false) ? ERR_OK : ERR_STORE_FULL;
}

enum err store_admit_copy(const struct store *s, uint64_t bytes)
{
    return store_has_room(s, bytes, 0, true) ? ERR_OK : ERR_STORE_FULL;
}

int64_t store_commit_age_ms(const struct store *s)
{
    int64_t since = atomic_load_explicit(&s->oldest_ns, memory_order_relaxed);
    return since ? mono_diff_ms(mono_now(), (struct mono){since}) : 0;
}

static void add_signed(_Atomic uint64_t *counter, int64_t amount)
{
    /* A row damaged under us may make a count wrong; it must not make it huge. */
    uint64_t now = atomic_load_explicit(counter, memory_order_relaxed);
    uint64_t next = amount < 0 && now < (uint64_t)-amount ? 0 : now + (uint64_t)amount;
    atomic_store_explicit(counter, next, memory_order_relaxed);
}

void store_apply_delta(struct store *s, const struct store_delta *d)
{
    add_signed(&s->counters.units, d->units);
    add_signed(&s->counters.recipients, d->recipients);
    add_signed(&s->counters.held, d->held);
}

bool rcpt_state_may_change(enum rcpt_state old, enum rcpt_state new_state)
{
    return !rcpt_state_is_final(old) || new_state == RCPT_DELIVERED;
}

void store_stats(const struct store *s, struct store_stats *out)
{
    const struct store_counters *c = &s->counters;
    *out = (struct store_stats){.quota_bytes = s->quota,
        .used_bytes = atomic_load(&c->used),
        .allocated_bytes = atomic_load(&c->allocated),
        .units = atomic_load(&c->units),
        .recipients = atomic_load(&c->recipients),
        .held = atomic_load(&c->held),
        .bodies = atomic_load(&c->bodies),
        .body_rows = atomic_load(&c->body_rows),
        .quarantined = atomic_load(&c->quarantined),
        .commits = atomic_load(&c->commits),
        .operations = atomic_load(&c->operations),
        .commit_ns_total = atomic_load(&c->commit_ns_total),
        .commit_ns_max = atomic_load(&c->commit_ns_max),
        .rows = atomic_load(&c->rows),
        .intake_open = store_has_room(s, 0, 0, false),
        .copies_open = store_has_room(s, 0, 0, true),
        .disk_full = !atomic_load(&s->disk_grows)};
}

/* --- doors --- */

struct store_identity store_identity(const struct store *s)
{
    return s->identity;
}

void store_check_message(const struct message *m)
{
    INVARIANT(m->unit_count > 0 && m->unit_count <= UINT16_MAX + 1u);
    for (unsigned i = 0; i < m->unit_count; i++)
        INVARIANT(m->units[i].rcpt_count > 0);
}

void store_submit(struct store *s, struct store_op *op)
{
    INVARIANT(op->reply_to && op->done);
    op->result = ERR_OK;
    op->submitted_at = mono_now();
    if (op->kind == STORE_OP_ACCEPT) {
        store_check_message(CONTAINER_OF(op, struct store_accept, op)->message);
    } else if (op->kind == STORE_OP_CLUSTER) {
        store_check_cluster(CONTAINER_OF(op, struct store_cluster, op));
    } else if (op->kind == STORE_OP_QUAR) {
        struct store_quar *q = CONTAINER_OF(op, struct store_quar, op);
        store_check_rows(q->rows, q->row_count);
    } else if (op->kind == STORE_OP_BODY_ROWS) {
        /* Found here, in the body's own thread: the head of the chain may move later. */
        struct store_body_rows *r = CONTAINER_OF(op, struct store_body_rows, op);
        body_rows_from(r->body, r->first_row, &r->at);
    }
    /* The writer may be in the middle of something that is no batch. */
    int64_t none = 0;
    if (atomic_load_explicit(&s->oldest_ns, memory_order_relaxed) == 0)
        atomic_compare_exchange_strong(&s->oldest_ns, &none, op->submitted_at.ns);
    mailbox_post(s->box, &op->mail, take_op);
}

/* Scans run where the operations run, so that all of a store's inside has one thread. */
struct writer_call {
    struct mail mail;
    void (*run)(struct store *s, void *ctx);
    void *ctx;
    bool ended;
    /* Not a mailbox: whoever posts to one still touches it when the receiver may free it.
     */
    pthread_mutex_t lock;
    pthread_cond_t changed;
};

static void take_call(struct mail *mail, void *owner)
{
    struct writer_call *call = CONTAINER_OF(mail, struct writer_call, mail);
    call->run(owner, call->ctx);
    pthread_mutex_lock(&call->lock);
    call->ended = true;
    pthread_cond_signal(&call->changed);
    pthread_mutex_unlock(&call->lock);
}

void store_call(struct store *s, void (*run)(struct store *s, void *ctx), void *ctx)
{
    struct writer_call call = {.run = run, .ctx = ctx};
    pthread_mutex_init(&call.lock, NULL);
    pthread_cond_init(&call.changed, NULL);
    mailbox_post(s->box, &call.mail, take_call);
    pthread_mutex_lock(&call.lock);
    while (!call.ended)
        pthread_cond_wait(&call.changed, &call.lock);
    pthread_mutex_unlock(&call.lock);
    pthread_cond_destroy(&call.changed);
    pthread_mutex_destroy(&call.lock);
}

struct scan_call {
    void (*unit)(const struct scan_unit *u, void *ctx);
    void (*progress)(uint64_t done, uint64_t total, void *ctx);
    void *ctx;
    struct scan_result *out;
    enum err result;
};

static void run_scan(struct store *s, void *ctx)
{
    struct scan_call *c = ctx;
    c->result = s->backend->scan(s, c->unit, c->progress, c->ctx, c->out);
}

enum err store_scan(struct store *s, void (*unit)(const struct scan_unit *u, void *ctx),
    void (*progress)(uint64_t done, uint64_t total, void *ctx), void *ctx,
    struct scan_result *out)
{
    struct scan_call call = {.unit = unit, .progress = progress, .ctx = ctx, .out = out};
    *out = (struct scan_result){0};
    store_call(s, run_scan, &call);
    return call.result;
}

enum err store_read_unit(struct store *s, struct unit_id id, struct unit_record **out)
{
    *out = NULL;
    return s->backend->read_unit(s, id, out);
}

struct copy_out {
    char *at;
    size_t len;
};

static void copy_row(struct slice row, void *ctx)
{
    struct copy_out *out = ctx;
    memcpy(out->at + out->len, row.ptr, row.len);
    out->len += row.len;
}

enum err store_read_body(
    struct store *s, struct msg_id id, uint32_t row, char *out, size_t *len_out)
{
    struct copy_out copy = {.at = out};
    enum err e = s->backend->read_rows(s, id, row, copy_row, &copy);
    *len_out = e == ERR_OK ? copy.len : 0;
    return e;
}

static void append_row(struct slice row, void *ctx)
{
    body_append(ctx, row);
}

enum err store_load_body(
    struct store *s, struct msg_id id, uint64_t size_max, struct body **out)
{
    uint64_t size;
    uint32_t crc;
    *out = NULL;
    enum err e = s->backend->body_info(s, id, &size, &crc);
    if (e != ERR_OK)
        return e;
    if (size > size_max)
        return ERR_TOO_BIG;
    struct body *b = body_new();
    while (e == ERR_OK && body_size(b) < size) {
        uint64_t before = body_size(b);
        e = s->backend->read_rows(s, id, body_rows(b), append_row, b);
        if (e == ERR_OK && body_size(b) == before)
            e = ERR_STORE_DAMAGED;
    }
    if (e == ERR_OK && (body_size(b) != size || body_crc(b) != crc))
        e = ERR_STORE_DAMAGED;
    if (e != ERR_OK)
        body_unref(b);
    else
        *out = b;
    return e;
}

#define LIST_IDS 256u

enum err store_list(struct store *s, const struct unit_id *after,
    bool (*unit)(const struct unit_record *u, void *ctx), void *ctx)
{
    struct unit_id ids[LIST_IDS], last;
    enum err e = ERR_OK;
    unsigned n = s->backend->list_ids(s, after, ids, LIST_IDS, &e);
    while (n > 0 && e == ERR_OK) {
        for (unsigned i = 0; i < n; i++) {
            struct unit_record *u;
            /* Gone meanwhile, or damaged: the scan or the reader of that unit reports it.
             */
            if (s->backend->read_unit(s, ids[i], &u) != ERR_OK)
                continue;
            bool go_on = unit(u, ctx);
            unit_record_free(u);
            if (!go_on)
                return ERR_OK;
        }
        last = ids[n - 1];
        n = s->backend->list_ids(s, &last, ids, LIST_IDS, &e);
    }
    return e;
}

/* The last id before the message's first unit: listing goes on behind it. */
static struct unit_id before_message(struct msg_id id)
{
    for (int i = MSG_ID_BYTES - 1; i >= 0 && id.bytes[i]-- == 0; i--)
        ;
    return (struct unit_id){id, UINT16_MAX};
}

unsigned store_units_of(
    struct store *s, struct msg_id id, struct unit_id *out, unsigned max)
{
    struct unit_id ids[64], after = before_message(id);
    unsigned found = 0;
    enum err e = ERR_OK;
    for (;;) {
        unsigned n = s->backend->list_ids(s, &after, ids, 64, &e);
        for (unsigned i = 0; i < n; i++) {
            if (found == max || !msg_id_eq(ids[i].msg, id))
                return found;
            out[found++] = ids[i];
        }
        if (n == 0)
            return found;
        after = ids[n - 1];
    }
}

enum err store_read_meta(
    struct store *s, const char *name, char *out, size_t out_size, size_t *len_out)
{
    *len_out = 0;
    return s->backend->read_meta(s, name, out, out_size, len_out);
}
