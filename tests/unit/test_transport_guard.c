/* SPDX-License-Identifier: Apache-2.0 */
/* Who is let in, and what is made of the frames of those who are: strangers, removed
 * members, guests, and peers that break every rule. */
#include "tests/unit/transport_world.h"

#include "cluster/transport_internal.h"

static struct world w;
static struct node *a;

static int setup(void **state)
{
    (void)state;
    world_init(&w, "127.0.0.1");
    node_start(&w, 0);
    a = &w.nodes[0];
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_fini(&w);
    return 0;
}

static unsigned frames_in(void)
{
    return a->frames[0] + a->frames[1] + a->guests;
}

/* A member that is libzmq by hand. */
static void raw_member(struct raw *r, uint64_t node, enum transport_lane lane)
{
    struct transport_keys keys;
    struct transport_peer peer = {.node = node};
    transport_keys_make(&keys);
    memcpy(peer.key, keys.public_key, TRANSPORT_KEY_BYTES);
    assert_true(transport_set_peer(a->t, &peer));
    raw_open(r, &keys, a, lane);
}

/* Tries until there is a connection. */
static void raw_send_first(struct raw *r, const void *bytes, size_t len)
{
    UNTIL(&w, raw_send(r, bytes, len, 0));
}

static void test_strangers(void **state)
{
    (void)state;
    for (unsigned lane = 0; lane < TRANSPORT_LANES; lane++) {
        struct transport_keys keys;
        struct raw stranger, plain;
        uint64_t before = stats_of(a).refused_keys;
        transport_keys_make(&keys);
        raw_open(&stranger, &keys, a, (enum transport_lane)lane);
        raw_open(&plain, NULL, a, (enum transport_lane)lane); /* no CURVE at all */
        UNTIL(&w, stats_of(a).refused_keys > before);
        assert_false(raw_send(&stranger, "\1hello", 6, 0));
        assert_false(raw_send(&plain, "\1hello", 6, 0));
        raw_close(&stranger);
        raw_close(&plain);
    }
    assert_int_equal(frames_in(), 0);
}

/* Another key answers at the peer's address: there is no link to it. */
static void test_wrong_node(void **state)
{
    (void)state;
    node_start(&w, 1);
    node_start(&w, 2);
    struct node *b = &w.nodes[1], *c = &w.nodes[2];
    struct node mistaken = *b;
    mistaken.address = c->address;
    assert_true(node_knows(c, a));
    assert_true(node_knows(b, a));
    assert_true(node_knows(a, &mistaken));
    UNTIL(&w, is_connected(b, 1));
    struct mono half = mono_add_ms(mono_now(), 500); /* some tries */
    UNTIL(&w, mono_now().ns > half.ns);
    assert_false(node_send(a, b, TRANSPORT_CONTROL, "for b alone"));
    assert_int_equal(a->ups, 0);
    assert_int_equal(c->frames[0], 0);
    assert_true(node_knows(a, b)); /* and it recovers when the address is right */
    UNTIL(&w, is_connected(a, 1));
}

/* Its connection lives on; its frames are nothing from that moment. Taken back, the same
 * connection serves. */
static void test_removed(void **state)
{
    (void)state;
    node_start(&w, 1);
    struct node *b = &w.nodes[1];
    world_meet(&w, 2);
    UNTIL(&w, is_connected(a, 1) && b->ups == 1 && transport_room(b->t, a->id) > 0);
    assert_true(node_send(b, a, TRANSPORT_CONTROL, "member"));
    UNTIL(&w, a->frames[0] == 1);
    transport_remove_peer(a->t, b->id);
    assert_false(node_send(a, b, TRANSPORT_CONTROL, "gone"));
    assert_true(node_send(b, a, TRANSPORT_CONTROL, "still here"));
    assert_true(node_send(b, a, TRANSPORT_BULK, "still here"));
    UNTIL(&w, stats_of(a).refused_frames >= 2);
    assert_int_equal(frames_in(), 1);
    assert_true(is_connected(b, 1));
    uint64_t refused = stats_of(a).refused_keys;
    assert_true(node_knows(a, b));
    assert_true(node_send(b, a, TRANSPORT_CONTROL, "back"));
    UNTIL(&w, a->frames[0] == 2);
    assert_int_equal(stats_of(a).refused_keys, refused);
    assert_int_equal(b->downs, 0);
    /* bulk: the credit of the old stream is void, a new word sets it right */
    UNTIL(&w, node_send(b, a, TRANSPORT_BULK, "bulk again") && a->frames[1] > 0);
}

