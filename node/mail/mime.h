/* SPDX-License-Identifier: Apache-2.0 */
/* Just enough of MIME (RFC 2045, 2046) to find the parts of a message: no decoding, no
 * copying. All slices are of the text that was given. Bounded by that text; never
 * recursive. */
#ifndef NODE_MAIL_MIME_H
#define NODE_MAIL_MIME_H

#include "base/slice.h"

enum mime_encoding {
    MIME_7BIT, /* also: none named */
    MIME_8BIT,
    MIME_BINARY,
    MIME_CODED, /* quoted-printable, base64, or one nobody knows */
};

struct mime_entity {
    struct slice header;    /* fields with their line ends, without the empty line */
    struct slice separator; /* the empty line; empty when there is none */
    struct slice body;
    struct slice type;     /* "text/plain"; empty: no Content-Type */
    struct slice boundary; /* of a multipart, unquoted; empty: none or not usable */
    enum mime_encoding encoding;
    bool is_signed; /* a DKIM-Signature stands in the header */
};
/* False when there are two Content-Types or two encodings, or a boundary that none can
 * be: who reads it differently sees different parts. */
bool mime_split(struct slice text, struct mime_entity *out);

struct mime_field {
    struct slice name;  /* without blanks and colon; empty: not a field */
    struct slice value; /* folded, untrimmed */
    struct slice whole; /* with the line end of its last line */
};
bool mime_next_field(struct slice *rest, struct mime_field *out);

struct mime_delimiter {
    size_t start; /* of the CRLF in front of it, or of "--" at the start of the text */
    struct slice whole; /* from there to the end of its line */
    struct slice rest;  /* behind it */
    bool is_close;
};
/* The first delimiter line of a multipart (RFC 2046 5.1.1). */
bool mime_find_delimiter(
    struct slice text, struct slice boundary, struct mime_delimiter *out);

#endif
