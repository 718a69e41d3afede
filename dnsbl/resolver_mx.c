/* SPDX-License-Identifier: Apache-2.0 */
/* The mail hosts of a domain, RFC 5321 5.1. What the RFCs leave open, or forbid and yet
 * is there: a target that is no host name is left out (all of them: the domain has no
 * mail server); a target that looks like an IPv4 address is kept, and taken for one
 * later; "." beside other targets is left out (RFC 7505 3: it means nothing there); a
 * target that is a CNAME is kept, addresses follow it. */
#include <stdio.h>

#include "base/alloc.h"
#include "base/random.h"
#include "dnsbl/resolver_internal.h"
#include "dnsbl/wire.h"

#define HOSTS_MAX 50
#define CANDIDATES_MAX 100 /* as many records as an answer has */

static void shuffle(struct mx_host *hosts, unsigned count)
{
    for (unsigned i = count; i > 1; i--) {
        unsigned j = (unsigned)random_below(i);
        struct mx_host swap = hosts[i - 1];
        hosts[i - 1] = hosts[j];
        hosts[j] = swap;
    }
}

/* Stable, so that equals stay shuffled. */
static void sort_by_preference(struct mx_host *hosts, unsigned count)
{
    for (unsigned i = 1; i < count; i++) {
        struct mx_host host = hosts[i];
        unsigned j = i;
        for (; j > 0 && hosts[j - 1].preference > host.preference; j--)
            hosts[j] = hosts[j - 1];
        hosts[j] = host;
    }
}

/* A host listed twice counts with its better preference. */
static void add_host(
    struct mx_host *hosts, unsigned *count, const struct dns_record *record)
{
    for (unsigned i = 0; i < *count; i++)
        if (strcmp(hosts[i].name, record->name) == 0) {
            if (record->preference < hosts[i].preference)
                hosts[i].preference = record->preference;
            return;
        }
    hosts[(*count)++] =
        (struct mx_host){.name = record->name, .preference = record->preference};
}

static void set_failure(
    struct mx_set *out, struct arena *arena, enum err result, const char *domain)
{
    out->result = result;
    out->why = arena_printf(arena, "MX of %s: %s", domain, err_text(result)).ptr;
}

static void set_implicit(struct mx_set *out, const char *host, struct arena *arena)
{
    struct mx_host *hosts = arena_alloc(arena, sizeof(*hosts));
    *hosts =
        (struct mx_host){.name = arena_strdup(arena, slice_str(host)), .implicit = true};
    out->hosts = hosts;
    out->count = 1;
}

static void set_hosts(struct mx_set *out, const struct dns_answer *a, struct arena *arena)
{
    struct mx_host *hosts = arena_alloc(arena, CANDIDATES_MAX * sizeof(*hosts));
    unsigned count = 0;
    for (unsigned i = 0; i < a->count && i < CANDIDATES_MAX; i++)
        if (dns_host_check(a->records[i].name))
            add_host(hosts, &count, &a->records[i]);
    shuffle(hosts, count);
    sort_by_preference(hosts, count);
    out->count = count < HOSTS_MAX ? count : HOSTS_MAX;
    out->hosts = hosts;
    for (unsigned i = 0; i < out->count; i++)
        hosts[i].name = arena_strdup(arena, slice_str(hosts[i].name));
}

static bool is_null_mx(const struct dns_answer *a)
{
    for (unsigned i = 0; i < a->count; i++)
        if (a->records[i].name[0] != '\0')
            return false;
    return a->count > 0;
}

void resolver_mx_from_answer(const char *domain, const struct dns_answer *a,
    struct arena *arena, struct mx_set *out)
{
    *out = (struct mx_set){
        .result = a->result, .security = a->security, .ttl = a->ttl, .why = ""};
    if (a->result != ERR_OK) {
        out->why = arena_strdup(arena, slice_str(a->why));
        return;
    }
    if (a->count == 0 && !dns_host_check(a->canonical))
        set_failure(out, arena, ERR_DNS_NO_ADDRESS, domain);
    else if (a->count == 0) /* RFC 5321: go on with the name that the CNAMEs led to */
        set_implicit(out, a->canonical, arena);
    else if (is_null_mx(a))
        set_failure(out, arena, ERR_DNS_NULL_MX, domain);
    else
        set_hosts(out, a, arena);
    if (out->result == ERR_OK && out->count == 0) {
        out->result = ERR_DNS_NO_ADDRESS;
        out->why =
            arena_printf(arena, "MX of %s: none of its targets is a host name", domain)
                .ptr;
    }
}

static void deliver_set(struct mail *mail, void *owner)
{
    struct mx_query *q = CONTAINER_OF(mail, struct mx_query, mail);
    q->done(q, owner);
}

static void mx_answered(struct dns_query *step, void *owner)
{
    (void)owner;
    struct mx_query *q = CONTAINER_OF(step, struct mx_query, step);
    q->arena = arena_new(512);
    resolver_mx_from_answer(q->domain, &step->answer, q->arena, &q->set);
    dns_query_release(step);
    mailbox_post(q->reply_to, &q->mail, deliver_set);
}

static void mx_arrives(struct mail *mail, void *owner)
{
    (void)owner;
    struct mx_query *q = CONTAINER_OF(mail, struct mx_query, mail);
    q->step = (struct dns_query){.type = DNS_MX, .done = mx_answered};
    snprintf(q->step.name, sizeof(q->step.name), "%s", q->domain);
    resolver_start(q->resolver, &q->step);
}

void resolver_ask_mx(struct resolver *r, struct mx_query *q)
{
    q->resolver = r;
    mailbox_post(loop_mailbox(r->loop), &q->mail, mx_arrives);
}

void mx_query_release(struct mx_query *q)
{
    arena_free(q->arena);
    q->arena = NULL;
    q->set.hosts = NULL;
    q->set.count = 0;
}
