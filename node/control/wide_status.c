/* SPDX-License-Identifier: Apache-2.0 */
/* `status` of the cluster: a row a member, by the asked node's own view of who belongs
 * and who is alive, with the figures that each gave for itself; sums; and all alarms. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "node/control/members.h"
#include "node/control/wide.h"

/* The one line of a part's answer, or NULL. */
static json_t *status_of(const struct wide_part *part)
{
    return json_array_get(wide_lines(part), 0);
}

static const struct wide_part *part_of(const struct wide *w, const char *name)
{
    for (unsigned i = 0; i < w->count; i++)
        if (strcmp(w->parts[i].name, name) == 0)
            return &w->parts[i];
    return NULL;
}

/* --- mail of those that do not answer, as the holders of its copies tell --- */

static const char *const waiting_keys[] = {"messages", "recipients"};

/* Each unit is told by one holder. */
static json_int_t waiting_for(const struct wide *w, const char *owner, const char *key)
{
    json_t *sum = json_integer(0);
    for (unsigned i = 0; i < w->count; i++) {
        json_t *all = json_object_get(status_of(&w->parts[i]), "waiting");
        json_t *figures = json_is_object(all) ? json_object_get(all, owner) : NULL;
        json_t *figure = json_object_get(figures, key);
        if (!json_is_integer(figure) || json_integer_value(figure) < 0)
            continue;
        json_t *more = json_integer(wide_sum(sum, figure));
        json_decref(sum);
        sum = more;
    }
    json_int_t n = json_integer_value(sum);
    json_decref(sum);
    return n;
}

static void add_waiting(const struct wide *w, const char *owner, json_t *row)
{
    json_int_t messages = waiting_for(w, owner, "messages");
    if (messages == 0)
        return; /* perhaps nobody knows */
    json_object_set_new(row, "queued", json_integer(messages));
    json_object_set_new(row, "waiting", json_true());
}

/* It is in the queue, and nobody may deliver it yet. */
static void count_waiting(
    const struct wide *w, const struct engine_status *st, json_t *queue)
{
    json_int_t messages = 0;
    for (unsigned i = 0; i < st->member_count; i++) {
        const struct engine_member *m = &st->members[i];
        const struct wide_part *part = part_of(w, m->name);
        if (m->state == MEMBER_LEFT || m->is_self || (part && status_of(part)))
            continue;
        for (size_t k = 0; k < 2; k++) {
            const char *key = waiting_keys[k];
            json_t *n = json_integer(waiting_for(w, m->name, key));
            messages += k == 0 ? json_integer_value(n) : 0;
            json_object_set_new(
                queue, key, json_integer(wide_sum(json_object_get(queue, key), n)));
            json_decref(n);
        }
    }
    json_object_set_new(queue, "waiting", json_integer(messages));
}

/* --- nodes --- */

/* Of what the member says of itself we keep the figures; whether it belongs and lives is
 * for us to say. */
static json_t *row_of(const struct wide *w, const struct engine_member *m)
{
    const struct wide_part *part = part_of(w, m->name);
    json_t *own =
        part ? json_array_get(json_object_get(status_of(part), "nodes"), 0) : NULL;
    json_t *row = member_json(m);
    bool answered = json_is_object(own);
    if (answered) {
        json_t *figures = json_copy(own);
        static const char *const ours[] = {"id", "member", "view", "session"};
        for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
            json_object_set(figures, ours[i], json_object_get(row, ours[i]));
        json_object_set_new(figures, "view_age_s", json_integer(0));
        json_decref(row);
        row = figures;
    }
    json_object_set_new(row, "answered", json_boolean(answered));
    if (!answered)
        add_waiting(w, m->name, row);
    return row;
}

static json_t *merge_nodes(const struct wide *w, const struct engine_status *st)
{
    json_t *rows = json_array();
    for (unsigned i = 0; i < st->member_count; i++)
        if (st->members[i].state != MEMBER_LEFT)
            json_array_append_new(rows, row_of(w, &st->members[i]));
    /* Before it belongs: itself. */
    json_t *own = json_array_get(json_object_get(status_of(&w->parts[0]), "nodes"), 0);
    if (json_array_size(rows) == 0 && own)
        json_array_append(rows, own);
    return rows;
}

/* --- the queue and rates: sums --- */

