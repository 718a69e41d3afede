/* SPDX-License-Identifier: Apache-2.0 */
/* The backend of node/delivery/rights.h: each call is posted to the engine's thread,
 * becomes an event of the core, and is answered from a command. */
#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/metrics.h"
#include "node/cluster/engine_internal.h"

struct ticket_slot {
    struct table_node by_unit;
    struct attempt_ticket *ticket;
    uint64_t attempt, rcpts;
};

/* --- accept --- */

static void accept_done(struct mail *mail, void *owner)
{
    struct rights_accept *a = CONTAINER_OF(mail, struct rights_accept, mail);
    a->done(a, a->result, owner);
}

static void answer_accept(struct rights_accept *a, enum err result)
{
    a->result = result;
    mailbox_post(a->reply_to, &a->mail, accept_done);
}

struct accepting *engine_accepting(const struct engine *e, uint64_t handle)
{
    struct table_node *n = table_find(&e->accepts, table_number_key(handle));
    return n ? CONTAINER_OF(n, struct accepting, by_handle) : NULL;
}

struct accepting *engine_hot(const struct engine *e, const struct core_unit_id *id)
{
    struct table_node *n = table_find(&e->hot, table_message_key(id));
    return n ? CONTAINER_OF(n, struct accepting, by_message) : NULL;
}

static void accepting_free(struct engine *e, struct accepting *a)
{
    table_remove(&e->accepts, &a->by_handle);
    table_remove(&e->hot, &a->by_message);
    message_unref(a->message);
    free(a);
}

/* Our message is answered and the store needs it no more. */
static void release(struct engine *e, struct accepting *a)
{
    if (a->reply && (a->is_stored || !a->is_storing))
        accepting_free(e, a);
}

void engine_accept_stored(struct engine *e, struct accepting *a, enum err result)
{
    a->is_stored = true;
    a->stored = result;
    release(e, a);
}

static bool fits_core(const struct message *m)
{
    if (m->unit_count == 0 || m->unit_count > MESSAGE_UNITS_MAX || m->size > UINT32_MAX)
        return false;
    for (unsigned i = 0; i < m->unit_count; i++)
        if (m->units[i].rcpt_count == 0 || m->units[i].rcpt_count > UNIT_RCPTS_MAX ||
            m->units[i].unit != i)
            return false;
    return true;
}

static void fill_accept(struct core_event *event, const struct message *m)
{
    int64_t expires = 0;
    event->kind = EV_ACCEPT;
    event->u.accept.wall_ms = (uint64_t)m->created.ms;
    event->u.accept.id = rows_core_id((struct unit_id){.msg = m->id});
    event->u.accept.size_bytes = (uint32_t)m->size;
    event->u.accept.body_crc = m->body_crc;
    event->u.accept.flags = m->reverse_path.len == 0 ? UNIT_NULL_SENDER : 0;
    event->u.accept.part_count = (uint8_t)m->unit_count;
    for (unsigned i = 0; i < m->unit_count; i++) {
        event->u.accept.rcpts[i] = (uint8_t)m->units[i].rcpt_count;
        if (m->units[i].expires.ms > expires)
            expires = m->units[i].expires.ms;
    }
    event->u.accept.expires_s = (uint32_t)(expires / 1000);
}

static void begin_accept(struct engine *e, struct message *m, uint32_t rows_on_disk,
    struct rights_accept *asked, struct rights_settle *settle)
{
    struct core_event event = {.kind = EV_ACCEPT};
    struct accepting *a = mem_zalloc(sizeof(*a));
    fill_accept(&event, m);
    a->message = message_ref(m);
    a->rows_on_disk = rows_on_disk;
    a->asked = asked;
    a->settle = settle;
    event.u.accept.handle = ++e->handle;
    table_add(&e->accepts, &a->by_handle, table_number_key(e->handle));
    table_add(&e->hot, &a->by_message, table_message_key(&event.u.accept.id));
    if (!asked)
        event.u.accept.flags |= UNIT_IS_DSN;
    engine_step(e, &event);
}

