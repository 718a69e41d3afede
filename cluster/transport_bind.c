/* SPDX-License-Identifier: Apache-2.0 */
/* The listeners, and the proof before any peer comes that a stranger stays outside. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>
#include <zmq.h>

#include "base/alloc.h"
#include "cluster/transport_internal.h"

/* An option that zmq.h of 4.3.4 still calls a draft; the library has it. */
#ifndef ZMQ_ZAP_ENFORCE_DOMAIN
#define ZMQ_ZAP_ENFORCE_DOMAIN 93
#endif

#define PORT_TRIES 64
/* What the kernel may hold of the control lane. */
#define CONTROL_BUFFER (256 << 10)
#define SELF_TEST_MS 5000
#define STRANGER_MS 100

enum refusal { REFUSAL_GIVEN, REFUSAL_NONE, REFUSAL_SILENCE };

void socket_set_int(void *socket, int option, int value)
{
    if (zmq_setsockopt(socket, option, &value, sizeof(value)) != 0)
        die("baton: libzmq refuses option %d: %s; next step: use Debian's libzmq5",
            option, zmq_strerror(zmq_errno()));
}

static void set_bytes(void *socket, int option, const void *bytes, size_t len)
{
    if (zmq_setsockopt(socket, option, bytes, len) != 0)
        die("baton: libzmq refuses option %d: %s; next step: use Debian's libzmq5",
            option, zmq_strerror(zmq_errno()));
}

void socket_set_common(void *socket, struct netaddr address, enum transport_lane lane)
{
    socket_set_int(socket, ZMQ_LINGER, 0);
    socket_set_int(socket, ZMQ_IPV6, address.ip.family == 6);
    socket_set_int(socket, ZMQ_HANDSHAKE_IVL, 5000);
    if (lane == TRANSPORT_CONTROL)
        socket_set_int(socket, ZMQ_SNDBUF, CONTROL_BUFFER);
    /* For what nothing is sent on: a connection that waits in its handshake, and a
     * ROUTER's whose peer is gone. */
    socket_set_int(socket, ZMQ_TCP_KEEPALIVE, 1);
    socket_set_int(socket, ZMQ_TCP_KEEPALIVE_IDLE, 30);
    socket_set_int(socket, ZMQ_TCP_KEEPALIVE_INTVL, 10);
    socket_set_int(socket, ZMQ_TCP_KEEPALIVE_CNT, 3);
}

void socket_set_curve_client(
    void *socket, const struct transport_keys *keys, const unsigned char *server_key)
{
    set_bytes(socket, ZMQ_CURVE_SERVERKEY, server_key, TRANSPORT_KEY_BYTES);
    set_bytes(socket, ZMQ_CURVE_PUBLICKEY, keys->public_key, TRANSPORT_KEY_BYTES);
    set_bytes(socket, ZMQ_CURVE_SECRETKEY, keys->secret_key, TRANSPORT_KEY_BYTES);
}

void socket_endpoint(struct netaddr address, enum transport_lane lane, char out[96])
{
    char text[NETADDR_TEXT_MAX];
    address.port = (uint16_t)(address.port + (lane == TRANSPORT_BULK));
    netaddr_format(address, text);
    snprintf(out, 96, "tcp://%s", text);
}

static void router_open(struct transport *t, struct router *r, struct netaddr address)
{
    const char *domain = zap_domain(r->which);
    int64_t max = TRANSPORT_FRAME_MAX + HEAD_BULK + CURVE_BYTES;
    r->socket = zmq_socket(t->zmq, ZMQ_ROUTER);
    if (!r->socket)
        die("baton: libzmq cannot make a socket: %s", zmq_strerror(zmq_errno()));
    socket_set_common(r->socket, address, r->which);
    socket_set_int(r->socket, ZMQ_CURVE_SERVER, 1);
    set_bytes(r->socket, ZMQ_CURVE_SECRETKEY, t->keys.secret_key, TRANSPORT_KEY_BYTES);
    set_bytes(r->socket, ZMQ_ZAP_DOMAIN, domain, strlen(domain));
    socket_set_int(r->socket, ZMQ_ZAP_ENFORCE_DOMAIN, 1);
    set_bytes(r->socket, ZMQ_MAXMSGSIZE, &max, sizeof(max));
    /* No limit here, but in transport_guard.c: where libzmq 4.3.4 has to wait for us
     * while its peer goes, a heartbeat among the peer's last bytes ends the process
     * (`!_io_error`). Ours send none, but a hostile member may. */
    socket_set_int(r->socket, ZMQ_RCVHWM, 0);
    /* Nothing is sent here; a bound all the same. */
    socket_set_int(r->socket, ZMQ_SNDHWM, 1);
    socket_set_int(r->socket, ZMQ_BACKLOG, 256);
}

