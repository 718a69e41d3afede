/* SPDX-License-Identifier: Apache-2.0 */
/* A disk: what is durable, a queue of stores, batches that commit together or not at all.
 */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

void disk_init(struct disk *d)
{
    d->queue = calloc(DISK_QUEUE, sizeof(*d->queue));
}

/* ---- rows ---- */

static uint32_t slot_of(const struct core_unit_id *id)
{
    uint64_t h =
        (id->hi ^ id->lo * 31 ^ (uint64_t)id->part << 7) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(h >> 40) % (DISK_UNITS * 2);
}

static bool same_id(const struct core_unit_id *a, const struct core_unit_id *b)
{
    return a->hi == b->hi && a->lo == b->lo && a->part == b->part;
}

struct unit_row *disk_find(struct disk *d, const struct core_unit_id *id)
{
    for (uint32_t s = slot_of(id); d->hash[s]; s = (s + 1) % (DISK_UNITS * 2))
        if (same_id(&d->unit[d->hash[s] - 1].id, id))
            return &d->unit[d->hash[s] - 1];
    return NULL;
}

static void rehash(struct disk *d)
{
    memset(d->hash, 0, sizeof(d->hash));
    for (uint32_t i = 0; i < d->unit_count; i++) {
        uint32_t s = slot_of(&d->unit[i].id);
        while (d->hash[s])
            s = (s + 1) % (DISK_UNITS * 2);
        d->hash[s] = i + 1;
    }
}

/* Mail comes with the first row, or again after it rotted; it goes with the tombstone. */
static void put_mail(struct sim *sim, uint8_t node, uint32_t i, bool brought)
{
    struct disk *d = &sim->node[node].disk;
    if (d->unit[i].state != UNIT_LIVE)
        d->mail[i] = MAIL_NONE;
    else if (brought)
        d->mail[i] = MAIL_GOOD;
    else if (d->mail[i] == MAIL_NONE && d->was_full)
        d->mail[i] = MAIL_ROTTEN; /* the first row found no room, an update did */
    else if (d->mail[i] == MAIL_NONE)
        sim_fail(
            sim, 3, "n%u stores " UID " without its mail", node, UIDV(&d->unit[i].id));
}

static void put_unit(
    struct sim *sim, uint8_t node, const struct unit_row *row, bool brought)
{
    struct disk *d = &sim->node[node].disk;
    struct unit_row *old = disk_find(d, &row->id);
    oracle_row(sim, node, old, row);
    oracle_bounced(sim, node, row);
    if (!old)
        oracle_new_row(sim, node, row);
    if (old) {
        *old = *row;
        put_mail(sim, node, (uint32_t)(old - d->unit), brought);
        return;
    }
    if (d->unit_count == DISK_UNITS) {
        sim_fail(sim, 14, "disk of n%u holds too many units", node);
        return;
    }
    d->mail[d->unit_count] = MAIL_NONE;
    d->unit[d->unit_count++] = *row;
    put_mail(sim, node, d->unit_count - 1, brought);
    uint32_t s = slot_of(&row->id);
    while (d->hash[s])
        s = (s + 1) % (DISK_UNITS * 2);
    d->hash[s] = d->unit_count;
}

static void delete_unit(struct disk *d, const struct core_unit_id *id)
{
    struct unit_row *row = disk_find(d, id);
    if (!row)
        return;
    d->mail[row - d->unit] = d->mail[d->unit_count - 1];
    *row = d->unit[--d->unit_count];
    rehash(d);
}

static void put_sess(struct sim *sim, uint8_t node, const struct sess_row *row)
{
    struct disk *d = &sim->node[node].disk;
    for (int i = 0; i < d->sess_count; i++)
        if (d->sess[i].node == row->node) {
            if (row->cur < d->sess[i].cur || row->fenced < d->sess[i].fenced)
                sim_fail(sim, 6, "voter row of n%u went back", node);
            d->sess[i] = *row;
            return;
        }
    d->sess[d->sess_count++] = *row;
}

static void put_fence(struct sim *sim, uint8_t node, const struct core_fence_row *row)
{
    struct disk *d = &sim->node[node].disk;
    for (int i = 0; i < d->fence_count; i++)
        if (d->fence[i].node == row->node) {
            if (row->fenced < d->fence[i].fenced || row->known < d->fence[i].known)
                sim_fail(sim, 6, "member row of n%u went back", node);
            d->fence[i] = *row;
            return;
        }
    d->fence[d->fence_count++] = *row;
}

