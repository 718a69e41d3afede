/* SPDX-License-Identifier: Apache-2.0 */
/* The core alone: what one step may emit, ids that the caller gives, the counts. Whole
 * clusters are for tests/sim. */
#include "cluster/core/core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SELF 0x1001u

struct alone {
    struct core *core;
    struct core_command ring[CORE_COMMANDS_MIN];
    struct core_commands out;
    uint64_t now, token;
    unsigned starts, cancels, stores, sends, replies;
    uint8_t reply;
    struct core_unit_id first; /* of the last CMD_START */
    uint64_t attempt, attempt_rcpts;
};

static const struct core_limits LIMITS = {2048, 1024, 64, 1024, 256, 16};

static void look(struct alone *a, const struct core_command *c)
{
    switch ((enum core_command_kind)c->kind) {
    case CMD_STORE:
        a->token = c->u.store.token;
        a->stores++;
        break;
    case CMD_ACCEPT_REPLY:
        a->reply = c->u.accept.reply;
        a->replies++;
        break;
    case CMD_START:
        a->first = c->u.unit.id;
        a->starts++;
        break;
    case CMD_CANCEL:
        a->cancels++;
        break;
    case CMD_ATTEMPT:
        a->attempt = c->u.unit.attempt;
        a->attempt_rcpts = c->u.unit.rcpts;
        break;
    case CMD_SEND:
        a->sends++;
        break;
    case CMD_GATE:
    case CMD_INTENT_OK:
    case CMD_CFG:
    case CMD_TRACE:
    case CMD_ADMIN_DONE:
        break;
    case CMD_DIE:
        fail();
    }
}

static void step(struct alone *a, struct core_event *e)
{
    a->out = (struct core_commands){a->ring, 0, CORE_COMMANDS_MIN, 0};
    e->now_ns = a->now;
    core_step(a->core, e, &a->out);
    assert_true(a->out.count <= CORE_COMMANDS_MIN);
    for (uint32_t i = 0; i < a->out.count; i++)
        look(a, &a->ring[i]);
}

/* Lets the disk catch up and time pass. */
static void settle(struct alone *a, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        struct core_event stored = {.kind = EV_STORED}, tick = {.kind = EV_TICK};
        stored.u.stored.token = a->token;
        step(a, &stored);
        a->now += 10 * CORE_MS;
        step(a, &tick);
    }
}

/* A cluster of one, or of three that do not answer. */
static struct alone *begin(uint8_t members, uint8_t copies, uint8_t mode)
{
    struct alone *a = calloc(1, sizeof(*a));
    struct core_params p = {.lease_ns = 15 * CORE_SEC, .rho_ppm = 20000};
    struct core_cfg cfg = {.ver = 1, .mode = mode, .copies = copies, .min_copies = 1};
    assert_non_null(a);
    p.doubt_ns = p.own_doubt_ns = p.stale_ns = 60 * CORE_SEC;
    p.frame_ns = 30 * CORE_SEC;
    p.hedge_ns = 300 * CORE_MS;
    p.accept_ns = 20 * CORE_SEC;
    p.probe_ns = p.gossip_ns = CORE_SEC;
    p.digest_ns = p.repair_wait_ns = 10 * CORE_SEC;
    assert_true(core_params_derive(&p));
    cfg.count = members;
    for (uint8_t i = 0; i < members; i++)
        cfg.member[i] = (struct core_member){.node = SELF + i,
            .roles = ROLE_STORE | (i == 0 ? ROLE_VOTER : 0),
            .zone = i,
            .weight = 1};
    void *mem = aligned_alloc(16, (core_size(&LIMITS) + 15) & ~(size_t)15);
    assert_non_null(mem);
    a->core = core_init(mem, &LIMITS, &p, SELF, 1);
    a->now = CORE_SEC;
    struct core_event e = {.kind = EV_BOOT_CFG};
    e.u.cfg = &cfg;
    step(a, &e);
    for (uint8_t i = 1; i < members && copies > 2; i++) {
        struct core_event known = {.kind = EV_BOOT_FENCE};
        known.u.fence = (struct core_fence_row){SELF + i, 0, 1};
        step(a, &known);
    }
    e.kind = EV_BOOT_END;
    step(a, &e);
    settle(a, 10);
    return a;
}

static void end(struct alone *a)
{
    free(a->core); /* the start of its memory */
    free(a);
}

