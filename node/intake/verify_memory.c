/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "base/alloc.h"
#include "base/random.h"
#include "node/intake/verify.h"

#define BUCKETS 16384
#define HOUR_MS INT64_C(3600000)
#define YES_MS (7 * 24 * HOUR_MS)
#define NO_MS HOUR_MS
#define ONCE_VALID_MS (30 * 24 * HOUR_MS)

/* An address is kept as 128 bits of keyed hash: no stranger can make two meet, and a
 * hundred thousand cost 8 MB however long they are. */
struct entry {
    LIST_ENTRY(entry) in_bucket;
    TAILQ_ENTRY(entry) by_use;
    uint64_t hash[2];
    bool exists;
    struct mono asked;
    struct mono seen_valid; /* ns 0: never */
};

LIST_HEAD(bucket, entry);
TAILQ_HEAD(uses, entry);

struct verify_memory {
    pthread_mutex_t lock;
    uint64_t key[2];
    unsigned count, max;
    struct uses uses; /* most recent first */
    struct bucket buckets[BUCKETS];
};

struct verify_memory *verify_memory_new(unsigned max)
{
    struct verify_memory *m = mem_zalloc(sizeof(*m));
    pthread_mutex_init(&m->lock, NULL);
    random_bytes(m->key, sizeof(m->key));
    m->max = max ? max : 1;
    TAILQ_INIT(&m->uses);
    return m;
}

static void drop(struct verify_memory *m, struct entry *e)
{
    LIST_REMOVE(e, in_bucket);
    TAILQ_REMOVE(&m->uses, e, by_use);
    m->count--;
    free(e);
}

void verify_memory_free(struct verify_memory *m)
{
    if (!m)
        return;
    while (!TAILQ_EMPTY(&m->uses))
        drop(m, TAILQ_FIRST(&m->uses));
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static struct entry *find(struct verify_memory *m, struct slice address, uint64_t hash[2])
{
    struct entry *e;
    hash[0] = slice_hash_nocase(address, m->key[0]);
    hash[1] = slice_hash_nocase(address, m->key[1]);
    LIST_FOREACH (e, &m->buckets[hash[0] % BUCKETS], in_bucket)
        if (e->hash[0] == hash[0] && e->hash[1] == hash[1])
            return e;
    return NULL;
}

static void to_front(struct verify_memory *m, struct entry *e)
{
    TAILQ_REMOVE(&m->uses, e, by_use);
    TAILQ_INSERT_HEAD(&m->uses, e, by_use);
}

bool verify_recall(struct verify_memory *m, struct slice address, struct mono now,
    enum verify_answer *out)
{
    uint64_t hash[2];
    bool fresh = false;
    pthread_mutex_lock(&m->lock);
    struct entry *e = find(m, address, hash);
    if (e) {
        fresh = mono_diff_ms(now, e->asked) < (e->exists ? YES_MS : NO_MS);
        *out = e->exists ? VERIFY_YES : VERIFY_NO;
        to_front(m, e);
    }
    pthread_mutex_unlock(&m->lock);
    return fresh;
}

void verify_remember(
    struct verify_memory *m, struct slice address, bool exists, struct mono now)
{
    uint64_t hash[2];
    pthread_mutex_lock(&m->lock);
    struct entry *e = find(m, address, hash);
    if (e) {
        to_front(m, e);
    } else {
        if (m->count >= m->max)
            drop(m, TAILQ_LAST(&m->uses, uses));
        e = mem_zalloc(sizeof(*e));
        memcpy(e->hash, hash, sizeof(e->hash));
        LIST_INSERT_HEAD(&m->buckets[hash[0] % BUCKETS], e, in_bucket);
        TAILQ_INSERT_HEAD(&m->uses, e, by_use);
        m->count++;
    }
    e->exists = exists;
    e->asked = now;
    e->seen_valid = exists ? now : (struct mono){0};
    pthread_mutex_unlock(&m->lock);
}

bool verify_was_valid(struct verify_memory *m, struct slice address, struct mono now)
{
    uint64_t hash[2];
    pthread_mutex_lock(&m->lock);
    struct entry *e = find(m, address, hash);
    bool valid =
        e && e->seen_valid.ns && mono_diff_ms(now, e->seen_valid) < ONCE_VALID_MS;
    pthread_mutex_unlock(&m->lock);
    return valid;
}

unsigned verify_memory_count(struct verify_memory *m)
{
    pthread_mutex_lock(&m->lock);
    unsigned count = m->count;
    pthread_mutex_unlock(&m->lock);
    return count;
}
