/* SPDX-License-Identifier: Apache-2.0 */
/* An arena belongs to one mail transaction, one peer message or one configuration: it
 * hands out memory that lives until the whole arena dies. Not thread-safe. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/slice.h"

struct arena;

/* `first_bytes` is the size of the first block; the arena itself lives in it. */
struct arena *arena_new(size_t first_bytes);
/* Accepts NULL. */
void arena_free(struct arena *arena);
/* 16-byte aligned, zeroed. */
void *arena_alloc(struct arena *arena, size_t size);
/* A copy with a NUL behind it (not counted in len). */
struct slice arena_dup(struct arena *arena, struct slice bytes);
char *arena_strdup(struct arena *arena, struct slice bytes);
struct slice arena_printf(struct arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Bytes taken from the system so far. */
size_t arena_bytes(const struct arena *arena);

#endif
