/* SPDX-License-Identifier: Apache-2.0 */
#include "node/delivery/schedule.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/metrics.h"
#include "base/random.h"
#include "node/delivery/destination.h"

/* Figures for `status` are so old at most. */
#define SWEEP_MS 250
#define EXPIRY_SWEEPS 240
#define FORGET_SWEEPS 8
/* Under load: news comes twice a message, and waking up for each costs more than it. */
#define NAP_US 500
/* Clock not trusted: look again later, do not expire. */
#define CLOCK_WAIT_MS 600000
/* An envelope in memory, roughly. */
#define ENVELOPE_BYTES 2048
#define IN_DOUBT_LONGEST_MS INT64_C(1800000)
/* Wall time that runs away from BOOTTIME by more than this was set by somebody. */
#define CLOCK_STEP_MS 60000

struct delivery_loop *schedule_least_busy(struct schedule *s)
{
    struct delivery_loop *best = s->loops[0];
    for (unsigned i = 1; i < s->loop_count; i++)
        if (delivery_loop_load(s->loops[i]) < delivery_loop_load(best))
            best = s->loops[i];
    return best;
}

void schedule_forget_hot(struct schedule *s, struct sched_unit *unit)
{
    message_unref(unit->hot);
    unit->hot = NULL;
    if (unit->hot_bytes) {
        atomic_fetch_sub_explicit(&s->hot.bytes, unit->hot_bytes, memory_order_relaxed);
        atomic_fetch_add_explicit(&s->hot.left, 1, memory_order_relaxed);
    }
    unit->hot_bytes = 0;
}

struct parcel *schedule_make_parcel(struct schedule *s, struct sched_unit *unit)
{
    struct parcel *parcel = parcel_new(unit, unit->id, unit->hot);
    parcel->allowed = unit->rcpts;
    parcel->check_rule =
        !unit->hot && s->match_needs_message && unit->generation != s->generation;
    return parcel;
}

/* --- waiting --- */

static void arm_due(struct schedule *s)
{
    const struct sched_unit *next = units_next_due(s->units);
    if (!next || s->stopping) {
        timer_cancel(&s->due_timer);
        return;
    }
    int64_t wait = next->due_ms - wall_now().ms;
    /* Wall time may jump: never sleep past a minute on its word. */
    wait = wait < 0 ? 0 : wait > 60000 ? 60000 : wait;
    timer_set(&s->due_timer, mono_add_ms(mono_now(), wait));
}

void schedule_unit_wait(struct schedule *s, struct sched_unit *unit, int64_t due_ms)
{
    units_wait(s->units, unit, due_ms);
    if (units_next_due(s->units) == unit)
        arm_due(s);
}

void schedule_leave_failed_line(struct sched_unit *unit)
{
    if (unit->connection_failed)
        TAILQ_REMOVE(&unit->group->failed, unit, line);
    unit->connection_failed = false;
}

static void expire_held(struct schedule *s, struct sched_unit *unit)
{
    struct wall now = wall_now();
    if (unit->expires_ms > now.ms || s->paused ||
        !rights_clock_trusted(s->env->rights, now)) {
        int64_t later = now.ms + CLOCK_WAIT_MS;
        units_wait(s->units, unit, unit->expires_ms > later ? unit->expires_ms : later);
        return;
    }
    struct failure_note why = {.err = ERR_EXPIRED};
    snprintf(why.text, sizeof(why.text), "held until its lifetime was over");
    units_unwait(s->units, unit);
    s->held--;
    group_add_ready(unit->group, unit);
    group_expire_one(unit, &why);
}

void schedule_unit_due(struct schedule *s, struct sched_unit *unit)
{
    if (unit->place == UNIT_HELD) {
        expire_held(s, unit);
        return;
    }
    schedule_leave_failed_line(unit);
    group_add_ready(unit->group, unit);
    group_advance(unit->group);
}

static void due_fired(struct timer *t)
{
    struct schedule *s = CONTAINER_OF(t, struct schedule, due_timer);
    int64_t now = wall_now().ms;
    struct sched_unit *unit;
    for (unsigned n = 0; n < 4096 && !s->stopping; n++) {
        unit = units_next_due(s->units);
        if (!unit || unit->due_ms > now)
            break;
        schedule_unit_due(s, unit);
    }
    arm_due(s);
}

