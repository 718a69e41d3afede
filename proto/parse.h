/* SPDX-License-Identifier: Apache-2.0 */
/* What every parser of proto/ answers. On PARSE_BAD nothing was consumed and nothing in
 * the result may be used; PARSE_MORE means that all given so far is good and not yet the
 * whole. */
#ifndef PROTO_PARSE_H
#define PROTO_PARSE_H

enum parse { PARSE_MORE, PARSE_DONE, PARSE_BAD };

#endif
