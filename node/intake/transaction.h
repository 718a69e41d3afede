/* SPDX-License-Identifier: Apache-2.0 */
/* One mail transaction: from an accepted MAIL until the message is durable or given up.
 * One object, ended by one function. It builds the message: envelope, recipients sorted
 * into units by routing domain, the body with our Received field in front; reserves
 * memory for it; writes big bodies to the store while they arrive; commits; and says 250
 * from the one line that does.
 *
 * It may outlive its session: a commit under way cannot be called back, and what it comes
 * to is the truth whether or not the client still listens. */
#ifndef NODE_INTAKE_TRANSACTION_H
#define NODE_INTAKE_TRANSACTION_H

#include "node/intake/intake_internal.h"
#include "node/smtp/server.h"

struct transaction;

/* Bodies larger than this go to the store while they arrive. */
#define TRANSACTION_MEMORY_MAX (1u << 20)

/* What the session knows and the message keeps; borrowed for the calls. */
struct transaction_origin {
    enum origin origin;
    enum service service;
    struct slice user;
    struct slice listener;
    struct ipaddr client;
    struct slice client_name; /* from XCLIENT; empty: none */
    struct slice helo;
    const char *with; /* "ESMTPS" */
    const struct tls_info *tls;
};

struct transaction_events {
    /* The store is behind: hold the engine, or let it go on. */
    void (*hold)(void *session, bool is_held);
};

/* Begins: asks the store whether it takes new mail, and reserves memory. ERR_OK with
 * *out, or why not. */
enum err transaction_begin(struct intake_loop *il, struct intake_config *config,
    const struct smtp_path *reverse_path, const struct esmtp_mail *params,
    const struct transaction_events *events, void *session,
    struct transaction **out) MUST_CHECK;
/* The one end. The session forgets the pointer. */
void transaction_end(struct transaction *t);

/* Lives as long as the transaction: for what an answer that comes later needs. */
/* Bytes of queue.memory that it holds now. */
uint64_t transaction_reserved(const struct transaction *t);
struct slice transaction_keep(struct transaction *t, struct slice bytes);
/* A recipient that was found good; address and routing are copied. False: a cluster takes
 * no more domains in one message. */
bool transaction_add_recipient(struct transaction *t, struct slice address,
    struct slice routing, const struct relay_domain_settings *relay,
    const struct esmtp_rcpt *params);
/* The first octet of the message is about to come. */
enum err transaction_start_body(
    struct transaction *t, const struct transaction_origin *origin) MUST_CHECK;
void transaction_body(struct transaction *t, struct slice bytes);
/* All is here: makes it durable and answers. */
void transaction_commit(
    struct transaction *t, struct smtp_request *r, const struct smtp_body_info *info);
struct msg_id transaction_id(const struct transaction *t);

#endif
