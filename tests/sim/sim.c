/* SPDX-License-Identifier: Apache-2.0 */
/* The loop: a heap of events, one seed. */
#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t sim_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t sim_below(uint64_t *state, uint64_t n)
{
    return n ? sim_random(state) % n : 0;
}

bool sim_chance(uint64_t *state, uint32_t ppm)
{
    return sim_below(state, 1000000) < ppm;
}

uint8_t sim_node_of(const struct sim *sim, uint64_t id)
{
    for (uint8_t i = 0; i < sim->node_count; i++)
        if (sim->node[i].id == id && !sim->node[i].old_image)
            return i;
    return NODES_MAX;
}

/* ---- failure and trace ---- */

void sim_fail(struct sim *sim, int invariant, const char *fmt, ...)
{
    char text[200];
    va_list ap;
    if (sim->r.failed)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    sim->r.failed = true;
    snprintf(sim->r.why, sizeof(sim->r.why), "[I%d] at %.3f s: %s", invariant,
        (double)sim->now / 1e9, text);
    TRACE(sim, "VIOLATION %s", sim->r.why);
}

void sim_trace(struct sim *sim, const char *fmt, ...)
{
    va_list ap;
    if (!sim->trace)
        return;
    char *line = sim->trace + (sim->trace_count++ % TRACE_LINES) * TRACE_WIDTH;
    int n = snprintf(line, TRACE_WIDTH, "%10.4f ", (double)sim->now / 1e9);
    va_start(ap, fmt);
    vsnprintf(line + n, TRACE_WIDTH - (size_t)n, fmt, ap);
    va_end(ap);
}

/* ---- heap ---- */

static bool earlier(const struct sim_event *a, const struct sim_event *b)
{
    return a->at != b->at ? a->at < b->at : a->tie < b->tie;
}

void sim_at(struct sim *sim, uint64_t at, enum sim_event_kind kind, uint8_t node,
    uint32_t gen, uint32_t x, uint32_t y)
{
    if (sim->heap_count == sim->heap_cap) {
        sim->heap_cap *= 2;
        sim->heap = realloc(sim->heap, sim->heap_cap * sizeof(*sim->heap));
    }
    struct sim_event e = {
        at < sim->now ? sim->now : at, sim->tie++, (uint8_t)kind, node, gen, x, y};
    uint32_t pos = sim->heap_count++;
    while (pos > 0 && earlier(&e, &sim->heap[(pos - 1) / 2])) {
        sim->heap[pos] = sim->heap[(pos - 1) / 2];
        pos = (pos - 1) / 2;
    }
    sim->heap[pos] = e;
}

static struct sim_event pop(struct sim *sim)
{
    struct sim_event top = sim->heap[0], last = sim->heap[--sim->heap_count];
    uint32_t pos = 0;
    for (;;) {
        uint32_t child = 2 * pos + 1;
        if (child >= sim->heap_count)
            break;
        if (child + 1 < sim->heap_count &&
            earlier(&sim->heap[child + 1], &sim->heap[child]))
            child++;
        if (!earlier(&sim->heap[child], &last))
            break;
        sim->heap[pos] = sim->heap[child];
        pos = child;
    }
    sim->heap[pos] = last;
    return top;
}

/* ---- setup ---- */

static void choose_cluster(struct sim *sim, uint64_t *rng)
{
    const struct sim_options *o = &sim->o;
    static const uint8_t sizes[] = {3, 3, 3, 3, 4, 4, 5, 5, 2, 1};
    uint8_t n = o->nodes ? o->nodes : sizes[sim_below(rng, sizeof(sizes))];
    uint8_t voters = o->voters                     ? o->voters
                     : n >= 5 && sim_below(rng, 2) ? 5
                     : n >= 3                      ? 3
                                                   : 1;
    struct core_cfg *c = &sim->cfg;
    bool witness = n == 2 && o->mode != MODE_STATIC && !o->voters;
    c->ver = 1;
    c->mode = o->mode ? o->mode : MODE_QUORUM;
    if (witness)
        voters = 3;
    sim->node_count = (uint8_t)(n + witness);
    c->count = sim->node_count;
    c->copies = o->copies                          ? o->copies
                : n >= 4 && sim_below(rng, 3) == 0 ? 3
                : n >= 2                           ? 2
                                                   : 1;
    c->min_copies = o->min_copies            ? o->min_copies
                    : sim_below(rng, 4) == 0 ? 1
                                             : c->copies;
    for (uint8_t i = 0; i < sim->node_count; i++) {
        struct core_member *m = &c->member[i];
        m->node = (sim_random(rng) & ~UINT64_C(0xff)) + i + 1;
        bool vote = i < voters || (witness && i == 2);
        m->roles =
            (uint8_t)((vote ? ROLE_VOTER : 0) | (i < n ? ROLE_STORE | ROLE_EGRESS : 0));
        m->zone = (uint8_t)(i % 3);
        m->weight = 1;
        sim->node[i].id = m->node;
        sim->node[i].exists = true;
    }
}

