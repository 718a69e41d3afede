/* SPDX-License-Identifier: Apache-2.0 */
/* The asker, and what both sides agree on without a word: who coordinates, the floor and
 * the even share. */
#include "cluster/budget.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/random.h"
#include "cluster/budget_internal.h"

#define MS INT64_C(1000000)
#define RENEW_NS (1000 * MS)
/* No answer: twice as long as one takes, within these. An answer counts only for the
 * newest question, and a few lost ones must not end a lease. */
#define RETRY_NS (250 * MS)
#define RETRY_MAX_NS (1000 * MS)
#define MORE_NS (500 * MS) /* an answer that gave less than is wanted */
#define SOON_NS (50 * MS)  /* between two questions for one destination */
#define FLOOR_PARTS 4u

/* ---- what all agree on ---- */

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint64_t weight_of(uint64_t node, uint64_t key)
{
    return mix(node ^ mix(key));
}

uint32_t budget_bucket(const struct budgets *b, uint64_t key)
{
    return (uint32_t)mix(key ^ b->seed) & (BUDGET_BUCKETS - 1);
}

/* Before the other in the order of the key? */
static bool is_before(uint64_t a, uint64_t b, uint64_t key)
{
    uint64_t wa = weight_of(a, key), wb = weight_of(b, key);
    return wa != wb ? wa > wb : a < b;
}

uint64_t budget_first(const struct budget_member *m, unsigned count, uint64_t key)
{
    uint64_t best = 0;
    for (unsigned i = 0; i < count; i++)
        if (m[i].is_reachable && (best == 0 || is_before(m[i].node, best, key)))
            best = m[i].node;
    return best;
}

uint32_t budget_floor(const struct budgets *b, unsigned kind)
{
    uint32_t most = b->limits.most[kind];
    if (most == 0)
        return BUDGET_NO_LIMIT;
    return b->is_alone ? most : most / (FLOOR_PARTS * b->member_count);
}

/* What does not divide goes to the first ones in the order of the key, so that the shares
 * add up to the limit. */
uint32_t budget_even(const struct budgets *b, unsigned kind, uint64_t key, uint64_t node)
{
    uint32_t most = b->limits.most[kind], rank = 0;
    if (most == 0)
        return BUDGET_NO_LIMIT;
    if (b->senders == 0)
        return most;
    for (unsigned i = 0; i < b->member_count; i++)
        rank += b->member[i].may_send && b->member[i].node != node &&
                is_before(b->member[i].node, node, key);
    return most / b->senders + (rank < most % b->senders);
}

/* ---- what we may use ---- */

static uint32_t max32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t min32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* From the question that first went unanswered: whatever the coordinator granted to
 * others before has ended by then. */
static bool may_fall_back(const struct need *n, int64_t now)
{
    return n->unanswered_since && now >= n->unanswered_since + BUDGET_LEASE_NS;
}

static uint32_t usable(
    const struct budgets *b, const struct need *n, unsigned kind, int64_t now)
{
    uint32_t floor = budget_floor(b, kind), most = b->limits.most[kind];
    if (b->is_alone || most == 0)
        return floor;
    uint32_t even = budget_even(b, kind, n->now.key, b->node), share = n->leased[kind];
    if (now >= n->lease_until)
        share = may_fall_back(n, now) ? even : min32(share, even);
    return min32(max32(share, floor), most);
}

/* At most in use till the question is answered. A share that was lowered counts when its
 * user has said so. */
static uint32_t holds(const struct need *n, unsigned kind)
{
    return max32(n->now.have[kind], n->peak[kind]);
}

/* With a need its user promises to use no more than that. */
static uint32_t promised(const struct need *n, unsigned kind)
{
    return max32(n->now.have[kind], n->now.want[kind]);
}

