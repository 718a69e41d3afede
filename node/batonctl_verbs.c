/* SPDX-License-Identifier: Apache-2.0 */
/* `queue hold|release|retry|expire|bounce|drop`. */
#include <inttypes.h>
#include <stdio.h>

#include "node/batonctl.h"

static const char *past_of(const struct command_line *line)
{
    static const char *const words[][2] = {{"queue hold", "held"},
        {"queue release", "released"}, {"queue retry", "due now"},
        {"queue expire", "expired"}, {"queue bounce", "bounced"},
        {"queue drop", "dropped"}};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strcmp(line->command->name, words[i][0]) == 0)
            return words[i][1];
    return "done";
}

static void print_count(const json_t *row, const char *key, const char *word)
{
    char count[32];
    int64_t n = get_int(row, key);
    if (n == 0)
        return;
    count_format(n, count);
    printf(", %s %s", count, word);
}

static void print_counts(const json_t *row, const char *past)
{
    char matched[32], changed[32];
    count_format(get_int(row, "matched"), matched);
    count_format(get_int(row, "changed"), changed);
    printf("%s matched", matched);
    if (!past) {
        printf(" (nothing was changed)\n");
        return;
    }
    printf(", %s %s", changed, past);
    print_count(row, "busy", "busy: being delivered now");
    print_count(row, "failed", "failed");
    print_count(row, "waiting", "waiting: their node is down, nobody has taken over yet");
    putchar('\n');
}

static void verb_line(struct ctl *ctl, json_t *row, void *ctx)
{
    const struct command_line *line = ctx;
    const char *past = get_bool(row, "dry_run") ? NULL : past_of(line);
    json_t *nodes = json_object_get(row, "nodes"), *node;
    size_t i;
    print_counts(row, past);
    json_array_foreach(nodes, i, node)
    {
        struct slice error = get_text(node, "error");
        if (json_array_size(nodes) < 2 && error.len == 0)
            continue;
        printf("  ");
        text_put(get_text(node, "node"));
        printf(": ");
        print_counts(node, past);
        if (error.len == 0)
            continue;
        paint(ctl, RED, "    ");
        text_put(error);
        putchar('\n');
    }
}

int run_queue_verb(struct ctl *ctl, const struct command_line *line)
{
    json_t *args = filter_args(line, NULL);
    if (line->positional_count)
        json_object_set_new(args, "id", json_string(line->positional[0]));
    if (option_value(line, "--all"))
        json_object_set_new(args, "all", json_true());
    if (option_value(line, "--dry-run"))
        json_object_set_new(args, "dry_run", json_true());
    return ctl_call(
        ctl, line->command->name, args, true, verb_line, (void *)(uintptr_t)line);
}
