/* SPDX-License-Identifier: Apache-2.0 */
/* For route*.c alone. */
#ifndef NODE_DELIVERY_ROUTE_INTERNAL_H
#define NODE_DELIVERY_ROUTE_INTERNAL_H

#include <stdatomic.h>
#include <sys/queue.h>

#include "node/delivery/route.h"

/* ---- who we are (route_us.c): immutable, counted ---- */
struct route_us {
    atomic_uint refs;
    struct arena *arena;
    const char **names; /* lower case, no dot at the end */
    unsigned name_count;
    struct ipaddr *addresses; /* self.addresses: us on any port */
    unsigned address_count;
    struct netaddr *listening; /* no wildcards: those are spelt out */
    unsigned listening_count;
    uint16_t any4_ports[16]; /* of wildcard listeners: all of 127/8 leads there */
    unsigned any4_count;
    bool ipv4, ipv6;
    uint16_t mx_port;
};
struct route_us *route_us_new(const struct settings *s);
struct route_us *route_us_ref(struct route_us *us);
void route_us_unref(struct route_us *us);
bool route_us_is_name(const struct route_us *us, const char *name);
/* Does mail sent there come back to us? On port 25 any listener at that address counts,
 * since what leads port 25 to it (a redirect) cannot be seen from here; on other ports,
 * which are for tests and fixed hops, the port must match. */
bool route_us_is_address(const struct route_us *us, struct netaddr a);
/* Only what we listen on, with its port: for hops that the operator wrote down. */
bool route_us_is_listener(const struct route_us *us, struct netaddr a);
/* A family that is on, and an address that mail can be sent to. */
bool route_us_may_use(const struct route_us *us, struct ipaddr ip);

/* ---- what the settings say (route_rules.c) ---- */
enum treatment_kind {
    TREAT_MX,       /* DNS */
    TREAT_RELAY_MX, /* DNS, only hosts better than us */
    TREAT_HOPS,     /* a fixed list, in order */
};
struct treatment {
    enum treatment_kind kind;
    enum delivery_tls tls;
    const char *auth_file;
    struct hop *hops;
    unsigned hop_count;
};
struct route_rules;
struct route_rules *route_rules_new(void);
void route_rules_free(struct route_rules *rules);
/* Keeps a reference to the settings until the next call. */
void route_rules_set(struct route_rules *rules, struct settings *settings);
int route_rules_match(struct route_rules *rules, const struct route_facts *facts);
void route_rules_origin(
    struct route_rules *rules, const struct route_facts *facts, struct route_origin *out);
/* Stays valid until route_rules_free. */
const struct treatment *route_rules_treatment(const struct route_rules *rules, int rule);

/* ---- a route (route.c) ---- */
struct route_host {
    struct route_hop hop;
    bool known; /* addresses, or why there are none, are */
    enum err result;
    const char *why;
    enum dns_security security;
    struct ipaddr *ips; /* usable ones, in the order of the answer */
    unsigned ip_count;
};
struct route {
    atomic_uint refs;
    struct arena *arena;
    struct route_us *us;
    struct route_dns dns;
    enum err result;
    const char *why;
    const char *name;
    uint64_t key;
    struct mono expires;
    enum delivery_tls tls;
    const char *auth_file;
    enum dns_security security;
    bool by_mx;
    bool
        foreign; /* hosts were named by strangers (DNS, a literal), not by the operator */
    struct route_host *hosts;
    unsigned host_count;
};
/* Empty, in an arena of its own; refs 1. */
struct route *route_new(struct route_us *us, const struct route_dns *dns);
/* What a query found, as the host's own: filtered, us recognised. A hop that the operator
 * wrote fails for now, whatever is wrong: a slip in the settings must not bounce a queue.
 */
void route_host_take(
    struct route *route, struct route_host *host, const struct host_addresses *found);
/* Names and keys a route whose hosts are complete. */
void route_seal(struct route *route);

/* ---- a lookup (route_lookup.c): from a treatment and a domain to a route ---- */
struct lookup;
typedef void lookup_fn(struct route *route, void *ctx);
/* `done` gets the one reference; it may be called before this returns. */
void lookup_start(struct loop *loop, const struct route_dns *dns, struct route_us *us,
    const struct treatment *t, struct slice domain, lookup_fn *done, void *ctx);

#endif
