/* SPDX-License-Identifier: Apache-2.0 */
/* The addresses of a host. Both families are asked at once; one that fails (bogus, no
 * server answers) leaves the other usable, because half of a broken zone still takes
 * mail. */
#include <stdio.h>

#include "base/alloc.h"
#include "base/random.h"
#include "dnsbl/resolver_internal.h"

#define ADDRESSES_MAX 32

static void shuffle(struct ipaddr *ips, unsigned count)
{
    for (unsigned i = count; i > 1; i--) {
        unsigned j = (unsigned)random_below(i);
        struct ipaddr swap = ips[i - 1];
        ips[i - 1] = ips[j];
        ips[j] = swap;
    }
}

/* A family's addresses, shuffled; at most as many as there is room. */
static unsigned take_family(const struct dns_answer *a, struct ipaddr out[ADDRESSES_MAX])
{
    unsigned n = 0;
    if (a->result != ERR_OK)
        return 0;
    for (unsigned i = 0; i < a->count && n < ADDRESSES_MAX; i++)
        out[n++] = a->records[i].ip;
    shuffle(out, n);
    return n;
}

static void interleave(struct host_addresses *out, const struct ipaddr *v6, unsigned six,
    const struct ipaddr *v4, unsigned four)
{
    for (unsigned i = 0; out->count < ADDRESSES_MAX && (i < six || i < four); i++) {
        if (i < six)
            out->ips[out->count++] = v6[i];
        if (i < four && out->count < ADDRESSES_MAX)
            out->ips[out->count++] = v4[i];
    }
}

/* The worse of two failures: what asks for patience before what is final, and what blames
 * DNSSEC before all. */
static unsigned severity(enum err result)
{
    return result == ERR_DNS_BOGUS                    ? 5
           : result == ERR_DNS_SERVFAIL               ? 4
           : result == ERR_DNS_TIMEOUT                ? 3
           : err_class(result) == ERR_CLASS_TRANSIENT ? 2
           : result != ERR_OK                         ? 1
                                                      : 0;
}

static void join_ttl(struct host_addresses *out, const struct dns_answer *a)
{
    if (a->ttl < out->ttl)
        out->ttl = a->ttl;
}

static void found_some(struct host_query *q, bool use4, bool use6)
{
    struct host_addresses *out = &q->found;
    const struct dns_answer *four = &q->v4.answer, *six = &q->v6.answer;
    bool secure =
        (!use4 || four->security == DNS_SECURE) && (!use6 || six->security == DNS_SECURE);
    out->result = ERR_OK;
    out->security = secure ? DNS_SECURE : DNS_INSECURE;
    out->ttl = UINT32_MAX;
    if (use4)
        join_ttl(out, four);
    if (use6)
        join_ttl(out, six);
    const struct dns_answer *failed = use4 ? six : four;
    bool wanted = use4 ? q->want_v6 : q->want_v4;
    if (use4 != use6 && wanted && severity(failed->result) > 1)
        snprintf(q->why_text, sizeof(q->why_text), "%.230s; the other family is used",
            failed->why);
}

static void found_none(struct host_query *q)
{
    struct host_addresses *out = &q->found;
    const struct dns_answer *four = &q->v4.answer, *six = &q->v6.answer;
    const struct dns_answer *worse =
        !q->want_v6                                                     ? four
        : !q->want_v4 || severity(six->result) > severity(four->result) ? six
                                                                        : four;
    bool empty =
        (q->want_v4 && four->result == ERR_OK) || (q->want_v6 && six->result == ERR_OK);
    out->ttl = worse->ttl;
    out->security = worse->security;
    out->result = worse->result;
    /* One says that the name does not exist, the other that it has no such address: it
     * exists. */
    if (empty && severity(worse->result) <= 1)
        out->result = ERR_DNS_NO_ADDRESS;
    if (out->result == ERR_DNS_NO_ADDRESS)
        snprintf(q->why_text, sizeof(q->why_text), "%s of %.230s: no address",
            q->want_v4 && q->want_v6 ? "A and AAAA"
            : q->want_v4             ? "A"
                                     : "AAAA",
            q->name);
    else
        snprintf(q->why_text, sizeof(q->why_text), "%.290s", worse->why);
}

