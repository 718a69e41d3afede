/* SPDX-License-Identifier: Apache-2.0 */
/* What is counted per client: connections open, how fast they come, wrong passwords; per
 * user too, for passwords. One table for all loops, in shards with a lock each: the one
 * named exception to sharing nothing. A client is an IPv4 address or an IPv6 /64.
 * Bounded: of entries without an open connection only the most recently used are kept. */
#ifndef NODE_INTAKE_CLIENTS_H
#define NODE_INTAKE_CLIENTS_H

#include "base/clock.h"
#include "base/netaddr.h"
#include "base/settings.h"

struct clients;

enum clients_verdict {
    CLIENTS_OK,
    CLIENTS_FULL,     /* all connections of all clients are in use */
    CLIENTS_TOO_MANY, /* of this client at once */
    CLIENTS_TOO_FAST, /* of this client in this time */
};

struct clients_limits {
    uint32_t connections; /* all together */
    uint32_t per_client;  /* at once; not for exempt ones */
    struct rate rate;     /* new ones per client; not for exempt ones */
};

/* `idle_max`: entries remembered of clients that are not connected. */
struct clients *clients_new(unsigned idle_max);
void clients_free(struct clients *all);

/* A client connects. Only CLIENTS_OK counts it as open, and wants clients_disconnect. */
enum clients_verdict clients_connect(struct clients *all, struct ipaddr ip,
    const struct clients_limits *limits, bool exempt, struct mono now);
void clients_disconnect(struct clients *all, struct ipaddr ip, struct mono now);
/* Open now, of all clients. */
uint32_t clients_open(const struct clients *all);
uint32_t clients_open_of(struct clients *all, struct ipaddr ip);

/* May this client try a password for this user now? `per_minute` wrong ones are free,
 * then one each 60 s / per_minute. Both the address and the user count. */
bool clients_may_authenticate(struct clients *all, struct ipaddr ip, struct slice user,
    uint32_t per_minute, struct mono now);
/* The same for the address alone, before the user is known. */
bool clients_address_may_authenticate(
    struct clients *all, struct ipaddr ip, uint32_t per_minute, struct mono now);
void clients_auth_failed(struct clients *all, struct ipaddr ip, struct slice user,
    uint32_t per_minute, struct mono now);
/* Entries in memory, for tests. */
unsigned clients_entries(struct clients *all);

#endif
