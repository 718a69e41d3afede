/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/crc32c.h"
#include "queue/history_internal.h"
#include "queue/record.h"

#define INDEX_HEAD 44u
#define ENTRY_BYTES 8u
static const char magic[8] = {'B', 'A', 'T', 'O', 'N', 'H', 'X', '1'};

/* --- hashes --- */

uint32_t history_hash_id(struct msg_id id)
{
    return crc32c(0, id.bytes, MSG_ID_BYTES);
}

uint32_t history_hash_address(struct slice address)
{
    char folded[64];
    uint32_t hash = 0;
    while (address.len) {
        size_t n = address.len < sizeof(folded) ? address.len : sizeof(folded);
        for (size_t i = 0; i < n; i++)
            folded[i] = ascii_lower(address.ptr[i]);
        hash = crc32c(hash, folded, n);
        address = slice_from(address, n);
    }
    return hash;
}

/* --- in memory --- */

void index_clear(struct segment_index *x)
{
    for (unsigned k = 0; k < INDEX_KINDS; k++)
        x->by[k].count = 0;
}

void index_fini(struct segment_index *x)
{
    for (unsigned k = 0; k < INDEX_KINDS; k++)
        free(x->by[k].items);
    *x = (struct segment_index){0};
}

static void add(struct index_list *l, uint32_t hash, uint32_t offset)
{
    if (l->count == l->room) {
        l->room = l->room ? l->room * 2 : 1024;
        l->items = mem_realloc(l->items, l->room * sizeof(*l->items));
    }
    l->items[l->count++] = (struct index_entry){hash, offset};
}

void index_record(
    struct segment_index *x, struct segment *s, const struct record *r, uint32_t offset)
{
    static const char *const keys[] = {"from", "to"};
    struct slice address;
    if (s->first_ms == 0 || r->time.ms < s->first_ms)
        s->first_ms = r->time.ms;
    if (r->time.ms > s->last_ms)
        s->last_ms = r->time.ms;
    add(&x->by[INDEX_ID], history_hash_id(r->id), offset);
    for (unsigned i = 0; i < 2; i++)
        if (record_get(r, keys[i], &address) && address.len)
            add(&x->by[INDEX_ADDRESS], history_hash_address(address), offset);
}

