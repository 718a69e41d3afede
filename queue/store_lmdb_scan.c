/* SPDX-License-Identifier: Apache-2.0 */
/* The walk at start. Units, recipients and body references have keys in the same order,
 * so three cursors go side by side once through the tables and every row's sum is
 * checked. What does not fit is repaired in a transaction of its own, and the walk goes
 * on from there. */
#include "queue/store_lmdb.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"

#define CHUNK_UNITS 1024u /* in one read transaction */

enum trouble { TROUBLE_NONE, TROUBLE_UNIT, TROUBLE_BODY };

/* A cursor and the row it is on. */
struct at {
    MDB_cursor *cursor;
    MDB_val key, value;
    int rc;
};

struct walk {
    struct lmdb_store *s;
    void (*unit)(const struct scan_unit *u, void *ctx);
    void (*progress)(uint64_t done, uint64_t total, void *ctx);
    void *ctx;
    struct scan_result *out;
    struct mono told_at;
    uint64_t total, open, held;
    uint16_t in_doubt;                 /* recipients of the unit looked at */
    struct at msg, rcpt, bref, row;    /* row: the cluster's, about units */
    bool clustered;                    /* there are such rows */
    unsigned char next[UNIT_ID_BYTES]; /* the first unit not looked at yet */
    bool in_message;                   /* `id` was begun; its units so far: */
    bool end;
    struct msg_id id;
    uint32_t units;
    uint64_t size;
    enum trouble trouble;
    struct unit_id where;
};

static void step(struct at *a, MDB_cursor_op op)
{
    a->rc = mdb_cursor_get(a->cursor, &a->key, &a->value, op);
}

static int seek(
    struct walk *w, MDB_txn *txn, enum table t, struct at *a, struct slice key)
{
    int rc = mdb_cursor_open(txn, w->s->dbi[t], &a->cursor);
    if (rc)
        return rc;
    a->key = lmdb_val(key);
    step(a, MDB_SET_RANGE);
    return 0;
}

/* The unit that a row of msg or rcpt belongs to. */
static bool unit_of(const struct at *a, struct unit_id *out)
{
    if (a->rc != 0 || a->key.mv_size < UNIT_ID_BYTES)
        return false;
    *out = unit_id_from_key(a->key.mv_data);
    return true;
}

static void found_trouble(struct walk *w, enum trouble what, struct unit_id where)
{
    w->trouble = what;
    w->where = where;
}

/* --- a message: its reference count --- */

static uint32_t quarantined_units(struct lmdb_store *s, MDB_txn *txn, struct msg_id id)
{
    unsigned char prefix[1 + MSG_ID_BYTES] = {TABLE_MSG};
    uint32_t count = 0;
    struct at a = {0};
    memcpy(prefix + 1, id.bytes, MSG_ID_BYTES);
    if (mdb_cursor_open(txn, s->dbi[TABLE_QUAR], &a.cursor) != 0)
        return 0;
    a.key = lmdb_val(slice_make(prefix, sizeof(prefix)));
    step(&a, MDB_SET_RANGE);
    for (; a.rc == 0 && a.key.mv_size >= sizeof(prefix) &&
           memcmp(a.key.mv_data, prefix, sizeof(prefix)) == 0;
         step(&a, MDB_NEXT))
        count++;
    mdb_cursor_close(a.cursor);
    return count;
}

static bool bref_fits(struct walk *w, MDB_txn *txn, struct msg_id id, uint32_t units)
{
    struct slice bytes;
    struct bref b;
    struct slice key = lmdb_slice(w->bref.key);
    if (w->bref.rc != 0 || key.len != MSG_ID_BYTES ||
        memcmp(key.ptr, id.bytes, key.len) != 0)
        return false;
    if (!row_open(key, lmdb_slice(w->bref.value), &bytes) || !bref_unpack(bytes, &b))
        return false;
    if (units > 0 && b.units == units)
        return true;
    uint32_t aside = quarantined_units(w->s, txn, id);
    return b.units == units + aside && b.units > 0;
}

/* References of messages before `id` that have no unit. */
static void pass_lone_brefs(struct walk *w, MDB_txn *txn, const struct msg_id *id)
{
    while (w->bref.rc == 0 && !w->trouble) {
        struct unit_id lone = {{{0}}, 0};
        size_t len =
            w->bref.key.mv_size < MSG_ID_BYTES ? w->bref.key.mv_size : MSG_ID_BYTES;
        memcpy(lone.msg.bytes, w->bref.key.mv_data, len);
        if (id && memcmp(lone.msg.bytes, id->bytes, MSG_ID_BYTES) >= 0)
            return;
        if (bref_fits(w, txn, lone.msg, 0))
            step(&w->bref, MDB_NEXT);
        else
            found_trouble(w, TROUBLE_BODY, lone);
    }
}

