/* SPDX-License-Identifier: Apache-2.0 */
/* What this node may take of one destination's limits: connections at once, and messages
 * in a period (an attempt is one; it counts from its start until a period after its end,
 * so that no period sees more of them at the next hop, however long each is under way).
 * On a node alone that is the limit; in a cluster, what cluster/budget.h leaves to it: a
 * floor, or more for the asking.
 *
 * A need says what is in use and what could be used. With it this node promises to use no
 * more than that until it says something else; so the share is cut here at once, and an
 * answer to an older need raises nothing. The scheduler's thread; no lock. Memory only
 * where messages are limited: the ends of those that still count. */
#ifndef NODE_DELIVERY_QUOTA_H
#define NODE_DELIVERY_QUOTA_H

#include "base/clock.h"

enum quota_kind { QUOTA_CONNECTIONS, QUOTA_MESSAGES, QUOTA_KINDS };
#define QUOTA_NO_LIMIT UINT32_MAX

/* For the cluster. All 0: no more than the floor. */
struct quota_need {
    uint64_t key; /* of the destination, the same on all nodes */
    uint32_t serial;
    uint32_t have[QUOTA_KINDS], want[QUOTA_KINDS];
    uint32_t may[QUOTA_KINDS]; /* the share, as it is with this need */
};

/* Of all destinations. */
struct quota_terms {
    uint32_t floor[QUOTA_KINDS]; /* what needs no question */
    int64_t period_ns;           /* 0: messages are not limited */
};

/* A rate as fewer messages in a shorter time, so that what one node leaves another may
 * soon use; at most 1 % below the rate. */
void quota_period(
    uint32_t count, int64_t period_ns, uint32_t *count_out, int64_t *period_ns_out);

struct quota {
    uint32_t share[QUOTA_KINDS];
    uint32_t most[QUOTA_KINDS], have[QUOTA_KINDS]; /* in the need that was told last */
    bool was_cut; /* the share is lower than that need said */
    uint32_t serial;
    bool is_told; /* a need stands */
    unsigned under_way;
    int64_t *ended; /* messages that still count, oldest first: a ring */
    uint32_t first, count, room;
};

void quota_init(struct quota *q, const struct quota_terms *terms);
void quota_fini(struct quota *q);
bool quota_may_connect(const struct quota *q, unsigned connections);
/* Messages that may start now. */
uint32_t quota_messages(struct quota *q, const struct quota_terms *terms, int64_t now_ns);
/* When one more may, if none under way ends before; INT64_MAX: not known. */
int64_t quota_next(const struct quota *q, const struct quota_terms *terms);
void quota_start(struct quota *q);
void quota_end(struct quota *q, int64_t now_ns);
/* Does it count something? Then it must be kept. */
bool quota_counts(struct quota *q, const struct quota_terms *terms, int64_t now_ns);
/* In use, and wanted, of either kind. True: `need` (without its key) is to be told.
 * `lower`: also that less is needed, which may wait a little. */
bool quota_look(struct quota *q, const struct quota_terms *terms,
    const uint32_t have[QUOTA_KINDS], const uint32_t want[QUOTA_KINDS], bool lower,
    struct quota_need *need);
/* The answer of the cluster to the need of this serial. */
void quota_share(struct quota *q, const struct quota_terms *terms, uint32_t serial,
    const uint32_t share[QUOTA_KINDS]);
/* The floor has changed. What is in use stays until quota_look has told of it. */
void quota_floor(
    struct quota *q, const struct quota_terms *terms, const uint32_t have[QUOTA_KINDS]);

#endif
