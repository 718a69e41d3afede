/* SPDX-License-Identifier: Apache-2.0 */
/* Whom a session trusts: passwords, relay clients, limits, PROXY, XCLIENT, and which
 * recipients exist. */
#include "tests/unit/session_world.h"

/* --- submission --- */

static const char submission_settings[] =
    "tls: {certificate: '%s', key: '%s'}\n"
    "users: {file: '%s'}\n"
    "may_send_as: {alice: [alice@corp.example, '@alice.example']}\n"
    "limits: {auth_failures: 3}\n"
    "listeners:\n"
    "  - {name: submission, listen: ['127.0.0.1:0'], service: submission, tls: "
    "optional}\n"
    "  - {name: submissions, listen: ['127.0.0.1:0'], service: submission, tls: "
    "implicit}\n"
    "relay_clients: ['127.0.0.2/32']\n";

static void start_submission(void)
{
    char yaml[2048];
    snprintf(yaml, sizeof(yaml), submission_settings, cert_file, key_file, users_file);
    start(yaml);
}

static void relay_clients_need_no_password(void **state)
{
    struct client k;
    (void)state;
    start_submission();
    client_open_from(&k, 0, "127.0.0.2");
    talk(&k, "EHLO app.example\r\n", "220 ");
    UNTIL(replies(&k) == 2);
    talk(&k, "MAIL FROM:<app@corp.example>\r\n", "250 ");
    talk(&k, "RCPT TO:<x@anywhere.example>\r\n", "250 ");
    talk(&k, "DATA\r\n", "354 ");
    talk(&k, "Subject: s\r\nBcc: hidden@x.example\r\n\r\nhi\r\n.\r\n", "250 2.0.0");
    const struct message *m = w.accepted[0];
    assert_int_equal(m->origin, ORIGIN_RELAY_CLIENT);
    assert_true(m->units[0].delay_warning_ms > 0);
    assert_false(body_has(m, "hidden@x.example"));
    assert_true(body_has(m, "\r\nMessage-ID: <"));
    assert_true(body_has(m, "\r\nDate: "));
    quit(&k);
    greet(&k, 0);
    talk(&k, "MAIL FROM:<app@corp.example>\r\n", "530 5.7.0 Authentication required");
    quit(&k);
    stop();
}

static struct tls_client *tls_client(void)
{
    char why[300];
    struct tls_client *t = tls_client_new(cert_file, why, sizeof(why));
    assert_non_null(t);
    return t;
}

static void secure(struct client *k, struct tls_client *t)
{
    struct tls_target target = {.name = "mx.test.example", .check = TLS_CHECK_VERIFY};
    conn_start_tls_client(k->conn, t, &target);
    UNTIL(k->secured || k->closed);
    assert_true(k->secured);
}

static void password_over_starttls(void **state)
{
    struct client k;
    struct tls_client *t;
    (void)state;
    start_submission();
    t = tls_client();
    greet(&k, 0);
    assert_false(got_has(&k, "AUTH"));
    talk(&k, "AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n", "5");
    talk(&k, "STARTTLS\r\n", "220 ");
    secure(&k, t);
    talk(&k, "EHLO client.example\r\n", "250-");
    assert_true(got_has(&k, "AUTH PLAIN LOGIN"));
    assert_false(got_has(&k, "STARTTLS"));
    talk(&k, "AUTH PLAIN AGFsaWNlAHdyb25n\r\n", "535 5.7.8");
    talk(&k, "AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n", "235 2.7.0");
    talk(&k, "MAIL FROM:<bob@corp.example>\r\n", "553 5.7.1");
    talk(&k, "MAIL FROM:<x@alice.example>\r\n", "250 ");
    talk(&k, "RCPT TO:<x@anywhere.example>\r\n", "250 ");
    talk(&k, "DATA\r\n", "354 ");
    talk(&k, "Subject: s\r\n\r\nhi\r\n.\r\n", "250 2.0.0");
    assert_int_equal(w.accepted[0]->origin, ORIGIN_SUBMISSION);
    assert_true(slice_eq(w.accepted[0]->user, SLICE("alice")));
    assert_true(body_has(w.accepted[0], "with ESMTPSA"));
    quit(&k);
    tls_client_unref(t);
    stop();
}

