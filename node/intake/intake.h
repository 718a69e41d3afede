/* SPDX-License-Identifier: Apache-2.0 */
/* The way in: listeners, client sessions, who may, and the commit before 250.
 *
 *   in = intake_new(deps, settings, ...)   binds; nothing is accepted before the loops
 * run intake_reload(in, settings, ...)       listeners whose address stays are kept open
 *   intake_drain(in)                       no new clients, 421 to idle ones
 *   intake_sessions(in)                    poll until 0, or until patience ends
 *   intake_free(in)                        after the loops have ended
 *
 * The functions here are for the daemon's main thread. Sessions live on their loops; each
 * keeps the settings it began with. */
#ifndef NODE_INTAKE_INTAKE_H
#define NODE_INTAKE_INTAKE_H

#include "base/settings.h"
#include "base/workers.h"
#include "dnsbl/resolver.h"
#include "node/delivery/hot.h"
#include "node/delivery/rights.h"
#include "node/intake/repeats.h"
#include "node/net/conn.h"

struct intake;

/* Message ids: lanes 0 to 14 are the loops', the last one is left to others (DSNs). */
#define INTAKE_LANES 15
/* Connections to us that one loop can take over in one batch are bounded by the listener;
 * entries of clients that are not connected are bounded here. */
#define INTAKE_CLIENTS_REMEMBERED 65536

struct intake_deps {
    struct loop **loops;
    struct conns **conns; /* one a loop */
    unsigned loop_count;
    struct store *store;
    struct rights *rights;
    const struct hot_memory *hot; /* NULL: nobody waits for it (pace.h) */
    struct resolver *resolver;    /* NULL: recipients' domains are not looked up */
    struct workers *helpers;
    uint32_t node; /* of the store's identity, for ids */
    uint32_t epoch;
    /* A message is durable and 250 is said. Takes the reference. In the session's loop.
     */
    void (*accepted)(struct message *m, void *ctx);
    void *ctx;
};

/* Everything that can be wrong with settings beyond their syntax: files, keys, users,
 * what makes an open relay. For --check-config, start and reload. */
void intake_check(struct settings *s, struct settings_problems *problems);

/* Checks as intake_check does, binds, and begins. Keeps a reference to the settings; the
 * deps' pointers must outlive it. NULL with problems. */
struct intake *intake_new(const struct intake_deps *deps, struct settings *s,
    struct settings_problems *problems);
/* False, and nothing has changed, when there are problems. */
bool intake_reload(
    struct intake *in, struct settings *s, struct settings_problems *problems);
void intake_drain(struct intake *in);
/* Client sessions, and transactions whose commit is awaited after their client left. */
unsigned intake_sessions(const struct intake *in);
void intake_free(struct intake *in);

/* What was granted at run time: granted.h. */
void intake_grant(struct intake *in, const struct cidr *nets, unsigned net_count,
    const char *const *users, unsigned user_count);

/* Addresses bound, for the router's "us" and for tests with port 0. At most `max`;
 * returns how many there are. */
unsigned intake_addresses(const struct intake *in, struct netaddr *out, unsigned max);
/* The certificate's end; 0 without one. */
struct wall intake_certificate_expires(struct intake *in);
/* Another node took the message: a client that did not see its 250 and repeats it here is
 * answered with this id (limits.repeat_window). Any thread. */
void intake_taken(struct intake *in, const struct repeat_key *key, struct msg_id id);
/* Another node asks whether its client's message was handed in before, and is about to
 * take it if not: what repeats_asked says. And what became of it there. Any thread. */
enum repeat intake_repeat_asked(struct intake *in, const struct repeat_key *key,
    struct msg_id id, struct msg_id *as_out);
void intake_repeat_told(
    struct intake *in, const struct repeat_key *key, struct msg_id id, bool accepted);
/* Bytes reserved for messages on their way in. */
uint64_t intake_memory(const struct intake *in);

#endif
