/* SPDX-License-Identifier: Apache-2.0 */
/* What libzmq does not bound: connections of those who have not proved a key, and a
 * message of endless parts, which it gathers before anybody sees it; and messages that
 * come faster than we take them, for it must never have to wait for us (transport_bind.c
 * says why). The monitors of the ROUTERs say which connections there are; the kernel says
 * of each how much has come and how much of ours was taken (TCP_INFO). A connection is
 * ended by shutting it down: libzmq finds that its peer has gone. */
#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <zmq.h>

#include "base/alloc.h"
#include "cluster/transport_internal.h"

#define LOOK_MS 250
/* What we send before a key is proved: the greeting (64) and WELCOME (170). Nobody can
 * acknowledge more, who has not been sent READY. */
#define UNPROVED_BYTES 240
#define STRANGERS_MAX 256
#define CONNECTIONS_MAX 2048
/* Bytes that came and of which no message was made: what the kernel buffers, and a frame.
 */
#define HELD_MAX (16u << 20)
#define HELD_ALL_MAX (64u << 20)
#define QUIET_LOOKS 2
/* Bytes of messages that wait for us: a flood when they still do some looks later, for we
 * may have been held up ourselves. Small messages take five times that in memory. */
#define BACKLOG_MAX (32u << 20)
#define BACKLOG_ALL_MAX (256u << 20)
#define FLOOD_LOOKS 3
/* What CURVE and ZMTP add to a message, at least. */
#define MESSAGE_BYTES 35
#define EVENTS_MAX 100000

struct connection {
    TAILQ_ENTRY(connection) entry;
    int fd;
    bool is_known; /* has proved a key */
    bool has_spoken;
    enum transport_lane lane;
    struct netaddr from;
    uint64_t base;  /* bytes that had come when a message was last seen */
    uint64_t held;  /* and since then */
    unsigned quiet; /* looks without a message */
    uint64_t empty; /* bytes that had come when nothing waited for us */
    uint64_t taken; /* by us since then */
    uint64_t waiting;
    unsigned over; /* looks with too much of it */
};
TAILQ_HEAD(connections, connection);

struct monitor {
    struct guard *guard;
    void *socket;
    struct watcher watch;
};

struct guard {
    struct transport *t;
    struct monitor monitors[TRANSPORT_LANES];
    struct timer timer;
    struct connections strangers, known; /* oldest first */
    unsigned stranger_count, count;
    bool was_empty[TRANSPORT_LANES]; /* since the last look: nothing waited for us */
    struct connection **by_fd;
    int fds;
    uint64_t cut;
    struct netaddr cut_from;
};

static struct connection *find(const struct guard *g, int fd)
{
    return fd >= 0 && fd < g->fds ? g->by_fd[fd] : NULL;
}

static void forget(struct guard *g, struct connection *c)
{
    if (c->is_known)
        TAILQ_REMOVE(&g->known, c, entry);
    else
        TAILQ_REMOVE(&g->strangers, c, entry);
    g->stranger_count -= !c->is_known;
    g->count--;
    g->by_fd[c->fd] = NULL;
    free(c);
}

static bool ends(int fd, struct netaddr *here, struct netaddr *there)
{
    struct sockaddr_storage sa;
    socklen_t len = sizeof(sa);
    if (getsockname(fd, (struct sockaddr *)&sa, &len) != 0 ||
        !netaddr_from_sockaddr((struct sockaddr *)&sa, here))
        return false;
    len = sizeof(sa);
    return getpeername(fd, (struct sockaddr *)&sa, &len) == 0 &&
           netaddr_from_sockaddr((struct sockaddr *)&sa, there);
}

/* The descriptor is libzmq's, which may have closed it a moment ago, and somebody may
 * have been given its number: it is touched only while both its ends are the right ones.
 */
static bool is_still(const struct guard *g, const struct connection *c)
{
    struct netaddr here, there;
    uint16_t port = g->t->address.port;
    return ends(c->fd, &here, &there) && (here.port == port || here.port == port + 1) &&
           there.port == c->from.port && ipaddr_eq(there.ip, c->from.ip);
}

static void cut(struct guard *g, struct connection *c)
{
    if (is_still(g, c)) {
        shutdown(c->fd, SHUT_RDWR);
        g->cut++;
        g->cut_from = c->from;
    }
    forget(g, c);
}

static bool look(const struct connection *c, uint64_t *received, uint64_t *taken)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);
    memset(&info, 0, sizeof(info));
    if (getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
        return false;
    *received = info.tcpi_bytes_received;
    *taken = info.tcpi_bytes_acked;
    return true;
}

