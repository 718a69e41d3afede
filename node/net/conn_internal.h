/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by conn.c (life), conn_io.c (bytes) and conn_tls.c (OpenSSL). */
#ifndef NODE_NET_CONN_INTERNAL_H
#define NODE_NET_CONN_INTERNAL_H

#include <openssl/ssl.h>
#include <sys/queue.h>

#include "node/net/conn.h"

#define CONN_READ_BYTES 65536
#define CONN_OUT_MAX (4u << 20)
#define CONN_WHY_BYTES 200

enum conn_state {
    CONN_CONNECTING,  /* outgoing, no answer yet */
    CONN_OPEN,        /* bytes flow, plain or TLS */
    CONN_TLS_WAITING, /* a handshake is wanted, output in the clear goes first */
    CONN_HANDSHAKE,   /* TLS handshake under way */
    CONN_FINISHING,   /* no owner; output goes out, then goodbye */
    CONN_LINGERING,   /* no owner; our end is closed, waiting for the peer's */
    CONN_BROKEN,      /* an error is known, the owner has been or will be told */
    CONN_DEAD,        /* closed; freed when the last caller on the stack returns */
};

enum conn_timer { CONN_TIMER_NONE, CONN_TIMER_CONNECT, CONN_TIMER_KICK, CONN_TIMER_END };

struct conn {
    LIST_ENTRY(conn) link;
    struct conns *all;
    struct watcher watcher;
    struct timer timer; /* made on first use */
    enum conn_timer timer_for;
    bool has_timer;
    int fd;
    enum conn_state state;
    unsigned busy; /* callers on the stack */
    bool peek;     /* `data` sees bytes that stay in the kernel */
    size_t peeked; /* how many it has seen */
    bool paused;
    bool in_data;      /* the owner's `data` is running */
    bool resume_asked; /* conn_resume was called in there */
    bool blind;        /* paused, and the peer spoke: not watched for reading */
    bool eof;          /* the peer sends no more */
    bool eof_told;
    bool blocked;    /* the kernel took not all output */
    bool half_close; /* shut our side down once the output is out */
    bool half_closed;
    bool linger;
    bool read_wants_write; /* TLS */
    bool write_wants_read;
    enum err error; /* when BROKEN */
    bool error_told;
    const struct conn_handler *handler;
    void *owner;
    struct netaddr peer;
    struct buf out;
    struct buf kept; /* input the owner could not take yet */
    size_t discarded;
    uint64_t bytes_in, bytes_out;
    SSL *ssl;
    struct tls_server *tls_server;
    struct tls_client *tls_client;
    bool starting_tls;  /* conn_start_tls_* is on the stack: no callbacks */
    int handshake_want; /* WATCH_READ or WATCH_WRITE */
    struct tls_info info;
    char why[CONN_WHY_BYTES];
};

LIST_HEAD(conn_list, conn);
struct conns {
    struct loop *loop;
    struct conn_list list;
    unsigned count;
    unsigned finishing;
    bool reading; /* the shared buffer is in use further up the stack */
    char *buffer;
};

/* What one read or write came to. */
enum io { IO_DONE, IO_AGAIN, IO_EOF, IO_ERROR };

/* conn.c */
void conn_enter(struct conn *c);
/* Brings the watcher up to date; frees the connection when it has died meanwhile. */
void conn_leave(struct conn *c);
void conn_set_timer(struct conn *c, enum conn_timer what, int64_t in_ms);
void conn_stop_timer(struct conn *c);
/* Breaks the connection. The owner is told at once when `tell`, else from the next round.
 */
void conn_break(struct conn *c, enum err error, bool tell);
void conn_fail_errno(struct conn *c, int error, bool tell);
void conn_die(struct conn *c);

/* conn_io.c */
void conn_read_ready(struct conn *c);
void conn_write_ready(struct conn *c);
void conn_deliver_kept(struct conn *c);
void conn_send_out(struct conn *c);
/* All output is out: what was waiting for that. */
void conn_output_empty(struct conn *c);

/* conn_tls.c: all need c->ssl */
enum io conn_tls_read(struct conn *c, char *into, size_t size, size_t *n);
enum io conn_tls_write(struct conn *c, struct slice bytes, size_t *n);
bool conn_tls_has_pending(const struct conn *c);
void conn_tls_handshake(struct conn *c);
/* close_notify, as far as the kernel takes it. */
void conn_tls_goodbye(struct conn *c);
void conn_tls_free(struct conn *c);

/* tls.c */
SSL *tls_server_ssl(struct tls_server *t);
/* With SNI, verification and a remembered session set up. */
SSL *tls_client_ssl(struct tls_client *t, const struct tls_target *target);
bool tls_ssl_knows_name(SSL *ssl);
void tls_error_text(const char *what, char *out, size_t out_size);

#endif
