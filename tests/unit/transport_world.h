/* SPDX-License-Identifier: Apache-2.0 */
/* A few transports on loopback in one process, each with what it heard, on one loop. */
#ifndef TESTS_UNIT_TRANSPORT_WORLD_H
#define TESTS_UNIT_TRANSPORT_WORLD_H

#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <zmq.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/loop.h"
#include "cluster/transport.h"

#define WAIT_MS 20000
#define NODES_MAX 4

struct node {
    struct transport *t;
    struct transport_keys keys;
    uint64_t id;
    struct netaddr address;
    /* what came in */
    unsigned frames[TRANSPORT_LANES], guests, ups, downs;
    uint64_t bytes[TRANSPORT_LANES];
    uint64_t from, scouted_node;
    unsigned scouts_there, scouts_failed;
    uint16_t scouted_port;
    char *last;
    size_t last_len;
    unsigned char guest_key[TRANSPORT_KEY_BYTES];
    bool consumes, is_broken; /* a pattern that did not hold */
    uint32_t next[TRANSPORT_LANES];
};

struct world {
    struct loop *loop;
    struct timer beat;
    const char *host;
    struct node nodes[NODES_MAX];
    uint64_t window, window_all;
};

/* Wakes the loop, so that a condition is looked at even when nothing happens. */
static inline void world_beat(struct timer *t)
{
    timer_set(t, mono_add_ms(mono_now(), 10));
}

static inline void on_frame(
    void *ctx, uint64_t node, enum transport_lane lane, struct slice frame)
{
    struct node *n = ctx;
    n->frames[lane]++;
    n->bytes[lane] += frame.len;
    n->from = node;
    free(n->last);
    n->last = mem_alloc(frame.len);
    memcpy(n->last, frame.ptr, frame.len);
    n->last_len = frame.len;
    if (lane == TRANSPORT_BULK && n->consumes)
        transport_consumed(n->t, node, frame.len);
}

static inline void on_guest(void *ctx, const unsigned char *key, struct slice frame)
{
    struct node *n = ctx;
    n->guests++;
    memcpy(n->guest_key, key, TRANSPORT_KEY_BYTES);
    free(n->last);
    n->last = mem_alloc(frame.len);
    memcpy(n->last, frame.ptr, frame.len);
    n->last_len = frame.len;
}

static inline void on_link(void *ctx, uint64_t node, bool is_up)
{
    struct node *n = ctx;
    (void)node;
    n->ups += is_up;
    n->downs += !is_up;
}

static inline void on_scouted(
    void *ctx, uint64_t node, struct netaddr address, bool is_there)
{
    struct node *n = ctx;
    n->scouted_node = node;
    n->scouted_port = address.port;
    n->scouts_there += is_there;
    n->scouts_failed += !is_there;
}

static const struct transport_events node_events = {
    on_frame, on_guest, on_link, on_scouted};

static inline struct netaddr address_of(const char *text, uint16_t port)
{
    struct netaddr a = {.port = port};
    assert_true(ipaddr_parse(slice_str(text), &a.ip));
    return a;
}

static inline void world_init(struct world *w, const char *host)
{
    *w = (struct world){.loop = loop_new(), .host = host};
    timer_init(&w->beat, w->loop, world_beat);
    timer_set(&w->beat, mono_now());
}

/* On its old port when it had one: a restart. */
static inline void node_start(struct world *w, unsigned which)
{
    struct node *n = &w->nodes[which];
    char why[512] = "";
    if (n->id == 0) {
        n->id = 1000 + which;
        transport_keys_make(&n->keys);
        n->address = address_of(w->host, 0);
        n->consumes = true;
    }
    struct transport_settings settings = {.loop = w->loop,
        .listen = n->address,
        .keys = &n->keys,
        .node = n->id,
        .window_bytes = w->window,
        .window_all_bytes = w->window_all};
    n->t = transport_new(&settings, &node_events, n, why, sizeof(why));
    if (!n->t)
        fail_msg("%s", why);
    n->address = transport_address(n->t);
}

static inline void node_stop(struct node *n)
{
    transport_free(n->t);
    n->t = NULL;
}

static inline bool node_knows(struct node *n, const struct node *other)
{
    struct transport_peer peer = {.node = other->id, .address = other->address};
    memcpy(peer.key, other->keys.public_key, TRANSPORT_KEY_BYTES);
    return transport_set_peer(n->t, &peer);
}

static inline void world_meet(struct world *w, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        for (unsigned j = 0; j < count; j++)
            if (i != j)
                assert_true(node_knows(&w->nodes[i], &w->nodes[j]));
}

static inline void world_fini(struct world *w)
{
    for (unsigned i = 0; i < NODES_MAX; i++) {
        transport_free(w->nodes[i].t);
        free(w->nodes[i].last);
    }
    timer_fini(&w->beat);
    loop_free(w->loop);
}

static inline void world_step(struct world *w)
{
    loop_once(w->loop);
}

/* Runs the loop until `condition`; fails the test when it does not come. */
#define UNTIL(w, condition)                                                              \
    do {                                                                                 \
        struct mono until_end = mono_add_ms(mono_now(), WAIT_MS);                        \
        while (!(condition)) {                                                           \
            if (mono_now().ns > until_end.ns)                                            \
                fail_msg("never: %s", #condition);                                       \
            world_step(w);                                                               \
        }                                                                                \
    } while (0)

static inline struct transport_stats stats_of(const struct node *n)
{
    struct transport_stats stats;
    transport_stats(n->t, &stats);
    return stats;
}

static inline bool is_connected(const struct node *n, unsigned peers)
{
    return stats_of(n).connected == peers;
}

static inline bool node_send(
    struct node *n, const struct node *to, enum transport_lane lane, const char *text)
{
    return transport_send(n->t, to->id, lane, slice_str(text), slice_make("", 0));
}

/* --- a peer of our own making: libzmq by hand --- */

struct raw {
    void *zmq, *socket;
};

static inline void raw_int(struct raw *r, int option, int value)
{
    assert_int_equal(zmq_setsockopt(r->socket, option, &value, sizeof(value)), 0);
}

static inline void raw_open(struct raw *r, const struct transport_keys *keys,
    const struct node *to, enum transport_lane lane)
{
    char endpoint[96], text[NETADDR_TEXT_MAX];
    struct netaddr address = to->address;
    address.port = (uint16_t)(address.port + lane);
    netaddr_format(address, text);
    snprintf(endpoint, sizeof(endpoint), "tcp://%s", text);
    r->zmq = zmq_ctx_new();
    r->socket = zmq_socket(r->zmq, ZMQ_DEALER);
    raw_int(r, ZMQ_LINGER, 0);
    raw_int(r, ZMQ_IMMEDIATE, 1);
    raw_int(r, ZMQ_IPV6, address.ip.family == 6);
    if (keys) {
        zmq_setsockopt(r->socket, ZMQ_CURVE_SERVERKEY, to->keys.public_key, 32);
        zmq_setsockopt(r->socket, ZMQ_CURVE_PUBLICKEY, keys->public_key, 32);
        zmq_setsockopt(r->socket, ZMQ_CURVE_SECRETKEY, keys->secret_key, 32);
    }
    assert_int_equal(zmq_connect(r->socket, endpoint), 0);
}

static inline bool raw_send(struct raw *r, const void *bytes, size_t len, int flags)
{
    return zmq_send(r->socket, bytes, len, ZMQ_DONTWAIT | flags) >= 0;
}

static inline void raw_close(struct raw *r)
{
    zmq_close(r->socket);
    zmq_ctx_term(r->zmq);
}

#endif
