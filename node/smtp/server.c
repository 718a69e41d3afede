/* SPDX-License-Identifier: Apache-2.0 */
#include "node/smtp/server.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "node/smtp/server_internal.h"
#include "proto/smtp_reply.h"

/* More unread output than this, and the client is not read from. */
#define OUTPUT_PAUSE 16384
/* A reply is a few lines; this is far from any. */
#define OUTPUT_MAX (1u << 20)
/* The rate limit starts behind it. */
#define DATA_GRACE_MS 60000

#define BIT(state) (1u << (state))

/* Legal successors. STATE_CLOSING is final and may follow any. */
static const unsigned SUCCESSORS[] = {
    [STATE_NEW] = BIT(STATE_COMMAND),
    [STATE_COMMAND] = BIT(STATE_COMMAND) | BIT(STATE_AUTH) | BIT(STATE_DATA) |
                      BIT(STATE_CHUNK) | BIT(STATE_TLS),
    [STATE_AUTH] = BIT(STATE_AUTH) | BIT(STATE_COMMAND),
    [STATE_DATA] = BIT(STATE_COMMAND),
    [STATE_CHUNK] = BIT(STATE_COMMAND),
    [STATE_TLS] = BIT(STATE_COMMAND),
    [STATE_CLOSING] = 0,
};

void server_set_state(struct smtp_server *s, enum server_state next)
{
    INVARIANT(next == STATE_CLOSING || (SUCCESSORS[s->state] & BIT(next)));
    s->state = next;
}

static void config_take(struct smtp_server *s, const struct smtp_server_config *config)
{
    struct smtp_server_config *c = &s->config;
    *c = *config;
    if (c->max_recipients == 0)
        c->max_recipients = 1000;
    if (c->max_errors == 0)
        c->max_errors = 20;
    if (c->max_hops == 0)
        c->max_hops = 100;
    if (c->max_header_bytes == 0)
        c->max_header_bytes = 1u << 20;
    if (c->command_timeout_ms == 0)
        c->command_timeout_ms = 5 * 60 * 1000;
    if (c->data_timeout_ms == 0)
        c->data_timeout_ms = 10 * 60 * 1000;
}

struct smtp_server *smtp_server_new(const struct smtp_server_config *config,
    const struct smtp_server_handler *handler, void *ctx, struct mono now)
{
    struct smtp_server *s = mem_zalloc(sizeof *s);
    config_take(s, config);
    s->handler = handler;
    s->ctx = ctx;
    s->is_tls = config->tls_is_active;
    s->wait_since = now;
    s->verb = s->argument = SLICE("");
    buf_init(&s->line, SMTP_AUTH_LINE_MAX);
    buf_init(&s->out, OUTPUT_MAX);
    return s;
}

void smtp_server_free(struct smtp_server *s)
{
    if (!s)
        return;
    INVARIANT(!s->in_callback);
    server_request_cancel(s);
    server_auth_cancel(s);
    server_transaction_end(s, SMTP_END_LOST);
    buf_fini(&s->line);
    buf_fini(&s->out);
    free(s->spare);
    free(s);
}

void smtp_server_set_config(
    struct smtp_server *s, const struct smtp_server_config *config)
{
    config_take(s, config);
}

void server_banner(struct smtp_server *s)
{
    struct buf text;
    buf_init(&text, 1024);
    buf_append_str(&text, s->config.hostname);
    buf_append_str(&text, " ESMTP");
    if (s->config.service && buf_append_char(&text, ' '))
        buf_append_str(&text, s->config.service);
    server_reply(s, 220, NULL, buf_slice(&text));
    buf_fini(&text);
}

void smtp_server_start(struct smtp_server *s, struct mono now)
{
    static const struct refusal early = {554, "5.5.0", "you talked before the banner"};
    if (s->state != STATE_NEW)
        return;
    s->wait_since = now;
    if (s->is_early_talker && s->config.refuse_early_talker) {
        server_close(s, &early);
        return;
    }
    server_set_state(s, STATE_COMMAND);
    server_banner(s);
}

void server_forget_client(struct smtp_server *s)
{
    server_transaction_end(s, SMTP_END_RESET);
    s->helo_len = 0;
    s->is_esmtp = false;
    s->is_authenticated = false;
    s->idle_commands = 0;
    buf_clear(&s->line);
    s->is_line_too_long = false;
}

/* --- closing --- */

void server_close_silently(struct smtp_server *s)
{
    if (s->state == STATE_CLOSING)
        return;
    server_set_state(s, STATE_CLOSING);
    server_request_cancel(s);
    server_auth_cancel(s);
    server_transaction_end(s, SMTP_END_CLOSED);
    buf_clear(&s->line);
}

void server_close(struct smtp_server *s, const struct refusal *why)
{
    if (s->state == STATE_CLOSING)
        return;
    server_close_silently(s);
    server_refuse(s, why);
}

