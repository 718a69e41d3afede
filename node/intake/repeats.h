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
/* For a question of another node: accepted as, within the window. */
bool repeats_look(struct repeats *r, const struct repeat_key *key, struct mono now,
    int64_t window_ms, struct msg_id *id_out);
/* For tests. */
unsigned repeats_count(struct repeats *r);

#endif
