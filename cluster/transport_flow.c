/* SPDX-License-Identifier: Apache-2.0 */
/* Credit over the lanes: the sender opens a stream on each new bulk connection and asks
 * while it waits, the receiver tells how far it may go. A frame of either that is lost
 * costs a second, no more. */
#include "cluster/transport_internal.h"

static bool send_words(
    struct peer *p, enum frame_type type, const uint64_t *words, unsigned count)
{
    unsigned char frame[1 + 4 * 8] = {(unsigned char)type};
    for (unsigned i = 0; i < count; i++)
        put_u64(frame + 1 + 8 * i, words[i]);
    struct slice none = slice_make("", 0);
    return lane_send(
        &p->lanes[TRANSPORT_CONTROL], slice_make(frame, 1 + 8 * count), none, none);
}

void flow_ask(struct transport *t, struct peer *p)
{
    (void)t;
    uint64_t words[] = {p->out.id.instance, p->out.id.number, p->out.sent};
    if (p->out.id.number != 0)
        send_words(p, FRAME_OPEN, words, 3);
}

void flow_begin(struct transport *t, struct peer *p)
{
    struct stream_id id = {t->instance, ++t->next_stream};
    credit_out_begin(&p->out, id, mono_now());
    flow_ask(t, p);
}

/* --- the receiver --- */

/* All peers share window_all_bytes: a peer's own window shrinks as they become many, and
 * no promise is made that the others' leave no room for. */
static uint64_t window_of_each(const struct transport *t)
{
    uint64_t share = t->window_all_bytes / (t->peer_count ? t->peer_count : 1);
    return share < t->window_bytes ? share : t->window_bytes;
}

static uint64_t spare(const struct transport *t)
{
    uint64_t committed = 0;
    for (unsigned i = 0; i < PEERS_MAX; i++)
        if (t->peers[i].in_use)
            committed += credit_in_committed(&t->peers[i].in);
    return committed < t->window_all_bytes ? t->window_all_bytes - committed : 0;
}

void flow_tell(struct transport *t, struct peer *p)
{
    (void)t;
    uint64_t words[] = {p->in.id.instance, p->in.id.number, p->in.limit, p->in.high};
    p->owes_credit = !send_words(p, FRAME_CREDIT, words, 4);
    if (!p->owes_credit)
        p->in.told = p->in.limit;
}

void flow_extend(struct transport *t, struct peer *p)
{
    uint64_t window = window_of_each(t);
    credit_in_extend(&p->in, window, spare(t));
    if (credit_in_is_worth_telling(&p->in, window))
        flow_tell(t, p);
}

static bool get_words(struct slice frame, uint64_t *words, unsigned count)
{
    if (frame.len != 1 + 8 * (size_t)count)
        return false;
    for (unsigned i = 0; i < count; i++)
        words[i] = get_u64(frame.ptr + 1 + 8 * i);
    return true;
}

void flow_frame(struct transport *t, struct peer *p, struct slice frame)
{
    uint64_t w[4];
    if (frame.ptr[0] == FRAME_OPEN && get_words(frame, w, 3)) {
        /* An old stream is answered too: with the word on the present one it does
         * nothing, and of no stream there is nothing to say. */
        if (credit_in_open(&p->in, (struct stream_id){w[0], w[1]}, w[2])) {
            credit_in_extend(&p->in, window_of_each(t), spare(t));
            flow_tell(t, p);
        }
    } else if (frame.ptr[0] == FRAME_CREDIT && get_words(frame, w, 4)) {
        credit_out_grant(&p->out, (struct stream_id){w[0], w[1]}, w[2], w[3], mono_now());
    } else {
        t->stats.refused_frames++;
    }
}

void flow_tick(struct transport *t, struct peer *p, struct mono now)
{
    if (credit_out_is_stuck(&p->out, now))
        flow_begin(t, p);
    else if (credit_out_wants_word(&p->out))
        flow_ask(t, p);
    if (p->owes_credit || p->in.limit > p->in.told)
        flow_tell(t, p);
}
