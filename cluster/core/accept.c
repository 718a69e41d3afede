/* SPDX-License-Identifier: Apache-2.0 */
/* Taking responsibility for mail: copies first, then 250 from one line of code. */
#include "cluster/core/internal.h"

#include <string.h>

/* ---- start ---- */

static struct accept *accept_find(struct core *core, uint64_t handle)
{
    for (uint32_t i = 0; i < core->limits.accepts; i++)
        if (core->accept[i].handle == handle)
            return &core->accept[i];
    return NULL;
}

static void reply(struct core *core, struct accept *a, enum accept_reply what)
{
    struct core_command *c = core_cmd(core, CMD_ACCEPT_REPLY);
    c->u.accept.handle = a->handle;
    c->u.accept.reply = (uint8_t)what;
    c->u.accept.id = unit_id(&core->unit[a->unit[0]]);
}

static void refuse(struct core *core, const struct core_event *e)
{
    struct core_command *c = core_cmd(core, CMD_ACCEPT_REPLY);
    memset(&c->u.accept, 0, sizeof(c->u.accept));
    c->u.accept.handle = e->u.accept.handle;
    c->u.accept.reply = REPLY_451;
}

static bool may_accept(struct core *core, const struct core_event *e)
{
    bool open = core->state == CORE_SYNC || core->state == CORE_READY;
    /* mail taken for long without a lease could not be delivered from here */
    bool led =
        core->cfg.mode == MODE_STATIC || core->now < core->lease_lost_at + 30 * CORE_SEC;
    return open && led && !core->draining && !core->storage_full &&
           core->commit_age < 5 * CORE_SEC && accept_find(core, 0) &&
           e->u.accept.part_count > 0 && e->u.accept.part_count <= 16 &&
           core->parked_count + 128 < core->limits.parked &&
           core->unit_count + 16 < core->limits.units / 10 * 7 + 16;
}

static void fill(
    struct core *core, struct unit *u, const struct core_event *e, uint8_t rcpts)
{
    u->term = 1;
    u->owner = core->self;
    u->owner_epoch = core->epoch;
    u->mine = core->epoch;
    u->rcpt_count = rcpts ? rcpts : 1;
    u->expires_s = e->u.accept.expires_s;
    u->size_bytes = e->u.accept.size_bytes;
    u->body_crc = e->u.accept.body_crc;
    u->due_s = 0;
    u->flags |= UF_ACCEPTING;
    if (e->u.accept.flags & UNIT_NULL_SENDER)
        u->flags |= UF_NULL_SENDER;
}

static struct unit *add_part(
    struct core *core, const struct core_event *e, uint32_t part, uint32_t accept)
{
    struct core_unit_id id = {.hi = e->u.accept.wall_ms << 16 | (core->node & 0xffff),
        .lo = (core->node >> 16) << 48 | (uint64_t)(core->epoch & 0xffffff) << 24 |
              (core->counter & 0xffffff),
        .part = part};
    struct unit *u = unit_new(core, &id);
    if (!u)
        return NULL;
    fill(core, u, e, e->u.accept.rcpts[part]);
    struct work *w = work_get(core, u, WORK_ACCEPT);
    if (!w) {
        unit_drop(core, u);
        return NULL;
    }
    w->accept = accept;
    unit_list_add(core, u, core->self, LIST_PENDING);
    while (u->list_count < core->cfg.copies) {
        uint8_t slot = place_next(core, u, 0);
        if (slot == 0 || !unit_list_add(core, u, slot, LIST_PENDING))
            break;
    }
    return u;
}

/* Own store and copies go out together; only the first list may be sent before it is
 * stored here, because until the own row is durable nobody was promised anything. */
static void launch(struct core *core, struct unit *u, uint64_t handle)
{
    uint64_t token = unit_store(core, u, handle);
    core->out->v[core->out->count - 1].u.store.may_fail = true;
    core_after(core, token, AFTER_ACCEPT, u);
    for (int i = 1; i < u->list_count; i++)
        copy_send(core, u, i);
    work_of(core, u)->asked = (uint16_t)((1u << u->list_count) - 1);
    work_of(core, u)->tries = 1;
    work_of(core, u)->copies_at = core->now;
    work_wake(core, work_of(core, u), core->now + core->p.hedge_ns);
}

