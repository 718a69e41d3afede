/* SPDX-License-Identifier: Apache-2.0 */
/* The world outside: clients that retry without 250, destinations with moods. */
#include "tests/sim/profile.h"

#include <string.h>

/* ---- register of all units that ever were ---- */

static uint32_t slot_of(const struct core_unit_id *id)
{
    uint64_t h =
        (id->hi * 7 ^ id->lo ^ (uint64_t)id->part << 9) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(h >> 40) % (UNITS_MAX * 2);
}

struct god_unit *world_unit(struct sim *sim, const struct core_unit_id *id)
{
    for (uint32_t s = slot_of(id); sim->unit_hash[s]; s = (s + 1) % (UNITS_MAX * 2)) {
        struct god_unit *g = &sim->unit[sim->unit_hash[s] - 1];
        if (g->id.lo == id->lo && g->id.hi == id->hi && g->id.part == id->part)
            return g;
    }
    return NULL;
}

void world_register(
    struct sim *sim, uint8_t node, uint64_t handle, const struct unit_row *row)
{
    struct mail *m = &sim->mail[handle >> 8];
    struct submission *s = &m->sub[(handle & 0xff) - 1];
    struct god_unit *old = world_unit(sim, &row->id);
    if (old) { /* a DSN made again */
        const struct node *maker = &sim->node[old->node];
        old->twice |= old->node != node || old->epoch != row->owner_epoch;
        if (!maker->alive || maker->core->epoch != old->epoch)
            old->remade_at = sim->now;
        old->forgot = false;
        s->first_unit = (uint32_t)(old - sim->unit);
        s->unit_count = 1;
    }
    if (old || sim->unit_count == UNITS_MAX)
        return;
    if (s->unit_count++ == 0)
        s->first_unit = sim->unit_count;
    struct god_unit *g = &sim->unit[sim->unit_count++];
    memset(g, 0, sizeof(*g));
    g->id = row->id;
    g->mail = (uint32_t)(handle >> 8);
    g->submission = (uint32_t)(handle & 0xff) - 1;
    g->rcpts = row->rcpt_count;
    g->node = node;
    g->epoch = row->owner_epoch;
    g->is_dsn = row->flags & UNIT_IS_DSN;
    uint32_t h = slot_of(&row->id);
    while (sim->unit_hash[h])
        h = (h + 1) % (UNITS_MAX * 2);
    sim->unit_hash[h] = sim->unit_count;
    TRACE(sim, "n%u accepts " UID " for mail %u.%u", node, UIDV(&row->id), g->mail,
        g->submission);
}

/* ---- clients ---- */

void world_init(struct sim *sim)
{
    const struct sim_options *o = &sim->o;
    uint64_t *rng = &sim->rng_world;
    sim->mail_count = o->mails ? o->mails : 10 + (uint32_t)sim_below(rng, 40);
    uint64_t phase =
        o->fault_phase ? o->fault_phase : 30 * SEC + sim_below(rng, 90 * SEC);
    sim->heal_at = phase;
    sim->defer_ppm = (uint32_t)sim_below(rng, 200000);
    if (o->defer_ppm)
        sim->defer_ppm = o->defer_ppm;
    sim->fail_ppm = (uint32_t)sim_below(rng, 100000);
    sim->lost_reply_ppm = sim_below(rng, 3) == 0 ? 30000 : 0;
    if (o->clean_network)
        sim->lost_reply_ppm = 0; /* D7 would hide what a scenario looks for */
    for (uint32_t i = 0; i < sim->mail_count; i++) {
        struct mail *m = &sim->mail[i];
        m->at = 2 * SEC + sim_below(rng, phase - 2 * SEC);
        m->parts = (uint8_t)(1 + (sim_below(rng, 4) == 0 ? sim_below(rng, 3) : 0));
        for (int p = 0; p < m->parts; p++)
            m->rcpts[p] = (uint8_t)(1 + sim_below(rng, RCPTS_MAX));
        m->size = sim_below(rng, 5) == 0 ? 200000 : 4000;
        if (sim_below(rng, 50) == 0)
            m->size = 12000000;
        if (o->size)
            m->size = o->size;
        bool off = o->mail_mask[i / 8] >> (i % 8) & 1;
        if (!off)
            sim_at(sim, m->at, SE_CLIENT, 0, 0, i, 0);
        else
            m->done = true;
    }
}

