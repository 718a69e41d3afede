/* SPDX-License-Identifier: Apache-2.0 */
/* The operator of a simulated cluster: nodes join and leave, disks are replaced, votes
 * move. A job is said to some member and said again until it is done. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <string.h>

#define ANSWER_NS (150 * SEC)
#define SPARE NODES_MAX
#define FORCE_AFTER 4 /* refusals */

static uint64_t *rng(struct sim *sim)
{
    return &sim->config.rng;
}

void operator_job(struct sim *sim, uint8_t kind, uint8_t target, uint64_t at)
{
    struct sim_config *c = &sim->config;
    if (c->job_count == JOBS_MAX)
        return;
    struct op_job *j = &c->job[c->job_count++];
    memset(j, 0, sizeof(*j));
    j->kind = kind;
    j->target = target;
    j->until = at;
    sim_at(sim, at, SE_ADMIN, 0, 0, c->job_count - 1u, 0);
}

/* ---- what is true ---- */

static bool member(const struct sim *sim, uint8_t i)
{
    return cfg_find(sim_newest(sim), sim->node[i].id) != NULL;
}

/* Every unit that somebody still needs has a copy on another disk that stays. */
static bool expendable(struct sim *sim, uint8_t target)
{
    for (uint32_t k = 0; k < sim->unit_count; k++) {
        const struct god_unit *g = &sim->unit[k];
        struct disk *d = &sim->node[target].disk;
        bool here = disk_find(d, &g->id) || disk_aside(d, &g->id), there = false;
        for (uint8_t i = 0; i < sim->node_count; i++) {
            struct disk *other = &sim->node[i].disk;
            const struct unit_row *row = disk_find(other, &g->id);
            there |= i != target && !sim->node[i].permanent_dead && member(sim, i) &&
                     row && row->state == UNIT_LIVE &&
                     disk_mail(other, &g->id) == MAIL_GOOD;
        }
        uint64_t all = (UINT64_C(1) << g->rcpts) - 1;
        if (here && !there && ((g->delivered | g->failed) & all) != all)
            return false;
    }
    return true;
}

/* It lives, and knows that it is a member. */
static bool takes_part(const struct sim *sim, uint8_t i)
{
    const struct node *n = &sim->node[i];
    return !n->permanent_dead && cfg_find(&n->disk.cfg, n->id);
}

static uint8_t voters_left(const struct sim *sim, uint8_t without)
{
    const struct core_cfg *c = sim_newest(sim);
    uint8_t n = 0;
    for (uint8_t k = 0; k < c->count; k++) {
        uint8_t i = sim_node_of(sim, c->member[k].node);
        n = (uint8_t)(n + ((c->member[k].roles & ROLE_VOTER) && i != without &&
                              takes_part(sim, i)));
    }
    return n;
}

static uint8_t stores_left(const struct sim *sim, uint8_t without)
{
    const struct core_cfg *c = sim_newest(sim);
    uint8_t n = 0;
    for (uint8_t k = 0; k < c->count; k++) {
        uint8_t i = sim_node_of(sim, c->member[k].node);
        n = (uint8_t)(n + ((c->member[k].roles & ROLE_STORE) && i != without &&
                              takes_part(sim, i)));
    }
    return n;
}

/* May be lost for good without losing mail or the quorum. */
static bool may_go(struct sim *sim, uint8_t target)
{
    const struct core_cfg *c = sim_newest(sim);
    uint8_t voters = cfg_voters(c);
    uint8_t need = c->mode == MODE_STATIC ? 1 : (uint8_t)(voters / 2 + 1);
    return member(sim, target) && !sim->node[target].permanent_dead &&
           stores_left(sim, target) > 0 && voters_left(sim, target) >= need &&
           expendable(sim, target);
}

/* All who live know it as a member: what it says to them is heard. */
static bool known_to_all(const struct sim *sim, uint8_t via)
{
    for (uint8_t i = 0; i < sim->node_count; i++)
        if (takes_part(sim, i) && !cfg_find(&sim->node[i].disk.cfg, sim->node[via].id))
            return false;
    return true;
}

static uint8_t pick_member(struct sim *sim, uint8_t but)
{
    uint8_t i = (uint8_t)sim_below(rng(sim), sim->node_count);
    for (uint8_t k = 0; k < sim->node_count;
         k++, i = (uint8_t)((i + 1) % sim->node_count))
        if (i != but && member(sim, i) && sim->node[i].alive &&
            !sim->node[i].permanent_dead && sim->node[i].paused_until <= sim->now)
            return i;
    return SPARE;
}

