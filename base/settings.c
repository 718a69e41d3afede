/* SPDX-License-Identifier: Apache-2.0 */
#include "base/settings.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/settings_internal.h"

#define FILE_MAX (1u << 20)
#define PROBLEMS_MAX 100
#define COUNT(array) (unsigned)(sizeof(array) / sizeof((array)[0]))

void settings_problems_init(struct settings_problems *p)
{
    buf_init(&p->text, 1 << 18);
    p->count = 0;
}

void settings_problems_fini(struct settings_problems *p)
{
    buf_fini(&p->text);
}

void settings_problem(struct settings_problems *p, const char *file, int line,
    const char *key, const char *format, ...)
{
    char what[600];
    va_list args;
    if (++p->count > PROBLEMS_MAX) {
        if (p->count == PROBLEMS_MAX + 1)
            buf_printf(&p->text, "%s: and more\n", file);
        return;
    }
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    buf_printf(&p->text, "%s:", file);
    if (line > 0)
        buf_printf(&p->text, "%d:", line);
    buf_printf(&p->text, " %s%s%s\n", key ? key : "", key && key[0] ? ": " : "", what);
}

/* A section with nothing but scalars. */
#define SCALAR_SECTION(section)                                                          \
    static void read_##section(                                                          \
        struct reader *r, const struct spot *at, const struct tree *t, void *target)     \
    {                                                                                    \
        read_map(r, at, t, #section, NULL, 0, target);                                   \
    }
SCALAR_SECTION(log)
SCALAR_SECTION(queue)
SCALAR_SECTION(history)
SCALAR_SECTION(tls)
SCALAR_SECTION(users)
SCALAR_SECTION(retry)
SCALAR_SECTION(limits)
SCALAR_SECTION(delivery)

static const struct key_reader top_keys[] = {{"log", read_log}, {"queue", read_queue},
    {"history", read_history}, {"tls", read_tls}, {"users", read_users},
    {"retry", read_retry}, {"limits", read_limits}, {"delivery", read_delivery},
    {"self", read_self}, {"resolver", read_resolver}, {"api", read_api},
    {"listeners", read_listeners}, {"relay_clients", read_relay_clients},
    {"relay_domains", read_relay_domains}, {"routes", read_routes},
    {"may_send_as", read_may_send_as}, {"cluster", read_cluster}};

static void set_initial_values(struct settings *s)
{
    char why[256];
    for (unsigned i = 0; i < param_count; i++) {
        struct param p = params[i];
        if (p.initial[0] == '\0')
            p.min = 0; /* an empty default stands for "found out later" */
        INVARIANT(param_set(&p, s, slice_str(p.initial), why));
    }
}

static struct settings *settings_new(const char *file)
{
    struct arena *arena = arena_new(16384);
    struct settings *s = arena_alloc(arena, sizeof(*s));
    s->arena = arena;
    s->file = arena_strdup(arena, slice_str(file));
    s->refs = 1;
    set_initial_values(s);
    return s;
}

struct settings *settings_parse(
    struct slice yaml, const char *file, struct settings_problems *problems)
{
    unsigned before = problems->count;
    if (yaml.len > FILE_MAX) {
        settings_problem(problems, file, 0, NULL, "is larger than 1 MiB");
        return NULL;
    }
    struct settings *s = settings_new(file);
    struct arena *scratch = arena_new(16384);
    struct reader r = {.s = s, .problems = problems};
    struct tree *tree = tree_parse(scratch, yaml, s->file, problems);
    if (tree) {
        struct spot top = {.line = tree->line};
        read_map(&r, &top, tree, "top", top_keys, COUNT(top_keys), NULL);
        settings_finish(&r);
    }
    arena_free(scratch);
    if (problems->count == before)
        return s;
    settings_unref(s);
    return NULL;
}

static void cannot_read(const char *file, int error, struct settings_problems *problems)
{
    if (error == ENOENT)
        settings_problem(problems, file, 0, NULL, "there is no such file");
    else
        settings_problem(problems, file, 0, NULL, "cannot be read: %s", strerror(error));
}

/* One byte more than is allowed, so that a longer file shows. */
static bool read_file(
    const char *file, struct buf *out, struct settings_problems *problems)
{
    struct stat st;
    ssize_t n = -1;
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) != 0) {
        cannot_read(file, errno, problems);
        if (fd >= 0)
            close(fd);
        return false;
    }
    if (S_ISDIR(st.st_mode)) {
        errno = EISDIR;
    } else {
        char *room = buf_reserve(out, FILE_MAX + 1);
        size_t got = 0;
        while (got <= FILE_MAX && (n = read(fd, room + got, FILE_MAX + 1 - got)) > 0)
            got += (size_t)n;
        buf_commit(out, got);
    }
    if (n < 0)
        cannot_read(file, errno, problems);
    close(fd);
    return n >= 0;
}

struct settings *settings_read(const char *file, struct settings_problems *problems)
{
    struct settings *s = NULL;
    struct buf text;
    buf_init(&text, FILE_MAX + 1);
    if (read_file(file, &text, problems))
        s = settings_parse(buf_slice(&text), file, problems);
    buf_fini(&text);
    return s;
}

struct settings *settings_ref(struct settings *s)
{
    __atomic_fetch_add(&s->refs, 1, __ATOMIC_RELAXED);
    return s;
}

void settings_unref(struct settings *s)
{
    if (s && __atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL) == 0)
        arena_free(s->arena);
}
