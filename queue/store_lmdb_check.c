/* SPDX-License-Identifier: Apache-2.0 */
/* The table of legal states (README.md), as a walk over all rows: for tests. */
#include "queue/store_lmdb.h"

#include <stdlib.h>

#include "base/alloc.h"

struct check {
    struct lmdb_store *s;
    MDB_txn *txn;
    struct store_check *out;
};

static enum err has(struct check *c, enum table t, struct slice key, struct slice *bytes)
{
    return lmdb_get(c->s, c->txn, t, key, bytes);
}

static uint32_t count(struct check *c, enum table t, struct slice prefix)
{
    MDB_cursor *cursor;
    MDB_val k = lmdb_val(prefix), v;
    uint32_t n = 0;
    if (mdb_cursor_open(c->txn, c->s->dbi[t], &cursor) != 0)
        return 0;
    int rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    for (; rc == 0 && k.mv_size >= prefix.len &&
           memcmp(k.mv_data, prefix.ptr, prefix.len) == 0;
         rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT))
        n++;
    mdb_cursor_close(cursor);
    return n;
}

static bool check_unit(struct check *c, struct slice key, struct slice bytes)
{
    struct row_head head;
    struct slice bref, row;
    c->out->units++;
    row_head_read(bytes, &head);
    struct arena *arena = arena_new(2048);
    const Baton__Disk__Unit *u = unit_row_unpack(arena, bytes);
    bool lost = !u || (unit_row_is_clustered(u) &&
                          has(c, TABLE_UNIT, key, &row) == ERR_STORE_NOT_FOUND);
    arena_free(arena);
    return !lost && key.len == UNIT_ID_BYTES &&
           count(c, TABLE_RCPT, key) == head.field[UNIT_RCPTS] &&
           has(c, TABLE_BREF, slice_head(key, MSG_ID_BYTES), &bref) == ERR_OK;
}

static bool check_rcpt(struct check *c, struct slice key, struct slice bytes)
{
    struct slice unit;
    (void)bytes;
    c->out->rcpts++;
    return key.len == RCPT_KEY_BYTES &&
           has(c, TABLE_MSG, slice_head(key, UNIT_ID_BYTES), &unit) == ERR_OK;
}

static bool check_bref(struct check *c, struct slice key, struct slice bytes)
{
    unsigned char prefix[1 + MSG_ID_BYTES] = {TABLE_MSG};
    struct slice other;
    struct bref b;
    c->out->bodies++;
    if (key.len != MSG_ID_BYTES || !bref_unpack(bytes, &b))
        return false;
    memcpy(prefix + 1, key.ptr, key.len);
    uint32_t units = count(c, TABLE_MSG, key) +
                     count(c, TABLE_QUAR, slice_make(prefix, sizeof(prefix)));
    return b.units == units && count(c, TABLE_BODY, key) == b.rows &&
           has(c, TABLE_PART, key, &other) == ERR_STORE_NOT_FOUND &&
           has(c, TABLE_GONE, key, &other) == ERR_STORE_NOT_FOUND;
}

static bool check_body(struct check *c, struct slice key, struct slice bytes)
{
    struct slice id = slice_head(key, MSG_ID_BYTES), other;
    (void)bytes;
    c->out->body_rows++;
    return key.len == BODY_KEY_BYTES && (has(c, TABLE_BREF, id, &other) == ERR_OK ||
                                            has(c, TABLE_PART, id, &other) == ERR_OK ||
                                            has(c, TABLE_GONE, id, &other) == ERR_OK);
}

static bool check_part(struct check *c, struct slice key, struct slice bytes)
{
    struct part p;
    c->out->parts++;
    return part_unpack(bytes, &p) && count(c, TABLE_BODY, key) == p.rows;
}

static bool check_gone(struct check *c, struct slice key, struct slice bytes)
{
    c->out->gone++;
    return key.len == MSG_ID_BYTES && bytes.len == 0;
}

static bool check_quar(struct check *c, struct slice key, struct slice bytes)
{
    (void)bytes;
    c->out->quarantined++;
    return key.len > 1;
}

static bool check_unit_row(struct check *c, struct slice key, struct slice bytes)
{
    c->out->unit_rows++;
    return key.len == UNIT_ID_BYTES && bytes.len <= STORE_ROW_UNIT_MAX;
}

static bool check_node_row(struct check *c, struct slice key, struct slice bytes)
{
    char *room = mem_alloc(STORE_ROW_VALUE_MAX);
    size_t len;
    c->out->node_rows++;
    bool ok = key.len > 0 && key.len <= STORE_ROW_KEY_MAX &&
              lmdb_join_row(c->s, c->txn, key, bytes, room, &len) == ERR_OK;
    free(room);
    return ok;
}

/* A piece whose row is there, and long enough to need it. */
static bool check_more(struct check *c, struct slice key, struct slice bytes)
{
    struct slice head;
    c->out->more++;
    if (key.len < 3 || key.len != 2u + (unsigned char)key.ptr[0] || bytes.len == 0)
        return false;
    size_t before = (unsigned char)key.ptr[key.len - 1] * (size_t)(BODY_ROW_BYTES - 4);
    key = slice_head(slice_from(key, 1), key.len - 2);
    return before > 0 && has(c, TABLE_NODE, key, &head) == ERR_OK && head.len >= 4 &&
           before < get_be32((const unsigned char *)head.ptr);
}

static void check_table(struct check *c, enum table t,
    bool (*row)(struct check *c, struct slice key, struct slice bytes))
{
    MDB_cursor *cursor;
    MDB_val k, v;
    if (mdb_cursor_open(c->txn, c->s->dbi[t], &cursor) != 0) {
        c->out->problems++;
        return;
    }
    for (int rc = mdb_cursor_get(cursor, &k, &v, MDB_FIRST); rc == 0;
         rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
        struct slice bytes;
        if (!row_open(lmdb_slice(k), lmdb_slice(v), &bytes) ||
            !row(c, lmdb_slice(k), bytes))
            c->out->problems++;
    }
    mdb_cursor_close(cursor);
}

void store_lmdb_check(struct store *base, struct store_check *out)
{
    struct reader *r;
    struct check c = {.s = lmdb_of(base), .out = out};
    *out = (struct store_check){0};
    if (lmdb_read_begin(c.s, &r) != ERR_OK) {
        out->problems++;
        return;
    }
    c.txn = r->txn;
    check_table(&c, TABLE_MSG, check_unit);
    check_table(&c, TABLE_RCPT, check_rcpt);
    check_table(&c, TABLE_BREF, check_bref);
    check_table(&c, TABLE_BODY, check_body);
    check_table(&c, TABLE_PART, check_part);
    check_table(&c, TABLE_GONE, check_gone);
    check_table(&c, TABLE_QUAR, check_quar);
    check_table(&c, TABLE_UNIT, check_unit_row);
    check_table(&c, TABLE_NODE, check_node_row);
    check_table(&c, TABLE_MORE, check_more);
    lmdb_read_end(c.s, r);
}
