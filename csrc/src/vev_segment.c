/* See vev_segment.h. */
#include "vev_segment.h"

#include "vev_crc32c.h"
#include "vev_record.h"

#define FILE_MAGIC "VEVRING\n"
#define LEDGER_MAGIC "VEVLEDG\n"
#define HEAD_MAGIC "VEVSEGM\n"
#define SEAL_MAGIC "VEVSEAL\n"
#define PAST_MAGIC "VEVPAST\n"
enum { FORMAT_VERSION = 1 };

bool vev_geometry_make(vev_geometry *geometry, uint64_t file_size, uint32_t segment_size,
                       uint32_t dictionary_capacity, uint32_t record_size_min)
{
    if (segment_size < VEV_SEGMENT_ALIGN || segment_size > VEV_SEGMENT_SIZE_MAX ||
        segment_size % VEV_SEGMENT_ALIGN != 0)
        return false;
    if (file_size < VEV_HEADER_REGION || file_size > 1ull << 40)
        return false;
    uint64_t count = (file_size - VEV_HEADER_REGION) / segment_size;
    if (count < VEV_SEGMENT_MIN_COUNT || count > VEV_SEGMENT_MAX_COUNT)
        return false;
    if (dictionary_capacity > VEV_DICTIONARY_MAX || dictionary_capacity % 4096 != 0)
        return false;
    if (record_size_min < 48 || record_size_min > 65536)
        return false;
    uint32_t max_records = segment_size / record_size_min / 16 * 16;
    uint32_t map_size = (uint32_t)vev_align_up((uint64_t)max_records / 16 * 8, 4096);
    uint32_t fixed = VEV_HEADER_BLOCK + dictionary_capacity + map_size;
    if (max_records == 0 || fixed >= segment_size)
        return false;
    geometry->segment_size = segment_size;
    geometry->segment_count = (uint32_t)count;
    geometry->file_size = VEV_HEADER_REGION + count * segment_size;
    geometry->dictionary_capacity = dictionary_capacity;
    geometry->record_size_min = record_size_min;
    geometry->max_records = max_records;
    geometry->map_offset = VEV_HEADER_BLOCK + dictionary_capacity;
    geometry->data_offset = fixed;
    geometry->data_size = segment_size - fixed;
    return true;
}

/* File header: magic 0, version 8, incompatible features 12, uuid 16, stream 32, segment size 36,
 * segment count 40, dictionary capacity 44, smallest record 48, compatible features 52 (to be
 * passed over by whoever does not know them), created 56, crc 64 over 0..63. */
void vev_file_header_write(uint8_t block[VEV_HEADER_BLOCK], const vev_file_header *header)
{
    memset(block, 0, VEV_HEADER_BLOCK);
    memcpy(block, FILE_MAGIC, 8);
    vev_store32(block + 8, FORMAT_VERSION);
    memcpy(block + 16, header->uuid, 16);
    vev_store32(block + 32, header->stream);
    vev_store32(block + 36, header->geometry.segment_size);
    vev_store32(block + 40, header->geometry.segment_count);
    vev_store32(block + 44, header->geometry.dictionary_capacity);
    vev_store32(block + 48, header->geometry.record_size_min);
    vev_store64(block + 56, (uint64_t)header->created_ns);
    vev_store32(block + 64, vev_crc32c(0, block, 64));
}

vev_status vev_file_header_read(const uint8_t block[VEV_HEADER_BLOCK], vev_file_header *header_out)
{
    if (memcmp(block, FILE_MAGIC, 8) != 0 || vev_load32(block + 64) != vev_crc32c(0, block, 64))
        return VEV_E_CORRUPT;
    if (vev_load32(block + 8) != FORMAT_VERSION || vev_load32(block + 12) != 0)
        return VEV_E_VERSION;
    memcpy(header_out->uuid, block + 16, 16);
    header_out->stream = vev_load32(block + 32);
    header_out->created_ns = (int64_t)vev_load64(block + 56);
    uint32_t segment_size = vev_load32(block + 36);
    uint64_t count = vev_load32(block + 40);
    if (!vev_geometry_make(&header_out->geometry, VEV_HEADER_REGION + count * segment_size,
                           segment_size, vev_load32(block + 44), vev_load32(block + 48)))
        return VEV_E_CORRUPT;
    return VEV_OK;
}

