/* SPDX-License-Identifier: Apache-2.0 */
/* One line a thing that happened. A record is built on the stack as an event and typed
 * key/value pairs, then rendered as text or JSON by whoever needs it: standard error, the
 * history, `batonctl events`. Bytes from peers are escaped and cut when rendered, so nothing
 * a stranger said can forge a line. Secrets and bodies never come here.
 *   struct record r;
 *   record_init(&r, LOG_DELIVERED);
 *   record_msg_id(&r, "id", id);
 *   record_slice(&r, "to", address);
 *   record_emit(&r);
 * Any thread; lines of one thread keep their order. Standard error is written in blocks: a
 * thread's lines leave at the latest with log_flush (loops call it after each round). */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/ids.h"
#include "base/netaddr.h"
#include "base/slice.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_event {
#define EVENT(name, text, level, kind, meaning) LOG_EV_##name,
#include "base/log_events.def"
#undef EVENT
    LOG_EVENT_COUNT
};

/* Longest value of one key; longer ones are cut with "..." */
#define RECORD_VALUE_MAX 512
#define RECORD_BYTES 2048

struct record {
    uint8_t event;
    uint8_t level; /* the event's own; may be raised */
    bool has_id;
    bool cut; /* a pair did not fit */
    struct wall time;
    struct msg_id id; /* when has_id */
    uint16_t len;
    /* pairs, packed: type u8, key length u8, key, value length u16 (or 8 bytes of integer),
     * value */
    unsigned char pairs[RECORD_BYTES];
};

void record_init(struct record *r, enum log_event event);
/* The message this is about: also what the history files it under. */
void record_msg_id(struct record *r, const char *key, struct msg_id id);
void record_slice(struct record *r, const char *key, struct slice value);
void record_str(struct record *r, const char *key, const char *value);
void record_int(struct record *r, const char *key, int64_t value);
void record_bool(struct record *r, const char *key, bool value);
void record_ip(struct record *r, const char *key, struct ipaddr ip);
void record_printf(struct record *r, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Renders to standard error when the level says so, and to every sink. */
void record_emit(struct record *r);

/* One line without the newline. `now_text`: with the time in front. Returns the length, at
 * most out_size - 1. */
size_t record_render_text(const struct record *r, char *out, size_t out_size);
/* {"time":"...","event":"...","id":"...","node":"...",...} */
size_t record_render_json(const struct record *r, char *out, size_t out_size);
/* The packed form, for storing; what record_unpack reads back. Bounded, hostile-proof. */
size_t record_pack(const struct record *r, unsigned char *out, size_t out_size);
bool record_unpack(struct slice packed, struct record *out);
/* The value of a key as text; false when there is none. */
bool record_get(const struct record *r, const char *key, struct slice *out);

const char *log_event_name(enum log_event event);
const char *log_event_meaning(enum log_event event);
bool log_event_is_of_message(enum log_event event);

/* Start-up. `node` appears in JSON lines. */
void log_open(enum log_level level, bool json, const char *node);
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
bool log_level_parse(struct slice text, enum log_level *out);
/* A sink sees every record of every thread (it must be thread-safe and quick). At most 4. */
typedef void log_sink_fn(const struct record *r, void *ctx);
void log_add_sink(log_sink_fn *sink, void *ctx);
/* Writes out this thread's buffered lines. */
void log_flush(void);

/* A system event with only a text: log_say(LOG_EV_STORE, "opened %s", dir) -> text="...". */
void log_say(enum log_event event, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
