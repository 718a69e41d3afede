/* SPDX-License-Identifier: Apache-2.0 */
/* `queue ls`, `queue show`, `queue shape`, `quarantine`. */
#include <inttypes.h>
#include <stdio.h>

#include "node/batonctl.h"

static const char *const filter_options[] = {
    "--from", "--to", "--domain", "--node", "--older", "--reason", "--reply"};
#define FILTERS (sizeof(filter_options) / sizeof(filter_options[0]))

json_t *filter_args(const struct command_line *line, bool *filtered_out)
{
    json_t *args = json_object();
    if (filtered_out)
        *filtered_out = false;
    for (size_t i = 0; i < FILTERS; i++) {
        const char *value = option_value(line, filter_options[i]);
        if (!value)
            continue;
        json_object_set_new(args, filter_options[i] + 2, json_string(value));
        if (filtered_out)
            *filtered_out = true;
    }
    return args;
}

/* An option that is a number; -1 when it is none, with a message. */
static int64_t number_option(
    const struct command_line *line, const char *name, int64_t initial)
{
    const char *value = option_value(line, name);
    uint64_t number;
    if (!value)
        return initial;
    if (slice_u64(slice_str(value), INT64_MAX, &number) && number > 0)
        return (int64_t)number;
    fprintf(stderr, "batonctl: %s wants a number from 1, not \"%s\"\n", name, value);
    return -1;
}

/* --- ls --- */

struct totals {
    int64_t units, recipients;
};

static enum colour state_colour(struct slice state)
{
    if (slice_eq(state, SLICE("deferred")) || slice_eq(state, SLICE("in_doubt")))
        return YELLOW;
    if (slice_eq(state, SLICE("bounced")) || slice_eq(state, SLICE("expired")))
        return RED;
    return slice_eq(state, SLICE("delivered")) ? GREEN : PLAIN;
}

static void print_sender(struct slice from)
{
    if (from.len)
        text_put(from);
    else
        printf("<>");
}

/* "next try in 5m", "due". */
static void print_due(const struct ctl *ctl, const json_t *rcpt)
{
    struct wall due;
    char age[32];
    if (!iso_parse(get_text(rcpt, "next_due"), &due))
        return;
    age_format(ctl, rcpt, "next_due", age);
    if (due.ms > ctl->now.ms)
        printf(", next in %s", age);
    else
        printf(", due");
}

static void print_rcpt(const struct ctl *ctl, const json_t *rcpt)
{
    struct slice state = get_text(rcpt, "state"), reply = get_text(rcpt, "last_reply");
    int64_t tries = get_int(rcpt, "attempts");
    printf("    to ");
    text_put(get_text(rcpt, "to"));
    printf("  ");
    paint(ctl, state_colour(state), "%.*s", SLICE_ARG(state));
    if (tries)
        printf(", %" PRId64 " %s", tries, plural(tries, "try", "tries"));
    print_due(ctl, rcpt);
    putchar('\n');
    if (reply.len) {
        printf("       ");
        text_put(reply);
        putchar('\n');
    }
}

static void print_head(const struct ctl *ctl, const json_t *unit)
{
    char age[32], size[32];
    age_format(ctl, unit, "received", age);
    bytes_format(get_int(unit, "size"), size);
    struct slice id = get_text(unit, "id");
    paint(ctl, BOLD, "%.*s", SLICE_ARG(slice_head(id, 40)));
    printf("  %6s  %7s  from ", age, size);
    print_sender(get_text(unit, "from"));
    putchar('\n');
    if (get_bool(unit, "waiting")) {
        paint(ctl, YELLOW, "    waits for takeover");
        printf(": its node ");
        text_put(get_text(unit, "node"));
        printf(" does not answer\n");
    }
    if (get_bool(unit, "held")) {
        paint(ctl, YELLOW, "    held");
        printf(": ");
        text_put(get_text(unit, "hold_reason"));
        putchar('\n');
    }
}

/* More recipients than anybody reads; --json has them all. */
#define RCPTS_SHOWN 20

static void ls_line(struct ctl *ctl, json_t *unit, void *ctx)
{
    struct totals *totals = ctx;
    const json_t *rcpts = json_object_get(unit, "recipients");
    size_t i;
    json_t *rcpt;
    print_head(ctl, unit);
    json_array_foreach(rcpts, i, rcpt)
    {
        if (i == RCPTS_SHOWN) {
            printf(
                "    and %zu more (queue show, or --json)\n", json_array_size(rcpts) - i);
            break;
        }
        print_rcpt(ctl, rcpt);
    }
    totals->units++;
    totals->recipients += (int64_t)json_array_size(rcpts);
}

/* Never "empty" when a node has not been heard. */
static void print_nothing(const struct ctl *ctl, bool filtered)
{
    if (ctl->incomplete)
        printf(
            "the nodes that answered have nothing%s\n", filtered ? " that matches" : "");
    else
        printf(filtered ? "nothing in the queue matches\n" : "the queue is empty\n");
}

