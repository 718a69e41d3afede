/* SPDX-License-Identifier: Apache-2.0 */
/* The notifications that a settlement owes, made on a helper (they copy a body, and may
 * have to read it), before anything is written: they and the outcomes are one
 * transaction. */
#include <stdlib.h>

#include "base/alloc.h"
#include "base/metrics.h"
#include "node/delivery/settle_internal.h"
#include "node/mail/dsn.h"

/* A larger original goes back as its header alone. */
#define FULL_MAX_BYTES (1u << 20)
/* For which this much of the body is read. */
#define HEADER_READ_BYTES (16 * BODY_ROW_BYTES)

struct making {
    struct job job;
    struct mail late;
    struct settlement *t;
    struct store *store;
};

static bool warns_of_delay(const struct settlement *t, const struct rcpt_record *rec)
{
    const struct message *m = parcel_message(t->parcel);
    int64_t after = parcel_unit(t->parcel)->delay_warning_ms;
    return after > 0 && t->clock_trusted && !rec->delay_dsn_sent &&
           !rcpt_state_is_final(rec->state) && t->now.ms >= m->created.ms + after;
}

/* DSN_KIND_COUNT: none is due for it. */
static enum dsn_kind kind_for(const struct settlement *t, unsigned i)
{
    const struct rcpt_record *rec = &t->records[i];
    if (rec->state == RCPT_BOUNCED || rec->state == RCPT_EXPIRED)
        return DSN_FAILURE;
    if (rec->state == RCPT_DELIVERED && (rec->rcpt.notify & NOTIFY_SUCCESS) &&
        t->parcel->fates[t->index[i]].relayed)
        return DSN_RELAYED;
    return warns_of_delay(t, rec) ? DSN_DELAY : DSN_KIND_COUNT;
}

bool settlement_wants_dsn(const struct settlement *t)
{
    for (unsigned i = 0; i < t->record_count; i++)
        if (kind_for(t, i) != DSN_KIND_COUNT)
            return true;
    return false;
}

static void log_dsn(struct unit_id about, const struct message *dsn, enum dsn_kind kind)
{
    char id[MSG_ID_TEXT + 1];
    struct record r;
    msg_id_format(dsn->id, id);
    record_init(&r, LOG_EV_DSN);
    record_msg_id(&r, "id", about.msg);
    record_str(&r, "kind", dsn_kind_name(kind));
    record_str(&r, "dsn_id", id);
    record_slice(&r, "to", dsn->units[0].rcpts[0].address);
    record_emit(&r);
    metric_add(METRIC_dsn_total, 1);
}

static void add_dsn(struct settlement *t, struct message *dsn, enum dsn_kind kind)
{
    if (!dsn)
        return;
    INVARIANT(t->dsn_count < SETTLEMENT_DSNS);
    t->dsns[t->dsn_count++] = dsn;
    log_dsn(t->parcel->id, dsn, kind);
}

void settlement_drop_dsns(struct settlement *t, enum err why)
{
    char id[MSG_ID_TEXT + 1];
    msg_id_format(t->parcel->id.msg, id);
    log_say(LOG_EV_STORE_PROBLEM,
        "no notification for %s can be stored: %s; its failures are tried again", id,
        err_text(why));
    while (t->dsn_count > 0)
        message_unref(t->dsns[--t->dsn_count]);
}

static struct message *report_failure(const struct dsn_request *r)
{
    return r->original->reverse_path.len == 0 ? dsn_double_bounce(r) : dsn_make(r);
}

static void make_kind(struct settlement *t, struct dsn_request *r, enum dsn_kind kind,
    const struct rcpt_record **rcpts)
{
    r->kind = kind;
    r->rcpts = rcpts;
    r->rcpt_count = 0;
    for (unsigned i = 0; i < t->record_count; i++) {
        if (kind_for(t, i) != kind)
            continue;
        rcpts[r->rcpt_count++] = &t->records[i];
    }
    if (r->rcpt_count == 0)
        return;
    add_dsn(t, kind == DSN_FAILURE ? report_failure(r) : dsn_make(r), kind);
    for (unsigned i = 0; kind == DSN_DELAY && i < t->record_count; i++)
        if (warns_of_delay(t, &t->records[i]))
            t->records[i].delay_dsn_sent = true;
}

/* --- what is sent back --- */

