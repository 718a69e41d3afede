/* SPDX-License-Identifier: Apache-2.0 */
/* Golden texts, the rules of RFC 3461 as a table, and a second opinion: Python's email
 * package takes each DSN apart (skipped where there is no Python). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "node/mail/dsn.h"
#include "node/mail/encode.h"

#define PYTHON "/usr/bin/python3"

struct rig {
    struct message *original;
    struct body *body;
    struct rcpt_record records[3];
    const struct rcpt_record *rcpts[3];
    struct dsn_request request;
};

static void make_body(struct rig *rig, const char *text)
{
    body_unref(rig->body);
    rig->body = body_new();
    body_append(rig->body, slice_str(text));
    rig->request.body = rig->body;
}

static int setup(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    struct message *m = rig->original = message_new();
    msg_id_parse(SLICE("01kaq4a5xg0000000000000001"), &m->id);
    m->created.ms = INT64_C(1795362218000);
    m->reverse_path = SLICE("alice@example.org");
    m->envid = SLICE("QQ314159");
    m->helo = SLICE("client.example.org");
    m->origin = ORIGIN_SUBMISSION;
    rig->records[0] = (struct rcpt_record){.rcpt = {.address = SLICE("bob@example.net"),
                                               .orcpt = SLICE("rfc822;Bob@example.com")},
        .state = RCPT_BOUNCED,
        .attempts = 1,
        .last_attempt = {INT64_C(1795362219000)},
        .last_reply =
            SLICE("550 5.1.1 <bob@example.net>: Recipient address rejected: User "
                  "unknown in virtual mailbox table, see https://example.net/help"),
        .last_status = SLICE("5.1.1"),
        .last_mx = SLICE("mx.example.net")};
    rig->records[1] =
        (struct rcpt_record){.rcpt = {.address = SLICE("carol@example.net"), .index = 1},
            .state = RCPT_EXPIRED,
            .attempts = 37,
            .last_attempt = {INT64_C(1795794218000)},
            .last_reply = SLICE("connection timed out"),
            .last_status = SLICE("4.4.1")};
    rig->records[2] = (struct rcpt_record){
        .rcpt = {.address = SLICE("d\xc3\xb6rte@example.net"), .index = 2},
        .state = RCPT_BOUNCED};
    for (int i = 0; i < 3; i++)
        rig->rcpts[i] = &rig->records[i];
    rig->request = (struct dsn_request){.kind = DSN_FAILURE,
        .hostname = SLICE("mx1.example.org"),
        .original = m,
        .unit = {m->id, 3},
        .rcpts = rig->rcpts,
        .rcpt_count = 2,
        .now = {INT64_C(1795794220000)},
        .retry_until = {INT64_C(1795794218000)},
        .dsn_expires = {INT64_C(1796226220000)}};
    make_body(rig, "From: alice@example.org\r\nSubject: hello\r\n\r\nHow are you?\r\n");
    *state = rig;
    return 0;
}

static int teardown(void **state)
{
    struct rig *rig = *state;
    body_unref(rig->body);
    message_unref(rig->original);
    free(rig);
    return 0;
}

static struct slice flatten(const struct message *m, struct buf *flat)
{
    buf_init(flat, 64 << 20);
    for (const struct body_chunk *c = body_chunks(m->body); c; c = c->next)
        buf_append(flat, slice_make(c->bytes, c->len));
    assert_int_equal(buf_len(flat), m->size);
    assert_int_equal(body_crc(m->body), m->body_crc);
    assert_int_equal(m->body_type == BODY_8BITMIME, has_8bit(buf_slice(flat)));
    return buf_slice(flat);
}

static void expect_in(struct slice text, const char *want)
{
    if (!memmem(text.ptr, text.len, want, strlen(want))) {
        fwrite(text.ptr, 1, text.len, stderr);
        fail_msg("not there: <%s>", want);
    }
}

static void expect_not(struct slice text, const char *what)
{
    if (memmem(text.ptr, text.len, what, strlen(what)))
        fail_msg("<%s> in:\n%.*s", what, SLICE_ARG(text));
}

/* Python's view: type of the whole and of the parts, the status fields, and no defects.
 */
