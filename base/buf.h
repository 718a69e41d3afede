/* SPDX-License-Identifier: Apache-2.0 */
/* A growing byte buffer with a maximum. Writing past the maximum fails and changes
 * nothing (the `bool` says so; `failed` stays set, so a writer of many parts may check
 * once at the end). Bytes are consumed at the front without moving the rest until that
 * pays off. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/slice.h"

struct buf {
    char *mem;
    size_t head; /* first unread byte */
    size_t tail; /* behind the last byte */
    size_t cap;
    size_t max;
    bool failed; /* an append did not fit */
};

/* No memory is taken before the first append. */
void buf_init(struct buf *b, size_t max);
void buf_fini(struct buf *b);
static inline size_t buf_len(const struct buf *b)
{
    return b->tail - b->head;
}
static inline struct slice buf_slice(const struct buf *b)
{
    return slice_make(b->mem ? b->mem + b->head : "", b->tail - b->head);
}
bool buf_append(struct buf *b, struct slice bytes);
bool buf_append_str(struct buf *b, const char *text);
bool buf_append_char(struct buf *b, char c);
bool buf_printf(struct buf *b, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Room for `len` bytes behind the tail, to be filled by read(2) and then claimed by
 * buf_commit; NULL when that would pass the maximum. */
char *buf_reserve(struct buf *b, size_t len);
void buf_commit(struct buf *b, size_t len);
/* Drops `len` bytes at the front. */
void buf_consume(struct buf *b, size_t len);
/* Empties; keeps the memory unless it has grown over 16 KiB. Clears `failed`. */
void buf_clear(struct buf *b);

#endif
