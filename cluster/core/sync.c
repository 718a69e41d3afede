/* SPDX-License-Identifier: Apache-2.0 */
/* SYNC after a start, and anti-entropy: streams of records between two nodes. */
#include "cluster/core/internal.h"

#include <string.h>

#define RETRY_NS CORE_SEC

/* ---- who must be asked ---- */

bool sync_clear(const struct core *core, uint8_t slot)
{
    const struct peer *p = &core->peer[slot];
    return slot == core->self || !peer_member(core, slot) || p->known == 0 || p->synced ||
           peer_down(core, slot);
}

/* Of any two live sessions the later one has read the earlier one from the voter quorum,
 * so the later one asks. */
void sync_check(struct core *core)
{
    if (core->state != CORE_SYNC)
        return;
    for (uint8_t i = 1; i <= core->peer_count; i++)
        if (!sync_clear(core, i))
            return;
    core->state = CORE_READY;
    core->blind = false;
    sweep_all(core);
}

static void sync_progress(struct core *core, uint8_t slot)
{
    struct peer *p = &core->peer[slot];
    if (!p->synced && p->sync_in_done && p->out.finished && p->out.end_acked) {
        p->synced = true;
        sync_check(core);
    }
}

/* ---- the stream out ---- */

void sync_stream(struct core *core, uint8_t slot, uint64_t buckets)
{
    struct sync_out *o = &core->peer[slot].out;
    uint32_t serial = ++core->serial;
    memset(o, 0, sizeof(*o));
    o->active = true;
    o->serial = serial;
    o->buckets = buckets;
}

static bool wanted(
    const struct core *core, const struct unit *u, uint8_t slot, uint64_t buckets)
{
    (void)core;
    int i = unit_list_find(u, slot);
    if (!(u->flags & UF_USED) || (u->flags & UF_ACCEPTING) || i < 0)
        return false;
    if (buckets != ~UINT64_C(0) && unit_without(u, i))
        return false; /* it said that it has none */
    unsigned bucket = (u->id_lo ^ u->id_hi >> 16 ^ u->id_part) % CORE_DIGEST_ROWS;
    return buckets >> bucket & 1;
}

/* The answer says whether the peer knows the unit: sync_ack. */
void sync_ask(struct core *core, uint8_t slot, const struct unit *u)
{
    struct core_msg m = {.kind = MSG_SYNC_REC};
    unit_row_out(core, u, &m.u.unit.row);
    core_send(core, slot, &m);
}

static bool fill_window(struct core *core, uint8_t slot)
{
    struct sync_out *o = &core->peer[slot].out;
    bool waiting = false;
    for (int i = 0; i < SYNC_WINDOW; i++) {
        while (!o->window[i].used && o->cursor < core->unit_high) {
            const struct unit *u = &core->unit[o->cursor++];
            if (!wanted(core, u, slot, o->buckets))
                continue;
            o->window[i].used = true;
            o->window[i].id = unit_id(u);
            o->window[i].sent_at = core->now;
            sync_ask(core, slot, u);
        }
        waiting |= o->window[i].used;
    }
    return waiting;
}

static void resend(struct core *core, uint8_t slot)
{
    struct sync_out *o = &core->peer[slot].out;
    for (int i = 0; i < SYNC_WINDOW; i++) {
        if (!o->window[i].used || core->now < o->window[i].sent_at + RETRY_NS)
            continue;
        const struct unit *u = unit_find(core, &o->window[i].id);
        o->window[i].sent_at = core->now;
        if (u)
            sync_ask(core, slot, u);
        else
            o->window[i].used = false; /* forgotten meanwhile */
    }
}

static void stream_step(struct core *core, uint8_t slot)
{
    struct sync_out *o = &core->peer[slot].out;
    if (!o->active || peer_down(core, slot))
        return;
    resend(core, slot);
    bool waiting = fill_window(core, slot);
    if (waiting || core->now < o->retry_at)
        return;
    o->finished = true;
    o->retry_at = core->now + RETRY_NS;
    struct core_msg m = {.kind = MSG_SYNC_END};
    m.u.sync.serial = o->serial;
    m.u.sync.count = core->peer[slot].sync_epoch;
    core_send(core, slot, &m);
}

