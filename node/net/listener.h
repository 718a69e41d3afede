/* SPDX-License-Identifier: Apache-2.0 */
/* Listening sockets. An address is bound once per loop with SO_REUSEPORT, so that the
 * kernel spreads connections over the loops; but the very first bind goes without it, as
 * a probe, or a second daemon would bind happily and take half the mail. IPv6 sockets
 * never take IPv4 (IPV6_V6ONLY): one address, one meaning. What the accepted sockets need
 * (TCP_NODELAY, keepalive) is set on the listening one, from which the kernel copies it.
 */
#ifndef NODE_NET_LISTENER_H
#define NODE_NET_LISTENER_H

#include "base/err.h"
#include "base/loop.h"
#include "base/netaddr.h"

/* Binds `count` sockets for one address and listens. Port 0 takes a free one, the same
 * for all; *bound_out tells. On error `why` names the address and the next step, and
 * nothing stays open. The caller owns the descriptors. */
enum err listen_open(struct netaddr at, unsigned count, int *fds_out,
    struct netaddr *bound_out, char *why, size_t why_size) MUST_CHECK;

/* Accepts on one listening socket in one loop. */
struct acceptor;
/* `fd`: non-blocking, close-on-exec, the callee's. */
typedef void acceptor_fn(int fd, struct netaddr peer, void *ctx);

/* Owns the socket from here on. Loop's thread, or before the loop runs. */
struct acceptor *acceptor_new(
    struct loop *loop, int fd, acceptor_fn *accepted, void *ctx);
/* Takes what still waits in the queue, then closes. Loop's thread, or after the loop has
 * ended (then what waits is reset). Accepts NULL. */
void acceptor_drain(struct acceptor *a);
void acceptor_free(struct acceptor *a);

#endif
