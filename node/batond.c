/* SPDX-License-Identifier: Apache-2.0 */
/* batond: the node daemon. Arguments, the settings file, and the verdicts about it. */
#include "node/batond.h"

#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"

#define DEFAULT_CONFIG "/etc/baton/baton.yaml"
#define FILES_WANTED 65536

static const char usage[] =
    "usage: batond [-c FILE] [--check-config | --print-config]\n"
    "\n"
    "The Baton relay daemon. Runs in the foreground and logs to standard error.\n"
    "\n"
    "  -c, --config FILE   settings (default " DEFAULT_CONFIG ")\n"
    "      --check-config  check the settings and all they name, then exit: 0 good, 1 "
    "bad\n"
    "      --print-config  print the effective settings with defaults, then exit\n"
    "  -h, --help          this text\n"
    "      --version       the version\n"
    "\n"
    "Signals: SIGHUP reloads the settings, SIGTERM and SIGINT stop.\n"
    "See batond(8), baton.yaml(5), batonctl(1).\n";

enum action { RUN, CHECK, PRINT };

struct arguments {
    const char *config;
    enum action action;
};

static bool parse_arguments(int argc, char **argv, struct arguments *out, int *exit_code)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
        {"check-config", no_argument, NULL, 'k'},
        {"print-config", no_argument, NULL, 'p'}, {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'}, {NULL, 0, NULL, 0}};
    int option;
    *exit_code = 0;
    while ((option = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        if (option == 'c')
            out->config = optarg;
        else if (option == 'k')
            out->action = CHECK;
        else if (option == 'p')
            out->action = PRINT;
        else if (option == 'h' || option == 'v') {
            fputs(option == 'h' ? usage : "batond " BATON_VERSION "\n", stdout);
            return false;
        } else {
            fputs("batond --help lists the arguments\n", stderr);
            *exit_code = 64;
            return false;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "batond: unexpected argument '%s'; batond --help lists them\n",
            argv[optind]);
        *exit_code = 64;
        return false;
    }
    return true;
}

static void print_problems(const struct settings_problems *problems)
{
    struct slice text = buf_slice(&problems->text);
    fwrite(text.ptr, 1, text.len, stderr);
    fprintf(stderr, "batond: %u problem%s; nothing was started\n", problems->count,
        problems->count == 1 ? "" : "s");
}

static void missing_file_help(const char *file)
{
    if (access(file, F_OK) == 0 || errno != ENOENT)
        return;
    fprintf(stderr,
        "next step: copy /usr/share/doc/baton/baton.yaml to %s and adapt it, or name "
        "another "
        "file with -c (baton.yaml(5) explains each key)\n",
        file);
}

static struct settings *read_settings(const char *file)
{
    struct settings_problems problems;
    settings_problems_init(&problems);
    struct settings *s = settings_read(file, &problems);
    if (s)
        cluster_check(s, &problems);
    if (s && problems.count == 0)
        intake_check(s, &problems);
    if (problems.count > 0) {
        print_problems(&problems);
        missing_file_help(file);
        settings_unref(s);
        s = NULL;
    }
    settings_problems_fini(&problems);
    return s;
}

/* Allowed, and seldom meant: to standard error, or to the log. */
static void tell_warnings(const struct settings *s, bool log)
{
    struct buf text;
    buf_init(&text, 1 << 16);
    cluster_warnings(s, &text);
    struct slice rest = buf_slice(&text);
    while (rest.len > 0) {
        struct slice line = slice_head(rest, slice_find(rest, '\n'));
        if (log)
            log_say(LOG_EV_CONFIG, "%.*s", SLICE_ARG(line));
        else
            fprintf(stderr, "%.*s\n", SLICE_ARG(line));
        rest = slice_from(rest, line.len + 1);
    }
    buf_fini(&text);
}

static int print_settings(const struct settings *s)
{
    struct buf text;
    buf_init(&text, 16 << 20);
    settings_print(s, &text);
    fwrite(buf_slice(&text).ptr, 1, buf_len(&text), stdout);
    buf_fini(&text);
    return 0;
}

/* A relay has thousands of connections, and each is a descriptor. */
static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= FILES_WANTED)
        return;
    limit.rlim_cur = limit.rlim_max < FILES_WANTED ? limit.rlim_max : FILES_WANTED;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* LMDB reads through a map: a disk that cannot give a page back ends the process here. */
static void disk_failed(int signal_number)
{
    static const char line[] =
        "baton: SIGBUS: the disk under data_dir failed while the queue was "
        "read; look at dmesg, then start batond again or replace the disk\n";
    (void)signal_number;
    if (write(STDERR_FILENO, line, sizeof(line) - 1) < 0)
        _exit(71);
    _exit(70);
}

/* A thread's heap would grow, and give back, by a few pages at a time: a system call
 * every other message. Nothing but address space is taken ahead. */
static void keep_memory(void)
{
    (void)mallopt(M_TOP_PAD, 16 << 20);
    (void)mallopt(M_TRIM_THRESHOLD, 32 << 20);
    (void)mallopt(M_MMAP_THRESHOLD, 1 << 20);
}

static int run(const char *file, struct settings *settings)
{
    struct node n = {.config_file = file, .settings = settings};
    enum log_level level = LOG_INFO;
    log_level_parse(slice_str(settings->log.level), &level);
    log_open(
        level, strcmp(settings->log.format, "json") == 0, settings_node_name(settings));
    signal(SIGPIPE, SIG_IGN);
    signal(SIGBUS, disk_failed);
    raise_file_limit();
    keep_memory();
    log_say(LOG_EV_START, "batond %s, settings %s", BATON_VERSION, file);
    tell_warnings(settings, true);
    if (!node_start(&n)) {
        log_flush();
        node_stop(&n);
        return 1;
    }
    node_run(&n);
    node_stop(&n);
    return 0;
}

int main(int argc, char **argv)
{
    struct arguments arguments = {.config = DEFAULT_CONFIG};
    int exit_code;
    if (!parse_arguments(argc, argv, &arguments, &exit_code))
        return exit_code;
    struct settings *settings = read_settings(arguments.config);
    if (!settings)
        return 1;
    if (arguments.action == RUN)
        return run(arguments.config, settings);
    if (arguments.action == PRINT) {
        print_settings(settings);
    } else {
        tell_warnings(settings, false);
        printf("%s: good\n", arguments.config);
    }
    settings_unref(settings);
    return 0;
}
