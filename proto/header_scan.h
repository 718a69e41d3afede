/* SPDX-License-Identifier: Apache-2.0 */
/* A streaming look at the header section of a message (RFC 5322 2.2): which fields there
 * are, where, how many Received. It copies nothing and changes nothing; offsets count
 * from the first byte of the message. Fed in pieces of any size, as the bytes come. Line
 * ends are CRLF; a bare LF is taken for one too, so that nobody hides a field behind it.
 */
#ifndef PROTO_HEADER_SCAN_H
#define PROTO_HEADER_SCAN_H

#include "base/slice.h"
#include "proto/parse.h"

/* Fields with a kind are remembered by place, up to this many; `overflow` says that there
 * were more. Received fields are only counted. */
#define HEADER_FIELDS_MAX 64

enum header_kind {
    HEADER_OTHER,
    HEADER_AUTO_SUBMITTED,
    HEADER_BCC,
    HEADER_CC,
    HEADER_CONTENT_TRANSFER_ENCODING,
    HEADER_CONTENT_TYPE,
    HEADER_DATE,
    HEADER_DELIVERED_TO,
    HEADER_FROM,
    HEADER_MESSAGE_ID,
    HEADER_MIME_VERSION,
    HEADER_RECEIVED,
    HEADER_REPLY_TO,
    HEADER_RESENT_BCC,
    HEADER_RESENT_CC,
    HEADER_RESENT_DATE,
    HEADER_RESENT_FROM,
    HEADER_RESENT_MESSAGE_ID,
    HEADER_RESENT_SENDER,
    HEADER_RESENT_TO,
    HEADER_RETURN_PATH,
    HEADER_SENDER,
    HEADER_SUBJECT,
    HEADER_TO,
    HEADER_KIND_COUNT
};

struct header_field {
    enum header_kind kind;
    uint32_t start; /* of the name */
    uint32_t value; /* behind the colon */
    uint32_t end;   /* behind the line end of the last folded line */
};

struct header_scan {
    /* results, good at any time for what was fed so far */
    bool done;          /* the header section has ended */
    bool no_header_end; /* it ended with a line that is no field, or with the message, not
                           with an empty line */
    bool has_8bit;      /* an octet over 127 in the header section */
    bool overflow;      /* more than HEADER_FIELDS_MAX fields with a kind */
    uint32_t header_bytes; /* bytes of all fields so far; the empty line is not counted */
    uint32_t body_start;   /* offset behind the empty line; == header_bytes without one */
    uint16_t count[HEADER_KIND_COUNT]; /* stops at 65535 */
    uint16_t field_count;
    struct header_field fields[HEADER_FIELDS_MAX];
    /* state */
    uint8_t state;
    bool field_is_listed; /* the field being read is fields[field_count - 1] */
    uint32_t offset;      /* bytes seen */
    uint32_t line_start;
    uint8_t name_len;
    char name[32];
};

void header_scan_init(struct header_scan *h);
/* Looks at the next bytes. PARSE_MORE until the header section ends, then PARSE_DONE,
 * also for everything after. A header section over 2 GiB cannot be counted: the caller
 * has a limit. */
enum parse header_scan_feed(struct header_scan *h, struct slice bytes);
/* The message is over: closes a field that had no body behind it. */
void header_scan_end(struct header_scan *h);
/* The first field of a kind, or NULL. */
const struct header_field *header_scan_find(
    const struct header_scan *h, enum header_kind kind);
/* The kind of a field name, without colon and blanks. */
enum header_kind header_kind_of(struct slice name);

#endif
