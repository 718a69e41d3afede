/* SPDX-License-Identifier: Apache-2.0 */
/* SASL exchanges against a users file: right and wrong passwords, unknown and locked
 * users, malformed messages, SCRAM with libgsasl as the client, what a bad file says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants those first */
#include <cmocka.h>
#include <crypt.h>
#include <gsasl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "node/intake/auth.h"

static char file[] = "/var/tmp/baton-test-auth-XXXXXX";
static struct workers *helpers;
static struct mailbox *box;

struct heard {
    bool done;
    enum auth_state state;
    char challenge[600];
    size_t challenge_len;
    char user[300];
};

static void done(struct auth_exchange *x, const struct auth_result *r, void *ctx)
{
    struct heard *h = ctx;
    (void)x;
    h->done = true;
    h->state = r->state;
    h->challenge_len = r->challenge.len;
    if (r->challenge.len)
        memcpy(h->challenge, r->challenge.ptr, r->challenge.len);
    snprintf(h->user, sizeof(h->user), "%s", r->user);
}

static void step(struct auth_exchange *x, struct heard *h, bool has, struct slice input)
{
    h->done = false;
    auth_step(x, has, input);
    assert_false(h->done);
    while (!h->done) {
        assert_true(mailbox_wait(box, 20000));
        mailbox_drain(box);
    }
}

static void write_users(const char *text, mode_t mode)
{
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    chmod(file, mode);
}

static struct auth_users *load(void)
{
    struct settings_problems problems;
    char warning[300];
    settings_problems_init(&problems);
    struct auth_users *u =
        auth_users_load(file, "t", 3, &problems, warning, sizeof(warning));
    if (!u)
        fail_msg("%.*s", SLICE_ARG(buf_slice(&problems.text)));
    settings_problems_fini(&problems);
    return u;
}

/* alice: secret; carol is locked; dave: pass:word */
static struct auth_users *usual(void)
{
    char text[1000], alice[200], dave[200];
    struct crypt_data *room = mem_zalloc(sizeof(*room));
    snprintf(alice, sizeof(alice), "%s", crypt_r("secret", "$5$rounds=1000$aaaa$", room));
    snprintf(dave, sizeof(dave), "%s", crypt_r("pass:word", "$1$bbbb$", room));
    free(room);
    snprintf(text, sizeof(text), "# users\nalice:%s\ncarol:!%s\n\ndave:%s\n", alice,
        alice, dave);
    write_users(text, 0640);
    return load();
}

static struct slice bytes(const char *text, size_t len)
{
    return slice_make(text, len);
}
#define BYTES(text) bytes(text, sizeof(text) - 1)

static void plain(void **state)
{
    static const struct {
        const char *message;
        size_t len;
        enum auth_state want;
        const char *user;
    } rows[] = {
#define ROW(message, want, user) {message, sizeof(message) - 1, want, user}
        ROW("\0alice\0secret", AUTH_OK, "alice"),
        ROW("alice\0alice\0secret", AUTH_OK, "alice"),
        ROW("\0dave\0pass:word", AUTH_OK, "dave"),
        ROW("\0alice\0wrong", AUTH_WRONG, "alice"),
        ROW("\0alice\0secre", AUTH_WRONG, "alice"),
        ROW("\0alice\0secrets", AUTH_WRONG, "alice"),
        ROW("\0Alice\0secret", AUTH_WRONG, "Alice"),
        ROW("dave\0alice\0secret", AUTH_WRONG, "alice"),
        ROW("\0carol\0secret", AUTH_WRONG, "carol"),
        ROW("\0nobody\0secret", AUTH_WRONG, "nobody"),
        ROW("\0alice\0", AUTH_WRONG, "alice"),
        ROW("alice", AUTH_MALFORMED, ""),
        ROW("\0\0\0", AUTH_MALFORMED, NULL),
        ROW("", AUTH_CHALLENGE, ""),
#undef ROW
    };
    struct auth_users *u = usual();
    (void)state;
    assert_int_equal(auth_users_count(u), 3);
    assert_string_equal(auth_users_mechanisms(u), "PLAIN LOGIN");
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct heard h = {0};
        struct auth_exchange *x = auth_begin(u, helpers, box, SLICE("plain"), done, &h);
        step(x, &h, true, bytes(rows[i].message, rows[i].len));
        bool bad = rows[i].want == AUTH_MALFORMED
                       ? h.state != AUTH_MALFORMED && h.state != AUTH_WRONG
                       : h.state != rows[i].want;
        if (bad || (rows[i].user && strcmp(h.user, rows[i].user) != 0))
            fail_msg("row %u: state %d user %s", i, h.state, h.user);
        if (h.state == AUTH_CHALLENGE)
            auth_cancel(x);
    }
    auth_users_unref(u);
}

