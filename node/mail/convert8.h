/* SPDX-License-Identifier: Apache-2.0 */
/* From 8BITMIME to seven bits (RFC 6152 3, RFC 2045, 2046), for the setting `eight_bit:
 * convert` and a next hop without 8BITMIME. Leaf parts with octets above 127 become
 * quoted-printable (text) or base64 (all else) and their headers say so; what is 7-bit
 * already stays as it is, byte for byte. Refused, so that it bounces instead: what a
 * change would break or nobody can convert (signed mail, octets above 127 in a header,
 * broken MIME, nesting past a bound). Pure, needs memory of about twice the message: big
 * ones on a helper thread. */
#ifndef NODE_MAIL_CONVERT8_H
#define NODE_MAIL_CONVERT8_H

#include "base/err.h"
#include "queue/body.h"

/* Parts inside parts, and parts in all. */
#define CONVERT8_DEPTH_MAX 20
#define CONVERT8_PARTS_MAX 5000

enum convert8 {
    CONVERT8_DONE,    /* *out_out is the 7-bit message, one reference for the caller */
    CONVERT8_NOTHING, /* it is 7-bit already; *out_out is NULL */
    CONVERT8_REFUSED, /* ERR_NEEDS_8BITMIME; *why_out says why; *out_out is NULL */
};

enum convert8 convert8_message(
    const struct body *in, struct body **out_out, const char **why_out);

#endif
