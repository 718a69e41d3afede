/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/profile.h"

#include <string.h>

#define S SEC
#define BIT(kind) (1u << FAULT_##kind)

static const struct profile table[] = {
    /* A holder gets its copy and then hears no more of its owner: it knows a list that is
     * too short. Owners die with dots under way. */
    {"untold",
        {.nodes = 4,
            .voters = 3,
            .copies = 2,
            .min_copies = 2,
            .lease_s = 5,
            .mails = 40,
            .fault_phase = 90 * S},
        BIT(CRASH) | BIT(STEAL) | BIT(CUT) | BIT(ISOLATE), 0, 10, 24,
        {{ON_HEARD, MSG_COPY, FAULT_CUT_BOTH, THE_A, THE_B, 60000, 1, S, 30 * S},
            {ON_DOT, 0, FAULT_CRASH, THE_A, 0, 40000, 200 * MS, 8 * S, 60 * S},
            {ON_OWNS, 0, FAULT_CRASH, THE_A, 0, 20000, 12 * S, 8 * S, 60 * S}}},
    /* Heirs die as well, after they have claimed, and while they ask. */
    {"heirs",
        {.nodes = 5,
            .voters = 3,
            .lease_s = 5,
            .mails = 60,
            .fault_phase = 150 * S,
            .defer_until_s = 110},
        BIT(CRASH) | BIT(SPLIT_CRASH) | BIT(ISOLATE) | BIT(CUT) | BIT(CRASH_ALL), 4, 14,
        30,
        {{ON_OWNS, 0, FAULT_CRASH, THE_A, 0, 10000, 20 * S, S, 40 * S},
            {ON_OWNS, 0, FAULT_ISOLATE, THE_A, 0, 10000, 2 * S, S, 20 * S},
            {ON_SENT, MSG_CLAIM_RSP, FAULT_CUT, THE_A, THE_B, 30000, 1, S, 20 * S},
            {ON_SENT, MSG_CLAIM_RSP, FAULT_CRASH, THE_A, 0, 10000, 500 * MS, S, 20 * S},
            {ON_HEARD, MSG_CLAIM_RSP, FAULT_CRASH, THE_B, 0, 10000, 20 * MS, S, 20 * S},
            {ON_SENT, MSG_COPY, FAULT_CUT_BOTH, THE_A, THE_B, 10000, S, S, 30 * S}}},
    /* Each owner dies soon after it has brought a new holder in. */
    {"branches",
        {.nodes = 5,
            .voters = 5,
            .copies = 2,
            .min_copies = 2,
            .lease_s = 5,
            .mails = 30,
            .fault_phase = 100 * S,
            .defer_until_s = 100,
            .repair_s = 1},
        BIT(CUT) | BIT(ISOLATE), 0, 3, 40,
        {{ON_HEARD, MSG_COPY, FAULT_CUT_BOTH, THE_A, THE_B, 150000, 1, S, 12 * S},
            {ON_HEARD, MSG_COPY, FAULT_CRASH, THE_A, 0, 30000, 2 * S, 15 * S, 70 * S},
            {ON_OWNS, 0, FAULT_CRASH, THE_A, 0, 100000, 5 * S, 15 * S, 70 * S}}},
    /* A node comes back and cannot reach one of the others, which dies at a dot. Slow
     * destinations, so that much falls into an attempt. */
    {"returning",
        {.nodes = 4,
            .voters = 3,
            .copies = 2,
            .min_copies = 2,
            .lease_s = 5,
            .mails = 40,
            .fault_phase = 120 * S,
            .repair_s = 1,
            .stale_s = 10,
            .defer_ppm = 400000,
            .slow_s = 4},
        BIT(CRASH) | BIT(SPLIT_CRASH), 2, 6, 24,
        {{ON_DOWN, 0, FAULT_CUT_BOTH, THE_A, ANYBODY, 600000, 1, 15 * S, 60 * S},
            {ON_SENT, MSG_RELEASE, FAULT_CRASH, THE_A, 0, 150000, 4 * S, 25 * S, 60 * S},
            {ON_OWNS, 0, FAULT_CRASH, THE_A, 0, 5000, 20 * S, 8 * S, 20 * S}}},
    /* Three static nodes on their way to quorum mode: the operator swears that one is
     * off, and it comes back and hears nobody; or all are switched off and on again. */
    {"sworn", {.shape = WORLD_TRIO, .spares = 1, .mails = 60, .fault_phase = 70 * S},
        BIT(DEAF) | BIT(CRASH) | BIT(CRASH_ALL) | BIT(CUT) | BIT(LOSS), 1, 5, 10,
        {{ON_START, 0, FAULT_DEAF, THE_A, 0, 300000, 1500 * MS, 10 * S, 40 * S},
            {ON_START, 0, FAULT_CUT, THE_A, ANYBODY, 200000, 500 * MS, S, 40 * S},
            {ON_SENT, MSG_CFG_ACCEPT, FAULT_CRASH_ALL, THE_A, 0, 20000, 500 * MS, S,
                10 * S}}},
    /* What a node says comes late, after it was given up. */
    {"late",
        {.nodes = 3,
            .voters = 3,
            .lease_s = 5,
            .mails = 60,
            .fault_phase = 120 * S,
            .clean_network = true},
        BIT(STALL_OUT) | BIT(STALL) | BIT(CRASH), 2, 10, 20,
        {{ON_DOT, 0, FAULT_STALL_OUT, THE_A, 0, 20000, 50 * MS, 6 * S, 30 * S},
            {ON_DOT, 0, FAULT_CRASH, THE_A, 0, 20000, 8 * S, 20 * S, 80 * S}}},
};

