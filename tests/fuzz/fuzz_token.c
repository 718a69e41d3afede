/* SPDX-License-Identifier: Apache-2.0 */
/* What joins a cluster and what is shared in it: a token, as text and as bytes under a
 * right checksum; rows of the shared table. What is taken says the same when it is said
 * again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/crc32c.h"
#include "node/cluster/token.h"
#include "node/control/shared.h"
#include "proto/base64.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void decode(struct slice text)
{
    struct token t, again;
    char why[256] = "", out[TOKEN_TEXT_MAX];
    if (!token_decode(text, &t, why, sizeof(why))) {
        INVARIANT(why[0]);
        return;
    }
    INVARIANT(t.host_count >= 1 && t.host_count <= TOKEN_HOSTS_MAX && t.cluster[0]);
    token_encode(&t, out);
    INVARIANT(slice_eq(slice_str(out), slice_trim(text)));
    INVARIANT(token_decode(slice_str(out), &again, why, sizeof(why)));
    INVARIANT(memcmp(&t, &again, sizeof(t)) == 0);
}

static void with_checksum(struct slice body)
{
    struct buf bytes, text;
    uint32_t crc = crc32c(0, body.ptr, body.len);
    buf_init(&bytes, 1 << 16);
    buf_init(&text, 1 << 17);
    bool fits = buf_append(&bytes, body);
    for (int i = 3; i >= 0 && fits; i--)
        fits = buf_append_char(&bytes, (char)(crc >> (8 * i)));
    if (fits && base64_encode(&text, buf_slice(&bytes))) {
        while (buf_len(&text) && text.mem[text.tail - 1] == '=')
            text.tail--;
        for (size_t i = text.head; i < text.tail; i++)
            text.mem[i] = text.mem[i] == '+'   ? '-'
                          : text.mem[i] == '/' ? '_'
                                               : text.mem[i];
        decode(buf_slice(&text));
    }
    buf_fini(&bytes);
    buf_fini(&text);
}

static void rows(struct slice text)
{
    static struct shared table, other;
    struct wall now = {1800000000000};
    json_t *j = json_loadb(text.ptr, text.len, 0, NULL);
    table.count = other.count = 0;
    shared_merge(&table, j, now);
    INVARIANT(table.count <= SHARED_ROWS_MAX);
    INVARIANT(shared_merge(&table, j, now) == 0);
    json_t *told = shared_json(&table);
    shared_merge(&other, told, now);
    INVARIANT(shared_hash(&table) == shared_hash(&other));
    json_decref(told);
    json_decref(j);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice in = slice_make(data, size);
    decode(in);
    with_checksum(in);
    rows(in);
    return 0;
}
