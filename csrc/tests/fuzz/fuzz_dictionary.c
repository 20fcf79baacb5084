/* Hostile dictionaries: what a caller hands over, and what stands in a segment on the disk.
 *
 * The input is: what to do (1 byte), zstd level and size of a record (1 byte), then the dictionary.
 * With bit 3 of the first byte that is a list of patches to the built-in one, which zstd trained:
 * place (2 bytes), size (1 byte), bytes; with bit 4 as well they all hit its first 256 bytes, where
 * its tables are. Bits 0 to 2 say who uses it: 1 a caller's log, 2 a log whose newest segment has
 * it on the disk with good checksums, else the codec alone, which is fastest.
 *
 * A dictionary is refused or it works: what is compressed with it comes back, in bounded memory. */
#include <stdio.h>
#include <stdlib.h>

#include "../crash/lab_disk.h"
#include "vev_crc32c.h"
#include "vev_events_zdict.h"
#include "vev_log.h"
#include "vev_segment.h"
#include "vev_zstd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LARGEST_RECORD = 70000, DICTIONARY_MEMORY = 1 << 20, CONTEXT_MEMORY = 4 << 20 };

static lab_disk *good;

static void must(vev_status status, const char *what)
{
    if (status != VEV_OK) {
        fprintf(stderr, "fuzz_dictionary: %s: %s\n", what, vev_strerror(status));
        abort();
    }
}

/* Text in which there is something to find, with the beginning of the dictionary in it. */
static size_t make_record(uint8_t *out, size_t size, uint32_t n, const uint8_t *dict,
                          size_t dict_size)
{
    for (size_t at = 0; at < size;) {
        char word[64];
        int length = snprintf(word, sizeof word, "class%u confidence 0.%u use_case ", n % 7, n * n);
        n++;
        size_t here = VEV_MIN((size_t)length, size - at);
        memcpy(out + at, word, here);
        at += here;
        here = VEV_MIN(VEV_MIN(dict_size, (size_t)200), size - at);
        if (n % 3 == 0 && here > 0) {
            memcpy(out + at, dict, here);
            at += here;
        }
    }
    return size;
}

/* ---- the codec alone ---- */

static void use_codec(const uint8_t *dict_bytes, size_t dict_size, int level, size_t large)
{
    static uint8_t record[LARGEST_RECORD], back[LARGEST_RECORD];
    /* Three small ones and a large one: contexts differ by the size of the record. */
    static const size_t larger[] = {5000, 20000, LARGEST_RECORD};
    const size_t sizes[] = {1, 60, 700, larger[large % 3]};
    vev_zdict *dict;
    vev_status created = vev_zdict_create(dict_bytes, dict_size, level, &dict);
    if (created == VEV_E_CORRUPT)
        return;
    must(created, "create");
    VEV_ASSERT(vev_zdict_memory(dict) <= DICTIONARY_MEMORY);
    vev_zctx *ctx = vev_zctx_create();
    size_t capacity = vev_zstd_bound(LARGEST_RECORD), frame_size = 0;
    uint8_t *frame = malloc(capacity);
    if (!ctx || !frame)
        abort();
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t size = make_record(record, sizes[i], (uint32_t)i, dict_bytes, dict_size);
        must(vev_zstd_compress(ctx, dict, level, frame, capacity, record, size, &frame_size),
             "compress");
        must(vev_zstd_decompress(ctx, dict, back, size, frame, frame_size), "decompress");
        VEV_ASSERT(memcmp(record, back, size) == 0);
        /* A broken frame, and one that is none: refused, or bytes of the right number. */
        frame[frame_size / 2] ^= 1u << (dict_size % 8);
        vev_status status = vev_zstd_decompress(ctx, dict, back, size, frame, frame_size);
        VEV_ASSERT(status == VEV_OK || status == VEV_E_CORRUPT);
        status = vev_zstd_decompress(ctx, dict, back, size, dict_bytes, dict_size);
        VEV_ASSERT(status == VEV_OK || status == VEV_E_CORRUPT);
    }
    VEV_ASSERT(vev_zctx_memory(ctx) <= CONTEXT_MEMORY);
    free(frame);
    vev_zctx_free(ctx);
    vev_zdict_free(dict);
}

/* ---- a log ---- */

static vev_options small_log(int level)
{
    vev_options options;
    vev_options_init(&options);
    options.events_size = options.media_size = options.delivery_size = 1 << 20;
    options.segment_size = 65536;
    options.sync_interval_ms = 0;
    options.level = level;
    options.flags = VEV_OPEN_NO_THREAD | VEV_OPEN_NO_GUARD;
    return options;
}

/* Append until the ring has gone on to the next segment and its dictionary, then read all of it.
 * What was appended here comes back as it was. */
