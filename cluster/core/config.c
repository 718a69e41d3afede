/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/core/internal.h"

void config_index(struct core *core)
{
    for (uint8_t i = 1; i <= core->peer_count; i++)
        core->peer[i].in_cfg = 0;
    for (uint8_t i = 0; i < core->cfg.count; i++) {
        const struct core_member *m = &core->cfg.member[i];
        uint8_t slot = peer_intern(core, m->node);
        struct peer *p = &core->peer[slot];
        if (slot == 0)
            continue;
        p->in_cfg = (uint8_t)(i + 1);
        p->roles = m->roles;
        p->zone = m->zone;
        p->weight = m->weight;
    }
}

void config_boot(struct core *core)
{
    core->voter_active = true;
}

bool config_voter_active(const struct core *core)
{
    return core->voter_active;
}

void config_timer(struct core *core)
{
    (void)core;
}

void config_recv(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    (void)core;
    (void)slot;
    (void)msg;
}

void config_admin(struct core *core, const struct core_event *event)
{
    (void)core;
    (void)event;
}
