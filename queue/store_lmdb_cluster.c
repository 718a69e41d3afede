/* SPDX-License-Identifier: Apache-2.0 */
/* What the cluster writes: its rows and the mail they speak of, in one transaction. All
 * refusals come before the first write. */
#include "queue/store_lmdb.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"

/* --- copies --- */

static void log_other_body(
    const struct lmdb_store *s, const struct unit_record *u, const struct bref *b)
{
    char text[UNIT_ID_TEXT_MAX];
    unit_id_format(u->id, text);
    log_say(LOG_EV_STORE_PROBLEM,
        "%s: %s: a copy came with another body (%llu bytes, sum %08x) than the one that "
        "is here (%llu bytes, sum %08x); it was refused",
        s->dir, text, (unsigned long long)u->message->size, u->message->body_crc,
        (unsigned long long)b->size, b->crc);
}

static enum err may_bring_body(
    struct lmdb_store *s, const struct message *m, uint32_t rows_on_disk)
{
    uint32_t rows = (uint32_t)((m->size + BODY_ROW_BYTES - 1) / BODY_ROW_BYTES);
    struct slice raw;
    struct part part;
    if (m->body && (body_size(m->body) != m->size || body_crc(m->body) != m->body_crc))
        return ERR_STORE_DAMAGED;
    if (!m->body && rows > 0 && rows_on_disk < rows)
        return ERR_STORE_NOT_FOUND;
    enum err e = lmdb_may_take_body(s, m, rows_on_disk);
    if (e != ERR_OK || rows_on_disk > 0)
        return e;
    /* Rows that came before and are written again now: none may be left over. */
    e = lmdb_find(s, TABLE_PART, slice_make(m->id.bytes, MSG_ID_BYTES), &raw);
    if (e == ERR_STORE_NOT_FOUND)
        return ERR_OK;
    return e == ERR_OK && part_unpack(raw, &part) && part.rows <= rows
               ? ERR_OK
               : ERR_STORE_DAMAGED;
}

/* `shared_out`: the body is here already. */
static enum err may_copy(
    struct lmdb_store *s, const struct store_cluster *c, struct bref *shared_out)
{
    const struct message *m = c->copy->message;
    struct slice raw;
    enum err e = lmdb_find(s, TABLE_BREF, slice_make(m->id.bytes, MSG_ID_BYTES), &raw);
    *shared_out = (struct bref){0};
    if (e == ERR_STORE_NOT_FOUND)
        return may_bring_body(s, m, c->rows_on_disk);
    if (e != ERR_OK || !bref_unpack(raw, shared_out))
        return ERR_STORE_DAMAGED;
    if (shared_out->size == m->size && shared_out->crc == m->body_crc)
        return ERR_OK;
    log_other_body(s, c->copy, shared_out);
    return ERR_STORE_EXISTS;
}

/* The recipients on disk before the copy came. */
struct before {
    bool found;    /* the unit is here */
    uint64_t open; /* recipients */
    bool held;
    uint64_t final;     /* bit i: the copy's i-th recipient has a final state here ... */
    uint64_t delivered; /* ... and this one */
};

static void note_before(const struct unit_record *u, uint16_t index,
    enum rcpt_state state, struct before *b, bool *ours)
{
    b->open += !rcpt_state_is_final(state);
    *ours = false;
    for (uint16_t i = 0; i < u->rcpt_count; i++) {
        if (u->rcpts[i].rcpt.index != index)
            continue;
        *ours = true;
        b->final |= (uint64_t)rcpt_state_is_final(state) << i;
        b->delivered |= (uint64_t)(state == RCPT_DELIVERED) << i;
    }
}

