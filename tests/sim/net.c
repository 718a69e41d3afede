/* SPDX-License-Identifier: Apache-2.0 */
/* Links with the manners of ZeroMQ: in order within a connection, holes and old-after-new
 * at a reconnect, no answer about what was lost. */
#include "tests/sim/profile.h"

#include "base/arena.h"
#include "cluster/wire.h"

#include <stdlib.h>
#include <string.h>

static const char *const names[MSG_KIND_COUNT] = {
    [MSG_PING] = "Ping",
    [MSG_ACK] = "Ack",
    [MSG_CFG_PREPARE] = "CfgPrepare",
    [MSG_CFG_PROMISE] = "CfgPromise",
    [MSG_CFG_ACCEPT] = "CfgAccept",
    [MSG_CFG_ACCEPTED] = "CfgAccepted",
    [MSG_CFG_LEARN] = "CfgLearn",
    [MSG_CFG_PAGE] = "CfgPage",
    [MSG_CFG_ASK] = "CfgAsk",
    [MSG_CFG_STORED] = "CfgStored",
    [MSG_SEAL_READ] = "SealRead",
    [MSG_SEAL_STATE] = "SealState",
    [MSG_LEASE_REQ] = "LeaseReq",
    [MSG_LEASE_RSP] = "LeaseRsp",
    [MSG_FENCE_REQ] = "FenceReq",
    [MSG_FENCE_RSP] = "FenceRsp",
    [MSG_FENCE_NOTICE] = "FenceNotice",
    [MSG_RESIGN] = "Resign",
    [MSG_COPY] = "Copy",
    [MSG_COPY_ACK] = "CopyAck",
    [MSG_RELEASE] = "Release",
    [MSG_RELEASE_ACK] = "ReleaseAck",
    [MSG_INTENT] = "Intent",
    [MSG_INTENT_ACK] = "IntentAck",
    [MSG_OUTCOME] = "Outcome",
    [MSG_OUTCOME_ACK] = "OutcomeAck",
    [MSG_CLAIM_REQ] = "ClaimReq",
    [MSG_CLAIM_RSP] = "ClaimRsp",
    [MSG_OFFER] = "Offer",
    [MSG_SYNC_REQ] = "SyncReq",
    [MSG_SYNC_REC] = "SyncRec",
    [MSG_SYNC_ACK] = "SyncAck",
    [MSG_SYNC_END] = "SyncEnd",
    [MSG_SYNC_DONE] = "SyncDone",
    [MSG_DIGEST] = "Digest",
    [MSG_DONE] = "Done",
    [MSG_DONE_ACK] = "DoneAck",
    [MSG_FORGET] = "Forget",
};

const char *net_name(uint8_t kind)
{
    return kind < MSG_KIND_COUNT && names[kind] ? names[kind] : "?";
}

static uint32_t take_slot(struct sim *sim)
{
    if (sim->msg_free == NIL) {
        uint32_t old = sim->msg_cap;
        sim->msg_cap *= 2;
        sim->msg = realloc(sim->msg, sim->msg_cap * sizeof(*sim->msg));
        sim->msg_next = realloc(sim->msg_next, sim->msg_cap * sizeof(*sim->msg_next));
        sim->msg_sent = realloc(sim->msg_sent, sim->msg_cap * sizeof(*sim->msg_sent));
        for (uint32_t i = sim->msg_cap; i-- > old;) {
            sim->msg_next[i] = sim->msg_free;
            sim->msg_free = i;
        }
    }
    uint32_t i = sim->msg_free;
    sim->msg_free = sim->msg_next[i];
    return i;
}

/* Bytes of mail that a frame brings: the parts of a message share the body. */
static uint64_t mail_bytes(const struct core_msg *m)
{
    bool body = m->kind == MSG_COPY && m->u.unit.mail && m->u.unit.row.id.part == 0;
    return body ? m->u.unit.row.size_bytes : 0;
}