/* Ledger: magic 0, version 8, floor generation 16, floor seq 24, delivered 32, rejected 40,
 * evicted 48, lost 56, evicted by kind 64..127, crc 128 over uuid and 0..127. */
enum {
    LEDGER_BYTES = 64 + 8 * VEV_KIND_COUNT,
    LEDGER_REASONS = 136,
    LEDGER_REASONS_BYTES = 16,
    LEDGER_END = LEDGER_REASONS + LEDGER_REASONS_BYTES + 4
};

static uint32_t block_crc(const uint8_t uuid[16], const uint8_t *bytes, size_t size)
{
    return vev_crc32c(vev_crc32c(0, uuid, 16), bytes, size);
}

/* Ledgers in a mapping are written by one process while others read them: a reader must check the
 * same bytes that it then uses. */
static void copy_shared(uint8_t *to, const uint8_t *from, size_t size)
{
    for (size_t i = 0; i < size; i++)
        __atomic_store_n(to + i, __atomic_load_n(from + i, __ATOMIC_RELAXED), __ATOMIC_RELAXED);
}

/* The reasons came later and have a checksum of their own, which binds them to the counters. */
static uint32_t reasons_crc(const uint8_t *block, const uint8_t *reasons)
{
    return vev_crc32c(vev_load32(block + LEDGER_BYTES), reasons, LEDGER_REASONS_BYTES);
}

void vev_ledger_write(uint8_t block[VEV_HEADER_BLOCK], const uint8_t uuid[16],
                      const vev_ledger *ledger)
{
    uint8_t bytes[LEDGER_END] = {0};
    memcpy(bytes, LEDGER_MAGIC, 8);
    vev_store64(bytes + 8, ledger->version);
    vev_store64(bytes + 16, ledger->floor_generation);
    vev_store64(bytes + 24, ledger->floor_seq);
    vev_store64(bytes + 32, ledger->delivered);
    vev_store64(bytes + 40, ledger->rejected);
    vev_store64(bytes + 48, ledger->evicted);
    vev_store64(bytes + 56, ledger->lost);
    for (int kind = 0; kind < VEV_KIND_COUNT; kind++)
        vev_store64(bytes + 64 + 8 * kind, ledger->evicted_by_kind[kind]);
    vev_store32(bytes + LEDGER_BYTES, block_crc(uuid, bytes, LEDGER_BYTES));
    uint8_t *reasons = bytes + LEDGER_REASONS;
    vev_store64(reasons, ledger->lost_unfinished);
    vev_store64(reasons + 8, ledger->lost_damaged);
    vev_store32(reasons + LEDGER_REASONS_BYTES, reasons_crc(bytes, reasons));
    copy_shared(block, bytes, sizeof bytes);
}

/* Whether it accounts for every number below its floor, once. */
static bool ledger_adds_up(const vev_ledger *ledger)
{
    const uint64_t limit = 1ull << 60; /* so that no sum below wraps */
    uint64_t by_kind = 0;
    for (int kind = 0; kind < VEV_KIND_COUNT; kind++) {
        if (ledger->evicted_by_kind[kind] >= limit)
            return false;
        by_kind += ledger->evicted_by_kind[kind];
    }
    return ledger->floor_seq > 0 && ledger->floor_seq < limit && ledger->floor_generation > 0 &&
           ledger->delivered < limit && ledger->rejected < limit && ledger->evicted < limit &&
           ledger->lost < limit && by_kind == ledger->evicted && ledger->lost_unfinished < limit &&
           ledger->lost_damaged < limit &&
           ledger->lost_unfinished + ledger->lost_damaged <= ledger->lost &&
           ledger->floor_seq - 1 ==
               ledger->delivered + ledger->rejected + ledger->evicted + ledger->lost;
}

