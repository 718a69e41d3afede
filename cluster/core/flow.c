/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flow control of mail: how many bytes of copies may be on their way to a peer. The
 * receiver gives a window from what its disk takes; the sender counts what has no answer
 * yet. One copy is always allowed while the window is open, or a message above it could
 * never be sent. Only mail is counted: what keeps leases and claims going never waits
 * here.
 */
#include "cluster/core/internal.h"

#include <string.h>

#define MIB (UINT64_C(1) << 20)
#define LEAST (1 * MIB)
#define WORD_NS (15 * CORE_SEC) /* how long an announced window is believed */

/* What everybody may assume of a peer that has said nothing. */
uint64_t flow_start(const struct core *core)
{
    uint64_t others = core->cfg.count > 1 ? core->cfg.count - 1u : 1u;
    uint64_t share = CORE_CREDIT_ALL / others;
    return share < CORE_CREDIT_START ? share : CORE_CREDIT_START;
}

/* ---- the sender ---- */

static uint64_t window_of(const struct core *core, const struct peer *p)
{
    return core->now < p->window_until ? p->window : flow_start(core);
}

/* Unanswered for so long that rule E refuses it: the path is slower than the disk behind
 * it, and one body at a time is enough. */
static bool jammed(const struct core *core, const struct peer *p)
{
    for (int i = 0; i < FLIGHTS; i++)
        if (core->now < p->flight[i].until &&
            core->now > p->flight[i].since + core->p.frame_ns)
            return true;
    return false;
}

static uint64_t flying(const struct core *core, const struct peer *p, uint32_t *slots)
{
    uint64_t bytes = 0;
    *slots = 0;
    for (int i = 0; i < FLIGHTS; i++)
        if (core->now < p->flight[i].until) {
            bytes += p->flight[i].bytes;
            ++*slots;
        }
    return bytes;
}

/* The parts of a message share the body. */
static uint64_t message_of(const struct unit *u)
{
    struct core_unit_id id = unit_id(u);
    id.part = 0;
    return id_hash(&id);
}

static bool counted(const struct unit *u)
{
    return lane_of(u) == LANE_BULK;
}

/* Repairs take half of what new mail may: somebody waits for the 250. */
bool flow_room(const struct core *core, uint8_t slot, const struct unit *u, bool repair)
{
    const struct peer *p = &core->peer[slot];
    uint64_t window = window_of(core, p);
    uint32_t slots;
    if (window == 0 || !counted(u))
        return window != 0;
    uint64_t now = flying(core, p, &slots);
    return now == 0 || (slots < FLIGHTS && !jammed(core, p) &&
                           now + u->size_bytes <= (repair ? window / 2 : window));
}

static struct flight *flight_of(struct peer *p, uint64_t message)
{
    for (int i = 0; i < FLIGHTS; i++)
        if (p->flight[i].until && p->flight[i].message == message)
            return &p->flight[i];
    return NULL;
}

/* False: no credit, the copy waits. One that is older than rule E allows is lost, but may
 * still fill the path. */
bool flow_take(struct core *core, const struct unit *u, uint8_t slot)
{
    struct peer *p = &core->peer[slot];
    const struct work *w = work_of(core, u);
    const struct flight *same = flight_of(p, message_of(u));
    if (!counted(u) || (same && same->since == core->now))
        return window_of(core, p) != 0; /* small, or another part brings the body */
    if (!flow_room(core, slot, u, w && w->kind != WORK_ACCEPT)) {
        SOMETIMES(core, ST_NO_CREDIT);
        return false;
    }
    for (int i = 0; i < FLIGHTS; i++)
        if (core->now >= p->flight[i].until) {
            p->flight[i] = (struct flight){message_of(u), core->now,
                core->now + 3 * core->p.frame_ns, u->size_bytes};
            break;
        }
    return true;
}

void flow_answered(struct core *core, uint8_t slot, const struct unit *u)
{
    struct flight *f;
    while (counted(u) && (f = flight_of(&core->peer[slot], message_of(u))) != NULL)
        memset(f, 0, sizeof(*f));
}

void flow_credit(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    struct peer *p = &core->peer[slot];
    uint64_t window = msg->u.sync.root;
    p->window = window < CORE_CREDIT_MAX ? window : CORE_CREDIT_MAX;
    p->window_until = core->now + WORD_NS;
}

/* Time that a copy of this size may take before somebody else is asked as well. */
uint64_t flow_patience(const struct core *core, const struct unit *u)
{
    return core->p.hedge_ns + (uint64_t)u->size_bytes * 125; /* 8 MB/s */
}

/* ---- the receiver ---- */

bool flow_takes(const struct core *core, const struct unit_row *row)
{
    return core->copy_bytes == 0 || core->copy_bytes + row->size_bytes <= CORE_CREDIT_ALL;
}

static uint64_t given_to_all(const struct core *core)
{
    uint64_t all = 0;
    for (uint8_t i = 1; i <= core->peer_count; i++)
        if (i != core->self && peer_member(core, i))
            all += core->peer[i].given;
    return all;
}

/* Up while the peer uses it and the disk keeps pace, down while it does not. */
static uint64_t next_given(const struct core *core, const struct peer *p)
{
    uint64_t start = flow_start(core);
    if (core->storage_full || core->commit_age > 5 * CORE_SEC)
        return 0;
    if (core->commit_age > CORE_SEC / 2)
        return p->given / 2 > LEAST ? p->given / 2 : LEAST;
    if (p->given < start || core->now > p->took_at + 30 * CORE_SEC)
        return start;
    if (p->took_bytes < p->given / 2)
        return p->given;
    uint64_t more = p->given * 2 < CORE_CREDIT_MAX ? p->given * 2 : CORE_CREDIT_MAX;
    return given_to_all(core) - p->given + more <= CORE_CREDIT_ALL ? more : p->given;
}

static void announce(struct core *core, uint8_t slot)
{
    struct peer *p = &core->peer[slot];
    struct core_msg m = {.kind = MSG_CREDIT};
    m.u.sync.root = p->given;
    p->given_said = p->given;
    p->given_said_at = core->now;
    core_send(core, slot, &m);
}

void flow_took(struct core *core, uint8_t slot, uint32_t bytes)
{
    struct peer *p = &core->peer[slot];
    p->took_bytes += bytes;
    p->took_at = core->now;
}

void flow_timer(struct core *core)
{
    if (core->now < core->flow_at)
        return;
    core->flow_at = core->now + CORE_SEC;
    for (uint8_t i = 1; i <= core->peer_count && !core_out_full(core); i++) {
        struct peer *p = &core->peer[i];
        if (i == core->self || !peer_member(core, i) || peer_down(core, i))
            continue;
        p->given = next_given(core, p);
        p->took_bytes = 0;
        bool differs = p->given != flow_start(core) || p->given_said != p->given;
        if ((p->given_said != p->given && (p->given_said || differs)) ||
            (differs && core->now > p->given_said_at + WORD_NS / 3))
            announce(core, i);
    }
}
