/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows that only their actor writes, spread by push-pull: a digest of newest versions,
 * then what is missing, in the order of versions and without gaps. The carrier of
 * reputation, load and node state; the core does not look into values.
 */
#include "cluster/core/internal.h"

#include <string.h>

#define DELTA_FRAMES 8 /* of CORE_GOSSIP_ROWS rows, at most, for one digest */

static struct gossip_cell *find(struct core *core, uint8_t slot, uint32_t key)
{
    for (uint32_t i = 0; i < core->cell_count; i++)
        if (core->cell[i].slot == slot && core->cell[i].row.key == key)
            return &core->cell[i];
    return NULL;
}

const struct gossip_row *gossip_find(const struct core *core, uint8_t slot, uint32_t key)
{
    for (uint32_t i = 0; i < core->cell_count; i++)
        if (core->cell[i].slot == slot && core->cell[i].row.key == key)
            return &core->cell[i].row;
    return NULL;
}

static struct gossip_cell *find_or_new(struct core *core, uint8_t slot, uint32_t key)
{
    struct gossip_cell *c = find(core, slot, key);
    uint32_t share = core->limits.gossip_rows / (core->cfg.count ? core->cfg.count : 1);
    if (c)
        return c;
    /* a broken node cannot blow up the others: each actor has its share of the cells */
    if (core->cell_count == core->limits.gossip_rows ||
        core->peer[slot].actor_rows >= (share ? share : 1))
        return NULL;
    c = &core->cell[core->cell_count++];
    memset(c, 0, sizeof(*c));
    c->slot = slot;
    c->row.actor = core->peer[slot].node;
    c->row.key = key;
    core->peer[slot].actor_rows++;
    return c;
}

/* A change goes to three nodes at once: the first rounds of its way are saved. */
static void push(struct core *core, const struct gossip_row *r)
{
    struct core_msg m = {.kind = MSG_GOSSIP_DELTA};
    m.u.gossip.after = r->version - 1;
    m.u.gossip.count = 1;
    m.u.gossip.u.row[0] = *r;
    for (int n = 0; n < 3 && core->state >= CORE_OPENING; n++) {
        uint8_t to = (uint8_t)(1 + core_below(core, core->peer_count));
        if (core->peer[to].swim == SWIM_ALIVE)
            core_send(core, to, &m);
    }
}

void gossip_row(struct core *core, uint32_t key, const uint8_t *value, uint8_t length)
{
    struct gossip_cell *c = find_or_new(core, core->self, key);
    if (!c || length > CORE_GOSSIP_VALUE)
        return;
    if (c->row.version && c->row.length == length &&
        memcmp(c->row.value, value, length) == 0)
        return;
    c->row.length = length;
    memcpy(c->row.value, value, length);
    c->row.version = ++core->row_version;
    c->row.epoch = core->epoch;
    if (core->peer[core->self].actor_epoch == core->epoch) {
        core->peer[core->self].actor_version = core->row_version;
        push(core, &c->row);
    }
}

/* A new session publishes all its rows anew. */
static void own_rows(struct core *core)
{
    struct peer *p = &core->peer[core->self];
    if (p->actor_epoch == core->epoch) {
        p->actor_version = core->row_version;
        return;
    }
    p->actor_epoch = core->epoch;
    core->row_version = 0;
    for (uint32_t i = 0; i < core->cell_count; i++)
        if (core->cell[i].slot == core->self) {
            core->cell[i].row.epoch = core->epoch;
            core->cell[i].row.version = ++core->row_version;
        }
    p->actor_version = core->row_version;
}

/* ---- digests ---- */

static void send_digest(struct core *core, uint8_t to, uint8_t start, bool reply)
{
    struct core_msg m = {.kind = MSG_GOSSIP_DIGEST};
    m.u.gossip.start = start;
    m.u.gossip.reply_wanted = reply;
    for (uint8_t i = start; i <= core->peer_count && m.u.gossip.count < CORE_DIGEST_ROWS;
         i++)
        m.u.gossip.u.digest[m.u.gossip.count++] = (struct gossip_digest){
            core->peer[i].node, core->peer[i].actor_epoch, core->peer[i].actor_version};
    if (m.u.gossip.count)
        core_send(core, to, &m);
}

