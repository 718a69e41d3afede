/* SPDX-License-Identifier: Apache-2.0 */
/* The callout: find the primary's addresses, connect, EHLO, MAIL FROM:<>, RCPT TO, QUIT.
 * Only the reply to RCPT says anything about the recipient; all else means that the
 * primary cannot be asked. */
#include "node/intake/verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "base/alloc.h"
#include "proto/smtp_path.h"
#include "proto/smtp_reply.h"

#define PROBES_MAX 16   /* at one time on one loop */
#define WAITING_MAX 500 /* questions, those under way too */
#define HOSTS_MAX 4
#define ADDRESSES_MAX 4
#define CONNECT_MS 8000
#define TOTAL_MS 25000

struct asker {
    STAILQ_ENTRY(asker) link;
    void (*done)(void *ctx, enum verify_answer answer, const char *why);
    void *ctx;
};

enum step {
    STEP_MX,
    STEP_HOST,
    STEP_GREETING,
    STEP_EHLO,
    STEP_HELO,
    STEP_MAIL,
    STEP_RCPT
};

struct probe {
    TAILQ_ENTRY(probe) link;
    struct verifier *v; /* NULL: given up, only a DNS answer is awaited */
    STAILQ_HEAD(, asker) askers;
    struct settings *settings;
    const struct relay_domain_settings *domain;
    char address[SMTP_ADDRESS_MAX + 1];
    char routing[SMTP_DOMAIN_MAX + 2];
    bool running;
    enum step step;
    struct timer deadline;
    bool dns_busy;
    struct mx_query mx;
    struct host_query host;
    struct {
        char name[256];
        uint16_t port;
    } hosts[HOSTS_MAX];
    unsigned host_count, host_next;
    struct netaddr targets[ADDRESSES_MAX];
    unsigned target_count, target_next;
    struct conn *conn;
    struct smtp_reply_parser reply;
    char why[300];
};

TAILQ_HEAD(probes, probe);
struct verifier {
    struct conns *conns;
    struct resolver *resolver;
    struct verify_memory *memory;
    struct probes probes;
    unsigned asking, running;
};

static void go_on(struct probe *p);
static void run_next(struct verifier *v);

struct verifier *verifier_new(
    struct conns *conns, struct resolver *resolver, struct verify_memory *memory)
{
    struct verifier *v = mem_zalloc(sizeof(*v));
    v->conns = conns;
    v->resolver = resolver;
    v->memory = memory;
    TAILQ_INIT(&v->probes);
    return v;
}

unsigned verifier_asking(const struct verifier *v)
{
    return v->asking;
}

/* --- the end of a probe --- */

static void free_probe(struct probe *p)
{
    smtp_reply_parser_fini(&p->reply);
    settings_unref(p->settings);
    free(p);
}

static void tell_all(struct probe *p, enum verify_answer answer)
{
    struct asker *a;
    while ((a = STAILQ_FIRST(&p->askers))) {
        STAILQ_REMOVE_HEAD(&p->askers, link);
        if (p->v)
            p->v->asking--;
        a->done(a->ctx, answer, p->why);
        free(a);
    }
}

/* Takes the probe out of the verifier, then answers: an answer may ask anew. */
static void end(struct probe *p, enum verify_answer answer)
{
    struct verifier *v = p->v;
    TAILQ_REMOVE(&v->probes, p, link);
    if (p->running)
        v->running--;
    timer_fini(&p->deadline);
    conn_finish(p->conn, false);
    p->conn = NULL;
    tell_all(p, answer);
    p->v = NULL;
    if (!p->dns_busy)
        free_probe(p);
}

static struct mono now_of(const struct probe *p)
{
    return loop_now(conns_loop(p->v->conns));
}

static void known(struct probe *p, bool exists)
{
    struct verifier *v = p->v;
    verify_remember(v->memory, slice_str(p->address), exists, now_of(p));
    end(p, exists ? VERIFY_YES : VERIFY_NO);
    run_next(v);
}

