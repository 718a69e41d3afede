/* SPDX-License-Identifier: Apache-2.0 */
/* `status`: one object, from counters, the store's figures and the daemon's overview. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/metrics.h"
#include "node/control/handlers_internal.h"
#include "node/control/members.h"

/* Rates are over the last minute: a sample every five seconds, thirteen kept. */
#define SAMPLE_MS 5000
#define SAMPLES 13

enum { RATE_RECEIVED, RATE_DELIVERED, RATE_DEFERRED, RATE_BOUNCED, RATES };
static const enum metric rate_metrics[RATES] = {METRIC_received_total,
    METRIC_delivered_total, METRIC_deferred_total, METRIC_bounced_total};

struct rates {
    struct timer timer;
    unsigned count; /* samples taken, ever */
    struct {
        struct mono at;
        int64_t values[RATES];
    } samples[SAMPLES];
};

static void take_sample(struct rates *r)
{
    unsigned slot = r->count++ % SAMPLES;
    r->samples[slot].at = mono_now();
    for (unsigned i = 0; i < RATES; i++)
        r->samples[slot].values[i] = metric_read(rate_metrics[i]);
}

static void sample_due(struct timer *t)
{
    struct rates *r = CONTAINER_OF(t, struct rates, timer);
    take_sample(r);
    timer_set(t, mono_add_ms(mono_now(), SAMPLE_MS));
}

/* Per second since the oldest sample that is kept. */
static double rate(const struct rates *r, unsigned which)
{
    unsigned oldest = r->count > SAMPLES ? r->count % SAMPLES : 0;
    int64_t ms = mono_diff_ms(mono_now(), r->samples[oldest].at);
    int64_t n = metric_read(rate_metrics[which]) - r->samples[oldest].values[which];
    double per_s = ms >= 1000 ? (double)n * 1000.0 / (double)ms : 0;
    return (double)(int64_t)(per_s * 100 + 0.5) / 100;
}

static bool add_alarm(struct control_alarm *out, unsigned max, unsigned *count,
    const struct control_alarm *alarm)
{
    if (*count == max)
        return false;
    out[(*count)++] = *alarm;
    return true;
}

static void store_alarms(const struct control_sources *s, struct control_alarm *out,
    unsigned max, unsigned *count)
{
    struct store_stats st;
    struct control_alarm a = {.severity = CONTROL_DEGRADED};
    store_stats(s->store, &st);
    if (!st.intake_open) {
        snprintf(a.code, sizeof(a.code), "queue_full");
        snprintf(a.text, sizeof(a.text),
            "new mail is refused with 452: the queue holds %" PRIu64 " of %" PRIu64
            " MB, or the disk is full",
            st.used_bytes / 1000000, st.quota_bytes / 1000000);
        snprintf(a.next_step, sizeof(a.next_step),
            "see what is stuck (batonctl queue shape), free disk, or raise queue.quota");
        add_alarm(out, max, count, &a);
    } else if (st.quota_bytes && st.used_bytes > st.quota_bytes / 2) {
        snprintf(a.code, sizeof(a.code), "queue_filling");
        snprintf(a.text, sizeof(a.text),
            "the queue holds %" PRIu64 " %% of its quota; at 70 %% new mail is refused",
            st.used_bytes * 100 / st.quota_bytes);
        snprintf(a.next_step, sizeof(a.next_step),
            "see what is stuck (batonctl queue shape), or raise queue.quota");
        add_alarm(out, max, count, &a);
    }
    if (st.quarantined) {
        snprintf(a.code, sizeof(a.code), "quarantine");
        snprintf(a.text, sizeof(a.text),
            "%" PRIu64 " rows of mail were put aside as damaged or stale",
            st.quarantined);
        snprintf(a.next_step, sizeof(a.next_step),
            "batonctl quarantine ls, then release or drop; if rows are damaged, check "
            "disk and memory of this machine");
        a.severity = CONTROL_AT_RISK;
        add_alarm(out, max, count, &a);
    }
}

