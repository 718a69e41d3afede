/* SPDX-License-Identifier: Apache-2.0 */
/* The queue on disk. One writer thread takes all operations that wait, puts them into one
 * LMDB transaction, commits (two device flushes), and answers each; while it syncs the
 * next batch forms. A RAM store behind this same header runs the same tapes in tests.
 *
 * Operations are asynchronous: fill the struct, store_submit, and `done` runs in the
 * thread of `reply_to` with the result. Until then the operation and what it points to
 * belong to the store. Operations of one submitter on one unit take effect in the order
 * submitted. Reads (store_read_*, store_list) are synchronous, short, and may fault pages
 * in: call them on helper threads, never on a loop, except where the caller says why that
 * is fine.
 *
 * A commit error other than a full map ends the process with a clear last line: after a
 * failed fsync nobody knows what is on disk. A full quota refuses STORE_FULL; settling
 * and deleting are always possible. */
#ifndef QUEUE_STORE_H
#define QUEUE_STORE_H

#include "base/err.h"
#include "base/mailbox.h"
#include "queue/message.h"

struct store;

struct store_settings {
    const char *dir; /* made when missing, mode 0700; locked against a second daemon */
    uint64_t quota_bytes; /* preallocated in steps; new mail is refused above 70 % */
    uint64_t map_bytes;   /* 0: four times the quota */
};

/* What the disk says about itself. */
struct store_identity {
    uint32_t node32;     /* lower half of node_id, used in message ids */
    uint64_t node_id;    /* random, made with the store */
    uint32_t epoch;      /* raised and committed before store_open returns */
    bool clean_shutdown; /* of the run before */
    bool created;
    struct wall last_commit; /* latest wall time ever committed: */
    uint32_t schema;
};

/* Opens or makes. On error writes one line that names the path and the next step to
 * `why` (of `why_size`) and returns NULL. */
struct store *store_open(const struct store_settings *s, char *why, size_t why_size);
/* The same behaviour in memory, its own writer thread too, for tests. */
struct store *store_open_ram(uint64_t quota_bytes);
/* Commits what waits, marks a clean shutdown, joins the writer. */
void store_close(struct store *s);
struct store_identity store_identity(const struct store *s);
/* The wall clock as the disk knows it: the time of the last commit, moved on at least
 * every quarter of an hour. A jump of more than a day ahead does not move it (it would
 * make itself the proof of its own rightness) until store_clock_accept. Any thread. */
struct wall store_last_commit(const struct store *s);
/* The operator vouches for `now`; durable with the next commit, which this causes. */
void store_clock_accept(struct store *s, struct wall now);

/* --- scan at start --- */
struct scan_unit {
    struct unit_id id;
    struct slice domain; /* borrowed for the call */
    struct wall next_due, expires, created;
    bool held;
    uint16_t open_rcpts;
    uint64_t size;
};
struct scan_result {
    uint64_t units, recipients, body_rows, bytes, orphan_bodies_removed, damaged;
};
/* Walks every message row (checking its CRC), calls `unit` for each, sweeps orphaned
 * bodies, puts damaged rows aside into the table `quar`. Once, before the first
 * operation. `progress` is called about once a second, may be NULL. Both run on the
 * writer's thread, while the caller waits here. */
enum err store_scan(struct store *s, void (*unit)(const struct scan_unit *u, void *ctx),
    void (*progress)(uint64_t done, uint64_t total, void *ctx), void *ctx,
    struct scan_result *out) MUST_CHECK;

/* --- operations --- */
enum store_op_kind {
    STORE_OP_ACCEPT,    /* a message becomes ours */
    STORE_OP_BODY_ROWS, /* rows of a big body while it arrives */
    STORE_OP_BODY_DROP, /* it will not become a message */
    STORE_OP_SETTLE,    /* outcomes of a unit's recipients, and the DSNs they cause */
    STORE_OP_HOLD,      /* hold or release a unit */
    STORE_OP_DUE,       /* set next_due of a unit (retry now) */
    STORE_OP_META,      /* remember a small named value (resolver anchors' state, ...) */
    STORE_OP_BARRIER,   /* done when all before it is durable */
};

