/* SPDX-License-Identifier: Apache-2.0 */
/* Where a unit goes. Two steps, so that hot mail pays for neither a rule table nor DNS:
 *
 *   rule = router_match(...)        settings only: which next hop, TLS policy,
 * credentials router_ask(domain, rule, ...)   DNS where the rule needs it; answered from
 * a cache mostly
 *
 * Rules. A recipient domain in `relay_domains` goes to that entry's next hop. Any other
 * goes to the next hop of the most specific entry of `routes` that matches and names one,
 * else by DNS MX. More specific is, in this order: names the user; names the sender (an
 * address before a @domain); names the listener; names the domain (exactly, then the
 * longest .suffix); then who stands first in the file. `tls` and `auth` come from the
 * most specific matching entry that says so and is at least as specific as the one that
 * gave the next hop; with a next hop from relay_domains, or from DNS, only entries
 * without a next hop of their own can say so: credentials never go to a hop they were not
 * written for.
 *
 * DNS (RFC 5321 5.1). Hosts in order of preference. "Us" is hostname, self.names,
 * self.addresses, and every address we listen on. For a relay domain only hosts that DNS
 * prefers to any of us are left, which takes the addresses of all better hosts; for other
 * domains those that rank with or behind us are cut by name at once and by address as
 * soon as addresses are known (the best preference's always are). When that leaves none:
 * ERR_MAIL_LOOP. A host that is us and turns up later answers ERR_MAIL_LOOP to
 * route_addresses: nothing from there on is tried. An MX target that is a CNAME is
 * followed, one that is an IPv4 address is used as such. Address literals go where they
 * say.
 *
 * A router belongs to one thread; a route is immutable, counted by atomics, and may be
 * read on any. Both caches are bounded. */
#ifndef NODE_DELIVERY_ROUTE_H
#define NODE_DELIVERY_ROUTE_H

#include "base/loop.h"
#include "dnsbl/resolver.h"

struct router;
struct route;

#define ROUTE_HOPS_MAX 50
#define ROUTE_CACHE_MAX 8192 /* routes kept */
#define ROUTE_LOOKUPS_MAX                                                                \
    256 /* routes being looked up at one time; others wait in line */
#define ROUTE_TTL_MIN_MS 5000
#define ROUTE_TTL_MAX_MS 3600000
#define ROUTE_TTL_FAILED_MS 30000

/* The door to DNS; NULL functions mean the resolver's own (tests put theirs). */
struct route_dns {
    struct resolver *resolver;
    void (*ask_mx)(struct resolver *r, struct mx_query *q);
    void (*ask_host)(struct resolver *r, struct host_query *q);
};

/* `loop` is the owner's; settings are referenced. */
struct router *router_new(
    struct loop *loop, const struct route_dns *dns, struct settings *settings);
/* No lookup may be under way (router_stop, then drain the loop). Routes given out live
 * on. */
void router_free(struct router *r);
/* Every asker is answered ERR_SHUTTING_DOWN at once; answers still on their way from the
 * resolver are dropped. */
void router_stop(struct router *r);
/* Lookups under way whose answers will still come to the loop. */
unsigned router_pending(const struct router *r);
/* New settings: the cache is emptied, our own addresses are read again. Rule numbers stay
 * valid and keep their meaning, so what was matched before should be matched anew. */
void router_reload(struct router *r, struct settings *settings);

struct route_origin; /* why.h */
struct route_facts {
    struct slice domain;   /* routing domain: lower-case A-label or address literal */
    struct slice sender;   /* reverse-path without brackets; empty for <> */
    struct slice user;     /* authenticated user, or empty */
    struct slice listener; /* name, or empty */
};
/* The number of what the settings say about it; >= 0. Equal numbers: same treatment. */
int router_match(struct router *r, const struct route_facts *facts);
/* Which entry of the settings that is, for people. */
void router_origin(
    struct router *r, const struct route_facts *facts, struct route_origin *out);

/* `done` gets a reference; it is called before router_ask returns when the answer is
 * known. */
typedef void route_fn(struct route *route, void *ctx);
void router_ask(
    struct router *r, struct slice domain, int rule, route_fn *done, void *ctx);
/* Forgets what is known about a domain (an operator said retry now). */
void router_forget(struct router *r, struct slice domain);

/* --- the answer; any thread --- */
struct route *route_ref(struct route *route);
void route_unref(struct route *route);
/* ERR_OK: there is at least one hop. Otherwise why there is none. */
enum err route_result(const struct route *route);
/* One sentence for log and DSN; "" when OK. */
const char *route_why(const struct route *route);
/* The destination: the same for domains with the same set of hosts, ports, TLS policy and
 * credentials, whatever their order, so tenants of one provider share connections. */
uint64_t route_key(const struct route *route);
/* Its best hop, "mx1.example.org" or "[192.0.2.1]:2525"; for people. */
const char *route_name(const struct route *route);
bool route_is_stale(const struct route *route, struct mono now);
enum delivery_tls route_tls(const struct route *route);
/* Path of the file with the credentials, or "". */
const char *route_auth_file(const struct route *route);
/* Of the MX records; insecure when no MX was asked. */
enum dns_security route_security(const struct route *route);
bool route_by_mx(const struct route *route);

struct route_hop {
    const char *name; /* host, or the address as a literal when numeric */
    uint16_t port;
    uint16_t preference;
    bool numeric;
    bool implicit; /* no MX record: the domain itself */
};
unsigned route_hop_count(const struct route *route);
const struct route_hop *route_hop(const struct route *route, unsigned hop);
/* Its addresses as far as they were looked up with the route; NULL: not yet. `why_out`:
 * one sentence when it has none, or "". */
const struct ipaddr *route_hop_ips(
    const struct route *route, unsigned hop, unsigned *count_out, const char **why_out);
/* The order to try the hops in now: by preference, equal ones shuffled anew. */
void route_order(const struct route *route, uint8_t order[ROUTE_HOPS_MAX]);

/* The addresses of a hop, usable ones: of a family that delivery.ipv4/ipv6 allow, not
 * unspecified, multicast or broadcast, not us. IPv6 and IPv4 in turns; within a family in
 * an order of the lookup object's own, so that sessions spread, and one that asks again
 * finds them in the same places. */
struct route_lookup {
    /* the asker fills */
    struct mailbox *reply_to;
    void (*done)(struct route_lookup *l, void *owner); /* in reply_to's thread */
    /* the answer */
    enum err result; /* OK with count >= 1; MAIL_LOOP: it is us, stop here */
    const char *why; /* one sentence, or ""; inside `host` or static */
    enum dns_security security;
    unsigned count;
    struct netaddr addresses[32];
    /* own */
    struct host_query host;
    struct route *route;
    unsigned hop;
};
/* Any thread. True: answered now, `done` is not called. False: it will be. Keeps a
 * reference to the route until then. */
bool route_addresses(struct route *route, unsigned hop, struct route_lookup *l);

#endif
