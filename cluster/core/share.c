/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work sharing: nodes with idle sessions ask the busiest one for units of which they hold
 * copies. A transfer is a claim with the owner's consent; nothing here is a right, and
 * every message may be lost.
 */
#include "cluster/core/internal.h"

#include <string.h>

#define ASK_NS (2 * CORE_SEC)
#define MINUTE_NS (60 * CORE_SEC)
#define GUARD_NS (600 * CORE_SEC)
#define BATCH 32
#define LOOK 2048  /* units looked at for one request */
#define TERM_MAX 8 /* every change of owner adds one: no endless wandering */
#define WORTH 64   /* more units waiting there than here */

/* ---- load rows ---- */

void core_load_put(const struct core_load *load, uint8_t value[CORE_LOAD_BYTES])
{
    for (int i = 0; i < 4; i++) {
        value[i] = (uint8_t)(load->ready >> (8 * i));
        value[4 + i] = (uint8_t)(load->spare >> (8 * i));
    }
}

static bool load_of(const struct core *core, uint8_t slot, struct core_load *out)
{
    const struct gossip_row *r = gossip_find(core, slot, CORE_ROW_LOAD);
    if (!r || r->length < CORE_LOAD_BYTES)
        return false;
    out->ready = out->spare = 0;
    for (int i = 3; i >= 0; i--) {
        out->ready = out->ready << 8 | r->value[i];
        out->spare = out->spare << 8 | r->value[4 + i];
    }
    return true;
}

/* ---- who gave us what ---- */

/* Remembered for a while, so that no unit goes back to where it came from. */
void share_got(struct core *core, const struct unit *u, uint8_t from)
{
    struct core_unit_id id = unit_id(u);
    struct gave *g = &core->gave[core->gave_next++ % GAVE_MAX];
    *g = (struct gave){id_hash(&id), core->now, from};
}

static bool came_from(const struct core *core, const struct unit *u, uint8_t slot)
{
    struct core_unit_id id = unit_id(u);
    uint64_t hash = id_hash(&id);
    for (int i = 0; i < GAVE_MAX; i++)
        if (core->gave[i].unit == hash && core->gave[i].from == slot &&
            core->now < core->gave[i].at + GUARD_NS)
            return true;
    return false;
}

/* ---- the giver ---- */

/* About to be tried here, by its own retry time. */
static bool is_due(const struct core *core, const struct unit *u)
{
    uint64_t now_s = core->wall_s + (core->now - core->wall_at) / CORE_SEC;
    return u->due_s && u->due_s >= now_s && u->due_s <= now_s + 1;
}

static bool may_give(const struct core *core, const struct unit *u, uint8_t slot)
{
    const struct work *w = work_of(core, u);
    int i = unit_list_find(u, slot);
    if (i < 0 || unit_status(u, i) != LIST_HOLD || !unit_right(core, u) || u->doubt)
        return false;
    if (w && w->kind == WORK_OWN && (w->attempt || w->hold_until || w->outcome_due))
        return false;
    return u->term <= TERM_MAX && !is_due(core, u) && !came_from(core, u, slot);
}

/* A quarter of the backlog a minute. */
static uint32_t may_give_now(struct core *core)
{
    if (core->now >= core->give_until) {
        core->give_until = core->now + MINUTE_NS;
        core->give_left = core->owned_count / 4;
    }
    return core->give_left;
}

void share_asked(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    uint32_t left = may_give_now(core), look = core->unit_high;
    uint32_t most = msg->u.steal.max < BATCH ? msg->u.steal.max : BATCH;
    if (core->state != CORE_READY || msg->env.from_epoch <= core->peer[slot].fenced)
        return;
    left = left < most ? left : most;
    look = look < LOOK ? look : LOOK;
    for (; look > 0 && left > 0 && !core_out_full(core); look--) {
        struct unit *u = &core->unit[core->give_cursor++ % core->unit_high];
        if (!(u->flags & UF_USED) || !may_give(core, u, slot))
            continue;
        struct core_unit_id id = unit_id(u);
        steal_hint(core, slot, &id, false);
        core->give_left--;
        left--;
    }
}

/* The caller cannot deliver it from here: whoever holds a copy and may send. */
void share_offer(struct core *core, const struct core_unit_id *id)
{
    struct unit *u = unit_find(core, id);
    uint8_t best = 0;
    for (int i = 0; u && i < u->list_count; i++) {
        uint8_t slot = u->list[i];
        if (slot != core->self && (core->peer[slot].roles & ROLE_EGRESS) &&
            peer_reachable(core, slot) && may_give(core, u, slot) &&
            (best == 0 || core_below(core, 2)))
            best = slot;
    }
    if (best)
        steal_hint(core, best, id, false);
}

/* ---- the thief ---- */

void share_timer(struct core *core)
{
    struct core_load own, other;
    uint8_t busiest = 0;
    if (core->now < core->share_at)
        return;
    core->share_at = core->now + ASK_NS;
    if (core->state != CORE_READY || core->draining || !load_of(core, core->self, &own) ||
        own.spare == 0 || own.ready > own.spare ||
        !(core->peer[core->self].roles & ROLE_EGRESS) ||
        !session_lease(core, core->p.start_margin_ns))
        return;
    uint32_t most = own.ready * 4 + WORTH;
    for (uint8_t i = 1; i <= core->peer_count; i++) {
        if (i == core->self || !peer_reachable(core, i) || !load_of(core, i, &other) ||
            other.ready <= most || other.ready <= other.spare)
            continue;
        busiest = i;
        most = other.ready;
    }
    if (busiest == 0)
        return;
    struct core_msg m = {.kind = MSG_STEAL_REQ};
    m.u.steal.max = own.spare - own.ready / 2;
    SOMETIMES(core, ST_STEAL_ASKED);
    core_send(core, busiest, &m);
}
