/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/esmtp_params.h"

#include <stdio.h>

#include "proto/smtp_path.h"
#include "proto/utf8.h"

/* --- xtext --- */

/* RFC 3461 4 has upper case only; lower case means nothing else. */
static int hex_value(char c)
{
    if (ascii_is_digit(c))
        return c - '0';
    c = ascii_upper(c);
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool is_xchar(char c)
{
    return c >= '!' && c <= '~' && c != '+' && c != '=';
}

bool xtext_decode(struct slice in, char *out, size_t max, size_t *len_out)
{
    size_t len = 0;
    for (size_t at = 0; at < in.len; at++) {
        char c = in.ptr[at];
        if (c == '+') {
            int high = at + 2 < in.len ? hex_value(in.ptr[at + 1]) : -1;
            int low = high >= 0 ? hex_value(in.ptr[at + 2]) : -1;
            if (low < 0)
                return false;
            c = (char)(high << 4 | low);
            at += 2;
        } else if (!is_xchar(c)) {
            return false;
        }
        if (len == max)
            return false;
        out[len++] = c;
    }
    *len_out = len;
    return true;
}

static bool append_hex(struct buf *out, char c)
{
    static const char digits[] = "0123456789ABCDEF";
    unsigned char octet = (unsigned char)c;
    char text[3] = {'+', digits[octet >> 4], digits[octet & 15]};
    return buf_append(out, slice_make(text, sizeof text));
}

bool xtext_append(struct buf *out, struct slice in)
{
    bool ok = true;
    for (size_t i = 0; i < in.len && ok; i++)
        ok = is_xchar(in.ptr[i]) ? buf_append_char(out, in.ptr[i])
                                 : append_hex(out, in.ptr[i]);
    return ok;
}

/* --- values --- */

/* Printable ASCII (RFC 3461 4.4), blanks too. */
static bool is_printable(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < ' ' || s.ptr[i] > '~')
            return false;
    }
    return true;
}

/* UTF-8 without control characters. */
static bool is_text(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        if (c < ' ' || c == 127)
            return false;
    }
    return utf8_is_valid(s);
}

/* xtext into `room`, which has `max` octets; empty is bad. */
static bool take_xtext(struct slice in, char *room, size_t max, struct slice *out)
{
    size_t len;
    if (!xtext_decode(in, room, max, &len) || len == 0)
        return false;
    *out = slice_make(room, len);
    return true;
}

static bool take_size(struct slice value, struct esmtp_mail *out)
{
    /* RFC 1870 3: up to 20 digits. What does not fit 64 bits is larger than any limit. */
    if (value.len == 0 || value.len > 20)
        return false;
    for (size_t i = 0; i < value.len; i++) {
        if (!ascii_is_digit(value.ptr[i]))
            return false;
    }
    if (!slice_u64(value, UINT64_MAX, &out->size))
        out->size = UINT64_MAX;
    return true;
}

static enum esmtp_fault take_body(struct slice value, struct esmtp_mail *out)
{
    out->has_body = true;
    if (slice_eq_nocase(value, SLICE("8BITMIME")))
        out->body = ESMTP_BODY_8BITMIME;
    else if (slice_eq_nocase(value, SLICE("BINARYMIME")))
        return ESMTP_FAULT_UNSUPPORTED;
    else if (!slice_eq_nocase(value, SLICE("7BIT")))
        return ESMTP_FAULT_SYNTAX;
    return ESMTP_FAULT_NONE;
}

static bool take_ret(struct slice value, struct esmtp_mail *out)
{
    if (slice_eq_nocase(value, SLICE("FULL")))
        out->ret = ESMTP_RET_FULL;
    else if (slice_eq_nocase(value, SLICE("HDRS")))
        out->ret = ESMTP_RET_HDRS;
    return out->ret != ESMTP_RET_UNSET;
}

/* "<>" or an xtext mailbox (RFC 4954 5). What is no mailbox (a bare user name, from old
 * clients) says nothing that we could pass on: it counts as <>. */