int run_queue_ls(struct ctl *ctl, const struct command_line *line)
{
    struct totals totals = {0};
    bool filtered;
    char units[32], rcpts[32];
    int64_t limit = number_option(line, "--limit", INT64_MAX);
    if (limit < 0)
        return EXIT_USAGE;
    json_t *args = filter_args(line, &filtered);
    json_object_set_new(args, "limit", json_integer(limit));
    int code = ctl_call(ctl, "queue ls", args, false, ls_line, &totals);
    if (ctl->json || code != EXIT_WELL)
        return code;
    count_format(totals.units, units);
    count_format(totals.recipients, rcpts);
    if (totals.units == 0)
        print_nothing(ctl, filtered);
    else
        printf("%s %s for %s %s\n", units, plural(totals.units, "message", "messages"),
            rcpts, plural(totals.recipients, "recipient", "recipients"));
    return code;
}

/* --- show --- */

static void field(const char *name, struct slice text)
{
    if (text.len == 0)
        return;
    printf("  %-10s ", name);
    text_put(text);
    putchar('\n');
}

static void time_field(
    const struct ctl *ctl, const char *name, const json_t *o, const char *key)
{
    struct wall t;
    char age[32];
    struct slice text = get_text(o, key);
    if (!iso_parse(text, &t))
        return;
    age_format(ctl, o, key, age);
    printf("  %-10s %.*s  (%s%s%s)\n", name, SLICE_ARG(text),
        t.ms > ctl->now.ms ? "in " : "", age, t.ms > ctl->now.ms ? "" : " ago");
}

static void show_rcpt(const struct ctl *ctl, const json_t *rcpt)
{
    print_rcpt(ctl, rcpt);
    struct slice mx = get_text(rcpt, "last_mx"), orcpt = get_text(rcpt, "orcpt");
    char age[32];
    if (mx.len) {
        age_format(ctl, rcpt, "last_attempt", age);
        printf("       at ");
        text_put(mx);
        printf(", %s ago\n", age);
    }
    if (orcpt.len) {
        printf("       original recipient ");
        text_put(orcpt);
        putchar('\n');
    }
}

/* Header lines keep their line ends and their indentation; everything else in them is
 * escaped. */
static void show_header(struct slice header)
{
    if (header.len == 0)
        return;
    putchar('\n');
    while (header.len) {
        size_t end = slice_find(header, '\n');
        struct slice line = slice_head(header, end), text = slice_trim(line);
        printf("  | %s", text.len && text.ptr > line.ptr ? "    " : "");
        text_put(text);
        putchar('\n');
        header = slice_from(header, end + 1);
    }
}

static void show_line(struct ctl *ctl, json_t *unit, void *ctx)
{
    bool *more = ctx;
    char size[32];
    size_t i;
    json_t *rcpt;
    if (*more)
        putchar('\n');
    *more = true;
    bytes_format(get_int(unit, "size"), size);
    paint(ctl, BOLD, "%.*s-%" PRId64 "\n",
        SLICE_ARG(slice_head(get_text(unit, "id"), 40)), get_int(unit, "unit"));
    printf("  %-10s ", "from");
    print_sender(get_text(unit, "from"));
    putchar('\n');
    field("why", get_text(unit, "why"));
    time_field(ctl, "received", unit, "received");
    time_field(ctl, "expires", unit, "expires");
    field("by", get_text(unit, "origin"));
    field("listener", get_text(unit, "listener"));
    field("user", get_text(unit, "user"));
    field("client", get_text(unit, "client"));
    field("helo", get_text(unit, "helo"));
    field("envid", get_text(unit, "envid"));
    printf("  %-10s %s, %.*s%s\n", "size", size, SLICE_ARG(get_text(unit, "body")),
        get_bool(unit, "smtputf8") ? ", smtputf8" : "");
    field("domain", get_text(unit, "domain"));
    if (get_bool(unit, "held")) {
        paint(ctl, YELLOW, "  held       ");
        text_put(get_text(unit, "hold_reason"));
        putchar('\n');
    }
    json_array_foreach(json_object_get(unit, "recipients"), i, rcpt) show_rcpt(ctl, rcpt);
    show_header(get_text(unit, "header"));
    field("header", get_text(unit, "header_error"));
}

int run_queue_show(struct ctl *ctl, const struct command_line *line)
{
    bool more = false;
    bool headers = option_value(line, "--headers") != NULL;
    json_t *args = json_pack("{s:s,s:b}", "id", line->positional[0], "headers", headers);
    return ctl_call(ctl, line->command->name, args, false, show_line, &more);
}

/* --- shape --- */

static const char *const ages[] = {
    "5m", "10m", "20m", "40m", "80m", "160m", "320m", "640m", "1280m", "older"};
