/* SPDX-License-Identifier: Apache-2.0 */
/* Messages taken lately, so that a client which never saw our 250 and sends again (RFC
 * 1047) gets its 250 without a second delivery. A message is known by who sent it, its
 * envelope and every octet of its body; only a client's own repetition is recognised. Off
 * unless limits.repeat_window says how long. In memory, bounded: the oldest goes first,
 * and what is forgotten is delivered again. One table for all loops, behind a lock that
 * is held for a look-up. */
#ifndef NODE_INTAKE_REPEATS_H
#define NODE_INTAKE_REPEATS_H

#include "base/clock.h"
#include "base/ids.h"
#include "queue/message.h"

#define REPEATS_MAX 65536

struct repeats;

struct repeats *repeats_new(unsigned max);
void repeats_free(struct repeats *r);

/* A node that asked and said nothing more may have died: so long its message counts as
 * being taken. */
#define REPEAT_BUSY_MS 60000

enum repeat {
    REPEAT_NEW,   /* never seen: ours to take; call repeats_end */
    REPEAT_BUSY,  /* the same is being taken right now, by another session */
    REPEAT_KNOWN, /* it was taken as *id_out */
};
enum repeat repeats_begin(struct repeats *r, const struct repeat_key *key,
    struct msg_id id, struct mono now, int64_t window_ms, struct msg_id *id_out);
/* What became of it. Not accepted, or nobody knows: forgotten, a repetition is taken. */
void repeats_end(struct repeats *r, const struct repeat_key *key, bool accepted);
/* Another node took it, and we hold a copy. */
void repeats_learn(
    struct repeats *r, const struct repeat_key *key, struct msg_id id, struct mono now);
/* Another node is about to take it, unless the answer is that it was, or is being, taken.
 * Ends with repeats_told, or after REPEAT_BUSY_MS. */
enum repeat repeats_asked(struct repeats *r, const struct repeat_key *key,
    struct msg_id id, struct mono now, int64_t window_ms, struct msg_id *id_out);
/* What became of it there. */
void repeats_told(struct repeats *r, const struct repeat_key *key, struct msg_id id,
    bool accepted, struct mono now);
/* For tests. */
unsigned repeats_count(struct repeats *r);

#endif
