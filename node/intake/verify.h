/* SPDX-License-Identifier: Apache-2.0 */
/* Does the primary of a relay domain know a recipient? Asked from <> by a connection of
 * our own that goes no further than RCPT, and remembered: yes for 7 days, no for an hour;
 * and for 30 days that a yes was once seen, for when the primary is down. The memory is
 * bounded, shared by all loops, least recently used goes first. Equal questions at one
 * time become one, and the connections to primaries are few. */
#ifndef NODE_INTAKE_VERIFY_H
#define NODE_INTAKE_VERIFY_H

#include "base/loop.h"
#include "base/settings.h"
#include "dnsbl/resolver.h"
#include "node/net/conn.h"

enum verify_answer {
    VERIFY_YES,
    VERIFY_NO,
    VERIFY_DEFER, /* the primary cannot be asked, and the settings say to wait for it */
};

struct verify_memory;
/* `max` addresses are remembered. */
struct verify_memory *verify_memory_new(unsigned max);
void verify_memory_free(struct verify_memory *m);

/* What is known without asking; false when nothing fresh is. */
bool verify_recall(struct verify_memory *m, struct slice address, struct mono now,
    enum verify_answer *out);
void verify_remember(
    struct verify_memory *m, struct slice address, bool exists, struct mono now);
/* Was there a yes in the last 30 days? */
bool verify_was_valid(struct verify_memory *m, struct slice address, struct mono now);
unsigned verify_memory_count(struct verify_memory *m);

/* One loop's asker. */
struct verifier;
struct verifier *verifier_new(
    struct conns *conns, struct resolver *resolver, struct verify_memory *memory);
/* Questions on their way. */
unsigned verifier_asking(const struct verifier *v);
/* Answers what is under way with VERIFY_DEFER. Accepts NULL. */
void verifier_free(struct verifier *v);

struct verify_question {
    struct slice address; /* borrowed for the call, as is `routing` */
    struct slice routing; /* its domain as A-labels */
    const struct relay_domain_settings *domain; /* kept with `settings` */
    struct settings *settings;                  /* referenced while asking */
    void (*done)(void *ctx, enum verify_answer answer, const char *why);
    void *ctx;
};
/* `done` is called exactly once, perhaps before this returns, at the latest after 30 s.
 */
void verifier_ask(struct verifier *v, const struct verify_question *q);

#endif
