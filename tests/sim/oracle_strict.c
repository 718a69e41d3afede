/* SPDX-License-Identifier: Apache-2.0 */
/* Shadows that the oracle keeps beside the cores: sessions, consents, ends, bounds; and
 * the look at a healed cluster that still holds mail. */
#include "tests/sim/sim.h"

#include <string.h>

/* ---- 5: sessions ---- */

/* An old image asks under old numbers; it must not get as far as an open session. */
void oracle_session(struct sim *sim, uint8_t i)
{
    struct node *n = &sim->node[i];
    uint32_t epoch = n->core->epoch;
    if (n->core->state < (n->restored ? CORE_SYNC : CORE_OPENING) ||
        (epoch == n->last_epoch && n->gen == n->last_gen))
        return;
    sim->r.invariant_checks[5]++;
    if (epoch < n->last_epoch || (epoch == n->last_epoch && n->gen != n->last_gen))
        sim_fail(sim, 5, "n%u starts session %u after %u", i, epoch, n->last_epoch);
    n->last_epoch = epoch;
    n->last_gen = n->gen;
}

/* ---- 2: the gate closes before the fence, and no dot leaves after it ---- */

/* Somebody has it for certain that the session is closed: for the first time. */
void oracle_closing(struct sim *sim, uint8_t i, uint32_t epoch)
{
    const struct node *n = &sim->node[i];
    if (sim->config.sworn[i] || sim->rolled_back || sim->config.forced[i] >= epoch)
        return;
    sim->r.invariant_checks[2]++;
    if (n->alive && n->core->epoch <= epoch && n->core->cfg.mode == MODE_QUORUM &&
        oracle_gate_open(sim, i) && !oracle_lost_time(sim, i))
        sim_fail(sim, 2, "session %u of n%u is closed and its gate is open", epoch, i);
    bool over = n->disk.meta.epoch > epoch || /* the node itself has begun another */
                (n->alive && n->core->epoch > epoch);
    if (!over && sim->config.shape == WORLD_FIXED &&
        sim_newest(sim)->mode == MODE_QUORUM && !oracle_fenced(sim, i, epoch))
        sim_fail(sim, 2, "session %u of n%u passes for closed, by no quorum", epoch, i);
}

/* What was written within the margin of the gate; bytes that the kernel kept may leave
 * later, and so may those of a machine that stood still. A session that ended of itself
 * (process killed, resigned) is closed at once: what had passed its gate is in doubt. So
 * is what passed without a lease, when static mode ends. */
void oracle_dot(struct sim *sim, const struct attempt *a)
{
    const struct node *n = &sim->node[a->node];
    if (!n->alive || n->gen != a->gen || n->core->epoch != a->epoch ||
        n->core->state == CORE_RESIGNED)
        return;
    if (a->kernel || a->unbounded || a->frozen_between || a->clock_lost ||
        oracle_lost_time(sim, a->node) || sim->o.mutant == MUT_NO_GATE)
        return;
    sim->r.invariant_checks[2]++;
    if (oracle_fenced(sim, a->node, a->epoch))
        sim_fail(sim, 2, "a dot of n%u for " UID " leaves when session %u is fenced",
            a->node, UIDV(&a->id), a->epoch);
}

/* ---- 4: answers that promise what is on disk, continued ---- */

static const struct attempt *attempt_of(const struct sim *sim, uint64_t attempt)
{
    for (uint32_t i = sim->attempt_count; i-- > 0;)
        if (sim->attempt[i].attempt == attempt)
            return &sim->attempt[i];
    return NULL;
}

