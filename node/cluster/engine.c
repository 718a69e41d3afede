/* SPDX-License-Identifier: Apache-2.0 */
#include "node/cluster/engine_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/random.h"

#define RING_COMMANDS 2048u
#define TICK_MS 250
#define LONG_TURN_MS 500
#define RESIGN_WAIT_MS 3000

/* --- the core's limits and times --- */

static struct core_limits limits_of(const struct settings *s)
{
    /* A unit takes at least a row of a few hundred bytes: more than the quota holds never
     * come. Memory is touched only where it is used. */
    uint64_t units = s->queue.quota_bytes / 2048;
    if (units > 4000000)
        units = 4000000;
    if (units < 100000)
        units = 100000;
    return (struct core_limits){.units = (uint32_t)units,
        .works = 131072,
        .accepts = 2048,
        .parked = 16384,
        .graves = 65536,
        .gossip_rows = 4096};
}

static bool params_of(const struct settings *s, struct core_params *p)
{
    *p = (struct core_params){.lease_ns = (uint64_t)s->cluster.lease_ms * CORE_MS,
        .rho_ppm = CLUSTER_RHO_PPM,
        .doubt_ns = (uint64_t)s->cluster.in_doubt_hold_ms * CORE_MS,
        .own_doubt_ns = 60 * CORE_SEC,
        .stale_ns = (uint64_t)s->cluster.stale_hold_ms * CORE_MS,
        .frame_ns = 30 * CORE_SEC,
        .hedge_ns = 300 * CORE_MS,
        .accept_ns = 20 * CORE_SEC,
        .repair_wait_ns = 10 * CORE_SEC,
        .probe_ns = CORE_SEC,
        .digest_ns = 30 * CORE_SEC,
        .gossip_ns = CORE_SEC,
        .demote_ns = 600 * CORE_SEC};
    return core_params_derive(p);
}

/* --- commands --- */

static void gate(struct engine *e, const struct core_gate_value *g)
{
    struct rights_gate_value value = {.epoch = g->epoch,
        .frozen = g->frozen,
        .is_static = e->cfg.mode == MODE_STATIC && e->cfg.count > 0,
        .lease_end = {g->lease_end_ns > INT64_MAX ? INT64_MAX : (int64_t)g->lease_end_ns},
        .dot_margin_ns = (int64_t)g->dot_margin_ns,
        .start_margin_ns = (int64_t)e->params.start_margin_ns};
    if (g->epoch != e->gate.epoch && g->epoch)
        log_say(LOG_EV_CLUSTER, "session %u begins", g->epoch);
    e->gate = *g;
    rights_publish_gate(e->deps.rights, &value);
}

/* The end, with a last line: what the core says must not go on, must not. */
void engine_die(struct engine *e, const char *why)
{
    struct core_gate_value closed = {.epoch = 0, .frozen = true};
    gate(e, &closed);
    log_say(LOG_EV_STOP, "the cluster engine ends this process: %s", why);
    log_flush();
    die("baton: the cluster engine ends this process: %s", why);
}

static void configured(struct engine *e, const struct core_cfg *cfg)
{
    e->cfg = *cfg;
    engine_members_cfg(e, cfg);
    gate(e, &e->gate); /* the mode may have changed */
}

static void carry_out(struct engine *e, const struct core_command *c)
{
    switch ((enum core_command_kind)c->kind) {
    case CMD_SEND:
        engine_send(e, &c->u.send);
        break;
    case CMD_STORE:
        engine_store_command(e, c);
        break;
    case CMD_ACCEPT_REPLY:
        engine_accept_reply(e, c);
        break;
    case CMD_GATE:
        gate(e, &c->u.gate);
        break;
    case CMD_START:
        engine_start_unit(e, c);
        break;
    case CMD_ATTEMPT:
        engine_attempt(e, c);
        break;
    case CMD_INTENT_OK:
        engine_intent_ok(e, c);
        break;
    case CMD_CANCEL:
        engine_cancel(e, c);
        break;
    case CMD_DIE:
        engine_die(e, c->u.why);
        break;
    case CMD_CFG:
        configured(e, c->u.cfg);
        break;
    case CMD_ADMIN_DONE:
        engine_admin_done(e, c);
        break;
    case CMD_TRACE:
        log_say(LOG_EV_CLUSTER, "%s", c->u.why);
        break;
    }
}

