/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of a cluster's store in trouble share. */
#ifndef TESTS_UNIT_STORE_CLUSTER_FAULTS_H
#define TESTS_UNIT_STORE_CLUSTER_FAULTS_H

#include "tests/unit/store_cluster_helper.h"
#include "tests/unit/store_faults.h"

#define QUOTA (32 * MIB)

static inline struct message *new_message(uint64_t *ids, uint64_t *seed, uint64_t size)
{
    return make_message(make_id(ids), random_body(seed, size), 1, 3, seed);
}

static inline enum err copy_new(
    struct store *s, uint64_t *ids, uint64_t *seed, uint64_t size)
{
    struct message *m = new_message(ids, seed, size);
    enum err e = store_copy(s, m, 0, SLICE("live"));
    message_unref(m);
    return e;
}

static inline enum err remove_unit(struct store *s, struct unit_id id, struct slice left)
{
    struct store_row row = unit_row_of(id, left);
    return run_cluster(
        s, (struct store_cluster){
               .remove = &id, .remove_count = 1, .rows = &row, .row_count = 1});
}

static inline bool remove_first(struct store *s)
{
    struct unit_id id = {{{0}}, UINT16_MAX};
    assert_int_equal(store_list(s, NULL, keep_id, &id), ERR_OK);
    if (id.unit == UINT16_MAX)
        return false;
    assert_int_equal(remove_unit(s, id, (struct slice){0}), ERR_OK);
    return true;
}

static inline enum err read_unit_row(struct store *s, struct unit_id id)
{
    unsigned char key[UNIT_ID_BYTES];
    char out[STORE_ROW_UNIT_MAX];
    size_t len;
    unit_id_key(id, key);
    return store_read_row(
        s, STORE_ROW_UNIT, slice_make(key, sizeof(key)), out, sizeof(out), &len);
}

static inline void count_row(const struct store_row *row, void *ctx)
{
    (void)row;
    ++*(unsigned *)ctx;
}

#endif
