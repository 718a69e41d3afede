/* SPDX-License-Identifier: Apache-2.0 */
/* Ownership: claims, consents, re-own, transfer (rules C1 to C6 and T of the README). */
#include "cluster/core/internal.h"

#include <string.h>

#define HEIR_STEP_NS (5 * CORE_SEC)

/* ---- the claimant ---- */

/* Heirs wait their turn, only to avoid conflicts. */
static uint64_t heir_delay(struct core *core, const struct unit *u)
{
    uint64_t rank = 0;
    if (u->owner == core->self || core_buggify(core, 2))
        return 0;
    for (int i = 0; i < u->list_count && u->list[i] != core->self; i++)
        if (!peer_down(core, u->list[i]) && unit_status(u, i) == LIST_HOLD)
            rank++;
    return rank * HEIR_STEP_NS;
}

/* A holder now down may have delivered while we were away, and what we heard of it in
 * memory went with our last session: worth waiting for. One that was fenced before cannot
 * have. */
static bool could_have_claimed(const struct core *core, const struct unit *u)
{
    if (MUT(core, MUT_NO_STALE_WAIT) || u->state != UNIT_LIVE || !(u->flags & UF_BEFORE))
        return false;
    for (int i = 0; i < u->list_count; i++) {
        const struct peer *p = &core->peer[u->list[i]];
        if (u->list[i] != core->self && p->in_cfg && peer_down(core, u->list[i]) &&
            p->known > p->boot_fenced)
            return true;
    }
    return false;
}

void claim_start(struct core *core, struct unit *u, bool owner_gave, bool steal)
{
    struct work *w = work_of(core, u);
    if (w && w->kind == WORK_CLAIM) {
        w->owner_gave |= owner_gave;
        return;
    }
    if (unit_age_unknown(core, u))
        return; /* the sweep asks again */
    if (!steal && unit_stale(core, u)) {
        unit_quarantine(core, u);
        return;
    }
    w = work_get(core, u, WORK_CLAIM);
    if (!w)
        return;
    w->claim_term = u->term + 1;
    w->fences = core->fences;
    w->owner_gave = owner_gave;
    w->steal = steal;
    w->prefer = core->now + heir_delay(core, u);
    if (u->flags & UF_DAMAGED) /* whoever has the mail goes first */
        w->prefer += owner_gave ? u->list_count * HEIR_STEP_NS : core->p.stale_ns;
    if (!owner_gave && !steal && could_have_claimed(core, u)) {
        SOMETIMES(core, ST_STALE_WAIT);
        w->hold_until = w->prefer = core->now + core->p.stale_ns;
    }
    if (u->state != UNIT_LIVE)
        SOMETIMES(core, ST_GC_CLAIM);
    work_wake(core, w, w->hold_until ? core->now + CORE_SEC : w->prefer);
}

static bool may_claim(const struct core *core, const struct unit *u, const struct work *w)
{
    if (core->state != CORE_READY && !MUT(core, MUT_NO_SYNC))
        return false;
    if (!(u->flags & UF_VERIFY) && u->state == UNIT_LIVE)
        return false;
    if ((u->flags & UF_DAMAGED) && u->state == UNIT_LIVE && u->owner != core->self &&
        !unit_owner_down(core, u) && !w->owner_gave)
        return false;
    return u->owner == core->self || unit_owner_down(core, u) || w->owner_gave ||
           w->steal;
}

/* Rule W: a fenced holder that is passed over may have been an owner that we never heard
 * of, with a list of its own. Then everybody who is alive must be asked. */
static bool is_wide(const struct core *core, const struct unit *u)
{
    if (u->flags & UF_MORE_NAMES)
        return true;
    /* an owner that this session never met may have told others what we do not know */
    if (u->owner != core->self && !core->peer[u->owner].synced &&
        !MUT(core, MUT_UNSYNCED))
        return true;
    for (int i = 0; i < u->list_count; i++)
        if (u->list[i] != core->self && u->list[i] != u->owner &&
            peer_down(core, u->list[i]))
            return !MUT(core, MUT_NARROW_CLAIM);
    return false;
}

static bool outside(
    const struct core *core, const struct unit *u, const struct work *w, uint8_t slot)
{
    return slot != core->self && peer_member(core, slot) && !peer_down(core, slot) &&
           core->peer[slot].known && unit_list_find(u, slot) < 0 &&
           !bit_get(w->wide, slot);
}

static void request(struct core *core, const struct unit *u, const struct work *w,
    uint8_t slot, bool steal)
{
    struct core_msg m = {.kind = MSG_CLAIM_REQ};
    unit_row_out(core, u, &m.u.unit.row);
    m.u.unit.claim_term = w->claim_term;
    m.u.unit.consented = (uint8_t)w->acked;
    m.u.unit.owner_gave = w->owner_gave;
    m.u.unit.steal = steal;
    core_send(core, slot, &m);
}

