/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of a node. */
#include "node/batonctl.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define WATCH_MS 2000

static void look_at_terminal(struct ctl *ctl)
{
    struct winsize size;
    const char *no_colour = getenv("NO_COLOR"), *term = getenv("TERM");
    if (!isatty(STDOUT_FILENO))
        return;
    ctl->colour = !(no_colour && no_colour[0]) && term && strcmp(term, "dumb") != 0;
    ctl->columns = 80;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        ctl->columns = size.ws_col;
}

static int run_once(struct ctl *ctl, const struct command_line *line)
{
    ctl->now = wall_now();
    int code = line->command->run(ctl, line);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "batonctl: cannot write the answer\n");
        return EXIT_USAGE;
    }
    return code;
}

/* For ever, or until the reader of a pipe goes. */
static int run_watch(struct ctl *ctl, const struct command_line *line)
{
    for (;;) {
        if (ctl->columns)
            fputs("\033[H\033[2J", stdout);
        int code = run_once(ctl, line);
        if (code == EXIT_USAGE)
            return code;
        if (!ctl->columns && !ctl->json)
            putchar('\n');
        poll(NULL, 0, WATCH_MS);
    }
}

int main(int argc, char **argv)
{
    struct command_line line;
    struct ctl ctl = {0};
    if (!command_line_parse(&line, argc, argv))
        return EXIT_USAGE;
    if (line.help || !line.command) {
        help_print(line.command);
        return line.help ? EXIT_WELL : EXIT_USAGE;
    }
    bool offline = line.command->run == run_cluster_init; /* before there is a node */
    char *path = offline ? NULL : ctl_find_socket(&line);
    if (!path && !offline)
        return EXIT_USAGE;
    ctl.path = path;
    ctl.json = line.json;
    look_at_terminal(&ctl);
    int code = line.watch ? run_watch(&ctl, &line) : run_once(&ctl, &line);
    free(path);
    return code;
}
