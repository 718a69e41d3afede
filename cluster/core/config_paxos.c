/* SPDX-License-Identifier: Apache-2.0 */
/* One single-decree Paxos for each version, among the voters of the version before.
 *
 * A quorum is the majority of the stored voters; in static mode it is all of them, less
 * one that the change itself names as powered off, or the change that its proposer wants:
 * then a value that this one had accepted before it went is finished first. */
#include "cluster/core/internal.h"

#include <string.h>

#define RETRY_NS CORE_SEC
#define ORPHAN_NS (5 * CORE_SEC)

static uint8_t voters_needed(const struct core *core, const struct proposal *p)
{
    uint64_t sworn = p->value.off ? p->value.off : p->want.off;
    uint8_t voters = cfg_voters(&core->cfg);
    if (core->cfg.mode == MODE_QUORUM)
        return (uint8_t)(voters / 2 + 1);
    if (MUT(core, MUT_STATIC_MAJORITY))
        return voters == 2 ? 1 : (uint8_t)(voters / 2 + 1);
    const struct core_member *off = sworn ? cfg_find(&core->cfg, sworn) : NULL;
    return (uint8_t)(voters - (off && (off->roles & ROLE_VOTER)));
}

static uint8_t counted(const struct core *core, const uint8_t *who)
{
    uint8_t n = 0;
    for (uint8_t i = 1; i <= core->peer_count; i++)
        n = (uint8_t)(n + (is_voter(core, i) && bit_get(who, i)));
    return n;
}

/* ---- the acceptor ---- */

static void store(struct core *core)
{
    struct core_op op = {.kind = OP_PAXOS};
    op.u.paxos = core->paxos;
    core->paxos_token = core_store_one(core, &op);
}

static void reply(
    struct core *core, uint8_t slot, enum core_msg_kind kind, uint64_t ballot, bool ok)
{
    struct core_msg m = {.kind = (uint8_t)kind};
    m.u.cfg.ver = core->paxos.ver;
    m.u.cfg.ballot = ballot;
    m.u.cfg.ok = ok;
    m.u.cfg.accepted = ok ? core->paxos.accepted : core->paxos.promised;
    if (kind == MSG_CFG_PROMISE && ok)
        m.u.cfg.change = core->paxos.change;
    if (ok && core->paxos_token > core->token_done && !MUT(core, MUT_PROMISE_VOLATILE))
        core_send_after(core, core->token_last, slot, &m);
    else
        core_send(core, slot, &m);
}

/* A voter takes part once it has taken over the table of the set before: so a quorum of
 * this set is active before another can be decided (spacing, a). */
static bool acceptor(struct core *core, uint8_t slot, uint64_t ver)
{
    if (ver <= core->cfg.ver) {
        config_tell(core, slot);
        return false;
    }
    return ver == core->cfg.ver + 1 && is_voter(core, core->self) && core->voter_active;
}

static void promise(struct core *core, uint64_t ballot)
{
    core->paxos.promised = ballot;
    store(core);
}

static void prepare_recv(struct core *core, uint8_t slot, const struct msg_cfg *x)
{
    if (!acceptor(core, slot, x->ver))
        return;
    if (x->ballot > core->paxos.promised)
        promise(core, x->ballot);
    reply(core, slot, MSG_CFG_PROMISE, x->ballot, x->ballot == core->paxos.promised);
}

/* Another set of voters, or another mode, only when the leases of the set before are over
 * (spacing, b; I8). Static mode only for a session that is not fenced: nobody could tell
 * it later. Neither is a refusal of the value: it may be accepted in a while. */
static bool in_time(const struct core *core, const struct core_cfg *next)
{
    if (next->voters_ver != next->ver || MUT(core, MUT_SPACING))
        return true;
    if (next->mode == MODE_STATIC && core->cfg.mode == MODE_QUORUM &&
        !session_lease(core, core->p.start_margin_ns))
        return false;
    return core->cfg.mode == MODE_STATIC || core->cfg.prev_ver == core->cfg.voters_ver ||
           core->now >= core->active_since + config_spacing(core);
}

