/* SPDX-License-Identifier: Apache-2.0 */
#include "node/intake/clients.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/queue.h>

#include "base/alloc.h"
#include "base/random.h"

#define SHARDS 64
#define BUCKETS 256
#define MINUTE_MS 60000

/* A user is known by a keyed hash of the name: the table holds no names, and every entry
 * is of one size. */
struct key {
    struct ipaddr ip; /* family 0: a user */
    uint64_t user[2];
};

struct entry {
    LIST_ENTRY(entry) in_bucket;
    TAILQ_ENTRY(entry) by_use; /* only while `open` is 0 */
    struct key key;
    uint32_t open;
    /* When the bucket of allowances will be empty again (GCRA): one number tells how
     * many came lately, without a list of instants. */
    int64_t connect_tat_ns;
    int64_t failure_tat_ns;
};

LIST_HEAD(bucket, entry);
TAILQ_HEAD(uses, entry);

struct shard {
    pthread_mutex_t lock;
    struct uses idle; /* most recent first */
    unsigned idle_count;
    unsigned count;
    struct bucket buckets[BUCKETS];
};

struct clients {
    uint64_t hash_key[2];
    unsigned idle_max; /* per shard */
    atomic_uint open;
    struct shard shards[SHARDS];
};

struct clients *clients_new(unsigned idle_max)
{
    struct clients *all = mem_zalloc(sizeof(*all));
    random_bytes(all->hash_key, sizeof(all->hash_key));
    all->idle_max = idle_max / SHARDS + 1; /* never 0: the newest one is in use */
    for (unsigned i = 0; i < SHARDS; i++) {
        pthread_mutex_init(&all->shards[i].lock, NULL);
        TAILQ_INIT(&all->shards[i].idle);
    }
    return all;
}

static void free_bucket(struct bucket *bucket)
{
    struct entry *e;
    while ((e = LIST_FIRST(bucket))) {
        LIST_REMOVE(e, in_bucket);
        free(e);
    }
}

void clients_free(struct clients *all)
{
    if (!all)
        return;
    for (unsigned i = 0; i < SHARDS; i++) {
        for (unsigned j = 0; j < BUCKETS; j++)
            free_bucket(&all->shards[i].buckets[j]);
        pthread_mutex_destroy(&all->shards[i].lock);
    }
    free(all);
}

static struct key key_of_ip(struct ipaddr ip)
{
    return (struct key){.ip = ipaddr_client_key(ip)};
}

static struct key key_of_user(const struct clients *all, struct slice user)
{
    return (struct key){
        .user = {slice_hash(user, all->hash_key[0]), slice_hash(user, all->hash_key[1])}};
}

static uint64_t hash_of(const struct clients *all, const struct key *key)
{
    if (key->ip.family == 0)
        return key->user[0];
    return slice_hash(slice_make(key->ip.bytes, sizeof(key->ip.bytes)), all->hash_key[0]);
}

static bool same(const struct key *a, const struct key *b)
{
    if (a->ip.family != b->ip.family)
        return false;
    return a->ip.family ? ipaddr_eq(a->ip, b->ip)
                        : a->user[0] == b->user[0] && a->user[1] == b->user[1];
}

static struct shard *lock_shard(
    struct clients *all, const struct key *key, uint64_t *hash)
{
    *hash = hash_of(all, key);
    struct shard *s = &all->shards[*hash % SHARDS];
    pthread_mutex_lock(&s->lock);
    return s;
}

static struct entry *find(struct shard *s, const struct key *key, uint64_t hash)
{
    struct entry *e;
    LIST_FOREACH (e, &s->buckets[hash / SHARDS % BUCKETS], in_bucket)
        if (same(&e->key, key))
            return e;
    return NULL;
}

static void evict(struct clients *all, struct shard *s)
{
    while (s->idle_count > all->idle_max) {
        struct entry *e = TAILQ_LAST(&s->idle, uses);
        TAILQ_REMOVE(&s->idle, e, by_use);
        LIST_REMOVE(e, in_bucket);
        s->idle_count--;
        s->count--;
        free(e);
    }
}

/* Finds or makes, and moves to the front of the idle ones. */
static struct entry *touch(
    struct clients *all, struct shard *s, const struct key *key, uint64_t hash)
{
    struct entry *e = find(s, key, hash);
    if (e && e->open)
        return e;
    if (e) {
        TAILQ_REMOVE(&s->idle, e, by_use);
    } else {
        e = mem_zalloc(sizeof(*e));
        e->key = *key;
        LIST_INSERT_HEAD(&s->buckets[hash / SHARDS % BUCKETS], e, in_bucket);
        s->idle_count++;
        s->count++;
    }
    TAILQ_INSERT_HEAD(&s->idle, e, by_use);
    evict(all, s);
    return e;
}

