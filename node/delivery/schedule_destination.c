/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/metrics.h"
#include "node/delivery/destination.h"

#define DOWN_FIRST_MS 10000
#define DOWN_MAX_MS 300000
#define OFFERS_A_ROUND 64
/* How long a destination that refused one connection more is not asked for more. */
#define CROWDED_MS 10000

/* Anybody can find names whose keys agree in a few bits: the order is our own. */
static struct destination_list *bucket_of(struct schedule *s, uint64_t key)
{
    uint64_t own = (key ^ s->hash_key) * UINT64_C(0x9e3779b97f4a7c15);
    return &s->destinations[(own >> 32) % TABLE_BUCKETS];
}

struct destination *destination_known(struct schedule *s, uint64_t key)
{
    struct destination *d;
    LIST_FOREACH (d, bucket_of(s, key), bucket)
        if (d->key == key)
            return d;
    return NULL;
}

struct destination *destination_find(struct schedule *s, uint64_t key)
{
    struct destination *d = destination_known(s, key);
    if (d)
        return d;
    d = mem_zalloc(sizeof(*d));
    d->key = key;
    quota_init(&d->quota, &s->terms);
    d->window = WINDOW_FIRST;
    TAILQ_INIT(&d->turns);
    TAILQ_INIT(&d->sessions);
    LIST_INSERT_HEAD(bucket_of(s, key), d, bucket);
    s->destination_count++;
    return d;
}

void destination_forget_if_empty(struct schedule *s, struct destination *d)
{
    if (d->group_count > 0 || d->session_count > 0 || destination_is_down(d) ||
        !destination_quota_ends(s, d))
        return;
    LIST_REMOVE(d, bucket);
    if (d->starved)
        TAILQ_REMOVE(&s->starved, d, starve);
    s->destination_count--;
    free(d);
}

bool destination_is_down(const struct destination *d)
{
    return d->down_until.ns > mono_now().ns;
}

static unsigned window_max(const struct schedule *s)
{
    return s->settings->limits.destination_connections;
}

static uint32_t messages_left(struct schedule *s, struct destination *d)
{
    if (s->terms.period_ns == 0)
        return QUOTA_NO_LIMIT;
    return quota_messages(&d->quota, &s->terms, mono_now().ns);
}

static unsigned batch_size(struct schedule *s, struct destination *d)
{
    uint32_t left = messages_left(s, d);
    unsigned share = (d->ready_count + d->window - 1) / d->window;
    unsigned most = s->settings->limits.messages_per_connection;
    if (most > BATCH_MAX)
        most = BATCH_MAX;
    if (most > left)
        most = left;
    return share < 1 ? 1 : share > most ? most : share;
}

static struct parcel *take_batch(
    struct schedule *s, struct destination *d, struct group **first)
{
    struct parcel *parcels = NULL, **tail = &parcels;
    struct group *only = TAILQ_FIRST(&d->turns);
    *first = only;
    for (unsigned n = batch_size(s, d); n > 0; n--) {
        struct group *g = TAILQ_FIRST(&d->turns);
        if (!g)
            break;
        if (g->ready_count > 1) {
            TAILQ_REMOVE(&d->turns, g, turn);
            TAILQ_INSERT_TAIL(&d->turns, g, turn);
        }
        *tail = schedule_make_parcel(s, group_take_ready(g));
        if (s->terms.period_ns) {
            (*tail)->counted = d->key;
            quota_start(&d->quota);
        }
        tail = &(*tail)->next;
    }
    return parcels;
}

static void send_batch(struct schedule *s, struct session_slot *slot)
{
    struct group *g;
    if (slot->idle)
        slot->destination->idle_count--;
    slot->idle = slot->hungry = false;
    delivery_send(slot->delivery, take_batch(s, slot->destination, &g));
}

static void forget_old_deaths(struct destination *d)
{
    int64_t now = mono_now().ns;
    unsigned kept = 0;
    for (unsigned i = 0; i < d->dead_count; i++)
        if (d->dead[i].until.ns > now)
            d->dead[kept++] = d->dead[i];
    d->dead_count = kept;
}

