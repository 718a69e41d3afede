/* SPDX-License-Identifier: Apache-2.0 */
/* What was put aside: rows as they were, under their table and key, with the reason. The
 * share of the body stays, so that the mail can come back. */
#include "queue/store_lmdb.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"

#define QUAR_KEY_MAX (1 + RCPT_KEY_BYTES)
#define REASON_MAX 500u

/* Tables of which rows are put aside, a unit's own first. */
static const enum table kept[] = {TABLE_MSG, TABLE_RCPT, TABLE_UNIT};
#define KEPT (sizeof(kept) / sizeof(kept[0]))

static struct slice quar_key(
    enum table t, struct slice key, unsigned char out[QUAR_KEY_MAX])
{
    key = slice_head(key, RCPT_KEY_BYTES);
    out[0] = (unsigned char)t;
    memcpy(out + 1, key.ptr, key.len);
    return slice_make(out, key.len + 1);
}

static struct slice unit_prefix(
    enum table t, struct unit_id id, unsigned char out[QUAR_KEY_MAX])
{
    out[0] = (unsigned char)t;
    unit_id_key(id, out + 1);
    return slice_make(out, 1 + UNIT_ID_BYTES);
}

static bool has_prefix(MDB_val key, struct slice prefix)
{
    return key.mv_size >= prefix.len && memcmp(key.mv_data, prefix.ptr, prefix.len) == 0;
}

/* The first row of `t` at or behind `from`. */
static int seek_row(
    struct lmdb_store *s, MDB_txn *txn, enum table t, MDB_val *key, MDB_val *value)
{
    MDB_cursor *c;
    int rc = mdb_cursor_open(txn, s->dbi[t], &c);
    if (rc)
        return rc;
    rc = mdb_cursor_get(c, key, value, MDB_SET_RANGE);
    mdb_cursor_close(c);
    return rc;
}

/* --- aside --- */

int lmdb_copy_aside(struct lmdb_store *s, enum table t, struct slice key,
    struct slice row, struct slice reason)
{
    unsigned char raw[QUAR_KEY_MAX];
    Baton__Disk__Quarantined q = BATON__DISK__QUARANTINED__INIT;
    struct arena *arena = arena_new(4096);
    MDB_val bytes = lmdb_val(arena_dup(arena, row));
    MDB_val why = lmdb_val(slice_head(reason, REASON_MAX));
    q.row = (ProtobufCBinaryData){bytes.mv_size, bytes.mv_data};
    q.reason = (ProtobufCBinaryData){why.mv_size, why.mv_data};
    q.at_ms = s->author.now.ms;
    int rc = lmdb_put_pb(s, TABLE_QUAR, quar_key(t, key, raw), &q.base);
    arena_free(arena);
    return rc;
}

int lmdb_put_aside(struct lmdb_store *s, enum table t, struct slice key, struct slice row,
    struct slice reason)
{
    unsigned char raw[RCPT_KEY_BYTES];
    size_t len = key.len < sizeof(raw) ? key.len : sizeof(raw);
    memcpy(raw, key.ptr, len); /* it may be in the page that is about to change */
    int rc = lmdb_copy_aside(s, t, slice_make(raw, len), row, reason);
    return rc ? rc : lmdb_del(s, t, slice_make(raw, len));
}

