/* SPDX-License-Identifier: Apache-2.0 */
#include "node/intake/intake.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/random.h"
#include "node/intake/intake_internal.h"
#include "node/intake/session.h"

#define VERIFIED_REMEMBERED 100000

/* --- what sessions ask for --- */

struct intake_config *intake_config_now(struct intake *in)
{
    pthread_mutex_lock(&in->lock);
    struct intake_config *c = intake_config_ref(in->config);
    pthread_mutex_unlock(&in->lock);
    return c;
}

struct intake_service *intake_service(struct intake *in, const char *name)
{
    struct intake_service *found;
    pthread_mutex_lock(&in->lock);
    LIST_FOREACH (found, &in->services, link)
        if (strcmp(found->name, name) == 0)
            break;
    if (!found) {
        size_t size = strlen(name) + 1;
        found = mem_zalloc(sizeof(*found) + size);
        memcpy(found->name, name, size);
        LIST_INSERT_HEAD(&in->services, found, link);
    }
    pthread_mutex_unlock(&in->lock);
    return found;
}

struct msg_id intake_new_id(struct intake_loop *il, struct wall now)
{
    struct intake_ids *ids = &il->intake->ids[il->index % INTAKE_LANES];
    pthread_mutex_lock(&ids->lock);
    struct msg_id id = msg_id_next(&ids->source, now);
    pthread_mutex_unlock(&ids->lock);
    return id;
}

bool intake_reserve(struct intake *in, uint64_t bytes, uint64_t budget)
{
    uint64_t used = atomic_load_explicit(&in->memory.reserved, memory_order_relaxed);
    do {
        if (bytes > budget || used > budget - bytes)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&in->memory.reserved, &used,
        used + bytes, memory_order_relaxed, memory_order_relaxed));
    return true;
}

void intake_unreserve(struct intake *in, uint64_t bytes)
{
    atomic_fetch_sub_explicit(&in->memory.reserved, bytes, memory_order_relaxed);
}

uint64_t intake_memory(const struct intake *in)
{
    return atomic_load_explicit(&in->memory.reserved, memory_order_relaxed);
}

void intake_loop_count(struct intake_loop *il, int change)
{
    atomic_fetch_add_explicit(&il->load, (unsigned)change, memory_order_relaxed);
}

/* --- doors: a listening socket on one loop; loop's thread --- */

static const struct listener_settings *listener_of(
    const struct settings *s, const struct intake_address *a)
{
    for (unsigned i = 0; i < s->listener_count; i++) {
        const struct listener_settings *l = &s->listeners[i];
        for (unsigned j = 0; j < l->listen_count; j++) {
            bool same = ipaddr_eq(l->listen[j].ip, a->asked.ip) &&
                        l->listen[j].port == a->asked.port;
            bool same_place = strcmp(l->name, a->listener) == 0 && j == a->index;
            if (same && (a->asked.port != 0 || same_place))
                return l;
        }
    }
    return NULL;
}

/* A door that was just taken out of the settings keeps what it had until it closes. */
static void refresh(struct intake_door *d)
{
    struct intake *in = d->il->intake;
    unsigned now = atomic_load_explicit(&in->generation, memory_order_acquire);
    if (d->config && d->generation == now)
        return;
    struct intake_config *config = intake_config_now(in);
    const struct listener_settings *l = listener_of(config->settings, &d->address);
    if (!l) {
        intake_config_unref(config);
        return;
    }
    intake_config_unref(d->config);
    d->config = config;
    d->generation = now;
    d->listener = l;
    d->service = intake_service(in, l->name);
}

static void knock(int fd, struct netaddr peer, void *ctx)
{
    struct intake_door *d = ctx;
    refresh(d);
    if (d->config)
        session_accept(d, fd, peer);
    else
        close(fd);
}

static void open_door(struct intake_loop *il, const struct intake_address *a, int fd)
{
    struct intake_door *d = mem_zalloc(sizeof(*d));
    d->il = il;
    d->address = *a;
    d->address.listener = mem_strdup(slice_str(a->listener));
    d->acceptor = acceptor_new(il->loop, fd, knock, d);
    LIST_INSERT_HEAD(&il->doors, d, link);
    refresh(d);
}

static void free_door(struct intake_door *d)
{
    LIST_REMOVE(d, link);
    intake_config_unref(d->config);
    free((void *)(uintptr_t)d->address.listener);
    free(d);
}

