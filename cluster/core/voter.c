/* SPDX-License-Identifier: Apache-2.0 */
/* The voter's side of sessions: promises, new epochs, fences. */
#include "cluster/core/internal.h"

#include <string.h>

#define ASKS_NS (1500 * CORE_MS) /* an opening session asks once a second */

void voter_store(
    struct core *core, uint8_t slot, uint32_t cur, uint32_t fenced, uint8_t flags)
{
    struct peer *p = &core->peer[slot];
    p->sess.cur = cur;
    p->sess.fenced = fenced;
    p->sess.flags = flags;
    struct core_op op = {.kind = OP_SESS};
    op.u.sess = p->sess;
    p->sess_token = core_store_one(core, &op);
}

/* A promise made before our restart is forgotten, so none may be broken until the longest
 * one would have ended (I2). A first start has promised nothing. */
bool voter_quarantined(const struct core *core)
{
    if (core->epoch <= 1 || core->newborn || MUT(core, MUT_NO_QUARANTINE))
        return false;
    return core->now < core->started_at + core->lease_max;
}

/* ---- leases ---- */

/* One-way links: a member that does not hear us must not keep our promise alive, or
 * nobody could fence a node that has stopped itself. */
static bool responsive(const struct core *core, const struct peer *p)
{
    return p->unheard.nonce == 0 || core->now - p->unheard.at < core->p.lease_ns ||
           MUT(core, MUT_NO_RESPONSIVE);
}

/* The oldest grant that was not heard yet; the ring may have lost some, never the oldest.
 */
static void take_heard(struct peer *p, uint64_t nonce)
{
    if (nonce <= p->heard_nonce)
        return;
    p->heard_nonce = nonce;
    if (p->unheard.nonce == 0 || nonce < p->unheard.nonce)
        return;
    p->unheard = (struct grant){0, 0};
    for (int i = 0; i < GRANT_RING; i++)
        if (p->grant[i].nonce > nonce &&
            (p->unheard.nonce == 0 || p->grant[i].nonce < p->unheard.nonce))
            p->unheard = p->grant[i];
}

static void answer(struct core *core, uint8_t slot, const struct msg_lease *asked,
    enum lease_answer what)
{
    struct core_msg m = {.kind = MSG_LEASE_RSP};
    m.u.lease.nonce = asked->nonce;
    m.u.lease.birth = asked->birth;
    m.u.lease.answer = (uint8_t)what;
    m.u.lease.row[0] = core->peer[slot].sess;
    m.u.lease.row_count = 1;
    if (core->peer[slot].sess_token > core->token_done)
        core_send_after(core, core->token_last, slot, &m);
    else
        core_send(core, slot, &m);
}

/* Highest session seen and highest session known closed by a quorum. The voter's own
 * `fenced` is one vote, not a fence, and must not be read as one. */
static void table_row(const struct core *core, uint8_t slot, struct sess_row *row)
{
    const struct peer *p = &core->peer[slot];
    row->node = p->node;
    row->cur = p->sess.cur > p->known ? p->sess.cur : p->known;
    row->fenced = p->fenced;
    row->flags = 0;
    if (slot == core->self)
        *row = (struct sess_row){core->node, core->epoch, core->epoch - 1, 0};
}

static void grant_pages(struct core *core, uint8_t slot, uint64_t nonce, bool whole)
{
    uint8_t pages = (uint8_t)((core->peer_count + CORE_TABLE_ROWS - 1) / CORE_TABLE_ROWS);
    uint8_t first = (uint8_t)(whole ? 0 : nonce % pages);
    uint8_t last = (uint8_t)(whole ? pages - 1 : first);
    bool wait = core->peer[slot].sess_token > core->token_done &&
                !MUT(core, MUT_GRANT_BEFORE_DURABLE);
    for (uint8_t page = first; page <= last; page++) {
        struct core_msg m = {.kind = MSG_LEASE_RSP};
        m.u.lease.nonce = nonce;
        m.u.lease.birth = core->peer[slot].birth;
        m.u.lease.answer = LEASE_GRANT;
        m.u.lease.page = page;
        m.u.lease.page_count = (uint8_t)(whole ? pages : 0);
        for (int i = page * CORE_TABLE_ROWS + 1;
             i <= core->peer_count && m.u.lease.row_count < CORE_TABLE_ROWS; i++)
            table_row(core, (uint8_t)i, &m.u.lease.row[m.u.lease.row_count++]);
        if (wait)
            core_send_after(core, core->token_last, slot, &m);
        else
            core_send(core, slot, &m);
    }
}

