/* SPDX-License-Identifier: Apache-2.0 */
/* DNS with DNSSEC verdicts: libunbound on a loop of its own thread. A question is posted
 * from any thread and answered into the asker's mailbox. Answers are bounded values;
 * nothing in them is trusted to be text. */
#ifndef DNSBL_RESOLVER_H
#define DNSBL_RESOLVER_H

#include <sys/queue.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/mailbox.h"
#include "base/settings.h"

struct resolver;

enum dns_type {
    DNS_A = 1,
    DNS_PTR = 12,
    DNS_MX = 15,
    DNS_TXT = 16,
    DNS_AAAA = 28,
    DNS_CNAME = 5,
    DNS_NS = 2,
    DNS_SOA = 6,
    DNS_TLSA = 52
};
enum dns_security { DNS_INSECURE, DNS_SECURE, DNS_BOGUS_ANSWER };

/* "MX" and so on; any case. False: not a type that we ask for. */
bool dns_type_parse(struct slice text, enum dns_type *out);
const char *dns_type_name(enum dns_type type);
/* "secure", "insecure", "bogus" */
const char *dns_security_name(enum dns_security security);

struct dns_record {
    uint16_t preference; /* MX */
    const char *name;  /* MX, PTR, CNAME target: lower case, no trailing dot; "." is "" */
    struct ipaddr ip;  /* A, AAAA */
    struct slice data; /* TXT: strings joined; TLSA: rdata */
};

struct dns_answer {
    enum err
        result; /* OK also for NODATA (count 0); NXDOMAIN, SERVFAIL, BOGUS, TIMEOUT ... */
    enum dns_security security;
    const char *why_bogus; /* what the validator says, or "" */
    const char *why; /* any failure in one sentence that names the question, or "" */
    const char *canonical; /* the name after CNAMEs, lower case */
    uint32_t ttl;
    unsigned count; /* at most 100 */
    const struct dns_record *records;
    /* Every link of the CNAME chain is proven. When false, and the answer is insecure
     * behind a CNAME, the first link may still be: ask DNS_CNAME of the name (RFC
     * 7672 2.2.2). */
    bool canonical_secure;
};

struct dns_query {
    struct mail mail;
    /* the asker fills: */
    char
        name[256]; /* A-labels with dots; checked here. PTR: an IP address will do, too */
    enum dns_type type;
    struct mailbox *reply_to;
    void (*done)(struct dns_query *q, void *owner); /* in reply_to's thread */
    /* the resolver fills; valid until dns_query_release */
    struct dns_answer answer;
    struct arena *arena;
    /* resolver's own */
    struct resolver *resolver;
    struct resolver_context *context;
    TAILQ_ENTRY(dns_query) under_way;
    int async_id;
    bool started;
    struct mono asked;
};

/* Starts the thread. s->data_dir keeps the copy of the trust anchor (root.key). NULL with
 * `why` when the settings cannot work (no anchor, a bad zone). Settings are copied. */
struct resolver *resolver_new(const struct settings *s, char *why, size_t why_size);
/* Ends the thread; what is still under way is answered ERR_SHUTTING_DOWN, so the
 * mailboxes of the askers must exist until this returns. Accepts NULL. */
void resolver_free(struct resolver *r);
/* Any thread. The answer always comes, at the latest as DNS_TIMEOUT after 30 s; at once
 * as ERR_OVERLOADED when RESOLVER_QUESTIONS_MAX are under way. */
#define RESOLVER_QUESTIONS_MAX 1000
void resolver_ask(struct resolver *r, struct dns_query *q);
/* Frees what the answer holds (not q itself). */
void dns_query_release(struct dns_query *q);
/* Takes new settings; the cache stays unless the resolver's own changed. What is under
 * way ends under the old ones. When the new ones cannot work the old ones stay, and the
 * log says why. Any thread (but one at a time); reads the trust anchor file. */
void resolver_reload(struct resolver *r, const struct settings *s);

/* The self-test that validation works. `text` is empty unless state is FAILED. */
enum resolver_health {
    RESOLVER_UNTESTED,
    RESOLVER_VALIDATES,
    RESOLVER_FAILED,
    RESOLVER_NO_DNSSEC
};
enum resolver_health resolver_health(struct resolver *r, char *text, size_t text_size);

/* MX targets of a domain in the order to try: RFC 5321 5.1 (MX, or the domain's own
 * address when it has no MX), null MX (RFC 7505), CNAME followed; equal preferences
 * shuffled. */
struct mx_host {
    const char *name;
    uint16_t preference;
    bool implicit; /* no MX record: the domain itself */
};
struct mx_set {
    enum err result; /* OK, DNS_NXDOMAIN, DNS_NULL_MX, DNS_NO_ADDRESS, DNS_SERVFAIL ... */
    enum dns_security security;
    const char *why; /* one sentence for the log, names the question that failed */
    uint32_t ttl;
    unsigned count; /* at most 50 */
    const struct mx_host *hosts;
};
struct mx_query {
    struct mail mail;
    char domain[256];
    struct mailbox *reply_to;
    void (*done)(struct mx_query *q, void *owner);
    struct mx_set set;
    struct arena *arena;
    /* own */
    struct resolver *resolver;
    struct dns_query step;
};
void resolver_ask_mx(struct resolver *r, struct mx_query *q);
void mx_query_release(struct mx_query *q);

/* Both address families of a host, in the order to try (interleaved, IPv6 first when
 * both; shuffled within a family). One family that fails does not spoil the other. A name
 * that is an IPv4 address is that address (what a broken MX record means to say). */
struct host_addresses {
    enum err result; /* OK with count >= 1, or why there is none; DNS_NO_ADDRESS: it has
                        none; NO_USABLE_ADDRESS: only of the family that was not wanted */
    enum dns_security security; /* of the addresses given; without any, bogus wins */
    const char *why; /* one sentence; also set when only one family failed; or "" */
    uint32_t ttl;
    unsigned count; /* at most 32 */
    struct ipaddr ips[32];
};
struct host_query {
    struct mail mail;
    char name[256];
    bool want_v4, want_v6;
    struct mailbox *reply_to;
    void (*done)(struct host_query *q, void *owner);
    struct host_addresses found;
    char why_text[300];
    /* own */
    struct resolver *resolver;
    struct dns_query v4, v6;
    int pending;
};
/* Nothing to release: all is in the query. */
void resolver_ask_host(struct resolver *r, struct host_query *q);

#endif
