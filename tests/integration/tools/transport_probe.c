/* SPDX-License-Identifier: Apache-2.0 */
/* A transport alone, for tests of it over a bad network.
 *
 *   transport_probe NODE ADDRESS:PORT
 *
 * Prints "key HEX", then takes lines on standard input, and ends with it:
 *   peer NODE HEX ADDRESS:PORT
 *   stream NODE control|bulk SIZE EVERY_MS   numbered frames from now on; EVERY_MS 0:
 * stop stats NODE      one line: what came from there on each lane (frames, holes,
 * backwards), what was sent and what was not taken, and how often the link went down and
 * prints "link NODE up|down" as it happens. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "cluster/transport.h"

#define PEERS 16

struct lane_state {
    unsigned long long in, holes, backwards, last; /* heard */
    unsigned long long sent, full;
    unsigned size, every_ms;
    struct timer timer;
    struct peer_state *peer;
};

struct peer_state {
    uint64_t node;
    unsigned downs;
    struct lane_state lanes[TRANSPORT_LANES];
};

static struct {
    struct loop *loop;
    struct transport *t;
    struct watcher input;
    char line[4096];
    size_t used;
    struct peer_state peers[PEERS];
    unsigned count;
} probe;

static struct peer_state *peer_of(uint64_t node)
{
    for (unsigned i = 0; i < probe.count; i++)
        if (probe.peers[i].node == node)
            return &probe.peers[i];
    return NULL;
}

static void on_frame(
    void *ctx, uint64_t node, enum transport_lane lane, struct slice frame)
{
    (void)ctx;
    unsigned long long number = 0;
    struct peer_state *p = peer_of(node);
    if (p && frame.len >= sizeof(number)) {
        struct lane_state *l = &p->lanes[lane];
        memcpy(&number, frame.ptr, sizeof(number));
        l->in++;
        l->backwards += number <= l->last;
        l->holes += number > l->last ? number - l->last - 1 : 0;
        l->last = number > l->last ? number : l->last;
    }
    if (lane == TRANSPORT_BULK)
        transport_consumed(probe.t, node, frame.len);
}

static void on_guest(void *ctx, const unsigned char *key, struct slice frame)
{
    (void)ctx, (void)key, (void)frame;
}

static void on_link(void *ctx, uint64_t node, bool is_up)
{
    (void)ctx;
    struct peer_state *p = peer_of(node);
    if (p && !is_up)
        p->downs++;
    printf("link %llu %s\n", (unsigned long long)node, is_up ? "up" : "down");
    fflush(stdout);
}

/* A frame that is not taken keeps no number: a hole is then what the network lost. */
static void stream_fires(struct timer *t)
{
    struct lane_state *l = CONTAINER_OF(t, struct lane_state, timer);
    enum transport_lane lane = (enum transport_lane)(l - l->peer->lanes);
    unsigned long long number = l->sent + 1;
    char *rest = mem_zalloc(l->size);
    if (transport_send(probe.t, l->peer->node, lane, slice_make(&number, sizeof(number)),
            slice_make(rest, l->size - sizeof(number))))
        l->sent++;
    else
        l->full++;
    free(rest);
    timer_set(t, mono_add_ms(mono_now(), l->every_ms));
}

static struct peer_state *add_peer(uint64_t node)
{
    struct peer_state *p = peer_of(node);
    if (p || probe.count == PEERS)
        return p;
    p = &probe.peers[probe.count++];
    p->node = node;
    for (unsigned i = 0; i < TRANSPORT_LANES; i++) {
        p->lanes[i].peer = p;
        timer_init(&p->lanes[i].timer, probe.loop, stream_fires);
    }
    return p;
}

static bool parse_key(const char *hex, unsigned char *out)
{
    unsigned value;
    for (unsigned i = 0; i < TRANSPORT_KEY_BYTES; i++) {
        if (sscanf(hex + 2 * i, "%2x", &value) != 1)
            return false;
        out[i] = (unsigned char)value;
    }
    return true;
}

