/* SPDX-License-Identifier: Apache-2.0 */
/* Header fix-ups for mail that is submitted (RFC 6409 8), and for no other: relayed mail
 * keeps every byte, so that foreign signatures survive. removed   Return-Path, Bcc,
 * Resent-Bcc: whole folded fields, wherever they stand added     Date and Message-ID when
 * they are missing, at the end of the header section; the empty line as well when a
 * message has none From and everything else is left alone. Streaming: octets in, octets
 * out into a body; of the message only the name of the field that is being read is kept
 * (1 KiB). One thread. */
#ifndef NODE_MAIL_SUBMISSION_H
#define NODE_MAIL_SUBMISSION_H

#include "base/ids.h"
#include "queue/body.h"

/* Longest field name that is waited for; RFC 5322 has lines of at most 998. */
#define SUBMISSION_NAME_MAX 998

struct submission {
    struct body *out; /* borrowed */
    struct slice hostname;
    struct msg_id id;
    struct wall now;
    uint8_t state;
    bool drop; /* the field being read is left out */
    bool any_field;
    bool has_date;
    bool has_message_id;
    uint16_t name_len;
    char name[SUBMISSION_NAME_MAX + 2];
};

/* `hostname` is the right-hand side of an added Message-ID; borrowed until the end. */
void submission_init(struct submission *s, struct body *out, struct slice hostname,
    struct msg_id id, struct wall now);
/* The next octets of the message, in any portions. */
void submission_feed(struct submission *s, struct slice bytes);
/* The message is over. */
void submission_end(struct submission *s);

#endif
