/* SPDX-License-Identifier: Apache-2.0 */
/* `quarantine release` on a node of a cluster. The mail goes into the queue as a new
 * message that this node takes like any other, with its copies, and only then leaves the
 * quarantine. Its id is new, so that nothing the members still know of the old one (a
 * tombstone, a copy of a node that is away) can meet it; and the same wherever and
 * however often the unit is released, so that this never makes two messages of it.
 * `quarantine look` is what wide_release.c asks every node first. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"
#include "node/control/release.h"
#include "node/delivery/schedule.h"

#define LINES_MAX (1u << 20)
/* The core takes no more at a time. */
#define BODY_MAX CORE_CREDIT_ALL
#define FATES_MAX 1000
#define SHORTEST_LIFE_MS (INT64_C(3600) * 1000)
#define FORCED 6 /* D6: an operator forced it */

/* --- look: what this node knows of the unit --- */

struct look {
    struct work work;
    struct unit_id id;
    json_t *line, *fates;
};

static void look_aside(const struct store_quarantined *q, void *ctx)
{
    struct look *l = ctx;
    json_object_set_new(l->line, "aside", json_true());
    json_object_set_new(l->line, "releasable", json_boolean(q->releasable));
    if (q->unit)
        json_object_set_new(
            l->line, "created_ms", json_integer(q->unit->message->created.ms));
}

static void add_fate(struct look *l, const char *event, json_t *fate)
{
    json_object_set_new(fate, "event", json_string(event));
    json_array_append_new(l->fates, fate);
}

static void look_record(const struct record *r, void *ctx)
{
    static const enum log_event ends[] = {LOG_EV_DELIVERED, LOG_EV_BOUNCED,
        LOG_EV_EXPIRED, LOG_EV_DROPPED, LOG_EV_SUPPRESSED};
    struct look *l = ctx;
    struct slice value;
    uint64_t unit;
    if (r->event == LOG_EV_RELEASED && record_get(r, "unit", &value) &&
        slice_u64(value, UINT16_MAX, &unit) && unit == l->id.unit &&
        record_get(r, "as", &value))
        json_set_text(l->line, "released_as", value);
    if (!record_get(r, "to", &value) || json_array_size(l->fates) >= FATES_MAX)
        return;
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
        if (r->event == ends[i])
            add_fate(l, log_event_name(ends[i]),
                json_pack("{s:o}", "to", control_text(value)));
}

/* What the cluster knows, of mail or of a tombstone. */
static void look_row(struct look *l)
{
    struct control_unit at;
    unit_stands(l->work.handlers, l->id, &at);
    for (int i = 0; i < 64; i++) {
        uint64_t bit = UINT64_C(1) << i;
        if ((at.delivered | at.failed) & bit)
            add_fate(l, at.delivered & bit ? "delivered" : "failed",
                json_pack("{s:i}", "index", i));
    }
}

static void look_run(struct work *w)
{
    struct look *l = CONTAINER_OF(w, struct look, work);
    const struct control_sources *s = &w->handlers->sources;
    struct unit_record *u = NULL;
    struct wall since = store_identity(s->store).made_at;
    struct wall kept = s->history ? history_since(s->history) : wall_now();
    l->line = json_pack("{s:s}", "node", s->node);
    l->fates = json_array();
    enum err err = store_read_quar(s->store, l->id, look_aside, l);
    enum err live = store_read_unit(s->store, l->id, &u);
    json_object_set_new(l->line, "live", json_boolean(live != ERR_STORE_NOT_FOUND));
    unit_record_free(u);
    look_row(l);
    if (s->history && history_find_id(s->history, l->id.msg, look_record, l) != ERR_OK)
        kept = wall_now();
    json_object_set_new(
        l->line, "since_ms", json_integer(since.ms > kept.ms ? since.ms : kept.ms));
    json_object_set_new(l->line, "fates", l->fates);
    json_line(l->line, &w->lines);
    w->err = err == ERR_STORE_NOT_FOUND ? ERR_OK : err;
}

static void look_done(struct work *w)
{
    work_continue(w, false);
}

static void look_free(struct work *w)
{
    free(CONTAINER_OF(w, struct look, work));
}

static void handle_look(struct control_request *req, json_t *args, void *ctx)
{
    struct unit_id id;
    if (!quarantine_take_id(req, args, &id))
        return;
    struct look *l = mem_zalloc(sizeof(*l));
    work_init(&l->work, ctx, req, LINES_MAX);
    l->work.run = look_run;
    l->work.done = look_done;
    l->work.free = look_free;
    l->id = id;
    work_start(&l->work);
}

/* --- release --- */

struct release {
    struct work work;
    struct unit_id id;
    json_t *skip; /* fates: recipients that others have ended */
    bool forced;
    unsigned skipped, in_doubt;
    struct message *message;
    struct rights_accept accept;
    struct store_quar drop;
};

