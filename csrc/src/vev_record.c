/* See vev_record.h. */
#include "vev_record.h"

#include <stdatomic.h>

#include "vev_crc32c.h"

enum {
    AT_WALL = 8,
    AT_MONO = 16,
    AT_INDEX = 24,
    AT_BOOT = 28,
    AT_RAW = 32, /* 28 bits, then 3 bits: bytes of padding */
    AT_KIND = 36,
    AT_CODEC = 37,
    AT_FLAGS = 38, /* then a byte of 0 */
    FLAG_ID = 1,
    FLAG_TIME = 2,
};
VEV_STATIC_ASSERT(AT_BOOT == AT_INDEX + 4 && AT_KIND == AT_RAW + 4 && AT_CODEC == AT_KIND + 1 &&
                      AT_FLAGS == AT_KIND + 2 && AT_RAW + 8 == VEV_RECORD_HEADER,
                  "written in words of eight bytes");

uint32_t vev_lap_seed(const uint8_t uuid[16], uint64_t generation, uint64_t salt)
{
    uint8_t bytes[32];
    memcpy(bytes, uuid, 16);
    vev_store64(bytes + 16, generation);
    vev_store64(bytes + 24, salt);
    return vev_crc32c(0, bytes, sizeof bytes);
}

/* `header` is the record's first bytes, of which `header_size` are covered besides the word. */
static uint32_t record_crc(const vev_lap *lap, uint32_t offset, uint32_t size,
                           const uint8_t *header, uint32_t header_size, const uint8_t *payload,
                           uint32_t stored_size)
{
    uint8_t place[12];
    vev_store64(place, lap->file_offset + offset);
    vev_store32(place + 8, size);
    uint32_t crc = vev_crc32c(lap->seed, place, sizeof place);
    crc = vev_crc32c(crc, header + 8, header_size - 8);
    return vev_crc32c(crc, payload, stored_size);
}

uint64_t vev_record_write(uint8_t *at, const vev_lap *lap, uint32_t offset,
                          const vev_header *header, const void *payload)
{
    uint32_t size = vev_record_size(header);
    uint32_t header_size = VEV_RECORD_HEADER + (header->id_given ? VEV_ID_SIZE : 0u);
    uint32_t padding = size - header_size - header->stored_size;
    VEV_ASSERT(header->raw_size <= VEV_RAW_SIZE_MAX && padding < VEV_RECORD_ALIGN);
    uint32_t flags = (header->id_given ? FLAG_ID : 0u) | (header->time_given ? FLAG_TIME : 0u);
    uint32_t what = header->kind | (uint32_t)header->codec << 8 | flags << 16;
    vev_store64(at + AT_WALL, (uint64_t)header->wall_ns);
    vev_store64(at + AT_MONO, header->mono_ns);
    /* In the pieces in which the checksum loads them. */
    vev_store64(at + AT_INDEX, (header->seq - lap->base_seq) | (uint64_t)header->boot << 32);
    vev_store64(at + AT_RAW, (header->raw_size | padding << 28) | (uint64_t)what << 32);
    if (header->id_given)
        memcpy(at + VEV_RECORD_HEADER, header->id, VEV_ID_SIZE);
    memcpy(at + header_size, payload, header->stored_size);
    /* Summed over the caller's payload, not over the copy: what the caller meant is what must be
     * found again, and the copy may not be back in the cache yet. */
    uint32_t crc = record_crc(lap, offset, size, at, header_size, payload, header->stored_size);
    return vev_word_sized(VEV_WORD_COMMITTED, size, crc);
}

