/* SPDX-License-Identifier: Apache-2.0 */
/* Finishing goes before beginning: while processors are short and the memory for bodies
 * is full, DATA and the first BDAT wait until deliveries have let some of it go. Mail
 * that is taken in faster than it leaves goes to disk and is read again, and the next
 * hop, often the slower side, is left idle meanwhile.
 *
 * It waits only when all of this is true; so no client is slowed down for a slow
 * destination, nor on a machine that has time:
 *  - messages in memory and those on their way in fill queue.memory;
 *  - some have left it within PACE_IDLE_MS;
 *  - the thread of the loop waited for a processor an eighth of the time (the kernel's
 *    schedstat; where there is none, nobody waits).
 * And never longer than PACE_WAIT_MS. */
#ifndef NODE_INTAKE_PACE_H
#define NODE_INTAKE_PACE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/loop.h"
#include "node/delivery/hot.h"

#define PACE_WAIT_MS 100
#define PACE_IDLE_MS 25

/* Shared by the loops. */
struct pace_memory {
    const struct hot_memory *hot; /* NULL: nobody ever waits */
    _Atomic uint64_t reserved;    /* for bodies on their way in */
    _Atomic uint64_t waiting;     /* of these: reserved by those that wait */
};

struct pace_wait {
    TAILQ_ENTRY(pace_wait) link;
    struct mono until;
    uint64_t bytes;  /* reserved by it */
    uint64_t budget; /* queue.memory */
    bool waits;
    void (*go)(struct pace_wait *w); /* it waits no more: its turn, or long enough */
};

/* One a loop; all calls on its thread. */
struct pace {
    TAILQ_HEAD(pace_line, pace_wait) line;
    struct timer timer;
    struct pace_memory *memory;
    /* ns that this thread was ready to run and was not; false when nobody says. */
    bool (*run_delay)(struct pace *p, uint64_t *out);
    int schedstat;      /* a descriptor; -1: not opened yet, -2: there is none */
    struct mono looked; /* at what the kernel says */
    uint64_t delayed;   /* ns that the thread has waited for a processor */
    bool short_of_cpu;
    uint64_t left; /* of `hot`, and when it was seen to change */
    struct mono left_at;
};

void pace_init(struct pace *p, struct loop *loop, struct pace_memory *memory);
/* The line must be empty. */
void pace_fini(struct pace *p);
/* False: go at once. Else `w` (bytes, budget, go filled in) stands in line, and go is
 * called later unless it leaves before. */
bool pace_line_up(struct pace *p, struct pace_wait *w);
/* Nothing for one that does not wait. */
void pace_leave(struct pace *p, struct pace_wait *w);

#endif
