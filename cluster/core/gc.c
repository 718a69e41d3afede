/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a unit: Done, tombstones, Forget. An abort ends the same way. */
#include "cluster/core/internal.h"

/* ---- the owner ---- */

void gc_start(struct core *core, struct unit *u)
{
    struct work *w = work_of(core, u);
    if (w && (w->kind == WORK_GC || w->kind == WORK_ACCEPT))
        return;
    if (u->flags & UF_STARTED)
        unit_cancel(core, u); /* final by what others know */
    w = work_get(core, u, WORK_GC);
    if (w && core_out_full(core))
        work_wake(core, w, core->now);
    else if (w)
        gc_run(core, u, w);
}

static bool counts_as_acked(
    const struct core *core, const struct unit *u, const struct work *w, int i)
{
    if (u->list[i] == core->self || (w->acked >> i & 1) || !peer_member(core, u->list[i]))
        return true;
    if (MUT(core, MUT_FORGET_EARLY))
        return true;
    return MUT(core, MUT_DONE_NOT_LOST) && peer_down(core, u->list[i]);
}

/* Rule R: a name that left the cluster without acknowledging may have been an owner that
 * alone knew another holder. Every member then says that it knows the end: a holder that
 * is away would come back to a cluster that has forgotten, and deliver. */
static bool one_left(const struct core *core, const struct unit *u, const struct work *w)
{
    for (int i = 0; i < u->list_count; i++)
        if (!peer_member(core, u->list[i]) && !(w->acked >> i & 1))
            return !MUT(core, MUT_LEFT_IS_ACKED);
    return false;
}

static void forget_all(struct core *core, struct unit *u)
{
    struct core_unit_id id = unit_id(u);
    struct core_msg m = {.kind = MSG_FORGET, .env.lane = lane_of(u)};
    unit_row_out(core, u, &m.u.unit.row);
    uint64_t token = unit_store_delete(core, u);
    for (int i = 0; i < u->list_count; i++)
        if (u->list[i] != core->self) {
            /* our own tombstone reached the disk before anybody forgets */
            core_send_after(core, token, u->list[i], &m);
        }
    /* nobody else ever sent copies of a unit that stayed with its first owner; a DSN or
     * what was aborted may be offered again under its id */
    bool moved = u->term > 1 || (u->flags & UF_IS_DSN), aborted = u->state != UNIT_DONE;
    unit_drop(core, u);
    if (aborted)
        grave_dig_open(core, &id);
    else if (moved)
        grave_dig(core, &id);
}

void gc_run(struct core *core, struct unit *u, struct work *w)
{
    bool all = true;
    if (!unit_believes(core, u) || u->state == UNIT_LIVE) {
        work_drop(core, u);
        unit_review(core, u);
        return;
    }
    for (int i = 0; i < u->list_count; i++) {
        if (counts_as_acked(core, u, w, i))
            continue;
        all = false;
        struct core_msg m = {.kind = MSG_DONE, .env.lane = lane_of(u)};
        unit_row_out(core, u, &m.u.unit.row);
        core_send(core, u->list[i], &m);
    }
    bool wide = (u->flags & UF_MORE_NAMES) || one_left(core, u, w);
    for (uint8_t i = 1; i <= core->peer_count && wide; i++) {
        if (i == core->self || !peer_member(core, i) || bit_get(w->wide, i) ||
            unit_list_find(u, i) >= 0)
            continue;
        all = false;
        struct core_msg m = {.kind = MSG_DONE, .env.lane = lane_of(u)};
        unit_row_out(core, u, &m.u.unit.row);
        if (!core_out_full(core))
            core_send(core, i, &m);
    }
    if (all) {
        forget_all(core, u);
        return;
    }
    work_wake(core, w, work_backoff(core, w, CORE_SEC));
    w->tries = (uint8_t)(w->tries < 8 ? w->tries + 1 : 8);
}

/* Refused here, and accepted again under its id by somebody who owns it now (a DSN): what
 * we refused is no fact, so the other one goes on alone. */
static bool yield(
    struct core *core, uint8_t slot, struct unit *u, const struct core_msg *msg)
{
    const struct unit_row *row = &msg->u.unit.row;
    if (u->state != UNIT_ABORTED || row->state != UNIT_LIVE ||
        row->owner != msg->env.from || row->mine != msg->env.from_epoch)
        return false;
    unit_lost_ownership(core, u);
    unit_digest(core, u);
    /* another's refusal may have raised our term meanwhile; its owner takes that over */
    bool newer = unit_newer(core, row->term, row->owner, u);
    u->term = newer ? row->term : u->term + 1;
    u->owner = slot;
    u->owner_epoch = row->owner_epoch;
    u->mine = 0;
    unit_digest(core, u);
    unit_store(core, u, 0);
    unit_review(core, u);
    return true;
}

