/* SPDX-License-Identifier: Apache-2.0 */
/* What goes wrong: a plan drawn from the seed, or a scenario's script; then the heal. */
#include "tests/sim/profile.h"

#include <string.h>

static const char *const names[FAULT_KINDS] = {
    "none",
    "crash",
    "pause",
    "freeze",
    "cut one way",
    "cut both ways",
    "isolate",
    "deaf",
    "mute",
    "stall",
    "reconnect",
    "loss",
    "slow disk",
    "EIO",
    "full",
    "resign",
    "steal",
    "flap",
    "crash all",
    "crash two",
    "stall and cut",
    "operator",
    "snapshot",
    "restore",
    "rot",
    "stall out",
};

const char *fault_name(uint8_t kind)
{
    return kind < FAULT_KINDS ? names[kind] : "?";
}

uint64_t fault_length(struct sim *sim, uint8_t kind)
{
    uint64_t *r = &sim->rng_fault;
    static const uint32_t longest_s[FAULT_KINDS] = {[FAULT_CRASH] = 40,
        [FAULT_PAUSE] = 40,
        [FAULT_FREEZE] = 40,
        [FAULT_CUT] = 60,
        [FAULT_CUT_BOTH] = 60,
        [FAULT_ISOLATE] = 70,
        [FAULT_DEAF] = 60,
        [FAULT_MUTE] = 60,
        [FAULT_STALL] = 20,
        [FAULT_RECONNECT] = 1,
        [FAULT_LOSS] = 20,
        [FAULT_SLOW_DISK] = 60,
        [FAULT_FULL] = 30,
        [FAULT_RESIGN] = 10,
        [FAULT_STEAL] = 40,
        [FAULT_FLAP] = 40,
        [FAULT_CRASH_ALL] = 30,
        [FAULT_SPLIT_CRASH] = 60,
        [FAULT_STALL_CUT] = 14,
        [FAULT_ROT] = 20,
        [FAULT_STALL_OUT] = 25};
    uint64_t max = (longest_s[kind] ? longest_s[kind] : 1) * SEC;
    if (sim_below(r, 3) == 0)
        max /= 10; /* short ones reach windows that long ones step over */
    return 1 + sim_below(r, max);
}

/* The swarm: which faults, how many. Some profiles lean on what rarely meets by chance.
 */
static uint32_t profile(struct sim *sim, uint64_t *enabled)
{
    static const uint64_t lean[] = {0,
        1u << FAULT_STALL | 1u << FAULT_MUTE | 1u << FAULT_RECONNECT | 1u << FAULT_CRASH |
            1u << FAULT_STALL_CUT,
        1u << FAULT_CRASH | 1u << FAULT_SPLIT_CRASH | 1u << FAULT_ISOLATE,
        1u << FAULT_STEAL | 1u << FAULT_CRASH | 1u << FAULT_ISOLATE | 1u << FAULT_CUT,
        1u << FAULT_STALL_CUT | 1u << FAULT_FREEZE | 1u << FAULT_PAUSE,
        1u << FAULT_STALL | 1u << FAULT_ISOLATE | 1u << FAULT_DEAF | 1u << FAULT_STEAL};
    uint64_t *r = &sim->rng_fault;
    uint32_t which = (uint32_t)sim_below(r, 10);
    *enabled = which < 6 && which > 0 ? lean[which] : sim_random(r) | 1u << FAULT_CRASH;
    return (uint32_t)sim_below(r, which < 6 && which > 0 ? 120 : 16);
}

