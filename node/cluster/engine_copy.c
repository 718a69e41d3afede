/* SPDX-License-Identifier: Apache-2.0 */
/* What leaves: the core's frames, and with a copy its mail. Heads and bodies come from
 * memory while the message is under acceptance and from disk, read by helpers, otherwise.
 * Up to 64 KiB travel in one frame; more in pieces on the bulk lane, several messages in
 * turn. What overtakes a copy that still waits would reorder its unit, so the frames of a
 * unit queue up behind it; frames are numbered when they leave. */
#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/metrics.h"
#include "node/cluster/copy_internal.h"

#define COPY_DEADLINE_MS 60000
#define COPY_AGAIN_MS 2000
#define COPY_AGAIN_PER_MB_MS 50
#define COPIES_WAITING 20000u
#define READS_MAX 24u
#define READS_WHILE_DELIVERING 3u
/* Pieces of each copy in one turn of the thread. */
#define PUMP_ROUNDS 4u
#define OUTCOME_KEEP_MS 60000
#define OUTCOMES_BYTES (16u << 20)

/* --- frames --- */

bool engine_transmit(
    struct engine *e, const struct core_msg *msg, const struct wire_payload *payload)
{
    struct core_msg m = *msg;
    struct engine_peer *to = engine_peer(e, m.env.to);
    if (!to || !engine_peer(e, m.env.via))
        return false;
    if (m.env.from == e->node)
        m.env.seq = ++to->seq[m.env.lane];
    size_t len = wire_encode(&e->wire, &m, payload, e->frame, WIRE_FRAME_MAX);
    if (len == 0) {
        log_say(
            LOG_EV_CLUSTER_PROBLEM, "a frame of kind %u is too large to send", m.kind);
        return false;
    }
    enum transport_lane lane =
        m.env.lane == LANE_BULK ? TRANSPORT_BULK : TRANSPORT_CONTROL;
    return transport_send(
        e->transport, m.env.via, lane, slice_make(e->frame, len), slice_make("", 0));
}

bool engine_tell(struct engine *e, uint64_t to, struct core_msg *m)
{
    m->env = (struct core_env){.cfg_ver = e->cfg.ver,
        .from = e->node,
        .to = to,
        .via = to,
        .clock_ns = (uint64_t)mono_now().ns,
        .from_epoch = e->status.epoch,
        .lane = LANE_CONTROL};
    return engine_transmit(e, m, NULL);
}

/* The unit that a frame speaks of, or NULL. */
static const struct core_unit_id *unit_of(const struct core_msg *m)
{
    if (m->kind == MSG_COPY || m->kind == MSG_RELEASE || m->kind == MSG_DONE ||
        m->kind == MSG_FORGET)
        return &m->u.unit.row.id;
    return m->kind == MSG_INTENT ? &m->u.attempt.id : NULL;
}

static struct copy_out *copy_find(
    struct engine *e, uint64_t to, const struct core_unit_id *id)
{
    struct table_node *n = table_find(&e->copies, table_peer_unit_key(to, id));
    return n ? CONTAINER_OF(n, struct copy_out, by_unit) : NULL;
}

static void queue_remove(struct copy_out *c)
{
    struct copy_queue *q = c->queue;
    if (!q)
        return;
    *(c->prev ? &c->prev->next : &q->first) = c->next;
    *(c->next ? &c->next->prev : &q->last) = c->prev;
    c->queue = NULL;
    q->count--;
}

/* To the end of q, wherever it was. */
static void queue_add(struct copy_queue *q, struct copy_out *c)
{
    queue_remove(c);
    c->prev = q->last;
    c->next = NULL;
    *(q->last ? &q->last->next : &q->first) = c;
    q->last = c;
    c->queue = q;
    q->count++;
}

/* What was begun is finished before more is read. */
static void queue_add_first(struct copy_queue *q, struct copy_out *c)
{
    queue_remove(c);
    c->next = q->first;
    c->prev = NULL;
    *(q->first ? &q->first->prev : &q->last) = c;
    q->first = c;
    c->queue = q;
    q->count++;
}

/* An attempt waits for this copy, with a connection in its hand: it goes next. */
static void hurry(struct copy_out *c)
{
    if (c->queue)
        queue_add_first(c->queue, c);
}