static void choose_params(struct sim *sim, uint64_t *rng)
{
    const struct sim_options *o = &sim->o;
    struct core_params *p = &sim->params;
    memset(p, 0, sizeof(*p));
    p->lease_ns = (o->lease_s ? o->lease_s : 5 + sim_below(rng, 3) * 5) * SEC;
    p->rho_ppm = 20000;
    p->doubt_ns = (o->doubt_s ? o->doubt_s : 30) * SEC;
    p->own_doubt_ns = 15 * SEC;
    p->stale_ns = (o->stale_s ? o->stale_s : 60) * SEC;
    p->frame_ns = 10 * SEC;
    p->hedge_ns = 300 * MS;
    p->accept_ns = 20 * SEC;
    p->repair_wait_ns = (o->repair_s ? o->repair_s : 10) * SEC;
    p->probe_ns = SEC;
    p->digest_ns = 10 * SEC;
    p->gossip_ns = SEC;
    p->demote_ns = (o->demote_s ? o->demote_s : sim->config.shape ? 20 : 600) * SEC;
    if (!core_params_derive(p))
        sim_fail(sim, 0, "the lease breaks an inequality");
    sim->delay_min = (50 + sim_below(rng, 1000)) * 1000;
    sim->delay_max = sim->delay_min + (1 + sim_below(rng, 20)) * MS;
    sim->dup_ppm = sim_below(rng, 3) == 0 ? 20000 : 0;
    sim->base_loss_ppm = sim_below(rng, 3) == 0 ? (uint32_t)sim_below(rng, 100000) : 0;
    if (o->clean_network)
        sim->dup_ppm = sim->base_loss_ppm = 0;
    sim->disk_min = 200 * 1000;
    sim->disk_max = (1 + sim_below(rng, 20)) * MS;
    sim->buggify = sim_below(rng, 2) ? 1 : 0;
}

static void setup(struct sim *sim)
{
    uint64_t rng = sim->o.seed * UINT64_C(0x2545f4914f6cdd1d) + 1;
    sim_random(&rng);
    choose_cluster(sim, &rng);
    operator_setup(sim);
    sim->o.held &= (sim->o.plain || sim->config.shape == WORLD_FIXED) && !sim->o.liveness;
    choose_params(sim, &rng);
    sim->rng_net = sim_random(&rng);
    sim->rng_disk = sim_random(&rng);
    sim->rng_world = sim_random(&rng);
    sim->rng_fault = sim_random(&rng);
    for (uint8_t i = 0; i < sim->node_count; i++) {
        struct node *n = &sim->node[i];
        n->base_local = (1 + sim_below(&rng, 1000)) * SEC;
        n->rate_ppm = (int32_t)sim_below(&rng, 18000) - 9000;
        if (sim->o.rate_ppm)
            n->rate_ppm = i % 2 ? sim->o.rate_ppm : -sim->o.rate_ppm;
        disk_init(&n->disk);
        n->disk.meta.node = n->id;
        if (cfg_find(&sim->cfg, n->id))
            n->disk.cfg = sim->cfg;
        sim->config.joined[i] |= i < sim->cfg.count || i == 0;
        sim_at(sim, sim_below(&rng, 2 * SEC), SE_START, i, 0, 0, 0);
    }
    world_init(sim);
    faults_plan(sim);
}

static void teardown(struct sim *sim)
{
    for (uint8_t i = 0; i < sim->node_count; i++) {
        for (uint32_t k = 0; k < sim->node[i].disk.count; k++)
            free(sim->node[i].disk.queue[(sim->node[i].disk.head + k) % DISK_QUEUE].cfg);
        free(sim->node[i].mem);
        free(sim->node[i].disk.queue);
        free(sim->node[i].snapshot);
    }
    free(sim->heap);
    free(sim->msg);
    free(sim->msg_next);
    free(sim->msg_sent);
    free(sim->attempt);
    free(sim);
}

/* ---- run ---- */

