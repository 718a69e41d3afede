/* SPDX-License-Identifier: Apache-2.0 */
/* What the core costs: the whole life of a message in a cluster of three with two copies,
 * and the memory of a million held units. Stores and frames take no time here. */
#include "cluster/core/core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NODES 3
#define QUEUE 65536

struct item {
    uint8_t to;
    bool stored;
    uint64_t token;
    struct core_msg msg;
};

struct bench {
    struct core *core[NODES];
    struct item *queue;
    uint32_t head, count;
    uint64_t now;
    uint64_t cpu[NODES], done;
    struct core_cfg cfg;
};

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * CORE_SEC + (uint64_t)t.tv_nsec;
}

static void step(struct bench *b, uint8_t n, struct core_event *e);

static struct item *push(struct bench *b, uint8_t to)
{
    if (b->count == QUEUE)
        abort();
    struct item *i = &b->queue[(b->head + b->count++) % QUEUE];
    i->to = to;
    i->stored = false;
    return i;
}

static void deliver(struct bench *b, uint8_t n, const struct core_command *c)
{
    struct core_event e = {.kind = EV_INTENT_REQ};
    e.u.attempt.id = c->u.unit.id;
    e.u.attempt.rcpts = c->u.unit.rcpts;
    e.u.attempt.attempt = c->u.unit.attempt;
    if (c->kind == CMD_INTENT_OK) { /* the dot went out and was answered */
        e.kind = EV_OUTCOME;
        e.u.attempt.rcpts = e.u.attempt.delivered = 1;
        b->done++;
    }
    if (c->kind != CMD_ATTEMPT)
        step(b, n, &e);
}

static void carry_out(struct bench *b, uint8_t n, const struct core_command *c)
{
    if (c->kind == CMD_SEND) {
        for (uint8_t i = 0; i < NODES; i++)
            if (b->cfg.member[i].node == c->u.send.env.via)
                push(b, i)->msg = c->u.send;
    } else if (c->kind == CMD_STORE) {
        struct item *i = push(b, n);
        i->stored = true;
        i->token = c->u.store.token;
    } else if (c->kind == CMD_START || c->kind == CMD_INTENT_OK) {
        deliver(b, n, c);
    }
}

static void step(struct bench *b, uint8_t n, struct core_event *e)
{
    struct core_command *ring = malloc(sizeof(*ring) * CORE_COMMANDS_MIN);
    struct core_commands out = {ring, 0, CORE_COMMANDS_MIN, 0};
    uint64_t start = cpu_ns();
    e->now_ns = b->now;
    core_step(b->core[n], e, &out);
    b->cpu[n] += cpu_ns() - start;
    for (uint32_t i = 0; i < out.count; i++)
        carry_out(b, n, &ring[i]);
    free(ring);
}

static void drain(struct bench *b)
{
    while (b->count) {
        struct item i = b->queue[b->head];
        b->head = (b->head + 1) % QUEUE;
        b->count--;
        struct core_event e = {.kind = EV_MSG};
        e.u.msg = &i.msg;
        if (i.stored) {
            e.kind = EV_STORED;
            e.u.stored.token = i.token;
            e.u.stored.full = false;
        }
        step(b, i.to, &e);
    }
}

static void tick(struct bench *b, uint64_t ns)
{
    b->now += ns;
    for (uint8_t i = 0; i < NODES; i++) {
        struct core_event e = {.kind = EV_TICK};
        step(b, i, &e);
    }
    drain(b);
}

