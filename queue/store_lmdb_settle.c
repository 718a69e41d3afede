/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of units: outcomes, holding, retrying. Part of the writer's transactions.
 */
#include "queue/store_lmdb.h"

#include <stdlib.h>

#include "base/alloc.h"

static int delete_rcpts(struct lmdb_store *s, struct unit_id id, uint64_t count)
{
    unsigned char key[RCPT_KEY_BYTES];
    MDB_cursor *c;
    MDB_val k, v;
    int rc = 0;
    if (count == 1) { /* the common case needs no cursor */
        rcpt_key(id, 0, key);
        k = lmdb_val(slice_make(key, sizeof(key)));
        rc = mdb_del(s->txn, s->dbi[TABLE_RCPT], &k, NULL);
        if (rc != MDB_NOTFOUND)
            return rc;
    }
    rc = mdb_cursor_open(s->txn, s->dbi[TABLE_RCPT], &c);
    while (rc == 0 && count > 0) {
        rcpt_key(id, 0, key);
        k = lmdb_val(slice_make(key, sizeof(key)));
        rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE);
        if (rc || memcmp(k.mv_data, key, UNIT_ID_BYTES) != 0)
            break;
        rc = mdb_cursor_del(c, 0);
        count--;
    }
    mdb_cursor_close(c);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int finish_unit(
    struct lmdb_store *s, struct unit_id id, const struct row_head *head)
{
    unsigned char key[UNIT_ID_BYTES];
    unit_id_key(id, key);
    s->delta.units--;
    s->delta.recipients -= (int64_t)head->field[UNIT_OPEN];
    s->delta.held -= head->field[UNIT_HELD] != 0;
    if (s->free_pages > 0)
        s->free_pages--; /* leaves of the tables: neighbours share them */
    int rc = lmdb_del(s, TABLE_MSG, slice_make(key, sizeof(key)));
    if (rc == 0)
        rc = delete_rcpts(s, id, head->field[UNIT_RCPTS]);
    return rc ? rc : lmdb_release_body(s, id.msg);
}

int lmdb_remove_unit(struct lmdb_store *s, struct unit_id id)
{
    unsigned char key[UNIT_ID_BYTES];
    struct row_head head = {0};
    struct slice bytes;
    unit_id_key(id, key);
    enum err e = lmdb_find(s, TABLE_MSG, slice_make(key, sizeof(key)), &bytes);
    if (e == ERR_STORE_NOT_FOUND)
        return 0;
    if (e == ERR_OK)
        row_head_read(bytes, &head);
    else
        head.field[UNIT_RCPTS] = UINT64_MAX; /* however many there are */
    return finish_unit(s, id, &head);
}

/* A unit's row is changed by unpacking it and packing it again. */
struct edit {
    struct arena *arena;
    Baton__Disk__Unit *unit;
    unsigned char key[UNIT_ID_BYTES];
};

static enum err edit_begin(struct lmdb_store *s, struct unit_id id, struct edit *e)
{
    struct slice bytes;
    unit_id_key(id, e->key);
    enum err result = lmdb_find(s, TABLE_MSG, slice_make(e->key, sizeof(e->key)), &bytes);
    if (result != ERR_OK)
        return result;
    e->arena = arena_new(2048);
    e->unit = unit_row_unpack(e->arena, bytes);
    if (e->unit)
        return ERR_OK;
    arena_free(e->arena);
    return ERR_STORE_DAMAGED;
}

static int edit_end(struct lmdb_store *s, struct edit *e)
{
    e->unit->changed_ms = s->author.now.ms;
    struct slice key = slice_make(e->key, sizeof(e->key));
    int rc = lmdb_put_pb(s, TABLE_MSG, key, &e->unit->base);
    arena_free(e->arena);
    return rc;
}

/* The state on disk; a damaged row counts as open, and is healed by writing it whole. */
static enum err old_state(
    struct lmdb_store *s, struct unit_id id, uint16_t index, enum rcpt_state *state_out)
{
    unsigned char key[RCPT_KEY_BYTES];
    struct slice bytes;
    struct row_head head = {0};
    rcpt_key(id, index, key);
    enum err e = lmdb_find(s, TABLE_RCPT, slice_make(key, sizeof(key)), &bytes);
    if (e == ERR_OK)
        row_head_read(bytes, &head);
    *state_out = row_head_rcpt_state(&head);
    return e == ERR_STORE_DAMAGED ? ERR_OK : e;
}

static int put_outcome(struct lmdb_store *s, struct unit_id id,
    const struct rcpt_record *r, Baton__Disk__Unit *unit)
{
    unsigned char key[RCPT_KEY_BYTES];
    enum rcpt_state old;
    Baton__Disk__Rcpt row;
    if (old_state(s, id, r->rcpt.index, &old) != ERR_OK ||
        !rcpt_state_may_change(old, r->state))
        return 0;
    if (!rcpt_state_is_final(old) && rcpt_state_is_final(r->state) && unit->open_rcpts) {
        unit->open_rcpts--;
        s->delta.recipients--;
    }
    rcpt_row_make(&row, r, s->author.now);
    rcpt_key(id, r->rcpt.index, key);
    return lmdb_put_pb(s, TABLE_RCPT, slice_make(key, sizeof(key)), &row.base);
}

