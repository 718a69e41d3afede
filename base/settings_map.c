/* SPDX-License-Identifier: Apache-2.0 */
/* Mappings: known keys to their readers, unknown keys to a helpful refusal. */
#include <stdarg.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/settings_internal.h"

/* Keys of the documentation that this version does not have. Refused by name: ignoring
 * them would promise what is not kept. `in` is the path of the mapping. */
static const struct {
    const char *in, *key;
} not_built[] = {
    {"", "egress"},
    {"", "pools"},
    {"", "dnsbl"},
    {"", "dnsbl_interval"},
    {"", "suppress"},
    {"", "suppression"},
    {"", "webhooks"},
    {"", "milters"},
    {"", "dkim"},
    {"", "dmarc"},
    {"", "spf"},
    {"", "arc"},
    {"", "dane"},
    {"", "mta_sts"},
    {"", "tlsrpt"},
    {"routes[]", "pool"},
    {"routes[]", "egress"},
    {"api", "tls"},
    {"api", "tokens"},
    {"api", "keys"},
    {"tls", "acme"},
};

static void spot_text(const struct spot *at, bool indexes, struct buf *out)
{
    if (!at)
        return;
    spot_text(at->up, indexes, out);
    if (at->key.len == 0 && at->up) {
        if (indexes)
            buf_printf(out, "[%u]", at->index);
        else
            buf_append_str(out, "[]");
        return;
    }
    if (buf_len(out))
        buf_append_char(out, '.');
    buf_append(out, at->key);
}

void reader_problem(struct reader *r, const struct spot *at, const char *format, ...)
{
    char what[512];
    struct buf path;
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    buf_init(&path, 1024);
    spot_text(at, true, &path);
    buf_append_char(&path, '\0');
    settings_problem(
        r->problems, r->s->file, at ? at->line : 0, buf_slice(&path).ptr, "%s", what);
    buf_fini(&path);
}

static bool is_not_built(const struct spot *in, struct slice key)
{
    struct buf path;
    bool found = false;
    buf_init(&path, 1024);
    spot_text(in, false, &path);
    for (size_t i = 0; i < sizeof(not_built) / sizeof(not_built[0]); i++)
        if (slice_eq(buf_slice(&path), slice_str(not_built[i].in)) &&
            slice_eq(key, slice_str(not_built[i].key)))
            found = true;
    buf_fini(&path);
    return found;
}

#define WORD_MAX 32

/* Levenshtein's distance, a swap of neighbours counting one; WORD_MAX for long words. */
static unsigned distance(struct slice a, struct slice b)
{
    unsigned rows[3][WORD_MAX + 1];
    if (a.len > WORD_MAX || b.len > WORD_MAX)
        return WORD_MAX;
    for (unsigned j = 0; j <= b.len; j++)
        rows[0][j] = j;
    for (unsigned i = 1; i <= a.len; i++) {
        unsigned *now = rows[i % 3], *before = rows[(i + 2) % 3];
        now[0] = i;
        for (unsigned j = 1; j <= b.len; j++) {
            unsigned swap = before[j - 1] + (a.ptr[i - 1] != b.ptr[j - 1]);
            now[j] = before[j] < now[j - 1] ? before[j] + 1 : now[j - 1] + 1;
            if (swap < now[j])
                now[j] = swap;
            if (i > 1 && j > 1 && a.ptr[i - 1] == b.ptr[j - 2] &&
                a.ptr[i - 2] == b.ptr[j - 1] && rows[(i + 1) % 3][j - 2] + 1 < now[j])
                now[j] = rows[(i + 1) % 3][j - 2] + 1;
        }
    }
    return rows[a.len % 3][b.len];
}

struct nearest {
    struct slice key; /* that nobody knows */
    const char *best;
    unsigned best_distance;
    char all[300]; /* the valid ones, as far as they fit */
    size_t all_len;
};

