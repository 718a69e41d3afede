/* SPDX-License-Identifier: Apache-2.0 */
/* What the handlers share. */
#ifndef NODE_CONTROL_HANDLERS_INTERNAL_H
#define NODE_CONTROL_HANDLERS_INTERNAL_H

#include <stdatomic.h>

#include "base/buf.h"
#include "node/control/sources.h"

struct rates; /* handlers_status.c */
struct tap;   /* handlers_events.c */

struct control_handlers {
    struct loop *loop;
    struct control_sources sources;
    struct rates *rates;
    struct tap *tap;
    struct shared_state *shared; /* handlers_allow.c; NULL: none */
    struct control *control;
    bool stopped;       /* the engine and the intake may be gone */
    atomic_uint served; /* questions of other nodes under way */
};

/* Work for a helper on behalf of a request. `run` on a helper fills `lines`; `done` on
 * the loop sends them and either starts it again or ends the request and frees the work.
 * A client that goes sets `cancelled`, which `run` looks at now and then; `done` runs all
 * the same. */
struct work {
    struct job job;
    struct control_request *req;
    struct control_handlers *handlers;
    atomic_bool cancelled;
    bool waiting; /* for the client to read, not for the helper */
    struct buf lines;
    enum err err;
    void (*run)(struct work *w);
    void (*done)(struct work *w);
    void (*free)(struct work *w); /* what the derived struct holds; then frees itself */
};
/* `w` is zeroed memory of mem_zalloc; run, done and free are filled in. */
void work_init(struct work *w, struct control_handlers *h, struct control_request *req,
    size_t lines_max);
/* Hands it to a helper; ends the request and frees the work when all are busy. */
void work_start(struct work *w);
/* From `done`: sends the lines. `more`: starts again when the client has read enough;
 * otherwise ends the request (with w->err, or 0) and frees the work. */
void work_continue(struct work *w, bool more);
/* From `done`: ends the request with this error, and frees the work. */
void work_fail(struct work *w, int exit_code, const char *next_step, const char *text);

/* In a cluster the store has copies of other nodes' mail too. How it stands: `owned` and
 * one copy, when nobody knows better. Any thread. */
void unit_stands(
    const struct control_handlers *h, struct unit_id id, struct control_unit *out);
bool unit_is_ours(const struct control_handlers *h, struct unit_id id);
/* Whose mail this node tells of: its own, and that of nodes that seem to be gone until
 * somebody has taken it over. NULL: another node tells of it. Borrowed from `at` or
 * longer. */
const char *unit_told(const struct control_handlers *h, const struct control_unit *at);
/* One compact JSON line. Takes the reference. False when the buffer is full. */
bool json_line(json_t *object, struct buf *out);
json_t *json_time(struct wall t); /* ISO 8601, or null for 0 */
json_t *json_ip(struct ipaddr ip);
void json_set_text(json_t *object, const char *key, struct slice text);

void status_register(struct control *c, struct control_handlers *h);
void status_free(struct control_handlers *h);
void queue_register(struct control *c, struct control_handlers *h);
void queue_verbs_register(struct control *c, struct control_handlers *h);
void shape_register(struct control *c, struct control_handlers *h);
void trace_register(struct control *c, struct control_handlers *h);
void why_register(struct control *c, struct control_handlers *h);
void resolve_register(struct control *c, struct control_handlers *h);
void events_register(struct control *c, struct control_handlers *h);
void quarantine_register(struct control *c, struct control_handlers *h);
void allow_register(struct control *c, struct control_handlers *h);
void allow_free(struct control_handlers *h);
void admin_register(struct control *c, struct control_handlers *h);
void events_free(struct control_handlers *h);

#endif
