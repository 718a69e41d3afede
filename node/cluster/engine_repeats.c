/* SPDX-License-Identifier: Apache-2.0 */
/* A client that never saw its 250 sends again, to any node (limits.repeat_window).
 *
 * Who knows: the first two members alive in the hash order of the key keep it for all.
 * The node that has the whole message asks the first one before it takes it, and tells
 * both what became of it. No answer within REPEAT_WAIT_MS: it is taken as new, for a
 * duplicate is better than a delay; and a node that keeps nothing yet, or keeps it
 * elsewhere because it sees other members, says new. Only "taken" is ever answered with
 * 250, and that is said by who committed all copies.
 *
 * A node that died before it could tell: what comes with a copy to recognise it by is
 * kept until it is sure that the message was taken: the unit is ours to deliver, or it is
 * done. Before, the owner may still say 451 and end it, and a repetition answered with
 * 250 would be lost. Then the heir tells the keepers. In memory only. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "node/cluster/copy_internal.h"

#define KEYS_MAX 65536u
#define ASKED_MAX 8192u
#define REPEAT_WAIT_MS 200

_Static_assert(MSG_REPEAT_KEY == REPEAT_KEY_BYTES, "the key fits the frame");

struct repeat_out {
    struct table_node by_number;
    struct rights_repeat *asked;
    struct mono until;
};

/* --- who keeps it --- */

static uint64_t weight_of(uint64_t node, const struct repeat_key *key)
{
    uint64_t x;
    memcpy(&x, key->bytes, sizeof(x));
    x = (x ^ node) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 29) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 32;
}

static bool may_keep(const struct engine_member *m)
{
    return (m->roles & ROLE_STORE) && (m->is_self || (m->session == 0 && m->view != 2));
}

/* 0: there is none. */
static void find_keepers(
    const struct engine *e, const struct repeat_key *key, uint64_t out[2])
{
    uint64_t weight[2] = {0, 0};
    out[0] = out[1] = 0;
    for (unsigned i = 0; i < e->status.member_count; i++) {
        const struct engine_member *m = &e->status.members[i];
        uint64_t w = weight_of(m->node, key);
        if (!may_keep(m) || w < weight[1])
            continue;
        bool is_first = w >= weight[0];
        weight[1] = is_first ? weight[0] : w;
        out[1] = is_first ? out[0] : m->node;
        if (is_first) {
            weight[0] = w;
            out[0] = m->node;
        }
    }
}

static bool send_frame(
    struct engine *e, uint64_t to, uint8_t kind, const struct msg_repeat *body)
{
    struct core_msg m = {.kind = kind};
    m.u.repeat = *body;
    return engine_tell(e, to, &m);
}

static struct msg_repeat body_of(const struct repeat_key *key, struct msg_id id)
{
    struct core_unit_id core_id = rows_core_id((struct unit_id){.msg = id});
    struct msg_repeat b = {.hi = core_id.hi, .lo = core_id.lo};
    memcpy(b.key, key->bytes, sizeof(b.key));
    return b;
}

static struct msg_id id_of(const struct msg_repeat *m)
{
    struct core_unit_id id = {.hi = m->hi, .lo = m->lo};
    return rows_unit_id(&id).msg;
}

/* What was not taken, only the first one was asked about. */
static void tell_keepers(
    struct engine *e, const struct repeat_key *key, struct msg_id id, bool accepted)
{
    uint64_t keeper[2];
    struct msg_repeat b = body_of(key, id);
    b.answer = accepted;
    find_keepers(e, key, keeper);
    for (unsigned i = 0; i < (accepted ? 2 : 1); i++)
        if (keeper[i] && keeper[i] != e->node)
            send_frame(e, keeper[i], MSG_REPEAT_TOLD, &b);
}

/* --- asking --- */

static void asked_back(struct mail *mail, void *owner)
{
    struct rights_repeat *q = CONTAINER_OF(mail, struct rights_repeat, mail);
    q->done(q, owner);
}

static void answer_asker(struct rights_repeat *q)
{
    mailbox_post(q->reply_to, &q->mail, asked_back);
}

static void out_end(struct engine *e, struct repeat_out *o)
{
    table_remove(&e->repeat_asked, &o->by_number);
    answer_asker(o->asked);
    free(o);
}

static void question_came(struct mail *mail, void *owner)
{
    struct rights_repeat *q = CONTAINER_OF(mail, struct rights_repeat, mail);
    struct engine *e = owner;
    uint64_t keeper[2];
    struct msg_repeat b = body_of(&q->key, q->id);
    engine_busy(e);
    find_keepers(e, &q->key, keeper);
    b.number = ++e->repeat_number;
    /* Ourselves: the asker has looked. */
    if (keeper[0] == 0 || keeper[0] == e->node || e->is_stopping ||
        e->repeat_asked.count >= ASKED_MAX ||
        !send_frame(e, keeper[0], MSG_REPEAT_ASK, &b)) {
        answer_asker(q);
        return;
    }
    struct repeat_out *o = mem_zalloc(sizeof(*o));
    o->asked = q;
    o->until = mono_add_ms(mono_now(), REPEAT_WAIT_MS);
    table_add(&e->repeat_asked, &o->by_number, table_number_key(b.number));
}