static bool take_auth(struct slice value, struct esmtp_mail *out)
{
    out->has_auth = true;
    if (slice_eq(value, SLICE("<>")))
        return true;
    struct smtp_path mailbox;
    if (!take_xtext(value, out->store + ESMTP_ENVID_MAX, ESMTP_AUTH_MAX, &out->auth) ||
        !is_text(out->auth))
        return false;
    if (smtp_address_parse(out->auth, &mailbox) != PARSE_DONE)
        out->auth = SLICE("");
    return true;
}

static bool take_notify_word(struct slice word, uint8_t *notify)
{
    static const struct {
        struct slice word;
        uint8_t bit;
    } words[] = {{SLICE_INIT("NEVER"), ESMTP_NOTIFY_NEVER},
        {SLICE_INIT("SUCCESS"), ESMTP_NOTIFY_SUCCESS},
        {SLICE_INIT("FAILURE"), ESMTP_NOTIFY_FAILURE},
        {SLICE_INIT("DELAY"), ESMTP_NOTIFY_DELAY}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (slice_eq_nocase(word, words[i].word)) {
            *notify |= words[i].bit;
            return true;
        }
    }
    return false;
}

/* NEVER stands alone (RFC 3461 4.1). */
static bool take_notify(struct slice value, struct esmtp_rcpt *out)
{
    size_t at = 0;
    do {
        struct slice rest = slice_from(value, at);
        struct slice word = slice_head(rest, slice_find(rest, ','));
        if (!take_notify_word(word, &out->notify))
            return false;
        at += word.len + 1;
    } while (at <= value.len);
    return !(out->notify & ESMTP_NOTIFY_NEVER) || out->notify == ESMTP_NOTIFY_NEVER;
}

/* One "\x{HEX}" of utf-8-addr-xtext (RFC 6533 3) at the start of `in` as UTF-8; its
 * length, 0: none. */
static size_t embedded_char(struct slice in, char utf8[4], size_t *utf8_len)
{
    size_t close = slice_find(in, '}');
    if (!slice_starts(in, SLICE("\\x{")) || close == in.len || close < 5 || close > 9)
        return 0;
    uint32_t code = 0;
    for (size_t i = 3; i < close; i++) {
        int v = hex_value(in.ptr[i]);
        if (v < 0)
            return 0;
        code = code << 4 | (uint32_t)v;
    }
    size_t len = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = len; i-- > 0; code >>= 6)
        utf8[i] = (char)(i == 0 ? lead[len] | code : 0x80 | (code & 0x3f));
    *utf8_len = len;
    return utf8_next(slice_make(utf8, len), NULL) == len ? close + 1 : 0;
}

/* utf-8-address: UTF-8 as it is, and "\x{HEX}" for it. Shorter out than in. */
static bool take_utf8_address(struct slice in, char *room, size_t max, struct slice *out)
{
    size_t len = 0;
    for (size_t at = 0; at < in.len;) {
        char utf8[4] = {in.ptr[at]};
        size_t n = 1, used = 1;
        if (in.ptr[at] == '\\' &&
            (used = embedded_char(slice_from(in, at), utf8, &n)) == 0)
            return false;
        if (len + n > max || (unsigned char)in.ptr[at] <= ' ')
            return false;
        memcpy(room + len, utf8, n);
        len += n;
        at += used;
    }
    *out = slice_make(room, len);
    return len > 0;
}

static bool is_atom(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (!ascii_is_alnum(s.ptr[i]) && s.ptr[i] != '-')
            return false;
    }
    return s.len > 0;
}

/* addr-type ";" xtext (RFC 3461 4.2). */
static bool take_orcpt(struct slice value, struct esmtp_rcpt *out)
{
    size_t type = slice_find(value, ';');
    if (type == value.len || !is_atom(slice_head(value, type)) || type > 32)
        return false;
    struct slice rest = slice_from(value, type + 1), address;
    memcpy(out->store, value.ptr, type + 1);
    char *room = out->store + type + 1;
    size_t max = sizeof out->store - type - 1;
    bool is_utf8 = slice_eq_nocase(slice_head(value, type), SLICE("utf-8"));
    bool ok = is_utf8 ? take_utf8_address(rest, room, max, &address)
                      : take_xtext(rest, room, max, &address) && is_printable(address);
    if (!ok || !is_text(address))
        return false;
    out->orcpt = slice_make(out->store, type + 1 + address.len);
    return true;
}