bool vev_ledger_read(const uint8_t shared[VEV_HEADER_BLOCK], const uint8_t uuid[16],
                     vev_ledger *ledger_out)
{
    uint8_t block[LEDGER_END];
    copy_shared(block, shared, sizeof block);
    if (memcmp(block, LEDGER_MAGIC, 8) != 0 ||
        vev_load32(block + LEDGER_BYTES) != block_crc(uuid, block, LEDGER_BYTES))
        return false;
    ledger_out->version = vev_load64(block + 8);
    ledger_out->floor_generation = vev_load64(block + 16);
    ledger_out->floor_seq = vev_load64(block + 24);
    ledger_out->delivered = vev_load64(block + 32);
    ledger_out->rejected = vev_load64(block + 40);
    ledger_out->evicted = vev_load64(block + 48);
    ledger_out->lost = vev_load64(block + 56);
    for (int kind = 0; kind < VEV_KIND_COUNT; kind++)
        ledger_out->evicted_by_kind[kind] = vev_load64(block + 64 + 8 * kind);
    const uint8_t *reasons = block + LEDGER_REASONS;
    bool reasoned = vev_load32(reasons + LEDGER_REASONS_BYTES) == reasons_crc(block, reasons);
    ledger_out->lost_unfinished = reasoned ? vev_load64(reasons) : 0;
    ledger_out->lost_damaged = reasoned ? vev_load64(reasons + 8) : 0;
    return ledger_adds_up(ledger_out);
}

bool vev_ledger_latest(const uint8_t *region, const uint8_t uuid[16], vev_ledger *ledger_out)
{
    bool found = false;
    for (int i = 0; i < 2; i++) {
        vev_ledger ledger;
        const uint8_t *block = region + VEV_AT_LEDGER + i * VEV_HEADER_BLOCK;
        if (vev_ledger_read(block, uuid, &ledger) &&
            (!found || ledger.version > ledger_out->version)) {
            *ledger_out = ledger;
            found = true;
        }
    }
    return found;
}

bool vev_ledger_is_last(const uint8_t *region, const uint8_t uuid[16], const vev_ledger *latest)
{
    vev_ledger before;
    const uint8_t *other = region + VEV_AT_LEDGER + (latest->version + 1) % 2 * VEV_HEADER_BLOCK;
    return vev_ledger_read(other, uuid, &before) && before.version + 1 == latest->version;
}

/* Head: magic 0, generation 8, base seq 16, created 24, dictionary size 32, dictionary crc 36,
 * salt 40, the file's uuid 48, segment size 64, dictionary capacity 68, smallest record 72,
 * stream 76, crc 80 over 0..79. Seal: magic 128, generation 136, count 144, end 148, crc 152. */
enum { HEAD_COVERED = 80 };

void vev_head_write(uint8_t *segment, const vev_file_header *file, const vev_head *head)
{
    uint8_t bytes[HEAD_COVERED + 4];
    memcpy(bytes, HEAD_MAGIC, 8);
    vev_store64(bytes + 8, head->generation);
    vev_store64(bytes + 16, head->base_seq);
    vev_store64(bytes + 24, (uint64_t)head->created_ns);
    vev_store32(bytes + 32, head->dictionary_size);
    vev_store32(bytes + 36, head->dictionary_crc);
    vev_store64(bytes + 40, head->salt);
    memcpy(bytes + 48, file->uuid, 16);
    vev_store32(bytes + 64, file->geometry.segment_size);
    vev_store32(bytes + 68, file->geometry.dictionary_capacity);
    vev_store32(bytes + 72, file->geometry.record_size_min);
    vev_store32(bytes + 76, file->stream);
    vev_store32(bytes + HEAD_COVERED, vev_crc32c(0, bytes, HEAD_COVERED));
    memcpy(segment, bytes, sizeof bytes);
}

