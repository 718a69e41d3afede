/* SPDX-License-Identifier: Apache-2.0 */
/* The cluster's engine inside the daemon: opened between disk and scan, started behind
 * the scan, stopped when the last attempt has ended. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"
#include "node/batond.h"
#include "node/cluster/birth.h"
#include "node/cluster/rows.h"

/* How long the others wait for this node to come back after a stop: a restart or an
 * upgrade takes less, and moves nothing. */
#define HOLD_S 60

static void unit_start(
    void *ctx, struct unit_id id, uint64_t rcpts, uint64_t doubt, struct wall due)
{
    struct node *n = ctx;
    schedule_unit_start(n->schedule, id, rcpts, doubt, due);
}

static void unit_cancel(void *ctx, struct unit_id id)
{
    struct node *n = ctx;
    schedule_unit_cancel(n->schedule, id);
}

static void lease(void *ctx, bool may_deliver)
{
    struct node *n = ctx;
    schedule_pause(n->schedule, !may_deliver);
}

static void load(void *ctx, uint32_t *ready_out, uint32_t *spare_out)
{
    struct node *n = ctx;
    struct schedule_stats st = schedule_stats(n->schedule);
    uint64_t ready = st.due > st.active ? st.due - st.active : 0;
    *ready_out = ready < UINT32_MAX ? (uint32_t)ready : UINT32_MAX;
    *spare_out = st.spare;
}

static void taken(void *ctx, const struct repeat_key *key, struct msg_id id)
{
    struct node *n = ctx;
    struct intake *intake = atomic_load(&n->intake_known);
    if (intake)
        intake_taken(intake, key, id);
}

static enum rights_repeat_found repeat_asked(
    void *ctx, const struct repeat_key *key, struct msg_id id, struct msg_id *as_out)
{
    struct node *n = ctx;
    struct intake *intake = atomic_load(&n->intake_known);
    enum repeat found =
        intake ? intake_repeat_asked(intake, key, id, as_out) : REPEAT_NEW;
    return found == REPEAT_NEW    ? RIGHTS_REPEAT_NEW
           : found == REPEAT_BUSY ? RIGHTS_REPEAT_BUSY
                                  : RIGHTS_REPEAT_KNOWN;
}

static void repeat_told(
    void *ctx, const struct repeat_key *key, struct msg_id id, bool accepted)
{
    struct node *n = ctx;
    struct intake *intake = atomic_load(&n->intake_known);
    if (intake)
        intake_repeat_told(intake, key, id, accepted);
}

static void share(
    void *ctx, uint64_t key, uint32_t serial, const uint32_t may_use[QUOTA_KINDS])
{
    struct node *n = ctx;
    schedule_quota_share(n->schedule, key, serial, may_use);
}

static void quota_floor_told(void *ctx, const uint32_t may_use[QUOTA_KINDS])
{
    struct node *n = ctx;
    schedule_quota_floor(n->schedule, may_use);
}

static const struct engine_events events = {unit_start, unit_cancel, lease, load, taken,
    repeat_asked, repeat_told, share, quota_floor_told};

/* Without the section this would deliver what other nodes own. */
static bool belongs_to_none(struct node *n, char *why, size_t why_size)
{
    char value[64];
    size_t len = 0;
    enum err err =
        store_read_row(n->store, STORE_ROW_NODE, SLICE("i"), value, sizeof(value), &len);
    if (err == ERR_STORE_NOT_FOUND)
        return true;
    snprintf(why, why_size,
        "%s: %s belongs to a cluster, and most of what is in it is other nodes' mail; "
        "put the section cluster back, or give this node another data_dir",
        n->config_file, n->settings->data_dir);
    return false;
}

bool cluster_open(struct node *n, char *why, size_t why_size)
{
    if (!n->settings->cluster.is_set)
        return belongs_to_none(n, why, why_size);
    struct engine_deps deps = {.store = n->store,
        .rights = n->rights,
        .helpers = n->helpers,
        .resolver = n->resolver,
        .events = &events,
        .ctx = n};
    n->engine = engine_new(&deps, n->settings, why, why_size);
    if (!n->engine)
        return false;
    rights_bind(n->rights, n->engine);
    return true;
}

