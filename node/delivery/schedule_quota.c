/* SPDX-License-Identifier: Apache-2.0 */
/* The limits of destinations: what this node may take of them, what it tells the cluster
 * that it needs, and who waits for a message's turn. */
#include <stdlib.h>

#include "base/alloc.h"
#include "node/delivery/destination.h"

/* Between two looks at those who wait: many of them share one. */
#define THROTTLE_MIN_MS 5

/* --- terms --- */

static void take_rate(struct schedule *s)
{
    struct rate rate = s->settings->limits.destination_rate;
    s->terms.period_ns = 0;
    s->most_messages = QUOTA_NO_LIMIT;
    if (rate.count)
        quota_period(
            rate.count, rate.per_ms * NS_PER_MS, &s->most_messages, &s->terms.period_ns);
}

static uint32_t connections_max(const struct schedule *s)
{
    return s->settings->limits.destination_connections;
}

/* Politely: a connection ends after the message in hand. Idle ones first. */
static void shrink(struct destination *d)
{
    struct session_slot *slot;
    unsigned over = 0, most = d->quota.share[QUOTA_CONNECTIONS];
    TAILQ_FOREACH (slot, &d->sessions, link)
        over += !slot->quitting;
    over = over > most ? over - most : 0;
    for (int busy = 0; busy <= 1 && over > 0; busy++)
        TAILQ_FOREACH (slot, &d->sessions, link) {
            if (over == 0)
                break;
            if (slot->quitting || (!busy && !slot->idle))
                continue;
            destination_quit_slot(slot);
            over--;
        }
}

static void set_floor(struct schedule *s, const uint32_t floor[QUOTA_KINDS])
{
    memcpy(s->terms.floor, floor, sizeof(s->terms.floor));
    for (unsigned i = 0; i < TABLE_BUCKETS; i++) {
        struct destination *d;
        LIST_FOREACH (d, &s->destinations[i], bucket) {
            uint32_t have[QUOTA_KINDS] = {0, 0};
            if (rights_shares_limits(s->env->rights)) { /* until the cluster answers */
                have[QUOTA_CONNECTIONS] = d->session_count;
                have[QUOTA_MESSAGES] = d->quota.under_way + d->quota.count;
            }
            quota_floor(&d->quota, &s->terms, have);
            shrink(d);
            if (!destination_is_down(d))
                destination_dispatch(s, d);
        }
    }
}

/* A node alone has all of it; a node of a cluster nothing before it hears. */
void schedule_quota_reload(struct schedule *s)
{
    take_rate(s);
    uint32_t all[QUOTA_KINDS] = {connections_max(s), s->most_messages};
    if (!rights_shares_limits(s->env->rights))
        set_floor(s, all);
}

static void throttle_fired(struct timer *t);

void schedule_quota_init(struct schedule *s)
{
    LIST_INIT(&s->needy);
    TAILQ_INIT(&s->throttled);
    timer_init(&s->throttle_timer, s->loop, throttle_fired);
    schedule_quota_reload(s);
}

void schedule_quota_fini(struct schedule *s)
{
    timer_fini(&s->throttle_timer);
}

/* --- what the cluster says --- */

struct quota_note {
    struct mail mail;
    struct schedule *schedule;
    uint64_t key;
    uint32_t serial;
    uint32_t share[QUOTA_KINDS];
};

static void post(struct schedule *s, struct quota_note *from,
    void (*arrived)(struct mail *mail, void *owner))
{
    struct quota_note *n = mem_alloc(sizeof(*n));
    *n = *from;
    n->schedule = s;
    mailbox_post(loop_mailbox(s->loop), &n->mail, arrived);
}

static void share_arrived(struct mail *mail, void *owner)
{
    struct quota_note *n = CONTAINER_OF(mail, struct quota_note, mail);
    struct schedule *s = n->schedule;
    struct destination *d = destination_known(s, n->key);
    (void)owner;
    if (d) {
        quota_share(&d->quota, &s->terms, n->serial, n->share);
        shrink(d);
        if (!destination_is_down(d))
            destination_dispatch(s, d);
    }
    free(n);
}

void schedule_quota_share(
    struct schedule *s, uint64_t key, uint32_t serial, const uint32_t share[QUOTA_KINDS])
{
    struct quota_note n = {.key = key, .serial = serial};
    memcpy(n.share, share, sizeof(n.share));
    post(s, &n, share_arrived);
}

