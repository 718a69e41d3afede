/* SPDX-License-Identifier: Apache-2.0 */
/* Invariant 16: each second delivery has a cause, one of D1 to D8, or the seed fails. */
#include "tests/sim/sim.h"

/* The doubt that node and unit began with was held for its time. */
bool oracle_held(const struct sim *sim, const struct god_unit *g, const struct attempt *a)
{
    return a->started - g->hold_from[a->node] + MS >= sim->params.own_doubt_ns * 97 / 100;
}

static bool session_lives(const struct sim *sim, uint8_t i, uint32_t gen, uint32_t epoch)
{
    const struct node *n = &sim->node[i];
    return gen && n->alive && n->gen == gen && n->core->epoch == epoch &&
           !oracle_fenced(sim, i, epoch);
}

/* Its release was ordered before the attempt began, so what it acknowledged went with it,
 * and a name that stays had to acknowledge too (rule N). */
static bool gone(const struct sim *sim, const struct attempt *p, uint8_t i)
{
    return (p->leaving >> i & 1) && !unit_find(sim->node[i].core, &p->id);
}

/* Of those who knew of attempt p, one is still the same live session. */
static int knower(const struct sim *sim, const struct attempt *p, uint8_t except)
{
    for (uint8_t i = 0; i < sim->node_count; i++)
        if (i != except && session_lives(sim, i, p->intent_gen[i], p->intent_epoch[i]) &&
            !gone(sim, p, i))
            return i;
    return -1;
}

static bool should_have_waited(
    struct sim *sim, const struct attempt *p, const struct attempt *n)
{
    const struct core *core = sim->node[n->node].core;
    const struct unit *u = unit_find(core, &n->id);
    uint8_t slot = peer_slot(core, sim->node[p->node].id);
    return u && u->owner_epoch == core->epoch && unit_list_find(u, slot) >= 0 &&
           peer_down(core, slot) && peer_member(core, slot) &&
           core->peer[slot].known > core->peer[slot].boot_fenced;
}

static int cause_of(struct sim *sim, const struct god_unit *g, const struct attempt *p,
    const struct attempt *n, int rcpt)
{
    bool p_lives = session_lives(sim, p->node, p->gen, p->epoch);
    bool doubted = g->doubt_at_own[n->node] >> rcpt & 1;
    bool known = doubted && g->doubt_attempt[n->node] == p->attempt;
    bool knew =
        session_lives(sim, n->node, p->intent_gen[n->node], p->intent_epoch[n->node]);
    if (p->reply_lost)
        return 7;
    if (p->frozen_between || n->frozen_between || p->clock_lost || n->clock_lost)
        return 3;
    if (p->dot_at < g->remade_at)
        return 4; /* a DSN, done and forgotten before its maker could say what it is for
                   */
    if ((g->told[n->node] >> rcpt & 1) && g->told_gen[n->node] == n->gen &&
        g->told_at[n->node][rcpt] < n->gate_at)
        return 0; /* it had been told before its dot passed the gate */
    if (p->epoch <= sim->config.forced[p->node])
        return 6; /* what it did without hearing the others nobody can know */
    if (g->risk >> rcpt & 1)
        return sim->node[p->node].gen != p->gen || !sim->node[p->node].alive ? 1 : 2;
    if (sim->config.sworn[p->node])
        return 6;
    if (p_lives)
        return 0; /* its session never ended: two owners, or it forgot */
    if (known)
        return !oracle_held(sim, g, n)                                         ? 0
               : sim->node[p->node].gen != p->gen || !sim->node[p->node].alive ? 1
                                                                               : 2;
    if (knew && !doubted)
        return 0; /* this very session acknowledged the intent, and forgot it */
    if (knower(sim, p, n->node) >= 0)
        return 0; /* somebody alive could have told the new owner */
    if (p->node != n->node && sim->node[p->node].gen == p->gen &&
        p->gate_at < sim->node[n->node].started_at &&
        g->hold_from[n->node] <
            sim->node[n->node].started_at + sim->params.stale_ns * 97 / 100 &&
        should_have_waited(sim, p, n))
        return 0; /* the holder that delivered while it was away is down: it waits */
    return p->node == n->node ? 1 : 5;
}

static void same_unit(struct sim *sim, struct attempt *a, struct god_unit *g, int r)
{
    const struct attempt *p = &sim->attempt[g->delivered_by[r] - 1];
    const struct attempt *first =
        p->gate_at <= a->gate_at ? p : a; /* dots may overtake */
    int cause = cause_of(sim, g, first, first == p ? a : p, r);
    TRACE(sim, "DUPLICATE " UID " rcpt %d: n%u then n%u, D%d", UIDV(&g->id), r, p->node,
        a->node, cause);
    if (cause == 0)
        sim_fail(sim, 16,
            "" UID " rcpt %d delivered twice (n%u at %.3f s, n%u), no cause",
            UIDV(&g->id), r, p->node, (double)p->dot_at / 1e9, a->node);
    sim->r.dups[cause]++;
}

/* The same mail by two submissions: the client never got 250 for the first. */
static void same_mail(struct sim *sim, struct god_unit *g, int r)
{
    struct mail *m = &sim->mail[g->mail];
    uint32_t part = g->id.part < 3 ? g->id.part : 0;
    uint32_t before = m->delivered_by[part][r];
    if (before && before != g->submission + 1) {
        const struct submission *s = &m->sub[before - 1];
        const struct submission *t = &m->sub[g->submission];
        const struct submission *refused = s->heard == CLIENT_451   ? s
                                           : t->heard == CLIENT_451 ? t
                                                                    : NULL;
        if (!refused) {
            sim->r.dups[4]++;
        } else {
            /* D8: whoever refused it is not the one that delivered it */
            const struct god_unit *x = &sim->unit[refused->first_unit];
            const struct attempt *d = NULL;
            for (uint32_t k = 0; k < refused->unit_count; k++)
                for (int q = 0; q < RCPTS_MAX; q++)
                    if (sim->unit[refused->first_unit + k].delivered_by[q])
                        d = &sim->attempt
                                 [sim->unit[refused->first_unit + k].delivered_by[q] - 1];
            sim->r.dups[8]++;
            if (d && d->node == x->node && d->epoch == x->epoch)
                sim_fail(sim, 16, "n%u refused " UID " and delivered it", x->node,
                    UIDV(&x->id));
            if (d && session_lives(sim, x->node, refused->gen, x->epoch))
                sim_fail(
                    sim, 16, "" UID " was refused by a session that lives", UIDV(&x->id));
        }
    }
    m->delivered_by[part][r] = g->submission + 1;
}

void oracle_delivered(struct sim *sim, struct attempt *a, struct god_unit *g, int r)
{
    sim->r.invariant_checks[16]++;
    sim->r.delivered++;
    TRACE(sim, "n%u DELIVERS " UID " rcpt %d", a->node, UIDV(&g->id), r);
    if (g->delivered >> r & 1) {
        const struct attempt *p = &sim->attempt[g->delivered_by[r] - 1];
        sim->r.redelivered += p->node != a->node &&
                              p->dot_at < sim->node[a->node].started_at &&
                              g->acked_at < sim->node[a->node].crashed_at;
        same_unit(sim, a, g, r);
    }
    g->delivered |= UINT64_C(1) << r;
    g->delivered_by[r] = (uint64_t)(a - sim->attempt) + 1;
    same_mail(sim, g, r);
}
