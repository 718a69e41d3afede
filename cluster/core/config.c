/* SPDX-License-Identifier: Apache-2.0 */
/* The version in force: how it comes into force here, and how others hear of it. */
#include "cluster/core/internal.h"

#include <string.h>

#define TELL_NS (300 * CORE_MS)
#define PAGES_MAX ((CORE_MEMBERS_MAX + CORE_PAGE_MEMBERS - 1) / CORE_PAGE_MEMBERS)

_Static_assert(PAGES_MAX < 64, "pages are counted in 64 bits");

void config_index(struct core *core)
{
    for (uint8_t i = 1; i <= core->peer_count; i++)
        core->peer[i].in_cfg = 0;
    for (uint8_t i = 0; i < core->cfg.count; i++) {
        const struct core_member *m = &core->cfg.member[i];
        uint8_t slot = peer_intern(core, m->node);
        struct peer *p = &core->peer[slot];
        if (slot == 0)
            continue;
        p->in_cfg = (uint8_t)(i + 1);
        p->roles = m->roles;
        p->zone = m->zone;
        p->weight = m->weight;
    }
    const struct peer *self = &core->peer[core->self];
    core->draining = self->in_cfg && (self->roles & ROLE_DRAINING);
}

/* ---- rights that follow from it ---- */

uint64_t config_spacing(const struct core *core)
{
    return core->p.lease_ns + core->p.lease_ns / 1000000 * 2 * core->p.rho_ppm; /* I8 */
}

bool config_serves(const struct core *core, uint64_t asked)
{
    return core->cfg.mode == MODE_QUORUM && is_voter(core, core->self) &&
           core->voter_active && asked >= core->cfg.voters_ver && asked <= core->cfg.ver;
}

/* Whoever has accepted the end of its static right delivers without a lease no more: the
 * decision may be taken already, with our word in it. */
static bool static_ends(const struct core *core)
{
    const struct core_paxos_row *x = &core->paxos;
    if (x->ver != core->cfg.ver + 1 || x->accepted == 0)
        return false;
    return x->change.op == CFG_MODE ||
           (x->change.op == CFG_ROLES && x->change.node == core->node &&
               !(x->change.roles & ROLE_VOTER));
}

/* Frames with an older tag may come from who still lives by static mode. */
uint64_t config_static_until(const struct core *core)
{
    const struct core_paxos_row *x = &core->paxos;
    bool ends = core->cfg.mode == MODE_STATIC && x->ver == core->cfg.ver + 1 &&
                x->accepted && x->change.op == CFG_MODE;
    return ends ? x->ver : core->cfg.mode_ver;
}

bool config_static(const struct core *core)
{
    return core->cfg.mode == MODE_STATIC && is_voter(core, core->self) &&
           (!static_ends(core) || MUT(core, MUT_STILL_STATIC));
}

/* ---- coming into force ---- */

static uint64_t own_lease(const struct core *core)
{
    return core->p.lease_ns - core->p.lease_ns / 1000000 * 2 * core->p.rho_ppm;
}

/* What a quorum of the old set granted holds to its end, but nothing that comes later is
 * added to it; and nothing that the old set granted counts in the new one. */
static void leave_set(struct core *core, uint8_t old_mode)
{
    uint64_t most = core->now + own_lease(core);
    uint64_t end = core->lease_end < most ? core->lease_end : most;
    bool open = core->state == CORE_SYNC || core->state == CORE_READY;
    core->lease_prev = open && old_mode == MODE_QUORUM ? end : 0;
    core->set_nonce = core->nonce;
    core->self_vote = core->self_vote_asked = false;
    for (uint8_t i = 1; i <= core->peer_count; i++) {
        struct peer *p = &core->peer[i];
        p->lease_exp = 0;
        p->voter_says_fenced = false;
        p->fence_ok_epoch = 0;
        if (core->state == CORE_OPENING) {
            p->table_whole = false;
            p->table_pages = 0;
        }
    }
    core->lease_end = core->lease_prev;
    core->frozen = false; /* all that counts from here on is asked after this */
    core->renew_at = core->now;
}

static void store(struct core *core)
{
    struct core_command *c = core_store(core);
    c->u.store.op_count = 2;
    c->u.store.op[0].kind = OP_CFG;
    c->u.store.op[0].u.cfg = &core->cfg;
    c->u.store.op[1].kind = OP_PAXOS;
    c->u.store.op[1].u.paxos = core->paxos;
}