static void ask(struct core *core, struct unit *u, struct work *w)
{
    int owner_at = unit_list_find(u, u->owner);
    bool owner_lives =
        u->owner != core->self && !unit_owner_down(core, u) && !w->owner_gave;
    for (int i = 0; i < u->list_count; i++) {
        if (u->list[i] == core->self || peer_down(core, u->list[i]) ||
            (w->acked >> i & 1))
            continue;
        if (owner_lives && i != owner_at)
            continue; /* its consent is what the others want to see */
        request(core, u, w, u->list[i], w->steal && owner_lives);
    }
    if (owner_lives || !is_wide(core, u))
        return;
    for (uint8_t i = 1; i <= core->peer_count && !core_out_full(core); i++)
        if (outside(core, u, w, i))
            request(core, u, w, i, false);
}

/* C2, evaluated at the moment of finishing, with the newest fences. */
static bool complete(const struct core *core, const struct unit *u, const struct work *w)
{
    if (MUT(core, MUT_NO_CONSENT))
        return !w->steal;
    for (int i = 0; i < u->list_count; i++)
        if (u->list[i] != core->self && !peer_down(core, u->list[i]) &&
            !(w->acked >> i & 1))
            return false;
    for (uint8_t i = 1; i <= core->peer_count && is_wide(core, u); i++)
        if (outside(core, u, w, i))
            return false;
    return u->owner == core->self || unit_owner_down(core, u) || w->owner_gave;
}

/* C2a: a consent given before a fence was known covers less than what we now pass over.
 * With a new term, for answers that are still on their way are as old. */
static void ask_again(const struct core *core, struct work *w)
{
    w->fences = core->fences;
    w->claim_term += w->tries > 0;
    w->acked = 0;
    w->unknown = 0;
    w->owner_gave = false;
    memset(w->wide, 0, sizeof(w->wide));
}

static void become_owner(struct core *core, struct unit *u, uint32_t term)
{
    unit_digest(core, u);
    u->term = term;
    u->owner = core->self;
    u->owner_epoch = core->epoch;
    u->mine = core->epoch;
    unit_digest(core, u);
    u->flags &= (uint16_t) ~(UF_ACTIVE | UF_STARTED | UF_BEFORE);
    if (u->list_count > 2)
        u->flags |= UF_NARROW; /* the others may not have heard of each other */
    core_after(core, unit_store(core, u, 0), AFTER_OWN, u);
}

/* In static mode an owner that hears nobody delivers without an intent. Whoever takes
 * over by force cannot know of what; the cause is D6. */
static void forced_doubt(const struct core *core, struct unit *u)
{
    if (core->cfg.mode != MODE_STATIC || !unit_owner_down(core, u) || u->doubt ||
        u->state != UNIT_LIVE)
        return;
    u->doubt = unit_all(u) & ~(u->delivered | u->failed);
    u->attempt = ATTEMPT_FORCED;
}

static void finish(struct core *core, struct unit *u, struct work *w)
{
    SOMETIMES(core, ST_CLAIM_FINISH);
    for (int i = 0; i < u->list_count; i++)
        if (w->unknown >> i & 1 && unit_status(u, i) == LIST_HOLD)
            unit_set_status(u, i, LIST_PENDING); /* no copy there: repair */
    int self = unit_list_find(u, core->self);
    if (self < 0)
        unit_list_add(core, u, core->self, LIST_HOLD);
    else
        unit_set_status(u, self, LIST_HOLD);
    uint32_t term = w->claim_term;
    if (w->steal && u->owner != core->self)
        share_got(core, u, u->owner);
    work_drop(core, u);
    forced_doubt(core, u);
    become_owner(core, u, term);
}

void claim_run(struct core *core, struct unit *u, struct work *w)
{
    if (!may_claim(core, u, w)) {
        work_drop(core, u);
        return;
    }
    if (core->now < w->prefer && !(w->hold_until && !could_have_claimed(core, u))) {
        uint64_t at = core->now + CORE_SEC;
        work_wake(core, w, w->hold_until && at < w->prefer ? at : w->prefer);
        return;
    }
    if (w->fences != core->fences && !MUT(core, MUT_OLD_CONSENT))
        ask_again(core, w);
    if (!may_claim(core, u, w)) {
        work_drop(core, u);
        return;
    }
    if (w->claim_term <= u->term && u->owner != core->self)
        w->claim_term = u->term + 1;
    if (complete(core, u, w)) {
        finish(core, u, w);
        return;
    }
    if (w->tries > 10 && w->steal) {
        work_drop(core, u);
        return;
    }
    if (w->tries > 1 && core_buggify(core, 6)) {
        work_drop(core, u); /* consents are left over */
        return;
    }
    ask(core, u, w);
    work_wake(
        core, w, work_backoff(core, w, 300 * CORE_MS) + core_below(core, 100 * CORE_MS));
    w->tries++;
}

