/* SPDX-License-Identifier: Apache-2.0 */
/* Connections on loopback sockets: bytes, back-pressure, TLS both ways, ends of all
 * kinds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants those first */
#include <cmocka.h>
#include <errno.h>
#include <event2/event.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "node/net/conn.h"

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

static void guard_fired(struct timer *t)
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
            event_base_loop(loop_event_base(loop), EVLOOP_ONCE);                         \
        timer_cancel(&guard);                                                            \
    } while (0)

static void on_connected(struct conn *c, void *owner)
{
    (void)c;
    ((struct end *)owner)->connected++;
}

static size_t on_data(struct conn *c, struct slice bytes, void *owner)
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

static void on_secured(struct conn *c, void *owner)
{
    (void)c;
    ((struct end *)owner)->secured++;
}

static void on_drained(struct conn *c, void *owner)
{
    (void)c;
    ((struct end *)owner)->drained++;
}

static void on_closed(struct conn *c, enum err why, void *owner)
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

static void end_init(struct end *e)
{
    *e = (struct end){.take = SIZE_MAX, .collect = true};
    buf_init(&e->got, 64 << 20);
}

static void end_fini(struct end *e)
{
    conn_close(e->conn);
    buf_fini(&e->got);
}

static bool end_has(struct end *e, const char *text)
{
    return slice_eq(buf_slice(&e->got), slice_str(text));
}

static int listen_socket(struct netaddr *at)
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
static void pair(struct end *client, struct end *server)
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

static void say(struct end *e, const char *text)
{
    assert_true(conn_write(e->conn, slice_str(text)));
    conn_flush(e->conn);
}

static void bytes_go_both_ways(void **state)
{
    struct end client, server;
    (void)state;
    pair(&client, &server);
    say(&client, "EHLO a\r\n");
    UNTIL(end_has(&server, "EHLO a\r\n"));
    say(&server, "250 b\r\n");
    UNTIL(end_has(&client, "250 b\r\n"));
    assert_int_equal(conn_bytes_in(client.conn), 7);
    assert_int_equal(conn_bytes_out(client.conn), 8);
    assert_int_equal(client.drained, 0);
    end_fini(&client);
    UNTIL(server.closed);
    assert_int_equal(server.why, ERR_OK);
    end_fini(&server);
}

static void refused_connection_is_told_later(void **state)
{
    struct conn_target target = {.timeout_ms = 5000};
    struct end client;
    (void)state;
    close(listen_socket(&target.to));
    end_init(&client);
    client.conn = conn_connect(conns, &target, &handler, &client);
    assert_int_equal(client.closed, 0);
    UNTIL(client.closed);
    assert_int_equal(client.why, ERR_CONNECT_REFUSED);
    assert_string_equal(conn_why(client.conn), "Connection refused");
    end_fini(&client);
}

static void bad_egress_address_is_told_later(void **state)
{
    struct conn_target target = {.timeout_ms = 5000};
    struct end client;
    (void)state;
    int fd = listen_socket(&target.to);
    end_init(&client);
    assert_true(ipaddr_parse(SLICE("192.0.2.77"), &target.from)); /* nobody's */
    client.conn = conn_connect(conns, &target, &handler, &client);
    assert_int_equal(client.closed, 0);
    UNTIL(client.closed);
    assert_int_equal(client.why, ERR_CONNECT_UNREACHABLE);
    end_fini(&client);
    close(fd);
}

static void connect_times_out(void **state)
{
    struct conn_target target = {.timeout_ms = 30};
    struct end client, filler[3];
    struct sockaddr_storage sa;
    (void)state;
    /* A backlog of one that is full: further SYNs are dropped. */
    netaddr_parse(SLICE("127.0.0.1:0"), 0, &target.to);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t len = netaddr_to_sockaddr(target.to, &sa);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, len), 0);
    assert_int_equal(listen(fd, 0), 0);
    len = sizeof(sa);
    getsockname(fd, (struct sockaddr *)&sa, &len);
    netaddr_from_sockaddr((struct sockaddr *)&sa, &target.to);
    for (int i = 0; i < 3; i++) {
        end_init(&filler[i]);
        filler[i].conn = conn_connect(conns, &target, &handler, &filler[i]);
    }
    end_init(&client);
    client.conn = conn_connect(conns, &target, &handler, &client);
    UNTIL(client.closed);
    assert_int_equal(client.why, ERR_CONNECT_TIMEOUT);
    end_fini(&client);
    for (int i = 0; i < 3; i++)
        end_fini(&filler[i]);
    close(fd);
}

