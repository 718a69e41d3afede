/* SPDX-License-Identifier: Apache-2.0 */
/* Invariants 6 and 7: what is decided, by whom, in which distance. */
#include "tests/sim/sim.h"

#include <string.h>

const struct core_cfg *sim_newest(const struct sim *sim)
{
    const struct core_cfg *best = &sim->cfg;
    for (uint8_t i = 0; i < sim->node_count; i++)
        if (sim->node[i].disk.cfg.ver > best->ver)
            best = &sim->node[i].disk.cfg;
    return best;
}

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * UINT64_C(0xff51afd7ed558ccd);
    return h ^ (h >> 32);
}

static uint64_t digest(const struct core_cfg *c)
{
    uint64_t h = mix(mix(c->ver, c->mode_ver), mix(c->voters_ver, c->prev_ver));
    h = mix(h, (uint64_t)c->mode << 32 | (uint64_t)c->copies << 16 |
                   (uint64_t)c->min_copies << 8 | c->flags);
    h = mix(h, (uint64_t)c->was_voters << 8 | c->count);
    for (uint8_t i = 0; i < c->count; i++) {
        const struct core_member *m = &c->member[i];
        h = mix(h, m->node);
        h = mix(h, (uint64_t)m->roles << 16 | (uint64_t)m->zone << 8 | m->weight);
        h = mix(h, (uint64_t)m->ident.key[0] << 8 | (uint8_t)m->ident.name[4]);
    }
    return h;
}

static uint8_t voter_mask(const struct sim *sim, const struct core_cfg *c)
{
    uint8_t mask = 0;
    for (uint8_t i = 0; i < c->count; i++) {
        uint8_t n = sim_node_of(sim, c->member[i].node);
        if ((c->member[i].roles & ROLE_VOTER) && n < NODES_MAX)
            mask = (uint8_t)(mask | 1u << n);
    }
    return mask;
}

static int bits(unsigned v)
{
    return __builtin_popcount(v);
}

static struct god_cfg *version(struct sim *sim, uint64_t ver)
{
    for (uint32_t i = sim->config.god_count; i-- > 0;)
        if (sim->config.god[i].ver == ver)
            return &sim->config.god[i];
    return NULL;
}

/* The set of voters that began with version `ver`. */
static struct god_set *set_of(struct sim *sim, uint64_t ver)
{
    for (uint32_t i = sim->config.set_count; i-- > 0;)
        if (sim->config.set[i].ver == ver)
            return &sim->config.set[i];
    return NULL;
}

/* Since when a quorum of the set serves in it; 0: it does not. */
static uint64_t quorum_since(const struct sim *sim, const struct god_set *s)
{
    uint64_t at[NODES_MAX];
    uint8_t n = 0, quorum = (uint8_t)(bits(s->voters) / 2 + 1);
    for (uint8_t i = 0; i < sim->node_count; i++) {
        uint64_t v = s->voters >> i & 1 ? s->since[i] : 0;
        uint8_t k = v ? n++ : 0;
        for (; v && k > 0 && at[k - 1] > v; k--)
            at[k] = at[k - 1];
        if (v)
            at[k] = v;
    }
    return n >= quorum ? at[quorum - 1] : 0;
}

static void check_spacing(struct sim *sim, const struct core_cfg *c)
{
    const struct god_cfg *before = version(sim, c->ver - 1);
    const struct god_set *set = set_of(sim, c->prev_ver);
    if (!before || before->mode == MODE_STATIC || !set || set->first)
        return;
    uint64_t since = quorum_since(sim, set);
    if (since == 0)
        sim_fail(sim, 7, "version %llx is decided before a quorum of %llx was active",
            (unsigned long long)c->ver, (unsigned long long)set->ver);
    else if (sim->now < since + sim->params.lease_ns)
        sim_fail(sim, 7, "version %llx comes %.3f s after a quorum of %llx was active",
            (unsigned long long)c->ver, (double)(sim->now - since) / 1e9,
            (unsigned long long)set->ver);
}

