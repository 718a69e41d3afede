/* SPDX-License-Identifier: Apache-2.0 */
#include "base/loop.h"

#include <event2/event.h>
#include <event2/thread.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "base/alloc.h"

#define HOOKS_MAX 4
/* 2,000 pieces of mail a second are much. */
#define WINDOW_NS 10000000
#define WINDOW_MUCH 20u

struct loop {
    struct event_base *base;
    struct mailbox *box;
    struct event *box_event;
    struct mono now;
    atomic_bool stop;
    struct mail stop_mail;
    int64_t nap_ns;
    struct mono window_at; /* mail is counted by windows, to know when there is much */
    unsigned window_mail;
    bool much_mail;
    unsigned hook_count;
    struct {
        void (*run)(void *ctx);
        void *ctx;
    } hooks[HOOKS_MAX];
};

static void box_ready(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct loop *loop = arg;
    mailbox_clear_fd(loop->box); /* the mail itself is handled after the round */
}

static struct event_base *new_base(void)
{
    struct event_config *config = event_config_new();
    if (!config)
        die("baton: libevent: out of memory");
    /* Changes to what is watched are handed to the kernel once per round. */
    event_config_set_flag(config, EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    struct event_base *base = event_base_new_with_config(config);
    event_config_free(config);
    if (!base)
        die("baton: libevent cannot make an event loop");
    return base;
}

struct loop *loop_new(void)
{
    struct loop *loop = mem_zalloc(sizeof(*loop));
    loop->base = new_base();
    loop->box = mailbox_new(loop);
    loop->now = mono_now();
    loop->box_event = event_new(
        loop->base, mailbox_fd(loop->box), EV_READ | EV_PERSIST, box_ready, loop);
    if (!loop->box_event || event_add(loop->box_event, NULL) != 0)
        die("baton: libevent cannot watch a mailbox");
    return loop;
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    event_free(loop->box_event);
    mailbox_free(loop->box);
    event_base_free(loop->base);
    free(loop);
}

static void count_mail(struct loop *loop, unsigned handled)
{
    loop->window_mail += handled;
    struct mono now = mono_now();
    int64_t ns = now.ns - loop->window_at.ns;
    if (ns < WINDOW_NS)
        return;
    loop->much_mail = ns < 2 * WINDOW_NS && loop->window_mail >= WINDOW_MUCH;
    loop->window_at = now;
    loop->window_mail = 0;
}

/* Each wake-up costs two threads a system call and a change of context or two, about 10
 * us of CPU: under load mail that is handled a moment later is handled together. */
static void nap(struct loop *loop)
{
    struct timespec pause = {.tv_nsec = loop->nap_ns};
    if (loop->nap_ns && loop->much_mail)
        ppoll(NULL, 0, &pause, NULL);
}

void loop_once(struct loop *loop)
{
    nap(loop);
    bool sleeps = mailbox_sleep(loop->box);
    event_base_loop(loop->base, sleeps ? EVLOOP_ONCE : EVLOOP_ONCE | EVLOOP_NONBLOCK);
    mailbox_wake(loop->box);
    unsigned handled = mailbox_take(loop->box);
    if (loop->nap_ns)
        count_mail(loop, handled);
    for (unsigned i = 0; i < loop->hook_count; i++)
        loop->hooks[i].run(loop->hooks[i].ctx);
}

void loop_run(struct loop *loop)
{
    while (!atomic_load_explicit(&loop->stop, memory_order_acquire))
        loop_once(loop);
}

static void stop_arrived(struct mail *mail, void *owner)
{
    (void)mail;
    (void)owner; /* waking up is enough */
}

void loop_stop(struct loop *loop)
{
    if (atomic_exchange(&loop->stop, true))
        return;
    mailbox_post(loop->box, &loop->stop_mail, stop_arrived);
}

void loop_nap(struct loop *loop, unsigned us)
{
    INVARIANT(us < 1000000);
    loop->nap_ns = (int64_t)us * 1000;
}

struct mailbox *loop_mailbox(struct loop *loop)
{
    return loop->box;
}

struct event_base *loop_event_base(struct loop *loop)
{
    return loop->base;
}

struct mono loop_now(struct loop *loop)
{
    (void)loop;
    /* A vDSO read is some 30 ns: cheaper than being wrong after a long handler. */
    return mono_now();
}

void loop_after_round(struct loop *loop, void (*run)(void *ctx), void *ctx)
{
    INVARIANT(loop->hook_count < HOOKS_MAX);
    loop->hooks[loop->hook_count].run = run;
    loop->hooks[loop->hook_count].ctx = ctx;
    loop->hook_count++;
}

static void watcher_event(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    struct watcher *w = arg;
    int ready = (what & EV_READ ? WATCH_READ : 0) | (what & EV_WRITE ? WATCH_WRITE : 0);
    w->ready(w, ready);
}

void watcher_init(struct watcher *w, struct loop *loop, int fd,
    void (*ready)(struct watcher *w, int what))
{
    *w = (struct watcher){.loop = loop, .ready = ready, .fd = fd};
    w->ev = event_new(loop->base, fd, EV_READ | EV_PERSIST, watcher_event, w);
    if (!w->ev)
        die("baton: libevent: out of memory");
}

void watcher_set(struct watcher *w, int what)
{
    if (what == w->what)
        return;
    event_del(w->ev);
    w->what = what;
    if (what == 0)
        return;
    short events = (short)((what & WATCH_READ ? EV_READ : 0) |
                           (what & WATCH_WRITE ? EV_WRITE : 0) | EV_PERSIST);
    event_assign(w->ev, w->loop->base, w->fd, events, watcher_event, w);
    if (event_add(w->ev, NULL) != 0)
        die("baton: libevent cannot watch descriptor %d", w->fd);
}

void watcher_fini(struct watcher *w)
{
    if (!w->ev)
        return;
    event_free(w->ev);
    w->ev = NULL;
}

static void arm(struct timer *t)
{
    int64_t ns = t->at.ns - mono_now().ns;
    if (ns < 0)
        ns = 0;
    struct timeval tv = {
        .tv_sec = ns / NS_PER_S, .tv_usec = (ns % NS_PER_S + 999) / 1000};
    if (tv.tv_usec == 1000000) {
        tv.tv_sec++;
        tv.tv_usec = 0;
    }
    event_add(t->ev, &tv);
}

static void timer_event(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct timer *t = arg;
    if (t->at.ns == MONO_NEVER.ns)
        return;
    if (mono_now().ns < t->at.ns) {
        arm(t);
        return;
    }
    t->at = MONO_NEVER;
    t->fire(t);
}

void timer_init(struct timer *t, struct loop *loop, void (*fire)(struct timer *t))
{
    *t = (struct timer){.loop = loop, .fire = fire, .at = MONO_NEVER};
    t->ev = event_new(loop->base, -1, 0, timer_event, t);
    if (!t->ev)
        die("baton: libevent: out of memory");
}

void timer_set(struct timer *t, struct mono at)
{
    bool pending = event_pending(t->ev, EV_TIMEOUT, NULL) != 0;
    bool later = t->at.ns != MONO_NEVER.ns && at.ns >= t->at.ns;
    t->at = at;
    if (at.ns == MONO_NEVER.ns) {
        timer_cancel(t);
        return;
    }
    if (!(pending && later))
        arm(t);
}

void timer_cancel(struct timer *t)
{
    t->at = MONO_NEVER;
    event_del(t->ev);
}

void timer_fini(struct timer *t)
{
    if (!t->ev)
        return;
    event_free(t->ev);
    t->ev = NULL;
}
