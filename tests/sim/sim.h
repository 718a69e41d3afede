/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulator: whole clusters of cores in one thread, one virtual clock, one seed.
 * Everything that happens follows from struct sim_options; the same options give the same
 * run to the last bit. The oracle (oracle.c) sees all nodes and all disks at once.
 */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include "cluster/core/internal.h"
#include "tests/sim/kill.h"

#define NODES_MAX 8
#define MAILS_MAX 512
#define UNITS_MAX 4096
#define ATTEMPTS_MAX 65536
#define FAULTS_MAX 256
#define DISK_UNITS 2048
#define DISK_QUEUE 4096
#define RCPTS_MAX 3
#define DSNS_MAX 512 /* mails above MAILS_MAX */
#define MS CORE_MS
#define SEC CORE_SEC

enum fault_kind {
    FAULT_NONE,
    FAULT_CRASH,     /* node a: process killed, back after arg */
    FAULT_PAUSE,     /* node a: SIGSTOP for arg */
    FAULT_FREEZE,    /* node a: VM freeze, its clock stops, for arg */
    FAULT_CUT,       /* link a -> b drops everything for arg */
    FAULT_CUT_BOTH,  /* link a <-> b */
    FAULT_ISOLATE,   /* a from everybody, both ways */
    FAULT_DEAF,      /* everybody -> a dropped */
    FAULT_MUTE,      /* a -> everybody dropped */
    FAULT_STALL,     /* link a -> b holds frames for arg, then a burst */
    FAULT_RECONNECT, /* link a -> b: frames lost, old ones may come after new ones */
    FAULT_LOSS,      /* every link loses 30 % for arg */
    FAULT_SLOW_DISK, /* node a: commits take up to arg */
    FAULT_EIO,       /* node a: next commit fails, outcome unknown */
    FAULT_FULL,      /* node a: disk full for arg */
    FAULT_RESIGN,    /* node a: clean restart */
    FAULT_STEAL,     /* owners offer units to other holders for arg */
    FAULT_FLAP,      /* link a <-> b up and down every 1 to 5 s, for arg */
    FAULT_CRASH_ALL,
    FAULT_SPLIT_CRASH, /* a crashes; b crashes right after */
    FAULT_STALL_CUT,   /* what a hears comes late, what it says is lost */
    FAULT_OPERATOR,    /* node b: enum op_kind in arg */
    FAULT_SNAPSHOT,    /* node a: its disk is copied ... */
    FAULT_RESTORE,     /* ... and comes back in its place, after arg */
    FAULT_ROT,         /* node a: the mail of a unit rots on its disk */
    FAULT_STALL_OUT,   /* what a says is held for arg, then comes all at once */
    FAULT_KINDS
};

struct fault {
    uint64_t at;
    uint8_t kind, a, b;
    bool off; /* dropped by the shrinker */
    uint64_t arg;
};

/* What the operator does with the members. */
enum op_kind {
    OP_INIT = 1, /* birth */
    OP_ADD,
    OP_LEAVE,   /* stopped for ever, then removed */
    OP_REPLACE, /* its disk is lost; a new node comes under its name */
    OP_VOTE,    /* becomes a voter, or is one no more */
    OP_COPIES,
    OP_MODE,
    OP_DRAIN,
    OP_UNDRAIN,
    OP_RETURN,   /* a removed node is switched on */
    OP_KILL,     /* for ever, and nobody says so */
    OP_MODE_OFF, /* static to quorum without node b, which is off, and then comes back */
    OP_SETTLE,   /* no static cluster with members that are no voters */
    OP_FORCE_FENCE,
    OP_FORCE_CONFIG, /* without those that are dead for ever */
};

enum world_shape {
    WORLD_FIXED,
    WORLD_BIRTH,  /* one node without configuration, and spares */
    WORLD_STATIC, /* two nodes */
    WORLD_TRIO,   /* three static nodes on their way to quorum mode */
    WORLD_QUORUM,
    WORLD_PAIR, /* two nodes and a witness */
};

struct sim;
struct profile;

