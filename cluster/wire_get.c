/* SPDX-License-Identifier: Apache-2.0 */
/* Protobuf to struct core_msg, group by group: nothing is used before it is checked. */
#include "cluster/wire_internal.h"

/* False when a value of the wire does not fit; the rest of the message does not matter
 * then. `most` is the highest legal value. */
static bool get_u8(uint32_t value, uint32_t most, uint8_t *out)
{
    *out = (uint8_t)value;
    return value <= most;
}

static bool get_id(const pb_unit_id *from, struct core_unit_id *out)
{
    if (!from)
        return false;
    out->hi = from->hi;
    out->lo = from->lo;
    out->part = from->part;
    return true;
}

static bool get_row(const pb_sess_row *from, struct sess_row *out)
{
    out->node = from->node;
    out->cur = from->cur;
    out->fenced = from->fenced;
    return get_u8(from->flags, UINT8_MAX, &out->flags);
}

static bool get_ping(const Baton__Wire__Ping *from, struct msg_ping *out)
{
    if (from->n_update > CORE_SWIM_UPDATES)
        return false;
    out->nonce = from->nonce;
    out->target = from->target;
    out->count = (uint8_t)from->n_update;
    for (size_t i = 0; i < from->n_update; i++) {
        struct swim_update *to = &out->update[i];
        to->node = from->update[i]->node;
        to->epoch = from->update[i]->epoch;
        to->incarnation = from->update[i]->incarnation;
        if (!get_u8(from->update[i]->state, UINT8_MAX, &to->state))
            return false;
    }
    return true;
}

static bool get_gossip_row(const Baton__Wire__GossipEntry *from, struct gossip_row *out)
{
    if (from->value.len > CORE_GOSSIP_VALUE)
        return false;
    out->actor = from->actor;
    out->epoch = from->epoch;
    out->version = from->version;
    out->key = from->key;
    out->length = (uint8_t)from->value.len;
    if (from->value.len > 0)
        memcpy(out->value, from->value.data, from->value.len);
    return true;
}

static bool get_gossip(
    const Baton__Wire__Gossip *from, bool delta, struct msg_gossip *out)
{
    if (from->n_entry > (delta ? CORE_GOSSIP_ROWS : CORE_DIGEST_ROWS) ||
        !get_u8(from->reply_wanted, 1, &out->reply_wanted) ||
        !get_u8(from->start, UINT8_MAX, &out->start))
        return false;
    out->count = (uint8_t)from->n_entry;
    out->after = from->after;
    for (size_t i = 0; i < from->n_entry; i++) {
        const Baton__Wire__GossipEntry *entry = from->entry[i];
        if (delta && !get_gossip_row(entry, &out->u.row[i]))
            return false;
        if (!delta) {
            out->u.digest[i].actor = entry->actor;
            out->u.digest[i].epoch = entry->epoch;
            out->u.digest[i].version = entry->version;
        }
    }
    return true;
}

/* Bytes of just that length, or none: zeros. */
static bool get_bytes(ProtobufCBinaryData from, void *out, size_t len)
{
    if (from.len != 0 && from.len != len)
        return false;
    if (from.len > 0)
        memcpy(out, from.data, len);
    return true;
}

static bool get_ident(ProtobufCBinaryData key, ProtobufCBinaryData address,
    ProtobufCBinaryData name, struct core_ident *out)
{
    if (name.len > sizeof(out->name) ||
        (name.len > 0 && memchr(name.data, 0, name.len) != NULL))
        return false;
    if (name.len > 0)
        memcpy(out->name, name.data, name.len);
    return get_bytes(key, out->key, sizeof(out->key)) &&
           get_bytes(address, out->address, sizeof(out->address));
}

static bool get_change(const Baton__Wire__CfgChange *from, struct cfg_change *out)
{
    if (!from)
        return true;
    out->off = from->off;
    out->off_epoch = from->off_epoch;
    out->proposer = from->proposer;
    out->node = from->node;
    out->serial = from->serial;
    return get_u8(from->op, UINT8_MAX, &out->op) &&
           get_u8(from->roles, UINT8_MAX, &out->roles) &&
           get_u8(from->zone, UINT8_MAX, &out->zone) &&
           get_u8(from->weight, UINT8_MAX, &out->weight) &&
           get_u8(from->mode, UINT8_MAX, &out->mode) &&
           get_u8(from->copies, UINT8_MAX, &out->copies) &&
           get_u8(from->min_copies, UINT8_MAX, &out->min_copies) &&
           get_ident(from->key, from->address, from->name, &out->ident);
}

static bool get_member(const Baton__Wire__Member *from, struct core_member *out)
{
    out->node = from->node;
    return get_u8(from->roles, UINT8_MAX, &out->roles) &&
           get_u8(from->zone, UINT8_MAX, &out->zone) &&
           get_u8(from->weight, UINT8_MAX, &out->weight) &&
           get_ident(from->key, from->address, from->name, &out->ident);
}