static uint8_t pick_node(struct sim *sim)
{
    if (sim->o.share)
        return sim->node[0].alive ? 0 : NODES_MAX;
    uint8_t i = (uint8_t)sim_below(&sim->rng_world, sim->node_count);
    for (uint8_t k = 0; k < sim->node_count;
         k++, i = (uint8_t)((i + 1) % sim->node_count))
        if (sim->node[i].alive &&
            (sim->node[i].core->peer[sim->node[i].core->self].roles & ROLE_STORE) &&
            sim->node[i].paused_until <= sim->now)
            return i;
    return NODES_MAX;
}

/* Seconds; every node has the same. */
uint64_t wall_s(const struct sim *sim)
{
    bool jumped = sim->o.wall_jump_s && sim->now >= sim->o.wall_jump_s * SEC;
    return 1700000000 + sim->now / SEC + (jumped ? 3 * 86400 : 0);
}

static void client_try(struct sim *sim, uint32_t index, uint32_t try)
{
    struct mail *m = &sim->mail[index];
    if (m->done || try != m->tries)
        return;
    if (sim->no_accept) {
        m->done = true;
        return;
    }
    if (m->tries == 12) {
        m->done = true; /* the client gives up, and bounces it to its user */
        return;
    }
    uint8_t node = pick_node(sim);
    sim_at(sim, sim->now + 35 * SEC, SE_CLIENT, 0, 0, index, try + (node != NODES_MAX));
    if (node == NODES_MAX)
        return;
    struct submission *s = &m->sub[m->tries];
    memset(s, 0, sizeof(*s));
    s->node = node;
    s->gen = sim->node[node].gen;
    s->at = sim->now;
    m->tries++;
    struct core_event e = {.kind = EV_ACCEPT};
    e.u.accept.handle = (uint64_t)index << 8 | m->tries;
    e.u.accept.wall_ms = 1700000000000 + sim->now / MS;
    e.u.accept.expires_s = 1700000000 + 400000;
    if (sim->o.expires_s)
        e.u.accept.expires_s = (uint32_t)(wall_s(sim) + sim->o.expires_s);
    e.u.accept.size_bytes = m->size;
    e.u.accept.part_count = m->parts;
    memcpy(e.u.accept.rcpts, m->rcpts, sizeof(m->rcpts));
    node_step(sim, node, &e);
    if (sim_below(&sim->rng_world, 50) == 0) { /* the client's connection breaks */
        struct core_event gone = {.kind = EV_ACCEPT_GONE};
        gone.u.accept.handle = e.u.accept.handle;
        node_step(sim, node, &gone);
    }
}

void world_reply(struct sim *sim, uint8_t node, uint64_t handle, uint8_t reply,
    const struct core_unit_id *id)
{
    struct mail *m = &sim->mail[handle >> 8];
    struct submission *s = &m->sub[(handle & 0xff) - 1];
    (void)id;
    if (handle >> 8 >= MAILS_MAX) {
        dsn_reply(sim, node, handle, reply);
        return;
    }
    if (s->reply)
        sim_fail(sim, 3, "two replies to one submission at n%u", node);
    s->reply = reply;
    if (reply == REPLY_250) {
        sim->r.accepted++;
        oracle_250(sim, node, s);
    } else {
        sim->r.refused++;
        if (reply == REPLY_451)
            oracle_451(sim, node, s);
    }
    TRACE(sim, "n%u replies %u to mail %u", node, reply, (unsigned)(handle >> 8));
    bool lost = sim_chance(&sim->rng_world, 20000) && !sim->healed;
    if (reply == REPLY_250 && !sim->killed_one) {
        faults_step(sim, KILL_250, node);
        lost |= sim->killed_one;
    }
    s->heard = reply == REPLY_CLOSE || lost ? CLIENT_CLOSE
               : reply == REPLY_250         ? CLIENT_250
                                            : CLIENT_451;
    if (s->heard == CLIENT_250) {
        m->done = true;
        faults_step(sim, KILL_HEARD, node);
    } else
        sim_at(sim, sim->now + 2 * SEC + sim_below(&sim->rng_world, 10 * SEC), SE_CLIENT,
            0, 0, (uint32_t)(handle >> 8), m->tries);
}