static enum esmtp_fault fault_unless(bool ok)
{
    return ok ? ESMTP_FAULT_NONE : ESMTP_FAULT_SYNTAX;
}

/* --- the two lists --- */

struct parameter {
    struct slice keyword, value;
    bool has_value;
};

/* The next blank-separated word; false at the end. */
static bool next_parameter(struct slice *rest, struct parameter *out)
{
    *rest = slice_trim(*rest);
    if (rest->len == 0)
        return false;
    size_t end = 0;
    while (end < rest->len && rest->ptr[end] != ' ' && rest->ptr[end] != '\t')
        end++;
    struct slice word = slice_head(*rest, end);
    size_t equals = slice_find(word, '=');
    out->keyword = slice_head(word, equals);
    out->has_value = equals < word.len;
    out->value = slice_from(word, equals + 1);
    *rest = slice_from(*rest, end);
    return true;
}

enum { MAIL_SIZE, MAIL_BODY, MAIL_SMTPUTF8, MAIL_RET, MAIL_ENVID, MAIL_AUTH, MAIL_COUNT };
static const struct slice MAIL_KEYWORDS[MAIL_COUNT] = {SLICE_INIT("SIZE"),
    SLICE_INIT("BODY"), SLICE_INIT("SMTPUTF8"), SLICE_INIT("RET"), SLICE_INIT("ENVID"),
    SLICE_INIT("AUTH")};

enum { RCPT_NOTIFY, RCPT_ORCPT, RCPT_COUNT };
static const struct slice RCPT_KEYWORDS[RCPT_COUNT] = {
    SLICE_INIT("NOTIFY"), SLICE_INIT("ORCPT")};

/* Which keyword it is, `count` when none. */
static unsigned keyword_of(
    struct slice word, const struct slice *keywords, unsigned count)
{
    unsigned i = 0;
    while (i < count && !slice_eq_nocase(word, keywords[i]))
        i++;
    return i;
}

/* Known, and not given twice? */
static enum esmtp_fault check_keyword(unsigned which, unsigned count, unsigned *seen)
{
    if (which == count)
        return ESMTP_FAULT_UNKNOWN;
    if (*seen & 1u << which)
        return ESMTP_FAULT_REPEATED;
    *seen |= 1u << which;
    return ESMTP_FAULT_NONE;
}

static enum esmtp_fault take_mail(
    unsigned which, struct parameter p, struct esmtp_mail *out)
{
    if (p.has_value == (which == MAIL_SMTPUTF8))
        return ESMTP_FAULT_SYNTAX; /* that one alone has no value */
    switch (which) {
    case MAIL_SIZE:
        return fault_unless(take_size(p.value, out));
    case MAIL_BODY:
        return take_body(p.value, out);
    case MAIL_SMTPUTF8:
        out->smtputf8 = true;
        return ESMTP_FAULT_NONE;
    case MAIL_RET:
        return fault_unless(take_ret(p.value, out));
    case MAIL_ENVID:
        return fault_unless(
            take_xtext(p.value, out->store, ESMTP_ENVID_MAX, &out->envid) &&
            is_printable(out->envid));
    default:
        return fault_unless(take_auth(p.value, out));
    }
}

static enum parse bad(enum esmtp_fault fault, struct slice keyword,
    enum esmtp_fault *fault_out, struct slice *culprit_out)
{
    *fault_out = fault;
    if (culprit_out)
        *culprit_out = keyword;
    return PARSE_BAD;
}

