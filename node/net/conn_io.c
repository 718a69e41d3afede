/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes in and out of a connection, plain or TLS. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "node/net/conn_internal.h"

/* Reads of one connection in a row when TLS holds decrypted bytes that no poll would tell
 * of; then the others get their turn. */
#define ROUNDS_MAX 4
/* More than this in TLS is queued, not sent directly: it may take several records. */
#define DIRECT_TLS_MAX 4096

static enum io plain_read(struct conn *c, char *into, size_t size, size_t *n)
{
    ssize_t got = recv(c->fd, into, size, 0);
    if (got > 0) {
        *n = (size_t)got;
        return IO_DONE;
    }
    if (got == 0)
        return IO_EOF;
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? IO_AGAIN
                                                                     : IO_ERROR;
}

static enum io plain_write(struct conn *c, struct slice bytes, size_t *n)
{
    ssize_t sent = send(c->fd, bytes.ptr, bytes.len, MSG_NOSIGNAL);
    if (sent >= 0) {
        *n = (size_t)sent;
        return IO_DONE;
    }
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? IO_AGAIN
                                                                     : IO_ERROR;
}

/* Is what is written now encrypted? Until the clear output is out, it is not. */
static bool in_tls(const struct conn *c)
{
    return c->ssl && c->state != CONN_TLS_WAITING;
}

static enum io read_some(struct conn *c, char *into, size_t size, size_t *n)
{
    enum io io = c->ssl ? conn_tls_read(c, into, size, n) : plain_read(c, into, size, n);
    if (io == IO_DONE)
        c->bytes_in += *n;
    return io;
}

static enum io write_some(struct conn *c, struct slice bytes, size_t *n)
{
    enum io io = in_tls(c) ? conn_tls_write(c, bytes, n) : plain_write(c, bytes, n);
    if (io == IO_DONE)
        c->bytes_out += *n;
    return io;
}

static void break_by_io(struct conn *c, bool tell)
{
    if (in_tls(c))
        conn_break(c, ERR_CONNECTION_LOST, tell); /* conn_tls.c wrote why */
    else
        conn_fail_errno(c, errno, tell);
}

static void tell_eof(struct conn *c)
{
    if (c->state == CONN_LINGERING) {
        conn_die(c);
        return;
    }
    if (c->state != CONN_OPEN || c->eof_told)
        return;
    c->eof = c->eof_told = true;
    snprintf(c->why, sizeof(c->why), "closed by peer");
    c->handler->closed(c, ERR_OK, c->owner);
}

static bool secures(const struct conn *c)
{
    return c->state == CONN_TLS_WAITING || c->state == CONN_HANDSHAKE;
}

/* Hands bytes to the owner; returns how many are to be kept for it. */
static size_t offer(struct conn *c, struct slice bytes)
{
    c->in_data = true;
    c->resume_asked = false;
    size_t taken = c->handler->data(c, bytes, c->owner);
    c->in_data = false;
    size_t left = taken < bytes.len ? bytes.len - taken : 0;
    if (secures(c)) {
        /* What came in the clear behind STARTTLS is nobody's. */
        c->discarded += left;
        return 0;
    }
    if (c->state != CONN_OPEN)
        return 0;
    if (left && !c->resume_asked)
        c->paused = c->blind = true;
    return left;
}

static void deliver(struct conn *c, struct slice bytes)
{
    if (c->state == CONN_LINGERING)
        return;
    size_t left = offer(c, bytes);
    if (left == 0)
        return;
    INVARIANT(buf_append(&c->kept, slice_from(bytes, bytes.len - left)));
    conn_deliver_kept(c);
}

static void wake_at(struct conn *c, size_t bytes)
{
    int low = (int)bytes;
    (void)setsockopt(c->fd, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof(low));
}

/* Bytes that are only looked at leave the socket readable: the low-water mark keeps the
 * loop from spinning until one more has come. */
static void peek_once(struct conn *c)
{
    ssize_t got = recv(c->fd, c->all->buffer, CONN_READ_BYTES, MSG_PEEK);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got < 0) {
        break_by_io(c, true);
        return;
    }
    if ((size_t)got == c->peeked) {
        tell_eof(c); /* woken, and no byte more: that was all */
        return;
    }
    c->peeked = (size_t)got;
    wake_at(c, c->peeked + 1);
    c->all->reading = true;
    (void)c->handler->data(c, slice_make(c->all->buffer, c->peeked), c->owner);
    c->all->reading = false;
}

void conn_start_peek(struct conn *c)
{
    c->peek = true;
}

void conn_end_peek(struct conn *c, size_t used)
{
    char gone[1024];
    c->peek = false;
    wake_at(c, 1);
    while (used > 0) {
        size_t n = used < sizeof(gone) ? used : sizeof(gone);
        ssize_t got = recv(c->fd, gone, n, 0);
        INVARIANT(got > 0 && (size_t)got <= n); /* they were seen there */
        used -= (size_t)got;
    }
}

/* True when there is more to read at once. */
static bool read_once(struct conn *c)
{
    size_t n = 0;
    if (c->peek) {
        peek_once(c);
        return false;
    }
    c->all->reading = true;
    enum io io = read_some(c, c->all->buffer, CONN_READ_BYTES, &n);
    if (io == IO_DONE)
        deliver(c, slice_make(c->all->buffer, n));
    c->all->reading = false;
    if (io == IO_EOF)
        tell_eof(c);
    else if (io == IO_ERROR)
        break_by_io(c, true);
    return io == IO_DONE && c->ssl && conn_tls_has_pending(c);
}

