/* SPDX-License-Identifier: Apache-2.0 */
/* A lane out: one DEALER, its monitor, and how much of ours libzmq holds for it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <zmq.h>

#include "base/alloc.h"
#include "cluster/transport_internal.h"

#define SNDHWM_CONTROL 1000
#define SNDHWM_BULK 64
#define CONTROL_PATIENCE_MS 3000
#define BULK_PATIENCE_MS 30000

/* --- what libzmq holds --- */

/* A large frame on its way out, with the lane it is counted on. */
struct parcel {
    struct queued *queued;
    size_t size;
    unsigned char bytes[];
};

static struct queued *queued_new(void)
{
    struct queued *q = mem_zalloc(sizeof(*q));
    atomic_init(&q->refs, 1);
    return q;
}

static void queued_unref(struct queued *q)
{
    if (atomic_fetch_sub(&q->refs, 1) == 1)
        free(q);
}

/* From a thread of libzmq, when it has no more use for the bytes. */
static void parcel_free(void *data, void *hint)
{
    (void)data;
    struct parcel *parcel = hint;
    struct queued *q = parcel->queued;
    atomic_fetch_sub(&q->bytes, parcel->size);
    free(parcel);
    queued_unref(q);
}

static unsigned char *parcel_make(struct queued *q, size_t size, zmq_msg_t *msg)
{
    if (atomic_load(&q->bytes) + size > LANE_BYTES_MAX)
        return NULL;
    struct parcel *parcel = mem_alloc(sizeof(*parcel) + size);
    parcel->queued = q;
    parcel->size = size;
    atomic_fetch_add(&q->refs, 1);
    atomic_fetch_add(&q->bytes, size);
    if (zmq_msg_init_data(msg, parcel->bytes, size, parcel_free, parcel) != 0)
        die("baton: libzmq: out of memory");
    return parcel->bytes;
}

static unsigned char *small_make(size_t size, zmq_msg_t *msg)
{
    if (zmq_msg_init_size(msg, size) != 0)
        die("baton: libzmq: out of memory");
    return zmq_msg_data(msg);
}

/* --- the connection comes and goes --- */

static void set_connected(struct lane *lane, bool is_connected)
{
    if (lane->is_connected == is_connected)
        return;
    lane->is_connected = is_connected;
    lane->since = mono_now();
    transport_lane_changed(lane);
}

/* The first part of an event is its number and a value, the second an endpoint. */
bool monitor_next(void *monitor, unsigned *event_out, int *value_out)
{
    zmq_msg_t msg;
    bool is_first = true, more = true;
    while (more) {
        zmq_msg_init(&msg);
        if (zmq_msg_recv(&msg, monitor, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&msg);
            return false;
        }
        uint16_t event = 0;
        int32_t value = 0;
        if (is_first && zmq_msg_size(&msg) >= sizeof(event) + sizeof(value)) {
            const unsigned char *data = zmq_msg_data(&msg);
            memcpy(&event, data, sizeof(event));
            memcpy(&value, data + sizeof(event), sizeof(value));
            *event_out = event;
            *value_out = value;
        }
        is_first = false;
        more = zmq_msg_more(&msg) != 0;
        zmq_msg_close(&msg);
    }
    return true;
}

/* Reads until there is no more: the descriptor tells only once. The events are few, a
 * handful for each try to connect. */
static void monitor_ready(struct watcher *w, int what)
{
    (void)what;
    struct lane *lane = CONTAINER_OF(w, struct lane, watch);
    unsigned event = 0;
    int value;
    while (monitor_next(lane->monitor, &event, &value)) {
        /* A connection that was replaced between two looks is two changes, not none. */
        if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
            set_connected(lane, false);
            set_connected(lane, true);
        } else {
            set_connected(lane, false);
        }
    }
}

static bool monitor_open(struct lane *lane)
{
    char name[64];
    snprintf(name, sizeof(name), "inproc://monitor-%llu",
        (unsigned long long)lane->t->next_monitor++);
    int events = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED;
    lane->monitor = zmq_socket(lane->t->zmq, ZMQ_PAIR);
    int fd = -1;
    size_t size = sizeof(fd);
    if (!lane->monitor || zmq_socket_monitor(lane->socket, name, events) != 0)
        return false;
    socket_set_int(lane->monitor, ZMQ_LINGER, 0);
    if (zmq_connect(lane->monitor, name) != 0)
        return false;
    INVARIANT(zmq_getsockopt(lane->monitor, ZMQ_FD, &fd, &size) == 0);
    watcher_init(&lane->watch, lane->t->loop, fd, monitor_ready);
    watcher_set(&lane->watch, WATCH_READ);
    /* The descriptor says nothing before somebody has looked and found nothing. */
    unsigned none;
    int value;
    INVARIANT(!monitor_next(lane->monitor, &none, &value));
    return true;
}

/* Nothing is ever sent to a DEALER: what a hostile peer sends all the same is small, and
 * ends the lane. It must not fill a queue: see the same of the ROUTERs. */
static void limit_input(void *socket)
{
    int64_t max = PARCEL_MIN;
    socket_set_int(socket, ZMQ_RCVHWM, 0);
    INVARIANT(zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &max, sizeof(max)) == 0);
}

