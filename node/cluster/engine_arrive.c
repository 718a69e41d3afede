/* SPDX-License-Identifier: Apache-2.0 */
/* What comes: frames of peers, judged by form here and by right in the core; and the mail
 * that travels with copies, put together from its pieces. The core hears of a copy when
 * all of it is here and its sum is right. Everything is bounded, by peer and in all, and
 * has a deadline: a piece that is lost costs the copy, and it is asked for again. */
#include <stdlib.h>

#include "base/alloc.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/metrics.h"
#include "node/cluster/copy_internal.h"

#define ARRIVING_BYTES_MAX (128u << 20)
#define ARRIVING_MAX 1024u
#define ARRIVING_PER_PEER 64u
#define PIECE_DEADLINE_MS 30000
#define LATE_BYTES_MAX 16384u
/* A larger body is written to its rows while it arrives. */
#define BODY_MEMORY_MAX (1u << 20)

/* A frame that came behind a copy while its rows were on their way to the disk. To the
 * core it would seem to have overtaken the copy, which would then be refused. */
struct late_frame {
    struct late_frame *next;
    size_t len;
    char bytes[];
};

struct copy_in {
    struct table_node by_unit; /* and peer */
    struct store_body_rows rows;
    struct engine *engine;
    uint64_t peer;
    struct core_unit_id id;
    struct unit_record *record;
    uint64_t total;
    uint32_t rows_sent;                 /* given to the store */
    bool is_writing, is_dead, is_known; /* known: its body is here already */
    uint64_t size;                      /* come so far */
    uint32_t crc;
    uint64_t unconsumed; /* bytes of frames not given back */
    uint64_t memory;
    struct core_msg last; /* with the last piece: what the core will hear */
    bool is_whole;
    struct late_frame *late, **late_end; /* of the same unit */
    unsigned late_count;
    struct mono until;
};

struct drop_op {
    struct store_body_drop drop;
    struct engine *engine;
};

/* --- arrivals --- */

void arrival_free(struct arrival *a)
{
    if (!a)
        return;
    unit_record_free(a->copy);
    arena_free(a->arena);
    free(a);
}

static void dropped(struct store_op *op, void *owner)
{
    struct drop_op *d =
        CONTAINER_OF(CONTAINER_OF(op, struct store_body_drop, op), struct drop_op, drop);
    struct engine *e = owner;
    e->jobs--;
    free(d);
}

static void drop_rows(struct engine *e, const struct core_unit_id *id)
{
    struct drop_op *d = mem_zalloc(sizeof(*d));
    d->engine = e;
    d->drop.id = rows_unit_id(id).msg;
    d->drop.op.kind = STORE_OP_BODY_DROP;
    d->drop.op.reply_to = e->box;
    d->drop.op.done = dropped;
    e->jobs++;
    store_submit(e->deps.store, &d->drop.op);
}

static void hear(struct engine *e, const struct core_msg *msg, struct arrival *a)
{
    struct core_event event = {.kind = EV_MSG, .u.msg = msg};
    e->arrival = a;
    engine_step(e, &event);
    if (!e->arrival)
        return; /* it is in a store operation */
    if (a->rows_on_disk)
        drop_rows(e, &a->id);
    arrival_free(a);
    e->arrival = NULL;
}

/* --- copies in pieces --- */

static void consume(struct engine *e, struct copy_in *c)
{
    if (c->unconsumed)
        transport_consumed(e->transport, c->peer, c->unconsumed);
    c->unconsumed = 0;
}

static void late_free(struct late_frame *f)
{
    while (f) {
        struct late_frame *next = f->next;
        free(f);
        f = next;
    }
}

static void in_free(struct copy_in *c)
{
    struct engine *e = c->engine;
    late_free(c->late); /* as if lost */
    e->arriving_bytes -= c->memory;
    consume(e, c);
    unit_record_free(c->record);
    free(c);
}

static void in_drop(struct copy_in *c)
{
    struct engine *e = c->engine;
    table_remove(&e->arriving, &c->by_unit);
    if (c->is_writing) {
        c->is_dead = true; /* the store still has it */
        return;
    }
    if (c->rows_sent)
        drop_rows(e, &c->id);
    in_free(c);
}

/* The head must speak of the same unit as the core's row. */
static bool head_fits(const struct unit_record *u, const struct unit_row *row)
{
    struct core_unit_id id = rows_core_id(u->id);
    return memcmp(&id, &row->id, sizeof(id)) == 0 && u->rcpt_count == row->rcpt_count &&
           u->message->size == row->size_bytes && u->message->body_crc == row->body_crc;
}