/* A node that is no member any more has no session, ever again. */
static void close_removed(struct core *core, const struct core_cfg *old)
{
    for (uint8_t i = 0; i < old->count; i++) {
        uint8_t slot = peer_slot(core, old->member[i].node);
        if (slot && slot != core->self && !peer_member(core, slot))
            peer_learn(core, slot, NODE_CLOSED, NODE_CLOSED);
    }
}

static void begin_membership(struct core *core)
{
    core->state = CORE_EPOCH;
    core->epoch++;
    core->started_at = core->now;
    core->lease_max =
        core->lease_max > core->p.lease_ns ? core->lease_max : core->p.lease_ns;
    struct core_op op = {.kind = OP_META};
    op.u.meta = (struct core_meta){core->node, core->epoch, core->lease_max};
    core_store_one(core, &op);
    core_park(core, core->token_last, PARK_EPOCH, 0);
}

/* The operator's word closes the sessions that were known of a node that is off, and none
 * that began after it was given. */
static void close_off(struct core *core, const struct cfg_change *c)
{
    uint8_t slot = peer_slot(core, c->off);
    if (slot && slot != core->self)
        peer_learn(core, slot, c->off_epoch, c->off_epoch);
}

/* This session and each other that static mode had opened know one another. */
static bool all_met(
    const struct core *core, const struct core_cfg *old, const struct cfg_change *c)
{
    const struct core_member *self = cfg_find(old, core->node);
    if (core->state != CORE_READY || !self || !(self->roles & ROLE_VOTER))
        return false;
    for (uint8_t i = 0; i < old->count; i++) {
        const struct core_member *m = &old->member[i];
        const struct peer *p = &core->peer[peer_slot(core, m->node)];
        if (m != self && (m->roles & ROLE_VOTER) && (!c || c->off != m->node) &&
            !(p->known && p->synced))
            return false;
    }
    return true;
}

/* Rule M: static mode opens sessions without a table of others from a quorum. One that
 * goes on under a lease must have met all voters, or a fence of an older session makes a
 * living one seem down; and nobody may deliver unheard. One that begins to go without a
 * lease needs the word of who could have closed it. Else, and when it has lost its
 * vote, another begins: it reads. */
static bool must_begin_anew(
    const struct core *core, const struct core_cfg *old, const struct cfg_change *c)
{
    bool open = core->state == CORE_SYNC || core->state == CORE_READY;
    const struct core_member *self = cfg_find(old, core->node);
    if (!open || MUT(core, MUT_STATIC_STRANGERS))
        return false;
    if (old->mode == MODE_QUORUM && core->cfg.mode == MODE_STATIC) {
        bool accepted = c && self && (self->roles & ROLE_VOTER);
        bool vouched = c && c->node == core->node && c->off_epoch == core->epoch;
        return is_voter(core, core->self) && !accepted && !vouched;
    }
    if (old->mode != MODE_STATIC)
        return false;
    return core->cfg.mode == MODE_STATIC ? !is_voter(core, core->self)
                                         : !all_met(core, old, c) || intent_unheard(core);
}

/* The session follows the version: it begins, ends, or goes on under other rules. */
static void follow(struct core *core, bool set, bool anew)
{
    if (!peer_member(core, core->self)) {
        core_end_session(core);
    } else if (core->state == CORE_IDLE) {
        begin_membership(core);
    } else if (core->state >= CORE_OPENING && anew) {
        core_new_session(core);
    } else if (core->state == CORE_OPENING && config_static(core)) {
        session_opened(core);
    }
    if (set && core->state >= CORE_OPENING)
        session_recompute(core);
    if (core->state == CORE_SYNC || core->state == CORE_READY) {
        sync_check(core);
        sweep_all(core);
    }
}

