/* SPDX-License-Identifier: Apache-2.0 */
#include "base/ids.h"

#include <stdio.h>

#include "base/alloc.h"

static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";

void msg_id_source_init(
    struct msg_id_source *s, uint32_t node, uint32_t epoch, uint32_t lane)
{
    INVARIANT(lane < 16);
    *s = (struct msg_id_source){.node = node, .epoch = epoch & 0xffffff, .lane = lane};
}

static void put_be(unsigned char *at, uint64_t value, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--, value >>= 8)
        at[i] = (unsigned char)value;
}

struct msg_id msg_id_next(struct msg_id_source *s, struct wall now)
{
    struct msg_id id;
    /* Time never goes back within one source, and 2^20 ids in a millisecond borrow from
     * the next one: within an epoch (time, counter) never repeats. */
    if (now.ms > s->last_ms) {
        s->last_ms = now.ms;
        s->counter = 0;
    } else if (++s->counter > 0xfffff) {
        s->last_ms++;
        s->counter = 0;
    }
    put_be(id.bytes, (uint64_t)s->last_ms, 6);
    put_be(id.bytes + 6, s->node, 4);
    put_be(id.bytes + 10, s->epoch, 3);
    put_be(id.bytes + 13, s->lane << 20 | s->counter, 3);
    return id;
}

/* --- made alike everywhere: FNV-1a, then the finaliser of splitmix64 --- */

void msg_id_hash_init(struct msg_id_hash *h)
{
    h->a = UINT64_C(0xcbf29ce484222325);
    h->b = UINT64_C(0x6c62272e07bb0142);
}

void msg_id_hash_add(struct msg_id_hash *h, const void *bytes, size_t len)
{
    const unsigned char *p = bytes;
    for (size_t i = 0; i < len; i++) {
        h->a = (h->a ^ p[i]) * UINT64_C(0x100000001b3);
        h->b = (h->b ^ p[i]) * UINT64_C(0x100000001b3);
    }
}

static uint64_t mix(uint64_t h)
{
    h = (h ^ (h >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    h = (h ^ (h >> 27)) * UINT64_C(0x94d049bb133111eb);
    return h ^ (h >> 31);
}

/* 48 bits of time, then 80 of the hash. */
struct msg_id msg_id_hash_end(const struct msg_id_hash *h, struct msg_id from)
{
    struct msg_id id = from;
    uint64_t a = mix(h->a), b = mix(h->b);
    for (int i = 0; i < 8; i++)
        id.bytes[6 + i] = (unsigned char)(a >> (56 - 8 * i));
    id.bytes[14] = (unsigned char)(b >> 8);
    id.bytes[15] = (unsigned char)b;
    return id;
}

struct wall msg_id_time(struct msg_id id)
{
    int64_t ms = 0;
    for (int i = 0; i < 6; i++)
        ms = ms << 8 | id.bytes[i];
    return (struct wall){ms};
}

void msg_id_format(struct msg_id id, char out[MSG_ID_TEXT + 1])
{
    /* 26 digits hold 130 bits: the first carries the 3 top bits. */
    unsigned acc = 0;
    int bits = 2, n = 0;
    for (int i = 0; i < MSG_ID_BYTES; i++) {
        acc = acc << 8 | id.bytes[i];
        bits += 8;
        while (bits >= 5) {
            bits -= 5;
            out[n++] = digits[(acc >> bits) & 31];
        }
        acc &= (1u << bits) - 1;
    }
    out[n] = '\0';
}

static int digit_value(char c)
{
    const char *at = c ? strchr(digits, ascii_lower(c)) : NULL;
    return at ? (int)(at - digits) : -1;
}

bool msg_id_parse(struct slice text, struct msg_id *out)
{
    struct msg_id id;
    unsigned acc = 0;
    int bits = -2, n = 0;
    if (text.len != MSG_ID_TEXT)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        int value = digit_value(text.ptr[i]);
        if (value < 0 || (i == 0 && value > 7))
            return false;
        acc = acc << 5 | (unsigned)value;
        bits += 5;
        if (bits >= 8) {
            bits -= 8;
            id.bytes[n++] = (unsigned char)(acc >> bits);
            acc &= (1u << bits) - 1;
        }
    }
    *out = id;
    return true;
}

void unit_id_format(struct unit_id id, char out[UNIT_ID_TEXT_MAX])
{
    msg_id_format(id.msg, out);
    snprintf(out + MSG_ID_TEXT, UNIT_ID_TEXT_MAX - MSG_ID_TEXT, "-%u", id.unit);
}

bool unit_id_parse(struct slice text, struct unit_id *out)
{
    uint64_t unit;
    struct unit_id id;
    if (text.len < MSG_ID_TEXT + 2 || text.ptr[MSG_ID_TEXT] != '-')
        return false;
    if (!msg_id_parse(slice_head(text, MSG_ID_TEXT), &id.msg))
        return false;
    if (!slice_u64(slice_from(text, MSG_ID_TEXT + 1), UINT16_MAX, &unit))
        return false;
    id.unit = (uint16_t)unit;
    *out = id;
    return true;
}

void unit_id_key(struct unit_id id, unsigned char out[UNIT_ID_BYTES])
{
    memcpy(out, id.msg.bytes, MSG_ID_BYTES);
    put_be(out + MSG_ID_BYTES, id.unit, 2);
}

struct unit_id unit_id_from_key(const unsigned char key[UNIT_ID_BYTES])
{
    struct unit_id id;
    memcpy(id.msg.bytes, key, MSG_ID_BYTES);
    id.unit = (uint16_t)(key[MSG_ID_BYTES] << 8 | key[MSG_ID_BYTES + 1]);
    return id;
}

int unit_id_cmp(struct unit_id a, struct unit_id b)
{
    int order = memcmp(a.msg.bytes, b.msg.bytes, MSG_ID_BYTES);
    return order ? order : (a.unit > b.unit) - (a.unit < b.unit);
}
