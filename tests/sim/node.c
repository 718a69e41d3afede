/* SPDX-License-Identifier: Apache-2.0 */
/* A process around a core: clock, life and death, commands carried out. */
#include "tests/sim/profile.h"

#include <stdlib.h>
#include <string.h>

static const struct core_limits limits = {.units = 2048,
    .works = 2048,
    .accepts = 64,
    .parked = 1024,
    .graves = 256,
    .gossip_rows = 64};

uint64_t node_clock(const struct sim *sim, const struct node *n)
{
    uint64_t now = n->freezing && sim->now > n->base_true ? n->base_true : sim->now;
    uint64_t d = now - n->base_true;
    int64_t skew = (int64_t)(d / 1000000) * n->rate_ppm;
    return n->base_local + d + (uint64_t)skew;
}

uint64_t node_true(const struct sim *sim, const struct node *n, uint64_t local)
{
    uint64_t here = node_clock(sim, n);
    if (local <= here)
        return sim->now;
    if (local - here > 1000 * SEC)
        return sim->now + 1000 * SEC;
    uint64_t d = local - here;
    int64_t skew = (int64_t)(d / 1000000) * n->rate_ppm;
    return sim->now + (uint64_t)((int64_t)d - skew) + 1000;
}

static void tell_wall(struct sim *sim, uint8_t i)
{
    struct core_event wall = {.kind = EV_WALL};
    sim->node[i].wall_at = sim->now + 10 * SEC;
    wall.u.wall.now_s = wall_s(sim);
    wall.u.wall.trusted = true;
    node_step(sim, i, &wall);
}

void node_start(struct sim *sim, uint8_t i)
{
    struct node *n = &sim->node[i];
    if (n->alive || n->permanent_dead || sim->config.off[i])
        return;
    if (!n->mem)
        n->mem = aligned_alloc(16, (core_size(&limits) + 15) & ~(size_t)15);
    n->core = core_init(
        n->mem, &limits, &sim->params, n->id, sim->o.seed + n->gen * UINT64_C(7919));
    n->core->mutant = sim->o.mutant;
    n->core->buggify = sim->buggify;
    n->core->sometimes = sim->r.sometimes;
    n->alive = true;
    n->gen++;
    n->started_at = sim->now;
    n->paused_until = 0;
    n->told_age = 0;
    n->clock_lost &= n->freezing; /* its lease is asked for anew */
    n->reference = UINT32_MAX;
    n->tick_at = CORE_FOREVER;
    memset(&n->gate, 0, sizeof(n->gate));
    memset(n->sched, 0, sizeof(n->sched));
    TRACE(sim, "n%u START gen %u", i, n->gen);
    sim_at(sim, sim->now + SEC, SE_SCRUB, i, 0, 0, 0);
    oracle_claims(sim, i);
    profile_moment(sim, ON_START, 0, i, i);
    tell_wall(sim, i);
    disk_boot(sim, i);
}

void node_crash(struct sim *sim, uint8_t i, const char *why)
{
    struct node *n = &sim->node[i];
    if (!n->alive)
        return;
    TRACE(sim, "n%u CRASH %s", i, why);
    n->alive = false;
    n->crashed_at = sim->now;
    n->crash_measured = false;
    profile_moment(sim, ON_DOWN, 0, i, i);
    disk_crash(sim, i);
    oracle_config_crash(sim, i);
}

static void arm(struct sim *sim, uint8_t i, uint64_t deadline)
{
    struct node *n = &sim->node[i];
    uint64_t at =
        deadline == CORE_FOREVER ? sim->now + 1000 * SEC : node_true(sim, n, deadline);
    if (at >= n->tick_at && n->tick_at > sim->now)
        return;
    n->tick_at = at;
    sim_at(sim, at, SE_TICK, i, n->gen, 0, 0);
}

/* A row that changes, of no meaning to the core. */
static void tell_row(struct sim *sim, uint8_t i)
{
    uint8_t value = (uint8_t)(sim->now / SEC);
    struct core_event e = {.kind = EV_ROW};
    sim->node[i].load_at = sim->now + 5 * SEC;
    e.u.row.key = 1;
    e.u.row.length = 1;
    e.u.row.value = &value;
    node_step(sim, i, &e);
}

