/* SPDX-License-Identifier: Apache-2.0 */
/* The cluster on a real node: one thread that runs the core (cluster/core), carries out
 * its commands on the store and the transport, and stands behind node/delivery/rights.h.
 * README.md in this folder has the way of each thing. */
#ifndef NODE_CLUSTER_ENGINE_H
#define NODE_CLUSTER_ENGINE_H

#include <jansson.h>

#include "base/settings.h"
#include "base/workers.h"
#include "cluster/core/core.h"
#include "cluster/transport.h"
#include "node/cluster/token.h"
#include "node/delivery/rights.h"

/* By how much clocks may differ in speed. */
#define CLUSTER_RHO_PPM 20000

struct engine;

/* What the engine tells the rest of the node. From the engine's thread; must not block.
 */
struct engine_events {
    /* This node may deliver the unit from now on; known already: nothing changes but the
     * recipients in doubt. `due`: not before. Recipients outside `rcpts` are final or in
     * doubt and held. */
    void (*start)(
        void *ctx, struct unit_id id, uint64_t rcpts, uint64_t doubt, struct wall due);
    /* It is another node's now: forget it, its attempt is closed. The zero id: all units
     * (this session is over; start comes again for those that stay ours). */
    void (*cancel)(void *ctx, struct unit_id id);
    /* The lease came or went: sending may go on, or should pause. */
    void (*lease)(void *ctx, bool may_deliver);
    /* Units that are due and wait for a session, and sessions that could be opened. May
     * be NULL: nothing is shared by load. */
    void (*load)(void *ctx, uint32_t *ready_out, uint32_t *spare_out);
    /* A message that another node took was taken for sure, by what its client's
     * repetition is recognised with. May be NULL. */
    void (*taken)(void *ctx, const struct repeat_key *key, struct msg_id id);
    /* Another node asks whether a client's message is new, is being taken, or was taken
     * (`as_out`), and takes it if it is new; and what became of it. NULL: always new. */
    enum rights_repeat_found (*repeat_asked)(
        void *ctx, const struct repeat_key *key, struct msg_id id, struct msg_id *as_out);
    void (*repeat_told)(
        void *ctx, const struct repeat_key *key, struct msg_id id, bool accepted);
    /* What may be in use of a destination's limits, in answer to the need of this serial
     * (rights_need); and of one without a need. May be NULL. */
    void (*share)(
        void *ctx, uint64_t key, uint32_t serial, const uint32_t share[QUOTA_KINDS]);
    void (*floor)(void *ctx, const uint32_t floor[QUOTA_KINDS]);
};

struct engine_deps {
    struct store *store;
    struct rights *rights; /* made with engine_backend; rights_bind gives it the engine */
    struct workers *helpers;
    struct resolver *resolver; /* for names among the seeds; NULL: they stay unknown */
    const struct engine_events *events;
    void *ctx;
};

extern const struct rights_backend engine_backend;

/* Reads the cluster's own rows of the store (before store_scan), makes or reads the keys,
 * binds the transport. NULL with `why`: also when the disk belongs to no cluster yet and
 * there is neither `batonctl cluster init` nor a token. Nothing runs yet. */
struct engine *engine_new(const struct engine_deps *deps, const struct settings *settings,
    char *why, size_t why_size);
/* A unit that the store's scan found (struct scan_unit.clustered not set): without a row
 * of the cluster, from before it. Between engine_new and engine_start. */
void engine_found_unit(struct engine *e, struct unit_id id);
/* After rights_bind and store_scan, before any operation of the store: reads the rows of
 * the units and starts the thread. */
bool engine_start(struct engine *e, char *why, size_t why_size);
/* Resigns with `hold_s` (peers wait so long before they take over; 0: they need not
 * wait), then ends the thread. After the schedule has stopped. */
void engine_stop(struct engine *e, unsigned hold_s);
void engine_free(struct engine *e);
void engine_reload(struct engine *e, const struct settings *settings);

/* --- what is known, for status; any thread; a snapshot at most a quarter of a second
 * old --- */
