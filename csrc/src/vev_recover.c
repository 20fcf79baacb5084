/* Rebuilding a ring whose last writers are gone.
 *
 * Whoever gets the attach lock exclusively is alone with the file and rebuilds everything that is
 * not a record: which segments live, where the newest one ends, what its state map may say.
 *
 * After a power cut any subset of the unsynced pages may be there. What that means here:
 *   - heads: a lap whose head is missing does not exist; its sequence numbers are lost, and counted
 *     so by the gap to the next head. A head without records is an empty segment.
 *   - the newest segment: the scan takes what checks, whatever stands between; INV-1 is restored by
 *     zeroing the rest of the page behind the last good record, and holes get a word that walkers
 *     can step over. How far it was cleared is not known any more: from there on it is cleared
 *     again.
 *   - the state map: states beyond the last record belong to records that did not survive; they are
 *     cleared on disk before the numbers are given out again.
 * Sealed segments are not scanned here, nor what stands before a checkpoint of the newest one
 * (INV-13, vev_checkpoint.c): damage in them is found when they are read. In the boot that wrote it
 * nothing stands behind the first free word either.
 */
#include "vev_recover.h"

#include <errno.h>
#include <stdlib.h>

#include "vev_checkpoint.h"
#include "vev_clear.h"
#include "vev_clock.h"
#include "vev_guard.h"
#include "vev_laps.h"
#include "vev_roll.h"

/* ---- the newest segment ---- */

typedef struct repair {
    vev_ring *ring;
    vev_span *span;
    uint32_t content; /* of the data; behind it there are only zeros */
    uint32_t fetched; /* up to where it has been asked for */
    /* The pages are those that the writers saw: no power cut, no sync that failed, no copying of a
     * file in use came between. */
    bool intact;
    uint32_t cleared;    /* up to where it is fit for appends, once scanned (INV-10) */
    uint32_t checkpoint; /* the last record, or 0 (INV-13) */
    bool changed;
} repair;

/* Have the system read the data up to an offset, and some more, in one piece and not page by
 * page. */
static void fetch(repair *r, uint32_t to)
{
    enum { MORE = 128 * 1024 };
    const vev_ring *ring = r->ring;
    to = VEV_MIN(to, r->content);
    if (to <= r->fetched)
        return;
    to = VEV_MIN(to + (uint32_t)MORE, r->content);
    ring->io->prefetch(ring->io->ctx, ring->fd, r->span->lap.file_offset + r->fetched,
                       to - r->fetched);
    r->fetched = to;
}

static void set_map_states(repair *r, uint32_t from, uint32_t to, bool lost)
{
    const vev_geometry *geometry = &r->ring->file.geometry;
    for (uint32_t i = from; i < VEV_MIN(to, geometry->max_records); i++) {
        uint8_t *at = r->span->base + geometry->map_offset + i / 16 * 8;
        uint64_t word = vev_load64(at);
        if (word == 0 && !lost) {
            i |= 15; /* nothing is known of any of its sixteen */
            continue;
        }
        uint32_t states = vev_map_states(word, r->span->lap.seed, i / 16);
        uint32_t shift = i % 16 * 2;
        uint32_t present = states >> shift & 3u;
        uint32_t wanted =
            lost ? (present == VEV_PENDING ? (uint32_t)VEV_LOST : present) : (uint32_t)VEV_PENDING;
        if (wanted == present)
            continue;
        states = (states & ~(3u << shift)) | wanted << shift;
        vev_store64(at, vev_map_word(states, r->span->lap.seed, i / 16));
        r->changed = true;
    }
}

/* Whether the bytes are nothing but records that were reserved and never finished. */
static bool is_unfinished(const uint8_t *data, uint32_t offset, uint32_t end)
{
    while (offset < end) {
        uint64_t word = vev_load64(data + offset);
        if (vev_word_state(word) != VEV_WORD_RESERVED || vev_word_size(word) < 8 ||
            vev_word_size(word) > end - offset ||
            (vev_word_is_hole(word) && vev_word_high(word) < VEV_HOLE_UNFINISHED))
            return false;
        offset += vev_word_size(word);
    }
    return true;
}

/* Whether a chain that was never cut ends here: with a free word, behind records at most that were
 * never finished, whose number is added to `unfinished`. Behind a free word no writer of this lap
 * has been. But if a sync has seen more than `index` records, then bytes that were there are
 * gone. */
