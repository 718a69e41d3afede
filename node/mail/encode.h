/* SPDX-License-Identifier: Apache-2.0 */
/* The two content transfer encodings of MIME (RFC 2045 6.7, 6.8), for what must pass a
 * path of seven bits. Streaming into a body. Pure. */
#ifndef NODE_MAIL_ENCODE_H
#define NODE_MAIL_ENCODE_H

#include "queue/body.h"

/* Any octet above 127? */
bool has_8bit(struct slice s);
/* Quoted-printable: CRLF stays a line end, lines of at most 76 characters, blanks at the
 * end of a line and a bare CR or LF are encoded, and so are a "." that is alone on its
 * line and "From " at its start (old mail stores change them). */
void encode_qp(struct body *out, struct slice text);
/* Base64 in lines of 76 characters, the last one ended too. */
void encode_base64(struct body *out, struct slice octets);

#endif
