/* SPDX-License-Identifier: Apache-2.0 */
/* The table of commands, and reading the command line by it. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "node/batonctl.h"

#define FILTERS_WITHOUT_REASON                                                           \
    {"--from", "ADDRESS", "sender: user@example.org, @example.org, <> or a part"},       \
        {"--to", "ADDRESS", "open recipient: the same"},                                 \
        {"--domain", "DOMAIN", "routing domain; .example.org: all below it, too"},       \
        {"--node", "NODE", "owned by this node"},                                        \
    {                                                                                    \
        "--older", "AGE", "accepted longer ago than this: 30m, 4h, 2d"                   \
    }
#define BY_REPLY "in the last reply, its status (4.4.1) or the hold reason"
#define FILTERS                                                                          \
    FILTERS_WITHOUT_REASON,                                                              \
    {                                                                                    \
        "--reason", "TEXT", BY_REPLY                                                     \
    }
/* Where --reason is what the operator has to say. */
#define VERB_FILTERS                                                                     \
    FILTERS_WITHOUT_REASON, {"--reply", "TEXT", BY_REPLY},                               \
        {"--all", NULL, "the whole queue"},                                              \
    {                                                                                    \
        "--dry-run", NULL, "only say how many it is"                                     \
    }
#define WHY_NEEDED                                                                       \
    {                                                                                    \
        "--reason", "TEXT", "why; needed, and kept in the log"                           \
    }
#define VERB_HELP                                                                        \
    "Of messages that match all filters, or one message by its ID. What is being\n"      \
    "delivered at this moment is left alone and counted as busy.\n"

