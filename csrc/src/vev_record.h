/* Record framing: pure functions on memory. Layout in docs/format.md section 5.
 *
 * The first eight bytes of a record are its word, which changes exactly twice in the life of a lap:
 *
 *     free (0)  --reserve, compare-and-swap-->  reserved (size, owner)
 *                                                   |
 *               committed (size, crc)  <--release---+---recovery-->  hole (size, why, lost count)
 *     free (0)  --seal, compare-and-swap-->     end (count, crc)
 *
 * INV-1  The word behind the last record of an active segment is zero: "free from here". What
 *        stands further behind may be of an earlier lap (INV-10, vev_clear.c).
 * INV-2  A word, once reserved, is never free again in that lap; its size never changes.
 * INV-3  A committed word is stored after everything its checksum covers (release), so whoever sees
 *        it (acquire) sees the whole record.
 * INV-4  The checksum covers file identity, generation, the lap's salt and offset: bytes of another
 *        file, of an earlier lap or of another place never pass. */
#ifndef VEV_RECORD_H
#define VEV_RECORD_H

#include "vev_base.h"

enum {
    VEV_RECORD_HEADER = 40,
    VEV_RECORD_ALIGN = 8,
    VEV_ID_SIZE = 16,
    VEV_RECORD_OVERHEAD_MAX = 64, /* header, id and padding */
    VEV_RAW_SIZE_MAX = 0x0fffffff,
    VEV_CODEC_RAW = 0,
    VEV_CODEC_ZSTD = 1,       /* with the segment's dictionary */
    VEV_CODEC_ZSTD_PLAIN = 2, /* without one */
};

enum { VEV_WORD_FREE = 0, VEV_WORD_RESERVED = 1, VEV_WORD_COMMITTED = 2, VEV_WORD_END = 3 };

/* Owners of the holes that recovery makes; the low 24 bits count the records lost in them. */
#define VEV_HOLE_UNFINISHED 0xff000000u /* their writers died */
#define VEV_HOLE_DAMAGED 0xfe000000u
#define VEV_HOLE_COUNT_MAX 0xffffffu

typedef struct vev_header {
    uint64_t seq;
    int64_t wall_ns;
    uint64_t mono_ns;
    uint8_t id[VEV_ID_SIZE];
    bool id_given; /* else the id follows from the other fields: vev_record_make_id() */
    uint32_t boot;
    uint32_t stored_size; /* bytes of the payload on disk */
    uint32_t raw_size;    /* bytes of the payload */
    uint8_t codec, kind;
    bool time_given;
} vev_header;

/* What ties records to one lap of one segment. */
typedef struct vev_lap {
    uint32_t seed;        /* vev_lap_seed() */
    uint64_t file_offset; /* of the segment's data area */
    uint64_t base_seq;    /* of its first record */
    uint32_t max_records;
} vev_lap;

static inline uint32_t vev_word_state(uint64_t word) { return (uint32_t)(word >> 30) & 3u; }
/* Bytes taken, header and padding included. */
static inline uint32_t vev_word_size(uint64_t word) { return ((uint32_t)word & 0x0fffffffu) * 8u; }
static inline uint32_t vev_word_high(uint64_t word) { return (uint32_t)(word >> 32); }
static inline uint64_t vev_word_make(uint32_t state, uint32_t low, uint32_t high)
{
    return (uint64_t)high << 32 | (uint64_t)state << 30 | low;
}
/* How many records a reserved word stands for: one that was being written, or those in a hole. */
static inline bool vev_word_is_hole(uint64_t word)
{
    return vev_word_high(word) >= VEV_HOLE_DAMAGED;
}
static inline uint32_t vev_word_count(uint64_t word)
{
    return vev_word_is_hole(word) ? vev_word_high(word) & VEV_HOLE_COUNT_MAX : 1;
}
/* Word of a reserved or committed record of `size` bytes. */
static inline uint64_t vev_word_sized(uint32_t state, uint32_t size, uint32_t high)
{
    VEV_ASSERT(size % VEV_RECORD_ALIGN == 0 && size / 8u <= 0x0fffffffu);
    return vev_word_make(state, size / 8u, high);
}

static inline uint32_t vev_record_size(const vev_header *header)
{
    uint64_t size = VEV_RECORD_HEADER + (header->id_given ? VEV_ID_SIZE : 0u);
    return (uint32_t)vev_align_up(size + header->stored_size, VEV_RECORD_ALIGN);
}

/* Fields of a record that nobody has checked. */
static inline uint32_t vev_record_index(const uint8_t *record) { return vev_load32(record + 24); }
static inline uint8_t vev_record_kind(const uint8_t *record) { return record[36]; }

/* Ask for the cache lines of the records that come next, from `*asked` up to some way behind `at`
 * and not behind `end`: where the next one begins stands in each, so that without this whoever
 * follows them waits for the memory at every step. */
static inline void vev_record_prefetch(const uint8_t *data, uint32_t at, uint32_t end,
                                       uint32_t *asked)
{
    enum { LINE = 64, LINES = 32 };
    uint32_t to = VEV_MIN(at + LINE * LINES, end);
    for (*asked = VEV_MAX(*asked, at); *asked < to; *asked += LINE)
        VEV_PREFETCH(data + *asked);
}

/* The id of a record that was not given one: a UUID (version 4 in form) that follows from the
 * file's uuid and from where and when the record was made, so that it costs no bytes. */
void vev_record_make_id(const uint8_t uuid[16], const vev_header *header, uint8_t id_out[16]);

/* `salt` is drawn for every lap: after a power cut that took a head, its generation is given out
 * again, and what is left of the lap that had it must not pass for the new one's. */
uint32_t vev_lap_seed(const uint8_t uuid[16], uint64_t generation, uint64_t salt);

/* Write header and payload at `at` (the word excepted) and return the word to commit.
 * `offset` is that of the record in the data area. */
uint64_t vev_record_write(uint8_t *at, const vev_lap *lap, uint32_t offset,
                          const vev_header *header, const void *payload);

/* Whether a committed record of this lap stands at `offset` of a data area of `data_size` bytes, of
 * which `data` holds everything from there on up to `available` bytes. Fills `header_out`, the id
 * only if it was given. */
bool vev_record_check(const uint8_t *data, size_t available, uint32_t data_size, const vev_lap *lap,
                      uint32_t offset, vev_header *header_out);

uint64_t vev_end_word(const vev_lap *lap, uint32_t offset, uint32_t count);
/* Whether `word` is a genuine end at `offset`; sets how many records stand before it. */
bool vev_end_check(uint64_t word, const vev_lap *lap, uint32_t offset, uint32_t *count_out);

/* Where the stored payload of a checked record stands. */
static inline const uint8_t *vev_record_payload(const uint8_t *record, const vev_header *header)
{
    return record + VEV_RECORD_HEADER + (header->id_given ? VEV_ID_SIZE : 0);
}

/* Find the next genuine record or end at or behind `from`, with an index of at least `min_index`.
 * `data` is the whole data area, of which only the first `content` bytes may be anything but zero.
 * Work is bounded to a few times its size, whatever it holds. Returns its offset, or `data_size`
 * when there is none. */
uint32_t vev_record_resync(const uint8_t *data, uint32_t data_size, uint32_t content,
                           const vev_lap *lap, uint32_t from, uint32_t min_index);

#endif
