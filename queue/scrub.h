/* SPDX-License-Identifier: Apache-2.0 */
/* Re-reading at leisure. Mail may lie for days, and only delivery reads it: damage must
 * be found while another node still holds a whole copy. A hundredth of all rows of bodies
 * an hour, with the heads of their units; so each is looked at every four days, which is
 * about as long as mail lives. What the kernel has in its cache is checked there.
 *
 * Reads as all reads of the store: on a helper thread, one step at a time. Repairs
 * nothing: the walk at the next start puts damaged rows aside, and the cluster may have a
 * copy brought anew before. */
#ifndef QUEUE_SCRUB_H
#define QUEUE_SCRUB_H

#include "queue/store.h"

#define SCRUB_HOURS 100      /* all of it once */
#define SCRUB_STEP_ROWS 512u /* at most in a step: 2 MiB */

/* Zeroed to begin with. */
struct scrub {
    struct msg_id id; /* the body under way */
    uint32_t row;     /* the next one of it */
    uint32_t crc;     /* of the rows so far */
    uint64_t size;
    int64_t owed; /* rows x ms that are due and not read; below 0: read ahead */
    struct mono last;
    uint64_t rounds, rows, damaged; /* so far, for status */
};

enum scrub_find {
    SCRUB_BODY, /* rows of the body are damaged or missing */
    SCRUB_HEAD, /* the unit's row, or a recipient's */
};

/* Reads what has become due since the step before: call it about once a minute. `found`
 * runs for each unit that is damaged. ERR_OK, or ERR_IO. */
enum err scrub_step(struct store *s, struct scrub *c, struct mono now,
    void (*found)(struct unit_id id, enum scrub_find what, void *ctx),
    void *ctx) MUST_CHECK;

#endif
