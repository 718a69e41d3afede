/* SPDX-License-Identifier: Apache-2.0 */
/* What the core stores: one store operation a store of the core, in the order of its
 * tokens, and in the same transaction the mail that its rows speak of. Rows alone of one
 * step travel together. */
#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"
#include "node/cluster/engine_internal.h"

/* A message's units are one transaction, so they fit all. */
#define JOB_ROWS (MESSAGE_UNITS_MAX + CORE_STORE_OPS)
#define JOB_REMOVES 64u
#define JOB_BYTES (1u << 20)

struct store_job {
    struct store_cluster sc;
    struct store_job *next;
    uint64_t first_token, last_token;
    bool is_done;
    bool may_fail;               /* the core can bear a refusal */
    bool came_anew;              /* a copy of a unit that may have been rotten */
    struct accepting *accepting; /* whose message this carries */
    struct rights_settle *settle;
    struct arrival *arrival;   /* what the copy or the records live in */
    struct store_settle heard; /* the outcome that another node reported */
    struct buf bytes;          /* values of the rows, one behind the other */
    uint32_t at[JOB_ROWS];
    struct store_row row[JOB_ROWS];
    struct unit_id remove[JOB_REMOVES];
    struct unit_id aside[JOB_REMOVES];
};

void engine_store_init(struct engine *e)
{
    e->job_end = &e->first_job;
}

bool engine_store_is_idle(const struct engine *e)
{
    return e->first_job == NULL;
}

static void job_free(struct store_job *j)
{
    arrival_free(j->arrival);
    buf_fini(&j->bytes);
    free(j);
}

void engine_store_fini(struct engine *e)
{
    INVARIANT(engine_store_is_idle(e) && !e->open_job);
}

/* --- answers --- */

static void settled(struct engine *e, struct store_job *j)
{
    struct rights_settle *s = j->settle;
    j->settle = NULL;
    if (s)
        engine_settled(e, s, j->sc.op.result);
}

/* Only a full store refuses, and only what may fail; anything else would leave the core
 * believing in rows that are not there. */
static void judge(struct engine *e, const struct store_job *j)
{
    enum err result = j->sc.op.result;
    if (result == ERR_OK)
        return;
    if (!j->sc.may_fail || result != ERR_STORE_FULL)
        log_say(LOG_EV_STORE_PROBLEM, "rows of the cluster were refused: %s",
            err_text(result));
    if (j->may_fail)
        return;
    engine_die(e, "the store refused a row that must not fail");
}

static void tell_full(struct engine *e, uint64_t token)
{
    struct core_event event = {.kind = EV_STORED};
    engine_store_tell(e); /* those before it, which are there */
    event.u.stored.token = token;
    event.u.stored.full = true;
    e->told_token = e->stored_token = token;
    engine_step(e, &event);
}

static void finish(struct engine *e, struct store_job *j)
{
    bool full = j->sc.op.result != ERR_OK;
    judge(e, j);
    if (j->accepting)
        engine_accept_stored(e, j->accepting, j->sc.op.result);
    if (full)
        for (uint64_t t = j->first_token; t <= j->last_token; t++)
            tell_full(e, t);
    else if (j->last_token > e->stored_token)
        e->stored_token = j->last_token;
    if (j->came_anew && full) {
        struct core_unit_id id = rows_core_id(j->sc.copy->id);
        engine_repeat_drop(e, &id);
    }
    if (j->came_anew && !full) {
        struct core_unit_id id = rows_core_id(j->sc.copy->id);
        engine_not_rotten(e, &id);
    }
    settled(e, j);
    job_free(j);
}

static void stored(struct store_op *op, void *owner)
{
    struct engine *e = owner;
    struct store_job *j =
        CONTAINER_OF(CONTAINER_OF(op, struct store_cluster, op), struct store_job, sc);
    engine_busy(e);
    j->is_done = true;
    while (e->first_job && e->first_job->is_done) {
        struct store_job *first = e->first_job;
        e->first_job = first->next;
        if (!e->first_job)
            e->job_end = &e->first_job;
        finish(e, first);
    }
}

void engine_store_tell(struct engine *e)
{
    while (e->stored_token > e->told_token) {
        struct core_event event = {.kind = EV_STORED};
        event.u.stored.token = e->told_token = e->stored_token;
        engine_step(e, &event);
    }
}

/* --- requests --- */

static struct store_job *job_new(struct engine *e)
{
    struct store_job *j = mem_zalloc(sizeof(*j));
    buf_init(&j->bytes, JOB_BYTES);
    j->sc.op.kind = STORE_OP_CLUSTER;
    j->sc.op.reply_to = e->box;
    j->sc.op.done = stored;
    return j;
}

