/* SPDX-License-Identifier: Apache-2.0 */
/* What a cluster may do to an attempt: grant late, in part or not at all, take the right
 * away, go silent, refuse an outcome; and to a unit: start, cancel, stand still. */
#include "tests/unit/delivery_world.h"

static void obey(void)
{
    fake.answers = fake.opens = true;
}

static void granted_at_once(void **state)
{
    (void)state;
    obey();
    send_mail("a b", "one.example");
    UNTIL(w.hops[0].messages == 1 && queued() == 0);
    assert_true(hop_saw(&w.hops[0], "<a@one.example> <b@one.example> "));
    assert_int_equal(fake.begun, 1);
    assert_int_equal(fake.gone, 0);
    assert_int_equal(fake.outcomes, 1);
    assert_true(fake.last.attempt_id == ((uint64_t)1 << 32 | 1));
    assert_true(fake.last.tried == 3 && fake.last.delivered == 3);
    assert_true(fake.last.failed == 0 && fake.last.doubt == 0);
}

static void granted_late_and_opened_later(void **state)
{
    (void)state;
    send_mail("a", "one.example");
    UNTIL(fake.begun == 1);
    assert_int_equal(w.hops[0].mails, 0);
    fake_grant(1);
    UNTIL(w.hops[0].in_data == 1);
    assert_int_equal(w.hops[0].messages, 0);
    ticket_open(fake.ticket);
    UNTIL(w.hops[0].messages == 1 && queued() == 0);
    assert_int_equal(fake.begun, 1);
}

/* No attempt counts against the mail, and it comes again in a while. */
static void refused(void **state)
{
    (void)state;
    w.env.later_ms = 500;
    fake.refuses = true;
    send_mail("a", "one.example");
    UNTIL(fake.gone == 1);
    struct mono then = mono_now();
    fake.refuses = false;
    obey();
    UNTIL(queued() == 0);
    assert_true(mono_diff_ms(mono_now(), then) >= 500);
    assert_int_equal(fake.begun, 2);
    assert_int_equal(fake.outcomes, 1);
    assert_int_equal(fake.last_attempts, 1);
}

static void closed_mid_body(void **state)
{
    (void)state;
    fake.answers = true;
    send_mail("a", "one.example");
    UNTIL(w.hops[0].in_data == 1);
    ticket_close(fake.ticket);
    UNTIL(fake.gone == 1 && w.hops[0].closed == 1);
    assert_int_equal(w.hops[0].messages, 0);
    assert_int_equal(fake.outcomes, 0);
    obey();
    UNTIL(queued() == 0);
    assert_int_equal(w.hops[0].messages, 1);
    assert_int_equal(fake.last_attempts, 1);
}

/* The connection is given up in the middle of a transaction, too, not just at the dot. */
static void closed_before_the_dot_is_reached(void **state)
{
    (void)state;
    obey();
    w.hops[0].unknown = "silent";
    send_mail("a", "one.example");
    UNTIL(queued() == 0);
    w.hops[0].keeps_dot = true;
    send_mail("b", "one.example");
    UNTIL(w.hops[0].messages == 2);
    ticket_close(fake.ticket); /* its dot has left: the reply is a fact */
    struct hop_conn *k = &w.hops[0].conns[w.hops[0].opened - 1];
    hop_say(k, "250 taken");
    UNTIL(queued() == 0);
    assert_true(fake.last.delivered == 1);
    assert_int_equal(fake.gone, 0);
}

/* What was refused before the gate closed is known, and is told; the rest is untouched.
 */
static void closed_with_a_fact_in_hand(void **state)
{
    (void)state;
    fake.answers = true;
    w.hops[0].unknown = "no";
    send_mail("a no", "one.example");
    UNTIL(w.hops[0].in_data == 1);
    ticket_close(fake.ticket);
    UNTIL(fake.outcomes == 1);
    assert_true(fake.last.failed == 2 && fake.last.delivered == 0);
    assert_true(fake.last.tried == 3 && fake.last.doubt == 0);
    assert_int_equal(fake.gone, 0);
    obey();
    UNTIL(queued() == 0);
    assert_true(hop_saw(&w.hops[0], "<a@one.example> <no@one.example> "
                                    "<from@sender.example> <a@one.example> ") ||
                hop_saw(&w.hops[0], "<a@one.example> <no@one.example> "
                                    "<a@one.example> <from@sender.example> "));
}

