/* SPDX-License-Identifier: Apache-2.0 */
#include "node/control/members.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "node/control/control.h"

const char *member_state_name(enum member_state state)
{
    switch (state) {
    case MEMBER_JOINING:
        return "joining";
    case MEMBER_UP:
        return "up";
    case MEMBER_DRAINING:
        return "draining";
    case MEMBER_LEFT:
        return "left";
    }
    return "unknown";
}

const char *member_view_name(unsigned view)
{
    static const char *const names[] = {"alive", "suspect", "dead"};
    return view < 3 ? names[view] : "unknown";
}

const char *member_session_name(unsigned session)
{
    static const char *const names[] = {"open", "none", "fenced"};
    return session < 3 ? names[session] : "unknown";
}

const struct engine_member *member_find(const struct engine_status *st, const char *name)
{
    for (unsigned i = 0; i < st->member_count; i++)
        if (strcmp(st->members[i].name, name) == 0 && st->members[i].state != MEMBER_LEFT)
            return &st->members[i];
    return NULL;
}

const struct engine_member *member_self(const struct engine_status *st)
{
    for (unsigned i = 0; i < st->member_count; i++)
        if (st->members[i].is_self)
            return &st->members[i];
    return NULL;
}

static unsigned members_left(const struct engine_status *st)
{
    unsigned count = 0;
    for (unsigned i = 0; i < st->member_count; i++)
        count += st->members[i].state != MEMBER_LEFT;
    return count;
}

json_t *cluster_json(const struct engine_status *st)
{
    return json_pack("{s:s,s:i,s:i,s:i,s:s,s:I,s:s}", "name", st->name, "nodes",
        (int)members_left(st), "copies", st->copies, "min_copies", st->min_copies, "mode",
        st->mode == MODE_STATIC ? "static" : "quorum", "version", (json_int_t)st->cfg_ver,
        "state", st->state ? st->state : "");
}

json_t *member_json(const struct engine_member *m)
{
    char address[NETADDR_TEXT_MAX] = "", config[20];
    json_t *row = json_object();
    if (m->address.ip.family)
        netaddr_format(m->address, address);
    snprintf(config, sizeof(config), "%016" PRIx64, m->settings_hash);
    json_object_set_new(row, "id", control_text(slice_str(m->name)));
    json_object_set_new(row, "member", json_string(member_state_name(m->state)));
    json_object_set_new(
        row, "view", json_string(m->is_self ? "alive" : member_view_name(m->view)));
    json_object_set_new(row, "session", json_string(member_session_name(m->session)));
    json_object_set_new(row, "role",
        json_string(m->roles & (ROLE_STORE | ROLE_EGRESS) ? "node" : "witness"));
    json_object_set_new(row, "voter", json_boolean(m->roles & ROLE_VOTER));
    json_object_set_new(row, "address", json_string(address));
    json_object_set_new(row, "version", control_text(slice_str(m->version)));
    json_object_set_new(row, "config", json_string(config));
    json_object_set_new(row, "lease", json_string("unknown"));
    json_object_set_new(row, "view_age_s",
        m->heard_ms < 0 ? json_null() : json_integer(m->heard_ms / 1000));
    return row;
}
