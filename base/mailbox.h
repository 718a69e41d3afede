/* SPDX-License-Identifier: Apache-2.0 */
/* How threads talk: many post, one receives. Mail is intrusive (embed `struct mail` in
 * the message), so posting never allocates and never fails. A lock-free stack; the
 * receiver takes all of it at once and handles it in the order it was posted. The
 * receiver is woken through an eventfd, and only when it said that it goes to sleep: to
 * post to a thread that is at work costs no system call. Bounded: a requester
 * keeps its own count of what it has under way; `mailbox_depth` tells the load, for
 * back-pressure at the place that creates work. */
#ifndef BASE_MAILBOX_H
#define BASE_MAILBOX_H

#include <stdbool.h>
#include <stdint.h>

struct mail;
/* Runs in the receiver's thread. The receiver owns the mail from here on. `owner` is what
 * the receiver gave to mailbox_new. */
typedef void mail_fn(struct mail *mail, void *owner);

struct mail {
    struct mail *next;
    mail_fn *deliver;
};

struct mailbox;

struct mailbox *mailbox_new(void *owner);
/* No poster may still be inside mailbox_post: it touches the box after its mail is there
 * to be seen. Free a box after its posters' threads have ended, or after one more round
 * with them. */
void mailbox_free(struct mailbox *box);
/* Any thread. */
void mailbox_post(struct mailbox *box, struct mail *mail, mail_fn *deliver);
/* Receiver only: handles all that is there; returns how many. For who watches the
 * descriptor: clears it, and the next post makes it readable again. */
unsigned mailbox_drain(struct mailbox *box);
/* The same for who sleeps in mailbox_wait or mailbox_sleep: touches no descriptor. */
unsigned mailbox_take(struct mailbox *box);
/* Receiver only: sleeps until there is mail or `timeout_ms` have passed (-1: for ever).
 * True when there is mail. For threads that have no loop. */
bool mailbox_wait(struct mailbox *box, int timeout_ms);
/* The parts of mailbox_wait, for loops. False: there is mail, do not sleep. True: the
 * next post makes the descriptor readable, until mailbox_wake; what it holds is to be
 * cleared. */
bool mailbox_sleep(struct mailbox *box);
void mailbox_wake(struct mailbox *box);
int mailbox_fd(const struct mailbox *box);
void mailbox_clear_fd(struct mailbox *box);
/* Posted and not yet handled; approximate. */
uint32_t mailbox_depth(const struct mailbox *box);

#endif
