/* SPDX-License-Identifier: Apache-2.0 */
/* What a cluster is at first, and what its operator is going to do. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <string.h>

static uint64_t *rng(struct sim *sim)
{
    return &sim->config.rng;
}

/* ---- shapes ---- */

static void spare_nodes(struct sim *sim, uint8_t count)
{
    for (uint8_t i = 0; i < count && sim->node_count < NODES_MAX; i++) {
        struct node *n = &sim->node[sim->node_count++];
        n->id = (sim_random(rng(sim)) & ~UINT64_C(0xff)) + sim->node_count;
        n->exists = true;
    }
}

void operator_ident(uint8_t key_of, uint8_t name_of, struct core_ident *out)
{
    memset(out, 0, sizeof(*out));
    out->key[0] = out->address[17] = (uint8_t)(key_of + 1);
    snprintf(out->name, sizeof(out->name), "node%u", name_of);
}

static void members(struct sim *sim, uint8_t count, uint8_t voters, uint8_t mode)
{
    struct core_cfg *c = &sim->cfg;
    memset(c, 0, sizeof(*c));
    sim->node_count = 0;
    spare_nodes(sim, count);
    c->ver = c->mode_ver = c->voters_ver = c->prev_ver = 1;
    c->mode = mode;
    c->copies = 2;
    c->flags = CFG_AUTO_MIN;
    c->count = count;
    for (uint8_t i = 0; i < count; i++) {
        struct core_member *m = &c->member[i];
        m->node = sim->node[i].id;
        m->roles = (uint8_t)(ROLE_STORE | ROLE_EGRESS | (i < voters ? ROLE_VOTER : 0));
        m->zone = i % 3;
        m->weight = 1;
        operator_ident(i, i, &m->ident);
    }
    cfg_auto_min(c);
}

static void shape(struct sim *sim)
{
    switch ((enum world_shape)sim->config.shape) {
    case WORLD_FIXED:
        break;
    case WORLD_BIRTH:
        members(sim, 1, 1, MODE_QUORUM);
        memset(&sim->cfg, 0, sizeof(sim->cfg));
        sim->config.spares = sim->config.spares ? sim->config.spares : 4;
        break;
    case WORLD_STATIC:
        members(sim, 2, 2, MODE_STATIC);
        break;
    case WORLD_TRIO:
        members(sim, 3, 3, MODE_STATIC);
        break;
    case WORLD_QUORUM: {
        uint8_t n = sim->o.nodes ? sim->o.nodes : (uint8_t)(3 + sim_below(rng(sim), 3));
        members(sim, n, sim->o.voters ? sim->o.voters : 3, MODE_QUORUM);
        break;
    }
    case WORLD_PAIR:
        members(sim, 3, 3, MODE_QUORUM);
        sim->cfg.member[2].roles = ROLE_VOTER;
        cfg_auto_min(&sim->cfg);
        break;
    }
    uint8_t spares = sim->config.spares;
    spare_nodes(sim, spares ? spares : (uint8_t)(1 + sim_below(rng(sim), 3)));
    bool own = sim->o.shape ? sim->o.auto_voters
                            : sim->config.shape == WORLD_STATIC || sim_below(rng(sim), 2);
    if (sim->cfg.count && own)
        sim->cfg.flags |= CFG_AUTO_VOTERS;
}

static void plan(struct sim *sim)
{
    static const uint8_t kinds[] = {OP_ADD, OP_ADD, OP_ADD, OP_ADD, OP_LEAVE, OP_LEAVE,
        OP_REPLACE, OP_REPLACE, OP_VOTE, OP_VOTE, OP_VOTE, OP_VOTE, OP_DRAIN, OP_UNDRAIN,
        OP_COPIES, OP_RETURN, OP_MODE, OP_KILL};
    uint32_t n = 2 + (uint32_t)sim_below(rng(sim), 8);
    for (uint32_t i = 0; i < n; i++)
        operator_job(sim, kinds[sim_below(rng(sim), sizeof(kinds))],
            (uint8_t)sim_below(rng(sim), sim->node_count),
            4 * SEC + sim_below(rng(sim), sim->o.fault_phase - 4 * SEC));
}

bool operator_world(uint64_t seed)
{
    uint64_t class = seed % 16;
    return class == 0 || class == 5 || class == 12;
}

/* Three seeds in sixteen have a cluster that changes; it draws from its own stream, so
 * that the other seeds stay what they were. */
void operator_setup(struct sim *sim)
{
    static const uint8_t shapes[] = {WORLD_QUORUM, WORLD_QUORUM, WORLD_QUORUM,
        WORLD_STATIC, WORLD_STATIC, WORLD_BIRTH, WORLD_PAIR, WORLD_TRIO, WORLD_TRIO};
    struct sim_config *c = &sim->config;
    c->rng = sim->o.seed * UINT64_C(0x9e6c63d0676a9a99) + 7;
    c->shape = sim->o.shape;
    c->spares = sim->o.spares;
    if (!sim->o.plain && !sim->o.profile && operator_world(sim->o.seed))
        c->shape = shapes[sim_below(rng(sim), sizeof(shapes))];
    if (c->shape == WORLD_FIXED)
        return;
    shape(sim);
    sim->o.liveness = false;
    if (!sim->o.fault_phase)
        sim->o.fault_phase = 60 * SEC + sim_below(rng(sim), 120 * SEC);
    if (!sim->o.lease_s)
        sim->o.lease_s = sim_below(rng(sim), 3) ? 5 : 10;
    if (c->shape == WORLD_BIRTH)
        operator_job(sim, OP_INIT, 0, 2 * SEC + 500 * MS);
    if (c->shape == WORLD_TRIO && !sim->o.plain)
        operator_job(sim, sim_below(rng(sim), 3) ? OP_MODE_OFF : OP_MODE,
            (uint8_t)sim_below(rng(sim), 3), 8 * SEC + sim_below(rng(sim), 20 * SEC));
    if (!sim->o.plain)
        plan(sim);
    oracle_cfg(sim, 0, &sim->cfg);
}
