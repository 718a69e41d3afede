/* SPDX-License-Identifier: Apache-2.0 */
/* The named fault scenarios: a script of faults, many seeds, an observation that must
 * hold. */
#include "tests/sim/scenario.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define S SEC

struct scenario {
    const char *name;
    struct sim_options o;
    struct fault script[12];
    uint64_t jitter; /* times of the script move by up to this */
    const char *(*observe)(const struct seen *seen);
};

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

uint64_t seen_p99(const struct seen *seen)
{
    static uint64_t v[SEEDS * 64];
    if (seen->takeovers == 0)
        return 0;
    memcpy(v, seen->takeover, seen->takeovers * sizeof(v[0]));
    qsort(v, seen->takeovers, sizeof(v[0]), by_value);
    return v[(seen->takeovers * 99 - 1) / 100];
}

static const char *accept_kill(const struct seen *s)
{
    NEED(s->sum.accepted > 0 && s->sum.dups[4] > 0);
    NEED(seen_others(s, D(1) | D(4)) == 0);
    return NULL;
}

static const char *owner_killed(const struct seen *s)
{
    NEED(s->takeovers > 0 && seen_p99(s) <= 21 * SEC);
    NEED(seen_others(s, D(1) | D(4)) == 0);
    return NULL;
}

static const char *owner_killed_short(const struct seen *s)
{
    NEED(s->takeovers > 0 && seen_p99(s) <= 9 * SEC);
    NEED(seen_others(s, D(1) | D(4)) == 0);
    return NULL;
}

static const char *holder_killed(const struct seen *s)
{
    NEED(ST(HEDGE) > 0 && ST(REPAIR) > 0);
    NEED(seen_others(s, D(4)) == 0);
    return NULL;
}

static const char *two_killed(const struct seen *s)
{
    NEED(ST(CLAIM_FINISH) > 0);
    NEED(seen_others(s, D(1) | D(4) | D(5)) == 0);
    return NULL;
}

static const char *all_killed(const struct seen *s)
{
    NEED(ST(REOWN) > 0 && ST(WAIT) > 0);
    NEED(seen_others(s, D(1) | D(4) | D(5)) == 0);
    return NULL;
}

static const char *short_split(const struct seen *s)
{
    NEED(ST(CLAIM_FINISH) == 0 && ST(FENCED_SELF) == 0);
    NEED(seen_others(s, D(4)) == 0);
    return NULL;
}

static const char *long_split(const struct seen *s)
{
    NEED(ST(FENCE_ROUND) > 0 && ST(CLAIM_FINISH) > 0);
    NEED(seen_others(s, D(2) | D(4)) == 0);
    return NULL;
}

static const char *deaf(const struct seen *s)
{
    NEED(ST(DEAF) > 0 && ST(CLAIM_FINISH) > 0);
    NEED(seen_others(s, D(1) | D(2) | D(4)) == 0);
    return NULL;
}

static const char *mute(const struct seen *s)
{
    NEED(ST(CLAIM_FINISH) > 0);
    NEED(seen_others(s, D(1) | D(2) | D(4)) == 0);
    return NULL;
}

static const char *flapping(const struct seen *s)
{
    NEED(ST(FENCE_ROUND) <= 4 * SEEDS && ST(CLAIM_FINISH) <= 20 * SEEDS);
    NEED(seen_others(s, D(2) | D(4)) == 0);
    return NULL;
}

static const char *lossy(const struct seen *s)
{
    NEED(ST(SEQ_DROP) > 0);
    NEED(seen_others(s, D(4) | D(7)) == 0);
    return NULL;
}

static const char *stopped(const struct seen *s)
{
    NEED(ST(CLAIM_FINISH) > 0);
    NEED(seen_others(s, D(2) | D(4)) == 0);
    return NULL;
}

static const char *frozen_shortly(const struct seen *s)
{
    NEED(ST(FREEZE) > 0);
    NEED(seen_others(s, D(3) | D(4)) == 0);
    return NULL;
}

static const char *frozen(const struct seen *s)
{
    NEED(ST(FREEZE) > 0);
    NEED(seen_others(s, D(2) | D(3) | D(4)) == 0);
    return NULL;
}

static const char *voters_restart(const struct seen *s)
{
    NEED(ST(QUARANTINE) > 0 && ST(WAIT) > 0);
    NEED(seen_others(s, D(1) | D(4) | D(5)) == 0);
    return NULL;
}