void engine_store_flush(struct engine *e)
{
    struct store_job *j = e->open_job;
    if (!j)
        return;
    e->open_job = NULL;
    struct slice bytes = buf_slice(&j->bytes);
    for (unsigned i = 0; i < j->sc.row_count; i++)
        if (j->row[i].value.ptr)
            j->row[i].value.ptr = bytes.ptr + j->at[i];
    j->sc.rows = j->row;
    j->sc.remove = j->remove;
    j->sc.aside = j->aside;
    j->sc.aside_reason = SLICE("damaged with no good copy left, or older than any record "
                               "of what became of it");
    *e->job_end = j;
    e->job_end = &j->next;
    store_submit(e->deps.store, &j->sc.op);
}

static bool has_room(const struct store_job *j)
{
    return j->sc.row_count + CORE_STORE_OPS <= JOB_ROWS &&
           j->sc.remove_count + CORE_STORE_OPS <= JOB_REMOVES &&
           j->sc.aside_count + CORE_STORE_OPS <= JOB_REMOVES &&
           buf_len(&j->bytes) + CORE_STORE_OPS * ROW_VALUE_MAX <= JOB_BYTES;
}

static void add_row(struct store_job *j, const struct core_op *op)
{
    unsigned char value[ROW_VALUE_MAX];
    unsigned i = j->sc.row_count++;
    rows_put_op(op, &j->row[i], value);
    j->at[i] = (uint32_t)buf_len(&j->bytes);
    bool fits = !j->row[i].value.ptr || buf_append(&j->bytes, j->row[i].value);
    INVARIANT(fits);
}

static void unit_gone(struct engine *e, const struct core_unit_id *id)
{
    engine_not_rotten(e, id);
    engine_not_taken(e, id);
    engine_repeat_drop(e, id);
}

/* A unit that ended, or is another's alone, has no mail here any more. */
static void add_removal(struct engine *e, struct store_job *j, const struct core_op *op)
{
    bool ended = op->kind == OP_UNIT_DELETE ||
                 (op->kind == OP_UNIT && op->u.unit.state != UNIT_LIVE);
    if (op->kind == OP_UNIT_QUARANTINE)
        j->aside[j->sc.aside_count++] = rows_unit_id(&op->u.unit.id);
    if (op->kind == OP_UNIT && op->u.unit.state == UNIT_DONE && op->u.unit.delivered)
        engine_repeat_sure(e, &op->u.unit.id, false);
    if (op->kind == OP_UNIT_QUARANTINE || ended)
        unit_gone(e, &op->u.unit.id);
    if (ended)
        j->remove[j->sc.remove_count++] = rows_unit_id(&op->u.unit.id);
}

/* --- what travels with a row --- */

