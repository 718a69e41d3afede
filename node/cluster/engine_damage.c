/* SPDX-License-Identifier: Apache-2.0 */
/* Mail that rots on this disk. Whoever cannot read a unit says so (deliveries, copies on
 * their way out, the scrub); it is read once more behind everything that the store was
 * asked before, and what is bad then, the core hears of: another holder delivers and
 * brings the mail anew. A body that is bad makes room before the good one comes: the
 * store keeps what it has. Also what the core must know of the wall clock. */
#include <stdlib.h>

#include "base/alloc.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "node/cluster/engine_internal.h"

#define SCRUB_MS 60000
#define WALL_MS 60000
#define WALL_MOVED_MS 5000 /* set, and perhaps vouched for, meanwhile */
#define LOOKS_MAX 32u
#define SCRUB_FINDS 64u
#define REMINDERS 64u /* a minute */
#define READ_BYTES (16 * BODY_ROW_BYTES)

/* A unit whose mail here is bad, until it came anew or is gone. */
struct rotten {
    struct table_node by_unit;
    struct core_unit_id id;
    bool body;    /* else only its head */
    bool cleared; /* the bad mail was removed for the good one to come */
};

/* One unit is read again. */
struct look {
    struct mail mail; /* suspected by another thread */
    struct store_op barrier;
    struct job job;
    struct engine *engine;
    struct unit_id id;
    bool head_bad, body_bad;
};

struct clearing {
    struct store_cluster sc;
    struct unit_id remove[MESSAGE_UNITS_MAX];
};

struct scrub_turn {
    struct job job;
    struct engine *engine;
    struct unit_id found[SCRUB_FINDS];
    unsigned count;
};

static struct rotten *rotten_find(const struct engine *e, const struct core_unit_id *id)
{
    struct table_node *n = table_find(&e->rotten, table_unit_key(id));
    return n ? CONTAINER_OF(n, struct rotten, by_unit) : NULL;
}

bool engine_body_is_bad(const struct engine *e, const struct core_unit_id *id)
{
    const struct rotten *r = rotten_find(e, id);
    return r && r->body;
}

void engine_not_rotten(struct engine *e, const struct core_unit_id *id)
{
    struct rotten *r = rotten_find(e, id);
    if (!r)
        return;
    table_remove(&e->rotten, &r->by_unit);
    free(r);
}

/* --- found bad --- */

static void tell_core(struct engine *e, const struct core_unit_id *id)
{
    struct core_event event = {.kind = EV_DAMAGED};
    event.u.damaged.id = *id;
    event.u.damaged.mail = true;
    engine_step(e, &event);
}

static bool is_live(const struct engine *e, const struct core_unit_id *id)
{
    struct unit_row row;
    return engine_unit(e, id, &row) && row.state == UNIT_LIVE;
}

static void condemn(struct engine *e, const struct core_unit_id *id, bool body)
{
    char text[UNIT_ID_TEXT_MAX];
    struct rotten *r = rotten_find(e, id);
    if (r) {
        r->body = r->body || body;
        return;
    }
    r = mem_zalloc(sizeof(*r));
    r->id = *id;
    r->body = body;
    table_add(&e->rotten, &r->by_unit, table_unit_key(id));
    unit_id_format(rows_unit_id(id), text);
    log_say(LOG_EV_STORE_PROBLEM,
        "unit %s: its %s on this disk is damaged or missing; another node's copy takes "
        "its place, or it is put aside (batonctl quarantine ls). Check this machine's "
        "disk and memory",
        text, body ? "body" : "head");
    tell_core(e, id);
}

/* The units of a message share its body. */
static void judge(struct engine *e, const struct look *l)
{
    struct core_unit_id id = rows_core_id(l->id);
    if (!l->body_bad) {
        if (l->head_bad && is_live(e, &id))
            condemn(e, &id, false);
        return;
    }
    for (id.part = 0; id.part < MESSAGE_UNITS_MAX; id.part++)
        if (is_live(e, &id))
            condemn(e, &id, true);
}

/* --- read once more --- */

static bool is_bad(enum err err)
{
    return err == ERR_STORE_DAMAGED || err == ERR_STORE_NOT_FOUND;
}

