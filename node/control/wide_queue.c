/* SPDX-License-Identifier: Apache-2.0 */
/* `queue ls`, `queue show` and `queue shape` of the cluster. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "node/control/wide.h"

/* --- ls: the nodes' pages, each sorted by age, merged as they come --- */

struct ls_source {
    size_t next; /* line of the part's answer */
    bool more;   /* the node has another page */
    bool lost;   /* it answered once, and no more */
    char after[64];
};

struct ls_state {
    struct ls_source *sources; /* as the parts */
    int64_t left;              /* of --limit */
    struct wide_part *asked;   /* whose page is under way */
    char last_id[40];          /* of the line that was told last */
    int64_t last_unit;
};

static void ls_state_free(void *state)
{
    struct ls_state *ls = state;
    free(ls->sources);
    free(ls);
}

/* The last line of a page says how it goes on. */
static void look_at_page(struct wide_part *part, struct ls_source *s)
{
    json_t *lines = wide_lines(part);
    size_t count = json_array_size(lines);
    json_t *end = json_array_get(lines, count ? count - 1 : 0);
    const char *after = json_string_value(json_object_get(end, "after"));
    s->next = 0;
    s->more = false;
    if (!json_is_true(json_object_get(end, "page_end")))
        return;
    s->more = json_is_true(json_object_get(end, "more")) && after &&
              strcmp(after, s->after) != 0;
    snprintf(s->after, sizeof(s->after), "%.63s", after ? after : "");
    json_array_remove(lines, count - 1);
}

static json_t *head_of(const struct wide *w, unsigned i)
{
    const struct ls_state *ls = w->state;
    return json_array_get(wide_lines(&w->parts[i]), ls->sources[i].next);
}

static const char *id_of(const json_t *line)
{
    const char *id = json_string_value(json_object_get(line, "id"));
    return id ? id : "";
}

static json_int_t unit_of(const json_t *line)
{
    return json_integer_value(json_object_get(line, "unit"));
}

static bool waits(const json_t *line)
{
    return json_is_true(json_object_get(line, "waiting"));
}

/* Of the same unit, its owner's own line comes first. */
static bool is_before(const json_t *a, const json_t *b)
{
    int by_id = strcmp(id_of(a), id_of(b));
    if (by_id != 0)
        return by_id < 0;
    if (unit_of(a) != unit_of(b))
        return unit_of(a) < unit_of(b);
    return !waits(a) && waits(b);
}

/* The oldest line that all nodes' pages begin with; -1: none is left. Ids sort by time.
 */
static int oldest(const struct wide *w)
{
    int best = -1;
    for (unsigned i = 0; i < w->count; i++) {
        json_t *line = head_of(w, i);
        if (line && (best < 0 || is_before(line, head_of(w, (unsigned)best))))
            best = (int)i;
    }
    return best;
}

/* Told for a node that seems to be gone: not when it has answered itself, nor when
 * somebody told of the unit already. */
static bool is_told(const struct wide *w, const json_t *line)
{
    const struct ls_state *ls = w->state;
    const char *owner = json_string_value(json_object_get(line, "node"));
    if (!waits(line))
        return false;
    for (unsigned i = 0; i < w->count; i++)
        if (owner && w->parts[i].answer && strcmp(w->parts[i].name, owner) == 0)
            return true;
    return unit_of(line) == ls->last_unit && strcmp(id_of(line), ls->last_id) == 0;
}

static json_t *page_args(const struct wide *w, const char *after, int64_t limit)
{
    json_t *args = json_copy(w->args);
    json_object_set_new(args, "page", json_true());
    json_object_set_new(args, "limit", json_integer(limit));
    if (after && after[0])
        json_object_set_new(args, "after", json_string(after));
    return args;
}

static void ls_next(struct wide *w);

static void ls_page_here(struct wide *w)
{
    struct ls_state *ls = w->state;
    struct ls_source *s = &ls->sources[ls->asked - w->parts];
    s->lost = !ls->asked->answer;
    look_at_page(ls->asked, s);
    ls_next(w);
}

/* A source that has run dry and has more: nothing may be said before its next page. */
static bool fetch(struct wide *w)
{
    struct ls_state *ls = w->state;
    for (unsigned i = 0; i < w->count; i++) {
        struct ls_source *s = &ls->sources[i];
        if (!s->more || head_of(w, i))
            continue;
        ls->asked = &w->parts[i];
        wide_again(w, ls->asked, page_args(w, s->after, ls->left), ls_page_here);
        return true;
    }
    return false;
}

static void ls_drained(struct control_request *req)
{
    ls_next(req->state);
}

static void ls_next(struct wide *w)
{
    struct ls_state *ls = w->state;
    w->req->on_drained = NULL;
    while (ls->left > 0 && !control_is_gone(w->req)) {
        if (fetch(w))
            return;
        int i = oldest(w);
        if (i < 0)
            break;
        json_t *line = head_of(w, (unsigned)i);
        ls->sources[i].next++;
        if (is_told(w, line))
            continue;
        snprintf(ls->last_id, sizeof(ls->last_id), "%s", id_of(line));
        ls->last_unit = unit_of(line);
        json_incref(line);
        ls->left--;
        if (!control_reply(w->req, line) && !control_is_gone(w->req)) {
            w->req->on_drained = ls_drained;
            return;
        }
    }
    wide_finish(w, 0);
}

static void ls_gone(struct control_request *req)
{
    struct wide *w = req->state;
    /* Waiting for the client alone: nothing else will end it. */
    if (w->waiting == 0)
        wide_finish(w, 1);
}

