/* SPDX-License-Identifier: Apache-2.0 */
/* What was granted or taken at run time (batonctl allow, user lock), beside the settings:
 * relay clients, and users who may not log in. Any thread asks; the main thread sets. */
#ifndef NODE_INTAKE_GRANTED_H
#define NODE_INTAKE_GRANTED_H

#include "base/netaddr.h"

struct granted;

struct granted *granted_new(void);
void granted_free(struct granted *g);
/* In the place of all before; copies. */
void granted_set(struct granted *g, const struct cidr *nets, unsigned net_count,
    const char *const *users, unsigned user_count);
/* May it relay, as one of relay_clients? */
bool granted_allows(struct granted *g, struct ipaddr ip);
bool granted_is_locked(struct granted *g, const char *user);

#endif