const char *oracle_late_promise(struct sim *sim, uint8_t node, const struct core_msg *m)
{
    struct disk *d = &sim->node[node].disk;
    const struct unit_row *row;
    const struct attempt *a;
    struct god_unit *g;
    switch (m->kind) {
    case MSG_OUTCOME_ACK:
        row = disk_find(d, &m->u.attempt.id);
        a = row ? attempt_of(sim, m->u.attempt.attempt) : NULL;
        return m->u.attempt.answer == ANS_OK && a && a->gone && !a->reply_lost &&
                       (a->delivered & ~row->delivered)
                   ? "OutcomeAck"
                   : NULL;
    case MSG_FORGET:
        row = disk_find(d, &m->u.unit.row.id);
        g = world_unit(sim, &m->u.unit.row.id);
        if (g)
            g->forgot = true;
        return row && row->state == UNIT_LIVE ? "Forget" : NULL;
    case MSG_CFG_STORED:
        return d->cfg.ver < m->u.cfg.ver ? "CfgStored" : NULL;
    default:
        return NULL;
    }
}

/* ---- 8: ownership has three sources ---- */

static uint64_t consent_value(uint32_t term, uint32_t fences, uint32_t epoch)
{
    return (uint64_t)term << 40 | (uint64_t)(fences & 0xffff) << 24 | (epoch & 0xffffff);
}

/* A consent reaches the claimant. It counts as long as no fence is learned (C2a). */
void oracle_said_yes(struct sim *sim, uint8_t node, const struct core_msg *m)
{
    const struct node *n = &sim->node[node];
    struct god_unit *g = world_unit(sim, &m->u.unit.row.id);
    uint8_t from = sim_node_of(sim, m->env.from);
    bool ok = m->u.unit.answer == ANS_OK && m->u.unit.row.owner == n->id;
    if (!g || from >= NODES_MAX || (!ok && m->u.unit.answer != ANS_UNKNOWN))
        return;
    const struct unit *u = unit_find(n->core, &g->id);
    const struct work *w = u ? work_of(n->core, u) : NULL;
    if (!w || w->kind != WORK_CLAIM || w->claim_term != m->u.unit.claim_term)
        return; /* a second copy of an older answer, say */
    g->consent[node][from] =
        consent_value(m->u.unit.claim_term, n->core->fences, n->core->epoch);
}

static void check_reown(struct sim *sim, uint8_t i, const struct unit_row *row)
{
    const struct core *core = sim->node[i].core;
    if (core->state != CORE_READY)
        sim_fail(sim, 8, "n%u re-owns " UID " before its SYNC", i, UIDV(&row->id));
    for (int k = 0; k < row->list_count; k++) {
        uint8_t slot = peer_slot(core, row->list[k].node);
        if (slot != core->self &&
            (peer_down(core, slot) ||
                (core->peer[slot].known && !core->peer[slot].synced)))
            sim_fail(sim, 8, "n%u re-owns " UID " without n%u", i, UIDV(&row->id),
                sim_node_of(sim, row->list[k].node));
    }
}

static void check_claim(
    struct sim *sim, uint8_t i, const struct god_unit *g, const struct unit_row *row)
{
    const struct node *n = &sim->node[i];
    for (int k = 0; k < row->list_count; k++) {
        uint8_t h = sim_node_of(sim, row->list[k].node);
        uint8_t slot = peer_slot(n->core, row->list[k].node);
        if (slot == n->core->self || peer_down(n->core, slot) || h >= NODES_MAX ||
            (n->down_before >> h & 1))
            continue;
        uint64_t c = g->consent[i][h];
        if (c != consent_value(row->term, n->core->fences, n->core->epoch) &&
            c != consent_value(row->term, n->fences_before, n->core->epoch))
            sim_fail(sim, 8, "n%u ends its claim of " UID " without n%u", i,
                UIDV(&row->id), h);
    }
}

/* The core decides that it owns: by an acceptance, by a row of its own from before, or by
 * a claim to which all who live said yes. */
void oracle_mine(
    struct sim *sim, uint8_t i, const struct unit_row *before, const struct core_op *op)
{
    const struct unit_row *row = &op->u.unit;
    const struct node *n = &sim->node[i];
    const struct god_unit *g = world_unit(sim, &row->id);
    uint32_t epoch = n->core->epoch;
    bool owns = row->owner == n->id && row->owner_epoch == epoch && row->mine == epoch;
    bool did = before && before->owner == n->id && before->owner_epoch == epoch &&
               before->mine == epoch;
    if (!owns || did || !g || sim->rolled_back)
        return;
    sim->r.invariant_checks[8]++;
    if (op->accept_handle)
        return;
    if (!before) {
        if (!n->disk.was_full)
            sim_fail(sim, 8, "n%u owns " UID " out of nothing", i, UIDV(&row->id));
    } else if (before->owner == n->id && before->mine &&
               before->mine == before->owner_epoch && before->term == row->term) {
        check_reown(sim, i, row);
    } else {
        check_claim(sim, i, g, row);
    }
}

