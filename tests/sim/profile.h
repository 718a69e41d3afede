/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Profiles: worlds of a kind. The plain swarm meets some holes once in a hundred thousand
 * seeds, because three or four accidents must fall together. A profile has more of those
 * accidents, and traps: an accident is likelier right after something that matters (a
 * copy has come in, a dot has left, a claim has ended). Which node, when and for how long
 * stays with the seed.
 */
#ifndef TESTS_SIM_PROFILE_H
#define TESTS_SIM_PROFILE_H

#include "tests/sim/sim.h"

enum moment {
    ON_NOTHING,
    ON_SENT,  /* a frame of kind `msg` leaves a for b */
    ON_HEARD, /* it reaches b */
    ON_DOT,   /* a sends a dot */
    ON_OWNS,  /* a took over a unit: claim or re-own */
    ON_START, /* the process of a starts again */
    ON_DOWN,  /* it dies */
};

enum whom { THE_A = 1, THE_B, ANYBODY };

struct trap {
    uint8_t moment, msg;
    uint8_t fault, a, b; /* enum fault_kind; enum whom */
    uint32_t ppm;
    uint64_t within;            /* it comes so soon */
    uint64_t shortest, longest; /* and lasts */
};

struct profile {
    const char *name;
    struct sim_options o; /* 0: the seed chooses */
    uint32_t faults;      /* bits: enum fault_kind */
    uint32_t fewest, most;
    uint32_t springs; /* traps that may spring in one world */
    struct trap trap[8];
};

const struct profile *profile_find(const char *name); /* NULL: none */
const struct profile *profile_at(size_t i);           /* NULL: no more */
void profile_plan(struct sim *sim);
void profile_moment(
    struct sim *sim, enum moment moment, uint8_t msg, uint8_t a, uint8_t b);

#endif
