/* SPDX-License-Identifier: Apache-2.0 */
/* Memory stays bounded whatever the other end does: credit on bulk, full lanes. */
#include "tests/unit/transport_world.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cluster/transport_internal.h"

#define WINDOW (64u << 10)
#define PIECE (16u << 10)

static struct world w;
static struct node *a, *b;
static char piece[1u << 20];

static int setup(void **state)
{
    (void)state;
    world_init(&w, "127.0.0.1");
    w.window = WINDOW;
    node_start(&w, 0);
    node_start(&w, 1);
    a = &w.nodes[0];
    b = &w.nodes[1];
    b->consumes = false;
    world_meet(&w, 2);
    UNTIL(&w, transport_room(a->t, b->id) == WINDOW && is_connected(b, 1));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_fini(&w);
    return 0;
}

static bool send_piece(void)
{
    return transport_send(a->t, b->id, TRANSPORT_BULK, slice_make(piece, PIECE - 100),
        slice_make(piece, 100));
}

static unsigned send_all(void)
{
    unsigned count = 0;
    while (send_piece())
        count++;
    return count;
}

/* The window and not a byte more; control goes on; what is consumed comes back. */
static void test_window(void **state)
{
    (void)state;
    assert_int_equal(send_all(), 4);
    assert_int_equal(transport_room(a->t, b->id), 0);
    assert_false(node_send(a, b, TRANSPORT_BULK, "x"));
    UNTIL(&w, b->frames[TRANSPORT_BULK] == 4);
    assert_int_equal(b->bytes[TRANSPORT_BULK], WINDOW);
    assert_true(node_send(a, b, TRANSPORT_CONTROL, "past it"));
    UNTIL(&w, b->frames[TRANSPORT_CONTROL] == 1);
    struct mono later = mono_add_ms(mono_now(), 2500); /* asking does not help */
    UNTIL(&w, mono_now().ns > later.ns);
    assert_int_equal(transport_room(a->t, b->id), 0);
    transport_consumed(b->t, a->id, PIECE);
    UNTIL(&w, transport_room(a->t, b->id) == PIECE);
    assert_int_equal(send_all(), 1);
    UNTIL(&w, b->frames[TRANSPORT_BULK] == 5);
    for (unsigned i = 0; i < 4 * PIECE; i++) /* byte by byte: told when it is worth it */
        transport_consumed(b->t, a->id, 1);
    UNTIL(&w, transport_room(a->t, b->id) == WINDOW);
    assert_true(stats_of(b).refused_frames == 0 && stats_of(a).refused_frames == 0);
    transport_consumed(b->t, 12345, 1); /* a stranger's: nothing */
}

/* A stream of pieces through a small window, with a receiver that takes them at once. */
static void test_stream(void **state)
{
    (void)state;
    unsigned sent = 0;
    b->consumes = true;
    while (sent < 500) {
        sent += send_all();
        world_step(&w);
    }
    UNTIL(&w, b->frames[TRANSPORT_BULK] == sent);
    assert_int_equal(b->bytes[TRANSPORT_BULK], (uint64_t)sent * PIECE);
    UNTIL(&w, transport_room(a->t, b->id) == WINDOW);
}

/* The sender restarts while the receiver holds a full window: no new one is given. */
static void test_sender_restarts(void **state)
{
    (void)state;
    assert_int_equal(send_all(), 4);
    UNTIL(&w, b->frames[TRANSPORT_BULK] == 4);
    node_stop(a);
    node_start(&w, 0);
    assert_true(node_knows(a, b));
    UNTIL(&w, is_connected(a, 1) && is_connected(b, 1) &&
                  b->t->peers[0].in.id.instance == a->t->instance);
    struct mono later = mono_add_ms(mono_now(), 1500);
    UNTIL(&w, mono_now().ns > later.ns);
    assert_int_equal(transport_room(a->t, b->id), 0);
    transport_consumed(b->t, a->id, 2 * PIECE);
    UNTIL(&w, transport_room(a->t, b->id) == 2 * PIECE);
    transport_consumed(b->t, a->id, 2 * PIECE);
    UNTIL(&w, transport_room(a->t, b->id) == WINDOW);
}