static void untaken_input_waits(void **state)
{
    struct end client, server;
    (void)state;
    pair(&client, &server);
    server.take = 3;
    say(&client, "abcdefg");
    UNTIL(server.total == 3);
    assert_true(conn_is_paused(server.conn));
    server.take = 2;
    conn_resume(server.conn);
    assert_true(end_has(&server, "abcde"));
    conn_half_close(client.conn);
    server.take = SIZE_MAX;
    conn_resume(server.conn);
    assert_true(end_has(&server, "abcdefg"));
    UNTIL(server.closed); /* the end is told only behind the bytes */
    assert_int_equal(server.why, ERR_OK);
    say(&server, "bye");
    UNTIL(end_has(&client, "bye"));
    end_fini(&client);
    end_fini(&server);
}

static void pause_holds_back(void **state)
{
    struct end client, server, other_client, other_server;
    (void)state;
    pair(&client, &server);
    pair(&other_client, &other_server);
    conn_pause(server.conn);
    say(&client, "early");
    say(&other_client, "x");
    UNTIL(end_has(&other_server, "x"));
    say(&other_client, "y");
    UNTIL(end_has(&other_server, "xy"));
    assert_int_equal(server.data, 0);
    conn_resume(server.conn);
    UNTIL(end_has(&server, "early"));
    end_fini(&client);
    end_fini(&server);
    end_fini(&other_client);
    end_fini(&other_server);
}

static void big_output(bool tls);

static void slow_reader_blocks_and_drains(void **state)
{
    (void)state;
    big_output(false);
}

static void reset_is_an_error(void **state)
{
    struct end client, server;
    (void)state;
    pair(&client, &server);
    conn_abort(client.conn);
    client.conn = NULL;
    UNTIL(server.closed);
    assert_int_equal(server.why, ERR_CONNECTION_LOST);
    assert_string_equal(conn_why(server.conn), "Connection reset by peer");
    conn_write(server.conn, SLICE("x"));
    conn_flush(server.conn); /* nothing happens, nothing crashes */
    size_t n;
    conn_drain(server.conn, conn_out(server.conn));
    buf_clear(conn_out(server.conn));
    assert_int_equal(conn_send_direct(server.conn, SLICE("."), &n), ERR_CONNECTION_LOST);
    end_fini(&client);
    end_fini(&server);
}

static void direct_send_goes_at_once(void **state)
{
    struct end client, server;
    size_t n;
    (void)state;
    pair(&client, &server);
    assert_int_equal(conn_send_direct(client.conn, SLICE("\r\n.\r\n"), &n), ERR_OK);
    assert_int_equal(n, 5);
    UNTIL(end_has(&server, "\r\n.\r\n"));
    end_fini(&client);
    end_fini(&server);
}

static void finish_delivers_the_last_words(void **state)
{
    struct end client, server;
    (void)state;
    pair(&client, &server);
    conn_pause(server.conn);
    say(&client, "unread junk"); /* a plain close would reset */
    conn_write(server.conn, SLICE("421 bye\r\n"));
    conn_finish(server.conn, true);
    server.conn = NULL;
    assert_int_equal(conns_count(conns), 2);
    UNTIL(client.closed);
    assert_int_equal(client.why, ERR_OK);
    assert_true(end_has(&client, "421 bye\r\n"));
    end_fini(&client);
    UNTIL(conns_count(conns) == 0);
    end_fini(&server);
}

static void close_in_callback(struct end *e, struct slice bytes)
{
    (void)bytes;
    conn_close(e->conn);
    e->conn = NULL;
}

static void owner_may_close_in_a_callback(void **state)
{
    struct end client, server;
    (void)state;
    pair(&client, &server);
    server.on_data = close_in_callback;
    server.take = 1;
    say(&client, "abc");
    UNTIL(client.closed);
    assert_null(server.conn);
    end_fini(&client);
    end_fini(&server);
}

