/* SPDX-License-Identifier: Apache-2.0 */
/* What a core tells of itself: counts for status, a hash to prove determinism. */
#include "cluster/core/internal.h"

#include <string.h>

static const char *const state_names[] = {
    [CORE_BOOT] = "booting",
    [CORE_IDLE] = "no configuration",
    [CORE_EPOCH] = "starting",
    [CORE_OPENING] = "opening",
    [CORE_SYNC] = "syncing",
    [CORE_READY] = "ready",
    [CORE_RESIGNED] = "resigned",
};

static void view_of(const struct core *core, uint8_t slot, struct core_member_view *out)
{
    const struct peer *p = &core->peer[slot];
    bool self = slot == core->self;
    out->node = p->node;
    out->view = self ? (uint8_t)SWIM_ALIVE : p->swim;
    out->session = peer_down(core, slot) ? 2 : !self && p->known == 0;
    out->relayed = p->indirect_ok && core->now < p->relay_until;
    out->epoch = self ? core->epoch : p->known;
    out->heard_ns = self ? core->now : p->heard_at;
}

void core_counts(const struct core *core, struct core_counts *out)
{
    bool open = core->state == CORE_SYNC || core->state == CORE_READY;
    memset(out, 0, sizeof(*out));
    out->state = state_names[core->state];
    out->epoch = core->epoch;
    out->cfg_ver = core->cfg.ver;
    out->lease_end_ns = open ? core->gate.lease_end_ns : 0;
    out->frozen = core->frozen;
    out->draining = core->draining;
    out->units = core->unit_count;
    out->accepting = core->accepting_count;
    out->owned = core->owned_count;
    out->tombstones = core->tomb_count;
    out->held =
        core->unit_count - core->accepting_count - core->owned_count - core->tomb_count;
    out->copies_short = core->short_count;
    out->in_doubt = core->doubt_count;
    out->damaged = core->damaged_count;
    out->quarantined = core->quarantined;
    for (uint8_t i = 1; i <= core->peer_count; i++)
        if (peer_member(core, i) && out->member_count < CORE_MEMBERS_MAX)
            view_of(core, i, &out->member[out->member_count++]);
}

/* ---- determinism ---- */

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * UINT64_C(0xff51afd7ed558ccd);
    return h ^ (h >> 32);
}

uint64_t core_hash(const struct core *core)
{
    uint64_t h = mix(core->rng, core->now);
    h = mix(h, core->epoch ^ (uint64_t)core->state << 32);
    h = mix(mix(h, core->token_last), core->lease_end);
    for (uint32_t i = 0; i < core->unit_high; i++) {
        const struct unit *u = &core->unit[i];
        if (!(u->flags & UF_USED))
            continue;
        h = mix(mix(h, u->id_lo), (uint64_t)u->term << 32 | u->owner_epoch);
        h = mix(h, u->delivered ^ u->failed << 1 ^ u->doubt << 2);
        h = mix(h, (uint64_t)u->owner << 32 | (uint64_t)u->state << 16 | u->flags);
    }
    for (int i = 1; i <= core->peer_count; i++)
        h = mix(h, (uint64_t)core->peer[i].fenced << 32 | core->peer[i].known);
    return h;
}
