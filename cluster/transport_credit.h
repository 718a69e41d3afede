/* SPDX-License-Identifier: Apache-2.0 */
/* Byte credit on the bulk lane, without I/O. The sender numbers the bytes of a stream
 * from 0 on; the receiver says up to which number it may send. Counting from the stream's
 * start makes a lost, doubled or late credit frame harmless: the highest limit counts.
 *
 * What ZeroMQ loses with a connection is never taken back by counting down: a gap in the
 * numbers gives its bytes back when the next frame shows it, and a new connection begins
 * a new stream at 0. What the receiver still holds of older streams counts against the
 * new one, so a reconnect neither leaks credit nor doubles it. */
#ifndef CLUSTER_TRANSPORT_CREDIT_H
#define CLUSTER_TRANSPORT_CREDIT_H

#include "base/clock.h"

/* `instance` is one life of the sender, random; `number` grows during that life. */
struct stream_id {
    uint64_t instance, number;
};

/* The sender's side. */
struct credit_out {
    struct stream_id id; /* number 0: no stream */
    uint64_t sent, limit;
    uint64_t seen; /* where the receiver's numbers were at its last word */
    struct mono seen_at;
};
void credit_out_begin(struct credit_out *out, struct stream_id id, struct mono now);
void credit_out_end(struct credit_out *out);
uint64_t credit_out_room(const struct credit_out *out);
/* The receiver's word; of another stream, or older than the last: nothing changes. */
void credit_out_grant(struct credit_out *out, struct stream_id id, uint64_t limit,
    uint64_t seen, struct mono now);
/* Ask again where the receiver is: something is out of which it has not spoken. */
bool credit_out_wants_word(const struct credit_out *out);
/* The end of what was sent never arrived and nothing will ever show it: begin anew. */
bool credit_out_is_stuck(const struct credit_out *out, struct mono now);

/* The receiver's side. */
struct credit_in {
    struct stream_id id;
    uint64_t high;  /* behind the last byte seen */
    uint64_t limit; /* how far the sender may go */
    uint64_t told;  /* ... and how far it was told */
    uint64_t held;  /* bytes handed up and not yet consumed, of all streams */
};
/* The sender begins (or reminds of) a stream of which `sent` bytes are gone already.
 * False: an old one, and nothing changes. */
bool credit_in_open(struct credit_in *in, struct stream_id id, uint64_t sent);
enum credit_verdict {
    CREDIT_OK,
    CREDIT_LATE,    /* came after a later frame, over an older connection */
    CREDIT_STRANGE, /* of no stream that was opened */
    CREDIT_OVER,    /* beyond the limit */
};
/* Only CREDIT_OK changes something. */
enum credit_verdict credit_in_take(
    struct credit_in *in, struct stream_id id, uint64_t offset, uint64_t len);
/* More than is held counts as all of it. */
void credit_in_consumed(struct credit_in *in, uint64_t bytes);
/* Bytes this sender holds of our memory, or may yet send. */
uint64_t credit_in_committed(const struct credit_in *in);
/* Lets the sender go further: up to `window` bytes in all, at most `spare` more than it
 * has. */
void credit_in_extend(struct credit_in *in, uint64_t window, uint64_t spare);
/* There is enough news for a credit frame of its own. */
bool credit_in_is_worth_telling(const struct credit_in *in, uint64_t window);

#endif
