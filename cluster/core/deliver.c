/* SPDX-License-Identifier: Apache-2.0 */
/* Delivering: intents before the dot, outcomes as facts. */
#include "cluster/core/internal.h"

#include <string.h>

/* ---- attempts at the owner ---- */

static uint64_t session_tag(const struct core *core)
{
    return (uint64_t)(core->epoch & 0xffffff) << 16 | (core->node & 0xffff);
}

bool attempt_ours(const struct core *core, uint64_t attempt)
{
    return attempt >> 24 == session_tag(core);
}

static uint64_t new_attempt(struct core *core)
{
    core->attempt_counter = (core->attempt_counter + 1) & 0xffffff;
    return session_tag(core) << 24 | core->attempt_counter;
}

/* Recipients that may be tried now: not final, and not in doubt while the doubt is held.
 */
static uint64_t open_rcpts(const struct core *core, const struct unit *u)
{
    const struct work *w = work_of(core, u);
    uint64_t open = unit_all(u) & ~(u->delivered | u->failed);
    if (w && w->kind == WORK_OWN && w->hold_until > core->now)
        open &= ~u->doubt;
    return open;
}

void deliver_start(struct core *core, struct unit *u)
{
    if (u->flags & UF_DAMAGED)
        return;
    struct core_command *c = core_cmd(core, CMD_START);
    memset(&c->u.unit, 0, sizeof(c->u.unit));
    c->u.unit.id = unit_id(u);
    c->u.unit.rcpts = open_rcpts(core, u);
    c->u.unit.doubt = u->doubt;
    c->u.unit.due_s = u->due_s;
    c->u.unit.again = (u->flags & UF_STARTED) != 0;
    u->flags |= UF_STARTED;
}

/* The session ends with an attempt under way: what it did becomes a doubt. */
void deliver_suspend(struct core *core, struct unit *u)
{
    const struct work *w = work_of(core, u);
    if (!w || w->kind != WORK_OWN || w->attempt == 0)
        return;
    u->doubt |= w->attempt_rcpts & ~(u->delivered | u->failed);
    u->attempt = w->attempt;
}

static void send_intent(struct core *core, struct unit *u, struct work *w)
{
    for (int i = 0; i < u->list_count; i++) {
        if (u->list[i] == core->self || peer_down(core, u->list[i]) ||
            (w->acked >> i & 1))
            continue;
        /* the lane of the copy: a copy sent before it can never come after it */
        struct core_msg m = {.kind = MSG_INTENT, .env.lane = lane_of(u)};
        m.u.attempt.id = unit_id(u);
        m.u.attempt.attempt = w->attempt;
        m.u.attempt.rcpts = w->attempt_rcpts;
        m.u.attempt.term = u->term;
        m.u.attempt.narrow = w->narrow >> i & 1;
        core_send(core, u->list[i], &m);
    }
}

static bool peer_silent(const struct core *core, const struct unit *u)
{
    for (int i = 0; i < u->list_count; i++)
        if (u->list[i] != core->self && !peer_down(core, u->list[i]) &&
            core->now < core->peer[u->list[i]].heard_at + CORE_SEC)
            return false;
    return true;
}

/* The flag of the dot gate: some live holder knows of the attempt, or there is none. */
static void check_intent(struct core *core, struct unit *u, struct work *w)
{
    bool alone = true, known = false, leaving = false, stays = false, narrow = false;
    for (int i = 0; i < u->list_count; i++) {
        if (u->list[i] == core->self || peer_down(core, u->list[i]))
            continue;
        bool there = !(w->unknown >> i & 1), told = there && (w->acked >> i & 1);
        bool releasing = unit_status(u, i) == LIST_RELEASING;
        alone &= !there;
        narrow |= there && !told && (w->narrow >> i & 1);
        stays |= there && !releasing;
        known |= told && !releasing;
        leaving |= told && releasing; /* what it knows goes with it, when others stay */
    }
    bool ok = (known && (!narrow || MUT(core, MUT_NARROW_INTENT))) || alone ||
              (leaving && !stays);
    bool silent = !ok && core->cfg.mode == MODE_STATIC &&
                  core->now > w->attempt_at + CORE_SEC && peer_silent(core, u);
    w->unheard = w->unheard && !ok;
    if ((!ok && !silent) || w->intent_ok || w->attempt == 0)
        return;
    w->intent_ok = true;
    w->unheard = silent; /* D6 names what follows from a later force-fence */
    struct core_command *c = core_cmd(core, CMD_INTENT_OK);
    memset(&c->u.unit, 0, sizeof(c->u.unit));
    c->u.unit.id = unit_id(u);
    c->u.unit.attempt = w->attempt;
}

