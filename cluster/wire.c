/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/wire.h"

#include "base/alloc.h"
#include "base/arena.h"
#include "cluster/wire_internal.h"

/* The number and the body of each kind on the wire. The core may renumber its own. */
static const struct {
    uint8_t wire;
    uint8_t group;
} KINDS[MSG_KIND_COUNT] = {
    [MSG_PING] = {BATON__WIRE__KIND__PING, WIRE_PING},
    [MSG_ACK] = {BATON__WIRE__KIND__ACK, WIRE_PING},
    [MSG_PING_REQ] = {BATON__WIRE__KIND__PING_REQ, WIRE_PING},
    [MSG_NACK] = {BATON__WIRE__KIND__NACK, WIRE_PING},
    [MSG_GOSSIP_DIGEST] = {BATON__WIRE__KIND__GOSSIP_DIGEST, WIRE_GOSSIP},
    [MSG_GOSSIP_DELTA] = {BATON__WIRE__KIND__GOSSIP_DELTA, WIRE_GOSSIP},
    [MSG_CFG_PREPARE] = {BATON__WIRE__KIND__CFG_PREPARE, WIRE_CFG},
    [MSG_CFG_PROMISE] = {BATON__WIRE__KIND__CFG_PROMISE, WIRE_CFG},
    [MSG_CFG_ACCEPT] = {BATON__WIRE__KIND__CFG_ACCEPT, WIRE_CFG},
    [MSG_CFG_ACCEPTED] = {BATON__WIRE__KIND__CFG_ACCEPTED, WIRE_CFG},
    [MSG_CFG_LEARN] = {BATON__WIRE__KIND__CFG_LEARN, WIRE_CFG},
    [MSG_CFG_PAGE] = {BATON__WIRE__KIND__CFG_PAGE, WIRE_CFG},
    [MSG_CFG_ASK] = {BATON__WIRE__KIND__CFG_ASK, WIRE_CFG},
    [MSG_CFG_STORED] = {BATON__WIRE__KIND__CFG_STORED, WIRE_CFG},
    [MSG_SEAL_READ] = {BATON__WIRE__KIND__SEAL_READ, WIRE_CFG},
    [MSG_SEAL_STATE] = {BATON__WIRE__KIND__SEAL_STATE, WIRE_CFG},
    [MSG_LEASE_REQ] = {BATON__WIRE__KIND__LEASE_REQ, WIRE_LEASE},
    [MSG_LEASE_RSP] = {BATON__WIRE__KIND__LEASE_RSP, WIRE_LEASE},
    [MSG_FENCE_REQ] = {BATON__WIRE__KIND__FENCE_REQ, WIRE_FENCE},
    [MSG_FENCE_RSP] = {BATON__WIRE__KIND__FENCE_RSP, WIRE_FENCE},
    [MSG_FENCE_NOTICE] = {BATON__WIRE__KIND__FENCE_NOTICE, WIRE_FENCE},
    [MSG_RESIGN] = {BATON__WIRE__KIND__RESIGN, WIRE_FENCE},
    [MSG_COPY] = {BATON__WIRE__KIND__COPY, WIRE_UNIT},
    [MSG_COPY_ACK] = {BATON__WIRE__KIND__COPY_ACK, WIRE_UNIT},
    [MSG_RELEASE] = {BATON__WIRE__KIND__RELEASE, WIRE_UNIT},
    [MSG_RELEASE_ACK] = {BATON__WIRE__KIND__RELEASE_ACK, WIRE_UNIT},
    [MSG_INTENT] = {BATON__WIRE__KIND__INTENT, WIRE_ATTEMPT},
    [MSG_INTENT_ACK] = {BATON__WIRE__KIND__INTENT_ACK, WIRE_ATTEMPT},
    [MSG_OUTCOME] = {BATON__WIRE__KIND__OUTCOME, WIRE_ATTEMPT},
    [MSG_OUTCOME_ACK] = {BATON__WIRE__KIND__OUTCOME_ACK, WIRE_ATTEMPT},
    [MSG_CLAIM_REQ] = {BATON__WIRE__KIND__CLAIM_REQ, WIRE_UNIT},
    [MSG_CLAIM_RSP] = {BATON__WIRE__KIND__CLAIM_RSP, WIRE_UNIT},
    [MSG_STEAL_REQ] = {BATON__WIRE__KIND__STEAL_REQ, WIRE_STEAL},
    [MSG_OFFER] = {BATON__WIRE__KIND__OFFER, WIRE_STEAL},
    [MSG_SYNC_REQ] = {BATON__WIRE__KIND__SYNC_REQ, WIRE_SYNC},
    [MSG_SYNC_REC] = {BATON__WIRE__KIND__SYNC_REC, WIRE_UNIT},
    [MSG_SYNC_ACK] = {BATON__WIRE__KIND__SYNC_ACK, WIRE_UNIT},
    [MSG_SYNC_END] = {BATON__WIRE__KIND__SYNC_END, WIRE_SYNC},
    [MSG_SYNC_DONE] = {BATON__WIRE__KIND__SYNC_DONE, WIRE_SYNC},
    [MSG_DIGEST] = {BATON__WIRE__KIND__DIGEST, WIRE_SYNC},
    [MSG_DONE] = {BATON__WIRE__KIND__DONE, WIRE_UNIT},
    [MSG_DONE_ACK] = {BATON__WIRE__KIND__DONE_ACK, WIRE_UNIT},
    [MSG_FORGET] = {BATON__WIRE__KIND__FORGET, WIRE_UNIT},
    [MSG_CREDIT] = {BATON__WIRE__KIND__CREDIT, WIRE_SYNC},
    [MSG_BUDGET_ASK] = {BATON__WIRE__KIND__BUDGET_ASK, WIRE_BUDGET},
    [MSG_BUDGET_GRANT] = {BATON__WIRE__KIND__BUDGET_GRANT, WIRE_BUDGET},
    [MSG_REPEAT_ASK] = {BATON__WIRE__KIND__REPEAT_ASK, WIRE_REPEAT},
    [MSG_REPEAT_ANSWER] = {BATON__WIRE__KIND__REPEAT_ANSWER, WIRE_REPEAT},
    [MSG_REPEAT_TOLD] = {BATON__WIRE__KIND__REPEAT_TOLD, WIRE_REPEAT},
};

