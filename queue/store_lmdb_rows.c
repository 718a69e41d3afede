/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of the cluster. A unit's row is one value. A row of the node's may be longer than
 * a page: its value begins with the length of all of it, and what does not fit goes to
 * the table `more` in pieces of a page, because a value that needs a run of pages would
 * have LMDB search for one. */
#include "queue/store_lmdb.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"

#define LENGTH_BYTES 4u
#define PIECE_BYTES (BODY_ROW_BYTES - LENGTH_BYTES)
#define MORE_KEY_MAX (STORE_ROW_KEY_MAX + 2)

static enum table table_of(enum store_row_table table)
{
    return table == STORE_ROW_NODE ? TABLE_NODE : TABLE_UNIT;
}

static struct slice row_key(const struct store_row *r)
{
    return slice_make(r->key, r->key_len);
}

/* The length in front: no key and piece are another's key and piece. */
static struct slice more_key(struct slice key, unsigned piece, unsigned char *out)
{
    size_t len = key.len < STORE_ROW_KEY_MAX ? key.len : STORE_ROW_KEY_MAX;
    out[0] = (unsigned char)len;
    memcpy(out + 1, key.ptr, len);
    out[1 + len] = (unsigned char)piece;
    return slice_make(out, len + 2);
}

static unsigned pieces_of(uint64_t bytes)
{
    return bytes ? (unsigned)((bytes + PIECE_BYTES - 1) / PIECE_BYTES) : 1;
}

/* --- writing --- */

/* Pieces of the row as it is on disk, from `first` on. */
static int delete_more(struct lmdb_store *s, struct slice key, unsigned first)
{
    unsigned char more[MORE_KEY_MAX];
    unsigned count = pieces_of(STORE_ROW_VALUE_MAX);
    struct slice head;
    enum err e = lmdb_find(s, TABLE_NODE, key, &head);
    int rc = 0;
    if (e == ERR_STORE_NOT_FOUND)
        count = 0;
    else if (e == ERR_OK && head.len >= LENGTH_BYTES)
        count = pieces_of(get_be32((const unsigned char *)head.ptr));
    for (unsigned i = first; i < count && rc == 0; i++)
        rc = lmdb_del(s, TABLE_MORE, more_key(key, i, more));
    return rc;
}

static int put_node_row(struct lmdb_store *s, const struct store_row *r)
{
    unsigned char head[LENGTH_BYTES + PIECE_BYTES], more[MORE_KEY_MAX];
    struct slice first = slice_head(r->value, PIECE_BYTES), key = row_key(r);
    unsigned count = pieces_of(r->value.len);
    int rc = delete_more(s, key, count);
    put_be32(head, (uint32_t)r->value.len);
    if (first.len)
        memcpy(head + LENGTH_BYTES, first.ptr, first.len);
    if (rc == 0)
        rc = lmdb_put_bytes(
            s, TABLE_NODE, key, slice_make(head, LENGTH_BYTES + first.len));
    for (unsigned i = 1; i < count && rc == 0; i++)
        rc = lmdb_put_bytes(s, TABLE_MORE, more_key(key, i, more),
            slice_head(slice_from(r->value, (size_t)i * PIECE_BYTES), PIECE_BYTES));
    return rc;
}

static int put_row(struct lmdb_store *s, const struct store_row *r)
{
    if (r->table == STORE_ROW_UNIT)
        return r->value.ptr ? lmdb_put_bytes(s, TABLE_UNIT, row_key(r), r->value)
                            : lmdb_del(s, TABLE_UNIT, row_key(r));
    if (r->value.ptr)
        return put_node_row(s, r);
    int rc = delete_more(s, row_key(r), 1);
    return rc ? rc : lmdb_del(s, TABLE_NODE, row_key(r));
}

int lmdb_put_rows(struct lmdb_store *s, const struct store_row *rows, unsigned count)
{
    int rc = 0;
    for (unsigned i = 0; i < count && rc == 0; i++)
        rc = put_row(s, &rows[i]);
    return rc;
}

