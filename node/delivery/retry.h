/* SPDX-License-Identifier: Apache-2.0 */
/* When to try again. Pure but for the jitter, which keeps mail that failed together from
 * coming back together. */
#ifndef NODE_DELIVERY_RETRY_H
#define NODE_DELIVERY_RETRY_H

#include "base/clock.h"
#include "base/settings.h"

/* The wait after the n-th attempt (1: the first): first * 2^(n-1), at most max, with up
 * to 20 % either way, and never below 100 ms. */
int64_t retry_wait_ms(int64_t first_ms, int64_t max_ms, unsigned attempts);
/* A recipient whose dot went out without a reply: half an hour at least, since whoever
 * took it may still be working on it. */
int64_t retry_in_doubt_ms(int64_t first_ms, int64_t max_ms, unsigned attempts);

#endif
