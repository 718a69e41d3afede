/* SPDX-License-Identifier: Apache-2.0 */
/* A hundred nodes, leases and gossip only: traffic a node, and how fast a row spreads. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT 100
#define ROWS 200
#define VOTERS 5

struct thing {
    uint64_t at, tie;
    uint8_t to, kind; /* 0 tick, 1 frame, 2 stored */
    uint64_t token;
    struct core_msg *msg;
};

struct scale {
    struct thing *heap;
    uint32_t count, cap;
    uint64_t now, tie, rng;
    struct core *core[COUNT];
    uint64_t tick_at[COUNT];
    uint64_t last[COUNT][COUNT]; /* a connection keeps order */
    uint64_t sent[MSG_KIND_COUNT], bytes;
    struct core_cfg cfg;
    uint64_t changed[ROWS], known[ROWS]; /* when a row changed, when all had it */
    uint32_t rows, open;
};

static void put(struct scale *s, struct thing t)
{
    if (s->count == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 4096;
        s->heap = realloc(s->heap, s->cap * sizeof(*s->heap));
    }
    t.tie = s->tie++;
    uint32_t pos = s->count++;
    while (pos > 0 && (t.at < s->heap[(pos - 1) / 2].at)) {
        s->heap[pos] = s->heap[(pos - 1) / 2];
        pos = (pos - 1) / 2;
    }
    s->heap[pos] = t;
}

static struct thing take(struct scale *s)
{
    struct thing top = s->heap[0], last = s->heap[--s->count];
    uint32_t pos = 0;
    for (;;) {
        uint32_t child = 2 * pos + 1;
        if (child >= s->count)
            break;
        if (child + 1 < s->count && s->heap[child + 1].at < s->heap[child].at)
            child++;
        if (s->heap[child].at >= last.at)
            break;
        s->heap[pos] = s->heap[child];
        pos = child;
    }
    s->heap[pos] = last;
    return top;
}

static void carry_out(struct scale *s, uint8_t n, const struct core_command *c)
{
    if (c->kind == CMD_STORE) {
        put(s, (struct thing){
                   .at = s->now + MS, .to = n, .kind = 2, .token = c->u.store.token});
        return;
    }
    if (c->kind != CMD_SEND)
        return;
    s->sent[c->u.send.kind]++;
    if (sim_below(&s->rng, 100) < 10)
        return; /* lost */
    for (uint8_t i = 0; i < COUNT; i++)
        if (s->cfg.member[i].node == c->u.send.env.via) {
            uint64_t at = s->now + MS + sim_below(&s->rng, 20 * MS);
            at = at > s->last[n][i] ? at : s->last[n][i] + 1;
            s->last[n][i] = at;
            struct thing t = {.at = at, .to = i, .kind = 1};
            t.msg = malloc(sizeof(*t.msg));
            *t.msg = c->u.send;
            put(s, t);
        }
}

static void step(struct scale *s, uint8_t n, struct core_event *e)
{
    static struct core_command ring[CORE_COMMANDS_MIN];
    struct core_commands out = {ring, 0, CORE_COMMANDS_MIN, 0};
    e->now_ns = 1000 * SEC + s->now;
    core_step(s->core[n], e, &out);
    for (uint32_t i = 0; i < out.count; i++)
        carry_out(s, n, &ring[i]);
    uint64_t at =
        out.deadline_ns == CORE_FOREVER ? s->now + SEC : out.deadline_ns - 1000 * SEC;
    if (s->tick_at[n] <= s->now || at < s->tick_at[n]) {
        s->tick_at[n] = at;
        put(s, (struct thing){.at = at, .to = n, .kind = 0});
    }
}