/* --- what comes in --- */

struct group *schedule_group_of(
    struct schedule *s, const struct message *m, unsigned unit)
{
    struct route_facts facts = {.domain = m->units[unit].domain,
        .sender = m->reverse_path,
        .user = m->user,
        .listener = m->listener};
    return group_find(s, facts.domain, router_match(s->router, &facts));
}

static uint64_t hot_bytes(struct schedule *s)
{
    return atomic_load_explicit(&s->hot.bytes, memory_order_relaxed);
}

static void keep_hot(struct schedule *s, struct sched_unit *unit, struct message *m)
{
    uint64_t bytes = ENVELOPE_BYTES;
    if (!m->body)
        return;
    bytes += body_memory(m->body) / m->unit_count;
    if (bytes > UINT32_MAX || hot_bytes(s) + bytes > s->settings->queue.memory_bytes)
        return;
    unit->hot = message_ref(m);
    unit->hot_bytes = (uint32_t)bytes;
    atomic_fetch_add_explicit(&s->hot.bytes, bytes, memory_order_relaxed);
}

static void add_message(struct schedule *s, struct message *m)
{
    for (unsigned i = 0; i < m->unit_count; i++) {
        struct unit_id id = {m->id, m->units[i].unit};
        struct sched_unit *unit = schedule_new_unit(s, id);
        if (!unit)
            continue;
        struct group *g = schedule_group_of(s, m, i);
        unit->group = g;
        unit->generation = s->generation;
        unit->expires_ms = m->units[i].expires.ms;
        g->unit_count++;
        keep_hot(s, unit, m);
        group_add_ready(g, unit);
        group_advance(g);
    }
}

struct accepted_note {
    struct mail mail;
    struct schedule *schedule;
    struct message *message;
};

static void accepted_arrived(struct mail *mail, void *owner)
{
    struct accepted_note *note = CONTAINER_OF(mail, struct accepted_note, mail);
    (void)owner;
    add_message(note->schedule, note->message);
    message_unref(note->message);
    free(note);
}

void schedule_accepted(struct schedule *s, struct message *m)
{
    struct accepted_note *note = mem_alloc(sizeof(*note));
    note->schedule = s;
    note->message = message_ref(m);
    mailbox_post(loop_mailbox(s->loop), &note->mail, accepted_arrived);
}

/* A due time that no setting of ours explains was written under a clock that was wrong.
 */
static int64_t sane_due(const struct schedule *s, const struct scan_unit *found)
{
    int64_t now = wall_now().ms, longest = s->settings->retry.max_ms;
    if (longest < IN_DOUBT_LONGEST_MS)
        longest = IN_DOUBT_LONGEST_MS;
    if (found->next_due.ms <= now + 2 * longest)
        return found->next_due.ms;
    return now + (int64_t)random_below((uint64_t)s->settings->retry.first_ms + 1);
}

void schedule_place_found(struct schedule *s, struct sched_unit *unit, struct group *g,
    const struct scan_unit *found)
{
    unit->group = g;
    unit->expires_ms = found->expires.ms;
    g->unit_count++;
    unit->place = found->held ? UNIT_HELD : UNIT_WAITING;
    s->held += found->held;
    unit->in_doubt = found->in_doubt;
    s->in_doubt += found->in_doubt;
    units_wait(s->units, unit, found->held ? found->expires.ms : sane_due(s, found));
}

void schedule_add_scanned(struct schedule *s, const struct scan_unit *found)
{
    struct route_facts facts = {.domain = found->domain};
    struct group *g = group_find(s, found->domain, router_match(s->router, &facts));
    schedule_place_found(s, units_add(s->units, found->id), g, found);
}

/* --- what comes back --- */

void schedule_unit_gone(struct schedule *s, struct sched_unit *unit)
{
    struct group *g = unit->group;
    schedule_forget_hot(s, unit);
    s->in_doubt -= unit->in_doubt;
    units_remove(s->units, unit);
    g->unit_count--;
    group_forget_if_empty(g);
}

