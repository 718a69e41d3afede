/* SPDX-License-Identifier: Apache-2.0 */
/* A client whose node died before its 250 sends again, to another node. What comes with a
 * copy to recognise it by (limits.repeat_window) is kept until it is sure that the
 * message was taken: the unit is ours to deliver, or it is done. Before, the owner may
 * still say 451 and end it, and a repetition answered with 250 would be lost. In memory
 * only. */
#include <stdlib.h>

#include "base/alloc.h"
#include "node/cluster/engine_internal.h"

#define KEYS_MAX 65536u

struct kept_key {
    struct table_node by_unit;
    struct repeat_key key;
};

static struct kept_key *find(const struct engine *e, const struct core_unit_id *id)
{
    struct table_node *n = table_find(&e->repeats, table_unit_key(id));
    return n ? CONTAINER_OF(n, struct kept_key, by_unit) : NULL;
}

static void drop(struct engine *e, struct kept_key *k)
{
    table_remove(&e->repeats, &k->by_unit);
    free(k);
}

void engine_repeat_keep(
    struct engine *e, const struct core_unit_id *id, const struct repeat_key *key)
{
    if (!e->deps.events->taken || !repeat_key_given(key) || find(e, id) ||
        e->repeats.count >= KEYS_MAX)
        return;
    struct kept_key *k = mem_zalloc(sizeof(*k));
    k->key = *key;
    table_add(&e->repeats, &k->by_unit, table_unit_key(id));
}

void engine_repeat_sure(struct engine *e, const struct core_unit_id *id)
{
    struct kept_key *k = find(e, id);
    if (!k)
        return;
    e->deps.events->taken(e->deps.ctx, &k->key, rows_unit_id(id).msg);
    drop(e, k);
}

void engine_repeat_drop(struct engine *e, const struct core_unit_id *id)
{
    struct kept_key *k = find(e, id);
    if (k)
        drop(e, k);
}

void engine_repeat_fini(struct engine *e)
{
    struct table_node *n;
    while ((n = table_any(&e->repeats)))
        drop(e, CONTAINER_OF(n, struct kept_key, by_unit));
    table_fini(&e->repeats);
}