const struct command commands[] = {
    {"status", "", "how the node and its queue are",
        "Exit status: 0 well, 2 degraded, 3 data at risk, 4 no node answers.\n", 0, 0,
        {{0}}, run_status},
    {"queue ls", "[FILTER...]", "what is in the queue, oldest first",
        "Without a filter: all of it. Filters are combined with \"and\".\n", 0, 0,
        {FILTERS, {"--limit", "N", "at most so many"}}, run_queue_ls},
    {"queue show", "ID", "everything about one message in the queue",
        "ID is what the 250 reply said, or ID-N for one of its domains.\n", 1, 1,
        {{"--headers", NULL, "the header of the message, too"}}, run_queue_show},
    {"queue shape", "[FILTER...]", "open recipients by destination and age (minutes)", "",
        0, 0, {FILTERS, {"--limit", "N", "rows (20)"}}, run_queue_shape},
    {"queue hold", "[ID] [FILTER...]", "keep messages until they are released", VERB_HELP,
        0, 1, {VERB_FILTERS, {"--reason", "TEXT", "why; shown by queue ls"}},
        run_queue_verb},
    {"queue release", "[ID] [FILTER...]", "let held messages go, at once", VERB_HELP, 0,
        1, {VERB_FILTERS, {"--reason", "TEXT", BY_REPLY}}, run_queue_verb},
    {"queue retry", "[ID] [FILTER...]", "try messages now, with a new look at DNS",
        VERB_HELP, 0, 1, {VERB_FILTERS, {"--reason", "TEXT", BY_REPLY}}, run_queue_verb},
    {"queue expire", "[ID] [FILTER...]", "end them as if their time was over",
        VERB_HELP "The sender gets the report that is sent then.\n", 0, 1,
        {VERB_FILTERS, WHY_NEEDED}, run_queue_verb},
    {"queue bounce", "[ID] [FILTER...]", "send them back to their senders",
        VERB_HELP "The report carries the reason.\n", 0, 1, {VERB_FILTERS, WHY_NEEDED},
        run_queue_verb},
    {"queue drop", "[ID] [FILTER...]", "delete them; nobody gets a report",
        VERB_HELP "With --to: these recipients alone, as with expire and bounce.\n", 0, 1,
        {VERB_FILTERS, WHY_NEEDED}, run_queue_verb},
    {"quarantine ls", "", "mail put aside because it was damaged or stale", "", 0, 0,
        {{0}}, run_quarantine_ls},
    {"quarantine show", "ID", "everything about one of them", "", 1, 1, {{0}},
        run_queue_show},
    {"quarantine release", "ID", "back into the queue, at once",
        "In a cluster all nodes are asked first: who is known to have it, or to be done "
        "with it,\n"
        "gets it no second time. It gets a new id and, like any message, its copies.\n"
        "What of it is damaged stays.\n",
        1, 1,
        {{"--may-duplicate", NULL,
            "also when a node that may have delivered it cannot tell: tagged D6"}},
        run_quarantine},
    {"quarantine drop", "ID", "delete it for good", "", 1, 1,
        {{"--reason", "TEXT", "why, for the log; needed"}}, run_quarantine},
    {"trace", "ID|ADDRESS",
        "the whole timeline of a message, or of the last for an address",
        "For an address: the messages in which it was sender or recipient.\n", 1, 1,
        {{"--limit", "N", "messages, newest (20)"}}, run_trace},
    {"why", "ADDRESS", "what would happen to mail for it now, and what blocks it",
        "ADDRESS may be a domain alone. Each node says what it knows.\n", 1, 1,
        {{"--from", "ADDRESS", "sender, for routes that look at it (<>)"}}, run_why},
    {"resolve", "NAME [TYPE]", "what our resolver says, with its DNSSEC verdict",
        "TYPE is MX (the default), A, AAAA, TXT, TLSA, PTR, CNAME, NS or SOA. An IP "
        "address\n"
        "with PTR is turned around.\n",
        1, 2, {{0}}, run_resolve},
    {"events", "", "what happens, as it is logged", "", 0, 0,
        {{"--follow", NULL, "go on with what comes"},
            {"--last", "N", "begin so far back (50)"},
            {"--level", "LEVEL", "debug, info (default), warn or error"}},
        run_events},
    {"reload", "", "read the settings again, without dropping a session", "", 0, 0, {{0}},
        run_reload},
    {"log", "LEVEL", "set the log level until the next start: debug, info, warn, error",
        "", 1, 1, {{0}}, run_log},
    {"cluster init", "", "make this node the first of the cluster in its settings",
        "Works without a running batond, which takes it up at its next start. Only on "
        "one "
        "node:\n"
        "the others join with a token.\n",
        0, 0, {{0}}, run_cluster_init},
    {"cluster token", "", "print the line with which one more node joins",
        "Good for one node. Put it into the file that cluster.join names there.\n", 0, 0,
        {{"--for", "DURATION", "how long it is good: 1m to 7d (1h)"}}, run_cluster_token},
    {"node ls", "", "the members of the cluster", "", 0, 0, {{0}}, run_node_ls},
    {"drain", "NODE", "let a node hand over all that it holds",
        "It takes no new mail from then on, and stays a member until it is stopped and "
        "removed. Stops of this command do not stop it; "
        "undrain "
        "does.\n",
        1, 1, {{"--wait", NULL, "show the progress, until nothing is left"}}, run_drain},
    {"undrain", "NODE", "let a node that drains stay", "", 1, 1, {{0}}, run_member},
    {"remove", "NODE", "take a node out that is drained and stopped, or dead for ever",
        "Its mail is delivered by those who have its copies. Its disk must not come "
        "back.\n",
        1, 1, {{0}}, run_member},
    {"force-fence", "NODE", "take over from a node that is off, where nobody can vote",
        "For two nodes without a witness. If it were running, mail would be sent "
        "twice.\n",
        1, 1, {{"--i-have-powered-off", "NODE", "the same name again: it cannot run"}},
        run_member},
    {"force-config", "", "go on without nodes that are lost for ever",
        "When so many are lost that the others cannot vote. None of them may come back: "
        "wipe their\n"
        "disks first. Mail of which only they had copies is lost.\n",
        0, 0, {{"--i-have-powered-off", "NODES", "all that are lost: mx2,mx3"}},
        run_member},
    {"allow add", "NETWORK", "let its machines relay without AUTH, in the whole cluster",
        "In force at once, and kept over a restart. Sessions that are open keep what "
        "they "
        "had.\n",
        1, 1, {{"--for", "DURATION", "then it ends by itself: 30m, 2h (for good)"}},
        run_allow},
    {"allow rm", "NETWORK", "take that back", "", 1, 1, {{0}}, run_allow},
    {"allow ls", "", "what was allowed at run time", "", 0, 0, {{0}}, run_allow_ls},
    {"user lock", "USER", "refuse a user's password, in the whole cluster",
        "Sessions that are logged in stay so.\n", 1, 1, {{0}}, run_user_lock},
    {"user unlock", "USER", "take that back", "", 1, 1, {{0}}, run_user_lock},
    {"user locks", "", "who was locked at run time", "", 0, 0, {{0}}, run_allow_ls},
    {"clock accept", "", "vouch for the clock: mail may expire again",
        "After an alarm clock_untrusted, when the time is right: a machine that was off "
        "for\n"
        "more than a day cannot tell that from a clock that was set.\n",
        0, 0, {{0}}, run_clock_accept},
};
const unsigned command_count = sizeof(commands) / sizeof(commands[0]);

