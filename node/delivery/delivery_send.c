/* SPDX-License-Identifier: Apache-2.0 */
/* Transactions: a parcel's open recipients, in portions, through the engine. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "node/delivery/parcel_load.h"
#include "node/delivery/outgoing.h"
#include "node/delivery/settle.h"
#include "node/mail/convert8.h"

struct parcel *outgoing_let_go(struct delivery *d)
{
    struct parcel *p = d->current;
    d->current = NULL;
    d->asking = false;
    if (p)
        rights_leave(&p->attempt);
    return p;
}

/* --- the next parcel --- */

static void parcel_settled(void *ctx)
{
    struct delivery *d = ctx;
    d->outcome_pending = false;
    if (d->final_waiting && d->client) {
        outgoing_write_final(d);
        outgoing_pump(d);
    }
    outgoing_pending_done(d);
}

static void finish_parcel(struct delivery *d)
{
    struct parcel *parcel = outgoing_let_go(d);
    body_source_end(d->source);
    body_unref(d->converted);
    d->converted = NULL;
    d->outcome_pending = true;
    d->pending++;
    settle_parcel(d->dl, d->settings, parcel, parcel_settled, d);
}

static void send_home(
    struct delivery *d, struct parcel *parcel, enum parcel_result result)
{
    parcel->result = result;
    schedule_parcel_home(d->dl->env->schedule, parcel);
}

/* The connection went while we read: it may wait for the next hop, or there is none. */
static void come_late(struct delivery *d)
{
    struct parcel *p = d->current;
    if (d->state != DELIVERY_CLOSED || !p)
        return;
    outgoing_let_go(d);
    if (d->load_failed)
        delivery_fail(d->dl, d->settings, p, &d->last_failure);
    else
        send_home(d, p, PARCEL_REQUEUE);
}

static void parcel_loaded(
    struct parcel *parcel, enum err err, bool lacks_final_crlf, void *ctx)
{
    struct delivery *d = ctx;
    bool is_awaited = d->state == DELIVERY_LOADING;
    d->loading = false;
    d->lacks_final_crlf = lacks_final_crlf;
    /* Now: what follows may begin to load the next one. */
    if (is_awaited)
        d->state = DELIVERY_IDLE;
    if (err == ERR_STORE_DAMAGED || err == ERR_STORE_NOT_FOUND)
        rights_suspect(d->dl->env->rights, parcel->id);
    if (err == ERR_OK && parcel->check_rule) {
        d->current = NULL;
        send_home(d, parcel, PARCEL_REROUTE);
    } else if (err == ERR_STORE_NOT_FOUND) {
        d->current = NULL;
        send_home(d, parcel, PARCEL_SETTLED); /* somebody removed it */
    } else if (err != ERR_OK) {
        d->current = NULL;
        parcel->next_due = (struct wall){wall_now().ms + d->settings->retry.first_ms};
        send_home(d, parcel, PARCEL_DEFERRED);
    } else if (is_awaited) {
        outgoing_ask_right(d);
    } else {
        come_late(d);
    }
    if (!d->current && d->client && !d->ended && d->state == DELIVERY_IDLE)
        outgoing_next_parcel(d);
    outgoing_pump(d);
    outgoing_pending_done(d);
}

static bool connection_is_used_up(const struct delivery *d)
{
    const struct smtp_caps *caps = smtp_client_caps(d->client);
    unsigned max = d->settings->limits.messages_per_connection;
    if (caps->mail_max && caps->mail_max < max)
        max = caps->mail_max;
    return d->messages >= max;
}

