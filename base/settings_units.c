/* SPDX-License-Identifier: Apache-2.0 */
/* Durations, sizes and rates as people write them, and back. */
#include <inttypes.h>
#include <stdio.h>

#include "base/settings.h"

struct unit {
    struct slice name;
    uint64_t factor;
};

/* Largest first: "1h30m" goes down, "30m1h" is a mistake. */
static const struct unit duration_units[] = {{SLICE_INIT("w"), 604800000},
    {SLICE_INIT("d"), 86400000}, {SLICE_INIT("h"), 3600000}, {SLICE_INIT("m"), 60000},
    {SLICE_INIT("s"), 1000}, {SLICE_INIT("ms"), 1}};
#define DURATION_UNITS (sizeof(duration_units) / sizeof(duration_units[0]))

static const struct unit size_units[] = {{SLICE_INIT("TB"), 1000000000000},
    {SLICE_INIT("TiB"), UINT64_C(1) << 40}, {SLICE_INIT("GB"), 1000000000},
    {SLICE_INIT("GiB"), 1 << 30}, {SLICE_INIT("MB"), 1000000},
    {SLICE_INIT("MiB"), 1 << 20}, {SLICE_INIT("KB"), 1000}, {SLICE_INIT("KiB"), 1024},
    {SLICE_INIT("kB"), 1000}, {SLICE_INIT("B"), 1}};
#define SIZE_UNITS (sizeof(size_units) / sizeof(size_units[0]))

/* Takes digits, then letters, off the front. */
static bool take_part(struct slice *text, uint64_t *number_out, struct slice *unit_out)
{
    size_t digits = 0, letters = 0;
    while (digits < text->len && ascii_is_digit(text->ptr[digits]))
        digits++;
    if (!slice_u64(slice_head(*text, digits), INT64_MAX, number_out))
        return false;
    *text = slice_from(*text, digits);
    while (letters < text->len && ascii_is_alpha(text->ptr[letters]))
        letters++;
    *unit_out = slice_head(*text, letters);
    *text = slice_from(*text, letters);
    return true;
}

static bool multiply(uint64_t number, uint64_t factor, uint64_t *out)
{
    return !__builtin_mul_overflow(number, factor, out) && *out <= INT64_MAX;
}

/* Finds the unit at or behind `from`. */
static bool find_unit(const struct unit *units, size_t count, size_t from,
    struct slice name, size_t *at_out)
{
    for (size_t i = from; i < count; i++)
        if (slice_eq(units[i].name, name)) {
            *at_out = i;
            return true;
        }
    return false;
}

bool duration_parse(struct slice text, int64_t *ms_out)
{
    uint64_t sum = 0, number, part;
    struct slice unit;
    size_t next = 0, at;
    if (slice_eq(text, SLICE("0"))) {
        *ms_out = 0;
        return true;
    }
    if (text.len == 0)
        return false;
    while (text.len) {
        if (!take_part(&text, &number, &unit) ||
            !find_unit(duration_units, DURATION_UNITS, next, unit, &at) ||
            !multiply(number, duration_units[at].factor, &part) || part > INT64_MAX - sum)
            return false;
        sum += part;
        next = at + 1;
    }
    *ms_out = (int64_t)sum;
    return true;
}

bool size_parse(struct slice text, uint64_t *bytes_out)
{
    uint64_t number, bytes;
    struct slice unit;
    size_t at = SIZE_UNITS - 1;
    if (!take_part(&text, &number, &unit) || text.len)
        return false;
    if (unit.len && !find_unit(size_units, SIZE_UNITS, 0, unit, &at))
        return false;
    if (!multiply(number, size_units[at].factor, &bytes))
        return false;
    *bytes_out = bytes;
    return true;
}

bool rate_parse(struct slice text, struct rate *out)
{
    size_t slash = slice_find(text, '/'), at;
    struct slice per = slice_from(text, slash + 1);
    uint64_t count;
    int64_t per_ms;
    if (slash == text.len || !slice_u64(slice_head(text, slash), UINT32_MAX, &count))
        return false;
    if (find_unit(duration_units, DURATION_UNITS, 0, per, &at))
        per_ms = (int64_t)duration_units[at].factor;
    else if (!duration_parse(per, &per_ms))
        return false;
    if (per_ms <= 0)
        return false;
    *out = (struct rate){(uint32_t)count, per_ms};
    return true;
}

static void print_in(
    uint64_t value, const struct unit *units, size_t count, char *out, size_t out_size)
{
    for (size_t i = 0; i < count; i++)
        if (value % units[i].factor == 0) {
            snprintf(out, out_size, "%" PRIu64 "%s", value / units[i].factor,
                units[i].name.ptr);
            return;
        }
}

void duration_print(int64_t ms, char out[32])
{
    /* Weeks are understood, but days are what everybody expects to see. */
    if (ms <= 0)
        snprintf(out, 32, "0");
    else
        print_in((uint64_t)ms, duration_units + 1, DURATION_UNITS - 1, out, 32);
}

void size_print(uint64_t bytes, char out[32])
{
    if (bytes == 0)
        snprintf(out, 32, "0");
    else
        print_in(bytes, size_units, SIZE_UNITS, out, 32);
}

void rate_print(struct rate rate, char out[64])
{
    char per[32];
    duration_print(rate.per_ms, per);
    snprintf(out, 64, "%" PRIu32 "/%s", rate.count, per);
}
