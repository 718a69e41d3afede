/* SPDX-License-Identifier: Apache-2.0 */
/* The SMTP client engine (RFC 5321, 1870, 2920, 3030, 3207, 3461, 4954, 6152, 6531,
 * 9422), sans-I/O: bytes, events and the time go in; bytes and requests come out. It owns
 * no socket, clock, thread or log; one thread uses it at a time.
 *
 * Life of a connection, as its owner sees it:
 *   c = smtp_client_new(...)            the TCP connection stands
 *   smtp_client_feed(c, bytes, now)     whenever something was read
 *   out = smtp_client_output(c)         whenever the socket takes bytes: write from the
 * front, buf_consume(out, n)                 consume what went, smtp_client_written(c,
 * now)         and say so (more body is pulled in then) smtp_client_tick(c, now) at
 * smtp_client_deadline(c) smtp_client_eof(c, now)             the connection is gone:
 * end, reset, write error The engine calls back: start_tls    shake hands now, then
 * smtp_client_tls_started ready        hand over a message: smtp_client_start; or
 * smtp_client_quit; or wait body         the next run of the message's octets final_ready
 * everything else has left: read the gate, then write the last octets yourself done the
 * fate of each recipient; ready or closed follows closed       it is over: write what is
 * still in the output if that goes without waiting (a polite QUIT), close the socket,
 * free the engine
 *
 * Callbacks run inside the engine's functions, one at a time and never nested: a function
 * called from a callback notes what it was told, and the outermost one goes on with it.
 * Any function may be called from any callback, but smtp_client_free only from `closed`
 * (its very last call) or from outside of all of them.
 *
 * The last write. The octets that make the next hop take the message (the end of the body
 * and CRLF.CRLF, or the last BDAT command with its chunk) are never in the ordinary
 * output. When that is empty, final_ready is called once a transaction; the owner reads
 * the gate and writes smtp_client_final() by a direct send or SSL_write, tells
 * smtp_client_final_written how many went, and after a partial write reads the gate again
 * before each further try. A message of up to SMTP_FINAL_BYTES leaves as a whole in that
 * one write. smtp_client_final_refused closes without the dot: nothing is delivered.
 *
 * DATA or BDAT: DATA, because then every attempt from every node sends the same octets,
 * unless the hop offers CHUNKING and either the body does not end in CRLF (DATA would add
 * one) or the configuration prefers BDAT. */
#ifndef NODE_SMTP_CLIENT_H
#define NODE_SMTP_CLIENT_H

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/settings.h"

struct smtp_client;

/* Largest part of a body that waits for the last write, before dots are doubled. */
#define SMTP_FINAL_BYTES 65536
/* What is kept of a reply's text; more is cut. */
#define SMTP_RESULT_TEXT_MAX 500

/* What the engine is waiting for, and where something failed. */
enum smtp_phase {
    SMTP_PHASE_GREETING, /* the server's 220 */
    SMTP_PHASE_EHLO,     /* reply to EHLO */
    SMTP_PHASE_HELO,     /* reply to HELO, after EHLO was refused */
    SMTP_PHASE_STARTTLS, /* reply to STARTTLS */
    SMTP_PHASE_TLS,      /* the handshake */
    SMTP_PHASE_AUTH,     /* replies to AUTH */
    SMTP_PHASE_IDLE,     /* between transactions */
    SMTP_PHASE_RSET,     /* reply to RSET */
    SMTP_PHASE_MAIL,     /* reply to MAIL */
    SMTP_PHASE_RCPT,     /* replies to RCPT */
    SMTP_PHASE_DATA,     /* reply to DATA */
    SMTP_PHASE_BODY,     /* octets of the body are leaving; the last one has not left */
    SMTP_PHASE_DOT,      /* the last octet may have left; its reply decides */
    SMTP_PHASE_QUIT,     /* reply to QUIT */
    SMTP_PHASE_CLOSED,   /* over */
    SMTP_PHASE_COUNT
};
/* "mail", for `phase=` in logs. */
const char *smtp_phase_name(enum smtp_phase phase);
/* "in reply to MAIL", "while waiting for the greeting": ends a sentence for people. */
const char *smtp_phase_phrase(enum smtp_phase phase);

/* 8-bit bodies to a hop without 8BITMIME. Converting is the owner's: it sees in
 * smtp_client_caps that 8BITMIME is missing and hands over another body with eight_bit
 * unset. */
enum smtp_eight_bit {
    SMTP_EIGHT_BIT_BOUNCE, /* ERR_NEEDS_8BITMIME */
    SMTP_EIGHT_BIT_SEND,   /* as it is, without BODY= */
};
enum smtp_chunking {
    SMTP_CHUNKING_AS_NEEDED, /* only for a body without a final CRLF */
    SMTP_CHUNKING_PREFER,    /* wherever it is offered */
    SMTP_CHUNKING_NEVER,
};

