/* SPDX-License-Identifier: Apache-2.0 */
/* What goes on with units: a pool of jobs, their timer heap, and the sweep that starts
 * them. Everything is driven by state, not by edges: a job looks at its unit and sends
 * what is still missing, so a lost message or a lost wake-up costs time and nothing else.
 */
#include "cluster/core/internal.h"

#include <string.h>

#define SWEEP_SLICE 32
#define SWEEP_IDLE_NS (5 * CORE_SEC)

/* ---- heap ---- */

static bool before(const struct core *core, uint32_t a, uint32_t b)
{
    const struct work *x = &core->work[a], *y = &core->work[b];
    return x->wake_at != y->wake_at ? x->wake_at < y->wake_at : a < b;
}

static void place(struct core *core, uint32_t pos, uint32_t w)
{
    core->heap[pos] = w;
    core->work[w].heap = pos;
}

static void sift_up(struct core *core, uint32_t pos)
{
    uint32_t w = core->heap[pos];
    while (pos > 0 && before(core, w, core->heap[(pos - 1) / 2])) {
        place(core, pos, core->heap[(pos - 1) / 2]);
        pos = (pos - 1) / 2;
    }
    place(core, pos, w);
}

static void sift_down(struct core *core, uint32_t pos)
{
    uint32_t w = core->heap[pos];
    for (;;) {
        uint32_t child = 2 * pos + 1;
        if (child >= core->heap_count)
            break;
        if (child + 1 < core->heap_count &&
            before(core, core->heap[child + 1], core->heap[child]))
            child++;
        if (!before(core, core->heap[child], w))
            break;
        place(core, pos, core->heap[child]);
        pos = child;
    }
    place(core, pos, w);
}

void work_wake(struct core *core, struct work *w, uint64_t at)
{
    w->wake_at = at;
    sift_up(core, w->heap);
    sift_down(core, w->heap);
}

uint64_t work_next(const struct core *core)
{
    return core->heap_count ? core->work[core->heap[0]].wake_at : CORE_FOREVER;
}

/* ---- pool ---- */

struct work *work_of(const struct core *core, const struct unit *u)
{
    return u->work == NIL ? NULL : &core->work[u->work];
}

/* The job of u, made anew if it was another kind. NULL when the pool is empty: the sweep
 * comes back. Some are kept for accepts, which have a client waiting. */
struct work *work_get(struct core *core, struct unit *u, enum work_kind kind)
{
    struct work *w = work_of(core, u);
    if (w && w->kind == kind)
        return w;
    if (w)
        work_drop(core, u);
    uint32_t reserve = kind == WORK_ACCEPT ? 0 : core->limits.works / 8;
    if (core->work_free == NIL || core->heap_count + reserve >= core->limits.works)
        return NULL;
    uint32_t i = core->work_free;
    w = &core->work[i];
    core->work_free = w->unit;
    memset(w, 0, sizeof(*w));
    w->unit = unit_index(core, u);
    w->kind = (uint8_t)kind;
    w->started_at = core->now;
    w->wake_at = core->now;
    w->accept = NIL;
    w->narrow = u->flags & UF_NARROW ? UINT16_MAX : 0;
    u->work = i;
    place(core, core->heap_count++, i);
    sift_up(core, core->heap_count - 1);
    return w;
}

void work_drop(struct core *core, struct unit *u)
{
    struct work *w = work_of(core, u);
    if (!w)
        return;
    uint32_t pos = w->heap, last = core->heap[--core->heap_count];
    if (pos < core->heap_count) {
        place(core, pos, last);
        sift_up(core, pos);
        sift_down(core, core->work[last].heap);
    }
    w->kind = WORK_NONE;
    w->unit = core->work_free;
    core->work_free = u->work;
    u->work = NIL;
}

void work_rest(struct core *core, struct unit *u)
{
    const struct work *w = work_of(core, u);
    if (w && (w->kind == WORK_CLAIM || w->kind == WORK_ASK))
        work_drop(core, u);
}

uint64_t work_backoff(const struct core *core, const struct work *w, uint64_t base)
{
    unsigned shift = w->tries > 4 ? 4 : w->tries;
    return core->now + (base << shift);
}

