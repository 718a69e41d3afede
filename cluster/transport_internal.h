/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of a transport, for cluster/transport*.c only. */
#ifndef CLUSTER_TRANSPORT_INTERNAL_H
#define CLUSTER_TRANSPORT_INTERNAL_H

#include <stdatomic.h>

#include "cluster/transport.h"
#include "cluster/transport_credit.h"

#define PEERS_MAX 128
#define GUESTS_MAX 16
/* A turn of one lane: then the loop's timers and other watchers have their turn. */
#define TURN_FRAMES 64
#define TURN_BYTES (4u << 20)
/* Larger frames are counted while libzmq holds them, so that a lane is full by bytes too.
 */
#define PARCEL_MIN 4096
#define LANE_BYTES_MAX (16u << 20)

/* Every frame begins with its type. Data on the control lane: the type alone. On the bulk
 * lane: type, instance, stream, offset. OPEN (instance, stream, bytes sent so far) and
 * CREDIT (instance, stream, limit, seen) go on the control lane, and BEAT, which says
 * nothing, once a second. Numbers are little-endian u64. A type not known is refused and
 * does no harm. */
enum frame_type { FRAME_DATA = 1, FRAME_OPEN = 2, FRAME_CREDIT = 3, FRAME_BEAT = 4 };
#define HEAD_CONTROL 1
#define HEAD_BULK (1 + 3 * 8)
#define OPEN_BYTES (1 + 3 * 8)
#define CREDIT_BYTES (1 + 4 * 8)
/* What CURVE adds to a frame on the wire is below this. */
#define CURVE_BYTES 64

struct peer;
struct zap;
struct guard;

/* Bytes of large frames that libzmq holds for a lane. It outlives the lane: libzmq frees
 * what was queued when its own threads get to it. */
struct queued {
    atomic_uint refs;
    atomic_size_t bytes;
};

/* A DEALER to one peer and the monitor that says when its connection comes and goes. */
struct lane {
    void *socket; /* NULL: closed */
    void *monitor;
    struct watcher watch; /* of the monitor */
    struct watcher input; /* where nothing should come */
    bool is_rude;         /* and something came */
    struct transport *t;
    struct peer *peer; /* NULL: the guest's lane */
    struct queued *queued;
    enum transport_lane which;
    bool is_connected;
    struct mono since; /* connected, lost or opened */
};

struct peer {
    bool in_use;
    uint64_t node;
    unsigned char key[TRANSPORT_KEY_BYTES];
    struct netaddr address;
    struct lane lanes[TRANSPORT_LANES];
    bool told_up; /* the last word to events->link */
    bool control_was_up, bulk_is_stale;
    struct mono heard;
    struct credit_out out;
    struct credit_in in;
    bool owes_credit;                 /* a credit frame that the lane did not take */
    uint64_t frames_left, bytes_left; /* of control, until the next tick */
};

struct guest {
    bool in_use;
    unsigned char key[TRANSPORT_KEY_BYTES];
    struct mono until;
    unsigned frames_left; /* until the next tick */
};

/* We as the guest of another cluster: one lane, one frame. */
struct guest_out {
    struct lane lane;
    struct transport_keys keys;
    struct transport_peer host;
    char *frame;
    size_t len;
    bool is_waiting; /* for a connection */
    struct mono sent_at;
};

/* A try whether a peer is at an address. */
#define SCOUTS_MAX 8
enum scout_state { SCOUT_NONE, SCOUT_OUT, SCOUT_FOUND, SCOUT_FAILED };
struct scout {
    enum scout_state state;
    void *socket, *monitor;
    struct watcher watch;
    struct transport *t;
    uint64_t node;
    unsigned char key[TRANSPORT_KEY_BYTES]; /* the peer's, when it began */
    struct netaddr address;
    struct mono until;
};

enum router_state { ROUTER_ID, ROUTER_PAYLOAD, ROUTER_DRAIN };
struct router {
    void *socket;
    struct watcher watch;
    struct transport *t;
    enum transport_lane which;
    enum router_state state;
};

struct transport {
    struct loop *loop;
    const struct transport_events *events;
    void *ctx;
    void *zmq;
    struct zap *zap;
    struct guard *guard;
    struct router routers[TRANSPORT_LANES];
    struct timer more; /* the rest of a turn */
    struct timer tick; /* every second */
    struct transport_keys keys;
    struct netaddr address;
    uint64_t node;
    uint64_t window_bytes, window_all_bytes;
    struct peer peers[PEERS_MAX];
    unsigned peer_count;
    struct guest guests[GUESTS_MAX];
    struct guest_out guest_out;
    struct scout scouts[SCOUTS_MAX];
    uint64_t instance, next_stream, next_monitor;
    struct transport_stats stats;
    uint64_t logged_keys, logged_frames, logged_cut;
    struct netaddr refused_from; /* the member whose frames were refused last */
    unsigned logged;             /* lines about the refused; one a minute is forgotten */
    struct mono log_since;
};