static bool ends_here(repair *r, uint32_t offset, uint32_t index, uint32_t *unfinished)
{
    const vev_ring *ring = r->ring;
    uint32_t data_size = ring->file.geometry.data_size, count = 0;
    uint64_t durable = atomic_load(&ring->live->durable_seq);
    if (!r->intact || r->span->lap.base_seq + index <= durable)
        return false;
    while (offset <= data_size - 8) {
        fetch(r, offset + 8);
        uint64_t word = vev_load64(r->span->data + offset);
        if (word == 0) {
            *unfinished = count;
            return true;
        }
        if (vev_word_state(word) != VEV_WORD_RESERVED || vev_word_size(word) < 8 ||
            vev_word_size(word) > data_size - 8 - offset)
            return false;
        count += vev_word_count(word);
        offset += vev_word_size(word);
    }
    return false;
}

/* Find the end of the newest segment, keep every record that checks, and make it walkable again.
 * Begins at the tail of the span (INV-13): what stands before is found by who reads it, as in
 * sealed segments. */
static void scan_newest(repair *r)
{
    const vev_geometry *geometry = &r->ring->file.geometry;
    vev_span *span = r->span;
    uint8_t *data = span->data;
    uint64_t begin = atomic_load(&span->tail);
    uint32_t offset = (uint32_t)begin * 8u, index = (uint32_t)(begin >> 32);
    uint32_t states_end = geometry->max_records; /* behind it no state was ever set */
    bool sealed = false;
    r->fetched = offset;
    while (offset <= geometry->data_size - 8) {
        vev_header header;
        uint32_t end_count, unfinished;
        fetch(r, offset + 8);
        uint64_t word = vev_load64(data + offset);
        if (vev_word_state(word) == VEV_WORD_COMMITTED)
            fetch(r, (uint32_t)VEV_MIN((uint64_t)offset + vev_word_size(word),
                                       (uint64_t)geometry->data_size));
        if (vev_record_check(data + offset, geometry->data_size - offset, geometry->data_size,
                             &span->lap, offset, &header) &&
            header.seq - span->lap.base_seq >= index) {
            uint32_t here = (uint32_t)(header.seq - span->lap.base_seq);
            set_map_states(r, index, here, true);
            index = here + 1;
            r->checkpoint = offset;
            offset += vev_word_size(word);
            continue;
        }
        if (vev_end_check(word, &span->lap, offset, &end_count) && end_count >= index) {
            set_map_states(r, index, end_count, true);
            index = end_count;
            sealed = true;
            break;
        }
        if (ends_here(r, offset, index, &unfinished)) {
            states_end = (uint32_t)VEV_MIN((uint64_t)index + unfinished, (uint64_t)states_end);
            break;
        }
        fetch(r, r->content);
        uint32_t next =
            vev_record_resync(data, geometry->data_size, r->content, &span->lap, offset, index);
        if (next == geometry->data_size)
            break;
        uint32_t next_index;
        if (vev_end_check(vev_load64(data + next), &span->lap, next, &end_count)) {
            next_index = end_count;
        } else {
            bool good = vev_record_check(data + next, geometry->data_size - next,
                                         geometry->data_size, &span->lap, next, &header);
            VEV_ASSERT(good);
            next_index = (uint32_t)(header.seq - span->lap.base_seq);
        }
        uint32_t why = is_unfinished(data, offset, next) ? VEV_HOLE_UNFINISHED : VEV_HOLE_DAMAGED;
        uint64_t hole = vev_word_sized(VEV_WORD_RESERVED, next - offset,
                                       why + VEV_MIN(next_index - index, VEV_HOLE_COUNT_MAX));
        if (word != hole) {
            vev_store64(data + offset, hole);
            r->changed = true;
        }
        set_map_states(r, index, next_index, true);
        index = next_index;
        offset = next;
    }
    vev_head head;
    if (vev_head_read(span->base, r->ring->file.uuid, geometry, &head) && head.sealed) {
        if (!sealed && head.record_count >= index && offset <= geometry->data_size - 8) {
            /* The seal survived and the end word did not: the numbers up to its count are used. */
            set_map_states(r, index, head.record_count, true);
            index = head.record_count;
            vev_store64(data + offset, vev_end_word(&span->lap, offset, index));
            sealed = r->changed = true;
        } else if (head.record_count != index) {
            memset(span->base + VEV_HEAD_SEAL, 0, VEV_HEAD_BYTES - VEV_HEAD_SEAL);
            r->changed = true;
        }
    }
    r->cleared = geometry->data_size; /* sealed, or full: nothing is appended to it */
    if (!sealed && offset < geometry->data_size) {
        /* INV-1: a record that was only reserved, or torn, never was. */
        r->cleared = vev_ring_page_end(geometry, offset + VEV_RECORD_ALIGN);
        uint32_t last = r->cleared;
        while (last > offset && data[last - 1] == 0)
            last--;
        if (last > offset) {
            memset(data + offset, 0, last - offset);
            r->changed = true;
        }
    }
    set_map_states(r, index, states_end, false);
    atomic_store(&span->tail, (uint64_t)index << 32 | offset / 8);
}

