/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/wire.h"

#include "base/alloc.h"
#include "base/arena.h"
#include "proto/cluster.pb-c.h"

typedef Baton__Wire__Envelope pb_envelope;
typedef Baton__Wire__UnitId pb_unit_id;
typedef Baton__Wire__SessRow pb_sess_row;

enum group { G_NONE, G_PING, G_GOSSIP, G_CFG, G_LEASE, G_FENCE, G_UNIT, G_ATTEMPT, G_SYNC, G_STEAL };

/* The number and the body of each kind on the wire. The core may renumber its own. */
static const struct {
    uint8_t wire;
    uint8_t group;
} KINDS[MSG_KIND_COUNT] = {
    [MSG_PING] = {BATON__WIRE__KIND__PING, G_PING},
    [MSG_ACK] = {BATON__WIRE__KIND__ACK, G_PING},
    [MSG_PING_REQ] = {BATON__WIRE__KIND__PING_REQ, G_PING},
    [MSG_NACK] = {BATON__WIRE__KIND__NACK, G_PING},
    [MSG_GOSSIP_DIGEST] = {BATON__WIRE__KIND__GOSSIP_DIGEST, G_GOSSIP},
    [MSG_GOSSIP_DELTA] = {BATON__WIRE__KIND__GOSSIP_DELTA, G_GOSSIP},
    [MSG_CFG_PREPARE] = {BATON__WIRE__KIND__CFG_PREPARE, G_CFG},
    [MSG_CFG_PROMISE] = {BATON__WIRE__KIND__CFG_PROMISE, G_CFG},
    [MSG_CFG_ACCEPT] = {BATON__WIRE__KIND__CFG_ACCEPT, G_CFG},
    [MSG_CFG_ACCEPTED] = {BATON__WIRE__KIND__CFG_ACCEPTED, G_CFG},
    [MSG_CFG_LEARN] = {BATON__WIRE__KIND__CFG_LEARN, G_CFG},
    [MSG_CFG_PAGE] = {BATON__WIRE__KIND__CFG_PAGE, G_CFG},
    [MSG_CFG_ASK] = {BATON__WIRE__KIND__CFG_ASK, G_CFG},
    [MSG_CFG_STORED] = {BATON__WIRE__KIND__CFG_STORED, G_CFG},
    [MSG_SEAL_READ] = {BATON__WIRE__KIND__SEAL_READ, G_CFG},
    [MSG_SEAL_STATE] = {BATON__WIRE__KIND__SEAL_STATE, G_CFG},
    [MSG_LEASE_REQ] = {BATON__WIRE__KIND__LEASE_REQ, G_LEASE},
    [MSG_LEASE_RSP] = {BATON__WIRE__KIND__LEASE_RSP, G_LEASE},
    [MSG_FENCE_REQ] = {BATON__WIRE__KIND__FENCE_REQ, G_FENCE},
    [MSG_FENCE_RSP] = {BATON__WIRE__KIND__FENCE_RSP, G_FENCE},
    [MSG_FENCE_NOTICE] = {BATON__WIRE__KIND__FENCE_NOTICE, G_FENCE},
    [MSG_RESIGN] = {BATON__WIRE__KIND__RESIGN, G_FENCE},
    [MSG_COPY] = {BATON__WIRE__KIND__COPY, G_UNIT},
    [MSG_COPY_ACK] = {BATON__WIRE__KIND__COPY_ACK, G_UNIT},
    [MSG_RELEASE] = {BATON__WIRE__KIND__RELEASE, G_UNIT},
    [MSG_RELEASE_ACK] = {BATON__WIRE__KIND__RELEASE_ACK, G_UNIT},
    [MSG_INTENT] = {BATON__WIRE__KIND__INTENT, G_ATTEMPT},
    [MSG_INTENT_ACK] = {BATON__WIRE__KIND__INTENT_ACK, G_ATTEMPT},
    [MSG_OUTCOME] = {BATON__WIRE__KIND__OUTCOME, G_ATTEMPT},
    [MSG_OUTCOME_ACK] = {BATON__WIRE__KIND__OUTCOME_ACK, G_ATTEMPT},
    [MSG_CLAIM_REQ] = {BATON__WIRE__KIND__CLAIM_REQ, G_UNIT},
    [MSG_CLAIM_RSP] = {BATON__WIRE__KIND__CLAIM_RSP, G_UNIT},
    [MSG_STEAL_REQ] = {BATON__WIRE__KIND__STEAL_REQ, G_STEAL},
    [MSG_OFFER] = {BATON__WIRE__KIND__OFFER, G_STEAL},
    [MSG_SYNC_REQ] = {BATON__WIRE__KIND__SYNC_REQ, G_SYNC},
    [MSG_SYNC_REC] = {BATON__WIRE__KIND__SYNC_REC, G_UNIT},
    [MSG_SYNC_ACK] = {BATON__WIRE__KIND__SYNC_ACK, G_UNIT},
    [MSG_SYNC_END] = {BATON__WIRE__KIND__SYNC_END, G_SYNC},
    [MSG_SYNC_DONE] = {BATON__WIRE__KIND__SYNC_DONE, G_SYNC},
    [MSG_DIGEST] = {BATON__WIRE__KIND__DIGEST, G_SYNC},
    [MSG_DONE] = {BATON__WIRE__KIND__DONE, G_UNIT},
    [MSG_DONE_ACK] = {BATON__WIRE__KIND__DONE_ACK, G_UNIT},
    [MSG_FORGET] = {BATON__WIRE__KIND__FORGET, G_UNIT},
    [MSG_CREDIT] = {BATON__WIRE__KIND__CREDIT, G_SYNC},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- writing: the structs of protobuf-c on the stack, pointing at each other ---- */

struct scratch {
    union {
        struct {
            Baton__Wire__Ping m;
            Baton__Wire__SwimUpdate update[CORE_SWIM_UPDATES];
            Baton__Wire__SwimUpdate *at[CORE_SWIM_UPDATES];
        } ping;
        struct {
            Baton__Wire__Gossip m;
            Baton__Wire__GossipEntry entry[CORE_DIGEST_ROWS];
            Baton__Wire__GossipEntry *at[CORE_DIGEST_ROWS];
        } gossip;
        struct {
            Baton__Wire__Cfg m;
            Baton__Wire__CfgChange change;
            Baton__Wire__Member member[CORE_TABLE_ROWS];
            Baton__Wire__Member *member_at[CORE_TABLE_ROWS];
            pb_sess_row row[CORE_TABLE_ROWS];
            pb_sess_row *row_at[CORE_TABLE_ROWS];
        } cfg;
        struct {
            Baton__Wire__Lease m;
            pb_sess_row row[CORE_TABLE_ROWS];
            pb_sess_row *at[CORE_TABLE_ROWS];
        } lease;
        struct {
            Baton__Wire__Fence m;
        } fence;
        struct {
            Baton__Wire__Unit m;
            Baton__Wire__UnitRow row;
            pb_unit_id id;
            Baton__Wire__Holder holder[CORE_LIST_MAX];
            Baton__Wire__Holder *at[CORE_LIST_MAX];
        } unit;
        struct {
            Baton__Wire__Attempt m;
            pb_unit_id id;
        } attempt;
        struct {
            Baton__Wire__Sync m;
            uint64_t bucket[CORE_DIGEST_ROWS];
        } sync;
        struct {
            Baton__Wire__Steal m;
            pb_unit_id id;
        } steal;
    } u;
    unsigned char cluster[sizeof(struct wire_cluster)];
};

static void put_id(pb_unit_id *out, const struct unit_id *id)
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

static void put_ping(struct scratch *s, const struct msg_ping *m, pb_envelope *e)
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
    struct scratch *s, const struct msg_gossip *m, bool delta, pb_envelope *e)
{
    INVARIANT(m->count <= (delta ? CORE_GOSSIP_ROWS : CORE_DIGEST_ROWS));
    baton__wire__gossip__init(&s->u.gossip.m);
    s->u.gossip.m.reply_wanted = m->reply_wanted;
    s->u.gossip.m.start = m->start;
    s->u.gossip.m.n_entry = m->count;
    s->u.gossip.m.entry = s->u.gossip.at;
    for (uint8_t i = 0; i < m->count; i++) {
        s->u.gossip.at[i] = &s->u.gossip.entry[i];
        put_gossip_entry(s->u.gossip.at[i], m, delta, i);
    }
    e->body_case = BATON__WIRE__ENVELOPE__BODY_GOSSIP;
    e->gossip = &s->u.gossip.m;
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
}

