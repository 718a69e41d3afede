/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mail that must not go out by itself: copies that rotted on this disk, and copies so old
 * that nobody may remember any more what became of them.
 *
 * A node with bad data never acts as heir for it and never tells others to delete. The
 * owner gives the unit to a holder whose copy is good; a holder tells the owner; either
 * then gets the mail again like any new holder. The only copy is put aside.
 */
#include "cluster/core/internal.h"

#define TOMB_S (2u * 86400) /* T_tomb: this long after the unit's own expiry */

void unit_quarantine(struct core *core, struct unit *u)
{
    struct core_unit_id id = unit_id(u);
    struct core_op op = {.kind = OP_UNIT_QUARANTINE};
    SOMETIMES(core, ST_PUT_ASIDE);
    unit_row_out(core, u, &op.u.unit);
    unit_cancel(core, u);
    core_store_one(core, &op);
    core->quarantined++;
    unit_drop(core, u);
    grave_dig_open(core, &id);
}

/* ---- age ---- */

void wall_event(struct core *core, const struct core_event *e)
{
    core->wall_s = e->u.wall.now_s;
    core->wall_at = core->now;
    core->wall_trusted = e->u.wall.trusted;
}

static bool looks_old(const struct core *core, const struct unit *u)
{
    uint64_t now_s = core->wall_s + (core->now - core->wall_at) / CORE_SEC;
    return u->expires_s && now_s > (uint64_t)u->expires_s + TOMB_S;
}

/* Nothing is judged by age under a clock that may be wrong. */
static bool past_tomb(const struct core *core, const struct unit *u)
{
    return core->wall_trusted && looks_old(core, u);
}

/* A copy from before this session of which the others may have forgotten the tombstone.
 */
bool unit_stale(const struct core *core, const struct unit *u)
{
    /* whoever forgot the tombstone said "unknown" and is in the list no more */
    return u->state == UNIT_LIVE && (u->flags & UF_BEFORE) && core->cfg.count > 1 &&
           past_tomb(core, u) && !MUT(core, MUT_STALE_DELIVERED);
}

/* It looks as old under a clock that may be wrong: nobody may be asked to remember it,
 * and it must not be put aside either. It waits until the clock is trusted, or set right.
 */
bool unit_age_unknown(const struct core *core, const struct unit *u)
{
    return u->state == UNIT_LIVE && (u->flags & UF_BEFORE) && core->cfg.count > 1 &&
           !core->wall_trusted && looks_old(core, u);
}

/* True if u was a tombstone that nobody needs any more; it is gone then. What comes back
 * with a copy of the unit finds it as old as we do. */
bool tomb_expired(struct core *core, struct unit *u)
{
    struct core_unit_id id = unit_id(u);
    if (u->state == UNIT_LIVE || !past_tomb(core, u) || unit_settling(u))
        return false;
    SOMETIMES(core, ST_TOMB_EXPIRED);
    unit_store_delete(core, u);
    unit_drop(core, u);
    grave_dig(core, &id);
    return true;
}

/* ---- rot ---- */

void damaged_event(struct core *core, const struct core_event *e)
{
    struct unit *u = unit_find(core, &e->u.damaged.id);
    if (!u || (u->flags & (UF_ACCEPTING | UF_DAMAGED)) || unit_settling(u))
        return;
    if (!e->u.damaged.mail) {
        unit_store(core, u, 0); /* what is in memory is good */
        return;
    }
    if (u->state != UNIT_LIVE || MUT(core, MUT_ROT_IGNORED))
        return;
    SOMETIMES(core, ST_DAMAGED);
    u->flags |= UF_DAMAGED;
    core->damaged_count++;
    unit_cancel(core, u);
    work_rest(core, u);
    if (core->state == CORE_READY)
        unit_review(core, u);
}

void damaged_fixed(struct core *core, struct unit *u)
{
    if (!(u->flags & UF_DAMAGED))
        return;
    SOMETIMES(core, ST_FIXED);
    u->flags &= (uint16_t)~UF_DAMAGED;
    core->damaged_count--;
    unit_review(core, u);
}

/* Somebody else may have the mail, here or when he comes back. */
static bool others_may_have(const struct core *core, const struct unit *u)
{
    for (int i = 0; i < u->list_count; i++)
        if (u->list[i] != core->self && peer_member(core, u->list[i]))
            return true;
    return false;
}

/* The holder's side: the owner hears of it until the mail is here again. */
void damaged_review(struct core *core, struct unit *u)
{
    const struct work *w = work_of(core, u);
    if (unit_believes(core, u)) {
        work_get(core, u, WORK_OWN);
        return;
    }
    if (!others_may_have(core, u))
        unit_quarantine(core, u);
    else if (w && w->kind == WORK_CLAIM && w->owner_gave)
        return; /* the owner lives, and knows nothing of it */
    else if (!unit_owner_down(core, u))
        work_get(core, u, WORK_ASK);
    else
        claim_start(core, u, false, false); /* it seems that nobody has the mail */
}

void damaged_ask(struct core *core, struct unit *u, struct work *w)
{
    struct core_msg m = {.kind = MSG_COPY_ACK, .env.lane = LANE_CONTROL};
    if (u->owner == core->self || unit_owner_down(core, u)) {
        work_drop(core, u);
        return;
    }
    m.u.unit.answer = ANS_UNKNOWN;
    m.u.unit.row.id = unit_id(u);
    core_send(core, u->owner, &m);
    sync_ask(core, u->owner, u);
    w->tries = (uint8_t)(w->tries < 8 ? w->tries + 1 : 8);
    work_wake(core, w, work_backoff(core, w, CORE_SEC));
}

static void ask_name(struct core *core, struct unit *u, int i)
{
    bool releasing = unit_status(u, i) == LIST_RELEASING;
    struct core_msg m = {
        .kind = releasing ? MSG_RELEASE : MSG_COPY, .env.lane = lane_of(u)};
    unit_row_out(core, u, &m.u.unit.row);
    core_send_after(core, core->token_last, u->list[i], &m);
}

/* The owner's side. Names that may have a copy are asked whether they do; who has one
 * is offered the unit. */
void damaged_own(struct core *core, struct unit *u, struct work *w)
{
    struct core_unit_id id = unit_id(u);
    bool offered = false;
    w->tries = (uint8_t)(w->tries < 8 ? w->tries + 1 : 8);
    work_wake(core, w, work_backoff(core, w, 500 * CORE_MS));
    if (w->attempt || w->outcome_due)
        return;
    if (!others_may_have(core, u)) {
        unit_quarantine(core, u);
        return;
    }
    for (int i = 0; i < u->list_count; i++) {
        if (u->list[i] == core->self || peer_down(core, u->list[i]))
            continue;
        if (unit_status(u, i) != LIST_HOLD) {
            ask_name(core, u, i);
        } else if (!offered && core_below(core, 2) == 0) {
            steal_hint(core, u->list[i], &id, true);
            offered = true;
        }
    }
}