void accept_event(struct core *core, const struct core_event *e)
{
    struct accept *a = accept_find(core, 0);
    if (!may_accept(core, e)) {
        refuse(core, e);
        return;
    }
    memset(a, 0, sizeof(*a));
    core->counter++;
    for (uint8_t i = 0; i < e->u.accept.part_count; i++) {
        struct unit *u = add_part(core, e, i, (uint32_t)(a - core->accept));
        if (!u) {
            for (uint8_t j = 0; j < i; j++)
                unit_drop(core, &core->unit[a->unit[j]]);
            refuse(core, e);
            return;
        }
        a->unit[a->part_count++] = unit_index(core, u);
    }
    a->handle = e->u.accept.handle;
    a->started_at = core->now;
    for (uint8_t i = 0; i < a->part_count; i++)
        launch(core, &core->unit[a->unit[i]], a->handle);
}

/* ---- the decision ---- */

static uint8_t copies_of(const struct core *core, const struct accept *a)
{
    uint8_t least = 255;
    for (uint8_t i = 0; i < a->part_count; i++) {
        uint8_t n = 0;
        const struct unit *u = &core->unit[a->unit[i]];
        for (int j = 0; j < u->list_count; j++)
            n = (uint8_t)(n + (unit_status(u, j) == LIST_HOLD));
        least = n < least ? n : least;
    }
    return least;
}

static bool untried(struct core *core, const struct accept *a)
{
    for (uint8_t i = 0; i < a->part_count; i++)
        if (place_next(core, &core->unit[a->unit[i]], 0))
            return true;
    return false;
}

static bool enough(struct core *core, const struct accept *a)
{
    uint8_t have = copies_of(core, a);
    if (MUT(core, MUT_ACCEPT_ONE) && have >= 1)
        return true;
    if (have >= core->cfg.copies)
        return true;
    if (have < core->cfg.min_copies)
        return false;
    bool late = core->now >= a->started_at + 2 * CORE_SEC;
    if (late || !untried(core, a)) {
        SOMETIMES(core, ST_DEGRADED);
        return true;
    }
    return false;
}

static void commit(struct core *core, struct accept *a)
{
    reply(core, a, a->gone ? REPLY_CLOSE : REPLY_250);
    a->handle = 0;
    for (uint8_t i = 0; i < a->part_count; i++) {
        struct unit *u = &core->unit[a->unit[i]];
        u->flags &= (uint16_t)~UF_ACCEPTING;
        u->flags |= UF_ACTIVE;
        work_drop(core, u);
        unit_review(core, u);
    }
}

static void decide(struct core *core, struct accept *a)
{
    if (!a->aborting && a->own_stored == a->part_count && enough(core, a))
        commit(core, a);
}

/* Refusing: durable here first, then told to all in the list, then 451. */
static void abort_start(struct core *core, struct accept *a)
{
    SOMETIMES(core, ST_ABORT);
    a->aborting = true;
    a->abort_at = core->now;
    for (uint8_t i = 0; i < a->part_count; i++) {
        struct unit *u = &core->unit[a->unit[i]];
        struct work *w = work_of(core, u);
        unit_digest(core, u);
        u->state = UNIT_ABORTED;
        unit_digest(core, u);
        w->acked = 0;
        w->tries = 0;
        core_after(core, unit_store(core, u, 0), AFTER_ABORT, u);
    }
}

void accept_aborted(struct core *core, struct unit *u)
{
    struct work *w = work_of(core, u);
    u->flags |= UF_VERIFY;
    if (!w || w->kind != WORK_ACCEPT)
        return;
    w->storing = true; /* here: the abort is durable */
    work_wake(core, w, core->now);
}

static bool all_told(const struct core *core, const struct accept *a)
{
    for (uint8_t i = 0; i < a->part_count; i++) {
        const struct unit *u = &core->unit[a->unit[i]];
        const struct work *w = work_of(core, u);
        for (int j = 0; j < u->list_count; j++)
            if (u->list[j] != core->self && (!w || !(w->acked >> j & 1)))
                return false;
    }
    return true;
}

static bool abort_told(const struct core *core, const struct accept *a)
{
    for (uint8_t i = 0; i < a->part_count; i++) {
        const struct unit *u = &core->unit[a->unit[i]];
        const struct work *w = work_of(core, u);
        if (!w || !w->storing)
            return false;
        for (int j = 0; j < u->list_count; j++)
            if (u->list[j] != core->self && !(w->acked >> j & 1) &&
                core->now < a->abort_at + 2 * CORE_SEC)
                return false;
    }
    return true;
}

static void abort_end(struct core *core, struct accept *a, enum accept_reply what)
{
    reply(core, a, what);
    a->handle = 0;
    for (uint8_t i = 0; i < a->part_count; i++) {
        struct unit *u = &core->unit[a->unit[i]];
        struct work *w = work_of(core, u);
        uint16_t acked = w ? w->acked : 0;
        u->flags &= (uint16_t)~UF_ACCEPTING;
        u->flags |= UF_ACTIVE;
        work_drop(core, u);
        gc_start(core, u);
        if (work_of(core, u))
            work_of(core, u)->acked = acked;
    }
}