static void resolver_alarms(const struct control_sources *s, struct control_alarm *out,
    unsigned max, unsigned *count)
{
    struct control_alarm a = {.severity = CONTROL_DEGRADED, .code = "dnssec_broken"};
    char text[200] = "";
    if (!s->resolver ||
        resolver_health(s->resolver, text, sizeof(text)) != RESOLVER_FAILED)
        return;
    snprintf(a.text, sizeof(a.text), "DNSSEC validation does not work: %s", text);
    snprintf(a.next_step, sizeof(a.next_step),
        "check the clock, resolver.trust_anchor and resolver.forward; try batonctl "
        "resolve . "
        "NS");
    add_alarm(out, max, count, &a);
}

static void lease_alarms(const struct control_sources *s, struct control_alarm *out,
    unsigned max, unsigned *count)
{
    struct control_alarm a = {.severity = CONTROL_AT_RISK, .code = "no_lease"};
    struct control_overview o = {0};
    s->overview(s->ctx, &o);
    if (o.may_deliver)
        return;
    snprintf(a.text, sizeof(a.text), "this node may not deliver mail now");
    snprintf(a.next_step, sizeof(a.next_step),
        s->peers ? "it is starting or stopping, or see batonctl node ls and its log"
                 : "it is stopping, or its disk is stalled; see its log");
    add_alarm(out, max, count, &a);
}

unsigned control_usual_alarms(
    const struct control_sources *s, struct control_alarm *out, unsigned max)
{
    unsigned count = 0;
    store_alarms(s, out, max, &count);
    resolver_alarms(s, out, max, &count);
    lease_alarms(s, out, max, &count);
    return count;
}

/* The daemon's own alarms come first, and stand in for usual ones of the same code. */
static unsigned all_alarms(const struct control_sources *s, struct control_alarm *out)
{
    struct control_alarm usual[CONTROL_ALARMS_MAX];
    unsigned own = s->alarms ? s->alarms(s->ctx, out, CONTROL_ALARMS_MAX) : 0;
    unsigned count = own, n = control_usual_alarms(s, usual, CONTROL_ALARMS_MAX);
    for (unsigned i = 0; i < n; i++) {
        bool known = false;
        for (unsigned j = 0; j < own; j++)
            known = known || strcmp(out[j].code, usual[i].code) == 0;
        if (!known)
            add_alarm(out, CONTROL_ALARMS_MAX, &count, &usual[i]);
    }
    return count;
}

static json_t *alarms_json(
    const struct control_alarm *alarms, unsigned count, enum control_severity *worst)
{
    static const char *const severity[] = {"notice", "degraded", "at_risk"};
    json_t *list = json_array();
    for (unsigned i = 0; i < count; i++) {
        json_t *one = json_object();
        json_set_text(one, "code", slice_str(alarms[i].code));
        json_set_text(one, "text", slice_str(alarms[i].text));
        json_set_text(one, "next_step", slice_str(alarms[i].next_step));
        json_object_set_new(one, "severity", json_string(severity[alarms[i].severity]));
        json_object_set_new(one, "since", json_time(alarms[i].since));
        if (alarms[i].of_cluster)
            json_object_set_new(one, "cluster", json_true());
        json_array_append_new(list, one);
        if (alarms[i].severity > *worst)
            *worst = alarms[i].severity;
    }
    return list;
}

static json_t *count_json(enum metric m)
{
    return json_integer(metric_read(m));
}

static void add_lease(
    json_t *n, const struct engine_status *cl, const struct engine_member *self)
{
    bool fixed = cl->lease_ms == INT64_MAX;
    if (fixed)
        json_object_set_new(n, "lease", json_string("static"));
    json_object_set_new(n, "lease_ms", fixed ? json_null() : json_integer(cl->lease_ms));
    json_object_set_new(n, "epoch", json_integer(cl->epoch));
    json_object_set_new(
        n, "voter", json_boolean(self && (self->roles & ROLE_VOTER) != 0));
    json_object_set_new(n, "state", json_string(cl->state ? cl->state : ""));
}