static bool envelope_came(struct engine *e, uint64_t node, struct slice frame);

static void whole(struct copy_in *c)
{
    struct engine *e = c->engine;
    struct arrival *a;
    struct core_msg msg = c->last;
    struct late_frame *late = c->late;
    uint64_t peer = c->peer;
    if (c->crc != c->record->message->body_crc) {
        log_say(LOG_EV_CLUSTER_PROBLEM, "a copy came with a wrong sum; dropped");
        in_drop(c);
        return;
    }
    a = mem_zalloc(sizeof(*a));
    a->id = c->id;
    a->copy = c->record;
    a->rows_on_disk = c->rows_sent;
    c->record = NULL;
    c->rows_sent = 0;
    c->late = NULL;
    table_remove(&e->arriving, &c->by_unit);
    in_free(c);
    metric_add(METRIC_copies_received_total, 1);
    hear(e, &msg, a);
    for (struct late_frame *f = late; f; f = f->next)
        envelope_came(e, peer, slice_make(f->bytes, f->len));
    late_free(late);
}

static void write_rows(struct copy_in *c);

static void rows_written(struct store_op *op, void *owner)
{
    struct copy_in *c =
        CONTAINER_OF(CONTAINER_OF(op, struct store_body_rows, op), struct copy_in, rows);
    struct engine *e = owner;
    engine_busy(e);
    c->is_writing = false;
    e->jobs--;
    if (c->is_dead) {
        drop_rows(e, &c->id);
        in_free(c);
        return;
    }
    if (op->result != ERR_OK) {
        in_drop(c);
        return;
    }
    struct body *body = c->record->message->body;
    uint64_t before = body_memory(body);
    body_drop_before(body, c->rows_sent);
    uint64_t freed = before - body_memory(body);
    c->memory -= freed < c->memory ? freed : c->memory;
    e->arriving_bytes -= freed;
    consume(e, c);
    write_rows(c);
    if (c->is_whole && !c->is_writing)
        whole(c);
}

/* Complete rows leave for the disk once the body has grown. */
static void write_rows(struct copy_in *c)
{
    struct engine *e = c->engine;
    const struct body *body = c->record->message->body;
    if (c->is_writing || c->is_known || c->total <= BODY_MEMORY_MAX)
        return;
    uint32_t complete = (uint32_t)(body_size(body) / BODY_ROW_BYTES);
    if (complete == c->rows_sent || body_memory(body) < BODY_MEMORY_MAX)
        return;
    c->rows = (struct store_body_rows){.id = rows_unit_id(&c->id).msg,
        .body = c->record->message->body,
        .first_row = c->rows_sent,
        .row_count = complete - c->rows_sent,
        .copy = true};
    c->rows.op.kind = STORE_OP_BODY_ROWS;
    c->rows.op.reply_to = e->box;
    c->rows.op.done = rows_written;
    c->rows_sent = complete;
    c->is_writing = true;
    e->jobs++;
    store_submit(e->deps.store, &c->rows.op);
}

static unsigned arriving_from(const struct engine *e, uint64_t peer)
{
    unsigned count = 0;
    for (uint32_t i = 0; i <= e->arriving.mask; i++)
        for (struct table_node *n = e->arriving.bucket[i]; n; n = n->next)
            count += n->key.v[3] == peer;
    return count;
}

/* Two bodies under one id would mix their rows. */
static bool message_arrives(const struct engine *e, const struct core_unit_id *id)
{
    for (uint32_t i = 0; i <= e->arriving.mask; i++)
        for (struct table_node *n = e->arriving.bucket[i]; n; n = n->next)
            if (n->key.v[0] == id->hi && n->key.v[1] == id->lo)
                return true;
    return false;
}

/* Its body came with another unit of the same message: it is only compared. */
static bool body_is_here(const struct engine *e, const struct core_unit_id *id)
{
    struct core_unit_id other = *id;
    struct unit_row row;
    for (other.part = 0; other.part < MESSAGE_UNITS_MAX; other.part++)
        if (engine_unit(e, &other, &row) && row.state == UNIT_LIVE &&
            !engine_body_is_bad(e, &other))
            return true;
    return false;
}