static enum wire_group group_of(uint8_t kind)
{
    return kind < MSG_KIND_COUNT ? (enum wire_group)KINDS[kind].group : WIRE_NONE;
}

/* 0: we know no such kind. */
static uint8_t kind_of(int wire)
{
    for (size_t kind = 1; kind < MSG_KIND_COUNT; kind++)
        if (KINDS[kind].group != WIRE_NONE && KINDS[kind].wire == wire)
            return (uint8_t)kind;
    return 0;
}

/* protobuf-c has no const bytes, but packing only reads them. */
static ProtobufCBinaryData bytes_of(const void *ptr, size_t len)
{
    return (ProtobufCBinaryData){.len = len, .data = (uint8_t *)(uintptr_t)ptr};
}

static void put_envelope(pb_envelope *e, const struct core_env *env)
{
    e->cfg_ver = env->cfg_ver;
    e->from = env->from;
    e->from_epoch = env->from_epoch;
    e->to = env->to;
    e->via = env->via;
    e->seq = env->seq;
    e->clock_ns = env->clock_ns;
    e->echo_ns = env->echo_ns;
    e->echo_epoch = env->echo_epoch;
    e->lane = env->lane;
    e->hop = env->hop;
}

static bool may_carry(uint8_t kind)
{
    return kind == MSG_COPY || kind == MSG_OUTCOME;
}

static bool payload_fits(const struct wire_payload *p)
{
    return p->head.len <= WIRE_HEAD_MAX && p->chunk.len <= WIRE_CHUNK_MAX &&
           p->offset_bytes <= p->total_bytes &&
           p->chunk.len <= p->total_bytes - p->offset_bytes;
}

size_t wire_encode(const struct wire_cluster *cluster, const struct core_msg *msg,
    const struct wire_payload *payload, void *out, size_t max)
{
    enum wire_group group = group_of(msg->kind);
    INVARIANT(group != WIRE_NONE && msg->env.lane < LANE_COUNT);
    INVARIANT(!payload || may_carry(msg->kind));
    pb_envelope e = BATON__WIRE__ENVELOPE__INIT;
    Baton__Wire__Payload p = BATON__WIRE__PAYLOAD__INIT;
    struct wire_scratch scratch;
    e.version = WIRE_VERSION;
    e.needs = WIRE_NEEDS;
    e.cluster_id = bytes_of(cluster->id, sizeof(cluster->id));
    e.kind = (Baton__Wire__Kind)KINDS[msg->kind].wire;
    put_envelope(&e, &msg->env);
    wire_put(&scratch, msg, group, &e);
    if (payload) {
        if (!payload_fits(payload))
            return 0;
        p.head = bytes_of(payload->head.ptr, payload->head.len);
        p.chunk = bytes_of(payload->chunk.ptr, payload->chunk.len);
        p.offset = payload->offset_bytes;
        p.total = payload->total_bytes;
        e.payload = &p;
    }
    size_t len = baton__wire__envelope__get_packed_size(&e);
    if (len > max || len > WIRE_FRAME_MAX)
        return 0;
    return baton__wire__envelope__pack(&e, out);
}