void smtp_server_refuse(
    struct smtp_server *s, int code, const char *status, struct slice text)
{
    INVARIANT(!s->in_callback); /* there, answer 421 */
    if (s->state == STATE_CLOSING)
        return;
    server_close_silently(s);
    server_reply(s, code, status, text);
}

void smtp_server_shutdown(struct smtp_server *s, enum err why)
{
    s->is_shutting_down = true;
    s->shutdown_why = why;
    if (!s->in_callback)
        server_after_command(s);
}

bool smtp_server_closing(const struct smtp_server *s)
{
    return s->state == STATE_CLOSING;
}

/* --- TLS --- */

bool smtp_server_tls_pending(const struct smtp_server *s)
{
    return s->state == STATE_TLS;
}

void smtp_server_tls_started(struct smtp_server *s, struct mono now)
{
    INVARIANT(s->state == STATE_TLS);
    server_forget_client(s);
    s->is_tls = true;
    s->wait_since = now;
    server_set_state(s, STATE_COMMAND);
    server_after_command(s);
}

/* --- input --- */

static size_t line_limit(const struct smtp_server *s, struct slice line)
{
    bool is_auth = s->state == STATE_AUTH || slice_starts_nocase(line, SLICE("AUTH "));
    return is_auth ? SMTP_AUTH_LINE_MAX : SMTP_COMMAND_LINE_MAX;
}

static void refuse_long_line(struct smtp_server *s)
{
    static const struct refusal too_long = {500, "5.5.2", "line too long"};
    static const struct refusal auth_too_long = {500, "5.5.6", "line too long"};
    bool is_auth = s->state == STATE_AUTH;
    if (is_auth) {
        server_auth_cancel(s);
        server_set_state(s, STATE_COMMAND);
    }
    server_refuse(s, is_auth ? &auth_too_long : &too_long);
}

/* Without its CRLF. False for a bare LF where those are not taken: such a line is
 * answered, since the client waits, but nothing of it is done. */
static bool strip_line_end(const struct smtp_server *s, struct slice *line)
{
    line->len--;
    if (line->len > 0 && line->ptr[line->len - 1] == '\r') {
        line->len--;
        return true;
    }
    return s->config.line_ends == SMTP_LINE_ENDS_NORMALISE;
}

/* A whole line, with its LF. */
static void take_line(struct smtp_server *s, struct slice line, bool is_followed)
{
    static const struct refusal bare_lf = {
        500, "5.5.2", "bare LF: lines end with CRLF (RFC 5321 2.3.8)"};
    s->verb = s->argument = SLICE("");
    if (s->is_line_too_long || line.len > line_limit(s, line)) {
        s->is_line_too_long = false;
        refuse_long_line(s);
    } else if (!strip_line_end(s, &line)) {
        server_refuse(s, &bare_lf);
    } else if (s->state == STATE_AUTH) {
        server_auth_line(s, line);
    } else {
        server_command(s, line, is_followed);
    }
    s->restart_wait = true;
}

/* Part of a line: kept, but never more than a line may have. */
static void keep_part(struct smtp_server *s, struct slice part)
{
    if (s->is_line_too_long)
        return;
    struct slice whole = buf_len(&s->line) > 0 ? buf_slice(&s->line) : part;
    if (buf_len(&s->line) + part.len > line_limit(s, whole)) {
        s->is_line_too_long = true;
        buf_clear(&s->line);
        return;
    }
    buf_append(&s->line, part);
}

/* The line may have held a password. */
static void wipe_line(struct smtp_server *s)
{
    if (s->line.mem)
        explicit_bzero(s->line.mem, s->line.cap);
    buf_clear(&s->line);
}

static size_t line_feed(struct smtp_server *s, struct slice in)
{
    static const struct refusal tls = {
        554, "5.5.0", "this is SMTP, not TLS: use STARTTLS; goodbye"};
    bool is_line_start = buf_len(&s->line) == 0 && !s->is_line_too_long;
    if (is_line_start && in.ptr[0] == SMTP_TLS_HANDSHAKE_OCTET) {
        s->verb = s->argument = SLICE("");
        server_close(s, &tls);
        return in.len;
    }
    size_t lf = slice_find(in, '\n');
    if (lf == in.len) {
        keep_part(s, in);
        return in.len;
    }
    struct slice part = slice_head(in, lf + 1);
    bool is_followed = in.len > part.len;
    if (is_line_start) {
        take_line(s, part, is_followed);
        return part.len;
    }
    keep_part(s, part);
    take_line(s, buf_slice(&s->line), is_followed);
    wipe_line(s);
    return part.len;
}

static size_t consume(struct smtp_server *s, struct slice in)
{
    switch (s->state) {
    case STATE_COMMAND:
    case STATE_AUTH:
        return line_feed(s, in);
    case STATE_DATA:
        return server_data_feed(s, in);
    case STATE_CHUNK:
        return server_chunk_feed(s, in);
    case STATE_NEW:
    case STATE_TLS:
    case STATE_CLOSING:
        break;
    }
    return in.len; /* thrown away */
}

