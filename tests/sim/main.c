/* SPDX-License-Identifier: Apache-2.0 */
/* sim: seeds, replay, shrinking, soak. */
#include "tests/sim/sim.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct totals {
    struct sim_result sum;
    uint64_t seeds, failed, first_failed;
    char why[256];
};

static double wall(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Odd seeds run in liveness mode. */
static struct sim_options options_of(uint64_t seed, uint8_t mutant)
{
    struct sim_options o = {.seed = seed, .mutant = mutant};
    o.liveness = seed % 4 == 3;
    return o;
}

static void add(struct totals *t, const struct sim_result *r, uint64_t seed)
{
    struct sim_result *s = &t->sum;
    t->seeds++;
    s->events += r->events;
    s->sim_ns += r->sim_ns;
    s->accepted += r->accepted;
    s->delivered += r->delivered;
    s->refused += r->refused;
    for (int i = 0; i < FAULT_KINDS; i++)
        s->faults[i] += r->faults[i];
    for (int i = 0; i < 10; i++)
        s->dups[i] += r->dups[i];
    for (int i = 0; i < ST_COUNT; i++)
        s->sometimes[i] += r->sometimes[i];
    for (int i = 0; i < 21; i++)
        s->invariant_checks[i] += r->invariant_checks[i];
    if (r->failed && t->failed++ == 0) {
        t->first_failed = seed;
        memcpy(t->why, r->why, sizeof(t->why));
    }
}

static void merge(struct totals *a, const struct totals *b)
{
    uint64_t seeds = a->seeds + b->seeds, failed = a->failed;
    add(a, &b->sum, 0);
    a->seeds = seeds;
    a->failed = failed + b->failed;
    if (b->failed && (failed == 0 || b->first_failed < a->first_failed)) {
        a->first_failed = b->first_failed;
        memcpy(a->why, b->why, sizeof(a->why));
    }
}

static const char *const sometimes_names[ST_COUNT] = {
#define NAME(x) [x] = #x
    NAME(ST_CLAIM_CONFLICT),
    NAME(ST_CLAIM_RESTART),
    NAME(ST_CLAIM_FINISH),
    NAME(ST_CLAIM_UNKNOWN),
    NAME(ST_CLAIM_REJECT_OWNER),
    NAME(ST_LEFTOVER),
    NAME(ST_TIE),
    NAME(ST_RAISE),
    NAME(ST_REOWN),
    NAME(ST_HEDGE),
    NAME(ST_ABORT),
    NAME(ST_DEGRADED),
    NAME(ST_RELEASE),
    NAME(ST_REPAIR),
    NAME(ST_RELAY),
    NAME(ST_FREEZE),
    NAME(ST_QUARANTINE),
    NAME(ST_DEAF),
    NAME(ST_WAIT),
    NAME(ST_FENCED_SELF),
    NAME(ST_FENCE_ROUND),
    NAME(ST_RESIGN),
    NAME(ST_STALE_ECHO),
    NAME(ST_GRAVE),
    NAME(ST_COPY_FENCED),
    NAME(ST_TOMB_HIT),
    NAME(ST_TOMB_ASK),
    NAME(ST_DOUBT_HOLD),
    NAME(ST_DOUBT_ENDED),
    NAME(ST_FACT_FORWARD),
    NAME(ST_STALE_WAIT),
    NAME(ST_STEAL),
    NAME(ST_SEQ_DROP),
    NAME(ST_DIGEST_DIFF),
    NAME(ST_SEAL),
    NAME(ST_CFG_STEP),
    NAME(ST_CFG_CONFLICT),
    NAME(ST_FULL),
    NAME(ST_BUSY),
    NAME(ST_GC_CLAIM),
    NAME(ST_ACCEPT_KNOWN),
    NAME(ST_ACCEPT_EXISTS),
    NAME(ST_NO_CREDIT),
    NAME(ST_LATE_COPY),
    NAME(ST_PUT_ASIDE),
    NAME(ST_TOMB_EXPIRED),
    NAME(ST_DAMAGED),
    NAME(ST_FIXED),
    NAME(ST_STEAL_ASKED),
    NAME(ST_OLD_IMAGE),
    NAME(ST_MORE_NAMES),
#undef NAME
};

static void report(const struct totals *t, double seconds)
{
    printf("seeds %llu, failed %llu, simulated %.1f hours, %.1f M events, %.1f s wall\n",
        (unsigned long long)t->seeds, (unsigned long long)t->failed,
        (double)t->sum.sim_ns / 3.6e12, (double)t->sum.events / 1e6, seconds);
    printf("mail: %llu accepted, %llu not accepted, %llu deliveries\n",
        (unsigned long long)t->sum.accepted, (unsigned long long)t->sum.refused,
        (unsigned long long)t->sum.delivered);
    printf("duplicates by cause:");
    for (int i = 1; i <= 8; i++)
        printf(" D%d=%llu", i, (unsigned long long)t->sum.dups[i]);
    printf("\nfaults:");
    for (int i = 1; i < FAULT_KINDS; i++)
        printf(" %s=%llu", fault_name((uint8_t)i), (unsigned long long)t->sum.faults[i]);
    printf("\nchecks:");
    for (int i = 1; i <= 20; i++)
        printf(" I%d=%u", i, t->sum.invariant_checks[i]);
    printf("\nsometimes:");
    for (int i = 0; i < ST_COUNT; i++)
        printf(
            " %s=%llu", sometimes_names[i] + 3, (unsigned long long)t->sum.sometimes[i]);
    printf("\n");
    if (t->failed)
        printf(
            "first failed seed %llu: %s\n", (unsigned long long)t->first_failed, t->why);
}

struct job {
    uint64_t from, count;
    double seconds;
    uint8_t mutant;
    bool stop_at_first, list;
    bool changing; /* only worlds whose operator changes the cluster */
    bool steady;   /* only the others */
};

static bool passes_alone(struct sim_options o)
{
    struct sim_result r;
    o.mutant = MUT_NONE;
    sim_run(&o, &r, NULL);
    return !r.failed;
}

static void run_range(
    struct totals *t, const struct job *j, unsigned part, unsigned parts)
{
    double until = wall() + j->seconds;
    for (uint64_t k = part; k < j->count; k += parts) {
        struct sim_options o = options_of(j->from + k, j->mutant);
        struct sim_result r;
        if (operator_world(o.seed) ? j->steady : j->changing)
            continue;
        sim_run(&o, &r, NULL);
        if (r.failed && j->mutant && !passes_alone(o))
            continue; /* the switch is not what fails here */
        add(t, &r, o.seed);
        if (r.failed && j->list)
            fprintf(stderr, "seed %llu: %s\n", (unsigned long long)o.seed, r.why);
        if ((r.failed && j->stop_at_first) || (j->seconds > 0 && wall() > until))
            return;
        if (o.seed % 100 == 0 && !r.failed) { /* the same seed twice must match */
            struct sim_result again;
            sim_run(&o, &again, NULL);
            if (again.hash != r.hash || again.events != r.events) {
                snprintf(again.why, sizeof(again.why), "not deterministic");
                again.failed = true;
                add(t, &again, o.seed);
            }
        }
    }
}

static void run_jobs(struct totals *t, const struct job *j, unsigned parts)
{
    int fd[16][2];
    for (unsigned p = 0; p < parts; p++) {
        if (pipe(fd[p]) != 0)
            exit(2);
        if (fork() == 0) {
            struct totals mine = {0};
            run_range(&mine, j, p, parts);
            ssize_t n = write(fd[p][1], &mine, sizeof(mine));
            _exit(n == (ssize_t)sizeof(mine) ? 0 : 1);
        }
        close(fd[p][1]);
    }
    for (unsigned p = 0; p < parts; p++) {
        struct totals one = {0};
        size_t got = 0;
        ssize_t n;
        while (got < sizeof(one) &&
               (n = read(fd[p][0], (char *)&one + got, sizeof(one) - got)) > 0)
            got += (size_t)n;
        if (got == sizeof(one)) {
            merge(t, &one);
        } else {
            t->failed++;
            snprintf(t->why, sizeof(t->why), "a worker died");
        }
        close(fd[p][0]);
    }
    while (wait(NULL) > 0)
        ;
}

/* ---- replay and shrink ---- */

static void print_trace(const char *trace)
{
    for (int i = 0; i < TRACE_LINES; i++)
        if (trace[i * TRACE_WIDTH])
            printf("%s\n", trace + i * TRACE_WIDTH);
}

static int replay(struct sim_options *o)
{
    char *trace = calloc(TRACE_LINES, TRACE_WIDTH);
    struct sim_result r;
    o->trace = true;
    sim_run(o, &r, trace);
    print_trace(trace);
    printf("seed %llu mutant %u: %s, hash %016llx, %llu events, %.1f s simulated\n",
        (unsigned long long)o->seed, o->mutant, r.failed ? r.why : "no violation",
        (unsigned long long)r.hash, (unsigned long long)r.events, (double)r.sim_ns / 1e9);
    free(trace);
    return r.failed;
}

static bool still_fails(const struct sim_options *o)
{
    struct sim_result r;
    sim_run(o, &r, NULL);
    return r.failed;
}

static void drop(struct sim_options *o, uint8_t *mask, uint32_t bits)
{
    for (uint32_t i = 0; i < bits; i++) {
        mask[i / 8] = (uint8_t)(mask[i / 8] | 1u << (i % 8));
        if (!still_fails(o))
            mask[i / 8] = (uint8_t)(mask[i / 8] & ~(1u << (i % 8)));
    }
}

static int shrink(struct sim_options *o)
{
    drop(o, o->fault_mask, 32);
    drop(o, o->mail_mask, 64);
    drop(o, o->fault_mask, 32);
    return replay(o);
}

/* ---- negative controls ---- */

static const char *const mutant_names[MUT_COUNT] = {
#define NAME(x) [x] = #x
    NAME(MUT_NO_QUARANTINE),
    NAME(MUT_LEASE_FROM_RECEIPT),
    NAME(MUT_MAJORITY_OF_ALIVE),
    NAME(MUT_FENCE_EARLY),
    NAME(MUT_GRANT_FENCED),
    NAME(MUT_NO_SYNC),
    NAME(MUT_NO_TABLE),
    NAME(MUT_LEARN_MINE),
    NAME(MUT_REOWN_ANY),
    NAME(MUT_NO_CONSENT),
    NAME(MUT_NO_TIE),
    NAME(MUT_CONSENT_AGAIN),
    NAME(MUT_ACK_BEFORE_DURABLE),
    NAME(MUT_GRANT_BEFORE_DURABLE),
    NAME(MUT_NO_INTENT),
    NAME(MUT_NO_DOUBT_HOLD),
    NAME(MUT_FORGET_EARLY),
    NAME(MUT_UNKNOWN_DELETES),
    NAME(MUT_LIST_SHRINK),
    NAME(MUT_NO_GATE),
    NAME(MUT_ACCEPT_ONE),
    NAME(MUT_NO_ECHO),
    NAME(MUT_NO_FENCE_CHECK),
    NAME(MUT_DONE_NOT_LOST),
    NAME(MUT_NO_RESPONSIVE),
    NAME(MUT_ABORT_NO_SEND),
    NAME(MUT_OUTCOME_RIGHTS),
    NAME(MUT_NO_FREEZE_CHECK),
    NAME(MUT_SPACING),
    NAME(MUT_NO_SEAL),
    NAME(MUT_NO_STALE_WAIT),
    NAME(MUT_EPOCH_REUSED),
    NAME(MUT_451_FENCED),
    NAME(MUT_FENCE_NEW),
    NAME(MUT_NARROW_CLAIM),
    NAME(MUT_RELEASE_KNOWER),
    NAME(MUT_NARROW_INTENT),
    NAME(MUT_ANY_OUTCOME),
    NAME(MUT_OLD_CONSENT),
    NAME(MUT_REOWN_ALONE),
    NAME(MUT_UNSYNCED),
    NAME(MUT_STILL_STATIC),
    NAME(MUT_STATIC_MAJORITY),
    NAME(MUT_COPY_COUNTS),
    NAME(MUT_OLD_TAGS),
    NAME(MUT_PROMISE_VOLATILE),
    NAME(MUT_STALE_DELIVERED),
    NAME(MUT_ROT_IGNORED),
    NAME(MUT_TWIN_GRANTED),
    NAME(MUT_STATIC_STRANGERS),
#undef NAME
};

static int controls(struct job j)
{
    int missed = 0;
    uint64_t only = j.mutant;
    for (uint8_t m = 1; m < MUT_COUNT; m++) {
        struct totals t = {0};
        if (only && m != only)
            continue;
        j.mutant = m;
        j.stop_at_first = true;
        run_jobs(&t, &j, 2);
        missed += t.failed == 0;
        printf("%-26s %s seed %llu %s\n", mutant_names[m] + 4,
            t.failed ? "caught" : "MISSED", (unsigned long long)t.first_failed, t.why);
        fflush(stdout);
    }
    return missed;
}

/* ---- saved seeds ---- */

static int mutant_of(const char *name)
{
    if (strcmp(name, "NONE") == 0)
        return MUT_NONE;
    for (int m = 1; m < MUT_COUNT; m++)
        if (mutant_names[m] && strcmp(mutant_names[m] + 4, name) == 0)
            return m;
    return -1;
}

/* With a switch the seed must fail, without one it must pass, in both modes. */
static int saved_line(const char *name, uint64_t seed)
{
    int m = mutant_of(name), wrong = 0;
    if (m < 0) {
        printf("unknown switch %s\n", name);
        return 1;
    }
    struct sim_options o = options_of(seed, (uint8_t)m);
    struct sim_result r;
    sim_run(&o, &r, NULL);
    if (m != MUT_NONE) {
        wrong = !r.failed || !passes_alone(o);
    } else {
        wrong = r.failed;
        o.liveness = !o.liveness;
        if (!wrong)
            sim_run(&o, &r, NULL);
        wrong |= r.failed;
    }
    printf("%-18s %8llu %s %s\n", name, (unsigned long long)seed, wrong ? "WRONG" : "ok",
        r.why);
    return wrong;
}

/* A switch that the swarm hardly meets has a scenario that does. */
static int saved_scenario(const char *name, const char *scenario, uint64_t seed)
{
    struct sim_result with, without;
    int m = mutant_of(name);
    bool wrong = m <= 0 || !scenario_with(scenario, seed, (uint8_t)m, &with) ||
                 !scenario_with(scenario, seed, MUT_NONE, &without) || !with.failed ||
                 without.failed;
    printf("%-18s %s %llu %s %s\n", name, scenario, (unsigned long long)seed,
        wrong ? "WRONG" : "ok", wrong ? "" : with.why);
    return wrong;
}

static int saved(const char *path)
{
    char line[256], name[64], scenario[64];
    unsigned long long seed;
    int wrong = 0, lines = 0;
    FILE *f = path ? fopen(path, "r") : NULL;
    if (!f) {
        printf("no file of seeds\n");
        return 2;
    }
    while (fgets(line, sizeof(line), f))
        if (line[0] == '#') {
            continue;
        } else if (sscanf(line, "%63s @%63s %llu", name, scenario, &seed) == 3) {
            wrong += saved_scenario(name, scenario, seed);
            lines++;
        } else if (sscanf(line, "%63s %llu", name, &seed) == 2) {
            wrong += saved_line(name, seed);
            lines++;
        }
    fclose(f);
    return wrong || lines == 0;
}

/* ---- command line ---- */

static uint64_t number(int argc, char **argv, const char *name, uint64_t otherwise)
{
    for (int i = 2; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return strtoull(argv[i + 1], NULL, 10);
    return otherwise;
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "run";
    uint64_t seed = number(argc, argv, "--seed", 1);
    struct job j = {.from = number(argc, argv, "--from", 1),
        .count = number(argc, argv, "--count", 2000),
        .seconds = (double)number(argc, argv, "--seconds", 0),
        .mutant = (uint8_t)number(argc, argv, "--mutant", 0),
        .list = number(argc, argv, "--list", 0) != 0,
        .changing = number(argc, argv, "--changing", 0) != 0,
        .steady = number(argc, argv, "--steady", 0) != 0,
        .stop_at_first = number(argc, argv, "--first", 0) != 0};
    struct sim_options o = options_of(seed, j.mutant);
    /* worlds are big and short-lived: their pages stay ours */
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    if (strcmp(verb, "replay") == 0)
        return replay(&o);
    if (strcmp(verb, "shrink") == 0)
        return shrink(&o);
    if (strcmp(verb, "controls") == 0)
        return controls(j);
    if (strcmp(verb, "hunt") == 0)
        return scenario_hunt(j.mutant, number(argc, argv, "--seeds", 40),
            argc > 2 && argv[2][0] != '-' ? argv[2] : NULL);
    if (strcmp(verb, "scale") == 0)
        return scale();
    if (strcmp(verb, "saved") == 0)
        return saved(argc > 2 ? argv[2] : NULL);
    if (strcmp(verb, "trace") == 0 && argc > 3) {
        char *trace = calloc(TRACE_LINES, TRACE_WIDTH);
        scenario_trace(argv[2], strtoull(argv[3], NULL, 10), trace);
        print_trace(trace);
        free(trace);
        return 0;
    }
    if (strcmp(verb, "scenarios") == 0)
        return scenarios(argc > 2 ? argv[2] : NULL);
    if (number(argc, argv, "--fresh", 0)) {
        struct timespec day;
        clock_gettime(CLOCK_REALTIME, &day);
        j.from = (uint64_t)day.tv_sec * 1000;
        printf("fresh seeds from %llu\n", (unsigned long long)j.from);
    }
    struct totals t = {0};
    double start = wall();
    if (j.seconds > 0)
        j.count = UINT64_MAX / 2;
    run_jobs(&t, &j, (unsigned)number(argc, argv, "--jobs", 2));
    report(&t, wall() - start);
    return t.failed != 0;
}
