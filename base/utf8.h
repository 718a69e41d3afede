/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 (RFC 3629) as it comes from strangers: decoding that never looks past the length,
 * and the question whether a code point may be shown to a person as it is. */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include "base/buf.h"

/* Length (1 to 4) of the code point at the start, and its value; 0 when the bytes are not
 * UTF-8 (overlong, surrogate, past U+10FFFF, cut) or the slice is empty. */
unsigned utf8_decode(struct slice s, uint32_t *code_out);
/* All of it is UTF-8. */
bool utf8_valid(struct slice s);
/* False for what moves the cursor, hides, or turns text around: C0 and C1 controls, line
 * and paragraph separators, bidirectional overrides, zero-width and other invisible
 * format characters, noncharacters. */
bool utf8_is_visible(uint32_t code);
/* For a terminal or a log: visible text as it is, other code points as \n \r \t \uHHHH or
 * \UHHHHHHHH, bytes that are no UTF-8 as \xHH, a backslash doubled. */
void utf8_escape(struct slice s, struct buf *out);
/* Columns on a terminal: wide East Asian characters and emoji count 2, combining marks 0.
 */
unsigned utf8_columns(struct slice s);

#endif
