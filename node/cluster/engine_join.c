/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens and those who come with one. A token is an invitation: a key pair whose public
 * half is kept here, durable, for one joining and until it expires. Whoever holds it may
 * speak as a guest and ask one thing: to become a member. A name that is taken by a node
 * whose session is closed is replaced, in two steps: a new disk under an old name. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"
#include "node/cluster/members_internal.h"

#define INVITES_META "cluster.invites"
#define INVITE_BYTES (TRANSPORT_KEY_BYTES + 8 + 8)
#define JOIN_BYTES (2 + 16 + 8 + 32 + 18 + 30 + 3)
#define JOIN_TOKEN UINT64_C(0x4a00000000000000) /* of our EV_ADMINs */

/* --- the list, durable --- */

struct invites_op {
    struct store_meta meta;
    unsigned char bytes[ENGINE_INVITES * INVITE_BYTES];
};

static void put_u64(unsigned char *at, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        at[i] = (unsigned char)(v >> (56 - 8 * i));
}

static uint64_t get_u64(const unsigned char *at)
{
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v = v << 8 | at[i];
    return v;
}

static void invites_stored(struct store_op *op, void *owner)
{
    struct invites_op *o =
        CONTAINER_OF(CONTAINER_OF(op, struct store_meta, op), struct invites_op, meta);
    struct engine *e = owner;
    e->jobs--;
    free(o);
}

static void invites_store(struct engine *e)
{
    struct invites_op *o = mem_zalloc(sizeof(*o));
    for (unsigned i = 0; i < e->invite_count; i++) {
        unsigned char *at = o->bytes + i * INVITE_BYTES;
        memcpy(at, e->invite[i].key, TRANSPORT_KEY_BYTES);
        put_u64(at + TRANSPORT_KEY_BYTES, (uint64_t)e->invite[i].until.ms);
        put_u64(at + TRANSPORT_KEY_BYTES + 8, e->invite[i].joined);
    }
    o->meta.name = INVITES_META;
    o->meta.value = slice_make(o->bytes, e->invite_count * INVITE_BYTES);
    o->meta.op.kind = STORE_OP_META;
    o->meta.op.reply_to = e->box;
    o->meta.op.done = invites_stored;
    e->jobs++;
    store_submit(e->deps.store, &o->meta.op);
}

static void invite_open(struct engine *e, const struct engine_invite *i)
{
    int64_t left = i->until.ms - wall_now().ms;
    if (left > 0)
        transport_invite(e->transport, i->key, mono_add_ms(mono_now(), left));
}

void engine_invites_load(struct engine *e)
{
    char bytes[ENGINE_INVITES * INVITE_BYTES];
    size_t len = 0;
    if (store_read_meta(e->deps.store, INVITES_META, bytes, sizeof(bytes), &len) !=
        ERR_OK)
        return;
    e->invite_count = (unsigned)(len / INVITE_BYTES);
    for (unsigned i = 0; i < e->invite_count; i++) {
        const unsigned char *at = (unsigned char *)bytes + i * INVITE_BYTES;
        memcpy(e->invite[i].key, at, TRANSPORT_KEY_BYTES);
        e->invite[i].until.ms = (int64_t)get_u64(at + TRANSPORT_KEY_BYTES);
        e->invite[i].joined = get_u64(at + TRANSPORT_KEY_BYTES + 8);
        if (!e->invite[i].joined || !members_find(e, e->invite[i].joined))
            invite_open(e, &e->invite[i]);
    }
}

static void invite_remove(struct engine *e, unsigned i)
{
    transport_uninvite(e->transport, e->invite[i].key);
    e->invite[i] = e->invite[--e->invite_count];
}

void engine_invites_tick(struct engine *e)
{
    bool changed = false;
    for (unsigned i = e->invite_count; i-- > 0;)
        if (e->invite[i].until.ms < wall_now().ms) {
            invite_remove(e, i);
            changed = true;
        }
    if (changed && !e->is_stopping)
        invites_store(e);
}

/* --- the token --- */

static void add_host(struct engine *e, struct token *t, uint64_t node)
{
    const struct core_member *m = members_find(e, node);
    struct transport_peer *h = &t->hosts[t->host_count];
    if (!m || t->host_count == TOKEN_HOSTS_MAX)
        return;
    h->node = node;
    memcpy(h->key, m->ident.key, sizeof(h->key));
    h->address = ident_address(&m->ident);
    t->host_count++;
}

bool engine_invite_make(struct engine *e, int64_t for_ms, char out[TOKEN_TEXT_MAX],
    char *why, size_t why_size)
{
    struct token t = {.expires = {wall_now().ms + for_ms}};
    if (e->invite_count == ENGINE_INVITES) {
        snprintf(why, why_size, "%u tokens are open already: wait until one has expired",
            ENGINE_INVITES);
        return false;
    }
    memcpy(t.cluster_id, e->identity.id, sizeof(t.cluster_id));
    snprintf(t.cluster, sizeof(t.cluster), "%.31s", e->identity.name);
    transport_keys_make(&t.invitation);
    /* Only we know the invitation; the others would refuse the guest. */
    add_host(e, &t, e->node);
    struct engine_invite *i = &e->invite[e->invite_count++];
    memset(i, 0, sizeof(*i));
    memcpy(i->key, t.invitation.public_key, sizeof(i->key));
    i->until = t.expires;
    invite_open(e, i);
    invites_store(e);
    token_encode(&t, out);
    token_wipe(&t);
    return true;
}