/* --- strangers --- */

static void become_known(struct guard *g, struct connection *c)
{
    TAILQ_REMOVE(&g->strangers, c, entry);
    g->stranger_count--;
    c->is_known = true;
    TAILQ_INSERT_TAIL(&g->known, c, entry);
}

static bool has_proved(const struct connection *c)
{
    uint64_t received, taken = 0;
    return look(c, &received, &taken) && taken > UNPROVED_BYTES;
}

/* The oldest go first: who has a key needs milliseconds to prove it. */
static void limit_strangers(struct guard *g)
{
    while (g->stranger_count > STRANGERS_MAX) {
        struct connection *oldest = TAILQ_FIRST(&g->strangers);
        if (has_proved(oldest))
            become_known(g, oldest);
        else
            cut(g, oldest);
    }
}

static void make_room(struct guard *g, int fd)
{
    int fds = g->fds ? g->fds : 1024;
    while (fds <= fd)
        fds *= 2;
    if (fds == g->fds)
        return;
    g->by_fd = mem_realloc(g->by_fd, (size_t)fds * sizeof(struct connection *));
    for (int i = g->fds; i < fds; i++)
        g->by_fd[i] = NULL;
    g->fds = fds;
}

static void accepted(struct guard *g, enum transport_lane lane, int fd)
{
    struct netaddr here;
    struct connection *c = find(g, fd);
    if (c)
        forget(g, c); /* its end is not told yet */
    if (fd < 0)
        return;
    make_room(g, fd);
    c = mem_zalloc(sizeof(*c));
    c->fd = fd;
    c->lane = lane;
    if (!ends(fd, &here, &c->from)) {
        free(c); /* gone again */
        return;
    }
    g->by_fd[fd] = c;
    TAILQ_INSERT_TAIL(&g->strangers, c, entry);
    g->stranger_count++;
    if (++g->count > CONNECTIONS_MAX)
        cut(g, c);
    limit_strangers(g);
}

/* --- messages that never end, or come too fast --- */

void guard_heard(const struct transport *t, int fd, size_t bytes)
{
    struct connection *c = find(t->guard, fd);
    if (!c)
        return;
    c->has_spoken = true;
    c->taken += bytes + MESSAGE_BYTES;
}

void guard_drained(const struct transport *t, enum transport_lane lane)
{
    t->guard->was_empty[lane] = true;
}

/* Of one connection messages come in order: while one is gathered, none is seen. */
static void measure(struct guard *g, struct connection *c)
{
    uint64_t came, unused;
    if (!look(c, &came, &unused))
        return;
    if (c->has_spoken || came < c->base) {
        c->base = came;
        c->quiet = 0;
    }
    c->has_spoken = false;
    c->held = ++c->quiet > QUIET_LOOKS ? came - c->base : 0;
    if (g->was_empty[c->lane] || came < c->empty) {
        c->empty = came;
        c->taken = 0;
    }
    c->waiting = came - c->empty > c->taken ? came - c->empty - c->taken : 0;
    c->over = c->waiting > BACKLOG_MAX ? c->over + 1 : 0;
}

static void limit_each(struct guard *g)
{
    struct connection *c, *next;
    for (c = TAILQ_FIRST(&g->known); c; c = next) {
        next = TAILQ_NEXT(c, entry);
        measure(g, c);
        if (c->held > HELD_MAX || c->over >= FLOOD_LOOKS)
            cut(g, c);
    }
}

/* The largest go until what is left fits. */
static void limit_all(struct guard *g)
{
    for (;;) {
        struct connection *c, *most = NULL;
        uint64_t held = 0, waiting = 0;
        TAILQ_FOREACH (c, &g->known, entry) {
            held += c->held;
            waiting += c->waiting;
            if (!most || c->held + c->waiting > most->held + most->waiting)
                most = c;
        }
        if (held <= HELD_ALL_MAX && waiting <= BACKLOG_ALL_MAX)
            return;
        cut(g, most);
    }
}

static void look_at_all(struct timer *timer)
{
    struct guard *g = CONTAINER_OF(timer, struct guard, timer);
    struct connection *c, *next;
    for (c = TAILQ_FIRST(&g->strangers); c; c = next) {
        next = TAILQ_NEXT(c, entry);
        if (has_proved(c))
            become_known(g, c);
    }
    limit_each(g);
    limit_all(g);
    memset(g->was_empty, 0, sizeof(g->was_empty));
    timer_set(timer, mono_add_ms(mono_now(), LOOK_MS));
}

/* --- lanes on which something came --- */

