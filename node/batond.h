/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon: builds the rooms from the bottom up, runs them, and takes them down in the
 * order that loses nothing. For batond*.c. */
#ifndef NODE_BATOND_H
#define NODE_BATOND_H

#include <pthread.h>

#include "base/settings.h"
#include "node/cluster/engine.h"
#include "node/control/sources.h"
#include "node/delivery/schedule.h"
#include "node/intake/intake.h"
#include "queue/history.h"

struct node_loop {
    pthread_t thread;
    struct loop *loop;
    struct conns *conns;
    struct delivery_loop *delivery;
    bool running;
};

struct node {
    const char *config_file;
    struct settings *settings;
    struct loop *main; /* signals, control, http, alarms */
    struct watcher signals;
    struct timer second;
    struct mono started;
    bool stopping, recovered;
    struct store *store;
    struct history *history;
    struct resolver *resolver;
    struct workers *helpers;
    struct tls_client *tls;
    struct rights *rights;
    struct engine *engine; /* NULL: a node alone */
    struct delivery_env delivery_env;
    struct schedule *schedule;
    struct intake *intake;
    struct intake
        *_Atomic intake_known; /* to the cluster's thread, which runs before it */
    struct node_loop *loops;
    unsigned loop_count;
    struct node_face *face; /* control and http */
    struct node_alarms *alarms;
};

/* batond_node.c: false after a line that says what to do. */
bool node_start(struct node *n);
void node_run(struct node *n);
void node_stop(struct node *n);
/* Reads the file again; what is wrong is appended to `problems` and nothing changes. */
bool node_reload(struct node *n, struct settings_problems *problems);

/* batond_face.c: what batonctl and HTTP see. */
bool face_open(struct node *n, char *why, size_t why_size);
void face_close(struct node *n);
/* After the helpers have ended. */
void face_free(struct node *n);
/* Once a second. */
void face_tick(struct node *n);

/* batond_cluster.c: nothing of it does anything on a node alone, but for cluster_open,
 * which refuses a disk that belongs to a cluster. */
bool cluster_open(struct node *n, char *why, size_t why_size);
/* What is wrong with the section `cluster`, and what is unusual: a line each. */
void cluster_check(const struct settings *s, struct settings_problems *problems);
void cluster_warnings(const struct settings *s, struct buf *out);
/* After the scan, before the first operation of the store. */
bool cluster_start(struct node *n, char *why, size_t why_size);
void cluster_stop(struct node *n);
void cluster_peers(struct node *n, struct control_peers *out);
void cluster_questions(struct node *n, struct control_handlers *handlers);
/* How a unit stands; on a helper. */
void cluster_unit(struct node *n, struct unit_id id, struct control_unit *out);

/* batond_alarms.c: conditions that an operator should know, each with its next step. */
struct alarm {
    const char *code;
    char text[256];
    const char *next_step;
    enum control_severity severity;
    bool of_cluster;
    struct wall since;
};
struct node_alarms *alarms_new(void);
void alarms_free(struct node_alarms *a);
void alarms_look(struct node *n);
/* At most `max`; returns how many. */
unsigned alarms_list(const struct node_alarms *a, struct alarm *out, unsigned max);

#endif
