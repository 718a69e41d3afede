/* SPDX-License-Identifier: Apache-2.0 */
#include "node/cluster/rows.h"

#include "base/alloc.h"

#define ROWS_VERSION 1

/* One walk over the fields both writes and reads, so that they cannot disagree. */
struct walk {
    unsigned char *at;
    unsigned char *end;
    bool writing;
    bool bad;
};

static void walk_bytes(struct walk *w, void *value, size_t len)
{
    if (w->bad || (size_t)(w->end - w->at) < len) {
        w->bad = true;
        return;
    }
    if (w->writing)
        memcpy(w->at, value, len);
    else
        memcpy(value, w->at, len);
    w->at += len;
}

static void walk_u64(struct walk *w, uint64_t *value)
{
    unsigned char raw[8];
    for (int i = 0; i < 8; i++)
        raw[i] = (unsigned char)(*value >> (56 - 8 * i));
    walk_bytes(w, raw, sizeof(raw));
    if (w->writing || w->bad)
        return;
    *value = 0;
    for (int i = 0; i < 8; i++)
        *value = *value << 8 | raw[i];
}

static void walk_u32(struct walk *w, uint32_t *value)
{
    unsigned char raw[4];
    for (int i = 0; i < 4; i++)
        raw[i] = (unsigned char)(*value >> (24 - 8 * i));
    walk_bytes(w, raw, sizeof(raw));
    if (w->writing || w->bad)
        return;
    *value =
        (uint32_t)raw[0] << 24 | (uint32_t)raw[1] << 16 | (uint32_t)raw[2] << 8 | raw[3];
}

static void walk_u8(struct walk *w, uint8_t *value)
{
    walk_bytes(w, value, 1);
}

/* Reading: what lies outside [min, max] is damage. */
static void walk_range(struct walk *w, uint8_t *value, uint8_t min, uint8_t max)
{
    walk_u8(w, value);
    if (!w->writing && !w->bad && (*value < min || *value > max))
        w->bad = true;
}

static void walk_version(struct walk *w)
{
    uint8_t version = ROWS_VERSION;
    walk_range(w, &version, ROWS_VERSION, ROWS_VERSION);
}

/* --- the fields --- */

static void walk_meta(struct walk *w, struct core_meta *m)
{
    walk_u64(w, &m->node);
    walk_u32(w, &m->epoch);
    walk_u64(w, &m->lease_max_ns);
}

static void walk_ident(struct walk *w, struct core_ident *i)
{
    walk_bytes(w, i->key, sizeof(i->key));
    walk_bytes(w, i->address, sizeof(i->address));
    walk_bytes(w, i->name, sizeof(i->name));
}

static void walk_member(struct walk *w, struct core_member *m)
{
    walk_u64(w, &m->node);
    walk_u8(w, &m->roles);
    walk_u8(w, &m->zone);
    walk_u8(w, &m->weight);
    walk_ident(w, &m->ident);
    if (!w->writing && m->node == 0)
        w->bad = true;
}

static void walk_cfg(struct walk *w, struct core_cfg *c)
{
    walk_u64(w, &c->ver);
    walk_u64(w, &c->mode_ver);
    walk_u64(w, &c->voters_ver);
    walk_u64(w, &c->prev_ver);
    walk_range(w, &c->mode, 0, MODE_STATIC);
    walk_range(w, &c->copies, 0, CORE_LIST_MAX);
    walk_range(w, &c->min_copies, 0, CORE_LIST_MAX);
    walk_u8(w, &c->flags);
    walk_u8(w, &c->was_voters);
    walk_range(w, &c->count, 0, CORE_MEMBERS_MAX);
    for (uint8_t i = 0; i < c->count && !w->bad; i++)
        walk_member(w, &c->member[i]);
}

static void walk_change(struct walk *w, struct cfg_change *c)
{
    walk_u64(w, &c->proposer);
    walk_u64(w, &c->node);
    walk_u64(w, &c->off);
    walk_u32(w, &c->off_epoch);
    walk_u32(w, &c->serial);
    walk_u8(w, &c->op);
    walk_u8(w, &c->roles);
    walk_u8(w, &c->zone);
    walk_u8(w, &c->weight);
    walk_u8(w, &c->mode);
    walk_u8(w, &c->copies);
    walk_u8(w, &c->min_copies);
    walk_ident(w, &c->ident);
}

