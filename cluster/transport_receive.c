/* SPDX-License-Identifier: Apache-2.0 */
/* Frames in. libzmq's descriptor tells of news once, and any call on the socket may eat
 * it: so each turn reads until there is no more or its budget is used up, and then comes
 * back by a timer, behind the loop's other work. Reading until EAGAIN also keeps away
 * from ZMQ_EVENTS, whose look ahead loses a routing id's User-Id in 4.3.4. */
#include <errno.h>
#include <zmq.h>

#include "base/alloc.h"
#include "base/log.h"
#include "cluster/transport_internal.h"

#define LOG_EVERY_MS 60000
#define LOG_BURST 5

static struct peer *peer_of_key(struct transport *t, const unsigned char *key)
{
    for (unsigned i = 0; i < PEERS_MAX; i++)
        if (t->peers[i].in_use && memcmp(t->peers[i].key, key, TRANSPORT_KEY_BYTES) == 0)
            return &t->peers[i];
    return NULL;
}

static struct guest *guest_of_key(struct transport *t, const unsigned char *key)
{
    for (unsigned i = 0; i < GUESTS_MAX; i++)
        if (t->guests[i].in_use &&
            memcmp(t->guests[i].key, key, TRANSPORT_KEY_BYTES) == 0)
            return &t->guests[i];
    return NULL;
}

static void refuse(struct transport *t)
{
    t->stats.refused_frames++;
}

static void refuse_from(struct transport *t, const struct peer *p)
{
    refuse(t);
    t->refused_from = p->address;
}

/* The callback may change the peers: nothing of `p` is touched behind it. */
static void hand_up(
    struct transport *t, struct peer *p, enum transport_lane lane, struct slice payload)
{
    t->stats.frames_in++;
    t->stats.bytes_in += payload.len;
    t->events->frame(t->ctx, p->node, lane, payload);
}

static void control_frame(struct transport *t, struct peer *p, struct slice frame)
{
    if (p->frames_left == 0 || p->bytes_left < frame.len) {
        refuse_from(t, p);
        return;
    }
    p->frames_left--;
    p->bytes_left -= frame.len;
    if (frame.ptr[0] == FRAME_BEAT && frame.len == 1)
        return; /* that it came is all it says */
    if (frame.ptr[0] != FRAME_DATA)
        flow_frame(t, p, frame);
    else if (frame.len - HEAD_CONTROL > TRANSPORT_FRAME_MAX || frame.len == HEAD_CONTROL)
        refuse_from(t, p);
    else
        hand_up(t, p, TRANSPORT_CONTROL, slice_from(frame, HEAD_CONTROL));
}

static void bulk_frame(struct transport *t, struct peer *p, struct slice frame)
{
    if (frame.ptr[0] != FRAME_DATA || frame.len <= HEAD_BULK ||
        frame.len - HEAD_BULK > TRANSPORT_FRAME_MAX) {
        refuse_from(t, p);
        return;
    }
    struct stream_id id = {get_u64(frame.ptr + 1), get_u64(frame.ptr + 9)};
    uint64_t offset = get_u64(frame.ptr + 17);
    struct slice payload = slice_from(frame, HEAD_BULK);
    enum credit_verdict verdict = credit_in_take(&p->in, id, offset, payload.len);
    if (verdict == CREDIT_OK) {
        hand_up(t, p, TRANSPORT_BULK, payload);
        return;
    }
    refuse_from(t, p);
    /* What a reconnect leaves behind is counted, and not worth a line in the log. */
    t->logged_frames += verdict != CREDIT_OVER;
}

static void guest_frame(struct transport *t, const struct router *r,
    const unsigned char *key, struct slice frame)
{
    struct guest *g = guest_of_key(t, key);
    if (!g || r->which != TRANSPORT_CONTROL || g->frames_left == 0 ||
        mono_now().ns >= g->until.ns || frame.ptr[0] != FRAME_DATA ||
        frame.len > TRANSPORT_GUEST_FRAME_MAX + HEAD_CONTROL ||
        frame.len == HEAD_CONTROL) {
        refuse(t);
        return;
    }
    g->frames_left--;
    t->stats.frames_in++;
    t->stats.bytes_in += frame.len - HEAD_CONTROL;
    t->events->guest(t->ctx, key, slice_from(frame, HEAD_CONTROL));
}

