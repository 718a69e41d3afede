/* SPDX-License-Identifier: Apache-2.0 */
/* One command, answered by the whole cluster: this node's part from its own handler, the
 * others' by questions, all at once; then a function merges them. A node that does not
 * answer within WIDE_TIMEOUT_MS is named in the end line ("not_answered"), and the rest
 * is shown. All on the control's loop. */
#ifndef NODE_CONTROL_WIDE_H
#define NODE_CONTROL_WIDE_H

#include "node/control/handlers_internal.h"
#include "node/control/peers.h"

/* FACE.md: within two seconds, even with a node that hangs. */
#define WIDE_TIMEOUT_MS 1500
/* Of one node's part; a frame between nodes is at most 1 MiB. */
#define WIDE_ANSWER_MAX (700u << 10)
/* Questions of other nodes under way here; more are refused. */
#define WIDE_SERVED_MAX 64

struct wide_part {
    uint64_t node;
    char name[32];
    json_t *answer; /* {"exit","lines"}; NULL: none in time */
    int64_t took_ms;
};

struct wide {
    struct control_request *req;
    struct control_handlers *handlers;
    const char *command;
    json_t *args; /* of the client; ours */
    struct engine_query query;
    struct wide_part *parts; /* the first is this node's */
    unsigned count;
    unsigned waiting;
    /* All parts are here: ends by wide_finish or wide_refuse, now or later. */
    void (*merge)(struct wide *w);
    void (*state_free)(void *state); /* of what merge keeps in `state` */
    void *state;
};

/* `command`: what each node is asked; takes `part_args`, its arguments. */
void wide_start(struct control_handlers *h, struct control_request *req,
    const char *command, json_t *args, json_t *part_args, void (*merge)(struct wide *w));
/* The lines of a part; NULL, as good as an empty array, when it did not answer. */
json_t *wide_lines(const struct wide_part *part);
/* Of two figures that peers gave; what does not fit is as much as fits. */
json_int_t wide_sum(const json_t *a, const json_t *b);
/* Any part that has a line to show. */
bool wide_has_lines(const struct wide *w);
/* Asks one part's node again (the answer it has is dropped); `then` once it is here. */
void wide_again(struct wide *w, struct wide_part *part, json_t *part_args,
    void (*then)(struct wide *w));
/* Ends the request, naming those who did not answer, and frees `w`. */
void wide_finish(struct wide *w, int exit_code);
/* The same when nobody had anything: with the error of this node's part. */
void wide_refuse(struct wide *w);
/* The same with an error of one's own, which it takes. */
void wide_refuse_with(struct wide *w, json_t *error, const char *next_step);

/* Which commands other nodes may ask for. */
bool wide_is_shared(const char *command);
void wide_register(struct control *c, struct control_handlers *h);
/* The commands: */
control_handler wide_status, wide_nodes, wide_ls, wide_show, wide_shape, wide_trace,
    wide_events, wide_all, wide_verb;

#endif