static enum err missing_rcpt(struct lmdb_store *s, const struct store_settle *e)
{
    enum rcpt_state state;
    enum err result = ERR_OK;
    for (uint16_t i = 0; i < e->rcpt_count && result == ERR_OK; i++)
        result = old_state(s, e->unit, e->rcpts[i].rcpt.index, &state);
    return result;
}

/* A recipient that is not there is passed over. */
static int settle_some(struct lmdb_store *s, struct store_settle *e)
{
    struct edit edit;
    int rc = 0;
    e->op.result = edit_begin(s, e->unit, &edit);
    if (e->op.result != ERR_OK)
        return 0;
    for (uint16_t i = 0; i < e->rcpt_count && rc == 0; i++)
        rc = put_outcome(s, e->unit, &e->rcpts[i], edit.unit);
    edit.unit->next_due_ms = e->next_due.ms;
    int put_rc = edit_end(s, &edit);
    return rc ? rc : put_rc;
}

static int settle_done(struct lmdb_store *s, struct store_settle *e)
{
    unsigned char key[UNIT_ID_BYTES];
    struct row_head head;
    struct slice bytes;
    unit_id_key(e->unit, key);
    e->op.result = lmdb_find(s, TABLE_MSG, slice_make(key, sizeof(key)), &bytes);
    if (e->op.result != ERR_OK)
        return 0;
    row_head_read(bytes, &head);
    return finish_unit(s, e->unit, &head);
}

static int put_dsns(struct lmdb_store *s, const struct store_settle *e)
{
    int rc = 0;
    for (unsigned i = 0; i < e->dsn_count && rc == 0; i++) {
        enum err known; /* made twice it is the same message */
        rc = lmdb_accept(s, e->dsns[i], 0, &known);
    }
    return rc;
}

int lmdb_run_settle(struct lmdb_store *s, struct store_op *op)
{
    struct store_settle *e = CONTAINER_OF(op, struct store_settle, op);
    op->result = e->unit_done ? ERR_OK : missing_rcpt(s, e);
    if (op->result != ERR_OK)
        return 0;
    int rc = e->unit_done ? settle_done(s, e) : settle_some(s, e);
    return rc || op->result != ERR_OK ? rc : put_dsns(s, e);
}

int lmdb_settle_known(struct lmdb_store *s, struct store_settle *e)
{
    e->op.result = ERR_OK;
    int rc = e->unit_done ? lmdb_remove_unit(s, e->unit) : settle_some(s, e);
    return rc ? rc : put_dsns(s, e);
}

/* --- hold, due --- */

int lmdb_run_hold(struct lmdb_store *s, struct store_op *op)
{
    struct store_hold *h = CONTAINER_OF(op, struct store_hold, op);
    struct edit edit;
    op->result = edit_begin(s, h->unit, &edit);
    if (op->result != ERR_OK)
        return 0;
    s->delta.held += h->hold - (edit.unit->held != 0);
    edit.unit->held = h->hold;
    struct slice reason = arena_dup(edit.arena, slice_head(h->reason, h->hold ? 500 : 0));
    MDB_val v = lmdb_val(reason);
    edit.unit->hold_reason = (ProtobufCBinaryData){v.mv_size, v.mv_data};
    return edit_end(s, &edit);
}

/* Each open recipient gets the new time. */
static int set_rcpts_due(
    struct lmdb_store *s, struct edit *edit, struct unit_id id, struct wall due)
{
    unsigned char key[RCPT_KEY_BYTES];
    uint32_t left = edit->unit->rcpt_count;
    int rc = 0;
    for (uint32_t i = 0; i <= UINT16_MAX && left > 0 && rc == 0; i++) {
        struct slice bytes;
        rcpt_key(id, (uint16_t)i, key);
        enum err e = lmdb_find(s, TABLE_RCPT, slice_make(key, sizeof(key)), &bytes);
        if (e == ERR_STORE_NOT_FOUND)
            continue;
        left--;
        Baton__Disk__Rcpt *r = e == ERR_OK ? rcpt_row_unpack(edit->arena, bytes) : NULL;
        if (!r || r->state > RCPT_IN_DOUBT)
            continue;
        r->next_due_ms = due.ms;
        r->changed_ms = s->author.now.ms;
        rc = lmdb_put_pb(s, TABLE_RCPT, slice_make(key, sizeof(key)), &r->base);
    }
    return rc;
}

int lmdb_run_due(struct lmdb_store *s, struct store_op *op)
{
    struct store_due *d = CONTAINER_OF(op, struct store_due, op);
    struct edit edit;
    op->result = edit_begin(s, d->unit, &edit);
    if (op->result != ERR_OK)
        return 0;
    int rc = set_rcpts_due(s, &edit, d->unit, d->next_due);
    edit.unit->next_due_ms = d->next_due.ms;
    int put_rc = edit_end(s, &edit);
    return rc ? rc : put_rc;
}
