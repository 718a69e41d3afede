/* SPDX-License-Identifier: Apache-2.0 */
#include "node/mail/convert8.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "node/mail/encode.h"
#include "node/mail/mime.h"

struct job {
    struct body *out;
    const char *why; /* set: refused */
    unsigned parts;
};

static bool refuse(struct job *j, const char *why)
{
    if (!j->why)
        j->why = why;
    return false;
}

/* `root`: a whole message, not a part of a multipart. */
static bool convert_entity(struct job *j, struct slice entity, bool root, unsigned depth);

/* --- headers --- */

/* The header as it is, but for the transfer encoding, which becomes `encoding` (NULL:
 * stays as it is). In a whole message MIME-Version is seen to, and a body of unknown kind
 * is named as RFC 1428 says. */
static void write_header(
    struct job *j, const struct mime_entity *e, const char *encoding, bool root)
{
    struct slice rest = e->header;
    struct mime_field f;
    bool has_version = false, has_type = false;
    while (mime_next_field(&rest, &f)) {
        has_version |= slice_eq_nocase(f.name, SLICE("MIME-Version"));
        has_type |= slice_eq_nocase(f.name, SLICE("Content-Type"));
        if (!encoding || !slice_eq_nocase(f.name, SLICE("Content-Transfer-Encoding")))
            body_append(j->out, f.whole);
    }
    if (encoding && root && !has_version)
        body_append(j->out, SLICE("MIME-Version: 1.0\r\n"));
    if (encoding && root && !has_type)
        body_append(j->out, SLICE("Content-Type: text/plain; charset=unknown-8bit\r\n"));
    if (encoding) {
        body_append(j->out, SLICE("Content-Transfer-Encoding: "));
        body_append(j->out, slice_str(encoding));
        body_append(j->out, SLICE("\r\n"));
    }
    body_append(j->out, e->separator);
}

/* --- bodies --- */

/* What names 8 bits but has none. Without a body there is nothing to name, and no line to
 * put a field behind. */
static const char *honest_encoding(const struct mime_entity *e)
{
    bool lying = e->encoding == MIME_8BIT || e->encoding == MIME_BINARY;
    return lying && e->separator.len ? "7bit" : NULL;
}

static bool convert_leaf(struct job *j, const struct mime_entity *e, bool root)
{
    bool eight = has_8bit(e->body);
    if (!eight) {
        write_header(j, e, honest_encoding(e), root);
        body_append(j->out, e->body);
        return true;
    }
    if (e->encoding == MIME_CODED)
        return refuse(j, "8-bit octets in a part that says it is encoded");
    bool text = e->type.len == 0 || slice_starts_nocase(e->type, SLICE("text/"));
    write_header(j, e, text ? "quoted-printable" : "base64", root);
    if (text)
        encode_qp(j->out, e->body);
    else
        encode_base64(j->out, e->body);
    return true;
}

/* Preamble and epilogue are shown by nobody: what is not ASCII in there goes. */
static void write_seven(struct job *j, struct slice s)
{
    char seven[512];
    while (s.len) {
        size_t n = s.len < sizeof(seven) ? s.len : sizeof(seven);
        for (size_t i = 0; i < n; i++)
            seven[i] = (unsigned char)s.ptr[i] >= 0x80 ? '?' : s.ptr[i];
        body_append(j->out, slice_make(seven, n));
        s = slice_from(s, n);
    }
}

static bool convert_multipart(
    struct job *j, const struct mime_entity *e, bool root, unsigned depth)
{
    if (slice_eq_nocase(e->type, SLICE("multipart/signed")))
        return refuse(j, "a signature would break");
    if (e->encoding == MIME_CODED || e->boundary.len == 0)
        return refuse(j, "broken multipart");
    write_header(j, e, honest_encoding(e), root);
    struct slice rest = e->body;
    struct mime_delimiter d;
    bool found = mime_find_delimiter(rest, e->boundary, &d);
    write_seven(j, slice_head(rest, found ? d.start : rest.len));
    while (found && !d.is_close) {
        body_append(j->out, d.whole);
        rest = d.rest;
        found = mime_find_delimiter(rest, e->boundary, &d);
        if (!convert_entity(
                j, slice_head(rest, found ? d.start : rest.len), false, depth + 1))
            return false;
    }
    if (found) {
        body_append(j->out, d.whole);
        write_seven(j, d.rest);
    }
    return true;
}

static bool convert_message_part(
    struct job *j, const struct mime_entity *e, bool root, unsigned depth)
{
    bool rfc822 = slice_eq_nocase(e->type, SLICE("message/rfc822"));
    if (!has_8bit(e->body))
        return convert_leaf(j, e, root);
    if (!rfc822 || e->encoding == MIME_CODED)
        return refuse(j, "a message part that may not be encoded");
    write_header(j, e, "7bit", root);
    return convert_entity(j, e->body, true, depth + 1);
}

static bool convert_entity(struct job *j, struct slice entity, bool root, unsigned depth)
{
    struct mime_entity e;
    if (depth > CONVERT8_DEPTH_MAX || ++j->parts > CONVERT8_PARTS_MAX)
        return refuse(j, "too many parts, or nested too deep");
    if (!has_8bit(entity) && depth > 0) {
        body_append(j->out, entity);
        return true;
    }
    if (!mime_split(entity, &e))
        return refuse(j, "broken MIME header");
    if (has_8bit(e.header))
        return refuse(j, "octets above 127 in a header");
    /* Signatures inside an attached message are looked at by nobody on the way. */
    if (e.is_signed && depth == 0)
        return refuse(j, "a DKIM signature would break");
    if (slice_starts_nocase(e.type, SLICE("multipart/")))
        return convert_multipart(j, &e, root, depth);
    if (slice_starts_nocase(e.type, SLICE("message/")))
        return convert_message_part(j, &e, root, depth);
    return convert_leaf(j, &e, root);
}

static char *flatten(const struct body *b)
{
    char *flat = mem_alloc((size_t)body_size(b) + 1);
    size_t at = 0;
    for (const struct body_chunk *c = body_chunks(b); c; c = c->next) {
        memcpy(flat + at, c->bytes, c->len);
        at += c->len;
    }
    return flat;
}

enum convert8 convert8_message(
    const struct body *in, struct body **out_out, const char **why_out)
{
    struct job j = {0};
    *out_out = NULL;
    *why_out = NULL;
    char *flat = flatten(in);
    struct slice message = slice_make(flat, (size_t)body_size(in));
    enum convert8 result = CONVERT8_NOTHING;
    if (has_8bit(message)) {
        j.out = body_new();
        result = convert_entity(&j, message, true, 0) ? CONVERT8_DONE : CONVERT8_REFUSED;
    }
    free(flat);
    *why_out = j.why;
    if (result == CONVERT8_DONE)
        *out_out = j.out;
    else
        body_unref(j.out);
    return result;
}
