/* SPDX-License-Identifier: Apache-2.0 */
/* sim: seeds, replay, shrinking, soak. */
#include "tests/sim/control.h"
#include "tests/sim/profile.h"

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

static bool strict; /* --strict: DSNs, and a look before the last deliveries, always */

/* One seed in four runs in liveness mode, one in thirteen with DSNs and the look at what
 * is held before the last deliveries. */
static struct sim_options options_of(
    const struct profile *p, uint64_t seed, uint8_t mutant)
{
    struct sim_options o = {0};
    if (p)
        o = p->o;
    o.profile = p;
    o.seed = seed;
    o.mutant = mutant;
    o.liveness = seed % 4 == 3;
    o.dsn = o.held = seed % 13 == 2 || strict;
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
    unsigned jobs;
    const struct profile *profile;
    const char *scenario; /* or NULL */
    uint8_t mutant;
    bool stop_at_first, list;
    bool changing; /* only worlds whose operator changes the cluster */
    bool steady;   /* only the others */
};

static void run_one(
    const struct job *j, uint64_t seed, uint8_t mutant, struct sim_result *r)
{
    struct sim_options o = options_of(j->profile, seed, mutant);
    if (!j->scenario)
        sim_run(&o, r, NULL);
    else if (!scenario_with(j->scenario, seed, mutant, r))
        exit(2);
}

/* The same seed twice must match. */
static void run_again(
    struct totals *t, const struct job *j, uint64_t seed, const struct sim_result *first)
{
    struct sim_result again;
    run_one(j, seed, j->mutant, &again);
    if (again.hash == first->hash && again.events == first->events)
        return;
    snprintf(again.why, sizeof(again.why), "not deterministic");
    again.failed = true;
    add(t, &again, seed);
}

static bool skipped(const struct job *j, uint64_t seed)
{
    return !j->profile && !j->scenario &&
           (operator_world(seed) ? j->steady : j->changing);
}

