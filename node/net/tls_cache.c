/* SPDX-License-Identifier: Apache-2.0 */
#include "node/net/tls_internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "base/alloc.h"
#include "base/random.h"

#define BUCKETS 1024
/* Tickets say how long they last; none is used longer than this (RFC 8446 allows 7 days).
 */
#define AGE_MAX_S 86400

struct entry {
    LIST_ENTRY(entry) in_bucket;
    TAILQ_ENTRY(entry) by_use;
    struct tls_key key;
    SSL_SESSION *session;
};

LIST_HEAD(bucket, entry);
TAILQ_HEAD(uses, entry);

struct tls_cache {
    pthread_mutex_t lock;
    uint64_t hash_key;
    unsigned count, max;
    struct uses uses; /* most recent first */
    struct bucket buckets[BUCKETS];
};

struct tls_cache *tls_cache_new(unsigned max)
{
    struct tls_cache *cache = mem_zalloc(sizeof(*cache));
    pthread_mutex_init(&cache->lock, NULL);
    cache->hash_key = random_u64();
    cache->max = max;
    TAILQ_INIT(&cache->uses);
    for (unsigned i = 0; i < BUCKETS; i++)
        LIST_INIT(&cache->buckets[i]);
    return cache;
}

static void drop(struct tls_cache *cache, struct entry *e)
{
    LIST_REMOVE(e, in_bucket);
    TAILQ_REMOVE(&cache->uses, e, by_use);
    cache->count--;
    SSL_SESSION_free(e->session);
    free(e);
}

void tls_cache_free(struct tls_cache *cache)
{
    if (!cache)
        return;
    while (!TAILQ_EMPTY(&cache->uses))
        drop(cache, TAILQ_FIRST(&cache->uses));
    pthread_mutex_destroy(&cache->lock);
    free(cache);
}

static struct bucket *bucket_of(struct tls_cache *cache, const struct tls_key *key)
{
    uint64_t hash = slice_hash_nocase(slice_str(key->name), cache->hash_key);
    hash ^= slice_hash(slice_make(key->address.ip.bytes, 16), cache->hash_key);
    hash ^= slice_hash(slice_make(key->egress.bytes, 16), cache->hash_key ^ 1);
    return &cache->buckets[hash % BUCKETS];
}

static bool same(const struct tls_key *a, const struct tls_key *b)
{
    return a->check == b->check && a->address.port == b->address.port &&
           ipaddr_eq(a->address.ip, b->address.ip) && ipaddr_eq(a->egress, b->egress) &&
           slice_eq_nocase(slice_str(a->name), slice_str(b->name));
}

static struct entry *find(struct tls_cache *cache, const struct tls_key *key)
{
    struct entry *e;
    LIST_FOREACH (e, bucket_of(cache, key), in_bucket)
        if (same(&e->key, key))
            return e;
    return NULL;
}

void tls_cache_put(
    struct tls_cache *cache, const struct tls_key *key, SSL_SESSION *session)
{
    struct entry *fresh = mem_zalloc(sizeof(*fresh));
    fresh->key = *key;
    fresh->session = session;
    pthread_mutex_lock(&cache->lock);
    struct entry *old = find(cache, key);
    if (old)
        drop(cache, old);
    else if (cache->count >= cache->max)
        drop(cache, TAILQ_LAST(&cache->uses, uses));
    LIST_INSERT_HEAD(bucket_of(cache, key), fresh, in_bucket);
    TAILQ_INSERT_HEAD(&cache->uses, fresh, by_use);
    cache->count++;
    pthread_mutex_unlock(&cache->lock);
}

static bool is_fresh(SSL_SESSION *session)
{
    int64_t age_s = wall_now().ms / 1000 - (int64_t)SSL_SESSION_get_time(session);
    return SSL_SESSION_is_resumable(session) && age_s >= 0 && age_s < AGE_MAX_S &&
           age_s < (int64_t)SSL_SESSION_get_timeout(session);
}

SSL_SESSION *tls_cache_get(struct tls_cache *cache, const struct tls_key *key)
{
    SSL_SESSION *session = NULL;
    pthread_mutex_lock(&cache->lock);
    struct entry *e = find(cache, key);
    if (e && !is_fresh(e->session)) {
        drop(cache, e);
    } else if (e) {
        session = e->session;
        SSL_SESSION_up_ref(session);
        TAILQ_REMOVE(&cache->uses, e, by_use);
        TAILQ_INSERT_HEAD(&cache->uses, e, by_use);
    }
    pthread_mutex_unlock(&cache->lock);
    return session;
}

unsigned tls_cache_count(struct tls_cache *cache)
{
    pthread_mutex_lock(&cache->lock);
    unsigned count = cache->count;
    pthread_mutex_unlock(&cache->lock);
    return count;
}
