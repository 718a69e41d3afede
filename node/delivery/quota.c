/* SPDX-License-Identifier: Apache-2.0 */
#include "node/delivery/quota.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

static uint32_t max32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t min32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

void quota_period(
    uint32_t count, int64_t period_ns, uint32_t *count_out, int64_t *period_ns_out)
{
    int64_t parts = count / 100, most = period_ns / NS_PER_S;
    parts = parts < most ? parts : most;
    parts = parts > 1 ? parts : 1;
    *count_out = (uint32_t)(count / parts);
    /* Rounded up: rather a little less mail than a little more. */
    *period_ns_out = (period_ns + parts - 1) / parts;
}

void quota_init(struct quota *q, const struct quota_terms *terms)
{
    *q = (struct quota){.serial = 0};
    memcpy(q->share, terms->floor, sizeof(q->share));
}

void quota_fini(struct quota *q)
{
    free(q->ended);
    q->ended = NULL;
}

bool quota_may_connect(const struct quota *q, unsigned connections)
{
    return connections < q->share[QUOTA_CONNECTIONS];
}

/* ---- messages ---- */

static void forget_old(struct quota *q, const struct quota_terms *terms, int64_t now_ns)
{
    while (q->count > 0 && q->ended[q->first] + terms->period_ns <= now_ns) {
        q->first = (q->first + 1) % q->room;
        q->count--;
    }
}

uint32_t quota_messages(struct quota *q, const struct quota_terms *terms, int64_t now_ns)
{
    if (terms->period_ns == 0)
        return QUOTA_NO_LIMIT;
    forget_old(q, terms, now_ns);
    uint32_t used = q->under_way + q->count, share = q->share[QUOTA_MESSAGES];
    return share > used ? share - used : 0;
}

int64_t quota_next(const struct quota *q, const struct quota_terms *terms)
{
    uint32_t used = q->under_way + q->count, share = q->share[QUOTA_MESSAGES];
    if (share == 0 || used < share || used - share >= q->count)
        return INT64_MAX;
    return q->ended[(q->first + (used - share)) % q->room] + terms->period_ns;
}

void quota_start(struct quota *q)
{
    q->under_way++;
}

static void grow(struct quota *q)
{
    uint32_t room = q->room ? q->room * 2 : 8;
    int64_t *all = mem_alloc(room * sizeof(*all));
    for (uint32_t i = 0; i < q->count; i++)
        all[i] = q->ended[(q->first + i) % q->room];
    free(q->ended);
    q->ended = all;
    q->first = 0;
    q->room = room;
}

void quota_end(struct quota *q, int64_t now_ns)
{
    if (q->under_way == 0)
        return; /* begun before messages were limited, or its destination is another */
    q->under_way--;
    if (q->count == q->room)
        grow(q);
    q->ended[(q->first + q->count++) % q->room] = now_ns;
}

bool quota_counts(struct quota *q, const struct quota_terms *terms, int64_t now_ns)
{
    forget_old(q, terms, now_ns);
    return q->under_way + q->count > 0;
}

/* ---- the share ---- */

static bool is_within_floor(const struct quota_terms *terms,
    const uint32_t have[QUOTA_KINDS], const uint32_t want[QUOTA_KINDS])
{
    for (unsigned k = 0; k < QUOTA_KINDS; k++)
        if (have[k] > terms->floor[k] || want[k] > terms->floor[k])
            return false;
    return true;
}

static bool is_to_tell(const struct quota *q, const struct quota_terms *terms,
    const uint32_t have[QUOTA_KINDS], const uint32_t most[QUOTA_KINDS], bool lower)
{
    if (lower && q->is_told && q->was_cut)
        return true;
    for (unsigned k = 0; k < QUOTA_KINDS; k++) {
        if (terms->floor[k] == QUOTA_NO_LIMIT)
            continue;
        if (q->is_told ? most[k] > q->most[k] && most[k] > q->share[k]
                       : most[k] > terms->floor[k])
            return true;
        if (lower && q->is_told && most[k] < q->most[k])
            return true;
        /* What was over the share has ended: others wait for it. */
        if (lower && q->is_told && have[k] < q->have[k] && q->have[k] > q->share[k])
            return true;
    }
    return false;
}

/* Nothing of what is told is above `most` then, whatever answers are still on their way.
 */
static void tell(struct quota *q, const struct quota_terms *terms,
    const uint32_t most[QUOTA_KINDS], struct quota_need *need)
{
    need->serial = ++q->serial;
    for (unsigned k = 0; k < QUOTA_KINDS; k++) {
        q->most[k] = most[k];
        q->have[k] = need->have[k];
        q->share[k] = min32(q->share[k], max32(terms->floor[k], most[k]));
        need->may[k] = q->share[k];
    }
    q->was_cut = false;
}

bool quota_look(struct quota *q, const struct quota_terms *terms,
    const uint32_t have[QUOTA_KINDS], const uint32_t want[QUOTA_KINDS], bool lower,
    struct quota_need *need)
{
    uint32_t most[QUOTA_KINDS];
    *need = (struct quota_need){.serial = 0};
    if (is_within_floor(terms, have, want)) {
        static const uint32_t none[QUOTA_KINDS];
        if (!q->is_told || !lower)
            return false;
        q->is_told = false;
        tell(q, terms, none, need);
        return true;
    }
    for (unsigned k = 0; k < QUOTA_KINDS; k++)
        most[k] = max32(have[k], want[k]);
    if (!is_to_tell(q, terms, have, most, lower))
        return false;
    q->is_told = true;
    memcpy(need->have, have, sizeof(need->have));
    memcpy(need->want, want, sizeof(need->want));
    tell(q, terms, most, need);
    return true;
}

void quota_share(struct quota *q, const struct quota_terms *terms, uint32_t serial,
    const uint32_t share[QUOTA_KINDS])
{
    if (!q->is_told)
        return;
    for (unsigned k = 0; k < QUOTA_KINDS; k++) {
        uint32_t most = max32(terms->floor[k], q->most[k]);
        uint32_t s = max32(terms->floor[k], min32(share[k], most));
        if (terms->floor[k] == QUOTA_NO_LIMIT)
            s = QUOTA_NO_LIMIT;
        s = serial == q->serial ? s : min32(q->share[k], s);
        q->was_cut = q->was_cut || s < q->share[k];
        q->share[k] = s;
    }
}

void quota_floor(
    struct quota *q, const struct quota_terms *terms, const uint32_t have[QUOTA_KINDS])
{
    for (unsigned k = 0; k < QUOTA_KINDS; k++)
        if (terms->floor[k] == QUOTA_NO_LIMIT || q->share[k] < terms->floor[k])
            q->share[k] = terms->floor[k];
        else if (!q->is_told)
            q->share[k] = max32(terms->floor[k], have[k]);
}
