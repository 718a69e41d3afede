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
    struct wall made_at;     /* when the store was made */
    uint32_t schema;
};

/* Opens or makes. On error writes one line that names the path and the next step to
 * `why` (of `why_size`) and returns NULL. */
struct store *store_open(const struct store_settings *s, char *why, size_t why_size);
/* The same behaviour in memory, its own writer thread too, for tests. */
struct store *store_open_ram(uint64_t quota_bytes);
/* Commits and answers what waits, joins the writer. What is submitted from then on is not
 * looked at, reads go on: so that mailboxes may go before the store does. */
void store_stop(struct store *s);
/* The same if it is not done yet, and marks a clean shutdown. */
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
    bool clustered; /* has a row in STORE_ROW_UNIT: not to be delivered until the cluster
                       says so */
    uint16_t open_rcpts;
    uint16_t in_doubt; /* of those */
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
    STORE_OP_CLUSTER,   /* rows of the cluster and the mail they speak of */
    STORE_OP_QUAR,      /* what was put aside comes back or goes */
};

struct store_op {
    struct mail mail;
    enum store_op_kind kind;
    struct mailbox *reply_to;
    void (*done)(struct store_op *op, void *owner); /* in reply_to's thread */
    enum err result;
    struct store_op *next;    /* the store's */
    struct mono submitted_at; /* the store's */
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
    bool copy;                     /* of another node's mail: may take 80 % */
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

/* --- rows of the cluster: opaque here, in the same transaction as what they speak of ---
 */
enum store_row_table {
    STORE_ROW_NODE, /* the core's own: meta, configuration, voter and member rows, ... */
    STORE_ROW_UNIT, /* a unit held: owner, list, facts. Key: unit_id_key */
};
#define STORE_ROW_KEY_MAX 24
#define STORE_ROW_VALUE_MAX 16384
#define STORE_ROW_UNIT_MAX 2048 /* the value of a row of STORE_ROW_UNIT */
struct store_row {
    enum store_row_table table;
    uint8_t key_len; /* 1 or more */
    unsigned char key[STORE_ROW_KEY_MAX];
    struct slice value; /* ptr NULL: delete; one that is not there is fine */
};
/* In this order: `message` (own mail, as STORE_OP_ACCEPT), `copy` (another node's unit),
 * `settle` (as STORE_OP_SETTLE, but a unit or recipient that is not here, or is damaged,
 * is passed over: facts of other nodes), `remove` (the mail of units, whatever state it
 * is in: recipients and the share of the body; not there is fine), `aside` (the same, but
 * the mail goes to the quarantine), `rows`. At most one of `message` and `copy`.
 *
 * A copy comes with its row, and brings a body in memory (message->body), or has its
 * first rows on disk (STORE_OP_BODY_ROWS under the message's id, rows_on_disk), or shares
 * the one that came with another unit of its message. A unit that is here already gets
 * the copy's head; final states stay as in STORE_OP_SETTLE, and the body stays. At most
 * UNIT_RCPTS_MAX recipients, their indices ascending.
 *
 * All of it or nothing. ERR_STORE_FULL: with `may_fail` and no room (a copy may take up
 * to 80 % of the quota, a message 70 %); without `may_fail` the reserve is used, and the
 * answer comes only when the map itself is full. ERR_STORE_EXISTS: of a message as in
 * STORE_OP_ACCEPT; of a copy: there is another body under its id (this is logged), or the
 * one of a deleted message is still being swept (try again). ERR_STORE_NOT_FOUND: a copy
 * without a body. ERR_STORE_DAMAGED: a body that does not have the size and sum that its
 * envelope says, or other rows on disk than were said. */
struct store_cluster {
    struct store_op op; /* STORE_OP_CLUSTER */
    bool may_fail;
    struct message *message;
    const struct unit_record *copy;
    uint32_t rows_on_disk;       /* of message or copy */
    struct store_settle *settle; /* its `op` is not used */
    const struct unit_id *remove;
    unsigned remove_count;
    const struct unit_id *aside;
    unsigned aside_count;
    struct slice aside_reason; /* cut to 500 bytes */
    const struct store_row *rows;
    unsigned row_count;
};

/* What the operator does with mail that was put aside. RELEASE: it is a live unit again,
 * due at once, without recipients that are damaged (those stay). ERR_STORE_NOT_FOUND:
 * nothing of the kind. ERR_STORE_EXISTS: a live unit has the same id. ERR_STORE_DAMAGED:
 * too little of it is whole, or its body is gone. DROP: all rows put aside of the unit go
 * for good. `rows` are written when it succeeds, in the same transaction. */
struct store_quar {
    struct store_op op; /* STORE_OP_QUAR */
    struct unit_id unit;
    enum { STORE_QUAR_RELEASE, STORE_QUAR_DROP } verb;
    const struct store_row *rows;
    unsigned row_count;
};

/* Any thread. Never blocks, never fails here: a refusal comes as op->result. A submitter
 * bounds what it has under way itself. */
void store_submit(struct store *s, struct store_op *op);

/* May new mail of so many bytes come in now? Cheap, any thread: STORE_FULL above 70 % of
 * the quota or when the disk would not grow. Asked at MAIL (declared SIZE) and at the
 * dot. */
enum err store_admit(const struct store *s, uint64_t bytes) MUST_CHECK;
/* The same for a copy of another node's mail: 80 %. */
enum err store_admit_copy(const struct store *s, uint64_t bytes) MUST_CHECK;
/* Since when the oldest operation without an answer waits, in ms; 0: none. Any thread. */
int64_t store_commit_age_ms(const struct store *s);

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
/* Every row of the table, in key order, on the writer's thread while the caller waits.
 * Before the first operation. A damaged row of STORE_ROW_NODE is an error
 * (ERR_STORE_DAMAGED, and a log line names table and key): the node must not start on
 * half a memory. A damaged row of STORE_ROW_UNIT is put aside with its mail and counted
 * in `damaged_out`. Read STORE_ROW_NODE before store_scan, STORE_ROW_UNIT behind it: the
 * scan puts damaged rows and mail aside together (and counts them itself), so that what
 * is read behind it fits. */
enum err store_scan_rows(struct store *s, enum store_row_table table,
    void (*row)(const struct store_row *row, void *ctx), void *ctx,
    uint64_t *damaged_out) MUST_CHECK;
/* One row; any thread. ERR_TOO_BIG: more than `out_size`. */
enum err store_read_row(struct store *s, enum store_row_table table, struct slice key,
    char *out, size_t out_size, size_t *len_out) MUST_CHECK;

/* --- what was put aside: damaged rows with the rest of their unit, and mail that the
 * cluster does not trust --- */
struct store_quarantined {
    struct unit_id id;
    struct slice reason; /* borrowed for the call, as all of it */
    struct wall at;
    unsigned rows;                  /* put aside of this unit */
    unsigned damaged;               /* of these: their sum is wrong */
    const struct unit_record *unit; /* what can be read; NULL: its row is not among them,
                                       or is damaged */
    bool releasable; /* has a recipient that could be delivered, and no live unit has
                        this id */
};
/* In id order behind `after` (NULL: from the first) until `unit` returns false. A short
 * read transaction per unit. */
enum err store_list_quar(struct store *s, const struct unit_id *after,
    bool (*unit)(const struct store_quarantined *q, void *ctx), void *ctx) MUST_CHECK;
/* One of them; ERR_STORE_NOT_FOUND. Its body is read with store_read_body. */
enum err store_read_quar(struct store *s, struct unit_id id,
    void (*unit)(const struct store_quarantined *q, void *ctx), void *ctx) MUST_CHECK;

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
    uint64_t rows; /* of STORE_ROW_UNIT */
    bool intake_open, copies_open;
    bool disk_full; /* the file system refused to give more */
};
void store_stats(const struct store *s, struct store_stats *out);

#endif
