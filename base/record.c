/* SPDX-License-Identifier: Apache-2.0 */
/* Building, packing and looking into records; rendering is in record_render.c. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/record_internal.h"
#include "base/utf8.h"

#define KEY_MAX 32
#define PACK_VERSION 1
/* 9999-12-31T23:59:59.999Z: what the rendering has room for. */
#define TIME_MAX_MS UINT64_C(253402300799999)

void record_init(struct record *r, enum log_event event)
{
    /* Not the pairs: two KiB of zeros for every line would show in a profile. */
    r->event = (uint8_t)event;
    r->level = (uint8_t)log_event_level(event);
    r->has_id = false;
    r->cut = false;
    r->time = wall_now();
    r->id_text[0] = '\0';
    r->len = 0;
}

static unsigned char *put_head(
    struct record *r, enum pair_type type, struct slice key, size_t value_len)
{
    INVARIANT(key.len > 0 && key.len <= KEY_MAX);
    size_t need = 4 + key.len + value_len;
    if (need > RECORD_BYTES - (size_t)r->len) {
        r->cut = true;
        return NULL;
    }
    unsigned char *at = r->pairs + r->len;
    *at++ = (unsigned char)type;
    *at++ = (unsigned char)key.len;
    memcpy(at, key.ptr, key.len);
    at += key.len;
    *at++ = (unsigned char)(value_len >> 8);
    *at++ = (unsigned char)value_len;
    r->len = (uint16_t)(r->len + need);
    return at;
}

static void put(
    struct record *r, enum pair_type type, const char *key, struct slice value)
{
    unsigned char *at = put_head(r, type, slice_str(key), value.len);
    if (at && value.len)
        memcpy(at, value.ptr, value.len);
}

/* Where to cut: not inside a character, when it is text at all. */
static size_t cut_at(struct slice value)
{
    size_t at = RECORD_VALUE_MAX - 3;
    for (size_t back = 0; back < 3; back++)
        if (((unsigned char)value.ptr[at - back] & 0xc0) != 0x80)
            return at - back;
    return at;
}

void record_slice(struct record *r, const char *key, struct slice value)
{
    if (value.len <= RECORD_VALUE_MAX) {
        put(r, PAIR_TEXT, key, value);
        return;
    }
    size_t keep = cut_at(value);
    unsigned char *at = put_head(r, PAIR_TEXT, slice_str(key), keep + 3);
    if (!at)
        return;
    memcpy(at, value.ptr, keep);
    memset(at + keep, '.', 3);
}

void record_msg_id(struct record *r, const char *key, struct msg_id id)
{
    char text[MSG_ID_TEXT + 1];
    if (strcmp(key, "id") == 0) {
        r->has_id = true;
        r->id = id;
        msg_id_format(id, r->id_text);
        return;
    }
    msg_id_format(id, text);
    put(r, PAIR_TEXT, key, slice_make(text, MSG_ID_TEXT));
}

void record_str(struct record *r, const char *key, const char *value)
{
    record_slice(r, key, slice_str(value));
}

void record_int(struct record *r, const char *key, int64_t value)
{
    char text[24];
    size_t at = sizeof(text);
    uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do {
        text[--at] = (char)('0' + left % 10);
        left /= 10;
    } while (left);
    if (value < 0)
        text[--at] = '-';
    put(r, PAIR_INT, key, slice_make(text + at, sizeof(text) - at));
}

void record_bool(struct record *r, const char *key, bool value)
{
    put(r, PAIR_BOOL, key, value ? SLICE("true") : SLICE("false"));
}

void record_ip(struct record *r, const char *key, struct ipaddr ip)
{
    char text[NETADDR_TEXT_MAX];
    ipaddr_format(ip, text);
    put(r, PAIR_TEXT, key, slice_str(text));
}

