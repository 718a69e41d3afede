/* SPDX-License-Identifier: Apache-2.0 */
#include "node/control/control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "node/control/socket.h"

static char dir[] = "/var/tmp/baton-test-XXXXXX";
static char path[100];
static char why[512];

/* --- a server with some handlers --- */

struct server {
    struct loop *loop;
    struct control *control;
    pthread_t thread;
    struct control_request *waiting; /* of "wait" */
    atomic_uint drains;
    atomic_uint cancelled;
    int64_t flood_left;
    struct mail mail;
};
static struct server server;

static void handle_echo(struct control_request *req, json_t *args, void *ctx)
{
    (void)ctx;
    control_reply(req, json_incref(args));
    control_finish(req, 3);
}

static void wait_cancelled(struct control_request *req)
{
    server.waiting = NULL;
    atomic_fetch_add(&server.cancelled, 1);
    control_finish(req, 0);
}

static void handle_wait(struct control_request *req, json_t *args, void *ctx)
{
    (void)args;
    (void)ctx;
    server.waiting = req;
    req->on_cancel = wait_cancelled;
}

static void finish_waiting(struct mail *mail, void *owner)
{
    (void)mail;
    (void)owner;
    INVARIANT(server.waiting);
    control_reply(server.waiting, json_pack("{s:s}", "late", "answer"));
    control_finish(server.waiting, 0);
}

static void handle_release(struct control_request *req, json_t *args, void *ctx)
{
    (void)args;
    (void)ctx;
    mailbox_post(loop_mailbox(server.loop), &server.mail, finish_waiting);
    control_finish(req, 0);
}

static void flood_on(struct control_request *req)
{
    atomic_fetch_add(&server.drains, 1);
    while (server.flood_left > 0) {
        server.flood_left--;
        if (!control_reply(req, json_pack("{s:I}", "n", (json_int_t)server.flood_left)))
            return;
    }
    control_finish(req, 0);
}

static void flood_cancelled(struct control_request *req)
{
    control_finish(req, 0);
}

static void handle_flood(struct control_request *req, json_t *args, void *ctx)
{
    (void)ctx;
    server.flood_left = 0;
    if (!control_arg_int(req, args, "count", 1, 10000000, &server.flood_left))
        return;
    atomic_store(&server.drains, 0);
    req->on_drained = flood_on;
    req->on_cancel = flood_cancelled;
    flood_on(req);
}

static void *run(void *arg)
{
    loop_run(arg);
    return NULL;
}

static int start(void **state)
{
    (void)state;
    server.waiting = NULL;
    atomic_store(&server.cancelled, 0);
    server.loop = loop_new();
    server.control = control_open(server.loop, path, why, sizeof(why));
    if (!server.control)
        fail_msg("%s", why);
    control_register(server.control, "echo", CONTROL_READS, handle_echo, NULL);
    control_register(server.control, "wait", CONTROL_READS, handle_wait, NULL);
    control_register(server.control, "release", CONTROL_CHANGES, handle_release, NULL);
    control_register(server.control, "flood", CONTROL_READS, handle_flood, NULL);
    pthread_create(&server.thread, NULL, run, server.loop);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    loop_stop(server.loop);
    pthread_join(server.thread, NULL);
    control_close(server.control);
    loop_free(server.loop);
    return 0;
}

/* --- a client --- */

static int dial(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    size_t len = strlen(text);
    assert_int_equal(send(fd, text, len, MSG_NOSIGNAL), len);
}

/* One line, without its end; empty at the end of the connection. */
static const char *hear(int fd)
{
    static char line[CONTROL_LINE_MAX];
    size_t len = 0;
    while (len < sizeof(line) - 1 && read(fd, line + len, 1) == 1 && line[len] != '\n')
        len++;
    line[len] = '\0';
    return line;
}

