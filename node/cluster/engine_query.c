/* SPDX-License-Identifier: Apache-2.0 */
/* Questions between nodes: a JSON object there, a JSON object back, in pieces on the
 * control lane. What does not come in time is an answer too: a node that hangs delays
 * nobody. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "node/cluster/engine_internal.h"

#define QUERY_VERSION 1
#define QUERY_BYTES_MAX (1u << 20)
#define PIECE_BYTES (64u << 10)
#define HEADER_BYTES 20u
#define TIMEOUT_MAX_MS 2000
#define ANSWERING_MAX 256u
#define ANSWERING_MS 5000
#define ASKED_MAX 256u

enum { QUERY_QUESTION = 1, QUERY_ANSWER };

/* Text that comes in pieces. */
struct gathering {
    char *bytes; /* `total` of them, once the first piece is here */
    uint32_t total, have;
};

struct query_out {
    struct table_node by_number;
    struct engine_query *q;
    struct mono since, until;
    unsigned open;
    struct gathering *parts; /* one an answer */
};

struct query_in {
    struct table_node by_token;
    uint64_t peer, number;
    struct gathering text;
    bool is_asked;
    struct mono until;
};

struct answer_mail {
    struct mail mail;
    uint64_t token;
    char *text; /* NULL: too large, or nothing */
    size_t len;
};

/* --- pieces --- */

static void put(unsigned char *at, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (unsigned char)(v >> (8 * (bytes - 1 - i)));
}

static uint64_t get(const unsigned char *at, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v = v << 8 | at[i];
    return v;
}

/* False: not all of it is on its way. */
static bool send_text(
    struct engine *e, uint64_t peer, int kind, uint64_t number, struct slice text)
{
    unsigned char head[HEADER_BYTES] = {
        FRAME_QUERY, QUERY_VERSION, (unsigned char)kind, 0};
    put(head + 4, number, 8);
    put(head + 12, text.len, 4);
    for (size_t at = 0; at < text.len; at += PIECE_BYTES) {
        put(head + 16, at, 4);
        if (!transport_send(e->transport, peer, TRANSPORT_CONTROL,
                slice_make(head, sizeof(head)),
                slice_head(slice_from(text, at), PIECE_BYTES)))
            return false;
    }
    return true;
}

/* True when all of it is here. A piece out of its turn is passed over. */
static bool add_piece(
    struct gathering *g, uint32_t total, uint32_t at, struct slice bytes)
{
    if (total == 0 || total > QUERY_BYTES_MAX || bytes.len == 0 || at != g->have ||
        bytes.len > total - at || (g->bytes && g->total != total))
        return false;
    if (!g->bytes)
        g->bytes = mem_alloc(total);
    g->total = total;
    memcpy(g->bytes + at, bytes.ptr, bytes.len);
    g->have += (uint32_t)bytes.len;
    return g->have == total;
}

static json_t *parse(const struct gathering *g)
{
    json_t *j = json_loadb(g->bytes, g->total, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(j))
        return j;
    json_decref(j);
    return NULL;
}

/* --- asking --- */

static void asked_back(struct mail *mail, void *owner)
{
    struct engine_query *q = CONTAINER_OF(mail, struct engine_query, mail);
    q->done(q, owner);
}

static void query_end(struct engine *e, struct query_out *o)
{
    struct engine_query *q = o->q;
    if (o->by_number.key.v[0])
        table_remove(&e->asked, &o->by_number);
    for (unsigned i = 0; i < q->answer_count; i++)
        free(o->parts[i].bytes);
    free(o->parts);
    free(o);
    mailbox_post(q->reply_to, &q->mail, asked_back);
}

static void list_peers(struct engine *e, struct engine_query *q)
{
    q->answers = mem_zalloc((e->peer_count + 1) * sizeof(*q->answers));
    q->answer_count = 0;
    for (unsigned i = 0; i < e->peer_count && e->cfg.count; i++) {
        if (q->only && e->peer[i].node != q->only)
            continue;
        struct engine_answer *a = &q->answers[q->answer_count++];
        a->node = e->peer[i].node;
        snprintf(a->name, sizeof(a->name), "%.30s", e->peer[i].ident.name);
    }
}