/* Milliseconds; 0 takes the default, which is RFC 5321 4.5.3.2 where that has one. */
struct smtp_client_timeouts {
    int64_t greeting_ms; /* 5 min */
    int64_t helo_ms;     /* 5 min: EHLO, HELO, STARTTLS, AUTH */
    int64_t tls_ms;      /* 2 min: the handshake */
    int64_t mail_ms;     /* 5 min: MAIL, RSET */
    int64_t rcpt_ms;     /* 5 min: each RCPT */
    int64_t data_ms;     /* 2 min: DATA */
    int64_t block_ms;    /* 3 min: without a byte of body leaving */
    int64_t body_ms;     /* 1 h: the whole body */
    int64_t dot_ms;      /* 10 min: reply to the final dot */
    int64_t quit_ms;     /* 10 s */
};

/* Shared by many connections; must outlive the engine, which borrows it. */
struct smtp_client_config {
    struct slice ehlo_name;
    enum delivery_tls
        tls;           /* NONE: never; MAY: if offered; ENCRYPT, VERIFY: or not at all */
    bool tls_implicit; /* the handshake comes before the greeting (port 465) */
    struct slice user; /* credentials; empty: no AUTH. Only ever sent inside TLS. */
    struct slice password;
    enum smtp_eight_bit eight_bit;
    enum smtp_chunking chunking;
    struct smtp_client_timeouts timeouts;
};

/* What EHLO offered. */
enum smtp_cap {
    SMTP_CAP_PIPELINING = 1 << 0,
    SMTP_CAP_SIZE = 1 << 1,
    SMTP_CAP_8BITMIME = 1 << 2,
    SMTP_CAP_SMTPUTF8 = 1 << 3,
    SMTP_CAP_ENHANCED = 1 << 4,
    SMTP_CAP_CHUNKING = 1 << 5,
    SMTP_CAP_DSN = 1 << 6,
    SMTP_CAP_STARTTLS = 1 << 7,
    SMTP_CAP_AUTH_PLAIN = 1 << 8,
    SMTP_CAP_AUTH_LOGIN = 1 << 9,
    SMTP_CAP_EHLO = 1 << 10, /* it speaks ESMTP at all */
};
struct smtp_caps {
    uint32_t flags;
    uint64_t size_max; /* SIZE; 0: no limit told */
    uint32_t rcpt_max; /* LIMITS RCPTMAX; 0: none told */
    uint32_t mail_max; /* LIMITS MAILMAX; 0: none told */
};

struct smtp_client_rcpt {
    struct slice address; /* local@domain, no angle brackets */
    struct slice orcpt;   /* "rfc822;user@example.org", decoded; empty: none given */
    uint8_t notify;       /* NOTIFY_ bits of queue/message.h; 0: none given */
};
/* RET; the numbers of enum dsn_ret of queue/message.h. */
enum smtp_ret { SMTP_RET_UNSET, SMTP_RET_FULL, SMTP_RET_HDRS };

/* One mail transaction. Borrowed, with all it points to, until `done`. */
struct smtp_client_tx {
    struct slice reverse_path; /* empty: <> */
    struct slice envid;        /* decoded; empty: none given */
    enum smtp_ret ret;
    const struct smtp_client_rcpt *rcpts;
    unsigned rcpt_count; /* at least 1 */
    uint64_t size;       /* octets of the body; 0: not known */
    bool eight_bit;      /* the body has octets above 127 */
    bool smtputf8;       /* the message needs SMTPUTF8 */
    bool lacks_final_crlf;
};

/* The fate of one recipient. Slices live until `done` returns. */
struct smtp_rcpt_result {
    enum err err;          /* OK: the next hop took it. Its class says retry or bounce. */
    enum smtp_phase phase; /* where it was decided */
    uint16_t code;         /* of the reply that decided; 0: none did */
    bool possible_duplicate; /* D7: the last octet may have left, and no reply came */
    bool too_many;  /* the hop takes no more recipients in one transaction, and took some:
                       start  another one for these at once (RFC 5321 4.5.3.1.10) */
    bool blames_us; /* the reply speaks of our address, not of this mail */
    struct slice status; /* "5.1.1": the reply's own when its class fits, else what
                            follows from the code and the phase; never empty */
    struct slice
        text; /* "550 5.1.1 no such user": lines joined by spaces, control characters
                 as '?', at most SMTP_RESULT_TEXT_MAX; without a reply our words */
};

struct smtp_outcome {
    const struct smtp_rcpt_result
        *results; /* one a recipient, in the transaction's order */
    unsigned count;
    unsigned delivered;
    bool possible_duplicate; /* of any recipient */
    bool dsn_passed_on;      /* the hop does DSN, so success notices are its to make */
    bool connection_failed; /* says nothing about the recipients: the connection was lost,
                               closed by 421, our address was blamed, or we ended it
                               (gate, abort, no body). Those without a fate of their own
                               may be tried at the next MX, then deferred. */
    bool stale; /* connection_failed, and all that was learned is that a reused connection
                   is gone (lost, or 421 at once): a fresh one may be tried right away */
};