static void walk_paxos(struct walk *w, struct core_paxos_row *p)
{
    walk_u64(w, &p->ver);
    walk_u64(w, &p->promised);
    walk_u64(w, &p->accepted);
    walk_u64(w, &p->active);
    walk_change(w, &p->change);
}

static void walk_sess(struct walk *w, struct sess_row *s)
{
    walk_u64(w, &s->node);
    walk_u32(w, &s->cur);
    walk_u32(w, &s->fenced);
    walk_u8(w, &s->flags);
}

static void walk_fence(struct walk *w, struct core_fence_row *f)
{
    walk_u64(w, &f->node);
    walk_u32(w, &f->fenced);
    walk_u32(w, &f->known);
}

/* The id is the row's key. */
static void walk_unit(struct walk *w, struct unit_row *u)
{
    walk_u32(w, &u->term);
    walk_u32(w, &u->owner_epoch);
    walk_u64(w, &u->owner);
    walk_u32(w, &u->mine);
    walk_range(w, &u->state, UNIT_LIVE, UNIT_ABORTED);
    walk_range(w, &u->rcpt_count, 1, 64);
    walk_u8(w, &u->flags);
    walk_u64(w, &u->delivered);
    walk_u64(w, &u->failed);
    walk_u64(w, &u->doubt);
    walk_u64(w, &u->attempt);
    walk_u32(w, &u->due_s);
    walk_u32(w, &u->expires_s);
    walk_u32(w, &u->size_bytes);
    walk_u32(w, &u->body_crc);
    walk_range(w, &u->list_count, 0, CORE_LIST_MAX);
    for (uint8_t i = 0; i < u->list_count && !w->bad; i++) {
        walk_u64(w, &u->list[i].node);
        walk_u32(w, &u->list[i].fenced);
        walk_range(w, &u->list[i].status, LIST_HOLD, LIST_RELEASING);
    }
}

static void walk_identity(struct walk *w, struct cluster_identity *id)
{
    walk_bytes(w, id->id, sizeof(id->id));
    walk_bytes(w, id->name, sizeof(id->name));
    if (!w->writing && !w->bad && !memchr(id->name, '\0', sizeof(id->name)))
        w->bad = true;
}

/* --- keys --- */

struct unit_id rows_unit_id(const struct core_unit_id *id)
{
    struct unit_id out = {.unit = (uint16_t)id->part};
    for (int i = 0; i < 8; i++) {
        out.msg.bytes[i] = (unsigned char)(id->hi >> (56 - 8 * i));
        out.msg.bytes[8 + i] = (unsigned char)(id->lo >> (56 - 8 * i));
    }
    return out;
}

struct core_unit_id rows_core_id(struct unit_id id)
{
    struct core_unit_id out = {.part = id.unit};
    for (int i = 0; i < 8; i++) {
        out.hi = out.hi << 8 | id.msg.bytes[i];
        out.lo = out.lo << 8 | id.msg.bytes[8 + i];
    }
    return out;
}

static void node_key(struct store_row *row, char letter, uint64_t node)
{
    struct walk w = {row->key + 1, row->key + sizeof(row->key), true, false};
    row->table = STORE_ROW_NODE;
    row->key[0] = (unsigned char)letter;
    row->key_len = 1;
    if (node == 0)
        return;
    walk_u64(&w, &node);
    row->key_len = 9;
}

static uint64_t key_node(const struct store_row *row)
{
    uint64_t node = 0;
    for (int i = 1; i < row->key_len; i++)
        node = node << 8 | row->key[i];
    return node;
}

static void finish(struct store_row *row, const struct walk *w, unsigned char *value)
{
    INVARIANT(!w->bad);
    row->value = slice_make(value, (size_t)(w->at - value));
}

/* --- out --- */

static void put_unit_key(struct store_row *row, const struct core_unit_id *id)
{
    row->table = STORE_ROW_UNIT;
    unit_id_key(rows_unit_id(id), row->key);
    row->key_len = UNIT_ID_BYTES;
}

