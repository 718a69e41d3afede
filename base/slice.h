/* SPDX-License-Identifier: Apache-2.0 */
/* A slice is a borrowed run of bytes: pointer and length, unterminated, may hold NUL.
 * Text from the wire, a file or DNS is a slice until somebody copies it. It never owns.
 */
#ifndef BASE_SLICE_H
#define BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const char *ptr;
    size_t len;
};

/* printf arguments for "%.*s". */
#define SLICE_ARG(s) (int)(s).len, (s).ptr
/* The slice of a string literal, usable in static initialisers. */
#define SLICE_INIT(literal)                                                              \
    {                                                                                    \
        (literal), sizeof(literal) - 1                                                   \
    }
#define SLICE(literal) ((struct slice)SLICE_INIT(literal))

static inline struct slice slice_make(const void *ptr, size_t len)
{
    return (struct slice){ptr, len};
}

static inline struct slice slice_str(const char *text)
{
    return (struct slice){text, text ? strlen(text) : 0};
}

/* The bytes from `from` to the end; empty when `from` lies behind it. */
static inline struct slice slice_from(struct slice s, size_t from)
{
    return from >= s.len ? (struct slice){s.ptr + s.len, 0}
                         : (struct slice){s.ptr + from, s.len - from};
}

/* The first `len` bytes, or all of them when there are fewer. */
static inline struct slice slice_head(struct slice s, size_t len)
{
    return (struct slice){s.ptr, len < s.len ? len : s.len};
}

bool slice_eq(struct slice a, struct slice b);
/* Equal when ASCII letters are compared without case. Never looks at the locale. */
bool slice_eq_nocase(struct slice a, struct slice b);
bool slice_starts(struct slice s, struct slice prefix);
bool slice_starts_nocase(struct slice s, struct slice prefix);
bool slice_ends_nocase(struct slice s, struct slice suffix);
/* <0, 0, >0 by bytes, shorter first. */
int slice_cmp(struct slice a, struct slice b);
/* Index of the first `c`, or s.len when there is none. */
size_t slice_find(struct slice s, char c);
/* Index of the last `c`, or s.len when there is none. */
size_t slice_rfind(struct slice s, char c);
/* Without blanks and tabs (and CR, LF) at both ends. */
struct slice slice_trim(struct slice s);
/* Decimal digits only, all of the slice, no sign, at most `max`. False leaves *out alone.
 */
bool slice_u64(struct slice s, uint64_t max, uint64_t *out);
/* 64-bit hash keyed per process (SipHash-like quality is not needed inside one process,
 * but the key keeps strangers from choosing collisions). nocase folds ASCII letters
 * first. */
uint64_t slice_hash(struct slice s, uint64_t key);
uint64_t slice_hash_nocase(struct slice s, uint64_t key);

/* ASCII only, whatever the locale says. */
static inline bool ascii_is_digit(char c)
{
    return c >= '0' && c <= '9';
}
static inline bool ascii_is_alpha(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
static inline bool ascii_is_alnum(char c)
{
    return ascii_is_digit(c) || ascii_is_alpha(c);
}
static inline char ascii_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}
static inline char ascii_upper(char c)
{
    return c >= 'a' && c <= 'z' ? (char)(c - 32) : c;
}

#endif