void record_vprintf(struct record *r, const char *key, const char *format, va_list args)
{
    char text[RECORD_VALUE_MAX + 8];
    int n = vsnprintf(text, sizeof(text), format, args);
    INVARIANT(n >= 0);
    size_t len = (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1;
    record_slice(r, key, slice_make(text, len));
}

void record_printf(struct record *r, const char *key, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    record_vprintf(r, key, format, args);
    va_end(args);
}

bool record_next_pair(const struct record *r, size_t *at, struct pair *out)
{
    size_t left = r->len - *at;
    if (left < 4)
        return false;
    const unsigned char *p = r->pairs + *at;
    size_t key_len = p[1];
    if (left < 4 + key_len)
        return false;
    size_t value_len = (size_t)p[2 + key_len] << 8 | p[3 + key_len];
    if (left - 4 - key_len < value_len)
        return false;
    out->type = (enum pair_type)p[0];
    out->key = slice_make(p + 2, key_len);
    out->value = slice_make(p + 4 + key_len, value_len);
    *at += 4 + key_len + value_len;
    return true;
}

bool record_get(const struct record *r, const char *key, struct slice *out)
{
    struct slice want = slice_str(key);
    struct pair pair;
    size_t at = 0;
    if (r->has_id && slice_eq(want, SLICE("id"))) {
        *out = slice_make(r->id_text, MSG_ID_TEXT);
        return true;
    }
    while (record_next_pair(r, &at, &pair))
        if (slice_eq(pair.key, want)) {
            *out = pair.value;
            return true;
        }
    return false;
}

/* version u8, level u8, flags u8, time i64, [id 16], event name (u8 + bytes), pairs
 * (u16 + bytes); integers big-endian. */
enum { FLAG_ID = 1, FLAG_CUT = 2 };

size_t record_pack(const struct record *r, unsigned char *out, size_t out_size)
{
    struct slice name = slice_str(log_event_name((enum log_event)r->event));
    size_t need = 12 + (r->has_id ? (size_t)MSG_ID_BYTES : 0) + name.len + 2 + r->len;
    unsigned char *at = out;
    if (need > out_size)
        return 0;
    *at++ = PACK_VERSION;
    *at++ = r->level;
    *at++ = (unsigned char)((r->has_id ? FLAG_ID : 0) | (r->cut ? FLAG_CUT : 0));
    for (int shift = 56; shift >= 0; shift -= 8)
        *at++ = (unsigned char)((uint64_t)r->time.ms >> shift);
    if (r->has_id) {
        memcpy(at, r->id.bytes, MSG_ID_BYTES);
        at += MSG_ID_BYTES;
    }
    *at++ = (unsigned char)name.len;
    memcpy(at, name.ptr, name.len);
    at += name.len;
    *at++ = (unsigned char)(r->len >> 8);
    *at++ = (unsigned char)r->len;
    memcpy(at, r->pairs, r->len);
    return need;
}

static bool key_is_sound(struct slice key)
{
    if (key.len == 0 || key.len > KEY_MAX)
        return false;
    for (size_t i = 0; i < key.len; i++) {
        char c = key.ptr[i];
        if (!(c >= 'a' && c <= 'z') && !ascii_is_digit(c) && c != '_')
            return false;
    }
    return true;
}

static bool int_is_sound(struct slice value)
{
    if (value.len && value.ptr[0] == '-')
        value = slice_from(value, 1);
    if (value.len == 0 || value.len > 19 || (value.len > 1 && value.ptr[0] == '0'))
        return false;
    for (size_t i = 0; i < value.len; i++)
        if (!ascii_is_digit(value.ptr[i]))
            return false;
    return true;
}

static bool pair_is_sound(const struct pair *pair)
{
    if (!key_is_sound(pair->key) || pair->value.len > RECORD_VALUE_MAX)
        return false;
    switch (pair->type) {
    case PAIR_TEXT:
        return true;
    case PAIR_INT:
        return int_is_sound(pair->value);
    case PAIR_BOOL:
        return slice_eq(pair->value, SLICE("true")) ||
               slice_eq(pair->value, SLICE("false"));
    default:
        return false; /* from the disk: may be anything */
    }
}

static bool pairs_are_sound(const struct record *r)
{
    struct pair pair;
    size_t at = 0;
    while (record_next_pair(r, &at, &pair))
        if (!pair_is_sound(&pair))
            return false;
    return at == r->len;
}

static bool take(struct slice *from, size_t len, struct slice *out)
{
    if (from->len < len)
        return false;
    *out = slice_head(*from, len);
    *from = slice_from(*from, len);
    return true;
}

static uint64_t big_endian(struct slice bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes.len; i++)
        value = value << 8 | (unsigned char)bytes.ptr[i];
    return value;
}

static bool unpack_head(struct slice *from, struct record *out)
{
    struct slice head, id;
    if (!take(from, 11, &head) || head.ptr[0] != PACK_VERSION)
        return false;
    unsigned level = (unsigned char)head.ptr[1], flags = (unsigned char)head.ptr[2];
    if (level > LOG_ERROR || flags > (FLAG_ID | FLAG_CUT))
        return false;
    out->level = (uint8_t)level;
    out->has_id = flags & FLAG_ID;
    out->cut = flags & FLAG_CUT;
    out->id_text[0] = '\0';
    uint64_t ms = big_endian(slice_from(head, 3));
    if (ms > TIME_MAX_MS)
        return false;
    out->time.ms = (int64_t)ms;
    if (!out->has_id)
        return true;
    if (!take(from, MSG_ID_BYTES, &id))
        return false;
    memcpy(out->id.bytes, id.ptr, MSG_ID_BYTES);
    msg_id_format(out->id, out->id_text);
    return true;
}

bool record_unpack(struct slice packed, struct record *out)
{
    struct slice size, name, pairs;
    enum log_event event;
    if (!unpack_head(&packed, out) || !take(&packed, 1, &size) ||
        !take(&packed, big_endian(size), &name) || !log_event_parse(name, &event))
        return false;
    if (!take(&packed, 2, &size) || big_endian(size) > RECORD_BYTES ||
        !take(&packed, big_endian(size), &pairs) || packed.len)
        return false;
    out->event = (uint8_t)event;
    out->len = (uint16_t)pairs.len;
    if (pairs.len)
        memcpy(out->pairs, pairs.ptr, pairs.len);
    return pairs_are_sound(out);
}
