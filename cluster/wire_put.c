/* SPDX-License-Identifier: Apache-2.0 */
/* struct core_msg to protobuf, group by group. What breaks a bound here is our bug.
 * `mine` of a row stays here: it is a right, and rights are never learned from another
 * node. */
#include "cluster/wire_internal.h"

#include "base/alloc.h"

static void put_id(pb_unit_id *out, const struct core_unit_id *id)
{
    baton__wire__unit_id__init(out);
    out->hi = id->hi;
    out->lo = id->lo;
    out->part = id->part;
}

static void put_row(pb_sess_row *out, const struct sess_row *r)
{
    baton__wire__sess_row__init(out);
    out->node = r->node;
    out->cur = r->cur;
    out->fenced = r->fenced;
    out->flags = r->flags;
}

static void put_ping(struct wire_scratch *s, const struct msg_ping *m, pb_envelope *e)
{
    INVARIANT(m->count <= CORE_SWIM_UPDATES);
    baton__wire__ping__init(&s->u.ping.m);
    s->u.ping.m.nonce = m->nonce;
    s->u.ping.m.target = m->target;
    s->u.ping.m.n_update = m->count;
    s->u.ping.m.update = s->u.ping.at;
    for (uint8_t i = 0; i < m->count; i++) {
        Baton__Wire__SwimUpdate *to = s->u.ping.at[i] = &s->u.ping.update[i];
        baton__wire__swim_update__init(to);
        to->node = m->update[i].node;
        to->epoch = m->update[i].epoch;
        to->incarnation = m->update[i].incarnation;
        to->state = m->update[i].state;
    }
    e->body_case = BATON__WIRE__ENVELOPE__BODY_PING;
    e->ping = &s->u.ping.m;
}

static void put_gossip_entry(
    Baton__Wire__GossipEntry *to, const struct msg_gossip *m, bool delta, uint8_t i)
{
    baton__wire__gossip_entry__init(to);
    if (!delta) {
        to->actor = m->u.digest[i].actor;
        to->epoch = m->u.digest[i].epoch;
        to->version = m->u.digest[i].version;
        return;
    }
    const struct gossip_row *row = &m->u.row[i];
    INVARIANT(row->length <= CORE_GOSSIP_VALUE);
    to->actor = row->actor;
    to->epoch = row->epoch;
    to->version = row->version;
    to->key = row->key;
    to->value.len = row->length;
    /* protobuf-c has no const bytes; packing only reads them. */
    to->value.data = (uint8_t *)(uintptr_t)row->value;
}

static void put_gossip(
    struct wire_scratch *s, const struct msg_gossip *m, bool delta, pb_envelope *e)
{
    INVARIANT(m->count <= (delta ? CORE_GOSSIP_ROWS : CORE_DIGEST_ROWS));
    baton__wire__gossip__init(&s->u.gossip.m);
    s->u.gossip.m.reply_wanted = m->reply_wanted;
    s->u.gossip.m.start = m->start;
    s->u.gossip.m.after = m->after;
    s->u.gossip.m.n_entry = m->count;
    s->u.gossip.m.entry = s->u.gossip.at;
    for (uint8_t i = 0; i < m->count; i++) {
        s->u.gossip.at[i] = &s->u.gossip.entry[i];
        put_gossip_entry(s->u.gossip.at[i], m, delta, i);
    }
    e->body_case = BATON__WIRE__ENVELOPE__BODY_GOSSIP;
    e->gossip = &s->u.gossip.m;
}

static ProtobufCBinaryData put_bytes(const void *from, size_t len)
{
    static const unsigned char zero[32];
    if (len <= sizeof(zero) && memcmp(from, zero, len) == 0)
        len = 0;
    /* protobuf-c has no const bytes; packing only reads them. */
    return (ProtobufCBinaryData){.len = len, .data = (uint8_t *)(uintptr_t)from};
}

static void put_change(Baton__Wire__CfgChange *to, const struct cfg_change *c)
{
    baton__wire__cfg_change__init(to);
    to->proposer = c->proposer;
    to->node = c->node;
    to->serial = c->serial;
    to->op = c->op;
    to->roles = c->roles;
    to->zone = c->zone;
    to->weight = c->weight;
    to->mode = c->mode;
    to->copies = c->copies;
    to->min_copies = c->min_copies;
    to->off = c->off;
    to->off_epoch = c->off_epoch;
    to->key = put_bytes(c->ident.key, sizeof(c->ident.key));
    to->address = put_bytes(c->ident.address, sizeof(c->ident.address));
    to->name = put_bytes(c->ident.name, strnlen(c->ident.name, sizeof(c->ident.name)));
}

static void put_member(Baton__Wire__Member *to, const struct core_member *m)
{
    baton__wire__member__init(to);
    to->node = m->node;
    to->roles = m->roles;
    to->zone = m->zone;
    to->weight = m->weight;
    to->key = put_bytes(m->ident.key, sizeof(m->ident.key));
    to->address = put_bytes(m->ident.address, sizeof(m->ident.address));
    to->name = put_bytes(m->ident.name, strnlen(m->ident.name, sizeof(m->ident.name)));
}

