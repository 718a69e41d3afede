/* SPDX-License-Identifier: Apache-2.0 */
/* What the rooms of delivery share: the environment they are built with, and the two-way
 * street between the scheduler (one thread, decides what goes where and when) and the
 * delivery sessions (one loop each, speak SMTP to one next hop).
 *
 *   scheduler -> session   open with a batch, more parcels, quit, release
 *   session -> scheduler   each parcel with its result; opened, hungry, closed
 *
 * A session is made and released by the scheduler, and lives on its loop in between.
 * After `closed` it answers everything by sending parcels back untouched, until the
 * release that the scheduler posts when it has heard: so neither ever holds a dead
 * pointer. */
#ifndef NODE_DELIVERY_DELIVERY_H
#define NODE_DELIVERY_DELIVERY_H

#include "base/loop.h"
#include "base/settings.h"
#include "base/workers.h"
#include "dnsbl/resolver.h"
#include "node/delivery/parcel.h"
#include "node/delivery/route.h"
#include "node/net/conn.h"

struct schedule;
struct session_slot; /* the scheduler's side of a session */
struct delivery;     /* the loop's side */

/* The same for all; outlives all. */
struct delivery_env {
    struct store *store;
    struct rights *rights;
    struct resolver *resolver;
    struct workers *helpers;
    struct tls_client *tls;
    struct schedule *schedule;
    const char *node;      /* name of this node, for logs */
    int64_t right_wait_ms; /* how long an attempt waits for its right; 0: 30 s */
    int64_t later_ms;      /* how long mail without a right is left, at least; at most
                              five times that; 0: 1 s */
};

/* One per loop: what its sessions share. */
struct delivery_loop;
struct delivery_loop *delivery_loop_new(
    struct loop *loop, struct conns *conns, const struct delivery_env *env);
/* All its sessions must be released. */
void delivery_loop_free(struct delivery_loop *dl);
/* Sessions on it; any thread; the least busy loop gets the next one. */
unsigned delivery_loop_load(const struct delivery_loop *dl);
struct loop *delivery_loop_loop(struct delivery_loop *dl);
struct mailbox *delivery_loop_mailbox(struct delivery_loop *dl);
struct conns *delivery_loop_conns(struct delivery_loop *dl);
const struct delivery_env *delivery_loop_env(struct delivery_loop *dl);

/* An address that was found dead, and until when it is left alone. */
struct dead_address {
    struct netaddr address;
    struct mono until;
    bool in_clear; /* not dead: its TLS is broken; speak to it in clear */
};
#define DEAD_ADDRESSES_MAX 16

/* A failure that concerns no one message: of a connection, a host, a route. */
struct failure_note {
    enum err err;
    uint16_t code;   /* of a reply, or 0 */
    char status[12]; /* "4.4.1" */
    char text[512];
    char mx[256]; /* host, or "" */
};

struct delivery_start {
    struct route *route;       /* one reference, taken */
    struct settings *settings; /* one reference, taken */
    struct parcel *parcels;    /* a list by `next`, taken */
    struct session_slot *slot;
    struct dead_address dead[DEAD_ADDRESSES_MAX];
    unsigned dead_count;
};

/* Scheduler's thread: */
struct delivery *delivery_open(
    struct delivery_loop *dl, const struct delivery_start *start);
void delivery_send(struct delivery *d, struct parcel *parcels);
/* Politely: after the parcel in hand; those behind it come back. */
void delivery_quit(struct delivery *d);
/* At once: a dot whose reply is awaited becomes in doubt. */
void delivery_abort(struct delivery *d);
void delivery_release(struct delivery *d);
/* Settles a unit without an attempt: every open recipient gets this fate. The parcel
 * comes home as from an attempt. Takes the parcel; borrows the rest for the call. */
void delivery_fail(struct delivery_loop *dl, struct settings *settings,
    struct parcel *parcel, const struct failure_note *why);

/* What a session tells. HUNGRY ones are the receiver's to free; the others are part of
 * the session. */
enum session_event_kind { SESSION_OPENED, SESSION_HUNGRY, SESSION_CLOSED };
struct session_event {
    struct mail mail;
    enum session_event_kind kind;
    struct schedule *schedule;
    struct session_slot *slot;
    bool idle;      /* HUNGRY: it has nothing to do at all */
    bool was_ready; /* CLOSED: some hop took the set-up */
    bool failed;    /* CLOSED: by an error, not politely */
    struct failure_note why;
    struct dead_address dead[DEAD_ADDRESSES_MAX]; /* CLOSED: what it found */
    unsigned dead_count;
};

/* Loop's thread; these post to the scheduler. */
void schedule_parcel_home(struct schedule *s, struct parcel *parcel);
void schedule_session_event(struct schedule *s, struct session_event *event);

#endif