static void open_session(struct schedule *s, struct destination *d)
{
    struct delivery_start start = {.settings = settings_ref(s->settings)};
    struct session_slot *slot = mem_zalloc(sizeof(*slot));
    struct group *g;
    slot->destination = d;
    slot->loop = schedule_least_busy(s);
    start.parcels = take_batch(s, d, &g);
    start.route = route_ref(g->route);
    start.slot = slot;
    forget_old_deaths(d);
    memcpy(start.dead, d->dead, sizeof(start.dead));
    start.dead_count = d->dead_count;
    TAILQ_INSERT_TAIL(&d->sessions, slot, link);
    d->session_count++;
    s->session_count++;
    metric_add(METRIC_delivery_connections_total, 1);
    metric_set(METRIC_delivery_connections_open, s->session_count);
    slot->delivery = delivery_open(slot->loop, &start);
}

static struct session_slot *slot_that_is(struct destination *d, bool idle)
{
    struct session_slot *slot;
    TAILQ_FOREACH (slot, &d->sessions, link)
        if (slot->opened && (idle ? slot->idle : slot->hungry))
            return slot;
    return NULL;
}

static bool is_full(const struct schedule *s)
{
    return s->session_count >= s->settings->limits.delivery_connections;
}

static bool may_open(const struct schedule *s, const struct destination *d)
{
    unsigned max = d->window < window_max(s) ? d->window : window_max(s);
    return d->session_count < max && quota_may_connect(&d->quota, d->session_count) &&
           !is_full(s);
}

/* Nothing that happens to it will wake it: it has no session of its own. */
static void note_starved(struct schedule *s, struct destination *d)
{
    if (d->starved || d->session_count > 0 || TAILQ_EMPTY(&d->turns) || s->stopping ||
        !is_full(s))
        return;
    d->starved = true;
    TAILQ_INSERT_TAIL(&s->starved, d, starve);
}

void destination_dispatch(struct schedule *s, struct destination *d)
{
    struct session_slot *slot;
    if (s->paused)
        return; /* its groups ask again when it goes on */
    while (!TAILQ_EMPTY(&d->turns) && !s->stopping) {
        if (messages_left(s, d) == 0) {
            destination_throttle(s, d);
            break;
        }
        if (d->idle_count > 0 && (slot = slot_that_is(d, true)))
            send_batch(s, slot);
        else if (may_open(s, d))
            open_session(s, d);
        else if ((slot = slot_that_is(d, false)))
            send_batch(s, slot);
        else
            break;
    }
    note_starved(s, d);
    destination_look(s, d, false);
}

/* Sessions are free again: those go first who had to wait for one. */
static void feed_starved(struct schedule *s)
{
    struct destination *d;
    while (!s->stopping && !is_full(s) && (d = TAILQ_FIRST(&s->starved))) {
        TAILQ_REMOVE(&s->starved, d, starve);
        d->starved = false;
        destination_dispatch(s, d);
    }
}

void destination_quit_slot(struct session_slot *slot)
{
    if (slot->quitting)
        return;
    if (slot->idle)
        slot->destination->idle_count--;
    slot->idle = slot->hungry = false;
    slot->quitting = true;
    delivery_quit(slot->delivery);
}

void destinations_sweep(struct schedule *s)
{
    bool starving = !TAILQ_EMPTY(&s->starved);
    for (unsigned i = 0; i < TABLE_BUCKETS; i++) {
        struct destination *d, *next;
        for (d = LIST_FIRST(&s->destinations[i]); d; d = next) {
            struct session_slot *slot;
            next = LIST_NEXT(d, bucket);
            if (starving && d->idle_count > 0 && (slot = slot_that_is(d, true)))
                destination_quit_slot(slot);
            destination_forget_if_empty(s, d);
        }
    }
}