/* ---- after the store ---- */

static void hold_doubt(struct core *core, struct unit *u, uint64_t how_long)
{
    if (!(u->doubt & unit_all(u)) || u->state != UNIT_LIVE ||
        (u->flags & UF_ACCEPTING) || /* held from its 250 on */
        MUT(core, MUT_NO_DOUBT_HOLD))
        return;
    struct work *w = work_get(core, u, WORK_OWN);
    if (!w) {
        core_die(core, "no work left for a unit in doubt");
        return;
    }
    SOMETIMES(core, ST_DOUBT_HOLD);
    if (w->hold_until < core->now + how_long)
        w->hold_until = core->now + how_long;
}

void claim_doubt(struct core *core, struct unit *u)
{
    hold_doubt(core, u, core->p.doubt_ns);
}

void own_stored(struct core *core, struct unit *u)
{
    if (!unit_believes(core, u) || (u->flags & UF_ACTIVE))
        return;
    u->flags |= UF_ACTIVE;
    if (u->attempt != ATTEMPT_FORCED) /* else no fact comes any more */
        hold_doubt(core, u, core->p.doubt_ns);
    unit_review(core, u);
}

/* A name that is down, or that came back and has not told us what it did before. */
static bool some_missing(const struct core *core, const struct unit *u)
{
    for (int i = 0; i < u->list_count; i++)
        if (u->list[i] != core->self &&
            (peer_down(core, u->list[i]) || !sync_clear(core, u->list[i])))
            return true;
    return false;
}

void reown(struct core *core, struct unit *u)
{
    if (unit_age_unknown(core, u))
        return;
    bool alone = could_have_claimed(core, u) || some_missing(core, u);
    if ((alone && !MUT(core, MUT_REOWN_ALONE)) || unit_stale(core, u)) {
        claim_start(core, u, false, false);
        return;
    }
    SOMETIMES(core, ST_REOWN);
    become_owner(core, u, u->term);
}

/* ---- the one who is asked ---- */

static void answer(struct core *core, uint8_t slot, const struct core_msg *msg,
    enum unit_answer what, const struct unit *u)
{
    struct core_msg m = {.kind = MSG_CLAIM_RSP};
    m.u.unit.answer = (uint8_t)what;
    m.u.unit.claim_term = msg->u.unit.claim_term;
    if (u)
        unit_row_out(core, u, &m.u.unit.row);
    else
        m.u.unit.row.id = msg->u.unit.row.id;
    m.u.unit.mail = u && (u->flags & UF_DAMAGED); /* to be sent again */
    core_send_after(core, core->token_last, slot, &m);
}

/* Did the owner that our record names agree to this claim? */
static bool owner_agreed(
    const struct core *core, const struct unit *u, const struct msg_unit *q)
{
    uint64_t owner = core->peer[u->owner].node;
    if (q->owner_gave && q->row.owner == owner)
        return true;
    for (int i = 0; i < q->row.list_count && i < CORE_LIST_MAX; i++)
        if (q->row.list[i].node == owner && (q->consented >> i & 1))
            return true;
    return false;
}

static bool conflict(struct core *core, uint8_t slot, struct unit *u)
{
    struct work *w = work_of(core, u);
    if (!w || w->kind != WORK_CLAIM || w->tries == 0)
        return false;
    SOMETIMES(core, ST_CLAIM_CONFLICT);
    if (core->peer[slot].node > core->node)
        return true; /* the lower id goes first */
    return false;
}

static void consent(
    struct core *core, uint8_t slot, const struct core_msg *msg, struct unit *u)
{
    unit_lost_ownership(core, u);
    unit_digest(core, u);
    u->term = msg->u.unit.claim_term;
    u->owner = slot;
    u->owner_epoch = msg->env.from_epoch;
    u->mine = 0;
    unit_digest(core, u);
    unit_store(core, u, 0);
    answer(core, slot, msg, ANS_OK, u);
}

/* T: the live owner gives a unit away, if nothing of it is under way. */
static void asked_as_owner(
    struct core *core, uint8_t slot, const struct core_msg *msg, struct unit *u)
{
    const struct work *w = work_of(core, u);
    bool busy = (w && w->kind == WORK_OWN && (w->attempt || w->hold_until > core->now)) ||
                u->state != UNIT_LIVE || !(u->flags & UF_ACTIVE);
    bool give = msg->u.unit.steal && !busy && msg->u.unit.claim_term > u->term;
    if (MUT(core, MUT_CONSENT_AGAIN)) {
        consent(core, slot, msg, u);
        return;
    }
    if (give) {
        SOMETIMES(core, ST_STEAL);
        consent(core, slot, msg, u);
        return;
    }
    SOMETIMES(core, ST_CLAIM_REJECT_OWNER);
    if (unit_merge(core, u, &msg->u.unit.row))
        unit_store(core, u, 0);
    answer(core, slot, msg, ANS_REJECT, u);
}