/* The bulk lane reconnects again and again with frames under way: nothing leaks. */
static void test_reconnects(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        send_all();
        struct transport_peer moved = {.node = b->id, .address = b->address};
        memcpy(moved.key, b->keys.public_key, TRANSPORT_KEY_BYTES);
        moved.address.port = 0;
        assert_true(transport_set_peer(a->t, &moved)); /* drops what is under way */
        assert_int_equal(transport_room(a->t, b->id), 0);
        assert_true(node_knows(a, b));
        UNTIL(&w, is_connected(a, 1) && b->t->peers[0].in.id.number == a->t->next_stream);
        world_step(&w);
        transport_consumed(b->t, a->id, b->t->peers[0].in.held);
        UNTIL(&w, transport_room(a->t, b->id) == WINDOW);
    }
    assert_int_equal(b->t->peers[0].in.held, 0);
}

/* A peer by hand that ignores its credit: refused beyond it, and nothing is held. */
static void test_overrun(void **state)
{
    (void)state;
    struct transport_keys keys;
    struct transport_peer peer = {.node = 99};
    struct raw control, bulk;
    unsigned char open[OPEN_BYTES] = {FRAME_OPEN}, data[HEAD_BULK + PIECE] = {FRAME_DATA};
    transport_keys_make(&keys);
    memcpy(peer.key, keys.public_key, TRANSPORT_KEY_BYTES);
    assert_true(transport_set_peer(b->t, &peer));
    raw_open(&control, &keys, b, TRANSPORT_CONTROL);
    raw_open(&bulk, &keys, b, TRANSPORT_BULK);
    put_u64(open + 1, 5);
    put_u64(open + 9, 1);
    UNTIL(&w, raw_send(&control, open, sizeof(open), 0));
    UNTIL(&w, b->t->peers[1].in.id.instance == 5);
    put_u64(data + 1, 5);
    put_u64(data + 9, 1);
    for (uint64_t i = 0; i < 20; i++) {
        put_u64(data + 17, i * PIECE);
        UNTIL(&w, raw_send(&bulk, data, sizeof(data), 0));
    }
    UNTIL(&w, b->frames[1] + stats_of(b).refused_frames == 20);
    assert_int_equal(b->frames[1], 4);
    assert_int_equal(b->bytes[1], WINDOW);
    put_u64(data + 17, 0); /* and the same bytes once more */
    assert_true(raw_send(&bulk, data, sizeof(data), 0));
    put_u64(data + 17, UINT64_MAX);
    assert_true(raw_send(&bulk, data, sizeof(data), 0));
    UNTIL(&w, stats_of(b).refused_frames == 18);
    assert_int_equal(b->frames[1], 4);
    raw_close(&control);
    raw_close(&bulk);
}

/* All peers together stay under the common bound, and nobody starves when one is freed.
 */
static void test_common_bound(void **state)
{
    (void)state;
    w.window_all = WINDOW + WINDOW / 2;
    node_start(&w, 2);
    node_start(&w, 3);
    struct node *c = &w.nodes[2], *d = &w.nodes[3];
    c->consumes = d->consumes = false;
    assert_true(node_knows(c, a) && node_knows(a, c));
    UNTIL(&w, transport_room(a->t, c->id) == WINDOW); /* alone it has a full one */
    for (unsigned i = 0; i < 4; i++)
        assert_true(transport_send(
            a->t, c->id, TRANSPORT_BULK, slice_make(piece, PIECE), slice_make("", 0)));
    UNTIL(&w, c->frames[TRANSPORT_BULK] == 4);
    assert_true(
        node_knows(c, b) && node_knows(b, c) && node_knows(c, d) && node_knows(d, c));
    UNTIL(&w, transport_room(b->t, c->id) + transport_room(d->t, c->id) == WINDOW / 2);
    transport_consumed(c->t, a->id, WINDOW);
    UNTIL(&w, transport_room(a->t, c->id) == WINDOW / 2 &&
                  transport_room(b->t, c->id) == WINDOW / 2 &&
                  transport_room(d->t, c->id) == WINDOW / 2);
}