static uint8_t pick_spare(const struct sim *sim)
{
    for (uint8_t i = 0; i < sim->node_count; i++)
        if (!sim->config.joined[i] && !member(sim, i) && !sim->node[i].permanent_dead)
            return i;
    return SPARE;
}

/* ---- saying it ---- */

static void again(struct sim *sim, uint32_t index, uint64_t after)
{
    sim->config.job[index].until = sim->now + after;
    sim_at(sim, sim->now + after, SE_ADMIN, 0, 0, index, 0);
}

static void say(struct sim *sim, uint32_t index, uint8_t via, struct core_event *e)
{
    struct op_job *j = &sim->config.job[index];
    j->tries++;
    e->kind = EV_ADMIN;
    e->u.admin.token = (uint64_t)index << 8 | j->tries;
    TRACE(sim, "OPERATOR says op %u (%u n%u) to n%u", e->u.admin.op, j->kind, j->target,
        via);
    again(sim, index, ANSWER_NS);
    node_step(sim, via, e);
}

/* What the operator swore of a node may be why mail is delivered twice: D6. */
static void sworn_off(struct sim *sim, uint64_t id)
{
    uint8_t i = id ? sim_node_of(sim, id) : SPARE;
    if (i < NODES_MAX)
        sim->config.sworn[i] = true;
}

/* The member that is missed most, as the node sees it that is asked: a voter. */
static uint64_t dead_one(const struct sim *sim, uint8_t via)
{
    const struct core_member *best = NULL;
    for (uint8_t i = 0; i < sim->node_count; i++) {
        const struct core_member *m = cfg_find(&sim->node[via].disk.cfg, sim->node[i].id);
        if (m && sim->node[i].permanent_dead &&
            (!best || (m->roles & ROLE_VOTER) || !(best->roles & ROLE_VOTER)))
            best = m;
    }
    return best ? best->node : 0;
}

static void change(
    struct sim *sim, uint32_t index, uint8_t op, uint8_t target, uint8_t as)
{
    struct core_event e = {0};
    uint8_t via = pick_member(sim, SPARE);
    const struct core_cfg *c = sim_newest(sim);
    const struct core_member *m = cfg_find(c, sim->node[target].id);
    if (via == SPARE) {
        again(sim, index, 3 * SEC);
        return;
    }
    e.u.admin.op = ADMIN_CHANGE;
    struct cfg_change *x = &e.u.admin.change;
    x->op = op;
    x->node = sim->node[target].id;
    x->roles = ROLE_STORE | ROLE_EGRESS;
    if (op == CFG_ROLES && m)
        x->roles = (uint8_t)((m->roles & ~ROLE_WAS_VOTER) ^ ROLE_VOTER);
    x->zone = target % 3;
    x->weight = 1;
    x->copies = (uint8_t)(1 + sim_below(rng(sim), 3));
    x->mode = c->mode == MODE_STATIC ? MODE_QUORUM : MODE_STATIC;
    if (op == CFG_ADD)
        operator_ident(target, as, &x->ident);
    if (c->mode == MODE_STATIC && op != CFG_MODE)
        x->off = dead_one(sim, via);
    sworn_off(sim, x->off);
    say(sim, index, via, &e);
}

static void kill_for_ever(struct sim *sim, uint8_t target)
{
    node_crash(sim, target, "for ever");
    sim->node[target].permanent_dead = true;
}

static void finish(struct sim *sim, uint32_t index)
{
    sim->config.job[index].done = true;
    sim->config.jobs_done++;
}

static void birth(struct sim *sim, uint32_t index)
{
    struct core_event e = {0};
    e.u.admin.op = ADMIN_INIT;
    e.u.admin.change.roles = ROLE_STORE | ROLE_EGRESS;
    operator_ident(0, 0, &e.u.admin.change.ident);
    if (sim->node[0].permanent_dead) /* it was born, and is lost since */
        finish(sim, index);
    else
        say(sim, index, 0, &e);
}

