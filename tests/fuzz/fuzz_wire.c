/* SPDX-License-Identifier: Apache-2.0 */
/* A frame from anybody: refused, or a message that comes back the same when written
 * again. */
#include "base/alloc.h"
#include "base/arena.h"
#include "cluster/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct wire_cluster CLUSTER = {"0123456789abcde"};
/* Versions and cluster id: without them the fuzzer would have to guess 16 bytes. Fields
 * that come again behind it win. */
static const unsigned char PREFIX[] = "\x08\x01\x10\x01\x1a\x10"
                                      "0123456789abcde";

static void one(struct slice bytes, struct arena *arena)
{
    static unsigned char frame[WIRE_FRAME_MAX];
    struct wire_payload payload, payload2;
    struct core_msg msg, msg2;
    if (wire_decode(&CLUSTER, bytes, arena, &msg, &payload) != WIRE_OK)
        return;
    bool carries = msg.kind == MSG_COPY || msg.kind == MSG_OUTCOME;
    const struct wire_payload *with = carries ? &payload : NULL;
    size_t len = wire_encode(&CLUSTER, &msg, with, frame, sizeof(frame));
    INVARIANT(len > 0);
    struct slice again = slice_make(frame, len);
    INVARIANT(wire_decode(&CLUSTER, again, arena, &msg2, &payload2) == WIRE_OK);
    INVARIANT(memcmp(&msg.env, &msg2.env, sizeof(msg.env)) == 0);
    INVARIANT(msg.kind == msg2.kind && memcmp(&msg.u, &msg2.u, sizeof(msg.u)) == 0);
    INVARIANT(slice_eq(payload.head, payload2.head));
    INVARIANT(slice_eq(payload.chunk, payload2.chunk));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static unsigned char whole[sizeof(PREFIX) + 65536];
    struct arena *arena = arena_new(4096);
    one(slice_make(data, size), arena);
    if (size <= sizeof(whole) - sizeof(PREFIX)) {
        memcpy(whole, PREFIX, sizeof(PREFIX));
        if (size > 0)
            memcpy(whole + sizeof(PREFIX), data, size);
        one(slice_make(whole, sizeof(PREFIX) + size), arena);
    }
    arena_free(arena);
    return 0;
}
