/* SPDX-License-Identifier: Apache-2.0 */
/* The scheduler's memory of what is in the queue: about 130 bytes a unit, with its index,
 * whatever its size, in slabs; and a heap of those that wait for their time. One thread.
 */
#ifndef NODE_DELIVERY_UNITS_H
#define NODE_DELIVERY_UNITS_H

#include <sys/queue.h>

#include "queue/message.h"

enum unit_place {
    UNIT_WAITING,  /* in the heap, for its due time */
    UNIT_READY,    /* due; in its group's line */
    UNIT_ACTIVE,   /* a parcel has it */
    UNIT_HELD,     /* until an operator releases it; in the heap, for its expiry */
    UNIT_STARTING, /* in a cluster: ours since a moment, and being read from disk; due_ms
                      is what it must not be tried before; it has no group yet */
};

struct group;

struct sched_unit {
    TAILQ_ENTRY(sched_unit)
    line; /* of its group: ready, or waiting after a failed connection */
    struct group *group;
    struct message *hot; /* or NULL */
    int64_t due_ms;
    int64_t expires_ms;
    uint32_t heap_at;   /* position + 1; 0: not in the heap */
    uint32_t hot_bytes; /* of the memory budget */
    uint64_t rcpts;     /* by rights_bit: those that may be tried */
    struct unit_id id;
    uint16_t in_doubt; /* recipients */
    uint8_t place;
    uint8_t
        generation; /* of the settings its route rule was matched under; 0: never was */
    bool connection_failed : 1; /* its last attempt reached no hop: tried at once when one
                                   does */
    bool cancelled : 1; /* active, and another node's: forgotten when it is home */
    bool restarted : 1; /* cancelled, and ours again: read anew when it is home */
    bool nudged : 1; /* active, and more of it may be tried since: due at due_ms then */
};
TAILQ_HEAD(unit_line, sched_unit);

struct units;

struct units *units_new(void);
void units_free(struct units *u);
/* With an index by id from here on; while there are none. */
void units_index(struct units *u);
/* NULL: none; only with the index. */
struct sched_unit *units_find(const struct units *u, struct unit_id id);
/* All ids, from mem_alloc. units_index was called. */
struct unit_id *units_ids(const struct units *u, uint32_t *count_out);
/* With the index: no other may have its id. */
struct sched_unit *units_add(struct units *u, struct unit_id id);
/* Out of the heap and gone. It must not be in a line. */
void units_remove(struct units *u, struct sched_unit *unit);
/* Into the heap by due_ms, or moved there. */
void units_wait(struct units *u, struct sched_unit *unit, int64_t due_ms);
void units_unwait(struct units *u, struct sched_unit *unit);
/* Moves every due time: wall time was set, and waits are durations. */
void units_shift(struct units *u, int64_t ms);
/* The earliest, or NULL. */
struct sched_unit *units_next_due(const struct units *u);
uint64_t units_count(const struct units *u);
/* Bytes of memory taken. */
uint64_t units_memory(const struct units *u);

#endif
