/* SPDX-License-Identifier: Apache-2.0 */
/* The one filter grammar of all `queue` commands. An absent criterion matches everything;
 * all that are given must match. Works on helpers: touches nothing but itself and the
 * unit. */
#ifndef NODE_CONTROL_FILTER_H
#define NODE_CONTROL_FILTER_H

#include "node/control/control.h"
#include "queue/message.h"

struct filter {
    char *from; /* "user@example.org", "@example.org", "<>" for the null sender, or a part
                 */
    char *to;   /* the same, of any open recipient */
    char *domain; /* routing domain; ".example.org": it and all below */
    char *node;
    char *reason; /* part of the last reply, its status, or the hold reason; any case */
    int64_t older_ms;
};

/* Reads the criteria from a command's arguments; ends the request with an error when they
 * make no sense. filter_fini either way. "reply" is another word for "reason", for
 * commands to which the operator gives a reason of his own: with `own_reason` that one is
 * left alone. */
bool filter_init(
    struct filter *f, struct control_request *req, json_t *args, bool own_reason);
void filter_fini(struct filter *f);
bool filter_matches(const struct filter *f, const struct unit_record *u, const char *node,
    struct wall now);
/* Of a unit that matches: is it about this recipient? */
bool filter_matches_rcpt(
    const struct filter *f, const struct unit_record *u, const struct rcpt_record *r);
/* Does it let everything through? */
bool filter_is_empty(const struct filter *f);

#endif