void outgoing_next_parcel(struct delivery *d)
{
    if (d->state != DELIVERY_IDLE || !d->client)
        return;
    if (d->loading) { /* a new hop is ready before the parcel is */
        d->state = DELIVERY_LOADING;
        return;
    }
    if (d->current && connection_is_used_up(d)) {
        finish_parcel(
            d); /* who was not tried yet is due at once, over another connection */
    } else if (d->current) { /* more recipients, or it moved on to this hop with us */
        outgoing_ask_right(d);
        return;
    }
    if (d->quitting || connection_is_used_up(d)) {
        smtp_client_quit(d->client, mono_now());
        return;
    }
    d->current = outgoing_take_parcel(d);
    if (!d->current) {
        outgoing_tell_hungry(d, true);
        return;
    }
    if (d->batch > 4 && d->line_count <= 2)
        outgoing_tell_hungry(d, false); /* in time for the next batch to arrive */
    if (d->current->hot) {
        struct slice tail = body_tail(d->current->hot->body, 2);
        d->lacks_final_crlf = !slice_eq(tail, SLICE("\r\n"));
        outgoing_ask_right(d);
        return;
    }
    d->state = DELIVERY_LOADING;
    d->loading = true;
    d->pending++;
    parcel_load(d->dl, d->current, parcel_loaded, d);
}

/* --- a transaction --- */

static void make_room(struct delivery *d, unsigned count)
{
    if (count <= d->tx_room)
        return;
    d->tx_rcpts = mem_realloc(d->tx_rcpts, count * sizeof(*d->tx_rcpts));
    d->tx_index = mem_realloc(d->tx_index, count * sizeof(*d->tx_index));
    d->tx_room = count;
}

static unsigned most_recipients(const struct delivery *d)
{
    const struct smtp_caps *caps = smtp_client_caps(d->client);
    unsigned max = d->settings->limits.recipients_per_transaction;
    return caps->rcpt_max && caps->rcpt_max < max ? caps->rcpt_max : max;
}

static unsigned gather_recipients(struct delivery *d)
{
    struct parcel *p = d->current;
    unsigned most = most_recipients(d), count = 0;
    struct wall now = wall_now();
    for (unsigned i = 0; i < parcel_rcpt_count(p) && count < most; i++) {
        if (p->fates[i].tried || !parcel_rcpt_open(p, i, now))
            continue;
        struct recipient r = parcel_rcpt(p, i).rcpt;
        make_room(d, count + 1 < 8 ? 8 : count + 1 > d->tx_room ? most : count + 1);
        d->tx_rcpts[count] = (struct smtp_client_rcpt){
            .address = r.address, .orcpt = r.orcpt, .notify = r.notify};
        d->tx_index[count++] = (uint16_t)i;
    }
    return count;
}

static void fill_tx(struct delivery *d, unsigned rcpt_count)
{
    const struct message *m = parcel_message(d->current);
    d->tx = (struct smtp_client_tx){.reverse_path = m->reverse_path,
        .envid = m->envid,
        .ret = (enum smtp_ret)m->ret,
        .rcpts = d->tx_rcpts,
        .rcpt_count = rcpt_count,
        .size = d->converted ? body_size(d->converted) : m->size,
        .eight_bit = m->body_type == BODY_8BITMIME && !d->converted,
        .smtputf8 = m->smtputf8,
        .lacks_final_crlf = d->lacks_final_crlf};
}

static void begin_body(struct delivery *d)
{
    struct parcel *p = d->current;
    if (d->converted)
        body_source_begin_memory(d->source, d->converted);
    else if (p->hot)
        body_source_begin_memory(d->source, p->hot->body);
    else
        body_source_begin_disk(d->source, p->id.msg, p->record->body_rows);
}

static void describe_attempt(struct delivery *d)
{
    struct parcel *p = d->current;
    snprintf(p->mx, sizeof(p->mx), "%s", hops_name(d));
    memcpy(p->ip, d->ip, sizeof(p->ip));
    p->tls = smtp_client_encrypted(d->client) ? conn_tls_info(d->conn)->version : "";
    if (log_get_level() > LOG_DEBUG)
        return;
    struct record r;
    record_init(&r, LOG_EV_ATTEMPT);
    record_msg_id(&r, "id", p->id.msg);
    record_int(&r, "unit", p->id.unit);
    record_str(&r, "mx", p->mx);
    record_str(&r, "ip", p->ip);
    record_str(&r, "tls", p->tls);
    record_emit(&r);
}