static void close_routers(struct transport *t)
{
    for (unsigned i = 0; i < TRANSPORT_LANES; i++) {
        if (t->routers[i].socket)
            zmq_close(t->routers[i].socket);
        t->routers[i].socket = NULL;
    }
}

static int bind_both(struct transport *t, struct netaddr address)
{
    for (unsigned i = 0; i < TRANSPORT_LANES; i++) {
        char endpoint[96];
        router_open(t, &t->routers[i], address);
        socket_endpoint(address, (enum transport_lane)i, endpoint);
        if (zmq_bind(t->routers[i].socket, endpoint) == 0)
            continue;
        int error = zmq_errno();
        close_routers(t);
        return error;
    }
    return 0;
}

/* A port that the kernel gives out, for a moment. */
static uint16_t some_port(struct netaddr address)
{
    struct sockaddr_storage sa;
    socklen_t len = netaddr_to_sockaddr(address, &sa);
    struct netaddr got = {{0, {0}}, 0};
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return 0;
    if (bind(fd, (struct sockaddr *)&sa, len) == 0) {
        len = sizeof(sa);
        if (getsockname(fd, (struct sockaddr *)&sa, &len) == 0)
            netaddr_from_sockaddr((struct sockaddr *)&sa, &got);
    }
    close(fd);
    return got.port < UINT16_MAX ? got.port : 0;
}

static int bind_somewhere(struct transport *t, struct netaddr *address)
{
    int error = EADDRINUSE;
    struct netaddr any = *address;
    for (unsigned i = 0; i < PORT_TRIES && error == EADDRINUSE; i++) {
        address->port = some_port(any);
        if (address->port != 0)
            error = bind_both(t, *address);
    }
    return error;
}

bool transport_bind(
    struct transport *t, struct netaddr listen, char *why, size_t why_size)
{
    char text[NETADDR_TEXT_MAX];
    t->address = listen;
    int error = listen.port == 0 ? bind_somewhere(t, &t->address) : bind_both(t, listen);
    if (error == 0)
        return true;
    netaddr_format(listen, text);
    snprintf(why, why_size,
        "cannot listen at %s and the port after it: %s; next step: check cluster.listen, "
        "and that nothing else has these ports",
        text, zmq_strerror(error));
    return false;
}

/* --- the proof --- */

/* A client with these keys, and its monitor. */
struct trial {
    void *socket, *monitor;
};

/* A stranger is turned away by silence: libzmq 4.3.4 mostly leaves the connection open
 * until the handshake's time is up, so that is short here. */
static void trial_open(struct transport *t, struct trial *trial,
    const struct transport_keys *keys, enum transport_lane which, int handshake_ms)
{
    char endpoint[96], name[64];
    struct netaddr address = t->address;
    if (ipaddr_is_unspecified(address.ip))
        ipaddr_parse(
            address.ip.family == 6 ? SLICE("::1") : SLICE("127.0.0.1"), &address.ip);
    socket_endpoint(address, which, endpoint);
    snprintf(name, sizeof(name), "inproc://self-test-%llu",
        (unsigned long long)t->next_monitor++);
    trial->socket = zmq_socket(t->zmq, ZMQ_DEALER);
    trial->monitor = zmq_socket(t->zmq, ZMQ_PAIR);
    if (!trial->socket || !trial->monitor)
        die("baton: libzmq cannot make a socket: %s", zmq_strerror(zmq_errno()));
    socket_set_common(trial->socket, address, which);
    socket_set_int(trial->socket, ZMQ_HANDSHAKE_IVL, handshake_ms);
    socket_set_curve_client(trial->socket, keys, t->keys.public_key);
    socket_set_int(trial->monitor, ZMQ_LINGER, 0);
    if (zmq_socket_monitor(trial->socket, name,
            ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |
                ZMQ_EVENT_DISCONNECTED) != 0 ||
        zmq_connect(trial->monitor, name) != 0 ||
        zmq_connect(trial->socket, endpoint) != 0)
        die("baton: libzmq cannot connect to %s: %s", endpoint,
            zmq_strerror(zmq_errno()));
}

