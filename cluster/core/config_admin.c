/* SPDX-License-Identifier: Apache-2.0 */
/* What the operator asks for: a wish of one or several steps, and the two words that only
 * an operator can give (force-fence, force-config). */
#include "cluster/core/internal.h"

#include <string.h>

#define WISH_NS (60 * CORE_SEC) /* and time for the spacing of four steps */
#define WORN_ROLES (ROLE_VOTER | ROLE_STORE | ROLE_EGRESS | ROLE_DRAINING)

enum step { STEP_GO, STEP_WAIT, STEP_DONE, STEP_REFUSED };

void config_admin_done(
    struct core *core, uint64_t token, enum admin_result result, const char *why)
{
    if (token == 0)
        return;
    struct core_command *c = core_cmd(core, CMD_ADMIN_DONE);
    c->u.admin.token = token;
    c->u.admin.ver = core->cfg.ver;
    c->u.admin.result = (uint8_t)result;
    c->u.admin.why = why;
}

void config_admin_durable(struct core *core, uint64_t token)
{
    config_admin_done(core, token, ADMIN_OK, NULL);
}

/* It spoke lately, so it is not powered off. */
static bool answers(const struct core *core, uint8_t slot)
{
    const struct peer *p = &core->peer[slot];
    return p->heard_at && core->now < p->heard_at + core->p.lease_ns;
}

/* ---- birth ---- */

static const char *birth(struct core *core, const struct cfg_change *c)
{
    if (core->state != CORE_IDLE || core->cfg.count)
        return "this node belongs to a cluster already";
    struct core_cfg next;
    memset(&next, 0, sizeof(next));
    next.ver = next.mode_ver = next.voters_ver = next.prev_ver = 1;
    next.mode = MODE_QUORUM;
    next.copies = c->copies ? c->copies : 2;
    next.min_copies = c->min_copies;
    next.flags = (uint8_t)(CFG_AUTO_VOTERS | (c->min_copies ? 0 : CFG_AUTO_MIN));
    next.count = 1;
    struct core_member *m = &next.member[0];
    m->node = core->node;
    m->roles = (uint8_t)(ROLE_VOTER | (c->roles & (ROLE_STORE | ROLE_EGRESS)));
    m->zone = c->zone;
    m->weight = c->weight ? c->weight : 1;
    m->ident = c->ident;
    cfg_auto_min(&next);
    if (!cfg_valid(&next))
        return "copies or min_copies is out of range";
    config_install(core, &next, NULL);
    return NULL;
}

/* ---- force ---- */

static const char *force_fence(struct core *core, uint64_t node)
{
    uint8_t slot = peer_slot(core, node);
    if (slot == 0 || slot == core->self || !peer_member(core, slot))
        return "no other member has this id";
    if (answers(core, slot))
        return "the node answers, so it is not powered off: stop it first";
    if (core->peer[slot].known == 0)
        return "no session of this node was ever seen here";
    fence_done(core, slot, core->peer[slot].known, 2);
    return NULL;
}

static const char *forced_off(struct core *core, struct core_cfg *next, uint64_t node)
{
    uint8_t slot = peer_slot(core, node);
    if (slot == 0 || slot == core->self || !cfg_find(next, node))
        return "no other member has one of these ids";
    if (answers(core, slot))
        return "one of the nodes answers, so it is not powered off: stop it first";
    uint8_t n = 0;
    for (uint8_t i = 0; i < next->count; i++)
        if (next->member[i].node != node)
            next->member[n++] = next->member[i];
    memset(&next->member[n], 0, sizeof(next->member[n]));
    next->count = n;
    return NULL;
}

/* A new generation: its number is above all that the lost quorum may yet have decided,
 * and two operators who do it at once do not get the same one. */
