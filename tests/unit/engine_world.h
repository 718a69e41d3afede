/* SPDX-License-Identifier: Apache-2.0 */
/* An engine on a store in memory, the founder of a cluster of its own, in a directory
 * that vanishes. */
#ifndef TESTS_UNIT_ENGINE_WORLD_H
#define TESTS_UNIT_ENGINE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "node/cluster/engine_internal.h"

struct engine_world {
    char dir[64];
    struct settings *settings;
    struct store *store;
    struct workers *helpers;
    struct rights *rights;
    struct engine *engine;
    atomic_uint started, cancelled;
    atomic_bool may_deliver;
};

static inline void world_started(
    void *ctx, struct unit_id id, uint64_t rcpts, uint64_t doubt, struct wall due)
{
    struct engine_world *w = ctx;
    (void)id;
    (void)rcpts;
    (void)doubt;
    (void)due;
    atomic_fetch_add(&w->started, 1);
}

static inline void world_cancelled(void *ctx, struct unit_id id)
{
    struct engine_world *w = ctx;
    (void)id;
    atomic_fetch_add(&w->cancelled, 1);
}

static inline void world_lease(void *ctx, bool may_deliver)
{
    struct engine_world *w = ctx;
    atomic_store(&w->may_deliver, may_deliver);
}

static inline struct settings *world_settings(const char *dir)
{
    char yaml[1024];
    struct settings_problems problems;
    snprintf(yaml, sizeof(yaml),
        "hostname: mx1.example.net\ndata_dir: %s\ncluster: {name: test, node: mx1, "
        "listen: \"127.0.0.1:0\", lease: 5s, copies: 1}\n",
        dir);
    settings_problems_init(&problems);
    struct settings *s = settings_parse(slice_str(yaml), "test.yaml", &problems);
    if (!s)
        fprintf(stderr, "%.*s", SLICE_ARG(buf_slice(&problems.text)));
    assert_non_null(s);
    settings_problems_fini(&problems);
    return s;
}

/* Not started. */
static inline void world_open(struct engine_world *w)
{
    static const struct engine_events events = {
        world_started, world_cancelled, world_lease, NULL, NULL, NULL, NULL, NULL, NULL};
    char why[512];
    struct birth birth;
    memset(w, 0, sizeof(*w));
    snprintf(w->dir, sizeof(w->dir), "/var/tmp/baton-engine-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    w->settings = world_settings(w->dir);
    w->store = store_open_ram(UINT64_C(64) << 20);
    w->helpers = workers_new(1, 100, "helper");
    w->rights = rights_new(w->store, &engine_backend, NULL);
    assert_true(birth_init(w->settings, &birth, why, sizeof(why)));
    struct engine_deps deps = {.store = w->store,
        .rights = w->rights,
        .helpers = w->helpers,
        .events = &events,
        .ctx = w};
    w->engine = engine_new(&deps, w->settings, why, sizeof(why));
    if (!w->engine)
        fprintf(stderr, "%s\n", why);
    assert_non_null(w->engine);
    rights_bind(w->rights, w->engine);
}

static inline void world_close(struct engine_world *w)
{
    char command[128];
    workers_free(w->helpers);
    engine_free(w->engine);
    rights_free(w->rights);
    store_close(w->store);
    settings_unref(w->settings);
    snprintf(command, sizeof(command), "rm -rf %s", w->dir);
    assert_int_equal(system(command), 0);
}

/* A message to one recipient. */
static inline struct message *world_message(uint32_t number, const char *body)
{
    static struct msg_id_source source = {.node = 1, .epoch = 1};
    struct message *m = message_new();
    m->created = wall_now();
    m->id = msg_id_next(&source, m->created);
    m->reverse_path = arena_dup(m->arena, SLICE("a@example.net"));
    m->helo = SLICE("client.example.net");
    m->unit_count = 1;
    m->units = arena_alloc(m->arena, sizeof(*m->units));
    m->units[0] = (struct message_unit){.domain = SLICE("dest.example.net"),
        .rcpt_count = 1,
        .rcpts = arena_alloc(m->arena, sizeof(struct recipient)),
        .expires = {m->created.ms + 3600000}};
    m->units[0].rcpts[0].address = arena_printf(m->arena, "b%u@dest.example.net", number);
    m->body = body_new();
    body_append(m->body, slice_str(body));
    m->size = body_size(m->body);
    m->body_crc = body_crc(m->body);
    return m;
}

#endif
