/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cluster core: who holds which copy, who may deliver, who takes over.
 *
 * One deterministic function from (state, event with its time) to commands. It never does
 * I/O, never reads a clock, allocates only from the memory given at core_init, and draws
 * random numbers only from its own generator. One thread owns a core. The protocol, its
 * reasons and the table of legal states are in cluster/README.md.
 *
 * The caller: reads its clock, makes an event, calls core_step, carries out the commands
 * in order. Stores must reach the disk in the order of their tokens; each is answered by
 * EV_STORED once it is durable. A store whose `may_fail` is 0 must not fail: the process
 * ends instead (a failed fsync leaves nobody knowing what is on disk).
 */
#ifndef CLUSTER_CORE_CORE_H
#define CLUSTER_CORE_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster/core/msg.h"

#define CORE_MEMBERS_MAX 120
#define CORE_PARTS_MAX 128
/* Bytes of mail that may be on their way to one peer (at first, at most) and to the disk
 * of one node from all; as much may wait for its 250. */
#define CORE_CREDIT_START (UINT64_C(8) << 20)
#define CORE_CREDIT_MAX (UINT64_C(64) << 20)
#define CORE_CREDIT_ALL (UINT64_C(256) << 20)
#define CORE_MS UINT64_C(1000000)
#define CORE_SEC UINT64_C(1000000000)
#define CORE_FOREVER UINT64_MAX

enum core_role {
    ROLE_VOTER = 1,
    ROLE_STORE = 2,
    ROLE_EGRESS = 4,
    ROLE_DRAINING = 8,
    ROLE_WAS_VOTER = 16, /* of the set before `voters_ver`; the core sets it */
};

enum core_mode { MODE_QUORUM = 1, MODE_STATIC = 2 };

enum core_cfg_flags {
    CFG_AUTO_VOTERS = 1, /* the core itself proposes voters and mode (config_policy.c) */
    CFG_AUTO_MIN = 2,    /* min_copies follows the number of members that store mail */
};

/* A version of the configuration; changes only by one cfg_change a version. */
struct core_cfg {
    uint64_t ver;        /* generation << 48 | counter */
    uint64_t mode_ver;   /* the version in which the mode began */
    uint64_t voters_ver; /* the version in which the set of voters, or the mode, began */
    uint64_t prev_ver;   /* voters_ver of the set before */
    uint8_t mode;        /* enum core_mode */
    uint8_t copies, min_copies;
    uint8_t flags;      /* enum core_cfg_flags */
    uint8_t was_voters; /* how many the set before had; 0: nothing to take over */
    uint8_t count;
    struct core_member member[CORE_MEMBERS_MAX];
};

/* Durations that follow from the lease unless given. core_params_derive fills them. */
struct core_params {
    uint64_t lease_ns;
    uint32_t rho_ppm;
    uint64_t renew_ns, start_margin_ns, dot_margin_ns, grace_ns; /* from lease_ns */
    uint64_t doubt_ns;                                           /* H_doubt */
    uint64_t own_doubt_ns; /* the same after an own restart: nobody else can know */
    uint64_t stale_ns;     /* H_stale */
    uint64_t frame_ns;     /* how old the echo of a copy may be (rule E) */
    uint64_t hedge_ns, accept_ns;
    uint64_t repair_wait_ns;
    uint64_t probe_ns, digest_ns, gossip_ns;
    uint64_t demote_ns;
};

/* Fills what is 0 from lease_ns; false if the inequalities I3 to I5 do not hold. */
bool core_params_derive(struct core_params *params);

struct core_limits {
    uint32_t units, works, accepts, parked, graves, gossip_rows;
};

struct core;

/* What a node tells the others of its load, as a row (EV_ROW with this key). Nodes with
 * spare sessions then ask the busiest one for units. */
#define CORE_ROW_LOAD UINT32_C(0x4c4f4144)
#define CORE_LOAD_BYTES 8
struct core_load {
    uint32_t ready; /* units that are due and wait for a session */
    uint32_t spare; /* sessions that wait for units */
};
void core_load_put(const struct core_load *load, uint8_t value[CORE_LOAD_BYTES]);

/* ---- events ---- */

