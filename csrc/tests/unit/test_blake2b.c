#include "vev_blake2b.h"

#include "vev_test.h"

static void check_digest(const void *data, size_t size, const char *expected_hex)
{
    uint8_t *copy = test_copy(data, size);
    uint8_t digest[16];
    char hex[33];
    vev_blake2b_128(digest, copy, size);
    for (int i = 0; i < 16; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    CHECK_STR(hex, expected_hex);
    free(copy);
}

/* Expected values: hashlib.blake2b(data, digest_size=16) of Python. */
static void known_values(void)
{
    check_digest("", 0, "cae66941d9efbd404e4d88758ea67670");
    check_digest("abc", 3, "cf4ab791c62b8d2b2109c90275287816");
}

/* Sizes at which a block is just not full, full, and followed by another. */
static void around_the_blocks(void)
{
    static const struct {
        size_t size;
        const char *hex;
    } cases[] = {
        {1, "7025e075d5e2f6cde3cc051a31f07660"},   {127, "8880c15d5ce64385d299599516f7037a"},
        {128, "57e95fca0247d40bfd1439eb362ad9ea"}, {129, "060d056ab12d3852d34fd6a721c512e7"},
        {255, "7e884eb93767faec3c05455a34d6adc6"}, {256, "8d9f76fd382990900afde79ea1a6ee8c"},
        {257, "93fd971a4953d526421ed3188b5c8016"}, {100000, "b82eb9dac09a0004f3641a7cca8995f6"},
    };
    uint8_t data[100000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7 % 251);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_digest(data, cases[i].size, cases[i].hex);
}

int main(void)
{
    RUN(known_values);
    RUN(around_the_blocks);
    return 0;
}