void gossip_timer(struct core *core)
{
    if (core->now < core->gossip_at)
        return;
    /* twice an interval: with one exchange a second and 10 % loss the last of a hundred
     * nodes had a row only after 14 s */
    core->gossip_at = core->now + core->p.gossip_ns / 2;
    own_rows(core);
    if (core->peer_count < 2 || core->cell_count == 0)
        return;
    uint8_t at = (uint8_t)core_below(core, core->peer_count);
    for (uint8_t k = 0; k < core->peer_count; k++) {
        uint8_t to = (uint8_t)((at + k) % core->peer_count + 1);
        if (to == core->self || !peer_member(core, to) ||
            core->peer[to].swim != SWIM_ALIVE)
            continue;
        for (uint8_t s = 1; s <= core->peer_count; s = (uint8_t)(s + CORE_DIGEST_ROWS))
            send_digest(core, to, s, true);
        return;
    }
}

/* ---- deltas ---- */

/* The row of the actor with the smallest version above `after`. */
static const struct gossip_row *next_row(
    const struct core *core, uint8_t slot, uint32_t epoch, uint64_t after)
{
    const struct gossip_row *best = NULL;
    for (uint32_t i = 0; i < core->cell_count; i++) {
        const struct gossip_row *r = &core->cell[i].row;
        if (core->cell[i].slot == slot && r->epoch == epoch && r->version > after &&
            (!best || r->version < best->version))
            best = r;
    }
    return best;
}

static int send_rows(
    struct core *core, uint8_t to, uint8_t slot, uint64_t after, int frames)
{
    uint32_t epoch = core->peer[slot].actor_epoch;
    const struct gossip_row *r = next_row(core, slot, epoch, after);
    while (r && frames > 0) {
        struct core_msg m = {.kind = MSG_GOSSIP_DELTA};
        m.u.gossip.after = after;
        while (r && m.u.gossip.count < CORE_GOSSIP_ROWS) {
            m.u.gossip.u.row[m.u.gossip.count++] = *r;
            after = r->version;
            r = next_row(core, slot, epoch, r->version);
        }
        core_send(core, to, &m);
        frames--;
    }
    return frames;
}

static void answer_digest(struct core *core, uint8_t from, const struct msg_gossip *g)
{
    int frames = DELTA_FRAMES;
    bool behind = false;
    for (int i = 0; i < g->count && i < CORE_DIGEST_ROWS; i++) {
        const struct gossip_digest *d = &g->u.digest[i];
        uint8_t slot = peer_slot(core, d->actor);
        const struct peer *p = &core->peer[slot];
        if (slot == 0)
            continue;
        if (p->actor_epoch > d->epoch)
            frames = send_rows(core, from, slot, 0, frames);
        else if (p->actor_epoch == d->epoch && p->actor_version > d->version)
            frames = send_rows(core, from, slot, d->version, frames);
        else if (p->actor_epoch != d->epoch || p->actor_version != d->version)
            behind = true;
    }
    if (behind && g->reply_wanted)
        send_digest(core, from, g->start, false);
}

static void take_row(struct core *core, const struct gossip_row *r, uint64_t after)
{
    uint8_t slot = peer_slot(core, r->actor);
    struct peer *p = &core->peer[slot];
    if (slot == 0 || slot == core->self || r->length > CORE_GOSSIP_VALUE ||
        r->epoch < p->actor_epoch)
        return;
    if (r->epoch > p->actor_epoch) {
        p->actor_epoch = r->epoch; /* its older rows stay until it overwrites them */
        p->actor_version = 0;
    }
    if (after > p->actor_version)
        return; /* a frame before this one was lost: never skip */
    struct gossip_cell *c =
        r->version > p->actor_version ? find_or_new(core, slot, r->key) : NULL;
    if (!c)
        return;
    c->row = *r;
    p->actor_version = r->version;
}

void gossip_recv(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    const struct msg_gossip *g = &msg->u.gossip;
    if (msg->kind == MSG_GOSSIP_DIGEST) {
        answer_digest(core, slot, g);
        return;
    }
    uint8_t actor = peer_slot(core, g->count ? g->u.row[0].actor : 0);
    if (actor && g->u.row[0].epoch == core->peer[actor].actor_epoch &&
        g->after > core->peer[actor].actor_version)
        return;
    for (int i = 0; i < g->count && i < CORE_GOSSIP_ROWS; i++)
        take_row(core, &g->u.row[i], i ? 0 : g->after);
}
