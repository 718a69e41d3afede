/* SPDX-License-Identifier: Apache-2.0 */
/* The member's side of a session: leases, their end, the dot gate. */
#include "cluster/core/internal.h"

#include <string.h>

static uint64_t own_lease(const struct core *core)
{
    /* in real time it ends before every promise it is built on, by any two clocks within
     * rho of each other (I1) */
    return core->p.lease_ns - core->p.lease_ns / 1000000 * 2 * core->p.rho_ppm;
}

static bool is_static(const struct core *core)
{
    return config_static(core);
}

bool session_lease(const struct core *core, uint64_t margin_ns)
{
    if (core->state != CORE_SYNC && core->state != CORE_READY)
        return false;
    if (is_static(core))
        return true;
    if (core->frozen)
        return false;
    return core->lease_end == CORE_FOREVER || core->now + margin_ns <= core->lease_end;
}

/* Publishes the gate when its value changed. */
void session_gate(struct core *core)
{
    struct core_gate_value g = {.epoch = core->epoch,
        .frozen = core->frozen,
        .lease_end_ns = core->lease_end,
        .dot_margin_ns = core->p.dot_margin_ns};
    if (core->state != CORE_SYNC && core->state != CORE_READY)
        g.lease_end_ns = 0;
    else if (is_static(core))
        g.lease_end_ns = CORE_FOREVER;
    if (g.epoch == core->gate.epoch && g.frozen == core->gate.frozen &&
        g.lease_end_ns == core->gate.lease_end_ns)
        return;
    core->gate = g;
    core_cmd(core, CMD_GATE)->u.gate = g;
}

static void forget_session(struct core *core)
{
    for (uint8_t i = 1; i <= core->peer_count; i++) {
        struct peer *p = &core->peer[i];
        p->lease_exp = 0;
        p->table_whole = false;
        p->table_pages = 0;
        p->table_epoch = 0;
        p->voter_says_fenced = false;
        p->synced = false;
        if (!core->blind)
            p->boot_fenced = p->fenced;
        p->sync_in_done = false;
        p->sync_req_at = 0;
        p->out.active = false;
        p->out.finished = false;
    }
}

void session_start(struct core *core)
{
    core->state = CORE_OPENING;
    core->nonce = (uint64_t)core->epoch << 32;
    core->birth = core_random(core) | 1;
    core->lease_end = 0;
    core->lease_prev = 0;
    core->set_nonce = 0;
    core->frozen = false;
    core->frozen_nonce = 0;
    core->self_vote = false;
    core->self_vote_asked = false;
    core->renew_at = core->now;
    core->lease_lost_at = core->now;
    core->refused_at = core->now;
    core->attempt_counter = 0;
    core->counter = 0;
    forget_session(core);
    core->blind = true;
    if (is_static(core)) {
        session_opened(core);
        return;
    }
    session_self_vote(core);
}

/* The lock on the data folder proves that our older session has ended: no wait for it. */
void session_self_vote(struct core *core)
{
    if (core->cfg.mode != MODE_QUORUM || !is_voter(core, core->self) ||
        !core->voter_active || core->self_vote || core->self_vote_asked)
        return;
    struct peer *p = &core->peer[core->self];
    if (p->sess.fenced >= core->epoch)
        return; /* a quorum may have closed us: our word is worth nothing */
    core->self_vote_asked = true;
    uint32_t fenced = p->sess.fenced > core->epoch - 1 ? p->sess.fenced : core->epoch - 1;
    voter_store(core, core->self, core->epoch, fenced, 0);
    core_park(core, core->token_last, PARK_SELF_VOTE, core->self);
}

void session_opened(struct core *core)
{
    core->state = CORE_SYNC;
    core->sync_due = core->now;
    sync_check(core);
    sweep_all(core);
}

/* ---- renewals ---- */

static void ask_voter(struct core *core, uint8_t slot)
{
    struct core_msg m = {.kind = MSG_LEASE_REQ};
    m.u.lease.nonce = core->nonce;
    m.u.lease.birth = core->birth;
    m.u.lease.acked = core->peer[slot].answered_nonce;
    m.u.lease.page = core->state == CORE_OPENING && !core->peer[slot].table_whole;
    core_send(core, slot, &m);
}