static void apply(struct sim *sim, uint8_t node, const struct disk_store *s)
{
    struct disk *d = &sim->node[node].disk;
    for (int i = 0; i < s->op_count; i++) {
        const struct core_op *op = &s->op[i];
        switch ((enum core_op_kind)op->kind) {
        case OP_META:
            if (op->u.meta.epoch < d->meta.epoch)
                sim_fail(sim, 6, "epoch of n%u went back", node);
            d->meta = op->u.meta;
            break;
        case OP_CFG:
            if (s->cfg->ver < d->cfg.ver)
                sim_fail(sim, 6, "configuration of n%u went back", node);
            if (s->cfg->voters_ver != d->cfg.voters_ver) {
                memcpy(d->was, d->sess, sizeof(d->was));
                d->was_count = d->sess_count;
            }
            d->cfg = *s->cfg;
            break;
        case OP_PAXOS:
            oracle_paxos(sim, node, &d->paxos, &op->u.paxos);
            d->paxos = op->u.paxos;
            break;
        case OP_SESS:
            put_sess(sim, node, &op->u.sess);
            break;
        case OP_FENCE:
            put_fence(sim, node, &op->u.fence);
            break;
        case OP_UNIT:
            put_unit(sim, node, &op->u.unit, op->accept_handle || op->copy_from);
            if (op->accept_handle)
                faults_step(sim, KILL_DURABLE, node);
            break;
        case OP_UNIT_QUARANTINE:
            if (d->aside_count < ASIDE_MAX)
                d->aside[d->aside_count++] = op->u.unit.id;
            delete_unit(d, &op->u.unit.id);
            break;
        case OP_UNIT_DELETE:
            delete_unit(d, &op->u.unit.id);
            break;
        }
    }
}

uint8_t disk_mail(struct disk *d, const struct core_unit_id *id)
{
    const struct unit_row *row = disk_find(d, id);
    return row ? d->mail[row - d->unit] : (uint8_t)MAIL_NONE;
}

bool disk_aside(const struct disk *d, const struct core_unit_id *id)
{
    for (uint32_t i = 0; i < d->aside_count; i++)
        if (same_id(&d->aside[i], id))
            return true;
    return false;
}

void disk_snapshot(struct sim *sim, uint8_t i)
{
    struct node *n = &sim->node[i];
    if (!n->snapshot)
        n->snapshot = malloc(sizeof(*n->snapshot));
    *n->snapshot = n->disk;
}

/* All but the queue, which belongs to the machine. */
void disk_restore(struct sim *sim, uint8_t i)
{
    struct node *n = &sim->node[i];
    struct disk_store *queue = n->disk.queue;
    if (!n->snapshot)
        return;
    TRACE(sim, "n%u is an old image now", i);
    n->disk = *n->snapshot;
    n->disk.queue = queue;
    n->disk.head = n->disk.count = n->disk.batch = 0;
    n->disk.busy = n->disk.eio = false;
    n->restored = sim->rolled_back = true;
}

/* Some bits of a body fall; nobody notices until the scrub or a delivery reads it. */
void disk_rot(struct sim *sim, uint8_t i)
{
    struct disk *d = &sim->node[i].disk;
    if (d->unit_count == 0)
        return;
    uint32_t k = (uint32_t)sim_below(&sim->rng_disk, d->unit_count);
    if (d->mail[k] == MAIL_GOOD)
        d->mail[k] = MAIL_ROTTEN;
}

/* ---- the queue ---- */

static void start_batch(struct sim *sim, uint8_t i)
{
    struct disk *d = &sim->node[i].disk;
    if (d->busy || d->count == 0)
        return;
    d->busy = true;
    d->batch = d->count;
    d->busy_since = sim->now;
    uint64_t t = sim->disk_min + sim_below(&sim->rng_disk, sim->disk_max - sim->disk_min);
    if (d->slow_until > sim->now)
        t += sim_below(&sim->rng_disk, d->slow_ns);
    sim_at(sim, sim->now + t, SE_DISK, i, sim->node[i].gen, 0, 0);
}

static const struct unit_row *last_row(struct disk *d, const struct core_unit_id *id)
{
    for (uint32_t k = d->count; k-- > 0;) {
        const struct disk_store *s = &d->queue[(d->head + k) % DISK_QUEUE];
        for (int i = 0; i < s->op_count; i++)
            if ((s->op[i].kind == OP_UNIT || s->op[i].kind == OP_UNIT_DELETE ||
                    s->op[i].kind == OP_UNIT_QUARANTINE) &&
                same_id(&s->op[i].u.unit.id, id))
                return s->op[i].kind == OP_UNIT ? &s->op[i].u.unit : NULL;
    }
    return disk_find(d, id);
}