bool vev_head_identify(const uint8_t *bytes, uint64_t file_size, vev_file_header *header_out)
{
    if (memcmp(bytes, HEAD_MAGIC, 8) != 0 ||
        vev_load32(bytes + HEAD_COVERED) != vev_crc32c(0, bytes, HEAD_COVERED))
        return false;
    memcpy(header_out->uuid, bytes + 48, 16);
    header_out->stream = vev_load32(bytes + 76);
    header_out->created_ns = (int64_t)vev_load64(bytes + 24);
    return vev_geometry_make(&header_out->geometry, file_size, vev_load32(bytes + 64),
                             vev_load32(bytes + 68), vev_load32(bytes + 72));
}

void vev_head_seal(uint8_t *segment, const uint8_t uuid[16], uint64_t generation,
                   uint32_t record_count, uint32_t data_end)
{
    uint8_t bytes[28];
    memcpy(bytes, SEAL_MAGIC, 8);
    vev_store64(bytes + 8, generation);
    vev_store32(bytes + 16, record_count);
    vev_store32(bytes + 20, data_end);
    vev_store32(bytes + 24, block_crc(uuid, bytes, 24));
    memcpy(segment + VEV_HEAD_SEAL, bytes, sizeof bytes);
}

static bool head_makes_sense(const vev_head *head, const vev_geometry *geometry)
{
    return head->generation > 0 && head->generation < 1ull << 53 && head->base_seq > 0 &&
           head->base_seq < 1ull << 62 && head->dictionary_size <= geometry->dictionary_capacity;
}

static bool seal_makes_sense(const vev_head *head, const vev_geometry *geometry)
{
    return head->record_count <= geometry->max_records && head->data_end <= geometry->data_size;
}

bool vev_head_read(const uint8_t *bytes, const uint8_t uuid[16], const vev_geometry *geometry,
                   vev_head *head_out)
{
    if (memcmp(bytes, HEAD_MAGIC, 8) != 0 || memcmp(bytes + 48, uuid, 16) != 0 ||
        vev_load32(bytes + HEAD_COVERED) != vev_crc32c(0, bytes, HEAD_COVERED))
        return false;
    head_out->generation = vev_load64(bytes + 8);
    head_out->base_seq = vev_load64(bytes + 16);
    head_out->created_ns = (int64_t)vev_load64(bytes + 24);
    head_out->dictionary_size = vev_load32(bytes + 32);
    head_out->dictionary_crc = vev_load32(bytes + 36);
    head_out->salt = vev_load64(bytes + 40);
    if (!head_makes_sense(head_out, geometry))
        return false;
    const uint8_t *seal = bytes + VEV_HEAD_SEAL;
    head_out->record_count = vev_load32(seal + 16);
    head_out->data_end = vev_load32(seal + 20);
    head_out->sealed =
        memcmp(seal, SEAL_MAGIC, 8) == 0 && vev_load32(seal + 24) == block_crc(uuid, seal, 24) &&
        vev_load64(seal + 8) == head_out->generation && seal_makes_sense(head_out, geometry);
    return true;
}

uint64_t vev_checkpoint_word(uint32_t seed, uint32_t offset)
{
    uint8_t bytes[8];
    memcpy(bytes, "CHK ", 4);
    vev_store32(bytes + 4, offset);
    return (uint64_t)vev_crc32c(seed, bytes, sizeof bytes) << 32 | offset;
}

uint32_t vev_checkpoint_offset(uint64_t word, uint32_t seed, uint32_t data_size)
{
    uint32_t offset = (uint32_t)word;
    return offset % VEV_RECORD_ALIGN == 0 && offset <= data_size - VEV_RECORD_ALIGN &&
                   word == vev_checkpoint_word(seed, offset)
               ? offset
               : 0;
}

