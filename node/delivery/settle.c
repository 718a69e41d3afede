/* SPDX-License-Identifier: Apache-2.0 */
#include "node/delivery/settle.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/metrics.h"
#include "node/delivery/retry.h"
#include "node/delivery/settle_internal.h"

/* An outcome without notifications is taken, so what refuses it is a moment's trouble. */
#define AGAIN_MS 1000

static bool is_final_now(const struct settlement *t, const struct fate *f)
{
    return f->err == ERR_OK || err_class(f->err) == ERR_CLASS_PERMANENT ||
           (t->expires && !f->possible_duplicate);
}

static enum rcpt_state state_after(const struct settlement *t, const struct fate *f)
{
    if (f->err == ERR_OK)
        return RCPT_DELIVERED;
    if (!is_final_now(t, f))
        return f->possible_duplicate ? RCPT_IN_DOUBT : RCPT_DEFERRED;
    return f->err == ERR_EXPIRED || err_class(f->err) == ERR_CLASS_TRANSIENT
               ? RCPT_EXPIRED
               : RCPT_BOUNCED;
}

/* --- the log --- */

enum log_event settle_event_of(enum rcpt_state state)
{
    static const enum log_event events[] = {[RCPT_DEFERRED] = LOG_EV_DEFERRED,
        [RCPT_IN_DOUBT] = LOG_EV_DEFERRED,
        [RCPT_DELIVERED] = LOG_EV_DELIVERED,
        [RCPT_BOUNCED] = LOG_EV_BOUNCED,
        [RCPT_EXPIRED] = LOG_EV_EXPIRED,
        [RCPT_DROPPED] = LOG_EV_DROPPED,
        [RCPT_SUPPRESSED] = LOG_EV_SUPPRESSED};
    return events[state];
}

void settle_count(enum rcpt_state state, bool possible_duplicate)
{
    if (state == RCPT_DELIVERED)
        metric_add(METRIC_delivered_total, 1);
    else if (state == RCPT_BOUNCED)
        metric_add(METRIC_bounced_total, 1);
    else if (state == RCPT_EXPIRED)
        metric_add(METRIC_expired_total, 1);
    else if (!rcpt_state_is_final(state))
        metric_add(METRIC_deferred_total, 1);
    if (possible_duplicate)
        metric_add(METRIC_possible_duplicate_total, 1);
}

/* The attempt before this one that may have delivered to it, as a record keeps it. */
static uint64_t earlier_doubt(const struct parcel *p, unsigned i)
{
    if (p->doubt & parcel_rcpt_bit(p, i))
        return (uint64_t)(p->cause - '0');
    return parcel_rcpt(p, i).attempt_id;
}

/* Why this attempt may have made a duplicate: '1' to '8'; 0: it has not. */
static char duplicate_cause(const struct parcel *p, unsigned i)
{
    uint64_t earlier = earlier_doubt(p, i);
    if (p->fates[i].possible_duplicate)
        return '7';
    if (p->fates[i].err != ERR_OK || earlier == 0)
        return 0;
    return earlier <= 8 ? (char)('0' + earlier) : '7';
}

static void log_outcome(
    const struct settlement *t, const struct rcpt_record *rec, unsigned i)
{
    const struct parcel *p = t->parcel;
    const struct fate *f = &p->fates[i];
    char cause = duplicate_cause(p, i);
    int64_t delay = t->now.ms - parcel_message(p)->created.ms;
    struct record r;
    record_init(&r, settle_event_of(rec->state));
    record_msg_id(&r, "id", p->id.msg);
    record_slice(&r, "to", rec->rcpt.address);
    if (p->mx[0])
        record_str(&r, "mx", p->mx);
    if (p->ip[0])
        record_str(&r, "ip", p->ip);
    if (p->ip[0])
        record_str(&r, "tls", p->tls[0] ? p->tls : "none");
    record_str(&r, "dsn", f->status);
    record_slice(&r, "reply", f->reply);
    record_printf(&r, "delay", "%" PRId64 ".%03d", delay / 1000, (int)(delay % 1000));
    if (cause)
        record_printf(&r, "possible_duplicate", "D%c", cause);
    if (!rcpt_state_is_final(rec->state)) {
        char wait[24];
        duration_format(rec->next_due.ms - t->now.ms, wait);
        record_str(&r, "next", wait);
    }
    record_emit(&r);
}

/* --- the records --- */

