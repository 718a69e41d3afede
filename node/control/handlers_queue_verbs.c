/* SPDX-License-Identifier: Apache-2.0 */
/* `queue hold|release|retry|expire|bounce|drop`, on this node's own mail, a batch at a
 * time: found in the store by a helper, taken from the scheduler, made durable, given
 * back. */
#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"
#include "node/control/filter.h"
#include "node/control/handlers_internal.h"
#include "node/delivery/hand.h"

#define PAGE_UNITS 20000 /* looked at, so that a cancel is heard */
#define PAGE_MS 400      /* a node that asks waits: then it hears how far it is */
#define LINE_MAX 4096
#define REASON_MAX 400
#define UNITS_OF_MAX 256

struct verb_row {
    const char *command;
    enum hand_want want;
    enum rcpt_state end; /* with HAND_END */
    bool own_reason;
};
static const struct verb_row rows[] = {{"queue hold", HAND_HOLD, RCPT_QUEUED, true},
    {"queue release", HAND_RELEASE, RCPT_QUEUED, false},
    {"queue retry", HAND_RETRY, RCPT_QUEUED, false},
    {"queue expire", HAND_END, RCPT_EXPIRED, true},
    {"queue bounce", HAND_END, RCPT_BOUNCED, true},
    {"queue drop", HAND_END, RCPT_DROPPED, true}};

enum step { STEP_FIND, STEP_BUILD };

struct verb_unit {
    struct verb *verb;
    unsigned at;
    bool is_copy; /* of another node's, which holds it itself: so that its heir does */
    bool waits;   /* for its takeover: nobody else tells of it */
    union {
        struct store_hold hold;
        struct store_due due;
        struct ending ending;
    } u;
};

struct verb {
    struct work work; /* its job finds and builds, in turns */
    const struct verb_row *row;
    struct filter filter;
    char *reason;
    bool has_id, one_unit, dry_run, one_page;
    struct unit_id id;
    struct settings *settings;
    struct wall now;
    struct mono started;
    enum step step;
    bool has_after, more;
    struct unit_id after;
    unsigned seen;
    uint64_t matched, changed, busy, failed, waiting_units;
    enum err why; /* of the last that failed */
    struct hand hand;
    struct verb_unit units[HAND_MAX];
    unsigned waiting; /* operations under way */
};

/* --- find --- */

static bool wants_rcpt(
    const struct unit_record *u, const struct rcpt_record *r, void *ctx)
{
    return filter_matches_rcpt(&((const struct verb *)ctx)->filter, u, r);
}

static bool wants_any(const struct verb *v, const struct unit_record *u)
{
    for (unsigned i = 0; i < u->rcpt_count; i++)
        if (filter_matches_rcpt(&v->filter, u, &u->rcpts[i]))
            return true;
    return false;
}

/* What came after the command was given is not meant: a report that it causes, above all.
 */
static bool is_meant(
    const struct verb *v, const struct unit_record *u, const struct control_unit *at)
{
    const char *node = at->owned ? v->work.handlers->sources.node : at->owner;
    return u->message->created.ms < v->now.ms &&
           filter_matches(&v->filter, u, node, v->now) && wants_any(v, u);
}

static void add_unit(
    struct verb *v, const struct unit_record *u, const struct control_unit *at)
{
    bool holds = v->row->want == HAND_HOLD || v->row->want == HAND_RELEASE;
    v->matched += at->owned || at->waits;
    if (!at->owned && at->waits && !holds)
        v->waiting_units++;
    bool as_it_is = u->held == (v->row->want == HAND_HOLD);
    if (v->dry_run || (!at->owned && (!holds || as_it_is)))
        return;
    v->units[v->hand.count].is_copy = !at->owned;
    v->units[v->hand.count].waits = at->waits;
    v->hand.units[v->hand.count++] = (struct hand_unit){.id = u->id};
}