static void add_up(json_t *sum, const json_t *part)
{
    const char *key;
    json_t *value, *before;
    json_object_foreach((json_t *)(uintptr_t)part, key, value)
    {
        before = json_object_get(sum, key);
        if (json_is_real(value))
            json_object_set_new(
                sum, key, json_real(json_number_value(before) + json_real_value(value)));
        else if (json_is_integer(value) && json_integer_value(value) >= 0)
            json_object_set_new(sum, key, json_integer(wide_sum(before, value)));
        else if (json_is_boolean(value) && !json_is_true(before))
            json_object_set(sum, key, value);
    }
}

static json_t *merge_sums(const struct wide *w, const char *key)
{
    json_t *sum = json_object();
    json_int_t oldest = -1;
    for (unsigned i = 0; i < w->count; i++) {
        json_t *part = json_object_get(status_of(&w->parts[i]), key);
        json_t *age = json_object_get(part, "oldest_age_s");
        if (!json_is_object(part))
            continue;
        add_up(sum, part);
        if (json_is_integer(age) && json_integer_value(age) > oldest)
            oldest = json_integer_value(age);
    }
    if (strcmp(key, "queue") == 0)
        json_object_set_new(
            sum, "oldest_age_s", oldest < 0 ? json_null() : json_integer(oldest));
    return sum;
}

static json_t *merge_lists(const struct wide *w, const char *key)
{
    json_t *all = json_array();
    for (unsigned i = 0; i < w->count; i++) {
        json_t *list = json_object_get(status_of(&w->parts[i]), key);
        if (json_is_array(list))
            json_array_extend(all, list);
    }
    return all;
}

/* --- alarms --- */

static json_t *same_alarm(json_t *alarms, const json_t *alarm)
{
    size_t i;
    json_t *one;
    bool wide = json_is_true(json_object_get(alarm, "cluster"));
    json_array_foreach(alarms, i, one)
    {
        if (json_equal(json_object_get(one, "code"), json_object_get(alarm, "code")) &&
            (wide ||
                json_equal(json_object_get(one, "text"), json_object_get(alarm, "text"))))
            return one;
    }
    return NULL;
}

/* The same alarm of several nodes is one, with all their names; one about the cluster is
 * told in the words of whom we asked. */
static void take_alarm(json_t *alarms, json_t *alarm, const char *node)
{
    const char *code = json_string_value(json_object_get(alarm, "code"));
    /* Told below with the names of the keys. */
    if (!json_is_object(alarm) || !code || strcmp(code, "settings_differ") == 0)
        return;
    json_t *known = same_alarm(alarms, alarm);
    if (!known) {
        known = json_copy(alarm);
        json_object_set_new(known, "nodes", json_array());
        json_array_append_new(alarms, known);
    }
    json_array_append_new(json_object_get(known, "nodes"), control_text(slice_str(node)));
}

static void add_alarm(json_t *alarms, const char *code, const char *severity,
    const char *next_step, struct buf *text)
{
    json_t *one = json_pack("{s:s,s:s,s:b,s:s}", "code", code, "severity", severity,
        "cluster", 1, "next_step", next_step);
    json_set_text(one, "text", buf_slice(text));
    json_array_append_new(alarms, one);
    buf_clear(text);
}

/* Of those that are known to be down an alarm tells already. */
static void silent_alarm(const struct wide *w, const struct engine_status *st,
    json_t *alarms, struct buf *text)
{
    unsigned count = 0;
    for (unsigned i = 0; i < w->count; i++) {
        const struct engine_member *m = member_find(st, w->parts[i].name);
        if (!w->parts[i].answer && !(m && m->view == 2))
            buf_printf(text, "%s%s", count++ ? ", " : "", w->parts[i].name);
    }
    if (!count)
        return;
    buf_append_str(text, " did not answer: the figures are without ");
    buf_append_str(text, count == 1 ? "it" : "them");
    add_alarm(alarms, "no_answer", "degraded",
        "see whether batond runs there and the network between the nodes is well", text);
}

/* Keys whose hashes differ; those that only one of the two has, too. */
static unsigned differing(json_t *ours, json_t *theirs, struct buf *out)
{
    const char *key;
    json_t *value;
    unsigned count = 0;
    json_object_foreach(ours, key, value)
    {
        if (!json_equal(value, json_object_get(theirs, key)) && ++count <= 8)
            buf_printf(out, "%s%s", count > 1 ? ", " : "", key);
    }
    json_object_foreach(theirs, key, value)
    {
        if (!json_object_get(ours, key) && ++count <= 8)
            buf_printf(out, "%s%.40s", count > 1 ? ", " : "", key);
    }
    if (count > 8)
        buf_printf(out, " and %u more", count - 8);
    return count;
}

