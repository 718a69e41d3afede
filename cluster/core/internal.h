/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The calls between the files of a core, and its state. For cluster/core and for the
 * simulator's oracle, which reads it with god's eyes; for nobody else.
 */
#ifndef CLUSTER_CORE_INTERNAL_H
#define CLUSTER_CORE_INTERNAL_H

#include "cluster/core/state.h"

/* core.c */
uint64_t core_random(struct core *core);
uint64_t core_below(struct core *core, uint64_t n);
bool core_buggify(struct core *core, uint32_t one_in);
struct core_command *core_cmd(struct core *core, enum core_command_kind kind);
/* Sends at once; for messages that promise nothing about the disk. */
void core_send(struct core *core, uint8_t slot, struct core_msg *msg);
/* Sends when everything stored so far is durable and the session is still the same. */
void core_send_after(
    struct core *core, uint64_t token, uint8_t slot, struct core_msg *msg);
void core_after(struct core *core, uint64_t token, enum after what, const struct unit *u);
void core_park(struct core *core, uint64_t token, enum park_kind kind, uint8_t slot);
/* Answers the operator when it is on disk, in whatever session. */
void core_park_admin(struct core *core, uint64_t token, uint64_t admin);
struct core_command *core_store(
    struct core *core); /* op_count 0; token is core->token_last */
uint64_t core_store_one(struct core *core, const struct core_op *op);
void core_new_session(struct core *core);
void outbox_drain(struct core *core, uint64_t full_token);
/* To a node that need not be a member. */
void core_send_any(struct core *core, uint8_t slot, struct core_msg *msg);
void core_end_session(struct core *core); /* for ever: no member any more */
void core_die(struct core *core, const char *why);
uint64_t id_hash(const struct core_unit_id *id);
bool core_out_full(const struct core *core);
uint64_t core_hash(const struct core *core);
/* lane.c */
bool lane_fresh(struct core *core, struct peer *p, const struct core_msg *m);

/* peer.c */
uint8_t peer_slot(const struct core *core, uint64_t node);
uint8_t peer_intern(struct core *core, uint64_t node);
bool peer_down(const struct core *core, uint8_t slot); /* F >= K: no session lives */
bool peer_member(const struct core *core, uint8_t slot);
void peer_learn(struct core *core, uint8_t slot, uint32_t fenced, uint32_t known);
void peer_heard(struct core *core, uint8_t slot, const struct core_env *env);
bool peer_reachable(const struct core *core, uint8_t slot);
uint8_t voter_count(const struct core *core);
uint8_t quorum(const struct core *core);
bool is_voter(const struct core *core, uint8_t slot);
static inline bool bit_get(const uint8_t *v, unsigned i)
{
    return (v[i / 8] >> (i % 8)) & 1;
}
static inline void bit_set(uint8_t *v, unsigned i)
{
    v[i / 8] = (uint8_t)(v[i / 8] | 1u << (i % 8));
}

/* session.c: the owner's side; voter.c: the voter's */
void session_start(struct core *core);
void session_opened(struct core *core);
void session_timer(struct core *core);
void session_lease_rsp(struct core *core, uint8_t slot, const struct core_msg *msg);
void session_recompute(struct core *core);
void session_frozen(struct core *core);
bool session_lease(const struct core *core, uint64_t margin_ns);
void session_gate(struct core *core);
void session_resign(struct core *core, uint32_t hold_s);
void session_self_vote(struct core *core);
void voter_lease_req(struct core *core, uint8_t slot, const struct core_msg *msg);
bool voter_twin(struct core *core, uint8_t slot, const struct core_msg *msg);
void voter_fence_req(struct core *core, uint8_t slot, const struct core_msg *msg);
void voter_fence_rsp(struct core *core, uint8_t slot, const struct core_msg *msg);
void voter_fence_notice(struct core *core, uint8_t slot, const struct core_msg *msg);
void voter_resign(struct core *core, uint8_t slot, const struct core_msg *msg);
void voter_timer(struct core *core);
void voter_store(
    struct core *core, uint8_t slot, uint32_t cur, uint32_t fenced, uint8_t flags);
void fence_done(struct core *core, uint8_t slot, uint32_t epoch, uint8_t flags);
bool voter_quarantined(const struct core *core);
bool voter_vouches(const struct core *core, uint8_t slot, uint32_t epoch);
void fence_node(struct core *core, uint8_t slot);
void fence_durable(struct core *core, uint8_t slot);

