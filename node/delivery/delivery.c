/* SPDX-License-Identifier: Apache-2.0 */
#include "node/delivery/delivery.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "node/delivery/parcel_load.h"
#include "node/delivery/outgoing.h"
#include "node/delivery/settle.h"

/* --- a loop's share --- */

struct delivery_loop *delivery_loop_new(
    struct loop *loop, struct conns *conns, const struct delivery_env *env)
{
    struct delivery_loop *dl = mem_zalloc(sizeof(*dl));
    dl->loop = loop;
    dl->conns = conns;
    dl->env = env;
    return dl;
}

void delivery_loop_free(struct delivery_loop *dl)
{
    free(dl);
}

unsigned delivery_loop_load(const struct delivery_loop *dl)
{
    return atomic_load_explicit(&dl->load, memory_order_relaxed);
}

struct loop *delivery_loop_loop(struct delivery_loop *dl)
{
    return dl->loop;
}

struct mailbox *delivery_loop_mailbox(struct delivery_loop *dl)
{
    return loop_mailbox(dl->loop);
}

struct conns *delivery_loop_conns(struct delivery_loop *dl)
{
    return dl->conns;
}

const struct delivery_env *delivery_loop_env(struct delivery_loop *dl)
{
    return dl->env;
}

/* --- the line of parcels --- */

static void add_to_line(struct delivery *d, struct parcel *parcels)
{
    *d->line_tail = parcels;
    while (*d->line_tail) {
        d->line_tail = &(*d->line_tail)->next;
        d->line_count++;
    }
}

struct parcel *outgoing_take_parcel(struct delivery *d)
{
    struct parcel *p = d->line;
    if (!p)
        return NULL;
    d->line = p->next;
    d->line_count--;
    if (!d->line)
        d->line_tail = &d->line;
    p->next = NULL;
    return p;
}

void outgoing_return_line(struct delivery *d)
{
    struct parcel *p;
    while ((p = outgoing_take_parcel(d))) {
        p->result = PARCEL_REQUEUE;
        schedule_parcel_home(d->dl->env->schedule, p);
    }
}

static void fail_parcel(struct delivery *d, struct parcel *p)
{
    delivery_fail(d->dl, d->settings, p, &d->last_failure);
}

void outgoing_fail_all(struct delivery *d)
{
    struct parcel *p = d->loading ? NULL : d->current;
    d->load_failed = d->loading;
    if (p)
        fail_parcel(d, outgoing_let_go(d));
    /* A set-up that failed says nothing of mail that other connections may take: the
     * scheduler fails the line when there are none. */
    while (d->opened_told && (p = outgoing_take_parcel(d)))
        fail_parcel(d, p);
}

/* Notes may cross with a batch on its way here; the next ones put that right. */
void outgoing_tell_hungry(struct delivery *d, bool idle)
{
    if (idle ? d->idle_told : d->hungry_told)
        return;
    struct session_event *e = mem_zalloc(sizeof(*e));
    e->kind = SESSION_HUNGRY;
    e->slot = d->slot;
    e->idle = idle;
    d->hungry_told = true;
    d->idle_told = idle;
    schedule_session_event(d->dl->env->schedule, e);
}

/* --- life --- */

static void free_session(struct delivery *d)
{
    timer_fini(&d->timer);
    body_source_free(d->source);
    body_unref(d->converted);
    route_unref(d->route);
    settings_unref(d->settings);
    free(d->tx_rcpts);
    free(d->tx_index);
    explicit_bzero(d->credentials, sizeof(d->credentials));
    free(d);
}

void outgoing_pending_done(struct delivery *d)
{
    INVARIANT(d->pending > 0);
    if (--d->pending == 0 && d->released)
        free_session(d);
}

void outgoing_close(struct delivery *d, bool failed)
{
    if (d->state == DELIVERY_CLOSED)
        return;
    if (d->conn)
        outgoing_drop_connection(d);
    outgoing_leave_parcel(d);
    d->state = DELIVERY_CLOSED;
    d->closed.was_ready = d->opened_told;
    d->closed.failed = failed;
    d->closed.why = d->last_failure;
    for (unsigned i = d->dead_known; i < d->dead_count; i++)
        if (d->closed.dead_count < DEAD_ADDRESSES_MAX)
            d->closed.dead[d->closed.dead_count++] = d->dead[i];
    atomic_fetch_sub_explicit(&d->dl->load, 1, memory_order_relaxed);
    schedule_session_event(d->dl->env->schedule, &d->closed);
    /* Behind the news, or it might be sent off to the same failure once more. */
    outgoing_return_line(d);
}

