/* SPDX-License-Identifier: Apache-2.0 */
/* The snapshot for status, four times a second: filled aside, then copied under the lock,
 * so that a reader never holds up the engine for long. And the metrics of it. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/metrics.h"
#include "node/cluster/members_internal.h"

#define SURVEY_UNITS 20000

static enum member_state state_of(const struct core_member *m, uint32_t epoch)
{
    if (m->roles & ROLE_DRAINING)
        return MEMBER_DRAINING;
    return epoch == 0 ? MEMBER_JOINING : MEMBER_UP;
}

static const struct core_member_view *view_of(const struct core_counts *c, uint64_t node)
{
    for (unsigned i = 0; i < c->member_count; i++)
        if (c->member[i].node == node)
            return &c->member[i];
    return NULL;
}

static void fill_self(
    struct engine *e, const struct core_counts *c, struct engine_member *to)
{
    to->is_self = true;
    to->view = 0;
    to->epoch = c->epoch;
    to->session = c->lease_end_ns ? 0 : 1;
    to->heard_ms = 0;
    to->settings_hash = settings_cluster_hash(e->settings);
    snprintf(to->version, sizeof(to->version), "%s", BATON_VERSION);
}

static void fill_member(struct engine *e, const struct core_counts *c,
    const struct core_member *m, struct engine_member *to)
{
    const struct core_member_view *v = view_of(c, m->node);
    struct engine_peer *p = engine_peer(e, m->node);
    int64_t now = mono_now().ns;
    *to = (struct engine_member){.node = m->node,
        .address = ident_address(&m->ident),
        .roles = m->roles,
        .zone = m->zone,
        .weight = m->weight,
        .view = v ? v->view : 2,
        .session = v ? v->session : 1,
        .epoch = v ? v->epoch : 0,
        .heard_ms = -1};
    snprintf(to->name, sizeof(to->name), "%.30s", m->ident.name);
    if (v && v->heard_ns)
        to->heard_ms = (now - (int64_t)v->heard_ns) / NS_PER_MS;
    if (p) {
        to->settings_hash = p->settings_hash;
        memcpy(to->version, p->version, sizeof(to->version));
    }
    if (m->node == e->node)
        fill_self(e, c, to);
    to->state = state_of(m, to->epoch);
}

static int64_t lease_left(const struct core_counts *c)
{
    int64_t now = mono_now().ns;
    if (c->lease_end_ns == CORE_FOREVER)
        return INT64_MAX;
    if (c->frozen || (int64_t)c->lease_end_ns <= now)
        return 0;
    return ((int64_t)c->lease_end_ns - now) / NS_PER_MS;
}

static void set_metrics(const struct engine_status *s, struct transport_stats *told)
{
    const struct transport_stats *t = &s->transport;
    unsigned dead = 0;
    for (unsigned i = 0; i < s->member_count; i++)
        dead += s->members[i].view == 2;
    metric_set(METRIC_cluster_members, s->member_count);
    metric_set(METRIC_cluster_members_dead, dead);
    metric_set(
        METRIC_cluster_lease_seconds, s->lease_ms == INT64_MAX ? 0 : s->lease_ms / 1000);
    metric_set(METRIC_cluster_copies_short, (int64_t)s->copies_short);
    metric_set(METRIC_cluster_copies_held, (int64_t)s->copies_held);
    metric_set(METRIC_cluster_in_doubt, (int64_t)s->in_doubt);
    metric_set(METRIC_cluster_tombstones, (int64_t)s->tombstones);
    metric_add(
        METRIC_cluster_frames_sent_total, (int64_t)(t->frames_out - told->frames_out));
    metric_add(
        METRIC_cluster_frames_received_total, (int64_t)(t->frames_in - told->frames_in));
    metric_add(
        METRIC_cluster_bytes_sent_total, (int64_t)(t->bytes_out - told->bytes_out));
    metric_add(
        METRIC_cluster_bytes_received_total, (int64_t)(t->bytes_in - told->bytes_in));
    *told = *t;
}

static enum err may_accept(const struct engine *e, const struct core_counts *c)
{
    bool open = strcmp(c->state, "ready") == 0 || strcmp(c->state, "syncing") == 0;
    if (e->is_stopping)
        return ERR_SHUTTING_DOWN;
    return open && !c->draining ? ERR_OK : ERR_COPIES_UNAVAILABLE;
}

static void fill(struct engine *e, const struct core_counts *c, struct engine_status *s)
{
    struct store_stats store;
    store_stats(e->deps.store, &store);
    snprintf(s->name, sizeof(s->name), "%s", e->identity.name);
    s->cfg_ver = c->cfg_ver;
    s->mode = e->cfg.mode;
    s->copies = e->cfg.copies;
    s->min_copies = e->cfg.min_copies;
    s->epoch = c->epoch;
    s->state = c->state;
    s->lease_ms = lease_left(c);
    s->units = c->units;
    s->owned = c->owned;
    s->copies_held = c->held;
    s->copies_short = c->copies_short;
    s->in_doubt = c->in_doubt;
    s->tombstones = c->tombstones;
    s->quarantined = store.quarantined;
    s->member_count = e->cfg.count;
    for (unsigned i = 0; i < e->cfg.count; i++)
        fill_member(e, c, &e->cfg.member[i], &s->members[i]);
    transport_stats(e->transport, &s->transport);
    engine_seeds_status(e, s);
}

/* A slice at a time: a million units must not hold up the thread. */
static void survey(struct engine *e)
{
    core_survey(e->core, &e->survey, SURVEY_UNITS);
    if (e->survey.at == 0)
        e->surveyed = e->survey;
}

