/* SPDX-License-Identifier: Apache-2.0 */
/* Units in an operator's hand, against a running schedule: what is taken is not tried,
 * what comes back is, and a cluster may take a unit away meanwhile. */
#include "tests/unit/delivery_world.h"

#include "node/delivery/hand.h"
#include "node/delivery/why.h"

static struct hand hand;
static bool hand_is_back;

static void obey(void)
{
    fake.answers = fake.opens = true;
}

static void hand_done(struct hand *h, void *owner)
{
    (void)h;
    (void)owner;
    hand_is_back = true;
}

static enum hand_found take(struct unit_id id, enum hand_want want)
{
    hand = (struct hand){.reply_to = loop_mailbox(w.loop),
        .done = hand_done,
        .want = want,
        .count = 1,
        .units = {{.id = id}}};
    hand_is_back = false;
    schedule_hand_take(w.schedule, &hand);
    UNTIL(hand_is_back);
    return hand.units[0].found;
}

static void give(enum hand_fate fate)
{
    hand.units[0].fate = fate;
    hand_is_back = false;
    schedule_hand_give(w.schedule, &hand);
    UNTIL(hand_is_back);
}

/* In line, with nothing that could start. */
static struct unit_id ready_mail(void)
{
    schedule_pause(w.schedule, true);
    struct unit_id id = send_mail("a b", "one.example");
    UNTIL(schedule_stats(w.schedule).due == 1);
    return id;
}

static void taken_and_given_back(void **state)
{
    (void)state;
    obey();
    struct unit_id id = ready_mail();
    assert_int_equal(take(id, HAND_HOLD), HAND_TAKEN);
    assert_true(hand.units[0].was_ready);
    struct hand first = hand;
    assert_int_equal(take(id, HAND_HOLD), HAND_BUSY); /* in another hand */
    hand = first;
    schedule_pause(w.schedule, false);
    UNTIL(schedule_stats(w.schedule).due == 0);
    assert_int_equal(w.hops[0].opened, 0);
    give(HAND_HELD);
    UNTIL(schedule_stats(w.schedule).held == 1);
    assert_int_equal(take(id, HAND_HOLD), HAND_AS_IT_IS);
    assert_int_equal(take(id, HAND_RETRY), HAND_AS_IT_IS);
    assert_int_equal(take(id, HAND_RELEASE), HAND_TAKEN);
    give(HAND_UNCHANGED); /* it could not be stored */
    UNTIL(schedule_stats(w.schedule).held == 1);
    assert_int_equal(fake.begun, 0);
    assert_int_equal(take(id, HAND_RELEASE), HAND_TAKEN);
    give(HAND_DUE);
    UNTIL(queued() == 0);
    assert_int_equal(w.hops[0].messages, 1);
    UNTIL(schedule_stats(w.schedule).units == 0);
    assert_int_equal(take(id, HAND_HOLD), HAND_GONE);
}

static void not_changed_goes_on(void **state)
{
    (void)state;
    obey();
    struct unit_id id = ready_mail();
    assert_int_equal(take(id, HAND_RETRY), HAND_TAKEN);
    schedule_pause(w.schedule, false);
    give(HAND_UNCHANGED);
    UNTIL(queued() == 0);
    assert_int_equal(w.hops[0].messages, 1);
}

/* What ends mail needs the right to deliver it. */
static void no_end_without_a_lease(void **state)
{
    (void)state;
    struct unit_id id = ready_mail();
    assert_int_equal(take(id, HAND_END), HAND_BUSY);
    assert_int_equal(take(id, HAND_HOLD), HAND_TAKEN);
    give(HAND_HELD);
}

static void an_attempt_wins(void **state)
{
    (void)state;
    fake.answers = true; /* the gate stays closed */
    struct unit_id id = send_mail("a", "one.example");
    UNTIL(w.hops[0].in_data == 1);
    for (int want = HAND_HOLD; want <= HAND_END; want++)
        assert_int_equal(take(id, (enum hand_want)want), HAND_BUSY);
    ticket_open(fake.ticket);
    UNTIL(queued() == 0);
    assert_int_equal(w.hops[0].messages, 1);
}

static void another_nodes_meanwhile(void **state)
{
    (void)state;
    obey();
    struct unit_id id = ready_mail();
    assert_int_equal(take(id, HAND_HOLD), HAND_TAKEN);
    schedule_unit_cancel(w.schedule, id);
    schedule_pause(w.schedule, false);
    give(HAND_HELD);
    UNTIL(schedule_stats(w.schedule).units == 0);
    assert_int_equal(schedule_stats(w.schedule).held, 0);
    assert_int_equal(fake.begun, 0);
    /* And ours again: read anew. */
    schedule_unit_start(w.schedule, id, 3, 0, (struct wall){0});
    UNTIL(queued() == 0);
    assert_int_equal(w.hops[0].messages, 1);
}