/* Two become static in one step: the first, who alone decides, vouches for the session of
 * the second, which goes on without a lease. Who has vouched cannot take it back. */
static bool pair_lives(const struct core *core, const struct cfg_change *change)
{
    if (!cfg_makes_pair(change) ||
        (core->paxos.accepted && cfg_same(&core->paxos.change, change)))
        return true;
    return voter_vouches(core, peer_slot(core, change->node), change->off_epoch);
}

static bool may_accept(const struct core *core, const struct cfg_change *change)
{
    struct core_cfg next = core->cfg;
    return cfg_apply(&next, change) && in_time(core, &next) && pair_lives(core, change);
}

static void take(struct core *core, uint64_t ballot, const struct cfg_change *change)
{
    core->paxos.promised = core->paxos.accepted = ballot;
    core->paxos.change = *change;
    core->accepted_at = core->now;
    store(core);
    config_soon(core);
}

static void accept_recv(struct core *core, uint8_t slot, const struct msg_cfg *x)
{
    if (!acceptor(core, slot, x->ver))
        return;
    if (x->ballot < core->paxos.promised) {
        reply(core, slot, MSG_CFG_ACCEPTED, x->ballot, false);
        return;
    }
    if (x->ballot != core->paxos.accepted) {
        if (!may_accept(core, &x->change))
            return;
        take(core, x->ballot, &x->change);
    }
    reply(core, slot, MSG_CFG_ACCEPTED, x->ballot, true);
}

/* ---- the proposer ---- */

/* Unique for ever: no two members have the same number in a version, no two sessions of
 * one the same epoch. */
static uint64_t next_ballot(const struct core *core, uint64_t above)
{
    return ((above >> 40) + 1) << 40 | (uint64_t)core->epoch << 8 |
           core->peer[core->self].in_cfg;
}

static void send_phase(struct core *core)
{
    struct proposal *p = &core->prop;
    struct core_msg m = {.kind = p->phase == 1 ? MSG_CFG_PREPARE : MSG_CFG_ACCEPT};
    m.u.cfg.ver = p->ver;
    m.u.cfg.ballot = p->ballot;
    if (p->phase == 2)
        m.u.cfg.change = p->value;
    const uint8_t *done = p->phase == 1 ? p->promised : p->accepted;
    for (uint8_t i = 1; i <= core->peer_count; i++)
        if (i != core->self && is_voter(core, i) && !bit_get(done, i))
            core_send(core, i, &m);
    p->retry_at = core->now + RETRY_NS + core_below(core, RETRY_NS / 2);
    config_soon(core);
}

/* Our own vote goes through our own disk, like any other. */
static void vote_self(struct core *core)
{
    struct proposal *p = &core->prop;
    if (!is_voter(core, core->self) || !core->voter_active)
        return;
    if (p->ballot < core->paxos.promised) {
        p->refused = true;
        return;
    }
    if (p->phase == 1 && p->ballot > core->paxos.promised)
        promise(core, p->ballot);
    if (p->phase == 2 && p->ballot != core->paxos.accepted) {
        if (!may_accept(core, &p->value)) {
            /* that session may never be again what we said of it: say it anew */
            p->active = !cfg_makes_pair(&p->value);
            return;
        }
        take(core, p->ballot, &p->value);
    }
    if (core->parked_count + PARK_RESERVE / 2 < core->limits.parked)
        core_park(core, core->token_last, PARK_CFG, core->self);
}

static void new_round(struct core *core)
{
    struct proposal *p = &core->prop;
    uint64_t above = p->seen > core->paxos.promised ? p->seen : core->paxos.promised;
    p->ballot = next_ballot(core, above > p->ballot ? above : p->ballot);
    p->phase = 1;
    p->best = 0;
    p->refused = false;
    p->value = p->want;
    memset(p->promised, 0, sizeof(p->promised));
    memset(p->accepted, 0, sizeof(p->accepted));
    send_phase(core);
    vote_self(core);
}

