/* SPDX-License-Identifier: Apache-2.0 */
/* A command line of SMTP (RFC 5321 4.1): the verb and what follows it. */
#ifndef PROTO_SMTP_COMMAND_H
#define PROTO_SMTP_COMMAND_H

#include "base/slice.h"
#include "proto/parse.h"

#define SMTP_VERB_MAX 16

struct smtp_command {
    struct slice verb;     /* as given: compare without case */
    struct slice argument; /* without the blanks around it; may be empty */
};

/* What is wrong with a line. */
enum smtp_line_fault {
    SMTP_LINE_OK,
    SMTP_LINE_EMPTY,
    SMTP_LINE_CONTROL, /* NUL, CR, LF or another control character but a tab */
    SMTP_LINE_VERB,    /* does not begin with letters */
    SMTP_LINE_UTF8,    /* octets over 127 that are not UTF-8 */
};

/* Splits a line without its line end. The verb is what stands before the first blank, or,
 * for "RCPT TO:<...>", the word alone. Never PARSE_MORE. */
enum parse smtp_command_parse(
    struct slice line, struct smtp_command *out, enum smtp_line_fault *fault_out);

/* Takes "FROM:" or "TO:" (any case) off the front of the argument and blanks behind it,
 * which RFC 5321 forbids and old clients send. False when it is not there. */
bool smtp_command_keyword(struct slice *argument, struct slice keyword);

/* The first line of an HTTP request or a header field of one: somebody talks to the wrong
 * port, perhaps a browser that was tricked into it. */
bool smtp_line_is_http(struct slice line);
/* The first octet of a TLS record with a handshake. */
#define SMTP_TLS_HANDSHAKE_OCTET 0x16

#endif