static void abort_run(struct core *core, struct accept *a, struct unit *u, struct work *w)
{
    if (abort_told(core, a)) {
        /* without a lease an heir may own a copy by now and deliver it: say nothing */
        bool sure =
            session_lease(core, 0) || all_told(core, a) || MUT(core, MUT_451_FENCED);
        abort_end(core, a, sure ? REPLY_451 : REPLY_CLOSE);
        return;
    }
    if (core->now > a->abort_at + 4 * CORE_SEC) {
        abort_end(core, a, REPLY_CLOSE); /* our own disk does not answer: unknown */
        return;
    }
    for (int j = 0; j < u->list_count && w->storing; j++) {
        struct core_msg m = {.kind = MSG_DONE, .env.lane = lane_of(u)};
        if (u->list[j] == core->self || (w->acked >> j & 1) ||
            MUT(core, MUT_ABORT_NO_SEND))
            continue;
        unit_row_out(core, u, &m.u.unit.row);
        core_send(core, u->list[j], &m);
    }
    work_wake(core, w, core->now + 500 * CORE_MS);
}

/* ---- progress ---- */

/* The slow holder stays in the list: until it says otherwise it may have a copy. */
static void hedge(struct core *core, struct unit *u, struct work *w)
{
    uint8_t live = 0;
    for (int i = 0; i < u->list_count; i++)
        live = (uint8_t)(live + (unit_status(u, i) == LIST_HOLD));
    if (live >= core->cfg.copies || u->list_count >= CORE_LIST_MAX - 2)
        return;
    uint8_t slot = place_next(core, u, 0);
    if (slot == 0 || !unit_list_add(core, u, slot, LIST_PENDING))
        return;
    SOMETIMES(core, ST_HEDGE);
    list_grew(u, w);
    /* stored first: if we die, whoever finds our row knows that this copy may exist */
    core_after(core, unit_store(core, u, 0), AFTER_LIST, u);
    w->storing = true;
}

void accept_run(struct core *core, struct unit *u, struct work *w)
{
    struct accept *a = &core->accept[w->accept];
    if (a->handle == 0)
        return;
    if (a->aborting) {
        abort_run(core, a, u, w);
        return;
    }
    decide(core, a);
    if (a->handle == 0)
        return;
    if (core->now >= a->started_at + core->p.accept_ns) {
        abort_start(core, a);
        return;
    }
    bool slow = core->now >= a->started_at + core->p.hedge_ns * (1u + w->tries);
    if (!w->storing && (slow || w->unknown) && w->tries < 6) {
        hedge(core, u, w);
        w->unknown = 0;
        w->tries++;
    }
    copy_send_due(core, u, w);
    work_wake(core, w, core->now + core->p.hedge_ns);
}

void accept_copy_answer(struct core *core, struct unit *u, struct work *w, int i, bool ok)
{
    struct accept *a = &core->accept[w->accept];
    if (!ok) {
        w->unknown = (uint16_t)(w->unknown | 1u << i);
        work_wake(core, w, core->now);
        return;
    }
    if (a->handle)
        decide(core, a);
    (void)u;
}

void accept_stored(struct core *core, struct unit *u, bool full)
{
    struct work *w = work_of(core, u);
    if (!w || w->kind != WORK_ACCEPT)
        return;
    struct accept *a = &core->accept[w->accept];
    if (a->handle == 0 || a->aborting)
        return;
    if (full) {
        SOMETIMES(core, ST_FULL);
        abort_start(core, a);
        return;
    }
    unit_set_status(u, 0, LIST_HOLD);
    u->flags |= UF_VERIFY;
    a->own_stored++;
    decide(core, a);
}

/* The client's connection is known dead before 250: it keeps the mail. */
void accept_gone(struct core *core, uint64_t handle)
{
    struct accept *a = handle ? accept_find(core, handle) : NULL;
    if (!a)
        return;
    a->gone = true;
    if (!a->aborting)
        abort_start(core, a);
}

/* Session over: nobody knows what these became; copies that exist count as accepted. */
void accept_cut(struct core *core)
{
    for (uint32_t i = 0; i < core->limits.accepts; i++) {
        struct accept *a = &core->accept[i];
        if (a->handle == 0)
            continue;
        reply(core, a, REPLY_CLOSE);
        a->handle = 0;
        for (uint8_t j = 0; j < a->part_count; j++) {
            struct unit *u = &core->unit[a->unit[j]];
            u->flags &= (uint16_t)~UF_ACCEPTING;
            work_drop(core, u);
        }
    }
}
