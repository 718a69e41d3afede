/* SPDX-License-Identifier: Apache-2.0 */
#include "node/control/wide.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "node/control/release.h"

static const struct {
    const char *command;
    control_handler *handler;
} shared[] = {{"status", wide_status}, {"node ls", wide_nodes}, {"queue ls", wide_ls},
    {"queue show", wide_show}, {"queue shape", wide_shape}, {"trace", wide_trace},
    {"quarantine ls", wide_all}, {"quarantine show", wide_show},
    {"quarantine drop", wide_show}, {"quarantine release", wide_release},
    {"events", wide_events}, {"why", wide_all}, {"queue hold", wide_verb},
    {"queue release", wide_verb}, {"queue retry", wide_verb}, {"queue expire", wide_verb},
    {"queue bounce", wide_verb}, {"queue drop", wide_verb}};
#define SHARED (sizeof(shared) / sizeof(shared[0]))

/* What only nodes ask each other. */
static const char *const between[] = {"shared", "quarantine look"};

bool wide_is_shared(const char *command)
{
    for (size_t i = 0; i < sizeof(between) / sizeof(between[0]); i++)
        if (strcmp(between[i], command) == 0)
            return true;
    for (size_t i = 0; i < SHARED; i++)
        if (strcmp(shared[i].command, command) == 0)
            return true;
    return false;
}

void wide_register(struct control *c, struct control_handlers *h)
{
    h->control = c;
    for (size_t i = 0; i < SHARED; i++)
        control_widen(c, shared[i].command, shared[i].handler, h);
}

/* --- asking --- */

static void wide_free(struct wide *w)
{
    for (unsigned i = 0; i < w->count; i++)
        json_decref(w->parts[i].answer);
    if (w->state_free)
        w->state_free(w->state);
    free(w->parts);
    json_decref(w->args);
    free(w);
}

static void part_here(struct wide *w)
{
    if (--w->waiting > 0)
        return;
    if (w->handlers->stopped)
        wide_finish(w, 1);
    else
        w->merge(w);
}

/* What came from a peer is looked at here once; what follows may rely on its shape. */
static bool is_answer(const json_t *answer)
{
    size_t i;
    json_t *line;
    if (!json_is_object(answer) || !json_is_integer(json_object_get(answer, "exit")) ||
        !json_is_array(json_object_get(answer, "lines")))
        return false;
    json_array_foreach(json_object_get(answer, "lines"), i, line)
    {
        if (!json_is_object(line))
            return false;
    }
    return true;
}

static void keep_answer(struct wide_part *part, json_t *answer, int64_t took_ms)
{
    if (answer && !is_answer(answer)) {
        json_decref(answer);
        answer = NULL;
    }
    part->answer = answer;
    part->took_ms = took_ms;
}

static void own_done(json_t *answer, void *ctx)
{
    struct wide *w = ctx;
    keep_answer(&w->parts[0], answer, 0);
    part_here(w);
}

static void others_done(struct engine_query *q, void *owner)
{
    struct wide *w = CONTAINER_OF(q, struct wide, query);
    (void)owner;
    w->parts = mem_realloc(w->parts, (1 + q->answer_count) * sizeof(*w->parts));
    for (unsigned i = 0; i < q->answer_count; i++) {
        struct wide_part *part = &w->parts[w->count++];
        *part = (struct wide_part){.node = q->answers[i].node};
        snprintf(part->name, sizeof(part->name), "%.31s", q->answers[i].name);
        keep_answer(part, q->answers[i].answer, q->answers[i].took_ms);
    }
    free(q->answers);
    json_decref(q->question);
    part_here(w);
}

static void ask(struct wide *w, uint64_t only, json_t *part_args,
    void (*done)(struct engine_query *q, void *owner))
{
    const struct control_handlers *h = w->handlers;
    w->query =
        (struct engine_query){.question = json_pack("{s:s,s:O,s:s}", "command",
                                  w->command, "args", part_args, "by", h->sources.node),
            .only = only,
            .timeout_ms = WIDE_TIMEOUT_MS,
            .reply_to = loop_mailbox(h->loop),
            .done = done};
    h->sources.peers->ask(h->sources.peers->ctx, &w->query);
}

void wide_start(struct control_handlers *h, struct control_request *req,
    const char *command, json_t *args, json_t *part_args, void (*merge)(struct wide *w))
{
    struct wide *w = mem_zalloc(sizeof(*w));
    w->handlers = h;
    w->req = req;
    w->command = command;
    w->args = json_incref(args);
    w->merge = merge;
    w->parts = mem_zalloc(sizeof(*w->parts));
    w->count = 1;
    w->waiting = 2;
    snprintf(w->parts[0].name, sizeof(w->parts[0].name), "%.31s", h->sources.node);
    ask(w, 0, part_args, others_done);
    control_run(h->control, w->command, part_args, NULL, WIDE_ANSWER_MAX, own_done, w);
    json_decref(part_args);
}

/* --- one node again --- */