/* --- the guest --- */

static bool join_parse(struct engine *e, struct slice frame, struct cfg_change *out)
{
    const unsigned char *f = (const unsigned char *)frame.ptr;
    memset(out, 0, sizeof(*out));
    if (frame.len < JOIN_BYTES || f[0] != FRAME_JOIN || f[1] != 1 ||
        memcmp(f + 2, e->identity.id, 16) != 0)
        return false;
    out->op = CFG_ADD;
    out->node = get_u64(f + 18);
    memcpy(out->ident.key, f + 26, 32);
    memcpy(out->ident.address, f + 58, 18);
    memcpy(out->ident.name, f + 76, 30);
    out->roles = f[106] & (ROLE_STORE | ROLE_EGRESS);
    out->zone = f[107];
    out->weight = f[108];
    struct netaddr at = ident_address(&out->ident);
    size_t len = strnlen(out->ident.name, sizeof(out->ident.name));
    for (size_t i = 0; i < len; i++)
        if (!ascii_is_alnum(out->ident.name[i]) && !strchr("-_.", out->ident.name[i]))
            return false;
    for (size_t i = len; i < sizeof(out->ident.name); i++)
        out->ident.name[i] = '\0';
    return out->node != 0 && len > 0 && len < sizeof(out->ident.name) && at.port != 0 &&
           !ipaddr_is_unspecified(at.ip) && out->weight >= 1 && out->weight <= 16;
}

static const struct core_member *same_name(
    const struct engine *e, const struct cfg_change *c)
{
    for (unsigned i = 0; i < e->cfg.count; i++)
        if (memcmp(e->cfg.member[i].ident.name, c->ident.name, sizeof(c->ident.name)) ==
            0)
            return &e->cfg.member[i];
    return NULL;
}

static bool is_closed(struct engine *e, uint64_t node)
{
    struct core_counts *counts = mem_zalloc(sizeof(*counts));
    bool closed = false;
    core_counts(e->core, counts);
    for (unsigned i = 0; i < counts->member_count; i++)
        if (counts->member[i].node == node)
            closed = counts->member[i].session == 2;
    free(counts);
    return closed;
}

static void propose(struct engine *e, const struct cfg_change *change)
{
    struct core_event event = {.kind = EV_ADMIN};
    event.u.admin.op = ADMIN_CHANGE;
    event.u.admin.token = JOIN_TOKEN;
    event.u.admin.node = change->node;
    event.u.admin.change = *change;
    e->join_until = mono_add_ms(mono_now(), 15000);
    engine_step(e, &event);
}

static void join(struct engine *e, struct engine_invite *i, const struct cfg_change *c)
{
    const struct core_member *old = same_name(e, c);
    if (old && !is_closed(e, old->node)) {
        log_say(LOG_EV_CLUSTER_PROBLEM,
            "a new node asks to join as %.30s, but the member of that name has an open "
            "session; stop that one first, or give the new one another name",
            c->ident.name);
        e->join_until = mono_add_ms(mono_now(), 15000);
        return;
    }
    if (i->joined == 0) {
        i->joined = c->node; /* from now on for this node alone */
        invites_store(e);
    }
    if (old) {
        struct cfg_change remove = {.op = CFG_REMOVE, .node = old->node};
        log_say(
            LOG_EV_CLUSTER, "%.30s has a new disk: its old entry goes", c->ident.name);
        propose(e, &remove);
        e->join_until = (struct mono){0}; /* it asks again, and is added then */
        return;
    }
    log_say(LOG_EV_CLUSTER, "%.30s joins", c->ident.name);
    propose(e, c);
}

void engine_guest(struct engine *e, const unsigned char *key, struct slice frame)
{
    struct cfg_change change;
    struct engine_invite *i = e->invite;
    while (i < e->invite + e->invite_count && memcmp(i->key, key, sizeof(i->key)) != 0)
        i++;
    if (i == e->invite + e->invite_count || i->until.ms < wall_now().ms ||
        !join_parse(e, frame, &change))
        return;
    if ((i->joined && i->joined != change.node) || members_find(e, change.node) ||
        mono_now().ns < e->join_until.ns)
        return; /* used up, there already, or on its way */
    join(e, i, &change);
}

bool engine_join_done(struct engine *e, const struct core_command *c)
{
    if (c->u.admin.token != JOIN_TOKEN)
        return false;
    e->join_until = (struct mono){0};
    if (c->u.admin.result != ADMIN_OK)
        log_say(LOG_EV_CLUSTER_PROBLEM, "the new member was not taken: %s",
            c->u.admin.why ? c->u.admin.why : "not decided in time");
    return true;
}
