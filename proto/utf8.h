/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 (RFC 3629): shortest form only, no surrogates, nothing over U+10FFFF. */
#ifndef PROTO_UTF8_H
#define PROTO_UTF8_H

#include "base/slice.h"

bool utf8_is_valid(struct slice s);
bool utf8_is_ascii(struct slice s);
/* The length of the character at the start of `s`, 1..4, its code point in *code_out (may
 * be NULL); 0 when it is not valid UTF-8 or `s` is empty. */
size_t utf8_next(struct slice s, uint32_t *code_out);

#endif
