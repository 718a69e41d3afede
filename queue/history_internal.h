/* SPDX-License-Identifier: Apache-2.0 */
/* The history's files. A segment is NNNNNNNNNNNNNNNN.log, its number in hex: frames of
 * length (4 bytes), CRC32C (4) and a packed record, integers big-endian. When it is full
 * it is sealed: beside it comes .idx, a header and two sorted lists of (hash, offset of
 * the frame), of message ids and of addresses. Hashes are hints: who looks checks the
 * record. Segments never change after that. For queue/history*.c only. */
#ifndef QUEUE_HISTORY_INTERNAL_H
#define QUEUE_HISTORY_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "queue/history.h"

#define FRAME_HEAD 8u
#define FRAME_MAX 4096u /* a packed record, with room to spare */

/* --- history_index.c --- */
enum index_kind { INDEX_ID, INDEX_ADDRESS, INDEX_KINDS };
struct index_entry {
    uint32_t hash;
    uint32_t offset;
};
struct index_list {
    struct index_entry *items;
    uint32_t count, room;
};
struct segment_index {
    struct index_list by[INDEX_KINDS];
};

struct segment {
    uint64_t number;
    int64_t first_ms, last_ms; /* of its records */
    uint32_t bytes;            /* of the log */
    uint32_t index_bytes;      /* 0: not sealed */
};

uint32_t history_hash_id(struct msg_id id);
uint32_t history_hash_address(struct slice address);
void index_clear(struct segment_index *x);
void index_fini(struct segment_index *x);
/* Files the record, whose frame is at `offset`, and moves the segment's times. */
void index_record(
    struct segment_index *x, struct segment *s, const struct record *r, uint32_t offset);
/* Sorts and writes it; fills index_bytes. */
bool index_write(int dir_fd, struct segment *s, struct segment_index *x);
/* Reads the header of a sealed segment whose log has s->bytes; false when it does not
 * fit. */
bool index_read(int dir_fd, struct segment *s);

/* Offsets of frames, in order of the file. */
struct offsets {
    uint32_t *items;
    uint32_t count, room;
};
void offsets_add(struct offsets *o, uint32_t offset);
void index_find_memory(const struct segment_index *x, enum index_kind kind, uint32_t hash,
    struct offsets *out);
void index_find_file(int dir_fd, const struct segment *s, enum index_kind kind,
    uint32_t hash, struct offsets *out);

/* --- history_segment.c --- */
void segment_name(uint64_t number, const char *suffix, char out[24]);
/* Reads all frames, files them, and cuts a torn tail off; fills bytes and times. */
bool segment_rebuild(int dir_fd, struct segment *s, struct segment_index *x);
bool segment_read(int log_fd, uint32_t offset, struct record *out);

/* --- history.c --- */
struct history {
    char *dir;
    int dir_fd;
    int64_t keep_ms;
    uint64_t max_bytes;
    uint32_t segment_max;
    pthread_t thread;
    int wake_fd;

    pthread_mutex_t lock; /* the buffers, and flushing */
    pthread_cond_t flushed;
    unsigned char *buffers[2];
    unsigned filling;
    size_t used;
    uint64_t flush_asked, flush_done;
    bool stop;

    pthread_mutex_t list_lock; /* below; only the thread changes them */
    struct segment *segments;  /* oldest first; the last one is open when log_fd >= 0 */
    unsigned count, room;
    struct segment_index index; /* of the open one */
    int log_fd;

    atomic_bool clock_trusted;
    bool broken; /* the last write failed, and that was said */
    struct mono synced_at;
};
/* What the sink has taken before this call can be found after it. */
void history_flush(struct history *h);

#endif
