/* SPDX-License-Identifier: Apache-2.0 */
/* What people see: words, numbers, ages, tables. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "node/batonctl.h"

void text_put(struct slice text)
{
    struct buf out;
    buf_init(&out, text.len * 10 + 1);
    utf8_escape(text, &out);
    fwrite(buf_slice(&out).ptr, 1, buf_len(&out), stdout);
    buf_fini(&out);
}

static const char *const codes[] = {
    "", "\033[1m", "\033[2m", "\033[31m", "\033[32m", "\033[33m"};

void paint(const struct ctl *ctl, enum colour colour, const char *format, ...)
{
    va_list args;
    bool painted = ctl->colour && colour != PLAIN;
    if (painted)
        fputs(codes[colour], stdout);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    if (painted)
        fputs("\033[0m", stdout);
}

struct slice get_text(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_string(value))
        return SLICE("");
    return slice_make(json_string_value(value), json_string_length(value));
}

int64_t get_int(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

bool get_bool(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

static bool digits(struct slice text, size_t at, size_t len, uint64_t max, int *out)
{
    uint64_t value;
    if (text.len < at + len || !slice_u64(slice_make(text.ptr + at, len), max, &value))
        return false;
    *out = (int)value;
    return true;
}

bool iso_parse(struct slice text, struct wall *out)
{
    struct tm tm = {0};
    int ms;
    if (text.len != 24 || !digits(text, 0, 4, 9999, &tm.tm_year) ||
        !digits(text, 5, 2, 12, &tm.tm_mon) || !digits(text, 8, 2, 31, &tm.tm_mday) ||
        !digits(text, 11, 2, 23, &tm.tm_hour) || !digits(text, 14, 2, 59, &tm.tm_min) ||
        !digits(text, 17, 2, 60, &tm.tm_sec) || !digits(text, 20, 3, 999, &ms))
        return false;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    out->ms = (int64_t)timegm(&tm) * 1000 + ms;
    return true;
}

void age_format(
    const struct ctl *ctl, const json_t *object, const char *key, char out[32])
{
    struct wall t;
    char text[24];
    if (!iso_parse(get_text(object, key), &t)) {
        snprintf(out, 32, "-");
        return;
    }
    int64_t age = ctl->now.ms - t.ms;
    duration_format(age < 0 ? -age : age, text);
    snprintf(out, 32, "%s", text);
}

void count_format(int64_t n, char out[32])
{
    char plain[24];
    int len = snprintf(plain, sizeof(plain), "%" PRId64, n), at = 0;
    for (int i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0 && plain[i - 1] != '-')
            out[at++] = ',';
        out[at++] = plain[i];
    }
    out[at] = '\0';
}

void bytes_format(int64_t n, char out[32])
{
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB"};
    double value = (double)n;
    unsigned unit = 0;
    while (value >= 999.5 && unit < 4) {
        value /= 1000;
        unit++;
    }
    snprintf(out, 32, unit && value < 9.95 ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

const char *plural(int64_t n, const char *one, const char *many)
{
    return n == 1 ? one : many;
}

enum colour event_colour(struct slice event, struct slice level)
{
    static const struct {
        struct slice event;
        enum colour colour;
    } rows[] = {{SLICE_INIT("delivered"), GREEN}, {SLICE_INIT("deferred"), YELLOW},
        {SLICE_INIT("held"), YELLOW}, {SLICE_INIT("bounced"), RED},
        {SLICE_INIT("expired"), RED}, {SLICE_INIT("dropped"), RED},
        {SLICE_INIT("received"), BOLD}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (slice_eq(rows[i].event, event))
            return rows[i].colour;
    if (slice_eq(level, SLICE("error")))
        return RED;
    return slice_eq(level, SLICE("warn")) ? YELLOW : PLAIN;
}

/* --- tables --- */

void table_init(struct table *t, unsigned columns, const char *const *titles)
{
    INVARIANT(columns <= TABLE_COLUMNS);
    *t = (struct table){.columns = columns};
    table_row(t, BOLD);
    for (unsigned i = 0; i < columns; i++) {
        t->right[i] = titles[i][0] == '>';
        table_cell(t, i, slice_str(titles[i] + t->right[i]));
    }
}

void table_row(struct table *t, enum colour colour)
{
    t->row = mem_realloc(t->row, (t->rows + 1) * sizeof(*t->row));
    memset(&t->row[t->rows], 0, sizeof(*t->row));
    t->row[t->rows].colour = colour;
    t->rows++;
}

void table_cell(struct table *t, unsigned column, struct slice text)
{
    struct buf out;
    buf_init(&out, text.len * 10 + 1);
    utf8_escape(text, &out);
    free(t->row[t->rows - 1].cells[column]);
    t->row[t->rows - 1].cells[column] = mem_strdup(buf_slice(&out));
    buf_fini(&out);
}

void table_count(struct table *t, unsigned column, int64_t n)
{
    char text[32];
    count_format(n, text);
    table_cell(t, column, slice_str(text));
}

static unsigned column_width(const struct table *t, unsigned column)
{
    unsigned width = 0;
    for (unsigned i = 0; i < t->rows; i++) {
        const char *cell = t->row[i].cells[column];
        unsigned w = cell ? utf8_columns(slice_str(cell)) : 0;
        width = w > width ? w : width;
    }
    return width;
}

static void print_row(
    const struct ctl *ctl, const struct table *t, unsigned row, const unsigned *widths)
{
    for (unsigned i = 0; i < t->columns; i++) {
        const char *cell = t->row[row].cells[i] ? t->row[row].cells[i] : "";
        int pad = (int)(widths[i] - utf8_columns(slice_str(cell)));
        bool last = i + 1 == t->columns;
        if (t->right[i])
            printf("%*s", pad, "");
        paint(ctl, t->row[row].colour, "%s", cell);
        if (!last)
            printf("%*s", (t->right[i] ? 0 : pad) + 2, "");
    }
    putchar('\n');
}

void table_free(struct table *t)
{
    for (unsigned i = 0; i < t->rows; i++)
        for (unsigned j = 0; j < t->columns; j++)
            free(t->row[i].cells[j]);
    free(t->row);
    *t = (struct table){0};
}

void table_print(const struct ctl *ctl, struct table *t)
{
    unsigned widths[TABLE_COLUMNS];
    for (unsigned i = 0; i < t->columns; i++)
        widths[i] = column_width(t, i);
    for (unsigned i = 0; i < t->rows; i++)
        print_row(ctl, t, i, widths);
    table_free(t);
}
