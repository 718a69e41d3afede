/* SPDX-License-Identifier: Apache-2.0 */
/* Copies that come in pieces, from peers that do not keep to the rules: nothing is kept
 * of what makes no sense, and memory stays bounded. */
#include "tests/unit/engine_world.h"

#include "base/random.h"
#include "node/cluster/copy_internal.h"

#define PEER UINT64_C(0x77)

static struct engine_world world;

static int setup(void **state)
{
    (void)state;
    char why[512];
    world_open(&world);
    assert_true(engine_boot_core(world.engine, why, sizeof(why)));
    engine_members_start(world.engine);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_close(&world);
    return 0;
}

struct piece {
    struct core_msg msg;
    struct wire_payload payload;
    struct buf head;
};

/* A copy of `m`, to be cut as the test likes. */
static void make_piece(struct piece *p, const struct message *m)
{
    struct message one = *m;
    struct rcpt_record rcpt = {.rcpt = m->units[0].rcpts[0]};
    struct unit_record rec = {
        .id = {.msg = m->id}, .message = &one, .rcpt_count = 1, .rcpts = &rcpt};
    memset(p, 0, sizeof(*p));
    buf_init(&p->head, UNIT_HEAD_MAX);
    assert_true(unit_head_pack(&rec, &p->head));
    p->msg.kind = MSG_COPY;
    p->msg.env = (struct core_env){.from = PEER,
        .to = world.engine->node,
        .via = world.engine->node,
        .from_epoch = 1,
        .lane = LANE_BULK};
    p->msg.u.unit.mail = 1;
    p->msg.u.unit.row = (struct unit_row){.id = rows_core_id(rec.id),
        .term = 1,
        .owner = PEER,
        .owner_epoch = 1,
        .state = UNIT_LIVE,
        .rcpt_count = 1,
        .list_count = 1,
        .size_bytes = (uint32_t)m->size,
        .body_crc = m->body_crc};
    p->msg.u.unit.row.list[0] = (struct row_holder){PEER, 0, LIST_HOLD};
    p->payload.head = buf_slice(&p->head);
    p->payload.total_bytes = m->size;
}

static void give(struct piece *p, uint64_t offset, struct slice chunk)
{
    static unsigned char frame[WIRE_FRAME_MAX];
    p->payload.offset_bytes = offset;
    p->payload.chunk = chunk;
    struct wire_payload payload = p->payload;
    if (offset)
        payload.head = slice_make("", 0);
    size_t len =
        wire_encode(&world.engine->wire, &p->msg, &payload, frame, sizeof(frame));
    assert_true(len > 0);
    engine_frame(world.engine, PEER, TRANSPORT_CONTROL, slice_make(frame, len));
}

static void nothing_is_kept(void)
{
    assert_int_equal(world.engine->arriving.count, 0);
    assert_int_equal(world.engine->arriving_bytes, 0);
}

static void test_whole_copy_leaves_nothing_behind(void **state)
{
    (void)state;
    struct message *m = world_message(1, "Subject: x\r\n\r\nhello there\r\n");
    struct piece p;
    make_piece(&p, m);
    struct slice body = body_row(m->body, 0);
    give(&p, 0, slice_head(body, 10));
    assert_int_equal(world.engine->arriving.count, 1);
    assert_true(world.engine->arriving_bytes > 0);
    give(&p, 10, slice_from(body, 10));
    nothing_is_kept(); /* whole: the core has heard, and refused a stranger's copy */
    buf_fini(&p.head);
    message_unref(m);
}

static void test_gaps_repeats_and_late_pieces_are_dropped(void **state)
{
    (void)state;
    struct message *m = world_message(2, "0123456789abcdefghij");
    struct piece p;
    make_piece(&p, m);
    struct slice body = body_row(m->body, 0);
    give(&p, 5, slice_from(body, 5)); /* without its beginning */
    nothing_is_kept();
    give(&p, 0, slice_head(body, 5));
    give(&p, 10, slice_from(body, 10)); /* with a hole */
    nothing_is_kept();
    give(&p, 0, slice_head(body, 5));
    give(&p, 0, slice_head(body, 7)); /* begun anew */
    assert_int_equal(world.engine->arriving.count, 1);
    give(&p, 5, slice_from(body, 5)); /* of the first try */
    nothing_is_kept();
    buf_fini(&p.head);
    message_unref(m);
}

static void test_lies_about_size_sum_and_name_are_dropped(void **state)
{
    (void)state;
    struct message *m = world_message(3, "0123456789abcdefghij");
    struct slice body = body_row(m->body, 0);
    struct piece p;
    make_piece(&p, m);
    p.payload.total_bytes = m->size + 1; /* not what the row says */
    give(&p, 0, slice_head(body, 5));
    nothing_is_kept();
    buf_fini(&p.head);
    make_piece(&p, m);
    p.msg.u.unit.row.id.lo++; /* the head of another unit */
    give(&p, 0, slice_head(body, 5));
    nothing_is_kept();
    buf_fini(&p.head);
    make_piece(&p, m);
    p.msg.u.unit.row.rcpt_count = 2;
    give(&p, 0, slice_head(body, 5));
    nothing_is_kept();
    buf_fini(&p.head);
    make_piece(&p, m);
    char wrong[20] = "0123456789abcdefghiX"; /* all of it, and the sum is not right */
    give(&p, 0, slice_make(wrong, sizeof(wrong)));
    nothing_is_kept();
    buf_fini(&p.head);
    message_unref(m);
}

static void test_one_peer_cannot_fill_the_memory(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 200; i++) {
        struct message *m = world_message(100 + i, "0123456789abcdefghij");
        struct piece p;
        make_piece(&p, m);
        give(&p, 0, slice_head(body_row(m->body, 0), 5));
        buf_fini(&p.head);
        message_unref(m);
    }
    assert_true(world.engine->arriving.count > 0);
    assert_true(world.engine->arriving.count <= 64);
}

static void test_noise_from_a_peer_is_refused(void **state)
{
    (void)state;
    static unsigned char noise[4096];
    uint32_t before = world.engine->arriving.count;
    for (int i = 0; i < 20000; i++) {
        size_t len = (size_t)random_below(sizeof(noise));
        random_bytes(noise, len);
        if (len && i % 4 == 0)
            noise[0] = (unsigned char)"\x08QHJ"[i / 4 % 4];
        if (len > 1 && i % 8 == 0)
            noise[1] = 1;
        engine_frame(world.engine, PEER, TRANSPORT_CONTROL, slice_make(noise, len));
        engine_guest(world.engine, noise, slice_make(noise, len));
    }
    assert_int_equal(world.engine->arriving.count, before);
    assert_true(world.engine->answering.count <= 256);
}

static void test_frames_of_others_are_refused(void **state)
{
    (void)state;
    struct message *m = world_message(4, "0123456789abcdefghij");
    struct piece p;
    uint32_t before = world.engine->arriving.count;
    make_piece(&p, m);
    p.msg.env.from = PEER + 1; /* not who the connection says */
    give(&p, 0, slice_head(body_row(m->body, 0), 5));
    p.msg.env.from = PEER;
    p.msg.env.via = 5;
    give(&p, 0, slice_head(body_row(m->body, 0), 5));
    assert_int_equal(world.engine->arriving.count, before);
    buf_fini(&p.head);
    message_unref(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            test_whole_copy_leaves_nothing_behind, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_gaps_repeats_and_late_pieces_are_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_lies_about_size_sum_and_name_are_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_one_peer_cannot_fill_the_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_noise_from_a_peer_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_frames_of_others_are_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
