/* SPDX-License-Identifier: Apache-2.0 */
/* A DNS message from a stranger, all the way to mail hosts and addresses. The first byte
 * chooses what was asked. */
#include <stdlib.h>

#include "base/alloc.h"
#include "dnsbl/resolver_internal.h"
#include "dnsbl/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const enum dns_type types[] = {
    DNS_MX, DNS_A, DNS_AAAA, DNS_TXT, DNS_TLSA, DNS_PTR, DNS_CNAME, DNS_NS, DNS_SOA};

static void check(const struct dns_answer *a)
{
    INVARIANT(a->count <= 100);
    INVARIANT(a->result == ERR_OK || a->count == 0);
    INVARIANT(strlen(a->canonical) < DNS_NAME_TEXT_MAX);
    for (unsigned i = 0; i < a->count; i++) {
        INVARIANT(strlen(a->records[i].name) < DNS_NAME_TEXT_MAX);
        INVARIANT(a->records[i].data.len <= UINT16_MAX);
    }
}

static void check_mx(const struct dns_answer *a, struct arena *arena)
{
    struct mx_set set;
    resolver_mx_from_answer("q", a, arena, &set);
    INVARIANT(set.count <= 50);
    INVARIANT((set.count > 0) == (set.result == ERR_OK));
    for (unsigned i = 0; i < set.count; i++) {
        INVARIANT(dns_host_check(set.hosts[i].name));
        INVARIANT(i == 0 || set.hosts[i - 1].preference <= set.hosts[i].preference);
    }
}

static void check_host(const struct dns_answer *a, enum dns_type type)
{
    struct host_query q = {
        .name = "q", .want_v4 = type == DNS_A, .want_v6 = type == DNS_AAAA};
    q.v4.answer = q.v6.answer = *a;
    resolver_host_from_answers(&q);
    INVARIANT(q.found.count <= 32);
    INVARIANT((q.found.count > 0) == (q.found.result == ERR_OK));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 65536)
        return 0;
    enum dns_type type = types[data[0] % (sizeof(types) / sizeof(types[0]))];
    struct arena *arena = arena_new(1024);
    struct dns_answer a = {.why = "", .why_bogus = ""};
    char name[256];
    dns_wire_answer(slice_make(data + 1, size - 1), "q", type, arena, &a);
    check(&a);
    if (!a.why[0] && a.result != ERR_OK)
        a.why = "why";
    if (type == DNS_MX)
        check_mx(&a, arena);
    if (type == DNS_A || type == DNS_AAAA)
        check_host(&a, type);
    if (dns_name_check(slice_make(data, size), name))
        INVARIANT(strlen(name) <= 253);
    arena_free(arena);
    return 0;
}
