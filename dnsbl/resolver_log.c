/* SPDX-License-Identifier: Apache-2.0 */
/* libunbound has one way to say why a question failed: it prints. What it prints comes
 * here through a stdio stream of ours. Reasons of failed questions are remembered for the
 * answer that follows at once (and for repeats out of its cache); the rest goes to our
 * log, so many lines a minute. Where it prints to is one global of libunbound's, which
 * every new context sets to standard error after closing what was there: hence the care
 * with the stream. */
#include "dnsbl/resolver_internal.h"

#include <string.h>
#include <unbound.h>

#include "base/clock.h"
#include "base/log.h"

#define LINES_A_MINUTE 20

static void question_key(const char *name, enum dns_type type, char *out, size_t out_size)
{
    snprintf(out, out_size, "%s. %s IN", name, dns_type_name(type));
}

/* The question is known where the reason is read. */
const char *resolver_log_shorten(const char *reason)
{
    const char *end =
        strncmp(reason, "validation failure <", 20) == 0 ? strstr(reason, ">: ") : NULL;
    return end ? end + 3 : reason;
}

const char *resolver_log_reason(
    const struct resolver_log *log, const char *name, enum dns_type type)
{
    char key[280];
    question_key(name, type, key, sizeof(key));
    for (unsigned i = 0; i < REASONS_MAX; i++)
        if (log->reasons[i].text[0] && strcmp(log->reasons[i].question, key) == 0)
            return log->reasons[i].text;
    return "";
}

static void keep(struct resolver_log *log, const char *key, const char *text)
{
    struct resolver_reason *slot = NULL;
    for (unsigned i = 0; i < REASONS_MAX && !slot; i++)
        if (strcmp(log->reasons[i].question, key) == 0)
            slot = &log->reasons[i];
    if (!slot)
        slot = &log->reasons[log->next_reason++ % REASONS_MAX];
    snprintf(slot->question, sizeof(slot->question), "%s", key);
    snprintf(slot->text, sizeof(slot->text), "%s", text);
}

/* "... SERVFAIL <name. TYPE IN>: reason" or "validation failure <name. TYPE IN>: reason"
 */
static bool take_reason(struct resolver_log *log, const char *line)
{
    char key[280];
    const char *open = strstr(line, "SERVFAIL <");
    if (!open)
        open = strstr(line, "validation failure <");
    if (!open)
        return false;
    open = strchr(open, '<') + 1;
    const char *close = strstr(open, ">: ");
    if (!close || (size_t)(close - open) >= sizeof(key))
        return false;
    for (size_t i = 0; i < (size_t)(close - open); i++)
        key[i] = open[i];
    key[close - open] = '\0';
    /* The type and class are upper case, the name lower: as we ask. What is repeated out
     * of the cache says nothing new. */
    if (strcmp(close + 3, "SERVFAIL in cache") != 0)
        keep(log, key, close + 3);
    return true;
}

/* "[1700000000] libunbound[12:0] error: text" -> "error: text" */
static const char *without_prefix(const char *line)
{
    const char *p = strstr(line, "libunbound[");
    const char *end = p ? strstr(p, "] ") : NULL;
    return end ? end + 2 : line;
}

void resolver_log_line(struct resolver_log *log, const char *line)
{
    const char *text = without_prefix(line);
    if (take_reason(log, text))
        return;
    struct mono now = mono_now();
    if (log->window.ns == 0 || mono_diff_ms(now, log->window) >= 60000) {
        log->window = now;
        log->in_window = 0;
    }
    if (log->in_window++ >= LINES_A_MINUTE)
        return;
    struct record r;
    record_init(&r, LOG_EV_RESOLVER);
    record_str(&r, "libunbound", text);
    record_emit(&r);
}

static ssize_t stream_write(void *cookie, const char *bytes, size_t size)
{
    struct resolver_log *log = cookie;
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != '\n') {
            if (log->len < sizeof(log->line) - 1)
                log->line[log->len++] = bytes[i];
            continue;
        }
        log->line[log->len] = '\0';
        log->len = 0;
        resolver_log_line(log, log->line);
    }
    return (ssize_t)size;
}

static int stream_close(void *cookie)
{
    struct resolver_log *log = cookie;
    log->stream = NULL;
    return 0;
}

void resolver_log_before_context(struct resolver_log *log, struct ub_ctx *any)
{
    if (log->stream && any)
        ub_ctx_debugout(any, stderr);
}

void resolver_log_attach(struct resolver_log *log, struct ub_ctx *ctx)
{
    if (!log->stream) {
        cookie_io_functions_t io = {.write = stream_write, .close = stream_close};
        log->stream = fopencookie(log, "w", io);
        if (!log->stream)
            return; /* then it prints to standard error, as ever */
        setvbuf(log->stream, NULL, _IOLBF, 1024);
    }
    ub_ctx_debugout(ctx, log->stream);
}

void resolver_log_close(struct resolver_log *log)
{
    if (log->stream)
        fclose(log->stream);
}
