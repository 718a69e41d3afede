/* SPDX-License-Identifier: Apache-2.0 */
/* An event loop: thin over libevent, so that nothing above names it (but evhttp and
 * libunbound, which take the event_base). One thread runs a loop; everything here is for
 * that thread, except loop_stop and mailbox_post on loop_mailbox. */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include "base/clock.h"
#include "base/mailbox.h"

struct event_base;
struct event;
struct loop;

struct loop *loop_new(void);
/* Frees the loop; its watchers and timers must be closed by then. Accepts NULL. */
void loop_free(struct loop *loop);
/* Runs until loop_stop. */
void loop_run(struct loop *loop);
/* One round: waits for something, and handles what is there. */
void loop_once(struct loop *loop);
/* Any thread; takes effect after what is being handled. */
void loop_stop(struct loop *loop);
struct mailbox *loop_mailbox(struct loop *loop);
struct event_base *loop_event_base(struct loop *loop);
/* The clock, read once per wake-up. */
struct mono loop_now(struct loop *loop);
/* Before loop_run. When thousands of pieces of mail come in a second, mail may gather for
 * `us` (under a second) before it is handled; descriptors and timers wait with it. */
void loop_nap(struct loop *loop, unsigned us);
/* Called once after each round of events, before the loop sleeps again: for work gathered
 * during the round (a batch of posts, a log flush). At most 4 hooks. */
void loop_after_round(struct loop *loop, void (*run)(void *ctx), void *ctx);

/* A watcher tells when a descriptor can be read or written. It does not own the fd. */
enum watch_what { WATCH_READ = 1, WATCH_WRITE = 2 };
struct watcher {
    struct event *ev;
    struct loop *loop;
    void (*ready)(struct watcher *w, int what); /* what: WATCH_READ | WATCH_WRITE */
    int fd;
    int what;
};
/* The caller's storage; watches nothing yet. */
void watcher_init(struct watcher *w, struct loop *loop, int fd,
    void (*ready)(struct watcher *w, int what));
/* Sets what is watched (0: nothing). Cheap when nothing changes. */
void watcher_set(struct watcher *w, int what);
void watcher_fini(struct watcher *w);

/* A timer fires once at or after its instant. */
struct timer {
    struct event *ev;
    struct loop *loop;
    void (*fire)(struct timer *t);
    struct mono at; /* MONO_NEVER when not set */
};
void timer_init(struct timer *t, struct loop *loop, void (*fire)(struct timer *t));
/* Moving an armed timer later is free: the early wake-up finds the later instant. */
void timer_set(struct timer *t, struct mono at);
void timer_cancel(struct timer *t);
void timer_fini(struct timer *t);

#endif