static void new_set(struct sim *sim, const struct core_cfg *c)
{
    if (set_of(sim, c->voters_ver) || sim->config.set_count == SETS_MAX)
        return;
    if (sim->config.set_count)
        check_spacing(sim, c);
    struct god_set *s = &sim->config.set[sim->config.set_count++];
    memset(s, 0, sizeof(*s));
    s->ver = c->voters_ver;
    s->prev = c->prev_ver;
    s->voters = voter_mask(sim, c);
    s->first = sim->config.set_count == 1 || c->prev_ver == c->voters_ver;
    s->reads = seal_needed(c);
}

/* Somebody collects votes for a fence just now. */
static bool fence_asked(const struct sim *sim)
{
    for (uint8_t i = 0; i < sim->node_count; i++) {
        const struct core *core = sim->node[i].core;
        for (uint8_t p = 1; sim->node[i].alive && p <= core->peer_count; p++)
            if (core->peer[p].fence_ok_epoch > core->peer[p].fenced)
                return true;
    }
    return false;
}

/* Node i has version c in force. */
void oracle_cfg(struct sim *sim, uint8_t i, const struct core_cfg *c)
{
    struct sim_config *k = &sim->config;
    if (c->count == 0)
        return;
    uint64_t h = digest(c);
    struct god_cfg *g = version(sim, c->ver);
    sim->r.invariant_checks[7]++;
    if (g) {
        if (g->hash != h)
            sim_fail(
                sim, 7, "n%u has another version %llx", i, (unsigned long long)c->ver);
        return;
    }
    if (k->god_count == GODS_MAX)
        return;
    const struct god_cfg *before = version(sim, c->ver - 1);
    uint8_t mask = voter_mask(sim, c);
    TRACE(sim, "VERSION %llx at n%u: mode %u voters %x of %u, set %llx",
        (unsigned long long)c->ver, i, c->mode, mask, c->count,
        (unsigned long long)c->voters_ver);
    if (before && bits(before->voters ^ mask) > 1)
        sim_fail(sim, 7, "version %llx changes more than one voter",
            (unsigned long long)c->ver);
    k->god[k->god_count++] = (struct god_cfg){c->ver, h, mask, c->mode};
    sim->r.cfg_steps++;
    sim->r.steps_in_round += fence_asked(sim);
    sim->r.cfg_modes |= 1u << c->mode;
    sim->r.voters_max =
        bits(mask) > sim->r.voters_max ? (uint8_t)bits(mask) : sim->r.voters_max;
    new_set(sim, c);
}

/* The vote of a voter of the set before: what it copies from then on is none. */
static uint32_t row_of(const struct disk *d, uint64_t set, uint64_t id)
{
    bool sealed = d->cfg.voters_ver >= set;
    const struct sess_row *row = sealed ? d->was : d->sess;
    for (int i = 0; i < (sealed ? d->was_count : d->sess_count); i++)
        if (row[i].node == id)
            return row[i].fenced;
    return 0;
}

/* What a quorum of the set before had closed when the first voter of this one was active:
 * any quorum that is read shows it. */
static void closed_before(struct sim *sim, struct god_set *s)
{
    const struct god_set *prev = set_of(sim, s->prev);
    uint8_t quorum = prev ? (uint8_t)(bits(prev->voters) / 2 + 1) : 0;
    for (uint8_t n = 0; prev && n < sim->node_count; n++) {
        uint32_t v[NODES_MAX] = {0};
        uint8_t count = 0;
        for (uint8_t i = 0; i < sim->node_count; i++) {
            if (!(prev->voters >> i & 1))
                continue;
            uint32_t x = row_of(&sim->node[i].disk, s->ver, sim->node[n].id);
            uint8_t at = count++;
            for (; at > 0 && v[at - 1] < x; at--)
                v[at] = v[at - 1];
            v[at] = x;
        }
        s->closed[n] = v[quorum - 1];
    }
}

