/* SPDX-License-Identifier: Apache-2.0 */
#include "node/net/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"

#define BACKLOG 1024
/* Connections taken in a row before those that are open get their turn. */
#define BATCH 32
/* Without descriptors, say so this often and no oftener. */
#define COMPLAIN_MS 10000

struct acceptor {
    struct watcher watcher;
    int fd;
    int reserve; /* given up for a moment when there is no descriptor left */
    struct mono complained;
    acceptor_fn *accepted;
    void *ctx;
};

static bool set(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof(value)) == 0;
}

static int bind_one(struct netaddr at, bool reuse_port)
{
    struct sockaddr_storage sa;
    socklen_t len = netaddr_to_sockaddr(at, &sa);
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    bool ready = set(fd, SOL_SOCKET, SO_REUSEADDR, 1) &&
                 (at.ip.family == 4 || set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1)) &&
                 (!reuse_port || set(fd, SOL_SOCKET, SO_REUSEPORT, 1)) &&
                 bind(fd, (struct sockaddr *)&sa, len) == 0;
    if (ready)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static struct netaddr bound_to(int fd, struct netaddr asked)
{
    struct sockaddr_storage sa;
    socklen_t len = sizeof(sa);
    struct netaddr at = asked;
    if (getsockname(fd, (struct sockaddr *)&sa, &len) == 0)
        (void)netaddr_from_sockaddr((struct sockaddr *)&sa, &at);
    return at;
}

static int listen_one(struct netaddr at)
{
    int fd = bind_one(at, true);
    if (fd < 0)
        return -1;
    (void)set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    (void)set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    if (listen(fd, BACKLOG) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static enum err explain(struct netaddr at, int error, char *why, size_t why_size)
{
    char text[NETADDR_TEXT_MAX], said[100];
    netaddr_format(at, text);
    switch (error) {
    case EADDRINUSE:
        snprintf(why, why_size,
            "cannot listen on %s: already in use by another process; see which: "
            "ss -ltnp 'sport = :%u'",
            text, at.port);
        break;
    case EACCES:
    case EPERM:
        snprintf(why, why_size,
            "cannot listen on %s: not allowed; a port below 1024 needs "
            "CAP_NET_BIND_SERVICE (AmbientCapabilities= in the systemd unit)",
            text);
        break;
    case EADDRNOTAVAIL:
        snprintf(why, why_size,
            "cannot listen on %s: no interface of this machine has that address; see "
            "them: ip address",
            text);
        break;
    case EAFNOSUPPORT:
        snprintf(why, why_size,
            "cannot listen on %s: this machine has no %s; leave the address out", text,
            at.ip.family == 6 ? "IPv6" : "IPv4");
        break;
    default:
        snprintf(why, why_size, "cannot listen on %s: %s", text,
            strerror_r(error, said, sizeof(said)));
    }
    return ERR_IO;
}

enum err listen_open(struct netaddr at, unsigned count, int *fds_out,
    struct netaddr *bound_out, char *why, size_t why_size)
{
    int probe = bind_one(at, false);
    if (probe < 0)
        return explain(at, errno, why, why_size);
    *bound_out = bound_to(probe, at);
    close(probe);
    for (unsigned i = 0; i < count; i++) {
        fds_out[i] = listen_one(*bound_out);
        if (fds_out[i] >= 0)
            continue;
        int error = errno;
        while (i > 0)
            close(fds_out[--i]);
        return explain(at, error, why, why_size);
    }
    return ERR_OK;
}

static int open_reserve(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* No descriptor is left. Without this the connection would stay in the queue, the socket
 * readable, and the loop spinning. */
static void turn_away(struct acceptor *a)
{
    static const char sorry[] = "421 4.3.2 too busy, try again later\r\n";
    struct mono now = loop_now(a->watcher.loop);
    if (a->reserve >= 0)
        close(a->reserve);
    int fd = accept4(a->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        (void)send(fd, sorry, sizeof(sorry) - 1, MSG_NOSIGNAL);
        close(fd);
    }
    a->reserve = open_reserve();
    if (a->complained.ns && mono_diff_ms(now, a->complained) < COMPLAIN_MS)
        return;
    a->complained = now;
    log_say(LOG_EV_OVERLOAD,
        "no file descriptor left for a client: raise LimitNOFILE= of "
        "the service, or lower limits.connections");
}

/* False when the queue is empty or nothing more can be done now. */
static bool accept_one(struct acceptor *a)
{
    struct sockaddr_storage sa;
    socklen_t len = sizeof(sa);
    int fd = accept4(a->fd, (struct sockaddr *)&sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS)) {
        turn_away(a);
        return false;
    }
    if (fd < 0) /* a client that has gone again is no reason to stop */
        return errno == ECONNABORTED || errno == EINTR || errno == EPROTO;
    struct netaddr peer = {0};
    if (netaddr_from_sockaddr((struct sockaddr *)&sa, &peer))
        a->accepted(fd, peer, a->ctx);
    else
        close(fd);
    return true;
}

static void ready(struct watcher *w, int what)
{
    struct acceptor *a = CONTAINER_OF(w, struct acceptor, watcher);
    (void)what;
    for (int i = 0; i < BATCH && accept_one(a); i++) {
    }
}

struct acceptor *acceptor_new(struct loop *loop, int fd, acceptor_fn *accepted, void *ctx)
{
    struct acceptor *a = mem_zalloc(sizeof(*a));
    a->fd = fd;
    a->reserve = open_reserve();
    a->accepted = accepted;
    a->ctx = ctx;
    watcher_init(&a->watcher, loop, fd, ready);
    watcher_set(&a->watcher, WATCH_READ);
    return a;
}

void acceptor_drain(struct acceptor *a)
{
    if (!a)
        return;
    for (int i = 0; i < BACKLOG && accept_one(a); i++) {
    }
    acceptor_free(a);
}

void acceptor_free(struct acceptor *a)
{
    if (!a)
        return;
    watcher_fini(&a->watcher);
    close(a->fd);
    if (a->reserve >= 0)
        close(a->reserve);
    free(a);
}