static void put_cfg(
    struct wire_scratch *s, const struct msg_cfg *m, bool rows, pb_envelope *e)
{
    INVARIANT(m->count <= (rows ? CORE_TABLE_ROWS : CORE_PAGE_MEMBERS));
    Baton__Wire__Cfg *to = &s->u.cfg.m;
    baton__wire__cfg__init(to);
    to->ver = m->ver;
    to->ballot = m->ballot;
    to->accepted = m->accepted;
    put_change(&s->u.cfg.change, &m->change);
    to->change = &s->u.cfg.change;
    to->ok = m->ok;
    to->page = m->page;
    to->page_count = m->page_count;
    to->copies = m->copies;
    to->min_copies = m->min_copies;
    to->mode = m->mode;
    to->mode_ver = m->mode_ver;
    to->flags = m->flags;
    to->voters_ver = m->voters_ver;
    to->prev_ver = m->prev_ver;
    to->was_voters = m->was_voters;
    to->n_member = rows ? 0 : m->count;
    to->n_row = rows ? m->count : 0;
    to->member = s->u.cfg.member_at;
    to->row = s->u.cfg.row_at;
    for (size_t i = 0; i < to->n_member; i++) {
        s->u.cfg.member_at[i] = &s->u.cfg.member[i];
        put_member(s->u.cfg.member_at[i], &m->u.member[i]);
    }
    for (size_t i = 0; i < to->n_row; i++) {
        s->u.cfg.row_at[i] = &s->u.cfg.row[i];
        put_row(s->u.cfg.row_at[i], &m->u.row[i]);
    }
    e->body_case = BATON__WIRE__ENVELOPE__BODY_CFG;
    e->cfg = to;
}

static void put_lease(struct wire_scratch *s, const struct msg_lease *m, pb_envelope *e)
{
    INVARIANT(m->row_count <= CORE_TABLE_ROWS);
    Baton__Wire__Lease *to = &s->u.lease.m;
    baton__wire__lease__init(to);
    to->nonce = m->nonce;
    to->acked = m->acked;
    to->birth = m->birth;
    to->wait_ns = m->wait_ns;
    to->answer = m->answer;
    to->page = m->page;
    to->page_count = m->page_count;
    to->n_row = m->row_count;
    to->row = s->u.lease.at;
    for (uint8_t i = 0; i < m->row_count; i++) {
        s->u.lease.at[i] = &s->u.lease.row[i];
        put_row(s->u.lease.at[i], &m->row[i]);
    }
    e->body_case = BATON__WIRE__ENVELOPE__BODY_LEASE;
    e->lease = to;
}

static void put_fence(struct wire_scratch *s, const struct msg_fence *m, pb_envelope *e)
{
    Baton__Wire__Fence *to = &s->u.fence.m;
    baton__wire__fence__init(to);
    to->node = m->node;
    to->epoch = m->epoch;
    to->hold_s = m->hold_s;
    to->answer = m->answer;
    to->flags = m->flags;
    e->body_case = BATON__WIRE__ENVELOPE__BODY_FENCE;
    e->fence = to;
}

static void put_unit_row(struct wire_scratch *s, const struct unit_row *r)
{
    INVARIANT(r->list_count <= CORE_LIST_MAX);
    Baton__Wire__UnitRow *to = &s->u.unit.row;
    baton__wire__unit_row__init(to);
    put_id(&s->u.unit.id, &r->id);
    to->id = &s->u.unit.id;
    to->term = r->term;
    to->owner_epoch = r->owner_epoch;
    to->owner = r->owner;
    to->state = r->state;
    to->rcpt_count = r->rcpt_count;
    to->flags = r->flags;
    to->delivered = r->delivered;
    to->failed = r->failed;
    to->doubt = r->doubt;
    to->attempt = r->attempt;
    to->due_s = r->due_s;
    to->expires_s = r->expires_s;
    to->size_bytes = r->size_bytes;
    to->body_crc = r->body_crc;
    to->n_list = r->list_count;
    to->list = s->u.unit.at;
    for (uint8_t i = 0; i < r->list_count; i++) {
        Baton__Wire__Holder *h = s->u.unit.at[i] = &s->u.unit.holder[i];
        baton__wire__holder__init(h);
        h->node = r->list[i].node;
        h->fenced = r->list[i].fenced;
        h->status = r->list[i].status;
    }
}

static void put_unit(struct wire_scratch *s, const struct msg_unit *m, pb_envelope *e)
{
    Baton__Wire__Unit *to = &s->u.unit.m;
    baton__wire__unit__init(to);
    put_unit_row(s, &m->row);
    to->row = &s->u.unit.row;
    to->claim_term = m->claim_term;
    to->answer = m->answer;
    to->consented = m->consented;
    to->owner_gave = m->owner_gave;
    to->steal = m->steal;
    to->mail = m->mail;
    e->body_case = BATON__WIRE__ENVELOPE__BODY_UNIT;
    e->unit = to;
}