/* Removed, its connection broken: it does not come in again. */
static void test_removed_and_gone(void **state)
{
    (void)state;
    struct raw r;
    raw_member(&r, 50, TRANSPORT_CONTROL);
    raw_send_first(&r, "\1x", 2);
    UNTIL(&w, a->frames[0] == 1);
    raw_close(&r);
    struct transport_keys keys;
    transport_keys_make(&keys);
    struct transport_peer peer = {.node = 51};
    memcpy(peer.key, keys.public_key, TRANSPORT_KEY_BYTES);
    assert_true(transport_set_peer(a->t, &peer));
    transport_remove_peer(a->t, 51);
    uint64_t before = stats_of(a).refused_keys;
    raw_open(&r, &keys, a, TRANSPORT_CONTROL);
    UNTIL(&w, stats_of(a).refused_keys > before);
    assert_false(raw_send(&r, "\1x", 2, 0));
    raw_close(&r);
}

/* Each of these is refused and counted, and the connection goes on. */
static void test_malformed(void **state)
{
    static const struct {
        const char *name;
        enum transport_lane lane;
        size_t len;
        char bytes[64];
    } table[] = {
        {"empty", TRANSPORT_CONTROL, 0, ""},
        {"no payload", TRANSPORT_CONTROL, 1, "\1"},
        {"type 0", TRANSPORT_CONTROL, 2, "\0x"},
        {"beat, long", TRANSPORT_CONTROL, 2, "\4x"},
        {"type of tomorrow", TRANSPORT_CONTROL, 2, "\5x"},
        {"type 255", TRANSPORT_CONTROL, 2, "\377x"},
        {"open, short", TRANSPORT_CONTROL, 24, "\2"},
        {"open, long", TRANSPORT_CONTROL, 26, "\2"},
        {"credit, short", TRANSPORT_CONTROL, 32, "\3"},
        {"credit, long", TRANSPORT_CONTROL, 34, "\3"},
        {"bulk, empty", TRANSPORT_BULK, 0, ""},
        {"bulk, head cut", TRANSPORT_BULK, 24, "\1"},
        {"bulk, no payload", TRANSPORT_BULK, 25, "\1"},
        {"bulk, no stream", TRANSPORT_BULK, 30, "\1"},
        {"bulk, stream not opened", TRANSPORT_BULK, 30, "\1aaaaaaaabbbbbbbb"},
        {"open on bulk", TRANSPORT_BULK, 25, "\2"},
        {"credit on bulk", TRANSPORT_BULK, 33, "\3"},
    };
    (void)state;
    for (unsigned lane = 0; lane < TRANSPORT_LANES; lane++) {
        struct raw r;
        raw_member(&r, 60 + lane, (enum transport_lane)lane);
        uint64_t refused = stats_of(a).refused_frames;
        bool is_first = true;
        for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
            if (table[i].lane != lane)
                continue;
            if (is_first)
                raw_send_first(&r, table[i].bytes, table[i].len);
            else
                assert_true(raw_send(&r, table[i].bytes, table[i].len, 0));
            is_first = false;
            refused++;
            UNTIL(&w, stats_of(a).refused_frames >= refused);
            if (stats_of(a).refused_frames != refused)
                fail_msg("%s: refused twice", table[i].name);
        }
        raw_close(&r);
    }
    assert_int_equal(frames_in(), 0);
}