struct store_op {
    struct mail mail;
    enum store_op_kind kind;
    struct mailbox *reply_to;
    void (*done)(struct store_op *op, void *owner); /* in reply_to's thread */
    enum err result;
    struct store_op *next; /* the store's */
};

struct store_accept {
    struct store_op op;
    struct message
        *message; /* borrowed; body in memory, but for its first rows_on_disk */
    uint32_t rows_on_disk;
};
struct store_body_rows {
    struct store_op op;
    struct msg_id id;
    struct body *body; /* borrowed; may grow meanwhile, rows named here must stay */
    uint32_t first_row, row_count; /* first_row: behind the rows written so far */
    struct body_row_cursor at;     /* the store's */
};
struct store_body_drop {
    struct store_op op;
    struct msg_id id;
    uint32_t row_count; /* not looked at: the store knows */
};
/* Writes the recipients given (whole new records, keyed by rcpt.index). `unit_done`: all
 * recipients are final, the unit goes (and its body with the last unit that uses it).
 * Otherwise the unit's next_due is set. `dsns` become messages in the same transaction;
 * one whose id is in the queue already is that same message and is passed over. A final
 * state on disk stays, but for DELIVERED, which beats all. ERR_STORE_NOT_FOUND: the unit
 * or a recipient is not there; nothing was written, no DSN made. */
struct store_settle {
    struct store_op op;
    struct unit_id unit;
    const struct rcpt_record *rcpts;
    uint16_t rcpt_count;
    bool unit_done;
    struct wall next_due;
    struct message **dsns;
    unsigned dsn_count;
};
struct store_hold {
    struct store_op op;
    struct unit_id unit;
    bool hold;
    struct slice reason; /* cut to 500 bytes */
};
/* Also sets it for each open recipient of the unit, so that the unit stays the earliest.
 */
struct store_due {
    struct store_op op;
    struct unit_id unit;
    struct wall next_due;
};
struct store_meta {
    struct store_op op;
    const char *name;   /* at most 64 bytes */
    struct slice value; /* at most 1 KiB */
};

/* Any thread. Never blocks, never fails here: a refusal comes as op->result. A submitter
 * bounds what it has under way itself. */
void store_submit(struct store *s, struct store_op *op);

/* May new mail of so many bytes come in now? Cheap, any thread: STORE_FULL above 70 % of
 * the quota or when the disk would not grow. Asked at MAIL (declared SIZE) and at the
 * dot. */
enum err store_admit(const struct store *s, uint64_t bytes) MUST_CHECK;

/* --- reads --- */
enum err store_read_unit(
    struct store *s, struct unit_id id, struct unit_record **out) MUST_CHECK;
/* Copies up to 16 rows from `row` on; the result's length is 0 behind the end. `out`
 * holds at least 16 * BODY_ROW_BYTES. Checks every row's CRC. */
enum err store_read_body(struct store *s, struct msg_id id, uint32_t row, char *out,
    size_t *len_out) MUST_CHECK;
/* A whole body, for messages that fit the caller's bound; NULL and an error otherwise. */
enum err store_load_body(
    struct store *s, struct msg_id id, uint64_t size_max, struct body **out) MUST_CHECK;
/* Units in id order behind `after` (NULL: from the first); stops when `unit` returns
 * false. A short read transaction per 256 units. */
enum err store_list(struct store *s, const struct unit_id *after,
    bool (*unit)(const struct unit_record *u, void *ctx), void *ctx) MUST_CHECK;
/* Units of one message. */
unsigned store_units_of(
    struct store *s, struct msg_id id, struct unit_id *out, unsigned max);
enum err store_read_meta(struct store *s, const char *name, char *out, size_t out_size,
    size_t *len_out) MUST_CHECK;

struct store_stats {
    uint64_t quota_bytes, used_bytes, allocated_bytes;
    uint64_t units, recipients, held,
        bodies; /* recipients: open ones, known after the scan */
    uint64_t body_rows;
    uint64_t quarantined; /* rows put aside as damaged */
    uint64_t commits, operations;
    uint64_t commit_ns_total, commit_ns_max;
    bool intake_open;
};
void store_stats(const struct store *s, struct store_stats *out);

#endif
