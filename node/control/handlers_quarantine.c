/* SPDX-License-Identifier: Apache-2.0 */
/* `quarantine ls|show|release|drop`: mail that was put aside because it was damaged, or
 * because the cluster does not trust it. */
#include <stdlib.h>

#include "base/alloc.h"
#include "node/control/release.h"
#include "node/control/unit_json.h"
#include "node/delivery/schedule.h"

#define LINES_MAX (8u << 20)
#define LIST_MAX 10000

struct look {
    struct work work;
    struct unit_id id;
    bool one; /* show */
    unsigned count;
};

static json_t *quarantined_json(
    const struct store_quarantined *q, const char *node, bool all)
{
    char id[MSG_ID_TEXT + 1];
    json_t *o = q->unit && all ? unit_json_full(q->unit, node)
                : q->unit      ? unit_json(q->unit, node, true)
                               : json_object();
    msg_id_format(q->id.msg, id);
    json_object_set_new(o, "id", json_string(id));
    json_object_set_new(o, "unit", json_integer(q->id.unit));
    json_set_text(o, "node", slice_str(node));
    json_set_text(o, "reason", q->reason);
    json_object_set_new(o, "since", json_time(q->at));
    json_object_set_new(o, "rows", json_integer(q->rows));
    json_object_set_new(o, "damaged", json_integer(q->damaged));
    json_object_set_new(o, "releasable", json_boolean(q->releasable));
    return o;
}

static bool found(const struct store_quarantined *q, void *ctx)
{
    struct look *l = ctx;
    bool fits = json_line(
        quarantined_json(q, l->work.handlers->sources.node, l->one), &l->work.lines);
    return fits && ++l->count < LIST_MAX &&
           !atomic_load_explicit(&l->work.cancelled, memory_order_relaxed);
}

static void found_one(const struct store_quarantined *q, void *ctx)
{
    found(q, ctx);
}

static void look_run(struct work *w)
{
    struct look *l = CONTAINER_OF(w, struct look, work);
    struct store *store = w->handlers->sources.store;
    w->err = l->one ? store_read_quar(store, l->id, found_one, l)
                    : store_list_quar(store, NULL, found, l);
}

static void look_done(struct work *w)
{
    if (w->err == ERR_STORE_NOT_FOUND)
        work_fail(w, 1, "batonctl quarantine ls shows what is",
            "no such message in the quarantine");
    else
        work_continue(w, false);
}

static void look_free(struct work *w)
{
    free(CONTAINER_OF(w, struct look, work));
}

static void look(
    struct control_handlers *h, struct control_request *req, const struct unit_id *id)
{
    struct look *l = mem_zalloc(sizeof(*l));
    work_init(&l->work, h, req, LINES_MAX);
    l->work.run = look_run;
    l->work.done = look_done;
    l->work.free = look_free;
    l->one = id != NULL;
    if (id)
        l->id = *id;
    work_start(&l->work);
}

bool quarantine_take_id(struct control_request *req, json_t *args, struct unit_id *out)
{
    const char *text;
    *out = (struct unit_id){0};
    if (!control_arg_text(req, args, "id", &text))
        return false;
    if (text &&
        (unit_id_parse(slice_str(text), out) || msg_id_parse(slice_str(text), &out->msg)))
        return true;
    control_fail(req, 1, "ids are as batonctl quarantine ls shows them",
        "not a message id: %.60s", text ? text : "");
    return false;
}

static void handle_ls(struct control_request *req, json_t *args, void *ctx)
{
    (void)args;
    look(ctx, req, NULL);
}

static void handle_show(struct control_request *req, json_t *args, void *ctx)
{
    struct unit_id id;
    if (quarantine_take_id(req, args, &id))
        look(ctx, req, &id);
}

/* --- what is done with it --- */

struct verb {
    struct store_quar op;
    struct control_request *req;
    struct control_handlers *handlers;
};

static const char *next_step(enum err err)
{
    if (err == ERR_STORE_NOT_FOUND)
        return "batonctl quarantine ls shows what is there";
    if (err == ERR_STORE_EXISTS)
        return "the message is in the queue already: batonctl quarantine drop this one";
    return "too little of it is whole: batonctl quarantine show says what is";
}

static void verb_done(struct store_op *op, void *owner)
{
    struct verb *v = CONTAINER_OF(op, struct verb, op.op);
    bool release = v->op.verb == STORE_QUAR_RELEASE;
    char id[UNIT_ID_TEXT_MAX];
    (void)owner;
    unit_id_format(v->op.unit, id);
    if (op->result != ERR_OK) {
        control_fail(v->req, 1, next_step(op->result), "%s: %s", id,
            op->result == ERR_STORE_NOT_FOUND ? "not in the quarantine"
                                              : err_text(op->result));
    } else {
        json_t *o = json_object();
        json_set_text(o, "id", slice_str(id));
        json_set_text(o, "node", slice_str(v->handlers->sources.node));
        json_object_set_new(o, "done", json_string(release ? "released" : "dropped"));
        if (release && !v->handlers->stopped && v->handlers->sources.schedule)
            schedule_unit_start(v->handlers->sources.schedule, v->op.unit, UINT64_MAX, 0,
                (struct wall){0});
        control_reply(v->req, o);
        control_finish(v->req, 0);
    }
    free(v);
}

static void submit(struct control_handlers *h, struct control_request *req,
    struct unit_id id, bool release)
{
    struct verb *v = mem_zalloc(sizeof(*v));
    v->req = req;
    v->handlers = h;
    v->op.unit = id;
    v->op.verb = release ? STORE_QUAR_RELEASE : STORE_QUAR_DROP;
    v->op.op.kind = STORE_OP_QUAR;
    v->op.op.reply_to = loop_mailbox(h->loop);
    v->op.op.done = verb_done;
    store_submit(h->sources.store, &v->op.op);
}

static void handle_release(struct control_request *req, json_t *args, void *ctx)
{
    struct control_handlers *h = ctx;
    struct unit_id id;
    if (!quarantine_take_id(req, args, &id))
        return;
    if (h->sources.peers)
        release_in_cluster(req, args, h, id);
    else
        submit(h, req, id, true);
}

static void handle_drop(struct control_request *req, json_t *args, void *ctx)
{
    const char *reason;
    struct unit_id id;
    if (!quarantine_take_id(req, args, &id) ||
        !control_arg_text(req, args, "reason", &reason))
        return;
    if (!reason || !reason[0])
        control_fail(req, 1, "say why with --reason; it is kept in the log",
            "drop wants a reason: what it drops is gone for good");
    else
        submit(ctx, req, id, false);
}

void quarantine_register(struct control *c, struct control_handlers *h)
{
    control_register(c, "quarantine ls", CONTROL_READS, handle_ls, h);
    control_register(c, "quarantine show", CONTROL_READS, handle_show, h);
    control_register(c, "quarantine release", CONTROL_CHANGES, handle_release, h);
    control_register(c, "quarantine drop", CONTROL_CHANGES, handle_drop, h);
    release_register(c, h);
}
