/* SPDX-License-Identifier: Apache-2.0 */
/* `resolve`, `reload`, `log`, `allow`, `user lock`. */
#include <inttypes.h>
#include <stdio.h>

#include "node/batonctl.h"

static void print_record(const json_t *record)
{
    static const char *const keys[] = {"name", "address", "text", "data"};
    printf("  ");
    if (json_object_get(record, "preference"))
        printf("%5" PRId64 "  ", get_int(record, "preference"));
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        text_put(get_text(record, keys[i]));
    putchar('\n');
}

static void resolve_line(struct ctl *ctl, json_t *answer, void *ctx)
{
    struct slice security = get_text(answer, "security"), why = get_text(answer, "why");
    struct slice name = get_text(answer, "name"),
                 canonical = get_text(answer, "canonical");
    bool ok = slice_eq(get_text(answer, "result"), SLICE("OK"));
    char ttl[24];
    size_t i;
    json_t *record;
    (void)ctx;
    text_put(name);
    printf(" ");
    text_put(get_text(answer, "type"));
    printf("  ");
    paint(ctl,
        slice_eq(security, SLICE("secure"))  ? GREEN
        : slice_eq(security, SLICE("bogus")) ? RED
                                             : PLAIN,
        "%.*s", SLICE_ARG(security));
    duration_format(get_int(answer, "ttl") * 1000, ttl);
    printf("  ttl %s, took %" PRId64 " ms\n", ttl, get_int(answer, "took_ms"));
    if (canonical.len && !slice_eq_nocase(canonical, name)) {
        printf("  alias of ");
        text_put(canonical);
        putchar('\n');
    }
    if (!ok) {
        /* The sentence says it all; the error's own words are for when there is none. */
        paint(ctl, RED, "  no answer: ");
        text_put(why.len ? why : get_text(answer, "text"));
        putchar('\n');
    } else if (json_array_size(json_object_get(answer, "records")) == 0) {
        printf("  the name exists, but has no such record\n");
    }
    json_array_foreach(json_object_get(answer, "records"), i, record)
        print_record(record);
}

int run_resolve(struct ctl *ctl, const struct command_line *line)
{
    json_t *args = json_pack("{s:s}", "name", line->positional[0]);
    if (line->positional_count > 1)
        json_object_set_new(args, "type", json_string(line->positional[1]));
    return ctl_call(ctl, "resolve", args, false, resolve_line, NULL);
}

static void print_list(const json_t *list, const char *title)
{
    size_t i;
    json_t *one;
    if (json_array_size(list) == 0)
        return;
    printf("%s", title);
    json_array_foreach(list, i, one)
    {
        printf(i ? ", " : " ");
        text_put(slice_make(json_string_value(one), json_string_length(one)));
    }
    putchar('\n');
}

static void reload_line(struct ctl *ctl, json_t *answer, void *ctx)
{
    (void)ctx;
    print_list(json_object_get(answer, "changed"), "changed:");
    if (json_array_size(json_object_get(answer, "restart_needed"))) {
        paint(ctl, YELLOW, "only after a restart:");
        print_list(json_object_get(answer, "restart_needed"), "");
    }
}

int run_reload(struct ctl *ctl, const struct command_line *line)
{
    (void)line;
    int code = ctl_call(ctl, "reload", json_object(), true, reload_line, NULL);
    if (code == EXIT_WELL && !ctl->json)
        printf("reloaded\n");
    return code;
}

static void log_line(struct ctl *ctl, json_t *answer, void *ctx)
{
    (void)ctl;
    (void)ctx;
    printf("log level is %.*s, was %.*s; log.level in the settings holds from the next "
           "start\n",
        SLICE_ARG(get_text(answer, "level")), SLICE_ARG(get_text(answer, "was")));
}

static void clock_line(struct ctl *ctl, json_t *answer, void *ctx)
{
    (void)ctl;
    (void)ctx;
    printf("the clock is accepted: %.*s\n", SLICE_ARG(get_text(answer, "time")));
}

int run_clock_accept(struct ctl *ctl, const struct command_line *line)
{
    (void)line;
    return ctl_call(ctl, "clock accept", json_object(), false, clock_line, NULL);
}

int run_log(struct ctl *ctl, const struct command_line *line)
{
    json_t *args = json_pack("{s:s}", "level", line->positional[0]);
    return ctl_call(ctl, "log", args, false, log_line, NULL);
}

static const char *iso_of(int64_t ms, char out[32])
{
    wall_format_iso((struct wall){ms}, out);
    return out;
}

static void allow_line(struct ctl *ctl, json_t *row, void *ctx)
{
    (void)ctl;
    (void)ctx;
    text_put(get_text(row, "key"));
    if (get_bool(row, "gone"))
        printf(": taken back\n");
    else if (get_int(row, "until"))
        printf(": until %s\n", iso_of(get_int(row, "until"), (char[32]){0}));
    else
        printf(": until it is taken back\n");
}

int run_allow(struct ctl *ctl, const struct command_line *line)
{
    const char *how_long = option_value(line, "--for");
    json_t *args = json_pack("{s:s}", "net", line->positional[0]);
    if (how_long)
        json_object_set_new(args, "for", json_string(how_long));
    return ctl_call(ctl, line->command->name, args, false, allow_line, NULL);
}

int run_user_lock(struct ctl *ctl, const struct command_line *line)
{
    json_t *args = json_pack("{s:s}", "user", line->positional[0]);
    return ctl_call(ctl, line->command->name, args, false, allow_line, NULL);
}

static void allow_ls_line(struct ctl *ctl, json_t *row, void *ctx)
{
    struct slice until = get_text(row, "until"), net = get_text(row, "net");
    char age[32];
    (void)ctx;
    text_put(net.len ? net : get_text(row, "user"));
    age_format(ctl, row, "since", age);
    printf("  since %s, said at ", age);
    text_put(get_text(row, "by"));
    if (until.len) {
        age_format(ctl, row, "until", age);
        printf(", for %s more", age);
    }
    putchar('\n');
}

int run_allow_ls(struct ctl *ctl, const struct command_line *line)
{
    return ctl_call(ctl, line->command->name, json_object(), false, allow_ls_line, NULL);
}
