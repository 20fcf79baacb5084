/* See vev_record.h. */
#include "vev_record.h"

#include "vev_crc32c.h"

enum {
    AT_SEQ = 8,
    AT_WALL = 16,
    AT_MONO = 24,
    AT_ID = 32,
    AT_BOOT = 48,
    AT_STORED = 52,
    AT_RAW = 56,
    AT_CODEC = 60,
    AT_KIND = 61,
    AT_FLAGS = 62,
    AT_ZERO = 63,
};
VEV_STATIC_ASSERT(AT_ZERO + 1 == VEV_RECORD_HEADER, "the header is one cache line");

uint32_t vev_lap_seed(const uint8_t uuid[16], uint64_t generation)
{
    uint8_t bytes[24];
    memcpy(bytes, uuid, 16);
    vev_store64(bytes + 16, generation);
    return vev_crc32c(0, bytes, sizeof bytes);
}

static uint32_t record_crc(const vev_lap *lap, uint32_t offset, uint32_t size,
                           const uint8_t *header, const uint8_t *payload, uint32_t stored_size)
{
    uint8_t place[12];
    vev_store64(place, lap->file_offset + offset);
    vev_store32(place + 8, size);
    uint32_t crc = vev_crc32c(lap->seed, place, sizeof place);
    crc = vev_crc32c(crc, header + 8, VEV_RECORD_HEADER - 8);
    return vev_crc32c(crc, payload, stored_size);
}

uint64_t vev_record_write(uint8_t *at, const vev_lap *lap, uint32_t offset,
                          const vev_header *header, const void *payload)
{
    uint32_t size = vev_record_size(header->stored_size);
    vev_store64(at + AT_SEQ, header->seq);
    vev_store64(at + AT_WALL, (uint64_t)header->wall_ns);
    vev_store64(at + AT_MONO, header->mono_ns);
    memcpy(at + AT_ID, header->id, 16);
    vev_store32(at + AT_BOOT, header->boot);
    vev_store32(at + AT_STORED, header->stored_size);
    vev_store32(at + AT_RAW, header->raw_size);
    at[AT_CODEC] = header->codec;
    at[AT_KIND] = header->kind;
    at[AT_FLAGS] = header->flags;
    at[AT_ZERO] = 0;
    memcpy(at + VEV_RECORD_HEADER, payload, header->stored_size);
    /* Summed over the caller's payload, not over the copy: what the caller meant is what must be
     * found again, and the copy may not be back in the cache yet. */
    uint32_t crc = record_crc(lap, offset, size, at, payload, header->stored_size);
    return vev_word_sized(VEV_WORD_COMMITTED, size, crc);
}

bool vev_record_check(const uint8_t *data, size_t available, uint32_t data_size,
                      const vev_lap *lap, uint32_t offset, vev_header *header_out)
{
    if (available < VEV_RECORD_HEADER || offset > data_size)
        return false;
    uint64_t word = vev_load64(data);
    uint32_t size = vev_word_size(word);
    if (vev_word_state(word) != VEV_WORD_COMMITTED || size < VEV_RECORD_HEADER ||
        size > available || size > data_size - offset)
        return false;
    uint32_t stored = vev_load32(data + AT_STORED);
    if (stored > size - VEV_RECORD_HEADER || vev_record_size(stored) != size)
        return false;
    uint64_t seq = vev_load64(data + AT_SEQ);
    if (seq < lap->base_seq || seq - lap->base_seq >= lap->max_records)
        return false;
    if (record_crc(lap, offset, size, data, data + VEV_RECORD_HEADER, stored) !=
        vev_word_high(word))
        return false;
    header_out->seq = seq;
    header_out->wall_ns = (int64_t)vev_load64(data + AT_WALL);
    header_out->mono_ns = vev_load64(data + AT_MONO);
    memcpy(header_out->id, data + AT_ID, 16);
    header_out->boot = vev_load32(data + AT_BOOT);
    header_out->stored_size = stored;
    header_out->raw_size = vev_load32(data + AT_RAW);
    header_out->codec = data[AT_CODEC];
    header_out->kind = data[AT_KIND];
    header_out->flags = data[AT_FLAGS];
    return true;
}

static uint32_t end_crc(const vev_lap *lap, uint32_t offset, uint32_t count)
{
    uint8_t bytes[16];
    memcpy(bytes, "END ", 4);
    vev_store32(bytes + 4, count);
    vev_store64(bytes + 8, lap->file_offset + offset);
    return vev_crc32c(lap->seed, bytes, sizeof bytes);
}

uint64_t vev_end_word(const vev_lap *lap, uint32_t offset, uint32_t count)
{
    VEV_ASSERT(count <= lap->max_records);
    return vev_word_make(VEV_WORD_END, count, end_crc(lap, offset, count));
}

bool vev_end_check(uint64_t word, const vev_lap *lap, uint32_t offset, uint32_t *count_out)
{
    uint32_t count = (uint32_t)word & 0x3fffffffu;
    if (vev_word_state(word) != VEV_WORD_END || count > lap->max_records ||
        end_crc(lap, offset, count) != vev_word_high(word))
        return false;
    *count_out = count;
    return true;
}

uint32_t vev_record_resync(const uint8_t *data, uint32_t data_size, const vev_lap *lap,
                           uint32_t from, uint32_t min_index)
{
    /* Every place that looks like a record costs a checksum over the size it claims. A hostile file
     * could make every eighth byte claim the rest of the segment, so the sum is bounded. */
    uint64_t budget = 16ull * data_size + 65536;
    for (uint32_t at = from; data_size >= 8 && at <= data_size - 8; at += VEV_RECORD_ALIGN) {
        uint64_t word = vev_load64(data + at);
        uint32_t state = vev_word_state(word);
        if (state == VEV_WORD_END) {
            uint32_t count;
            if (vev_end_check(word, lap, at, &count) && count >= min_index)
                return at;
        } else if (state == VEV_WORD_COMMITTED) {
            uint32_t claimed = vev_word_size(word);
            if (claimed > data_size - at || claimed > budget)
                continue;
            vev_header header;
            if (vev_record_check(data + at, data_size - at, data_size, lap, at, &header)) {
                if (header.seq - lap->base_seq >= min_index)
                    return at;
                continue;
            }
            budget -= VEV_MIN(budget, (uint64_t)claimed);
        }
    }
    return data_size;
}