static void timer_fired(struct timer *t)
{
    struct delivery *d = CONTAINER_OF(t, struct delivery, timer);
    if (!d->client)
        return;
    d->in_engine = true;
    if (outgoing_waits_for_right(d))
        outgoing_look_at_right(d);
    else if (d->state == DELIVERY_IDLE && !d->current)
        smtp_client_quit(d->client, mono_now());
    else
        smtp_client_tick(d->client, mono_now());
    d->in_engine = false;
    outgoing_pump(d);
}

static void body_here(void *ctx)
{
    struct delivery *d = ctx;
    if (!d->client || d->state != DELIVERY_SENDING)
        return;
    d->in_engine = true;
    smtp_client_body_ready(d->client, mono_now());
    d->in_engine = false;
    outgoing_pump(d);
}

/* "user:password" in the first line. A few bytes of a local file, once a connection that
 * authenticates: cheaper than the hand-over to a helper would be. */
static void read_credentials(struct delivery *d)
{
    const char *file = route_auth_file(d->route);
    if (!file[0])
        return;
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, d->credentials, sizeof(d->credentials));
    if (fd >= 0)
        close(fd);
    if (n <= 0) {
        log_say(LOG_EV_CONFIG_PROBLEM, "auth file %s cannot be read: no credentials sent",
            file);
        return;
    }
    struct slice text = slice_make(d->credentials, (size_t)n);
    text = slice_trim(slice_head(text, slice_find(text, '\n')));
    size_t colon = slice_find(text, ':');
    d->client_config.user = slice_head(text, colon);
    d->client_config.password = slice_from(text, colon + 1);
}

static void start_arrived(struct mail *mail, void *owner)
{
    struct delivery *d = CONTAINER_OF(mail, struct delivery, start_mail);
    (void)owner;
    timer_init(&d->timer, d->dl->loop, timer_fired);
    d->source = body_source_new(d->dl->env->store, d->dl->env->helpers,
        delivery_loop_mailbox(d->dl), body_here, d);
    snprintf(d->ehlo_name, sizeof(d->ehlo_name), "%s", d->settings->hostname);
    d->client_config.ehlo_name = slice_str(d->ehlo_name);
    d->client_config.eight_bit = strcmp(d->settings->delivery.eight_bit, "send") == 0
                                     ? SMTP_EIGHT_BIT_SEND
                                     : SMTP_EIGHT_BIT_BOUNCE;
    read_credentials(d);
    hops_start(d);
}

struct delivery *delivery_open(
    struct delivery_loop *dl, const struct delivery_start *start)
{
    struct delivery *d = mem_zalloc(sizeof(*d));
    d->dl = dl;
    d->slot = start->slot;
    d->settings = start->settings;
    d->route = start->route;
    d->line_tail = &d->line;
    add_to_line(d, start->parcels);
    d->batch = d->line_count;
    memcpy(d->dead, start->dead, sizeof(start->dead));
    d->dead_count = d->dead_known = start->dead_count;
    d->opened = (struct session_event){.kind = SESSION_OPENED, .slot = d->slot};
    d->closed = (struct session_event){.kind = SESSION_CLOSED, .slot = d->slot};
    atomic_fetch_add_explicit(&dl->load, 1, memory_order_relaxed);
    mailbox_post(loop_mailbox(dl->loop), &d->start_mail, start_arrived);
    return d;
}

/* --- what the scheduler says later --- */

struct batch_note {
    struct mail mail;
    struct delivery *d;
    struct parcel *parcels;
};

static void batch_arrived(struct mail *mail, void *owner)
{
    struct batch_note *note = CONTAINER_OF(mail, struct batch_note, mail);
    struct delivery *d = note->d;
    (void)owner;
    add_to_line(d, note->parcels);
    free(note);
    d->hungry_told = d->idle_told = false;
    d->batch = d->line_count;
    if (d->state == DELIVERY_CLOSED || d->quitting) {
        outgoing_return_line(d);
        return;
    }
    if (d->state == DELIVERY_IDLE && !d->current && d->client) {
        d->in_engine = true;
        outgoing_next_parcel(d);
        d->in_engine = false;
        outgoing_pump(d);
    }
}