void faults_plan(struct sim *sim)
{
    uint64_t *r = &sim->rng_fault;
    const struct sim_options *o = &sim->o;
    if (o->plain) {
        for (uint32_t i = 0; i < o->script_count; i++)
            sim->fault[sim->fault_count++] = o->script[i];
    } else if (o->profile) {
        profile_plan(sim);
    } else {
        uint64_t enabled;
        uint32_t wanted = profile(sim, &enabled);
        for (uint32_t i = 0; i < wanted; i++) {
            struct fault *f = &sim->fault[sim->fault_count];
            f->kind = (uint8_t)(1 + sim_below(r, FAULT_OPERATOR - 1));
            f->at = 3 * SEC + sim_below(r, sim->heal_at - 3 * SEC);
            f->a = (uint8_t)sim_below(r, sim->node_count);
            f->b = (uint8_t)sim_below(r, sim->node_count);
            f->arg = fault_length(sim, f->kind);
            if (enabled >> f->kind & 1)
                sim->fault_count++;
        }
    }
    uint32_t rot = o->plain || sim_below(r, 4) ? 0 : (uint32_t)sim_below(r, 12);
    while (rot-- > 0 && sim->fault_count < FAULTS_MAX)
        sim->fault[sim->fault_count++] =
            (struct fault){.at = 3 * SEC + sim_below(r, sim->heal_at - 3 * SEC),
                .kind = FAULT_ROT,
                .a = (uint8_t)sim_below(r, sim->node_count),
                .arg = fault_length(sim, FAULT_ROT)};
    for (uint32_t i = 0; i < sim->fault_count; i++)
        if (!(o->fault_mask[i / 8] >> (i % 8) & 1))
            sim_at(sim, sim->fault[i].at, SE_FAULT, sim->fault[i].a, 0, i, 0);
}

/* ---- applying ---- */

static void later(uint64_t *until, uint64_t at)
{
    *until = at > *until ? at : *until;
}

static void cut(struct sim *sim, uint8_t a, uint8_t b, uint64_t until)
{
    if (a != b)
        later(&sim->link[a][b].cut_until, until);
}

static void isolate(struct sim *sim, const struct fault *f, bool in, bool out)
{
    for (uint8_t i = 0; i < sim->node_count; i++) {
        if (in)
            cut(sim, i, f->a, sim->now + f->arg);
        if (out)
            cut(sim, f->a, i, sim->now + f->arg);
    }
}

static void down(struct sim *sim, uint8_t i, uint64_t back)
{
    node_crash(sim, i, "killed");
    sim_at(sim, back, SE_START, i, 0, 0, 0);
}

/* Lost time shows against the clock of a voter that was heard before, and of no other. */
static uint32_t references(const struct sim *sim, const struct node *n)
{
    uint32_t mask = 0;
    for (uint8_t i = 0; i < sim->node_count; i++)
        if (n->core->peer[peer_slot(n->core, sim->node[i].id)].d_valid)
            mask |= 1u << i;
    return mask;
}

static void freeze(struct sim *sim, const struct fault *f)
{
    struct node *n = &sim->node[f->a];
    if (!n->alive || n->freezing)
        return;
    n->base_local = node_clock(sim, n);
    n->base_true = sim->now;
    n->freezing = true;
    n->freeze_end = sim->now + f->arg;
    n->freeze_length = f->arg;
    n->reference = references(sim, n);
    n->clock_lost = true;
    later(&n->paused_until, n->freeze_end);
    sim->freeze_any = n->freeze_end;
    sim_at(sim, n->freeze_end, SE_FAULT, f->a, 0, NIL, 0);
}

static void thaw(struct sim *sim)
{
    for (uint8_t i = 0; i < sim->node_count; i++) {
        struct node *n = &sim->node[i];
        if (n->freezing && sim->now >= n->freeze_end) {
            n->freezing = false;
            n->base_true = sim->now;
            n->tick_at = CORE_FOREVER;
            sim_at(sim, sim->now + MS, SE_TICK, i, n->gen, 0, 0);
            n->tick_at = sim->now + MS;
        }
    }
}

static void admin(struct sim *sim, uint8_t i, uint8_t op, uint32_t count)
{
    struct core_event e = {.kind = EV_ADMIN};
    e.u.admin.op = op;
    e.u.admin.count = count;
    node_step(sim, i, &e);
}

static void begin_steal(struct sim *sim, const struct fault *f)
{
    for (uint8_t i = 0; i < sim->node_count; i++) {
        later(&sim->node[i].steal_until, sim->now + f->arg);
        sim_at(sim, sim->now, SE_STEAL, i, sim->node[i].gen, 0, 0);
    }
}