static void follow(struct copy_out *c, const struct core_msg *msg)
{
    struct follower *f = mem_alloc(sizeof(*f));
    if (c->follower_count >= FOLLOWERS_MAX) {
        free(f); /* as if lost */
        return;
    }
    f->msg = *msg;
    f->next = NULL;
    *c->follower_end = f;
    c->follower_end = &f->next;
    c->follower_count++;
}

void engine_send(struct engine *e, const struct core_msg *msg)
{
    const struct core_unit_id *id = unit_of(msg);
    struct copy_out *c =
        id && msg->env.from == e->node ? copy_find(e, msg->env.to, id) : NULL;
    if (msg->kind == MSG_COPY && msg->env.from == e->node) {
        copy_wanted(e, msg, c);
    } else if (c && c->state != COPY_SENT && c->msg.env.lane == msg->env.lane) {
        if (msg->kind == MSG_INTENT)
            hurry(c);
        follow(c, msg);
    } else if (msg->kind == MSG_OUTCOME && msg->env.from == e->node) {
        struct wire_payload payload = {.head = outcome_kept_for(e, &msg->u.attempt)};
        engine_transmit(e, msg, payload.head.len ? &payload : NULL);
    } else {
        engine_transmit(e, msg, NULL);
    }
}

/* --- copies: life --- */

static void followers_drop(struct copy_out *c)
{
    while (c->followers) {
        struct follower *f = c->followers;
        c->followers = f->next;
        free(f);
    }
    c->follower_end = &c->followers;
    c->follower_count = 0;
}

static void memory_drop(struct engine *e, struct copy_out *c)
{
    e->copying_bytes -= c->memory;
    c->memory = 0;
    message_unref(c->message);
    c->message = NULL;
    free(c->chunk);
    c->chunk = NULL;
    buf_fini(&c->head);
}

void copy_drop(struct engine *e, struct copy_out *c)
{
    table_remove(&e->copies, &c->by_unit);
    queue_remove(c);
    followers_drop(c);
    if (c->is_reading) {
        c->is_dead = true; /* the helper still has it */
        return;
    }
    memory_drop(e, c);
    free(c);
}

/* All of it is out: frames of the unit may pass again, and for a while the core's asking
 * again is answered with the row alone. */
static void copy_sent(struct engine *e, struct copy_out *c)
{
    queue_remove(c);
    c->state = COPY_SENT;
    c->until = mono_add_ms(
        mono_now(), COPY_AGAIN_MS + (int64_t)(c->total >> 20) * COPY_AGAIN_PER_MB_MS);
    memory_drop(e, c);
    for (struct follower *f = c->followers; f; f = f->next)
        engine_transmit(e, &f->msg, NULL);
    followers_drop(c);
    metric_add(METRIC_copies_sent_total, 1);
}

/* --- one frame --- */

static void pack_hot(const struct message *m, uint32_t part, struct buf *out)
{
    struct message one = *m;
    struct message_unit *u = &m->units[part];
    struct rcpt_record *rcpts = mem_zalloc(u->rcpt_count * sizeof(*rcpts));
    struct unit_record rec = {.id = {.msg = m->id, .unit = (uint16_t)part},
        .message = &one,
        .rcpt_count = u->rcpt_count,
        .rcpts = rcpts,
        .next_due = m->created,
        .body_rows = m->body ? body_rows(m->body) : 0};
    one.units = u;
    one.unit_count = 1;
    for (uint16_t i = 0; i < u->rcpt_count; i++) {
        rcpts[i].rcpt = u->rcpts[i];
        rcpts[i].next_due = m->created;
        rcpts[i].attempt_id = u->rcpts[i].doubt;
    }
    if (!unit_head_pack(&rec, out))
        buf_clear(out);
    free(rcpts);
}

static void send_whole(struct engine *e, struct copy_out *c, struct slice body)
{
    struct wire_payload payload = {
        .head = buf_slice(&c->head), .chunk = body, .total_bytes = c->total};
    if (engine_transmit(e, &c->msg, &payload))
        copy_sent(e, c);
    else
        copy_drop(e, c);
}

/* A body in memory, gathered; at most COPY_PIECE_BYTES. */
static size_t gather(const struct body *body, uint64_t offset, char *out)
{
    struct body_row_cursor at;
    size_t len = 0;
    body_rows_from(body, (uint32_t)(offset / BODY_ROW_BYTES), &at);
    for (unsigned i = 0; i < COPY_PIECE_ROWS; i++) {
        struct slice row = body_row_next(&at);
        memcpy(out + len, row.ptr, row.len);
        len += row.len;
        if (row.len < BODY_ROW_BYTES)
            break;
    }
    return len;
}