static void boot(struct scale *s, uint32_t count)
{
    static const struct core_limits limits = {64, 64, 16, 2048, 64, 2048};
    struct core_params p = {.lease_ns = 15 * SEC,
        .rho_ppm = 20000,
        .doubt_ns = 180 * SEC,
        .own_doubt_ns = 60 * SEC,
        .stale_ns = 600 * SEC,
        .frame_ns = 30 * SEC,
        .hedge_ns = 300 * MS,
        .accept_ns = 20 * SEC,
        .repair_wait_ns = 10 * SEC,
        .probe_ns = SEC,
        .digest_ns = 30 * SEC,
        .gossip_ns = SEC,
        .demote_ns = 600 * SEC};
    static uint64_t counters[ST_COUNT];
    core_params_derive(&p);
    s->cfg.ver = 1;
    s->cfg.mode = MODE_QUORUM;
    s->cfg.copies = s->cfg.min_copies = 2;
    s->cfg.count = (uint8_t)count;
    for (uint8_t i = 0; i < count; i++)
        s->cfg.member[i] = (struct core_member){.node = 1000u + i,
            .roles = (uint8_t)(ROLE_STORE | (i < VOTERS ? ROLE_VOTER : 0)),
            .zone = i,
            .weight = 1};
    for (uint8_t i = 0; i < count; i++) {
        void *mem = aligned_alloc(16, (core_size(&limits) + 15) & ~(size_t)15);
        struct core_event e = {.kind = EV_BOOT_CFG};
        s->core[i] = core_init(mem, &limits, &p, 1000u + i, i + 1);
        s->core[i]->sometimes = counters;
        e.u.cfg = &s->cfg;
        step(s, i, &e);
        e.kind = EV_BOOT_END;
        step(s, i, &e);
    }
}

static bool has_row(const struct core *core, uint32_t key)
{
    for (uint32_t i = 0; i < core->cell_count; i++)
        if (core->cell[i].row.key == key)
            return true;
    return false;
}

/* Every 300 ms somebody publishes a row; each one is watched until all have it. */
static void watch(struct scale *s)
{
    if (s->rows < ROWS) {
        uint8_t value[8] = {(uint8_t)s->rows, 1};
        uint8_t n = (uint8_t)sim_below(&s->rng, s->cfg.count);
        struct core_event e = {.kind = EV_ROW};
        e.u.row.key = s->rows + 1;
        e.u.row.length = sizeof(value);
        e.u.row.value = value;
        s->changed[s->rows++] = s->now;
        step(s, n, &e);
    }
    for (uint32_t r = 0; r < s->rows; r++) {
        uint32_t have = 0;
        if (s->known[r])
            continue;
        for (uint8_t i = 0; i < s->cfg.count; i++)
            have += has_row(s->core[i], r + 1);
        if (have == s->cfg.count)
            s->known[r] = s->now;
    }
}

static void run_until(struct scale *s, uint64_t until)
{
    while (s->count && s->heap[0].at <= until) {
        struct thing t = take(s);
        struct core_event e = {.kind = EV_TICK};
        s->now = t.at;
        if (t.kind == 1) {
            e.kind = EV_MSG;
            e.u.msg = t.msg;
        } else if (t.kind == 2) {
            e.kind = EV_STORED;
            e.u.stored.token = t.token;
            e.u.stored.full = false;
        }
        step(s, t.to, &e);
        free(t.msg);
    }
    s->now = until;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

int scale(void)
{
    static struct scale s;
    uint64_t took[ROWS];
    uint32_t leases = 0;
    s.rng = 7;
    boot(&s, COUNT);
    run_until(&s, 30 * SEC);
    memset(s.sent, 0, sizeof(s.sent));
    for (int k = 0; k < 300; k++) {
        watch(&s);
        run_until(&s, s.now + 300 * MS);
    }
    double seconds = 90.0 * COUNT;
    for (uint8_t i = 0; i < COUNT; i++)
        leases += session_lease(s.core[i], 0);
    uint64_t swim = s.sent[MSG_PING] + s.sent[MSG_ACK] + s.sent[MSG_PING_REQ];
    uint64_t gossip = s.sent[MSG_GOSSIP_DIGEST] + s.sent[MSG_GOSSIP_DELTA];
    uint64_t lease = s.sent[MSG_LEASE_REQ];
    for (uint32_t r = 0; r < ROWS; r++)
        took[r] = s.known[r] ? s.known[r] - s.changed[r] : CORE_FOREVER;
    qsort(took, ROWS, sizeof(took[0]), by_value);
    uint64_t p99 = took[(ROWS * 99 - 1) / 100];
    printf("%d nodes, 10 %% loss: %u hold a lease; lease requests %.0f/s in all, %.1f/s "
           "a voter\n",
        COUNT, leases, (double)lease / 90, (double)lease / 90 / VOTERS);
    printf("a node sends %.1f pings and acks, %.1f gossip frames a second; rows %u, in "
           "all nodes "
           "after p50 %.1f s p99 %.1f s\n",
        (double)swim / seconds, (double)gossip / seconds, s.rows,
        (double)took[ROWS / 2] / 1e9, (double)p99 / 1e9);
    return leases != COUNT || p99 > 10 * SEC || (double)lease / 90 > 250;
}
