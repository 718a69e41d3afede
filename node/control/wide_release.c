/* SPDX-License-Identifier: Apache-2.0 */
/* `quarantine release` of the cluster: asks every node what it knows of the unit, and
 * only when nobody has it, has delivered it or might have, one node that has it aside
 * makes mail of it again. What nobody can tell the operator may take upon himself. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "node/control/release.h"

static json_t *look_of(const struct wide_part *part)
{
    return json_array_get(wide_lines(part), 0);
}

static bool says(const struct wide_part *part, const char *key)
{
    return json_is_true(json_object_get(look_of(part), key));
}

__attribute__((format(printf, 3, 4))) static void refuse(
    struct wide *w, const char *next_step, const char *format, ...)
{
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    wide_refuse_with(w, control_text(slice_str(text)), next_step);
}

/* The one that makes mail of it: ourselves, if we have it. NULL: nobody can. */
static struct wide_part *chosen(const struct wide *w)
{
    for (unsigned i = 0; i < w->count; i++)
        if (says(&w->parts[i], "aside") && says(&w->parts[i], "releasable"))
            return &w->parts[i];
    return NULL;
}

static const struct wide_part *who_says(const struct wide *w, const char *key)
{
    for (unsigned i = 0; i < w->count; i++)
        if (says(&w->parts[i], key))
            return &w->parts[i];
    return NULL;
}

/* Somebody knows already that it must not be. */
static bool is_refused(struct wide *w)
{
    const struct wide_part *live = who_says(w, "live");
    for (unsigned i = 0; i < w->count; i++) {
        json_t *as = json_object_get(look_of(&w->parts[i]), "released_as");
        if (!json_is_string(as))
            continue;
        refuse(w,
            who_says(w, "aside") ? "batonctl trace says what became of it; batonctl "
                                   "quarantine drop removes what is left"
                                 : "batonctl trace says what became of it",
            "it was released before, on %s, as %.40s", w->parts[i].name,
            json_string_value(as));
        return true;
    }
    if (live) {
        refuse(w, "batonctl quarantine drop it, or wait until that copy has ended",
            "%s has it, or a copy of it, in its queue: it is delivered from there",
            live->name);
        return true;
    }
    if (!who_says(w, "aside"))
        refuse(w, "batonctl quarantine ls shows what is",
            "no node that answered has such a message in its quarantine");
    else if (!chosen(w))
        refuse(w, "batonctl quarantine show says what is whole; ask its sender again",
            "too little of it is whole on %s", who_says(w, "aside")->name);
    else
        return false;
    return true;
}

/* Who may have delivered it and cannot say so: names, with the reason. Returns how many.
 */
static unsigned unsure(const struct wide *w, int64_t created_ms, struct buf *out)
{
    unsigned count = 0;
    for (unsigned i = 0; i < w->count; i++) {
        const struct wide_part *part = &w->parts[i];
        json_t *since = json_object_get(look_of(part), "since_ms");
        char time[32];
        if (json_is_integer(since) && json_integer_value(since) <= created_ms)
            continue;
        buf_append_str(out, count++ ? "; " : "");
        if (!json_is_integer(since)) {
            buf_printf(out, "%s did not answer", part->name);
            continue;
        }
        wall_format_iso((struct wall){json_integer_value(since)}, time);
        buf_printf(out, "%s remembers only since %s", part->name, time);
    }
    return count;
}

static json_t *fates_of(const struct wide *w)
{
    json_t *all = json_array();
    for (unsigned i = 0; i < w->count; i++) {
        json_t *fates = json_object_get(look_of(&w->parts[i]), "fates");
        if (json_is_array(fates))
            json_array_extend(all, fates);
    }
    return all;
}

static json_t *names_aside(const struct wide *w, const struct wide_part *but)
{
    json_t *names = json_array();
    for (unsigned i = 0; i < w->count; i++)
        if (&w->parts[i] != but && says(&w->parts[i], "aside"))
            json_array_append_new(names, control_text(slice_str(w->parts[i].name)));
    return names;
}

struct release_state {
    struct wide_part *asked;
    json_t *also_aside;
};

static void state_free(void *state)
{
    struct release_state *rs = state;
    json_decref(rs->also_aside);
    free(rs);
}

static void released(struct wide *w)
{
    struct release_state *rs = w->state;
    const struct wide_part *part = rs->asked;
    json_t *line = look_of(part);
    const char *error = json_string_value(json_object_get(part->answer, "error"));
    const char *next = json_string_value(json_object_get(part->answer, "next_step"));
    if (!part->answer) {
        refuse(w,
            "batonctl quarantine ls shows whether it did; releasing it again never "
            "makes a second message",
            "%s did not say in time whether it released it", part->name);
    } else if (!line) {
        refuse(w, next ? next : "see its log", "%s: %s", part->name,
            error ? error : "it was not released");
    } else {
        if (json_array_size(rs->also_aside))
            json_object_set(line, "also_aside", rs->also_aside);
        control_reply(w->req, json_incref(line));
        wide_finish(w, 0);
    }
}

static void let_go(struct wide *w, struct wide_part *part, bool forced)
{
    json_t *args = json_pack("{s:O,s:b,s:b,s:o}", "id", json_object_get(w->args, "id"),
        "asked", 1, "may_duplicate", forced, "skip", fates_of(w));
    struct release_state *rs = mem_zalloc(sizeof(*rs));
    rs->asked = part;
    rs->also_aside = names_aside(w, part);
    w->state = rs;
    w->state_free = state_free;
    w->command = "quarantine release";
    wide_again(w, part, args, released);
}

static void looked(struct wide *w)
{
    struct buf text;
    if (is_refused(w))
        return;
    struct wide_part *part = chosen(w);
    bool forced = json_is_true(json_object_get(w->args, "may_duplicate"));
    json_t *created = json_object_get(look_of(part), "created_ms");
    buf_init(&text, 2048);
    unsigned count = unsure(w, json_integer_value(created), &text);
    if (count && !forced)
        refuse(w,
            "start the nodes that are missing and say it again; or accept a possible "
            "duplicate (D6) with --may-duplicate",
            "it may have been delivered already: %.*s", SLICE_ARG(buf_slice(&text)));
    else
        let_go(w, part, count != 0);
    buf_fini(&text);
}

void wide_release(struct control_request *req, json_t *args, void *ctx)
{
    struct unit_id id;
    bool forced;
    if (quarantine_take_id(req, args, &id) &&
        control_arg_bool(req, args, "may_duplicate", &forced))
        wide_start(ctx, req, "quarantine look", args,
            json_pack("{s:O}", "id", json_object_get(args, "id")), looked);
}