static void use_log(vev_log *log, const uint8_t *dict, size_t dict_size)
{
    static uint8_t buffer[1 << 17], record[2000];
    static vev_record records[64];
    uint64_t first = 0, next = 0;
    enum { APPENDS = 150 };
    for (uint32_t i = 0; i < APPENDS; i++) {
        vev_entry entry = {.flags = 0};
        size_t size = make_record(record, 100 + i * 9, i, dict, dict_size);
        must(vev_log_append(log, VEV_EVENTS, record, size, &entry), "append");
        if (i == 0)
            first = next = entry.seq;
    }
    for (uint32_t i = 0;;) {
        size_t count;
        must(vev_log_read(log, VEV_EVENTS, next, 15, records, 64, buffer, sizeof buffer, &count,
                          &next),
             "read");
        if (count == 0) {
            VEV_ASSERT(i == APPENDS);
            break;
        }
        for (size_t r = 0; r < count; r++, i++) {
            size_t size = make_record(record, 100 + i * 9, i, dict, dict_size);
            VEV_ASSERT(records[r].seq == first + i && records[r].size == size &&
                       memcmp(record, buffer + records[r].offset, size) == 0);
        }
    }
    /* And everything else: it may be damaged, not more. */
    for (next = 0;;) {
        size_t count;
        must(vev_log_read(log, VEV_EVENTS, next, 15, records, 64, buffer, sizeof buffer, &count,
                          &next),
             "read");
        if (count == 0)
            break;
    }
    vev_stats stats;
    must(vev_log_stats(log, VEV_EVENTS, &stats), "stats");
    VEV_ASSERT(stats.appended ==
               stats.delivered + stats.pending + stats.rejected + stats.evicted + stats.lost);
}

static void use_as_callers(const uint8_t *dict, size_t dict_size, int level)
{
    lab_disk *disk = lab_create(1);
    vev_io io;
    lab_io(disk, &io);
    vev_options options = small_log(level);
    options.dictionary = dict;
    options.dictionary_size = dict_size;
    vev_log *log;
    vev_status status = vev__log_open(&io, "log", &options, &log);
    if (status != VEV_E_INVALID) {
        must(status, "open");
        use_log(log, dict, dict_size);
        vev_log_close(log);
        must(vev__log_open(&io, "log", &options, &log), "open again");
        use_log(log, dict, dict_size);
        vev_log_close(log);
    }
    lab_free(disk);
}

static void make_good(void)
{
    good = lab_create(1);
    vev_io io;
    lab_io(good, &io);
    vev_options options = small_log(1);
    vev_log *log;
    must(vev__log_open(&io, "log", &options, &log), "open");
    for (uint32_t i = 0; i < 50; i++) {
        uint8_t record[500];
        size_t size = make_record(record, 50 + i * 9, i, NULL, 0);
        must(vev_log_append(log, VEV_EVENTS, record, size, NULL), "append");
    }
    vev_log_close(log);
}

static bool all(void *ctx, size_t i)
{
    (void)ctx;
    (void)i;
    return true;
}

static void use_from_disk(const uint8_t *dict, size_t dict_size, int level)
{
    if (!good)
        make_good();
    lab_disk *disk = lab_power_cut(good, LAB_PAGE, 1, all, NULL);
    lab_file *file = lab_find(disk, "log/events.ring");
    vev_file_header header;
    vev_head head;
    must(vev_file_header_read(file->cache, &header), "header");
    uint8_t *segment = file->cache + vev_segment_offset(&header.geometry, 0);
    VEV_ASSERT(vev_head_read(segment, header.uuid, &header.geometry, &head));
    head.dictionary_size = (uint32_t)dict_size;
    head.dictionary_crc = vev_crc32c(0, dict, dict_size);
    memcpy(segment + VEV_HEADER_BLOCK, dict, dict_size);
    vev_head_write(segment, &header, &head);
    memcpy(file->disk, file->cache, (size_t)file->size);
    vev_io io;
    lab_io(disk, &io);
    vev_options options = small_log(level);
    for (int turn = 0; turn < 2; turn++) {
        vev_log *log;
        must(vev__log_open(&io, "log", &options, &log), "open"); /* the log always opens */
        use_log(log, dict, dict_size);
        vev_log_close(log);
    }
    lab_free(disk);
}

/* ---- the input ---- */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    uint8_t what = data[0];
    int level = (int)(data[1] % 17) - 7;
    size_t large = data[1] / 17u;
    data += 2;
    size -= 2;
    size_t dict_size = VEV_MIN(size, (size_t)VEV_DICTIONARY_MAX);
    if (what & 8)
        dict_size = sizeof vev_events_zdict;
    /* In exactly its size, so that a read beyond it is seen by ASan. */
    uint8_t *dict = malloc(dict_size ? dict_size : 1);
    if (!dict)
        abort();
    memcpy(dict, what & 8 ? vev_events_zdict : data, dict_size);
    while (what & 8 && size >= 3) {
        size_t place = (data[0] | (size_t)data[1] << 8) % (what & 16 ? 256 : dict_size);
        size_t length = VEV_MIN(VEV_MIN((size_t)data[2], size - 3), dict_size - place);
        memcpy(dict + place, data + 3, length);
        data += 3 + length;
        size -= 3 + length;
    }
    switch (what & 7) {
    case 1: use_as_callers(dict, dict_size, level); break;
    case 2: use_from_disk(dict, dict_size, level); break;
    default: use_codec(dict, dict_size, level, large);
    }
    free(dict);
    return 0;
}
