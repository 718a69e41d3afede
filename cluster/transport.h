/* SPDX-License-Identifier: Apache-2.0 */
/* Frames between nodes over ZeroMQ: one-way lanes, a DEALER here to a ROUTER there, CURVE
 * with ZAP enforced. It carries bytes and knows who sent them; what they mean is for
 * cluster/wire.h and the core.
 *
 * Two lanes to each peer, each with its own socket: control (small frames, never behind a
 * body) and bulk (pieces of bodies), which listens on the next port. Nothing is promised:
 * a frame may be lost or come late after a reconnect, and what a full lane does not take
 * counts as lost. The receiver of bulk gives credit in bytes, so a slow peer fills its
 * window and no memory. Only numeric addresses reach libzmq, which would resolve names in
 * its I/O thread.
 *
 * Identity: the ZAP handler maps a CURVE key to a node and sets it as User-Id; each frame
 * is checked against the peers of this moment, so a removed one is refused with its
 * connection still open. One thread (the loop's) owns a transport; the ZAP handler has
 * its own thread and a table behind a lock. */
#ifndef CLUSTER_TRANSPORT_H
#define CLUSTER_TRANSPORT_H

#include "base/clock.h"
#include "base/loop.h"
#include "base/netaddr.h"
#include "base/slice.h"

#define TRANSPORT_KEY_BYTES 32
#define TRANSPORT_FRAME_MAX (1u << 20)
#define TRANSPORT_GUEST_FRAME_MAX (64u << 10)

struct transport;

enum transport_lane { TRANSPORT_CONTROL, TRANSPORT_BULK, TRANSPORT_LANES };

struct transport_keys {
    unsigned char public_key[TRANSPORT_KEY_BYTES];
    unsigned char secret_key[TRANSPORT_KEY_BYTES];
};
/* A fresh pair. */
void transport_keys_make(struct transport_keys *out);
/* The pair in `path`, made (mode 0600) when there is none. False with `why`. */
bool transport_keys_load(
    const char *path, struct transport_keys *out, char *why, size_t why_size);

struct transport_settings {
    struct loop *loop;
    struct netaddr listen; /* numeric; bulk: the next port. Port 0: any, for tests */
    const struct transport_keys *keys;
    uint64_t node;
    uint64_t window_bytes;     /* bulk credit given to each peer; 0: 8 MB */
    uint64_t window_all_bytes; /* ... and to all together; 0: 256 MB */
};

/* All in the loop's thread; what they point to is borrowed for the call. Anything but
 * transport_free may be called from them. */
struct transport_events {
    /* A frame of a peer. Bulk: call transport_consumed once it takes no memory. */
    void (*frame)(void *ctx, uint64_t node, enum transport_lane lane, struct slice frame);
    /* A frame on the control lane of somebody who holds the key of an open invitation. */
    void (*guest)(void *ctx, const unsigned char *key, struct slice frame);
    /* A hint: control lane to `node` connected or lost. One that came back between two
     * looks is not told. Not called for what transport_remove_peer ends. */
    void (*link)(void *ctx, uint64_t node, bool is_up);
    /* A try of transport_scout has ended. */
    void (*scouted)(void *ctx, uint64_t node, struct netaddr address, bool is_there);
};

/* Binds both ports, starts the ZAP handler and proves with a random key that strangers
 * are refused. NULL with `why`, which names the address and the next step. */
struct transport *transport_new(const struct transport_settings *settings,
    const struct transport_events *events, void *ctx, char *why, size_t why_size);
/* Unsent frames are dropped. Accepts NULL. */
void transport_free(struct transport *t);
/* Where it listens (control), with the port that was found. */
struct netaddr transport_address(const struct transport *t);

struct transport_peer {
    uint64_t node;
    unsigned char key[TRANSPORT_KEY_BYTES];
    struct netaddr address; /* port 0: accept from it, but do not connect yet */
};
/* Adds, or changes: a new key or address reconnects, the same one does nothing. False:
 * full (128 peers), the key is another peer's, the node is our own, or the bulk lane has
 * no port (65536). */
bool transport_set_peer(struct transport *t, const struct transport_peer *peer);
/* Its connections are refused at once, open or not. */
void transport_remove_peer(struct transport *t, uint64_t node);
/* Tries whether the peer is at `address` (control; numeric): there it has to prove its
 * key. events->scouted tells, in 4 s at most, unless the peer goes meanwhile. Its
 * connections stay as they are. False: no such peer, or 8 tries are under way. */
bool transport_scout(struct transport *t, uint64_t node, struct netaddr address);
/* Lets the holder of this key speak as a guest until then. At most 16. */
bool transport_invite(struct transport *t, const unsigned char *key, struct mono until);
void transport_uninvite(struct transport *t, const unsigned char *key);
/* For one who was invited: a single frame (64 KiB) to somebody whose key is known, with
 * the invitation's pair as identity. It leaves when there is a connection, and again when
 * that breaks within 10 s, so it may arrive twice; the next call takes its place. */
bool transport_send_as_guest(struct transport *t, const struct transport_keys *invitation,
    const struct transport_peer *host, struct slice frame);

/* Copies. False: unknown peer, no connection, or a full lane; as if lost. */
bool transport_send(struct transport *t, uint64_t node, enum transport_lane lane,
    struct slice head, struct slice tail);
/* Bytes of bulk that `node` would take now. */
uint64_t transport_room(const struct transport *t, uint64_t node);
/* The receiver's side: `bytes` of bulk frames of `node` are out of memory. */
void transport_consumed(struct transport *t, uint64_t node, uint64_t bytes);

struct transport_stats {
    uint64_t frames_in, frames_out, bytes_in, bytes_out;
    uint64_t dropped_full;   /* not sent: lane full or not connected */
    uint64_t refused_keys;   /* handshakes */
    uint64_t refused_frames; /* of removed members, or over their credit */
    uint32_t peers, connected;
};
void transport_stats(const struct transport *t, struct transport_stats *out);
/* Time of the last sign of life on the peer's connection; 0 ns: never. */
struct mono transport_last_heard(const struct transport *t, uint64_t node);

#endif