static void add_survey(const struct core_survey *from, struct engine_status *s)
{
    s->owned_rcpts = from->owned_rcpts;
    for (unsigned i = 0; i < s->member_count; i++)
        for (unsigned j = 0; j < from->owner_count; j++)
            if (from->owner[j].owner == s->members[i].node) {
                s->members[i].waiting = from->owner[j].units;
                s->members[i].waiting_rcpts = from->owner[j].rcpts;
            }
}

void engine_status_update(struct engine *e)
{
    struct core_counts *counts = mem_zalloc(sizeof(*counts));
    struct engine_status *s = mem_zalloc(sizeof(*s));
    core_counts(e->core, counts);
    fill(e, counts, s);
    survey(e);
    add_survey(&e->surveyed, s);
    set_metrics(s, &e->told_stats);
    rights_publish_accept(e->deps.rights, may_accept(e, counts));
    pthread_mutex_lock(&e->status_lock);
    e->status = *s;
    pthread_mutex_unlock(&e->status_lock);
    free(s);
    free(counts);
}

void engine_status(struct engine *e, struct engine_status *out)
{
    pthread_mutex_lock(&e->status_lock);
    *out = e->status;
    pthread_mutex_unlock(&e->status_lock);
}

static void name_of(struct engine *e, uint64_t node, char *out, size_t size)
{
    pthread_mutex_lock(&e->status_lock);
    for (unsigned i = 0; i < e->status.member_count; i++)
        if (e->status.members[i].node == node)
            snprintf(out, size, "%s", e->status.members[i].name);
    pthread_mutex_unlock(&e->status_lock);
}

bool engine_unit_stands(
    struct engine *e, struct unit_id id, struct engine_unit_stand *out)
{
    struct core_unit_id core_id = rows_core_id(id);
    struct unit_row row;
    *out = (struct engine_unit_stand){0};
    pthread_mutex_lock(&e->core_lock);
    bool known = engine_unit(e, &core_id, &row);
    out->waits = known && core_unit_waits(e->core, &core_id);
    pthread_mutex_unlock(&e->core_lock);
    if (!known)
        return false;
    name_of(e, row.owner, out->owner, sizeof(out->owner));
    out->owned = row.owner == e->node;
    out->delivered = row.delivered;
    out->failed = row.failed;
    for (unsigned i = 0; i < row.list_count; i++)
        out->copies += row.list[i].status == LIST_HOLD;
    return true;
}

/* --- reload --- */

struct reload_mail {
    struct mail mail;
    struct settings *settings;
};

static void reloaded(struct mail *mail, void *owner)
{
    struct reload_mail *r = CONTAINER_OF(mail, struct reload_mail, mail);
    struct engine *e = owner;
    settings_unref(e->settings);
    e->settings = r->settings;
    engine_budget_reload(e);
    e->hello_at = (struct mono){0};
    e->ident_at = (struct mono){0};
    engine_seeds_reload(e);
    free(r);
}

void engine_reload(struct engine *e, const struct settings *settings)
{
    struct reload_mail *r = mem_zalloc(sizeof(*r));
    r->settings = settings_ref((struct settings *)(uintptr_t)settings);
    mailbox_post(e->box, &r->mail, reloaded);
}
