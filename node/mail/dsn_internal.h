/* SPDX-License-Identifier: Apache-2.0 */
/* dsn.c decides whether and to whom; dsn_text.c writes the part for people; dsn_report.c
 * writes the header, the part for programs and the returned message. */
#ifndef NODE_MAIL_DSN_INTERNAL_H
#define NODE_MAIL_DSN_INTERNAL_H

#include "base/buf.h"
#include "node/mail/dsn.h"

#define DSN_FULL_MAX (1024 * 1024)
/* One part at most: ten thousand recipients with a reply each. */
#define DSN_PART_MAX (16 * 1024 * 1024)
#define DSN_HEADER_MAX (256 * 1024)
/* More recipients than this are counted, not named, in the part for people. */
#define DSN_NAMED_MAX 50

/* What is being written. */
struct dsn_draft {
    const struct dsn_request *request;
    const struct rcpt_record **rcpts; /* those it is about */
    unsigned rcpt_count;
    struct slice to;
    struct msg_id id;
    bool utf8; /* `to` needs SMTPUTF8, so UTF-8 may be used everywhere */
    bool double_bounce;
    bool full;           /* the whole original is returned */
    struct slice header; /* of the original */
    bool is_8bit;        /* what was written has octets above 127 */
};

/* The plain words for an enhanced status code: "the address does not exist there". */
const char *dsn_reason(struct slice status);
/* The status to report: its class is that of what is reported. `out` of 16 bytes. */
void dsn_status(enum dsn_kind kind, struct slice status, char out[16]);
bool dsn_is_reply(struct slice last_reply);

void dsn_write_text(struct buf *out, const struct dsn_draft *d);
/* The whole message. */
struct body *dsn_write(struct dsn_draft *d);
void dsn_write_status(struct buf *out, const struct dsn_draft *d);

#endif