/* ---- scheduling at a node ---- */

static void schedule(
    struct sim *sim, uint8_t node, const struct core_unit_id *id, uint64_t at)
{
    struct node *n = &sim->node[node];
    uint32_t free_slot = NIL;
    uint32_t cap = sizeof(n->sched) / sizeof(n->sched[0]);
    for (uint32_t i = 0; i < cap; i++) {
        if (!n->sched[i].used) {
            free_slot = free_slot == NIL ? i : free_slot;
        } else if (memcmp(&n->sched[i].id, id, sizeof(*id)) == 0) {
            free_slot = i;
            break;
        }
    }
    if (free_slot == NIL)
        return;
    n->sched[free_slot].used = true;
    n->sched[free_slot].id = *id;
    n->sched[free_slot].at = at;
    sim_at(sim, at, SE_SCHED, node, n->gen, free_slot, 0);
}

void world_start(struct sim *sim, uint8_t node, const struct core_command *c)
{
    struct god_unit *g = world_unit(sim, &c->u.unit.id);
    if (g && (g->own_gen[node] != sim->node[node].gen ||
                 g->own_epoch[node] != sim->node[node].core->epoch)) {
        g->own_gen[node] = sim->node[node].gen;
        g->own_epoch[node] = sim->node[node].core->epoch;
        g->doubt_at_own[node] = c->u.unit.doubt;
        const struct unit *u = unit_find(sim->node[node].core, &c->u.unit.id);
        g->doubt_attempt[node] = u ? u->attempt : 0;
        g->hold_from[node] = sim->now;
        oracle_own(sim, node, &c->u.unit.id, c->u.unit.doubt);
    }
    schedule(sim, node, &c->u.unit.id,
        sim->now + 5 * MS + sim_below(&sim->rng_world, 300 * MS));
}

void world_cancel(struct sim *sim, uint8_t node, const struct core_command *c)
{
    struct node *n = &sim->node[node];
    bool all = c->u.unit.id.hi == 0;
    for (uint32_t i = 0; i < sizeof(n->sched) / sizeof(n->sched[0]); i++)
        if (n->sched[i].used && (all || memcmp(&n->sched[i].id, &c->u.unit.id,
                                            sizeof(struct core_unit_id)) == 0))
            n->sched[i].used = false;
    struct god_unit *g = all ? NULL : world_unit(sim, &c->u.unit.id);
    if (g)
        g->own_gen[node] = 0;
}

static void run_sched(struct sim *sim, const struct sim_event *e)
{
    struct node *n = &sim->node[e->node];
    struct sched *s = &n->sched[e->x];
    if (n->gen != e->gen || !n->alive || !s->used || s->at != e->at)
        return;
    if (n->paused_until > sim->now) {
        s->at = n->paused_until + 5 * MS;
        sim_at(sim, s->at, SE_SCHED, e->node, e->gen, e->x, 0);
        return;
    }
    struct core_event ev = {.kind = EV_INTENT_REQ};
    ev.u.attempt.id = s->id;
    ev.u.attempt.rcpts = ~UINT64_C(0);
    node_step(sim, e->node, &ev);
}

/* What the node says of its load: everything in its schedule waits, at most ten go. */
void world_load(struct sim *sim, uint8_t i)
{
    const struct node *n = &sim->node[i];
    struct core_load load = {0, 0};
    uint8_t value[CORE_LOAD_BYTES];
    for (uint32_t k = 0; k < sizeof(n->sched) / sizeof(n->sched[0]); k++)
        load.ready += n->sched[k].used;
    load.spare = load.ready < 200 ? 200 - load.ready : 0;
    core_load_put(&load, value);
    struct core_event e = {.kind = EV_ROW};
    e.u.row.key = CORE_ROW_LOAD;
    e.u.row.length = CORE_LOAD_BYTES;
    e.u.row.value = value;
    node_step(sim, i, &e);
}

