/* SPDX-License-Identifier: Apache-2.0 */
/* The limits of destinations, kept by all nodes together: cluster/budget.h between the
 * schedule, which says what it needs and hears what it may use, and the other nodes. */
#include <stdlib.h>

#include "base/alloc.h"
#include "base/metrics.h"
#include "node/cluster/copy_internal.h"

_Static_assert((int)QUOTA_KINDS == (int)BUDGET_KINDS &&
                   (int)QUOTA_MESSAGES == (int)BUDGET_MESSAGES &&
                   QUOTA_NO_LIMIT == BUDGET_NO_LIMIT,
    "the schedule and the cluster count the same");

/* --- to the schedule --- */

static void tell_share(
    void *ctx, uint64_t key, uint32_t serial, const uint32_t share[BUDGET_KINDS])
{
    struct engine *e = ctx;
    if (e->deps.events->share)
        e->deps.events->share(e->deps.ctx, key, serial, share);
}

static void tell_floor(void *ctx, const uint32_t floor[BUDGET_KINDS])
{
    struct engine *e = ctx;
    if (e->deps.events->floor)
        e->deps.events->floor(e->deps.ctx, floor);
}

/* --- to the other nodes --- */

static void send_frame(void *ctx, uint64_t to, bool grant, const struct msg_budget *msg)
{
    struct engine *e = ctx;
    struct core_msg m = {.kind = grant ? MSG_BUDGET_GRANT : MSG_BUDGET_ASK};
    m.u.budget = *msg;
    (void)engine_tell(e, to, &m);
}

void engine_budget_frame(struct engine *e, uint64_t node, const struct core_msg *msg)
{
    int64_t now = mono_now().ns;
    if (msg->env.to != e->node || msg->env.from != node || e->is_stopping)
        return;
    if (msg->kind == MSG_BUDGET_ASK)
        budgets_asked(e->budgets, node, msg->env.from_epoch, &msg->u.budget, now);
    else
        budgets_granted(e->budgets, node, &msg->u.budget, now);
}

/* --- from the schedule --- */

struct need_note {
    struct mail mail;
    struct quota_need need;
};

static void need_arrived(struct mail *mail, void *owner)
{
    struct need_note *n = CONTAINER_OF(mail, struct need_note, mail);
    struct engine *e = owner;
    struct budget_need need = {.key = n->need.key, .serial = n->need.serial};
    engine_busy(e);
    memcpy(need.have, n->need.have, sizeof(need.have));
    memcpy(need.want, n->need.want, sizeof(need.want));
    memcpy(need.may, n->need.may, sizeof(need.may));
    budgets_need(e->budgets, &need, mono_now().ns);
    free(n);
}

void engine_need_posted(void *ctx, const struct quota_need *need)
{
    struct engine *e = ctx;
    struct need_note *n = mem_alloc(sizeof(*n));
    n->need = *need;
    mailbox_post(e->box, &n->mail, need_arrived);
}

/* --- members, settings, time --- */

/* A session that is not closed for ever may still deliver, whether we hear of it or not;
 * one that is seen as dead is not asked for anything. */
static void take_members(struct engine *e, int64_t now)
{
    struct budget_member all[CORE_MEMBERS_MAX];
    unsigned count = 0;
    for (unsigned i = 0; i < e->status.member_count; i++) {
        const struct engine_member *m = &e->status.members[i];
        if (!(m->roles & ROLE_EGRESS))
            continue;
        bool has_session = m->session != 2 && m->epoch != 0;
        all[count++] = (struct budget_member){.node = m->node,
            .is_reachable = m->is_self || (has_session && m->view != 2),
            .may_send = m->is_self || has_session};
    }
    budgets_members(e->budgets, all, count, now);
}

static void take_limits(struct engine *e)
{
    const struct settings *s = e->settings;
    struct budget_limits limits = {.period_ns = 0};
    limits.most[BUDGET_CONNECTIONS] = s->limits.destination_connections;
    if (s->limits.destination_rate.count)
        quota_period(s->limits.destination_rate.count,
            s->limits.destination_rate.per_ms * NS_PER_MS, &limits.most[BUDGET_MESSAGES],
            &limits.period_ns);
    budgets_limits(e->budgets, &limits, mono_now().ns);
}

void engine_budget_tick(struct engine *e)
{
    int64_t now = mono_now().ns;
    if (e->is_stopping || e->status.member_count == 0)
        return;
    take_members(e, now);
    budgets_tick(e->budgets, now);
    struct budget_counts c = budgets_counts(e->budgets);
    metric_set(METRIC_destination_shares, c.needs);
    metric_set(METRIC_destination_shares_unanswered, c.without);
    metric_set(METRIC_destination_shares_coordinated, c.coordinated);
}

void engine_budget_reload(struct engine *e)
{
    take_limits(e);
}

void engine_budget_init(struct engine *e)
{
    static const struct budget_events events = {send_frame, tell_share, tell_floor};
    e->budgets = budgets_new(e->node, &events, e);
    take_limits(e);
}

void engine_budget_fini(struct engine *e)
{
    budgets_free(e->budgets);
}
