/* The fixed places of a file, where they say what no writer of ours would: each number is checked
 * by itself, since the checksum over all of them may be right. */
#include "vev_crc32c.h"
#include "vev_record.h"
#include "vev_segment.h"
#include "vev_test.h"

static const uint8_t uuid[16] = {4, 8, 15, 16, 23, 42};

static vev_file_header file_of(uint32_t segment_count)
{
    vev_file_header file = {.stream = VEV_EVENTS};
    memcpy(file.uuid, uuid, sizeof uuid);
    CHECK(vev_geometry_make(&file.geometry, VEV_HEADER_REGION + segment_count * 65536ull, 65536,
                            8192, 64));
    return file;
}

static bool makes_sense(uint64_t count, uint32_t segment_size, uint32_t dictionary, uint32_t record)
{
    vev_geometry geometry;
    uint64_t file_size = VEV_HEADER_REGION + count * segment_size;
    return vev_geometry_make(&geometry, file_size, segment_size, dictionary, record);
}

static void sizes(void)
{
    CHECK(makes_sense(4, 65536, 0, 48));
    CHECK(!makes_sense(3, 65536, 0, 48));
    CHECK(makes_sense(1024, 65536, 0, 48));
    CHECK(!makes_sense(1025, 65536, 0, 48));
    CHECK(!makes_sense(4, 0, 0, 48));
    CHECK(!makes_sense(8, 32768, 0, 48));
    CHECK(!makes_sense(4, 65536 + 4096, 0, 48));
    CHECK(makes_sense(4, VEV_SEGMENT_SIZE_MAX, 0, 48));
    CHECK(!makes_sense(4, VEV_SEGMENT_SIZE_MAX + 65536, 0, 48));
    CHECK(makes_sense(4, 65536, VEV_DICTIONARY_MAX, 48));
    CHECK(!makes_sense(4, 65536, VEV_DICTIONARY_MAX + 4096, 48));
    CHECK(!makes_sense(4, 65536, 4000, 48));
    CHECK(!makes_sense(4, 65536, 0, 47));
    CHECK(makes_sense(4, 2 << 20, 0, 65536));
    CHECK(!makes_sense(4, 2 << 20, 0, 65537));
    CHECK(!makes_sense(4, 65536, 0, 65536)); /* fewer than a word of the map is for */
}

static vev_ledger ledger_that_adds_up(void)
{
    return (vev_ledger){.version = 7,
                        .floor_generation = 3,
                        .floor_seq = 101,
                        .delivered = 50,
                        .rejected = 20,
                        .evicted = 20,
                        .lost = 10,
                        .evicted_by_kind = {15, 5},
                        .lost_unfinished = 4,
                        .lost_damaged = 6};
}

static bool is_read(const vev_ledger *ledger)
{
    uint8_t block[VEV_HEADER_BLOCK] = {0};
    vev_ledger back;
    vev_ledger_write(block, uuid, ledger);
    return vev_ledger_read(block, uuid, &back);
}

/* One number is off by one, or so large that the sum, which wraps, is right. */
static void ledgers_that_do_not_add_up(void)
{
    vev_ledger good = ledger_that_adds_up();
    CHECK(is_read(&good));
    uint64_t *numbers[] = {
        &good.floor_seq, &good.delivered,          &good.rejected,           &good.evicted,
        &good.lost,      &good.evicted_by_kind[0], &good.evicted_by_kind[7], &good.lost_unfinished};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        *numbers[i] += 1;
        CHECK(!is_read(&good));
        *numbers[i] -= 1;
    }
    uint64_t *pairs[][2] = {{&good.delivered, &good.rejected},
                            {&good.rejected, &good.delivered},
                            {&good.lost, &good.delivered},
                            {&good.evicted_by_kind[0], &good.evicted_by_kind[1]},
                            {&good.lost_unfinished, &good.lost_damaged},
                            {&good.lost_damaged, &good.lost_unfinished}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        *pairs[i][0] -= 60;
        *pairs[i][1] += 60;
        CHECK(!is_read(&good));
        *pairs[i][0] += 60;
        *pairs[i][1] -= 60;
    }
    CHECK(is_read(&good));
    good.floor_generation = 0;
    CHECK(!is_read(&good));
    vev_ledger large = {.floor_generation = 3,
                        .floor_seq = (1ull << 60) + 1,
                        .delivered = 1ull << 59,
                        .rejected = 1ull << 59};
    CHECK(!is_read(&large));
    large.floor_seq -= 2;
    large.rejected -= 2;
    CHECK(is_read(&large));
}

/* A ledger is the last one only beside the one before it. */
static void last_ledger(void)
{
    static uint8_t region[VEV_HEADER_REGION];
    vev_ledger ledger = ledger_that_adds_up(), latest;
    for (uint64_t before = 4; before <= 8; before += 2) {
        for (int i = 0; i < 2; i++) {
            ledger.version = i ? 7 : before;
            vev_ledger_write(region + VEV_AT_LEDGER + ledger.version % 2 * VEV_HEADER_BLOCK, uuid,
                             &ledger);
        }
        CHECK(vev_ledger_latest(region, uuid, &latest));
        CHECK_INT(latest.version, before == 8 ? 8 : 7);
        CHECK_INT(vev_ledger_is_last(region, uuid, &latest), before != 4);
    }
    memset(region + VEV_AT_LEDGER, 0, VEV_HEADER_BLOCK);
    CHECK(vev_ledger_latest(region, uuid, &latest) && latest.version == 7);
    CHECK(!vev_ledger_is_last(region, uuid, &latest));
}