/* ---- rebuilding ---- */

static vev_status make_dirty(uint8_t *base, uint32_t size)
{
    vev_guard guard;
    vev_guard_enter(&guard);
    if (sigsetjmp(guard.jump, 0) != 0)
        return EIO;
    for (uint32_t at = 0; at < size; at += 4096) {
        volatile uint8_t *byte = base + at;
        *byte = *byte;
    }
    vev_guard_leave(&guard);
    return VEV_OK;
}

/* After a sync that failed, in the same boot: the kernel may hold pages for clean that it has not
 * written. Make every page dirty again and sync, so that success means something. */
static vev_status rewrite(vev_ring *ring)
{
    const vev_geometry *geometry = &ring->file.geometry;
    for (uint32_t s = 0; s < geometry->segment_count; s++) {
        if (atomic_load(&ring->live->generations[s]) == 0)
            continue;
        uint8_t *base;
        vev_status status = ring->io->map(ring->io->ctx, ring->fd, vev_segment_offset(geometry, s),
                                          geometry->segment_size, true, &base);
        if (status)
            return status;
        vev_guard_remember(base, geometry->segment_size);
        status = make_dirty(base, geometry->segment_size);
        vev_guard_forget(base);
        ring->io->unmap(ring->io->ctx, base, geometry->segment_size);
        if (status)
            return status;
    }
    return ring->io->sync(ring->io->ctx, ring->fd);
}

/* Write to the newest segment again: adopt it, mend it, put its end where it was. `intact` as in
 * repair. */
static vev_status go_on_in(vev_ring *ring, const vev_listed *newest, bool intact)
{
    vev_status status;
    const vev_io *io = ring->io;
    const vev_geometry *geometry = &ring->file.geometry;
    uint64_t front = vev_segment_offset(geometry, newest->segment);
    /* The dictionary, and all states where some may be of records that are gone. */
    io->prefetch(io->ctx, ring->fd, front, intact ? geometry->map_offset : geometry->data_offset);
    vev_guard guard;
    vev_guard_enter(&guard);
    if (sigsetjmp(guard.jump, 0) == 0) {
        status = vev_ring_adopt(ring, newest->head.generation, newest->segment);
        if (!status) {
            vev_span *span = atomic_load(&ring->current);
            uint64_t at = front + geometry->data_offset;
            uint64_t content = io->content(io->ctx, ring->fd, at, geometry->data_size);
            content = VEV_MIN(vev_align_up(content, VEV_RECORD_ALIGN), geometry->data_size);
            if (atomic_load(&ring->live->sync_error)) /* it need not be on the disk */
                atomic_store(&span->tail, 0);
            if (!intact) /* records may have outlived what the head said of them; INV-15 */
                atomic_store(vev_span_kinds(span), 0);
            repair r = {.ring = ring, .span = span, .content = (uint32_t)content, .intact = intact};
            scan_newest(&r);
            vev_ring_set_cleared(ring, span, newest->head.generation, r.cleared);
            if (r.changed)
                status = vev_ring_synced(ring,
                                         io->sync_map(io->ctx, span->base, geometry->segment_size));
            if (!status)
                vev_ring_set_checkpoint(ring, newest->head.generation, r.checkpoint);
        }
        vev_guard_leave(&guard);
    } else {
        status = EIO;
    }
    return status;
}

/* The newest segment has sectors that cannot be read, so that it cannot be mapped and mended. Leave
 * what is good in it to the readers and go on in another one, behind the highest sequence number
 * that it can hold. */