/* `cl`: NULL on a node alone. */
static json_t *node_json(const struct control_handlers *h,
    const struct control_overview *o, const struct store_stats *st,
    const struct engine_status *cl)
{
    char config[20];
    json_t *n = json_object();
    const char *session = !cl ? "none" : "open";
    const struct engine_member *self = cl ? member_self(cl) : NULL;
    snprintf(config, sizeof(config), "%016" PRIx64, o->config_hash);
    json_set_text(n, "id", slice_str(h->sources.node));
    json_object_set_new(n, "member",
        json_string(self ? member_state_name(self->state)
                    : cl ? "joining"
                         : "up"));
    json_object_set_new(n, "view", json_string("alive"));
    json_object_set_new(
        n, "session", json_string(self ? member_session_name(self->session) : session));
    json_object_set_new(n, "role", json_string(o->role && o->role[0] ? o->role : "node"));
    json_set_text(n, "address", slice_str(o->address ? o->address : ""));
    json_set_text(n, "zone", slice_str(o->zone ? o->zone : ""));
    json_object_set_new(n, "version", json_string(BATON_VERSION));
    json_object_set_new(n, "config", json_string(config));
    json_object_set_new(
        n, "uptime_s", json_integer(mono_diff_ms(mono_now(), h->sources.started) / 1000));
    json_object_set_new(n, "lease", json_string(o->may_deliver ? "held" : "lost"));
    json_object_set_new(n, "view_age_s", json_integer(0));
    json_object_set_new(
        n, "queued", json_integer((json_int_t)(cl ? cl->owned : st->units)));
    json_object_set_new(
        n, "copies_held", json_integer(cl ? (json_int_t)cl->copies_held : 0));
    json_object_set_new(n, "stored", json_integer((json_int_t)st->units));
    if (cl)
        add_lease(n, cl, self);
    json_object_set_new(n, "received_total", count_json(METRIC_received_total));
    json_object_set_new(n, "delivered_total", count_json(METRIC_delivered_total));
    json_object_set_new(n, "deferred_total", count_json(METRIC_deferred_total));
    json_object_set_new(n, "bounced_total", count_json(METRIC_bounced_total));
    return n;
}

static json_t *queue_json(const struct control_overview *o, const struct store_stats *st,
    const struct engine_status *cl)
{
    json_t *q = json_object();
    json_object_set_new(
        q, "messages", json_integer((json_int_t)(cl ? cl->owned : st->units)));
    json_object_set_new(q, "recipients",
        json_integer((json_int_t)(cl ? cl->owned_rcpts : st->recipients)));
    json_object_set_new(q, "due", json_integer((json_int_t)o->due));
    json_object_set_new(q, "deferred", json_integer((json_int_t)o->deferred));
    json_object_set_new(q, "held", json_integer((json_int_t)(cl ? o->held : st->held)));
    json_object_set_new(q, "in_doubt", json_integer((json_int_t)o->in_doubt));
    json_object_set_new(
        q, "copies_short", json_integer(cl ? (json_int_t)cl->copies_short : 0));
    json_object_set_new(q, "quarantined", json_integer((json_int_t)st->quarantined));
    json_object_set_new(q, "oldest_age_s",
        o->oldest_age_s < 0 ? json_null() : json_integer(o->oldest_age_s));
    json_object_set_new(q, "used_bytes", json_integer((json_int_t)st->used_bytes));
    json_object_set_new(q, "quota_bytes", json_integer((json_int_t)st->quota_bytes));
    json_object_set_new(q, "intake_open", json_boolean(st->intake_open));
    return q;
}

static json_t *rates_json(const struct rates *r)
{
    return json_pack("{s:f,s:f,s:f,s:f}", "received_per_s", rate(r, RATE_RECEIVED),
        "delivered_per_s", rate(r, RATE_DELIVERED), "deferred_per_s",
        rate(r, RATE_DEFERRED), "bounced_per_s", rate(r, RATE_BOUNCED));
}