struct sim_options {
    uint64_t seed;
    const struct profile *profile; /* NULL: the swarm */
    uint8_t mutant;                /* enum mutant */
    bool trace;
    bool liveness; /* some node stays broken after the heal */
    bool plain;    /* no random faults: a scenario brings its own */
    /* shrinking */
    uint8_t fault_mask[FAULTS_MAX / 8]; /* 1: dropped */
    uint8_t mail_mask[MAILS_MAX / 8];
    /* overrides of what the seed would choose; 0: the seed chooses */
    uint8_t nodes, voters, copies, min_copies, mails, mode;
    uint32_t lease_s;
    uint32_t doubt_s, stale_s, repair_s;
    uint64_t fault_phase;
    const struct fault *script;
    uint32_t script_count;
    void (*hook)(struct sim *sim); /* called on every mail accepted, for scenarios */
    bool clean_network;
    uint32_t expires_s;     /* of mail */
    uint32_t wall_jump_s;   /* the wall clock jumps by T_tomb then */
    bool share;             /* nodes tell their load; all clients come to the first one */
    uint32_t size;          /* of every mail, bytes */
    uint32_t bulk_mb_s;     /* what a link carries of bodies until the heal */
    int32_t rate_ppm;       /* clocks are off by this, to either side */
    uint32_t defer_until_s; /* destinations answer 4xx until then */
    uint32_t defer_ppm;     /* ... and so often all the time */
    uint32_t slow_s;        /* they take up to that long for each answer */
    uint8_t shape, spares;  /* enum world_shape: the operator changes the cluster */
    bool auto_voters;
    bool paxos_deaf;  /* ... at which it hears nothing for a while */
    bool paxos_crash; /* the seed says at which store of a Paxos row its node dies */
    uint32_t demote_s;
    uint8_t kill_first, kill_count; /* of enum kill_step: the seed takes one of these */
    bool dsn;  /* failures owe a DSN, which the node submits before it reports them */
    bool held; /* after the heal destinations answer 4xx for as long as all may take */
};

struct sim_result {
    bool failed;
    char why[256];
    uint64_t events, hash;
    uint64_t sim_ns;
    uint64_t faults[FAULT_KINDS];
    uint64_t dups[10]; /* by cause */
    uint64_t sometimes[ST_COUNT];
    uint64_t accepted, delivered, failed_rcpts, refused;
    uint64_t bulk_most;    /* bytes of mail on their way over one link, at most */
    uint64_t takeover[64]; /* each takeover's time, the first 64 */
    uint64_t takeover_ns;  /* longest from crash of owner to its units owned again */
    uint32_t takeovers;
    uint32_t invariant_checks[21];
    uint64_t cfg_steps, jobs_done;
    uint32_t cfg_modes; /* bit: enum core_mode */
    uint64_t lease_gap; /* longest that a process had a lease, none, and one again */
    uint32_t killed;    /* bit: enum kill_step */
    uint64_t
        heir_wait; /* longest from a takeover to an attempt that nothing holds back */
    uint32_t paxos_kills;                    /* bit: at which store of a Paxos row */
    uint64_t steps_in_round, fences_carried; /* versions decided while a fence was asked
                                                for; fences that a new set took over */
    uint64_t returned, redelivered; /* removed nodes that were switched on; deliveries by
                                       a node of what was delivered before it started */
    uint8_t voters_max, mode_end, voters_end, members_end;
};

#define JOBS_MAX 64
#define GODS_MAX 256
#define SETS_MAX 128

struct op_job {
    uint8_t kind, target, with, stage, tries;
    bool done;
    uint64_t until;
};

struct god_cfg {
    uint64_t ver, hash;
    uint8_t voters, mode;
};

struct god_set { /* of voters */
    uint64_t ver, prev;
    uint64_t since[NODES_MAX]; /* serves here, and in no set before; 0: does not */
    uint8_t voters, active;    /* bit a node */
    bool first, reads;
    uint32_t closed[NODES_MAX]; /* by a quorum of the set before */
};

struct sim_config {
    uint8_t shape, spares;
    uint64_t rng;
    struct op_job job[JOBS_MAX];
    uint32_t job_count, jobs_done, paxos_stores;
    uint32_t answers[4];                    /* by enum admin_result */
    bool joined[NODES_MAX], off[NODES_MAX]; /* off: not to be started yet */
    uint8_t named[NODES_MAX];               /* whose name it took over, + 1 */
    struct god_cfg god[GODS_MAX];
    struct god_set set[SETS_MAX];
    uint32_t god_count, set_count;
    uint32_t closed[NODES_MAX]; /* certified: F somewhere */
    bool sworn[NODES_MAX];      /* to be off, by the operator */
    uint32_t forced[NODES_MAX]; /* sessions that the operator swore to be over */
};

