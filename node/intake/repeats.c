/* SPDX-License-Identifier: Apache-2.0 */
#include "node/intake/repeats.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/alloc.h"

struct entry {
    LIST_ENTRY(entry) chain;
    TAILQ_ENTRY(entry) age;
    struct repeat_key key;
    struct msg_id id;
    struct mono at;
    bool busy;
};
LIST_HEAD(chain, entry);

struct repeats {
    pthread_mutex_t lock;
    TAILQ_HEAD(, entry) oldest_first;
    unsigned count, max, buckets; /* buckets: a power of two */
    struct chain *chains;
};

struct repeats *repeats_new(unsigned max)
{
    struct repeats *r = mem_zalloc(sizeof(*r));
    pthread_mutex_init(&r->lock, NULL);
    TAILQ_INIT(&r->oldest_first);
    r->max = max;
    for (r->buckets = 16; r->buckets < max; r->buckets *= 2)
        ;
    r->chains = mem_zalloc(r->buckets * sizeof(*r->chains));
    return r;
}

static void drop(struct repeats *r, struct entry *e)
{
    LIST_REMOVE(e, chain);
    TAILQ_REMOVE(&r->oldest_first, e, age);
    r->count--;
    free(e);
}

void repeats_free(struct repeats *r)
{
    struct entry *e;
    if (!r)
        return;
    while ((e = TAILQ_FIRST(&r->oldest_first)))
        drop(r, e);
    pthread_mutex_destroy(&r->lock);
    free(r->chains);
    free(r);
}

/* The key is a hash already. */
static struct chain *chain_of(struct repeats *r, const struct repeat_key *key)
{
    uint32_t h;
    memcpy(&h, key->bytes, sizeof(h));
    return &r->chains[h & (r->buckets - 1)];
}

static struct entry *find(struct repeats *r, const struct repeat_key *key)
{
    struct entry *e;
    LIST_FOREACH (e, chain_of(r, key), chain)
        if (memcmp(e->key.bytes, key->bytes, sizeof(key->bytes)) == 0)
            return e;
    return NULL;
}

static struct entry *add(
    struct repeats *r, const struct repeat_key *key, struct msg_id id, struct mono now)
{
    while (r->count >= r->max)
        drop(r, TAILQ_FIRST(&r->oldest_first));
    struct entry *e = mem_zalloc(sizeof(*e));
    e->key = *key;
    e->id = id;
    e->at = now;
    LIST_INSERT_HEAD(chain_of(r, key), e, chain);
    TAILQ_INSERT_TAIL(&r->oldest_first, e, age);
    r->count++;
    return e;
}

static bool is_over(const struct entry *e, struct mono now, int64_t window_ms)
{
    return !e->busy && mono_diff_ms(now, e->at) >= window_ms;
}

enum repeat repeats_begin(struct repeats *r, const struct repeat_key *key,
    struct msg_id id, struct mono now, int64_t window_ms, struct msg_id *id_out)
{
    enum repeat result = REPEAT_NEW;
    pthread_mutex_lock(&r->lock);
    struct entry *e = find(r, key);
    if (e && is_over(e, now, window_ms)) {
        drop(r, e);
        e = NULL;
    }
    if (e) {
        result = e->busy ? REPEAT_BUSY : REPEAT_KNOWN;
        *id_out = e->id;
    } else {
        add(r, key, id, now)->busy = true;
    }
    pthread_mutex_unlock(&r->lock);
    return result;
}

void repeats_end(struct repeats *r, const struct repeat_key *key, bool accepted)
{
    pthread_mutex_lock(&r->lock);
    struct entry *e = find(r, key);
    if (e && accepted)
        e->busy = false;
    else if (e)
        drop(r, e);
    pthread_mutex_unlock(&r->lock);
}

void repeats_learn(
    struct repeats *r, const struct repeat_key *key, struct msg_id id, struct mono now)
{
    pthread_mutex_lock(&r->lock);
    if (!find(r, key))
        add(r, key, id, now);
    pthread_mutex_unlock(&r->lock);
}

bool repeats_look(struct repeats *r, const struct repeat_key *key, struct mono now,
    int64_t window_ms, struct msg_id *id_out)
{
    pthread_mutex_lock(&r->lock);
    const struct entry *e = find(r, key);
    bool known = e && !e->busy && !is_over(e, now, window_ms);
    if (known)
        *id_out = e->id;
    pthread_mutex_unlock(&r->lock);
    return known;
}

unsigned repeats_count(struct repeats *r)
{
    pthread_mutex_lock(&r->lock);
    unsigned count = r->count;
    pthread_mutex_unlock(&r->lock);
    return count;
}
