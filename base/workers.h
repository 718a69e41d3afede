/* SPDX-License-Identifier: Apache-2.0 */
/* A small pool of helper threads for what blocks: password hashes, signatures, disk reads
 * that may fault pages. A job runs on a helper and comes back as mail. */
#ifndef BASE_WORKERS_H
#define BASE_WORKERS_H

#include "base/mailbox.h"

struct workers;

struct job {
    struct mail mail;
    struct job *next;
    void (*run)(struct job *job); /* on a helper; must not touch the requester's state */
    mail_fn *done;                /* in the requester's thread: mail is &job->mail */
    struct mailbox *reply_to;
};

/* `queue_max`: jobs waiting beyond which workers_submit refuses. */
struct workers *workers_new(
    unsigned threads, unsigned queue_max, const char *thread_name);
/* Finishes what runs and what waits, then joins. */
void workers_free(struct workers *w);
/* False when the queue is full: the caller sheds load. Fill run, done and reply_to first.
 */
bool workers_submit(struct workers *w, struct job *job);
unsigned workers_waiting(struct workers *w);

#endif
