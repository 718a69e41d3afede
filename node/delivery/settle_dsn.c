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

static void log_dsn(
    const struct settlement *t, const struct message *dsn, enum dsn_kind kind)
{
    char id[MSG_ID_TEXT + 1];
    struct record r;
    msg_id_format(dsn->id, id);
    record_init(&r, LOG_EV_DSN);
    record_msg_id(&r, "id", t->parcel->id.msg);
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
    log_dsn(t, dsn, kind);
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
    if (kind == DSN_FAILURE && r->original->reverse_path.len == 0)
        add_dsn(t, dsn_double_bounce(r), kind);
    else
        add_dsn(t, dsn_make(r), kind);
    for (unsigned i = 0; kind == DSN_DELAY && i < t->record_count; i++)
        if (warns_of_delay(t, &t->records[i]))
            t->records[i].delay_dsn_sent = true;
}

static struct body *read_whole(struct making *m)
{
    const struct parcel *p = m->t->parcel;
    struct body *body = NULL;
    if (p->hot)
        return body_ref(p->hot->body);
    if (parcel_message(p)->size > FULL_MAX_BYTES ||
        store_load_body(m->store, p->id.msg, FULL_MAX_BYTES, &body) != ERR_OK)
        return NULL;
    return body;
}

static struct slice header_of(struct slice bytes)
{
    for (size_t i = 0; i + 3 < bytes.len; i++)
        if (memcmp(bytes.ptr + i, "\r\n\r\n", 4) == 0)
            return slice_head(bytes, i + 2);
    return bytes;
}

static void make_all(struct job *job)
{
    struct making *m = CONTAINER_OF(job, struct making, job);
    struct settlement *t = m->t;
    const struct rcpt_record **rcpts = mem_alloc(t->record_count * sizeof(*rcpts));
    struct body *body = read_whole(m);
    char *head = NULL;
    size_t head_len = 0;
    if (!body) {
        head = mem_alloc(HEADER_READ_BYTES);
        if (store_read_body(m->store, t->parcel->id.msg, 0, head, &head_len) != ERR_OK)
            head_len = 0;
    }
    struct dsn_request r = {.hostname = slice_str(t->settings->hostname),
        .original = parcel_message(t->parcel),
        .unit = t->parcel->id,
        .now = t->now,
        .retry_until = parcel_unit(t->parcel)->expires,
        .dsn_expires = {t->now.ms + t->settings->retry.give_up_ms},
        .body = body,
        .header = head_len ? header_of(slice_make(head, head_len)) : SLICE(""),
        .full_max_bytes = FULL_MAX_BYTES,
        .postmaster = slice_str(t->settings->postmaster)};
    /* In this order do they get their copies: a failure that has its own is settled. */
    make_kind(t, &r, DSN_RELAYED, rcpts);
    make_kind(t, &r, DSN_DELAY, rcpts);
    make_kind(t, &r, DSN_FAILURE, rcpts);
    body_unref(body);
    free(head);
    free(rcpts);
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
