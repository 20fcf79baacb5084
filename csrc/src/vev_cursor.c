/* Reading, marking, counting.
 *
 * Readers never map the data: they read it through the file, window by window, so that a backlog of
 * a gigabyte costs a window of memory and a failing disk costs an error code. What they read may be
 * changing under them (the newest segment) or be reclaimed meanwhile; the checksum, which covers the
 * generation, tells (INV-4), and a record that does not check in a live segment is looked at twice.
 *
 * INV-14 A tally in the live area that says something says what the state map of that lap says, but
 *        for changes by somebody who holds a cell of the lap. Who is to change a map claims a cell
 *        (INV-7), takes the tally back, and only then changes it. Who counts puts its token in the
 *        tally's place, looks then at the cells and at the generation, reads the map after that, and
 *        puts the counts in the place of its token, if that still stands there (all sequentially
 *        consistent). Either the one finds the token, or the other the cell. A lap begins without a
 *        tally; so does a boot.
 */
#include <errno.h>
#include <stdlib.h>

#include "vev_checkpoint.h"
#include "vev_clock.h"
#include "vev_crc32c.h"
#include "vev_dictionary.h"
#include "vev_guard.h"
#include "vev_ring.h"

/* Bytes of the data area that are read at once: few at first, since a record or two may be all that
 * is wanted, and more with every step of a reader who goes on. */
enum { WINDOW_MIN = 16 * 1024, WINDOW_MAX = 256 * 1024 };
/* Likewise of the state map. */
enum { MAP_PIECE = 4096 };

/* ---- the list of live segments ---- */

vev_status vev_ring_list(vev_ring *ring)
{
    const vev_geometry *geometry = &ring->file.geometry;
    if (ring->readonly) {
        uint64_t unreadable;
        vev_status status =
            vev_io_read_around(ring->io, ring->fd, 0, ring->region, VEV_HEADER_REGION, &unreadable);
        if (status)
            return status;
    }
    vev_ledger *ledger = &ring->listed_ledger;
    bool accounted = vev_ledger_latest(ring->region, ring->file.uuid, ledger);
    if (!accounted)
        *ledger = (vev_ledger){.floor_generation = 1, .floor_seq = 1};
    bool living = !ring->readonly;
    vev_listed_find(ring, vev_listed_floor(ring, accounted, living, ledger), living, ring->cached);
    uint32_t count = 0;
    for (uint32_t s = 0; s < geometry->segment_count; s++) {
        uint64_t generation = ring->cached[s].head.generation;
        if (ring->readonly ? generation > 0
                           : vev_ring_is_living(ring, s) &&
                                 generation == atomic_load(&ring->live->generations[s]))
            ring->listed[count++] = ring->cached[s];
    }
    ring->listed_count = vev_listed_order(ring->listed, count, geometry, ledger);
    return VEV_OK;
}

static vev_lap lap_of(const vev_ring *ring, const vev_listed *listed)
{
    const vev_geometry *geometry = &ring->file.geometry;
    return (vev_lap){
        .seed = vev_lap_seed(ring->file.uuid, listed->head.generation, listed->head.salt),
        .file_offset = vev_segment_offset(geometry, listed->segment) + geometry->data_offset,
        .base_seq = listed->head.base_seq,
        .max_records = geometry->max_records};
}

/* ---- reading around bad sectors ---- */

uint64_t vev__give_up_ns = 60000000000u;

/* Read what can be read of a segment, and remember when something could not be. */
static vev_status read_part(vev_ring *ring, uint64_t offset, void *buffer, size_t size)
{
    uint64_t unreadable;
    vev_status status = vev_io_read_around(ring->io, ring->fd, offset, buffer, size, &unreadable);
    if (status)
        return status;
    if (unreadable > 0 && ring->unreadable_since_ns == 0) {
        ring->unreadable_since_ns = vev_clock_ticks_ns();
        ring->unreadable_at = offset;
    } else if (unreadable == 0 && offset == ring->unreadable_at) {
        ring->unreadable_since_ns = 0; /* it was for a moment only */
    }
    return VEV_OK;
}

/* Whether bytes could not be read that may be readable again: a controller that is reset, a cable.
 * What is in them is passed over, but not given up. */
static bool may_come_back(const vev_ring *ring)
{
    return ring->unreadable_since_ns != 0 &&
           vev_clock_ticks_ns() - ring->unreadable_since_ns < vev__give_up_ns;
}

/* ---- the window ---- */

/* Have at least `size` bytes at `offset` of the segment's data area in memory, fewer at its end. */
static vev_status load_window(vev_ring *ring, const vev_listed *listed, uint32_t offset,
                              uint32_t size, bool again)
{
    const vev_geometry *geometry = &ring->file.geometry;
    size = VEV_MIN(size, geometry->data_size - offset);
    if (!again && ring->window_generation == listed->head.generation &&
        offset >= ring->window_offset &&
        (uint64_t)offset + size <= (uint64_t)ring->window_offset + ring->window_size)
        return VEV_OK;
    bool goes_on = ring->window_generation == listed->head.generation &&
                   offset >= ring->window_offset &&
                   offset - ring->window_offset <= ring->window_size;
    uint32_t wanted =
        goes_on ? VEV_MIN(2 * ring->window_size, (uint32_t)WINDOW_MAX) : (uint32_t)WINDOW_MIN;
    wanted = VEV_MIN(VEV_MAX(size, wanted), geometry->data_size - offset);
    if (ring->window_capacity < wanted) {
        uint8_t *grown = realloc(ring->window, wanted);
        if (!grown)
            return VEV_E_NOMEM;
        ring->window = grown;
        ring->window_capacity = wanted;
    }
    ring->window_generation = 0;
    vev_status status = read_part(
        ring, vev_segment_offset(geometry, listed->segment) + geometry->data_offset + offset,
        ring->window, wanted);
    if (status)
        return status;
    ring->window_generation = listed->head.generation;
    ring->window_offset = offset;
    ring->window_size = wanted;
    return VEV_OK;
}

