/* SPDX-License-Identifier: Apache-2.0 */
/* What the trace of a failed seed ends with: the state of each node. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <string.h>

void oracle_describe(struct sim *sim)
{
    for (uint32_t k = 0; k < sim->config.job_count; k++)
        if (!sim->config.job[k].done)
            TRACE(sim, "END job %u n%u stage %u tries %u is not done",
                sim->config.job[k].kind, sim->config.job[k].target,
                sim->config.job[k].stage, sim->config.job[k].tries);
    for (uint32_t k = 0; k < sim->mail_count; k++)
        if (!sim->mail[k].done)
            TRACE(sim, "END mail %u not done after %u tries", k, sim->mail[k].tries);
    for (uint8_t i = 0; i < sim->node_count; i++) {
        struct node *n = &sim->node[i];
        TRACE(sim, "END n%u alive %d state %d epoch %u units %u queue %u", i, n->alive,
            n->alive ? n->core->state : -1, n->disk.meta.epoch, n->disk.unit_count,
            n->disk.count);
        if (n->alive)
            TRACE(sim,
                "  cfg %llx voter %d active %d draining %d wish %d prop %d/%d lease %.1f "
                "epoch %u gate %u%s",
                (unsigned long long)n->core->cfg.ver, is_voter(n->core, n->core->self),
                n->core->voter_active, n->core->draining, n->core->wish.active,
                n->core->prop.active, n->core->prop.phase,
                ((double)n->core->lease_end - (double)n->core->now) / 1e9, n->core->epoch,
                n->gate.epoch, n->gate.frozen ? " frozen" : "");
        if (n->alive && n->core->paxos.accepted)
            TRACE(sim, "  accepted for %llx: op %u roles %u mode %u",
                (unsigned long long)n->core->paxos.ver, n->core->paxos.change.op,
                n->core->paxos.change.roles, n->core->paxos.change.mode);
        for (uint8_t j = 1; n->alive && j <= n->core->peer_count; j++) {
            const struct peer *p = &n->core->peer[j];
            TRACE(sim,
                "  peer n%u F %u K %u sess %u/%u promise %.1f heard %.1f synced %d swim "
                "%d",
                sim_node_of(sim, p->node), p->fenced, p->known, p->sess.cur,
                p->sess.fenced, ((double)p->promise_until - (double)n->core->now) / 1e9,
                ((double)p->heard_at - (double)n->core->now) / 1e9, p->synced, p->swim);
        }
        for (uint32_t k = 0; n->alive && k < n->disk.unit_count && k < 8; k++) {
            const struct unit_row *row = &n->disk.unit[k];
            const struct unit *u = unit_find(n->core, &row->id);
            const struct work *w = u ? work_of(n->core, u) : NULL;
            char text[64] = "";
            for (int j = 0; j < row->list_count; j++)
                snprintf(text + strlen(text), sizeof(text) - strlen(text), " n%u:%u",
                    sim_node_of(sim, row->list[j].node), row->list[j].status);
            TRACE(sim, "  " UID " st %u term %u owner n%u/%u mine %u%s work %d fl %x",
                UIDV(&row->id), row->state, row->term, sim_node_of(sim, row->owner),
                row->owner_epoch, row->mine, text, w ? w->kind : 0, u ? u->flags : 0);
        }
    }
}