static void settings_alarms(const struct wide *w, json_t *alarms, struct buf *text)
{
    json_t *own = status_of(&w->parts[0]);
    json_t *ours = json_object_get(own, "settings");
    json_t *hash =
        json_object_get(json_array_get(json_object_get(own, "nodes"), 0), "config");
    for (unsigned i = 1; i < w->count; i++) {
        json_t *status = status_of(&w->parts[i]);
        json_t *node = json_array_get(json_object_get(status, "nodes"), 0);
        if (!node || !hash || json_equal(json_object_get(node, "config"), hash))
            continue;
        buf_printf(text, "settings of %s differ from %s's: ", w->parts[i].name,
            w->parts[0].name);
        if (!differing(ours, json_object_get(status, "settings"), text))
            buf_append_str(text, "it is of another version");
        add_alarm(alarms, "settings_differ", "degraded",
            "make them the same in both settings files, then batonctl reload on each "
            "node",
            text);
    }
}

static void version_alarm(const struct wide *w, json_t *alarms, struct buf *text)
{
    unsigned count = 0;
    for (unsigned i = 0; i < w->count; i++) {
        json_t *node =
            json_array_get(json_object_get(status_of(&w->parts[i]), "nodes"), 0);
        const char *version = json_string_value(json_object_get(node, "version"));
        if (version && strcmp(version, BATON_VERSION) != 0)
            buf_printf(
                text, "%s%s has %.20s", count++ ? ", " : "", w->parts[i].name, version);
    }
    if (!count)
        return;
    buf_printf(text, "; %s has %s", w->parts[0].name, BATON_VERSION);
    add_alarm(alarms, "versions_differ", "notice",
        "finish the upgrade: one node after the other", text);
}

static json_t *merge_alarms(const struct wide *w, const struct engine_status *st)
{
    json_t *alarms = json_array(), *alarm;
    struct buf text;
    size_t at;
    buf_init(&text, 4096);
    for (unsigned i = 0; i < w->count; i++) {
        json_array_foreach(json_object_get(status_of(&w->parts[i]), "alarms"), at, alarm)
            take_alarm(alarms, alarm, w->parts[i].name);
    }
    silent_alarm(w, st, alarms, &text);
    settings_alarms(w, alarms, &text);
    version_alarm(w, alarms, &text);
    buf_fini(&text);
    return alarms;
}

static int worst(json_t *alarms)
{
    int code = 0;
    size_t i;
    json_t *one;
    json_array_foreach(alarms, i, one)
    {
        const char *severity = json_string_value(json_object_get(one, "severity"));
        int this = !severity                           ? 0
                   : strcmp(severity, "at_risk") == 0  ? 3
                   : strcmp(severity, "degraded") == 0 ? 2
                                                       : 0;
        code = this > code ? this : code;
    }
    return code;
}

static void merge_status(struct wide *w)
{
    const struct control_peers *peers = w->handlers->sources.peers;
    struct engine_status *st = mem_alloc(sizeof(*st));
    peers->status(peers->ctx, st);
    json_t *s = json_object(), *alarms = merge_alarms(w, st);
    json_object_set_new(s, "cluster", cluster_json(st));
    json_object_set_new(s, "nodes", merge_nodes(w, st));
    json_t *queue = merge_sums(w, "queue");
    count_waiting(w, st, queue);
    json_object_set_new(s, "queue", queue);
    json_object_set_new(s, "rates", merge_sums(w, "rates"));
    json_object_set_new(s, "egress", merge_lists(w, "egress"));
    json_object_set_new(s, "alarms", alarms);
    int code = worst(alarms);
    control_reply(w->req, s);
    free(st);
    wide_finish(w, code);
}

void wide_status(struct control_request *req, json_t *args, void *ctx)
{
    wide_start(ctx, req, req->command, args, json_pack("{s:b}", "part", 1), merge_status);
}

/* The rows of `status`, a line each. */
static void merge_members(struct wide *w)
{
    const struct control_peers *peers = w->handlers->sources.peers;
    struct engine_status *st = mem_alloc(sizeof(*st));
    size_t i;
    json_t *row;
    peers->status(peers->ctx, st);
    json_t *rows = merge_nodes(w, st);
    json_array_foreach(rows, i, row) control_reply(w->req, json_incref(row));
    json_decref(rows);
    free(st);
    wide_finish(w, 0);
}

void wide_nodes(struct control_request *req, json_t *args, void *ctx)
{
    wide_start(ctx, req, "status", args, json_pack("{s:b}", "part", 1), merge_members);
}