static void accept_asked(struct mail *mail, void *owner)
{
    struct rights_accept *a = CONTAINER_OF(mail, struct rights_accept, mail);
    struct engine *e = owner;
    struct message *m = a->store.message;
    struct core_unit_id id = rows_core_id((struct unit_id){.msg = m->id});
    engine_busy(e);
    if (e->is_stopping)
        answer_accept(a, ERR_SHUTTING_DOWN);
    else if (!fits_core(m) || engine_hot(e, &id))
        answer_accept(a, ERR_COPIES_UNAVAILABLE);
    else
        begin_accept(e, m, a->store.rows_on_disk, a, NULL);
}

static void ask_accept(void *ctx, struct rights_accept *a)
{
    struct engine *e = ctx;
    mailbox_post(e->box, &a->mail, accept_asked);
}

static void log_copies(struct engine *e, const struct core_unit_id *id)
{
    struct unit_row row;
    unsigned copies = 0;
    if (!engine_unit(e, id, &row))
        return;
    for (unsigned i = 0; i < row.list_count; i++)
        copies += row.list[i].status == LIST_HOLD;
    if (copies < 2)
        return;
    struct record r;
    record_init(&r, LOG_EV_REPLICATED);
    record_msg_id(&r, "id", rows_unit_id(id).msg);
    record_int(&r, "copies", copies);
    for (unsigned i = 0; i < row.list_count; i++) {
        struct engine_peer *p = engine_peer(e, row.list[i].node);
        if (p && row.list[i].status == LIST_HOLD)
            record_printf(&r, "holder", "%.30s", p->ident.name);
    }
    record_emit(&r);
}

static enum err result_of(const struct accepting *a)
{
    if (a->reply == REPLY_250)
        return ERR_OK;
    if (a->reply == REPLY_CLOSE)
        return ERR_OUTCOME_UNKNOWN;
    return a->is_stored && a->stored == ERR_STORE_FULL ? ERR_STORE_FULL
                                                       : ERR_COPIES_UNAVAILABLE;
}

static void dsn_answered(struct engine *e, struct accepting *a);

void engine_accept_reply(struct engine *e, const struct core_command *c)
{
    struct accepting *a = engine_accepting(e, c->u.accept.handle);
    if (!a || a->reply)
        return;
    a->reply = c->u.accept.reply;
    if (a->reply == REPLY_250) {
        e->accepted = c->u.accept.id;
        e->has_accepted = a->asked != NULL;
        log_copies(e, &c->u.accept.id);
    }
    if (a->asked)
        answer_accept(a->asked, result_of(a));
    else
        dsn_answered(e, a);
    release(e, a);
}

/* --- outcomes --- */

static void settle_done(struct mail *mail, void *owner)
{
    struct store_op *op = CONTAINER_OF(mail, struct store_op, mail);
    op->done(op, owner);
}

void engine_settled(struct engine *e, struct rights_settle *s, enum err result)
{
    (void)e;
    s->store.op.result = result;
    mailbox_post(s->store.op.reply_to, &s->store.op.mail, settle_done);
}

static void ticket_forget(struct engine *e, struct ticket_slot *t)
{
    table_remove(&e->tickets, &t->by_unit);
    ticket_unref(t->ticket);
    free(t);
}

static struct ticket_slot *ticket_find(struct engine *e, struct core_unit_id id)
{
    struct table_node *n = table_find(&e->tickets, table_unit_key(&id));
    return n ? CONTAINER_OF(n, struct ticket_slot, by_unit) : NULL;
}

static void tell_outcome(struct engine *e, struct rights_settle *s)
{
    struct core_event event = {.kind = EV_OUTCOME};
    struct core_unit_id id = rows_core_id(s->store.unit);
    struct ticket_slot *t = ticket_find(e, id);
    int64_t due = s->store.next_due.ms / 1000;
    event.u.attempt.id = id;
    event.u.attempt.attempt = s->attempt_id;
    event.u.attempt.rcpts = s->tried;
    event.u.attempt.delivered = s->delivered;
    event.u.attempt.failed = s->failed;
    event.u.attempt.doubt = s->doubt;
    event.u.attempt.due_s = due > 0 && due < UINT32_MAX ? (uint32_t)due : 0;
    if (t && t->attempt == s->attempt_id)
        ticket_forget(e, t);
    engine_keep_outcome(e, s);
    e->settling = s;
    engine_step(e, &event);
    if (e->settling == s) {
        /* The core has forgotten the unit: others have ended it. */
        e->settling = NULL;
        engine_settled(e, s, ERR_STORE_NOT_FOUND);
    }
}