void delivery_send(struct delivery *d, struct parcel *parcels)
{
    struct batch_note *note = mem_alloc(sizeof(*note));
    note->d = d;
    note->parcels = parcels;
    mailbox_post(loop_mailbox(d->dl->loop), &note->mail, batch_arrived);
}

static void quit_arrived(struct mail *mail, void *owner)
{
    struct delivery *d = CONTAINER_OF(mail, struct delivery, quit_mail);
    (void)owner;
    if (d->state == DELIVERY_CLOSED)
        return;
    d->quitting = true;
    outgoing_return_line(d);
    if (d->client && (d->opened_told || d->current)) {
        d->in_engine = true;
        smtp_client_quit(d->client, mono_now());
        d->in_engine = false;
        outgoing_pump(d);
        return;
    }
    outgoing_close(d, false);
}

void delivery_quit(struct delivery *d)
{
    mailbox_post(loop_mailbox(d->dl->loop), &d->quit_mail, quit_arrived);
}

static void abort_arrived(struct mail *mail, void *owner)
{
    struct delivery *d = CONTAINER_OF(mail, struct delivery, abort_mail);
    (void)owner;
    if (d->state == DELIVERY_CLOSED || !d->client)
        return;
    d->in_engine = true;
    smtp_client_abort(d->client, ERR_SHUTTING_DOWN, mono_now());
    d->in_engine = false;
    outgoing_pump(d);
}

void delivery_abort(struct delivery *d)
{
    if (d->abort_told)
        return;
    d->abort_told = true;
    mailbox_post(loop_mailbox(d->dl->loop), &d->abort_mail, abort_arrived);
}

static void release_arrived(struct mail *mail, void *owner)
{
    struct delivery *d = CONTAINER_OF(mail, struct delivery, release_mail);
    (void)owner;
    d->released = true;
    if (d->pending == 0)
        free_session(d);
}

void delivery_release(struct delivery *d)
{
    mailbox_post(loop_mailbox(d->dl->loop), &d->release_mail, release_arrived);
}

/* --- settling without a session --- */

struct fail_note {
    struct mail mail;
    struct delivery_loop *dl;
    struct settings *settings;
    struct parcel *parcel;
    struct failure_note why;
};

static void fail_now(struct fail_note *note)
{
    const struct failure_note *why = &note->why;
    struct parcel *p = note->parcel;
    enum err err = why->err == ERR_OK ? ERR_CONNECTION_LOST : why->err;
    p->connection_failed = err_class(err) == ERR_CLASS_TRANSIENT;
    if (!p->mx[0])
        snprintf(p->mx, sizeof(p->mx), "%s", why->mx);
    /* Whatever a server said to the connection as a whole, mail is only deferred by it.
     */
    if (why->code >= 500 && err == ERR_REMOTE_PERMANENT)
        err = ERR_REMOTE_TRANSIENT;
    parcel_fail_all(p, err, why->code, slice_str(why->status), slice_str(why->text));
    settle_parcel(note->dl, note->settings, p, NULL, NULL);
    settings_unref(note->settings);
    free(note);
}

static void fail_loaded(struct parcel *p, enum err err, bool lacks_final_crlf, void *ctx)
{
    struct fail_note *note = ctx;
    (void)lacks_final_crlf;
    if (err == ERR_OK && !p->check_rule) {
        fail_now(note);
        return;
    }
    p->result = err == ERR_OK                ? PARCEL_REROUTE
                : err == ERR_STORE_NOT_FOUND ? PARCEL_SETTLED
                                             : PARCEL_DEFERRED;
    p->next_due = (struct wall){wall_now().ms + note->settings->retry.first_ms};
    schedule_parcel_home(note->dl->env->schedule, p);
    settings_unref(note->settings);
    free(note);
}

static void fail_arrived(struct mail *mail, void *owner)
{
    struct fail_note *note = CONTAINER_OF(mail, struct fail_note, mail);
    (void)owner;
    if (note->parcel->hot || note->parcel->record)
        fail_now(note);
    else
        parcel_load(note->dl, note->parcel, fail_loaded, note);
}

void delivery_fail(struct delivery_loop *dl, struct settings *settings,
    struct parcel *parcel, const struct failure_note *why)
{
    struct fail_note *note = mem_alloc(sizeof(*note));
    note->dl = dl;
    note->settings = settings_ref(settings);
    note->parcel = parcel;
    note->why = *why;
    mailbox_post(loop_mailbox(dl->loop), &note->mail, fail_arrived);
}