/* A CURVE server that accepts anybody and never reads. */
static void *deaf_server(void *zmq, const struct transport_keys *keys, struct netaddr at)
{
    char endpoint[96];
    int one = 1;
    void *socket = zmq_socket(zmq, ZMQ_ROUTER);
    zmq_setsockopt(socket, ZMQ_RCVHWM, &one, sizeof(one));
    zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &one, sizeof(one));
    zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, keys->secret_key, TRANSPORT_KEY_BYTES);
    socket_endpoint(at, TRANSPORT_CONTROL, endpoint);
    assert_int_equal(zmq_bind(socket, endpoint), 0);
    return socket;
}

/* Sends until the lane is full, a step of the loop between; the most that libzmq held. */
static size_t fill(uint64_t node, size_t size, unsigned *sent)
{
    struct lane *lane = &a->t->peers[1].lanes[TRANSPORT_CONTROL];
    size_t most = 0;
    struct slice none = slice_make("", 0);
    for (unsigned misses = 0; misses < 20;) {
        if (transport_send(a->t, node, TRANSPORT_CONTROL, slice_make(piece, size), none))
            ++*sent;
        else {
            misses++;
            world_step(&w);
        }
        size_t now = atomic_load(&lane->queued->bytes);
        most = now > most ? now : most;
    }
    return most;
}

static void test_deaf_peer(void **state)
{
    (void)state;
    struct transport_keys keys;
    transport_keys_make(&keys);
    void *zmq = zmq_ctx_new();
    node_start(&w, 2); /* for a pair of ports */
    struct netaddr at = w.nodes[2].address;
    node_stop(&w.nodes[2]);
    void *socket = deaf_server(zmq, &keys, at);
    struct transport_peer peer = {.node = 7, .address = at};
    memcpy(peer.key, keys.public_key, TRANSPORT_KEY_BYTES);
    assert_true(transport_set_peer(a->t, &peer));
    UNTIL(&w, is_connected(a, 2));
    unsigned large = 0, small = 0;
    size_t most = fill(7, 64u << 10, &large);
    assert_true(most <= LANE_BYTES_MAX && most > LANE_BYTES_MAX / 2);
    assert_true(large < 1000); /* 16 MiB of ours and what the kernel takes */
    fill(7, 100, &small);
    assert_true(small <= 1000); /* by number: SNDHWM */
    assert_true(stats_of(a).dropped_full >= 40);
    /* others are not touched by it */
    assert_true(node_send(a, b, TRANSPORT_CONTROL, "fine"));
    UNTIL(&w, b->frames[TRANSPORT_CONTROL] == 1);
    /* what libzmq holds is given back when the peer goes */
    struct queued *q = a->t->peers[1].lanes[TRANSPORT_CONTROL].queued;
    atomic_fetch_add(&q->refs, 1);
    transport_remove_peer(a->t, 7);
    UNTIL(&w, atomic_load(&q->bytes) == 0);
    assert_int_equal(atomic_load(&q->refs), 1);
    free(q);
    zmq_close(socket);
    zmq_ctx_term(zmq);
}

static int heartbeats_of(void *socket)
{
    int ms = -1;
    size_t size = sizeof(ms);
    assert_int_equal(zmq_getsockopt(socket, ZMQ_HEARTBEAT_IVL, &ms, &size), 0);
    return ms;
}

