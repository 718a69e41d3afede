/* SPDX-License-Identifier: Apache-2.0 */
/* Who the members are to the transport: keys and addresses from the configuration; hello
 * frames, by which members tell each other where they are now and what they run; and
 * joining: one who holds a token asks as a guest, whoever gave the token proposes it. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/random.h"
#include "node/cluster/copy_internal.h"
#include "node/cluster/members_internal.h"

#define HELLO_MS 10000
#define JOIN_MS 2000
/* Members that have all moved change the configuration one after the other: whoever comes
 * in between tries again, not all at the same time. */
#define IDENT_MS 2000
#define HELLO_VERSION 1

/* --- peers --- */

struct engine_peer *engine_peer(struct engine *e, uint64_t node)
{
    for (unsigned i = 0; i < e->peer_count; i++)
        if (e->peer[i].node == node)
            return &e->peer[i];
    return NULL;
}

static struct engine_peer *peer_add(struct engine *e, uint64_t node)
{
    struct engine_peer *p = engine_peer(e, node);
    if (p || e->peer_count == ENGINE_PEERS)
        return p;
    p = &e->peer[e->peer_count++];
    *p = (struct engine_peer){.node = node};
    return p;
}

static void queue_end(struct engine *e, struct copy_queue *q)
{
    while (q->first)
        copy_drop(e, q->first);
}

static void queue_moved(struct copy_queue *q)
{
    for (struct copy_out *c = q->first; c; c = c->next)
        c->queue = q;
}

static void peer_remove(struct engine *e, struct engine_peer *p)
{
    queue_end(e, &p->ready);
    queue_end(e, &p->unread);
    transport_remove_peer(e->transport, p->node);
    *p = e->peer[--e->peer_count];
    queue_moved(&p->ready);
    queue_moved(&p->unread);
}

/* --- identities --- */

void ident_put_address(struct core_ident *out, struct netaddr a)
{
    memset(out->address, 0, sizeof(out->address));
    if (a.ip.family == 4) {
        out->address[10] = out->address[11] = 0xff;
        memcpy(out->address + 12, a.ip.bytes, 4);
    } else {
        memcpy(out->address, a.ip.bytes, 16);
    }
    out->address[16] = (uint8_t)(a.port >> 8);
    out->address[17] = (uint8_t)a.port;
}

struct netaddr ident_address(const struct core_ident *i)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    struct netaddr a = {.port = (uint16_t)(i->address[16] << 8 | i->address[17])};
    if (memcmp(i->address, mapped, sizeof(mapped)) == 0) {
        a.ip.family = 4;
        memcpy(a.ip.bytes, i->address + 12, 4);
    } else {
        a.ip.family = 6;
        memcpy(a.ip.bytes, i->address, 16);
    }
    return a;
}

struct netaddr members_own_address(const struct engine *e)
{
    struct netaddr a = e->settings->cluster.advertise;
    if (a.ip.family == 0)
        a = e->settings->cluster.listen;
    if (a.port == 0)
        a.port = transport_address(e->transport).port;
    return a;
}

/* Zones are compared, never shown: a number of the name will do. */
static uint8_t zone_number(const char *name)
{
    return name[0] ? (uint8_t)(crc32c(0, name, strlen(name)) % 255 + 1) : 0;
}

void members_self(const struct engine *e, struct cfg_change *out)
{
    const struct settings *s = e->settings;
    memset(out, 0, sizeof(*out));
    out->node = e->node;
    out->zone = zone_number(s->cluster.zone);
    out->weight = (uint8_t)s->cluster.weight;
    out->roles =
        strcmp(s->cluster.role, "witness") == 0 ? 0 : (uint8_t)(ROLE_STORE | ROLE_EGRESS);
    memcpy(out->ident.key, e->keys.public_key, sizeof(out->ident.key));
    ident_put_address(&out->ident, members_own_address(e));
    snprintf(out->ident.name, sizeof(out->ident.name), "%.29s", settings_node_name(s));
}

const struct core_member *members_find(const struct engine *e, uint64_t node)
{
    for (unsigned i = 0; i < e->cfg.count; i++)
        if (e->cfg.member[i].node == node)
            return &e->cfg.member[i];
    return NULL;
}

