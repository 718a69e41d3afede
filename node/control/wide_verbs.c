/* SPDX-License-Identifier: Apache-2.0 */
/* `queue hold|release|...` in the cluster: each node acts on its own mail, a page at a
 * time so that none is waited for too long, and what they did is added up. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "node/control/wide.h"

static const char *const counts[] = {"matched", "changed", "busy", "failed", "waiting"};
#define COUNTS (sizeof(counts) / sizeof(counts[0]))

struct verb_part {
    json_t *sum;   /* its line so far */
    json_t *go_on; /* "after" and "before" of its last page; NULL: it is through */
    bool lost;     /* answered once, and no more */
};
struct verb_state {
    struct verb_part *parts;
    unsigned count;
    struct wide_part *asked;
};

static void state_free(void *state)
{
    struct verb_state *vs = state;
    for (unsigned i = 0; i < vs->count; i++) {
        json_decref(vs->parts[i].sum);
        json_decref(vs->parts[i].go_on);
    }
    free(vs->parts);
    free(vs);
}

static void add_counts(json_t *sum, const json_t *row)
{
    for (size_t i = 0; i < COUNTS; i++)
        json_object_set_new(sum, counts[i],
            json_integer(wide_sum(
                json_object_get(sum, counts[i]), json_object_get(row, counts[i]))));
}

static void take_error(json_t *sum, const json_t *from)
{
    json_t *error = json_object_get(from, "error");
    if (json_is_string(error))
        json_object_set(sum, "error", error);
}

static void look_at_page(const struct wide_part *part, struct verb_part *vp)
{
    json_t *row = json_array_get(wide_lines(part), 0);
    json_t *after = json_object_get(row, "after"),
           *before = json_object_get(row, "before");
    bool more = json_is_true(json_object_get(row, "more")) && json_is_string(after) &&
                json_is_integer(before) &&
                !json_equal(after, json_object_get(vp->go_on, "after"));
    json_decref(vp->go_on);
    vp->go_on = more ? json_pack("{s:O,s:O}", "after", after, "before", before) : NULL;
    vp->lost = !part->answer;
    if (!part->answer)
        return;
    if (!vp->sum)
        vp->sum = json_pack("{s:s}", "node", part->name);
    add_counts(vp->sum, row);
    take_error(vp->sum, part->answer);
    take_error(vp->sum, row);
}

static void reply_sum(struct wide *w)
{
    struct verb_state *vs = w->state;
    json_t *all = json_object(), *nodes = json_array();
    bool well = true;
    for (unsigned i = 0; i < w->count; i++) {
        struct verb_part *vp = &vs->parts[i];
        add_counts(all, vp->sum);
        well = well && !vp->lost && !json_object_get(vp->sum, "error");
        if (vp->sum)
            json_array_append(nodes, vp->sum);
    }
    json_object_set_new(
        all, "dry_run", json_boolean(json_is_true(json_object_get(w->args, "dry_run"))));
    json_object_set_new(all, "nodes", nodes);
    control_reply(w->req, all);
    wide_finish(w, well ? 0 : 1);
}

static void next_page(struct wide *w);

static void page_here(struct wide *w)
{
    struct verb_state *vs = w->state;
    look_at_page(vs->asked, &vs->parts[vs->asked - w->parts]);
    next_page(w);
}

static void next_page(struct wide *w)
{
    struct verb_state *vs = w->state;
    for (unsigned i = 0; i < w->count && !control_is_gone(w->req); i++) {
        if (!vs->parts[i].go_on)
            continue;
        json_t *args = json_copy(w->args);
        json_object_update(args, vs->parts[i].go_on);
        json_object_set_new(args, "page", json_true());
        vs->asked = &w->parts[i];
        wide_again(w, vs->asked, args, page_here);
        return;
    }
    reply_sum(w);
}

static void merge_verb(struct wide *w)
{
    struct verb_state *vs = mem_zalloc(sizeof(*vs));
    vs->parts = mem_zalloc(w->count * sizeof(*vs->parts));
    vs->count = w->count;
    w->state = vs;
    w->state_free = state_free;
    if (!wide_has_lines(w)) {
        wide_refuse(w);
        return;
    }
    for (unsigned i = 0; i < w->count; i++)
        look_at_page(&w->parts[i], &vs->parts[i]);
    next_page(w);
}

void wide_verb(struct control_request *req, json_t *args, void *ctx)
{
    json_t *part = json_copy(args);
    json_object_set_new(part, "page", json_true());
    wide_start(ctx, req, req->command, args, part, merge_verb);
}
