/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the client engine share.
 *   client.c         the engine's own life: bytes in, events out, the pump
 *   client_session.c set-up: what to send on entering a state, what a reply means
 *   client_tx.c      a mail transaction up to the reply to DATA, and its end
 *   client_body.c    the octets of the message, and the last write
 *   client_fate.c    from a reply or a failure to a result
 *   client_caps.c    the reply to EHLO
 *   client_text.c    tables of words: phases, status codes, refusals that blame us */
#ifndef NODE_SMTP_CLIENT_INTERNAL_H
#define NODE_SMTP_CLIENT_INTERNAL_H

#include "node/smtp/client.h"
#include "proto/smtp_reply.h"

/* No more commands are put into the output when so much waits there. */
#define CLIENT_OUT_HIGH 32768
/* One command line at most (local part 64, domain 255, ORCPT and ENVID in xtext, and
 * more). */
#define CLIENT_COMMAND_MAX 16384
/* Input that waits because a callback fed it; without nesting a few hundred bytes. */
#define CLIENT_IN_MAX 1048576
/* Texts of refusals of one transaction, together. */
#define CLIENT_TEXTS_MAX 1048576

/* Where a recipient stands inside the running transaction. */
enum rcpt_step {
    RCPT_TODO,     /* RCPT not answered yet */
    RCPT_ACCEPTED, /* 2xx to RCPT: shares the fate of the message */
    RCPT_DECIDED,  /* its result is final */
};

struct rcpt_slot {
    enum rcpt_step step;
    bool sent;
    char status[12];
    uint32_t text_at; /* in `texts` */
    uint16_t text_len;
};

/* A refusal or failure, kept apart from the input it came in. */
struct verdict {
    enum err err;
    uint16_t code; /* 0: no reply */
    bool blames_us;
    char status[12];
    uint16_t text_len;
    char text[SMTP_RESULT_TEXT_MAX];
};

enum client_event {
    EVENT_START_TLS = 1 << 0,
    EVENT_READY = 1 << 1,
    EVENT_FINAL = 1 << 2,
    EVENT_DONE = 1 << 3,
    EVENT_CLOSED = 1 << 4,
};

/* The one mail transaction; ended by tx_end on every path. */
struct client_tx {
    const struct smtp_client_tx *given; /* NULL: none is running */
    bool utf8;                          /* MAIL says SMTPUTF8 */
    bool bdat;
    bool mail_sent;
    bool mail_ok;
    bool refused; /* by MAIL, DATA or a chunk: only replies are still awaited */
    bool data_sent;
    bool lone_dot;      /* 354 without a recipient: RFC 2920 3.1 */
    bool stray_ok;      /* a recipient was accepted after MAIL was refused */
    bool completed;     /* 2xx to the dot */
    unsigned replies;   /* since its first command */
    unsigned rcpt_sent; /* next to be sent */
    unsigned rcpt_at;   /* next to be answered */
    unsigned accepted;
    unsigned decided;
    /* body */
    struct slice piece; /* pulled, not yet staged */
    uint64_t pulled;
    bool pull_waits; /* SMTP_BODY_LATER */
    bool pulled_all;
    bool closed_stage; /* what ends the message is staged behind it */
    bool final_asked;  /* `final` is the last write; the owner has been asked */
    char last[2];      /* last octets staged */
    struct mono body_until;
};