static void arm(struct engine *e)
{
    uint64_t at = e->out.deadline_ns;
    if (e->is_running && at < INT64_MAX)
        timer_set(&e->deadline, (struct mono){(int64_t)at});
}

void engine_step(struct engine *e, struct core_event *event)
{
    INVARIANT(!e->is_stepping);
    e->is_stepping = true;
    e->has_accepted = false;
    /* The clock is read for each event: after a pause the gate closes first. */
    event->now_ns = (uint64_t)mono_now().ns;
    e->out.count = 0;
    pthread_mutex_lock(&e->core_lock);
    core_step(e->core, event, &e->out);
    pthread_mutex_unlock(&e->core_lock);
    for (uint32_t i = 0; i < e->out.count; i++)
        carry_out(e, &e->out.v[i]);
    engine_store_flush(e);
    e->is_stepping = false;
    arm(e);
}

bool engine_unit(
    const struct engine *e, const struct core_unit_id *id, struct unit_row *out)
{
    return core_unit_row(e->core, id, out);
}

/* --- the turns of the thread --- */

static void tick_core(struct timer *t)
{
    struct engine *e = CONTAINER_OF(t, struct engine, deadline);
    struct core_event event = {.kind = EV_TICK};
    engine_step(e, &event);
}

static void tell_lease(struct engine *e)
{
    bool may = e->cfg.mode == MODE_STATIC ||
               (!e->gate.frozen && e->gate.lease_end_ns > (uint64_t)mono_now().ns);
    if (may == e->told_lease)
        return;
    e->told_lease = may;
    e->ident_at = (struct mono){0}; /* now a change may be decided */
    log_say(LOG_EV_CLUSTER, may ? "this node has a lease and may deliver"
                                : "no lease: delivery waits for a majority of voters");
    if (e->deps.events->lease)
        e->deps.events->lease(e->deps.ctx, may);
}

static void tick(struct timer *t)
{
    struct engine *e = CONTAINER_OF(t, struct engine, tick);
    engine_store_health(e);
    engine_copy_tick(e);
    engine_arrive_tick(e);
    engine_members_tick(e);
    engine_seeds_tick(e);
    engine_query_tick(e);
    engine_damage_tick(e);
    engine_share_tick(e);
    engine_repeat_tick(e);
    tell_lease(e);
    engine_status_update(e);
    engine_budget_tick(e);
    timer_set(t, mono_add_ms(mono_now(), TICK_MS));
    if (e->is_stopping && (engine_store_is_idle(e) || mono_now().ns > e->resign_until.ns))
        loop_stop(e->loop);
}

static void turn_ends(void *ctx)
{
    struct engine *e = ctx;
    engine_store_tell(e);
    engine_copy_pump(e);
    log_flush();
    int64_t since = atomic_exchange(&e->busy_since_ns, 0);
    int64_t ms = since ? (mono_now().ns - since) / NS_PER_MS : 0;
    if (ms > LONG_TURN_MS)
        log_say(LOG_EV_CLUSTER_PROBLEM,
            "a turn of the cluster's thread took %lld ms; the machine is overloaded or "
            "was paused",
            (long long)ms);
}

void engine_busy(struct engine *e)
{
    int_fast64_t none = 0;
    atomic_compare_exchange_strong(&e->busy_since_ns, &none, mono_now().ns);
}

#define WATCH_MS 500

/* How long the turn that goes on has hung, in time that this process was given: when the
 * watchdog itself overslept, all of it was stopped, and that is no hang. The lease is
 * over by then, which the core sees by the clock at its next event, and it begins anew.
 */
static int64_t hangs_ns(struct engine *e, int_fast64_t *turn, int64_t hung, int64_t slept)
{
    int_fast64_t since = atomic_load(&e->busy_since_ns);
    bool same = since && since == *turn;
    *turn = since;
    if (!same)
        return 0;
    return slept > 2 * WATCH_MS * NS_PER_MS ? hung : hung + slept;
}

