/* SPDX-License-Identifier: Apache-2.0 */
/* Copies: where they go, how they come and go. */
#include "cluster/core/internal.h"

/* ---- placement: rendezvous hashing, integer weights ---- */

static uint64_t rotl(uint64_t v, int n)
{
    return v << n | v >> (64 - n);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[0] = rotl(v[0], 32);
    v[2] += v[3];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[2] = rotl(v[2], 32);
}

static uint64_t siphash(const uint64_t *word, int count)
{
    uint64_t v[4] = {UINT64_C(0x736f6d6570736575), UINT64_C(0x646f72616e646f6d),
        UINT64_C(0x6c7967656e657261), UINT64_C(0x7465646279746573)};
    for (int i = 0; i < count; i++) {
        v[3] ^= word[i];
        sip_round(v);
        sip_round(v);
        v[0] ^= word[i];
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static uint64_t score(const struct core *core, const struct unit *u, uint8_t slot)
{
    const struct peer *p = &core->peer[slot];
    uint64_t best = 0;
    /* of the message, not of the unit: parts share holders and body */
    for (uint64_t i = 0; i < (p->weight ? p->weight : 1); i++) {
        uint64_t word[4] = {u->id_hi, u->id_lo, p->node, i};
        uint64_t s = siphash(word, 4);
        best = s > best ? s : best;
    }
    return best;
}

bool place_candidate(const struct core *core, uint8_t slot)
{
    const struct peer *p = &core->peer[slot];
    return slot != core->self && (p->roles & ROLE_STORE) && !(p->roles & ROLE_DRAINING) &&
           peer_reachable(core, slot) && core->now >= p->full_until &&
           core->now < p->echo_at + core->p.frame_ns;
}

static bool zone_used(const struct core *core, const struct unit *u, uint8_t slot)
{
    for (int i = 0; i < u->list_count; i++)
        if (core->peer[u->list[i]].zone == core->peer[slot].zone)
            return true;
    return false;
}

/* Best node not in the list: a new zone first, then the best score. 0: none. */
uint8_t place_next(struct core *core, const struct unit *u)
{
    uint8_t best = 0;
    uint64_t best_score = 0;
    bool best_new = false;
    const struct work *w = work_of(core, u);
    bool repair = w && w->kind != WORK_ACCEPT;
    for (uint8_t i = 1; i <= core->peer_count; i++) {
        if (!place_candidate(core, i) || unit_list_find(u, i) >= 0 ||
            !flow_room(core, i, u, repair))
            continue;
        uint64_t s = score(core, u, i);
        bool fresh_zone = !zone_used(core, u, i);
        if (best == 0 || fresh_zone > best_new ||
            (fresh_zone == best_new && s > best_score)) {
            best = i;
            best_score = s;
            best_new = fresh_zone;
        }
    }
    return best;
}

/* ---- the owner's side ---- */

bool copy_send(struct core *core, struct unit *u, int i)
{
    struct core_msg m = {.kind = MSG_COPY, .env.lane = lane_of(u)};
    struct peer *p = &core->peer[u->list[i]];
    bool mail = unit_status(u, i) == LIST_PENDING && !(u->flags & UF_DAMAGED);
    if (mail && !flow_take(core, u, u->list[i]))
        return false;
    if (core->now > p->echo_at + core->p.frame_ns / 2) {
        struct core_msg ping = {.kind = MSG_PING}; /* its clock first: rule E */
        core_send(core, u->list[i], &ping);
    }
    unit_row_out(core, u, &m.u.unit.row);
    m.u.unit.mail = mail;
    core_send(core, u->list[i], &m);
    return true;
}

/* Whoever got a copy before may know a list without the new name: as heir it would not
 * ask that node, and must be told before the next dot (rule N). */
void list_grew(struct unit *u, struct work *w)
{
    u->flags |= UF_NARROW;
    w->narrow = (uint16_t)((1u << (u->list_count - 1)) - 1);
}

static bool names_all(
    const struct core *core, const struct unit *u, const struct unit_row *row)
{
    for (int i = 0; i < u->list_count; i++) {
        int j = 0;
        while (j < row->list_count && row->list[j].node != core->peer[u->list[i]].node)
            j++;
        if (j == row->list_count)
            return false;
    }
    return true;
}

void copy_ack(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    const struct msg_unit *a = &msg->u.unit;
    struct unit *u = unit_find(core, &a->row.id);
    struct work *w = u ? work_of(core, u) : NULL;
    int i = u ? unit_list_find(u, slot) : -1;
    if (!u || i < 0 || u->owner != core->self)
        return;
    flow_answered(core, slot, u);
    if (a->answer == ANS_TOMB || a->answer == ANS_REJECT) {
        bool twin = w && w->kind == WORK_ACCEPT && (u->flags & UF_IS_DSN) &&
                    a->row.state != UNIT_ABORTED && a->row.owner != core->node;
        if (twin) {
            accept_exists(core, u, &a->row);
            return;
        }
        if (unit_merge(core, u, &a->row))
            unit_store(core, u, 0);
        /* refused there, and nobody has mail to deliver: its tombstone may go */
        if ((u->flags & UF_DAMAGED) && a->row.state == UNIT_ABORTED)
            unit_mark(core, u, i, LIST_RELEASING);
        unit_review(core, u);
        return;
    }
    if (a->answer == ANS_UNKNOWN) { /* it has no mail, or lost it */
        bool hold = unit_status(u, i) == LIST_HOLD;
        if (hold)
            unit_set_status(u, i, LIST_PENDING);
        else if ((u->flags & UF_DAMAGED) && unit_status(u, i) == LIST_PENDING)
            unit_mark(core, u, i, LIST_RELEASING); /* nor have we any to send */
        if (u->state == UNIT_LIVE && (!w || w->kind != WORK_ACCEPT)) {
            unit_review(core, u);
            return;
        }
    }
    if (a->answer == ANS_FULL)
        core->peer[slot].full_until = core->now + 10 * CORE_SEC;
    if (a->answer == ANS_OK && w && names_all(core, u, &a->row))
        w->narrow = (uint16_t)(w->narrow & ~(1u << i));
    if (a->answer == ANS_OK && unit_status(u, i) == LIST_PENDING)
        unit_set_status(u, i, LIST_HOLD);
    if (w && w->kind == WORK_ACCEPT)
        accept_copy_answer(core, u, w, i, a->answer == ANS_OK);
    else if (w && a->answer == ANS_OK)
        work_wake(core, w, core->now);
}

/* Holders that are missing are replaced, what is too much is released. True while there
 * is something to do. */
static bool release_extra(struct core *core, struct unit *u, struct work *w)
{
    uint8_t have = unit_stays(core, u);
    bool busy = false;
    for (int i = u->list_count - 1; i >= 0; i--) {
        if (u->list[i] == core->self || peer_down(core, u->list[i]))
            continue;
        uint8_t st = unit_status(u, i);
        bool slow = st == LIST_PENDING && core->now > w->started_at + 2 * CORE_SEC;
        /* it may be the only one that knows of the attempt */
        bool may = (!w->attempt && !u->doubt) || MUT(core, MUT_RELEASE_KNOWER);
        bool leaving = core->peer[u->list[i]].roles & ROLE_DRAINING;
        if (may &&
            ((st == LIST_HOLD && have > core->cfg.copies) ||
                ((slow || (leaving && st == LIST_HOLD)) && have >= core->cfg.copies))) {
            have = (uint8_t)(have - (st == LIST_HOLD && !leaving));
            unit_mark(core, u, i, LIST_RELEASING);
            unit_store(core, u, 0);
            if (MUT(core, MUT_LIST_SHRINK)) {
                unit_list_remove(core, u, i);
                continue;
            }
        }
        if (unit_status(u, i) == LIST_RELEASING) {
            struct core_msg m = {.kind = MSG_RELEASE, .env.lane = lane_of(u)};
            unit_row_out(core, u, &m.u.unit.row);
            core_send_after(core, core->token_last, u->list[i], &m);
            busy = true;
        }
    }
    return busy;
}

static bool wants_holder(const struct core *core, const struct unit *u, uint8_t have)
{
    uint8_t pending = 0;
    for (int i = 0; i < u->list_count; i++) {
        const struct peer *p = &core->peer[u->list[i]];
        if (unit_status(u, i) == LIST_PENDING && !peer_down(core, u->list[i]))
            pending++;
        /* a holder just lost may be back at once; its copy is then as good as ever */
        if (peer_down(core, u->list[i]) && unit_status(u, i) == LIST_HOLD &&
            (core->now < p->down_since + core->p.repair_wait_ns ||
                core->now < p->fence_hold_until))
            pending++;
    }
    return have + pending < core->cfg.copies;
}

/* Copies that are asked for at once, and again every hedge_ns. True if some are missing.
 */
bool copy_send_due(struct core *core, struct unit *u, struct work *w)
{
    uint64_t patience = flow_patience(core, u);
    if (lane_of(u) == LANE_BULK)
        patience *= 4; /* a body is on its way for a while */
    bool again = core->now >= w->copies_at + patience, busy = false;
    for (int i = 0; i < u->list_count && !w->storing; i++) {
        bool narrow = w->narrow >> i & 1 && unit_status(u, i) != LIST_RELEASING;
        if ((unit_status(u, i) != LIST_PENDING && !narrow) || u->list[i] == core->self ||
            peer_down(core, u->list[i]))
            continue;
        busy = true;
        if (!again && (w->asked >> i & 1))
            continue;
        if (!copy_send(core, u, i))
            continue;
        w->asked = (uint16_t)(w->asked | 1u << i);
    }
    if (again)
        w->copies_at = core->now;
    return busy;
}

static void narrow_settled(const struct core *core, struct unit *u, const struct work *w)
{
    for (int i = 0; i < u->list_count; i++)
        if (u->list[i] != core->self && (w->narrow >> i & 1))
            return;
    u->flags &= (uint16_t)~UF_NARROW;
}

bool copy_repair(struct core *core, struct unit *u, struct work *w)
{
    uint8_t have = unit_stays(core, u);
    bool busy = false;
    if (u->state != UNIT_LIVE)
        return false;
    if (wants_holder(core, u, have) && !w->storing && u->list_count + 1 < CORE_LIST_MAX) {
        uint8_t slot = place_next(core, u);
        if (slot && unit_list_add(core, u, slot, LIST_PENDING)) {
            SOMETIMES(core, ST_REPAIR);
            list_grew(u, w);
            core_after(core, unit_store(core, u, 0), AFTER_LIST, u);
            w->storing = true; /* stored here before the copy is sent */
        }
    }
    busy = copy_send_due(core, u, w);
    narrow_settled(core, u, w);
    return release_extra(core, u, w) || busy || w->storing || have < core->cfg.copies;
}

/* ---- the holder's side ---- */

static void copy_answer(struct core *core, uint8_t slot, const struct core_msg *msg,
    enum unit_answer what, const struct unit *u, uint64_t token)
{
    struct core_msg m = {.kind = MSG_COPY_ACK, .env.lane = LANE_CONTROL};
    m.u.unit.answer = (uint8_t)what;
    if (u)
        unit_row_out(core, u, &m.u.unit.row);
    else
        m.u.unit.row.id = msg->u.unit.row.id;
    if (token)
        core_send_after(core, token, slot, &m);
    else
        core_send(core, slot, &m);
}

/* Rule E: a frame that may bring a unit into being must be young by *our* clock, or one
 * that sat in a pipe while the unit was finished and forgotten would resurrect it. */
static bool echo_fresh(struct core *core, const struct core_env *env)
{
    if (MUT(core, MUT_NO_ECHO))
        return true;
    return env->echo_epoch == core->epoch && env->echo_ns > core->grave_floor &&
           core->now < env->echo_ns + core->p.frame_ns;
}

static enum unit_answer copy_refusal(
    struct core *core, uint8_t slot, const struct core_msg *msg)
{
    const struct unit_row *row = &msg->u.unit.row;
    if (msg->env.from_epoch <= core->peer[slot].fenced &&
        !MUT(core, MUT_NO_FENCE_CHECK)) {
        SOMETIMES(core, ST_COPY_FENCED);
        return ANS_STALE;
    }
    if (!echo_fresh(core, &msg->env)) {
        SOMETIMES(core, ST_STALE_ECHO);
        return ANS_STALE;
    }
    if (grave_find(core, &row->id)) {
        SOMETIMES(core, ST_GRAVE);
        return MUT(core, MUT_NO_ECHO) ? ANS_OK : ANS_STALE;
    }
    if (core->storage_full || core->commit_age > 5 * CORE_SEC ||
        core->unit_count >= core->limits.units / 10 * 8 + 8 || !flow_takes(core, row))
        return ANS_FULL;
    return ANS_OK;
}

static void copy_known(
    struct core *core, uint8_t slot, const struct core_msg *msg, struct unit *u)
{
    const struct unit_row *row = &msg->u.unit.row;
    if (u->state != UNIT_LIVE) {
        SOMETIMES(core, ST_TOMB_HIT);
        copy_answer(core, slot, msg, ANS_TOMB, u, core->token_last);
        return;
    }
    bool owned = unit_believes(core, u);
    if ((u->flags & UF_IS_DSN) && u->owner != slot && !unit_owner_down(core, u) &&
        row->term <= u->term && u->owner != core->self) {
        /* made twice: the one whose session lives stays the owner */
        copy_answer(core, slot, msg, ANS_REJECT, u, core->token_last);
        return;
    }
    unit_merge(core, u, row);
    if (u->owner == slot)
        u->flags &= (uint16_t)~UF_BEFORE;
    unit_heard_of(core, u, slot, msg->env.from_epoch);
    int self = unit_list_find(u, core->self);
    if (self >= 0)
        unit_set_status(u, self, LIST_HOLD);
    uint64_t token = unit_store(core, u, 0);
    if ((u->flags & UF_DAMAGED) && u->state == UNIT_LIVE && !owned) {
        if (!msg->u.unit.mail)
            return; /* it hears of the damage from damaged_ask */
        token = unit_store(core, u, 0);
        core->out->v[core->out->count - 1].u.store.may_fail = true;
        core->out->v[core->out->count - 1].u.store.op[0].copy_from = msg->env.from;
        core_after(core, token, AFTER_FIXED, u);
    }
    copy_answer(core, slot, msg, owned ? ANS_REJECT : ANS_OK, u, token);
}

void copy_recv(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    const struct unit_row *row = &msg->u.unit.row;
    struct unit *u = unit_find(core, &row->id);
    unit_evidence(core, row);
    if (u && unit_settling(u))
        return;
    if (u) {
        copy_known(core, slot, msg, u);
        return;
    }
    enum unit_answer no = msg->u.unit.mail ? copy_refusal(core, slot, msg) : ANS_UNKNOWN;
    if (no != ANS_OK) {
        copy_answer(core, slot, msg, no, NULL, 0);
        return;
    }
    u = unit_new(core, &row->id);
    if (!u || !unit_row_in(core, u, row) || u->owner != slot) {
        if (u)
            unit_drop(core, u);
        copy_answer(core, slot, msg, ANS_FULL, NULL, 0);
        return;
    }
    if (MUT(core, MUT_LEARN_MINE))
        u->mine = 0;
    unit_list_add(core, u, core->self, LIST_HOLD);
    unit_set_status(u, unit_list_find(u, core->self), LIST_HOLD);
    uint64_t token = unit_store(core, u, 0);
    core->out->v[core->out->count - 1].u.store.may_fail = true;
    core->out->v[core->out->count - 1].u.store.op[0].copy_from = msg->env.from;
    core_after(core, token, AFTER_COPY, u);
    flow_took(core, slot, u->size_bytes);
    copy_answer(core, slot, msg, ANS_OK, u, token);
}

void copy_stored(struct core *core, const struct core_unit_id *id, bool full)
{
    struct unit *u = unit_find(core, id);
    if (!u)
        return;
    if (full && !(u->flags & UF_VERIFY)) {
        SOMETIMES(core, ST_FULL);
        unit_store_delete(core, u); /* later updates may have written the row */
        unit_drop(core, u);
        return;
    }
    u->flags |= UF_VERIFY;
}

/* ---- release ---- */

void release_recv(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    const struct unit_row *row = &msg->u.unit.row;
    struct unit *u = unit_find(core, &row->id);
    struct core_msg m = {.kind = MSG_RELEASE_ACK, .env.lane = LANE_CONTROL};
    unit_evidence(core, row);
    if (core->state < CORE_SYNC || msg->env.from_epoch <= core->peer[slot].fenced ||
        (u && unit_settling(u)))
        return;
    m.u.unit.row.id = row->id;
    m.u.unit.row.term = row->term;
    m.u.unit.answer = ANS_OK;
    if (u) {
        /* only the owner that our record names may order it */
        if (unit_believes(core, u) || u->owner != slot || u->term != row->term) {
            unit_merge_facts(core, u, row);
            unit_row_out(core, u, &m.u.unit.row);
            m.u.unit.answer = ANS_REJECT;
            core_send(core, slot, &m);
            return;
        }
        unit_store_delete(core, u);
        unit_drop(core, u);
    }
    grave_dig_open(core, &row->id);
    core_send_after(core, core->token_last, slot, &m);
}

void release_ack(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    const struct msg_unit *a = &msg->u.unit;
    struct unit *u = unit_find(core, &a->row.id);
    int i = u ? unit_list_find(u, slot) : -1;
    if (!u || !unit_believes(core, u))
        return;
    if (a->answer == ANS_REJECT) {
        unit_merge(core, u, &a->row);
        /* it did not know our version: tell it, then ask again */
        i = unit_list_find(u, slot);
        if (i >= 0 && unit_status(u, i) == LIST_RELEASING)
            unit_mark(core, u, i, LIST_PENDING);
        unit_store(core, u, 0);
        return;
    }
    if (i < 0 || unit_status(u, i) != LIST_RELEASING)
        return;
    SOMETIMES(core, ST_RELEASE);
    unit_list_remove(core, u, i);
    unit_store(core, u, 0);
}