/* --- the configuration --- */

void members_connect(struct engine *e, struct engine_peer *p, struct netaddr address)
{
    struct transport_peer t = {.node = p->node, .address = address};
    memcpy(t.key, p->ident.key, sizeof(t.key));
    p->at = address;
    if (!transport_set_peer(e->transport, &t))
        log_say(LOG_EV_CLUSTER_PROBLEM,
            "member %.30s cannot be connected: too many members, or its key or port is "
            "another's",
            p->ident.name);
}

static void drop_strangers(struct engine *e)
{
    for (unsigned i = e->peer_count; i-- > 0;)
        if (!members_find(e, e->peer[i].node))
            peer_remove(e, &e->peer[i]);
}

struct birth_job {
    struct job job;
    struct engine *engine;
    struct settings *settings;
    struct birth birth;
    bool ok;
    char why[512];
};

static void write_birth(struct job *job)
{
    struct birth_job *b = CONTAINER_OF(job, struct birth_job, job);
    b->ok = birth_done(b->settings, &b->birth, b->why, sizeof(b->why));
}

static void birth_written(struct mail *mail, void *owner)
{
    struct birth_job *b = CONTAINER_OF(mail, struct birth_job, job.mail);
    struct engine *e = owner;
    e->jobs--;
    if (!b->ok)
        log_say(LOG_EV_CLUSTER_PROBLEM, "%s", b->why);
    settings_unref(b->settings);
    free(b);
}

static void tell_birth(struct engine *e)
{
    struct birth_job *b = mem_zalloc(sizeof(*b));
    b->settings = settings_ref(e->settings);
    b->birth = e->birth;
    b->job = (struct job){.run = write_birth, .done = birth_written, .reply_to = e->box};
    if (!workers_submit(e->deps.helpers, &b->job)) {
        settings_unref(b->settings);
        free(b);
        return;
    }
    e->jobs++;
    e->is_member = true;
}

static void log_cfg(const struct engine *e, const struct core_cfg *cfg)
{
    struct record r;
    struct buf voters;
    buf_init(&voters, 400);
    for (unsigned i = 0; i < cfg->count; i++)
        if (cfg->member[i].roles & ROLE_VOTER)
            buf_printf(&voters, "%s%.30s", buf_len(&voters) ? " " : "",
                cfg->member[i].ident.name);
    record_init(&r, LOG_EV_CLUSTER);
    record_printf(&r, "text", "configuration %llu of %s", (unsigned long long)cfg->ver,
        e->identity.name);
    record_int(&r, "members", cfg->count);
    record_slice(&r, "voters", buf_slice(&voters));
    record_int(&r, "copies", cfg->copies);
    record_int(&r, "min_copies", cfg->min_copies);
    record_str(&r, "mode", cfg->mode == MODE_STATIC ? "static" : "quorum");
    record_emit(&r);
    buf_fini(&voters);
}

static void log_change(const struct core_ident *now)
{
    char text[NETADDR_TEXT_MAX];
    netaddr_format(ident_address(now), text);
    log_say(
        LOG_EV_CLUSTER, "member %.30s is at %s by the configuration", now->name, text);
}

void engine_members_cfg(struct engine *e, const struct core_cfg *cfg)
{
    if (!members_find(e, e->node)) {
        log_say(
            LOG_EV_CLUSTER_PROBLEM, "this node is not a member of the cluster any more");
        return;
    }
    drop_strangers(e);
    for (unsigned i = 0; i < cfg->count; i++) {
        const struct core_member *m = &cfg->member[i];
        struct engine_peer *p = m->node == e->node ? NULL : peer_add(e, m->node);
        if (!p)
            continue;
        bool same = memcmp(&p->ident, &m->ident, sizeof(p->ident)) == 0;
        if (ident_address(&p->ident).port &&
            memcmp(p->ident.address, m->ident.address, sizeof(m->ident.address)) != 0)
            log_change(&m->ident);
        p->ident = m->ident;
        if (!same)
            members_connect(e, p, ident_address(&m->ident));
    }
    for (unsigned i = 0; i < e->invite_count; i++)
        if (e->invite[i].joined && members_find(e, e->invite[i].joined))
            transport_uninvite(e->transport, e->invite[i].key);
    e->wants_init = e->wants_join = false;
    token_wipe(&e->token);
    if (!e->is_member)
        tell_birth(e);
    log_cfg(e, cfg);
}

