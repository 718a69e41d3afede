/* SPDX-License-Identifier: Apache-2.0 */
/* The doors of what a cluster adds: its rows, what was put aside, and what an operation
 * of it must look like. */
#include "base/alloc.h"
#include "queue/store_internal.h"

/* --- what an operation takes, and must be --- */

static uint64_t copy_bytes(const struct unit_record *u, uint32_t row)
{
    uint64_t done = (uint64_t)row * BODY_ROW_BYTES;
    uint64_t body =
        u->message->body && u->message->size > done ? u->message->size - done : 0;
    return body + ROW_OVERHEAD_BYTES * (1u + u->rcpt_count);
}

uint64_t store_cluster_bytes(const struct store_cluster *c)
{
    uint64_t bytes = 0;
    if (c->message)
        bytes += store_message_bytes(c->message, c->rows_on_disk);
    if (c->copy)
        bytes += copy_bytes(c->copy, c->rows_on_disk);
    if (c->settle)
        bytes += store_dsn_bytes(c->settle);
    for (unsigned i = 0; i < c->row_count; i++)
        bytes += ROW_OVERHEAD_BYTES + c->rows[i].value.len;
    return bytes;
}

void store_check_rows(const struct store_row *rows, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const struct store_row *r = &rows[i];
        bool unit = r->table == STORE_ROW_UNIT;
        INVARIANT(r->key_len > 0 && r->key_len <= STORE_ROW_KEY_MAX);
        INVARIANT(!unit || r->key_len == UNIT_ID_BYTES);
        INVARIANT(!r->value.ptr ||
                  r->value.len <= (unit ? STORE_ROW_UNIT_MAX : STORE_ROW_VALUE_MAX));
    }
}

static void check_copy(const struct unit_record *u)
{
    INVARIANT(u->rcpt_count > 0 && u->rcpt_count <= UNIT_RCPTS_MAX);
    INVARIANT(u->message && u->message->unit_count == 1 &&
              msg_id_eq(u->id.msg, u->message->id) &&
              u->message->units[0].unit == u->id.unit);
    for (unsigned i = 1; i < u->rcpt_count; i++)
        INVARIANT(u->rcpts[i - 1].rcpt.index < u->rcpts[i].rcpt.index);
}

static bool has_row(const struct store_cluster *c, struct unit_id id)
{
    unsigned char key[UNIT_ID_BYTES];
    unit_id_key(id, key);
    for (unsigned i = 0; i < c->row_count; i++)
        if (c->rows[i].table == STORE_ROW_UNIT && c->rows[i].value.ptr &&
            memcmp(c->rows[i].key, key, sizeof(key)) == 0)
            return true;
    return false;
}

void store_check_cluster(const struct store_cluster *c)
{
    INVARIANT(!c->message || !c->copy);
    INVARIANT(!c->copy || has_row(c, c->copy->id));
    if (c->message)
        store_check_message(c->message);
    if (c->copy)
        check_copy(c->copy);
    store_check_rows(c->rows, c->row_count);
}

/* --- rows --- */

struct rows_call {
    enum store_row_table table;
    void (*row)(const struct store_row *row, void *ctx);
    void *ctx;
    uint64_t *damaged_out;
    enum err result;
};

static void run_scan_rows(struct store *s, void *ctx)
{
    struct rows_call *c = ctx;
    c->result = s->backend->scan_rows(s, c->table, c->row, c->ctx, c->damaged_out);
}

enum err store_scan_rows(struct store *s, enum store_row_table table,
    void (*row)(const struct store_row *row, void *ctx), void *ctx, uint64_t *damaged_out)
{
    struct rows_call call = {
        .table = table, .row = row, .ctx = ctx, .damaged_out = damaged_out};
    *damaged_out = 0;
    store_call(s, run_scan_rows, &call);
    return call.result;
}

enum err store_read_row(struct store *s, enum store_row_table table, struct slice key,
    char *out, size_t out_size, size_t *len_out)
{
    *len_out = 0;
    if (key.len == 0 || key.len > STORE_ROW_KEY_MAX)
        return ERR_STORE_NOT_FOUND;
    return s->backend->read_row(s, table, key, out, out_size, len_out);
}

/* --- what was put aside --- */

struct quar_list {
    bool (*unit)(const struct store_quarantined *q, void *ctx);
    void *ctx;
    bool go_on;
};

static void list_one(const struct store_quarantined *q, void *ctx)
{
    struct quar_list *l = ctx;
    l->go_on = l->unit(q, l->ctx);
}

enum err store_list_quar(struct store *s, const struct unit_id *after,
    bool (*unit)(const struct store_quarantined *q, void *ctx), void *ctx)
{
    struct quar_list l = {.unit = unit, .ctx = ctx, .go_on = true};
    struct unit_id id;
    enum err e = s->backend->next_quar(s, after, &id);
    while (e == ERR_OK && l.go_on) {
        e = s->backend->read_quar(s, id, list_one, &l);
        if (e == ERR_OK || e == ERR_STORE_NOT_FOUND) /* released meanwhile */
            e = s->backend->next_quar(s, &id, &id);
    }
    return e == ERR_STORE_NOT_FOUND ? ERR_OK : e;
}

enum err store_read_quar(struct store *s, struct unit_id id,
    void (*unit)(const struct store_quarantined *q, void *ctx), void *ctx)
{
    return s->backend->read_quar(s, id, unit, ctx);
}
