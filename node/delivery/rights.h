/* SPDX-License-Identifier: Apache-2.0 */
/* The seam between the relay and the cluster. Whoever accepts a message, starts an
 * attempt, writes a final dot or reports an outcome asks here, and nowhere else. On a
 * node alone the answers are local: the store's commit is the only copy, and the gate is
 * open while the process may deliver. On a node of a cluster a backend (node/cluster)
 * stands behind the same calls. The events are those of the protocol: accept,
 * want-attempt, intent, gate, outcome. */
#ifndef NODE_DELIVERY_RIGHTS_H
#define NODE_DELIVERY_RIGHTS_H

#include <stdatomic.h>

#include "node/delivery/quota.h"
#include "queue/store.h"

struct rights;
struct rights_accept;
struct rights_settle;
struct rights_repeat;
struct attempt_ticket;

/* What a cluster puts behind the seam. Each call is from any thread and never blocks. */
struct rights_backend {
    /* Answers by `done` in the thread of reply_to, once. */
    void (*accept)(void *ctx, struct rights_accept *a);
    /* Asks for the right and announces the intent, in one; the answer comes by
     * ticket_answer, then ticket_open or nothing. Takes a reference over. Each begin ends
     * in exactly one `gone`, or in an outcome with its attempt_id. */
    void (*begin)(void *ctx, struct attempt_ticket *t);
    /* The attempt ended and nothing was tried: no outcome will come for it. Comes also
     * for one that was refused or closed, or is not answered yet. Takes a reference over
     * (another one than `begin`). */
    void (*gone)(void *ctx, struct attempt_ticket *t);
    /* Takes the fact, and makes it durable with the DSNs it owes, which get their copies
     * first. An error (no copies for a DSN) means that nothing of it was taken; without
     * DSNs it is always taken, but for ERR_STORE_NOT_FOUND. Answers by `store.op.done` in
     * the thread of store.op.reply_to. */
    void (*outcome)(void *ctx, struct rights_settle *s);
    /* The mail of a unit could not be read from disk: it is looked at again, and another
     * node's copy takes its place when it is damaged. */
    void (*suspect)(void *ctx, struct unit_id unit);
    /* No hop of the unit can be reached from this node: another may try. */
    void (*offer)(void *ctx, struct unit_id unit);
    /* Has another node taken this message from its client before? Answers by `done` in
     * the thread of reply_to, once and soon; NEW when nobody says otherwise. NULL: not
     * asked. */
    void (*repeat)(void *ctx, struct rights_repeat *q);
    /* What became of a message that was NEW. */
    void (*repeat_told)(
        void *ctx, const struct repeat_key *key, struct msg_id id, bool accepted);
    /* What this node has and wants of the limits of a destination. NULL: it may use all
     * of them. */
    void (*need)(void *ctx, const struct quota_need *need);
};

/* `backend` NULL: a node alone. `ctx` may be given later, by rights_bind, before the
 * first question. */
struct rights *rights_new(
    struct store *store, const struct rights_backend *backend, void *ctx);
void rights_bind(struct rights *r, void *ctx);
/* No ticket's backend may call any more. */
void rights_free(struct rights *r);
bool rights_clustered(const struct rights *r);

/* --- accept: `done` with ERR_OK means that all the copies we promise are durable: 250
 * may be said. ERR_OUTCOME_UNKNOWN: nobody knows; close the connection without a reply.
 * Any other result means that nothing of it was or will be sent. --- */
struct rights_accept {
    struct store_accept store; /* fill message, rows_on_disk */
    struct mailbox *reply_to;
    void (*done)(struct rights_accept *a, enum err result, void *owner);
    struct rights *rights;
    struct mail mail;           /* the backend's */
    enum err result;            /* the backend's */
    struct rights_accept *next; /* the backend's */
};
void rights_accept(struct rights *r, struct rights_accept *a);
/* May a message be begun at all? What the backend published last; asked at MAIL. */
enum err rights_may_accept(const struct rights *r) MUST_CHECK;

/* --- a client's repetition of what it handed to another node: known there by its key,
 * within limits.repeat_window --- */
