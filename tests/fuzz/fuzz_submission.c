/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever is submitted, in whatever portions: no Bcc is left in the header section, and
 * what is added is added once. The first octet is the size of the portions. */
#include <stdlib.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "node/mail/submission.h"
#include "proto/header_scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fix(struct body *out, struct slice in, size_t step)
{
    struct submission s;
    struct msg_id id = {{1}};
    submission_init(&s, out, SLICE("host.example"), id, (struct wall){0});
    for (size_t at = 0; at < in.len; at += step)
        submission_feed(&s, slice_head(slice_from(in, at), step));
    submission_end(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    struct slice in = slice_make(data + 1, size - 1);
    struct body *whole = body_new(), *pieces = body_new();
    fix(whole, in, SIZE_MAX / 2);
    fix(pieces, in, data[0] ? data[0] : 1);
    INVARIANT(
        body_size(whole) == body_size(pieces) && body_crc(whole) == body_crc(pieces));
    struct header_scan scan;
    header_scan_init(&scan);
    for (const struct body_chunk *c = body_chunks(whole); c; c = c->next)
        header_scan_feed(&scan, slice_make(c->bytes, c->len));
    header_scan_end(&scan);
    INVARIANT(scan.count[HEADER_BCC] == 0 && scan.count[HEADER_RESENT_BCC] == 0);
    INVARIANT(scan.count[HEADER_RETURN_PATH] == 0);
    INVARIANT(scan.count[HEADER_DATE] > 0 && scan.count[HEADER_MESSAGE_ID] > 0);
    body_unref(whole);
    body_unref(pieces);
    return 0;
}
