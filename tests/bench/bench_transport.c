/* SPDX-License-Identifier: Apache-2.0 */
/* Frames between two processes on loopback, CURVE and all: frames a second and CPU a
 * frame at each end.
 *
 *   bench_transport [MILLISECONDS]     a row for each lane and size */
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/loop.h"
#include "cluster/transport.h"

struct hello {
    unsigned char key[TRANSPORT_KEY_BYTES];
    struct netaddr address;
};

struct end {
    struct loop *loop;
    struct transport *t;
    struct transport_keys keys;
    struct timer beat;
    struct mono last;
    uint64_t frames;
    int other_in, other_out;
};

static void beat_fires(struct timer *t)
{
    timer_set(t, mono_add_ms(mono_now(), 1));
}

static void on_frame(
    void *ctx, uint64_t node, enum transport_lane lane, struct slice frame)
{
    struct end *e = ctx;
    e->frames++;
    e->last = mono_now();
    if (lane == TRANSPORT_BULK)
        transport_consumed(e->t, node, frame.len);
}

static void on_guest(void *ctx, const unsigned char *key, struct slice frame)
{
    (void)ctx, (void)key, (void)frame;
}

static void on_link(void *ctx, uint64_t node, bool is_up)
{
    (void)ctx, (void)node, (void)is_up;
}

static const struct transport_events events = {on_frame, on_guest, on_link, NULL};

static void end_open(struct end *e, uint64_t node)
{
    char why[512];
    struct hello hello = {.address = {.port = 0}};
    struct netaddr any = {.port = 0};
    ipaddr_parse(SLICE("127.0.0.1"), &any.ip);
    e->loop = loop_new();
    transport_keys_make(&e->keys);
    struct transport_settings settings = {
        .loop = e->loop, .listen = any, .keys = &e->keys, .node = node};
    e->t = transport_new(&settings, &events, e, why, sizeof(why));
    if (!e->t)
        die("bench_transport: %s", why);
    memcpy(hello.key, e->keys.public_key, TRANSPORT_KEY_BYTES);
    hello.address = transport_address(e->t);
    if (write(e->other_out, &hello, sizeof(hello)) != sizeof(hello) ||
        read(e->other_in, &hello, sizeof(hello)) != sizeof(hello))
        die("bench_transport: the other end is gone");
    struct transport_peer peer = {.node = 3 - node, .address = hello.address};
    memcpy(peer.key, hello.key, TRANSPORT_KEY_BYTES);
    transport_set_peer(e->t, &peer);
    timer_init(&e->beat, e->loop, beat_fires);
    timer_set(&e->beat, mono_now());
}

static void end_close(struct end *e)
{
    timer_fini(&e->beat);
    transport_free(e->t);
    loop_free(e->loop);
}

static void step(struct end *e)
{
    event_base_loop(loop_event_base(e->loop), EVLOOP_ONCE);
}

static double cpu_us(int who)
{
    struct rusage use;
    getrusage(who, &use);
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1e6 +
           (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
}

/* Until nothing has come for a while; tells how many, how long, and at what cost. */
struct result {
    uint64_t frames;
    double cpu;
};

static void receive(struct end *e)
{
    end_open(e, 2);
    while (e->frames == 0)
        step(e);
    double before = cpu_us(RUSAGE_SELF);
    while (mono_diff_ms(mono_now(), e->last) < 500)
        step(e);
    struct result result = {e->frames, cpu_us(RUSAGE_SELF) - before};
    if (write(e->other_out, &result, sizeof(result)) != sizeof(result))
        die("bench_transport: the other end is gone");
    end_close(e);
}

static void send_frames(struct end *e, enum transport_lane lane, size_t size, int64_t ms)
{
    char *bytes = mem_zalloc(size);
    struct result other;
    end_open(e, 1);
    while (transport_room(e->t, 2) == 0)
        step(e);
    uint64_t sent = 0;
    double before = cpu_us(RUSAGE_SELF);
    struct mono begin = mono_now(), end = mono_add_ms(begin, ms);
    while (mono_now().ns < end.ns) {
        unsigned burst = 0;
        while (burst < 64 &&
               transport_send(e->t, 2, lane, slice_make(bytes, size), slice_make("", 0)))
            burst++;
        sent += burst;
        if (burst < 64)
            step(e);
        else
            event_base_loop(loop_event_base(e->loop), EVLOOP_NONBLOCK);
    }
    double cpu = cpu_us(RUSAGE_SELF) - before;
    double seconds = (double)mono_diff_ms(mono_now(), begin) / 1e3;
    if (read(e->other_in, &other, sizeof(other)) != sizeof(other))
        die("bench_transport: the other end is gone");
    double rate = (double)other.frames / seconds;
    printf("%-8s %7zu B %9.0f frames/s %8.1f MB/s  CPU a frame: sender %6.2f us, "
           "receiver %6.2f us\n",
        lane == TRANSPORT_BULK ? "bulk" : "control", size, rate,
        rate * (double)size / 1e6, cpu / (double)sent, other.cpu / (double)other.frames);
    fflush(stdout);
    free(bytes);
    end_close(e);
}

static void measure(enum transport_lane lane, size_t size, int64_t ms)
{
    int there[2], back[2];
    struct end e = {.frames = 0};
    if (pipe(there) != 0 || pipe(back) != 0)
        die("bench_transport: no pipes");
    pid_t child = fork();
    e.other_in = child == 0 ? there[0] : back[0];
    e.other_out = child == 0 ? back[1] : there[1];
    close(child == 0 ? there[1] : there[0]);
    close(child == 0 ? back[0] : back[1]);
    if (child == 0) {
        receive(&e);
        _exit(0);
    }
    send_frames(&e, lane, size, ms);
    waitpid(child, NULL, 0);
    close(e.other_in);
    close(e.other_out);
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = {100, 1024, 10240, 65536};
    int64_t ms = argc > 1 ? strtol(argv[1], NULL, 10) : 3000;
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        measure(TRANSPORT_CONTROL, sizes[i], ms);
    measure(TRANSPORT_BULK, 10240, ms);
    measure(TRANSPORT_BULK, 256u << 10, ms);
    return 0;
}