static const uint8_t *window_at(const vev_ring *ring, uint32_t offset)
{
    return ring->window + (offset - ring->window_offset);
}

static uint32_t window_left(const vev_ring *ring, uint32_t offset)
{
    return ring->window_offset + ring->window_size - offset;
}

/* ---- stepping ---- */

typedef enum {
    STEP_RECORD,
    STEP_SKIP, /* damage, or a hole: the records up to `index` are lost */
    STEP_BUSY, /* a record that is being written: it can be read later */
    STEP_END
} step_kind;

typedef struct step {
    step_kind kind;
    vev_header header; /* of a record */
    uint32_t offset;   /* of the record; of its successor it is offset + size */
    uint32_t size;
    uint32_t index; /* of the record, or of the first one after a skip */
} step;

/* Whether a record of this lap stands at `offset`. `again`: what of it was read before is read
 * again. */
static vev_status look_for_record(vev_ring *ring, const vev_listed *listed, const vev_lap *lap,
                                  uint32_t offset, bool again, vev_header *header, bool *found_out)
{
    uint32_t data_size = ring->file.geometry.data_size;
    *found_out = false;
    vev_status status = load_window(ring, listed, offset, VEV_RECORD_HEADER, false);
    if (status)
        return status;
    uint32_t size = vev_word_size(vev_load64(window_at(ring, offset)));
    if (size < VEV_RECORD_HEADER || size > data_size - offset)
        return VEV_OK;
    status = load_window(ring, listed, offset, size, again);
    *found_out = !status && vev_record_check(window_at(ring, offset), window_left(ring, offset),
                                             data_size, lap, offset, header);
    return status;
}

/* Whether the chain goes on at `offset` with record `index` or a later one. */
static vev_status chain_goes_on(vev_ring *ring, const vev_listed *listed, const vev_lap *lap,
                                uint32_t offset, uint32_t index, bool *goes_on_out)
{
    uint32_t data_size = ring->file.geometry.data_size;
    *goes_on_out = false;
    vev_status status = load_window(ring, listed, offset, VEV_RECORD_HEADER, false);
    if (status)
        return status;
    uint64_t word = vev_load64(window_at(ring, offset));
    uint32_t size = vev_word_size(word), end_count;
    vev_header header;
    switch (vev_word_state(word)) {
    case VEV_WORD_FREE: *goes_on_out = word == 0 && !listed->head.sealed; break;
    case VEV_WORD_RESERVED: *goes_on_out = size >= 8 && size <= data_size - 8 - offset; break;
    case VEV_WORD_END:
        *goes_on_out = vev_end_check(word, lap, offset, &end_count) && end_count >= index;
        break;
    default:
        status = look_for_record(ring, listed, lap, offset, false, &header, goes_on_out);
        *goes_on_out = *goes_on_out && header.seq - lap->base_seq >= index;
    }
    return status;
}

/* Whether a free word at `offset` is the end for now: in front of a checkpoint it is damage, which
 * opening did not mend (INV-13). A checkpoint that is none costs a look at what is behind the
 * end. */
static bool is_open_at(const vev_ring *ring, const vev_listed *listed, uint32_t offset)
{
    return !listed->head.sealed && offset >= listed->checkpoint &&
           offset >= vev_ring_checkpoint(ring, listed->head.generation);
}

/* Look at `offset`, where record `index` is expected. */
static vev_status step_at(vev_ring *ring, const vev_listed *listed, const vev_lap *lap,
                          uint32_t offset, uint32_t index, step *out)
{
    uint32_t data_size = ring->file.geometry.data_size;
    out->offset = offset;
    out->size = 0;
    out->index = index;
    out->kind = STEP_END;
    if (offset > data_size - 8)
        return VEV_OK;
    bool alive = true; /* the owner of the reserved word at the first look */
    for (int look = 0; look < 2; look++) {
        vev_status status = load_window(ring, listed, offset, VEV_RECORD_HEADER, look > 0);
        if (status)
            return status;
        uint64_t word = vev_load64(window_at(ring, offset));
        uint32_t size = vev_word_size(word), state = vev_word_state(word), end_count;
        if (state == VEV_WORD_COMMITTED) {
            bool found;
            status = look_for_record(ring, listed, lap, offset, look > 0, &out->header, &found);
            if (status)
                return status;
            if (found && out->header.seq - lap->base_seq >= index) {
                out->kind = STEP_RECORD;
                out->index = (uint32_t)(out->header.seq - lap->base_seq);
                out->size = size;
                return VEV_OK;
            }
        } else if (vev_end_check(word, lap, offset, &end_count)) {
            out->index = VEV_MAX(index, end_count);
            return VEV_OK;
        } else if (word == 0 && is_open_at(ring, listed, offset)) {
            return VEV_OK;
        } else if (state == VEV_WORD_RESERVED && size >= 8 && size <= data_size - 8 - offset) {
            if (vev_word_is_hole(word)) {
                out->kind = STEP_SKIP;
                out->size = size;
                out->index = (uint32_t)VEV_MIN((uint64_t)index + vev_word_count(word),
                                               (uint64_t)lap->max_records);
                return VEV_OK;
            }
            if (look == 0) {
                /* The window may be older than the record. And asked before the last look: a writer
                 * that commits and goes in between is seen to have committed. */
                alive = vev_ring_owner_alive(ring, vev_word_high(word));
                continue;
            }
            bool goes_on = alive;
            out->kind = goes_on ? STEP_BUSY : STEP_SKIP;
            /* A dead writer's word still says where the next record begins; looking for committed
             * ones only would step over others that are just being written. */
            if (!goes_on)
                status = chain_goes_on(ring, listed, lap, offset + size, index + 1, &goes_on);
            if (status)
                return status;
            if (goes_on) {
                out->size = size;
                out->index = index + 1;
                return VEV_OK;
            }
            out->kind = STEP_END;
        }
    }
    /* Damage, or the rest of a record whose writer died: look for the next good one. */
    vev_status status = load_window(ring, listed, 0, data_size, true);
    if (status)
        return status;
    uint32_t next = vev_record_resync(ring->window, data_size, data_size, lap, offset, index);
    if (next == data_size) {
        out->index = listed->head.sealed ? VEV_MAX(index, listed->head.record_count) : index;
        return VEV_OK;
    }
    out->kind = STEP_SKIP;
    out->size = next - offset;
    uint32_t end_count;
    vev_header header;
    if (vev_end_check(vev_load64(window_at(ring, next)), lap, next, &end_count))
        out->index = end_count;
    else if (vev_record_check(window_at(ring, next), window_left(ring, next), data_size, lap, next,
                              &header))
        out->index = (uint32_t)(header.seq - lap->base_seq);
    return VEV_OK;
}

