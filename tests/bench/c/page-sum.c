/*
 * CRC-32 (IEEE), as zlib has it and as the sums of a snapshot are. Carry-less multiplication folds 64
 * bytes at a time into the remainder; the constants are powers of x modulo the polynomial, bits
 * reversed.
 */
#include "limit.h"

/* Four bits at a time: of no account after the folding, and slow without. */
static uint32_t sum_on(uint32_t sum, const uint8_t *bytes, size_t count)
{
    static const uint32_t table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
        0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
        0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    for (size_t i = 0; i < count; i++) {
        sum ^= bytes[i];
        sum = (sum >> 4) ^ table[sum & 15];
        sum = (sum >> 4) ^ table[sum & 15];
    }
    return sum;
}

#ifdef __x86_64__
#include <immintrin.h>

#define FOLDING __attribute__((target("pclmul,sse4.1")))

FOLDING static inline __m128i fold(__m128i remainder, __m128i by, __m128i next)
{
    __m128i low = _mm_clmulepi64_si128(remainder, by, 0x00);
    __m128i high = _mm_clmulepi64_si128(remainder, by, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

FOLDING uint32_t page_sum(const uint8_t *page)
{
    const __m128i *words = (const __m128i *)page;
    const __m128i by_64 = _mm_set_epi64x(0x1c6e41596, 0x154442bd4);
    const __m128i by_16 = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0);
    __m128i lanes[4];
    for (int lane = 0; lane < 4; lane++)
        lanes[lane] = _mm_loadu_si128(words + lane);
    lanes[0] = _mm_xor_si128(lanes[0], _mm_cvtsi32_si128(-1));
    for (size_t at = 4; at < PAGE_BYTES / sizeof(*words); at += 4) {
        for (int lane = 0; lane < 4; lane++)
            lanes[lane] = fold(lanes[lane], by_64, _mm_loadu_si128(words + at + lane));
    }
    for (int lane = 1; lane < 4; lane++)
        lanes[0] = fold(lanes[0], by_16, lanes[lane]);
    uint8_t rest[16];
    _mm_storeu_si128((__m128i *)rest, lanes[0]);
    return ~sum_on(0, rest, sizeof(rest));
}
#else
uint32_t page_sum(const uint8_t *page)
{
    return ~sum_on(~0u, page, PAGE_BYTES);
}
#endif
