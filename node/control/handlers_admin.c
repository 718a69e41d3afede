/* SPDX-License-Identifier: Apache-2.0 */
/* What an operator does to the cluster: drain, undrain, remove, force-fence, force-config
 * and the token. Each is handed to the engine, which answers with what was done or why
 * not; that it was asked for is in the log (CONTROL_CHANGES). */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/settings.h"
#include "node/control/handlers_internal.h"
#include "node/control/members.h"
#include "node/control/peers.h"

#define TOKEN_FOR_MS 3600000
#define TOKEN_FOR_MIN_MS 60000
#define TOKEN_FOR_MAX_MS INT64_C(604800000)

struct admin {
    struct engine_admin call;
    struct control_request *req;
};

/* What comes next when it was refused; `node` is a member's name, or names. */
static const char *next_step(const struct engine_admin *call, char *text, size_t size)
{
    switch (call->op) {
    case ENGINE_REMOVE:
        snprintf(text, size,
            "batonctl drain %.30s --wait, stop batond there, and when its lease is over: "
            "batonctl remove %.30s; batonctl node ls shows its session",
            call->node, call->node);
        return text;
    case ENGINE_FORCE_FENCE:
        return "power it off and wait until its lease is over; batonctl node ls shows it";
    case ENGINE_FORCE_CONFIG:
    case ENGINE_DRAIN:
    case ENGINE_UNDRAIN:
    case ENGINE_TOKEN:
        break;
    }
    return "batonctl status says how the cluster is";
}

static void admin_done(struct engine_admin *call, void *owner)
{
    struct admin *a = CONTAINER_OF(call, struct admin, call);
    (void)owner;
    if (!call->ok) {
        char next[256];
        control_fail(a->req, 1, next_step(call, next, sizeof(next)), "%.60s%s%s",
            call->node, call->node[0] ? ": " : "", call->why);
    } else {
        json_t *o = json_object();
        char text[sizeof(call->node) + sizeof(call->why) + 2];
        bool about_one = call->op != ENGINE_TOKEN && call->op != ENGINE_FORCE_CONFIG;
        snprintf(text, sizeof(text), "%s%s%s", about_one ? call->node : "",
            about_one ? " " : "", call->why);
        json_set_text(o, "text", slice_str(text));
        if (call->op == ENGINE_TOKEN) {
            json_set_text(o, "token", slice_str(call->token));
            json_object_set_new(o, "for_s", json_integer(call->for_ms / 1000));
        }
        control_reply(a->req, o);
        control_finish(a->req, 0);
    }
    explicit_bzero(call->token, sizeof(call->token));
    free(a);
}

static void submit(struct control_handlers *h, struct control_request *req,
    enum engine_admin_op op, const char *node, int64_t for_ms)
{
    struct admin *a = mem_zalloc(sizeof(*a));
    a->req = req;
    a->call = (struct engine_admin){.op = op,
        .for_ms = for_ms,
        .reply_to = loop_mailbox(h->loop),
        .done = admin_done};
    snprintf(a->call.node, sizeof(a->call.node), "%s", node);
    h->sources.peers->admin(h->sources.peers->ctx, &a->call);
}

static bool in_cluster(struct control_handlers *h, struct control_request *req)
{
    if (h->sources.peers)
        return true;
    control_fail(req, 1,
        "write a section cluster into the settings: CLUSTER in baton.yaml(5)",
        "this node is in no cluster");
    return false;
}

/* Each name of "a,b" is a member's; `why` says which is not. */
static bool are_members(
    struct control_handlers *h, struct control_request *req, const char *names)
{
    struct engine_status *st = mem_alloc(sizeof(*st));
    struct slice rest = slice_str(names);
    bool ok = rest.len > 0 && rest.len < sizeof(((struct engine_admin *)0)->node);
    char name[64] = "";
    h->sources.peers->status(h->sources.peers->ctx, st);
    while (ok && rest.len) {
        struct slice one = slice_head(rest, slice_find(rest, ','));
        snprintf(name, sizeof(name), "%.*s", SLICE_ARG(slice_head(one, 63)));
        ok = member_find(st, name) != NULL;
        rest = slice_from(rest, one.len + 1);
    }
    free(st);
    if (!ok)
        control_fail(req, 1, "batonctl node ls shows the members",
            "no member has the name \"%s\"", name);
    return ok;
}

static const struct {
    const char *command;
    enum engine_admin_op op;
    bool swears; /* wants to hear that the node is powered off */
} operations[] = {{"drain", ENGINE_DRAIN, false}, {"undrain", ENGINE_UNDRAIN, false},
    {"remove", ENGINE_REMOVE, false}, {"force-fence", ENGINE_FORCE_FENCE, true}};
#define OPERATIONS (sizeof(operations) / sizeof(operations[0]))

static void handle_member(struct control_request *req, json_t *args, void *ctx)
{
    struct control_handlers *h = ctx;
    const char *node, *sworn;
    unsigned i = 0;
    if (!in_cluster(h, req) || !control_arg_text(req, args, "node", &node) ||
        !control_arg_text(req, args, "powered_off", &sworn) ||
        !are_members(h, req, node ? node : ""))
        return;
    while (strcmp(operations[i].command, req->command) != 0)
        i++;
    if (operations[i].swears && (!sworn || strcmp(sworn, node) != 0)) {
        control_fail(req, 1,
            "power it off, so that it cannot send, then add --i-have-powered-off NODE",
            "%s is only for a node that cannot run: mail would be sent twice if it did",
            req->command);
        return;
    }
    submit(h, req, operations[i].op, node, 0);
}

static void handle_force_config(struct control_request *req, json_t *args, void *ctx)
{
    struct control_handlers *h = ctx;
    const char *gone;
    if (!in_cluster(h, req) || !control_arg_text(req, args, "powered_off", &gone))
        return;
    if (!gone) {
        control_fail(req, 1,
            "power off the nodes that are lost, then name them: "
            "--i-have-powered-off=mx2,mx3",
            "force-config makes a cluster without the nodes that are lost, and wants "
            "their names");
        return;
    }
    if (are_members(h, req, gone))
        submit(h, req, ENGINE_FORCE_CONFIG, gone, 0);
}

static void handle_token(struct control_request *req, json_t *args, void *ctx)
{
    struct control_handlers *h = ctx;
    const char *text;
    int64_t for_ms = TOKEN_FOR_MS;
    if (!in_cluster(h, req) || !control_arg_text(req, args, "for", &text))
        return;
    if (text && (!duration_parse(slice_str(text), &for_ms) || for_ms < TOKEN_FOR_MIN_MS ||
                    for_ms > TOKEN_FOR_MAX_MS)) {
        control_fail(req, 1, "write it like 1h", "--for must be from 1m to 7d");
        return;
    }
    submit(h, req, ENGINE_TOKEN, "", for_ms);
}

void admin_register(struct control *c, struct control_handlers *h)
{
    for (size_t i = 0; i < OPERATIONS; i++)
        control_register(c, operations[i].command, CONTROL_CHANGES, handle_member, h);
    control_register(c, "force-config", CONTROL_CHANGES, handle_force_config, h);
    control_register(c, "cluster token", CONTROL_CHANGES, handle_token, h);
}
