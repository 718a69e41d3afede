/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages that cluster cores exchange, as plain structs.
 *
 * One struct core_msg is one protocol message; the transport may pack several into one
 * frame. cluster/wire.c is the only place that knows how they look in bytes. All integers
 * are host order here. Node ids are 64-bit random numbers, 0 means "none". Instants are
 * nanoseconds of the *sender's* CLOCK_BOOTTIME and are compared only with instants of the
 * same clock.
 */
#ifndef CLUSTER_CORE_MSG_H
#define CLUSTER_CORE_MSG_H

#include <stdint.h>

#define CORE_LIST_MAX 8     /* names in one copy list */
#define CORE_TABLE_ROWS 8   /* session rows in one lease answer page */
#define CORE_PAGE_MEMBERS 2 /* members in one page of a configuration */
#define CORE_SWIM_UPDATES 6
#define CORE_GOSSIP_ROWS 4
#define CORE_GOSSIP_VALUE 40
#define CORE_DIGEST_ROWS 16
#define BUDGET_ENTRIES 16

/* A unit is one routing domain of a message: the thing that is owned and delivered. */
struct core_unit_id {
    uint64_t hi; /* ms time 48 | node 16 */
    uint64_t lo; /* node 16 | epoch 24 | counter 24 */
    uint32_t part;
    uint32_t zero; /* no padding: ids are compared as bytes */
};

enum unit_state {
    UNIT_LIVE = 1,    /* some recipient is not final */
    UNIT_DONE = 2,    /* all recipients final: a tombstone, the body is gone */
    UNIT_ABORTED = 3, /* refused before 250: a tombstone */
};

enum list_status {
    LIST_HOLD = 1,      /* acknowledged a durable copy */
    LIST_PENDING = 2,   /* a copy was or will be sent, no answer yet */
    LIST_RELEASING = 3, /* asked to delete its copy, no answer yet; at a holder: said that
                           it has none */
};

struct row_holder {
    uint64_t node;
    uint32_t fenced; /* F[node] as the sender knows it: fence evidence */
    uint8_t status;  /* enum list_status */
};

/* In unit_row.attempt: its owner was sworn to be off, and nobody knows what it did (D6).
 */
#define ATTEMPT_FORCED 1

/* A unit as it travels and as it is stored. `mine` means something only on its own disk.
 */
struct unit_row {
    struct core_unit_id id;
    uint32_t term;
    uint32_t owner_epoch;
    uint64_t owner;
    uint32_t mine; /* epoch in which this node completed ownership, 0: never */
    uint8_t state; /* enum unit_state */
    uint8_t rcpt_count;
    uint8_t list_count;
    uint8_t flags; /* enum unit_row_flags */
    struct row_holder list[CORE_LIST_MAX];
    uint64_t delivered; /* one bit a recipient: facts, they only grow */
    uint64_t failed;
    uint64_t doubt;   /* intent known, outcome not */
    uint64_t attempt; /* last attempt seen */
    uint32_t due_s;
    uint32_t expires_s; /* wall clock, seconds */
    uint32_t size_bytes;
    uint32_t body_crc;
};

enum unit_row_flags {
    UNIT_NULL_SENDER = 1, /* never bounces */
    UNIT_IS_DSN = 2,
    UNIT_MORE_NAMES = 4, /* somebody has a copy and found no room in the list */
};

enum core_msg_kind {
    /* L1, hints */
    MSG_PING = 1,
    MSG_ACK,
    MSG_PING_REQ,
    MSG_NACK,
    MSG_GOSSIP_DIGEST,
    MSG_GOSSIP_DELTA,
    /* L2, configuration */
    MSG_CFG_PREPARE,
    MSG_CFG_PROMISE,
    MSG_CFG_ACCEPT,
    MSG_CFG_ACCEPTED,
    MSG_CFG_LEARN,
    MSG_CFG_PAGE,
    MSG_CFG_ASK,
    MSG_CFG_STORED,
    MSG_SEAL_READ,
    MSG_SEAL_STATE,
    /* L3, sessions */
    MSG_LEASE_REQ,
    MSG_LEASE_RSP,
    MSG_FENCE_REQ,
    MSG_FENCE_RSP,
    MSG_FENCE_NOTICE,
    MSG_RESIGN,
    /* L4, messages */
    MSG_COPY,
    MSG_COPY_ACK,
    MSG_RELEASE,
    MSG_RELEASE_ACK,
    MSG_INTENT,
    MSG_INTENT_ACK,
    MSG_OUTCOME,
    MSG_OUTCOME_ACK,
    MSG_CLAIM_REQ,
    MSG_CLAIM_RSP,
    MSG_STEAL_REQ,
    MSG_OFFER,
    MSG_SYNC_REQ,
    MSG_SYNC_REC,
    MSG_SYNC_ACK,
    MSG_SYNC_END,
    MSG_SYNC_DONE,
    MSG_DIGEST,
    MSG_DONE,
    MSG_DONE_ACK,
    MSG_FORGET,
    MSG_CREDIT,
    /* beside the core (cluster/budget.h), which never sees them */
    MSG_BUDGET_ASK,
    MSG_BUDGET_GRANT,
    MSG_REPEAT_ASK, /* node/cluster/engine_repeats.c */
    MSG_REPEAT_ANSWER,
    MSG_REPEAT_TOLD,
    MSG_KIND_COUNT
};

