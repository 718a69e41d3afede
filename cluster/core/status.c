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

/* ---- mail of owners that seem to be gone ---- */

static bool seems_gone(const struct core *core, uint8_t slot)
{
    return slot != core->self && (peer_down(core, slot) || !peer_member(core, slot) ||
                                     core->peer[slot].swim != SWIM_ALIVE);
}

static bool waits(const struct core *core, const struct unit *u)
{
    if (u->state != UNIT_LIVE || (u->flags & UF_ACCEPTING) || u->owner == core->self ||
        !seems_gone(core, u->owner))
        return false;
    for (int i = 0; i < u->list_count; i++) {
        uint8_t slot = u->list[i];
        if (slot == core->self)
            return true;
        if (slot != u->owner && unit_status(u, i) == LIST_HOLD && !seems_gone(core, slot))
            return false;
    }
    return true;
}

bool core_unit_waits(const struct core *core, const struct core_unit_id *id)
{
    const struct unit *u = unit_find(core, id);
    return u && waits(core, u);
}

static struct core_waiting *waiting_of(struct core_survey *s, uint64_t owner)
{
    uint8_t i = 0;
    while (i < s->owner_count && s->owner[i].owner != owner)
        i++;
    if (i == CORE_MEMBERS_MAX)
        return NULL; /* more owners than members can be: left out */
    if (i == s->owner_count)
        s->owner[s->owner_count++] = (struct core_waiting){.owner = owner};
    return &s->owner[i];
}

static void survey_unit(
    const struct core *core, struct core_survey *s, const struct unit *u)
{
    uint64_t open = unit_all(u) & ~(u->delivered | u->failed);
    unsigned rcpts = (unsigned)__builtin_popcountll(open);
    if (u->flags & UF_C_OWNED) {
        s->owned_rcpts += rcpts;
        return;
    }
    struct core_waiting *w =
        waits(core, u) ? waiting_of(s, core->peer[u->owner].node) : NULL;
    if (w) {
        w->units++;
        w->rcpts += rcpts;
    }
}

void core_survey(const struct core *core, struct core_survey *s, uint32_t units)
{
    if (s->at == 0)
        memset(s, 0, sizeof(*s));
    for (; units && s->at < core->unit_high; units--, s->at++)
        if (core->unit[s->at].flags & UF_USED)
            survey_unit(core, s, &core->unit[s->at]);
    if (s->at >= core->unit_high)
        s->at = 0;
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