/* The report exists, with its copies, before the outcome that owes it. */
static void settle_next(struct engine *e, struct rights_settle *s)
{
    if (s->dsns_done >= s->store.dsn_count) {
        tell_outcome(e, s);
        return;
    }
    struct message *dsn = s->store.dsns[s->dsns_done];
    struct core_unit_id id = rows_core_id((struct unit_id){.msg = dsn->id});
    if (engine_hot(e, &id))
        engine_settled(e, s, ERR_COPIES_UNAVAILABLE);
    else
        begin_accept(e, dsn, 0, NULL, s);
}

static void settle_asked(struct mail *mail, void *owner)
{
    struct rights_settle *s = CONTAINER_OF(mail, struct rights_settle, mail);
    engine_busy(owner);
    s->dsns_done = 0;
    settle_next(owner, s);
}

static void outcome(void *ctx, struct rights_settle *s)
{
    struct engine *e = ctx;
    mailbox_post(e->box, &s->mail, settle_asked);
}

static void settle_on(struct mail *mail, void *owner)
{
    settle_next(owner, CONTAINER_OF(mail, struct rights_settle, mail));
}

/* The core is in a step; what follows comes by mail. */
static void dsn_answered(struct engine *e, struct accepting *a)
{
    struct rights_settle *s = a->settle;
    if (a->reply == REPLY_250) {
        s->dsns_done++;
        mailbox_post(e->box, &s->mail, settle_on);
        return;
    }
    engine_settled(e, s, ERR_COPIES_UNAVAILABLE);
}

/* --- attempts --- */

/* Who may have theirs already, as it stands before this attempt, and why: a session ended
 * with its dot out (D1), our own attempt had no reply (D7), or its owner in static mode
 * was sworn to be off, and nobody heard what it did (D6). */
static void note_doubt(struct engine *e, const struct core_unit_id *id)
{
    struct unit_row row;
    uint64_t ours = (uint64_t)(e->gate.epoch & 0xffffff) << 16 | (e->node & 0xffff);
    bool known = engine_unit(e, id, &row);
    e->asking_doubt = known ? row.doubt : 0;
    bool forced = known && row.attempt == ATTEMPT_FORCED;
    e->asking_cause = known && row.attempt >> 24 == ours ? '7' : forced ? '6' : '1';
}

static void begin_asked(struct mail *mail, void *owner)
{
    struct attempt_ticket *t = CONTAINER_OF(mail, struct attempt_ticket, backend_mail);
    struct engine *e = owner;
    struct core_event event = {.kind = EV_INTENT_REQ};
    engine_busy(e);
    event.u.attempt.id = rows_core_id(t->unit);
    event.u.attempt.rcpts = t->rcpts;
    note_doubt(e, &event.u.attempt.id);
    e->asking = t;
    engine_step(e, &event);
    if (e->asking) { /* no answer: the core always gives one */
        e->asking = NULL;
        ticket_answer(t, 0, 0, 0);
        ticket_unref(t);
    }
}

static void begin(void *ctx, struct attempt_ticket *t)
{
    struct engine *e = ctx;
    mailbox_post(e->box, &t->backend_mail, begin_asked);
}