static int compare(const void *a, const void *b)
{
    const struct index_entry *x = a, *y = b;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

void offsets_add(struct offsets *o, uint32_t offset)
{
    if (o->count == o->room) {
        o->room = o->room ? o->room * 2 : 64;
        o->items = mem_realloc(o->items, o->room * sizeof(*o->items));
    }
    o->items[o->count++] = offset;
}

void index_find_memory(const struct segment_index *x, enum index_kind kind, uint32_t hash,
    struct offsets *out)
{
    const struct index_list *l = &x->by[kind];
    for (uint32_t i = 0; i < l->count; i++)
        if (l->items[i].hash == hash)
            offsets_add(out, l->items[i].offset);
}

/* --- on disk --- */

/* magic 8 | bytes of the log 4 | entries by id 4, by address 4 | first 8 | last 8 | CRC
 * 4, and 4 of zeros */
static void pack_head(const struct segment *s, const uint32_t counts[INDEX_KINDS],
    unsigned char out[INDEX_HEAD])
{
    memset(out, 0, INDEX_HEAD);
    memcpy(out, magic, sizeof(magic));
    put_be32(out + 8, s->bytes);
    put_be32(out + 12, counts[INDEX_ID]);
    put_be32(out + 16, counts[INDEX_ADDRESS]);
    put_be64(out + 20, (uint64_t)s->first_ms);
    put_be64(out + 28, (uint64_t)s->last_ms);
    put_be32(out + 36, crc32c(0, out, 36));
}

static bool unpack_head(
    struct segment *s, const unsigned char in[INDEX_HEAD], uint32_t counts[INDEX_KINDS])
{
    if (memcmp(in, magic, sizeof(magic)) != 0 || get_be32(in + 36) != crc32c(0, in, 36) ||
        get_be32(in + 8) != s->bytes)
        return false;
    counts[INDEX_ID] = get_be32(in + 12);
    counts[INDEX_ADDRESS] = get_be32(in + 16);
    s->first_ms = (int64_t)get_be64(in + 20);
    s->last_ms = (int64_t)get_be64(in + 28);
    return true;
}

static bool write_all(int fd, const unsigned char *at, size_t len)
{
    while (len) {
        ssize_t n = write(fd, at, len);
        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

static unsigned char *pack_index(
    struct segment *s, struct segment_index *x, size_t *len_out)
{
    uint32_t counts[INDEX_KINDS];
    size_t entries = 0;
    for (unsigned k = 0; k < INDEX_KINDS; k++)
        entries += counts[k] = x->by[k].count;
    *len_out = INDEX_HEAD + entries * ENTRY_BYTES;
    unsigned char *out = mem_alloc(*len_out), *at = out + INDEX_HEAD;
    pack_head(s, counts, out);
    for (unsigned k = 0; k < INDEX_KINDS; k++) {
        struct index_list *l = &x->by[k];
        if (l->count)
            qsort(l->items, l->count, sizeof(*l->items), compare);
        for (uint32_t i = 0; i < l->count; i++, at += ENTRY_BYTES) {
            put_be32(at, l->items[i].hash);
            put_be32(at + 4, l->items[i].offset);
        }
    }
    return out;
}

bool index_write(int dir_fd, struct segment *s, struct segment_index *x)
{
    char name[24], temp[24];
    size_t len;
    segment_name(s->number, "idx", name);
    segment_name(s->number, "tmp", temp);
    int fd = openat(dir_fd, temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    unsigned char *bytes = pack_index(s, x, &len);
    bool ok = write_all(fd, bytes, len);
    free(bytes);
    close(fd);
    ok = ok && renameat(dir_fd, temp, dir_fd, name) == 0;
    if (ok)
        s->index_bytes = (uint32_t)len;
    else
        unlinkat(dir_fd, temp, 0);
    return ok;
}

static int open_index(
    int dir_fd, struct segment *s, uint32_t counts[INDEX_KINDS], uint32_t *bytes_out)
{
    char name[24];
    unsigned char head[INDEX_HEAD];
    segment_name(s->number, "idx", name);
    int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    off_t size = lseek(fd, 0, SEEK_END);
    if (pread(fd, head, sizeof(head), 0) == (ssize_t)sizeof(head) &&
        unpack_head(s, head, counts) &&
        size == (off_t)(INDEX_HEAD + ((uint64_t)counts[0] + counts[1]) * ENTRY_BYTES)) {
        *bytes_out = (uint32_t)size;
        return fd;
    }
    close(fd);
    return -1;
}

bool index_read(int dir_fd, struct segment *s)
{
    uint32_t counts[INDEX_KINDS];
    int fd = open_index(dir_fd, s, counts, &s->index_bytes);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static bool read_entry(int fd, uint32_t base, uint32_t i, struct index_entry *out)
{
    unsigned char raw[ENTRY_BYTES];
    off_t at = (off_t)(INDEX_HEAD + ((uint64_t)base + i) * ENTRY_BYTES);
    if (pread(fd, raw, sizeof(raw), at) != (ssize_t)sizeof(raw))
        return false;
    *out = (struct index_entry){get_be32(raw), get_be32(raw + 4)};
    return true;
}

void index_find_file(int dir_fd, const struct segment *s, enum index_kind kind,
    uint32_t hash, struct offsets *out)
{
    struct segment copy = *s;
    uint32_t counts[INDEX_KINDS], bytes;
    struct index_entry e;
    int fd = open_index(dir_fd, &copy, counts, &bytes);
    if (fd < 0)
        return;
    uint32_t base = kind == INDEX_ID ? 0 : counts[INDEX_ID];
    uint32_t low = 0, high = counts[kind];
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (!read_entry(fd, base, mid, &e))
            break;
        if (e.hash < hash)
            low = mid + 1;
        else
            high = mid;
    }
    for (; low < counts[kind] && read_entry(fd, base, low, &e) && e.hash == hash; low++)
        offsets_add(out, e.offset);
    close(fd);
}
