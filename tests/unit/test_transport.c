/* SPDX-License-Identifier: Apache-2.0 */
/* Frames between transports on loopback: lanes, sizes, links, restarts, families. */
#include "tests/unit/transport_world.h"

#include <dirent.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "cluster/transport_internal.h"

static void test_lanes(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, "127.0.0.1");
    for (unsigned i = 0; i < 3; i++)
        node_start(&w, i);
    world_meet(&w, 3);
    struct node *a = &w.nodes[0], *b = &w.nodes[1], *c = &w.nodes[2];
    UNTIL(&w, is_connected(a, 2) && is_connected(b, 2) && is_connected(c, 2));
    UNTIL(&w, a->ups == 2 && b->ups == 2 && c->ups == 2);
    assert_true(node_send(a, b, TRANSPORT_CONTROL, "to b"));
    UNTIL(&w, b->frames[TRANSPORT_CONTROL] == 1);
    assert_int_equal(b->from, a->id);
    assert_memory_equal(b->last, "to b", 4);
    UNTIL(&w, transport_room(c->t, b->id) > 0);
    assert_true(node_send(c, b, TRANSPORT_BULK, "a piece"));
    UNTIL(&w, b->frames[TRANSPORT_BULK] == 1);
    assert_int_equal(b->from, c->id);
    assert_memory_equal(b->last, "a piece", 7);
    assert_true(transport_last_heard(b->t, a->id).ns > 0);
    assert_int_equal(transport_last_heard(b->t, 77).ns, 0);
    assert_int_equal(a->frames[0] + a->frames[1] + c->frames[0] + c->frames[1], 0);
    assert_int_equal(stats_of(b).frames_in, 2);
    assert_int_equal(stats_of(b).bytes_in, 11);
    assert_int_equal(stats_of(a).frames_out, 1);
    world_fini(&w);
}

/* Head and tail are one frame, of every size that is allowed, byte for byte. */
static void test_sizes(void **state)
{
    static const size_t sizes[] = {
        1, 2, 32, 33, 34, 4094, 4095, 4096, 4097, 65536, (1u << 20) - 1, 1u << 20};
    (void)state;
    struct world w;
    world_init(&w, "127.0.0.1");
    node_start(&w, 0);
    node_start(&w, 1);
    world_meet(&w, 2);
    struct node *a = &w.nodes[0], *b = &w.nodes[1];
    char *bytes = mem_alloc((1u << 20) + 1);
    for (size_t i = 0; i <= 1u << 20; i++)
        bytes[i] = (char)(i * 7 + i / 251);
    UNTIL(&w, is_connected(a, 1) && transport_room(a->t, b->id) >= 1u << 20);
    for (unsigned lane = 0; lane < TRANSPORT_LANES; lane++)
        for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            unsigned before = b->frames[lane];
            UNTIL(
                &w, lane == TRANSPORT_CONTROL || transport_room(a->t, b->id) >= sizes[i]);
            assert_true(transport_send(a->t, b->id, (enum transport_lane)lane,
                slice_make(bytes, sizes[i] / 3),
                slice_make(bytes + sizes[i] / 3, sizes[i] - sizes[i] / 3)));
            UNTIL(&w, b->frames[lane] == before + 1);
            assert_int_equal(b->last_len, sizes[i]);
            assert_memory_equal(b->last, bytes, sizes[i]);
        }
    struct slice none = slice_make("", 0);
    assert_false(transport_send(a->t, b->id, TRANSPORT_CONTROL, none, none));
    assert_false(transport_send(
        a->t, b->id, TRANSPORT_CONTROL, slice_make(bytes, (1u << 20) + 1), none));
    assert_false(transport_send(
        a->t, b->id, TRANSPORT_BULK, slice_make(bytes, 1u << 20), slice_make(bytes, 1)));
    assert_int_equal(stats_of(a).dropped_full, 3);
    assert_int_equal(stats_of(b).refused_frames, 0);
    free(bytes);
    world_fini(&w);
}

