/* SPDX-License-Identifier: Apache-2.0 */
/* batonctl: one process, one command, one connection to the control socket. What peers
 * said reaches the terminal only through text_put, which escapes. */
#ifndef NODE_BATONCTL_H
#define NODE_BATONCTL_H

#include <jansson.h>

#include "base/buf.h"
#include "base/clock.h"

#define EXIT_WELL 0
#define EXIT_USAGE 1
#define EXIT_DEGRADED 2
#define EXIT_AT_RISK 3
#define EXIT_NO_ANSWER 4

#define POSITIONALS_MAX 4
#define OPTIONS_MAX 16

/* --- the command line --- */
struct option {
    const char *name;  /* "--from" */
    const char *value; /* "ADDRESS", or NULL for a switch */
    const char *meaning;
};
struct command_line {
    const char *control; /* --control */
    const char *config;  /* -c */
    bool json, watch, help;
    const struct command *command;
    const char *values[OPTIONS_MAX]; /* by the command's option table; "" for a switch */
    const char *positional[POSITIONALS_MAX];
    unsigned positional_count;
};
struct ctl;
struct command {
    const char *name;  /* "queue ls" */
    const char *usage; /* behind the name */
    const char *summary;
    const char *help;     /* some more lines, or "" */
    unsigned least, most; /* positionals */
    struct option options[OPTIONS_MAX];
    /* Fills the arguments of the request, prints the answer, returns the exit code. */
    int (*run)(struct ctl *ctl, const struct command_line *line);
};
extern const struct command commands[];
extern const unsigned command_count;
/* The value of an option, or NULL when it was not given. */
const char *option_value(const struct command_line *line, const char *name);
/* False, with a message on standard error, when the line makes no sense. */
bool command_line_parse(struct command_line *line, int argc, char **argv);
void help_print(const struct command *command); /* NULL: all */

/* --- talking to the node --- */
struct ctl {
    const char *path; /* of the control socket */
    bool json;
    bool colour;
    unsigned columns; /* of the terminal; 0: not one */
    struct wall now;
    bool incomplete; /* the last answer was without nodes that did not answer */
};
typedef void ctl_line_fn(struct ctl *ctl, json_t *object, void *ctx);
/* Sends one command (takes `args`), calls `line` for each object of the answer (or prints
 * it raw with --json), prints errors, and returns the exit code. `patient`: silence is no
 * sign of death. */
int ctl_call(struct ctl *ctl, const char *command, json_t *args, bool patient,
    ctl_line_fn *line, void *ctx);
/* Where the socket is: --control, $BATON_CONTROL, control: in the settings. NULL with a
 * message when the settings that were named cannot be read. Owned by the caller. */
char *ctl_find_socket(const struct command_line *line);

/* --- commands --- */
int run_status(struct ctl *ctl, const struct command_line *line);
int run_queue_ls(struct ctl *ctl, const struct command_line *line);
int run_queue_show(struct ctl *ctl, const struct command_line *line);
int run_quarantine_ls(struct ctl *ctl, const struct command_line *line);
int run_quarantine(struct ctl *ctl, const struct command_line *line);
/* hold, release, retry, expire, bounce, drop */
int run_queue_verb(struct ctl *ctl, const struct command_line *line);
/* The filters of the command line; NULL `filtered_out`: nobody asks. */
json_t *filter_args(const struct command_line *line, bool *filtered_out);
int run_queue_shape(struct ctl *ctl, const struct command_line *line);
int run_trace(struct ctl *ctl, const struct command_line *line);
int run_why(struct ctl *ctl, const struct command_line *line);
int run_resolve(struct ctl *ctl, const struct command_line *line);
int run_events(struct ctl *ctl, const struct command_line *line);
int run_reload(struct ctl *ctl, const struct command_line *line);
int run_log(struct ctl *ctl, const struct command_line *line);
int run_clock_accept(struct ctl *ctl, const struct command_line *line);

int run_cluster_init(struct ctl *ctl, const struct command_line *line);
int run_cluster_token(struct ctl *ctl, const struct command_line *line);
int run_node_ls(struct ctl *ctl, const struct command_line *line);
int run_drain(struct ctl *ctl, const struct command_line *line);
int run_allow(struct ctl *ctl, const struct command_line *line);
int run_allow_ls(struct ctl *ctl, const struct command_line *line);
int run_user_lock(struct ctl *ctl, const struct command_line *line);
/* undrain, remove, force-fence, force-config */
int run_member(struct ctl *ctl, const struct command_line *line);

/* --- output --- */
enum colour { PLAIN, BOLD, DIM, RED, GREEN, YELLOW };
/* Prints to standard output. text_put escapes; paint does not, and is for our own words.
 */
void text_put(struct slice text);
void paint(const struct ctl *ctl, enum colour colour, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* "" when there is none. */
struct slice get_text(const json_t *object, const char *key);
int64_t get_int(const json_t *object, const char *key);
bool get_bool(const json_t *object, const char *key);
/* "2026-11-22T15:43:38.123Z"; false for anything else. */
bool iso_parse(struct slice text, struct wall *out);
/* "3m", "2d4h" since then; "-" when there is no such time. */
void age_format(
    const struct ctl *ctl, const json_t *object, const char *key, char out[32]);
/* "1,204" and "12.3 MB" */
void count_format(int64_t n, char out[32]);
void bytes_format(int64_t n, char out[32]);
const char *plural(int64_t n, const char *one, const char *many);
enum colour event_colour(struct slice event, struct slice level);

/* A table whose columns are as wide as what is in them. */
#define TABLE_COLUMNS 16
struct table {
    unsigned columns;
    unsigned rows;
    struct {
        char *cells[TABLE_COLUMNS];
        enum colour colour; /* of the whole row */
    } * row;
    bool right[TABLE_COLUMNS]; /* numbers */
};
void table_init(struct table *t, unsigned columns, const char *const *titles);
void table_row(struct table *t, enum colour colour);
/* Escaped. */
void table_cell(struct table *t, unsigned column, struct slice text);
void table_count(struct table *t, unsigned column, int64_t n);
/* Prints and frees. */
void table_print(const struct ctl *ctl, struct table *t);
/* Without printing; once more is harmless. */
void table_free(struct table *t);
/* The members of the cluster, as in `status` and `node ls`. */
void members_table(struct table *t);
void members_row(struct table *t, const json_t *row);

#endif
