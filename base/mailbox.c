/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mailbox.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"

struct mailbox {
    _Atomic(struct mail *) top; /* newest first */
    _Atomic uint32_t depth;
    _Atomic bool
        asleep; /* the receiver may be waiting for `fd`: who finds it so wakes it */
    int fd;
    void *owner;
};

struct mailbox *mailbox_new(void *owner)
{
    struct mailbox *box = mem_zalloc(sizeof(*box));
    box->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (box->fd < 0)
        die("baton: eventfd: %s", strerror(errno));
    box->owner = owner;
    atomic_init(&box->asleep, true);
    return box;
}

void mailbox_free(struct mailbox *box)
{
    if (!box)
        return;
    close(box->fd);
    free(box);
}

void mailbox_post(struct mailbox *box, struct mail *mail, mail_fn *deliver)
{
    mail->deliver = deliver;
    atomic_fetch_add_explicit(&box->depth, 1, memory_order_relaxed);
    struct mail *top = atomic_load_explicit(&box->top, memory_order_relaxed);
    do {
        mail->next = top;
    } while (!atomic_compare_exchange_weak_explicit(
        &box->top, &top, mail, memory_order_seq_cst, memory_order_relaxed));
    /* Either the receiver, about to sleep, sees the mail, or we see it asleep: both sides
     * are sequentially consistent. */
    if (!atomic_load(&box->asleep) || !atomic_exchange(&box->asleep, false))
        return; /* awake, or somebody else wakes it */
    uint64_t one = 1;
    while (write(box->fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

static struct mail *take_all(struct mailbox *box)
{
    struct mail *newest = atomic_exchange_explicit(&box->top, NULL, memory_order_acquire);
    struct mail *oldest = NULL;
    while (newest) {
        struct mail *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

unsigned mailbox_take(struct mailbox *box)
{
    unsigned handled = 0;
    struct mail *mail = take_all(box);
    while (mail) {
        struct mail *next = mail->next;
        atomic_fetch_sub_explicit(&box->depth, 1, memory_order_relaxed);
        mail->deliver(mail, box->owner);
        mail = next;
        handled++;
    }
    return handled;
}

bool mailbox_sleep(struct mailbox *box)
{
    atomic_store(&box->asleep, true);
    if (!atomic_load(&box->top))
        return true;
    /* Whoever was quicker to clear it writes a wake-up that nobody needs: harmless. */
    atomic_store(&box->asleep, false);
    return false;
}

void mailbox_wake(struct mailbox *box)
{
    if (atomic_load_explicit(&box->asleep, memory_order_relaxed))
        atomic_store_explicit(&box->asleep, false, memory_order_relaxed);
}

void mailbox_clear_fd(struct mailbox *box)
{
    uint64_t count;
    while (read(box->fd, &count, sizeof(count)) < 0 && errno == EINTR)
        ;
}

unsigned mailbox_drain(struct mailbox *box)
{
    mailbox_clear_fd(box);
    /* Before taking: a post in between wakes again, never is lost. */
    atomic_store(&box->asleep, true);
    return mailbox_take(box);
}

bool mailbox_wait(struct mailbox *box, int timeout_ms)
{
    struct pollfd p = {.fd = box->fd, .events = POLLIN};
    while (mailbox_sleep(box)) {
        if (poll(&p, 1, timeout_ms) <= 0)
            break;
        mailbox_clear_fd(box); /* and look again: it may be the wake-up of earlier mail */
    }
    mailbox_wake(box);
    return atomic_load_explicit(&box->top, memory_order_acquire) != NULL;
}

int mailbox_fd(const struct mailbox *box)
{
    return box->fd;
}

uint32_t mailbox_depth(const struct mailbox *box)
{
    return atomic_load_explicit(&box->depth, memory_order_relaxed);
}
