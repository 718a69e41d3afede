/* SPDX-License-Identifier: Apache-2.0 */
/* OpenSSL below a connection. Sockets are reached through a BIO of our own, because
 * OpenSSL's writes with write(2), which raises SIGPIPE. */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "node/net/conn_internal.h"

static int bio_write(BIO *bio, const char *bytes, int len)
{
    struct conn *c = BIO_get_data(bio);
    ssize_t sent = send(c->fd, bytes, (size_t)len, MSG_NOSIGNAL);
    BIO_clear_retry_flags(bio);
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        BIO_set_retry_write(bio);
    return (int)sent;
}

static int bio_read(BIO *bio, char *into, int size)
{
    struct conn *c = BIO_get_data(bio);
    ssize_t got = recv(c->fd, into, (size_t)size, 0);
    BIO_clear_retry_flags(bio);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        BIO_set_retry_read(bio);
    if (got == 0)
        BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
    return (int)got;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)number;
    (void)pointer;
    if (command == BIO_CTRL_EOF)
        return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0;
    return command == BIO_CTRL_FLUSH;
}

/* Made once, then read-only: OpenSSL wants the table of a BIO's functions as an object.
 */
static BIO_METHOD *method;

static void make_method(void)
{
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "baton conn");
    if (!method)
        die("baton: OpenSSL: out of memory");
    BIO_meth_set_write(method, bio_write);
    BIO_meth_set_read(method, bio_read);
    BIO_meth_set_ctrl(method, bio_control);
}

static BIO *new_bio(struct conn *c)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_method);
    BIO *bio = BIO_new(method);
    if (!bio)
        die("baton: OpenSSL: out of memory");
    BIO_set_data(bio, c);
    BIO_set_init(bio, 1);
    return bio;
}

/* Sorts out what SSL_read or SSL_write returned. */
static enum io sort_out(struct conn *c, int result, bool *wants_other, int other)
{
    int error = SSL_get_error(c->ssl, result);
    *wants_other = false;
    if (error == SSL_ERROR_ZERO_RETURN)
        return IO_EOF;
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        *wants_other = error == other;
        return IO_AGAIN;
    }
    if (error == SSL_ERROR_SYSCALL && ERR_peek_error() == 0) {
        char text[100];
        const char *said = errno ? strerror_r(errno, text, sizeof(text)) : "cut off";
        snprintf(c->why, sizeof(c->why), "%s", said);
    } else {
        tls_error_text("TLS", c->why, sizeof(c->why));
    }
    ERR_clear_error();
    return IO_ERROR;
}

enum io conn_tls_read(struct conn *c, char *into, size_t size, size_t *n)
{
    ERR_clear_error();
    errno = 0;
    int result = SSL_read_ex(c->ssl, into, size, n);
    if (result == 1) {
        c->read_wants_write = false;
        return IO_DONE;
    }
    return sort_out(c, result, &c->read_wants_write, SSL_ERROR_WANT_WRITE);
}

enum io conn_tls_write(struct conn *c, struct slice bytes, size_t *n)
{
    ERR_clear_error();
    errno = 0;
    int result = SSL_write_ex(c->ssl, bytes.ptr, bytes.len, n);
    if (result == 1) {
        c->write_wants_read = false;
        return IO_DONE;
    }
    *n = 0;
    return sort_out(c, result, &c->write_wants_read, SSL_ERROR_WANT_READ);
}

bool conn_tls_has_pending(const struct conn *c)
{
    return SSL_has_pending(c->ssl) == 1;
}

static void describe(struct conn *c)
{
    long verdict = SSL_get_verify_result(c->ssl);
    struct tls_info *info = &c->info;
    info->on = true;
    info->resumed = SSL_session_reused(c->ssl) == 1;
    info->version = SSL_get_version(c->ssl);
    info->cipher = SSL_get_cipher_name(c->ssl);
    info->bits = SSL_get_cipher_bits(c->ssl, NULL);
    info->has_certificate = SSL_get0_peer_certificate(c->ssl) != NULL;
    info->verified = info->has_certificate && verdict == X509_V_OK &&
                     (SSL_is_server(c->ssl) || tls_ssl_knows_name(c->ssl));
    if (info->verified)
        info->why_unverified = "";
    else if (!info->has_certificate)
        info->why_unverified = "no certificate";
    else if (verdict != X509_V_OK)
        info->why_unverified = X509_verify_cert_error_string(verdict);
    else
        info->why_unverified = "no name to compare with";
}

