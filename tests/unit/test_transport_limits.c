/* SPDX-License-Identifier: Apache-2.0 */
/* What libzmq does not bound: connections of strangers, and what peers send where nothing
 * should come. Messages that never end need a peer that is not libzmq: see
 * tests/integration/test_cluster_rogue.py. */
#include "tests/unit/transport_world.h"

#include <poll.h>
#include <unistd.h>

#include "cluster/transport_internal.h"

#define STRANGERS 400
#define KEPT 256 /* of them at most */

static struct world w;
static struct node *a, *b;

static int setup(void **state)
{
    (void)state;
    world_init(&w, "127.0.0.1");
    node_start(&w, 0);
    node_start(&w, 1);
    a = &w.nodes[0], b = &w.nodes[1];
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_fini(&w);
    return 0;
}

static int knock(enum transport_lane lane)
{
    struct sockaddr_storage sa;
    struct netaddr at = a->address;
    at.port = (uint16_t)(at.port + lane);
    socklen_t len = netaddr_to_sockaddr(at, &sa);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, len), 0);
    return fd;
}

static unsigned open_ones(const int fds[STRANGERS])
{
    unsigned open = 0;
    for (unsigned i = 0; i < STRANGERS; i++) {
        char byte;
        ssize_t n;
        do /* libzmq's greeting comes first */
            n = recv(fds[i], &byte, 1, MSG_DONTWAIT);
        while (n > 0);
        open += n < 0 && errno == EAGAIN;
    }
    return open;
}

/* Who connects and says nothing is one of a few; members come in meanwhile. */
static void test_strangers_are_few(void **state)
{
    (void)state;
    int fds[STRANGERS];
    char from[NETADDR_TEXT_MAX];
    for (unsigned i = 0; i < STRANGERS; i++) {
        fds[i] = knock(i % 2 ? TRANSPORT_BULK : TRANSPORT_CONTROL);
        if (i % 50 == 0)
            world_step(&w);
    }
    world_meet(&w, 2);
    struct mono begin = mono_now();
    UNTIL(&w, open_ones(fds) <= KEPT);
    assert_true(mono_diff_ms(mono_now(), begin) < 3000); /* not the handshake's time */
    assert_true(open_ones(fds) > KEPT - 20);
    assert_true(guard_cut(a->t, from) >= STRANGERS - KEPT - 2);
    assert_non_null(strstr(from, "127.0.0.1"));
    UNTIL(&w, is_connected(a, 1) && is_connected(b, 1));
    UNTIL(&w, node_send(b, a, TRANSPORT_BULK, "body") && a->frames[TRANSPORT_BULK] > 0);
    assert_int_equal(a->downs + b->downs, 0); /* whoever has a key is none of them */
    for (unsigned i = 0; i < STRANGERS; i++)
        close(fds[i]);
}

/* A peer that answers on a connection that is ours to send on. */
struct rude {
    void *zmq, *socket;
    struct transport_keys keys;
    struct netaddr address;
};

static void rude_open(struct rude *r)
{
    char endpoint[96], text[NETADDR_TEXT_MAX];
    int yes = 1, none = 0;
    r->zmq = zmq_ctx_new();
    r->socket = zmq_socket(r->zmq, ZMQ_ROUTER);
    transport_keys_make(&r->keys);
    zmq_setsockopt(r->socket, ZMQ_LINGER, &none, sizeof(none));
    zmq_setsockopt(r->socket, ZMQ_CURVE_SERVER, &yes, sizeof(yes));
    zmq_setsockopt(r->socket, ZMQ_CURVE_SECRETKEY, r->keys.secret_key, 32);
    assert_int_equal(zmq_bind(r->socket, "tcp://127.0.0.1:*"), 0);
    size_t size = sizeof(endpoint);
    assert_int_equal(zmq_getsockopt(r->socket, ZMQ_LAST_ENDPOINT, endpoint, &size), 0);
    snprintf(text, sizeof(text), "%.60s", endpoint + strlen("tcp://"));
    assert_true(netaddr_parse(slice_str(text), 0, &r->address));
}

static void test_nothing_comes_on_our_lanes(void **state)
{
    (void)state;
    struct rude r;
    char id[64], frame[64];
    struct transport_peer peer = {.node = 77};
    rude_open(&r);
    memcpy(peer.key, r.keys.public_key, TRANSPORT_KEY_BYTES);
    peer.address = r.address;
    world_meet(&w, 2);
    assert_true(transport_set_peer(a->t, &peer));
    UNTIL(&w, transport_send(a->t, 77, TRANSPORT_CONTROL, SLICE("hello"), SLICE("")));
    int len = -1;
    UNTIL(&w, (len = zmq_recv(r.socket, id, sizeof(id), ZMQ_DONTWAIT)) > 0);
    assert_true(zmq_recv(r.socket, frame, sizeof(frame), 0) > 0);
    uint64_t before = stats_of(a).refused_frames;
    for (unsigned i = 0; i < 1000; i++) {
        zmq_send(r.socket, id, (size_t)len, ZMQ_SNDMORE | ZMQ_DONTWAIT);
        zmq_send(r.socket, "noise", 5, ZMQ_DONTWAIT);
    }
    /* The lane is closed, and stays so for a while. The others go on. */
    UNTIL(&w, stats_of(a).refused_frames > before);
    assert_false(transport_send(a->t, 77, TRANSPORT_CONTROL, SLICE("hello"), SLICE("")));
    UNTIL(&w, is_connected(a, 1) && is_connected(b, 1));
    assert_true(node_send(a, b, TRANSPORT_CONTROL, "member"));
    UNTIL(&w, b->frames[TRANSPORT_CONTROL] == 1);
    assert_false(transport_send(a->t, 77, TRANSPORT_CONTROL, SLICE("hello"), SLICE("")));
    zmq_close(r.socket);
    zmq_ctx_term(r.zmq);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_strangers_are_few, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_comes_on_our_lanes, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
