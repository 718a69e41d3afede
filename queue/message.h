/* SPDX-License-Identifier: Apache-2.0 */
/* A message as it was accepted: envelope, recipients grouped into units (one per routing
 * domain), and a body. Built once by intake (or by the DSN maker), immutable from then
 * on, shared between threads by reference count. The rows on disk are made from it, and
 * fresh mail is delivered from it without reading them back. */
#ifndef QUEUE_MESSAGE_H
#define QUEUE_MESSAGE_H

#include <stdatomic.h>

#include "base/arena.h"
#include "base/ids.h"
#include "base/netaddr.h"
#include "queue/body.h"

/* What the cluster can speak of: a unit's recipients are bits of a word. A node alone
 * knows neither limit. */
#define UNIT_RCPTS_MAX 64u
#define MESSAGE_UNITS_MAX 128u

/* RFC 3461 NOTIFY; 0 means that none was given (then: failure, and delay if we like). */
enum { NOTIFY_NEVER = 1, NOTIFY_SUCCESS = 2, NOTIFY_FAILURE = 4, NOTIFY_DELAY = 8 };
/* RFC 3461 RET */
enum dsn_ret { DSN_RET_UNSET, DSN_RET_FULL, DSN_RET_HDRS };
/* RFC 6152, RFC 3030: what the client declared, and what the scan of the body found. */
enum body_type { BODY_7BIT, BODY_8BITMIME };

/* Final states are never left, and move only up this list's order of section 2.18 of the
 * cluster protocol: DELIVERED beats all others. */
enum rcpt_state {
    RCPT_QUEUED,     /* never tried */
    RCPT_DEFERRED,   /* tried, to be tried again */
    RCPT_IN_DOUBT,   /* a dot went out and its reply was lost; tried again later */
    RCPT_DELIVERED,  /* next hop took it */
    RCPT_BOUNCED,    /* refused for good */
    RCPT_EXPIRED,    /* lifetime over */
    RCPT_DROPPED,    /* by a named operator or rule */
    RCPT_SUPPRESSED, /* on the suppression list */
};
static inline bool rcpt_state_is_final(enum rcpt_state s)
{
    return s >= RCPT_DELIVERED;
}

struct recipient {
    struct slice address; /* local@domain, no angle brackets, as given but for the case of
                             the domain */
    struct slice orcpt;   /* "rfc822;user@example.org", decoded from xtext, or empty */
    uint8_t notify;
    uint16_t index; /* in its unit; the key of its row */
    /* Of a new message: 0, or the number of the cause (D1 to D8) for which it may have
     * this mail already. In records attempt_id says it. */
    uint8_t doubt;
};

/* What makes two messages of one client the same: a hash over who sent it, the envelope
 * and the body as it came. All zero: not asked for. */
#define REPEAT_KEY_BYTES 16
struct repeat_key {
    unsigned char bytes[REPEAT_KEY_BYTES];
};
static inline bool repeat_key_given(const struct repeat_key *k)
{
    static const struct repeat_key none;
    return memcmp(k, &none, sizeof(none)) != 0;
}

/* Recipients of a message that share a routing domain. */
struct message_unit {
    struct slice domain; /* routing domain, lower-case A-label, or an address literal */
    uint16_t unit;       /* the index in the message's units */
    uint16_t rcpt_count;
    struct recipient *rcpts;
    struct wall expires;
    int64_t delay_warning_ms; /* after `created`; 0: never */
};

enum origin {
    ORIGIN_MX,
    ORIGIN_SUBMISSION,
    ORIGIN_RELAY_CLIENT,
    ORIGIN_LOCAL /* DSN, alarm */
};

struct message {
    atomic_uint refs;
    struct arena *arena; /* owns this and all slices below */
    struct msg_id id;
    struct wall created;
    struct slice reverse_path; /* empty: <> */
    struct slice envid;        /* decoded, or empty */
    enum dsn_ret ret;
    enum body_type body_type;
    bool smtputf8; /* declared, so the next hop must support it */
    enum origin origin;
    struct slice user;     /* authenticated user, or empty */
    struct slice listener; /* name of the listener, or empty */
    struct ipaddr client;
    struct slice helo;
    unsigned unit_count;
    struct message_unit *units;
    struct body *body; /* with all added header fields; NULL when it is only on disk */
    uint64_t size;
    uint32_t body_crc; /* chained CRC32C over the body */
    struct repeat_key repeat_key;
    struct slice why; /* for a DSN: "failure of ID for a@b", shown by queue show */
};

/* A message in an arena of its own, refs 1, everything else zero. */
struct message *message_new(void);
struct message *message_ref(struct message *m);
/* The last one frees arena and body. Accepts NULL. */
void message_unref(struct message *m);

/* One recipient as it is on disk now. */
struct rcpt_record {
    struct recipient rcpt;
    enum rcpt_state state;
    uint16_t attempts;
    struct wall next_due;
    struct wall first_attempt; /* 0: none yet */
    struct wall last_attempt;
    struct slice last_reply;  /* cut to 500 bytes */
    struct slice last_status; /* enhanced status code, "4.4.1" */
    struct slice last_mx;     /* host name of the last attempt, "mx.example.org" */
    /* 0, or the attempt whose dot may have delivered to it; up to 8: another node's, by
     * the number of its cause (D1 to D8). */
    uint64_t attempt_id;
    bool delay_dsn_sent;
};

/* A unit as it is on disk now; all slices in `arena`. */
struct unit_record {
    struct arena *arena;
    struct unit_id id;
    struct message
        *message; /* envelope with unit_count 1 and this unit's recipients; no body */
    bool held;
    struct slice hold_reason;
    uint16_t rcpt_count; /* all, final ones too */
    struct rcpt_record *rcpts;
    struct wall next_due; /* of the unit: the earliest of its open recipients */
    uint32_t body_rows;
};
void unit_record_free(struct unit_record *u);

#endif
