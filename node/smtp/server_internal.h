/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of the server engine, and by nobody else:
 *   server.c          life, input, deadlines, closing
 *   server_reply.c    replies, requests and their answers
 *   server_verbs.c    the table of verbs and the small ones
 *   server_mail.c     MAIL, RCPT and the one transaction
 *   server_data.c     DATA, BDAT and the octets of a message
 *   server_auth.c     AUTH */
#ifndef NODE_SMTP_SERVER_INTERNAL_H
#define NODE_SMTP_SERVER_INTERNAL_H

#include "node/smtp/server.h"
#include "proto/smtp_command.h"

enum server_state {
    STATE_NEW,     /* no banner yet */
    STATE_COMMAND, /* a command line is next */
    STATE_AUTH,    /* a response to a 334 is next */
    STATE_DATA,    /* octets up to CRLF.CRLF */
    STATE_CHUNK,   /* chunk_left octets of BDAT */
    STATE_TLS,     /* 220 to STARTTLS said: plain text is over, the handshake is next */
    STATE_CLOSING, /* what is in the output, and no more */
};

/* What the client may say next (RFC 5321 4.1.4). */
enum phase {
    PHASE_HELLO = 1, /* no EHLO or HELO yet */
    PHASE_READY = 2,
    PHASE_MAIL = 4,  /* a transaction, no recipient stands */
    PHASE_RCPT = 8,  /* at least one stands */
    PHASE_BDAT = 16, /* a chunk has come */
    PHASE_ANY = 31,
};

enum request_kind {
    REQUEST_STARTTLS,
    REQUEST_AUTH,
    REQUEST_MAIL,
    REQUEST_RCPT,
    REQUEST_DATA,
    REQUEST_BODY_END,
    REQUEST_VRFY,
    REQUEST_XCLIENT,
};

struct smtp_request {
    struct smtp_server *server; /* NULL: cancelled, the answer frees it */
};

/* A reply that the engine gives by itself. */
struct refusal {
    int code;
    const char *status; /* NULL: none */
    const char *text;
};

/* Where the scan of a message stands. A CR is never handed out before its LF. */
enum line_state {
    LINE_START,  /* behind a CRLF, or at the beginning */
    LINE_TEXT,   /* in a line */
    LINE_CR,     /* a CR came, not handed out */
    LINE_DOT,    /* "." at the start of a line came, not handed out */
    LINE_DOT_CR, /* and a CR behind it */
};

/* The mail transaction: exists from MAIL to its end, and ends in server_transaction_end.
 */
struct transaction {
    bool smtputf8;
    bool is_bdat;    /* the first BDAT came */
    bool is_started; /* `data` was answered 354 */
    bool has_8bit;
    bool ends_with_crlf;
    enum line_state line;
    uint32_t recipients;
    uint32_t tries;              /* RCPT commands */
    uint64_t line_bytes;         /* of this line, while lines are limited */
    uint64_t size;               /* handed to the handler */
    const struct refusal *fault; /* the message is refused once it is over */
    struct header_scan header;
};

/* How much of a command the log gets to see. */
#define COMMAND_KEPT 200

struct smtp_server {
    struct smtp_server_config config;
    const struct smtp_server_handler *handler;
    void *ctx;
    enum server_state state;
    struct buf line; /* a command line that has not come whole */
    bool is_line_too_long;
    struct buf out;

    struct slice verb, argument; /* of the command being run, for the log */
    char kept[SMTP_VERB_MAX + COMMAND_KEPT];

    bool is_early_talker;
    bool is_esmtp;
    bool is_tls;
    bool is_authenticated;
    bool is_auth_open; /* auth_start was called, its end is not known */
    /* AUTH was refused: a client may go on and send its password as if it had not been,
     * and a line that is no command is not shown to the log. */
    bool is_auth_refused;
    bool is_shutting_down;
    enum err shutdown_why;
    char helo[SMTP_DOMAIN_MAX + 1];
    size_t helo_len;
    uint32_t errors, idle_commands, messages;
    struct transaction *txn;

    uint64_t chunk_left;
    uint64_t chunk_size;
    bool is_last_chunk;
    const struct refusal *chunk_refusal; /* read the chunk, then say this */

    struct smtp_request *request; /* open */
    struct smtp_request *spare;   /* for the next one */
    enum request_kind request_kind;
    bool in_callback;
    int answered; /* code given inside the callback, 0: none */

    /* Clocks: set in feed, which alone is told the time. */
    bool restart_wait, restart_data;
    struct mono wait_since; /* for the next command */
    struct mono data_since; /* the first octet could come */
    uint64_t data_bytes;    /* of DATA or BDAT */
    bool is_held;
    struct mono held_since;
};

/* --- server.c --- */
void server_set_state(struct smtp_server *s, enum server_state next);
/* Says `why`, ends all that is open, and closes. */
void server_close(struct smtp_server *s, const struct refusal *why);
/* The same when the reply has been said. */
void server_close_silently(struct smtp_server *s);
/* Forgets what the client said: after STARTTLS and XCLIENT. */
void server_forget_client(struct smtp_server *s);
void server_banner(struct smtp_server *s);

/* --- server_reply.c --- */
void server_reply(struct smtp_server *s, int code, const char *status, struct slice text);
void server_refuse(struct smtp_server *s, const struct refusal *why);
/* Opens the one request; call the handler with it, then server_request_settle. */
struct smtp_request *server_request_open(struct smtp_server *s, enum request_kind kind);
void server_request_settle(struct smtp_server *s);
void server_request_cancel(struct smtp_server *s);
/* Too many errors, shutdown asked for: after each command and answer. */
void server_after_command(struct smtp_server *s);

/* --- server_verbs.c --- */
/* Runs a command line, without its line end; `is_followed` when more input came with it.
 */
void server_command(struct smtp_server *s, struct slice line, bool is_followed);
enum phase server_phase(const struct smtp_server *s);
void server_tls_answered(struct smtp_server *s, int code);
void server_xclient_answered(struct smtp_server *s, int code);

/* --- server_mail.c --- */
void server_mail(struct smtp_server *s, struct slice argument);
void server_rcpt(struct smtp_server *s, struct slice argument);
void server_mail_answered(struct smtp_server *s, int code);
void server_rcpt_answered(struct smtp_server *s, int code);
/* The one function that ends a transaction; nothing when there is none. */
void server_transaction_end(struct smtp_server *s, enum smtp_transaction_end how);

/* --- server_data.c --- */
void server_data(struct smtp_server *s, struct slice argument);
void server_bdat(struct smtp_server *s, struct slice argument);
void server_data_answered(struct smtp_server *s, int code);
void server_body_answered(struct smtp_server *s, int code);
/* Octets of DATA or of a chunk; returns how many were used. */
size_t server_data_feed(struct smtp_server *s, struct slice in);
size_t server_chunk_feed(struct smtp_server *s, struct slice in);

/* --- server_auth.c --- */
bool server_auth_is_offered(const struct smtp_server *s);
void server_auth(struct smtp_server *s, struct slice argument);
/* A line in STATE_AUTH. */
void server_auth_line(struct smtp_server *s, struct slice line);
void server_auth_answered(struct smtp_server *s, int code);
/* The exchange under way, if any, is over. */
void server_auth_cancel(struct smtp_server *s);

#endif