bool smtp_server_wants_input(const struct smtp_server *s)
{
    if (s->state == STATE_CLOSING || s->state == STATE_TLS)
        return true;
    return s->state != STATE_NEW && !s->request && !s->is_held &&
           buf_len(&s->out) <= OUTPUT_PAUSE;
}

static void set_clocks(struct smtp_server *s, struct mono now)
{
    if (s->restart_wait)
        s->wait_since = now;
    if (s->restart_data) {
        s->data_since = now;
        s->data_bytes = 0;
    }
    s->restart_wait = s->restart_data = false;
}

size_t smtp_server_feed(struct smtp_server *s, struct slice bytes, struct mono now)
{
    INVARIANT(!s->in_callback);
    set_clocks(s, now);
    if (s->state == STATE_NEW && bytes.len > 0)
        s->is_early_talker = true;
    size_t used = 0;
    while (used < bytes.len && smtp_server_wants_input(s)) {
        used += consume(s, slice_from(bytes, used));
        server_after_command(s);
    }
    set_clocks(s, now);
    return used;
}

struct buf *smtp_server_output(struct smtp_server *s)
{
    return &s->out;
}

/* --- time --- */

/* In DATA, in a chunk, and between chunks. Bytes that came buy time at the rate they must
 * come with at least; the whole has its own end. */
static struct mono data_deadline(const struct smtp_server *s)
{
    struct mono whole = mono_add_ms(s->data_since, s->config.data_timeout_ms);
    if (s->config.data_rate_bytes == 0)
        return whole;
    int64_t bought_ms = (int64_t)(s->data_bytes * 1000 / s->config.data_rate_bytes);
    if (bought_ms > s->config.data_timeout_ms)
        return whole;
    struct mono slow = mono_add_ms(s->data_since, DATA_GRACE_MS + bought_ms);
    return slow.ns < whole.ns ? slow : whole;
}

struct mono smtp_server_deadline(const struct smtp_server *s)
{
    /* With restart_wait set this is too early: the clock starts at the next feed or tick.
     */
    if (s->request || s->is_held || s->state == STATE_CLOSING || s->state == STATE_NEW)
        return MONO_NEVER;
    if (s->state == STATE_DATA || s->state == STATE_CHUNK)
        return data_deadline(s);
    struct mono command = mono_add_ms(s->wait_since, s->config.command_timeout_ms);
    if (!s->txn || !s->txn->is_bdat)
        return command;
    struct mono data = data_deadline(s);
    return data.ns < command.ns ? data : command;
}

void smtp_server_tick(struct smtp_server *s, struct mono now)
{
    static const struct refusal idle = {421, "4.4.2", "timeout, closing"};
    static const struct refusal slow = {421, "4.4.2", "message came too slowly, closing"};
    set_clocks(s, now);
    if (now.ns < smtp_server_deadline(s).ns)
        return;
    bool in_data = s->state == STATE_DATA || s->state == STATE_CHUNK;
    s->verb = s->argument = SLICE("");
    server_close(s, in_data ? &slow : &idle);
}

void smtp_server_hold(struct smtp_server *s, bool is_held, struct mono now)
{
    if (s->is_held == is_held)
        return;
    s->is_held = is_held;
    if (is_held) {
        s->held_since = now;
        return;
    }
    int64_t held_ns = now.ns - s->held_since.ns;
    s->wait_since.ns += held_ns;
    s->data_since.ns += held_ns;
}

/* --- questions --- */

struct slice smtp_server_helo(const struct smtp_server *s)
{
    return slice_make(s->helo, s->helo_len);
}

const char *smtp_server_with(const struct smtp_server *s)
{
    /* RFC 3848, RFC 6531 4.3; bit 0: TLS, bit 1: AUTH */
    static const char *const esmtp[] = {"ESMTP", "ESMTPS", "ESMTPA", "ESMTPSA"};
    static const char *const utf8[] = {
        "UTF8SMTP", "UTF8SMTPS", "UTF8SMTPA", "UTF8SMTPSA"};
    if (!s->is_esmtp)
        return "SMTP";
    unsigned which = (s->is_tls ? 1u : 0u) | (s->is_authenticated ? 2u : 0u);
    return s->txn && s->txn->smtputf8 ? utf8[which] : esmtp[which];
}

bool smtp_server_is_authenticated(const struct smtp_server *s)
{
    return s->is_authenticated;
}

uint32_t smtp_server_recipients(const struct smtp_server *s)
{
    return s->txn ? s->txn->recipients : 0;
}

uint32_t smtp_server_messages(const struct smtp_server *s)
{
    return s->messages;
}

const struct header_scan *smtp_server_header(const struct smtp_server *s)
{
    return s->txn ? &s->txn->header : NULL;
}

bool smtp_server_in_message(const struct smtp_server *s)
{
    return s->txn &&
           (s->txn->is_started || (s->request && s->request_kind == REQUEST_DATA));
}