enum core_lane { LANE_CONTROL = 0, LANE_BULK = 1, LANE_RELAY = 2, LANE_COUNT = 3 };

/* What every message carries. */
struct core_env {
    uint64_t cfg_ver;
    uint64_t from;
    uint64_t to;
    uint64_t via;      /* where the transport delivers this frame: `to` or a relay */
    uint64_t seq;      /* per (sender session, receiver, lane), increasing, gaps legal */
    uint64_t clock_ns; /* sender's clock when sent */
    uint64_t echo_ns;  /* newest clock_ns the sender has seen from the receiver ... */
    uint32_t echo_epoch; /* ... and the receiver's epoch then */
    uint32_t from_epoch;
    uint8_t lane;
    uint8_t hop; /* 1 when a third node must pass it on to `to` */
};

struct swim_update {
    uint64_t node;
    uint32_t epoch;
    uint32_t incarnation;
    uint8_t state; /* enum swim_state */
};

struct msg_ping {
    uint64_t nonce;
    uint64_t target; /* PING_REQ: whom to ask; ACK/NACK: who answered */
    uint8_t count;
    struct swim_update update[CORE_SWIM_UPDATES];
};

struct sess_row {
    uint64_t node;
    uint32_t cur;
    uint32_t fenced; /* all sessions <= are closed */
    uint8_t flags;   /* 1 resigned, 2 forced */
};

enum lease_answer {
    LEASE_GRANT = 1,
    LEASE_FENCED,
    LEASE_WAIT,
    LEASE_DEAF,
    LEASE_SEALED,
    LEASE_TWIN, /* another process has run this session: the asker is an old image */
};

struct msg_lease {
    uint64_t nonce;
    uint64_t birth; /* random, of the process that asks; comes back in the answer */
    uint64_t acked; /* REQ: newest nonce of which an answer of this voter was heard */
    uint64_t wait_ns;
    uint8_t answer; /* enum lease_answer */
    uint8_t page, page_count;
    uint8_t row_count;
    struct sess_row row[CORE_TABLE_ROWS];
};

enum fence_answer { FENCE_OK = 1, FENCE_NO };

struct msg_fence {
    uint64_t node;
    uint32_t epoch;
    uint32_t hold_s; /* RESIGN: heirs wait that long. FENCE_*: the set of voters asked */
    uint8_t answer;  /* enum fence_answer */
    uint8_t flags;   /* 1 resigned */
};

enum cfg_op {
    CFG_NONE = 0, /* a step that changes nothing */
    CFG_ADD,      /* member joins with the roles given */
    CFG_ROLES,    /* roles of a member change */
    CFG_REMOVE,   /* member leaves for ever */
    CFG_MODE,     /* static <-> quorum */
    CFG_COPIES,   /* copies and min_copies (0: by the number of members) */
    CFG_IDENT,    /* zone, weight, key, address and name of a member change */
};

/* Who a member is to the adapters. The core stores, compares and copies it. */
struct core_ident {
    uint8_t key[32];     /* CURVE public key */
    uint8_t address[18]; /* IPv6-mapped address and port, network order */
    char name[30];       /* NUL padded; 30 bytes have no NUL */
};

/* One step from version v to v+1. */
struct cfg_change {
    uint64_t proposer; /* makes two equal wishes different values */
    uint64_t node;
    uint64_t off; /* in static mode: a voter that is sworn to be powered off, or 0 */
    uint32_t off_epoch; /* its last session when that was said; the core fills it in. A
                           vote with MODE_STATIC: the session of `node` that goes on */
    uint32_t serial;
    uint8_t op; /* enum cfg_op */
    uint8_t roles, zone, weight;
    uint8_t mode, copies, min_copies;
    struct core_ident ident;
};

