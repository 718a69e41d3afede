/* SPDX-License-Identifier: Apache-2.0 */
#include "node/intake/auth.h"

#include <crypt.h>
#include <gsasl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/random.h"
#include "node/intake/auth_users.h"

/* RFC 4616 allows 255 octets each for the two names and the password. */
#define INPUT_MAX 8192

struct auth_exchange {
    struct job job;
    struct auth_users *users;
    struct workers *helpers;
    Gsasl_session *sasl;
    auth_done_fn *done;
    void *ctx;
    bool is_login;
    bool busy;       /* a helper has it */
    bool cancelled;  /* nobody waits for it */
    bool confirming; /* the last challenge told of success; an empty answer is due */
    bool has_input, skip_prompt;
    size_t input_len;
    char *input;
    /* filled by the helper */
    struct auth_result result;
    char *output;
    size_t output_len;
    char user[AUTH_USER_MAX + 1];
};

static void wipe(char *bytes, size_t len)
{
    if (bytes)
        explicit_bzero(bytes, len);
    free(bytes);
}

static void destroy(struct auth_exchange *x)
{
    gsasl_finish(x->sasl);
    wipe(x->input, x->input_len);
    gsasl_free(x->output);
    auth_users_unref(x->users);
    explicit_bzero(x, sizeof(*x));
    free(x);
}

/* --- on the helper --- */

static const char *said(Gsasl_session *sasl, Gsasl_property what)
{
    const char *text = gsasl_property_fast(sasl, what);
    return text ? text : "";
}

/* Acting for another user is not offered: an authorization identity must be one's own. */
static bool is_oneself(Gsasl_session *sasl)
{
    const char *authzid = said(sasl, GSASL_AUTHZID);
    return !*authzid || strcmp(authzid, said(sasl, GSASL_AUTHID)) == 0;
}

static int validate_password(struct auth_users *users, Gsasl_session *sasl)
{
    bool good = auth_users_check_password(
        users, slice_str(said(sasl, GSASL_AUTHID)), said(sasl, GSASL_PASSWORD));
    return good && is_oneself(sasl) ? GSASL_OK : GSASL_AUTHENTICATION_ERROR;
}

static int give_verifier(struct auth_users *users, Gsasl_session *sasl)
{
    struct auth_verifier v;
    auth_users_verifier(users, slice_str(said(sasl, GSASL_AUTHID)), &v);
    gsasl_property_set(sasl, GSASL_SCRAM_ITER, v.iterations);
    gsasl_property_set(sasl, GSASL_SCRAM_SALT, v.salt);
    gsasl_property_set(sasl, GSASL_SCRAM_STOREDKEY, v.stored_key);
    gsasl_property_set(sasl, GSASL_SCRAM_SERVERKEY, v.server_key);
    explicit_bzero(&v, sizeof(v));
    return GSASL_OK;
}

int auth_sasl_callback(Gsasl *gsasl, Gsasl_session *sasl, Gsasl_property what)
{
    struct auth_users *users = gsasl_callback_hook_get(gsasl);
    /* The other properties are what a client is asked for. */
    if (what == GSASL_VALIDATE_SIMPLE)
        return validate_password(users, sasl);
    if (what == GSASL_SCRAM_ITER || what == GSASL_SCRAM_SALT ||
        what == GSASL_SCRAM_STOREDKEY || what == GSASL_SCRAM_SERVERKEY)
        return give_verifier(users, sasl);
    return GSASL_NO_CALLBACK;
}

static enum auth_state state_of(int result)
{
    switch (result) {
    case GSASL_OK:
        return AUTH_OK;
    case GSASL_NEEDS_MORE:
        return AUTH_CHALLENGE;
    case GSASL_AUTHENTICATION_ERROR:
    case GSASL_NO_AUTHID:
        return AUTH_WRONG;
    default:
        return AUTH_MALFORMED;
    }
}

static int sasl_step(struct auth_exchange *x, bool with_input)
{
    gsasl_free(x->output);
    x->output = NULL;
    x->output_len = 0;
    return gsasl_step(x->sasl, with_input ? x->input : NULL,
        with_input ? x->input_len : 0, &x->output, &x->output_len);
}

