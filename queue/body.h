/* SPDX-License-Identifier: Apache-2.0 */
/* The octets of a message in memory: a chain of chunks, appended by one thread, then
 * shared read-only. Always in the form that goes over the wire without dot-stuffing: CRLF
 * line ends, unless it came by BDAT and is sent by BDAT. Reference counted. */
#ifndef QUEUE_BODY_H
#define QUEUE_BODY_H

#include "base/slice.h"

/* One row on disk: 4076 bytes of body and 4 of CRC32C make 4080, one LMDB overflow page.
 */
#define BODY_ROW_BYTES 4076

struct body_chunk {
    struct body_chunk *next;
    uint32_t len;
    uint32_t
        cap; /* a multiple of BODY_ROW_BYTES; less than one in a small body's only one */
    char bytes[];
};

struct body;

struct body *body_new(void);
struct body *body_ref(struct body *b);
void body_unref(struct body *b);
void body_append(struct body *b, struct slice bytes);
uint64_t body_size(const struct body *b);
/* Chained CRC32C of all of it. */
uint32_t body_crc(const struct body *b);
/* Memory taken. */
uint64_t body_memory(const struct body *b);
const struct body_chunk *body_chunks(const struct body *b);
/* Chunks but the last are full, so byte n is in row n / BODY_ROW_BYTES: row r's bytes;
 * empty when it was dropped or is not there. Walks the chain: for many rows use a cursor.
 */
struct slice body_row(const struct body *b, uint32_t row);
uint32_t body_rows(const struct body *b);
/* Walks rows in order. The chunk of a row that is complete stays where it is until it is
 * dropped, so the store's writer may walk complete rows while its owner appends. */
struct body_row_cursor {
    const struct body_chunk *chunk; /* NULL: no such row in memory */
    uint32_t at;
};
void body_rows_from(const struct body *b, uint32_t row, struct body_row_cursor *out);
/* Empty behind the end. */
struct slice body_row_next(struct body_row_cursor *at);
/* Drops the chunks whose rows are all below `row` (they are on disk); size and CRC stay,
 * so appending goes on. Rows that a STORE_OP_BODY_ROWS under way names must stay. */
void body_drop_before(struct body *b, uint32_t row);
/* The last `len` bytes (at most 4) of what was appended, for "does it end in CRLF". */
struct slice body_tail(const struct body *b, size_t len);

#endif