static void renew(struct core *core)
{
    core->nonce++;
    core->round[core->nonce % ROUND_RING] = (struct grant){core->nonce, core->now};
    for (uint8_t i = 1; i <= core->peer_count; i++)
        if (i != core->self && is_voter(core, i))
            ask_voter(core, i);
    bool hurry = core->state == CORE_OPENING || core->frozen ||
                 !session_lease(core, core->p.start_margin_ns);
    uint64_t every = hurry && core->p.renew_ns > CORE_SEC ? CORE_SEC : core->p.renew_ns;
    core->renew_at = core->now + every - core_below(core, every / 8 + 1);
}

/* Our own row may say it too: a single vote of the set before, that we took over. */
static bool refuses(const struct core *core, uint8_t slot)
{
    const struct peer *p = &core->peer[slot];
    if (!is_voter(core, slot))
        return false;
    return slot == core->self ? p->sess.fenced >= core->epoch : p->voter_says_fenced;
}

static uint8_t refusals(const struct core *core)
{
    uint8_t n = 0;
    for (uint8_t i = 1; i <= core->peer_count; i++)
        n = (uint8_t)(n + refuses(core, i));
    return n;
}

void session_timer(struct core *core)
{
    if (core->state == CORE_RESIGNED) {
        /* resigned for its disk, which answers again */
        if (!core->leaving && core->commit_age < CORE_SEC)
            core_new_session(core);
        return;
    }
    if (is_static(core))
        return;
    session_self_vote(core);
    if (core->now >= core->renew_at)
        renew(core);
    if (session_lease(core, 0))
        core->lease_lost_at = core->now;
    uint64_t patience = core->state == CORE_OPENING ? core->p.lease_ns : 2 * CORE_SEC;
    /* fenced by some, and no lease from the others: only a new session can go on */
    uint8_t refused = refusals(core);
    if (refused == 0)
        core->refused_at = core->now;
    if (refused >= quorum(core) ||
        (refused && core->now > core->lease_lost_at + patience)) {
        SOMETIMES(core, ST_FENCED_SELF);
        core_new_session(core);
    } else if (core->now > core->refused_at + 4 * core->p.lease_ns) {
        /* one voter is lost to this session for good: start over while all is well */
        session_resign(core, 5);
        core_new_session(core);
    }
}

/* Our own vote counts as a table that was read: what it says of others counts too. */
static void take_own_rows(struct core *core)
{
    const struct peer *self = &core->peer[core->self];
    if (!core->self_vote || !core->voter_active || self->sess.fenced >= core->epoch)
        return;
    for (uint8_t i = 1; i <= core->peer_count; i++)
        if (i != core->self)
            peer_learn(core, i, 0, core->peer[i].sess.cur);
}

/* q-th largest of the voters' grants; our own vote never ends. */
void session_recompute(struct core *core)
{
    uint64_t end[SLOTS];
    uint8_t n = 0, whole = 0, q = quorum(core);
    for (uint8_t i = 1; i <= core->peer_count; i++) {
        if (!is_voter(core, i))
            continue;
        const struct peer *p = &core->peer[i];
        bool own = i == core->self && core->self_vote && core->voter_active &&
                   p->sess.fenced < core->epoch;
        uint64_t v = own ? CORE_FOREVER : i == core->self ? 0 : p->lease_exp;
        uint8_t at = n++;
        for (; at > 0 && end[at - 1] < v; at--)
            end[at] = end[at - 1];
        end[at] = v;
        whole = (uint8_t)(whole + (own || p->table_whole || MUT(core, MUT_NO_TABLE)));
    }
    core->lease_end = n >= q ? end[q - 1] : 0;
    if (core->lease_end < core->lease_prev)
        core->lease_end = core->lease_prev;
    if (core->state == CORE_OPENING && whole >= q && core->lease_end > core->now) {
        take_own_rows(core);
        session_opened(core);
    }
}

/* Our clock stood still: what was granted in lost time may have ended long ago. */
void session_frozen(struct core *core)
{
    SOMETIMES(core, ST_FREEZE);
    if (is_static(core))
        return; /* no lease that could be too old, and nobody would end this */
    core->frozen = true;
    core->frozen_nonce = core->nonce;
    for (uint8_t i = 1; i <= core->peer_count; i++)
        core->peer[i].lease_exp = 0;
    core->renew_at = core->now;
    core->lease_end = core->lease_prev = 0;
    session_gate(core);
}

