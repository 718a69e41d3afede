/* SPDX-License-Identifier: Apache-2.0 */
/* The coordinator: who holds how much of the destinations that are ours to divide. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "cluster/budget_internal.h"

#define SEC INT64_C(1000000000)
/* The asker counts its lease from the sending of the question, we from its arrival: this
 * is for clocks that differ in speed. */
#define SLACK_NS (SEC / 4)
#define TURN_NS (4 * SEC) /* a limit below the number of those who want it goes round */

/* ---- who holds what ---- */

static struct desk *desk_find(const struct budgets *b, uint64_t key)
{
    struct desk *d = b->desks[budget_bucket(b, key)];
    while (d && d->key != key)
        d = d->next;
    return d;
}

static struct desk *desk_new(struct budgets *b, uint64_t key)
{
    uint32_t bucket = budget_bucket(b, key);
    if (b->desk_count >= BUDGET_KEYS)
        return NULL;
    struct desk *d = mem_zalloc(sizeof(*d));
    d->key = key;
    d->next = b->desks[bucket];
    b->desks[bucket] = d;
    b->desk_count++;
    return d;
}

static struct holder *holder_find(const struct desk *d, uint64_t node)
{
    for (unsigned i = 0; d && i < d->count; i++)
        if (d->holder[i].node == node)
            return &d->holder[i];
    return NULL;
}

static struct holder *holder_new(struct budgets *b, struct desk *d, uint64_t node)
{
    if (b->holder_count >= BUDGET_HOLDERS || d->count >= 2 * BUDGET_MEMBERS)
        return NULL;
    if (d->count == d->room) {
        d->room = d->room ? d->room * 2 : 2;
        d->holder = mem_realloc(d->holder, d->room * sizeof(*d->holder));
    }
    b->holder_count++;
    d->holder[d->count] = (struct holder){.node = node};
    return &d->holder[d->count++];
}

static void holder_drop(struct budgets *b, struct desk *d, struct holder *h)
{
    *h = d->holder[--d->count];
    b->holder_count--;
}

/* Messages stay counted for their period, whatever became of their node. */
static int64_t counts_until(
    const struct budgets *b, const struct holder *h, unsigned kind)
{
    return h->until + (kind == BUDGET_MESSAGES ? b->limits.period_ns : 0);
}

static uint32_t counted(
    const struct budgets *b, const struct holder *h, unsigned kind, int64_t now)
{
    return h && now < counts_until(b, h, kind) ? h->held[kind] : 0;
}

/* ---- how much is left ---- */

/* Of a member that did not ask: its floor. Of one that we do not hear and that may go on:
 * what it falls back to. */
static uint32_t reserve(
    const struct budgets *b, const struct budget_member *m, unsigned kind, uint64_t key)
{
    if (!m->may_send)
        return 0;
    return m->is_reachable ? budget_floor(b, kind) : budget_even(b, kind, key, m->node);
}

static uint64_t taken_by_others(const struct budgets *b, const struct desk *d,
    uint64_t node, unsigned kind, int64_t now)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < b->member_count; i++) {
        const struct budget_member *m = &b->member[i];
        uint32_t least = reserve(b, m, kind, d->key);
        uint32_t held = counted(b, holder_find(d, m->node), kind, now);
        if (m->node != node)
            sum += held > least ? held : least;
    }
    for (unsigned i = 0; i < d->count; i++) { /* those that are no members any more */
        bool is_member = false;
        for (unsigned j = 0; j < b->member_count; j++)
            is_member = is_member || b->member[j].node == d->holder[i].node;
        if (!is_member)
            sum += counted(b, &d->holder[i], kind, now);
    }
    return sum;
}

/* ---- what is fair ---- */

struct fair {
    uint32_t want[2 * BUDGET_MEMBERS];
    unsigned count, mine; /* index of the asker */
    uint64_t pool;
};

/* Those who ask, and what there is for them. */
static void gather(const struct budgets *b, const struct desk *d, uint64_t node,
    unsigned kind, int64_t now, struct fair *f)
{
    uint32_t most = b->limits.most[kind];
    uint64_t aside = 0;
    f->count = f->mine = 0;
    for (unsigned i = 0; i < d->count; i++) {
        const struct holder *h = &d->holder[i];
        if (h->node == node)
            f->mine = f->count;
        if (now < h->until)
            f->want[f->count++] = h->want[kind] < most ? h->want[kind] : most;
    }
    for (unsigned i = 0; i < b->member_count; i++) {
        const struct holder *h = holder_find(d, b->member[i].node);
        if (!h || now >= h->until)
            aside += reserve(b, &b->member[i], kind, d->key);
    }
    f->pool = aside < most ? most - aside : 0;
}

/* Small wants are met, the others share what is left evenly. */
static uint32_t fair_share(const struct fair *f, int64_t now)
{
    bool met[2 * BUDGET_MEMBERS] = {false};
    uint64_t left = f->pool;
    unsigned open = f->count, rank = 0;
    for (bool again = true; again && open > 0;) {
        uint64_t level = left / open;
        again = false;
        for (unsigned i = 0; i < f->count && open > 0; i++) {
            if (met[i] || f->want[i] > level)
                continue;
            met[i] = again = true;
            left -= f->want[i];
            open--;
        }
    }
    if (met[f->mine] || open == 0)
        return f->want[f->mine];
    for (unsigned i = 0; i < f->mine; i++)
        rank += !met[i];
    if (left < open)
        rank = (unsigned)((rank + (uint64_t)(now / TURN_NS)) % open);
    return (uint32_t)(left / open + (rank < left % open));
}

