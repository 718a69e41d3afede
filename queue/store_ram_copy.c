/* SPDX-License-Identifier: Apache-2.0 */
/* Deep copies of records: what the RAM store keeps and gives out. */
#include "queue/store_internal.h"

struct rcpt_record rcpt_record_copy(struct arena *a, const struct rcpt_record *r)
{
    struct rcpt_record c = *r;
    c.rcpt.address = arena_dup(a, r->rcpt.address);
    c.rcpt.orcpt = arena_dup(a, r->rcpt.orcpt);
    c.last_reply = arena_dup(a, slice_head(r->last_reply, 500));
    c.last_status = arena_dup(a, r->last_status);
    c.last_mx = arena_dup(a, r->last_mx);
    return c;
}

static void copy_envelope(struct message *to, const struct message *from)
{
    struct arena *a = to->arena;
    to->id = from->id;
    to->created = from->created;
    to->reverse_path = arena_dup(a, from->reverse_path);
    to->envid = arena_dup(a, from->envid);
    to->ret = from->ret;
    to->body_type = from->body_type;
    to->smtputf8 = from->smtputf8;
    to->origin = from->origin;
    to->user = arena_dup(a, from->user);
    to->listener = arena_dup(a, from->listener);
    to->client = from->client;
    to->helo = arena_dup(a, from->helo);
    to->size = from->size;
    to->body_crc = from->body_crc;
    to->why = arena_dup(a, from->why);
    to->repeat_key = from->repeat_key;
}

struct unit_record *unit_record_copy(
    const struct message *m, const struct message_unit *unit, const struct unit_record *u)
{
    struct message *to = message_new();
    struct unit_record *c = arena_alloc(to->arena, sizeof(*c));
    copy_envelope(to, m);
    to->unit_count = 1;
    to->units = arena_alloc(to->arena, sizeof(*to->units));
    to->units[0] = *unit;
    to->units[0].domain = arena_dup(to->arena, unit->domain);
    to->units[0].rcpts = arena_alloc(to->arena, u->rcpt_count * sizeof(struct recipient));
    to->units[0].rcpt_count = u->rcpt_count;
    *c = *u;
    c->arena = to->arena;
    c->message = to;
    c->hold_reason = arena_dup(to->arena, u->hold_reason);
    c->rcpts = arena_alloc(to->arena, u->rcpt_count * sizeof(*c->rcpts));
    for (uint16_t i = 0; i < u->rcpt_count; i++) {
        c->rcpts[i] = rcpt_record_copy(to->arena, &u->rcpts[i]);
        to->units[0].rcpts[i] = c->rcpts[i].rcpt;
    }
    return c;
}
