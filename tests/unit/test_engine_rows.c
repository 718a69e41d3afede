/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/random.h"
#include "node/cluster/rows.h"

static unsigned char value[ROW_VALUE_MAX];
static struct core_cfg cfg_out;

static enum rows_kind read_back(
    const struct store_row *row, struct core_event *e, struct unit_row *unit)
{
    struct cluster_identity identity;
    return rows_get(row, e, &cfg_out, unit, &identity);
}

static struct unit_row sample_unit(void)
{
    struct unit_row u = {.id = {.hi = UINT64_C(0x0123456789abcdef), .lo = 7, .part = 127},
        .term = 3,
        .owner_epoch = 9,
        .owner = UINT64_C(0xfedcba9876543210),
        .mine = 9,
        .state = UNIT_LIVE,
        .rcpt_count = 64,
        .list_count = 3,
        .flags = UNIT_NULL_SENDER | UNIT_IS_DSN,
        .delivered = 1,
        .failed = UINT64_C(1) << 63,
        .doubt = 6,
        .attempt = UINT64_MAX,
        .due_s = 1,
        .expires_s = UINT32_MAX,
        .size_bytes = 12345,
        .body_crc = 0xdeadbeef};
    for (uint8_t i = 0; i < 3; i++)
        u.list[i] = (struct row_holder){100u + i, i, (uint8_t)(i + 1)};
    return u;
}

static void test_unit_round_trip(void **state)
{
    (void)state;
    struct core_op op = {.kind = OP_UNIT, .u.unit = sample_unit()};
    struct store_row row;
    struct core_event e;
    struct unit_row got;
    rows_put_op(&op, &row, value);
    assert_int_equal(row.table, STORE_ROW_UNIT);
    assert_true(row.value.len <= STORE_ROW_UNIT_MAX);
    assert_int_equal(read_back(&row, &e, &got), ROWS_EVENT);
    assert_int_equal(e.kind, EV_BOOT_UNIT);
    struct unit_row want = sample_unit();
    assert_memory_equal(&got.id, &want.id, sizeof(want.id));
    assert_int_equal(got.term, want.term);
    assert_true(got.owner == want.owner && got.mine == want.mine);
    assert_true(got.delivered == want.delivered && got.failed == want.failed);
    assert_true(got.doubt == want.doubt && got.attempt == want.attempt);
    assert_int_equal(got.expires_s, want.expires_s);
    assert_int_equal(got.body_crc, want.body_crc);
    assert_int_equal(got.list_count, 3);
    assert_true(got.list[2].node == 102 && got.list[2].status == LIST_RELEASING);
}

static void test_deleted_unit_has_no_value(void **state)
{
    (void)state;
    struct core_op op = {.kind = OP_UNIT_DELETE, .u.unit = sample_unit()};
    struct store_row row;
    rows_put_op(&op, &row, value);
    assert_null(row.value.ptr);
    assert_int_equal(row.key_len, UNIT_ID_BYTES);
}

/* Every member filled, so that what the walk leaves out is seen. */
static void test_configuration_round_trip(void **state)
{
    (void)state;
    static struct core_cfg cfg, zero;
    struct store_row row;
    struct core_event e;
    struct unit_row unit;
    cfg = zero;
    random_bytes(cfg.member, sizeof(cfg.member));
    for (unsigned i = 0; i < CORE_MEMBERS_MAX; i++) {
        struct core_member m = {.node = random_u64() | 1,
            .roles = cfg.member[i].roles,
            .zone = cfg.member[i].zone,
            .weight = cfg.member[i].weight,
            .ident = cfg.member[i].ident};
        cfg.member[i] = m;
    }
    cfg.ver = UINT64_C(1) << 48 | 5;
    cfg.mode_ver = 3;
    cfg.voters_ver = 4;
    cfg.prev_ver = 2;
    cfg.mode = MODE_STATIC;
    cfg.copies = 3;
    cfg.min_copies = 2;
    cfg.flags = CFG_AUTO_VOTERS;
    cfg.was_voters = 5;
    cfg.count = CORE_MEMBERS_MAX;
    struct core_op op = {.kind = OP_CFG, .u.cfg = &cfg};
    rows_put_op(&op, &row, value);
    assert_true(row.value.len <= STORE_ROW_VALUE_MAX);
    assert_int_equal(read_back(&row, &e, &unit), ROWS_EVENT);
    assert_int_equal(e.kind, EV_BOOT_CFG);
    assert_true(cfg_out.ver == cfg.ver && cfg_out.mode_ver == 3);
    assert_true(cfg_out.voters_ver == 4 && cfg_out.prev_ver == 2);
    assert_int_equal(cfg_out.was_voters, 5);
    assert_int_equal(cfg_out.flags, CFG_AUTO_VOTERS);
    for (unsigned i = 0; i < CORE_MEMBERS_MAX; i++) {
        assert_true(cfg_out.member[i].node == cfg.member[i].node);
        assert_memory_equal(
            &cfg_out.member[i].ident, &cfg.member[i].ident, sizeof(cfg.member[i].ident));
    }
}

