/* SPDX-License-Identifier: Apache-2.0 */
/* The only door to randomness. Thread-safe. */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* From the kernel, fit for keys and nonces. */
void random_bytes(void *out, size_t len);
uint64_t random_u64(void);
/* Uniform in [0, below); below > 0. */
uint64_t random_below(uint64_t below);

#endif