/* The primary cannot be asked: the settings say what then. */
static void down(struct probe *p)
{
    struct verifier *v = p->v;
    enum verify_answer answer = VERIFY_DEFER;
    if (p->domain->verify_when_down == VERIFY_DOWN_ACCEPT)
        answer = VERIFY_YES;
    else if (p->domain->verify_when_down == VERIFY_DOWN_ACCEPT_KNOWN &&
             verify_was_valid(v->memory, slice_str(p->address), now_of(p)))
        answer = VERIFY_YES;
    end(p, answer);
    run_next(v);
}

/* --- the conversation --- */

static void say(struct probe *p, enum step step, const char *command,
    const char *argument, const char *tail)
{
    p->step = step;
    conn_write(p->conn, slice_str(command));
    conn_write(p->conn, slice_str(argument));
    conn_write(p->conn, slice_str(tail));
    conn_flush(p->conn);
}

static bool is_ascii(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text > 127)
            return false;
    return true;
}

static void next_target(struct probe *p, const char *what)
{
    char where[NETADDR_TEXT_MAX];
    netaddr_format(p->targets[p->target_next - 1], where);
    snprintf(
        p->why, sizeof(p->why), "Recipient cannot be verified now: %s %s", where, what);
    conn_finish(p->conn, false);
    p->conn = NULL;
    go_on(p);
}

/* 552 is a full mailbox (RFC 5321 4.5.3.1.10): there is one. */
static void rcpt_answered(struct probe *p, int code)
{
    conn_write(p->conn, SLICE("QUIT\r\n"));
    if (code / 100 == 2 || code == 552)
        known(p, true);
    else if (code / 100 == 5)
        known(p, false);
    else
        next_target(p, "defers it");
}

static void answered(struct probe *p, int code)
{
    const char *name = p->settings->hostname;
    bool good = code / 100 == 2;
    switch (p->step) {
    case STEP_GREETING:
        if (good)
            say(p, STEP_EHLO, "EHLO ", name, "\r\n");
        else
            next_target(p, "does not greet");
        break;
    case STEP_EHLO:
        if (!good) {
            say(p, STEP_HELO, "HELO ", name, "\r\n");
            break;
        }
        /* fall through */
    case STEP_HELO:
        if (good)
            say(p, STEP_MAIL, "MAIL FROM:<>", is_ascii(p->address) ? "" : " SMTPUTF8",
                "\r\n");
        else
            next_target(p, "refuses HELO");
        break;
    case STEP_MAIL:
        if (good)
            say(p, STEP_RCPT, "RCPT TO:<", p->address, ">\r\n");
        else
            next_target(p, "refuses mail from <>");
        break;
    case STEP_RCPT:
        rcpt_answered(p, code);
        break;
    case STEP_MX:
    case STEP_HOST:
        break;
    }
}

static size_t on_data(struct conn *c, struct slice bytes, void *owner)
{
    struct probe *p = owner;
    size_t used = 0, n = 0;
    while (used < bytes.len) {
        struct conn *before = p->conn;
        enum parse parsed = smtp_reply_feed(&p->reply, slice_from(bytes, used), &n);
        if (parsed == PARSE_MORE)
            break;
        if (parsed == PARSE_BAD) {
            next_target(p, "does not speak SMTP");
            break;
        }
        used += n;
        /* A reply that nobody asked for would answer the next command: one at a time. */
        if (used < bytes.len) {
            next_target(p, "talks out of turn");
            break;
        }
        (void)before;
        answered(p, p->reply.reply.code);
        break; /* the probe may be gone */
    }
    (void)c;
    return bytes.len;
}

static void on_connected(struct conn *c, void *owner)
{
    struct probe *p = owner;
    (void)c;
    p->step = STEP_GREETING;
}

