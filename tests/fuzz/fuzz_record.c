/* SPDX-License-Identifier: Apache-2.0 */
/* A packed record from a damaged disk: refused, or sound enough to render, pack and read
 * again to the same bytes; and its JSON is JSON. */
#include <jansson.h>

#include "base/alloc.h"
#include "base/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct record r;
    unsigned char packed[RECORD_PACKED_MAX];
    char line[RECORD_LINE_MAX];
    if (!record_unpack(slice_make(data, size), &r))
        return 0;
    size_t len = record_pack(&r, packed, sizeof(packed));
    INVARIANT(len == size && memcmp(packed, data, len) == 0);
    record_render_text(&r, line, sizeof(line));
    INVARIANT(!strchr(line, '\n'));
    len = record_render_json(&r, line, 512 + (size ? data[size - 1] : 0) * 50u);
    json_t *json = json_loadb(line, len, JSON_ALLOW_NUL, NULL);
    INVARIANT(json);
    json_decref(json);
    return 0;
}
