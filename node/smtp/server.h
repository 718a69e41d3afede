/* SPDX-License-Identifier: Apache-2.0 */
/* The SMTP server engine (RFC 5321), sans-I/O: bytes and `now` go in, bytes and requests
 * come out. No socket, clock, thread or log in here; one engine is one session and lives
 * on the one thread that feeds it.
 *
 * Speaks: EHLO HELO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY EXPN HELP STARTTLS AUTH
 * XCLIENT; PIPELINING (RFC 2920), SIZE (1870), 8BITMIME (6152), SMTPUTF8 (6531),
 * ENHANCEDSTATUSCODES (2034), CHUNKING (3030), DSN (3461), STARTTLS (3207), AUTH (4954),
 * LIMITS (9422), XCLIENT.
 *
 * How to drive it:
 *   s = smtp_server_new(...)
 *   smtp_server_start(s, now)                   queues the 220 (after an implicit
 * handshake) used = smtp_server_feed(s, bytes, now)      keep what was not used, feed it
 * again later write smtp_server_output(s), buf_consume what went out, then feed again
 * (also without new bytes): a client that does not read its replies is not read from
 * either smtp_server_tls_pending(s): drop every byte read so far and read no more plain
 * text, write all output, do the handshake, then smtp_server_tls_started(s, now); failed:
 * close smtp_server_closing(s): write all output, then close; what is fed is thrown away
 *   smtp_server_deadline(s): call smtp_server_tick(s, now) then
 *   smtp_server_free(s): at any time outside callbacks (but allowed in `ready`)
 *
 * Requests. A callback that has to be answered gets a `struct smtp_request *`. Answer it
 * exactly once, in the callback or any time later, on the same thread; the answer
 * consumes it. While one is open the engine takes no input and has no deadline. The
 * engine may die or cancel meanwhile: the handle stays good and the late answer does
 * nothing, but still must be given (or smtp_request_drop) since it frees the handle.
 * After an answer given outside a callback the engine calls `ready`: write output, feed
 * what is left.
 *
 * Slices in callbacks are borrowed for the call. The engine keeps the config's pointers
 * (borrowed for its life, or until the next smtp_server_set_config). */
#ifndef NODE_SMTP_SERVER_H
#define NODE_SMTP_SERVER_H

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "proto/esmtp_params.h"
#include "proto/header_scan.h"
#include "proto/smtp_path.h"
#include "proto/xclient.h"

struct smtp_server;
struct smtp_request;

/* Command lines with CRLF: RFC 5321 4.5.3.1.4 has 512 and what the extensions add; AUTH
 * and its responses may be this long (RFC 4954 4). */
#define SMTP_COMMAND_LINE_MAX 2048
#define SMTP_AUTH_LINE_MAX 12288
/* Commands without progress (NOOP, RSET, VRFY, EHLO, ...) between two messages before
 * 421. */
#define SMTP_IDLE_COMMANDS_MAX 100

enum smtp_line_ends {
    SMTP_LINE_ENDS_REJECT,    /* a bare CR or LF: 5xx after the end of data */
    SMTP_LINE_ENDS_NORMALISE, /* a bare CR or LF becomes CRLF, in commands a bare LF ends
                                 a line */
};

enum smtp_tls {
    SMTP_TLS_NONE,     /* STARTTLS not offered */
    SMTP_TLS_OFFERED,  /* offered */
    SMTP_TLS_REQUIRED, /* offered, and 530 to all but NOOP EHLO STARTTLS QUIT before it */
};

struct smtp_server_config {
    const char *hostname; /* banner and EHLO name */
    const char *service;  /* behind "ESMTP" in the banner, e.g. "Baton"; NULL: nothing */
    enum smtp_tls tls;
    bool tls_is_active; /* implicit TLS, done before smtp_server_start */
    /* "PLAIN LOGIN SCRAM-SHA-256", or NULL: no AUTH. Offered and taken under TLS only. */
    const char *auth_mechanisms;
    uint64_t max_message_bytes;   /* 0: no limit; else SIZE */
    uint32_t max_recipients;      /* per transaction; 0: 1000 */
    uint32_t max_errors;          /* refused commands before 421; 0: 20 */
    uint32_t max_hops;            /* Received fields; 0: 100 */
    uint32_t max_header_bytes;    /* header section; 0: 1 MiB */
    uint32_t max_text_line_bytes; /* text lines without CRLF; 0: any length. RFC 5321 has
                                     998, but much real mail is longer and foreign
                                     signatures do not survive folding */
    enum smtp_line_ends line_ends;
    bool no_smtputf8;           /* do not offer SMTPUTF8 */
    bool xclient_allowed;       /* the peer is one of xclient_from */
    bool refuse_early_talker;   /* 554 to a client that talks before the banner */
    int64_t command_timeout_ms; /* 0: 5 minutes */
    int64_t data_timeout_ms;    /* the whole of DATA or BDAT; 0: 10 minutes */
    uint64_t data_rate_bytes;   /* a second, after the first minute; 0: no such limit */
};

