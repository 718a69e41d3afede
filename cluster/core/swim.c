/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SWIM with Lifeguard: who seems alive. Hints for placement and relays only; no right
 * ever follows from it.
 */
#include "cluster/core/internal.h"

#define TARGETS 8 /* pings a period: a small cluster is probed whole */
#define HELPERS 3
#define PAUSE_NS (5 * CORE_SEC)
#define RELAY_NS (10 * CORE_SEC)

/* ---- updates that ride on pings and acks ---- */

static uint8_t spread(const struct core *core)
{
    return core->cfg.count > 30 ? 12 : 8; /* about 3 log2(n) */
}

static void add_update(struct core *core, struct msg_ping *m, uint8_t slot)
{
    struct peer *p = &core->peer[slot];
    if (m->count == CORE_SWIM_UPDATES)
        return;
    struct swim_update *u = &m->update[m->count++];
    u->node = p->node;
    u->epoch = slot == core->self ? core->epoch : p->swim_epoch;
    u->incarnation = slot == core->self ? core->incarnation : p->swim_incarnation;
    u->state = slot == core->self ? SWIM_ALIVE : p->swim;
}

static void add_updates(struct core *core, struct msg_ping *m, uint8_t to)
{
    if (core->peer[to].swim != SWIM_ALIVE)
        add_update(core, m, to); /* buddy: the suspect hears of it at once */
    if (core->self_update_left) {
        core->self_update_left--;
        add_update(core, m, core->self);
    }
    for (uint8_t i = 1; i <= core->peer_count && m->count < CORE_SWIM_UPDATES; i++)
        if (i != to && core->peer[i].update_left) {
            core->peer[i].update_left--;
            add_update(core, m, i);
        }
}

static void send_ping(struct core *core, uint8_t to, uint8_t kind, uint64_t target)
{
    struct core_msg m = {.kind = kind};
    m.u.ping.target = target;
    add_updates(core, &m.u.ping, to);
    core_send(core, to, &m);
}

/* ---- suspicion ---- */

/* From six times the minimum down to it as others confirm: log(c+1)/log(k+1), k = 3. */
static uint64_t patience(const struct core *core, uint8_t confirmations)
{
    static const uint8_t tenths[] = {60, 35, 20, 10};
    uint64_t n = core->cfg.count, log10 = n <= 5 ? 8 : n <= 10 ? 10 : n <= 30 ? 15 : 20;
    uint64_t min = core->p.probe_ns * 4 * log10 / 10;
    return min * tenths[confirmations > 3 ? 3 : confirmations] / 10;
}

static void suspect(struct core *core, uint8_t slot)
{
    struct peer *p = &core->peer[slot];
    if (p->swim == SWIM_DEAD)
        return;
    if (p->swim == SWIM_ALIVE) {
        p->swim = SWIM_SUSPECT;
        p->suspect_at = core->now;
        p->confirmations = 0;
    } else if (p->confirmations < 3) {
        p->confirmations++;
    }
    p->suspect_until = p->suspect_at + patience(core, p->confirmations);
    p->update_left = spread(core);
}

static void alive(struct core *core, uint8_t slot)
{
    struct peer *p = &core->peer[slot];
    p->pinged_at = 0;
    if (p->swim == SWIM_ALIVE)
        return;
    p->swim = SWIM_ALIVE;
    p->update_left = spread(core);
}

static void refute(struct core *core, const struct swim_update *u)
{
    if (u->epoch != core->epoch || u->state == SWIM_ALIVE ||
        u->incarnation < core->incarnation)
        return;
    core->incarnation = u->incarnation + 1;
    core->self_update_left = spread(core);
    core->lhm = core->lhm < 8 ? (uint8_t)(core->lhm + 1) : 8;
}

static void take_update(struct core *core, const struct swim_update *u)
{
    uint8_t slot = peer_slot(core, u->node);
    struct peer *p = &core->peer[slot];
    if (slot == core->self && slot) {
        refute(core, u);
        return;
    }
    if (slot == 0 || u->epoch < p->swim_epoch)
        return;
    bool newer = u->epoch > p->swim_epoch || u->incarnation > p->swim_incarnation;
    if (!newer && (u->incarnation < p->swim_incarnation || u->state < p->swim))
        return;
    bool again = !newer && u->state == SWIM_SUSPECT && p->swim == SWIM_SUSPECT;
    p->swim_epoch = u->epoch;
    p->swim_incarnation = u->incarnation;
    if (newer && u->state == SWIM_ALIVE) {
        alive(core, slot);
    } else if (u->state == SWIM_SUSPECT && (p->swim == SWIM_ALIVE || again)) {
        suspect(core, slot);
    } else if (u->state == SWIM_DEAD && p->swim != SWIM_DEAD) {
        p->swim = SWIM_DEAD;
        p->update_left = spread(core);
    }
}

