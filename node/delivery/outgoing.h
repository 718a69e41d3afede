/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of a delivery session, for delivery*.c. One loop's thread. */
#ifndef NODE_DELIVERY_OUTGOING_H
#define NODE_DELIVERY_OUTGOING_H

#include <stdatomic.h>

#include "node/delivery/body_source.h"
#include "node/delivery/delivery.h"

struct delivery_loop {
    struct loop *loop;
    struct conns *conns;
    const struct delivery_env *env;
    atomic_uint load;
};

enum delivery_state {
    DELIVERY_LOOKING_UP, /* the addresses of a hop */
    DELIVERY_CONNECTING, /* TCP, or the set-up up to the first `ready` */
    DELIVERY_IDLE,       /* ready, nothing in hand */
    DELIVERY_LOADING,    /* the parcel in hand is being read from disk, or its right is
                            asked for */
    DELIVERY_SENDING,    /* a transaction runs */
    DELIVERY_CLOSED,     /* only waits for its release */
};

/* Addresses tried in one session, at most. */
#define TRIES_MAX 20

struct delivery {
    struct mail start_mail, release_mail, quit_mail, abort_mail;
    struct delivery_loop *dl;
    struct session_slot *slot;
    struct settings *settings;
    struct route *route;
    enum delivery_state state;
    bool abort_told; /* the scheduler's alone */
    bool quitting, released, opened_told, hungry_told, idle_told;
    unsigned pending; /* answers that will still come and need this object */

    struct parcel *line, **line_tail; /* waiting, untouched */
    unsigned line_count, batch;
    struct parcel *current;
    bool loading;           /* a helper has the one in hand */
    bool load_failed;       /* no hop was left while it did */
    bool asking;            /* for the right to the one in hand */
    bool gate_refused;      /* the dot was not written: the right is gone */
    struct mono wait_until; /* for the right, or at the gate */

    /* which hop and address */
    uint8_t order[ROUTE_HOPS_MAX];
    unsigned hop;                         /* index into order */
    uint8_t next_address[ROUTE_HOPS_MAX]; /* by hop */
    bool revisit[ROUTE_HOPS_MAX];         /* refused there, but has other addresses */
    bool second_round, by_protocol, looking_up;
    unsigned tries;
    struct route_lookup lookup;
    struct netaddr address;
    struct dead_address dead[DEAD_ADDRESSES_MAX * 2];
    unsigned dead_count, dead_known; /* those given at the start come first */
    struct failure_note last_failure;
    char ip[NETADDR_TEXT_MAX];

    /* the connection */
    struct conn *conn;
    struct smtp_client *client;
    struct smtp_client_config client_config;
    char ehlo_name[256];
    char credentials[1024];
    struct timer timer; /* the engine's deadline, or the idle limit */
    bool in_engine, ended, in_clear, final_waiting, lost;
    struct failure_note end; /* when ended */
    bool end_was_ready, end_retry_in_clear, end_ok;
    unsigned messages; /* transactions on this connection */

    /* the transaction */
    struct smtp_client_tx tx;
    struct smtp_client_rcpt *tx_rcpts;
    uint16_t *tx_index; /* recipient of the unit, by position in the transaction */
    unsigned tx_room;
    struct body_source *source;
    struct body *converted; /* to 7 bits, for this hop */
    bool lacks_final_crlf;
    bool outcome_pending; /* the one before is not durable yet: no dot before it is */
    bool move_on; /* the connection failed under the parcel: try the next hop with it */

    struct session_event opened, closed;
};

/* delivery_hops.c: which address next. */
void hops_start(struct delivery *d);
/* After a failure; by_protocol: a server refused us, so another host comes first. False
 * when there is nothing left to try. */
bool hops_next(struct delivery *d, bool by_protocol);
void hops_note_dead(struct delivery *d, bool in_clear_only, int64_t for_ms);
bool hops_must_be_clear(const struct delivery *d);
const char *hops_name(const struct delivery *d);

/* delivery_connect.c */
void outgoing_connect(struct delivery *d, struct netaddr address);
void outgoing_drop_connection(struct delivery *d);
void outgoing_setup_failed(struct delivery *d, bool by_protocol);
/* Runs the engine's output and whatever its callbacks asked for. After every call into
 * it. */
void outgoing_pump(struct delivery *d);
void outgoing_arm(struct delivery *d);
extern const struct smtp_client_handler outgoing_engine_handler;

/* delivery_send.c: transactions. */
void outgoing_next_parcel(struct delivery *d);
void outgoing_engine_done(void *ctx, const struct smtp_outcome *outcome);
enum smtp_body_state outgoing_engine_body(void *ctx, struct slice *out);
/* The connection is gone; what of the parcel in hand? True: it goes on at the next hop.
 */
bool outgoing_salvage(struct delivery *d);
/* The session ends, maybe between two hops, with a parcel in hand: what is known of it is
 * settled; of what nothing is known goes home untouched. */
void outgoing_leave_parcel(struct delivery *d);
/* The right is not ours now: the same, but it is not due before. */
void outgoing_leave_for_later(struct delivery *d, struct wall due);
/* May be talked about to the hop. */
void outgoing_granted(struct delivery *d, const struct rights_grant *grant);
/* The parcel in hand is no longer ours to hear of. */
struct parcel *outgoing_let_go(struct delivery *d);

/* delivery_gate.c: the right to the parcel, and the last write. */
/* Asks for it, once a parcel, and goes on with outgoing_granted or without the parcel. */
void outgoing_ask_right(struct delivery *d);
/* When mail whose right is missing is looked at again. */
struct wall outgoing_a_little_later(const struct delivery *d);
void outgoing_engine_final_ready(void *ctx);
void outgoing_write_final(struct delivery *d);
/* The right of the parcel in hand, or the gate, may have changed. */
void outgoing_look_at_right(struct delivery *d);
/* A cluster decides when it goes on: look again soon, whatever the engine waits for. */
bool outgoing_waits_for_right(const struct delivery *d);

/* delivery.c */
void outgoing_close(struct delivery *d, bool failed);
void outgoing_return_line(struct delivery *d);
/* The parcel in hand gets the last failure; those behind it, too, where a server was
 * ready once and took none. */
void outgoing_fail_all(struct delivery *d);
void outgoing_tell_hungry(struct delivery *d, bool idle);
struct parcel *outgoing_take_parcel(struct delivery *d);
void outgoing_pending_done(struct delivery *d);

#endif
