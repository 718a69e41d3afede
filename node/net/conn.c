/* SPDX-License-Identifier: Apache-2.0 */
#include "node/net/conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "node/net/conn_internal.h"

/* How long a connection without an owner may take to say goodbye. */
#define FINISH_MS 10000
#define LINGER_MS 3000
/* Beyond so many, goodbyes are cut short: they must not become a way to hold memory. */
#define FINISHING_MAX 2000
/* Unsent data is given up after so long without an acknowledgement (RFC 5482). */
#define USER_TIMEOUT_MS 120000

struct conns *conns_new(struct loop *loop)
{
    struct conns *all = mem_zalloc(sizeof(*all));
    all->loop = loop;
    all->buffer = mem_alloc(CONN_READ_BYTES);
    LIST_INIT(&all->list);
    return all;
}

void conns_free(struct conns *all)
{
    if (!all)
        return;
    while (!LIST_EMPTY(&all->list)) {
        struct conn *c = LIST_FIRST(&all->list);
        INVARIANT(c->state == CONN_FINISHING || c->state == CONN_LINGERING);
        conn_close(c);
    }
    free(all->buffer);
    free(all);
}

struct loop *conns_loop(struct conns *all)
{
    return all->loop;
}

unsigned conns_count(const struct conns *all)
{
    return all->count;
}

static int wanted(const struct conn *c)
{
    int what = 0;
    switch (c->state) {
    case CONN_CONNECTING:
        return WATCH_WRITE;
    case CONN_TLS_WAITING:
        return WATCH_WRITE;
    case CONN_HANDSHAKE:
        return c->handshake_want;
    case CONN_FINISHING:
        return c->write_wants_read ? WATCH_READ : WATCH_WRITE;
    case CONN_LINGERING:
        return WATCH_READ;
    case CONN_BROKEN:
    case CONN_DEAD:
        return 0;
    case CONN_OPEN:
        break;
    }
    if (!c->eof && !c->blind)
        what |= c->read_wants_write ? WATCH_WRITE : WATCH_READ;
    if (c->blocked)
        what |= c->write_wants_read ? WATCH_READ : WATCH_WRITE;
    return what;
}

void conn_enter(struct conn *c)
{
    c->busy++;
}

static void destroy(struct conn *c)
{
    if (c->has_timer)
        timer_fini(&c->timer);
    LIST_REMOVE(c, link);
    c->all->count--;
    buf_fini(&c->out);
    buf_fini(&c->kept);
    free(c);
}

void conn_leave(struct conn *c)
{
    INVARIANT(c->busy > 0);
    if (c->state != CONN_DEAD && c->busy == 1)
        watcher_set(&c->watcher, wanted(c));
    if (--c->busy == 0 && c->state == CONN_DEAD)
        destroy(c);
}

/* Closes everything but the memory. */
void conn_die(struct conn *c)
{
    if (c->state == CONN_DEAD)
        return;
    if (c->state == CONN_FINISHING || c->state == CONN_LINGERING)
        c->all->finishing--;
    c->state = CONN_DEAD;
    conn_stop_timer(c);
    conn_tls_free(c);
    if (c->fd < 0)
        return;
    watcher_fini(&c->watcher);
    close(c->fd);
    c->fd = -1;
}

static void tell_error(struct conn *c)
{
    if (c->error_told)
        return;
    c->error_told = true;
    c->handler->closed(c, c->error, c->owner);
}

void conn_break(struct conn *c, enum err error, bool tell)
{
    if (c->state == CONN_DEAD || c->state == CONN_BROKEN)
        return;
    if (c->state == CONN_FINISHING || c->state == CONN_LINGERING) {
        conn_die(c);
        return;
    }
    c->state = CONN_BROKEN;
    c->error = error;
    conn_stop_timer(c);
    if (tell)
        tell_error(c);
    else
        conn_set_timer(c, CONN_TIMER_KICK, 0);
}

static enum err errno_to_err(int error, bool connecting)
{
    switch (error) {
    case ECONNREFUSED:
        return ERR_CONNECT_REFUSED;
    case ETIMEDOUT:
        return connecting ? ERR_CONNECT_TIMEOUT : ERR_CONNECTION_LOST;
    case ECONNRESET:
    case EPIPE:
        return ERR_CONNECTION_LOST;
    default:
        return connecting ? ERR_CONNECT_UNREACHABLE : ERR_CONNECTION_LOST;
    }
}

