/* SPDX-License-Identifier: Apache-2.0 */
#include "node/smtp/client_internal.h"

#include <stddef.h>

#include "base/alloc.h"
#include "proto/base64.h"

/* --- time --- */

#define MINUTES(n) ((n)*INT64_C(60000))

static const struct {
    size_t setting; /* offset in smtp_client_timeouts */
    int64_t fallback_ms;
} waits[SMTP_PHASE_COUNT] = {
#define WAIT(name, ms)                                                                   \
    {                                                                                    \
        offsetof(struct smtp_client_timeouts, name), (ms)                                \
    }
    [SMTP_PHASE_GREETING] = WAIT(greeting_ms, MINUTES(5)),
    [SMTP_PHASE_EHLO] = WAIT(helo_ms, MINUTES(5)),
    [SMTP_PHASE_HELO] = WAIT(helo_ms, MINUTES(5)),
    [SMTP_PHASE_STARTTLS] = WAIT(helo_ms, MINUTES(5)),
    [SMTP_PHASE_TLS] = WAIT(tls_ms, MINUTES(2)),
    [SMTP_PHASE_AUTH] = WAIT(helo_ms, MINUTES(5)),
    [SMTP_PHASE_RSET] = WAIT(mail_ms, MINUTES(5)),
    [SMTP_PHASE_MAIL] = WAIT(mail_ms, MINUTES(5)),
    [SMTP_PHASE_RCPT] = WAIT(rcpt_ms, MINUTES(5)),
    [SMTP_PHASE_DATA] = WAIT(data_ms, MINUTES(2)),
    [SMTP_PHASE_BODY] = WAIT(block_ms, MINUTES(3)),
    [SMTP_PHASE_DOT] = WAIT(dot_ms, MINUTES(10)),
    [SMTP_PHASE_QUIT] = WAIT(quit_ms, 10000),
#undef WAIT
};

/* A reply that drips in never moves its deadline; only whole replies and octets of the
 * body that leave do. */
void client_set_deadline(struct smtp_client *c)
{
    if (waits[c->phase].fallback_ms == 0) {
        c->deadline = MONO_NEVER;
        return;
    }
    const char *base = (const char *)&c->config->timeouts + waits[c->phase].setting;
    int64_t ms;
    memcpy(&ms, base, sizeof(ms));
    c->deadline = mono_add_ms(c->now, ms > 0 ? ms : waits[c->phase].fallback_ms);
    if (c->phase == SMTP_PHASE_BODY && c->tx.body_until.ns < c->deadline.ns)
        c->deadline = c->tx.body_until;
}

/* --- what to send on entering a state --- */

void client_command_added(struct smtp_client *c)
{
    if (c->unanswered++ == 0)
        c->command_left = false;
}

static void send_name(struct smtp_client *c, const char *verb)
{
    buf_append_str(&c->out, verb);
    buf_append(&c->out, c->config->ehlo_name);
    buf_append_str(&c->out, "\r\n");
    client_command_added(c);
}

static void send_line(struct smtp_client *c, const char *line)
{
    buf_append_str(&c->out, line);
    client_command_added(c);
}

static void send_base64_line(struct smtp_client *c, struct slice secret)
{
    base64_encode(&c->out, secret);
    buf_append_str(&c->out, "\r\n");
    client_command_added(c);
}

/* RFC 4954 4, RFC 4616: authorisation identity (none) NUL user NUL password. */
static void send_auth_plain(struct smtp_client *c)
{
    struct buf token;
    buf_init(&token, 8192);
    /* Room for all at once: growing would leave copies of the password behind. */
    buf_reserve(&token, c->config->user.len + c->config->password.len + 2);
    buf_append_char(&token, '\0');
    buf_append(&token, c->config->user);
    buf_append_char(&token, '\0');
    buf_append(&token, c->config->password);
    buf_append_str(&c->out, "AUTH PLAIN ");
    send_base64_line(c, buf_slice(&token));
    if (token.mem)
        explicit_bzero(token.mem, token.cap);
    buf_fini(&token);
}

