/* SPDX-License-Identifier: Apache-2.0 */
/* Batches of operations as LMDB transactions. In a transaction an operation either
 * refuses before its first write or goes through: LMDB errors alone undo, and they undo
 * all. */
#include "queue/store_lmdb.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"

/* --- rows --- */

static struct slice msg_key(const struct msg_id *id)
{
    return slice_make(id->bytes, MSG_ID_BYTES);
}

/* Room for `len` bytes and their sum. Ids ascend, so most rows go to the end of their
 * table: APPEND packs pages full where an ordinary put would leave them half empty. */
static int reserve(
    struct lmdb_store *s, enum table t, struct slice key, size_t len, unsigned char **out)
{
    MDB_val k = lmdb_val(key), v = {len + ROW_CRC_BYTES, NULL};
    int rc = mdb_put(s->txn, s->dbi[t], &k, &v, MDB_RESERVE | MDB_APPEND);
    if (rc == MDB_KEYEXIST) {
        v.mv_size = len + ROW_CRC_BYTES;
        rc = mdb_put(s->txn, s->dbi[t], &k, &v, MDB_RESERVE);
    }
    *out = v.mv_data;
    return rc;
}

int lmdb_put_bytes(
    struct lmdb_store *s, enum table t, struct slice key, struct slice bytes)
{
    unsigned char *at;
    int rc = reserve(s, t, key, bytes.len, &at);
    if (rc == 0) {
        if (bytes.len)
            memcpy(at, bytes.ptr, bytes.len);
        row_seal(key, at, bytes.len);
    }
    return rc;
}

int lmdb_put_pb(
    struct lmdb_store *s, enum table t, struct slice key, const ProtobufCMessage *pb)
{
    unsigned char *at;
    size_t len = protobuf_c_message_get_packed_size(pb);
    int rc = reserve(s, t, key, len, &at);
    if (rc == 0) {
        protobuf_c_message_pack(pb, at);
        row_seal(key, at, len);
    }
    return rc;
}