static bool do_peer(const char *line)
{
    unsigned long long node;
    char hex[65], address[64];
    struct transport_peer peer;
    if (sscanf(line, "peer %llu %64s %63s", &node, hex, address) != 3 ||
        !parse_key(hex, peer.key) || !netaddr_parse(slice_str(address), 0, &peer.address))
        return false;
    peer.node = node;
    return add_peer(node) && transport_set_peer(probe.t, &peer);
}

static bool do_stream(const char *line)
{
    unsigned long long node;
    char name[16];
    unsigned size, every_ms;
    if (sscanf(line, "stream %llu %15s %u %u", &node, name, &size, &every_ms) != 4)
        return false;
    struct peer_state *p = peer_of(node);
    if (!p || size < sizeof(unsigned long long) || size > TRANSPORT_FRAME_MAX)
        return false;
    struct lane_state *l = &p->lanes[strcmp(name, "bulk") == 0];
    l->size = size;
    l->every_ms = every_ms;
    if (every_ms == 0)
        timer_cancel(&l->timer);
    else
        timer_set(&l->timer, mono_now());
    return true;
}

static bool do_stats(const char *line)
{
    unsigned long long node;
    if (sscanf(line, "stats %llu", &node) != 1 || !peer_of(node))
        return false;
    struct peer_state *p = peer_of(node);
    printf("stats %u", p->downs);
    for (unsigned i = 0; i < TRANSPORT_LANES; i++)
        printf(" %llu %llu %llu %llu %llu", p->lanes[i].in, p->lanes[i].holes,
            p->lanes[i].backwards, p->lanes[i].sent, p->lanes[i].full);
    printf("\n");
    return true;
}

static void command(const char *line)
{
    if (!do_peer(line) && !do_stream(line) && !do_stats(line))
        die("transport_probe: what? %s", line);
    fflush(stdout);
}

static void input_ready(struct watcher *w, int what)
{
    (void)what;
    ssize_t len = read(w->fd, probe.line + probe.used, sizeof(probe.line) - probe.used);
    if (len <= 0) {
        loop_stop(probe.loop);
        return;
    }
    probe.used += (size_t)len;
    char *end;
    while ((end = memchr(probe.line, '\n', probe.used))) {
        size_t taken = (size_t)(end - probe.line) + 1;
        *end = '\0';
        command(probe.line);
        probe.used -= taken;
        memmove(probe.line, probe.line + taken, probe.used);
    }
}

static void on_scouted(void *ctx, uint64_t node, struct netaddr address, bool is_there)
{
    (void)ctx;
    (void)node;
    (void)address;
    (void)is_there;
}

static void start(const char *node, const char *listen)
{
    static const struct transport_events events = {
        on_frame, on_guest, on_link, on_scouted};
    struct transport_keys keys;
    char why[512];
    transport_keys_make(&keys);
    struct transport_settings settings = {
        .loop = probe.loop, .keys = &keys, .node = strtoull(node, NULL, 10)};
    if (!netaddr_parse(slice_str(listen), 0, &settings.listen))
        die("transport_probe: no address: %s", listen);
    probe.t = transport_new(&settings, &events, NULL, why, sizeof(why));
    if (!probe.t)
        die("transport_probe: %s", why);
    printf("key ");
    for (unsigned i = 0; i < TRANSPORT_KEY_BYTES; i++)
        printf("%02x", keys.public_key[i]);
    printf("\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        die("usage: transport_probe NODE ADDRESS:PORT");
    probe.loop = loop_new();
    start(argv[1], argv[2]);
    watcher_init(&probe.input, probe.loop, 0, input_ready);
    watcher_set(&probe.input, WATCH_READ);
    loop_run(probe.loop);
    watcher_fini(&probe.input);
    for (unsigned i = 0; i < probe.count; i++)
        for (unsigned j = 0; j < TRANSPORT_LANES; j++)
            timer_fini(&probe.peers[i].lanes[j].timer);
    transport_free(probe.t);
    loop_free(probe.loop);
    return 0;
}
