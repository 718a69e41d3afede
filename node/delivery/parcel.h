/* SPDX-License-Identifier: Apache-2.0 */
/* A parcel is one attempt on one unit, as it travels: the scheduler makes it, a loop
 * delivers (or only settles) it, and it comes home to the scheduler with its result. One
 * owner at a time. */
#ifndef NODE_DELIVERY_PARCEL_H
#define NODE_DELIVERY_PARCEL_H

#include "base/log.h"
#include "node/delivery/rights.h"

struct sched_unit;
struct schedule;

/* When a recipient that may not be tried is looked at again: whoever knows when its doubt
 * ends says so sooner. */
#define NOT_ALLOWED_MS 60000

enum parcel_result {
    PARCEL_SETTLED,  /* all recipients final: the unit is gone */
    PARCEL_DEFERRED, /* due again at next_due */
    PARCEL_REQUEUE,  /* not touched: ready at once, for another session */
    PARCEL_REROUTE,  /* not touched: read, so that its route rule can be matched */
    PARCEL_LATER,    /* not touched: no right to it now; ready again at next_due */
};

/* What became of one recipient in this attempt. */
struct fate {
    enum err err;
    bool tried;
    bool possible_duplicate;
    bool relayed; /* delivered to a hop without DSN */
    uint16_t code;
    char status[12];    /* "5.1.1" */
    struct slice reply; /* in the parcel's arena */
};

struct parcel {
    struct mail mail;
    struct parcel *next;
    struct schedule *schedule;
    struct sched_unit *unit; /* the scheduler's alone */
    struct unit_id id;
    struct message *hot; /* the message with its body, or NULL: read it from disk */
    struct unit_record *record; /* when it was read from disk */
    struct arena *arena;        /* of fates; made when needed */
    struct attempt attempt;
    /* By rights_bit: those that may be tried; and of them, those that may have theirs
     * from an earlier attempt, and why (0: none has). */
    uint64_t allowed, doubt;
    char cause;
    struct fate *fates; /* one per recipient of the unit, by position */
    char mx[256];       /* host of the attempt, or "" */
    char ip[NETADDR_TEXT_MAX];
    const char *tls;      /* "TLSv1.3", "" in clear; static text */
    bool check_rule;      /* come home as PARCEL_REROUTE once the message is read */
    bool without_session; /* it is only settled */
    uint64_t counted;     /* key of the destination whose messages are limited; 0: none */
    /* result */
    enum parcel_result result;
    struct wall next_due;
    struct wall not_before; /* 0, or what next_due must not be earlier than */
    uint16_t in_doubt;      /* recipients, when deferred */
    bool connection_failed; /* deferred because no hop could be reached or spoken to */
    struct message **dsns;  /* durable now: to be scheduled */
    unsigned dsn_count;
};

struct parcel *parcel_new(
    struct sched_unit *unit, struct unit_id id, struct message *hot);
/* Accepts NULL. */
void parcel_free(struct parcel *parcel);

/* The unit as the attempt sees it, whether fresh or read from disk. Valid when hot or
 * record is there. */
const struct message *parcel_message(const struct parcel *parcel);
const struct message_unit *parcel_unit(const struct parcel *parcel);
unsigned parcel_rcpt_count(const struct parcel *parcel);
/* The record of recipient `i`; for fresh mail one is made up: QUEUED, no attempts. */
struct rcpt_record parcel_rcpt(const struct parcel *parcel, unsigned i);
/* Its bit in what the rights speak of. */
uint64_t parcel_rcpt_bit(const struct parcel *parcel, unsigned i);
/* Those that are to be tried now. */
uint64_t parcel_open_bits(const struct parcel *parcel, struct wall now);
/* May it be tried at all? In a cluster another attempt may be in doubt about it. */
bool parcel_rcpt_allowed(const struct parcel *parcel, unsigned i);
/* Is it to be tried now? Not when final, nor when in doubt and not yet due, nor when it
 * is not allowed. */
bool parcel_rcpt_open(const struct parcel *parcel, unsigned i, struct wall now);
/* Makes the fates' array; all untried. */
void parcel_begin_fates(struct parcel *parcel);
/* Copies; `reply` is cut to 500 bytes. */
void parcel_set_fate(struct parcel *parcel, unsigned i, enum err err, unsigned code,
    struct slice status, struct slice reply);
/* The same fate for every open recipient that has none yet. An empty status takes the
 * error's own, an empty reply its text. */
void parcel_fail_all(struct parcel *parcel, enum err err, unsigned code,
    struct slice status, struct slice reply);

#endif
