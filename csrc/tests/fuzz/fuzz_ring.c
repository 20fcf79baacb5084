/* Hostile ring files: patches a good log in memory, then opens, reads, marks, appends and reopens.
 *
 * The input is a list of patches: kind (1 byte), place (4 bytes), size (1 byte), bytes. A patch
 * hits the events ring, or with bit 7 of the kind the delivery ring, whose records are compressed
 * as well. Checksums would keep almost every patch from getting anywhere, so bit 0 of the kind asks
 * for those of the file header, the ledgers and the segment heads to be made right afterwards, and
 * bit 1 for those of the records that the patch touched. */
#include <stdio.h>
#include <stdlib.h>

#include "../crash/lab_disk.h"
#include "vev_crc32c.h"
#include "vev_log.h"
#include "vev_record.h"
#include "vev_segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define EVENTS "log/events.ring"
#define DELIVERY "log/delivery.ring"

static lab_disk *good;

static vev_options fuzz_options(void)
{
    vev_options options;
    vev_options_init(&options);
    options.events_size = options.media_size = options.delivery_size = 1 << 20;
    options.segment_size = 65536;
    options.sync_interval_ms = 0;
    options.flags = VEV_OPEN_NO_THREAD | VEV_OPEN_NO_GUARD;
    return options;
}

static bool all(void *ctx, size_t i)
{
    (void)ctx;
    (void)i;
    return true;
}

static void must(vev_status status)
{
    if (status != VEV_OK) {
        fprintf(stderr, "fuzz_ring: %s\n", vev_strerror(status));
        abort();
    }
}

static void make_good(void)
{
    good = lab_create(1);
    vev_io io;
    lab_io(good, &io);
    vev_options options = fuzz_options();
    vev_log *log;
    must(vev__log_open(&io, "log", &options, &log));
    for (uint32_t i = 0; i < 900; i++) {
        char text[400];
        int length = snprintf(text, sizeof text, "record %u, which has some words to compress: %*u",
                              i, (int)(i % 300), i);
        must(vev_log_append(log, i % 3 ? VEV_EVENTS : VEV_DELIVERY, text, (size_t)length, NULL));
    }
    vev_log_close(log);
}

static void right_checksums(lab_file *file)
{
    uint8_t *image = file->cache;
    for (int copy = 0; copy < 2; copy++) {
        uint8_t *header = image + copy * VEV_HEADER_BLOCK;
        vev_store32(header + 64, vev_crc32c(0, header, 64));
    }
    vev_file_header header;
    if (vev_file_header_read(image, &header) != VEV_OK)
        return;
    for (int i = 0; i < 2; i++) {
        uint8_t *ledger = image + VEV_AT_LEDGER + i * VEV_HEADER_BLOCK;
        vev_store32(ledger + 128, vev_crc32c(vev_crc32c(0, header.uuid, 16), ledger, 128));
    }
    for (uint32_t s = 0; s < header.geometry.segment_count; s++) {
        uint64_t at = vev_segment_offset(&header.geometry, s);
        if (at + VEV_HEAD_BYTES > file->size)
            return;
        uint8_t *head = image + at;
        uint8_t *seal = head + VEV_HEAD_SEAL;
        vev_store32(head + 80, vev_crc32c(0, head, 80));
        vev_store32(seal + 24, vev_crc32c(vev_crc32c(0, header.uuid, 16), seal, 24));
    }
}

/* Give a record its checksum again, so that what is in it gets believed. */
static void right_record(lab_file *file, uint64_t place)
{
    vev_file_header header;
    if (vev_file_header_read(file->cache, &header) != VEV_OK || place < VEV_HEADER_REGION)
        return;
    const vev_geometry *geometry = &header.geometry;
    uint32_t s = (uint32_t)((place - VEV_HEADER_REGION) / geometry->segment_size);
    if (s >= geometry->segment_count || vev_segment_offset(geometry, s + 1) > file->size)
        return;
    uint8_t *segment = file->cache + vev_segment_offset(geometry, s);
    vev_head head;
    if (!vev_head_read(segment, header.uuid, geometry, &head))
        return;
    uint32_t seed = vev_lap_seed(header.uuid, head.generation, head.salt);
    uint64_t data_at = vev_segment_offset(geometry, s) + geometry->data_offset;
    uint8_t *data = segment + geometry->data_offset;
    for (uint32_t at = 0; at + VEV_RECORD_HEADER <= geometry->data_size;) {
        uint64_t word = vev_load64(data + at);
        uint32_t size = vev_word_size(word), padding = vev_load32(data + at + 32) >> 28;
        if (size < VEV_RECORD_HEADER + padding || size > geometry->data_size - at)
            return;
        if (data_at + at <= place && place < data_at + at + size) {
            uint8_t where[12];
            vev_store64(where, data_at + at);
            vev_store32(where + 8, size);
            uint32_t crc = vev_crc32c(seed, where, sizeof where);
            crc = vev_crc32c(crc, data + at + 8, size - 8 - padding);
            vev_store32(data + at + 4, crc);
            return;
        }
        at += size;
    }
}

static void use(lab_disk *disk)
{
    static uint8_t buffer[1 << 16];
    static vev_record records[64];
    vev_io io;
    lab_io(disk, &io);
    vev_options options = fuzz_options();
    vev_log *log;
    vev_status status = vev__log_open(&io, "log", &options, &log);
    if (status == VEV_E_VERSION)
        return;
    must(status); /* the log always opens */
    for (int stream = 0; stream < VEV_STREAM_COUNT; stream++) {
        uint64_t next = 0;
        for (;;) {
            uint64_t before = next;
            size_t count;
            status = vev_log_read(log, stream, next, 15, records, 64, buffer, sizeof buffer, &count,
                                  &next);
            if (status || count == 0)
                break;
            if (next <= before)
                abort(); /* or it would never end */
            uint64_t seqs[2] = {records[0].seq, records[count - 1].seq};
            status = vev_log_mark(log, stream, seqs, 2, VEV_REJECTED, NULL);
        }
        vev_stats stats;
        must(vev_log_stats(log, stream, &stats));
        if (stats.appended !=
            stats.delivered + stats.pending + stats.rejected + stats.evicted + stats.lost)
            abort();
    }
    for (uint32_t i = 0; i < 20; i++)
        must(vev_log_append(log, VEV_EVENTS, "afterwards", 10, NULL));
    vev_log_close(log);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!good)
        make_good();
    lab_disk *disk = lab_power_cut(good, LAB_PAGE, 1, all, NULL);
    while (size >= 6) {
        uint8_t kind = data[0];
        lab_file *file = lab_find(disk, kind & 0x80 ? DELIVERY : EVENTS);
        uint64_t place = vev_load32(data + 1) % file->size;
        size_t length = VEV_MIN((size_t)data[5], size - 6);
        length = VEV_MIN(length, (size_t)(file->size - place));
        memcpy(file->cache + place, data + 6, length);
        if (kind & 1)
            right_checksums(file);
        if (kind & 2)
            right_record(file, place);
        data += 6 + length;
        size -= 6 + length;
    }
    for (int i = 0; i < LAB_FILES; i++)
        if (disk->files[i].cache)
            memcpy(disk->files[i].disk, disk->files[i].cache, (size_t)disk->files[i].size);
    use(disk);
    use(disk); /* what was repaired is in order */
    lab_free(disk);
    return 0;
}