/* Perhaps only this node cannot reach it: in a cluster, some of its units are offered to
 * the others in each round of tries, and not all, for it may be dead for everybody. */
static void offer_deferred(struct schedule *s, struct sched_unit *unit)
{
    struct destination *d = unit->group->destination;
    if (!unit->connection_failed || unit->in_doubt || !d || d->offers == 0)
        return;
    d->offers--;
    rights_offer(s->env->rights, unit->id);
}

static void unit_deferred(
    struct schedule *s, struct sched_unit *unit, const struct parcel *parcel)
{
    schedule_forget_hot(s, unit);
    unit->place = UNIT_WAITING;
    unit->connection_failed = parcel->connection_failed;
    s->in_doubt += (uint64_t)parcel->in_doubt - unit->in_doubt;
    unit->in_doubt = parcel->in_doubt;
    if (unit->connection_failed)
        TAILQ_INSERT_TAIL(&unit->group->failed, unit, line);
    int64_t due = parcel->next_due.ms;
    if (unit->nudged && unit->due_ms < due)
        due = unit->due_ms;
    unit->nudged = false;
    schedule_unit_wait(s, unit, due);
    offer_deferred(s, unit);
}

/* What is in memory is still good: nothing was tried. */
static void unit_later(
    struct schedule *s, struct sched_unit *unit, const struct parcel *parcel)
{
    unit->place = UNIT_WAITING;
    schedule_unit_wait(s, unit, parcel->next_due.ms);
}

/* The message was read: now all that rules look at is known. */
static void unit_rerouted(
    struct schedule *s, struct sched_unit *unit, const struct parcel *parcel)
{
    struct group *old = unit->group;
    struct group *g = schedule_group_of(s, parcel_message(parcel), 0);
    unit->group = g;
    unit->generation = s->generation;
    g->unit_count++;
    old->unit_count--;
    group_add_ready(g, unit);
    group_forget_if_empty(old);
    group_advance(g);
}

static void parcel_home(struct mail *mail, void *owner)
{
    struct parcel *parcel = CONTAINER_OF(mail, struct parcel, mail);
    struct schedule *s = parcel->schedule;
    struct sched_unit *unit = parcel->unit;
    (void)owner;
    s->active--;
    if (parcel->without_session)
        s->failing_active--;
    for (unsigned i = 0; i < parcel->dsn_count; i++) {
        add_message(s, parcel->dsns[i]);
        message_unref(parcel->dsns[i]);
    }
    if (parcel->result == PARCEL_SETTLED ||
        (parcel->result == PARCEL_DEFERRED && !parcel->connection_failed))
        if (unit->group->destination && !parcel->without_session)
            destination_success(s, unit->group->destination);
    if (parcel->counted)
        destination_counted_home(s, parcel->counted);
    if (unit->cancelled || unit->restarted) {
        schedule_cancelled_home(s, unit);
    } else if (parcel->result == PARCEL_SETTLED) {
        schedule_unit_gone(s, unit);
    } else if (parcel->result == PARCEL_DEFERRED) {
        unit_deferred(s, unit, parcel);
    } else if (parcel->result == PARCEL_LATER) {
        unit_later(s, unit, parcel);
    } else if (parcel->result == PARCEL_REROUTE) {
        unit_rerouted(s, unit, parcel);
    } else {
        group_add_ready(unit->group, unit);
        group_advance(unit->group);
    }
    groups_fail_some(s);
    parcel_free(parcel);
}

void schedule_parcel_home(struct schedule *s, struct parcel *parcel)
{
    parcel->schedule = s;
    /* What was settled has ended its attempt with the outcome. */
    rights_end(s->env->rights, &parcel->attempt, true);
    mailbox_post(loop_mailbox(s->loop), &parcel->mail, parcel_home);
}

static void event_arrived(struct mail *mail, void *owner)
{
    struct session_event *event = CONTAINER_OF(mail, struct session_event, mail);
    struct schedule *s = event->schedule;
    (void)owner;
    destination_session_event(s, event);
    if (s->stopping && s->session_count == 0 && s->active == 0)
        loop_stop(s->loop);
}

