/* SPDX-License-Identifier: Apache-2.0 */
/* God's view: the invariants of cluster/README.md, checked on all nodes and all disks. */
#include "tests/sim/profile.h"

#include <stdio.h>
#include <string.h>

/* ---- what is true ---- */

static bool voter_fenced(
    const struct sim *sim, uint8_t voter, uint64_t id, uint32_t epoch)
{
    const struct disk *d = &sim->node[voter].disk;
    for (int i = 0; i < d->sess_count; i++)
        if (d->sess[i].node == id)
            return d->sess[i].fenced >= epoch;
    return false;
}

/* A quorum of voters has the fence on disk. */
bool oracle_fenced(const struct sim *sim, uint8_t node, uint32_t epoch)
{
    const struct core_cfg *c = sim_newest(sim);
    int voters = 0, closed = 0;
    if (sim->config.shape != WORLD_FIXED) /* rows are copied there: they are no votes */
        return sim->config.closed[node] >= epoch;
    for (uint8_t k = 0; k < c->count; k++) {
        uint8_t i = sim_node_of(sim, c->member[k].node);
        if (!(c->member[k].roles & ROLE_VOTER) || i >= NODES_MAX)
            continue;
        voters++;
        closed += voter_fenced(sim, i, sim->node[node].id, epoch);
    }
    return closed > voters / 2;
}

/* A machine whose clock stood still cannot know: cause D3 covers the moments after. */
bool oracle_lost_time(const struct sim *sim, uint8_t node)
{
    const struct node *n = &sim->node[node];
    /* shorter ones than the threshold cannot be seen; they end with the lease */
    bool small = n->freeze_length < 250 * MS + sim->params.lease_ns / 10;
    return n->freezing || n->clock_lost ||
           (n->freeze_end && small && sim->now < n->freeze_end + sim->params.lease_ns);
}

bool oracle_gate_open(const struct sim *sim, uint8_t i)
{
    const struct node *n = &sim->node[i];
    return n->alive && n->core->state >= CORE_SYNC && n->gate.epoch == n->core->epoch &&
           !n->gate.frozen &&
           (n->gate.lease_end_ns == CORE_FOREVER ||
               node_clock(sim, n) + n->gate.dot_margin_ns <= n->gate.lease_end_ns);
}

static bool holds_right(struct sim *sim, uint8_t i, const struct core_unit_id *id)
{
    if (!oracle_gate_open(sim, i))
        return false;
    const struct core *core = sim->node[i].core;
    const struct unit *u = unit_find(core, id);
    return u && (u->flags & UF_ACTIVE) && u->state == UNIT_LIVE && unit_believes(core, u);
}

/* ---- 1 and 2, 11: at the gate ---- */

static void check_single(struct sim *sim, const struct core_unit_id *id)
{
    int first = -1;
    const struct god_unit *g = world_unit(sim, id);
    sim->r.invariant_checks[1]++;
    if (g && g->twice)
        return; /* two makers of one DSN that never met: two DSNs */
    for (uint8_t i = 0; i < sim->node_count; i++) {
        if (!holds_right(sim, i, id) || oracle_lost_time(sim, i))
            continue;
        if (first >= 0) {
            sim_fail(sim, 1, "n%d and n%u both may deliver " UID "", first, i, UIDV(id));
            return;
        }
        first = i;
    }
}

/* Node i has the intent in memory now, whether by Intent or by a row that carried it. */
static bool knows_intent(struct sim *sim, uint8_t i, const struct attempt *a)
{
    const struct node *n = &sim->node[i];
    const struct unit *u = n->alive ? unit_find(n->core, &a->id) : NULL;
    return u && (u->attempt == a->attempt ||
                    (u->attempt == 0 && (u->doubt & a->rcpts) == a->rcpts));
}

/* The nodes in the list of a unit, as its owner has it. */
uint8_t oracle_listed(struct sim *sim, uint8_t node, const struct core_unit_id *id)
{
    const struct unit *u = unit_find(sim->node[node].core, id);
    uint8_t mask = 0;
    for (uint8_t i = 0; u && i < sim->node_count; i++)
        if (unit_list_find(u, peer_slot(sim->node[node].core, sim->node[i].id)) >= 0)
            mask = (uint8_t)(mask | 1u << i);
    return mask;
}

/* A holder that its owner must ask: open, synced, in the list, with a copy on disk. One
 * that came into the list after the flag for the dot was given cannot count: the dot may
 * have been on its way already. */