/* --- transport_zap.c: who may connect --- */
enum zap_kind { ZAP_PEER, ZAP_GUEST };
/* Binds the handler and starts its thread; NULL with `why`. */
struct zap *zap_start(void *zmq, char *why, size_t why_size);
/* After zmq_ctx_shutdown. Accepts NULL. */
void zap_stop(struct zap *zap);
/* Any thread. */
void zap_allow(struct zap *zap, const unsigned char *key, enum zap_kind kind);
void zap_forget(struct zap *zap, const unsigned char *key, enum zap_kind kind);
/* Handshakes refused so far; the last one's address as text (64 bytes). */
uint64_t zap_refused(struct zap *zap, char last_address[64]);
/* The domain of a lane's listener. */
const char *zap_domain(enum transport_lane lane);
/* The key in the User-Id of a frame's sender. False: not one of ours. */
bool zap_user_parse(const char *user, unsigned char *key_out);

/* --- transport_bind.c: the listeners, and the proof that strangers stay out --- */
bool transport_bind(
    struct transport *t, struct netaddr listen, char *why, size_t why_size);
bool transport_self_test(struct transport *t, char *why, size_t why_size);
void socket_set_int(void *socket, int option, int value);
void socket_set_curve_client(
    void *socket, const struct transport_keys *keys, const unsigned char *server_key);
/* What both ends of a lane's connections are told: limits, no lingering. */
void socket_set_common(void *socket, struct netaddr address, enum transport_lane lane);
/* "tcp://192.0.2.1:25": numeric by construction. */
void socket_endpoint(struct netaddr address, enum transport_lane lane, char out[96]);

/* --- transport_lane.c: the DEALERs --- */
/* All options of a DEALER on a lane. */
void socket_set_dealer(void *socket, const struct transport_keys *keys,
    const unsigned char *server_key, struct netaddr address, enum transport_lane which);
/* The number of a monitor's next event, and its value (a descriptor). False: there is
 * none. */
bool monitor_next(void *monitor, unsigned *event_out, int *value_out);
/* No descriptors left, say: it stays closed until the next try. */
void lane_open(struct lane *lane, const struct transport_keys *keys,
    const unsigned char *server_key, struct netaddr address);
/* Accepts a closed one. */
void lane_close(struct lane *lane);
/* Did its peer send something, where it never should? */
void lane_look(struct lane *lane);
/* Head, middle and tail as one frame, copied. False: not connected or full. */
bool lane_send(
    struct lane *lane, struct slice head, struct slice middle, struct slice tail);
/* So that the kernel has something that a dead peer leaves unacknowledged. */
void lane_beat(struct lane *lane);

/* --- transport_flow.c: credit over the lanes --- */
void flow_begin(struct transport *t, struct peer *p);
void flow_ask(struct transport *t, struct peer *p);
void flow_extend(struct transport *t, struct peer *p);
void flow_tell(struct transport *t, struct peer *p);
void flow_frame(struct transport *t, struct peer *p, struct slice frame);
void flow_tick(struct transport *t, struct peer *p, struct mono now);

/* --- transport_guard.c: connections that libzmq does not bound --- */
bool guard_start(struct transport *t, char *why, size_t why_size);
/* Before the routers are closed. Accepts one that was not started. */
void guard_stop(struct transport *t);
/* A message came by this descriptor. */
void guard_heard(const struct transport *t, int fd, size_t bytes);
/* All that had come on this lane was read. */
void guard_drained(const struct transport *t, enum transport_lane lane);
/* Lanes on which their peers have sent. */
void guard_close_rude(struct transport *t);
/* Connections ended so far; where the last one came from. */
uint64_t guard_cut(const struct transport *t, char last_address[NETADDR_TEXT_MAX]);

/* --- transport_receive.c: the ROUTERs --- */
void receive_turn(struct transport *t);
/* Every second. */
void receive_log_refusals(struct transport *t, struct mono now);

/* --- transport_scout.c --- */
/* Tells of tries that have ended, or have had their time. */
void scouts_tell(struct transport *t);
void scouts_close(struct transport *t);

/* --- transport.c --- */
/* NULL: no such peer. */
struct peer *transport_find(struct transport *t, uint64_t node);
/* The lane's connection came or went. */
void transport_lane_changed(struct lane *lane);
/* A frame of this peer is here. */
void transport_heard(struct peer *p);

static inline void put_u64(unsigned char *to, uint64_t value)
{
    for (unsigned i = 0; i < 8; i++)
        to[i] = (unsigned char)(value >> (8 * i));
}

static inline uint64_t get_u64(const char *from)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < 8; i++)
        value |= (uint64_t)(unsigned char)from[i] << (8 * i);
    return value;
}

#endif