/* Would one more event be within `rate`? When so and `take`, counts it. */
static bool allow(int64_t *tat_ns, struct rate rate, struct mono now, bool take)
{
    int64_t window_ns = rate.per_ms * NS_PER_MS;
    int64_t step_ns = window_ns / (rate.count ? rate.count : 1);
    int64_t tat = *tat_ns > now.ns ? *tat_ns : now.ns;
    if (tat - now.ns > window_ns - step_ns)
        return false;
    if (take)
        *tat_ns = tat + step_ns;
    return true;
}

static bool take_place(struct clients *all, uint32_t max)
{
    unsigned open = atomic_load_explicit(&all->open, memory_order_relaxed);
    do {
        if (open >= max)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(
        &all->open, &open, open + 1, memory_order_relaxed, memory_order_relaxed));
    return true;
}

static enum clients_verdict judge(
    struct entry *e, const struct clients_limits *limits, bool exempt, struct mono now)
{
    if (exempt)
        return CLIENTS_OK;
    if (e->open >= limits->per_client)
        return CLIENTS_TOO_MANY;
    return allow(&e->connect_tat_ns, limits->rate, now, true) ? CLIENTS_OK
                                                              : CLIENTS_TOO_FAST;
}

enum clients_verdict clients_connect(struct clients *all, struct ipaddr ip,
    const struct clients_limits *limits, bool exempt, struct mono now)
{
    struct key key = key_of_ip(ip);
    uint64_t hash;
    if (!take_place(all, limits->connections))
        return CLIENTS_FULL;
    struct shard *s = lock_shard(all, &key, &hash);
    struct entry *e = touch(all, s, &key, hash);
    enum clients_verdict verdict = judge(e, limits, exempt, now);
    if (verdict == CLIENTS_OK && e->open++ == 0) {
        TAILQ_REMOVE(&s->idle, e, by_use);
        s->idle_count--;
    }
    pthread_mutex_unlock(&s->lock);
    if (verdict != CLIENTS_OK)
        atomic_fetch_sub_explicit(&all->open, 1, memory_order_relaxed);
    return verdict;
}

void clients_disconnect(struct clients *all, struct ipaddr ip, struct mono now)
{
    struct key key = key_of_ip(ip);
    uint64_t hash;
    (void)now;
    struct shard *s = lock_shard(all, &key, &hash);
    struct entry *e = find(s, &key, hash);
    INVARIANT(e && e->open > 0);
    if (--e->open == 0) {
        TAILQ_INSERT_HEAD(&s->idle, e, by_use);
        s->idle_count++;
        evict(all, s);
    }
    pthread_mutex_unlock(&s->lock);
    atomic_fetch_sub_explicit(&all->open, 1, memory_order_relaxed);
}

uint32_t clients_open(const struct clients *all)
{
    return atomic_load_explicit(&all->open, memory_order_relaxed);
}

uint32_t clients_open_of(struct clients *all, struct ipaddr ip)
{
    struct key key = key_of_ip(ip);
    uint64_t hash;
    struct shard *s = lock_shard(all, &key, &hash);
    struct entry *e = find(s, &key, hash);
    uint32_t open = e ? e->open : 0;
    pthread_mutex_unlock(&s->lock);
    return open;
}

static bool failure_allowed(
    struct clients *all, struct key key, uint32_t per_minute, struct mono now)
{
    struct rate rate = {per_minute, MINUTE_MS};
    uint64_t hash;
    struct shard *s = lock_shard(all, &key, &hash);
    struct entry *e = find(s, &key, hash);
    bool allowed = !e || allow(&e->failure_tat_ns, rate, now, false);
    pthread_mutex_unlock(&s->lock);
    return allowed;
}

static void count_failure(
    struct clients *all, struct key key, uint32_t per_minute, struct mono now)
{
    struct rate rate = {per_minute, MINUTE_MS};
    uint64_t hash;
    struct shard *s = lock_shard(all, &key, &hash);
    (void)allow(&touch(all, s, &key, hash)->failure_tat_ns, rate, now, true);
    pthread_mutex_unlock(&s->lock);
}

bool clients_address_may_authenticate(
    struct clients *all, struct ipaddr ip, uint32_t per_minute, struct mono now)
{
    return failure_allowed(all, key_of_ip(ip), per_minute, now);
}

bool clients_may_authenticate(struct clients *all, struct ipaddr ip, struct slice user,
    uint32_t per_minute, struct mono now)
{
    return failure_allowed(all, key_of_ip(ip), per_minute, now) &&
           failure_allowed(all, key_of_user(all, user), per_minute, now);
}

void clients_auth_failed(struct clients *all, struct ipaddr ip, struct slice user,
    uint32_t per_minute, struct mono now)
{
    count_failure(all, key_of_ip(ip), per_minute, now);
    if (user.len)
        count_failure(all, key_of_user(all, user), per_minute, now);
}

unsigned clients_entries(struct clients *all)
{
    unsigned count = 0;
    for (unsigned i = 0; i < SHARDS; i++) {
        pthread_mutex_lock(&all->shards[i].lock);
        count += all->shards[i].count;
        pthread_mutex_unlock(&all->shards[i].lock);
    }
    return count;
}
