/* SPDX-License-Identifier: Apache-2.0 */
/* From records to lines in per-thread blocks; how blocks get out is in log_output.c. */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/log_internal.h"
#include "base/metrics.h"
#include "base/record_internal.h"

#define SINKS_MAX 4

struct event_row {
    struct slice name;
    enum log_level level;
    bool of_message;
    const char *meaning;
};
enum { KIND_SYSTEM, KIND_MESSAGE };
static const struct event_row events[] = {
#define EVENT(name, text, level, kind, meaning)                                          \
    {SLICE_INIT(text), LOG_##level, KIND_##kind == KIND_MESSAGE, meaning},
#include "base/log_events.def"
#undef EVENT
};
static const char *const level_names[] = {"debug", "info", "warn", "error"};

/* The log is the process's, like its standard error: set up once at the start, then only
 * the level changes. */
static struct {
    _Atomic int level;
    bool json;
    bool journal;
    char node[256];
    atomic_uint sink_count;
    struct {
        log_sink_fn *run;
        void *ctx;
    } sinks[SINKS_MAX];
} log_state = {.level = LOG_WARN};

const char *log_event_name(enum log_event event)
{
    INVARIANT((unsigned)event < LOG_EVENT_COUNT);
    return events[event].name.ptr;
}

const char *log_event_meaning(enum log_event event)
{
    INVARIANT((unsigned)event < LOG_EVENT_COUNT);
    return events[event].meaning;
}

bool log_event_is_of_message(enum log_event event)
{
    INVARIANT((unsigned)event < LOG_EVENT_COUNT);
    return events[event].of_message;
}

enum log_level log_event_level(enum log_event event)
{
    INVARIANT((unsigned)event < LOG_EVENT_COUNT);
    return events[event].level;
}

bool log_event_parse(struct slice name, enum log_event *out)
{
    for (unsigned i = 0; i < LOG_EVENT_COUNT; i++)
        if (slice_eq(events[i].name, name)) {
            *out = (enum log_event)i;
            return true;
        }
    return false;
}

const char *log_level_name(enum log_level level)
{
    INVARIANT((unsigned)level <= LOG_ERROR);
    return level_names[level];
}

bool log_level_parse(struct slice text, enum log_level *out)
{
    for (unsigned i = 0; i <= LOG_ERROR; i++)
        if (slice_eq(slice_str(level_names[i]), text)) {
            *out = (enum log_level)i;
            return true;
        }
    return false;
}

void log_open(enum log_level level, bool json, const char *node)
{
    log_state.json = json;
    log_state.journal = log_output_is_journal();
    snprintf(log_state.node, sizeof(log_state.node), "%s", node ? node : "");
    log_set_level(level);
    log_output_start();
}

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&log_state.level, (int)level, memory_order_relaxed);
}

enum log_level log_get_level(void)
{
    return (enum log_level)atomic_load_explicit(&log_state.level, memory_order_relaxed);
}

const char *log_node(void)
{
    return log_state.node;
}

void log_add_sink(log_sink_fn *sink, void *ctx)
{
    unsigned at = atomic_load(&log_state.sink_count);
    INVARIANT(at < SINKS_MAX);
    log_state.sinks[at].run = sink;
    log_state.sinks[at].ctx = ctx;
    atomic_store_explicit(&log_state.sink_count, at + 1, memory_order_release);
}

bool log_wants(enum log_event event)
{
    return log_event_level(event) >= log_get_level() ||
           atomic_load_explicit(&log_state.sink_count, memory_order_acquire) > 0;
}

/* The journal takes the severity from "<N>" and has its own clock. */
static size_t render_line(const struct record *r, char *line)
{
    static const char severity[] = {'7', '6', '4', '3'};
    size_t head = 0, len;
    if (log_state.journal) {
        line[0] = '<';
        line[1] = severity[r->level];
        line[2] = '>';
        head = 3;
    }
    if (log_state.json)
        len = record_render_json(r, line + head, RECORD_LINE_MAX - head - 1);
    else if (log_state.journal)
        len = record_render_event(r, line + head, RECORD_LINE_MAX - head - 1);
    else
        len = record_render_text(r, line, RECORD_LINE_MAX - 1);
    line[head + len] = '\n';
    return head + len + 1;
}

static void write_line(const struct record *r)
{
    struct log_block *block = log_block_take(RECORD_LINE_MAX);
    size_t len = render_line(r, block->bytes + block->len);
    block->len += len;
    log_block_give(block, r->level >= LOG_WARN);
}

void record_emit(struct record *r)
{
    unsigned sinks = atomic_load_explicit(&log_state.sink_count, memory_order_acquire);
    if (r->cut)
        metric_add(METRIC_log_lost_total, 1);
    for (unsigned i = 0; i < sinks; i++)
        log_state.sinks[i].run(r, log_state.sinks[i].ctx);
    if (r->level >= atomic_load_explicit(&log_state.level, memory_order_relaxed))
        write_line(r);
}

void log_say(enum log_event event, const char *format, ...)
{
    struct record r;
    va_list args;
    if (!log_wants(event))
        return;
    record_init(&r, event);
    va_start(args, format);
    record_vprintf(&r, "text", format, args);
    va_end(args);
    record_emit(&r);
}
