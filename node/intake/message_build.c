/* SPDX-License-Identifier: Apache-2.0 */
#include "node/intake/message_build.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "node/mail/received.h"

struct listed_recipient *recipient_list_items(struct recipient_list *l)
{
    return l->many ? l->many : l->few;
}

/* How many units the recipients listed make. */
struct unit_tally {
    uint32_t unit_count, domain_count;
    struct {
        struct slice routing;
        uint64_t hash;
        uint32_t rcpts;
    } domains[MESSAGE_UNITS_MAX];
};

static unsigned find_domain(
    const struct unit_tally *t, struct slice routing, uint64_t hash)
{
    unsigned i = 0;
    while (i < t->domain_count &&
           (t->domains[i].hash != hash || !slice_eq(t->domains[i].routing, routing)))
        i++;
    return i;
}

/* The last unit of the domain is full, or there is none yet. */
static bool needs_unit(const struct unit_tally *t, unsigned domain)
{
    return domain == t->domain_count || t->domains[domain].rcpts % UNIT_RCPTS_MAX == 0;
}

static void tally(struct unit_tally *t, struct slice routing)
{
    uint64_t hash = slice_hash(routing, 0);
    unsigned i = find_domain(t, routing, hash);
    t->unit_count += needs_unit(t, i);
    INVARIANT(t->unit_count <= MESSAGE_UNITS_MAX);
    if (i == t->domain_count) {
        t->domains[i].routing = routing;
        t->domains[i].hash = hash;
        t->domain_count++;
    }
    t->domains[i].rcpts++;
}

bool recipient_list_fits(struct recipient_list *l, struct slice routing)
{
    if (l->count < MESSAGE_UNITS_MAX)
        return true; /* as nearly every message */
    if (!l->tally) {
        l->tally = mem_zalloc(sizeof(*l->tally));
        for (uint32_t i = 0; i < l->count; i++)
            tally(l->tally, recipient_list_items(l)[i].routing);
    }
    unsigned i = find_domain(l->tally, routing, slice_hash(routing, 0));
    return !needs_unit(l->tally, i) || l->tally->unit_count < MESSAGE_UNITS_MAX;
}

void recipient_list_add(struct recipient_list *l, const struct listed_recipient *r)
{
    uint32_t cap = l->many ? l->cap : RECIPIENTS_INLINE;
    if (l->count == cap) {
        struct listed_recipient *more = mem_realloc(l->many, 4 * cap * sizeof(*more));
        if (!l->many)
            memcpy(more, l->few, sizeof(l->few));
        l->many = more;
        l->cap = 4 * cap;
    }
    recipient_list_items(l)[l->count] = *r;
    recipient_list_items(l)[l->count].order = l->count;
    l->count++;
    if (l->tally)
        tally(l->tally, r->routing);
}

void recipient_list_fini(struct recipient_list *l)
{
    free(l->many);
    free(l->tally);
    *l = (struct recipient_list){0};
}

void message_keep_origin(struct message *m, const struct transaction_origin *origin)
{
    m->origin = origin->origin;
    m->user = arena_dup(m->arena, origin->user);
    m->listener = arena_dup(m->arena, origin->listener);
    m->client = origin->client;
    m->helo = arena_dup(m->arena, origin->helo);
}

void message_add_received(struct message *m, struct recipient_list *l,
    const struct transaction_origin *origin, const char *hostname)
{
    char room[RECEIVED_MAX];
    struct received field = {
        .helo = origin->helo,
        .rdns = origin->client_name,
        .client = origin->client,
        .hostname = slice_str(hostname),
        .with = origin->with,
        .tls_version = origin->tls->on ? origin->tls->version : NULL,
        .tls_cipher = origin->tls->on ? origin->tls->cipher : NULL,
        .id = m->id,
        .time = m->created,
    };
    struct buf text = {.mem = room, .cap = sizeof(room), .max = sizeof(room)};
    if (l->count == 1)
        field.for_address = recipient_list_items(l)[0].rcpt.address;
    bool fits = received_append(&text, &field);
    INVARIANT(fits && text.mem == room);
    body_append(m->body, buf_slice(&text));
}

/* By routing domain, then by address, so that doubles meet. */
static int compare(const void *a, const void *b)
{
    const struct listed_recipient *x = a, *y = b;
    int difference = slice_cmp(x->routing, y->routing);
    if (difference == 0)
        difference = slice_cmp(x->rcpt.address, y->rcpt.address);
    if (difference == 0)
        difference = (x->order > y->order) - (x->order < y->order);
    return difference;
}

static uint8_t join_notify(uint8_t a, uint8_t b)
{
    if (a == NOTIFY_NEVER || b == NOTIFY_NEVER)
        return a == NOTIFY_NEVER ? b : a;
    return a == 0 || b == 0 ? 0 : a | b; /* 0: the usual */
}

/* A recipient named twice gets one copy; what either asked to be told is told. */
static uint32_t drop_doubles(struct listed_recipient *items, uint32_t count)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct listed_recipient *last = kept ? &items[kept - 1] : NULL;
        if (!last || !slice_eq(last->routing, items[i].routing) ||
            !slice_eq(last->rcpt.address, items[i].rcpt.address)) {
            items[kept++] = items[i];
            continue;
        }
        last->rcpt.notify = join_notify(last->rcpt.notify, items[i].rcpt.notify);
    }
    return kept;
}

static void set_times(struct message_unit *u, struct message *m,
    const struct relay_domain_settings *relay, const struct settings *s)
{
    bool own_senders = m->origin == ORIGIN_SUBMISSION || m->origin == ORIGIN_RELAY_CLIENT;
    int64_t keep_ms =
        relay && relay->hold_for_ms ? relay->hold_for_ms : s->retry.give_up_ms;
    u->expires.ms = m->created.ms + keep_ms;
    if (relay && relay->delay_warning_ms)
        u->delay_warning_ms = relay->delay_warning_ms;
    else if (own_senders)
        u->delay_warning_ms = s->retry.delay_warning_ms;
}

/* Those at the front that are one unit. */
static uint32_t same_unit(const struct listed_recipient *items, uint32_t count)
{
    uint32_t n = 1;
    while (
        n < count && n < UNIT_RCPTS_MAX && slice_eq(items[n].routing, items[0].routing))
        n++;
    return n;
}

static void fill_unit(struct message *m, const struct listed_recipient *items,
    uint32_t count, const struct settings *s)
{
    struct message_unit *u = &m->units[m->unit_count];
    u->domain = items[0].routing;
    u->unit = (uint16_t)m->unit_count;
    u->rcpt_count = (uint16_t)count;
    u->rcpts = arena_alloc(m->arena, count * sizeof(*u->rcpts));
    for (uint32_t i = 0; i < count; i++) {
        u->rcpts[i] = items[i].rcpt;
        u->rcpts[i].index = (uint16_t)i;
    }
    set_times(u, m, items[0].relay, s);
    m->unit_count++;
}

void message_build_units(
    struct message *m, struct recipient_list *l, const struct settings *s)
{
    struct listed_recipient *items = recipient_list_items(l);
    if (l->count > 1) {
        qsort(items, l->count, sizeof(*items), compare);
        l->count = drop_doubles(items, l->count);
    }
    uint32_t units = 0;
    for (uint32_t i = 0; i < l->count; i += same_unit(items + i, l->count - i))
        units++;
    m->units = arena_alloc(m->arena, units * sizeof(*m->units));
    for (uint32_t i = 0; i < l->count;) {
        uint32_t n = same_unit(items + i, l->count - i);
        fill_unit(m, items + i, n, s);
        i += n;
    }
}
