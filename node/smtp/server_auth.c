/* SPDX-License-Identifier: Apache-2.0 */
/* AUTH (RFC 4954). The engine knows lines, base64 and when AUTH is allowed; what a
 * mechanism says is the handler's. Decoded octets are wiped: they hold passwords. */
#include "node/smtp/server.h"

#include <string.h>

#include "base/alloc.h"
#include "node/smtp/server_internal.h"
#include "proto/base64.h"

static const struct refusal BAD_BASE64 = {501, "5.5.2", "not base64"};

bool server_auth_is_offered(const struct smtp_server *s)
{
    const char *list = s->config.auth_mechanisms;
    return list && list[0] != '\0' && s->is_tls;
}

/* Is it one of the blank-separated words of the config? */
static bool is_offered_mechanism(const struct smtp_server *s, struct slice mechanism)
{
    struct slice rest = slice_str(s->config.auth_mechanisms);
    while (rest.len > 0) {
        struct slice word = slice_head(rest, slice_find(rest, ' '));
        if (mechanism.len > 0 && slice_eq_nocase(word, mechanism))
            return true;
        rest = slice_from(rest, word.len + 1);
    }
    return false;
}

static const struct refusal *check_auth(
    const struct smtp_server *s, struct slice mechanism)
{
    static const struct refusal none = {502, "5.5.1", "AUTH is not available"};
    static const struct refusal no_tls = {
        538, "5.7.11", "encryption required for authentication: use STARTTLS"};
    static const struct refusal twice = {503, "5.5.1", "already authenticated"};
    static const struct refusal unknown = {
        504, "5.5.4", "unknown authentication mechanism"};
    if (!s->config.auth_mechanisms || s->config.auth_mechanisms[0] == '\0')
        return &none;
    if (!s->is_tls)
        return &no_tls;
    if (s->is_authenticated)
        return &twice;
    return is_offered_mechanism(s, mechanism) ? NULL : &unknown;
}

static void wipe(struct buf *b)
{
    if (b->mem)
        explicit_bzero(b->mem, b->cap);
    buf_fini(b);
}

void server_auth(struct smtp_server *s, struct slice argument)
{
    struct slice mechanism = slice_head(argument, slice_find(argument, ' '));
    struct slice initial = slice_trim(slice_from(argument, mechanism.len));
    const struct refusal *why = check_auth(s, mechanism);
    struct buf octets;
    buf_init(&octets, SMTP_AUTH_LINE_MAX);
    bool is_empty =
        slice_eq(initial, SLICE("=")); /* RFC 4954 4: a response of no octets */
    if (!why && !is_empty && !base64_decode(&octets, initial))
        why = &BAD_BASE64;
    if (why) {
        server_refuse(s, why);
    } else {
        s->is_auth_open = true;
        struct smtp_request *r = server_request_open(s, REQUEST_AUTH);
        s->handler->auth_start(s->ctx, r, mechanism, initial.len > 0, buf_slice(&octets));
        server_request_settle(s);
    }
    wipe(&octets);
}

static void abandon(struct smtp_server *s, const struct refusal *why)
{
    server_auth_cancel(s);
    server_set_state(s, STATE_COMMAND);
    server_refuse(s, why);
}

void server_auth_line(struct smtp_server *s, struct slice line)
{
    static const struct refusal cancelled = {501, "5.7.0", "authentication cancelled"};
    s->verb = SLICE("AUTH");
    if (slice_eq(line, SLICE("*"))) {
        abandon(s, &cancelled);
        return;
    }
    struct buf octets;
    buf_init(&octets, SMTP_AUTH_LINE_MAX);
    if (!base64_decode(&octets, line)) {
        abandon(s, &BAD_BASE64);
    } else {
        struct smtp_request *r = server_request_open(s, REQUEST_AUTH);
        s->handler->auth_response(s->ctx, r, buf_slice(&octets));
        server_request_settle(s);
    }
    wipe(&octets);
}

void server_auth_answered(struct smtp_server *s, int code)
{
    if (code == 334) {
        server_set_state(s, STATE_AUTH);
        return;
    }
    s->is_auth_open = false;
    s->is_authenticated = code == 235;
    s->is_auth_refused = code != 235;
    if (s->state == STATE_AUTH)
        server_set_state(s, STATE_COMMAND);
}

void server_auth_cancel(struct smtp_server *s)
{
    if (!s->is_auth_open)
        return;
    s->is_auth_open = false;
    server_request_cancel(s);
    s->handler->auth_cancel(s->ctx);
}