static const char script[] =
    "import sys, email, email.policy\n"
    "raw = sys.stdin.buffer.read()\n"
    "assert all(len(l) <= 998 for l in raw.split(b'\\r\\n'))\n"
    "m = email.message_from_bytes(raw, policy=email.policy.SMTP)\n"
    "assert m.get_content_type() == 'multipart/report', m.get_content_type()\n"
    "assert m['Auto-Submitted'] == 'auto-replied' and m['MIME-Version'] == '1.0'\n"
    "assert m['Date'].datetime and m['Message-ID']\n"
    "parts = list(m.iter_parts())\n"
    "assert len(parts) == 3\n"
    "for p in m.walk():\n"
    "    assert not p.defects, p.defects\n"
    "assert parts[0].get_content_type() == 'text/plain'\n"
    "parts[0].get_content()\n"
    "status = parts[1]\n"
    "print(status.get_content_type(), parts[2].get_content_type())\n"
    "blocks = status.get_payload()\n"
    "if isinstance(blocks, list):\n"
    "    assert 'Reporting-MTA' in blocks[0]\n"
    "    for b in blocks[1:]:\n"
    "        if len(b) == 0: continue\n"
    "        for f in ('Final-Recipient', 'Action', 'Status'):\n"
    "            assert len(b.get_all(f)) == 1, (f, b.items())\n"
    "        print(b['Final-Recipient'], b['Action'], b['Status'])\n";

static void python_agrees(struct slice text, const char *want)
{
    char path[] = "/var/tmp/test_dsn.XXXXXX";
    char command[4096], said[4096];
    if (access(PYTHON, X_OK) != 0)
        return;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text.ptr, text.len), (ssize_t)text.len);
    close(fd);
    snprintf(command, sizeof(command), PYTHON " -c \"$SCRIPT\" < %s 2>&1", path);
    setenv("SCRIPT", script, 1);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(said, 1, sizeof(said) - 1, f);
    said[n] = '\0';
    pclose(f);
    unlink(path);
    assert_string_equal(said, want);
}

static void test_failure(void **state)
{
    struct rig *rig = *state;
    struct message *m = dsn_make(&rig->request);
    assert_non_null(m);
    struct buf flat;
    struct slice text = flatten(m, &flat);
    assert_int_equal(m->reverse_path.len, 0);
    assert_int_equal(m->origin, ORIGIN_LOCAL);
    assert_int_equal(m->unit_count, 1);
    assert_true(slice_eq(m->units[0].domain, SLICE("example.org")));
    assert_true(slice_eq(m->units[0].rcpts[0].address, SLICE("alice@example.org")));
    assert_int_equal(m->units[0].rcpts[0].notify, NOTIFY_NEVER);
    assert_int_equal(m->units[0].expires.ms, rig->request.dsn_expires.ms);
    assert_true(
        slice_starts(m->why, SLICE("failure of 01kaq4a5xg0000000000000001-3 for bob@")));
    expect_in(text,
        "Your message could not be delivered to these recipients:\r\n"
        "\r\n"
        "  bob@example.net\r\n"
        "    Reason: there is no such address; check the part before the @.\r\n"
        "    mx.example.net said:\r\n"
        "        550 5.1.1 <bob@example.net>: Recipient address rejected: User\r\n"
        "        unknown in virtual mailbox table, see https://example.net/help\r\n"
        "    Tried once, on Sun, 22 Nov 2026 15:43:39 +0000 (UTC).\r\n"
        "\r\n"
        "  carol@example.net\r\n"
        "    The time for its delivery is over; the last attempt failed:\r\n"
        "    Reason: the mail server for this address does not answer.\r\n"
        "    In detail:\r\n"
        "        connection timed out\r\n"
        "    Tried 37 times, last on Fri, 27 Nov 2026 15:43:38 +0000 (UTC).\r\n");
    expect_in(text, "Original-Envelope-Id: QQ314159\r\n"
                    "Reporting-MTA: dns; mx1.example.org\r\n"
                    "Received-From-MTA: dns; client.example.org\r\n"
                    "Arrival-Date: Sun, 22 Nov 2026 15:43:38 +0000 (UTC)\r\n");
    expect_in(text,
        "\r\n\r\nOriginal-Recipient: rfc822; Bob@example.com\r\n"
        "Final-Recipient: rfc822; bob@example.net\r\n"
        "Action: failed\r\n"
        "Status: 5.1.1\r\n"
        "Remote-MTA: dns; mx.example.net\r\n"
        "Diagnostic-Code: smtp; 550 5.1.1 <bob@example.net>: Recipient address\r\n"
        " rejected: User unknown in virtual mailbox table, see\r\n"
        " https://example.net/help\r\n");
    expect_in(text, "Final-Recipient: rfc822; carol@example.net\r\n"
                    "Action: failed\r\n"
                    "Status: 5.4.1\r\n"
                    "Diagnostic-Code: x-baton; connection timed out\r\n");
    expect_in(text, "Content-Type: message/rfc822\r\n");
    expect_in(text, "\r\n\r\nHow are you?\r\n");
    python_agrees(text, "message/delivery-status message/rfc822\n"
                        "rfc822; bob@example.net failed 5.1.1\n"
                        "rfc822; carol@example.net failed 5.4.1\n");
    buf_fini(&flat);
    message_unref(m);
}

