/* SPDX-License-Identifier: Apache-2.0 */
#include "node/delivery/retry.h"

#include "base/random.h"

#define LEAST_MS 100
#define IN_DOUBT_MS INT64_C(1800000)

int64_t retry_wait_ms(int64_t first_ms, int64_t max_ms, unsigned attempts)
{
    int64_t wait = first_ms;
    for (unsigned n = 1; n < attempts && wait < max_ms; n++)
        wait *= 2;
    if (wait > max_ms)
        wait = max_ms;
    int64_t spread = wait / 5;
    if (spread > 0)
        wait += (int64_t)random_below((uint64_t)(2 * spread + 1)) - spread;
    return wait < LEAST_MS ? LEAST_MS : wait;
}

int64_t retry_in_doubt_ms(int64_t first_ms, int64_t max_ms, unsigned attempts)
{
    int64_t wait = retry_wait_ms(first_ms, max_ms, attempts);
    return wait < IN_DOUBT_MS ? IN_DOUBT_MS : wait;
}