static void tell_share(struct budgets *b, struct need *n, int64_t now)
{
    uint32_t share[BUDGET_KINDS];
    for (unsigned k = 0; k < BUDGET_KINDS; k++)
        share[k] = min32(usable(b, n, k, now), max32(budget_floor(b, k), promised(n, k)));
    if (n->told_serial == n->now.serial && memcmp(share, n->told, sizeof(share)) == 0)
        return;
    memcpy(n->told, share, sizeof(share));
    n->told_serial = n->now.serial;
    for (unsigned k = 0; k < BUDGET_KINDS; k++)
        n->peak[k] = max32(n->peak[k], share[k]);
    b->events->share(b->ctx, n->now.key, n->now.serial, share);
}

static void tell_floor(struct budgets *b)
{
    uint32_t floor[BUDGET_KINDS];
    for (unsigned k = 0; k < BUDGET_KINDS; k++)
        floor[k] = budget_floor(b, k);
    if (b->has_told_floor && memcmp(floor, b->told_floor, sizeof(floor)) == 0)
        return;
    b->has_told_floor = true;
    memcpy(b->told_floor, floor, sizeof(floor));
    b->events->floor(b->ctx, floor);
}

/* ---- questions ---- */

static unsigned member_index(const struct budgets *b, uint64_t node)
{
    unsigned i = 0;
    while (i < b->member_count && b->member[i].node != node)
        i++;
    return i;
}

static void send_questions(struct budgets *b, unsigned to)
{
    if (b->out[to].count == 0)
        return;
    b->events->send(b->ctx, b->member[to].node, false, &b->out[to]);
    b->out[to].count = 0;
}

static void lease(struct need *n, const uint32_t share[BUDGET_KINDS], int64_t sent_ns)
{
    memcpy(n->leased, share, sizeof(n->leased));
    n->lease_until = sent_ns + BUDGET_LEASE_NS;
    n->unanswered_since = 0;
    n->is_open = false;
}

static void put_question(struct budgets *b, uint64_t to, const struct budget_entry *entry,
    bool at_once, int64_t now)
{
    unsigned i = member_index(b, to);
    if (i == b->member_count)
        return;
    struct msg_budget *m = &b->out[i];
    if (m->count > 0 && m->sent_ns != (uint64_t)now)
        send_questions(b, i);
    m->sent_ns = (uint64_t)now;
    m->entry[m->count++] = *entry;
    if (at_once || m->count == BUDGET_ENTRIES)
        send_questions(b, i);
}

static void ask(struct budgets *b, struct need *n, bool at_once, int64_t now)
{
    uint64_t to = budgets_coordinator(b, n->now.key);
    struct budget_entry entry = {.key = n->now.key};
    if (to == 0)
        return;
    for (unsigned k = 0; k < BUDGET_KINDS; k++) {
        entry.holds[k] = holds(n, k);
        entry.want[k] = n->now.want[k];
        n->leased[k] = min32(n->leased[k], promised(n, k));
    }
    n->asked_at = now;
    n->is_open = true;
    n->is_dirty = false;
    if (n->unanswered_since == 0)
        n->unanswered_since = now;
    if (to != b->node)
        put_question(b, to, &entry, at_once, now);
    else if (desk_answer(b, b->node, 0, (uint64_t)now, &entry, now, &entry))
        lease(n, entry.holds, now);
}

/* ---- needs ---- */

static struct need **find(const struct budgets *b, uint64_t key)
{
    struct need **at = &b->needs[budget_bucket(b, key)];
    while (*at && (*at)->now.key != key)
        at = &(*at)->next;
    return at;
}

static bool is_over(const struct budget_need *n)
{
    for (unsigned k = 0; k < BUDGET_KINDS; k++)
        if (n->have[k] || n->want[k])
            return false;
    return true;
}

/* What is held is given back; if that is lost, it ends with the lease. */
static void end(struct budgets *b, struct need **at, bool at_once, int64_t now)
{
    struct need *n = *at;
    struct budget_entry nothing = {.key = n->now.key};
    uint64_t to = budgets_coordinator(b, n->now.key);
    if (to == b->node)
        desk_answer(b, b->node, 0, (uint64_t)now, &nothing, now, &nothing);
    else if (to)
        put_question(b, to, &nothing, at_once, now);
    *at = n->next;
    b->need_count--;
    free(n);
}

