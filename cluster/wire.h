/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames between nodes: struct core_msg as the bytes of a baton.wire.Envelope
 * (proto/cluster.proto) and back. The only file of cluster/ that knows protobuf.
 *
 * Pure functions, any thread. The decoder is for bytes of anybody: counts, lengths and
 * ranges are checked before use, what it allocates is bounded by the length of the frame,
 * fields that it does not know are ignored. It judges form only: whether `from` is who
 * the connection says, whether the epoch has the right, is for the transport and the
 * core.
 */
#ifndef CLUSTER_WIRE_H
#define CLUSTER_WIRE_H

#include "base/slice.h"
#include "cluster/core/msg.h"

struct arena;

/* What we speak, and the oldest that understands what we send: raised one release later,
 * so that nodes of both can be upgraded one after the other. */
#ifndef WIRE_VERSION
#define WIRE_VERSION 1
#endif
#define WIRE_NEEDS 1
#define WIRE_FRAME_MAX (1u << 20)
#define WIRE_HEAD_MAX (512u << 10)
#define WIRE_CHUNK_MAX (256u << 10)
/* A message without payload never needs more. */
#define WIRE_MESSAGE_MAX 2048u

struct wire_cluster {
    unsigned char id[16];
};

/* What travels with MSG_COPY: the packed envelope and recipients, and a piece of the
 * body. With MSG_OUTCOME: `head` alone, the packed state of its recipients. */
struct wire_payload {
    struct slice head;
    struct slice chunk; /* bytes `offset` .. of `total_bytes` */
    uint64_t offset_bytes;
    uint64_t total_bytes;
};

enum wire_result {
    WIRE_OK,
    WIRE_BAD,     /* not a frame, or a value out of its range */
    WIRE_FOREIGN, /* of another cluster */
    WIRE_NEWER,   /* needs a newer version, or is of a kind that we do not know */
};

/* Writes `msg`, with `payload` (MSG_COPY, MSG_OUTCOME, else NULL), borrowed, to `out`.
 * Returns its length, or 0 when it does not fit into `max` bytes or a limit above is
 * passed. A message that the core could not have made is our bug and aborts. */
size_t wire_encode(const struct wire_cluster *cluster, const struct core_msg *msg,
    const struct wire_payload *payload, void *out, size_t max);

/* Reads one frame. On WIRE_OK `msg_out` is filled, unused parts zero, and the slices of
 * `payload_out` point into `arena` (empty without a payload). Otherwise neither is
 * touched. Takes at most twice the length of the frame and 16 KiB from the arena, in
 * either case. */
enum wire_result wire_decode(const struct wire_cluster *cluster, struct slice frame,
    struct arena *arena, struct core_msg *msg_out, struct wire_payload *payload_out);

#endif
