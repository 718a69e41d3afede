/* SPDX-License-Identifier: Apache-2.0 */
/* Records of units: the table, versions, lists, merging, graves. */
#include "cluster/core/internal.h"

#include <string.h>

static uint64_t hash_id(uint64_t hi, uint64_t lo, uint32_t part)
{
    uint64_t h = (hi ^ lo << 1 ^ (uint64_t)part << 48) * UINT64_C(0xff51afd7ed558ccd);
    h ^= h >> 33;
    h *= UINT64_C(0xc4ceb9fe1a85ec53);
    return h ^ (h >> 33);
}

uint64_t id_hash(const struct core_unit_id *id)
{
    return hash_id(id->hi, id->lo, id->part);
}

struct core_unit_id unit_id(const struct unit *u)
{
    return (struct core_unit_id){u->id_hi, u->id_lo, u->id_part, 0};
}

uint32_t unit_index(const struct core *core, const struct unit *u)
{
    return (uint32_t)(u - core->unit);
}

static uint32_t *bucket_of(const struct core *core, const struct core_unit_id *id)
{
    return &core->bucket[hash_id(id->hi, id->lo, id->part) & core->bucket_mask];
}

struct unit *unit_find(const struct core *core, const struct core_unit_id *id)
{
    for (uint32_t i = *bucket_of(core, id); i != NIL; i = core->unit[i].hash_next) {
        struct unit *u = &core->unit[i];
        if (u->id_lo == id->lo && u->id_hi == id->hi && u->id_part == id->part)
            return u;
    }
    return NULL;
}

static struct unit *take_free(struct core *core)
{
    if (core->unit_free != NIL) {
        struct unit *u = &core->unit[core->unit_free];
        core->unit_free = u->hash_next;
        return u;
    }
    if (core->unit_high == core->limits.units)
        return NULL;
    return &core->unit[core->unit_high++];
}

struct unit *unit_new(struct core *core, const struct core_unit_id *id)
{
    struct unit *u = take_free(core);
    if (!u)
        return NULL;
    memset(u, 0, sizeof(*u));
    u->id_hi = id->hi;
    u->id_lo = id->lo;
    u->id_part = (uint16_t)id->part;
    u->state = UNIT_LIVE;
    u->flags = UF_USED;
    u->work = NIL;
    uint32_t *head = bucket_of(core, id);
    u->hash_next = *head;
    *head = unit_index(core, u);
    core->unit_count++;
    return u;
}

void unit_drop(struct core *core, struct unit *u)
{
    struct core_unit_id id = unit_id(u);
    uint32_t *at = bucket_of(core, &id);
    unit_digest(core, u);
    work_drop(core, u);
    while (*at != unit_index(core, u))
        at = &core->unit[*at].hash_next;
    *at = u->hash_next;
    if (u->flags & UF_DAMAGED)
        core->damaged_count--;
    u->flags &= UF_COUNTED;
    unit_recount(core, u);
    u->flags = 0;
    u->hash_next = core->unit_free;
    core->unit_free = unit_index(core, u);
    core->unit_count--;
}

/* ---- lists ---- */

uint8_t unit_status(const struct unit *u, int i)
{
    return (u->status >> (2 * i)) & 3;
}

void unit_set_status(struct unit *u, int i, uint8_t status)
{
    u->status = (uint16_t)((u->status & ~(3u << (2 * i))) | (unsigned)status << (2 * i));
}

int unit_list_find(const struct unit *u, uint8_t slot)
{
    for (int i = 0; i < u->list_count; i++)
        if (u->list[i] == slot)
            return i;
    return -1;
}

/* Adding is allowed to whoever owns, and by union; a full list refuses the new name. */
bool unit_list_add(struct core *core, struct unit *u, uint8_t slot, uint8_t status)
{
    if (slot == 0 || unit_list_find(u, slot) >= 0)
        return slot != 0;
    if (u->list_count >= CORE_LIST_MAX)
        return false;
    unit_digest(core, u);
    u->list[u->list_count] = slot;
    unit_set_status(u, u->list_count, status);
    u->list_count++;
    unit_digest(core, u);
    return true;
}

static uint16_t squeeze(uint16_t mask, int i)
{
    uint16_t low = (uint16_t)(mask & ((1u << i) - 1));
    return (uint16_t)(low | ((mask >> (i + 1)) << i));
}