struct original {
    struct body *body;
    char *head; /* when there is no body at hand */
    size_t head_len;
};

static void original_read(struct original *o, struct store *store,
    const struct message *m, const struct message *hot)
{
    *o = (struct original){0};
    if (hot)
        o->body = body_ref(hot->body);
    else if (m->size > FULL_MAX_BYTES ||
             store_load_body(store, m->id, FULL_MAX_BYTES, &o->body) != ERR_OK)
        o->body = NULL;
    if (o->body)
        return;
    o->head = mem_alloc(HEADER_READ_BYTES);
    if (store_read_body(store, m->id, 0, o->head, &o->head_len) != ERR_OK)
        o->head_len = 0;
}

static void original_fini(struct original *o)
{
    body_unref(o->body);
    free(o->head);
}

static struct slice header_of(struct slice bytes)
{
    for (size_t i = 0; i + 3 < bytes.len; i++)
        if (memcmp(bytes.ptr + i, "\r\n\r\n", 4) == 0)
            return slice_head(bytes, i + 2);
    return bytes;
}

static struct dsn_request request_about(const struct message *m,
    const struct message_unit *unit, const struct original *o,
    const struct settings *settings, struct wall now)
{
    return (struct dsn_request){.hostname = slice_str(settings->hostname),
        .original = m,
        .now = now,
        .retry_until = unit->expires,
        .dsn_expires = {now.ms + settings->retry.give_up_ms},
        .body = o->body,
        .header = o->head_len ? header_of(slice_make(o->head, o->head_len)) : SLICE(""),
        .full_max_bytes = FULL_MAX_BYTES,
        .postmaster = slice_str(settings->postmaster)};
}

static void make_all(struct job *job)
{
    struct making *m = CONTAINER_OF(job, struct making, job);
    struct settlement *t = m->t;
    const struct rcpt_record **rcpts = mem_alloc(t->record_count * sizeof(*rcpts));
    const struct message *message = parcel_message(t->parcel);
    struct original o;
    original_read(&o, m->store, message, t->parcel->hot);
    struct dsn_request r =
        request_about(message, parcel_unit(t->parcel), &o, t->settings, t->now);
    r.unit = t->parcel->id;
    /* In this order do they get their copies: a failure that has its own is settled. */
    make_kind(t, &r, DSN_RELAYED, rcpts);
    make_kind(t, &r, DSN_DELAY, rcpts);
    make_kind(t, &r, DSN_FAILURE, rcpts);
    original_fini(&o);
    free(rcpts);
}

struct message *settle_report_failure(const struct unit_record *u,
    const struct rcpt_record *const *rcpts, unsigned count, struct store *store,
    const struct settings *settings, struct wall now)
{
    struct original o;
    original_read(&o, store, u->message, NULL);
    struct dsn_request r =
        request_about(u->message, &u->message->units[0], &o, settings, now);
    r.unit = u->id;
    r.kind = DSN_FAILURE;
    r.rcpts = rcpts;
    r.rcpt_count = count;
    struct message *dsn = report_failure(&r);
    original_fini(&o);
    return dsn;
}

void settle_log_report(const struct unit_record *u, const struct message *dsn)
{
    log_dsn(u->id, dsn, DSN_FAILURE);
}

static void made(struct mail *mail, void *owner)
{
    struct making *m = CONTAINER_OF(mail, struct making, job.mail);
    (void)owner;
    settlement_store(m->t);
    free(m);
}

/* The helpers are swamped. A bounce that is owed must not be lost, so it is made here:
 * the one read that a loop may have to wait for. */
static void make_here(struct mail *mail, void *owner)
{
    struct making *m = CONTAINER_OF(mail, struct making, late);
    (void)owner;
    make_all(&m->job);
    settlement_store(m->t);
    free(m);
}

void settlement_make_dsns(struct settlement *t)
{
    const struct delivery_env *env = delivery_loop_env(t->dl);
    struct making *m = mem_zalloc(sizeof(*m));
    m->t = t;
    m->store = env->store;
    m->job.run = make_all;
    m->job.done = made;
    m->job.reply_to = delivery_loop_mailbox(t->dl);
    if (!workers_submit(env->helpers, &m->job))
        mailbox_post(delivery_loop_mailbox(t->dl), &m->late, make_here);
}