enum rights_repeat_found { RIGHTS_REPEAT_NEW, RIGHTS_REPEAT_BUSY, RIGHTS_REPEAT_KNOWN };
struct rights_repeat {
    struct repeat_key key;
    struct msg_id id; /* ours, if it is new */
    struct mailbox *reply_to;
    void (*done)(struct rights_repeat *q, void *owner);
    enum rights_repeat_found found;
    struct msg_id as; /* KNOWN: what it was taken as, for sure */
    struct mail mail; /* the backend's */
};
/* False: there is nobody to ask. */
bool rights_repeat(struct rights *r, struct rights_repeat *q);
/* After NEW, what became of it: accepted or not. */
void rights_repeat_told(
    struct rights *r, const struct repeat_key *key, struct msg_id id, bool accepted);

/* --- an attempt: one per parcel, whatever transactions and hops it takes --- */

/* Shared between a loop and the backend; by reference count. */
struct attempt_ticket {
    atomic_uint refs;
    struct unit_id unit;
    uint64_t rcpts;           /* one bit a recipient's index: those to be tried */
    _Atomic uint64_t id;      /* of the attempt, 0 until answered */
    _Atomic uint64_t granted; /* recipients that may be tried; others are not to be */
    _Atomic uint64_t doubt;   /* of those, may have theirs from an earlier attempt */
    _Atomic char cause;       /* of that: '1' to '8', for possible_duplicate=D1 ... */
    _Atomic uint32_t epoch;   /* in which the right was given */
    atomic_int state;         /* enum ticket_state */
    struct mailbox *reply_to; /* where `changed` runs at most once a change */
    void (*changed)(struct attempt_ticket *t, void *owner);
    struct mail mail; /* the seam's */
    atomic_bool posted;
    void *ctx; /* the asker's, for its thread; NULL: it no longer wants to hear */
    struct attempt_ticket *next;         /* the backend's */
    struct mail backend_mail, gone_mail; /* the backend's: begin, gone */
    uint64_t backend_data;               /* the backend's */
};
enum ticket_state {
    TICKET_ASKED,   /* no answer yet */
    TICKET_REFUSED, /* not ours to deliver now */
    TICKET_GRANTED, /* may talk to the hop; no dot yet */
    TICKET_OPEN,    /* a holder knows of the attempt: the gate may open */
    TICKET_CLOSED,  /* the right is gone: no dot */
};

struct attempt {
    struct unit_id unit;
    uint64_t id; /* 0: not begun, or not granted yet */
    uint32_t epoch;
    struct attempt_ticket *ticket; /* NULL on a node alone, and when not begun */
};

struct rights_asker {
    struct mailbox *reply_to;
    void (*changed)(struct attempt_ticket *t, void *owner);
    void *ctx;
};
/* ERR_RIGHT_MISSING: not ours to deliver now. Any thread. In a cluster ERR_OK means that
 * it was asked; rights_gate tells. `rcpts`: those to be tried. Begun already: ERR_OK and
 * nothing else. */
enum err rights_begin(struct rights *r, struct unit_id unit, uint64_t rcpts,
    const struct rights_asker *asker, struct attempt *a) MUST_CHECK;
/* The asker no longer wants to hear; the attempt goes on. In the thread of reply_to. */
void rights_leave(struct attempt *a);
/* After the outcome was handed in, or `tried_nothing`: no dot left and none will. Once an
 * attempt; what was not begun or has ended is passed over. In the thread of reply_to. */
void rights_end(struct rights *r, struct attempt *a, bool tried_nothing);

enum gate { GATE_OPEN, GATE_WAIT, GATE_CLOSED };
/* What was granted; bits by recipient's index. */
struct rights_grant {
    uint64_t rcpts;
    uint64_t doubt;
    char cause; /* 0: none in doubt */
};
/* OPEN: the hop may be talked to, about these recipients; fills in a->id and a->epoch.
 * WAIT and CLOSED as below. In the asker's thread. */
enum gate rights_granted(
    const struct rights *r, struct attempt *a, struct rights_grant *out);