static void put_attempt(
    struct wire_scratch *s, const struct msg_attempt *m, pb_envelope *e)
{
    Baton__Wire__Attempt *to = &s->u.attempt.m;
    baton__wire__attempt__init(to);
    put_id(&s->u.attempt.id, &m->id);
    to->id = &s->u.attempt.id;
    to->attempt = m->attempt;
    to->rcpts = m->rcpts;
    to->delivered = m->delivered;
    to->failed = m->failed;
    to->term = m->term;
    to->due_s = m->due_s;
    to->answer = m->answer;
    to->narrow = m->narrow;
    e->body_case = BATON__WIRE__ENVELOPE__BODY_ATTEMPT;
    e->attempt = to;
}

static void put_sync(
    struct wire_scratch *s, const struct msg_sync *m, bool digest, pb_envelope *e)
{
    Baton__Wire__Sync *to = &s->u.sync.m;
    baton__wire__sync__init(to);
    to->serial = m->serial;
    to->root = m->root;
    to->count = m->count;
    if (digest) {
        memcpy(s->u.sync.bucket, m->bucket, sizeof(m->bucket));
        to->n_bucket = CORE_DIGEST_ROWS;
        to->bucket = s->u.sync.bucket;
    }
    e->body_case = BATON__WIRE__ENVELOPE__BODY_SYNC;
    e->sync = to;
}

static void put_steal(struct wire_scratch *s, const struct msg_steal *m, pb_envelope *e)
{
    Baton__Wire__Steal *to = &s->u.steal.m;
    baton__wire__steal__init(to);
    put_id(&s->u.steal.id, &m->id);
    to->id = &s->u.steal.id;
    to->max = m->max;
    e->body_case = BATON__WIRE__ENVELOPE__BODY_STEAL;
    e->steal = to;
}

static void put_budget(struct wire_scratch *s, const struct msg_budget *m, pb_envelope *e)
{
    Baton__Wire__Budget *to = &s->u.budget.m;
    baton__wire__budget__init(to);
    to->sent_ns = m->sent_ns;
    for (unsigned i = 0; i < m->count; i++) {
        Baton__Wire__BudgetEntry *entry = &s->u.budget.entry[i];
        baton__wire__budget_entry__init(entry);
        entry->key = m->entry[i].key;
        entry->connections = m->entry[i].holds[BUDGET_CONNECTIONS];
        entry->messages = m->entry[i].holds[BUDGET_MESSAGES];
        entry->want_connections = m->entry[i].want[BUDGET_CONNECTIONS];
        entry->want_messages = m->entry[i].want[BUDGET_MESSAGES];
        s->u.budget.at[i] = entry;
    }
    to->n_entry = m->count;
    to->entry = s->u.budget.at;
    e->body_case = BATON__WIRE__ENVELOPE__BODY_BUDGET;
    e->budget = to;
}

static void put_repeat(struct wire_scratch *s, const struct msg_repeat *m, pb_envelope *e)
{
    Baton__Wire__Repeat *to = &s->u.repeat;
    baton__wire__repeat__init(to);
    to->number = m->number;
    to->key.data = (uint8_t *)(uintptr_t)m->key;
    to->key.len = sizeof(m->key);
    to->hi = m->hi;
    to->lo = m->lo;
    to->answer = m->answer;
    e->body_case = BATON__WIRE__ENVELOPE__BODY_REPEAT;
    e->repeat = to;
}

void wire_put(struct wire_scratch *s, const struct core_msg *msg, enum wire_group group,
    pb_envelope *e)
{
    switch (group) {
    case WIRE_NONE:
        INVARIANT(group != WIRE_NONE);
        break;
    case WIRE_PING:
        put_ping(s, &msg->u.ping, e);
        break;
    case WIRE_GOSSIP:
        put_gossip(s, &msg->u.gossip, msg->kind == MSG_GOSSIP_DELTA, e);
        break;
    case WIRE_CFG:
        put_cfg(s, &msg->u.cfg, msg->kind == MSG_SEAL_STATE, e);
        break;
    case WIRE_LEASE:
        put_lease(s, &msg->u.lease, e);
        break;
    case WIRE_FENCE:
        put_fence(s, &msg->u.fence, e);
        break;
    case WIRE_UNIT:
        put_unit(s, &msg->u.unit, e);
        break;
    case WIRE_ATTEMPT:
        put_attempt(s, &msg->u.attempt, e);
        break;
    case WIRE_SYNC:
        put_sync(s, &msg->u.sync, msg->kind == MSG_DIGEST, e);
        break;
    case WIRE_STEAL:
        put_steal(s, &msg->u.steal, e);
        break;
    case WIRE_BUDGET:
        put_budget(s, &msg->u.budget, e);
        break;
    case WIRE_REPEAT:
        put_repeat(s, &msg->u.repeat, e);
        break;
    }
}