static int aside_rcpts(struct lmdb_store *s, struct unit_id id, struct slice reason)
{
    unsigned char raw[UNIT_ID_BYTES];
    struct slice prefix = {(const char *)raw, sizeof(raw)};
    int rc = 0;
    unit_id_key(id, raw);
    while (rc == 0) {
        MDB_val k = lmdb_val(prefix), v;
        rc = seek_row(s, s->txn, TABLE_RCPT, &k, &v);
        if (rc == 0 && !has_prefix(k, prefix))
            rc = MDB_NOTFOUND;
        if (rc == 0)
            rc = lmdb_put_aside(s, TABLE_RCPT, lmdb_slice(k), lmdb_slice(v), reason);
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int drop_rows(struct lmdb_store *s, struct unit_id id, unsigned *dropped_out);

static bool is_aside(struct lmdb_store *s, struct unit_id id)
{
    unsigned char raw[QUAR_KEY_MAX];
    struct slice bytes;
    return lmdb_find(s, TABLE_QUAR, unit_prefix(TABLE_MSG, id, raw), &bytes) !=
           ERR_STORE_NOT_FOUND;
}

int lmdb_aside_unit(struct lmdb_store *s, struct unit_id id, struct slice reason)
{
    unsigned char raw[UNIT_ID_BYTES];
    struct slice key = {(const char *)raw, sizeof(raw)}, bytes;
    struct row_head head = {0};
    unsigned dropped;
    unit_id_key(id, raw);
    MDB_val k = lmdb_val(key), v;
    int rc = mdb_get(s->txn, s->dbi[TABLE_MSG], &k, &v);
    if (rc)
        return rc == MDB_NOTFOUND ? 0 : rc;
    if (row_open(key, lmdb_slice(v), &bytes))
        row_head_read(bytes, &head);
    s->delta.units--;
    s->delta.recipients -= (int64_t)head.field[UNIT_OPEN];
    s->delta.held -= head.field[UNIT_HELD] != 0;
    /* The same unit was put aside before and came again: the newer one stays. */
    if (is_aside(s, id))
        rc = drop_rows(s, id, &dropped);
    k = lmdb_val(key);
    if (rc == 0)
        rc = mdb_get(s->txn, s->dbi[TABLE_MSG], &k, &v);
    if (rc == 0)
        rc = lmdb_put_aside(s, TABLE_MSG, key, lmdb_slice(v), reason);
    return rc ? rc : aside_rcpts(s, id, reason);
}

/* --- reading --- */

static bool first_behind(struct lmdb_store *s, MDB_txn *txn, enum table t,
    const struct unit_id *after, struct unit_id *out)
{
    unsigned char raw[QUAR_KEY_MAX] = {(unsigned char)t};
    if (after) {
        unit_id_key(*after, raw + 1);
        for (int i = UNIT_ID_BYTES; i > 0 && ++raw[i] == 0; i--)
            if (i == 1)
                return false;
    }
    MDB_val k = lmdb_val(slice_make(raw, 1 + UNIT_ID_BYTES)), v;
    /* A key too short for a unit is no unit's. */
    if (seek_row(s, txn, TABLE_QUAR, &k, &v) != 0 || k.mv_size < 1 + UNIT_ID_BYTES)
        return false;
    const unsigned char *found = k.mv_data;
    if (found[0] != t)
        return false;
    *out = unit_id_from_key(found + 1);
    return true;
}

enum err lmdb_next_quar(
    struct store *base, const struct unit_id *after, struct unit_id *out)
{
    struct lmdb_store *s = lmdb_of(base);
    struct reader *r;
    struct unit_id best = {{{0}}, 0}, id;
    bool found = false;
    enum err e = lmdb_read_begin(s, &r);
    if (e != ERR_OK)
        return e;
    for (unsigned i = 0; i < KEPT; i++)
        if (first_behind(s, r->txn, kept[i], after, &id) &&
            (!found || unit_id_cmp(id, best) < 0)) {
            best = id;
            found = true;
        }
    lmdb_read_end(s, r);
    if (found)
        *out = best;
    return found ? ERR_OK : ERR_STORE_NOT_FOUND;
}

/* A unit as it lies aside. Everything is put into `arena`. */
struct aside {
    struct arena *arena;
    unsigned rows, damaged, rcpts;
    struct slice reason;
    struct wall at;
    Baton__Disk__Unit *unit; /* NULL: not there, or damaged */
    struct aside_rcpt {
        struct aside_rcpt *next;
        uint16_t index;
        Baton__Disk__Rcpt *pb;
    } * first, **end;
    unsigned open;
};

static void add_rcpt(struct aside *a, struct slice key, struct slice bytes)
{
    Baton__Disk__Rcpt *pb = rcpt_row_unpack(a->arena, bytes);
    if (!pb || pb->state > RCPT_SUPPRESSED || pb->notify > UINT8_MAX) {
        a->damaged++;
        return;
    }
    struct aside_rcpt *r = arena_alloc(a->arena, sizeof(*r));
    const unsigned char *at = (const unsigned char *)key.ptr + UNIT_ID_BYTES;
    *r = (struct aside_rcpt){.index = (uint16_t)(at[0] << 8 | at[1]), .pb = pb};
    *a->end = r;
    a->end = &r->next;
    a->rcpts++;
    a->open += pb->state <= RCPT_IN_DOUBT;
}

static void add_unit(struct aside *a, struct slice bytes)
{
    a->unit = unit_row_unpack(a->arena, bytes);
    a->damaged += !a->unit;
}

static void add_row(struct aside *a, enum table t, struct slice key, struct slice value)
{
    struct slice bytes, row;
    a->rows++;
    Baton__Disk__Quarantined *q = NULL;
    if (row_open(key, value, &bytes))
        q = quar_row_unpack(a->arena, bytes);
    if (!q) {
        a->damaged++;
        return;
    }
    if (a->rows == 1) {
        a->reason = slice_make(q->reason.data, q->reason.len);
        a->at.ms = q->at_ms;
    }
    key = slice_from(key, 1);
    row = slice_make(q->row.data, q->row.len);
    if (!q->row.data || !row_open(key, row, &bytes))
        a->damaged++;
    else if (t == TABLE_MSG && key.len == UNIT_ID_BYTES)
        add_unit(a, bytes);
    else if (t == TABLE_RCPT && key.len == RCPT_KEY_BYTES)
        add_rcpt(a, key, bytes);
}

static int read_table(
    struct lmdb_store *s, MDB_txn *txn, enum table t, struct unit_id id, struct aside *a)
{
    unsigned char raw[QUAR_KEY_MAX];
    struct slice prefix = unit_prefix(t, id, raw);
    MDB_cursor *c;
    MDB_val k = lmdb_val(prefix), v;
    int rc = mdb_cursor_open(txn, s->dbi[TABLE_QUAR], &c);
    if (rc)
        return rc;
    rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE);
    for (; rc == 0 && has_prefix(k, prefix); rc = mdb_cursor_get(c, &k, &v, MDB_NEXT))
        add_row(a, t, lmdb_slice(k), lmdb_slice(v));
    mdb_cursor_close(c);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* Free a->arena in any case. */
static enum err read_aside(
    struct lmdb_store *s, MDB_txn *txn, struct unit_id id, struct aside *a)
{
    *a = (struct aside){.arena = arena_new(8192), .reason = SLICE("")};
    a->end = &a->first;
    for (unsigned i = 0; i < KEPT; i++)
        if (read_table(s, txn, kept[i], id, a) != 0)
            return ERR_IO;
    return a->rows ? ERR_OK : ERR_STORE_NOT_FOUND;
}

static struct unit_record *aside_record(struct unit_id id, const struct aside *a)
{
    if (!a->unit)
        return NULL;
    struct unit_record *u = unit_record_make(id, a->unit, a->rcpts ? a->rcpts : 1);
    for (const struct aside_rcpt *r = a->first; r; r = r->next)
        INVARIANT(unit_record_add(u, r->index, r->pb));
    return u;
}

static enum err may_release(
    struct lmdb_store *s, MDB_txn *txn, struct unit_id id, const struct aside *a)
{
    unsigned char raw[UNIT_ID_BYTES];
    struct slice key = {(const char *)raw, sizeof(raw)}, bytes;
    struct bref b;
    unit_id_key(id, raw);
    if (lmdb_get(s, txn, TABLE_MSG, key, &bytes) != ERR_STORE_NOT_FOUND)
        return ERR_STORE_EXISTS;
    if (!a->unit || a->open == 0)
        return ERR_STORE_DAMAGED;
    key = slice_head(key, MSG_ID_BYTES);
    if (lmdb_get(s, txn, TABLE_BREF, key, &bytes) != ERR_OK || !bref_unpack(bytes, &b) ||
        b.size != a->unit->size || b.crc != a->unit->body_crc)
        return ERR_STORE_DAMAGED;
    return ERR_OK;
}

enum err lmdb_read_quar(struct store *base, struct unit_id id,
    void (*unit)(const struct store_quarantined *q, void *ctx), void *ctx)
{
    struct lmdb_store *s = lmdb_of(base);
    struct reader *r;
    struct aside a;
    bool releasable = false;
    enum err e = lmdb_read_begin(s, &r);
    if (e != ERR_OK)
        return e;
    e = read_aside(s, r->txn, id, &a);
    if (e == ERR_OK)
        releasable = may_release(s, r->txn, id, &a) == ERR_OK;
    lmdb_read_end(s, r);
    if (e == ERR_OK) {
        struct unit_record *u = aside_record(id, &a);
        struct store_quarantined q = {.id = id,
            .reason = a.reason,
            .at = a.at,
            .rows = a.rows,
            .damaged = a.damaged,
            .unit = u,
            .releasable = releasable};
        unit(&q, ctx);
        unit_record_free(u);
    }
    arena_free(a.arena);
    return e;
}

/* --- release, drop --- */

static int delete_prefix(
    struct lmdb_store *s, enum table t, struct unit_id id, unsigned *deleted)
{
    unsigned char raw[QUAR_KEY_MAX], at[QUAR_KEY_MAX];
    struct slice prefix = unit_prefix(t, id, raw);
    int rc = 0;
    while (rc == 0) {
        MDB_val k = lmdb_val(prefix), v;
        rc = seek_row(s, s->txn, TABLE_QUAR, &k, &v);
        if (rc == 0 && (!has_prefix(k, prefix) || k.mv_size > sizeof(at)))
            rc = MDB_NOTFOUND;
        if (rc)
            break;
        memcpy(at, k.mv_data, k.mv_size);
        rc = lmdb_del(s, TABLE_QUAR, slice_make(at, k.mv_size));
        ++*deleted;
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int drop_rows(struct lmdb_store *s, struct unit_id id, unsigned *dropped_out)
{
    unsigned units = 0, others = 0;
    int rc = delete_prefix(s, TABLE_MSG, id, &units);
    if (rc == 0)
        rc = delete_prefix(s, TABLE_RCPT, id, &others);
    if (rc == 0)
        rc = delete_prefix(s, TABLE_UNIT, id, &others);
    *dropped_out = units + others;
    return rc || units == 0 ? rc : lmdb_release_body(s, id.msg);
}

static int release_rcpts(struct lmdb_store *s, struct unit_id id, struct aside *a)
{
    unsigned char key[RCPT_KEY_BYTES], raw[QUAR_KEY_MAX];
    int rc = 0;
    for (struct aside_rcpt *r = a->first; r && rc == 0; r = r->next) {
        struct slice k = {(const char *)key, sizeof(key)};
        rcpt_key(id, r->index, key);
        if (r->pb->state <= RCPT_IN_DOUBT)
            r->pb->next_due_ms = s->author.now.ms;
        r->pb->changed_ms = s->author.now.ms;
        rc = lmdb_put_pb(s, TABLE_RCPT, k, &r->pb->base);
        if (rc == 0)
            rc = lmdb_del(s, TABLE_QUAR, quar_key(TABLE_RCPT, k, raw));
    }
    return rc;
}

/* With a row of the cluster beside it, or without one. */
static void set_rights(struct lmdb_store *s, struct unit_id id, Baton__Disk__Unit *u)
{
    u->n_holders = 0;
    u->term = lmdb_has_new_row(s, id) ? 0 : 1;
    u->owner_node = u->term ? s->author.node_id : 0;
    u->owner_epoch = u->mine_epoch = u->term ? s->author.epoch : 0;
    u->state = BATON__DISK__UNIT_STATE__UNIT_LIVE;
    u->decision = BATON__DISK__DECISION__DECISION_COMMIT;
}

static int release_unit(struct lmdb_store *s, struct unit_id id, struct aside *a)
{
    unsigned char key[UNIT_ID_BYTES];
    unsigned deleted = 0;
    unit_id_key(id, key);
    set_rights(s, id, a->unit);
    a->unit->rcpt_count = a->rcpts;
    a->unit->open_rcpts = a->open;
    a->unit->next_due_ms = a->unit->changed_ms = s->author.now.ms;
    s->delta.units++;
    s->delta.recipients += a->open;
    s->delta.held += a->unit->held;
    int rc = lmdb_put_pb(s, TABLE_MSG, slice_make(key, sizeof(key)), &a->unit->base);
    if (rc == 0)
        rc = release_rcpts(s, id, a);
    if (rc == 0)
        rc = delete_prefix(s, TABLE_MSG, id, &deleted);
    return rc ? rc : delete_prefix(s, TABLE_UNIT, id, &deleted);
}

static int run_release(struct lmdb_store *s, struct store_quar *q)
{
    struct aside a;
    int rc = 0;
    q->op.result = read_aside(s, s->txn, q->unit, &a);
    if (q->op.result == ERR_OK)
        q->op.result = may_release(s, s->txn, q->unit, &a);
    if (q->op.result == ERR_OK)
        rc = release_unit(s, q->unit, &a);
    arena_free(a.arena);
    return rc;
}

static int run_drop(struct lmdb_store *s, struct store_quar *q)
{
    unsigned dropped;
    int rc = drop_rows(s, q->unit, &dropped);
    q->op.result = dropped ? ERR_OK : ERR_STORE_NOT_FOUND;
    return rc;
}

int lmdb_run_quar(struct lmdb_store *s, struct store_op *op)
{
    struct store_quar *q = CONTAINER_OF(op, struct store_quar, op);
    s->rows = q->rows;
    s->row_count = q->row_count;
    int rc = q->verb == STORE_QUAR_RELEASE ? run_release(s, q) : run_drop(s, q);
    s->row_count = 0;
    if (rc == 0 && op->result == ERR_OK)
        rc = lmdb_put_rows(s, q->rows, q->row_count);
    return rc;
}
