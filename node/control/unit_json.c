/* SPDX-License-Identifier: Apache-2.0 */
#include "node/control/unit_json.h"

#include "node/control/handlers_internal.h"

const char *rcpt_state_name(enum rcpt_state state)
{
    switch (state) {
    case RCPT_QUEUED:
        return "queued";
    case RCPT_DEFERRED:
        return "deferred";
    case RCPT_IN_DOUBT:
        return "in_doubt";
    case RCPT_DELIVERED:
        return "delivered";
    case RCPT_BOUNCED:
        return "bounced";
    case RCPT_EXPIRED:
        return "expired";
    case RCPT_DROPPED:
        return "dropped";
    case RCPT_SUPPRESSED:
        return "suppressed";
    }
    return "unknown";
}

static json_t *rcpt_json(const struct rcpt_record *r)
{
    json_t *o = json_object();
    json_set_text(o, "to", r->rcpt.address);
    json_object_set_new(o, "state", json_string(rcpt_state_name(r->state)));
    json_object_set_new(o, "attempts", json_integer(r->attempts));
    json_object_set_new(o, "next_due", json_time(r->next_due));
    json_set_text(o, "last_reply", r->last_reply);
    return o;
}

json_t *unit_json(const struct unit_record *u, const char *node, bool all)
{
    const struct message *m = u->message;
    char id[MSG_ID_TEXT + 1];
    json_t *o = json_object(), *rcpts = json_array();
    msg_id_format(u->id.msg, id);
    json_object_set_new(o, "id", json_string(id));
    json_set_text(o, "from", m->reverse_path);
    json_object_set_new(o, "size", json_integer((json_int_t)m->size));
    json_object_set_new(o, "received", json_time(m->created));
    json_set_text(o, "node", slice_str(node));
    json_object_set_new(o, "copies", json_integer(1));
    for (unsigned i = 0; i < u->rcpt_count; i++)
        if (all || !rcpt_state_is_final(u->rcpts[i].state))
            json_array_append_new(rcpts, rcpt_json(&u->rcpts[i]));
    json_object_set_new(o, "recipients", rcpts);
    json_object_set_new(o, "unit", json_integer(u->id.unit));
    json_set_text(o, "domain", m->unit_count ? m->units[0].domain : SLICE(""));
    json_object_set_new(o, "next_due", json_time(u->next_due));
    json_object_set_new(o, "held", json_boolean(u->held));
    if (u->held)
        json_set_text(o, "hold_reason", u->hold_reason);
    return o;
}

static json_t *notify_json(unsigned notify)
{
    static const struct {
        unsigned bit;
        const char *name;
    } rows[] = {{NOTIFY_NEVER, "never"}, {NOTIFY_SUCCESS, "success"},
        {NOTIFY_FAILURE, "failure"}, {NOTIFY_DELAY, "delay"}};
    json_t *list = json_array();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (notify & rows[i].bit)
            json_array_append_new(list, json_string(rows[i].name));
    return list;
}

static void add_rcpt_details(json_t *o, const struct rcpt_record *r)
{
    json_object_set_new(o, "first_attempt", json_time(r->first_attempt));
    json_object_set_new(o, "last_attempt", json_time(r->last_attempt));
    json_set_text(o, "last_status", r->last_status);
    json_set_text(o, "last_mx", r->last_mx);
    json_set_text(o, "orcpt", r->rcpt.orcpt);
    json_object_set_new(o, "notify", notify_json(r->rcpt.notify));
    json_object_set_new(o, "delay_dsn_sent", json_boolean(r->delay_dsn_sent));
}

json_t *unit_json_full(const struct unit_record *u, const char *node)
{
    static const char *const origins[] = {"mx", "submission", "relay_client", "local"};
    static const char *const rets[] = {"", "full", "hdrs"};
    const struct message *m = u->message;
    json_t *o = unit_json(u, node, true);
    json_t *rcpts = json_object_get(o, "recipients");
    for (unsigned i = 0; i < u->rcpt_count; i++)
        add_rcpt_details(json_array_get(rcpts, i), &u->rcpts[i]);
    json_object_set_new(
        o, "expires", json_time(m->unit_count ? m->units[0].expires : (struct wall){0}));
    json_object_set_new(o, "origin", json_string(origins[(unsigned)m->origin % 4]));
    json_set_text(o, "listener", m->listener);
    json_set_text(o, "user", m->user);
    json_object_set_new(o, "client", json_ip(m->client));
    json_set_text(o, "helo", m->helo);
    json_set_text(o, "envid", m->envid);
    json_object_set_new(o, "ret", json_string(rets[(unsigned)m->ret % 3]));
    json_object_set_new(
        o, "body", json_string(m->body_type == BODY_8BITMIME ? "8bitmime" : "7bit"));
    json_object_set_new(o, "smtputf8", json_boolean(m->smtputf8));
    if (m->why.len)
        json_set_text(o, "why", m->why);
    return o;
}
