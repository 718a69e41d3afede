/* SPDX-License-Identifier: Apache-2.0 */
/* `status`: the page one looks at first. */
#include <inttypes.h>
#include <stdio.h>

#include "node/batonctl.h"

static void keep(struct ctl *ctl, json_t *object, void *ctx)
{
    json_t **kept = ctx;
    (void)ctl;
    json_decref(*kept);
    *kept = json_incref(object);
}

static void verdict(const struct ctl *ctl, int code)
{
    if (code == EXIT_AT_RISK)
        paint(ctl, RED, "data at risk");
    else if (code == EXIT_DEGRADED)
        paint(ctl, YELLOW, "degraded");
    else
        paint(ctl, GREEN, "well");
}

static void print_nodes(const struct ctl *ctl, const json_t *nodes)
{
    static const char *const titles[] = {"node", "view", "lease", "version", ">up",
        ">queued", ">received", ">delivered", ">deferred", ">bounced"};
    static const char *const texts[] = {"id", "view", "lease", "version"};
    static const char *const counts[] = {
        "queued", "received_total", "delivered_total", "deferred_total", "bounced_total"};
    struct table t;
    size_t i;
    json_t *node;
    table_init(&t, 10, titles);
    json_array_foreach(nodes, i, node)
    {
        char up[24];
        bool well = slice_eq(get_text(node, "view"), SLICE("alive")) &&
                    slice_eq(get_text(node, "lease"), SLICE("held"));
        table_row(&t, well ? PLAIN : RED);
        for (unsigned c = 0; c < 4; c++)
            table_cell(&t, c, get_text(node, texts[c]));
        duration_format(get_int(node, "uptime_s") * 1000, up);
        table_cell(&t, 4, slice_str(up));
        for (unsigned c = 0; c < 5; c++)
            table_count(&t, 5 + c, get_int(node, counts[c]));
    }
    table_print(ctl, &t);
}

void members_table(struct table *t)
{
    static const char *const titles[] = {"node", "member", "view", "session", "lease",
        "zone", "version", ">seen", ">up", ">queued", ">copies", ">in", ">out"};
    table_init(t, sizeof(titles) / sizeof(titles[0]), titles);
}

static void count_cell(
    struct table *t, unsigned column, const json_t *row, const char *key)
{
    if (json_is_integer(json_object_get(row, key)))
        table_count(t, column, get_int(row, key));
    else
        table_cell(t, column, SLICE("-"));
}

static void age_cell(struct table *t, unsigned column, const json_t *row, const char *key,
    int64_t now_below)
{
    char age[24];
    bool known = json_is_integer(json_object_get(row, key));
    int64_t s = get_int(row, key);
    duration_format(s * 1000, age);
    table_cell(t, column,
        !known          ? SLICE("-")
        : s < now_below ? SLICE("now")
                        : slice_str(age));
}

/* A witness has no lease that says something; others are well with one. */
static enum colour member_colour(const json_t *row)
{
    struct slice view = get_text(row, "view"), lease = get_text(row, "lease");
    struct slice member = get_text(row, "member");
    if (slice_eq(view, SLICE("dead")) || slice_eq(lease, SLICE("lost")))
        return RED;
    if (!slice_eq(view, SLICE("alive")) || !slice_eq(member, SLICE("up")) ||
        json_is_false(json_object_get(row, "answered")))
        return YELLOW;
    return PLAIN;
}

void members_row(struct table *t, const json_t *row)
{
    static const char *const texts[] = {
        "id", "member", "view", "session", "lease", "zone", "version"};
    static const char *const counts[] = {
        "queued", "copies_held", "received_total", "delivered_total"};
    table_row(t, member_colour(row));
    for (unsigned i = 0; i < 7; i++)
        table_cell(t, i, get_text(row, texts[i]));
    if (slice_eq(get_text(row, "role"), SLICE("witness")))
        table_cell(t, 1, SLICE("witness"));
    age_cell(t, 7, row, "view_age_s", 3);
    age_cell(t, 8, row, "uptime_s", 0);
    for (unsigned i = 0; i < 4; i++)
        count_cell(t, 9 + i, row, counts[i]);
}

static void print_members(const struct ctl *ctl, const json_t *nodes)
{
    struct table t;
    size_t i;
    json_t *row;
    members_table(&t);
    json_array_foreach(nodes, i, row) members_row(&t, row);
    table_print(ctl, &t);
}

static void part(const struct ctl *ctl, const json_t *queue, const char *key,
    const char *word, enum colour colour, const char *before)
{
    char text[32];
    int64_t n = get_int(queue, key);
    count_format(n, text);
    fputs(before, stdout);
    paint(ctl, n ? colour : PLAIN, "%s %s", text, word);
}

