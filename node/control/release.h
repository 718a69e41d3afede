/* SPDX-License-Identifier: Apache-2.0 */
/* `quarantine release` in a cluster: first every node is asked what it knows of the unit
 * (wide_release.c), then the one that has it aside makes a message of it again
 * (handlers_release.c). */
#ifndef NODE_CONTROL_RELEASE_H
#define NODE_CONTROL_RELEASE_H

#include "node/control/wide.h"

/* "ID-N", or "ID" for its only or first domain; false when it was refused. */
bool quarantine_take_id(struct control_request *req, json_t *args, struct unit_id *out);

/* This node's part. Arguments: "asked": all nodes were; "may_duplicate": the operator
 * accepts that it may be delivered twice; "skip": [{"index" or "to"}], recipients that
 * need it no more. */
void release_in_cluster(struct control_request *req, json_t *args,
    struct control_handlers *h, struct unit_id id);
void release_register(struct control *c, struct control_handlers *h);

control_handler wide_release;

#endif
