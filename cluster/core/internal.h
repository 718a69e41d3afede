/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State of a core and the calls between its files. For cluster/core and for the
 * simulator's oracle, which reads it with god's eyes; for nobody else.
 */
#ifndef CLUSTER_CORE_INTERNAL_H
#define CLUSTER_CORE_INTERNAL_H

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
    uint32_t boot_fenced;   /* F when our session began */
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
    uint64_t fence_round_at, fence_started_at;
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
    UF_DAMAGED = 16384, /* the mail here is bad */
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
    PARK_CFG
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
    bool aborted; /* refused, so that its id may be offered again later */
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
    uint64_t lease_max;
    /* tokens */
    uint64_t token_last, token_done;
    struct parked *parked;
    uint32_t parked_head, parked_count;
    /* lease */
    struct grant round[ROUND_RING]; /* nonce -> send time */
    uint64_t nonce;
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
    uint64_t wall_s, wall_at;
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

/* core.c */
uint64_t core_random(struct core *core);
uint64_t core_below(struct core *core, uint64_t n);
bool core_buggify(struct core *core, uint32_t one_in);
struct core_command *core_cmd(struct core *core, enum core_command_kind kind);
/* Sends at once; for messages that promise nothing about the disk. */
void core_send(struct core *core, uint8_t slot, struct core_msg *msg);
/* Sends when everything stored so far is durable and the session is still the same. */
void core_send_after(
    struct core *core, uint64_t token, uint8_t slot, struct core_msg *msg);
void core_after(struct core *core, uint64_t token, enum after what, const struct unit *u);
void core_park(struct core *core, uint64_t token, enum park_kind kind, uint8_t slot);
struct core_command *core_store(
    struct core *core); /* op_count 0; token is core->token_last */
uint64_t core_store_one(struct core *core, const struct core_op *op);
void core_new_session(struct core *core);
void outbox_drain(struct core *core, uint64_t full_token);
/* To a node that need not be a member. */
void core_send_any(struct core *core, uint8_t slot, struct core_msg *msg);
void core_end_session(struct core *core); /* for ever: no member any more */
void core_die(struct core *core, const char *why);
uint64_t id_hash(const struct core_unit_id *id);
bool core_out_full(const struct core *core);
uint64_t core_hash(const struct core *core);

/* peer.c */
uint8_t peer_slot(const struct core *core, uint64_t node);
uint8_t peer_intern(struct core *core, uint64_t node);
bool peer_down(const struct core *core, uint8_t slot); /* F >= K: no session lives */
bool peer_member(const struct core *core, uint8_t slot);
void peer_learn(struct core *core, uint8_t slot, uint32_t fenced, uint32_t known);
void peer_heard(struct core *core, uint8_t slot, const struct core_env *env);
bool peer_reachable(const struct core *core, uint8_t slot);
uint8_t voter_count(const struct core *core);
uint8_t quorum(const struct core *core);
bool is_voter(const struct core *core, uint8_t slot);
static inline bool bit_get(const uint8_t *v, unsigned i)
{
    return (v[i / 8] >> (i % 8)) & 1;
}
static inline void bit_set(uint8_t *v, unsigned i)
{
    v[i / 8] = (uint8_t)(v[i / 8] | 1u << (i % 8));
}

/* session.c: the owner's side; voter.c: the voter's */
void session_start(struct core *core);
void session_opened(struct core *core);
void session_timer(struct core *core);
void session_lease_rsp(struct core *core, uint8_t slot, const struct core_msg *msg);
void session_recompute(struct core *core);
void session_frozen(struct core *core);
bool session_lease(const struct core *core, uint64_t margin_ns);
void session_gate(struct core *core);
void session_resign(struct core *core, uint32_t hold_s);
void session_self_vote(struct core *core);
void voter_lease_req(struct core *core, uint8_t slot, const struct core_msg *msg);
void voter_fence_req(struct core *core, uint8_t slot, const struct core_msg *msg);
void voter_fence_rsp(struct core *core, uint8_t slot, const struct core_msg *msg);
void voter_fence_notice(struct core *core, uint8_t slot, const struct core_msg *msg);
void voter_resign(struct core *core, uint8_t slot, const struct core_msg *msg);
void voter_timer(struct core *core);
void voter_store(
    struct core *core, uint8_t slot, uint32_t cur, uint32_t fenced, uint8_t flags);