/* Nobody waits for a node that is not connected: it cannot answer. */
static void ask_all(struct engine *e, struct query_out *o)
{
    struct engine_query *q = o->q;
    char *text = json_dumps(q->question, JSON_COMPACT);
    bool fits = text && strlen(text) <= QUERY_BYTES_MAX;
    for (unsigned i = 0; i < q->answer_count; i++)
        if (!fits || !send_text(e, q->answers[i].node, QUERY_QUESTION,
                         o->by_number.key.v[0], slice_str(text)))
            o->open--;
    free(text);
    if (o->open == 0)
        query_end(e, o);
}

static void question_came(struct mail *mail, void *owner)
{
    struct engine_query *q = CONTAINER_OF(mail, struct engine_query, mail);
    struct engine *e = owner;
    engine_busy(e);
    struct query_out *o = mem_zalloc(sizeof(*o));
    int64_t ms = q->timeout_ms > 0 && q->timeout_ms < TIMEOUT_MAX_MS ? q->timeout_ms
                                                                     : TIMEOUT_MAX_MS;
    o->q = q;
    o->since = mono_now();
    o->until = mono_add_ms(o->since, ms);
    list_peers(e, q);
    o->parts = mem_zalloc((q->answer_count + 1) * sizeof(*o->parts));
    o->open = q->answer_count;
    if (o->open == 0 || e->asked.count >= ASKED_MAX || e->is_stopping) {
        query_end(e, o);
        return;
    }
    table_add(&e->asked, &o->by_number, table_number_key(++e->question_number));
    ask_all(e, o);
}

void engine_ask(struct engine *e, struct engine_query *q)
{
    mailbox_post(e->box, &q->mail, question_came);
}

static void answer_piece(struct engine *e, uint64_t node, uint64_t number, uint32_t total,
    uint32_t at, struct slice bytes)
{
    struct table_node *n = table_find(&e->asked, table_number_key(number));
    struct query_out *o = n ? CONTAINER_OF(n, struct query_out, by_number) : NULL;
    for (unsigned i = 0; o && i < o->q->answer_count; i++) {
        struct engine_answer *a = &o->q->answers[i];
        if (a->node != node || a->answer || !add_piece(&o->parts[i], total, at, bytes))
            continue;
        a->answer = parse(&o->parts[i]);
        a->took_ms = mono_diff_ms(mono_now(), o->since);
        if (--o->open == 0)
            query_end(e, o);
        return;
    }
}

/* --- being asked --- */

static void in_free(struct engine *e, struct query_in *i)
{
    table_remove(&e->answering, &i->by_token);
    free(i->text.bytes);
    free(i);
}

static struct query_in *in_find(struct engine *e, uint64_t peer, uint64_t number)
{
    for (uint32_t b = 0; b <= e->answering.mask; b++)
        for (struct table_node *n = e->answering.bucket[b]; n; n = n->next) {
            struct query_in *i = CONTAINER_OF(n, struct query_in, by_token);
            if (i->peer == peer && i->number == number)
                return i;
        }
    return NULL;
}

static struct query_in *in_new(struct engine *e, uint64_t peer, uint64_t number)
{
    if (e->answering.count >= ANSWERING_MAX)
        return NULL;
    struct query_in *i = mem_zalloc(sizeof(*i));
    i->peer = peer;
    i->number = number;
    i->until = mono_add_ms(mono_now(), ANSWERING_MS);
    table_add(&e->answering, &i->by_token, table_number_key(++e->question_number));
    return i;
}

static void question_piece(struct engine *e, uint64_t node, uint64_t number,
    uint32_t total, uint32_t at, struct slice bytes)
{
    struct query_in *i = in_find(e, node, number);
    if (!i && at == 0)
        i = in_new(e, node, number);
    if (!i || i->is_asked || !add_piece(&i->text, total, at, bytes))
        return;
    json_t *question = parse(&i->text);
    free(i->text.bytes);
    i->text = (struct gathering){0};
    if (!question || !e->ask) {
        json_decref(question);
        in_free(e, i);
        return;
    }
    i->is_asked = true;
    e->ask(e->ask_ctx, i->by_token.key.v[0], question);
}

