/* SPDX-License-Identifier: Apache-2.0 */
/* What the store costs. DIR must be on the disk that is to be measured.
 *   bench_store ops [DIR]: accept and settle in lockstep batches of 1, 32 and 128
 *   bench_store rate N [DIR [SIZE]]: N messages a second, each accepted and then settled,
 * as a busy relay has them bench_store history N DIR: N events a second into the history
 *   bench_store cluster [DIR]: what a node of a cluster writes about a message: mail and
 * row, row, outcome and row, removal and row
 *   bench_store fill N DIR: a queue of N units
 *   bench_store scan DIR: start-up on it, time and memory */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/metrics.h"
#include "queue/history.h"
#include "queue/store.h"

#define FILL_BATCH 512u

struct bench {
    struct store *store;
    struct mailbox *box;
    struct msg_id_source ids;
    unsigned done;
};

static void op_done(struct store_op *op, void *owner)
{
    struct bench *b = owner;
    if (op->result != ERR_OK)
        die("bench: %s", err_text(op->result));
    b->done++;
}

static void submit(struct bench *b, struct store_op *op)
{
    op->reply_to = b->box;
    op->done = op_done;
    store_submit(b->store, op);
}

static void wait_for(struct bench *b, unsigned count)
{
    while (b->done < count) {
        mailbox_wait(b->box, -1);
        mailbox_drain(b->box);
    }
    b->done = 0;
}

static struct message *make(struct bench *b, struct body *body)
{
    struct message *m = message_new();
    m->created = wall_now();
    m->id = msg_id_next(&b->ids, m->created);
    m->reverse_path = SLICE("sender.of.mail@sending-domain.example");
    m->origin = ORIGIN_RELAY_CLIENT;
    m->client.family = 4;
    m->listener = SLICE("mx");
    m->helo = SLICE("client.sending-domain.example");
    m->unit_count = 1;
    m->units = arena_alloc(m->arena, sizeof(*m->units));
    m->units[0].domain = SLICE("receiving-domain.example");
    m->units[0].rcpt_count = 1;
    m->units[0].rcpts = arena_alloc(m->arena, sizeof(struct recipient));
    m->units[0].rcpts[0].address = SLICE("some.user@receiving-domain.example");
    m->units[0].expires.ms = m->created.ms + 432000000;
    m->body = body_ref(body);
    m->size = body_size(body);
    m->body_crc = body_crc(body);
    return m;
}

static struct body *make_body(size_t size)
{
    struct body *b = body_new();
    for (size_t i = 0; i < size; i += 64)
        body_append(b,
            SLICE("0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWX\r\n"));
    return b;
}

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static double cpu(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return seconds(u.ru_utime) + seconds(u.ru_stime);
}

static long anonymous_kib(void)
{
    char line[256];
    long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "RssAnon: %ld kB", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib;
}

static void open_store(struct bench *b, const char *dir, uint64_t quota)
{
    char why[512];
    struct store_settings set = {.dir = dir, .quota_bytes = quota};
    b->store = store_open(&set, why, sizeof(why));
    if (!b->store)
        die("bench: %s", why);
    b->box = mailbox_new(b);
    struct store_identity id = store_identity(b->store);
    msg_id_source_init(&b->ids, id.node32, id.epoch, 0);
}

static void close_store(struct bench *b)
{
    store_close(b->store);
    mailbox_free(b->box);
}

/* Accepts in one batch and settles in the next, as a relay does. `keep` messages stay
 * queued in between, so that the pages of a settle are not those of the last accept. */
