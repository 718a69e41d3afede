/* SPDX-License-Identifier: Apache-2.0 */
#include "node/intake/text_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/alloc.h"

static bool explain(const char *path, int error, char *why, size_t why_size)
{
    char text[100];
    snprintf(
        why, why_size, "cannot read %s: %s", path, strerror_r(error, text, sizeof(text)));
    return false;
}

static bool read_all(FILE *in, struct text_file *f, const char *path, size_t max,
    char *why, size_t why_size)
{
    struct stat st;
    if (fstat(fileno(in), &st) != 0)
        return explain(path, errno, why, why_size);
    if (!S_ISREG(st.st_mode)) {
        snprintf(why, why_size, "%s is not a file", path);
        return false;
    }
    if (st.st_size < 0 || (uint64_t)st.st_size > max) {
        snprintf(why, why_size, "%s is larger than %zu bytes", path, max);
        return false;
    }
    f->mode = st.st_mode;
    f->bytes = mem_alloc((size_t)st.st_size + 1);
    f->len = fread(f->bytes, 1, (size_t)st.st_size, in);
    return !ferror(in) || explain(path, EIO, why, why_size);
}

bool text_file_read(
    struct text_file *f, const char *path, size_t max, char *why, size_t why_size)
{
    *f = (struct text_file){0};
    FILE *in = fopen(path, "re");
    if (!in)
        return explain(path, errno, why, why_size);
    bool good = read_all(in, f, path, max, why, why_size);
    fclose(in);
    if (!good)
        text_file_fini(f);
    return good;
}

void text_file_fini(struct text_file *f)
{
    free(f->bytes);
    *f = (struct text_file){0};
}

struct text_lines text_lines_of(const struct text_file *f)
{
    return (struct text_lines){.rest = slice_make(f->bytes, f->len)};
}

bool text_lines_next(struct text_lines *lines, struct slice *line_out)
{
    while (lines->rest.len) {
        size_t end = slice_find(lines->rest, '\n');
        struct slice line = slice_trim(slice_head(lines->rest, end));
        lines->rest = slice_from(lines->rest, end + 1);
        lines->number++;
        if (line.len == 0 || line.ptr[0] == '#')
            continue;
        *line_out = line;
        return true;
    }
    return false;
}