/* --- from disk --- */

static void read_piece(struct copy_out *c)
{
    uint32_t row = (uint32_t)(c->offset / BODY_ROW_BYTES);
    struct msg_id id = rows_unit_id(&c->id).msg;
    c->chunk_len = 0;
    for (unsigned i = 0; i < COPY_PIECE_ROWS / 16; i++, row += 16) {
        size_t len = 0;
        enum err err = store_read_body(c->store, id, row, c->chunk + c->chunk_len, &len);
        if (err != ERR_OK) {
            c->failed = true;
            return;
        }
        c->chunk_len += len;
        if (len < 16 * BODY_ROW_BYTES)
            break;
    }
}

static void read_head(struct copy_out *c)
{
    struct unit_record *u = NULL;
    if (store_read_unit(c->store, rows_unit_id(&c->id), &u) != ERR_OK) {
        c->failed = true;
        return;
    }
    c->total = u->message->size;
    c->failed = !unit_head_pack(u, &c->head);
    unit_record_free(u);
}

static void read_copy(struct job *job)
{
    struct copy_out *c = CONTAINER_OF(job, struct copy_out, job);
    if (buf_len(&c->head) == 0)
        read_head(c);
    if (!c->failed && c->offset < c->total)
        read_piece(c);
}

static void copy_read(struct mail *mail, void *owner)
{
    struct copy_out *c = CONTAINER_OF(mail, struct copy_out, job.mail);
    struct engine *e = owner;
    engine_busy(e);
    c->is_reading = false;
    e->jobs--;
    e->reads--;
    if (c->is_dead) {
        memory_drop(e, c);
        free(c);
        return;
    }
    bool fits = c->total <= UINT32_MAX && c->total == c->msg.u.unit.row.size_bytes;
    if (c->failed || !fits) {
        struct unit_id id = rows_unit_id(&c->id);
        copy_drop(e, c);
        engine_suspect(e, id);
        return;
    }
    struct engine_peer *p = engine_peer(e, c->to);
    c->state = COPY_READY;
    if (p)
        queue_add(&p->ready, c);
}

/* Rows of a body that arrived are the store's to read once its message is there. */
static bool is_readable(const struct engine *e, const struct copy_out *c)
{
    const struct accepting *hot = c->message ? engine_hot(e, &c->id) : NULL;
    return !hot || hot->is_stored;
}

static bool start_read(struct engine *e, struct copy_out *c)
{
    if (!is_readable(e, c) || e->reads >= READS_MAX ||
        e->copying_bytes > COPYING_BYTES_MAX)
        return false;
    if (!c->chunk) {
        c->chunk = mem_alloc(COPY_PIECE_BYTES);
        c->memory += COPY_PIECE_BYTES;
        e->copying_bytes += COPY_PIECE_BYTES;
    }
    c->store = e->deps.store;
    c->job = (struct job){.run = read_copy, .done = copy_read, .reply_to = e->box};
    if (!workers_submit(e->deps.helpers, &c->job))
        return false;
    queue_remove(c);
    c->is_reading = true;
    c->state = COPY_READING;
    e->jobs++;
    e->reads++;
    return true;
}

/* --- pieces --- */

static bool piece_in_memory(const struct copy_out *c)
{
    return c->message && c->message->body &&
           c->offset / BODY_ROW_BYTES >= c->rows_on_disk;
}

/* True while this copy could go on at once. */
static bool send_piece(struct engine *e, struct copy_out *c, struct slice piece)
{
    struct wire_payload payload = {
        .chunk = piece, .offset_bytes = c->offset, .total_bytes = c->total};
    if (c->offset == 0)
        payload.head = buf_slice(&c->head);
    if (!engine_transmit(e, &c->msg, &payload)) {
        copy_drop(e, c);
        return false;
    }
    c->offset += piece.len;
    c->chunk_len = 0;
    if (c->offset < c->total)
        return true;
    copy_sent(e, c);
    return false;
}

