/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/core/internal.h"

uint8_t peer_slot(const struct core *core, uint64_t node)
{
    for (uint8_t i = 1; i <= core->peer_count; i++)
        if (core->peer[i].node == node)
            return i;
    return 0;
}

uint8_t peer_intern(struct core *core, uint64_t node)
{
    uint8_t slot = peer_slot(core, node);
    if (slot || node == 0 || core->peer_count + 1 >= SLOTS)
        return slot;
    slot = ++core->peer_count;
    core->peer[slot].node = node;
    core->peer[slot].sess.node = node;
    return slot;
}

bool peer_member(const struct core *core, uint8_t slot)
{
    return core->peer[slot].in_cfg != 0;
}

/* A node whose every known session is fenced, or that left the configuration for ever. A
 * node of which no session was ever seen is not down: it may have one unknown to us. */
bool peer_down(const struct core *core, uint8_t slot)
{
    const struct peer *p = &core->peer[slot];
    if (slot == core->self)
        return false;
    if (!p->in_cfg && core->cfg.count)
        return true;
    return p->known && p->fenced >= p->known;
}

bool is_voter(const struct core *core, uint8_t slot)
{
    return core->peer[slot].in_cfg && (core->peer[slot].roles & ROLE_VOTER);
}

uint8_t voter_count(const struct core *core)
{
    uint8_t n = 0;
    for (uint8_t i = 1; i <= core->peer_count; i++)
        if (is_voter(core, i))
            n++;
    return n;
}

/* Counted over the stored configuration, never over those that seem alive. */
uint8_t quorum(const struct core *core)
{
    uint8_t n = 0;
    for (uint8_t i = 1; i <= core->peer_count; i++) {
        bool counts = is_voter(core, i);
        if (MUT(core, MUT_MAJORITY_OF_ALIVE) && i != core->self &&
            core->now > core->peer[i].heard_at + 5 * CORE_SEC)
            counts = false;
        n = (uint8_t)(n + counts);
    }
    return (uint8_t)(n / 2 + 1);
}

/* Takes in fence evidence. The row is stored before any later store or answer: order of
 * tokens makes "store F, then act" true for all who act through the disk. */
void peer_learn(struct core *core, uint8_t slot, uint32_t fenced, uint32_t known)
{
    struct peer *p = &core->peer[slot];
    if (slot == 0 || fenced == UINT32_MAX)
        return;
    if (slot == core->self) {
        if (fenced > core->epoch && fenced < NODE_CLOSED && core->state >= CORE_OPENING &&
            !MUT(core, MUT_TWIN_GRANTED)) {
            SOMETIMES(core, ST_OLD_IMAGE);
            core_die(
                core, "a session that we do not know was fenced: this is an old image");
            return;
        }
        if (fenced >= core->epoch && core->state >= CORE_OPENING) {
            SOMETIMES(core, ST_FENCED_SELF);
            core_new_session(core);
        }
        return;
    }
    if (fenced <= p->fenced && known <= p->known)
        return;
    bool was_down = peer_down(core, slot);
    if (was_down && known >= NODE_CLOSED && p->known <= p->boot_fenced)
        p->boot_fenced = NODE_CLOSED; /* no session of it ended just now */
    p->fenced = fenced > p->fenced ? fenced : p->fenced;
    p->known = known > p->known ? known : p->known;
    struct core_op op = {.kind = OP_FENCE};
    op.u.fence = (struct core_fence_row){p->node, p->fenced, p->known};
    core_store_one(core, &op);
    core->fences++;
    if (peer_down(core, slot) && !was_down) {
        p->down_since = core->now;
        p->out.active = false;
        sync_check(core);
        sweep_all(core);
    } else if (was_down && !peer_down(core, slot)) {
        sweep_all(core);
    }
}

/* Time lost by our own clock shows as a fall of local - remote below every value seen:
 * delay can only make it grow (cluster/README.md, lost time). */
static bool lost_time(struct core *core, struct peer *p, const struct core_env *env)
{
    int64_t d = (int64_t)(core->now - env->clock_ns);
    /* a new session on the same boot goes on with the same clock; only a reboot starts
     * anew */
    bool rebooted = p->d_epoch != env->from_epoch && env->clock_ns < p->d_clock;
    if (env->clock_ns > p->d_clock || rebooted)
        p->d_clock = env->clock_ns;
    if (!p->d_valid || rebooted) {
        p->d_valid = true;
        p->d_epoch = env->from_epoch;
        p->d_min = p->d_low = d;
        p->d_at = core->now;
        return false;
    }
    int64_t drift = (int64_t)((core->now - p->d_at) / 1000000 * core->p.rho_ppm);
    p->d_epoch = env->from_epoch;
    p->d_low = d < p->d_low ? d : p->d_low;
    bool lost = d < p->d_min - drift - (int64_t)(250 * CORE_MS);
    /* The reference stands for a whole window: frames that waited while we stood still
     * bring it down in small steps, and each step alone looks like a shorter delay. A new
     * window also forgets an old minimum that the peer's own lost time has made too low.
     */
    if (lost || core->now > p->d_at + 30 * CORE_SEC) {
        p->d_min = lost ? d : p->d_low;
        p->d_low = d;
        p->d_at = core->now;
    }
    return lost;
}

void peer_heard(struct core *core, uint8_t slot, const struct core_env *env)
{
    struct peer *p = &core->peer[slot];
    if (env->hop == 0)
        p->heard_at = core->now;
    if (env->from_epoch < p->heard_epoch)
        return;
    if (env->from_epoch > p->heard_epoch || env->clock_ns > p->heard_clock) {
        p->heard_epoch = env->from_epoch;
        p->heard_clock = env->clock_ns;
        p->echo_at = core->now;
    }
    if (is_voter(core, slot) && lost_time(core, p, env) &&
        !MUT(core, MUT_NO_FREEZE_CHECK))
        session_frozen(core);
}

bool peer_reachable(const struct core *core, uint8_t slot)
{
    const struct peer *p = &core->peer[slot];
    return p->in_cfg && !peer_down(core, slot) && p->known && p->swim == SWIM_ALIVE &&
           !p->indirect_ok;
}