void engine_link(struct engine *e, uint64_t node, bool is_up)
{
    struct engine_peer *p = engine_peer(e, node);
    if (!p)
        return;
    p->is_linked = is_up;
    log_say(LOG_EV_CLUSTER, "connection to %.30s is %s", p->ident.name,
        is_up ? "up" : "lost");
    if (is_up)
        e->hello_at = (struct mono){0};
    else
        engine_seeds_lost(e, p);
}

/* --- hello --- */

/* Then the wall clock, and whether its node trusts it: not from older versions. */
#define HELLO_BYTES (2 + 18 + 8 + 16)
#define HELLO_WALL_BYTES (HELLO_BYTES + 8 + 1)

static void put_u64(unsigned char *at, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        at[i] = (unsigned char)(value >> (56 - 8 * i));
}

static uint64_t get_u64(const unsigned char *at)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | at[i];
    return value;
}

static void say_hello(struct engine *e)
{
    unsigned char frame[HELLO_WALL_BYTES] = {FRAME_HELLO, HELLO_VERSION};
    struct core_ident self;
    struct wall now = wall_now();
    ident_put_address(&self, members_own_address(e));
    memcpy(frame + 2, self.address, 18);
    put_u64(frame + 20, settings_cluster_hash(e->settings));
    snprintf((char *)frame + 28, 16, "%.15s", BATON_VERSION);
    put_u64(frame + HELLO_BYTES, (uint64_t)now.ms);
    frame[HELLO_BYTES + 8] = rights_clock_trusted(e->deps.rights, now);
    for (unsigned i = 0; i < e->peer_count; i++)
        transport_send(e->transport, e->peer[i].node, TRANSPORT_CONTROL,
            slice_make(frame, sizeof(frame)), slice_make("", 0));
    e->hello_at = mono_add_ms(mono_now(), HELLO_MS);
}

/* It proved who it is: if it has moved, go on there before the configuration says so,
 * which may need its answers. What it says again is no news: it may be reached elsewhere
 * because it cannot be reached there. */
static void hear_address(struct engine *e, struct engine_peer *p, struct netaddr now)
{
    struct netaddr before = p->said.port ? p->said : ident_address(&p->ident);
    if (now.port == 0 || ipaddr_is_unspecified(now.ip))
        return;
    p->said = now;
    if (now.port != before.port || !ipaddr_eq(now.ip, before.ip))
        members_connect(e, p, now);
}

void engine_hello(struct engine *e, struct engine_peer *p, struct slice frame)
{
    struct core_ident at;
    const unsigned char *f = (const unsigned char *)frame.ptr;
    if (!p || frame.len < HELLO_BYTES || f[1] < HELLO_VERSION)
        return; /* a later version may only add, behind this */
    memcpy(at.address, f + 2, 18);
    p->settings_hash = get_u64(f + 20);
    for (unsigned i = 0; i < sizeof(p->version); i++)
        p->version[i] = f[28 + i] > ' ' && f[28 + i] < 127 ? (char)f[28 + i] : '\0';
    p->version[sizeof(p->version) - 1] = '\0';
    hear_address(e, p, ident_address(&at));
    if (frame.len < HELLO_WALL_BYTES)
        return;
    p->wall_trusted = f[HELLO_BYTES + 8] == 1;
    p->wall_heard = mono_now();
    p->wall_ahead_ms =
        (int64_t)(get_u64(f + HELLO_BYTES) - (uint64_t)(mono_now().ns / NS_PER_MS));
    engine_wall_compare(e);
}

/* --- joining, the one who asks --- */

#define JOIN_BYTES (2 + 16 + 8 + 32 + 18 + 30 + 3)