static void never_answered(void **state)
{
    (void)state;
    w.env.right_wait_ms = 300;
    send_mail("a", "one.example");
    UNTIL(fake.gone == 1);
    assert_int_equal(w.hops[0].mails, 0);
    assert_int_equal(fake.outcomes, 0);
    obey();
    UNTIL(queued() == 0);
    assert_int_equal(fake.begun, 2);
}

static void never_opened(void **state)
{
    (void)state;
    w.env.right_wait_ms = 300;
    fake.answers = true;
    send_mail("a", "one.example");
    UNTIL(fake.gone == 1);
    assert_int_equal(w.hops[0].messages, 0);
    assert_int_equal(fake.outcomes, 0);
    obey();
    UNTIL(queued() == 0);
}

static void answered_when_the_session_is_gone(void **state)
{
    (void)state;
    send_mail("a", "one.example");
    UNTIL(fake.begun == 1);
    struct attempt_ticket *old = ticket_ref(fake.ticket);
    hop_drop(&w.hops[0].conns[0]);
    UNTIL(fake.gone == 1);
    ticket_answer(old, 77, 1, 1);
    ticket_open(old);
    ticket_close(old);
    ticket_unref(old);
    obey();
    fake.refuses = false;
    UNTIL(fake.begun == 2 || queued() == 0);
    if (queued() > 0 && atomic_load(&fake.ticket->state) == TICKET_ASKED) {
        fake_grant(1);
        ticket_open(fake.ticket);
    }
    UNTIL(queued() == 0);
    assert_int_equal(w.hops[0].messages, 1);
}

static void the_gate_waits_for_the_lease(void **state)
{
    (void)state;
    fake.answers = true;
    send_mail("a", "one.example");
    UNTIL(w.hops[0].in_data == 1);
    fake_lease(100);
    ticket_open(fake.ticket);
    uint64_t before = fake.begun;
    struct mono then = mono_now();
    UNTIL(mono_diff_ms(mono_now(), then) > 300); /* its timer fires meanwhile */
    assert_int_equal(w.hops[0].messages, 0);
    fake_lease(60000); /* tells nobody */
    UNTIL(queued() == 0);
    assert_int_equal(w.hops[0].messages, 1);
    assert_int_equal(fake.begun, before);
}

/* The hop is lost with the transaction: the next one gets the same attempt. */
static void one_attempt_for_several_transactions(void **state)
{
    (void)state;
    obey();
    w.hops[0].drops_at_data = true;
    send_mail("a", "one.example");
    UNTIL(fake.outcomes == 1);
    assert_int_equal(fake.begun, 1);
    assert_true(fake.last.tried == 1 && fake.last.delivered == 0);
    w.hops[0].drops_at_data = false;
    UNTIL(queued() == 0);
    assert_int_equal(fake.gone, 0);
    assert_int_equal(fake.begun, fake.outcomes);
}

static void granted_in_part_then_with_a_doubt(void **state)
{
    (void)state;
    obey();
    fake.grants = 1;
    struct unit_id id = send_mail("a b", "one.example");
    UNTIL(fake.outcomes == 1);
    assert_true(fake.last.tried == 1 && fake.last.delivered == 1);
    assert_false(fake.last.store.unit_done);
    /* Not before somebody knows more of the other one. */
    assert_true(fake.last.store.next_due.ms > wall_now().ms + 30000);
    fake.grants = 0;
    fake.doubt = 2;
    fake.cause = '1';
    log_add_sink(see_tag, NULL);
    schedule_unit_start(w.schedule, id, 2, 2, wall_now());
    UNTIL(queued() == 0);
    assert_true(fake.last.delivered == 2);
    assert_true(hop_saw(&w.hops[0], "<a@one.example> <b@one.example> "));
    assert_int_equal(atomic_load(&w.tagged), 1);
}

/* --- outcomes that are not taken --- */

