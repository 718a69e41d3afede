/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <zmq.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/random.h"
#include "cluster/transport_internal.h"

#define WINDOW_BYTES (8u << 20)
#define WINDOW_ALL_BYTES (256u << 20)
#define TICK_MS 1000
/* libzmq gives up on a connection for good when the other end breaks the protocol, as
 * whatever else may listen there for a while will. A lane down for so long begins anew.
 */
#define REOPEN_MS 15000
/* Far above what a loaded node sends; behind it a peer is mad. Per tick. */
#define CONTROL_FRAMES 250000
#define CONTROL_BYTES (512u << 20)
#define GUEST_FRAMES 20
#define GUEST_KEEP_MS 10000
/* Descriptors of a transport with 100 peers, and the rest of a small daemon. */
#define FILES_WANTED 2048

/* --- peers --- */

/* PEERS_MAX: none. */
static unsigned index_of(const struct transport *t, uint64_t node)
{
    unsigned i = 0;
    while (i < PEERS_MAX && !(t->peers[i].in_use && t->peers[i].node == node))
        i++;
    return i;
}

struct peer *transport_find(struct transport *t, uint64_t node)
{
    unsigned i = index_of(t, node);
    return i < PEERS_MAX ? &t->peers[i] : NULL;
}

static bool is_key_of_other(
    const struct transport *t, const unsigned char *key, uint64_t node)
{
    for (unsigned i = 0; i < PEERS_MAX; i++)
        if (t->peers[i].in_use && t->peers[i].node != node &&
            memcmp(t->peers[i].key, key, TRANSPORT_KEY_BYTES) == 0)
            return true;
    return false;
}

static void close_lanes(struct peer *p)
{
    p->control_was_up = p->bulk_is_stale = false;
    for (unsigned i = 0; i < TRANSPORT_LANES; i++)
        lane_close(&p->lanes[i]);
    credit_out_end(&p->out);
}

static void open_lanes(struct transport *t, struct peer *p)
{
    for (unsigned i = 0; i < TRANSPORT_LANES; i++) {
        p->lanes[i].t = t;
        p->lanes[i].peer = p;
        p->lanes[i].which = (enum transport_lane)i;
        if (p->address.port != 0)
            lane_open(&p->lanes[i], &t->keys, p->key, p->address);
    }
}

static struct peer *add_peer(struct transport *t, uint64_t node)
{
    for (unsigned i = 0; i < PEERS_MAX; i++) {
        struct peer *p = &t->peers[i];
        if (p->in_use)
            continue;
        *p = (struct peer){.in_use = true,
            .node = node,
            .frames_left = CONTROL_FRAMES,
            .bytes_left = CONTROL_BYTES};
        t->peer_count++;
        return p;
    }
    return NULL;
}

static bool netaddr_eq(struct netaddr a, struct netaddr b)
{
    return a.port == b.port && ipaddr_eq(a.ip, b.ip);
}

bool transport_set_peer(struct transport *t, const struct transport_peer *peer)
{
    struct peer *p = transport_find(t, peer->node);
    bool is_new = !p;
    if (peer->node == t->node || peer->address.port == UINT16_MAX ||
        is_key_of_other(t, peer->key, peer->node))
        return false;
    if (is_new && !(p = add_peer(t, peer->node)))
        return false;
    bool new_key = is_new || memcmp(p->key, peer->key, TRANSPORT_KEY_BYTES) != 0;
    if (!new_key && netaddr_eq(p->address, peer->address))
        return true;
    if (new_key) {
        if (!is_new)
            zap_forget(t->zap, p->key, ZAP_PEER);
        memcpy(p->key, peer->key, TRANSPORT_KEY_BYTES);
        zap_allow(t->zap, p->key, ZAP_PEER);
    }
    close_lanes(p);
    p->address = peer->address;
    open_lanes(t, p);
    timer_set(&t->more, loop_now(t->loop)); /* to say that the old connection is gone */
    return true;
}

void transport_remove_peer(struct transport *t, uint64_t node)
{
    struct peer *p = transport_find(t, node);
    if (!p)
        return;
    zap_forget(t->zap, p->key, ZAP_PEER);
    close_lanes(p);
    p->in_use = false;
    t->peer_count--;
}

