/* SPDX-License-Identifier: Apache-2.0 */
/* Counters and gauges, declared once in metrics.def. Counting is one plain add in memory
 * of the calling thread's own; reading sums the threads. A gauge is either counted up and
 * down by metric_add (by any threads) or computed by one thread and set. Any thread. */
#ifndef BASE_METRICS_H
#define BASE_METRICS_H

#include "base/buf.h"

enum metric {
#define METRIC(name, type, help) METRIC_##name,
#include "base/metrics.def"
#undef METRIC
    METRIC_COUNT
};

void metric_add(enum metric m, int64_t amount);
/* For gauges that one thread computes; such a gauge is never added to. */
void metric_set(enum metric m, int64_t value);
/* The sum over all threads, those that have ended too. */
int64_t metric_read(enum metric m);
const char *metric_name(enum metric m);
/* Appends all of them, as Prometheus text exposition format, version 0.0.4. */
void metrics_render(struct buf *out);

#endif
