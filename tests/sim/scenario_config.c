/* SPDX-License-Identifier: Apache-2.0 */
/* What must be seen in scenarios whose operator changes the cluster. */
#include "tests/sim/scenario.h"

uint64_t seen_others(const struct seen *s, unsigned allowed)
{
    uint64_t n = 0;
    for (unsigned i = 1; i <= 8; i++)
        n += allowed >> i & 1 ? 0 : s->sum.dups[i];
    return n;
}

const char *seen_replaced(const struct seen *s)
{
    NEED(s->members[0] == 3 && s->members[1] == 3 && s->voters[0] == 3);
    NEED(ST(REPAIR) > 0 && ST(CLAIM_FINISH) > 0);
    NEED(seen_others(s, D(1) | D(4) | D(5)) == 0);
    return NULL;
}

const char *seen_voter_in_and_out(const struct seen *s)
{
    NEED(s->sum.voters_max == 4 && s->members[0] == 4 && s->members[1] == 4);
    NEED(ST(FENCE_ROUND) > 0 && ST(SEAL) > 0);
    NEED(seen_others(s, D(1) | D(2) | D(4) | D(5)) == 0);
    return NULL;
}

const char *seen_proposer_killed(const struct seen *s)
{
    NEED(s->members[0] == 4 && s->voters[0] >= 3 && s->sum.voters_max == 4);
    NEED(seen_others(s, D(1) | D(4) | D(5)) == 0);
    return NULL;
}

const char *seen_grows(const struct seen *s)
{
    NEED(s->members[0] == 3 && s->members[1] == 3 && s->voters[0] == 3);
    NEED(s->sum.cfg_modes == (1u << MODE_QUORUM | 1u << MODE_STATIC));
    NEED(s->sum.lease_gap <= 2 * SEC);
    /* a new voter judges nobody before it was asked: nobody gives a session up for it */
    NEED(s->sum.sometimes[ST_RESIGN] == 0);
    NEED(seen_others(s, D(4)) == 0);
    return NULL;
}

/* Whoever of two is lost, the other never was without a right to deliver. */
const char *seen_goes_on(const struct seen *s)
{
    NEED(s->members[0] == 2 && s->voters[0] == 2 && s->sum.lease_gap <= 2 * SEC);
    NEED(s->sum.cfg_modes >> MODE_STATIC & 1);
    NEED(seen_others(s, D(1) | D(4)) == 0);
    return NULL;
}

const char *seen_shrinks(const struct seen *s)
{
    NEED(s->members[0] == 2 && s->members[1] == 2 && s->sum.voters_max == 3);
    NEED(s->sum.cfg_modes >> MODE_STATIC & 1);
    NEED(seen_others(s, D(1) | D(4) | D(5)) == 0);
    return NULL;
}

const char *seen_witnessed(const struct seen *s)
{
    NEED(s->takeovers > 0 && s->sum.cfg_modes == 1u << MODE_QUORUM);
    NEED(seen_others(s, D(1) | D(4) | D(5)) == 0);
    return NULL;
}

const char *seen_force_fenced(const struct seen *s)
{
    NEED(ST(CLAIM_FINISH) > 0 && s->members[1] <= 2);
    NEED(seen_others(s, D(1) | D(4) | D(6)) == 0);
    return NULL;
}
