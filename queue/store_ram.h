/* SPDX-License-Identifier: Apache-2.0 */
/* The RAM store's inside, for its own files: store_ram.c (operations of a node alone,
 * reads), store_ram_cluster.c (rows of the cluster, copies, the quarantine). */
#ifndef QUEUE_STORE_RAM_H
#define QUEUE_STORE_RAM_H

#include "base/alloc.h"
#include "queue/store_internal.h"

#define RAM_ROW_BYTES 512u
#define RAM_VALUES 64u

struct ram_body {
    struct msg_id id;
    uint32_t units; /* live and put aside; 0: still arriving */
    struct body *body;
    uint64_t size;
    uint32_t crc;
};

struct ram_value {
    char name[65];
    char bytes[1024];
    size_t len;
};

/* Rows of one table of the cluster, by key. */
struct ram_rows {
    struct ram_row {
        uint8_t key_len;
        unsigned char key[STORE_ROW_KEY_MAX];
        size_t len;
        char *bytes; /* owned */
    } * v;
    size_t count, room;
};

struct ram_quar {
    struct unit_record *unit; /* owned */
    char reason[500];
    size_t reason_len;
    struct wall at;
};

struct ram_store {
    struct store base;
    pthread_mutex_t lock; /* all below; readers are other threads */
    struct unit_record **units;
    size_t unit_count, unit_room;
    struct ram_body *bodies;
    size_t body_count, body_room;
    struct ram_value values[RAM_VALUES];
    unsigned value_count;
    uint64_t rows; /* units and recipients */
    struct store_delta delta;
    struct ram_rows tables[2]; /* by enum store_row_table */
    struct ram_quar *quar;     /* by unit id */
    size_t quar_count, quar_room;
};

static inline struct ram_store *ram_of(struct store *s)
{
    return CONTAINER_OF(s, struct ram_store, base);
}

/* --- store_ram.c --- */
unsigned ram_open_rcpts(const struct unit_record *u);
struct unit_record *ram_copy_record(const struct unit_record *u);
/* Room for one more element, of a sorted array that doubles. */
void *ram_grow(void *array, size_t count, size_t *room, size_t element_bytes);
struct unit_record **ram_find_unit(struct ram_store *s, struct unit_id id);
/* Taken. */
void ram_insert_unit(struct ram_store *s, struct unit_record *u);
/* Out of the array: the caller's. The share of the body stays. */
struct unit_record *ram_take_unit(struct ram_store *s, struct unit_record **at);
struct ram_body *ram_find_body(struct ram_store *s, struct msg_id id);
/* One unit less uses it. */
void ram_release_body(struct ram_store *s, struct msg_id id);
/* ERR_OK or why lmdb_accept would refuse. */
enum err ram_may_take_body(
    struct ram_store *s, const struct message *m, uint32_t rows_on_disk);
void ram_put_body(
    struct ram_store *s, const struct message *m, uint32_t rows_on_disk, uint32_t units);
enum err ram_accept(struct ram_store *s, const struct message *m, uint32_t rows_on_disk);
/* `known`: what is not here is passed over. */
enum err ram_settle(struct ram_store *s, struct store_settle *e, bool known);

/* --- store_ram_cluster.c --- */
enum err ram_run_cluster(struct ram_store *s, struct store_op *op);
enum err ram_run_quar(struct ram_store *s, struct store_op *op);
bool ram_is_clustered(const struct ram_store *s, struct unit_id id);
enum err ram_scan_rows(struct store *s, enum store_row_table table,
    void (*row)(const struct store_row *row, void *ctx), void *ctx,
    uint64_t *damaged_out);
enum err ram_read_row(struct store *s, enum store_row_table table, struct slice key,
    char *out, size_t out_size, size_t *len_out);
enum err ram_next_quar(struct store *s, const struct unit_id *after, struct unit_id *out);
enum err ram_read_quar(struct store *s, struct unit_id id,
    void (*unit)(const struct store_quarantined *q, void *ctx), void *ctx);
void ram_free_cluster(struct ram_store *s);

#endif