/* ---- states ---- */

static uint64_t map_at(const vev_ring *ring, const vev_listed *listed)
{
    const vev_geometry *geometry = &ring->file.geometry;
    return vev_segment_offset(geometry, listed->segment) + geometry->map_offset;
}

/* How much of a map tells of so many records. */
static uint32_t map_bytes(uint32_t record_count) { return (record_count + 15) / 16 * 8; }

/* Have a part of a segment's state map in memory. What of it cannot be read does not check, and
 * says pending. */
static vev_status load_map(vev_ring *ring, const vev_listed *listed, uint32_t from, uint32_t to,
                           uint64_t *unreadable_out)
{
    return vev_io_read_around(ring->io, ring->fd, map_at(ring, listed) + from, ring->map + from,
                              to - from, unreadable_out);
}

static uint32_t state_of(const vev_ring *ring, const vev_lap *lap, uint32_t index)
{
    uint32_t states =
        vev_map_states(vev_load64(ring->map + 8 * (size_t)(index / 16)), lap->seed, index / 16);
    return (uint32_t)vev_map_state(states, index);
}

/* How many records of a segment were reserved and never finished. */
static vev_status count_unfinished(vev_ring *ring, const vev_listed *listed, uint32_t *count_out)
{
    uint32_t data_size = ring->file.geometry.data_size, offset = 0;
    *count_out = 0;
    while (offset <= data_size - 8) {
        vev_status status = load_window(ring, listed, offset, 8, false);
        if (status)
            return status;
        uint64_t word = vev_load64(window_at(ring, offset));
        uint32_t state = vev_word_state(word), size = vev_word_size(word);
        if ((state != VEV_WORD_RESERVED && state != VEV_WORD_COMMITTED) || size < 8 ||
            size > data_size - 8 - offset)
            return VEV_OK;
        if (state == VEV_WORD_RESERVED &&
            (!vev_word_is_hole(word) || vev_word_high(word) >= VEV_HOLE_UNFINISHED))
            *count_out += vev_word_count(word);
        offset += size;
    }
    return VEV_OK;
}

static vev_status count_map(vev_ring *ring, const vev_listed *listed, uint32_t record_count,
                            uint64_t counts[4], uint64_t *unfinished_out, uint64_t *unreadable_out)
{
    record_count = VEV_MIN(record_count, ring->file.geometry.max_records);
    vev_status status = load_map(ring, listed, 0, map_bytes(record_count), unreadable_out);
    if (status)
        return status;
    vev_map_count(ring->map,
                  vev_lap_seed(ring->file.uuid, listed->head.generation, listed->head.salt),
                  record_count, counts);
    /* Losses are few and why they happened stands in the data, so it is read only for them. */
    vev_listed *cached = &ring->cached[listed->segment];
    if (cached->lost != counts[VEV_LOST]) {
        status = count_unfinished(ring, listed, &cached->unfinished);
        cached->lost = (uint32_t)counts[VEV_LOST];
    }
    *unfinished_out = VEV_MIN((uint64_t)cached->unfinished, counts[VEV_LOST]);
    return status;
}

vev_status vev_ring_count(vev_ring *ring, const vev_listed *listed, uint32_t record_count,
                          uint64_t counts[4], uint64_t *unfinished_out)
{
    uint64_t unreadable;
    return count_map(ring, listed, record_count, counts, unfinished_out, &unreadable);
}

/* ---- tallies ---- */

bool vev__tallies = true;

/* Whether tallies can be relied on. Not after a failed sync: the system may drop pages that it has
 * not written, and what a map says then is older. A read-only ring has a copy of the live area,
 * which is of this boot and of this file or means nothing; it was copied behind the ledger, by
 * whose version the figures are seen to be of one moment. */
static bool has_tallies(const vev_ring *ring)
{
    const vev_live *live = ring->live;
    return vev__tallies && atomic_load(&live->sync_error) == 0 &&
           (!ring->readonly || (live->magic == VEV_LIVE_MAGIC &&
                                live->boot == vev_clock_boot_tag() && vev_ring_is_at_home(ring)));
}

static uint32_t records_in(const vev_listed *sealed)
{
    return (uint32_t)(sealed->end_seq - sealed->head.base_seq);
}

static bool read_tally(const vev_ring *ring, const vev_listed *listed, uint64_t counts[4])
{
    const vev_live *live = ring->live;
    return has_tallies(ring) &&
           vev_tally_read(atomic_load(&live->tallies[listed->segment]), records_in(listed),
                          counts) &&
           atomic_load(&live->generations[listed->segment]) == listed->head.generation;
}

/* Whether what the map adds up to can be kept as a tally, as far as is known before it is read:
 * nothing is written to the live area in vain, for that is a page of flash. */
static bool may_tally(const vev_ring *ring, const vev_listed *listed)
{
    uint64_t generation = listed->head.generation;
    return !ring->readonly && has_tallies(ring) && !ring->cached[listed->segment].no_tally &&
           !vev_ring_is_pinned(ring, generation, generation) &&
           atomic_load(&ring->live->generations[listed->segment]) == generation;
}