static void plain_without_initial_response(void **state)
{
    struct auth_users *u = usual();
    struct heard h = {0};
    struct auth_exchange *x = auth_begin(u, helpers, box, SLICE("PLAIN"), done, &h);
    (void)state;
    step(x, &h, false, (struct slice){0});
    assert_int_equal(h.state, AUTH_CHALLENGE);
    assert_int_equal(h.challenge_len, 0);
    step(x, &h, true, BYTES("\0alice\0secret"));
    assert_int_equal(h.state, AUTH_OK);
    auth_users_unref(u);
}

static void login(void **state)
{
    struct auth_users *u = usual();
    (void)state;
    for (int initial = 0; initial < 2; initial++)
        for (int right = 0; right < 2; right++) {
            struct heard h = {0};
            struct auth_exchange *x =
                auth_begin(u, helpers, box, SLICE("LOGIN"), done, &h);
            if (!initial) {
                step(x, &h, false, (struct slice){0});
                assert_int_equal(h.state, AUTH_CHALLENGE);
            }
            step(x, &h, true, SLICE("alice"));
            assert_int_equal(h.state, AUTH_CHALLENGE);
            step(x, &h, true, right ? SLICE("secret") : SLICE("wrong"));
            assert_int_equal(h.state, right ? AUTH_OK : AUTH_WRONG);
            assert_string_equal(h.user, "alice");
        }
    auth_users_unref(u);
}

static void unknown_mechanisms(void **state)
{
    struct auth_users *u = usual();
    struct heard h = {0};
    (void)state;
    assert_null(auth_begin(u, helpers, box, SLICE("CRAM-MD5"), done, &h));
    assert_null(auth_begin(u, helpers, box, SLICE("ANONYMOUS"), done, &h));
    assert_null(auth_begin(u, helpers, box, SLICE(""), done, &h));
    auth_users_unref(u);
}

static void cancelled_while_a_helper_works(void **state)
{
    struct auth_users *u = usual();
    struct heard h = {0};
    struct auth_exchange *x = auth_begin(u, helpers, box, SLICE("PLAIN"), done, &h);
    (void)state;
    auth_step(x, true, BYTES("\0alice\0secret"));
    auth_cancel(x);
    auth_users_unref(u); /* the exchange has its own reference */
    while (mailbox_drain(box) == 0)
        assert_true(mailbox_wait(box, 20000));
    assert_false(h.done);
    x = auth_begin(u = usual(), helpers, box, SLICE("PLAIN"), done, &h);
    auth_cancel(x);
    auth_users_unref(u);
}

static void oversized_input(void **state)
{
    struct auth_users *u = usual();
    struct heard h = {0};
    char big[9000];
    (void)state;
    memset(big, 'x', sizeof(big));
    struct auth_exchange *x = auth_begin(u, helpers, box, SLICE("PLAIN"), done, &h);
    step(x, &h, true, slice_make(big, sizeof(big)));
    assert_int_equal(h.state, AUTH_MALFORMED);
    auth_users_unref(u);
}

/* --- SCRAM --- */

static void add_scram_user(char *line, size_t size, const char *name, bool gnu_form)
{
    char salt[16] = "0123456789abcdef", *salt64, *stored64, *server64;
    char salted[GSASL_HASH_MAX_SIZE], client[GSASL_HASH_MAX_SIZE];
    char server[GSASL_HASH_MAX_SIZE], stored[GSASL_HASH_MAX_SIZE];
    struct crypt_data *room = mem_zalloc(sizeof(*room));
    assert_int_equal(gsasl_scram_secrets_from_password(GSASL_HASH_SHA256, "secret", 4096,
                         salt, sizeof(salt), salted, client, server, stored),
        GSASL_OK);
    gsasl_base64_to(salt, sizeof(salt), &salt64, NULL);
    gsasl_base64_to(stored, 32, &stored64, NULL);
    gsasl_base64_to(server, 32, &server64, NULL);
    snprintf(line, size,
        gnu_form ? "%s:%s:{SCRAM-SHA-256}4096,%s,%s,%s\n"
                 : "%s:%s:SCRAM-SHA-256$4096:%s$%s:%s\n",
        name, crypt_r("secret", "$1$cccc$", room), salt64, stored64, server64);
    gsasl_free(salt64);
    gsasl_free(stored64);
    gsasl_free(server64);
    free(room);
}