void fence_done(struct core *core, uint8_t slot, uint32_t epoch, uint8_t flags);
bool voter_quarantined(const struct core *core);
void fence_node(struct core *core, uint8_t slot);
void fence_durable(struct core *core, uint8_t slot);

/* record.c */
struct core_unit_id unit_id(const struct unit *u);
uint32_t unit_index(const struct core *core, const struct unit *u);
struct unit *unit_find(const struct core *core, const struct core_unit_id *id);
struct unit *unit_new(struct core *core, const struct core_unit_id *id);
void unit_drop(struct core *core, struct unit *u);
void unit_row_out(const struct core *core, const struct unit *u, struct unit_row *row);
bool unit_row_in(struct core *core, struct unit *u, const struct unit_row *row);
uint64_t unit_store(struct core *core, struct unit *u, uint64_t accept_handle);
uint64_t unit_store_delete(struct core *core, struct unit *u);
bool unit_believes(
    const struct core *core, const struct unit *u); /* owner, this session */
bool unit_right(const struct core *core, const struct unit *u);
bool unit_settling(const struct unit *u);
int unit_list_find(const struct unit *u, uint8_t slot);
uint8_t unit_status(const struct unit *u, int i);
void unit_set_status(struct unit *u, int i, uint8_t status);
bool unit_list_add(struct core *core, struct unit *u, uint8_t slot, uint8_t status);
void unit_list_remove(struct core *core, struct unit *u, int i);
uint8_t unit_holders(const struct core *core, const struct unit *u); /* live, HOLD */
bool unit_final(const struct unit *u);
uint64_t unit_all(const struct unit *u);
void unit_evidence(struct core *core, const struct unit_row *row);
/* Facts and names of row go into u; true if u changed. Never touches version or mine. */
bool unit_merge_facts(struct core *core, struct unit *u, const struct unit_row *row);
/* The version of row too, by C5; true if u changed. */
bool unit_merge(struct core *core, struct unit *u, const struct unit_row *row);
bool unit_newer(
    const struct core *core, uint32_t term, uint64_t owner, const struct unit *u);
void unit_lost_ownership(struct core *core, struct unit *u);
void unit_cancel(struct core *core, struct unit *u); /* CMD_CANCEL if it was started */
bool unit_owner_down(const struct core *core, const struct unit *u);
void unit_attempt(struct unit *u, uint64_t attempt);
uint8_t lane_of(const struct unit *u);
void grave_dig(struct core *core, const struct core_unit_id *id);
void grave_dig_aborted(struct core *core, const struct core_unit_id *id);
const struct grave *grave_find(struct core *core, const struct core_unit_id *id);
void unit_recount(struct core *core, struct unit *u); /* after any change of u */
void unit_digest(struct core *core, const struct unit *u);
void unit_digest_list(struct core *core, const struct unit *u, uint8_t slot);

/* work.c */
struct work *work_get(struct core *core, struct unit *u, enum work_kind kind);
struct work *work_of(const struct core *core, const struct unit *u);
void work_drop(struct core *core, struct unit *u);
void work_rest(struct core *core, struct unit *u); /* ends a job of a holder */
void work_wake(struct core *core, struct work *w, uint64_t at);
void work_timers(struct core *core, uint32_t budget);
uint64_t work_next(const struct core *core);
uint64_t work_backoff(const struct core *core, const struct work *w, uint64_t base);
void unit_review(struct core *core, struct unit *u); /* starts what the unit needs */
void sweep_all(struct core *core);
void sweep_step(struct core *core);

/* accept.c */
void accept_event(struct core *core, const struct core_event *event);
void accept_gone(struct core *core, uint64_t handle);
void accept_run(struct core *core, struct unit *u, struct work *w);
void accept_copy_answer(
    struct core *core, struct unit *u, struct work *w, int i, bool ok);
