/* SPDX-License-Identifier: Apache-2.0 */
/* The token of `batonctl cluster token`: what a new node must know to join, in one line.
 * It holds the secret half of a key pair that is good for one joining and until it
 * expires, so it is a secret itself. base64url of: version, cluster id, cluster name,
 * the one-time pair, expiry, the members to ask (id, key, address), CRC-32C. Values only;
 * any thread. */
#ifndef NODE_CLUSTER_TOKEN_H
#define NODE_CLUSTER_TOKEN_H

#include "base/clock.h"
#include "cluster/transport.h"

#define TOKEN_HOSTS_MAX 8
/* With the NUL; engine_admin.token has it. */
#define TOKEN_TEXT_MAX 1024
#define CLUSTER_ID_BYTES 16

struct token {
    unsigned char cluster_id[CLUSTER_ID_BYTES];
    char cluster[32]; /* cluster.name of the settings */
    struct transport_keys invitation;
    struct wall expires;
    unsigned host_count; /* 1 to TOKEN_HOSTS_MAX */
    struct transport_peer hosts[TOKEN_HOSTS_MAX];
};

/* One line without its end. */
void token_encode(const struct token *t, char out[TOKEN_TEXT_MAX]);
/* Blanks and line ends around it are fine. False with `why` on anything that
 * token_encode could not have made. Does not look at the clock. */
bool token_decode(struct slice text, struct token *out, char *why, size_t why_size);
/* The file of cluster.join. `why` names it and the next step: not there, readable by
 * others than its owner and group, not a token, of another cluster (`cluster`), expired
 * at `now`. */
bool token_read(const char *path, const char *cluster, struct wall now, struct token *out,
    char *why, size_t why_size);
/* Overwrites the secret. */
void token_wipe(struct token *t);

#endif
