/* SPDX-License-Identifier: Apache-2.0 */
#include "node/mail/mime.h"

#define BOUNDARY_MAX 70

/* Length of the line at the start, with its line end. */
static size_t line_len(struct slice text)
{
    size_t lf = slice_find(text, '\n');
    return lf < text.len ? lf + 1 : lf;
}

static bool is_empty_line(struct slice line)
{
    return slice_eq(line, SLICE("\r\n")) || slice_eq(line, SLICE("\n"));
}

bool mime_next_field(struct slice *rest, struct mime_field *out)
{
    if (rest->len == 0)
        return false;
    size_t end = line_len(*rest);
    while (end < rest->len && (rest->ptr[end] == ' ' || rest->ptr[end] == '\t'))
        end += line_len(slice_from(*rest, end));
    out->whole = slice_head(*rest, end);
    size_t colon = slice_find(out->whole, ':');
    bool named = colon < out->whole.len;
    out->name = named ? slice_trim(slice_head(out->whole, colon)) : SLICE("");
    out->value = named ? slice_from(out->whole, colon + 1) : SLICE("");
    *rest = slice_from(*rest, end);
    return true;
}

static void split_sections(struct slice text, struct mime_entity *e)
{
    size_t at = 0;
    while (at < text.len) {
        struct slice line =
            slice_head(slice_from(text, at), line_len(slice_from(text, at)));
        if (is_empty_line(line)) {
            e->header = slice_head(text, at);
            e->separator = line;
            e->body = slice_from(text, at + line.len);
            return;
        }
        at += line.len;
    }
    e->header = text;
    e->body = slice_from(text, text.len);
}

/* Blanks, line ends and comments in front. */
static struct slice skip_cfws(struct slice s)
{
    unsigned depth = 0;
    while (s.len) {
        char c = s.ptr[0];
        if (depth && c == '\\' && s.len > 1)
            s = slice_from(s, 1);
        else if (c == '(')
            depth++;
        else if (c == ')' && depth)
            depth--;
        else if (!depth && c != ' ' && c != '\t' && c != '\r' && c != '\n')
            break;
        s = slice_from(s, 1);
    }
    return s;
}

/* RFC 2045 5.1: a token; the rest moves behind it. */
static struct slice token(struct slice *s)
{
    size_t n = 0;
    while (n < s->len && (unsigned char)s->ptr[n] > 32 &&
           (unsigned char)s->ptr[n] < 127 && !memchr("()<>@,;:\\\"[]?=", s->ptr[n], 14))
        n++;
    struct slice t = slice_head(*s, n);
    /* "multipart/mixed" is two tokens and the slash between. */
    *s = slice_from(*s, n);
    return t;
}

/* A token or a quoted string; a quoted one with escapes is not used by anybody for a
 * boundary and would need a copy: not usable. */
static bool value_of(struct slice *s, struct slice *out)
{
    if (s->len == 0 || s->ptr[0] != '"') {
        *out = token(s);
        return out->len > 0;
    }
    *s = slice_from(*s, 1);
    size_t end = slice_find(*s, '"');
    *out = slice_head(*s, end);
    bool good = end < s->len && slice_find(*out, '\\') == out->len &&
                slice_find(*out, '\n') == out->len;
    *s = slice_from(*s, end + 1);
    return good;
}

static bool take_parameters(struct slice s, struct mime_entity *e)
{
    bool multipart = slice_starts_nocase(e->type, SLICE("multipart/"));
    for (s = skip_cfws(s); s.len && s.ptr[0] == ';'; s = skip_cfws(s)) {
        s = skip_cfws(slice_from(s, 1));
        struct slice name = token(&s);
        s = skip_cfws(s);
        if (name.len == 0 || s.len == 0 || s.ptr[0] != '=')
            return !multipart;
        s = skip_cfws(slice_from(s, 1));
        struct slice value;
        bool good = value_of(&s, &value);
        if (!slice_eq_nocase(name, SLICE("boundary")))
            continue;
        if (!good || e->boundary.len || value.len == 0 || value.len > BOUNDARY_MAX)
            return !multipart;
        e->boundary = value;
    }
    return s.len == 0 || !multipart;
}

static bool take_type(struct slice value, struct mime_entity *e)
{
    if (e->type.len)
        return false;
    struct slice s = skip_cfws(value);
    e->type = slice_head(s, 0);
    struct slice start = s;
    struct slice type = token(&s);
    if (!type.len || memchr(type.ptr, '/', type.len) == NULL)
        return false;
    e->type = slice_head(start, type.len);
    return take_parameters(s, e);
}

static bool take_encoding(struct slice value, struct mime_entity *e, bool *seen)
{
    struct slice s = skip_cfws(value);
    struct slice name = token(&s);
    if (*seen)
        return false;
    *seen = true;
    if (slice_eq_nocase(name, SLICE("7bit")))
        e->encoding = MIME_7BIT;
    else if (slice_eq_nocase(name, SLICE("8bit")))
        e->encoding = MIME_8BIT;
    else if (slice_eq_nocase(name, SLICE("binary")))
        e->encoding = MIME_BINARY;
    else
        e->encoding = MIME_CODED;
    return true;
}

bool mime_split(struct slice text, struct mime_entity *out)
{
    *out = (struct mime_entity){
        .type = SLICE(""), .boundary = SLICE(""), .separator = SLICE("")};
    split_sections(text, out);
    struct slice rest = out->header;
    struct mime_field f;
    bool encoding_seen = false;
    while (mime_next_field(&rest, &f)) {
        bool good = true;
        if (slice_eq_nocase(f.name, SLICE("Content-Type")))
            good = take_type(f.value, out);
        else if (slice_eq_nocase(f.name, SLICE("Content-Transfer-Encoding")))
            good = take_encoding(f.value, out, &encoding_seen);
        else if (slice_eq_nocase(f.name, SLICE("DKIM-Signature")))
            out->is_signed = true;
        if (!good)
            return false;
    }
    return true;
}

/* Is there a delimiter at the start of this line? *close tells which. */
static bool is_delimiter(struct slice line, struct slice boundary, bool *close)
{
    if (!slice_starts(line, SLICE("--")) || !slice_starts(slice_from(line, 2), boundary))
        return false;
    struct slice tail = slice_from(line, 2 + boundary.len);
    *close = slice_starts(tail, SLICE("--"));
    return slice_trim(slice_from(tail, *close ? 2 : 0)).len == 0;
}

bool mime_find_delimiter(
    struct slice text, struct slice boundary, struct mime_delimiter *out)
{
    for (size_t at = 0; at < text.len;) {
        size_t len = line_len(slice_from(text, at));
        struct slice line = slice_head(slice_from(text, at), len);
        if (is_delimiter(line, boundary, &out->is_close)) {
            /* The line end in front belongs to the delimiter. */
            size_t start = at;
            if (start && text.ptr[start - 1] == '\n')
                start--;
            if (start && start < at && text.ptr[start - 1] == '\r')
                start--;
            out->start = start;
            out->whole = slice_head(slice_from(text, start), at + len - start);
            out->rest = slice_from(text, at + len);
            return true;
        }
        at += len;
    }
    return false;
}