static bool may_read(const struct conn *c)
{
    return (c->state == CONN_OPEN || c->state == CONN_LINGERING) && !c->eof && !c->paused;
}

void conn_read_ready(struct conn *c)
{
    if (c->state == CONN_OPEN && c->paused) {
        c->blind = true; /* only now is it worth a system call to look away */
        return;
    }
    if (c->all->reading) {
        if (c->state == CONN_OPEN)
            conn_set_timer(c, CONN_TIMER_KICK, 0);
        return;
    }
    for (int round = 0; may_read(c); round++) {
        if (!read_once(c))
            return;
        if (round == ROUNDS_MAX && c->state == CONN_OPEN) {
            conn_set_timer(c, CONN_TIMER_KICK, 0);
            return;
        }
    }
}

void conn_pause(struct conn *c)
{
    c->paused = true;
}

bool conn_is_paused(const struct conn *c)
{
    return c->paused;
}

void conn_deliver_kept(struct conn *c)
{
    while (buf_len(&c->kept) && c->state == CONN_OPEN && !c->paused) {
        size_t len = buf_len(&c->kept);
        size_t left = offer(c, buf_slice(&c->kept));
        if (c->state == CONN_DEAD)
            return;
        buf_consume(&c->kept, len - left);
    }
    if (buf_len(&c->kept) == 0) {
        /* An idle connection holds no buffers. */
        buf_fini(&c->kept);
        buf_init(&c->kept, CONN_READ_BYTES);
    }
}

void conn_resume(struct conn *c)
{
    if (c->in_data) {
        c->paused = c->blind = false;
        c->resume_asked = true;
        return;
    }
    if (!c->paused || c->state == CONN_DEAD)
        return;
    conn_enter(c);
    c->paused = c->blind = false;
    conn_deliver_kept(c);
    if (c->state == CONN_OPEN && !c->paused && c->ssl && conn_tls_has_pending(c))
        conn_set_timer(c, CONN_TIMER_KICK, 0);
    conn_leave(c);
}

struct buf *conn_out(struct conn *c)
{
    return &c->out;
}

bool conn_write(struct conn *c, struct slice bytes)
{
    return buf_append(&c->out, bytes);
}

size_t conn_unsent(const struct conn *c)
{
    return buf_len(&c->out);
}

/* Sends until the kernel is full (false) or nothing is left (true). */
static bool send_all(struct conn *c, struct buf *from)
{
    while (buf_len(from)) {
        size_t n = 0;
        enum io io = write_some(c, buf_slice(from), &n);
        if (io == IO_ERROR || io == IO_EOF) {
            break_by_io(c, false);
            return false;
        }
        if (io == IO_AGAIN) {
            c->blocked = true;
            return false;
        }
        buf_consume(from, n);
    }
    return true;
}

void conn_send_out(struct conn *c)
{
    if (!send_all(c, &c->out))
        return;
    c->blocked = false;
    buf_clear(&c->out);
    conn_output_empty(c);
}

void conn_drain(struct conn *c, struct buf *from)
{
    if (c->state != CONN_OPEN || c->blocked)
        return;
    conn_enter(c);
    if (send_all(c, &c->out))
        (void)send_all(c, from);
    conn_leave(c);
}

void conn_write_ready(struct conn *c)
{
    bool was_blocked = c->blocked;
    if (c->state == CONN_BROKEN || c->state == CONN_DEAD)
        return;
    if (c->state == CONN_OPEN && !was_blocked)
        return; /* writability was wanted by a TLS read */
    conn_send_out(c);
    if (was_blocked && !c->blocked && c->state == CONN_OPEN && c->handler->drained)
        c->handler->drained(c, c->owner);
}

void conn_flush(struct conn *c)
{
    bool open = c->state == CONN_OPEN || c->state == CONN_TLS_WAITING;
    if (!open || c->blocked || buf_len(&c->out) == 0)
        return;
    conn_enter(c);
    conn_send_out(c);
    conn_leave(c);
}

static bool writable_now(const struct conn *c)
{
    struct pollfd p = {.fd = c->fd, .events = POLLOUT};
    return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT);
}

/* A TLS record, once made, is sent or the connection ends: so there must be room first.
 */
static enum io write_record(struct conn *c, struct slice bytes, size_t *written)
{
    if (!writable_now(c))
        return IO_AGAIN;
    enum io io = write_some(c, bytes, written);
    if (io != IO_AGAIN)
        return io;
    snprintf(c->why, sizeof(c->why), "connection stalled inside a TLS record");
    return IO_ERROR;
}

enum err conn_send_direct(struct conn *c, struct slice bytes, size_t *written)
{
    *written = 0;
    if (c->state != CONN_OPEN)
        return ERR_CONNECTION_LOST;
    INVARIANT(buf_len(&c->out) == 0);
    if (c->ssl && bytes.len > DIRECT_TLS_MAX) {
        bytes = slice_head(bytes, CONN_OUT_MAX / 2);
        *written = bytes.len;
        conn_write(c, bytes);
        conn_flush(c);
        return ERR_OK;
    }
    conn_enter(c);
    enum io io = c->ssl ? write_record(c, bytes, written) : write_some(c, bytes, written);
    if (io == IO_ERROR)
        break_by_io(c, false);
    else if (*written < bytes.len)
        c->blocked = true;
    conn_leave(c);
    return io == IO_ERROR ? ERR_CONNECTION_LOST : ERR_OK;
}
