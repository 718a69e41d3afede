/* SPDX-License-Identifier: Apache-2.0 */
/* The store in memory: sorted arrays of records behind the same doors, for tests. It
 * shares nothing with the LMDB store but the writer thread, so that each checks the
 * other. */
#include "queue/store_ram.h"

#include <stdlib.h>

#include "base/alloc.h"

/* --- records --- */

struct unit_record *ram_copy_record(const struct unit_record *u)
{
    return unit_record_copy(u->message, &u->message->units[0], u);
}

static struct unit_record *new_record(
    const struct message *m, const struct message_unit *unit)
{
    struct rcpt_record *rcpts = mem_zalloc(unit->rcpt_count * sizeof(*rcpts));
    for (uint16_t i = 0; i < unit->rcpt_count; i++) {
        rcpts[i].rcpt = unit->rcpts[i];
        rcpts[i].next_due = m->created;
    }
    struct unit_record u = {.id = {m->id, unit->unit},
        .rcpt_count = unit->rcpt_count,
        .rcpts = rcpts,
        .next_due = m->created,
        .body_rows = (uint32_t)((m->size + BODY_ROW_BYTES - 1) / BODY_ROW_BYTES)};
    struct unit_record *copy = unit_record_copy(m, unit, &u);
    free(rcpts);
    return copy;
}

unsigned ram_open_rcpts(const struct unit_record *u)
{
    unsigned open = 0;
    for (uint16_t i = 0; i < u->rcpt_count; i++)
        open += !rcpt_state_is_final(u->rcpts[i].state);
    return open;
}

/* --- sorted arrays --- */

void *ram_grow(void *array, size_t count, size_t *room, size_t element_bytes)
{
    if (count < *room)
        return array;
    *room = *room ? *room * 2 : 64;
    return mem_realloc(array, *room * element_bytes);
}

