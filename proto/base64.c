/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/base64.h"

static const char ALPHABET[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* 0..63, or -1. */
static int value_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (ascii_is_digit(c))
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* One group of four with `pad` "=" at its end; the octets it makes, or 0 when it is bad.
 */
static size_t decode_group(const char *in, size_t pad, char *out)
{
    uint32_t bits = 0;
    for (size_t i = 0; i < 4 - pad; i++) {
        int v = value_of(in[i]);
        if (v < 0)
            return 0;
        bits |= (uint32_t)v << (18 - 6 * i);
    }
    size_t octets = 3 - pad;
    if (bits & ((UINT32_C(1) << (8 * pad)) - 1))
        return 0; /* stray bits behind the last octet */
    for (size_t i = 0; i < octets; i++)
        out[i] = (char)(bits >> (16 - 8 * i));
    return octets;
}

static size_t padding_of(struct slice text)
{
    if (text.ptr[text.len - 1] != '=')
        return 0;
    return text.ptr[text.len - 2] == '=' ? 2 : 1;
}

bool base64_decode(struct buf *out, struct slice text)
{
    if (text.len % 4 != 0)
        return false;
    if (text.len == 0)
        return true;
    char *room = buf_reserve(out, BASE64_DECODED_MAX(text.len));
    if (!room)
        return false;
    size_t len = 0;
    for (size_t at = 0; at < text.len; at += 4) {
        size_t pad = at + 4 == text.len ? padding_of(text) : 0;
        size_t octets = decode_group(text.ptr + at, pad, room + len);
        if (octets == 0)
            return false;
        len += octets;
    }
    buf_commit(out, len);
    return true;
}

bool base64_encode(struct buf *out, struct slice octets)
{
    if (octets.len == 0)
        return true;
    char *room = buf_reserve(out, BASE64_ENCODED_LEN(octets.len));
    if (!room)
        return false;
    size_t len = 0;
    for (size_t at = 0; at < octets.len; at += 3) {
        size_t n = octets.len - at < 3 ? octets.len - at : 3;
        uint32_t bits = 0;
        for (size_t i = 0; i < n; i++)
            bits |= (uint32_t)(unsigned char)octets.ptr[at + i] << (16 - 8 * i);
        for (size_t i = 0; i < 4; i++)
            room[len++] = i <= n ? ALPHABET[bits >> (18 - 6 * i) & 63] : '=';
    }
    buf_commit(out, len);
    return true;
}