static const char *disk_stalled(const struct seen *s)
{
    NEED(ST(RESIGN) > 0 && ST(CLAIM_FINISH) > 0);
    NEED(seen_others(s, D(1) | D(2) | D(4)) == 0);
    return NULL;
}

static const char *eio(const struct seen *s)
{
    NEED(s->sum.faults[FAULT_EIO] > 0 && ST(REOWN) > 0);
    NEED(seen_others(s, D(1) | D(4)) == 0);
    return NULL;
}

static const char *disk_full(const struct seen *s)
{
    NEED(ST(FULL) > 0 && s->sum.accepted > 0);
    NEED(seen_others(s, D(4)) == 0);
    return NULL;
}

static const char *away(const struct seen *s)
{
    NEED(ST(CLAIM_FINISH) > 0 && s->sum.redelivered == 0);
    NEED(seen_others(s, D(1) | D(4)) == 0);
    return NULL;
}

static const char *two_heirs(const struct seen *s)
{
    NEED(ST(CLAIM_CONFLICT) > 0 && ST(CLAIM_FINISH) > 0);
    NEED(seen_others(s, D(1) | D(2) | D(4) | D(5)) == 0);
    return NULL;
}

static const char *stolen(const struct seen *s)
{
    NEED(ST(STEAL) > 0);
    NEED(seen_others(s, D(1) | D(4) | D(5)) == 0);
    return NULL;
}

static const char *shared(const struct seen *s)
{
    NEED(ST(STEAL_ASKED) > 0 && ST(STEAL) > 5 * SEEDS);
    /* no unit wanders: a quarter of the backlog a minute, and never back */
    NEED(ST(STEAL) < 150 * SEEDS);
    NEED(seen_others(s, D(4)) == 0);
    return NULL;
}

static const char *old_image(const struct seen *s)
{
    NEED(s->sum.faults[FAULT_RESTORE] == SEEDS && ST(OLD_IMAGE) >= SEEDS);
    NEED(seen_others(s, D(1) | D(4)) == 0);
    return NULL;
}

static const char *relayed(const struct seen *s)
{
    NEED(ST(RELAY) > 0 && ST(CLAIM_FINISH) > 0);
    NEED(s->takeovers > 0 && seen_p99(s) <= 30 * SEC);
    NEED(seen_others(s, D(1) | D(4)) == 0);
    return NULL;
}

static const char *late_grants(const struct seen *s)
{
    NEED(ST(CLAIM_FINISH) > 0);
    NEED(seen_others(s, D(1) | D(2) | D(4)) == 0);
    return NULL;
}

static const char *rolled_back(const struct seen *s)
{
    NEED(ST(CLAIM_UNKNOWN) > 0 && ST(CLAIM_FINISH) > 0);
    NEED(seen_others(s, D(1) | D(4)) == 0);
    return NULL;
}

static const char *rotten(const struct seen *s)
{
    NEED(s->sum.faults[FAULT_ROT] > 0 && ST(DAMAGED) > 0 && ST(FIXED) > 0);
    NEED(ST(STEAL) > 0); /* the owner's own mail: given to who has it */
    NEED(seen_others(s, D(1) | D(4)) == 0);
    return NULL;
}

static const char *clean(const struct seen *s)
{
    NEED(seen_others(s, D(4)) == 0);
    return NULL;
}

#define BASE .plain = true, .clean_network = true, .fault_phase = 60 * S, .mails = 60
#define THREE BASE, .nodes = 3, .voters = 3, .copies = 2, .min_copies = 2, .lease_s = 15
#define FIVE BASE, .nodes = 5, .voters = 5, .copies = 3, .min_copies = 2, .lease_s = 10

#define GROWS(world, more)                                                               \
    BASE, .shape = world, .spares = more, .lease_s = 5, .fault_phase = 120 * S

