/* SPDX-License-Identifier: Apache-2.0 */
#include "dnsbl/resolver.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unbound-event.h>
#include <unbound.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/metrics.h"
#include "dnsbl/resolver_internal.h"
#include "dnsbl/wire.h"

#define ANSWER_ARENA_BYTES 512

/* ---- answering ---- */

static void deliver_answer(struct mail *mail, void *owner)
{
    struct dns_query *q = CONTAINER_OF(mail, struct dns_query, mail);
    q->done(q, owner);
}

static void count_result(const struct dns_query *q)
{
    if (q->answer.result == ERR_DNS_BOGUS)
        metric_add(METRIC_dns_bogus_total, 1);
    else if (q->answer.result == ERR_DNS_SERVFAIL)
        metric_add(METRIC_dns_servfail_total, 1);
    else if (q->answer.result == ERR_DNS_TIMEOUT || q->answer.result == ERR_OVERLOADED)
        metric_add(METRIC_dns_timeout_total, 1);
}

static void sweep(struct mail *mail, void *owner);

static void finish(struct dns_query *q)
{
    struct resolver *r = q->resolver;
    if (q->started) {
        TAILQ_REMOVE(&q->context->under_way, q, under_way);
        q->started = false;
        metric_set(METRIC_dns_under_way, --r->under_way);
        if (q->context->retired && TAILQ_EMPTY(&q->context->under_way) && !r->sweeping) {
            r->sweeping = true; /* not here: libunbound is below us on the stack */
            mailbox_post(loop_mailbox(r->loop), &r->sweep_mail, sweep);
        }
    }
    count_result(q);
    if (q->reply_to)
        mailbox_post(q->reply_to, &q->mail, deliver_answer);
    else
        q->done(q, NULL);
}

/* Any failure, in a sentence that names the question. */
static void say_why(struct dns_query *q, const char *reason)
{
    char question[WHY_MAX];
    resolver_question_text(q, question);
    q->answer.why = arena_printf(q->arena, "%s: %s%s%.250s", question,
        err_text(q->answer.result), *reason ? ": " : "", reason)
                        .ptr;
}

static void finish_failed(struct dns_query *q, enum err result, const char *reason)
{
    q->answer.result = result;
    q->answer.count = 0;
    say_why(q, reason);
    finish(q);
}

static void bogus_answer(struct dns_query *q, const char *why_bogus)
{
    const char *reason = why_bogus && *why_bogus
                             ? resolver_log_shorten(why_bogus)
                             : resolver_log_reason(&q->resolver->log, q->name, q->type);
    q->answer.security = DNS_BOGUS_ANSWER;
    q->answer.why_bogus = arena_strdup(q->arena, slice_head(slice_str(reason), 250));
    finish_failed(q, ERR_DNS_BOGUS, reason);
}

static void servfail_answer(struct dns_query *q, const char *what)
{
    const char *reason = resolver_log_reason(&q->resolver->log, q->name, q->type);
    finish_failed(q, ERR_DNS_SERVFAIL, *what ? what : reason);
}

static void unbound_answers(void *arg, int rcode, void *packet, int packet_len, int sec,
    char *why_bogus, int was_ratelimited)
{
    struct dns_query *q = arg;
    struct dns_answer *a = &q->answer;
    (void)was_ratelimited; /* off */
    if (sec == 1) {
        bogus_answer(q, why_bogus);
        return;
    }
    if (rcode != 0 || !packet || packet_len <= 0) {
        servfail_answer(q, "");
        return;
    }
    dns_wire_answer(
        slice_make(packet, (size_t)packet_len), q->name, q->type, q->arena, a);
    if (a->result == ERR_DNS_SERVFAIL) {
        servfail_answer(q, a->why);
        return;
    }
    a->security = sec == 2 ? DNS_SECURE : DNS_INSECURE;
    a->canonical_secure = sec == 2;
    a->why = "";
    if (a->result != ERR_OK)
        say_why(q, "");
    finish(q);
}

