/* SPDX-License-Identifier: Apache-2.0 */
#include "node/intake/transaction.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/metrics.h"
#include "node/intake/message_build.h"
#include "node/intake/repeat_hash.h"
#include "node/mail/submission.h"

/* Reserved at MAIL when the client declares no size. */
#define UNDECLARED_BYTES 65536

struct transaction {
    struct intake_loop *il;
    struct intake_config *config;
    const struct transaction_events *events;
    void *session; /* NULL once it has let go */
    struct message *message;
    struct recipient_list recipients;
    struct submission *submission; /* rewrites the header section; NULL: relayed as is */
    struct smtp_request *request;  /* of the end of the body, until it is answered */
    uint64_t reserved;
    enum err failed; /* the message cannot be taken, whatever still comes */
    bool is_held;
    bool ended;
    bool committing;
    bool committed;
    const char *tls_version;    /* NULL: none */
    struct repeat_hash *repeat; /* NULL: repetitions are not looked for */
    bool repeat_begun;
    bool repeat_asked; /* the cluster: it is to hear what became of it */
    struct rights_repeat question;
    uint32_t rows_sent; /* given to the store */
    bool rows_busy;
    bool dropping;
    struct store_body_rows rows;
    struct store_body_drop drop;
    struct rights_accept accept;
};

static uint64_t budget(const struct transaction *t)
{
    return t->config->settings->queue.memory_bytes;
}

/* Grows the reservation to what the body takes, in steps. */
static bool reserve_up_to(struct transaction *t, uint64_t bytes)
{
    uint64_t most = 2 * (uint64_t)TRANSACTION_MEMORY_MAX;
    if (bytes > most)
        bytes = most;
    if (bytes <= t->reserved)
        return true;
    uint64_t more = bytes - t->reserved;
    if (more < UNDECLARED_BYTES)
        more = UNDECLARED_BYTES;
    if (!intake_reserve(t->il->intake, more, budget(t)))
        return false;
    t->reserved += more;
    return true;
}

static uint64_t first_reservation(uint64_t declared)
{
    if (declared == 0)
        return UNDECLARED_BYTES;
    return declared < TRANSACTION_MEMORY_MAX ? declared : TRANSACTION_MEMORY_MAX;
}

static void keep_envelope(struct message *m, const struct smtp_path *reverse_path,
    const struct esmtp_mail *params)
{
    m->reverse_path = arena_dup(m->arena, reverse_path->address);
    m->envid = arena_dup(m->arena, params->envid);
    m->ret = (enum dsn_ret)params->ret;
    m->body_type = (enum body_type)params->body;
    m->smtputf8 = params->smtputf8;
}

enum err transaction_begin(struct intake_loop *il, struct intake_config *config,
    const struct smtp_path *reverse_path, const struct esmtp_mail *params,
    const struct transaction_events *events, void *session, struct transaction **out)
{
    struct intake *in = il->intake;
    uint64_t first = first_reservation(params->size);
    enum err e = rights_may_accept(in->deps.rights);
    if (e == ERR_OK)
        e = store_admit(in->deps.store, params->size);
    if (e != ERR_OK)
        return e;
    if (!intake_reserve(in, first, config->settings->queue.memory_bytes))
        return ERR_NO_MEMORY;
    struct transaction *t = mem_zalloc(sizeof(*t));
    t->il = il;
    t->config = intake_config_ref(config);
    t->events = events;
    t->session = session;
    t->reserved = first;
    t->message = message_new();
    t->message->created = wall_now();
    t->message->id = intake_new_id(il, t->message->created);
    keep_envelope(t->message, reverse_path, params);
    *out = t;
    return ERR_OK;
}

struct slice transaction_keep(struct transaction *t, struct slice bytes)
{
    return arena_dup(t->message->arena, bytes);
}

uint64_t transaction_reserved(const struct transaction *t)
{
    return t->reserved;
}

struct msg_id transaction_id(const struct transaction *t)
{
    return t->message->id;
}

/* --- the end --- */

static void destroy(struct transaction *t)
{
    intake_unreserve(t->il->intake, t->reserved);
    message_unref(t->message);
    recipient_list_fini(&t->recipients);
    free(t->submission);
    repeat_hash_free(t->repeat);
    intake_config_unref(t->config);
    free(t);
}

