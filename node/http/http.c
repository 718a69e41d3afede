/* SPDX-License-Identifier: Apache-2.0 */
#include "node/http/http.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <unistd.h>

#include "base/alloc.h"
#include "node/http/http_internal.h"

#define REQUEST_MS 10000
#define LISTENERS_MAX 16

struct listening {
    struct watcher watcher;
    struct http *http;
    int fd;
    uint16_t port;
};

enum state {
    READING,  /* until the head of the request is there */
    WRITING,  /* the answer */
    DRAINING, /* our side is shut; what the client still sends is thrown away, for closing
                 with unread bytes would reset the connection and eat the answer */
};

struct conn {
    TAILQ_ENTRY(conn) entry;
    struct http *http;
    struct watcher watcher;
    struct timer deadline;
    enum state state;
    int fd;
    struct buf in, out;
};

struct http {
    struct loop *loop;
    struct http_content content;
    struct listening listening[LISTENERS_MAX];
    unsigned listening_count;
    unsigned conn_count;
    TAILQ_HEAD(, conn) conns;
};

static void accept_more(struct http *h, bool on)
{
    for (unsigned i = 0; i < h->listening_count; i++)
        watcher_set(&h->listening[i].watcher, on ? WATCH_READ : 0);
}

static void conn_close(struct conn *c)
{
    struct http *h = c->http;
    TAILQ_REMOVE(&h->conns, c, entry);
    watcher_fini(&c->watcher);
    timer_fini(&c->deadline);
    close(c->fd);
    buf_fini(&c->in);
    buf_fini(&c->out);
    free(c);
    if (h->conn_count-- == HTTP_CONNECTIONS_MAX)
        accept_more(h, true);
}

static void deadline_passed(struct timer *t)
{
    conn_close(CONTAINER_OF(t, struct conn, deadline));
}

/* The three states return false when the connection is gone. */
static bool write_answer(struct conn *c)
{
    while (buf_len(&c->out)) {
        struct slice s = buf_slice(&c->out);
        ssize_t n = send(c->fd, s.ptr, s.len, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            watcher_set(&c->watcher, WATCH_WRITE);
            return true;
        }
        if (n < 0 && errno != EINTR)
            return false;
        if (n > 0)
            buf_consume(&c->out, (size_t)n);
    }
    shutdown(c->fd, SHUT_WR);
    c->state = DRAINING;
    watcher_set(&c->watcher, WATCH_READ);
    return true;
}

static bool take_request(struct conn *c)
{
    struct slice got = buf_slice(&c->in);
    size_t end = http_request_end(got);
    if (end == 0 && got.len < HTTP_REQUEST_MAX)
        return true;
    http_answer(&c->http->content, slice_head(got, end), &c->out);
    c->state = WRITING;
    return write_answer(c);
}

static bool read_request(struct conn *c)
{
    size_t room = HTTP_REQUEST_MAX - buf_len(&c->in);
    ssize_t n = recv(c->fd, buf_reserve(&c->in, room), room, 0);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0)
        return false;
    buf_commit(&c->in, (size_t)n);
    return take_request(c);
}

static bool drain(struct conn *c)
{
    char waste[4096];
    ssize_t n = recv(c->fd, waste, sizeof(waste), 0);
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static void conn_ready(struct watcher *w, int what)
{
    struct conn *c = CONTAINER_OF(w, struct conn, watcher);
    bool alive = true;
    (void)what;
    switch (c->state) {
    case READING:
        alive = read_request(c);
        break;
    case WRITING:
        alive = write_answer(c);
        break;
    case DRAINING:
        alive = drain(c);
        break;
    }
    if (!alive)
        conn_close(c);
}

static void conn_new(struct http *h, int fd)
{
    struct conn *c = mem_zalloc(sizeof(*c));
    c->http = h;
    c->fd = fd;
    buf_init(&c->in, HTTP_REQUEST_MAX);
    buf_init(&c->out, HTTP_ANSWER_MAX);
    watcher_init(&c->watcher, h->loop, fd, conn_ready);
    timer_init(&c->deadline, h->loop, deadline_passed);
    timer_set(&c->deadline, mono_add_ms(mono_now(), REQUEST_MS));
    watcher_set(&c->watcher, WATCH_READ);
    TAILQ_INSERT_TAIL(&h->conns, c, entry);
    if (++h->conn_count == HTTP_CONNECTIONS_MAX)
        accept_more(h, false);
}

static void listening_ready(struct watcher *w, int what)
{
    struct listening *l = CONTAINER_OF(w, struct listening, watcher);
    (void)what;
    while (l->http->conn_count < HTTP_CONNECTIONS_MAX) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        conn_new(l->http, fd);
    }
}

