/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static _Atomic int64_t wall_offset_ms;
static atomic_bool wall_offset_read;

struct mono mono_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (struct mono){(int64_t)t.tv_sec * NS_PER_S + t.tv_nsec};
}

void wall_shift_ms(int64_t ms)
{
    atomic_store(&wall_offset_read, true);
    atomic_store(&wall_offset_ms, ms);
}

static void read_environment(void)
{
    const char *text = getenv("BATON_TEST_WALL_OFFSET_MS");
    wall_shift_ms(text ? strtoll(text, NULL, 10) : 0);
}

struct wall wall_now(void)
{
    struct timespec t;
    if (!atomic_load_explicit(&wall_offset_read, memory_order_relaxed))
        read_environment();
    clock_gettime(CLOCK_REALTIME, &t);
    int64_t ms = (int64_t)t.tv_sec * 1000 + t.tv_nsec / NS_PER_MS;
    return (struct wall){
        ms + atomic_load_explicit(&wall_offset_ms, memory_order_relaxed)};
}

static void to_utc(struct wall t, struct tm *tm, int *ms_out)
{
    int64_t seconds = t.ms / 1000;
    int ms = (int)(t.ms % 1000);
    if (ms < 0) {
        ms += 1000;
        seconds--;
    }
    time_t clock = (time_t)seconds;
    gmtime_r(&clock, tm);
    *ms_out = ms;
}

void wall_format_iso(struct wall t, char out[32])
{
    struct tm tm;
    int ms;
    to_utc(t, &tm, &ms);
    size_t n = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out + n, 32 - n, ".%03dZ", ms);
}

void wall_format_rfc5322(struct wall t, char out[48])
{
    /* Not strftime's %a and %b: those follow the locale. */
    static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul",
        "Aug", "Sep", "Oct", "Nov", "Dec"};
    struct tm tm;
    int ms;
    to_utc(t, &tm, &ms);
    snprintf(out, 48, "%s, %d %s %d %02d:%02d:%02d +0000 (UTC)", days[tm.tm_wday],
        tm.tm_mday, months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min,
        tm.tm_sec);
}

void duration_format(int64_t ms, char out[24])
{
    static const struct {
        int64_t seconds;
        char unit;
    } units[] = {{86400, 'd'}, {3600, 'h'}, {60, 'm'}, {1, 's'}};
    int64_t s = ms / 1000;
    size_t n = 0;
    int parts = 0;
    for (size_t i = 0; i < 4 && parts < 2 && n < 20; i++) {
        int64_t count = s / units[i].seconds;
        if (count == 0 && !(i == 3 && parts == 0))
            continue;
        int w = snprintf(out + n, 24 - n, "%" PRId64 "%c", count, units[i].unit);
        n += w > 0 ? (size_t)w : 0;
        s -= count * units[i].seconds;
        parts++;
    }
}
