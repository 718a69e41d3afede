/* SPDX-License-Identifier: Apache-2.0 */
/* Where the commands of the control socket take their answers from. The daemon fills one
 * of these and keeps it, and all that it points to, for as long as the handlers live.
 * Callbacks run on the control's loop thread and must not block; they answer from
 * snapshots. */
#ifndef NODE_CONTROL_SOURCES_H
#define NODE_CONTROL_SOURCES_H

#include "base/clock.h"
#include "base/workers.h"
#include "dnsbl/resolver.h"
#include "node/control/control.h"
#include "node/control/peers.h"
#include "node/delivery/schedule.h"
#include "queue/history.h"
#include "queue/store.h"

/* What the scheduler and the daemon know. */
struct control_overview {
    uint64_t due;         /* units to be tried now */
    uint64_t deferred;    /* units tried before that wait for their next attempt */
    uint64_t held;        /* units of ours that are held */
    uint64_t in_doubt;    /* recipients whose dot went out and whose reply was lost */
    int64_t oldest_age_s; /* of the oldest unit; -1: the queue is empty */
    bool may_deliver; /* the lease; on a node alone: the store works, we are not stopping
                       */
    uint64_t config_hash;    /* settings_cluster_hash */
    const char *address;     /* where peers reach this node, or "" */
    const char *zone, *role; /* or NULL */
};

/* DEGRADED makes `status` exit with 2 (an operator should look), AT_RISK with 3 (mail
 * could be lost, or cannot move at all). NOTICE is shown, no more. */
enum control_severity { CONTROL_NOTICE, CONTROL_DEGRADED, CONTROL_AT_RISK };
struct control_alarm {
    char code[32]; /* "queue_full": stable, for scripts */
    char text[256];
    char next_step[256];
    enum control_severity severity;
    struct wall since;
    bool of_cluster; /* about the cluster, as this node sees it; not about this node */
};
#define CONTROL_ALARMS_MAX 32

/* How a unit of the queue stands in the cluster. */
struct control_unit {
    bool owned;      /* this node's mail; else a copy it keeps for another */
    unsigned copies; /* durable ones, this node's too */
    bool waits;      /* a copy, for a node that seems to be gone: this one tells of it */
    char owner[32];  /* of a copy: that node's name, or "" */
    uint64_t delivered, failed; /* by recipient's index: final, as the cluster knows */
};

struct control_sources {
    struct store *store;
    struct history *history;   /* NULL: `trace` is refused */
    struct resolver *resolver; /* NULL: `resolve` is refused */
    struct workers *helpers;
    const struct control_peers *peers; /* NULL: a node alone */
    const char *node;                  /* this node's name, as in the log */
    struct schedule *schedule;         /* NULL: what changes the queue is refused */
    struct rights *rights;             /* with it */
    struct mono started;
    void *ctx; /* for the callbacks */
    void (*overview)(void *ctx, struct control_overview *out);
    /* Alarms that hold now; returns how many were written. Those of control_usual_alarms
     * come by themselves; one with the same code here takes the place of the usual one.
     * NULL: none. */
    unsigned (*alarms)(void *ctx, struct control_alarm *out, unsigned max);
    /* Fills `out` when it knows better than what is there; on helpers. NULL: all is ours.
     */
    void (*unit)(void *ctx, struct unit_id id, struct control_unit *out);
    /* What batonctl allow and user lock say, in the place of all before. NULL: neither is
     * there. `state_file` keeps it over a restart. */
    void (*granted)(void *ctx, const struct cidr *nets, unsigned net_count,
        const char *const *users, unsigned user_count);
    const char *state_file;
    /* settings_cluster_each of those in force. NULL: not told to others. */
    void (*settings)(
        void *ctx, void (*one)(const char *key, uint64_t hash, void *ctx), void *one_ctx);
    /* Those in force, a new reference; with `schedule`. */
    struct settings *(*in_force)(void *ctx);
    /* Reads the settings again. Answers and ends the request, now or later:
     *   control_reply   {"changed":[...],"restart_needed":["data_dir"]}   any object
     *   control_finish  0, or control_fail with the problems as text. NULL: refused. */
    void (*reload)(void *ctx, struct control_request *req);
};

/* What can be seen from the store and the resolver alone: queue_full, queue_filling,
 * quarantine, dnssec_broken, no_lease. Also good for /readyz and for the log's ALARM
 * events.
 */
unsigned control_usual_alarms(
    const struct control_sources *s, struct control_alarm *out, unsigned max);

/* Registers status, queue ls|show|shape, trace, resolve, events, reload and log. After
 * log_open; adds a log sink (for `events`) that stays until the process ends, so one set
 * of handlers a process. */
struct control_handlers;
struct control_handlers *control_handlers_new(
    struct control *c, struct loop *loop, const struct control_sources *sources);
/* Before control_close, once the engine's thread has ended: handles what it left in the
 * loop's mailbox, and asks nobody any more. */
void control_handlers_stop(struct control_handlers *h);
/* After control_close, and after workers_free of the helpers (whose last answers the loop
 * has drained). Accepts NULL. */
void control_handlers_free(struct control_handlers *h);

#endif