static vev_status go_on_behind(vev_ring *ring, vev_listed newest)
{
    const vev_geometry *geometry = &ring->file.geometry;
    uint8_t *copy = malloc(geometry->segment_size);
    if (!copy)
        return VEV_E_NOMEM;
    uint64_t at = vev_segment_offset(geometry, newest.segment), unreadable;
    vev_status status =
        vev_io_read_around(ring->io, ring->fd, at, copy, geometry->segment_size, &unreadable);
    uint64_t count = newest.head.record_count;
    if (!status && !newest.head.sealed) {
        vev_span span = {.base = copy,
                         .data = copy + geometry->data_offset,
                         .lap = vev_listed_lap(ring, &newest)};
        repair r = {.ring = ring, .span = &span, .content = geometry->data_size};
        scan_newest(&r);
        count = (atomic_load(&span.tail) >> 32) + unreadable / VEV_RECORD_HEADER + 2;
        count = VEV_MIN(count, (uint64_t)geometry->max_records);
    }
    free(copy);
    atomic_store(&ring->live->active, newest.head.generation << 10 | newest.segment);
    if (!status)
        status = vev_ring_begin_lap(ring, newest.head.generation + 1, newest.head.base_seq + count);
    return status;
}

static bool is_of_this_boot(const vev_live *live)
{
    return (live->magic == VEV_LIVE_MAGIC || live->magic == VEV_LIVE_REBUILDING ||
            live->magic == VEV_LIVE_MAGIC_3 || live->magic == VEV_LIVE_REBUILDING_3) &&
           live->boot == vev_clock_boot_tag();
}

/* Whether the tallies are of this boot and file. */
static bool keeps_tallies(const vev_ring *ring)
{
    const vev_live *live = ring->live;
    /* Those of before a sync failed may be of pages that are not there any more. */
    return (live->magic == VEV_LIVE_MAGIC || live->magic == VEV_LIVE_REBUILDING) &&
           live->boot == vev_clock_boot_tag() && atomic_load(&live->sync_error) == 0 &&
           vev_ring_is_at_home(ring);
}

static void forget_tallies(vev_live *live)
{
    for (uint32_t s = 0; s < VEV_SEGMENT_MAX_COUNT; s++)
        atomic_store(&live->tallies[s], 0);
}

/* Keep the tallies of laps whose segments hold them still, but for the newest, whose map is
 * mended. */
static void keep_tallies(vev_live *live, const uint64_t before[VEV_SEGMENT_MAX_COUNT],
                         const vev_listed *newest)
{
    for (uint32_t s = 0; s < VEV_SEGMENT_MAX_COUNT; s++) {
        uint64_t generation = atomic_load(&live->generations[s]);
        if (generation == 0 || generation != before[s] || (newest && newest->segment == s))
            atomic_store(&live->tallies[s], 0);
    }
}

