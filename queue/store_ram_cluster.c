/* SPDX-License-Identifier: Apache-2.0 */
/* What a cluster adds to the store, in memory: rows, copies, the quarantine. */
#include "queue/store_ram.h"

#include <stdlib.h>

#include "base/alloc.h"

/* --- rows --- */

static int row_cmp(const struct ram_row *r, struct slice key)
{
    return slice_cmp(slice_make(r->key, r->key_len), key);
}

static size_t row_place(const struct ram_rows *t, struct slice key)
{
    size_t low = 0, high = t->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (row_cmp(&t->v[mid], key) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static struct ram_row *find_row(const struct ram_rows *t, struct slice key)
{
    size_t at = row_place(t, key);
    return at < t->count && row_cmp(&t->v[at], key) == 0 ? &t->v[at] : NULL;
}

static void delete_row(struct ram_rows *t, struct ram_row *r)
{
    free(r->bytes);
    t->count--;
    memmove(r, r + 1, (size_t)(t->v + t->count - r) * sizeof(*r));
}

static struct ram_row *insert_row(struct ram_rows *t, struct slice key)
{
    size_t at = row_place(t, key);
    t->v = ram_grow(t->v, t->count, &t->room, sizeof(*t->v));
    memmove(t->v + at + 1, t->v + at, (t->count - at) * sizeof(*t->v));
    t->count++;
    t->v[at] = (struct ram_row){.key_len = (uint8_t)key.len};
    memcpy(t->v[at].key, key.ptr, key.len);
    return &t->v[at];
}

static void put_rows(struct ram_store *s, const struct store_row *rows, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct ram_rows *t = &s->tables[rows[i].table];
        struct slice key = slice_make(rows[i].key, rows[i].key_len);
        struct ram_row *r = find_row(t, key);
        if (!rows[i].value.ptr) {
            if (r)
                delete_row(t, r);
            continue;
        }
        if (!r)
            r = insert_row(t, key);
        r->len = rows[i].value.len;
        r->bytes = mem_realloc(r->bytes, r->len + 1);
        memcpy(r->bytes, rows[i].value.ptr, r->len);
    }
}

bool ram_is_clustered(const struct ram_store *s, struct unit_id id)
{
    unsigned char key[UNIT_ID_BYTES];
    unit_id_key(id, key);
    return find_row(&s->tables[STORE_ROW_UNIT], slice_make(key, sizeof(key))) != NULL;
}

enum err ram_scan_rows(struct store *base, enum store_row_table table,
    void (*row)(const struct store_row *row, void *ctx), void *ctx, uint64_t *damaged_out)
{
    const struct ram_rows *t = &ram_of(base)->tables[table];
    (void)damaged_out;
    for (size_t i = 0; i < t->count; i++) {
        struct store_row r = {.table = table,
            .key_len = t->v[i].key_len,
            .value = {t->v[i].bytes, t->v[i].len}};
        memcpy(r.key, t->v[i].key, r.key_len);
        row(&r, ctx);
    }
    return ERR_OK;
}

enum err ram_read_row(struct store *base, enum store_row_table table, struct slice key,
    char *out, size_t out_size, size_t *len_out)
{
    struct ram_store *s = ram_of(base);
    enum err e = ERR_STORE_NOT_FOUND;
    pthread_mutex_lock(&s->lock);
    const struct ram_row *r = find_row(&s->tables[table], key);
    if (r)
        e = r->len <= out_size ? ERR_OK : ERR_TOO_BIG;
    if (e == ERR_OK) {
        memcpy(out, r->bytes, r->len);
        *len_out = r->len;
    }
    pthread_mutex_unlock(&s->lock);
    return e;
}

/* --- copies --- */

static enum err may_copy(struct ram_store *s, const struct store_cluster *c)
{
    const struct message *m = c->copy->message;
    const struct ram_body *b = ram_find_body(s, m->id);
    uint32_t rows = (uint32_t)((m->size + BODY_ROW_BYTES - 1) / BODY_ROW_BYTES);
    if (b && b->units)
        return b->size == m->size && b->crc == m->body_crc ? ERR_OK : ERR_STORE_EXISTS;
    if (m->body && (body_size(m->body) != m->size || body_crc(m->body) != m->body_crc))
        return ERR_STORE_DAMAGED;
    if (!m->body && rows > 0 && c->rows_on_disk < rows)
        return ERR_STORE_NOT_FOUND;
    if (b && c->rows_on_disk == 0 && body_rows(b->body) > rows)
        return ERR_STORE_DAMAGED;
    return ram_may_take_body(s, m, c->rows_on_disk);
}

/* Final states stay. */
static void keep_final(struct unit_record *u, const struct unit_record *old)
{
    for (uint16_t i = 0; i < u->rcpt_count; i++)
        for (uint16_t k = 0; k < old->rcpt_count; k++)
            if (old->rcpts[k].rcpt.index == u->rcpts[i].rcpt.index &&
                !rcpt_state_may_change(old->rcpts[k].state, u->rcpts[i].state))
                u->rcpts[i] = rcpt_record_copy(u->arena, &old->rcpts[k]);
}

static void put_copy(struct ram_store *s, const struct store_cluster *c)
{
    struct unit_record *u = ram_copy_record(c->copy);
    struct unit_record **place = ram_find_unit(s, u->id);
    struct ram_body *b = ram_find_body(s, u->id.msg);
    if (!b || b->units == 0)
        ram_put_body(s, c->copy->message, c->rows_on_disk, 1);
    else
        b->units += !place;
    if (place) {
        struct unit_record *old = ram_take_unit(s, place);
        keep_final(u, old);
        unit_record_free(old);
    }
    u->body_rows = (uint32_t)((u->message->size + BODY_ROW_BYTES - 1) / BODY_ROW_BYTES);
    u->hold_reason = slice_head(u->hold_reason, 500);
    ram_insert_unit(s, u);
}

/* --- the quarantine --- */

static struct ram_quar *find_quar(struct ram_store *s, struct unit_id id)
{
    for (size_t i = 0; i < s->quar_count; i++)
        if (unit_id_cmp(s->quar[i].unit->id, id) == 0)
            return &s->quar[i];
    return NULL;
}

static void remove_quar(struct ram_store *s, struct ram_quar *q)
{
    s->quar_count--;
    memmove(q, q + 1, (size_t)(s->quar + s->quar_count - q) * sizeof(*q));
}

static void drop_quar(struct ram_store *s, struct ram_quar *q)
{
    struct msg_id id = q->unit->id.msg;
    unit_record_free(q->unit);
    remove_quar(s, q);
    ram_release_body(s, id);
}

static void aside_unit(struct ram_store *s, struct unit_id id, struct slice reason)
{
    struct unit_record **place = ram_find_unit(s, id);
    struct ram_quar *before = find_quar(s, id);
    size_t at = 0;
    if (!place)
        return;
    struct unit_record *u = ram_take_unit(s, place);
    if (before)
        drop_quar(s, before);
    s->quar = ram_grow(s->quar, s->quar_count, &s->quar_room, sizeof(*s->quar));
    while (at < s->quar_count && unit_id_cmp(s->quar[at].unit->id, id) < 0)
        at++;
    memmove(s->quar + at + 1, s->quar + at, (s->quar_count - at) * sizeof(*s->quar));
    s->quar_count++;
    struct ram_quar *q = &s->quar[at];
    *q = (struct ram_quar){.unit = u, .at = wall_now()};
    reason = slice_head(reason, sizeof(q->reason));
    q->reason_len = reason.len;
    if (reason.len)
        memcpy(q->reason, reason.ptr, reason.len);
}

static enum err may_release(struct ram_store *s, const struct unit_record *u)
{
    if (ram_find_unit(s, u->id))
        return ERR_STORE_EXISTS;
    return ram_open_rcpts(u) ? ERR_OK : ERR_STORE_DAMAGED;
}

static void release_quar(struct ram_store *s, struct ram_quar *q)
{
    struct unit_record *u = q->unit;
    remove_quar(s, q);
    u->next_due = wall_now();
    for (uint16_t i = 0; i < u->rcpt_count; i++)
        if (!rcpt_state_is_final(u->rcpts[i].state))
            u->rcpts[i].next_due = u->next_due;
    ram_insert_unit(s, u);
}

enum err ram_run_quar(struct ram_store *s, struct store_op *op)
{
    struct store_quar *v = CONTAINER_OF(op, struct store_quar, op);
    struct ram_quar *q = find_quar(s, v->unit);
    enum err e = q ? ERR_OK : ERR_STORE_NOT_FOUND;
    if (q && v->verb == STORE_QUAR_RELEASE)
        e = may_release(s, q->unit);
    if (e != ERR_OK)
        return e;
    if (v->verb == STORE_QUAR_RELEASE)
        release_quar(s, q);
    else
        drop_quar(s, q);
    put_rows(s, v->rows, v->row_count);
    return ERR_OK;
}

enum err ram_next_quar(
    struct store *base, const struct unit_id *after, struct unit_id *out)
{
    struct ram_store *s = ram_of(base);
    enum err e = ERR_STORE_NOT_FOUND;
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->quar_count && e != ERR_OK; i++) {
        struct unit_id id = s->quar[i].unit->id;
        if (after && unit_id_cmp(id, *after) <= 0)
            continue;
        *out = id;
        e = ERR_OK;
    }
    pthread_mutex_unlock(&s->lock);
    return e;
}

