/* SPDX-License-Identifier: Apache-2.0 */
/* Mail through whole sessions: bodies small and big, pipelining, clients that vanish,
 * memory, shutting down and reloading. */
#include "tests/unit/session_world.h"

static const char mx_settings[] =
    "listeners:\n"
    "  - {name: mx, listen: ['127.0.0.1:0'], service: mx}\n"
    "relay_clients: ['127.0.0.2/32']\n"
    "relay_domains:\n"
    "  - {domain: example.org, next_hop: mx, recipients: any}\n"
    "  - {domain: .sub.example, next_hop: ['[192.0.2.1]:25'], recipients: any}\n";

static void mail_for_a_relay_domain_is_queued(void **state)
{
    struct client k;
    char id[MSG_ID_TEXT + 1], want[100];
    (void)state;
    start(mx_settings);
    greet(&k, 0);
    talk(&k, "MAIL FROM:<a@sender.example>\r\n", "250 2.1.0");
    talk(&k, "RCPT TO:<b@example.org>\r\n", "250 2.1.5");
    talk(&k, "RCPT TO:<c@deep.sub.example>\r\n", "250 2.1.5");
    talk(&k, "RCPT TO:<b@example.org>\r\n", "250 2.1.5");
    talk(&k, "RCPT TO:<d@elsewhere.example>\r\n", "550 5.7.1");
    talk(&k, "DATA\r\n", "354 ");
    talk(&k, "Subject: x\r\nBcc: kept@example.org\r\n\r\nbody\r\n.\r\n",
        "250 2.0.0 queued as ");
    assert_int_equal(w.accepted_count, 1);
    const struct message *m = w.accepted[0];
    msg_id_format(m->id, id);
    snprintf(want, sizeof(want), "250 2.0.0 queued as %s\r\n", id);
    assert_true(slice_eq(buf_slice(&k.got), slice_str(want)));
    assert_int_equal(m->unit_count, 2);
    assert_true(slice_eq(m->units[0].domain, SLICE("deep.sub.example")));
    assert_true(slice_eq(m->units[1].domain, SLICE("example.org")));
    assert_int_equal(m->units[1].rcpt_count, 1); /* named twice, one copy */
    assert_int_equal(m->origin, ORIGIN_MX);
    assert_true(slice_eq(m->reverse_path, SLICE("a@sender.example")));
    assert_true(body_has(m, "Received: from client.example"));
    assert_true(body_has(m, "Subject: x\r\nBcc: kept@example.org\r\n\r\nbody\r\n"));
    assert_int_equal(stored_units(), 2);
    assert_int_equal(intake_memory(w.intake), 0);
    quit(&k);
    stop();
}

static void pipelined_session_in_one_packet(void **state)
{
    struct client k;
    (void)state;
    start(mx_settings);
    greet(&k, 0);
    talk_n(&k, "MAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n", 3, "250 ");
    talk_n(&k,
        "one\r\n.\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n", 4,
        "250 2.0.0 queued as ");
    /* The client says no more, yet wants its answers. */
    say(&k, "two\r\n.\r\n");
    buf_clear(&k.got);
    conn_half_close(k.conn);
    UNTIL(k.closed);
    assert_true(got_has(&k, "250 2.0.0 queued as "));
    assert_int_equal(w.accepted_count, 2);
    client_close(&k);
    stop();
}

static void chunks_make_a_message(void **state)
{
    struct client k;
    (void)state;
    start(mx_settings);
    greet(&k, 0);
    talk_n(&k,
        "MAIL FROM:<a@b.example> BODY=8BITMIME RET=HDRS ENVID=e+2Bx\r\n"
        "RCPT TO:<b@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b@old.example\r\n"
        "BDAT 14\r\nSubject: x\r\n\r\nBDAT 4 LAST\r\nbody",
        4, "250 ");
    assert_true(got_has(&k, "250 2.0.0 queued as "));
    const struct message *m = w.accepted[0];
    assert_int_equal(m->ret, DSN_RET_HDRS);
    assert_int_equal(m->body_type, BODY_8BITMIME);
    assert_true(slice_eq(m->envid, SLICE("e+x")));
    assert_int_equal(m->units[0].rcpts[0].notify, NOTIFY_SUCCESS | NOTIFY_DELAY);
    assert_true(slice_eq(m->units[0].rcpts[0].orcpt, SLICE("rfc822;b@old.example")));
    assert_true(body_has(m, "\r\nSubject: x\r\n\r\nbody"));
    quit(&k);
    stop();
}

