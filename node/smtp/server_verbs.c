/* SPDX-License-Identifier: Apache-2.0 */
#include "node/smtp/server.h"

#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "node/smtp/server_internal.h"
#include "proto/utf8.h"

enum verb_flags {
    BEFORE_TLS = 1,  /* allowed where TLS is required and not there yet (RFC 3207 4) */
    LAST = 2,        /* nothing may be sent behind it before its reply (RFC 2920 3.1) */
    ARGUMENT = 4,    /* must have one */
    NO_ARGUMENT = 8, /* must have none */
    IDLE = 16,       /* counted until a message is accepted */
};

struct verb {
    struct slice name;
    unsigned phases; /* in which it is allowed */
    unsigned flags;
    /* Only refuses: NULL lets it run. May be NULL itself. */
    const struct refusal *(*check)(const struct smtp_server *s);
    void (*run)(struct smtp_server *s, struct slice argument);
    const char *rfc;
};

static void list_verbs(struct buf *out);

enum phase server_phase(const struct smtp_server *s)
{
    if (s->txn)
        return s->txn->is_bdat          ? PHASE_BDAT
               : s->txn->recipients > 0 ? PHASE_RCPT
                                        : PHASE_MAIL;
    return s->helo_len > 0 ? PHASE_READY : PHASE_HELLO;
}

/* --- EHLO, HELO --- */

/* Takes the name, in A-labels: it goes into a header field of every message (RFC
 * 6531 3.7.1). False, and the reply said, when it is none. */
static bool greet(struct smtp_server *s, struct slice name, bool is_esmtp)
{
    static const struct refusal bad = {
        501, "5.5.4", "not a host name or address literal"};
    char ascii[SMTP_DOMAIN_MAX + 1];
    bool is_valid = smtp_helo_is_valid(name);
    if (is_valid && !utf8_is_ascii(name)) {
        is_valid = smtp_domain_to_ascii(name, ascii);
        name = slice_str(ascii);
    }
    if (!is_valid) {
        server_refuse(s, &bad);
        return false;
    }
    server_transaction_end(s, SMTP_END_RESET); /* RFC 5321 4.1.4: as RSET */
    memcpy(s->helo, name.ptr, name.len);
    s->helo_len = name.len;
    s->is_esmtp = is_esmtp;
    return true;
}

static void run_helo(struct smtp_server *s, struct slice argument)
{
    if (greet(s, argument, false))
        server_reply(s, 250, NULL, slice_str(s->config.hostname));
}

/* The keywords that depend on where the session stands. */
static void list_optional(const struct smtp_server *s, struct buf *text)
{
    if (s->config.max_message_bytes > 0)
        buf_printf(text, "\nSIZE %" PRIu64, s->config.max_message_bytes);
    else
        buf_append_str(text, "\nSIZE");
    if (s->config.tls != SMTP_TLS_NONE && !s->is_tls)
        buf_append_str(text, "\nSTARTTLS");
    if (server_auth_is_offered(s))
        buf_printf(text, "\nAUTH %s", s->config.auth_mechanisms);
    if (!s->config.no_smtputf8)
        buf_append_str(text, "\nSMTPUTF8");
    if (s->handler->vrfy)
        buf_append_str(text, "\nVRFY");
    if (s->config.xclient_allowed && s->handler->xclient)
        buf_append_str(text, "\nXCLIENT " XCLIENT_ATTRIBUTES);
}

static void run_ehlo(struct smtp_server *s, struct slice argument)
{
    if (!greet(s, argument, true))
        return;
    struct buf text;
    buf_init(&text, 4096);
    buf_append_str(&text, s->config.hostname);
    buf_append_str(&text, "\nPIPELINING");
    list_optional(s, &text);
    buf_append_str(&text, "\nENHANCEDSTATUSCODES\n8BITMIME\nDSN\nCHUNKING");
    buf_printf(&text, "\nLIMITS RCPTMAX=%" PRIu32, s->config.max_recipients);
    buf_append_str(&text, "\nHELP");
    server_reply(s, 250, NULL, buf_slice(&text));
    buf_fini(&text);
}

