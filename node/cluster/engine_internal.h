/* SPDX-License-Identifier: Apache-2.0 */
/* The engine's state and the calls between its files. Everything here belongs to the
 * engine's thread unless a line says otherwise. */
#ifndef NODE_CLUSTER_ENGINE_INTERNAL_H
#define NODE_CLUSTER_ENGINE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "base/loop.h"
#include "cluster/budget.h"
#include "cluster/wire.h"
#include "node/cluster/birth.h"
#include "node/cluster/engine.h"
#include "node/cluster/rows.h"
#include "node/cluster/table.h"
#include "queue/head.h"
#include "queue/scrub.h"

/* A message on its way to 250. */
struct accepting {
    struct table_node by_handle;
    struct table_node by_message;
    struct rights_accept *asked;  /* NULL: a DSN that a settlement owes */
    struct rights_settle *settle; /* that settlement */
    struct message *message;
    uint32_t rows_on_disk;
    bool is_storing, is_stored;
    enum err stored;
    uint8_t reply; /* enum accept_reply; 0: none yet */
};

/* What came with a frame that the core is about to hear of. Taken by the store operation
 * that the core answers with, dropped otherwise. */
struct arrival {
    struct core_unit_id id;
    struct unit_record *copy;  /* MSG_COPY */
    uint32_t rows_on_disk;     /* of its body */
    struct arena *arena;       /* MSG_OUTCOME: of the records */
    struct rcpt_record *rcpts; /* MSG_OUTCOME */
    unsigned rcpt_count;
};

struct store_job;
struct copy_out;
struct copy_in;
struct query_out;
struct query_in;
struct engine_seeds;

struct copy_queue {
    struct copy_out *first, *last;
    unsigned count;
};

struct engine_peer {
    uint64_t node;
    uint64_t seq[LANE_COUNT]; /* frames are numbered when they leave */
    struct copy_queue ready;  /* copies of which something may be sent */
    struct copy_queue unread; /* those that wait for a helper */
    uint64_t settings_hash;   /* of its hello; 0: none yet */
    char version[16];
    struct core_ident ident;
    struct netaddr at;   /* where the lanes to it are */
    struct netaddr said; /* what it said last in a hello; port 0: nothing */
    bool is_linked;
    bool wall_trusted;     /* it trusts its wall clock, which is */
    int64_t wall_ahead_ms; /* so far ahead of our mono_now */
    struct mono wall_heard;
    struct mono patience; /* not missed before */
    struct mono complain_at;
};
#define ENGINE_PEERS CORE_MEMBERS_MAX

/* A token that was handed out, by its public key. In the store's STORE_OP_META. */
struct engine_invite {
    unsigned char key[TRANSPORT_KEY_BYTES];
    struct wall until;
    uint64_t joined; /* the node that used it; 0: nobody yet */
};
#define ENGINE_INVITES 16

struct engine {
    struct engine_deps deps;
    struct settings *settings;
    struct loop *loop;
    struct mailbox *box; /* whose owner is the engine */
    struct watcher box_ready;
    pthread_t thread;
    bool is_running, is_stopping;
    struct mail stop;
    unsigned stop_hold_s;
    struct mono resign_until;
    atomic_int_fast64_t busy_since_ns; /* start of the turn; 0: asleep. Any thread */
    atomic_bool watched;
    pthread_t watchdog;
    struct mailbox *watchdog_box;
    struct mail watchdog_mail;

    /* who we are */
    uint64_t node;
    struct cluster_identity identity;
    bool has_identity; /* the disk says so */
    bool wants_init, wants_join;
    struct birth birth;
    struct token token;    /* wants_join */
    struct core_meta meta; /* as read at start */
    struct unit_id *found; /* units from before the cluster */
    unsigned found_count, found_room;
    struct wire_cluster wire;
    struct transport_keys keys;
    struct core_cfg cfg; /* count 0: none yet */

    /* the core */
    void *core_memory;
    struct core *core;
    /* Held while the core changes, and by others for one look at a unit. */
    pthread_mutex_t core_lock;
    struct core_params params;
    struct core_commands out;
    bool is_stepping;
    unsigned jobs; /* at helpers or in the store besides, which come back */
    struct timer deadline;
    struct timer tick; /* four times a second */
    struct core_gate_value gate;
    bool told_lease;
    uint64_t told_age_ns;
    struct mono slow_since, slow_seen; /* the disk: see engine_store_health */
    bool told_full;

    /* store: operations under way, oldest first */
    struct store_job *first_job;
    struct store_job **job_end;
    struct store_job *open_job; /* rows of this step are gathered in it */
    uint64_t stored_token;      /* durable and not yet told */
    uint64_t told_token;

    /* rights */
    struct table accepts; /* struct accepting by handle */
    struct table hot;     /* struct accepting by message */
    struct table tickets; /* struct ticket_slot by unit */
    uint64_t handle;
    struct attempt_ticket *asking; /* the core is being asked */
    uint64_t asking_doubt;         /* of its unit, before */
    char asking_cause;
    struct rights_settle *settling; /* the core is being told; waits for its row */
    struct core_unit_id accepted;   /* in this step: the asker hands it over itself */
    bool has_accepted;