static void grant(struct core *core, uint8_t slot, const struct msg_lease *l)
{
    struct peer *p = &core->peer[slot];
    p->birth = l->birth;
    p->promise_until = core->now + core->p.lease_ns;
    p->promise_epoch = (uint32_t)(l->nonce >> 32);
    p->grant[p->grant_next++ % GRANT_RING] = (struct grant){l->nonce, core->now};
    if (p->unheard.nonce == 0)
        p->unheard = (struct grant){l->nonce, core->now};
    grant_pages(core, slot, l->nonce, l->page != 0);
}

static void new_epoch(
    struct core *core, uint8_t slot, uint32_t epoch, const struct msg_lease *l)
{
    struct peer *p = &core->peer[slot];
    bool resigned = p->sess.flags & 1 && p->sess.fenced >= p->sess.cur;
    if (!resigned && (core->now < p->promise_until || voter_quarantined(core))) {
        SOMETIMES(core, ST_WAIT);
        p->asks_until = core->now + ASKS_NS;
        answer(core, slot, l, LEASE_WAIT);
        return;
    }
    voter_store(
        core, slot, epoch, epoch - 1 > p->sess.fenced ? epoch - 1 : p->sess.fenced, 0);
    memset(p->grant, 0, sizeof(p->grant));
    p->heard_nonce = 0;
    p->birth = 0;
    p->unheard = (struct grant){0, 0};
    p->fence_round_at = 0;
    grant(core, slot, l);
}

/* A snapshot that was restored begins the session after its own, which may be the one
 * that ran last: its numbers look like old frames, but it is another process. */
bool voter_twin(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    const struct peer *p = &core->peer[slot];
    const struct msg_lease *l = &msg->u.lease;
    if (msg->kind != MSG_LEASE_REQ || !is_voter(core, core->self) ||
        MUT(core, MUT_TWIN_GRANTED))
        return false;
    if (msg->env.from_epoch < p->sess.cur) {
        answer(core, slot, l, LEASE_FENCED);
        return true;
    }
    /* our row may have come by copy; `birth` is of the session that we gave a promise to
     */
    if (msg->env.from_epoch > p->sess.cur || p->promise_epoch != msg->env.from_epoch ||
        !p->birth || l->birth == p->birth)
        return false;
    answer(core, slot, l, LEASE_TWIN);
    return true;
}

void voter_lease_req(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    struct peer *p = &core->peer[slot];
    const struct msg_lease *l = &msg->u.lease;
    uint32_t epoch = msg->env.from_epoch;
    if (!config_serves(core, msg->env.cfg_ver))
        return; /* it counts in another set of voters; it hears of ours by the tag */
    if ((epoch <= p->sess.fenced && !MUT(core, MUT_GRANT_FENCED)) ||
        epoch < p->sess.cur) {
        answer(core, slot, l, LEASE_FENCED);
        return;
    }
    /* a copied row may name a session that our own promise knows nothing of */
    bool foreign = p->promise_epoch < epoch && core->now < p->promise_until;
    if (epoch > p->sess.cur || foreign) {
        new_epoch(core, slot, epoch, l);
        return;
    }
    take_heard(p, l->acked);
    if (!responsive(core, p)) {
        SOMETIMES(core, ST_DEAF);
        answer(core, slot, l, LEASE_DEAF);
        return;
    }
    grant(core, slot, l);
}

/* ---- fences ---- */

/* The session holds a lease of ours, and nobody has closed it. */
bool voter_vouches(const struct core *core, uint8_t slot, uint32_t epoch)
{
    const struct peer *p = &core->peer[slot];
    return epoch && p->sess.cur == epoch && p->promise_epoch == epoch &&
           p->sess.fenced < epoch && p->fenced < epoch && core->now < p->promise_until;
}

/* Our word for the session of a second voter stands, be it known as decided or not. */
static bool vouched(const struct core *core, const struct peer *p)
{
    const struct core_paxos_row *x = &core->paxos;
    return x->ver == core->cfg.ver + 1 && x->accepted && cfg_makes_pair(&x->change) &&
           x->change.node == p->node;
}