static void force(struct sim *sim, uint32_t index, uint8_t op)
{
    uint64_t dead[NODES_MAX];
    struct core_event e = {0};
    uint8_t via = pick_member(sim, SPARE);
    struct op_job *j = &sim->config.job[index];
    e.u.admin.op = op;
    e.u.admin.node = sim->node[j->target].id;
    e.u.admin.nodes = dead;
    for (uint8_t i = 0; i < sim->node_count; i++)
        if (via != SPARE && sim->node[i].permanent_dead &&
            cfg_find(&sim->node[via].disk.cfg, sim->node[i].id))
            dead[e.u.admin.count++] = sim->node[i].id;
    if (via == SPARE || !known_to_all(sim, via)) {
        again(sim, index, 3 * SEC);
        return;
    }
    if (op == ADMIN_FORCE_FENCE)
        sim->config.forced[j->target] = sim->node[j->target].disk.meta.epoch;
    for (uint32_t i = 0; i < e.u.admin.count; i++)
        sworn_off(sim, dead[i]);
    sworn_off(sim, op == ADMIN_FORCE_FENCE ? e.u.admin.node : 0);
    say(sim, index, via, &e);
}

static void leave(struct sim *sim, uint32_t index)
{
    struct op_job *j = &sim->config.job[index];
    if (j->stage == 0 && !may_go(sim, j->target)) {
        if (sim->o.plain && ++j->tries < 30)
            again(sim, index, SEC); /* a scenario wants it gone */
        else
            finish(sim, index);
        return;
    }
    if (j->stage == 0)
        kill_for_ever(sim, j->target);
    j->stage = 1;
    if (sim->healed && j->tries >= FORCE_AFTER && sim->node[j->target].permanent_dead)
        force(sim, index, ADMIN_FORCE_CONFIG);
    else
        change(sim, index, CFG_REMOVE, j->target, 0);
}

static void replace(struct sim *sim, uint32_t index)
{
    struct op_job *j = &sim->config.job[index];
    if (j->stage == 0) {
        j->with = pick_spare(sim);
        if (j->with == SPARE || !may_go(sim, j->target)) {
            finish(sim, index);
            return;
        }
        kill_for_ever(sim, j->target);
        uint8_t name = sim->config.named[j->target]; /* it may have replaced another */
        sim->config.named[j->with] = name ? name : (uint8_t)(j->target + 1);
        sim->config.joined[j->with] = true;
        j->stage = 1;
    }
    if (sim->node[j->with].permanent_dead) { /* it came, and was lost since */
        finish(sim, index);
        return;
    }
    if (sim->healed && j->tries >= 2 * FORCE_AFTER && member(sim, j->target))
        force(sim, index, ADMIN_FORCE_CONFIG);
    else
        change(sim, index, CFG_ADD, j->with, (uint8_t)(sim->config.named[j->with] - 1));
}

static void drain(struct sim *sim, uint32_t index, uint8_t op)
{
    struct core_event e = {0};
    uint8_t target = sim->config.job[index].target, via = pick_member(sim, SPARE);
    if (via == SPARE || !member(sim, target) ||
        (op == ADMIN_DRAIN && stores_left(sim, target) < 2)) {
        finish(sim, index);
        return;
    }
    e.u.admin.op = op;
    e.u.admin.node = sim->node[target].id;
    say(sim, index, via, &e);
}

/* A node that was removed is switched on again: nobody may take it for a member. */
static void come_back(struct sim *sim, uint32_t index)
{
    uint8_t target = sim->config.job[index].target;
    struct node *n = &sim->node[target];
    /* one that believes in static mode was sworn to be off: a false oath */
    bool sworn = n->disk.cfg.mode == MODE_STATIC;
    if (n->permanent_dead && !sworn && !member(sim, target) &&
        sim->config.joined[target]) {
        n->permanent_dead = false;
        sim->r.returned++;
        node_start(sim, target);
    }
    finish(sim, index);
}

static void one_change(struct sim *sim, uint32_t index, uint8_t op)
{
    struct op_job *j = &sim->config.job[index];
    if (!member(sim, j->target) || sim->node[j->target].permanent_dead)
        finish(sim, index);
    else
        change(sim, index, op, j->target, j->target);
}

static void add(struct sim *sim, uint32_t index)
{
    struct op_job *j = &sim->config.job[index];
    if (j->stage == 0)
        j->with = sim->config.joined[j->target] ? pick_spare(sim) : j->target;
    if (j->with == SPARE || sim->node[j->with].permanent_dead ||
        sim_newest(sim)->count == 0) {
        finish(sim, index);
        return;
    }
    sim->config.joined[j->with] = true;
    j->stage = 1;
    change(sim, index, CFG_ADD, j->with, j->with);
}