/* A copy to free, or NULL on a node alone. */
static struct engine_status *cluster_of(const struct control_sources *s)
{
    if (!s->peers)
        return NULL;
    struct engine_status *st = mem_alloc(sizeof(*st));
    s->peers->status(s->peers->ctx, st);
    return st;
}

static void one_setting(const char *key, uint64_t hash, void *ctx)
{
    char text[20];
    snprintf(text, sizeof(text), "%016" PRIx64, hash);
    json_object_set_new(ctx, key, json_string(text));
}

/* For the node that asks, so that it can say which of them differ. */
static void add_settings(json_t *status, const struct control_sources *s)
{
    json_t *all = json_object();
    s->settings(s->ctx, one_setting, all);
    json_object_set_new(status, "settings", all);
}

/* Mail of nodes that seem to be gone, as far as it is for us to tell. */
static void add_waiting(json_t *status, const struct engine_status *cl)
{
    json_t *all = json_object();
    for (unsigned i = 0; i < cl->member_count; i++) {
        const struct engine_member *m = &cl->members[i];
        if (m->waiting)
            json_object_set_new(all, m->name,
                json_pack("{s:I,s:I}", "messages", (json_int_t)m->waiting, "recipients",
                    (json_int_t)m->waiting_rcpts));
    }
    json_object_set_new(status, "waiting", all);
}

static void handle_status(struct control_request *req, json_t *args, void *ctx)
{
    struct control_handlers *h = ctx;
    struct control_alarm alarms[CONTROL_ALARMS_MAX];
    enum control_severity worst = CONTROL_NOTICE;
    struct control_overview o = {.oldest_age_s = -1, .address = ""};
    struct store_stats st;
    struct engine_status *cl = cluster_of(&h->sources);
    json_t *s = json_object(), *nodes = json_array();
    h->sources.overview(h->sources.ctx, &o);
    store_stats(h->sources.store, &st);
    json_array_append_new(nodes, node_json(h, &o, &st, cl));
    json_object_set_new(s, "cluster",
        cl ? cluster_json(cl)
           : json_pack("{s:s,s:i,s:i,s:i}", "name", "", "nodes", 1, "copies", 1,
                 "min_copies", 1));
    json_object_set_new(s, "nodes", nodes);
    json_object_set_new(s, "queue", queue_json(&o, &st, cl));
    if (json_is_true(json_object_get(args, "part")) && h->sources.settings)
        add_settings(s, &h->sources);
    if (cl)
        add_waiting(s, cl);
    json_object_set_new(s, "rates", rates_json(h->rates));
    json_object_set_new(s, "egress", json_array());
    json_object_set_new(
        s, "alarms", alarms_json(alarms, all_alarms(&h->sources, alarms), &worst));
    free(cl);
    control_reply(req, s);
    control_finish(req, worst == CONTROL_AT_RISK ? 3 : worst == CONTROL_DEGRADED ? 2 : 0);
}

/* A line a node; here: ours. */
static void handle_nodes(struct control_request *req, json_t *args, void *ctx)
{
    struct control_handlers *h = ctx;
    struct control_overview o = {.oldest_age_s = -1, .address = ""};
    struct engine_status *cl = cluster_of(&h->sources);
    struct store_stats st;
    (void)args;
    h->sources.overview(h->sources.ctx, &o);
    store_stats(h->sources.store, &st);
    control_reply(req, node_json(h, &o, &st, cl));
    free(cl);
    control_finish(req, 0);
}

void status_register(struct control *c, struct control_handlers *h)
{
    h->rates = mem_zalloc(sizeof(*h->rates));
    timer_init(&h->rates->timer, h->loop, sample_due);
    sample_due(&h->rates->timer);
    control_register(c, "status", CONTROL_READS, handle_status, h);
    control_register(c, "node ls", CONTROL_READS, handle_nodes, h);
}

void status_free(struct control_handlers *h)
{
    timer_fini(&h->rates->timer);
    free(h->rates);
}