static void facts_go_first(void **state)
{
    (void)state;
    obey();
    w.hops[0].unknown = "no";
    fake.outcome_error = ERR_COPIES_UNAVAILABLE;
    fake.outcomes_to_fail = 1;
    send_mail("a no", "one.example");
    UNTIL(fake.outcomes >= 1);
    assert_true(fake.last_dsns == 1 && fake.last.delivered == 1);
    assert_true(fake.last.failed == 2);
    uint64_t attempt = fake.last.attempt_id;
    UNTIL(fake.outcomes >= 2);
    assert_true(fake.last_dsns == 0 && fake.last.delivered == 1);
    assert_true(fake.last.failed == 0 && fake.last.attempt_id == attempt);
    assert_false(fake.last.store.unit_done);
    UNTIL(queued() == 0); /* with its notification */
    assert_int_equal(fake.begun, 3);
    assert_int_equal(w.hops[0].messages, 2);
    assert_true(hop_saw(&w.hops[0], "<a@one.example> <no@one.example> "
                                    "<no@one.example> <from@sender.example> "));
}

static void an_outcome_is_offered_until_it_is_taken(void **state)
{
    (void)state;
    obey();
    fake.outcome_error = ERR_STORE_FULL;
    fake.outcomes_to_fail = 2;
    send_mail("a", "one.example");
    UNTIL(queued() == 0);
    assert_int_equal(fake.outcomes, 3);
    assert_int_equal(w.hops[0].messages, 1);
}

/* --- the schedule by word --- */

static void started_from_disk(void **state)
{
    (void)state;
    obey();
    struct message *m = mail("a b", "one.example");
    schedule_unit_start(w.schedule, unit_of(m), 2, 0, (struct wall){0});
    message_unref(m);
    UNTIL(fake.outcomes == 1);
    assert_true(hop_saw(&w.hops[0], "<b@one.example> "));
    assert_true(fake.last.tried == 2);
    assert_int_equal(queued(), 1);
}

static void started_and_accepted_in_any_order(void **state)
{
    (void)state;
    obey();
    for (unsigned i = 0; i < 2; i++) {
        struct message *m = mail("a", "one.example");
        if (i == 0)
            schedule_unit_start(w.schedule, unit_of(m), 1, 0, (struct wall){0});
        schedule_accepted(w.schedule, m);
        if (i == 1)
            schedule_unit_start(w.schedule, unit_of(m), 1, 0, (struct wall){0});
        message_unref(m);
        UNTIL(queued() == 0);
        assert_int_equal(w.hops[0].messages, i + 1);
    }
    assert_int_equal(fake.begun, 2);
}

static void cancelled_before_it_was_accepted(void **state)
{
    (void)state;
    obey();
    struct message *m = mail("gone", "one.example");
    schedule_unit_cancel(w.schedule, unit_of(m));
    schedule_accepted(w.schedule, m);
    send_mail("b", "one.example"); /* behind it */
    UNTIL(queued() == 1);
    assert_true(hop_saw(&w.hops[0], "<b@one.example> "));
    schedule_unit_start(w.schedule, unit_of(m), 1, 0, (struct wall){0});
    message_unref(m);
    UNTIL(queued() == 0);
    assert_true(hop_saw(&w.hops[0], "<b@one.example> <gone@one.example> "));
}

static void cancelled_under_an_attempt(void **state)
{
    (void)state;
    fake.answers = true;
    struct unit_id id = send_mail("a", "one.example");
    UNTIL(w.hops[0].in_data == 1);
    schedule_unit_cancel(w.schedule, id);
    ticket_close(fake.ticket);
    UNTIL(fake.gone == 1);
    UNTIL(schedule_stats(w.schedule).units == 0);
    assert_int_equal(queued(), 1);
    assert_int_equal(fake.begun, 1);
    obey();
    schedule_unit_start(w.schedule, id, 1, 0, (struct wall){0});
    UNTIL(queued() == 0);
    assert_int_equal(w.hops[0].messages, 1);
}

static void cancelled_and_ours_again_under_an_attempt(void **state)
{
    (void)state;
    fake.answers = true;
    struct unit_id id = send_mail("a b", "one.example");
    UNTIL(w.hops[0].in_data == 1);
    schedule_unit_cancel(w.schedule, id);
    schedule_unit_start(w.schedule, id, 2, 0, (struct wall){0});
    obey();
    ticket_close(fake.ticket);
    UNTIL(fake.outcomes == 1);
    assert_true(fake.last.delivered == 2);
    assert_true(hop_saw(&w.hops[0], "<a@one.example> <b@one.example> <b@one.example> "));
}