static void consider(struct nearest *n, const char *candidate)
{
    size_t room = sizeof(n->all) - n->all_len;
    int len =
        snprintf(n->all + n->all_len, room, "%s%s", n->all_len ? ", " : "", candidate);
    if (len > 0 && (size_t)len < room)
        n->all_len += (size_t)len;
    else
        n->all[n->all_len] = '\0';
    unsigned d = distance(n->key, slice_str(candidate));
    if (d < n->best_distance) {
        n->best = candidate;
        n->best_distance = d;
    }
}

/* "quota" at the top: it exists, one level down. */
static const struct param *elsewhere(const char *section, struct slice key)
{
    for (unsigned i = 0; i < param_count; i++)
        if (slice_eq(slice_str(params[i].name), key) &&
            (!section || strcmp(params[i].section, section) != 0))
            return &params[i];
    return NULL;
}

void unknown_key(struct reader *r, const struct spot *at, struct slice key,
    const char *section, const struct key_reader *keys, unsigned key_count)
{
    struct nearest n = {.key = key, .best_distance = WORD_MAX};
    if (is_not_built(at->up, key)) {
        reader_problem(r, at, "not built in this version");
        return;
    }
    for (unsigned i = 0; i < key_count; i++)
        consider(&n, keys[i].key);
    for (unsigned i = 0; section && i < param_count; i++)
        if (strcmp(params[i].section, section) == 0)
            consider(&n, params[i].name);
    const struct param *other = elsewhere(section, key);
    if (other && strcmp(other->section, "top") == 0)
        reader_problem(
            r, at, "unknown key here; \"%s\" belongs at the top level", other->name);
    else if (other)
        reader_problem(r, at, "unknown key here; \"%s\" belongs under \"%s\"",
            other->name, other->section);
    else if (n.best && n.best_distance * 2 <= key.len)
        reader_problem(r, at, "unknown key; the nearest is \"%s\"", n.best);
    else
        reader_problem(r, at, "unknown key; here are %s", n.all);
}

static void read_param(
    struct reader *r, const struct spot *at, const struct param *p, const struct tree *t)
{
    char why[256];
    if (t->kind != TREE_SCALAR)
        reader_problem(r, at, "must be one value, not a %s",
            t->kind == TREE_LIST ? "list" : "mapping");
    else if (tree_is_null(t))
        reader_problem(r, at, "has no value; leave the key out for its default");
    else if (!param_set(p, r->s, t->text, why))
        reader_problem(r, at, "%s", why);
}

/* Of the first two levels, which have names and no numbers. */
static void remember_line(struct reader *r, const struct spot *at)
{
    const struct spot *up = at->up;
    struct settings_line *l;
    if (up->up && (up->up->up || up->key.len == 0))
        return;
    l = arena_alloc(r->s->arena, sizeof(*l));
    l->key = arena_printf(r->s->arena, "%.*s%s%.*s", SLICE_ARG(up->key),
        up->key.len ? "." : "", SLICE_ARG(at->key))
                 .ptr;
    l->line = at->line;
    l->next = r->s->lines;
    r->s->lines = l;
}

int settings_line(const struct settings *s, const char *key)
{
    for (const struct settings_line *l = s->lines; l; l = l->next)
        if (strcmp(l->key, key) == 0)
            return l->line;
    return 0;
}

static read_fn *find_reader(
    struct slice key, const struct key_reader *keys, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (slice_eq(slice_str(keys[i].key), key))
            return keys[i].read;
    return NULL;
}

void read_map(struct reader *r, const struct spot *at, const struct tree *map,
    const char *section, const struct key_reader *keys, unsigned key_count, void *target)
{
    if (tree_is_null(map))
        return; /* "log:" with nothing under it */
    if (map->kind != TREE_MAP) {
        reader_problem(r, at, "must be a mapping (key: value)");
        return;
    }
    for (const struct tree *t = map->first; t; t = t->next) {
        struct spot here = {.up = at, .key = t->key, .line = t->key_line};
        const struct param *p = section ? param_find(section, t->key) : NULL;
        read_fn *read = find_reader(t->key, keys, key_count);
        remember_line(r, &here);
        if (p)
            read_param(r, &here, p, t);
        else if (read)
            read(r, &here, t, target);
        else
            unknown_key(r, &here, t->key, section, keys, key_count);
    }
}