static void round_trip_small(struct core_op op, uint8_t want_kind)
{
    struct store_row row;
    struct core_event e;
    struct unit_row unit;
    rows_put_op(&op, &row, value);
    assert_int_equal(row.table, STORE_ROW_NODE);
    assert_int_equal(read_back(&row, &e, &unit), ROWS_EVENT);
    assert_int_equal(e.kind, want_kind);
    if (op.kind == OP_META)
        assert_true(
            e.u.meta.node == 5 && e.u.meta.epoch == 6 && e.u.meta.lease_max_ns == 7);
    if (op.kind == OP_SESS)
        assert_true(e.u.sess.node == 8 && e.u.sess.cur == 9 && e.u.sess.fenced == 10);
    if (op.kind == OP_FENCE)
        assert_true(
            e.u.fence.node == 11 && e.u.fence.fenced == 12 && e.u.fence.known == 13);
    if (op.kind == OP_PAXOS)
        assert_true(e.u.paxos.ver == 14 && e.u.paxos.change.node == 15);
}

static void test_small_rows_round_trip(void **state)
{
    (void)state;
    round_trip_small(
        (struct core_op){.kind = OP_META, .u.meta = {5, 6, 7}}, EV_BOOT_META);
    round_trip_small((struct core_op){.kind = OP_SESS,
                         .u.sess = {.node = 8, .cur = 9, .fenced = 10, .flags = 1}},
        EV_BOOT_SESS);
    round_trip_small(
        (struct core_op){.kind = OP_FENCE, .u.fence = {11, 12, 13}}, EV_BOOT_FENCE);
    round_trip_small((struct core_op){.kind = OP_PAXOS,
                         .u.paxos = {.ver = 14, .change = {.node = 15, .op = CFG_ADD}}},
        EV_BOOT_PAXOS);
}

static void test_identity_round_trip(void **state)
{
    (void)state;
    struct cluster_identity id = {.name = "prod"}, got;
    struct store_row row;
    struct core_event e;
    struct unit_row unit;
    memset(id.id, 7, sizeof(id.id));
    rows_put_identity(&id, &row, value);
    assert_int_equal(rows_get(&row, &e, &cfg_out, &unit, &got), ROWS_IDENTITY);
    assert_memory_equal(&got, &id, sizeof(id));
}

/* Cut at every length, one byte too long, and every byte of the head turned: refused, or
 * read within bounds. */
static void test_damage_is_refused(void **state)
{
    (void)state;
    struct core_op op = {.kind = OP_UNIT, .u.unit = sample_unit()};
    struct store_row row;
    struct core_event e;
    struct unit_row got;
    rows_put_op(&op, &row, value);
    size_t len = row.value.len;
    for (size_t cut = 0; cut < len; cut++) {
        row.value.len = cut;
        assert_int_equal(read_back(&row, &e, &got), ROWS_BAD);
    }
    row.value.len = len + 1;
    assert_int_equal(read_back(&row, &e, &got), ROWS_BAD);
    row.value.len = len;
    for (size_t at = 0; at < len; at++) {
        unsigned char old = value[at];
        value[at] ^= 0xff;
        if (read_back(&row, &e, &got) == ROWS_EVENT) {
            assert_true(got.list_count <= CORE_LIST_MAX);
            assert_true(got.rcpt_count >= 1 && got.rcpt_count <= 64);
            assert_true(got.state >= UNIT_LIVE && got.state <= UNIT_ABORTED);
        }
        value[at] = old;
    }
    value[0] = 2; /* a version that is not ours */
    assert_int_equal(read_back(&row, &e, &got), ROWS_BAD);
}

static void test_noise_is_refused_or_bounded(void **state)
{
    (void)state;
    static const char letters[] = "mcpsfix";
    static unsigned char noise[1024];
    for (int round = 0; round < 20000; round++) {
        struct store_row row = {.table = round % 3 ? STORE_ROW_NODE : STORE_ROW_UNIT};
        struct core_event e;
        struct unit_row unit;
        random_bytes(noise, sizeof(noise));
        noise[0] = 1;
        random_bytes(row.key, sizeof(row.key));
        row.key[0] = (unsigned char)letters[round % 7];
        row.key_len = (uint8_t)(round % 3 ? (round % 2 ? 1 : 9) : UNIT_ID_BYTES);
        row.value = slice_make(noise, (size_t)random_below(sizeof(noise)));
        if (read_back(&row, &e, &unit) == ROWS_EVENT && e.kind == EV_BOOT_CFG)
            assert_true(cfg_out.count <= CORE_MEMBERS_MAX);
    }
}

/* A row that turns up under another node's key says nothing about that node. */
static void test_key_and_value_must_agree(void **state)
{
    (void)state;
    struct core_op op = {.kind = OP_FENCE, .u.fence = {11, 12, 13}};
    struct store_row row;
    struct core_event e;
    struct unit_row unit;
    rows_put_op(&op, &row, value);
    row.key[8] ^= 1;
    assert_int_equal(read_back(&row, &e, &unit), ROWS_BAD);
}

static void test_ids_keep_their_order(void **state)
{
    (void)state;
    struct unit_id id = {.unit = 127};
    for (int i = 0; i < MSG_ID_BYTES; i++)
        id.msg.bytes[i] = (unsigned char)(i * 17);
    struct core_unit_id core = rows_core_id(id);
    struct unit_id back = rows_unit_id(&core);
    assert_int_equal(unit_id_cmp(id, back), 0);
    assert_true(core.hi == UINT64_C(0x0011223344556677));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unit_round_trip),
        cmocka_unit_test(test_deleted_unit_has_no_value),
        cmocka_unit_test(test_configuration_round_trip),
        cmocka_unit_test(test_small_rows_round_trip),
        cmocka_unit_test(test_identity_round_trip),
        cmocka_unit_test(test_damage_is_refused),
        cmocka_unit_test(test_noise_is_refused_or_bounded),
        cmocka_unit_test(test_key_and_value_must_agree),
        cmocka_unit_test(test_ids_keep_their_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
