/* SPDX-License-Identifier: Apache-2.0 */
/* Header scan: however the bytes are cut, the same is found, and every range lies where a
 * field of that name is. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "proto/header_scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void scan(struct slice in, size_t piece, struct header_scan *h)
{
    header_scan_init(h);
    for (; in.len > 0; in = slice_from(in, piece))
        header_scan_feed(h, slice_head(in, piece));
    header_scan_end(h);
}

static void check_field(struct slice in, const struct header_field *f)
{
    INVARIANT(f->start < f->value && f->value <= f->end && f->end <= in.len);
    struct slice name = slice_make(in.ptr + f->start, f->value - f->start);
    INVARIANT(name.ptr[name.len - 1] == ':');
    name = slice_trim(slice_head(name, name.len - 1));
    INVARIANT(header_kind_of(name) == f->kind);
    INVARIANT(f->start == 0 || in.ptr[f->start - 1] == '\n');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct header_scan a, b;
    if (size == 0)
        return 0;
    struct slice in = slice_make(data + 1, size - 1);
    scan(in, in.len ? in.len : 1, &a);
    scan(in, data[0] % 32 + 1u, &b);
    INVARIANT(a.done && b.done && a.header_bytes == b.header_bytes);
    INVARIANT(a.body_start == b.body_start && a.has_8bit == b.has_8bit);
    INVARIANT(a.no_header_end == b.no_header_end && a.field_count == b.field_count);
    INVARIANT(memcmp(a.count, b.count, sizeof a.count) == 0);
    INVARIANT(a.header_bytes <= a.body_start && a.body_start <= in.len);
    for (unsigned i = 0; i < a.field_count; i++) {
        check_field(in, &a.fields[i]);
        INVARIANT(
            a.fields[i].end == b.fields[i].end && a.fields[i].start == b.fields[i].start);
        INVARIANT(a.fields[i].end <= a.header_bytes);
        INVARIANT(i == 0 || a.fields[i].start >= a.fields[i - 1].end);
    }
    return 0;
}
