/* SPDX-License-Identifier: Apache-2.0 */
/* Taking responsibility for mail: copies first, then 250 from one line of code. */
#include "cluster/core/internal.h"

#include <string.h>

/* ---- start ---- */

static struct accept *accept_find(struct core *core, uint64_t handle)
{
    for (uint32_t i = 0; i < core->limits.accepts; i++)
        if (core->accept[i].handle == handle && !core->accept[i].cut)
            return &core->accept[i];
    return NULL;
}

static struct accept *accept_take(struct core *core)
{
    struct accept *a = &core->accept[core->accept_free];
    core->accept_free = a->next_free;
    memset(a, 0, sizeof(*a));
    return a;
}

static void accept_free(struct core *core, struct accept *a)
{
    a->handle = 0;
    a->cut = false;
    core->accept_bytes -= a->size_bytes;
    a->size_bytes = 0;
    a->next_free = core->accept_free;
    core->accept_free = (uint32_t)(a - core->accept);
}

static void reply(struct core *core, struct accept *a, enum accept_reply what)
{
    struct core_command *c = core_cmd(core, CMD_ACCEPT_REPLY);
    c->u.accept.handle = a->handle;
    c->u.accept.reply = (uint8_t)what;
    c->u.accept.id =
        a->cut ? (struct core_unit_id){0, 0, 0, 0} : unit_id(&core->unit[a->unit[0]]);
}

static void reply_at_once(
    struct core *core, const struct core_event *e, enum accept_reply what)
{
    struct core_command *c = core_cmd(core, CMD_ACCEPT_REPLY);
    memset(&c->u.accept, 0, sizeof(c->u.accept));
    c->u.accept.handle = e->u.accept.handle;
    c->u.accept.reply = (uint8_t)what;
    c->u.accept.id = e->u.accept.id;
}

static bool may_accept(struct core *core, const struct core_event *e)
{
    bool open = core->state == CORE_SYNC || core->state == CORE_READY;
    /* mail taken for long without a lease could not be delivered from here */
    bool led =
        core->cfg.mode == MODE_STATIC || core->now < core->lease_lost_at + 30 * CORE_SEC;
    /* a bounce is owed even by who leaves; it is given away like any other unit */
    bool leaves = core->draining && !(e->u.accept.flags & UNIT_IS_DSN);
    return open && led && !leaves && !core->storage_full &&
           core->commit_age < 5 * CORE_SEC && core->accept_free != NIL &&
           e->u.accept.part_count > 0 && e->u.accept.part_count <= CORE_PARTS_MAX &&
           (core->accept_bytes == 0 ||
               core->accept_bytes + e->u.accept.size_bytes <= CORE_CREDIT_ALL) &&
           core->parked_count + 2 * PARK_RESERVE < core->limits.parked &&
           core->unit_count + e->u.accept.part_count <= core->limits.units / 10 * 7;
}

/* ---- an id that the caller gave ---- */

enum known { KNOWN_NOT, KNOWN_HELD, KNOWN_UNSURE };

static enum known known_id(struct core *core, const struct core_unit_id *id)
{
    const struct unit *u = unit_find(core, id);
    if (u) {
        /* a holder's copy of somebody else's acceptance may still be the only one */
        bool few =
            u->state == UNIT_LIVE &&
            (!unit_believes(core, u) || unit_holders(core, u) < core->cfg.min_copies);
        bool sure = !(u->flags & UF_ACCEPTING) && !unit_settling(u) && !few;
        return sure && u->state != UNIT_ABORTED ? KNOWN_HELD : KNOWN_UNSURE;
    }
    const struct grave *g = grave_find(core, id);
    return !g ? KNOWN_NOT : g->open ? KNOWN_UNSURE : KNOWN_HELD;
}

static struct core_unit_id part_id(
    const struct core *core, const struct core_event *e, uint8_t part)
{
    struct core_unit_id id = {.hi = e->u.accept.wall_ms << 16 | (core->node & 0xffff),
        .lo = (core->node >> 16) << 48 | (uint64_t)(core->epoch & 0xffffff) << 24 |
              (core->counter & 0xffffff),
        .part = part};
    if (e->u.accept.id.hi || e->u.accept.id.lo) {
        id = e->u.accept.id;
        id.part += part;
    }
    return id;
}

