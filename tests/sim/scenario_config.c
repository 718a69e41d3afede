/* SPDX-License-Identifier: Apache-2.0 */
/* What must be seen in scenarios that kill at a given step, stall one part, or whose
 * operator changes the cluster. */
#include "tests/sim/scenario.h"

uint64_t seen_others(const struct seen *s, unsigned allowed)
{
    uint64_t n = 0;
    for (unsigned i = 1; i <= 8; i++)
        n += allowed >> i & 1 ? 0 : s->sum.dups[i];
    return n;
}

static uint32_t steps(unsigned from, unsigned to)
{
    return (1u << to) - (1u << from);
}

const char *seen_accept_steps(const struct seen *s)
{
    NEED(s->sum.killed == steps(KILL_STORE, KILL_ACCEPT_STEPS));
    NEED(s->sum.accepted > 0 && s->sum.dups[4] > 0 && ST(CLAIM_FINISH) > 0);
    NEED(seen_others(s, D(4)) == 0);
    return NULL;
}

const char *seen_deliver_steps(const struct seen *s)
{
    NEED(s->sum.killed == steps(KILL_ATTEMPT, KILL_GAVE));
    NEED(s->takeovers > 0 && seen_p99(s) <= 21 * SEC);
    NEED(s->sum.heir_wait > 0 && s->sum.heir_wait <= 2 * SEC); /* no intent, no hold */
    NEED(s->sum.dups[1] > 0 && seen_others(s, D(1) | D(4)) == 0);
    return NULL;
}

const char *seen_bounces(const struct seen *s)
{
    NEED(s->sum.killed == steps(KILL_ATTEMPT, KILL_GAVE));
    NEED(s->sum.invariant_checks[13] > 0 && ST(ACCEPT_KNOWN) > 0);
    NEED(seen_others(s, D(1) | D(4) | D(5)) == 0);
    return NULL;
}

/* The others still hear both: nobody is fenced, and what must pass finds its way. */
const char *seen_cut_holder(const struct seen *s)
{
    NEED(ST(RELAY) > 0 && ST(HEDGE) > 0);
    NEED(s->sum.lease_gap <= SEC / 2);
    NEED(ST(CLAIM_FINISH) == ST(STEAL)); /* given away, never taken */
    NEED(seen_others(s, D(4)) == 0);
    return NULL;
}

const char *seen_slow_holder(const struct seen *s)
{
    NEED(ST(HEDGE) > 0 && s->sum.accepted > 40 * SEEDS);
    NEED(seen_others(s, D(1) | D(2) | D(4)) == 0);
    return NULL;
}

/* Two of three are a quorum. */
const char *seen_slow_voter(const struct seen *s)
{
    NEED(ST(CLAIM_FINISH) == 0 && s->sum.lease_gap <= SEC / 2);
    NEED(seen_others(s, D(4)) == 0);
    return NULL;
}

const char *seen_transfer(const struct seen *s)
{
    NEED(s->sum.killed == steps(KILL_GAVE, KILL_STEPS) && ST(STEAL) > 0);
    NEED(ST(CLAIM_FINISH) > 0 && s->takeovers > 0);
    NEED(seen_others(s, D(4)) == 0);
    return NULL;
}

const char *seen_replaced(const struct seen *s)
{
    NEED(s->members[0] == 3 && s->members[1] == 3 && s->voters[0] == 3);
    NEED(ST(REPAIR) > 0 && ST(CLAIM_FINISH) > 0);
    NEED(s->sum.returned == SEEDS); /* the old one is switched on, and gets no lease */
    NEED(s->sum.invariant_checks[18] > 0);
    NEED(seen_others(s, D(1) | D(4) | D(5)) == 0);
    return NULL;
}

const char *seen_voter_in_and_out(const struct seen *s)
{
    NEED(s->sum.voters_max == 4 && s->members[0] == 4 && s->members[1] == 4);
    NEED(ST(FENCE_ROUND) > 0 && ST(SEAL) > 0);
    NEED(s->sum.steps_in_round > 0 && s->sum.fences_carried > 0);
    NEED(seen_others(s, D(1) | D(2) | D(4) | D(5)) == 0);
    return NULL;
}

const char *seen_proposer_killed(const struct seen *s)
{
    NEED(s->sum.paxos_kills == (1u << 12) - 1); /* each store of a Paxos row */
    NEED(s->members[0] == 4 && s->voters[0] >= 3 && s->sum.voters_max == 4);
    NEED(seen_others(s, D(1) | D(4) | D(5)) == 0);
    return NULL;
}

const char *seen_grows(const struct seen *s)
{
    NEED(s->members[0] == 3 && s->members[1] == 3 && s->voters[0] == 3);
    NEED(s->sum.cfg_modes == (1u << MODE_QUORUM | 1u << MODE_STATIC));
    NEED(s->sum.lease_gap <= SEC / 2 && s->takeovers == 0);
    NEED(s->sum.invariant_checks[18] > 0 && ST(REPAIR) > 0);
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
    NEED(s->sum.dups[6] > 0 && seen_others(s, D(4) | D(6)) == 0);
    return NULL;
}

const char *seen_slow_bulk(const struct seen *s)
{
    NEED(ST(NO_CREDIT) > 0 && s->sum.accepted > 0 && s->sum.refused > 0);
    NEED(ST(CLAIM_FINISH) == 0 && ST(FENCED_SELF) == 0 && ST(RESIGN) == 0);
    NEED(s->sum.bulk_most <= CORE_CREDIT_MAX + 25000000);
    NEED(seen_others(s, D(4)) == 0);
    return NULL;
}

const char *seen_only_copy(const struct seen *s)
{
    NEED(ST(PUT_ASIDE) > 0);
    NEED(seen_others(s, D(4)) == 0);
    return NULL;
}

const char *seen_too_old(const struct seen *s)
{
    NEED(ST(TOMB_EXPIRED) > 0 && ST(PUT_ASIDE) > 0);
    NEED(seen_others(s, D(1) | D(4)) == 0);
    return NULL;
}
