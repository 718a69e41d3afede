/* SPDX-License-Identifier: Apache-2.0 */
/* The state of a core. For cluster/core and the simulator's oracle; for nobody else. */
#ifndef CLUSTER_CORE_STATE_H
#define CLUSTER_CORE_STATE_H

#include "cluster/core/core.h"
#include "cluster/core/switches.h"

#define SLOTS (CORE_MEMBERS_MAX + 8) /* 0 is nobody; removed nodes keep their slot */
#define NIL UINT32_MAX
#define GRANT_RING 8
#define ROUND_RING 16
#define SYNC_WINDOW 16
#define PARK_RESERVE 64 /* answers that one event may park */

enum core_state {
    CORE_BOOT,    /* rows come in */
    CORE_IDLE,    /* no configuration yet */
    CORE_EPOCH,   /* new epoch on its way to the disk */
    CORE_OPENING, /* asking voters for a lease and the session table */
    CORE_SYNC,    /* session open, older sessions' units not yet ours */
    CORE_READY,
    CORE_RESIGNED,
};

enum swim_state { SWIM_ALIVE = 0, SWIM_SUSPECT, SWIM_DEAD };

struct grant {
    uint64_t nonce, at;
};

/* One direction of a record stream to a peer. */
struct sync_out {
    bool active;
    bool finished; /* all records acknowledged */
    bool end_acked;
    uint32_t serial;
    uint32_t cursor;  /* next unit index */
    uint64_t buckets; /* only these digest buckets, ~0 all */
    struct {
        struct core_unit_id id;
        uint64_t sent_at;
        bool used;
    } window[SYNC_WINDOW];
    uint64_t retry_at;
};

/* A body on its way to a peer. */
#define FLIGHTS 64
struct flight {
    uint64_t message; /* hash of its id */
    uint64_t since, until;
    uint32_t bytes;
};

/* A frame of the bulk lane that came, so that a copy which it overtook is known as old.
 */
struct bulk_seen {
    uint64_t seq;
    uint64_t unit; /* hash of its id */
};
#define BULK_SEEN 256

struct peer {
    uint64_t node;
    uint8_t in_cfg; /* index in cfg + 1, 0: not a member */
    uint8_t roles, zone, weight;
    /* member row, durable */
    uint32_t fenced, known; /* F and K */
    uint32_t boot_known;    /* K when the process began */
    uint32_t boot_fenced;   /* F when our session began, or one that was never READY */
    /* voter row, durable; sess_durable: what has reached the disk */
    struct sess_row sess;
    uint64_t sess_token;       /* the store that carries sess */
    uint64_t fence_hold_until; /* Resign(hold) */
    /* voter side, volatile */
    uint64_t promise_until;
    uint32_t promise_epoch; /* the session it was given to */
    struct grant grant[GRANT_RING];
    uint8_t grant_next;
    struct grant unheard; /* oldest grant it has not acknowledged; nonce 0: none */
    uint64_t heard_nonce; /* what the member heard from us */
    uint64_t birth;       /* of the process that runs session sess.cur */
    uint64_t fence_round_at, fence_started_at;
    uint64_t asks_until;     /* a new session of it waits for the end of our promise */
    uint64_t down_since;     /* when F >= K became true here */
    uint32_t fence_ok_epoch; /* epoch the collected answers are for */
    uint8_t fence_ok[(SLOTS + 7) / 8];
    uint64_t fence_notice_until, fence_notice_at;
    /* owner side */
    uint64_t lease_exp; /* this voter's grant ends, our clock */
    uint64_t answered_nonce;
    uint8_t table_count;
    uint16_t table_pages;
    uint32_t table_epoch;
    bool table_whole;
    bool voter_says_fenced;
    /* any traffic */
    uint64_t heard_at;
    uint64_t heard_clock; /* newest clock_ns of its current session */
    uint32_t heard_epoch;
    uint64_t echo_at; /* when heard_clock came */
    struct {
        uint32_t epoch;
        uint64_t seq;
    } rx[LANE_COUNT];
    uint64_t tx_seq[LANE_COUNT];
    struct bulk_seen bulk[BULK_SEEN]; /* ring */
    uint32_t bulk_next;
    uint64_t bulk_floor; /* older frames of the lane are not taken */
    /* freeze detection: smallest local_recv - remote_send seen */
    bool d_valid;
    int64_t d_min;
    uint64_t d_at, d_clock;
    int64_t d_low; /* smallest of the running window */
    uint32_t d_epoch;
    /* SYNC */
    bool synced; /* this session of ours has synced with it (any session of it) */
    uint32_t sync_epoch;
    bool sync_in_done; /* its END has come */
    uint64_t sync_req_at;
    struct sync_out out;
    /* SWIM */
    uint8_t swim;
    uint32_t swim_incarnation, swim_epoch;
    uint64_t pinged_at; /* an unanswered ping, 0: none */
    uint64_t suspect_at, suspect_until;
    uint8_t confirmations;
    uint8_t update_left; /* times still to be piggybacked */
    bool indirect_ok;    /* only a third node reaches it */
    uint8_t relay;       /* slot of that node */
    uint64_t relay_until;
    /* digests over the records that name it */
    uint64_t digest[CORE_DIGEST_ROWS];
    uint16_t digest_differs;
    uint64_t digest_at;
    /* flow control */
    struct flight flight[FLIGHTS];             /* bodies sent to it and not answered */
    uint64_t window, window_until;             /* what it said we may send */
    uint64_t given, given_said, given_said_at; /* what we say it may send */
    uint64_t took_bytes, took_at;              /* copies of its that we took lately */
    uint64_t full_until;
    /* gossip */
    uint64_t actor_version; /* newest version of its rows here */
    uint32_t actor_epoch;
    uint32_t actor_rows;
    /* L2 */
    uint64_t cfg_seen; /* newest version its frames were tagged with */
    uint64_t cfg_told_at;
};