static void send_auth(struct smtp_client *c)
{
    c->auth_step = 0;
    if (c->caps.flags & SMTP_CAP_AUTH_PLAIN)
        send_auth_plain(c);
    else
        send_line(c, "AUTH LOGIN\r\n");
}

void client_await(struct smtp_client *c, enum smtp_phase phase)
{
    c->phase = phase;
    client_set_deadline(c);
}

void client_enter(struct smtp_client *c, enum smtp_phase phase)
{
    /* Nobody can answer a command that has not been sent: what is here already was meant
     * for another state, or put here by somebody else. (Between transactions nothing is
     * sent, and it may be a 421.) */
    bool early = buf_len(&c->in) > 0 || (c->parser.bytes > 0 && !c->parser.is_finished);
    if (early && phase != SMTP_PHASE_IDLE) {
        client_fail(c, ERR_BAD_PROTOCOL);
        return;
    }
    client_await(c, phase);
    switch (phase) {
    case SMTP_PHASE_GREETING:
        c->unanswered = 1;
        c->command_left = true;
        break;
    case SMTP_PHASE_EHLO:
        send_name(c, "EHLO ");
        break;
    case SMTP_PHASE_HELO:
        send_name(c, "HELO ");
        break;
    case SMTP_PHASE_STARTTLS:
        send_line(c, "STARTTLS\r\n");
        break;
    case SMTP_PHASE_AUTH:
        send_auth(c);
        break;
    case SMTP_PHASE_IDLE:
        c->was_ready = true;
        c->events |= EVENT_READY;
        break;
    case SMTP_PHASE_RSET:
    case SMTP_PHASE_MAIL:
    case SMTP_PHASE_RCPT:
    case SMTP_PHASE_DATA:
        client_tx_send(c);
        break;
    case SMTP_PHASE_BODY:
        client_body_begin(c);
        break;
    case SMTP_PHASE_QUIT:
        send_line(c, "QUIT\r\n");
        break;
    case SMTP_PHASE_TLS:
    case SMTP_PHASE_DOT:
    case SMTP_PHASE_CLOSED:
    case SMTP_PHASE_COUNT:
        break;
    }
}

/* --- what a reply means --- */

static bool is_2xx(const struct smtp_reply *r)
{
    return r->code / 100 == 2;
}

static bool is_refusal(const struct smtp_reply *r)
{
    return r->code / 100 == 4 || r->code / 100 == 5;
}

/* A refusal before the first MAIL is of the connection, and always transient: a listed
 * address must not bounce a queue. */
static void refused(struct smtp_client *c, enum err err, const struct smtp_reply *r)
{
    if (is_refusal(r))
        client_fail_reply(c, err, r);
    else
        client_fail(c, ERR_BAD_PROTOCOL);
}

static bool tls_wanted(const struct smtp_client *c)
{
    return c->config->tls != DELIVERY_TLS_NONE && !c->encrypted;
}

static bool tls_demanded(const struct smtp_client *c)
{
    return c->config->tls == DELIVERY_TLS_ENCRYPT ||
           c->config->tls == DELIVERY_TLS_VERIFY;
}

/* Encryption is settled; credentials are next. They leave only inside TLS. */
static void after_tls(struct smtp_client *c)
{
    if (tls_demanded(c) && !c->encrypted) {
        client_fail_politely(c, ERR_TLS_REQUIRED);
        return;
    }
    if (c->config->user.len == 0) {
        client_enter(c, SMTP_PHASE_IDLE);
        return;
    }
    if (!c->encrypted)
        client_fail_politely(c, ERR_TLS_REQUIRED);
    else if (!(c->caps.flags & (SMTP_CAP_AUTH_PLAIN | SMTP_CAP_AUTH_LOGIN)))
        client_fail_politely(c, ERR_AUTH_FAILED);
    else
        client_enter(c, SMTP_PHASE_AUTH);
}