static void test_return_of_header(void **state)
{
    struct rig *rig = *state;
    for (int i = 0; i < 3; i++) {
        rig->original->ret = i == 0 ? DSN_RET_HDRS : DSN_RET_UNSET;
        rig->request.full_max_bytes = i == 1 ? 20 : 0;
        if (i == 2) {
            rig->request.body = NULL;
            rig->request.header = SLICE("From: alice@example.org\r\nSubject: hello\r\n");
        }
        struct buf flat;
        struct message *m = dsn_make(&rig->request);
        struct slice text = flatten(m, &flat);
        expect_in(text, "Content-Type: text/rfc822-headers\r\n");
        expect_in(text, "\r\nSubject: hello\r\n");
        expect_in(text, "Its header is attached");
        expect_not(text, "How are you?");
        buf_fini(&flat);
        message_unref(m);
    }
}

static void test_delay(void **state)
{
    struct rig *rig = *state;
    rig->request.kind = DSN_DELAY;
    rig->original->ret = DSN_RET_FULL;
    rig->records[0].last_status = SLICE("5.7.1"); /* at connect: means 4.7.1 to us */
    rig->records[0].rcpt.notify = NOTIFY_FAILURE; /* not told */
    rig->records[1].state = RCPT_DEFERRED;
    struct buf flat;
    struct message *m = dsn_make(&rig->request);
    struct slice text = flatten(m, &flat);
    expect_in(
        text, "Subject: Delayed mail (still being tried) for carol@example.net\r\n");
    expect_in(text, "You need not send it again.");
    expect_in(text, "we go on trying until Fri, 27 Nov 2026 15:43:38 +0000 (UTC)");
    expect_in(text, "Action: delayed\r\nStatus: 4.4.1\r\n");
    expect_in(text, "Will-Retry-Until: Fri, 27 Nov 2026 15:43:38 +0000 (UTC)\r\n");
    expect_in(text, "text/rfc822-headers");
    expect_not(text, "bob@example.net");
    python_agrees(text, "message/delivery-status text/rfc822-headers\n"
                        "rfc822; carol@example.net delayed 4.4.1\n");
    buf_fini(&flat);
    message_unref(m);
}

static void test_relayed(void **state)
{
    struct rig *rig = *state;
    rig->request.kind = DSN_RELAYED;
    rig->records[0].rcpt.notify = NOTIFY_SUCCESS | NOTIFY_FAILURE;
    rig->records[0].state = RCPT_DELIVERED;
    rig->records[0].last_reply = SLICE("250 2.0.0 queued as 12");
    rig->records[0].last_status = SLICE("2.0.0");
    struct buf flat;
    struct message *m = dsn_make(&rig->request);
    struct slice text = flatten(m, &flat);
    expect_in(text, "Action: relayed\r\nStatus: 2.0.0\r\n");
    expect_in(text, "that system does not confirm delivery");
    expect_not(text, "carol");
    python_agrees(text, "message/delivery-status text/rfc822-headers\n"
                        "rfc822; bob@example.net relayed 2.0.0\n");
    buf_fini(&flat);
    message_unref(m);
}