static struct copy_in *begin_copy(struct engine *e, uint64_t peer,
    const struct core_msg *msg, const struct wire_payload *p)
{
    const struct unit_row *row = &msg->u.unit.row;
    if (p->total_bytes != row->size_bytes || e->arriving.count >= ARRIVING_MAX ||
        arriving_from(e, peer) >= ARRIVING_PER_PEER ||
        (p->total_bytes > BODY_MEMORY_MAX && message_arrives(e, &row->id)))
        return NULL;
    struct unit_record *u = unit_head_parse(p->head);
    if (!u || !head_fits(u, row)) {
        unit_record_free(u);
        return NULL;
    }
    engine_clear_rotten(e, &row->id);
    struct copy_in *c = mem_zalloc(sizeof(*c));
    c->engine = e;
    c->peer = peer;
    c->id = row->id;
    c->record = u;
    c->total = p->total_bytes;
    c->is_known = c->total > BODY_MEMORY_MAX && body_is_here(e, &c->id);
    c->late_end = &c->late;
    u->message->body = c->is_known ? NULL : body_new();
    table_add(&e->arriving, &c->by_unit, table_peer_unit_key(peer, &c->id));
    return c;
}

static struct copy_in *in_find(
    struct engine *e, uint64_t peer, const struct core_unit_id *id)
{
    struct table_node *n = table_find(&e->arriving, table_peer_unit_key(peer, id));
    return n ? CONTAINER_OF(n, struct copy_in, by_unit) : NULL;
}

static void add_piece(struct copy_in *c, struct slice chunk)
{
    struct body *body = c->record->message->body;
    c->crc = crc32c(c->crc, chunk.ptr, chunk.len);
    c->size += chunk.len;
    c->until = mono_add_ms(mono_now(), PIECE_DEADLINE_MS);
    if (c->is_known)
        return;
    uint64_t before = body_memory(body);
    body_append(body, chunk);
    uint64_t more = body_memory(body) - before;
    c->memory += more;
    c->engine->arriving_bytes += more;
}

/* True: the frame's bytes are kept and given back later. */
static bool piece_came(struct engine *e, uint64_t peer, const struct core_msg *msg,
    const struct wire_payload *p, size_t frame_len)
{
    struct copy_in *c = in_find(e, peer, &msg->u.unit.row.id);
    if (c && c->is_whole)
        return false; /* all of it is here, and on its way to the disk */
    if (c && p->offset_bytes == 0) {
        in_drop(c); /* sent anew */
        c = NULL;
    }
    if (!c && p->offset_bytes == 0)
        c = begin_copy(e, peer, msg, p);
    if (!c)
        return false;
    if (p->offset_bytes != c->size || p->total_bytes != c->total ||
        (p->chunk.len == 0 && c->total > 0) ||
        e->arriving_bytes + p->chunk.len > ARRIVING_BYTES_MAX) {
        in_drop(c);
        return false;
    }
    add_piece(c, p->chunk);
    if (msg->env.lane == LANE_BULK)
        c->unconsumed += frame_len;
    c->is_whole = c->size == c->total;
    c->last = *msg;
    write_rows(c);
    if (!c->is_writing && (c->is_known || c->total <= BODY_MEMORY_MAX))
        consume(e, c);
    if (c->is_whole && !c->is_writing)
        whole(c);
    return true;
}

/* True: it waits behind the copy, or there are too many and it is lost. */
static bool waits_behind(
    struct engine *e, uint64_t node, const struct core_msg *msg, struct slice frame)
{
    /* All that has a unit begins with its id. */
    struct copy_in *c =
        msg->env.lane == LANE_BULK ? in_find(e, node, &msg->u.attempt.id) : NULL;
    if (!c || !c->is_whole)
        return false;
    if (c->late_count == FOLLOWERS_MAX || frame.len > LATE_BYTES_MAX)
        return true;
    struct late_frame *f = mem_alloc(sizeof(*f) + frame.len);
    f->next = NULL;
    f->len = frame.len;
    memcpy(f->bytes, frame.ptr, frame.len);
    *c->late_end = f;
    c->late_end = &f->next;
    c->late_count++;
    return true;
}

/* --- other frames --- */

static void outcome_came(
    struct engine *e, const struct core_msg *msg, const struct wire_payload *p)
{
    struct arrival *a = mem_zalloc(sizeof(*a));
    a->id = msg->u.attempt.id;
    if (p->head.len > 0) {
        a->arena = arena_new(4096);
        if (!rcpt_records_parse(p->head, a->arena, &a->rcpts, &a->rcpt_count))
            a->rcpt_count = 0; /* the facts alone, then */
    }
    hear(e, msg, a);
}

