/* SPDX-License-Identifier: Apache-2.0 */
/* The cluster: its beginning, who is in it, and who goes. */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>

#include "base/settings.h"
#include "node/batonctl.h"
#include "node/cluster/birth.h"

#define DRAIN_LOOK_MS 1000

/* --- init: offline --- */

static const char *config_of(const struct command_line *line)
{
    return line->config ? line->config : "/etc/baton/baton.yaml";
}

static void say_what_next(const struct birth *who)
{
    printf("this node founds the cluster %s when batond starts\n", who->cluster);
    printf("  next: start it (systemctl restart baton); then, for each other node:\n"
           "        batonctl cluster token          here, and\n"
           "        put its line into a file there, name that in cluster.join, and start "
           "batond\n");
}

int run_cluster_init(struct ctl *ctl, const struct command_line *line)
{
    struct settings_problems problems;
    struct birth who;
    char why[4608];
    settings_problems_init(&problems);
    struct settings *s = settings_read(config_of(line), &problems);
    bool ok = s && birth_init(s, &who, why, sizeof(why));
    if (!s)
        fprintf(stderr, "%.*s", SLICE_ARG(buf_slice(&problems.text)));
    else if (!ok)
        fprintf(stderr, "batonctl: %s\n", why);
    else if (ctl->json)
        printf("{\"cluster\":\"%s\",\"node\":\"%s\"}\n", who.cluster, s->cluster.node);
    else
        say_what_next(&who);
    settings_unref(s);
    settings_problems_fini(&problems);
    return ok ? EXIT_WELL : EXIT_USAGE;
}

/* --- token --- */

static void token_line(struct ctl *ctl, json_t *answer, void *ctx)
{
    char age[32];
    (void)ctx;
    duration_format(get_int(answer, "for_s") * 1000, age);
    text_put(get_text(answer, "token"));
    putchar('\n');
    fflush(stdout);
    /* Not into a file or a pipe: the token is all that belongs there. */
    if (ctl->columns)
        fprintf(stderr,
            "\nOne node joins with it, within %s. On that node:\n"
            "  put the line into a file that only batond's user can read\n"
            "  (install -m 600 -o baton /dev/stdin /etc/baton/join.token),\n"
            "  write  join: /etc/baton/join.token  under cluster: in its settings,\n"
            "  and start batond. Who has the line can join: keep it secret.\n",
            age);
}

int run_cluster_token(struct ctl *ctl, const struct command_line *line)
{
    const char *how_long = option_value(line, "--for");
    json_t *args = json_object();
    if (how_long)
        json_object_set_new(args, "for", json_string(how_long));
    return ctl_call(ctl, "cluster token", args, false, token_line, NULL);
}

/* --- node ls --- */

struct members {
    struct table table;
    unsigned count;
};

static void member_line(struct ctl *ctl, json_t *row, void *ctx)
{
    struct members *m = ctx;
    (void)ctl;
    members_row(&m->table, row);
    m->count++;
}

int run_node_ls(struct ctl *ctl, const struct command_line *line)
{
    struct members m = {0};
    (void)line;
    members_table(&m.table);
    int code = ctl_call(ctl, "node ls", json_object(), false, member_line, &m);
    if (m.count)
        table_print(ctl, &m.table);
    table_free(&m.table);
    return code;
}

/* --- what is done to a member --- */

static void text_line(struct ctl *ctl, json_t *answer, void *ctx)
{
    (void)ctl;
    (void)ctx;
    text_put(get_text(answer, "text"));
    putchar('\n');
}

static int to_member(struct ctl *ctl, const struct command_line *line, const char *sworn)
{
    json_t *args = json_object();
    if (line->positional_count)
        json_object_set_new(args, "node", json_string(line->positional[0]));
    if (sworn)
        json_object_set_new(args, "powered_off", json_string(sworn));
    return ctl_call(ctl, line->command->name, args, false, text_line, NULL);
}