/* A scenario says only where it differs from its base. */
#pragma GCC diagnostic ignored "-Woverride-init"
static const struct scenario table[] = {
    {"1-kill-owner-accepting", {THREE, .mails = 250},
        {{10 * S, FAULT_CRASH, 0, 0, 0, 5 * S}, {30 * S, FAULT_CRASH, 0, 0, 0, 5 * S}},
        2 * S, accept_kill},
    {"1-kill-owner-at-each-step",
        {THREE, .mails = 250, .defer_until_s = 59, .kill_first = KILL_STORE,
            .kill_count = KILL_ACCEPT_STEPS, .held = true},
        {{0}}, 1, seen_accept_steps},
    {"2-kill-owner-at-each-step",
        {THREE, .mails = 250, .kill_first = KILL_ATTEMPT,
            .kill_count = KILL_GAVE - KILL_ATTEMPT},
        {{0}}, 1, seen_deliver_steps},
    {"2-kill-owner-that-bounces",
        {THREE, .mails = 250, .kill_first = KILL_ATTEMPT,
            .kill_count = KILL_GAVE - KILL_ATTEMPT, .dsn = true},
        {{25 * S, FAULT_CRASH, 1, 0, 0, 20 * S}}, 10 * S, seen_bounces},
    {"2-kill-owner-delivering", {THREE, .defer_until_s = 14},
        {{15 * S, FAULT_CRASH, 0, 0, 0, 40 * S}}, 3 * S, owner_killed},
    {"2-kill-owner-lease-5",
        {BASE, .nodes = 3, .voters = 3, .copies = 2, .min_copies = 2, .lease_s = 5,
            .defer_until_s = 14},
        {{15 * S, FAULT_CRASH, 0, 0, 0, 40 * S}}, 3 * S, owner_killed_short},
    {"3-kill-holder", {THREE, .nodes = 4, .defer_until_s = 50, .held = true},
        {{10 * S, FAULT_CRASH, 1, 0, 0, 45 * S}}, 2 * S, holder_killed},
    {"4-kill-owner-and-holder",
        {FIVE, .nodes = 4, .voters = 3, .defer_until_s = 20, .held = true},
        {{20 * S, FAULT_SPLIT_CRASH, 0, 1, 0, 60 * S}}, 2 * S, two_killed},
    {"5-kill-all", {THREE, .defer_until_s = 20, .held = true},
        {{20 * S, FAULT_CRASH_ALL, 0, 0, 0, 20 * S}}, 2 * S, all_killed},
    {"6-split-owner-10s", {THREE}, {{20 * S, FAULT_ISOLATE, 0, 0, 0, 10 * S}}, 2 * S,
        short_split},
    {"6-split-owner-60s", {THREE, .fault_phase = 120 * S},
        {{20 * S, FAULT_ISOLATE, 0, 0, 0, 60 * S}}, 2 * S, long_split},
    {"6-split-owner-1h", {THREE, .fault_phase = 3700 * S, .mails = 30},
        {{20 * S, FAULT_ISOLATE, 0, 0, 0, 3600 * S}}, 2 * S, long_split},
    {"7-deaf", {THREE, .fault_phase = 120 * S, .defer_until_s = 22},
        {{20 * S, FAULT_DEAF, 0, 0, 0, 60 * S}}, 2 * S, deaf},
    {"7-mute", {THREE, .fault_phase = 120 * S, .defer_until_s = 22},
        {{20 * S, FAULT_MUTE, 0, 0, 0, 60 * S}}, 2 * S, mute},
    {"7-grants-come-late",
        {THREE, .fault_phase = 90 * S, .defer_until_s = 40, .mails = 200},
        {{20 * S, FAULT_STALL, 1, 0, 0, 27 * S / 2},
            {20 * S, FAULT_STALL, 2, 0, 0, 27 * S / 2},
            {21 * S, FAULT_MUTE, 0, 0, 0, 40 * S}},
        S / 4, late_grants},
    {"2-outcomes-come-late",
        {THREE, .fault_phase = 120 * S, .defer_until_s = 20, .mails = 250},
        {{20 * S, FAULT_STALL, 0, 1, 0, 20 * S}, {20 * S, FAULT_STALL, 0, 2, 0, 20 * S},
            {26 * S, FAULT_CRASH, 0, 0, 0, 90 * S}},
        S, late_grants},
    {"7-owner-to-holder", {THREE, .nodes = 4, .mails = 120, .fault_phase = 90 * S},
        {{20 * S, FAULT_CUT, 0, 1, 0, 50 * S}}, 2 * S, seen_cut_holder},
    {"8-partial-partition",
        {FIVE, .lease_s = 15, .fault_phase = 90 * S, .defer_until_s = 24},
        {{12 * S, FAULT_CUT_BOTH, 1, 2, 0, 70 * S},
            {12 * S, FAULT_CUT_BOTH, 3, 4, 0, 70 * S},
            {22 * S, FAULT_CRASH, 0, 0, 0, 60 * S}},
        2 * S, relayed},
    {"9-flapping", {THREE}, {{10 * S, FAULT_FLAP, 0, 1, 0, 40 * S}}, 2 * S, flapping},
    {"10-loss-and-reconnect", {THREE, .clean_network = false},
        {{10 * S, FAULT_LOSS, 0, 0, 0, 20 * S}, {15 * S, FAULT_RECONNECT, 0, 1, 0, 1},
            {20 * S, FAULT_RECONNECT, 1, 0, 0, 2}, {25 * S, FAULT_RECONNECT, 0, 2, 0, 1},
            {30 * S, FAULT_STALL, 0, 1, 0, 3 * S}, {32 * S, FAULT_RECONNECT, 0, 1, 0, 2}},
        2 * S, lossy},
    {"11-stop-5s", {THREE}, {{20 * S, FAULT_PAUSE, 0, 0, 0, 5 * S}}, 2 * S, clean},
    {"11-stop-20s", {THREE, .defer_until_s = 19},
        {{20 * S, FAULT_PAUSE, 0, 0, 0, 20 * S}}, 2 * S, stopped},
    {"11-stop-120s", {THREE, .fault_phase = 180 * S, .defer_until_s = 19},
        {{20 * S, FAULT_PAUSE, 0, 0, 0, 120 * S}}, 2 * S, stopped},
    {"12-freeze-5s", {THREE}, {{20 * S, FAULT_FREEZE, 0, 0, 0, 5 * S}}, 2 * S,
        frozen_shortly},
    {"12-freeze-20s", {THREE}, {{20 * S, FAULT_FREEZE, 0, 0, 0, 20 * S}}, 2 * S,
        frozen_shortly},
    {"12-freeze-120s", {THREE, .fault_phase = 180 * S},
        {{20 * S, FAULT_FREEZE, 0, 0, 0, 120 * S}}, 2 * S, frozen},
    {"13-clock-rates", {THREE, .rate_ppm = 9900},
        {{20 * S, FAULT_ISOLATE, 0, 0, 0, 40 * S}}, 2 * S, long_split},
    {"14-voters-restart", {THREE, .defer_until_s = 20},
        {{20 * S, FAULT_ISOLATE, 0, 0, 0, 30 * S}, {21 * S, FAULT_CRASH, 1, 0, 0, S},
            {24 * S, FAULT_CRASH, 2, 0, 0, S}, {40 * S, FAULT_CRASH, 1, 0, 0, S / 10}},
        2 * S, voters_restart},
    {"15-fsync-stall", {THREE, .fault_phase = 120 * S, .defer_until_s = 20},
        {{20 * S, FAULT_SLOW_DISK, 0, 0, 0, 60 * S}}, 2 * S, disk_stalled},
    {"15-fsync-stall-of-a-holder",
        {THREE, .nodes = 4, .mails = 200, .fault_phase = 120 * S},
        {{20 * S, FAULT_SLOW_DISK, 3, 0, 0, 60 * S}}, 2 * S, seen_slow_holder},
    {"15-fsync-stall-of-a-voter",
        {BASE, .nodes = 2, .lease_s = 15, .fault_phase = 120 * S},
        {{20 * S, FAULT_SLOW_DISK, 2, 0, 0, 60 * S}}, 2 * S, seen_slow_voter},
    {"16-eio", {THREE, .defer_until_s = 25},
        {{20 * S, FAULT_EIO, 0, 0, 0, 1}, {30 * S, FAULT_EIO, 1, 0, 0, 1}}, 2 * S, eio},
    {"17-disk-full", {THREE, .mails = 120},
        {{15 * S, FAULT_FULL, 0, 0, 0, 10 * S}, {20 * S, FAULT_FULL, 1, 0, 0, 10 * S}},
        2 * S, disk_full},
    {"20-long-away",
        {THREE, .mails = 200, .defer_until_s = 20, .fault_phase = 400 * S, .held = true},
        {{20 * S, FAULT_CRASH, 0, 0, 0, 370 * S}}, S, away},
    {"21-two-heirs", {FIVE, .defer_until_s = 40, .mails = 120},
        {{20 * S, FAULT_CRASH, 0, 0, 0, 40 * S},
            {26 * S, FAULT_CUT_BOTH, 1, 2, 0, 20 * S},
            {26 * S, FAULT_CUT_BOTH, 1, 3, 0, 20 * S},
            {26 * S, FAULT_CUT_BOTH, 2, 3, 0, 20 * S},
            {50 * S, FAULT_CRASH, 1, 0, 0, 4 * S}},
        4 * S, two_heirs},
    {"23-killed-in-a-transfer",
        {THREE, .nodes = 4, .defer_until_s = 58, .mails = 120, .kill_first = KILL_GAVE,
            .kill_count = 2, .held = true},
        {{8 * S, FAULT_STEAL, 0, 0, 0, 20 * S},
            {11 * S, FAULT_OPERATOR, 0, 3, 0, OP_DRAIN}},
        2 * S, seen_transfer},
    {"23-steal-and-crash", {THREE, .defer_until_s = 30, .mails = 120, .held = true},
        {{8 * S, FAULT_STEAL, 0, 0, 0, 40 * S}, {15 * S, FAULT_CRASH, 0, 0, 0, 10 * S},
            {25 * S, FAULT_CRASH, 1, 0, 0, 10 * S}},
        3 * S, stolen},
    {"18-bit-rot", {THREE, .mails = 120, .defer_until_s = 40},
        {{12 * S, FAULT_ROT, 0, 0, 0, 5 * S}, {14 * S, FAULT_ROT, 1, 0, 0, 5 * S},
            {16 * S, FAULT_ROT, 2, 0, 0, 20 * S}, {18 * S, FAULT_ROT, 0, 0, 0, S},
            {20 * S, FAULT_ROT, 1, 0, 0, 20 * S}, {22 * S, FAULT_ROT, 2, 0, 0, S},
            {24 * S, FAULT_ROT, 0, 0, 0, S}, {26 * S, FAULT_CRASH, 1, 0, 0, 30 * S}},
        3 * S, rotten},
    {"18-bit-rot-only-copy",
        {BASE, .nodes = 1, .voters = 1, .copies = 1, .min_copies = 1, .lease_s = 15,
            .defer_until_s = 50},
        {{12 * S, FAULT_ROT, 0, 0, 0, 5 * S}, {20 * S, FAULT_ROT, 0, 0, 0, 5 * S},
            {30 * S, FAULT_ROT, 0, 0, 0, 5 * S}},
        3 * S, seen_only_copy},
    {"20-away-longer-than-tombs",
        {THREE, .mails = 100, .defer_until_s = 20, .fault_phase = 400 * S,
            .expires_s = 100, .wall_jump_s = 300},
        {{20 * S, FAULT_CRASH, 0, 0, 0, 370 * S}}, S, seen_too_old},
    {"23-shared-by-load", {THREE, .mails = 250, .defer_until_s = 58, .share = true},
        {{0}}, 1, shared},
    {"24-snapshot-restored", {THREE, .liveness = true, .mails = 120},
        {{10 * S, FAULT_SNAPSHOT, 0, 0, 0, 1}, {14 * S, FAULT_CRASH, 0, 0, 0, S},
            {20 * S, FAULT_CRASH, 0, 0, 0, S}, {36 * S, FAULT_RESTORE, 0, 0, 0, 2 * S}},
        2 * S, old_image},
    {"24-snapshot-of-the-session-before", {THREE, .liveness = true, .mails = 120},
        {{10 * S, FAULT_SNAPSHOT, 0, 0, 0, 1}, {14 * S, FAULT_CRASH, 0, 0, 0, S},
            {36 * S, FAULT_RESTORE, 0, 0, 0, 2 * S}},
        2 * S, old_image},
    {"24-disk-rolled-back", {THREE, .liveness = true, .mails = 120, .defer_until_s = 45},
        {{10 * S, FAULT_SNAPSHOT, 0, 0, 0, 1}, {30 * S, FAULT_RESTORE, 0, 0, 0, 2 * S}},
        2 * S, rolled_back},
    {"19-disk-replaced",
        {GROWS(WORLD_QUORUM, 1), .nodes = 3, .voters = 3, .auto_voters = true,
            .defer_until_s = 119, .held = true},
        {{30 * S, FAULT_OPERATOR, 0, 1, 0, OP_REPLACE},
            {100 * S, FAULT_OPERATOR, 0, 1, 0, OP_RETURN}},
        3 * S, seen_replaced},
    {"22-voter-in-a-fence-round",
        {GROWS(WORLD_QUORUM, 1), .nodes = 3, .voters = 3, .fault_phase = 160 * S,
            .held = true},
        {{15 * S, FAULT_OPERATOR, 0, 3, 0, OP_ADD},
            {30 * S, FAULT_ISOLATE, 2, 0, 0, 12 * S},
            {35 * S, FAULT_OPERATOR, 0, 3, 0, OP_VOTE},
            {35 * S, FAULT_OPERATOR, 0, 3, 0, OP_VOTE}},
        3 * S, seen_voter_in_and_out},
    {"22-proposer-killed",
        {GROWS(WORLD_QUORUM, 1), .nodes = 3, .voters = 3, .paxos_crash = true,
            .held = true},
        {{15 * S, FAULT_OPERATOR, 0, 3, 0, OP_ADD},
            {40 * S, FAULT_OPERATOR, 0, 3, 0, OP_VOTE}},
        3 * S, seen_proposer_killed},
    {"22-acceptor-deaf", {GROWS(WORLD_TRIO, 1), .paxos_deaf = true, .defer_until_s = 40},
        {{15 * S, FAULT_OPERATOR, 0, 0, 0, OP_MODE},
            {60 * S, FAULT_OPERATOR, 0, 2, 0, OP_VOTE}},
        3 * S, clean},
    {"growth-1-2-3", {GROWS(WORLD_BIRTH, 4), .mails = 250, .held = true},
        {{20 * S, FAULT_OPERATOR, 0, 1, 0, OP_ADD},
            {50 * S, FAULT_OPERATOR, 0, 2, 0, OP_ADD}},
        3 * S, seen_grows},
    {"second-of-two-lost", {GROWS(WORLD_BIRTH, 4)},
        {{20 * S, FAULT_OPERATOR, 0, 1, 0, OP_ADD},
            {28 * S, FAULT_CRASH, 1, 0, 0, 40 * S}},
        3 * S, seen_goes_on},
    {"first-of-two-lost", {GROWS(WORLD_BIRTH, 4)},
        {{20 * S, FAULT_OPERATOR, 0, 1, 0, OP_ADD},
            {28 * S, FAULT_CRASH, 0, 0, 0, 40 * S}},
        3 * S, seen_goes_on},
    {"growth-and-back",
        {GROWS(WORLD_BIRTH, 4), .mails = 250, .size = 4000, .fault_phase = 180 * S},
        {{20 * S, FAULT_OPERATOR, 0, 1, 0, OP_ADD},
            {50 * S, FAULT_OPERATOR, 0, 2, 0, OP_ADD},
            {112 * S, FAULT_OPERATOR, 0, 2, 0, OP_LEAVE}},
        3 * S, seen_shrinks},
    {"two-and-a-witness", {GROWS(WORLD_PAIR, 1), .defer_until_s = 25},
        {{30 * S, FAULT_CRASH, 0, 0, 0, 40 * S}}, 3 * S, seen_witnessed},
    {"two-static-force-fence", {GROWS(WORLD_STATIC, 1), .defer_until_s = 25},
        {{30 * S, FAULT_CRASH, 1, 0, 0, 60 * S},
            {45 * S, FAULT_OPERATOR, 0, 1, 0, OP_FORCE_FENCE}},
        3 * S, seen_force_fenced},
    {"25-slow-bulk", {THREE, .size = 25000000, .bulk_mb_s = 4}, {{0}}, 1, seen_slow_bulk},
};