static void guessing_is_slowed(void **state)
{
    struct client k;
    struct tls_client *t;
    (void)state;
    start_submission();
    t = tls_client();
    client_open(&k, 1);
    secure(&k, t);
    talk(&k, "", "220 ");
    talk(&k, "EHLO client.example\r\n", "250-");
    talk(&k, "AUTH LOGIN\r\n", "334 ");
    talk(&k, "bm9ib2R5\r\n", "334 ");
    talk(&k, "c2VjcmV0\r\n", "535 5.7.8");
    talk(&k, "AUTH LOGIN YWxpY2U=\r\n", "334 ");
    talk(&k, "d3Jvbmc=\r\n", "535 5.7.8");
    talk(&k, "AUTH PLAIN\r\n", "334 ");
    talk(&k, "AGFsaWNlAHdyb25n\r\n", "535 5.7.8");
    talk(&k, "AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n", "454 4.7.0");
    quit(&k);
    tls_client_unref(t);
    stop();
}

/* --- limits, proxies, shutting down --- */

static void client_limits_hold(void **state)
{
    struct client k[4];
    (void)state;
    start("limits: {client_connections: 2, client_rate: 3/1m}\n"
          "listeners:\n"
          "  - {name: mx, listen: ['127.0.0.1:0'], service: mx}\n"
          "relay_clients: ['127.0.0.2/32']\n");
    greet(&k[0], 0);
    greet(&k[1], 0);
    client_open(&k[2], 0);
    talk(&k[2], "", "421 4.7.0 Too many connections from your address");
    UNTIL(k[2].closed);
    client_close(&k[2]);
    quit(&k[0]);
    greet(&k[0], 0);
    quit(&k[0]);
    client_open(&k[2], 0);
    talk(&k[2], "", "421 4.7.0 Connecting too often");
    UNTIL(k[2].closed);
    client_close(&k[2]);
    for (int i = 2; i < 4; i++) { /* relay clients are exempt */
        client_open_from(&k[i], 0, "127.0.0.2");
        talk(&k[i], "", "220 ");
    }
    quit(&k[1]);
    quit(&k[2]);
    quit(&k[3]);
    stop();
}

static void proxy_header_names_the_client(void **state)
{
    struct client k;
    (void)state;
    start("listeners:\n"
          "  - {name: in, listen: ['127.0.0.1:0'], service: submission,"
          " proxy_protocol: {from: ['127.0.0.1/32']}}\n"
          "relay_clients: ['127.0.0.1/32', '192.0.2.9/32']\n");
    client_open(&k, 0);
    say(&k, "PROXY TCP4 192.0");
    talk(&k, ".2.9 203.0.113.1 5555 25\r\nEHLO a.example\r\n", "220 ");
    UNTIL(replies(&k) == 2);
    talk(&k, "MAIL FROM:<a@b.example>\r\n", "250 ");
    quit(&k);
    /* The proxy's own address gives no rights, neither by a stranger nor by itself. */
    client_open(&k, 0);
    talk_n(&k, "PROXY TCP4 198.51.100.1 203.0.113.1 5555 25\r\nEHLO a\r\n", 2, "220 ");
    talk(&k, "MAIL FROM:<a@b.example>\r\n", "550 5.7.1");
    quit(&k);
    client_open(&k, 0);
    talk_n(&k, "PROXY UNKNOWN\r\nEHLO a\r\n", 2, "220 ");
    talk(&k, "MAIL FROM:<a@b.example>\r\n", "550 5.7.1");
    quit(&k);
    /* No header, and a header from elsewhere: closed without a word. */
    client_open(&k, 0);
    say(&k, "EHLO a.example\r\n");
    UNTIL(k.closed);
    assert_int_equal(buf_len(&k.got), 0);
    client_close(&k);
    client_open_from(&k, 0, "127.0.0.3");
    say(&k, "PROXY TCP4 192.0.2.9 203.0.113.1 5555 25\r\n");
    UNTIL(k.closed);
    assert_int_equal(buf_len(&k.got), 0);
    client_close(&k);
    stop();
}

