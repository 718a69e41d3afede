/* SPDX-License-Identifier: Apache-2.0 */
/* What would happen now to mail for a domain: which entry of the settings says so, where
 * it leads, and what the scheduler knows of that destination. Asked of the scheduler's
 * own router, so the answer is what mail gets, with what is cached. */
#ifndef NODE_DELIVERY_WHY_H
#define NODE_DELIVERY_WHY_H

#include "node/delivery/quota.h"
#include "node/delivery/schedule.h"

/* Who names the next hop. */
struct route_origin {
    enum { ROUTE_FROM_DNS, ROUTE_FROM_ROUTES, ROUTE_FROM_RELAY_DOMAINS } kind;
    int line;        /* of the entry in the settings; 0 for DNS */
    char entry[256]; /* its domain, as written there; "" for DNS */
};

struct schedule_why {
    /* the asker fills */
    struct mailbox *reply_to;
    void (*done)(struct schedule_why *w, void *owner); /* in reply_to's thread */
    char domain[256];                                  /* routing domain */
    char sender[512];                                  /* "" for <> */
    /* the answer */
    struct route_origin origin;
    struct route *route;   /* a reference for the asker; never NULL */
    bool paused;           /* in a cluster: no lease */
    uint64_t units, ready; /* of the domain, by whatever rule */
    bool busy;             /* some of them are being failed together */
    bool known;            /* there is something to say of the destination: */
    unsigned sessions, window, failures;
    /* Of the limits of the destination, what this node may use now: connections, and
     * messages in limits.destination_rate; QUOTA_NO_LIMIT: there is none. */
    uint32_t share[QUOTA_KINDS];
    bool is_throttled; /* no message more may start now */
    int64_t down_ms;   /* no session is tried for so long; 0: it is not down */
    struct failure_note down_why;
    /* the scheduler's */
    struct mail mail;
    struct schedule *schedule;
};
/* Any thread. `w` is the scheduler's until `done`, which always comes. */
void schedule_ask_why(struct schedule *s, struct schedule_why *w);

#endif