static void pairs(struct bench *b, unsigned batch, size_t size, double seconds_max)
{
    struct store_accept *accept = mem_zalloc(batch * sizeof(*accept));
    struct store_settle *settle = mem_zalloc(batch * sizeof(*settle));
    struct body *body = make_body(size);
    struct store_stats before, after;
    store_stats(b->store, &before);
    struct mono began = mono_now();
    double cpu_began = cpu();
    double n = 0;
    for (; (double)(mono_now().ns - began.ns) / 1e9 < seconds_max; n += batch) {
        for (unsigned i = 0; i < batch; i++) {
            accept[i] = (struct store_accept){
                .op.kind = STORE_OP_ACCEPT, .message = make(b, body)};
            submit(b, &accept[i].op);
        }
        wait_for(b, batch);
        for (unsigned i = 0; i < batch; i++) {
            settle[i] = (struct store_settle){.op.kind = STORE_OP_SETTLE,
                .unit = {accept[i].message->id, 0},
                .unit_done = true};
            message_unref(accept[i].message);
            submit(b, &settle[i].op);
        }
        wait_for(b, batch);
    }
    double wall = (double)(mono_now().ns - began.ns) / 1e9, used = cpu() - cpu_began;
    store_stats(b->store, &after);
    printf("%7zu bytes, batch %3u: %8.0f messages/s  %6.1f us CPU a message  %5.1f ops a "
           "commit\n",
        size, batch, n / wall, used / n * 1e6,
        (double)(after.operations - before.operations) /
            (double)(after.commits - before.commits));
    fflush(stdout);
    body_unref(body);
    free(accept);
    free(settle);
}

static int bench_ops(const char *dir)
{
    static const unsigned batches[] = {1, 32, 128};
    struct bench b = {0};
    open_store(&b, dir, UINT64_C(4) << 30);
    pairs(&b, 128, 1024, 1); /* warms up: the file has its pages */
    for (unsigned i = 0; i < 3; i++)
        pairs(&b, batches[i], 1024, 3);
    for (unsigned i = 0; i < 3; i++)
        pairs(&b, batches[i], 102400, 3);
    close_store(&b);
    return 0;
}

struct flight {
    struct store_accept accept;
    struct store_settle settle;
    bool busy, accepted;
};

static void flight_done(struct store_op *op, void *owner)
{
    struct bench *b = owner;
    if (op->kind == STORE_OP_ACCEPT) {
        struct flight *f = CONTAINER_OF(
            CONTAINER_OF(op, struct store_accept, op), struct flight, accept);
        f->settle = (struct store_settle){.op.kind = STORE_OP_SETTLE,
            .unit = {f->accept.message->id, 0},
            .unit_done = true};
        message_unref(f->accept.message);
        f->settle.op.reply_to = b->box;
        f->settle.op.done = flight_done;
        store_submit(b->store, &f->settle.op);
        return;
    }
    CONTAINER_OF(CONTAINER_OF(op, struct store_settle, op), struct flight, settle)->busy =
        false;
    b->done++;
}

static int bench_rate(unsigned rate, const char *dir, size_t size)
{
    enum { FLIGHTS = 4096 };
    struct bench b = {0};
    struct flight *flights = mem_zalloc(FLIGHTS * sizeof(*flights));
    struct body *body = make_body(size);
    unsigned sent = 0, seconds_long = 8;
    open_store(&b, dir, UINT64_C(4) << 30);
    struct mono began = mono_now();
    double cpu_began = cpu();
    while (mono_diff_ms(mono_now(), began) < seconds_long * 1000) {
        uint64_t want = (uint64_t)(mono_now().ns - began.ns) / 1000 * rate / 1000000;
        for (; sent < want && !flights[sent % FLIGHTS].busy; sent++) {
            struct flight *f = &flights[sent % FLIGHTS];
            f->accept = (struct store_accept){
                .op.kind = STORE_OP_ACCEPT, .message = make(&b, body)};
            f->busy = true;
            f->accept.op.reply_to = b.box;
            f->accept.op.done = flight_done;
            store_submit(b.store, &f->accept.op);
        }
        mailbox_wait(b.box, 1);
        mailbox_drain(b.box);
    }
    double used = cpu() - cpu_began;
    struct store_stats st;
    store_stats(b.store, &st);
    printf("%zu bytes at %u/s: %.0f messages/s done, %.1f us CPU a message, %.1f ops a "
           "commit, "
           "%.2f ms a commit\n",
        size, rate, b.done / (double)seconds_long, used / b.done * 1e6,
        (double)st.operations / (double)st.commits,
        (double)st.commit_ns_total / 1e6 / (double)st.commits);
    while (b.done < sent) {
        mailbox_wait(b.box, -1);
        mailbox_drain(b.box);
    }
    body_unref(body);
    close_store(&b);
    free(flights);
    return 0;
}