static void print_queue(const struct ctl *ctl, const json_t *queue)
{
    char messages[32], recipients[32], used[32], quota[32], age[24];
    int64_t n = get_int(queue, "messages"), rcpts = get_int(queue, "recipients");
    int64_t limit = get_int(queue, "quota_bytes");
    count_format(n, messages);
    count_format(rcpts, recipients);
    bytes_format(get_int(queue, "used_bytes"), used);
    bytes_format(limit, quota);
    printf("%s %s for %s %s", messages, plural(n, "message", "messages"), recipients,
        plural(rcpts, "recipient", "recipients"));
    if (json_is_integer(json_object_get(queue, "oldest_age_s"))) {
        duration_format(get_int(queue, "oldest_age_s") * 1000, age);
        printf(", the oldest %s old", age);
    }
    part(ctl, queue, "due", "due", PLAIN, "\n        ");
    part(ctl, queue, "deferred", "deferred", YELLOW, ", ");
    part(ctl, queue, "held", "held", YELLOW, ", ");
    part(ctl, queue, "in_doubt", "in doubt", YELLOW, ", ");
    if (get_int(queue, "waiting"))
        part(ctl, queue, "waiting", "waiting for takeover", YELLOW, ", ");
    part(ctl, queue, "copies_short", "short of copies", RED, ", ");
    part(ctl, queue, "quarantined", "quarantined", RED, ", ");
    printf("\n        %s of %s on disk; ", used, quota);
    if (get_bool(queue, "intake_open"))
        printf("new mail is taken\n");
    else
        paint(ctl, RED, "new mail is refused\n");
}

static double get_real(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static void print_rate(const json_t *rates, const char *key, const char *word)
{
    char text[32];
    double rate = get_real(rates, key);
    if (rate >= 100)
        count_format((int64_t)(rate + 0.5), text);
    else
        snprintf(text, sizeof(text), "%.*f", rate > 0 && rate < 9.95 ? 1 : 0, rate);
    printf("%s %s", text, word);
}

static void print_rates(const json_t *rates)
{
    if (!json_is_object(rates))
        return;
    printf("rates   ");
    print_rate(rates, "received_per_s", "in, ");
    print_rate(rates, "delivered_per_s", "out, ");
    print_rate(rates, "deferred_per_s", "deferred, ");
    print_rate(rates, "bounced_per_s", "bounced a second (last minute)\n");
}

static void print_egress(const struct ctl *ctl, const json_t *egress)
{
    static const char *const titles[] = {"egress", "node", "address", "state"};
    static const char *const keys[] = {"name", "node", "address", "state"};
    struct table t;
    size_t i;
    json_t *one;
    if (json_array_size(egress) == 0)
        return;
    putchar('\n');
    table_init(&t, 4, titles);
    json_array_foreach(egress, i, one)
    {
        bool clean = slice_eq(get_text(one, "state"), SLICE("clean"));
        table_row(&t, clean ? PLAIN : YELLOW);
        for (unsigned c = 0; c < 4; c++)
            table_cell(&t, c, get_text(one, keys[c]));
    }
    table_print(ctl, &t);
}

/* "mx2, mx3: " before what is about single nodes of a cluster. */
static void print_whose(const json_t *alarm)
{
    const json_t *nodes = json_object_get(alarm, "nodes");
    size_t i;
    json_t *name;
    if (get_bool(alarm, "cluster"))
        return;
    json_array_foreach(nodes, i, name)
    {
        fputs(i ? ", " : "", stdout);
        text_put(slice_make(json_string_value(name), json_string_length(name)));
    }
    fputs(json_array_size(nodes) ? ": " : "", stdout);
}

static void print_alarms(const struct ctl *ctl, const json_t *alarms)
{
    size_t i;
    json_t *one;
    json_array_foreach(alarms, i, one)
    {
        struct slice severity = get_text(one, "severity");
        enum colour colour = slice_eq(severity, SLICE("at_risk"))    ? RED
                             : slice_eq(severity, SLICE("degraded")) ? YELLOW
                                                                     : PLAIN;
        putchar('\n');
        paint(ctl, colour, "%s  ", colour == PLAIN ? "note" : "ALARM");
        print_whose(one);
        text_put(get_text(one, "text"));
        printf(" (");
        text_put(get_text(one, "code"));
        printf(")\n       next: ");
        text_put(get_text(one, "next_step"));
        putchar('\n');
    }
}

/* Who has a vote, as far as nodes have answered, and what that is good for. */
static void print_votes(const struct ctl *ctl, const json_t *status)
{
    struct slice mode = get_text(json_object_get(status, "cluster"), "mode");
    unsigned voters = 0;
    size_t i;
    json_t *node;
    json_array_foreach(json_object_get(status, "nodes"), i, node)
    {
        if (!get_bool(node, "voter"))
            continue;
        printf(voters++ ? " " : "voters  ");
        text_put(get_text(node, "id"));
    }
    printf(voters ? "; " : "voters  none has answered; ");
    if (slice_eq(mode, SLICE("static")))
        paint(ctl, YELLOW, "static: nobody takes over by itself");
    else
        printf("quorum%s", voters < 3 ? "" : ": the loss of one is taken over");
    printf("\n\n");
}

int run_status(struct ctl *ctl, const struct command_line *line)
{
    json_t *status = NULL;
    (void)line;
    int code = ctl_call(ctl, "status", json_object(), false, keep, &status);
    if (!status)
        return code;
    struct slice cluster = get_text(json_object_get(status, "cluster"), "name");
    if (cluster.len) {
        text_put(cluster);
        printf(": ");
    }
    verdict(ctl, code);
    printf("\n\n");
    if (cluster.len)
        print_votes(ctl, status);
    if (cluster.len)
        print_members(ctl, json_object_get(status, "nodes"));
    else
        print_nodes(ctl, json_object_get(status, "nodes"));
    printf("\nqueue   ");
    print_queue(ctl, json_object_get(status, "queue"));
    print_rates(json_object_get(status, "rates"));
    print_egress(ctl, json_object_get(status, "egress"));
    print_alarms(ctl, json_object_get(status, "alarms"));
    json_decref(status);
    return code;
}