/* record.c */
struct core_unit_id unit_id(const struct unit *u);
uint32_t unit_index(const struct core *core, const struct unit *u);
struct unit *unit_find(const struct core *core, const struct core_unit_id *id);
struct unit *unit_new(struct core *core, const struct core_unit_id *id);
void unit_drop(struct core *core, struct unit *u);
void unit_row_out(const struct core *core, const struct unit *u, struct unit_row *row);
bool unit_row_in(struct core *core, struct unit *u, const struct unit_row *row);
uint64_t unit_store(struct core *core, struct unit *u, uint64_t accept_handle);
uint64_t unit_store_delete(struct core *core, struct unit *u);
bool unit_believes(
    const struct core *core, const struct unit *u); /* owner, this session */
bool unit_right(const struct core *core, const struct unit *u);
bool unit_settling(const struct unit *u);
int unit_list_find(const struct unit *u, uint8_t slot);
uint8_t unit_status(const struct unit *u, int i);
void unit_set_status(struct unit *u, int i, uint8_t status);
bool unit_list_add(struct core *core, struct unit *u, uint8_t slot, uint8_t status);
void unit_list_remove(struct core *core, struct unit *u, int i);
uint8_t unit_stays(const struct core *core, const struct unit *u);
uint8_t unit_holders(const struct core *core, const struct unit *u); /* live, HOLD */
bool unit_final(const struct unit *u);
uint64_t unit_all(const struct unit *u);
void unit_evidence(struct core *core, const struct unit_row *row);
/* Facts and names of row go into u; true if u changed. Never touches version or mine. */
bool unit_merge_facts(struct core *core, struct unit *u, const struct unit_row *row);
/* The version of row too, by C5; true if u changed. */
void unit_heard_of(struct core *core, struct unit *u, uint8_t slot, uint32_t epoch);
bool unit_merge(struct core *core, struct unit *u, const struct unit_row *row);
bool unit_newer(
    const struct core *core, uint32_t term, uint64_t owner, const struct unit *u);
void unit_lost_ownership(struct core *core, struct unit *u);
void unit_cancel(struct core *core, struct unit *u); /* CMD_CANCEL if it was started */
bool unit_owner_down(const struct core *core, const struct unit *u);
void unit_attempt(struct unit *u, uint64_t attempt);
uint8_t lane_of(const struct unit *u);
void grave_dig(struct core *core, const struct core_unit_id *id);
void grave_dig_open(struct core *core, const struct core_unit_id *id);
const struct grave *grave_find(struct core *core, const struct core_unit_id *id);
void unit_recount(struct core *core, struct unit *u); /* after any change of u */
bool unit_without(const struct unit *u, int i); /* that name has no copy, as it said */
void unit_mark(struct core *core, struct unit *u, int i, uint8_t status);
void unit_digest(struct core *core, const struct unit *u);
void unit_digest_list(struct core *core, const struct unit *u, uint8_t slot);

/* work.c */
struct work *work_get(struct core *core, struct unit *u, enum work_kind kind);
struct work *work_of(const struct core *core, const struct unit *u);
void work_drop(struct core *core, struct unit *u);
void work_rest(struct core *core, struct unit *u); /* ends a job of a holder */
void work_wake(struct core *core, struct work *w, uint64_t at);
void work_timers(struct core *core, uint32_t budget);
uint64_t work_next(const struct core *core);
uint64_t work_backoff(const struct core *core, const struct work *w, uint64_t base);
void unit_review(struct core *core, struct unit *u); /* starts what the unit needs */
void sweep_all(struct core *core);
void sweep_step(struct core *core);

/* accept.c */
void accept_event(struct core *core, const struct core_event *event);
void accept_gone(struct core *core, uint64_t handle);
void accept_run(struct core *core, struct unit *u, struct work *w);
void accept_copy_answer(
    struct core *core, struct unit *u, struct work *w, int i, bool ok);
