/* SPDX-License-Identifier: Apache-2.0 */
#include "node/delivery/units.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "node/delivery/units_internal.h"

#define SLAB_UNITS 512

struct slab {
    struct slab *next;
    struct sched_unit units[SLAB_UNITS];
};

struct units {
    struct slab *slabs;
    struct unit_line free;
    struct sched_unit **heap;
    uint32_t heap_count, heap_cap;
    uint64_t count, slab_count;
    struct unit_index *index; /* or NULL */
};

struct units *units_new(void)
{
    struct units *u = mem_zalloc(sizeof(*u));
    TAILQ_INIT(&u->free);
    return u;
}

void units_free(struct units *u)
{
    if (!u)
        return;
    for (uint32_t i = 0; i < u->heap_count; i++)
        message_unref(u->heap[i]->hot);
    while (u->slabs) {
        struct slab *next = u->slabs->next;
        free(u->slabs);
        u->slabs = next;
    }
    unit_index_free(u->index);
    free(u->heap);
    free(u);
}

static void add_slab(struct units *u)
{
    struct slab *slab = mem_alloc(sizeof(*slab));
    slab->next = u->slabs;
    u->slabs = slab;
    u->slab_count++;
    for (int i = SLAB_UNITS - 1; i >= 0; i--)
        TAILQ_INSERT_HEAD(&u->free, &slab->units[i], line);
}

void units_index(struct units *u)
{
    INVARIANT(u->count == 0 && !u->index);
    u->index = unit_index_new();
}

struct sched_unit *units_find(const struct units *u, struct unit_id id)
{
    return unit_index_find(u->index, id);
}

struct unit_id *units_ids(const struct units *u, uint32_t *count_out)
{
    return unit_index_ids(u->index, count_out);
}

struct sched_unit *units_add(struct units *u, struct unit_id id)
{
    if (TAILQ_EMPTY(&u->free))
        add_slab(u);
    struct sched_unit *unit = TAILQ_FIRST(&u->free);
    TAILQ_REMOVE(&u->free, unit, line);
    *unit = (struct sched_unit){.id = id, .rcpts = UINT64_MAX};
    u->count++;
    if (u->index)
        unit_index_add(u->index, unit);
    return unit;
}

static void put(struct units *u, uint32_t at, struct sched_unit *unit)
{
    u->heap[at] = unit;
    unit->heap_at = at + 1;
}

static void sift_up(struct units *u, uint32_t at)
{
    struct sched_unit *unit = u->heap[at];
    while (at > 0) {
        uint32_t parent = (at - 1) / 2;
        if (u->heap[parent]->due_ms <= unit->due_ms)
            break;
        put(u, at, u->heap[parent]);
        at = parent;
    }
    put(u, at, unit);
}

static void sift_down(struct units *u, uint32_t at)
{
    struct sched_unit *unit = u->heap[at];
    for (;;) {
        uint32_t child = at * 2 + 1;
        if (child >= u->heap_count)
            break;
        if (child + 1 < u->heap_count &&
            u->heap[child + 1]->due_ms < u->heap[child]->due_ms)
            child++;
        if (unit->due_ms <= u->heap[child]->due_ms)
            break;
        put(u, at, u->heap[child]);
        at = child;
    }
    put(u, at, unit);
}

void units_wait(struct units *u, struct sched_unit *unit, int64_t due_ms)
{
    units_unwait(u, unit);
    unit->due_ms = due_ms;
    if (u->heap_count == u->heap_cap) {
        INVARIANT(u->heap_cap < UINT32_MAX / 2);
        u->heap_cap = u->heap_cap ? u->heap_cap * 2 : 1024;
        u->heap = mem_realloc(u->heap, u->heap_cap * sizeof(struct sched_unit *));
    }
    put(u, u->heap_count, unit);
    u->heap_count++;
    sift_up(u, u->heap_count - 1);
}

void units_unwait(struct units *u, struct sched_unit *unit)
{
    if (unit->heap_at == 0)
        return;
    uint32_t at = unit->heap_at - 1;
    struct sched_unit *last = u->heap[--u->heap_count];
    unit->heap_at = 0;
    if (last == unit)
        return;
    put(u, at, last);
    sift_up(u, at);
    sift_down(u, last->heap_at - 1);
}

void units_remove(struct units *u, struct sched_unit *unit)
{
    units_unwait(u, unit);
    if (u->index)
        unit_index_remove(u->index, unit);
    message_unref(unit->hot);
    unit->hot = NULL;
    TAILQ_INSERT_HEAD(&u->free, unit, line);
    u->count--;
}

void units_shift(struct units *u, int64_t ms)
{
    for (uint32_t i = 0; i < u->heap_count; i++)
        u->heap[i]->due_ms += ms; /* all alike: their order stays */
}

struct sched_unit *units_next_due(const struct units *u)
{
    return u->heap_count ? u->heap[0] : NULL;
}

uint64_t units_count(const struct units *u)
{
    return u->count;
}

uint64_t units_memory(const struct units *u)
{
    return u->slab_count * sizeof(struct slab) +
           u->heap_cap * sizeof(struct sched_unit *) + unit_index_memory(u->index);
}
