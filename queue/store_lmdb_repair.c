/* SPDX-License-Identifier: Apache-2.0 */
/* What the walk at start does about rows that do not fit.
 * Nothing is thrown away: a damaged row, or one that has lost what it belongs to, goes to
 * the table `quar` as it is, with the reason, and is counted there until the operator
 * looks. */
#include "queue/store_lmdb.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"

static void must(struct lmdb_store *s, int rc)
{
    if (rc)
        lmdb_die(s, "repair", rc);
}

static void set_aside(struct lmdb_store *s, enum table t, struct slice key,
    struct slice value, const char *reason)
{
    must(s, lmdb_put_aside(s, t, key, value, slice_str(reason)));
}

/* --- a unit --- */

struct tally {
    unsigned good, open, aside;
};

static bool is_prefix(MDB_val key, const unsigned char *prefix, size_t len)
{
    return key.mv_size >= len && memcmp(key.mv_data, prefix, len) == 0;
}

/* Looks at each recipient's row; sets aside the damaged ones, or with `reason` all. */
static void sort_rcpts(
    struct lmdb_store *s, struct unit_id id, const char *reason, struct tally *out)
{
    unsigned char key[RCPT_KEY_BYTES];
    MDB_cursor *c;
    for (uint32_t from = 0; from <= UINT16_MAX; from++) {
        struct row_head head;
        struct slice bytes;
        MDB_val k, v;
        rcpt_key(id, (uint16_t)from, key);
        k = lmdb_val(slice_make(key, sizeof(key)));
        must(s, mdb_cursor_open(s->txn, s->dbi[TABLE_RCPT], &c));
        int rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE);
        mdb_cursor_close(c);
        if (rc || !is_prefix(k, key, UNIT_ID_BYTES))
            return;
        bool whole =
            k.mv_size == RCPT_KEY_BYTES && row_open(lmdb_slice(k), lmdb_slice(v), &bytes);
        from = k.mv_size < RCPT_KEY_BYTES
                   ? from
                   : get_be32((const unsigned char *)k.mv_data + RCPT_KEY_BYTES - 4) &
                         0xffff;
        if (whole && !reason) {
            row_head_read(bytes, &head);
            out->good++;
            out->open += !rcpt_state_is_final(row_head_rcpt_state(&head));
            continue;
        }
        out->aside++;
        set_aside(s, TABLE_RCPT, lmdb_slice(k), lmdb_slice(v),
            whole ? reason : "the sum of the row is wrong");
    }
}

static bool set_aside_row(
    struct lmdb_store *s, enum table t, struct slice key, const char *reason)
{
    MDB_val k = lmdb_val(key), v;
    if (mdb_get(s->txn, s->dbi[t], &k, &v) != 0)
        return false;
    set_aside(s, t, key, lmdb_slice(v), reason);
    return true;
}

static void count_again(struct lmdb_store *s, struct slice key, Baton__Disk__Unit *unit,
    const struct tally *tally)
{
    unit->rcpt_count = tally->good;
    unit->open_rcpts = tally->open;
    unit->changed_ms = s->author.now.ms;
    must(s, lmdb_put_pb(s, TABLE_MSG, key, &unit->base));
}

static void log_repair(
    const struct lmdb_store *s, struct unit_id id, const char *what, unsigned aside)
{
    char text[UNIT_ID_TEXT_MAX];
    unit_id_format(id, text);
    log_say(
        LOG_EV_STORE_PROBLEM, "%s: %s: %s; %u rows put aside", s->dir, text, what, aside);
}

/* Half a copy is none: the other holders have it whole, and give it again. */
static const char *unfit_for_cluster(struct lmdb_store *s, struct slice key,
    const Baton__Disk__Unit *unit, const struct tally *tally)
{
    struct slice bytes;
    bool has_row = lmdb_find(s, TABLE_UNIT, key, &bytes) != ERR_STORE_NOT_FOUND;
    if (has_row && (tally->aside || tally->good != unit->rcpt_count))
        return "one of its recipients is damaged, and other nodes hold copies";
    if (!has_row && unit_row_is_clustered(unit))
        return "the row of the cluster about it is missing";
    return NULL;
}

uint64_t lmdb_repair_unit(struct lmdb_store *s, struct unit_id id)
{
    unsigned char raw[UNIT_ID_BYTES];
    struct slice bytes, key = {(const char *)raw, sizeof(raw)};
    struct tally tally = {0};
    struct arena *arena = arena_new(2048);
    const char *what = "recipients were counted again", *unfit = NULL;
    unit_id_key(id, raw);
    lmdb_begin(s);
    enum err e = lmdb_get(s, s->txn, TABLE_MSG, key, &bytes);
    Baton__Disk__Unit *unit = e == ERR_OK ? unit_row_unpack(arena, bytes) : NULL;
    if (unit)
        sort_rcpts(s, id, NULL, &tally);
    if (unit)
        unfit = unfit_for_cluster(s, key, unit, &tally);
    if (unit && tally.open > 0 && !unfit) {
        count_again(s, key, unit, &tally);
    } else {
        what = unfit                      ? unfit
               : unit                     ? "none of its recipients can be delivered"
               : e == ERR_STORE_NOT_FOUND ? "recipients without a unit"
                                          : "the row of the unit is damaged";
        sort_rcpts(s, id, what, &tally);
        tally.aside += set_aside_row(s, TABLE_MSG, key, what);
        tally.aside += set_aside_row(s, TABLE_UNIT, key, what);
    }
    lmdb_commit(s);
    arena_free(arena);
    log_repair(s, id, what, tally.aside);
    return tally.aside ? tally.aside : 1;
}