void claim_req(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    const struct msg_unit *q = &msg->u.unit;
    struct unit *u = unit_find(core, &q->row.id);
    unit_evidence(core, &q->row);
    if (core->state < CORE_SYNC || msg->env.from_epoch <= core->peer[slot].fenced ||
        (u && unit_settling(u)))
        return;
    if (!u) {
        /* as good as a release: whatever copy is still on its way is refused */
        SOMETIMES(core, ST_CLAIM_UNKNOWN);
        grave_dig_open(core, &q->row.id);
        answer(core, slot, msg, ANS_UNKNOWN, NULL);
        return;
    }
    if (unit_believes(core, u)) {
        asked_as_owner(core, slot, msg, u);
        return;
    }
    unit_merge_facts(core, u, &q->row);
    bool older = u->owner == slot ? u->term > q->claim_term : u->term >= q->claim_term;
    if (older) {
        unit_store(core, u, 0);
        answer(core, slot, msg, ANS_REJECT, u);
        return;
    }
    bool free = u->owner == slot || unit_owner_down(core, u) ||
                owner_agreed(core, u, q) || MUT(core, MUT_CONSENT_AGAIN);
    if (!free || conflict(core, slot, u) || (u->flags & UF_ACCEPTING)) {
        SOMETIMES(core, ST_BUSY);
        unit_store(core, u, 0);
        answer(core, slot, msg, ANS_BUSY, u);
        return;
    }
    consent(core, slot, msg, u);
}

/* ---- answers ---- */

static void said_no(
    struct core *core, struct unit *u, struct work *w, const struct unit_row *row)
{
    unit_merge(core, u, row);
    unit_store(core, u, 0);
    if (!may_claim(core, u, w) || (w->steal && !w->owner_gave)) {
        work_drop(core, u);
        return;
    }
    if (u->term >= w->claim_term) {
        SOMETIMES(core, ST_CLAIM_RESTART);
        w->claim_term = u->term + 1;
        w->acked = 0;
        w->unknown = 0;
        w->owner_gave = false;
        memset(w->wide, 0, sizeof(w->wide));
    }
}

void claim_rsp(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    const struct msg_unit *a = &msg->u.unit;
    struct unit *u = unit_find(core, &a->row.id);
    struct work *w = u ? work_of(core, u) : NULL;
    int i = u ? unit_list_find(u, slot) : -1;
    if (!w || w->kind != WORK_CLAIM || a->claim_term != w->claim_term ||
        msg->env.echo_ns < w->started_at)
        return; /* of an older claim */
    bool ok = a->answer == ANS_OK && a->row.owner == core->node &&
              a->row.owner_epoch == core->epoch;
    if (!ok && a->answer != ANS_UNKNOWN) {
        said_no(core, u, w, &a->row);
        return;
    }
    if (ok) {
        unit_heard_of(core, u, slot, msg->env.from_epoch);
        unit_merge_facts(core, u, &a->row);
    }
    i = unit_list_find(u, slot);
    bit_set(w->wide, slot);
    if (i >= 0) {
        w->acked = (uint16_t)(w->acked | 1u << i);
        w->unknown = (uint16_t)(w->unknown | (unsigned)(!ok || a->mail) << i);
    }
    if (slot == u->owner)
        w->owner_gave = true;
    w->tries = 1;
    work_wake(core, w, core->now);
}

/* ---- transfer ---- */

void steal_hint(
    struct core *core, uint8_t slot, const struct core_unit_id *id, bool rescue)
{
    const struct unit *u = unit_find(core, id);
    if (!u || slot == 0 || !unit_right(core, u))
        return;
    struct core_msg m = {.kind = MSG_OFFER};
    m.u.steal.id = *id;
    m.u.steal.max = rescue;
    core_send(core, slot, &m);
}

void offer_recv(struct core *core, uint8_t slot, const struct core_msg *msg)
{
    struct unit *u = unit_find(core, &msg->u.steal.id);
    if (!u || u->owner != slot || core->state != CORE_READY || u->state != UNIT_LIVE ||
        !session_lease(core, core->p.start_margin_ns) ||
        (core->draining && !msg->u.steal.max) || !(u->flags & UF_VERIFY) ||
        (u->flags & UF_DAMAGED))
        return;
    claim_start(core, u, false, true);
    struct work *w = work_of(core, u);
    if (w && w->kind == WORK_CLAIM) {
        w->prefer = core->now;
        work_wake(core, w, core->now);
    }
}
