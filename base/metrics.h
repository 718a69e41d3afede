/* SPDX-License-Identifier: Apache-2.0 */
/* Counters and gauges, declared once in metrics.def. Counting is one relaxed atomic add in a
 * cache line of the calling thread's own. */
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
/* For gauges that one thread computes. */
void metric_set(enum metric m, int64_t value);
/* The sum over all threads, those that have ended too. */
int64_t metric_read(enum metric m);
const char *metric_name(enum metric m);
/* Prometheus text exposition format, version 0.0.4. */
void metrics_render(struct buf *out);

#endif
