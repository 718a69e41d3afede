/* SPDX-License-Identifier: Apache-2.0 */
/* One client: a connection, the SMTP engine, and at most one transaction. Born from an
 * accepted descriptor, lives and dies on one loop, owns itself. */
#ifndef NODE_INTAKE_SESSION_H
#define NODE_INTAKE_SESSION_H

#include "node/intake/intake_internal.h"

/* Takes the descriptor. A client over a limit is told so and closed. */
void session_accept(const struct intake_door *door, int fd, struct netaddr peer);
/* 421 as soon as no message is on its way. */
void session_shut_down(struct session *s);
/* All sessions of a loop. */
struct session *session_first(struct intake_loop *il);
struct session *session_next(struct session *s);
/* The loop has ended. */
void session_kill(struct session *s);

#endif