/* ---- 13 and 20: rows ---- */

void oracle_bounced(struct sim *sim, uint8_t node, const struct unit_row *row)
{
    const struct god_unit *g = world_unit(sim, &row->id);
    if (!sim->o.dsn || !g || g->is_dsn)
        return;
    sim->r.invariant_checks[13]++;
    if (row->failed & ~row->delivered & ~g->dsn_rcpts)
        sim_fail(sim, 13, "n%u stores that " UID " failed, and no DSN is safe", node,
            UIDV(&row->id));
}

/* No row of the unit was on the disk. */
void oracle_new_row(struct sim *sim, uint8_t node, const struct unit_row *row)
{
    const struct god_unit *g = world_unit(sim, &row->id);
    sim->r.invariant_checks[20]++;
    if (g && g->forgot && row->state == UNIT_LIVE && !sim->rolled_back)
        sim_fail(sim, 20, "" UID " rises at n%u when all may have forgotten it",
            UIDV(&row->id), node);
}

/* ---- 14: bounds ---- */

void oracle_bounds(struct sim *sim, uint8_t i)
{
    const struct core *core = sim->node[i].core;
    const struct core_limits *l = &core->limits;
    uint64_t body = 25000000; /* the largest mail: one may always go */
    sim->r.invariant_checks[14]++;
    const char *what = core->parked_count > l->parked - 16 ? "parked answers"
                       : core->unit_count > l->units       ? "units"
                       : core->heap_count > l->works       ? "jobs"
                       : core->grave_count > l->graves     ? "graves"
                       : core->cell_count > l->gossip_rows ? "gossip rows"
                       : core->accept_bytes > CORE_CREDIT_ALL + body
                           ? "bytes in acceptance"
                       : core->copy_bytes > CORE_CREDIT_ALL + body ? "bytes of copies"
                                                                   : NULL;
    if (what)
        sim_fail(sim, 14, "n%u has too many %s", i, what);
    for (uint8_t p = 1; p <= core->peer_count; p++)
        if (core->peer[p].given > CORE_CREDIT_MAX)
            sim_fail(sim, 14, "n%u gives more credit than it may", i);
}

/* ---- 17, 18, 20: everything is healed, and destinations still answer 4xx ---- */

static const char *unit_wrong(struct sim *sim, struct god_unit *g, int *invariant)
{
    const struct core_cfg *c = sim_newest(sim);
    uint64_t all = (UINT64_C(1) << g->rcpts) - 1;
    int owners = 0, copies = 0, stores = 0, busy = 0;
    if (!g->acked || g->twice || g->acked_at + 60 * SEC > sim->now ||
        ((g->delivered | g->failed) & all) == all)
        return NULL;
    for (uint8_t i = 0; i < sim->node_count; i++) {
        struct node *n = &sim->node[i];
        const struct core_member *m = cfg_find(c, n->id);
        const struct unit *u = n->alive ? unit_find(n->core, &g->id) : NULL;
        const struct unit_row *row = disk_find(&n->disk, &g->id);
        const struct work *w = u ? work_of(n->core, u) : NULL;
        if (disk_aside(&n->disk, &g->id) || disk_mail(&n->disk, &g->id) == MAIL_ROTTEN)
            return NULL; /* rot has longer waits of its own */
        stores += m && (m->roles & ROLE_STORE) && !(m->roles & ROLE_DRAINING);
        copies += m && row && row->state == UNIT_LIVE && n->alive &&
                  disk_mail(&n->disk, &g->id) == MAIL_GOOD;
        owners += u && (u->flags & UF_ACTIVE) && unit_believes(n->core, u) &&
                  session_lease(n->core, 0);
        busy += u && (u->doubt || (w && w->attempt)); /* nobody is released meanwhile */
    }
    int want = c->copies < stores ? c->copies : stores;
    *invariant = owners != 1 ? 17 : 18;
    return owners != 1              ? "has not one owner"
           : copies < want          ? "has too few copies"
           : copies > want && !busy ? "has too many copies"
                                    : NULL;
}

