/* SPDX-License-Identifier: Apache-2.0 */
/* `trace` and `events`: records of the log as a timeline. */
#include <inttypes.h>
#include <stdio.h>

#include "node/batonctl.h"

/* Keys that have their own place, or a line of their own because they are long. */
static bool has_its_place(const char *key)
{
    static const char *const keys[] = {"time", "event", "id", "level"};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (strcmp(keys[i], key) == 0)
            return true;
    return false;
}

static bool is_long(const char *key)
{
    return strcmp(key, "reply") == 0 || strcmp(key, "text") == 0 ||
           strcmp(key, "why") == 0 || strcmp(key, "next_step") == 0;
}

static bool needs_quotes(struct slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] == ' ' || text.ptr[i] == '"' || text.ptr[i] == '=')
            return true;
    return text.len == 0;
}

/* With blanks in it, in quotes; quotes in it are doubled away as \". */
static void put_quoted(struct slice text)
{
    putchar('"');
    while (text.len) {
        size_t quote = slice_find(text, '"');
        text_put(slice_head(text, quote));
        if (quote < text.len)
            fputs("\\\"", stdout);
        text = slice_from(text, quote + 1);
    }
    putchar('"');
}

static void print_value(const json_t *value)
{
    if (json_is_integer(value)) {
        printf("%" PRId64, (int64_t)json_integer_value(value));
    } else if (json_is_boolean(value)) {
        printf(json_is_true(value) ? "true" : "false");
    } else if (json_is_string(value)) {
        struct slice text =
            slice_make(json_string_value(value), json_string_length(value));
        if (needs_quotes(text))
            put_quoted(text);
        else
            text_put(text);
    }
}

static void print_pair(struct ctl *ctl, const char *key, const json_t *value)
{
    printf("  ");
    paint(ctl, DIM, "%s=", key);
    print_value(value);
}

/* All in one line, for those who follow with grep; what an event says in words comes
 * last. */
static void print_in_line(struct ctl *ctl, json_t *event)
{
    const char *key;
    json_t *value;
    struct slice text = get_text(event, "text");
    json_object_foreach(event, key, value)
    {
        if (!has_its_place(key) && strcmp(key, "node") != 0 && strcmp(key, "text") != 0)
            print_pair(ctl, key, value);
    }
    if (text.len) {
        printf("  ");
        text_put(text);
    }
    putchar('\n');
}

/* Long values on lines of their own. */
static void print_in_block(struct ctl *ctl, json_t *event)
{
    const char *key;
    json_t *value;
    json_object_foreach(event, key, value)
    {
        if (!has_its_place(key) && !is_long(key))
            print_pair(ctl, key, value);
    }
    putchar('\n');
    json_object_foreach(event, key, value)
    {
        if (!is_long(key) || !json_is_string(value))
            continue;
        printf("                          ");
        paint(ctl, DIM, "%s: ", key);
        text_put(slice_make(json_string_value(value), json_string_length(value)));
        putchar('\n');
    }
}

/* "2026-11-22 15:43:38.123": ISO, with the T and Z that nobody needs taken out. */
static void print_time(struct slice time)
{
    struct wall t;
    if (iso_parse(time, &t))
        printf("%.*s %.*s", SLICE_ARG(slice_head(time, 10)),
            SLICE_ARG(slice_head(slice_from(time, 11), 12)));
    else
        text_put(time);
}

static void print_event(struct ctl *ctl, json_t *event, bool with_id)
{
    struct slice name = get_text(event, "event"), id = get_text(event, "id");
    print_time(get_text(event, "time"));
    printf("   ");
    paint(ctl, event_colour(name, get_text(event, "level")), "%.*s", SLICE_ARG(name));
    printf("%*s", name.len < 10 ? (int)(10 - name.len) : 0, "");
    if (!with_id) {
        print_in_block(ctl, event);
        return;
    }
    if (id.len) {
        printf("  ");
        paint(ctl, DIM, "id=");
        text_put(id);
    }
    print_in_line(ctl, event);
}

struct timeline {
    char id[64];
    bool any;
};

static void trace_line(struct ctl *ctl, json_t *event, void *ctx)
{
    struct timeline *t = ctx;
    struct slice id = get_text(event, "id");
    if (!t->any || !slice_eq(id, slice_str(t->id))) {
        if (t->any)
            putchar('\n');
        paint(ctl, BOLD, "%.*s", SLICE_ARG(slice_head(id, 60)));
        printf("  (times are UTC)\n");
        snprintf(t->id, sizeof(t->id), "%.*s", SLICE_ARG(slice_head(id, 60)));
        t->any = true;
    }
    print_event(ctl, event, false);
}

int run_trace(struct ctl *ctl, const struct command_line *line)
{
    struct timeline t = {0};
    const char *limit = option_value(line, "--limit");
    uint64_t n = 20;
    if (limit && (!slice_u64(slice_str(limit), 1000, &n) || n == 0)) {
        fprintf(stderr, "batonctl: --limit wants a number from 1 to 1000\n");
        return EXIT_USAGE;
    }
    json_t *args =
        json_pack("{s:s,s:I}", "what", line->positional[0], "limit", (json_int_t)n);
    return ctl_call(ctl, "trace", args, true, trace_line, &t);
}

static void events_line(struct ctl *ctl, json_t *event, void *ctx)
{
    (void)ctx;
    if (slice_eq(get_text(event, "event"), SLICE("events_lost"))) {
        paint(ctl, YELLOW, "-- %" PRId64 " events were missed here --\n",
            get_int(event, "count"));
        return;
    }
    print_event(ctl, event, true);
}

int run_events(struct ctl *ctl, const struct command_line *line)
{
    const char *last = option_value(line, "--last"),
               *level = option_value(line, "--level");
    bool follow = option_value(line, "--follow") != NULL;
    uint64_t n = 50;
    if (last && !slice_u64(slice_str(last), 10000, &n)) {
        fprintf(stderr, "batonctl: --last wants a number from 0 to 10000\n");
        return EXIT_USAGE;
    }
    json_t *args = json_pack("{s:b,s:I}", "follow", follow, "last", (json_int_t)n);
    if (level)
        json_object_set_new(args, "level", json_string(level));
    return ctl_call(ctl, "events", args, follow, events_line, NULL);
}