void sync_ack(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    const struct msg_unit *a = &msg->u.unit;
    struct sync_out *o = &core->peer[slot].out;
    struct unit *u = unit_find(core, &a->row.id);
    for (int i = 0; i < SYNC_WINDOW; i++)
        if (o->window[i].used &&
            memcmp(&o->window[i].id, &a->row.id, sizeof(a->row.id)) == 0)
            o->window[i].used = false;
    /* Said to us as the owner that we were when we asked, it keeps no copy out: whoever
     * owns the unit now may have sent one since. */
    bool stale = u && a->row.owner == core->node && u->owner != core->self;
    if (u && a->answer == ANS_UNKNOWN && !stale)
        sync_unknown(core, slot, u);
    else if (u && a->answer == ANS_OK) {
        unit_heard_of(core, u, slot, msg->env.from_epoch);
        sync_merge(core, u, &a->row);
    }
    stream_step(core, slot);
}

/* The peer has no record. Ignorance never deletes mail: it counts as consent of an owner
 * and as release of a holder. */
void sync_unknown(struct core *core, uint8_t slot, struct unit *u)
{
    int i = unit_list_find(u, slot);
    if (unit_believes(core, u)) {
        if (i >= 0 && unit_status(u, i) == LIST_HOLD)
            unit_set_status(u, i, LIST_PENDING);
        unit_review(core, u);
        return;
    }
    if (u->owner != slot) {
        /* the owner may be about to send it a copy, so the name stays: an heir asks it */
        if (i >= 0 && unit_status(u, i) != LIST_RELEASING) {
            unit_mark(core, u, i, LIST_RELEASING);
            unit_store(core, u, 0);
        }
        return;
    }
    if (u->state != UNIT_LIVE || MUT(core, MUT_UNKNOWN_DELETES)) {
        struct core_unit_id id =
            unit_id(u); /* its owner forgot it: all have acknowledged */
        unit_store_delete(core, u);
        unit_drop(core, u);
        grave_dig(core, &id);
        return;
    }
    SOMETIMES(core, ST_CLAIM_UNKNOWN);
    claim_start(core, u, true, false);
}

void sync_merge(struct core *core, struct unit *u, const struct unit_row *row)
{
    if (unit_merge(core, u, row))
        unit_store(core, u, 0);
    struct work *w = work_of(core, u);
    if (w && w->kind == WORK_CLAIM && u->state == UNIT_LIVE)
        work_wake(core, w, w->wake_at);
    unit_review(core, u);
}

void sync_done(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    struct sync_out *o = &core->peer[slot].out;
    if (!o->active || msg->u.sync.serial != o->serial || !o->finished)
        return;
    o->active = false;
    o->end_acked = true;
    sync_progress(core, slot);
}

/* ---- the stream in ---- */

void sync_req(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    struct peer *p = &core->peer[slot];
    (void)msg;
    if (p->out.active && p->sync_epoch == msg->env.from_epoch)
        return; /* already at it */
    if (p->sync_epoch == msg->env.from_epoch && p->out.end_acked &&
        p->out.serial == msg->u.sync.serial)
        return;
    p->sync_epoch = msg->env.from_epoch;
    sync_stream(core, slot, ~UINT64_C(0));
    stream_step(core, slot);
}

