/* SPDX-License-Identifier: Apache-2.0 */
/* What operators ask for: names become nodes, the core decides, its answer goes back in
 * words. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"
#include "node/cluster/members_internal.h"

#define FOR_MS_DEFAULT INT64_C(3600000)

struct admin_job {
    struct admin_job *next;
    struct engine_admin *asked;
    uint64_t token;
};

static void asked_back(struct mail *mail, void *owner)
{
    struct engine_admin *a = CONTAINER_OF(mail, struct engine_admin, mail);
    a->done(a, owner);
}

static void answer(struct engine_admin *a, bool ok, const char *why)
{
    a->ok = ok;
    if (why)
        snprintf(a->why, sizeof(a->why), "%s", why);
    mailbox_post(a->reply_to, &a->mail, asked_back);
}

static const char *done_text(enum engine_admin_op op)
{
    switch (op) {
    case ENGINE_DRAIN:
        return "drains: it gives its mail to the others and takes no new";
    case ENGINE_UNDRAIN:
        return "takes mail again";
    case ENGINE_REMOVE:
        return "is removed; its key is refused from now on";
    case ENGINE_FORCE_FENCE:
        return "is fenced: the others take over what it had";
    case ENGINE_FORCE_CONFIG:
        return "a new generation without these nodes is in force";
    case ENGINE_TOKEN:
        return "";
    }
    return "";
}

void engine_admin_done(struct engine *e, const struct core_command *c)
{
    struct admin_job **at = &e->admins;
    if (engine_join_done(e, c))
        return;
    while (*at && (*at)->token != c->u.admin.token)
        at = &(*at)->next;
    struct admin_job *j = *at;
    if (!j)
        return;
    *at = j->next;
    bool ok = c->u.admin.result == ADMIN_OK;
    const char *why = c->u.admin.why;
    if (!why)
        why = ok                                   ? done_text(j->asked->op)
              : c->u.admin.result == ADMIN_REFUSED ? "refused"
                                                   : "not decided in time; it may still "
                                                     "be: look at `batonctl status`";
    answer(j->asked, ok, why);
    free(j);
}

static uint64_t node_of(const struct engine *e, const char *name, size_t len)
{
    for (unsigned i = 0; i < e->cfg.count; i++) {
        const char *have = e->cfg.member[i].ident.name;
        if (len > 0 && strnlen(have, sizeof(e->cfg.member[i].ident.name)) == len &&
            memcmp(have, name, len) == 0)
            return e->cfg.member[i].node;
    }
    return 0;
}

static void give(struct engine *e, struct engine_admin *a, struct core_event *event)
{
    struct admin_job *j = mem_zalloc(sizeof(*j));
    j->asked = a;
    j->token = ++e->admin_token;
    j->next = e->admins;
    e->admins = j;
    event->kind = EV_ADMIN;
    event->u.admin.token = j->token;
    engine_step(e, event);
}

static void unknown(const struct engine *e, struct engine_admin *a)
{
    snprintf(a->why, sizeof(a->why),
        "%.64s is no member of the cluster %.64s; `batonctl node ls` shows them", a->node,
        e->identity.name);
    answer(a, false, NULL);
}

/* Several names, with commas between. */
static void force_config(struct engine *e, struct engine_admin *a)
{
    uint64_t nodes[CORE_MEMBERS_MAX];
    struct core_event event = {.kind = EV_ADMIN};
    unsigned count = 0;
    for (const char *at = a->node; *at && count < CORE_MEMBERS_MAX;) {
        size_t len = strcspn(at, ",");
        nodes[count] = node_of(e, at, len);
        if (!nodes[count++]) {
            unknown(e, a);
            return;
        }
        at += len + (at[len] == ',');
    }
    event.u.admin.op = ADMIN_FORCE_CONFIG;
    event.u.admin.nodes = nodes;
    event.u.admin.count = count;
    give(e, a, &event);
}

static void about_member(struct engine *e, struct engine_admin *a)
{
    struct core_event event = {.kind = EV_ADMIN};
    uint64_t node = node_of(e, a->node, strlen(a->node));
    if (!node) {
        unknown(e, a);
        return;
    }
    event.u.admin.node = node;
    if (a->op == ENGINE_DRAIN) {
        event.u.admin.op = ADMIN_DRAIN;
    } else if (a->op == ENGINE_UNDRAIN) {
        event.u.admin.op = ADMIN_UNDRAIN;
    } else if (a->op == ENGINE_FORCE_FENCE) {
        event.u.admin.op = ADMIN_FORCE_FENCE;
    } else {
        event.u.admin.op = ADMIN_CHANGE;
        event.u.admin.change = (struct cfg_change){.op = CFG_REMOVE, .node = node};
    }
    give(e, a, &event);
}

static void make_token(struct engine *e, struct engine_admin *a)
{
    int64_t ms = a->for_ms > 0 ? a->for_ms : FOR_MS_DEFAULT;
    bool ok = members_find(e, e->node) != NULL;
    if (!ok)
        snprintf(a->why, sizeof(a->why), "this node is not in the cluster itself yet");
    else
        ok = engine_invite_make(e, ms, a->token, a->why, sizeof(a->why));
    if (ok)
        log_say(LOG_EV_OPERATOR, "a token was made: one node may join with it");
    answer(a, ok, NULL);
}

static void admin_asked(struct mail *mail, void *owner)
{
    struct engine_admin *a = CONTAINER_OF(mail, struct engine_admin, mail);
    struct engine *e = owner;
    engine_busy(e);
    if (e->is_stopping)
        answer(a, false, "this node is stopping");
    else if (a->op == ENGINE_TOKEN)
        make_token(e, a);
    else if (a->op == ENGINE_FORCE_CONFIG)
        force_config(e, a);
    else
        about_member(e, a);
}

void engine_admin(struct engine *e, struct engine_admin *a)
{
    mailbox_post(e->box, &a->mail, admin_asked);
}

void engine_admin_fini(struct engine *e)
{
    while (e->admins) {
        struct admin_job *j = e->admins;
        e->admins = j->next;
        answer(j->asked, false, "this node is stopping");
        free(j);
    }
}
