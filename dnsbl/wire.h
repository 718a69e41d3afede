/* SPDX-License-Identifier: Apache-2.0 */
/* DNS messages as bytes (RFC 1035 4), into values. Pure: no clock, no socket. The bytes
 * come from strangers: names are decompressed with every pointer going strictly backwards
 * and at most 255 bytes, a record whose rdata does not fit its type is left out and
 * counted, nothing is read behind the end. */
#ifndef DNSBL_WIRE_H
#define DNSBL_WIRE_H

#include "dnsbl/resolver.h"

/* 255 bytes on the wire, each at worst as "\ddd", and a NUL. */
#define DNS_NAME_TEXT_MAX 1024

/* A name a question may be asked about: dotted labels of letters, digits, '-', '_' and
 * '/' (RFC 2317), 1-63 bytes each, 253 together; one dot at the end is dropped, case is
 * folded.
 * "." (the root) becomes "". `out` is set only on success. */
bool dns_name_check(struct slice text, char out[256]);
/* The same for a name that is to be a mail host (an MX target): no '/', not the root. */
bool dns_host_check(const char *name);
/* "4.3.2.1.in-addr.arpa", "...ip6.arpa" */
void dns_reverse_name(struct ipaddr ip, char out[256]);

/* Reads the name at *at: lower case, no trailing dot, the root is "". Bytes that are not
 * letters, digits, '-', '_', '/' or '*' are written "\ddd". Moves *at behind it. */
bool dns_wire_name(struct slice packet, size_t *at, char out[DNS_NAME_TEXT_MAX]);

/* The answer to (name, type): result, canonical, ttl and records, all in `arena`. `name`
 * is as dns_name_check made it. CNAMEs are followed, at most 16. ERR_OK with count 0 is
 * NODATA. A message that cannot be read, or whose records are all malformed, is
 * ERR_DNS_SERVFAIL with `why` said. security stays as it is. */
void dns_wire_answer(struct slice packet, const char *name, enum dns_type type,
    struct arena *arena, struct dns_answer *out);

#endif
