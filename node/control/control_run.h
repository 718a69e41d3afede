/* SPDX-License-Identifier: Apache-2.0 */
/* What stands in the place of a client when a command is run for another node, or as our
 * part of an answer for the cluster. For control.c. */
#ifndef NODE_CONTROL_CONTROL_RUN_H
#define NODE_CONTROL_CONTROL_RUN_H

#include "node/control/control.h"

struct control_run *control_run_new(struct control_request *req, struct mailbox *box,
    size_t max_bytes, control_run_done *done, void *ctx);
/* As control_reply_lines. */
bool control_run_take(struct control_run *run, struct slice lines);
/* More has come than there was room for: what follows is dropped. */
bool control_run_is_full(const struct control_run *run);
/* The request is ending: calls `done`. Takes `end`. */
void control_run_end(struct control_run *run, json_t *end);

#endif
