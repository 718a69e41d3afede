/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/smtp_path.h"

#include <idn2.h>
#include <stdlib.h>

#include "base/netaddr.h"
#include "proto/utf8.h"

/* RFC 1035 2.3.4, without the root's empty label. */
#define DOMAIN_ASCII_MAX 253
#define LABEL_MAX 63

/* RFC 5322 3.2.3 atext, plus what RFC 6531 3.3 adds. */
static bool is_atext(char c)
{
    return ascii_is_alnum(c) || (unsigned char)c > 127 ||
           (c != '\0' && strchr("!#$%&'*+-/=?^_`{|}~", c) != NULL);
}

/* Length of the Dot-string at the start of `in`; 0: none, or dots out of place. */
static size_t dot_string_len(struct slice in)
{
    size_t at = 0;
    bool after_dot = true;
    for (; at < in.len; at++) {
        if (in.ptr[at] == '.' ? after_dot : !is_atext(in.ptr[at]))
            break;
        after_dot = in.ptr[at] == '.';
    }
    return after_dot ? 0 : at;
}

/* Length of the Quoted-string with its quotes; 0: none, or a character that may not be in
 * one. Blanks may; tabs, CR, LF, NUL and all other controls may not. */
static size_t quoted_string_len(struct slice in)
{
    for (size_t at = 1; at < in.len; at++) {
        char c = in.ptr[at];
        if (c == '"')
            return at + 1;
        if (c == '\\' && ++at == in.len)
            return 0;
        unsigned char octet = (unsigned char)in.ptr[at];
        if (octet < ' ' || octet == 127 || (c == '\\' && octet > 127))
            return 0;
    }
    return 0;
}

static size_t local_part_len(struct slice in)
{
    if (in.len == 0)
        return 0;
    return in.ptr[0] == '"' ? quoted_string_len(in) : dot_string_len(in);
}

static bool is_domain_octet(char c)
{
    return ascii_is_alnum(c) || c == '-' || c == '.' || c == '_' ||
           (unsigned char)c > 127;
}

/* Length of the domain or bracketed literal at the start of `in`; it is checked later. */
static size_t domain_len(struct slice in)
{
    if (in.len > 0 && in.ptr[0] == '[') {
        size_t end = slice_find(in, ']');
        return end < in.len ? end + 1 : 0;
    }
    size_t at = 0;
    while (at < in.len && is_domain_octet(in.ptr[at]))
        at++;
    return at;
}

/* Labels of 1..63 letters, digits, "-" inside, and "_". */
static bool is_ascii_domain(struct slice d)
{
    if (d.len == 0 || d.len > DOMAIN_ASCII_MAX)
        return false;
    size_t label = 0;
    for (size_t i = 0; i <= d.len; i++) {
        if (i == d.len || d.ptr[i] == '.') {
            if (label == 0 || label > LABEL_MAX || d.ptr[i - 1] == '-')
                return false;
            label = 0;
            continue;
        }
        bool is_hyphen = d.ptr[i] == '-';
        if (!ascii_is_alnum(d.ptr[i]) && d.ptr[i] != '_' && (!is_hyphen || label == 0))
            return false;
        label++;
    }
    return true;
}

static void copy_lower(char *out, struct slice in)
{
    for (size_t i = 0; i < in.len; i++)
        out[i] = ascii_lower(in.ptr[i]);
    out[in.len] = '\0';
}

/* U-labels by IDNA2008 with the mapping of UTS 46, as browsers do it. */
static bool idn_to_ascii(struct slice domain, char out[SMTP_DOMAIN_MAX + 1])
{
    char text[SMTP_DOMAIN_MAX + 1];
    if (domain.len > SMTP_DOMAIN_MAX || !utf8_is_valid(domain))
        return false;
    memcpy(text, domain.ptr, domain.len);
    text[domain.len] = '\0';
    char *ascii = NULL;
    if (idn2_to_ascii_8z(text, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) != IDN2_OK)
        return false;
    struct slice result = slice_str(ascii);
    bool ok = is_ascii_domain(result);
    if (ok)
        copy_lower(out, result);
    idn2_free(ascii);
    return ok;
}

bool smtp_domain_to_ascii(struct slice domain, char out[SMTP_DOMAIN_MAX + 1])
{
    if (memchr(domain.ptr, '\0', domain.len))
        return false;
    if (!utf8_is_ascii(domain))
        return idn_to_ascii(domain, out);
    if (!is_ascii_domain(domain))
        return false;
    copy_lower(out, domain);
    return true;
}

size_t smtp_domain_to_unicode(struct slice ascii, char *out, size_t out_size)
{
    char text[SMTP_DOMAIN_MAX + 1];
    struct slice result = ascii;
    char *unicode = NULL;
    if (ascii.len <= SMTP_DOMAIN_MAX) {
        memcpy(text, ascii.ptr, ascii.len);
        text[ascii.len] = '\0';
        if (idn2_to_unicode_8z8z(text, &unicode, 0) == IDN2_OK)
            result = slice_str(unicode);
    }
    if (result.len >= out_size)
        result = slice_head(ascii, out_size - 1);
    memcpy(out, result.ptr, result.len);
    out[result.len] = '\0';
    idn2_free(unicode);
    return result.len;
}

