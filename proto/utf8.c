/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/utf8.h"

/* Length by the lead octet; 0 for a continuation and for what no character starts with.
 */
static size_t length_of(unsigned char lead)
{
    if (lead < 0x80)
        return 1;
    if (lead < 0xc2 || lead > 0xf4)
        return 0;
    return lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

size_t utf8_next(struct slice s, uint32_t *code_out)
{
    if (s.len == 0)
        return 0;
    unsigned char lead = (unsigned char)s.ptr[0];
    size_t len = length_of(lead);
    if (len == 0 || len > s.len)
        return 0;
    uint32_t code = len == 1 ? lead : lead & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if ((c & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (c & 0x3f);
    }
    static const uint32_t shortest[] = {0, 0, 0x80, 0x800, 0x10000};
    if (code < shortest[len] || (code >= 0xd800 && code <= 0xdfff) || code > 0x10ffff)
        return 0;
    if (code_out)
        *code_out = code;
    return len;
}

bool utf8_is_valid(struct slice s)
{
    while (s.len > 0) {
        size_t len = utf8_next(s, NULL);
        if (len == 0)
            return false;
        s = slice_from(s, len);
    }
    return true;
}

bool utf8_is_ascii(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if ((unsigned char)s.ptr[i] > 127)
            return false;
    }
    return true;
}