/* How a transaction ended; each one that began (with `mail`) ends exactly once. */
enum smtp_transaction_end {
    SMTP_END_ACCEPTED, /* body_end was answered 2xx */
    SMTP_END_REFUSED,  /* MAIL refused, data refused, or body_end answered 4xx or 5xx */
    SMTP_END_RESET,    /* RSET, EHLO or HELO */
    SMTP_END_QUIT,     /* QUIT in the middle */
    SMTP_END_CLOSED, /* we closed: timeout, too many errors, shutdown, protocol breach */
    SMTP_END_LOST,   /* the engine was freed: the connection is gone */
};

/* What is known about a message when its last byte is in. */
struct smtp_body_info {
    uint64_t size; /* octets handed to `body` */
    bool has_8bit; /* an octet over 127 anywhere: never trust the declaration alone */
    bool by_bdat;
    bool ends_with_crlf; /* always so for DATA */
    const struct header_scan *header;
};

struct smtp_server_handler {
    /* Go on outside: there is output, input may be taken again, or the deadline moved.
     * Called only when an answer came outside of all engine calls. May free the engine.
     */
    void (*ready)(void *ctx);

    /* STARTTLS was asked for and is allowed. Answer 220 to go ahead, or 454. NULL: 220.
     */
    void (*starttls)(void *ctx, struct smtp_request *r);

    /* AUTH. `initial` is decoded; has_initial tells "=" (empty) from none. Answer with
     * smtp_answer_challenge, 235 (then the session is authenticated), 535, 454, ... */
    void (*auth_start)(void *ctx, struct smtp_request *r, struct slice mechanism,
        bool has_initial, struct slice initial);
    void (*auth_response)(void *ctx, struct smtp_request *r, struct slice response);
    /* The exchange that was under way is over without an answer of yours: "*", bad
     * base64, timeout, or the session ended. */
    void (*auth_cancel)(void *ctx);

    /* A transaction begins: answer 250, or refuse. path->address is empty for <>. */
    void (*mail)(void *ctx, struct smtp_request *r, const struct smtp_path *path,
        const struct esmtp_mail *params);
    /* A recipient: 250, or refuse it. */
    void (*rcpt)(void *ctx, struct smtp_request *r, const struct smtp_path *path,
        const struct esmtp_rcpt *params);
    /* At least one recipient stands; DATA or the first BDAT came. Answer 354 to take the
     * message (for BDAT too: nothing is sent then), or refuse: the transaction ends.
     * NULL: 354. */
    void (*data)(void *ctx, struct smtp_request *r);
    /* The next octets of the message, in large runs: unstuffed, line ends checked (every
     * line end is CRLF). smtp_server_header() already knows them. More may not come: a
     * transaction can end in the middle. */
    void (*body)(void *ctx, struct slice bytes);
    /* The message is complete and within all limits: make it durable, then answer 250, or
     * refuse. Never called for a message that the engine itself refuses. */
    void (*body_end)(
        void *ctx, struct smtp_request *r, const struct smtp_body_info *info);
    /* The one way in which a transaction ends. An open request was cancelled just before.
     * Called before the reply to the command that ends it is queued for RESET and QUIT,
     * after it for ACCEPTED and REFUSED. */
    void (*transaction_end)(void *ctx, enum smtp_transaction_end how);

    /* VRFY. NULL: 252. */
    void (*vrfy)(void *ctx, struct smtp_request *r, struct slice argument);
    /* XCLIENT, allowed and well-formed. Answer 220: the session starts anew as that
     * client (set a new config in the callback: limits, TLS, XCLIENT allowed ...), or
     * 550. NULL: refused. */
    void (*xclient)(void *ctx, struct smtp_request *r, const struct xclient *attributes);

