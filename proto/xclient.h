/* SPDX-License-Identifier: Apache-2.0 */
/* XCLIENT: a trusted proxy says who the client really is (Postfix XCLIENT_README). Values
 * are xtext; "[UNAVAILABLE]" and "[TEMPUNAVAIL]" become "known to be absent". */
#ifndef PROTO_XCLIENT_H
#define PROTO_XCLIENT_H

#include "base/netaddr.h"
#include "proto/parse.h"

#define XCLIENT_VALUE_MAX 255
/* What EHLO lists behind XCLIENT. */
#define XCLIENT_ATTRIBUTES "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"

enum xclient_attribute {
    XCLIENT_NAME,
    XCLIENT_ADDR,
    XCLIENT_PORT,
    XCLIENT_PROTO,
    XCLIENT_HELO,
    XCLIENT_LOGIN,
    XCLIENT_DESTADDR,
    XCLIENT_DESTPORT,
    XCLIENT_COUNT
};

/* The slices point into `store`: do not copy the struct. */
struct xclient {
    bool given[XCLIENT_COUNT];
    struct slice text[XCLIENT_COUNT]; /* empty when unavailable */
    struct ipaddr addr, destaddr;     /* family 0: not given or unavailable */
    uint16_t port, destport;          /* 0: the same */
    bool is_esmtp;                    /* PROTO=ESMTP */
    char store[XCLIENT_COUNT * XCLIENT_VALUE_MAX];
};

/* `in` is what follows "XCLIENT ". Never PARSE_MORE. */
enum parse xclient_parse(struct slice in, struct xclient *out);

#endif
