/* SPDX-License-Identifier: Apache-2.0 */
/* The order of a search (RFC 5321 5.1): every address of a host when the network refuses
 * us, the next host when the server does (a listed address is listed on all doors of a
 * house), and in a second round the other addresses of those that refused. */
#include <stdio.h>

#include "base/alloc.h"
#include "node/delivery/outgoing.h"

static void look_up(struct delivery *d);

const char *hops_name(const struct delivery *d)
{
    return route_hop(d->route, d->order[d->hop])->name;
}

static const struct dead_address *known_dead(const struct delivery *d, struct netaddr a)
{
    int64_t now = mono_now().ns;
    for (unsigned i = 0; i < d->dead_count; i++) {
        const struct dead_address *dead = &d->dead[i];
        if (dead->until.ns > now && dead->address.port == a.port &&
            ipaddr_eq(dead->address.ip, a.ip))
            return dead;
    }
    return NULL;
}

bool hops_must_be_clear(const struct delivery *d)
{
    const struct dead_address *dead = known_dead(d, d->address);
    return dead && dead->in_clear;
}

void hops_note_dead(struct delivery *d, bool in_clear_only, int64_t for_ms)
{
    if (d->dead_count == sizeof(d->dead) / sizeof(d->dead[0]))
        return;
    d->dead[d->dead_count++] = (struct dead_address){.address = d->address,
        .until = mono_add_ms(mono_now(), for_ms),
        .in_clear = in_clear_only};
}

static bool next_hop(struct delivery *d)
{
    unsigned count = route_hop_count(d->route);
    for (d->hop++; d->hop < count; d->hop++)
        if (!d->second_round || d->revisit[d->hop])
            return true;
    if (d->second_round)
        return false;
    d->second_round = true;
    for (d->hop = 0; d->hop < count; d->hop++)
        if (d->revisit[d->hop])
            return true;
    return false;
}

static void no_address(struct delivery *d, enum err err, const char *why)
{
    struct failure_note *f = &d->last_failure;
    /* A hop that an operator named is not gone because DNS says so today. */
    if (!route_by_mx(d->route) && err_class(err) == ERR_CLASS_PERMANENT)
        err = ERR_NO_USABLE_ADDRESS;
    if (f->err != ERR_OK && err_class(f->err) == ERR_CLASS_TRANSIENT &&
        err_class(err) == ERR_CLASS_PERMANENT) {
        outgoing_setup_failed(d, false); /* another host may well take it later */
        return;
    }
    *f = (struct failure_note){.err = err};
    snprintf(f->status, sizeof(f->status), "%s", err_status(err));
    snprintf(f->text, sizeof(f->text), "%s", why[0] ? why : err_text(err));
    snprintf(f->mx, sizeof(f->mx), "%s", hops_name(d));
    outgoing_setup_failed(d, false);
}

/* Passes over those that failed moments ago; when that leaves none, the session fails and
 * says so. A host with a single address is always tried. */
static bool pick_address(struct delivery *d, struct netaddr *out)
{
    uint8_t *at = &d->next_address[d->hop];
    while (*at < d->lookup.count) {
        struct netaddr a = d->lookup.addresses[(*at)++];
        const struct dead_address *dead = known_dead(d, a);
        if (dead && !dead->in_clear && d->lookup.count > 1)
            continue;
        *out = a;
        return true;
    }
    return false;
}

static void use_lookup(struct delivery *d)
{
    struct netaddr address;
    if (d->lookup.result != ERR_OK) {
        if (d->lookup.result == ERR_MAIL_LOOP)
            d->hop = route_hop_count(d->route) - 1; /* nothing behind ourselves */
        d->next_address[d->hop] = UINT8_MAX;
        no_address(d, d->lookup.result, d->lookup.why ? d->lookup.why : "");
        return;
    }
    if (pick_address(d, &address)) {
        d->tries++;
        outgoing_connect(d, address);
        return;
    }
    if (d->last_failure.err == ERR_OK)
        no_address(d, ERR_CONNECT_TIMEOUT, "every address failed moments ago");
    else
        outgoing_setup_failed(d, false);
}

static void looked_up(struct route_lookup *l, void *owner)
{
    struct delivery *d = CONTAINER_OF(l, struct delivery, lookup);
    (void)owner;
    d->looking_up = false;
    if (d->state == DELIVERY_LOOKING_UP)
        use_lookup(d);
    outgoing_pending_done(d);
}

static void look_up(struct delivery *d)
{
    d->state = DELIVERY_LOOKING_UP;
    d->lookup = (struct route_lookup){
        .reply_to = delivery_loop_mailbox(d->dl), .done = looked_up};
    d->looking_up = true;
    d->pending++;
    if (!route_addresses(d->route, d->order[d->hop], &d->lookup))
        return;
    d->pending--;
    d->looking_up = false;
    use_lookup(d);
}

void hops_start(struct delivery *d)
{
    route_order(d->route, d->order);
    look_up(d);
}

bool hops_next(struct delivery *d, bool by_protocol)
{
    if (d->tries >= TRIES_MAX || d->hop >= route_hop_count(d->route))
        return false;
    bool more_here = d->next_address[d->hop] < d->lookup.count;
    if (by_protocol && more_here && !d->second_round) {
        d->revisit[d->hop] = true;
        more_here = false;
    }
    if (!more_here && !next_hop(d))
        return false;
    look_up(d);
    return true;
}
