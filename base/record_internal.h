/* SPDX-License-Identifier: Apache-2.0 */
/* What record.c, record_render.c and log.c know of each other. */
#ifndef BASE_RECORD_INTERNAL_H
#define BASE_RECORD_INTERNAL_H

#include <stdarg.h>

#include "base/log.h"

/* On disk: never renumber. The value is text in each case; the type says how JSON writes
 * it. */
enum pair_type { PAIR_TEXT = 0, PAIR_INT = 1, PAIR_BOOL = 2 };

struct pair {
    enum pair_type type;
    struct slice key;
    struct slice value;
};

/* Start with *at = 0; false behind the last pair. Never looks past r->len. */
bool record_next_pair(const struct record *r, size_t *at, struct pair *out);
void record_vprintf(struct record *r, const char *key, const char *format, va_list args)
    __attribute__((format(printf, 3, 0)));
enum log_level log_event_level(enum log_event event);

#endif