enum core_event_kind {
    EV_TICK = 1,
    EV_MSG,
    EV_STORED,
    EV_BOOT_META,
    EV_BOOT_CFG,
    EV_BOOT_PAXOS,
    EV_BOOT_SESS,
    EV_BOOT_FENCE,
    EV_BOOT_UNIT,
    EV_BOOT_END,
    EV_ACCEPT,
    EV_ACCEPT_GONE,
    EV_INTENT_REQ,
    EV_OUTCOME,
    EV_ATTEMPT_GONE,
    EV_STORAGE_HEALTH,
    EV_ADMIN,
    EV_STEAL_HINT, /* give the unit to `peer`; 0: to any holder that may send it */
    EV_ROW,
    EV_DAMAGED, /* found by the scrub, or before a delivery */
    EV_WALL,    /* before EV_BOOT_END, once a minute, and when the trust changes */
};

enum core_admin {
    ADMIN_INIT = 1, /* write configuration 1 on this node alone: `change` has its roles,
                       zone, weight, identity and copies */
    ADMIN_CHANGE,   /* propose `change` */
    ADMIN_FORCE_FENCE,  /* operator swears that `node` is powered off */
    ADMIN_FORCE_CONFIG, /* new generation without `nodes`, sworn to be powered off */
    ADMIN_RESIGN,       /* heirs wait `count` seconds */
    ADMIN_DRAIN,        /* `node` (0: this one) gives its units away, takes no new ones */
    ADMIN_UNDRAIN,
};

/* What became of an EV_ADMIN. */
enum admin_result {
    ADMIN_OK = 1,
    ADMIN_REFUSED, /* not allowed as things are; `why` says what is */
    ADMIN_FAILED,  /* not decided in time; it may still be, look at the version */
};

struct core_meta {
    uint64_t node;
    uint32_t epoch;
    uint64_t lease_max_ns; /* longest lease ever promised */
};

struct core_fence_row {
    uint64_t node;
    uint32_t fenced, known;
};

/* What a voter has promised for the next version, and the set of voters (its voters_ver)
 * in which it was last active. */
struct core_paxos_row {
    uint64_t ver, promised, accepted, active;
    struct cfg_change change;
};

struct core_event {
    uint64_t now_ns;
    uint8_t kind; /* enum core_event_kind */
    union {
        const struct core_msg *msg;
        struct {
            uint64_t token;
            bool full; /* not stored: no room (only when may_fail) */
        } stored;
        struct core_meta meta;
        const struct core_cfg *cfg;
        struct core_paxos_row paxos;
        struct sess_row sess;
        struct core_fence_row fence;
        const struct unit_row *unit;
        struct {
            uint64_t handle;  /* the SMTP transaction; not 0, not of a running accept */
            uint64_t wall_ms; /* only for the id, if the core makes it */
            /* Of the first part; the others follow in `part`. Parts that the core holds
             * already, alive, done or buried, are not made again: when that is so for all
             * of them the answer is 250 at once (a DSN made twice is the same message).
             * hi and lo 0: the core makes one. */
            struct core_unit_id id;
            uint32_t expires_s, size_bytes, body_crc;
            uint8_t flags; /* enum unit_row_flags */
            uint8_t part_count;
            uint8_t rcpts[CORE_PARTS_MAX]; /* recipients of each part, 1 to 64 */
        } accept;
        struct {
            struct core_unit_id id;
            uint64_t attempt;
            uint64_t rcpts; /* INTENT_REQ: wanted; OUTCOME: all that were tried */
            uint64_t delivered, failed, doubt;
            uint32_t due_s;
        } attempt;
        struct {
            uint64_t commit_age_ns; /* age of the oldest unanswered commit */
            bool full;
        } health;
        struct {
            uint8_t op;     /* enum core_admin */
            uint64_t token; /* comes back in CMD_ADMIN_DONE; 0: no answer wanted */
            uint64_t node;
            struct cfg_change change; /* proposer and serial are the core's */
            const uint64_t *nodes;
            uint32_t count;
        } admin;
        struct {
            uint64_t peer;
            struct core_unit_id id;
        } steal;
        struct {
            uint32_t key;
            uint8_t length;
            const uint8_t *value;
        } row;
        struct {
            struct core_unit_id id;
            bool mail; /* head or body are bad; else only the row */
        } damaged;
        struct {
            uint64_t now_s; /* wall clock */
            bool trusted;   /* else nothing is judged by its age */
        } wall;
    } u;
};

/* ---- commands ---- */