void paxos_propose(struct core *core, const struct cfg_change *want)
{
    struct proposal *p = &core->prop;
    memset(p, 0, sizeof(*p));
    p->active = true;
    p->ver = core->cfg.ver + 1;
    p->want = *want;
    new_round(core);
}

void paxos_forget(struct core *core)
{
    core->prop.active = false;
}

static void decided(struct core *core)
{
    struct core_cfg next = core->cfg;
    struct cfg_change change = core->prop.value;
    core->prop.active = false;
    if (!cfg_apply(&next, &change))
        return; /* no voter would have accepted it */
    config_install(core, &next, &change);
    config_tell_all(core);
}

static void count(struct core *core)
{
    struct proposal *p = &core->prop;
    if (p->phase == 1 && counted(core, p->promised) >= voters_needed(core, p)) {
        p->phase = 2;
        send_phase(core);
        vote_self(core);
    } else if (p->phase == 2 && counted(core, p->accepted) >= voters_needed(core, p)) {
        decided(core);
    }
}

static void answered(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    struct proposal *p = &core->prop;
    const struct msg_cfg *x = &msg->u.cfg;
    if (!p->active || x->ver != p->ver || x->ballot != p->ballot || !is_voter(core, slot))
        return;
    if (!x->ok) {
        SOMETIMES(core, ST_CFG_CONFLICT);
        p->seen = x->accepted > p->seen ? x->accepted : p->seen;
        p->refused = true;
        uint64_t later = core->now + core_below(core, RETRY_NS) + 100 * CORE_MS;
        p->retry_at = later < p->retry_at ? later : p->retry_at;
        return;
    }
    if (msg->kind == MSG_CFG_PROMISE) {
        if (p->phase != 1)
            return;
        bit_set(p->promised, slot);
        if (x->accepted > p->best) { /* it may be decided: finish that one */
            p->best = x->accepted;
            p->value = x->change;
        }
    } else {
        bit_set(p->accepted, slot);
    }
    count(core);
}

/* The own vote has reached the disk. */
void paxos_durable(struct core *core)
{
    struct proposal *p = &core->prop;
    const struct core_paxos_row *x = &core->paxos;
    if (!p->active || x->ver != p->ver || core->paxos_token > core->token_done)
        return;
    if (p->phase == 1 && x->promised == p->ballot && !bit_get(p->promised, core->self)) {
        bit_set(p->promised, core->self);
        if (x->accepted > p->best) {
            p->best = x->accepted;
            p->value = x->change;
        }
    } else if (p->phase == 2 && x->accepted == p->ballot) {
        bit_set(p->accepted, core->self);
    }
    count(core);
}

/* A value that was accepted and then left alone is finished by whoever has it. */
static void orphan(struct core *core)
{
    const struct core_paxos_row *x = &core->paxos;
    if (x->accepted == 0 || x->ver != core->cfg.ver + 1 || core->state < CORE_OPENING ||
        core->state == CORE_RESIGNED)
        return;
    uint64_t due = core->accepted_at + ORPHAN_NS;
    if (core->now < due) {
        core->config_at = due < core->config_at ? due : core->config_at;
        return;
    }
    core->accepted_at = core->now + core_below(core, ORPHAN_NS);
    paxos_propose(core, &x->change);
}

void paxos_timer(struct core *core)
{
    struct proposal *p = &core->prop;
    if (!p->active)
        orphan(core);
    if (!p->active)
        return;
    if (core->now >= p->retry_at) {
        if (p->refused) {
            new_round(core);
        } else {
            send_phase(core);
            vote_self(core);
        }
    }
    core->config_at = p->retry_at < core->config_at ? p->retry_at : core->config_at;
}

void paxos_recv(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    switch (msg->kind) {
    case MSG_CFG_PREPARE:
        prepare_recv(core, slot, &msg->u.cfg);
        break;
    case MSG_CFG_ACCEPT:
        accept_recv(core, slot, &msg->u.cfg);
        break;
    case MSG_CFG_PROMISE:
    case MSG_CFG_ACCEPTED:
        answered(core, slot, msg);
        break;
    default:
        break;
    }
}