void unit_list_remove(struct core *core, struct unit *u, int i)
{
    unit_digest(core, u);
    for (int j = i; j + 1 < u->list_count; j++) {
        u->list[j] = u->list[j + 1];
        unit_set_status(u, j, unit_status(u, j + 1));
    }
    u->list_count--;
    struct work *w = work_of(core, u);
    if (w) {
        w->acked = squeeze(w->acked, i);
        w->unknown = squeeze(w->unknown, i);
        w->out_acked = squeeze(w->out_acked, i);
        w->asked = squeeze(w->asked, i);
        w->narrow = squeeze(w->narrow, i);
    }
    unit_digest(core, u);
}

/* Copies that are known durable on nodes whose session is not fenced. */
uint8_t unit_holders(const struct core *core, const struct unit *u)
{
    uint8_t n = 0;
    for (int i = 0; i < u->list_count; i++)
        if (unit_status(u, i) == LIST_HOLD && !peer_down(core, u->list[i]))
            n++;
    return n;
}

static bool leaves(const struct core *core, uint8_t slot)
{
    return slot != core->self && (core->peer[slot].roles & ROLE_DRAINING);
}

/* Those of them that stay: a draining node wants to be rid of its copies. */
uint8_t unit_stays(const struct core *core, const struct unit *u)
{
    uint8_t n = unit_holders(core, u);
    for (int i = 0; i < u->list_count; i++)
        if (unit_status(u, i) == LIST_HOLD && !peer_down(core, u->list[i]) &&
            leaves(core, u->list[i]))
            n--;
    return n;
}

/* ---- what a unit is ---- */

uint64_t unit_all(const struct unit *u)
{
    return u->rcpt_count >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << u->rcpt_count) - 1;
}

bool unit_final(const struct unit *u)
{
    return ((u->delivered | u->failed) & unit_all(u)) == unit_all(u);
}

bool unit_believes(const struct core *core, const struct unit *u)
{
    return u->owner == core->self && u->owner_epoch == core->epoch &&
           u->mine == core->epoch && core->state >= CORE_SYNC;
}

/* The right to deliver: ownership completed durably in this session, and a lease. */
bool unit_right(const struct core *core, const struct unit *u)
{
    return (u->flags & UF_ACTIVE) && u->state == UNIT_LIVE && unit_believes(core, u) &&
           session_lease(core, 0);
}

bool unit_owner_down(const struct core *core, const struct unit *u)
{
    if (u->owner == core->self)
        return false;
    return core->peer[u->owner].fenced >= u->owner_epoch && peer_down(core, u->owner);
}

static uint16_t counts_as(const struct core *core, const struct unit *u)
{
    if (!(u->flags & UF_USED))
        return 0;
    if (u->flags & UF_ACCEPTING)
        return UF_C_ACCEPT;
    if (u->state != UNIT_LIVE)
        return UF_C_TOMB;
    if (!(u->flags & UF_ACTIVE) || !unit_believes(core, u))
        return 0;
    return (uint16_t)(UF_C_OWNED |
                      (unit_holders(core, u) < core->cfg.copies ? UF_C_SHORT : 0) |
                      (u->doubt & unit_all(u) ? UF_C_DOUBT : 0));
}

static void count_one(uint32_t *counter, unsigned before, unsigned after)
{
    *counter += (after != 0) - (unsigned)(before != 0);
}

/* Moves the unit between the counters. Called where units are stored and reviewed, so the
 * sweep corrects within seconds what changed without either (a fence, say). */
void unit_recount(struct core *core, struct unit *u)
{
    unsigned was = u->flags & UF_COUNTED, is = counts_as(core, u);
    if (was == is)
        return;
    count_one(&core->owned_count, was & UF_C_OWNED, is & UF_C_OWNED);
    count_one(&core->short_count, was & UF_C_SHORT, is & UF_C_SHORT);
    count_one(&core->doubt_count, was & UF_C_DOUBT, is & UF_C_DOUBT);
    count_one(&core->tomb_count, was & UF_C_TOMB, is & UF_C_TOMB);
    count_one(&core->accepting_count, was & UF_C_ACCEPT, is & UF_C_ACCEPT);
    u->flags = (uint16_t)((u->flags & ~(unsigned)UF_COUNTED) | is);
}

uint8_t lane_of(const struct unit *u)
{
    return u->size_bytes > 64 * 1024 ? LANE_BULK : LANE_CONTROL;
}

/* Its first row is still on its way to the disk and may be refused for want of room. */
bool unit_settling(const struct unit *u)
{
    return !(u->flags & (UF_VERIFY | UF_ACCEPTING));
}

/* ---- rows ---- */