uint64_t vev_kinds_word(uint32_t seed, uint32_t kinds)
{
    uint8_t bytes[8];
    memcpy(bytes, "KND ", 4);
    vev_store32(bytes + 4, kinds);
    return (uint64_t)vev_crc32c(seed, bytes, sizeof bytes) << 32 | kinds;
}

bool vev_kinds_read(uint64_t word, uint32_t seed, uint32_t *kinds_out)
{
    *kinds_out = (uint32_t)word;
    return word == vev_kinds_word(seed, (uint32_t)word);
}

/* Past: magic 0, count 8, crc 12 over 0..11 and the laps, these from 16 on. A lap: generation 0,
 * base seq 8, salt 16, count 24, end 28, dictionary crc 32, dictionary size 36, segment 38. */
enum { PAST_LAPS = 16, PAST_LAP = 40 };
VEV_STATIC_ASSERT(VEV_HEAD_PAST + PAST_LAPS + VEV_PAST_MAX * PAST_LAP <= VEV_HEADER_BLOCK,
                  "the past fits into its block");

uint32_t vev__past_max = VEV_PAST_MAX;

/* Bound to the lap's salt: what a power cut left of a lap that had the same generation names laps
 * as they were in another history. */
static uint32_t past_crc(const uint8_t *past, const uint8_t uuid[16], const vev_head *head,
                         uint32_t count)
{
    uint32_t seed = vev_lap_seed(uuid, head->generation, head->salt);
    return vev_crc32c(vev_crc32c(seed, past, 12), past + PAST_LAPS, (size_t)count * PAST_LAP);
}

void vev_past_write(uint8_t block[VEV_HEADER_BLOCK], const vev_file_header *file,
                    const vev_head *head, const uint8_t before[VEV_HEADER_BLOCK],
                    uint32_t before_segment)
{
    uint8_t past[VEV_HEADER_BLOCK - VEV_HEAD_PAST] = {0};
    vev_head last;
    uint32_t count = 0;
    if (vev_head_read(before, file->uuid, &file->geometry, &last) && last.sealed) {
        uint8_t *lap = past + PAST_LAPS;
        vev_store64(lap, last.generation);
        vev_store64(lap + 8, last.base_seq);
        vev_store64(lap + 16, last.salt);
        vev_store32(lap + 24, last.record_count);
        vev_store32(lap + 28, last.data_end);
        vev_store32(lap + 32, last.dictionary_crc);
        vev_store32(lap + 36, last.dictionary_size | before_segment << 16);
        uint32_t further = VEV_MIN(vev_past_count(before, file->uuid, &last), vev__past_max - 1);
        memcpy(lap + PAST_LAP, before + VEV_HEAD_PAST + PAST_LAPS, (size_t)further * PAST_LAP);
        count = 1 + further;
    }
    memcpy(past, PAST_MAGIC, 8);
    vev_store32(past + 8, count);
    vev_store32(past + 12, past_crc(past, file->uuid, head, count));
    memcpy(block + VEV_HEAD_PAST, past, PAST_LAPS + (size_t)count * PAST_LAP);
}

uint32_t vev_past_count(const uint8_t block[VEV_HEADER_BLOCK], const uint8_t uuid[16],
                        const vev_head *head)
{
    const uint8_t *past = block + VEV_HEAD_PAST;
    uint32_t count = vev_load32(past + 8);
    return memcmp(past, PAST_MAGIC, 8) == 0 && count <= VEV_PAST_MAX &&
                   vev_load32(past + 12) == past_crc(past, uuid, head, count)
               ? count
               : 0;
}