/* Documented, and not here yet: refused by name, so that nobody takes them for typing
 * errors. */
static const char *const not_built[] = {
    "egress", "reputation", "suppress", "user add", "user rm", "user passwd", "user ls"};

const char *option_value(const struct command_line *line, const char *name)
{
    for (unsigned i = 0; i < OPTIONS_MAX && line->command->options[i].name; i++)
        if (strcmp(line->command->options[i].name, name) == 0)
            return line->values[i];
    return NULL;
}

static void print_option(const char *name, const char *value, const char *meaning)
{
    char left[64];
    snprintf(left, sizeof(left), "%s%s%s", name, value ? " " : "", value ? value : "");
    printf("  %-20s %s\n", left, meaning);
}

static void print_globals(void)
{
    print_option("--json", NULL, "one JSON object a line: stable, for scripts");
    print_option("--watch", NULL, "again every two seconds");
    print_option(
        "--control", "PATH", "the node's socket; else $BATON_CONTROL, else control:");
    print_option("-c", "FILE", "settings to find it in (/etc/baton/baton.yaml)");
    print_option("-h, --help", NULL, "of all, or of the command");
    print_option("-V, --version", NULL, "print the version");
}

void help_print(const struct command *command)
{
    if (command) {
        printf("usage: batonctl %s%s%s\n%s\n", command->name,
            command->usage[0] ? " " : "", command->usage, command->summary);
        if (command->help[0])
            printf("\n%s", command->help);
        printf("\n");
        for (unsigned i = 0; i < OPTIONS_MAX && command->options[i].name; i++)
            print_option(command->options[i].name, command->options[i].value,
                command->options[i].meaning);
        print_globals();
        return;
    }
    printf("usage: batonctl COMMAND [OPTION...]\n\n");
    for (unsigned i = 0; i < command_count; i++) {
        char left[64];
        snprintf(left, sizeof(left), "%s%s%s", commands[i].name,
            commands[i].usage[0] ? " " : "", commands[i].usage);
        printf("  %-24s %s\n", left, commands[i].summary);
    }
    printf("\n");
    print_globals();
    printf("\nExit status: 0 well; 1 wrong usage or refused; 4 no node answers;\n"
           "of status alone: 2 degraded, 3 data at risk. More in batonctl(1).\n");
}