void accept_stored(struct core *core, struct unit *u, bool full);
void accept_aborted(struct core *core, struct unit *u);
void accept_cut(struct core *core); /* session ends: connections close without reply */
void accept_drain(struct core *core);
/* A DSN that we accept exists already, as row says. */
void accept_exists(struct core *core, struct unit *u, const struct unit_row *row);
/* copy.c */
uint8_t place_next(struct core *core, const struct unit *u);
bool place_candidate(const struct core *core, uint8_t slot);
bool copy_send(struct core *core, struct unit *u, int i); /* false: no credit */
void copy_recv(struct core *core, uint8_t slot, const struct core_msg *msg);
void copy_ack(struct core *core, uint8_t slot, const struct core_msg *msg);
void release_recv(struct core *core, uint8_t slot, const struct core_msg *msg);
void release_ack(struct core *core, uint8_t slot, const struct core_msg *msg);
void copy_stored(struct core *core, const struct core_unit_id *id, bool full);
void list_grew(struct unit *u, struct work *w);
bool copy_send_due(struct core *core, struct unit *u, struct work *w);
bool copy_repair(struct core *core, struct unit *u, struct work *w);
/* quarantine.c */
void unit_quarantine(struct core *core, struct unit *u); /* u is gone then */
void wall_event(struct core *core, const struct core_event *e);
bool unit_stale(const struct core *core, const struct unit *u);
bool tomb_expired(struct core *core, struct unit *u);
void damaged_event(struct core *core, const struct core_event *e);
void damaged_fixed(struct core *core, struct unit *u);
void damaged_review(struct core *core, struct unit *u);
void damaged_ask(struct core *core, struct unit *u, struct work *w);
void damaged_own(struct core *core, struct unit *u, struct work *w);
/* share.c */
void share_got(struct core *core, const struct unit *u, uint8_t from);
void share_asked(struct core *core, uint8_t slot, const struct core_msg *msg);
void share_offer(struct core *core, const struct core_unit_id *id);
void share_timer(struct core *core);
/* flow.c */
uint64_t flow_start(const struct core *core);
bool flow_room(const struct core *core, uint8_t slot, const struct unit *u, bool repair);
bool flow_take(struct core *core, const struct unit *u, uint8_t slot);
void flow_answered(struct core *core, uint8_t slot, const struct unit *u);
void flow_credit(struct core *core, uint8_t slot, const struct core_msg *msg);
uint64_t flow_patience(const struct core *core, const struct unit *u);
bool flow_takes(const struct core *core, const struct unit_row *row);
void flow_took(struct core *core, uint8_t slot, uint32_t bytes);
void flow_timer(struct core *core);
/* claim.c */
void claim_start(struct core *core, struct unit *u, bool owner_gave, bool steal);
void claim_run(struct core *core, struct unit *u, struct work *w);
void claim_req(struct core *core, uint8_t slot, const struct core_msg *msg);
void claim_rsp(struct core *core, uint8_t slot, const struct core_msg *msg);
void claim_doubt(struct core *core, struct unit *u);
void own_stored(struct core *core, struct unit *u);
void reown(struct core *core, struct unit *u);
void steal_hint(struct core *core, uint8_t slot, const struct core_unit_id *id);
void offer_recv(struct core *core, uint8_t slot, const struct core_msg *msg);
/* sync.c */
void sync_timer(struct core *core);
void sync_req(struct core *core, uint8_t slot, const struct core_msg *msg);
void sync_rec(struct core *core, uint8_t slot, const struct core_msg *msg);
void sync_ack(struct core *core, uint8_t slot, const struct core_msg *msg);
void sync_end(struct core *core, uint8_t slot, const struct core_msg *msg);
void sync_done(struct core *core, uint8_t slot, const struct core_msg *msg);
void sync_unknown(struct core *core, uint8_t slot, struct unit *u);
void sync_merge(struct core *core, struct unit *u, const struct unit_row *row);
void sync_check(struct core *core);
bool sync_clear(const struct core *core, uint8_t slot);
void sync_stream(struct core *core, uint8_t slot, uint64_t buckets);
void digest_timer(struct core *core);
void digest_recv(struct core *core, uint8_t slot, const struct core_msg *msg);
/* deliver.c */
void own_run(struct core *core, struct unit *u, struct work *w);
void intent_event(struct core *core, const struct core_event *event);
void outcome_event(struct core *core, const struct core_event *event);
void attempt_gone(struct core *core, const struct core_event *event);
void intent_recv(struct core *core, uint8_t slot, const struct core_msg *msg);
void intent_ack(struct core *core, uint8_t slot, const struct core_msg *msg);
void outcome_recv(struct core *core, uint8_t slot, const struct core_msg *msg);
void outcome_ack(struct core *core, uint8_t slot, const struct core_msg *msg);
void deliver_suspend(struct core *core, struct unit *u);
bool attempt_ours(const struct core *core, uint64_t attempt);
void deliver_start(struct core *core, struct unit *u);
/* gc.c */
void gc_start(struct core *core, struct unit *u);
void gc_run(struct core *core, struct unit *u, struct work *w);
void gc_done(struct core *core, uint8_t slot, const struct core_msg *msg);
void gc_done_ack(struct core *core, uint8_t slot, const struct core_msg *msg);
void gc_forget(struct core *core, uint8_t slot, const struct core_msg *msg);
void ask_run(struct core *core, struct unit *u, struct work *w);
/* swim.c, gossip.c */
void swim_timer(struct core *core);
void swim_recv(struct core *core, uint8_t slot, const struct core_msg *msg);
void gossip_timer(struct core *core);
void gossip_recv(struct core *core, uint8_t slot, const struct core_msg *msg);
void gossip_row(struct core *core, uint32_t key, const uint8_t *value, uint8_t length);
const struct gossip_row *gossip_find(
    const struct core *core, uint8_t slot, uint32_t key); /* or NULL */
