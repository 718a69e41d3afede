/* SPDX-License-Identifier: Apache-2.0 */
/* What wakes somebody at night, in words: a condition, since when, and the next step.
 * Each is looked at once a second, raised once, and cleared by itself when it is over. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "base/alloc.h"
#include "base/log.h"
#include "node/batond.h"
#include "node/control/cluster_alarms.h"

#define DAY_MS INT64_C(86400000)
#define CERTIFICATE_WARN_DAYS 14
/* The queue is full when it has no room for a message of this size. */
#define ORDINARY_BYTES 65536
/* From here on intake and copies go elsewhere. */
#define SLOW_DISK_MS 3000

/* True when the condition holds; then `text` says it. */
typedef bool look_fn(struct node *n, char *text, size_t size);

static bool queue_full(struct node *n, char *text, size_t size)
{
    struct store_stats s;
    if (store_admit(n->store, ORDINARY_BYTES) == ERR_OK)
        return false;
    store_stats(n->store, &s);
    snprintf(text, size,
        "%s (the queue uses %llu of %llu MB): new mail is refused with 452",
        s.disk_full ? "the disk is full" : "the queue is full",
        (unsigned long long)(s.used_bytes >> 20),
        (unsigned long long)(s.quota_bytes >> 20));
    return true;
}

static bool mail_aside(struct node *n, char *text, size_t size)
{
    struct store_stats s;
    store_stats(n->store, &s);
    snprintf(text, size, "%llu rows of mail were put aside as damaged or stale",
        (unsigned long long)s.quarantined);
    return s.quarantined > 0;
}

static bool storage_slow(struct node *n, char *text, size_t size)
{
    int64_t ms = store_commit_age_ms(n->store);
    if (ms < SLOW_DISK_MS)
        return false;
    snprintf(text, size,
        "the disk under data_dir has not finished a write for %lld seconds",
        (long long)(ms / 1000));
    return true;
}

static bool resolver_broken(struct node *n, char *text, size_t size)
{
    return resolver_health(n->resolver, text, size) == RESOLVER_FAILED;
}

static bool resolver_silent(struct node *n, char *text, size_t size)
{
    if (mono_diff_ms(mono_now(), n->started) < 60000 ||
        resolver_health(n->resolver, text, size) != RESOLVER_UNTESTED)
        return false;
    snprintf(text, size, "no name server has answered since the start");
    return true;
}

static bool clock_untrusted(struct node *n, char *text, size_t size)
{
    if (rights_clock_trusted(n->rights, wall_now()))
        return false;
    snprintf(text, size, "the clock has jumped: mail is delivered, but none expires%s",
        n->engine ? ", and old copies wait until members agree with it" : "");
    return true;
}

static bool certificate_ends(struct node *n, char *text, size_t size)
{
    struct wall ends = intake_certificate_expires(n->intake);
    int64_t left = ends.ms - wall_now().ms;
    if (ends.ms == 0 || left > CERTIFICATE_WARN_DAYS * DAY_MS)
        return false;
    if (left <= 0)
        snprintf(text, size, "the TLS certificate has expired");
    else
        snprintf(text, size, "the TLS certificate expires in %lld days",
            (long long)(left / DAY_MS));
    return true;
}

static bool few_descriptors(struct node *n, char *text, size_t size)
{
    struct rlimit limit;
    unsigned wanted =
        n->settings->limits.connections + n->settings->limits.delivery_connections + 200;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted)
        return false;
    snprintf(text, size, "%llu file descriptors allowed, %u connections configured",
        (unsigned long long)limit.rlim_cur, wanted);
    return true;
}

static const struct {
    const char *code;
    look_fn *look;
    const char *next_step;
} conditions[] = {
    {"queue_full", queue_full,
        "free disk space or raise queue.quota; batonctl queue shape shows what fills it"},
    {"quarantine", mail_aside,
        "batonctl quarantine ls, then release or drop; if rows are damaged, check disk "
        "and memory of this machine"},
    {"storage_slow", storage_slow,
        "look at dmesg and iostat; in a cluster the others go on: replace the disk"},
    {"dnssec_broken", resolver_broken,
        "check the clock, resolver.trust_anchor and the forwarders; batonctl resolve . "
        "SOA"},
    {"dns_silent", resolver_silent,
        "check the network and resolver.forward; batonctl resolve . NS"},
    {"clock_untrusted", clock_untrusted,
        "timedatectl shows the clock; when it is right: batonctl clock accept"},
    {"certificate_ends", certificate_ends,
        "renew the file of tls.certificate, then batonctl reload"},
    {"few_descriptors", few_descriptors,
        "raise LimitNOFILE in the unit, or lower limits.connections"},
};
#define CONDITIONS (sizeof(conditions) / sizeof(conditions[0]))
#define ALARMS (CONDITIONS + CLUSTER_ALARMS)

struct node_alarms {
    bool raised[ALARMS];
    struct alarm alarms[ALARMS];
};

struct node_alarms *alarms_new(void)
{
    return mem_zalloc(sizeof(struct node_alarms));
}

void alarms_free(struct node_alarms *a)
{
    free(a);
}

static void tell(const struct alarm *alarm, enum log_event event)
{
    struct record r;
    record_init(&r, event);
    record_str(&r, "code", alarm->code);
    record_str(&r, "text", alarm->text);
    record_str(&r, "next_step", alarm->next_step);
    record_emit(&r);
}

static void judge(struct node_alarms *a, size_t i, bool holds, const char *text)
{
    struct alarm *alarm = &a->alarms[i];
    if (holds)
        snprintf(alarm->text, sizeof(alarm->text), "%s", text);
    if (holds == a->raised[i])
        return;
    a->raised[i] = holds;
    alarm->since = wall_now();
    tell(alarm, holds ? LOG_EV_ALARM : LOG_EV_ALARM_CLEARED);
}

/* A node that has just started finds its way: nobody is to be woken by a restart. */
static bool is_young(const struct node *n)
{
    return mono_diff_ms(mono_now(), n->started) < 2 * n->settings->cluster.lease_ms;
}

static void look_at_cluster(struct node *n)
{
    struct engine_status *st = mem_alloc(sizeof(*st));
    engine_status(n->engine, st);
    for (size_t i = 0; i < CLUSTER_ALARMS; i++) {
        const struct cluster_alarm *c = &cluster_alarms[i];
        struct alarm *alarm = &n->alarms->alarms[CONDITIONS + i];
        char text[256] = "";
        alarm->code = c->code;
        alarm->next_step = c->next_step;
        alarm->severity = c->severity;
        alarm->of_cluster = c->of_cluster;
        bool holds = c->look(st, text, sizeof(text));
        judge(n->alarms, CONDITIONS + i, holds && !(c->patient && is_young(n)), text);
    }
    free(st);
}

void alarms_look(struct node *n)
{
    for (size_t i = 0; i < CONDITIONS; i++) {
        struct alarm *alarm = &n->alarms->alarms[i];
        char text[256] = "";
        alarm->code = conditions[i].code;
        alarm->next_step = conditions[i].next_step;
        alarm->severity = CONTROL_DEGRADED;
        judge(n->alarms, i, conditions[i].look(n, text, sizeof(text)), text);
    }
    if (n->engine)
        look_at_cluster(n);
}

unsigned alarms_list(const struct node_alarms *a, struct alarm *out, unsigned max)
{
    unsigned count = 0;
    for (size_t i = 0; i < ALARMS && count < max; i++)
        if (a->raised[i])
            out[count++] = a->alarms[i];
    return count;
}