static const char *force_config(struct core *core, const uint64_t *nodes, uint32_t count)
{
    struct core_cfg next = core->cfg;
    if (core->state < CORE_OPENING || !peer_member(core, core->self))
        return "this node is no member of a cluster, or has just started: try again";
    if (count == 0 || count >= next.count)
        return "name the nodes that are powered off, and not all of them";
    for (uint32_t i = 0; i < count; i++) {
        const char *why = forced_off(core, &next, nodes[i]);
        if (why)
            return why;
    }
    uint64_t counter = (next.ver & ((UINT64_C(1) << 48) - 1)) + 1;
    next.ver = ((next.ver >> 48) + 1) << 48 | (counter + core_below(core, 1u << 24));
    next.mode_ver = next.voters_ver = next.ver;
    next.prev_ver = 0;
    next.was_voters = 0;
    for (uint8_t i = 0; i < next.count; i++) {
        struct core_member *m = &next.member[i];
        m->roles = m->roles & WORN_ROLES;
        if (m->node == core->node && cfg_voters(&next) == 0)
            m->roles |= ROLE_VOTER;
    }
    if (cfg_voters(&next) < 2)
        next.mode = MODE_QUORUM;
    cfg_auto_min(&next);
    config_install(core, &next, NULL);
    config_tell_all(core);
    return NULL;
}

/* ---- wishes ---- */

static enum step refuse(const char **why, const char *text)
{
    *why = text;
    return STEP_REFUSED;
}

static void roles_step(const struct core_member *m, uint8_t roles, const struct wish *w,
    struct cfg_change *c)
{
    memset(c, 0, sizeof(*c));
    c->op = CFG_ROLES;
    c->node = m->node;
    c->roles = roles & WORN_ROLES;
    c->off = w->c.off;
    c->off_epoch = w->c.off_epoch;
}

/* All of its sessions are over for good: a quorum of voters has closed the node, or the
 * operator swears that it is off. Without that it might deliver while others claim. */
static enum step close_node(struct core *core, const struct core_member *m,
    const struct wish *w, const char **why)
{
    uint8_t slot = peer_slot(core, m->node);
    if (core->peer[slot].fenced >= NODE_CLOSED)
        return STEP_GO;
    if (core->cfg.mode == MODE_STATIC) {
        if (w->c.off != m->node)
            return STEP_WAIT; /* until the mode has changed, or for ever */
        fence_done(core, slot, NODE_CLOSED, 2);
        return STEP_GO;
    }
    if (answers(core, slot) && !peer_down(core, slot))
        return refuse(why, "the node has a session: drain and stop it first");
    fence_node(core, slot);
    return core->peer[slot].fenced >= NODE_CLOSED ? STEP_GO : STEP_WAIT;
}

static enum step remove_step(struct core *core, const struct core_member *m,
    const struct wish *w, struct cfg_change *out, const char **why)
{
    if (core->cfg.count < 2)
        return refuse(why, "the last member cannot be removed");
    if (m->roles & ROLE_VOTER) {
        uint8_t slot = cfg_voters(&core->cfg) < 2 ? policy_candidate(core) : 0;
        if (cfg_voters(&core->cfg) < 2 && slot == 0)
            return refuse(why, "it is the only voter, and no other node can be one");
        const struct core_member *v =
            slot ? cfg_find(&core->cfg, core->peer[slot].node) : m;
        roles_step(v,
            (uint8_t)(slot ? v->roles | ROLE_VOTER
                           : (v->roles & ~ROLE_VOTER) | ROLE_DRAINING),
            w, out);
        return STEP_GO;
    }
    enum step step = close_node(core, m, w, why);
    memset(out, 0, sizeof(*out));
    out->op = CFG_REMOVE;
    out->node = m->node;
    out->off = w->c.off;
    out->off_epoch = w->c.off_epoch;
    return step;
}

static const struct core_member *same_name(
    const struct core *core, const struct cfg_change *c)
{
    for (uint8_t i = 0; i < core->cfg.count; i++)
        if (c->ident.name[0] && core->cfg.member[i].node != c->node &&
            memcmp(core->cfg.member[i].ident.name, c->ident.name,
                sizeof(c->ident.name)) == 0)
            return &core->cfg.member[i];
    return NULL;
}

/* A new disk under an old name: the old id leaves, the new one gets its roles. */
static enum step replace_step(struct core *core, const struct core_member *old,
    struct wish *w, struct cfg_change *out, const char **why)
{
    uint8_t slot = peer_slot(core, old->node);
    if (!peer_down(core, slot) && w->c.off != old->node)
        return refuse(why, "a member of this name has a session, or had one lately: "
                           "stop it, or choose another name");
    if (!w->inherited) {
        w->inherited = true;
        w->roles = old->roles & (ROLE_VOTER | ROLE_STORE | ROLE_EGRESS);
    }
    return remove_step(core, old, w, out, why);
}

