/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/arena.h"
#include "proto/cluster.pb-c.h"

#define ROUNDS 200

static const struct wire_cluster CLUSTER = {
    {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

/* splitmix64: the same messages at every run */
static uint64_t state;
static uint64_t any(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint32_t any32(void)
{
    return (uint32_t)any();
}

static uint8_t upto(uint8_t most)
{
    return (uint8_t)(any() % (most + 1u));
}

static struct core_unit_id any_id(void)
{
    return (struct core_unit_id){.hi = any(), .lo = any(), .part = any32()};
}

static void fill_row(struct sess_row *r)
{
    r->node = any();
    r->cur = any32();
    r->fenced = any32();
    r->flags = upto(255);
}

static void fill_ping(struct msg_ping *m)
{
    m->nonce = any();
    m->target = any();
    m->count = upto(CORE_SWIM_UPDATES);
    for (uint8_t i = 0; i < m->count; i++) {
        m->update[i].node = any();
        m->update[i].epoch = any32();
        m->update[i].incarnation = any32();
        m->update[i].state = upto(255);
    }
}

static void fill_gossip(struct msg_gossip *m, bool delta)
{
    m->count = upto(delta ? CORE_GOSSIP_ROWS : CORE_DIGEST_ROWS);
    m->reply_wanted = upto(1);
    m->start = upto(255);
    m->after = any();
    for (uint8_t i = 0; i < m->count; i++)
        if (delta) {
            m->u.row[i].actor = any();
            m->u.row[i].epoch = any32();
            m->u.row[i].key = any32();
            m->u.row[i].version = any();
            m->u.row[i].length = upto(CORE_GOSSIP_VALUE);
            for (uint8_t j = 0; j < m->u.row[i].length; j++)
                m->u.row[i].value[j] = upto(255);
        } else {
            m->u.digest[i].actor = any();
            m->u.digest[i].epoch = any32();
            m->u.digest[i].version = any();
        }
}

static void fill_budget(struct msg_budget *m)
{
    m->sent_ns = any();
    m->count = upto(BUDGET_ENTRIES);
    for (uint8_t i = 0; i < m->count; i++) {
        m->entry[i].key = any();
        for (unsigned k = 0; k < BUDGET_KINDS; k++) {
            m->entry[i].holds[k] = any32();
            m->entry[i].want[k] = any32();
        }
    }
}

static void fill_ident(struct core_ident *id)
{
    if (upto(3) == 0)
        return; /* all zero: not on the wire */
    for (size_t i = 0; i < sizeof(id->key); i++)
        id->key[i] = upto(255);
    for (size_t i = 0; i < sizeof(id->address); i++)
        id->address[i] = upto(255);
    uint8_t length = upto(sizeof(id->name));
    for (uint8_t i = 0; i < length; i++)
        id->name[i] = (char)(1 + upto(126));
}

static void fill_cfg(struct msg_cfg *m, bool rows)
{
    m->ver = any();
    m->ballot = any();
    m->accepted = any();
    m->change.proposer = any();
    m->change.node = any();
    m->change.serial = any32();
    m->change.op = upto(255);
    m->change.roles = upto(255);
    m->change.zone = upto(255);
    m->change.weight = upto(255);
    m->ok = upto(255);
    m->page = upto(255);
    m->page_count = upto(255);
    m->copies = upto(255);
    m->min_copies = upto(255);
    m->mode = upto(255);
    m->flags = upto(255);
    m->mode_ver = any();
    m->voters_ver = any();
    m->prev_ver = any();
    m->was_voters = upto(255);
    m->change.off = any();
    m->change.off_epoch = any32();
    m->change.mode = upto(255);
    m->change.copies = upto(255);
    m->change.min_copies = upto(255);
    fill_ident(&m->change.ident);
    m->count = upto(rows ? CORE_TABLE_ROWS : CORE_PAGE_MEMBERS);
    for (uint8_t i = 0; rows && i < m->count; i++)
        fill_row(&m->u.row[i]);
    for (uint8_t i = 0; !rows && i < m->count; i++) {
        m->u.member[i].node = any();
        m->u.member[i].roles = upto(255);
        m->u.member[i].zone = upto(255);
        m->u.member[i].weight = upto(255);
        fill_ident(&m->u.member[i].ident);
    }
}

static void fill_lease(struct msg_lease *m)
{
    m->nonce = any();
    m->acked = any();
    m->birth = any();
    m->wait_ns = any();
    m->answer = upto(LEASE_SEALED);
    m->page = upto(255);
    m->page_count = upto(255);
    m->row_count = upto(CORE_TABLE_ROWS);
    for (uint8_t i = 0; i < m->row_count; i++)
        fill_row(&m->row[i]);
}

static void fill_fence(struct msg_fence *m)
{
    m->node = any();
    m->epoch = any32();
    m->hold_s = any32();
    m->answer = upto(FENCE_NO);
    m->flags = upto(255);
}

static uint64_t mask(uint8_t bits)
{
    return bits >= 64 ? any() : any() & (((uint64_t)1 << bits) - 1);
}

static void fill_unit(struct msg_unit *m)
{
    struct unit_row *r = &m->row;
    r->id = any_id();
    r->term = any32();
    r->owner_epoch = any32();
    r->owner = any();
    r->state = upto(UNIT_ABORTED);
    r->rcpt_count = upto(64);
    r->list_count = upto(CORE_LIST_MAX);
    r->flags = upto(255);
    for (uint8_t i = 0; i < r->list_count; i++) {
        r->list[i].node = any();
        r->list[i].fenced = any32();
        r->list[i].status = (uint8_t)(1 + upto(LIST_RELEASING - 1));
    }
    r->delivered = mask(r->rcpt_count);
    r->failed = mask(r->rcpt_count);
    r->doubt = mask(r->rcpt_count);
    r->attempt = any();
    r->due_s = any32();
    r->expires_s = any32();
    r->size_bytes = any32();
    r->body_crc = any32();
    m->claim_term = any32();
    m->answer = upto(ANS_TOMB);
    m->consented = upto(255);
    m->owner_gave = upto(1);
    m->steal = upto(1);
    m->mail = upto(1);
}

static void fill_attempt(struct msg_attempt *m)
{
    m->id = any_id();
    m->attempt = any();
    m->rcpts = any();
    m->delivered = any();
    m->failed = any();
    m->term = any32();
    m->due_s = any32();
    m->answer = upto(ANS_TOMB);
    m->narrow = upto(1);
}

static void fill_sync(struct msg_sync *m, bool digest)
{
    m->serial = any32();
    m->root = any();
    m->count = any32();
    for (unsigned i = 0; digest && i < CORE_DIGEST_ROWS; i++)
        m->bucket[i] = any();
}

static void fill_body(struct core_msg *m)
{
    switch ((enum core_msg_kind)m->kind) {
    case MSG_PING:
    case MSG_ACK:
    case MSG_PING_REQ:
    case MSG_NACK:
        fill_ping(&m->u.ping);
        break;
    case MSG_GOSSIP_DIGEST:
    case MSG_GOSSIP_DELTA:
        fill_gossip(&m->u.gossip, m->kind == MSG_GOSSIP_DELTA);
        break;
    case MSG_CFG_PREPARE:
    case MSG_CFG_PROMISE:
    case MSG_CFG_ACCEPT:
    case MSG_CFG_ACCEPTED:
    case MSG_CFG_LEARN:
    case MSG_CFG_PAGE:
    case MSG_CFG_ASK:
    case MSG_CFG_STORED:
    case MSG_SEAL_READ:
    case MSG_SEAL_STATE:
        fill_cfg(&m->u.cfg, m->kind == MSG_SEAL_STATE);
        break;
    case MSG_LEASE_REQ:
    case MSG_LEASE_RSP:
        fill_lease(&m->u.lease);
        break;
    case MSG_FENCE_REQ:
    case MSG_FENCE_RSP:
    case MSG_FENCE_NOTICE:
    case MSG_RESIGN:
        fill_fence(&m->u.fence);
        break;
    case MSG_COPY:
    case MSG_COPY_ACK:
    case MSG_RELEASE:
    case MSG_RELEASE_ACK:
    case MSG_CLAIM_REQ:
    case MSG_CLAIM_RSP:
    case MSG_SYNC_REC:
    case MSG_SYNC_ACK:
    case MSG_DONE:
    case MSG_DONE_ACK:
    case MSG_FORGET:
        fill_unit(&m->u.unit);
        break;
    case MSG_INTENT:
    case MSG_INTENT_ACK:
    case MSG_OUTCOME:
    case MSG_OUTCOME_ACK:
        fill_attempt(&m->u.attempt);
        break;
    case MSG_SYNC_REQ:
    case MSG_SYNC_END:
    case MSG_SYNC_DONE:
    case MSG_DIGEST:
    case MSG_CREDIT:
        fill_sync(&m->u.sync, m->kind == MSG_DIGEST);
        break;
    case MSG_STEAL_REQ:
    case MSG_OFFER:
        m->u.steal.id = any_id();
        m->u.steal.max = any32();
        break;
    case MSG_BUDGET_ASK:
    case MSG_BUDGET_GRANT:
        fill_budget(&m->u.budget);
        break;
    case MSG_REPEAT_ASK:
    case MSG_REPEAT_ANSWER:
    case MSG_REPEAT_TOLD:
        m->u.repeat.number = any();
        m->u.repeat.hi = any();
        m->u.repeat.lo = any();
        for (unsigned i = 0; i < MSG_REPEAT_KEY; i++)
            m->u.repeat.key[i] = upto(255);
        m->u.repeat.answer = upto(2);
        break;
    case MSG_KIND_COUNT:
        fail();
    }
}

/* A message with every field at random, within its range; all else zero. */
static struct core_msg any_msg(uint8_t kind)
{
    struct core_msg m;
    memset(&m, 0, sizeof(m));
    m.kind = kind;
    m.env.cfg_ver = any();
    m.env.from = any() | 1;
    m.env.to = any();
    m.env.via = any();
    m.env.seq = any();
    m.env.clock_ns = any();
    m.env.echo_ns = any();
    m.env.echo_epoch = any32();
    m.env.from_epoch = any32();
    m.env.lane = upto(LANE_COUNT - 1);
    m.env.hop = upto(2);
    fill_body(&m);
    return m;
}

static size_t encode(const struct core_msg *m, unsigned char *out)
{
    size_t len = wire_encode(&CLUSTER, m, NULL, out, WIRE_MESSAGE_MAX);
    assert_true(len > 0);
    return len;
}

static enum wire_result decode(const void *frame, size_t len, struct core_msg *out)
{
    struct arena *arena = arena_new(4096);
    struct wire_payload payload;
    enum wire_result result =
        wire_decode(&CLUSTER, slice_make(frame, len), arena, out, &payload);
    arena_free(arena);
    return result;
}

static void assert_same(const struct core_msg *a, const struct core_msg *b)
{
    assert_memory_equal(&a->env, &b->env, sizeof(a->env));
    assert_int_equal(a->kind, b->kind);
    assert_memory_equal(&a->u, &b->u, sizeof(a->u));
}

static void every_kind_comes_back(void **unused)
{
    (void)unused;
    unsigned char frame[WIRE_MESSAGE_MAX];
    for (uint8_t kind = 1; kind < MSG_KIND_COUNT; kind++)
        for (unsigned i = 0; i < ROUNDS; i++) {
            struct core_msg in = any_msg(kind), out;
            size_t len = encode(&in, frame);
            assert_int_equal(decode(frame, len, &out), WIRE_OK);
            assert_same(&in, &out);
        }
}

/* A field more in msg.h must go into cluster.proto, wire_put.c, wire_get.c and here. */
static void structs_have_not_grown(void **unused)
{
    (void)unused;
    assert_int_equal(sizeof(struct core_env), 72);
    assert_int_equal(sizeof(struct msg_ping), 168);
    assert_int_equal(sizeof(struct msg_gossip), 400);
    assert_int_equal(sizeof(struct msg_cfg), 376);
    assert_int_equal(sizeof(struct msg_lease), 232);
    assert_int_equal(sizeof(struct msg_fence), 24);
    assert_int_equal(sizeof(struct unit_row), 224);
    assert_int_equal(sizeof(struct msg_unit), 240);
    assert_int_equal(sizeof(struct msg_attempt), 72);
    assert_int_equal(sizeof(struct msg_sync), 152);
    assert_int_equal(sizeof(struct msg_steal), 32);
    assert_int_equal(sizeof(struct msg_budget), 400);
    assert_int_equal(sizeof(struct msg_repeat), 48);
}

static void a_right_does_not_travel(void **unused)
{
    (void)unused;
    unsigned char frame[WIRE_MESSAGE_MAX];
    struct core_msg in = any_msg(MSG_SYNC_REC), out;
    in.u.unit.row.mine = 7;
    size_t len = encode(&in, frame);
    assert_int_equal(decode(frame, len, &out), WIRE_OK);
    assert_int_equal(out.u.unit.row.mine, 0);
}

static void a_cut_frame_is_bad(void **unused)
{
    (void)unused;
    unsigned char frame[WIRE_MESSAGE_MAX];
    for (uint8_t kind = 1; kind < MSG_KIND_COUNT; kind++) {
        struct core_msg in = any_msg(kind), out;
        size_t len = encode(&in, frame);
        for (size_t cut = 0; cut < len; cut++) {
            unsigned char *exact = malloc(cut ? cut : 1); /* so that a sanitizer sees */
            assert_non_null(exact);
            memcpy(exact, frame, cut);
            assert_int_equal(decode(exact, cut, &out), WIRE_BAD);
            free(exact);
        }
    }
}

static void a_flipped_bit_is_refused_or_read(void **unused)
{
    (void)unused;
    unsigned char frame[WIRE_MESSAGE_MAX], again[WIRE_MESSAGE_MAX];
    for (uint8_t kind = 1; kind < MSG_KIND_COUNT; kind++) {
        struct core_msg in = any_msg(kind), out, second;
        size_t len = encode(&in, frame);
        for (size_t bit = 0; bit < len * 8; bit++) {
            frame[bit / 8] ^= (unsigned char)(1u << bit % 8);
            if (decode(frame, len, &out) == WIRE_OK) {
                size_t len2 = encode(&out, again);
                assert_int_equal(decode(again, len2, &second), WIRE_OK);
                assert_same(&out, &second);
            }
            frame[bit / 8] ^= (unsigned char)(1u << bit % 8);
        }
    }
}

static void unknown_fields_are_ignored(void **unused)
{
    (void)unused;
    unsigned char frame[WIRE_MESSAGE_MAX + 16];
    /* field 1000: varint 5; field 1001: 3 bytes */
    static const unsigned char MORE[] = {
        0xc0, 0x3e, 0x05, 0xca, 0x3e, 0x03, 'a', 'b', 'c'};
    for (uint8_t kind = 1; kind < MSG_KIND_COUNT; kind++) {
        struct core_msg in = any_msg(kind), out;
        size_t len = encode(&in, frame);
        memcpy(frame + len, MORE, sizeof(MORE));
        assert_int_equal(decode(frame, len + sizeof(MORE), &out), WIRE_OK);
        assert_same(&in, &out);
    }
}

static void another_cluster_is_foreign(void **unused)
{
    (void)unused;
    unsigned char frame[WIRE_MESSAGE_MAX];
    struct wire_cluster other = CLUSTER;
    other.id[15] ^= 1;
    struct core_msg in = any_msg(MSG_PING), out;
    size_t len = wire_encode(&other, &in, NULL, frame, sizeof(frame));
    assert_int_equal(decode(frame, len, &out), WIRE_FOREIGN);
}

/* ---- frames that no encoder of ours makes ---- */

/* clang-format off */
typedef void change_fn(Baton__Wire__Envelope *e);
#define CHANGE(name, ...)                                                                \
    static void name(Baton__Wire__Envelope *e)                                           \
    {                                                                                    \
        __VA_ARGS__;                                                                     \
    }

CHANGE(newer_tolerant, e->version = 9)
CHANGE(newer, e->version = e->needs = 2)
CHANGE(newer_kind, e->version = 2; e->kind = (Baton__Wire__Kind)250)
CHANGE(no_version, e->version = 0)
CHANGE(no_needs, e->needs = 0)
CHANGE(needs_above_version, e->needs = 2)
CHANGE(short_cluster, e->cluster_id.len = 15)
CHANGE(from_nobody, e->from = 0)
CHANGE(fourth_lane, e->lane = LANE_COUNT)
CHANGE(three_hops, e->hop = 3)
CHANGE(wide_lane, e->lane = 256)
CHANGE(unknown_kind, e->kind = (Baton__Wire__Kind)250)
CHANGE(kind_of_other_body, e->kind = BATON__WIRE__KIND__LEASE_REQ)
CHANGE(no_row, e->unit->row = NULL)
CHANGE(no_id, e->unit->row->id = NULL)
CHANGE(state_4, e->unit->row->state = UNIT_ABORTED + 1)
CHANGE(rcpts_65, e->unit->row->rcpt_count = 65)
CHANGE(stray_recipient, e->unit->row->rcpt_count = 3; e->unit->row->doubt = 8)
CHANGE(wide_flags, e->unit->row->flags = 256)
CHANGE(wide_consent, e->unit->consented = 256)
CHANGE(half_steal, e->unit->steal = 2)
CHANGE(half_mail, e->unit->mail = 2)
CHANGE(status_0, e->unit->row->list[0]->status = 0)
CHANGE(status_4, e->unit->row->list[0]->status = LIST_RELEASING + 1)
/* clang-format on */

static void one_name_too_many(Baton__Wire__Envelope *e)
{
    static Baton__Wire__Holder *list[CORE_LIST_MAX + 1];
    for (unsigned i = 0; i <= CORE_LIST_MAX; i++)
        list[i] = e->unit->row->list[0];
    e->unit->row->list = list;
    e->unit->row->n_list = CORE_LIST_MAX + 1;
}

static void payload_too_far(Baton__Wire__Envelope *e)
{
    static Baton__Wire__Payload p = BATON__WIRE__PAYLOAD__INIT;
    p.offset = UINT64_MAX;
    p.total = 5;
    e->payload = &p;
}

static const struct {
    const char *name;
    change_fn *change;
    enum wire_result want;
} CHANGES[] = {
    {"newer but tolerant", newer_tolerant, WIRE_OK},
    {"newer", newer, WIRE_NEWER},
    {"newer kind", newer_kind, WIRE_NEWER},
    {"no version", no_version, WIRE_BAD},
    {"no needs", no_needs, WIRE_BAD},
    {"needs above version", needs_above_version, WIRE_BAD},
    {"short cluster id", short_cluster, WIRE_BAD},
    {"from nobody", from_nobody, WIRE_BAD},
    {"lane", fourth_lane, WIRE_BAD},
    {"lane 256", wide_lane, WIRE_BAD},
    {"hop", three_hops, WIRE_BAD},
    {"kind", unknown_kind, WIRE_BAD},
    {"body of another kind", kind_of_other_body, WIRE_BAD},
    {"no row", no_row, WIRE_BAD},
    {"no id", no_id, WIRE_BAD},
    {"state", state_4, WIRE_BAD},
    {"65 recipients", rcpts_65, WIRE_BAD},
    {"bit of no recipient", stray_recipient, WIRE_BAD},
    {"flags 256", wide_flags, WIRE_BAD},
    {"consented 256", wide_consent, WIRE_BAD},
    {"steal 2", half_steal, WIRE_BAD},
    {"mail 2", half_mail, WIRE_BAD},
    {"status 0", status_0, WIRE_BAD},
    {"status 4", status_4, WIRE_BAD},
    {"nine names", one_name_too_many, WIRE_BAD},
    {"payload behind the end", payload_too_far, WIRE_BAD},
};

static void *from_arena(void *arena, size_t size)
{
    return arena_alloc(arena, size ? size : 1);
}

static void stays(void *arena, void *ptr)
{
    (void)arena;
    (void)ptr;
}

static enum wire_result decode_changed(const struct core_msg *m, change_fn *change)
{
    unsigned char frame[WIRE_MESSAGE_MAX], bad[2 * WIRE_MESSAGE_MAX];
    struct core_msg out;
    struct arena *arena =
        arena_new(4096); /* so that a change may tear what was unpacked */
    ProtobufCAllocator allocator = {from_arena, stays, arena};
    size_t len = encode(m, frame);
    Baton__Wire__Envelope *e = baton__wire__envelope__unpack(&allocator, len, frame);
    assert_non_null(e);
    change(e);
    assert_true(baton__wire__envelope__get_packed_size(e) <= sizeof(bad));
    len = baton__wire__envelope__pack(e, bad);
    arena_free(arena);
    return decode(bad, len, &out);
}

static void values_out_of_range_are_refused(void **unused)
{
    (void)unused;
    struct core_msg m = any_msg(MSG_COPY);
    m.u.unit.row.list_count = 1;
    m.u.unit.row.list[0].status = LIST_HOLD;
    for (size_t i = 0; i < sizeof(CHANGES) / sizeof(CHANGES[0]); i++) {
        enum wire_result got = decode_changed(&m, CHANGES[i].change);
        if (got != CHANGES[i].want)
            print_error("%s\n", CHANGES[i].name);
        assert_int_equal(got, CHANGES[i].want);
    }
}

static void too_many_parts(Baton__Wire__Envelope *e)
{
    static Baton__Wire__SessRow row = BATON__WIRE__SESS_ROW__INIT;
    static Baton__Wire__SessRow *rows[CORE_TABLE_ROWS + 1];
    static Baton__Wire__SwimUpdate update = BATON__WIRE__SWIM_UPDATE__INIT;
    static Baton__Wire__SwimUpdate *updates[CORE_SWIM_UPDATES + 1];
    for (unsigned i = 0; i <= CORE_TABLE_ROWS; i++)
        rows[i] = &row;
    for (unsigned i = 0; i <= CORE_SWIM_UPDATES; i++)
        updates[i] = &update;
    if (e->body_case == BATON__WIRE__ENVELOPE__BODY_LEASE) {
        e->lease->n_row = CORE_TABLE_ROWS + 1;
        e->lease->row = rows;
    } else if (e->body_case == BATON__WIRE__ENVELOPE__BODY_CFG) {
        e->cfg->n_row = 1; /* where members belong */
        e->cfg->row = rows;
    } else if (e->body_case == BATON__WIRE__ENVELOPE__BODY_PING) {
        e->ping->n_update = CORE_SWIM_UPDATES + 1;
        e->ping->update = updates;
    } else if (e->body_case == BATON__WIRE__ENVELOPE__BODY_SYNC) {
        e->sync->n_bucket = e->sync->n_bucket ? e->sync->n_bucket - 1 : 0;
    } else if (e->body_case == BATON__WIRE__ENVELOPE__BODY_REPEAT) {
        e->repeat->key.len--;
    } else if (e->body_case == BATON__WIRE__ENVELOPE__BODY_BUDGET) {
        static Baton__Wire__BudgetEntry entry = BATON__WIRE__BUDGET_ENTRY__INIT;
        static Baton__Wire__BudgetEntry *entries[BUDGET_ENTRIES + 1];
        for (unsigned i = 0; i <= BUDGET_ENTRIES; i++)
            entries[i] = &entry;
        e->budget->n_entry = BUDGET_ENTRIES + 1;
        e->budget->entry = entries;
    }
}

static void counts_out_of_range_are_refused(void **unused)
{
    (void)unused;
    struct core_msg lease = any_msg(MSG_LEASE_RSP), cfg = any_msg(MSG_CFG_PAGE);
    struct core_msg ping = any_msg(MSG_PING), digest = any_msg(MSG_DIGEST);
    struct core_msg budget = any_msg(MSG_BUDGET_ASK), repeat = any_msg(MSG_REPEAT_ASK);
    lease.u.lease.row_count = cfg.u.cfg.count = ping.u.ping.count = 0;
    assert_int_equal(decode_changed(&lease, too_many_parts), WIRE_BAD);
    assert_int_equal(decode_changed(&cfg, too_many_parts), WIRE_BAD);
    assert_int_equal(decode_changed(&ping, too_many_parts), WIRE_BAD);
    assert_int_equal(decode_changed(&digest, too_many_parts), WIRE_BAD);
    assert_int_equal(decode_changed(&budget, too_many_parts), WIRE_BAD);
    assert_int_equal(decode_changed(&repeat, too_many_parts), WIRE_BAD);
}

static void bad_ident(Baton__Wire__Envelope *e)
{
    static unsigned char bytes[64];
    static const size_t lengths[] = {1, 31, 33, 64};
    static unsigned turn;
    e->cfg->change->key.data = bytes;
    e->cfg->change->key.len = lengths[turn++ % 4];
}

static void bad_address(Baton__Wire__Envelope *e)
{
    static unsigned char bytes[19];
    e->cfg->change->address.data = bytes;
    e->cfg->change->address.len = sizeof(bytes);
}

static void long_name(Baton__Wire__Envelope *e)
{
    static unsigned char name[] = "a name of thirty-one characters";
    e->cfg->change->name.data = name;
    e->cfg->change->name.len = sizeof(name) - 1;
}

static void name_with_nul(Baton__Wire__Envelope *e)
{
    static unsigned char name[] = "a\0b";
    e->cfg->change->name.data = name;
    e->cfg->change->name.len = 3;
}

static void three_members(Baton__Wire__Envelope *e)
{
    static Baton__Wire__Member one = BATON__WIRE__MEMBER__INIT;
    static Baton__Wire__Member *all[] = {&one, &one, &one};
    e->cfg->member = all;
    e->cfg->n_member = 3;
}

static void identities_are_bounded(void **unused)
{
    (void)unused;
    struct core_msg m = any_msg(MSG_CFG_PAGE);
    for (int i = 0; i < 4; i++)
        assert_int_equal(decode_changed(&m, bad_ident), WIRE_BAD);
    assert_int_equal(decode_changed(&m, bad_address), WIRE_BAD);
    assert_int_equal(decode_changed(&m, long_name), WIRE_BAD);
    assert_int_equal(decode_changed(&m, name_with_nul), WIRE_BAD);
    assert_int_equal(decode_changed(&m, three_members), WIRE_BAD);
}

static void long_value(Baton__Wire__Envelope *e)
{
    static unsigned char value[CORE_GOSSIP_VALUE + 1];
    static Baton__Wire__GossipEntry entry = BATON__WIRE__GOSSIP_ENTRY__INIT;
    static Baton__Wire__GossipEntry *entries[] = {&entry};
    entry.value.data = value;
    entry.value.len = sizeof(value);
    e->gossip->entry = entries;
    e->gossip->n_entry = 1;
}

static void a_long_gossip_value_is_refused(void **unused)
{
    (void)unused;
    struct core_msg m = any_msg(MSG_GOSSIP_DELTA);
    m.u.gossip.count = 0;
    assert_int_equal(decode_changed(&m, long_value), WIRE_BAD);
}

/* 16 KiB of empty SWIM updates, two bytes each, would be 400 KiB as structs. */
static void many_empty_parts_get_no_memory(void **unused)
{
    (void)unused;
    enum { PARTS = 8000 };
    static unsigned char frame[WIRE_MESSAGE_MAX + 4 * PARTS];
    struct core_msg m = any_msg(MSG_PING);
    m.u.ping.count = 0;
    size_t len = encode(&m, frame);
    unsigned char *at = frame + len; /* the body again: protobuf merges both */
    *at++ = 0x82;
    *at++ = 0x01; /* field 16, a message */
    *at++ = ((2 * PARTS) & 0x7f) | 0x80;
    *at++ = ((2 * PARTS) >> 7 & 0x7f) | 0x80;
    *at++ = (2 * PARTS) >> 14;
    for (unsigned i = 0; i < PARTS; i++) {
        *at++ = 0x1a; /* update: empty */
        *at++ = 0;
    }
    struct arena *arena = arena_new(1024);
    struct wire_payload payload;
    struct core_msg out;
    len = (size_t)(at - frame);
    assert_int_equal(
        wire_decode(&CLUSTER, slice_make(frame, len), arena, &out, &payload), WIRE_BAD);
    assert_true(arena_bytes(arena) <= 2 * (16384 + 2 * len));
    arena_free(arena);
}

static void a_payload_travels(uint8_t kind)
{
    static unsigned char chunk[WIRE_CHUNK_MAX], frame[WIRE_FRAME_MAX];
    for (size_t i = 0; i < sizeof(chunk); i++)
        chunk[i] = upto(255);
    struct wire_payload in = {
        SLICE("envelope"), slice_make(chunk, sizeof(chunk)), 7, 1u << 20};
    struct wire_payload out;
    struct core_msg m = any_msg(kind), back;
    size_t len = wire_encode(&CLUSTER, &m, &in, frame, sizeof(frame));
    assert_true(len > sizeof(chunk));
    struct arena *arena = arena_new(1024);
    assert_int_equal(
        wire_decode(&CLUSTER, slice_make(frame, len), arena, &back, &out), WIRE_OK);
    assert_same(&m, &back);
    assert_true(slice_eq(in.head, out.head) && slice_eq(in.chunk, out.chunk));
    assert_int_equal(out.offset_bytes, 7);
    assert_int_equal(out.total_bytes, 1u << 20);
    arena_free(arena);
}

static void a_payload_travels_with_copy_and_outcome(void **unused)
{
    (void)unused;
    a_payload_travels(MSG_COPY);
    a_payload_travels(MSG_OUTCOME);
}

static void what_does_not_fit_is_not_written(void **unused)
{
    (void)unused;
    static unsigned char frame[WIRE_FRAME_MAX], bytes[WIRE_CHUNK_MAX + 1];
    struct core_msg m = any_msg(MSG_COPY);
    struct wire_payload big = {
        SLICE(""), slice_make(bytes, sizeof(bytes)), 0, sizeof(bytes)};
    struct wire_payload beyond = {SLICE(""), slice_make(bytes, 10), 1, 10};
    assert_int_equal(wire_encode(&CLUSTER, &m, &big, frame, sizeof(frame)), 0);
    assert_int_equal(wire_encode(&CLUSTER, &m, &beyond, frame, sizeof(frame)), 0);
    size_t len = encode(&m, frame);
    assert_int_equal(wire_encode(&CLUSTER, &m, NULL, frame, len - 1), 0);
    assert_int_equal(wire_encode(&CLUSTER, &m, NULL, frame, len), len);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_comes_back),
        cmocka_unit_test(structs_have_not_grown),
        cmocka_unit_test(a_right_does_not_travel),
        cmocka_unit_test(a_cut_frame_is_bad),
        cmocka_unit_test(a_flipped_bit_is_refused_or_read),
        cmocka_unit_test(unknown_fields_are_ignored),
        cmocka_unit_test(another_cluster_is_foreign),
        cmocka_unit_test(values_out_of_range_are_refused),
        cmocka_unit_test(counts_out_of_range_are_refused),
        cmocka_unit_test(identities_are_bounded),
        cmocka_unit_test(a_long_gossip_value_is_refused),
        cmocka_unit_test(many_empty_parts_get_no_memory),
        cmocka_unit_test(a_payload_travels_with_copy_and_outcome),
        cmocka_unit_test(what_does_not_fit_is_not_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