/* ---- attempts ---- */

void world_attempt(struct sim *sim, uint8_t node, const struct core_command *c)
{
    struct node *n = &sim->node[node];
    const struct unit *u = unit_find(n->core, &c->u.unit.id);
    if (c->u.unit.rcpts == 0) {
        if (u && unit_believes(n->core, u) && u->state == UNIT_LIVE)
            schedule(sim, node, &c->u.unit.id,
                sim->now + SEC + sim_below(&sim->rng_world, SEC));
        return;
    }
    struct god_unit *g = world_unit(sim, &c->u.unit.id);
    if (sim->attempt_count == ATTEMPTS_MAX || !g)
        return;
    struct attempt *a = &sim->attempt[sim->attempt_count];
    memset(a, 0, sizeof(*a));
    a->id = c->u.unit.id;
    a->attempt = c->u.unit.attempt;
    a->rcpts = c->u.unit.rcpts;
    a->unit = (uint32_t)(g - sim->unit);
    a->node = node;
    a->gen = n->gen;
    a->epoch = n->core->epoch;
    a->started = sim->now;
    for (int i = 0; u && i < u->list_count; i++) {
        uint8_t h = sim_node_of(sim, n->core->peer[u->list[i]].node);
        if (h < NODES_MAX && unit_status(u, i) == LIST_RELEASING)
            a->leaving = (uint8_t)(a->leaving | 1u << h);
    }
    if (g->node != node && !(g->tried >> node & 1) && !g->doubt_at_own[node] &&
        !sim->healed && sim->now - g->hold_from[node] > sim->r.heir_wait)
        sim->r.heir_wait = sim->now - g->hold_from[node];
    g->tried = (uint8_t)(g->tried | 1u << node);
    uint64_t connect = 20 * MS + sim_below(&sim->rng_world, 300 * MS);
    if (sim_below(&sim->rng_world, 20) == 0)
        connect += sim_below(&sim->rng_world, 10 * SEC);
    if (sim->o.slow_s)
        connect += sim_below(&sim->rng_world, sim->o.slow_s * SEC);
    TRACE(sim, "n%u attempt %llx on " UID " rcpts %llx", node,
        (unsigned long long)a->attempt, UIDV(&a->id), (unsigned long long)a->rcpts);
    sim_at(sim, sim->now + connect, SE_GATE, node, n->gen, sim->attempt_count++, 0);
}

void world_intent_ok(struct sim *sim, uint8_t node, const struct core_command *c)
{
    for (uint32_t i = sim->attempt_count; i-- > 0;)
        if (sim->attempt[i].node == node &&
            sim->attempt[i].attempt == c->u.unit.attempt) {
            sim->attempt[i].intent_ok = true;
            sim->attempt[i].listed = oracle_listed(sim, node, &c->u.unit.id);
            return;
        }
}

static void tell(struct sim *sim, struct attempt *a, uint8_t kind)
{
    struct node *n = &sim->node[a->node];
    struct core_event e = {.kind = kind};
    e.u.attempt.id = a->id;
    e.u.attempt.attempt = a->attempt;
    e.u.attempt.rcpts = a->rcpts;
    e.u.attempt.delivered = a->reply_lost ? 0 : a->delivered;
    e.u.attempt.failed = a->reply_lost ? 0 : a->failed;
    e.u.attempt.doubt = a->reply_lost ? a->rcpts : 0;
    node_step(sim, a->node, &e);
    if (!a->reply_lost)
        sim->unit[a->unit].failed |= a->failed;
    if (!n->alive)
        return;
    const struct unit *u = unit_find(n->core, &a->id);
    if (u && unit_believes(n->core, u) && u->state == UNIT_LIVE)
        schedule(sim, a->node, &a->id,
            sim->now +
                (a->reply_lost                   ? 20
                    : sim->now < sim->held_until ? 40
                                                 : 2) *
                    SEC +
                sim_below(&sim->rng_world, 5 * SEC));
}

