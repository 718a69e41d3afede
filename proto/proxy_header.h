/* SPDX-License-Identifier: Apache-2.0 */
/* The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt): the header that
 * a load balancer puts before the first byte of a connection. A parser for a prefix: it
 * never looks past the header's own length, so that whatever follows stays the session's.
 */
#ifndef PROTO_PROXY_HEADER_H
#define PROTO_PROXY_HEADER_H

#include "base/netaddr.h"
#include "proto/parse.h"

/* Version 1 ends within 107 octets; version 2 is 16 octets and what they announce. TLVs
 * are skipped; an announced length beyond this is bad. */
#define PROXY_V1_MAX 107
#define PROXY_V2_MAX 4096

struct proxy_header {
    int version;
    /* The proxy speaks for itself (LOCAL: a health check) or did not know (UNKNOWN,
     * UNSPEC): there is no client address. */
    bool is_local;
    struct netaddr source;
    struct netaddr destination;
};

/* `in` is all that came so far. PARSE_DONE: *used_out octets were the header. PARSE_MORE:
 * not whole yet, call again with more of it. PARSE_BAD: not a PROXY header. */
enum parse proxy_header_parse(
    struct slice in, struct proxy_header *out, size_t *used_out);

#endif
