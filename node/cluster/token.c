/* SPDX-License-Identifier: Apache-2.0 */
#include "node/cluster/token.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/crc32c.h"
#include "proto/base64.h"

#define VERSION 1
#define HOST_BYTES (8 + TRANSPORT_KEY_BYTES + 1 + 16 + 2)
#define BYTES_MAX                                                                        \
    (1 + CLUSTER_ID_BYTES + 1 + 32 + 2 * TRANSPORT_KEY_BYTES + 8 + 1 +                   \
        TOKEN_HOSTS_MAX * HOST_BYTES + 4)
_Static_assert(BASE64_ENCODED_LEN(BYTES_MAX) < TOKEN_TEXT_MAX, "the text has room");

__attribute__((format(printf, 3, 4))) static bool wrong(
    char *why, size_t why_size, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why, why_size, format, args);
    va_end(args);
    return false;
}

/* --- bytes out --- */

static void put_number(struct buf *out, uint64_t value, unsigned bytes)
{
    for (unsigned i = bytes; i-- > 0;)
        buf_append_char(out, (char)(value >> (8 * i) & 0xff));
}

static void put_host(struct buf *out, const struct transport_peer *h)
{
    put_number(out, h->node, 8);
    buf_append(out, slice_make(h->key, TRANSPORT_KEY_BYTES));
    put_number(out, h->address.ip.family, 1);
    buf_append(out, slice_make(h->address.ip.bytes, 16));
    put_number(out, h->address.port, 2);
}

/* base64url (RFC 4648 5) without padding: it is pasted into files and shells. */
static void to_url(struct slice text, char *out)
{
    size_t len = text.len;
    while (len && text.ptr[len - 1] == '=')
        len--;
    for (size_t i = 0; i < len; i++)
        out[i] = text.ptr[i] == '+' ? '-' : text.ptr[i] == '/' ? '_' : text.ptr[i];
    out[len] = '\0';
}

void token_encode(const struct token *t, char out[TOKEN_TEXT_MAX])
{
    struct buf bytes, text;
    size_t name_len = strnlen(t->cluster, sizeof(t->cluster) - 1);
    buf_init(&bytes, BYTES_MAX);
    buf_init(&text, TOKEN_TEXT_MAX);
    put_number(&bytes, VERSION, 1);
    buf_append(&bytes, slice_make(t->cluster_id, CLUSTER_ID_BYTES));
    put_number(&bytes, name_len, 1);
    buf_append(&bytes, slice_make(t->cluster, name_len));
    buf_append(&bytes, slice_make(t->invitation.public_key, TRANSPORT_KEY_BYTES));
    buf_append(&bytes, slice_make(t->invitation.secret_key, TRANSPORT_KEY_BYTES));
    put_number(&bytes, (uint64_t)t->expires.ms, 8);
    put_number(&bytes, t->host_count, 1);
    for (unsigned i = 0; i < t->host_count && i < TOKEN_HOSTS_MAX; i++)
        put_host(&bytes, &t->hosts[i]);
    put_number(&bytes, crc32c(0, buf_slice(&bytes).ptr, buf_len(&bytes)), 4);
    base64_encode(&text, buf_slice(&bytes));
    to_url(buf_slice(&text), out);
    explicit_bzero(bytes.mem, bytes.cap);
    explicit_bzero(text.mem, text.cap);
    buf_fini(&bytes);
    buf_fini(&text);
}

/* --- bytes in --- */

/* A short read leaves nothing to read, and shows. */
struct reading {
    struct slice left;
    bool failed;
};

static struct slice take(struct reading *r, size_t len)
{
    struct slice s = slice_head(r->left, len);
    if (s.len < len) {
        r->failed = true;
        return (struct slice){0};
    }
    r->left = slice_from(r->left, len);
    return s;
}

static void take_bytes(struct reading *r, void *out, size_t len)
{
    struct slice s = take(r, len);
    if (s.len == len)
        memcpy(out, s.ptr, len);
}

static uint64_t take_number(struct reading *r, unsigned bytes)
{
    struct slice s = take(r, bytes);
    uint64_t value = 0;
    for (size_t i = 0; i < s.len; i++)
        value = value << 8 | (unsigned char)s.ptr[i];
    return value;
}

static bool host_is_sound(const struct transport_peer *h)
{
    static const unsigned char none[16];
    if (h->node == 0 || h->address.port == 0 || ipaddr_is_unspecified(h->address.ip))
        return false;
    /* One text for one token: what an IPv4 address leaves over is zero. */
    return h->address.ip.family == 6 ||
           (h->address.ip.family == 4 && !memcmp(h->address.ip.bytes + 4, none, 12));
}

static bool take_host(struct reading *r, struct transport_peer *h)
{
    h->node = take_number(r, 8);
    take_bytes(r, h->key, TRANSPORT_KEY_BYTES);
    h->address.ip.family = (uint8_t)take_number(r, 1);
    take_bytes(r, h->address.ip.bytes, 16);
    h->address.port = (uint16_t)take_number(r, 2);
    return !r->failed && host_is_sound(h);
}

/* It goes into messages: nothing but what a cluster.name may be. */
static bool take_name(struct reading *r, char out[32])
{
    uint64_t len = take_number(r, 1);
    if (len == 0 || len > 29)
        return false;
    take_bytes(r, out, len);
    for (size_t i = 0; !r->failed && i < len; i++)
        if (!ascii_is_alnum(out[i]) && out[i] != '-' && out[i] != '_' && out[i] != '.')
            return false;
    return !r->failed;
}

