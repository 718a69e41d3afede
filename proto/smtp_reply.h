/* SPDX-License-Identifier: Apache-2.0 */
/* SMTP replies (RFC 5321 4.2, enhanced status codes RFC 3463 and 2034): written by the
 * server engine, read by the client engine. Reading is incremental and bounded: a hostile
 * server can make a reply neither endless nor large. */
#ifndef PROTO_SMTP_REPLY_H
#define PROTO_SMTP_REPLY_H

#include "base/buf.h"
#include "proto/parse.h"

/* What is kept of a reply's text; the rest is read and forgotten (`is_cut`). */
#define SMTP_REPLY_TEXT_MAX 16384
/* What is kept of one line. */
#define SMTP_REPLY_LINE_MAX 2048
/* A reply longer than this, or of more lines, is bad. */
#define SMTP_REPLY_BYTES_MAX 131072
#define SMTP_REPLY_LINES_MAX 1000
/* "5.123.123" and NUL */
#define SMTP_STATUS_MAX 12

struct smtp_reply {
    int code;          /* 200..599 */
    struct slice text; /* all lines without code and line end, joined by LF; NUL and other
                          control characters as they came: escape before you show them */
    char status[SMTP_STATUS_MAX]; /* "5.1.1" when the first line has one of the code's
                                     class, else "" */
    unsigned line_count;
    bool is_cut;
};

struct smtp_reply_parser {
    struct smtp_reply reply; /* complete after PARSE_DONE, until the next feed */
    struct buf text;
    size_t bytes;    /* of this reply so far */
    size_t line_len; /* of this line's text so far */
    uint8_t state;
    uint8_t digits;
    int code;
    bool is_last_line;
    bool is_finished;
    bool is_bad;
};

void smtp_reply_parser_init(struct smtp_reply_parser *p);
void smtp_reply_parser_fini(struct smtp_reply_parser *p);
/* Takes the next bytes of the connection. PARSE_DONE: p->reply holds one reply, *used_out
 * bytes of `in` belong to it, the rest is the next reply's (feed again; that starts
 * anew). PARSE_MORE: all was taken. PARSE_BAD, for good: not an SMTP reply, codes that
 * differ between lines, or too long. CRLF and bare LF end lines. */
enum parse smtp_reply_feed(
    struct smtp_reply_parser *p, struct slice in, size_t *used_out);

/* Iterates over the lines of a reply's text: false at the end. Start with *rest = text.
 */
bool smtp_reply_next_line(struct slice *rest, struct slice *line_out);

/* "5.1.1 no such user": splits the enhanced status code (its class must be code / 100)
 * from the text; true when there was one. The outs may be NULL. */
bool smtp_status_split(struct slice text, int code, char status_out[SMTP_STATUS_MAX],
    struct slice *rest_out);

/* Appends a reply: one line, or several where `text` has LF. Lines over 500 octets are
 * cut, control characters and non-ASCII octets become "?", so that nothing a peer said
 * can inject a line. `status` may be NULL. False when it does not fit. */
bool smtp_reply_append(struct buf *out, int code, const char *status, struct slice text);

#endif
