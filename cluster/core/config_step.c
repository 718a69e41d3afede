/* SPDX-License-Identifier: Apache-2.0 */
/* Configurations as values: one change makes the next version, everywhere the same. */
#include "cluster/core/internal.h"

#include <string.h>

#define WEIGHT_MAX 16
#define MEMBER_ROLES (ROLE_VOTER | ROLE_STORE | ROLE_EGRESS | ROLE_DRAINING)

const struct core_member *cfg_find(const struct core_cfg *cfg, uint64_t node)
{
    for (uint8_t i = 0; i < cfg->count; i++)
        if (cfg->member[i].node == node)
            return &cfg->member[i];
    return NULL;
}

static struct core_member *find(struct core_cfg *cfg, uint64_t node)
{
    for (uint8_t i = 0; i < cfg->count; i++)
        if (cfg->member[i].node == node)
            return &cfg->member[i];
    return NULL;
}

static uint8_t count_role(const struct core_cfg *cfg, uint8_t role)
{
    uint8_t n = 0;
    for (uint8_t i = 0; i < cfg->count; i++)
        n = (uint8_t)(n + ((cfg->member[i].roles & role) != 0));
    return n;
}

uint8_t cfg_voters(const struct core_cfg *cfg)
{
    return count_role(cfg, ROLE_VOTER);
}

/* Two copies where a third node can hold the second one when a node is down. */
void cfg_auto_min(struct core_cfg *cfg)
{
    if (cfg->flags & CFG_AUTO_MIN)
        cfg->min_copies = count_role(cfg, ROLE_STORE) >= 3 && cfg->copies >= 2 ? 2 : 1;
}

bool cfg_same(const struct cfg_change *a, const struct cfg_change *b)
{
    return a->proposer == b->proposer && a->serial == b->serial;
}

static uint8_t weight_of(uint8_t weight)
{
    return weight == 0 ? 1 : weight > WEIGHT_MAX ? WEIGHT_MAX : weight;
}

/* Another set of voters begins: its members take over the table of the present one. */
static void new_set(struct core_cfg *cfg, bool takes_over)
{
    cfg->was_voters = takes_over ? cfg_voters(cfg) : 0;
    for (uint8_t i = 0; i < cfg->count; i++) {
        uint8_t *roles = &cfg->member[i].roles;
        bool was = takes_over && (*roles & ROLE_VOTER);
        *roles = (uint8_t)((*roles & MEMBER_ROLES) | (was ? ROLE_WAS_VOTER : 0));
    }
    cfg->prev_ver = cfg->voters_ver;
    cfg->voters_ver = cfg->ver;
}

static bool apply_add(struct core_cfg *cfg, const struct cfg_change *c)
{
    if (c->node == 0 || cfg_find(cfg, c->node) || cfg->count == CORE_MEMBERS_MAX ||
        (c->roles & ROLE_VOTER))
        return false;
    struct core_member *m = &cfg->member[cfg->count++];
    memset(m, 0, sizeof(*m));
    m->node = c->node;
    m->roles = c->roles & (ROLE_STORE | ROLE_EGRESS);
    m->zone = c->zone;
    m->weight = weight_of(c->weight);
    m->ident = c->ident;
    return true;
}

/* The second of two gets its vote, and static mode begins: in between the loss of either
 * would stop the other. */
bool cfg_makes_pair(const struct cfg_change *c)
{
    return c->op == CFG_ROLES && c->mode == MODE_STATIC;
}

static bool apply_roles(struct core_cfg *cfg, const struct cfg_change *c)
{
    struct core_member *m = find(cfg, c->node);
    if (!m)
        return false;
    bool was = m->roles & ROLE_VOTER, is = c->roles & ROLE_VOTER;
    bool pair = cfg_makes_pair(c);
    uint8_t voters = cfg_voters(cfg);
    if ((was && !is && voters < 2) || (is && !was && voters >= CFG_VOTERS_MAX) ||
        (pair &&
            (cfg->mode != MODE_QUORUM || cfg->count != 2 || voters != 1 || was || !is)))
        return false;
    if (was != is)
        new_set(cfg, cfg->mode == MODE_QUORUM && !pair);
    m->roles = (uint8_t)((m->roles & ROLE_WAS_VOTER) | (c->roles & MEMBER_ROLES));
    if (pair) {
        cfg->mode = MODE_STATIC;
        cfg->mode_ver = cfg->ver;
    }
    return true;
}

