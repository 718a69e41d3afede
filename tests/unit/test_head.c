/* SPDX-License-Identifier: Apache-2.0 */
/* Heads of units between nodes: what goes in comes out, and nothing else is believed. */
#include "queue/head.h"

#include "tests/unit/store_text.h"

static struct unit_record *make_unit(uint64_t *seed, unsigned rcpts)
{
    uint64_t ids = below(seed, 1000);
    struct body *b = random_body(seed, below(seed, 20000));
    struct message *m = make_message(make_id(&ids), b, 1, 1, seed);
    fill_unit(m, &m->units[0], 3, rcpts, seed);
    struct rcpt_record *r = mem_zalloc(rcpts * sizeof(*r));
    for (unsigned i = 0; i < rcpts; i++)
        r[i] = (struct rcpt_record){.rcpt = m->units[0].rcpts[i],
            .state = (enum rcpt_state)below(seed, 8),
            .attempts = (uint16_t)below(seed, 70000),
            .next_due = {1700000000000 + below(seed, 9999)},
            .first_attempt = {below(seed, 3) ? 1700000000000 : 0},
            .last_attempt = {below(seed, 3) ? 1700000001000 : 0},
            .last_reply = SLICE("450 4.2.1 greylisted"),
            .last_status = SLICE("4.2.1"),
            .last_mx = SLICE("mx.example.org"),
            .attempt_id = next_random(seed),
            .delay_dsn_sent = below(seed, 2)};
    struct unit_record u = {.id = {m->id, 3},
        .held = below(seed, 2),
        .hold_reason = SLICE("held"),
        .rcpt_count = (uint16_t)rcpts,
        .rcpts = r,
        .next_due = {1700000000000 + below(seed, 9999)},
        .body_rows = body_rows(b)};
    struct unit_record *copy = unit_record_copy(m, &m->units[0], &u);
    free(r);
    message_unref(m);
    return copy;
}

static void assert_same(const struct unit_record *a, const struct unit_record *b)
{
    struct buf x, y;
    buf_init(&x, MIB);
    buf_init(&y, MIB);
    print_record(a, &x);
    print_record(b, &y);
    assert_true(slice_eq(buf_slice(&x), buf_slice(&y)));
    assert_int_equal(a->body_rows, b->body_rows);
    for (uint16_t i = 0; i < a->rcpt_count; i++) {
        const struct rcpt_record *p = &a->rcpts[i], *q = &b->rcpts[i];
        assert_int_equal(p->first_attempt.ms, q->first_attempt.ms);
        assert_int_equal(p->last_attempt.ms, q->last_attempt.ms);
        assert_int_equal(p->attempt_id, q->attempt_id);
        assert_int_equal(p->delay_dsn_sent, q->delay_dsn_sent);
        assert_true(slice_eq(p->last_status, q->last_status));
        assert_true(slice_eq(p->last_mx, q->last_mx));
    }
    buf_fini(&x);
    buf_fini(&y);
}

static void test_round_trip(void **state)
{
    uint64_t seed = 11;
    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        struct buf out;
        struct unit_record *u = make_unit(&seed, 1 + below(&seed, UNIT_RCPTS_MAX));
        buf_init(&out, UNIT_HEAD_MAX);
        assert_true(unit_head_pack(u, &out));
        struct unit_record *back = unit_head_parse(buf_slice(&out));
        assert_non_null(back);
        assert_null(back->message->body);
        assert_same(u, back);
        unit_record_free(back);
        unit_record_free(u);
        buf_fini(&out);
    }
}

/* Every prefix and every byte changed, each in memory of its own size: refused, or a head
 * that packs. */
static void try_bytes(const char *bytes, size_t len)
{
    char *own = mem_alloc(len + 1);
    struct buf out;
    memcpy(own, bytes, len);
    own = mem_realloc(own, len ? len : 1);
    struct unit_record *u = unit_head_parse(slice_make(own, len));
    if (u) {
        buf_init(&out, UNIT_HEAD_MAX);
        assert_true(unit_head_pack(u, &out));
        buf_fini(&out);
    }
    unit_record_free(u);
    free(own);
}

static void test_hostile(void **state)
{
    uint64_t seed = 12;
    struct buf out;
    (void)state;
    struct unit_record *u = make_unit(&seed, 3);
    buf_init(&out, UNIT_HEAD_MAX);
    assert_true(unit_head_pack(u, &out));
    size_t len = buf_len(&out);
    char *bytes = mem_alloc(len + 1);
    memcpy(bytes, buf_slice(&out).ptr, len);
    for (size_t i = 0; i < len; i++)
        assert_null(unit_head_parse(slice_make(bytes, i)));
    bytes[len] = 0;
    assert_null(unit_head_parse(slice_make(bytes, len + 1)));
    for (size_t i = 0; i < len; i++) {
        char was = bytes[i];
        for (unsigned bit = 0; bit < 8; bit++) {
            bytes[i] = (char)(was ^ (1 << bit));
            try_bytes(bytes, len);
        }
        bytes[i] = was;
    }
    free(bytes);
    buf_fini(&out);
    unit_record_free(u);
}