/* A dead peer is one whose kernel acknowledges nothing: on the control lane for three
 * seconds, in which we send at least our beats. On the bulk lane a full window on a slow
 * link may take longer; the control lane speaks for it (see transport_lane_changed).
 *
 * Not by ZeroMQ's heartbeats: when a peer goes while what it sent has filled the queue of
 * a socket, libzmq 4.3.4 keeps half of that connection, and then a heartbeat, to be sent
 * on it or found in what it had read, ends the process (`!_io_error`). */
static void set_patience(void *socket, enum transport_lane lane)
{
    socket_set_int(socket, ZMQ_TCP_MAXRT,
        lane == TRANSPORT_BULK ? BULK_PATIENCE_MS : CONTROL_PATIENCE_MS);
}

void socket_set_dealer(void *socket, const struct transport_keys *keys,
    const unsigned char *server_key, struct netaddr address, enum transport_lane which)
{
    socket_set_common(socket, address, which);
    set_patience(socket, which);
    socket_set_curve_client(socket, keys, server_key);
    limit_input(socket);
    socket_set_int(
        socket, ZMQ_SNDHWM, which == TRANSPORT_BULK ? SNDHWM_BULK : SNDHWM_CONTROL);
    /* Without it frames for a dead peer pile up, and stale ones reach it when it is back.
     */
    socket_set_int(socket, ZMQ_IMMEDIATE, 1);
    /* The kernel would try ever more seldom for two minutes: too long after a partition.
     */
    socket_set_int(socket, ZMQ_CONNECT_TIMEOUT, 3000);
    socket_set_int(socket, ZMQ_RECONNECT_IVL, 200);
    socket_set_int(socket, ZMQ_RECONNECT_IVL_MAX, 5000);
}

/* The lane is closed from a turn of the transport's own. */
void lane_look(struct lane *lane)
{
    zmq_msg_t msg;
    zmq_msg_init(&msg);
    if (lane->socket && zmq_msg_recv(&msg, lane->socket, ZMQ_DONTWAIT) >= 0) {
        lane->is_rude = true;
        timer_set(&lane->t->more, loop_now(lane->t->loop));
    }
    zmq_msg_close(&msg);
}

static void input_ready(struct watcher *w, int what)
{
    (void)what;
    lane_look(CONTAINER_OF(w, struct lane, input));
}

static void watch_input(struct lane *lane)
{
    int fd = -1;
    size_t size = sizeof(fd);
    INVARIANT(zmq_getsockopt(lane->socket, ZMQ_FD, &fd, &size) == 0);
    watcher_init(&lane->input, lane->t->loop, fd, input_ready);
    watcher_set(&lane->input, WATCH_READ);
}

void lane_open(struct lane *lane, const struct transport_keys *keys,
    const unsigned char *server_key, struct netaddr address)
{
    char endpoint[96];
    socket_endpoint(address, lane->which, endpoint);
    lane->is_connected = false;
    lane->since = mono_now();
    lane->socket = zmq_socket(lane->t->zmq, ZMQ_DEALER);
    if (!lane->socket)
        return;
    lane->queued = queued_new();
    socket_set_dealer(lane->socket, keys, server_key, address, lane->which);
    if (!monitor_open(lane) || zmq_connect(lane->socket, endpoint) != 0)
        lane_close(lane);
    else
        watch_input(lane);
}

void lane_close(struct lane *lane)
{
    if (!lane->socket)
        return;
    if (lane->watch.ev)
        watcher_fini(&lane->watch);
    lane->watch.ev = NULL;
    if (lane->input.ev)
        watcher_fini(&lane->input);
    lane->input.ev = NULL;
    lane->is_rude = false;
    zmq_socket_monitor(lane->socket, NULL, 0);
    if (lane->monitor)
        zmq_close(lane->monitor);
    zmq_close(lane->socket);
    queued_unref(lane->queued);
    lane->socket = lane->monitor = NULL;
    lane->queued = NULL;
    lane->is_connected = false;
}

/* A send looks for libzmq's news only now and then, and so may miss that there is room
 * again; asking for the events makes it look. */
static bool send_now(struct lane *lane, zmq_msg_t *msg)
{
    if (zmq_msg_send(msg, lane->socket, ZMQ_DONTWAIT) >= 0)
        return true;
    int events = 0;
    size_t size = sizeof(events);
    if (zmq_getsockopt(lane->socket, ZMQ_EVENTS, &events, &size) != 0 ||
        !(events & ZMQ_POLLOUT))
        return false;
    return zmq_msg_send(msg, lane->socket, ZMQ_DONTWAIT) >= 0;
}

static void append(unsigned char **to, struct slice bytes)
{
    if (bytes.len > 0)
        memcpy(*to, bytes.ptr, bytes.len);
    *to += bytes.len;
}

bool lane_send(
    struct lane *lane, struct slice head, struct slice middle, struct slice tail)
{
    size_t size = head.len + middle.len + tail.len;
    zmq_msg_t msg;
    if (!lane->socket || !lane->is_connected)
        return false;
    unsigned char *to = size >= PARCEL_MIN ? parcel_make(lane->queued, size, &msg)
                                           : small_make(size, &msg);
    if (!to)
        return false;
    append(&to, head);
    append(&to, middle);
    append(&to, tail);
    if (send_now(lane, &msg))
        return true;
    zmq_msg_close(&msg);
    return false;
}

void lane_beat(struct lane *lane)
{
    const char type = FRAME_BEAT;
    struct slice none = slice_make("", 0);
    (void)lane_send(lane, slice_make(&type, 1), none, none);
}