void unit_row_out(const struct core *core, const struct unit *u, struct unit_row *row)
{
    memset(row, 0, sizeof(*row));
    row->id = unit_id(u);
    row->term = u->term;
    row->owner = core->peer[u->owner].node;
    row->owner_epoch = u->owner_epoch;
    row->mine = u->mine;
    row->state = u->state;
    row->rcpt_count = u->rcpt_count;
    row->flags = (uint8_t)((u->flags & UF_NULL_SENDER ? UNIT_NULL_SENDER : 0) |
                           (u->flags & UF_IS_DSN ? UNIT_IS_DSN : 0) |
                           (u->flags & UF_MORE_NAMES ? UNIT_MORE_NAMES : 0));
    row->list_count = u->list_count;
    for (int i = 0; i < u->list_count; i++) {
        const struct peer *p = &core->peer[u->list[i]];
        /* a fence below a session that we know would let others take that node for down:
         * they may not know the session */
        uint32_t fenced = peer_down(core, u->list[i]) ? p->fenced : 0;
        row->list[i] = (struct row_holder){p->node, fenced, unit_status(u, i)};
    }
    row->delivered = u->delivered;
    row->failed = u->failed;
    row->doubt = u->doubt;
    row->attempt = u->attempt;
    const struct work *w = work_of(core, u);
    if (w && w->kind == WORK_OWN && w->attempt) {
        /* who learns the unit while an attempt runs learns the intent with it */
        row->doubt |= w->attempt_rcpts & ~(u->delivered | u->failed);
        row->attempt = w->attempt;
    }
    row->due_s = u->due_s;
    row->expires_s = u->expires_s;
    row->size_bytes = u->size_bytes;
    row->body_crc = u->body_crc;
}

bool core_unit_row(
    const struct core *core, const struct core_unit_id *id, struct unit_row *out)
{
    const struct unit *u = unit_find(core, id);
    if (u)
        unit_row_out(core, u, out);
    return u != NULL;
}

/* Fills an empty unit from a row; `mine` is not taken: it is never learned. */
bool unit_row_in(struct core *core, struct unit *u, const struct unit_row *row)
{
    if (row->rcpt_count == 0 || row->rcpt_count > 64 || row->list_count > CORE_LIST_MAX)
        return false;
    u->term = row->term;
    u->owner = peer_intern(core, row->owner);
    u->owner_epoch = row->owner_epoch;
    u->state = row->state;
    u->rcpt_count = row->rcpt_count;
    if (row->flags & UNIT_NULL_SENDER)
        u->flags |= UF_NULL_SENDER;
    if (row->flags & UNIT_IS_DSN)
        u->flags |= UF_IS_DSN;
    if (row->flags & UNIT_MORE_NAMES)
        u->flags |= UF_MORE_NAMES;
    for (int i = 0; i < row->list_count; i++) {
        uint8_t slot = peer_intern(core, row->list[i].node);
        if (slot && unit_list_find(u, slot) < 0) {
            u->list[u->list_count] = slot;
            unit_set_status(u, u->list_count++, row->list[i].status & 3);
        }
    }
    u->delivered = row->delivered;
    u->failed = row->failed;
    u->doubt = row->doubt;
    u->attempt = row->attempt;
    u->due_s = row->due_s;
    u->expires_s = row->expires_s;
    u->size_bytes = row->size_bytes;
    u->body_crc = row->body_crc;
    unit_digest(core, u);
    return u->owner != 0;
}

uint64_t unit_store(struct core *core, struct unit *u, uint64_t accept_handle)
{
    struct core_command *c = core_store(core);
    c->u.store.op_count = 1;
    c->u.store.op[0].kind = OP_UNIT;
    c->u.store.op[0].accept_handle = accept_handle;
    c->u.store.op[0].copy_from = 0;
    unit_row_out(core, u, &c->u.store.op[0].u.unit);
    unit_recount(core, u);
    return core->token_last;
}

uint64_t unit_store_delete(struct core *core, struct unit *u)
{
    struct core_op op = {.kind = OP_UNIT_DELETE};
    op.u.unit.id = unit_id(u);
    return core_store_one(core, &op);
}

/* Rows carry fences, so that they spread with the records that need them. */
void unit_evidence(struct core *core, const struct unit_row *row)
{
    for (int i = 0; i < row->list_count && i < CORE_LIST_MAX; i++) {
        uint8_t slot = peer_intern(core, row->list[i].node);
        if (slot && row->list[i].fenced)
            peer_learn(core, slot, row->list[i].fenced, row->list[i].fenced);
    }
}