/* --- what may not travel --- */

static void spoil_crlf(struct unit_record *u)
{
    u->rcpts[0].rcpt.address = SLICE("a@b.example\r\nRCPT TO:<c@d.example>");
}
static void spoil_address(struct unit_record *u)
{
    u->rcpts[0].rcpt.address = SLICE("");
}
static void spoil_sender(struct unit_record *u)
{
    u->message->reverse_path = SLICE("a\n@b.example");
}
static void spoil_domain(struct unit_record *u)
{
    u->message->units[0].domain = SLICE("");
}
static void spoil_unit(struct unit_record *u)
{
    u->id.unit = MESSAGE_UNITS_MAX;
}
static void spoil_index(struct unit_record *u)
{
    u->rcpts[1].rcpt.index = UNIT_RCPTS_MAX;
}
static void spoil_order(struct unit_record *u)
{
    u->rcpts[1].rcpt.index = u->rcpts[0].rcpt.index;
}
static void spoil_none(struct unit_record *u)
{
    u->rcpt_count = 0;
}
static void spoil_size(struct unit_record *u)
{
    u->message->size = UINT64_C(1) << 32;
}
static void spoil_helo(struct unit_record *u)
{
    u->message->helo = arena_dup(u->arena, slice_make((char[2000]){"x"}, 2000));
}

static void test_refused(void **state)
{
    static void (*const spoil[])(struct unit_record * u) = {spoil_crlf, spoil_address,
        spoil_sender, spoil_domain, spoil_unit, spoil_index, spoil_order, spoil_none,
        spoil_size, spoil_helo};
    (void)state;
    for (unsigned i = 0; i < sizeof(spoil) / sizeof(spoil[0]); i++) {
        uint64_t seed = 13;
        struct buf out;
        struct unit_record *u = make_unit(&seed, 2);
        buf_init(&out, UNIT_HEAD_MAX);
        buf_append(&out, SLICE("before"));
        assert_true(unit_head_pack(u, &out));
        buf_clear(&out);
        buf_append(&out, SLICE("before"));
        spoil[i](u);
        assert_false(unit_head_pack(u, &out));
        assert_true(slice_eq(buf_slice(&out), SLICE("before")));
        assert_false(out.failed);
        buf_fini(&out);
        unit_record_free(u);
    }
}

static void test_too_many(void **state)
{
    uint64_t seed = 14;
    struct buf out;
    (void)state;
    struct unit_record *u = make_unit(&seed, UNIT_RCPTS_MAX + 1);
    buf_init(&out, UNIT_HEAD_MAX);
    assert_false(unit_head_pack(u, &out));
    buf_fini(&out);
    u->rcpt_count = UNIT_RCPTS_MAX;
    buf_init(&out, 500);
    assert_false(unit_head_pack(u, &out));
    assert_int_equal(buf_len(&out), 0);
    buf_fini(&out);
    unit_record_free(u);
}

/* A time from a broken clock does not keep the mail on its node. */
static void test_odd_times(void **state)
{
    uint64_t seed = 15;
    struct buf out;
    (void)state;
    struct unit_record *u = make_unit(&seed, 1);
    u->next_due.ms = INT64_MAX;
    u->rcpts[0].next_due.ms = -5;
    buf_init(&out, UNIT_HEAD_MAX);
    assert_true(unit_head_pack(u, &out));
    struct unit_record *back = unit_head_parse(buf_slice(&out));
    assert_non_null(back);
    assert_int_equal(back->rcpts[0].next_due.ms, 0);
    assert_true(back->next_due.ms > INT64_C(1000000000000));
    unit_record_free(back);
    unit_record_free(u);
    buf_fini(&out);
}

static void test_rcpt_records(void **state)
{
    uint64_t seed = 16;
    struct buf out;
    struct rcpt_record *r;
    unsigned count;
    (void)state;
    struct unit_record *u = make_unit(&seed, 9);
    struct arena *a = arena_new(1024);
    buf_init(&out, RCPT_RECORDS_MAX);
    assert_true(rcpt_records_pack(u->rcpts + 2, 5, &out));
    assert_true(rcpt_records_parse(buf_slice(&out), a, &r, &count));
    assert_int_equal(count, 5);
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(r[i].rcpt.index, i + 2);
        assert_true(slice_eq(r[i].rcpt.address, u->rcpts[i + 2].rcpt.address));
        assert_int_equal(r[i].state, u->rcpts[i + 2].state);
        assert_int_equal(r[i].attempts, u->rcpts[i + 2].attempts);
        assert_true(slice_eq(r[i].last_reply, u->rcpts[i + 2].last_reply));
    }
    for (size_t i = 0; i < buf_len(&out); i++)
        assert_false(rcpt_records_parse(slice_head(buf_slice(&out), i), a, &r, &count));
    assert_false(unit_head_parse(buf_slice(&out)));
    buf_clear(&out);
    assert_false(rcpt_records_pack(u->rcpts, 0, &out));
    assert_int_equal(buf_len(&out), 0);
    buf_fini(&out);
    arena_free(a);
    unit_record_free(u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_odd_times),
        cmocka_unit_test(test_rcpt_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