static bool find_unit(const struct unit_record *u, void *ctx)
{
    struct verb *v = ctx;
    struct control_unit at;
    v->after = u->id;
    v->has_after = true;
    unit_stands(v->work.handlers, u->id, &at);
    if (is_meant(v, u, &at))
        add_unit(v, u, &at);
    v->more = v->hand.count == HAND_MAX || ++v->seen >= PAGE_UNITS;
    return !v->more && !atomic_load_explicit(&v->work.cancelled, memory_order_relaxed);
}

/* The units of one message. */
static void find_by_id(struct verb *v)
{
    struct store *store = v->work.handlers->sources.store;
    struct unit_id ids[UNITS_OF_MAX];
    struct unit_id after = v->after;
    bool has_after = v->has_after;
    unsigned count = store_units_of(store, v->id.msg, ids, UNITS_OF_MAX);
    bool go_on = true;
    for (unsigned i = 0; i < count && i < UNITS_OF_MAX && go_on; i++) {
        struct unit_record *u = NULL;
        if ((v->one_unit && ids[i].unit != v->id.unit) ||
            (has_after && unit_id_cmp(ids[i], after) <= 0) ||
            store_read_unit(store, ids[i], &u) != ERR_OK)
            continue;
        go_on = find_unit(u, v);
        unit_record_free(u);
    }
}

static void find(struct verb *v)
{
    struct unit_id after = v->after;
    v->seen = 0;
    v->more = false;
    v->hand.count = 0;
    if (v->has_id)
        find_by_id(v);
    else
        v->work.err = store_list(
            v->work.handlers->sources.store, v->has_after ? &after : NULL, find_unit, v);
}

static void build(struct verb *v)
{
    struct ending_ask ask = {.store = v->work.handlers->sources.store,
        .settings = v->settings,
        .state = v->row->end,
        .reason = slice_str(v->reason),
        .now = wall_now(),
        .wants = wants_rcpt,
        .ctx = v};
    for (unsigned i = 0; i < v->hand.count; i++)
        if (v->hand.units[i].found == HAND_TAKEN)
            ending_build(&v->units[i].u.ending, &v->hand.units[i], &ask);
}

static void verb_run(struct work *w)
{
    struct verb *v = CONTAINER_OF(w, struct verb, work);
    if (v->step == STEP_FIND)
        find(v);
    else
        build(v);
}

/* --- the end --- */

static void verb_free(struct work *w)
{
    struct verb *v = CONTAINER_OF(w, struct verb, work);
    settings_unref(v->settings);
    filter_fini(&v->filter);
    free(v->reason);
    free(v);
}

static json_t *summary(const struct verb *v)
{
    json_t *o =
        json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:b}", "node", v->work.handlers->sources.node,
            "matched", (json_int_t)v->matched, "changed", (json_int_t)v->changed, "busy",
            (json_int_t)v->busy, "failed", (json_int_t)v->failed, "waiting",
            (json_int_t)v->waiting_units, "dry_run", v->dry_run);
    if (v->failed)
        json_object_set_new(o, "error", json_string(err_text(v->why)));
    return o;
}

static void finish(struct verb *v, bool more)
{
    json_t *row = summary(v);
    if (v->one_page) {
        char after[UNIT_ID_TEXT_MAX] = "";
        unit_id_format(v->after, after);
        json_object_set_new(row, "more", json_boolean(more));
        json_object_set_new(row, "after", json_string(v->has_after ? after : ""));
        json_object_set_new(row, "before", json_integer(v->now.ms));
    } else {
        json_object_set_new(row, "nodes", json_pack("[o]", json_copy(row)));
        json_object_del(row, "node");
    }
    json_line(row, &v->work.lines);
    work_continue(&v->work, false);
}

/* A batch is done with. */
static void go_on(struct verb *v)
{
    bool over = v->work.handlers->stopped ||
                atomic_load_explicit(&v->work.cancelled, memory_order_relaxed);
    if (v->work.handlers->stopped && v->work.err == ERR_OK)
        v->work.err = ERR_SHUTTING_DOWN; /* not all was done; the log says what was */
    bool pause = v->one_page && mono_diff_ms(mono_now(), v->started) >= PAGE_MS;
    if (!v->more || over || pause || v->work.err != ERR_OK) {
        finish(v, v->more);
        return;
    }
    v->step = STEP_FIND;
    work_start(&v->work);
}

