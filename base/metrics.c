/* SPDX-License-Identifier: Apache-2.0 */
#include "base/metrics.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/alloc.h"

enum metric_type { COUNTER, GAUGE, COUNTER_US /* microseconds, shown as seconds */ };

struct metric_row {
    const char *name;
    enum metric_type type;
    const char *help;
};
static const struct metric_row rows[] = {
#define METRIC(name, type, help) {#name, type, help},
#include "base/metrics.def"
#undef METRIC
};

/* One thread's share. Only its owner writes, so an add is a load and a store, no locked
 * instruction; readers may be one add behind. */
struct shard {
    struct shard *next;
    struct shard **at;
    _Alignas(64) _Atomic int64_t values[METRIC_COUNT];
};

static struct {
    pthread_once_t key_once;
    pthread_key_t key;
    pthread_mutex_t lock; /* the list, and `ended` */
    struct shard *shards;
    int64_t ended[METRIC_COUNT];       /* of threads that are gone */
    _Atomic int64_t set[METRIC_COUNT]; /* by metric_set: not summed, replaced */
} metrics = {.key_once = PTHREAD_ONCE_INIT, .lock = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local struct shard *own;

static void shard_end(void *arg)
{
    struct shard *s = arg;
    pthread_mutex_lock(&metrics.lock);
    *s->at = s->next;
    if (s->next)
        s->next->at = s->at;
    for (unsigned i = 0; i < METRIC_COUNT; i++)
        metrics.ended[i] += atomic_load_explicit(&s->values[i], memory_order_relaxed);
    pthread_mutex_unlock(&metrics.lock);
    own = NULL;
    free(s);
}

static void make_key(void)
{
    if (pthread_key_create(&metrics.key, shard_end) != 0)
        die("baton: out of thread keys");
}

static struct shard *shard_new(void)
{
    size_t size = (sizeof(struct shard) + 63) & ~(size_t)63;
    struct shard *s = aligned_alloc(64, size);
    if (!s)
        die("baton: out of memory");
    memset(s, 0, size);
    pthread_once(&metrics.key_once, make_key);
    pthread_mutex_lock(&metrics.lock);
    s->next = metrics.shards;
    s->at = &metrics.shards;
    if (s->next)
        s->next->at = &s->next;
    metrics.shards = s;
    pthread_mutex_unlock(&metrics.lock);
    pthread_setspecific(metrics.key, s);
    return s;
}

void metric_add(enum metric m, int64_t amount)
{
    if (!own)
        own = shard_new();
    int64_t old = atomic_load_explicit(&own->values[m], memory_order_relaxed);
    atomic_store_explicit(&own->values[m], old + amount, memory_order_relaxed);
}

void metric_set(enum metric m, int64_t value)
{
    atomic_store_explicit(&metrics.set[m], value, memory_order_relaxed);
}

int64_t metric_read(enum metric m)
{
    INVARIANT((unsigned)m < METRIC_COUNT);
    int64_t sum = atomic_load_explicit(&metrics.set[m], memory_order_relaxed);
    pthread_mutex_lock(&metrics.lock);
    sum += metrics.ended[m];
    for (struct shard *s = metrics.shards; s; s = s->next)
        sum += atomic_load_explicit(&s->values[m], memory_order_relaxed);
    pthread_mutex_unlock(&metrics.lock);
    return sum;
}

const char *metric_name(enum metric m)
{
    INVARIANT((unsigned)m < METRIC_COUNT);
    return rows[m].name;
}

static void render_one(enum metric m, struct buf *out)
{
    const struct metric_row *row = &rows[m];
    int64_t value = metric_read(m);
    buf_printf(out, "# HELP baton_%s %s\n# TYPE baton_%s %s\n", row->name, row->help,
        row->name, row->type == GAUGE ? "gauge" : "counter");
    if (row->type == COUNTER_US)
        buf_printf(out, "baton_%s %" PRId64 ".%06" PRId64 "\n", row->name,
            value / 1000000, value % 1000000);
    else
        buf_printf(out, "baton_%s %" PRId64 "\n", row->name, value);
}

void metrics_render(struct buf *out)
{
    buf_printf(out,
        "# HELP baton_info The version that runs.\n# TYPE baton_info gauge\n"
        "baton_info{version=\"%s\"} 1\n",
        BATON_VERSION);
    for (unsigned i = 0; i < METRIC_COUNT; i++)
        render_one((enum metric)i, out);
}
