/* SPDX-License-Identifier: Apache-2.0 */
/* Small text files of the operator: users, recipients. Read whole, bounded, then walked
 * line by line without copies. */
#ifndef NODE_INTAKE_TEXT_FILE_H
#define NODE_INTAKE_TEXT_FILE_H

#include <sys/types.h>

#include "base/slice.h"

struct text_file {
    char *bytes;
    size_t len;
    mode_t mode; /* of the file */
};

/* False: `why` names the file and the reason. */
bool text_file_read(
    struct text_file *f, const char *path, size_t max, char *why, size_t why_size);
void text_file_fini(struct text_file *f);

struct text_lines {
    struct slice rest;
    int number; /* of the line last given, from 1 */
};
struct text_lines text_lines_of(const struct text_file *f);
/* The next line that is not empty and not a comment, trimmed; false at the end. */
bool text_lines_next(struct text_lines *lines, struct slice *line_out);

#endif