static void end_message(struct walk *w, MDB_txn *txn)
{
    if (!w->in_message)
        return;
    pass_lone_brefs(w, txn, &w->id);
    if (w->trouble)
        return;
    if (!bref_fits(w, txn, w->id, w->units)) {
        found_trouble(w, TROUBLE_BODY, (struct unit_id){w->id, 0});
        return;
    }
    step(&w->bref, MDB_NEXT);
    w->out->bytes += w->size;
    w->in_message = false;
}

/* --- a unit --- */

/* The rows of recipients before `id` (NULL: all that are left) have no unit. */
static void pass_lone_rcpts(struct walk *w, const struct unit_id *id)
{
    struct unit_id owner;
    if (unit_of(&w->rcpt, &owner) && (!id || unit_id_cmp(owner, *id) < 0))
        found_trouble(w, TROUBLE_UNIT, owner);
}

static bool rcpts_fit(struct walk *w, struct unit_id id, const struct row_head *head)
{
    uint64_t rcpts = 0, open = 0;
    struct unit_id owner;
    bool ok = true;
    w->in_doubt = 0;
    for (; unit_of(&w->rcpt, &owner) && unit_id_cmp(owner, id) == 0;
         step(&w->rcpt, MDB_NEXT)) {
        struct row_head rcpt = {0};
        struct slice bytes, key = lmdb_slice(w->rcpt.key);
        if (key.len == RCPT_KEY_BYTES && row_open(key, lmdb_slice(w->rcpt.value), &bytes))
            row_head_read(bytes, &rcpt);
        else
            ok = false;
        rcpts++;
        enum rcpt_state state = row_head_rcpt_state(&rcpt);
        open += !rcpt_state_is_final(state);
        if (state == RCPT_IN_DOUBT)
            w->in_doubt++;
    }
    return ok && rcpts == head->field[UNIT_RCPTS] && open == head->field[UNIT_OPEN];
}

/* Written with a row of the cluster beside it that is not there any more: its key was
 * damaged. Whose it is nobody knows, so it must not be taken for our own. */
static bool lost_its_row(struct slice bytes)
{
    struct arena *arena = arena_new(2048);
    const Baton__Disk__Unit *u = unit_row_unpack(arena, bytes);
    bool lost = !u || unit_row_is_clustered(u);
    arena_free(arena);
    return lost;
}

static bool has_row(struct walk *w, struct unit_id id)
{
    unsigned char key[UNIT_ID_BYTES];
    struct slice want = {(const char *)key, sizeof(key)};
    unit_id_key(id, key);
    while (w->row.rc == 0 && slice_cmp(lmdb_slice(w->row.key), want) < 0)
        step(&w->row, MDB_NEXT);
    return w->row.rc == 0 && slice_eq(lmdb_slice(w->row.key), want);
}

static void report_unit(
    struct walk *w, struct unit_id id, const struct row_head *head, bool clustered)
{
    struct scan_unit u = {.id = id,
        .domain = head->bytes,
        .next_due = {(int64_t)head->field[UNIT_NEXT_DUE]},
        .expires = {(int64_t)head->field[UNIT_EXPIRES]},
        .created = {(int64_t)head->field[UNIT_CREATED]},
        .held = head->field[UNIT_HELD] != 0,
        .clustered = clustered,
        .open_rcpts = (uint16_t)head->field[UNIT_OPEN],
        .in_doubt = w->in_doubt,
        .size = head->field[UNIT_SIZE]};
    if (!w->in_message)
        w->units = 0;
    w->in_message = true;
    w->id = id.msg;
    w->size = u.size;
    w->units++;
    w->out->units++;
    w->out->recipients += head->field[UNIT_RCPTS];
    w->open += u.open_rcpts;
    w->held += u.held;
    w->unit(&u, w->ctx);
}

static void walk_unit(struct walk *w, MDB_txn *txn, struct unit_id id)
{
    struct slice bytes, key = lmdb_slice(w->msg.key);
    struct row_head head;
    bool clustered = false;
    if (w->in_message && !msg_id_eq(w->id, id.msg))
        end_message(w, txn);
    if (!w->trouble)
        pass_lone_rcpts(w, &id);
    if (w->trouble)
        return;
    bool ok = key.len == UNIT_ID_BYTES && row_open(key, lmdb_slice(w->msg.value), &bytes);
    if (ok)
        row_head_read(bytes, &head);
    if (ok && w->clustered) {
        clustered = has_row(w, id);
        ok = clustered || !lost_its_row(bytes);
    }
    if (!ok || head.field[UNIT_RCPTS] > UINT16_MAX + 1u || !rcpts_fit(w, id, &head))
        found_trouble(w, TROUBLE_UNIT, id);
    else
        report_unit(w, id, &head, clustered);
}

static void set_next(struct walk *w, struct unit_id done)
{
    unit_id_key(done, w->next);
    for (int i = UNIT_ID_BYTES - 1; i >= 0 && ++w->next[i] == 0; i--)
        ;
}

