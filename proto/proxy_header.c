/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/proxy_header.h"

static const struct slice V2_SIGNATURE = SLICE_INIT("\r\n\r\n\0\r\nQUIT\n");
#define V2_FIXED 16

/* Could `in` still become `whole`, or does it start with it? */
static bool agrees(struct slice in, struct slice whole)
{
    size_t n = in.len < whole.len ? in.len : whole.len;
    return n == 0 || memcmp(in.ptr, whole.ptr, n) == 0;
}

/* The next word, up to one blank. */
static struct slice next_word(struct slice *rest)
{
    size_t end = slice_find(*rest, ' ');
    struct slice word = slice_head(*rest, end);
    *rest = slice_from(*rest, end + 1);
    return word;
}

static bool parse_port(struct slice text, uint16_t *out)
{
    uint64_t value;
    bool has_leading_zero = text.len > 1 && text.ptr[0] == '0';
    if (has_leading_zero || !slice_u64(text, 65535, &value))
        return false;
    *out = (uint16_t)value;
    return true;
}

static bool has_family(struct slice text, bool is_v6)
{
    /* By the text, since an IPv4-mapped address becomes IPv4 when it is parsed. */
    return (slice_find(text, ':') < text.len) == is_v6;
}

/* "TCP4 192.0.2.1 192.0.2.2 56324 443", without CRLF. */
static bool parse_v1_line(struct slice line, struct proxy_header *out)
{
    struct slice rest = slice_from(line, sizeof "PROXY " - 1);
    struct slice family = next_word(&rest);
    if (slice_eq(family, SLICE("UNKNOWN"))) {
        out->is_local = true; /* whatever follows is to be ignored */
        return true;
    }
    bool is_v6 = slice_eq(family, SLICE("TCP6"));
    if (!is_v6 && !slice_eq(family, SLICE("TCP4")))
        return false;
    struct slice source = next_word(&rest), destination = next_word(&rest);
    struct slice source_port = next_word(&rest);
    return has_family(source, is_v6) && has_family(destination, is_v6) &&
           ipaddr_parse(source, &out->source.ip) &&
           ipaddr_parse(destination, &out->destination.ip) &&
           parse_port(source_port, &out->source.port) &&
           parse_port(rest, &out->destination.port);
}

static enum parse parse_v1(struct slice in, struct proxy_header *out, size_t *used_out)
{
    struct slice window = slice_head(in, PROXY_V1_MAX);
    size_t lf = slice_find(window, '\n');
    size_t cr = slice_find(window, '\r');
    if (lf == window.len) {
        bool may_end = window.len < PROXY_V1_MAX && cr + 1 >= window.len;
        return may_end ? PARSE_MORE : PARSE_BAD;
    }
    if (cr + 1 != lf || !parse_v1_line(slice_head(window, cr), out))
        return PARSE_BAD;
    out->version = 1;
    *used_out = lf + 1;
    return PARSE_DONE;
}

static uint16_t u16_at(const char *at)
{
    return (uint16_t)((unsigned char)at[0] << 8 | (unsigned char)at[1]);
}

static void address_at(const char *at, bool is_v6, struct ipaddr *out)
{
    *out = (struct ipaddr){.family = is_v6 ? 6 : 4};
    memcpy(out->bytes, at, is_v6 ? 16 : 4);
    static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (is_v6 && memcmp(at, mapped, sizeof mapped) == 0) {
        *out = (struct ipaddr){.family = 4};
        memcpy(out->bytes, at + sizeof mapped, 4);
    }
}

/* The address block of a PROXY command; `body` is all behind the fixed part. */
static bool parse_v2_addresses(int family, struct slice body, struct proxy_header *out)
{
    bool is_v6 = family == 0x21;
    size_t width = is_v6 ? 16 : 4;
    if ((family != 0x11 && family != 0x21) || body.len < 2 * width + 4)
        return false;
    address_at(body.ptr, is_v6, &out->source.ip);
    address_at(body.ptr + width, is_v6, &out->destination.ip);
    out->source.port = u16_at(body.ptr + 2 * width);
    out->destination.port = u16_at(body.ptr + 2 * width + 2);
    return true;
}

static enum parse parse_v2(struct slice in, struct proxy_header *out, size_t *used_out)
{
    if (in.len < V2_FIXED)
        return PARSE_MORE;
    int command = (unsigned char)in.ptr[12], family = (unsigned char)in.ptr[13];
    size_t length = V2_FIXED + u16_at(in.ptr + 14);
    if ((command != 0x20 && command != 0x21) || length > PROXY_V2_MAX)
        return PARSE_BAD;
    if (in.len < length)
        return PARSE_MORE;
    out->version = 2;
    out->is_local = command == 0x20 || family == 0x00;
    struct slice body = slice_make(in.ptr + V2_FIXED, length - V2_FIXED);
    /* UNIX sockets and datagrams have no place before an SMTP session. */
    if (!out->is_local && !parse_v2_addresses(family, body, out))
        return PARSE_BAD;
    *used_out = length;
    return PARSE_DONE;
}

enum parse proxy_header_parse(struct slice in, struct proxy_header *out, size_t *used_out)
{
    *out = (struct proxy_header){0};
    *used_out = 0;
    if (in.len == 0)
        return PARSE_MORE;
    if (agrees(in, V2_SIGNATURE))
        return parse_v2(in, out, used_out);
    if (!agrees(in, SLICE("PROXY ")))
        return PARSE_BAD;
    return in.len < sizeof "PROXY " - 1 ? PARSE_MORE : parse_v1(in, out, used_out);
}