/* libzmq cuts what is over MAXMSGSIZE; what is over our own limit and under that, we do.
 */
static void test_oversize(void **state)
{
    (void)state;
    struct raw r;
    size_t size = TRANSPORT_FRAME_MAX + 1 + HEAD_CONTROL;
    char *bytes = mem_zalloc(2 * size);
    bytes[0] = FRAME_DATA;
    raw_member(&r, 70, TRANSPORT_CONTROL);
    raw_send_first(&r, bytes, size);
    UNTIL(&w, stats_of(a).refused_frames == 1);
    assert_true(raw_send(&r, bytes, size - 1, 0)); /* the largest there is */
    UNTIL(&w, a->frames[0] == 1);
    assert_int_equal(a->last_len, TRANSPORT_FRAME_MAX);
    assert_true(raw_send(&r, bytes, 2 * size, 0)); /* cuts the connection */
    UNTIL(&w, !raw_send(&r, "\1y", 2, 0));
    unsigned before = a->frames[0];
    raw_send_first(&r, "\1z", 2);
    UNTIL(&w, a->frames[0] > before && a->last[0] == 'z');
    for (unsigned i = 0; i < a->frames[0]; i++)
        assert_true(a->bytes[0] < 2 * (uint64_t)TRANSPORT_FRAME_MAX);
    free(bytes);
    raw_close(&r);
}

static void test_multipart(void **state)
{
    (void)state;
    struct raw r;
    raw_member(&r, 80, TRANSPORT_CONTROL);
    UNTIL(&w, raw_send(&r, "\1one", 4, ZMQ_SNDMORE));
    assert_true(raw_send(&r, "\1two", 4, 0));
    assert_true(raw_send(&r, "\1single", 7, 0));
    UNTIL(&w, a->frames[0] == 1);
    assert_memory_equal(a->last, "single", 6);
    assert_int_equal(stats_of(a).refused_frames, 1);
    for (unsigned i = 0; i < 5000; i++) /* many turns of it */
        assert_true(raw_send(&r, "\1part", 5, ZMQ_SNDMORE));
    assert_true(raw_send(&r, "", 0, 0));
    assert_true(raw_send(&r, "\1after", 6, 0));
    UNTIL(&w, a->frames[0] == 2);
    assert_memory_equal(a->last, "after", 5);
    assert_int_equal(stats_of(a).refused_frames, 2);
    raw_close(&r);
}

/* Beyond what a peer may send in a second its frames are refused; others are heard. */
static void test_flood(void **state)
{
    (void)state;
    struct raw mad, sane;
    raw_member(&mad, 90, TRANSPORT_CONTROL);
    raw_member(&sane, 91, TRANSPORT_CONTROL);
    raw_send_first(&sane, "\1x", 2);
    raw_send_first(&mad, "\1x", 2);
    UNTIL(&w, a->frames[0] == 2);
    for (unsigned i = 0; i < 2; i++)
        if (a->t->peers[i].node == 90) {
            a->t->peers[i].frames_left = 10;
            a->t->peers[i].bytes_left = 25;
        }
    for (unsigned i = 0; i < 8; i++)
        assert_true(raw_send(&mad, "\1xxxx", 5, 0));
    assert_true(raw_send(&sane, "\1sane", 5, 0));
    UNTIL(&w, a->frames[0] + stats_of(a).refused_frames == 11);
    assert_int_equal(a->frames[0], 2 + 5 + 1); /* five times five bytes */
    UNTIL(&w, raw_send(&mad, "\1y", 2, 0) && a->last[0] == 'y'); /* a second later */
    raw_close(&mad);
    raw_close(&sane);
}

struct probe {
    struct timer timer;
    unsigned frames, at;
    bool fired;
};
static struct probe probe;

static void probe_fires(struct timer *t)
{
    (void)t;
    probe.fired = true;
    probe.at = probe.frames;
}