/* --- guests --- */

static struct guest *find_guest(struct transport *t, const unsigned char *key)
{
    for (unsigned i = 0; i < GUESTS_MAX; i++)
        if (t->guests[i].in_use &&
            memcmp(t->guests[i].key, key, TRANSPORT_KEY_BYTES) == 0)
            return &t->guests[i];
    return NULL;
}

static void end_guest(struct transport *t, struct guest *g)
{
    zap_forget(t->zap, g->key, ZAP_GUEST);
    g->in_use = false;
}

bool transport_invite(struct transport *t, const unsigned char *key, struct mono until)
{
    struct guest *g = find_guest(t, key);
    for (unsigned i = 0; !g && i < GUESTS_MAX; i++)
        if (!t->guests[i].in_use)
            g = &t->guests[i];
    if (!g)
        return false;
    *g = (struct guest){.in_use = true, .until = until, .frames_left = GUEST_FRAMES};
    memcpy(g->key, key, TRANSPORT_KEY_BYTES);
    zap_allow(t->zap, key, ZAP_GUEST);
    return true;
}

void transport_uninvite(struct transport *t, const unsigned char *key)
{
    struct guest *g = find_guest(t, key);
    if (g)
        end_guest(t, g);
}

static void guest_out_send(struct guest_out *g)
{
    unsigned char type = FRAME_DATA;
    if (g->is_waiting && lane_send(&g->lane, slice_make(&type, 1),
                             slice_make(g->frame, g->len), slice_make("", 0))) {
        g->is_waiting = false;
        g->sent_at = mono_now();
    }
}

static void guest_out_close(struct guest_out *g)
{
    lane_close(&g->lane);
    free(g->frame);
    g->frame = NULL;
    g->is_waiting = false;
    explicit_bzero(&g->keys, sizeof(g->keys));
}

/* What left on a connection that broke soon after may not have arrived. What has rested
 * on its connection for a while has, and the invitation is not knocked with any longer.
 */
static void guest_out_tick(struct guest_out *g, struct mono now)
{
    if (g->lane.socket && !g->is_waiting && mono_diff_ms(now, g->sent_at) > GUEST_KEEP_MS)
        guest_out_close(g);
    else
        guest_out_send(g);
}

static bool is_same_host(const struct guest_out *g,
    const struct transport_keys *invitation, const struct transport_peer *host)
{
    return g->lane.socket && netaddr_eq(g->host.address, host->address) &&
           memcmp(g->host.key, host->key, TRANSPORT_KEY_BYTES) == 0 &&
           memcmp(g->keys.public_key, invitation->public_key, TRANSPORT_KEY_BYTES) == 0;
}

bool transport_send_as_guest(struct transport *t, const struct transport_keys *invitation,
    const struct transport_peer *host, struct slice frame)
{
    struct guest_out *g = &t->guest_out;
    if (frame.len == 0 || frame.len > TRANSPORT_GUEST_FRAME_MAX ||
        host->address.port == 0 || host->address.port == UINT16_MAX)
        return false;
    free(g->frame);
    g->frame = mem_alloc(frame.len);
    memcpy(g->frame, frame.ptr, frame.len);
    g->len = frame.len;
    g->is_waiting = true;
    if (!is_same_host(g, invitation, host)) {
        lane_close(&g->lane);
        g->keys = *invitation;
        g->host = *host;
        g->lane = (struct lane){.t = t, .which = TRANSPORT_CONTROL};
        lane_open(&g->lane, &g->keys, host->key, host->address);
    }
    guest_out_send(g);
    return true;
}

/* --- connections come and go --- */

/* Credit comes and goes on the control lane. When that had to connect anew, an older bulk
 * connection is dead or as good as dead: it is patient, and the kernel repeats ever more
 * seldom. It is opened anew from the next turn: this is called by its
 * monitor's kind. */
static void control_is_up(struct transport *t, struct peer *p)
{
    p->bulk_is_stale = p->lanes[TRANSPORT_BULK].is_connected && p->control_was_up;
    p->control_was_up = true;
    flow_ask(t, p);
    if (p->in.id.number != 0)
        flow_tell(t, p);
}

