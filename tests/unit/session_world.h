/* SPDX-License-Identifier: Apache-2.0 */
/* A node's intake on one loop, with a store in memory and clients on loopback sockets:
 * what clients say, what they hear, and what is in the queue afterwards. */
#ifndef TESTS_UNIT_SESSION_WORLD_H
#define TESTS_UNIT_SESSION_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants those first */
#include <cmocka.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "node/intake/intake.h"
#include "node/net/listener.h"
#include "tests/unit/certificate.h"

#define ACCEPTED_MAX 64

static char dir[] = "/var/tmp/baton-test-session-XXXXXX";
static char cert_file[200], key_file[200], users_file[200], list_file[200];

static struct {
    struct loop *loop;
    struct conns *conns;
    struct store *store;
    struct rights *rights;
    struct workers *helpers;
    struct intake *intake;
    struct settings *settings;
    struct netaddr at[8]; /* the listeners' addresses, in the order of the file */
    struct message *accepted[ACCEPTED_MAX];
    unsigned accepted_count;
    struct timer guard;
    char waits_for[200];
} w;

/* NULL: a node alone. */
static struct rights *(*world_rights)(struct store *store);

static inline void guard_fired(struct timer *t)
{
    (void)t;
    fprintf(stderr, "waited for ever: %s\n", w.waits_for);
    abort();
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

static inline void message_accepted(struct message *m, void *ctx)
{
    (void)ctx;
    assert_true(w.accepted_count < ACCEPTED_MAX);
    w.accepted[w.accepted_count++] = m;
}

/* --- the node under test --- */

static inline struct settings *parse(const char *yaml)
{
    struct settings_problems problems;
    char text[4096];
    snprintf(text, sizeof(text),
        "hostname: mx.test.example\npostmaster: admin@ops.example\n%s", yaml);
    settings_problems_init(&problems);
    struct settings *s = settings_parse(slice_str(text), "test.yaml", &problems);
    if (!s)
        fail_msg("%.*s", SLICE_ARG(buf_slice(&problems.text)));
    settings_problems_fini(&problems);
    return s;
}

static inline void start(const char *yaml)
{
    struct settings_problems problems;
    memset(&w, 0, sizeof(w));
    w.loop = loop_new();
    w.conns = conns_new(w.loop);
    timer_init(&w.guard, w.loop, guard_fired);
    w.store = store_open_ram(64 << 20);
    w.rights = world_rights ? world_rights(w.store) : rights_new(w.store, NULL, NULL);
    w.helpers = workers_new(1, 100, "helper");
    w.settings = parse(yaml);
    struct intake_deps deps = {.loops = &w.loop,
        .conns = &w.conns,
        .loop_count = 1,
        .store = w.store,
        .rights = w.rights,
        .helpers = w.helpers,
        .node = 7,
        .epoch = 1,
        .accepted = message_accepted};
    settings_problems_init(&problems);
    w.intake = intake_new(&deps, w.settings, &problems);
    if (!w.intake)
        fail_msg("%.*s", SLICE_ARG(buf_slice(&problems.text)));
    settings_problems_fini(&problems);
    intake_addresses(w.intake, w.at, 8);
}

static inline void stop(void)
{
    UNTIL(intake_sessions(w.intake) == 0);
    intake_free(w.intake);
    workers_free(w.helpers);
    mailbox_drain(loop_mailbox(w.loop));
    for (unsigned i = 0; i < w.accepted_count; i++)
        message_unref(w.accepted[i]);
    rights_free(w.rights);
    store_close(w.store);
    settings_unref(w.settings);
    timer_fini(&w.guard);
    conns_free(w.conns);
    loop_free(w.loop);
}

/* --- a client --- */

struct client {
    struct conn *conn;
    struct buf got;
    bool connected, secured, closed;
    enum err why;
};

static inline void client_connected(struct conn *c, void *owner)
{
    (void)c;
    ((struct client *)owner)->connected = true;
}

static inline size_t client_data(struct conn *c, struct slice bytes, void *owner)
{
    (void)c;
    buf_append(&((struct client *)owner)->got, bytes);
    return bytes.len;
}

static inline void client_secured(struct conn *c, void *owner)
{
    (void)c;
    ((struct client *)owner)->secured = true;
}

static inline void client_closed(struct conn *c, enum err why, void *owner)
{
    struct client *k = owner;
    (void)c;
    k->closed = true;
    k->why = why;
}

static const struct conn_handler client_events = {.connected = client_connected,
    .data = client_data,
    .secured = client_secured,
    .closed = client_closed};

static inline void client_open_from(struct client *k, unsigned listener, const char *from)
{
    struct conn_target target = {.to = w.at[listener], .timeout_ms = 5000};
    *k = (struct client){0};
    buf_init(&k->got, 16 << 20);
    assert_true(ipaddr_parse(slice_str(from), &target.from));
    k->conn = conn_connect(w.conns, &target, &client_events, k);
    UNTIL(k->connected || k->closed);
}

static inline void client_open(struct client *k, unsigned listener)
{
    client_open_from(k, listener, "127.0.0.1");
}

static inline void client_close(struct client *k)
{
    conn_close(k->conn);
    buf_fini(&k->got);
}

/* Is the last line a reply's last one ("250 ..."), and are there `n` such lines? */
static inline unsigned replies(const struct client *k)
{
    struct slice rest = buf_slice(&k->got);
    unsigned n = 0;
    while (rest.len) {
        size_t end = slice_find(rest, '\n');
        if (end == rest.len)
            return 0;
        if (end > 4 && rest.ptr[3] != '-')
            n++;
        rest = slice_from(rest, end + 1);
    }
    return n;
}

static inline void say(struct client *k, const char *text)
{
    conn_write(k->conn, slice_str(text));
    conn_flush(k->conn);
}

/* Says something, waits for so many replies, wants them to begin with `want`. */
static inline void talk_n(
    struct client *k, const char *text, unsigned n, const char *want)
{
    buf_clear(&k->got);
    say(k, text);
    UNTIL(replies(k) >= n || k->closed);
    if (replies(k) < n || !slice_starts(buf_slice(&k->got), slice_str(want)))
        fail_msg(
            "said %.60s\nwanted %s\ngot %.*s", text, want, SLICE_ARG(buf_slice(&k->got)));
}

static inline void talk(struct client *k, const char *text, const char *want)
{
    talk_n(k, text, 1, want);
}

static inline bool got_has(const struct client *k, const char *text)
{
    return memmem(k->got.mem + k->got.head, buf_len(&k->got), text, strlen(text)) != NULL;
}

static inline void greet(struct client *k, unsigned listener)
{
    client_open(k, listener);
    talk(k, "", "220 mx.test.example ESMTP");
    talk(k, "EHLO client.example\r\n", "250-mx.test.example");
}

static inline void quit(struct client *k)
{
    talk(k, "QUIT\r\n", "221 ");
    UNTIL(k->closed);
    assert_int_equal(k->why, ERR_OK);
    client_close(k);
}

/* --- what is in the queue --- */

static inline void body_text(const struct message *m, struct buf *out)
{
    buf_init(out, 16 << 20);
    struct body *body = NULL;
    if (m->body)
        body = body_ref(m->body);
    else
        assert_int_equal(store_load_body(w.store, m->id, 16 << 20, &body), ERR_OK);
    for (uint32_t row = 0; row < body_rows(body); row++)
        buf_append(out, body_row(body, row));
    body_unref(body);
    assert_int_equal(buf_len(out), m->size);
}

static inline bool body_has(const struct message *m, const char *text)
{
    struct buf out;
    body_text(m, &out);
    bool has = memmem(out.mem, buf_len(&out), text, strlen(text)) != NULL;
    buf_fini(&out);
    return has;
}

static inline uint64_t stored_bodies(void)
{
    struct store_stats s;
    store_stats(w.store, &s);
    return s.bodies;
}

static inline uint64_t stored_units(void)
{
    struct store_stats s;
    store_stats(w.store, &s);
    return s.units;
}

/* --- set-up --- */

static inline void write_file(const char *file, const char *text)
{
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static inline int world_set_up(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    snprintf(cert_file, sizeof(cert_file), "%s/cert.pem", dir);
    snprintf(key_file, sizeof(key_file), "%s/key.pem", dir);
    snprintf(users_file, sizeof(users_file), "%s/users", dir);
    snprintf(list_file, sizeof(list_file), "%s/list", dir);
    write_pair("mx.test.example", cert_file, key_file);
    /* "secret", SHA-512 with few rounds: tests are in a hurry */
    write_file(users_file, "alice:$5$rounds=1000$saltsalt$"
                           "eKLZU9t9OoPWrqOQsoTIKG0aYkZ5rGOoOQhiIvoSWX2\n");
    write_file(list_file, "# people\njoe@example.org\n  Jane  \n");
    log_open(LOG_ERROR, false, "test");
    return 0;
}

static inline int world_tear_down(void **state)
{
    (void)state;
    unlink(cert_file);
    unlink(key_file);
    unlink(users_file);
    unlink(list_file);
    return rmdir(dir);
}

#endif