/* Whoever heard of its attempts in memory and has not ended since has told us of them. */
void unit_heard_of(struct core *core, struct unit *u, uint8_t slot, uint32_t epoch)
{
    if (epoch && epoch == core->peer[slot].boot_known)
        u->unsure = false;
}

/* ---- merging ---- */

/* Which attempt the doubts belong to. Those of two sessions together belong to none: no
 * single deferral may end them, only facts or time. */
void unit_attempt(struct unit *u, uint64_t attempt)
{
    bool mixed = u->doubt && u->attempt >> 24 != attempt >> 24;
    u->attempt = mixed ? 0 : attempt;
}

bool unit_newer(
    const struct core *core, uint32_t term, uint64_t owner, const struct unit *u)
{
    if (term != u->term || MUT(core, MUT_NO_TIE))
        return term > u->term;
    if (owner != core->peer[u->owner].node)
        SOMETIMES(core, ST_TIE);
    return owner > core->peer[u->owner].node;
}

/* Two owners' lists together may have more names than one list has room for. Then every
 * live member is asked by a claim, and every member acknowledges the end. */
static bool more_names(struct core *core, struct unit *u)
{
    if (u->flags & UF_MORE_NAMES)
        return false;
    SOMETIMES(core, ST_MORE_NAMES);
    u->flags |= UF_MORE_NAMES;
    return true;
}

static bool merge_list(struct core *core, struct unit *u, const struct unit_row *row)
{
    bool changed = row->flags & UNIT_MORE_NAMES && more_names(core, u);
    for (int i = 0; i < row->list_count && i < CORE_LIST_MAX; i++) {
        uint8_t slot = peer_intern(core, row->list[i].node);
        int at = unit_list_find(u, slot);
        if (slot == 0)
            continue;
        if (at < 0 && unit_believes(core, u) && row->list[i].status == LIST_RELEASING)
            continue; /* a holder still has the name, of a node that has no copy */
        if (at < 0) {
            if (unit_list_add(core, u, slot, row->list[i].status & 3))
                changed = true;
            else
                changed |= more_names(core, u);
        } else if (row->list[i].status == LIST_HOLD && unit_status(u, at) != LIST_HOLD &&
                   !unit_believes(core, u)) {
            unit_mark(core, u, at, LIST_HOLD);
            changed = true;
        }
    }
    return changed;
}

bool unit_merge_facts(struct core *core, struct unit *u, const struct unit_row *row)
{
    uint64_t delivered = u->delivered | row->delivered;
    uint64_t failed = (u->failed | row->failed) & ~delivered;
    bool own = unit_believes(core, u);
    /* what a holder heard of our own attempt is older than what we know */
    uint64_t more = own && attempt_ours(core, row->attempt) ? 0 : row->doubt;
    uint64_t doubt = (u->doubt | more) & ~(delivered | failed);
    bool grew = (doubt & ~u->doubt) != 0;
    bool aborts = u->state == UNIT_LIVE && row->state == UNIT_ABORTED && !own;
    bool changed =
        delivered != u->delivered || failed != u->failed || doubt != u->doubt || aborts;
    if (changed)
        unit_digest(core, u);
    if (more && !own)
        unit_attempt(u, row->attempt);
    u->delivered = delivered;
    u->failed = failed;
    u->doubt = doubt;
    if (own && grew)
        claim_doubt(core, u);
    if (u->state == UNIT_LIVE && unit_final(u))
        u->state = UNIT_DONE;
    else if (u->state == UNIT_LIVE && row->state == UNIT_ABORTED &&
             !unit_believes(core, u))
        u->state = UNIT_ABORTED;
    if (changed)
        unit_digest(core, u);
    return merge_list(core, u, row) || changed;
}

void unit_cancel(struct core *core, struct unit *u)
{
    if (u->flags & UF_STARTED) {
        struct core_command *c = core_cmd(core, CMD_CANCEL);
        memset(&c->u.unit, 0, sizeof(c->u.unit));
        c->u.unit.id = unit_id(u);
    }
    u->flags &= (uint16_t)~UF_STARTED;
}

void unit_lost_ownership(struct core *core, struct unit *u)
{
    unit_cancel(core, u);
    u->flags &= (uint16_t)~UF_ACTIVE;
    work_drop(core, u);
}

/* C5. A live owner that meets a version not below its own raises its term above it, or to
 * it, if that is a consent to a claim of its own which it gave up to re-own; anyone else
 * takes the newer version, without `mine`. */
