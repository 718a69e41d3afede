/* SPDX-License-Identifier: Apache-2.0 */
/* From settings to a libunbound context. All options are set before the first question;
 * the first question (of a name that libunbound answers by itself) makes it read the
 * anchors, so that what is wrong with them is known now and not when mail waits for an
 * answer. */
#include "dnsbl/resolver_internal.h"

#include <string.h>
#include <unbound-event.h>
#include <unbound.h>

/* Zones that libunbound answers by itself (RFC 6303, 6761, 7686, 8375); a stub for one of
 * them, above one, or below one must get its questions. */
static const char *const builtin_zones[] = {"localhost", "127.in-addr.arpa",
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
    "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
    "home.arpa", "onion", "test", "invalid", "10.in-addr.arpa", "168.192.in-addr.arpa",
    "0.in-addr.arpa", "254.169.in-addr.arpa", "2.0.192.in-addr.arpa",
    "100.51.198.in-addr.arpa", "113.0.203.in-addr.arpa", "255.255.255.255.in-addr.arpa",
    "8.b.d.0.1.0.0.2.ip6.arpa", "d.f.ip6.arpa", "8.e.f.ip6.arpa", "9.e.f.ip6.arpa",
    "a.e.f.ip6.arpa", "b.e.f.ip6.arpa"};

/* What is set whatever the settings say. */
static const struct {
    const char *option, *value;
} fixed_options[] = {
    {"verbosity:", "0"},
    /* The reason of a failure is printed, and only so to be had (resolver_log.c). */
    {"log-servfail:", "yes"},
    {"val-log-level:", "2"},
    {"val-log-squelch:", "no"},
    {"do-not-query-localhost:", "no"},
    /* More sockets than RESOLVER_QUESTIONS_MAX: questions about dead servers must not
     * keep the others waiting for one. They are open only while a query is out. */
    {"outgoing-range:", "1200"},
    {"num-queries-per-thread:", "2048"},
    {"outgoing-num-tcp:", "16"},
    {"harden-glue:", "yes"},
    {"harden-dnssec-stripped:", "yes"},
    {"harden-below-nxdomain:", "yes"},
    {"minimal-responses:", "yes"},
    /* A server that was down is looked at again while it is, not once in 15 minutes: mail
     * waits for it. */
    {"infra-keep-probing:", "yes"},
    {"infra-cache-numhosts:", "10000"},
    /* A domain that has just got its MX should not wait an hour for it. */
    {"cache-max-negative-ttl:", "900"},
};

struct setup {
    struct ub_ctx *ub;
    const struct resolver_config *config;
    char *why;
    size_t why_size;
    bool ok;
};

static void check(struct setup *s, int result, const char *what)
{
    if (result == 0 || !s->ok)
        return;
    snprintf(s->why, s->why_size, "resolver: libunbound refuses %.100s: %s", what,
        ub_strerror(result));
    s->ok = false;
}

static void set(struct setup *s, const char *option, const char *value)
{
    check(s, ub_ctx_set_option(s->ub, option, value), option);
}

static void set_transparent(struct setup *s, const char *zone)
{
    char value[300];
    snprintf(value, sizeof(value), "%s. transparent", zone);
    set(s, "local-zone:", value);
}

static void set_size(struct setup *s, const char *option, uint64_t bytes)
{
    char value[32];
    snprintf(value, sizeof(value), "%llu", (unsigned long long)bytes);
    set(s, option, value);
}

/* `cache` for answers (records, and messages made of them), and as much for keys. */
static void set_caches(struct setup *s)
{
    uint64_t bytes = s->config->cache_bytes;
    set_size(s, "rrset-cache-size:", bytes - bytes / 3);
    set_size(s, "msg-cache-size:", bytes / 3);
    set_size(s, "key-cache-size:", bytes - bytes / 8);
    set_size(s, "neg-cache-size:", bytes / 8);
}

/* Equal to or below: "a.test" in "test"; everything in the root. */
static bool is_in(const char *name, const char *zone)
{
    size_t n = strlen(name), z = strlen(zone);
    if (z == 0)
        return true;
    return n >= z && strcmp(name + n - z, zone) == 0 &&
           (n == z || name[n - z - 1] == '.');
}

/* "transparent": ask the servers. libunbound's "nodefault" says the same in a file, and
 * does nothing when set as an option. Of a built-in zone above the stub the rest stays
 * built in. */
static void clear_builtin(struct setup *s, const char *builtin, const char *stub)
{
    if (is_in(builtin, stub))
        set_transparent(s, builtin);
    else if (is_in(stub, builtin))
        set_transparent(s, stub);
}