/* Count a sealed lap, by its tally if it has one; else by its map, and leave a tally (INV-14). */
static vev_status count_sealed(vev_ring *ring, const vev_listed *listed, uint64_t counts[4],
                               uint64_t *unfinished_out)
{
    *unfinished_out = 0;
    if (read_tally(ring, listed, counts))
        return VEV_OK;
    _Atomic uint32_t *tally = &ring->live->tallies[listed->segment];
    uint32_t token = vev_tally_token(ring->owner), present = atomic_load(tally);
    bool ours = may_tally(ring, listed) && atomic_compare_exchange_strong(tally, &present, token) &&
                may_tally(ring, listed);
    uint64_t unreadable;
    vev_status status =
        count_map(ring, listed, records_in(listed), counts, unfinished_out, &unreadable);
    if (status)
        return status;
    uint32_t word = unreadable > 0 ? 0 : vev_tally_word(counts);
    ring->cached[listed->segment].no_tally = word == 0;
    if (ours && word != 0)
        (void)atomic_compare_exchange_strong(tally, &token, word);
    return VEV_OK;
}

/* Take a lap's tally back; with a cell of it, if its map is then changed. Looking first: mostly
 * there is none, and a page that is not written to need not go to the flash. */
static void forget_tally(const vev_ring *ring, uint32_t segment)
{
    _Atomic uint32_t *tally = &ring->live->tallies[segment];
    if (atomic_load(tally) != 0)
        atomic_store(tally, 0);
}

/* ---- marking ---- */

/* Map the head and state map of a segment, for marking. Stays mapped for the next call. */
static vev_status map_for_marking(vev_ring *ring, const vev_listed *listed)
{
    const vev_geometry *geometry = &ring->file.geometry;
    if (ring->mark_base && ring->mark_segment == listed->segment &&
        ring->mark_generation == listed->head.generation)
        return VEV_OK;
    if (ring->mark_base) {
        vev_guard_forget(ring->mark_base);
        ring->io->unmap(ring->io->ctx, ring->mark_base, geometry->data_offset);
        ring->mark_base = NULL;
    }
    uint64_t at = vev_segment_offset(geometry, listed->segment);
    vev_status status = vev_io_heal(ring->io, ring->fd, at + geometry->map_offset,
                                    geometry->data_offset - geometry->map_offset);
    if (!status)
        status = ring->io->map(ring->io->ctx, ring->fd, at, geometry->data_offset, true,
                               &ring->mark_base);
    if (status) {
        ring->mark_base = NULL;
        return status;
    }
    vev_guard_remember(ring->mark_base, geometry->data_offset);
    ring->mark_segment = listed->segment;
    ring->mark_generation = listed->head.generation;
    return VEV_OK;
}

/* Whether the state changed. `only_pending`: leave records that have been delivered or rejected. */
static bool mark_one(vev_ring *ring, const vev_lap *lap, uint32_t index, uint32_t state,
                     bool only_pending)
{
    uint32_t word_index = index / 16, shift = index % 16 * 2;
    _Atomic uint64_t *word =
        (_Atomic uint64_t *)(void *)(ring->mark_base + ring->file.geometry.map_offset +
                                     8 * (size_t)word_index);
    uint64_t present = atomic_load_explicit(word, memory_order_relaxed);
    for (;;) {
        uint32_t states = vev_map_states(present, lap->seed, word_index);
        uint32_t before = states >> shift & 3u;
        if (before == state || (only_pending && before != VEV_PENDING))
            return false;
        uint32_t after = (states & ~(3u << shift)) | state << shift;
        if (atomic_compare_exchange_weak_explicit(word, &present,
                                                  vev_map_word(after, lap->seed, word_index),
                                                  memory_order_relaxed, memory_order_relaxed)) {
            atomic_store(&ring->marks_dirty, true);
            return true;
        }
    }
}

/* Mark indices [from, to) of a segment. With read_mutex held; inside a guard. */
static vev_status mark_range(vev_ring *ring, const vev_listed *listed, const vev_lap *lap,
                             uint32_t from, uint32_t to, uint32_t state, bool only_pending,
                             size_t *changed)
{
    vev_status status = VEV_OK;
    /* The cell keeps the bytes from being reused for another lap under our hands (INV-7). */
    _Atomic uint64_t *cell = vev_ring_claim(ring, listed->head.generation);
    ring->mark_cell = cell;
    if (atomic_load(&ring->live->generations[listed->segment]) == listed->head.generation) {
        /* Before the map is healed, which changes it, too (INV-14). */
        forget_tally(ring, listed->segment);
        status = map_for_marking(ring, listed);
        for (uint32_t i = from; !status && i < to && i < lap->max_records; i++)
            *changed += mark_one(ring, lap, i, state, only_pending);
    }
    ring->mark_cell = NULL;
    vev_ring_release(cell);
    return status;
}

/* What a jump out of mark_range() leaves. */
static vev_status after_sigbus(vev_ring *ring)
{
    vev_ring_release_guarded(ring->mark_cell);
    ring->mark_cell = NULL;
    if (ring->mark_base) { /* mapped anew next time, and healed before */
        vev_guard_forget(ring->mark_base);
        ring->io->unmap(ring->io->ctx, ring->mark_base, ring->file.geometry.data_offset);
        ring->mark_base = NULL;
    }
    return EIO;
}

/* ---- read ---- */

typedef struct reading {
    uint64_t from_seq;
    unsigned state_mask;
    vev_record *records;
    size_t record_cap;
    uint8_t *buffer;
    size_t buffer_size, buffer_used, count;
    uint64_t next_seq;
    bool full;
} reading;

