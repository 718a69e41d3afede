/* SPDX-License-Identifier: Apache-2.0 */
/* Delivery as a whole, from the schedule to the socket, with a backend of the rights that
 * does as the test says, and next hops that do likewise: one loop, the test's own. */
#ifndef TESTS_UNIT_DELIVERY_WORLD_H
#define TESTS_UNIT_DELIVERY_WORLD_H

#include "tests/unit/rights_world.h"

#include <event2/event.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "node/delivery/schedule.h"
#include "node/net/listener.h"

/* --- a next hop --- */

#define HOP_CONNS 32

struct test_hop;
struct hop_conn {
    struct test_hop *hop;
    struct conn *conn;
    struct buf in;
    bool in_data;
};
struct test_hop {
    struct netaddr at;
    struct acceptor *acceptor;
    struct hop_conn conns[HOP_CONNS];
    unsigned opened, closed, in_data, messages, mails;
    struct buf rcpts; /* "<a@b> <c@d> " */
    bool drops_at_data, drops_at_mail, keeps_dot;
    const char *unknown; /* a local part that gets 550 */
};

static struct {
    struct loop *loop;
    struct conns *conns;
    struct store *store;
    struct workers *helpers;
    struct settings *settings;
    struct delivery_env env;
    struct delivery_loop *delivery;
    struct schedule *schedule;
    struct test_hop hops[2];
    struct msg_id_source ids;
    struct timer guard, tick;
    char waits_for[200];
    atomic_uint tagged; /* log lines with possible_duplicate=D1 */
} w;

static inline void guard_fired(struct timer *t)
{
    (void)t;
    fprintf(stderr, "waited for ever: %s\n", w.waits_for);
    abort();
}

/* Some conditions are of the schedule's thread, which does not wake this one. */
static inline void tick_fired(struct timer *t)
{
    timer_set(t, mono_add_ms(mono_now(), 20));
}

