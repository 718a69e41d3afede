/* SPDX-License-Identifier: Apache-2.0 */
#include "node/cluster/table.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/random.h"

#define FIRST_BUCKETS 64u

static uint32_t bucket_of(const struct table *t, struct table_key key)
{
    uint64_t h = t->seed;
    for (int i = 0; i < 4; i++) {
        h = (h ^ key.v[i]) * UINT64_C(0xff51afd7ed558ccd);
        h ^= h >> 32;
    }
    return (uint32_t)h & t->mask;
}

void table_init(struct table *t)
{
    *t = (struct table){.mask = FIRST_BUCKETS - 1, .seed = random_u64()};
    t->bucket = mem_zalloc(FIRST_BUCKETS * sizeof(struct table_node *));
}

void table_fini(struct table *t)
{
    free(t->bucket);
    *t = (struct table){.mask = 0};
}

static bool same(struct table_key a, struct table_key b)
{
    return memcmp(a.v, b.v, sizeof(a.v)) == 0;
}

struct table_node *table_find(const struct table *t, struct table_key key)
{
    struct table_node *n = t->bucket[bucket_of(t, key)];
    while (n && !same(n->key, key))
        n = n->next;
    return n;
}

static void link_in(struct table *t, struct table_node *node)
{
    struct table_node **at = &t->bucket[bucket_of(t, node->key)];
    node->next = *at;
    *at = node;
}

static void grow(struct table *t)
{
    struct table_node **old = t->bucket;
    uint32_t buckets = t->mask + 1;
    t->mask = buckets * 2 - 1;
    t->bucket = mem_zalloc((size_t)buckets * 2 * sizeof(struct table_node *));
    for (uint32_t i = 0; i < buckets; i++)
        for (struct table_node *n = old[i], *next; n; n = next) {
            next = n->next;
            link_in(t, n);
        }
    free(old);
}

void table_add(struct table *t, struct table_node *node, struct table_key key)
{
    node->key = key;
    if (t->count > t->mask)
        grow(t);
    link_in(t, node);
    t->count++;
}

void table_remove(struct table *t, struct table_node *node)
{
    struct table_node **at = &t->bucket[bucket_of(t, node->key)];
    while (*at && *at != node)
        at = &(*at)->next;
    if (!*at)
        return;
    *at = node->next;
    node->next = NULL;
    t->count--;
}

struct table_node *table_any(const struct table *t)
{
    for (uint32_t i = 0; t->count && i <= t->mask; i++)
        if (t->bucket[i])
            return t->bucket[i];
    return NULL;
}