static void test_ipv6(void **state)
{
    (void)state;
    struct world w;
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_storage sa;
    socklen_t len = netaddr_to_sockaddr(address_of("::1", 0), &sa);
    bool has = fd >= 0 && bind(fd, (struct sockaddr *)&sa, len) == 0;
    close(fd);
    if (!has)
        skip();
    world_init(&w, "::1");
    node_start(&w, 0);
    w.host = "::"; /* IPv4 comes in there, too */
    node_start(&w, 1);
    w.host = "127.0.0.1";
    node_start(&w, 2);
    w.nodes[1].address.ip = address_of("::1", 0).ip;
    assert_true(node_knows(&w.nodes[0], &w.nodes[1]));
    assert_true(node_knows(&w.nodes[1], &w.nodes[0]));
    w.nodes[1].address.ip = address_of("127.0.0.1", 0).ip;
    assert_true(node_knows(&w.nodes[2], &w.nodes[1]));
    assert_true(node_knows(&w.nodes[1], &w.nodes[2]));
    UNTIL(&w, is_connected(&w.nodes[0], 1) && is_connected(&w.nodes[1], 2) &&
                  is_connected(&w.nodes[2], 1));
    assert_true(node_send(&w.nodes[0], &w.nodes[1], TRANSPORT_CONTROL, "six"));
    assert_true(node_send(&w.nodes[1], &w.nodes[2], TRANSPORT_CONTROL, "four"));
    UNTIL(&w, w.nodes[1].frames[0] == 1 && w.nodes[2].frames[0] == 1);
    assert_memory_equal(w.nodes[1].last, "six", 3);
    UNTIL(&w, transport_room(w.nodes[0].t, w.nodes[1].id) > 0);
    assert_true(node_send(&w.nodes[0], &w.nodes[1], TRANSPORT_BULK, "bulk"));
    UNTIL(&w, w.nodes[1].frames[TRANSPORT_BULK] == 1);
    world_fini(&w);
}

/* Gone and back on the same port with the same key: the link says so, sends are refused
 * meanwhile, both lanes work again, credit included. */
static void test_restart(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, "127.0.0.1");
    node_start(&w, 0);
    node_start(&w, 1);
    world_meet(&w, 2);
    struct node *a = &w.nodes[0], *b = &w.nodes[1];
    for (unsigned round = 1; round <= 3; round++) {
        UNTIL(&w, a->ups == round && transport_room(a->t, b->id) == 8u << 20);
        assert_true(node_send(a, b, TRANSPORT_BULK, "before"));
        UNTIL(&w, b->frames[TRANSPORT_BULK] == round);
        node_stop(b);
        UNTIL(&w, a->downs == round && transport_room(a->t, b->id) == 0);
        assert_false(node_send(a, b, TRANSPORT_CONTROL, "nobody there"));
        assert_false(node_send(a, b, TRANSPORT_BULK, "nobody there"));
        node_start(&w, 1);
        assert_true(node_knows(b, a));
    }
    UNTIL(&w, a->ups == 4);
    assert_true(node_send(a, b, TRANSPORT_CONTROL, "back"));
    UNTIL(&w, b->frames[TRANSPORT_CONTROL] == 1); /* nothing stale came before it */
    assert_memory_equal(b->last, "back", 4);
    world_fini(&w);
}

/* Started before it is known there: refused at first, and let in later by itself. */
static void test_known_later(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, "127.0.0.1");
    node_start(&w, 0);
    node_start(&w, 1);
    struct node *a = &w.nodes[0], *b = &w.nodes[1];
    uint64_t before = stats_of(b).refused_keys;
    assert_true(node_knows(a, b));
    UNTIL(&w, stats_of(b).refused_keys >= before + 2); /* it does not give up */
    assert_false(is_connected(a, 1));
    assert_true(node_knows(b, a));
    UNTIL(&w, is_connected(a, 1) && is_connected(b, 1));
    assert_true(node_send(a, b, TRANSPORT_CONTROL, "at last"));
    UNTIL(&w, b->frames[0] == 1);
    world_fini(&w);
}