/* --- the small ones --- */

static void run_rset(struct smtp_server *s, struct slice argument)
{
    (void)argument;
    server_transaction_end(s, SMTP_END_RESET);
    server_reply(s, 250, "2.0.0", SLICE("ok"));
}

static void run_noop(struct smtp_server *s, struct slice argument)
{
    (void)argument;
    server_reply(s, 250, "2.0.0", SLICE("ok"));
}

static void run_quit(struct smtp_server *s, struct slice argument)
{
    (void)argument;
    server_transaction_end(s, SMTP_END_QUIT);
    server_reply(s, 221, "2.0.0", SLICE("goodbye"));
    server_close_silently(s);
}

static void run_vrfy(struct smtp_server *s, struct slice argument)
{
    if (!s->handler->vrfy) {
        server_reply(
            s, 252, "2.5.2", SLICE("cannot say, but RCPT and a message may be tried"));
        return;
    }
    struct smtp_request *r = server_request_open(s, REQUEST_VRFY);
    s->handler->vrfy(s->ctx, r, argument);
    server_request_settle(s);
}

static void run_expn(struct smtp_server *s, struct slice argument)
{
    (void)argument;
    server_reply(s, 502, "5.5.1", SLICE("this server has no lists to expand"));
}

static void run_help(struct smtp_server *s, struct slice argument)
{
    (void)argument;
    struct buf text;
    buf_init(&text, 4096);
    buf_append_str(&text, "commands and where they are written down:");
    list_verbs(&text);
    server_reply(s, 214, "2.0.0", buf_slice(&text));
    buf_fini(&text);
}

/* --- STARTTLS (RFC 3207) --- */

static const struct refusal *check_starttls(const struct smtp_server *s)
{
    static const struct refusal none = {502, "5.5.1", "TLS is not available"};
    static const struct refusal twice = {503, "5.5.1", "TLS is already active"};
    if (s->is_tls)
        return &twice;
    return s->config.tls == SMTP_TLS_NONE ? &none : NULL;
}

static void run_starttls(struct smtp_server *s, struct slice argument)
{
    (void)argument;
    if (!s->handler->starttls) {
        server_reply(s, 220, "2.0.0", SLICE("go ahead"));
        server_tls_answered(s, 220);
        return;
    }
    struct smtp_request *r = server_request_open(s, REQUEST_STARTTLS);
    s->handler->starttls(s->ctx, r);
    server_request_settle(s);
}

void server_tls_answered(struct smtp_server *s, int code)
{
    /* From here plain text is thrown away unread: whoever put commands behind STARTTLS
     * hoped that they would be run as if they had come under TLS. */
    if (code == 220)
        server_set_state(s, STATE_TLS);
}

/* --- XCLIENT --- */

static const struct refusal *check_xclient(const struct smtp_server *s)
{
    static const struct refusal denied = {550, "5.7.0", "XCLIENT is not for you"};
    return s->config.xclient_allowed && s->handler->xclient ? NULL : &denied;
}

static void run_xclient(struct smtp_server *s, struct slice argument)
{
    static const struct refusal bad = {501, "5.5.4", "bad XCLIENT attribute"};
    struct xclient attributes;
    if (xclient_parse(argument, &attributes) != PARSE_DONE) {
        server_refuse(s, &bad);
        return;
    }
    struct smtp_request *r = server_request_open(s, REQUEST_XCLIENT);
    s->handler->xclient(s->ctx, r, &attributes);
    server_request_settle(s);
}

void server_xclient_answered(struct smtp_server *s, int code)
{
    if (code != 220)
        return;
    server_forget_client(s);
    s->errors = 0;
    server_banner(s);
}

/* --- the table --- */

