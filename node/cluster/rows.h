/* SPDX-License-Identifier: Apache-2.0 */
/* The core's structs as bytes on disk, and back. Pure functions, any thread. Each value
 * begins with a version byte; integers are big-endian. What is read is checked before
 * use: a row that is too short, too long, of another version or out of its ranges is
 * refused.
 *
 * Rows of STORE_ROW_NODE have a letter as key, followed by the node it speaks of where
 * there are several: 'm' meta, 'c' configuration, 'p' the vote under way, 's' voter row,
 * 'f' member row, 'i' which cluster this disk belongs to. */
#ifndef NODE_CLUSTER_ROWS_H
#define NODE_CLUSTER_ROWS_H

#include "base/ids.h"
#include "cluster/core/core.h"
#include "queue/store.h"

#define ROW_VALUE_MAX STORE_ROW_VALUE_MAX

/* Which cluster the disk belongs to. */
struct cluster_identity {
    unsigned char id[16];
    char name[64];
};

struct unit_id rows_unit_id(const struct core_unit_id *id);
struct core_unit_id rows_core_id(struct unit_id id);

/* The row that an operation of the core writes; `value` (ROW_VALUE_MAX) gets the bytes.
 */
void rows_put_op(const struct core_op *op, struct store_row *row, unsigned char *value);
void rows_put_identity(
    const struct cluster_identity *id, struct store_row *row, unsigned char *value);

/* What a row of the disk says. */
enum rows_kind { ROWS_BAD, ROWS_IDENTITY, ROWS_EVENT };
/* ROWS_EVENT: `e` is the EV_BOOT_* to give; `cfg` and `unit` are room for what it points
 * to. */
enum rows_kind rows_get(const struct store_row *row, struct core_event *e,
    struct core_cfg *cfg, struct unit_row *unit, struct cluster_identity *identity);

#endif