static void apply_link(struct sim *sim, const struct fault *f)
{
    uint64_t until = sim->now + f->arg;
    struct link *l = &sim->link[f->a][f->b];
    if (f->kind == FAULT_CUT || f->kind == FAULT_CUT_BOTH)
        cut(sim, f->a, f->b, until);
    if (f->kind == FAULT_CUT_BOTH)
        cut(sim, f->b, f->a, until);
    if (f->kind == FAULT_STALL)
        later(&l->stall_until, until);
    if (f->kind == FAULT_STALL_CUT)
        for (uint8_t i = 0; i < sim->node_count; i++) {
            later(&sim->link[i][f->a].stall_until, until);
            cut(sim, f->a, i, until + sim->params.lease_ns * 2);
        }
    if (f->kind == FAULT_STALL_OUT)
        for (uint8_t i = 0; i < sim->node_count; i++)
            later(&sim->link[f->a][i].stall_until, until);
    if (f->kind == FAULT_FLAP) {
        later(&l->flap_until, until);
        later(&sim->link[f->b][f->a].flap_until, until);
    }
    if (f->kind == FAULT_RECONNECT) {
        /* what was handed over lately is gone; what waited longer may come after new */
        if (f->arg & 1)
            l->drop_before = sim->now;
        memset(l->last, 0, sizeof(l->last));
    }
    if (f->kind == FAULT_LOSS)
        for (uint8_t i = 0; i < sim->node_count; i++)
            for (uint8_t j = 0; j < sim->node_count; j++)
                sim->link[i][j].loss_ppm = 300000;
}

static void apply_node(struct sim *sim, const struct fault *f)
{
    struct node *n = &sim->node[f->a];
    switch (f->kind) {
    case FAULT_CRASH:
        down(sim, f->a, sim->now + f->arg);
        break;
    case FAULT_SPLIT_CRASH:
        down(sim, f->a, sim->now + f->arg);
        if (f->a != f->b) {
            sim_at(
                sim, sim->now + f->arg / 50, SE_CRASH, f->b, sim->node[f->b].gen, 0, 0);
            sim_at(sim, sim->now + f->arg / 2, SE_START, f->b, 0, 0, 0);
        }
        break;
    case FAULT_CRASH_ALL:
        for (uint8_t i = 0; i < sim->node_count; i++)
            down(sim, i, sim->now + sim_below(&sim->rng_fault, f->arg));
        break;
    case FAULT_PAUSE:
        if (n->alive)
            later(&n->paused_until, sim->now + f->arg);
        break;
    case FAULT_FREEZE:
        freeze(sim, f);
        break;
    case FAULT_SLOW_DISK:
        n->disk.slow_until = sim->now + f->arg;
        n->disk.slow_ns = f->arg;
        break;
    case FAULT_EIO:
        n->disk.eio = true;
        break;
    case FAULT_FULL:
        n->disk.full_until = sim->now + f->arg;
        n->disk.was_full = true;
        break;
    case FAULT_RESIGN:
        admin(sim, f->a, ADMIN_RESIGN, 0);
        sim_at(sim, sim->now + 500 * MS, SE_CRASH, f->a, n->gen, 0, 0);
        sim_at(sim, sim->now + SEC + f->arg, SE_START, f->a, 0, 0, 0);
        break;
    case FAULT_SNAPSHOT:
        disk_snapshot(sim, f->a);
        break;
    case FAULT_RESTORE:
        down(sim, f->a, sim->now + f->arg);
        disk_restore(sim, f->a);
        break;
    case FAULT_ROT:
        disk_rot(sim, f->a);
        sim_at(sim, sim->now + f->arg, SE_SCRUB, f->a, n->gen, 0, 0);
        break;
    case FAULT_STEAL:
        begin_steal(sim, f);
        break;
    case FAULT_OPERATOR:
        operator_fault(sim, f);
        break;
    default:
        break;
    }
}

