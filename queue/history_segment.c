/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/crc32c.h"
#include "queue/history_internal.h"
#include "queue/record.h"

#define READ_BYTES 262144u

void segment_name(uint64_t number, const char *suffix, char out[24])
{
    snprintf(out, 24, "%016" PRIx64 ".%s", number, suffix);
}

/* The frame at the head of `in`: its length, or 0 when it is not whole or not sound. */
static size_t open_frame(struct slice in, struct record *out)
{
    const unsigned char *at = (const unsigned char *)in.ptr;
    if (in.len < FRAME_HEAD)
        return 0;
    uint32_t len = get_be32(at);
    if (len > FRAME_MAX || in.len - FRAME_HEAD < len ||
        get_be32(at + 4) != crc32c(0, at + FRAME_HEAD, len))
        return 0;
    /* One that this version cannot read (an event that is no more) stays, unread. */
    if (!record_unpack(slice_make(at + FRAME_HEAD, len), out))
        out->has_id = false;
    return FRAME_HEAD + len;
}

bool segment_read(int log_fd, uint32_t offset, struct record *out)
{
    unsigned char raw[FRAME_HEAD + FRAME_MAX];
    ssize_t n = pread(log_fd, raw, sizeof(raw), offset);
    return n > 0 && open_frame(slice_make(raw, (size_t)n), out) > 0 && out->has_id;
}

/* Files the whole frames of `in`; how many bytes they take. */
static size_t file_frames(
    struct slice in, struct segment *s, struct segment_index *x, struct record *r)
{
    size_t done = 0, n;
    while ((n = open_frame(slice_from(in, done), r)) > 0) {
        if (r->has_id)
            index_record(x, s, r, s->bytes);
        s->bytes += (uint32_t)n;
        done += n;
    }
    return done;
}

bool segment_rebuild(int dir_fd, struct segment *s, struct segment_index *x)
{
    char name[24];
    struct record r;
    segment_name(s->number, "log", name);
    int fd = openat(dir_fd, name, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    char *in = mem_alloc(READ_BYTES);
    ssize_t n = 0;
    s->bytes = 0;
    s->first_ms = s->last_ms = 0;
    /* Reads on from the first frame that was not whole; none whole: that is the end. */
    while (s->bytes < UINT32_MAX - READ_BYTES &&
           (n = pread(fd, in, READ_BYTES, s->bytes)) > 0)
        if (file_frames(slice_make(in, (size_t)n), s, x, &r) == 0)
            break;
    free(in);
    bool ok = n >= 0 && ftruncate(fd, s->bytes) == 0;
    close(fd);
    return ok;
}