static bool must_know(struct sim *sim, uint8_t i, const struct attempt *a)
{
    const struct node *n = &sim->node[i];
    const struct core *owner = sim->node[a->node].core;
    const struct unit *u = unit_find(owner, &a->id);
    const struct unit_row *row = disk_find(&sim->node[i].disk, &a->id);
    uint8_t slot = peer_slot(owner, n->id);
    if (a->intent_ok && !(a->listed >> i & 1))
        return false;
    return i != a->node && u && row && row->state == UNIT_LIVE && n->alive &&
           n->core->state == CORE_READY && unit_list_find(u, slot) >= 0 &&
           !peer_down(owner, slot) && !oracle_fenced(sim, i, n->core->epoch);
}

static void check_intent(struct sim *sim, struct attempt *a)
{
    bool known = false, needed = false;
    sim->r.invariant_checks[11]++;
    for (uint8_t i = 0; i < sim->node_count; i++) {
        if (i != a->node && !a->intent_gen[i] && knows_intent(sim, i, a)) {
            a->intent_gen[i] = sim->node[i].gen;
            a->intent_epoch[i] = sim->node[i].core->epoch;
        }
        known |= a->intent_gen[i] != 0;
        needed |= must_know(sim, i, a);
    }
    if (needed && !known && sim->node[a->node].core->cfg.mode == MODE_QUORUM)
        sim_fail(sim, 11, "n%u sends a dot for " UID " and no holder knows", a->node,
            UIDV(&a->id));
}

void oracle_gate(struct sim *sim, struct attempt *a)
{
    struct god_unit *g = &sim->unit[a->unit];
    a->clock_lost = oracle_lost_time(sim, a->node);
    if (oracle_held(sim, g, a))
        g->risk |= g->doubt_at_own[a->node] & a->rcpts & g->delivered;
    sim->r.invariant_checks[2]++;
    if (!oracle_lost_time(sim, a->node) && oracle_fenced(sim, a->node, a->epoch))
        sim_fail(sim, 2, "n%u sends a dot for " UID ", but its session %u is fenced",
            a->node, UIDV(&a->id), a->epoch);
    check_intent(sim, a);
    check_single(sim, &a->id);
}

/* ---- 3: what 250 promises ---- */

/* It has not asked a node that it could. */
static bool untried(const struct sim *sim, uint8_t node, const struct god_unit *g)
{
    struct core *core = sim->node[node].core;
    const struct unit *u = unit_find(core, &g->id);
    return u && place_next(core, u) != 0;
}

void oracle_250(struct sim *sim, uint8_t node, struct submission *s)
{
    const struct core_cfg *c = &sim->node[node].core->cfg;
    sim->r.invariant_checks[3]++;
    for (uint32_t k = s->first_unit; k < s->first_unit + s->unit_count; k++) {
        struct god_unit *g = &sim->unit[k];
        int copies = 0;
        for (uint8_t i = 0; i < sim->node_count; i++) {
            const struct unit_row *row = disk_find(&sim->node[i].disk, &g->id);
            copies += row && row->state != UNIT_ABORTED;
        }
        g->acked = true;
        g->acked_at = sim->now;
        if (copies < c->copies && sim->now < s->at + 1900 * MS && !g->is_dsn &&
            !sim->rolled_back && untried(sim, node, g))
            sim_fail(sim, 3, "n%u says 250 to " UID " with %d copies and asks no other",
                node, UIDV(&g->id), copies);
        if (copies < c->min_copies && !sim->rolled_back)
            sim_fail(sim, 3, "n%u says 250 to " UID " with %d durable copies", node,
                UIDV(&g->id), copies);
    }
    if (s->unit_count == 0)
        sim_fail(sim, 3, "n%u says 250 to nothing", node);
}

/* 451: nothing of it was or will be sent, as far as one fault can go: who has a copy was
 * told, and the session lives (rule A). */
void oracle_451(struct sim *sim, uint8_t node, struct submission *s)
{
    for (uint32_t k = s->first_unit; k < s->first_unit + s->unit_count; k++) {
        struct god_unit *g = &sim->unit[k];
        bool fenced = oracle_fenced(sim, node, g->epoch) && !oracle_lost_time(sim, node);
        for (uint8_t i = 0; i < sim->node_count; i++) {
            const struct unit_row *row = disk_find(&sim->node[i].disk, &g->id);
            if (i == node || !row || row->state != UNIT_LIVE)
                continue;
            if (fenced)
                sim_fail(sim, 16, "n%u is fenced and says 451 to " UID ", which n%u has",
                    node, UIDV(&g->id), i);
            bool member = cfg_find(&sim->node[node].core->cfg, sim->node[i].id) != NULL;
            if (member && !(g->abort_told >> i & 1))
                sim_fail(sim, 16,
                    "n%u says 451 to " UID " and never told n%u, which has it", node,
                    UIDV(&g->id), i);
        }
    }
}