static void switch_on(struct sim *sim, uint8_t i)
{
    uint64_t deaf = sim_below(rng(sim), 20 * SEC);
    sim->config.off[i] = false;
    for (uint8_t j = 0; j < sim->node_count; j++)
        if (j != i && !sim->healed)
            sim->link[j][i].cut_until = sim->now + deaf;
    sim_at(sim, sim->now, SE_START, i, 0, 0, 0); /* we may be in another one's step */
}

/* Two thirds of the cluster go on, the operator swears that the rest is off; which it is,
 * until it is switched on, hears nothing, and still believes in static mode. */
static void mode_off(struct sim *sim, uint32_t index)
{
    struct op_job *j = &sim->config.job[index];
    struct core_event e = {0};
    uint8_t via = pick_member(sim, j->target);
    struct node *n = &sim->node[j->target];
    if (j->stage == 0 &&
        (sim_newest(sim)->mode != MODE_STATIC || sim_newest(sim)->count < 3 ||
            n->permanent_dead || sim->healed)) {
        finish(sim, index);
        return;
    }
    if (sim->healed && j->tries >= FORCE_AFTER) { /* it is not to be */
        finish(sim, index);
        switch_on(sim, j->target);
        return;
    }
    j->stage = 1;
    sim->config.off[j->target] = true;
    node_crash(sim, j->target, "switched off");
    if (via == SPARE) {
        j->tries++;
        again(sim, index, 3 * SEC);
        return;
    }
    e.u.admin.op = ADMIN_CHANGE;
    e.u.admin.change.op = CFG_MODE;
    e.u.admin.change.mode = MODE_QUORUM;
    e.u.admin.change.off = n->id;
    sworn_off(sim, n->id);
    say(sim, index, via, &e);
}

/* A member of a static cluster that is no voter could never deliver what it has. */
static void settle(struct sim *sim, uint32_t index)
{
    const struct core_cfg *c = sim_newest(sim);
    if (c->mode == MODE_STATIC && !(c->flags & CFG_AUTO_VOTERS) &&
        cfg_voters(c) < c->count)
        change(sim, index, CFG_MODE, 0, 0);
    else
        finish(sim, index);
}

void operator_event(struct sim *sim, const struct sim_event *e)
{
    struct op_job *j = &sim->config.job[e->x];
    if (j->done || sim->now < j->until)
        return;
    switch ((enum op_kind)j->kind) {
    case OP_INIT:
        birth(sim, e->x);
        break;
    case OP_ADD:
        add(sim, e->x);
        break;
    case OP_LEAVE:
        leave(sim, e->x);
        break;
    case OP_REPLACE:
        replace(sim, e->x);
        break;
    case OP_VOTE:
        one_change(sim, e->x, CFG_ROLES);
        break;
    case OP_COPIES:
        one_change(sim, e->x, CFG_COPIES);
        break;
    case OP_MODE:
        one_change(sim, e->x, CFG_MODE);
        break;
    case OP_DRAIN:
        drain(sim, e->x, ADMIN_DRAIN);
        break;
    case OP_UNDRAIN:
        drain(sim, e->x, ADMIN_UNDRAIN);
        break;
    case OP_RETURN:
        come_back(sim, e->x);
        break;
    case OP_KILL:
        if (may_go(sim, j->target))
            kill_for_ever(sim, j->target);
        finish(sim, e->x);
        break;
    case OP_MODE_OFF:
        mode_off(sim, e->x);
        break;
    case OP_SETTLE:
        settle(sim, e->x);
        break;
    case OP_FORCE_FENCE:
        force(sim, e->x, ADMIN_FORCE_FENCE);
        break;
    case OP_FORCE_CONFIG:
        force(sim, e->x, ADMIN_FORCE_CONFIG);
        break;
    }
}