static bool get_parts(const Baton__Wire__Cfg *from, bool rows, struct msg_cfg *out)
{
    if (from->n_member > (rows ? 0 : CORE_PAGE_MEMBERS) ||
        from->n_row > (rows ? CORE_TABLE_ROWS : 0))
        return false;
    out->count = (uint8_t)(from->n_member + from->n_row);
    for (size_t i = 0; i < from->n_member; i++)
        if (!get_member(from->member[i], &out->u.member[i]))
            return false;
    for (size_t i = 0; i < from->n_row; i++)
        if (!get_row(from->row[i], &out->u.row[i]))
            return false;
    return true;
}

static bool get_cfg(const Baton__Wire__Cfg *from, bool rows, struct msg_cfg *out)
{
    if (!get_change(from->change, &out->change))
        return false;
    out->ver = from->ver;
    out->ballot = from->ballot;
    out->accepted = from->accepted;
    out->mode_ver = from->mode_ver;
    out->voters_ver = from->voters_ver;
    out->prev_ver = from->prev_ver;
    return get_u8(from->ok, UINT8_MAX, &out->ok) &&
           get_u8(from->page, UINT8_MAX, &out->page) &&
           get_u8(from->page_count, UINT8_MAX, &out->page_count) &&
           get_u8(from->copies, UINT8_MAX, &out->copies) &&
           get_u8(from->min_copies, UINT8_MAX, &out->min_copies) &&
           get_u8(from->mode, UINT8_MAX, &out->mode) &&
           get_u8(from->flags, UINT8_MAX, &out->flags) &&
           get_u8(from->was_voters, UINT8_MAX, &out->was_voters) &&
           get_parts(from, rows, out);
}

static bool get_lease(const Baton__Wire__Lease *from, struct msg_lease *out)
{
    if (from->n_row > CORE_TABLE_ROWS)
        return false;
    out->nonce = from->nonce;
    out->acked = from->acked;
    out->birth = from->birth;
    out->wait_ns = from->wait_ns;
    out->row_count = (uint8_t)from->n_row;
    for (size_t i = 0; i < from->n_row; i++)
        if (!get_row(from->row[i], &out->row[i]))
            return false;
    return get_u8(from->answer, LEASE_TWIN, &out->answer) &&
           get_u8(from->page, UINT8_MAX, &out->page) &&
           get_u8(from->page_count, UINT8_MAX, &out->page_count);
}

static bool get_fence(const Baton__Wire__Fence *from, struct msg_fence *out)
{
    out->node = from->node;
    out->epoch = from->epoch;
    out->hold_s = from->hold_s;
    return get_u8(from->answer, FENCE_NO, &out->answer) &&
           get_u8(from->flags, UINT8_MAX, &out->flags);
}

/* No bit of a recipient that the unit has not got. */
static bool mask_fits(uint64_t mask, uint8_t rcpt_count)
{
    return rcpt_count >= 64 || mask >> rcpt_count == 0;
}

static bool get_list(const Baton__Wire__UnitRow *from, struct unit_row *out)
{
    if (from->n_list > CORE_LIST_MAX)
        return false;
    out->list_count = (uint8_t)from->n_list;
    for (size_t i = 0; i < from->n_list; i++) {
        out->list[i].node = from->list[i]->node;
        out->list[i].fenced = from->list[i]->fenced;
        if (from->list[i]->status == 0 ||
            !get_u8(from->list[i]->status, LIST_RELEASING, &out->list[i].status))
            return false;
    }
    return true;
}

static bool get_unit_row(const Baton__Wire__UnitRow *from, struct unit_row *out)
{
    if (!from || !get_id(from->id, &out->id) || !get_list(from, out) ||
        !get_u8(from->state, UNIT_ABORTED, &out->state) ||
        !get_u8(from->rcpt_count, 64, &out->rcpt_count) ||
        !get_u8(from->flags, UINT8_MAX, &out->flags))
        return false;
    out->term = from->term;
    out->owner_epoch = from->owner_epoch;
    out->owner = from->owner;
    out->delivered = from->delivered;
    out->failed = from->failed;
    out->doubt = from->doubt;
    out->attempt = from->attempt;
    out->due_s = from->due_s;
    out->expires_s = from->expires_s;
    out->size_bytes = from->size_bytes;
    out->body_crc = from->body_crc;
    return mask_fits(out->delivered | out->failed | out->doubt, out->rcpt_count);
}

static bool get_unit(const Baton__Wire__Unit *from, struct msg_unit *out)
{
    out->claim_term = from->claim_term;
    return get_unit_row(from->row, &out->row) &&
           get_u8(from->answer, UINT8_MAX, &out->answer) &&
           get_u8(from->consented, UINT8_MAX, &out->consented) &&
           get_u8(from->owner_gave, 1, &out->owner_gave) &&
           get_u8(from->steal, 1, &out->steal) && get_u8(from->mail, 1, &out->mail);
}

