/* SPDX-License-Identifier: Apache-2.0 */
#include "base/random.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/alloc.h"

/* A small pool per thread: jitter and ids ask often, and a system call each would show.
 */
#define POOL_BYTES 512
static _Thread_local unsigned char pool[POOL_BYTES];
static _Thread_local size_t pool_left;

static void from_kernel(void *out, size_t len)
{
    unsigned char *at = out;
    while (len) {
        ssize_t n = getrandom(at, len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            die("baton: getrandom: %s", strerror(errno));
        at += n;
        len -= (size_t)n;
    }
}

void random_bytes(void *out, size_t len)
{
    if (len > 64) {
        from_kernel(out, len);
        return;
    }
    if (pool_left < len) {
        from_kernel(pool, sizeof(pool));
        pool_left = sizeof(pool);
    }
    pool_left -= len;
    memcpy(out, pool + pool_left, len);
    memset(pool + pool_left, 0, len);
}

uint64_t random_u64(void)
{
    uint64_t value;
    random_bytes(&value, sizeof(value));
    return value;
}

uint64_t random_below(uint64_t below)
{
    INVARIANT(below > 0);
    uint64_t limit = UINT64_MAX - UINT64_MAX % below;
    uint64_t value;
    do {
        value = random_u64();
    } while (value >= limit);
    return value % below;
}