bool unit_merge(struct core *core, struct unit *u, const struct unit_row *row)
{
    bool changed = unit_merge_facts(core, u, row);
    uint8_t owner = peer_intern(core, row->owner);
    if (owner == 0)
        return changed;
    if (unit_believes(core, u)) {
        bool own = owner == core->self;
        if (row->term > u->term || (row->term == u->term && !own)) {
            SOMETIMES(core, ST_RAISE);
            unit_digest(core, u);
            u->term = row->term + !own;
            unit_digest(core, u);
            changed = true;
        }
        return changed;
    }
    bool same = row->term == u->term && owner == u->owner;
    if (!unit_newer(core, row->term, row->owner, u) &&
        !(same && row->owner_epoch > u->owner_epoch))
        return changed;
    unit_digest(core, u);
    u->term = row->term;
    u->owner = owner;
    u->owner_epoch = row->owner_epoch;
    u->mine = MUT(core, MUT_LEARN_MINE) && owner == core->self ? core->epoch : 0;
    if (u->mine)
        u->flags |= UF_ACTIVE;
    unit_digest(core, u);
    return true;
}

/* ---- graves: ids deleted lately, so that a late copy does not bring them back ---- */

static uint32_t *grave_bucket(struct core *core, const struct core_unit_id *id)
{
    uint32_t mask = 64;
    while (mask < core->limits.graves)
        mask *= 2;
    return &core->grave_bucket[hash_id(id->hi, id->lo, id->part) & (mask - 1)];
}

static void grave_fill(struct core *core)
{
    struct grave *g = &core->grave[core->grave_head];
    struct core_unit_id id = {g->hi, g->lo, g->part, 0};
    uint32_t *at = grave_bucket(core, &id);
    while (*at != core->grave_head)
        at = &core->grave[*at].next;
    *at = g->next;
    core->grave_head = (core->grave_head + 1) % core->limits.graves;
    core->grave_count--;
}

static void dig(struct core *core, const struct core_unit_id *id, bool open)
{
    while (core->grave_count &&
           core->now > core->grave[core->grave_head].at + 2 * core->p.frame_ns)
        grave_fill(core);
    if (core->grave_count == core->limits.graves) {
        /* forgotten too early: refuse every copy sent before it instead */
        core->grave_floor = core->now;
        grave_fill(core);
    }
    uint32_t i = (core->grave_head + core->grave_count++) % core->limits.graves;
    uint32_t *head = grave_bucket(core, id);
    core->grave[i] =
        (struct grave){id->hi, id->lo, (uint16_t)id->part, open, *head, core->now};
    *head = i;
}

void grave_dig(struct core *core, const struct core_unit_id *id)
{
    dig(core, id, false);
}

void grave_dig_open(struct core *core, const struct core_unit_id *id)
{
    dig(core, id, true);
}

/* The newest one of the id, if it still counts; else NULL. */
const struct grave *grave_find(struct core *core, const struct core_unit_id *id)
{
    for (uint32_t i = *grave_bucket(core, id); i != NIL; i = core->grave[i].next) {
        const struct grave *g = &core->grave[i];
        if (g->hi == id->hi && g->lo == id->lo && g->part == id->part)
            return core->now <= g->at + 2 * core->p.frame_ns ? g : NULL;
    }
    return NULL;
}

/* ---- digests: XOR, so that calling before and after a change updates them ---- */

static uint64_t digest_value(const struct core *core, const struct unit *u)
{
    uint64_t h = hash_id(u->id_hi, u->id_lo, u->id_part);
    h ^= hash_id(core->peer[u->owner].node, u->term, u->state);
    return h ^ hash_id(u->delivered, u->failed, 77);
}

void unit_digest_list(struct core *core, const struct unit *u, uint8_t slot)
{
    struct peer *p = &core->peer[slot];
    uint64_t h = digest_value(core, u);
    p->digest[(u->id_lo ^ u->id_hi >> 16 ^ u->id_part) % CORE_DIGEST_ROWS] ^= h;
}

/* Such a node has no copy, or soon none. But an owner is always asked. */
bool unit_without(const struct unit *u, int i)
{
    return unit_status(u, i) == LIST_RELEASING && u->list[i] != u->owner;
}

void unit_digest(struct core *core, const struct unit *u)
{
    for (int i = 0; i < u->list_count; i++)
        if (u->list[i] != core->self && !unit_without(u, i))
            unit_digest_list(core, u, u->list[i]);
}

/* A status that may begin or end LIST_RELEASING. */
void unit_mark(struct core *core, struct unit *u, int i, uint8_t status)
{
    bool was = unit_without(u, i);
    unit_set_status(u, i, status);
    if (was != unit_without(u, i) && u->list[i] != core->self)
        unit_digest_list(core, u, u->list[i]);
}
