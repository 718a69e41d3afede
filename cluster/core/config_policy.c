/* SPDX-License-Identifier: Apache-2.0 */
/* Growing and shrinking: which of the members vote, and in which mode, is proposed by the
 * cluster itself, one step at a time. Only ever a proposal: what is safe is decided by
 * the rules of the other files. One voter at a time thinks of it, the lowest that is
 * alive. */
#include "cluster/core/internal.h"

#include <string.h>

#define THINK_NS (2 * CORE_SEC)
#define LAGGARD_NS                                                                       \
    (30 * CORE_SEC) /* a voter that is not active by then is not waited for */

struct census {
    uint8_t members; /* that do not leave */
    uint8_t stores, voters, zones;
};

static uint8_t roles(const struct core *core, uint8_t slot)
{
    return core->peer[slot].roles;
}

static bool stays(const struct core *core, uint8_t slot)
{
    return peer_member(core, slot) && !(roles(core, slot) & ROLE_DRAINING);
}

/* It has been here, or it is us: a name on paper changes nothing yet. */
static bool came(const struct core *core, uint8_t slot)
{
    const struct peer *p = &core->peer[slot];
    return slot == core->self || p->known || p->cfg_seen;
}

static bool alive(const struct core *core, uint8_t slot)
{
    const struct peer *p = &core->peer[slot];
    return slot == core->self ||
           (p->swim == SWIM_ALIVE && p->heard_at &&
               core->now < p->heard_at + 5 * CORE_SEC && p->cfg_seen >= core->cfg.ver);
}

static bool long_dead(const struct core *core, uint8_t slot)
{
    const struct peer *p = &core->peer[slot];
    uint64_t since = p->heard_at > core->started_at ? p->heard_at : core->started_at;
    return slot != core->self && core->now > since + core->p.demote_ns;
}

static struct census take_census(const struct core *core)
{
    struct census c = {0, 0, 0, 0};
    uint8_t zone_seen[32] = {0};
    for (uint8_t i = 1; i <= core->peer_count; i++) {
        c.voters = (uint8_t)(c.voters + is_voter(core, i));
        if (!stays(core, i) || !came(core, i))
            continue;
        uint8_t zone = core->peer[i].zone;
        c.members++;
        c.stores = (uint8_t)(c.stores + ((roles(core, i) & ROLE_STORE) != 0));
        c.zones = (uint8_t)(c.zones + !bit_get(zone_seen, zone));
        bit_set(zone_seen, zone);
    }
    return c;
}

static uint8_t voters_wanted(const struct census *c)
{
    if (c->members >= 50 && c->zones >= 3)
        return 7;
    if (c->members >= 5)
        return 5;
    if (c->members >= 3)
        return 3;
    return c->members == 2 && c->stores == 2 ? 2 : 1;
}

static uint8_t voters_in(const struct core *core, uint8_t zone)
{
    uint8_t n = 0;
    for (uint8_t i = 1; i <= core->peer_count; i++)
        n = (uint8_t)(n + (is_voter(core, i) && core->peer[i].zone == zone));
    return n;
}

static uint64_t node_of(const struct core *core, uint8_t slot)
{
    return core->peer[slot].node;
}

/* The member that had best become a voter, or 0: a zone with few voters, then the lower
 * id, so that all who think come to the same. */
uint8_t policy_candidate(const struct core *core)
{
    uint8_t best = 0, best_zone = 0;
    for (uint8_t i = 1; i <= core->peer_count; i++) {
        if (is_voter(core, i) || !stays(core, i) || !came(core, i) || !alive(core, i))
            continue;
        uint8_t zone = voters_in(core, core->peer[i].zone);
        if (best == 0 || zone < best_zone ||
            (zone == best_zone && node_of(core, i) < node_of(core, best))) {
            best = i;
            best_zone = zone;
        }
    }
    return best;
}

/* The voter that had best stop being one: leaving, dead, then one of a crowded zone. */
static uint8_t weakest(const struct core *core)
{
    uint8_t best = 0;
    uint32_t best_score = 0;
    for (uint8_t i = 1; i <= core->peer_count; i++) {
        if (!is_voter(core, i))
            continue;
        uint32_t score =
            (uint32_t)!stays(core, i) << 10 | (uint32_t)long_dead(core, i) << 9 |
            (uint32_t)voters_in(core, core->peer[i].zone) << 1 | (i != core->self);
        if (best == 0 || score > best_score ||
            (score == best_score && node_of(core, i) > node_of(core, best))) {
            best = i;
            best_score = score;
        }
    }
    return best;
}

static bool any_voter(
    const struct core *core, bool (*is)(const struct core *core, uint8_t slot))
{
    for (uint8_t i = 1; i <= core->peer_count; i++)
        if (is_voter(core, i) && is(core, i))
            return true;
    return false;
}

static bool leaves(const struct core *core, uint8_t slot)
{
    return !stays(core, slot);
}

static uint8_t leaving_voters(const struct core *core)
{
    uint8_t n = 0;
    for (uint8_t i = 1; i <= core->peer_count; i++)
        n = (uint8_t)(n + (is_voter(core, i) && leaves(core, i)));
    return n;
}

static bool not_alive(const struct core *core, uint8_t slot)
{
    return !alive(core, slot);
}

static void vote(const struct core *core, uint8_t slot, bool on, struct cfg_change *out)
{
    out->op = CFG_ROLES;
    out->node = node_of(core, slot);
    out->roles = (uint8_t)((roles(core, slot) & ~(ROLE_VOTER | ROLE_WAS_VOTER)) |
                           (on ? ROLE_VOTER : 0));
}