/* A voter serves in the present set for the first time in this life. */
static void now_active(struct sim *sim, uint8_t i, struct god_set *s)
{
    const struct core *core = sim->node[i].core;
    if (s->active == 0 && s->reads)
        closed_before(sim, s);
    s->active = (uint8_t)(s->active | 1u << i);
    sim->r.invariant_checks[7]++;
    for (uint8_t n = 0; n < sim->node_count && s->reads; n++) {
        sim->r.fences_carried += s->closed[n] != 0;
        uint8_t slot = peer_slot(core, sim->node[n].id);
        if (s->closed[n] && (slot == 0 || core->peer[slot].sess.fenced < s->closed[n]))
            sim_fail(sim, 7,
                "n%u serves in set %llx and forgot the fence %u of n%u (has %u)", i,
                (unsigned long long)s->ver, s->closed[n], n,
                slot ? core->peer[slot].sess.fenced : 0);
    }
}

/* How long an existing session had no right to deliver. */
static void lease_gap(struct sim *sim, struct node *n)
{
    if (sim->healed || !session_lease(n->core, 0))
        return;
    uint64_t gap = n->right_gen == n->gen ? sim->now - n->right_at : 0;
    if (gap > sim->r.lease_gap)
        sim->r.lease_gap = gap;
    n->right_at = sim->now;
    n->right_gen = n->gen;
}

void oracle_config_step(struct sim *sim, uint8_t i)
{
    const struct core *core = sim->node[i].core;
    lease_gap(sim, &sim->node[i]);
    if (sim->config.closed[i] >= NODE_CLOSED && core->state >= CORE_SYNC &&
        core->state != CORE_RESIGNED && session_lease(core, 0))
        sim_fail(sim, 2, "n%u left the cluster and has a lease", i);
    if (!core->voter_active || core->cfg.mode != MODE_QUORUM ||
        !is_voter(core, core->self) || core->state <= CORE_IDLE)
        return; /* a voter serves before its own session is open */
    struct god_set *s = set_of(sim, core->cfg.voters_ver);
    if (s && s->since[i] == 0)
        s->since[i] = sim->now;
    if (s && !(s->active >> i & 1))
        now_active(sim, i, s);
}

/* What had not reached the disk is undone: the node comes back into the set before, and
 * serves there again. */
void oracle_config_crash(struct sim *sim, uint8_t node)
{
    const struct disk *d = &sim->node[node].disk;
    for (uint32_t k = 0; k < sim->config.set_count; k++) {
        struct god_set *s = &sim->config.set[k];
        if (d->cfg.voters_ver < s->ver || (s->reads && d->paxos.active < s->ver))
            s->since[node] = 0;
    }
}

/* Somebody has it certified that sessions of `id` up to `epoch` are closed. */
void oracle_evidence(struct sim *sim, const struct core_fence_row *row)
{
    uint8_t i = sim_node_of(sim, row->node);
    if (i >= NODES_MAX || row->fenced <= sim->config.closed[i])
        return;
    oracle_closing(sim, i, row->fenced);
    sim->config.closed[i] = row->fenced;
}

void oracle_paxos(struct sim *sim, uint8_t node, const struct core_paxos_row *before,
    const struct core_paxos_row *after)
{
    sim->r.invariant_checks[6]++;
    if (after->ver < before->ver || after->active < before->active ||
        (after->ver == before->ver &&
            (after->promised < before->promised || after->accepted < before->accepted)))
        sim_fail(sim, 6, "Paxos row of n%u went back", node);
}

void oracle_config_end(struct sim *sim)
{
    const struct core_cfg *c = sim_newest(sim);
    sim->r.mode_end = c->mode;
    sim->r.voters_end = cfg_voters(c);
    sim->r.members_end = c->count;
    sim->r.jobs_done = sim->config.jobs_done;
}
