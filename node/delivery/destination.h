/* SPDX-License-Identifier: Apache-2.0 */
/* The scheduler's inner objects: groups, destinations and session slots. For schedule*.c.
 */
#ifndef NODE_DELIVERY_DESTINATION_H
#define NODE_DELIVERY_DESTINATION_H

#include <pthread.h>

#include "node/delivery/quota.h"
#include "node/delivery/schedule.h"
#include "node/delivery/units.h"

#define TABLE_BUCKETS 4096
#define BATCH_MAX 32
/* Units that are being settled without an attempt at one time. */
#define FAILING_MAX 256
#define WINDOW_FIRST 2
#define EARLY_MAX 256

enum route_state { ROUTE_NONE, ROUTE_ASKED, ROUTE_KNOWN };

struct group {
    LIST_ENTRY(group) bucket;
    TAILQ_ENTRY(group) turn;    /* of its destination; in it while it has ready units */
    TAILQ_ENTRY(group) failing; /* of the schedule */
    LIST_ENTRY(group) member;   /* of its destination */
    struct schedule *schedule;
    struct slice domain;
    int rule;
    struct unit_line ready;
    struct unit_line failed; /* waiting, and tried at once when the destination answers */
    unsigned ready_count;
    uint64_t unit_count;
    enum route_state route_state;
    struct route *route;
    struct destination *destination;
    struct failure_note *failure; /* being worked off */
    bool in_turn;
    bool route_outdated; /* asked for before a reload: ask again */
};

struct session_slot {
    TAILQ_ENTRY(session_slot) link;
    struct destination *destination;
    struct delivery *delivery;
    struct delivery_loop *loop;
    bool opened, idle, hungry, quitting;
};

struct destination {
    LIST_ENTRY(destination) bucket;
    TAILQ_ENTRY(destination) starve; /* of the schedule, when starved */
    LIST_HEAD(, group) members;
    uint64_t key;
    TAILQ_HEAD(, group) turns;
    TAILQ_HEAD(, session_slot) sessions;
    unsigned session_count, idle_count, group_count;
    unsigned ready_count;
    unsigned window;    /* sessions that may be open */
    unsigned successes; /* since the window last grew */
    unsigned failures;  /* set-ups failed in a row */
    unsigned offers;    /* units that other nodes are still offered before the next try */
    struct mono down_until;
    struct failure_note down_why;
    struct dead_address dead[DEAD_ADDRESSES_MAX];
    unsigned dead_count;
    struct mono grow_at; /* it refused a connection beside another: no more till then */
    bool starved;
    struct quota quota;
    LIST_ENTRY(destination) needy; /* of the schedule, while a need stands */
    TAILQ_ENTRY(destination) throttle;
    bool is_needy, throttled;
};

LIST_HEAD(group_list, group);
LIST_HEAD(destination_list, destination);

struct schedule {
    struct delivery_env *env;
    struct settings *settings;
    struct router *router;
    struct loop *loop;
    pthread_t thread;
    bool started;
    struct units *units;
    struct group_list groups[TABLE_BUCKETS];
    struct destination_list destinations[TABLE_BUCKETS];
    TAILQ_HEAD(, group) failing;
    /* Have mail and no session, because all that the node may open are open. */
    TAILQ_HEAD(, destination) starved;
    uint64_t hash_key;
    struct quota_terms terms;
    uint32_t most_messages;        /* in terms.period_ns */
    struct destination_list needy; /* the cluster was told what they need */
    /* Have mail, and no message more may start now. */
    TAILQ_HEAD(throttled_line, destination) throttled;
    struct timer throttle_timer;
    struct delivery_loop **loops;
    unsigned loop_count;
    struct timer due_timer;
    struct timer sweep_timer;
    unsigned sweep_round;
    int64_t clock_offset_ms; /* wall time less BOOTTIME at the last sweep */
    unsigned session_count, destination_count, failing_active;
    uint64_t active, ready, held, in_doubt;
    struct hot_memory hot;
    uint8_t generation; /* of the settings; a unit of another one is matched anew */
    bool match_needs_message;
    bool stopping;
    bool paused; /* in a cluster: no lease, so nothing is tried, failed or expired */
    /* In a cluster: units that are to be read from disk, and how many are being read. */
    STAILQ_HEAD(, start_note) starting;
    unsigned loading;
    /* Cancelled before they were known here: what was said first may arrive later. */
    struct unit_id early[EARLY_MAX];
    unsigned early_count;
    struct mono stop_at;
    pthread_mutex_t stats_lock;
    struct schedule_stats stats;
};