static void open_transaction(struct delivery *d)
{
    unsigned count = gather_recipients(d);
    if (count == 0) {
        finish_parcel(d);
        outgoing_next_parcel(d);
        return;
    }
    fill_tx(d, count);
    begin_body(d);
    d->state = DELIVERY_SENDING;
    d->messages++;
    smtp_client_start(d->client, &d->tx, mono_now());
}

/* --- 8 bits to a hop that takes 7 --- */

struct conversion {
    struct job job;
    struct mail late;
    struct delivery *d;
    struct store *store;
    struct parcel *parcel;
    uint64_t most;
    struct body *body;
    const char *why;
    enum err err;
};

static void convert_on_helper(struct job *job)
{
    struct conversion *c = CONTAINER_OF(job, struct conversion, job);
    struct body *whole = NULL;
    if (c->parcel->hot)
        whole = body_ref(c->parcel->hot->body);
    else
        c->err = store_load_body(c->store, c->parcel->id.msg, c->most, &whole);
    if (c->err != ERR_OK)
        return;
    enum convert8 verdict = convert8_message(whole, &c->body, &c->why);
    if (verdict == CONVERT8_REFUSED)
        c->err = ERR_NEEDS_8BITMIME;
    if (verdict == CONVERT8_NOTHING)
        c->body = body_ref(whole);
    body_unref(whole);
}

static void conversion_home(struct conversion *c)
{
    struct delivery *d = c->d;
    bool here = d->state == DELIVERY_LOADING && d->client && !d->ended;
    d->loading = false;
    d->converted = here ? c->body : NULL;
    if (!here)
        body_unref(c->body);
    if (here)
        d->state = DELIVERY_IDLE;
    if (c->err == ERR_OK && here) {
        open_transaction(d);
    } else if (d->current && here) {
        parcel_fail_all(d->current, c->err, 0, SLICE(""), slice_str(c->why));
        finish_parcel(d);
        outgoing_next_parcel(d);
    } else {
        come_late(d);
    }
    outgoing_pump(d);
    outgoing_pending_done(d);
    free(c);
}

static void converted(struct mail *mail, void *owner)
{
    (void)owner;
    conversion_home(CONTAINER_OF(mail, struct conversion, job.mail));
}

static void conversion_refused(struct mail *mail, void *owner)
{
    (void)owner;
    conversion_home(CONTAINER_OF(mail, struct conversion, late));
}

static void start_conversion(struct delivery *d)
{
    struct conversion *c = mem_zalloc(sizeof(*c));
    c->d = d;
    c->store = d->dl->env->store;
    c->parcel = d->current;
    c->most = d->settings->limits.message_size_bytes + 65536;
    c->job.run = convert_on_helper;
    c->job.done = converted;
    c->job.reply_to = delivery_loop_mailbox(d->dl);
    d->state = DELIVERY_LOADING;
    d->loading = true;
    d->pending++;
    if (workers_submit(d->dl->env->helpers, &c->job))
        return;
    c->err = ERR_OVERLOADED;
    mailbox_post(delivery_loop_mailbox(d->dl), &c->late, conversion_refused);
}

/* Our own notifications may carry an 8-bit original; for them to be refused would lose
 * what they say, so they are always converted. */
static bool needs_conversion(const struct delivery *d)
{
    const struct smtp_caps *caps = smtp_client_caps(d->client);
    const struct message *m = parcel_message(d->current);
    return !(caps->flags & SMTP_CAP_8BITMIME) && !d->converted &&
           m->body_type == BODY_8BITMIME &&
           (m->origin == ORIGIN_LOCAL ||
               strcmp(d->settings->delivery.eight_bit, "convert") == 0);
}

/* --- the right to the parcel is there, or is not --- */

void outgoing_granted(struct delivery *d, const struct rights_grant *grant)
{
    struct parcel *p = d->current;
    p->allowed &= grant->rcpts;
    p->doubt = grant->doubt;
    p->cause = grant->cause;
    describe_attempt(d);
    if (needs_conversion(d))
        start_conversion(d);
    else
        open_transaction(d);
}