static bool fail(char *why, size_t why_size, struct netaddr at, const char *what)
{
    char text[NETADDR_TEXT_MAX];
    netaddr_format(at, text);
    snprintf(why, why_size, "api.listen: cannot %s %s: %s%s", what, text, strerror(errno),
        errno == EADDRINUSE ? " (another daemon? see ss -ltnp)" : "");
    return false;
}

static bool open_one(struct http *h, struct netaddr at, char *why, size_t why_size)
{
    struct sockaddr_storage sa;
    socklen_t len = netaddr_to_sockaddr(at, &sa);
    struct listening *l = &h->listening[h->listening_count];
    int one = 1;
    l->fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (l->fd < 0)
        return fail(why, why_size, at, "make a socket for");
    setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (sa.ss_family == AF_INET6)
        setsockopt(l->fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    if (bind(l->fd, (struct sockaddr *)&sa, len) != 0 || listen(l->fd, 64) != 0) {
        fail(why, why_size, at, "listen on");
        close(l->fd);
        return false;
    }
    len = sizeof(sa);
    if (getsockname(l->fd, (struct sockaddr *)&sa, &len) == 0 &&
        netaddr_from_sockaddr((struct sockaddr *)&sa, &at))
        l->port = at.port;
    l->http = h;
    watcher_init(&l->watcher, h->loop, l->fd, listening_ready);
    watcher_set(&l->watcher, WATCH_READ);
    h->listening_count++;
    return true;
}

struct http *http_new(struct loop *loop, const struct netaddr *listen, unsigned count,
    char *why, size_t why_size)
{
    struct http *h = mem_zalloc(sizeof(*h));
    h->loop = loop;
    TAILQ_INIT(&h->conns);
    for (unsigned i = 0; i < count; i++) {
        bool fits = i < LISTENERS_MAX;
        if (!fits)
            snprintf(why, why_size, "api.listen: more than %d addresses", LISTENERS_MAX);
        if (!fits || !open_one(h, listen[i], why, why_size)) {
            http_free(h);
            return NULL;
        }
    }
    return h;
}

void http_free(struct http *h)
{
    if (!h)
        return;
    while (!TAILQ_EMPTY(&h->conns))
        conn_close(TAILQ_FIRST(&h->conns));
    for (unsigned i = 0; i < h->listening_count; i++) {
        watcher_fini(&h->listening[i].watcher);
        close(h->listening[i].fd);
    }
    free(h);
}

void http_add_check(struct http *h, enum http_probe probe, const char *name,
    http_check_fn *check, void *ctx)
{
    INVARIANT(h->content.check_count < HTTP_CHECKS_MAX);
    h->content.checks[h->content.check_count++] =
        (struct http_check){probe, name, check, ctx};
}

void http_add_metrics(struct http *h, http_metrics_fn *render, void *ctx)
{
    unsigned at = h->content.metrics_count++;
    INVARIANT(at < HTTP_CHECKS_MAX);
    h->content.metrics[at].render = render;
    h->content.metrics[at].ctx = ctx;
}

uint16_t http_port(const struct http *h, unsigned index)
{
    INVARIANT(index < h->listening_count);
    return h->listening[index].port;
}
