/* SPDX-License-Identifier: Apache-2.0 */
/* The seam's inside, for rights*.c. */
#ifndef NODE_DELIVERY_RIGHTS_INTERNAL_H
#define NODE_DELIVERY_RIGHTS_INTERNAL_H

#include "node/delivery/rights.h"

/* What the backend publishes, behind a sequence lock: odd while it is being written. */
struct gate_lock {
    atomic_uint sequence;
    atomic_uint epoch; /* 0: nothing published yet */
    atomic_bool frozen, is_static;
    _Atomic int64_t lease_end_ns, dot_margin_ns, start_margin_ns;
};

struct rights {
    struct store *store;
    const struct rights_backend *backend; /* NULL: a node alone */
    void *ctx;
    uint32_t epoch;
    atomic_bool closed; /* for good: shutting down */
    atomic_uint attempts;
    atomic_int accept; /* enum err */
    struct gate_lock gate;
    /* Wall time less BOOTTIME when the clock was last known good: from then on wall time
     * must advance as BOOTTIME does. 0: it never was. */
    _Atomic int64_t good_offset_ms;
};

/* rights_gate.c */
struct rights_gate_value gate_read(const struct gate_lock *g);
/* With this much of the lease left. */
bool gate_has_time(const struct rights_gate_value *v, int64_t margin_ns);

/* rights_ticket.c */
struct attempt_ticket *ticket_new(
    struct unit_id unit, uint64_t rcpts, const struct rights_asker *asker);

#endif
