/* SPDX-License-Identifier: Apache-2.0 */
/* The LMDB store's inside, for its own files: store_lmdb.c (life, disk space),
 * store_lmdb_write.c (batches), store_lmdb_read.c, store_lmdb_scan.c (start, damage). */
#ifndef QUEUE_STORE_LMDB_H
#define QUEUE_STORE_LMDB_H

#include <lmdb.h>

#include "base/alloc.h"
#include "queue/record.h"
#include "queue/store_internal.h"

/* Pages that one transaction frees: the list of them is one value, which itself needs
 * contiguous pages. */
#define LMDB_FREE_PAGES_MAX 2000u
/* A body of so many rows is deleted later, with others: so many rows at most (and no more
 * than a 64th of the quota), or when nothing else is to be done. */
#define LMDB_LATER_ROWS 8u
#define LMDB_SWEEP_ROWS 8192u
#define LMDB_PAGE_BYTES 4096u

/* A row of a body takes one page, never a run of pages that LMDB would have to search
 * for: 16 bytes of page header, 4080 of value. */
_Static_assert((16 - 1 + BODY_ROW_BYTES + ROW_CRC_BYTES) / LMDB_PAGE_BYTES == 0,
    "a body row is one overflow page");

enum table {
    TABLE_META,
    TABLE_MSG,
    TABLE_RCPT,
    TABLE_BODY,
    TABLE_BREF,
    TABLE_PART,
    TABLE_GONE,
    TABLE_TOMB,
    TABLE_QUAR,
    /* Their numbers are in keys of TABLE_QUAR: new ones at the end. */
    TABLE_NODE,
    TABLE_UNIT,
    TABLE_MORE,
    TABLE_COUNT
};

/* Read transactions wait here between uses, reset: renewing one costs no allocation. */
struct reader {
    struct reader *next;
    MDB_txn *txn;
};

struct lmdb_store {
    struct store base;
    char *dir;
    int dir_fd; /* carries the lock */
    MDB_env *env;
    MDB_dbi dbi[TABLE_COUNT];
    Baton__Disk__Meta meta;
    uint8_t cluster_id[16]; /* that meta points to */
    struct mono meta_at;    /* last written */

    /* The writer's transaction. */
    MDB_txn *txn;
    uint32_t free_pages; /* that it may still free */
    uint64_t bytes;      /* that it has taken in */
    struct store_delta delta;
    struct row_author author;
    const struct store_row *rows; /* of the operation under way */
    unsigned row_count;
    /* Bodies in TABLE_GONE. Big ones wait there for company: freed together they leave
     * long runs of pages, and what is written into these is one write, not many. */
    bool has_gone;
    bool sweeping; /* they go now */
    uint32_t gone_rows, sweep_at;

    /* Preallocation. */
    int (*_Atomic allocate)(int fd, off_t at, off_t len); /* tests set it from outside */
    uint64_t step, ahead;
    uint64_t zeroed;         /* up to where the file has been written once */
    struct mono allocate_at; /* after a failure: when to try again */
    struct mono ran_at;      /* end of the last batch */

    pthread_mutex_t readers_lock;
    struct reader *readers;
};

static inline struct lmdb_store *lmdb_of(struct store *s)
{
    return CONTAINER_OF(s, struct lmdb_store, base);
}
static inline MDB_val lmdb_val(struct slice s)
{
    union {
        const char *in;
        void *out; /* LMDB only reads keys */
    } ptr = {.in = s.ptr};
    return (MDB_val){s.len, ptr.out};
}
static inline struct slice lmdb_slice(MDB_val v)
{
    return slice_make(v.mv_data, v.mv_size);
}

/* --- store_lmdb.c --- */
extern const struct store_backend store_lmdb_backend;
/* Ends the process: nobody knows what is on disk. */
_Noreturn void lmdb_die(const struct lmdb_store *s, const char *doing, int rc);
/* Takes disk ahead of the data; sets disk_grows. Before a transaction, in its thread. */
void lmdb_allocate(struct lmdb_store *s);
/* Writes zeros over a piece of what was allocated and never written; false when there is
 * no such piece. Between transactions only. */
bool lmdb_zero_ahead(struct lmdb_store *s);
/* Publishes how much is used; inside a write transaction, before its commit. */
void lmdb_measure(struct lmdb_store *s);
/* A write transaction in the calling thread, for the start and the scan. */
void lmdb_begin(struct lmdb_store *s);
void lmdb_commit(struct lmdb_store *s);

/* --- store_lmdb_write.c: all return 0 or LMDB's error --- */
int lmdb_put_bytes(
    struct lmdb_store *s, enum table t, struct slice key, struct slice bytes);
int lmdb_put_pb(
    struct lmdb_store *s, enum table t, struct slice key, const ProtobufCMessage *pb);
/* A row that is not there is fine. */
int lmdb_del(struct lmdb_store *s, enum table t, struct slice key);
int lmdb_put_meta(struct lmdb_store *s);
void lmdb_run(struct store *base, struct store_op **ops, unsigned count);
/* Deletes marked bodies, as many pages as may be freed. */
int lmdb_sweep(struct lmdb_store *s);

/* Refusals of lmdb_accept. */
enum err lmdb_may_accept(
    struct lmdb_store *s, const struct message *m, uint32_t rows_on_disk) MUST_CHECK;
/* What is said to be on disk of a body must be: ERR_OK or the refusal. */
enum err lmdb_may_take_body(
    struct lmdb_store *s, const struct message *m, uint32_t rows_on_disk) MUST_CHECK;