static void put_cfg(struct scratch *s, const struct msg_cfg *m, pb_envelope *e)
{
    INVARIANT(m->count <= CORE_TABLE_ROWS);
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
    to->n_member = to->n_row = m->count;
    to->member = s->u.cfg.member_at;
    to->row = s->u.cfg.row_at;
    for (uint8_t i = 0; i < m->count; i++) {
        Baton__Wire__Member *member = s->u.cfg.member_at[i] = &s->u.cfg.member[i];
        baton__wire__member__init(member);
        member->node = m->member[i].node;
        member->roles = m->member[i].roles;
        member->zone = m->member[i].zone;
        member->weight = m->member[i].weight;
        s->u.cfg.row_at[i] = &s->u.cfg.row[i];
        put_row(s->u.cfg.row_at[i], &m->row[i]);
    }
    e->body_case = BATON__WIRE__ENVELOPE__BODY_CFG;
    e->cfg = to;
}

static void put_lease(struct scratch *s, const struct msg_lease *m, pb_envelope *e)
{
    INVARIANT(m->row_count <= CORE_TABLE_ROWS);
    Baton__Wire__Lease *to = &s->u.lease.m;
    baton__wire__lease__init(to);
    to->nonce = m->nonce;
    to->acked = m->acked;
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

static void put_fence(struct scratch *s, const struct msg_fence *m, pb_envelope *e)
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

static void put_unit_row(struct scratch *s, const struct unit_row *r)
{
    INVARIANT(r->list_count <= CORE_LIST_MAX);
    Baton__Wire__UnitRow *to = &s->u.unit.row;
    baton__wire__unit_row__init(to);
    put_id(&s->u.unit.id, &r->id);
    to->id = &s->u.unit.id;
    to->term = r->term;
    to->owner_epoch = r->owner_epoch;
    to->owner = r->owner;
    to->mine = r->mine;
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

static void put_unit(struct scratch *s, const struct msg_unit *m, pb_envelope *e)
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
    e->body_case = BATON__WIRE__ENVELOPE__BODY_UNIT;
    e->unit = to;
}

static void put_attempt(struct scratch *s, const struct msg_attempt *m, pb_envelope *e)
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

static void put_sync(struct scratch *s, const struct msg_sync *m, bool digest, pb_envelope *e)
{
    Baton__Wire__Sync *to = &s->u.sync.m;
    baton__wire__sync__init(to);
    to->serial = m->serial;
    to->root = m->root;
    to->count = m->count;
    if (digest) {
        memcpy(s->u.sync.bucket, m->bucket, sizeof(m->bucket));
        to->n_bucket = COUNT(m->bucket);
        to->bucket = s->u.sync.bucket;
    }
    e->body_case = BATON__WIRE__ENVELOPE__BODY_SYNC;
    e->sync = to;
}

static void put_steal(struct scratch *s, const struct msg_steal *m, pb_envelope *e)
{
    Baton__Wire__Steal *to = &s->u.steal.m;
    baton__wire__steal__init(to);
    put_id(&s->u.steal.id, &m->id);
    to->id = &s->u.steal.id;
    to->max = m->max;
    e->body_case = BATON__WIRE__ENVELOPE__BODY_STEAL;
    e->steal = to;
}