void disk_push(struct sim *sim, uint8_t i, const struct core_command *c)
{
    struct disk *d = &sim->node[i].disk;
    if (d->count == DISK_QUEUE) {
        sim_fail(sim, 14, "store queue of n%u overflows", i);
        return;
    }
    for (int k = 0; k < c->u.store.op_count; k++)
        if (c->u.store.op[k].kind == OP_UNIT) {
            const struct core_op *op = &c->u.store.op[k];
            const struct unit_row *before = last_row(d, &op->u.unit.id);
            oracle_list(sim, i, before, &op->u.unit);
            oracle_mine(sim, i, before, op);
        }
    struct disk_store *s = &d->queue[(d->head + d->count++) % DISK_QUEUE];
    s->token = c->u.store.token;
    s->op_count = c->u.store.op_count;
    s->may_fail = c->u.store.may_fail;
    s->cfg = NULL;
    for (int k = 0; k < s->op_count; k++)
        if (c->u.store.op[k].kind == OP_PAXOS)
            operator_paxos(sim, i);
    memcpy(s->op, c->u.store.op, sizeof(s->op));
    for (int k = 0; k < s->op_count; k++)
        if (s->op[k].kind == OP_CFG) {
            s->cfg = malloc(sizeof(*s->cfg));
            *s->cfg = *s->op[k].u.cfg;
        }
    start_batch(sim, i);
}

static struct disk_store take(struct disk *d)
{
    struct disk_store s = d->queue[d->head];
    d->head = (d->head + 1) % DISK_QUEUE;
    d->count--;
    return s;
}

void disk_done(struct sim *sim, const struct sim_event *e)
{
    struct node *n = &sim->node[e->node];
    struct disk *d = &n->disk;
    uint64_t token[64];
    bool full[64];
    if (n->gen != e->gen || !n->alive)
        return;
    if (d->eio) {
        node_crash(sim, e->node, "EIO"); /* disk_crash throws the coin */
        sim_at(sim, sim->now + SEC, SE_START, e->node, 0, 0, 0);
        return;
    }
    d->busy = false;
    while (d->batch) {
        int k = 0;
        for (; k < 64 && d->batch; k++, d->batch--) {
            struct disk_store s = take(d);
            token[k] = s.token;
            full[k] = s.may_fail && d->full_until > sim->now;
            if (!full[k])
                apply(sim, e->node, &s);
            free(s.cfg);
        }
        uint32_t gen = n->gen;
        uint32_t left = d->batch;
        d->batch = 0;
        for (int j = 0; j < k && n->alive && n->gen == gen; j++) {
            struct core_event ev = {.kind = EV_STORED};
            ev.u.stored.token = token[j];
            ev.u.stored.full = full[j];
            d->busy = true; /* what this causes waits for the next batch */
            node_step(sim, e->node, &ev);
        }
        d->busy = false;
        if (!n->alive || n->gen != gen)
            return;
        d->batch = left;
    }
    start_batch(sim, e->node);
}

/* The head batch is durable or not, by coin; what waited behind it never is. */
void disk_crash(struct sim *sim, uint8_t i)
{
    struct disk *d = &sim->node[i].disk;
    uint32_t batch = d->busy ? d->batch : 0;
    bool lucky = sim_below(&sim->rng_disk, 2);
    for (; d->count; batch = batch ? batch - 1 : 0) {
        struct disk_store s = take(d);
        if (batch && lucky && !(s.may_fail && d->full_until > sim->now))
            apply(sim, i, &s);
        free(s.cfg);
    }
    d->busy = false;
    d->batch = 0;
    d->eio = false;
}

void disk_boot(struct sim *sim, uint8_t i)
{
    struct disk *d = &sim->node[i].disk;
    struct core_event e = {.kind = EV_BOOT_META};
    e.u.meta = d->meta;
    node_step(sim, i, &e);
    e.kind = EV_BOOT_CFG;
    e.u.cfg = &d->cfg;
    node_step(sim, i, &e);
    e.kind = EV_BOOT_PAXOS;
    e.u.paxos = d->paxos;
    node_step(sim, i, &e);
    for (int k = 0; k < d->sess_count; k++) {
        e.kind = EV_BOOT_SESS;
        e.u.sess = d->sess[k];
        node_step(sim, i, &e);
    }
    for (int k = 0; k < d->fence_count; k++) {
        e.kind = EV_BOOT_FENCE;
        e.u.fence = d->fence[k];
        node_step(sim, i, &e);
    }
    for (uint32_t k = 0; k < d->unit_count; k++) {
        e.kind = EV_BOOT_UNIT;
        e.u.unit = &d->unit[k];
        node_step(sim, i, &e);
    }
    e.kind = EV_BOOT_END;
    node_step(sim, i, &e);
}