const struct hot_memory *schedule_hot(const struct schedule *s)
{
    return &s->hot;
}

void schedule_session_event(struct schedule *s, struct session_event *event)
{
    event->schedule = s;
    mailbox_post(loop_mailbox(s->loop), &event->mail, event_arrived);
}

/* --- now and then --- */

static void publish_stats(struct schedule *s)
{
    unsigned most = s->settings->limits.delivery_connections;
    struct schedule_stats now = {.units = units_count(s->units),
        .due = s->ready + s->active,
        .held = s->held,
        .active = s->active,
        .hot_bytes = hot_bytes(s),
        .in_doubt = s->in_doubt,
        .memory_bytes = units_memory(s->units),
        .destinations = s->destination_count,
        .sessions = s->session_count,
        .spare = most > s->session_count && !s->paused ? most - s->session_count : 0};
    pthread_mutex_lock(&s->stats_lock);
    s->stats = now;
    pthread_mutex_unlock(&s->stats_lock);
    metric_set(METRIC_queue_units, (int64_t)now.units);
    metric_set(METRIC_queue_due, (int64_t)now.due);
    metric_set(METRIC_queue_held, (int64_t)now.held);
}

static void expiry_sweep(struct schedule *s)
{
    struct wall now = wall_now();
    if (s->paused || !rights_clock_trusted(s->env->rights, now))
        return;
    for (unsigned i = 0; i < TABLE_BUCKETS; i++) {
        struct group *g;
        LIST_FOREACH (g, &s->groups[i], bucket)
            if (g->ready_count > 0 && !g->failure)
                group_expire_ready(g, now.ms);
    }
}

static void abort_sessions(struct schedule *s)
{
    for (unsigned i = 0; i < TABLE_BUCKETS; i++) {
        struct destination *d;
        LIST_FOREACH (d, &s->destinations[i], bucket) {
            struct session_slot *slot;
            TAILQ_FOREACH (slot, &d->sessions, link)
                delivery_abort(slot->delivery);
        }
    }
}

static void look_at_stop(struct schedule *s)
{
    if (s->session_count == 0 && s->active == 0) {
        loop_stop(s->loop);
    } else if (mono_now().ns > s->stop_at.ns) {
        rights_close_gate(s->env->rights);
        abort_sessions(s);
        s->stop_at = mono_add_ms(mono_now(), 1000);
    }
}

/* Waits are durations: a clock that is set neither starts all retries at once nor puts
 * them off for years. */
static void follow_clock(struct schedule *s)
{
    int64_t offset = wall_now().ms - mono_now().ns / NS_PER_MS;
    int64_t step = offset - s->clock_offset_ms;
    if (s->clock_offset_ms != 0 && (step > CLOCK_STEP_MS || step < -CLOCK_STEP_MS)) {
        units_shift(s->units, step);
        arm_due(s);
    }
    s->clock_offset_ms = offset;
}

static void sweep_fired(struct timer *t)
{
    struct schedule *s = CONTAINER_OF(t, struct schedule, sweep_timer);
    follow_clock(s);
    publish_stats(s);
    if (s->stopping)
        look_at_stop(s);
    else if (++s->sweep_round % EXPIRY_SWEEPS == 0)
        expiry_sweep(s);
    schedule_load_some(s);
    schedule_quota_sweep(s);
    if (!s->stopping &&
        (!TAILQ_EMPTY(&s->starved) || s->sweep_round % FORGET_SWEEPS == 0))
        destinations_sweep(s);
    timer_set(&s->sweep_timer, mono_add_ms(mono_now(), s->stopping ? 50 : SWEEP_MS));
}

/* --- life --- */

struct schedule *schedule_new(struct delivery_env *env, struct settings *settings)
{
    struct schedule *s = mem_zalloc(sizeof(*s));
    s->env = env;
    s->settings = settings;
    s->loop = loop_new();
    struct route_dns dns = {.resolver = env->resolver};
    s->router = router_new(s->loop, &dns, settings);
    s->generation = 1;
    s->match_needs_message = schedule_rules_need_message(settings);
    s->units = units_new();
    schedule_cluster_init(s);
    s->hash_key = random_u64();
    TAILQ_INIT(&s->failing);
    TAILQ_INIT(&s->starved);
    schedule_quota_init(s);
    pthread_mutex_init(&s->stats_lock, NULL);
    timer_init(&s->due_timer, s->loop, due_fired);
    timer_init(&s->sweep_timer, s->loop, sweep_fired);
    env->schedule = s;
    return s;
}