static void on_ehlo(struct smtp_client *c, const struct smtp_reply *r)
{
    if (!is_2xx(r)) {
        if (r->code / 100 == 5) {
            verdict_from_reply(&c->refusal, ERR_REMOTE_TRANSIENT, c->phase, r);
            client_enter(c, SMTP_PHASE_HELO);
        } else {
            refused(c, ERR_REMOTE_TRANSIENT, r);
        }
        return;
    }
    smtp_caps_parse(&c->caps, r);
    if (tls_wanted(c) && (c->caps.flags & SMTP_CAP_STARTTLS))
        client_enter(c, SMTP_PHASE_STARTTLS);
    else
        after_tls(c);
}

static void on_helo(struct smtp_client *c, const struct smtp_reply *r)
{
    c->caps = (struct smtp_caps){0};
    if (is_2xx(r))
        after_tls(c);
    else
        refused(c, ERR_REMOTE_TRANSIENT, r);
}

/* Offered and then refused: opportunistic TLS goes on in clear on this connection, since
 * no handshake has begun. */
static void on_starttls(struct smtp_client *c, const struct smtp_reply *r)
{
    if (r->code == 220) {
        /* What lies behind the 220 came in clear, from anybody. */
        buf_clear(&c->in);
        client_await(c, SMTP_PHASE_TLS);
        c->events |= EVENT_START_TLS;
    } else if (is_refusal(r) && !tls_demanded(c) && c->config->user.len == 0) {
        after_tls(c);
    } else {
        refused(c, ERR_TLS_REQUIRED, r);
    }
}

static void on_auth(struct smtp_client *c, const struct smtp_reply *r)
{
    bool login = !(c->caps.flags & SMTP_CAP_AUTH_PLAIN);
    if (r->code == 334 && login && c->auth_step < 2) {
        client_set_deadline(c);
        send_base64_line(c, c->auth_step++ == 0 ? c->config->user : c->config->password);
    } else if (is_2xx(r)) {
        client_enter(c, SMTP_PHASE_IDLE);
    } else {
        refused(c, ERR_AUTH_FAILED, r);
    }
}

static void on_greeting(struct smtp_client *c, const struct smtp_reply *r)
{
    if (is_2xx(r))
        client_enter(c, SMTP_PHASE_EHLO);
    else
        refused(c, ERR_REMOTE_TRANSIENT, r);
}

void client_on_reply(struct smtp_client *c, const struct smtp_reply *r)
{
    if (c->phase == SMTP_PHASE_QUIT) {
        client_close_ok(c);
        return;
    }
    if (r->code == 421) { /* RFC 5321 3.8: the server closes, whatever we said */
        client_fail_reply(c, ERR_REMOTE_TRANSIENT, r);
        return;
    }
    switch (c->phase) {
    case SMTP_PHASE_GREETING:
        on_greeting(c, r);
        break;
    case SMTP_PHASE_EHLO:
        on_ehlo(c, r);
        break;
    case SMTP_PHASE_HELO:
        on_helo(c, r);
        break;
    case SMTP_PHASE_STARTTLS:
        on_starttls(c, r);
        break;
    case SMTP_PHASE_AUTH:
        on_auth(c, r);
        break;
    case SMTP_PHASE_RSET:
    case SMTP_PHASE_MAIL:
    case SMTP_PHASE_RCPT:
    case SMTP_PHASE_DATA:
        client_tx_reply(c, r);
        break;
    case SMTP_PHASE_BODY:
    case SMTP_PHASE_DOT:
        client_body_reply(c, r);
        break;
    case SMTP_PHASE_TLS:
    case SMTP_PHASE_IDLE:
    case SMTP_PHASE_QUIT:
    case SMTP_PHASE_CLOSED:
    case SMTP_PHASE_COUNT:
        client_fail(c, ERR_BAD_PROTOCOL);
        break;
    }
}