/* The rest of a new body, used by `units`. */
int lmdb_put_body(
    struct lmdb_store *s, const struct message *m, uint32_t rows_on_disk, uint32_t units);
int lmdb_put_bref(struct lmdb_store *s, struct msg_id id, const struct bref *b);
int lmdb_accept(struct lmdb_store *s, const struct message *m, uint32_t rows_on_disk,
    enum err *result);
/* One unit less uses the body; the last one deletes it. */
int lmdb_release_body(struct lmdb_store *s, struct msg_id id);

/* --- store_lmdb_settle.c --- */
int lmdb_run_settle(struct lmdb_store *s, struct store_op *op);
/* The same, but what is not here or is damaged is passed over. */
int lmdb_settle_known(struct lmdb_store *s, struct store_settle *e);
/* A unit's mail goes, damaged or not; it may be missing. */
int lmdb_remove_unit(struct lmdb_store *s, struct unit_id id);
int lmdb_run_hold(struct lmdb_store *s, struct store_op *op);
int lmdb_run_due(struct lmdb_store *s, struct store_op *op);

/* --- store_lmdb_cluster.c --- */
int lmdb_run_cluster(struct lmdb_store *s, struct store_op *op);

/* --- store_lmdb_rows.c --- */
int lmdb_put_rows(struct lmdb_store *s, const struct store_row *rows, unsigned count);
/* Does the operation under way write a row of this unit? */
bool lmdb_has_new_row(const struct lmdb_store *s, struct unit_id id);
enum err lmdb_read_row(struct store *s, enum store_row_table table, struct slice key,
    char *out, size_t out_size, size_t *len_out);
enum err lmdb_scan_rows(struct store *s, enum store_row_table table,
    void (*row)(const struct store_row *row, void *ctx), void *ctx,
    uint64_t *damaged_out);
/* A row of TABLE_NODE put together again; `out` takes STORE_ROW_VALUE_MAX. */
enum err lmdb_join_row(struct lmdb_store *s, MDB_txn *txn, struct slice key,
    struct slice head, char *out, size_t *len_out) MUST_CHECK;

/* --- store_lmdb_quar.c --- */
/* `row` is the row's value as it is on disk. It stays there, too. */
int lmdb_copy_aside(struct lmdb_store *s, enum table t, struct slice key,
    struct slice row, struct slice reason);
/* It goes from there. */
int lmdb_put_aside(struct lmdb_store *s, enum table t, struct slice key, struct slice row,
    struct slice reason);
/* A unit's mail, whole or not; it may be missing. Its row in TABLE_UNIT stays. */
int lmdb_aside_unit(struct lmdb_store *s, struct unit_id id, struct slice reason);
int lmdb_run_quar(struct lmdb_store *s, struct store_op *op);
/* The first unit at or behind `from` that has something put aside. */
enum err lmdb_next_quar(
    struct store *s, const struct unit_id *after, struct unit_id *out);
enum err lmdb_read_quar(struct store *s, struct unit_id id,
    void (*unit)(const struct store_quarantined *q, void *ctx), void *ctx);

/* --- store_lmdb_read.c --- */
enum err lmdb_read_begin(struct lmdb_store *s, struct reader **out) MUST_CHECK;
void lmdb_read_end(struct lmdb_store *s, struct reader *r);
/* One row, its sum checked and cut off: ERR_OK, ERR_STORE_NOT_FOUND, ERR_STORE_DAMAGED,
 * or ERR_IO. Borrowed until the transaction writes or ends. */
enum err lmdb_get(struct lmdb_store *s, MDB_txn *txn, enum table t, struct slice key,
    struct slice *out) MUST_CHECK;
/* The same in the writer's transaction. */
static inline enum err lmdb_find(
    struct lmdb_store *s, enum table t, struct slice key, struct slice *out)
{
    return lmdb_get(s, s->txn, t, key, out);
}
enum err lmdb_read_unit(struct store *s, struct unit_id id, struct unit_record **out);
enum err lmdb_read_rows(struct store *s, struct msg_id id, uint32_t first,
    void (*row)(struct slice bytes, void *ctx), void *ctx);
enum err lmdb_body_info(
    struct store *s, struct msg_id id, uint64_t *size_out, uint32_t *crc_out);
enum err lmdb_next_body(struct store *s, const struct msg_id *after, struct msg_id *out);
unsigned lmdb_list_ids(struct store *s, const struct unit_id *after, struct unit_id *out,
    unsigned max, enum err *result);
enum err lmdb_read_meta(
    struct store *s, const char *name, char *out, size_t out_size, size_t *len_out);
/* "v/NAME" */
#define LMDB_META_NAME_MAX 64u
struct slice lmdb_meta_key(const char *name, char buf[LMDB_META_NAME_MAX + 4]);

/* --- store_lmdb_scan.c --- */
enum err lmdb_scan(struct store *s, void (*unit)(const struct scan_unit *u, void *ctx),
    void (*progress)(uint64_t done, uint64_t total, void *ctx), void *ctx,
    struct scan_result *out);

/* --- store_lmdb_repair.c: each in transactions of its own; how many rows were put aside
 * or written anew, at least 1 --- */
uint64_t lmdb_repair_unit(struct lmdb_store *s, struct unit_id id);
uint64_t lmdb_repair_body(struct lmdb_store *s, struct msg_id id);
/* Marks bodies whose message never came for deletion, in the running transaction. */
uint64_t lmdb_sweep_parts(struct lmdb_store *s);

#endif
