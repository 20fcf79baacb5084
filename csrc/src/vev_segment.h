/* The fixed places of a ring file: header, ledger, live area, segment heads and state maps.
 * Layout and validity rules in docs/format.md sections 2 to 4; pure functions on memory.
 *
 *     0          4K       8K        12K       16K                 64K
 *     | header   | copy   | ledger A| ledger B| live area         | segment 0 | segment 1 | ...
 *
 *     segment:   | head 4K | dictionary | state map | data .................................. |
 *
 * A segment explains itself: its head names the file and its layout, and it carries its dictionary.
 *
 * INV-5  Ledger A and B are written in turn; the valid one with the higher version counts. A
 *        segment's bytes are destroyed only after a ledger that already counts them is on disk.
 * INV-6  The live area means something only while a process has the file open; whoever opens the
 *        file alone rebuilds it. Nothing in it is believed after that. */
#ifndef VEV_SEGMENT_H
#define VEV_SEGMENT_H

#include <stdatomic.h>

#include "vev_base.h"

enum {
    VEV_CLEAR_MIN = 4096, /* of the data of a segment, when its lap begins */
    VEV_HEADER_REGION = 65536,
    VEV_HEADER_BLOCK = 4096,
    VEV_AT_LEDGER = 8192,
    VEV_AT_LIVE = 16384,
    VEV_SEGMENT_ALIGN = 65536,
    VEV_SEGMENT_MAX_COUNT = 1024,
    VEV_SEGMENT_MIN_COUNT = 4,
    VEV_DICTIONARY_MAX = 16384,
    VEV_SLOT_COUNT = 64,
    VEV_CELL_COUNT = 7,
};
#define VEV_SEGMENT_SIZE_MAX (64u << 20)

/* Where things are in a file; follows from what its header says. */
typedef struct vev_geometry {
    uint64_t file_size;
    uint32_t segment_size, segment_count;
    uint32_t dictionary_capacity; /* bytes kept for a dictionary in every segment; multiple of 4K */
    uint32_t record_size_min;     /* no record is smaller: bounds the number of records */
    uint32_t max_records;         /* in a segment; multiple of 16 */
    uint32_t map_offset;          /* of the state map in the segment */
    uint32_t data_offset;         /* of the data area in the segment */
    uint32_t data_size;
} vev_geometry;

typedef struct vev_file_header {
    uint8_t uuid[16];
    uint32_t stream;
    int64_t created_ns;
    vev_geometry geometry;
} vev_file_header;

/* Everything that happened to segments already reclaimed. */
typedef struct vev_ledger {
    uint64_t version;
    uint64_t floor_generation; /* every generation below is reclaimed */
    uint64_t floor_seq;        /* every sequence number below is accounted for here */
    uint64_t delivered, rejected, evicted, lost;
    uint64_t evicted_by_kind[VEV_KIND_COUNT];
    uint64_t lost_unfinished, lost_damaged; /* parts of `lost`; the rest was in whole segments */
} vev_ledger;

/* One lap of a segment. */
typedef struct vev_head {
    uint64_t generation; /* 1, 2, ... over the life of the file */
    uint64_t base_seq;
    uint64_t salt;
    int64_t created_ns;
    uint32_t dictionary_size, dictionary_crc;
    bool sealed;
    uint32_t record_count; /* valid when sealed */
    uint32_t data_end;     /* likewise: offset of the end word */
} vev_head;

/* A cell holds the generation of a segment that a thread is writing to: while it does, that
 * segment's bytes are not reused (INV-7, vev_ring.c). On a cache line of its own, since every
 * append writes it twice. */
typedef struct vev_cell {
    _Atomic uint64_t generation; /* 0: free */
    uint8_t pad[56];
} vev_cell;

/* A writing process. */
typedef struct vev_slot {
    _Atomic uint32_t epoch; /* counts the owners of this slot; with the index it names one */
    uint8_t pad[60];
    vev_cell cells[VEV_CELL_COUNT];
} vev_slot;

#define VEV_GENERATION_RECLAIMED (1ull << 63)

