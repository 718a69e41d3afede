/* SPDX-License-Identifier: Apache-2.0 */
/* TLS on connections: both ways, in mid-stream, resumed, refused. */
#include "tests/unit/conn_ends.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tls_carries_bytes),
        cmocka_unit_test(tls_slow_reader),
        cmocka_unit_test(tls_sessions_resume),
        cmocka_unit_test(tls_wrong_name_fails_when_verified),
        cmocka_unit_test(tls_garbage_fails),
        cmocka_unit_test(what_came_before_tls_is_discarded),
        cmocka_unit_test(tls_files_are_checked),
    };
    return cmocka_run_group_tests(tests, ends_set_up, ends_tear_down);
}