void sync_rec(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    const struct unit_row *row = &msg->u.unit.row;
    struct unit *u = unit_find(core, &row->id);
    struct core_msg m = {.kind = MSG_SYNC_ACK};
    unit_evidence(core, row);
    if (core->state < CORE_SYNC)
        return;
    if (u && ((u->flags & UF_ACCEPTING) || unit_settling(u)))
        return;
    m.u.unit.answer = u ? ANS_OK : ANS_UNKNOWN;
    m.u.unit.row.id = row->id;
    m.u.unit.row.owner = row->owner;
    if (u) {
        if (u->owner == slot && row->owner == msg->env.from)
            u->flags &= (uint16_t)~UF_BEFORE;
        unit_heard_of(core, u, slot, msg->env.from_epoch);
        sync_merge(core, u, row);
        u = unit_find(core, &row->id);
    } else if (row->owner != msg->env.from) {
        /* for the sender we are as good as released: what is still on its way must not
         * come in. The owner keeps our name, and sends another copy. */
        grave_dig_open(core, &row->id);
    }
    if (u)
        unit_row_out(core, u, &m.u.unit.row);
    core_send_after(core, core->token_last, slot, &m);
}

void sync_end(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    struct core_msg m = {.kind = MSG_SYNC_DONE};
    m.u.sync.serial = msg->u.sync.serial;
    core_send_after(core, core->token_last, slot, &m);
    if (msg->u.sync.count != core->epoch)
        return; /* a stream that was meant for an older session of ours, or a partial one
                 */
    core->peer[slot].sync_in_done = true;
    sync_progress(core, slot);
}

static void request(struct core *core, uint8_t slot)
{
    struct peer *p = &core->peer[slot];
    p->sync_req_at = core->now + RETRY_NS;
    if (!p->out.active && !p->out.finished)
        sync_stream(core, slot, ~UINT64_C(0));
    if (p->sync_in_done)
        return;
    struct core_msg m = {.kind = MSG_SYNC_REQ};
    core_send(core, slot, &m);
}

/* No table tells static voters of each other: they ask before they are spoken to (M). */
static bool not_met(const struct core *core, uint8_t slot)
{
    return slot != core->self && config_static(core) && is_voter(core, slot) &&
           !core->peer[slot].synced && !peer_down(core, slot);
}

void sync_timer(struct core *core)
{
    if (core->now < core->sync_due)
        return;
    bool busy = core->state == CORE_SYNC;
    for (uint8_t i = 1; i <= core->peer_count && !core_out_full(core); i++) {
        struct peer *p = &core->peer[i];
        if ((!sync_clear(core, i) || not_met(core, i)) && core->now >= p->sync_req_at)
            request(core, i);
        if (p->out.active)
            stream_step(core, i);
        busy |= p->out.active;
    }
    core->sync_due = core->now + (busy ? 100 * CORE_MS : CORE_SEC);
}

/* ---- digests ---- */

static void send_digest(struct core *core, uint8_t slot)
{
    struct core_msg m = {.kind = MSG_DIGEST};
    memcpy(m.u.sync.bucket, core->peer[slot].digest, sizeof(m.u.sync.bucket));
    core_send(core, slot, &m);
}

void digest_timer(struct core *core)
{
    if (core->now < core->digest_at || core->state != CORE_READY)
        return;
    core->digest_at = core->now + core->p.digest_ns / 8;
    for (uint8_t i = 1; i <= core->peer_count && !core_out_full(core); i++) {
        struct peer *p = &core->peer[i];
        if (i == core->self || peer_down(core, i) || core->now < p->digest_at)
            continue;
        p->digest_at =
            core->now + core->p.digest_ns + core_below(core, core->p.digest_ns / 8);
        send_digest(core, i);
    }
}

/* Differences that are seen twice are not just on their way. */
void digest_recv(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    struct peer *p = &core->peer[slot];
    uint64_t differs = 0;
    for (unsigned i = 0; i < CORE_DIGEST_ROWS; i++)
        if (p->digest[i] != msg->u.sync.bucket[i])
            differs |= UINT64_C(1) << i;
    if (differs && (p->digest_differs & differs) && core->state == CORE_READY &&
        !p->out.active && sync_clear(core, slot)) {
        SOMETIMES(core, ST_DIGEST_DIFF);
        p->sync_epoch = 0;
        sync_stream(core, slot, p->digest_differs & differs);
        stream_step(core, slot);
    }
    p->digest_differs = (uint16_t)differs;
}
