/* SPDX-License-Identifier: Apache-2.0 */
#include "node/cluster/birth.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/random.h"

#define INIT "cluster.init"
#define MEMBER "cluster.member"
#define FILE_MAX 256

__attribute__((format(printf, 3, 4))) static bool wrong(
    char *why, size_t why_size, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why, why_size, format, args);
    va_end(args);
    return false;
}

static void path_of(const struct settings *s, const char *name, char out[4096])
{
    snprintf(out, 4096, "%s/%s", s->data_dir, name);
}

/* --- "name ID\n", the id in hex --- */

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

static bool parse(struct slice text, struct birth *out)
{
    size_t blank = slice_find(text, ' ');
    struct slice name = slice_head(text, blank), id = slice_from(text, blank + 1);
    if (name.len == 0 || name.len >= sizeof(out->cluster) ||
        id.len != 2 * CLUSTER_ID_BYTES + 1 || id.ptr[id.len - 1] != '\n')
        return false;
    memcpy(out->cluster, name.ptr, name.len);
    for (unsigned i = 0; i < CLUSTER_ID_BYTES; i++) {
        int high = hex_digit(id.ptr[2 * i]), low = hex_digit(id.ptr[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out->cluster_id[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}

enum found { FOUND, MISSING, BROKEN };
static enum found read_birth(const char *path, struct birth *out)
{
    char text[FILE_MAX];
    *out = (struct birth){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? MISSING : BROKEN;
    ssize_t n = read(fd, text, sizeof(text));
    close(fd);
    return n >= 0 && parse(slice_make(text, (size_t)n), out) ? FOUND : BROKEN;
}

/* Owned as data_dir is: root may say it for the daemon's user. */
static bool write_temporary(const char *path, const char *dir, struct slice text)
{
    struct stat st;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return false;
    bool ok = write(fd, text.ptr, text.len) == (ssize_t)text.len && stat(dir, &st) == 0;
    if (ok && geteuid() == 0)
        ok = fchown(fd, st.st_uid, st.st_gid) == 0;
    ok = ok && fsync(fd) == 0;
    int error = errno;
    close(fd);
    errno = error;
    return ok;
}

static bool sync_dir(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0)
        close(fd);
    return ok;
}

static bool write_birth(const struct settings *s, const char *name,
    const struct birth *who, char *why, size_t why_size)
{
    char path[4096], temporary[4112], text[FILE_MAX];
    int len = snprintf(text, sizeof(text), "%s ", who->cluster);
    for (unsigned i = 0; i < CLUSTER_ID_BYTES; i++)
        len +=
            snprintf(text + len, sizeof(text) - (size_t)len, "%02x", who->cluster_id[i]);
    text[len++] = '\n';
    path_of(s, name, path);
    snprintf(temporary, sizeof(temporary), "%s.new", path);
    unlink(temporary);
    if (write_temporary(temporary, s->data_dir, slice_make(text, (size_t)len)) &&
        rename(temporary, path) == 0 && sync_dir(s->data_dir))
        return true;
    wrong(why, why_size, "%s cannot be written: %s", path, strerror(errno));
    unlink(temporary);
    return false;
}

/* --- --- */

static bool same_cluster(const struct settings *s, const struct birth *b,
    const char *file, char *why, size_t why_size)
{
    if (strcmp(b->cluster, s->cluster.name) == 0)
        return true;
    return wrong(why, why_size,
        "%s/%s is of the cluster %s, and cluster.name is %s: a node cannot change its "
        "cluster; correct the name, or give it an empty data_dir",
        s->data_dir, file, b->cluster, s->cluster.name);
}

static void damaged(const struct settings *s, const char *file, char *why, size_t size)
{
    wrong(why, size,
        "%s/%s cannot be read (%s); it must be what Baton wrote, readable by its user",
        s->data_dir, file, errno ? strerror(errno) : "damaged");
}

enum birth_way birth_look(
    const struct settings *s, struct birth *out, char *why, size_t why_size)
{
    static const char *const files[] = {MEMBER, INIT};
    static const enum birth_way ways[] = {BIRTH_MEMBER, BIRTH_INIT};
    char path[4096];
    for (unsigned i = 0; i < 2; i++) {
        errno = 0;
        path_of(s, files[i], path);
        switch (read_birth(path, out)) {
        case FOUND:
            return same_cluster(s, out, files[i], why, why_size) ? ways[i] : BIRTH_BAD;
        case BROKEN:
            damaged(s, files[i], why, why_size);
            return BIRTH_BAD;
        case MISSING:
            break;
        }
    }
    if (s->cluster.join[0])
        return BIRTH_TOKEN;
    wrong(why, why_size,
        "cluster: this node belongs to no cluster yet: on the first node run batonctl "
        "cluster init; on any other put a token (batonctl cluster token, said on the "
        "first) into a file and name it in cluster.join");
    return BIRTH_NONE;
}

static bool look_at_data_dir(const struct settings *s, char *why, size_t why_size)
{
    struct stat st;
    uid_t us = geteuid();
    if ((mkdir(s->data_dir, 0700) != 0 && errno != EEXIST) || stat(s->data_dir, &st) != 0)
        return wrong(why, why_size,
            "data_dir %s cannot be made: %s; make it, owned by batond's user",
            s->data_dir, strerror(errno));
    if (us != 0 && st.st_uid != us)
        return wrong(why, why_size,
            "data_dir %s belongs to the user with id %u: run this as that user, or as "
            "root",
            s->data_dir, (unsigned)st.st_uid);
    return true;
}

bool birth_init(const struct settings *s, struct birth *out, char *why, size_t why_size)
{
    *out = (struct birth){0};
    if (!s->cluster.is_set)
        return wrong(why, why_size,
            "%s has no section cluster: write one (name, node, listen), see "
            "baton.yaml(5)",
            s->file);
    if (!look_at_data_dir(s, why, why_size))
        return false;
    switch (birth_look(s, out, why, why_size)) {
    case BIRTH_MEMBER:
        return wrong(why, why_size,
            "this node belongs to the cluster %s already; batonctl cluster token lets "
            "others join",
            out->cluster);
    case BIRTH_INIT:
        return true;
    case BIRTH_BAD:
        return false;
    case BIRTH_TOKEN:
    case BIRTH_NONE:
        break;
    }
    snprintf(out->cluster, sizeof(out->cluster), "%s", s->cluster.name);
    random_bytes(out->cluster_id, CLUSTER_ID_BYTES);
    return write_birth(s, INIT, out, why, why_size);
}

bool birth_done(
    const struct settings *s, const struct birth *who, char *why, size_t why_size)
{
    char path[4096];
    struct birth old;
    path_of(s, MEMBER, path);
    if (read_birth(path, &old) != FOUND || strcmp(old.cluster, who->cluster) != 0 ||
        memcmp(old.cluster_id, who->cluster_id, CLUSTER_ID_BYTES) != 0) {
        if (!write_birth(s, MEMBER, who, why, why_size))
            return false;
    }
    path_of(s, INIT, path);
    if (unlink(path) != 0 && errno != ENOENT)
        return wrong(why, why_size, "%s cannot be removed: %s", path, strerror(errno));
    return true;
}