/* ---- 4: promises of durability ---- */

static const struct sess_row *sess_of(const struct disk *d, uint64_t id)
{
    for (int i = 0; i < d->sess_count; i++)
        if (d->sess[i].node == id)
            return &d->sess[i];
    return NULL;
}

static void note_intent(struct sim *sim, uint8_t node, const struct core_msg *m)
{
    uint8_t owner = sim_node_of(sim, m->env.to);
    for (uint32_t i = sim->attempt_count; i-- > 0;) {
        struct attempt *a = &sim->attempt[i];
        if (a->attempt == m->u.attempt.attempt && a->node == owner) {
            a->intent_gen[node] = sim->node[node].gen;
            a->intent_epoch[node] = sim->node[node].core->epoch;
            return;
        }
    }
}

static const char *broken_promise(struct sim *sim, uint8_t node, const struct core_msg *m)
{
    struct disk *d = &sim->node[node].disk;
    const struct unit_row *row =
        m->kind >= MSG_COPY ? disk_find(d, &m->u.unit.row.id) : NULL;
    const struct sess_row *s;
    switch (m->kind) {
    case MSG_COPY_ACK:
        return m->u.unit.answer == ANS_OK && !row ? "CopyAck" : NULL;
    case MSG_CLAIM_RSP:
        /* a newer version, by C5, may have come on top of it meanwhile */
        return m->u.unit.answer == ANS_OK && (!row || row->term < m->u.unit.row.term ||
                                                 (row->term == m->u.unit.row.term &&
                                                     row->owner < m->u.unit.row.owner))
                   ? "consent"
                   : NULL;
    case MSG_DONE_ACK:
        return m->u.unit.answer == ANS_OK && row && row->state == UNIT_LIVE ? "DoneAck"
                                                                            : NULL;
    case MSG_RELEASE_ACK:
        return m->u.unit.answer == ANS_OK && row ? "ReleaseAck" : NULL;
    case MSG_FENCE_RSP:
        s = sess_of(d, m->u.fence.node);
        return m->u.fence.answer == FENCE_OK && (!s || s->fenced < m->u.fence.epoch)
                   ? "FenceRsp"
                   : NULL;
    case MSG_CFG_PROMISE:
        return m->u.cfg.ok && d->paxos.ver == m->u.cfg.ver &&
                       d->paxos.promised < m->u.cfg.ballot
                   ? "promise"
                   : NULL;
    case MSG_CFG_ACCEPTED:
        return m->u.cfg.ok && d->paxos.ver == m->u.cfg.ver &&
                       d->paxos.accepted < m->u.cfg.ballot
                   ? "vote"
                   : NULL;
    case MSG_SEAL_STATE:
        return d->cfg.voters_ver < m->u.cfg.ver ? "seal" : NULL;
    case MSG_LEASE_RSP:
        s = sess_of(d, m->env.to);
        return m->u.lease.answer == LEASE_GRANT && (!s || s->cur < m->u.lease.nonce >> 32)
                   ? "Grant"
                   : NULL;
    default:
        return NULL;
    }
}

static void note_abort(struct sim *sim, const struct core_msg *m)
{
    struct god_unit *g = world_unit(sim, &m->u.unit.row.id);
    uint8_t to = sim_node_of(sim, m->env.to);
    if (g && to < NODES_MAX)
        g->abort_told = (uint8_t)(g->abort_told | 1u << to);
}

void oracle_send(struct sim *sim, uint8_t node, const struct core_msg *msg)
{
    sim->r.invariant_checks[4]++;
    if (sim_node_of(sim, msg->env.from) != node)
        return; /* a relay */
    const char *what = broken_promise(sim, node, msg);
    if (!what)
        what = oracle_late_promise(sim, node, msg);
    if (what)
        sim_fail(sim, 4, "n%u sends a %s for what is not durable", node, what);
    if (msg->kind == MSG_INTENT_ACK && msg->u.attempt.answer == ANS_OK)
        note_intent(sim, node, msg);
    if (msg->kind == MSG_CLAIM_REQ)
        oracle_asks(sim, node, msg);
    if (msg->kind == MSG_DONE && msg->u.unit.row.state == UNIT_ABORTED)
        note_abort(sim, msg);
}

