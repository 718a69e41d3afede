/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that cannot fail: when there is none left the process ends with one clear line,
 * because no caller could do better. A size that a peer sends is bounded before it gets
 * here. Free with free(3). */
#ifndef BASE_ALLOC_H
#define BASE_ALLOC_H

#include <stddef.h>

#include "base/slice.h"

void *mem_alloc(size_t size);
/* Zeroed. */
void *mem_zalloc(size_t size);
void *mem_realloc(void *old, size_t size);
/* A NUL-terminated copy (bytes behind an embedded NUL are copied too). */
char *mem_strdup(struct slice text);

/* Our own bug: aborts with the place. Always compiled in. */
#define INVARIANT(condition)                                                             \
    ((condition) ? (void)0 : invariant_failed(#condition, __FILE__, __LINE__))
_Noreturn void invariant_failed(const char *what, const char *file, int line);
/* Ends the process with a last line on standard error that says why: the world, not a
 * bug. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define CONTAINER_OF(ptr, type, member)                                                  \
    ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#endif
