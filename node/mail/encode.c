/* SPDX-License-Identifier: Apache-2.0 */
#include "node/mail/encode.h"

#include "proto/base64.h"

#define LINE_MAX 76
/* Octets of one line of base64. */
#define BASE64_OCTETS 57

bool has_8bit(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] >= 0x80)
            return true;
    return false;
}

static bool must_encode(struct slice line, size_t i)
{
    unsigned char u = (unsigned char)line.ptr[i];
    if (u == '=' || u >= 0x7f)
        return true;
    if (u == ' ' || u == '\t')
        return i + 1 == line.len;
    if (u < ' ')
        return true;
    if (i == 0)
        return (u == '.' && line.len == 1) || slice_starts(line, SLICE("From "));
    return false;
}

/* One line without its line end. */
static void encode_line(struct body *out, struct slice line)
{
    static const char hex[] = "0123456789ABCDEF";
    char buf[LINE_MAX + 2];
    size_t n = 0;
    for (size_t i = 0; i < line.len; i++) {
        bool coded = must_encode(line, i);
        size_t need = coded ? 3 : 1;
        /* Room for the soft line break is kept unless this is the last character. */
        if (n + need > LINE_MAX - (i + 1 < line.len ? 1u : 0u)) {
            buf[n++] = '=';
            body_append(out, slice_make(buf, n));
            body_append(out, SLICE("\r\n"));
            n = 0;
        }
        unsigned char u = (unsigned char)line.ptr[i];
        if (coded) {
            buf[n++] = '=';
            buf[n++] = hex[u >> 4];
            buf[n++] = hex[u & 15];
        } else {
            buf[n++] = (char)u;
        }
    }
    if (n)
        body_append(out, slice_make(buf, n));
}

/* The length of the line at the start of `text`; *end_len is that of its CRLF. */
static size_t line_length(struct slice text, size_t *end_len)
{
    size_t from = 0;
    for (;;) {
        size_t lf = from + slice_find(slice_from(text, from), '\n');
        *end_len = 0;
        if (lf >= text.len)
            return text.len;
        if (lf > 0 && text.ptr[lf - 1] == '\r') {
            *end_len = 2;
            return lf - 1;
        }
        from = lf + 1; /* a bare LF is content */
    }
}

void encode_qp(struct body *out, struct slice text)
{
    while (text.len) {
        size_t end_len;
        size_t len = line_length(text, &end_len);
        encode_line(out, slice_head(text, len));
        if (end_len)
            body_append(out, SLICE("\r\n"));
        text = slice_from(text, len + end_len);
    }
}

void encode_base64(struct body *out, struct slice octets)
{
    struct buf line;
    buf_init(&line, 256);
    while (octets.len) {
        struct slice part = slice_head(octets, BASE64_OCTETS);
        buf_clear(&line);
        base64_encode(&line, part);
        buf_append(&line, SLICE("\r\n"));
        body_append(out, buf_slice(&line));
        octets = slice_from(octets, part.len);
    }
    buf_fini(&line);
}
