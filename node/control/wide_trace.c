/* SPDX-License-Identifier: Apache-2.0 */
/* `trace` and `events` of the cluster: one timeline from all nodes' records. */
#include <stdlib.h>

#include "base/alloc.h"
#include "node/control/wide.h"

struct event {
    json_t *line;
    const char *time, *id;
    const char *first; /* time of the first event with this id */
    size_t order;      /* of its node: what happened in the same millisecond stays so */
};

struct timeline {
    struct event *events;
    size_t count;
};

static const char *text(const json_t *line, const char *key)
{
    const char *value = json_string_value(json_object_get(line, key));
    return value ? value : "";
}

static int by_time(const void *a, const void *b)
{
    const struct event *x = a, *y = b;
    int order = strcmp(x->time, y->time);
    if (order)
        return order;
    return x->order < y->order ? -1 : x->order > y->order;
}

static int by_id(const void *a, const void *b)
{
    const struct event *x = a, *y = b;
    int order = strcmp(x->id, y->id);
    return order ? order : by_time(a, b);
}

/* Messages by their beginning, each whole. */
static int by_message(const void *a, const void *b)
{
    const struct event *x = a, *y = b;
    int order = strcmp(x->first, y->first);
    return order ? order : by_id(a, b);
}

static struct timeline gather(const struct wide *w)
{
    struct timeline t = {0};
    size_t at, size = 0;
    json_t *line;
    for (unsigned i = 0; i < w->count; i++)
        size += json_array_size(wide_lines(&w->parts[i]));
    t.events = mem_zalloc((size + 1) * sizeof(*t.events));
    for (unsigned i = 0; i < w->count; i++) {
        json_array_foreach(wide_lines(&w->parts[i]), at, line)
        {
            t.events[t.count] = (struct event){.line = line,
                .time = text(line, "time"),
                .id = text(line, "id"),
                .order = t.count};
            t.count++;
        }
    }
    return t;
}

static void reply_from(struct wide *w, struct timeline *t, size_t from)
{
    for (size_t i = from; i < t->count; i++)
        control_reply(w->req, json_incref(t->events[i].line));
    free(t->events);
    wide_finish(w, 0);
}

/* --- trace --- */

/* Groups by message; returns where the newest `limit` of them begin. */
static size_t sort_messages(struct timeline *t, size_t limit)
{
    size_t messages = 0;
    qsort(t->events, t->count, sizeof(*t->events), by_id);
    for (size_t i = 0; i < t->count; i++) {
        bool same = i > 0 && strcmp(t->events[i].id, t->events[i - 1].id) == 0;
        t->events[i].first = same ? t->events[i - 1].first : t->events[i].time;
        messages += !same;
    }
    qsort(t->events, t->count, sizeof(*t->events), by_message);
    size_t skip = messages > limit ? messages - limit : 0, at = 0;
    for (; skip; skip--) {
        const char *id = t->events[at].id;
        while (at < t->count && strcmp(t->events[at].id, id) == 0)
            at++;
    }
    return at;
}

static void merge_trace(struct wide *w)
{
    json_t *limit = json_object_get(w->args, "limit");
    struct timeline t = gather(w);
    if (t.count == 0) {
        free(t.events);
        wide_refuse(w);
        return;
    }
    size_t from = sort_messages(&t, limit ? (size_t)json_integer_value(limit) : 20);
    reply_from(w, &t, from);
}

void wide_trace(struct control_request *req, json_t *args, void *ctx)
{
    wide_start(ctx, req, req->command, args, json_incref(args), merge_trace);
}

/* --- events --- */

static void merge_events(struct wide *w)
{
    json_t *last = json_object_get(w->args, "last");
    size_t want = last ? (size_t)json_integer_value(last) : 50;
    if (json_integer_value(json_object_get(w->parts[0].answer, "exit")) != 0) {
        wide_refuse(w);
        return;
    }
    struct timeline t = gather(w);
    qsort(t.events, t.count, sizeof(*t.events), by_time);
    reply_from(w, &t, t.count > want ? t.count - want : 0);
}

void wide_events(struct control_request *req, json_t *args, void *ctx)
{
    /* What comes is followed here, as it happens; the others' logs have theirs. */
    if (json_is_true(json_object_get(args, "follow")))
        control_local(req, args);
    else
        wide_start(ctx, req, req->command, args, json_incref(args), merge_events);
}