#define UNTIL(condition)                                                                 \
    do {                                                                                 \
        snprintf(w.waits_for, sizeof(w.waits_for), "%s:%d %s", __func__, __LINE__,       \
            #condition);                                                                 \
        timer_set(&w.guard, mono_add_ms(mono_now(), 20000));                             \
        while (!(condition))                                                             \
            loop_once(w.loop);                                                           \
        timer_cancel(&w.guard);                                                          \
    } while (0)

static inline void hop_drop(struct hop_conn *k)
{
    conn_close(k->conn);
    k->conn = NULL;
    k->hop->closed++;
}

static inline void hop_say(struct hop_conn *k, const char *line)
{
    conn_write(k->conn, slice_str(line));
    conn_write(k->conn, SLICE("\r\n"));
    conn_flush(k->conn);
}

static inline void hop_line(struct hop_conn *k, struct slice line)
{
    struct test_hop *h = k->hop;
    if (slice_starts(line, SLICE("EHLO"))) {
        hop_say(k, "250 hop.example");
    } else if (slice_starts(line, SLICE("MAIL"))) {
        h->mails++;
        if (h->drops_at_mail)
            hop_drop(k);
        else
            hop_say(k, "250 ok");
    } else if (slice_starts(line, SLICE("RCPT TO:"))) {
        buf_append(&h->rcpts, slice_from(line, 8));
        buf_append(&h->rcpts, SLICE(" "));
        bool is_known =
            !h->unknown || !slice_starts(slice_from(line, 9), slice_str(h->unknown));
        hop_say(k, is_known ? "250 ok" : "550 5.1.1 no such user");
    } else if (slice_starts(line, SLICE("DATA"))) {
        h->in_data++;
        k->in_data = true;
        if (h->drops_at_data)
            hop_drop(k);
        else
            hop_say(k, "354 go");
    } else {
        hop_say(k, slice_starts(line, SLICE("QUIT")) ? "221 bye" : "250 ok");
    }
}

/* One command, or the whole of a message; false: not all of it is here. */
static inline bool hop_step(struct hop_conn *k)
{
    struct slice in = buf_slice(&k->in);
    const char *end = k->in_data ? memmem(in.ptr, in.len, "\r\n.\r\n", 5)
                                 : memmem(in.ptr, in.len, "\r\n", 2);
    if (!end)
        return false;
    struct slice line = slice_make(in.ptr, (size_t)(end - in.ptr));
    if (k->in_data) {
        k->hop->messages++;
        k->in_data = false;
        buf_consume(&k->in, line.len + 5);
        if (!k->hop->keeps_dot)
            hop_say(k, "250 taken");
    } else {
        hop_line(k, line);
        if (k->conn)
            buf_consume(&k->in, line.len + 2);
    }
    return k->conn != NULL;
}

static inline size_t hop_data(struct conn *c, struct slice bytes, void *owner)
{
    struct hop_conn *k = owner;
    (void)c;
    buf_append(&k->in, bytes);
    while (hop_step(k)) {
    }
    return bytes.len;
}

static inline void hop_closed(struct conn *c, enum err why, void *owner)
{
    (void)c;
    (void)why;
    hop_drop(owner);
}

static const struct conn_handler hop_events = {.data = hop_data, .closed = hop_closed};

static inline void hop_accepted(int fd, struct netaddr peer, void *ctx)
{
    struct test_hop *h = ctx;
    assert_true(h->opened < HOP_CONNS);
    struct hop_conn *k = &h->conns[h->opened++];
    k->hop = h;
    buf_init(&k->in, 1 << 20);
    k->conn = conn_accept(w.conns, fd, peer, &hop_events, k);
    hop_say(k, "220 hop.example");
}

static inline void hop_open(struct test_hop *h)
{
    struct netaddr any = {0};
    char why[256];
    int fd;
    assert_true(ipaddr_parse(SLICE("127.0.0.1"), &any.ip));
    assert_int_equal(listen_open(any, 1, &fd, &h->at, why, sizeof(why)), ERR_OK);
    h->acceptor = acceptor_new(w.loop, fd, hop_accepted, h);
    buf_init(&h->rcpts, 4096);
}

static inline void hop_close(struct test_hop *h)
{
    acceptor_free(h->acceptor);
    for (unsigned i = 0; i < h->opened; i++) {
        conn_close(h->conns[i].conn);
        buf_fini(&h->conns[i].in);
    }
    buf_fini(&h->rcpts);
}

static inline bool hop_saw(const struct test_hop *h, const char *rcpts)
{
    return slice_eq(buf_slice(&h->rcpts), slice_str(rcpts));
}

/* --- the node --- */

static inline void see_tag(const struct record *r, void *ctx)
{
    char line[2048];
    size_t len = record_render_text(r, line, sizeof(line));
    (void)ctx;
    if (memmem(line, len, "possible_duplicate=D1", 21))
        atomic_fetch_add(&w.tagged, 1);
}

static inline struct settings *delivery_settings(void)
{
    struct settings_problems problems;
    char text[1024];
    settings_problems_init(&problems);
    snprintf(text, sizeof(text),
        "hostname: mx.test.example\npostmaster: p@ops.example\n"
        "retry: {first: 300ms, max: 400ms, give_up: 1h, delay_warning: 0s}\n"
        "routes:\n"
        "  - {domain: two.example, next_hop: [\"[127.0.0.1]:%u\"]}\n"
        "  - {domain: \"*\", next_hop: [\"[127.0.0.1]:%u\"]}\n",
        w.hops[1].at.port, w.hops[0].at.port);
    struct settings *s = settings_parse(slice_str(text), "test.yaml", &problems);
    if (!s)
        fail_msg("%.*s", SLICE_ARG(buf_slice(&problems.text)));
    settings_problems_fini(&problems);
    return s;
}

static inline int delivery_set_up(void **state)
{
    (void)state;
    memset(&w, 0, sizeof(w));
    w.loop = loop_new();
    timer_init(&w.guard, w.loop, guard_fired);
    timer_init(&w.tick, w.loop, tick_fired);
    tick_fired(&w.tick);
    w.conns = conns_new(w.loop);
    for (unsigned i = 0; i < 2; i++)
        hop_open(&w.hops[i]);
    w.store = store_open_ram(64 << 20);
    fake_open(w.store);
    w.helpers = workers_new(2, 1000, "helper");
    w.settings = delivery_settings();
    w.env = (struct delivery_env){.store = w.store,
        .rights = fake.rights,
        .helpers = w.helpers,
        .node = "test",
        .later_ms = 100};
    msg_id_source_init(&w.ids, 1, 1, 0);
    w.delivery = delivery_loop_new(w.loop, w.conns, &w.env);
    w.schedule = schedule_new(&w.env, settings_ref(w.settings));
    w.env.schedule = w.schedule;
    struct delivery_loop **loops = mem_alloc(sizeof(struct delivery_loop *));
    loops[0] = w.delivery;
    schedule_start(w.schedule, loops, 1);
    fake_lease(60000);
    schedule_pause(w.schedule, false);
    return 0;
}

/* The schedule is stopped from another thread, for its sessions need this one's loop. */
static inline void *stop_schedule(void *done)
{
    schedule_stop(w.schedule, 5000);
    atomic_store((atomic_bool *)done, true);
    return NULL;
}

static inline int delivery_tear_down(void **state)
{
    (void)state;
    atomic_bool done = false;
    pthread_t stopper;
    assert_int_equal(pthread_create(&stopper, NULL, stop_schedule, &done), 0);
    UNTIL(atomic_load(&done));
    pthread_join(stopper, NULL);
    schedule_free(w.schedule);
    workers_free(w.helpers);
    mailbox_drain(loop_mailbox(w.loop));
    delivery_loop_free(w.delivery);
    for (unsigned i = 0; i < 2; i++)
        hop_close(&w.hops[i]);
    fake_close();
    store_close(w.store);
    settings_unref(w.settings);
    timer_fini(&w.guard);
    timer_fini(&w.tick);
    conns_free(w.conns);
    loop_free(w.loop);
    return 0;
}

/* --- mail --- */

static inline void mail_durable(struct store_op *op, void *owner)
{
    struct store_accept *a = CONTAINER_OF(op, struct store_accept, op);
    (void)owner;
    assert_int_equal(op->result, ERR_OK);
    a->message = NULL;
}

/* In the queue, and nobody knows of it yet. "a@x b@x": one unit of x.example. */
static inline struct message *mail(const char *users, const char *domain)
{
    struct message *m = message_new();
    struct slice rest = slice_str(users);
    m->id = msg_id_next(&w.ids, wall_now());
    m->created = wall_now();
    m->reverse_path = SLICE("from@sender.example");
    m->unit_count = 1;
    m->units = arena_alloc(m->arena, sizeof(*m->units));
    m->units[0].domain = arena_dup(m->arena, slice_str(domain));
    m->units[0].expires = (struct wall){m->created.ms + 3600000};
    m->units[0].rcpts = arena_alloc(m->arena, 64 * sizeof(struct recipient));
    while (rest.len) {
        struct slice user = slice_head(rest, slice_find(rest, ' '));
        char address[100];
        snprintf(address, sizeof(address), "%.*s@%s", SLICE_ARG(user), domain);
        struct recipient *r = &m->units[0].rcpts[m->units[0].rcpt_count];
        r->address = arena_dup(m->arena, slice_str(address));
        r->index = m->units[0].rcpt_count++;
        rest = slice_from(rest, user.len + 1);
    }
    m->body = body_new();
    body_append(m->body, SLICE("Subject: hi\r\n\r\nhi\r\n"));
    m->size = body_size(m->body);
    m->body_crc = body_crc(m->body);
    struct store_accept a = {.op = {.kind = STORE_OP_ACCEPT,
                                 .reply_to = loop_mailbox(w.loop),
                                 .done = mail_durable},
        .message = m};
    store_submit(w.store, &a.op);
    UNTIL(!a.message);
    return m;
}

static inline struct unit_id unit_of(const struct message *m)
{
    return (struct unit_id){.msg = m->id};
}

/* As intake hands it over. */
static inline struct unit_id send_mail(const char *users, const char *domain)
{
    struct message *m = mail(users, domain);
    struct unit_id id = unit_of(m);
    schedule_accepted(w.schedule, m);
    message_unref(m);
    return id;
}

static inline uint64_t queued(void)
{
    struct store_stats s;
    store_stats(w.store, &s);
    return s.units;
}

#endif
