/* SPDX-License-Identifier: Apache-2.0 */
/* A unit's head, or recipients after an attempt, from a hostile peer: refused, or sound
 * enough that packed again and read again it packs to the same bytes. The first byte
 * chooses. */
#include "base/alloc.h"
#include "queue/head.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool pack_head(struct slice bytes, struct buf *out)
{
    struct unit_record *u = unit_head_parse(bytes);
    if (!u)
        return false;
    INVARIANT(u->rcpt_count > 0 && u->rcpt_count <= UNIT_RCPTS_MAX);
    INVARIANT(u->message->units[0].rcpt_count == u->rcpt_count);
    INVARIANT(unit_head_pack(u, out));
    unit_record_free(u);
    return true;
}

static bool pack_rcpts(struct slice bytes, struct buf *out)
{
    struct arena *a = arena_new(1024);
    struct rcpt_record *r;
    unsigned count;
    bool ok = rcpt_records_parse(bytes, a, &r, &count);
    if (ok)
        INVARIANT(rcpt_records_pack(r, count, out));
    arena_free(a);
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf first, second;
    if (size == 0)
        return 0;
    bool (*pack)(struct slice bytes, struct buf * out) =
        data[0] & 1 ? pack_head : pack_rcpts;
    buf_init(&first, UNIT_HEAD_MAX);
    buf_init(&second, UNIT_HEAD_MAX);
    if (pack(slice_make(data + 1, size - 1), &first)) {
        INVARIANT(pack(buf_slice(&first), &second));
        INVARIANT(slice_eq(buf_slice(&first), buf_slice(&second)));
    }
    buf_fini(&first);
    buf_fini(&second);
    return 0;
}
