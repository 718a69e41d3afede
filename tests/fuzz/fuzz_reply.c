/* SPDX-License-Identifier: Apache-2.0 */
/* Replies: however the bytes are cut, the same replies come out, within their bounds. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "proto/smtp_reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Everything that was read, as text to compare. */
static enum parse read_all(struct slice in, size_t piece, struct buf *out)
{
    struct smtp_reply_parser p;
    smtp_reply_parser_init(&p);
    enum parse got = PARSE_MORE;
    while (in.len > 0 && got != PARSE_BAD) {
        struct slice next = slice_head(in, piece);
        size_t used;
        got = smtp_reply_feed(&p, next, &used);
        INVARIANT(used <= next.len && (got != PARSE_MORE || used == next.len));
        INVARIANT(got != PARSE_BAD || used == 0);
        if (got == PARSE_DONE) {
            INVARIANT(p.reply.code >= 200 && p.reply.code < 600);
            INVARIANT(p.reply.text.len <= SMTP_REPLY_TEXT_MAX);
            INVARIANT(p.reply.line_count > 0);
            buf_printf(
                out, "%d %s %u ", p.reply.code, p.reply.status, p.reply.line_count);
            buf_append(out, p.reply.text);
        }
        in = slice_from(in, used);
    }
    smtp_reply_parser_fini(&p);
    return got;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct slice in = slice_make(data + 1, size - 1);
    struct buf whole, pieces;
    buf_init(&whole, 1u << 24);
    buf_init(&pieces, 1u << 24);
    enum parse a = read_all(in, in.len, &whole);
    enum parse b = read_all(in, data[0] % 16 + 1u, &pieces);
    INVARIANT(a == b || in.len == 0);
    INVARIANT(slice_eq(buf_slice(&whole), buf_slice(&pieces)));
    buf_clear(&whole);
    /* What is written is read back as one reply. */
    if (smtp_reply_append(&whole, 550, "5.7.1", slice_head(in, 4000))) {
        buf_clear(&pieces);
        if (buf_len(&whole) < SMTP_REPLY_BYTES_MAX)
            INVARIANT(
                read_all(buf_slice(&whole), buf_len(&whole), &pieces) != PARSE_MORE);
    }
    buf_fini(&whole);
    buf_fini(&pieces);
    return 0;
}