/* Who sent it is read on the payload itself, and judged by the peers of this moment: the
 * handshake may be hours old. */
static void payload(struct transport *t, const struct router *r, zmq_msg_t *msg)
{
    unsigned char key[TRANSPORT_KEY_BYTES];
    struct slice frame = slice_make(zmq_msg_data(msg), zmq_msg_size(msg));
    guard_heard(t, zmq_msg_get(msg, ZMQ_SRCFD), frame.len);
    if (frame.len == 0 || !zap_user_parse(zmq_msg_gets(msg, "User-Id"), key)) {
        refuse(t);
        return;
    }
    struct peer *p = peer_of_key(t, key);
    if (!p) {
        guest_frame(t, r, key, frame);
        return;
    }
    transport_heard(p);
    if (r->which == TRANSPORT_CONTROL)
        control_frame(t, p, frame);
    else
        bulk_frame(t, p, frame);
}

/* A part of [routing id, payload]. More parts than that are nobody's of ours. */
static void part(struct transport *t, struct router *r, zmq_msg_t *msg)
{
    bool more = zmq_msg_more(msg) != 0;
    if (r->state == ROUTER_PAYLOAD && !more)
        payload(t, r, msg);
    else if (r->state == ROUTER_PAYLOAD)
        refuse(t);
    if (!more)
        r->state = ROUTER_ID;
    else
        r->state = r->state == ROUTER_ID ? ROUTER_PAYLOAD : ROUTER_DRAIN;
}

/* False: the budget is used up and there may be more. */
static bool drain(struct transport *t, struct router *r)
{
    size_t bytes = 0;
    zmq_msg_t msg;
    for (unsigned parts = 0; parts < 2 * TURN_FRAMES && bytes < TURN_BYTES; parts++) {
        zmq_msg_init(&msg);
        if (zmq_msg_recv(&msg, r->socket, ZMQ_DONTWAIT) < 0) {
            INVARIANT(zmq_errno() == EAGAIN || zmq_errno() == EINTR);
            bool is_empty = zmq_errno() == EAGAIN;
            if (is_empty)
                guard_drained(t, r->which);
            zmq_msg_close(&msg);
            return is_empty;
        }
        bytes += zmq_msg_size(&msg);
        part(t, r, &msg);
        zmq_msg_close(&msg);
    }
    return false;
}

void receive_turn(struct transport *t)
{
    bool is_done = drain(t, &t->routers[TRANSPORT_CONTROL]);
    is_done = drain(t, &t->routers[TRANSPORT_BULK]) && is_done;
    if (!is_done)
        timer_set(&t->more, loop_now(t->loop));
}

/* A stranger that knocks every second is one line a minute, after the first few: members
 * that join are strangers for a moment, and must not hide who comes next. */
void receive_log_refusals(struct transport *t, struct mono now)
{
    char address[64], cut_from[NETADDR_TEXT_MAX], member[NETADDR_TEXT_MAX];
    uint64_t keys = zap_refused(t->zap, address) - t->logged_keys;
    uint64_t frames = t->stats.refused_frames - t->logged_frames;
    uint64_t cut = guard_cut(t, cut_from) - t->logged_cut;
    if (mono_diff_ms(now, t->log_since) >= LOG_EVERY_MS) {
        t->log_since = now;
        t->logged -= t->logged > 0;
    }
    if ((keys == 0 && frames == 0 && cut == 0) || t->logged >= LOG_BURST)
        return;
    struct record r;
    record_init(&r, LOG_EV_PEER_REFUSED);
    record_int(&r, "handshakes", (int64_t)keys);
    record_int(&r, "frames", (int64_t)frames);
    record_int(&r, "connections", (int64_t)cut);
    if (keys > 0)
        record_str(&r, "last_from", address);
    if (frames > 0 && t->refused_from.ip.family) {
        netaddr_format(t->refused_from, member);
        record_str(&r, "member", member);
    }
    if (cut > 0)
        record_str(&r, "cut", cut_from);
    record_str(&r, "next_step",
        frames > 0 || cut > 0
            ? "see what runs there: a batond of this cluster sends no such thing"
            : "let members alone reach the cluster's ports; a member is refused while "
              "it joins");
    record_emit(&r);
    t->logged_keys += keys;
    t->logged_frames += frames;
    t->logged_cut += cut;
    t->logged++;
}