/* Is the frame of whom the connection says, and on its right way? */
static bool way_is_right(
    const struct engine *e, uint64_t node, const struct core_env *env)
{
    if (env->via != e->node)
        return false;
    if (env->hop == 0)
        return env->from == node && env->to == e->node;
    if (env->hop == 1)
        return env->from == node && env->to != e->node;
    return env->hop == 2 && env->to == e->node && env->from != node &&
           env->from != e->node;
}

/* Once a minute a peer: what it sends makes no sense to us. */
static void complain(struct engine *e, uint64_t node, enum wire_result result)
{
    static const struct {
        const char *is, *step;
    } what[] = {
        [WIRE_OK] = {"they are not its own", "see what else has its key"},
        [WIRE_BAD] = {"they are not of our protocol",
            "see what runs there with this member's key: a batond sends no such thing"},
        [WIRE_FOREIGN] = {"they belong to another cluster",
            "see whether its data_dir was copied from there; if so, give it an empty one "
            "and a token"},
        [WIRE_NEWER] = {"it speaks a version that this one does not understand",
            "go on with the upgrade, here too; only one version may lie between nodes"},
    };
    char at[NETADDR_TEXT_MAX];
    struct engine_peer *p = engine_peer(e, node);
    struct mono now = mono_now();
    metric_add(METRIC_cluster_frames_refused_total, 1);
    if (!p || now.ns < p->complain_at.ns)
        return;
    p->complain_at = mono_add_ms(now, 60000);
    netaddr_format(p->at, at);
    log_say(LOG_EV_CLUSTER_PROBLEM,
        "frames of member %.30s at %s are refused: %s; next step: %s", p->ident.name, at,
        what[result].is, what[result].step);
}

static bool envelope_came(struct engine *e, uint64_t node, struct slice frame)
{
    struct core_msg msg;
    struct wire_payload payload;
    struct arena *arena = arena_new(8192);
    bool kept = false;
    enum wire_result result = wire_decode(&e->wire, frame, arena, &msg, &payload);
    if (result != WIRE_OK || !way_is_right(e, node, &msg.env)) {
        complain(e, node, result);
    } else if (msg.kind == MSG_COPY && msg.env.to == e->node && msg.u.unit.mail) {
        kept = piece_came(e, node, &msg, &payload, frame.len);
    } else if (msg.env.to == e->node && waits_behind(e, node, &msg, frame)) {
        kept = false; /* copied */
    } else if (msg.kind == MSG_OUTCOME && msg.env.to == e->node) {
        outcome_came(e, &msg, &payload);
    } else if (msg.kind == MSG_BUDGET_ASK || msg.kind == MSG_BUDGET_GRANT) {
        engine_budget_frame(e, node, &msg);
    } else if (msg.kind >= MSG_REPEAT_ASK && msg.kind <= MSG_REPEAT_TOLD) {
        engine_repeat_frame(e, node, &msg);
    } else {
        struct core_event event = {.kind = EV_MSG, .u.msg = &msg};
        engine_step(e, &event);
    }
    arena_free(arena);
    return kept;
}

void engine_frame(
    struct engine *e, uint64_t node, enum transport_lane lane, struct slice frame)
{
    bool kept = false;
    if (frame.len == 0)
        return;
    if (frame.ptr[0] == FRAME_QUERY && lane == TRANSPORT_CONTROL)
        engine_query_frame(e, node, frame);
    else if (frame.ptr[0] == FRAME_HELLO && lane == TRANSPORT_CONTROL)
        engine_hello(e, engine_peer(e, node), frame);
    else
        kept = envelope_came(e, node, frame);
    if (lane == TRANSPORT_BULK && !kept)
        transport_consumed(e->transport, node, frame.len);
}

/* --- time --- */

void engine_arrive_tick(struct engine *e)
{
    struct mono now = mono_now();
    for (uint32_t i = 0; i <= e->arriving.mask; i++)
        for (struct table_node *n = e->arriving.bucket[i], *next; n; n = next) {
            struct copy_in *c = CONTAINER_OF(n, struct copy_in, by_unit);
            next = n->next;
            if (c->until.ns < now.ns)
                in_drop(c);
        }
}

void engine_arrive_init(struct engine *e)
{
    table_init(&e->arriving);
}

void engine_arrive_fini(struct engine *e)
{
    struct table_node *n;
    while ((n = table_any(&e->arriving)))
        in_drop(CONTAINER_OF(n, struct copy_in, by_unit));
    table_fini(&e->arriving);
}