/* The gate: the last thing read before the write of the final dot. No lock. WAIT: the
 * asker's `changed` runs when the ticket changes; a lease that comes back tells nobody,
 * so look again within a second. CLOSED stays so for this attempt. */
enum gate rights_gate(const struct rights *r, const struct attempt *a);
/* The bit of a recipient, by rcpt.index; 0 beyond the 64 that a unit may have. */
static inline uint64_t rights_bit(unsigned index)
{
    return index < 64 ? UINT64_C(1) << index : 0;
}

/* Outcomes are facts: always taken, whoever owns. Durable when `store.op.done` runs. */
struct rights_settle {
    struct store_settle store;
    uint64_t
        attempt_id; /* 0: there was none (an operator's word, no hop to be reached) */
    uint64_t tried; /* one bit a recipient's index: all that were granted; the attempt
                       leaves none of them open, but those in doubt */
    uint64_t delivered, failed; /* final now; failed: bounced, expired, dropped, ... */
    uint64_t doubt;             /* of the tried: a dot left, and no reply came */
    struct rights_settle *next; /* the backend's */
    struct mail mail;           /* the backend's */
    unsigned dsns_done;         /* the backend's */
};
/* Fills `delivered`, `failed` and `doubt` from store.rcpts, and adds them to `tried` when
 * there was an attempt. */
void rights_settle_facts(struct rights_settle *settle);
void rights_outcome(struct rights *r, struct rights_settle *settle);

/* The mail of a unit could not be read. In a cluster it is looked after, and may become
 * another node's; on a node alone nothing happens. Any thread. */
void rights_suspect(struct rights *r, struct unit_id unit);
/* Deferred because no hop could be reached from here: a holder that can may have it. The
 * unit stays this node's until the cluster says otherwise. Any thread. */
void rights_offer(struct rights *r, struct unit_id unit);

/* In a cluster: what is in use of a destination's limits, and wanted. Any thread; the
 * answer comes by schedule_quota_share. */
void rights_need(struct rights *r, const struct quota_need *need);
/* Are the limits of destinations shared with others? */
bool rights_shares_limits(const struct rights *r);

/* Shutting down, or storage stalled: no attempt starts, no dot leaves. */
void rights_close_gate(struct rights *r);
bool rights_closed(const struct rights *r);
/* May an attempt start? In a cluster: only well before the lease ends. */
bool rights_may_deliver(const struct rights *r);

/* --- for the backend --- */
struct rights_gate_value {
    uint32_t epoch;
    bool frozen, is_static; /* static mode: no lease, the gate asks only for the rest */
    struct mono lease_end;
    int64_t dot_margin_ns, start_margin_ns;
};
/* One writer. Readers on any thread see a whole value or try again. */
void rights_publish_gate(struct rights *r, const struct rights_gate_value *value);
/* ERR_OK, or what MAIL is refused with. Before the first time: ERR_COPIES_UNAVAILABLE. */
void rights_publish_accept(struct rights *r, enum err result);
/* Before ticket_answer: these recipients may have theirs already; the cause is one of '1'
 * to '8'. Their outcomes are logged with it. */
void ticket_doubt(struct attempt_ticket *t, uint64_t rcpts, char cause);
/* refused: rcpts 0. `attempt` is not 0. What comes out of turn is passed over: an answer
 * after ticket_close, an opening before the answer. */
void ticket_answer(
    struct attempt_ticket *t, uint64_t attempt, uint64_t rcpts, uint32_t epoch);
void ticket_open(struct attempt_ticket *t);
void ticket_close(struct attempt_ticket *t);
struct attempt_ticket *ticket_ref(struct attempt_ticket *t);
void ticket_unref(struct attempt_ticket *t);

/* Is the wall clock fit for rules by age (expire, delay DSN)? At start it must not be
 * more than a day past the last committed time, nor 10 minutes before it, unless the
 * operator accepts it; from then on it must advance with CLOCK_BOOTTIME within the same
 * bounds. */
bool rights_clock_trusted(const struct rights *r, struct wall now);
void rights_clock_accept(struct rights *r, struct wall now);

#endif
