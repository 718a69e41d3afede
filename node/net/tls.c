/* SPDX-License-Identifier: Apache-2.0 */
#include "node/net/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "node/net/conn_internal.h"
#include "node/net/tls_internal.h"

/* AEAD first; CBC with forward secrecy stays, because what some old servers have besides
 * it is cleartext. TLS 1.3 suites are OpenSSL's own list. */
#define CIPHERS                                                                          \
    "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:ECDHE+AES:DHE+AES:"             \
    "!aNULL:!eNULL:!MD5:!3DES:!PSK:!SRP"
#define SESSIONS_MAX 2048

struct tls_server {
    atomic_uint refs;
    SSL_CTX *ctx;
    struct wall expires;
};

struct tls_client {
    atomic_uint refs;
    SSL_CTX *ctx;
    struct tls_cache *cache;
};

/* Where a client's SSL keeps its struct tls_key. Made once. */
static int key_index = -1;

void tls_error_text(const char *what, char *out, size_t out_size)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    snprintf(out, out_size, "%s: %s", what, reason ? reason : "failed");
    ERR_clear_error();
}

/* A key with a pass phrase must not make the daemon ask the terminal. */
static int no_pass_phrase(char *buffer, int size, int writing, void *ctx)
{
    (void)buffer;
    (void)size;
    (void)writing;
    (void)ctx;
    return -1;
}

static SSL_CTX *new_ctx(const SSL_METHOD *side)
{
    SSL_CTX *ctx = SSL_CTX_new(side);
    if (!ctx || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_cipher_list(ctx, CIPHERS) != 1)
        die("baton: OpenSSL cannot make a TLS context");
    SSL_CTX_set_options(ctx,
        SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF |
            SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    /* Buffers only while bytes are in flight: an idle connection costs some 10 KiB less.
     */
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* One system call a record, not one for its header and one for the rest. */
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_default_passwd_cb(ctx, no_pass_phrase);
    return ctx;
}

static bool readable(const char *file, const char *what, char *why, size_t why_size)
{
    FILE *f = fopen(file, "re");
    if (f) {
        fclose(f);
        return true;
    }
    char text[100];
    snprintf(why, why_size, "cannot read %s %s: %s", what, file,
        strerror_r(errno, text, sizeof(text)));
    return false;
}

static bool load_pair(SSL_CTX *ctx, const char *certificate_file, const char *key_file,
    char *why, size_t why_size)
{
    char text[CONN_WHY_BYTES];
    if (!readable(certificate_file, "certificate", why, why_size) ||
        !readable(key_file, "key", why, why_size))
        return false;
    if (SSL_CTX_use_certificate_chain_file(ctx, certificate_file) != 1) {
        tls_error_text("not a PEM certificate that can be used", text, sizeof(text));
        snprintf(why, why_size, "%s: %s", certificate_file, text);
        return false;
    }
    if (SSL_CTX_use_PrivateKey_file(ctx, key_file, SSL_FILETYPE_PEM) != 1) {
        unsigned long code = ERR_peek_last_error();
        bool foreign = ERR_GET_REASON(code) == X509_R_KEY_VALUES_MISMATCH ||
                       ERR_GET_REASON(code) == X509_R_KEY_TYPE_MISMATCH;
        tls_error_text("not a PEM private key without pass phrase", text, sizeof(text));
        if (foreign)
            snprintf(why, why_size, "key %s does not belong to certificate %s", key_file,
                certificate_file);
        else
            snprintf(why, why_size, "%s: %s", key_file, text);
        return false;
    }
    if (SSL_CTX_check_private_key(ctx) == 1)
        return true;
    ERR_clear_error();
    snprintf(why, why_size, "key %s does not belong to certificate %s", key_file,
        certificate_file);
    return false;
}

static struct wall end_of(const SSL_CTX *ctx)
{
    struct wall end = {0};
    struct tm tm;
    X509 *certificate = SSL_CTX_get0_certificate(ctx);
    if (certificate && ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &tm) == 1)
        end.ms = (int64_t)timegm(&tm) * 1000;
    return end;
}

struct tls_server *tls_server_new(
    const char *certificate_file, const char *key_file, char *why, size_t why_size)
{
    static const unsigned char context[] = "baton smtp";
    SSL_CTX *ctx = new_ctx(TLS_server_method());
    if (!load_pair(ctx, certificate_file, key_file, why, why_size)) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    SSL_CTX_set_dh_auto(ctx, 1);
    /* Tickets only: the session's memory is the client's, and all loops can open them. */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_session_id_context(ctx, context, sizeof(context) - 1);
    SSL_CTX_set_num_tickets(ctx, 1);
    struct tls_server *t = mem_zalloc(sizeof(*t));
    atomic_init(&t->refs, 1);
    t->ctx = ctx;
    t->expires = end_of(ctx);
    return t;
}

