/* SPDX-License-Identifier: Apache-2.0 */
/* Bounces: whoever reports a failure has the DSN accepted before (cluster/README.md). The
 * id follows from the unit and its recipients, so that made twice it is the same message.
 */
#include "tests/sim/sim.h"

#include <string.h>

static struct core_unit_id dsn_id(const struct attempt *a)
{
    uint64_t mixed = (a->id.lo ^ a->failed << 56 ^ (uint64_t)(a->id.part + 1) << 48) *
                     UINT64_C(0x9e3779b97f4a7c15);
    return (struct core_unit_id){a->id.hi, mixed, 0, 0};
}

/* Its entry among the mails; NULL when there are too many. */
static struct mail *entry(struct sim *sim, const struct core_unit_id *id)
{
    for (uint32_t k = MAILS_MAX; k < MAILS_MAX + sim->dsn_count; k++)
        if (memcmp(&sim->mail[k].dsn, id, sizeof(*id)) == 0)
            return &sim->mail[k];
    if (sim->dsn_count == DSNS_MAX)
        return NULL;
    struct mail *m = &sim->mail[MAILS_MAX + sim->dsn_count++];
    memset(m, 0, sizeof(*m));
    m->dsn = *id;
    m->parts = m->rcpts[0] = 1;
    return m;
}

static void submit(struct sim *sim, struct attempt *a, struct mail *m)
{
    struct submission *s = &m->sub[m->tries % 12];
    uint32_t index = (uint32_t)(m - sim->mail);
    memset(s, 0, sizeof(*s));
    s->node = a->node;
    s->gen = sim->node[a->node].gen;
    s->at = sim->now;
    m->attempt = (uint32_t)(a - sim->attempt);
    struct core_event e = {.kind = EV_ACCEPT};
    e.u.accept.handle = (uint64_t)index << 8 | (m->tries % 12 + 1u);
    m->tries++;
    e.u.accept.id = m->dsn;
    e.u.accept.wall_ms = 1;
    e.u.accept.expires_s = (uint32_t)(wall_s(sim) + 400000);
    e.u.accept.size_bytes = 2000;
    e.u.accept.flags = UNIT_IS_DSN | UNIT_NULL_SENDER;
    e.u.accept.part_count = 1;
    e.u.accept.rcpts[0] = 1;
    node_step(sim, a->node, &e);
}

static bool some_drain(const struct sim *sim)
{
    const struct core_cfg *c = sim_newest(sim);
    for (uint8_t i = 0; i < c->count; i++)
        if (c->member[i].roles & ROLE_DRAINING)
            return true;
    return false;
}

/* True: the outcome waits for the DSN. It is asked again until the answer is 250. */
bool dsn_owed(struct sim *sim, struct attempt *a, const struct sim_event *e)
{
    const struct god_unit *g = &sim->unit[a->unit];
    if (!sim->o.dsn || !a->failed || a->reply_lost || a->dsn_done || g->is_dsn)
        return false;
    struct core_unit_id id = dsn_id(a);
    const struct unit_row *row = disk_find(&sim->node[a->node].disk, &id);
    /* Members that drain take no copies. A member with mail is gone for good, and
     * min_copies with it; or a DSN was refused, and who may have a copy of it is gone for
     * good: no DSN until that one is removed.
     */
    if (sim->no_accept || (sim->now > sim->heal_at + 120 * SEC && some_drain(sim)) ||
        (sim->healed && sim->o.liveness && row && row->state == UNIT_ABORTED)) {
        sim->unit[a->unit].dsn_rcpts |= a->failed;
        return false;
    }
    struct mail *m = entry(sim, &id);
    if (!m) {
        sim_fail(sim, 0, "more DSNs than the simulator has room for");
        return true;
    }
    bool waits = m->tries && m->sub[(m->tries - 1) % 12].reply == 0 &&
                 m->sub[(m->tries - 1) % 12].node == a->node &&
                 m->sub[(m->tries - 1) % 12].gen == sim->node[a->node].gen;
    if (!waits)
        submit(sim, a, m);
    sim_at(sim, sim->now + 2 * SEC, SE_REPLY, e->node, e->gen, e->x, 0);
    return true;
}

void dsn_reply(struct sim *sim, uint8_t node, uint64_t handle, uint8_t reply)
{
    struct mail *m = &sim->mail[handle >> 8];
    struct submission *s = &m->sub[(handle & 0xff) - 1];
    struct attempt *a = &sim->attempt[m->attempt];
    struct god_unit *g = world_unit(sim, &m->dsn);
    TRACE(sim, "n%u replies %u to the DSN " UID, node, reply, UIDV(&m->dsn));
    s->reply = reply;
    if (reply != REPLY_250)
        return;
    if (g && s->unit_count == 0) { /* known: held, done or buried */
        s->first_unit = (uint32_t)(g - sim->unit);
        s->unit_count = 1;
    }
    uint64_t over = g ? (g->delivered | g->failed) & 1 : 0;
    if (!over)
        oracle_250(sim, node, s);
    sim->unit[a->unit].dsn_rcpts |= a->failed;
    a->dsn_done = true;
    sim_at(sim, sim->now, SE_REPLY, a->node, a->gen, m->attempt, 0);
}
