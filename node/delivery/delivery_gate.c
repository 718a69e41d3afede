/* SPDX-License-Identifier: Apache-2.0 */
/* The right to the parcel in hand, which one attempt keeps through all its transactions
 * and hops; and the last write, right after the gate was read. */
#include "base/random.h"
#include "node/delivery/outgoing.h"

/* How long a mail whose right is missing is left alone, and how long we wait for it. */
#define LATER_MS 1000
#define LATER_SPREAD 4
#define RIGHT_WAIT_MS 30000

struct wall outgoing_a_little_later(const struct delivery *d)
{
    int64_t least = d->dl->env->later_ms ? d->dl->env->later_ms : LATER_MS;
    int64_t spread = (int64_t)random_below((uint64_t)least * LATER_SPREAD);
    return (struct wall){wall_now().ms + least + spread};
}

static struct mono wait_from_now(const struct delivery *d)
{
    int64_t ms = d->dl->env->right_wait_ms;
    return mono_add_ms(mono_now(), ms ? ms : RIGHT_WAIT_MS);
}

/* --- the right to the parcel --- */

static void right_changed(struct attempt_ticket *t, void *owner)
{
    struct delivery *d = t->ctx;
    (void)owner;
    if (!d->current || d->current->attempt.ticket != t)
        return;
    outgoing_look_at_right(d);
    outgoing_pump(d);
}

static enum err begin_attempt(struct delivery *d, struct parcel *p, uint64_t rcpts)
{
    struct rights_asker asker = {
        .reply_to = delivery_loop_mailbox(d->dl), .changed = right_changed, .ctx = d};
    return rights_begin(d->dl->env->rights, p->id, rcpts, &asker, &p->attempt);
}

static void look_at_grant(struct delivery *d)
{
    struct rights_grant grant;
    enum gate gate = rights_granted(d->dl->env->rights, &d->current->attempt, &grant);
    if (gate == GATE_WAIT && mono_now().ns < d->wait_until.ns)
        return;
    d->asking = false;
    d->state = DELIVERY_IDLE;
    if (gate == GATE_OPEN) {
        outgoing_granted(d, &grant);
    } else {
        outgoing_leave_for_later(d, outgoing_a_little_later(d));
        outgoing_next_parcel(d);
    }
}

void outgoing_ask_right(struct delivery *d)
{
    struct parcel *p = d->current;
    struct wall now = wall_now();
    uint64_t rcpts = parcel_open_bits(p, now);
    d->move_on = false;
    if (!p->fates)
        parcel_begin_fates(p);
    if (rcpts == 0 && rights_clustered(d->dl->env->rights)) {
        outgoing_leave_for_later(d, (struct wall){now.ms + NOT_ALLOWED_MS});
        outgoing_next_parcel(d);
    } else if (begin_attempt(d, p, rcpts) != ERR_OK) {
        outgoing_leave_for_later(d, outgoing_a_little_later(d));
        smtp_client_quit(d->client, mono_now());
    } else {
        d->wait_until = wait_from_now(d);
        d->state = DELIVERY_LOADING;
        d->asking = true;
        look_at_grant(d);
    }
}

/* --- the last write --- */

void outgoing_engine_final_ready(void *ctx)
{
    struct delivery *d = ctx;
    d->final_waiting = true;
    if (d->current->attempt.ticket)
        d->wait_until = wait_from_now(d);
    outgoing_write_final(d);
}

bool outgoing_waits_for_right(const struct delivery *d)
{
    return d->asking ||
           (d->final_waiting && d->current && d->current->attempt.ticket != NULL);
}

static void refuse_final(struct delivery *d)
{
    d->final_waiting = false;
    d->gate_refused = true;
    smtp_client_final_refused(d->client, mono_now());
}

/* The right went while a body was on its way: no need to send the rest of it. What has
 * its dot already waits for the reply, which is a fact whoever owns the mail now. */
static void stop_if_closed(struct delivery *d)
{
    if (d->state != DELIVERY_SENDING || smtp_client_phase(d->client) >= SMTP_PHASE_DOT ||
        rights_gate(d->dl->env->rights, &d->current->attempt) != GATE_CLOSED)
        return;
    d->gate_refused = true;
    smtp_client_abort(d->client, ERR_GATE_CLOSED, mono_now());
}

void outgoing_look_at_right(struct delivery *d)
{
    bool was_in_engine = d->in_engine;
    if (!d->client || d->ended || !d->current)
        return;
    d->in_engine = true;
    if (d->asking) {
        look_at_grant(d);
    } else if (d->final_waiting) {
        outgoing_write_final(d);
    } else {
        stop_if_closed(d);
    }
    d->in_engine = was_in_engine;
}

void outgoing_write_final(struct delivery *d)
{
    /* The outcome of the message before must be durable: a crash may then leave at most
     * one message a connection in doubt. */
    if (!d->final_waiting)
        return;
    if (d->outcome_pending) {
        if (outgoing_waits_for_right(d) && mono_now().ns >= d->wait_until.ns)
            refuse_final(d);
        return;
    }
    for (;;) {
        struct slice rest = smtp_client_final(d->client);
        size_t n = 0;
        if (rest.len == 0)
            break;
        enum gate gate = rights_gate(d->dl->env->rights, &d->current->attempt);
        if (gate == GATE_WAIT && mono_now().ns < d->wait_until.ns)
            return; /* until it changes, or the time is over */
        if (gate != GATE_OPEN) {
            refuse_final(d);
            return;
        }
        if (conn_send_direct(d->conn, rest, &n) != ERR_OK) {
            d->lost = true;
            return; /* the pump tells the engine */
        }
        if (n == 0)
            return; /* `drained` comes back here */
        smtp_client_final_written(d->client, n, mono_now());
    }
    d->final_waiting = false;
}