static bool read_fields(struct reading *r, struct token *t)
{
    take_bytes(r, t->cluster_id, CLUSTER_ID_BYTES);
    if (!take_name(r, t->cluster))
        return false;
    take_bytes(r, t->invitation.public_key, TRANSPORT_KEY_BYTES);
    take_bytes(r, t->invitation.secret_key, TRANSPORT_KEY_BYTES);
    t->expires.ms = (int64_t)take_number(r, 8);
    t->host_count = (unsigned)take_number(r, 1);
    if (r->failed || t->expires.ms <= 0 || t->host_count == 0 ||
        t->host_count > TOKEN_HOSTS_MAX)
        return false;
    for (unsigned i = 0; i < t->host_count; i++)
        if (!take_host(r, &t->hosts[i]))
            return false;
    return r->left.len == 0;
}

static bool parse_bytes(struct slice bytes, struct token *t, char *why, size_t why_size)
{
    struct reading r = {bytes, false};
    if (bytes.len < 5)
        return wrong(why, why_size, "is no token: too short");
    if ((unsigned char)bytes.ptr[0] != VERSION)
        return wrong(why, why_size,
            "is no token, or one of another version of Baton: make one on a node of this "
            "version");
    struct reading sum = {slice_from(bytes, bytes.len - 4), false};
    if (take_number(&sum, 4) != crc32c(0, bytes.ptr, bytes.len - 4))
        return wrong(why, why_size, "is no whole token: copy it again, all of the line");
    r.left = slice_make(bytes.ptr + 1, bytes.len - 5);
    if (read_fields(&r, t))
        return true;
    return wrong(why, why_size, "is no token: a field is out of range");
}

/* Back to the alphabet and padding of RFC 4648 4, which base64_decode is strict about. */
static bool from_url(struct slice text, struct buf *out)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (!ascii_is_alnum(c) && c != '-' && c != '_')
            return false;
        buf_append_char(out, c == '-' ? '+' : c == '_' ? '/' : c);
    }
    while (buf_len(out) % 4)
        buf_append_char(out, '=');
    return !out->failed;
}

bool token_decode(struct slice text, struct token *out, char *why, size_t why_size)
{
    struct buf plain, bytes;
    *out = (struct token){0};
    text = slice_trim(text);
    if (text.len >= TOKEN_TEXT_MAX)
        return wrong(why, why_size, "is no token: too long");
    buf_init(&plain, TOKEN_TEXT_MAX + 4);
    buf_init(&bytes, BASE64_DECODED_MAX(TOKEN_TEXT_MAX + 4));
    bool ok = from_url(text, &plain) && base64_decode(&bytes, buf_slice(&plain));
    if (ok)
        ok = parse_bytes(buf_slice(&bytes), out, why, why_size);
    else
        wrong(why, why_size, "is no token: it is one line of letters, digits, - and _");
    if (plain.mem)
        explicit_bzero(plain.mem, plain.cap);
    if (bytes.mem)
        explicit_bzero(bytes.mem, bytes.cap);
    buf_fini(&plain);
    buf_fini(&bytes);
    if (!ok)
        token_wipe(out);
    return ok;
}

/* --- the file --- */

static bool read_text(const char *path, char out[TOKEN_TEXT_MAX + 2], size_t *len_out,
    char *why, size_t size)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return wrong(why, size,
            "cluster.join: %s cannot be read: %s; put the line of batonctl cluster token "
            "there, as said on a node of the cluster",
            path, strerror(errno));
    ssize_t n = fstat(fd, &st) == 0 && S_ISREG(st.st_mode)
                    ? read(fd, out, TOKEN_TEXT_MAX + 2)
                    : -1;
    close(fd);
    if (n < 0)
        return wrong(why, size, "cluster.join: %s cannot be read", path);
    if (st.st_mode & S_IRWXO)
        return wrong(why, size,
            "cluster.join: %s is open to everybody, and whoever reads it can join: chmod "
            "600 it",
            path);
    *len_out = (size_t)n;
    return true;
}

bool token_read(const char *path, const char *cluster, struct wall now, struct token *out,
    char *why, size_t why_size)
{
    char text[TOKEN_TEXT_MAX + 2], what[160];
    size_t len = 0; /* gcc -O3 does not see that it is set when read_text says so */
    *out = (struct token){0};
    if (!read_text(path, text, &len, why, why_size))
        return false;
    bool ok = token_decode(slice_make(text, len), out, what, sizeof(what));
    explicit_bzero(text, sizeof(text));
    if (!ok)
        return wrong(why, why_size, "cluster.join: %s %s", path, what);
    if (strcmp(out->cluster, cluster) != 0)
        ok = wrong(why, why_size,
            "cluster.join: %s is a token of the cluster %s, and cluster.name is %s", path,
            out->cluster, cluster);
    else if (out->expires.ms <= now.ms)
        ok = wrong(why, why_size,
            "cluster.join: the token in %s has expired; make a new one with batonctl "
            "cluster token",
            path);
    if (!ok)
        token_wipe(out);
    return ok;
}

void token_wipe(struct token *t)
{
    explicit_bzero(t, sizeof(*t));
}
