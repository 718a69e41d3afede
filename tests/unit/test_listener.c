/* SPDX-License-Identifier: Apache-2.0 */
/* Listening sockets: the probe, what errors say, several loops on one address, and a
 * process without descriptors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants those first */
#include <cmocka.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "node/net/listener.h"

static struct netaddr loopback(void)
{
    struct netaddr at;
    assert_true(netaddr_parse(SLICE("127.0.0.1:0"), 0, &at));
    return at;
}

static void a_second_one_is_refused(void **state)
{
    struct netaddr at;
    int fds[2], more[2];
    char why[300], want[300];
    (void)state;
    assert_int_equal(listen_open(loopback(), 2, fds, &at, why, sizeof(why)), ERR_OK);
    assert_int_not_equal(at.port, 0);
    assert_int_equal(listen_open(at, 2, more, &at, why, sizeof(why)), ERR_IO);
    snprintf(want, sizeof(want),
        "cannot listen on 127.0.0.1:%u: already in use by another process; see which: "
        "ss -ltnp 'sport = :%u'",
        at.port, at.port);
    assert_string_equal(why, want);
    close(fds[0]);
    close(fds[1]);
    assert_int_equal(listen_open(at, 2, fds, &at, why, sizeof(why)), ERR_OK);
    close(fds[0]);
    close(fds[1]);
}

static void a_foreign_address_is_explained(void **state)
{
    struct netaddr at;
    int fd;
    char why[300];
    (void)state;
    assert_true(netaddr_parse(SLICE("192.0.2.77:2525"), 0, &at));
    assert_int_equal(listen_open(at, 1, &fd, &at, why, sizeof(why)), ERR_IO);
    assert_non_null(strstr(why, "no interface of this machine has that address"));
}

struct seen {
    unsigned count;
    int fds[300];
    struct netaddr peer;
};

static void accepted(int fd, struct netaddr peer, void *ctx)
{
    struct seen *seen = ctx;
    seen->peer = peer;
    seen->fds[seen->count++] = fd;
}

static int connect_to(struct netaddr at)
{
    struct sockaddr_storage sa;
    socklen_t len = netaddr_to_sockaddr(at, &sa);
    int fd = socket(sa.ss_family, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, len), 0);
    return fd;
}

static void two_sockets_share_the_clients(void **state)
{
    struct loop *loop = loop_new();
    struct netaddr at;
    struct seen seen[2] = {0};
    int fds[2], clients[200];
    char why[300];
    (void)state;
    assert_int_equal(listen_open(loopback(), 2, fds, &at, why, sizeof(why)), ERR_OK);
    struct acceptor *a = acceptor_new(loop, fds[0], accepted, &seen[0]);
    struct acceptor *b = acceptor_new(loop, fds[1], accepted, &seen[1]);
    for (int i = 0; i < 200; i++)
        clients[i] = connect_to(at);
    while (seen[0].count + seen[1].count < 100)
        loop_once(loop);
    acceptor_drain(a); /* takes what waits before it closes */
    acceptor_drain(b);
    assert_int_equal(seen[0].count + seen[1].count, 200);
    assert_true(seen[0].count > 20 && seen[1].count > 20);
    assert_true(ipaddr_is_loopback(seen[0].peer.ip));
    for (int i = 0; i < 200; i++)
        close(clients[i]);
    for (int i = 0; i < 2; i++)
        for (unsigned j = 0; j < seen[i].count; j++)
            close(seen[i].fds[j]);
    loop_free(loop);
}

static void without_descriptors_clients_are_told(void **state)
{
    struct loop *loop = loop_new();
    struct netaddr at;
    struct seen seen = {0};
    struct rlimit before, low;
    int fd, client;
    char why[300], got[100] = "";
    (void)state;
    assert_int_equal(listen_open(loopback(), 1, &fd, &at, why, sizeof(why)), ERR_OK);
    struct acceptor *a = acceptor_new(loop, fd, accepted, &seen);
    client = connect_to(at);
    int next = open("/dev/null", O_RDONLY);
    close(next);
    getrlimit(RLIMIT_NOFILE, &before);
    low = before;
    low.rlim_cur = (rlim_t)next;
    setrlimit(RLIMIT_NOFILE, &low);
    loop_once(loop);
    setrlimit(RLIMIT_NOFILE, &before);
    assert_int_equal(seen.count, 0);
    assert_true(recv(client, got, sizeof(got) - 1, 0) > 0);
    assert_string_equal(got, "421 4.3.2 too busy, try again later\r\n");
    close(client);
    client = connect_to(at); /* with descriptors all is well again */
    while (seen.count == 0)
        loop_once(loop);
    close(seen.fds[0]);
    close(client);
    acceptor_free(a);
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_second_one_is_refused),
        cmocka_unit_test(a_foreign_address_is_explained),
        cmocka_unit_test(two_sockets_share_the_clients),
        cmocka_unit_test(without_descriptors_clients_are_told),
    };
    log_open(LOG_ERROR, false, "test");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