/* ---- asking ---- */

static void set_timeout(struct resolver *r)
{
    struct mono first = MONO_NEVER;
    struct resolver_context *c;
    TAILQ_FOREACH (c, &r->contexts, entry) {
        struct dns_query *q = TAILQ_FIRST(&c->under_way);
        if (q && q->asked.ns < first.ns)
            first = q->asked;
    }
    if (first.ns != MONO_NEVER.ns)
        timer_set(&r->timeout, mono_add_ms(first, QUESTION_TIMEOUT_MS));
}

static void time_out(struct timer *timer)
{
    struct resolver *r = CONTAINER_OF(timer, struct resolver, timeout);
    struct mono now = loop_now(r->loop);
    struct resolver_context *c;
    struct dns_query *q;
    TAILQ_FOREACH (c, &r->contexts, entry) {
        /* Asked in order, so the first is always the oldest. */
        while ((q = TAILQ_FIRST(&c->under_way)) &&
               mono_diff_ms(now, q->asked) >= QUESTION_TIMEOUT_MS) {
            ub_cancel(c->ub, q->async_id);
            finish_failed(q, ERR_DNS_TIMEOUT, "");
        }
    }
    set_timeout(r);
}

/* PTR takes an address as it is. */
static bool check_name(struct dns_query *q)
{
    struct ipaddr ip;
    struct slice text = slice_make(q->name, strnlen(q->name, sizeof(q->name)));
    if (text.len == sizeof(q->name))
        return false;
    if (q->type == DNS_PTR && ipaddr_parse(text, &ip)) {
        dns_reverse_name(ip, q->name);
        return true;
    }
    return dns_name_check(text, q->name);
}

static void begin_answer(struct resolver *r, struct dns_query *q)
{
    q->resolver = r;
    q->arena = arena_new(ANSWER_ARENA_BYTES);
    q->answer = (struct dns_answer){.why_bogus = "", .why = "", .canonical = q->name};
    q->asked = loop_now(r->loop);
    q->started = false;
    q->async_id = 0;
}

void resolver_start(struct resolver *r, struct dns_query *q)
{
    char name[260];
    begin_answer(r, q);
    metric_add(METRIC_dns_queries_total, 1);
    if (!check_name(q)) {
        q->name[sizeof(q->name) - 1] = '\0';
        finish_failed(q, ERR_DNS_BAD_NAME, "");
        return;
    }
    if (r->stopping || r->under_way >= RESOLVER_QUESTIONS_MAX) {
        finish_failed(q, r->stopping ? ERR_SHUTTING_DOWN : ERR_OVERLOADED, "");
        return;
    }
    q->context = r->current;
    q->started = true;
    TAILQ_INSERT_TAIL(&q->context->under_way, q, under_way);
    metric_set(METRIC_dns_under_way, ++r->under_way);
    snprintf(name, sizeof(name), "%s.", q->name);
    /* From the cache the answer comes before this returns, and q may be gone then; the id
     * is written before that. */
    struct ub_ctx *ub = q->context->ub;
    int result =
        ub_resolve_event(ub, name, (int)q->type, 1, q, unbound_answers, &q->async_id);
    if (result != 0)
        finish_failed(q, result == UB_SYNTAX ? ERR_DNS_BAD_NAME : ERR_DNS_SERVFAIL,
            ub_strerror(result));
    else if (r->timeout.at.ns == MONO_NEVER.ns)
        set_timeout(r);
}

static void question_arrives(struct mail *mail, void *owner)
{
    (void)owner;
    struct dns_query *q = CONTAINER_OF(mail, struct dns_query, mail);
    resolver_start(q->resolver, q);
}

void resolver_ask(struct resolver *r, struct dns_query *q)
{
    q->resolver = r;
    mailbox_post(loop_mailbox(r->loop), &q->mail, question_arrives);
}

