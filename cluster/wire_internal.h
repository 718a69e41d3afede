/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by wire.c, wire_put.c and wire_get.c only. */
#ifndef CLUSTER_WIRE_INTERNAL_H
#define CLUSTER_WIRE_INTERNAL_H

#include "cluster/wire.h"
#include "proto/cluster.pb-c.h"

typedef Baton__Wire__Envelope pb_envelope;
typedef Baton__Wire__UnitId pb_unit_id;
typedef Baton__Wire__SessRow pb_sess_row;

/* Which part of core_msg.u, and which body of the Envelope, a kind has. */
enum wire_group {
    WIRE_NONE,
    WIRE_PING,
    WIRE_GOSSIP,
    WIRE_CFG,
    WIRE_LEASE,
    WIRE_FENCE,
    WIRE_UNIT,
    WIRE_ATTEMPT,
    WIRE_SYNC,
    WIRE_STEAL,
    WIRE_BUDGET,
    WIRE_REPEAT,
};

/* The structs of protobuf-c for one message, pointing at each other, so that writing
 * needs no memory but the stack. */
struct wire_scratch {
    union {
        struct {
            Baton__Wire__Ping m;
            Baton__Wire__SwimUpdate update[CORE_SWIM_UPDATES];
            Baton__Wire__SwimUpdate *at[CORE_SWIM_UPDATES];
        } ping;
        struct {
            Baton__Wire__Gossip m;
            Baton__Wire__GossipEntry entry[CORE_DIGEST_ROWS];
            Baton__Wire__GossipEntry *at[CORE_DIGEST_ROWS];
        } gossip;
        struct {
            Baton__Wire__Cfg m;
            Baton__Wire__CfgChange change;
            Baton__Wire__Member member[CORE_PAGE_MEMBERS];
            Baton__Wire__Member *member_at[CORE_PAGE_MEMBERS];
            pb_sess_row row[CORE_TABLE_ROWS];
            pb_sess_row *row_at[CORE_TABLE_ROWS];
        } cfg;
        struct {
            Baton__Wire__Lease m;
            pb_sess_row row[CORE_TABLE_ROWS];
            pb_sess_row *at[CORE_TABLE_ROWS];
        } lease;
        struct {
            Baton__Wire__Fence m;
        } fence;
        struct {
            Baton__Wire__Unit m;
            Baton__Wire__UnitRow row;
            pb_unit_id id;
            Baton__Wire__Holder holder[CORE_LIST_MAX];
            Baton__Wire__Holder *at[CORE_LIST_MAX];
        } unit;
        struct {
            Baton__Wire__Attempt m;
            pb_unit_id id;
        } attempt;
        struct {
            Baton__Wire__Sync m;
            uint64_t bucket[CORE_DIGEST_ROWS];
        } sync;
        struct {
            Baton__Wire__Steal m;
            pb_unit_id id;
        } steal;
        struct {
            Baton__Wire__Budget m;
            Baton__Wire__BudgetEntry entry[BUDGET_ENTRIES];
            Baton__Wire__BudgetEntry *at[BUDGET_ENTRIES];
        } budget;
        Baton__Wire__Repeat repeat;
    } u;
};

/* Points `e` at what `s` then holds of `msg`; both borrow from `msg`. */
void wire_put(struct wire_scratch *s, const struct core_msg *msg, enum wire_group group,
    pb_envelope *e);

/* Fills msg->u, which is zero, from the body of `e`. False when the body is not that of
 * the group or a value is out of its range. msg->kind is set. */
bool wire_get(const pb_envelope *e, enum wire_group group, struct core_msg *msg);

#endif