void config_install(
    struct core *core, const struct core_cfg *next, const struct cfg_change *change)
{
    const struct core_cfg old = core->cfg;
    bool set = old.voters_ver != next->voters_ver;
    if (old.count && is_voter(core, core->self) && core->voter_active)
        core->paxos.active = old.voters_ver;
    core->paxos.ver = next->ver + 1;
    core->paxos.promised = core->paxos.accepted = 0;
    memset(&core->paxos.change, 0, sizeof(core->paxos.change));
    /* without a configuration on its disk it was never a voter: no promise is forgotten
     */
    core->newborn = core->newborn || (old.count == 0 && core->state == CORE_IDLE);
    core->cfg = *next;
    core->last_ver = change ? next->ver : 0;
    if (change)
        core->last = *change;
    config_index(core);
    store(core);
    SOMETIMES(core, ST_CFG_STEP);
    core_cmd(core, CMD_CFG)->u.cfg = &core->cfg;
    close_removed(core, &old);
    if (change && change->off && old.mode == MODE_STATIC)
        close_off(core, change);
    if (set) {
        leave_set(core, old.mode);
        seal_begin(core);
    }
    paxos_forget(core);
    bool generation = old.count && old.ver >> 48 != next->ver >> 48;
    follow(core, set, generation || must_begin_anew(core, &old, change));
    wish_decided(core);
    config_soon(core);
}

void config_boot(struct core *core)
{
    if (core->cfg.count == 0)
        return;
    core->accepted_at = core->now;
    if (core->paxos.ver != core->cfg.ver + 1) {
        core->paxos.ver = core->cfg.ver + 1;
        core->paxos.promised = core->paxos.accepted = 0;
    }
    seal_begin(core);
    core->config_at = core->now;
}

void config_soon(struct core *core)
{
    core->config_at = core->now;
}

/* ---- getting around ---- */

static bool told_lately(struct core *core, uint8_t slot)
{
    struct peer *p = &core->peer[slot];
    if (core->now < p->cfg_told_at + TELL_NS && p->cfg_told_at)
        return true;
    p->cfg_told_at = core->now;
    return false;
}

static void send_page(struct core *core, uint8_t slot, uint8_t page, uint8_t pages)
{
    const struct core_cfg *c = &core->cfg;
    struct core_msg m = {.kind = MSG_CFG_PAGE};
    struct msg_cfg *x = &m.u.cfg;
    x->ver = c->ver;
    x->mode_ver = c->mode_ver;
    x->voters_ver = c->voters_ver;
    x->prev_ver = c->prev_ver;
    x->page = page;
    x->page_count = pages;
    x->copies = c->copies;
    x->min_copies = c->min_copies;
    x->mode = c->mode;
    x->flags = c->flags;
    x->was_voters = c->was_voters;
    for (int i = page * CORE_PAGE_MEMBERS; i < c->count && x->count < CORE_PAGE_MEMBERS;
         i++)
        x->u.member[x->count++] = c->member[i];
    core_send_any(core, slot, &m);
}

/* Tells a node that is behind: one step if that is all, else the whole. */
void config_tell(struct core *core, uint8_t slot)
{
    if (slot == 0 || slot == core->self || core->cfg.count == 0 || core_out_full(core) ||
        told_lately(core, slot))
        return;
    uint64_t seen = core->peer[slot].cfg_seen;
    if (core->last_ver == core->cfg.ver && seen + 1 == core->cfg.ver) {
        struct core_msg m = {.kind = MSG_CFG_LEARN};
        m.u.cfg.ver = core->cfg.ver;
        m.u.cfg.change = core->last;
        core_send_any(core, slot, &m);
        return;
    }
    uint8_t pages =
        (uint8_t)((core->cfg.count + CORE_PAGE_MEMBERS - 1) / CORE_PAGE_MEMBERS);
    for (uint8_t i = 0; i < pages; i++)
        send_page(core, slot, i, pages);
}

void config_tell_all(struct core *core)
{
    for (uint8_t i = 1; i <= core->peer_count; i++) {
        core->peer[i].cfg_told_at = 0;
        if (peer_member(core, i) && core->peer[i].cfg_seen < core->cfg.ver)
            config_tell(core, i);
    }
}

static void ask(struct core *core, uint8_t slot)
{
    if (core->now < core->ask_at)
        return;
    core->ask_at = core->now + TELL_NS;
    struct core_msg m = {.kind = MSG_CFG_ASK};
    m.u.cfg.ver = core->cfg.ver;
    core_send_any(core, slot, &m);
}

