/* SPDX-License-Identifier: Apache-2.0 */
/* A YAML document as a small tree with line numbers. Bounded: no aliases (so it cannot
 * multiply), no tags, TREE_DEPTH_MAX deep, keys are scalars and occur once in a mapping.
 */
#ifndef BASE_SETTINGS_TREE_H
#define BASE_SETTINGS_TREE_H

#include "base/settings.h"

#define TREE_DEPTH_MAX 8
#define TREE_NODES_MAX 200000

enum tree_kind { TREE_SCALAR, TREE_LIST, TREE_MAP };

struct tree {
    enum tree_kind kind;
    bool quoted; /* "" and '' are texts; nothing and ~ are no value */
    int line;
    int key_line;
    struct slice key;   /* in a mapping */
    struct slice text;  /* of a scalar */
    struct tree *first; /* of a list or mapping */
    struct tree *next;
    unsigned count;
};

/* NULL when it is not YAML, or not of our kind: what is wrong has been added to
 * `problems`. An empty file is an empty mapping. All is in `arena`. */
struct tree *tree_parse(struct arena *arena, struct slice yaml, const char *file,
    struct settings_problems *problems);
/* Nothing, `~` or `null`, unquoted. */
bool tree_is_null(const struct tree *t);

#endif
