/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void die(const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof(line) - 1, format, args);
    va_end(args);
    size_t len = n < 0 ? 0 : (size_t)n < sizeof(line) - 1 ? (size_t)n : sizeof(line) - 2;
    line[len] = '\n';
    if (write(STDERR_FILENO, line, len + 1) < 0)
        _exit(71);
    _exit(70);
}

void invariant_failed(const char *what, const char *file, int line)
{
    fprintf(stderr, "baton: bug: %s does not hold at %s:%d\n", what, file, line);
    abort();
}

void *mem_alloc(size_t size)
{
    void *p = malloc(size ? size : 1);
    if (!p)
        die("baton: out of memory (%zu bytes asked for); lower the limits or add memory",
            size);
    return p;
}

void *mem_zalloc(size_t size)
{
    void *p = calloc(1, size ? size : 1);
    if (!p)
        die("baton: out of memory (%zu bytes asked for); lower the limits or add memory",
            size);
    return p;
}

void *mem_realloc(void *old, size_t size)
{
    void *p = realloc(old, size ? size : 1);
    if (!p)
        die("baton: out of memory (%zu bytes asked for); lower the limits or add memory",
            size);
    return p;
}

char *mem_strdup(struct slice text)
{
    char *copy = mem_alloc(text.len + 1);
    if (text.len)
        memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    return copy;
}
