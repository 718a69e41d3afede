/* SPDX-License-Identifier: Apache-2.0 */
#include "node/control/filter.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/settings.h"

static bool take(struct control_request *req, json_t *args, const char *key, char **out)
{
    const char *text;
    if (!control_arg_text(req, args, key, &text))
        return false;
    *out = text && text[0] ? mem_strdup(slice_str(text)) : NULL;
    return true;
}

bool filter_init(
    struct filter *f, struct control_request *req, json_t *args, bool own_reason)
{
    bool by_reply = own_reason || json_object_get(args, "reply");
    char *older = NULL;
    *f = (struct filter){0};
    if (json_object_get(args, "egress")) {
        control_fail(req, 1, NULL, "--egress is not built in this version");
        return false;
    }
    if (!take(req, args, "from", &f->from) || !take(req, args, "to", &f->to) ||
        !take(req, args, "domain", &f->domain) || !take(req, args, "node", &f->node) ||
        !take(req, args, by_reply ? "reply" : "reason", &f->reason) ||
        !take(req, args, "older", &older))
        return false;
    bool ok = !older || duration_parse(slice_str(older), &f->older_ms);
    if (!ok)
        control_fail(
            req, 1, "write it like 30m, 4h or 2d", "--older %.40s is no duration", older);
    free(older);
    return ok;
}

void filter_fini(struct filter *f)
{
    free(f->from);
    free(f->to);
    free(f->domain);
    free(f->node);
    free(f->reason);
}

static bool contains_nocase(struct slice hay, struct slice needle)
{
    for (size_t i = 0; i + needle.len <= hay.len; i++)
        if (slice_eq_nocase(slice_head(slice_from(hay, i), needle.len), needle))
            return true;
    return false;
}

static bool address_matches(struct slice want, struct slice address)
{
    if (slice_eq(want, SLICE("<>")))
        return address.len == 0;
    if (want.ptr[0] == '@')
        return slice_ends_nocase(address, want);
    if (slice_find(want, '@') < want.len)
        return slice_eq_nocase(address, want);
    return contains_nocase(address, want);
}

static bool domain_matches(struct slice want, struct slice domain)
{
    if (want.ptr[0] == '.')
        return slice_eq_nocase(slice_from(want, 1), domain) ||
               slice_ends_nocase(domain, want);
    return slice_eq_nocase(want, domain);
}

static bool to_matches(struct slice want, const struct unit_record *u)
{
    for (unsigned i = 0; i < u->rcpt_count; i++)
        if (!rcpt_state_is_final(u->rcpts[i].state) &&
            address_matches(want, u->rcpts[i].rcpt.address))
            return true;
    return false;
}

static bool reply_matches(struct slice want, const struct rcpt_record *r)
{
    return contains_nocase(r->last_reply, want) || slice_starts(r->last_status, want);
}

static bool hold_matches(struct slice want, const struct unit_record *u)
{
    return u->held && contains_nocase(u->hold_reason, want);
}

static bool reason_matches(struct slice want, const struct unit_record *u)
{
    for (unsigned i = 0; i < u->rcpt_count; i++)
        if (reply_matches(want, &u->rcpts[i]))
            return true;
    return hold_matches(want, u);
}

bool filter_matches_rcpt(
    const struct filter *f, const struct unit_record *u, const struct rcpt_record *r)
{
    if (rcpt_state_is_final(r->state))
        return false;
    if (f->to && !address_matches(slice_str(f->to), r->rcpt.address))
        return false;
    return !f->reason || reply_matches(slice_str(f->reason), r) ||
           hold_matches(slice_str(f->reason), u);
}

bool filter_is_empty(const struct filter *f)
{
    return !f->from && !f->to && !f->domain && !f->node && !f->reason && !f->older_ms;
}

bool filter_matches(const struct filter *f, const struct unit_record *u, const char *node,
    struct wall now)
{
    const struct message *m = u->message;
    if (f->older_ms && now.ms - m->created.ms < f->older_ms)
        return false;
    if (f->node && strcmp(f->node, node) != 0)
        return false;
    if (f->from && !address_matches(slice_str(f->from), m->reverse_path))
        return false;
    if (f->domain &&
        (m->unit_count == 0 || !domain_matches(slice_str(f->domain), m->units[0].domain)))
        return false;
    if (f->to && !to_matches(slice_str(f->to), u))
        return false;
    return !f->reason || reason_matches(slice_str(f->reason), u);
}