/* Of all parts: held, none of them is unsure and none is new. */
static enum known known_already(struct core *core, const struct core_event *e)
{
    enum known all = KNOWN_HELD;
    if (e->u.accept.id.hi == 0 && e->u.accept.id.lo == 0)
        return KNOWN_NOT;
    for (uint8_t i = 0; i < e->u.accept.part_count; i++) {
        struct core_unit_id id = part_id(core, e, i);
        enum known k = known_id(core, &id);
        if (k == KNOWN_UNSURE)
            return k;
        all = k == KNOWN_NOT ? k : all;
    }
    return all;
}

/* ---- parts ---- */

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
    if (e->u.accept.flags & UNIT_IS_DSN)
        u->flags |= UF_IS_DSN;
}

static struct unit *add_part(
    struct core *core, const struct core_event *e, uint8_t part, uint32_t accept)
{
    struct core_unit_id id = part_id(core, e, part);
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
        uint8_t slot = place_next(core, u);
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
    struct work *w = work_of(core, u);
    w->asked = 1; /* ourselves: launched */
    for (int i = 1; i < u->list_count; i++)
        if (copy_send(core, u, i))
            w->asked = (uint16_t)(w->asked | 1u << i);
    work_of(core, u)->tries = 1;
    work_of(core, u)->copies_at = core->now;
    work_wake(core, work_of(core, u), core->now + core->p.hedge_ns);
}

static bool launched(const struct work *w)
{
    return w->asked != 0;
}

static bool has_room(const struct core *core)
{
    return !core_out_full(core) &&
           core->parked_count + PARK_RESERVE < core->limits.parked;
}

/* False: nothing was made. */
static bool add_parts(struct core *core, const struct core_event *e, struct accept *a)
{
    for (uint8_t i = 0; i < e->u.accept.part_count; i++) {
        struct core_unit_id id = part_id(core, e, i);
        if (e->u.accept.rcpts[i] <= 64 && known_id(core, &id) == KNOWN_HELD)
            continue;
        struct unit *u = e->u.accept.rcpts[i] > 64
                             ? NULL
                             : add_part(core, e, i, (uint32_t)(a - core->accept));
        if (!u) {
            while (a->part_count)
                unit_drop(core, &core->unit[a->unit[--a->part_count]]);
            return false;
        }
        a->unit[a->part_count++] = unit_index(core, u);
    }
    return true;
}

void accept_event(struct core *core, const struct core_event *e)
{
    enum known known = known_already(core, e);
    if (known != KNOWN_NOT) {
        SOMETIMES(core, ST_ACCEPT_KNOWN);
        reply_at_once(core, e, known == KNOWN_HELD ? REPLY_250 : REPLY_CLOSE);
        return;
    }
    if (!may_accept(core, e)) {
        reply_at_once(core, e, REPLY_451);
        return;
    }
    struct accept *a = accept_take(core);
    core->counter++;
    if (!add_parts(core, e, a)) {
        accept_free(core, a);
        reply_at_once(core, e, REPLY_451);
        return;
    }
    a->handle = e->u.accept.handle;
    a->started_at = core->now;
    a->size_bytes = e->u.accept.size_bytes;
    core->accept_bytes += a->size_bytes;
    /* those that find no room for their commands wait for their timer: accept_run */
    for (uint8_t i = 0; i < a->part_count && has_room(core); i++)
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
        if (place_next(core, &core->unit[a->unit[i]]))
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
    for (uint8_t i = 0; i < a->part_count; i++) {
        struct unit *u = &core->unit[a->unit[i]];
        u->flags &= (uint16_t)~UF_ACCEPTING;
        u->flags |= UF_ACTIVE;
        work_drop(core, u);
        claim_doubt(core, u); /* an heir that took us for dead may have tried */
        if (i < 16 || !core_out_full(core))
            unit_review(core, u);
        else
            work_get(core, u, WORK_OWN); /* its timer starts it, or the sweep */
        unit_recount(core, u);
    }
    accept_free(core, a);
}

static void decide(struct core *core, struct accept *a)
{
    if (!a->aborting && a->own_stored == a->part_count && enough(core, a))
        commit(core, a);
}