void node_tick(struct sim *sim, uint8_t i)
{
    struct node *n = &sim->node[i];
    if (!n->alive || sim->now < n->tick_at)
        return;
    n->tick_at = CORE_FOREVER;
    if (sim->now >= n->wall_at)
        tell_wall(sim, i);
    if (sim->o.share && sim->now >= n->load_at) {
        n->load_at = sim->now + SEC;
        world_load(sim, i);
    }
    if (sim->o.held && sim->now >= n->load_at && !sim->healed)
        tell_row(sim, i);
    struct core_event e = {.kind = EV_TICK};
    uint64_t age = n->disk.busy ? sim->now - n->disk.busy_since : 0;
    if (age > SEC || n->told_age) {
        n->told_age = age > SEC ? age : 0;
        e.kind = EV_STORAGE_HEALTH;
        e.u.health.commit_age_ns = n->told_age;
    }
    node_step(sim, i, &e);
}

static void carry_out(struct sim *sim, uint8_t i, const struct core_command *c)
{
    struct node *n = &sim->node[i];
    switch ((enum core_command_kind)c->kind) {
    case CMD_SEND:
        oracle_send(sim, i, &c->u.send);
        net_send(sim, i, &c->u.send);
        break;
    case CMD_STORE:
        if (c->u.store.op[0].kind == OP_UNIT && c->u.store.op[0].accept_handle)
            world_register(
                sim, i, c->u.store.op[0].accept_handle, &c->u.store.op[0].u.unit);
        if (c->u.store.op[0].kind == OP_UNIT && c->u.store.op[0].accept_handle)
            faults_step(sim, KILL_STORE, i);
        for (int k = 0; k < c->u.store.op_count; k++)
            if (c->u.store.op[k].kind == OP_UNIT) {
                oracle_claimed(sim, i, &c->u.store.op[k].u.unit);
            } else if (c->u.store.op[k].kind == OP_FENCE) {
                n->fence_at = sim->now;
                oracle_evidence(sim, &c->u.store.op[k].u.fence);
            }
        disk_push(sim, i, c);
        break;
    case CMD_ACCEPT_REPLY:
        world_reply(sim, i, c->u.accept.handle, c->u.accept.reply, &c->u.accept.id);
        break;
    case CMD_GATE:
        n->gate = c->u.gate;
        break;
    case CMD_START:
        world_start(sim, i, c);
        break;
    case CMD_ATTEMPT:
        world_attempt(sim, i, c);
        if (c->u.unit.rcpts)
            faults_step(sim, KILL_ATTEMPT, i);
        break;
    case CMD_INTENT_OK:
        world_intent_ok(sim, i, c);
        faults_step(sim, KILL_INTENT_OK, i);
        break;
    case CMD_CANCEL:
        world_cancel(sim, i, c);
        break;
    case CMD_DIE:
        TRACE(sim, "n%u DIES: %s", i, c->u.why);
        node_crash(sim, i, c->u.why);
        if (n->restored)
            n->permanent_dead = true;
        else if (!n->old_image)
            sim_at(sim, sim->now + 2 * SEC, SE_START, i, 0, 0, 0);
        break;
    case CMD_CFG:
        oracle_cfg(sim, i, c->u.cfg);
        break;
    case CMD_ADMIN_DONE:
        operator_answer(sim, c);
        break;
    case CMD_TRACE:
        break;
    }
}

/* Who is down for this node. A frame brings sessions to light, its sender's and, in the
 * rows of a lease, others'. */
static uint8_t down_for(const struct sim *sim, const struct node *n)
{
    uint8_t mask = 0;
    for (uint8_t i = 1; i <= n->core->peer_count; i++) {
        uint8_t node =
            peer_down(n->core, i) ? sim_node_of(sim, n->core->peer[i].node) : NODES_MAX;
        mask = (uint8_t)(mask | (node < NODES_MAX ? 1u << node : 0));
    }
    return mask;
}

void node_step(struct sim *sim, uint8_t i, struct core_event *e)
{
    static struct core_command ring[CORE_COMMANDS_MIN];
    struct core_commands out = {ring, 0, CORE_COMMANDS_MIN, 0};
    struct node *n = &sim->node[i];
    if (!n->alive)
        return;
    e->now_ns = node_clock(sim, n);
    n->fences_before = n->core->fences;
    n->down_before = down_for(sim, n);
    core_step(n->core, e, &out);
    uint32_t gen = n->gen;
    for (uint32_t k = 0; k < out.count && n->alive && n->gen == gen; k++)
        carry_out(sim, i, &ring[k]);
    if (!n->alive || n->gen != gen)
        return;
    oracle_claims(sim, i);
    oracle_step(sim, i);
    arm(sim, i, out.deadline_ns);
}
