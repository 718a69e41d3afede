/* SPDX-License-Identifier: Apache-2.0 */
/* How a node comes into its cluster: by `batonctl cluster init` on the first one, by a
 * token on all others. Small files in data_dir that say how far it is; the truth about
 * membership is in the store's rows. Files are written whole or not at all. Blocks on the
 * disk; one thread.
 *
 *   cluster.init    written by `batonctl cluster init`; gone once configuration 1 is
 *                   durable
 *   cluster.member  written by the engine when it belongs: so that `init` and the checks
 *                   know without opening the queue */
#ifndef NODE_CLUSTER_BIRTH_H
#define NODE_CLUSTER_BIRTH_H

#include "base/settings.h"
#include "node/cluster/token.h"

struct birth {
    char cluster[32];
    unsigned char cluster_id[CLUSTER_ID_BYTES];
};
enum birth_way {
    BIRTH_NONE,   /* neither: `why` says what to do */
    BIRTH_BAD,    /* a file is damaged, or of another cluster: `why` */
    BIRTH_INIT,   /* found the cluster whose name and id are in `out` */
    BIRTH_TOKEN,  /* cluster.join names a file: token_read */
    BIRTH_MEMBER, /* belongs already */
};

/* For a node whose store has no row of a cluster, and for checks. */
enum birth_way birth_look(
    const struct settings *s, struct birth *out, char *why, size_t why_size);
/* `batonctl cluster init`: a fresh cluster id, for this node to found the cluster of the
 * settings. False with `why` when there is no section, the node belongs to a cluster, or
 * the file cannot be written. Done already: true, and the same id. */
bool birth_init(const struct settings *s, struct birth *out, char *why, size_t why_size);
/* The engine, at every start once it belongs: writes cluster.member if it is not there,
 * and removes cluster.init. */
bool birth_done(
    const struct settings *s, const struct birth *who, char *why, size_t why_size);

#endif