/* Every frame says which version its sender has. */
void config_heard(struct core *core, uint8_t slot, uint64_t ver)
{
    struct peer *p = &core->peer[slot];
    p->cfg_seen = ver > p->cfg_seen ? ver : p->cfg_seen;
    if (ver > core->cfg.ver)
        ask(core, slot);
    else if (ver < core->cfg.ver && ver >= p->cfg_seen)
        config_tell(core, slot);
}

static void learn(struct core *core, uint8_t slot, const struct msg_cfg *x)
{
    if (x->ver <= core->cfg.ver)
        return;
    struct core_cfg next = core->cfg;
    if (x->ver != next.ver + 1 || !cfg_apply(&next, &x->change)) {
        ask(core, slot);
        return;
    }
    config_install(core, &next, &x->change);
}

static void begin_incoming(struct core *core, const struct msg_cfg *x)
{
    struct core_cfg *in = &core->incoming;
    memset(in, 0, sizeof(*in));
    core->incoming_pages = 0;
    in->ver = x->ver;
    in->mode_ver = x->mode_ver;
    in->voters_ver = x->voters_ver;
    in->prev_ver = x->prev_ver;
    in->mode = x->mode;
    in->copies = x->copies;
    in->min_copies = x->min_copies;
    in->flags = x->flags;
    in->was_voters = x->was_voters;
}

static void page(struct core *core, const struct msg_cfg *x)
{
    struct core_cfg *in = &core->incoming;
    bool last = x->page + 1 == x->page_count;
    if (x->ver <= core->cfg.ver || x->page_count == 0 || x->page_count > PAGES_MAX ||
        x->page >= x->page_count || x->count == 0 || x->count > CORE_PAGE_MEMBERS ||
        (!last && x->count != CORE_PAGE_MEMBERS))
        return;
    if (in->ver != x->ver)
        begin_incoming(core, x);
    memcpy(&in->member[x->page * CORE_PAGE_MEMBERS], x->u.member,
        x->count * sizeof(x->u.member[0]));
    if (last)
        in->count = (uint8_t)(x->page * CORE_PAGE_MEMBERS + x->count);
    core->incoming_pages |= UINT64_C(1) << x->page;
    if (core->incoming_pages != (UINT64_C(1) << x->page_count) - 1 || !cfg_valid(in))
        return;
    if (core->state == CORE_IDLE && !cfg_find(in, core->node))
        return; /* of others only: nothing to join */
    struct core_cfg next = *in;
    memset(in, 0, sizeof(*in));
    config_install(core, &next, NULL);
}

/* No configuration yet, or no place in it: whoever speaks to us has one. */
void config_idle(struct core *core, const struct core_msg *msg)
{
    uint8_t slot = peer_intern(core, msg->env.from);
    if (slot == 0 || slot == core->self)
        return;
    if (msg->kind == MSG_CFG_PAGE)
        page(core, &msg->u.cfg);
    else if (msg->env.cfg_ver > core->cfg.ver)
        ask(core, slot);
}

/* A node that is no member, to our knowledge: it may hear why. */
void config_stranger(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    if (slot == 0 || msg->env.cfg_ver >= core->cfg.ver)
        return;
    core->peer[slot].cfg_seen = msg->env.cfg_ver;
    config_tell(core, slot);
}

void config_recv(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    if (slot == 0 || slot == core->self)
        return;
    switch (msg->kind) {
    case MSG_CFG_ASK:
        core->peer[slot].cfg_seen = msg->u.cfg.ver;
        if (msg->u.cfg.ver < core->cfg.ver)
            config_tell(core, slot);
        break;
    case MSG_CFG_PAGE:
        page(core, &msg->u.cfg);
        break;
    case MSG_CFG_LEARN:
        learn(core, slot, &msg->u.cfg);
        break;
    case MSG_CFG_STORED:
        if (msg->u.cfg.ver == core->cfg.voters_ver)
            bit_set(core->active_ok, slot);
        break;
    case MSG_SEAL_READ:
    case MSG_SEAL_STATE:
        seal_recv(core, slot, msg);
        break;
    default:
        paxos_recv(core, slot, msg);
        break;
    }
}

void config_timer(struct core *core)
{
    if (core->now < core->config_at || core_out_full(core))
        return;
    core->config_at = CORE_FOREVER;
    seal_timer(core);
    wish_timer(core);
    policy_timer(core);
    paxos_timer(core);
}