enum unit_flags {
    UF_USED = 1,
    UF_ACTIVE = 2,  /* this session completed ownership durably: may deliver */
    UF_STARTED = 4, /* CMD_START given */
    UF_NULL_SENDER = 8,
    UF_IS_DSN = 16,
    UF_VERIFY = 32, /* own copy durable and verified */
    UF_NARROW = 64, /* some holder may know a shorter list than ours */
    UF_ACCEPTING = 128,
    UF_BEFORE = 256, /* from before this session, and its owner has not spoken since */
    /* as what it is counted now (unit_count) */
    UF_C_OWNED = 512,
    UF_C_SHORT = 1024,
    UF_C_DOUBT = 2048,
    UF_C_TOMB = 4096,
    UF_C_ACCEPT = 8192,
    UF_DAMAGED = 16384,    /* the mail here is bad */
    UF_MORE_NAMES = 32768, /* a holder's name found no room in the list */
    UF_COUNTED = UF_C_OWNED | UF_C_SHORT | UF_C_DOUBT | UF_C_TOMB | UF_C_ACCEPT,
};

/* A unit held. 104 bytes: a million of them must stay under 120 MiB with the table. */
struct unit {
    uint64_t id_hi, id_lo;
    uint64_t delivered, failed, doubt, attempt;
    uint32_t term, owner_epoch, mine;
    uint32_t due_s, expires_s, size_bytes, body_crc;
    uint32_t hash_next, work;
    uint16_t id_part;
    uint16_t status; /* two bits a list entry */
    uint8_t list[CORE_LIST_MAX];
    uint8_t owner, state, rcpt_count, list_count;
    uint16_t flags; /* enum unit_flags */
    bool
        unsure; /* read from disk, and nobody who may know its last attempts has spoken */
};

enum work_kind { WORK_NONE, WORK_ACCEPT, WORK_OWN, WORK_GC, WORK_CLAIM, WORK_ASK };

