/* SPDX-License-Identifier: Apache-2.0 */
/* What has threads in base/: mailbox, workers, loop, timers, watchers. */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/loop.h"
#include "base/workers.h"

/* --- mailbox --- */

#define POSTERS 4
#define POSTS 20000

struct letter {
    struct mail mail;
    unsigned poster, number;
};

struct poster {
    struct mailbox *box;
    unsigned which;
    struct letter *letters;
};

struct receiver {
    unsigned next[POSTERS];
    unsigned got;
    bool disorder;
};

static void receive(struct mail *mail, void *owner)
{
    struct letter *l = CONTAINER_OF(mail, struct letter, mail);
    struct receiver *r = owner;
    r->disorder = r->disorder || r->next[l->poster] != l->number;
    r->next[l->poster]++;
    r->got++;
}

static void *post_all(void *arg)
{
    struct poster *p = arg;
    for (unsigned i = 0; i < POSTS; i++) {
        p->letters[i].poster = p->which;
        p->letters[i].number = i;
        mailbox_post(p->box, &p->letters[i].mail, receive);
    }
    return NULL;
}

static void nothing(struct mail *mail, void *owner)
{
    (void)mail;
    (void)owner;
}

/* Who watches the descriptor himself: readable with each new mail, quiet after a drain.
 */
static void check_descriptor(struct mailbox *box)
{
    struct mail mail[3];
    struct pollfd p = {.fd = mailbox_fd(box), .events = POLLIN};
    mailbox_drain(box);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(poll(&p, 1, 0), 0);
        mailbox_post(box, &mail[i], nothing);
        assert_int_equal(poll(&p, 1, 0), 1);
        assert_int_equal(mailbox_drain(box), 1);
    }
    assert_int_equal(poll(&p, 1, 0), 0);
}

/* Nothing is lost, nothing comes twice, and each poster's mail keeps its order. */
static void test_mailbox(void **state)
{
    (void)state;
    struct receiver r = {0};
    struct mailbox *box = mailbox_new(&r);
    struct poster posters[POSTERS];
    pthread_t threads[POSTERS];
    assert_false(mailbox_wait(box, 0));
    for (unsigned i = 0; i < POSTERS; i++) {
        posters[i] = (struct poster){box, i, mem_zalloc(POSTS * sizeof(struct letter))};
        pthread_create(&threads[i], NULL, post_all, &posters[i]);
    }
    while (r.got < POSTERS * POSTS)
        if (mailbox_wait(box, 5000))
            mailbox_drain(box);
    for (unsigned i = 0; i < POSTERS; i++) {
        pthread_join(threads[i], NULL);
        free(posters[i].letters);
    }
    assert_false(r.disorder);
    assert_int_equal(r.got, POSTERS * POSTS);
    check_descriptor(box);
    assert_int_equal(mailbox_depth(box), 0);
    assert_int_equal(mailbox_drain(box), 0);
    mailbox_free(box);
    mailbox_free(NULL);
}

/* --- workers --- */

struct sum_job {
    struct job job;
    unsigned value, result;
    atomic_bool *gate; /* waits for it, or NULL */
};

static pthread_mutex_t gate_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_opens = PTHREAD_COND_INITIALIZER;

static void square(struct job *job)
{
    struct sum_job *s = CONTAINER_OF(job, struct sum_job, job);
    pthread_mutex_lock(&gate_lock);
    while (s->gate && !atomic_load(s->gate))
        pthread_cond_wait(&gate_opens, &gate_lock);
    pthread_mutex_unlock(&gate_lock);
    s->result = s->value * s->value;
}

static unsigned sum;
static void add_up(struct mail *mail, void *owner)
{
    (void)owner;
    sum += CONTAINER_OF(mail, struct sum_job, job.mail)->result;
}

static void test_workers(void **state)
{
    (void)state;
    struct mailbox *box = mailbox_new(NULL);
    struct workers *w = workers_new(2, 10, "helper");
    atomic_bool gate = false;
    struct sum_job jobs[100];
    unsigned taken = 0, want = 0, done = 0;
    for (unsigned i = 0; i < 100; i++) {
        jobs[i] =
            (struct sum_job){.job = {.run = square, .done = add_up, .reply_to = box},
                .value = i,
                .gate = &gate};
        if (!workers_submit(w, &jobs[i].job))
            continue;
        taken++;
        want += i * i;
    }
    /* The queue is bounded: two run, ten wait, the others are refused. */
    assert_true(taken >= 10 && taken <= 12);
    assert_true(workers_waiting(w) <= 10);
    pthread_mutex_lock(&gate_lock);
    atomic_store(&gate, true);
    pthread_cond_broadcast(&gate_opens);
    pthread_mutex_unlock(&gate_lock);
    sum = 0;
    workers_free(w); /* finishes what waits */
    while (mailbox_wait(box, 0))
        done += mailbox_drain(box);
    assert_int_equal(done, taken);
    assert_int_equal(sum, want);
    mailbox_free(box);
}

/* --- loop --- */

struct scene {
    struct loop *loop;
    struct timer timers[4];
    char order[8];
    unsigned fired, rounds;
    struct mono started, fired_at;
    struct watcher watcher;
    int pipe[2];
    unsigned reads;
};
static struct scene scene;

static void note_timer(struct timer *t)
{
    scene.order[scene.fired++] = (char)('a' + (t - scene.timers));
    scene.fired_at = mono_now();
    if (t == &scene.timers[3])
        loop_stop(scene.loop);
}