static void left_behind(struct transaction *t)
{
    if (t->session)
        return;
    t->il->waiting--;
    intake_loop_count(t->il, -1);
}

static void rows_dropped(struct store_op *op, void *owner)
{
    struct store_body_drop *drop = CONTAINER_OF(op, struct store_body_drop, op);
    struct transaction *t = CONTAINER_OF(drop, struct transaction, drop);
    (void)owner;
    /* A failure leaves rows without a message: the sweep at start takes them. */
    left_behind(t);
    destroy(t);
}

static void drop_rows(struct transaction *t)
{
    t->dropping = true;
    t->drop = (struct store_body_drop){
        .op = {.kind = STORE_OP_BODY_DROP,
            .reply_to = loop_mailbox(t->il->loop),
            .done = rows_dropped},
        .id = t->message->id,
        .row_count = t->rows_sent,
    };
    store_submit(t->il->intake->deps.store, &t->drop.op);
}

/* Goes when nobody else holds a part of it. */
static void settle(struct transaction *t)
{
    if (!t->ended || t->rows_busy || t->committing || t->dropping)
        return;
    if (t->rows_sent && !t->committed) {
        drop_rows(t);
        return;
    }
    left_behind(t);
    destroy(t);
}

void transaction_end(struct transaction *t)
{
    INVARIANT(!t->ended);
    t->ended = true;
    t->session = NULL;
    t->il->waiting++;
    intake_loop_count(t->il, +1);
    settle(t);
}

/* --- the body --- */

static void set_hold(struct transaction *t, bool is_held)
{
    if (t->is_held == is_held || !t->session)
        return;
    t->is_held = is_held;
    t->events->hold(t->session, is_held);
}

static void commit(struct transaction *t);

static void rows_written(struct store_op *op, void *owner)
{
    struct store_body_rows *rows = CONTAINER_OF(op, struct store_body_rows, op);
    struct transaction *t = CONTAINER_OF(rows, struct transaction, rows);
    (void)owner;
    t->rows_busy = false;
    if (op->result == ERR_OK)
        body_drop_before(t->message->body, t->rows_sent);
    else if (t->failed == ERR_OK)
        t->failed = op->result;
    if (t->ended)
        settle(t);
    else if (t->request)
        commit(t);
    else
        set_hold(t, false); /* last: the session goes on inside, and may end us */
}

/* Complete rows of a big body go to the store; a body that is twice too big for memory
 * waits for them. */
static void spill(struct transaction *t)
{
    struct body *body = t->message->body;
    uint64_t in_memory = body_memory(body);
    if (in_memory <= TRANSACTION_MEMORY_MAX || t->failed != ERR_OK)
        return;
    if (t->rows_busy) {
        if (in_memory > 2 * (uint64_t)TRANSACTION_MEMORY_MAX)
            set_hold(t, true);
        return;
    }
    uint32_t whole = (uint32_t)(body_size(body) / BODY_ROW_BYTES);
    t->rows = (struct store_body_rows){
        .op = {.kind = STORE_OP_BODY_ROWS,
            .reply_to = loop_mailbox(t->il->loop),
            .done = rows_written},
        .id = t->message->id,
        .body = body,
        .first_row = t->rows_sent,
        .row_count = whole - t->rows_sent,
    };
    t->rows_sent = whole;
    t->rows_busy = true;
    store_submit(t->il->intake->deps.store, &t->rows.op);
}

/* After octets were added: pays for their memory, or sends them to disk. */
static void grown(struct transaction *t)
{
    uint64_t memory = body_memory(t->message->body);
    if (t->failed == ERR_OK && memory > t->reserved && !reserve_up_to(t, memory))
        t->failed = ERR_NO_MEMORY;
    spill(t);
}

void transaction_body(struct transaction *t, struct slice bytes)
{
    if (t->failed != ERR_OK)
        return; /* what will be refused is not kept */
    if (t->repeat)
        repeat_hash_add(t->repeat, bytes);
    if (t->submission)
        submission_feed(t->submission, bytes);
    else
        body_append(t->message->body, bytes);
    grown(t);
}