/* Something going on with a unit; woken by its timer or by an answer. */
struct work {
    uint32_t unit; /* next free one when unused */
    uint32_t heap; /* position in the timer heap */
    uint64_t wake_at;
    uint64_t started_at;
    uint8_t kind; /* enum work_kind */
    uint8_t tries;
    uint16_t acked;     /* GC: DoneAck; CLAIM: consented. By list position */
    uint16_t unknown;   /* CLAIM, ACCEPT: said UNKNOWN; or copy refused */
    uint16_t out_acked; /* OUTCOME acknowledged */
    uint16_t asked;     /* copies sent at least once */

    uint16_t narrow; /* may hold an older, shorter list. By list position */
    bool outcome_due;
    bool owner_gave; /* CLAIM: the owner consented or does not know it */
    bool steal;      /* CLAIM: a live owner was asked to give */
    bool storing;    /* waits for a token */
    bool intent_ok;
    bool unheard;      /* ... because its holders were silent (static mode) */
    bool abort_stored; /* ACCEPT: the abort is on its way to the disk */
    uint32_t claim_term;
    uint32_t fences; /* CLAIM: core->fences when the consents were given */
    uint32_t accept; /* index of the accept */
    uint64_t token;
    uint64_t attempt, attempt_rcpts;
    uint64_t attempt_at;
    uint64_t hold_until;
    uint64_t outcome_rcpts, outcome_attempt;
    uint64_t prefer;               /* CLAIM: not before */
    uint64_t copies_at;            /* when copies were last sent */
    uint8_t wide[(SLOTS + 7) / 8]; /* CLAIM: members outside the list that consented */
};

struct accept {
    uint64_t handle; /* 0: free */
    uint32_t next_free;
    uint64_t started_at;
    uint32_t unit[CORE_PARTS_MAX];
    uint8_t part_count;
    bool aborting, gone;
    bool cut; /* the session ended; only its reply is still owed */
    uint8_t own_stored;
    uint32_t size_bytes;
    uint64_t abort_at;
};

/* What a token releases once it is durable. */
enum park_kind {
    PARK_SEND = 1,
    PARK_UNIT,
    PARK_EPOCH,
    PARK_SELF_VOTE,
    PARK_FENCE,
    PARK_CFG,
    PARK_ADMIN
};
struct parked {
    uint64_t token;
    uint32_t epoch; /* guard */
    uint32_t bytes; /* mail on its way to the disk */
    uint8_t kind;
    uint8_t slot;
    uint8_t what; /* PARK_UNIT: enum after */
    struct core_unit_id id;
    struct core_msg msg;
};
enum after { AFTER_OWN, AFTER_ACCEPT, AFTER_ABORT, AFTER_COPY, AFTER_LIST, AFTER_FIXED };

struct grave {
    uint64_t hi, lo;
    uint16_t part;
    bool open; /* refused, or denied here: its id may be offered again later */
    uint32_t next;
    uint64_t at;
};

#define SLOT_BYTES ((SLOTS + 7) / 8)

/* A version that this node tries to get decided. */
struct proposal {
    bool active, refused;
    uint8_t phase;              /* 1 prepare, 2 accept */
    uint64_t ver, ballot, seen; /* seen: highest ballot heard of */
    uint64_t best;              /* ballot of `value` if it came with a promise */
    struct cfg_change want, value;
    uint8_t promised[SLOT_BYTES], accepted[SLOT_BYTES];
    uint64_t retry_at;
};

/* What an operator asked for: one or several steps. */
struct wish {
    bool active, inherited;
    uint8_t roles; /* ADD: what it shall have at the end */
    uint64_t token, until;
    struct cfg_change c;
};

/* A unit that another node gave us. */
#define GAVE_MAX 1024
struct gave {
    uint64_t unit; /* hash of its id */
    uint64_t at;
    uint8_t from;
};

struct gossip_cell {
    struct gossip_row row;
    uint8_t slot;
    bool used;
};

