/* SPDX-License-Identifier: Apache-2.0 */
/* The users file, for auth.c alone. */
#ifndef NODE_INTAKE_AUTH_USERS_H
#define NODE_INTAKE_AUTH_USERS_H

#include <gsasl.h>

#include "node/intake/auth.h"

/* Base64 of 32 octets, and room. */
#define AUTH_KEY_TEXT 64
#define AUTH_SALT_TEXT 128

struct auth_verifier {
    char iterations[12];
    char salt[AUTH_SALT_TEXT];
    char stored_key[AUTH_KEY_TEXT];
    char server_key[AUTH_KEY_TEXT];
};

/* On a helper: takes as long for a user who does not exist. */
bool auth_users_check_password(
    const struct auth_users *u, struct slice user, const char *password);
/* A user who does not exist, or has no verifier, gets one that no password fits, the same
 * each time it is asked for. */
void auth_users_verifier(
    const struct auth_users *u, struct slice user, struct auth_verifier *out);
/* The library's object, with its callback hook set to `u`. */
Gsasl *auth_users_gsasl(const struct auth_users *u);
/* For auth.c to register its callback at load. */
int auth_sasl_callback(Gsasl *gsasl, Gsasl_session *sasl, Gsasl_property what);

#endif
