/* SPDX-License-Identifier: Apache-2.0 */
#include "node/mail/dsn.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "node/mail/dsn_internal.h"
#include "node/mail/encode.h"
#include "proto/smtp_path.h"

const char *dsn_kind_name(enum dsn_kind kind)
{
    static const char *const names[DSN_KIND_COUNT] = {
        "failure", "delay", "relayed", "delivered", "expanded"};
    INVARIANT(kind < DSN_KIND_COUNT);
    return names[kind];
}

bool dsn_wanted(enum dsn_kind kind, uint8_t notify, enum origin origin)
{
    static const struct {
        uint8_t bit;
        bool by_default;   /* without NOTIFY */
        bool to_strangers; /* also for mail of ORIGIN_MX */
    } rules[DSN_KIND_COUNT] = {
        [DSN_FAILURE] = {NOTIFY_FAILURE, true, true},
        [DSN_DELAY] = {NOTIFY_DELAY, true, false},
        [DSN_RELAYED] = {NOTIFY_SUCCESS, false, true},
        [DSN_DELIVERED] = {NOTIFY_SUCCESS, false, true},
        [DSN_EXPANDED] = {NOTIFY_SUCCESS, false, true},
    };
    INVARIANT(kind < DSN_KIND_COUNT);
    if (origin == ORIGIN_MX && !rules[kind].to_strangers)
        return false;
    if (notify == 0)
        return rules[kind].by_default;
    return !(notify & NOTIFY_NEVER) && (notify & rules[kind].bit);
}

/* --- the id --- */

struct msg_id dsn_id(const struct dsn_request *r)
{
    struct msg_id_hash h;
    unsigned char key[UNIT_ID_BYTES], kind = (unsigned char)r->kind;
    unit_id_key(r->unit, key);
    msg_id_hash_init(&h);
    msg_id_hash_add(&h, key, sizeof(key));
    msg_id_hash_add(&h, &kind, 1);
    for (unsigned i = 0; i < r->rcpt_count; i++) {
        unsigned index = r->rcpts[i]->rcpt.index;
        unsigned char two[2] = {(unsigned char)(index >> 8), (unsigned char)index};
        msg_id_hash_add(&h, two, 2);
    }
    return msg_id_hash_end(&h, r->original->id);
}

/* --- the header of the original --- */

/* Up to the empty line, or DSN_HEADER_MAX cut at the end of a line. */
static struct slice header_of(struct slice start)
{
    size_t at = 0;
    while (at < start.len) {
        size_t lf = at + slice_find(slice_from(start, at), '\n');
        if (lf >= start.len)
            break;
        if (lf == at || (lf == at + 1 && start.ptr[at] == '\r'))
            return slice_head(start, at);
        at = lf + 1;
    }
    return slice_head(start, at ? at : start.len);
}

static void find_header(struct dsn_draft *d, struct buf *copy)
{
    const struct dsn_request *r = d->request;
    if (!r->body) {
        d->header = header_of(slice_head(r->header, DSN_HEADER_MAX));
        return;
    }
    for (const struct body_chunk *c = body_chunks(r->body); c; c = c->next) {
        struct slice part = slice_make(c->bytes, c->len);
        buf_append(copy, slice_head(part, DSN_HEADER_MAX - buf_len(copy)));
        if (buf_len(copy) == DSN_HEADER_MAX)
            break;
        d->header = header_of(buf_slice(copy));
        if (d->header.len < buf_len(copy))
            break;
    }
    d->header = header_of(buf_slice(copy));
}

/* RFC 3461 5.2.9 and 4.3: RET speaks of failures; all other DSNs return the header. */
static bool returns_full(const struct dsn_request *r)
{
    uint64_t max = r->full_max_bytes ? r->full_max_bytes : DSN_FULL_MAX;
    return r->kind == DSN_FAILURE && r->original->ret != DSN_RET_HDRS && r->body &&
           body_size(r->body) > 0 && body_size(r->body) <= max;
}

/* --- the message --- */

static void fill_unit(struct message *m, const struct dsn_draft *d, struct slice routing)
{
    struct recipient *rcpt = arena_alloc(m->arena, sizeof(*rcpt));
    rcpt->address = arena_dup(m->arena, d->to);
    /* RFC 3461 4.1, 6.1: nobody is told about the fate of a DSN. */
    rcpt->notify = NOTIFY_NEVER;
    m->unit_count = 1;
    m->units = arena_alloc(m->arena, sizeof(*m->units));
    m->units->domain = arena_dup(m->arena, routing);
    m->units->rcpt_count = 1;
    m->units->rcpts = rcpt;
    m->units->expires = d->request->dsn_expires;
}

static struct message *build(struct dsn_draft *d, struct slice routing)
{
    struct buf copy;
    buf_init(&copy, DSN_HEADER_MAX);
    find_header(d, &copy);
    d->full = returns_full(d->request);
    struct message *m = message_new();
    m->id = d->id;
    m->created = d->request->now;
    m->origin = ORIGIN_LOCAL;
    m->smtputf8 = d->utf8;
    m->body = dsn_write(d);
    m->body_type = d->is_8bit ? BODY_8BITMIME : BODY_7BIT;
    m->size = body_size(m->body);
    m->body_crc = body_crc(m->body);
    fill_unit(m, d, routing);
    char id[UNIT_ID_TEXT_MAX];
    unit_id_format(d->request->unit, id);
    m->why = arena_printf(m->arena, "%s of %s for %.*s%s",
        d->double_bounce ? "double bounce" : dsn_kind_name(d->request->kind), id,
        SLICE_ARG(slice_head(d->rcpts[0]->rcpt.address, 320)),
        d->rcpt_count > 1 ? " and others" : "");
    buf_fini(&copy);
    return m;
}

static struct message *draft_and_build(struct dsn_draft *d)
{
    struct smtp_path path;
    if (smtp_address_parse(d->to, &path) != PARSE_DONE || path.routing.len == 0)
        return NULL;
    d->utf8 = path.is_utf8;
    d->id = dsn_id(d->request);
    return build(d, path.routing);
}

struct message *dsn_make(const struct dsn_request *r)
{
    if (r->original->reverse_path.len == 0 || r->rcpt_count == 0)
        return NULL;
    struct dsn_draft d = {.request = r, .to = r->original->reverse_path};
    d.rcpts = mem_alloc(r->rcpt_count * sizeof(*d.rcpts));
    for (unsigned i = 0; i < r->rcpt_count; i++)
        if (dsn_wanted(r->kind, r->rcpts[i]->rcpt.notify, r->original->origin))
            d.rcpts[d.rcpt_count++] = r->rcpts[i];
    struct message *m = d.rcpt_count ? draft_and_build(&d) : NULL;
    free(d.rcpts);
    return m;
}

struct message *dsn_double_bounce(const struct dsn_request *r)
{
    if (r->original->reverse_path.len || r->postmaster.len == 0 || r->rcpt_count == 0)
        return NULL;
    struct dsn_draft d = {.request = r, .to = r->postmaster, .double_bounce = true};
    d.rcpts = mem_alloc(r->rcpt_count * sizeof(*d.rcpts));
    for (unsigned i = 0; i < r->rcpt_count; i++)
        if (!slice_eq_nocase(r->rcpts[i]->rcpt.address, r->postmaster))
            d.rcpts[d.rcpt_count++] = r->rcpts[i];
    /* The postmaster cannot be reached: another notice would only go in a circle. */
    bool circle = d.rcpt_count < r->rcpt_count;
    struct message *m = circle ? NULL : draft_and_build(&d);
    free(d.rcpts);
    return m;
}