static bool is_skipped(const struct release *r, const struct rcpt_record *rcpt)
{
    size_t i;
    json_t *fate;
    json_array_foreach(r->skip, i, fate)
    {
        const json_t *index = json_object_get(fate, "index");
        const char *to = json_string_value(json_object_get(fate, "to"));
        if ((index && json_integer_value(index) == rcpt->rcpt.index) ||
            (to && slice_eq_nocase(slice_str(to), rcpt->rcpt.address)))
            return true;
    }
    return false;
}

static struct slice dup(struct message *m, struct slice s)
{
    return s.len ? arena_dup(m->arena, s) : SLICE("");
}

static void copy_envelope(struct message *m, const struct message *from)
{
    m->created = from->created;
    m->reverse_path = dup(m, from->reverse_path);
    m->envid = dup(m, from->envid);
    m->ret = from->ret;
    m->body_type = from->body_type;
    m->smtputf8 = from->smtputf8;
    m->origin = from->origin;
    m->user = dup(m, from->user);
    m->listener = dup(m, from->listener);
    m->client = from->client;
    m->helo = dup(m, from->helo);
    m->why = dup(m, from->why);
    m->size = from->size;
    m->body_crc = from->body_crc;
}

/* Why its delivery may be its second; 0: it is not. */
static uint8_t doubt_of(const struct release *r, const struct rcpt_record *rcpt)
{
    if (rcpt->attempt_id)
        return (uint8_t)(rcpt->attempt_id <= 8 ? rcpt->attempt_id : 7);
    if (rcpt->state == RCPT_IN_DOUBT)
        return 1;
    return r->forced ? FORCED : 0;
}

static void add_rcpt(struct release *r, const struct rcpt_record *from)
{
    struct message *m = r->message;
    struct message_unit *u = &m->units[0];
    if (rcpt_state_is_final(from->state))
        return;
    if (is_skipped(r, from)) {
        r->skipped++;
        return;
    }
    uint8_t doubt = doubt_of(r, from);
    r->in_doubt += doubt != 0;
    u->rcpts[u->rcpt_count] = (struct recipient){.address = dup(m, from->rcpt.address),
        .orcpt = dup(m, from->rcpt.orcpt),
        .notify = from->rcpt.notify,
        .index = u->rcpt_count,
        .doubt = doubt};
    u->rcpt_count++;
}

/* It gets the time that it was once given, from now on. */
static struct wall expires_of(const struct message *from)
{
    int64_t life = from->units[0].expires.ms - from->created.ms;
    int64_t until = wall_now().ms + (life > SHORTEST_LIFE_MS ? life : SHORTEST_LIFE_MS);
    return (struct wall){
        until > from->units[0].expires.ms ? until : from->units[0].expires.ms};
}

static struct msg_id new_id(struct unit_id id)
{
    struct msg_id_hash h;
    unsigned char key[UNIT_ID_BYTES];
    unit_id_key(id, key);
    msg_id_hash_init(&h);
    msg_id_hash_add(&h, "released", 8);
    msg_id_hash_add(&h, key, sizeof(key));
    return msg_id_hash_end(&h, id.msg);
}

static void build(const struct store_quarantined *q, void *ctx)
{
    struct release *r = ctx;
    if (!q->unit || !q->releasable)
        return;
    const struct message *from = q->unit->message;
    struct message *m = r->message = message_new();
    m->id = new_id(r->id);
    copy_envelope(m, from);
    m->unit_count = 1;
    m->units = arena_alloc(m->arena, sizeof(*m->units));
    m->units[0] = (struct message_unit){.domain = dup(m, from->units[0].domain),
        .rcpts = arena_alloc(m->arena, q->unit->rcpt_count * sizeof(struct recipient)),
        .expires = expires_of(from),
        .delay_warning_ms = from->units[0].delay_warning_ms};
    for (uint16_t i = 0; i < q->unit->rcpt_count; i++)
        add_rcpt(r, &q->unit->rcpts[i]);
}

static void release_run(struct work *w)
{
    struct release *r = CONTAINER_OF(w, struct release, work);
    struct store *store = w->handlers->sources.store;
    w->err = store_read_quar(store, r->id, build, r);
    if (w->err == ERR_OK && !r->message)
        w->err = ERR_STORE_DAMAGED;
    if (w->err != ERR_OK || r->message->units[0].rcpt_count == 0)
        return;
    struct message *m = r->message;
    w->err = store_load_body(store, r->id.msg, BODY_MAX, &m->body);
    if (w->err == ERR_OK &&
        (body_size(m->body) != m->size || body_crc(m->body) != m->body_crc))
        w->err = ERR_STORE_DAMAGED;
}

static void release_free(struct work *w)
{
    struct release *r = CONTAINER_OF(w, struct release, work);
    message_unref(r->message);
    json_decref(r->skip);
    free(r);
}