#define AGES (sizeof(ages) / sizeof(ages[0]))

struct shape {
    struct table table;
    bool any;
};

static void shape_line(struct ctl *ctl, json_t *row, void *ctx)
{
    struct shape *shape = ctx;
    const json_t *counts = json_object_get(row, "ages");
    bool total = slice_eq(get_text(row, "domain"), SLICE("TOTAL"));
    (void)ctl;
    if (get_int(row, "units") == 0)
        return;
    shape->any = true;
    table_row(&shape->table, total ? BOLD : PLAIN);
    table_cell(&shape->table, 0, get_text(row, "domain"));
    table_count(&shape->table, 1, get_int(row, "recipients"));
    for (unsigned i = 0; i < AGES; i++) {
        int64_t n = get_int(counts, ages[i]);
        if (n)
            table_count(&shape->table, 2 + i, n);
        else
            table_cell(&shape->table, 2 + i, SLICE("."));
    }
}

int run_queue_shape(struct ctl *ctl, const struct command_line *line)
{
    static const char *const titles[] = {"destination", ">total", ">5m", ">10m", ">20m",
        ">40m", ">80m", ">160m", ">320m", ">640m", ">1280m", ">older"};
    struct shape shape = {0};
    bool filtered;
    int64_t limit = number_option(line, "--limit", 20);
    if (limit < 0)
        return EXIT_USAGE;
    json_t *args = filter_args(line, &filtered);
    json_object_set_new(args, "limit", json_integer(limit));
    table_init(&shape.table, 2 + AGES, titles);
    /* It may have to read millions of rows before the first line. */
    int code = ctl_call(ctl, "queue shape", args, true, shape_line, &shape);
    if (shape.any)
        table_print(ctl, &shape.table);
    else if (code == EXIT_WELL && !ctl->json)
        print_nothing(ctl, filtered);
    table_free(&shape.table);
    return code;
}

/* --- quarantine --- */

static void aside_line(struct ctl *ctl, json_t *unit, void *ctx)
{
    unsigned *count = ctx;
    char age[32];
    age_format(ctl, unit, "since", age);
    paint(ctl, BOLD, "%.*s-%" PRId64, SLICE_ARG(slice_head(get_text(unit, "id"), 40)),
        get_int(unit, "unit"));
    printf("  on ");
    text_put(get_text(unit, "node"));
    printf(", %s ago: ", age);
    text_put(get_text(unit, "reason"));
    printf("\n    ");
    if (json_object_get(unit, "from")) {
        printf("from ");
        print_sender(get_text(unit, "from"));
        printf(" to %zu; ", json_array_size(json_object_get(unit, "recipients")));
    }
    printf("%" PRId64 " of %" PRId64 " rows damaged%s\n", get_int(unit, "damaged"),
        get_int(unit, "rows"),
        get_bool(unit, "releasable") ? "" : "; cannot be released");
    ++*count;
}

int run_quarantine_ls(struct ctl *ctl, const struct command_line *line)
{
    unsigned count = 0;
    (void)line;
    int code = ctl_call(ctl, "quarantine ls", json_object(), false, aside_line, &count);
    if (code == EXIT_WELL && count == 0 && !ctl->json)
        printf("nothing is put aside\n");
    return code;
}

static void aside_done_line(struct ctl *ctl, json_t *answer, void *ctx)
{
    struct slice as = get_text(answer, "as");
    json_t *also = json_object_get(answer, "also_aside"), *name;
    int64_t ended = get_int(answer, "ended_elsewhere");
    size_t i;
    (void)ctl;
    (void)ctx;
    text_put(get_text(answer, "id"));
    printf(" on ");
    text_put(get_text(answer, "node"));
    printf(": ");
    text_put(get_text(answer, "done"));
    if (as.len) {
        printf(" as ");
        text_put(as);
        printf(" to %" PRId64, get_int(answer, "recipients"));
    }
    if (ended > 0)
        printf(", without %" PRId64 " that other nodes have ended", ended);
    if (get_text(answer, "possible_duplicate").len)
        printf(" (a possible duplicate, D6)");
    putchar('\n');
    json_array_foreach(also, i, name)
    {
        printf("  also put aside on ");
        text_put(slice_str(json_string_value(name) ? json_string_value(name) : ""));
        printf(": batonctl quarantine drop removes it\n");
    }
}

int run_quarantine(struct ctl *ctl, const struct command_line *line)
{
    const char *reason = option_value(line, "--reason");
    json_t *args = json_pack("{s:s}", "id", line->positional[0]);
    if (reason)
        json_object_set_new(args, "reason", json_string(reason));
    if (option_value(line, "--may-duplicate"))
        json_object_set_new(args, "may_duplicate", json_true());
    return ctl_call(ctl, line->command->name, args, false, aside_done_line, NULL);
}
