/* SPDX-License-Identifier: Apache-2.0 */
/* `why ADDRESS`. */
#include <inttypes.h>
#include <stdio.h>

#include "node/batonctl.h"

static void text_field(const char *name, struct slice text)
{
    if (text.len == 0)
        return;
    printf("  %-9s ", name);
    text_put(text);
    putchar('\n');
}

static void print_source(const json_t *o)
{
    struct slice source = get_text(o, "source");
    printf("  %-9s ", "route");
    if (slice_eq(source, SLICE("dns"))) {
        printf("no entry: by MX");
    } else {
        printf("%.*s: ", SLICE_ARG(slice_head(source, 20)));
        text_put(get_text(o, "entry"));
        printf(" (line %" PRId64 " of the settings)%s", get_int(o, "line"),
            get_bool(o, "by_mx") ? ", by MX" : "");
    }
    printf("; tls %.*s%s\n", SLICE_ARG(slice_head(get_text(o, "tls"), 10)),
        get_bool(o, "auth") ? ", with a password" : "");
}

static void print_hop(const json_t *hop)
{
    const json_t *addresses = json_object_get(hop, "addresses");
    size_t i;
    json_t *one;
    printf("  %-9s ", "hop");
    if (json_object_get(hop, "preference"))
        printf("%" PRId64 " ", get_int(hop, "preference"));
    text_put(get_text(hop, "name"));
    printf(" port %" PRId64, get_int(hop, "port"));
    if (get_bool(hop, "implicit"))
        printf(" (no MX: the domain itself)");
    json_array_foreach(addresses, i, one)
    {
        printf(i ? ", " : ": ");
        text_put(slice_make(json_string_value(one), json_string_length(one)));
    }
    if (get_text(hop, "why").len) {
        printf(": ");
        text_put(get_text(hop, "why"));
    }
    putchar('\n');
}

static void print_shares(const json_t *d)
{
    const json_t *connections = json_object_get(d, "connections_share");
    const json_t *rate = json_object_get(d, "rate_share");
    if (!json_is_integer(connections) && !json_is_integer(rate))
        return;
    printf("  %-9s", "share");
    if (json_is_integer(connections))
        printf(" %" PRId64 " connections", get_int(d, "connections_share"));
    if (json_is_integer(rate))
        printf("%s %" PRId64 " messages a period",
            json_is_integer(connections) ? "," : "", get_int(d, "rate_share"));
    printf(" of the limits are this node's now\n");
}

static void print_destination(const json_t *d)
{
    struct slice failure = get_text(d, "last_failure");
    if (!json_is_object(d))
        return;
    printf("  %-9s %" PRId64 " open of %" PRId64 " that it may have\n", "sessions",
        get_int(d, "sessions"), get_int(d, "window"));
    print_shares(d);
    if (failure.len == 0)
        return;
    printf("  %-9s ", "failed");
    text_put(get_text(d, "last_failure_mx"));
    printf(": ");
    text_put(failure);
    putchar('\n');
}

static void print_queue(const struct ctl *ctl, const json_t *q)
{
    char count[32], age[32];
    int64_t n = get_int(q, "messages"), held = get_int(q, "held");
    count_format(n, count);
    printf("  %-9s %s %s", "queue", count, plural(n, "message", "messages"));
    if (held)
        printf(", %" PRId64 " held", held);
    age_format(ctl, q, "oldest", age);
    if (get_text(q, "oldest").len)
        printf(", oldest %s", age);
    printf("%s\n", get_bool(q, "complete") ? "" : " (of the oldest in the queue)");
    if (get_text(q, "last_reply").len == 0)
        return;
    age_format(ctl, q, "last_attempt", age);
    printf("  %-9s %s ago, ", "last try", age);
    text_put(get_text(q, "last_mx"));
    printf(": ");
    text_put(get_text(q, "last_reply"));
    putchar('\n');
}

static void print_blocked(const struct ctl *ctl, const json_t *list)
{
    size_t i;
    json_t *one;
    if (json_array_size(list) == 0) {
        paint(ctl, GREEN, "  nothing is in its way\n");
        return;
    }
    json_array_foreach(list, i, one)
    {
        paint(ctl, YELLOW, "  %-9s ", "blocked");
        text_put(slice_make(json_string_value(one), json_string_length(one)));
        putchar('\n');
    }
}

static void why_line(struct ctl *ctl, json_t *o, void *ctx)
{
    struct slice security = get_text(o, "security");
    size_t i;
    json_t *hop;
    (void)ctx;
    text_put(get_text(o, "address"));
    printf(" from ");
    text_put(get_text(o, "node"));
    putchar('\n');
    print_source(o);
    if (security.len)
        text_field("DNSSEC", security);
    json_array_foreach(json_object_get(o, "hops"), i, hop) print_hop(hop);
    print_destination(json_object_get(o, "destination"));
    print_queue(ctl, json_object_get(o, "queue"));
    print_blocked(ctl, json_object_get(o, "blocked"));
}

int run_why(struct ctl *ctl, const struct command_line *line)
{
    const char *from = option_value(line, "--from");
    json_t *args = json_pack("{s:s}", "address", line->positional[0]);
    if (from)
        json_object_set_new(args, "from", json_string(from));
    return ctl_call(ctl, "why", args, true, why_line, NULL);
}