/* ---- 6, 10, 12, 13: rows ---- */

static bool in_list(const struct unit_row *row, uint64_t id)
{
    for (int i = 0; i < row->list_count; i++)
        if (row->list[i].node == id)
            return true;
    return false;
}

void oracle_row(struct sim *sim, uint8_t node, const struct unit_row *before,
    const struct unit_row *after)
{
    if (!before)
        return;
    sim->r.invariant_checks[12]++;
    if (after->term < before->term ||
        (after->term == before->term && after->owner < before->owner))
        sim_fail(sim, 12, "version of " UID " at n%u went back", UIDV(&after->id), node);
    if ((before->delivered & ~after->delivered) ||
        (before->failed & ~(after->failed | after->delivered)))
        sim_fail(sim, 13, "facts of " UID " lost at n%u", UIDV(&after->id), node);
    if (before->state != UNIT_LIVE && after->state == UNIT_LIVE)
        sim_fail(sim, 13, "" UID " rose from the dead at n%u", UIDV(&after->id), node);
}

/* Lists are judged when the core decides, not when the disk gets to it. */
void oracle_list(struct sim *sim, uint8_t node, const struct unit_row *before,
    const struct unit_row *after)
{
    for (int i = 0; before && i < before->list_count; i++) {
        uint64_t id = before->list[i].node;
        uint8_t h = sim_node_of(sim, id);
        sim->r.invariant_checks[10]++;
        if (!in_list(after, id) && h < NODES_MAX &&
            disk_find(&sim->node[h].disk, &after->id))
            sim_fail(sim, 10, "n%u drops holder n%u of " UID ", which has a copy", node,
                h, UIDV(&after->id));
    }
}

/* ---- 5, and what a step may have changed ---- */

void oracle_own(
    struct sim *sim, uint8_t node, const struct core_unit_id *id, uint64_t doubt)
{
    struct god_unit *g = world_unit(sim, id);
    TRACE(sim, "n%u OWNS " UID " doubt %llx", node, UIDV(id), (unsigned long long)doubt);
    check_single(sim, id);
    profile_moment(sim, ON_OWNS, 0, node, g ? g->node : node);
    struct node *from = g ? &sim->node[g->node] : NULL;
    if (!from || g->node == node || from->alive || from->last_epoch != g->epoch ||
        g->taken)
        return;
    g->taken = true;
    uint64_t took = sim->now - from->crashed_at;
    if (sim->r.takeovers < 64)
        sim->r.takeover[sim->r.takeovers] = took;
    sim->r.takeovers++;
    sim->r.takeover_ns = took > sim->r.takeover_ns ? took : sim->r.takeover_ns;
}

void oracle_step(struct sim *sim, uint8_t i)
{
    oracle_config_step(sim, i);
    oracle_session(sim, i);
}

/* ---- 9: pairwise visibility ---- */

static const struct unit *live_record(
    struct sim *sim, uint8_t i, const struct core_unit_id *id)
{
    const struct node *n = &sim->node[i];
    if (!n->alive || n->core->state < CORE_SYNC || n->core->state == CORE_RESIGNED ||
        oracle_fenced(sim, i, n->core->epoch))
        return NULL;
    const struct unit *u = unit_find(n->core, id);
    return u && u->state == UNIT_LIVE ? u : NULL;
}

static bool names(struct sim *sim, uint8_t i, const struct unit *u, uint8_t other)
{
    uint8_t slot = peer_slot(sim->node[i].core, sim->node[other].id);
    return slot && unit_list_find(u, slot) >= 0;
}

/* V': a name that both lists share, and that is not the recorded owner of both: the claim
 * of one must have its consent, or pass over its fence and so ask everybody (rule W). */
static bool share_name(
    struct sim *sim, uint8_t a, const struct unit *ua, uint8_t b, const struct unit *ub)
{
    for (uint8_t h = 0; h < sim->node_count; h++) {
        bool owner_a = sim->node[a].core->peer[ua->owner].node == sim->node[h].id;
        bool owner_b = sim->node[b].core->peer[ub->owner].node == sim->node[h].id;
        if (h != a && h != b && names(sim, a, ua, h) && names(sim, b, ub, h) &&
            !(owner_a && owner_b))
            return true;
    }
    return false;
}

