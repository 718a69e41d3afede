/* SPDX-License-Identifier: Apache-2.0 */
/* Members, invitations and operators' wishes, for engine_members.c, engine_join.c,
 * engine_admin.c and engine_status.c. */
#ifndef NODE_CLUSTER_MEMBERS_INTERNAL_H
#define NODE_CLUSTER_MEMBERS_INTERNAL_H

#include "node/cluster/engine_internal.h"

void ident_put_address(struct core_ident *out, struct netaddr a);
struct netaddr ident_address(const struct core_ident *i);
/* Where the others reach this node. */
struct netaddr members_own_address(const struct engine *e);
/* The lanes to `p` go to `address` from now on. */
void members_connect(struct engine *e, struct engine_peer *p, struct netaddr address);
/* How this node would enter a configuration. */
void members_self(const struct engine *e, struct cfg_change *out);
const struct core_member *members_find(const struct engine *e, uint64_t node);

/* engine_join.c */
void engine_invites_load(struct engine *e);
void engine_invites_tick(struct engine *e);
/* Writes a fresh token to `out`. False: too many are open. */
bool engine_invite_make(struct engine *e, int64_t for_ms, char out[TOKEN_TEXT_MAX],
    char *why, size_t why_size);
/* A proposal of ours has ended. True: it was one. */
bool engine_join_done(struct engine *e, const struct core_command *c);

#endif
