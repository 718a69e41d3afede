/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks of finished lines, one a thread, and their way to standard error. */
#ifndef BASE_LOG_INTERNAL_H
#define BASE_LOG_INTERNAL_H

#include <pthread.h>

#include "base/log.h"

#define LOG_BLOCK_BYTES 32768

struct log_block {
    struct log_block *next; /* of all threads' */
    struct log_block **at;  /* what points to this one */
    pthread_mutex_t lock;   /* the owner's, and once a second the sweeper's */
    size_t len;
    char bytes[LOG_BLOCK_BYTES];
};

/* Is standard error the journal's socket (systemd.exec(5), JOURNAL_STREAM)? */
bool log_output_is_journal(void);
/* Starts the sweeper, and flushes when the process exits. Once; later calls do nothing.
 */
void log_output_start(void);
/* This thread's block, locked, with room for `room` bytes more. */
struct log_block *log_block_take(size_t room);
/* Unlocks. `now`: writes it out first. */
void log_block_give(struct log_block *block, bool now);

#endif