static void trial_close(struct trial *trial)
{
    zmq_socket_monitor(trial->socket, NULL, 0);
    zmq_close(trial->monitor);
    zmq_close(trial->socket);
}

/* The next word on the handshake, 0 when none comes before `end`. */
static unsigned trial_event(struct trial *trial, struct mono end)
{
    int64_t left = mono_diff_ms(end, mono_now());
    unsigned char bytes[6], endpoint[128];
    uint16_t event = 0;
    socket_set_int(trial->monitor, ZMQ_RCVTIMEO, left > 0 ? (int)left : 0);
    if (zmq_recv(trial->monitor, bytes, sizeof(bytes), 0) != sizeof(bytes))
        return 0;
    memcpy(&event, bytes, sizeof(event));
    zmq_recv(trial->monitor, endpoint, sizeof(endpoint), 0);
    return event;
}

static bool is_let_in(
    struct transport *t, const struct transport_keys *keys, enum transport_lane which)
{
    struct trial trial;
    unsigned event;
    struct mono end = mono_add_ms(mono_now(), SELF_TEST_MS);
    trial_open(t, &trial, keys, which, SELF_TEST_MS);
    do
        event = trial_event(&trial, end);
    while (event != 0 && event != ZMQ_EVENT_HANDSHAKE_SUCCEEDED);
    trial_close(&trial);
    return event != 0;
}

/* The handler has refused it, and the handshake has come to nothing. */
static enum refusal is_kept_out(
    struct transport *t, const struct transport_keys *keys, enum transport_lane which)
{
    char address[64];
    struct trial trial;
    enum refusal got = REFUSAL_SILENCE;
    struct mono end = mono_add_ms(mono_now(), SELF_TEST_MS);
    uint64_t before = zap_refused(t->zap, address);
    trial_open(t, &trial, keys, which, STRANGER_MS);
    while (got == REFUSAL_SILENCE) {
        unsigned event = trial_event(&trial, end);
        if (event == 0)
            break;
        if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED)
            got = REFUSAL_NONE;
        else if (zap_refused(t->zap, address) > before)
            got = REFUSAL_GIVEN;
    }
    trial_close(&trial);
    return got;
}

static bool say(struct transport *t, char *why, size_t why_size, const char *what)
{
    char text[NETADDR_TEXT_MAX];
    netaddr_format(t->address, text);
    snprintf(why, why_size,
        "self-test of the listener at %s: %s; next step: see that nothing between this "
        "node and its own address answers in its place, and that libzmq5 is Debian's",
        text, what);
    return false;
}

static bool test_lane(
    struct transport *t, enum transport_lane which, char *why, size_t why_size)
{
    struct transport_keys keys;
    transport_keys_make(&keys);
    enum refusal got = is_kept_out(t, &keys, which);
    if (got == REFUSAL_NONE)
        return say(t, why, why_size, "a stranger's key was let in");
    if (got == REFUSAL_SILENCE)
        return say(t, why, why_size, "a stranger's key was not judged within 5 s");
    zap_allow(t->zap, keys.public_key, ZAP_PEER);
    bool is_in = is_let_in(t, &keys, which);
    zap_forget(t->zap, keys.public_key, ZAP_PEER);
    explicit_bzero(&keys, sizeof(keys));
    return is_in || say(t, why, why_size, "a known key was refused");
}

bool transport_self_test(struct transport *t, char *why, size_t why_size)
{
    for (unsigned i = 0; i < TRANSPORT_LANES; i++)
        if (!test_lane(t, (enum transport_lane)i, why, why_size))
            return false;
    return true;
}
