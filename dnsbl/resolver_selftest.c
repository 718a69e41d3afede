/* SPDX-License-Identifier: Apache-2.0 */
/* Does validation really work? A resolver that validates nothing is the silent end of
 * every promise built on DNSSEC; one that finds everything bogus stops all mail. So at
 * start, after a reload and every hour two fresh contexts are asked (the cache of the one
 * in use would only tell of the past): one set up like it, in which the zones of the
 * trust anchors must be secure, and one whose first anchor matches no key, in which the
 * same zone must be bogus. Asking afresh also makes libunbound look at the keys, which
 * RFC 5011 wants anyway. */
#include <string.h>
#include <unbound-event.h>
#include <unbound.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/metrics.h"
#include "dnsbl/resolver_internal.h"

#define TEST_EVERY_MS 3600000
#define TEST_TIMEOUT_MS 25000
#define RETRY_FIRST_MS 10000
#define RETRY_MAX_MS 300000

static void describe_anchor_failure(
    const char *name, enum dns_security security, const char *why_bogus, char *text)
{
    const char *zone = *name ? name : ".";
    if (security == DNS_BOGUS_ANSWER)
        snprintf(text, WHY_MAX,
            "zone %.60s does not validate against its trust anchor (%.100s); check the "
            "clock, "
            "resolver.trust_anchor, and whether a forwarder strips DNSSEC",
            zone, *why_bogus ? why_bogus : "no reason given");
    else
        snprintf(text, WHY_MAX,
            "zone %.60s has a trust anchor, but its answers are not validated; check the "
            "copy "
            "of the anchor in data_dir (all keys revoked?) and resolver.insecure",
            zone);
}

enum resolver_health resolver_test_judge(enum probe_kind kind, const char *name,
    bool answered, enum dns_security security, const char *why_bogus, char text[WHY_MAX])
{
    text[0] = '\0';
    if (!answered)
        return RESOLVER_UNTESTED;
    if (kind == PROBE_ANCHOR ? security == DNS_SECURE : security == DNS_BOGUS_ANSWER)
        return RESOLVER_VALIDATES;
    if (kind == PROBE_ANCHOR)
        describe_anchor_failure(name, security, why_bogus, text);
    else if (kind == PROBE_WRONG_ANCHOR)
        snprintf(text, WHY_MAX,
            "zone %.60s was accepted (%s) under an anchor that none of its keys matches: "
            "nothing is validated; check resolver.insecure and stubs with insecure: true",
            *name ? name : ".", dns_security_name(security));
    else
        snprintf(text, WHY_MAX,
            "%.100s is %s and should be bogus; check resolver.bogus_test, "
            "resolver.insecure "
            "and whether a forwarder validates in our place",
            name, dns_security_name(security));
    return RESOLVER_FAILED;
}

enum resolver_health resolver_test_verdict(const struct probe *probes, unsigned count)
{
    bool anchor = false, wrong = false;
    for (unsigned i = 0; i < count; i++) {
        if (probes[i].verdict == RESOLVER_FAILED)
            return RESOLVER_FAILED;
        if (probes[i].verdict != RESOLVER_VALIDATES)
            continue;
        anchor |= probes[i].kind == PROBE_ANCHOR;
        wrong |= probes[i].kind == PROBE_WRONG_ANCHOR;
    }
    /* A private zone whose servers are down does not hide that the others validate. */
    return anchor && wrong ? RESOLVER_VALIDATES : RESOLVER_UNTESTED;
}

static void probe_answered(void *arg, int rcode, void *packet, int packet_len, int sec,
    char *why_bogus, int was_ratelimited)
{
    struct probe *p = arg;
    struct resolver_test *t = p->test;
    char text[WHY_MAX];
    (void)packet, (void)packet_len, (void)was_ratelimited;
    if (!p->open)
        return;
    p->open = false;
    t->open--;
    bool answered = sec != 0 || rcode == 0;
    if (answered && sec == 0 && packet_len > 3)
        answered = (((const unsigned char *)packet)[3] & 15) != 2; /* a kept SERVFAIL */
    enum dns_security security = sec == 1   ? DNS_BOGUS_ANSWER
                                 : sec == 2 ? DNS_SECURE
                                            : DNS_INSECURE;
    p->verdict = resolver_test_judge(p->kind, p->name, answered, security,
        resolver_log_shorten(why_bogus ? why_bogus : ""), text);
    if (p->verdict == RESOLVER_FAILED && !t->text[0])
        snprintf(t->text, sizeof(t->text), "%s", text);
    if (t->open == 0) /* the contexts end in the timer: libunbound is below us now */
        timer_set(&t->timer, loop_now(t->resolver->loop));
}

static void add_probe(struct resolver_test *t, enum probe_kind kind, const char *name)
{
    struct probe *p = &t->probes[t->probe_count++];
    *p = (struct probe){
        .test = t, .kind = kind, .verdict = RESOLVER_UNTESTED, .open = true};
    snprintf(p->name, sizeof(p->name), "%s", name);
    t->open++;
}

