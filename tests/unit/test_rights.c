/* SPDX-License-Identifier: Apache-2.0 */
/* The seam to the cluster: gate, tickets, and what an asker hears. */
#include "tests/unit/rights_world.h"

#include <pthread.h>

static const struct unit_id UNIT = {.unit = 3};
static struct mailbox *box;
static unsigned heard;

static int set_up(void **state)
{
    (void)state;
    fake_open(store_open_ram(1 << 20));
    box = mailbox_new(NULL);
    heard = 0;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mailbox_drain(box);
    fake_close();
    mailbox_free(box);
    store_close(fake.store);
    return 0;
}

static void changed(struct attempt_ticket *t, void *owner)
{
    (void)owner;
    assert_ptr_equal(t->ctx, &heard);
    heard++;
}

static enum err begin(struct rights *r, uint64_t rcpts, struct attempt *a)
{
    struct rights_asker asker = {.reply_to = box, .changed = changed, .ctx = &heard};
    return rights_begin(r, UNIT, rcpts, &asker, a);
}

static void a_node_alone_answers_itself(void **state)
{
    struct rights *r = rights_new(fake.store, NULL, NULL);
    struct attempt a = {0}, b = {0}, never = {0};
    struct rights_grant grant;
    (void)state;
    assert_false(rights_clustered(r));
    assert_int_equal(rights_may_accept(r), ERR_OK);
    assert_int_equal(rights_gate(r, &never), GATE_CLOSED);
    assert_int_equal(begin(r, 1, &a), ERR_OK);
    uint64_t id = a.id;
    assert_int_equal(begin(r, 1, &a), ERR_OK);
    assert_true(a.id == id && id != 0);
    assert_int_equal(begin(r, 1, &b), ERR_OK);
    assert_true(b.id != id);
    assert_int_equal(rights_granted(r, &a, &grant), GATE_OPEN);
    assert_true(grant.rcpts == UINT64_MAX && grant.doubt == 0);
    assert_int_equal(rights_gate(r, &a), GATE_OPEN);
    rights_end(r, &b, false);
    assert_int_equal(rights_gate(r, &b), GATE_CLOSED);
    rights_close_gate(r);
    assert_int_equal(rights_gate(r, &a), GATE_CLOSED);
    assert_false(rights_may_deliver(r));
    rights_end(r, &a, true);
    assert_int_equal(begin(r, 1, &a), ERR_RIGHT_MISSING);
    rights_free(r);
}

static void the_ticket_opens_the_gate_step_by_step(void **state)
{
    struct rights *r = fake.rights;
    struct attempt a = {0};
    struct rights_grant grant;
    (void)state;
    assert_int_equal(begin(r, 7, &a), ERR_RIGHT_MISSING);
    assert_int_equal(fake.begun, 0);
    fake_lease(60000);
    assert_int_equal(begin(r, 7, &a), ERR_OK);
    assert_int_equal(begin(r, 7, &a), ERR_OK);
    assert_int_equal(fake.begun, 1);
    assert_int_equal(rights_granted(r, &a, &grant), GATE_WAIT);
    assert_int_equal(rights_gate(r, &a), GATE_WAIT);
    fake.doubt = 6;
    fake.cause = '1';
    ticket_open(fake.ticket); /* out of turn */
    fake_grant(8 | 4 | 1);    /* 8 was not asked for */
    assert_int_equal(rights_granted(r, &a, &grant), GATE_OPEN);
    assert_true(grant.rcpts == 5 && grant.doubt == 4 && grant.cause == '1');
    assert_true(a.id != 0);
    assert_int_equal(rights_gate(r, &a), GATE_WAIT);
    ticket_open(fake.ticket);
    assert_int_equal(rights_gate(r, &a), GATE_OPEN);
    rights_close_gate(r);
    assert_int_equal(rights_gate(r, &a), GATE_CLOSED);
    rights_end(r, &a, false);
    assert_int_equal(fake.gone, 0);
}

static void the_gate_asks_for_lease_and_epoch(void **state)
{
    struct rights *r = fake.rights;
    struct attempt a = {0};
    struct rights_gate_value v = {.epoch = 1, .is_static = true};
    (void)state;
    fake.answers = fake.opens = true;
    fake_lease(60000);
    assert_int_equal(begin(r, 1, &a), ERR_OK);
    assert_int_equal(rights_gate(r, &a), GATE_OPEN);
    fake_lease(3000); /* enough for a dot, too little to start */
    assert_int_equal(rights_gate(r, &a), GATE_OPEN);
    assert_false(rights_may_deliver(r));
    fake_lease(500);
    assert_int_equal(rights_gate(r, &a), GATE_WAIT);
    rights_publish_gate(r, &v);
    assert_int_equal(rights_gate(r, &a), GATE_OPEN);
    assert_true(rights_may_deliver(r));
    v.frozen = true;
    rights_publish_gate(r, &v);
    assert_int_equal(rights_gate(r, &a), GATE_WAIT);
    assert_false(rights_may_deliver(r));
    v = (struct rights_gate_value){.epoch = 2, .is_static = true};
    rights_publish_gate(r, &v);
    assert_int_equal(rights_gate(r, &a), GATE_CLOSED);
    rights_end(r, &a, false);
}