int lmdb_del(struct lmdb_store *s, enum table t, struct slice key)
{
    MDB_val k = lmdb_val(key);
    int rc = mdb_del(s->txn, s->dbi[t], &k, NULL);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

int lmdb_put_meta(struct lmdb_store *s)
{
    s->meta_at = mono_now();
    return lmdb_put_pb(s, TABLE_META, SLICE("store"), &s->meta.base);
}

/* --- bodies --- */

static int put_rows(struct lmdb_store *s, struct msg_id id, struct body_row_cursor *at,
    uint32_t first, uint32_t end, uint64_t *bytes_out)
{
    unsigned char key[BODY_KEY_BYTES];
    int rc = 0;
    for (uint32_t r = first; r < end && rc == 0; r++) {
        struct slice row = body_row_next(at);
        INVARIANT(row.len > 0);
        body_key(id, r, key);
        rc = lmdb_put_bytes(s, TABLE_BODY, slice_make(key, sizeof(key)), row);
        *bytes_out += row.len;
    }
    return rc;
}

int lmdb_put_bref(struct lmdb_store *s, struct msg_id id, const struct bref *b)
{
    unsigned char raw[BREF_BYTES];
    bref_pack(b, raw);
    return lmdb_put_bytes(s, TABLE_BREF, msg_key(&id), slice_make(raw, sizeof(raw)));
}

static int put_part(struct lmdb_store *s, struct msg_id id, const struct part *p)
{
    unsigned char raw[PART_BYTES];
    part_pack(p, raw);
    return lmdb_put_bytes(s, TABLE_PART, msg_key(&id), slice_make(raw, sizeof(raw)));
}

static int delete_body(struct lmdb_store *s, struct msg_id id, uint32_t rows)
{
    unsigned char key[BODY_KEY_BYTES];
    int rc = 0;
    if (rows > s->free_pages || rows >= LMDB_LATER_ROWS) {
        s->has_gone = true;
        s->gone_rows += rows; /* too many if the batch runs twice: swept the sooner */
        if (rows > s->free_pages || s->gone_rows >= s->sweep_at)
            s->sweeping = true;
        return lmdb_put_bytes(s, TABLE_GONE, msg_key(&id), slice_make("", 0));
    }
    s->free_pages -= rows;
    for (uint32_t r = 0; r < rows && rc == 0; r++) {
        body_key(id, r, key);
        rc = lmdb_del(s, TABLE_BODY, slice_make(key, sizeof(key)));
    }
    return rc;
}

/* One unit less uses it. A row that is gone or damaged leaves the body where it is: the
 * scan counts again from the units. */
int lmdb_release_body(struct lmdb_store *s, struct msg_id id)
{
    struct slice raw;
    struct bref b;
    if (lmdb_find(s, TABLE_BREF, msg_key(&id), &raw) != ERR_OK || !bref_unpack(raw, &b))
        return 0;
    if (b.units > 1) {
        b.units--;
        return lmdb_put_bref(s, id, &b);
    }
    int rc = lmdb_del(s, TABLE_BREF, msg_key(&id));
    return rc ? rc : delete_body(s, id, b.rows);
}

/* Deletes up to free_pages rows of one body; 0 rows left removes the mark. */
static int sweep_body(struct lmdb_store *s, MDB_cursor *rows, struct msg_id id)
{
    MDB_val k = lmdb_val(msg_key(&id)), v;
    int rc = mdb_cursor_get(rows, &k, &v, MDB_SET_RANGE);
    while (rc == 0 && k.mv_size == BODY_KEY_BYTES &&
           memcmp(k.mv_data, id.bytes, MSG_ID_BYTES) == 0) {
        if (s->free_pages == 0)
            return 0;
        s->free_pages--;
        rc = mdb_cursor_del(rows, 0);
        /* Found anew each time: no trust in where a delete leaves a cursor. */
        k = lmdb_val(msg_key(&id));
        if (rc == 0)
            rc = mdb_cursor_get(rows, &k, &v, MDB_SET_RANGE);
    }
    return rc && rc != MDB_NOTFOUND ? rc : lmdb_del(s, TABLE_GONE, msg_key(&id));
}

/* A body of this id was here and waits to be deleted: now is the time, if it can go whole
 * in this transaction. False: something of it is left. */
static bool make_way(struct lmdb_store *s, struct msg_id id)
{
    struct slice raw;
    MDB_cursor *rows;
    if (!s->has_gone ||
        lmdb_find(s, TABLE_GONE, msg_key(&id), &raw) == ERR_STORE_NOT_FOUND)
        return true;
    if (mdb_cursor_open(s->txn, s->dbi[TABLE_BODY], &rows))
        return false;
    int rc = sweep_body(s, rows, id);
    mdb_cursor_close(rows);
    return rc == 0 && lmdb_find(s, TABLE_GONE, msg_key(&id), &raw) == ERR_STORE_NOT_FOUND;
}

static int first_gone(struct lmdb_store *s, struct msg_id *out)
{
    MDB_cursor *c;
    MDB_val k, v;
    int rc = mdb_cursor_open(s->txn, s->dbi[TABLE_GONE], &c);
    if (rc)
        return rc;
    rc = mdb_cursor_get(c, &k, &v, MDB_FIRST);
    if (rc == 0 && k.mv_size == MSG_ID_BYTES)
        memcpy(out->bytes, k.mv_data, MSG_ID_BYTES);
    mdb_cursor_close(c);
    return rc;
}

int lmdb_sweep(struct lmdb_store *s)
{
    struct msg_id id = {{0}};
    MDB_cursor *rows;
    int rc = mdb_cursor_open(s->txn, s->dbi[TABLE_BODY], &rows);
    if (rc)
        return rc;
    while (rc == 0 && s->free_pages > 0) {
        rc = first_gone(s, &id);
        if (rc == 0)
            rc = sweep_body(s, rows, id);
    }
    mdb_cursor_close(rows);
    if (rc != MDB_NOTFOUND)
        return rc;
    s->sweeping = s->has_gone = false;
    s->gone_rows = 0;
    return 0;
}

/* --- accept --- */

static int put_unit(
    struct lmdb_store *s, const struct message *m, const struct message_unit *u)
{
    unsigned char key[RCPT_KEY_BYTES];
    struct unit_id id = {m->id, u->unit};
    struct unit_row row;
    Baton__Disk__Rcpt rcpt;
    s->author.clustered = lmdb_has_new_row(s, id);
    unit_row_make(&row, m, u, &s->author);
    unit_id_key(id, key);
    int rc = lmdb_put_pb(s, TABLE_MSG, slice_make(key, UNIT_ID_BYTES), &row.pb.base);
    for (uint16_t i = 0; i < u->rcpt_count && rc == 0; i++) {
        rcpt_row_make_new(&rcpt, &u->rcpts[i], m);
        rcpt_key(id, u->rcpts[i].index, key);
        rc = lmdb_put_pb(s, TABLE_RCPT, slice_make(key, sizeof(key)), &rcpt.base);
    }
    s->delta.units++;
    s->delta.recipients += u->rcpt_count;
    return rc;
}

enum err lmdb_may_take_body(
    struct lmdb_store *s, const struct message *m, uint32_t rows_on_disk)
{
    struct slice raw;
    struct part part = {0};
    /* A DSN made a second time while the body of the first is still being deleted. */
    if (!make_way(s, m->id))
        return ERR_STORE_EXISTS;
    if (rows_on_disk == 0)
        return ERR_OK;
    enum err e = lmdb_find(s, TABLE_PART, msg_key(&m->id), &raw);
    if (e != ERR_OK)
        return e;
    uint64_t want = (uint64_t)rows_on_disk * BODY_ROW_BYTES;
    if (!part_unpack(raw, &part) || part.rows != rows_on_disk ||
        part.bytes != (want < m->size ? want : m->size))
        return ERR_STORE_DAMAGED;
    return ERR_OK;
}

enum err lmdb_may_accept(
    struct lmdb_store *s, const struct message *m, uint32_t rows_on_disk)
{
    struct slice raw;
    if (lmdb_find(s, TABLE_BREF, msg_key(&m->id), &raw) != ERR_STORE_NOT_FOUND)
        return ERR_STORE_EXISTS;
    return lmdb_may_take_body(s, m, rows_on_disk);
}

int lmdb_put_body(
    struct lmdb_store *s, const struct message *m, uint32_t rows_on_disk, uint32_t units)
{
    uint32_t rows = (uint32_t)((m->size + BODY_ROW_BYTES - 1) / BODY_ROW_BYTES);
    struct bref bref = {units, rows, m->size, m->body_crc};
    uint64_t bytes = 0;
    struct body_row_cursor at;
    /* Also when no rows are there: what is in that table at a start is swept. */
    int rc = lmdb_del(s, TABLE_PART, msg_key(&m->id));
    if (rc == 0)
        rc = lmdb_put_bref(s, m->id, &bref);
    if (rc || rows <= rows_on_disk)
        return rc;
    body_rows_from(m->body, rows_on_disk, &at);
    return put_rows(s, m->id, &at, rows_on_disk, rows, &bytes);
}

int lmdb_accept(struct lmdb_store *s, const struct message *m, uint32_t rows_on_disk,
    enum err *result)
{
    *result = lmdb_may_accept(s, m, rows_on_disk);
    if (*result != ERR_OK)
        return 0;
    int rc = lmdb_put_body(s, m, rows_on_disk, m->unit_count);
    for (unsigned i = 0; i < m->unit_count && rc == 0; i++)
        rc = put_unit(s, m, &m->units[i]);
    s->bytes += store_message_bytes(m, rows_on_disk);
    return rc;
}

static int run_accept(struct lmdb_store *s, struct store_op *op)
{
    struct store_accept *a = CONTAINER_OF(op, struct store_accept, op);
    uint64_t bytes = store_message_bytes(a->message, a->rows_on_disk);
    if (!store_has_room(&s->base, bytes, s->bytes, false)) {
        op->result = ERR_STORE_FULL;
        return 0;
    }
    return lmdb_accept(s, a->message, a->rows_on_disk, &op->result);
}

static int run_body_rows(struct lmdb_store *s, struct store_op *op)
{
    struct store_body_rows *r = CONTAINER_OF(op, struct store_body_rows, op);
    struct part part = {0};
    struct slice raw;
    uint64_t bytes = (uint64_t)r->row_count * BODY_ROW_BYTES;
    enum err e = lmdb_find(s, TABLE_PART, msg_key(&r->id), &raw);
    if (e == ERR_STORE_DAMAGED || (e == ERR_OK && !part_unpack(raw, &part)))
        op->result = ERR_STORE_DAMAGED;
    else if (lmdb_find(s, TABLE_BREF, msg_key(&r->id), &raw) != ERR_STORE_NOT_FOUND)
        op->result = ERR_STORE_EXISTS;
    else if (!make_way(s, r->id))
        op->result = ERR_STORE_EXISTS; /* a copy that comes again while it goes */
    else if (part.rows != r->first_row || part.bytes % BODY_ROW_BYTES != 0)
        op->result = ERR_STORE_NOT_FOUND; /* rows before these were refused */
    else if (!store_has_room(&s->base, bytes, s->bytes, r->copy))
        op->result = ERR_STORE_FULL;
    if (op->result != ERR_OK)
        return 0;
    s->bytes += bytes;
    part.rows += r->row_count;
    struct body_row_cursor at = r->at; /* a batch may run twice */
    int rc = put_rows(s, r->id, &at, r->first_row, part.rows, &part.bytes);
    return rc ? rc : put_part(s, r->id, &part);
}

static int run_body_drop(struct lmdb_store *s, struct store_op *op)
{
    struct store_body_drop *d = CONTAINER_OF(op, struct store_body_drop, op);
    struct slice raw;
    struct part part;
    op->result = lmdb_find(s, TABLE_PART, msg_key(&d->id), &raw);
    if (op->result != ERR_OK || !part_unpack(raw, &part))
        return 0;
    int rc = lmdb_del(s, TABLE_PART, msg_key(&d->id));
    return rc ? rc : delete_body(s, d->id, part.rows);
}

/* --- the small ones --- */

static int run_meta(struct lmdb_store *s, struct store_op *op)
{
    struct store_meta *m = CONTAINER_OF(op, struct store_meta, op);
    char buf[LMDB_META_NAME_MAX + 4];
    INVARIANT(strlen(m->name) <= LMDB_META_NAME_MAX && m->value.len <= 1024);
    return lmdb_put_bytes(s, TABLE_META, lmdb_meta_key(m->name, buf), m->value);
}

static int run_nothing(struct lmdb_store *s, struct store_op *op)
{
    (void)s;
    (void)op;
    return 0;
}

static int (*const run_op[])(struct lmdb_store *s, struct store_op *op) = {
    [STORE_OP_ACCEPT] = run_accept,
    [STORE_OP_BODY_ROWS] = run_body_rows,
    [STORE_OP_BODY_DROP] = run_body_drop,
    [STORE_OP_SETTLE] = lmdb_run_settle,
    [STORE_OP_HOLD] = lmdb_run_hold,
    [STORE_OP_DUE] = lmdb_run_due,
    [STORE_OP_META] = run_meta,
    [STORE_OP_BARRIER] = run_nothing,
    [STORE_OP_CLUSTER] = lmdb_run_cluster,
    [STORE_OP_QUAR] = lmdb_run_quar,
};

/* --- transactions --- */

static int put_clock(struct lmdb_store *s)
{
    bool vouched = atomic_load(&s->base.clock_accepted_ms) != 0;
    if (!vouched && mono_diff_ms(mono_now(), s->meta_at) < 1000)
        return 0;
    s->meta.last_commit_ms = store_clock_step(&s->base, s->author.now);
    return lmdb_put_meta(s);
}

static int apply(struct lmdb_store *s, struct store_op **ops, unsigned count, bool sweep)
{
    int rc = 0;
    s->free_pages = LMDB_FREE_PAGES_MAX;
    s->bytes = 0;
    s->delta = (struct store_delta){0};
    s->author.now = wall_now();
    for (unsigned i = 0; i < count && rc == 0; i++) {
        ops[i]->result = ERR_OK;
        rc = run_op[ops[i]->kind](s, ops[i]);
    }
    if (rc == 0 && sweep)
        rc = lmdb_sweep(s);
    return rc ? rc : put_clock(s);
}

static int try_batch(
    struct lmdb_store *s, struct store_op **ops, unsigned count, bool sweep)
{
    int rc = mdb_txn_begin(s->env, NULL, 0, &s->txn);
    if (rc)
        return rc;
    rc = apply(s, ops, count, sweep);
    if (rc) {
        mdb_txn_abort(s->txn);
        return rc;
    }
    lmdb_measure(s);
    rc = mdb_txn_commit(s->txn);
    if (rc == 0)
        store_apply_delta(&s->base, &s->delta);
    return rc;
}

/* The map has no page left for all of them: each for itself, so that those that free
 * pages go through and only those that do not fit are refused. */
static void run_one_by_one(struct lmdb_store *s, struct store_op **ops, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        int rc = try_batch(s, &ops[i], 1, false);
        if (rc == MDB_MAP_FULL || rc == MDB_TXN_FULL)
            ops[i]->result = ERR_STORE_FULL;
        else if (rc)
            lmdb_die(s, "commit", rc);
    }
}

void lmdb_run(struct store *base, struct store_op **ops, unsigned count)
{
    struct lmdb_store *s = lmdb_of(base);
    lmdb_allocate(s);
    int rc = try_batch(s, ops, count, s->sweeping);
    s->ran_at = mono_now();
    if (rc != MDB_MAP_FULL && rc != MDB_TXN_FULL) {
        if (rc)
            lmdb_die(s, "commit", rc);
        return;
    }
    log_say(LOG_EV_STORE_PROBLEM, "%s: the map is full, %u operations go one by one",
        s->dir, count);
    /* A sweep that finds no page waits for the next start, or it would be tried for ever.
     */
    if (count == 0)
        s->sweeping = false;
    run_one_by_one(s, ops, count);
}