static void run_range(
    struct totals *t, const struct job *j, unsigned part, unsigned parts)
{
    double until = wall() + j->seconds;
    for (uint64_t k = part; k < j->count; k += parts) {
        uint64_t seed = j->from + k;
        struct sim_result r, alone;
        if (skipped(j, seed))
            continue;
        run_one(j, seed, j->mutant, &r);
        if (r.failed && j->mutant) {
            run_one(j, seed, MUT_NONE, &alone);
            if (alone.failed)
                continue; /* the switch is not what fails here */
        }
        add(t, &r, seed);
        if (r.failed && j->list)
            fprintf(stderr, "seed %llu: %s\n", (unsigned long long)seed, r.why);
        if ((r.failed && j->stop_at_first) || (j->seconds > 0 && wall() > until))
            return;
        if (seed % 100 == 0 && !r.failed)
            run_again(t, j, seed, &r);
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

/* "": the swarm; a profile; "@" and a scenario. False: there is no such. */
static bool world_of(const char *name, struct job *j)
{
    j->scenario = name[0] == '@' ? name + 1 : NULL;
    j->profile = j->scenario ? NULL : profile_find(name);
    return j->scenario || j->profile || !name[0];
}

static int controls(struct job j, const char *world)
{
    int missed = 0;
    uint8_t only = j.mutant;
    printf("switch | rule | world | seed | violation\n");
    for (uint8_t m = 1; m < MUT_COUNT; m++) {
        const struct control *c = control_at(m);
        struct totals t = {0};
        if ((only && m != only) || !world_of(world ? world : c->world, &j))
            continue;
        j.mutant = m;
        j.stop_at_first = true;
        run_jobs(&t, &j, j.jobs);
        missed += t.failed == 0;
        printf("%s | %s | %s | ", c->name, c->rule, world ? world : c->world);
        if (t.failed)
            printf("%llu | %s\n", (unsigned long long)t.first_failed, t.why);
        else
            printf("MISSED in %llu\n", (unsigned long long)t.seeds);
        fflush(stdout);
    }
    return missed != 0;
}

/* ---- saved seeds ---- */

/* With a switch the seed must fail, without one it must pass; what taught something of
 * the swarm must pass in both modes. */
static int saved_line(const char *name, const char *world, uint64_t seed)
{
    struct job j = {0};
    struct sim_result with, without;
    int m = control_find(name);
    if (m < 0 || !world_of(world, &j)) {
        printf("unknown: %s %s\n", name, world);
        return 1;
    }
    run_one(&j, seed, MUT_NONE, &without);
    bool wrong = without.failed;
    if (m != MUT_NONE) {
        run_one(&j, seed, (uint8_t)m, &with);
        wrong |= !with.failed;
    } else if (!wrong && !j.scenario) {
        struct sim_options o = options_of(j.profile, seed, MUT_NONE);
        o.liveness = !o.liveness;
        sim_run(&o, &without, NULL);
        wrong |= without.failed;
    }
    printf("%-20s %-26s %8llu %s %s\n", name, world, (unsigned long long)seed,
        wrong ? "WRONG" : "ok", wrong || m == MUT_NONE ? without.why : with.why);
    return wrong;
}

static int saved(const char *path)
{
    char line[256], name[64], world[64];
    unsigned long long seed;
    int wrong = 0, lines = 0;
    FILE *f = path ? fopen(path, "r") : NULL;
    if (!f) {
        printf("no file of seeds\n");
        return 2;
    }
    while (fgets(line, sizeof(line), f)) {
        if (line[0] == '#')
            continue;
        if (sscanf(line, "%63s %llu", name, &seed) == 2)
            world[0] = 0;
        else if (sscanf(line, "%63s %63s %llu", name, world, &seed) != 3)
            continue;
        wrong += saved_line(name, world, seed);
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

static const char *word(int argc, char **argv, const char *name)
{
    for (int i = 2; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    return NULL;
}

static uint8_t mutant_of(int argc, char **argv)
{
    const char *name = word(argc, argv, "--mutant");
    int m = name ? control_find(name) : MUT_NONE;
    if (m < 0) {
        fprintf(stderr, "no such switch: %s\n", name);
        exit(2);
    }
    return (uint8_t)m;
}

/* All profiles, one after the other, with the healthy core. */
static int profiles(struct job j)
{
    int failed = 0;
    size_t count = 0;
    const struct profile *p;
    while (profile_at(count))
        count++;
    j.seconds /= (double)count;
    for (size_t i = 0; (p = profile_at(i)) != NULL; i++) {
        struct totals t = {0};
        double start = wall();
        j.profile = p;
        run_jobs(&t, &j, j.jobs);
        printf("%-12s %llu seeds, %llu failed, %.1f s %s\n", p->name,
            (unsigned long long)t.seeds, (unsigned long long)t.failed, wall() - start,
            t.why);
        fflush(stdout);
        failed += t.failed != 0;
    }
    return failed != 0;
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "run";
    uint64_t seed = number(argc, argv, "--seed", 1);
    struct job j = {.from = number(argc, argv, "--from", 1),
        .count = number(argc, argv, "--count", 2000),
        .seconds = (double)number(argc, argv, "--seconds", 0),
        .jobs = (unsigned)number(argc, argv, "--jobs", 2),
        .mutant = mutant_of(argc, argv),
        .list = number(argc, argv, "--list", 0) != 0,
        .changing = number(argc, argv, "--changing", 0) != 0,
        .steady = number(argc, argv, "--steady", 0) != 0,
        .stop_at_first = number(argc, argv, "--first", 0) != 0};
    strict = number(argc, argv, "--strict", 0) != 0;
    /* worlds are big and short-lived: their pages stay ours */
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    const char *world = word(argc, argv, "--profile");
    if (world && !world_of(world, &j)) {
        fprintf(stderr, "no such profile: %s\n", world);
        return 2;
    }
    struct sim_options o = options_of(j.profile, seed, j.mutant);
    if (number(argc, argv, "--fresh", 0)) {
        struct timespec day;
        clock_gettime(CLOCK_REALTIME, &day);
        j.from = (uint64_t)day.tv_sec * 1000;
        printf("fresh seeds from %llu\n", (unsigned long long)j.from);
    }
    if (j.seconds > 0)
        j.count = UINT64_MAX / 2;
    if (strcmp(verb, "replay") == 0)
        return replay(&o);
    if (strcmp(verb, "shrink") == 0)
        return shrink(&o);
    if (strcmp(verb, "controls") == 0)
        return controls(j, world);
    if (strcmp(verb, "profiles") == 0)
        return profiles(j);
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
    struct totals t = {0};
    double start = wall();
    run_jobs(&t, &j, j.jobs);
    report(&t, wall() - start);
    return t.failed != 0;
}