static enum err read_body(struct store *s, const struct unit_record *u)
{
    char *rows = mem_alloc(READ_BYTES);
    uint64_t size = 0;
    uint32_t crc = 0;
    size_t len = READ_BYTES;
    enum err err = ERR_OK;
    for (uint32_t row = 0; err == ERR_OK && len == READ_BYTES; row += 16) {
        len = 0;
        err = store_read_body(s, u->id.msg, row, rows, &len);
        crc = crc32c(crc, rows, err == ERR_OK ? len : 0);
        size += len;
    }
    free(rows);
    bool same = size == u->message->size && crc == u->message->body_crc;
    return err != ERR_OK || same ? err : ERR_STORE_DAMAGED;
}

static void look_run(struct job *job)
{
    struct look *l = CONTAINER_OF(job, struct look, job);
    struct unit_record *u = NULL;
    enum err err = store_read_unit(l->engine->deps.store, l->id, &u);
    l->head_bad = is_bad(err);
    if (err == ERR_OK)
        l->body_bad = is_bad(read_body(l->engine->deps.store, u));
    unit_record_free(u);
}

static void look_over(struct look *l)
{
    l->engine->jobs--;
    l->engine->looks--;
    free(l);
}

static void looked(struct mail *mail, void *owner)
{
    struct look *l = CONTAINER_OF(mail, struct look, job.mail);
    engine_busy(owner);
    judge(owner, l);
    look_over(l);
}

static void settled(struct store_op *op, void *owner)
{
    struct look *l = CONTAINER_OF(op, struct look, barrier);
    struct engine *e = owner;
    l->job = (struct job){.run = look_run, .done = looked, .reply_to = e->box};
    if (!workers_submit(e->deps.helpers, &l->job))
        look_over(l); /* whoever reads it next says it again */
}

static void look_begin(struct engine *e, struct look *l)
{
    struct core_unit_id id = rows_core_id(l->id);
    if (!e->is_running || e->is_stopping || e->looks >= LOOKS_MAX || !is_live(e, &id) ||
        rotten_find(e, &id) || engine_hot(e, &id)) {
        free(l);
        return;
    }
    e->jobs++;
    e->looks++;
    l->engine = e;
    l->barrier =
        (struct store_op){.kind = STORE_OP_BARRIER, .reply_to = e->box, .done = settled};
    store_submit(e->deps.store, &l->barrier);
}

void engine_suspect(struct engine *e, struct unit_id id)
{
    struct look *l = mem_zalloc(sizeof(*l));
    l->id = id;
    look_begin(e, l);
}

static void suspected(struct mail *mail, void *owner)
{
    engine_busy(owner);
    look_begin(owner, CONTAINER_OF(mail, struct look, mail));
}

/* The backend's: any thread. */
void engine_suspect_posted(void *ctx, struct unit_id id)
{
    struct engine *e = ctx;
    struct look *l = mem_zalloc(sizeof(*l));
    l->id = id;
    mailbox_post(e->box, &l->mail, suspected);
}

/* --- a good copy comes --- */

static void cleared(struct store_op *op, void *owner)
{
    struct engine *e = owner;
    e->jobs--;
    free(CONTAINER_OF(CONTAINER_OF(op, struct store_cluster, op), struct clearing, sc));
}

void engine_clear_rotten(struct engine *e, const struct core_unit_id *id)
{
    struct core_unit_id each = *id;
    if (!engine_body_is_bad(e, id))
        return;
    struct clearing *c = mem_zalloc(sizeof(*c));
    for (each.part = 0; each.part < MESSAGE_UNITS_MAX; each.part++) {
        struct rotten *r = rotten_find(e, &each);
        if (!r || !r->body || r->cleared)
            continue;
        r->cleared = true;
        c->remove[c->sc.remove_count++] = rows_unit_id(&each);
    }
    if (c->sc.remove_count == 0) {
        free(c);
        return;
    }
    c->sc.remove = c->remove;
    c->sc.op =
        (struct store_op){.kind = STORE_OP_CLUSTER, .reply_to = e->box, .done = cleared};
    e->jobs++;
    store_submit(e->deps.store, &c->sc.op);
}

/* --- at leisure --- */

static void scrub_found(struct unit_id id, enum scrub_find what, void *ctx)
{
    struct scrub_turn *t = ctx;
    (void)what; /* it is read again */
    if (t->count < SCRUB_FINDS)
        t->found[t->count++] = id;
}

static void scrub_run(struct job *job)
{
    struct scrub_turn *t = CONTAINER_OF(job, struct scrub_turn, job);
    struct engine *e = t->engine;
    if (scrub_step(e->deps.store, &e->scrub, mono_now(), scrub_found, t) != ERR_OK)
        log_say(LOG_EV_STORE_PROBLEM, "re-reading the queue at leisure failed");
}