static struct core_event accept_of(uint64_t handle, uint64_t lo, uint8_t parts)
{
    struct core_event e = {.kind = EV_ACCEPT};
    e.u.accept.handle = handle;
    e.u.accept.id = (struct core_unit_id){.hi = 7, .lo = lo};
    e.u.accept.size_bytes = 1000;
    e.u.accept.part_count = parts;
    memset(e.u.accept.rcpts, 1, parts);
    return e;
}

static void outcome(struct alone *a, const struct core_unit_id *id, uint64_t delivered)
{
    struct core_event e = {.kind = EV_INTENT_REQ};
    e.u.attempt.id = *id;
    e.u.attempt.rcpts = 1;
    step(a, &e);
    assert_int_equal(a->attempt_rcpts, 1);
    e.kind = EV_OUTCOME;
    e.u.attempt.attempt = a->attempt;
    e.u.attempt.delivered = delivered;
    step(a, &e);
}

static struct core_counts counts(const struct alone *a)
{
    struct core_counts c;
    core_counts(a->core, &c);
    return c;
}

static void the_most_parts_are_accepted_in_bounded_steps(void **unused)
{
    (void)unused;
    struct alone *a = begin(1, 1, MODE_QUORUM);
    assert_string_equal(counts(a).state, "ready");
    struct core_event e = accept_of(1, 1, CORE_PARTS_MAX);
    step(a, &e);
    assert_int_equal(counts(a).accepting, CORE_PARTS_MAX);
    settle(a, 100);
    assert_int_equal(a->replies, 1);
    assert_int_equal(a->reply, REPLY_250);
    assert_int_equal(a->starts, CORE_PARTS_MAX);
    assert_int_equal(counts(a).owned, CORE_PARTS_MAX);
    assert_int_equal(counts(a).copies_short, 0);
    end(a);
}

static void more_copies_than_the_ring_has_room_for(void **unused)
{
    (void)unused;
    /* nobody answers, so that all is launched, hedged, aborted and told in vain */
    struct alone *a = begin(8, 7, MODE_STATIC);
    for (uint64_t k = 1; k <= 8; k++) {
        struct core_event e = accept_of(k, k, CORE_PARTS_MAX);
        step(a, &e);
    }
    settle(a, 100);
    assert_true(a->sends > 8 * CORE_PARTS_MAX * 6); /* six copies of each were sent */
    settle(a, 3000);
    assert_int_equal(a->replies, 8);
    end(a);
}

static void too_many_recipients_are_refused(void **unused)
{
    (void)unused;
    struct alone *a = begin(1, 1, MODE_QUORUM);
    struct core_event e = accept_of(1, 1, 3);
    e.u.accept.rcpts[2] = 65;
    step(a, &e);
    assert_int_equal(a->reply, REPLY_451);
    assert_int_equal(counts(a).units, 0);
    end(a);
}

static void an_id_is_accepted_once(void **unused)
{
    (void)unused;
    struct alone *a = begin(1, 1, MODE_QUORUM);
    struct core_event e = accept_of(1, 5, 2), again = accept_of(2, 5, 2);
    e.u.accept.flags = again.u.accept.flags = UNIT_IS_DSN;
    step(a, &e);
    step(a, &again); /* not durable yet: who asks twice must ask again */
    assert_int_equal(a->reply, REPLY_CLOSE);
    settle(a, 10);
    assert_int_equal(a->reply, REPLY_250);
    unsigned stores = a->stores;
    a->reply = 0;
    step(a, &again);
    assert_int_equal(a->reply, REPLY_250);
    assert_int_equal(a->stores, stores);
    assert_int_equal(counts(a).owned, 2);
    assert_int_equal(a->first.hi, 7);
    assert_int_equal(a->first.lo, 5);
    /* delivered and forgotten: the grave still knows it */
    struct core_unit_id id = {.hi = 7, .lo = 5};
    outcome(a, &id, 1);
    id.part = 1;
    outcome(a, &id, 1);
    settle(a, 10);
    assert_int_equal(counts(a).units, 0);
    stores = a->stores;
    a->reply = 0;
    step(a, &again);
    assert_int_equal(a->reply, REPLY_250);
    assert_int_equal(a->stores, stores);
    end(a);
}

static void a_part_that_is_missing_is_made(void **unused)
{
    (void)unused;
    struct alone *a = begin(1, 1, MODE_QUORUM);
    struct core_event e = accept_of(1, 5, 1), more = accept_of(2, 5, 3);
    step(a, &e);
    settle(a, 10);
    step(a, &more);
    settle(a, 10);
    assert_int_equal(a->replies, 2);
    assert_int_equal(a->reply, REPLY_250);
    assert_int_equal(counts(a).owned, 3);
    end(a);
}