static void floor_arrived(struct mail *mail, void *owner)
{
    struct quota_note *n = CONTAINER_OF(mail, struct quota_note, mail);
    (void)owner;
    set_floor(n->schedule, n->share);
    free(n);
}

void schedule_quota_floor(struct schedule *s, const uint32_t floor[QUOTA_KINDS])
{
    struct quota_note n = {.serial = 0};
    memcpy(n.share, floor, sizeof(n.share));
    post(s, &n, floor_arrived);
}

/* --- what we say --- */

static uint32_t wanted_connections(const struct schedule *s, const struct destination *d)
{
    unsigned max = d->window < connections_max(s) ? d->window : connections_max(s);
    unsigned more = d->ready_count;
    if (d->session_count >= max || TAILQ_EMPTY(&d->turns))
        return d->session_count;
    return d->session_count +
           (more < max - d->session_count ? more : max - d->session_count);
}

static void note_needy(struct schedule *s, struct destination *d)
{
    if (d->quota.is_told == d->is_needy)
        return;
    d->is_needy = d->quota.is_told;
    if (d->is_needy)
        LIST_INSERT_HEAD(&s->needy, d, needy);
    else
        LIST_REMOVE(d, needy);
}

void destination_look(struct schedule *s, struct destination *d, bool lower)
{
    struct quota_need need;
    uint32_t have[QUOTA_KINDS] = {d->session_count, 0};
    uint32_t want[QUOTA_KINDS] = {wanted_connections(s, d), 0};
    if (!rights_shares_limits(s->env->rights))
        return;
    if (s->terms.period_ns) {
        uint32_t used = d->quota.under_way + d->quota.count;
        uint64_t all = (uint64_t)used + d->ready_count;
        have[QUOTA_MESSAGES] = used;
        want[QUOTA_MESSAGES] = all < s->most_messages ? (uint32_t)all : s->most_messages;
    }
    if (!quota_look(&d->quota, &s->terms, have, want, lower, &need))
        return;
    need.key = d->key;
    rights_need(s->env->rights, &need);
    note_needy(s, d);
}

bool destination_quota_ends(struct schedule *s, struct destination *d)
{
    if (!s->stopping) {
        if (s->terms.period_ns && quota_counts(&d->quota, &s->terms, mono_now().ns))
            return false;
        destination_look(s, d, true); /* it needs nothing any more */
    }
    if (d->throttled)
        TAILQ_REMOVE(&s->throttled, d, throttle);
    if (d->is_needy)
        LIST_REMOVE(d, needy);
    quota_fini(&d->quota);
    return true;
}

void schedule_quota_sweep(struct schedule *s)
{
    struct destination *d, *next;
    for (d = LIST_FIRST(&s->needy); d; d = next) {
        next = LIST_NEXT(d, needy);
        if (s->terms.period_ns)
            (void)quota_counts(&d->quota, &s->terms, mono_now().ns);
        destination_look(s, d, true);
        shrink(d);
    }
}

/* --- messages --- */

static void arm_throttle(struct schedule *s)
{
    const struct destination *d;
    int64_t at = INT64_MAX, least = mono_add_ms(mono_now(), THROTTLE_MIN_MS).ns;
    TAILQ_FOREACH (d, &s->throttled, throttle) {
        int64_t next = quota_next(&d->quota, &s->terms);
        at = next < at ? next : at;
    }
    if (at == INT64_MAX || s->stopping)
        timer_cancel(&s->throttle_timer);
    else
        timer_set(&s->throttle_timer, (struct mono){at > least ? at : least});
}

void destination_throttle(struct schedule *s, struct destination *d)
{
    if (!d->throttled)
        TAILQ_INSERT_TAIL(&s->throttled, d, throttle);
    d->throttled = true;
    arm_throttle(s);
}

/* All of them, once: who still must wait comes in line again. */
static void throttle_fired(struct timer *t)
{
    struct schedule *s = CONTAINER_OF(t, struct schedule, throttle_timer);
    struct destination *last = TAILQ_LAST(&s->throttled, throttled_line), *d;
    while (last && (d = TAILQ_FIRST(&s->throttled))) {
        TAILQ_REMOVE(&s->throttled, d, throttle);
        d->throttled = false;
        if (!destination_is_down(d))
            destination_dispatch(s, d);
        if (d == last)
            break;
    }
    arm_throttle(s);
}

void destination_counted_home(struct schedule *s, uint64_t key)
{
    struct destination *d = destination_known(s, key);
    if (!d)
        return;
    quota_end(&d->quota, mono_now().ns);
    if (d->throttled)
        arm_throttle(s);
}
