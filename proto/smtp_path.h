/* SPDX-License-Identifier: Apache-2.0 */
/* Reverse-path and forward-path: "<user@example.org>", "<>", "<postmaster>" (RFC
 * 5321 4.1.2, with the UTF-8 of RFC 6531), and the routing domain that mail for them is
 * sorted by. Quoted local parts are kept as given, source routes are checked and dropped
 * (RFC 5321 appendix C), address literals must name an IPv4 or IPv6 address. No control
 * character, CR, LF or NUL ever gets through, quoted or not: what was parsed is safe to
 * send on. More liberal than the RFC on purpose: local parts up to SMTP_LOCAL_MAX octets
 * (64 there, but VERP and SRS addresses are longer), "_" in domains. */
#ifndef PROTO_SMTP_PATH_H
#define PROTO_SMTP_PATH_H

#include "base/slice.h"
#include "proto/parse.h"

#define SMTP_LOCAL_MAX 255
#define SMTP_DOMAIN_MAX 255
/* local part, "@", domain */
#define SMTP_ADDRESS_MAX (SMTP_LOCAL_MAX + 1 + SMTP_DOMAIN_MAX)

/* The slices point into `store`: do not copy the struct, keep it where it was parsed. */
struct smtp_path {
    struct slice address; /* "local@domain", no brackets, domain in lower case; empty for
                             <>; "postmaster" alone for <postmaster> */
    struct slice local;   /* as given, with its quotes */
    struct slice domain;  /* lower case; U-labels stay; a literal as given */
    struct slice routing; /* lower-case A-labels, or the canonical literal "[192.0.2.1]";
                             empty where there is no domain */
    bool is_utf8;         /* needs SMTPUTF8: local part or domain has non-ASCII octets */
    bool is_literal;      /* domain is an address literal */
    char store[SMTP_ADDRESS_MAX + SMTP_DOMAIN_MAX + 4];
};

enum smtp_path_kind { SMTP_REVERSE_PATH, SMTP_FORWARD_PATH };

/* Parses the path at the start of `in`, which begins with "<"; *used_out is the length of
 * the path with its brackets. "<>" is a reverse-path only, "<postmaster>" (any case, no
 * domain) a forward-path only. Never PARSE_MORE: a command line is whole. */
enum parse smtp_path_parse(
    struct slice in, enum smtp_path_kind kind, struct smtp_path *out, size_t *used_out);

/* The same for an address without brackets, all of `in`: "user@example.org". */
enum parse smtp_address_parse(struct slice in, struct smtp_path *out);

/* A domain name (no literal) into lower-case A-labels: "Bücher.example" becomes
 * "xn--bcher-kva.example". `out` takes SMTP_DOMAIN_MAX + 1 bytes and is NUL-terminated.
 * False when it is no domain name (empty or long label, other characters, over 253). */
bool smtp_domain_to_ascii(struct slice domain, char out[SMTP_DOMAIN_MAX + 1]);
/* Back for people: A-labels into U-labels; the input when that cannot be done. */
size_t smtp_domain_to_unicode(struct slice ascii, char *out, size_t out_size);

/* "Domain" or "address-literal" of EHLO and HELO (RFC 5321 4.1.1.1), liberal as to
 * underscores and names without dots, but only characters that are safe in a header and a
 * log. */
bool smtp_helo_is_valid(struct slice helo);

#endif