/* Write a record's payload to `out`, raw_size bytes. VEV_E_CORRUPT when it does not decode. */
static vev_status decode(vev_ring *ring, const vev_header *header, const uint8_t *stored,
                         uint8_t *out)
{
    if (header->codec == VEV_CODEC_RAW) {
        if (header->raw_size != header->stored_size)
            return VEV_E_CORRUPT;
        memcpy(out, stored, header->stored_size);
        return VEV_OK;
    }
    if (header->codec > VEV_CODEC_ZSTD_PLAIN ||
        (header->codec == VEV_CODEC_ZSTD && !ring->read_dictionary))
        return VEV_E_CORRUPT;
    vev_context *context = vev_pool_take(ring->pool, 0);
    for (int turn = 0; !context && turn < 1000; turn++) {
        vev_clock_pause((uint32_t)turn); /* appenders have them all, each for microseconds */
        context = vev_pool_take(ring->pool, 0);
    }
    if (!context)
        return VEV_E_NOMEM;
    vev_status status = vev_zstd_decompress(
        context->zctx, header->codec == VEV_CODEC_ZSTD ? ring->read_dictionary->digested : NULL,
        out, header->raw_size, stored, header->stored_size);
    vev_pool_give(context);
    return status;
}

/* Put one record's payload into the caller's buffer. */
static vev_status deliver(vev_ring *ring, reading *r, const step *s, uint32_t state, bool *bad_out)
{
    const vev_header *header = &s->header;
    *bad_out = header->raw_size > ring->file.geometry.data_size;
    if (*bad_out)
        return VEV_OK;
    if (r->count == r->record_cap || header->raw_size > r->buffer_size - r->buffer_used) {
        r->full = true;
        if (r->count == 0) {
            r->records[0].size = header->raw_size;
            return VEV_E_BUFFER;
        }
        return VEV_OK;
    }
    vev_status status = decode(ring, header, vev_record_payload(window_at(ring, s->offset), header),
                               r->buffer + r->buffer_used);
    if (status == VEV_E_CORRUPT) {
        *bad_out = true;
        return VEV_OK;
    }
    if (status)
        return status;
    vev_record *record = &r->records[r->count++];
    record->seq = header->seq;
    record->wall_ns = header->wall_ns;
    record->mono_ns = header->mono_ns;
    record->boot = header->boot;
    record->kind = header->kind;
    record->state = state;
    record->flags = header->time_given ? VEV_APPEND_TIME : 0u;
    if (header->id_given)
        memcpy(record->id, header->id, VEV_ID_SIZE);
    else
        vev_record_make_id(ring->file.uuid, header, record->id);
    record->offset = r->buffer_used;
    record->size = header->raw_size;
    record->stored_size = s->size;
    r->buffer_used += header->raw_size;
    return VEV_OK;
}

/* Have the segment's dictionary in read_dictionary; NULL when it has none, or a broken one, and
 * then every compressed record in it will prove undecodable. */
static vev_status load_dictionary(vev_ring *ring, const vev_listed *listed)
{
    if (ring->dictionary_generation == listed->head.generation)
        return VEV_OK;
    vev_ring_drop_dictionary(ring, ring->read_dictionary);
    ring->read_dictionary = NULL;
    ring->dictionary_generation = 0;
    uint32_t size = listed->head.dictionary_size;
    if (size > 0) {
        uint8_t bytes[VEV_DICTIONARY_MAX];
        vev_status status = read_part(
            ring, vev_segment_offset(&ring->file.geometry, listed->segment) + VEV_HEADER_BLOCK,
            bytes, size);
        if (status)
            return status;
        const vev_dictionary *own = ring->own_dictionary;
        if (vev_crc32c(0, bytes, size) != listed->head.dictionary_crc && own && own->size == size &&
            own->crc == listed->head.dictionary_crc)
            memcpy(bytes, own->bytes, size);
        if (vev_crc32c(0, bytes, size) == listed->head.dictionary_crc) {
            status = vev_ring_hold_dictionary(ring, bytes, size, &ring->read_dictionary);
            if (status && status != VEV_E_CORRUPT)
                return status;
        }
    }
    if (size == 0 || ring->read_dictionary || !may_come_back(ring))
        ring->dictionary_generation = listed->head.generation;
    return VEV_OK;
}

static vev_status read_segment(vev_ring *ring, const vev_listed *listed, reading *r)
{
    vev_lap lap = lap_of(ring, listed);
    const uint32_t map_size = vev_map_words(&ring->file.geometry) * 8;
    uint32_t map_from = 0, map_to = 0;
    vev_status status = load_dictionary(ring, listed);
    if (status)
        return status;
    if (!listed->head.sealed || may_come_back(ring))
        ring->window_generation = 0; /* it may have grown since, or be readable again */
    uint32_t offset = 0, index = 0;
    if (ring->read_generation == listed->head.generation &&
        lap.base_seq + ring->read_index <= r->from_seq) {
        offset = ring->read_offset;
        index = (uint32_t)ring->read_index;
    }
    for (;;) {
        ring->read_generation = listed->head.generation;
        ring->read_offset = offset;
        ring->read_index = index;
        step s;
        status = step_at(ring, listed, &lap, offset, index, &s);
        if (status)
            return status;
        size_t ignored = 0;
        bool give_up = !ring->readonly && !may_come_back(ring);
        if (s.index > index && s.kind != STEP_BUSY && give_up) {
            status = mark_range(ring, listed, &lap, index, s.index, VEV_LOST, true, &ignored);
            if (status)
                return status;
        }
        if (s.kind == STEP_RECORD) {
            uint32_t at = s.index / 16 * 8;
            if (at < map_from || at >= map_to) {
                map_from = at / MAP_PIECE * MAP_PIECE;
                map_to = VEV_MIN(map_from + MAP_PIECE, map_size);
                uint64_t unreadable;
                status = load_map(ring, listed, map_from, map_to, &unreadable);
                if (status)
                    return status;
                /* It is cleared after the segment is marked as reclaimed: asked now, this tells a
                 * good one. */
                if (!ring->readonly && atomic_load(&ring->live->generations[listed->segment]) !=
                                           listed->head.generation)
                    return VEV_OK;
            }
            uint32_t state = state_of(ring, &lap, s.index);
            uint64_t seq = s.header.seq;
            bool bad = false;
            if (seq >= r->from_seq && (r->state_mask >> state & 1u)) {
                status = deliver(ring, r, &s, state, &bad);
                if (status || r->full)
                    return status;
            }
            if (bad && give_up) {
                status =
                    mark_range(ring, listed, &lap, s.index, s.index + 1, VEV_LOST, true, &ignored);
                if (status)
                    return status;
            }
            index = s.index + 1;
            r->next_seq = VEV_MAX(r->next_seq, seq + 1);
        } else {
            index = s.index;
            r->next_seq = VEV_MAX(r->next_seq, lap.base_seq + index);
        }
        if (s.kind == STEP_END) {
            ring->read_index = index;
            return VEV_OK;
        }
        offset += s.size;
    }
}