void destinations_free(struct schedule *s)
{
    for (unsigned i = 0; i < TABLE_BUCKETS; i++) {
        struct destination *d;
        while ((d = LIST_FIRST(&s->destinations[i]))) {
            d->down_until = (struct mono){0};
            INVARIANT(d->group_count == 0 && d->session_count == 0);
            destination_forget_if_empty(s, d);
        }
    }
}

void destination_success(struct schedule *s, struct destination *d)
{
    if (++d->successes < d->window || d->grow_at.ns > mono_now().ns)
        return;
    d->successes = 0;
    if (d->window < window_max(s))
        d->window++;
}

/* It answers again: what waited only because nobody could be reached goes now. */
static void flush_failed(struct destination *d)
{
    struct group *g;
    LIST_FOREACH (g, &d->members, member) {
        struct sched_unit *unit;
        group_stop_failing(g);
        while ((unit = TAILQ_FIRST(&g->failed))) {
            TAILQ_REMOVE(&g->failed, unit, line);
            unit->connection_failed = false;
            group_add_ready(g, unit);
        }
    }
}

static void session_opened(struct session_slot *slot)
{
    struct destination *d = slot->destination;
    slot->opened = true;
    if (d->failures > 0) {
        d->failures = d->offers = 0;
        d->down_until = (struct mono){0};
        flush_failed(d);
    }
}

static void remember_deaths(struct destination *d, const struct session_event *e)
{
    for (unsigned i = 0; i < e->dead_count && d->dead_count < DEAD_ADDRESSES_MAX; i++)
        d->dead[d->dead_count++] = e->dead[i];
}

static void session_hungry(struct session_slot *slot, bool idle)
{
    if (slot->quitting)
        return;
    slot->destination->idle_count += idle && !slot->idle;
    slot->hungry = true;
    slot->idle = slot->idle || idle;
}

/* No address of any host let a session get as far as MAIL. */
static void go_down(
    struct schedule *s, struct destination *d, const struct failure_note *why)
{
    struct group *g;
    int64_t wait = DOWN_FIRST_MS;
    for (unsigned i = 0; i < d->failures && wait < DOWN_MAX_MS; i++)
        wait *= 2;
    /* Never longer than mail itself waits: a short retry.first means "look often". */
    if (wait > s->settings->retry.first_ms / 2)
        wait = s->settings->retry.first_ms / 2;
    d->failures++;
    d->offers = OFFERS_A_ROUND;
    d->window = 1;
    d->down_until = mono_add_ms(mono_now(), wait);
    d->dead_count = 0;
    d->down_why = *why;
    while ((g = TAILQ_FIRST(&d->turns)))
        group_fail(g, why);
}

static void session_closed(struct schedule *s, struct session_event *e)
{
    struct session_slot *slot = e->slot;
    struct destination *d = slot->destination;
    TAILQ_REMOVE(&d->sessions, slot, link);
    d->session_count--;
    s->session_count--;
    metric_set(METRIC_delivery_connections_open, s->session_count);
    if (slot->idle)
        d->idle_count--;
    forget_old_deaths(d);
    remember_deaths(d, e);
    if (e->failed && d->window > 1) {
        d->window = d->window / 2;
        d->successes = 0;
    }
    if (e->failed && !e->was_ready && d->session_count == 0)
        go_down(s, d, &e->why);
    else if (e->failed && !e->was_ready)
        d->grow_at = mono_add_ms(mono_now(), CROWDED_MS);
    delivery_release(slot->delivery);
    free(slot);
}

void destination_session_event(struct schedule *s, struct session_event *e)
{
    struct session_slot *slot = e->slot;
    struct destination *d = slot->destination;
    enum session_event_kind kind = e->kind;
    if (kind == SESSION_OPENED) {
        session_opened(slot);
    } else if (kind == SESSION_HUNGRY) {
        session_hungry(slot, e->idle);
        free(e);
    } else {
        session_closed(s, e); /* e is gone with the session */
        feed_starved(s);
    }
    if (!destination_is_down(d))
        destination_dispatch(s, d);
    destination_forget_if_empty(s, d);
}