void transport_lane_changed(struct lane *lane)
{
    struct transport *t = lane->t;
    struct peer *p = lane->peer;
    if (!p) {
        struct guest_out *g = &t->guest_out;
        g->is_waiting = g->is_waiting || !lane->is_connected;
        guest_out_send(g);
        return;
    }
    if (lane->which == TRANSPORT_BULK && lane->is_connected)
        flow_begin(t, p);
    else if (lane->which == TRANSPORT_BULK)
        credit_out_end(&p->out);
    else if (lane->is_connected)
        control_is_up(t, p);
    /* Told from a turn of our own: the engine may remove the peer when it hears it. */
    timer_set(&t->more, loop_now(t->loop));
}

static void tell_links(struct transport *t)
{
    for (unsigned i = 0; i < PEERS_MAX; i++) {
        struct peer *p = &t->peers[i];
        bool is_up = p->lanes[TRANSPORT_CONTROL].is_connected;
        if (!p->in_use || p->told_up == is_up)
            continue;
        p->told_up = is_up;
        t->events->link(t->ctx, p->node, is_up);
    }
}

static void open_anew(struct peer *p, enum transport_lane which)
{
    struct lane *lane = &p->lanes[which];
    lane_close(lane);
    lane_open(lane, &lane->t->keys, p->key, p->address);
}

static void renew_bulk(struct transport *t)
{
    for (unsigned i = 0; i < PEERS_MAX; i++) {
        struct peer *p = &t->peers[i];
        if (!p->in_use || !p->bulk_is_stale)
            continue;
        p->bulk_is_stale = false;
        credit_out_end(&p->out);
        open_anew(p, TRANSPORT_BULK);
    }
}

static void more_fires(struct timer *timer)
{
    struct transport *t = CONTAINER_OF(timer, struct transport, more);
    guard_close_rude(t);
    renew_bulk(t);
    tell_links(t);
    scouts_tell(t);
    receive_turn(t);
}

static void router_ready(struct watcher *w, int what)
{
    (void)what;
    receive_turn(CONTAINER_OF(w, struct router, watch)->t);
}

/* It speaks to us, so it knows us now. A lane that it refused when it did not waits in
 * its handshake for seconds: it begins anew. Once for each silence, so that a handshake
 * which is only slow is not cut short again and again. */
void transport_heard(struct peer *p)
{
    struct mono before = p->heard;
    for (unsigned i = 0; i < TRANSPORT_LANES && p->address.port; i++)
        if (p->lanes[i].socket && !p->lanes[i].is_connected &&
            before.ns < p->lanes[i].since.ns)
            open_anew(p, (enum transport_lane)i);
    p->heard = mono_now();
}

/* --- every second --- */

static void reopen(struct lane *lane, const struct transport_keys *keys,
    const unsigned char *server_key, struct netaddr address, struct mono now)
{
    if (address.port == 0 || lane->is_connected ||
        mono_diff_ms(now, lane->since) < REOPEN_MS)
        return;
    lane_close(lane);
    lane_open(lane, keys, server_key, address);
}

static void tick_peer(struct transport *t, struct peer *p, struct mono now)
{
    p->frames_left = CONTROL_FRAMES;
    p->bytes_left = CONTROL_BYTES;
    for (unsigned i = 0; i < TRANSPORT_LANES; i++) {
        lane_look(&p->lanes[i]);
        reopen(&p->lanes[i], &t->keys, p->key, p->address, now);
    }
    flow_extend(t, p);
    flow_tick(t, p, now);
    lane_beat(&p->lanes[TRANSPORT_CONTROL]);
}

static void tick_guests(struct transport *t, struct mono now)
{
    for (unsigned i = 0; i < GUESTS_MAX; i++) {
        struct guest *g = &t->guests[i];
        g->frames_left = GUEST_FRAMES;
        if (g->in_use && now.ns >= g->until.ns)
            end_guest(t, g);
    }
    struct guest_out *g = &t->guest_out;
    if (g->is_waiting)
        reopen(&g->lane, &g->keys, g->host.key, g->host.address, now);
    guest_out_tick(g, now);
}