static vev_head head_that_makes_sense(const vev_file_header *file)
{
    return (vev_head){.generation = 5,
                      .base_seq = 1000,
                      .salt = 12345,
                      .dictionary_size = file->geometry.dictionary_capacity,
                      .sealed = true,
                      .record_count = file->geometry.max_records,
                      .data_end = file->geometry.data_size};
}

static bool write_and_read(const vev_file_header *file, const vev_head *head, vev_head *back)
{
    uint8_t block[VEV_HEADER_BLOCK] = {0};
    vev_head_write(block, file, head);
    vev_head_seal(block, file->uuid, head->generation, head->record_count, head->data_end);
    return vev_head_read(block, file->uuid, &file->geometry, back);
}

static void heads_that_make_no_sense(void)
{
    vev_file_header file = file_of(8);
    vev_head good = head_that_makes_sense(&file), back;
    CHECK(write_and_read(&file, &good, &back) && back.sealed);
    const struct {
        uint64_t generation, base_seq;
        uint32_t more_dictionary;
    } cases[] = {{0, 1, 0}, {1ull << 53, 1, 0}, {1, 0, 0}, {1, 1ull << 62, 0}, {1, 1, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vev_head head = good;
        head.generation = cases[i].generation;
        head.base_seq = cases[i].base_seq;
        head.dictionary_size += cases[i].more_dictionary;
        CHECK(!write_and_read(&file, &head, &back));
    }
    vev_head head = good;
    head.generation = (1ull << 53) - 1;
    head.base_seq = (1ull << 62) - 1;
    CHECK(write_and_read(&file, &head, &back) && back.sealed);

    /* Without its seal it is a head still. */
    head = good;
    head.record_count++;
    CHECK(write_and_read(&file, &head, &back) && !back.sealed);
    head = good;
    head.data_end++;
    CHECK(write_and_read(&file, &head, &back) && !back.sealed);
    uint8_t block[VEV_HEADER_BLOCK] = {0};
    vev_head_write(block, &file, &good);
    vev_head_seal(block, file.uuid, good.generation - 1, 0, 0);
    CHECK(vev_head_read(block, file.uuid, &file.geometry, &back) && !back.sealed);
    vev_head_seal(block, file.uuid, good.generation, 0, 0);
    block[VEV_HEAD_SEAL + 16] ^= 1;
    CHECK(vev_head_read(block, file.uuid, &file.geometry, &back) && !back.sealed);

    block[8] ^= 1;
    vev_file_header identified;
    CHECK(!vev_head_read(block, file.uuid, &file.geometry, &back));
    CHECK(!vev_head_identify(block, file.geometry.file_size, &identified));
    block[8] ^= 1;
    CHECK(vev_head_identify(block, file.geometry.file_size, &identified));
}

/* Where the `i`-th lap of a past stands in its block. */
static uint8_t *lap_at(uint8_t *block, uint32_t i)
{
    return block + VEV_HEAD_PAST + 16 + (size_t)i * 40;
}

/* A past that claims more laps than a block holds is none, and each lap makes sense by itself. */
static void pasts_that_make_no_sense(void)
{
    vev_file_header file = file_of(8);
    vev_head before = head_that_makes_sense(&file), head = before, named;
    head.generation++;
    uint8_t old[VEV_HEADER_BLOCK] = {0}, block[2 * VEV_HEADER_BLOCK] = {0};
    vev_head_write(old, &file, &before);
    vev_head_seal(old, file.uuid, before.generation, before.record_count, before.data_end);
    vev_past_write(block, &file, &head, old, 7);
    CHECK_INT(vev_past_count(block, file.uuid, &head), 1);
    uint32_t segment;
    CHECK(vev_past_read(block, &file.geometry, 0, &segment, &named));
    CHECK(segment == 7 && named.generation == 5 && named.base_seq == 1000 && named.sealed);

    const struct {
        size_t at;
        uint32_t value;
    } cases[] = {{0, 0}, {24, before.record_count + 1}, {28, before.data_end + 1}, {36, 8u << 16}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t was = vev_load32(lap_at(block, 0) + cases[i].at);
        vev_store32(lap_at(block, 0) + cases[i].at, cases[i].value);
        CHECK(!vev_past_read(block, &file.geometry, 0, &segment, &named));
        vev_store32(lap_at(block, 0) + cases[i].at, was);
    }

    uint8_t *past = block + VEV_HEAD_PAST;
    uint32_t seed = vev_lap_seed(file.uuid, head.generation, head.salt);
    for (uint32_t count = VEV_PAST_MAX; count <= VEV_PAST_MAX + 1; count++) {
        vev_store32(past + 8, count);
        vev_store32(past + 12, vev_crc32c(vev_crc32c(seed, past, 12), past + 16, count * 40));
        CHECK_INT(vev_past_count(block, file.uuid, &head), count > VEV_PAST_MAX ? 0 : count);
    }
}

int main(void)
{
    RUN(sizes);
    RUN(ledgers_that_do_not_add_up);
    RUN(last_ledger);
    RUN(heads_that_make_no_sense);
    RUN(pasts_that_make_no_sense);
    return 0;
}