static enum step add_step(
    struct core *core, struct wish *w, struct cfg_change *out, const char **why)
{
    const struct core_member *m = cfg_find(&core->cfg, w->c.node);
    const struct core_member *old = same_name(core, &w->c);
    uint8_t slot = peer_slot(core, w->c.node);
    if (m && memcmp(&m->ident, &w->c.ident, sizeof(m->ident)) != 0)
        return refuse(why, "this id is a member with another key, address or name");
    if (m && (w->roles & ROLE_VOTER) && !(m->roles & ROLE_VOTER)) {
        roles_step(m, m->roles | ROLE_VOTER, w, out);
        return STEP_GO;
    }
    if (m)
        return STEP_DONE;
    if (w->c.node == 0)
        return refuse(why, "a node has no id 0");
    if (slot && core->peer[slot].known)
        return refuse(why, "this id was a member before: wipe its disk, it then has a "
                           "new one");
    if (old)
        return replace_step(core, old, w, out, why);
    if (core->cfg.count == CORE_MEMBERS_MAX)
        return refuse(why, "the cluster is full");
    *out = w->c;
    out->roles = w->roles & (ROLE_STORE | ROLE_EGRESS);
    return STEP_GO;
}

static enum step roles_wish(
    struct core *core, const struct wish *w, struct cfg_change *out, const char **why)
{
    const struct core_member *m = cfg_find(&core->cfg, w->c.node);
    if (!m)
        return refuse(why, "no member has this id");
    uint8_t roles = w->c.roles & WORN_ROLES;
    if ((m->roles & WORN_ROLES) == roles)
        return STEP_DONE;
    if ((m->roles & ROLE_VOTER) && !(roles & ROLE_VOTER) && cfg_voters(&core->cfg) < 2)
        return refuse(why, "it is the only voter");
    roles_step(m, roles, w, out);
    return STEP_GO;
}

static enum step mode_step(const struct core *core, const struct wish *w,
    struct cfg_change *out, const char **why)
{
    struct core_cfg next = core->cfg;
    if (core->cfg.mode == w->c.mode)
        return STEP_DONE;
    if (!cfg_apply(&next, &w->c))
        return refuse(why, "static mode is for two nodes that both vote");
    *out = w->c;
    return STEP_GO;
}

static bool member_same(const struct core_member *a, const struct core_member *b)
{
    return a->roles == b->roles && a->zone == b->zone && a->weight == b->weight &&
           memcmp(&a->ident, &b->ident, sizeof(a->ident)) == 0;
}

static enum step value_step(const struct core *core, const struct wish *w,
    struct cfg_change *out, const char **why)
{
    struct core_cfg next = core->cfg;
    const struct core_member *m = cfg_find(&core->cfg, w->c.node);
    if (!cfg_apply(&next, &w->c))
        return refuse(why, w->c.op == CFG_IDENT
                               ? "no member has this id"
                               : "copies must be 1 to 6, min_copies not above it");
    next.ver = core->cfg.ver;
    bool same = w->c.op == CFG_IDENT
                    ? member_same(m, cfg_find(&next, w->c.node))
                    : next.copies == core->cfg.copies && next.flags == core->cfg.flags &&
                          next.min_copies == core->cfg.min_copies;
    *out = w->c;
    return same ? STEP_DONE : STEP_GO;
}

static enum step next_step(
    struct core *core, struct wish *w, struct cfg_change *out, const char **why)
{
    const struct core_member *m = cfg_find(&core->cfg, w->c.node);
    switch ((enum cfg_op)w->c.op) {
    case CFG_ADD:
        return add_step(core, w, out, why);
    case CFG_ROLES:
        return roles_wish(core, w, out, why);
    case CFG_REMOVE:
        return m ? remove_step(core, m, w, out, why) : STEP_DONE;
    case CFG_MODE:
        return mode_step(core, w, out, why);
    case CFG_COPIES:
    case CFG_IDENT:
        return value_step(core, w, out, why);
    case CFG_NONE:
        break;
    }
    return refuse(why, "there is no such change");
}