static void range(uint8_t seen[2], uint8_t v)
{
    seen[0] = seen[0] == 0 || v < seen[0] ? v : seen[0];
    seen[1] = v > seen[1] ? v : seen[1];
}

static void gather(struct seen *seen, const struct sim_result *r)
{
    range(seen->members, r->members_end);
    range(seen->voters, r->voters_end);
    seen->sum.cfg_steps += r->cfg_steps;
    seen->sum.cfg_modes |= r->cfg_modes;
    if (r->voters_max > seen->sum.voters_max)
        seen->sum.voters_max = r->voters_max;
    if (r->lease_gap > seen->sum.lease_gap)
        seen->sum.lease_gap = r->lease_gap;
    for (int i = 0; i < 10; i++)
        seen->sum.dups[i] += r->dups[i];
    for (int i = 0; i < ST_COUNT; i++)
        seen->sum.sometimes[i] += r->sometimes[i];
    for (int i = 0; i < FAULT_KINDS; i++)
        seen->sum.faults[i] += r->faults[i];
    seen->sum.killed |= r->killed;
    seen->sum.paxos_kills |= r->paxos_kills;
    seen->sum.steps_in_round += r->steps_in_round;
    seen->sum.fences_carried += r->fences_carried;
    seen->sum.returned += r->returned;
    seen->sum.redelivered += r->redelivered;
    if (r->heir_wait > seen->sum.heir_wait)
        seen->sum.heir_wait = r->heir_wait;
    for (int i = 0; i < 21; i++)
        seen->sum.invariant_checks[i] += r->invariant_checks[i];
    seen->sum.accepted += r->accepted;
    seen->sum.refused += r->refused;
    if (r->bulk_most > seen->sum.bulk_most)
        seen->sum.bulk_most = r->bulk_most;
    for (uint32_t i = 0; i < r->takeovers && i < 64; i++)
        seen->takeover[seen->takeovers++] = r->takeover[i];
}