vev_status vev_ring_rebuild(vev_ring *ring)
{
    const vev_io *io = ring->io;
    const vev_geometry *geometry = &ring->file.geometry;
    vev_live *live = ring->live;
    bool intact = keeps_tallies(ring);
    if (!intact) { /* before anything says that they can be believed */
        forget_tallies(live);
        atomic_store(&live->checkpoint, 0); /* for the same reasons */
        live->home = 0; /* until all of it has been looked at, be it by who comes after us */
    }
    /* What outlives a rebuild besides is how far the page cache has been synced in this boot. It
     * stays in place all the time, so that a rebuilder that dies does not take it along. */
    if (!is_of_this_boot(live)) {
        live->magic = 0;
        /* All that is found was read from the disk, or is there now: who wrote it may be of this
         * boot all the same, where /proc shows its id to one process and not to the other. */
        vev_status synced = io->sync(io->ctx, ring->fd);
        atomic_store(&live->durable_seq, synced ? 0 : UINT64_MAX);
        atomic_store(&live->sync_error, (uint32_t)synced);
        live->boot = vev_clock_boot_tag();
        /* What a power cut left of reserved words names writers of an earlier boot: start the
         * counts of this one somewhere else. */
        for (uint32_t s = 0; s < VEV_SLOT_COUNT; s++) {
            uint32_t epoch;
            if (vev_random_bytes(&epoch, sizeof epoch) == VEV_OK)
                atomic_store(&live->slots[s].epoch, epoch);
        }
    }
    /* If nothing is durable yet, whoever came first in this boot died before it was done. */
    intact = intact && atomic_load(&live->durable_seq) != UINT64_MAX;
    live->magic = VEV_LIVE_REBUILDING;
    atomic_store(&live->spare, 0);
    atomic_store(&live->cleared, 0);
    uint64_t before[VEV_SEGMENT_MAX_COUNT];
    for (uint32_t s = 0; s < VEV_SEGMENT_MAX_COUNT; s++)
        before[s] = atomic_exchange(&live->generations[s], 0);
    for (uint32_t s = 0; s < VEV_SLOT_COUNT; s++) {
        for (int i = 0; i < VEV_CELL_COUNT; i++)
            atomic_store(&live->slots[s].cells[i].generation, 0);
    }

    vev_listed *listed = ring->listed;
    vev_ledger ledger;
    bool accounted = vev_ledger_latest(ring->region, ring->file.uuid, &ledger);
    memset(ring->cached, 0, sizeof ring->cached);
    vev_listed_find(ring, vev_listed_floor(ring, accounted, false, &ledger), false, ring->cached);
    uint32_t count = 0;
    for (uint32_t s = 0; s < geometry->segment_count; s++)
        if (ring->cached[s].head.generation > 0)
            listed[count++] = ring->cached[s];
    if (!accounted) {
        /* Both copies broken: what was reclaimed before the oldest head is of unknown fate. */
        ledger = (vev_ledger){.version = 1, .floor_generation = 1, .floor_seq = 1};
        if (count > 0) {
            vev_listed_sort(listed, count);
            ledger.floor_generation = listed[0].head.generation;
            ledger.floor_seq = listed[0].head.base_seq;
            ledger.lost = ledger.floor_seq - 1;
        }
        for (ledger.version = 1; ledger.version <= 2; ledger.version++)
            vev_ledger_write(ring->region + VEV_AT_LEDGER + ledger.version % 2 * VEV_HEADER_BLOCK,
                             ring->file.uuid, &ledger);
        vev_status status = vev_ring_synced(
            ring, io->sync_map(io->ctx, ring->region + VEV_AT_LEDGER, 2 * VEV_HEADER_BLOCK));
        if (status)
            return status;
    }
    count = vev_listed_order(listed, count, geometry, &ledger);
    for (uint32_t i = 0; i < count; i++)
        atomic_store(&live->generations[listed[i].segment], listed[i].head.generation);
    keep_tallies(live, before, count > 0 ? &listed[count - 1] : NULL);
    if (count > 0) /* it is mended below */
        memset(&ring->cached[listed[count - 1].segment], 0, sizeof *ring->cached);
    memcpy(ring->reclaimer->cached, ring->cached, sizeof ring->cached);

    vev_status status;
    uint64_t last_seq = 0, durable = atomic_load(&live->durable_seq);
    atomic_store(&live->active, 0);
    if (count > 0) {
        vev_listed newest = listed[count - 1];
        status = go_on_in(ring, &newest, intact);
        if (!status)
            atomic_store(&live->active, newest.head.generation << 10 | newest.segment);
        else if (status > 0 && status != ENOMEM)
            status = go_on_behind(ring, newest);
    } else {
        atomic_store(&live->active, geometry->segment_count - 1); /* so that the first is next */
        status = vev_ring_begin_lap(ring, ledger.floor_generation, ledger.floor_seq);
    }
    if (status == VEV_OK) {
        vev_span *span = atomic_load(&ring->current);
        last_seq = span->lap.base_seq + (atomic_load(&span->tail) >> 32) - 1;
        if (durable != UINT64_MAX && durable > last_seq &&
            durable - last_seq <= (uint64_t)geometry->max_records * geometry->segment_count) {
            /* This boot has seen the disk have more: it is damaged, not unwritten. Its numbers are
             * used, and the gap says that they are lost. So may be states that were counted. */
            forget_tallies(live);
            status = vev_ring_begin_lap(ring, atomic_load(&span->generation) + 1, durable + 1);
        }
        if (atomic_load(&live->sync_error) && rewrite(ring) == VEV_OK)
            atomic_store(&live->sync_error, 0);
    }
    if (status == VEV_OK) {
        live->home = ring->identity;
        durable = VEV_MIN(durable, last_seq);
    } else if (count > 0 &&
               ((status > 0 && status != ENOMEM) || status == VEV_E_BUSY || status == VEV_E_FULL)) {
        /* There is no place to write to, but there is a backlog to be read and delivered. What a
         * power cut left of the newest lap is not mended: the file is not at home yet. And what
         * this boot has seen on the disk, no later opening gives out again. */
        if (durable == UINT64_MAX)
            durable = listed[count - 1].end_seq - 1;
        atomic_store(&live->active, 0);
        vev_ring_degrade(ring, status > 0 ? status : EIO);
    } else {
        return status;
    }
    atomic_store(&live->durable_seq, durable);
    live->magic = VEV_LIVE_MAGIC;
    return VEV_OK;
}