static void check_visibility(struct sim *sim, const struct core_unit_id *id)
{
    for (uint8_t a = 0; a < sim->node_count; a++) {
        const struct unit *ua = live_record(sim, a, id);
        for (uint8_t b = (uint8_t)(a + 1); ua && b < sim->node_count; b++) {
            const struct unit *ub = live_record(sim, b, id);
            sim->r.invariant_checks[9]++;
            if (ub && !names(sim, a, ua, b) && !names(sim, b, ub, a) &&
                !share_name(sim, a, ua, b, ub))
                sim_fail(sim, 9, "n%u and n%u hold " UID " and do not see each other", a,
                    b, UIDV(id));
        }
    }
}

void oracle_sweep(struct sim *sim)
{
    uint32_t first = sim->unit_count > 64 ? sim->unit_count - 64 : 0;
    for (uint32_t k = first; k < sim->unit_count; k++) {
        check_single(sim, &sim->unit[k].id);
        check_visibility(sim, &sim->unit[k].id);
    }
    for (uint8_t i = 0; i < sim->node_count; i++)
        if (sim->node[i].alive)
            oracle_bounds(sim, i);
}

/* ---- the end ---- */

static bool node_quiet(const struct sim *sim, uint8_t i)
{
    const struct node *n = &sim->node[i];
    if (n->permanent_dead || !cfg_find(sim_newest(sim), n->id))
        return true;
    bool waits = n->alive && n->core->state == CORE_OPENING && /* joined a static pair */
                 n->core->cfg.mode == MODE_STATIC && !is_voter(n->core, n->core->self);
    if (!n->alive || (n->core->state != CORE_READY && !waits) || n->disk.count)
        return false;
    for (uint32_t k = 0; k < n->disk.unit_count; k++) {
        /* with one node gone for ever rotten mail may have nobody to come from */
        bool stuck = sim->o.liveness && n->disk.mail[k] == MAIL_ROTTEN;
        if ((n->disk.unit[k].state == UNIT_LIVE && !stuck) || !sim->o.liveness)
            return false;
    }
    return true;
}

bool oracle_quiet(struct sim *sim)
{
    if (!operator_quiet(sim))
        return false;
    for (uint8_t i = 0; i < sim->node_count; i++)
        if (!node_quiet(sim, i))
            return false;
    for (uint32_t k = 0; k < sim->mail_count; k++)
        if (!sim->mail[k].done && !sim->o.liveness && !sim->no_accept)
            return false;
    return true;
}

static void lost(struct sim *sim, const struct god_unit *g)
{
    uint64_t all = (UINT64_C(1) << g->rcpts) - 1;
    sim->r.invariant_checks[15]++;
    if (!g->acked || ((g->delivered | g->failed) & all) == all)
        return;
    for (uint8_t i = 0; i < sim->node_count; i++) {
        struct disk *d = &sim->node[i].disk;
        const struct unit_row *row = disk_find(d, &g->id);
        bool here = cfg_find(sim_newest(sim), sim->node[i].id) != NULL;
        if (here && ((row && row->state == UNIT_LIVE) || disk_aside(d, &g->id)))
            return;
    }
    sim_fail(sim, 15, "" UID " was acknowledged and is lost (delivered %llx failed %llx)",
        UIDV(&g->id), (unsigned long long)g->delivered, (unsigned long long)g->failed);
}

/* 19 and 20 at rest, when every disk is empty: no tombstone, no name, no digest and no
 * count is left behind. */
static void nothing_left(struct sim *sim, uint8_t i)
{
    const struct core *core = sim->node[i].core;
    struct core_counts c;
    uint64_t digest = 0;
    core_counts(core, &c);
    sim->r.invariant_checks[19]++;
    sim->r.invariant_checks[20]++;
    for (uint8_t p = 1; p <= core->peer_count; p++)
        for (int k = 0; k < CORE_DIGEST_ROWS; k++)
            digest |= core->peer[p].digest[k];
    if (c.units || c.owned || c.held || c.tombstones || c.accepting || c.in_doubt)
        sim_fail(sim, 19, "n%u is at rest and counts %u units, %u owned, %u tombstones",
            i, c.units, c.owned, c.tombstones);
    if (digest)
        sim_fail(sim, 20, "n%u holds nothing and has a digest", i);
}

void oracle_end(struct sim *sim)
{
    for (uint8_t i = 0; i < sim->node_count && !sim->o.liveness && !sim->r.failed; i++)
        if (sim->node[i].alive && sim->node[i].disk.unit_count == 0 && oracle_quiet(sim))
            nothing_left(sim, i);
    oracle_config_end(sim);
    oracle_describe(sim);
    for (uint32_t k = 0; k < sim->unit_count; k++)
        lost(sim, &sim->unit[k]);
}
