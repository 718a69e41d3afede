/* SPDX-License-Identifier: Apache-2.0 */
/* A stream connection on a loop, plain or TLS: clients that connect to us and next hops
 * we connect to. Never blocks. Costs one recv and one send per exchange and nothing else:
 * reads go into one buffer that all connections of a loop share, writes are tried at once
 * and writability is watched only when the kernel is full.
 *
 * Everything here is for the loop's thread. The owner may call anything from inside a
 * callback, conn_close too; after conn_close, conn_abort or conn_finish it hears nothing
 * more and must forget the pointer. */
#ifndef NODE_NET_CONN_H
#define NODE_NET_CONN_H

#include "base/buf.h"
#include "base/err.h"
#include "base/loop.h"
#include "base/netaddr.h"
#include "node/net/tls.h"

struct conn;
/* What the connections of one loop share: the read buffer, and those that are finishing.
 */
struct conns;

struct conns *conns_new(struct loop *loop);
/* Cuts what is still finishing; every other connection must be closed. Accepts NULL. */
void conns_free(struct conns *all);
struct loop *conns_loop(struct conns *all);
/* Connections open now, finishing ones too. */
unsigned conns_count(const struct conns *all);

/* Callbacks; `connected`, `secured` and `drained` may be NULL. */
struct conn_handler {
    /* An outgoing connection stands. */
    void (*connected)(struct conn *c, void *owner);
    /* Bytes arrived, borrowed for the call. Returns how many were taken; with fewer than
     * all the rest is kept, and reading pauses until conn_resume. */
    size_t (*data)(struct conn *c, struct slice bytes, void *owner);
    /* The TLS handshake succeeded; see conn_tls_info. */
    void (*secured)(struct conn *c, void *owner);
    /* Output that had to wait is all with the kernel now. */
    void (*drained)(struct conn *c, void *owner);
    /* ERR_OK: the peer sends no more (it may still read: answer, then conn_finish).
     * Anything else: the connection is lost, conn_why says how; only conn_close is left.
     * Comes once, but an error may follow an ERR_OK. */
    void (*closed)(struct conn *c, enum err why, void *owner);
};

/* Takes the descriptor of an accepted connection (non-blocking, options inherited from
 * the listener). Reading starts with the next round of the loop. */
struct conn *conn_accept(struct conns *all, int fd, struct netaddr peer,
    const struct conn_handler *handler, void *owner);
struct conn_target {
    struct netaddr to;
    struct ipaddr from; /* egress address; family 0: the kernel chooses */
    int64_t timeout_ms;
};
/* Starts to connect. No callback before the loop's next round; failure of any kind comes
 * as `closed`. */
struct conn *conn_connect(struct conns *all, const struct conn_target *target,
    const struct conn_handler *handler, void *owner);
/* Hands the connection to another owner (a pooled one to its next user). */
void conn_set_owner(struct conn *c, const struct conn_handler *handler, void *owner);

/* Closes at once; output not yet sent is lost. Accepts NULL. */
void conn_close(struct conn *c);
/* The same, with RST: nothing that is still in the kernel gets out. Accepts NULL. */
void conn_abort(struct conn *c);
/* Sends what is written, says goodbye in TLS and closes, all without the owner. `linger`:
 * waits a moment for the peer's end, discarding what it says, so that a last reply
 * (421) is not torn away by the reset that unread input causes. Bounded to some seconds.
 * Accepts NULL. */
void conn_finish(struct conn *c, bool linger);
/* No more output; input goes on. Output written before is sent first. */
void conn_half_close(struct conn *c);

/* For what stands before the protocol (PROXY): from now on `data` shows what has come so
 * far without taking it, and its result does not matter; until conn_end_peek takes `used`
 * bytes away. Everything behind them is untouched, so TLS may begin with the next byte.
 */
void conn_start_peek(struct conn *c);
void conn_end_peek(struct conn *c, size_t used);

/* Stops calling `data`. Costs nothing unless the peer sends meanwhile. */
void conn_pause(struct conn *c);
/* Goes on; may call `data` with what was kept before it returns. */
void conn_resume(struct conn *c);
bool conn_is_paused(const struct conn *c);

/* The output buffer, for engines that write straight into it; then conn_flush. */
struct buf *conn_out(struct conn *c);
/* Adds to the output. False when the buffer's maximum (4 MiB) would be passed. */
bool conn_write(struct conn *c, struct slice bytes);
/* Sends what is in the output, usually in one system call; the rest goes as the kernel
 * makes room, and `drained` tells. An error comes as `closed` from the loop's next round.
 */
void conn_flush(struct conn *c);
/* The same for a buffer of the owner's: consumes what went out, after the connection's
 * own output. What stays must stay as it is, for the next call (`drained` says when):
 * only appending is allowed, or conn_write of all of it. */
void conn_drain(struct conn *c, struct buf *from);
/* Bytes that conn_flush has not got rid of yet. */
size_t conn_unsent(const struct conn *c);
/* One direct write, with nothing buffered before it: for the final dot, right after the
 * gate was read, and for big bodies without a copy. Needs conn_unsent == 0. ERR_OK and
 * *written bytes are with the kernel (0: no room now; `drained` will tell; in TLS nothing
 * is prepared either, so the caller may still change its mind). An error means that
 * nothing of it can reach the peer's application. In TLS, more than 4 KiB at once is
 * queued as conn_write and conn_flush do. */
enum err conn_send_direct(struct conn *c, struct slice bytes, size_t *written) MUST_CHECK;

/* TLS in mid-stream or from the first byte. Output written before goes out in the clear
 * first; input that is kept or arrives with it is thrown away (RFC 3207 4.2, both
 * directions). Then `secured`, or `closed` with ERR_TLS_FAILED. The deadline is the
 * owner's. */
void conn_start_tls_server(struct conn *c, struct tls_server *tls);
void conn_start_tls_client(
    struct conn *c, struct tls_client *tls, const struct tls_target *target);
/* Unread plaintext that conn_start_tls_* threw away: somebody tried to inject. */
size_t conn_discarded(const struct conn *c);
const struct tls_info *conn_tls_info(const struct conn *c);

struct netaddr conn_peer(const struct conn *c);
/* Our side's address (one system call). */
struct netaddr conn_local(const struct conn *c);
struct loop *conn_loop(const struct conn *c);
/* What went wrong, for logs and replies: "connection reset by peer". "" when nothing did.
 */
const char *conn_why(const struct conn *c);
uint64_t conn_bytes_in(const struct conn *c);
uint64_t conn_bytes_out(const struct conn *c);

#endif