/* --- the end of recipients --- */

static bool settled;

static void ending_done(struct store_op *op, void *owner)
{
    (void)owner;
    assert_int_equal(op->result, ERR_OK);
    settled = true;
}

static bool wants_b(const struct unit_record *u, const struct rcpt_record *r, void *ctx)
{
    (void)u;
    (void)ctx;
    return r->rcpt.address.ptr[0] == 'b';
}

static void build(struct ending *e, enum rcpt_state state)
{
    struct ending_ask ask = {.store = w.store,
        .settings = w.settings,
        .state = state,
        .reason = SLICE("the project is over"),
        .now = wall_now(),
        .wants = wants_b};
    ending_build(e, &hand.units[0], &ask);
    assert_int_equal(e->err, ERR_OK);
}

static void one_recipient_ends(void **state)
{
    (void)state;
    obey();
    struct unit_id id = ready_mail();
    struct ending e;
    assert_int_equal(take(id, HAND_RETRY), HAND_TAKEN);
    build(&e, RCPT_BOUNCED);
    assert_true(e.some && !e.outcome.store.unit_done);
    assert_int_equal(e.outcome.store.rcpt_count, 1);
    assert_int_equal(e.outcome.failed, 2);
    assert_int_equal(e.outcome.tried, 0);
    assert_non_null(e.dsn);
    assert_true(slice_eq(e.dsn->units[0].domain, SLICE("sender.example")));
    settled = false;
    e.outcome.store.op.reply_to = loop_mailbox(w.loop);
    e.outcome.store.op.done = ending_done;
    rights_outcome(fake.rights, &e.outcome);
    UNTIL(settled);
    ending_log(&e);
    hand.units[0].due = e.outcome.store.next_due;
    ending_fini(&e);
    give(HAND_REST);
    schedule_pause(w.schedule, false);
    UNTIL(w.hops[0].messages == 1);
    assert_true(hop_saw(&w.hops[0], "<a@one.example> "));
}

/* Another node may be about to deliver to it. */
static void not_under_way_elsewhere(void **state)
{
    (void)state;
    struct unit_id id = ready_mail();
    struct ending e;
    assert_int_equal(take(id, HAND_RETRY), HAND_TAKEN);
    hand.units[0].rcpts = 1;
    build(&e, RCPT_DROPPED);
    assert_false(e.some);
    assert_int_equal(e.skipped, 1);
    ending_fini(&e);
    give(HAND_UNCHANGED);
}

static void a_drop_has_no_report(void **state)
{
    (void)state;
    struct unit_id id = ready_mail();
    struct ending e;
    assert_int_equal(take(id, HAND_RETRY), HAND_TAKEN);
    build(&e, RCPT_DROPPED);
    assert_true(e.some);
    assert_null(e.dsn);
    assert_int_equal(e.outcome.store.rcpts[0].state, RCPT_DROPPED);
    ending_fini(&e);
    give(HAND_UNCHANGED);
}

/* --- why --- */

static bool why_is_here;

static void why_done(struct schedule_why *y, void *owner)
{
    (void)y;
    (void)owner;
    why_is_here = true;
}

static void why_tells_what_mail_gets(void **state)
{
    (void)state;
    ready_mail();
    struct schedule_why y = {.reply_to = loop_mailbox(w.loop), .done = why_done};
    snprintf(y.domain, sizeof(y.domain), "one.example");
    why_is_here = false;
    schedule_ask_why(w.schedule, &y);
    UNTIL(why_is_here);
    assert_int_equal(y.origin.kind, ROUTE_FROM_ROUTES);
    assert_string_equal(y.origin.entry, "*");
    assert_int_equal(y.origin.line, 6);
    assert_true(y.paused);
    assert_int_equal(y.units, 1);
    assert_int_equal(y.ready, 1);
    assert_int_equal(route_hop(y.route, 0)->port, w.hops[0].at.port);
    route_unref(y.route);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, delivery_set_up, delivery_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(taken_and_given_back),
        CASE(not_changed_goes_on),
        CASE(no_end_without_a_lease),
        CASE(an_attempt_wins),
        CASE(another_nodes_meanwhile),
        CASE(one_recipient_ends),
        CASE(not_under_way_elsewhere),
        CASE(a_drop_has_no_report),
        CASE(why_tells_what_mail_gets),
    };
    log_open(LOG_ERROR, false, "test");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