static const struct verb VERBS[] = {
    {SLICE_INIT("EHLO"), PHASE_ANY, BEFORE_TLS | LAST | ARGUMENT | IDLE, NULL, run_ehlo,
        "RFC 5321 4.1.1.1"},
    {SLICE_INIT("HELO"), PHASE_ANY, BEFORE_TLS | LAST | ARGUMENT | IDLE, NULL, run_helo,
        "RFC 5321 4.1.1.1"},
    {SLICE_INIT("MAIL"), PHASE_READY, ARGUMENT | IDLE, NULL, server_mail,
        "RFC 5321 4.1.1.2"},
    {SLICE_INIT("RCPT"), PHASE_MAIL | PHASE_RCPT, ARGUMENT, NULL, server_rcpt,
        "RFC 5321 4.1.1.3"},
    {SLICE_INIT("DATA"), PHASE_RCPT, LAST | NO_ARGUMENT, NULL, server_data,
        "RFC 5321 4.1.1.4"},
    /* Its octets follow whatever the reply is, so it has to be run to be refused. */
    {SLICE_INIT("BDAT"), PHASE_ANY, BEFORE_TLS, NULL, server_bdat, "RFC 3030 2"},
    {SLICE_INIT("RSET"), PHASE_ANY, NO_ARGUMENT | IDLE, NULL, run_rset,
        "RFC 5321 4.1.1.5"},
    {SLICE_INIT("NOOP"), PHASE_ANY, BEFORE_TLS | IDLE, NULL, run_noop,
        "RFC 5321 4.1.1.9"},
    {SLICE_INIT("QUIT"), PHASE_ANY, BEFORE_TLS | NO_ARGUMENT, NULL, run_quit,
        "RFC 5321 4.1.1.10"},
    {SLICE_INIT("STARTTLS"), PHASE_READY, BEFORE_TLS | NO_ARGUMENT | IDLE, check_starttls,
        run_starttls, "RFC 3207 4"},
    {SLICE_INIT("AUTH"), PHASE_READY, LAST | ARGUMENT | IDLE, NULL, server_auth,
        "RFC 4954 4"},
    {SLICE_INIT("VRFY"), PHASE_ANY, ARGUMENT | IDLE, NULL, run_vrfy, "RFC 5321 4.1.1.6"},
    {SLICE_INIT("EXPN"), PHASE_ANY, ARGUMENT | IDLE, NULL, run_expn, "RFC 5321 4.1.1.7"},
    {SLICE_INIT("HELP"), PHASE_ANY, IDLE, NULL, run_help, "RFC 5321 4.1.1.8"},
    {SLICE_INIT("XCLIENT"), PHASE_HELLO | PHASE_READY, LAST | ARGUMENT | IDLE,
        check_xclient, run_xclient, "Postfix XCLIENT_README"},
};
#define VERB_COUNT (sizeof VERBS / sizeof *VERBS)

static void list_verbs(struct buf *out)
{
    for (size_t i = 0; i < VERB_COUNT; i++)
        buf_printf(out, "\n%s: %s", VERBS[i].name.ptr, VERBS[i].rfc);
}

static const struct verb *verb_find(struct slice name)
{
    for (size_t i = 0; i < VERB_COUNT; i++) {
        if (slice_eq_nocase(VERBS[i].name, name))
            return &VERBS[i];
    }
    return NULL;
}

/* Why not now: what the client has to do first. */
static const struct refusal *wrong_phase(
    const struct smtp_server *s, const struct verb *verb)
{
    static const struct refusal hello_first = {503, "5.5.1", "EHLO or HELO first"};
    static const struct refusal mail_first = {503, "5.5.1", "MAIL first"};
    static const struct refusal no_recipients = {554, "5.5.1", "no valid recipients"};
    static const struct refusal in_bdat = {503, "5.5.1", "BDAT LAST or RSET first"};
    static const struct refusal in_transaction = {
        503, "5.5.1", "not within a mail transaction"};
    switch (server_phase(s)) {
    case PHASE_HELLO:
        return &hello_first;
    case PHASE_READY:
        return &mail_first;
    case PHASE_BDAT:
        return &in_bdat;
    case PHASE_MAIL:
    case PHASE_RCPT:
    case PHASE_ANY:
        break;
    }
    return verb->run == server_data ? &no_recipients : &in_transaction;
}