    /* transport and copies */
    struct transport *transport;
    struct engine_peer peer[ENGINE_PEERS];
    unsigned peer_count;
    struct table copies;   /* struct copy_out by peer and unit */
    struct table arriving; /* struct copy_in by peer and unit */
    struct table outcomes; /* struct outcome_kept by unit */
    struct outcome_kept *outcome_first, **outcome_end;
    uint64_t outcome_bytes, arriving_bytes, copying_bytes;
    unsigned reads; /* helpers reading copies */
    struct mail pump_mail;
    bool is_pump_posted;
    struct arrival *arrival; /* with the event that is being given */
    unsigned char *frame;    /* WIRE_FRAME_MAX of scratch */

    struct table taken; /* struct taken by unit: whose takeover is in the log */
    bool told_load;
    struct core_load load; /* as told last */
    struct mono load_at;
    struct offer *offers; /* units that another node may be able to deliver */
    unsigned offer_count;

    struct table repeats;      /* struct kept_key by unit */
    struct table repeat_asked; /* struct repeat_out by number */
    uint64_t repeat_number;

    struct budgets *budgets; /* of the limits of destinations */

    /* damage */
    struct table rotten; /* struct rotten by unit */
    unsigned looks;
    struct scrub scrub; /* the helper's while is_scrubbing */
    bool is_scrubbing, trusts_wall;
    struct mono scrub_at, wall_at;
    int64_t wall_ahead_ms; /* as the core was told; of mono_now */

    /* members */
    struct engine_invite invite[ENGINE_INVITES];
    unsigned invite_count;
    struct mono join_at; /* next request as a guest */
    unsigned join_turn;
    struct mono join_until; /* a proposal of ours is under way */
    struct mono hello_at, ident_at;
    bool is_member;           /* birth_done was told */
    struct admin_job *admins; /* operators' wishes under way */
    uint64_t admin_token;

    struct engine_seeds *seeds;

    /* questions */
    struct table asked;     /* struct query_out by number */
    struct table answering; /* struct query_in by token */
    uint64_t question_number;
    void (*ask)(void *ctx, uint64_t token, json_t *question);
    void *ask_ctx;

    pthread_mutex_t status_lock;
    struct engine_status status; /* under it */
    struct core_survey survey, surveyed;
    struct transport_stats told_stats;
};

/* engine.c */
/* A turn of the thread has begun, for the watchdog. */
void engine_busy(struct engine *e);
/* Gives the core one event at this moment and carries out its commands. Not from inside a
 * command. */
void engine_step(struct engine *e, struct core_event *event);
void engine_die(struct engine *e, const char *why);
bool engine_unit(
    const struct engine *e, const struct core_unit_id *id, struct unit_row *out);

/* engine_store.c */
void engine_store_init(struct engine *e);
/* After the store has answered all. */
void engine_store_fini(struct engine *e);
void engine_store_command(struct engine *e, const struct core_command *c);
/* Ends the gathering of a step. */
void engine_store_flush(struct engine *e);
/* Tells the core what became durable since. After each round of the loop. */
void engine_store_tell(struct engine *e);
void engine_store_health(struct engine *e);
bool engine_store_is_idle(const struct engine *e);

/* engine_rights.c */
void engine_rights_init(struct engine *e);
/* Whoever still waits is told that it is over. After the store has answered all. */
void engine_rights_end(struct engine *e);
void engine_rights_fini(struct engine *e);
void engine_accept_reply(struct engine *e, const struct core_command *c);
struct accepting *engine_accepting(const struct engine *e, uint64_t handle);
/* The message of a unit while it is under acceptance; NULL otherwise. */
struct accepting *engine_hot(const struct engine *e, const struct core_unit_id *id);
void engine_accept_stored(struct engine *e, struct accepting *a, enum err result);
void engine_attempt(struct engine *e, const struct core_command *c);
void engine_intent_ok(struct engine *e, const struct core_command *c);
void engine_cancel(struct engine *e, const struct core_command *c);
void engine_settled(struct engine *e, struct rights_settle *s, enum err result);

/* engine_start.c: CMD_START; makes the rows of recipients agree with the facts first. */
void engine_start_unit(struct engine *e, const struct core_command *c);

/* Taken over before this process began, or gone. */
void engine_was_taken(struct engine *e, const struct unit_row *row);
void engine_not_taken(struct engine *e, const struct core_unit_id *id);
void engine_start_fini(struct engine *e);

/* engine_share.c: work that others may do better */
void engine_offer_posted(void *engine, struct unit_id id); /* any thread */
void engine_share_tick(struct engine *e);
void engine_share_fini(struct engine *e);

/* engine_budget.c: the limits of destinations */
void engine_budget_init(struct engine *e);
void engine_budget_fini(struct engine *e);
void engine_need_posted(void *engine, const struct quota_need *need); /* any thread */
void engine_budget_frame(struct engine *e, uint64_t node, const struct core_msg *msg);
/* After the status was made. */
void engine_budget_tick(struct engine *e);
void engine_budget_reload(struct engine *e);