static vev_status read_locked(vev_ring *ring, reading *r)
{
    vev_status status = vev_ring_list(ring);
    for (uint32_t i = 0; !status && !r->full && i < ring->listed_count; i++) {
        const vev_listed *listed = &ring->listed[i];
        bool newest = i + 1 == ring->listed_count;
        if (!newest && ring->listed[i + 1].head.base_seq <= r->from_seq)
            continue;
        r->next_seq = VEV_MAX(r->next_seq, listed->head.base_seq);
        status = read_segment(ring, listed, r);
        if (status == EIO) {
            /* One unreadable segment must not hide the ones behind it. */
            if (newest || r->count > 0)
                return r->count > 0 ? VEV_OK : status;
            r->next_seq = VEV_MAX(r->next_seq, ring->listed[i + 1].head.base_seq);
            status = VEV_OK;
        }
    }
    return status;
}

vev_status vev_ring_read(vev_ring *ring, uint64_t from_seq, unsigned state_mask,
                         vev_record *records, size_t record_cap, void *buffer, size_t buffer_size,
                         size_t *count_out, uint64_t *next_out)
{
    if (record_cap == 0 || record_cap > 65536 || !records || (!buffer && buffer_size > 0))
        return VEV_E_INVALID;
    reading r = {.from_seq = from_seq,
                 .state_mask = state_mask,
                 .records = records,
                 .record_cap = record_cap,
                 .buffer = buffer,
                 .buffer_size = buffer_size,
                 .next_seq = from_seq};
    pthread_mutex_lock(&ring->read_mutex);
    vev_status status;
    vev_guard guard;
    vev_guard_enter(&guard);
    if (sigsetjmp(guard.jump, 0) == 0) {
        status = read_locked(ring, &r);
        vev_guard_leave(&guard);
    } else {
        status = after_sigbus(ring);
    }
    pthread_mutex_unlock(&ring->read_mutex);
    *count_out = status ? 0 : r.count;
    *next_out = r.next_seq;
    return status;
}

/* ---- verify ---- */

typedef struct verifying {
    vev_damage *ranges;
    size_t range_cap, count;
    uint64_t checked;
    uint8_t *scratch; /* data_size bytes: no payload is larger */
} verifying;

static void add_damage(verifying *v, uint64_t offset, uint64_t size, uint64_t first_seq,
                       uint64_t count)
{
    if (v->count < v->range_cap)
        v->ranges[v->count] = (vev_damage){offset, size, first_seq, count};
    v->count++;
}

static vev_status verify_segment(vev_ring *ring, const vev_listed *listed, verifying *v)
{
    const vev_geometry *geometry = &ring->file.geometry;
    vev_lap lap = lap_of(ring, listed);
    ring->window_generation = 0;
    ring->dictionary_generation = 0; /* look at the one on the disk */
    vev_status status = load_dictionary(ring, listed);
    if (status)
        return status;
    if (listed->head.dictionary_size > 0 && !ring->read_dictionary)
        add_damage(v, vev_segment_offset(geometry, listed->segment) + VEV_HEADER_BLOCK,
                   listed->head.dictionary_size, lap.base_seq, 0);
    uint32_t offset = 0, index = 0;
    for (;;) {
        step s;
        status = step_at(ring, listed, &lap, offset, index, &s);
        if (status)
            return status;
        /* A hole that recovery made over what had never been finished counts no records. */
        if (s.kind != STEP_BUSY && s.index > index)
            add_damage(v, lap.file_offset + offset,
                       s.kind == STEP_END ? geometry->data_size - offset : s.size,
                       lap.base_seq + index, s.index - index);
        if (s.kind == STEP_RECORD) {
            status =
                s.header.raw_size > geometry->data_size
                    ? VEV_E_CORRUPT
                    : decode(ring, &s.header,
                             vev_record_payload(window_at(ring, offset), &s.header), v->scratch);
            if (status == VEV_E_CORRUPT)
                add_damage(v, lap.file_offset + offset, s.size, s.header.seq, 1);
            else if (status)
                return status;
            else
                v->checked++;
        }
        index = s.kind == STEP_RECORD ? s.index + 1 : s.index;
        if (s.kind == STEP_END)
            return VEV_OK;
        offset += s.size;
    }
}

/* A tally that the map does not bear out is taken back: of a disk that was pulled out and put back,
 * say. The next figures are right; the records always were. */
static vev_status verify_tally(vev_ring *ring, const vev_listed *listed)
{
    uint64_t tallied[4], counts[4], unfinished, unreadable;
    if (ring->readonly || !read_tally(ring, listed, tallied))
        return VEV_OK;
    vev_status status =
        count_map(ring, listed, records_in(listed), counts, &unfinished, &unreadable);
    if (!status && unreadable == 0 && memcmp(tallied, counts, sizeof counts) != 0)
        forget_tally(ring, listed->segment);
    return status;
}

static vev_status verify_locked(vev_ring *ring, verifying *v)
{
    vev_status status = vev_ring_list(ring);
    vev_ledger ledger;
    uint64_t next_seq =
        vev_ledger_latest(ring->region, ring->file.uuid, &ledger) ? ledger.floor_seq : 1;
    for (uint32_t i = 0; !status && i < ring->listed_count; i++) {
        const vev_listed *listed = &ring->listed[i];
        if (listed->head.base_seq > next_seq) /* a segment whose head is gone: it can be anywhere */
            add_damage(v, 0, 0, next_seq, listed->head.base_seq - next_seq);
        status = verify_segment(ring, listed, v);
        if (!status && i + 1 < ring->listed_count)
            status = verify_tally(ring, listed);
        next_seq = VEV_MAX(next_seq, listed->end_seq);
    }
    return status;
}