struct core {
    struct core_params p;
    struct core_limits limits;
    uint64_t node;
    uint8_t self; /* own slot */
    uint32_t epoch;
    uint8_t state; /* enum core_state */
    uint64_t now;
    uint64_t rng;
    uint8_t mutant;
    uint32_t buggify;
    struct core_commands *out;
    struct core_cfg cfg;
    struct peer peer[SLOTS];
    uint8_t peer_count; /* slots 1..peer_count are used */
    uint64_t started_at;
    bool blind; /* this session was not READY yet: it has heard nothing of units */
    uint64_t lease_max;
    bool newborn; /* its first membership began in this run of the process */
    /* tokens */
    uint64_t token_last, token_done;
    struct parked *parked;
    uint32_t parked_head, parked_count;
    /* lease */
    struct grant round[ROUND_RING]; /* nonce -> send time */
    uint64_t nonce, birth;
    uint64_t renew_at;
    uint64_t lease_end;
    bool frozen;
    uint64_t frozen_nonce; /* grants for nonces up to this do not count */
    bool self_vote_asked;
    bool self_vote;      /* own epoch is in the own voter row, durably */
    uint64_t lease_prev; /* the lease that the set of voters before gave still counts */
    uint64_t set_nonce;  /* what was asked up to here, was asked of that set */
    struct core_gate_value gate;
    uint64_t lease_lost_at, refused_at, sync_due;
    uint64_t fence_check_at;
    /* units */
    struct unit *unit;
    uint32_t *bucket;
    uint32_t bucket_mask;
    uint32_t unit_free, unit_high, unit_count;
    uint32_t owned_count, short_count, doubt_count, tomb_count, accepting_count;
    struct work *work;
    uint32_t *heap;
    uint32_t work_free, heap_count;
    struct accept *accept;
    uint32_t accept_free, accept_cuts;
    uint64_t accept_bytes; /* mail that waits for its 250 */
    uint64_t copy_bytes;   /* mail of others on its way to the disk */
    uint64_t flow_at;
    struct gave gave[GAVE_MAX]; /* ring */
    uint32_t gave_next, give_left, give_cursor;
    uint64_t give_until, share_at;
    struct grave *grave;
    uint32_t grave_head, grave_count;
    uint32_t *grave_bucket;
    uint64_t grave_floor; /* copies with an older echo are refused */
    uint32_t fences;      /* counts fences learned */
    uint32_t counter;     /* msg ids */
    uint32_t attempt_counter;
    /* sweep over the units */
    uint32_t damaged_count;
    uint64_t quarantined;
    uint64_t wall_s, wall_at, wall_start;
    bool wall_trusted;
    uint32_t sweep;
    bool sweep_again;
    uint64_t sweep_at;
    /* storage health */
    uint64_t commit_age;
    bool storage_full;
    bool draining, leaving;
    uint32_t resign_hold_s;
    /* L1 */
    uint64_t probe_at;
    uint8_t probe_pos, lhm; /* lhm: Lifeguard's local health, 0 good to 8 bad */
    bool probe_second;      /* the half period in which others are asked to ping */
    uint32_t incarnation;
    uint8_t self_update_left;
    uint64_t gossip_at, digest_at;
    struct gossip_cell *cell;
    uint32_t cell_count;
    uint64_t row_version;
    /* L2 */
    struct core_paxos_row paxos;
    struct proposal prop;
    struct wish wish;
    uint64_t config_at;    /* next turn of config_timer */
    uint64_t accepted_at;  /* when paxos.accepted was set: an orphan is finished later */
    uint64_t paxos_token;  /* the store that carries paxos */
    bool voter_active;     /* the session table of the set before is taken over */
    uint64_t active_since; /* spacing */
    uint8_t active_ok[(SLOTS + 7) / 8]; /* voters that said the same of themselves */
    uint8_t seal_ok[(SLOTS + 7) / 8];   /* voters before whose table is here whole */
    uint16_t seal_pages[SLOTS];
    uint32_t seal_epoch[SLOTS];
    uint64_t seal_at;
    struct cfg_change
        last; /* made cfg.ver out of the version before, if last_ver is it */
    uint64_t last_ver;
    uint64_t ask_at;
    struct core_cfg incoming;
    uint64_t incoming_pages;
    uint32_t serial;
#ifdef CORE_SIM
    uint64_t *sometimes; /* ST_COUNT counters of the simulator */
#endif
};

#endif
