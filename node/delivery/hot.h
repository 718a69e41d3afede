/* SPDX-License-Identifier: Apache-2.0 */
/* What messages that wait for delivery keep in memory, so that they need not be read from
 * disk. Written by the scheduler's thread; read by any. */
#ifndef NODE_DELIVERY_HOT_H
#define NODE_DELIVERY_HOT_H

#include <stdatomic.h>
#include <stdint.h>

struct hot_memory {
    _Atomic uint64_t bytes; /* now, of queue.memory */
    _Atomic uint64_t left;  /* messages that left it since the start */
};

#endif