void conn_fail_errno(struct conn *c, int error, bool tell)
{
    char text[100];
    const char *said = strerror_r(error, text, sizeof(text));
    snprintf(c->why, sizeof(c->why), "%s", said);
    conn_break(c, errno_to_err(error, c->state == CONN_CONNECTING), tell);
}

static void connect_ended(struct conn *c)
{
    int error = 0;
    socklen_t len = sizeof(error);
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
        error = errno;
    if (error == EINPROGRESS)
        return;
    if (error) {
        conn_fail_errno(c, error, true);
        return;
    }
    conn_stop_timer(c);
    c->state = CONN_OPEN;
    if (c->handler->connected)
        c->handler->connected(c, c->owner);
}

static void ready(struct watcher *w, int what)
{
    struct conn *c = CONTAINER_OF(w, struct conn, watcher);
    conn_enter(c);
    if (c->state == CONN_CONNECTING) {
        connect_ended(c);
    } else if (c->state == CONN_HANDSHAKE) {
        conn_tls_handshake(c);
    } else {
        if ((what & WATCH_WRITE) || c->write_wants_read)
            conn_write_ready(c);
        if ((what & WATCH_READ) || c->read_wants_write)
            conn_read_ready(c);
    }
    conn_leave(c);
}

static void timer_fired(struct timer *t)
{
    struct conn *c = CONTAINER_OF(t, struct conn, timer);
    enum conn_timer was = c->timer_for;
    c->timer_for = CONN_TIMER_NONE;
    conn_enter(c);
    if (was == CONN_TIMER_END) {
        conn_die(c);
    } else if (was == CONN_TIMER_CONNECT) {
        conn_fail_errno(c, ETIMEDOUT, true);
    } else if (was == CONN_TIMER_KICK) {
        if (c->state == CONN_BROKEN)
            tell_error(c);
        else
            conn_read_ready(c);
    }
    conn_leave(c);
}

void conn_set_timer(struct conn *c, enum conn_timer what, int64_t in_ms)
{
    if (!c->has_timer) {
        timer_init(&c->timer, c->all->loop, timer_fired);
        c->has_timer = true;
    }
    c->timer_for = what;
    timer_set(&c->timer, mono_add_ms(loop_now(c->all->loop), in_ms));
}

void conn_stop_timer(struct conn *c)
{
    if (c->timer_for == CONN_TIMER_NONE)
        return;
    c->timer_for = CONN_TIMER_NONE;
    timer_cancel(&c->timer);
}

static struct conn *new_conn(struct conns *all, int fd, struct netaddr peer,
    const struct conn_handler *handler, void *owner)
{
    struct conn *c = mem_zalloc(sizeof(*c));
    c->all = all;
    c->fd = fd;
    c->peer = peer;
    c->handler = handler;
    c->owner = owner;
    c->info.version = c->info.cipher = c->info.why_unverified = "";
    buf_init(&c->out, CONN_OUT_MAX);
    buf_init(&c->kept, CONN_READ_BYTES);
    if (fd >= 0)
        watcher_init(&c->watcher, all->loop, fd, ready);
    LIST_INSERT_HEAD(&all->list, c, link);
    all->count++;
    return c;
}

struct conn *conn_accept(struct conns *all, int fd, struct netaddr peer,
    const struct conn_handler *handler, void *owner)
{
    struct conn *c = new_conn(all, fd, peer, handler, owner);
    conn_enter(c);
    c->state = CONN_OPEN;
    conn_leave(c);
    return c;
}

