/* SPDX-License-Identifier: Apache-2.0 */
/* Delivery status notifications (RFC 3461 to 3464, RFC 6533 for UTF-8 addresses, RFC 3834
 * for Auto-Submitted): a multipart/report whose first part tells a person plainly what
 * happened, whose second part tells a program, and whose third part is the message or its
 * header.
 *
 * One DSN speaks of all recipients of a unit that become final together. Its id is the
 * creation time of the original and a hash of (unit, recipients, kind), so that the same
 * report made twice, after a crash or by another node, is the same message: it can be
 * neither lost nor doubled when it is stored in one transaction with the outcomes.
 *
 * A DSN has the null reverse-path, and nothing with a null reverse-path gets one.
 * Pure but for memory; any thread. The result is a new message with one reference for the
 * caller. */
#ifndef NODE_MAIL_DSN_H
#define NODE_MAIL_DSN_H

#include "queue/message.h"

enum dsn_kind {
    DSN_FAILURE,   /* refused for good, or expired */
    DSN_DELAY,     /* not yet delivered, still tried */
    DSN_RELAYED,   /* success asked for, and taken by a hop that makes no DSNs */
    DSN_DELIVERED, /* success asked for: put into a mailbox */
    DSN_EXPANDED,  /* success asked for: handed to several other addresses */
    DSN_KIND_COUNT
};
/* "failure" */
const char *dsn_kind_name(enum dsn_kind kind);

/* RFC 3461 4.1 and 5.2 as a table: is a DSN of this kind wanted for a recipient with
 * these NOTIFY bits? Delay notices go only to our own users (submission, relay_clients):
 * to strangers they would be backscatter. */
bool dsn_wanted(enum dsn_kind kind, uint8_t notify, enum origin origin);

/* Everything is borrowed for the call. */
struct dsn_request {
    enum dsn_kind kind;
    struct slice hostname;          /* Reporting-MTA, and the sender's address domain */
    const struct message *original; /* its envelope */
    struct unit_id unit;
    /* The recipients it is about, with the reply and the status of the last attempt.
     * Those for whom none is wanted are skipped. */
    const struct rcpt_record *const *rcpts;
    unsigned rcpt_count;
    struct wall now;
    struct wall retry_until; /* DSN_DELAY: the unit's expiry */
    struct wall dsn_expires; /* of the DSN itself */
    const struct body *body; /* the original's, whole; NULL: not at hand */
    struct slice header; /* its header section, used when body is NULL; may be empty */
    uint64_t full_max_bytes; /* a larger original is returned as its header; 0: 1 MiB */
    struct slice postmaster; /* for dsn_double_bounce */
};

/* The DSN, addressed to the reverse-path. NULL when none is to be sent: nobody wants it,
 * the reverse-path is null or has no domain to route by. */
struct message *dsn_make(const struct dsn_request *r);

/* The report of kind FAILURE for mail with a null reverse-path (a bounce that bounces),
 * to the postmaster of the settings. NULL when that is empty or the one who cannot be
 * reached: then the log is all there is. */
struct message *dsn_double_bounce(const struct dsn_request *r);

/* The id that dsn_make gives. */
struct msg_id dsn_id(const struct dsn_request *r);

#endif