static void again_done(struct engine_query *q, void *owner)
{
    struct wide *w = CONTAINER_OF(q, struct wide, query);
    (void)owner;
    for (unsigned i = 0; i < q->answer_count; i++) {
        struct wide_part *part = w->parts + 1;
        while (part < w->parts + w->count && part->node != q->answers[i].node)
            part++;
        if (part < w->parts + w->count && !part->answer)
            keep_answer(part, q->answers[i].answer, q->answers[i].took_ms);
        else
            json_decref(q->answers[i].answer);
    }
    free(q->answers);
    json_decref(q->question);
    part_here(w);
}

void wide_again(struct wide *w, struct wide_part *part, json_t *part_args,
    void (*then)(struct wide *w))
{
    json_decref(part->answer);
    part->answer = NULL;
    w->merge = then;
    w->waiting = 1;
    if (part == w->parts)
        control_run(w->handlers->control, w->command, part_args, NULL, WIDE_ANSWER_MAX,
            own_done, w);
    else
        ask(w, part->node, part_args, again_done);
    json_decref(part_args);
}

/* --- the end --- */

json_t *wide_lines(const struct wide_part *part)
{
    return json_object_get(part->answer, "lines");
}

json_int_t wide_sum(const json_t *a, const json_t *b)
{
    json_int_t sum;
    if (__builtin_add_overflow(json_integer_value(a), json_integer_value(b), &sum))
        return INT64_MAX;
    return sum;
}

bool wide_has_lines(const struct wide *w)
{
    for (unsigned i = 0; i < w->count; i++)
        if (json_array_size(wide_lines(&w->parts[i])))
            return true;
    return false;
}

/* Who is missing, and who had more to say than fits. */
static json_t *remarks(const struct wide *w)
{
    json_t *more = json_object(), *missing = json_array(), *cut = json_array();
    for (unsigned i = 0; i < w->count; i++) {
        const struct wide_part *part = &w->parts[i];
        if (!part->answer)
            json_array_append_new(missing, control_text(slice_str(part->name)));
        else if (json_is_true(json_object_get(part->answer, "cut")))
            json_array_append_new(cut, control_text(slice_str(part->name)));
    }
    if (json_array_size(missing))
        json_object_set(more, "not_answered", missing);
    if (json_array_size(cut))
        json_object_set(more, "cut", cut);
    json_decref(missing);
    json_decref(cut);
    return more;
}

void wide_finish(struct wide *w, int exit_code)
{
    control_finish_with(w->req, exit_code, remarks(w));
    wide_free(w);
}

void wide_refuse_with(struct wide *w, json_t *error, const char *next_step)
{
    json_t *more = remarks(w);
    json_object_set_new(more, "error", error);
    if (next_step)
        json_object_set_new(more, "next_step", control_text(slice_str(next_step)));
    control_finish_with(w->req, 1, more);
    wide_free(w);
}

void wide_refuse(struct wide *w)
{
    json_t *own = w->parts[0].answer, *error = json_object_get(own, "error");
    const char *next = json_string_value(json_object_get(own, "next_step"));
    wide_refuse_with(w,
        error ? json_incref(error) : json_string("this node did not answer itself"),
        next);
}

/* --- answering --- */

struct served {
    struct mail mail;
    struct control_handlers *handlers;
    uint64_t token;
    json_t *question;
};

static void served_done(json_t *answer, void *ctx)
{
    struct served *s = ctx;
    const struct control_peers *peers = s->handlers->sources.peers;
    if (s->handlers->stopped)
        json_decref(answer);
    else
        peers->answer(peers->ctx, s->token, answer);
    atomic_fetch_sub(&s->handlers->served, 1);
    json_decref(s->question);
    free(s);
}

static json_t *refusal(const char *text)
{
    return json_pack("{s:i,s:[],s:s}", "exit", 1, "lines", "error", text);
}

static void serve(struct mail *mail, void *owner)
{
    struct served *s = CONTAINER_OF(mail, struct served, mail);
    const char *command = json_string_value(json_object_get(s->question, "command"));
    const char *by = json_string_value(json_object_get(s->question, "by"));
    json_t *args = json_object_get(s->question, "args");
    (void)owner;
    bool known = command && wide_is_shared(command);
    if (s->handlers->stopped || !known || !json_is_object(args) ||
        json_is_true(json_object_get(args, "follow")))
        served_done(refusal("this node does not answer that to other nodes"), s);
    else
        control_run(s->handlers->control, command, args, by ? by : "", WIDE_ANSWER_MAX,
            served_done, s);
}

void control_question(struct control_handlers *h, uint64_t token, json_t *question)
{
    const struct control_peers *peers = h->sources.peers;
    if (atomic_fetch_add(&h->served, 1) >= WIDE_SERVED_MAX) {
        atomic_fetch_sub(&h->served, 1);
        json_decref(question);
        peers->answer(peers->ctx, token, refusal("this node is busy"));
        return;
    }
    struct served *s = mem_zalloc(sizeof(*s));
    s->handlers = h;
    s->token = token;
    s->question = question;
    mailbox_post(loop_mailbox(h->loop), &s->mail, serve);
}
