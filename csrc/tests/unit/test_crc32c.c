#include "vev_crc32c.h"

#include "vev_test.h"

/* The definition, one bit at a time. */
static uint32_t crc_bitwise(uint32_t crc, const uint8_t *data, size_t size)
{
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

/* The examples of RFC 3720, appendix B.4, and the usual check value. */
static void known_values(void)
{
    uint8_t b[48];
    CHECK_INT(vev_crc32c(0, NULL, 0), 0);
    CHECK_INT(vev_crc32c(0, "123456789", 9), 0xE3069283);
    memset(b, 0, 32);
    CHECK_INT(vev_crc32c(0, b, 32), 0x8A9136AA);
    memset(b, 0xff, 32);
    CHECK_INT(vev_crc32c(0, b, 32), 0x62A8AB43);
    for (uint8_t i = 0; i < 32; i++)
        b[i] = i;
    CHECK_INT(vev_crc32c(0, b, 32), 0x46DD794E);
    for (uint8_t i = 0; i < 32; i++)
        b[i] = (uint8_t)(31 - i);
    CHECK_INT(vev_crc32c(0, b, 32), 0x113FDB5C);
    static const uint8_t iscsi_read[48] = {
        [0] = 0x01,  [1] = 0xc0,  [16] = 0x14, [22] = 0x04,
        [27] = 0x14, [31] = 0x18, [32] = 0x28, [40] = 0x02,
    };
    CHECK_INT(vev_crc32c(0, iscsi_read, 48), 0xD9963A56);
}

/* Every size through the switches between bytes, words and lanes, at every alignment. */
static void all_sizes_and_alignments(void)
{
    static uint8_t data[3 * 3 * 512 + 64];
    uint64_t state = 1;
    test_random_fill(&state, data, sizeof data);
    for (size_t size = 0; size + 8 <= sizeof data; size += size < 600 ? 1 : 37) {
        for (size_t at = 0; at < 8; at++) {
            uint32_t start = (uint32_t)test_random(&state);
            CHECK_INT(vev_crc32c(start, data + at, size), crc_bitwise(start, data + at, size));
        }
    }
}

static void calls_chain(void)
{
    uint8_t data[2000];
    uint64_t state = 2;
    test_random_fill(&state, data, sizeof data);
    uint32_t whole = vev_crc32c(0, data, sizeof data);
    for (size_t cut = 0; cut <= sizeof data; cut++) {
        uint32_t crc = vev_crc32c(0, data, cut);
        CHECK_INT(vev_crc32c(crc, data + cut, sizeof data - cut), whole);
    }
}

static void one_bit_changes_it(void)
{
    uint8_t data[1600];
    uint64_t state = 3;
    test_random_fill(&state, data, sizeof data);
    uint32_t whole = vev_crc32c(0, data, sizeof data);
    for (size_t bit = 0; bit < 8 * sizeof data; bit++) {
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK(vev_crc32c(0, data, sizeof data) != whole);
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void reads_nothing_beyond(void)
{
    uint8_t data[1700];
    uint64_t state = 4;
    test_random_fill(&state, data, sizeof data);
    for (size_t size = 0; size <= sizeof data; size += 13) {
        uint8_t *exact = test_copy(data, size);
        CHECK_INT(vev_crc32c(0, exact, size), crc_bitwise(0, data, size));
        free(exact);
    }
}

static void all(void)
{
    RUN(known_values);
    RUN(all_sizes_and_alignments);
    RUN(calls_chain);
    RUN(one_bit_changes_it);
    RUN(reads_nothing_beyond);
}

int main(void)
{
    int by_cpu = vev_crc32c_force_software(0);
    printf("by the CPU's instruction: %s\n", by_cpu ? "yes" : "this CPU has none");
    all();
    CHECK_INT(vev_crc32c_force_software(1), 0);
    printf("in software\n");
    all();
    CHECK_INT(vev_crc32c_force_software(0), by_cpu);
    return 0;
}