static size_t unit_place(const struct ram_store *s, struct unit_id id)
{
    size_t low = 0, high = s->unit_count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (unit_id_cmp(s->units[mid]->id, id) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct unit_record **ram_find_unit(struct ram_store *s, struct unit_id id)
{
    size_t at = unit_place(s, id);
    bool found = at < s->unit_count && unit_id_cmp(s->units[at]->id, id) == 0;
    return found ? &s->units[at] : NULL;
}

void ram_insert_unit(struct ram_store *s, struct unit_record *u)
{
    size_t at = unit_place(s, u->id);
    s->units = ram_grow(s->units, s->unit_count, &s->unit_room, sizeof(*s->units));
    memmove(s->units + at + 1, s->units + at, (s->unit_count - at) * sizeof(*s->units));
    s->units[at] = u;
    s->unit_count++;
    s->rows += 1u + u->rcpt_count;
    s->delta.units++;
    s->delta.recipients += ram_open_rcpts(u);
    s->delta.held += u->held;
}

struct unit_record *ram_take_unit(struct ram_store *s, struct unit_record **at)
{
    struct unit_record *u = *at;
    s->delta.units--;
    s->delta.recipients -= ram_open_rcpts(u);
    s->delta.held -= u->held;
    s->rows -= 1u + u->rcpt_count;
    s->unit_count--;
    memmove(at, at + 1, (size_t)(s->units + s->unit_count - at) * sizeof(*at));
    return u;
}

static size_t body_place(const struct ram_store *s, struct msg_id id)
{
    size_t low = 0, high = s->body_count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (memcmp(s->bodies[mid].id.bytes, id.bytes, MSG_ID_BYTES) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct ram_body *ram_find_body(struct ram_store *s, struct msg_id id)
{
    size_t at = body_place(s, id);
    bool found = at < s->body_count && msg_id_eq(s->bodies[at].id, id);
    return found ? &s->bodies[at] : NULL;
}

static struct ram_body *insert_body(struct ram_store *s, struct msg_id id)
{
    size_t at = body_place(s, id);
    s->bodies = ram_grow(s->bodies, s->body_count, &s->body_room, sizeof(*s->bodies));
    memmove(
        s->bodies + at + 1, s->bodies + at, (s->body_count - at) * sizeof(*s->bodies));
    s->bodies[at] = (struct ram_body){.id = id, .body = body_new()};
    s->body_count++;
    return &s->bodies[at];
}

static void remove_body(struct ram_store *s, struct ram_body *b)
{
    body_unref(b->body);
    s->body_count--;
    memmove(b, b + 1, (size_t)(s->bodies + s->body_count - b) * sizeof(*b));
}

void ram_release_body(struct ram_store *s, struct msg_id id)
{
    struct ram_body *b = ram_find_body(s, id);
    if (b && --b->units == 0)
        remove_body(s, b);
}

/* --- operations --- */

static void append_rows(struct body *to, struct body_row_cursor at, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct slice row = body_row_next(&at);
        INVARIANT(row.len > 0);
        body_append(to, row);
    }
}

enum err ram_may_take_body(
    struct ram_store *s, const struct message *m, uint32_t rows_on_disk)
{
    struct ram_body *b = ram_find_body(s, m->id);
    uint64_t want = (uint64_t)rows_on_disk * BODY_ROW_BYTES;
    if (rows_on_disk && !b)
        return ERR_STORE_NOT_FOUND;
    if (rows_on_disk && body_size(b->body) != (want < m->size ? want : m->size))
        return ERR_STORE_DAMAGED;
    return ERR_OK;
}

void ram_put_body(
    struct ram_store *s, const struct message *m, uint32_t rows_on_disk, uint32_t units)
{
    struct ram_body *b = ram_find_body(s, m->id);
    struct body_row_cursor at;
    if (b && rows_on_disk == 0)
        remove_body(s, b);
    if (rows_on_disk == 0)
        b = insert_body(s, m->id);
    b->units = units;
    b->size = m->size;
    b->crc = m->body_crc;
    uint32_t rows = (uint32_t)((m->size + BODY_ROW_BYTES - 1) / BODY_ROW_BYTES);
    if (rows > rows_on_disk) {
        body_rows_from(m->body, rows_on_disk, &at);
        append_rows(b->body, at, rows - rows_on_disk);
    }
}

enum err ram_accept(struct ram_store *s, const struct message *m, uint32_t rows_on_disk)
{
    struct ram_body *b = ram_find_body(s, m->id);
    if (b && b->units)
        return ERR_STORE_EXISTS;
    enum err e = ram_may_take_body(s, m, rows_on_disk);
    if (e != ERR_OK)
        return e;
    ram_put_body(s, m, rows_on_disk, m->unit_count);
    for (unsigned i = 0; i < m->unit_count; i++)
        ram_insert_unit(s, new_record(m, &m->units[i]));
    return ERR_OK;
}

static enum err run_accept(struct ram_store *s, struct store_op *op)
{
    struct store_accept *a = CONTAINER_OF(op, struct store_accept, op);
    uint64_t bytes = store_message_bytes(a->message, a->rows_on_disk);
    return store_has_room(&s->base, bytes, 0, false)
               ? ram_accept(s, a->message, a->rows_on_disk)
               : ERR_STORE_FULL;
}

static enum err run_body_rows(struct ram_store *s, struct store_op *op)
{
    struct store_body_rows *r = CONTAINER_OF(op, struct store_body_rows, op);
    struct ram_body *b = ram_find_body(s, r->id);
    if (b && b->units)
        return ERR_STORE_EXISTS;
    uint64_t have = b ? body_size(b->body) : 0;
    if (have != (uint64_t)r->first_row * BODY_ROW_BYTES)
        return ERR_STORE_NOT_FOUND;
    if (!store_has_room(&s->base, (uint64_t)r->row_count * BODY_ROW_BYTES, 0, r->copy))
        return ERR_STORE_FULL;
    append_rows((b ? b : insert_body(s, r->id))->body, r->at, r->row_count);
    return ERR_OK;
}

static enum err run_body_drop(struct ram_store *s, struct store_op *op)
{
    struct store_body_drop *d = CONTAINER_OF(op, struct store_body_drop, op);
    struct ram_body *b = ram_find_body(s, d->id);
    if (!b || b->units)
        return ERR_STORE_NOT_FOUND;
    remove_body(s, b);
    return ERR_OK;
}

static struct rcpt_record *find_rcpt(struct unit_record *u, uint16_t index)
{
    for (uint16_t i = 0; i < u->rcpt_count; i++)
        if (u->rcpts[i].rcpt.index == index)
            return &u->rcpts[i];
    return NULL;
}

static enum err missing_rcpt(struct unit_record *u, const struct store_settle *e)
{
    for (uint16_t i = 0; i < e->rcpt_count; i++)
        if (!find_rcpt(u, e->rcpts[i].rcpt.index))
            return ERR_STORE_NOT_FOUND;
    return ERR_OK;
}

static void settle_some(
    struct ram_store *s, const struct store_settle *e, struct unit_record **place)
{
    struct unit_record *u = ram_copy_record(*place);
    s->delta.recipients -= ram_open_rcpts(u);
    for (uint16_t i = 0; i < e->rcpt_count; i++) {
        struct rcpt_record *r = find_rcpt(u, e->rcpts[i].rcpt.index);
        if (r && rcpt_state_may_change(r->state, e->rcpts[i].state))
            *r = rcpt_record_copy(u->arena, &e->rcpts[i]);
    }
    s->delta.recipients += ram_open_rcpts(u);
    u->next_due = e->next_due;
    unit_record_free(*place);
    *place = u;
}

enum err ram_settle(struct ram_store *s, struct store_settle *e, bool known)
{
    struct unit_record **place = ram_find_unit(s, e->unit);
    enum err result = ERR_OK;
    if (!known && !place)
        result = ERR_STORE_NOT_FOUND;
    else if (!known && !e->unit_done)
        result = missing_rcpt(*place, e);
    if (result != ERR_OK)
        return result;
    if (place && e->unit_done) {
        unit_record_free(ram_take_unit(s, place));
        ram_release_body(s, e->unit.msg);
    } else if (place) {
        settle_some(s, e, place);
    }
    for (unsigned i = 0; i < e->dsn_count; i++) {
        enum err twice = ram_accept(s, e->dsns[i], 0);
        INVARIANT(twice == ERR_OK || twice == ERR_STORE_EXISTS);
    }
    return ERR_OK;
}

static enum err run_settle(struct ram_store *s, struct store_op *op)
{
    return ram_settle(s, CONTAINER_OF(op, struct store_settle, op), false);
}

static enum err run_hold(struct ram_store *s, struct store_op *op)
{
    struct store_hold *h = CONTAINER_OF(op, struct store_hold, op);
    struct unit_record **place = ram_find_unit(s, h->unit);
    if (!place)
        return ERR_STORE_NOT_FOUND;
    struct unit_record *u = ram_copy_record(*place);
    s->delta.held += h->hold - u->held;
    u->held = h->hold;
    u->hold_reason = arena_dup(u->arena, slice_head(h->reason, h->hold ? 500 : 0));
    unit_record_free(*place);
    *place = u;
    return ERR_OK;
}

static enum err run_due(struct ram_store *s, struct store_op *op)
{
    struct store_due *d = CONTAINER_OF(op, struct store_due, op);
    struct unit_record **place = ram_find_unit(s, d->unit);
    if (!place)
        return ERR_STORE_NOT_FOUND;
    (*place)->next_due = d->next_due;
    for (uint16_t i = 0; i < (*place)->rcpt_count; i++)
        if (!rcpt_state_is_final((*place)->rcpts[i].state))
            (*place)->rcpts[i].next_due = d->next_due;
    return ERR_OK;
}

static enum err run_meta(struct ram_store *s, struct store_op *op)
{
    struct store_meta *m = CONTAINER_OF(op, struct store_meta, op);
    struct ram_value *v = NULL;
    INVARIANT(strlen(m->name) <= 64 && m->value.len <= sizeof(v->bytes));
    for (unsigned i = 0; i < s->value_count && !v; i++)
        if (strcmp(s->values[i].name, m->name) == 0)
            v = &s->values[i];
    if (!v) {
        INVARIANT(s->value_count < RAM_VALUES);
        v = &s->values[s->value_count++];
        memcpy(v->name, m->name, strlen(m->name) + 1);
    }
    if (m->value.len)
        memcpy(v->bytes, m->value.ptr, m->value.len);
    v->len = m->value.len;
    return ERR_OK;
}

static enum err run_nothing(struct ram_store *s, struct store_op *op)
{
    (void)s;
    (void)op;
    return ERR_OK;
}

static enum err (*const run_op[])(struct ram_store *s, struct store_op *op) = {
    [STORE_OP_ACCEPT] = run_accept,
    [STORE_OP_BODY_ROWS] = run_body_rows,
    [STORE_OP_BODY_DROP] = run_body_drop,
    [STORE_OP_SETTLE] = run_settle,
    [STORE_OP_HOLD] = run_hold,
    [STORE_OP_DUE] = run_due,
    [STORE_OP_META] = run_meta,
    [STORE_OP_BARRIER] = run_nothing,
    [STORE_OP_CLUSTER] = ram_run_cluster,
    [STORE_OP_QUAR] = ram_run_quar,
};

static void publish(struct ram_store *s)
{
    struct store_counters *c = &s->base.counters;
    uint64_t bytes = s->rows * RAM_ROW_BYTES, rows = 0, live = 0;
    for (size_t i = 0; i < s->body_count; i++) {
        bytes += body_size(s->bodies[i].body);
        rows += body_rows(s->bodies[i].body);
        live += s->bodies[i].units > 0;
    }
    atomic_store(&c->used, bytes);
    atomic_store(&c->allocated, bytes);
    atomic_store(&c->bodies, live);
    atomic_store(&c->body_rows, rows);
    atomic_store(&c->rows, s->tables[STORE_ROW_UNIT].count);
    uint64_t aside = 0;
    for (size_t i = 0; i < s->quar_count; i++)
        aside += 1u + s->quar[i].unit->rcpt_count;
    atomic_store(&c->quarantined, aside);
    store_apply_delta(&s->base, &s->delta);
    s->delta = (struct store_delta){0};
}

static void ram_run(struct store *base, struct store_op **ops, unsigned count)
{
    struct ram_store *s = ram_of(base);
    pthread_mutex_lock(&s->lock);
    for (unsigned i = 0; i < count; i++) {
        ops[i]->result = run_op[ops[i]->kind](s, ops[i]);
        publish(s);
    }
    store_clock_step(base, wall_now());
    pthread_mutex_unlock(&s->lock);
}

static int ram_idle_ms(struct store *base)
{
    return atomic_load(&base->clock_accepted_ms) ? 0 : (int)STORE_CLOCK_IDLE_MS;
}

/* --- reads --- */

static uint16_t in_doubt(const struct unit_record *u)
{
    uint16_t count = 0;
    for (unsigned i = 0; i < u->rcpt_count; i++)
        if (u->rcpts[i].state == RCPT_IN_DOUBT)
            count++;
    return count;
}

static enum err ram_scan(struct store *base,
    void (*unit)(const struct scan_unit *u, void *ctx),
    void (*progress)(uint64_t done, uint64_t total, void *ctx), void *ctx,
    struct scan_result *out)
{
    struct ram_store *s = ram_of(base);
    (void)progress;
    for (size_t i = 0; i < s->unit_count; i++) {
        const struct unit_record *u = s->units[i];
        struct scan_unit row = {.id = u->id,
            .domain = u->message->units[0].domain,
            .next_due = u->next_due,
            .expires = u->message->units[0].expires,
            .created = u->message->created,
            .held = u->held,
            .clustered = ram_is_clustered(s, u->id),
            .open_rcpts = (uint16_t)ram_open_rcpts(u),
            .in_doubt = in_doubt(u),
            .size = u->message->size};
        out->units++;
        out->recipients += u->rcpt_count;
        unit(&row, ctx);
    }
    for (size_t i = s->body_count; i-- > 0;) {
        out->bytes += s->bodies[i].size;
        if (s->bodies[i].units == 0) {
            remove_body(s, &s->bodies[i]);
            out->orphan_bodies_removed++;
        }
    }
    publish(s);
    out->body_rows = atomic_load(&base->counters.body_rows);
    return ERR_OK;
}

static enum err ram_read_unit(
    struct store *base, struct unit_id id, struct unit_record **out)
{
    struct ram_store *s = ram_of(base);
    pthread_mutex_lock(&s->lock);
    struct unit_record **place = ram_find_unit(s, id);
    *out = place ? ram_copy_record(*place) : NULL;
    pthread_mutex_unlock(&s->lock);
    return *out ? ERR_OK : ERR_STORE_NOT_FOUND;
}

static enum err ram_read_rows(struct store *base, struct msg_id id, uint32_t first,
    void (*row)(struct slice bytes, void *ctx), void *ctx)
{
    struct ram_store *s = ram_of(base);
    struct body_row_cursor at;
    pthread_mutex_lock(&s->lock);
    struct ram_body *b = ram_find_body(s, id);
    bool found = b && b->units;
    if (found) {
        body_rows_from(b->body, first, &at);
        for (uint32_t r = first; r < body_rows(b->body) && r - first < STORE_READ_ROWS;
             r++)
            row(body_row_next(&at), ctx);
    }
    pthread_mutex_unlock(&s->lock);
    return found ? ERR_OK : ERR_STORE_NOT_FOUND;
}

static enum err ram_body_info(
    struct store *base, struct msg_id id, uint64_t *size_out, uint32_t *crc_out)
{
    struct ram_store *s = ram_of(base);
    pthread_mutex_lock(&s->lock);
    struct ram_body *b = ram_find_body(s, id);
    bool found = b && b->units;
    if (found) {
        *size_out = b->size;
        *crc_out = b->crc;
    }
    pthread_mutex_unlock(&s->lock);
    return found ? ERR_OK : ERR_STORE_NOT_FOUND;
}

static enum err ram_next_body(
    struct store *base, const struct msg_id *after, struct msg_id *out)
{
    struct ram_store *s = ram_of(base);
    pthread_mutex_lock(&s->lock);
    size_t at = body_place(s, *after);
    while (at < s->body_count &&
           (s->bodies[at].units == 0 || msg_id_eq(s->bodies[at].id, *after)))
        at++;
    bool found = at < s->body_count;
    if (found)
        *out = s->bodies[at].id;
    pthread_mutex_unlock(&s->lock);
    return found ? ERR_OK : ERR_STORE_NOT_FOUND;
}

static unsigned ram_list_ids(struct store *base, const struct unit_id *after,
    struct unit_id *out, unsigned max, enum err *result)
{
    struct ram_store *s = ram_of(base);
    unsigned n = 0;
    *result = ERR_OK;
    pthread_mutex_lock(&s->lock);
    size_t at = after ? unit_place(s, *after) : 0;
    if (after && at < s->unit_count && unit_id_cmp(s->units[at]->id, *after) == 0)
        at++;
    while (at < s->unit_count && n < max)
        out[n++] = s->units[at++]->id;
    pthread_mutex_unlock(&s->lock);
    return n;
}

static enum err ram_read_meta(
    struct store *base, const char *name, char *out, size_t out_size, size_t *len_out)
{
    struct ram_store *s = ram_of(base);
    enum err e = ERR_STORE_NOT_FOUND;
    pthread_mutex_lock(&s->lock);
    for (unsigned i = 0; i < s->value_count; i++) {
        const struct ram_value *v = &s->values[i];
        if (strcmp(v->name, name) != 0)
            continue;
        e = v->len <= out_size ? ERR_OK : ERR_TOO_BIG;
        if (e == ERR_OK) {
            memcpy(out, v->bytes, v->len);
            *len_out = v->len;
        }
    }
    pthread_mutex_unlock(&s->lock);
    return e;
}

/* --- life --- */

static void ram_close(struct store *base)
{
    struct ram_store *s = ram_of(base);
    for (size_t i = 0; i < s->unit_count; i++)
        unit_record_free(s->units[i]);
    for (size_t i = 0; i < s->body_count; i++)
        body_unref(s->bodies[i].body);
    ram_free_cluster(s);
    free(s->units);
    free(s->bodies);
    pthread_mutex_destroy(&s->lock);
    store_fini(base);
}

static const struct store_backend backend = {.run = ram_run,
    .idle_ms = ram_idle_ms,
    .close = ram_close,
    .scan = ram_scan,
    .read_unit = ram_read_unit,
    .read_rows = ram_read_rows,
    .body_info = ram_body_info,
    .next_body = ram_next_body,
    .list_ids = ram_list_ids,
    .read_meta = ram_read_meta,
    .scan_rows = ram_scan_rows,
    .read_row = ram_read_row,
    .next_quar = ram_next_quar,
    .read_quar = ram_read_quar};

struct store *store_open_ram(uint64_t quota_bytes)
{
    struct ram_store *s = mem_zalloc(sizeof(*s));
    struct wall now = wall_now();
    store_init(&s->base, &backend, quota_bytes);
    pthread_mutex_init(&s->lock, NULL);
    s->base.identity = (struct store_identity){.node32 = 1,
        .node_id = 1,
        .epoch = 1,
        .clean_shutdown = true,
        .created = true,
        .last_commit = now,
        .made_at = now,
        .schema = STORE_SCHEMA};
    atomic_store(&s->base.last_commit_ms, now.ms);
    store_start(&s->base);
    return &s->base;
}