static void rewrite_as_submission(struct transaction *t)
{
    struct message *m = t->message;
    t->submission = mem_alloc(sizeof(*t->submission));
    submission_init(t->submission, m->body, slice_str(t->config->settings->hostname),
        m->id, m->created);
}

enum err transaction_start_body(
    struct transaction *t, const struct transaction_origin *origin)
{
    struct message *m = t->message;
    enum err e = store_admit(t->il->intake->deps.store, 0);
    if (e != ERR_OK)
        return e;
    message_keep_origin(m, origin);
    t->tls_version = origin->tls->on ? origin->tls->version : NULL;
    m->body = body_new();
    message_add_received(m, &t->recipients, origin, t->config->settings->hostname);
    if (origin->service == SERVICE_SUBMISSION)
        rewrite_as_submission(t);
    if (t->config->settings->limits.repeat_window_ms > 0)
        t->repeat = repeat_hash_new();
    return ERR_OK;
}

bool transaction_add_recipient(struct transaction *t, struct slice address,
    struct slice routing, const struct relay_domain_settings *relay,
    const struct esmtp_rcpt *params)
{
    if (rights_clustered(t->il->intake->deps.rights) &&
        !recipient_list_fits(&t->recipients, routing))
        return false;
    struct arena *arena = t->message->arena;
    struct listed_recipient r = {.routing = arena_dup(arena, routing), .relay = relay};
    r.rcpt.address = arena_dup(arena, address);
    r.rcpt.orcpt = params->orcpt.len ? arena_dup(arena, params->orcpt) : params->orcpt;
    r.rcpt.notify = params->notify;
    recipient_list_add(&t->recipients, &r);
    return true;
}

/* --- the commit --- */

static void log_received(const struct transaction *t)
{
    const struct message *m = t->message;
    struct record r;
    record_init(&r, LOG_EV_RECEIVED);
    record_msg_id(&r, "id", m->id);
    record_slice(&r, "from", m->reverse_path);
    record_slice(&r, "to", m->units[0].rcpts[0].address);
    record_int(&r, "recipients", t->recipients.count);
    record_int(&r, "size", (int64_t)m->size);
    record_ip(&r, "client", m->client);
    record_slice(&r, "helo", m->helo);
    record_slice(&r, "listener", m->listener);
    if (m->user.len)
        record_slice(&r, "user", m->user);
    if (t->tls_version)
        record_str(&r, "tls", t->tls_version);
    record_emit(&r);
}

/* Durable, whether the client still listens or not: from here on it is the schedule's. */
static void hand_over(struct transaction *t)
{
    struct intake_deps *deps = &t->il->intake->deps;
    struct message *m = t->message;
    metric_add(METRIC_received_total, 1);
    metric_add(METRIC_received_bytes_total, (int64_t)m->size);
    metric_add(METRIC_received_recipients_total, t->recipients.count);
    log_received(t);
    t->message = NULL;
    if (t->rows_sent) { /* part of it is only on disk: read it from there */
        body_unref(m->body);
        m->body = NULL;
    }
    intake_unreserve(t->il->intake, t->reserved);
    t->reserved = 0;
    deps->accepted(m, deps->ctx);
}

static void answer(struct transaction *t, enum err result, struct msg_id id)
{
    struct smtp_request *r = t->request;
    char text[sizeof("queued as ") + MSG_ID_TEXT] = "queued as ";
    t->request = NULL;
    if (result == ERR_OUTCOME_UNKNOWN) {
        smtp_answer_close(r);
        return;
    }
    if (result != ERR_OK) {
        smtp_answer_err(r, result);
        return;
    }
    msg_id_format(id, text + strlen(text));
    /* The one line that says 250 to a message: every promised copy is durable. */
    smtp_answer(r, 250, "2.0.0", slice_str(text));
}

/* Before the message is handed over: here, and to who keeps it for all nodes. */
static void end_repeat(struct transaction *t, bool accepted)
{
    const struct message *m = t->message;
    if (t->repeat_begun)
        repeats_end(t->il->intake->repeats, &m->repeat_key, accepted);
    if (t->repeat_asked)
        rights_repeat_told(t->il->intake->deps.rights, &m->repeat_key, m->id, accepted);
    t->repeat_begun = t->repeat_asked = false;
}