enum member_state { MEMBER_JOINING, MEMBER_UP, MEMBER_DRAINING, MEMBER_LEFT };
struct engine_member {
    uint64_t node;
    char name[32];
    struct netaddr address;
    uint8_t roles, zone, weight;
    enum member_state state;
    uint8_t view;    /* 0 alive, 1 suspect, 2 dead */
    uint8_t session; /* 0 open, 1 none, 2 fenced */
    uint32_t epoch;
    bool is_self;
    int64_t heard_ms; /* since the last frame; -1: never */
    uint64_t settings_hash;
    char version[16];
    uint64_t waiting,
        waiting_rcpts; /* its mail, of which we tell until it is taken over */
};
struct engine_status {
    char name[64];
    uint64_t cfg_ver;
    uint8_t mode; /* enum core_mode */
    uint8_t copies, min_copies;
    uint32_t epoch;
    const char *state;    /* "opening", "syncing", "ready", "resigned", ... */
    int64_t lease_ms;     /* left; 0: none; INT64_MAX: static mode */
    uint64_t owned_rcpts; /* open ones; some seconds old where there are many units */
    uint64_t units, owned, copies_held, copies_short, in_doubt, tombstones, quarantined;
    unsigned seeds_failing; /* names that cannot be resolved */
    char seed_problem[400]; /* the first of them, and why */
    unsigned member_count;
    struct engine_member members[CORE_MEMBERS_MAX];
    struct transport_stats transport;
};
void engine_status(struct engine *e, struct engine_status *out);

/* How a unit stands at this moment. The row on disk knows only whom it was sent to.
 * False: the core does not know it. Any thread. */
struct engine_unit_stand {
    bool owned;      /* by this node */
    unsigned copies; /* durable ones, with our own */
    char owner[32];  /* its name; "" when it is no member */
    bool waits;      /* its owner seems to be gone, and it is for us to tell of it */
    uint64_t delivered, failed; /* by recipient's index: final */
};
bool engine_unit_stands(
    struct engine *e, struct unit_id id, struct engine_unit_stand *out);

/* --- questions to the other nodes: a JSON object there, a JSON object back --- */
struct engine_query {
    struct mail mail;
    json_t *question;   /* borrowed until done */
    uint64_t only;      /* ask this member alone; 0: all */
    int64_t timeout_ms; /* at most 2000 */
    struct mailbox *reply_to;
    void (*done)(struct engine_query *q, void *owner);
    /* one a member but ourselves; answer NULL: none came in time. From mem_alloc: the
     * asker frees it. */
    struct engine_answer {
        uint64_t node;
        char name[32];
        json_t *answer; /* the asker's */
        int64_t took_ms;
    } * answers;
    unsigned answer_count;
};
void engine_ask(struct engine *e, struct engine_query *q);
/* How questions of other nodes are answered: `ask` runs on the engine's thread and must
 * hand them on; engine_answer may be called from any thread, once a question. Takes
 * `answer`. */
void engine_on_question(struct engine *e,
    void (*ask)(void *ctx, uint64_t token, json_t *question), void *ctx);
void engine_answer(struct engine *e, uint64_t token, json_t *answer);

/* --- the operator --- */
enum engine_admin_op {
    ENGINE_DRAIN,
    ENGINE_UNDRAIN,
    ENGINE_REMOVE,
    ENGINE_FORCE_FENCE,
    ENGINE_FORCE_CONFIG,
    ENGINE_TOKEN,
};
struct engine_admin {
    struct mail mail;
    enum engine_admin_op op;
    char node[1024]; /* a member's name; FORCE_CONFIG: those that are gone, "a,b" */
    int64_t for_ms;  /* TOKEN */
    struct mailbox *reply_to;
    void (*done)(struct engine_admin *a, void *owner);
    bool ok;
    char why[512];              /* what was wrong, and what to do; or what was done */
    char token[TOKEN_TEXT_MAX]; /* TOKEN */
};
void engine_admin(struct engine *e, struct engine_admin *a);

#endif
