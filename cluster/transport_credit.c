/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/transport_credit.h"

/* Longer than any connection lives whose other end takes nothing: by then heartbeats have
 * ended it, and a new connection is a new stream anyway. This is for what the receiver
 * threw away on a connection that lived on. */
#define STUCK_MS 20000

static bool same(struct stream_id a, struct stream_id b)
{
    return a.instance == b.instance && a.number == b.number;
}

void credit_out_begin(struct credit_out *out, struct stream_id id, struct mono now)
{
    *out = (struct credit_out){.id = id, .seen_at = now};
}

void credit_out_end(struct credit_out *out)
{
    *out = (struct credit_out){{0, 0}, 0, 0, 0, {0}};
}

uint64_t credit_out_room(const struct credit_out *out)
{
    return out->limit > out->sent ? out->limit - out->sent : 0;
}

void credit_out_grant(struct credit_out *out, struct stream_id id, uint64_t limit,
    uint64_t seen, struct mono now)
{
    if (out->id.number == 0 || !same(out->id, id))
        return;
    if (limit > out->limit)
        out->limit = limit;
    if (seen > out->seen || seen >= out->sent) {
        out->seen = seen;
        out->seen_at = now;
    }
}

bool credit_out_wants_word(const struct credit_out *out)
{
    return out->id.number != 0 && (out->limit == 0 || out->sent > out->seen);
}

bool credit_out_is_stuck(const struct credit_out *out, struct mono now)
{
    return out->id.number != 0 && out->sent > out->seen &&
           mono_diff_ms(now, out->seen_at) > STUCK_MS;
}

bool credit_in_open(struct credit_in *in, struct stream_id id, uint64_t sent)
{
    if (id.number == 0)
        return false;
    if (same(in->id, id))
        return true;
    if (in->id.instance == id.instance && id.number < in->id.number)
        return false;
    in->id = id;
    in->high = in->limit = in->told = sent;
    return true;
}

enum credit_verdict credit_in_take(
    struct credit_in *in, struct stream_id id, uint64_t offset, uint64_t len)
{
    if (id.number == 0 || !same(in->id, id))
        return CREDIT_STRANGE;
    if (offset < in->high)
        return CREDIT_LATE;
    if (offset > in->limit || len > in->limit - offset)
        return CREDIT_OVER;
    in->high = offset + len;
    in->held += len;
    return CREDIT_OK;
}

void credit_in_consumed(struct credit_in *in, uint64_t bytes)
{
    in->held -= bytes < in->held ? bytes : in->held;
}

uint64_t credit_in_committed(const struct credit_in *in)
{
    return in->held + (in->limit - in->high);
}

void credit_in_extend(struct credit_in *in, uint64_t window, uint64_t spare)
{
    uint64_t committed = credit_in_committed(in);
    if (in->id.number == 0 || committed >= window)
        return;
    uint64_t more = window - committed < spare ? window - committed : spare;
    /* Numbers wrap only for a sender who began the stream near the end of them. */
    in->limit += more < UINT64_MAX - in->limit ? more : UINT64_MAX - in->limit;
}

bool credit_in_is_worth_telling(const struct credit_in *in, uint64_t window)
{
    return in->limit - in->told > 0 && in->limit - in->told >= window / 8;
}
