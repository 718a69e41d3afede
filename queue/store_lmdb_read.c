/* SPDX-License-Identifier: Apache-2.0 */
/* Reads: short transactions, because pages that a reader may still see cannot be used
 * again. */
#include "queue/store_lmdb.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"

static enum err read_failed(struct lmdb_store *s, const char *doing, int rc)
{
    if (rc == MDB_NOTFOUND)
        return ERR_STORE_NOT_FOUND;
    log_say(LOG_EV_STORE_PROBLEM, "%s: %s: %s", s->dir, doing, mdb_strerror(rc));
    return ERR_IO;
}

enum err lmdb_read_begin(struct lmdb_store *s, struct reader **out)
{
    pthread_mutex_lock(&s->readers_lock);
    struct reader *r = s->readers;
    if (r)
        s->readers = r->next;
    pthread_mutex_unlock(&s->readers_lock);
    int rc;
    if (r) {
        rc = mdb_txn_renew(r->txn);
    } else {
        r = mem_zalloc(sizeof(*r));
        rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &r->txn);
    }
    *out = r;
    if (rc == 0)
        return ERR_OK;
    if (r->txn)
        mdb_txn_abort(r->txn);
    free(r);
    return read_failed(s, "cannot read", rc);
}

void lmdb_read_end(struct lmdb_store *s, struct reader *r)
{
    mdb_txn_reset(r->txn);
    pthread_mutex_lock(&s->readers_lock);
    r->next = s->readers;
    s->readers = r;
    pthread_mutex_unlock(&s->readers_lock);
}

enum err lmdb_get(
    struct lmdb_store *s, MDB_txn *txn, enum table t, struct slice key, struct slice *out)
{
    MDB_val k = lmdb_val(key), v;
    int rc = mdb_get(txn, s->dbi[t], &k, &v);
    if (rc)
        return read_failed(s, "read", rc);
    return row_open(key, lmdb_slice(v), out) ? ERR_OK : ERR_STORE_DAMAGED;
}

/* --- units --- */

static bool add_rcpt(struct unit_record *u, struct slice key, struct slice value)
{
    struct slice bytes;
    if (!row_open(key, value, &bytes))
        return false;
    const unsigned char *at = (const unsigned char *)key.ptr + UNIT_ID_BYTES;
    Baton__Disk__Rcpt *r = rcpt_row_unpack(u->arena, bytes);
    return r && unit_record_add(u, (uint16_t)(at[0] << 8 | at[1]), r);
}

static enum err add_rcpts(
    struct lmdb_store *s, MDB_txn *txn, unsigned count, struct unit_record *u)
{
    unsigned char first[RCPT_KEY_BYTES];
    MDB_cursor *c;
    MDB_val k, v;
    bool ok = true;
    rcpt_key(u->id, 0, first);
    k = lmdb_val(slice_make(first, sizeof(first)));
    int rc = mdb_cursor_open(txn, s->dbi[TABLE_RCPT], &c);
    if (rc)
        return read_failed(s, "read recipients", rc);
    rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE);
    for (unsigned i = 0; i < count && ok; i++) {
        ok = rc == 0 && k.mv_size == RCPT_KEY_BYTES &&
             memcmp(k.mv_data, first, UNIT_ID_BYTES) == 0 &&
             add_rcpt(u, lmdb_slice(k), lmdb_slice(v));
        rc = ok ? mdb_cursor_get(c, &k, &v, MDB_NEXT) : rc;
    }
    mdb_cursor_close(c);
    return ok ? ERR_OK : ERR_STORE_DAMAGED;
}

static enum err read_unit(
    struct lmdb_store *s, MDB_txn *txn, struct unit_id id, struct unit_record **out)
{
    unsigned char key[UNIT_ID_BYTES];
    struct slice bytes;
    unit_id_key(id, key);
    enum err e = lmdb_get(s, txn, TABLE_MSG, slice_make(key, sizeof(key)), &bytes);
    if (e != ERR_OK)
        return e;
    struct arena *arena = arena_new(2048);
    Baton__Disk__Unit *pb = unit_row_unpack(arena, bytes);
    if (!pb || pb->rcpt_count > UINT16_MAX + 1u) {
        arena_free(arena);
        return ERR_STORE_DAMAGED;
    }
    *out = unit_record_make(id, pb, pb->rcpt_count);
    e = add_rcpts(s, txn, pb->rcpt_count, *out);
    arena_free(arena);
    if (e != ERR_OK) {
        unit_record_free(*out);
        *out = NULL;
    }
    return e;
}

enum err lmdb_read_unit(struct store *base, struct unit_id id, struct unit_record **out)
{
    struct lmdb_store *s = lmdb_of(base);
    struct reader *r;
    enum err e = lmdb_read_begin(s, &r);
    if (e != ERR_OK)
        return e;
    e = read_unit(s, r->txn, id, out);
    lmdb_read_end(s, r);
    return e;
}

static unsigned collect_ids(MDB_cursor *c, const struct unit_id *after,
    struct unit_id *out, unsigned max, int *rc)
{
    unsigned char from[UNIT_ID_BYTES] = {0};
    unsigned n = 0;
    MDB_val k, v;
    if (after)
        unit_id_key(*after, from);
    k = lmdb_val(slice_make(from, sizeof(from)));
    *rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE);
    if (*rc == 0 && after && k.mv_size == sizeof(from) &&
        memcmp(k.mv_data, from, sizeof(from)) == 0)
        *rc = mdb_cursor_get(c, &k, &v, MDB_NEXT);
    while (*rc == 0 && n < max) {
        if (k.mv_size == UNIT_ID_BYTES)
            out[n++] = unit_id_from_key(k.mv_data);
        *rc = mdb_cursor_get(c, &k, &v, MDB_NEXT);
    }
    return n;
}

