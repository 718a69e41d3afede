/* SPDX-License-Identifier: Apache-2.0 */
/* CMD_START: a unit may be scheduled here. What the core knows as final (facts of other
 * nodes, which may have come without their records) is made final in the rows of the
 * recipients first, so that nobody ever tries them again and `queue show` tells the
 * truth. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/metrics.h"
#include "node/cluster/engine_internal.h"

struct heir {
    struct job job;
    struct store_cluster sc;
    struct store_settle settle;
    struct engine *engine;
    struct core_unit_id id;
    uint64_t rcpts, doubt, delivered, failed;
    struct wall due;
    struct unit_record *unit;
    struct rcpt_record *fixed;
};

/* Ids say where a message came in: what a restart gives back to its own node has no heir.
 */
static bool came_here(const struct engine *e, const struct core_unit_id *id)
{
    return (uint32_t)(id->lo >> 48 | (id->hi & 0xffff) << 16) == (uint32_t)e->node;
}

/* A start comes again when this node does, or its session: told once a term. */
struct taken {
    struct table_node by_unit;
    uint32_t term;
};

static bool first_of_term(struct engine *e, const struct core_unit_id *id, uint32_t term)
{
    struct table_node *n = table_find(&e->taken, table_unit_key(id));
    struct taken *t = n ? CONTAINER_OF(n, struct taken, by_unit) : NULL;
    if (t && t->term >= term)
        return false;
    if (!t) {
        t = mem_zalloc(sizeof(*t));
        table_add(&e->taken, &t->by_unit, table_unit_key(id));
    }
    t->term = term;
    return true;
}

void engine_was_taken(struct engine *e, const struct unit_row *row)
{
    if (row->term > 1 && row->owner == e->node && row->mine && row->state == UNIT_LIVE)
        first_of_term(e, &row->id, row->term);
}

void engine_not_taken(struct engine *e, const struct core_unit_id *id)
{
    struct table_node *n = table_find(&e->taken, table_unit_key(id));
    if (!n)
        return;
    table_remove(&e->taken, n);
    free(CONTAINER_OF(n, struct taken, by_unit));
}

void engine_start_fini(struct engine *e)
{
    struct table_node *n;
    while ((n = table_any(&e->taken))) {
        table_remove(&e->taken, n);
        free(CONTAINER_OF(n, struct taken, by_unit));
    }
    table_fini(&e->taken);
}

static void log_takeover(const struct core_unit_id *id, const struct unit_row *row)
{
    struct record r;
    record_init(&r, LOG_EV_TAKEOVER);
    record_msg_id(&r, "id", rows_unit_id(id).msg);
    record_int(&r, "unit", id->part);
    record_int(&r, "term", row->term);
    if (row->doubt)
        record_int(&r, "in_doubt", __builtin_popcountll(row->doubt));
    record_emit(&r);
    metric_add(METRIC_takeovers_total, 1);
}

static bool is_ours(const struct engine *e, const struct core_unit_id *id)
{
    struct unit_row row;
    return engine_unit(e, id, &row) && row.owner == e->node && row.mine != 0 &&
           row.state == UNIT_LIVE;
}

static void tell(struct heir *h)
{
    struct engine *e = h->engine;
    if (is_ours(e, &h->id))
        e->deps.events->start(
            e->deps.ctx, rows_unit_id(&h->id), h->rcpts, h->doubt, h->due);
}

static void heir_free(struct heir *h)
{
    h->engine->jobs--;
    unit_record_free(h->unit);
    free(h->fixed);
    free(h);
}

static void fixed_stored(struct store_op *op, void *owner)
{
    struct heir *h =
        CONTAINER_OF(CONTAINER_OF(op, struct store_cluster, op), struct heir, sc);
    engine_busy(owner);
    tell(h);
    heir_free(h);
}

static void read_unit(struct job *job)
{
    struct heir *h = CONTAINER_OF(job, struct heir, job);
    if (store_read_unit(h->engine->deps.store, rows_unit_id(&h->id), &h->unit) != ERR_OK)
        h->unit = NULL;
}

/* The records that the facts make final. */
static unsigned fix_records(struct heir *h)
{
    unsigned count = 0;
    h->fixed = mem_zalloc(h->unit->rcpt_count * sizeof(*h->fixed));
    for (unsigned i = 0; i < h->unit->rcpt_count; i++) {
        struct rcpt_record r = h->unit->rcpts[i];
        bool delivered = h->delivered >> r.rcpt.index & 1;
        bool failed = h->failed >> r.rcpt.index & 1;
        if (r.rcpt.index >= UNIT_RCPTS_MAX || rcpt_state_is_final(r.state) ||
            !(delivered || failed))
            continue;
        r.state = delivered ? RCPT_DELIVERED : RCPT_BOUNCED;
        r.last_reply = SLICE("the outcome was learned from another node");
        h->fixed[count++] = r;
    }
    return count;
}

static void unit_read(struct mail *mail, void *owner)
{
    struct heir *h = CONTAINER_OF(mail, struct heir, job.mail);
    struct engine *e = owner;
    engine_busy(e);
    unsigned count = h->unit ? fix_records(h) : 0;
    if (count == 0) {
        tell(h);
        heir_free(h);
        return;
    }
    h->settle = (struct store_settle){.unit = rows_unit_id(&h->id),
        .rcpts = h->fixed,
        .rcpt_count = (uint16_t)count,
        .next_due = h->due.ms ? h->due : h->unit->next_due};
    h->sc = (struct store_cluster){.settle = &h->settle};
    h->sc.op.kind = STORE_OP_CLUSTER;
    h->sc.op.reply_to = e->box;
    h->sc.op.done = fixed_stored;
    store_submit(e->deps.store, &h->sc.op);
}

static bool begin_fixing(
    struct engine *e, const struct core_command *c, const struct unit_row *row)
{
    struct heir *h = mem_zalloc(sizeof(*h));
    h->engine = e;
    h->id = c->u.unit.id;
    h->rcpts = c->u.unit.rcpts;
    h->doubt = c->u.unit.doubt;
    h->due = (struct wall){(int64_t)c->u.unit.due_s * 1000};
    h->delivered = row->delivered;
    h->failed = row->failed;
    h->job = (struct job){.run = read_unit, .done = unit_read, .reply_to = e->box};
    if (!workers_submit(e->deps.helpers, &h->job)) {
        free(h);
        return false;
    }
    e->jobs++;
    return true;
}

void engine_start_unit(struct engine *e, const struct core_command *c)
{
    const struct core_unit_id *id = &c->u.unit.id;
    struct unit_row row;
    /* Whoever handed the message in schedules it, with its body in memory. */
    if (e->has_accepted && id->hi == e->accepted.hi && id->lo == e->accepted.lo)
        return;
    if (!engine_unit(e, id, &row))
        return;
    engine_repeat_sure(e, id, true);
    if (row.term > 1 && !c->u.unit.again && !came_here(e, id) &&
        first_of_term(e, id, row.term))
        log_takeover(id, &row);
    if ((row.delivered | row.failed) != 0 && begin_fixing(e, c, &row))
        return;
    e->deps.events->start(e->deps.ctx, rows_unit_id(id), c->u.unit.rcpts, c->u.unit.doubt,
        (struct wall){(int64_t)c->u.unit.due_s * 1000});
}