int run_member(struct ctl *ctl, const struct command_line *line)
{
    return to_member(ctl, line, option_value(line, "--i-have-powered-off"));
}

/* --- drain, and watching it --- */

struct drained {
    const char *node;
    bool there, answered, any;
    int64_t queued, copies, stored;
};

static void drain_line(struct ctl *ctl, json_t *row, void *ctx)
{
    struct drained *d = ctx;
    (void)ctl;
    d->any = true;
    if (!slice_eq(get_text(row, "id"), slice_str(d->node)))
        return;
    d->there = true;
    d->answered = json_is_integer(json_object_get(row, "stored"));
    d->queued = get_int(row, "queued");
    d->copies = get_int(row, "copies_held");
    d->stored = get_int(row, "stored");
}

/* All that is on its disk goes: its own mail to others, copies to other holders. */
static void print_progress(const struct drained *d)
{
    char queued[32], copies[32];
    int64_t own = d->queued < d->stored ? d->queued : d->stored;
    count_format(own, queued);
    count_format(d->stored - own, copies);
    if (d->answered)
        printf("%s: %s %s and %s %s to hand over\n", d->node, queued,
            plural(own, "message", "messages"), copies,
            plural(d->stored - own, "copy", "copies"));
    else
        printf("%s does not answer; it goes on when it is back\n", d->node);
    fflush(stdout);
}

static void keep_status(struct ctl *ctl, json_t *object, void *ctx)
{
    json_t **kept = ctx;
    (void)ctl;
    json_decref(*kept);
    *kept = json_incref(object);
}

/* Nothing is left: its store has no mail, neither own nor for others, and the others are
 * not short of copies; or it has left the cluster, which only an empty one does. */
static int print_proof(struct ctl *ctl, const struct drained *d)
{
    json_t *status = NULL;
    char short_of[32];
    ctl_call(ctl, "status", json_object(), false, keep_status, &status);
    if (!status)
        return EXIT_NO_ANSWER;
    const json_t *cluster = json_object_get(status, "cluster"),
                 *queue = json_object_get(status, "queue");
    count_format(get_int(queue, "copies_short"), short_of);
    printf("%s holds nothing: %s; cluster ", d->node,
        d->there ? "no message and no copy is in its store" : "it has left");
    text_put(get_text(cluster, "name"));
    printf(", configuration %" PRId64 ", %s short of copies\n",
        get_int(cluster, "version"), short_of);
    if (d->there)
        printf("  next: stop batond there, then batonctl remove %s; or batonctl undrain "
               "%s\n",
            d->node, d->node);
    json_decref(status);
    return EXIT_WELL;
}

/* Twice empty: what was on its way when it was told has arrived. */
#define EMPTY_LOOKS 2

static int watch_drain(struct ctl *ctl, const char *node)
{
    struct ctl quiet = *ctl;
    struct drained before = {.stored = -1};
    unsigned empty = 0;
    quiet.json = false;
    for (;;) {
        struct drained now = {.node = node};
        int code = ctl_call(&quiet, "node ls", json_object(), false, drain_line, &now);
        if (code != EXIT_WELL || !now.any)
            return code == EXIT_WELL ? EXIT_NO_ANSWER : code;
        empty = now.answered && now.stored == 0 ? empty + 1 : 0;
        if (!now.there || empty == EMPTY_LOOKS)
            return print_proof(&quiet, &now);
        if (now.queued != before.queued || now.stored != before.stored ||
            now.answered != before.answered)
            print_progress(&now);
        before = now;
        poll(NULL, 0, DRAIN_LOOK_MS);
    }
}

int run_drain(struct ctl *ctl, const struct command_line *line)
{
    int code = to_member(ctl, line, NULL);
    if (code != EXIT_WELL || !option_value(line, "--wait"))
        return code;
    fflush(stdout);
    return watch_drain(ctl, line->positional[0]);
}