/* A tombstone of ours whose list is full; returns how many others heard of the end. */
static unsigned told_the_end(uint8_t flags)
{
    struct alone *a = calloc(1, sizeof(*a));
    struct core_params p = {.lease_ns = 15 * CORE_SEC, .rho_ppm = 20000};
    struct core_cfg cfg = {
        .ver = 1, .mode = MODE_QUORUM, .copies = 2, .min_copies = 1, .count = 11};
    struct core_event e = {.kind = EV_BOOT_META};
    struct unit_row row = {.id = {.hi = 7, .lo = 7},
        .term = 3,
        .owner = SELF,
        .owner_epoch = 1,
        .mine = 1,
        .state = UNIT_DONE,
        .rcpt_count = 1,
        .delivered = 1,
        .flags = flags,
        .list_count = CORE_LIST_MAX};
    bool told[16] = {false};
    unsigned count = 0;
    assert_non_null(a);
    p.frame_ns = p.stale_ns = p.doubt_ns = p.digest_ns = 10 * CORE_SEC;
    p.probe_ns = p.gossip_ns = CORE_SEC;
    assert_true(core_params_derive(&p));
    for (uint8_t i = 0; i < cfg.count; i++)
        cfg.member[i] = (struct core_member){.node = SELF + i,
            .roles = ROLE_STORE | (i == 0 ? ROLE_VOTER : 0),
            .zone = i,
            .weight = 1};
    for (uint8_t i = 0; i < CORE_LIST_MAX; i++)
        row.list[i] = (struct row_holder){SELF + i, 0, LIST_HOLD};
    a->core = core_init(
        aligned_alloc(16, (core_size(&LIMITS) + 15) & ~(size_t)15), &LIMITS, &p, SELF, 1);
    a->now = CORE_SEC;
    e.u.meta = (struct core_meta){SELF, 1, 0};
    step(a, &e);
    e.kind = EV_BOOT_CFG;
    e.u.cfg = &cfg;
    step(a, &e);
    e.kind = EV_BOOT_UNIT;
    e.u.unit = &row;
    step(a, &e);
    e.kind = EV_BOOT_END;
    step(a, &e);
    for (int round = 0; round < 100; round++) {
        settle(a, 1);
        for (uint32_t i = 0; i < a->out.count; i++)
            if (a->ring[i].kind == CMD_SEND && a->ring[i].u.send.kind == MSG_DONE)
                told[a->ring[i].u.send.env.to - SELF] = true;
    }
    for (int i = 0; i < 16; i++)
        count += told[i];
    end(a);
    return count;
}

static void names_without_room_hear_of_the_end(void **unused)
{
    (void)unused;
    assert_int_equal(told_the_end(0), CORE_LIST_MAX - 1);
    assert_int_equal(told_the_end(UNIT_MORE_NAMES), 10);
}

static void what_is_in_doubt_is_counted(void **unused)
{
    (void)unused;
    struct alone *a = begin(2, 2, MODE_STATIC);
    struct core_event e = accept_of(1, 5, 1);
    step(a, &e);
    settle(a, 500); /* degraded: the other one does not answer */
    assert_int_equal(a->reply, REPLY_250);
    assert_int_equal(counts(a).copies_short, 1);
    assert_int_equal(counts(a).in_doubt, 0);
    struct core_event req = {.kind = EV_INTENT_REQ};
    req.u.attempt.id = a->first;
    req.u.attempt.rcpts = 1;
    step(a, &req);
    req.kind = EV_OUTCOME;
    req.u.attempt.attempt = a->attempt;
    req.u.attempt.doubt = 1;
    step(a, &req);
    assert_int_equal(counts(a).in_doubt, 1);
    assert_int_equal(counts(a).member_count, 2);
    assert_int_equal(counts(a).member[1].session, 1); /* none seen */
    end(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_most_parts_are_accepted_in_bounded_steps),
        cmocka_unit_test(more_copies_than_the_ring_has_room_for),
        cmocka_unit_test(too_many_recipients_are_refused),
        cmocka_unit_test(an_id_is_accepted_once),
        cmocka_unit_test(a_part_that_is_missing_is_made),
        cmocka_unit_test(names_without_room_hear_of_the_end),
        cmocka_unit_test(what_is_in_doubt_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
