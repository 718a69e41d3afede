/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C (Castagnoli), by the SSE4.2 or ARMv8 instruction where the machine has it. */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Chains: crc32c(crc32c(0, a), b) is the CRC of a followed by b. */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t len);

#endif