/* A voter is demoted first, so that each step changes one vote at most. */
static bool apply_remove(struct core_cfg *cfg, const struct cfg_change *c)
{
    struct core_member *m = find(cfg, c->node);
    if (!m || (m->roles & ROLE_VOTER) || cfg->count < 2)
        return false;
    size_t at = (size_t)(m - cfg->member);
    memmove(m, m + 1, (cfg->count - at - 1) * sizeof(*m));
    memset(&cfg->member[--cfg->count], 0, sizeof(*m));
    return true;
}

/* Static mode is for just two: each is half of every quorum, so neither can be fenced. */
static bool apply_mode(struct core_cfg *cfg, const struct cfg_change *c)
{
    if (c->mode == cfg->mode || (c->mode != MODE_QUORUM && c->mode != MODE_STATIC) ||
        (c->mode == MODE_STATIC && (cfg->count != 2 || cfg_voters(cfg) != 2)))
        return false;
    new_set(cfg, false);
    cfg->mode = c->mode;
    cfg->mode_ver = cfg->ver;
    return true;
}

static bool apply_copies(struct core_cfg *cfg, const struct cfg_change *c)
{
    if (c->copies == 0 || c->copies > CORE_LIST_MAX - 2 || c->min_copies > c->copies)
        return false;
    cfg->copies = c->copies;
    cfg->min_copies = c->min_copies;
    cfg->flags = (uint8_t)(cfg->flags & ~CFG_AUTO_MIN);
    if (c->min_copies == 0)
        cfg->flags |= CFG_AUTO_MIN;
    return true;
}

static bool apply_ident(struct core_cfg *cfg, const struct cfg_change *c)
{
    struct core_member *m = find(cfg, c->node);
    if (!m)
        return false;
    m->zone = c->zone;
    m->weight = weight_of(c->weight);
    m->ident = c->ident;
    return true;
}

/* Makes the next version of cfg; false, with cfg in pieces, if the change is not allowed.
 * It must depend on nothing but its two arguments: all members come to the same result.
 */
bool cfg_apply(struct core_cfg *cfg, const struct cfg_change *change)
{
    bool ok = false;
    cfg->ver++;
    switch ((enum cfg_op)change->op) {
    case CFG_NONE:
        ok = true;
        break;
    case CFG_ADD:
        ok = apply_add(cfg, change);
        break;
    case CFG_ROLES:
        ok = apply_roles(cfg, change);
        break;
    case CFG_REMOVE:
        ok = apply_remove(cfg, change);
        break;
    case CFG_MODE:
        ok = apply_mode(cfg, change);
        break;
    case CFG_COPIES:
        ok = apply_copies(cfg, change);
        break;
    case CFG_IDENT:
        ok = apply_ident(cfg, change);
        break;
    }
    cfg_auto_min(cfg);
    return ok;
}

/* What came in pages makes sense. */
bool cfg_valid(const struct core_cfg *cfg)
{
    if (cfg->count == 0 || cfg->count > CORE_MEMBERS_MAX || cfg_voters(cfg) == 0 ||
        (cfg->mode != MODE_QUORUM && cfg->mode != MODE_STATIC) || cfg->copies == 0 ||
        cfg->copies > CORE_LIST_MAX || cfg->min_copies == 0 ||
        cfg->min_copies > cfg->copies || cfg->voters_ver > cfg->ver ||
        cfg->mode_ver > cfg->ver)
        return false;
    for (uint8_t i = 0; i < cfg->count; i++) {
        const struct core_member *m = &cfg->member[i];
        if (m->node == 0 || m->weight == 0 || cfg_find(cfg, m->node) != m)
            return false;
    }
    return true;
}