void engine_repeat_posted(void *ctx, struct rights_repeat *q)
{
    struct engine *e = ctx;
    mailbox_post(e->box, &q->mail, question_came);
}

struct told_note {
    struct mail mail;
    struct repeat_key key;
    struct msg_id id;
    bool accepted;
};

static void told_came(struct mail *mail, void *owner)
{
    struct told_note *n = CONTAINER_OF(mail, struct told_note, mail);
    struct engine *e = owner;
    engine_busy(e);
    tell_keepers(e, &n->key, n->id, n->accepted);
    free(n);
}

void engine_repeat_told_posted(
    void *ctx, const struct repeat_key *key, struct msg_id id, bool accepted)
{
    struct engine *e = ctx;
    struct told_note *n = mem_zalloc(sizeof(*n));
    n->key = *key;
    n->id = id;
    n->accepted = accepted;
    mailbox_post(e->box, &n->mail, told_came);
}

static void answer_came(struct engine *e, const struct msg_repeat *m)
{
    struct table_node *n = table_find(&e->repeat_asked, table_number_key(m->number));
    struct repeat_out *o = n ? CONTAINER_OF(n, struct repeat_out, by_number) : NULL;
    if (!o || memcmp(o->asked->key.bytes, m->key, sizeof(m->key)) != 0)
        return;
    o->asked->found = (enum rights_repeat_found)m->answer;
    o->asked->as = id_of(m);
    out_end(e, o);
}

/* --- being asked --- */

static void ask_came(struct engine *e, uint64_t node, const struct msg_repeat *m)
{
    struct repeat_key key;
    struct msg_id as = id_of(m);
    struct msg_repeat b = *m;
    memcpy(key.bytes, m->key, sizeof(key.bytes));
    b.answer = RIGHTS_REPEAT_NEW;
    if (e->deps.events->repeat_asked)
        b.answer =
            (uint8_t)e->deps.events->repeat_asked(e->deps.ctx, &key, id_of(m), &as);
    struct core_unit_id id = rows_core_id((struct unit_id){.msg = as});
    b.hi = id.hi;
    b.lo = id.lo;
    send_frame(e, node, MSG_REPEAT_ANSWER, &b);
}

void engine_repeat_frame(struct engine *e, uint64_t node, const struct core_msg *msg)
{
    const struct msg_repeat *m = &msg->u.repeat;
    struct repeat_key key;
    memcpy(key.bytes, m->key, sizeof(key.bytes));
    if (msg->env.to != e->node || msg->env.from != node)
        return;
    if (msg->kind == MSG_REPEAT_ASK)
        ask_came(e, node, m);
    else if (msg->kind == MSG_REPEAT_ANSWER)
        answer_came(e, m);
    else if (e->deps.events->repeat_told)
        e->deps.events->repeat_told(e->deps.ctx, &key, id_of(m), m->answer == 1);
}

void engine_repeat_tick(struct engine *e)
{
    struct mono now = mono_now();
    for (uint32_t i = 0; i <= e->repeat_asked.mask && e->repeat_asked.count; i++)
        for (struct table_node *n = e->repeat_asked.bucket[i], *next; n; n = next) {
            struct repeat_out *o = CONTAINER_OF(n, struct repeat_out, by_number);
            next = n->next;
            if (o->until.ns <= now.ns || e->is_stopping)
                out_end(e, o);
        }
}

void engine_repeat_end(struct engine *e)
{
    struct table_node *n;
    while ((n = table_any(&e->repeat_asked)))
        out_end(e, CONTAINER_OF(n, struct repeat_out, by_number));
}

/* --- what came with copies --- */

struct kept_key {
    struct table_node by_unit;
    struct repeat_key key;
};

static struct kept_key *find(const struct engine *e, const struct core_unit_id *id)
{
    struct table_node *n = table_find(&e->repeats, table_unit_key(id));
    return n ? CONTAINER_OF(n, struct kept_key, by_unit) : NULL;
}

static void drop(struct engine *e, struct kept_key *k)
{
    table_remove(&e->repeats, &k->by_unit);
    free(k);
}

void engine_repeat_keep(
    struct engine *e, const struct core_unit_id *id, const struct repeat_key *key)
{
    if (!e->deps.events->taken || !repeat_key_given(key) || find(e, id) ||
        e->repeats.count >= KEYS_MAX)
        return;
    struct kept_key *k = mem_zalloc(sizeof(*k));
    k->key = *key;
    table_add(&e->repeats, &k->by_unit, table_unit_key(id));
}

void engine_repeat_sure(struct engine *e, const struct core_unit_id *id, bool is_heir)
{
    struct kept_key *k = find(e, id);
    if (!k)
        return;
    e->deps.events->taken(e->deps.ctx, &k->key, rows_unit_id(id).msg);
    if (is_heir)
        tell_keepers(e, &k->key, rows_unit_id(id).msg, true);
    drop(e, k);
}

void engine_repeat_drop(struct engine *e, const struct core_unit_id *id)
{
    struct kept_key *k = find(e, id);
    if (k)
        drop(e, k);
}

void engine_repeat_fini(struct engine *e)
{
    struct table_node *n;
    engine_repeat_end(e);
    table_fini(&e->repeat_asked);
    while ((n = table_any(&e->repeats)))
        drop(e, CONTAINER_OF(n, struct kept_key, by_unit));
    table_fini(&e->repeats);
}