static void committed(struct rights_accept *a, enum err result, void *owner)
{
    struct transaction *t = CONTAINER_OF(a, struct transaction, accept);
    struct msg_id id = t->message->id;
    (void)owner;
    t->committed = result == ERR_OK;
    end_repeat(t, t->committed);
    if (t->committed)
        hand_over(t);
    answer(t, result, id); /* ends the transaction, if the session is still there */
    t->committing = false;
    settle(t);
}

static void log_repeated(const struct transaction *t, struct msg_id as)
{
    struct record r;
    record_init(&r, LOG_EV_REPEATED);
    record_msg_id(&r, "id", as);
    record_slice(&r, "from", t->message->reverse_path);
    record_ip(&r, "client", t->message->client);
    if (t->message->user.len)
        record_slice(&r, "user", t->message->user);
    record_emit(&r);
}

/* The client sent it before and did not see our 250: true when that answers it. */
static bool answer_repeated(struct transaction *t)
{
    struct message *m = t->message;
    struct msg_id as;
    if (!t->repeat)
        return false;
    repeat_hash_end(t->repeat, m, &t->recipients, &m->repeat_key);
    enum repeat found = repeats_begin(t->il->intake->repeats, &m->repeat_key, m->id,
        mono_now(), t->config->settings->limits.repeat_window_ms, &as);
    t->repeat_begun = found == REPEAT_NEW;
    if (found == REPEAT_NEW)
        return false;
    if (found == REPEAT_KNOWN)
        log_repeated(t, as);
    answer(t, found == REPEAT_KNOWN ? ERR_OK : ERR_REPEAT_BUSY, as);
    return true;
}

static void take(struct transaction *t)
{
    t->accept = (struct rights_accept){
        .store = {.message = t->message, .rows_on_disk = t->rows_sent},
        .reply_to = loop_mailbox(t->il->loop),
        .done = committed,
    };
    rights_accept(t->il->intake->deps.rights, &t->accept);
}

/* Another node took it, or is taking it. */
static void answer_as(struct transaction *t, struct msg_id as)
{
    struct repeats *repeats = t->il->intake->repeats;
    bool known = t->question.found == RIGHTS_REPEAT_KNOWN;
    t->repeat_begun = false;
    repeats_end(repeats, &t->message->repeat_key, false);
    if (known) {
        repeats_learn(repeats, &t->message->repeat_key, as, mono_now());
        log_repeated(t, as);
    }
    answer(t, known ? ERR_OK : ERR_REPEAT_BUSY, as);
}

static void cluster_answered(struct rights_repeat *q, void *owner)
{
    struct transaction *t = CONTAINER_OF(q, struct transaction, question);
    (void)owner;
    if (q->found == RIGHTS_REPEAT_NEW) {
        t->repeat_asked = true;
        take(t);
        return;
    }
    answer_as(t, q->as); /* ends the transaction, if the session is still there */
    t->committing = false;
    settle(t);
}

/* The client may have handed it to another node before. */
static bool ask_cluster(struct transaction *t)
{
    t->question = (struct rights_repeat){.key = t->message->repeat_key,
        .id = t->message->id,
        .reply_to = loop_mailbox(t->il->loop),
        .done = cluster_answered};
    return rights_repeat(t->il->intake->deps.rights, &t->question);
}

static void commit(struct transaction *t)
{
    struct message *m = t->message;
    if (t->failed == ERR_OK)
        t->failed = store_admit(t->il->intake->deps.store, m->size);
    if (t->failed != ERR_OK) {
        answer(t, t->failed, m->id);
        return;
    }
    if (answer_repeated(t))
        return;
    t->committing = true;
    if (!t->repeat_begun || !ask_cluster(t))
        take(t);
}

void transaction_commit(
    struct transaction *t, struct smtp_request *r, const struct smtp_body_info *info)
{
    struct message *m = t->message;
    t->request = r;
    if (t->submission && t->failed == ERR_OK) {
        submission_end(t->submission);
        grown(t);
    }
    m->size = body_size(m->body);
    m->body_crc = body_crc(m->body);
    if (info->has_8bit)
        m->body_type = BODY_8BITMIME;
    message_build_units(m, &t->recipients, t->config->settings);
    if (!t->rows_busy)
        commit(t);
}