/* schedule_group.c */
struct group *group_find(struct schedule *s, struct slice domain, int rule);
/* For a group that was taken out of the table. */
void group_set_rule(struct group *g, int rule);
void group_add_ready(struct group *g, struct sched_unit *unit);
/* Out of its line; the unit is in no place then. */
void group_remove_ready(struct group *g, struct sched_unit *unit);
/* NULL when none is ready. The unit becomes ACTIVE. */
struct sched_unit *group_take_ready(struct group *g);
/* Asks for the route if it is not known, then hands the group's units to its
 * destination or to their failure. */
void group_advance(struct group *g);
void group_forget_if_empty(struct group *g);
void group_fail(struct group *g, const struct failure_note *why);
void groups_fail_some(struct schedule *s);
/* The cause is gone: what is left takes its turn again. */
void group_stop_failing(struct group *g);
/* A ready one, alone: those in line with it are not to share its fate. */
void group_expire_one(struct sched_unit *unit, const struct failure_note *why);
/* Mail that stands in line past its lifetime: a destination that takes little can keep it
 * from ever being tried again, and expiry acts in every state. */
void group_expire_ready(struct group *g, int64_t now_ms);
void group_leave_destination(struct group *g);
/* A reload or a TTL: the next look asks again. */
void group_drop_route(struct group *g);

/* schedule_destination.c */
struct destination *destination_find(struct schedule *s, uint64_t key);
void destination_dispatch(struct schedule *s, struct destination *d);
void destination_forget_if_empty(struct schedule *s, struct destination *d);
void destination_success(struct schedule *s, struct destination *d);
void destination_session_event(struct schedule *s, struct session_event *e);
bool destination_is_down(const struct destination *d);
/* Asks idle sessions to leave where others have none, and forgets who is gone. */
void destinations_sweep(struct schedule *s);
/* Politely, and only once. */
void destination_quit_slot(struct session_slot *slot);
/* At the end, when all groups are gone. */
void destinations_free(struct schedule *s);

/* NULL: there is none of this key. */
struct destination *destination_known(struct schedule *s, uint64_t key);

/* schedule_quota.c: what this node may take of the limits of a destination */
void schedule_quota_init(struct schedule *s);
void schedule_quota_fini(struct schedule *s);
/* The settings are new. */
void schedule_quota_reload(struct schedule *s);
/* Tells the cluster when more is needed than may be used; `lower`: or less. */
void destination_look(struct schedule *s, struct destination *d, bool lower);
/* No message more may start: it goes on when one may. */
void destination_throttle(struct schedule *s, struct destination *d);
/* A parcel of it is home. */
void destination_counted_home(struct schedule *s, uint64_t key);
/* False: it must be kept, for what it still counts. */
bool destination_quota_ends(struct schedule *s, struct destination *d);
/* Four times a second: who needs less, and who has more open than it may. */
void schedule_quota_sweep(struct schedule *s);

/* schedule_reload.c: does a rule look at more than the domain? */
bool schedule_rules_need_message(const struct settings *settings);

/* schedule_cluster.c */
void schedule_cluster_init(struct schedule *s);
void schedule_cluster_fini(struct schedule *s);
/* For mail that was accepted here; NULL: known already (a report made twice is one), or
 * another node's. */
struct sched_unit *schedule_new_unit(struct schedule *s, struct unit_id id);
void schedule_load_some(struct schedule *s);
/* So many of its recipients are in doubt. */
void schedule_set_doubt(struct schedule *s, struct sched_unit *unit, unsigned rcpts);
/* An attempt on a unit that was taken away meanwhile is over. */
void schedule_cancelled_home(struct schedule *s, struct sched_unit *unit);

/* schedule.c */
struct group *schedule_group_of(
    struct schedule *s, const struct message *m, unsigned unit);
void schedule_place_found(struct schedule *s, struct sched_unit *unit, struct group *g,
    const struct scan_unit *found);
void schedule_forget_hot(struct schedule *s, struct sched_unit *unit);
/* Out of the line of those whose destination did not answer, if it is in it. */
void schedule_leave_failed_line(struct sched_unit *unit);
void schedule_unit_gone(struct schedule *s, struct sched_unit *unit);
struct delivery_loop *schedule_least_busy(struct schedule *s);
struct parcel *schedule_make_parcel(struct schedule *s, struct sched_unit *unit);
void schedule_unit_due(struct schedule *s, struct sched_unit *unit);
void schedule_unit_wait(struct schedule *s, struct sched_unit *unit, int64_t due_ms);

#endif