static void count_round(void *ctx)
{
    (*(unsigned *)ctx)++;
}

static void setup_scene(void)
{
    scene = (struct scene){.loop = loop_new()};
    for (int i = 0; i < 4; i++)
        timer_init(&scene.timers[i], scene.loop, note_timer);
    scene.started = mono_now();
}

static void drop_scene(void)
{
    for (int i = 0; i < 4; i++)
        timer_fini(&scene.timers[i]);
    loop_free(scene.loop);
}

static void test_timers(void **state)
{
    (void)state;
    setup_scene();
    loop_after_round(scene.loop, count_round, &scene.rounds);
    timer_set(&scene.timers[0], mono_add_ms(scene.started, 20));
    timer_set(&scene.timers[1], mono_add_ms(scene.started, 10));
    timer_set(&scene.timers[2], mono_add_ms(scene.started, 5));
    timer_cancel(&scene.timers[2]);
    timer_set(&scene.timers[3], mono_add_ms(scene.started, 30));
    loop_run(scene.loop);
    assert_string_equal(scene.order, "bad");
    assert_true(mono_diff_ms(scene.fired_at, scene.started) >= 30);
    assert_true(scene.rounds >= 1);
    drop_scene();
}

/* Later, then earlier, then later again: the last word counts, and never too early. */
static void test_timer_moves(void **state)
{
    (void)state;
    setup_scene();
    timer_set(&scene.timers[3], mono_add_ms(scene.started, 1));
    timer_set(&scene.timers[3], mono_add_ms(scene.started, 40));
    timer_set(&scene.timers[0], mono_add_ms(scene.started, 1000000));
    timer_set(&scene.timers[0], mono_add_ms(scene.started, 2));
    timer_set(&scene.timers[1], mono_add_ms(scene.started, 2));
    timer_set(&scene.timers[1], MONO_NEVER);
    loop_run(scene.loop);
    assert_string_equal(scene.order, "ad");
    assert_true(mono_diff_ms(scene.fired_at, scene.started) >= 40);
    assert_true(scene.timers[1].at.ns == MONO_NEVER.ns);
    drop_scene();
}

static void pipe_ready(struct watcher *w, int what)
{
    char bytes[16];
    assert_int_equal(what, WATCH_READ);
    assert_true(read(w->fd, bytes, sizeof(bytes)) > 0);
    if (++scene.reads == 2)
        loop_stop(scene.loop);
    else
        assert_int_equal(write(scene.pipe[1], "y", 1), 1);
}

static void test_watcher(void **state)
{
    (void)state;
    setup_scene();
    assert_int_equal(pipe(scene.pipe), 0);
    watcher_init(&scene.watcher, scene.loop, scene.pipe[0], pipe_ready);
    watcher_set(&scene.watcher, WATCH_READ);
    watcher_set(&scene.watcher, 0);
    watcher_set(&scene.watcher, WATCH_READ);
    assert_int_equal(write(scene.pipe[1], "x", 1), 1);
    loop_run(scene.loop);
    assert_int_equal(scene.reads, 2);
    watcher_fini(&scene.watcher);
    watcher_fini(&scene.watcher);
    close(scene.pipe[0]);
    close(scene.pipe[1]);
    drop_scene();
}

static void *run_loop(void *arg)
{
    loop_run(arg);
    return NULL;
}

static void test_stop_from_another_thread(void **state)
{
    (void)state;
    pthread_t thread;
    struct loop *loop = loop_new();
    pthread_create(&thread, NULL, run_loop, loop);
    loop_stop(loop);
    loop_stop(loop);
    pthread_join(thread, NULL);
    loop_free(loop);
    loop_free(NULL);
}

/* A loop that naps under load still handles all, in order, and one that does not, too:
 * a post that finds it falling asleep wakes it. */
struct counted {
    struct mail mail;
    struct loop *loop;
    unsigned number, *next;
    unsigned end;
};

static void count_in_order(struct mail *mail, void *owner)
{
    struct counted *c = CONTAINER_OF(mail, struct counted, mail);
    (void)owner;
    assert_int_equal(c->number, *c->next);
    if (++*c->next == c->end)
        loop_stop(c->loop);
}

static void check_flood(unsigned nap_us)
{
    enum { MANY = 20000 };
    struct counted *all = mem_zalloc(MANY * sizeof(*all));
    struct loop *loop = loop_new();
    unsigned next = 0;
    pthread_t thread;
    loop_nap(loop, nap_us);
    pthread_create(&thread, NULL, run_loop, loop);
    for (unsigned i = 0; i < MANY; i++) {
        all[i] = (struct counted){.loop = loop, .number = i, .next = &next, .end = MANY};
        mailbox_post(loop_mailbox(loop), &all[i].mail, count_in_order);
        if (i % 64 == 0)
            sched_yield(); /* now and then it falls asleep between two posts */
    }
    pthread_join(thread, NULL);
    assert_int_equal(next, MANY);
    loop_free(loop);
    free(all);
}

static void test_flood(void **state)
{
    (void)state;
    check_flood(0);
    check_flood(300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mailbox),
        cmocka_unit_test(test_workers),
        cmocka_unit_test(test_timers),
        cmocka_unit_test(test_timer_moves),
        cmocka_unit_test(test_watcher),
        cmocka_unit_test(test_stop_from_another_thread),
        cmocka_unit_test(test_flood),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
