/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of the queue as bytes: proto/disk.proto packed, and the CRC32C of key and bytes
 * behind. The key is in the sum, so that a row that turns up under another key is damage
 * too. For queue/ only; no I/O. */
#ifndef QUEUE_RECORD_H
#define QUEUE_RECORD_H

#include "proto/disk.pb-c.h"
#include "queue/message.h"

#define ROW_CRC_BYTES 4u

void put_be32(unsigned char *at, uint32_t value);
void put_be64(unsigned char *at, uint64_t value);
uint32_t get_be32(const unsigned char *at);
uint64_t get_be64(const unsigned char *at);

/* Writes the sum behind value[0..len). */
void row_seal(struct slice key, unsigned char *value, size_t len);
/* Checks and cuts the sum off. */
bool row_open(struct slice key, struct slice value, struct slice *bytes_out);

/* --- raw rows --- */
#define RCPT_KEY_BYTES (UNIT_ID_BYTES + 2)
#define BODY_KEY_BYTES (MSG_ID_BYTES + 4)
void rcpt_key(struct unit_id unit, uint16_t index, unsigned char out[RCPT_KEY_BYTES]);
void body_key(struct msg_id id, uint32_t row, unsigned char out[BODY_KEY_BYTES]);

/* A body: the units that use it. */
struct bref {
    uint32_t units;
    uint32_t rows;
    uint64_t size;
    uint32_t crc;
};
#define BREF_BYTES 20u
void bref_pack(const struct bref *b, unsigned char out[BREF_BYTES]);
bool bref_unpack(struct slice bytes, struct bref *out);

/* A body that arrives. */
struct part {
    uint32_t rows;
    uint64_t bytes;
};
#define PART_BYTES 12u
void part_pack(const struct part *p, unsigned char out[PART_BYTES]);
bool part_unpack(struct slice bytes, struct part *out);

/* --- packed rows --- */
/* What owner, epoch and time a new unit gets. */
struct row_author {
    uint64_t node_id;
    uint32_t epoch;
    struct wall now;
    bool clustered; /* its rights are in a row of the cluster: none in this one */
};
/* The unit's row; `holder` and `holders` are room for the list of holders. All borrow. */
struct unit_row {
    Baton__Disk__Unit pb;
    Baton__Disk__Holder holder;
    Baton__Disk__Holder *holders[1];
};
void unit_row_make(struct unit_row *row, const struct message *m,
    const struct message_unit *u, const struct row_author *author);
/* The same for a unit that has a history: all but its counts, which say that all
 * recipients are open. */
void unit_row_make_again(
    struct unit_row *row, const struct unit_record *u, const struct row_author *author);
void rcpt_row_make(Baton__Disk__Rcpt *row, const struct rcpt_record *r, struct wall now);
/* A new recipient, due at once. */
void rcpt_row_make_new(
    Baton__Disk__Rcpt *row, const struct recipient *r, const struct message *m);

/* Everything is put into `arena`; NULL when it is no such row. */
Baton__Disk__Unit *unit_row_unpack(struct arena *arena, struct slice bytes);
Baton__Disk__Rcpt *rcpt_row_unpack(struct arena *arena, struct slice bytes);
Baton__Disk__Meta *meta_row_unpack(struct arena *arena, struct slice bytes);
Baton__Disk__Quarantined *quar_row_unpack(struct arena *arena, struct slice bytes);

/* Reads the fields in front without unpacking: of a Unit 1 to 9, of a Rcpt its state. */
struct row_head {
    uint64_t field[10]; /* [1] to [9], but [7] */
    struct slice bytes; /* field 7 */
};
void row_head_read(struct slice bytes, struct row_head *out);
enum { UNIT_OPEN = 1, UNIT_RCPTS, UNIT_HELD, UNIT_NEXT_DUE, UNIT_EXPIRES, UNIT_CREATED };
enum { UNIT_SIZE = 8, UNIT_ROWS };
static inline enum rcpt_state row_head_rcpt_state(const struct row_head *h)
{
    return (enum rcpt_state)(h->field[1] & 7);
}

/* Was it written with a row of the cluster beside it? */
static inline bool unit_row_is_clustered(const Baton__Disk__Unit *u)
{
    return u->term == 0;
}

/* Builds what readers get: a message of its own with one unit. Bytes are copied. */
struct unit_record *unit_record_make(
    struct unit_id id, const Baton__Disk__Unit *u, unsigned rcpt_max);
/* A whole row only. */
struct rcpt_record rcpt_record_make(
    struct arena *arena, uint16_t index, const Baton__Disk__Rcpt *r);
/* Adds the next recipient, of at most rcpt_max; false when it is malformed. */
bool unit_record_add(struct unit_record *u, uint16_t index, const Baton__Disk__Rcpt *r);

#endif
