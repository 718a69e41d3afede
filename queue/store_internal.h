/* SPDX-License-Identifier: Apache-2.0 */
/* What the two stores share: the writer thread, the forming of batches, the counters. A
 * backend applies a batch and reads. For queue/store*.c and its tests only. */
#ifndef QUEUE_STORE_INTERNAL_H
#define QUEUE_STORE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "queue/store.h"

#define STORE_SCHEMA 1u
#define STORE_BATCH_OPS 512u
#define STORE_BATCH_BYTES (8u << 20)
#define STORE_READ_ROWS 16u
/* A unit's and a recipient's row in their tables, half-filled pages included. */
#define ROW_OVERHEAD_BYTES 512u
#define STORE_CLOCK_JUMP_MS (24 * INT64_C(3600000))
#define STORE_CLOCK_IDLE_MS (15 * INT64_C(60000))

struct store_backend {
    /* Writer thread. Applies all, makes it durable, sets each result. With count 0:
     * leftover work (a sweep, the clock). */
    void (*run)(struct store *s, struct store_op **ops, unsigned count);
    /* Writer thread, when no operation waits. 0: there is leftover work for `run`; else
     * how long to wait for mail. May do small chores itself. */
    int (*idle_ms)(struct store *s);
    /* After the writer has ended. */
    void (*close)(struct store *s);
    enum err (*scan)(struct store *s, void (*unit)(const struct scan_unit *u, void *ctx),
        void (*progress)(uint64_t done, uint64_t total, void *ctx), void *ctx,
        struct scan_result *out);
    enum err (*read_unit)(struct store *s, struct unit_id id, struct unit_record **out);
    /* Calls `row` for at most STORE_READ_ROWS rows from `first` on. */
    enum err (*read_rows)(struct store *s, struct msg_id id, uint32_t first,
        void (*row)(struct slice bytes, void *ctx), void *ctx);
    enum err (*body_info)(
        struct store *s, struct msg_id id, uint64_t *size_out, uint32_t *crc_out);
    /* The next message behind `after`, or ERR_STORE_NOT_FOUND. */
    enum err (*next_body)(
        struct store *s, const struct msg_id *after, struct msg_id *out);
    /* Up to `max` ids behind `after` (NULL: from the first), in order. */
    unsigned (*list_ids)(struct store *s, const struct unit_id *after,
        struct unit_id *out, unsigned max, enum err *result);
    enum err (*read_meta)(
        struct store *s, const char *name, char *out, size_t out_size, size_t *len_out);
    /* Writer thread. */
    enum err (*scan_rows)(struct store *s, enum store_row_table table,
        void (*row)(const struct store_row *row, void *ctx), void *ctx,
        uint64_t *damaged_out);
    enum err (*read_row)(struct store *s, enum store_row_table table, struct slice key,
        char *out, size_t out_size, size_t *len_out);
    /* The next unit with something put aside, or ERR_STORE_NOT_FOUND. */
    enum err (*next_quar)(
        struct store *s, const struct unit_id *after, struct unit_id *out);
    enum err (*read_quar)(struct store *s, struct unit_id id,
        void (*unit)(const struct store_quarantined *q, void *ctx), void *ctx);
};

/* Written by the writer thread (and by the scan, before the first operation), read by
 * any. */
struct store_counters {
    _Atomic uint64_t used, allocated;
    _Atomic uint64_t units, recipients, held, bodies, body_rows, quarantined, rows;
    _Atomic uint64_t commits, operations, commit_ns_total, commit_ns_max;
};

struct store {
    const struct store_backend *backend;
    struct store_identity identity;
    struct mailbox *box;
    pthread_t writer;
    struct mail stop;
    struct mail nudge;
    atomic_flag nudged;
    bool stopping;
    bool stopped;           /* the writer has ended */
    struct store_op *first; /* waiting, oldest first */
    struct store_op **end;
    struct store_op *batch[STORE_BATCH_OPS];
    struct mono batch_at; /* start of the last batch */
    uint64_t rate;        /* operations a second, smoothed */
    uint64_t quota;
    uint64_t intake_limit; /* used bytes above which nothing new comes in */
    uint64_t copy_limit;   /* ... nor copies of other nodes' mail */
    uint64_t batch_bytes;
    atomic_bool disk_grows; /* the last preallocation worked */
    _Atomic int64_t last_commit_ms;
    _Atomic int64_t oldest_ns; /* when the oldest one unanswered was submitted; 0: none */
    _Atomic int64_t clock_accepted_ms; /* 0: none waits */
    struct store_counters counters;
};

/* Fills what is common; the backend sets identity and counters and starts the writer. */
void store_init(struct store *s, const struct store_backend *backend, uint64_t quota);
void store_start(struct store *s);
void store_fini(struct store *s);

/* What a commit changes in the counters: kept apart until it is durable. */
struct store_delta {
    int64_t units, recipients, held;
};
void store_apply_delta(struct store *s, const struct store_delta *d);
/* May a new message or new rows of `bytes` be written, with `batched` already in this
 * batch? */
bool store_has_room(const struct store *s, uint64_t bytes, uint64_t batched, bool copy);
/* Runs `run` on the writer's thread and waits for it. */
void store_call(struct store *s, void (*run)(struct store *s, void *ctx), void *ctx);
/* The time to put down with a commit made at `now`; takes what the operator vouched for.
 */
int64_t store_clock_step(struct store *s, struct wall now);
/* Disk that a message takes, roughly: its body from `row` on and its rows. */
uint64_t store_message_bytes(const struct message *m, uint32_t row);
uint64_t store_cluster_bytes(const struct store_cluster *c);
uint64_t store_dsn_bytes(const struct store_settle *e);
/* Aborts when the operation is not what store.h says. */
void store_check_message(const struct message *m);
void store_check_cluster(const struct store_cluster *c);
void store_check_rows(const struct store_row *rows, unsigned count);
/* Of a recipient's two states, the one that stays. */
bool rcpt_state_may_change(enum rcpt_state old, enum rcpt_state new_state);

/* --- store_ram_copy.c: `m` gives the envelope, `unit` what it is about, `u` the rest ---
 */
struct rcpt_record rcpt_record_copy(struct arena *a, const struct rcpt_record *r);
struct unit_record *unit_record_copy(const struct message *m,
    const struct message_unit *unit, const struct unit_record *u);

/* --- for tests of the LMDB store --- */
struct store_check {
    uint64_t units, rcpts, bodies, body_rows, parts, gone, quarantined;
    uint64_t unit_rows, node_rows, more;
    uint64_t problems; /* rows that break a rule of the table of legal states */
};
/* Walks every table and counts what breaks the rules. Not concurrent with operations. */
void store_lmdb_check(struct store *s, struct store_check *out);
/* Takes the place of posix_fallocate. */
void store_lmdb_set_allocate(
    struct store *s, int (*allocate)(int fd, off_t at, off_t len));
/* The data file's name inside the directory. */
#define STORE_LMDB_DATA "data.mdb"

#endif