/* Looks at what is here; recipients that the copy does not know go. */
static int clear_before(
    struct lmdb_store *s, const struct unit_record *u, struct before *b)
{
    unsigned char key[RCPT_KEY_BYTES];
    int rc = 0;
    for (uint32_t from = 0; from <= UINT16_MAX && rc == 0; from++) {
        MDB_cursor *c;
        MDB_val v, k;
        struct slice bytes;
        struct row_head head = {0};
        bool ours;
        rcpt_key(u->id, (uint16_t)from, key);
        k = lmdb_val(slice_make(key, sizeof(key)));
        rc = mdb_cursor_open(s->txn, s->dbi[TABLE_RCPT], &c);
        if (rc)
            return rc;
        rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE);
        mdb_cursor_close(c);
        if (rc || k.mv_size != sizeof(key) || memcmp(k.mv_data, key, UNIT_ID_BYTES) != 0)
            break;
        memcpy(key, k.mv_data, sizeof(key));
        from = (uint32_t)(key[UNIT_ID_BYTES] << 8 | key[UNIT_ID_BYTES + 1]);
        if (row_open(lmdb_slice(k), lmdb_slice(v), &bytes))
            row_head_read(bytes, &head);
        note_before(u, (uint16_t)from, row_head_rcpt_state(&head), b, &ours);
        if (!ours)
            rc = lmdb_del(s, TABLE_RCPT, slice_make(key, sizeof(key)));
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int look_before(
    struct lmdb_store *s, const struct unit_record *u, struct before *b)
{
    unsigned char key[UNIT_ID_BYTES];
    struct row_head head = {0};
    struct slice bytes;
    *b = (struct before){0};
    unit_id_key(u->id, key);
    enum err e = lmdb_find(s, TABLE_MSG, slice_make(key, sizeof(key)), &bytes);
    if (e == ERR_STORE_NOT_FOUND)
        return 0;
    if (e == ERR_OK)
        row_head_read(bytes, &head);
    b->found = true;
    b->held = head.field[UNIT_HELD] != 0;
    return clear_before(s, u, b);
}

/* Counts those that are open from now on. */
static int put_copy_rcpts(struct lmdb_store *s, const struct unit_record *u,
    const struct before *b, uint32_t *open_out)
{
    unsigned char key[RCPT_KEY_BYTES];
    Baton__Disk__Rcpt row;
    int rc = 0;
    for (uint16_t i = 0; i < u->rcpt_count && rc == 0; i++) {
        enum rcpt_state old = b->delivered >> i & 1 ? RCPT_DELIVERED
                              : b->final >> i & 1   ? RCPT_BOUNCED
                                                    : RCPT_QUEUED;
        if (!rcpt_state_may_change(old, u->rcpts[i].state))
            continue;
        *open_out += !rcpt_state_is_final(u->rcpts[i].state);
        rcpt_row_make(&row, &u->rcpts[i], s->author.now);
        rcpt_key(u->id, u->rcpts[i].rcpt.index, key);
        rc = lmdb_put_pb(s, TABLE_RCPT, slice_make(key, sizeof(key)), &row.base);
    }
    return rc;
}

static int put_head(struct lmdb_store *s, const struct unit_record *u, struct before *b)
{
    unsigned char key[UNIT_ID_BYTES];
    struct unit_row row;
    uint32_t open = 0;
    int rc = put_copy_rcpts(s, u, b, &open);
    s->author.clustered = true;
    unit_row_make_again(&row, u, &s->author);
    row.pb.open_rcpts = open;
    unit_id_key(u->id, key);
    if (rc == 0)
        rc = lmdb_put_pb(s, TABLE_MSG, slice_make(key, sizeof(key)), &row.pb.base);
    s->delta.units += !b->found;
    s->delta.recipients += (int64_t)open - (int64_t)b->open;
    s->delta.held += u->held - b->held;
    return rc;
}

static int put_copy(
    struct lmdb_store *s, const struct store_cluster *c, struct bref *shared)
{
    const struct unit_record *u = c->copy;
    struct before before;
    int rc = look_before(s, u, &before);
    if (rc == 0 && shared->units == 0) {
        rc = lmdb_put_body(s, u->message, c->rows_on_disk, 1);
    } else if (rc == 0 && !before.found) {
        shared->units++;
        rc = lmdb_put_bref(s, u->id.msg, shared);
    }
    return rc ? rc : put_head(s, u, &before);
}

/* --- the operation --- */

static enum err may_run(
    struct lmdb_store *s, const struct store_cluster *c, struct bref *shared_out)
{
    uint64_t bytes = store_cluster_bytes(c);
    if (c->may_fail && !store_has_room(&s->base, bytes, s->bytes, !c->message))
        return ERR_STORE_FULL;
    if (c->message)
        return lmdb_may_accept(s, c->message, c->rows_on_disk);
    return c->copy ? may_copy(s, c, shared_out) : ERR_OK;
}

static int remove_units(struct lmdb_store *s, const struct store_cluster *c)
{
    int rc = 0;
    for (unsigned i = 0; i < c->remove_count && rc == 0; i++)
        rc = lmdb_remove_unit(s, c->remove[i]);
    for (unsigned i = 0; i < c->aside_count && rc == 0; i++)
        rc = lmdb_aside_unit(s, c->aside[i], c->aside_reason);
    return rc;
}

static int write_all(struct lmdb_store *s, struct store_cluster *c, struct bref *shared)
{
    enum err known;
    int rc = 0;
    if (c->message)
        rc = lmdb_accept(s, c->message, c->rows_on_disk, &known);
    if (rc == 0 && c->copy)
        rc = put_copy(s, c, shared);
    if (rc == 0 && c->settle)
        rc = lmdb_settle_known(s, c->settle);
    if (rc == 0)
        rc = remove_units(s, c);
    return rc ? rc : lmdb_put_rows(s, c->rows, c->row_count);
}

int lmdb_run_cluster(struct lmdb_store *s, struct store_op *op)
{
    struct store_cluster *c = CONTAINER_OF(op, struct store_cluster, op);
    struct bref shared;
    op->result = may_run(s, c, &shared);
    if (op->result != ERR_OK)
        return 0;
    if (!c->message) /* lmdb_accept counts its own */
        s->bytes += store_cluster_bytes(c);
    s->rows = c->rows;
    s->row_count = c->row_count;
    int rc = write_all(s, c, &shared);
    s->row_count = 0;
    return rc;
}