static bool gate_open(struct sim *sim, const struct attempt *a)
{
    const struct node *n = &sim->node[a->node];
    const struct core_gate_value *g = &n->gate;
    if (sim->o.mutant == MUT_NO_GATE)
        return a->intent_ok;
    bool intent = a->intent_ok || sim->o.mutant == MUT_NO_INTENT;
    return intent && g->epoch == a->epoch && !g->frozen &&
           (g->lease_end_ns == CORE_FOREVER ||
               node_clock(sim, n) + g->dot_margin_ns <= g->lease_end_ns);
}

static void run_gate(struct sim *sim, const struct sim_event *e)
{
    struct attempt *a = &sim->attempt[e->x];
    struct node *n = &sim->node[e->node];
    if (n->gen != e->gen || !n->alive)
        return;
    if (n->paused_until > sim->now) {
        sim_at(sim, n->paused_until + 100, SE_GATE, e->node, e->gen, e->x, 0);
        return;
    }
    if (!a->passed && !world_readable(sim, e->node, &a->id)) {
        a->gone = true;
        tell(sim, a, EV_ATTEMPT_GONE);
        return;
    }
    if (gate_open(sim, a)) {
        a->passed = true;
        a->gate_at = sim->now;
        a->unbounded = n->gate.lease_end_ns == CORE_FOREVER;
        oracle_gate(sim, a);
        faults_step(sim, KILL_GATE, e->node);
        uint64_t wait = sim_below(&sim->rng_world, 50 * MS);
        if (sim_below(&sim->rng_world, 10) == 0) /* a slow write, within D_dot */
            wait = sim_below(&sim->rng_world, sim->params.dot_margin_ns * 8 / 10);
        a->kernel = sim_below(&sim->rng_world, 100) == 0;
        if (a->kernel) /* it keeps the bytes */
            wait = sim_below(&sim->rng_world, sim->params.doubt_ns / 2);
        sim_at(sim, sim->now + wait, SE_DOT, e->node, e->gen, e->x, 0);
        return;
    }
    if (sim->now > a->started + 30 * SEC) {
        a->gone = true;
        tell(sim, a, EV_ATTEMPT_GONE);
        return;
    }
    sim_at(sim, sim->now + 200 * MS, SE_GATE, e->node, e->gen, e->x, 0);
}

static void run_dot(struct sim *sim, const struct sim_event *e)
{
    struct attempt *a = &sim->attempt[e->x];
    struct god_unit *g = &sim->unit[a->unit];
    struct node *n = &sim->node[e->node];
    if (n->freezing) { /* with its machine, the kernel too */
        a->frozen_between = true;
        sim_at(sim, n->freeze_end + 1000, SE_DOT, e->node, e->gen, e->x, 0);
        return;
    }
    a->dot_at = sim->now;
    profile_moment(sim, ON_DOT, 0, e->node, e->node);
    oracle_dot(sim, a);
    bool defer_all = sim->now < sim->o.defer_until_s * SEC ||
                     (sim->healed && sim->now < sim->held_until) ||
                     (!sim->healed && sim_chance(&sim->rng_world, sim->defer_ppm));
    for (int r = 0; r < g->rcpts; r++) {
        if (!(a->rcpts >> r & 1))
            continue;
        uint64_t bit = UINT64_C(1) << r;
        if (defer_all)
            a->deferred |= bit;
        else if (sim_chance(&sim->rng_world, sim->fail_ppm))
            a->failed |= bit;
        else
            a->delivered |= bit;
        if (a->delivered & bit)
            oracle_delivered(sim, a, g, r);
    }
    a->reply_lost = sim_chance(&sim->rng_world, sim->lost_reply_ppm) && !sim->healed;
    uint64_t wait = 10 * MS + sim_below(&sim->rng_world, 300 * MS);
    if (sim_below(&sim->rng_world, 10) == 0)
        wait = sim_below(&sim->rng_world, 5 * SEC);
    if (sim->o.slow_s)
        wait += sim_below(&sim->rng_world, sim->o.slow_s * SEC);
    if (a->reply_lost)
        wait = 10 * SEC;
    if (a->delivered)
        faults_step(sim, KILL_DOT, e->node);
    sim_at(sim, sim->now + wait, SE_REPLY, e->node, e->gen, e->x, 0);
}