void engine_query_frame(struct engine *e, uint64_t node, struct slice frame)
{
    const unsigned char *f = (const unsigned char *)frame.ptr;
    if (frame.len <= HEADER_BYTES || f[1] != QUERY_VERSION)
        return;
    uint64_t number = get(f + 4, 8);
    uint32_t total = (uint32_t)get(f + 12, 4), at = (uint32_t)get(f + 16, 4);
    struct slice bytes = slice_from(frame, HEADER_BYTES);
    if (f[2] == QUERY_QUESTION)
        question_piece(e, node, number, total, at, bytes);
    else if (f[2] == QUERY_ANSWER)
        answer_piece(e, node, number, total, at, bytes);
}

static void answer_ready(struct mail *mail, void *owner)
{
    struct answer_mail *a = CONTAINER_OF(mail, struct answer_mail, mail);
    struct engine *e = owner;
    struct table_node *n = table_find(&e->answering, table_number_key(a->token));
    engine_busy(e);
    if (n) {
        struct query_in *i = CONTAINER_OF(n, struct query_in, by_token);
        if (a->text)
            send_text(e, i->peer, QUERY_ANSWER, i->number, slice_make(a->text, a->len));
        in_free(e, i);
    }
    free(a->text);
    free(a);
}

void engine_answer(struct engine *e, uint64_t token, json_t *answer)
{
    struct answer_mail *a = mem_zalloc(sizeof(*a));
    a->token = token;
    a->text = json_dumps(answer, JSON_COMPACT);
    a->len = a->text ? strlen(a->text) : 0;
    json_decref(answer);
    if (a->len > QUERY_BYTES_MAX) {
        static const char too_large[] = "{\"error\":\"the answer is too large\"}";
        free(a->text);
        a->text = mem_strdup(SLICE(too_large));
        a->len = sizeof(too_large) - 1;
    }
    mailbox_post(e->box, &a->mail, answer_ready);
}

struct listen_mail {
    struct mail mail;
    void (*ask)(void *ctx, uint64_t token, json_t *question);
    void *ctx;
};

static void listen_from_now(struct mail *mail, void *owner)
{
    struct listen_mail *l = CONTAINER_OF(mail, struct listen_mail, mail);
    struct engine *e = owner;
    e->ask = l->ask;
    e->ask_ctx = l->ctx;
    free(l);
}

void engine_on_question(
    struct engine *e, void (*ask)(void *ctx, uint64_t token, json_t *question), void *ctx)
{
    struct listen_mail *l = mem_zalloc(sizeof(*l));
    l->ask = ask;
    l->ctx = ctx;
    mailbox_post(e->box, &l->mail, listen_from_now);
}

/* --- time --- */

void engine_query_tick(struct engine *e)
{
    struct mono now = mono_now();
    for (uint32_t b = 0; b <= e->asked.mask; b++)
        for (struct table_node *n = e->asked.bucket[b], *next; n; n = next) {
            struct query_out *o = CONTAINER_OF(n, struct query_out, by_number);
            next = n->next;
            if (o->until.ns <= now.ns)
                query_end(e, o);
        }
    for (uint32_t b = 0; b <= e->answering.mask; b++)
        for (struct table_node *n = e->answering.bucket[b], *next; n; n = next) {
            struct query_in *i = CONTAINER_OF(n, struct query_in, by_token);
            next = n->next;
            if (i->until.ns <= now.ns)
                in_free(e, i);
        }
}

void engine_query_init(struct engine *e)
{
    table_init(&e->asked);
    table_init(&e->answering);
    e->question_number = (uint64_t)mono_now().ns;
}

void engine_query_end(struct engine *e)
{
    struct table_node *n;
    e->ask = NULL;
    while ((n = table_any(&e->asked)))
        query_end(e, CONTAINER_OF(n, struct query_out, by_number));
    while ((n = table_any(&e->answering)))
        in_free(e, CONTAINER_OF(n, struct query_in, by_token));
}

void engine_query_fini(struct engine *e)
{
    engine_query_end(e);
    table_fini(&e->asked);
    table_fini(&e->answering);
}
