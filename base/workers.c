/* SPDX-License-Identifier: Apache-2.0 */
#include "base/workers.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "base/alloc.h"

struct workers {
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct job *head;
    struct job **tail;
    unsigned waiting;
    unsigned queue_max;
    unsigned threads;
    bool stopping;
    pthread_t *ids;
};

static struct job *take(struct workers *w)
{
    pthread_mutex_lock(&w->lock);
    while (!w->head && !w->stopping)
        pthread_cond_wait(&w->more, &w->lock);
    struct job *job = w->head;
    if (job) {
        w->head = job->next;
        if (!w->head)
            w->tail = &w->head;
        w->waiting--;
    }
    pthread_mutex_unlock(&w->lock);
    return job;
}

static void *work(void *arg)
{
    struct workers *w = arg;
    struct job *job;
    while ((job = take(w))) {
        job->run(job);
        mailbox_post(job->reply_to, &job->mail, job->done);
    }
    return NULL;
}

struct workers *workers_new(unsigned threads, unsigned queue_max, const char *thread_name)
{
    struct workers *w = mem_zalloc(sizeof(*w));
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->more, NULL);
    w->tail = &w->head;
    w->queue_max = queue_max;
    w->threads = threads;
    w->ids = mem_zalloc(threads * sizeof(*w->ids));
    for (unsigned i = 0; i < threads; i++) {
        if (pthread_create(&w->ids[i], NULL, work, w) != 0)
            die("baton: cannot start a helper thread");
        pthread_setname_np(w->ids[i], thread_name);
    }
    return w;
}

void workers_free(struct workers *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_broadcast(&w->more);
    pthread_mutex_unlock(&w->lock);
    for (unsigned i = 0; i < w->threads; i++)
        pthread_join(w->ids[i], NULL);
    pthread_cond_destroy(&w->more);
    pthread_mutex_destroy(&w->lock);
    free(w->ids);
    free(w);
}

bool workers_submit(struct workers *w, struct job *job)
{
    bool room;
    pthread_mutex_lock(&w->lock);
    room = w->waiting < w->queue_max && !w->stopping;
    if (room) {
        job->next = NULL;
        *w->tail = job;
        w->tail = &job->next;
        w->waiting++;
        pthread_cond_signal(&w->more);
    }
    pthread_mutex_unlock(&w->lock);
    return room;
}

unsigned workers_waiting(struct workers *w)
{
    pthread_mutex_lock(&w->lock);
    unsigned waiting = w->waiting;
    pthread_mutex_unlock(&w->lock);
    return waiting;
}
