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
    int64_t busy_ms; /* at most; 0: until it is told */
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
    int64_t age_ms = mono_diff_ms(now, e->at);
    return e->busy ? e->busy_ms && age_ms >= e->busy_ms : age_ms >= window_ms;
}

static enum repeat begin(struct repeats *r, const struct repeat_key *key,
    struct msg_id id, struct mono now, int64_t window_ms, int64_t busy_ms,
    struct msg_id *id_out)
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
        e = add(r, key, id, now);
        e->busy = true;
        e->busy_ms = busy_ms;
    }
    pthread_mutex_unlock(&r->lock);
    return result;
}

enum repeat repeats_begin(struct repeats *r, const struct repeat_key *key,
    struct msg_id id, struct mono now, int64_t window_ms, struct msg_id *id_out)
{
    return begin(r, key, id, now, window_ms, 0, id_out);
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
    struct entry *e = find(r, key);
    if (!e)
        add(r, key, id, now);
    else if (e->busy && msg_id_eq(e->id, id))
        e->busy = false; /* it asked here, and died before it told */
    pthread_mutex_unlock(&r->lock);
}

enum repeat repeats_asked(struct repeats *r, const struct repeat_key *key,
    struct msg_id id, struct mono now, int64_t window_ms, struct msg_id *id_out)
{
    return begin(r, key, id, now, window_ms, REPEAT_BUSY_MS, id_out);
}

void repeats_told(struct repeats *r, const struct repeat_key *key, struct msg_id id,
    bool accepted, struct mono now)
{
    pthread_mutex_lock(&r->lock);
    struct entry *e = find(r, key);
    if (e && e->busy && msg_id_eq(e->id, id)) {
        e->busy = false;
        if (!accepted)
            drop(r, e);
    } else if (!e && accepted) {
        add(r, key, id, now);
    }
    pthread_mutex_unlock(&r->lock);
}

unsigned repeats_count(struct repeats *r)
{
    pthread_mutex_lock(&r->lock);
    unsigned count = r->count;
    pthread_mutex_unlock(&r->lock);
    return count;
}
