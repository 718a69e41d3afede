/* SPDX-License-Identifier: Apache-2.0 */
/* What clients hear of a cluster: nothing where nobody knows, 451 where it cannot take
 * mail, and bounds on what one message may name. */
#include "tests/unit/rights_world.h"
#include "tests/unit/session_world.h"

static const char settings[] =
    "listeners:\n"
    "  - {name: mx, listen: ['127.0.0.1:0'], service: mx}\n"
    "relay_domains:\n"
    "  - {domain: .sub.example, next_hop: ['[192.0.2.1]:25'], recipients: any}\n";

static struct rights *fake_rights(struct store *store)
{
    fake_open(store);
    return fake.rights;
}

static void begin(struct client *k)
{
    world_rights = fake_rights;
    start(settings);
    greet(k, 0);
}

static void offer(struct client *k)
{
    talk(k, "MAIL FROM:<a@sender.example>\r\n", "250 ");
    talk(k, "RCPT TO:<b@c.sub.example>\r\n", "250 ");
    talk(k, "DATA\r\n", "354 ");
}

static void taken_when_the_copies_are_durable(void **state)
{
    struct client k;
    (void)state;
    begin(&k);
    rights_publish_accept(fake.rights, ERR_OK);
    offer(&k);
    talk(&k, "body\r\n.\r\n", "250 2.0.0 queued as ");
    assert_int_equal(fake.accepts, 1);
    assert_int_equal(w.accepted_count, 1);
    assert_int_equal(stored_units(), 0); /* that is the backend's */
    quit(&k);
    stop();
}

static void no_reply_where_nobody_knows(void **state)
{
    struct client k;
    (void)state;
    begin(&k);
    rights_publish_accept(fake.rights, ERR_OK);
    fake.accept_result = ERR_OUTCOME_UNKNOWN;
    offer(&k);
    buf_clear(&k.got);
    say(&k, "body\r\n.\r\nMAIL FROM:<x@y.example>\r\n");
    UNTIL(k.closed);
    assert_int_equal(buf_len(&k.got), 0);
    assert_int_equal(w.accepted_count, 0);
    assert_int_equal(intake_memory(w.intake), 0);
    client_close(&k);
    stop();
}

static void refused_without_copies(void **state)
{
    struct client k;
    (void)state;
    begin(&k);
    talk(&k, "MAIL FROM:<a@sender.example>\r\n", "451 4.3.0 replication unavailable");
    rights_publish_accept(fake.rights, ERR_OK);
    fake.accept_result = ERR_COPIES_UNAVAILABLE;
    offer(&k);
    talk(&k, "body\r\n.\r\n", "451 4.3.0 replication unavailable");
    assert_int_equal(w.accepted_count, 0);
    rights_publish_accept(fake.rights, ERR_OVERLOADED);
    talk(&k, "MAIL FROM:<a@sender.example>\r\n", "421 ");
    UNTIL(k.closed);
    client_close(&k);
    stop();
}

static void too_many_domains(void **state)
{
    struct client k;
    char rcpt[64];
    (void)state;
    begin(&k);
    rights_publish_accept(fake.rights, ERR_OK);
    talk(&k, "MAIL FROM:<a@sender.example>\r\n", "250 ");
    for (unsigned i = 0; i <= MESSAGE_UNITS_MAX; i++) {
        snprintf(rcpt, sizeof(rcpt), "RCPT TO:<a@d%u.sub.example>\r\n", i);
        talk(&k, rcpt, i < MESSAGE_UNITS_MAX ? "250 " : "452 4.5.3 ");
    }
    talk(&k, "RCPT TO:<b@d7.sub.example>\r\n", "250 ");
    talk(&k, "DATA\r\n", "354 ");
    talk(&k, "body\r\n.\r\n", "250 ");
    assert_int_equal(w.accepted[0]->unit_count, MESSAGE_UNITS_MAX);
    quit(&k);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taken_when_the_copies_are_durable),
        cmocka_unit_test(no_reply_where_nobody_knows),
        cmocka_unit_test(refused_without_copies),
        cmocka_unit_test(too_many_domains),
    };
    return cmocka_run_group_tests(tests, world_set_up, world_tear_down);
}