/* Port 0: let in, not connected to; a new address connects, the same one changes nothing.
 */
static void test_address_changes(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, "127.0.0.1");
    for (unsigned i = 0; i < 3; i++)
        node_start(&w, i);
    struct node *a = &w.nodes[0], *b = &w.nodes[1], *c = &w.nodes[2];
    struct node nowhere = *a;
    nowhere.address.port = 0;
    assert_true(node_knows(b, &nowhere));
    assert_true(node_knows(a, b));
    UNTIL(&w, is_connected(a, 1));
    assert_true(node_send(a, b, TRANSPORT_CONTROL, "in"));
    UNTIL(&w, b->frames[0] == 1);
    assert_false(node_send(b, a, TRANSPORT_CONTROL, "no way"));
    assert_true(node_knows(b, a));
    UNTIL(&w, is_connected(b, 1) && b->ups == 1);
    assert_true(node_knows(b, a));
    assert_true(is_connected(b, 1)); /* the same: still connected */
    /* b's node moves to where c is, with c's key */
    struct node moved = *c;
    moved.id = b->id;
    assert_true(node_knows(c, a));
    assert_true(node_knows(a, &moved));
    assert_false(is_connected(a, 1));
    UNTIL(&w, is_connected(a, 1) && a->ups == 2 && a->downs == 1);
    assert_true(node_send(a, b, TRANSPORT_CONTROL, "moved"));
    UNTIL(&w, c->frames[0] == 1);
    /* b's old key speaks for nobody now */
    uint64_t before = stats_of(a).refused_frames;
    assert_true(node_send(b, a, TRANSPORT_CONTROL, "it is me"));
    UNTIL(&w, stats_of(a).refused_frames == before + 1);
    assert_int_equal(a->frames[0], 0);
    world_fini(&w);
}

static void test_full(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, "127.0.0.1");
    node_start(&w, 0);
    struct transport_peer peer = {.node = 1};
    for (unsigned i = 0; i < 128; i++) {
        peer.node = i + 1;
        memcpy(peer.key, &peer.node, sizeof(peer.node));
        assert_true(transport_set_peer(w.nodes[0].t, &peer));
    }
    peer.node = 500;
    assert_false(transport_set_peer(w.nodes[0].t, &peer)); /* a key that has an owner */
    memcpy(peer.key, &peer.node, sizeof(peer.node));
    assert_false(transport_set_peer(w.nodes[0].t, &peer));
    transport_remove_peer(w.nodes[0].t, 1);
    transport_remove_peer(w.nodes[0].t, 1);
    assert_true(transport_set_peer(w.nodes[0].t, &peer));
    peer.address = address_of("127.0.0.1", 65535); /* no port for bulk */
    assert_false(transport_set_peer(w.nodes[0].t, &peer));
    transport_remove_peer(w.nodes[0].t, 2);
    peer.node = w.nodes[0].id; /* ourselves */
    peer.address.port = 0;
    memcpy(peer.key, &peer.node, sizeof(peer.node));
    assert_false(transport_set_peer(w.nodes[0].t, &peer));
    assert_int_equal(stats_of(&w.nodes[0]).peers, 127);
    world_fini(&w);
}