static void close_door(struct intake_door *d)
{
    acceptor_drain(d->acceptor); /* whoever waits in the queue is let in, or told */
    free_door(d);
}

/* --- orders of the main thread to a loop --- */

enum order_kind { ORDER_OPEN, ORDER_CLOSE, ORDER_DRAIN };
struct order {
    struct mail mail;
    struct intake_loop *il;
    enum order_kind kind;
    struct intake_address address;
    int fd;
};

static bool same_bound(const struct intake_address *a, const struct intake_address *b)
{
    return ipaddr_eq(a->bound.ip, b->bound.ip) && a->bound.port == b->bound.port;
}

static void close_doors_at(struct intake_loop *il, const struct intake_address *a)
{
    struct intake_door *d = LIST_FIRST(&il->doors);
    while (d) {
        struct intake_door *next = LIST_NEXT(d, link);
        if (same_bound(&d->address, a))
            close_door(d);
        d = next;
    }
}

static void drain_loop(struct intake_loop *il)
{
    il->draining = true;
    while (!LIST_EMPTY(&il->doors))
        close_door(LIST_FIRST(&il->doors));
    struct session *s = session_first(il);
    while (s) {
        struct session *next = session_next(s);
        session_shut_down(s);
        s = next;
    }
}

static void obey(struct mail *mail, void *owner)
{
    struct order *o = CONTAINER_OF(mail, struct order, mail);
    (void)owner;
    if (o->kind == ORDER_OPEN)
        open_door(o->il, &o->address, o->fd);
    else if (o->kind == ORDER_CLOSE)
        close_doors_at(o->il, &o->address);
    else
        drain_loop(o->il);
    free((void *)(uintptr_t)o->address.listener);
    free(o);
}

static void give_order(
    struct intake_loop *il, enum order_kind kind, const struct intake_address *a, int fd)
{
    struct order *o = mem_zalloc(sizeof(*o));
    *o = (struct order){.il = il, .kind = kind, .fd = fd};
    if (a) {
        o->address = *a;
        o->address.listener = mem_strdup(slice_str(a->listener));
    }
    mailbox_post(loop_mailbox(il->loop), &o->mail, obey);
}

/* --- addresses; main thread --- */

/* Sockets that were bound for new settings and are not given to the loops yet. */
struct opening {
    struct intake_address *addresses;
    int *fds; /* loop_count each */
    unsigned count;
};

static void opening_fini(struct intake *in, struct opening *o, bool close_fds)
{
    for (unsigned i = 0; close_fds && i < o->count * in->deps.loop_count; i++)
        close(o->fds[i]);
    free(o->addresses);
    free(o->fds);
}

static struct intake_address *find_address(
    struct intake *in, const struct listener_settings *l, unsigned index)
{
    for (unsigned i = 0; i < in->address_count; i++) {
        struct intake_address *a = &in->addresses[i];
        bool same = ipaddr_eq(a->asked.ip, l->listen[index].ip) &&
                    a->asked.port == l->listen[index].port;
        bool same_place = strcmp(a->listener, l->name) == 0 && a->index == index;
        if (same && (a->asked.port != 0 || same_place))
            return a;
    }
    return NULL;
}

static bool open_one(struct intake *in, struct settings *s,
    const struct listener_settings *l, unsigned index, struct opening *o,
    struct settings_problems *problems)
{
    char why[300];
    struct intake_address a = {
        .asked = l->listen[index], .listener = l->name, .index = index};
    unsigned loops = in->deps.loop_count;
    o->fds = mem_realloc(o->fds, (o->count + 1) * loops * sizeof(*o->fds));
    o->addresses = mem_realloc(o->addresses, (o->count + 1) * sizeof(a));
    if (listen_open(a.asked, loops, o->fds + o->count * loops, &a.bound, why,
            sizeof(why)) != ERR_OK) {
        settings_problem(problems, s->file, l->line, "listeners", "%s", why);
        return false;
    }
    o->addresses[o->count++] = a;
    return true;
}

/* Binds every address that is not open yet. */
static bool open_new(struct intake *in, struct settings *s, struct opening *o,
    struct settings_problems *problems)
{
    bool good = true;
    *o = (struct opening){0};
    for (unsigned i = 0; i < s->listener_count; i++)
        for (unsigned j = 0; j < s->listeners[i].listen_count; j++)
            if (!find_address(in, &s->listeners[i], j) &&
                !open_one(in, s, &s->listeners[i], j, o, problems))
                good = false;
    if (!good)
        opening_fini(in, o, true);
    return good;
}

