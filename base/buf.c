/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"

#define KEEP_BYTES 16384

void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf){.max = max};
}

void buf_fini(struct buf *b)
{
    free(b->mem);
    *b = (struct buf){0};
}

static void make_room(struct buf *b, size_t len)
{
    size_t used = buf_len(b);
    if (b->head && (used == 0 || b->tail + len > b->cap)) {
        memmove(b->mem, b->mem + b->head, used);
        b->head = 0;
        b->tail = used;
    }
    if (b->tail + len <= b->cap)
        return;
    size_t cap = b->cap ? b->cap : 256;
    while (cap < b->tail + len)
        cap *= 2;
    b->mem = mem_realloc(b->mem, cap);
    b->cap = cap;
}

char *buf_reserve(struct buf *b, size_t len)
{
    if (len > b->max || buf_len(b) > b->max - len) {
        b->failed = true;
        return NULL;
    }
    make_room(b, len);
    return b->mem + b->tail;
}

void buf_commit(struct buf *b, size_t len)
{
    INVARIANT(len <= b->cap - b->tail);
    b->tail += len;
}

bool buf_append(struct buf *b, struct slice bytes)
{
    if (bytes.len == 0)
        return true;
    char *room = buf_reserve(b, bytes.len);
    if (!room)
        return false;
    memcpy(room, bytes.ptr, bytes.len);
    b->tail += bytes.len;
    return true;
}

bool buf_append_str(struct buf *b, const char *text)
{
    return buf_append(b, slice_str(text));
}

bool buf_append_char(struct buf *b, char c)
{
    return buf_append(b, slice_make(&c, 1));
}

bool buf_printf(struct buf *b, const char *format, ...)
{
    char small[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(small, sizeof(small), format, args);
    va_end(args);
    INVARIANT(n >= 0);
    if ((size_t)n < sizeof(small))
        return buf_append(b, slice_make(small, (size_t)n));
    char *room = buf_reserve(b, (size_t)n + 1);
    if (!room)
        return false;
    va_start(args, format);
    vsnprintf(room, (size_t)n + 1, format, args);
    va_end(args);
    b->tail += (size_t)n;
    return true;
}

void buf_consume(struct buf *b, size_t len)
{
    INVARIANT(len <= buf_len(b));
    b->head += len;
    if (b->head == b->tail)
        b->head = b->tail = 0;
}

void buf_clear(struct buf *b)
{
    b->head = b->tail = 0;
    b->failed = false;
    if (b->cap > KEEP_BYTES) {
        free(b->mem);
        b->mem = NULL;
        b->cap = 0;
    }
}
