/* SPDX-License-Identifier: Apache-2.0 */
/* What `batonctl trace` remembers of every message: the log records of its events, in
 * append-only segment files by time, each with a small index of message ids and of
 * address hashes. A thread of its own writes them in batches; it is never in the way of
 * 250. What falls behind is dropped and counted. Segments leave by age (history.keep) and
 * size (history.max). A crash loses at most the last second; a torn tail is cut at open.
 */
#ifndef QUEUE_HISTORY_H
#define QUEUE_HISTORY_H

#include "base/err.h"
#include "base/log.h"

struct history;

struct history *history_open(
    const char *dir, int64_t keep_ms, uint64_t max_bytes, char *why, size_t why_size);
/* Not while the sink may still be called. Accepts NULL. */
void history_close(struct history *h);
/* While it is not, nothing leaves by age; trusted at first. Any thread.
 */
void history_trust_clock(struct history *h, bool trusted);
/* A log sink: copies records of messages (with an id) into the writer's buffer. */
void history_sink(const struct record *r, void *history);
/* Both call `found` in time order, newest `max` at most; blocking disk reads, so on a
 * helper. By address: every record of each message in which the address (compared without
 * case) was `from` or `to`. */
enum err history_find_id(struct history *h, struct msg_id id,
    void (*found)(const struct record *r, void *ctx), void *ctx) MUST_CHECK;
enum err history_find_address(struct history *h, struct slice address,
    unsigned max_messages, void (*found)(const struct record *r, void *ctx),
    void *ctx) MUST_CHECK;
/* What happened since then is remembered; of what was before, perhaps not all. Any
 * thread. */
struct wall history_since(struct history *h);

#endif
