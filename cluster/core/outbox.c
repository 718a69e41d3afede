/* SPDX-License-Identifier: Apache-2.0 */
/* What leaves a core: envelopes, stores, and answers that wait for a store. */
#include "cluster/core/internal.h"

/* Copies are never relayed, and neither is what deletes one: a relay has its own order.
 */
static bool may_relay(uint8_t kind)
{
    return kind >= MSG_FENCE_REQ && kind != MSG_COPY && kind != MSG_RELEASE &&
           kind != MSG_FORGET && kind != MSG_DONE;
}

static void address(struct core *core, uint8_t slot, struct core_msg *m)
{
    struct peer *p = &core->peer[slot];
    m->env.cfg_ver = core->cfg.ver;
    m->env.from = core->node;
    m->env.from_epoch = core->epoch;
    m->env.to = p->node;
    m->env.via = p->node;
    m->env.hop = 0;
    m->env.clock_ns = core->now;
    m->env.echo_ns = p->heard_clock;
    m->env.echo_epoch = p->heard_epoch;
    if (p->indirect_ok && core->now < p->relay_until && may_relay(m->kind)) {
        m->env.via = core->peer[p->relay].node;
        m->env.hop = 1;
        m->env.lane = LANE_RELAY;
        SOMETIMES(core, ST_RELAY);
    }
    m->env.seq = ++p->tx_seq[m->env.lane];
}

void core_send(struct core *core, uint8_t slot, struct core_msg *msg)
{
    if (slot == 0 || slot == core->self || !peer_member(core, slot))
        return;
    struct core_command *c = core_cmd(core, CMD_SEND);
    c->u.send = *msg;
    address(core, slot, &c->u.send);
}

void core_send_any(struct core *core, uint8_t slot, struct core_msg *msg)
{
    if (slot == 0 || slot == core->self)
        return;
    struct core_command *c = core_cmd(core, CMD_SEND);
    c->u.send = *msg;
    address(core, slot, &c->u.send);
}

static struct parked *park(struct core *core, uint64_t token)
{
    if (core->parked_count == core->limits.parked)
        __builtin_trap(); /* PARK_RESERVE keeps this from happening */
    uint32_t i = (core->parked_head + core->parked_count++) % core->limits.parked;
    struct parked *k = &core->parked[i];
    /* one queue, oldest token first: waiting for a later token is always allowed */
    k->token = token > core->token_done ? core->token_last : token;
    k->epoch = core->epoch;
    k->bytes = 0;
    return k;
}

void core_send_after(
    struct core *core, uint64_t token, uint8_t slot, struct core_msg *msg)
{
    if (token <= core->token_done || MUT(core, MUT_ACK_BEFORE_DURABLE)) {
        core_send(core, slot, msg);
        return;
    }
    if (core->parked_count + PARK_RESERVE / 2 > core->limits.parked)
        return; /* as if lost: everything is asked again */
    struct parked *k = park(core, token);
    k->kind = PARK_SEND;
    k->slot = slot;
    k->msg = *msg;
    k->msg.env.cfg_ver = core->cfg.voters_ver;
}

void core_after(struct core *core, uint64_t token, enum after what, const struct unit *u)
{
    struct parked *k = park(core, token);
    k->kind = PARK_UNIT;
    k->what = (uint8_t)what;
    k->id = unit_id(u);
    if (what == AFTER_COPY || what == AFTER_FIXED) {
        k->bytes = u->size_bytes;
        core->copy_bytes += k->bytes;
    }
}

void core_park(struct core *core, uint64_t token, enum park_kind kind, uint8_t slot)
{
    struct parked *k = park(core, token);
    k->kind = (uint8_t)kind;
    k->slot = slot;
}

void core_park_admin(struct core *core, uint64_t token, uint64_t admin)
{
    struct parked *k = park(core, token);
    k->kind = PARK_ADMIN;
    k->msg.u.cfg.ver = admin;
}

struct core_command *core_store(struct core *core)
{
    struct core_command *c = core_cmd(core, CMD_STORE);
    c->u.store.token = ++core->token_last;
    c->u.store.op_count = 0;
    c->u.store.may_fail = false;
    return c;
}

uint64_t core_store_one(struct core *core, const struct core_op *op)
{
    struct core_command *c = core_store(core);
    c->u.store.op_count = 1;
    c->u.store.op[0] = *op;
    return core->token_last;
}

static void unit_stored(struct core *core, const struct parked *k, bool full)
{
    struct unit *u = unit_find(core, &k->id);
    core->copy_bytes -= k->bytes;
    if (u && !full && k->what == AFTER_FIXED && k->epoch != core->epoch) {
        u->flags &= (uint16_t)~UF_DAMAGED;
        core->damaged_count -= core->damaged_count > 0;
        return;
    }
    if (k->epoch != core->epoch) {
        /* the session is over, but whether the first row got in still matters */
        if (k->what == AFTER_COPY || k->what == AFTER_ACCEPT || k->what == AFTER_ABORT)
            copy_stored(core, &k->id, full);
        return;
    }
    switch ((enum after)k->what) {
    case AFTER_COPY:
        copy_stored(core, &k->id, full);
        break;
    case AFTER_ACCEPT:
        if (u)
            accept_stored(core, u, full);
        break;
    case AFTER_OWN:
        if (u)
            own_stored(core, u);
        break;
    case AFTER_ABORT:
        if (u)
            accept_aborted(core, u);
        break;
    case AFTER_FIXED:
        if (u && !full)
            damaged_fixed(core, u);
        break;
    case AFTER_LIST:
        if (u && work_of(core, u)) {
            work_of(core, u)->storing = false;
            work_wake(core, work_of(core, u), core->now);
        }
        break;
    }
}

static void unpark(struct core *core, struct parked *k, bool full)
{
    switch ((enum park_kind)k->kind) {
    case PARK_SEND:
        /* a full store keeps its promise back: the sender asks again */
        if ((k->msg.kind == MSG_COPY_ACK || k->msg.kind == MSG_CLAIM_RSP) &&
            k->msg.u.unit.answer == ANS_OK && !unit_find(core, &k->msg.u.unit.row.id))
            break; /* released meanwhile: what it would say is no longer so */
        if (k->msg.kind < MSG_COPY && k->msg.env.cfg_ver != core->cfg.voters_ver)
            break; /* said as a voter of another set */
        if (k->epoch == core->epoch && !full)
            core_send(core, k->slot, &k->msg);
        break;
    case PARK_UNIT:
        unit_stored(core, k, full);
        break;
    case PARK_EPOCH:
        if (k->epoch == core->epoch)
            session_start(core);
        break;
    case PARK_SELF_VOTE:
        if (k->epoch == core->epoch) {
            core->self_vote = true;
            session_recompute(core);
        }
        break;
    case PARK_FENCE:
        if (k->epoch == core->epoch)
            fence_durable(core, k->slot);
        break;
    case PARK_CFG:
        if (k->epoch == core->epoch)
            paxos_durable(core);
        break;
    case PARK_ADMIN:
        config_admin_durable(core, k->msg.u.cfg.ver);
        break;
    }
}

/* Releases what the disk has caught up with, as far as the ring of commands allows. */
void outbox_drain(struct core *core, uint64_t full_token)
{
    while (core->parked_count && !core_out_full(core)) {
        struct parked k = core->parked[core->parked_head];
        if (k.token > core->token_done)
            break;
        core->parked_head = (core->parked_head + 1) % core->limits.parked;
        core->parked_count--;
        unpark(core, &k, k.token == full_token);
    }
}
