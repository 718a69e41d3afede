/* SPDX-License-Identifier: Apache-2.0 */
/* Recipients that end by an operator's word: the same records, reports and log lines as
 * after an attempt, without one. */
#include <inttypes.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "node/delivery/hand.h"
#include "node/delivery/settle_internal.h"

static const char *status_of(enum rcpt_state state)
{
    if (state == RCPT_EXPIRED)
        return err_status(ERR_EXPIRED);
    return state == RCPT_BOUNCED ? "5.0.0" : "";
}

/* What no next hop said must not look as if one had: its name goes. */
static struct rcpt_record ended(const struct rcpt_record *r, const struct ending_ask *ask)
{
    struct rcpt_record rec = *r;
    rec.state = ask->state;
    rec.last_reply = ask->reason;
    rec.last_status = slice_str(status_of(ask->state));
    rec.last_mx = SLICE("");
    rec.next_due = (struct wall){0};
    return rec;
}

/* It may have got its mail from another node a moment ago. */
static bool is_elsewhere(const struct rcpt_record *r, uint64_t rcpts)
{
    uint64_t bit = rights_bit(r->rcpt.index);
    return bit && !(rcpts & bit);
}

static void build_records(struct ending *e, uint64_t rcpts, const struct ending_ask *ask)
{
    struct unit_record *u = e->record;
    struct store_settle *store = &e->outcome.store;
    struct rcpt_record *records = arena_alloc(u->arena, u->rcpt_count * sizeof(*records));
    int64_t due = INT64_MAX;
    store->unit_done = true;
    for (unsigned i = 0; i < u->rcpt_count; i++) {
        const struct rcpt_record *r = &u->rcpts[i];
        if (rcpt_state_is_final(r->state))
            continue;
        bool wanted = ask->wants(u, r, ask->ctx);
        if (wanted && !is_elsewhere(r, rcpts)) {
            records[store->rcpt_count++] = ended(r, ask);
            continue;
        }
        e->skipped += wanted;
        if (r->state == RCPT_IN_DOUBT)
            e->in_doubt++;
        store->unit_done = false;
        due = r->next_due.ms < due ? r->next_due.ms : due;
    }
    store->rcpts = records;
    store->next_due.ms = store->unit_done ? 0 : due;
    e->some = store->rcpt_count > 0;
}

static void build_report(struct ending *e, const struct ending_ask *ask)
{
    const struct store_settle *store = &e->outcome.store;
    const struct rcpt_record **rcpts = mem_alloc(store->rcpt_count * sizeof(*rcpts));
    for (unsigned i = 0; i < store->rcpt_count; i++)
        rcpts[i] = &store->rcpts[i];
    e->dsn = settle_report_failure(
        e->record, rcpts, store->rcpt_count, ask->store, ask->settings, ask->now);
    free(rcpts);
}

void ending_build(
    struct ending *e, const struct hand_unit *unit, const struct ending_ask *ask)
{
    struct store_settle *store = &e->outcome.store;
    *e = (struct ending){0};
    e->err = store_read_unit(ask->store, unit->id, &e->record);
    if (e->err != ERR_OK)
        return;
    store->unit = unit->id;
    build_records(e, unit->rcpts, ask);
    if (e->some && ask->state != RCPT_DROPPED)
        build_report(e, ask);
    store->dsns = &e->dsn;
    store->dsn_count = e->dsn != NULL;
    rights_settle_facts(&e->outcome);
}

static void log_one(const struct ending *e, const struct rcpt_record *rec)
{
    int64_t delay = wall_now().ms - e->record->message->created.ms;
    struct record r;
    record_init(&r, settle_event_of(rec->state));
    record_msg_id(&r, "id", e->record->id.msg);
    record_slice(&r, "to", rec->rcpt.address);
    if (rec->last_status.len)
        record_slice(&r, "dsn", rec->last_status);
    record_slice(&r, "reply", rec->last_reply);
    record_str(&r, "by", "operator");
    delay = delay < 0 ? 0 : delay;
    record_printf(&r, "delay", "%" PRId64 ".%03d", delay / 1000, (int)(delay % 1000));
    record_emit(&r);
    settle_count(rec->state, false);
}

void ending_log(const struct ending *e)
{
    for (unsigned i = 0; i < e->outcome.store.rcpt_count; i++)
        log_one(e, &e->outcome.store.rcpts[i]);
    if (e->dsn)
        settle_log_report(e->record, e->dsn);
}

void ending_fini(struct ending *e)
{
    message_unref(e->dsn);
    unit_record_free(e->record);
    *e = (struct ending){0};
}
