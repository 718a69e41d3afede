/* SPDX-License-Identifier: Apache-2.0 */
/* Two ends of a connection over loopback, on one loop, and what they heard. */
#ifndef TESTS_UNIT_CONN_ENDS_H
#define TESTS_UNIT_CONN_ENDS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants those first */
#include <cmocka.h>
#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "node/net/conn.h"
#include "tests/unit/certificate.h"

struct end {
    struct conn *conn;
    struct buf got;
    int connected, secured, drained, closed, data;
    enum err why;
    size_t take;  /* how much of one offer is taken */
    bool collect; /* keep what was taken */
    size_t total;
    void (*on_data)(struct end *e, struct slice bytes);
};

static struct loop *loop;
static struct conns *conns;
static char dir[] = "/var/tmp/baton-test-conn-XXXXXX";
static char cert_file[200], key_file[200], other_key_file[200];
static struct timer guard;

static inline void guard_fired(struct timer *t)
{
    (void)t;
    fprintf(stderr, "the loop waits for something that never comes\n");
    abort();
}

/* Runs the loop until the condition holds. */
#define UNTIL(condition)                                                                 \
    do {                                                                                 \
        timer_set(&guard, mono_add_ms(mono_now(), 20000));                               \
        while (!(condition))                                                             \
            loop_once(loop);                                                             \
        timer_cancel(&guard);                                                            \
    } while (0)

static inline void on_connected(struct conn *c, void *owner)
{
    (void)c;
    ((struct end *)owner)->connected++;
}

static inline size_t on_data(struct conn *c, struct slice bytes, void *owner)
{
    struct end *e = owner;
    size_t taken = bytes.len < e->take ? bytes.len : e->take;
    (void)c;
    e->data++;
    e->total += taken;
    if (e->collect)
        buf_append(&e->got, slice_head(bytes, taken));
    if (e->on_data)
        e->on_data(e, slice_head(bytes, taken));
    return taken;
}

static inline void on_secured(struct conn *c, void *owner)
{
    (void)c;
    ((struct end *)owner)->secured++;
}

static inline void on_drained(struct conn *c, void *owner)
{
    (void)c;
    ((struct end *)owner)->drained++;
}

static inline void on_closed(struct conn *c, enum err why, void *owner)
{
    struct end *e = owner;
    (void)c;
    e->closed++;
    e->why = why;
}

static const struct conn_handler handler = {.connected = on_connected,
    .data = on_data,
    .secured = on_secured,
    .drained = on_drained,
    .closed = on_closed};

static inline void end_init(struct end *e)
{
    *e = (struct end){.take = SIZE_MAX, .collect = true};
    buf_init(&e->got, 64 << 20);
}

static inline void end_fini(struct end *e)
{
    conn_close(e->conn);
    buf_fini(&e->got);
}

static inline bool end_has(struct end *e, const char *text)
{
    return slice_eq(buf_slice(&e->got), slice_str(text));
}

static inline int listen_socket(struct netaddr *at)
{
    struct sockaddr_storage sa;
    socklen_t len;
    assert_true(netaddr_parse(SLICE("127.0.0.1:0"), 0, at));
    len = netaddr_to_sockaddr(*at, &sa);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, len), 0);
    assert_int_equal(listen(fd, 10), 0);
    len = sizeof(sa);
    getsockname(fd, (struct sockaddr *)&sa, &len);
    netaddr_from_sockaddr((struct sockaddr *)&sa, at);
    return fd;
}

/* A client and a server end that are connected. */
static inline void pair(struct end *client, struct end *server)
{
    struct conn_target target = {.timeout_ms = 5000};
    int fd = listen_socket(&target.to);
    end_init(client);
    end_init(server);
    target.from = target.to.ip;
    client->conn = conn_connect(conns, &target, &handler, client);
    int accepted = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(accepted >= 0);
    server->conn = conn_accept(conns, accepted, target.to, &handler, server);
    close(fd);
    UNTIL(client->connected);
}

static inline void say(struct end *e, const char *text)
{
    assert_true(conn_write(e->conn, slice_str(text)));
    conn_flush(e->conn);
}

struct tls_pair {
    struct tls_server *server;
    struct tls_client *client;
};

static inline struct tls_pair contexts(void)
{
    char why[300] = "";
    struct tls_pair t = {.server = tls_server_new(cert_file, key_file, why, sizeof(why)),
        .client = tls_client_new(cert_file, why, sizeof(why))};
    assert_string_equal(why, "");
    assert_non_null(t.server);
    assert_non_null(t.client);
    return t;
}

static inline void contexts_free(struct tls_pair t)
{
    tls_server_unref(t.server);
    tls_client_unref(t.client);
}

static inline void secure(
    struct tls_pair t, struct end *client, struct end *server, struct tls_target target)
{
    target.address = conn_peer(client->conn);
    target.address.port = 25; /* the same hop each time */
    conn_start_tls_server(server->conn, t.server);
    conn_start_tls_client(client->conn, t.client, &target);
    UNTIL((client->secured && server->secured) || client->closed || server->closed);
}

static const struct tls_target verify = {
    .name = "mx.example.test", .check = TLS_CHECK_VERIFY};

static inline void big_output(bool tls)
{
    struct end client, server;
    struct tls_pair t = contexts();
    struct buf mine;
    char block[4096];
    pair(&client, &server);
    if (tls)
        secure(t, &client, &server, verify);
    memset(block, 'x', sizeof(block));
    conn_pause(server.conn);
    server.collect = false;
    buf_init(&mine, 64 << 20);
    size_t total = 16 << 20;
    for (size_t n = 0; n < total; n += sizeof(block))
        buf_append(&mine, slice_make(block, sizeof(block)));
    conn_drain(client.conn, &mine);
    assert_true(buf_len(&mine) > 0);
    conn_drain(client.conn, &mine); /* blocked: nothing happens */
    int drained = 0;
    conn_resume(server.conn);
    while (buf_len(&mine)) {
        UNTIL(client.drained > drained);
        drained = client.drained;
        conn_drain(client.conn, &mine);
    }
    conn_write(client.conn, SLICE("."));
    conn_flush(client.conn);
    UNTIL(server.total == total + 1);
    buf_fini(&mine);
    end_fini(&client);
    end_fini(&server);
    contexts_free(t);
}

static inline int ends_set_up(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    snprintf(cert_file, sizeof(cert_file), "%s/cert.pem", dir);
    snprintf(key_file, sizeof(key_file), "%s/key.pem", dir);
    snprintf(other_key_file, sizeof(other_key_file), "%s/other.pem", dir);
    EVP_PKEY *key = write_key(key_file);
    write_certificate(key, "mx.example.test", cert_file);
    EVP_PKEY_free(key);
    EVP_PKEY_free(write_key(other_key_file));
    loop = loop_new();
    conns = conns_new(loop);
    timer_init(&guard, loop, guard_fired);
    return 0;
}

static inline int ends_tear_down(void **state)
{
    (void)state;
    timer_fini(&guard);
    conns_free(conns);
    loop_free(loop);
    unlink(cert_file);
    unlink(key_file);
    unlink(other_key_file);
    return rmdir(dir);
}

#endif