/* RFC 6533: an ASCII sender gets a 7-bit DSN about a UTF-8 address; a UTF-8 sender gets
 * UTF-8. */
static void test_utf8(void **state)
{
    struct rig *rig = *state;
    rig->rcpts[0] = &rig->records[2];
    rig->request.rcpt_count = 1;
    rig->records[2].last_reply = SLICE("550 5.1.1 d\xc3\xb6rte unbekannt\x1b[2J\r\nX: y");
    rig->records[2].last_status = SLICE("5.1.1");
    struct buf flat;
    struct message *m = dsn_make(&rig->request);
    struct slice text = flatten(m, &flat);
    assert_int_equal(m->body_type, BODY_7BIT);
    assert_false(m->smtputf8);
    expect_in(text, "Final-Recipient: utf-8; d\\x{F6}rte@example.net\r\n");
    expect_in(text, "Diagnostic-Code: smtp; 550 5.1.1 d??rte unbekannt?[2J??X: y\r\n");
    expect_in(text, "Content-Transfer-Encoding: quoted-printable\r\n\r\nThis is");
    python_agrees(text, "message/delivery-status message/rfc822\n"
                        "utf-8; d\\x{F6}rte@example.net failed 5.1.1\n");
    buf_fini(&flat);
    message_unref(m);
    rig->original->reverse_path = SLICE("\xc3\xa4lice@example.org");
    m = dsn_make(&rig->request);
    text = flatten(m, &flat);
    assert_true(m->smtputf8);
    expect_in(text, "Content-Type: message/global-delivery-status\r\n");
    expect_in(text, "Final-Recipient: utf-8; d\xc3\xb6rte@example.net\r\n");
    expect_in(text, "To: <\xc3\xa4lice@example.org>\r\n");
    buf_fini(&flat);
    message_unref(m);
}