static void test_command(void **state)
{
    (void)state;
    int fd = dial();
    say(fd, "{\"command\":\"echo\",\"args\":{\"a\":1}}\n");
    assert_string_equal(hear(fd), "{\"a\":1}");
    assert_string_equal(hear(fd), "{\"end\":true,\"exit\":3}");
    say(fd, "{\"command\":\"echo\"}\n");
    assert_string_equal(hear(fd), "{}");
    assert_string_equal(hear(fd), "{\"end\":true,\"exit\":3}");
    close(fd);
}

static void test_byte_by_byte_and_pipelined(void **state)
{
    (void)state;
    static const char two[] = "{\"command\":\"echo\",\"args\":{\"n\":1}}\n\n"
                              "{\"command\":\"echo\",\"args\":{\"n\":2}}\n";
    int fd = dial();
    for (size_t i = 0; i < sizeof(two) - 1; i++)
        assert_int_equal(write(fd, two + i, 1), 1);
    shutdown(fd, SHUT_WR);
    assert_string_equal(hear(fd), "{\"n\":1}");
    hear(fd);
    assert_string_equal(hear(fd), "{\"n\":2}");
    hear(fd);
    assert_string_equal(hear(fd), ""); /* and it hangs up */
    close(fd);
}

static void test_nonsense(void **state)
{
    (void)state;
    static const char *const rows[] = {"hello\n", "[]\n", "{\"command\":5}\n",
        "{\"command\":\"nope\"}\n", "{\"command\":\"echo\",\"args\":[]}\n",
        "{\"command\":\"echo\",\"command\":\"echo\"}\n", "{\"command\":\"echo\"\n",
        "{}\n", "{\"command\":\"flood\",\"args\":{\"count\":\"x\"}}\n",
        "{\"command\":\"flood\",\"args\":{\"count\":0}}\n", "\xff\n"};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int fd = dial();
        say(fd, rows[i]);
        const char *line = hear(fd);
        if (!strstr(line, "\"exit\":1") || !strstr(line, "\"error\":"))
            fail_msg("%s -> %s", rows[i], line);
        say(fd, "{\"command\":\"echo\"}\n"); /* and the connection goes on */
        assert_string_equal(hear(fd), "{}");
        close(fd);
    }
}

static void test_endless_line(void **state)
{
    (void)state;
    char *a = mem_alloc(CONTROL_LINE_MAX);
    memset(a, 'a', CONTROL_LINE_MAX);
    int fd = dial();
    for (int i = 0; i < 3; i++)
        if (send(fd, a, CONTROL_LINE_MAX, MSG_NOSIGNAL) < 0)
            break;
    assert_string_equal(hear(fd), "");
    close(fd);
    free(a);
}

static void test_late_answer(void **state)
{
    (void)state;
    int slow = dial(), other = dial();
    say(slow, "{\"command\":\"wait\"}\n{\"command\":\"echo\"}\n");
    /* The second command of the first connection waits for its turn. */
    struct pollfd p = {.fd = slow, .events = POLLIN};
    say(other, "{\"command\":\"echo\"}\n");
    hear(other);
    hear(other);
    assert_int_equal(poll(&p, 1, 0), 0);
    say(other, "{\"command\":\"release\"}\n");
    assert_string_equal(hear(slow), "{\"late\":\"answer\"}");
    assert_string_equal(hear(slow), "{\"end\":true,\"exit\":0}");
    assert_string_equal(hear(slow), "{}");
    close(slow);
    close(other);
}

static void test_cancel(void **state)
{
    (void)state;
    int fd = dial(), other = dial();
    say(fd, "{\"command\":\"wait\"}\n");
    say(other, "{\"command\":\"echo\"}\n");
    hear(other);
    hear(other);
    close(fd);
    while (atomic_load(&server.cancelled) == 0) {
        say(other, "{\"command\":\"echo\"}\n"); /* keeps the loop turning */
        hear(other);
        hear(other);
    }
    close(other);
}

