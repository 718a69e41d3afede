/* SPDX-License-Identifier: Apache-2.0 */
/* `queue ls` and `queue show`: read from the store on helpers, a page at a time, at the
 * pace at which the client reads. */
#include <stdlib.h>

#include "base/alloc.h"
#include "node/control/filter.h"
#include "node/control/handlers_internal.h"
#include "node/control/unit_json.h"

/* --- ls --- */

#define PAGE_BYTES (256u << 10) /* of JSON */
/* A node that asks for a page waits: then it gets what was found so far. */
#define PAGE_MS 500
#define PAGE_UNITS 20000      /* looked at, so that a cancel is heard */
#define LINES_MAX (32u << 20) /* one unit may have 65535 recipients */

struct ls {
    struct work work;
    struct filter filter;
    int64_t left; /* of --limit */
    struct wall now;
    bool has_after;
    struct unit_id after;
    unsigned seen; /* in this page */
    bool more;
    bool one_page; /* "page": another node asks, and will ask on from "after" */
    size_t page_bytes;
    struct mono started;
};

void unit_stands(
    const struct control_handlers *h, struct unit_id id, struct control_unit *out)
{
    *out = (struct control_unit){.owned = true, .copies = 1};
    if (h->sources.unit)
        h->sources.unit(h->sources.ctx, id, out);
}

bool unit_is_ours(const struct control_handlers *h, struct unit_id id)
{
    struct control_unit at;
    unit_stands(h, id, &at);
    return at.owned;
}

const char *unit_told(const struct control_handlers *h, const struct control_unit *at)
{
    if (at->owned)
        return h->sources.node;
    return at->waits && at->owner[0] ? at->owner : NULL;
}

/* What of a line is the cluster's to say. */
static void set_stand(json_t *unit, const struct control_unit *at)
{
    json_object_set_new(unit, "copies", json_integer(at->copies));
    if (!at->owned)
        json_object_set_new(unit, "waiting", json_true());
}

static bool ls_unit(const struct unit_record *u, void *ctx)
{
    struct ls *ls = ctx;
    struct control_unit at;
    ls->after = u->id;
    ls->has_after = true;
    unit_stands(ls->work.handlers, u->id, &at);
    const char *node = unit_told(ls->work.handlers, &at);
    if (node && filter_matches(&ls->filter, u, node, ls->now)) {
        json_t *o = unit_json(u, node, false);
        set_stand(o, &at);
        json_line(o, &ls->work.lines);
        ls->left--;
    }
    ls->more = buf_len(&ls->work.lines) >= PAGE_BYTES || ++ls->seen >= PAGE_UNITS;
    return ls->left > 0 && !ls->more &&
           !atomic_load_explicit(&ls->work.cancelled, memory_order_relaxed);
}

static void ls_run(struct work *w)
{
    struct ls *ls = CONTAINER_OF(w, struct ls, work);
    struct unit_id after = ls->after;
    ls->seen = 0;
    ls->more = false;
    w->err = store_list(
        w->handlers->sources.store, ls->has_after ? &after : NULL, ls_unit, ls);
}

static void end_page(struct ls *ls, bool more)
{
    char after[UNIT_ID_TEXT_MAX];
    unit_id_format(ls->after, after);
    json_line(json_pack("{s:b,s:b,s:s}", "page_end", 1, "more", more, "after", after),
        &ls->work.lines);
}

static void ls_done(struct work *w)
{
    struct ls *ls = CONTAINER_OF(w, struct ls, work);
    bool more = ls->more && ls->left > 0;
    ls->page_bytes += buf_len(&w->lines);
    if (ls->one_page && w->err == ERR_OK) {
        bool whole = ls->page_bytes >= PAGE_BYTES ||
                     mono_diff_ms(mono_now(), ls->started) >= PAGE_MS;
        if (!more || whole) {
            end_page(ls, more);
            more = false;
        }
    }
    work_continue(w, more);
}

static void ls_free(struct work *w)
{
    struct ls *ls = CONTAINER_OF(w, struct ls, work);
    filter_fini(&ls->filter);
    free(ls);
}