static void clear_builtins(struct setup *s, const char *stub)
{
    char zone[32];
    for (size_t i = 0; i < sizeof(builtin_zones) / sizeof(builtin_zones[0]); i++)
        clear_builtin(s, builtin_zones[i], stub);
    for (unsigned i = 16; i < 32; i++) { /* RFC 1918 */
        snprintf(zone, sizeof(zone), "%u.172.in-addr.arpa", i);
        clear_builtin(s, zone, stub);
    }
    for (unsigned i = 64; i < 128; i++) { /* RFC 6598 */
        snprintf(zone, sizeof(zone), "%u.100.in-addr.arpa", i);
        clear_builtin(s, zone, stub);
    }
}

static void address_text(struct netaddr a, char *out, size_t out_size)
{
    char ip[NETADDR_TEXT_MAX];
    ipaddr_format(a.ip, ip);
    snprintf(out, out_size, "%s@%u", ip, a.port);
}

static void set_servers(struct setup *s)
{
    const struct resolver_config *c = s->config;
    char address[NETADDR_TEXT_MAX + 8], zone[260];
    for (unsigned i = 0; i < c->forward_count; i++) {
        address_text(c->forward[i], address, sizeof(address));
        check(s, ub_ctx_set_fwd(s->ub, address), "forward");
    }
    for (unsigned i = 0; i < c->stub_count; i++) {
        const struct stub_settings *stub = &c->stubs[i];
        address_text(stub->address, address, sizeof(address));
        snprintf(zone, sizeof(zone), "%s.", stub->zone);
        check(s, ub_ctx_set_stub(s->ub, zone, address, 0), "a stub");
        bool again = false; /* a zone may have several servers */
        for (unsigned j = 0; j < i; j++)
            again |= strcmp(c->stubs[j].zone, stub->zone) == 0;
        if (!again)
            clear_builtins(s, stub->zone);
        if (stub->insecure)
            set(s, "domain-insecure:", zone);
    }
    for (unsigned i = 0; i < c->insecure_count; i++) {
        snprintf(zone, sizeof(zone), "%s.", c->insecure[i]);
        set(s, "domain-insecure:", zone);
    }
}

static void set_anchors(struct setup *s, enum anchor_choice choice)
{
    const struct resolver_config *c = s->config;
    char wrong[400];
    set(s, "module-config:", c->dnssec ? "validator iterator" : "iterator");
    if (!c->dnssec)
        return;
    for (unsigned i = 0; i < c->anchor_count; i++)
        if (choice == ANCHOR_REAL || i > 0)
            check(s, ub_ctx_add_ta_autr(s->ub, c->anchors[i].file), c->anchors[i].file);
    if (choice == ANCHOR_REAL)
        return;
    /* A digest that no key has. */
    snprintf(
        wrong, sizeof(wrong), "%s. 3600 IN DS 4711 8 2 %064d", c->anchors[0].zone, 1);
    check(s, ub_ctx_add_ta(s->ub, wrong), "an anchor");
}

static void ignore_answer(void *arg, int rcode, void *packet, int packet_len, int sec,
    char *why_bogus, int was_ratelimited)
{
    (void)arg, (void)rcode, (void)packet, (void)packet_len, (void)sec, (void)why_bogus;
    (void)was_ratelimited;
}

struct ub_ctx *resolver_ub_new(struct resolver *r, const struct resolver_config *c,
    enum anchor_choice anchor, char *why, size_t why_size)
{
    struct resolver_context *other = TAILQ_FIRST(&r->contexts);
    struct setup s = {.config = c, .why = why, .why_size = why_size, .ok = true};
    resolver_log_before_context(&r->log, other ? other->ub : NULL);
    s.ub = ub_ctx_create_event(loop_event_base(r->loop));
    if (!s.ub) {
        snprintf(why, why_size, "resolver: libunbound cannot start");
        return NULL;
    }
    resolver_log_attach(&r->log, s.ub);
    for (size_t i = 0; i < sizeof(fixed_options) / sizeof(fixed_options[0]); i++)
        set(&s, fixed_options[i].option, fixed_options[i].value);
    set_caches(&s);
    set_servers(&s);
    set_anchors(&s, anchor);
    if (s.ok)
        check(&s,
            ub_resolve_event(s.ub, "localhost.", DNS_A, 1, NULL, ignore_answer, NULL),
            c->dnssec ? "the settings or the trust anchor" : "the settings");
    if (s.ok)
        return s.ub;
    resolver_ub_free(r, s.ub);
    return NULL;
}

void resolver_ub_free(struct resolver *r, struct ub_ctx *ub)
{
    struct resolver_context *other = TAILQ_FIRST(&r->contexts);
    if (!ub)
        return;
    ub_ctx_delete(ub);
    /* The end of any context takes the log of all away. */
    if (other)
        resolver_log_attach(&r->log, other->ub);
}