bool lmdb_has_new_row(const struct lmdb_store *s, struct unit_id id)
{
    unsigned char key[UNIT_ID_BYTES];
    unit_id_key(id, key);
    for (unsigned i = 0; i < s->row_count; i++)
        if (s->rows[i].table == STORE_ROW_UNIT && s->rows[i].value.ptr &&
            memcmp(s->rows[i].key, key, sizeof(key)) == 0)
            return true;
    return false;
}

/* --- reading --- */

enum err lmdb_join_row(struct lmdb_store *s, MDB_txn *txn, struct slice key,
    struct slice head, char *out, size_t *len_out)
{
    unsigned char more[MORE_KEY_MAX];
    if (head.len < LENGTH_BYTES)
        return ERR_STORE_DAMAGED;
    size_t len = get_be32((const unsigned char *)head.ptr), have = 0;
    struct slice piece = slice_from(head, LENGTH_BYTES);
    if (len > STORE_ROW_VALUE_MAX)
        return ERR_STORE_DAMAGED;
    for (unsigned i = 1;; i++) {
        if (piece.len != (len - have < PIECE_BYTES ? len - have : PIECE_BYTES))
            return ERR_STORE_DAMAGED;
        memcpy(out + have, piece.ptr, piece.len);
        have += piece.len;
        if (have == len)
            break;
        enum err e = lmdb_get(s, txn, TABLE_MORE, more_key(key, i, more), &piece);
        if (e != ERR_OK)
            return e == ERR_STORE_NOT_FOUND ? ERR_STORE_DAMAGED : e;
    }
    *len_out = len;
    return ERR_OK;
}

static enum err copy_row(struct lmdb_store *s, MDB_txn *txn, enum table t,
    struct slice key, struct slice *out, char *room)
{
    enum err e = lmdb_get(s, txn, t, key, out);
    size_t len = 0;
    if (e != ERR_OK || t == TABLE_UNIT)
        return e;
    e = lmdb_join_row(s, txn, key, *out, room, &len);
    *out = slice_make(room, len);
    return e;
}

enum err lmdb_read_row(struct store *base, enum store_row_table table, struct slice key,
    char *out, size_t out_size, size_t *len_out)
{
    struct lmdb_store *s = lmdb_of(base);
    struct slice value;
    struct reader *r;
    enum err e = lmdb_read_begin(s, &r);
    if (e != ERR_OK)
        return e;
    char *room = mem_alloc(STORE_ROW_VALUE_MAX);
    e = copy_row(s, r->txn, table_of(table), key, &value, room);
    if (e == ERR_OK && value.len > out_size)
        e = ERR_TOO_BIG;
    if (e == ERR_OK) {
        memcpy(out, value.ptr, value.len);
        *len_out = value.len;
    }
    lmdb_read_end(s, r);
    free(room);
    return e;
}

/* --- the walk at start --- */

struct rows_walk {
    struct lmdb_store *s;
    enum store_row_table table;
    void (*row)(const struct store_row *row, void *ctx);
    void *ctx;
    struct store_row at; /* the row looked at last */
    bool begun, end;
    char room[STORE_ROW_VALUE_MAX];
};

static void log_damage(const struct lmdb_store *s, enum store_row_table table,
    const struct store_row *row, const char *what)
{
    char hex[2 * STORE_ROW_KEY_MAX + 1] = "";
    for (unsigned i = 0; i < row->key_len; i++)
        snprintf(hex + 2 * i, 3, "%02x", row->key[i]);
    log_say(LOG_EV_STORE_PROBLEM, "%s: table %s, key %s: the row is damaged; %s", s->dir,
        table == STORE_ROW_NODE ? "node" : "unit", hex, what);
}

static enum err walk_row(struct rows_walk *w, MDB_txn *txn, struct slice key, MDB_val v)
{
    struct slice value;
    w->at.table = w->table;
    w->at.key_len = (uint8_t)(key.len < STORE_ROW_KEY_MAX ? key.len : STORE_ROW_KEY_MAX);
    memcpy(w->at.key, key.ptr, w->at.key_len);
    w->begun = true;
    bool ok = key.len == w->at.key_len && row_open(key, lmdb_slice(v), &value) &&
              (w->table == STORE_ROW_NODE || key.len == UNIT_ID_BYTES);
    if (!ok)
        return ERR_STORE_DAMAGED;
    if (w->table == STORE_ROW_NODE) {
        size_t len = 0;
        enum err e = lmdb_join_row(w->s, txn, key, value, w->room, &len);
        value = slice_make(w->room, len);
        if (e != ERR_OK)
            return e;
    }
    w->at.value = value;
    w->row(&w->at, w->ctx);
    return ERR_OK;
}

