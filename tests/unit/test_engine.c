/* SPDX-License-Identifier: Apache-2.0 */
/* The engine as a cluster of one: what the rights ask of it is answered through the core,
 * and is on disk. */
#include "tests/unit/engine_world.h"

static struct engine_world world;
static struct mailbox *box;

static int setup(void **state)
{
    (void)state;
    char why[512];
    world_open(&world);
    box = mailbox_new(&world);
    assert_true(engine_start(world.engine, why, sizeof(why)));
    for (int i = 0; i < 100 && !atomic_load(&world.may_deliver); i++)
        mailbox_wait(box, 100);
    assert_true(atomic_load(&world.may_deliver));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    engine_stop(world.engine, 0);
    mailbox_drain(box);
    world_close(&world);
    mailbox_free(box);
    return 0;
}

static bool accept_done;
static enum err accept_result;

static void accepted(struct rights_accept *a, enum err result, void *owner)
{
    (void)a;
    (void)owner;
    accept_done = true;
    accept_result = result;
}

static void wait_for(bool *flag)
{
    for (int i = 0; i < 100 && !*flag; i++) {
        mailbox_wait(box, 100);
        mailbox_drain(box);
    }
    assert_true(*flag);
}

static void take(struct message *m)
{
    struct rights_accept a = {.store = {.message = m}, .reply_to = box, .done = accepted};
    accept_done = false;
    rights_accept(world.rights, &a);
    wait_for(&accept_done);
    assert_int_equal(accept_result, ERR_OK);
}

static bool ticket_changed;

static void changed(struct attempt_ticket *t, void *owner)
{
    (void)t;
    (void)owner;
    ticket_changed = true;
}

static void begin(struct attempt *a, struct unit_id id)
{
    struct rights_asker asker = {.reply_to = box, .changed = changed};
    struct rights_grant grant = {0};
    ticket_changed = false;
    assert_int_equal(rights_begin(world.rights, id, 1, &asker, a), ERR_OK);
    for (int i = 0; i < 100 && rights_granted(world.rights, a, &grant) == GATE_WAIT;
         i++) {
        mailbox_wait(box, 100);
        mailbox_drain(box);
    }
    assert_int_equal(rights_granted(world.rights, a, &grant), GATE_OPEN);
    assert_int_equal(grant.rcpts, 1);
    assert_int_equal(grant.doubt, 0);
}

/* A holder's word, or here that there is none, may come after the right itself. */
static enum gate gate_of(const struct attempt *a)
{
    for (int i = 0; i < 100 && rights_gate(world.rights, a) == GATE_WAIT; i++) {
        mailbox_wait(box, 100);
        mailbox_drain(box);
    }
    return rights_gate(world.rights, a);
}

static bool settle_done;
static enum err settle_result;

static void settled(struct store_op *op, void *owner)
{
    (void)owner;
    settle_done = true;
    settle_result = op->result;
}

static enum err settle(const struct message *m, uint64_t attempt, enum rcpt_state state)
{
    struct rcpt_record r = {.rcpt = m->units[0].rcpts[0],
        .state = state,
        .attempts = 1,
        .next_due = {wall_now().ms + 60000}};
    struct rights_settle s = {
        .store = {.unit = {.msg = m->id},
            .rcpts = &r,
            .rcpt_count = 1,
            .unit_done = rcpt_state_is_final(state),
            .next_due = {rcpt_state_is_final(state) ? 0 : r.next_due.ms}},
        .attempt_id = attempt,
        .tried = attempt ? 1 : 0};
    s.store.op.reply_to = box;
    s.store.op.done = settled;
    settle_done = false;
    rights_settle_facts(&s);
    rights_outcome(world.rights, &s);
    wait_for(&settle_done);
    return settle_result;
}

static bool is_on_disk(const struct message *m)
{
    struct unit_record *u = NULL;
    bool there =
        store_read_unit(world.store, (struct unit_id){.msg = m->id}, &u) == ERR_OK;
    unit_record_free(u);
    return there;
}

static bool has_row(const struct message *m)
{
    unsigned char key[UNIT_ID_BYTES];
    char value[STORE_ROW_UNIT_MAX];
    size_t len;
    unit_id_key((struct unit_id){.msg = m->id}, key);
    return store_read_row(world.store, STORE_ROW_UNIT, slice_make(key, sizeof(key)),
               value, sizeof(value), &len) == ERR_OK;
}