static void log_listening(const struct intake_address *a)
{
    char text[NETADDR_TEXT_MAX];
    struct record r;
    netaddr_format(a->bound, text);
    record_init(&r, LOG_EV_LISTENING);
    record_str(&r, "listener", a->listener);
    record_str(&r, "address", text);
    record_emit(&r);
}

static void keep_address(struct intake *in, const struct intake_address *a)
{
    in->addresses =
        mem_realloc(in->addresses, (in->address_count + 1) * sizeof(*in->addresses));
    in->addresses[in->address_count] = *a;
    in->addresses[in->address_count].listener = mem_strdup(slice_str(a->listener));
    in->address_count++;
    log_listening(a);
}

static void drop_address(struct intake *in, unsigned index)
{
    free((void *)(uintptr_t)in->addresses[index].listener);
    in->addresses[index] = in->addresses[--in->address_count];
}

/* Closes the addresses that `s` no longer names. */
static void close_old(struct intake *in, const struct settings *s)
{
    for (unsigned i = in->address_count; i-- > 0;) {
        if (listener_of(s, &in->addresses[i]))
            continue;
        for (unsigned j = 0; j < in->deps.loop_count; j++)
            give_order(&in->loops[j], ORDER_CLOSE, &in->addresses[i], -1);
        drop_address(in, i);
    }
}

/* --- life --- */

static void copy_deps(struct intake *in, const struct intake_deps *deps)
{
    in->deps = *deps;
    in->memory.hot = deps->hot;
    in->loops = mem_zalloc(deps->loop_count * sizeof(*in->loops));
    for (unsigned i = 0; i < deps->loop_count; i++) {
        struct intake_loop *il = &in->loops[i];
        il->intake = in;
        il->loop = deps->loops[i];
        il->conns = deps->conns[i];
        il->index = i;
        il->domain_key = random_u64();
        pace_init(&il->pace, il->loop, &in->memory);
        LIST_INIT(&il->sessions);
        LIST_INIT(&il->doors);
    }
    in->deps.loops = NULL; /* borrowed for the call only */
    in->deps.conns = NULL;
}

static struct intake *make(const struct intake_deps *deps, struct intake_config *config)
{
    struct intake *in = mem_zalloc(sizeof(*in));
    copy_deps(in, deps);
    in->clients = clients_new(INTAKE_CLIENTS_REMEMBERED);
    in->verified = verify_memory_new(VERIFIED_REMEMBERED);
    in->repeats = repeats_new(REPEATS_MAX);
    in->granted = granted_new();
    for (unsigned i = 0; i < INTAKE_LANES; i++) {
        pthread_mutex_init(&in->ids[i].lock, NULL);
        msg_id_source_init(&in->ids[i].source, deps->node, deps->epoch, i);
    }
    pthread_mutex_init(&in->lock, NULL);
    LIST_INIT(&in->services);
    in->config = config;
    return in;
}

static void log_warning(const struct intake_config *c)
{
    if (!*c->warning)
        return;
    struct record r;
    record_init(&r, LOG_EV_CONFIG);
    r.level = LOG_WARN;
    record_str(&r, "text", c->warning);
    record_emit(&r);
}

struct intake *intake_new(const struct intake_deps *deps, struct settings *s,
    struct settings_problems *problems)
{
    struct opening o;
    struct intake_config *config = intake_config_new(s, problems);
    if (!config)
        return NULL;
    log_warning(config);
    struct intake *in = make(deps, config);
    if (!open_new(in, s, &o, problems)) {
        intake_free(in);
        return NULL;
    }
    for (unsigned i = 0; i < o.count; i++) {
        keep_address(in, &o.addresses[i]);
        /* The loops do not run yet: nobody else is in them. */
        for (unsigned j = 0; j < deps->loop_count; j++)
            open_door(&in->loops[j], &o.addresses[i], o.fds[i * deps->loop_count + j]);
    }
    opening_fini(in, &o, false);
    return in;
}