/* Behind the row looked at last, to the end or to a damaged one. */
static enum err walk_on(struct rows_walk *w, MDB_txn *txn)
{
    MDB_cursor *c;
    struct slice from = row_key(&w->at);
    MDB_val k = lmdb_val(from), v;
    enum err e = ERR_OK;
    if (mdb_cursor_open(txn, w->s->dbi[table_of(w->table)], &c) != 0)
        return ERR_IO;
    int rc = mdb_cursor_get(c, &k, &v, w->begun ? MDB_SET_RANGE : MDB_FIRST);
    if (rc == 0 && w->begun && slice_eq(lmdb_slice(k), from))
        rc = mdb_cursor_get(c, &k, &v, MDB_NEXT);
    while (rc == 0 && e == ERR_OK) {
        e = walk_row(w, txn, lmdb_slice(k), v);
        if (e == ERR_OK)
            rc = mdb_cursor_get(c, &k, &v, MDB_NEXT);
    }
    mdb_cursor_close(c);
    w->end = e == ERR_OK && rc == MDB_NOTFOUND;
    return e == ERR_OK && !w->end ? ERR_IO : e;
}

/* A damaged key may stand where no search finds it, and hide its neighbours from
 * searches; so it is walked to. */
static int put_row_aside(struct lmdb_store *s, struct slice key, struct slice why)
{
    MDB_cursor *c;
    MDB_val k, v;
    int rc = mdb_cursor_open(s->txn, s->dbi[TABLE_UNIT], &c);
    if (rc)
        return rc;
    rc = mdb_cursor_get(c, &k, &v, MDB_FIRST);
    while (rc == 0 && !slice_eq(slice_head(lmdb_slice(k), STORE_ROW_KEY_MAX), key))
        rc = mdb_cursor_get(c, &k, &v, MDB_NEXT);
    if (rc == 0)
        rc = lmdb_copy_aside(s, TABLE_UNIT, lmdb_slice(k), lmdb_slice(v), why);
    if (rc == 0)
        rc = mdb_cursor_del(c, 0);
    mdb_cursor_close(c);
    return rc;
}

/* Its mail goes with it: what nobody says we hold must not be delivered. */
static void put_unit_aside(struct rows_walk *w)
{
    struct lmdb_store *s = w->s;
    struct slice why = SLICE("the row of the cluster about it is damaged");
    struct slice key = row_key(&w->at);
    lmdb_begin(s);
    int rc = put_row_aside(s, key, why);
    if (rc == 0 && key.len == UNIT_ID_BYTES)
        rc = lmdb_aside_unit(s, unit_id_from_key(w->at.key), why);
    if (rc)
        lmdb_die(s, "repair", rc);
    lmdb_commit(s);
    store_apply_delta(&s->base, &s->delta);
}

enum err lmdb_scan_rows(struct store *base, enum store_row_table table,
    void (*row)(const struct store_row *row, void *ctx), void *ctx, uint64_t *damaged_out)
{
    struct rows_walk *w = mem_zalloc(sizeof(*w));
    struct reader *r;
    enum err e = ERR_OK;
    *w = (struct rows_walk){.s = lmdb_of(base), .table = table, .row = row, .ctx = ctx};
    while (e == ERR_OK && !w->end) {
        e = lmdb_read_begin(w->s, &r);
        if (e != ERR_OK)
            break;
        e = walk_on(w, r->txn);
        lmdb_read_end(w->s, r);
        if (e != ERR_STORE_DAMAGED)
            continue;
        bool unit = table == STORE_ROW_UNIT;
        log_damage(w->s, table, &w->at,
            unit ? "it was put aside with its mail (batonctl quarantine ls)"
                 : "this node cannot start on it: move the queue aside and let the node "
                   "join anew");
        if (unit) {
            put_unit_aside(w);
            ++*damaged_out;
            e = ERR_OK;
        }
    }
    free(w);
    return e;
}