static void tick_fires(struct timer *timer)
{
    struct transport *t = CONTAINER_OF(timer, struct transport, tick);
    struct mono now = loop_now(t->loop);
    for (unsigned i = 0; i < PEERS_MAX; i++)
        if (t->peers[i].in_use)
            tick_peer(t, &t->peers[i], now);
    tick_guests(t, now);
    receive_log_refusals(t, now);
    scouts_tell(t);
    receive_turn(t); /* a wake-up that was lost costs a second, not a cluster */
    timer_set(&t->tick, mono_add_ms(loop_now(t->loop), TICK_MS));
}

/* --- beginning and end --- */

/* libzmq's sockets must not end up as somebody's standard error, and its own signal
 * descriptors abort the process when one of them is closed as such. */
static bool check_descriptors(char *why, size_t why_size)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0) {
            snprintf(why, why_size,
                "descriptor %d is closed; next step: start the daemon with it open, on "
                "/dev/null if need be",
                fd);
            return false;
        }
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < FILES_WANTED)
        log_say(LOG_EV_ALARM,
            "only %llu file descriptors allowed, a cluster of 100 wants %u and libzmq "
            "spins without; next step: raise LimitNOFILE (ulimit -n) to 65536",
            (unsigned long long)limit.rlim_cur, FILES_WANTED);
    return true;
}

static void set_context(void *zmq)
{
    bool ok = zmq && zmq_ctx_set(zmq, ZMQ_IO_THREADS, 2) == 0 &&
              zmq_ctx_set(zmq, ZMQ_MAX_SOCKETS, 4096) == 0;
    if (!ok)
        die("baton: libzmq cannot start: %s", zmq_strerror(zmq_errno()));
}

static void watch_router(struct transport *t, struct router *r)
{
    int fd = -1;
    size_t size = sizeof(fd);
    INVARIANT(zmq_getsockopt(r->socket, ZMQ_FD, &fd, &size) == 0);
    watcher_init(&r->watch, t->loop, fd, router_ready);
    watcher_set(&r->watch, WATCH_READ);
}

static void close_all(struct transport *t)
{
    guard_stop(t);
    for (unsigned i = 0; i < TRANSPORT_LANES; i++)
        if (t->routers[i].socket)
            zmq_close(t->routers[i].socket);
    zmq_ctx_shutdown(t->zmq);
    zap_stop(t->zap);
    while (zmq_ctx_term(t->zmq) != 0 && zmq_errno() == EINTR)
        continue;
    explicit_bzero(&t->keys, sizeof(t->keys));
    free(t);
}

static struct transport *make(const struct transport_settings *settings)
{
    struct transport *t = mem_zalloc(sizeof(*t));
    t->loop = settings->loop;
    t->keys = *settings->keys;
    t->node = settings->node;
    t->window_bytes = settings->window_bytes ? settings->window_bytes : WINDOW_BYTES;
    t->window_all_bytes =
        settings->window_all_bytes ? settings->window_all_bytes : WINDOW_ALL_BYTES;
    t->instance = random_u64();
    for (unsigned i = 0; i < TRANSPORT_LANES; i++) {
        t->routers[i].t = t;
        t->routers[i].which = (enum transport_lane)i;
    }
    t->zmq = zmq_ctx_new();
    set_context(t->zmq);
    return t;
}

static bool start(struct transport *t, struct netaddr listen, char *why, size_t why_size)
{
    if (listen.ip.family == 0 || listen.port == UINT16_MAX) {
        snprintf(why, why_size,
            "no address to listen at, or one whose next port does not "
            "exist; next step: check cluster.listen");
        return false;
    }
    t->zap = zap_start(t->zmq, why, why_size);
    return t->zap && transport_bind(t, listen, why, why_size) &&
           guard_start(t, why, why_size) && transport_self_test(t, why, why_size);
}