/* What the caller does for each, in this order and before the next event. */
enum core_command_kind {
    /* `send`: one frame to env.via (which may be a relay on the way to env.to) in
     * env.lane. It may be lost; nothing is told to the core. What goes along: MSG_COPY
     * with u.unit.mail: head (envelope, recipients, their state) and body of the message
     * of u.unit.row.id. Its parts share the body. Without `mail` nothing: the receiver
     * has it, only the row changed. MSG_OUTCOME: what the recipients in u.attempt.rcpts
     * have besides their bits (tries, last reply, next try), so that an heir goes on with
     * the schedule. The receiver's core gets one EV_MSG when all of a frame is there.
     * Frames of one lane come in the order of sending, but a copy with mail in LANE_BULK
     * may take longer than what was sent after it. Of a copy that the core refuses (no
     * CMD_STORE with its id and copy_from in that step) the mail is dropped. */
    CMD_SEND = 1,
    /* `store`: all its rows in one transaction, durable in the order of tokens, then
     * EV_STORED with the token. An OP_UNIT takes the mail that it speaks of into the same
     * transaction, see enum core_op_kind. */
    CMD_STORE,
    /* `accept`: the one answer to an EV_ACCEPT. After REPLY_250 the mail is ours. */
    CMD_ACCEPT_REPLY,
    /* `gate`: the new value of the dot gate, for all threads at once:
       rights_publish_gate. */
    CMD_GATE,
    /* `unit`: this node may schedule the unit; rcpts may be tried, others are final or in
     * doubt and held; not before due_s. Again for a known unit: only rcpts and doubt
     * changed (a hold is over). */
    CMD_START,
    /* `unit`: the answer to EV_INTENT_REQ. rcpts 0: not now. Else the attempt has this
     * number, may try these recipients only, and ends with EV_OUTCOME or
     * EV_ATTEMPT_GONE. `doubt`: of these, who may have theirs by an attempt that
     * everybody has forgotten who knew of it; nothing waits for that. */
    CMD_ATTEMPT,
    /* `unit`: the per-attempt flag of the dot gate may be set. */
    CMD_INTENT_OK,
    /* `unit`: started here, and no longer to be delivered here (given away, or final by
     * what others know): drop schedule and attempt; no dot of it may leave. An attempt
     * that had its dot out still reports its outcome. id 0: all units. */
    CMD_CANCEL,
    /* `why`: end the process at once; nothing that was not stored counts. */
    CMD_DIE,
    /* `cfg`: a new version is in force; borrowed until the next core_step. */
    CMD_CFG,
    CMD_TRACE,
    /* `admin`: exactly one for each EV_ADMIN with a token, in this process. */
    CMD_ADMIN_DONE,
};

enum accept_reply {
    REPLY_250 = 1,
    REPLY_451,   /* nothing of it was or will be kept */
    REPLY_CLOSE, /* unknown: close without a reply. For an id of one's own: ask again */
};

/* Whoever boots a damaged OP_META, OP_CFG, OP_PAXOS, OP_SESS or OP_FENCE row refuses to
 * start: what it forgot was promised to others. */
enum core_op_kind {
    OP_META = 1,
    OP_CFG,
    OP_PAXOS,
    OP_SESS,
    OP_FENCE,
    /* The row of a unit, whole. With it, in the same transaction:
     *   accept_handle != 0: a new unit; its recipients, and the body with the first part.
     *   copy_from != 0: a new unit (or one whose mail was damaged): head and body came
     *     with the MSG_COPY of this step.
     *   else the row of a unit whose mail is here. Recipients whose bit in `delivered` or
     *     `failed` is set become final; what came with a MSG_OUTCOME of this step is
     *     taken for the others.
     *   state UNIT_DONE or UNIT_ABORTED: recipients and body go, the row stays. */
    OP_UNIT,
    /* Only u.unit.id: the row goes, and the mail if it is still there. */
    OP_UNIT_DELETE,
    /* Row and mail are put aside for the operator, with an alarm; never delivered by
     * themselves. For the core the unit is gone. */
    OP_UNIT_QUARANTINE,
};

struct core_op {
    uint8_t kind; /* enum core_op_kind */
    uint64_t accept_handle;
    uint64_t copy_from;
    union {
        struct core_meta meta;
        struct core_paxos_row paxos;
        struct sess_row sess;
        struct core_fence_row fence;
        struct unit_row unit;
        const struct core_cfg *cfg; /* borrowed until the next core_step */
    } u;
};

