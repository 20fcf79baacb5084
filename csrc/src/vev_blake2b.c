/* BLAKE2b after RFC 7693, cut down to what is needed: one call, no key, 16 bytes out. */
#include "vev_blake2b.h"

#include "vev_base.h"

#define BLOCK_SIZE 128
#define DIGEST_SIZE 16

/* The first 64 bits of the fractional parts of the square roots of the first eight primes. */
static const uint64_t iv[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};

/* The order in which a round takes the words of the message; rounds 10 and 11 are as 0 and 1. */
static const uint8_t sigma[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

static inline uint64_t rotate_right(uint64_t x, unsigned n) { return x >> n | x << (64 - n); }

#define MIX(a, b, c, d, x, y)                                                                      \
    do {                                                                                           \
        v[a] += v[b] + (x);                                                                        \
        v[d] = rotate_right(v[d] ^ v[a], 32);                                                      \
        v[c] += v[d];                                                                              \
        v[b] = rotate_right(v[b] ^ v[c], 24);                                                      \
        v[a] += v[b] + (y);                                                                        \
        v[d] = rotate_right(v[d] ^ v[a], 16);                                                      \
        v[c] += v[d];                                                                              \
        v[b] = rotate_right(v[b] ^ v[c], 63);                                                      \
    } while (0)

/* Written out for each round, so that the order of the words is known when this is compiled. */
#define ROUND(r)                                                                                   \
    do {                                                                                           \
        MIX(0, 4, 8, 12, m[sigma[r][0]], m[sigma[r][1]]);                                          \
        MIX(1, 5, 9, 13, m[sigma[r][2]], m[sigma[r][3]]);                                          \
        MIX(2, 6, 10, 14, m[sigma[r][4]], m[sigma[r][5]]);                                         \
        MIX(3, 7, 11, 15, m[sigma[r][6]], m[sigma[r][7]]);                                         \
        MIX(0, 5, 10, 15, m[sigma[r][8]], m[sigma[r][9]]);                                         \
        MIX(1, 6, 11, 12, m[sigma[r][10]], m[sigma[r][11]]);                                       \
        MIX(2, 7, 8, 13, m[sigma[r][12]], m[sigma[r][13]]);                                        \
        MIX(3, 4, 9, 14, m[sigma[r][14]], m[sigma[r][15]]);                                        \
    } while (0)

/* Take in one block. `total_size` counts the bytes of the message up to its end. */
static void compress(uint64_t h[8], const uint8_t *block, uint64_t total_size, bool last)
{
    uint64_t m[16], v[16];
    for (int i = 0; i < 16; i++)
        m[i] = vev_load64(block + 8 * i);
    memcpy(v, h, 8 * sizeof *v);
    memcpy(v + 8, iv, sizeof iv);
    v[12] ^= total_size;
    if (last)
        v[14] = ~v[14];
    ROUND(0);
    ROUND(1);
    ROUND(2);
    ROUND(3);
    ROUND(4);
    ROUND(5);
    ROUND(6);
    ROUND(7);
    ROUND(8);
    ROUND(9);
    ROUND(0);
    ROUND(1);
    for (int i = 0; i < 8; i++)
        h[i] ^= v[i] ^ v[i + 8];
}

void vev_blake2b_128(uint8_t digest[16], const void *data, size_t size)
{
    uint64_t h[8];
    memcpy(h, iv, sizeof h);
    h[0] ^= 0x01010000u ^ DIGEST_SIZE; /* parameter block: fan-out 1, depth 1, no key */
    const uint8_t *p = data;
    uint64_t done = 0;
    /* The last block, even a full one, is marked as such: so it stays out of this loop. */
    for (; size - done > BLOCK_SIZE; done += BLOCK_SIZE)
        compress(h, p + done, done + BLOCK_SIZE, false);
    uint8_t block[BLOCK_SIZE] = {0};
    if (size != 0)
        memcpy(block, p + done, (size_t)(size - done));
    compress(h, block, size, true);
    memcpy(digest, h, DIGEST_SIZE);
}