/* --- give back --- */

static void given(struct hand *hand, void *owner)
{
    (void)owner;
    go_on(CONTAINER_OF(hand, struct verb, hand));
}

static void give(struct verb *v)
{
    v->hand.done = given;
    if (v->work.handlers->stopped)
        go_on(v); /* the scheduler has stopped, and forgets all */
    else
        schedule_hand_give(v->work.handlers->sources.schedule, &v->hand);
}

static void one_done(struct verb *v)
{
    if (--v->waiting == 0)
        give(v);
}

static void took_place(struct verb_unit *vu, enum hand_fate fate)
{
    vu->verb->hand.units[vu->at].fate = fate;
    vu->verb->changed++;
}

/* False: it did not, and is counted so. */
static bool went_well(struct verb *v, enum err result)
{
    if (result == ERR_OK)
        return true;
    if (result == ERR_STORE_NOT_FOUND)
        return false; /* ended by others */
    v->failed++;
    v->why = result;
    return false;
}

static void log_held(const struct verb *v, struct unit_id id)
{
    struct record r;
    record_init(&r, LOG_EV_HELD);
    record_msg_id(&r, "id", id.msg);
    record_int(&r, "unit", id.unit);
    record_str(&r, "reason", v->reason);
    record_str(&r, "by", "operator");
    record_emit(&r);
}

static void hold_done(struct store_op *op, void *owner)
{
    struct store_hold *hold = CONTAINER_OF(op, struct store_hold, op);
    struct verb_unit *vu = CONTAINER_OF(hold, struct verb_unit, u.hold);
    (void)owner;
    bool taken = vu->verb->hand.units[vu->at].found == HAND_TAKEN;
    if (went_well(vu->verb, op->result) && (taken || vu->waits)) {
        if (taken)
            took_place(vu, hold->hold ? HAND_HELD : HAND_DUE);
        else
            vu->verb->changed++;
        if (hold->hold)
            log_held(vu->verb, hold->unit);
    }
    one_done(vu->verb);
}

static void due_done(struct store_op *op, void *owner)
{
    struct store_due *due = CONTAINER_OF(op, struct store_due, op);
    struct verb_unit *vu = CONTAINER_OF(due, struct verb_unit, u.due);
    (void)owner;
    if (went_well(vu->verb, op->result))
        took_place(vu, HAND_DUE);
    one_done(vu->verb);
}

static void ending_settled(struct verb_unit *vu)
{
    struct verb *v = vu->verb;
    struct ending *e = &vu->u.ending;
    struct hand_unit *hu = &v->hand.units[vu->at];
    ending_log(e);
    took_place(vu, e->outcome.store.unit_done ? HAND_ENDED : HAND_REST);
    v->busy += e->skipped > 0;
    hu->due = e->outcome.store.next_due;
    hu->in_doubt = e->in_doubt;
    if (e->dsn && !v->work.handlers->stopped)
        schedule_accepted(v->work.handlers->sources.schedule, e->dsn);
}

static void ending_done(struct store_op *op, void *owner)
{
    struct store_settle *stored = CONTAINER_OF(op, struct store_settle, op);
    struct rights_settle *outcome = CONTAINER_OF(stored, struct rights_settle, store);
    struct ending *e = CONTAINER_OF(outcome, struct ending, outcome);
    struct verb_unit *vu = CONTAINER_OF(e, struct verb_unit, u.ending);
    (void)owner;
    if (went_well(vu->verb, op->result))
        ending_settled(vu);
    else if (op->result == ERR_STORE_NOT_FOUND)
        vu->verb->hand.units[vu->at].fate = HAND_ENDED;
    ending_fini(e);
    one_done(vu->verb);
}

