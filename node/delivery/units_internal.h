/* SPDX-License-Identifier: Apache-2.0 */
/* The index of units by id, for units*.c. */
#ifndef NODE_DELIVERY_UNITS_INTERNAL_H
#define NODE_DELIVERY_UNITS_INTERNAL_H

#include "node/delivery/units.h"

struct unit_index;

struct unit_index *unit_index_new(void);
/* Accepts NULL. */
void unit_index_free(struct unit_index *x);
/* NULL: none. */
struct sched_unit *unit_index_find(const struct unit_index *x, struct unit_id id);
/* Its id must not be there. */
void unit_index_add(struct unit_index *x, struct sched_unit *unit);
/* It must be there. */
void unit_index_remove(struct unit_index *x, const struct sched_unit *unit);
/* All ids, from mem_alloc. */
struct unit_id *unit_index_ids(const struct unit_index *x, uint32_t *count_out);
/* Bytes; accepts NULL. */
uint64_t unit_index_memory(const struct unit_index *x);

#endif