/* A list far longer than what may wait: it comes whole, at the reader's pace. */
static void test_flood(void **state)
{
    (void)state;
    int fd = dial();
    say(fd, "{\"command\":\"flood\",\"args\":{\"count\":600000}}\n");
    FILE *in = fdopen(fd, "r");
    char line[200], want[200];
    for (int n = 599999; n >= 0; n--) {
        assert_non_null(fgets(line, sizeof(line), in));
        snprintf(want, sizeof(want), "{\"n\":%d}\n", n);
        assert_string_equal(line, want);
    }
    assert_non_null(fgets(line, sizeof(line), in));
    assert_string_equal(line, "{\"end\":true,\"exit\":0}\n");
    assert_true(atomic_load(&server.drains) > 3);
    fclose(in);
}

static void test_flood_abandoned(void **state)
{
    (void)state;
    int fd = dial();
    say(fd, "{\"command\":\"flood\",\"args\":{\"count\":600000}}\n");
    hear(fd);
    close(fd);
    fd = dial();
    say(fd, "{\"command\":\"echo\"}\n");
    assert_string_equal(hear(fd), "{}");
    close(fd);
}

static void test_many_connections(void **state)
{
    (void)state;
    int fds[CONTROL_CONNECTIONS_MAX];
    for (int i = 0; i < CONTROL_CONNECTIONS_MAX; i++)
        fds[i] = dial();
    int late = dial();
    say(late, "{\"command\":\"echo\"}\n");
    say(fds[0], "{\"command\":\"echo\"}\n");
    assert_string_equal(hear(fds[0]), "{}");
    struct pollfd p = {.fd = late, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 0), 0);
    for (int i = 0; i < CONTROL_CONNECTIONS_MAX; i++)
        close(fds[i]);
    assert_string_equal(hear(late), "{}");
    close(late);
}

/* --- the socket file --- */

static void test_socket_file(void **state)
{
    (void)state;
    struct control_socket s, second;
    struct stat st;
    mode_t before = umask(0);
    assert_true(control_socket_open(path, &s, why, sizeof(why)));
    umask(before);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0660);
    assert_false(control_socket_open(path, &second, why, sizeof(why)));
    assert_non_null(strstr(why, "another batond answers there"));
    close(s.fd); /* as a crash does: the file stays, nobody answers */
    assert_true(control_socket_open(path, &second, why, sizeof(why)));
    control_socket_close(&second);
    assert_int_not_equal(stat(path, &st), 0);
    assert_true(control_socket_open(path, &s, why, sizeof(why)));
    unlink(path);
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    control_socket_close(&s); /* not ours any more: it stays */
    assert_int_equal(stat(path, &st), 0);
    assert_false(control_socket_open(path, &s, why, sizeof(why)));
    assert_non_null(strstr(why, "is no socket"));
    close(fd);
    unlink(path);
}

static void test_socket_directory(void **state)
{
    (void)state;
    char deep[120];
    struct control_socket s;
    snprintf(deep, sizeof(deep), "%s/run/c.sock", dir);
    assert_true(control_socket_open(deep, &s, why, sizeof(why)));
    control_socket_close(&s);
    *strrchr(deep, '/') = '\0';
    rmdir(deep);
    snprintf(deep, sizeof(deep), "%s/a/b/c.sock", dir);
    assert_false(control_socket_open(deep, &s, why, sizeof(why)));
    assert_non_null(strstr(why, "cannot make the directory"));
    char longer[300];
    memset(longer, 'x', sizeof(longer));
    longer[299] = '\0';
    assert_false(control_socket_open(longer, &s, why, sizeof(why)));
    assert_non_null(strstr(why, "too long"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof(path), "%s/control.sock", dir);
    const struct CMUnitTest tests[] = {
        TEST(test_command),
        TEST(test_byte_by_byte_and_pipelined),
        TEST(test_nonsense),
        TEST(test_endless_line),
        TEST(test_late_answer),
        TEST(test_cancel),
        TEST(test_flood),
        TEST(test_flood_abandoned),
        TEST(test_many_connections),
        cmocka_unit_test(test_socket_file),
        cmocka_unit_test(test_socket_directory),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(dir);
    return failed;
}