struct disk_store {
    uint64_t token;
    uint8_t op_count;
    bool may_fail;
    struct core_op op[CORE_STORE_OPS];
    struct core_cfg *cfg; /* copy, when an op is OP_CFG */
};

enum disk_mail { MAIL_NONE, MAIL_GOOD, MAIL_ROTTEN };
#define ASIDE_MAX 256

struct disk {
    struct core_meta meta;
    struct core_cfg cfg;
    struct core_paxos_row paxos;
    struct sess_row sess[NODES_MAX + 2];
    struct core_fence_row fence[NODES_MAX + 2];
    int sess_count, fence_count;
    struct sess_row was[NODES_MAX + 2]; /* sess when the present set of voters began */
    int was_count;
    struct unit_row unit[DISK_UNITS];
    uint8_t mail[DISK_UNITS]; /* enum disk_mail of unit[i] */
    struct core_unit_id aside[ASIDE_MAX];
    uint32_t aside_count;
    uint32_t hash[DISK_UNITS * 2]; /* index + 1 */
    uint32_t unit_count;
    /* queue */
    struct disk_store *queue; /* ring */
    uint32_t head, count, batch;
    bool busy;
    uint64_t slow_until, slow_ns, full_until;
    bool was_full;
    bool eio;
    uint64_t busy_since;
};

struct attempt { /* one SMTP transaction of a node */
    struct core_unit_id id;
    uint64_t attempt, rcpts;
    uint64_t started, gate_at, dot_at;
    uint32_t unit; /* index in sim->unit */
    uint32_t gen;
    uint32_t epoch;
    uint8_t node;
    bool intent_ok, passed, gone;
    uint8_t listed; /* bit a node: in the owner's list when the intent was ok */
    bool unbounded; /* passed a gate that no lease closes */
    bool kernel;    /* the bytes of its dot wait in the kernel */
    bool dsn_done;
    bool frozen_between; /* the VM froze between gate and dot */
    bool clock_lost;     /* passed the gate by a clock that had stood still */
    uint64_t delivered, failed, deferred;
    bool reply_lost;
    uint8_t leaving; /* bit a node: its release was ordered before this began */
    /* who knew of it, with the process that knew */
    uint32_t intent_gen[NODES_MAX], intent_epoch[NODES_MAX];
};

struct delivery {
    uint32_t attempt; /* index */
    uint64_t at;
};

struct god_unit {
    struct core_unit_id id;
    uint32_t mail, submission;
    uint8_t rcpts, node;
    uint32_t epoch;
    uint64_t failed; /* refused for ever by the world and reported */
    uint64_t delivered;
    uint64_t told[NODES_MAX]; /* delivered bits that an Outcome brought to the node ... */
    uint32_t told_gen[NODES_MAX]; /* ... in this life of its process */
    uint64_t told_at[NODES_MAX][RCPTS_MAX];
    uint64_t risk; /* tried again after the doubt was held for its time: D1 or D2 */
    uint64_t delivered_by[RCPTS_MAX]; /* last attempt index + 1 */
    bool acked, taken;
    uint8_t abort_told; /* bit a node: the abort was sent to it */
    struct {
        uint32_t term;
        uint8_t gave; /* bit a node: it consented, or knows nothing */
        uint64_t work, at;
    } asked[NODES_MAX];                     /* by a claim of the node */
    uint8_t tried;                          /* bit a node: it made an attempt */
    bool forgot;                            /* its owner said that all may forget it */
    bool is_dsn, twice;                     /* a DSN; made by two sessions */
    uint64_t remade_at;                     /* when the session that made it was over */
    uint64_t dsn_rcpts;                     /* failed, and their DSN has its 250 */
    uint64_t consent[NODES_MAX][NODES_MAX]; /* [claimant][who]: term << 32 | session */
    uint64_t acked_at;
    uint64_t hold_from[NODES_MAX]; /* when the node became owner, local doubt then */
    uint64_t doubt_at_own[NODES_MAX], doubt_attempt[NODES_MAX];
    uint32_t own_gen[NODES_MAX], own_epoch[NODES_MAX];
};