bool intake_reload(
    struct intake *in, struct settings *s, struct settings_problems *problems)
{
    struct opening o;
    struct intake_config *config = intake_config_new(s, problems);
    if (!config)
        return false;
    if (!open_new(in, s, &o, problems)) {
        intake_config_unref(config);
        return false;
    }
    log_warning(config);
    pthread_mutex_lock(&in->lock);
    struct intake_config *old = in->config;
    in->config = config;
    atomic_fetch_add_explicit(&in->generation, 1, memory_order_release);
    pthread_mutex_unlock(&in->lock);
    intake_config_unref(old);
    close_old(in, s);
    for (unsigned i = 0; i < o.count; i++) {
        keep_address(in, &o.addresses[i]);
        for (unsigned j = 0; j < in->deps.loop_count; j++)
            give_order(&in->loops[j], ORDER_OPEN, &o.addresses[i],
                o.fds[i * in->deps.loop_count + j]);
    }
    opening_fini(in, &o, false);
    return true;
}

void intake_drain(struct intake *in)
{
    for (unsigned i = 0; i < in->deps.loop_count; i++)
        give_order(&in->loops[i], ORDER_DRAIN, NULL, -1);
}

unsigned intake_sessions(const struct intake *in)
{
    unsigned count = 0;
    for (unsigned i = 0; i < in->deps.loop_count; i++)
        count += atomic_load_explicit(&in->loops[i].load, memory_order_relaxed);
    return count;
}

static void end_loop(struct intake_loop *il)
{
    struct session *s;
    mailbox_drain(loop_mailbox(il->loop));
    while (!LIST_EMPTY(&il->doors)) {
        struct intake_door *d = LIST_FIRST(&il->doors);
        acceptor_free(d->acceptor);
        free_door(d);
    }
    while ((s = session_first(il)))
        session_kill(s);
    pace_fini(&il->pace);
    verifier_free(il->verifier);
    il->verifier = NULL;
}

static void free_tables(struct intake *in)
{
    struct intake_service *service;
    while ((service = LIST_FIRST(&in->services))) {
        LIST_REMOVE(service, link);
        free(service);
    }
    while (in->address_count)
        drop_address(in, in->address_count - 1);
    free(in->addresses);
    intake_config_unref(in->config);
    for (unsigned i = 0; i < INTAKE_LANES; i++)
        pthread_mutex_destroy(&in->ids[i].lock);
    pthread_mutex_destroy(&in->lock);
    clients_free(in->clients);
    verify_memory_free(in->verified);
    repeats_free(in->repeats);
    granted_free(in->granted);
}

void intake_free(struct intake *in)
{
    if (!in)
        return;
    for (unsigned i = 0; i < in->deps.loop_count; i++)
        end_loop(&in->loops[i]);
    /* What the store or the resolver still holds will come back to these; then the
     * process ends with them. */
    bool awaited = intake_sessions(in) > 0;
    if (awaited)
        return;
    free_tables(in);
    free(in->loops);
    free(in);
}

unsigned intake_addresses(const struct intake *in, struct netaddr *out, unsigned max)
{
    for (unsigned i = 0; i < in->address_count && i < max; i++)
        out[i] = in->addresses[i].bound;
    return in->address_count;
}

void intake_taken(struct intake *in, const struct repeat_key *key, struct msg_id id)
{
    repeats_learn(in->repeats, key, id, mono_now());
}

enum repeat intake_repeat_asked(struct intake *in, const struct repeat_key *key,
    struct msg_id id, struct msg_id *as_out)
{
    struct intake_config *config = intake_config_now(in);
    int64_t window_ms = config->settings->limits.repeat_window_ms;
    intake_config_unref(config);
    return repeats_asked(in->repeats, key, id, mono_now(), window_ms, as_out);
}

void intake_repeat_told(
    struct intake *in, const struct repeat_key *key, struct msg_id id, bool accepted)
{
    repeats_told(in->repeats, key, id, accepted, mono_now());
}

struct wall intake_certificate_expires(struct intake *in)
{
    struct wall never = {0};
    struct intake_config *c = intake_config_now(in);
    struct wall end = c->tls ? tls_server_expires(c->tls) : never;
    intake_config_unref(c);
    return end;
}

void intake_grant(struct intake *in, const struct cidr *nets, unsigned net_count,
    const char *const *users, unsigned user_count)
{
    granted_set(in->granted, nets, net_count, users, user_count);
}

bool intake_is_relay_client(
    struct intake *in, const struct intake_config *config, struct ipaddr ip)
{
    return policy_is_relay_client(config->policy, ip) || granted_allows(in->granted, ip);
}