__attribute__((format(printf, 1, 2))) static bool wrong(const char *format, ...)
{
    va_list args;
    fputs("batonctl: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return false;
}

/* "queue" and "ls" as two words make one name; "queue" alone is "queue shape". */
static bool name_is(const char *name, const char *first, const char *second)
{
    size_t len = strlen(first);
    if (strncmp(name, first, len) != 0)
        return false;
    if (name[len] == '\0')
        return true;
    return name[len] == ' ' && second && strcmp(name + len + 1, second) == 0;
}

static const struct command *find_command(const char *first, const char *second)
{
    for (unsigned i = 0; i < command_count; i++)
        if (name_is(commands[i].name, first, second))
            return &commands[i];
    return NULL;
}

/* "ls, show, shape" for "queue"; false when no command begins so. */
static bool second_words(const char *first, char *out, size_t size)
{
    size_t len = strlen(first), used = 0;
    out[0] = '\0';
    for (unsigned i = 0; i < command_count && used < size; i++)
        if (strncmp(commands[i].name, first, len) == 0 && commands[i].name[len] == ' ')
            used += (size_t)snprintf(out + used, size - used, "%s%s", used ? ", " : "",
                commands[i].name + len + 1);
    return used > 0;
}

static bool no_such_command(const char *first, const char *second)
{
    for (unsigned i = 0; i < sizeof(not_built) / sizeof(not_built[0]); i++)
        if (name_is(not_built[i], first, second))
            return wrong("%s is not built in this version", not_built[i]);
    char words[128];
    if (second_words(first, words, sizeof(words)))
        return wrong("%s wants one of: %s (see batonctl --help)", first, words);
    return wrong("no such command: %s (see batonctl --help)", first);
}

struct words {
    int argc;
    char **argv;
    int at;
};

static bool take_value(
    struct words *w, const char *name, const char *inlined, const char **out)
{
    if (inlined)
        *out = inlined;
    else if (w->at + 1 < w->argc)
        *out = w->argv[++w->at];
    else
        return wrong("%s wants a value", name);
    return true;
}

/* The options that every command has. *known_out: it was one of them. */
static bool take_global(struct command_line *line, struct words *w, const char *word,
    size_t len, const char *inlined, bool *known_out)
{
    struct slice name = slice_make(word, len);
    *known_out = true;
    if (slice_eq(name, SLICE("--json")))
        line->json = true;
    else if (slice_eq(name, SLICE("--watch")))
        line->watch = true;
    else if (slice_eq(name, SLICE("--help")) || slice_eq(name, SLICE("-h")))
        line->help = true;
    else if (slice_eq(name, SLICE("--control")))
        return take_value(w, "--control", inlined, &line->control);
    else if (slice_eq(name, SLICE("-c")) || slice_eq(name, SLICE("--config")))
        return take_value(w, "-c", inlined, &line->config);
    else
        *known_out = false;
    return true;
}

static bool take_option(struct command_line *line, struct words *w)
{
    const char *word = w->argv[w->at], *equals = strchr(word, '=');
    size_t len = equals ? (size_t)(equals - word) : strlen(word);
    const char *inlined = equals ? equals + 1 : NULL;
    bool known;
    if (!take_global(line, w, word, len, inlined, &known))
        return false;
    if (known)
        return true;
    if (!line->command)
        return wrong("give the command before its options (see batonctl --help)");
    for (unsigned i = 0; i < OPTIONS_MAX && line->command->options[i].name; i++) {
        const struct option *o = &line->command->options[i];
        if (!slice_eq(slice_str(o->name), slice_make(word, len)))
            continue;
        if (o->value)
            return take_value(w, o->name, inlined, &line->values[i]);
        line->values[i] = "";
        return !inlined || wrong("%s takes no value", o->name);
    }
    if (slice_eq(slice_make(word, len), SLICE("--egress")))
        return wrong("--egress is not built in this version");
    return wrong("%s has no option %s (see batonctl %s --help)", line->command->name,
        word, line->command->name);
}

static bool take_command(struct command_line *line, struct words *w)
{
    const char *first = w->argv[w->at];
    bool two = w->at + 1 < w->argc && w->argv[w->at + 1][0] != '-';
    const char *second = two ? w->argv[w->at + 1] : NULL;
    if (strcmp(first, "queue") == 0 && !second)
        second = "shape";
    if (strcmp(first, "quarantine") == 0 && !second)
        second = "ls";
    line->command = find_command(first, second);
    if (!line->command)
        return no_such_command(first, second);
    if (two && strchr(line->command->name, ' '))
        w->at++;
    return true;
}

static bool check_positionals(const struct command_line *line)
{
    const struct command *c = line->command;
    if (!c || line->help)
        return true;
    if (line->positional_count < c->least || line->positional_count > c->most)
        return wrong("usage: batonctl %s %s", c->name, c->usage);
    return true;
}

bool command_line_parse(struct command_line *line, int argc, char **argv)
{
    struct words w = {argc, argv, 1};
    bool only_words = false;
    *line = (struct command_line){0};
    for (; w.at < argc; w.at++) {
        const char *word = argv[w.at];
        if (!utf8_valid(slice_str(word)))
            return wrong("an argument is not UTF-8");
        if (!only_words && strcmp(word, "--") == 0) {
            only_words = true;
        } else if (!only_words &&
                   (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0)) {
            printf("batonctl %s\n", BATON_VERSION);
            exit(EXIT_WELL);
        } else if (!only_words && word[0] == '-' && word[1]) {
            if (!take_option(line, &w))
                return false;
        } else if (!line->command) {
            if (!take_command(line, &w))
                return false;
        } else if (line->positional_count < POSITIONALS_MAX) {
            line->positional[line->positional_count++] = word;
        } else {
            return wrong("too many words");
        }
    }
    return check_positionals(line);
}