void faults_apply(struct sim *sim, uint32_t index)
{
    if (index == NIL) {
        thaw(sim);
        return;
    }
    const struct fault *f = &sim->fault[index];
    if (sim->healed)
        return;
    sim->r.faults[f->kind]++;
    TRACE(sim, "FAULT %s n%u n%u for %.2f s", fault_name(f->kind), f->a, f->b,
        (double)f->arg / 1e9);
    if (f->kind == FAULT_ISOLATE)
        isolate(sim, f, true, true);
    else if (f->kind == FAULT_DEAF)
        isolate(sim, f, true, false);
    else if (f->kind == FAULT_MUTE)
        isolate(sim, f, false, true);
    apply_link(sim, f);
    apply_node(sim, f);
}

/* The owner of what happens now dies at once; the seed says at which step. */
void faults_step(struct sim *sim, enum kill_step step, uint8_t node)
{
    const struct sim_options *o = &sim->o;
    if (!o->kill_count || sim->killed_one || sim->healed || sim->now < 12 * SEC ||
        step != o->kill_first + o->seed % o->kill_count || node >= NODES_MAX)
        return;
    sim->killed_one = true;
    sim->r.killed |= 1u << step;
    TRACE(sim, "KILL n%u at step %u", node, step);
    sim_at(sim, sim->now, SE_CRASH, node, sim->node[node].gen, 0, 0);
    sim_at(sim, sim->now + 40 * SEC, SE_START, node, 0, 0, 0);
}

/* ---- the heal ---- */

/* Liveness mode: what stays broken must not keep the rest from going on. */
static void break_for_ever(struct sim *sim)
{
    uint8_t i = (uint8_t)sim_below(&sim->rng_fault, sim->node_count);
    struct node *n = &sim->node[i];
    if (sim_below(&sim->rng_fault, 2)) {
        node_crash(sim, i, "for ever");
        n->permanent_dead = true;
        TRACE(sim, "n%u is dead for ever", i);
        return;
    }
    bool deaf = sim_below(&sim->rng_fault, 2);
    n->permanent_dead = true; /* for the oracle: nothing is asked of it */
    for (uint8_t j = 0; j < sim->node_count; j++)
        if (deaf)
            sim->link[j][i].deaf_for_ever = true;
        else
            sim->link[i][j].deaf_for_ever = true;
    if (!n->alive)
        node_start(sim, i);
    TRACE(sim, "n%u is %s for ever", i, deaf ? "deaf" : "mute");
}

void faults_heal(struct sim *sim)
{
    sim->healed = true;
    TRACE(sim, "HEAL");
    if (sim->o.held)
        sim->held_until = sim->now + 3 * sim->params.lease_ns + sim->params.doubt_ns +
                          sim->params.stale_ns;
    for (uint8_t i = 0; i < sim->node_count; i++) {
        struct node *n = &sim->node[i];
        for (uint8_t j = 0; j < sim->node_count; j++) {
            struct link *l = &sim->link[i][j];
            l->cut_until = l->stall_until = l->flap_until = 0;
            l->loss_ppm = 0;
        }
        n->disk.slow_until = n->disk.full_until = 0;
        n->disk.eio = false;
        if (n->freezing)
            n->freeze_end = sim->now;
        n->paused_until = sim->now;
        n->steal_until = 0;
    }
    thaw(sim);
    if (sim->o.liveness && sim->node_count >= 3 && !sim->rolled_back)
        break_for_ever(sim);
    const struct core_cfg *c = sim_newest(sim);
    uint8_t stores = 0;
    for (uint8_t k = 0; k < c->count; k++) {
        uint8_t i = sim_node_of(sim, c->member[k].node);
        stores = (uint8_t)(stores + ((c->member[k].roles & ROLE_STORE) && i < NODES_MAX &&
                                        !sim->node[i].permanent_dead));
    }
    sim->no_accept = stores < c->min_copies; /* nobody can promise that many copies */
    operator_heal(sim);
    for (uint8_t i = 0; i < sim->node_count; i++)
        if (!sim->node[i].alive && !sim->node[i].permanent_dead && !sim->node[i].restored)
            sim_at(sim, sim->now + sim_below(&sim->rng_fault, 3 * SEC), SE_START, i, 0, 0,
                0);
}