static void set_options(int fd)
{
    static const int on = 1, user_timeout_ms = USER_TIMEOUT_MS;
    /* A kernel that refuses one of these still delivers mail. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    (void)setsockopt(
        fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof(user_timeout_ms));
}

static bool bind_egress(int fd, struct ipaddr from)
{
    static const int on = 1;
    struct sockaddr_storage sa;
    struct netaddr local = {.ip = from};
    if (from.family == 0)
        return true;
    /* The port is chosen at connect, per destination: bind alone would run out of ports
     * after 28,000 connections to all the world together. */
    (void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
    socklen_t len = netaddr_to_sockaddr(local, &sa);
    return bind(fd, (struct sockaddr *)&sa, len) == 0;
}

/* Returns 0 or an errno; *fd_out is -1 when there is no socket. */
static int start_connect(const struct conn_target *target, int *fd_out)
{
    struct sockaddr_storage sa;
    socklen_t len = netaddr_to_sockaddr(target->to, &sa);
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    *fd_out = fd;
    if (fd < 0)
        return errno;
    set_options(fd);
    if (!bind_egress(fd, target->from))
        return errno;
    if (connect(fd, (struct sockaddr *)&sa, len) == 0 || errno == EINPROGRESS)
        return 0;
    return errno;
}

struct conn *conn_connect(struct conns *all, const struct conn_target *target,
    const struct conn_handler *handler, void *owner)
{
    int fd;
    int error = start_connect(target, &fd);
    struct conn *c = new_conn(all, fd, target->to, handler, owner);
    conn_enter(c);
    c->state = CONN_CONNECTING;
    if (error)
        conn_fail_errno(c, error, false);
    else
        conn_set_timer(c, CONN_TIMER_CONNECT, target->timeout_ms);
    conn_leave(c);
    return c;
}

void conn_set_owner(struct conn *c, const struct conn_handler *handler, void *owner)
{
    c->handler = handler;
    c->owner = owner;
}

void conn_close(struct conn *c)
{
    if (!c)
        return;
    conn_enter(c);
    conn_die(c);
    conn_leave(c);
}

void conn_abort(struct conn *c)
{
    static const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    if (c && c->fd >= 0)
        (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    conn_close(c);
}

void conn_finish(struct conn *c, bool linger)
{
    if (!c)
        return;
    bool open = c->state == CONN_OPEN || c->state == CONN_TLS_WAITING;
    if (!open || c->all->finishing >= FINISHING_MAX) {
        conn_close(c);
        return;
    }
    conn_enter(c);
    if (c->peek)
        conn_end_peek(c, 0);
    if (c->state == CONN_TLS_WAITING)
        conn_tls_free(c); /* still in the clear, and stays so */
    c->state = CONN_FINISHING;
    c->all->finishing++;
    c->handler = NULL;
    c->owner = NULL;
    c->linger = linger && !c->eof;
    conn_set_timer(c, CONN_TIMER_END, FINISH_MS);
    buf_fini(&c->kept);
    conn_send_out(c);
    conn_leave(c);
}

/* The output of a finishing connection is out. */
static void say_goodbye(struct conn *c)
{
    if (c->ssl)
        conn_tls_goodbye(c);
    if (!c->linger) {
        conn_die(c);
        return;
    }
    shutdown(c->fd, SHUT_WR);
    c->state = CONN_LINGERING;
    conn_set_timer(c, CONN_TIMER_END, LINGER_MS);
}

void conn_output_empty(struct conn *c)
{
    if (c->state == CONN_FINISHING) {
        say_goodbye(c);
    } else if (c->state == CONN_TLS_WAITING) {
        c->state = CONN_HANDSHAKE;
        conn_tls_handshake(c);
    } else if (c->half_close && !c->half_closed) {
        c->half_closed = true;
        if (c->ssl)
            conn_tls_goodbye(c);
        shutdown(c->fd, SHUT_WR);
    }
}

void conn_half_close(struct conn *c)
{
    if (c->state != CONN_OPEN || c->half_close)
        return;
    conn_enter(c);
    c->half_close = true;
    conn_send_out(c);
    conn_leave(c);
}

struct netaddr conn_peer(const struct conn *c)
{
    return c->peer;
}

struct netaddr conn_local(const struct conn *c)
{
    struct sockaddr_storage sa;
    socklen_t len = sizeof(sa);
    struct netaddr local = {0};
    if (c->fd >= 0 && getsockname(c->fd, (struct sockaddr *)&sa, &len) == 0)
        (void)netaddr_from_sockaddr((struct sockaddr *)&sa, &local);
    return local;
}

struct loop *conn_loop(const struct conn *c)
{
    return c->all->loop;
}

const char *conn_why(const struct conn *c)
{
    return c->why;
}

uint64_t conn_bytes_in(const struct conn *c)
{
    return c->bytes_in;
}

uint64_t conn_bytes_out(const struct conn *c)
{
    return c->bytes_out;
}

size_t conn_discarded(const struct conn *c)
{
    return c->discarded;
}

const struct tls_info *conn_tls_info(const struct conn *c)
{
    return &c->info;
}
