/* SPDX-License-Identifier: Apache-2.0 */
#include "base/utf8.h"

static unsigned sequence_length(unsigned char first)
{
    if (first < 0x80)
        return 1;
    if (first >= 0xc2 && first <= 0xdf)
        return 2;
    if (first >= 0xe0 && first <= 0xef)
        return 3;
    return first >= 0xf0 && first <= 0xf4 ? 4 : 0;
}

unsigned utf8_decode(struct slice s, uint32_t *code_out)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    static const unsigned char mask[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    if (s.len == 0)
        return 0;
    const unsigned char *at = (const unsigned char *)s.ptr;
    unsigned len = sequence_length(at[0]);
    if (len == 0 || len > s.len)
        return 0;
    uint32_t code = at[0] & mask[len];
    for (unsigned i = 1; i < len; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (at[i] & 0x3f);
    }
    if (code < least[len] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
        return 0;
    *code_out = code;
    return len;
}

bool utf8_valid(struct slice s)
{
    uint32_t code;
    while (s.len) {
        unsigned len = utf8_decode(s, &code);
        if (len == 0)
            return false;
        s = slice_from(s, len);
    }
    return true;
}

struct range {
    uint32_t first, last;
};

static bool in_ranges(const struct range *ranges, size_t count, uint32_t code)
{
    for (size_t i = 0; i < count; i++)
        if (code >= ranges[i].first && code <= ranges[i].last)
            return true;
    return false;
}

bool utf8_is_visible(uint32_t code)
{
    static const struct range hidden[] = {{0, 0x1f}, {0x7f, 0x9f}, {0xad, 0xad},
        {0x61c, 0x61c}, {0x115f, 0x1160}, {0x17b4, 0x17b5}, {0x180b, 0x180f},
        {0x200b, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x206f}, {0x3164, 0x3164},
        {0xfe00, 0xfe0f}, {0xfeff, 0xfeff}, {0xffa0, 0xffa0}, {0xfff0, 0xfffb},
        {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a}, {0xe0000, 0xe0fff}};
    if (code >= 0x20 && code < 0x7f)
        return true;
    if ((code & 0xfffe) == 0xfffe || (code >= 0xfdd0 && code <= 0xfdef))
        return false;
    return !in_ranges(hidden, sizeof(hidden) / sizeof(hidden[0]), code);
}

static void escape_code(uint32_t code, struct buf *out)
{
    if (code == '\n' || code == '\r' || code == '\t')
        buf_printf(out, "\\%c", code == '\n' ? 'n' : code == '\r' ? 'r' : 't');
    else if (code < 0x80)
        buf_printf(out, "\\x%02x", code);
    else
        buf_printf(out, code > 0xffff ? "\\U%08x" : "\\u%04x", code);
}

void utf8_escape(struct slice s, struct buf *out)
{
    uint32_t code;
    while (s.len) {
        unsigned len = utf8_decode(s, &code);
        if (len == 0)
            buf_printf(out, "\\x%02x", (unsigned char)s.ptr[0]);
        else if (code == '\\')
            buf_append_str(out, "\\\\");
        else if (utf8_is_visible(code))
            buf_append(out, slice_head(s, len));
        else
            escape_code(code, out);
        s = slice_from(s, len ? len : 1);
    }
}

static unsigned code_columns(uint32_t code)
{
    static const struct range none[] = {{0x300, 0x36f}, {0x483, 0x489}, {0x591, 0x5bd},
        {0x610, 0x61a}, {0x64b, 0x65f}, {0x93c, 0x93c}, {0x94d, 0x94d}, {0xe34, 0xe3a},
        {0xe47, 0xe4e}, {0x1ab0, 0x1aff}, {0x1dc0, 0x1dff}, {0x20d0, 0x20ff},
        {0xfe20, 0xfe2f}};
    static const struct range wide[] = {{0x1100, 0x115f}, {0x2e80, 0x303e},
        {0x3041, 0x33ff}, {0x3400, 0x4dbf}, {0x4e00, 0x9fff}, {0xa000, 0xa4cf},
        {0xac00, 0xd7a3}, {0xf900, 0xfaff}, {0xfe30, 0xfe6f}, {0xff00, 0xff60},
        {0xffe0, 0xffe6}, {0x1f300, 0x1f64f}, {0x1f900, 0x1f9ff}, {0x20000, 0x3fffd}};
    if (code < 0x300)
        return 1;
    if (in_ranges(none, sizeof(none) / sizeof(none[0]), code))
        return 0;
    return in_ranges(wide, sizeof(wide) / sizeof(wide[0]), code) ? 2 : 1;
}

unsigned utf8_columns(struct slice s)
{
    unsigned columns = 0;
    uint32_t code;
    while (s.len) {
        unsigned len = utf8_decode(s, &code);
        columns += len ? code_columns(code) : 1;
        s = slice_from(s, len ? len : 1);
    }
    return columns;
}
