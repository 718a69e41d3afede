/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/core/internal.h"

void gossip_timer(struct core *core)
{
    core->gossip_at = CORE_FOREVER;
}

void gossip_recv(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    (void)core;
    (void)slot;
    (void)msg;
}

void gossip_row(struct core *core, uint32_t key, const uint8_t *value, uint8_t length)
{
    (void)core;
    (void)key;
    (void)value;
    (void)length;
}