void accept_stored(struct core *core, struct unit *u, bool full);
void accept_aborted(struct core *core, struct unit *u);
void accept_cut(struct core *core); /* session ends: connections close without reply */
void accept_drain(struct core *core);
/* A DSN that we accept exists already, as row says. */
void accept_exists(struct core *core, struct unit *u, const struct unit_row *row);
/* copy.c */
uint8_t place_next(struct core *core, const struct unit *u);
bool place_candidate(const struct core *core, uint8_t slot);
bool copy_send(struct core *core, struct unit *u, int i); /* false: no credit */
void copy_recv(struct core *core, uint8_t slot, const struct core_msg *msg);
void copy_ack(struct core *core, uint8_t slot, const struct core_msg *msg);
void release_recv(struct core *core, uint8_t slot, const struct core_msg *msg);
void release_ack(struct core *core, uint8_t slot, const struct core_msg *msg);
void copy_stored(struct core *core, const struct core_unit_id *id, bool full);
void list_grew(struct unit *u, struct work *w);
bool copy_send_due(struct core *core, struct unit *u, struct work *w);
bool copy_repair(struct core *core, struct unit *u, struct work *w);
/* quarantine.c */
void unit_quarantine(struct core *core, struct unit *u); /* u is gone then */
void wall_event(struct core *core, const struct core_event *e);
bool unit_stale(const struct core *core, const struct unit *u);
bool unit_age_unknown(const struct core *core, const struct unit *u);
bool tomb_expired(struct core *core, struct unit *u);
void damaged_event(struct core *core, const struct core_event *e);
void damaged_fixed(struct core *core, struct unit *u);
void damaged_review(struct core *core, struct unit *u);
void damaged_ask(struct core *core, struct unit *u, struct work *w);
void damaged_own(struct core *core, struct unit *u, struct work *w);
/* share.c */
void share_got(struct core *core, const struct unit *u, uint8_t from);
void share_asked(struct core *core, uint8_t slot, const struct core_msg *msg);
void share_offer(struct core *core, const struct core_unit_id *id);
void share_timer(struct core *core);
/* flow.c */
uint64_t flow_start(const struct core *core);
bool flow_room(const struct core *core, uint8_t slot, const struct unit *u, bool repair);
bool flow_take(struct core *core, const struct unit *u, uint8_t slot);
void flow_answered(struct core *core, uint8_t slot, const struct unit *u);
void flow_credit(struct core *core, uint8_t slot, const struct core_msg *msg);
uint64_t flow_patience(const struct core *core, const struct unit *u);
bool flow_takes(const struct core *core, const struct unit_row *row);
void flow_took(struct core *core, uint8_t slot, uint32_t bytes);
void flow_timer(struct core *core);
/* claim.c */
void claim_start(struct core *core, struct unit *u, bool owner_gave, bool steal);
void claim_run(struct core *core, struct unit *u, struct work *w);
void claim_req(struct core *core, uint8_t slot, const struct core_msg *msg);
void claim_rsp(struct core *core, uint8_t slot, const struct core_msg *msg);
void claim_doubt(struct core *core, struct unit *u);
void own_stored(struct core *core, struct unit *u);
void reown(struct core *core, struct unit *u);
/* rescue: the mail here is bad, so that a holder takes the unit though it drains */
void steal_hint(
    struct core *core, uint8_t slot, const struct core_unit_id *id, bool rescue);
