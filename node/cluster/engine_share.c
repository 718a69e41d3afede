/* SPDX-License-Identifier: Apache-2.0 */
/* Work that another node may do better: how busy we are, for those who have nothing to
 * do, and units whose destination cannot be reached from here. What the core does with
 * either is its own affair: it gives nothing that is in doubt, under way or due at once,
 * and nothing back to where it came from within ten minutes. */
#include <stdlib.h>

#include "base/alloc.h"
#include "node/cluster/engine_internal.h"

#define LOAD_MS 1000
#define OFFERS_MAX 256u
/* The outcome of the attempt that failed must be with the holders first: twice, half a
 * second and two seconds behind it. */
#define OFFER_FIRST 2
#define OFFER_LAST 8

struct offer {
    struct core_unit_id id;
    unsigned age; /* in ticks */
};

struct offer_note {
    struct mail mail;
    struct unit_id id;
};

/* --- units --- */

static void offer_arrived(struct mail *mail, void *owner)
{
    struct offer_note *n = CONTAINER_OF(mail, struct offer_note, mail);
    struct engine *e = owner;
    engine_busy(e);
    if (!e->offers)
        e->offers = mem_zalloc(OFFERS_MAX * sizeof(*e->offers));
    if (e->offer_count < OFFERS_MAX && e->peer_count > 0)
        e->offers[e->offer_count++] = (struct offer){.id = rows_core_id(n->id)};
    free(n);
}

void engine_offer_posted(void *ctx, struct unit_id id)
{
    struct engine *e = ctx;
    struct offer_note *n = mem_zalloc(sizeof(*n));
    n->id = id;
    mailbox_post(e->box, &n->mail, offer_arrived);
}

/* To any holder that may send it. */
static void offer(struct engine *e, const struct core_unit_id *id)
{
    struct core_event event = {.kind = EV_STEAL_HINT};
    event.u.steal.id = *id;
    engine_step(e, &event);
}

static bool is_over(const struct engine *e, const struct offer *o)
{
    struct unit_row row;
    return o->age > OFFER_LAST || !engine_unit(e, &o->id, &row) || row.owner != e->node ||
           row.state != UNIT_LIVE;
}

static void offer_some(struct engine *e)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < e->offer_count; i++) {
        struct offer o = e->offers[i];
        o.age++;
        if (is_over(e, &o))
            continue;
        if (o.age == OFFER_FIRST || o.age == OFFER_LAST)
            offer(e, &o.id);
        e->offers[kept++] = o;
    }
    e->offer_count = kept;
}

/* --- load --- */

static void tell_load(struct engine *e)
{
    unsigned char value[CORE_LOAD_BYTES];
    struct core_event event = {.kind = EV_ROW};
    struct core_load now = {0};
    e->load_at = mono_add_ms(mono_now(), LOAD_MS);
    e->deps.events->load(e->deps.ctx, &now.ready, &now.spare);
    if (e->told_load && now.ready == e->load.ready && now.spare == e->load.spare)
        return;
    e->told_load = true;
    e->load = now;
    core_load_put(&now, value);
    event.u.row.key = CORE_ROW_LOAD;
    event.u.row.length = sizeof(value);
    event.u.row.value = value;
    engine_step(e, &event);
}

void engine_share_tick(struct engine *e)
{
    if (e->is_stopping)
        return;
    offer_some(e);
    if (e->deps.events->load && mono_now().ns >= e->load_at.ns)
        tell_load(e);
}

void engine_share_fini(struct engine *e)
{
    free(e->offers);
}