/* One turn of a copy that is ready; false: it waits. */
static bool advance(struct engine *e, struct engine_peer *p, struct copy_out *c)
{
    char piece[COPY_PIECE_BYTES];
    bool known = buf_len(&c->head) > 0;
    if (known && c->msg.env.lane != LANE_BULK && c->offset == 0 &&
        (c->chunk_len == c->total || c->total == 0)) {
        send_whole(e, c, slice_make(c->chunk ? c->chunk : "", c->chunk_len));
        return true;
    }
    if (known && piece_in_memory(c))
        return send_piece(
            e, c, slice_make(piece, gather(c->message->body, c->offset, piece)));
    if (known && c->chunk_len > 0)
        return send_piece(e, c, slice_make(c->chunk, c->chunk_len));
    if (known && c->read_at == c->offset + 1) {
        copy_drop(e, c); /* read, and nothing there: shorter than it says */
        return true;
    }
    queue_add_first(&p->unread, c);
    return false;
}

static bool has_bulk_room(const struct engine *e, const struct copy_out *c)
{
    return c->msg.env.lane != LANE_BULK ||
           transport_room(e->transport, c->to) >= WIRE_FRAME_MAX;
}

/* A turn for each, so that one large message does not hold up the others. True when
 * something went out and more may. */
static bool pump_peer(struct engine *e, struct engine_peer *p)
{
    bool more = false;
    for (unsigned n = p->ready.count, budget = 256; n > 0 && budget > 0; n--, budget--) {
        struct copy_out *c = p->ready.first;
        if (!c)
            break;
        queue_add(&p->ready, c);
        if (has_bulk_room(e, c) && advance(e, p, c))
            more = true;
    }
    return more;
}

/* As many as helpers may read at once, in the order in which they were asked for. What
 * cannot be read or sent yet is passed over. Mail that leaves needs no copy: an heir of a
 * hundred thousand messages delivers them first. */
static void begin_reads(struct engine *e, struct engine_peer *p)
{
    unsigned most = e->tickets.count ? READS_WHILE_DELIVERING : READS_MAX;
    for (unsigned n = p->unread.count, budget = 64; n > 0 && budget > 0; n--, budget--) {
        struct copy_out *c = p->unread.first;
        if (!c || e->reads >= most || e->copying_bytes > COPYING_BYTES_MAX)
            return;
        if (has_bulk_room(e, c) && start_read(e, c))
            c->read_at = c->offset + 1;
        else
            queue_add(&p->unread, c);
    }
}

static void pump_again(struct mail *mail, void *owner)
{
    struct engine *e = owner;
    (void)mail; /* waking up is enough: the turn ends with the pump */
    e->is_pump_posted = false;
}

void engine_copy_pump(struct engine *e)
{
    bool more = true;
    for (unsigned round = 0; more && round < PUMP_ROUNDS; round++) {
        more = false;
        for (unsigned i = 0; i < e->peer_count; i++)
            if (e->peer[i].ready.count && pump_peer(e, &e->peer[i]))
                more = true;
    }
    for (unsigned i = 0; i < e->peer_count; i++)
        begin_reads(e, &e->peer[i]);
    if (!more || e->is_pump_posted)
        return;
    e->is_pump_posted = true; /* leases and questions come in between */
    mailbox_post(e->box, &e->pump_mail, pump_again);
}

/* --- the core asks --- */

static struct copy_out *copy_new(struct engine *e, const struct core_msg *msg)
{
    struct copy_out *c = mem_zalloc(sizeof(*c));
    c->id = msg->u.unit.row.id;
    c->to = msg->env.to;
    c->msg = *msg;
    c->total = msg->u.unit.row.size_bytes;
    c->until = mono_add_ms(mono_now(), COPY_DEADLINE_MS);
    c->follower_end = &c->followers;
    buf_init(&c->head, UNIT_HEAD_MAX);
    table_add(&e->copies, &c->by_unit, table_peer_unit_key(c->to, &c->id));
    return c;
}

static void from_memory(struct copy_out *c, struct accepting *hot)
{
    c->message = message_ref(hot->message);
    c->rows_on_disk = hot->rows_on_disk;
    c->state = COPY_READY;
    pack_hot(hot->message, c->id.part, &c->head);
}