static unsigned count_files(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

/* CLUSTER 1.3: 100 peers and two lanes. Nobody listens there: what counts is here. */
static void test_hundred_peers(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, "127.0.0.1");
    node_start(&w, 0);
    unsigned before = count_files();
    for (unsigned i = 0; i < 100; i++) {
        struct transport_peer peer = {.node = i + 1, .address = w.nodes[0].address};
        struct transport_keys keys;
        transport_keys_make(&keys);
        memcpy(peer.key, keys.public_key, TRANSPORT_KEY_BYTES);
        assert_true(transport_set_peer(w.nodes[0].t, &peer));
    }
    unsigned after = count_files();
    print_message("descriptors for 100 peers: %u\n", after - before);
    assert_in_range(after - before, 600, 1400);
    for (unsigned i = 0; i < 100; i++)
        transport_remove_peer(w.nodes[0].t, i + 1);
    UNTIL(&w, count_files() <= before + 8); /* libzmq closes in its own time */
    world_fini(&w);
}

/* No descriptor left: the lanes stay closed, and are opened when there are some again. */
static void test_no_descriptors(void **state)
{
    (void)state;
    struct world w;
    struct rlimit before, low;
    world_init(&w, "127.0.0.1");
    node_start(&w, 0);
    node_start(&w, 1);
    struct node *a = &w.nodes[0], *b = &w.nodes[1];
    assert_true(node_knows(b, a));
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = before;
    low.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    bool ok = node_knows(a, b);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_true(ok);
    assert_false(node_send(a, b, TRANSPORT_CONTROL, "no way"));
    for (unsigned i = 0; i < TRANSPORT_LANES; i++) {
        assert_null(a->t->peers[0].lanes[i].socket);
        a->t->peers[0].lanes[i].since = mono_add_ms(mono_now(), -60000);
    }
    UNTIL(&w, is_connected(a, 1) && transport_room(a->t, b->id) > 0);
    world_fini(&w);
}

static unsigned warnings;

static void count_warnings(const struct record *r, void *ctx)
{
    (void)ctx;
    warnings += r->event == LOG_EV_ALARM;
}

static bool try_start(struct world *w, struct netaddr listen, char why[512])
{
    struct transport_keys keys;
    transport_keys_make(&keys);
    struct transport_settings settings = {
        .loop = w->loop, .listen = listen, .keys = &keys, .node = 9};
    struct transport *t = transport_new(&settings, &node_events, NULL, why, 512);
    transport_free(t);
    return t != NULL;
}

static void test_cannot_start(void **state)
{
    (void)state;
    struct world w;
    char why[512] = "", text[NETADDR_TEXT_MAX];
    world_init(&w, "127.0.0.1");
    node_start(&w, 0);
    assert_false(try_start(&w, w.nodes[0].address, why));
    netaddr_format(w.nodes[0].address, text);
    assert_non_null(strstr(why, text));
    assert_non_null(strstr(why, "next step"));
    assert_false(try_start(&w, (struct netaddr){{0, {0}}, 25}, why));
    assert_false(try_start(&w, address_of("127.0.0.1", 65535), why));
    assert_false(try_start(&w, address_of("192.0.2.1", 0), why)); /* not ours */
    assert_non_null(strstr(why, "192.0.2.1"));
    world_fini(&w);
}

/* Few descriptors: a warning; a closed standard descriptor: no start. */
static void test_descriptors(void **state)
{
    (void)state;
    struct world w;
    char why[512] = "";
    struct rlimit before, low;
    world_init(&w, "127.0.0.1");
    log_add_sink(count_warnings, NULL);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = before;
    low.rlim_cur = 256;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    assert_true(try_start(&w, address_of("127.0.0.1", 0), why));
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(warnings, 1);
    int saved = dup(0);
    close(0);
    bool ok = try_start(&w, address_of("127.0.0.1", 0), why);
    dup2(saved, 0);
    close(saved);
    assert_false(ok);
    assert_non_null(strstr(why, "descriptor 0"));
    world_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lanes),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_ipv6),
        cmocka_unit_test(test_restart),
        cmocka_unit_test(test_known_later),
        cmocka_unit_test(test_address_changes),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_hundred_peers),
        cmocka_unit_test(test_cannot_start),
        cmocka_unit_test(test_no_descriptors),
        cmocka_unit_test(test_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