    /* For the log: a command (or a message, verb "DATA" or "BDAT") was answered with 4xx
     * or 5xx, by the engine or by the handler. `verb` and `argument` are what the client
     * sent, unescaped, the argument cut to 200 octets and empty for AUTH; `reply` is
     * "550 5.7.1 text". NULL allowed. */
    void (*refused)(
        void *ctx, struct slice verb, struct slice argument, struct slice reply);
};

/* Keeps `handler` and `ctx` (borrowed), copies the config struct. Never fails. */
struct smtp_server *smtp_server_new(const struct smtp_server_config *config,
    const struct smtp_server_handler *handler, void *ctx, struct mono now);
/* Cancels what is open (auth_cancel, transaction_end), then frees. Accepts NULL. */
void smtp_server_free(struct smtp_server *s);
/* New limits and offers from the next command on. */
void smtp_server_set_config(
    struct smtp_server *s, const struct smtp_server_config *config);

/* Queues the banner. Bytes fed before are not used; they make the client an early talker.
 */
void smtp_server_start(struct smtp_server *s, struct mono now);
/* Instead of start, or any time between commands: says this and closes ("421 4.3.2 ...").
 */
void smtp_server_refuse(
    struct smtp_server *s, int code, const char *status, struct slice text);
/* Shutdown: 421 as soon as no message is on its way; one that is gets its reply first. */
void smtp_server_shutdown(struct smtp_server *s, enum err why);

/* Returns how many bytes were used: all, unless a request is open, output waits to be
 * written, or the engine is held. Empty slices are fine. */
size_t smtp_server_feed(struct smtp_server *s, struct slice bytes, struct mono now);
/* False while feeding would use nothing: stop reading from the socket. */
bool smtp_server_wants_input(const struct smtp_server *s);
/* What is to be written; consume with buf_consume. */
struct buf *smtp_server_output(struct smtp_server *s);
bool smtp_server_closing(const struct smtp_server *s);
bool smtp_server_tls_pending(const struct smtp_server *s);
/* The handshake is done: the session is as after connect, without a banner (RFC
 * 3207 4.2). */
void smtp_server_tls_started(struct smtp_server *s, struct mono now);

/* MONO_NEVER while waiting for an answer, held, or closing. May be earlier than what tick
 * thinks, never later: look again after each tick. */
struct mono smtp_server_deadline(const struct smtp_server *s);
/* Queues 421 and closes when the deadline is over; else nothing. */
void smtp_server_tick(struct smtp_server *s, struct mono now);
/* Back-pressure: while held, nothing is used and no deadline runs. */
void smtp_server_hold(struct smtp_server *s, bool is_held, struct mono now);

/* The name given with EHLO or HELO; empty before. Good until the next feed. */
struct slice smtp_server_helo(const struct smtp_server *s);
/* For Received (RFC 3848, 6531): "SMTP", "ESMTP", "ESMTPSA", "UTF8SMTPS", ... */
const char *smtp_server_with(const struct smtp_server *s);
bool smtp_server_is_authenticated(const struct smtp_server *s);
/* Recipients that stand in this transaction. */
uint32_t smtp_server_recipients(const struct smtp_server *s);
/* Messages accepted in this session. */
uint32_t smtp_server_messages(const struct smtp_server *s);
/* The scan of the message on its way; NULL outside a transaction. */
const struct header_scan *smtp_server_header(const struct smtp_server *s);
/* DATA or BDAT under way, from the 354 to the answer. */
bool smtp_server_in_message(const struct smtp_server *s);

/* --- answers --- */
/* `status` like "2.1.5", or NULL for "x.0.0" of the code's class (3yz has none); `text`
 * may hold LF for several lines and is cleaned of what could inject. 421 closes the
 * session. */
void smtp_answer(struct smtp_request *r, int code, const char *status, struct slice text);
/* No reply at all: the connection is closed, and the client cannot know. What else it is
 * told would be a promise or a refusal. */
void smtp_answer_close(struct smtp_request *r);
/* With the code, status and text of the error's row. */
void smtp_answer_err(struct smtp_request *r, enum err e);
/* 334 with these bytes in base64; to auth_start and auth_response only. */
void smtp_answer_challenge(struct smtp_request *r, struct slice challenge);
/* No answer will come for a request that has been cancelled. A live one gets 451. */
void smtp_request_drop(struct smtp_request *r);
/* False once the engine has cancelled it: the work for it can stop. */
bool smtp_request_is_live(const struct smtp_request *r);

#endif
