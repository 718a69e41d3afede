/* SPDX-License-Identifier: Apache-2.0 */
/* Is this peer at that address? A connection of its own to the control port there, which
 * comes about only where somebody holds the peer's secret key and knows ours; then it is
 * closed. The peer's lanes stay where they are, and nothing is sent. */
#include <stdio.h>
#include <zmq.h>

#include "base/alloc.h"
#include "cluster/transport_internal.h"

#define SCOUT_MS 3000

/* Told from a turn of our own: this is called while its monitor is read. */
static void decide(struct scout *s, enum scout_state state)
{
    if (s->state != SCOUT_OUT)
        return;
    s->state = state;
    timer_set(&s->t->more, loop_now(s->t->loop));
}

/* Only a handshake that comes to its end proves the key. Everything else is the end of a
 * try: refused, closed because the key is not that of whoever listens there. */
static void monitor_ready(struct watcher *w, int what)
{
    (void)what;
    struct scout *s = CONTAINER_OF(w, struct scout, watch);
    unsigned event = 0;
    int value;
    while (monitor_next(s->monitor, &event, &value))
        decide(s, event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED ? SCOUT_FOUND : SCOUT_FAILED);
}

static bool watch(struct scout *s)
{
    char name[64];
    int fd = -1, value;
    size_t size = sizeof(fd);
    unsigned event;
    snprintf(name, sizeof(name), "inproc://scout-%llu",
        (unsigned long long)s->t->next_monitor++);
    s->monitor = zmq_socket(s->t->zmq, ZMQ_PAIR);
    if (!s->monitor ||
        zmq_socket_monitor(s->socket, name,
            ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |
                ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED) != 0)
        return false;
    socket_set_int(s->monitor, ZMQ_LINGER, 0);
    if (zmq_connect(s->monitor, name) != 0)
        return false;
    INVARIANT(zmq_getsockopt(s->monitor, ZMQ_FD, &fd, &size) == 0);
    watcher_init(&s->watch, s->t->loop, fd, monitor_ready);
    watcher_set(&s->watch, WATCH_READ);
    /* The descriptor says nothing before somebody has looked and found nothing. */
    INVARIANT(!monitor_next(s->monitor, &event, &value));
    return true;
}

static void scout_close(struct scout *s)
{
    if (s->watch.ev)
        watcher_fini(&s->watch);
    s->watch.ev = NULL;
    if (s->socket)
        zmq_socket_monitor(s->socket, NULL, 0);
    if (s->monitor)
        zmq_close(s->monitor);
    if (s->socket)
        zmq_close(s->socket);
    s->socket = s->monitor = NULL;
    s->state = SCOUT_NONE;
}

static bool scout_open(struct scout *s)
{
    char endpoint[96];
    s->socket = zmq_socket(s->t->zmq, ZMQ_DEALER);
    if (!s->socket)
        return false;
    socket_set_dealer(s->socket, &s->t->keys, s->key, s->address, TRANSPORT_CONTROL);
    socket_set_int(s->socket, ZMQ_HANDSHAKE_IVL, SCOUT_MS);
    socket_set_int(s->socket, ZMQ_RECONNECT_IVL, -1);
    socket_endpoint(s->address, TRANSPORT_CONTROL, endpoint);
    return watch(s) && zmq_connect(s->socket, endpoint) == 0;
}

bool transport_scout(struct transport *t, uint64_t node, struct netaddr address)
{
    const struct peer *p = transport_find(t, node);
    struct scout *s = t->scouts;
    while (s < t->scouts + SCOUTS_MAX && s->state != SCOUT_NONE)
        s++;
    if (!p || s == t->scouts + SCOUTS_MAX || address.port == 0 ||
        address.port == UINT16_MAX)
        return false;
    *s = (struct scout){.t = t,
        .state = SCOUT_OUT,
        .node = node,
        .address = address,
        .until = mono_add_ms(mono_now(), SCOUT_MS)};
    memcpy(s->key, p->key, sizeof(s->key));
    if (scout_open(s))
        return true;
    scout_close(s);
    return false;
}

/* The peer may have gone meanwhile, or have another key. */
static void tell(struct transport *t, struct scout *s)
{
    struct scout end = *s;
    scout_close(s);
    const struct peer *p = transport_find(t, end.node);
    if (p && memcmp(p->key, end.key, sizeof(end.key)) == 0)
        t->events->scouted(t->ctx, end.node, end.address, end.state == SCOUT_FOUND);
}

void scouts_tell(struct transport *t)
{
    struct mono now = mono_now();
    for (unsigned i = 0; i < SCOUTS_MAX; i++) {
        struct scout *s = &t->scouts[i];
        if (s->state == SCOUT_OUT && now.ns >= s->until.ns)
            s->state = SCOUT_FAILED;
        if (s->state == SCOUT_FOUND || s->state == SCOUT_FAILED)
            tell(t, s);
    }
}

void scouts_close(struct transport *t)
{
    for (unsigned i = 0; i < SCOUTS_MAX; i++)
        if (t->scouts[i].state != SCOUT_NONE)
            scout_close(&t->scouts[i]);
}