static bool go_mode(uint8_t mode, struct cfg_change *out)
{
    out->op = CFG_MODE;
    out->mode = mode;
    return true;
}

/* It leaves, and has no vote: under static mode it can hand over nothing of what it has.
 */
static bool stranded(const struct core *core)
{
    for (uint8_t i = 1; i <= core->peer_count; i++)
        if (peer_member(core, i) && !is_voter(core, i) && leaves(core, i) &&
            alive(core, i))
            return true;
    return false;
}

/* Two nodes that become three, or one. In static mode all voters must take part, so none
 * of this begins while one is away. */
static bool think_static(
    const struct core *core, const struct census *c, struct cfg_change *out)
{
    uint8_t want = voters_wanted(c), candidate = policy_candidate(core);
    if (any_voter(core, not_alive))
        return false;
    bool three = c->members + leaving_voters(core) >= 3;
    if (three && c->voters < 3 && candidate) {
        vote(core, candidate, true, out);
        return true;
    }
    if (three)
        return c->voters >= 3 && go_mode(MODE_QUORUM, out);
    if (want == 1 && c->voters > 1) {
        vote(core, weakest(core), false, out);
        return true;
    }
    if (want == 1)
        return go_mode(MODE_QUORUM, out);
    if (c->voters < 2 && candidate) {
        vote(core, candidate, true, out);
        return true;
    }
    return c->voters > 1 && stranded(core) && go_mode(MODE_QUORUM, out);
}

/* The second of two: its vote and static mode in one step, when it has a lease of ours.
 */
static bool make_pair(const struct core *core, uint8_t slot, struct cfg_change *out)
{
    uint32_t epoch = core->peer[slot].sess.cur;
    vote(core, slot, true, out);
    out->mode = MODE_STATIC;
    out->off_epoch = epoch;
    return voter_vouches(core, slot, epoch);
}

static bool think_quorum(
    const struct core *core, const struct census *c, struct cfg_change *out)
{
    uint8_t want = voters_wanted(c), candidate = policy_candidate(core);
    if (c->members == 0)
        return false;
    if (want == 2 && c->voters == 2 && core->cfg.count == 2)
        return !any_voter(core, not_alive) && go_mode(MODE_STATIC, out);
    if (want == 2 && core->cfg.count > 2 && c->voters >= 2 &&
        !(c->voters == 2 && any_voter(core, leaves)))
        return false; /* whoever leaves has not left yet */
    if (want == 2 && c->voters == 1 && core->cfg.count == 2 && candidate)
        return make_pair(core, candidate, out);
    if (candidate && c->voters > 1 && any_voter(core, long_dead)) {
        vote(core, weakest(core), false, out); /* its place is filled right after */
        return true;
    }
    if (candidate &&
        (c->voters < want || (c->voters == want && any_voter(core, leaves)))) {
        vote(core, candidate, true, out);
        return true;
    }
    if (c->voters > want || (c->voters > 1 && any_voter(core, leaves))) {
        vote(core, weakest(core), false, out);
        return true;
    }
    return false;
}

/* The lowest voter that seems alive speaks; others come in when it is silent. */
static bool our_turn(const struct core *core)
{
    if (!is_voter(core, core->self) || !core->voter_active ||
        !(core->cfg.flags & CFG_AUTO_VOTERS) || core->wish.active || core->prop.active ||
        (core->state != CORE_SYNC && core->state != CORE_READY) ||
        (!config_static(core) && !session_lease(core, core->p.start_margin_ns)))
        return false;
    for (uint8_t i = 1; i <= core->peer_count; i++)
        if (is_voter(core, i) && node_of(core, i) < core->node && alive(core, i))
            return false;
    return true;
}

/* Sessions of static mode that have not met would begin anew in quorum mode. */
static bool not_met(const struct core *core, uint8_t slot)
{
    const struct peer *p = &core->peer[slot];
    return slot != core->self && !(p->known && p->synced);
}

/* The last step is behind us: its voters are active, and the spacing is over. */
static bool settled(const struct core *core)
{
    bool late = core->now >= core->active_since + LAGGARD_NS;
    if (core->cfg.mode == MODE_STATIC)
        return core->now >= core->active_since + CORE_SEC &&
               (late || !any_voter(core, not_met));
    for (uint8_t i = 1; i <= core->peer_count && !late; i++)
        if (is_voter(core, i) && core->cfg.was_voters && !bit_get(core->active_ok, i))
            return false;
    return core->cfg.prev_ver == core->cfg.voters_ver ||
           core->now >= core->active_since + config_spacing(core) + CORE_SEC / 2;
}

void policy_timer(struct core *core)
{
    struct cfg_change change;
    if (!(core->cfg.flags & CFG_AUTO_VOTERS) || core->state < CORE_OPENING)
        return;
    uint64_t next = core->now + THINK_NS;
    core->config_at = next < core->config_at ? next : core->config_at;
    if (!our_turn(core) || !settled(core))
        return;
    struct census c = take_census(core);
    memset(&change, 0, sizeof(change));
    if (core->cfg.mode == MODE_STATIC ? !think_static(core, &c, &change)
                                      : !think_quorum(core, &c, &change))
        return;
    change.proposer = core->node;
    change.serial = (uint32_t)core_random(core);
    paxos_propose(core, &change);
}