static void reply(struct release *r)
{
    char id[UNIT_ID_TEXT_MAX], as[MSG_ID_TEXT + 1];
    unit_id_format(r->id, id);
    msg_id_format(r->message->id, as);
    json_t *o = json_pack("{s:s,s:s,s:s,s:s,s:i,s:i}", "id", id, "node",
        r->work.handlers->sources.node, "done", "released", "as", as, "recipients",
        (int)r->message->units[0].rcpt_count, "ended_elsewhere", (int)r->skipped);
    if (r->forced)
        json_object_set_new(o, "possible_duplicate", json_string("D6"));
    json_line(o, &r->work.lines);
    r->work.err = ERR_OK;
    work_continue(&r->work, false);
}

/* When it stays there all the same, it is the same message that a second release makes,
 * and that is refused: its history says what it became. */
static void dropped(struct store_op *op, void *owner)
{
    struct store_quar *q = CONTAINER_OF(op, struct store_quar, op);
    (void)owner;
    reply(CONTAINER_OF(q, struct release, drop));
}

static void log_released(const struct release *r)
{
    char as[MSG_ID_TEXT + 1];
    struct record rec;
    msg_id_format(r->message->id, as);
    record_init(&rec, LOG_EV_RELEASED);
    record_msg_id(&rec, "id", r->id.msg);
    record_int(&rec, "unit", r->id.unit);
    record_str(&rec, "as", as);
    if (r->in_doubt)
        record_int(&rec, "in_doubt", r->in_doubt);
    if (r->forced)
        record_str(&rec, "possible_duplicate", "D6");
    record_emit(&rec);
}

static void accepted(struct rights_accept *a, enum err result, void *owner)
{
    struct release *r = CONTAINER_OF(a, struct release, accept);
    struct control_handlers *h = r->work.handlers;
    (void)owner;
    if (result == ERR_OUTCOME_UNKNOWN) {
        work_fail(&r->work, 1, "release it again: that never makes a second message",
            "whether its copies are durable is not known");
        return;
    }
    if (result != ERR_OK) {
        work_fail(&r->work, 1,
            "it stays in the quarantine; batonctl status says what is wrong",
            err_text(result));
        return;
    }
    log_released(r);
    if (h->stopped) {
        reply(r);
        return;
    }
    schedule_accepted(h->sources.schedule, r->message);
    r->drop.unit = r->id;
    r->drop.verb = STORE_QUAR_DROP;
    r->drop.op = (struct store_op){
        .kind = STORE_OP_QUAR, .reply_to = loop_mailbox(h->loop), .done = dropped};
    store_submit(h->sources.store, &r->drop.op);
}

static void release_failed(struct work *w)
{
    if (w->err == ERR_STORE_NOT_FOUND)
        work_fail(w, 1, "batonctl quarantine ls shows what is",
            "no such message in the quarantine of this node");
    else if (w->err == ERR_TOO_BIG)
        work_fail(w, 1, "batonctl quarantine show says whom to ask to send it again",
            "it is too large to be released");
    else
        work_fail(w, 1,
            "ask its sender to send it again (batonctl quarantine show), then batonctl "
            "quarantine drop it",
            "its envelope or its body on this disk is damaged");
}

static void release_done(struct work *w)
{
    struct release *r = CONTAINER_OF(w, struct release, work);
    if (w->handlers->stopped) {
        work_fail(w, 1, "batonctl quarantine ls, once it runs again", "the node stops");
    } else if (w->err != ERR_OK) {
        release_failed(w);
    } else if (r->message->units[0].rcpt_count == 0) {
        work_fail(w, 1, "batonctl trace says how; batonctl quarantine drop removes it",
            "each of its recipients was delivered or ended by another node");
    } else {
        r->accept = (struct rights_accept){.store = {.message = r->message},
            .reply_to = loop_mailbox(w->handlers->loop),
            .done = accepted};
        rights_accept(w->handlers->sources.rights, &r->accept);
    }
}

static bool may_release(
    struct control_request *req, const struct control_sources *s, json_t *args)
{
    bool asked = false, forced = false;
    if (!control_arg_bool(req, args, "asked", &asked) ||
        !control_arg_bool(req, args, "may_duplicate", &forced))
        return false;
    if (!s->schedule || !s->rights)
        control_fail(req, 1, NULL, "this node cannot change its queue");
    else if (!asked && !forced)
        control_fail(req, 1, "ask for the whole cluster, or accept that (may_duplicate)",
            "the other nodes were not asked whether they delivered it");
    else
        return true;
    return false;
}

void release_in_cluster(struct control_request *req, json_t *args,
    struct control_handlers *h, struct unit_id id)
{
    json_t *skip = json_object_get(args, "skip");
    if (!may_release(req, &h->sources, args))
        return;
    struct release *r = mem_zalloc(sizeof(*r));
    work_init(&r->work, h, req, LINES_MAX);
    r->work.run = release_run;
    r->work.done = release_done;
    r->work.free = release_free;
    r->id = id;
    r->skip = json_is_array(skip) ? json_incref(skip) : json_array();
    r->forced = json_is_true(json_object_get(args, "may_duplicate"));
    work_start(&r->work);
}

void release_register(struct control *c, struct control_handlers *h)
{
    control_register(c, "quarantine look", CONTROL_READS, handle_look, h);
}
