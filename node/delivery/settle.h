/* SPDX-License-Identifier: Apache-2.0 */
/* From what a next hop said to what the queue remembers: each recipient's outcome is
 * logged, written, and, where RFC 3461 and a non-null reverse-path ask for it, reported
 * by a DSN that is stored in the same transaction. The one place where a recipient
 * becomes final. */
#ifndef NODE_DELIVERY_SETTLE_H
#define NODE_DELIVERY_SETTLE_H

#include "node/delivery/delivery.h"

/* Settles by the parcel's fates; recipients without one stay as they are. When all is
 * durable the parcel goes home to the scheduler and then `settled` is called (may be
 * NULL), in the loop's thread. Takes the parcel; `settings` is referenced as long as
 * needed. */
void settle_parcel(struct delivery_loop *dl, struct settings *settings,
    struct parcel *parcel, void (*settled)(void *ctx), void *ctx);

#endif