void dns_query_release(struct dns_query *q)
{
    arena_free(q->arena);
    q->arena = NULL;
    q->answer.records = NULL;
    q->answer.count = 0;
}

/* ---- contexts ---- */

static void context_free(struct resolver_context *c)
{
    TAILQ_REMOVE(&c->resolver->contexts, c, entry);
    resolver_ub_free(c->resolver, c->ub);
    resolver_config_free(c->config);
    free(c);
}

/* Retired contexts with nothing left to answer. */
static void sweep(struct mail *mail, void *owner)
{
    (void)owner;
    struct resolver *r = CONTAINER_OF(mail, struct resolver, sweep_mail);
    struct resolver_context *c = TAILQ_FIRST(&r->contexts);
    r->sweeping = false;
    while (c) {
        struct resolver_context *next = TAILQ_NEXT(c, entry);
        if (c->retired && TAILQ_EMPTY(&c->under_way))
            context_free(c);
        c = next;
    }
}

/* Takes the configuration, also when it fails. A copy of the anchor that libunbound
 * cannot read (a disk that lied) is made again once. */
static struct resolver_context *context_new(
    struct resolver *r, struct resolver_config *config, char *why, size_t why_size)
{
    struct ub_ctx *ub = resolver_ub_new(r, config, ANCHOR_REAL, why, why_size);
    if (!ub && config->dnssec && resolver_anchors_prepare(config, true, why, why_size)) {
        ub = resolver_ub_new(r, config, ANCHOR_REAL, why, why_size);
        if (ub)
            log_say(LOG_EV_RESOLVER, "the trust anchor in %s was unreadable: copied anew",
                config->data_dir);
    }
    if (!ub) {
        resolver_config_free(config);
        return NULL;
    }
    struct resolver_context *c = mem_zalloc(sizeof(*c));
    c->ub = ub;
    c->resolver = r;
    c->config = config;
    TAILQ_INIT(&c->under_way);
    TAILQ_INSERT_TAIL(&r->contexts, c, entry);
    return c;
}

static void say_settings(const struct resolver_config *c, const char *what)
{
    struct record rec;
    record_init(&rec, LOG_EV_RESOLVER);
    record_str(&rec, "text", what);
    record_bool(&rec, "dnssec", c->dnssec);
    record_int(&rec, "anchors", c->anchor_count);
    record_int(&rec, "forward", c->forward_count);
    record_int(&rec, "stubs", c->stub_count);
    record_int(&rec, "insecure", c->insecure_count);
    record_emit(&rec);
}

static void retire_current(struct resolver *r)
{
    struct resolver_context *old = r->current;
    r->current = NULL;
    if (!old)
        return;
    old->retired = true;
    if (TAILQ_EMPTY(&old->under_way))
        context_free(old);
}

struct reload {
    struct mail mail;
    struct resolver *resolver;
    struct resolver_config *config;
};

static void refuse(const char *why)
{
    struct record rec;
    record_init(&rec, LOG_EV_CONFIG_PROBLEM);
    record_str(&rec, "text", "the resolver keeps its old settings");
    record_str(&rec, "why", why);
    record_emit(&rec);
}

static void take_config(struct resolver *r, struct resolver_config *config)
{
    char why[WHY_MAX];
    struct resolver_context *next = context_new(r, config, why, sizeof(why));
    if (!next) {
        refuse(why);
        return;
    }
    resolver_test_fini(&r->test); /* it speaks of the old ones */
    retire_current(r);
    r->current = next;
    say_settings(next->config, "settings changed, cache emptied");
    resolver_test_init(&r->test, r);
}

static void reload_arrives(struct mail *mail, void *owner)
{
    (void)owner;
    struct reload *reload = CONTAINER_OF(mail, struct reload, mail);
    struct resolver *r = reload->resolver;
    if (r->stopping || resolver_config_same(r->current->config, reload->config))
        resolver_config_free(reload->config);
    else
        take_config(r, reload->config);
    if (!r->stopping)
        resolver_test_start(&r->test);
    free(reload);
}

