/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/core/internal.h"

#include <string.h>

/* Commands that any one handler may emit; loops stop when fewer are left. */
#define OUT_RESERVE 160

_Static_assert(sizeof(struct unit) <= 104, "a million units must fit 120 MiB");

static uint32_t pow2_above(uint32_t n)
{
    uint32_t p = 64;
    while (p < n)
        p *= 2;
    return p;
}

static size_t align16(size_t n)
{
    return (n + 15) & ~(size_t)15;
}

size_t core_size(const struct core_limits *l)
{
    return align16(sizeof(struct core)) + align16(sizeof(struct unit) * l->units) +
           align16(sizeof(uint32_t) * pow2_above(l->units)) +
           align16(sizeof(struct work) * l->works) +
           align16(sizeof(uint32_t) * l->works) +
           align16(sizeof(struct accept) * l->accepts) +
           align16(sizeof(struct parked) * l->parked) +
           align16(sizeof(struct grave) * l->graves) +
           align16(sizeof(uint32_t) * pow2_above(l->graves)) +
           align16(sizeof(struct gossip_cell) * l->gossip_rows);
}

static void *carve(unsigned char **at, size_t bytes)
{
    void *p = *at;
    *at += align16(bytes);
    return p;
}

static void link_free(struct core *core)
{
    core->unit_free = NIL;
    core->work_free = NIL;
    for (uint32_t i = core->limits.works; i-- > 0;) {
        core->work[i].unit = core->work_free;
        core->work_free = i;
    }
    core->accept_free = NIL;
    for (uint32_t i = core->limits.accepts; i-- > 0;) {
        core->accept[i].next_free = core->accept_free;
        core->accept_free = i;
    }
    memset(core->bucket, 0xff, sizeof(uint32_t) * (core->bucket_mask + 1));
    memset(core->grave_bucket, 0xff, sizeof(uint32_t) * pow2_above(core->limits.graves));
}

struct core *core_init(void *mem, const struct core_limits *limits,
    const struct core_params *params, uint64_t node, uint64_t seed)
{
    unsigned char *at = mem;
    struct core *core = carve(&at, sizeof(*core));
    memset(core, 0, sizeof(*core));
    core->limits = *limits;
    core->p = *params;
    core->node = node;
    core->rng = seed ^ (node * UINT64_C(0x9e3779b97f4a7c15));
    core->unit = carve(&at, sizeof(struct unit) * limits->units);
    core->bucket_mask = pow2_above(limits->units) - 1;
    core->bucket = carve(&at, sizeof(uint32_t) * (core->bucket_mask + 1));
    core->work = carve(&at, sizeof(struct work) * limits->works);
    memset(core->work, 0, sizeof(struct work) * limits->works);
    core->heap = carve(&at, sizeof(uint32_t) * limits->works);
    core->accept = carve(&at, sizeof(struct accept) * limits->accepts);
    memset(core->accept, 0, sizeof(struct accept) * limits->accepts);
    core->parked = carve(&at, sizeof(struct parked) * limits->parked);
    core->grave = carve(&at, sizeof(struct grave) * limits->graves);
    core->grave_bucket = carve(&at, sizeof(uint32_t) * pow2_above(limits->graves));
    core->cell = carve(&at, sizeof(struct gossip_cell) * limits->gossip_rows);
    memset(core->cell, 0, sizeof(struct gossip_cell) * limits->gossip_rows);
    link_free(core);
    core->self = peer_intern(core, node);
    core->sweep = NIL;
    return core;
}

