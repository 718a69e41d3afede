/* SPDX-License-Identifier: Apache-2.0 */
/* From what the client said to a struct message: recipients sorted into units by routing
 * domain, doubles left out; origin; our Received field. */
#ifndef NODE_INTAKE_MESSAGE_BUILD_H
#define NODE_INTAKE_MESSAGE_BUILD_H

#include "base/settings.h"
#include "node/intake/transaction.h"
#include "queue/message.h"

struct listed_recipient {
    struct recipient rcpt;
    struct slice routing;
    const struct relay_domain_settings *relay;
    uint32_t order; /* as the client named them */
};

#define RECIPIENTS_INLINE 4
struct unit_tally;
/* Grows beyond the inline part only for messages to many. */
struct recipient_list {
    struct listed_recipient few[RECIPIENTS_INLINE];
    struct listed_recipient *many;
    uint32_t count, cap;
    struct unit_tally *tally; /* once it counts */
};

/* Would it still be MESSAGE_UNITS_MAX units, at most, with one more recipient of that
 * routing domain? To be asked before each one is added, or never. */
bool recipient_list_fits(struct recipient_list *l, struct slice routing);
void recipient_list_add(struct recipient_list *l, const struct listed_recipient *r);
void recipient_list_fini(struct recipient_list *l);
struct listed_recipient *recipient_list_items(struct recipient_list *l);

/* Copies what the message keeps of where it came from. */
void message_keep_origin(struct message *m, const struct transaction_origin *origin);
/* In front of everything else in m->body. */
void message_add_received(struct message *m, struct recipient_list *l,
    const struct transaction_origin *origin, const char *hostname);
/* Fills m->units from the list (which is sorted by it): one a routing domain, and another
 * one for every UNIT_RCPTS_MAX recipients of it. */
void message_build_units(
    struct message *m, struct recipient_list *l, const struct settings *s);

#endif
