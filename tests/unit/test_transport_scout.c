/* SPDX-License-Identifier: Apache-2.0 */
/* Is a peer at an address? Only its key says so. */
#include "tests/unit/transport_world.h"

#include <unistd.h>

static struct world w;
static struct node *a, *b, *c;

static int setup(void **state)
{
    (void)state;
    world_init(&w, "127.0.0.1");
    for (unsigned i = 0; i < 3; i++)
        node_start(&w, i);
    a = &w.nodes[0], b = &w.nodes[1], c = &w.nodes[2];
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_fini(&w);
    return 0;
}

/* Known, and nobody knows where. */
static void knows_key(struct node *n, const struct node *other)
{
    struct transport_peer peer = {.node = other->id};
    memcpy(peer.key, other->keys.public_key, TRANSPORT_KEY_BYTES);
    assert_true(transport_set_peer(n->t, &peer));
}

static unsigned ended(const struct node *n)
{
    return n->scouts_there + n->scouts_failed;
}

static void test_found_by_its_key(void **state)
{
    (void)state;
    knows_key(a, b);
    knows_key(b, a);
    assert_true(transport_scout(a->t, b->id, b->address));
    UNTIL(&w, ended(a) == 1);
    assert_int_equal(a->scouts_there, 1);
    assert_int_equal(a->scouted_node, b->id);
    assert_int_equal(a->scouted_port, b->address.port);
    /* It is a question, not a connection, and says nothing to anybody. */
    assert_true(is_connected(a, 0));
    assert_int_equal(b->frames[0] + b->frames[1] + b->ups, 0);
    assert_true(node_knows(a, b));
    UNTIL(&w, is_connected(a, 1));
    assert_true(transport_scout(a->t, b->id, b->address)); /* as often as one likes */
    UNTIL(&w, ended(a) == 2);
    assert_int_equal(a->scouts_there, 2);
    assert_true(is_connected(a, 1));
}

/* Somebody else is there, and the peer is not: by another key, or because it does not
 * know us. */
static void test_others_are_not_it(void **state)
{
    (void)state;
    knows_key(a, b);
    knows_key(c, a);
    struct mono begin = mono_now();
    assert_true(transport_scout(a->t, b->id, c->address));
    UNTIL(&w, ended(a) == 1);
    assert_int_equal(a->scouts_there, 0);
    assert_true(
        mono_diff_ms(mono_now(), begin) < 2500); /* closed at once, not waited for */
    assert_true(transport_scout(a->t, b->id, b->address)); /* a stranger to it */
    UNTIL(&w, ended(a) == 2);
    assert_int_equal(a->scouts_there, 0);
}

static void test_nobody_there(void **state)
{
    (void)state;
    struct netaddr gone = b->address;
    knows_key(a, b);
    node_stop(b);
    struct mono begin = mono_now();
    assert_true(transport_scout(a->t, b->id, gone));
    UNTIL(&w, ended(a) == 1);
    assert_int_equal(a->scouts_failed, 1);
    assert_true(mono_diff_ms(mono_now(), begin) < 2500);
}

/* A listener that accepts and says nothing. */
static int mute(struct netaddr *out)
{
    struct sockaddr_storage sa;
    struct netaddr any = address_of("127.0.0.1", 0);
    socklen_t len = netaddr_to_sockaddr(any, &sa);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, len), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    assert_true(netaddr_from_sockaddr((struct sockaddr *)&sa, out));
    return fd;
}

static void test_bounded_in_time_and_number(void **state)
{
    (void)state;
    struct netaddr at;
    int fd = mute(&at);
    knows_key(a, b);
    assert_false(transport_scout(a->t, c->id, at)); /* no peer */
    assert_false(transport_scout(a->t, b->id, (struct netaddr){at.ip, 0}));
    assert_false(transport_scout(a->t, b->id, (struct netaddr){at.ip, UINT16_MAX}));
    for (unsigned i = 0; i < 8; i++)
        assert_true(transport_scout(a->t, b->id, at));
    assert_false(transport_scout(a->t, b->id, at));
    UNTIL(&w, ended(a) == 8);
    assert_int_equal(a->scouts_failed, 8);
    /* One whose peer goes is not told; what is under way at the end is closed. */
    assert_true(transport_scout(a->t, b->id, at));
    transport_remove_peer(a->t, b->id);
    knows_key(a, c);
    assert_true(transport_scout(a->t, c->id, at));
    UNTIL(&w, ended(a) == 9);
    assert_int_equal(a->scouted_node, c->id);
    assert_true(transport_scout(a->t, c->id, at));
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_found_by_its_key, setup, teardown),
        cmocka_unit_test_setup_teardown(test_others_are_not_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobody_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bounded_in_time_and_number, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