/* It was to be tried before this process began, and whoever tried it may have been cut
 * short with nobody left to know. */
static bool may_be_second(const struct core *core, const struct unit *u)
{
    return u->unsure && (core->wall_start == 0 || u->due_s <= core->wall_start);
}

static void answer_attempt(struct core *core, const struct core_event *e,
    uint64_t attempt, uint64_t rcpts, uint64_t doubt)
{
    struct core_command *c = core_cmd(core, CMD_ATTEMPT);
    memset(&c->u.unit, 0, sizeof(c->u.unit));
    c->u.unit.id = e->u.attempt.id;
    c->u.unit.attempt = attempt;
    c->u.unit.rcpts = rcpts;
    c->u.unit.doubt = doubt;
}

void intent_event(struct core *core, const struct core_event *e)
{
    struct unit *u = unit_find(core, &e->u.attempt.id);
    bool may = u && unit_right(core, u) && !(u->flags & UF_DAMAGED) &&
               session_lease(core, core->p.start_margin_ns) &&
               core->commit_age < 5 * CORE_SEC && !core->frozen;
    struct work *w = may ? work_get(core, u, WORK_OWN) : NULL;
    uint64_t rcpts = w ? open_rcpts(core, u) & e->u.attempt.rcpts : 0;
    if (!w || w->attempt || rcpts == 0) {
        answer_attempt(core, e, 0, 0, 0);
        return;
    }
    w->attempt = new_attempt(core);
    w->attempt_rcpts = rcpts;
    w->attempt_at = core->now;
    w->acked = 0;
    w->unknown = 0;
    w->intent_ok = w->unheard = false;
    w->tries = 0;
    u->attempt = w->attempt;
    answer_attempt(core, e, w->attempt, rcpts, may_be_second(core, u) ? rcpts : 0);
    send_intent(core, u, w);
    check_intent(core, u, w);
    work_wake(core, w, core->now + 300 * CORE_MS);
}

/* Some dot may leave by the silence of its holders, which only static mode allows. */
bool intent_unheard(const struct core *core)
{
    for (uint32_t i = 0; i < core->heap_count; i++) {
        const struct work *w = &core->work[core->heap[i]];
        if (w->kind == WORK_OWN && w->attempt && w->intent_ok && w->unheard)
            return true;
    }
    return false;
}

void intent_ack(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    const struct msg_attempt *a = &msg->u.attempt;
    struct unit *u = unit_find(core, &a->id);
    struct work *w = u ? work_of(core, u) : NULL;
    int i = u ? unit_list_find(u, slot) : -1;
    if (!w || w->kind != WORK_OWN || w->attempt != a->attempt || i < 0)
        return;
    w->acked = (uint16_t)(w->acked | 1u << i);
    if (a->answer != ANS_OK) {
        w->unknown = (uint16_t)(w->unknown | 1u << i);
        if (unit_status(u, i) == LIST_HOLD)
            unit_set_status(u, i, LIST_PENDING); /* no copy there after all */
    }
    check_intent(core, u, w);
}

/* ---- outcomes ---- */

static void send_outcome(
    struct core *core, struct unit *u, uint64_t attempt, uint64_t rcpts, uint16_t acked)
{
    for (int i = 0; i < u->list_count; i++) {
        if (u->list[i] == core->self || peer_down(core, u->list[i]) || (acked >> i & 1))
            continue;
        struct core_msg m = {.kind = MSG_OUTCOME};
        m.u.attempt.id = unit_id(u);
        m.u.attempt.attempt = attempt;
        m.u.attempt.rcpts = rcpts;
        m.u.attempt.delivered = u->delivered;
        m.u.attempt.failed = u->failed;
        m.u.attempt.term = u->term;
        m.u.attempt.due_s = u->due_s;
        core_send(core, u->list[i], &m);
    }
}

/* What was delivered or failed is so for ever. But "deferred" ends only the doubt of that
 * very attempt: another session may have sent a dot since. */
