/* SPDX-License-Identifier: Apache-2.0 */
/* PROXY headers: a verdict never changes with what follows, and each prefix of a good
 * header is unfinished. XCLIENT and base64 ride along. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "proto/base64.h"
#include "proto/proxy_header.h"
#include "proto/xclient.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void proxy(struct slice in)
{
    struct proxy_header h, again;
    size_t used, used_again;
    enum parse whole = proxy_header_parse(in, &h, &used);
    INVARIANT(used <= in.len && (used > 0) == (whole == PARSE_DONE));
    for (size_t len = 0; len < in.len; len++) {
        enum parse part = proxy_header_parse(slice_head(in, len), &again, &used_again);
        if (part == PARSE_BAD)
            INVARIANT(whole == PARSE_BAD);
        if (part == PARSE_DONE)
            INVARIANT(whole == PARSE_DONE && used == used_again);
        if (whole == PARSE_DONE && len < used)
            INVARIANT(part == PARSE_MORE);
    }
    if (whole == PARSE_DONE && !h.is_local)
        INVARIANT(h.source.ip.family != 0 && h.destination.ip.family != 0);
}

static void base64(struct slice in)
{
    struct buf octets, text;
    buf_init(&octets, 1u << 20);
    buf_init(&text, 1u << 20);
    if (base64_decode(&octets, in)) { /* one text for one octet string */
        INVARIANT(base64_encode(&text, buf_slice(&octets)));
        INVARIANT(slice_eq(buf_slice(&text), in));
    }
    buf_fini(&octets);
    buf_fini(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = slice_make(data, size);
    struct xclient x;
    proxy(slice_head(in, 600));
    base64(in);
    if (xclient_parse(in, &x) == PARSE_DONE) {
        for (int i = 0; i < XCLIENT_COUNT; i++)
            INVARIANT(
                x.text[i].len <= XCLIENT_VALUE_MAX && (x.given[i] || !x.text[i].len));
    }
    return 0;
}
