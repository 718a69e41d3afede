/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the table of settings into baton.yaml(5), between its two marks:
 *   params_doc docs/man/baton.yaml.5
 * A unit test fails when the page and the table have parted. */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/settings.h"

#define BEGIN ".\\\" BEGIN table of settings (by params_doc)\n"
#define END ".\\\" END table of settings\n"

static void read_page(const char *path, struct buf *out)
{
    FILE *file = fopen(path, "re");
    char bytes[4096];
    size_t n;
    if (!file)
        die("params_doc: cannot read %s", path);
    while ((n = fread(bytes, 1, sizeof(bytes), file)) > 0)
        buf_append(out, slice_make(bytes, n));
    fclose(file);
    buf_append_char(out, '\0');
}

int main(int argc, char **argv)
{
    struct buf page, table;
    if (argc != 2)
        die("usage: params_doc docs/man/baton.yaml.5");
    buf_init(&page, 1 << 20);
    buf_init(&table, 1 << 20);
    read_page(argv[1], &page);
    settings_document(&table);
    const char *text = buf_slice(&page).ptr;
    const char *begin = strstr(text, BEGIN), *end = strstr(text, END);
    if (!begin || !end || end < begin)
        die("params_doc: %s has not the two marks", argv[1]);
    FILE *file = fopen(argv[1], "we");
    if (!file)
        die("params_doc: cannot write %s", argv[1]);
    fprintf(file, "%.*s%s%.*s%s", (int)(begin - text), text, BEGIN,
        SLICE_ARG(buf_slice(&table)), end);
    if (fclose(file) != 0)
        die("params_doc: cannot write %s", argv[1]);
    buf_fini(&page);
    buf_fini(&table);
    return 0;
}