static void on_closed(struct conn *c, enum err why, void *owner)
{
    struct probe *p = owner;
    (void)why;
    next_target(p, conn_why(c));
}

static const struct conn_handler events = {
    .connected = on_connected, .data = on_data, .closed = on_closed};

/* --- where the primary is --- */

static void connect_to(struct probe *p)
{
    struct conn_target target = {
        .to = p->targets[p->target_next++], .timeout_ms = CONNECT_MS};
    smtp_reply_parser_fini(&p->reply);
    smtp_reply_parser_init(&p->reply);
    p->conn = conn_connect(p->v->conns, &target, &events, p);
}

static void add_target(struct probe *p, struct ipaddr ip, uint16_t port)
{
    const struct settings *s = p->settings;
    for (unsigned i = 0; i < s->self.address_count; i++)
        if (ipaddr_eq(s->self.addresses[i], ip))
            return;
    if (p->target_count < ADDRESSES_MAX)
        p->targets[p->target_count++] = (struct netaddr){ip, port};
}

static void add_host(struct probe *p, const char *name, uint16_t port)
{
    if (p->host_count == HOSTS_MAX)
        return;
    snprintf(p->hosts[p->host_count].name, sizeof(p->hosts[0].name), "%s", name);
    p->hosts[p->host_count++].port = port;
}

/* An answer of DNS after the probe was given up. */
static bool is_orphan(struct probe *p)
{
    p->dns_busy = false;
    if (p->v)
        return false;
    free_probe(p);
    return true;
}

static void host_found(struct host_query *q, void *owner)
{
    struct probe *p = CONTAINER_OF(q, struct probe, host);
    (void)owner;
    if (is_orphan(p))
        return;
    if (q->found.result != ERR_OK)
        snprintf(p->why, sizeof(p->why), "Recipient cannot be verified now: %s: %s",
            q->name, err_text(q->found.result));
    for (unsigned i = 0; i < q->found.count; i++)
        add_target(p, q->found.ips[i], p->hosts[p->host_next - 1].port);
    go_on(p);
}

static void ask_host(struct probe *p)
{
    p->host = (struct host_query){.want_v4 = p->settings->delivery.ipv4,
        .want_v6 = p->settings->delivery.ipv6,
        .reply_to = loop_mailbox(conns_loop(p->v->conns)),
        .done = host_found};
    snprintf(p->host.name, sizeof(p->host.name), "%s", p->hosts[p->host_next++].name);
    p->step = STEP_HOST;
    p->dns_busy = true;
    resolver_ask_host(p->v->resolver, &p->host);
}

static bool is_us(const struct settings *s, const char *name)
{
    if (slice_eq_nocase(slice_str(s->hostname), slice_str(name)))
        return true;
    for (unsigned i = 0; i < s->self.names.count; i++)
        if (slice_eq_nocase(slice_str(s->self.names.items[i]), slice_str(name)))
            return true;
    return false;
}

static void mx_found(struct mx_query *q, void *owner)
{
    struct probe *p = CONTAINER_OF(q, struct probe, mx);
    (void)owner;
    bool orphan = !p->v;
    unsigned best_us = UINT16_MAX + 1;
    if (q->set.result != ERR_OK && !orphan)
        snprintf(p->why, sizeof(p->why), "Recipient cannot be verified now: %s: %s",
            q->domain, err_text(q->set.result));
    for (unsigned i = 0; !orphan && i < q->set.count; i++)
        if (is_us(p->settings, q->set.hosts[i].name) &&
            q->set.hosts[i].preference < best_us)
            best_us = q->set.hosts[i].preference;
    for (unsigned i = 0; !orphan && i < q->set.count; i++)
        if (q->set.hosts[i].preference < best_us)
            add_host(p, q->set.hosts[i].name, (uint16_t)p->settings->delivery.port);
    mx_query_release(q);
    if (!is_orphan(p))
        go_on(p);
}