static void merge_ls(struct wide *w)
{
    struct ls_state *ls = mem_zalloc(sizeof(*ls));
    w->state = ls;
    w->state_free = ls_state_free;
    ls->left = INT64_MAX;
    ls->sources = mem_zalloc(w->count * sizeof(*ls->sources));
    json_t *limit = json_object_get(w->args, "limit");
    if (limit)
        ls->left = json_integer_value(limit);
    if (json_integer_value(json_object_get(w->parts[0].answer, "exit")) != 0) {
        wide_refuse(w);
        return;
    }
    for (unsigned i = 0; i < w->count; i++)
        look_at_page(&w->parts[i], &ls->sources[i]);
    w->req->state = w;
    w->req->on_cancel = ls_gone;
    ls_next(w);
}

void wide_ls(struct control_request *req, json_t *args, void *ctx)
{
    json_t *part = json_copy(args);
    json_object_set_new(part, "page", json_true());
    wide_start(ctx, req, req->command, args, part, merge_ls);
}

/* --- show: what each node has of the message --- */

static void merge_all(struct wide *w)
{
    size_t at;
    json_t *line;
    for (unsigned i = 0; i < w->count; i++) {
        json_array_foreach(wide_lines(&w->parts[i]), at, line)
            control_reply(w->req, json_incref(line));
    }
    wide_finish(w, 0);
}

static void merge_lines(struct wide *w)
{
    if (wide_has_lines(w))
        merge_all(w);
    else
        wide_refuse(w);
}

/* A list, which may be empty. */
void wide_all(struct control_request *req, json_t *args, void *ctx)
{
    wide_start(ctx, req, req->command, args, json_incref(args), merge_all);
}

void wide_show(struct control_request *req, json_t *args, void *ctx)
{
    wide_start(ctx, req, req->command, args, json_incref(args), merge_lines);
}

/* --- shape: rows of the same destination added up --- */

/* Of each node: so many rows fit into its answer. */
#define SHAPE_ROWS 2000
#define SHAPE_ROWS_MAX 65536

static void add_row(json_t *rows, json_t *row)
{
    const char *domain = json_string_value(json_object_get(row, "domain"));
    json_t *sum = domain ? json_object_get(rows, domain) : NULL, *value, *ages;
    const char *key;
    if (!domain)
        return;
    if (!sum) {
        json_object_set_new(rows, domain, json_deep_copy(row));
        return;
    }
    static const char *const counts[] = {"recipients", "units"};
    for (size_t i = 0; i < 2; i++)
        json_object_set_new(sum, counts[i],
            json_integer(wide_sum(
                json_object_get(sum, counts[i]), json_object_get(row, counts[i]))));
    ages = json_object_get(sum, "ages");
    json_object_foreach(json_object_get(row, "ages"), key, value) json_object_set_new(
        ages, key, json_integer(wide_sum(json_object_get(ages, key), value)));
}

static int by_recipients(const void *a, const void *b)
{
    const json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
    json_int_t n = json_integer_value(json_object_get(x, "recipients"));
    json_int_t m = json_integer_value(json_object_get(y, "recipients"));
    if (n != m)
        return n < m ? 1 : -1;
    return strcmp(json_string_value(json_object_get(x, "domain")),
        json_string_value(json_object_get(y, "domain")));
}

static void reply_row(struct wide *w, json_t *rows, const char *name)
{
    json_t *row = json_object_get(rows, name);
    if (row)
        control_reply(w->req, json_incref(row));
}

/* The fullest first; what is behind the limit goes into one row. */
static void reply_rows(struct wide *w, json_t *rows, size_t limit)
{
    size_t n = 0, size = json_object_size(rows);
    json_t **sorted = mem_zalloc((size + 1) * sizeof(json_t *)), *row;
    const char *key;
    json_object_foreach(rows, key, row)
    {
        if (strcmp(key, "TOTAL") != 0 && strcmp(key, "OTHERS") != 0)
            sorted[n++] = json_incref(row);
    }
    qsort(sorted, n, sizeof(json_t *), by_recipients);
    reply_row(w, rows, "TOTAL");
    for (size_t i = 0; i < n; i++) {
        if (i < limit) {
            control_reply(w->req, json_incref(sorted[i]));
            continue;
        }
        json_object_set_new(sorted[i], "domain", json_string("OTHERS"));
        add_row(rows, sorted[i]);
    }
    reply_row(w, rows, "OTHERS");
    for (size_t i = 0; i < n; i++)
        json_decref(sorted[i]);
    free(sorted);
}

static void merge_shape(struct wide *w)
{
    json_t *rows = json_object(), *row, *limit = json_object_get(w->args, "limit");
    size_t at;
    if (!wide_has_lines(w)) {
        json_decref(rows);
        wide_refuse(w);
        return;
    }
    for (unsigned i = 0; i < w->count; i++) {
        json_array_foreach(wide_lines(&w->parts[i]), at, row) add_row(rows, row);
    }
    reply_rows(w, rows, limit ? (size_t)json_integer_value(limit) : SHAPE_ROWS_MAX);
    json_decref(rows);
    wide_finish(w, 0);
}

void wide_shape(struct control_request *req, json_t *args, void *ctx)
{
    json_t *part = json_copy(args);
    int64_t limit = SHAPE_ROWS_MAX;
    if (!control_arg_int(req, args, "limit", 1, SHAPE_ROWS_MAX, &limit)) {
        json_decref(part);
        return;
    }
    json_object_set_new(part, "limit", json_integer(SHAPE_ROWS));
    wide_start(ctx, req, req->command, args, part, merge_shape);
}