void gc_done_ack(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    const struct msg_unit *a = &msg->u.unit;
    struct unit *u = unit_find(core, &a->row.id);
    if (!u) {
        /* a tombstone that names us as owner, and we forgot it: so all have acknowledged
         */
        if (a->answer == ANS_TOMB && a->row.owner == core->node) {
            struct core_msg m = {.kind = MSG_FORGET, .u = msg->u};
            core_send_after(core, core->token_last, slot, &m); /* on the disk, too */
        }
        return;
    }
    if (a->answer == ANS_TOMB && !(u->flags & UF_ACCEPTING)) {
        sync_merge(core, u, &a->row);
        return;
    }
    struct work *w = work_of(core, u);
    if (!w || (w->kind != WORK_GC && w->kind != WORK_ACCEPT))
        return;
    if (a->answer == ANS_REJECT) {
        if (w->kind == WORK_GC && yield(core, slot, u, msg))
            return;
        if (w->kind == WORK_GC && unit_merge(core, u, &a->row))
            unit_store(core, u, 0);
        return;
    }
    if (a->answer == ANS_OK)
        unit_merge_facts(core, u, &a->row); /* new names must acknowledge too */
    int i = unit_list_find(u, slot);
    bit_set(w->wide, slot);
    if (i >= 0)
        w->acked = (uint16_t)(w->acked | 1u << i);
    work_wake(core, w, core->now);
}

/* ---- the holder ---- */

static void answer(struct core *core, uint8_t slot, const struct core_msg *msg,
    enum unit_answer what, const struct unit *u)
{
    struct core_msg m = {.kind = MSG_DONE_ACK, .env.lane = LANE_CONTROL};
    m.u.unit.answer = (uint8_t)what;
    if (u)
        unit_row_out(core, u, &m.u.unit.row);
    else
        m.u.unit.row.id = msg->u.unit.row.id;
    core_send_after(core, core->token_last, slot, &m);
}

/* An abort is no fact: it binds only holders that still see its sender as owner. */
static bool abort_binds(const struct core *core, const struct unit *u, uint8_t slot,
    const struct core_msg *msg)
{
    return u->owner == slot && u->term <= msg->u.unit.row.term &&
           msg->env.from_epoch > core->peer[slot].fenced;
}

void gc_done(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    const struct unit_row *row = &msg->u.unit.row;
    struct unit *u = unit_find(core, &row->id);
    unit_evidence(core, row);
    if (core->state < CORE_SYNC || (u && unit_settling(u)))
        return;
    if (MUT(core, MUT_OUTCOME_RIGHTS) && msg->env.from_epoch <= core->peer[slot].fenced)
        return;
    if (!u) {
        if (row->state == UNIT_ABORTED)
            grave_dig_open(core, &row->id);
        else
            grave_dig(core, &row->id);
        answer(core, slot, msg, ANS_UNKNOWN, NULL);
        return;
    }
    struct unit_row facts = *row;
    if (row->state == UNIT_ABORTED &&
        !(u->state == UNIT_ABORTED || abort_binds(core, u, slot, msg)))
        facts.state = UNIT_LIVE;
    if (unit_believes(core, u)) {
        unit_merge(core, u, &facts);
        unit_store(core, u, 0);
        answer(core, slot, msg, ANS_REJECT, u);
        unit_review(core, u);
        return;
    }
    unit_merge(core, u, &facts);
    if (row->state == UNIT_ABORTED && u->state == UNIT_LIVE) {
        unit_store(core, u, 0);
        answer(core, slot, msg, ANS_REJECT, u);
        return;
    }
    work_drop(core, u);
    unit_store(core, u, 0);
    answer(core, slot, msg, ANS_OK, u);
    unit_review(core, u);
}

void gc_forget(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    struct core_unit_id id = msg->u.unit.row.id;
    struct unit *u = unit_find(core, &id);
    if (!u || u->state == UNIT_LIVE || unit_believes(core, u))
        return;
    /* Copies of a unit that stayed with its first owner came in this lane, before this
     * frame: their numbers are too old by now. Any other may still be on its way. */
    bool last = u->term == 1 && u->owner == slot && msg->env.lane == lane_of(u) &&
                !(u->flags & UF_IS_DSN);
    bool aborted = u->state == UNIT_ABORTED;
    unit_store_delete(core, u);
    unit_drop(core, u);
    if (!last && aborted)
        grave_dig_open(core, &id);
    else if (!last)
        grave_dig(core, &id);
}

/* A tombstone whose Forget never came asks the owner it names. */
void ask_run(struct core *core, struct unit *u, struct work *w)
{
    if ((u->flags & UF_DAMAGED) && u->state == UNIT_LIVE) {
        damaged_ask(core, u, w);
        return;
    }
    if (u->state == UNIT_LIVE || u->owner == core->self || unit_owner_down(core, u)) {
        work_drop(core, u);
        unit_review(core, u);
        return;
    }
    SOMETIMES(core, ST_TOMB_ASK);
    struct core_msg m = {.kind = MSG_DONE_ACK};
    m.u.unit.answer = ANS_TOMB;
    unit_row_out(core, u, &m.u.unit.row);
    core_send(core, u->owner, &m);
    w->tries = (uint8_t)(w->tries < 8 ? w->tries + 1 : 8);
    work_wake(core, w, work_backoff(core, w, 5 * CORE_SEC));
}