static struct wall due_after(
    const struct settlement *t, const struct rcpt_record *rec, enum rcpt_state state)
{
    const struct message_unit *unit = parcel_unit(t->parcel);
    const struct message *m = parcel_message(t->parcel);
    int64_t first = t->settings->retry.first_ms, max = t->settings->retry.max_ms;
    int64_t wait = state == RCPT_IN_DOUBT ? retry_in_doubt_ms(first, max, rec->attempts)
                                          : retry_wait_ms(first, max, rec->attempts);
    int64_t due = t->now.ms + wait;
    int64_t warn = m->created.ms + unit->delay_warning_ms;
    if (unit->delay_warning_ms > 0 && !rec->delay_dsn_sent && warn > t->now.ms &&
        due > warn)
        due = warn; /* so that the warning is not late */
    if (t->clock_trusted && unit->expires.ms > t->now.ms && due > unit->expires.ms)
        due = unit->expires.ms; /* one last attempt, then it is over */
    return (struct wall){due};
}

/* A reply of 5xx that only defers (a hop that refused the connection, 552 at RCPT) is
 * shown with the class that it has for us; what expires has the status of that, and the
 * last reply says why it came so far. */
static void fit_status(struct fate *f, enum rcpt_state state)
{
    if (state == RCPT_EXPIRED)
        snprintf(f->status, sizeof(f->status), "%s", err_status(ERR_EXPIRED));
    else if (f->err != ERR_OK)
        f->status[0] = rcpt_state_is_final(state) ? '5' : '4';
}

static struct rcpt_record record_after(struct settlement *t, unsigned i)
{
    struct parcel *p = t->parcel;
    struct fate *f = &p->fates[i];
    struct rcpt_record rec = parcel_rcpt(p, i);
    rec.state = state_after(t, f);
    if (rec.attempts < UINT16_MAX)
        rec.attempts++;
    rec.last_attempt = t->now;
    if (rec.first_attempt.ms == 0)
        rec.first_attempt = t->now;
    fit_status(f, rec.state);
    rec.last_reply = f->reply;
    rec.last_status = slice_str(f->status);
    rec.last_mx = slice_str(p->mx);
    rec.attempt_id = f->possible_duplicate ? p->attempt.id : earlier_doubt(p, i);
    if (!rcpt_state_is_final(rec.state))
        rec.next_due = due_after(t, &rec, rec.state);
    return rec;
}

static void write_records(struct settlement *t)
{
    struct parcel *p = t->parcel;
    unsigned count = parcel_rcpt_count(p);
    t->records = arena_alloc(p->arena, count * sizeof(*t->records));
    for (unsigned i = 0; i < count; i++) {
        if (!p->fates[i].tried)
            continue;
        struct rcpt_record rec = record_after(t, i);
        log_outcome(t, &rec, i);
        settle_count(rec.state, duplicate_cause(p, i) != 0);
        t->index[t->record_count] = (uint16_t)i;
        t->records[t->record_count++] = rec;
    }
}

/* When the unit is to be looked at for this recipient. */
static int64_t due_of(
    const struct settlement *t, unsigned i, const struct rcpt_record *rec)
{
    int64_t earliest = t->now.ms + NOT_ALLOWED_MS;
    bool waits = !parcel_rcpt_allowed(t->parcel, i) && rec->next_due.ms < earliest;
    return waits ? earliest : rec->next_due.ms;
}

/* The unit, from its recipients: those of the settlement and the others. */
static void sum_up(struct settlement *t)
{
    struct parcel *p = t->parcel;
    int64_t due = INT64_MAX;
    bool done = true;
    p->in_doubt = 0;
    for (unsigned i = 0, at = 0; i < parcel_rcpt_count(p); i++) {
        bool changed = at < t->record_count && t->index[at] == i;
        struct rcpt_record rec = changed ? t->records[at++] : parcel_rcpt(p, i);
        if (rcpt_state_is_final(rec.state))
            continue;
        done = false;
        if (rec.state == RCPT_IN_DOUBT && p->in_doubt < UINT16_MAX)
            p->in_doubt++;
        int64_t its = due_of(t, i, &rec);
        due = its < due ? its : due;
    }
    due = due < p->not_before.ms ? p->not_before.ms : due;
    t->outcome.store.unit_done = done;
    t->outcome.store.next_due = (struct wall){done ? 0 : due};
}

/* --- the notifications found no room --- */

/* Its notification cannot be made to last, so it is not final: tried again, to be
 * reported then. */
static void take_back(struct settlement *t, unsigned at, enum err why)
{
    struct parcel *p = t->parcel;
    unsigned i = t->index[at];
    parcel_set_fate(p, i, why, 0, slice_str(err_status(why)), slice_str(err_text(why)));
    t->records[at] = record_after(t, i);
    log_outcome(t, &t->records[at], i);
}

/* What is known of the others must not wait for that, or they get theirs again. */
static void facts_first(struct settlement *t, enum err why)
{
    if (err_class(why) != ERR_CLASS_TRANSIENT)
        why = ERR_COPIES_UNAVAILABLE;
    t->expires = false;
    for (unsigned at = 0; at < t->record_count; at++) {
        struct rcpt_record *rec = &t->records[at];
        if (rec->state == RCPT_BOUNCED || rec->state == RCPT_EXPIRED)
            take_back(t, at, why);
        rec->delay_dsn_sent = parcel_rcpt(t->parcel, t->index[at]).delay_dsn_sent;
    }
    sum_up(t);
    settlement_drop_dsns(t, why);
    settlement_store(t);
}