static void take_outcome(struct core *core, struct unit *u, uint64_t delivered,
    uint64_t failed, uint64_t settled)
{
    unit_digest(core, u);
    u->delivered |= delivered;
    u->failed = (u->failed | failed) & ~u->delivered;
    u->doubt &= ~(settled | u->delivered | u->failed);
    if (u->state == UNIT_LIVE && unit_final(u))
        u->state = UNIT_DONE;
    unit_digest(core, u);
}

/* Facts hold whatever became of the session that learned them. */
void outcome_event(struct core *core, const struct core_event *e)
{
    struct unit *u = unit_find(core, &e->u.attempt.id);
    struct work *w = u ? work_of(core, u) : NULL;
    if (!u)
        return;
    bool last = u->attempt == e->u.attempt.attempt || MUT(core, MUT_ANY_OUTCOME);
    take_outcome(core, u, e->u.attempt.delivered, e->u.attempt.failed,
        last ? e->u.attempt.rcpts : 0);
    u->doubt |= e->u.attempt.doubt & ~(u->delivered | u->failed);
    u->due_s = e->u.attempt.due_s;
    u->unsure = false; /* from here on the recipients' own records know */
    uint64_t settled = e->u.attempt.rcpts & ~e->u.attempt.doubt;
    bool current = w && w->kind == WORK_OWN && w->attempt == e->u.attempt.attempt;
    if (current)
        w->attempt = 0;
    if (!unit_believes(core, u) || u->state == UNIT_LIVE)
        send_outcome(
            core, u, e->u.attempt.attempt, settled, 0); /* before the own fsync */
    unit_store(core, u, 0);
    if (!unit_believes(core, u))
        return;
    if (u->state != UNIT_LIVE) {
        if (current || !w || w->kind != WORK_OWN || w->attempt == 0)
            u->flags &= (uint16_t)~UF_STARTED; /* the caller knows: it said so */
        gc_start(core, u);
    } else if (current) {
        w->outcome_due = true;
        w->out_acked = 0;
        w->outcome_attempt = e->u.attempt.attempt;
        w->outcome_rcpts = settled;
        w->tries = 0;
        work_wake(core, w, core->now + 500 * CORE_MS);
    }
}

/* The attempt ended before anything could have been delivered. */
void attempt_gone(struct core *core, const struct core_event *e)
{
    struct core_event o = *e;
    o.u.attempt.delivered = o.u.attempt.failed = o.u.attempt.doubt = 0;
    struct unit *u = unit_find(core, &e->u.attempt.id);
    bool unsure = u && u->unsure;
    outcome_event(core, &o);
    if (unsure && (u = unit_find(core, &e->u.attempt.id)))
        u->unsure = true;
}

static bool outcome_told(struct core *core, struct unit *u, struct work *w)
{
    for (int i = 0; i < u->list_count; i++)
        if (u->list[i] != core->self && !peer_down(core, u->list[i]) &&
            unit_status(u, i) == LIST_HOLD && !(w->out_acked >> i & 1))
            return false;
    return true;
}

static void held(struct core *core, struct unit *u, struct work *w)
{
    if (w->hold_until == 0 || core->now < w->hold_until)
        return;
    w->hold_until = 0;
    if (u->doubt) {
        SOMETIMES(core, ST_DOUBT_ENDED);
        deliver_start(core, u);
    }
}

static void drain_unit(struct core *core, struct unit *u, const struct work *w)
{
    if (!core->draining || w->attempt || !unit_right(core, u))
        return;
    struct core_unit_id id = unit_id(u);
    for (int i = 0; i < u->list_count; i++)
        if (u->list[i] != core->self && unit_status(u, i) == LIST_HOLD &&
            peer_reachable(core, u->list[i])) {
            steal_hint(core, u->list[i], &id, false);
            return;
        }
}

void own_run(struct core *core, struct unit *u, struct work *w)
{
    if (!unit_believes(core, u) || u->state != UNIT_LIVE) {
        work_drop(core, u);
        unit_review(core, u);
        return;
    }
    if (!(u->flags & UF_ACTIVE))
        return;
    if (!(u->flags & UF_STARTED))
        deliver_start(core, u);
    if (w->attempt) {
        send_intent(core, u, w);
        check_intent(core, u, w);
    }
    if (w->outcome_due && outcome_told(core, u, w))
        w->outcome_due = false;
    if (w->outcome_due)
        send_outcome(core, u, w->outcome_attempt, w->outcome_rcpts, w->out_acked);
    held(core, u, w);
    if (u->flags & UF_DAMAGED) {
        damaged_own(core, u, w);
        return;
    }
    drain_unit(core, u, w);
    bool busy = copy_repair(core, u, w);
    if (!busy && !w->attempt && !w->outcome_due && !w->hold_until && !core->draining) {
        work_drop(core, u);
        return;
    }
    uint64_t at = work_backoff(core, w, 500 * CORE_MS);
    if (w->hold_until && w->hold_until < at)
        at = w->hold_until;
    w->tries = (uint8_t)(w->tries < 8 ? w->tries + 1 : 8);
    work_wake(core, w, at);
}