static bool may_fence(const struct core *core, const struct peer *p, uint32_t epoch)
{
    if (vouched(core, p))
        return MUT(core, MUT_PAIR_FENCED);
    /* rule P: a row may have come by copy, and says nothing of our own promise */
    if (p->sess.fenced >= epoch)
        return MUT(core, MUT_COPY_COUNTS) ||
               (!voter_quarantined(core) && core->now >= p->promise_until);
    if (p->node == core->node)
        return false;
    if (MUT(core, MUT_FENCE_EARLY))
        return true;
    return !voter_quarantined(core) && core->now >= p->promise_until;
}

/* Also a session that we have not seen: whoever asks knows it from a table or from frames
 * that rule G let in, so it lives by leases, and none of ours. */
static bool vote_fence(struct core *core, uint8_t slot, uint32_t epoch)
{
    struct peer *p = &core->peer[slot];
    if (!config_serves(core, core->cfg.ver) || !may_fence(core, p, epoch)) {
        if (voter_quarantined(core))
            SOMETIMES(core, ST_QUARANTINE);
        return false;
    }
    if (p->sess.fenced < epoch)
        voter_store(
            core, slot, p->sess.cur > epoch ? p->sess.cur : epoch, epoch, p->sess.flags);
    return true;
}

void voter_fence_req(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    const struct msg_fence *f = &msg->u.fence;
    uint8_t target = peer_slot(core, f->node);
    if (target == 0 || !config_serves(core, msg->env.cfg_ver))
        return;
    bool ok = vote_fence(core, target, f->epoch);
    struct core_msg m = {.kind = MSG_FENCE_RSP};
    m.u.fence = *f;
    m.u.fence.answer = ok ? FENCE_OK : FENCE_NO;
    if (ok && core->peer[target].sess_token > core->token_done)
        core_send_after(core, core->token_last, slot, &m);
    else
        core_send(core, slot, &m);
}

static void count_votes(struct core *core, uint8_t target)
{
    struct peer *p = &core->peer[target];
    uint8_t ok = 0;
    for (uint8_t i = 1; i <= core->peer_count; i++)
        ok =
            (uint8_t)(ok + (i != target && is_voter(core, i) && bit_get(p->fence_ok, i)));
    if (ok >= quorum(core) && p->fenced < p->fence_ok_epoch)
        fence_done(core, target, p->fence_ok_epoch, 0);
}

void voter_fence_rsp(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    uint8_t target = peer_slot(core, msg->u.fence.node);
    struct peer *p = &core->peer[target];
    if (target == 0 || msg->u.fence.answer != FENCE_OK ||
        msg->u.fence.epoch != p->fence_ok_epoch ||
        msg->u.fence.hold_s != (uint32_t)core->cfg.voters_ver)
        return; /* not of this round, or of another set of voters */
    bit_set(p->fence_ok, slot);
    count_votes(core, target);
}

static void notice(struct core *core, uint8_t target)
{
    struct peer *p = &core->peer[target];
    struct core_msg m = {.kind = MSG_FENCE_NOTICE};
    m.u.fence.node = p->node;
    m.u.fence.epoch = p->fenced;
    p->fence_notice_at = core->now + CORE_SEC;
    for (uint8_t i = 1; i <= core->peer_count; i++)
        if (i != core->self)
            core_send_after(core, core->token_last, i, &m);
}

/* The fence is complete: a quorum has it on disk. */
void fence_done(struct core *core, uint8_t slot, uint32_t epoch, uint8_t flags)
{
    struct peer *p = &core->peer[slot];
    (void)flags;
    peer_learn(core, slot, epoch, epoch > p->known ? epoch : p->known);
    if (core->state < CORE_OPENING)
        return;
    p->fence_notice_until = core->now + 3 * CORE_SEC;
    p->fence_notice_at = core->now;
}

void voter_fence_notice(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    uint8_t target = peer_slot(core, msg->u.fence.node);
    (void)slot;
    if (target)
        peer_learn(core, target, msg->u.fence.epoch, msg->u.fence.epoch);
}

/* The session has stopped itself and says so: no promise to wait for. */
void voter_resign(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    struct peer *p = &core->peer[slot];
    uint32_t epoch = msg->u.fence.epoch;
    if (epoch != msg->env.from_epoch)
        return;
    p->fence_hold_until = core->now + msg->u.fence.hold_s * CORE_SEC;
    if (!is_voter(core, core->self) || p->sess.fenced >= epoch || p->sess.cur > epoch)
        return;
    voter_store(core, slot, epoch, epoch, 1);
    p->promise_until = core->now;
}