static void big_body(struct client *k, size_t bytes)
{
    char line[1000];
    memset(line, 'x', sizeof(line));
    memcpy(line + sizeof(line) - 2, "\r\n", 2);
    for (size_t n = 0; n < bytes; n += sizeof(line)) {
        conn_write(k->conn, slice_make(line, sizeof(line)));
        if (conn_unsent(k->conn) > 100000) {
            conn_flush(k->conn);
            UNTIL(conn_unsent(k->conn) < 100000 || k->closed);
        }
    }
    conn_flush(k->conn);
}

static void big_body_goes_to_disk_as_it_comes(void **state)
{
    struct client k;
    struct buf text;
    (void)state;
    start(mx_settings);
    greet(&k, 0);
    talk(&k, "MAIL FROM:<a@b.example> SIZE=6000000\r\n", "250 ");
    talk(&k, "RCPT TO:<b@example.org>\r\n", "250 ");
    talk(&k, "DATA\r\n", "354 ");
    say(&k, "Subject: big\r\n\r\n");
    big_body(&k, 6000000);
    talk(&k, ".\r\n", "250 2.0.0 queued as ");
    assert_null(w.accepted[0]->body);
    body_text(w.accepted[0], &text);
    assert_true(buf_len(&text) > 6000000);
    buf_fini(&text);
    assert_int_equal(intake_memory(w.intake), 0);
    quit(&k);
    stop();
}

static void vanished_client_leaves_nothing(void **state)
{
    struct client k;
    (void)state;
    start(mx_settings);
    greet(&k, 0);
    talk(&k, "MAIL FROM:<a@b.example>\r\n", "250 ");
    talk(&k, "RCPT TO:<b@example.org>\r\n", "250 ");
    talk(&k, "DATA\r\n", "354 ");
    big_body(&k, 3000000);
    UNTIL(stored_bodies() > 0 || conn_unsent(k.conn) == 0);
    conn_abort(k.conn);
    k.conn = NULL;
    client_close(&k);
    UNTIL(intake_sessions(w.intake) == 0);
    assert_int_equal(intake_memory(w.intake), 0);
    assert_int_equal(w.accepted_count, 0);
    assert_int_equal(stored_bodies(), 0);
    stop();
}

static void memory_is_bounded(void **state)
{
    struct client k[5];
    (void)state;
    start("queue: {quota: 20GB, memory: 4MiB}\n"
          "listeners:\n"
          "  - {name: mx, listen: ['127.0.0.1:0'], service: mx}\n"
          "relay_domains:\n"
          "  - {domain: example.org, next_hop: mx, recipients: any}\n");
    for (int i = 0; i < 4; i++) {
        greet(&k[i], 0);
        talk(&k[i], "MAIL FROM:<a@b.example> SIZE=2000000\r\n", "250 ");
    }
    greet(&k[4], 0);
    talk(&k[4], "MAIL FROM:<a@b.example> SIZE=2000000\r\n", "452 4.3.1");
    talk(&k[0], "RSET\r\n", "250 ");
    talk(&k[4], "MAIL FROM:<a@b.example> SIZE=2000000\r\n", "250 ");
    for (int i = 0; i < 5; i++)
        quit(&k[i]);
    stop();
}

static void postmaster_is_always_reached(void **state)
{
    struct client k;
    (void)state;
    start(mx_settings);
    greet(&k, 0);
    talk(&k, "MAIL FROM:<>\r\n", "250 ");
    talk(&k, "RCPT TO:<postmaster>\r\n", "250 ");
    talk(&k, "RCPT TO:<Abuse@mx.test.example>\r\n", "250 ");
    talk(&k, "RCPT TO:<joe@mx.test.example>\r\n", "550 5.1.1");
    talk(&k, "DATA\r\n", "354 ");
    talk(&k, "help\r\n.\r\n", "250 ");
    const struct message *m = w.accepted[0];
    assert_int_equal(m->unit_count, 1);
    assert_int_equal(m->units[0].rcpt_count, 1);
    assert_true(slice_eq(m->units[0].rcpts[0].address, SLICE("admin@ops.example")));
    quit(&k);
    stop();
}

