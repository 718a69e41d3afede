/* SPDX-License-Identifier: Apache-2.0 */
#include "node/intake/pace.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"

#define LOOK_AGAIN_MS 3
#define SAMPLE_MS 20
#define SAMPLE_STALE_MS 1000

/* ns that this thread was ready to run and did not; false when the kernel does not say.
 */
static bool kernel_says(struct pace *p, uint64_t *out)
{
    char text[128];
    if (p->schedstat == -1) {
        p->schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
        if (p->schedstat < 0)
            p->schedstat = -2;
    }
    if (p->schedstat < 0)
        return false;
    ssize_t n = pread(p->schedstat, text, sizeof(text) - 1, 0);
    if (n <= 0)
        return false;
    text[n] = '\0';
    char *ran_end, *end; /* "ran delayed times" */
    (void)strtoull(text, &ran_end, 10);
    *out = strtoull(ran_end, &end, 10);
    return end != ran_end;
}

static bool short_of_cpu(struct pace *p, struct mono now)
{
    int64_t ms = mono_diff_ms(now, p->looked);
    uint64_t delayed;
    if (ms < SAMPLE_MS)
        return p->short_of_cpu;
    if (!p->run_delay(p, &delayed))
        return false;
    uint64_t eighth = (uint64_t)(ms * NS_PER_MS) / 8;
    p->short_of_cpu = ms < SAMPLE_STALE_MS && delayed - p->delayed > eighth;
    p->delayed = delayed;
    p->looked = now;
    return p->short_of_cpu;
}

static bool leaving(struct pace *p, struct mono now)
{
    uint64_t left = atomic_load_explicit(&p->memory->hot->left, memory_order_relaxed);
    if (left != p->left) {
        p->left = left;
        p->left_at = now;
    }
    return mono_diff_ms(now, p->left_at) < PACE_IDLE_MS;
}

/* With `more` beside what does not wait. */
static bool is_full(const struct pace_memory *m, uint64_t more, uint64_t budget)
{
    uint64_t reserved = atomic_load_explicit(&m->reserved, memory_order_relaxed);
    uint64_t waiting = atomic_load_explicit(&m->waiting, memory_order_relaxed);
    uint64_t hot = atomic_load_explicit(&m->hot->bytes, memory_order_relaxed);
    uint64_t on_the_way = reserved > waiting ? reserved - waiting : 0;
    return hot + on_the_way + more > budget;
}

static void take_out(struct pace *p, struct pace_wait *w)
{
    TAILQ_REMOVE(&p->line, w, link);
    w->waits = false;
    atomic_fetch_sub_explicit(&p->memory->waiting, w->bytes, memory_order_relaxed);
}

static void look(struct timer *t)
{
    struct pace *p = CONTAINER_OF(t, struct pace, timer);
    struct mono now = mono_now();
    bool worth_it = leaving(p, now) && short_of_cpu(p, now);
    struct pace_wait *w;
    while ((w = TAILQ_FIRST(&p->line))) {
        if (worth_it && mono_diff_ms(w->until, now) > 0 &&
            is_full(p->memory, w->bytes, w->budget))
            break;
        take_out(p, w);
        w->go(w);
    }
    if (w)
        timer_set(&p->timer, mono_add_ms(now, LOOK_AGAIN_MS));
}

void pace_init(struct pace *p, struct loop *loop, struct pace_memory *memory)
{
    *p = (struct pace){.memory = memory, .run_delay = kernel_says, .schedstat = -1};
    TAILQ_INIT(&p->line);
    timer_init(&p->timer, loop, look);
}

void pace_fini(struct pace *p)
{
    timer_fini(&p->timer);
    if (p->schedstat >= 0)
        close(p->schedstat);
}

bool pace_line_up(struct pace *p, struct pace_wait *w)
{
    if (!p->memory->hot)
        return false;
    /* `reserved` has its bytes already. Who comes later does not overtake. */
    if (TAILQ_EMPTY(&p->line) && !is_full(p->memory, 0, w->budget))
        return false;
    struct mono now = mono_now();
    if (!leaving(p, now) || !short_of_cpu(p, now))
        return false;
    w->until = mono_add_ms(now, PACE_WAIT_MS);
    w->waits = true;
    atomic_fetch_add_explicit(&p->memory->waiting, w->bytes, memory_order_relaxed);
    if (TAILQ_EMPTY(&p->line))
        timer_set(&p->timer, mono_add_ms(now, LOOK_AGAIN_MS));
    TAILQ_INSERT_TAIL(&p->line, w, link);
    return true;
}

void pace_leave(struct pace *p, struct pace_wait *w)
{
    if (w->waits)
        take_out(p, w);
}
