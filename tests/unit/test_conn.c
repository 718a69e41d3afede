/* SPDX-License-Identifier: Apache-2.0 */
/* Connections on loopback sockets: bytes, back-pressure, ends of all kinds. */
#include "tests/unit/conn_ends.h"

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
    };
    return cmocka_run_group_tests(tests, ends_set_up, ends_tear_down);
}