/* The hello of TLS is in the socket with the header: not a byte too many may be taken. */
static void proxy_header_then_tls_in_one_breath(void **state)
{
    struct client k;
    struct tls_client *t;
    char yaml[2048];
    (void)state;
    snprintf(yaml, sizeof(yaml),
        "tls: {certificate: '%s', key: '%s'}\n"
        "listeners:\n"
        "  - {name: in, listen: ['127.0.0.1:0'], service: submission, tls: implicit,"
        " proxy_protocol: {from: ['127.0.0.1/32']}}\n"
        "relay_clients: ['192.0.2.9/32']\n",
        cert_file, key_file);
    start(yaml);
    t = tls_client();
    client_open(&k, 0);
    conn_write(k.conn, SLICE("PROXY TCP4 192.0.2.9 203.0.113.1 5555 465\r\n"));
    secure(&k, t);
    talk(&k, "", "220 ");
    talk(&k, "EHLO a.example\r\n", "250-");
    talk(&k, "MAIL FROM:<a@b.example>\r\n", "250 ");
    quit(&k);
    tls_client_unref(t);
    stop();
}

static void xclient_names_the_client(void **state)
{
    struct client k;
    (void)state;
    start("listeners:\n"
          "  - {name: in, listen: ['127.0.0.1:0'], service: submission,"
          " xclient_from: ['127.0.0.1/32']}\n"
          "relay_clients: ['127.0.0.1/32', '192.0.2.9/32']\n");
    greet(&k, 0);
    assert_true(got_has(&k, "XCLIENT"));
    talk(&k, "XCLIENT ADDR=198.51.100.7 NAME=c.example\r\n", "220 ");
    talk(&k, "EHLO a.example\r\n", "250-");
    talk(&k, "MAIL FROM:<a@b.example>\r\n", "550 5.7.1");
    talk(&k, "XCLIENT ADDR=192.0.2.9\r\n", "550"); /* it is not the proxy's word now */
    quit(&k);
    greet(&k, 0);
    talk(&k, "XCLIENT ADDR=192.0.2.9\r\n", "220 ");
    talk(&k, "EHLO a.example\r\n", "250-");
    talk(&k, "MAIL FROM:<a@b.example>\r\n", "250 ");
    quit(&k);
    client_open_from(&k, 0, "127.0.0.3");
    talk(&k, "", "220 ");
    talk(&k, "EHLO a.example\r\n", "250-");
    assert_false(got_has(&k, "XCLIENT"));
    talk(&k, "XCLIENT ADDR=192.0.2.9\r\n", "550");
    quit(&k);
    stop();
}

/* --- recipients --- */

static void recipients_from_a_file(void **state)
{
    struct client k;
    char yaml[600];
    (void)state;
    snprintf(yaml, sizeof(yaml),
        "listeners:\n"
        "  - {name: mx, listen: ['127.0.0.1:0'], service: mx}\n"
        "relay_domains:\n"
        "  - {domain: example.org, next_hop: mx, recipients: '%s'}\n",
        list_file);
    start(yaml);
    greet(&k, 0);
    talk(&k, "MAIL FROM:<>\r\n", "250 ");
    talk(&k, "RCPT TO:<JOE@example.org>\r\n", "250 ");
    talk(&k, "RCPT TO:<jane@example.org>\r\n", "250 ");
    talk(&k, "RCPT TO:<postmaster@example.org>\r\n", "250 ");
    talk(&k, "RCPT TO:<jim@example.org>\r\n", "550 5.1.1");
    quit(&k);
    stop();
}

/* A primary that knows one recipient. */
struct primary {
    struct acceptor *door;
    unsigned connections;
    struct conn *conn;
    struct buf line;
};

