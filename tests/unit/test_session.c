/* SPDX-License-Identifier: Apache-2.0 */
/* Whole sessions over loopback sockets, against a store in memory: what clients say, what
 * they hear, and what is in the queue afterwards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants those first */
#include <cmocka.h>
#include <event2/event.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "node/intake/intake.h"
#include "node/net/listener.h"

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

static void guard_fired(struct timer *t)
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
            event_base_loop(loop_event_base(w.loop), EVLOOP_ONCE);                       \
        timer_cancel(&w.guard);                                                          \
    } while (0)

static void message_accepted(struct message *m, void *ctx)
{
    (void)ctx;
    assert_true(w.accepted_count < ACCEPTED_MAX);
    w.accepted[w.accepted_count++] = m;
}

/* --- the node under test --- */

static struct settings *parse(const char *yaml)
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

static void start(const char *yaml)
{
    struct settings_problems problems;
    memset(&w, 0, sizeof(w));
    w.loop = loop_new();
    w.conns = conns_new(w.loop);
    timer_init(&w.guard, w.loop, guard_fired);
    w.store = store_open_ram(64 << 20);
    w.rights = rights_new(w.store);
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

static void stop(void)
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

static void client_connected(struct conn *c, void *owner)
{
    (void)c;
    ((struct client *)owner)->connected = true;
}

static size_t client_data(struct conn *c, struct slice bytes, void *owner)
{
    (void)c;
    buf_append(&((struct client *)owner)->got, bytes);
    return bytes.len;
}

static void client_secured(struct conn *c, void *owner)
{
    (void)c;
    ((struct client *)owner)->secured = true;
}

static void client_closed(struct conn *c, enum err why, void *owner)
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

static void client_open_from(struct client *k, unsigned listener, const char *from)
{
    struct conn_target target = {.to = w.at[listener], .timeout_ms = 5000};
    *k = (struct client){0};
    buf_init(&k->got, 16 << 20);
    assert_true(ipaddr_parse(slice_str(from), &target.from));
    k->conn = conn_connect(w.conns, &target, &client_events, k);
    UNTIL(k->connected || k->closed);
}

static void client_open(struct client *k, unsigned listener)
{
    client_open_from(k, listener, "127.0.0.1");
}

static void client_close(struct client *k)
{
    conn_close(k->conn);
    buf_fini(&k->got);
}

/* Is the last line a reply's last one ("250 ..."), and are there `n` such lines? */
static unsigned replies(const struct client *k)
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

static void say(struct client *k, const char *text)
{
    conn_write(k->conn, slice_str(text));
    conn_flush(k->conn);
}

/* Says something, waits for so many replies, wants them to begin with `want`. */
static void talk_n(struct client *k, const char *text, unsigned n, const char *want)
{
    buf_clear(&k->got);
    say(k, text);
    UNTIL(replies(k) >= n || k->closed);
    if (replies(k) < n || !slice_starts(buf_slice(&k->got), slice_str(want)))
        fail_msg(
            "said %.60s\nwanted %s\ngot %.*s", text, want, SLICE_ARG(buf_slice(&k->got)));
}

static void talk(struct client *k, const char *text, const char *want)
{
    talk_n(k, text, 1, want);
}

static bool got_has(const struct client *k, const char *text)
{
    return memmem(k->got.mem + k->got.head, buf_len(&k->got), text, strlen(text)) != NULL;
}

static void greet(struct client *k, unsigned listener)
{
    client_open(k, listener);
    talk(k, "", "220 mx.test.example ESMTP");
    talk(k, "EHLO client.example\r\n", "250-mx.test.example");
}

static void quit(struct client *k)
{
    talk(k, "QUIT\r\n", "221 ");
    UNTIL(k->closed);
    assert_int_equal(k->why, ERR_OK);
    client_close(k);
}

/* --- what is in the queue --- */

static void body_text(const struct message *m, struct buf *out)
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

static bool body_has(const struct message *m, const char *text)
{
    struct buf out;
    body_text(m, &out);
    bool has = memmem(out.mem, buf_len(&out), text, strlen(text)) != NULL;
    buf_fini(&out);
    return has;
}

static uint64_t stored_bodies(void)
{
    struct store_stats s;
    store_stats(w.store, &s);
    return s.bodies;
}

static uint64_t stored_units(void)
{
    struct store_stats s;
    store_stats(w.store, &s);
    return s.units;
}

static const char mx_settings[] =
    "listeners:\n"
    "  - {name: mx, listen: ['127.0.0.1:0'], service: mx}\n"
    "relay_clients: ['127.0.0.2/32']\n"
    "relay_domains:\n"
    "  - {domain: example.org, next_hop: mx, recipients: any}\n"
    "  - {domain: .sub.example, next_hop: ['[192.0.2.1]:25'], recipients: any}\n";

static void mail_for_a_relay_domain_is_queued(void **state)
{
    struct client k;
    char id[MSG_ID_TEXT + 1], want[100];
    (void)state;
    start(mx_settings);
    greet(&k, 0);
    talk(&k, "MAIL FROM:<a@sender.example>\r\n", "250 2.1.0");
    talk(&k, "RCPT TO:<b@example.org>\r\n", "250 2.1.5");
    talk(&k, "RCPT TO:<c@deep.sub.example>\r\n", "250 2.1.5");
    talk(&k, "RCPT TO:<b@example.org>\r\n", "250 2.1.5");
    talk(&k, "RCPT TO:<d@elsewhere.example>\r\n", "550 5.7.1");
    talk(&k, "DATA\r\n", "354 ");
    talk(&k, "Subject: x\r\nBcc: kept@example.org\r\n\r\nbody\r\n.\r\n",
        "250 2.0.0 queued as ");
    assert_int_equal(w.accepted_count, 1);
    const struct message *m = w.accepted[0];
    msg_id_format(m->id, id);
    snprintf(want, sizeof(want), "250 2.0.0 queued as %s\r\n", id);
    assert_true(slice_eq(buf_slice(&k.got), slice_str(want)));
    assert_int_equal(m->unit_count, 2);
    assert_true(slice_eq(m->units[0].domain, SLICE("deep.sub.example")));
    assert_true(slice_eq(m->units[1].domain, SLICE("example.org")));
    assert_int_equal(m->units[1].rcpt_count, 1); /* named twice, one copy */
    assert_int_equal(m->origin, ORIGIN_MX);
    assert_true(slice_eq(m->reverse_path, SLICE("a@sender.example")));
    assert_true(body_has(m, "Received: from client.example"));
    assert_true(body_has(m, "Subject: x\r\nBcc: kept@example.org\r\n\r\nbody\r\n"));
    assert_int_equal(stored_units(), 2);
    assert_int_equal(intake_memory(w.intake), 0);
    quit(&k);
    stop();
}

static void pipelined_session_in_one_packet(void **state)
{
    struct client k;
    (void)state;
    start(mx_settings);
    greet(&k, 0);
    talk_n(&k, "MAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n", 3, "250 ");
    talk_n(&k,
        "one\r\n.\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n", 4,
        "250 2.0.0 queued as ");
    /* The client says no more, yet wants its answers. */
    say(&k, "two\r\n.\r\n");
    buf_clear(&k.got);
    conn_half_close(k.conn);
    UNTIL(k.closed);
    assert_true(got_has(&k, "250 2.0.0 queued as "));
    assert_int_equal(w.accepted_count, 2);
    client_close(&k);
    stop();
}

static void big_body(struct client *k, size_t bytes)
{
    char line[1000];
    memset(line, 'x', sizeof(line));
    memcpy(line + sizeof(line) - 2, "\r\n", 2);
    for (size_t n = 0; n < bytes; n += sizeof(line)) {
        conn_write(k->conn, slice_make(line, sizeof(line)));
        if (conn_unsent(k->conn) > 100000) {
            conn_flush(k->conn);
            UNTIL(conn_unsent(k->conn) < 100000 || k->closed);
        }
    }
    conn_flush(k->conn);
}

static void big_body_goes_to_disk_as_it_comes(void **state)
{
    struct client k;
    struct buf text;
    (void)state;
    start(mx_settings);
    greet(&k, 0);
    talk(&k, "MAIL FROM:<a@b.example> SIZE=6000000\r\n", "250 ");
    talk(&k, "RCPT TO:<b@example.org>\r\n", "250 ");
    talk(&k, "DATA\r\n", "354 ");
    say(&k, "Subject: big\r\n\r\n");
    big_body(&k, 6000000);
    talk(&k, ".\r\n", "250 2.0.0 queued as ");
    assert_null(w.accepted[0]->body);
    body_text(w.accepted[0], &text);
    assert_true(buf_len(&text) > 6000000);
    buf_fini(&text);
    assert_int_equal(intake_memory(w.intake), 0);
    quit(&k);
    stop();
}

static void vanished_client_leaves_nothing(void **state)
{
    struct client k;
    (void)state;
    start(mx_settings);
    greet(&k, 0);
    talk(&k, "MAIL FROM:<a@b.example>\r\n", "250 ");
    talk(&k, "RCPT TO:<b@example.org>\r\n", "250 ");
    talk(&k, "DATA\r\n", "354 ");
    big_body(&k, 3000000);
    UNTIL(stored_bodies() > 0 || conn_unsent(k.conn) == 0);
    conn_abort(k.conn);
    k.conn = NULL;
    client_close(&k);
    UNTIL(intake_sessions(w.intake) == 0);
    assert_int_equal(intake_memory(w.intake), 0);
    assert_int_equal(w.accepted_count, 0);
    assert_int_equal(stored_bodies(), 0);
    stop();
}

static void memory_is_bounded(void **state)
{
    struct client k[5];
    (void)state;
    start("queue: {quota: 20GB, memory: 4MiB}\n"
          "listeners:\n"
          "  - {name: mx, listen: ['127.0.0.1:0'], service: mx}\n"
          "relay_domains:\n"
          "  - {domain: example.org, next_hop: mx, recipients: any}\n");
    for (int i = 0; i < 4; i++) {
        greet(&k[i], 0);
        talk(&k[i], "MAIL FROM:<a@b.example> SIZE=2000000\r\n", "250 ");
    }
    greet(&k[4], 0);
    talk(&k[4], "MAIL FROM:<a@b.example> SIZE=2000000\r\n", "452 4.3.1");
    talk(&k[0], "RSET\r\n", "250 ");
    talk(&k[4], "MAIL FROM:<a@b.example> SIZE=2000000\r\n", "250 ");
    for (int i = 0; i < 5; i++)
        quit(&k[i]);
    stop();
}

static void postmaster_is_always_reached(void **state)
{
    struct client k;
    (void)state;
    start(mx_settings);
    greet(&k, 0);
    talk(&k, "MAIL FROM:<>\r\n", "250 ");
    talk(&k, "RCPT TO:<postmaster>\r\n", "250 ");
    talk(&k, "RCPT TO:<Abuse@mx.test.example>\r\n", "250 ");
    talk(&k, "RCPT TO:<joe@mx.test.example>\r\n", "550 5.1.1");
    talk(&k, "DATA\r\n", "354 ");
    talk(&k, "help\r\n.\r\n", "250 ");
    const struct message *m = w.accepted[0];
    assert_int_equal(m->unit_count, 1);
    assert_int_equal(m->units[0].rcpt_count, 1);
    assert_true(slice_eq(m->units[0].rcpts[0].address, SLICE("admin@ops.example")));
    quit(&k);
    stop();
}

/* --- submission --- */

static const char submission_settings[] =
    "tls: {certificate: '%s', key: '%s'}\n"
    "users: {file: '%s'}\n"
    "may_send_as: {alice: [alice@corp.example, '@alice.example']}\n"
    "limits: {auth_failures: 3}\n"
    "listeners:\n"
    "  - {name: submission, listen: ['127.0.0.1:0'], service: submission, tls: "
    "optional}\n"
    "  - {name: submissions, listen: ['127.0.0.1:0'], service: submission, tls: "
    "implicit}\n"
    "relay_clients: ['127.0.0.2/32']\n";

static void start_submission(void)
{
    char yaml[2048];
    snprintf(yaml, sizeof(yaml), submission_settings, cert_file, key_file, users_file);
    start(yaml);
}

static void relay_clients_need_no_password(void **state)
{
    struct client k;
    (void)state;
    start_submission();
    client_open_from(&k, 0, "127.0.0.2");
    talk(&k, "EHLO app.example\r\n", "220 ");
    UNTIL(replies(&k) == 2);
    talk(&k, "MAIL FROM:<app@corp.example>\r\n", "250 ");
    talk(&k, "RCPT TO:<x@anywhere.example>\r\n", "250 ");
    talk(&k, "DATA\r\n", "354 ");
    talk(&k, "Subject: s\r\nBcc: hidden@x.example\r\n\r\nhi\r\n.\r\n", "250 2.0.0");
    const struct message *m = w.accepted[0];
    assert_int_equal(m->origin, ORIGIN_RELAY_CLIENT);
    assert_true(m->units[0].delay_warning_ms > 0);
    assert_false(body_has(m, "hidden@x.example"));
    assert_true(body_has(m, "\r\nMessage-ID: <"));
    assert_true(body_has(m, "\r\nDate: "));
    quit(&k);
    greet(&k, 0);
    talk(&k, "MAIL FROM:<app@corp.example>\r\n", "530 5.7.0 Authentication required");
    quit(&k);
    stop();
}

static struct tls_client *tls_client(void)
{
    char why[300];
    struct tls_client *t = tls_client_new(cert_file, why, sizeof(why));
    assert_non_null(t);
    return t;
}

static void secure(struct client *k, struct tls_client *t)
{
    struct tls_target target = {.name = "mx.test.example", .check = TLS_CHECK_VERIFY};
    conn_start_tls_client(k->conn, t, &target);
    UNTIL(k->secured || k->closed);
    assert_true(k->secured);
}

static void password_over_starttls(void **state)
{
    struct client k;
    struct tls_client *t;
    (void)state;
    start_submission();
    t = tls_client();
    greet(&k, 0);
    assert_false(got_has(&k, "AUTH"));
    talk(&k, "AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n", "5");
    talk(&k, "STARTTLS\r\n", "220 ");
    secure(&k, t);
    talk(&k, "EHLO client.example\r\n", "250-");
    assert_true(got_has(&k, "AUTH PLAIN LOGIN"));
    assert_false(got_has(&k, "STARTTLS"));
    talk(&k, "AUTH PLAIN AGFsaWNlAHdyb25n\r\n", "535 5.7.8");
    talk(&k, "AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n", "235 2.7.0");
    talk(&k, "MAIL FROM:<bob@corp.example>\r\n", "553 5.7.1");
    talk(&k, "MAIL FROM:<x@alice.example>\r\n", "250 ");
    talk(&k, "RCPT TO:<x@anywhere.example>\r\n", "250 ");
    talk(&k, "DATA\r\n", "354 ");
    talk(&k, "Subject: s\r\n\r\nhi\r\n.\r\n", "250 2.0.0");
    assert_int_equal(w.accepted[0]->origin, ORIGIN_SUBMISSION);
    assert_true(slice_eq(w.accepted[0]->user, SLICE("alice")));
    assert_true(body_has(w.accepted[0], "with ESMTPSA"));
    quit(&k);
    tls_client_unref(t);
    stop();
}

static void guessing_is_slowed(void **state)
{
    struct client k;
    struct tls_client *t;
    (void)state;
    start_submission();
    t = tls_client();
    client_open(&k, 1);
    secure(&k, t);
    talk(&k, "", "220 ");
    talk(&k, "EHLO client.example\r\n", "250-");
    talk(&k, "AUTH LOGIN\r\n", "334 ");
    talk(&k, "bm9ib2R5\r\n", "334 ");
    talk(&k, "c2VjcmV0\r\n", "535 5.7.8");
    talk(&k, "AUTH LOGIN YWxpY2U=\r\n", "334 ");
    talk(&k, "d3Jvbmc=\r\n", "535 5.7.8");
    talk(&k, "AUTH PLAIN\r\n", "334 ");
    talk(&k, "AGFsaWNlAHdyb25n\r\n", "535 5.7.8");
    talk(&k, "AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n", "454 4.7.0");
    quit(&k);
    tls_client_unref(t);
    stop();
}

/* --- limits, proxies, shutting down --- */

static void client_limits_hold(void **state)
{
    struct client k[4];
    (void)state;
    start("limits: {client_connections: 2, client_rate: 3/1m}\n"
          "listeners:\n"
          "  - {name: mx, listen: ['127.0.0.1:0'], service: mx}\n"
          "relay_clients: ['127.0.0.2/32']\n");
    greet(&k[0], 0);
    greet(&k[1], 0);
    client_open(&k[2], 0);
    talk(&k[2], "", "421 4.7.0 Too many connections from your address");
    UNTIL(k[2].closed);
    client_close(&k[2]);
    quit(&k[0]);
    greet(&k[0], 0);
    quit(&k[0]);
    client_open(&k[2], 0);
    talk(&k[2], "", "421 4.7.0 Connecting too often");
    UNTIL(k[2].closed);
    client_close(&k[2]);
    for (int i = 2; i < 4; i++) { /* relay clients are exempt */
        client_open_from(&k[i], 0, "127.0.0.2");
        talk(&k[i], "", "220 ");
    }
    quit(&k[1]);
    quit(&k[2]);
    quit(&k[3]);
    stop();
}

static void proxy_header_names_the_client(void **state)
{
    struct client k;
    (void)state;
    start("listeners:\n"
          "  - {name: in, listen: ['127.0.0.1:0'], service: submission,"
          " proxy_protocol: {from: ['127.0.0.1/32']}}\n"
          "relay_clients: ['127.0.0.1/32', '192.0.2.9/32']\n");
    client_open(&k, 0);
    say(&k, "PROXY TCP4 192.0");
    talk(&k, ".2.9 203.0.113.1 5555 25\r\nEHLO a.example\r\n", "220 ");
    UNTIL(replies(&k) == 2);
    talk(&k, "MAIL FROM:<a@b.example>\r\n", "250 ");
    quit(&k);
    /* The proxy's own address gives no rights, neither by a stranger nor by itself. */
    client_open(&k, 0);
    talk_n(&k, "PROXY TCP4 198.51.100.1 203.0.113.1 5555 25\r\nEHLO a\r\n", 2, "220 ");
    talk(&k, "MAIL FROM:<a@b.example>\r\n", "550 5.7.1");
    quit(&k);
    client_open(&k, 0);
    talk_n(&k, "PROXY UNKNOWN\r\nEHLO a\r\n", 2, "220 ");
    talk(&k, "MAIL FROM:<a@b.example>\r\n", "550 5.7.1");
    quit(&k);
    /* No header, and a header from elsewhere: closed without a word. */
    client_open(&k, 0);
    say(&k, "EHLO a.example\r\n");
    UNTIL(k.closed);
    assert_int_equal(buf_len(&k.got), 0);
    client_close(&k);
    client_open_from(&k, 0, "127.0.0.3");
    say(&k, "PROXY TCP4 192.0.2.9 203.0.113.1 5555 25\r\n");
    UNTIL(k.closed);
    assert_int_equal(buf_len(&k.got), 0);
    client_close(&k);
    stop();
}

static void xclient_names_the_client(void **state)
{
    struct client k;
    (void)state;
    start("listeners:\n"
          "  - {name: in, listen: ['127.0.0.1:0'], service: submission,"
          " xclient_from: ['127.0.0.1/32']}\n"
          "relay_clients: ['127.0.0.1/32', '192.0.2.9/32']\n");
    greet(&k, 0);
    assert_true(got_has(&k, "XCLIENT"));
    talk(&k, "XCLIENT ADDR=198.51.100.7 NAME=c.example\r\n", "220 ");
    talk(&k, "EHLO a.example\r\n", "250-");
    talk(&k, "MAIL FROM:<a@b.example>\r\n", "550 5.7.1");
    talk(&k, "XCLIENT ADDR=192.0.2.9\r\n", "220 ");
    talk(&k, "EHLO a.example\r\n", "250-");
    talk(&k, "MAIL FROM:<a@b.example>\r\n", "250 ");
    quit(&k);
    client_open_from(&k, 0, "127.0.0.3");
    talk(&k, "", "220 ");
    talk(&k, "EHLO a.example\r\n", "250-");
    assert_false(got_has(&k, "XCLIENT"));
    talk(&k, "XCLIENT ADDR=192.0.2.9\r\n", "550");
    quit(&k);
    stop();
}

static void drain_lets_a_message_finish(void **state)
{
    struct client busy, idle;
    (void)state;
    start(mx_settings);
    greet(&busy, 0);
    greet(&idle, 0);
    talk(&busy, "MAIL FROM:<a@b.example>\r\n", "250 ");
    talk(&busy, "RCPT TO:<b@example.org>\r\n", "250 ");
    talk(&busy, "DATA\r\n", "354 ");
    buf_clear(&idle.got);
    intake_drain(w.intake);
    UNTIL(idle.closed);
    assert_true(got_has(&idle, "421 4.3.2"));
    client_close(&idle);
    talk(&busy, "hi\r\n.\r\n", "250 2.0.0");
    UNTIL(busy.closed);
    assert_true(got_has(&busy, "421 4.3.2"));
    client_close(&busy);
    client_open(&idle, 0);
    assert_int_equal(idle.why, ERR_CONNECT_REFUSED);
    client_close(&idle);
    stop();
}

static bool reload(const char *yaml)
{
    struct settings_problems problems;
    struct settings *s = parse(yaml);
    settings_problems_init(&problems);
    bool done = intake_reload(w.intake, s, &problems);
    settings_problems_fini(&problems);
    settings_unref(s);
    return done;
}

static void reload_keeps_open_listeners(void **state)
{
    struct client old, fresh;
    struct netaddr before;
    (void)state;
    start(mx_settings);
    before = w.at[0];
    greet(&old, 0);
    assert_true(reload("listeners:\n"
                       "  - {name: mx, listen: ['127.0.0.1:0'], service: mx}\n"
                       "  - {name: more, listen: ['127.0.0.1:0'], service: mx}\n"
                       "relay_domains:\n"
                       "  - {domain: example.net, next_hop: mx, recipients: any}\n"));
    assert_int_equal(intake_addresses(w.intake, w.at, 8), 2);
    assert_int_equal(w.at[0].port, before.port);
    talk(&old, "MAIL FROM:<a@b.example>\r\n", "250 ");
    talk(&old, "RCPT TO:<b@example.org>\r\n", "250 "); /* what it began with */
    quit(&old);
    for (unsigned i = 0; i < 2; i++) {
        greet(&fresh, i);
        talk(&fresh, "MAIL FROM:<a@b.example>\r\n", "250 ");
        talk(&fresh, "RCPT TO:<b@example.org>\r\n", "550 5.7.1");
        talk(&fresh, "RCPT TO:<b@example.net>\r\n", "250 ");
        quit(&fresh);
    }
    assert_false(reload("listeners:\n"
                        "  - {name: mx, listen: ['127.0.0.1:0'], service: mx}\n"
                        "relay_clients: [0.0.0.0/0]\n"));
    assert_true(reload("listeners:\n"
                       "  - {name: more, listen: ['127.0.0.1:0'], service: mx}\n"));
    w.at[1] = before;
    UNTIL((client_open(&fresh, 1), client_close(&fresh), fresh.closed));
    w.at[0].port = 0;
    intake_addresses(w.intake, w.at, 8);
    greet(&fresh, 0);
    quit(&fresh);
    stop();
}

/* --- recipients --- */

static void recipients_from_a_file(void **state)
{
    struct client k;
    char yaml[600];
    (void)state;
    snprintf(yaml, sizeof(yaml),
        "listeners:\n"
        "  - {name: mx, listen: ['127.0.0.1:0'], service: mx}\n"
        "relay_domains:\n"
        "  - {domain: example.org, next_hop: mx, recipients: '%s'}\n",
        list_file);
    start(yaml);
    greet(&k, 0);
    talk(&k, "MAIL FROM:<>\r\n", "250 ");
    talk(&k, "RCPT TO:<JOE@example.org>\r\n", "250 ");
    talk(&k, "RCPT TO:<jane@example.org>\r\n", "250 ");
    talk(&k, "RCPT TO:<postmaster@example.org>\r\n", "250 ");
    talk(&k, "RCPT TO:<jim@example.org>\r\n", "550 5.1.1");
    quit(&k);
    stop();
}

/* A primary that knows one recipient. */
struct primary {
    struct acceptor *door;
    unsigned connections;
    struct conn *conn;
    struct buf line;
};

static size_t primary_data(struct conn *c, struct slice bytes, void *owner)
{
    struct primary *p = owner;
    buf_append(&p->line, bytes);
    struct slice line = buf_slice(&p->line);
    if (line.ptr[line.len - 1] != '\n')
        return bytes.len;
    if (slice_starts(line, SLICE("EHLO")))
        conn_write(c, SLICE("250-primary\r\n250 SIZE\r\n"));
    else if (slice_starts(line, SLICE("RCPT TO:<known@")))
        conn_write(c, SLICE("250 ok\r\n"));
    else if (slice_starts(line, SLICE("RCPT TO:<later@")))
        conn_write(c, SLICE("450 later\r\n"));
    else if (slice_starts(line, SLICE("RCPT")))
        conn_write(c, SLICE("550 who?\r\n"));
    else if (slice_eq(line, SLICE("MAIL FROM:<>\r\n")))
        conn_write(c, SLICE("250 ok\r\n"));
    conn_flush(c);
    buf_clear(&p->line);
    return bytes.len;
}

static void primary_closed(struct conn *c, enum err why, void *owner)
{
    (void)why;
    conn_close(c);
    ((struct primary *)owner)->conn = NULL;
}

static const struct conn_handler primary_events = {
    .data = primary_data, .closed = primary_closed};

static void primary_accept(int fd, struct netaddr peer, void *ctx)
{
    struct primary *p = ctx;
    p->connections++;
    buf_clear(&p->line);
    p->conn = conn_accept(w.conns, fd, peer, &primary_events, p);
    conn_write(p->conn, SLICE("220 primary\r\n"));
    conn_flush(p->conn);
}

static void recipients_are_verified(void **state)
{
    struct client k;
    struct primary p = {0};
    struct netaddr at;
    char yaml[600], why[200], text[NETADDR_TEXT_MAX];
    int fd;
    (void)state;
    netaddr_parse(SLICE("127.0.0.1:0"), 0, &at);
    assert_int_equal(listen_open(at, 1, &fd, &at, why, sizeof(why)), ERR_OK);
    netaddr_format(at, text);
    snprintf(yaml, sizeof(yaml),
        "listeners:\n"
        "  - {name: mx, listen: ['127.0.0.1:0'], service: mx}\n"
        "relay_domains:\n"
        "  - {domain: example.org, next_hop: ['%s'], recipients: verify}\n",
        text);
    start(yaml);
    buf_init(&p.line, 10000);
    p.door = acceptor_new(w.loop, fd, primary_accept, &p);
    greet(&k, 0);
    talk(&k, "MAIL FROM:<a@b.example>\r\n", "250 ");
    talk(&k, "RCPT TO:<known@example.org>\r\n", "250 ");
    talk(&k, "RCPT TO:<unknown@example.org>\r\n", "550 5.1.1");
    talk(&k, "RCPT TO:<later@example.org>\r\n", "450 4.4.1");
    assert_int_equal(p.connections, 3);
    talk(&k, "RCPT TO:<known@example.org>\r\n", "250 ");
    talk(&k, "RCPT TO:<unknown@example.org>\r\n", "550 5.1.1");
    talk(&k, "RCPT TO:<postmaster@example.org>\r\n", "250 ");
    assert_int_equal(p.connections, 3); /* remembered */
    UNTIL(!p.conn);
    acceptor_free(p.door);
    talk(&k, "RCPT TO:<other@example.org>\r\n",
        "450 4.4.1 Recipient cannot be verified now");
    quit(&k);
    buf_fini(&p.line);
    stop();
}

/* --- set-up --- */

static void write_file(const char *file, const char *text)
{
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void write_pair(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 86400);
    X509_set_pubkey(x, key);
    X509_EXTENSION *names =
        X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:mx.test.example");
    X509_add_ext(x, names, -1);
    X509_EXTENSION_free(names);
    X509_sign(x, key, EVP_sha256());
    FILE *f = fopen(cert_file, "w");
    PEM_write_X509(f, x);
    fclose(f);
    f = fopen(key_file, "w");
    PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
    fclose(f);
    X509_free(x);
    EVP_PKEY_free(key);
}

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    snprintf(cert_file, sizeof(cert_file), "%s/cert.pem", dir);
    snprintf(key_file, sizeof(key_file), "%s/key.pem", dir);
    snprintf(users_file, sizeof(users_file), "%s/users", dir);
    snprintf(list_file, sizeof(list_file), "%s/list", dir);
    write_pair();
    /* "secret", SHA-512 with few rounds: tests are in a hurry */
    write_file(users_file, "alice:$5$rounds=1000$saltsalt$"
                           "eKLZU9t9OoPWrqOQsoTIKG0aYkZ5rGOoOQhiIvoSWX2\n");
    write_file(list_file, "# people\njoe@example.org\n  Jane  \n");
    log_open(LOG_ERROR, false, "test");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(cert_file);
    unlink(key_file);
    unlink(users_file);
    unlink(list_file);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mail_for_a_relay_domain_is_queued),
        cmocka_unit_test(pipelined_session_in_one_packet),
        cmocka_unit_test(big_body_goes_to_disk_as_it_comes),
        cmocka_unit_test(vanished_client_leaves_nothing),
        cmocka_unit_test(memory_is_bounded),
        cmocka_unit_test(postmaster_is_always_reached),
        cmocka_unit_test(relay_clients_need_no_password),
        cmocka_unit_test(password_over_starttls),
        cmocka_unit_test(guessing_is_slowed),
        cmocka_unit_test(client_limits_hold),
        cmocka_unit_test(proxy_header_names_the_client),
        cmocka_unit_test(xclient_names_the_client),
        cmocka_unit_test(drain_lets_a_message_finish),
        cmocka_unit_test(reload_keeps_open_listeners),
        cmocka_unit_test(recipients_from_a_file),
        cmocka_unit_test(recipients_are_verified),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
