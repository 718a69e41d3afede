/* SPDX-License-Identifier: Apache-2.0 */
/* MAIL, RCPT, DATA: policy decides, the transaction gathers. A recipient that needs DNS
 * or the primary is answered later; the engine takes no input until then. */
#include <stdlib.h>

#include "base/alloc.h"
#include "base/metrics.h"
#include "node/intake/session_internal.h"

/* DNS that takes longer than this does not decide: the mail is taken, and delivery deals
 * with it. */
#define LOOKUP_PATIENCE_MS 5000
#define DOMAIN_KNOWN_MS 300000

static void hold(void *session, bool is_held)
{
    struct session *s = session;
    smtp_server_hold(s->engine, is_held, session_now(s));
    if (!is_held)
        session_ready(s);
}

static const struct transaction_events transaction_events = {.hold = hold};

static void refuse(struct smtp_request *r, const struct policy_verdict *v)
{
    smtp_answer(r, v->code, v->status, slice_str(v->text));
}

void session_mail(void *session, struct smtp_request *r, const struct smtp_path *path,
    const struct esmtp_mail *params)
{
    struct session *s = session;
    struct policy_client client;
    session_policy_client(s, &client);
    struct policy_verdict v = policy_sender(s->config->policy, &client, path);
    if (v.action != POLICY_ACCEPT) {
        refuse(r, &v);
        return;
    }
    enum err e =
        transaction_begin(s->il, s->config, path, params, &transaction_events, s, &s->tx);
    if (e != ERR_OK)
        smtp_answer_err(r, e);
    else
        smtp_answer(r, 250, "2.1.0", SLICE("Ok"));
}

static void leave_the_line(struct session *s)
{
    pace_leave(&s->il->pace, &s->pace);
    if (s->paced)
        smtp_request_drop(s->paced);
    s->paced = NULL;
}

void session_transaction_end(void *session, enum smtp_transaction_end how)
{
    struct session *s = session;
    struct transaction *t = s->tx;
    leave_the_line(s);
    s->tx = NULL;
    if (how == SMTP_END_ACCEPTED)
        s->messages++;
    if (t)
        transaction_end(t);
}

/* --- recipients --- */

static void accept_recipient(struct session *s, struct smtp_request *r,
    const struct policy_rcpt *p, const struct esmtp_rcpt *params)
{
    if (transaction_add_recipient(s->tx, p->address, p->routing, p->relay, params))
        smtp_answer(r, 250, "2.1.5", SLICE("Ok"));
    else /* RFC 5321 4.5.3.1.10: the client sends the rest in another transaction */
        smtp_answer(r, 452, "4.5.3", SLICE("Too many domains in one message"));
}

/* A recipient whose answer takes a while. What it points to is the transaction's, so it
 * may be touched only while the request is live. */
struct rcpt_wait {
    struct session *session;
    struct smtp_request *request;
    struct slice address, routing;
    const struct relay_domain_settings *relay;
    struct esmtp_rcpt params;
};

static void keep_rcpt(struct rcpt_wait *w, struct session *s, struct smtp_request *r,
    const struct policy_rcpt *p, const struct esmtp_rcpt *params)
{
    *w = (struct rcpt_wait){.session = s,
        .request = r,
        .address = transaction_keep(s->tx, p->address),
        .routing = transaction_keep(s->tx, p->routing),
        .relay = p->relay};
    w->params.notify = params->notify;
    w->params.orcpt = transaction_keep(s->tx, params->orcpt);
}

static void answer_rcpt(struct rcpt_wait *w, enum err e)
{
    if (!smtp_request_is_live(w->request)) {
        smtp_request_drop(w->request);
        return;
    }
    struct policy_rcpt p = {
        .address = w->address, .routing = w->routing, .relay = w->relay};
    if (e == ERR_OK)
        accept_recipient(w->session, w->request, &p, &w->params);
    else
        smtp_answer_err(w->request, e);
}

/* The answer of DNS and the end of patience race; the object goes when both are over. */
struct lookup {
    struct rcpt_wait wait;
    struct mx_query query;
    struct timer patience;
    struct intake_loop *il;
    uint64_t hash;
    bool answered;
};

static struct known_domain *known_slot(struct intake_loop *il, uint64_t hash)
{
    return &il->domains[hash % DOMAINS_KNOWN];
}

static bool is_known(struct intake_loop *il, uint64_t hash)
{
    struct known_domain *k = known_slot(il, hash);
    return k->hash == hash && loop_now(il->loop).ns < k->until.ns;
}

static void patience_over(struct timer *t)
{
    struct lookup *l = CONTAINER_OF(t, struct lookup, patience);
    l->answered = true;
    answer_rcpt(&l->wait, ERR_OK);
}

/* Only what is certain refuses. */
static enum err certain(enum err e)
{
    bool is_certain = e == ERR_DNS_NXDOMAIN || e == ERR_DNS_NULL_MX ||
                      e == ERR_DNS_BAD_NAME || e == ERR_DNS_NO_ADDRESS;
    return is_certain ? e : ERR_OK;
}