void resolver_host_from_answers(struct host_query *q)
{
    struct ipaddr v4[ADDRESSES_MAX], v6[ADDRESSES_MAX];
    unsigned four = q->want_v4 ? take_family(&q->v4.answer, v4) : 0;
    unsigned six = q->want_v6 ? take_family(&q->v6.answer, v6) : 0;
    q->found = (struct host_addresses){.why = q->why_text};
    q->why_text[0] = '\0';
    interleave(&q->found, v6, six, v4, four);
    if (q->found.count)
        found_some(q, four > 0, six > 0);
    else
        found_none(q);
}

static void deliver_found(struct mail *mail, void *owner)
{
    struct host_query *q = CONTAINER_OF(mail, struct host_query, mail);
    q->done(q, owner);
}

static void reply(struct host_query *q)
{
    mailbox_post(q->reply_to, &q->mail, deliver_found);
}

static void ask_family(struct host_query *q, struct dns_query *step, enum dns_type type,
    void (*done)(struct dns_query *, void *))
{
    *step = (struct dns_query){.type = type, .done = done};
    snprintf(step->name, sizeof(step->name), "%s", q->name);
    resolver_start(q->resolver, step);
}

/* Only the family that nobody wants has an address: our lack, not the domain's. */
static void other_family(struct dns_query *step, void *owner)
{
    (void)owner;
    struct host_query *q = step->type == DNS_A
                               ? CONTAINER_OF(step, struct host_query, v4)
                               : CONTAINER_OF(step, struct host_query, v6);
    const struct dns_answer *a = &step->answer;
    /* Not known for sure that there is none: not the time to give up. */
    if (a->count > 0 || severity(a->result) > 1) {
        q->found.result = ERR_NO_USABLE_ADDRESS;
        snprintf(q->why_text, sizeof(q->why_text),
            "%.200s has no %s address, and %s is off", q->name,
            step->type == DNS_A ? "IPv6" : "IPv4",
            step->type == DNS_A ? "delivery.ipv4" : "delivery.ipv6");
    }
    dns_query_release(step);
    reply(q);
}

static void both_answered(struct host_query *q)
{
    resolver_host_from_answers(q);
    if (q->want_v4)
        dns_query_release(&q->v4);
    if (q->want_v6)
        dns_query_release(&q->v6);
    if (q->found.result != ERR_DNS_NO_ADDRESS || (q->want_v4 && q->want_v6)) {
        reply(q);
        return;
    }
    if (q->want_v4)
        ask_family(q, &q->v6, DNS_AAAA, other_family);
    else
        ask_family(q, &q->v4, DNS_A, other_family);
}

static void v4_answered(struct dns_query *step, void *owner)
{
    (void)owner;
    struct host_query *q = CONTAINER_OF(step, struct host_query, v4);
    if (--q->pending == 0)
        both_answered(q);
}

static void v6_answered(struct dns_query *step, void *owner)
{
    (void)owner;
    struct host_query *q = CONTAINER_OF(step, struct host_query, v6);
    if (--q->pending == 0)
        both_answered(q);
}

/* An address where a name should be. */
static bool is_address(struct host_query *q)
{
    struct ipaddr ip;
    if (!ipaddr_parse(slice_str(q->name), &ip))
        return false;
    q->found = (struct host_addresses){.why = q->why_text, .ttl = 3600};
    q->why_text[0] = '\0';
    if (ip.family == 4 ? q->want_v4 : q->want_v6) {
        q->found.ips[q->found.count++] = ip;
    } else {
        q->found.result = ERR_NO_USABLE_ADDRESS;
        snprintf(
            q->why_text, sizeof(q->why_text), "%.200s: IPv%d is off", q->name, ip.family);
    }
    return true;
}

static void host_arrives(struct mail *mail, void *owner)
{
    (void)owner;
    struct host_query *q = CONTAINER_OF(mail, struct host_query, mail);
    bool v4 = q->want_v4, v6 = q->want_v6;
    if (is_address(q)) {
        reply(q);
        return;
    }
    if (!v4 && !v6) {
        q->found = (struct host_addresses){.result = ERR_NO_USABLE_ADDRESS,
            .why = "delivery.ipv4 and delivery.ipv6 are off"};
        reply(q);
        return;
    }
    q->pending =
        v4 + v6; /* the answer to the first may come before the second is asked */
    if (v6)
        ask_family(q, &q->v6, DNS_AAAA, v6_answered);
    if (v4)
        ask_family(q, &q->v4, DNS_A, v4_answered);
}

void resolver_ask_host(struct resolver *r, struct host_query *q)
{
    q->resolver = r;
    mailbox_post(loop_mailbox(r->loop), &q->mail, host_arrives);
}
