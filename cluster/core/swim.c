/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/core/internal.h"

void swim_timer(struct core *core)
{
    if (core->now < core->probe_at)
        return;
    core->probe_at = core->now + core->p.probe_ns;
    for (uint8_t i = 1; i <= core->peer_count; i++) {
        struct peer *p = &core->peer[i];
        if (i == core->self || !peer_member(core, i))
            continue;
        p->swim = core->now > p->heard_at + 3 * core->p.probe_ns ? SWIM_DEAD : SWIM_ALIVE;
        struct core_msg m = {.kind = MSG_PING};
        core_send(core, i, &m);
    }
}

void swim_recv(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    core->peer[slot].swim = SWIM_ALIVE;
    if (msg->kind == MSG_PING) {
        struct core_msg m = {.kind = MSG_ACK};
        core_send(core, slot, &m);
    }
}