struct transport *transport_new(const struct transport_settings *settings,
    const struct transport_events *events, void *ctx, char *why, size_t why_size)
{
    if (!check_descriptors(why, why_size))
        return NULL;
    struct transport *t = make(settings);
    t->events = events;
    t->ctx = ctx;
    if (!start(t, settings->listen, why, why_size)) {
        close_all(t);
        return NULL;
    }
    char address[64];
    t->logged_keys = zap_refused(t->zap, address);
    for (unsigned i = 0; i < TRANSPORT_LANES; i++)
        watch_router(t, &t->routers[i]);
    timer_init(&t->more, t->loop, more_fires);
    timer_init(&t->tick, t->loop, tick_fires);
    timer_set(&t->more, loop_now(t->loop));
    timer_set(&t->tick, mono_add_ms(loop_now(t->loop), TICK_MS));
    return t;
}

void transport_free(struct transport *t)
{
    if (!t)
        return;
    timer_fini(&t->more);
    timer_fini(&t->tick);
    for (unsigned i = 0; i < TRANSPORT_LANES; i++)
        watcher_fini(&t->routers[i].watch);
    for (unsigned i = 0; i < PEERS_MAX; i++)
        if (t->peers[i].in_use)
            close_lanes(&t->peers[i]);
    guest_out_close(&t->guest_out);
    scouts_close(t);
    close_all(t);
}

struct netaddr transport_address(const struct transport *t)
{
    return t->address;
}

/* --- sending --- */

static bool send_bulk(
    struct transport *t, struct peer *p, struct slice head, struct slice tail)
{
    unsigned char front[HEAD_BULK] = {FRAME_DATA};
    uint64_t size = head.len + tail.len;
    (void)t;
    if (credit_out_room(&p->out) < size || !p->lanes[TRANSPORT_CONTROL].is_connected)
        return false;
    put_u64(front + 1, p->out.id.instance);
    put_u64(front + 9, p->out.id.number);
    put_u64(front + 17, p->out.sent);
    if (!lane_send(
            &p->lanes[TRANSPORT_BULK], slice_make(front, sizeof(front)), head, tail))
        return false;
    p->out.sent += size;
    return true;
}

bool transport_send(struct transport *t, uint64_t node, enum transport_lane lane,
    struct slice head, struct slice tail)
{
    static const unsigned char type = FRAME_DATA;
    struct peer *p = transport_find(t, node);
    bool ok = p && head.len <= TRANSPORT_FRAME_MAX && tail.len <= TRANSPORT_FRAME_MAX &&
              head.len + tail.len > 0 && head.len + tail.len <= TRANSPORT_FRAME_MAX;
    if (ok && lane == TRANSPORT_BULK)
        ok = send_bulk(t, p, head, tail);
    else if (ok)
        ok = lane_send(
            &p->lanes[TRANSPORT_CONTROL], slice_make(&type, HEAD_CONTROL), head, tail);
    if (!ok) {
        t->stats.dropped_full++;
        return false;
    }
    t->stats.frames_out++;
    t->stats.bytes_out += head.len + tail.len;
    return true;
}

uint64_t transport_room(const struct transport *t, uint64_t node)
{
    unsigned i = index_of(t, node);
    return i < PEERS_MAX && t->peers[i].lanes[TRANSPORT_CONTROL].is_connected
               ? credit_out_room(&t->peers[i].out)
               : 0;
}

void transport_consumed(struct transport *t, uint64_t node, uint64_t bytes)
{
    struct peer *p = transport_find(t, node);
    if (!p)
        return;
    credit_in_consumed(&p->in, bytes);
    flow_extend(t, p);
}

/* --- for status --- */

void transport_stats(const struct transport *t, struct transport_stats *out)
{
    char address[64];
    *out = t->stats;
    out->refused_keys = zap_refused(t->zap, address);
    out->peers = t->peer_count;
    for (unsigned i = 0; i < PEERS_MAX; i++)
        out->connected +=
            t->peers[i].in_use && t->peers[i].lanes[TRANSPORT_CONTROL].is_connected;
}

struct mono transport_last_heard(const struct transport *t, uint64_t node)
{
    unsigned i = index_of(t, node);
    return i < PEERS_MAX ? t->peers[i].heard : (struct mono){0};
}