enum client_reply { CLIENT_NONE, CLIENT_250, CLIENT_451, CLIENT_CLOSE };

struct submission {
    uint32_t first_unit, unit_count;
    uint8_t node;
    uint32_t gen;
    uint64_t at;
    uint8_t reply; /* what the core said: enum accept_reply */
    uint8_t heard; /* what the client got: enum client_reply */
};

struct mail {
    uint64_t at;
    uint8_t parts, rcpts[3];
    uint8_t tries;
    uint32_t size;
    bool done; /* client got 250 */
    struct submission sub[12];
    struct core_unit_id dsn;             /* its unit, if the mail is one */
    uint32_t attempt;                    /* that made it */
    uint32_t delivered_by[3][RCPTS_MAX]; /* submission + 1 */
};

struct sched {
    struct core_unit_id id;
    uint64_t rcpts;
    bool used;
    uint64_t at;
};

struct node {
    uint64_t id;
    bool exists, alive, permanent_dead, old_image;
    uint32_t gen;
    void *mem;
    struct core *core;
    struct disk disk;
    struct disk *snapshot;
    bool restored; /* runs from an old image: nothing is asked of it */
    uint32_t last_epoch, last_gen;
    uint64_t fence_at;     /* it learned a fence last */
    uint32_t claiming[64]; /* units that it asks for, and has not dropped since */
    uint32_t claiming_count;
    uint8_t down_before;    /* passed for down before this step: bit a node */
    uint32_t fences_before; /* fences its core had learned before this step */
    struct core_gate_value gate;
    /* clock */
    uint64_t base_true, base_local;
    int32_t rate_ppm;
    uint64_t paused_until;
    bool freezing;
    uint64_t freeze_end, freeze_length;
    bool clock_lost;    /* its clock stood still and no voter has spoken to it since */
    uint32_t reference; /* whose clocks it knew when its own stood still */
    uint64_t started_at;
    uint64_t tick_at, told_age, wall_at, load_at;
    uint64_t crashed_at;
    uint64_t right_at;  /* it had a lease then ... */
    uint32_t right_gen; /* ... in this life of its process */
    bool crash_measured;
    struct sched sched[UNITS_MAX / 8];
    uint64_t steal_until;
};

struct link {
    uint64_t cut_until, stall_until, flap_until;
    uint32_t loss_ppm;
    uint64_t last[LANE_COUNT];
    uint64_t bulk_bytes, bulk_free; /* bodies on their way; when the last is through */
    uint64_t drop_before; /* frames sent earlier are lost at delivery (reconnect) */
    bool deaf_for_ever;
};

enum sim_event_kind {
    SE_TICK,
    SE_MSG,
    SE_DISK,
    SE_START,
    SE_FAULT,
    SE_CLIENT,
    SE_CLIENT_REPLY,
    SE_SCHED,
    SE_GATE,
    SE_DOT,
    SE_REPLY,
    SE_STEAL,
    SE_CRASH,
    SE_SCRUB,
    SE_ADMIN
};

struct sim_event {
    uint64_t at, tie;
    uint8_t kind, node;
    uint32_t gen, x, y;
};

struct sim {
    struct sim_options o;
    struct sim_result r;
    uint64_t now;
    uint64_t rng_net, rng_disk, rng_world, rng_fault;
    struct sim_event *heap;
    uint32_t heap_count, heap_cap;
    uint64_t tie;
    struct node node[NODES_MAX];
    uint8_t node_count;
    struct link link[NODES_MAX][NODES_MAX];
    struct core_msg *msg;
    uint64_t *msg_sent;
    uint32_t msg_cap, msg_free, *msg_next;
    struct core_params params;
    struct core_cfg cfg; /* the first */
    struct sim_config config;
    struct mail mail[MAILS_MAX + DSNS_MAX];
    uint32_t mail_count, dsn_count;
    uint64_t held_until;
    bool held_checked;
    struct god_unit unit[UNITS_MAX];
    uint32_t unit_count;
    uint32_t unit_hash[UNITS_MAX * 2];
    struct attempt *attempt;
    uint32_t attempt_count;
    struct fault fault[FAULTS_MAX];
    uint32_t fault_count, sprung;
    uint64_t heal_at;
    bool healed, killed_one;
    uint64_t delay_min, delay_max;
    uint32_t dup_ppm, base_loss_ppm;
    uint64_t disk_min, disk_max;
    uint32_t buggify;
    uint32_t defer_ppm, fail_ppm, lost_reply_ppm;
    uint64_t freeze_any; /* a node froze: D3 is possible until then */
    bool no_accept;
    bool rolled_back; /* a disk forgot what it had promised */

