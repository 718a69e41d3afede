/* SPDX-License-Identifier: Apache-2.0 */
/* The scheduler: one thread that knows every unit of the queue, when it is due, and which
 * destination it goes to. Units of one routing domain stand in one line (a group); groups
 * that lead to the same MX set share a destination; a destination has sessions, as many
 * as its window allows, which grows on success and shrinks on failure. Groups of a
 * destination take turns, so one tenant's backlog does not starve its neighbours. */
#ifndef NODE_DELIVERY_SCHEDULE_H
#define NODE_DELIVERY_SCHEDULE_H

#include "node/delivery/delivery.h"
#include "node/delivery/hot.h"
#include "node/delivery/quota.h"

struct schedule_stats {
    uint64_t units, due, held, active, hot_bytes, memory_bytes;
    uint64_t in_doubt; /* recipients */
    uint32_t destinations, sessions;
    uint32_t spare; /* sessions that may be opened still; 0 while paused */
};

/* Nothing runs yet. `env->schedule` is filled in. Settings: one reference is taken over.
 */
struct schedule *schedule_new(struct delivery_env *env, struct settings *settings);
/* Before schedule_start: what the scan of the store found. */
void schedule_add_scanned(struct schedule *s, const struct scan_unit *unit);
/* Takes the array (made by mem_alloc), borrows what is in it. */
void schedule_start(
    struct schedule *s, struct delivery_loop **loops, unsigned loop_count);
/* Any thread: a message that is durable and ours. Takes a reference of its own. */
void schedule_accepted(struct schedule *s, struct message *m);

/* --- in a cluster (rights_clustered): mail is scheduled when and as long as the cluster
 * says that it is this node's; all of any thread. Begins paused. --- */

/* Ours from now on: read from disk and scheduled, not before `due` (0: when it is due).
 * `rcpts`, by rights_bit: those that may be tried; `doubt`: those that are in doubt.
 * Known already: the recipients are taken over, and `due` when it waits for its time. */
void schedule_unit_start(struct schedule *s, struct unit_id id, uint64_t rcpts,
    uint64_t doubt, struct wall due);
/* Another node's: forgotten; an attempt that is under way is not stopped from here (its
 * ticket does that), and is forgotten when it is over. The zero id: all units. */
void schedule_unit_cancel(struct schedule *s, struct unit_id id);
/* No attempt starts, and nothing is failed or expired, until it goes on. */
void schedule_pause(struct schedule *s, bool paused);

/* What may be in use of the limits of the destination with this key, in answer to the
 * need of this serial (rights_need); and of one without a need. */
void schedule_quota_share(
    struct schedule *s, uint64_t key, uint32_t serial, const uint32_t share[QUOTA_KINDS]);
void schedule_quota_floor(struct schedule *s, const uint32_t floor[QUOTA_KINDS]);

/* Any thread: new settings (a reference of its own is taken). */
void schedule_reload(struct schedule *s, struct settings *settings);
/* Any thread. Starts no more attempts; sessions finish what is in hand, at the latest
 * until `timeout_ms`; then waits for the thread to end. */
void schedule_stop(struct schedule *s, int64_t timeout_ms);
void schedule_free(struct schedule *s);
/* Any thread; a snapshot at most a quarter of a second old. */
struct schedule_stats schedule_stats(struct schedule *s);

/* As long as the schedule. */
const struct hot_memory *schedule_hot(const struct schedule *s);

#endif