void copy_wanted(struct engine *e, const struct core_msg *msg, struct copy_out *c)
{
    struct engine_peer *p = engine_peer(e, msg->env.to);
    if (!msg->u.unit.mail || (c && c->state == COPY_SENT)) {
        struct core_msg row_alone = *msg;
        row_alone.u.unit.mail = 0;
        engine_transmit(e, &row_alone, NULL);
        return;
    }
    if (c) {
        c->msg = *msg; /* still on its way: with the newest row and echo */
        return;
    }
    if (!p || p->ready.count + p->unread.count >= COPIES_WAITING)
        return; /* as if lost: it is asked again */
    struct accepting *hot = engine_hot(e, &msg->u.unit.row.id);
    c = copy_new(e, msg);
    if (hot && hot->message->unit_count > c->id.part)
        from_memory(c, hot);
    if (c->message && msg->env.lane != LANE_BULK && c->rows_on_disk == 0 &&
        c->total <= COPY_PIECE_BYTES && buf_len(&c->head) > 0) {
        char body[COPY_PIECE_BYTES];
        send_whole(e, c, slice_make(body, gather(c->message->body, 0, body)));
        return;
    }
    queue_add(c->state == COPY_READY ? &p->ready : &p->unread, c);
}

/* --- outcomes kept for the frames that speak of them --- */

static void outcome_drop(struct engine *e, struct outcome_kept *k)
{
    struct outcome_kept **at = &e->outcome_first;
    while (*at != k)
        at = &(*at)->next;
    *at = k->next;
    if (!*at)
        e->outcome_end = at;
    e->outcome_bytes -= buf_len(&k->records) + sizeof(*k);
    table_remove(&e->outcomes, &k->by_unit);
    buf_fini(&k->records);
    free(k);
}

void engine_keep_outcome(struct engine *e, const struct rights_settle *s)
{
    struct core_unit_id id = rows_core_id(s->store.unit);
    struct table_node *n = table_find(&e->outcomes, table_unit_key(&id));
    if (e->peer_count == 0 || s->store.rcpt_count == 0 || s->store.unit_done)
        return; /* nobody to tell, or Done says it */
    if (n)
        outcome_drop(e, CONTAINER_OF(n, struct outcome_kept, by_unit));
    while (e->outcome_first && e->outcome_bytes > OUTCOMES_BYTES)
        outcome_drop(e, e->outcome_first);
    struct outcome_kept *k = mem_zalloc(sizeof(*k));
    buf_init(&k->records, RCPT_RECORDS_MAX);
    k->attempt = s->attempt_id;
    k->until = mono_add_ms(mono_now(), OUTCOME_KEEP_MS);
    if (!rcpt_records_pack(s->store.rcpts, s->store.rcpt_count, &k->records)) {
        buf_fini(&k->records);
        free(k);
        return;
    }
    e->outcome_bytes += buf_len(&k->records) + sizeof(*k);
    table_add(&e->outcomes, &k->by_unit, table_unit_key(&id));
    *e->outcome_end = k;
    e->outcome_end = &k->next;
}

struct slice outcome_kept_for(struct engine *e, const struct msg_attempt *a)
{
    struct table_node *n = table_find(&e->outcomes, table_unit_key(&a->id));
    struct outcome_kept *k = n ? CONTAINER_OF(n, struct outcome_kept, by_unit) : NULL;
    return k && k->attempt == a->attempt ? buf_slice(&k->records) : slice_make("", 0);
}

/* --- time --- */

void engine_copy_tick(struct engine *e)
{
    struct mono now = mono_now();
    while (e->outcome_first && e->outcome_first->until.ns < now.ns)
        outcome_drop(e, e->outcome_first);
    for (uint32_t i = 0; i <= e->copies.mask; i++)
        for (struct table_node *n = e->copies.bucket[i], *next; n; n = next) {
            struct copy_out *c = CONTAINER_OF(n, struct copy_out, by_unit);
            next = n->next;
            if (c->until.ns < now.ns)
                copy_drop(e, c);
        }
}

void engine_copy_init(struct engine *e)
{
    table_init(&e->copies);
    table_init(&e->outcomes);
    e->outcome_end = &e->outcome_first;
}

void engine_copy_fini(struct engine *e)
{
    struct table_node *n;
    while ((n = table_any(&e->copies)))
        copy_drop(e, CONTAINER_OF(n, struct copy_out, by_unit));
    while (e->outcome_first)
        outcome_drop(e, e->outcome_first);
    table_fini(&e->copies);
    table_fini(&e->outcomes);
}