bool core_params_derive(struct core_params *p)
{
    uint64_t lease = p->lease_ns;
    if (p->renew_ns == 0)
        p->renew_ns = lease / 5;
    if (p->start_margin_ns == 0)
        p->start_margin_ns = lease / 3;
    if (p->dot_margin_ns == 0)
        p->dot_margin_ns = lease / 8 > CORE_SEC ? lease / 8 : CORE_SEC;
    if (p->grace_ns == 0)
        p->grace_ns = lease / 8 < 2 * CORE_SEC ? lease / 8 : 2 * CORE_SEC;
    uint64_t own = lease - lease / 1000000 * 2 * p->rho_ppm;
    return lease >= 5 * CORE_SEC && p->dot_margin_ns >= CORE_SEC &&     /* I4 */
           p->start_margin_ns >= p->dot_margin_ns &&                    /* I3 */
           p->renew_ns * 3 + CORE_SEC / 10 <= own - p->start_margin_ns; /* I5 */
}

uint64_t core_random(struct core *core)
{
    uint64_t z = (core->rng += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t core_below(struct core *core, uint64_t n)
{
    return n ? core_random(core) % n : 0;
}

/* True now and then in simulator builds that ask for it: unlikely paths, walked often. */
bool core_buggify(struct core *core, uint32_t one_in)
{
    return core->buggify && core_below(core, one_in) == 0;
}

bool core_out_full(const struct core *core)
{
    return core->out->count + OUT_RESERVE > core->out->cap;
}

struct core_command *core_cmd(struct core *core, enum core_command_kind kind)
{
    /* The reserve makes this impossible; a full ring here is a bug of ours. */
    if (core->out->count >= core->out->cap)
        __builtin_trap();
    struct core_command *c = &core->out->v[core->out->count++];
    c->kind = (uint8_t)kind;
    return c;
}

void core_die(struct core *core, const char *why)
{
    core_cmd(core, CMD_DIE)->u.why = why;
    core->state = CORE_IDLE;
}

/* ---- sessions ---- */

/* A new epoch within the same process: the same as a crash, but the rows stay in memory.
 */
void core_new_session(struct core *core)
{
    if (core->state < CORE_OPENING)
        return;
    accept_cut(core);
    for (uint32_t i = 0; i < core->unit_high; i++) {
        struct unit *u = &core->unit[i];
        if (u->flags & UF_USED) {
            deliver_suspend(core, u);
            work_drop(core, u);
            u->flags &= (uint16_t) ~(UF_ACTIVE | UF_STARTED | UF_ACCEPTING);
            u->flags |= UF_BEFORE;
            unit_recount(core, u);
        }
    }
    struct core_command *c = core_cmd(core, CMD_CANCEL);
    memset(&c->u.unit, 0, sizeof(c->u.unit)); /* the zero id: all of them */
    core->lease_end = 0;
    core->state = CORE_EPOCH;
    core->epoch++;
    for (uint8_t i = 1; i <= core->peer_count; i++)
        memset(core->peer[i].tx_seq, 0, sizeof(core->peer[i].tx_seq));
    struct core_op op = {.kind = OP_META};
    op.u.meta = (struct core_meta){core->node, core->epoch, core->lease_max};
    core_store_one(core, &op);
    core_park(core, core->token_last, PARK_EPOCH, 0);
    session_gate(core);
}

/* No member any more: the session ends, and no other begins. */
void core_end_session(struct core *core)
{
    if (core->state >= CORE_OPENING) {
        accept_cut(core);
        struct core_command *c = core_cmd(core, CMD_CANCEL);
        memset(&c->u.unit, 0, sizeof(c->u.unit));
        config_admin_lost(core);
    }
    core->lease_end = core->lease_prev = 0;
    core->state = CORE_IDLE;
    session_gate(core);
}

/* The last session said its end itself: no attempt of it was cut short. */
static bool ended_well(const struct core *core)
{
    const struct sess_row *own = &core->peer[core->self].sess;
    return core->epoch && (own->flags & 1) && own->fenced >= core->epoch;
}

/* What the disk cannot tell: which attempts were under way. */
static void boot_memory(struct core *core)
{
    core->wall_start = core->wall_s;
    for (uint8_t i = 1; i <= core->peer_count; i++)
        core->peer[i].boot_known = core->peer[i].known;
    for (uint32_t i = 0; i < core->unit_high && !ended_well(core); i++)
        core->unit[i].unsure = core->unit[i].state == UNIT_LIVE;
}

static void boot_end(struct core *core)
{
    core->started_at = core->now;
    boot_memory(core);
    core->state = CORE_IDLE;
    config_boot(core);
    if (core->cfg.count == 0 || !peer_member(core, core->self))
        return;
    core->state = CORE_EPOCH;
    if (!MUT(core, MUT_EPOCH_REUSED) || core->epoch == 0)
        core->epoch++;
    core->lease_max =
        core->lease_max > core->p.lease_ns ? core->lease_max : core->p.lease_ns;
    struct core_op op = {.kind = OP_META};
    op.u.meta = (struct core_meta){core->node, core->epoch, core->lease_max};
    core_store_one(core, &op);
    core_park(core, core->token_last, PARK_EPOCH, 0);
}

static void boot_unit(struct core *core, const struct unit_row *row)
{
    struct unit *u = unit_new(core, &row->id);
    if (!u || !unit_row_in(core, u, row)) {
        core_die(core, "unit rows exceed the limits of the core");
        return;
    }
    u->mine = row->mine;
    u->flags |= UF_VERIFY | UF_BEFORE;
    unit_recount(core, u);
}

static void boot_row(struct core *core, const struct core_event *e)
{
    switch (e->kind) {
    case EV_BOOT_META:
        core->epoch = e->u.meta.epoch;
        core->lease_max = e->u.meta.lease_max_ns;
        break;
    case EV_BOOT_CFG:
        core->cfg = *e->u.cfg;
        config_index(core);
        break;
    case EV_BOOT_PAXOS:
        core->paxos = e->u.paxos;
        break;
    case EV_BOOT_SESS:
        core->peer[peer_intern(core, e->u.sess.node)].sess = e->u.sess;
        break;
    case EV_BOOT_FENCE: {
        struct peer *p = &core->peer[peer_intern(core, e->u.fence.node)];
        p->fenced = e->u.fence.fenced;
        p->known = e->u.fence.known;
        break;
    }
    case EV_BOOT_UNIT:
        boot_unit(core, e->u.unit);
        break;
    default:
        boot_end(core);
        break;
    }
}

/* ---- receiving ---- */

typedef void handler(struct core *core, uint8_t slot, const struct core_msg *msg);

static handler *const handlers[MSG_KIND_COUNT] = {
    [MSG_PING] = swim_recv,
    [MSG_ACK] = swim_recv,
    [MSG_PING_REQ] = swim_recv,
    [MSG_NACK] = swim_recv,
    [MSG_GOSSIP_DIGEST] = gossip_recv,
    [MSG_GOSSIP_DELTA] = gossip_recv,
    [MSG_CFG_PREPARE] = config_recv,
    [MSG_CFG_PROMISE] = config_recv,
    [MSG_CFG_ACCEPT] = config_recv,
    [MSG_CFG_ACCEPTED] = config_recv,
    [MSG_CFG_LEARN] = config_recv,
    [MSG_CFG_PAGE] = config_recv,
    [MSG_CFG_ASK] = config_recv,
    [MSG_CFG_STORED] = config_recv,
    [MSG_SEAL_READ] = config_recv,
    [MSG_SEAL_STATE] = config_recv,
    [MSG_LEASE_REQ] = voter_lease_req,
    [MSG_LEASE_RSP] = session_lease_rsp,
    [MSG_FENCE_REQ] = voter_fence_req,
    [MSG_FENCE_RSP] = voter_fence_rsp,
    [MSG_FENCE_NOTICE] = voter_fence_notice,
    [MSG_RESIGN] = voter_resign,
    [MSG_COPY] = copy_recv,
    [MSG_COPY_ACK] = copy_ack,
    [MSG_RELEASE] = release_recv,
    [MSG_RELEASE_ACK] = release_ack,
    [MSG_INTENT] = intent_recv,
    [MSG_INTENT_ACK] = intent_ack,
    [MSG_OUTCOME] = outcome_recv,
    [MSG_OUTCOME_ACK] = outcome_ack,
    [MSG_CLAIM_REQ] = claim_req,
    [MSG_CLAIM_RSP] = claim_rsp,
    [MSG_STEAL_REQ] = share_asked,
    [MSG_OFFER] = offer_recv,
    [MSG_SYNC_REQ] = sync_req,
    [MSG_SYNC_REC] = sync_rec,
    [MSG_SYNC_ACK] = sync_ack,
    [MSG_SYNC_END] = sync_end,
    [MSG_SYNC_DONE] = sync_done,
    [MSG_DIGEST] = digest_recv,
    [MSG_DONE] = gc_done,
    [MSG_DONE_ACK] = gc_done_ack,
    [MSG_FORGET] = gc_forget,
    [MSG_CREDIT] = flow_credit,
};

static bool is_l4(uint8_t kind)
{
    return kind >= MSG_COPY;
}

static void pass_on(struct core *core, const struct core_msg *m)
{
    uint8_t slot = peer_slot(core, m->env.to);
    if (m->env.hop != 1 || slot == 0 || !peer_member(core, slot))
        return; /* one hop only: no loops */
    struct core_command *c = core_cmd(core, CMD_SEND);
    c->u.send = *m;
    c->u.send.env.via = m->env.to;
    c->u.send.env.hop = 2;
}

static void receive(struct core *core, const struct core_msg *m)
{
    if (m->kind >= MSG_KIND_COUNT || !handlers[m->kind] || core->state == CORE_BOOT)
        return;
    if (core->state == CORE_IDLE) {
        if (m->env.to == core->node)
            config_idle(core, m);
        return;
    }
    if (m->env.to != core->node) {
        pass_on(core, m);
        return;
    }
    uint8_t slot = peer_slot(core, m->env.from);
    if (slot == 0 || !peer_member(core, slot)) {
        config_stranger(core, slot, m);
        return;
    }
    if (m->kind >= MSG_CFG_PREPARE && m->kind <= MSG_SEAL_STATE) {
        /* monotone by themselves, and a node without a session must get them too */
        config_heard(core, slot, m->env.cfg_ver);
        config_recv(core, slot, m);
        return;
    }
    if (core->state >= CORE_OPENING && voter_twin(core, slot, m))
        return;
    if (!lane_fresh(core, &core->peer[slot], m))
        return;
    peer_heard(core, slot, &m->env);
    config_heard(core, slot, m->env.cfg_ver);
    if (!is_l4(m->kind)) {
        handlers[m->kind](core, slot, m);
        return;
    }
    /* only open sessions speak of units, and only to open sessions */
    if (core->state < CORE_SYNC || core->state == CORE_RESIGNED)
        return;
    if (core->parked_count + PARK_RESERVE > core->limits.parked)
        return; /* as if lost: everything is asked again */
    if (m->env.echo_epoch != core->epoch)
        return; /* meant for another session of ours */
    /* Rule G: a session of static mode never asked for a lease, so none bounds its
     * rights; it is not known, and cannot be fenced, before it lives by the new mode. The
     * end may be decided as soon as we have accepted it. */
    if (m->env.cfg_ver < config_static_until(core) && !MUT(core, MUT_FENCE_NEW))
        return;
    peer_learn(core, slot, m->env.from_epoch - 1, m->env.from_epoch);
    if (core->state >= CORE_SYNC)
        handlers[m->kind](core, slot, m);
}

/* ---- the step ---- */

static void timers(struct core *core)
{
    if (core->state < CORE_OPENING)
        return;
    session_timer(core);
    voter_timer(core);
    config_timer(core);
    swim_timer(core);
    gossip_timer(core);
    if (core->state != CORE_SYNC && core->state != CORE_READY)
        return;
    sync_timer(core);
    digest_timer(core);
    flow_timer(core);
    share_timer(core);
    work_timers(core, 16);
}

static void storage_health(struct core *core, const struct core_event *e)
{
    core->commit_age = e->u.health.commit_age_ns;
    core->storage_full = e->u.health.full;
    /* others can deliver what this disk cannot settle */
    if (core->commit_age > 30 * CORE_SEC && core->state >= CORE_SYNC &&
        core->state != CORE_RESIGNED)
        session_resign(core, 0);
}

static void dispatch(struct core *core, const struct core_event *e)
{
    switch ((enum core_event_kind)e->kind) {
    case EV_TICK:
        break;
    case EV_MSG:
        receive(core, e->u.msg);
        break;
    case EV_STORED:
        if (e->u.stored.token > core->token_done)
            core->token_done = e->u.stored.token;
        outbox_drain(core, e->u.stored.full ? e->u.stored.token : 0);
        break;
    case EV_BOOT_META:
    case EV_BOOT_CFG:
    case EV_BOOT_PAXOS:
    case EV_BOOT_SESS:
    case EV_BOOT_FENCE:
    case EV_BOOT_UNIT:
    case EV_BOOT_END:
        boot_row(core, e);
        break;
    case EV_ACCEPT:
        accept_event(core, e);
        break;
    case EV_ACCEPT_GONE:
        accept_gone(core, e->u.accept.handle);
        break;
    case EV_INTENT_REQ:
        intent_event(core, e);
        break;
    case EV_OUTCOME:
        outcome_event(core, e);
        break;
    case EV_ATTEMPT_GONE:
        attempt_gone(core, e);
        break;
    case EV_STORAGE_HEALTH:
        storage_health(core, e);
        break;
    case EV_ADMIN:
        config_admin(core, e);
        break;
    case EV_STEAL_HINT:
        if (e->u.steal.peer)
            steal_hint(core, peer_slot(core, e->u.steal.peer), &e->u.steal.id, false);
        else
            share_offer(core, &e->u.steal.id);
        break;
    case EV_DAMAGED:
        damaged_event(core, e);
        break;
    case EV_WALL:
        wall_event(core, e);
        break;
    case EV_ROW:
        gossip_row(core, e->u.row.key, e->u.row.value, e->u.row.length);
        break;
    }
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t deadline(const struct core *core)
{
    if (core->state < CORE_OPENING)
        return CORE_FOREVER;
    if (core->accept_cuts ||
        (core->parked_count && core->parked[core->parked_head].token <= core->token_done))
        return core->now;
    if (core->sweep != NIL)
        return core->now + CORE_MS;
    uint64_t at = core->fence_check_at;
    if (!config_static(core) && core->state != CORE_RESIGNED)
        at = earlier(at, core->renew_at);
    at = earlier(at, earlier(core->probe_at, core->gossip_at));
    at = earlier(at, earlier(core->sweep_at, work_next(core)));
    at = earlier(at, core->config_at);
    if (core->state == CORE_SYNC || core->state == CORE_READY)
        at = earlier(at, core->sync_due);
    return at > core->now ? at : core->now + CORE_MS;
}

void core_step(
    struct core *core, const struct core_event *event, struct core_commands *out)
{
    core->out = out;
    if (event->now_ns > core->now)
        core->now = event->now_ns;
    /* time first: after a pause the gate closes before buffered input is believed */
    session_gate(core);
    timers(core);
    dispatch(core, event);
    outbox_drain(core, 0);
    accept_drain(core);
    if (core->state == CORE_SYNC || core->state == CORE_READY)
        sweep_step(core);
    session_gate(core);
    out->deadline_ns = deadline(core);
    core->out = NULL;
}