static size_t primary_data(struct conn *c, struct slice bytes, void *owner)
{
    struct primary *p = owner;
    buf_append(&p->line, bytes);
    struct slice line = buf_slice(&p->line);
    if (line.ptr[line.len - 1] != '\n')
        return bytes.len;
    if (slice_starts(line, SLICE("EHLO")))
        conn_write(c, SLICE("250-primary\r\n250 SIZE\r\n"));
    else if (slice_starts(line, SLICE("RCPT TO:<known@")))
        conn_write(c, SLICE("250 ok\r\n"));
    else if (slice_starts(line, SLICE("RCPT TO:<later@")))
        conn_write(c, SLICE("450 later\r\n"));
    else if (slice_starts(line, SLICE("RCPT")))
        conn_write(c, SLICE("550 who?\r\n"));
    else if (slice_eq(line, SLICE("MAIL FROM:<>\r\n")))
        conn_write(c, SLICE("250 ok\r\n"));
    conn_flush(c);
    buf_clear(&p->line);
    return bytes.len;
}

static void primary_closed(struct conn *c, enum err why, void *owner)
{
    (void)why;
    conn_close(c);
    ((struct primary *)owner)->conn = NULL;
}

static const struct conn_handler primary_events = {
    .data = primary_data, .closed = primary_closed};

static void primary_accept(int fd, struct netaddr peer, void *ctx)
{
    struct primary *p = ctx;
    p->connections++;
    buf_clear(&p->line);
    p->conn = conn_accept(w.conns, fd, peer, &primary_events, p);
    conn_write(p->conn, SLICE("220 primary\r\n"));
    conn_flush(p->conn);
}

static void recipients_are_verified(void **state)
{
    struct client k;
    struct primary p = {0};
    struct netaddr at;
    char yaml[600], why[200], text[NETADDR_TEXT_MAX];
    int fd;
    (void)state;
    netaddr_parse(SLICE("127.0.0.1:0"), 0, &at);
    assert_int_equal(listen_open(at, 1, &fd, &at, why, sizeof(why)), ERR_OK);
    netaddr_format(at, text);
    snprintf(yaml, sizeof(yaml),
        "listeners:\n"
        "  - {name: mx, listen: ['127.0.0.1:0'], service: mx}\n"
        "relay_domains:\n"
        "  - {domain: example.org, next_hop: ['%s'], recipients: verify}\n",
        text);
    start(yaml);
    buf_init(&p.line, 10000);
    p.door = acceptor_new(w.loop, fd, primary_accept, &p);
    greet(&k, 0);
    talk(&k, "MAIL FROM:<a@b.example>\r\n", "250 ");
    talk(&k, "RCPT TO:<known@example.org>\r\n", "250 ");
    talk(&k, "RCPT TO:<unknown@example.org>\r\n", "550 5.1.1");
    talk(&k, "RCPT TO:<later@example.org>\r\n", "450 4.4.1");
    assert_int_equal(p.connections, 3);
    talk(&k, "RCPT TO:<known@example.org>\r\n", "250 ");
    talk(&k, "RCPT TO:<unknown@example.org>\r\n", "550 5.1.1");
    talk(&k, "RCPT TO:<postmaster@example.org>\r\n", "250 ");
    assert_int_equal(p.connections, 3); /* remembered */
    UNTIL(!p.conn);
    acceptor_free(p.door);
    talk(&k, "RCPT TO:<other@example.org>\r\n",
        "450 4.4.1 Recipient cannot be verified now");
    quit(&k);
    buf_fini(&p.line);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(relay_clients_need_no_password),
        cmocka_unit_test(password_over_starttls),
        cmocka_unit_test(guessing_is_slowed),
        cmocka_unit_test(client_limits_hold),
        cmocka_unit_test(proxy_header_names_the_client),
        cmocka_unit_test(proxy_header_then_tls_in_one_breath),
        cmocka_unit_test(xclient_names_the_client),
        cmocka_unit_test(recipients_from_a_file),
        cmocka_unit_test(recipients_are_verified),
    };
    return cmocka_run_group_tests(tests, world_set_up, world_tear_down);
}