/* ---- the holder's side ---- */

static void ack_attempt(struct core *core, uint8_t slot, uint8_t kind,
    const struct core_msg *msg, enum unit_answer what, bool durable)
{
    struct core_msg m = {.kind = kind};
    m.u.attempt.id = msg->u.attempt.id;
    m.u.attempt.attempt = msg->u.attempt.attempt;
    m.u.attempt.answer = (uint8_t)what;
    if (durable)
        core_send_after(core, core->token_last, slot, &m);
    else
        core_send(core, slot, &m);
}

/* Memory is enough: only a crash of owner and holder together loses it (D1, D5). */
void intent_recv(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    const struct msg_attempt *a = &msg->u.attempt;
    struct unit *u = unit_find(core, &a->id);
    if (core->state < CORE_SYNC || msg->env.from_epoch <= core->peer[slot].fenced)
        return;
    if (!u) {
        if (a->narrow)
            grave_dig_open(
                core, &a->id); /* the owner goes on as if no copy ever comes in here */
        ack_attempt(core, slot, MSG_INTENT_ACK, msg, ANS_UNKNOWN, false);
        return;
    }
    if (unit_settling(u))
        return; /* it may yet turn out that there is no room for the copy */
    if (unit_believes(core, u))
        return; /* we own it: that session is fenced and does not know */
    bool seen = u->attempt >> 24 == a->attempt >> 24 && a->attempt <= u->attempt;
    if (!seen || (u->doubt & a->rcpts)) {
        unit_attempt(u, a->attempt);
        u->doubt |= a->rcpts & ~(u->delivered | u->failed);
    }
    ack_attempt(core, slot, MSG_INTENT_ACK, msg, ANS_OK, false);
}

/* A fact for the owner that comes from a session which no longer is. */
static void forward(
    struct core *core, uint8_t slot, const struct core_msg *msg, const struct unit *u)
{
    if (u->owner == slot || u->owner == core->self)
        return;
    SOMETIMES(core, ST_FACT_FORWARD);
    struct core_msg m = {.kind = MSG_OUTCOME, .u = msg->u};
    core_send(core, u->owner, &m);
}

void outcome_recv(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    const struct msg_attempt *a = &msg->u.attempt;
    struct unit *u = unit_find(core, &a->id);
    if (MUT(core, MUT_OUTCOME_RIGHTS) && msg->env.from_epoch <= core->peer[slot].fenced)
        return;
    if (u && (u->flags & UF_ACCEPTING || unit_settling(u)))
        return;
    if (u) {
        if (a->attempt >> 24 == u->attempt >> 24 && a->attempt > u->attempt)
            u->attempt = a->attempt; /* its intent was lost, or overtaken */
        bool last = u->attempt == a->attempt || MUT(core, MUT_ANY_OUTCOME);
        take_outcome(core, u, a->delivered, a->failed, last ? a->rcpts : 0);
        if (u->owner == slot)
            u->due_s = a->due_s;
        unit_store(core, u, 0);
        forward(core, slot, msg, u);
        unit_review(core, u);
    }
    ack_attempt(core, slot, MSG_OUTCOME_ACK, msg, u ? ANS_OK : ANS_UNKNOWN, true);
}

void outcome_ack(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    struct unit *u = unit_find(core, &msg->u.attempt.id);
    struct work *w = u ? work_of(core, u) : NULL;
    int i = u ? unit_list_find(u, slot) : -1;
    if (!w || w->kind != WORK_OWN || i < 0 || !w->outcome_due ||
        w->outcome_attempt != msg->u.attempt.attempt)
        return;
    w->out_acked = (uint16_t)(w->out_acked | 1u << i);
    if (outcome_told(core, u, w)) {
        w->outcome_due = false;
        work_wake(core, w, core->now);
    }
}
