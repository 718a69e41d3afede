/* SPDX-License-Identifier: Apache-2.0 */
#include "node/http/http.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/metrics.h"
#include "node/http/http_internal.h"

static bool store_ready(char *why, size_t size, void *ctx)
{
    snprintf(why, size, "scanning, 40 %%");
    return *(bool *)ctx;
}

static bool always(char *why, size_t size, void *ctx)
{
    (void)why;
    (void)size;
    (void)ctx;
    return true;
}

static void labelled(struct buf *out, void *ctx)
{
    (void)ctx;
    buf_append_str(out, "baton_destination_queue{domain=\"a.example\"} 3\n");
}

static struct buf answer;
static const char *ask(const struct http_content *content, const char *request)
{
    buf_fini(&answer);
    buf_init(&answer, HTTP_ANSWER_MAX);
    http_answer(content, slice_str(request), &answer);
    buf_append_char(&answer, '\0');
    return buf_slice(&answer).ptr;
}

static void test_answers(void **state)
{
    (void)state;
    bool ready = false;
    struct http_content content = {.checks = {{HTTP_LIVE, "loop", always, NULL},
                                       {HTTP_READY, "store", store_ready, &ready}},
        .check_count = 2};
    content.metrics[0].render = labelled;
    content.metrics_count = 1;
    static const struct {
        const char *request, *want;
    } rows[] = {
        {"GET /livez HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n"},
        {"GET /readyz HTTP/1.1\r\n\r\n", "HTTP/1.1 503 Service Unavailable\r\n"},
        {"GET /readyz?verbose HTTP/1.0\r\n\r\n", "\r\n\r\nstore: scanning, 40 %\n"},
        {"GET /metrics HTTP/1.1\r\n\r\n", "Content-Type: text/plain; version=0.0.4"},
        {"GET /metrics HTTP/1.1\r\n\r\n", "\nbaton_received_total 0\n"},
        {"GET /metrics HTTP/1.1\r\n\r\n", "{domain=\"a.example\"} 3\n"},
        {"POST /livez HTTP/1.1\r\n\r\n", "405 Method Not Allowed"},
        {"POST /livez HTTP/1.1\r\n\r\n", "Allow: GET, HEAD\r\n"},
        {"GET /../etc HTTP/1.1\r\n\r\n", "404 Not Found"},
        {"GET http://x/livez HTTP/1.1\r\n\r\n", "400 Bad Request"},
        {"GET /livez\r\n\r\n", "400 Bad Request"},
        {"EHLO me\r\n\r\n", "400 Bad Request"},
        {"\r\n\r\n", "400 Bad Request"},
        {"", "431 Request Header Fields Too Large"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (!strstr(ask(&content, rows[i].request), rows[i].want))
            fail_msg("%s: wanted %s in %s", rows[i].request, rows[i].want,
                buf_slice(&answer).ptr);
    ready = true;
    assert_non_null(
        strstr(ask(&content, "GET /readyz HTTP/1.1\r\n\r\n"), "\r\n\r\nok\n"));
    const char *head = ask(&content, "HEAD /readyz HTTP/1.1\r\n\r\n");
    assert_non_null(strstr(head, "Content-Length: 3\r\n"));
    assert_string_equal(strstr(head, "\r\n\r\n"), "\r\n\r\n");
    buf_fini(&answer);
}

static void test_request_end(void **state)
{
    (void)state;
    static const char request[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\nrest";
    for (size_t len = 0; len < sizeof(request) - 1; len++) {
        size_t want = len >= 27 ? 27 : 0;
        assert_int_equal(http_request_end(slice_make(request, len)), want);
    }
    assert_int_equal(http_request_end(SLICE("GET / HTTP/1.0\n\nx\r\n\r\n")), 16);
}

struct server {
    struct loop *loop;
    struct http *http;
    pthread_t thread;
    uint16_t port;
};

static void *run(void *arg)
{
    loop_run(arg);
    return NULL;
}

static void server_start(struct server *s)
{
    char why[256] = "";
    struct netaddr at;
    assert_true(netaddr_parse(SLICE("127.0.0.1:0"), 0, &at));
    s->loop = loop_new();
    s->http = http_new(s->loop, &at, 1, why, sizeof(why));
    if (!s->http)
        fail_msg("%s", why);
    s->port = http_port(s->http, 0);
    pthread_create(&s->thread, NULL, run, s->loop);
}

static void server_stop(struct server *s)
{
    loop_stop(s->loop);
    pthread_join(s->thread, NULL);
    http_free(s->http);
    loop_free(s->loop);
}

static int connect_to(uint16_t port)
{
    struct netaddr at;
    struct sockaddr_storage sa;
    assert_true(netaddr_parse(SLICE("127.0.0.1"), port, &at));
    socklen_t len = netaddr_to_sockaddr(at, &sa);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, len), 0);
    return fd;
}

static size_t read_to_end(int fd, char *out, size_t size)
{
    size_t got = 0;
    ssize_t n;
    while (got < size - 1 && (n = read(fd, out + got, size - 1 - got)) > 0)
        got += (size_t)n;
    out[got] = '\0';
    return got;
}

static void test_byte_by_byte(void **state)
{
    (void)state;
    static const char request[] = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    struct server s;
    char got[4096];
    server_start(&s);
    int fd = connect_to(s.port);
    for (size_t i = 0; i < sizeof(request) - 1; i++)
        assert_int_equal(write(fd, request + i, 1), 1);
    read_to_end(fd, got, sizeof(got));
    assert_non_null(strstr(got, "200 OK"));
    close(fd);
    server_stop(&s);
}

static void test_too_long(void **state)
{
    (void)state;
    struct server s;
    char got[4096], a[HTTP_REQUEST_MAX + 100];
    memset(a, 'a', sizeof(a));
    server_start(&s);
    int fd = connect_to(s.port);
    assert_int_equal(send(fd, a, sizeof(a), MSG_NOSIGNAL), sizeof(a));
    read_to_end(fd, got, sizeof(got));
    assert_non_null(strstr(got, "431 "));
    close(fd);
    server_stop(&s);
}

/* More connections than are served wait, and are served when others have gone. */
static void test_many_connections(void **state)
{
    (void)state;
    struct server s;
    int idle[HTTP_CONNECTIONS_MAX];
    char got[65536];
    server_start(&s);
    for (int i = 0; i < HTTP_CONNECTIONS_MAX; i++)
        idle[i] = connect_to(s.port);
    int fd = connect_to(s.port);
    assert_true(write(fd, "GET /metrics HTTP/1.1\r\n\r\n", 25) == 25);
    for (int i = 0; i < HTTP_CONNECTIONS_MAX; i++)
        close(idle[i]);
    read_to_end(fd, got, sizeof(got));
    assert_non_null(strstr(got, "baton_connections_total"));
    close(fd);
    server_stop(&s);
}

static void test_port_taken(void **state)
{
    (void)state;
    struct server s;
    struct netaddr at;
    char why[256];
    server_start(&s);
    assert_true(netaddr_parse(SLICE("127.0.0.1"), s.port, &at));
    struct loop *loop = loop_new();
    assert_null(http_new(loop, &at, 1, why, sizeof(why)));
    assert_non_null(strstr(why, "another daemon"));
    loop_free(loop);
    server_stop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_request_end),
        cmocka_unit_test(test_byte_by_byte),
        cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_many_connections),
        cmocka_unit_test(test_port_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
