/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"

struct block {
    struct block *next;
    size_t cap;
};

struct arena {
    struct block *blocks; /* all but the first, which holds the arena itself */
    char *at;
    char *end;
    size_t bytes;
    size_t next_cap;
};

#define ALIGNED(n) (((n) + 15u) & ~(size_t)15u)

struct arena *arena_new(size_t first_bytes)
{
    size_t cap = ALIGNED(sizeof(struct arena)) + ALIGNED(first_bytes);
    struct arena *arena = mem_alloc(cap);
    char *mem = (char *)arena;
    *arena = (struct arena){.at = mem + ALIGNED(sizeof(struct arena)),
        .end = mem + cap,
        .bytes = cap,
        .next_cap = cap < 1024 ? 1024 : cap};
    return arena;
}

void arena_free(struct arena *arena)
{
    if (!arena)
        return;
    struct block *b = arena->blocks;
    while (b) {
        struct block *next = b->next;
        free(b);
        b = next;
    }
    free(arena);
}

static void add_block(struct arena *arena, size_t size)
{
    size_t cap = size > arena->next_cap ? size : arena->next_cap;
    struct block *b = mem_alloc(ALIGNED(sizeof(*b)) + cap);
    b->next = arena->blocks;
    b->cap = cap;
    arena->blocks = b;
    arena->at = (char *)b + ALIGNED(sizeof(*b));
    arena->end = arena->at + cap;
    arena->bytes += ALIGNED(sizeof(*b)) + cap;
    if (arena->next_cap < 65536)
        arena->next_cap *= 2;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    size_t need = ALIGNED(size ? size : 1);
    if ((size_t)(arena->end - arena->at) < need)
        add_block(arena, need);
    char *p = arena->at;
    arena->at += need;
    memset(p, 0, need);
    return p;
}

struct slice arena_dup(struct arena *arena, struct slice bytes)
{
    return slice_make(arena_strdup(arena, bytes), bytes.len);
}

char *arena_strdup(struct arena *arena, struct slice bytes)
{
    char *copy = arena_alloc(arena, bytes.len + 1);
    if (bytes.len)
        memcpy(copy, bytes.ptr, bytes.len);
    return copy;
}

struct slice arena_printf(struct arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    INVARIANT(n >= 0);
    char *text = arena_alloc(arena, (size_t)n + 1);
    va_start(args, format);
    vsnprintf(text, (size_t)n + 1, format, args);
    va_end(args);
    return slice_make(text, (size_t)n);
}

size_t arena_bytes(const struct arena *arena)
{
    return arena->bytes;
}
