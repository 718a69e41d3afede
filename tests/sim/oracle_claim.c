/* SPDX-License-Identifier: Apache-2.0 */
/* Rule C2a: what a claim counts was given after the claimant knew every fence that it
 * relies on. The hole behind it needs five accidents in a row, so the rule itself is
 * checked: between the first question of a claim and its end no fence was learned. */
#include "tests/sim/sim.h"

static bool still_asks(const struct sim *sim, uint8_t i, const struct god_unit *g)
{
    const struct core *core = sim->node[i].core;
    const struct unit *u = unit_find(core, &g->id);
    const struct work *w = u ? work_of(core, u) : NULL;
    return w && w->kind == WORK_CLAIM && w->started_at == g->asked[i].work;
}

/* Node i asks for a unit. */
void oracle_asks(struct sim *sim, uint8_t i, const struct core_msg *m)
{
    struct god_unit *g = world_unit(sim, &m->u.unit.row.id);
    struct node *n = &sim->node[i];
    const struct unit *u = unit_find(n->core, &m->u.unit.row.id);
    const struct work *w = u ? work_of(n->core, u) : NULL;
    if (!g || !w || w->kind != WORK_CLAIM ||
        n->claiming_count == sizeof(n->claiming) / sizeof(n->claiming[0]))
        return;
    if (g->asked[i].term == m->u.unit.claim_term && g->asked[i].work == w->started_at)
        return;
    if (!g->asked[i].term)
        n->claiming[n->claiming_count++] = (uint32_t)(g - sim->unit);
    g->asked[i].term = m->u.unit.claim_term;
    g->asked[i].work = w->started_at;
    g->asked[i].at = sim->now;
    g->asked[i].gave = 0;
}

/* Claims that were dropped are forgotten: the next one of the unit asks for itself. */
void oracle_claims(struct sim *sim, uint8_t i)
{
    struct node *n = &sim->node[i];
    for (uint32_t k = n->claiming_count; k-- > 0;) {
        struct god_unit *g = &sim->unit[n->claiming[k]];
        if (g->asked[i].term && n->alive && still_asks(sim, i, g))
            continue;
        g->asked[i].term = 0;
        n->claiming[k] = n->claiming[--n->claiming_count];
    }
}

/* Node i hears an answer. */
void oracle_consent(struct sim *sim, uint8_t i, const struct core_msg *m)
{
    struct god_unit *g = world_unit(sim, &m->u.unit.row.id);
    uint8_t from = sim_node_of(sim, m->env.from);
    bool gave = m->u.unit.answer == ANS_OK || m->u.unit.answer == ANS_UNKNOWN;
    if (g && gave && from < NODES_MAX && g->asked[i].term == m->u.unit.claim_term)
        g->asked[i].gave = (uint8_t)(g->asked[i].gave | 1u << from);
}

/* One of those who gave lives, for all that node i knows: it was not just passed over. */
static bool counts(const struct sim *sim, uint8_t i, uint8_t gave)
{
    const struct core *core = sim->node[i].core;
    for (uint8_t k = 0; k < sim->node_count; k++)
        if ((gave >> k & 1) && !peer_down(core, peer_slot(core, sim->node[k].id)))
            return true;
    return false;
}

/* Node i stores a unit: the end of its claim, if it has the term that was asked for. */
void oracle_claimed(struct sim *sim, uint8_t i, const struct unit_row *row)
{
    struct god_unit *g = world_unit(sim, &row->id);
    const struct node *n = &sim->node[i];
    if (!g || row->owner != n->id || row->mine != n->core->epoch || !g->asked[i].term)
        return;
    bool ends = row->term == g->asked[i].term;
    sim->r.invariant_checks[8] += ends;
    if (ends && counts(sim, i, g->asked[i].gave) && n->fence_at > g->asked[i].at)
        sim_fail(sim, 8, "n%u claims " UID " by consents older than a fence it knows", i,
            UIDV(&row->id));
}