static enum auth_state scram(struct auth_users *u, const char *user, const char *password)
{
    Gsasl *gsasl;
    Gsasl_session *client;
    struct heard h = {0};
    char *out = NULL;
    size_t len;
    gsasl_init(&gsasl);
    gsasl_client_start(gsasl, "SCRAM-SHA-256", &client);
    gsasl_property_set(client, GSASL_AUTHID, user);
    gsasl_property_set(client, GSASL_PASSWORD, password);
    struct auth_exchange *x =
        auth_begin(u, helpers, box, SLICE("SCRAM-SHA-256"), done, &h);
    assert_non_null(x);
    int rc = gsasl_step(client, NULL, 0, &out, &len);
    while (rc == GSASL_OK || rc == GSASL_NEEDS_MORE) {
        step(x, &h, true, slice_make(out, len));
        gsasl_free(out);
        out = NULL;
        if (h.state != AUTH_CHALLENGE)
            break;
        rc = gsasl_step(client, h.challenge, h.challenge_len, &out, &len);
    }
    if (h.state == AUTH_CHALLENGE)
        auth_cancel(x);
    gsasl_free(out);
    gsasl_finish(client);
    gsasl_done(gsasl);
    return h.state;
}

static void scram_sha_256(void **state)
{
    char text[2000] = "", line[600];
    (void)state;
    add_scram_user(line, sizeof(line), "alice", false);
    snprintf(text, sizeof(text), "%s", line);
    add_scram_user(line, sizeof(line), "bob", true);
    strncat(text, line, sizeof(text) - strlen(text) - 1);
    write_users(text, 0640);
    struct auth_users *u = load();
    assert_string_equal(auth_users_mechanisms(u), "PLAIN LOGIN SCRAM-SHA-256");
    assert_int_equal(scram(u, "alice", "secret"), AUTH_OK);
    assert_int_equal(scram(u, "bob", "secret"), AUTH_OK);
    assert_int_equal(scram(u, "alice", "wrong"), AUTH_WRONG);
    assert_int_equal(scram(u, "nobody", "secret"), AUTH_WRONG);
    auth_users_unref(u);
}

/* --- the file --- */

static void bad_files_are_refused(void **state)
{
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"alice\n", ":1: users: want name:hash[:SCRAM-SHA-256 verifier]\n"},
        {":$1$a$b\n", ":1: users: want name:hash[:SCRAM-SHA-256 verifier]\n"},
        {"alice:\n", ":1: users: the user has no password hash\n"},
        {"\n#\nalice:plaintext password\n",
            ":3: users: not a crypt(3) hash that this machine knows; make one with "
            "mkpasswd\n"},
        {"alice:$1$cccc$S8YJLQsW5tCNHrEpBPmUt1:SCRAM-SHA-256$1:a$b:c\n",
            ":1: users: not a SCRAM-SHA-256 verifier\n"},
        {"a:!\nb:*\na:!\n", ": users: user a is there twice\n"},
    };
    (void)state;
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct settings_problems problems;
        char warning[300], want[400];
        write_users(rows[i].text, 0640);
        settings_problems_init(&problems);
        struct auth_users *u =
            auth_users_load(file, "t", 3, &problems, warning, sizeof(warning));
        snprintf(want, sizeof(want), "%s%s", file, rows[i].want);
        if (u || !slice_eq(buf_slice(&problems.text), slice_str(want)))
            fail_msg("row %u: %.*s", i, SLICE_ARG(buf_slice(&problems.text)));
        settings_problems_fini(&problems);
    }
}

static void open_files_are_warned_about(void **state)
{
    struct settings_problems problems;
    char warning[300];
    (void)state;
    settings_problems_init(&problems);
    write_users("a:!\n", 0644);
    auth_users_unref(auth_users_load(file, "t", 3, &problems, warning, sizeof(warning)));
    assert_non_null(strstr(warning, "is open to others (mode 644)"));
    write_users("a:!\n", 0640);
    auth_users_unref(auth_users_load(file, "t", 3, &problems, warning, sizeof(warning)));
    assert_string_equal(warning, "");
    settings_problems_fini(&problems);
}

static int set_up(void **state)
{
    int fd = mkstemp(file);
    (void)state;
    if (fd < 0)
        return -1;
    close(fd);
    box = mailbox_new(NULL);
    helpers = workers_new(1, 10, "helper");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    workers_free(helpers);
    mailbox_free(box);
    return unlink(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain),
        cmocka_unit_test(plain_without_initial_response),
        cmocka_unit_test(login),
        cmocka_unit_test(unknown_mechanisms),
        cmocka_unit_test(cancelled_while_a_helper_works),
        cmocka_unit_test(oversized_input),
        cmocka_unit_test(scram_sha_256),
        cmocka_unit_test(bad_files_are_refused),
        cmocka_unit_test(open_files_are_warned_about),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