void resolver_reload(struct resolver *r, const struct settings *s)
{
    char why[WHY_MAX];
    struct resolver_config *config = resolver_config_new(s, why, sizeof(why));
    if (!config) {
        refuse(why);
        return;
    }
    struct reload *reload = mem_zalloc(sizeof(*reload));
    reload->resolver = r;
    reload->config = config;
    mailbox_post(loop_mailbox(r->loop), &reload->mail, reload_arrives);
}

/* ---- life ---- */

static void flush_log(void *ctx)
{
    (void)ctx;
    log_flush();
}

static void *run_thread(void *arg)
{
    struct resolver *r = arg;
    loop_run(r->loop);
    log_flush();
    return NULL;
}

/* Signals are the main thread's. */
static bool start_thread(struct resolver *r)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool ok = pthread_create(&r->thread, NULL, run_thread, r) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (ok)
        pthread_setname_np(r->thread, "resolver");
    return ok;
}

static void free_all(struct resolver *r)
{
    struct resolver_context *c;
    resolver_test_fini(&r->test);
    while ((c = TAILQ_FIRST(&r->contexts)))
        context_free(c);
    resolver_log_close(&r->log);
    timer_fini(&r->timeout);
    loop_free(r->loop);
    pthread_mutex_destroy(&r->health_lock);
    free(r);
}

struct resolver *resolver_new(const struct settings *s, char *why, size_t why_size)
{
    struct resolver_config *config = resolver_config_new(s, why, why_size);
    if (!config)
        return NULL;
    struct resolver *r = mem_zalloc(sizeof(*r));
    r->loop = loop_new();
    TAILQ_INIT(&r->contexts);
    pthread_mutex_init(&r->health_lock, NULL);
    timer_init(&r->timeout, r->loop, time_out);
    loop_after_round(r->loop, flush_log, NULL);
    resolver_test_init(&r->test, r);
    r->current = context_new(r, config, why, why_size);
    if (!r->current) {
        free_all(r);
        return NULL;
    }
    say_settings(r->current->config, "started");
    resolver_test_start(&r->test);
    if (!start_thread(r))
        die("batond: cannot start the resolver's thread");
    return r;
}

static void stop_arrives(struct mail *mail, void *owner)
{
    (void)owner;
    struct resolver *r = CONTAINER_OF(mail, struct resolver, stop_mail);
    struct resolver_context *c;
    struct dns_query *q;
    r->stopping = true;
    TAILQ_FOREACH (c, &r->contexts, entry) {
        while ((q = TAILQ_FIRST(&c->under_way))) {
            ub_cancel(c->ub, q->async_id);
            finish_failed(q, ERR_SHUTTING_DOWN, "");
        }
    }
    loop_stop(r->loop);
}

void resolver_free(struct resolver *r)
{
    if (!r)
        return;
    mailbox_post(loop_mailbox(r->loop), &r->stop_mail, stop_arrives);
    pthread_join(r->thread, NULL);
    /* What was posted while the thread ended: reloads, and questions, answered as
     * refused. */
    mailbox_drain(loop_mailbox(r->loop));
    free_all(r);
}

void resolver_set_health(
    struct resolver *r, enum resolver_health health, const char *text)
{
    pthread_mutex_lock(&r->health_lock);
    r->health = health;
    snprintf(r->health_text, sizeof(r->health_text), "%s", text);
    pthread_mutex_unlock(&r->health_lock);
    metric_set(METRIC_dns_validates, health == RESOLVER_VALIDATES);
}

enum resolver_health resolver_health(struct resolver *r, char *text, size_t text_size)
{
    pthread_mutex_lock(&r->health_lock);
    enum resolver_health health = r->health;
    snprintf(text, text_size, "%s", health == RESOLVER_FAILED ? r->health_text : "");
    pthread_mutex_unlock(&r->health_lock);
    return health;
}