vev_status vev_ring_verify(vev_ring *ring, vev_damage *ranges, size_t range_cap, size_t *count_out,
                           uint64_t *checked_out)
{
    verifying v = {
        .ranges = ranges, .range_cap = range_cap, .scratch = malloc(ring->file.geometry.data_size)};
    if (!v.scratch)
        return VEV_E_NOMEM;
    pthread_mutex_lock(&ring->read_mutex);
    vev_status status;
    vev_guard guard;
    vev_guard_enter(&guard);
    if (sigsetjmp(guard.jump, 0) == 0) {
        status = verify_locked(ring, &v);
        vev_guard_leave(&guard);
    } else {
        status = EIO;
    }
    pthread_mutex_unlock(&ring->read_mutex);
    free(v.scratch);
    *count_out = v.count;
    *checked_out = v.checked;
    return status;
}

/* ---- mark ---- */

/* How many records the newest segment holds, and how many bytes of it are used. */
static vev_status measure_newest(vev_ring *ring, const vev_listed *newest, uint32_t *count_out,
                                 uint32_t *used_out)
{
    if (newest->head.sealed) {
        *count_out = newest->head.record_count;
        *used_out = newest->head.data_end;
        return VEV_OK;
    }
    vev_lap lap = lap_of(ring, newest);
    ring->window_generation = 0;
    uint32_t offset = 0, index = 0;
    if (ring->read_generation == newest->head.generation) {
        offset = ring->read_offset;
        index = (uint32_t)ring->read_index;
    }
    /* From a checkpoint on, if one is further on than that (INV-13). */
    uint32_t places[2] = {vev_ring_checkpoint(ring, newest->head.generation), newest->checkpoint};
    for (int i = 0; i < 2; i++) {
        vev_header header;
        bool found;
        if (places[i] <= offset || places[i] > ring->file.geometry.data_size - VEV_RECORD_HEADER)
            continue;
        vev_status status = look_for_record(ring, newest, &lap, places[i], false, &header, &found);
        if (status)
            return status;
        if (found) {
            offset = places[i];
            index = (uint32_t)(header.seq - lap.base_seq);
        }
    }
    for (;;) {
        step s;
        vev_status status = step_at(ring, newest, &lap, offset, index, &s);
        if (status)
            return status;
        index = s.kind == STEP_RECORD ? s.index + 1 : s.index;
        if (s.kind == STEP_END)
            break;
        offset += s.size;
    }
    *count_out = index;
    *used_out = offset;
    return VEV_OK;
}

/* Whether record `index` of the newest segment has been appended: the state of one that has not
 * would wait for it, and the event would count as delivered before it is made. */
static vev_status was_appended(vev_ring *ring, const vev_listed *newest, uint64_t index,
                               bool *appended_out)
{
    uint32_t count;
    if (!vev_ring_tail_index(ring, newest->head.generation, &count)) {
        uint32_t used; /* another process went on to it; read it to its end */
        vev_status status = measure_newest(ring, newest, &count, &used);
        if (status)
            return status;
    }
    *appended_out = index < count;
    return VEV_OK;
}

/* What changes while marking is read after a jump: volatile, or it may be what it was before. */
typedef struct marking {
    const uint64_t *seqs;
    size_t seq_count;
    volatile size_t next, changed;
    uint32_t state, at; /* `at` in the list: mostly ascending, look from the last one on */
    volatile uint64_t failed_generation; /* not tried again for every one of its records */
    volatile vev_status failed;          /* the first time */
} marking;

static vev_status mark_seq(vev_ring *ring, marking *m, uint64_t seq)
{
    if (m->at >= ring->listed_count || ring->listed[m->at].head.base_seq > seq)
        m->at = 0;
    while (m->at + 1 < ring->listed_count && ring->listed[m->at + 1].head.base_seq <= seq)
        m->at++;
    if (m->at >= ring->listed_count || ring->listed[m->at].head.base_seq > seq)
        return VEV_OK;
    const vev_listed *listed = &ring->listed[m->at];
    uint64_t index = seq - listed->head.base_seq;
    bool newest = m->at + 1 == ring->listed_count;
    if (listed->head.generation == m->failed_generation ||
        index >= ring->file.geometry.max_records || (!newest && seq >= listed->end_seq))
        return VEV_OK;
    bool appended = true;
    size_t changed = 0;
    vev_status status = newest ? was_appended(ring, listed, index, &appended) : VEV_OK;
    vev_lap lap = lap_of(ring, listed);
    if (!status && appended)
        status = mark_range(ring, listed, &lap, (uint32_t)index, (uint32_t)index + 1, m->state,
                            false, &changed);
    m->changed += changed;
    if (status)
        m->failed_generation = listed->head.generation;
    return status;
}

/* A segment that fails does not keep those of others from being marked. */
static vev_status mark_locked(vev_ring *ring, marking *m)
{
    vev_status status = vev_ring_list(ring);
    while (!status && m->next < m->seq_count) {
        uint64_t seq = m->seqs[m->next];
        m->next++; /* before: a jump out of this one goes on behind it */
        vev_status here = mark_seq(ring, m, seq);
        if (here && !m->failed)
            m->failed = here;
    }
    return status;
}