static void start(struct bench *b, uint32_t units)
{
    static const struct core_limits small = {65536, 8192, 256, 4096, 65536, 256};
    struct core_limits limits = small;
    struct core_params p = {.lease_ns = 15 * CORE_SEC,
        .rho_ppm = 20000,
        .doubt_ns = 180 * CORE_SEC,
        .own_doubt_ns = 60 * CORE_SEC,
        .stale_ns = 600 * CORE_SEC,
        .frame_ns = 30 * CORE_SEC,
        .hedge_ns = 300 * CORE_MS,
        .accept_ns = 20 * CORE_SEC,
        .repair_wait_ns = 10 * CORE_SEC,
        .probe_ns = CORE_SEC,
        .digest_ns = 30 * CORE_SEC,
        .gossip_ns = CORE_SEC,
        .demote_ns = 600 * CORE_SEC};
    limits.units = units > small.units ? units : small.units;
    if (!core_params_derive(&p))
        abort();
    b->queue = malloc(sizeof(*b->queue) * QUEUE);
    b->cfg.ver = 1;
    b->cfg.mode = MODE_QUORUM;
    b->cfg.copies = b->cfg.min_copies = 2;
    b->cfg.count = NODES;
    for (uint8_t i = 0; i < NODES; i++)
        b->cfg.member[i] = (struct core_member){.node = 0x1000u + i,
            .roles = ROLE_VOTER | ROLE_STORE,
            .zone = i,
            .weight = 1};
    for (uint8_t i = 0; i < NODES; i++) {
        void *mem = aligned_alloc(16, (core_size(&limits) + 15) & ~(size_t)15);
        struct core_event e = {.kind = EV_BOOT_CFG};
        b->core[i] = core_init(mem, &limits, &p, b->cfg.member[i].node, 1);
        e.u.cfg = &b->cfg;
        step(b, i, &e);
        e.kind = EV_BOOT_END;
        step(b, i, &e);
    }
    drain(b);
    for (int i = 0; i < 50; i++)
        tick(b, 100 * CORE_MS);
}

static void life(struct bench *b, uint32_t messages)
{
    memset(b->cpu, 0, sizeof(b->cpu));
    b->done = 0;
    for (uint32_t i = 0; i < messages; i++) {
        struct core_event e = {.kind = EV_ACCEPT};
        e.u.accept.handle = i + 1;
        e.u.accept.wall_ms = 1700000000000u + i;
        e.u.accept.size_bytes = 10000;
        e.u.accept.part_count = 1;
        e.u.accept.rcpts[0] = 1;
        step(b, 0, &e);
        drain(b);
        if (i % 100 == 0)
            tick(b, 10 * CORE_MS);
    }
    printf("%u messages, %llu delivered: owner %.2f us, both others %.2f us a message\n",
        messages, (unsigned long long)b->done, (double)b->cpu[0] / 1e3 / messages,
        (double)(b->cpu[1] + b->cpu[2]) / 1e3 / messages);
}

static unsigned long resident_kib(void)
{
    char line[128];
    unsigned long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "VmRSS: %lu", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib;
}

static void million(void)
{
    static const struct core_limits limits = {1 << 20, 16384, 1024, 4096, 65536, 1024};
    struct core_params p = {.lease_ns = 15 * CORE_SEC, .rho_ppm = 20000};
    unsigned long before = resident_kib();
    struct core_command ring[CORE_COMMANDS_MIN];
    struct core_commands out = {ring, 0, CORE_COMMANDS_MIN, 0};
    core_params_derive(&p);
    void *mem = aligned_alloc(16, (core_size(&limits) + 15) & ~(size_t)15);
    struct core *core = core_init(mem, &limits, &p, 7, 1);
    for (uint32_t i = 0; i < 1000000; i++) {
        struct unit_row row = {.id = {.hi = i, .lo = i * UINT64_C(77)},
            .term = 1,
            .owner = 8,
            .owner_epoch = 1,
            .state = UNIT_LIVE,
            .rcpt_count = 1,
            .list_count = 2,
            .list = {{8, 0, LIST_HOLD}, {7, 0, LIST_HOLD}}};
        struct core_event e = {.kind = EV_BOOT_UNIT};
        e.u.unit = &row;
        core_step(core, &e, &out);
        out.count = 0;
    }
    printf("a million units held: %.1f MiB resident, core_size %.1f MiB\n",
        (double)(resident_kib() - before) / 1024, (double)core_size(&limits) / 1048576);
    free(mem);
}

int main(void)
{
    struct bench b = {.now = 1000 * CORE_SEC};
    million();
    start(&b, 0);
    life(&b, 20000);
    life(&b, 200000);
    return b.done != 200000;
}
