/* SPDX-License-Identifier: Apache-2.0 */
#include "dnsbl/resolver_internal.h"

static const struct {
    enum dns_type type;
    struct slice name;
} types[] = {{DNS_A, SLICE_INIT("A")}, {DNS_AAAA, SLICE_INIT("AAAA")},
    {DNS_MX, SLICE_INIT("MX")}, {DNS_TXT, SLICE_INIT("TXT")},
    {DNS_TLSA, SLICE_INIT("TLSA")}, {DNS_PTR, SLICE_INIT("PTR")},
    {DNS_CNAME, SLICE_INIT("CNAME")}, {DNS_NS, SLICE_INIT("NS")},
    {DNS_SOA, SLICE_INIT("SOA")}};

bool dns_type_parse(struct slice text, enum dns_type *out)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (slice_eq_nocase(types[i].name, text)) {
            *out = types[i].type;
            return true;
        }
    return false;
}

const char *dns_type_name(enum dns_type type)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (types[i].type == type)
            return types[i].name.ptr;
    return "?";
}

const char *dns_security_name(enum dns_security security)
{
    return security == DNS_SECURE         ? "secure"
           : security == DNS_BOGUS_ANSWER ? "bogus"
                                          : "insecure";
}

void resolver_question_text(const struct dns_query *q, char out[WHY_MAX])
{
    snprintf(out, WHY_MAX, "%s of %s", dns_type_name(q->type), *q->name ? q->name : ".");
}
