/* SPDX-License-Identifier: Apache-2.0 */
/* Reading settings: what the files settings_*.c share. */
#ifndef BASE_SETTINGS_INTERNAL_H
#define BASE_SETTINGS_INTERNAL_H

#include "base/settings_tree.h"

/* --- the table of scalars, at run time --- */
enum param_type {
    PARAM_BOOL,
    PARAM_COUNT,
    PARAM_SIZE,
    PARAM_DURATION,
    PARAM_TEXT,
    PARAM_RATE
};
enum param_scope { PARAM_NODE, PARAM_CLUSTER };
enum param_when { PARAM_START, PARAM_RELOAD };

struct param {
    const char *section; /* "top" at the top level */
    const char *name;
    enum param_type type;
    const char *initial; /* the default, as one would write it */
    uint64_t min, max;
    enum param_scope scope;
    enum param_when when;
    const char *meaning;
    size_t offset; /* in struct settings */
};
extern const struct param params[];
extern const unsigned param_count;
/* NULL when there is none. */
const struct param *param_find(const char *section, struct slice name);
/* The words a TEXT parameter may be, "a|b|c", or NULL when it is free. */
const char *param_choices(const struct param *p);
void param_print(const struct param *p, const struct settings *s, struct buf *out);
/* Sets it from text; false and a sentence in `why` when the text is no good. */
bool param_set(
    const struct param *p, struct settings *s, struct slice text, char why[256]);

/* --- where we are, for "listeners[1].tls" --- */
struct spot {
    const struct spot *up;
    struct slice key; /* empty: an item of a list */
    unsigned index;
    int line;
};

struct reader {
    struct settings *s;
    struct settings_problems *problems;
};
/* Where each key was given, newest first. */
struct settings_line {
    struct settings_line *next;
    const char *key; /* "queue.quota" */
    int line;
};
void reader_problem(struct reader *r, const struct spot *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* --- maps --- */
typedef void read_fn(
    struct reader *r, const struct spot *at, const struct tree *value, void *target);
struct key_reader {
    const char *key;
    read_fn *read;
};
/* Reads a mapping: keys from the table, and the parameters of `section` (NULL: none).
 * Anything else is a problem that names the nearest. */
void read_map(struct reader *r, const struct spot *at, const struct tree *map,
    const char *section, const struct key_reader *keys, unsigned key_count, void *target);
/* "did you mean ...": says what is wrong with a key that nobody knows. */
void unknown_key(struct reader *r, const struct spot *at, struct slice key,
    const char *section, const struct key_reader *keys, unsigned key_count);

/* --- values; each adds a problem and returns false when the value is no good --- */
bool read_text(struct reader *r, const struct spot *at, const struct tree *t, size_t max,
    const char **out);
bool read_choice(struct reader *r, const struct spot *at, const struct tree *t,
    const char *choices, unsigned *out);
bool read_duration(struct reader *r, const struct spot *at, const struct tree *t,
    int64_t min, int64_t max, int64_t *out);
bool read_count(struct reader *r, const struct spot *at, const struct tree *t,
    uint32_t min, uint32_t max, uint32_t *out);
bool read_size(struct reader *r, const struct spot *at, const struct tree *t,
    uint64_t min, uint64_t max, uint64_t *out);
bool read_bool(struct reader *r, const struct spot *at, const struct tree *t, bool *out);
/* Lower case, LDH and "_" labels, no trailing dot. `stars`: "*", ".example.org" and
 * "*.example.org" (which becomes the former) too. */
bool read_domain(struct reader *r, const struct spot *at, const struct tree *t,
    bool stars, const char **out);
/* "local@domain", or "@domain" when `whole_domain`; the domain in lower case. */
bool read_address(struct reader *r, const struct spot *at, const struct tree *t,
    bool whole_domain, const char **out);

/* Calls `item` for each item of a list; a scalar or mapping alone counts as a list of it.
 * Returns an array of `size`-byte elements in the settings' arena (NULL when empty). */
typedef bool item_fn(
    struct reader *r, const struct spot *at, const struct tree *value, void *element);
void *read_list(struct reader *r, const struct spot *at, const struct tree *t,
    size_t size, item_fn *item, unsigned *count_out);
void read_text_list(
    struct reader *r, const struct spot *at, const struct tree *t, struct text_list *out);
void read_domain_list(
    struct reader *r, const struct spot *at, const struct tree *t, struct text_list *out);
void read_cidr_list(
    struct reader *r, const struct spot *at, const struct tree *t, struct cidr_list *out);
void read_netaddr_list(struct reader *r, const struct spot *at, const struct tree *t,
    struct netaddr **out, unsigned *count_out);
void read_next_hop(
    struct reader *r, const struct spot *at, const struct tree *t, struct next_hop *out);

/* --- the parts of the file --- */
read_fn read_listeners, read_relay_clients, read_relay_domains, read_routes,
    read_may_send_as, read_self, read_resolver, read_api, read_cluster;
/* As a YAML scalar that reads back as the same text. */
void print_text(struct slice text, struct buf *out);
/* After everything is read: defaults that depend on other keys, and contradictions. */
void settings_finish(struct reader *r);
void settings_finish_cluster(struct reader *r);
void settings_problem_at(struct reader *r, const char *key, int line, const char *format,
    ...) __attribute__((format(printf, 4, 5)));
/* What of the cluster section is no scalar. */
void print_cluster_lists(const struct settings *s, struct buf *out);
/* Lower-case domain syntax (RFC 1123, and "_"). */
bool domain_is_sound(struct slice domain);

/* Of the nodes' talk, when none is given; bodies use the next. */
#define CLUSTER_PORT 7420
#define CHOICES_LISTENER_TLS "none|optional|required|implicit"
#define CHOICES_LINE_ENDS "reject|normalise"
#define CHOICES_SERVICE "mx|submission"
#define CHOICES_DELIVERY_TLS "none|may|encrypt|verify"
#define CHOICES_VERIFY_DOWN "accept-known|accept|defer"
/* The n-th word of "a|b|c"; an empty slice behind the last. */
struct slice choice_name(const char *choices, unsigned n);

/* The same as settings_find_hostname, from given files. */
bool hostname_from(
    struct slice host, const char *hosts_file, const char *mailname_file, char out[256]);

#endif