/* What is in use already counts as leased for a while: the limits or the members have
 * just changed, or this would have been asked for before. */
static struct need *begin(struct budgets *b, const struct budget_need *now, int64_t at)
{
    struct need *n = mem_zalloc(sizeof(*n));
    uint32_t bucket = budget_bucket(b, now->key);
    n->now = *now;
    memcpy(n->leased, now->have, sizeof(n->leased));
    n->lease_until = at + BUDGET_LEASE_NS;
    n->next = b->needs[bucket];
    b->needs[bucket] = n;
    b->need_count++;
    return n;
}

static bool wants_more(const struct need *n)
{
    for (unsigned k = 0; k < BUDGET_KINDS; k++)
        if (n->now.want[k] > n->told[k])
            return true;
    return false;
}

void budgets_need(struct budgets *b, const struct budget_need *need, int64_t now)
{
    struct need **at = find(b, need->key), *n = *at;
    if (is_over(need)) {
        if (n)
            end(b, at, true, now);
        return;
    }
    if (!n && b->need_count >= BUDGET_KEYS)
        return; /* lives by the floor */
    if (!n)
        n = begin(b, need, now);
    n->now = *need;
    memcpy(n->peak, need->may, sizeof(n->peak));
    n->is_dirty = true;
    if (wants_more(n) && now >= n->asked_at + SOON_NS)
        ask(b, n, true, now);
    tell_share(b, n, now);
}

static int64_t retry_ns(const struct budgets *b)
{
    int64_t wait = 2 * b->answer_ns;
    return wait < RETRY_NS ? RETRY_NS : wait > RETRY_MAX_NS ? RETRY_MAX_NS : wait;
}

static bool is_due(const struct budgets *b, const struct need *n, int64_t now)
{
    int64_t wait = n->is_open      ? retry_ns(b)
                   : n->is_dirty   ? SOON_NS
                   : wants_more(n) ? MORE_NS
                                   : RENEW_NS;
    return n->asked_at == 0 || now >= n->asked_at + wait;
}

static void tick_need(struct budgets *b, struct need *n, int64_t now)
{
    if (b->is_alone) { /* as if granted by ourselves, for the time when we are not */
        lease(n, b->limits.most, now);
    } else if (is_due(b, n, now)) {
        ask(b, n, false, now);
    }
    tell_share(b, n, now);
}

void budgets_tick(struct budgets *b, int64_t now)
{
    for (unsigned i = 0; i < BUDGET_BUCKETS && b->need_count; i++)
        for (struct need *n = b->needs[i]; n; n = n->next)
            tick_need(b, n, now);
    for (unsigned i = 0; i < b->member_count; i++)
        send_questions(b, i);
    desk_sweep(b, now);
}

/* ---- frames ---- */

void budgets_granted(
    struct budgets *b, uint64_t from, const struct msg_budget *msg, int64_t now)
{
    for (unsigned i = 0; i < msg->count && i < BUDGET_ENTRIES; i++) {
        const struct budget_entry *g = &msg->entry[i];
        struct need *n = *find(b, g->key);
        /* Only the answer to the newest question: an older one may give what was given
         * back since. */
        if (!n || !n->is_open || (uint64_t)n->asked_at != msg->sent_ns ||
            budgets_coordinator(b, g->key) != from)
            continue;
        int64_t took = now - n->asked_at, less = b->answer_ns - b->answer_ns / 8;
        b->answer_ns = took > less ? took : less;
        lease(n, g->holds, n->asked_at);
        tell_share(b, n, now);
    }
}

