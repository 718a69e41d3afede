/* SPDX-License-Identifier: Apache-2.0 */
/* One line a thing that happened. A record is built on the stack as an event and typed
 * key/value pairs, then rendered as text or JSON by whoever needs it: standard error, the
 * history, `batonctl events`. Bytes from peers are escaped and cut when rendered, so
 * nothing a stranger said can forge a line. Secrets and bodies never come here. struct
 * record r; record_init(&r, LOG_EV_DELIVERED); record_msg_id(&r, "id", id);
 *   record_slice(&r, "to", address);
 *   record_emit(&r);
 * Any thread; lines of one thread keep their order. Standard error is written in blocks:
 * a thread's lines leave with log_flush (loops call it after each round), when its block
 * is full, at once with a line of WARN or above, when the thread ends, and after a second
 * at the latest: a small thread of the log's own sweeps up what others left lying. A
 * reader of standard error that has stalled is waited for a moment once; then lines are
 * lost, counted (log_lines_lost_total) and owned up to. Mail does not wait for a log. */
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
    char id_text[MSG_ID_TEXT + 1];
    uint16_t len;
    /* pairs, packed: type u8, key length u8, key, value length u16, value as text */
    unsigned char pairs[RECORD_BYTES];
};

/* Enough for what record_pack writes, and for one rendered line. */
#define RECORD_PACKED_MAX (RECORD_BYTES + 128)
#define RECORD_LINE_MAX 16384

/* Takes the time. Keys below are lower-case names of at most 32 letters, digits and "_".
 * A pair that does not fit any more is left out, and `cut` says so. */
void record_init(struct record *r, enum log_event event);
/* Under the key "id": the message this is about, which comes first in every line and is
 * what the history files it under. Other keys: a value like any other. */
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

/* One line without the newline: "2026-11-22T15:43:38.123Z info delivered id=... to=...".
 * A value that is not plain is quoted and escaped, so it can forge neither a line nor a
 * key. Returns the length, at most out_size - 1; pairs that do not fit are left out
 * whole, and cut=true says so. out_size is at least 512. */
size_t record_render_text(const struct record *r, char *out, size_t out_size);
/* The same without time and level, for the journal, which has its own. */
size_t record_render_event(const struct record *r, char *out, size_t out_size);
/* {"time":"...","event":"...","id":"...","node":"...","level":"...",...}: always valid
 * UTF-8 and valid JSON; bytes that are neither become U+FFFD. */
size_t record_render_json(const struct record *r, char *out, size_t out_size);
/* The packed form, for storing and sending; what record_unpack reads back. 0 when it does
 * not fit (RECORD_PACKED_MAX always does). It names the event, so the table may grow. */
size_t record_pack(const struct record *r, unsigned char *out, size_t out_size);
/* False unless all of `packed` is one sound record; *out is undefined then. */
bool record_unpack(struct slice packed, struct record *out);
/* The value of a key as text, borrowed from the record; false when there is none. */
bool record_get(const struct record *r, const char *key, struct slice *out);

const char *log_event_name(enum log_event event);
const char *log_event_meaning(enum log_event event);
bool log_event_is_of_message(enum log_event event);
bool log_event_parse(struct slice name, enum log_event *out);
const char *log_level_name(enum log_level level);

/* Start-up, before other threads. `node` appears in JSON lines. Without it (in tests)
 * only WARN and above are written. */
void log_open(enum log_level level, bool json, const char *node);
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
bool log_level_parse(struct slice text, enum log_level *out);
/* A sink sees every record of every thread (it must be thread-safe and quick). At most 4.
 */
typedef void log_sink_fn(const struct record *r, void *ctx);
void log_add_sink(log_sink_fn *sink, void *ctx);
/* Will anybody look at such a record? For callers whose values cost something to make. */
bool log_wants(enum log_event event);
/* Writes out this thread's buffered lines; some 20 ns when there are none. */
void log_flush(void);
/* Writes out every thread's lines: before the process ends in an unusual way. */
void log_flush_all(void);
/* The name given to log_open, "" before. */
const char *log_node(void);

/* A system event with only a text: log_say(LOG_EV_STORE, "opened %s", dir) -> text="...".
 */
void log_say(enum log_event event, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
