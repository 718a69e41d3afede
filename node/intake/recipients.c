/* SPDX-License-Identifier: Apache-2.0 */
#include "node/intake/recipients.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "node/intake/text_file.h"
#include "proto/smtp_path.h"

#define FILE_MAX (64u << 20)

struct recipients {
    struct text_file text;
    struct slice *entries; /* sorted without case; they point into the text */
    unsigned count;
};

static int compare(const void *a, const void *b)
{
    const struct slice *x = a, *y = b;
    size_t shorter = x->len < y->len ? x->len : y->len;
    for (size_t i = 0; i < shorter; i++) {
        int difference =
            (unsigned char)ascii_lower(x->ptr[i]) - (unsigned char)ascii_lower(y->ptr[i]);
        if (difference)
            return difference;
    }
    return (x->len > y->len) - (x->len < y->len);
}

static bool is_entry(struct slice line)
{
    struct smtp_path path;
    char address[SMTP_LOCAL_MAX + 4];
    if (slice_find(line, '@') < line.len)
        return smtp_address_parse(line, &path) == PARSE_DONE;
    if (line.len == 0 || line.len > SMTP_LOCAL_MAX)
        return false;
    memcpy(address, line.ptr, line.len);
    memcpy(address + line.len, "@a.b", 4);
    return smtp_address_parse(slice_make(address, line.len + 4), &path) == PARSE_DONE;
}

static bool add_lines(
    struct recipients *r, const char *file, struct settings_problems *problems)
{
    struct text_lines lines = text_lines_of(&r->text);
    struct slice line;
    unsigned cap = 0;
    bool good = true;
    while (text_lines_next(&lines, &line)) {
        if (!is_entry(line)) {
            settings_problem(problems, file, lines.number, "recipients",
                "not an address or a local part: %.*s", SLICE_ARG(slice_head(line, 100)));
            good = false;
            continue;
        }
        if (r->count == cap) {
            cap = cap ? cap * 2 : 64;
            r->entries = mem_realloc(r->entries, cap * sizeof(*r->entries));
        }
        r->entries[r->count++] = line;
    }
    return good;
}

struct recipients *recipients_load(const char *file, const char *settings_file,
    int settings_line, struct settings_problems *problems)
{
    char why[200];
    struct recipients *r = mem_zalloc(sizeof(*r));
    if (!text_file_read(&r->text, file, FILE_MAX, why, sizeof(why))) {
        settings_problem(problems, settings_file, settings_line, "recipients", "%s", why);
        free(r);
        return NULL;
    }
    if (!add_lines(r, file, problems)) {
        recipients_free(r);
        return NULL;
    }
    if (r->count)
        qsort(r->entries, r->count, sizeof(*r->entries), compare);
    return r;
}

void recipients_free(struct recipients *r)
{
    if (!r)
        return;
    text_file_fini(&r->text);
    free(r->entries);
    free(r);
}

static bool has(const struct recipients *r, struct slice entry)
{
    return r->count &&
           bsearch(&entry, r->entries, r->count, sizeof(*r->entries), compare) != NULL;
}

bool recipients_contain(
    const struct recipients *r, struct slice address, struct slice local)
{
    return has(r, address) || has(r, local);
}

unsigned recipients_count(const struct recipients *r)
{
    return r->count;
}
