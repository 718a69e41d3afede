/* SPDX-License-Identifier: Apache-2.0 */
/* The UNIX socket itself: made, taken over from a daemon that died, never from one that
 * lives. */
#ifndef NODE_CONTROL_SOCKET_H
#define NODE_CONTROL_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/un.h>

struct control_socket {
    int fd;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    dev_t dev; /* of the file we made */
    ino_t ino;
};

bool control_socket_open(
    const char *path, struct control_socket *out, char *why, size_t why_size);
/* Removes the file too, when it is still the one we made. */
void control_socket_close(struct control_socket *s);

#endif
