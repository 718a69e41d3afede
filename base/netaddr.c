/* SPDX-License-Identifier: Apache-2.0 */
#include "base/netaddr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static struct ipaddr unmap(struct ipaddr ip)
{
    if (ip.family != 6 || memcmp(ip.bytes, mapped_prefix, 12) != 0)
        return ip;
    struct ipaddr v4 = {.family = 4};
    memcpy(v4.bytes, ip.bytes + 12, 4);
    return v4;
}

bool ipaddr_parse(struct slice text, struct ipaddr *out)
{
    char copy[INET6_ADDRSTRLEN + 1];
    struct ipaddr ip = {0};
    if (text.len == 0 || text.len > INET6_ADDRSTRLEN || memchr(text.ptr, 0, text.len))
        return false;
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    if (inet_pton(AF_INET, copy, ip.bytes) == 1)
        ip.family = 4;
    else if (inet_pton(AF_INET6, copy, ip.bytes) == 1)
        ip.family = 6;
    else
        return false;
    *out = unmap(ip);
    return true;
}

bool ipaddr_parse_literal(struct slice text, struct ipaddr *out)
{
    if (text.len < 3 || text.ptr[0] != '[' || text.ptr[text.len - 1] != ']')
        return false;
    struct slice inner = slice_make(text.ptr + 1, text.len - 2);
    if (slice_starts_nocase(inner, SLICE("IPv6:")))
        return slice_find(slice_from(inner, 5), ':') < inner.len - 5 &&
               ipaddr_parse(slice_from(inner, 5), out);
    return slice_find(inner, ':') == inner.len && ipaddr_parse(inner, out);
}

void ipaddr_format(struct ipaddr ip, char out[NETADDR_TEXT_MAX])
{
    if (ip.family == 0) {
        snprintf(out, NETADDR_TEXT_MAX, "unknown");
        return;
    }
    inet_ntop(ip.family == 4 ? AF_INET : AF_INET6, ip.bytes, out, NETADDR_TEXT_MAX);
}

void ipaddr_format_literal(struct ipaddr ip, char out[NETADDR_TEXT_MAX])
{
    char text[NETADDR_TEXT_MAX];
    ipaddr_format(ip, text);
    snprintf(out, NETADDR_TEXT_MAX, ip.family == 6 ? "[IPv6:%.46s]" : "[%.46s]", text);
}

static unsigned width(struct ipaddr ip)
{
    return ip.family == 4 ? 4 : ip.family == 6 ? 16 : 0;
}

bool ipaddr_eq(struct ipaddr a, struct ipaddr b)
{
    return a.family == b.family && memcmp(a.bytes, b.bytes, width(a)) == 0;
}

bool ipaddr_is_loopback(struct ipaddr ip)
{
    static const uint8_t one[16] = {[15] = 1};
    return (ip.family == 4 && ip.bytes[0] == 127) ||
           (ip.family == 6 && memcmp(ip.bytes, one, 16) == 0);
}

bool ipaddr_is_unspecified(struct ipaddr ip)
{
    static const uint8_t zero[16];
    return ip.family == 0 || memcmp(ip.bytes, zero, width(ip)) == 0;
}

struct ipaddr ipaddr_client_key(struct ipaddr ip)
{
    if (ip.family == 6)
        memset(ip.bytes + 8, 0, 8);
    return ip;
}