struct core_member {
    uint64_t node;
    uint8_t roles, zone, weight;
    struct core_ident ident;
};

struct msg_cfg {
    uint64_t ver;      /* the version being decided or carried */
    uint64_t ballot;   /* round << 8 | number of the proposer */
    uint64_t accepted; /* PROMISE: ballot of the accepted value, 0 none */
    uint64_t mode_ver, voters_ver, prev_ver; /* PAGE */
    struct cfg_change change;
    uint8_t ok, page, page_count;
    uint8_t copies, min_copies, mode, flags, was_voters; /* PAGE */
    uint8_t count; /* PAGE: members; SEAL_STATE: rows */
    union {
        struct core_member member[CORE_PAGE_MEMBERS]; /* all but SEAL_STATE */
        struct sess_row row[CORE_TABLE_ROWS];         /* SEAL_STATE */
    } u;
};

struct msg_unit {
    struct unit_row row;
    uint32_t claim_term; /* CLAIM */
    uint8_t answer;      /* enum unit_answer */
    uint8_t consented;   /* CLAIM_REQ: bit i: row.list[i] consented in this claim */
    uint8_t owner_gave;  /* CLAIM_REQ: the owner in the record consented */
    uint8_t steal;       /* CLAIM_REQ to the live owner: please give */
    uint8_t mail; /* COPY: head and body come along; without it, only for who has them */
};

enum unit_answer {
    ANS_OK = 1,
    ANS_UNKNOWN, /* no record: counts as consent, as release, as forgotten */
    ANS_REJECT,  /* row says why */
    ANS_BUSY,    /* ask again later */
    ANS_FULL,
    ANS_STALE, /* the frame is older than it may be: send a fresh one */
    ANS_TOMB,  /* row is a tombstone */
};

struct msg_attempt {
    struct core_unit_id id;
    uint64_t attempt;
    uint64_t rcpts;
    uint64_t delivered, failed;
    uint32_t term;
    uint32_t due_s;
    uint8_t answer;
    uint8_t narrow; /* INTENT: an older copy may be on its way to you; if you have none,
                       refuse it */
};

struct msg_sync {
    uint32_t serial; /* stream number, so that a late END is told from a new one */
    uint64_t root;   /* DIGEST */
    uint64_t bucket[CORE_DIGEST_ROWS];
    uint32_t count;
};

struct msg_steal {
    struct core_unit_id id;
    uint32_t max;
};

struct gossip_row {
    uint64_t actor;
    uint32_t epoch;
    uint32_t key;
    uint64_t version;
    uint8_t length;
    uint8_t value[CORE_GOSSIP_VALUE];
};

struct gossip_digest {
    uint64_t actor;
    uint32_t epoch;
    uint64_t version;
};

struct msg_gossip {
    uint8_t count;
    uint8_t reply_wanted;
    uint8_t start;  /* first actor slot of this page */
    uint64_t after; /* DELTA: all versions up to this one must be known already */
    union {
        struct gossip_digest digest[CORE_DIGEST_ROWS];
        struct gossip_row row[CORE_GOSSIP_ROWS];
    } u;
};

enum budget_kind { BUDGET_CONNECTIONS, BUDGET_MESSAGES, BUDGET_KINDS };

/* What nodes may take of the limits of destinations. */
struct msg_budget {
    uint64_t sent_ns; /* of the question, by the asker's clock */
    uint8_t count;
    struct budget_entry {
        uint64_t key;
        uint32_t holds[BUDGET_KINDS]; /* ASK: at most in use till answered; GRANT: may be
                                         in use */
        uint32_t want[BUDGET_KINDS];  /* ASK; all 0: nothing is held any more */
    } entry[BUDGET_ENTRIES];
};

#define MSG_REPEAT_KEY 16

/* Has a client handed this in before? The id is that of the message. */
struct msg_repeat {
    uint64_t number, hi, lo;
    uint8_t key[MSG_REPEAT_KEY];
    uint8_t answer; /* ANSWER: 0 new, 1 being taken now, 2 taken; TOLD: taken or not */
};

struct core_msg {
    struct core_env env;
    uint8_t kind; /* enum core_msg_kind */
    union {
        struct msg_ping ping;
        struct msg_lease lease;
        struct msg_fence fence;
        struct msg_cfg cfg;
        struct msg_unit unit;
        struct msg_attempt attempt;
        struct msg_sync sync;
        struct msg_steal steal;
        struct msg_gossip gossip;
        struct msg_budget budget;
        struct msg_repeat repeat;
    } u;
};

#endif
