/* SPDX-License-Identifier: Apache-2.0 */
/* What a scenario is judged by: the sum of all its seeds. */
#ifndef TESTS_SIM_SCENARIO_H
#define TESTS_SIM_SCENARIO_H

#include "tests/sim/sim.h"

#define SEEDS 40

struct seen { /* over all seeds of a scenario */
    struct sim_result sum;
    uint64_t takeover[SEEDS * 64];
    uint32_t takeovers;
    /* at the end, over the seeds: fewest and most */
    uint8_t members[2], voters[2];
};

#define NEED(what)                                                                       \
    do {                                                                                 \
        if (!(what))                                                                     \
            return #what;                                                                \
    } while (0)
#define ST(x) (s->sum.sometimes[ST_##x])
#define D(n) (1u << (n))

/* Duplicates of all causes but those `allowed`. */
uint64_t seen_others(const struct seen *s, unsigned allowed);

uint64_t seen_p99(const struct seen *seen); /* of takeovers */

/* NULL, or what was not so */
const char *seen_slow_bulk(const struct seen *s);
const char *seen_only_copy(const struct seen *s);
const char *seen_too_old(const struct seen *s);
const char *seen_accept_steps(const struct seen *s);
const char *seen_deliver_steps(const struct seen *s);
const char *seen_bounces(const struct seen *s);
const char *seen_cut_holder(const struct seen *s);
const char *seen_slow_holder(const struct seen *s);
const char *seen_slow_voter(const struct seen *s);
const char *seen_transfer(const struct seen *s);
const char *seen_replaced(const struct seen *s);
const char *seen_voter_in_and_out(const struct seen *s);
const char *seen_proposer_killed(const struct seen *s);
const char *seen_grows(const struct seen *s);
const char *seen_goes_on(const struct seen *s);
const char *seen_shrinks(const struct seen *s);
const char *seen_witnessed(const struct seen *s);
const char *seen_force_fenced(const struct seen *s);

#endif
