/* SPDX-License-Identifier: Apache-2.0 */
/* What of a cluster's state wakes somebody at night. Each looks at a snapshot of the
 * engine and nothing else, and says in `text` what holds. */
#ifndef NODE_CONTROL_CLUSTER_ALARMS_H
#define NODE_CONTROL_CLUSTER_ALARMS_H

#include "node/cluster/engine.h"
#include "node/control/sources.h"

struct cluster_alarm {
    const char *code;
    bool (*look)(const struct engine_status *st, char *text, size_t size);
    enum control_severity severity;
    bool of_cluster; /* as this node sees it; else about this node */
    bool patient;    /* no alarm in the first two leases after a start */
    const char *next_step;
};
extern const struct cluster_alarm cluster_alarms[];
#define CLUSTER_ALARMS 8
/* A member that should deliver, and may not. A witness never should. */
bool cluster_lacks_lease(const struct engine_status *st);

#endif