static void node_event(struct sim *sim, const struct sim_event *e)
{
    struct node *n = &sim->node[e->node];
    if (n->alive && n->paused_until > sim->now &&
        (e->kind == SE_TICK || e->kind == SE_MSG || e->kind == SE_DISK)) {
        /* the process sleeps; what arrives waits, in order */
        sim_at(sim, n->paused_until + (e->kind == SE_TICK ? 0 : 1000), e->kind, e->node,
            e->gen, e->x, e->y);
        return;
    }
    switch ((enum sim_event_kind)e->kind) {
    case SE_TICK:
        node_tick(sim, e->node);
        break;
    case SE_MSG:
        net_deliver(sim, e);
        break;
    case SE_DISK:
        disk_done(sim, e);
        break;
    case SE_START:
        node_start(sim, e->node);
        break;
    case SE_ADMIN:
        operator_event(sim, e);
        break;
    case SE_CRASH:
        if (n->gen == e->gen)
            node_crash(sim, e->node, "planned");
        break;
    case SE_FAULT:
        faults_apply(sim, e->x);
        break;
    case SE_CLIENT:
    case SE_CLIENT_REPLY:
    case SE_SCHED:
    case SE_GATE:
    case SE_DOT:
    case SE_REPLY:
    case SE_STEAL:
    case SE_SCRUB:
        world_event(sim, e);
        break;
    }
}

static uint64_t settle_bound(const struct sim *sim)
{
    uint64_t operator_s = sim->config.shape != WORLD_FIXED ? 600 : 0;
    return 3 * sim->params.lease_ns + sim->params.doubt_ns + sim->params.stale_ns +
           (240 + operator_s) * SEC +
           (sim->held_until ? sim->held_until - sim->heal_at : 0);
}

static void loop(struct sim *sim)
{
    uint64_t check_at = 0;
    while (sim->heap_count && !sim->r.failed) {
        struct sim_event e = pop(sim);
        sim->now = e.at;
        if (!sim->healed && sim->now >= sim->heal_at)
            faults_heal(sim);
        node_event(sim, &e);
        sim->r.events++;
        if (sim->r.events % 256 == 0)
            oracle_sweep(sim);
        if (sim->healed && sim->now >= check_at) {
            check_at = sim->now + SEC;
            if (sim->now >= sim->held_until && sim->held_until && !sim->held_checked)
                oracle_look(sim);
            if (oracle_quiet(sim))
                break;
            if (sim->now > sim->heal_at + settle_bound(sim)) {
                oracle_end(sim);
                sim_fail(sim, 17, "no quiescence within the bound");
            }
        }
        if (sim->r.events > (sim->o.plain ? 20000000u : 3000000u))
            sim_fail(sim, 14, "too many events");
    }
    if (!sim->r.failed)
        oracle_end(sim);
}

void sim_run(const struct sim_options *o, struct sim_result *r, char *trace)
{
    struct sim *sim = calloc(1, sizeof(*sim));
    sim->o = *o;
    sim->trace = trace;
    sim->heap_cap = 4096;
    sim->heap = malloc(sim->heap_cap * sizeof(*sim->heap));
    sim->msg_cap = 256;
    sim->msg = malloc(sim->msg_cap * sizeof(*sim->msg));
    sim->msg_next = malloc(sim->msg_cap * sizeof(*sim->msg_next));
    sim->msg_sent = malloc(sim->msg_cap * sizeof(*sim->msg_sent));
    sim->msg_free = NIL;
    for (uint32_t i = sim->msg_cap; i-- > 0;) {
        sim->msg_next[i] = sim->msg_free;
        sim->msg_free = i;
    }
    sim->attempt = malloc(sizeof(*sim->attempt) * ATTEMPTS_MAX);
    setup(sim);
    loop(sim);
    sim->r.sim_ns = sim->now;
    for (uint8_t i = 0; i < sim->node_count; i++)
        if (sim->node[i].alive)
            sim->r.hash = sim->r.hash * 31 + core_hash(sim->node[i].core);
    *r = sim->r;
    if (trace && sim->trace_count > TRACE_LINES) { /* oldest line first */
        size_t cut = sim->trace_count % TRACE_LINES * TRACE_WIDTH,
               all = TRACE_LINES * TRACE_WIDTH;
        char *copy = malloc(all);
        memcpy(copy, trace + cut, all - cut);
        memcpy(copy + all - cut, trace, cut);
        memcpy(trace, copy, all);
        free(copy);
    }
    teardown(sim);
}
