/* SPDX-License-Identifier: Apache-2.0 */
/* The order of frames: what comes too late in its lane is not taken. */
#include "cluster/core/internal.h"

#include <string.h>

/* ---- order in the bulk lane ----
 * A body takes its time, and what is sent after it may arrive before. The copy is still
 * good, unless something about the same unit overtook it, or so much else that we cannot
 * tell. */

static uint64_t about(const struct core_msg *m)
{
    return id_hash(&m->u.attempt.id); /* all that has a unit begins with its id */
}

static void bulk_note(struct peer *p, const struct core_msg *m)
{
    struct bulk_seen *b = &p->bulk[p->bulk_next++ % BULK_SEEN];
    if (b->seq > p->bulk_floor)
        p->bulk_floor = b->seq;
    *b = (struct bulk_seen){m->env.seq, about(m)};
}

static bool bulk_late_copy(const struct peer *p, const struct core_msg *m)
{
    if (m->kind != MSG_COPY || m->env.seq <= p->bulk_floor)
        return false;
    for (uint32_t i = 0; i < BULK_SEEN; i++)
        if (p->bulk[i].seq >= m->env.seq && p->bulk[i].unit == about(m))
            return false;
    return true;
}

static void bulk_restart(struct peer *p)
{
    memset(p->bulk, 0, sizeof(p->bulk));
    p->bulk_floor = 0;
}

/* Old frames of a lane that come after newer ones are dropped, so are repeats. */
bool lane_fresh(struct core *core, struct peer *p, const struct core_msg *m)
{
    const struct core_env *env = &m->env;
    if (env->lane >= LANE_COUNT)
        return false;
    uint32_t epoch = p->rx[env->lane].epoch;
    if (env->from_epoch < epoch ||
        (env->from_epoch == epoch && env->seq <= p->rx[env->lane].seq)) {
        if (env->lane == LANE_BULK && env->from_epoch == epoch && bulk_late_copy(p, m)) {
            SOMETIMES(core, ST_LATE_COPY);
            bulk_note(p, m);
            return true;
        }
        SOMETIMES(core, ST_SEQ_DROP);
        return false;
    }
    if (env->lane == LANE_BULK && env->from_epoch > epoch)
        bulk_restart(p);
    if (env->lane == LANE_BULK)
        bulk_note(p, m);
    p->rx[env->lane].epoch = env->from_epoch;
    p->rx[env->lane].seq = env->seq;
    return true;
}