/* config_step.c: versions as values */
#define CFG_VOTERS_MAX 7
bool cfg_apply(struct core_cfg *cfg, const struct cfg_change *change);
bool cfg_valid(const struct core_cfg *cfg);
void cfg_auto_min(struct core_cfg *cfg);
const struct core_member *cfg_find(const struct core_cfg *cfg, uint64_t node);
uint8_t cfg_voters(const struct core_cfg *cfg);
bool cfg_same(const struct cfg_change *a, const struct cfg_change *b);
/* config.c: the version in force, and how it gets around */
#define NODE_CLOSED (UINT32_MAX - 1) /* fenced up to here: no session, ever again */
void config_timer(struct core *core);
void config_soon(struct core *core);
void config_recv(struct core *core, uint8_t slot, const struct core_msg *msg);
void config_heard(struct core *core, uint8_t slot, uint64_t ver);
void config_tell(struct core *core, uint8_t slot);
void config_tell_all(struct core *core);
void config_idle(struct core *core, const struct core_msg *msg);
void config_stranger(struct core *core, uint8_t slot, const struct core_msg *msg);
void config_boot(struct core *core);
void config_index(struct core *core);
void config_install(
    struct core *core, const struct core_cfg *next, const struct cfg_change *change);
/* This voter may answer what was asked of the voters of version `asked`. */
bool config_serves(const struct core *core, uint64_t asked);
bool config_static(const struct core *core); /* may deliver without a lease */
uint64_t config_spacing(const struct core *core);
/* config_seal.c */
void seal_begin(struct core *core);
void seal_timer(struct core *core);
void seal_recv(struct core *core, uint8_t slot, const struct core_msg *msg);
bool seal_needed(const struct core_cfg *cfg);
/* config_paxos.c */
void paxos_propose(struct core *core, const struct cfg_change *want);
void paxos_timer(struct core *core);
void paxos_recv(struct core *core, uint8_t slot, const struct core_msg *msg);
void paxos_durable(struct core *core);
void paxos_forget(struct core *core); /* a new version is in force */
/* config_admin.c */
void config_admin(struct core *core, const struct core_event *event);
void config_admin_done(
    struct core *core, uint64_t token, enum admin_result result, const char *why);
void config_admin_lost(struct core *core); /* the session ends: wishes cannot be met */
void wish_timer(struct core *core);
void wish_decided(struct core *core);
/* config_policy.c */
void policy_timer(struct core *core);
uint8_t policy_candidate(const struct core *core);

#endif
