/* SPDX-License-Identifier: Apache-2.0 */
/* IP addresses, ports and networks. An IPv4-mapped IPv6 address is turned into IPv4 the
 * moment it comes in, so that no rule about 192.0.2.0/24 can be walked around as
 * ::ffff:192.0.2.1. */
#ifndef BASE_NETADDR_H
#define BASE_NETADDR_H

#include <sys/socket.h>

#include "base/slice.h"

struct ipaddr {
    uint8_t family; /* 4, 6, or 0: none */
    uint8_t bytes[16];
};
struct netaddr {
    struct ipaddr ip;
    uint16_t port;
};
struct cidr {
    struct ipaddr ip;
    uint8_t bits;
};

/* "[2001:db8::65535]" with port and NUL */
#define NETADDR_TEXT_MAX 64

bool ipaddr_parse(struct slice text, struct ipaddr *out);
/* RFC 5321 4.1.3: "[192.0.2.1]" or "[IPv6:2001:db8::1]", brackets included. */
bool ipaddr_parse_literal(struct slice text, struct ipaddr *out);
void ipaddr_format(struct ipaddr ip, char out[NETADDR_TEXT_MAX]);
/* "[192.0.2.1]", "[IPv6:2001:db8::1]" */
void ipaddr_format_literal(struct ipaddr ip, char out[NETADDR_TEXT_MAX]);
bool ipaddr_eq(struct ipaddr a, struct ipaddr b);
bool ipaddr_is_loopback(struct ipaddr ip);
bool ipaddr_is_unspecified(struct ipaddr ip);
/* What per-client counters count: the address, or its /64 for IPv6. */
struct ipaddr ipaddr_client_key(struct ipaddr ip);

/* "192.0.2.1:25", "[2001:db8::1]:25", "[192.0.2.1]:25"; the port may be left out when
 * default_port > 0. */
bool netaddr_parse(struct slice text, uint16_t default_port, struct netaddr *out);
void netaddr_format(struct netaddr a, char out[NETADDR_TEXT_MAX]);
socklen_t netaddr_to_sockaddr(struct netaddr a, struct sockaddr_storage *out);
bool netaddr_from_sockaddr(const struct sockaddr *sa, struct netaddr *out);

/* "10.0.0.0/8", "[::1]/128", "2001:db8::/32", or an address alone (all bits). Bits behind
 * the prefix are cleared. */
bool cidr_parse(struct slice text, struct cidr *out);
bool cidr_contains(struct cidr net, struct ipaddr ip);
void cidr_format(struct cidr net, char out[NETADDR_TEXT_MAX]);

#endif