static void run(struct core *core, struct work *w)
{
    struct unit *u = &core->unit[w->unit];
    /* a handler that sets no time of its own must not spin */
    work_wake(core, w, core->now + CORE_SEC);
    switch ((enum work_kind)w->kind) {
    case WORK_ACCEPT:
        accept_run(core, u, w);
        break;
    case WORK_OWN:
        own_run(core, u, w);
        break;
    case WORK_GC:
        gc_run(core, u, w);
        break;
    case WORK_CLAIM:
        claim_run(core, u, w);
        break;
    case WORK_ASK:
        ask_run(core, u, w);
        break;
    case WORK_NONE:
        break;
    }
}

void work_timers(struct core *core, uint32_t budget)
{
    while (budget-- && core->heap_count && !core_out_full(core)) {
        struct work *w = &core->work[core->heap[0]];
        if (w->wake_at > core->now || core->parked_count + 64 > core->limits.parked)
            return;
        run(core, w);
    }
}

/* ---- what a unit needs ---- */

/* C6: left-over consents naming us never qualify; they need a full claim. */
static void review_own_name(struct core *core, struct unit *u)
{
    if (core->state != CORE_READY && !MUT(core, MUT_NO_SYNC))
        return;
    bool owned = u->mine && u->mine == u->owner_epoch;
    if (owned || MUT(core, MUT_REOWN_ANY)) {
        reown(core, u);
        return;
    }
    SOMETIMES(core, ST_LEFTOVER);
    claim_start(core, u, false, false);
}

static bool resign_hold(const struct core *core, const struct unit *u)
{
    return core->now < core->peer[u->owner].fence_hold_until;
}

static void review_held(struct core *core, struct unit *u)
{
    if (core->state != CORE_READY)
        return;
    if (unit_owner_down(core, u)) {
        if (!resign_hold(core, u) && (u->flags & UF_VERIFY))
            claim_start(core, u, false, false);
    } else if (u->state != UNIT_LIVE) {
        struct work *w = work_get(core, u, WORK_ASK);
        if (w && w->tries == 0)
            work_wake(core, w, core->now + 10 * CORE_SEC);
    }
}

static void review_owned(struct core *core, struct unit *u)
{
    if (u->state != UNIT_LIVE) {
        gc_start(core, u);
        return;
    }
    if (!(u->flags & UF_ACTIVE))
        return;
    if (!(u->flags & UF_STARTED))
        deliver_start(core, u);
    struct work *w = work_of(core, u);
    uint8_t want = core->cfg.copies;
    if (!w && (unit_stays(core, u) != want || u->list_count != want || u->doubt ||
                  (u->flags & UF_NARROW)))
        w = work_get(core, u, WORK_OWN);
}

/* Starts whatever u needs and does not have. Called for any unit at any time. */
void unit_review(struct core *core, struct unit *u)
{
    struct work *w = work_of(core, u);
    unit_recount(core, u);
    if ((u->flags & UF_ACCEPTING) || tomb_expired(core, u))
        return;
    bool own_name = u->owner == core->self && !unit_believes(core, u);
    if ((u->flags & UF_DAMAGED) && u->state == UNIT_LIVE && !own_name) {
        damaged_review(core, u);
        return;
    }
    if (unit_believes(core, u)) {
        review_owned(core, u);
        return;
    }
    if (w && w->kind == WORK_CLAIM)
        return;
    if (u->owner == core->self)
        review_own_name(core, u);
    else
        review_held(core, u);
}

void sweep_all(struct core *core)
{
    core->sweep_again = true;
    if (core->sweep == NIL)
        core->sweep = 0;
    else
        core->sweep_at = 0;
}

void sweep_step(struct core *core)
{
    if (core->sweep == NIL) {
        if (core->now < core->sweep_at && !core->sweep_again)
            return;
        core->sweep = 0;
        core->sweep_again = false;
        core->sweep_at = core->now + SWEEP_IDLE_NS;
    }
    for (uint32_t n = 0; n < SWEEP_SLICE && core->sweep < core->unit_high; n++) {
        if (core_out_full(core) || core->parked_count + 64 > core->limits.parked)
            return;
        struct unit *u = &core->unit[core->sweep++];
        if (u->flags & UF_USED)
            unit_review(core, u);
    }
    if (core->sweep >= core->unit_high)
        core->sweep = NIL;
}
