/* SPDX-License-Identifier: Apache-2.0 */
/* Members that are not where they were: found by the seeds when they prove their key, and
 * names that nobody knows are told and harm nothing. */
#include "tests/unit/engine_world.h"

#include "dnsbl/resolver.h"
#include "node/cluster/members_internal.h"

#define PEER UINT64_C(0x77)
#define WAIT_MS 20000

static struct engine_world world;
static struct engine *e;
static struct transport *other; /* the member, wherever it is */
static struct transport_keys keys;
static struct netaddr there;
static struct timer beat;
static const struct netaddr nowhere = {{4, {127, 0, 0, 1}}, 1};

static void other_frame(
    void *ctx, uint64_t node, enum transport_lane lane, struct slice frame)
{
    (void)ctx;
    (void)node;
    (void)lane;
    (void)frame;
}

static void other_link(void *ctx, uint64_t node, bool is_up)
{
    (void)ctx;
    (void)node;
    (void)is_up;
}

static void beats(struct timer *t)
{
    engine_seeds_tick(e);
    timer_set(t, mono_add_ms(mono_now(), 20));
}

static bool linked(void)
{
    return e->peer[0].is_linked;
}

#define UNTIL(condition)                                                                 \
    do {                                                                                 \
        struct mono until_end = mono_add_ms(mono_now(), WAIT_MS);                        \
        while (!(condition)) {                                                           \
            if (mono_now().ns > until_end.ns)                                            \
                fail_msg("never: %s", #condition);                                       \
            loop_once(e->loop);                                                          \
        }                                                                                \
    } while (0)

static void open_other(void)
{
    static const struct transport_events events = {other_frame, NULL, other_link, NULL};
    char why[512];
    struct transport_settings settings = {.loop = e->loop, .keys = &keys, .node = PEER};
    struct transport_peer us = {
        .node = e->node, .address = transport_address(e->transport)};
    assert_true(ipaddr_parse(SLICE("127.0.0.1"), &settings.listen.ip));
    other = transport_new(&settings, &events, NULL, why, sizeof(why));
    assert_non_null(other);
    there = transport_address(other);
    memcpy(us.key, e->keys.public_key, sizeof(us.key));
    assert_true(transport_set_peer(other, &us));
}

/* A member mx2 that the configuration has at an address where nobody is. */
static void add_peer(void)
{
    struct engine_peer *p = &e->peer[e->peer_count++];
    *p = (struct engine_peer){.node = PEER};
    memcpy(p->ident.key, keys.public_key, sizeof(p->ident.key));
    snprintf(p->ident.name, sizeof(p->ident.name), "mx2");
    ident_put_address(&p->ident, nowhere);
    members_connect(e, p, nowhere);
}

static void with_seeds(const char *seeds)
{
    char yaml[1024];
    struct settings_problems problems;
    settings_problems_init(&problems);
    snprintf(yaml, sizeof(yaml),
        "hostname: mx1.example.net\ndata_dir: %s\n"
        "resolver: {dnssec: false, forward: ['127.0.0.1@1']}\n"
        "cluster:\n  name: test\n  node: mx1\n  listen: '127.0.0.1:0'\n  seeds: %s\n",
        world.dir, seeds);
    struct settings *s = settings_parse(slice_str(yaml), "test.yaml", &problems);
    assert_non_null(s);
    settings_problems_fini(&problems);
    settings_unref(e->settings);
    e->settings = s;
}

static int setup(void **state)
{
    (void)state;
    world_open(&world);
    e = world.engine;
    transport_keys_make(&keys);
    open_other();
    timer_init(&beat, e->loop, beats);
    timer_set(&beat, mono_now());
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    timer_fini(&beat);
    transport_free(other);
    world_close(&world);
    return 0;
}

/* What our member says about itself. */
static void hello(struct netaddr at)
{
    unsigned char frame[44] = {FRAME_HELLO, 1};
    struct core_ident self;
    ident_put_address(&self, at);
    memcpy(frame + 2, self.address, 18);
    memcpy(frame + 28, "1.2.3", 5);
    engine_hello(e, &e->peer[0], slice_make(frame, sizeof(frame)));
}

static bool is_at(struct netaddr a)
{
    return e->peer[0].at.port == a.port && ipaddr_eq(e->peer[0].at.ip, a.ip);
}

static void test_found_by_an_address(void **state)
{
    (void)state;
    char seeds[200];
    snprintf(seeds, sizeof(seeds), "['127.0.0.1:%u', '127.0.0.1:2', '127.0.0.1:%u']",
        transport_address(e->transport).port, there.port);
    add_peer();
    with_seeds(seeds);
    engine_seeds_start(e);
    UNTIL(linked());
    assert_true(is_at(there));
    /* It says that it is elsewhere: there first, and back when that leads nowhere. */
    hello((struct netaddr){{4, {127, 0, 0, 1}}, 3});
    assert_false(is_at(there));
    UNTIL(!linked());
    UNTIL(linked());
    assert_true(is_at(there));
    /* What it said is known not to work: to say it again changes nothing. */
    hello((struct netaddr){{4, {127, 0, 0, 1}}, 3});
    assert_true(is_at(there));
    hello((struct netaddr){{4, {0}}, 3}); /* nonsense */
    assert_true(is_at(there));
}

/* No seed is needed where the member itself was right before. */
static void test_found_where_it_said(void **state)
{
    (void)state;
    add_peer();
    with_seeds("[]");
    e->peer[0].said = there;
    engine_seeds_start(e);
    UNTIL(linked());
    assert_true(is_at(there));
}

/* Another key at the right address is nobody. */
static void test_a_key_is_needed(void **state)
{
    (void)state;
    char seeds[64];
    snprintf(seeds, sizeof(seeds), "['127.0.0.1:%u']", there.port);
    struct transport_keys right = keys;
    transport_keys_make(&keys);
    add_peer(); /* with that one */
    keys = right;
    with_seeds(seeds);
    engine_seeds_start(e);
    struct mono end = mono_add_ms(mono_now(), 4000);
    UNTIL(mono_now().ns > end.ns);
    assert_false(linked());
    assert_true(is_at(nowhere));
}

static void status(struct engine_status *s)
{
    memset(s, 0, sizeof(*s));
    engine_seeds_status(e, s);
}

/* The resolver has nobody to ask. */
static void test_unknown_names(void **state)
{
    (void)state;
    char why[512];
    struct engine_status *s = mem_zalloc(sizeof(*s));
    with_seeds("[a.mx2.test, mx3.test, '127.0.0.1:9']");
    struct resolver *resolver = resolver_new(e->settings, why, sizeof(why));
    assert_non_null(resolver);
    e->deps.resolver = resolver;
    engine_seeds_start(e);
    assert_int_equal(engine_seeds_pending(e), 2);
    status(s);
    assert_int_equal(s->seeds_failing, 0);
    UNTIL((status(s), s->seeds_failing == 2));
    assert_non_null(strstr(s->seed_problem, "a.mx2.test"));
    assert_int_equal(engine_seeds_pending(e), 0);
    /* Other settings: answers to the old ones are nobody's. */
    engine_seeds_reload(e);
    status(s);
    assert_int_equal(s->seeds_failing, 0);
    with_seeds("['127.0.0.1:9']");
    engine_seeds_reload(e);
    resolver_free(resolver); /* answers all, as in a stop */
    while (engine_seeds_pending(e) > 0)
        mailbox_drain(e->box);
    status(s);
    assert_int_equal(s->seeds_failing, 0);
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_found_by_an_address, setup, teardown),
        cmocka_unit_test_setup_teardown(test_found_where_it_said, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_key_is_needed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unknown_names, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
