/* SPDX-License-Identifier: Apache-2.0 */
/* Key pairs, and the file that keeps one. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "base/alloc.h"
#include "base/random.h"
#include "cluster/transport.h"

/* Z85 text of 32 bytes, with NUL. */
#define Z85_BYTES 41
#define FILE_HEAD "baton-cluster-key 1\n"
#define FILE_MAX 256

void transport_keys_make(struct transport_keys *out)
{
    char public_text[Z85_BYTES], secret_text[Z85_BYTES];
    if (zmq_curve_keypair(public_text, secret_text) != 0)
        die("baton: this libzmq has no CURVE; next step: use Debian's libzmq5");
    INVARIANT(zmq_z85_decode(out->public_key, public_text) != NULL);
    INVARIANT(zmq_z85_decode(out->secret_key, secret_text) != NULL);
    explicit_bzero(secret_text, sizeof(secret_text));
}

static bool fail(char *why, size_t why_size, const char *path, const char *what)
{
    snprintf(why, why_size, "%s: %s", path, what);
    return false;
}

static bool write_all(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, text, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        text += n;
        len -= (size_t)n;
    }
    return true;
}

static bool sync_folder_of(const char *path)
{
    char *folder = mem_strdup(slice_str(path));
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder ? 1 : 0] = '\0';
    int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(folder);
    if (fd < 0)
        return false;
    bool ok = fsync(fd) == 0;
    close(fd);
    return ok;
}

/* Written beside its name and linked to it: never half a key under the name, and never
 * over a key that somebody else made meanwhile. */
static bool write_new(const char *path, const char *beside, const char *text)
{
    int fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    bool ok = write_all(fd, text, strlen(text)) && fsync(fd) == 0;
    ok = close(fd) == 0 && ok;
    ok = ok && link(beside, path) == 0;
    int error = errno;
    unlink(beside);
    errno = error;
    return ok && sync_folder_of(path);
}

static bool make_file(const char *path, char *why, size_t why_size)
{
    char public_text[Z85_BYTES], secret_text[Z85_BYTES], text[FILE_MAX];
    struct transport_keys keys;
    transport_keys_make(&keys);
    zmq_z85_encode(public_text, keys.public_key, TRANSPORT_KEY_BYTES);
    zmq_z85_encode(secret_text, keys.secret_key, TRANSPORT_KEY_BYTES);
    snprintf(
        text, sizeof(text), FILE_HEAD "public %s\nsecret %s\n", public_text, secret_text);
    size_t size = strlen(path) + 32;
    char *beside = mem_alloc(size);
    snprintf(beside, size, "%s.%016llx", path, (unsigned long long)random_u64());
    bool ok = write_new(path, beside, text) || errno == EEXIST;
    if (!ok)
        snprintf(
            why, why_size, "%s: cannot make the key file: %s", path, strerror(errno));
    free(beside);
    explicit_bzero(text, sizeof(text));
    explicit_bzero(secret_text, sizeof(secret_text));
    explicit_bzero(&keys, sizeof(keys));
    return ok;
}

/* "NAME Z85\n" at `text`, decoded. */
static bool parse_line(const char *text, const char *name, unsigned char *out)
{
    char z85[Z85_BYTES];
    size_t len = strlen(name);
    if (strncmp(text, name, len) != 0 || strcspn(text + len, "\n") != Z85_BYTES - 1 ||
        text[len + Z85_BYTES - 1] != '\n')
        return false;
    memcpy(z85, text + len, Z85_BYTES - 1);
    z85[Z85_BYTES - 1] = '\0';
    /* Anything below a blank is no letter of Z85, and libzmq looks it up in a table. */
    for (unsigned i = 0; i < Z85_BYTES - 1; i++)
        if (z85[i] < '!' || z85[i] > '~')
            return false;
    bool ok = zmq_z85_decode(out, z85) != NULL;
    explicit_bzero(z85, sizeof(z85));
    return ok;
}

static bool is_pair(const struct transport_keys *keys)
{
    char public_text[Z85_BYTES], secret_text[Z85_BYTES];
    unsigned char public_key[TRANSPORT_KEY_BYTES];
    zmq_z85_encode(secret_text, keys->secret_key, TRANSPORT_KEY_BYTES);
    bool ok = zmq_curve_public(public_text, secret_text) == 0 &&
              zmq_z85_decode(public_key, public_text) != NULL &&
              memcmp(public_key, keys->public_key, TRANSPORT_KEY_BYTES) == 0;
    explicit_bzero(secret_text, sizeof(secret_text));
    return ok;
}

static bool parse_file(const char *text, struct transport_keys *out)
{
    size_t head = strlen(FILE_HEAD), line = strlen("public ") + Z85_BYTES;
    return strncmp(text, FILE_HEAD, head) == 0 && strlen(text) == head + 2 * line &&
           parse_line(text + head, "public ", out->public_key) &&
           parse_line(text + head + line, "secret ", out->secret_key) && is_pair(out);
}

static bool read_file(
    int fd, const char *path, struct transport_keys *out, char *why, size_t why_size)
{
    struct stat st;
    char text[FILE_MAX + 1];
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        return fail(why, why_size, path, "is not a plain file");
    if (st.st_mode & (S_IRWXG | S_IRWXO))
        return fail(why, why_size, path,
            "holds a secret that others can read; next step: chmod 600, and think about "
            "who could have read it");
    ssize_t len = read(fd, text, FILE_MAX);
    if (len < 0)
        return fail(why, why_size, path, strerror(errno));
    text[len] = '\0';
    bool ok = parse_file(text, out);
    explicit_bzero(text, sizeof(text));
    return ok || fail(why, why_size, path,
                     "is no key file of Baton, or damaged; next step: restore it from a "
                     "backup, or remove it and let this node join anew");
}

bool transport_keys_load(
    const char *path, struct transport_keys *out, char *why, size_t why_size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT) {
        if (!make_file(path, why, why_size))
            return false;
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    }
    if (fd < 0)
        return fail(why, why_size, path, strerror(errno));
    bool ok = read_file(fd, path, out, why, why_size);
    close(fd);
    return ok;
}