static void run_seed(const struct scenario *sc, uint64_t seed, uint8_t mutant,
    struct sim_result *r, char *trace)
{
    struct sim_options o = sc->o;
    struct fault script[12];
    uint64_t rng = seed;
    o.seed = seed;
    o.mutant = mutant;
    for (uint32_t i = 0; i < 12 && sc->script[i].kind; i++) {
        script[i] = sc->script[i];
        script[i].at += sim_below(&rng, sc->jitter);
        o.script_count++;
    }
    o.script = script;
    o.trace = trace != NULL;
    sim_run(&o, r, trace);
}

static bool one_seed(
    const struct scenario *sc, uint64_t seed, struct seen *seen, char *trace)
{
    struct sim_result r;
    run_seed(sc, seed, MUT_NONE, &r, trace);
    gather(seen, &r);
    if (r.failed)
        printf("%s seed %llu: %s\n", sc->name, (unsigned long long)seed, r.why);
    return !r.failed;
}

static bool run_scenario(const struct scenario *sc)
{
    static struct seen seen;
    bool ok = true;
    memset(&seen, 0, sizeof(seen));
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        ok &= one_seed(sc, seed, &seen, NULL);
    const char *wrong = sc->observe(&seen);
    printf("%-26s %s%s", sc->name, ok && !wrong ? "ok" : "FAILED ", wrong ? wrong : "");
    if (seen.takeovers)
        printf(
            "  takeover p99 %.1f s of %u", (double)seen_p99(&seen) / 1e9, seen.takeovers);
    if (seen.sum.lease_gap && sc->o.shape)
        printf(" members %u-%u voters %u-%u without a lease %.2f s", seen.members[0],
            seen.members[1], seen.voters[0], seen.voters[1],
            (double)seen.sum.lease_gap / 1e9);
    for (int i = 1; i <= 8; i++)
        if (seen.sum.dups[i])
            printf(" D%d=%llu", i, (unsigned long long)seen.sum.dups[i]);
    printf("\n");
    return ok && !wrong;
}

/* The trace of one seed of one scenario. */
void scenario_trace(const char *name, uint64_t seed, char *trace)
{
    static struct seen seen;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (strcmp(table[i].name, name) == 0)
            one_seed(&table[i], seed, &seen, trace);
}

/* One seed of a scenario with a switch. False: no such scenario. */
bool scenario_with(const char *name, uint64_t seed, uint8_t mutant, struct sim_result *r)
{
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (strcmp(table[i].name, name) == 0) {
            run_seed(&table[i], seed, mutant, r, NULL);
            return true;
        }
    return false;
}

/* Looks for a scenario and a seed that catch the switch. */
int scenario_hunt(uint8_t mutant, uint64_t seeds, const char *only)
{
    struct sim_result r;
    for (uint64_t seed = 1; seed <= seeds; seed++)
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
            if (only && !strstr(table[i].name, only))
                continue;
            run_seed(&table[i], seed, mutant, &r, NULL);
            if (r.failed) {
                printf("@%s %llu %s\n", table[i].name, (unsigned long long)seed, r.why);
                return 0;
            }
        }
    return 1;
}

int scenarios(const char *only)
{
    int failed = 0;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (!only || strstr(table[i].name, only))
            failed += !run_scenario(&table[i]);
    return failed != 0;
}