void rows_put_op(const struct core_op *op, struct store_row *row, unsigned char *value)
{
    struct core_op copy = *op;
    struct walk w = {value, value + ROW_VALUE_MAX, true, false};
    walk_version(&w);
    switch ((enum core_op_kind)op->kind) {
    case OP_META:
        node_key(row, 'm', 0);
        walk_meta(&w, &copy.u.meta);
        break;
    case OP_CFG: {
        struct core_cfg cfg = *op->u.cfg;
        node_key(row, 'c', 0);
        walk_cfg(&w, &cfg);
        break;
    }
    case OP_PAXOS:
        node_key(row, 'p', 0);
        walk_paxos(&w, &copy.u.paxos);
        break;
    case OP_SESS:
        node_key(row, 's', op->u.sess.node);
        walk_sess(&w, &copy.u.sess);
        break;
    case OP_FENCE:
        node_key(row, 'f', op->u.fence.node);
        walk_fence(&w, &copy.u.fence);
        break;
    case OP_UNIT:
        put_unit_key(row, &op->u.unit.id);
        walk_unit(&w, &copy.u.unit);
        break;
    case OP_UNIT_DELETE:
    case OP_UNIT_QUARANTINE:
        put_unit_key(row, &op->u.unit.id);
        row->value = (struct slice){NULL, 0};
        return;
    }
    finish(row, &w, value);
}

void rows_put_identity(
    const struct cluster_identity *id, struct store_row *row, unsigned char *value)
{
    struct cluster_identity copy = *id;
    struct walk w = {value, value + ROW_VALUE_MAX, true, false};
    node_key(row, 'i', 0);
    walk_version(&w);
    walk_identity(&w, &copy);
    finish(row, &w, value);
}

/* --- in --- */

static bool key_fits(const struct store_row *row, char letter, uint64_t node)
{
    if (row->key_len != (node ? 9 : 1) || row->key[0] != (unsigned char)letter)
        return false;
    return node == 0 || key_node(row) == node;
}

static bool get_unit(
    struct walk *w, const struct store_row *row, struct core_event *e, struct unit_row *u)
{
    if (row->key_len != UNIT_ID_BYTES)
        return false;
    memset(u, 0, sizeof(*u));
    walk_unit(w, u);
    u->id = rows_core_id(unit_id_from_key(row->key));
    e->kind = EV_BOOT_UNIT;
    e->u.unit = u;
    return u->owner != 0;
}

static bool get_node(struct walk *w, const struct store_row *row, struct core_event *e,
    struct core_cfg *cfg)
{
    switch (row->key[0]) {
    case 'm':
        e->kind = EV_BOOT_META;
        walk_meta(w, &e->u.meta);
        return key_fits(row, 'm', 0);
    case 'c':
        memset(cfg, 0, sizeof(*cfg));
        e->kind = EV_BOOT_CFG;
        e->u.cfg = cfg;
        walk_cfg(w, cfg);
        return key_fits(row, 'c', 0);
    case 'p':
        e->kind = EV_BOOT_PAXOS;
        walk_paxos(w, &e->u.paxos);
        return key_fits(row, 'p', 0);
    case 's':
        e->kind = EV_BOOT_SESS;
        walk_sess(w, &e->u.sess);
        return e->u.sess.node != 0 && key_fits(row, 's', e->u.sess.node);
    case 'f':
        e->kind = EV_BOOT_FENCE;
        walk_fence(w, &e->u.fence);
        return e->u.fence.node != 0 && key_fits(row, 'f', e->u.fence.node);
    default:
        return false;
    }
}

enum rows_kind rows_get(const struct store_row *row, struct core_event *e,
    struct core_cfg *cfg, struct unit_row *unit, struct cluster_identity *identity)
{
    unsigned char value[ROW_VALUE_MAX];
    struct walk w = {value, value + row->value.len, false, false};
    bool ok, is_identity = false;
    if (row->key_len == 0 || row->value.len > sizeof(value))
        return ROWS_BAD;
    memcpy(value, row->value.ptr, row->value.len);
    memset(e, 0, sizeof(*e));
    walk_version(&w);
    if (row->table == STORE_ROW_UNIT) {
        ok = get_unit(&w, row, e, unit);
    } else if (row->key[0] == 'i') {
        is_identity = true;
        walk_identity(&w, identity);
        ok = key_fits(row, 'i', 0);
    } else {
        ok = get_node(&w, row, e, cfg);
    }
    if (!ok || w.bad || w.at != w.end)
        return ROWS_BAD;
    return is_identity ? ROWS_IDENTITY : ROWS_EVENT;
}
