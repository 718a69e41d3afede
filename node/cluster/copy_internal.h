/* SPDX-License-Identifier: Apache-2.0 */
/* Copies on their way out and in, for engine_copy.c and engine_arrive.c. */
#ifndef NODE_CLUSTER_COPY_INTERNAL_H
#define NODE_CLUSTER_COPY_INTERNAL_H

#include "node/cluster/engine_internal.h"

/* Whole rows, so that what arrives can be written as it comes. */
#define COPY_PIECE_ROWS 64u
#define COPY_PIECE_BYTES (COPY_PIECE_ROWS * BODY_ROW_BYTES)
#define COPYING_BYTES_MAX (64u << 20)
#define FOLLOWERS_MAX 16u

_Static_assert(COPY_PIECE_BYTES <= WIRE_CHUNK_MAX, "a piece fits a frame");

enum copy_state {
    COPY_WAITING, /* for a helper's turn */
    COPY_READING, /* a helper reads head or piece */
    COPY_READY,   /* something may be sent */
    COPY_SENT,    /* remembered for a while, so that it is not sent twice */
};

/* A frame of the same unit that must not pass the copy. */
struct follower {
    struct follower *next;
    struct core_msg msg;
};

struct copy_out {
    struct table_node by_unit; /* and peer */
    struct job job;
    struct copy_queue *queue; /* of its peer; NULL: read just now, or sent */
    struct copy_out *prev, *next;
    struct store *store;
    struct core_unit_id id;
    uint64_t to;
    struct core_msg msg;
    enum copy_state state;
    bool is_reading, is_dead, failed;
    struct message *message; /* under acceptance: the source */
    uint32_t rows_on_disk;   /* of its body, which left the memory */
    struct buf head;
    uint64_t total, offset, read_at;
    char *chunk; /* read from disk */
    size_t chunk_len;
    uint64_t memory;
    struct mono until;
    struct follower *followers, **follower_end;
    unsigned follower_count;
};

struct outcome_kept {
    struct table_node by_unit;
    struct outcome_kept *next;
    uint64_t attempt;
    struct mono until;
    struct buf records;
};

bool engine_transmit(
    struct engine *e, const struct core_msg *msg, const struct wire_payload *payload);
/* A word of the engine's own, not the core's: its envelope is filled in. False: it did
 * not go, and nobody repeats it. */
bool engine_tell(struct engine *e, uint64_t to, struct core_msg *m);
void copy_wanted(struct engine *e, const struct core_msg *msg, struct copy_out *c);
void copy_drop(struct engine *e, struct copy_out *c);
struct slice outcome_kept_for(struct engine *e, const struct msg_attempt *a);

#endif