/* Fills domain, routing and is_literal from a domain already in out->store. */
static bool route(struct smtp_path *out, char *routing)
{
    out->is_literal = out->domain.ptr[0] == '[';
    if (!out->is_literal) {
        if (!smtp_domain_to_ascii(out->domain, routing))
            return false;
        out->routing = slice_str(routing);
        return true;
    }
    struct ipaddr ip;
    char text[NETADDR_TEXT_MAX];
    if (!ipaddr_parse_literal(out->domain, &ip))
        return false;
    ipaddr_format_literal(ip, text);
    size_t len = strlen(text);
    memcpy(routing, text, len + 1);
    out->routing = slice_make(routing, len);
    return true;
}

/* "local@domain" out of its two parts. */
static bool assemble(struct slice local, struct slice domain, struct smtp_path *out)
{
    if (local.len == 0 || local.len > SMTP_LOCAL_MAX || domain.len == 0 ||
        domain.len > SMTP_DOMAIN_MAX)
        return false;
    char *at = out->store;
    memcpy(at, local.ptr, local.len);
    at[local.len] = '@';
    if (domain.ptr[0] == '[') {
        memcpy(
            at + local.len + 1, domain.ptr, domain.len); /* some want "IPv6:" as it is */
        at[local.len + 1 + domain.len] = '\0';
    } else {
        copy_lower(at + local.len + 1, domain);
    }
    out->address = slice_make(at, local.len + 1 + domain.len);
    out->local = slice_head(out->address, local.len);
    out->domain = slice_from(out->address, local.len + 1);
    out->is_utf8 = !utf8_is_ascii(out->address);
    return (!out->is_utf8 || utf8_is_valid(out->address)) &&
           route(out, at + out->address.len + 1);
}

/* "user@domain" at the start of `in`; its length, 0 when it is none. */
static size_t mailbox(struct slice in, struct smtp_path *out)
{
    size_t local = local_part_len(in);
    if (local == 0 || local >= in.len || in.ptr[local] != '@')
        return 0;
    struct slice rest = slice_from(in, local + 1);
    size_t domain = domain_len(rest);
    if (domain == 0 || !assemble(slice_head(in, local), slice_head(rest, domain), out))
        return 0;
    return local + 1 + domain;
}

/* "@a.example,@b.example:" at the start of `in`: its length, 0: bad. RFC 5321 appendix C:
 * to be accepted and ignored. */
static size_t source_route_len(struct slice in)
{
    char ignored[SMTP_DOMAIN_MAX + 1];
    size_t at = 0;
    while (at < in.len && in.ptr[at] == '@') {
        struct slice rest = slice_from(in, at + 1);
        size_t domain = domain_len(rest);
        if (domain == 0 || !smtp_domain_to_ascii(slice_head(rest, domain), ignored))
            return 0;
        at += 1 + domain;
        if (at < in.len && in.ptr[at] == ':')
            return at + 1;
        if (at >= in.len || in.ptr[at++] != ',')
            return 0;
    }
    return 0;
}

/* The two paths without "@"; the length of the whole, 0 when it is neither. */
static size_t special_path(
    struct slice in, enum smtp_path_kind kind, struct smtp_path *out)
{
    static const struct slice postmaster = SLICE_INIT("<postmaster>");
    if (kind == SMTP_REVERSE_PATH)
        return slice_starts(in, SLICE("<>")) ? 2 : 0;
    if (!slice_starts_nocase(in, postmaster))
        return 0;
    memcpy(out->store, "postmaster", sizeof "postmaster");
    out->address = out->local = slice_str(out->store);
    return postmaster.len;
}

static void clear(struct smtp_path *out)
{
    out->address = out->local = out->domain = out->routing = SLICE("");
    out->is_utf8 = out->is_literal = false;
}

enum parse smtp_path_parse(
    struct slice in, enum smtp_path_kind kind, struct smtp_path *out, size_t *used_out)
{
    clear(out);
    *used_out = special_path(in, kind, out);
    if (*used_out > 0)
        return PARSE_DONE;
    if (in.len < 2 || in.ptr[0] != '<')
        return PARSE_BAD;
    size_t at = 1;
    if (in.ptr[1] == '@') {
        size_t skipped = source_route_len(slice_from(in, 1));
        if (skipped == 0)
            return PARSE_BAD;
        at += skipped;
    }
    size_t len = mailbox(slice_from(in, at), out);
    if (len == 0 || at + len >= in.len || in.ptr[at + len] != '>')
        return PARSE_BAD;
    *used_out = at + len + 1;
    return PARSE_DONE;
}

enum parse smtp_address_parse(struct slice in, struct smtp_path *out)
{
    clear(out);
    return in.len > 0 && mailbox(in, out) == in.len ? PARSE_DONE : PARSE_BAD;
}

bool smtp_helo_is_valid(struct slice helo)
{
    if (helo.len == 0 || helo.len > SMTP_DOMAIN_MAX || !utf8_is_valid(helo))
        return false;
    struct ipaddr ip;
    if (helo.ptr[0] == '[')
        return ipaddr_parse_literal(helo, &ip);
    for (size_t i = 0; i < helo.len; i++) {
        if (!is_domain_octet(helo.ptr[i]) && helo.ptr[i] != ':')
            return false;
    }
    return true;
}