static void what_ended_stays_so(void **state)
{
    struct rights *r = fake.rights;
    struct attempt a = {0};
    struct rights_grant grant;
    (void)state;
    fake_lease(60000);
    assert_int_equal(begin(r, 1, &a), ERR_OK);
    ticket_answer(fake.ticket, 0, 0, 1);
    fake_grant(1);
    ticket_open(fake.ticket);
    ticket_close(fake.ticket);
    assert_int_equal(rights_granted(r, &a, &grant), GATE_CLOSED);
    assert_int_equal(rights_gate(r, &a), GATE_CLOSED);
    rights_end(r, &a, true);
    assert_int_equal(fake.gone, 1);

    fake.answers = fake.opens = true;
    assert_int_equal(begin(r, 1, &a), ERR_OK);
    ticket_close(fake.ticket);
    ticket_open(fake.ticket);
    assert_int_equal(rights_granted(r, &a, &grant), GATE_CLOSED);
    assert_int_equal(rights_gate(r, &a), GATE_CLOSED);
    rights_end(r, &a, true);
    assert_int_equal(fake.gone, 2);
}

static void the_asker_hears_once_a_change(void **state)
{
    struct attempt a = {0};
    (void)state;
    fake_lease(60000);
    assert_int_equal(begin(fake.rights, 1, &a), ERR_OK);
    assert_int_equal(mailbox_drain(box), 0);
    fake_grant(1);
    ticket_open(fake.ticket); /* on its way already */
    mailbox_drain(box);
    assert_int_equal(heard, 1);
    ticket_open(fake.ticket); /* no change */
    mailbox_drain(box);
    assert_int_equal(heard, 1);
    ticket_close(fake.ticket);
    mailbox_drain(box);
    assert_int_equal(heard, 2);
    rights_end(fake.rights, &a, true);
}

static void a_ticket_outlives_its_asker(void **state)
{
    struct attempt a = {0};
    (void)state;
    fake_lease(60000);
    assert_int_equal(begin(fake.rights, 1, &a), ERR_OK);
    fake_grant(1); /* posted, and not heard yet */
    rights_end(fake.rights, &a, true);
    rights_end(fake.rights, &a, true);
    assert_int_equal(fake.gone, 1);
    assert_int_equal(fake.last_gone.unit, UNIT.unit);
    mailbox_drain(box);
    ticket_open(fake.ticket);
    ticket_close(fake.ticket);
    mailbox_drain(box);
    assert_int_equal(heard, 0);

    assert_int_equal(begin(fake.rights, 1, &a), ERR_OK);
    rights_leave(&a);
    fake_grant(1);
    mailbox_drain(box);
    assert_int_equal(heard, 0);
    rights_end(fake.rights, &a, false); /* nobody has seen the grant: nothing was tried */
    assert_int_equal(fake.gone, 2);
}

static void facts_come_from_the_records(void **state)
{
    struct rcpt_record rcpts[] = {{.rcpt.index = 0, .state = RCPT_DELIVERED},
        {.rcpt.index = 1, .state = RCPT_BOUNCED},
        {.rcpt.index = 5, .state = RCPT_IN_DOUBT},
        {.rcpt.index = 63, .state = RCPT_DROPPED},
        {.rcpt.index = 7, .state = RCPT_DEFERRED},
        {.rcpt.index = 64, .state = RCPT_DELIVERED}};
    struct rights_settle s = {.store = {.rcpts = rcpts, .rcpt_count = 6}};
    (void)state;
    rights_settle_facts(&s);
    assert_true(s.delivered == 1 && s.doubt == 32 && s.tried == 0);
    assert_true(s.failed == (2 | UINT64_C(1) << 63));
    s.attempt_id = 9;
    s.tried = 256;
    rights_settle_facts(&s);
    assert_true(s.tried == (256 | 1 | 2 | 32 | 128 | UINT64_C(1) << 63));
}

/* --- the sequence lock --- */

#define ROUNDS 20000

static void *publish(void *arg)
{
    for (unsigned i = 1; i <= ROUNDS; i++) {
        /* Odd: open by lease, closed by epoch. Even: the other way round. No value opens
         * the gate for epoch 1. */
        bool odd = i % 2;
        struct rights_gate_value v = {.epoch = odd ? 2 : 1, .frozen = false};
        v.lease_end = odd ? mono_add_ms(mono_now(), 100000) : (struct mono){1};
        rights_publish_gate(arg, &v);
    }
    return NULL;
}

static void readers_see_whole_values(void **state)
{
    struct attempt a = {0};
    pthread_t writer;
    unsigned closed = 0, waits = 0;
    (void)state;
    fake.answers = fake.opens = true;
    fake_lease(60000);
    assert_int_equal(begin(fake.rights, 1, &a), ERR_OK);
    publish(fake.rights); /* from a value that is closed */
    assert_int_equal(pthread_create(&writer, NULL, publish, fake.rights), 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        enum gate gate = rights_gate(fake.rights, &a);
        assert_int_not_equal(gate, GATE_OPEN);
        closed += gate == GATE_CLOSED;
        waits += gate == GATE_WAIT;
    }
    pthread_join(writer, NULL);
    assert_int_equal(closed + waits, ROUNDS);
    rights_end(fake.rights, &a, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_node_alone_answers_itself, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            the_ticket_opens_the_gate_step_by_step, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            the_gate_asks_for_lease_and_epoch, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_ended_stays_so, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_asker_hears_once_a_change, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_ticket_outlives_its_asker, set_up, tear_down),
        cmocka_unit_test_setup_teardown(facts_come_from_the_records, set_up, tear_down),
        cmocka_unit_test_setup_teardown(readers_see_whole_values, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