/* All that can be said without running it; NULL: run it. */
static const struct refusal *check(
    const struct smtp_server *s, const struct verb *verb, struct slice argument)
{
    static const struct refusal tls_first = {530, "5.7.0", "STARTTLS first"};
    static const struct refusal no_argument = {501, "5.5.4", "takes no argument"};
    static const struct refusal argument_missing = {501, "5.5.4", "argument missing"};
    bool is_tls_missing = s->config.tls == SMTP_TLS_REQUIRED && !s->is_tls;
    if (is_tls_missing && !(verb->flags & BEFORE_TLS))
        return &tls_first;
    if ((verb->flags & NO_ARGUMENT) && argument.len > 0)
        return &no_argument;
    if ((verb->flags & ARGUMENT) && argument.len == 0)
        return &argument_missing;
    if (!(verb->phases & server_phase(s)))
        return wrong_phase(s, verb);
    return verb->check ? verb->check(s) : NULL;
}

static void run_verb(struct smtp_server *s, const struct verb *verb,
    struct slice argument, bool is_followed)
{
    static const struct refusal out_of_step = {
        554, "5.5.0", "you did not wait for the reply (RFC 2920 3.1), closing"};
    static const struct refusal idling = {421, "4.7.0", "too many commands without mail"};
    if (is_followed && (verb->flags & LAST)) {
        server_close(s, &out_of_step);
        return;
    }
    if ((verb->flags & IDLE) && ++s->idle_commands > SMTP_IDLE_COMMANDS_MAX) {
        server_close(s, &idling);
        return;
    }
    const struct refusal *why = check(s, verb, argument);
    if (why)
        server_refuse(s, why);
    else
        verb->run(s, argument);
}

/* A line that is no command. */
static void refuse_line(struct smtp_server *s, enum smtp_line_fault fault)
{
    static const struct refusal texts[] = {
        [SMTP_LINE_OK] = {500, "5.5.2", "command not recognised"},
        [SMTP_LINE_EMPTY] = {500, "5.5.2", "empty line"},
        [SMTP_LINE_CONTROL] = {500, "5.5.2", "control character in command"},
        [SMTP_LINE_VERB] = {500, "5.5.2", "command not recognised"},
        [SMTP_LINE_UTF8] = {500, "5.5.2", "command is not UTF-8"},
    };
    server_refuse(s, &texts[fault]);
}

void server_command(struct smtp_server *s, struct slice line, bool is_followed)
{
    static const struct refusal http = {554, "5.5.0", "this is SMTP, not HTTP; goodbye"};
    struct smtp_command command;
    enum smtp_line_fault fault;
    if (smtp_line_is_http(line)) {
        server_close(s, &http);
        return;
    }
    if (smtp_command_parse(line, &command, &fault) != PARSE_DONE) {
        refuse_line(s, fault);
        return;
    }
    const struct verb *verb = verb_find(command.verb);
    bool is_auth = verb && verb->run == server_auth;
    if (verb || !s->is_auth_refused) {
        s->verb = slice_head(command.verb, SMTP_VERB_MAX);
        s->argument = is_auth ? SLICE("") : slice_head(command.argument, COMMAND_KEPT);
    }
    if (!verb) {
        refuse_line(s, SMTP_LINE_OK);
        return;
    }
    s->is_auth_refused = is_auth; /* unless it goes well, see server_auth_answered */
    run_verb(s, verb, command.argument, is_followed);
}