/* What the log's sink and the history's thread cost together. */
static int bench_history(unsigned rate, const char *dir)
{
    char why[512];
    struct msg_id_source ids;
    struct record r;
    unsigned sent = 0, seconds_long = 5;
    struct history *h = history_open(dir, 604800000, UINT64_C(2) << 30, why, sizeof(why));
    if (!h)
        die("bench: %s", why);
    msg_id_source_init(&ids, 1, 1, 0);
    struct mono began = mono_now();
    double cpu_began = cpu();
    while (mono_diff_ms(mono_now(), began) < seconds_long * 1000) {
        uint64_t want = (uint64_t)(mono_now().ns - began.ns) / 1000 * rate / 1000000;
        for (; sent < want; sent++) {
            record_init(&r, LOG_EV_DELIVERED);
            record_msg_id(&r, "id", msg_id_next(&ids, wall_now()));
            record_str(&r, "to", "some.user@receiving-domain.example");
            record_str(&r, "mx", "mx1.receiving-domain.example");
            record_str(&r, "reply", "250 2.0.0 Ok: queued as 4FJqKX2mZpz1yP");
            history_sink(&r, h);
        }
        poll(NULL, 0, 1);
    }
    double used = cpu() - cpu_began;
    history_close(h);
    printf("history at %u/s: %.2f us CPU an event, %.1f %% of a core, %lld dropped\n",
        rate, used / sent * 1e6, used / seconds_long * 100,
        (long long)metric_read(METRIC_history_lost_total));
    return 0;
}

/* --- a node of a cluster --- */

#define CLUSTER_BATCH 128u
#define CLUSTER_ROW 160 /* what the core's row about a unit takes, roughly */

struct cluster_job {
    struct store_cluster op;
    struct store_settle settle;
    struct store_row row;
    struct unit_id id;
    struct message *message;
};

static void submit_stage(struct bench *b, struct cluster_job *j, unsigned stage)
{
    static const char value[CLUSTER_ROW];
    j->row.table = STORE_ROW_UNIT;
    j->row.key_len = UNIT_ID_BYTES;
    unit_id_key(j->id, j->row.key);
    j->row.value = stage < 3 ? slice_make(value, sizeof(value)) : (struct slice){0};
    j->settle = (struct store_settle){.unit = j->id};
    j->op = (struct store_cluster){.op.kind = STORE_OP_CLUSTER,
        .message = stage == 0 ? j->message : NULL,
        .settle = stage == 2 ? &j->settle : NULL,
        .remove = &j->id,
        .remove_count = stage == 3,
        .rows = &j->row,
        .row_count = 1};
    submit(b, &j->op.op);
}

static int bench_cluster(const char *dir)
{
    struct bench b = {0};
    struct cluster_job *jobs = mem_zalloc(CLUSTER_BATCH * sizeof(*jobs));
    struct body *body = make_body(1024);
    double n = 0;
    open_store(&b, dir, UINT64_C(4) << 30);
    struct mono began = mono_now();
    double cpu_began = cpu();
    for (; mono_diff_ms(mono_now(), began) < 5000; n += CLUSTER_BATCH) {
        for (unsigned i = 0; i < CLUSTER_BATCH; i++) {
            jobs[i].message = make(&b, body);
            jobs[i].id = (struct unit_id){jobs[i].message->id, 0};
        }
        for (unsigned stage = 0; stage < 4; stage++) {
            for (unsigned i = 0; i < CLUSTER_BATCH; i++)
                submit_stage(&b, &jobs[i], stage);
            wait_for(&b, CLUSTER_BATCH);
        }
        for (unsigned i = 0; i < CLUSTER_BATCH; i++)
            message_unref(jobs[i].message);
    }
    double wall = (double)mono_diff_ms(mono_now(), began) / 1e3;
    printf(
        "cluster, 1024 bytes, batch %u: %.0f messages/s, %.1f us CPU a message of four "
        "operations\n",
        CLUSTER_BATCH, n / wall, (cpu() - cpu_began) / n * 1e6);
    body_unref(body);
    free(jobs);
    close_store(&b);
    return 0;
}