static void probe_frame(
    void *ctx, uint64_t node, enum transport_lane lane, struct slice frame)
{
    (void)ctx, (void)node, (void)lane, (void)frame;
    if (probe.frames++ == 0)
        timer_set(&probe.timer, mono_now());
}

/* However many frames wait, a timer that is due has its turn after one budget of them. */
static void test_turns(void **state)
{
    static const struct transport_events events = {
        probe_frame, on_guest, on_link, on_scouted};
    (void)state;
    struct raw r;
    raw_member(&r, 95, TRANSPORT_CONTROL);
    probe = (struct probe){.frames = 0};
    timer_init(&probe.timer, w.loop, probe_fires);
    a->t->events = &events;
    raw_send_first(&r, "\0x", 2); /* refused: not counted by the probe */
    unsigned sent = 0;
    while (sent < 900 && raw_send(&r, "\1x", 2, 0))
        sent++;
    assert_true(sent > 10 * TURN_FRAMES);
    UNTIL(&w, probe.frames == sent);
    assert_true(probe.fired);
    assert_in_range(probe.at, 1, TURN_FRAMES);
    timer_fini(&probe.timer);
    raw_close(&r);
}

/* --- guests --- */

static void test_guest(void **state)
{
    (void)state;
    struct transport_keys keys;
    struct raw r, bulk;
    transport_keys_make(&keys);
    assert_true(transport_invite(a->t, keys.public_key, mono_add_ms(mono_now(), 600000)));
    raw_open(&r, &keys, a, TRANSPORT_CONTROL);
    raw_send_first(&r, "\1may I", 6);
    UNTIL(&w, a->guests == 1);
    assert_memory_equal(a->guest_key, keys.public_key, TRANSPORT_KEY_BYTES);
    assert_memory_equal(a->last, "may I", 5);
    /* not on bulk */
    uint64_t before = stats_of(a).refused_keys;
    raw_open(&bulk, &keys, a, TRANSPORT_BULK);
    UNTIL(&w, stats_of(a).refused_keys > before);
    assert_false(raw_send(&bulk, "\1x", 2, 0));
    raw_close(&bulk);
    /* not our inner frames, not large, not many */
    char *big = mem_zalloc(TRANSPORT_GUEST_FRAME_MAX + 2);
    big[0] = FRAME_DATA;
    assert_true(raw_send(&r, "\2aaaaaaaabbbbbbbbcccccccc", 25, 0));
    assert_true(raw_send(&r, big, TRANSPORT_GUEST_FRAME_MAX + 2, 0));
    UNTIL(&w, stats_of(a).refused_frames == 2);
    assert_true(raw_send(&r, big, TRANSPORT_GUEST_FRAME_MAX + 1, 0));
    UNTIL(&w, a->guests == 2);
    free(big);
    a->t->guests[0].frames_left = 1;
    assert_true(raw_send(&r, "\1x", 2, 0) && raw_send(&r, "\1x", 2, 0));
    UNTIL(&w, stats_of(a).refused_frames == 3);
    assert_int_equal(a->guests, 3);
    /* no longer: the connection is open, the word is not heard */
    transport_uninvite(a->t, keys.public_key);
    assert_true(raw_send(&r, "\1x", 2, 0));
    UNTIL(&w, stats_of(a).refused_frames == 4);
    assert_int_equal(a->guests, 3);
    assert_int_equal(a->frames[0], 0);
    raw_close(&r);
}