/* How a connection ended. Slices live until `closed` returns. */
struct smtp_client_end {
    enum err err; /* OK: by smtp_client_quit */
    enum smtp_phase phase;
    uint16_t code;       /* of the reply that ended it; 0: none did */
    struct slice status; /* as in a result; empty when err is OK */
    struct slice text;
    bool retry_in_clear; /* opportunistic TLS failed: a new connection with
                            DELIVERY_TLS_NONE is allowed. Nothing of any message had been
                            sent on this one. */
    bool blames_us;
    bool was_ready; /* it got past the set-up: a failure of set-up has it unset, and is of
                       the connection as a whole (next MX, another address, then defer) */
};

enum smtp_body_state {
    SMTP_BODY_MORE,  /* *out has at least one octet, valid until the next pull or done */
    SMTP_BODY_LATER, /* not here yet: smtp_client_body_ready says when */
    SMTP_BODY_END,   /* that was all */
    SMTP_BODY_FAILED /* cannot be read: the transaction ends without a dot, deferred as
                        ERR_IO */
};

struct smtp_client_handler {
    void (*start_tls)(void *ctx);
    void (*ready)(void *ctx);
    enum smtp_body_state (*body)(void *ctx, struct slice *out);
    void (*final_ready)(void *ctx);
    void (*done)(void *ctx, const struct smtp_outcome *outcome);
    void (*closed)(void *ctx, const struct smtp_client_end *end);
};

/* The connection stands. `config` and `handler` are borrowed for the engine's life. With
 * tls_implicit the owner starts the handshake at once (start_tls is not called for it)
 * and answers with smtp_client_tls_started. No callback runs from here. */
struct smtp_client *smtp_client_new(const struct smtp_client_config *config,
    const struct smtp_client_handler *handler, void *ctx, struct mono now);
/* No callback. Accepts NULL. */
void smtp_client_free(struct smtp_client *c);

/* Octets from the server, in any portions. Inside TLS: the decrypted ones. */
void smtp_client_feed(struct smtp_client *c, struct slice bytes, struct mono now);
/* What is to be written; the owner consumes from the front. The pointer stays the same
 * for the engine's life, what it holds may change in any call. At most about 128 KiB. */
struct buf *smtp_client_output(struct smtp_client *c);
/* The owner has consumed some or all of the output. */
void smtp_client_written(struct smtp_client *c, struct mono now);
/* When smtp_client_tick must be called; MONO_NEVER while idle. It only moves inside
 * calls, so ask after each. */
struct mono smtp_client_deadline(const struct smtp_client *c);
/* Nothing happens before the deadline. */
void smtp_client_tick(struct smtp_client *c, struct mono now);
/* The connection is gone. What was read before must have been fed. */
void smtp_client_eof(struct smtp_client *c, struct mono now);
/* End of the handshake. What the server had sent in clear behind its 220 is discarded: it
 * could be anybody's. ok unset (for VERIFY also: the certificate is wrong): the
 * connection ends, with retry_in_clear when the policy is MAY. */
void smtp_client_tls_started(struct smtp_client *c, bool ok, struct mono now);

/* Starts a transaction; only when ready (phase IDLE). `done` comes exactly once, unless
 * the engine is freed before: possibly at once (inside this call, when it is not called
 * from a callback) when the hop cannot take the message at all. */
void smtp_client_start(
    struct smtp_client *c, const struct smtp_client_tx *tx, struct mono now);
/* Body octets are here now, after SMTP_BODY_LATER. */
void smtp_client_body_ready(struct smtp_client *c, struct mono now);

/* The rest of the last write; empty unless final_ready has been called and it is not yet
 * all written. */
struct slice smtp_client_final(const struct smtp_client *c);
/* `n` octets of it went to the socket; 0 is allowed. */
void smtp_client_final_written(struct smtp_client *c, size_t n, struct mono now);
/* The gate is closed: end the connection without the dot. Recipients get ERR_GATE_CLOSED.
 */
void smtp_client_final_refused(struct smtp_client *c, struct mono now);

/* Ends politely: after the running transaction if there is one, then QUIT, then closed.
 */
void smtp_client_quit(struct smtp_client *c, struct mono now);
/* Ends at once, for a reason of the owner's (shutdown, expiry): a running transaction is
 * done with `why`, in doubt if its last octet may have left; then closed. */
void smtp_client_abort(struct smtp_client *c, enum err why, struct mono now);

enum smtp_phase smtp_client_phase(const struct smtp_client *c);
/* Valid once ready; of the EHLO inside TLS when there was one. */
const struct smtp_caps *smtp_client_caps(const struct smtp_client *c);
bool smtp_client_encrypted(const struct smtp_client *c);
/* Transactions that were started on this connection. */
unsigned smtp_client_transactions(const struct smtp_client *c);

/* Does the text of a refusal speak of our address ("blocked using zen.spamhaus.org",
 * "your IP has poor reputation") rather than of this mail or recipient? Such a refusal at
 * MAIL is of the connection, not of the recipients. */
bool smtp_reply_blames_address(struct slice text);

#endif
