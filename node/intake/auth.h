/* SPDX-License-Identifier: Apache-2.0 */
/* Proving who a client is: SASL PLAIN, LOGIN and SCRAM-SHA-256 (RFC 4616, 5802, 7677) by
 * libgsasl. Every step runs on a helper thread, because a password hash takes a good part
 * of a second on purpose. An unknown user costs what a known one costs. Passwords live
 * only in memory that is wiped, and never in a log.
 *
 * The users file has a line each: name:crypt(3) hash[:SCRAM-SHA-256 verifier]. The
 * verifier is "SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY" (RFC 5803's form, as
 * PostgreSQL writes it) or "{SCRAM-SHA-256}ITERATIONS,SALT,STOREDKEY,SERVERKEY" (as gsasl
 * --mkpasswd writes it). A hash that begins with ! or * is a locked account. */
#ifndef NODE_INTAKE_AUTH_H
#define NODE_INTAKE_AUTH_H

#include "base/settings.h"
#include "base/workers.h"

#define AUTH_USER_MAX 255

/* The users of one generation of the settings. Immutable, any thread, counted. */
struct auth_users;

/* NULL with problems that name file and line. A file that others may read is a problem of
 * its own kind: `warning` gets one line (else it is emptied). */
struct auth_users *auth_users_load(const char *file, const char *settings_file,
    int settings_line_number, struct settings_problems *problems, char *warning,
    size_t warning_size);
struct auth_users *auth_users_ref(struct auth_users *u);
void auth_users_unref(struct auth_users *u);
unsigned auth_users_count(const struct auth_users *u);
/* "PLAIN LOGIN", and SCRAM-SHA-256 when every user has a verifier: a client that prefers
 * it could not get in otherwise. */
const char *auth_users_mechanisms(const struct auth_users *u);

enum auth_state {
    AUTH_CHALLENGE, /* send `challenge`, then auth_step with the response */
    AUTH_OK,        /* the client is `user` */
    AUTH_WRONG,     /* wrong password, unknown user, may not act for another */
    AUTH_MALFORMED, /* not what the mechanism says */
    AUTH_BUSY,      /* the helpers have more than they can do */
};

struct auth_exchange;
struct auth_result {
    enum auth_state state;
    struct slice challenge; /* borrowed for the call */
    const char *user;       /* who it is, or claims to be; "" when not known yet */
};
/* In the thread of `reply_to`. With anything but AUTH_CHALLENGE the exchange is over and
 * is freed after the call. */
typedef void auth_done_fn(
    struct auth_exchange *x, const struct auth_result *result, void *ctx);

/* NULL: no such mechanism. */
struct auth_exchange *auth_begin(struct auth_users *users, struct workers *helpers,
    struct mailbox *reply_to, struct slice mechanism, auth_done_fn *done, void *ctx);
/* Takes a client's message; `done` follows, never inside this call. One at a time. */
void auth_step(struct auth_exchange *x, bool has_input, struct slice input);
/* No `done` will follow. For an exchange that is not over. Accepts NULL. */
void auth_cancel(struct auth_exchange *x);

#endif