/* A peer fills the queue of a node that does not come round to reading, and goes: what is
 * left of its connection waits, however long that takes. With heartbeats libzmq ended the
 * process within two of them, which is what is waited for. */
static void test_peer_goes_when_full(void **state)
{
    (void)state;
    static char frame[1024] = {FRAME_DATA};
    struct raw raw;
    unsigned before = a->frames[TRANSPORT_CONTROL], sent = 0;
    for (unsigned i = 0; i < TRANSPORT_LANES; i++) {
        assert_int_equal(heartbeats_of(a->t->routers[i].socket), 0);
        assert_int_equal(heartbeats_of(a->t->peers[0].lanes[i].socket), 0);
    }
    node_stop(b);
    UNTIL(&w, is_connected(a, 0));
    raw_open(&raw, &b->keys, a, TRANSPORT_CONTROL);
    /* 64 of them are a full queue. */
    struct mono end = mono_add_ms(mono_now(), WAIT_MS);
    while (sent < 1000 && mono_now().ns < end.ns) {
        if (raw_send(&raw, frame, sizeof(frame), 0))
            sent++;
        else
            poll(NULL, 0, 1);
    }
    assert_int_equal(sent, 1000);
    poll(NULL, 0, 300); /* for libzmq to have sent them */
    raw_close(&raw);
    poll(NULL, 0, 2500);
    UNTIL(&w, a->frames[TRANSPORT_CONTROL] > before + 64);
    node_start(&w, 1);
    assert_true(node_knows(b, a));
    UNTIL(&w, is_connected(a, 1));
}

struct rude {
    struct watcher watch;
    unsigned accepted;
};

/* Whoever connects reads something that is not ZMTP, and is hung up on. */
static void rude_ready(struct watcher *watch, int what)
{
    (void)what;
    struct rude *rude = CONTAINER_OF(watch, struct rude, watch);
    static const char words[] = "220 mail.example.com ESMTP, and nothing that you know, "
                                "whatever you may say to it first\r\n";
    int fd = accept(watch->fd, NULL, NULL);
    if (fd < 0)
        return;
    rude->accepted++;
    assert_int_equal(send(fd, words, sizeof(words), MSG_NOSIGNAL), sizeof(words));
    shutdown(fd, SHUT_WR);
    close(fd);
}

static void rude_open(struct rude *rude, struct netaddr at)
{
    struct sockaddr_storage sa;
    socklen_t len = netaddr_to_sockaddr(at, &sa);
    int one = 1, fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, len), 0);
    assert_int_equal(listen(fd, 8), 0);
    watcher_init(&rude->watch, w.loop, fd, rude_ready);
    watcher_set(&rude->watch, WATCH_READ);
}

/* Something else answers at the peer's port for a while and breaks the protocol. libzmq
 * may give up for good then; a lane that is down for long is opened anew. */
static void test_never_gives_up(void **state)
{
    (void)state;
    struct lane *lane = &a->t->peers[0].lanes[TRANSPORT_CONTROL];
    struct rude rude = {.accepted = 0};
    node_stop(b);
    rude_open(&rude, b->address);
    UNTIL(&w, rude.accepted > 0 && is_connected(a, 0));
    watcher_fini(&rude.watch);
    close(rude.watch.fd);
    lane->since = mono_add_ms(mono_now(), -60000);
    UNTIL(&w, lane->since.ns > mono_add_ms(mono_now(), -30000).ns);
    node_start(&w, 1);
    assert_true(node_knows(b, a));
    UNTIL(&w, is_connected(a, 1));
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_WORLD(test_window),
        IN_WORLD(test_stream),
        IN_WORLD(test_sender_restarts),
        IN_WORLD(test_reconnects),
        IN_WORLD(test_overrun),
        IN_WORLD(test_common_bound),
        IN_WORLD(test_deaf_peer),
        IN_WORLD(test_peer_goes_when_full),
        IN_WORLD(test_never_gives_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
