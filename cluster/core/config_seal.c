/* SPDX-License-Identifier: Apache-2.0 */
/* Seal and copy: voters of a new set take over the session table of the set before.
 *
 * Who answers the read has the new version on disk, and so serves nobody who still counts
 * in the old one: that is the seal. */
#include "cluster/core/internal.h"

#include <string.h>

#define READ_NS (400 * CORE_MS)

bool seal_needed(const struct core_cfg *cfg)
{
    return cfg->mode == MODE_QUORUM && cfg->was_voters > 0;
}

static void say_active(struct core *core)
{
    struct core_msg m = {.kind = MSG_CFG_STORED};
    m.u.cfg.ver = core->cfg.voters_ver;
    bit_set(core->active_ok, core->self);
    for (uint8_t i = 1; i <= core->peer_count; i++)
        if (i != core->self && is_voter(core, i))
            core_send_after(core, core->token_last, i, &m);
}

static void activate(struct core *core)
{
    core->voter_active = true;
    core->active_since = core->now;
    core->paxos.active = core->cfg.voters_ver;
    struct core_op op = {.kind = OP_PAXOS};
    op.u.paxos = core->paxos;
    core_store_one(core, &op);
    say_active(core);
    if (core->state >= CORE_OPENING)
        session_recompute(core); /* the own vote counts from here on */
}

/* A set of voters begins here (or we start, and it may not have begun for us yet). */
void seal_begin(struct core *core)
{
    memset(core->active_ok, 0, sizeof(core->active_ok));
    memset(core->seal_ok, 0, sizeof(core->seal_ok));
    memset(core->seal_pages, 0, sizeof(core->seal_pages));
    core->seal_at = core->now;
    core->active_since = core->now;
    core->voter_active = !seal_needed(&core->cfg) || MUT(core, MUT_NO_SEAL) ||
                         core->paxos.active >= core->cfg.voters_ver;
    if (core->voter_active && is_voter(core, core->self))
        bit_set(core->active_ok, core->self);
}

static void check(struct core *core)
{
    uint8_t whole = 0;
    for (uint8_t i = 1; i <= core->peer_count; i++)
        whole = (uint8_t)(whole + bit_get(core->seal_ok, i));
    if (whole < core->cfg.was_voters / 2 + 1)
        return;
    SOMETIMES(core, ST_SEAL);
    activate(core);
}

static bool was_voter(const struct core *core, uint8_t slot)
{
    return peer_member(core, slot) && (core->peer[slot].roles & ROLE_WAS_VOTER);
}

/* Our own table is that of the set before: it was taken over by us then. */
static bool may_answer(const struct core *core, uint64_t ver)
{
    return core->cfg.voters_ver == ver && core->paxos.active >= core->cfg.prev_ver;
}

void seal_timer(struct core *core)
{
    if (core->voter_active || !is_voter(core, core->self) ||
        core->cfg.mode != MODE_QUORUM)
        return;
    if (core->now < core->seal_at) {
        core->config_at = core->seal_at;
        return;
    }
    core->seal_at = core->now + READ_NS;
    core->config_at = core->seal_at;
    struct core_msg m = {.kind = MSG_SEAL_READ};
    m.u.cfg.ver = core->cfg.voters_ver;
    for (uint8_t i = 1; i <= core->peer_count; i++)
        if (i != core->self && was_voter(core, i) && !bit_get(core->seal_ok, i))
            core_send(core, i, &m);
    if (was_voter(core, core->self) && may_answer(core, core->cfg.voters_ver)) {
        bit_set(core->seal_ok, core->self);
        check(core);
    }
}

static void answer(struct core *core, uint8_t slot)
{
    uint8_t pages = (uint8_t)((core->peer_count + CORE_TABLE_ROWS - 1) / CORE_TABLE_ROWS);
    for (uint8_t page = 0; page < pages; page++) {
        struct core_msg m = {.kind = MSG_SEAL_STATE};
        struct msg_cfg *x = &m.u.cfg;
        x->ver = core->cfg.voters_ver;
        x->page = page;
        x->page_count = pages;
        for (int i = page * CORE_TABLE_ROWS + 1;
             i <= core->peer_count && x->count < CORE_TABLE_ROWS; i++)
            x->u.row[x->count++] = core->peer[i].sess;
        /* the new version, which is the seal, and the rows are on disk first */
        core_send_after(core, core->token_last, slot, &m);
    }
}

/* The larger of each: what a quorum of the old set has closed stays closed. */
static void take(struct core *core, const struct sess_row *row)
{
    uint8_t slot = peer_intern(core, row->node);
    struct sess_row *own = &core->peer[slot].sess;
    if (slot == 0 || (row->cur <= own->cur && row->fenced <= own->fenced))
        return;
    uint8_t flags = row->cur > own->cur ? row->flags : own->flags;
    voter_store(core, slot, row->cur > own->cur ? row->cur : own->cur,
        row->fenced > own->fenced ? row->fenced : own->fenced, flags);
}

static void state(
    struct core *core, uint8_t slot, uint32_t epoch, const struct msg_cfg *x)
{
    if (core->voter_active || !is_voter(core, core->self) || !was_voter(core, slot) ||
        x->ver != core->cfg.voters_ver || x->page_count == 0 || x->page_count > 16 ||
        x->page >= x->page_count)
        return;
    for (uint8_t i = 0; i < x->count && i < CORE_TABLE_ROWS; i++)
        take(core, &x->u.row[i]);
    if (core->seal_epoch[slot] != epoch)
        core->seal_pages[slot] = 0; /* a restart may have put the rows in other pages */
    core->seal_epoch[slot] = epoch;
    core->seal_pages[slot] = (uint16_t)(core->seal_pages[slot] | 1u << x->page);
    if (core->seal_pages[slot] != (uint16_t)((1u << x->page_count) - 1))
        return;
    bit_set(core->seal_ok, slot);
    check(core);
}

void seal_recv(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    const struct msg_cfg *x = &msg->u.cfg;
    if (msg->kind == MSG_SEAL_STATE)
        state(core, slot, msg->env.from_epoch, x);
    else if (may_answer(core, x->ver))
        answer(core, slot);
}