const struct profile *profile_at(size_t i)
{
    return i < sizeof(table) / sizeof(table[0]) ? &table[i] : NULL;
}

const struct profile *profile_find(const char *name)
{
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (strcmp(table[i].name, name) == 0)
            return &table[i];
    return NULL;
}

/* The plan without the traps: so many of the faults that the profile has. */
void profile_plan(struct sim *sim)
{
    const struct profile *p = sim->o.profile;
    uint64_t *r = &sim->rng_fault;
    uint32_t wanted = p->fewest + (uint32_t)sim_below(r, p->most - p->fewest + 1);
    while (p->faults && sim->fault_count < wanted) {
        struct fault *f = &sim->fault[sim->fault_count];
        f->kind = (uint8_t)(1 + sim_below(r, FAULT_KINDS - 1));
        f->at = 3 * SEC + sim_below(r, sim->heal_at - 3 * SEC);
        f->a = (uint8_t)sim_below(r, sim->node_count);
        f->b = (uint8_t)sim_below(r, sim->node_count);
        f->arg = fault_length(sim, f->kind);
        sim->fault_count += p->faults >> f->kind & 1;
    }
}

static uint8_t who(struct sim *sim, uint8_t whom, uint8_t a, uint8_t b)
{
    uint8_t any = (uint8_t)sim_below(&sim->rng_fault, sim->node_count);
    return whom == THE_B ? b : whom == ANYBODY ? any : a;
}

static void spring(struct sim *sim, const struct trap *t, uint8_t a, uint8_t b)
{
    uint64_t *r = &sim->rng_fault;
    uint32_t i = sim->fault_count++;
    struct fault *f = &sim->fault[i];
    f->kind = t->fault;
    f->at = sim->now + sim_below(r, t->within);
    f->a = who(sim, t->a, a, b);
    f->b = who(sim, t->b, a, b);
    f->arg = t->shortest + 1 + sim_below(r, t->longest - t->shortest);
    sim->sprung++;
    if (!(sim->o.fault_mask[i / 8] >> (i % 8) & 1))
        sim_at(sim, f->at, SE_FAULT, f->a, 0, i, 0);
}

void profile_moment(
    struct sim *sim, enum moment moment, uint8_t msg, uint8_t a, uint8_t b)
{
    const struct profile *p = sim->o.profile;
    if (!p || sim->healed)
        return;
    for (size_t k = 0; k < sizeof(p->trap) / sizeof(p->trap[0]); k++) {
        const struct trap *t = &p->trap[k];
        if (t->moment == moment && t->msg == msg && sim->sprung < p->springs &&
            sim->fault_count < FAULTS_MAX && sim_chance(&sim->rng_fault, t->ppm))
            spring(sim, t, a, b);
    }
}