/* Refused at one node and alive at another (D8): they agree when it has ended. */
static bool has_refused(const struct core *core)
{
    bool any = false;
    for (uint32_t k = 0; k < core->unit_high; k++)
        any |= core->unit[k].flags & UF_USED && core->unit[k].state == UNIT_ABORTED;
    return any;
}

static const char *pair_wrong(const struct core *a, const struct core *b)
{
    uint8_t at = peer_slot(a, b->node), back = peer_slot(b, a->node);
    if (!has_refused(a) && !has_refused(b) &&
        memcmp(a->peer[at].digest, b->peer[back].digest, sizeof(a->peer[at].digest)) != 0)
        return "digests differ";
    for (uint32_t k = 0; k < a->cell_count; k++) {
        const struct gossip_cell *x = &a->cell[k];
        uint8_t slot = x->used ? peer_slot(b, a->peer[x->slot].node) : 0;
        const struct gossip_row *y = slot ? gossip_find(b, slot, x->row.key) : NULL;
        if (x->used && (!y || y->version != x->row.version))
            return "gossip rows differ";
    }
    return NULL;
}

static void say_names(struct sim *sim, uint8_t a, uint8_t b)
{
    const struct core *x = sim->node[a].core;
    uint8_t slot = peer_slot(x, sim->node[b].id);
    for (uint32_t k = 0; k < x->unit_high; k++) {
        const struct unit *u = &x->unit[k];
        int i = u->flags & UF_USED ? unit_list_find(u, slot) : -1;
        struct core_unit_id id = unit_id(u);
        if (i >= 0)
            TRACE(sim, "  n%u names n%u for " UID ": %u, state %u term %u facts %llx", a,
                b, UIDV(&id), unit_status(u, i), u->state, u->term,
                (unsigned long long)(u->delivered << 8 | u->failed));
    }
}

/* What is on its way has ten seconds more; digests find a difference twice first. */
static bool wrong(struct sim *sim, int invariant, const char *what, int a, int b)
{
    if (what && sim->now > sim->held_until + (invariant == 20 ? 45 : 10) * SEC)
        sim_fail(sim, invariant, "%d of n%d, %lld s after the heal: %s", b, a,
            (long long)((sim->now - sim->heal_at) / SEC), what);
    return what != NULL;
}

void oracle_look(struct sim *sim)
{
    bool later = false;
    for (uint32_t k = 0; k < sim->unit_count; k++) {
        int invariant = 0;
        const char *what = unit_wrong(sim, &sim->unit[k], &invariant);
        sim->r.invariant_checks[17]++;
        sim->r.invariant_checks[18]++;
        if (what)
            TRACE(sim, "HELD " UID " %s", UIDV(&sim->unit[k].id), what);
        later |= wrong(sim, invariant, what, sim->unit[k].node, (int)k);
    }
    for (uint8_t a = 0; a < sim->node_count; a++)
        for (uint8_t b = 0; b < sim->node_count; b++) {
            const struct node *x = &sim->node[a], *y = &sim->node[b];
            if (a == b || !x->alive || !y->alive || !cfg_find(sim_newest(sim), x->id) ||
                !cfg_find(sim_newest(sim), y->id))
                continue;
            sim->r.invariant_checks[20]++;
            const char *what = pair_wrong(x->core, y->core);
            if (what && sim->o.trace) {
                say_names(sim, a, b);
                say_names(sim, b, a);
            }
            later |= wrong(sim, 20, what, a, b);
        }
    if (later && !sim->r.failed)
        return;
    sim->held_checked = true;
    sim->held_until = sim->now;
}
