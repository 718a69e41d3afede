/* SPDX-License-Identifier: Apache-2.0 */
/* The parameters behind MAIL and RCPT (RFC 5321 4.1.2 "Mail-parameters"): SIZE (RFC
 * 1870), BODY (6152), SMTPUTF8 (6531), RET ENVID NOTIFY ORCPT (3461, 6533), AUTH (4954),
 * and the xtext they are written in. Decoded values are checked too: nothing that decodes
 * to a control character gets through, since it ends up in the header of a DSN. The
 * NOTIFY bits, RET and BODY values are those of queue/message.h, on purpose. */
#ifndef PROTO_ESMTP_PARAMS_H
#define PROTO_ESMTP_PARAMS_H

#include "base/buf.h"
#include "proto/parse.h"

/* RFC 3461 4.4, 4.2: octets after decoding. */
#define ESMTP_ENVID_MAX 100
#define ESMTP_ORCPT_MAX 500
#define ESMTP_AUTH_MAX 500

enum {
    ESMTP_NOTIFY_NEVER = 1,
    ESMTP_NOTIFY_SUCCESS = 2,
    ESMTP_NOTIFY_FAILURE = 4,
    ESMTP_NOTIFY_DELAY = 8
};
enum esmtp_ret { ESMTP_RET_UNSET, ESMTP_RET_FULL, ESMTP_RET_HDRS };
enum esmtp_body { ESMTP_BODY_7BIT, ESMTP_BODY_8BITMIME };

/* Why parameters were refused; each is a reply of its own. */
enum esmtp_fault {
    ESMTP_FAULT_NONE,
    ESMTP_FAULT_SYNTAX,      /* 501 5.5.4 */
    ESMTP_FAULT_REPEATED,    /* 501 5.5.4 */
    ESMTP_FAULT_UNKNOWN,     /* 555 5.5.4: not a parameter that we have */
    ESMTP_FAULT_UNSUPPORTED, /* 555 5.6.1: a value that we do not have (BODY=BINARYMIME)
                              */
};

/* The slices point into `store`: do not copy the struct. */
struct esmtp_mail {
    uint64_t size; /* bytes declared; 0: none */
    enum esmtp_body body;
    bool has_body;
    bool smtputf8;
    enum esmtp_ret ret;
    struct slice envid; /* decoded; printable ASCII; empty: none */
    bool has_auth;
    struct slice auth; /* decoded mailbox; empty with has_auth: AUTH=<> */
    char store[ESMTP_ENVID_MAX + ESMTP_AUTH_MAX];
};

struct esmtp_rcpt {
    uint8_t notify;     /* ESMTP_NOTIFY_ bits; 0: none given */
    struct slice orcpt; /* "rfc822;user@example.org", decoded; empty: none */
    char store[ESMTP_ORCPT_MAX];
};

/* `in` is what follows the path on the command line, blanks included. PARSE_BAD:
 * *fault_out says why and *culprit_out (may be NULL) which parameter. */
enum parse esmtp_mail_parse(struct slice in, struct esmtp_mail *out,
    enum esmtp_fault *fault_out, struct slice *culprit_out);
enum parse esmtp_rcpt_parse(struct slice in, struct esmtp_rcpt *out,
    enum esmtp_fault *fault_out, struct slice *culprit_out);

/* xtext (RFC 3461 4): writes at most `max` octets to `out`; false on bad xtext or when it
 * does not fit. Any octet may come out: the caller checks. */
bool xtext_decode(struct slice in, char *out, size_t max, size_t *len_out);
/* Appends `in` as xtext; false when it does not fit. */
bool xtext_append(struct buf *out, struct slice in);

/* Appends ORCPT's value for the wire: the address type as it is, the address as xtext,
 * or, for type "utf-8" and a peer without SMTPUTF8, as utf-8-addr-xtext (RFC 6533 3). */
bool esmtp_orcpt_append(struct buf *out, struct slice orcpt, bool peer_has_smtputf8);
/* Appends "SUCCESS,FAILURE" or "NEVER"; nothing for 0. */
bool esmtp_notify_append(struct buf *out, uint8_t notify);

#endif