/* ---- probing ---- */

static uint8_t next_target(struct core *core)
{
    for (uint8_t tried = 0; tried < core->peer_count; tried++) {
        core->probe_pos = (uint8_t)(core->probe_pos % core->peer_count + 1);
        uint8_t i = core->probe_pos;
        if (i != core->self && peer_member(core, i) && core->peer[i].pinged_at == 0)
            return i;
    }
    return 0;
}

static void first_half(struct core *core)
{
    bool missed = false;
    for (uint8_t i = 1; i <= core->peer_count; i++) {
        struct peer *p = &core->peer[i];
        if (p->pinged_at && !(p->indirect_ok && core->now < p->relay_until)) {
            missed = true;
            suspect(core, i);
        }
        p->pinged_at = 0;
        if (p->swim == SWIM_SUSPECT && core->now >= p->suspect_until) {
            p->swim = SWIM_DEAD;
            p->update_left = spread(core);
        }
    }
    if (!missed && core->lhm)
        core->lhm--;
    for (int n = 0; n < TARGETS; n++) {
        uint8_t slot = next_target(core);
        if (slot == 0)
            break;
        core->peer[slot].pinged_at = core->now;
        send_ping(core, slot, MSG_PING, 0);
    }
}

static void second_half(struct core *core)
{
    for (uint8_t i = 1; i <= core->peer_count && !core_out_full(core); i++) {
        if (core->peer[i].pinged_at == 0)
            continue;
        uint8_t at = (uint8_t)(1 + core_below(core, core->peer_count));
        int asked = 0;
        for (uint8_t k = 0; k < core->peer_count && asked < HELPERS; k++) {
            uint8_t h = (uint8_t)((at + k - 1) % core->peer_count + 1);
            if (h == i || h == core->self || !peer_reachable(core, h))
                continue;
            send_ping(core, h, MSG_PING_REQ, core->peer[i].node);
            asked++;
        }
    }
}

/* After a pause of our own we convict nobody: their answers wait in our buffers. */
static void forgive(struct core *core)
{
    for (uint8_t i = 1; i <= core->peer_count; i++) {
        core->peer[i].pinged_at = 0;
        if (core->peer[i].swim == SWIM_SUSPECT)
            core->peer[i].suspect_until = core->now + patience(core, 0);
    }
    core->lhm = 8;
}

void swim_timer(struct core *core)
{
    if (core->now < core->probe_at)
        return;
    if (core->probe_at && core->now > core->probe_at + PAUSE_NS)
        forgive(core);
    uint64_t period = core->p.probe_ns + core->p.probe_ns * core->lhm / 4;
    core->probe_at = core->now + period / 2;
    if (core->probe_second)
        second_half(core);
    else
        first_half(core);
    core->probe_second = !core->probe_second;
}

/* ---- messages ---- */

/* Someone else reaches the node that we do not: control messages may go that way. */
static void indirect(struct core *core, uint8_t helper, uint64_t node)
{
    uint8_t slot = peer_slot(core, node);
    struct peer *p = &core->peer[slot];
    if (slot == 0 || core->now < p->heard_at + core->p.probe_ns)
        return;
    p->indirect_ok = true;
    p->relay = helper;
    p->relay_until = core->now + RELAY_NS;
    if (p->swim != SWIM_ALIVE)
        alive(core, slot);
}

void swim_recv(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    const struct msg_ping *m = &msg->u.ping;
    uint8_t target = peer_slot(core, m->target);
    for (int i = 0; i < m->count && i < CORE_SWIM_UPDATES; i++)
        take_update(core, &m->update[i]);
    core->peer[slot].swim_epoch = msg->env.from_epoch;
    alive(core, slot);
    switch (msg->kind) {
    case MSG_PING:
        send_ping(core, slot, MSG_ACK, 0);
        break;
    case MSG_PING_REQ:
        /* we answer from what we heard ourselves: it is as fresh as a ping of ours */
        if (target && core->now < core->peer[target].heard_at + core->p.probe_ns)
            send_ping(core, slot, MSG_ACK, m->target);
        else if (target)
            send_ping(core, target, MSG_PING, 0);
        break;
    default:
        if (m->target)
            indirect(core, slot, m->target);
        else
            core->peer[slot].indirect_ok = false;
        break;
    }
}