static void list_probes(struct resolver_test *t, const struct resolver_config *c)
{
    char bogus[256];
    t->probe_count = t->open = 0;
    for (unsigned i = 0; i < c->anchor_count; i++)
        add_probe(t, PROBE_ANCHOR, c->anchors[i].zone);
    add_probe(t, PROBE_WRONG_ANCHOR, c->anchors[0].zone);
    snprintf(bogus, sizeof(bogus), "%.254s", c->bogus_name);
    if (*bogus)
        add_probe(t, PROBE_BOGUS_NAME, bogus);
}

static void ask_probes(struct resolver_test *t)
{
    /* Answers may come while we ask: `open` was counted before. */
    for (unsigned i = 0; i < t->probe_count; i++) {
        struct probe *p = &t->probes[i];
        char name[260];
        enum dns_type type = p->kind == PROBE_BOGUS_NAME ? DNS_A : DNS_SOA;
        snprintf(name, sizeof(name), "%s.", p->name);
        struct ub_ctx *ub = p->kind == PROBE_WRONG_ANCHOR ? t->wrong : t->real;
        if (ub_resolve_event(ub, name, (int)type, 1, p, probe_answered, NULL) != 0)
            probe_answered(p, UB_SERVFAIL, NULL, 0, 0, NULL, 0);
    }
}

static void end_contexts(struct resolver_test *t)
{
    resolver_ub_free(t->resolver, t->real);
    resolver_ub_free(t->resolver, t->wrong);
    t->real = t->wrong = NULL;
    t->running = false;
}

static void say(
    struct resolver_test *t, enum resolver_health was, enum resolver_health is)
{
    struct record r;
    if (is == RESOLVER_FAILED) {
        record_init(&r, LOG_EV_ALARM);
        record_str(&r, "code", "dnssec");
        record_str(&r, "text", t->text);
    } else if (is == RESOLVER_VALIDATES && was == RESOLVER_FAILED) {
        record_init(&r, LOG_EV_ALARM_CLEARED);
        record_str(&r, "code", "dnssec");
    } else {
        record_init(&r, LOG_EV_RESOLVER);
        record_str(&r, "text",
            is == RESOLVER_VALIDATES ? "DNSSEC validation was tested and works"
                                     : "DNSSEC validation is untested: nobody answers");
    }
    record_emit(&r);
}

/* An answer beats no answer: when nobody answers, what was last known stays. */
static void conclude(struct resolver_test *t)
{
    struct resolver *r = t->resolver;
    enum resolver_health was = r->health;
    enum resolver_health is = resolver_test_verdict(t->probes, t->probe_count);
    end_contexts(t);
    if (is == RESOLVER_UNTESTED) {
        if (was == RESOLVER_UNTESTED && !t->said_untested)
            say(t, was, is);
        t->said_untested = true;
    } else {
        if (is != was)
            say(t, was, is);
        resolver_set_health(r, is, t->text);
    }
    int64_t wait = TEST_EVERY_MS;
    if (is != RESOLVER_VALIDATES) {
        wait = t->retry_ms;
        t->retry_ms = wait * 2 < RETRY_MAX_MS ? wait * 2 : RETRY_MAX_MS;
    } else {
        t->retry_ms = RETRY_FIRST_MS;
    }
    timer_set(&t->timer, mono_add_ms(loop_now(r->loop), wait));
}

static void begin(struct resolver_test *t)
{
    struct resolver *r = t->resolver;
    const struct resolver_config *c = r->current->config;
    char why[WHY_MAX];
    t->text[0] = '\0';
    list_probes(t, c);
    t->running = true;
    t->real = resolver_ub_new(r, c, ANCHOR_REAL, why, sizeof(why));
    t->wrong = t->real ? resolver_ub_new(r, c, ANCHOR_WRONG, why, sizeof(why)) : NULL;
    timer_set(&t->timer, mono_add_ms(loop_now(r->loop), TEST_TIMEOUT_MS));
    if (t->wrong) {
        ask_probes(t);
        return;
    }
    snprintf(t->text, sizeof(t->text), "the self-test cannot start: %.200s", why);
    t->probes[0].verdict = RESOLVER_FAILED;
    conclude(t);
}

static void timer_fires(struct timer *timer)
{
    struct resolver_test *t = CONTAINER_OF(timer, struct resolver_test, timer);
    if (t->running)
        conclude(t);
    else
        begin(t);
}

void resolver_test_init(struct resolver_test *t, struct resolver *r)
{
    memset(t, 0, sizeof(*t));
    t->resolver = r;
    t->retry_ms = RETRY_FIRST_MS;
    timer_init(&t->timer, r->loop, timer_fires);
    resolver_set_health(r, RESOLVER_UNTESTED, "");
}

void resolver_test_start(struct resolver_test *t)
{
    struct resolver *r = t->resolver;
    if (!r->current->config->dnssec) {
        resolver_set_health(r, RESOLVER_NO_DNSSEC, "");
        return;
    }
    t->retry_ms = RETRY_FIRST_MS;
    if (!t->running)
        timer_set(&t->timer, loop_now(r->loop));
}

void resolver_test_fini(struct resolver_test *t)
{
    end_contexts(t);
    timer_fini(&t->timer);
}