/* A body takes its time and lets what comes after it pass. */
static uint64_t body_time(struct sim *sim, struct link *l, const struct core_msg *m)
{
    uint64_t bytes = mail_bytes(m);
    uint64_t rate = sim->o.bulk_mb_s && !sim->healed ? sim->o.bulk_mb_s : 50;
    bool waits = m->env.lane == LANE_BULK && m->kind == MSG_COPY && m->u.unit.mail;
    if (bytes == 0) /* another part: complete when the body is here */
        return waits && l->bulk_free > sim->now ? l->bulk_free - sim->now : 0;
    l->bulk_bytes += bytes;
    TRACE(sim, "n%u sends the body of " UID ": %llu bytes are on the way",
        sim_node_of(sim, m->env.from), UIDV(&m->u.unit.row.id),
        (unsigned long long)l->bulk_bytes);
    if (l->bulk_bytes > sim->r.bulk_most)
        sim->r.bulk_most = l->bulk_bytes;
    if (l->bulk_bytes > CORE_CREDIT_MAX + bytes)
        sim_fail(
            sim, 14, "%llu bytes of mail on one link", (unsigned long long)l->bulk_bytes);
    uint64_t from = l->bulk_free > sim->now ? l->bulk_free : sim->now;
    l->bulk_free = from + bytes * 1000 / rate;
    return l->bulk_free - sim->now;
}

static void post(struct sim *sim, uint8_t from, uint8_t to, const struct core_msg *msg)
{
    struct link *l = &sim->link[from][to];
    uint64_t span = sim->delay_max - sim->delay_min;
    uint64_t at = sim->now + sim->delay_min + sim_below(&sim->rng_net, span);
    if (l->stall_until > sim->now)
        at = l->stall_until + sim_below(&sim->rng_net, MS);
    if (at <= l->last[msg->env.lane])
        at = l->last[msg->env.lane] + 1;
    l->last[msg->env.lane] = at;
    at += body_time(sim, l, msg);
    uint32_t slot = take_slot(sim);
    sim->msg[slot] = *msg;
    sim->msg_sent[slot] = sim->now;
    sim_at(sim, at, SE_MSG, to, 0, slot, from);
}

/* Every 16th seed sends its messages as bytes: what the core says must survive it. */
static void as_bytes(struct sim *sim, uint8_t from, struct core_msg *m)
{
    static const struct wire_cluster cluster = {"simulated clust"};
    unsigned char frame[WIRE_MESSAGE_MAX];
    struct wire_payload payload;
    struct arena *arena = arena_new(4096);
    size_t length = wire_encode(&cluster, m, NULL, frame, sizeof(frame));
    enum wire_result result =
        wire_decode(&cluster, slice_make(frame, length), arena, m, &payload);
    if (result != WIRE_OK)
        sim_fail(sim, 0, "a %s of n%u does not survive the wire (%d)", net_name(m->kind),
            from, result);
    arena_free(arena);
}

void net_send(struct sim *sim, uint8_t from, const struct core_msg *sent)
{
    struct core_msg copy = *sent;
    const struct core_msg *msg = &copy;
    uint8_t to = sim_node_of(sim, msg->env.via);
    if (msg->kind == MSG_COPY && msg->u.unit.mail &&
        sim_node_of(sim, msg->env.from) == from &&
        !world_readable(sim, from, &msg->u.unit.row.id))
        return;
    if (sim->o.seed % 16 == 5)
        as_bytes(sim, from, &copy);
    if (to >= NODES_MAX)
        return;
    profile_moment(sim, ON_SENT, msg->kind, from, to);
    struct link *l = &sim->link[from][to];
    bool flapped = l->flap_until > sim->now && (sim->now / (2 * SEC)) % 2;
    uint32_t loss = l->loss_ppm > sim->base_loss_ppm ? l->loss_ppm : sim->base_loss_ppm;
    if (sim->healed)
        loss = 0;
    if (l->cut_until > sim->now || l->deaf_for_ever || flapped ||
        sim_chance(&sim->rng_net, loss))
        return;
    post(sim, from, to, msg);
    if (!sim->healed && sim_chance(&sim->rng_net, sim->dup_ppm)) {
        /* a second copy that comes later, as over a second pipe */
        uint32_t slot = take_slot(sim);
        sim->msg[slot] = *msg;
        sim->msg_sent[slot] = sim->now;
        l->bulk_bytes += mail_bytes(msg);
        sim_at(sim, sim->now + sim->delay_max + sim_below(&sim->rng_net, 3 * SEC), SE_MSG,
            to, 0, slot, from);
    }
}