void engine_attempt(struct engine *e, const struct core_command *c)
{
    struct attempt_ticket *t = e->asking;
    if (!t)
        return;
    e->asking = NULL;
    if (c->u.unit.rcpts == 0) {
        ticket_answer(t, 0, 0, e->gate.epoch);
        ticket_unref(t);
        return;
    }
    struct ticket_slot *old = ticket_find(e, c->u.unit.id);
    if (old) { /* of a session that is over */
        ticket_close(old->ticket);
        ticket_forget(e, old);
    }
    struct ticket_slot *slot = mem_zalloc(sizeof(*slot));
    slot->ticket = t;
    slot->attempt = c->u.unit.attempt;
    slot->rcpts = c->u.unit.rcpts;
    table_add(&e->tickets, &slot->by_unit, table_unit_key(&c->u.unit.id));
    if (e->asking_doubt & slot->rcpts)
        ticket_doubt(t, e->asking_doubt & slot->rcpts, e->asking_cause);
    else if (c->u.unit.doubt & slot->rcpts)
        ticket_doubt(t, c->u.unit.doubt & slot->rcpts, '1');
    ticket_answer(t, slot->attempt, slot->rcpts, e->gate.epoch);
}

void engine_intent_ok(struct engine *e, const struct core_command *c)
{
    struct ticket_slot *t = ticket_find(e, c->u.unit.id);
    if (t && t->attempt == c->u.unit.attempt)
        ticket_open(t->ticket);
}

static void cancel_all(struct engine *e)
{
    struct table_node *n;
    while ((n = table_any(&e->tickets))) {
        struct ticket_slot *t = CONTAINER_OF(n, struct ticket_slot, by_unit);
        ticket_close(t->ticket);
        ticket_forget(e, t);
    }
}

void engine_cancel(struct engine *e, const struct core_command *c)
{
    const struct core_unit_id *id = &c->u.unit.id;
    struct ticket_slot *t = ticket_find(e, *id);
    if (id->hi == 0 && id->lo == 0)
        cancel_all(e);
    else if (t) {
        ticket_close(t->ticket);
        ticket_forget(e, t);
    }
    e->deps.events->cancel(e->deps.ctx, rows_unit_id(id));
}

static void gone_told(struct mail *mail, void *owner)
{
    struct attempt_ticket *ticket = CONTAINER_OF(mail, struct attempt_ticket, gone_mail);
    struct engine *e = owner;
    struct core_event event = {.kind = EV_ATTEMPT_GONE};
    struct core_unit_id id = rows_core_id(ticket->unit);
    struct ticket_slot *t = ticket_find(e, id);
    engine_busy(e);
    event.u.attempt.id = id;
    event.u.attempt.attempt = atomic_load(&ticket->id);
    event.u.attempt.rcpts = atomic_load(&ticket->granted);
    if (t && t->ticket == ticket)
        ticket_forget(e, t);
    /* Told even when the right has gone meanwhile: it ends the doubt of this attempt. */
    if (event.u.attempt.attempt)
        engine_step(e, &event);
    ticket_unref(ticket);
}

static void gone(void *ctx, struct attempt_ticket *t)
{
    struct engine *e = ctx;
    mailbox_post(e->box, &t->gone_mail, gone_told);
}

const struct rights_backend engine_backend = {.accept = ask_accept,
    .begin = begin,
    .gone = gone,
    .outcome = outcome,
    .suspect = engine_suspect_posted,
    .offer = engine_offer_posted,
    .need = engine_need_posted,
    .repeat = engine_repeat_posted,
    .repeat_told = engine_repeat_told_posted};

/* --- life --- */

void engine_rights_init(struct engine *e)
{
    table_init(&e->accepts);
    table_init(&e->hot);
    table_init(&e->tickets);
}

void engine_rights_end(struct engine *e)
{
    struct table_node *n;
    while ((n = table_any(&e->accepts))) {
        struct accepting *a = CONTAINER_OF(n, struct accepting, by_handle);
        if (!a->reply && a->asked)
            answer_accept(a->asked, ERR_OUTCOME_UNKNOWN);
        if (!a->reply && a->settle)
            engine_settled(e, a->settle, ERR_COPIES_UNAVAILABLE);
        accepting_free(e, a);
    }
    cancel_all(e);
}

void engine_rights_fini(struct engine *e)
{
    engine_rights_end(e);
    table_fini(&e->accepts);
    table_fini(&e->hot);
    table_fini(&e->tickets);
}