void offer_recv(struct core *core, uint8_t slot, const struct core_msg *msg);
/* sync.c */
void sync_timer(struct core *core);
void sync_req(struct core *core, uint8_t slot, const struct core_msg *msg);
void sync_rec(struct core *core, uint8_t slot, const struct core_msg *msg);
void sync_ack(struct core *core, uint8_t slot, const struct core_msg *msg);
void sync_end(struct core *core, uint8_t slot, const struct core_msg *msg);
void sync_done(struct core *core, uint8_t slot, const struct core_msg *msg);
void sync_unknown(struct core *core, uint8_t slot, struct unit *u);
void sync_merge(struct core *core, struct unit *u, const struct unit_row *row);
void sync_check(struct core *core);
void sync_ask(struct core *core, uint8_t slot, const struct unit *u);
bool sync_clear(const struct core *core, uint8_t slot);
void sync_stream(struct core *core, uint8_t slot, uint64_t buckets);
void digest_timer(struct core *core);
void digest_recv(struct core *core, uint8_t slot, const struct core_msg *msg);
/* deliver.c */
void own_run(struct core *core, struct unit *u, struct work *w);
void intent_event(struct core *core, const struct core_event *event);
void outcome_event(struct core *core, const struct core_event *event);
void attempt_gone(struct core *core, const struct core_event *event);
void intent_recv(struct core *core, uint8_t slot, const struct core_msg *msg);
void intent_ack(struct core *core, uint8_t slot, const struct core_msg *msg);
void outcome_recv(struct core *core, uint8_t slot, const struct core_msg *msg);
void outcome_ack(struct core *core, uint8_t slot, const struct core_msg *msg);
void deliver_suspend(struct core *core, struct unit *u);
bool intent_unheard(const struct core *core);
bool attempt_ours(const struct core *core, uint64_t attempt);
void deliver_start(struct core *core, struct unit *u);
/* gc.c */
void gc_start(struct core *core, struct unit *u);
void gc_run(struct core *core, struct unit *u, struct work *w);
void gc_done(struct core *core, uint8_t slot, const struct core_msg *msg);
void gc_done_ack(struct core *core, uint8_t slot, const struct core_msg *msg);
void gc_forget(struct core *core, uint8_t slot, const struct core_msg *msg);
void ask_run(struct core *core, struct unit *u, struct work *w);
/* swim.c, gossip.c */
void swim_timer(struct core *core);
void swim_recv(struct core *core, uint8_t slot, const struct core_msg *msg);
void gossip_timer(struct core *core);
void gossip_recv(struct core *core, uint8_t slot, const struct core_msg *msg);
void gossip_row(struct core *core, uint32_t key, const uint8_t *value, uint8_t length);
const struct gossip_row *gossip_find(
    const struct core *core, uint8_t slot, uint32_t key); /* or NULL */
/* config_step.c: versions as values */
#define CFG_VOTERS_MAX 7
bool cfg_apply(struct core_cfg *cfg, const struct cfg_change *change);
bool cfg_valid(const struct core_cfg *cfg);
void cfg_auto_min(struct core_cfg *cfg);
const struct core_member *cfg_find(const struct core_cfg *cfg, uint64_t node);
uint8_t cfg_voters(const struct core_cfg *cfg);
bool cfg_makes_pair(const struct cfg_change *change);
bool cfg_same(const struct cfg_change *a, const struct cfg_change *b);
/* config.c: the version in force, and how it gets around */
#define NODE_CLOSED (UINT32_MAX - 1) /* fenced up to here: no session, ever again */
void config_timer(struct core *core);
void config_soon(struct core *core);
void config_recv(struct core *core, uint8_t slot, const struct core_msg *msg);
void config_heard(struct core *core, uint8_t slot, uint64_t ver);
void config_tell(struct core *core, uint8_t slot);
void config_tell_all(struct core *core);
void config_idle(struct core *core, const struct core_msg *msg);
void config_stranger(struct core *core, uint8_t slot, const struct core_msg *msg);
void config_boot(struct core *core);
void config_index(struct core *core);
void config_install(
    struct core *core, const struct core_cfg *next, const struct cfg_change *change);
/* This voter may answer what was asked of the voters of version `asked`. */
bool config_serves(const struct core *core, uint64_t asked);
bool config_static(const struct core *core); /* may deliver without a lease */
uint64_t config_static_until(const struct core *core);
uint64_t config_spacing(const struct core *core);
/* config_seal.c */
void seal_begin(struct core *core);
void seal_timer(struct core *core);
void seal_recv(struct core *core, uint8_t slot, const struct core_msg *msg);
bool seal_needed(const struct core_cfg *cfg);
/* config_paxos.c */
void paxos_propose(struct core *core, const struct cfg_change *want);
void paxos_timer(struct core *core);
void paxos_recv(struct core *core, uint8_t slot, const struct core_msg *msg);
void paxos_durable(struct core *core);
void paxos_forget(struct core *core); /* a new version is in force */
/* config_admin.c */
void config_admin(struct core *core, const struct core_event *event);
void config_admin_done(
    struct core *core, uint64_t token, enum admin_result result, const char *why);
void config_admin_durable(struct core *core, uint64_t token);
void config_admin_lost(struct core *core); /* the session ends: wishes cannot be met */
void wish_timer(struct core *core);
void wish_decided(struct core *core);
/* config_policy.c */
void policy_timer(struct core *core);
uint8_t policy_candidate(const struct core *core);

#endif