/* --- what was said, made durable --- */

static void submit_hold(struct verb *v, unsigned i)
{
    struct verb_unit *vu = &v->units[i];
    vu->u.hold = (struct store_hold){.op = {.kind = STORE_OP_HOLD,
                                         .reply_to = loop_mailbox(v->work.handlers->loop),
                                         .done = hold_done},
        .unit = v->hand.units[i].id,
        .hold = v->row->want == HAND_HOLD,
        .reason = slice_str(v->reason)};
    v->waiting++;
    store_submit(v->work.handlers->sources.store, &vu->u.hold.op);
}

static void submit_due(struct verb *v, unsigned i)
{
    struct verb_unit *vu = &v->units[i];
    vu->u.due = (struct store_due){.op = {.kind = STORE_OP_DUE,
                                       .reply_to = loop_mailbox(v->work.handlers->loop),
                                       .done = due_done},
        .unit = v->hand.units[i].id,
        .next_due = wall_now()};
    v->waiting++;
    store_submit(v->work.handlers->sources.store, &vu->u.due.op);
}

/* What cannot be settled goes back as it was. */
static void submit_ending(struct verb *v, unsigned i)
{
    struct ending *e = &v->units[i].u.ending;
    if (e->err == ERR_OK && e->some) {
        e->outcome.store.op.reply_to = loop_mailbox(v->work.handlers->loop);
        e->outcome.store.op.done = ending_done;
        v->waiting++;
        rights_outcome(v->work.handlers->sources.rights, &e->outcome);
        return;
    }
    v->busy += e->skipped > 0;
    if (e->err == ERR_STORE_NOT_FOUND)
        v->hand.units[i].fate = HAND_ENDED;
    else
        (void)went_well(v, e->err);
    ending_fini(e);
}

static void submit_all(struct verb *v, void (*submit)(struct verb *v, unsigned i))
{
    v->waiting = 1; /* ours, until all are handed in */
    for (unsigned i = 0; i < v->hand.count; i++) {
        v->units[i].verb = v;
        v->units[i].at = i;
        enum hand_found found = v->hand.units[i].found;
        if (found == HAND_TAKEN || (found == HAND_GONE && v->units[i].is_copy))
            submit(v, i);
    }
    one_done(v);
}

static void drop_built(struct verb *v)
{
    for (unsigned i = 0; i < v->hand.count; i++)
        if (v->hand.units[i].found == HAND_TAKEN)
            ending_fini(&v->units[i].u.ending);
}

/* Like work_start, but what is in hand must go back. */
static void build_on_helper(struct verb *v)
{
    v->step = STEP_BUILD;
    if (workers_submit(v->work.handlers->sources.helpers, &v->work.job))
        return;
    v->work.err = ERR_OVERLOADED;
    give(v);
}

static void taken(struct hand *hand, void *owner)
{
    struct verb *v = CONTAINER_OF(hand, struct verb, hand);
    (void)owner;
    for (unsigned i = 0; i < hand->count; i++)
        v->busy += hand->units[i].found == HAND_BUSY;
    if (v->work.handlers->stopped)
        go_on(v);
    else if (v->row->want == HAND_RETRY)
        submit_all(v, submit_due);
    else if (v->row->want == HAND_END)
        build_on_helper(v);
    else
        submit_all(v, submit_hold);
}

/* The helper has found a batch, or built it. */
static void verb_done(struct work *w)
{
    struct verb *v = CONTAINER_OF(w, struct verb, work);
    bool stopped = w->handlers->stopped;
    if (v->step == STEP_BUILD && stopped) {
        drop_built(v);
        go_on(v);
    } else if (v->step == STEP_BUILD) {
        submit_all(v, submit_ending);
    } else if (v->hand.count == 0 || stopped) {
        go_on(v);
    } else {
        v->hand.reply_to = loop_mailbox(w->handlers->loop);
        v->hand.want = v->row->want;
        v->hand.done = taken;
        schedule_hand_take(w->handlers->sources.schedule, &v->hand);
    }
}