/* A thread that hangs would lose the lease in silence, and with it all it owns: better to
 * end, so that the others take over and the service manager starts us again. */
static void *watch(void *arg)
{
    struct engine *e = arg;
    int64_t most = (int64_t)e->params.lease_ns / 3, hung = 0, at = mono_now().ns;
    int_fast64_t turn = 0;
    while (atomic_load(&e->watched)) {
        mailbox_wait(e->watchdog_box, WATCH_MS);
        mailbox_drain(e->watchdog_box);
        int64_t now = mono_now().ns;
        hung = hangs_ns(e, &turn, hung, now - at);
        at = now;
        if (hung > most && atomic_load(&e->watched))
            die("baton: the cluster's thread hangs for %lld ms; ending, so that the "
                "other nodes take over",
                (long long)(hung / NS_PER_MS));
    }
    return NULL;
}

static void woken(struct mail *mail, void *owner)
{
    (void)mail;
    (void)owner;
}

static void *run(void *arg)
{
    struct engine *e = arg;
    loop_run(e->loop);
    log_flush();
    return NULL;
}

/* --- life --- */

static void frame_came(void *ctx, uint64_t node, enum transport_lane lane, struct slice f)
{
    engine_busy(ctx);
    engine_frame(ctx, node, lane, f);
}

static void guest_came(void *ctx, const unsigned char *key, struct slice frame)
{
    engine_busy(ctx);
    engine_guest(ctx, key, frame);
}

static void link_changed(void *ctx, uint64_t node, bool is_up)
{
    engine_link(ctx, node, is_up);
}

static void scouted(void *ctx, uint64_t node, struct netaddr address, bool is_there)
{
    engine_scouted(ctx, node, address, is_there);
}

static bool open_transport(struct engine *e, char *why, size_t why_size)
{
    static const struct transport_events events = {
        frame_came, guest_came, link_changed, scouted};
    struct transport_settings ts = {.loop = e->loop,
        .listen = e->settings->cluster.listen,
        .keys = &e->keys,
        .node = e->node};
    e->transport = transport_new(&ts, &events, e, why, why_size);
    return e->transport != NULL;
}

static void make_core(struct engine *e)
{
    struct core_limits limits = limits_of(e->settings);
    size_t size = (core_size(&limits) + 15) & ~(size_t)15;
    e->core_memory = aligned_alloc(16, size);
    INVARIANT(e->core_memory);
    e->core = core_init(e->core_memory, &limits, &e->params, e->node, random_u64());
    e->out = (struct core_commands){
        .v = mem_zalloc(RING_COMMANDS * sizeof(struct core_command)),
        .cap = RING_COMMANDS};
}

static void box_ready(struct watcher *w, int what)
{
    struct engine *e = CONTAINER_OF(w, struct engine, box_ready);
    (void)what;
    engine_busy(e);
    mailbox_drain(e->box);
}

static void init_parts(struct engine *e)
{
    e->loop = loop_new();
    e->frame = mem_alloc(WIRE_FRAME_MAX);
    e->box = mailbox_new(e);
    watcher_init(&e->box_ready, e->loop, mailbox_fd(e->box), box_ready);
    watcher_set(&e->box_ready, WATCH_READ);
    loop_after_round(e->loop, turn_ends, e);
    pthread_mutex_init(&e->status_lock, NULL);
    pthread_mutex_init(&e->core_lock, NULL);
    engine_store_init(e);
    engine_rights_init(e);
    engine_copy_init(e);
    engine_arrive_init(e);
    engine_query_init(e);
    engine_damage_init(e);
    table_init(&e->taken);
    table_init(&e->repeats);
    table_init(&e->repeat_asked);
    e->repeat_number = random_u64();
    timer_init(&e->deadline, e->loop, tick_core);
    timer_init(&e->tick, e->loop, tick);
}