static void run(struct job *job)
{
    struct auth_exchange *x = CONTAINER_OF(job, struct auth_exchange, job);
    /* libgsasl's LOGIN ignores an initial response: it asks for the name first. */
    if (x->skip_prompt)
        (void)sasl_step(x, false);
    int result = sasl_step(x, x->has_input);
    x->result.state = state_of(result);
    if (result == GSASL_OK && !is_oneself(x->sasl))
        x->result.state = AUTH_WRONG;
    snprintf(x->user, sizeof(x->user), "%s", said(x->sasl, GSASL_AUTHID));
}

/* --- in the requester's thread --- */

static void finish(struct auth_exchange *x)
{
    x->result.user = x->user;
    x->result.challenge = slice_make(x->output, x->output_len);
    /* SCRAM's last message proves the server too: it goes as one more challenge. */
    bool last_word = x->result.state == AUTH_OK && x->output_len && !x->confirming;
    if (last_word) {
        x->confirming = true;
        x->result.state = AUTH_CHALLENGE;
    }
    bool over = x->result.state != AUTH_CHALLENGE;
    x->done(x, &x->result, x->ctx);
    if (over)
        destroy(x);
}

static void came_back(struct mail *mail, void *owner)
{
    struct job *job = CONTAINER_OF(mail, struct job, mail);
    struct auth_exchange *x = CONTAINER_OF(job, struct auth_exchange, job);
    (void)owner;
    x->busy = false;
    wipe(x->input, x->input_len);
    x->input = NULL;
    x->input_len = 0;
    if (x->cancelled)
        destroy(x);
    else
        finish(x);
}

struct auth_exchange *auth_begin(struct auth_users *users, struct workers *helpers,
    struct mailbox *reply_to, struct slice mechanism, auth_done_fn *done, void *ctx)
{
    static const char *const offered[] = {"PLAIN", "LOGIN", "SCRAM-SHA-256"};
    const char *name = NULL;
    Gsasl_session *sasl;
    for (unsigned i = 0; i < 3; i++)
        if (slice_eq_nocase(mechanism, slice_str(offered[i])))
            name = offered[i];
    if (!name || gsasl_server_start(auth_users_gsasl(users), name, &sasl) != GSASL_OK)
        return NULL;
    struct auth_exchange *x = mem_zalloc(sizeof(*x));
    x->users = auth_users_ref(users);
    x->helpers = helpers;
    x->sasl = sasl;
    x->done = done;
    x->ctx = ctx;
    x->is_login = strcmp(name, "LOGIN") == 0;
    x->job = (struct job){.run = run, .done = came_back, .reply_to = reply_to};
    return x;
}

/* An answer that needs no helper still comes by mail, so that `done` never runs inside
 * auth_step. */
static void answer_later(struct auth_exchange *x, enum auth_state state)
{
    x->result.state = state;
    gsasl_free(x->output);
    x->output = NULL;
    x->output_len = 0;
    mailbox_post(x->job.reply_to, &x->job.mail, came_back);
}

void auth_step(struct auth_exchange *x, bool has_input, struct slice input)
{
    INVARIANT(!x->busy);
    x->busy = true;
    if (x->confirming || input.len > INPUT_MAX) {
        answer_later(x, x->confirming && input.len == 0 ? AUTH_OK : AUTH_MALFORMED);
        return;
    }
    x->skip_prompt = x->is_login && has_input && x->user[0] == '\0' && !x->output;
    x->has_input = has_input;
    x->input_len = input.len;
    x->input = mem_alloc(input.len + 1);
    if (input.len)
        memcpy(x->input, input.ptr, input.len);
    x->input[input.len] = '\0';
    if (!workers_submit(x->helpers, &x->job))
        answer_later(x, AUTH_BUSY);
}

void auth_cancel(struct auth_exchange *x)
{
    if (!x)
        return;
    if (x->busy)
        x->cancelled = true;
    else
        destroy(x);
}
