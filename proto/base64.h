/* SPDX-License-Identifier: Apache-2.0 */
/* Base64 (RFC 4648 4), strict: full groups, padding only at the end, zero bits behind the
 * last octet, no line breaks. One text has one decoding and one octet string one text, so
 * nothing can be smuggled in the slack. */
#ifndef PROTO_BASE64_H
#define PROTO_BASE64_H

#include "base/buf.h"

/* Octets that `len` characters decode to at most. */
#define BASE64_DECODED_MAX(len) ((len) / 4 * 3)
/* Characters that `len` octets take. */
#define BASE64_ENCODED_LEN(len) (((len) + 2) / 3 * 4)

/* Appends the decoded octets of all of `text` (empty is fine). False, and nothing
 * appended, on anything else than base64 or when it does not fit. */
bool base64_decode(struct buf *out, struct slice text);
/* Appends; false when it does not fit. */
bool base64_encode(struct buf *out, struct slice octets);

#endif