enum parse esmtp_mail_parse(struct slice in, struct esmtp_mail *out,
    enum esmtp_fault *fault_out, struct slice *culprit_out)
{
    out->size = 0;
    out->body = ESMTP_BODY_7BIT;
    out->has_body = out->smtputf8 = out->has_auth = false;
    out->ret = ESMTP_RET_UNSET;
    out->envid = out->auth = SLICE("");
    *fault_out = ESMTP_FAULT_NONE;
    unsigned seen = 0;
    struct parameter p;
    while (next_parameter(&in, &p)) {
        unsigned which = keyword_of(p.keyword, MAIL_KEYWORDS, MAIL_COUNT);
        enum esmtp_fault fault = check_keyword(which, MAIL_COUNT, &seen);
        if (fault == ESMTP_FAULT_NONE)
            fault = take_mail(which, p, out);
        if (fault != ESMTP_FAULT_NONE)
            return bad(fault, p.keyword, fault_out, culprit_out);
    }
    return PARSE_DONE;
}

enum parse esmtp_rcpt_parse(struct slice in, struct esmtp_rcpt *out,
    enum esmtp_fault *fault_out, struct slice *culprit_out)
{
    out->notify = 0;
    out->orcpt = SLICE("");
    *fault_out = ESMTP_FAULT_NONE;
    unsigned seen = 0;
    struct parameter p;
    while (next_parameter(&in, &p)) {
        unsigned which = keyword_of(p.keyword, RCPT_KEYWORDS, RCPT_COUNT);
        enum esmtp_fault fault = check_keyword(which, RCPT_COUNT, &seen);
        if (fault == ESMTP_FAULT_NONE)
            fault = fault_unless(which == RCPT_NOTIFY ? take_notify(p.value, out)
                                                      : take_orcpt(p.value, out));
        if (fault != ESMTP_FAULT_NONE)
            return bad(fault, p.keyword, fault_out, culprit_out);
    }
    return PARSE_DONE;
}

/* --- writing --- */

/* "\x{HEX}" for what is not ASCII, "+", "=" or "\" (RFC 6533 3). */
static bool append_utf8_xtext(struct buf *out, struct slice in)
{
    bool ok = true;
    while (in.len > 0 && ok) {
        uint32_t code;
        size_t len = utf8_next(in, &code);
        if (len == 0)
            return false;
        char c = in.ptr[0];
        bool is_plain = len == 1 && is_xchar(c) && c != '\\';
        ok = is_plain ? buf_append_char(out, c)
                      : buf_printf(out, code < 16 ? "\\x{0%X}" : "\\x{%X}", code);
        in = slice_from(in, len);
    }
    return ok;
}

/* utf-8-addr-unitext: only what would end the parameter is written as "\x{HEX}". */
static bool append_unitext(struct buf *out, struct slice in)
{
    bool ok = true;
    for (size_t i = 0; i < in.len && ok; i++) {
        char c = in.ptr[i];
        bool is_plain = (unsigned char)c > 127 || (is_xchar(c) && c != '\\');
        ok = is_plain ? buf_append_char(out, c)
                      : buf_printf(out, "\\x{%02X}", (unsigned)c);
    }
    return ok;
}

bool esmtp_orcpt_append(struct buf *out, struct slice orcpt, bool peer_has_smtputf8)
{
    size_t type = slice_find(orcpt, ';');
    struct slice address = slice_from(orcpt, type + 1);
    if (!buf_append(out, slice_head(orcpt, type)) || !buf_append_char(out, ';'))
        return false;
    if (!slice_eq_nocase(slice_head(orcpt, type), SLICE("utf-8")))
        return xtext_append(out, address);
    return peer_has_smtputf8 ? append_unitext(out, address)
                             : append_utf8_xtext(out, address);
}

bool esmtp_notify_append(struct buf *out, uint8_t notify)
{
    static const struct slice words[] = {SLICE_INIT("NEVER"), SLICE_INIT("SUCCESS"),
        SLICE_INIT("FAILURE"), SLICE_INIT("DELAY")};
    bool ok = true, is_first = true;
    for (unsigned i = 0; i < 4 && ok; i++) {
        if (!(notify & 1u << i))
            continue;
        ok = (is_first || buf_append_char(out, ',')) && buf_append(out, words[i]);
        is_first = false;
    }
    return ok;
}
