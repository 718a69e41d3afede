/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of TLS sessions that clients may resume: bounded, least recently used goes
 * first. Thread-safe. */
#ifndef NODE_NET_TLS_INTERNAL_H
#define NODE_NET_TLS_INTERNAL_H

#include <openssl/ssl.h>

#include "node/net/tls.h"

struct tls_cache;

/* Everything that must be equal for a session to be resumed. */
struct tls_key {
    struct netaddr address;
    struct ipaddr egress;
    enum tls_check check;
    char name[256];
};

struct tls_cache *tls_cache_new(unsigned max);
void tls_cache_free(struct tls_cache *cache);
/* Takes over the caller's reference to the session. */
void tls_cache_put(
    struct tls_cache *cache, const struct tls_key *key, SSL_SESSION *session);
/* Returns a reference the caller owns, or NULL. */
SSL_SESSION *tls_cache_get(struct tls_cache *cache, const struct tls_key *key);
unsigned tls_cache_count(struct tls_cache *cache);

#endif