enum err ram_read_quar(struct store *base, struct unit_id id,
    void (*unit)(const struct store_quarantined *q, void *ctx), void *ctx)
{
    struct ram_store *s = ram_of(base);
    struct store_quarantined out;
    struct unit_record *u = NULL;
    char reason[500];
    pthread_mutex_lock(&s->lock);
    const struct ram_quar *q = find_quar(s, id);
    if (q) {
        u = ram_copy_record(q->unit);
        memcpy(reason, q->reason, q->reason_len);
        out = (struct store_quarantined){.id = id,
            .reason = {reason, q->reason_len},
            .at = q->at,
            .rows = 1u + u->rcpt_count,
            .unit = u,
            .releasable = may_release(s, u) == ERR_OK};
    }
    pthread_mutex_unlock(&s->lock);
    if (!u)
        return ERR_STORE_NOT_FOUND;
    unit(&out, ctx);
    unit_record_free(u);
    return ERR_OK;
}

/* --- the operation --- */

static enum err may_run(struct ram_store *s, const struct store_cluster *c)
{
    if (c->may_fail && !store_has_room(&s->base, store_cluster_bytes(c), 0, !c->message))
        return ERR_STORE_FULL;
    return c->copy ? may_copy(s, c) : ERR_OK;
}

enum err ram_run_cluster(struct ram_store *s, struct store_op *op)
{
    struct store_cluster *c = CONTAINER_OF(op, struct store_cluster, op);
    enum err e = may_run(s, c);
    if (e == ERR_OK && c->message)
        e = ram_accept(s, c->message, c->rows_on_disk);
    if (e != ERR_OK)
        return e;
    if (c->copy)
        put_copy(s, c);
    if (c->settle)
        e = ram_settle(s, c->settle, true);
    for (unsigned i = 0; i < c->remove_count; i++) {
        struct unit_record **place = ram_find_unit(s, c->remove[i]);
        if (!place)
            continue;
        unit_record_free(ram_take_unit(s, place));
        ram_release_body(s, c->remove[i].msg);
    }
    for (unsigned i = 0; i < c->aside_count; i++)
        aside_unit(s, c->aside[i], c->aside_reason);
    put_rows(s, c->rows, c->row_count);
    return e;
}

void ram_free_cluster(struct ram_store *s)
{
    for (unsigned t = 0; t < 2; t++) {
        for (size_t i = 0; i < s->tables[t].count; i++)
            free(s->tables[t].v[i].bytes);
        free(s->tables[t].v);
    }
    for (size_t i = 0; i < s->quar_count; i++)
        unit_record_free(s->quar[i].unit);
    free(s->quar);
}
