/* SPDX-License-Identifier: Apache-2.0 */
/* Run-time state that all nodes of the cluster share: rows of which the last write wins.
 * A pure table; who carries the rows between nodes and to the disk is handlers_allow.c.
 *
 * A row has a stamp that grows with every write anywhere that this node has heard of, and
 * the name of the node that wrote it. Removal is a row too, kept for SHARED_GONE_MS so
 * that an older one cannot come back. Rows of other nodes are checked like input. */
#ifndef NODE_CONTROL_SHARED_H
#define NODE_CONTROL_SHARED_H

#include <jansson.h>

#include "base/clock.h"
#include "base/netaddr.h"

#define SHARED_ROWS_MAX 1024
#define SHARED_KEY_MAX 128
#define SHARED_GONE_MS (INT64_C(30) * 86400000)

enum shared_kind { SHARED_ALLOW, SHARED_LOCK, SHARED_KINDS };
struct shared_row {
    enum shared_kind kind;
    char key[SHARED_KEY_MAX]; /* "10.0.0.0/24", or a user */
    char by[32];              /* node */
    int64_t stamp;
    struct wall until; /* 0: for good */
    bool gone;
};
struct shared {
    struct shared_row rows[SHARED_ROWS_MAX]; /* by kind and key */
    unsigned count;
};

/* A network as it is written in a key; false with `why` when it is none, or too wide. */
bool shared_net(struct slice text, char key[SHARED_KEY_MAX], char *why, size_t why_size);
/* Writes a row in our name. NULL: the table is full. */
const struct shared_row *shared_write(struct shared *s, enum shared_kind kind,
    const char *key, struct wall until, bool gone, const char *by, struct wall now);
/* NULL when there is none, or it is gone or over. */
const struct shared_row *shared_find(
    const struct shared *s, enum shared_kind kind, const char *key, struct wall now);
bool shared_row_holds(const struct shared_row *r, struct wall now);
/* Takes what is newer of rows as JSON (an array); what is no row is passed over. Returns
 * how many were new. */
unsigned shared_merge(struct shared *s, const json_t *rows, struct wall now);
json_t *shared_row_json(const struct shared_row *r);
json_t *shared_json(const struct shared *s);
/* The same on two nodes that know the same. */
uint64_t shared_hash(const struct shared *s);
/* Forgets what was removed, or ended, long ago. */
void shared_sweep(struct shared *s, struct wall now);
/* The networks that may relay now, at most `max`, and never so much together that it
 * would be an open relay. */
unsigned shared_nets(
    const struct shared *s, struct wall now, struct cidr *out, unsigned max);

#endif