struct smtp_client {
    const struct smtp_client_config *config;
    const struct smtp_client_handler *handler;
    void *ctx;
    enum smtp_phase phase;
    struct mono now; /* of the call that is running */
    struct mono deadline;
    struct smtp_reply_parser parser;
    struct buf in; /* read, not yet parsed */
    struct buf out;
    size_t out_known;  /* its length when the owner last got hold of it */
    struct buf staged; /* body that is not in the output yet; in the end the last write */
    unsigned unanswered; /* commands without a reply */
    bool command_left;   /* a byte of the oldest of them has been written */
    unsigned events;
    unsigned depth; /* calls from callbacks */
    struct smtp_caps caps;
    bool encrypted;
    bool was_ready;
    bool quit_wanted;
    bool rset_due;
    unsigned auth_step;
    unsigned transactions;
    struct client_tx tx;
    const struct smtp_client_tx *tx_next; /* noted by smtp_client_start */
    struct smtp_outcome outcome;
    struct smtp_rcpt_result *results;
    struct rcpt_slot *slots;
    unsigned slots_cap;
    struct buf texts;
    struct verdict
        refusal; /* the last refusal in set-up, in case the server then hangs up */
    struct verdict end;
    enum smtp_phase end_phase;
    bool retry_in_clear;
};

/* --- client_session.c --- */
/* Goes to a state: deadline, and what is sent on entering it. */
void client_enter(struct smtp_client *c, enum smtp_phase phase);
/* What a whole reply means in the state we are in. */
void client_on_reply(struct smtp_client *c, const struct smtp_reply *r);
/* Goes to a state whose command has already been sent. */
void client_await(struct smtp_client *c, enum smtp_phase phase);
/* Marks a command that was just put into the output: one more reply is awaited. */
void client_command_added(struct smtp_client *c);
/* Sets the deadline of the state we are in, from now on. */
void client_set_deadline(struct smtp_client *c);

/* --- client_tx.c --- */
void client_tx_begin(struct smtp_client *c, const struct smtp_client_tx *given);
/* Handed over to a connection that had ended. */
void client_tx_too_late(struct smtp_client *c, const struct smtp_client_tx *given);
void client_tx_send(struct smtp_client *c);
void client_tx_reply(struct smtp_client *c, const struct smtp_reply *r);
/* Every recipient is decided: `done` is due and the transaction object is empty again. */
void client_tx_finish(struct smtp_client *c);
/* The same, and the connection goes on. */
void client_tx_end(struct smtp_client *c);

/* --- client_body.c --- */
void client_body_begin(struct smtp_client *c);
/* Pulls, stages and flushes as far as it goes; true when anything changed. */
bool client_body_pump(struct smtp_client *c);
void client_body_reply(struct smtp_client *c, const struct smtp_reply *r);
/* A reply to nothing, while the body is leaving. */
void client_body_interrupted(struct smtp_client *c, const struct smtp_reply *r);

/* --- client_fate.c --- */
void verdict_from_reply(
    struct verdict *v, enum err err, enum smtp_phase phase, const struct smtp_reply *r);
/* The class is the reply's. */
void verdict_by_class(
    struct verdict *v, enum smtp_phase phase, const struct smtp_reply *r);
void verdict_from_error(struct verdict *v, enum err err, enum smtp_phase phase);
/* One recipient's, all accepted ones', or all undecided ones' result is final. */
void client_decide(
    struct smtp_client *c, unsigned i, enum smtp_phase phase, const struct verdict *v);
void client_decide_accepted(
    struct smtp_client *c, enum smtp_phase phase, const struct verdict *v);
void client_decide_rest(
    struct smtp_client *c, enum smtp_phase phase, const struct verdict *v);
/* The connection ends: decides what is open, and `done` and `closed` follow. */
void client_fail(struct smtp_client *c, enum err err);
void client_fail_reply(struct smtp_client *c, enum err err, const struct smtp_reply *r);
/* Leaves a QUIT in the output. */
void client_fail_politely(struct smtp_client *c, enum err err);
void client_close(struct smtp_client *c, const struct verdict *v);
void client_close_ok(struct smtp_client *c);

/* --- client_caps.c --- */
void smtp_caps_parse(struct smtp_caps *caps, const struct smtp_reply *r);

/* --- client_text.c --- */
/* What follows the class digit when the reply has no enhanced status: ".1.0" */
const char *smtp_status_for(uint16_t code, enum smtp_phase phase);

#endif
