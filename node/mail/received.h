/* SPDX-License-Identifier: Apache-2.0 */
/* The trace field that every message gets when it is accepted (RFC 5321 4.4, RFC 3848 and
 * 6531 for the "with" clause). Pure: values in, text out; any thread. */
#ifndef NODE_MAIL_RECEIVED_H
#define NODE_MAIL_RECEIVED_H

#include "base/buf.h"
#include "base/ids.h"
#include "base/netaddr.h"

struct received {
    struct slice helo;       /* what the client called itself */
    struct slice rdns;       /* what DNS calls it, confirmed; empty: "unknown" */
    struct ipaddr client;    /* family 0: no network, the message was made here */
    struct slice hostname;   /* ours */
    const char *with;        /* "ESMTPSA": smtp_server_with() */
    const char *tls_version; /* "TLSv1.3"; NULL: none */
    const char *tls_cipher;
    struct msg_id id;
    struct slice for_address; /* the recipient when there is exactly one, else empty:
                                 others must not learn of a Bcc */
    struct wall time;
};

/* Longest field that received_append makes. */
#define RECEIVED_MAX 2048

/* Appends the whole folded field with its CRLF. Octets that could end the field or a
 * comment early become '?'. False when it does not fit. */
bool received_append(struct buf *out, const struct received *r);

#endif