static uint32_t share_of(const struct budgets *b, const struct desk *d, uint64_t node,
    unsigned kind, int64_t now)
{
    uint32_t most = b->limits.most[kind], floor = budget_floor(b, kind);
    struct fair f;
    if (most == 0)
        return BUDGET_NO_LIMIT;
    uint64_t taken = taken_by_others(b, d, node, kind, now);
    uint64_t left = taken < most ? most - taken : 0;
    gather(b, d, node, kind, now, &f);
    uint64_t share = fair_share(&f, now);
    share = share < left ? share : left;
    return share > floor ? (uint32_t)share : floor;
}

/* ---- the answer ---- */

/* Not before all that another coordinator granted is over, or was asked for here. */
static bool is_settled(const struct budgets *b, uint64_t key, int64_t now)
{
    if (now >= b->changed_at + BUDGET_LEASE_NS)
        return true;
    /* Who was alone had no need to ask, not even itself. */
    return b->changes == 1 && !b->was_alone &&
           budget_first(b->before, b->before_count, key) == b->node;
}

static bool may_ask(const struct budgets *b, uint64_t node)
{
    for (unsigned i = 0; i < b->member_count; i++)
        if (b->member[i].node == node)
            return b->member[i].may_send;
    return false;
}

static bool is_stale(const struct holder *h, uint32_t epoch, uint64_t sent_ns)
{
    return h && (epoch < h->epoch || (epoch == h->epoch && sent_ns < h->sent_ns));
}

static bool is_nothing(const struct budget_entry *e)
{
    for (unsigned k = 0; k < BUDGET_KINDS; k++)
        if (e->holds[k] || e->want[k])
            return false;
    return true;
}

static struct holder *take_down(struct budgets *b, uint64_t node, uint32_t epoch,
    uint64_t sent_ns, const struct budget_entry *ask, struct desk **desk_out)
{
    struct desk *d = desk_find(b, ask->key);
    struct holder *h = holder_find(d, node);
    *desk_out = d;
    if (is_stale(h, epoch, sent_ns))
        return NULL;
    if (is_nothing(ask)) {
        if (h)
            holder_drop(b, d, h);
        return NULL; /* the desk goes with the next sweep */
    }
    if (!d)
        d = desk_new(b, ask->key);
    if (d && !h)
        h = holder_new(b, d, node);
    *desk_out = d;
    return h;
}

bool desk_answer(struct budgets *b, uint64_t node, uint32_t epoch, uint64_t sent_ns,
    const struct budget_entry *ask, int64_t now, struct budget_entry *grant)
{
    struct desk *d;
    if (!may_ask(b, node) || budgets_coordinator(b, ask->key) != b->node)
        return false;
    struct holder *h = take_down(b, node, epoch, sent_ns, ask, &d);
    if (!h)
        return false;
    h->epoch = epoch;
    h->sent_ns = sent_ns;
    h->until = now + BUDGET_LEASE_NS + SLACK_NS;
    memcpy(h->held, ask->holds, sizeof(h->held));
    memcpy(h->want, ask->want, sizeof(h->want));
    if (!is_settled(b, ask->key, now))
        return false;
    *grant = (struct budget_entry){.key = ask->key};
    for (unsigned k = 0; k < BUDGET_KINDS; k++) {
        grant->holds[k] = share_of(b, d, node, k, now);
        if (h->held[k] < grant->holds[k])
            h->held[k] = grant->holds[k];
    }
    return true;
}

/* ---- time ---- */

static void forget_holders(struct budgets *b, struct desk *d, int64_t now)
{
    for (unsigned i = 0; i < d->count;)
        if (now >= counts_until(b, &d->holder[i], BUDGET_CONNECTIONS) &&
            now >= counts_until(b, &d->holder[i], BUDGET_MESSAGES))
            holder_drop(b, d, &d->holder[i]);
        else
            i++;
}

static void desk_free(struct budgets *b, struct desk *d)
{
    b->holder_count -= d->count;
    b->desk_count--;
    free(d->holder);
    free(d);
}

void desk_sweep(struct budgets *b, int64_t now)
{
    if (now < b->swept_at + SEC)
        return;
    b->swept_at = now;
    for (unsigned i = 0; i < BUDGET_BUCKETS && b->desk_count; i++)
        for (struct desk **at = &b->desks[i], *d; (d = *at);) {
            forget_holders(b, d, now);
            if (d->count > 0) {
                at = &d->next;
                continue;
            }
            *at = d->next;
            desk_free(b, d);
        }
}

void desks_free(struct budgets *b)
{
    for (unsigned i = 0; i < BUDGET_BUCKETS; i++)
        for (struct desk *d = b->desks[i], *next; d; d = next) {
            next = d->next;
            desk_free(b, d);
        }
}