static void test_8bit_original(void **state)
{
    struct rig *rig = *state;
    make_body(rig, "Subject: \xc3\xbc\r\n\r\n\xc3\xa4\r\n");
    struct buf flat;
    struct message *m = dsn_make(&rig->request);
    struct slice text = flatten(m, &flat);
    expect_in(
        text, "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n");
    assert_int_equal(m->body_type, BODY_8BITMIME);
    buf_fini(&flat);
    message_unref(m);
    rig->original->ret = DSN_RET_HDRS;
    m = dsn_make(&rig->request);
    text = flatten(m, &flat);
    assert_int_equal(m->body_type, BODY_7BIT);
    expect_in(text,
        "text/rfc822-headers\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        "Subject: =C3=BC\r\n");
    buf_fini(&flat);
    message_unref(m);
}

static void test_none(void **state)
{
    struct rig *rig = *state;
    static const char *const senders[] = {"", "root", "not an address", "a@b\r\nBcc: c"};
    for (size_t i = 0; i < sizeof(senders) / sizeof(*senders); i++) {
        rig->original->reverse_path = slice_str(senders[i]);
        assert_null(dsn_make(&rig->request));
    }
    rig->original->reverse_path = SLICE("alice@example.org");
    rig->records[0].rcpt.notify = rig->records[1].rcpt.notify = NOTIFY_NEVER;
    assert_null(dsn_make(&rig->request));
}

static void test_double_bounce(void **state)
{
    struct rig *rig = *state;
    rig->request.postmaster = SLICE("admin@example.com");
    assert_null(dsn_double_bounce(&rig->request)); /* has a sender */
    rig->original->reverse_path = SLICE("");
    struct message *m = dsn_double_bounce(&rig->request);
    assert_non_null(m);
    assert_true(slice_eq(m->units[0].domain, SLICE("example.com")));
    assert_true(slice_starts(m->why, SLICE("double bounce of ")));
    message_unref(m);
    rig->records[1].rcpt.address = SLICE("Admin@example.com");
    assert_null(dsn_double_bounce(&rig->request));
    rig->request.postmaster = SLICE("");
    assert_null(dsn_double_bounce(&rig->request));
}

static void test_wanted(void **state)
{
    (void)state;
    enum {
        NONE,
        S = NOTIFY_SUCCESS,
        F = NOTIFY_FAILURE,
        D = NOTIFY_DELAY,
        N = NOTIFY_NEVER
    };
    static const struct {
        uint8_t notify;
        enum origin origin;
        bool want[DSN_KIND_COUNT]; /* failure, delay, relayed, delivered, expanded */
    } rows[] = {
        {NONE, ORIGIN_SUBMISSION, {1, 1, 0, 0, 0}},
        {NONE, ORIGIN_RELAY_CLIENT, {1, 1, 0, 0, 0}},
        {NONE, ORIGIN_MX, {1, 0, 0, 0, 0}},
        {N, ORIGIN_SUBMISSION, {0, 0, 0, 0, 0}},
        {F, ORIGIN_SUBMISSION, {1, 0, 0, 0, 0}},
        {D, ORIGIN_SUBMISSION, {0, 1, 0, 0, 0}},
        {D, ORIGIN_MX, {0, 0, 0, 0, 0}},
        {S, ORIGIN_MX, {0, 0, 1, 1, 1}},
        {S | F | D, ORIGIN_SUBMISSION, {1, 1, 1, 1, 1}},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        for (int k = 0; k < DSN_KIND_COUNT; k++)
            if (dsn_wanted((enum dsn_kind)k, rows[i].notify, rows[i].origin) !=
                rows[i].want[k])
                fail_msg("row %zu, kind %d", i, k);
}

/* Made twice it is the same message; about anything else it is another. */
static void test_id(void **state)
{
    struct rig *rig = *state;
    struct msg_id id = dsn_id(&rig->request);
    assert_true(msg_id_eq(id, dsn_id(&rig->request)));
    assert_int_equal(msg_id_time(id).ms, msg_id_time(rig->original->id).ms);
    rig->request.now.ms += 1000;
    rig->records[0].attempts++;
    struct message *m = dsn_make(&rig->request);
    assert_true(msg_id_eq(id, m->id));
    message_unref(m);
    rig->request.kind = DSN_DELAY;
    assert_false(msg_id_eq(id, dsn_id(&rig->request)));
    rig->request.kind = DSN_FAILURE;
    rig->request.unit.unit++;
    assert_false(msg_id_eq(id, dsn_id(&rig->request)));
    rig->request.unit.unit--;
    rig->request.rcpt_count = 1;
    assert_false(msg_id_eq(id, dsn_id(&rig->request)));
}

/* Ten thousand recipients: named in the report, the first fifty in the text. */
static void test_many(void **state)
{
    struct rig *rig = *state;
    const struct rcpt_record **many = calloc(10000, sizeof(*many));
    for (int i = 0; i < 10000; i++)
        many[i] = &rig->records[0];
    rig->request.rcpts = many;
    rig->request.rcpt_count = 10000;
    struct buf flat;
    struct message *m = dsn_make(&rig->request);
    struct slice text = flatten(m, &flat);
    expect_in(text, "and 9950 more, all named in the delivery report below.");
    expect_in(text, " and 9999 more\r\n");
    buf_fini(&flat);
    message_unref(m);
    free(many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_failure, setup, teardown),
        cmocka_unit_test_setup_teardown(test_return_of_header, setup, teardown),
        cmocka_unit_test_setup_teardown(test_delay, setup, teardown),
        cmocka_unit_test_setup_teardown(test_relayed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_utf8, setup, teardown),
        cmocka_unit_test_setup_teardown(test_8bit_original, setup, teardown),
        cmocka_unit_test_setup_teardown(test_none, setup, teardown),
        cmocka_unit_test_setup_teardown(test_double_bounce, setup, teardown),
        cmocka_unit_test(test_wanted),
        cmocka_unit_test_setup_teardown(test_id, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