bool cluster_start(struct node *n, char *why, size_t why_size)
{
    return !n->engine || engine_start(n->engine, why, why_size);
}

void cluster_stop(struct node *n)
{
    if (n->engine)
        engine_stop(n->engine, HOLD_S);
}

/* --- for the control socket --- */

static void peers_status(void *ctx, struct engine_status *out)
{
    engine_status(ctx, out);
}

static void peers_ask(void *ctx, struct engine_query *q)
{
    engine_ask(ctx, q);
}

static void peers_answer(void *ctx, uint64_t token, json_t *answer)
{
    engine_answer(ctx, token, answer);
}

static void peers_admin(void *ctx, struct engine_admin *a)
{
    engine_admin(ctx, a);
}

void cluster_peers(struct node *n, struct control_peers *out)
{
    *out = (struct control_peers){
        n->engine, peers_status, peers_ask, peers_answer, peers_admin};
}

static void asked(void *ctx, uint64_t token, json_t *question)
{
    control_question(ctx, token, question);
}

void cluster_questions(struct node *n, struct control_handlers *handlers)
{
    if (n->engine)
        engine_on_question(n->engine, asked, handlers);
}

void cluster_unit(struct node *n, struct unit_id id, struct control_unit *out)
{
    unsigned char key[UNIT_ID_BYTES];
    char value[STORE_ROW_UNIT_MAX];
    struct store_row row = {.table = STORE_ROW_UNIT, .key_len = UNIT_ID_BYTES};
    struct core_event event;
    struct unit_row unit;
    struct cluster_identity none;
    size_t len = 0;
    struct engine_unit_stand stand;
    if (engine_unit_stands(n->engine, id, &stand)) {
        out->owned = stand.owned;
        out->copies = stand.copies;
        out->waits = stand.waits;
        out->delivered = stand.delivered;
        out->failed = stand.failed;
        memcpy(out->owner, stand.owner, sizeof(out->owner));
        return;
    }
    struct core_cfg *cfg = mem_zalloc(sizeof(*cfg));
    unit_id_key(id, key);
    memcpy(row.key, key, sizeof(key));
    enum err err = store_read_row(n->store, STORE_ROW_UNIT, slice_make(key, sizeof(key)),
        value, sizeof(value), &len);
    row.value = slice_make(value, len);
    if (err == ERR_OK && rows_get(&row, &event, cfg, &unit, &none) == ROWS_EVENT) {
        out->owned = unit.owner == store_identity(n->store).node_id;
        out->delivered = unit.delivered;
        out->failed = unit.failed;
        out->copies = 0;
        for (unsigned i = 0; i < unit.list_count; i++)
            out->copies += unit.list[i].status == LIST_HOLD;
    }
    free(cfg);
}

/* --- the settings --- */

static bool token_looks_good(const struct settings *s, char *why, size_t why_size)
{
    struct token token;
    bool good =
        token_read(s->cluster.join, s->cluster.name, wall_now(), &token, why, why_size);
    token_wipe(&token);
    return good;
}

void cluster_check(const struct settings *s, struct settings_problems *problems)
{
    struct core_params params = {
        .lease_ns = (uint64_t)s->cluster.lease_ms * CORE_MS, .rho_ppm = CLUSTER_RHO_PPM};
    if (s->cluster.is_set && !core_params_derive(&params))
        settings_problem(problems, s->file, settings_line(s, "cluster.lease"),
            "cluster.lease",
            "is too short: two lost renewals must not end it before a session does");
}

void cluster_warnings(const struct settings *s, struct buf *out)
{
    struct birth who;
    char why[4608];
    settings_warnings(s, out);
    if (!s->cluster.is_set)
        return;
    enum birth_way way = birth_look(s, &who, why, sizeof(why));
    if (way == BIRTH_NONE || way == BIRTH_BAD)
        buf_printf(out, "%s:%d: %s\n", s->file, settings_line(s, "cluster"), why);
    else if (way == BIRTH_TOKEN && !token_looks_good(s, why, sizeof(why)))
        buf_printf(out, "%s:%d: %s\n", s->file, settings_line(s, "cluster.join"), why);
}