static void handshake_failed(struct conn *c, int error)
{
    long verdict = SSL_get_verify_result(c->ssl);
    if (error == SSL_ERROR_SYSCALL && ERR_peek_error() == 0) {
        char text[100];
        const char *said =
            errno ? strerror_r(errno, text, sizeof(text)) : "connection closed by peer";
        snprintf(c->why, sizeof(c->why), "TLS handshake: %s", said);
    } else if (!SSL_is_server(c->ssl) && verdict != X509_V_OK &&
               SSL_get_verify_mode(c->ssl) != SSL_VERIFY_NONE) {
        snprintf(c->why, sizeof(c->why), "TLS certificate: %s",
            X509_verify_cert_error_string(verdict));
    } else {
        tls_error_text("TLS handshake", c->why, sizeof(c->why));
    }
    ERR_clear_error();
    conn_break(c, ERR_TLS_FAILED, !c->starting_tls);
}

void conn_tls_handshake(struct conn *c)
{
    ERR_clear_error();
    errno = 0;
    int result = SSL_do_handshake(c->ssl);
    if (result == 1) {
        c->state = CONN_OPEN;
        describe(c);
        if (c->handler->secured)
            c->handler->secured(c, c->owner);
        if (c->state == CONN_OPEN && conn_tls_has_pending(c))
            conn_read_ready(c);
        return;
    }
    int error = SSL_get_error(c->ssl, result);
    if (error == SSL_ERROR_WANT_READ)
        c->handshake_want = WATCH_READ;
    else if (error == SSL_ERROR_WANT_WRITE)
        c->handshake_want = WATCH_WRITE;
    else
        handshake_failed(c, error);
}

static void start(struct conn *c, SSL *ssl, bool as_server)
{
    if (c->state != CONN_OPEN || c->ssl) {
        SSL_free(ssl);
        return;
    }
    BIO *bio = new_bio(c);
    c->ssl = ssl;
    SSL_set_bio(ssl, bio, bio);
    if (as_server)
        SSL_set_accept_state(ssl);
    else
        SSL_set_connect_state(ssl);
    c->discarded += buf_len(&c->kept);
    buf_clear(&c->kept);
    c->paused = c->blind = false;
}

/* The output in the clear goes first; then, perhaps at once, the handshake begins. */
static void begin(struct conn *c)
{
    conn_enter(c);
    c->state = CONN_TLS_WAITING;
    c->starting_tls = true;
    conn_send_out(c);
    c->starting_tls = false;
    conn_leave(c);
}

void conn_start_tls_server(struct conn *c, struct tls_server *tls)
{
    if (c->state != CONN_OPEN || c->ssl)
        return;
    c->tls_server = tls_server_ref(tls);
    start(c, tls_server_ssl(tls), true);
    begin(c);
}

void conn_start_tls_client(
    struct conn *c, struct tls_client *tls, const struct tls_target *target)
{
    if (c->state != CONN_OPEN || c->ssl)
        return;
    c->tls_client = tls_client_ref(tls);
    start(c, tls_client_ssl(tls, target), false);
    begin(c);
}

void conn_tls_goodbye(struct conn *c)
{
    ERR_clear_error();
    if (SSL_is_init_finished(c->ssl))
        (void)SSL_shutdown(c->ssl); /* one way: nobody needs the peer's answer */
    ERR_clear_error();
}

void conn_tls_free(struct conn *c)
{
    if (!c->ssl)
        return;
    /* An abrupt end of the connection is no reason to forget the session. */
    if (SSL_is_init_finished(c->ssl))
        SSL_set_shutdown(c->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(c->ssl);
    c->ssl = NULL;
    tls_server_unref(c->tls_server);
    tls_client_unref(c->tls_client);
    c->tls_server = NULL;
    c->tls_client = NULL;
}