static void ask_mx(struct probe *p)
{
    p->mx = (struct mx_query){
        .reply_to = loop_mailbox(conns_loop(p->v->conns)), .done = mx_found};
    snprintf(p->mx.domain, sizeof(p->mx.domain), "%.255s", p->routing);
    p->step = STEP_MX;
    p->dns_busy = true;
    resolver_ask_mx(p->v->resolver, &p->mx);
}

/* Another address, another host, or the end. */
static void go_on(struct probe *p)
{
    if (p->target_next < p->target_count) {
        connect_to(p);
    } else if (p->host_next < p->host_count && p->v->resolver) {
        p->target_next = p->target_count = 0;
        ask_host(p);
    } else {
        down(p);
    }
}

static void start(struct probe *p)
{
    const struct next_hop *next = &p->domain->next_hop;
    p->running = true;
    p->v->running++;
    for (unsigned i = 0; i < next->hop_count; i++) {
        if (*next->hops[i].host)
            add_host(p, next->hops[i].host, next->hops[i].port);
        else
            add_target(p, next->hops[i].address.ip, next->hops[i].address.port);
    }
    if (next->by_mx && p->v->resolver)
        ask_mx(p);
    else
        go_on(p);
}

static void run_next(struct verifier *v)
{
    struct probe *p;
    if (v->running >= PROBES_MAX)
        return;
    TAILQ_FOREACH (p, &v->probes, link)
        if (!p->running) {
            start(p);
            return;
        }
}

static void out_of_time(struct timer *t)
{
    struct probe *p = CONTAINER_OF(t, struct probe, deadline);
    if (!*p->why)
        snprintf(p->why, sizeof(p->why),
            "Recipient cannot be verified now: the primary takes too long");
    down(p);
}

/* --- questions --- */

static struct probe *find(struct verifier *v, const struct verify_question *q)
{
    struct probe *p;
    TAILQ_FOREACH (p, &v->probes, link)
        if (p->domain == q->domain && slice_eq(slice_str(p->address), q->address))
            return p;
    return NULL;
}

static struct probe *new_probe(struct verifier *v, const struct verify_question *q)
{
    struct probe *p = mem_zalloc(sizeof(*p));
    p->v = v;
    STAILQ_INIT(&p->askers);
    p->settings = settings_ref(q->settings);
    p->domain = q->domain;
    snprintf(p->address, sizeof(p->address), "%.*s", SLICE_ARG(q->address));
    snprintf(p->routing, sizeof(p->routing), "%.*s", SLICE_ARG(q->routing));
    smtp_reply_parser_init(&p->reply);
    timer_init(&p->deadline, conns_loop(v->conns), out_of_time);
    timer_set(&p->deadline, mono_add_ms(loop_now(conns_loop(v->conns)), TOTAL_MS));
    TAILQ_INSERT_TAIL(&v->probes, p, link);
    return p;
}

void verifier_ask(struct verifier *v, const struct verify_question *q)
{
    enum verify_answer answer;
    struct mono now = loop_now(conns_loop(v->conns));
    if (verify_recall(v->memory, q->address, now, &answer)) {
        q->done(q->ctx, answer, "");
        return;
    }
    if (v->asking >= WAITING_MAX) {
        q->done(q->ctx, VERIFY_DEFER, "Too many recipients to verify, try again later");
        return;
    }
    struct probe *p = find(v, q);
    if (!p)
        p = new_probe(v, q);
    struct asker *a = mem_zalloc(sizeof(*a));
    a->done = q->done;
    a->ctx = q->ctx;
    STAILQ_INSERT_TAIL(&p->askers, a, link);
    v->asking++;
    run_next(v);
}

void verifier_free(struct verifier *v)
{
    if (!v)
        return;
    while (!TAILQ_EMPTY(&v->probes))
        end(TAILQ_FIRST(&v->probes), VERIFY_DEFER);
    free(v);
}