bool vev_record_check(const uint8_t *data, size_t available, uint32_t data_size, const vev_lap *lap,
                      uint32_t offset, vev_header *header_out)
{
    if (available < VEV_RECORD_HEADER || offset > data_size - VEV_RECORD_ALIGN)
        return false;
    /* In a mapping others may look whether it is free at any time. Acquire pairs with the release of
     * its commit: who told of the record may be another process. */
    uint64_t word =
        atomic_load_explicit((const _Atomic uint64_t *)(const void *)data, memory_order_acquire);
    uint32_t size = vev_word_size(word);
    /* The word behind it is in the data as well. */
    if (vev_word_state(word) != VEV_WORD_COMMITTED || size > available ||
        size > data_size - VEV_RECORD_ALIGN - offset)
        return false;
    uint32_t header_size = VEV_RECORD_HEADER + (data[AT_FLAGS] & FLAG_ID ? VEV_ID_SIZE : 0u);
    uint32_t padding = vev_load32(data + AT_RAW) >> 28;
    uint32_t index = vev_load32(data + AT_INDEX);
    if (padding >= VEV_RECORD_ALIGN || size < header_size + padding || index >= lap->max_records)
        return false;
    uint32_t stored = size - header_size - padding;
    if (record_crc(lap, offset, size, data, header_size, data + header_size, stored) !=
        vev_word_high(word))
        return false;
    header_out->seq = lap->base_seq + index;
    header_out->wall_ns = (int64_t)vev_load64(data + AT_WALL);
    header_out->mono_ns = vev_load64(data + AT_MONO);
    header_out->id_given = (data[AT_FLAGS] & FLAG_ID) != 0;
    if (header_out->id_given)
        memcpy(header_out->id, data + VEV_RECORD_HEADER, VEV_ID_SIZE);
    header_out->boot = vev_load32(data + AT_BOOT);
    header_out->stored_size = stored;
    header_out->raw_size = vev_load32(data + AT_RAW) & VEV_RAW_SIZE_MAX;
    header_out->codec = data[AT_CODEC];
    header_out->kind = data[AT_KIND];
    header_out->time_given = (data[AT_FLAGS] & FLAG_TIME) != 0;
    return true;
}

static uint64_t mix64(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

void vev_record_make_id(const uint8_t uuid[16], const vev_header *header, uint8_t id_out[16])
{
    /* Two chains over the same fields, each keyed with half of the file's random uuid: to be equal,
     * two ids of different records must collide in both. Time is in it because a number given out
     * before a power cut may be given out again after it. */
    uint64_t wall = (uint64_t)header->wall_ns;
    uint64_t mono = header->mono_ns ^ (uint64_t)header->boot << 32;
    uint64_t first = mix64(header->seq + vev_load64(uuid));
    uint64_t second = mix64(header->seq + vev_load64(uuid + 8));
    first = mix64(mix64(first ^ wall) ^ mono);
    second = mix64(mix64(second ^ mono) ^ wall);
    /* Byte 6 says version 4, byte 8 the variant. In registers: a byte that is stored and loaded
     * again as a part of more waits until the stores before it are done, those to the record
     * included. */
    vev_store64(id_out, (first & ~(UINT64_C(0xf0) << 48)) | UINT64_C(0x40) << 48);
    vev_store64(id_out + 8, (second & ~UINT64_C(0xc0)) | 0x80);
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

uint32_t vev_record_resync(const uint8_t *data, uint32_t data_size, uint32_t content,
                           const vev_lap *lap, uint32_t from, uint32_t min_index)
{
    /* Every place that looks like a record costs a checksum over the size it claims. A hostile file
     * could make every eighth byte claim the rest of the segment, so the sum is bounded. */
    uint64_t budget = 16ull * data_size + 65536;
    uint32_t end = VEV_MIN(content, data_size);
    for (uint32_t at = from; end >= 8 && at <= end - 8; at += VEV_RECORD_ALIGN) {
        uint64_t word = vev_load64(data + at);
        uint32_t state = vev_word_state(word);
        if (state == VEV_WORD_END) {
            uint32_t count;
            if (vev_end_check(word, lap, at, &count) && count >= min_index)
                return at;
        } else if (state == VEV_WORD_COMMITTED) {
            uint32_t claimed = vev_word_size(word);
            if (claimed < VEV_RECORD_HEADER || claimed > data_size - at)
                continue;
            /* Payload bytes look like a word once in a few hundred; almost none of them has an
             * index that could be next, and only those may cost budget. */
            uint32_t index = vev_record_index(data + at);
            if (index < min_index || index >= lap->max_records || claimed > budget)
                continue;
            budget -= claimed;
            vev_header header;
            if (vev_record_check(data + at, data_size - at, data_size, lap, at, &header)) {
                if (header.seq - lap->base_seq >= min_index)
                    return at;
                continue;
            }
        }
    }
    return data_size;
}
