/* SPDX-License-Identifier: Apache-2.0 */
/* Registering the commands, and the small ones. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"
#include "node/control/wide.h"

static void handle_log(struct control_request *req, json_t *args, void *ctx)
{
    const char *text;
    enum log_level level, before = log_get_level();
    (void)ctx;
    if (!control_arg_text(req, args, "level", &text))
        return;
    if (!text || !log_level_parse(slice_str(text), &level)) {
        control_fail(
            req, 1, "give one of: debug, info, warn, error", "no such log level");
        return;
    }
    log_set_level(level);
    control_reply(
        req, json_pack("{s:s,s:s}", "level", text, "was", log_level_name(before)));
    control_finish(req, 0);
}

static void handle_reload(struct control_request *req, json_t *args, void *ctx)
{
    struct control_handlers *h = ctx;
    (void)args;
    if (h->sources.reload)
        h->sources.reload(h->sources.ctx, req);
    else
        control_fail(req, 1, "restart it", "this node cannot reload");
}

struct control_handlers *control_handlers_new(
    struct control *c, struct loop *loop, const struct control_sources *sources)
{
    struct control_handlers *h = mem_zalloc(sizeof(*h));
    h->loop = loop;
    h->sources = *sources;
    /* Helpers build JSON too: the seed of jansson's hashes is made before they could
     * race. */
    json_object_seed(0);
    control_register(c, "log", CONTROL_CHANGES, handle_log, h);
    control_register(c, "reload", CONTROL_CHANGES, handle_reload, h);
    status_register(c, h);
    queue_register(c, h);
    queue_verbs_register(c, h);
    shape_register(c, h);
    trace_register(c, h);
    why_register(c, h);
    resolve_register(c, h);
    events_register(c, h);
    admin_register(c, h);
    quarantine_register(c, h);
    if (sources->granted)
        allow_register(c, h);
    if (sources->peers)
        wide_register(c, h);
    return h;
}

void control_handlers_stop(struct control_handlers *h)
{
    if (!h)
        return;
    h->stopped = true; /* first: the store answers nothing that is asked from here */
    mailbox_drain(loop_mailbox(h->loop));
}

void control_handlers_free(struct control_handlers *h)
{
    if (!h)
        return;
    status_free(h);
    allow_free(h);
    events_free(h);
    free(h);
}

/* --- work on helpers --- */

static void cancelled(struct control_request *req)
{
    struct work *w = req->state;
    atomic_store_explicit(&w->cancelled, true, memory_order_relaxed);
    if (!w->waiting)
        return; /* `done` will come */
    control_finish(req, 1);
    buf_fini(&w->lines);
    w->free(w);
}

static void drained(struct control_request *req)
{
    struct work *w = req->state;
    if (!w->waiting)
        return;
    w->waiting = false;
    work_start(w);
}

void work_init(struct work *w, struct control_handlers *h, struct control_request *req,
    size_t lines_max)
{
    w->handlers = h;
    w->req = req;
    buf_init(&w->lines, lines_max);
    req->state = w;
    req->on_cancel = cancelled;
    req->on_drained = drained;
}

static void run_job(struct job *job)
{
    struct work *w = CONTAINER_OF(job, struct work, job);
    w->run(w);
}

static void job_done(struct mail *mail, void *owner)
{
    struct work *w = CONTAINER_OF(mail, struct work, job.mail);
    (void)owner;
    w->done(w);
}

void work_start(struct work *w)
{
    w->job.run = run_job;
    w->job.done = job_done;
    w->job.reply_to = loop_mailbox(w->handlers->loop);
    if (!workers_submit(w->handlers->sources.helpers, &w->job))
        work_fail(w, 1, "try again in a moment", "all helper threads are busy");
}

void work_fail(struct work *w, int exit_code, const char *next_step, const char *text)
{
    w->req->on_cancel = NULL;
    control_fail(w->req, exit_code, next_step, "%s", text);
    buf_fini(&w->lines);
    w->free(w);
}

void work_continue(struct work *w, bool more)
{
    bool room = true;
    if (w->err != ERR_OK) {
        work_fail(w, 1, NULL, err_text(w->err));
        return;
    }
    if (buf_len(&w->lines))
        room = control_reply_lines(w->req, buf_slice(&w->lines));
    buf_clear(&w->lines);
    if (more && !control_is_gone(w->req)) {
        w->waiting = !room;
        if (room)
            work_start(w);
        return;
    }
    control_finish(w->req, 0);
    buf_fini(&w->lines);
    w->free(w);
}

/* --- JSON --- */

bool json_line(json_t *object, struct buf *out)
{
    char *text = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    INVARIANT(text);
    size_t before = buf_len(out);
    bool fits = buf_append_str(out, text) && buf_append_char(out, '\n');
    if (!fits)
        out->tail = out->head + before;
    free(text);
    return fits;
}

json_t *json_time(struct wall t)
{
    char text[32];
    if (t.ms == 0)
        return json_null();
    wall_format_iso(t, text);
    return json_string(text);
}

json_t *json_ip(struct ipaddr ip)
{
    char text[NETADDR_TEXT_MAX];
    if (ip.family == 0)
        return json_null();
    ipaddr_format(ip, text);
    return json_string(text);
}

void json_set_text(json_t *object, const char *key, struct slice text)
{
    json_object_set_new(object, key, control_text(text));
}
