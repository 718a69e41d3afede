/* SPDX-License-Identifier: Apache-2.0 */
/* Rows and copies for tests of the store. */
#ifndef TESTS_UNIT_STORE_CLUSTER_HELPER_H
#define TESTS_UNIT_STORE_CLUSTER_HELPER_H

#include "tests/unit/store_helper.h"

static inline struct store_row unit_row_of(struct unit_id id, struct slice value)
{
    struct store_row r = {
        .table = STORE_ROW_UNIT, .key_len = UNIT_ID_BYTES, .value = value};
    unit_id_key(id, r.key);
    return r;
}

static inline struct store_row node_row_of(const char *key, struct slice value)
{
    struct store_row r = {
        .table = STORE_ROW_NODE, .key_len = (uint8_t)strlen(key), .value = value};
    memcpy(r.key, key, strlen(key));
    return r;
}

static inline enum err run_cluster(struct store *s, struct store_cluster c)
{
    struct store_settle settle;
    if (c.settle) { /* the store writes its result there */
        settle = *c.settle;
        c.settle = &settle;
    }
    c.op.kind = STORE_OP_CLUSTER;
    return run_op_wait(s, &c.op);
}

/* As a peer sends it: with the body; `r` has one for each recipient, NULL: all queued. */
static inline struct unit_record *copy_of(
    const struct message *m, unsigned unit, const struct rcpt_record *r)
{
    const struct message_unit *u = &m->units[unit];
    struct rcpt_record *all = mem_zalloc(u->rcpt_count * sizeof(*all));
    for (uint16_t i = 0; i < u->rcpt_count; i++) {
        all[i] = r ? r[i] : (struct rcpt_record){.next_due = m->created};
        all[i].rcpt = u->rcpts[i];
    }
    struct unit_record rec = {.id = {m->id, u->unit},
        .rcpt_count = u->rcpt_count,
        .rcpts = all,
        .next_due = m->created};
    struct unit_record *copy = unit_record_copy(m, u, &rec);
    copy->message->body = m->body ? body_ref(m->body) : NULL;
    free(all);
    return copy;
}

/* The unit's copy with its row. */
static inline enum err store_copy(
    struct store *s, const struct message *m, unsigned unit, struct slice value)
{
    struct unit_record *u = copy_of(m, unit, NULL);
    struct store_row row = unit_row_of(u->id, value);
    enum err e =
        run_cluster(s, (struct store_cluster){
                           .may_fail = true, .copy = u, .rows = &row, .row_count = 1});
    unit_record_free(u);
    return e;
}

static inline enum err run_quar(struct store *s, struct store_quar q)
{
    q.op.kind = STORE_OP_QUAR;
    return run_op_wait(s, &q.op);
}

#endif