static void run_reply(struct sim *sim, const struct sim_event *e)
{
    struct attempt *a = &sim->attempt[e->x];
    struct node *n = &sim->node[e->node];
    if (n->gen != e->gen || !n->alive)
        return;
    if (n->paused_until > sim->now) {
        sim_at(sim, n->paused_until + 5 * MS, SE_REPLY, e->node, e->gen, e->x, 0);
        return;
    }
    bool before = sim->killed_one;
    if (a->delivered)
        faults_step(sim, KILL_REPLY, e->node);
    if (sim->killed_one && !before)
        return; /* it dies before it can say so */
    if (dsn_owed(sim, a, e))
        return;
    a->gone = true;
    tell(sim, a, EV_OUTCOME);
}

static void run_steal(struct sim *sim, const struct sim_event *e)
{
    struct node *n = &sim->node[e->node];
    if (sim->now >= n->steal_until || !n->alive || n->gen != e->gen)
        return;
    sim_at(sim, sim->now + 100 * MS + sim_below(&sim->rng_world, 400 * MS), SE_STEAL,
        e->node, e->gen, 0, 0);
    struct core *core = n->core;
    if (core->unit_high == 0 || n->paused_until > sim->now)
        return;
    const struct unit *u = &core->unit[sim_below(&sim->rng_world, core->unit_high)];
    if (!(u->flags & UF_USED) || !unit_believes(core, u) || u->list_count < 2)
        return;
    uint8_t slot = u->list[sim_below(&sim->rng_world, u->list_count)];
    struct core_event ev = {.kind = EV_STEAL_HINT};
    ev.u.steal.id = unit_id(u);
    ev.u.steal.peer = core->peer[slot].node;
    if (slot != core->self)
        node_step(sim, e->node, &ev);
}

static void damaged(struct sim *sim, uint8_t node, const struct core_unit_id *id)
{
    struct core_event ev = {.kind = EV_DAMAGED};
    ev.u.damaged.id = *id;
    ev.u.damaged.mail = true;
    TRACE(sim, "n%u finds " UID " damaged", node, UIDV(id));
    node_step(sim, node, &ev);
}

/* Reads all that is on the disk. */
static void scrub(struct sim *sim, uint8_t i)
{
    struct node *n = &sim->node[i];
    struct core_unit_id bad[16];
    uint32_t count = 0;
    if (!n->alive || n->core->state < CORE_EPOCH)
        return;
    for (uint32_t k = 0; k < n->disk.unit_count && count < 16; k++)
        if (n->disk.mail[k] == MAIL_ROTTEN)
            bad[count++] = n->disk.unit[k].id;
    for (uint32_t k = 0; k < count && n->alive; k++)
        damaged(sim, i, &bad[k]);
    if (count)
        sim_at(sim, sim->now + 5 * SEC, SE_SCRUB, i, 0, 0, 0);
}

/* Checksums are read before mail goes out, to a peer or to its destination. */
bool world_readable(struct sim *sim, uint8_t node, const struct core_unit_id *id)
{
    if (disk_mail(&sim->node[node].disk, id) != MAIL_ROTTEN)
        return true;
    sim_at(sim, sim->now, SE_SCRUB, node, 0, 0, 0);
    return false;
}

void world_event(struct sim *sim, const struct sim_event *e)
{
    switch (e->kind) {
    case SE_CLIENT:
        client_try(sim, e->x, e->y);
        break;
    case SE_SCHED:
        run_sched(sim, e);
        break;
    case SE_GATE:
        run_gate(sim, e);
        break;
    case SE_DOT:
        run_dot(sim, e);
        break;
    case SE_REPLY:
        run_reply(sim, e);
        break;
    case SE_STEAL:
        run_steal(sim, e);
        break;
    case SE_SCRUB:
        scrub(sim, e->node);
        break;
    default:
        break;
    }
}