/* The allocator of one decode: an arena behind a limit, so that a small frame that
 * announces many empty parts cannot ask for much memory. */
struct budget {
    struct arena *arena;
    size_t left;
};

static void *budget_alloc(void *data, size_t size)
{
    struct budget *b = data;
    size_t takes = (size + 15u) & ~(size_t)15u;
    if (size > WIRE_FRAME_MAX || takes > b->left)
        return NULL;
    b->left -= takes;
    return arena_alloc(b->arena, size ? size : 1);
}

static void budget_free(void *data, void *ptr)
{
    (void)data;
    (void)ptr; /* dies with the arena */
}

static bool get_envelope(const pb_envelope *e, struct core_env *env)
{
    if (e->from == 0 || e->lane >= LANE_COUNT || e->hop > 2)
        return false;
    env->cfg_ver = e->cfg_ver;
    env->from = e->from;
    env->from_epoch = e->from_epoch;
    env->to = e->to;
    env->via = e->via;
    env->seq = e->seq;
    env->clock_ns = e->clock_ns;
    env->echo_ns = e->echo_ns;
    env->echo_epoch = e->echo_epoch;
    env->lane = (uint8_t)e->lane;
    env->hop = (uint8_t)e->hop;
    return true;
}

static bool get_payload(const pb_envelope *e, uint8_t kind, struct wire_payload *out)
{
    *out = (struct wire_payload){.total_bytes = 0};
    if (!e->payload)
        return true;
    *out = (struct wire_payload){
        .head = slice_make(e->payload->head.data, e->payload->head.len),
        .chunk = slice_make(e->payload->chunk.data, e->payload->chunk.len),
        .offset_bytes = e->payload->offset,
        .total_bytes = e->payload->total};
    return may_carry(kind) && payload_fits(out);
}

static enum wire_result judge(const struct wire_cluster *cluster, const pb_envelope *e,
    struct core_msg *msg, struct wire_payload *payload)
{
    if (e->version == 0 || e->needs == 0 || e->needs > e->version ||
        e->cluster_id.len != sizeof(cluster->id))
        return WIRE_BAD;
    if (memcmp(e->cluster_id.data, cluster->id, sizeof(cluster->id)) != 0)
        return WIRE_FOREIGN;
    if (e->needs > WIRE_VERSION)
        return WIRE_NEWER;
    memset(msg, 0, sizeof(*msg));
    msg->kind = kind_of((int)e->kind);
    if (msg->kind == 0)
        return e->version > WIRE_VERSION ? WIRE_NEWER : WIRE_BAD;
    if (!get_envelope(e, &msg->env) || !wire_get(e, group_of(msg->kind), msg) ||
        !get_payload(e, msg->kind, payload))
        return WIRE_BAD;
    return WIRE_OK;
}

enum wire_result wire_decode(const struct wire_cluster *cluster, struct slice frame,
    struct arena *arena, struct core_msg *msg_out, struct wire_payload *payload_out)
{
    if (frame.len == 0 || frame.len > WIRE_FRAME_MAX)
        return WIRE_BAD;
    struct budget budget = {.arena = arena, .left = 16384 + 2 * frame.len};
    ProtobufCAllocator allocator = {budget_alloc, budget_free, &budget};
    const pb_envelope *e =
        baton__wire__envelope__unpack(&allocator, frame.len, (const uint8_t *)frame.ptr);
    if (!e)
        return WIRE_BAD;
    struct core_msg msg;
    struct wire_payload payload;
    enum wire_result result = judge(cluster, e, &msg, &payload);
    if (result == WIRE_OK) {
        *msg_out = msg;
        *payload_out = payload;
    }
    return result;
}
