/* SPDX-License-Identifier: Apache-2.0 */
/* The only door to clocks. Durations are counted on CLOCK_BOOTTIME (it goes on during
 * suspend); wall time is for what people and other machines read. The two cannot be mixed
 * up: each instant is a struct of its own. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mono {
    int64_t ns;
};
struct wall {
    int64_t ms; /* since 1970-01-01 UTC */
};

#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S INT64_C(1000000000)

struct mono mono_now(void);
struct wall wall_now(void);
static inline struct mono mono_add_ms(struct mono t, int64_t ms)
{
    return (struct mono){t.ns + ms * NS_PER_MS};
}
/* a - b in milliseconds, rounded down. */
static inline int64_t mono_diff_ms(struct mono a, struct mono b)
{
    return (a.ns - b.ns) / NS_PER_MS;
}
#define MONO_NEVER ((struct mono){INT64_MAX})

/* Shifts wall time by so much from now on: for tests of expiry, and nothing else.
 * Also taken once from the environment, BATON_TEST_WALL_OFFSET_MS, at the first wall_now.
 */
void wall_shift_ms(int64_t ms);

/* "2026-11-22T15:43:38.123Z"; `out` of 32 bytes. */
void wall_format_iso(struct wall t, char out[32]);
/* "Sun, 22 Nov 2026 15:43:38 +0000 (UTC)" (RFC 5322 3.3); `out` of 48 bytes. Always UTC:
 * a cluster spans zones, and a reader who compares nodes should not have to add. */
void wall_format_rfc5322(struct wall t, char out[48]);
/* "3d4h", "5m10s", "0s": the two largest units; `out` of 24 bytes. */
void duration_format(int64_t ms, char out[24]);

#endif