void budgets_asked(struct budgets *b, uint64_t from, uint32_t epoch,
    const struct msg_budget *msg, int64_t now)
{
    struct msg_budget reply = {.sent_ns = msg->sent_ns};
    for (unsigned i = 0; i < msg->count && i < BUDGET_ENTRIES; i++)
        if (desk_answer(b, from, epoch, msg->sent_ns, &msg->entry[i], now,
                &reply.entry[reply.count]))
            reply.count++;
    if (reply.count)
        b->events->send(b->ctx, from, true, &reply);
}

/* ---- members ---- */

uint64_t budgets_coordinator(const struct budgets *b, uint64_t key)
{
    return b->is_alone ? 0 : budget_first(b->member, b->member_count, key);
}

static bool is_same(
    const struct budgets *b, const struct budget_member *m, unsigned count)
{
    if (count != b->member_count)
        return false;
    for (unsigned i = 0; i < count; i++)
        if (m[i].node != b->member[i].node ||
            m[i].is_reachable != b->member[i].is_reachable ||
            m[i].may_send != b->member[i].may_send)
            return false;
    return true;
}

static void note_change(struct budgets *b, int64_t now)
{
    if (now >= b->changed_at + BUDGET_LEASE_NS) {
        memcpy(b->before, b->member, sizeof(b->before));
        b->before_count = b->member_count;
        b->was_alone = b->is_alone;
        b->changes = 0;
    }
    b->changes++;
    b->changed_at = now;
}

static void count_senders(struct budgets *b)
{
    bool others = false;
    b->senders = 0;
    for (unsigned i = 0; i < b->member_count; i++) {
        b->senders += b->member[i].may_send;
        others = others || (b->member[i].may_send && b->member[i].node != b->node);
    }
    b->is_alone = !others;
}

void budgets_members(
    struct budgets *b, const struct budget_member *members, unsigned count, int64_t now)
{
    count = count < BUDGET_MEMBERS ? count : BUDGET_MEMBERS;
    if (b->has_told_floor && is_same(b, members, count))
        return;
    note_change(b, now);
    for (unsigned i = 0; i < b->member_count; i++)
        send_questions(b, i);
    if (count)
        memcpy(b->member, members, count * sizeof(*members));
    b->member_count = count;
    count_senders(b);
    tell_floor(b);
}

void budgets_limits(struct budgets *b, const struct budget_limits *limits, int64_t now)
{
    b->limits = *limits;
    if (!b->has_told_floor)
        return; /* with the first members */
    tell_floor(b);
    for (unsigned i = 0; i < BUDGET_BUCKETS && b->need_count; i++)
        for (struct need *n = b->needs[i]; n; n = n->next)
            tell_share(b, n, now);
}

struct budget_counts budgets_counts(const struct budgets *b)
{
    struct budget_counts c = {.needs = b->need_count, .coordinated = b->desk_count};
    for (unsigned i = 0; i < BUDGET_BUCKETS && b->need_count; i++)
        for (const struct need *n = b->needs[i]; n; n = n->next)
            c.without += n->unanswered_since && n->asked_at >= n->lease_until;
    return c;
}

/* ---- life ---- */

struct budgets *budgets_new(uint64_t node, const struct budget_events *events, void *ctx)
{
    struct budgets *b = mem_zalloc(sizeof(*b));
    b->node = node;
    b->events = events;
    b->ctx = ctx;
    b->seed = random_u64();
    b->is_alone = true;
    b->needs = mem_zalloc(BUDGET_BUCKETS * sizeof(struct need *));
    b->desks = mem_zalloc(BUDGET_BUCKETS * sizeof(struct desk *));
    b->out = mem_zalloc(BUDGET_MEMBERS * sizeof(*b->out));
    return b;
}

void budgets_free(struct budgets *b)
{
    if (!b)
        return;
    for (unsigned i = 0; i < BUDGET_BUCKETS; i++)
        for (struct need *n = b->needs[i], *next; n; n = next) {
            next = n->next;
            free(n);
        }
    desks_free(b);
    free(b->needs);
    free(b->desks);
    free(b->out);
    free(b);
}