static void wish_end(struct core *core, enum admin_result result, const char *why)
{
    uint64_t token = core->wish.token;
    core->wish.active = false;
    core->prop.active = core->prop.active && result == ADMIN_FAILED;
    config_admin_done(core, token, result, why);
}

void config_admin_lost(struct core *core)
{
    if (core->wish.active)
        wish_end(core, ADMIN_FAILED, "this node is no member any more");
}

static const char *late(const struct core *core)
{
    if (core->cfg.mode == MODE_STATIC)
        return "not decided: in static mode every voter must answer; name one that is "
               "powered off";
    if (core->wish.c.op == CFG_REMOVE)
        return "not decided: the node still has a session, or too few voters answer";
    return "not decided: too few voters answer";
}

/* Looks at the version in force and proposes what is missing. */
void wish_timer(struct core *core)
{
    struct wish *w = &core->wish;
    struct cfg_change change;
    const char *why = NULL;
    if (!w->active || core->state < CORE_OPENING || core->state == CORE_RESIGNED)
        return;
    core->config_at = core->now + CORE_SEC;
    if (core->now > w->until) {
        wish_end(core, ADMIN_FAILED, late(core));
        return;
    }
    if (core->prop.active)
        return;
    switch (next_step(core, w, &change, &why)) {
    case STEP_DONE:
        wish_end(core, ADMIN_OK, NULL);
        break;
    case STEP_REFUSED:
        wish_end(core, ADMIN_REFUSED, why);
        break;
    case STEP_WAIT:
        break;
    case STEP_GO:
        change.proposer = core->node;
        change.serial = (uint32_t)core_random(core);
        paxos_propose(core, &change);
        break;
    }
}

/* A new version is in force: the wish may be fulfilled. */
void wish_decided(struct core *core)
{
    if (core->wish.active)
        config_soon(core);
}

static const char *begin(struct core *core, const struct core_event *e)
{
    struct wish *w = &core->wish;
    if (core->state < CORE_OPENING || core->state == CORE_RESIGNED ||
        !peer_member(core, core->self))
        return "this node has no session: ask another member";
    if (w->active)
        return "another change is under way: try again";
    const struct core_member *m =
        cfg_find(&core->cfg, e->u.admin.node ? e->u.admin.node : core->node);
    memset(w, 0, sizeof(*w));
    w->c = e->u.admin.change;
    if (e->u.admin.op != ADMIN_CHANGE) {
        if (!m)
            return "no member has this id";
        memset(&w->c, 0, sizeof(w->c));
        w->c.op = CFG_ROLES;
        w->c.node = m->node;
        w->c.roles = e->u.admin.op == ADMIN_DRAIN ? m->roles | ROLE_DRAINING
                                                  : (uint8_t)(m->roles & ~ROLE_DRAINING);
    }
    uint8_t off = w->c.off ? peer_slot(core, w->c.off) : 0;
    if (off && answers(core, off))
        return "the node answers, so it is not powered off: stop it first";
    w->c.off_epoch = off ? core->peer[off].known : 0;
    w->roles = w->c.roles;
    w->token = e->u.admin.token;
    w->until = core->now + WISH_NS + 4 * config_spacing(core);
    w->active = true;
    config_soon(core);
    return NULL;
}

void config_admin(struct core *core, const struct core_event *e)
{
    const char *why = NULL;
    switch ((enum core_admin)e->u.admin.op) {
    case ADMIN_INIT:
        why = birth(core, &e->u.admin.change);
        break;
    case ADMIN_FORCE_FENCE:
        why = force_fence(core, e->u.admin.node);
        break;
    case ADMIN_FORCE_CONFIG:
        why = force_config(core, e->u.admin.nodes, e->u.admin.count);
        break;
    case ADMIN_CHANGE:
    case ADMIN_DRAIN:
    case ADMIN_UNDRAIN:
        why = begin(core, e);
        if (!why)
            return; /* answered when it is decided */
        break;
    case ADMIN_RESIGN:
        core->leaving = true;
        session_resign(core, e->u.admin.count);
        break;
    }
    if (why || core->token_last <= core->token_done)
        config_admin_done(core, e->u.admin.token, why ? ADMIN_REFUSED : ADMIN_OK, why);
    else
        core_park_admin(core, core->token_last, e->u.admin.token);
}