static void handle_ls(struct control_request *req, json_t *args, void *ctx)
{
    struct filter filter;
    int64_t limit = INT64_MAX;
    bool page = false;
    const char *after = NULL;
    struct unit_id id = {0};
    bool ok = filter_init(&filter, req, args, false) &&
              control_arg_int(req, args, "limit", 1, INT64_MAX, &limit) &&
              control_arg_bool(req, args, "page", &page) &&
              control_arg_text(req, args, "after", &after);
    if (ok && after && !unit_id_parse(slice_str(after), &id)) {
        control_fail(req, 1, NULL, "after must be the id of a unit");
        ok = false;
    }
    if (!ok) {
        filter_fini(&filter);
        return;
    }
    struct ls *ls = mem_zalloc(sizeof(*ls));
    work_init(&ls->work, ctx, req, LINES_MAX);
    ls->work.run = ls_run;
    ls->work.done = ls_done;
    ls->work.free = ls_free;
    ls->filter = filter;
    ls->left = limit;
    ls->one_page = page;
    ls->has_after = after != NULL;
    ls->after = id;
    ls->started = mono_now();
    ls->now = wall_now();
    work_start(&ls->work);
}

/* --- show --- */

#define SHOW_UNITS_MAX 256
#define HEADER_MAX 65536

struct show {
    struct work work;
    struct msg_id id;
    int unit; /* -1: all */
    bool headers;
};

/* The header section of the message, as far as it fits; what is wrong with it otherwise.
 */
static void add_header(struct store *store, struct msg_id id, json_t *o)
{
    char *rows = mem_alloc((size_t)16 * BODY_ROW_BYTES);
    size_t len;
    enum err err = store_read_body(store, id, 0, rows, &len);
    struct slice text = slice_make(rows, err == ERR_OK ? len : 0);
    const char *end = memmem(text.ptr, text.len, "\r\n\r\n", 4);
    if (end)
        text.len = (size_t)(end - rows) + 2;
    if (err == ERR_OK)
        json_set_text(o, "header", slice_head(text, HEADER_MAX));
    else
        json_object_set_new(o, "header_error", json_string(err_text(err)));
    free(rows);
}

static void show_unit(struct show *show, struct unit_id id)
{
    struct store *store = show->work.handlers->sources.store;
    struct unit_record *u = NULL;
    struct control_unit at;
    unit_stands(show->work.handlers, id, &at);
    const char *node = unit_told(show->work.handlers, &at);
    if ((show->unit >= 0 && id.unit != show->unit) || !node)
        return;
    enum err err = store_read_unit(store, id, &u);
    if (err == ERR_STORE_NOT_FOUND)
        return; /* it left meanwhile */
    if (err != ERR_OK) {
        show->work.err = err;
        return;
    }
    json_t *o = unit_json_full(u, node);
    set_stand(o, &at);
    if (show->headers && buf_len(&show->work.lines) == 0)
        add_header(store, id.msg, o);
    json_line(o, &show->work.lines);
    unit_record_free(u);
}

static void show_run(struct work *w)
{
    struct show *show = CONTAINER_OF(w, struct show, work);
    struct unit_id ids[SHOW_UNITS_MAX];
    unsigned count =
        store_units_of(w->handlers->sources.store, show->id, ids, SHOW_UNITS_MAX);
    for (unsigned i = 0; i < count && i < SHOW_UNITS_MAX; i++)
        show_unit(show, ids[i]);
}

static void show_done(struct work *w)
{
    if (w->err == ERR_OK && buf_len(&w->lines) == 0)
        work_fail(w, 1, "it may be done: see what became of it with batonctl trace ID",
            "no such message in the queue");
    else
        work_continue(w, false);
}

static void show_free(struct work *w)
{
    free(CONTAINER_OF(w, struct show, work));
}

static void handle_show(struct control_request *req, json_t *args, void *ctx)
{
    const char *text;
    struct unit_id id = {0};
    bool headers = false;
    int unit = -1;
    if (!control_arg_text(req, args, "id", &text) ||
        !control_arg_bool(req, args, "headers", &headers))
        return;
    if (text && unit_id_parse(slice_str(text), &id)) {
        unit = id.unit;
    } else if (!text || !msg_id_parse(slice_str(text), &id.msg)) {
        control_fail(req, 1, "ids have 26 letters and digits: see batonctl queue ls",
            "not a message id: %.60s", text ? text : "");
        return;
    }
    struct show *show = mem_zalloc(sizeof(*show));
    work_init(&show->work, ctx, req, LINES_MAX);
    show->work.run = show_run;
    show->work.done = show_done;
    show->work.free = show_free;
    show->id = id.msg;
    show->unit = unit;
    show->headers = headers;
    work_start(&show->work);
}

void queue_register(struct control *c, struct control_handlers *h)
{
    control_register(c, "queue ls", CONTROL_READS, handle_ls, h);
    control_register(c, "queue show", CONTROL_READS, handle_show, h);
}