unsigned lmdb_list_ids(struct store *base, const struct unit_id *after,
    struct unit_id *out, unsigned max, enum err *result)
{
    struct lmdb_store *s = lmdb_of(base);
    struct reader *r;
    MDB_cursor *c;
    unsigned n = 0;
    *result = lmdb_read_begin(s, &r);
    if (*result != ERR_OK)
        return 0;
    int rc = mdb_cursor_open(r->txn, s->dbi[TABLE_MSG], &c);
    if (rc == 0) {
        n = collect_ids(c, after, out, max, &rc);
        mdb_cursor_close(c);
    }
    lmdb_read_end(s, r);
    if (rc && rc != MDB_NOTFOUND)
        *result = read_failed(s, "list", rc);
    return n;
}

/* --- bodies --- */

static enum err get_bref(
    struct lmdb_store *s, MDB_txn *txn, struct msg_id id, struct bref *out)
{
    struct slice bytes;
    enum err e = lmdb_get(s, txn, TABLE_BREF, slice_make(id.bytes, MSG_ID_BYTES), &bytes);
    return e == ERR_OK && !bref_unpack(bytes, out) ? ERR_STORE_DAMAGED : e;
}

static enum err get_rows(struct lmdb_store *s, MDB_txn *txn, struct msg_id id,
    uint32_t first, void (*row)(struct slice bytes, void *ctx), void *ctx)
{
    unsigned char key[BODY_KEY_BYTES];
    struct slice bytes;
    struct bref b;
    enum err e = get_bref(s, txn, id, &b);
    for (uint32_t r = first; e == ERR_OK && r < b.rows && r - first < STORE_READ_ROWS;
         r++) {
        body_key(id, r, key);
        e = lmdb_get(s, txn, TABLE_BODY, slice_make(key, sizeof(key)), &bytes);
        uint64_t left = b.size - (uint64_t)r * BODY_ROW_BYTES;
        if (e == ERR_STORE_NOT_FOUND ||
            (e == ERR_OK && bytes.len != (left < BODY_ROW_BYTES ? left : BODY_ROW_BYTES)))
            e = ERR_STORE_DAMAGED;
        if (e == ERR_OK)
            row(bytes, ctx);
    }
    return e;
}

enum err lmdb_read_rows(struct store *base, struct msg_id id, uint32_t first,
    void (*row)(struct slice bytes, void *ctx), void *ctx)
{
    struct lmdb_store *s = lmdb_of(base);
    struct reader *r;
    enum err e = lmdb_read_begin(s, &r);
    if (e != ERR_OK)
        return e;
    e = get_rows(s, r->txn, id, first, row, ctx);
    lmdb_read_end(s, r);
    return e;
}

enum err lmdb_body_info(
    struct store *base, struct msg_id id, uint64_t *size_out, uint32_t *crc_out)
{
    struct lmdb_store *s = lmdb_of(base);
    struct reader *r;
    struct bref b = {0};
    enum err e = lmdb_read_begin(s, &r);
    if (e != ERR_OK)
        return e;
    e = get_bref(s, r->txn, id, &b);
    lmdb_read_end(s, r);
    *size_out = b.size;
    *crc_out = b.crc;
    return e;
}

enum err lmdb_next_body(
    struct store *base, const struct msg_id *after, struct msg_id *out)
{
    struct lmdb_store *s = lmdb_of(base);
    struct slice from = slice_make(after->bytes, MSG_ID_BYTES);
    MDB_val k = lmdb_val(from), v;
    MDB_cursor *c;
    struct reader *r;
    enum err e = lmdb_read_begin(s, &r);
    if (e != ERR_OK)
        return e;
    int rc = mdb_cursor_open(r->txn, s->dbi[TABLE_BREF], &c);
    if (rc == 0) {
        rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE);
        if (rc == 0 && slice_eq(lmdb_slice(k), from))
            rc = mdb_cursor_get(c, &k, &v, MDB_NEXT);
        if (rc == 0 && k.mv_size == MSG_ID_BYTES)
            memcpy(out->bytes, k.mv_data, MSG_ID_BYTES);
        mdb_cursor_close(c);
    }
    lmdb_read_end(s, r);
    return rc ? read_failed(s, "list bodies", rc) : ERR_OK;
}

/* --- named values --- */

struct slice lmdb_meta_key(const char *name, char buf[LMDB_META_NAME_MAX + 4])
{
    struct slice text = slice_head(slice_str(name), LMDB_META_NAME_MAX);
    memcpy(buf, "v/", 2);
    memcpy(buf + 2, text.ptr, text.len);
    return slice_make(buf, text.len + 2);
}

enum err lmdb_read_meta(
    struct store *base, const char *name, char *out, size_t out_size, size_t *len_out)
{
    struct lmdb_store *s = lmdb_of(base);
    char buf[LMDB_META_NAME_MAX + 4];
    struct slice bytes;
    struct reader *r;
    enum err e = lmdb_read_begin(s, &r);
    if (e != ERR_OK)
        return e;
    e = lmdb_get(s, r->txn, TABLE_META, lmdb_meta_key(name, buf), &bytes);
    if (e == ERR_OK && bytes.len > out_size)
        e = ERR_TOO_BIG;
    if (e == ERR_OK) {
        memcpy(out, bytes.ptr, bytes.len);
        *len_out = bytes.len;
    }
    lmdb_read_end(s, r);
    return e;
}