struct engine *engine_new(const struct engine_deps *deps, const struct settings *settings,
    char *why, size_t why_size)
{
    struct engine *e = mem_zalloc(sizeof(*e));
    e->deps = *deps;
    /* A reference is only a count; the object stays immutable. */
    e->settings = settings_ref((struct settings *)(uintptr_t)settings);
    e->node = store_identity(deps->store).node_id;
    init_parts(e);
    if (!params_of(settings, &e->params)) {
        snprintf(why, why_size,
            "cluster.lease: %lld ms leaves no time for lost renewals; give 5s or more",
            (long long)settings->cluster.lease_ms);
        engine_free(e);
        return NULL;
    }
    make_core(e);
    engine_budget_init(e);
    if (!engine_members_open(e, why, why_size) || !engine_boot(e, why, why_size) ||
        !open_transport(e, why, why_size)) {
        engine_free(e);
        return NULL;
    }
    return e;
}

bool engine_start(struct engine *e, char *why, size_t why_size)
{
    if (!engine_boot_core(e, why, why_size))
        return false;
    engine_members_start(e);
    engine_seeds_start(e);
    engine_status_update(e);
    timer_set(&e->tick, mono_now());
    timer_set(&e->deadline, mono_now());
    e->is_running = true;
    if (pthread_create(&e->thread, NULL, run, e) != 0) {
        e->is_running = false;
        snprintf(why, why_size, "the cluster's thread cannot be started");
        return false;
    }
    pthread_setname_np(e->thread, "cluster");
    e->watchdog_box = mailbox_new(e);
    atomic_store(&e->watched, true);
    if (pthread_create(&e->watchdog, NULL, watch, e) != 0)
        atomic_store(&e->watched, false);
    return true;
}

static void resign(struct mail *mail, void *owner)
{
    struct engine *e = owner;
    struct core_event event = {.kind = EV_ADMIN};
    (void)mail;
    event.u.admin.op = ADMIN_RESIGN;
    event.u.admin.count = e->stop_hold_s;
    e->resign_until = mono_add_ms(mono_now(), RESIGN_WAIT_MS);
    e->is_stopping = true;
    engine_step(e, &event);
    /* Asked again by the tick, which ends the loop once all is on disk: the frames that
     * say so leave meanwhile. */
}

/* What the store and the helpers still owe comes to the mailbox, which nobody reads any
 * more but we. */
static void wait_for_answers(struct engine *e)
{
    while (!engine_store_is_idle(e) || e->jobs > 0) {
        mailbox_wait(e->box, 100);
        mailbox_drain(e->box);
    }
    mailbox_drain(e->box);
}

/* The resolver answers all when it ends, and always in 30 s. */
static void wait_for_names(struct engine *e)
{
    while (engine_seeds_pending(e) > 0) {
        mailbox_wait(e->box, 100);
        mailbox_drain(e->box);
    }
}

void engine_stop(struct engine *e, unsigned hold_s)
{
    if (!e->is_running)
        return;
    if (atomic_exchange(&e->watched, false)) {
        mailbox_post(e->watchdog_box, &e->watchdog_mail, woken);
        pthread_join(e->watchdog, NULL);
    }
    e->stop_hold_s = hold_s;
    mailbox_post(e->box, &e->stop, resign);
    pthread_join(e->thread, NULL);
    e->is_running = false;
    wait_for_answers(e);
    engine_rights_end(e);
    engine_repeat_end(e);
    engine_query_end(e);
    engine_admin_fini(e);
}

void engine_free(struct engine *e)
{
    if (!e)
        return;
    wait_for_answers(e);
    wait_for_names(e);
    transport_free(e->transport);
    engine_query_fini(e);
    engine_admin_fini(e);
    engine_arrive_fini(e);
    engine_copy_fini(e);
    engine_rights_fini(e);
    engine_store_fini(e);
    engine_damage_fini(e);
    engine_start_fini(e);
    engine_repeat_fini(e);
    engine_share_fini(e);
    engine_seeds_fini(e);
    engine_budget_fini(e);
    engine_members_fini(e);
    timer_fini(&e->deadline);
    timer_fini(&e->tick);
    watcher_fini(&e->box_ready);
    mailbox_free(e->box);
    mailbox_free(e->watchdog_box);
    free(e->found);
    loop_free(e->loop);
    pthread_mutex_destroy(&e->status_lock);
    pthread_mutex_destroy(&e->core_lock);
    settings_unref(e->settings);
    free(e->out.v);
    free(e->core_memory);
    free(e->frame);
    free(e);
}
