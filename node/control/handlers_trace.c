/* SPDX-License-Identifier: Apache-2.0 */
/* `trace ID` and `trace ADDRESS`: what the history remembers. */
#include <stdlib.h>

#include "base/alloc.h"
#include "node/control/handlers_internal.h"

#define LINES_MAX (32u << 20)
#define MESSAGES_DEFAULT 20
#define MESSAGES_MAX 1000

struct trace {
    struct work work;
    bool by_id;
    struct msg_id id;
    char *address;
    unsigned messages;
    char line[RECORD_LINE_MAX];
};

static void found(const struct record *r, void *ctx)
{
    struct trace *t = ctx;
    if (atomic_load_explicit(&t->work.cancelled, memory_order_relaxed))
        return;
    size_t len = record_render_json(r, t->line, sizeof(t->line) - 1);
    t->line[len] = '\n';
    buf_append(&t->work.lines, slice_make(t->line, len + 1));
}

static void trace_run(struct work *w)
{
    struct trace *t = CONTAINER_OF(w, struct trace, work);
    struct history *history = w->handlers->sources.history;
    if (t->by_id)
        w->err = history_find_id(history, t->id, found, t);
    else
        w->err =
            history_find_address(history, slice_str(t->address), t->messages, found, t);
}

static void trace_done(struct work *w)
{
    /* A client that is gone gets nothing; one that is there and gets nothing wants to
     * know. */
    if (w->err == ERR_STORE_NOT_FOUND)
        w->err = ERR_OK;
    if (w->err == ERR_OK && buf_len(&w->lines) == 0)
        work_fail(w, 1,
            "the history reaches back history.keep; the log may reach further back",
            "nothing is known about it");
    else
        work_continue(w, false);
}

static void trace_free(struct work *w)
{
    struct trace *t = CONTAINER_OF(w, struct trace, work);
    free(t->address);
    free(t);
}

static void handle_trace(struct control_request *req, json_t *args, void *ctx)
{
    struct control_handlers *h = ctx;
    const char *what;
    int64_t limit = MESSAGES_DEFAULT;
    struct unit_id id;
    if (!control_arg_text(req, args, "what", &what) ||
        !control_arg_int(req, args, "limit", 1, MESSAGES_MAX, &limit))
        return;
    if (!h->sources.history) {
        control_fail(req, 1, NULL, "this node keeps no history");
        return;
    }
    struct slice text = slice_str(what ? what : "");
    bool by_id = msg_id_parse(text, &id.msg) || unit_id_parse(text, &id);
    if (!by_id && slice_find(text, '@') == text.len) {
        control_fail(req, 1,
            "give an id as in the 250 reply, or an address like a@example.org",
            "neither a message id nor an address: %.60s", text.ptr);
        return;
    }
    struct trace *t = mem_zalloc(sizeof(*t));
    work_init(&t->work, h, req, LINES_MAX);
    t->work.run = trace_run;
    t->work.done = trace_done;
    t->work.free = trace_free;
    t->by_id = by_id;
    if (by_id)
        t->id = id.msg;
    t->address = mem_strdup(text);
    t->messages = (unsigned)limit;
    work_start(&t->work);
}

void trace_register(struct control *c, struct control_handlers *h)
{
    control_register(c, "trace", CONTROL_READS, handle_trace, h);
}
