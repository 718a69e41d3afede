/* SPDX-License-Identifier: Apache-2.0 */
#include "base/settings_tree.h"

#include <stdlib.h>
#include <yaml.h>

#include "base/alloc.h"

struct builder {
    yaml_parser_t parser;
    struct arena *arena;
    const char *file;
    struct settings_problems *problems;
    unsigned nodes;
    struct {
        struct tree *node;
        struct tree **tail;
        struct tree *key; /* a mapping waits for this key's value */
    } stack[TREE_DEPTH_MAX];
    unsigned depth;
    struct tree *root;
    bool ended;
    bool failed;
};

bool tree_is_null(const struct tree *t)
{
    return t->kind == TREE_SCALAR && !t->quoted &&
           (t->text.len == 0 || slice_eq(t->text, SLICE("~")) ||
               slice_eq(t->text, SLICE("null")));
}

static void refuse(struct builder *b, int line, const char *what)
{
    settings_problem(b->problems, b->file, line, "YAML", "%s", what);
    b->failed = true;
}

static void syntax_error(struct builder *b)
{
    const yaml_parser_t *p = &b->parser;
    const char *problem = p->problem ? p->problem : "cannot be read";
    const char *context = p->context ? p->context : "";
    int line = (int)p->problem_mark.line + 1;
    settings_problem(b->problems, b->file, line, "YAML", "%s%s%s%s", problem,
        context[0] ? " (" : "", context, context[0] ? ")" : "");
    b->failed = true;
}

static struct tree *node_new(
    struct builder *b, enum tree_kind kind, const yaml_event_t *event)
{
    struct tree *t = arena_alloc(b->arena, sizeof(*t));
    t->kind = kind;
    t->line = (int)event->start_mark.line + 1;
    if (++b->nodes > TREE_NODES_MAX)
        refuse(b, t->line, "too many values");
    return t;
}

/* A finished or just opened node takes its place in what is open. */
static void place(struct builder *b, struct tree *t)
{
    if (b->depth == 0) {
        if (b->root)
            refuse(b, t->line, "only one document is read");
        b->root = t;
        return;
    }
    unsigned top = b->depth - 1;
    struct tree *parent = b->stack[top].node;
    if (parent->kind == TREE_MAP && !b->stack[top].key) {
        if (t->kind != TREE_SCALAR)
            refuse(b, t->line, "a key must be a plain name");
        b->stack[top].key = t;
        return;
    }
    if (parent->kind == TREE_MAP) {
        t->key = b->stack[top].key->text;
        t->key_line = b->stack[top].key->line;
        b->stack[top].key = NULL;
    }
    *b->stack[top].tail = t;
    b->stack[top].tail = &t->next;
    parent->count++;
}

static void open_node(struct builder *b, enum tree_kind kind, const yaml_event_t *event)
{
    struct tree *t = node_new(b, kind, event);
    place(b, t);
    if (b->depth == TREE_DEPTH_MAX) {
        refuse(b, t->line, "nested too deeply");
        return;
    }
    b->stack[b->depth].node = t;
    b->stack[b->depth].tail = &t->first;
    b->stack[b->depth].key = NULL;
    b->depth++;
}

static int by_key(const void *a, const void *b)
{
    const struct tree *x = *(struct tree *const *)a, *y = *(struct tree *const *)b;
    int order = slice_cmp(x->key, y->key);
    return order ? order : (x->key_line > y->key_line) - (x->key_line < y->key_line);
}

/* A key that is given twice: YAML forbids it, libyaml does not look. */
static void check_duplicates(struct builder *b, const struct tree *map)
{
    if (map->count < 2)
        return;
    struct tree **all = mem_alloc(map->count * sizeof(struct tree *));
    unsigned n = 0;
    for (struct tree *t = map->first; t; t = t->next)
        all[n++] = t;
    qsort(all, n, sizeof(struct tree *), by_key);
    for (unsigned i = 1; i < n; i++)
        if (slice_eq(all[i]->key, all[i - 1]->key)) {
            char *key = arena_strdup(b->arena, all[i]->key);
            settings_problem(b->problems, b->file, all[i]->key_line, key,
                "given twice (before in line %d)", all[i - 1]->key_line);
        }
    free(all);
}

static void close_node(struct builder *b)
{
    b->depth--;
    if (b->stack[b->depth].node->kind == TREE_MAP)
        check_duplicates(b, b->stack[b->depth].node);
}

static void take_scalar(struct builder *b, const yaml_event_t *event)
{
    struct tree *t = node_new(b, TREE_SCALAR, event);
    t->text = arena_dup(
        b->arena, slice_make(event->data.scalar.value, event->data.scalar.length));
    t->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    if (event->data.scalar.tag)
        refuse(b, t->line, "tags (!...) have no meaning here");
    if (event->data.scalar.anchor)
        refuse(b, t->line, "anchors (&...) are not supported; write the value out");
    place(b, t);
}

static void take_event(struct builder *b, const yaml_event_t *event)
{
    int line = (int)event->start_mark.line + 1;
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        take_scalar(b, event);
        break;
    case YAML_SEQUENCE_START_EVENT:
        if (event->data.sequence_start.anchor || event->data.sequence_start.tag)
            refuse(b, line, "anchors and tags are not supported; write the value out");
        open_node(b, TREE_LIST, event);
        break;
    case YAML_MAPPING_START_EVENT:
        if (event->data.mapping_start.anchor || event->data.mapping_start.tag)
            refuse(b, line, "anchors and tags are not supported; write the value out");
        open_node(b, TREE_MAP, event);
        break;
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        close_node(b);
        break;
    case YAML_ALIAS_EVENT:
        refuse(b, line, "aliases (*...) are not supported; write the value out");
        break;
    case YAML_STREAM_END_EVENT:
        b->ended = true;
        break;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_DOCUMENT_START_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        break;
    }
}

static void run(struct builder *b)
{
    yaml_event_t event;
    while (!b->ended && !b->failed) {
        if (!yaml_parser_parse(&b->parser, &event)) {
            syntax_error(b);
            return;
        }
        take_event(b, &event);
        yaml_event_delete(&event);
    }
}

struct tree *tree_parse(struct arena *arena, struct slice yaml, const char *file,
    struct settings_problems *problems)
{
    struct builder b = {.arena = arena, .file = file, .problems = problems};
    if (!yaml_parser_initialize(&b.parser))
        die("baton: libyaml: out of memory");
    yaml_parser_set_input_string(&b.parser, (const unsigned char *)yaml.ptr, yaml.len);
    run(&b);
    yaml_parser_delete(&b.parser);
    if (b.failed)
        return NULL;
    if (!b.root || tree_is_null(b.root)) {
        b.root = arena_alloc(arena, sizeof(*b.root));
        b.root->kind = TREE_MAP;
        b.root->line = 1;
    }
    return b.root;
}
