/* What makes a record valid, where no writer of ours comes to it: bytes from the disk may say
 * anything, and their checksum be right. */
#include <sys/mman.h>
#include <unistd.h>

#include "vev_crc32c.h"
#include "vev_record.h"
#include "vev_test.h"

enum { BASE_SEQ = 100, MAX_RECORDS = 64, AT_INDEX = 24, AT_PADDING = 35, AT_FLAGS = 38 };

static const vev_lap lap = {
    .seed = 7, .file_offset = 90112, .base_seq = BASE_SEQ, .max_records = MAX_RECORDS};

/* A data area of one page, behind which nothing can be read. */
static uint8_t *data;
static uint32_t data_size;

static void make_data(void)
{
    data_size = (uint32_t)sysconf(_SC_PAGESIZE);
    data = mmap(NULL, 2 * (size_t)data_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                -1, 0);
    CHECK(data != MAP_FAILED && mprotect(data + data_size, data_size, PROT_NONE) == 0);
}

/* Write record `index` at `offset`; returns its size. */
static uint32_t put(uint32_t offset, uint32_t index, uint32_t payload_size)
{
    static const uint8_t payload[4096];
    vev_header header = {
        .seq = BASE_SEQ + index, .stored_size = payload_size, .raw_size = payload_size};
    uint64_t word = vev_record_write(data + offset, &lap, offset, &header, payload);
    vev_store64(data + offset, word);
    return vev_word_size(word);
}

/* Let what stands at `offset` be a committed record of `size` bytes, whose checksum is right for
 * the first `covered` of them. */
static void forge(uint32_t offset, uint32_t size, uint32_t covered)
{
    uint8_t place[12];
    vev_store64(place, lap.file_offset + offset);
    vev_store32(place + 8, size);
    uint32_t crc = vev_crc32c(lap.seed, place, sizeof place);
    crc = vev_crc32c(crc, data + offset + 8, covered - 8);
    vev_store64(data + offset, vev_word_sized(VEV_WORD_COMMITTED, size, crc));
}

static bool check(uint32_t offset)
{
    vev_header header;
    return vev_record_check(data + offset, data_size - offset, data_size, &lap, offset, &header);
}

static void fields_that_make_no_sense(void)
{
    uint32_t size = put(0, 0, 64);
    CHECK(check(0));
    data[AT_PADDING] = 7 << 4;
    forge(0, size, size - 7);
    CHECK(check(0)); /* as far as anybody can tell */
    data[AT_PADDING] = 8 << 4;
    forge(0, size, size - 8);
    CHECK(!check(0));

    /* No room for what its header says of it. */
    put(0, 0, 8);
    data[AT_PADDING] = 7 << 4;
    forge(0, VEV_RECORD_HEADER, VEV_RECORD_HEADER);
    CHECK(!check(0));
    put(0, 0, 8);
    data[AT_FLAGS] = 1;
    forge(0, VEV_RECORD_HEADER + 8, VEV_RECORD_HEADER + 8);
    CHECK(!check(0));

    size = put(0, MAX_RECORDS - 1, 64);
    CHECK(check(0));
    vev_store32(data + AT_INDEX, MAX_RECORDS);
    forge(0, size, size);
    CHECK(!check(0));
}

/* A record of which only the beginning has been read is none. */
static void cut_short(void)
{
    vev_header header;
    uint32_t size = put(0, 0, 64);
    CHECK(vev_record_check(data, size, data_size, &lap, 0, &header));
    CHECK(!vev_record_check(data, size - 8, data_size, &lap, 0, &header));
}

/* The last word of the data is never a record's; nothing behind the data is looked at. */
static void at_the_end(void)
{
    put(data_size - 72, 0, 24);
    CHECK(check(data_size - 72));
    put(data_size - 64, 0, 24);
    CHECK(!check(data_size - 64));
    for (uint32_t left = 8; left < VEV_RECORD_HEADER; left += 8) {
        for (uint32_t size = 0; size < left; size += 8) {
            vev_store64(data + data_size - left, vev_word_sized(VEV_WORD_COMMITTED, size, 0));
            CHECK(!check(data_size - left));
        }
    }
}

static void ends_that_make_no_sense(void)
{
    uint32_t count;
    uint64_t word = vev_end_word(&lap, 80, MAX_RECORDS);
    CHECK(vev_end_check(word, &lap, 80, &count) && count == MAX_RECORDS);
    CHECK(!vev_end_check(word, &lap, 88, &count));
    vev_lap larger = lap;
    larger.max_records = MAX_RECORDS + 1;
    word = vev_end_word(&larger, 80, MAX_RECORDS + 1);
    CHECK(vev_end_check(word, &larger, 80, &count));
    CHECK(!vev_end_check(word, &lap, 80, &count));
}

/* What comes next has a number that can be next, be it a record or the end. */
static void resync_passes_over_what_was(void)
{
    memset(data, 0, data_size);
    uint32_t at = put(0, 4, 64);
    vev_store64(data + at, vev_end_word(&lap, at, 4));
    uint32_t fifth = at + 8;
    at = fifth + put(fifth, 5, 64);
    vev_store64(data + at, vev_end_word(&lap, at, 6));
    CHECK_INT(vev_record_resync(data, data_size, data_size, &lap, 0, 4), 0);
    CHECK_INT(vev_record_resync(data, data_size, data_size, &lap, 0, 5), fifth);
    CHECK_INT(vev_record_resync(data, data_size, data_size, &lap, 0, 6), at);
    CHECK_INT(vev_record_resync(data, data_size, data_size, &lap, 0, 7), data_size);
    CHECK_INT(vev_record_resync(data, data_size, at, &lap, 0, 6), data_size);
}

/* Every 64 bytes claim all that is behind them, and an index that could be next: if each were
 * believed as far as its checksum, this would be a quarter of a million times eight megabytes. */
static void resync_ends(void)
{
    enum { SIZE = 16 << 20 };
    uint8_t *hostile = calloc(1, SIZE);
    CHECK(hostile != NULL);
    for (uint32_t at = 0; at < SIZE - 64; at += 64)
        vev_store64(hostile + at, vev_word_sized(VEV_WORD_COMMITTED, SIZE - 8 - at, 0));
    CHECK_INT(vev_record_resync(hostile, SIZE, SIZE, &lap, 0, 0), SIZE);
    free(hostile);
}

int main(void)
{
    make_data();
    RUN(fields_that_make_no_sense);
    RUN(cut_short);
    RUN(at_the_end);
    RUN(ends_that_make_no_sense);
    RUN(resync_passes_over_what_was);
    RUN(resync_ends);
    return 0;
}
