/* SPDX-License-Identifier: Apache-2.0 */
/* The cluster's members as JSON, in the words of FACE.md. New references. */
#ifndef NODE_CONTROL_MEMBERS_H
#define NODE_CONTROL_MEMBERS_H

#include "node/cluster/engine.h"

/* {"name","nodes","copies","min_copies","mode","version","state"} */
json_t *cluster_json(const struct engine_status *st);
/* A row of status, as far as it is known without asking the member. */
json_t *member_json(const struct engine_member *m);
const char *member_state_name(enum member_state state);
const char *member_view_name(unsigned view);
const char *member_session_name(unsigned session);
/* NULL: nobody of this name. */
const struct engine_member *member_find(const struct engine_status *st, const char *name);
const struct engine_member *member_self(const struct engine_status *st);

#endif