bool netaddr_parse(struct slice text, uint16_t default_port, struct netaddr *out)
{
    struct slice host = text, port = {0};
    bool bracketed = text.len && text.ptr[0] == '[';
    if (bracketed) {
        size_t close = slice_find(text, ']');
        if (close == text.len)
            return false;
        host = slice_make(text.ptr + 1, close - 1);
        struct slice rest = slice_from(text, close + 1);
        if (rest.len && rest.ptr[0] != ':')
            return false;
        if (rest.len)
            port = slice_from(rest, 1);
        if (rest.len == 1)
            return false;
    } else if (slice_find(text, ':') == slice_rfind(text, ':') &&
               slice_find(text, ':') < text.len) {
        host = slice_head(text, slice_find(text, ':'));
        port = slice_from(text, host.len + 1);
        if (port.len == 0)
            return false;
    }
    uint64_t number = default_port;
    struct netaddr a = {0};
    if (port.len && !slice_u64(port, UINT16_MAX, &number))
        return false;
    if (port.len == 0 && default_port == 0)
        return false;
    if (!ipaddr_parse(host, &a.ip))
        return false;
    a.port = (uint16_t)number;
    *out = a;
    return true;
}

void netaddr_format(struct netaddr a, char out[NETADDR_TEXT_MAX])
{
    char ip[NETADDR_TEXT_MAX];
    ipaddr_format(a.ip, ip);
    snprintf(
        out, NETADDR_TEXT_MAX, a.ip.family == 6 ? "[%.46s]:%u" : "%.46s:%u", ip, a.port);
}

socklen_t netaddr_to_sockaddr(struct netaddr a, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof(*out));
    if (a.ip.family == 4) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(a.port)};
        memcpy(&in.sin_addr, a.ip.bytes, 4);
        memcpy(out, &in, sizeof(in));
        return sizeof(in);
    }
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(a.port)};
    memcpy(&in6.sin6_addr, a.ip.bytes, 16);
    memcpy(out, &in6, sizeof(in6));
    return sizeof(in6);
}

bool netaddr_from_sockaddr(const struct sockaddr *sa, struct netaddr *out)
{
    struct netaddr a = {0};
    if (sa->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof(in));
        a.ip.family = 4;
        memcpy(a.ip.bytes, &in.sin_addr, 4);
        a.port = ntohs(in.sin_port);
    } else if (sa->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, sa, sizeof(in6));
        a.ip.family = 6;
        memcpy(a.ip.bytes, &in6.sin6_addr, 16);
        a.port = ntohs(in6.sin6_port);
    } else {
        return false;
    }
    a.ip = unmap(a.ip);
    *out = a;
    return true;
}

static void clear_behind(struct cidr *net)
{
    for (unsigned i = 0; i < width(net->ip); i++) {
        unsigned from = i * 8;
        if (net->bits <= from)
            net->ip.bytes[i] = 0;
        else if (net->bits < from + 8)
            net->ip.bytes[i] &= (uint8_t)(0xff << (from + 8 - net->bits));
    }
}

bool cidr_parse(struct slice text, struct cidr *out)
{
    size_t slash = slice_find(text, '/');
    struct slice host = slice_head(text, slash);
    struct cidr net = {0};
    uint64_t bits;
    bool mapped;
    if (host.len > 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']')
        host = slice_make(host.ptr + 1, host.len - 2);
    if (!ipaddr_parse(host, &net.ip))
        return false;
    mapped = net.ip.family == 4 && slice_find(host, ':') < host.len;
    bits = width(net.ip) * 8;
    if (slash < text.len) {
        if (!slice_u64(slice_from(text, slash + 1), mapped ? 128 : bits, &bits))
            return false;
        if (mapped && bits < 96)
            return false; /* wider than all of IPv4: nobody means that */
        if (mapped)
            bits -= 96;
    }
    net.bits = (uint8_t)bits;
    clear_behind(&net);
    *out = net;
    return true;
}

bool cidr_contains(struct cidr net, struct ipaddr ip)
{
    if (net.ip.family != ip.family || ip.family == 0)
        return false;
    struct cidr other = {ip, net.bits};
    clear_behind(&other);
    return ipaddr_eq(net.ip, other.ip);
}

void cidr_format(struct cidr net, char out[NETADDR_TEXT_MAX])
{
    char ip[NETADDR_TEXT_MAX];
    ipaddr_format(net.ip, ip);
    snprintf(out, NETADDR_TEXT_MAX, "%.46s/%u", ip, net.bits);
}