static void take_rows(struct core *core, const struct msg_lease *l)
{
    for (int i = 0; i < l->row_count && i < CORE_TABLE_ROWS; i++) {
        uint8_t slot = peer_intern(core, l->row[i].node);
        if (slot && slot != core->self)
            peer_learn(core, slot, l->row[i].fenced, l->row[i].cur);
    }
}

static void take_page(struct peer *p, uint32_t epoch, const struct msg_lease *l)
{
    if (l->page_count == 0 || l->page_count > 16)
        return;
    if (p->table_count != l->page_count || p->table_epoch != epoch) {
        p->table_count = l->page_count;
        p->table_epoch = epoch; /* a restart may have put the rows in other pages */
        p->table_pages = 0;
    }
    /* Each page left after our epoch was durable there, so pages of several answers make
     * one table: a lossy link need not carry all of them at once. */
    p->table_pages = (uint16_t)(p->table_pages | 1u << (l->page & 15));
    if (p->table_pages == (uint16_t)((1u << l->page_count) - 1))
        p->table_whole = true;
}

static void refused(struct core *core, struct peer *p, const struct msg_lease *l)
{
    if (l->answer == LEASE_FENCED && l->row_count) {
        if (l->row[0].fenced >= NODE_CLOSED) {
            core_die(core, "this node was removed from the cluster");
            return;
        }
        if (l->row[0].cur > core->epoch) {
            SOMETIMES(core, ST_OLD_IMAGE);
            core_die(core, "a newer session of this node exists: this is an old image");
            return;
        }
        if (l->row[0].fenced >= core->epoch)
            p->voter_says_fenced = true;
    }
}

void session_lease_rsp(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    const struct msg_lease *l = &msg->u.lease;
    struct peer *p = &core->peer[slot];
    const struct grant *sent = &core->round[l->nonce % ROUND_RING];
    if (l->nonce >> 32 != core->epoch || !is_voter(core, slot) ||
        l->nonce <= core->set_nonce || l->birth != core->birth)
        return; /* asked in another session, or of another set of voters */
    if (l->answer == LEASE_TWIN) {
        SOMETIMES(core, ST_OLD_IMAGE);
        core_die(core, "another process ran this session: this is an old image");
        return;
    }
    if (l->nonce > p->answered_nonce || p->answered_nonce >> 32 != core->epoch)
        p->answered_nonce = l->nonce;
    if (l->answer != LEASE_GRANT) {
        refused(core, p, l);
        return;
    }
    if (sent->nonce != l->nonce || core->now - sent->at > core->p.lease_ns)
        return; /* the answer outlived its question */
    if (!MUT(core, MUT_NO_TABLE))
        take_rows(core, l);
    if (core->state < CORE_OPENING || l->nonce >> 32 != core->epoch)
        return; /* the rows said that we are fenced */
    take_page(p, msg->env.from_epoch, l);
    p->voter_says_fenced = false;
    uint64_t from = MUT(core, MUT_LEASE_FROM_RECEIPT) ? core->now : sent->at;
    if (l->nonce > core->frozen_nonce && from + own_lease(core) > p->lease_exp)
        p->lease_exp = from + own_lease(core);
    if (l->nonce > core->frozen_nonce)
        core->frozen = false;
    session_recompute(core);
}

/* ---- leaving ---- */

/* Gate closed first, then told: whoever hears it may fence at once. */
void session_resign(struct core *core, uint32_t hold_s)
{
    if (core->state != CORE_SYNC && core->state != CORE_READY)
        return;
    SOMETIMES(core, ST_RESIGN);
    accept_cut(core);
    core->state = CORE_RESIGNED;
    core->lease_end = core->lease_prev = 0;
    session_gate(core);
    struct core_command *c = core_cmd(core, CMD_CANCEL);
    memset(&c->u.unit, 0, sizeof(c->u.unit));
    struct core_msg m = {.kind = MSG_RESIGN};
    m.u.fence.node = core->node;
    m.u.fence.epoch = core->epoch;
    m.u.fence.hold_s = hold_s;
    m.u.fence.flags = 1;
    for (uint8_t i = 1; i <= core->peer_count; i++)
        if (i != core->self)
            core_send(core, i, &m);
    if (is_voter(core, core->self))
        voter_store(core, core->self, core->epoch, core->epoch, 1);
}