    uint64_t trace_count;
    char *trace; /* ring of lines */
};

/* A unit in a trace: node that accepted it . epoch-and-counter . part */
#define UID "%u.%llx.%u"
#define UIDV(id)                                                                         \
    (unsigned)((id)->hi & 0xff) - 1, (unsigned long long)((id)->lo & 0xffffffffffff),    \
        (id)->part

#define TRACE_LINES 20000
#define TRACE_WIDTH 160

/* sim.c */
void sim_run(const struct sim_options *o, struct sim_result *r, char *trace);
void sim_fail(struct sim *sim, int invariant, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void sim_trace(struct sim *sim, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
#define TRACE(sim, ...)                                                                  \
    do {                                                                                 \
        if ((sim)->o.trace)                                                              \
            sim_trace(sim, __VA_ARGS__);                                                 \
    } while (0)
void sim_at(struct sim *sim, uint64_t at, enum sim_event_kind kind, uint8_t node,
    uint32_t gen, uint32_t x, uint32_t y);
uint64_t sim_random(uint64_t *state);
uint64_t sim_below(uint64_t *state, uint64_t n);
bool sim_chance(uint64_t *state, uint32_t ppm);
uint8_t sim_node_of(const struct sim *sim, uint64_t id);

/* scenario.c */
int scenarios(const char *only);
bool scenario_with(const char *name, uint64_t seed, uint8_t mutant, struct sim_result *r);
int scenario_hunt(uint8_t mutant, uint64_t seeds, const char *only);
void scenario_trace(const char *name, uint64_t seed, char *trace);

/* scale.c */
int scale(void);

/* node.c */
uint64_t node_clock(const struct sim *sim, const struct node *n);
uint64_t node_true(const struct sim *sim, const struct node *n, uint64_t local);
void node_start(struct sim *sim, uint8_t i);
void node_crash(struct sim *sim, uint8_t i, const char *why);
void node_step(struct sim *sim, uint8_t i, struct core_event *e);
void node_tick(struct sim *sim, uint8_t i);

/* net.c */
void net_send(struct sim *sim, uint8_t from, const struct core_msg *msg);
void net_deliver(struct sim *sim, const struct sim_event *e);
const char *net_name(uint8_t kind);

/* disk.c */
void disk_init(struct disk *d);
void disk_push(struct sim *sim, uint8_t i, const struct core_command *c);
void disk_done(struct sim *sim, const struct sim_event *e);
void disk_crash(struct sim *sim, uint8_t i);
void disk_boot(struct sim *sim, uint8_t i);
struct unit_row *disk_find(struct disk *d, const struct core_unit_id *id);
uint8_t disk_mail(struct disk *d, const struct core_unit_id *id);
void disk_snapshot(struct sim *sim, uint8_t i);
void disk_restore(struct sim *sim, uint8_t i);
void disk_rot(struct sim *sim, uint8_t i);
bool disk_aside(const struct disk *d, const struct core_unit_id *id);

/* world.c */
void world_init(struct sim *sim);
void world_event(struct sim *sim, const struct sim_event *e);
void world_reply(struct sim *sim, uint8_t node, uint64_t handle, uint8_t reply,
    const struct core_unit_id *id);
void world_start(struct sim *sim, uint8_t node, const struct core_command *c);
void world_attempt(struct sim *sim, uint8_t node, const struct core_command *c);
void world_intent_ok(struct sim *sim, uint8_t node, const struct core_command *c);
void world_cancel(struct sim *sim, uint8_t node, const struct core_command *c);
void world_register(
    struct sim *sim, uint8_t node, uint64_t handle, const struct unit_row *row);
bool world_readable(struct sim *sim, uint8_t node, const struct core_unit_id *id);
uint64_t wall_s(const struct sim *sim);
void world_load(struct sim *sim, uint8_t i);
struct god_unit *world_unit(struct sim *sim, const struct core_unit_id *id);

/* faults.c */
void faults_step(struct sim *sim, enum kill_step step, uint8_t node);
void faults_plan(struct sim *sim);
void faults_apply(struct sim *sim, uint32_t index);
void faults_heal(struct sim *sim);
const char *fault_name(uint8_t kind);
uint64_t fault_length(struct sim *sim, uint8_t kind);

/* operator_plan.c */
bool operator_world(uint64_t seed);
void operator_setup(struct sim *sim);
void operator_ident(uint8_t key_of, uint8_t name_of, struct core_ident *out);

/* operator.c */
void operator_job(struct sim *sim, uint8_t kind, uint8_t target, uint64_t at);
void operator_event(struct sim *sim, const struct sim_event *e);
void operator_answer(struct sim *sim, const struct core_command *c);
void operator_fault(struct sim *sim, const struct fault *f);
void operator_heal(struct sim *sim);
/* A Paxos row is on its way to the disk of node i: a good moment for an accident. */
void operator_paxos(struct sim *sim, uint8_t i);
bool operator_quiet(const struct sim *sim);

/* oracle_config.c */
const struct core_cfg *sim_newest(const struct sim *sim);
void oracle_cfg(struct sim *sim, uint8_t i, const struct core_cfg *c);
void oracle_config_step(struct sim *sim, uint8_t i);
void oracle_config_end(struct sim *sim);
void oracle_config_crash(struct sim *sim, uint8_t node);
void oracle_evidence(struct sim *sim, const struct core_fence_row *row);
void oracle_paxos(struct sim *sim, uint8_t node, const struct core_paxos_row *before,
    const struct core_paxos_row *after);

/* oracle_claim.c */
void oracle_asks(struct sim *sim, uint8_t node, const struct core_msg *m);
void oracle_consent(struct sim *sim, uint8_t node, const struct core_msg *m);
void oracle_claims(struct sim *sim, uint8_t node); /* after each step */
void oracle_claimed(struct sim *sim, uint8_t node, const struct unit_row *row);

/* oracle.c */
void oracle_send(struct sim *sim, uint8_t node, const struct core_msg *msg);
void oracle_250(struct sim *sim, uint8_t node, struct submission *s);
void oracle_451(struct sim *sim, uint8_t node, struct submission *s);
void oracle_row(struct sim *sim, uint8_t node, const struct unit_row *before,
    const struct unit_row *after);
void oracle_list(struct sim *sim, uint8_t node, const struct unit_row *before,
    const struct unit_row *after);
void oracle_gate(struct sim *sim, struct attempt *a);
uint8_t oracle_listed(struct sim *sim, uint8_t node, const struct core_unit_id *id);
bool oracle_held(
    const struct sim *sim, const struct god_unit *g, const struct attempt *a);
void oracle_delivered(struct sim *sim, struct attempt *a, struct god_unit *g, int rcpt);
void oracle_step(struct sim *sim, uint8_t node);
void oracle_sweep(struct sim *sim);
void oracle_own(
    struct sim *sim, uint8_t node, const struct core_unit_id *id, uint64_t doubt);
bool oracle_quiet(struct sim *sim);
void oracle_end(struct sim *sim);
void oracle_describe(struct sim *sim);
bool oracle_fenced(const struct sim *sim, uint8_t node, uint32_t epoch);
bool oracle_lost_time(const struct sim *sim, uint8_t node);
bool oracle_gate_open(const struct sim *sim, uint8_t node);

/* oracle_strict.c */
void oracle_session(struct sim *sim, uint8_t node);
void oracle_mine(struct sim *sim, uint8_t node, const struct unit_row *before,
    const struct core_op *op);
void oracle_said_yes(struct sim *sim, uint8_t node, const struct core_msg *m);
void oracle_closing(struct sim *sim, uint8_t node, uint32_t epoch);
void oracle_dot(struct sim *sim, const struct attempt *a);
void oracle_new_row(struct sim *sim, uint8_t node, const struct unit_row *row);
void oracle_bounced(struct sim *sim, uint8_t node, const struct unit_row *row);
void oracle_bounds(struct sim *sim, uint8_t node);
const char *oracle_late_promise(struct sim *sim, uint8_t node, const struct core_msg *m);
void oracle_look(struct sim *sim);

/* dsn.c */
bool dsn_owed(struct sim *sim, struct attempt *a, const struct sim_event *e);
void dsn_reply(struct sim *sim, uint8_t node, uint64_t handle, uint8_t reply);

#endif
