/* SPDX-License-Identifier: Apache-2.0 */
#include "node/delivery/route_internal.h"

#include <ifaddrs.h>

#include "base/alloc.h"

#define LISTENING_MAX 1024
#define SMTP_PORT 25

static void add_listening(struct route_us *us, struct netaddr a)
{
    if (us->listening_count < LISTENING_MAX)
        us->listening[us->listening_count++] = a;
}

/* A wildcard means every address the machine has now; a reload looks again. */
static void add_interfaces(
    struct route_us *us, const struct ifaddrs *list, struct netaddr any)
{
    for (const struct ifaddrs *i = list; i; i = i->ifa_next) {
        struct netaddr a;
        if (!i->ifa_addr || !netaddr_from_sockaddr(i->ifa_addr, &a) ||
            a.ip.family != any.ip.family)
            continue;
        a.port = any.port;
        add_listening(us, a);
    }
    if (any.ip.family == 4 &&
        us->any4_count < sizeof(us->any4_ports) / sizeof(us->any4_ports[0]))
        us->any4_ports[us->any4_count++] = any.port;
}

static void read_listeners(struct route_us *us, const struct settings *s)
{
    struct ifaddrs *list = NULL;
    us->listening = arena_alloc(us->arena, LISTENING_MAX * sizeof(*us->listening));
    if (getifaddrs(&list) != 0)
        list = NULL;
    for (unsigned i = 0; i < s->listener_count; i++)
        for (unsigned j = 0; j < s->listeners[i].listen_count; j++) {
            struct netaddr a = s->listeners[i].listen[j];
            if (ipaddr_is_unspecified(a.ip))
                add_interfaces(us, list, a);
            else
                add_listening(us, a);
        }
    if (list)
        freeifaddrs(list);
}

static const char *lower_name(struct route_us *us, const char *text)
{
    struct slice s = slice_str(text);
    if (s.len && s.ptr[s.len - 1] == '.')
        s.len--;
    char *name = arena_strdup(us->arena, s);
    for (char *p = name; *p; p++)
        *p = ascii_lower(*p);
    return name;
}

struct route_us *route_us_new(const struct settings *s)
{
    struct arena *arena = arena_new(1024);
    struct route_us *us = arena_alloc(arena, sizeof(*us));
    us->arena = arena;
    atomic_init(&us->refs, 1);
    us->names = arena_alloc(arena, (s->self.names.count + 1) * sizeof(*us->names));
    if (s->hostname[0])
        us->names[us->name_count++] = lower_name(us, s->hostname);
    for (unsigned i = 0; i < s->self.names.count; i++)
        us->names[us->name_count++] = lower_name(us, s->self.names.items[i]);
    us->address_count = s->self.address_count;
    us->addresses = arena_alloc(arena, us->address_count * sizeof(*us->addresses));
    if (us->address_count)
        memcpy(
            us->addresses, s->self.addresses, us->address_count * sizeof(*us->addresses));
    read_listeners(us, s);
    us->ipv4 = s->delivery.ipv4;
    us->ipv6 = s->delivery.ipv6;
    us->mx_port = (uint16_t)s->delivery.port;
    return us;
}

struct route_us *route_us_ref(struct route_us *us)
{
    atomic_fetch_add_explicit(&us->refs, 1, memory_order_relaxed);
    return us;
}

void route_us_unref(struct route_us *us)
{
    if (us && atomic_fetch_sub_explicit(&us->refs, 1, memory_order_acq_rel) == 1)
        arena_free(us->arena);
}

bool route_us_is_name(const struct route_us *us, const char *name)
{
    for (unsigned i = 0; i < us->name_count; i++)
        if (slice_eq_nocase(slice_str(us->names[i]), slice_str(name)))
            return true;
    return false;
}

static bool listens(const struct route_us *us, struct netaddr a, bool any_port)
{
    for (unsigned i = 0; i < us->listening_count; i++)
        if ((any_port || us->listening[i].port == a.port) &&
            ipaddr_eq(us->listening[i].ip, a.ip))
            return true;
    if (a.ip.family == 4 && ipaddr_is_loopback(a.ip))
        for (unsigned i = 0; i < us->any4_count; i++)
            if (any_port || us->any4_ports[i] == a.port)
                return true;
    return false;
}

bool route_us_is_listener(const struct route_us *us, struct netaddr a)
{
    return listens(us, a, false);
}

bool route_us_is_address(const struct route_us *us, struct netaddr a)
{
    for (unsigned i = 0; i < us->address_count; i++)
        if (ipaddr_eq(us->addresses[i], a.ip))
            return true;
    return listens(us, a, a.port == SMTP_PORT);
}

bool route_us_may_use(const struct route_us *us, struct ipaddr ip)
{
    if (ipaddr_is_unspecified(ip))
        return false;
    if (ip.family == 4)
        return us->ipv4 && ip.bytes[0] != 0 && ip.bytes[0] < 224;
    return us->ipv6 && ip.bytes[0] != 0xff;
}