/* engine_repeats.c: the key came with a copy; its message was taken for sure; it may not
 * have been, or nobody needs it. */
void engine_repeat_keep(
    struct engine *e, const struct core_unit_id *id, const struct repeat_key *key);
void engine_repeat_sure(struct engine *e, const struct core_unit_id *id, bool is_heir);
void engine_repeat_drop(struct engine *e, const struct core_unit_id *id);
void engine_repeat_fini(struct engine *e);
/* Any thread. */
void engine_repeat_posted(void *engine, struct rights_repeat *q);
void engine_repeat_told_posted(
    void *engine, const struct repeat_key *key, struct msg_id id, bool accepted);
void engine_repeat_frame(struct engine *e, uint64_t node, const struct core_msg *msg);
void engine_repeat_tick(struct engine *e);
/* Whoever still waits is told that nobody answered. */
void engine_repeat_end(struct engine *e);

/* engine_copy.c: what leaves */
void engine_copy_init(struct engine *e);
void engine_copy_fini(struct engine *e);
void engine_send(struct engine *e, const struct core_msg *msg);
/* Sends what waits for room. After each round of the loop. */
void engine_copy_pump(struct engine *e);
/* Records of an outcome, kept for a while for the frames that will speak of it. */
void engine_keep_outcome(struct engine *e, const struct rights_settle *s);
void engine_copy_tick(struct engine *e);

/* engine_arrive.c: what comes */
void engine_arrive_init(struct engine *e);
void engine_arrive_fini(struct engine *e);
void engine_frame(
    struct engine *e, uint64_t node, enum transport_lane lane, struct slice frame);
void engine_arrive_tick(struct engine *e);
void arrival_free(struct arrival *a);

/* engine_damage.c */
void engine_damage_init(struct engine *e);
void engine_damage_fini(struct engine *e);
void engine_damage_tick(struct engine *e);
/* What the core must know of the wall clock. */
void engine_wall(struct engine *e);
/* A member has said what its clock shows. */
void engine_wall_compare(struct engine *e);
/* The unit could not be read: it is read once more, and the core hears what is bad. Not
 * from inside a command. */
void engine_suspect(struct engine *e, struct unit_id id);
void engine_suspect_posted(void *engine, struct unit_id id); /* any thread */
bool engine_body_is_bad(const struct engine *e, const struct core_unit_id *id);
/* A copy of it begins to come: bad mail that would be in its way goes. */
void engine_clear_rotten(struct engine *e, const struct core_unit_id *id);
/* Its mail came anew, or it is gone. */
void engine_not_rotten(struct engine *e, const struct core_unit_id *id);

/* engine_boot.c */
/* The cluster's own rows, before the store's scan. */
bool engine_boot(struct engine *e, char *why, size_t why_size);
/* Gives the core all that was and is read; the engine's thread has not started. */
bool engine_boot_core(struct engine *e, char *why, size_t why_size);

/* engine_members.c */
bool engine_members_open(struct engine *e, char *why, size_t why_size);
void engine_members_fini(struct engine *e);
void engine_members_start(struct engine *e);
void engine_members_cfg(struct engine *e, const struct core_cfg *cfg);
void engine_members_tick(struct engine *e);
void engine_guest(struct engine *e, const unsigned char *key, struct slice frame);
struct engine_peer *engine_peer(struct engine *e, uint64_t node);
void engine_link(struct engine *e, uint64_t node, bool is_up);
void engine_hello(struct engine *e, struct engine_peer *p, struct slice frame);

/* engine_seeds.c: members that are not where they were */
void engine_seeds_start(struct engine *e);
void engine_seeds_reload(struct engine *e);
void engine_seeds_tick(struct engine *e);
/* The connection to it is lost. */
void engine_seeds_lost(struct engine *e, struct engine_peer *p);
void engine_scouted(
    struct engine *e, uint64_t node, struct netaddr address, bool is_there);
void engine_seeds_status(const struct engine *e, struct engine_status *s);
/* Names that the resolver has not answered yet: into our mailbox. */
unsigned engine_seeds_pending(const struct engine *e);
/* When none is pending. */
void engine_seeds_fini(struct engine *e);

/* engine_admin.c */
void engine_admin_done(struct engine *e, const struct core_command *c);
void engine_admin_fini(struct engine *e);

/* engine_query.c */
void engine_query_init(struct engine *e);
void engine_query_end(struct engine *e);
void engine_query_fini(struct engine *e);
void engine_query_frame(struct engine *e, uint64_t node, struct slice frame);
void engine_query_tick(struct engine *e);

/* engine_status.c */
void engine_status_update(struct engine *e);

/* First byte of our own frames; an Envelope begins with 0x08. */
enum { FRAME_ENVELOPE = 0x08, FRAME_QUERY = 'Q', FRAME_HELLO = 'H', FRAME_JOIN = 'J' };

#endif