static void cancelled_in_every_place(void **state)
{
    (void)state;
    obey();
    struct message *waiting = mail("w", "one.example");
    struct wall late = {wall_now().ms + 3600000};
    schedule_unit_start(w.schedule, unit_of(waiting), 1, 0, late);
    UNTIL(schedule_stats(w.schedule).units == 1);
    schedule_pause(w.schedule, true);
    struct unit_id ready = send_mail("r", "one.example");
    struct message *starting = mail("s", "one.example");
    schedule_unit_start(w.schedule, unit_of(starting), 1, 0, late);
    schedule_unit_cancel(w.schedule, unit_of(starting));
    UNTIL(schedule_stats(w.schedule).units == 2);
    schedule_unit_cancel(w.schedule, ready);
    schedule_unit_cancel(w.schedule, unit_of(waiting));
    UNTIL(schedule_stats(w.schedule).units == 0);
    schedule_pause(w.schedule, false);
    send_mail("b", "one.example");
    UNTIL(queued() == 3);
    assert_true(hop_saw(&w.hops[0], "<b@one.example> "));
    message_unref(waiting);
    message_unref(starting);
}

/* The session of the node ended: nothing is ours until it is said anew. */
static void all_cancelled_at_once(void **state)
{
    struct unit_id ids[3];
    (void)state;
    fake.answers = true;
    for (unsigned i = 0; i < 3; i++)
        ids[i] = send_mail("a", i == 2 ? "two.example" : "one.example");
    UNTIL(w.hops[0].in_data == 2 && w.hops[1].in_data == 1);
    schedule_unit_cancel(w.schedule, (struct unit_id){0});
    fake.epoch = 2; /* a new session */
    rights_publish_gate(
        fake.rights, &(struct rights_gate_value){.epoch = fake.epoch, .is_static = true});
    UNTIL(fake.gone == 3); /* nobody told the tickets */
    UNTIL(schedule_stats(w.schedule).units == 0);
    assert_int_equal(w.hops[0].messages + w.hops[1].messages, 0);
    obey();
    for (unsigned i = 0; i < 3; i++)
        schedule_unit_start(w.schedule, ids[i], 1, 0, (struct wall){0});
    UNTIL(queued() == 0);
    assert_int_equal(w.hops[0].messages + w.hops[1].messages, 3);
}

static void nothing_happens_without_a_lease(void **state)
{
    (void)state;
    obey();
    schedule_pause(w.schedule, true);
    send_mail("a", "one.example");
    UNTIL(schedule_stats(w.schedule).due == 1);
    assert_int_equal(w.hops[0].opened, 0);
    schedule_pause(w.schedule, false);
    UNTIL(queued() == 0);
    assert_int_equal(fake.begun, 1);
}

/* The lease is gone and the schedule has not heard: no spinning, and nothing is lost. */
static void the_lease_goes_before_the_schedule_hears(void **state)
{
    (void)state;
    obey();
    fake_lease(0);
    send_mail("a", "one.example");
    UNTIL(w.hops[0].closed == 1);
    assert_int_equal(fake.begun, 0);
    unsigned opened = w.hops[0].opened;
    fake_lease(60000);
    UNTIL(queued() == 0);
    assert_int_equal(w.hops[0].opened, opened + 1);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, delivery_set_up, delivery_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(granted_at_once),
        CASE(granted_late_and_opened_later),
        CASE(refused),
        CASE(closed_mid_body),
        CASE(closed_before_the_dot_is_reached),
        CASE(closed_with_a_fact_in_hand),
        CASE(never_answered),
        CASE(never_opened),
        CASE(answered_when_the_session_is_gone),
        CASE(the_gate_waits_for_the_lease),
        CASE(one_attempt_for_several_transactions),
        CASE(granted_in_part_then_with_a_doubt),
        CASE(facts_go_first),
        CASE(an_outcome_is_offered_until_it_is_taken),
        CASE(started_from_disk),
        CASE(started_and_accepted_in_any_order),
        CASE(cancelled_before_it_was_accepted),
        CASE(cancelled_under_an_attempt),
        CASE(cancelled_and_ours_again_under_an_attempt),
        CASE(cancelled_in_every_place),
        CASE(all_cancelled_at_once),
        CASE(nothing_happens_without_a_lease),
        CASE(the_lease_goes_before_the_schedule_hears),
    };
    log_open(LOG_ERROR, false, "test");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