static void *run(void *arg)
{
    struct schedule *s = arg;
    arm_due(s);
    timer_set(&s->sweep_timer, mono_add_ms(mono_now(), SWEEP_MS));
    loop_run(s->loop);
    log_flush();
    return NULL;
}

static void flush_log(void *ctx)
{
    (void)ctx;
    log_flush();
}

void schedule_start(struct schedule *s, struct delivery_loop **loops, unsigned loop_count)
{
    s->loops = loops;
    s->loop_count = loop_count;
    loop_after_round(s->loop, flush_log, NULL);
    loop_nap(s->loop, NAP_US);
    if (pthread_create(&s->thread, NULL, run, s) != 0)
        die("baton: cannot start the scheduler thread");
    pthread_setname_np(s->thread, "scheduler");
    s->started = true;
}

struct stop_note {
    struct mail mail;
    struct schedule *schedule;
    int64_t timeout_ms;
};

static void stop_arrived(struct mail *mail, void *owner)
{
    struct stop_note *note = CONTAINER_OF(mail, struct stop_note, mail);
    struct schedule *s = note->schedule;
    (void)owner;
    s->stopping = true;
    s->stop_at = mono_add_ms(mono_now(), note->timeout_ms);
    for (unsigned i = 0; i < TABLE_BUCKETS; i++) {
        struct destination *d;
        LIST_FOREACH (d, &s->destinations[i], bucket) {
            struct session_slot *slot;
            TAILQ_FOREACH (slot, &d->sessions, link)
                destination_quit_slot(slot);
        }
    }
    timer_set(&s->sweep_timer, mono_now());
    free(note);
}

void schedule_stop(struct schedule *s, int64_t timeout_ms)
{
    struct stop_note *note = mem_alloc(sizeof(*note));
    note->schedule = s;
    note->timeout_ms = timeout_ms;
    if (!s->started) {
        free(note);
        return;
    }
    mailbox_post(loop_mailbox(s->loop), &note->mail, stop_arrived);
    pthread_join(s->thread, NULL);
    s->started = false;
}

static void free_groups(struct schedule *s)
{
    for (unsigned i = 0; i < TABLE_BUCKETS; i++) {
        struct group *g;
        while ((g = LIST_FIRST(&s->groups[i]))) {
            struct sched_unit *unit;
            TAILQ_FOREACH (unit, &g->ready, line) {
                message_unref(unit->hot);
                unit->hot = NULL;
            }
            g->unit_count = 0;
            g->ready_count = 0;
            free(g->failure);
            g->failure = NULL;
            group_forget_if_empty(g);
        }
    }
}

void schedule_free(struct schedule *s)
{
    if (!s)
        return;
    s->stopping = true;
    mailbox_drain(loop_mailbox(s->loop)); /* what came after the thread had ended */
    router_stop(s->router);               /* answers every group that asked */
    free_groups(s);
    destinations_free(s);
    timer_fini(&s->due_timer);
    timer_fini(&s->sweep_timer);
    schedule_quota_fini(s);
    while (router_pending(s->router) > 0 || s->loading > 0) {
        mailbox_wait(loop_mailbox(s->loop), 1000);
        mailbox_drain(loop_mailbox(s->loop));
    }
    router_free(s->router);
    schedule_cluster_fini(s);
    loop_free(s->loop);
    units_free(s->units);
    free(s->loops);
    settings_unref(s->settings);
    pthread_mutex_destroy(&s->stats_lock);
    free(s);
}

struct schedule_stats schedule_stats(struct schedule *s)
{
    pthread_mutex_lock(&s->stats_lock);
    struct schedule_stats stats = s->stats;
    pthread_mutex_unlock(&s->stats_lock);
    return stats;
}