#define CORE_STORE_OPS 3

struct core_gate_value {
    uint32_t epoch;
    bool frozen;
    uint64_t lease_end_ns;
    uint64_t dot_margin_ns;
};

struct core_command {
    uint8_t kind; /* enum core_command_kind */
    union {
        struct core_msg send;
        struct {
            uint64_t token;
            uint8_t op_count;
            bool may_fail;
            struct core_op op[CORE_STORE_OPS];
        } store;
        struct {
            uint64_t handle;
            uint8_t reply; /* enum accept_reply */
            struct core_unit_id id;
        } accept;
        struct core_gate_value gate;
        struct {
            struct core_unit_id id;
            uint64_t attempt;
            uint64_t rcpts;
            uint64_t doubt; /* START, ATTEMPT: delivering these may duplicate */
            uint32_t due_s;
            bool again; /* START: was given for this ownership before */
        } unit;
        const struct core_cfg *cfg;
        const char *why; /* DIE, TRACE: static text */
        struct {
            uint64_t token;
            uint64_t ver;    /* of the configuration then */
            uint8_t result;  /* enum admin_result */
            const char *why; /* static text: what is wrong and what to do, or NULL */
        } admin;
    } u;
};

struct core_commands {
    struct core_command *v;
    uint32_t count, cap;
    uint64_t deadline_ns; /* call core_step(EV_TICK) not later than this */
};

/* Room that core_step needs in `v`; it leaves work for the next step before it needs
 * more. */
#define CORE_COMMANDS_MIN 512

/* What is known, for status: nothing is scanned. */
struct core_counts {
    const char *state; /* static text: "opening", "syncing", "ready", ... */
    uint32_t epoch;
    uint64_t cfg_ver;
    uint64_t lease_end_ns; /* 0: none; CORE_FOREVER: needs none */
    bool frozen, draining;
    uint32_t units;        /* rows of any kind */
    uint32_t accepting;    /* before their 250 */
    uint32_t owned;        /* alive, delivered by this node */
    uint32_t held;         /* alive, copies for others */
    uint32_t copies_short; /* owned, with fewer live copies than wanted */
    uint32_t in_doubt;     /* owned, with recipients that may have been delivered */
    uint32_t tombstones;
    uint32_t damaged;     /* bad mail here that waits for another holder's */
    uint64_t quarantined; /* put aside since the start */
    uint8_t member_count;
    struct core_member_view {
        uint64_t node;
        uint8_t view;      /* 0 alive, 1 suspect, 2 dead */
        uint8_t session;   /* 0 open, 1 none seen, 2 fenced */
        bool relayed;      /* only a third node reaches it */
        uint32_t epoch;    /* newest session seen */
        uint64_t heard_ns; /* its last frame, our clock; 0: never */
    } member[CORE_MEMBERS_MAX];
};
void core_counts(const struct core *core, struct core_counts *out);
/* A unit as the core knows it now, as it would be stored. False: it knows none. */
bool core_unit_row(
    const struct core *core, const struct core_unit_id *id, struct unit_row *out);

/* Mail of an owner that seems to be gone: a live copy here that waits for its takeover,
 * and we are the first of those that hold it and live, so that one node tells of it.
 * Hints decide: a moment long two nodes may, or none. */
bool core_unit_waits(const struct core *core, const struct core_unit_id *id);
/* What no counter keeps, summed over the units slice by slice: `at` 0 begins, and is 0
 * again at the end of a pass. */
struct core_survey {
    uint32_t at;
    uint64_t owned_rcpts; /* open recipients of owned units */
    uint8_t owner_count;
    struct core_waiting {
        uint64_t owner, units, rcpts;
    } owner[CORE_MEMBERS_MAX];
};
void core_survey(const struct core *core, struct core_survey *s, uint32_t units);

/* Bytes that core_init needs. */
size_t core_size(const struct core_limits *limits);

/* Puts a core into mem (core_size bytes, 16-byte aligned, zeroed or not). Keeps nothing
 * else of the caller's. Then: EV_BOOT_* for each stored row, EV_BOOT_END. */
struct core *core_init(void *mem, const struct core_limits *limits,
    const struct core_params *params, uint64_t node, uint64_t seed);

/* One event. Time first: expired timers fire before the event is looked at. */
void core_step(
    struct core *core, const struct core_event *event, struct core_commands *out);

#endif
