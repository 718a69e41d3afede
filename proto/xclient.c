/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/xclient.h"

#include "proto/esmtp_params.h"
#include "proto/smtp_path.h"
#include "proto/utf8.h"

static const struct slice NAMES[XCLIENT_COUNT] = {
    [XCLIENT_NAME] = SLICE_INIT("NAME"),
    [XCLIENT_ADDR] = SLICE_INIT("ADDR"),
    [XCLIENT_PORT] = SLICE_INIT("PORT"),
    [XCLIENT_PROTO] = SLICE_INIT("PROTO"),
    [XCLIENT_HELO] = SLICE_INIT("HELO"),
    [XCLIENT_LOGIN] = SLICE_INIT("LOGIN"),
    [XCLIENT_DESTADDR] = SLICE_INIT("DESTADDR"),
    [XCLIENT_DESTPORT] = SLICE_INIT("DESTPORT"),
};

static bool is_printable(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c <= ' ' || c == 127)
            return false;
    }
    return utf8_is_valid(s);
}

static bool take_addr(struct slice text, struct ipaddr *out)
{
    if (slice_starts_nocase(text, SLICE("IPV6:")))
        text = slice_from(text, 5);
    return ipaddr_parse(text, out);
}

static bool take_port(struct slice text, uint16_t *out)
{
    uint64_t value;
    if (!slice_u64(text, 65535, &value))
        return false;
    *out = (uint16_t)value;
    return true;
}

/* A value that is available. */
static bool take_value(int which, struct slice text, struct xclient *out)
{
    switch ((enum xclient_attribute)which) {
    case XCLIENT_ADDR:
        return take_addr(text, &out->addr);
    case XCLIENT_DESTADDR:
        return take_addr(text, &out->destaddr);
    case XCLIENT_PORT:
        return take_port(text, &out->port);
    case XCLIENT_DESTPORT:
        return take_port(text, &out->destport);
    case XCLIENT_PROTO:
        out->is_esmtp = slice_eq_nocase(text, SLICE("ESMTP"));
        return out->is_esmtp || slice_eq_nocase(text, SLICE("SMTP"));
    case XCLIENT_NAME:
    case XCLIENT_HELO:
        return smtp_helo_is_valid(text);
    case XCLIENT_LOGIN:
    case XCLIENT_COUNT:
        break;
    }
    return true;
}

static bool is_unavailable(struct slice text)
{
    return slice_eq_nocase(text, SLICE("[UNAVAILABLE]")) ||
           slice_eq_nocase(text, SLICE("[TEMPUNAVAIL]"));
}

/* One "NAME=xtext". */
static bool take_attribute(struct slice word, struct xclient *out)
{
    size_t equals = slice_find(word, '=');
    int which = 0;
    while (
        which < XCLIENT_COUNT && !slice_eq_nocase(slice_head(word, equals), NAMES[which]))
        which++;
    if (which == XCLIENT_COUNT || equals == word.len || out->given[which])
        return false;
    out->given[which] = true;
    struct slice value = slice_from(word, equals + 1);
    if (is_unavailable(value))
        return true;
    char *room = out->store + which * XCLIENT_VALUE_MAX;
    size_t len;
    if (!xtext_decode(value, room, XCLIENT_VALUE_MAX, &len) || len == 0)
        return false;
    struct slice text = slice_make(room, len);
    if (!is_printable(text) || !take_value(which, text, out))
        return false;
    out->text[which] = text;
    return true;
}

static void clear(struct xclient *out)
{
    memset(out, 0, offsetof(struct xclient, store));
    for (int i = 0; i < XCLIENT_COUNT; i++)
        out->text[i] = SLICE("");
}

enum parse xclient_parse(struct slice in, struct xclient *out)
{
    clear(out);
    unsigned count = 0;
    for (struct slice rest = slice_trim(in); rest.len > 0;
         rest = slice_trim(rest), count++) {
        struct slice word = slice_head(rest, slice_find(rest, ' '));
        if (!take_attribute(word, out))
            return PARSE_BAD;
        rest = slice_from(rest, word.len);
    }
    return count > 0 ? PARSE_DONE : PARSE_BAD;
}