/* In the live area when it is ready, and while it is rebuilt. Whoever expects less of it has
 * others: what somebody has marked who knows of no tallies is in none. */
enum { VEV_LIVE_MAGIC = 0x34564556, VEV_LIVE_REBUILDING = 0x34425552 };
/* The same before there were tallies. */
enum { VEV_LIVE_MAGIC_3 = 0x33564556, VEV_LIVE_REBUILDING_3 = 0x44425552 };

/* Shared by the processes that have the file open. */
typedef struct vev_live {
    uint32_t magic;
    uint32_t boot;
    _Atomic uint64_t active; /* generation << 10 | segment index */
    _Atomic uint64_t durable_seq;
    _Atomic uint32_t spare; /* 1 + index of a segment whose front is cleared; 0: there is none */
    _Atomic uint32_t sync_error; /* errno of a failed sync in this session: no later one counts */
    /* Generation of the active segment << 24 | offset / 8 in its data up to which it is cleared
     * (INV-10, vev_clear.c). */
    _Atomic uint64_t cleared;
    /* Likewise, of the record where who opens the file in this boot may begin (INV-13,
     * vev_checkpoint.c). */
    _Atomic uint64_t checkpoint;
    uint64_t home;         /* identity of the file whose live area this is, not a copy's; 0: none */
    uint8_t pad[512 - 56]; /* on one page with the first slots, for a sync writes both */
    vev_slot slots[VEV_SLOT_COUNT];
    /* Generation in each segment; with VEV_GENERATION_RECLAIMED, the one whose bytes may go. */
    _Atomic uint64_t generations[VEV_SEGMENT_MAX_COUNT];
    /* What the state map of each sealed lap adds up to (INV-14, vev_states.c): vev_tally_word(), or
     * the token of who is counting it, or 0. */
    _Atomic uint32_t tallies[VEV_SEGMENT_MAX_COUNT];
} vev_live;
VEV_STATIC_ASSERT(offsetof(vev_live, slots) == 512, "slots are aligned to their size");
VEV_STATIC_ASSERT(sizeof(vev_slot) == 512, "a cache line a cell, and one for the epoch");
VEV_STATIC_ASSERT(VEV_AT_LIVE + sizeof(vev_live) <= VEV_HEADER_REGION, "the live area fits");

/* Derive the offsets. False when the numbers make no sense. */
bool vev_geometry_make(vev_geometry *geometry, uint64_t file_size, uint32_t segment_size,
                       uint32_t dictionary_capacity, uint32_t record_size_min);

static inline uint64_t vev_segment_offset(const vev_geometry *geometry, uint32_t segment)
{
    return VEV_HEADER_REGION + (uint64_t)segment * geometry->segment_size;
}

void vev_file_header_write(uint8_t block[VEV_HEADER_BLOCK], const vev_file_header *header);
/* VEV_E_CORRUPT when it is not one, VEV_E_VERSION when a newer format wrote it. */
vev_status vev_file_header_read(const uint8_t block[VEV_HEADER_BLOCK], vev_file_header *header_out);

void vev_ledger_write(uint8_t block[VEV_HEADER_BLOCK], const uint8_t uuid[16],
                      const vev_ledger *ledger);
bool vev_ledger_read(const uint8_t block[VEV_HEADER_BLOCK], const uint8_t uuid[16],
                     vev_ledger *ledger_out);
/* The valid one with the higher version of A and B at VEV_AT_LEDGER. False when neither is
 * valid. */
bool vev_ledger_latest(const uint8_t *region, const uint8_t uuid[16], vev_ledger *ledger_out);
/* Whether `latest` is sure to be the last that was written: the one before it is there as well. If
 * not, a newer one may have been damaged, and segments be reused that this one still counts in. */
bool vev_ledger_is_last(const uint8_t *region, const uint8_t uuid[16], const vev_ledger *latest);

void vev_head_write(uint8_t *segment, const vev_file_header *file, const vev_head *head);
void vev_head_seal(uint8_t *segment, const uint8_t uuid[16], uint64_t generation,
                   uint32_t record_count, uint32_t data_end);