static bool same_unit(const struct core_unit_id *a, const struct core_unit_id *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

/* Only a unit's row has mail with it; what other kinds leave in these is nothing. */
static uint64_t accept_of(const struct core_op *op)
{
    return op->kind == OP_UNIT ? op->accept_handle : 0;
}

static uint64_t copy_of(const struct core_op *op)
{
    return op->kind == OP_UNIT ? op->copy_from : 0;
}

static bool is_settling(const struct engine *e, const struct core_op *op)
{
    if (!e->settling || op->kind != OP_UNIT)
        return false;
    struct core_unit_id id = rows_core_id(e->settling->store.unit);
    return same_unit(&id, &op->u.unit.id);
}

static bool arrived_with(const struct engine *e, const struct core_op *op)
{
    return e->arrival && op->kind == OP_UNIT &&
           same_unit(&e->arrival->id, &op->u.unit.id);
}

static void carry_message(struct engine *e, struct store_job *j, const struct core_op *op)
{
    struct accepting *a = engine_accepting(e, op->accept_handle);
    INVARIANT(a);
    if (!a->is_storing) {
        a->is_storing = true;
        j->accepting = a;
        j->sc.message = a->message;
        j->sc.rows_on_disk = a->rows_on_disk;
    }
    /* A notification must not be lost for want of room: it may use the reserve. */
    j->sc.may_fail = a->asked != NULL;
}

static void carry_settle(struct engine *e, struct store_job *j, const struct core_op *op)
{
    struct rights_settle *s = e->settling;
    e->settling = NULL;
    j->settle = s;
    /* The core knows the facts of all nodes; its word ends the unit or keeps it. */
    s->store.unit_done = op->u.unit.state != UNIT_LIVE;
    s->store.dsn_count = 0; /* each has its own copies by now */
    j->sc.settle = &s->store;
}

/* The owner's word; records alone tell the rest. */
static struct wall heard_due(const struct arrival *a, const struct core_op *op)
{
    int64_t due = INT64_MAX;
    if (op->u.unit.due_s)
        return (struct wall){(int64_t)op->u.unit.due_s * 1000};
    for (unsigned i = 0; i < a->rcpt_count; i++)
        if (!rcpt_state_is_final(a->rcpts[i].state) && a->rcpts[i].next_due.ms < due)
            due = a->rcpts[i].next_due.ms;
    return due == INT64_MAX ? wall_now() : (struct wall){due};
}

static void carry_arrival(struct engine *e, struct store_job *j, const struct core_op *op)
{
    struct arrival *a = e->arrival;
    if (copy_of(op) && a->copy) {
        j->sc.copy = a->copy;
        j->sc.rows_on_disk = a->rows_on_disk;
        j->sc.may_fail = true;
        j->came_anew = true;
        engine_repeat_keep(e, &a->id, &a->copy->message->repeat_key);
    } else if (a->rcpt_count > 0 && op->u.unit.state == UNIT_LIVE) {
        j->heard = (struct store_settle){.unit = rows_unit_id(&a->id),
            .rcpts = a->rcpts,
            .rcpt_count = (uint16_t)a->rcpt_count,
            .next_due = heard_due(a, op)};
        j->sc.settle = &j->heard;
    } else {
        return;
    }
    j->arrival = a;
    e->arrival = NULL;
}

/* The parts of one message follow each other, and are one transaction. */
static bool continues(const struct engine *e, const struct core_op *op)
{
    const struct store_job *j = e->open_job;
    return accept_of(op) && j->accepting &&
           j->accepting == engine_accepting(e, op->accept_handle);
}

static bool is_plain(const struct engine *e, const struct core_command *c)
{
    const struct core_op *op = &c->u.store.op[0];
    return !c->u.store.may_fail && !accept_of(op) && !copy_of(op) &&
           !is_settling(e, op) && !arrived_with(e, op);
}

static bool may_join(const struct engine *e, const struct core_command *c)
{
    const struct store_job *j = e->open_job;
    if (continues(e, &c->u.store.op[0]))
        return j->sc.row_count + CORE_STORE_OPS <= JOB_ROWS;
    return is_plain(e, c) && !j->sc.may_fail && !j->accepting && has_room(j);
}

static void attach(struct engine *e, struct store_job *j, const struct core_op *op)
{
    if (accept_of(op))
        carry_message(e, j, op);
    else if (is_settling(e, op))
        carry_settle(e, j, op);
    else if (arrived_with(e, op))
        carry_arrival(e, j, op);
}

void engine_store_command(struct engine *e, const struct core_command *c)
{
    const struct core_op *op = c->u.store.op;
    if (e->open_job && !may_join(e, c))
        engine_store_flush(e);
    struct store_job *j = e->open_job;
    if (!j) {
        j = e->open_job = job_new(e);
        j->first_token = c->u.store.token;
        j->may_fail = j->sc.may_fail = c->u.store.may_fail;
    }
    j->last_token = c->u.store.token;
    for (uint8_t i = 0; i < c->u.store.op_count; i++) {
        attach(e, j, &op[i]);
        add_row(j, &op[i]);
        add_removal(e, j, &op[i]);
    }
}

/* --- the disk's health --- */

/* A disk that is slow again and again answers before the core's patience ends, each time,
 * and its node's mail would crawl: after SLOW_LONG_MS of that the core hears that it has
 * stalled, and gives the mail away. */
#define SLOW_MS 3000
#define SLOW_GAP_MS 15000
#define SLOW_LONG_MS 30000

static int64_t health_age_ms(struct engine *e)
{
    int64_t ms = store_commit_age_ms(e->deps.store);
    struct mono now = mono_now();
    bool goes_on = e->slow_seen.ns && mono_diff_ms(now, e->slow_seen) < SLOW_GAP_MS;
    if (ms > SLOW_MS) {
        if (!goes_on)
            e->slow_since = mono_add_ms(now, -ms);
        e->slow_seen = now;
        goes_on = true;
    }
    bool stalled = goes_on && mono_diff_ms(e->slow_seen, e->slow_since) > SLOW_LONG_MS;
    return stalled && ms <= SLOW_LONG_MS ? SLOW_LONG_MS + 1 : ms;
}

void engine_store_health(struct engine *e)
{
    int64_t ms = health_age_ms(e);
    uint64_t age = ms > 1000 ? (uint64_t)ms * CORE_MS : 0;
    /* Of copies: the intake asks for itself, and stops earlier. */
    bool full = store_admit_copy(e->deps.store, 0) != ERR_OK;
    if (age == 0 && e->told_age_ns == 0 && full == e->told_full)
        return;
    struct core_event event = {.kind = EV_STORAGE_HEALTH};
    event.u.health.commit_age_ns = e->told_age_ns = age;
    event.u.health.full = e->told_full = full;
    engine_step(e, &event);
}
