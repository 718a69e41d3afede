/* SPDX-License-Identifier: Apache-2.0 */
/* Which unit has this id: open addressing with linear probing, pointers alone, at most
 * two thirds full. A removal moves up what stood behind it, so that nothing marks graves.
 */
#include <stdlib.h>

#include "base/alloc.h"
#include "base/random.h"
#include "node/delivery/units_internal.h"

#define SLOTS_FIRST 1024u

struct unit_index {
    struct sched_unit **slots;
    uint32_t mask, count;
    uint64_t key;
};

struct unit_index *unit_index_new(void)
{
    struct unit_index *x = mem_zalloc(sizeof(*x));
    x->slots = mem_zalloc(SLOTS_FIRST * sizeof(struct sched_unit *));
    x->mask = SLOTS_FIRST - 1;
    x->key = random_u64();
    return x;
}

void unit_index_free(struct unit_index *x)
{
    if (x)
        free(x->slots);
    free(x);
}

static uint32_t home_of(const struct unit_index *x, struct unit_id id)
{
    unsigned char key[UNIT_ID_BYTES];
    unit_id_key(id, key);
    return (uint32_t)slice_hash(slice_make(key, sizeof(key)), x->key) & x->mask;
}

/* Where it stands, or the empty slot where it would. */
static uint32_t slot_of(const struct unit_index *x, struct unit_id id)
{
    uint32_t at = home_of(x, id);
    while (x->slots[at] && unit_id_cmp(x->slots[at]->id, id) != 0)
        at = (at + 1) & x->mask;
    return at;
}

struct sched_unit *unit_index_find(const struct unit_index *x, struct unit_id id)
{
    return x->slots[slot_of(x, id)];
}

static void grow(struct unit_index *x)
{
    struct sched_unit **old = x->slots;
    uint32_t count = x->mask + 1;
    INVARIANT(count <= UINT32_MAX / 4);
    x->slots = mem_zalloc((size_t)count * 2 * sizeof(struct sched_unit *));
    x->mask = count * 2 - 1;
    for (uint32_t i = 0; i < count; i++)
        if (old[i])
            x->slots[slot_of(x, old[i]->id)] = old[i];
    free(old);
}

void unit_index_add(struct unit_index *x, struct sched_unit *unit)
{
    if (x->count >= x->mask / 3 * 2)
        grow(x);
    uint32_t at = slot_of(x, unit->id);
    INVARIANT(!x->slots[at]);
    x->slots[at] = unit;
    x->count++;
}

void unit_index_remove(struct unit_index *x, const struct sched_unit *unit)
{
    uint32_t hole = slot_of(x, unit->id);
    INVARIANT(x->slots[hole] == unit);
    for (uint32_t at = (hole + 1) & x->mask; x->slots[at]; at = (at + 1) & x->mask) {
        uint32_t home = home_of(x, x->slots[at]->id);
        /* It may stand in the hole if that is not before its home. */
        if (((at - home) & x->mask) < ((at - hole) & x->mask))
            continue;
        x->slots[hole] = x->slots[at];
        hole = at;
    }
    x->slots[hole] = NULL;
    x->count--;
}

uint64_t unit_index_memory(const struct unit_index *x)
{
    return x ? ((uint64_t)x->mask + 1) * sizeof(struct sched_unit *) : 0;
}

struct unit_id *unit_index_ids(const struct unit_index *x, uint32_t *count_out)
{
    struct unit_id *ids = mem_alloc((x->count + 1u) * sizeof(*ids));
    *count_out = 0;
    for (uint32_t i = 0; i <= x->mask; i++)
        if (x->slots[i])
            ids[(*count_out)++] = x->slots[i]->id;
    return ids;
}