static void ask_round(struct core *core, uint8_t target, uint32_t epoch)
{
    struct peer *p = &core->peer[target];
    if (p->fence_ok_epoch != epoch) {
        memset(p->fence_ok, 0, sizeof(p->fence_ok));
        p->fence_ok_epoch = epoch;
        p->fence_started_at = core->now;
        SOMETIMES(core, ST_FENCE_ROUND);
    }
    bool long_ago = core->now > p->fence_started_at + 10 * CORE_SEC;
    p->fence_round_at = core->now + (long_ago ? 5 : 1) * CORE_SEC;
    if (vote_fence(core, target, epoch)) {
        if (p->sess_token <= core->token_done)
            bit_set(p->fence_ok, core->self);
        else if (core->parked_count < core->limits.parked / 2)
            core_park(core, core->token_last, PARK_FENCE, target);
        count_votes(core, target);
    }
    struct core_msg m = {.kind = MSG_FENCE_REQ};
    m.u.fence.node = p->node;
    m.u.fence.epoch = epoch;
    m.u.fence.hold_s = (uint32_t)core->cfg.voters_ver;
    for (uint8_t i = 1; i <= core->peer_count; i++)
        if (i != core->self && i != target && is_voter(core, i))
            core_send(core, i, &m);
}

/* A node that leaves: no session of it, seen or not, gets a lease again. */
void fence_node(struct core *core, uint8_t slot)
{
    struct peer *p = &core->peer[slot];
    if (core->now >= p->fence_round_at || p->fence_ok_epoch != NODE_CLOSED)
        ask_round(core, slot, NODE_CLOSED);
}

/* Our own vote is on the disk: it counts if it is still of this round. */
void fence_durable(struct core *core, uint8_t slot)
{
    struct peer *p = &core->peer[slot];
    if (p->fence_ok_epoch == 0 || p->sess_token > core->token_done ||
        p->sess.fenced < p->fence_ok_epoch || !vote_fence(core, slot, p->fence_ok_epoch))
        return;
    bit_set(p->fence_ok, core->self);
    count_votes(core, slot);
}

/* Whoever sees a session whose promise ran out starts the round; SWIM is not asked. */
static void check_target(struct core *core, uint8_t i)
{
    struct peer *p = &core->peer[i];
    uint32_t epoch = p->sess.cur > p->known ? p->sess.cur : p->known;
    if (p->fence_ok_epoch == NODE_CLOSED && core->wish.active)
        return; /* a wider round is under way */
    if (epoch == 0 || epoch <= p->fenced || core->now < p->fence_round_at ||
        !peer_member(core, i))
        return;
    if (epoch > p->sess.cur && core->now < p->asks_until)
        return; /* it lives and waits for us: our grant closes what was before */
    if (!is_voter(core, core->self)) {
        /* we may know of a session that no voter remembers: it must be fenced all the
         * same */
        if (core->now > p->heard_at + core->p.lease_ns + 2 * core->p.grace_ns)
            ask_round(core, i, epoch);
        return;
    }
    bool closed = p->sess.fenced >= epoch; /* resigned, or another's round got our vote */
    uint64_t grace = core->p.grace_ns + core_below(core, core->p.grace_ns / 4 + 1);
    /* a voter that has just come, or has just become one, lets the others ask it for a
     * lease */
    bool ran_out = core->now >= p->promise_until + grace && !voter_quarantined(core) &&
                   core->now >= core->started_at + core->p.lease_ns &&
                   core->now >= core->active_since + core->p.lease_ns;
    if (closed || ran_out)
        ask_round(core, i, epoch);
}

void voter_timer(struct core *core)
{
    if (core->now < core->fence_check_at)
        return;
    core->fence_check_at = core->now + 200 * CORE_MS;
    bool judge = core->cfg.mode == MODE_QUORUM &&
                 (core->voter_active || !is_voter(core, core->self));
    for (uint8_t i = 1; i <= core->peer_count && !core_out_full(core); i++) {
        struct peer *p = &core->peer[i];
        if (i != core->self && judge)
            check_target(core, i);
        if (core->now < p->fence_notice_until && core->now >= p->fence_notice_at)
            notice(core, i);
    }
}
