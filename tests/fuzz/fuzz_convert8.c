/* SPDX-License-Identifier: Apache-2.0 */
/* What comes out of the conversion has seven bits, and converting it again finds nothing.
 */
#include <stdlib.h>

#include "base/alloc.h"
#include "node/mail/convert8.h"
#include "node/mail/encode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct body *in = body_new();
    if (size)
        body_append(in, slice_make(data, size));
    struct body *out, *again;
    const char *why;
    enum convert8 r = convert8_message(in, &out, &why);
    INVARIANT((r == CONVERT8_DONE) == (out != NULL));
    INVARIANT((r == CONVERT8_REFUSED) == (why != NULL));
    if (out) {
        INVARIANT(convert8_message(out, &again, &why) == CONVERT8_NOTHING);
        /* Everything may be encoded, and each part gets a header. */
        INVARIANT(body_size(out) <= size * 45 + 200);
    }
    body_unref(out);
    body_unref(in);
    return 0;
}