vev_status vev_ring_mark(vev_ring *ring, const uint64_t *seqs, size_t seq_count, int state,
                         size_t *changed_out)
{
    if (state < VEV_PENDING || state > VEV_LOST || (!seqs && seq_count > 0))
        return VEV_E_INVALID;
    if (ring->readonly)
        return VEV_E_READONLY;
    marking m = {.seqs = seqs, .seq_count = seq_count, .state = (uint32_t)state};
    pthread_mutex_lock(&ring->read_mutex);
    vev_status status;
    size_t before;
    do {
        before = m.next;
        vev_guard guard;
        vev_guard_enter(&guard);
        if (sigsetjmp(guard.jump, 0) == 0) {
            status = mark_locked(ring, &m);
            vev_guard_leave(&guard);
        } else {
            status = after_sigbus(ring);
            if (!m.failed)
                m.failed = status;
        }
    } while (status == EIO && m.next > before && m.next < seq_count);
    pthread_mutex_unlock(&ring->read_mutex);
    if (changed_out)
        *changed_out = m.changed;
    return m.failed ? m.failed : status;
}

/* ---- stats ---- */

/* How many maps are asked of the disk before they are read: enough to keep its queue filled. */
enum { MAPS_AHEAD = 128 };

/* Ask for the maps of sealed laps that have no tally, from the `asked`-th in the list on. Returns
 * how far that has come. */
static uint32_t prefetch_maps(const vev_ring *ring, uint32_t asked, uint32_t to)
{
    for (; asked < to && asked + 1 < ring->listed_count; asked++) {
        const vev_listed *listed = &ring->listed[asked];
        uint64_t ignored[4];
        if (!read_tally(ring, listed, ignored))
            ring->io->prefetch(ring->io->ctx, ring->fd, map_at(ring, listed),
                               map_bytes(records_in(listed)));
    }
    return asked;
}

static vev_status add_up(vev_ring *ring, vev_stats *stats)
{
    memset(stats, 0, sizeof *stats);
    vev_status status = vev_ring_list(ring);
    if (status)
        return status;
    const vev_ledger *ledger = &ring->listed_ledger;
    stats->delivered = ledger->delivered;
    stats->rejected = ledger->rejected;
    stats->evicted = ledger->evicted;
    stats->lost = ledger->lost;
    stats->lost_unfinished = ledger->lost_unfinished;
    stats->lost_damaged = ledger->lost_damaged;
    memcpy(stats->evicted_by_kind, ledger->evicted_by_kind, sizeof ledger->evicted_by_kind);
    uint64_t next_seq = ledger->floor_seq;
    uint32_t asked = 0;
    for (uint32_t i = 0; i < ring->listed_count; i++) {
        const vev_listed *listed = &ring->listed[i];
        uint32_t count = (uint32_t)(listed->end_seq - listed->head.base_seq);
        uint32_t used = listed->head.sealed ? listed->head.data_end : ring->file.geometry.data_size;
        uint64_t counts[4], unfinished;
        asked = prefetch_maps(ring, asked, i + MAPS_AHEAD);
        if (i + 1 < ring->listed_count) {
            status = count_sealed(ring, listed, counts, &unfinished);
        } else {
            status = measure_newest(ring, listed, &count, &used);
            if (!status)
                status = vev_ring_count(ring, listed, count, counts, &unfinished);
        }
        if (status)
            return status;
        if (listed->head.base_seq > next_seq)
            stats->lost += listed->head.base_seq - next_seq;
        stats->delivered += counts[VEV_DELIVERED];
        stats->rejected += counts[VEV_REJECTED];
        stats->lost += counts[VEV_LOST];
        stats->lost_unfinished += unfinished;
        stats->lost_damaged += counts[VEV_LOST] - unfinished;
        stats->pending += counts[VEV_PENDING];
        stats->bytes_used += used;
        next_seq = listed->head.base_seq + count;
    }
    stats->lost_missing = stats->lost - stats->lost_unfinished - stats->lost_damaged;
    stats->appended = stats->last_seq = next_seq - 1;
    stats->first_seq = ring->listed_count > 0 ? ring->listed[0].head.base_seq : next_seq;
    return VEV_OK;
}

/* The figures of one moment: adding up takes a while, in which another process can reclaim. */
static vev_status stats_locked(vev_ring *ring, vev_stats *stats)
{
    for (int look = 0;; look++) {
        vev_status status = add_up(ring, stats);
        vev_ledger now;
        uint64_t unreadable;
        if (ring->readonly && !status)
            status = vev_io_read_around(ring->io, ring->fd, 0, ring->region, VEV_HEADER_REGION,
                                        &unreadable);
        if (status || look == 100 || !vev_ledger_latest(ring->region, ring->file.uuid, &now) ||
            now.version == ring->listed_ledger.version)
            return status;
    }
}

uint64_t vev_ring_synced_seq(const vev_ring *ring)
{
    volatile uint64_t seq = 0;
    vev_guard guard;
    vev_guard_enter(&guard);
    if (sigsetjmp(guard.jump, 0) == 0) {
        seq = atomic_load(&ring->live->durable_seq);
        vev_guard_leave(&guard);
    }
    return seq;
}

vev_status vev_ring_stats(vev_ring *ring, vev_stats *stats)
{
    pthread_mutex_lock(&ring->read_mutex);
    vev_status status;
    vev_guard guard;
    vev_guard_enter(&guard);
    if (sigsetjmp(guard.jump, 0) == 0) {
        status = stats_locked(ring, stats);
        uint64_t durable = atomic_load(&ring->live->durable_seq);
        bool same_boot = ring->live->boot == vev_clock_boot_tag();
        stats->durable_seq = same_boot ? VEV_MIN(durable, stats->last_seq) : stats->last_seq;
        stats->degraded = (int32_t)atomic_load(&ring->live->sync_error);
        vev_guard_leave(&guard);
    } else {
        status = EIO;
    }
    pthread_mutex_unlock(&ring->read_mutex);
    if (atomic_load(&ring->degraded))
        stats->degraded = atomic_load(&ring->degraded);
    stats->bytes_on_disk = ring->file.geometry.file_size;
    stats->max_payload = vev_ring_max_payload(ring);
    stats->segment_size = ring->file.geometry.segment_size;
    stats->segment_count = ring->file.geometry.segment_count;
    stats->set_aside = ring->set_aside;
    return status;
}
