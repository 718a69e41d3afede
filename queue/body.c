/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/body.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/crc32c.h"

/* A small message takes part of a row; a big one soon takes a quarter of a MiB at a time.
 */
#define CHUNK_ROWS_MAX 64u
/* With the chunk's head and malloc's, 2 KiB. */
#define SMALL_BYTES (2048u - 32u)

struct body {
    atomic_uint refs;
    struct body_chunk *head;
    struct body_chunk *tail;
    uint32_t first_row; /* the row that `head` begins with */
    uint32_t crc;
    uint64_t size;
    uint64_t memory;
    char last[4]; /* the last bytes appended, at the end of the array */
};

struct body *body_new(void)
{
    struct body *b = mem_zalloc(sizeof(*b));
    atomic_init(&b->refs, 1);
    b->memory = sizeof(*b);
    return b;
}

struct body *body_ref(struct body *b)
{
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

static uint32_t chunk_rows(const struct body_chunk *c)
{
    return (c->cap + BODY_ROW_BYTES - 1) / BODY_ROW_BYTES;
}

static void free_head(struct body *b)
{
    struct body_chunk *c = b->head;
    b->head = c->next;
    if (!b->head)
        b->tail = NULL;
    b->first_row += chunk_rows(c);
    b->memory -= sizeof(*c) + c->cap;
    free(c);
}

void body_unref(struct body *b)
{
    if (!b || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1)
        return;
    while (b->head)
        free_head(b);
    free(b);
}

/* The store's writer reads rows that are complete while the session goes on appending
 * behind them, so `len` (and nothing else in a chunk) is read and written by two threads.
 */
static uint32_t chunk_len(const struct body_chunk *c)
{
    return __atomic_load_n(&c->len, __ATOMIC_RELAXED);
}

static struct body_chunk *add_chunk(struct body *b, size_t wanted)
{
    uint32_t rows = b->tail ? chunk_rows(b->tail) * 2 : 1;
    if (rows > CHUNK_ROWS_MAX)
        rows = CHUNK_ROWS_MAX;
    uint32_t cap = rows * BODY_ROW_BYTES;
    if (!b->tail && wanted <= SMALL_BYTES)
        cap = SMALL_BYTES;
    struct body_chunk *c = mem_alloc(sizeof(*c) + cap);
    *c = (struct body_chunk){.cap = cap};
    if (b->tail)
        b->tail->next = c;
    else
        b->head = c;
    b->tail = c;
    b->memory += sizeof(*c) + cap;
    return c;
}

/* The first chunk of a small body becomes a whole row: nobody else looks at it yet, for a
 * body that still grows is shared by its complete rows only. */
static void grow_small(struct body *b)
{
    struct body_chunk *c = mem_realloc(b->head, sizeof(*c) + BODY_ROW_BYTES);
    b->memory += BODY_ROW_BYTES - c->cap;
    c->cap = BODY_ROW_BYTES;
    b->head = b->tail = c;
}

static void remember_last(struct body *b, struct slice bytes)
{
    size_t n = bytes.len < sizeof(b->last) ? bytes.len : sizeof(b->last);
    memmove(b->last, b->last + n, sizeof(b->last) - n);
    memcpy(b->last + sizeof(b->last) - n, bytes.ptr + bytes.len - n, n);
}

void body_append(struct body *b, struct slice bytes)
{
    if (bytes.len == 0)
        return;
    b->crc = crc32c(b->crc, bytes.ptr, bytes.len);
    b->size += bytes.len;
    remember_last(b, bytes);
    while (bytes.len) {
        struct body_chunk *c = b->tail;
        if (c && c->cap == SMALL_BYTES && bytes.len > c->cap - c->len)
            grow_small(b);
        else if (!c || c->len == c->cap)
            add_chunk(b, bytes.len);
        c = b->tail;
        uint32_t len = c->len;
        size_t n = bytes.len < c->cap - len ? bytes.len : c->cap - len;
        memcpy(c->bytes + len, bytes.ptr, n);
        __atomic_store_n(&c->len, len + (uint32_t)n, __ATOMIC_RELAXED);
        bytes = slice_from(bytes, n);
    }
}

uint64_t body_size(const struct body *b)
{
    return b->size;
}

uint32_t body_crc(const struct body *b)
{
    return b->crc;
}

uint64_t body_memory(const struct body *b)
{
    return b->memory;
}

const struct body_chunk *body_chunks(const struct body *b)
{
    return b->head;
}

uint32_t body_rows(const struct body *b)
{
    return (uint32_t)((b->size + BODY_ROW_BYTES - 1) / BODY_ROW_BYTES);
}

void body_rows_from(const struct body *b, uint32_t row, struct body_row_cursor *out)
{
    const struct body_chunk *c = b->head;
    uint32_t base = b->first_row;
    while (c && row - base >= chunk_rows(c)) {
        base += chunk_rows(c);
        c = c->next;
    }
    *out = (struct body_row_cursor){
        .chunk = row < b->first_row ? NULL : c, .at = (row - base) * BODY_ROW_BYTES};
}

struct slice body_row_next(struct body_row_cursor *at)
{
    const struct body_chunk *c = at->chunk;
    if (c && at->at >= c->cap) {
        c = at->chunk = c->next;
        at->at = 0;
    }
    if (!c)
        return slice_make("", 0);
    uint32_t len = chunk_len(c);
    uint32_t left = len > at->at ? len - at->at : 0;
    struct slice row = {c->bytes + at->at, left < BODY_ROW_BYTES ? left : BODY_ROW_BYTES};
    at->at += BODY_ROW_BYTES;
    return row;
}

struct slice body_row(const struct body *b, uint32_t row)
{
    struct body_row_cursor at;
    body_rows_from(b, row, &at);
    return body_row_next(&at);
}

void body_drop_before(struct body *b, uint32_t row)
{
    while (b->head && b->head->cap != SMALL_BYTES && b->head->len == b->head->cap &&
           b->first_row + chunk_rows(b->head) <= row)
        free_head(b);
}

struct slice body_tail(const struct body *b, size_t len)
{
    size_t have = b->size < sizeof(b->last) ? (size_t)b->size : sizeof(b->last);
    if (len > have)
        len = have;
    return slice_make(b->last + sizeof(b->last) - len, len);
}