static void abort_part(struct core *core, struct unit *u, struct work *w)
{
    w->abort_stored = true;
    unit_store(core, u, 0);
    core_after(core, core->token_last, AFTER_ABORT, u);
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
        w->copies_at = 0; /* from here on: when the abort was told */
        w->storing = false;
        if (has_room(core))
            abort_part(core, u, w);
        else
            work_wake(core, w, core->now);
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

/* Each part is told when its own abort is durable, and has two seconds from then on: a
 * holder that nobody told would deliver, should we die after the 451. */
static bool abort_told(const struct core *core, const struct accept *a)
{
    for (uint8_t i = 0; i < a->part_count; i++) {
        const struct unit *u = &core->unit[a->unit[i]];
        const struct work *w = work_of(core, u);
        if (!w || !w->storing)
            return false;
        for (int j = 0; j < u->list_count; j++)
            if (u->list[j] != core->self && !(w->acked >> j & 1) &&
                (w->copies_at == 0 || core->now < w->copies_at + 2 * CORE_SEC))
                return false;
    }
    return true;
}

static void abort_end(struct core *core, struct accept *a, enum accept_reply what)
{
    reply(core, a, what);
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
        unit_recount(core, u);
    }
    accept_free(core, a);
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
    if (w->storing && w->copies_at == 0)
        w->copies_at = core->now;
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
    if (live >= core->cfg.copies || u->list_count + 2 >= CORE_LIST_MAX)
        return;
    uint8_t slot = place_next(core, u);
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
    if (a->aborting) {
        if (!w->abort_stored)
            abort_part(core, u, w);
        else
            abort_run(core, a, u, w);
        return;
    }
    if (!launched(w)) {
        launch(core, u, a->handle);
        return;
    }
    decide(core, a);
    if (a->handle == 0)
        return;
    if (core->now >= a->started_at + core->p.accept_ns) {
        abort_start(core, a);
        return;
    }
    bool slow = core->now >= a->started_at + flow_patience(core, u) * (1u + w->tries);
    bool few = u->list_count < core->cfg.copies; /* nobody had credit, say */
    if (!w->storing && (slow || w->unknown || few) && (w->tries < 6 || few)) {
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
    if (!w || w->kind != WORK_ACCEPT) {
        struct core_unit_id id = unit_id(u);
        copy_stored(core, &id, full); /* a holder's copy by now: accept_exists */
        return;
    }
    struct accept *a = &core->accept[w->accept];
    if (a->aborting)
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

/* Two nodes made the same DSN. The other one is there for good, so this one becomes a
 * copy of it, whatever its version says: it never had a 250 nor an attempt. */
void accept_exists(struct core *core, struct unit *u, const struct unit_row *row)
{
    struct work *w = work_of(core, u);
    struct accept *a = &core->accept[w->accept];
    uint8_t owner = peer_intern(core, row->owner);
    if (a->aborting || a->part_count != 1 || owner == 0 || owner == core->self)
        return;
    SOMETIMES(core, ST_ACCEPT_EXISTS);
    reply(core, a, a->gone ? REPLY_CLOSE : REPLY_250);
    accept_free(core, a);
    work_drop(core, u);
    unit_digest(core, u);
    u->flags &= (uint16_t)~UF_ACCEPTING;
    u->mine = 0;
    u->term = row->term > u->term ? row->term : u->term;
    u->owner = owner;
    u->owner_epoch = row->owner_epoch;
    unit_digest(core, u);
    unit_merge(core, u, row);
    unit_store(core, u, 0);
    unit_review(core, u);
}

/* Session over: nobody knows what these became; copies that exist count as accepted. The
 * replies leave as the ring of commands has room. */
void accept_cut(struct core *core)
{
    for (uint32_t i = 0; i < core->limits.accepts; i++) {
        struct accept *a = &core->accept[i];
        if (a->handle == 0 || a->cut)
            continue;
        a->cut = true;
        core->accept_cuts++;
        for (uint8_t j = 0; j < a->part_count; j++) {
            struct unit *u = &core->unit[a->unit[j]];
            const struct work *w = work_of(core, u);
            bool sent = !w || launched(w) || w->abort_stored;
            u->flags &= (uint16_t)~UF_ACCEPTING;
            work_drop(core, u);
            unit_recount(core, u);
            if (!sent)
                unit_drop(core, u); /* nobody has heard of it */
        }
    }
    accept_drain(core);
}

void accept_drain(struct core *core)
{
    for (uint32_t i = 0; core->accept_cuts && i < core->limits.accepts; i++) {
        struct accept *a = &core->accept[i];
        if (!a->cut)
            continue;
        if (core_out_full(core))
            return;
        reply(core, a, REPLY_CLOSE);
        accept_free(core, a);
        core->accept_cuts--;
    }
}