static void ask_to_join(struct engine *e)
{
    unsigned char frame[JOIN_BYTES] = {FRAME_JOIN, 1};
    struct cfg_change self;
    members_self(e, &self);
    memcpy(frame + 2, e->identity.id, 16);
    for (int i = 0; i < 8; i++)
        frame[18 + i] = (unsigned char)(e->node >> (56 - 8 * i));
    memcpy(frame + 26, self.ident.key, 32);
    memcpy(frame + 58, self.ident.address, 18);
    memcpy(frame + 76, self.ident.name, 30);
    frame[106] = self.roles;
    frame[107] = self.zone;
    frame[108] = self.weight;
    /* Each time another host of the token, so that one that is down costs a turn. */
    const struct transport_peer *host =
        &e->token.hosts[e->join_turn++ % e->token.host_count];
    transport_send_as_guest(
        e->transport, &e->token.invitation, host, slice_make(frame, sizeof(frame)));
    e->join_at = mono_add_ms(mono_now(), JOIN_MS);
    if (e->join_turn % 15 == 1)
        log_say(LOG_EV_CLUSTER, "asking to join the cluster %s", e->identity.name);
}

/* --- our own entry --- */

/* Settings have changed since the configuration was written. */
static void keep_entry(struct engine *e)
{
    const struct core_member *m = members_find(e, e->node);
    struct cfg_change self;
    if (!m || mono_now().ns < e->ident_at.ns)
        return;
    e->ident_at = mono_add_ms(mono_now(), IDENT_MS + (int64_t)random_below(IDENT_MS));
    members_self(e, &self);
    if (m->zone == self.zone && m->weight == self.weight &&
        memcmp(&m->ident, &self.ident, sizeof(self.ident)) == 0)
        return;
    struct core_event event = {.kind = EV_ADMIN};
    event.u.admin.op = ADMIN_CHANGE;
    event.u.admin.node = e->node;
    event.u.admin.change = self;
    event.u.admin.change.op = CFG_IDENT;
    engine_step(e, &event);
}

void engine_members_tick(struct engine *e)
{
    struct mono now = mono_now();
    if (now.ns >= e->hello_at.ns)
        say_hello(e);
    if (e->wants_join && now.ns >= e->join_at.ns)
        ask_to_join(e);
    if (!e->is_stopping)
        keep_entry(e);
    engine_invites_tick(e);
}

/* --- life --- */

bool engine_members_open(struct engine *e, char *why, size_t why_size)
{
    char path[4200];
    snprintf(path, sizeof(path), "%s/cluster.key", e->settings->data_dir);
    return transport_keys_load(path, &e->keys, why, why_size);
}

static void found_cluster(struct engine *e)
{
    struct core_event event = {.kind = EV_ADMIN};
    event.u.admin.op = ADMIN_INIT;
    event.u.admin.node = e->node;
    members_self(e, &event.u.admin.change);
    event.u.admin.change.op = CFG_ADD;
    event.u.admin.change.roles |= ROLE_VOTER;
    event.u.admin.change.copies = (uint8_t)e->settings->cluster.copies;
    event.u.admin.change.min_copies = (uint8_t)e->settings->cluster.min_copies;
    engine_step(e, &event);
}

void engine_members_start(struct engine *e)
{
    if (e->cfg.count > 0) {
        struct core_cfg cfg = e->cfg;
        engine_members_cfg(e, &cfg);
    }
    for (unsigned i = 0; e->wants_join && i < e->token.host_count; i++) {
        struct engine_peer *p = peer_add(e, e->token.hosts[i].node);
        if (!p)
            continue;
        memcpy(p->ident.key, e->token.hosts[i].key, sizeof(p->ident.key));
        ident_put_address(&p->ident, e->token.hosts[i].address);
        snprintf(p->ident.name, sizeof(p->ident.name), "host %u of the token", i + 1);
        members_connect(e, p, e->token.hosts[i].address);
    }
    engine_invites_load(e);
    if (e->wants_init)
        found_cluster(e);
}

void engine_members_fini(struct engine *e)
{
    token_wipe(&e->token);
    memset(&e->keys, 0, sizeof(e->keys));
}