static void looked_up(struct mx_query *q, void *owner)
{
    struct lookup *l = CONTAINER_OF(q, struct lookup, query);
    enum err e = certain(q->set.result);
    (void)owner;
    if (q->set.result == ERR_OK)
        *known_slot(l->il, l->hash) = (struct known_domain){
            l->hash, mono_add_ms(loop_now(l->il->loop), DOMAIN_KNOWN_MS)};
    mx_query_release(q);
    timer_fini(&l->patience);
    if (!l->answered)
        answer_rcpt(&l->wait, e);
    l->il->waiting--;
    intake_loop_count(l->il, -1);
    free(l);
}

static void look_up(struct session *s, struct smtp_request *r,
    const struct policy_rcpt *p, const struct esmtp_rcpt *params)
{
    struct intake_loop *il = s->il;
    uint64_t hash = slice_hash(p->routing, il->domain_key);
    if (!il->intake->deps.resolver || is_known(il, hash)) {
        accept_recipient(s, r, p, params);
        return;
    }
    struct lookup *l = mem_zalloc(sizeof(*l));
    keep_rcpt(&l->wait, s, r, p, params);
    l->il = il;
    l->hash = hash;
    il->waiting++;
    intake_loop_count(il, +1);
    memcpy(l->query.domain, p->routing.ptr, slice_head(p->routing, 255).len);
    l->query.reply_to = loop_mailbox(il->loop);
    l->query.done = looked_up;
    timer_init(&l->patience, il->loop, patience_over);
    timer_set(&l->patience, mono_add_ms(session_now(s), LOOKUP_PATIENCE_MS));
    resolver_ask_mx(il->intake->deps.resolver, &l->query);
}

static void verified(void *ctx, enum verify_answer answer, const char *why)
{
    struct rcpt_wait *w = ctx;
    if (answer == VERIFY_YES)
        answer_rcpt(w, ERR_OK);
    else if (answer == VERIFY_NO)
        answer_rcpt(w, ERR_USER_UNKNOWN);
    else
        smtp_answer(w->request, 450, "4.4.1", slice_str(why));
    free(w);
}

static void verify(struct session *s, struct smtp_request *r, const struct policy_rcpt *p,
    const struct esmtp_rcpt *params)
{
    struct intake_loop *il = s->il;
    struct rcpt_wait *w = mem_alloc(sizeof(*w));
    keep_rcpt(w, s, r, p, params);
    if (!il->verifier)
        il->verifier =
            verifier_new(il->conns, il->intake->deps.resolver, il->intake->verified);
    verifier_ask(il->verifier, &(struct verify_question){.address = w->address,
                                   .routing = w->routing,
                                   .domain = p->relay,
                                   .settings = s->config->settings,
                                   .done = verified,
                                   .ctx = w});
}

void session_rcpt(void *session, struct smtp_request *r, const struct smtp_path *path,
    const struct esmtp_rcpt *params)
{
    struct session *s = session;
    struct policy_client client;
    struct policy_rcpt p;
    session_policy_client(s, &client);
    policy_recipient(s->config->policy, &client, path, &p);
    switch (p.verdict.action) {
    case POLICY_ACCEPT:
        accept_recipient(s, r, &p, params);
        break;
    case POLICY_REFUSE:
        refuse(r, &p.verdict);
        break;
    case POLICY_VERIFY:
        verify(s, r, &p, params);
        break;
    case POLICY_LOOKUP:
        look_up(s, r, &p, params);
        break;
    }
}

void session_vrfy(void *session, struct smtp_request *r, struct slice argument)
{
    (void)session;
    (void)argument;
    /* RFC 5321 3.5.3: neither a yes nor a no, or strangers would harvest addresses. */
    smtp_answer(r, 252, "2.5.0", SLICE("Cannot VRFY user, but will take mail for it"));
}

/* --- the message --- */

static enum origin origin_of(const struct session *s)
{
    if (s->listener->service == SERVICE_MX)
        return ORIGIN_MX;
    return *s->user ? ORIGIN_SUBMISSION : ORIGIN_RELAY_CLIENT;
}

static void start_body(struct session *s, struct smtp_request *r)
{
    struct transaction_origin origin = {
        .origin = origin_of(s),
        .service = s->listener->service,
        .user = slice_str(s->user),
        .listener = slice_str(s->listener->name),
        .client = s->client.ip,
        .client_name = slice_str(s->name),
        .helo = smtp_server_helo(s->engine),
        .with = smtp_server_with(s->engine),
        .tls = conn_tls_info(s->conn),
    };
    enum err e = transaction_start_body(s->tx, &origin);
    if (e != ERR_OK)
        smtp_answer_err(r, e);
    else
        smtp_answer(r, 354, NULL, SLICE("End data with <CR><LF>.<CR><LF>"));
}

static void its_turn(struct pace_wait *w)
{
    struct session *s = CONTAINER_OF(w, struct session, pace);
    struct smtp_request *r = s->paced;
    s->paced = NULL;
    start_body(s, r);
}

void session_data(void *session, struct smtp_request *r)
{
    struct session *s = session;
    s->pace.bytes = transaction_reserved(s->tx);
    s->pace.budget = s->config->settings->queue.memory_bytes;
    s->pace.go = its_turn;
    if (pace_line_up(&s->il->pace, &s->pace))
        s->paced = r;
    else
        start_body(s, r);
}

void session_body(void *session, struct slice bytes)
{
    struct session *s = session;
    transaction_body(s->tx, bytes);
}

void session_body_end(
    void *session, struct smtp_request *r, const struct smtp_body_info *info)
{
    struct session *s = session;
    transaction_commit(s->tx, r, info);
}
