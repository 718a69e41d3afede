/* SPDX-License-Identifier: Apache-2.0 */
/* Identities. A message ID is 128 bits: milliseconds since 1970 (48) | node (32) | epoch
 * (24) | counter (24), big-endian, so that ids sort by time and no two nodes, and no two
 * runs of one node, ever make the same. As text it is 26 characters of lower-case
 * Crockford base32: safe in a shell, a file name and a mail header, readable over the
 * telephone. A unit is one routing domain of a message: the piece that one node owns and
 * delivers. */
#ifndef BASE_IDS_H
#define BASE_IDS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/slice.h"

#define MSG_ID_BYTES 16
#define MSG_ID_TEXT 26
#define UNIT_ID_BYTES 18
/* "ID-65535" and the NUL */
#define UNIT_ID_TEXT_MAX 33

struct msg_id {
    unsigned char bytes[MSG_ID_BYTES];
};

struct unit_id {
    struct msg_id msg;
    uint16_t unit;
};

/* Makes ids; one per thread is fine as long as `lane` differs (the upper 4 bits of the
 * counter), since time, node and epoch are shared. */
struct msg_id_source {
    uint32_t node;
    uint32_t epoch;
    uint32_t lane; /* 0..15 */
    uint32_t counter;
    int64_t last_ms;
};
void msg_id_source_init(
    struct msg_id_source *s, uint32_t node, uint32_t epoch, uint32_t lane);
struct msg_id msg_id_next(struct msg_id_source *s, struct wall now);
/* An id that every node makes alike of the same bytes, so that what two of them make is
 * one message. Not keyed: nobody gains by a collision, for the bytes are ours. */
struct msg_id_hash {
    uint64_t a, b;
};
void msg_id_hash_init(struct msg_id_hash *h);
void msg_id_hash_add(struct msg_id_hash *h, const void *bytes, size_t len);
/* With the time of `from`. */
struct msg_id msg_id_hash_end(const struct msg_id_hash *h, struct msg_id from);
/* The time in the id. */
struct wall msg_id_time(struct msg_id id);

/* `out` takes MSG_ID_TEXT + 1 bytes. */
void msg_id_format(struct msg_id id, char out[MSG_ID_TEXT + 1]);
/* Upper and lower case; false on anything else. */
bool msg_id_parse(struct slice text, struct msg_id *out);
/* "ID-0" */
void unit_id_format(struct unit_id id, char out[UNIT_ID_TEXT_MAX]);
bool unit_id_parse(struct slice text, struct unit_id *out);
/* Big-endian key form: 16 bytes, then the unit. */
void unit_id_key(struct unit_id id, unsigned char out[UNIT_ID_BYTES]);
struct unit_id unit_id_from_key(const unsigned char key[UNIT_ID_BYTES]);
int unit_id_cmp(struct unit_id a, struct unit_id b);
static inline bool msg_id_eq(struct msg_id a, struct msg_id b)
{
    return memcmp(a.bytes, b.bytes, MSG_ID_BYTES) == 0;
}

#endif
