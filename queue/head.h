/* SPDX-License-Identifier: Apache-2.0 */
/* A unit's envelope and recipients as they travel between nodes: the messages Unit and
 * Rcpt of the disk's schema, packed, lengths before them. No body, and no rights: who
 * owns a unit is the core's to say.
 *
 * What comes from a peer is bounded and checked before anything is believed: numbers of
 * recipients, lengths, enums, times, and no control characters where SMTP would carry
 * them on. No I/O; any thread. */
#ifndef QUEUE_HEAD_H
#define QUEUE_HEAD_H

#include "base/buf.h"
#include "base/err.h"
#include "queue/message.h"

/* More than any head takes. */
#define UNIT_HEAD_MAX (512u << 10)
#define RCPT_RECORDS_MAX (256u << 10)

/* False: not a unit that may travel (over UNIT_RCPTS_MAX recipients, a part number not
 * below MESSAGE_UNITS_MAX, a text beyond the bounds), or `out` is full; `out` is then as
 * it was. */
bool unit_head_pack(const struct unit_record *u, struct buf *out);
/* All of `bytes`, copied; message->body is NULL. NULL: not a head. */
struct unit_record *unit_head_parse(struct slice bytes);

/* Only some recipients, after an attempt: what an outcome carries to the other holders.
 */
bool rcpt_records_pack(const struct rcpt_record *r, unsigned count, struct buf *out);
/* Into `a`, indices ascending. False: not what rcpt_records_pack makes. */
bool rcpt_records_parse(struct slice bytes, struct arena *a, struct rcpt_record **out,
    unsigned *count_out) MUST_CHECK;

#endif
