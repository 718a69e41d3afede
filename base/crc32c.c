/* SPDX-License-Identifier: Apache-2.0 */
#include "base/crc32c.h"

#include <pthread.h>
#include <string.h>

static uint32_t table[8][256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void fill_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? (crc >> 1) ^ 0x82f63b78u : crc >> 1;
        table[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int t = 1; t < 8; t++)
            table[t][i] = (table[t - 1][i] >> 8) ^ table[0][table[t - 1][i] & 0xff];
}

static uint32_t by_table(uint32_t crc, const unsigned char *p, size_t len)
{
    pthread_once(&table_once, fill_table);
    for (; len >= 8; p += 8, len -= 8) {
        uint32_t low, high;
        memcpy(&low, p, 4);
        memcpy(&high, p + 4, 4);
        low ^= crc;
        crc = table[7][low & 0xff] ^ table[6][(low >> 8) & 0xff] ^
              table[5][(low >> 16) & 0xff] ^ table[4][low >> 24] ^ table[3][high & 0xff] ^
              table[2][(high >> 8) & 0xff] ^ table[1][(high >> 16) & 0xff] ^
              table[0][high >> 24];
    }
    while (len--)
        crc = (crc >> 8) ^ table[0][(crc ^ *p++) & 0xff];
    return crc;
}

#if defined(__x86_64__)
/* The instruction takes three cycles but can begin anew in each: three lanes side by side
 * are three times as fast. A row of a body is three of them and 20 bytes. */
#define LANE 1352u

/* What LANE zero bytes make of a register, byte by byte: it is linear, so the registers
 * of two lanes join as after(first) ^ second. */
static uint32_t after_lane[4][256];
static pthread_once_t after_once = PTHREAD_ONCE_INIT;

static void fill_after(void)
{
    static const unsigned char zeros[LANE];
    uint32_t of_bit[32];
    for (unsigned bit = 0; bit < 32; bit++)
        of_bit[bit] = by_table(1u << bit, zeros, LANE);
    for (unsigned byte = 0; byte < 4; byte++)
        for (unsigned value = 0; value < 256; value++)
            for (unsigned bit = 0; bit < 8; bit++)
                if (value >> bit & 1)
                    after_lane[byte][value] ^= of_bit[8 * byte + bit];
}

static uint32_t join(uint32_t first, uint32_t second)
{
    return after_lane[0][first & 0xff] ^ after_lane[1][(first >> 8) & 0xff] ^
           after_lane[2][(first >> 16) & 0xff] ^ after_lane[3][first >> 24] ^ second;
}

static uint64_t word_at(const unsigned char *p)
{
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
}

__attribute__((target("sse4.2"))) static uint32_t by_lanes(
    uint32_t crc, const unsigned char *p)
{
    uint64_t a = crc, b = 0, c = 0;
    for (unsigned i = 0; i < LANE; i += 8) {
        a = __builtin_ia32_crc32di(a, word_at(p + i));
        b = __builtin_ia32_crc32di(b, word_at(p + LANE + i));
        c = __builtin_ia32_crc32di(c, word_at(p + 2 * LANE + i));
    }
    return join(join((uint32_t)a, (uint32_t)b), (uint32_t)c);
}

__attribute__((target("sse4.2"))) static uint32_t by_instruction(
    uint32_t crc, const unsigned char *p, size_t len)
{
    if (len >= 3 * LANE)
        pthread_once(&after_once, fill_after);
    for (; len >= 3 * LANE; p += 3 * LANE, len -= 3 * LANE)
        crc = by_lanes(crc, p);
    uint64_t wide = crc;
    for (; len >= 8; p += 8, len -= 8)
        wide = __builtin_ia32_crc32di(wide, word_at(p));
    crc = (uint32_t)wide;
    while (len--)
        crc = __builtin_ia32_crc32qi(crc, *p++);
    return crc;
}
#endif

uint32_t crc32c(uint32_t crc, const void *bytes, size_t len)
{
    crc = ~crc;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return ~by_instruction(crc, bytes, len);
#endif
    return ~by_table(crc, bytes, len);
}