enum { VEV_HEAD_BYTES = 192, VEV_HEAD_SEAL = 128 };

/* The checkpoint in the block of a head: the offset of a record of this lap that is on the disk,
 * and all before it (INV-13, vev_checkpoint.c). One word, so that it is there or not; 0: none. */
enum { VEV_HEAD_CHECKPOINT = 192 };
uint64_t vev_checkpoint_word(uint32_t seed, uint32_t offset);
/* The offset that a word says; 0 when it says none of this lap. */
uint32_t vev_checkpoint_offset(uint64_t word, uint32_t seed, uint32_t data_size);

/* Likewise the kinds of record in the lap, each a bit (INV-15, vev_reclaim.c), and one that says
 * that these are all; a word that does not check says nothing. */
enum { VEV_HEAD_KINDS = 200 };
#define VEV_KINDS_ALL (1u << 31)
uint64_t vev_kinds_word(uint32_t seed, uint32_t kinds);
/* False when it says nothing of this lap. */
bool vev_kinds_read(uint64_t word, uint32_t seed, uint32_t *kinds_out);

/* What file a head is of, from itself alone: for a file whose header and its copy are broken. */
bool vev_head_identify(const uint8_t *bytes, uint64_t file_size, vev_file_header *header_out);
/* False when no head of this file stands there. `bytes` holds VEV_HEAD_BYTES. */
bool vev_head_read(const uint8_t *bytes, const uint8_t uuid[16], const vev_geometry *geometry,
                   vev_head *head_out);

/* The past: which laps came before this one, newest first, so that one block tells what else would
 * have to be read from a block in each of their segments (docs/design/0014). */
enum { VEV_HEAD_PAST = 256, VEV_PAST_MAX = 95 };
/* How many laps are named in a past that is written. Tests shorten it. */
extern uint32_t vev__past_max;

/* Write the past into the block of a lap that begins: the sealed lap of `before`, the block of
 * `before_segment`, and what that one names. */
void vev_past_write(uint8_t block[VEV_HEADER_BLOCK], const vev_file_header *file,
                    const vev_head *head, const uint8_t before[VEV_HEADER_BLOCK],
                    uint32_t before_segment);
/* How many laps a block names whose own head is `head`. */
uint32_t vev_past_count(const uint8_t block[VEV_HEADER_BLOCK], const uint8_t uuid[16],
                        const vev_head *head);
/* The `i`-th of them. False when it makes no sense. */
bool vev_past_read(const uint8_t block[VEV_HEADER_BLOCK], const vev_geometry *geometry, uint32_t i,
                   uint32_t *segment_out, vev_head *head_out);

/* State map: 64-bit words of 16 records, 2 bits each in the low half; the high half is a checksum
 * over lap, index and states. A word that does not check reads as all pending: at worst a record is
 * delivered twice, which the server takes as one, and never is one forgotten. */
static inline uint32_t vev_map_words(const vev_geometry *geometry)
{
    return geometry->max_records / 16;
}
uint32_t vev_map_states(uint64_t word, uint32_t seed, uint32_t word_index);
uint64_t vev_map_word(uint32_t states, uint32_t seed, uint32_t word_index);
static inline int vev_map_state(uint32_t states, uint32_t record_index)
{
    return (int)(states >> (record_index % 16 * 2) & 3u);
}

/* How many of the first `record_count` records of a map are in each state. */
void vev_map_count(const uint8_t *map, uint32_t seed, uint32_t record_count, uint64_t counts[4]);

/* The counts of a lap in one word, so that its map need not be read for them. 0 when they do not
 * fit: some records are lost (why is asked of the data), or too many rejected. */
uint32_t vev_tally_word(const uint64_t counts[4]);
/* The same backwards, for a lap of that many records. False when it says nothing, or nonsense. */
bool vev_tally_read(uint32_t word, uint32_t record_count, uint64_t counts[4]);
/* Names a process that is counting, by its `owner`; no word that says something is like it. */
static inline uint32_t vev_tally_token(uint32_t owner) { return owner | 1u << 30; }

#endif