static bool get_attempt(const Baton__Wire__Attempt *from, struct msg_attempt *out)
{
    out->attempt = from->attempt;
    out->rcpts = from->rcpts;
    out->delivered = from->delivered;
    out->failed = from->failed;
    out->term = from->term;
    out->due_s = from->due_s;
    return get_id(from->id, &out->id) && get_u8(from->answer, UINT8_MAX, &out->answer) &&
           get_u8(from->narrow, 1, &out->narrow);
}

static bool get_sync(const Baton__Wire__Sync *from, bool digest, struct msg_sync *out)
{
    if (from->n_bucket != (digest ? CORE_DIGEST_ROWS : 0))
        return false;
    out->serial = from->serial;
    out->root = from->root;
    out->count = from->count;
    if (digest)
        memcpy(out->bucket, from->bucket, sizeof(out->bucket));
    return true;
}

static bool get_steal(const Baton__Wire__Steal *from, struct msg_steal *out)
{
    out->max = from->max;
    return get_id(from->id, &out->id);
}

static bool get_budget(const Baton__Wire__Budget *from, struct msg_budget *out)
{
    if (from->n_entry > BUDGET_ENTRIES)
        return false;
    out->sent_ns = from->sent_ns;
    out->count = (uint8_t)from->n_entry;
    for (size_t i = 0; i < from->n_entry; i++) {
        struct budget_entry *to = &out->entry[i];
        to->key = from->entry[i]->key;
        to->holds[BUDGET_CONNECTIONS] = from->entry[i]->connections;
        to->holds[BUDGET_MESSAGES] = from->entry[i]->messages;
        to->want[BUDGET_CONNECTIONS] = from->entry[i]->want_connections;
        to->want[BUDGET_MESSAGES] = from->entry[i]->want_messages;
    }
    return true;
}

static bool get_repeat(const Baton__Wire__Repeat *from, struct msg_repeat *out)
{
    out->number = from->number;
    out->hi = from->hi;
    out->lo = from->lo;
    return from->key.len == sizeof(out->key) &&
           get_bytes(from->key, out->key, sizeof(out->key)) &&
           get_u8(from->answer, 2, &out->answer);
}

/* Which body of the Envelope each group has. */
static const Baton__Wire__Envelope__BodyCase BODY[] = {
    [WIRE_PING] = BATON__WIRE__ENVELOPE__BODY_PING,
    [WIRE_GOSSIP] = BATON__WIRE__ENVELOPE__BODY_GOSSIP,
    [WIRE_CFG] = BATON__WIRE__ENVELOPE__BODY_CFG,
    [WIRE_LEASE] = BATON__WIRE__ENVELOPE__BODY_LEASE,
    [WIRE_FENCE] = BATON__WIRE__ENVELOPE__BODY_FENCE,
    [WIRE_UNIT] = BATON__WIRE__ENVELOPE__BODY_UNIT,
    [WIRE_ATTEMPT] = BATON__WIRE__ENVELOPE__BODY_ATTEMPT,
    [WIRE_SYNC] = BATON__WIRE__ENVELOPE__BODY_SYNC,
    [WIRE_STEAL] = BATON__WIRE__ENVELOPE__BODY_STEAL,
    [WIRE_BUDGET] = BATON__WIRE__ENVELOPE__BODY_BUDGET,
    [WIRE_REPEAT] = BATON__WIRE__ENVELOPE__BODY_REPEAT,
};

bool wire_get(const pb_envelope *e, enum wire_group group, struct core_msg *msg)
{
    if (group == WIRE_NONE || e->body_case != BODY[group])
        return false;
    switch (group) {
    case WIRE_NONE:
        return false;
    case WIRE_PING:
        return get_ping(e->ping, &msg->u.ping);
    case WIRE_GOSSIP:
        return get_gossip(e->gossip, msg->kind == MSG_GOSSIP_DELTA, &msg->u.gossip);
    case WIRE_CFG:
        return get_cfg(e->cfg, msg->kind == MSG_SEAL_STATE, &msg->u.cfg);
    case WIRE_LEASE:
        return get_lease(e->lease, &msg->u.lease);
    case WIRE_FENCE:
        return get_fence(e->fence, &msg->u.fence);
    case WIRE_UNIT:
        return get_unit(e->unit, &msg->u.unit);
    case WIRE_ATTEMPT:
        return get_attempt(e->attempt, &msg->u.attempt);
    case WIRE_SYNC:
        return get_sync(e->sync, msg->kind == MSG_DIGEST, &msg->u.sync);
    case WIRE_STEAL:
        return get_steal(e->steal, &msg->u.steal);
    case WIRE_BUDGET:
        return get_budget(e->budget, &msg->u.budget);
    case WIRE_REPEAT:
        return get_repeat(e->repeat, &msg->u.repeat);
    }
    return false;
}
