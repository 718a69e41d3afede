/* SPDX-License-Identifier: Apache-2.0 */
/* The key by which a client's repetition of a message is recognised (repeats.h): half of
 * a SHA-256 over who sent it, the envelope, and the body as it came, before anything was
 * added. One per transaction; its session's thread. */
#ifndef NODE_INTAKE_REPEAT_HASH_H
#define NODE_INTAKE_REPEAT_HASH_H

#include "node/intake/message_build.h"
#include "queue/message.h"

struct repeat_hash;

struct repeat_hash *repeat_hash_new(void);
/* Accepts NULL. */
void repeat_hash_free(struct repeat_hash *h);
void repeat_hash_add(struct repeat_hash *h, struct slice body);
/* Once, at the end. A user is known by name, anybody else by address; the order of the
 * recipients does not count. */
void repeat_hash_end(struct repeat_hash *h, const struct message *m,
    struct recipient_list *recipients, struct repeat_key *out);

#endif
