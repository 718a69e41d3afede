/* SPDX-License-Identifier: Apache-2.0 */
/* What the control socket needs of a cluster: the calls of node/cluster/engine.h, as
 * pointers, so that a test can stand in for it, and a node alone has none. `ctx` is the
 * engine. */
#ifndef NODE_CONTROL_PEERS_H
#define NODE_CONTROL_PEERS_H

#include "node/cluster/engine.h"
#include "node/control/control.h"

struct control_peers {
    void *ctx;
    void (*status)(void *ctx, struct engine_status *out);
    void (*ask)(void *ctx, struct engine_query *q);
    void (*answer)(void *ctx, uint64_t token, json_t *answer); /* any thread */
    void (*admin)(void *ctx, struct engine_admin *a);
};

/* A question of another node: {"command","args","by"}; taken. Any thread; answered
 * through peers->answer exactly once, by this node's own part, unless the node stops. */
struct control_handlers;
void control_question(struct control_handlers *h, uint64_t token, json_t *question);

#endif