struct tls_server *tls_server_ref(struct tls_server *t)
{
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void tls_server_unref(struct tls_server *t)
{
    if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
        return;
    SSL_CTX_free(t->ctx);
    free(t);
}

struct wall tls_server_expires(const struct tls_server *t)
{
    return t->expires;
}

static SSL *new_ssl(SSL_CTX *ctx)
{
    SSL *ssl = SSL_new(ctx);
    if (!ssl)
        die("baton: OpenSSL: out of memory");
    return ssl;
}

SSL *tls_server_ssl(struct tls_server *t)
{
    return new_ssl(t->ctx);
}

static void free_key(
    void *parent, void *key, CRYPTO_EX_DATA *data, int index, long number, void *pointer)
{
    (void)parent;
    (void)data;
    (void)index;
    (void)number;
    (void)pointer;
    free(key);
}

static void make_key_index(void)
{
    key_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, free_key);
    if (key_index < 0)
        die("baton: OpenSSL: out of memory");
}

/* TLS 1.3 tickets come after the handshake: this is where either version hands them over.
 */
static int session_arrived(SSL *ssl, SSL_SESSION *session)
{
    struct tls_client *t = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    const struct tls_key *key = SSL_get_ex_data(ssl, key_index);
    if (!key || !SSL_SESSION_is_resumable(session))
        return 0;
    tls_cache_put(t->cache, key, session);
    return 1; /* the reference is the cache's now */
}

static bool load_authorities(
    SSL_CTX *ctx, const char *ca_file, char *why, size_t why_size)
{
    if (!*ca_file) {
        (void)SSL_CTX_set_default_verify_paths(ctx);
        ERR_clear_error();
        return true;
    }
    if (!readable(ca_file, "authorities", why, why_size))
        return false;
    if (SSL_CTX_load_verify_file(ctx, ca_file) == 1)
        return true;
    char text[CONN_WHY_BYTES];
    tls_error_text("no PEM certificates that can be used", text, sizeof(text));
    snprintf(why, why_size, "%s: %s", ca_file, text);
    return false;
}

struct tls_client *tls_client_new(const char *ca_file, char *why, size_t why_size)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_key_index);
    SSL_CTX *ctx = new_ctx(TLS_client_method());
    if (!load_authorities(ctx, ca_file, why, why_size)) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    struct tls_client *t = mem_zalloc(sizeof(*t));
    atomic_init(&t->refs, 1);
    t->ctx = ctx;
    t->cache = tls_cache_new(SESSIONS_MAX);
    SSL_CTX_set_app_data(ctx, t);
    SSL_CTX_set_session_cache_mode(
        ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
    SSL_CTX_sess_set_new_cb(ctx, session_arrived);
    return t;
}

struct tls_client *tls_client_ref(struct tls_client *t)
{
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void tls_client_unref(struct tls_client *t)
{
    if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
        return;
    SSL_CTX_free(t->ctx);
    tls_cache_free(t->cache);
    free(t);
}

static struct tls_key *new_key(const struct tls_target *target)
{
    struct tls_key *key = mem_zalloc(sizeof(*key));
    key->address = target->address;
    key->egress = target->egress;
    key->check = target->check;
    snprintf(key->name, sizeof(key->name), "%s", target->name);
    return key;
}

SSL *tls_client_ssl(struct tls_client *t, const struct tls_target *target)
{
    SSL *ssl = new_ssl(t->ctx);
    struct tls_key *key = new_key(target);
    bool verify = target->check == TLS_CHECK_VERIFY;
    SSL_set_verify(ssl, verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (*target->name) {
        (void)SSL_set_tlsext_host_name(ssl, key->name);
        (void)SSL_set1_host(ssl, key->name);
    } else if (verify) {
        char text[NETADDR_TEXT_MAX];
        ipaddr_format(target->address.ip, text);
        (void)X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), text);
    }
    SSL_set_ex_data(ssl, key_index, key);
    SSL_SESSION *session = tls_cache_get(t->cache, key);
    if (session) {
        SSL_set_session(ssl, session);
        SSL_SESSION_free(session);
    }
    ERR_clear_error();
    return ssl;
}

bool tls_ssl_knows_name(SSL *ssl)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    char *ip = X509_VERIFY_PARAM_get1_ip_asc(param);
    bool known = ip || X509_VERIFY_PARAM_get0_host(param, 0);
    OPENSSL_free(ip);
    return known;
}