bool vev_past_read(const uint8_t block[VEV_HEADER_BLOCK], const vev_geometry *geometry, uint32_t i,
                   uint32_t *segment_out, vev_head *head_out)
{
    const uint8_t *lap = block + VEV_HEAD_PAST + PAST_LAPS + (size_t)i * PAST_LAP;
    *head_out = (vev_head){.generation = vev_load64(lap),
                           .base_seq = vev_load64(lap + 8),
                           .salt = vev_load64(lap + 16),
                           .record_count = vev_load32(lap + 24),
                           .data_end = vev_load32(lap + 28),
                           .dictionary_crc = vev_load32(lap + 32),
                           .dictionary_size = vev_load32(lap + 36) & 0xffffu,
                           .sealed = true};
    *segment_out = vev_load32(lap + 36) >> 16;
    return *segment_out < geometry->segment_count && head_makes_sense(head_out, geometry) &&
           seal_makes_sense(head_out, geometry);
}

/* Tally: bit 31 set, rejected in bits 21..30, delivered in bits 0..20. */
enum { TALLY_DELIVERED_BITS = 21, TALLY_REJECTED_MAX = 1023 };
#define TALLY_KNOWN (1u << 31)
VEV_STATIC_ASSERT(VEV_SEGMENT_SIZE_MAX / 48 < 1u << TALLY_DELIVERED_BITS, "every lap's fit");
VEV_STATIC_ASSERT(VEV_SLOT_COUNT <= 64, "an owner leaves the two highest bits to the token");

uint32_t vev_tally_word(const uint64_t counts[4])
{
    if (counts[VEV_LOST] > 0 || counts[VEV_REJECTED] > TALLY_REJECTED_MAX)
        return 0;
    return TALLY_KNOWN | (uint32_t)counts[VEV_REJECTED] << TALLY_DELIVERED_BITS |
           (uint32_t)counts[VEV_DELIVERED];
}

bool vev_tally_read(uint32_t word, uint32_t record_count, uint64_t counts[4])
{
    uint32_t delivered = word & ((1u << TALLY_DELIVERED_BITS) - 1);
    uint32_t rejected = word >> TALLY_DELIVERED_BITS & TALLY_REJECTED_MAX;
    if (!(word & TALLY_KNOWN) || delivered + rejected > record_count)
        return false;
    counts[VEV_PENDING] = record_count - delivered - rejected;
    counts[VEV_DELIVERED] = delivered;
    counts[VEV_REJECTED] = rejected;
    counts[VEV_LOST] = 0;
    return true;
}

static uint32_t map_check(uint32_t states, uint32_t seed, uint32_t word_index)
{
    uint8_t bytes[8];
    vev_store32(bytes, word_index);
    vev_store32(bytes + 4, states);
    return vev_crc32c(seed, bytes, sizeof bytes);
}

uint32_t vev_map_states(uint64_t word, uint32_t seed, uint32_t word_index)
{
    uint32_t states = (uint32_t)word;
    if (word == 0 || map_check(states, seed, word_index) != (uint32_t)(word >> 32))
        return 0;
    return states;
}

uint64_t vev_map_word(uint32_t states, uint32_t seed, uint32_t word_index)
{
    return (uint64_t)map_check(states, seed, word_index) << 32 | states;
}

void vev_map_count(const uint8_t *map, uint32_t seed, uint32_t record_count, uint64_t counts[4])
{
    memset(counts, 0, 4 * sizeof counts[0]);
    for (uint32_t i = 0; i * 16 < record_count; i++) {
        uint32_t states = vev_map_states(vev_load64(map + 8 * (size_t)i), seed, i);
        uint32_t here = VEV_MIN(16u, record_count - i * 16);
        if (here < 16)
            states &= (1u << (here * 2)) - 1;
        uint32_t low = states & 0x55555555u, high = states >> 1 & 0x55555555u;
        uint32_t both = (uint32_t)__builtin_popcount(low & high);
        uint32_t ones = (uint32_t)__builtin_popcount(low) - both;
        uint32_t twos = (uint32_t)__builtin_popcount(high) - both;
        counts[VEV_DELIVERED] += ones;
        counts[VEV_REJECTED] += twos;
        counts[VEV_LOST] += both;
        counts[VEV_PENDING] += here - ones - twos - both;
    }
}
