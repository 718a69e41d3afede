/* SPDX-License-Identifier: Apache-2.0 */
/* A unit of the queue as JSON. New references. Works on helpers. */
#ifndef NODE_CONTROL_UNIT_JSON_H
#define NODE_CONTROL_UNIT_JSON_H

#include <jansson.h>

#include "queue/message.h"

/* "queued", "deferred", "in_doubt", ... */
const char *rcpt_state_name(enum rcpt_state state);
/* A line of `queue ls`:
 * {"id","from","size","received","node","copies","recipients":[...]} and a little more. A
 * line is a unit: what one node owns of a message; the lines of a message share its id.
 * Recipients that are done are left out, unless `all`. */
json_t *unit_json(const struct unit_record *u, const char *node, bool all);
/* The same with everything that is known: for `queue show`. */
json_t *unit_json_full(const struct unit_record *u, const char *node);

#endif
