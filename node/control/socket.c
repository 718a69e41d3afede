/* SPDX-License-Identifier: Apache-2.0 */
#include "node/control/socket.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static bool refuse(char *why, size_t why_size, const char *path, const char *what)
{
    snprintf(why, why_size, "control: %s: %s", path, what);
    return false;
}

static bool refuse_errno(char *why, size_t why_size, const char *path, const char *what)
{
    snprintf(why, why_size, "control: cannot %s %s: %s", what, path, strerror(errno));
    return false;
}

/* The last directory alone, as /run/baton vanishes with every boot; a longer way that is
 * missing is a mistake in the settings. */
static bool make_directory(const char *path, char *why, size_t why_size)
{
    char dir[sizeof(((struct sockaddr_un *)0)->sun_path)];
    snprintf(dir, sizeof(dir), "%s", path);
    char *slash = strrchr(dir, '/');
    if (!slash || slash == dir)
        return true;
    *slash = '\0';
    if (mkdir(dir, 0755) == 0 || errno == EEXIST)
        return true;
    return refuse_errno(why, why_size, dir, "make the directory");
}

enum found { NOTHING, STALE, ALIVE, UNKNOWN };

/* Is anybody behind that file? */
static enum found knock(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return UNKNOWN;
    int result = connect(fd, (const struct sockaddr *)address, sizeof(*address));
    int error = errno;
    close(fd);
    if (result == 0 || error == EAGAIN || error == EINPROGRESS)
        return ALIVE;
    return error == ENOENT ? NOTHING : error == ECONNREFUSED ? STALE : UNKNOWN;
}

static bool clear_the_way(const struct sockaddr_un *address, char *why, size_t why_size)
{
    const char *path = address->sun_path;
    struct stat st;
    if (lstat(path, &st) != 0)
        return errno == ENOENT || refuse_errno(why, why_size, path, "look at");
    if (!S_ISSOCK(st.st_mode))
        return refuse(why, why_size, path, "is there and is no socket; move it away");
    switch (knock(address)) {
    case NOTHING:
        return true;
    case ALIVE:
        return refuse(why, why_size, path,
            "another batond answers there; stop it, or give this one another control: "
            "and "
            "data_dir:");
    case UNKNOWN:
        return refuse_errno(why, why_size, path, "find out who answers on");
    case STALE:
        break;
    }
    if (unlink(path) != 0 && errno != ENOENT)
        return refuse_errno(why, why_size, path, "remove the stale socket");
    return true;
}

/* The mode is set on the descriptor first: bind takes it over from there (less the
 * umask), so there is no moment in which the world may connect. */
static bool bind_it(int fd, const struct sockaddr_un *address, char *why, size_t why_size)
{
    const char *path = address->sun_path;
    if (fchmod(fd, 0660) != 0 ||
        bind(fd, (const struct sockaddr *)address, sizeof(*address)) != 0)
        return refuse_errno(why, why_size, path, "bind");
    if (chmod(path, 0660) != 0 || listen(fd, 32) != 0)
        return refuse_errno(why, why_size, path, "listen on");
    return true;
}

bool control_socket_open(
    const char *path, struct control_socket *out, char *why, size_t why_size)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat st;
    if (strlen(path) >= sizeof(address.sun_path))
        return refuse(
            why, why_size, path, "the path is too long for a socket (107 bytes)");
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (!make_directory(path, why, why_size) || !clear_the_way(&address, why, why_size))
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return refuse_errno(why, why_size, path, "make a socket for");
    if (!bind_it(fd, &address, why, why_size)) {
        close(fd);
        return false;
    }
    *out = (struct control_socket){.fd = fd};
    snprintf(out->path, sizeof(out->path), "%s", path);
    if (lstat(path, &st) == 0) {
        out->dev = st.st_dev;
        out->ino = st.st_ino;
    }
    return true;
}

void control_socket_close(struct control_socket *s)
{
    struct stat st;
    if (lstat(s->path, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino)
        unlink(s->path);
    close(s->fd);
}
