/* SPDX-License-Identifier: Apache-2.0 */
/* The octets of the message in hand, for a delivery session: from memory when it is
 * fresh, else read from the store by helpers, two windows of 16 rows in turn, so that
 * memory does not grow with the message and a loop never waits for a disk. One loop. */
#ifndef NODE_DELIVERY_BODY_SOURCE_H
#define NODE_DELIVERY_BODY_SOURCE_H

#include "base/workers.h"
#include "node/smtp/client.h"
#include "queue/store.h"

struct body_source;

/* `ready` is called when octets are there after SMTP_BODY_LATER. */
struct body_source *body_source_new(struct store *store, struct workers *helpers,
    struct mailbox *mailbox, void (*ready)(void *ctx), void *ctx);
/* A read that is under way frees it when it comes home. Accepts NULL. */
void body_source_free(struct body_source *b);
/* Borrows the body until the next begin or end. */
void body_source_begin_memory(struct body_source *b, const struct body *body);
/* Starts reading at once. */
void body_source_begin_disk(struct body_source *b, struct msg_id id, uint32_t rows);
enum smtp_body_state body_source_next(struct body_source *b, struct slice *out);
/* Drops windows and interest. */
void body_source_end(struct body_source *b);

#endif