/* Whoever sends on a lane that is ours alone is not what it seems. The lane is tried
 * again after some seconds. */
static void close_rude(struct transport *t, struct lane *lane, struct netaddr from)
{
    if (!lane->is_rude)
        return;
    bool was_up = lane->is_connected;
    t->stats.refused_frames++;
    t->refused_from = from;
    lane_close(lane);
    lane->since = mono_now();
    if (was_up)
        transport_lane_changed(lane);
}

void guard_close_rude(struct transport *t)
{
    for (unsigned i = 0; i < PEERS_MAX; i++)
        for (unsigned j = 0; j < TRANSPORT_LANES; j++)
            close_rude(t, &t->peers[i].lanes[j], t->peers[i].address);
    close_rude(t, &t->guest_out.lane, t->guest_out.host.address);
}

/* --- the monitors --- */

static void read_monitor(struct guard *g, enum transport_lane lane)
{
    unsigned event = 0;
    int fd = -1;
    while (monitor_next(g->monitors[lane].socket, &event, &fd)) {
        struct connection *c = find(g, fd);
        if (event == ZMQ_EVENT_ACCEPTED)
            accepted(g, lane, fd);
        else if (c && !is_still(g, c))
            forget(g, c);
    }
}

static void monitor_ready(struct watcher *w, int what)
{
    struct monitor *m = CONTAINER_OF(w, struct monitor, watch);
    (void)what;
    read_monitor(m->guard, (enum transport_lane)(m - m->guard->monitors));
}

static bool monitor_open(struct guard *g, struct router *r)
{
    struct monitor *m = &g->monitors[r->which];
    char name[64];
    int fd = -1;
    size_t size = sizeof(fd);
    m->guard = g;
    snprintf(name, sizeof(name), "inproc://guard-%llu",
        (unsigned long long)g->t->next_monitor++);
    m->socket = zmq_socket(g->t->zmq, ZMQ_PAIR);
    if (!m->socket || zmq_socket_monitor(r->socket, name,
                          ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED) != 0)
        return false;
    socket_set_int(m->socket, ZMQ_LINGER, 0);
    /* libzmq's own thread waits when nobody takes its events. */
    socket_set_int(m->socket, ZMQ_RCVHWM, EVENTS_MAX);
    if (zmq_connect(m->socket, name) != 0)
        return false;
    INVARIANT(zmq_getsockopt(m->socket, ZMQ_FD, &fd, &size) == 0);
    watcher_init(&m->watch, g->t->loop, fd, monitor_ready);
    watcher_set(&m->watch, WATCH_READ);
    return true;
}

bool guard_start(struct transport *t, char *why, size_t why_size)
{
    struct guard *g = mem_zalloc(sizeof(*g));
    t->guard = g;
    g->t = t;
    TAILQ_INIT(&g->strangers);
    TAILQ_INIT(&g->known);
    timer_init(&g->timer, t->loop, look_at_all);
    timer_set(&g->timer, mono_add_ms(mono_now(), LOOK_MS));
    for (unsigned i = 0; i < TRANSPORT_LANES; i++) {
        if (!monitor_open(g, &t->routers[i])) {
            snprintf(why, why_size, "the listener cannot be watched: %s",
                zmq_strerror(zmq_errno()));
            return false;
        }
    }
    /* The descriptors say nothing before somebody has looked and found nothing. */
    for (unsigned i = 0; i < TRANSPORT_LANES; i++)
        read_monitor(g, (enum transport_lane)i);
    return true;
}

void guard_stop(struct transport *t)
{
    struct guard *g = t->guard;
    if (!g)
        return;
    timer_fini(&g->timer);
    for (unsigned i = 0; i < TRANSPORT_LANES; i++) {
        struct monitor *m = &g->monitors[i];
        if (m->watch.ev)
            watcher_fini(&m->watch);
        if (m->socket) {
            zmq_socket_monitor(t->routers[i].socket, NULL, 0);
            zmq_close(m->socket);
        }
    }
    while (!TAILQ_EMPTY(&g->strangers))
        forget(g, TAILQ_FIRST(&g->strangers));
    while (!TAILQ_EMPTY(&g->known))
        forget(g, TAILQ_FIRST(&g->known));
    free(g->by_fd);
    free(g);
    t->guard = NULL;
}

uint64_t guard_cut(const struct transport *t, char last_address[NETADDR_TEXT_MAX])
{
    last_address[0] = '\0';
    if (t->guard->cut)
        netaddr_format(t->guard->cut_from, last_address);
    return t->guard->cut;
}