/* --- a body --- */

/* Counts rows of `t` whose keys begin with `prefix`; the first one's value. */
static uint32_t count_prefix(
    struct lmdb_store *s, enum table t, struct slice prefix, MDB_val *key, MDB_val *value)
{
    MDB_cursor *c;
    MDB_val k = lmdb_val(prefix), v;
    uint32_t count = 0;
    must(s, mdb_cursor_open(s->txn, s->dbi[t], &c));
    int rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE);
    for (; rc == 0 && is_prefix(k, (const unsigned char *)prefix.ptr, prefix.len);
         rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)) {
        if (count++ == 0) {
            *key = k;
            *value = v;
        }
    }
    mdb_cursor_close(c);
    return count;
}

/* The facts are in the units: how many there are, and what the body is. */
static void count_references(struct lmdb_store *s, struct msg_id id, struct bref *out)
{
    unsigned char prefix[1 + MSG_ID_BYTES] = {TABLE_MSG};
    struct slice bytes;
    MDB_val k, v;
    memcpy(prefix + 1, id.bytes, MSG_ID_BYTES);
    uint32_t aside =
        count_prefix(s, TABLE_QUAR, slice_make(prefix, sizeof(prefix)), &k, &v);
    uint32_t units =
        count_prefix(s, TABLE_MSG, slice_make(prefix + 1, MSG_ID_BYTES), &k, &v);
    *out = (struct bref){.units = units + aside};
    if (units == 0 || !row_open(lmdb_slice(k), lmdb_slice(v), &bytes))
        return;
    struct arena *arena = arena_new(2048);
    Baton__Disk__Unit *u = unit_row_unpack(arena, bytes);
    if (u) {
        out->rows = u->rows;
        out->size = u->size;
        out->crc = u->body_crc;
    }
    arena_free(arena);
}

uint64_t lmdb_repair_body(struct lmdb_store *s, struct msg_id id)
{
    unsigned char raw[BREF_BYTES];
    struct slice key = {(const char *)id.bytes, MSG_ID_BYTES}, bytes;
    struct bref now, old = {0};
    lmdb_begin(s);
    count_references(s, id, &now);
    /* Only units that were put aside use it: they cannot tell how long it is. */
    if (now.size == 0 && lmdb_get(s, s->txn, TABLE_BREF, key, &bytes) == ERR_OK &&
        bref_unpack(bytes, &old))
        now = (struct bref){now.units, old.rows, old.size, old.crc};
    if (now.units == 0) {
        must(s, lmdb_del(s, TABLE_BREF, key));
        must(s, lmdb_put_bytes(s, TABLE_GONE, key, slice_make("", 0)));
        s->sweeping = s->has_gone = true;
    } else {
        bref_pack(&now, raw);
        must(s, lmdb_put_bytes(s, TABLE_BREF, key, slice_make(raw, sizeof(raw))));
    }
    lmdb_commit(s);
    log_repair(s, (struct unit_id){id, 0},
        now.units ? "uses of the body were counted again" : "a body that nothing uses",
        0);
    return 1;
}

/* --- bodies that were arriving --- */

uint64_t lmdb_sweep_parts(struct lmdb_store *s)
{
    uint64_t swept = 0;
    MDB_cursor *c;
    MDB_val k, v;
    must(s, mdb_cursor_open(s->txn, s->dbi[TABLE_PART], &c));
    while (mdb_cursor_get(c, &k, &v, MDB_FIRST) == 0) {
        unsigned char id[MSG_ID_BYTES] = {0};
        struct slice key = {(const char *)id, sizeof(id)}, bytes;
        memcpy(id, k.mv_data, k.mv_size < sizeof(id) ? k.mv_size : sizeof(id));
        must(s, mdb_cursor_del(c, 0));
        /* Never the body of a message, whatever this table says. */
        if (lmdb_get(s, s->txn, TABLE_BREF, key, &bytes) != ERR_STORE_NOT_FOUND)
            continue;
        must(s, lmdb_put_bytes(s, TABLE_GONE, key, slice_make("", 0)));
        s->sweeping = s->has_gone = true;
        swept++;
    }
    mdb_cursor_close(c);
    return swept;
}
