/* SPDX-License-Identifier: Apache-2.0 */
/* AUTH: the engine speaks RFC 4954, auth.h does SASL on a helper, and here wrong guesses
 * are counted, slowed and logged, per address and per user. */
#include <stdio.h>

#include "base/alloc.h"
#include "base/metrics.h"
#include "node/intake/session_internal.h"

/* A wrong password is answered after this, so that one connection cannot try many. */
#define WRONG_DELAY_MS 1000

static void answer(struct session *s, int code, const char *status, const char *text)
{
    struct smtp_request *r = s->auth_request;
    s->auth_request = NULL;
    if (r)
        smtp_answer(r, code, status, slice_str(text));
}

static void too_many(struct session *s)
{
    answer(s, 454, "4.7.0", "Too many failed attempts, try again later");
}

static void log_auth(
    struct session *s, enum log_event event, const char *user, const char *why)
{
    struct record r;
    record_init(&r, event);
    record_ip(&r, "client", s->client.ip);
    record_str(&r, "listener", s->listener->name);
    record_str(&r, "user", user);
    if (*why)
        record_str(&r, "why", why);
    record_emit(&r);
}

static void late_answer(struct timer *t)
{
    struct session *s = CONTAINER_OF(t, struct session, auth_timer);
    s->auth_late = false;
    answer(s, 535, "5.7.8", "Authentication credentials invalid");
}

static void wrong(struct session *s, const char *user)
{
    struct slice name = slice_str(user);
    clients_auth_failed(s->il->intake->clients, s->client.ip, name,
        s->config->settings->limits.auth_failures, session_now(s));
    metric_add(METRIC_auth_failed_total, 1);
    log_auth(s, LOG_EV_AUTH_FAILED, user, "wrong password or unknown user");
    if (!s->auth_request)
        return;
    if (!s->has_auth_timer)
        timer_init(&s->auth_timer, s->il->loop, late_answer);
    s->has_auth_timer = true;
    s->auth_late = true;
    timer_set(&s->auth_timer, mono_add_ms(session_now(s), WRONG_DELAY_MS));
}

/* Whoever guesses for a user that too many have guessed for learns nothing, right or
 * wrong. */
static void proved(struct session *s, const char *user)
{
    uint32_t limit = s->config->settings->limits.auth_failures;
    if (!clients_may_authenticate(s->il->intake->clients, s->client.ip, slice_str(user),
            limit, session_now(s))) {
        log_auth(s, LOG_EV_AUTH_FAILED, user, "too many failed attempts");
        too_many(s);
        return;
    }
    snprintf(s->user, sizeof(s->user), "%s", user);
    metric_add(METRIC_auth_ok_total, 1);
    log_auth(s, LOG_EV_AUTH_OK, user, "");
    answer(s, 235, "2.7.0", "Authentication successful");
}

static void challenge(struct session *s, struct slice bytes)
{
    struct smtp_request *r = s->auth_request;
    s->auth_request = NULL;
    smtp_answer_challenge(r, bytes);
}

static void stepped(struct auth_exchange *x, const struct auth_result *result, void *ctx)
{
    struct session *s = ctx;
    (void)x;
    if (result->state != AUTH_CHALLENGE)
        s->auth = NULL; /* it is freed behind us */
    switch (result->state) {
    case AUTH_CHALLENGE:
        challenge(s, result->challenge);
        break;
    case AUTH_OK:
        if (granted_is_locked(s->il->intake->granted, result->user))
            wrong(s, result->user);
        else
            proved(s, result->user);
        break;
    case AUTH_WRONG:
        wrong(s, result->user);
        break;
    case AUTH_MALFORMED:
        answer(s, 501, "5.5.2", "Malformed authentication data");
        break;
    case AUTH_BUSY:
        answer(s, 454, "4.7.0", "Temporary authentication failure, try again later");
        break;
    }
}

void session_auth_start(void *session, struct smtp_request *r, struct slice mechanism,
    bool has_initial, struct slice initial)
{
    struct session *s = session;
    uint32_t limit = s->config->settings->limits.auth_failures;
    s->auth_request = r;
    if (!clients_address_may_authenticate(
            s->il->intake->clients, s->client.ip, limit, session_now(s))) {
        too_many(s);
        return;
    }
    s->auth = auth_begin(s->config->users, s->il->intake->deps.helpers,
        loop_mailbox(s->il->loop), mechanism, stepped, s);
    if (s->auth)
        auth_step(s->auth, has_initial, initial);
    else
        answer(s, 504, "5.5.4", "Unrecognized authentication mechanism");
}

void session_auth_response(void *session, struct smtp_request *r, struct slice response)
{
    struct session *s = session;
    s->auth_request = r;
    auth_step(s->auth, true, response);
}

void session_auth_cancel(void *session)
{
    struct session *s = session;
    auth_cancel(s->auth);
    s->auth = NULL;
    if (s->auth_request) /* cancelled with the exchange */
        smtp_request_drop(s->auth_request);
    s->auth_request = NULL;
    if (s->auth_late)
        timer_cancel(&s->auth_timer);
    s->auth_late = false;
}

void session_auth_fini(struct session *s)
{
    auth_cancel(s->auth);
    s->auth = NULL;
    if (s->auth_request)
        smtp_request_drop(s->auth_request);
    s->auth_request = NULL;
    if (s->has_auth_timer)
        timer_fini(&s->auth_timer);
}