static void drain_lets_a_message_finish(void **state)
{
    struct client busy, idle;
    (void)state;
    start(mx_settings);
    greet(&busy, 0);
    greet(&idle, 0);
    talk(&busy, "MAIL FROM:<a@b.example>\r\n", "250 ");
    talk(&busy, "RCPT TO:<b@example.org>\r\n", "250 ");
    talk(&busy, "DATA\r\n", "354 ");
    buf_clear(&idle.got);
    intake_drain(w.intake);
    UNTIL(idle.closed);
    assert_true(got_has(&idle, "421 4.3.2"));
    client_close(&idle);
    talk(&busy, "hi\r\n.\r\n", "250 2.0.0");
    UNTIL(busy.closed);
    assert_true(got_has(&busy, "421 4.3.2"));
    client_close(&busy);
    client_open(&idle, 0);
    assert_int_equal(idle.why, ERR_CONNECT_REFUSED);
    client_close(&idle);
    stop();
}

static bool reload(const char *yaml)
{
    struct settings_problems problems;
    struct settings *s = parse(yaml);
    settings_problems_init(&problems);
    bool done = intake_reload(w.intake, s, &problems);
    settings_problems_fini(&problems);
    settings_unref(s);
    return done;
}

static void reload_keeps_open_listeners(void **state)
{
    struct client old, fresh;
    struct netaddr before;
    (void)state;
    start(mx_settings);
    before = w.at[0];
    greet(&old, 0);
    assert_true(reload("listeners:\n"
                       "  - {name: mx, listen: ['127.0.0.1:0'], service: mx}\n"
                       "  - {name: more, listen: ['127.0.0.1:0'], service: mx}\n"
                       "relay_domains:\n"
                       "  - {domain: example.net, next_hop: mx, recipients: any}\n"));
    assert_int_equal(intake_addresses(w.intake, w.at, 8), 2);
    assert_int_equal(w.at[0].port, before.port);
    talk(&old, "MAIL FROM:<a@b.example>\r\n", "250 ");
    talk(&old, "RCPT TO:<b@example.org>\r\n", "250 "); /* what it began with */
    quit(&old);
    for (unsigned i = 0; i < 2; i++) {
        greet(&fresh, i);
        talk(&fresh, "MAIL FROM:<a@b.example>\r\n", "250 ");
        talk(&fresh, "RCPT TO:<b@example.org>\r\n", "550 5.7.1");
        talk(&fresh, "RCPT TO:<b@example.net>\r\n", "250 ");
        quit(&fresh);
    }
    assert_false(reload("listeners:\n"
                        "  - {name: mx, listen: ['127.0.0.1:0'], service: mx}\n"
                        "relay_clients: [0.0.0.0/0]\n"));
    assert_true(reload("listeners:\n"
                       "  - {name: more, listen: ['127.0.0.1:0'], service: mx}\n"));
    w.at[1] = before;
    UNTIL((client_open(&fresh, 1), client_close(&fresh), fresh.closed));
    w.at[0].port = 0;
    intake_addresses(w.intake, w.at, 8);
    greet(&fresh, 0);
    quit(&fresh);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mail_for_a_relay_domain_is_queued),
        cmocka_unit_test(pipelined_session_in_one_packet),
        cmocka_unit_test(chunks_make_a_message),
        cmocka_unit_test(big_body_goes_to_disk_as_it_comes),
        cmocka_unit_test(vanished_client_leaves_nothing),
        cmocka_unit_test(memory_is_bounded),
        cmocka_unit_test(postmaster_is_always_reached),
        cmocka_unit_test(drain_lets_a_message_finish),
        cmocka_unit_test(reload_keeps_open_listeners),
    };
    return cmocka_run_group_tests(tests, world_set_up, world_tear_down);
}
