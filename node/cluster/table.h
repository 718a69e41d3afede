/* SPDX-License-Identifier: Apache-2.0 */
/* A hash table of nodes that live in the caller's structs, keyed by four numbers. It
 * grows by doubling and is keyed per process, so that peers cannot choose collisions. One
 * thread. */
#ifndef NODE_CLUSTER_TABLE_H
#define NODE_CLUSTER_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "cluster/core/msg.h"

struct table_key {
    uint64_t v[4];
};
struct table_node {
    struct table_node *next;
    struct table_key key;
};
struct table {
    struct table_node **bucket;
    uint32_t mask;
    uint32_t count;
    uint64_t seed;
};

void table_init(struct table *t);
/* The nodes are the caller's; frees only the table. */
void table_fini(struct table *t);
/* NULL: not there. */
struct table_node *table_find(const struct table *t, struct table_key key);
/* The key must not be there yet. */
void table_add(struct table *t, struct table_node *node, struct table_key key);
/* Not there: nothing happens. */
void table_remove(struct table *t, struct table_node *node);
/* Any node, or NULL when it is empty: for taking all out. */
struct table_node *table_any(const struct table *t);

static inline struct table_key table_unit_key(const struct core_unit_id *id)
{
    return (struct table_key){{id->hi, id->lo, id->part, 0}};
}
static inline struct table_key table_peer_unit_key(
    uint64_t peer, const struct core_unit_id *id)
{
    return (struct table_key){{id->hi, id->lo, id->part, peer}};
}
/* All units of a message have the same. */
static inline struct table_key table_message_key(const struct core_unit_id *id)
{
    return (struct table_key){{id->hi, id->lo, 0, 0}};
}
static inline struct table_key table_number_key(uint64_t number)
{
    return (struct table_key){{number, 0, 0, 0}};
}

#endif