void operator_paxos(struct sim *sim, uint8_t i)
{
    if (sim->o.paxos_deaf && sim->config.paxos_stores++ == sim->o.seed % 12)
        for (uint8_t j = 0; j < sim->node_count; j++)
            if (j != i)
                sim->link[j][i].cut_until = sim->now + 40 * SEC;
    if (sim->o.paxos_crash && sim->config.paxos_stores++ == sim->o.seed % 12) {
        sim->r.paxos_kills |= 1u << sim->o.seed % 12;
        uint64_t at = sim->now + sim_below(rng(sim), 2 * sim->disk_max);
        sim_at(sim, at, SE_CRASH, i, sim->node[i].gen, 0, 0);
        sim_at(sim, at + 3 * SEC, SE_START, i, 0, 0, 0);
    }
    if (sim->config.shape == WORLD_FIXED || sim->healed || sim->o.plain)
        return;
    uint64_t soon = sim->now + sim_below(rng(sim), 2 * sim->disk_max);
    uint64_t long_ns = 1 + sim_below(rng(sim), 15 * SEC);
    switch (sim_below(rng(sim), 24)) {
    case 0:
        sim_at(sim, soon, SE_CRASH, i, sim->node[i].gen, 0, 0);
        sim_at(sim, soon + long_ns, SE_START, i, 0, 0, 0);
        break;
    case 1:
    case 2:
        TRACE(sim, "n%u is deaf for %.1f s", i, (double)long_ns / 1e9);
        for (uint8_t j = 0; j < sim->node_count; j++)
            if (j != i && sim->link[j][i].cut_until < sim->now + long_ns)
                sim->link[j][i].cut_until = sim->now + long_ns;
        break;
    case 3:
        TRACE(sim, "n%u is mute for %.1f s", i, (double)long_ns / 1e9);
        for (uint8_t j = 0; j < sim->node_count; j++)
            if (j != i && sim->link[i][j].cut_until < sim->now + long_ns)
                sim->link[i][j].cut_until = sim->now + long_ns;
        break;
    default:
        break;
    }
}

/* Whether it is worth saying again: what must happen, and what may fail for a while. */
static bool insist(const struct sim *sim, const struct op_job *j)
{
    if (j->kind == OP_LEAVE || j->kind == OP_REPLACE || j->kind == OP_INIT ||
        j->kind == OP_MODE_OFF || j->kind == OP_FORCE_FENCE || j->kind == OP_FORCE_CONFIG)
        return j->tries < 60;
    return j->tries < 5 && (!sim->healed || j->kind == OP_SETTLE);
}

void operator_answer(struct sim *sim, const struct core_command *c)
{
    uint32_t index = (uint32_t)(c->u.admin.token >> 8);
    struct op_job *j = &sim->config.job[index];
    TRACE(sim, "OPERATOR hears %u: %s", c->u.admin.result,
        c->u.admin.why ? c->u.admin.why : "done");
    if (index >= sim->config.job_count || j->done ||
        (c->u.admin.token & 0xff) != j->tries)
        return;
    sim->config.answers[c->u.admin.result & 3]++;
    bool end = c->u.admin.result == ADMIN_OK || !insist(sim, j);
    if (end)
        finish(sim, index);
    if (end && j->kind == OP_MODE_OFF)
        switch_on(sim, j->target);
    if (!end)
        again(sim, index, 2 * SEC + sim_below(rng(sim), 6 * SEC));
}

/* After the heal whoever is dead for ever is taken out, by force if there is no other
 * way. */
void operator_heal(struct sim *sim)
{
    if (sim->config.shape == WORLD_FIXED)
        return;
    operator_job(sim, OP_SETTLE, 0, sim->now + 60 * SEC);
    operator_job(sim, OP_SETTLE, 0, sim->now + 250 * SEC);
    operator_job(sim, OP_SETTLE, 0, sim->now + 450 * SEC);
    for (uint8_t i = 0; i < sim->node_count; i++) {
        if (!sim->node[i].permanent_dead || !member(sim, i))
            continue;
        bool going = false;
        for (uint32_t k = 0; k < sim->config.job_count; k++) {
            const struct op_job *j = &sim->config.job[k];
            going |= !j->done && j->stage && j->target == i &&
                     (j->kind == OP_LEAVE || j->kind == OP_REPLACE);
        }
        if (going)
            continue;
        operator_job(sim, OP_LEAVE, i, sim->now + SEC);
        sim->config.job[sim->config.job_count - 1].stage = 1;
    }
}

/* The operator's part is over. */
bool operator_quiet(const struct sim *sim)
{
    for (uint32_t k = 0; k < sim->config.job_count; k++)
        if (!sim->config.job[k].done && sim->config.job[k].kind != OP_SETTLE)
            return false;
    for (uint8_t i = 0; i < sim->node_count; i++)
        if (sim->node[i].permanent_dead && sim->config.shape != WORLD_FIXED &&
            member(sim, i))
            return false;
    return true;
}

void operator_fault(struct sim *sim, const struct fault *f)
{
    operator_job(sim, (uint8_t)f->arg, f->b, sim->now);
}