enum smtp_body_state outgoing_engine_body(void *ctx, struct slice *out)
{
    struct delivery *d = ctx;
    enum smtp_body_state state = body_source_next(d->source, out);
    if (state == SMTP_BODY_FAILED && d->current)
        rights_suspect(d->dl->env->rights, d->current->id);
    return state;
}

/* --- what became of it --- */

static bool goes_on_elsewhere(
    const struct smtp_outcome *outcome, const struct smtp_rcpt_result *r)
{
    return outcome->connection_failed && !r->possible_duplicate &&
           err_class(r->err) == ERR_CLASS_TRANSIENT;
}

static void note_result(
    struct delivery *d, unsigned at, const struct smtp_outcome *outcome)
{
    const struct smtp_rcpt_result *r = &outcome->results[at];
    struct parcel *p = d->current;
    unsigned i = d->tx_index[at];
    if (r->too_many)
        return; /* untried: the next transaction takes it */
    if (d->gate_refused && r->err == ERR_GATE_CLOSED)
        return; /* not tried: nothing that the next hop or the mail has to answer for */
    parcel_set_fate(p, i, r->err, r->code, r->status, r->text);
    p->fates[i].possible_duplicate = r->possible_duplicate;
    p->fates[i].relayed = !outcome->dsn_passed_on;
    if (goes_on_elsewhere(outcome, r)) {
        p->fates[i].tried = false; /* its fate until a better hop is found */
        d->move_on = true;
    }
}

void outgoing_engine_done(void *ctx, const struct smtp_outcome *outcome)
{
    struct delivery *d = ctx;
    body_source_end(d->source);
    d->state = DELIVERY_IDLE;
    d->final_waiting = false;
    if (outcome->stale) {
        outgoing_leave_parcel(d); /* a fresh connection, at once */
        return;
    }
    for (unsigned i = 0; i < outcome->count; i++)
        note_result(d, i, outcome);
    if (d->move_on || (outcome->connection_failed && !d->move_on))
        return; /* `closed` follows, and outgoing_salvage decides */
    for (unsigned i = 0; i < outcome->count; i++)
        if (outcome->results[i].too_many)
            return; /* `ready` follows and takes the rest */
    if (gather_recipients(d) == 0)
        finish_parcel(d);
}

/* Fates that were left open for a better hop, and there is none. */
static void close_fates(struct parcel *p)
{
    for (unsigned i = 0; i < parcel_rcpt_count(p); i++)
        if (!p->fates[i].tried && p->fates[i].err != ERR_OK)
            p->fates[i].tried = true;
}

/* Recipients of an earlier transaction may have theirs already: to forget that would
 * deliver to them again. */
static bool knows_fates(const struct parcel *p)
{
    for (unsigned i = 0; p->fates && i < parcel_rcpt_count(p); i++)
        if (p->fates[i].tried || p->fates[i].err != ERR_OK)
            return true;
    return false;
}

bool outgoing_salvage(struct delivery *d)
{
    struct parcel *p = d->current;
    if (!p || d->loading)
        return false; /* a read under way sends it home itself */
    if (d->gate_refused) {
        outgoing_leave_for_later(d, outgoing_a_little_later(d));
        return false;
    }
    if (!knows_fates(p))
        return false; /* its right was being asked for: it goes home untouched */
    if (d->move_on && !d->quitting && hops_next(d, true))
        return true;
    close_fates(p);
    finish_parcel(d);
    return false;
}

/* Those without a fate are due at once. */
void outgoing_leave_parcel(struct delivery *d)
{
    if (!d->current || d->loading)
        return;
    if (knows_fates(d->current)) {
        close_fates(d->current);
        finish_parcel(d);
    } else {
        send_home(d, outgoing_let_go(d), PARCEL_REQUEUE);
    }
}

void outgoing_leave_for_later(struct delivery *d, struct wall due)
{
    struct parcel *p = d->current;
    d->gate_refused = false;
    p->not_before = p->next_due = due;
    if (knows_fates(p)) {
        close_fates(p);
        finish_parcel(d);
    } else {
        send_home(d, outgoing_let_go(d), PARCEL_LATER);
    }
}
