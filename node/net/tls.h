/* SPDX-License-Identifier: Apache-2.0 */
/* TLS contexts on OpenSSL 3: TLS 1.2 and later, forward secrecy, no compression, no
 * renegotiation (RFC 9325). A server context is one certificate and key; a reload builds
 * a new one and sessions under way keep theirs. A client context verifies or not as each
 * connection asks, and remembers sessions so that the next connection to the same host,
 * address and egress resumes. Contexts are shared by all loops: any thread, reference
 * counted. */
#ifndef NODE_NET_TLS_H
#define NODE_NET_TLS_H

#include "base/clock.h"
#include "base/err.h"
#include "base/netaddr.h"

struct tls_server;
struct tls_client;

/* NULL, and one line in `why` that names the file, when a file cannot be read, is not
 * PEM, or the key does not belong to the certificate. */
struct tls_server *tls_server_new(
    const char *certificate_file, const char *key_file, char *why, size_t why_size);
struct tls_server *tls_server_ref(struct tls_server *t);
/* Accepts NULL. */
void tls_server_unref(struct tls_server *t);
/* When the certificate ends. */
struct wall tls_server_expires(const struct tls_server *t);

/* `ca_file` "": the system's authorities. NULL and `why` as above. */
struct tls_client *tls_client_new(const char *ca_file, char *why, size_t why_size);
struct tls_client *tls_client_ref(struct tls_client *t);
void tls_client_unref(struct tls_client *t);

/* Opportunistic: any certificate will do (what it is worth is told in tls_info). Verify:
 * the handshake fails unless the chain and the name are good. */
enum tls_check { TLS_CHECK_NONE, TLS_CHECK_VERIFY };

/* Whom a client wants to meet. A session is resumed only when all of it is the same. */
struct tls_target {
    const char
        *name; /* host name for SNI and the certificate; "" for an address literal */
    struct netaddr address;
    struct ipaddr egress;
    enum tls_check check;
};

/* What a handshake came to. Text is static or lives as long as the connection. */
struct tls_info {
    bool on;
    bool resumed;
    bool has_certificate; /* of the peer */
    bool verified;        /* chain and name of the peer are good */
    const char *version;  /* "TLSv1.3" */
    const char *cipher;   /* "TLS_AES_256_GCM_SHA384" */
    int bits;
    const char *why_unverified; /* "self-signed certificate"; "" when verified */
};

#endif