static int bench_fill(unsigned count, const char *dir)
{
    struct bench b = {0};
    struct store_accept accept[FILL_BATCH];
    struct body *body = make_body(1024);
    open_store(&b, dir, (UINT64_C(1) << 30) + (uint64_t)count * 6000);
    struct mono began = mono_now();
    for (unsigned done = 0; done < count; done += FILL_BATCH) {
        for (unsigned i = 0; i < FILL_BATCH; i++) {
            accept[i] = (struct store_accept){
                .op.kind = STORE_OP_ACCEPT, .message = make(&b, body)};
            submit(&b, &accept[i].op);
        }
        wait_for(&b, FILL_BATCH);
        for (unsigned i = 0; i < FILL_BATCH; i++)
            message_unref(accept[i].message);
    }
    double wall = (double)(mono_now().ns - began.ns) / 1e9;
    printf("%u units in %.1f s, %.0f/s, %.1f us CPU each\n", count, wall, count / wall,
        cpu() / count * 1e6);
    struct store_stats st;
    store_stats(b.store, &st);
    printf("used %llu MiB\n", (unsigned long long)st.used_bytes >> 20);
    body_unref(body);
    close_store(&b);
    return 0;
}

static void count_unit(const struct scan_unit *u, void *ctx)
{
    *(uint64_t *)ctx += u->open_rcpts;
}

static int bench_scan(const char *dir)
{
    struct bench b = {0};
    struct scan_result r;
    uint64_t open = 0;
    struct mono began = mono_now();
    open_store(&b, dir, UINT64_C(64) << 30);
    enum err e = store_scan(b.store, count_unit, NULL, &open, &r);
    printf(
        "scan: %s, %llu units, %llu open recipients, %llu damaged in %.2f s, %.2f s CPU, "
        "%ld KiB anonymous\n",
        err_name(e), (unsigned long long)r.units, (unsigned long long)open,
        (unsigned long long)r.damaged, (double)(mono_now().ns - began.ns) / 1e9, cpu(),
        anonymous_kib());
    close_store(&b);
    return e != ERR_OK;
}

int main(int argc, char **argv)
{
    if (argc >= 2 && strcmp(argv[1], "ops") == 0)
        return bench_ops(argc > 2 ? argv[2] : "bench-queue");
    if (argc >= 2 && strcmp(argv[1], "cluster") == 0)
        return bench_cluster(argc > 2 ? argv[2] : "bench-queue");
    if (argc >= 3 && strcmp(argv[1], "rate") == 0)
        return bench_rate((unsigned)strtoul(argv[2], NULL, 10),
            argc > 3 ? argv[3] : "bench-queue",
            argc > 4 ? (size_t)strtoul(argv[4], NULL, 10) : 1024);
    if (argc == 4 && strcmp(argv[1], "history") == 0)
        return bench_history((unsigned)strtoul(argv[2], NULL, 10), argv[3]);
    if (argc == 4 && strcmp(argv[1], "fill") == 0)
        return bench_fill((unsigned)strtoul(argv[2], NULL, 10), argv[3]);
    if (argc == 3 && strcmp(argv[1], "scan") == 0)
        return bench_scan(argv[2]);
    fprintf(stderr, "usage: bench_store ops [DIR] | cluster [DIR] | rate N [DIR [SIZE]] "
                    "| history N DIR "
                    "| fill N DIR | scan DIR\n");
    return 2;
}