static void scrubbed(struct mail *mail, void *owner)
{
    struct scrub_turn *t = CONTAINER_OF(mail, struct scrub_turn, job.mail);
    struct engine *e = owner;
    engine_busy(e);
    for (unsigned i = 0; i < t->count; i++)
        engine_suspect(e, t->found[i]);
    e->is_scrubbing = false;
    e->jobs--;
    free(t);
}

static void scrub_begin(struct engine *e)
{
    struct scrub_turn *t = mem_zalloc(sizeof(*t));
    t->engine = e;
    t->job = (struct job){.run = scrub_run, .done = scrubbed, .reply_to = e->box};
    if (!workers_submit(e->deps.helpers, &t->job)) {
        free(t);
        return;
    }
    e->is_scrubbing = true;
    e->jobs++;
}

/* Of some the core could hear nothing when they were found, for an attempt was ending;
 * others are gone. Ids first: the core's answer changes the table. */
static void remind(struct engine *e)
{
    struct core_unit_id ids[REMINDERS];
    unsigned count = 0;
    for (uint32_t i = 0; i <= e->rotten.mask; i++)
        for (struct table_node *n = e->rotten.bucket[i]; n && count < REMINDERS;
             n = n->next)
            ids[count++] = CONTAINER_OF(n, struct rotten, by_unit)->id;
    for (unsigned i = 0; i < count; i++) {
        if (is_live(e, &ids[i]))
            tell_core(e, &ids[i]);
        else
            engine_not_rotten(e, &ids[i]);
    }
}

/* --- the clock --- */

/* Ours is off by more than a day from what our disk last saw, or was set: nothing is
 * judged by age, until more of the members that trust theirs agree with it than not. What
 * a node that was away for long puts aside hangs on this: they may have forgotten. */
#define WALLS_AGREE_MS UINT64_C(600000)
#define WALL_FRESH_MS 35000

void engine_wall_compare(struct engine *e)
{
    struct wall now = wall_now();
    unsigned agree = 0, differ = 0;
    if (rights_clock_trusted(e->deps.rights, now))
        return;
    for (unsigned i = 0; i < e->peer_count; i++) {
        const struct engine_peer *p = &e->peer[i];
        /* Unsigned: what a peer says may be anything. */
        uint64_t theirs =
            (uint64_t)p->wall_ahead_ms + (uint64_t)(mono_now().ns / NS_PER_MS);
        bool close = theirs - (uint64_t)now.ms + WALLS_AGREE_MS <= 2 * WALLS_AGREE_MS;
        bool fresh = mono_diff_ms(mono_now(), p->wall_heard) < WALL_FRESH_MS;
        agree += fresh && p->wall_trusted && close;
        differ += fresh && p->wall_trusted && !close;
    }
    if (agree <= differ)
        return;
    log_say(LOG_EV_CLUSTER,
        "this node's clock agrees with %u other members': it is trusted again", agree);
    rights_clock_accept(e->deps.rights, now);
    engine_wall(e);
}

void engine_wall(struct engine *e)
{
    struct wall now = wall_now();
    struct core_event event = {.kind = EV_WALL};
    event.u.wall.now_s = now.ms > 0 ? (uint64_t)now.ms / 1000 : 0;
    event.u.wall.trusted = e->trusts_wall = rights_clock_trusted(e->deps.rights, now);
    e->wall_ahead_ms = now.ms - mono_now().ns / NS_PER_MS;
    e->wall_at = mono_add_ms(mono_now(), WALL_MS);
    engine_step(e, &event);
}

void engine_damage_tick(struct engine *e)
{
    struct mono now = mono_now();
    struct wall wall = wall_now();
    int64_t moved_ms = wall.ms - now.ns / NS_PER_MS - e->wall_ahead_ms;
    if (now.ns >= e->wall_at.ns || moved_ms > WALL_MOVED_MS ||
        moved_ms < -WALL_MOVED_MS ||
        e->trusts_wall != rights_clock_trusted(e->deps.rights, wall))
        engine_wall(e);
    if (e->is_stopping || e->is_scrubbing || now.ns < e->scrub_at.ns)
        return;
    e->scrub_at = mono_add_ms(now, SCRUB_MS);
    scrub_begin(e);
    remind(e);
}

void engine_damage_init(struct engine *e)
{
    table_init(&e->rotten);
}

void engine_damage_fini(struct engine *e)
{
    struct table_node *n;
    while ((n = table_any(&e->rotten))) {
        table_remove(&e->rotten, n);
        free(CONTAINER_OF(n, struct rotten, by_unit));
    }
    table_fini(&e->rotten);
}