static void test_a_message_lives_and_ends(void **state)
{
    (void)state;
    struct message *m = world_message(1, "Subject: x\r\n\r\nhello\r\n");
    struct attempt a = {0};
    take(m);
    assert_true(is_on_disk(m) && has_row(m)); /* in the same transaction */
    begin(&a, (struct unit_id){.msg = m->id});
    assert_int_equal(gate_of(&a), GATE_OPEN);
    assert_int_equal(settle(m, a.id, RCPT_DELIVERED), ERR_OK);
    rights_end(world.rights, &a, false);
    assert_false(is_on_disk(m));
    assert_int_equal(settle(m, 0, RCPT_DELIVERED), ERR_STORE_NOT_FOUND);
    assert_false(has_row(m)); /* nobody else has to be told */
    message_unref(m);
}

static void test_a_deferral_keeps_it(void **state)
{
    (void)state;
    struct message *m = world_message(2, "Subject: x\r\n\r\nhello\r\n");
    struct attempt a = {0}, again = {0};
    take(m);
    begin(&a, (struct unit_id){.msg = m->id});
    assert_int_equal(settle(m, a.id, RCPT_DEFERRED), ERR_OK);
    rights_end(world.rights, &a, false);
    assert_true(is_on_disk(m) && has_row(m));
    begin(&again, (struct unit_id){.msg = m->id});
    assert_true(again.id != a.id);
    rights_end(world.rights, &again, true);
    message_unref(m);
}

static void test_an_attempt_at_a_time(void **state)
{
    (void)state;
    struct message *m = world_message(3, "Subject: x\r\n\r\nhello\r\n");
    struct attempt a = {0}, second = {0};
    struct rights_asker asker = {.reply_to = box, .changed = changed};
    struct rights_grant grant;
    take(m);
    begin(&a, (struct unit_id){.msg = m->id});
    assert_int_equal(
        rights_begin(world.rights, (struct unit_id){.msg = m->id}, 1, &asker, &second),
        ERR_OK);
    enum gate gate = GATE_WAIT;
    for (int i = 0; i < 100 && gate == GATE_WAIT; i++) {
        mailbox_wait(box, 100);
        mailbox_drain(box);
        gate = rights_granted(world.rights, &second, &grant);
    }
    assert_int_equal(gate, GATE_CLOSED);
    rights_end(world.rights, &second, true);
    rights_end(world.rights, &a, true);
    message_unref(m);
}

/* A report has its own copies before the outcome that owes it is taken. */
static void test_a_report_comes_with_its_outcome(void **state)
{
    (void)state;
    struct message *m = world_message(4, "Subject: x\r\n\r\nhello\r\n");
    struct message *dsn = world_message(5, "Subject: failure\r\n\r\nsorry\r\n");
    struct attempt a = {0};
    struct rcpt_record r = {.rcpt = m->units[0].rcpts[0], .state = RCPT_BOUNCED};
    take(m);
    begin(&a, (struct unit_id){.msg = m->id});
    struct rights_settle s = {.store = {.unit = {.msg = m->id},
                                  .rcpts = &r,
                                  .rcpt_count = 1,
                                  .unit_done = true,
                                  .dsns = &dsn,
                                  .dsn_count = 1},
        .attempt_id = a.id,
        .tried = 1};
    s.store.op.reply_to = box;
    s.store.op.done = settled;
    settle_done = false;
    rights_settle_facts(&s);
    rights_outcome(world.rights, &s);
    wait_for(&settle_done);
    assert_int_equal(settle_result, ERR_OK);
    rights_end(world.rights, &a, false);
    assert_false(is_on_disk(m));
    assert_true(is_on_disk(dsn) && has_row(dsn));
    message_unref(m);
    message_unref(dsn);
}

static void test_status_tells(void **state)
{
    (void)state;
    struct engine_status *s = mem_zalloc(sizeof(*s));
    for (int i = 0; i < 50; i++) {
        engine_status(world.engine, s);
        if (s->member_count == 1 && s->lease_ms > 0)
            break;
        mailbox_wait(box, 100);
    }
    assert_string_equal(s->name, "test");
    assert_int_equal(s->member_count, 1);
    assert_string_equal(s->members[0].name, "mx1");
    assert_true(s->members[0].is_self);
    assert_string_equal(s->state, "ready");
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_message_lives_and_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_deferral_keeps_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_attempt_at_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_a_report_comes_with_its_outcome, setup, teardown),
        cmocka_unit_test_setup_teardown(test_status_tells, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