/* --- TLS --- */

static EVP_PKEY *write_key(const char *file)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
    fclose(f);
    return key;
}

static void write_certificate(EVP_PKEY *key, const char *name, const char *file)
{
    char san[100];
    X509 *x = X509_new();
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 86400);
    X509_set_pubkey(x, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
        (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    snprintf(san, sizeof(san), "DNS:%s", name);
    X509_EXTENSION *extension =
        X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, san);
    X509_add_ext(x, extension, -1);
    X509_EXTENSION_free(extension);
    X509_sign(x, key, EVP_sha256());
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    PEM_write_X509(f, x);
    fclose(f);
    X509_free(x);
}

struct tls_pair {
    struct tls_server *server;
    struct tls_client *client;
};

static struct tls_pair contexts(void)
{
    char why[300] = "";
    struct tls_pair t = {.server = tls_server_new(cert_file, key_file, why, sizeof(why)),
        .client = tls_client_new(cert_file, why, sizeof(why))};
    assert_string_equal(why, "");
    assert_non_null(t.server);
    assert_non_null(t.client);
    return t;
}

static void contexts_free(struct tls_pair t)
{
    tls_server_unref(t.server);
    tls_client_unref(t.client);
}

static void secure(
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

static void tls_carries_bytes(void **state)
{
    struct end client, server;
    struct tls_pair t = contexts();
    (void)state;
    pair(&client, &server);
    secure(t, &client, &server, verify);
    assert_true(client.secured && server.secured);
    const struct tls_info *info = conn_tls_info(client.conn);
    assert_true(info->on && info->verified && !info->resumed && info->has_certificate);
    assert_string_equal(info->version, "TLSv1.3");
    assert_true(info->bits >= 128);
    say(&client, "EHLO a\r\n");
    UNTIL(end_has(&server, "EHLO a\r\n"));
    size_t n;
    assert_int_equal(conn_send_direct(server.conn, SLICE("250 b\r\n"), &n), ERR_OK);
    assert_int_equal(n, 7);
    UNTIL(end_has(&client, "250 b\r\n"));
    conn_finish(client.conn, true);
    client.conn = NULL;
    UNTIL(server.closed);
    assert_int_equal(server.why, ERR_OK);
    end_fini(&server);
    end_fini(&client);
    UNTIL(conns_count(conns) == 0);
    contexts_free(t);
}

static void tls_slow_reader(void **state)
{
    (void)state;
    big_output(true);
}

static void tls_sessions_resume(void **state)
{
    struct tls_pair t = contexts();
    (void)state;
    for (int round = 0; round < 3; round++) {
        struct end client, server;
        pair(&client, &server);
        secure(t, &client, &server, verify);
        assert_int_equal(conn_tls_info(client.conn)->resumed, round > 0);
        assert_int_equal(conn_tls_info(server.conn)->resumed, round > 0);
        assert_true(conn_tls_info(client.conn)->verified);
        say(&server, "x"); /* the ticket comes with it */
        UNTIL(end_has(&client, "x"));
        end_fini(&client);
        end_fini(&server);
    }
    struct end client, server;
    struct tls_target careless = {.name = "mx.example.test", .check = TLS_CHECK_NONE};
    pair(&client, &server);
    secure(t, &client, &server, careless);
    assert_false(
        conn_tls_info(client.conn)->resumed); /* another policy, another session */
    end_fini(&client);
    end_fini(&server);
    contexts_free(t);
}

static void tls_wrong_name_fails_when_verified(void **state)
{
    struct end client, server;
    struct tls_pair t = contexts();
    struct tls_target target = {.name = "other.example.test", .check = TLS_CHECK_VERIFY};
    (void)state;
    pair(&client, &server);
    secure(t, &client, &server, target);
    UNTIL(client.closed);
    assert_int_equal(client.why, ERR_TLS_FAILED);
    assert_string_equal(conn_why(client.conn), "TLS certificate: hostname mismatch");
    end_fini(&client);
    end_fini(&server);

    target.check = TLS_CHECK_NONE;
    pair(&client, &server);
    secure(t, &client, &server, target);
    assert_true(client.secured && server.secured);
    assert_false(conn_tls_info(client.conn)->verified);
    assert_string_equal(conn_tls_info(client.conn)->why_unverified, "hostname mismatch");
    end_fini(&client);
    end_fini(&server);
    contexts_free(t);
}

static void tls_garbage_fails(void **state)
{
    struct end client, server;
    struct tls_pair t = contexts();
    (void)state;
    pair(&client, &server);
    conn_start_tls_server(server.conn, t.server);
    say(&client, "EHLO in the clear\r\n");
    UNTIL(server.closed);
    assert_int_equal(server.why, ERR_TLS_FAILED);
    assert_true(strncmp(conn_why(server.conn), "TLS handshake: ", 15) == 0);
    end_fini(&client);
    end_fini(&server);
    contexts_free(t);
}

static struct tls_pair starttls_contexts;

static void go_tls(struct end *e, struct slice bytes)
{
    if (e->secured || bytes.len < 10)
        return;
    conn_write(e->conn, SLICE("220 go\r\n"));
    conn_start_tls_server(e->conn, starttls_contexts.server);
}

static void what_came_before_tls_is_discarded(void **state)
{
    struct end client, server;
    (void)state;
    starttls_contexts = contexts();
    pair(&client, &server);
    server.on_data = go_tls;
    server.take = 10;
    say(&client, "STARTTLS\r\nMAIL FROM:<injected@example.test>\r\n");
    UNTIL(end_has(&client, "220 go\r\n"));
    struct tls_target target = verify;
    server.take = SIZE_MAX;
    conn_start_tls_client(client.conn, starttls_contexts.client, &target);
    UNTIL(client.secured && server.secured);
    assert_int_equal(conn_discarded(server.conn), 35);
    say(&client, "EHLO\r\n");
    UNTIL(end_has(&server, "STARTTLS\r\nEHLO\r\n"));
    end_fini(&client);
    end_fini(&server);
    contexts_free(starttls_contexts);
}

static void big_output(bool tls)
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

static void tls_files_are_checked(void **state)
{
    char why[300], want[600];
    (void)state;
    assert_null(tls_server_new("/nowhere/c.pem", key_file, why, sizeof(why)));
    assert_string_equal(
        why, "cannot read certificate /nowhere/c.pem: No such file or directory");
    assert_null(tls_server_new(cert_file, other_key_file, why, sizeof(why)));
    snprintf(want, sizeof(want), "key %s does not belong to certificate %s",
        other_key_file, cert_file);
    assert_string_equal(why, want);
    assert_null(tls_server_new(key_file, key_file, why, sizeof(why)));
    assert_non_null(strstr(why, "not a PEM certificate"));
    assert_null(tls_client_new(key_file, why, sizeof(why)));
    struct tls_pair t = contexts();
    int64_t left = tls_server_expires(t.server).ms - wall_now().ms;
    assert_true(left > 86000000 && left <= 86400000);
    contexts_free(t);
}

static int set_up(void **state)
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

static int tear_down(void **state)
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_go_both_ways),
        cmocka_unit_test(refused_connection_is_told_later),
        cmocka_unit_test(bad_egress_address_is_told_later),
        cmocka_unit_test(connect_times_out),
        cmocka_unit_test(untaken_input_waits),
        cmocka_unit_test(pause_holds_back),
        cmocka_unit_test(slow_reader_blocks_and_drains),
        cmocka_unit_test(reset_is_an_error),
        cmocka_unit_test(direct_send_goes_at_once),
        cmocka_unit_test(finish_delivers_the_last_words),
        cmocka_unit_test(owner_may_close_in_a_callback),
        cmocka_unit_test(tls_files_are_checked),
        cmocka_unit_test(tls_carries_bytes),
        cmocka_unit_test(tls_sessions_resume),
        cmocka_unit_test(tls_wrong_name_fails_when_verified),
        cmocka_unit_test(tls_garbage_fails),
        cmocka_unit_test(what_came_before_tls_is_discarded),
        cmocka_unit_test(tls_slow_reader),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