static void test_invitation_ends(void **state)
{
    (void)state;
    struct transport_keys keys;
    struct raw r;
    transport_keys_make(&keys);
    assert_true(transport_invite(a->t, keys.public_key, mono_add_ms(mono_now(), 600000)));
    raw_open(&r, &keys, a, TRANSPORT_CONTROL);
    raw_send_first(&r, "\1in time", 8);
    UNTIL(&w, a->guests == 1);
    assert_true(transport_invite(a->t, keys.public_key, mono_now())); /* over */
    assert_true(raw_send(&r, "\1late", 5, 0));
    UNTIL(&w, stats_of(a).refused_frames == 1);
    assert_int_equal(a->guests, 1);
    raw_close(&r);
    UNTIL(&w, !a->t->guests[0].in_use);
    uint64_t before = stats_of(a).refused_keys;
    raw_open(&r, &keys, a, TRANSPORT_CONTROL);
    UNTIL(&w, stats_of(a).refused_keys > before);
    raw_close(&r);
}

static void test_invitations_full(void **state)
{
    (void)state;
    unsigned char key[TRANSPORT_KEY_BYTES] = {0};
    struct mono until = mono_add_ms(mono_now(), 600000);
    for (unsigned i = 0; i <= GUESTS_MAX; i++) {
        key[0] = (unsigned char)i;
        assert_int_equal(transport_invite(a->t, key, until), i < GUESTS_MAX);
    }
    key[0] = 3;
    assert_true(transport_invite(a->t, key, until)); /* known: moved */
    transport_uninvite(a->t, key);
    transport_uninvite(a->t, key);
    key[0] = 200;
    assert_true(transport_invite(a->t, key, until));
}

/* The way of joining: a frame with the invitation's pair, and once the host knows the new
 * member's own key, both talk. */
static void test_send_as_guest(void **state)
{
    (void)state;
    struct transport_keys invitation;
    struct transport_peer host = {.node = a->id, .address = a->address};
    node_start(&w, 1);
    struct node *b = &w.nodes[1];
    transport_keys_make(&invitation);
    memcpy(host.key, a->keys.public_key, TRANSPORT_KEY_BYTES);
    /* asked before the invitation is open: it leaves when it is */
    uint64_t before = stats_of(a).refused_keys;
    assert_true(transport_send_as_guest(b->t, &invitation, &host, SLICE("let me in")));
    UNTIL(&w, stats_of(a).refused_keys > before);
    struct mono until = mono_add_ms(mono_now(), 600000);
    assert_true(transport_invite(a->t, invitation.public_key, until));
    UNTIL(&w, a->guests == 1);
    assert_memory_equal(a->last, "let me in", 9);
    assert_true(transport_send_as_guest(b->t, &invitation, &host, SLICE("please")));
    UNTIL(&w, a->guests == 2);
    world_meet(&w, 2);
    transport_uninvite(a->t, invitation.public_key);
    UNTIL(&w, is_connected(a, 1) && is_connected(b, 1));
    assert_true(node_send(a, b, TRANSPORT_CONTROL, "welcome"));
    UNTIL(&w, b->frames[0] == 1);
    /* the host comes back: a frame that had arrived is not sent again */
    b->t->guest_out.sent_at = mono_add_ms(mono_now(), -60000);
    UNTIL(&w, !b->t->guest_out.lane.socket);
    char *big = mem_zalloc(TRANSPORT_GUEST_FRAME_MAX + 1);
    assert_false(transport_send_as_guest(
        b->t, &invitation, &host, slice_make(big, TRANSPORT_GUEST_FRAME_MAX + 1)));
    assert_false(transport_send_as_guest(b->t, &invitation, &host, slice_make(big, 0)));
    host.address.port = 0;
    assert_false(transport_send_as_guest(b->t, &invitation, &host, SLICE("x")));
    free(big);
}

#define GUARDED(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        GUARDED(test_strangers),
        GUARDED(test_wrong_node),
        GUARDED(test_removed),
        GUARDED(test_removed_and_gone),
        GUARDED(test_malformed),
        GUARDED(test_oversize),
        GUARDED(test_multipart),
        GUARDED(test_flood),
        GUARDED(test_turns),
        GUARDED(test_guest),
        GUARDED(test_invitation_ends),
        GUARDED(test_invitations_full),
        GUARDED(test_send_as_guest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