static bool interesting(uint8_t kind)
{
    return kind != MSG_PING && kind != MSG_ACK && kind != MSG_LEASE_REQ &&
           kind != MSG_LEASE_RSP && kind != MSG_DIGEST;
}

/* What reached a process that could use it: later it may not say it did not know. */
static void note_told(struct sim *sim, uint8_t node, const struct core_msg *m)
{
    const struct node *n = &sim->node[node];
    if (m->kind != MSG_OUTCOME || n->core->state < CORE_SYNC ||
        m->env.cfg_ver < config_static_until(n->core) /* rule G */ ||
        m->env.echo_epoch != n->core->epoch)
        return;
    const struct unit *u = unit_find(n->core, &m->u.attempt.id);
    struct god_unit *g = world_unit(sim, &m->u.attempt.id);
    if (!u || !g || unit_settling(u) || (u->flags & UF_ACCEPTING) ||
        n->core->parked_count + 96 > n->core->limits.parked ||
        m->env.seq <= n->core->peer[peer_slot(n->core, m->env.from)].rx[m->env.lane].seq)
        return;
    for (int r = 0; r < RCPTS_MAX; r++)
        if ((m->u.attempt.delivered & ~g->told[node]) >> r & 1)
            g->told_at[node][r] = sim->now;
    g->told[node] |= m->u.attempt.delivered;
    g->told_gen[node] = n->gen;
}

void net_deliver(struct sim *sim, const struct sim_event *e)
{
    struct core_msg m = sim->msg[e->x];
    uint64_t sent = sim->msg_sent[e->x];
    struct link *l = &sim->link[e->y][e->node];
    l->bulk_bytes -= mail_bytes(&m);
    sim->msg_next[e->x] = sim->msg_free;
    sim->msg_free = e->x;
    if (sent < l->drop_before || !sim->node[e->node].alive)
        return;
    if (interesting(m.kind))
        TRACE(sim, "n%u <- n%u %s unit " UID " term %u a%u", e->node, e->y,
            net_name(m.kind), UIDV(&m.u.unit.row.id),
            m.kind >= MSG_COPY ? m.u.unit.row.term : m.u.fence.epoch, m.u.unit.answer);
    struct core_event ev = {.kind = EV_MSG};
    ev.u.msg = &m;
    note_told(sim, e->node, &m);
    if (m.kind == MSG_CLAIM_RSP && m.env.to == sim->node[e->node].id) {
        oracle_consent(sim, e->node, &m);
        oracle_said_yes(sim, e->node, &m);
    }
    node_step(sim, e->node, &ev);
    static const uint8_t steps[MSG_KIND_COUNT] = {[MSG_COPY] = KILL_COPY + 1,
        [MSG_INTENT] = KILL_INTENT + 1,
        [MSG_OUTCOME] = KILL_OUTCOME + 1,
        [MSG_DONE] = KILL_DONE + 1};
    if (steps[m.kind] && (m.kind != MSG_COPY || m.u.unit.mail))
        faults_step(sim, steps[m.kind] - 1u, sim_node_of(sim, m.env.from));
    if (m.kind == MSG_COPY_ACK)
        faults_step(sim, KILL_ACK, e->node);
    if (m.kind == MSG_CLAIM_RSP && m.u.unit.answer == ANS_OK) {
        faults_step(sim, KILL_GAVE, sim_node_of(sim, m.env.from));
        faults_step(sim, KILL_TOOK, e->node);
    }
    profile_moment(sim, ON_HEARD, m.kind, (uint8_t)e->y, e->node);
    struct node *n = &sim->node[e->node];
    const struct node *v = &sim->node[e->y];
    /* a clock that lost time itself is a poor witness, and so is one not known before */
    bool steady = v->freeze_end == 0 && (n->reference >> e->y & 1);
    const struct peer *p =
        n->alive ? &n->core->peer[peer_slot(n->core, m.env.from)] : NULL;
    bool heard = p && m.env.hop == 0 && p->heard_clock == m.env.clock_ns && p->d_valid;
    if (n->clock_lost && !n->freezing && sent > n->freeze_end && steady && heard &&
        is_voter(n->core, peer_slot(n->core, m.env.from)))
        n->clock_lost = false; /* from here on it must know */
}
