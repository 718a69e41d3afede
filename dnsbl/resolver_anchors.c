/* SPDX-License-Identifier: Apache-2.0 */
/* Trust anchors. libunbound rewrites the file it is given as keys roll (RFC 5011), so it
 * gets a copy in data_dir, one file a zone. Once copied the copy leads: it knows keys
 * that the source does not. Only when the source itself has changed since (a package
 * brought a new one, or an operator chose another) is it copied again: that is how a node
 * gets going that was switched off for longer than a key roll takes. */
#include "dnsbl/resolver_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/crc32c.h"
#include "dnsbl/wire.h"

#define SOURCE_BYTES_MAX 65536
#define STAMP_FILE "trust-anchor.source"

static bool fail(char *why, size_t why_size, const char *file, const char *what)
{
    snprintf(why, why_size, "resolver.trust_anchor: %.200s: %s", file, what);
    return false;
}

static bool read_file(const char *path, struct buf *out, char *why, size_t why_size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char block[4096];
    ssize_t n;
    if (fd < 0)
        return fail(why, why_size, path, strerror(errno));
    while ((n = read(fd, block, sizeof(block))) > 0)
        if (!buf_append(out, slice_make(block, (size_t)n)))
            break;
    int error = errno;
    close(fd);
    if (n < 0)
        return fail(why, why_size, path, strerror(error));
    return n == 0 || fail(why, why_size, path, "too big for a trust anchor");
}

static bool write_all(int fd, struct slice bytes)
{
    while (bytes.len) {
        ssize_t n = write(fd, bytes.ptr, bytes.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        bytes = slice_from(bytes, (size_t)n);
    }
    return true;
}

/* Whole or not at all: a crash must not leave half an anchor. */
static bool write_file(const char *path, struct slice bytes, char *why, size_t why_size)
{
    char part[4200];
    snprintf(part, sizeof(part), "%s.part", path);
    int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return fail(why, why_size, part, strerror(errno));
    bool ok = write_all(fd, bytes) && fsync(fd) == 0;
    int error = errno;
    close(fd);
    if (ok && rename(part, path) == 0)
        return true;
    if (ok)
        error = errno;
    unlink(part);
    return fail(why, why_size, path, strerror(error));
}

/* A record of the source, which may run over several lines in parentheses. Comments
 * inside a line stay: a file that libunbound wrote keeps the state of each key there. */
static struct slice next_record(struct slice *rest)
{
    int depth = 0;
    size_t i = 0;
    for (bool comment = false; i < rest->len; i++) {
        char c = rest->ptr[i];
        if (c == '\n' && depth <= 0)
            break;
        comment = c == '\n' ? false : comment || c == ';';
        if (!comment)
            depth += c == '(' ? 1 : c == ')' ? -1 : 0;
    }
    struct slice record = slice_head(*rest, i);
    *rest = slice_from(*rest, i + 1);
    return record;
}

static struct slice first_word(struct slice text)
{
    size_t n = 0;
    while (n < text.len && !strchr(" \t\r\n;", text.ptr[n]))
        n++;
    return slice_head(text, n);
}

/* Does it hold a key? A record without its owner name is not taken for one. */
static bool is_key(struct slice record)
{
    struct slice owner = first_word(record);
    if (owner.len == 0 || owner.ptr[0] == '$')
        return false;
    struct slice rest = slice_from(record, owner.len);
    for (int i = 0; i < 3; i++) {
        while (rest.len && (rest.ptr[0] == ' ' || rest.ptr[0] == '\t'))
            rest = slice_from(rest, 1);
        struct slice word = first_word(rest);
        if (slice_eq_nocase(word, SLICE("DS")) || slice_eq_nocase(word, SLICE("DNSKEY")))
            return true;
        rest = slice_from(rest, word.len);
    }
    return false;
}

static struct resolver_anchor *anchor_for(
    struct resolver_config *c, const char *zone, bool make)
{
    for (unsigned i = 0; i < c->anchor_count; i++)
        if (strcmp(c->anchors[i].zone, zone) == 0)
            return &c->anchors[i];
    if (!make || c->anchor_count == ANCHORS_MAX || strchr(zone, '/'))
        return NULL;
    struct resolver_anchor *a = &c->anchors[c->anchor_count++];
    a->zone = arena_strdup(c->arena, slice_str(zone));
    a->file = arena_printf(c->arena, "%s/%s.key", c->data_dir, *zone ? zone : "root").ptr;
    return a;
}

/* Which zones the source has keys of. */
static bool list_zones(
    struct resolver_config *c, struct slice source, char *why, size_t why_size)
{
    char zone[256];
    c->anchor_count = 0;
    while (source.len) {
        struct slice record = next_record(&source);
        if (!is_key(record))
            continue;
        if (!dns_name_check(first_word(record), zone) || !anchor_for(c, zone, true))
            return fail(why, why_size, c->trust_anchor,
                "a key of a name that cannot be, "
                "or keys of too many names");
    }
    return c->anchor_count > 0 ||
           fail(why, why_size, c->trust_anchor, "no DS or DNSKEY record in there");
}

static bool write_zone(struct resolver_config *c, const struct resolver_anchor *a,
    struct slice source, char *why, size_t why_size)
{
    struct buf out;
    char zone[256];
    buf_init(&out, SOURCE_BYTES_MAX + 1024);
    while (source.len) {
        struct slice record = next_record(&source);
        if (is_key(record) && dns_name_check(first_word(record), zone) &&
            anchor_for(c, zone, false) == a) {
            buf_append(&out, record);
            buf_append_char(&out, '\n');
        }
    }
    bool ok = write_file(a->file, buf_slice(&out), why, why_size);
    buf_fini(&out);
    return ok;
}

static bool copies_are_there(const struct resolver_config *c)
{
    struct stat st;
    for (unsigned i = 0; i < c->anchor_count; i++)
        if (stat(c->anchors[i].file, &st) != 0 || st.st_size == 0)
            return false;
    return true;
}

/* The stamp tells which source the copies were made from. */
static bool stamp_matches(const char *path, struct slice stamp)
{
    struct buf old;
    char ignored[WHY_MAX];
    buf_init(&old, 256);
    bool same = read_file(path, &old, ignored, sizeof(ignored)) &&
                slice_eq(buf_slice(&old), stamp);
    buf_fini(&old);
    return same;
}

static bool copy_if_needed(struct resolver_config *c, struct slice source, bool force,
    char *why, size_t why_size)
{
    char path[4200], stamp[64];
    snprintf(path, sizeof(path), "%s/" STAMP_FILE, c->data_dir);
    snprintf(stamp, sizeof(stamp), "%08x %zu\n", c->anchor_source, source.len);
    if (!force && copies_are_there(c) && stamp_matches(path, slice_str(stamp)))
        return true;
    for (unsigned i = 0; i < c->anchor_count; i++)
        if (!write_zone(c, &c->anchors[i], source, why, why_size))
            return false;
    return write_file(path, slice_str(stamp), why, why_size);
}

bool resolver_anchors_prepare(
    struct resolver_config *c, bool force, char *why, size_t why_size)
{
    struct buf source;
    buf_init(&source, SOURCE_BYTES_MAX);
    bool ok = read_file(c->trust_anchor, &source, why, why_size);
    if (ok) {
        c->anchor_source = crc32c(0, buf_slice(&source).ptr, buf_len(&source));
        ok = list_zones(c, buf_slice(&source), why, why_size) &&
             copy_if_needed(c, buf_slice(&source), force, why, why_size);
    }
    buf_fini(&source);
    return ok;
}