static void store_again(struct timer *timer)
{
    struct settlement *t = CONTAINER_OF(timer, struct settlement, again);
    timer_fini(&t->again);
    settlement_store(t);
}

/* Until it is taken the unit stays in hand, so that it is not tried again meanwhile; at
 * the end of the process it is left as one that may have been delivered. */
static bool tries_again(struct settlement *t)
{
    enum err why = t->outcome.store.op.result;
    if (why == ERR_OK || why == ERR_STORE_NOT_FOUND)
        return false;
    if (t->dsn_count > 0) {
        facts_first(t, why);
        return true;
    }
    if (t->tries++ == 0)
        log_say(
            LOG_EV_STORE_PROBLEM, "an outcome cannot be stored yet: %s", err_text(why));
    if (rights_closed(delivery_loop_env(t->dl)->rights))
        return false;
    timer_init(&t->again, delivery_loop_loop(t->dl), store_again);
    timer_set(&t->again, mono_add_ms(mono_now(), AGAIN_MS));
    return true;
}

/* --- durable --- */

static void outcome_durable(struct store_op *op, void *owner)
{
    struct store_settle *stored = CONTAINER_OF(op, struct store_settle, op);
    struct rights_settle *outcome = CONTAINER_OF(stored, struct rights_settle, store);
    struct settlement *t = CONTAINER_OF(outcome, struct settlement, outcome);
    struct parcel *p = t->parcel;
    const struct delivery_env *env = delivery_loop_env(t->dl);
    void (*settled)(void *) = t->settled;
    void *ctx = t->ctx;
    (void)owner;
    if (tries_again(t))
        return;
    bool done = t->outcome.store.unit_done && op->result == ERR_OK;
    p->result = done ? PARCEL_SETTLED : PARCEL_DEFERRED;
    p->next_due = t->outcome.store.next_due;
    if (op->result == ERR_STORE_NOT_FOUND)
        p->result = PARCEL_SETTLED; /* removed meanwhile by an operator */
    if (op->result == ERR_OK && t->dsn_count > 0) {
        p->dsns = mem_alloc(t->dsn_count * sizeof(*p->dsns));
        memcpy(p->dsns, t->dsns, t->dsn_count * sizeof(*p->dsns));
        p->dsn_count = t->dsn_count;
        t->dsn_count = 0;
    }
    settlement_free(t);
    schedule_parcel_home(env->schedule, p);
    if (settled)
        settled(ctx);
}

void settlement_store(struct settlement *t)
{
    const struct delivery_env *env = delivery_loop_env(t->dl);
    struct store_settle *store = &t->outcome.store;
    struct parcel *p = t->parcel;
    store->op.reply_to = delivery_loop_mailbox(t->dl);
    store->op.done = outcome_durable;
    store->unit = p->id;
    store->rcpts = t->records;
    store->rcpt_count = (uint16_t)t->record_count;
    store->dsns = t->dsns;
    store->dsn_count = t->dsn_count;
    if (p->attempt.id) {
        t->outcome.attempt_id = p->attempt.id;
        t->outcome.tried = p->attempt.ticket ? p->allowed : 0;
    }
    rights_settle_facts(&t->outcome);
    rights_outcome(env->rights, &t->outcome);
    rights_end(env->rights, &p->attempt, false);
}

void settlement_free(struct settlement *t)
{
    for (unsigned i = 0; i < t->dsn_count; i++)
        message_unref(t->dsns[i]);
    settings_unref(t->settings);
    free(t->index);
    free(t);
}

void settle_parcel(struct delivery_loop *dl, struct settings *settings,
    struct parcel *parcel, void (*settled)(void *ctx), void *ctx)
{
    const struct delivery_env *env = delivery_loop_env(dl);
    struct settlement *t = mem_zalloc(sizeof(*t));
    t->dl = dl;
    t->settings = settings_ref(settings);
    t->parcel = parcel;
    t->settled = settled;
    t->ctx = ctx;
    t->now = wall_now();
    t->clock_trusted = rights_clock_trusted(env->rights, t->now);
    t->expires = t->clock_trusted && parcel_unit(parcel)->expires.ms <= t->now.ms;
    if (!parcel->fates)
        parcel_begin_fates(parcel);
    t->index = mem_alloc(parcel_rcpt_count(parcel) * sizeof(*t->index));
    write_records(t);
    sum_up(t);
    if (settlement_wants_dsn(t))
        settlement_make_dsns(t);
    else
        settlement_store(t);
}