static void walk_units(struct walk *w, MDB_txn *txn)
{
    struct unit_id id;
    for (unsigned n = 0; n < CHUNK_UNITS && !w->trouble; n++) {
        if (!unit_of(&w->msg, &id)) {
            end_message(w, txn);
            if (!w->trouble)
                pass_lone_rcpts(w, NULL);
            if (!w->trouble)
                pass_lone_brefs(w, txn, NULL);
            w->end = !w->trouble;
            return;
        }
        walk_unit(w, txn, id);
        if (w->trouble)
            return;
        set_next(w, id);
        step(&w->msg, MDB_NEXT);
    }
}

static enum err walk_chunk(struct walk *w)
{
    struct reader *r;
    struct slice next = {(const char *)w->next, UNIT_ID_BYTES};
    struct slice id = w->in_message ? slice_make(w->id.bytes, MSG_ID_BYTES)
                                    : slice_head(next, MSG_ID_BYTES);
    enum err e = lmdb_read_begin(w->s, &r);
    if (e != ERR_OK)
        return e;
    w->trouble = TROUBLE_NONE;
    w->msg.cursor = w->rcpt.cursor = w->bref.cursor = w->row.cursor = NULL;
    if (seek(w, r->txn, TABLE_MSG, &w->msg, next) == 0 &&
        seek(w, r->txn, TABLE_RCPT, &w->rcpt, next) == 0 &&
        seek(w, r->txn, TABLE_BREF, &w->bref, id) == 0 &&
        seek(w, r->txn, TABLE_UNIT, &w->row, next) == 0)
        walk_units(w, r->txn);
    else
        e = ERR_IO;
    if (w->msg.cursor)
        mdb_cursor_close(w->msg.cursor);
    if (w->rcpt.cursor)
        mdb_cursor_close(w->rcpt.cursor);
    if (w->bref.cursor)
        mdb_cursor_close(w->bref.cursor);
    if (w->row.cursor)
        mdb_cursor_close(w->row.cursor);
    lmdb_read_end(w->s, r);
    return e;
}

static void tell_progress(struct walk *w)
{
    struct mono now = mono_now();
    if (!w->progress || mono_diff_ms(now, w->told_at) < 1000)
        return;
    w->told_at = now;
    w->progress(w->out->units, w->total, w->ctx);
}

static void begin_walk(struct walk *w)
{
    MDB_stat stat = {0};
    lmdb_begin(w->s);
    mdb_stat(w->s->txn, w->s->dbi[TABLE_MSG], &stat);
    w->total = stat.ms_entries;
    mdb_stat(w->s->txn, w->s->dbi[TABLE_UNIT], &stat);
    w->clustered = stat.ms_entries > 0;
    w->told_at = mono_now();
    w->out->orphan_bodies_removed = lmdb_sweep_parts(w->s);
    lmdb_commit(w->s);
}

static void ignore_row(const struct store_row *row, void *ctx)
{
    (void)row;
    (void)ctx;
}

/* Before the mail is held against them, rows of the cluster are whole and in order. */
static enum err check_rows(struct walk *w)
{
    uint64_t damaged = 0;
    if (!w->clustered)
        return ERR_OK;
    enum err e = lmdb_scan_rows(&w->s->base, STORE_ROW_UNIT, ignore_row, NULL, &damaged);
    w->out->damaged += damaged;
    return e;
}

static void end_walk(struct walk *w)
{
    struct store_counters *c = &w->s->base.counters;
    atomic_store(&c->units, w->out->units);
    atomic_store(&c->recipients, w->open);
    atomic_store(&c->held, w->held);
    w->out->body_rows = atomic_load(&c->body_rows);
}

enum err lmdb_scan(struct store *base, void (*unit)(const struct scan_unit *u, void *ctx),
    void (*progress)(uint64_t done, uint64_t total, void *ctx), void *ctx,
    struct scan_result *out)
{
    struct walk w = {
        .s = lmdb_of(base), .unit = unit, .progress = progress, .ctx = ctx, .out = out};
    enum trouble last = TROUBLE_NONE;
    struct unit_id last_where = {{{0}}, 0};
    begin_walk(&w);
    enum err e = check_rows(&w);
    while (e == ERR_OK && !w.end) {
        e = walk_chunk(&w);
        if (e != ERR_OK || !w.trouble) {
            tell_progress(&w);
            continue;
        }
        /* What a repair did not mend would bring us back here for ever. */
        if (w.trouble == last && unit_id_cmp(w.where, last_where) == 0)
            return ERR_STORE_DAMAGED;
        last = w.trouble;
        last_where = w.where;
        out->damaged += w.trouble == TROUBLE_UNIT ? lmdb_repair_unit(w.s, w.where)
                                                  : lmdb_repair_body(w.s, w.where.msg);
    }
    if (e == ERR_OK)
        end_walk(&w);
    return e;
}