/* --- the arguments --- */

static bool take_id(struct control_request *req, const char *text, struct verb *v)
{
    if (!text)
        return true;
    v->has_id = true;
    v->one_unit = unit_id_parse(slice_str(text), &v->id);
    if (v->one_unit || msg_id_parse(slice_str(text), &v->id.msg))
        return true;
    control_fail(req, 1, "ids have 26 letters and digits: see batonctl queue ls",
        "not a message id: %.60s", text);
    return false;
}

static bool take_reason(struct control_request *req, json_t *args, struct verb *v)
{
    const char *reason;
    if (!v->row->own_reason)
        return true;
    if (!control_arg_text(req, args, "reason", &reason))
        return false;
    size_t len = reason ? strlen(reason) : 0;
    if (v->row->want == HAND_END && len == 0) {
        control_fail(req, 1,
            "say why with --reason; it is kept in the log, and a report carries it",
            "%s wants a reason: it cannot be undone", v->row->command + strlen("queue "));
        return false;
    }
    if (len > REASON_MAX) {
        control_fail(req, 1, "say it in fewer words",
            "the reason is longer than %d bytes", REASON_MAX);
        return false;
    }
    v->reason = mem_strdup(len ? slice_str(reason) : SLICE("by an operator"));
    return true;
}

static bool take_after(struct control_request *req, json_t *args, struct verb *v)
{
    const char *after;
    if (!control_arg_text(req, args, "after", &after))
        return false;
    v->has_after = after != NULL;
    v->now = wall_now();
    if (!control_arg_int(req, args, "before", 0, v->now.ms, &v->now.ms))
        return false;
    if (!after || unit_id_parse(slice_str(after), &v->after))
        return true;
    control_fail(req, 1, NULL, "after must be the id of a unit");
    return false;
}

static bool take_args(struct control_request *req, json_t *args, struct verb *v)
{
    const char *id;
    bool all = false;
    if (!filter_init(&v->filter, req, args, v->row->own_reason) ||
        !control_arg_text(req, args, "id", &id) || !take_id(req, id, v) ||
        !control_arg_bool(req, args, "all", &all) || !take_reason(req, args, v) ||
        !control_arg_bool(req, args, "dry_run", &v->dry_run) ||
        !control_arg_bool(req, args, "page", &v->one_page) || !take_after(req, args, v))
        return false;
    if (v->has_id || all || !filter_is_empty(&v->filter))
        return true;
    control_fail(req, 1, "name an ID, a filter, or --all; --dry-run shows how many it is",
        "%s of the whole queue must be asked for", v->row->command + strlen("queue "));
    return false;
}

static bool may_run(
    struct control_request *req, const struct verb *v, const struct control_sources *s)
{
    if (!s->schedule) {
        control_fail(req, 1, NULL, "this node cannot change its queue");
        return false;
    }
    if (v->row->want != HAND_END || v->dry_run || rights_may_deliver(s->rights))
        return true;
    control_fail(req, 1,
        "batonctl status says why; its mail is another node's until then",
        "this node has no right to deliver now, so it cannot end mail either");
    return false;
}

static void handle_verb(struct control_request *req, json_t *args, void *ctx)
{
    struct control_handlers *h = ctx;
    struct verb *v = mem_zalloc(sizeof(*v));
    v->row = rows;
    while (strcmp(v->row->command, req->command) != 0)
        v->row++;
    if (!take_args(req, args, v) || !may_run(req, v, &h->sources)) {
        verb_free(&v->work);
        return;
    }
    work_init(&v->work, h, req, LINE_MAX);
    v->work.run = verb_run;
    v->work.done = verb_done;
    v->work.free = verb_free;
    v->settings = h->sources.in_force(h->sources.ctx);
    v->started = mono_now();
    work_start(&v->work);
}

void queue_verbs_register(struct control *c, struct control_handlers *h)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        control_register(c, rows[i].command, CONTROL_CHANGES, handle_verb, h);
}
