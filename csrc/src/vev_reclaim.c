/* Counting the oldest segments out, so that their bytes can be used again.
 *
 * INV-15 The kinds of a lap are noted in a word of its head before a record of each is reserved
 *        there. Behind the end word the same word says that these are all: so it does wherever its
 *        page is copied or written to the disk, and not where an earlier version, which notes none,
 *        sealed the lap. Recovery strikes it from a lap that it goes on with after a power cut,
 *        whose head may be older than its records, or in which such a version was. So where there
 *        was one kind alone, what is evicted of it is known without reading the segment back, which
 *        an offline device would do for every one that it writes.
 */
#include "vev_reclaim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vev_clear.h"
#include "vev_clock.h"
#include "vev_dictionary.h"
#include "vev_guard.h"
#include "vev_laps.h"
#include "vev_states.h"

/* Count the pending records among the bytes of a segment by kind. Returns how many it found. */
static uint64_t count_kinds_in(const vev_ring *ring, const vev_listed *listed, const uint8_t *data,
                               uint64_t pending, uint64_t kinds[VEV_KIND_COUNT])
{
    const vev_geometry *geometry = &ring->file.geometry;
    uint32_t seed = vev_listed_lap(ring, listed).seed;
    uint64_t found = 0;
    uint32_t offset = 0, asked = 0;
    while (offset <= geometry->data_size - VEV_RECORD_HEADER && found < pending) {
        vev_record_prefetch(data, offset, geometry->data_size, &asked);
        uint64_t word = vev_load64(data + offset);
        uint32_t size = vev_word_size(word);
        if (size < 8 || size > geometry->data_size - offset || vev_word_state(word) == VEV_WORD_END)
            break;
        uint32_t index = vev_record_index(data + offset);
        if (vev_word_state(word) == VEV_WORD_COMMITTED && index < geometry->max_records) {
            uint32_t map_index = index / 16;
            uint32_t states =
                vev_map_states(vev_load64(ring->map + 8 * (size_t)map_index), seed, map_index);
            if (vev_map_state(states, index) == VEV_PENDING) {
                kinds[vev_record_kind(data + offset) % VEV_KIND_COUNT]++;
                found++;
            }
        }
        offset += size;
    }
    return found;
}

/* The only kind of record in a segment, if that is known to be so. */
static bool has_one_kind(const vev_ring *ring, const vev_listed *listed, uint32_t *kind_out)
{
    uint8_t bytes[512];
    vev_head head;
    uint32_t kinds;
    uint64_t at = vev_segment_offset(&ring->file.geometry, listed->segment);
    if (ring->io->read(ring->io->ctx, ring->fd, at, bytes, sizeof bytes) ||
        !vev_head_read(bytes, ring->file.uuid, &ring->file.geometry, &head) || !head.sealed ||
        head.generation != listed->head.generation)
        return false;
    uint32_t seed = vev_lap_seed(ring->file.uuid, head.generation, head.salt);
    if (!vev_kinds_read(vev_load64(bytes + VEV_HEAD_KINDS), seed, &kinds) ||
        !(kinds & VEV_KINDS_ALL))
        return false;
    kinds &= ~VEV_KINDS_ALL;
    if (kinds == 0 || kinds >= 1u << VEV_KIND_COUNT || (kinds & (kinds - 1)) != 0)
        return false;
    *kind_out = vev_high_bit(kinds);
    return true;
}

/* Count the records still pending in a segment by kind, while its bytes are there. Those that can
 * not be read any more count as kind 0. */
static void count_kinds(vev_ring *ring, const vev_listed *listed, uint64_t pending,
                        uint64_t kinds[VEV_KIND_COUNT])
{
    const vev_geometry *geometry = &ring->file.geometry;
    uint8_t *base;
    uint64_t found[VEV_KIND_COUNT] = {0};
    volatile uint64_t known = 0; /* stays 0 when the bytes cannot be read to the end */
    uint32_t kind;
    if (pending == 0)
        return;
    if (has_one_kind(ring, listed, &kind)) {
        kinds[kind] += pending;
        return;
    }
    if (ring->io->map(ring->io->ctx, ring->fd, vev_segment_offset(geometry, listed->segment),
                      geometry->segment_size, false, &base) == VEV_OK) {
        vev_guard_remember(base, geometry->segment_size);
        vev_guard guard;
        vev_guard_enter(&guard);
        if (sigsetjmp(guard.jump, 0) == 0) {
            known = count_kinds_in(ring, listed, base + geometry->data_offset, pending, found);
            vev_guard_leave(&guard);
        }
        vev_guard_forget(base);
        ring->io->unmap(ring->io->ctx, base, geometry->segment_size);
    }
    for (kind = 0; known > 0 && kind < VEV_KIND_COUNT; kind++)
        kinds[kind] += found[kind];
    kinds[VEV_KIND_NONE] += pending - known;
}

/* Keep a damaged segment before its bytes go: as a sparse file that is a ring with this one
 * segment, and a ledger of all before it, so that every tool can look at it. Best effort; at most
 * VEV_ASIDE_MAX of them. */
static void keep_damaged(vev_ring *ring, const vev_listed *listed, const vev_ledger *before)
{
    const vev_io *io = ring->io;
    const vev_geometry *geometry = &ring->file.geometry;
    size_t capacity = strlen(ring->path) + 32;
    uint8_t *bytes = malloc(geometry->segment_size);
    char *name = malloc(capacity);
    int fd = -1;
    vev_status status = bytes && name ? EEXIST : ENOMEM;
    for (int n = 1; status == EEXIST && n <= VEV_ASIDE_MAX; n++) {
        snprintf(name, capacity, "%s.damaged-%d", ring->path, n);
        status = io->open(io->ctx, name, VEV_FILE_READ | VEV_FILE_WRITE | VEV_FILE_CREATE, &fd);
    }
    if (!status) {
        uint64_t at = vev_segment_offset(geometry, listed->segment), unreadable;
        status = vev_io_read_around(io, ring->fd, at, bytes, geometry->segment_size, &unreadable);
        if (!status)
            status = io->write(io->ctx, fd, at, bytes, geometry->segment_size);
        /* The live area is nobody's; and but one ledger, so that what its head names does not
         * count. */
        uint8_t block[VEV_HEADER_BLOCK] = {0};
        vev_ledger_write(block, ring->file.uuid, before);
        if (!status)
            status = io->write(io->ctx, fd, 0, ring->region, VEV_AT_LEDGER);
        if (!status)
            status = io->write(io->ctx, fd, VEV_AT_LEDGER + before->version % 2 * VEV_HEADER_BLOCK,
                               block, sizeof block);
        /* One byte at the end gives the file its size. */
        if (!status && at + geometry->segment_size < geometry->file_size)
            status = io->write(io->ctx, fd, geometry->file_size - 1, "", 1);
        io->close(io->ctx, fd);
        if (status)
            (void)io->remove(io->ctx, name);
    }
    free(bytes);
    free(name);
}

uint32_t vev__laps_ahead = 0;

/* Say here what the ledger says already: whoever died between the two left it to us. */
static vev_status finish_reclaim(vev_ring *ring, bool *found_out)
{
    vev_ledger ledger;
    *found_out = false;
    if (!vev_ledger_latest(ring->region, ring->file.uuid, &ledger))
        return VEV_OK;
    for (uint32_t s = 0; s < ring->file.geometry.segment_count; s++) {
        uint64_t generation = atomic_load(&ring->live->generations[s]);
        if (generation == 0 || generation >= ledger.floor_generation)
            continue;
        /* It may have died before its ledger was on the disk (INV-5). */
        vev_status status =
            *found_out ? VEV_OK
                       : vev_ring_synced(ring, ring->io->sync_map(ring->io->ctx,
                                                                  ring->region + VEV_AT_LEDGER,
                                                                  2 * VEV_HEADER_BLOCK));
        if (status)
            return status;
        atomic_store(&ring->live->generations[s], generation | VEV_GENERATION_RECLAIMED);
        *found_out = true;
    }
    return VEV_OK;
}

/* Count a segment out in a ledger that is not written yet. VEV_E_FULL when that would cost records
 * that are pending, and they may not be evicted. */
static vev_status count_out(vev_ring *ring, const vev_listed *oldest, uint64_t next_base,
                            bool may_evict, vev_ledger *ledger)
{
    vev_ring *view = ring->reclaimer;
    uint64_t counts[4], unfinished = 0;
    uint32_t record_count = vev_listed_records(oldest);
    vev_status status = vev_ring_count(view, oldest, record_count, counts, &unfinished);
    if (status == VEV_E_NOMEM)
        return status;
    if (status) {
        /* The map cannot be read: nothing is known to be delivered, all of it is gone. */
        memset(counts, 0, sizeof counts);
        counts[VEV_LOST] = record_count;
    }
    if (!may_evict && counts[VEV_PENDING] > 0)
        return VEV_E_FULL;
    ledger->lost += oldest->head.base_seq - ledger->floor_seq; /* segments that vanished */
    ledger->floor_generation = oldest->head.generation;
    ledger->floor_seq = oldest->head.base_seq;
    if (counts[VEV_LOST] > unfinished && ring->kept_generation < oldest->head.generation) {
        ring->kept_generation = oldest->head.generation; /* once, also if the ledger fails */
        keep_damaged(ring, oldest, ledger);
    }
    ledger->floor_generation++;
    ledger->floor_seq = next_base;
    ledger->delivered += counts[VEV_DELIVERED];
    ledger->rejected += counts[VEV_REJECTED];
    ledger->evicted += counts[VEV_PENDING];
    ledger->lost += counts[VEV_LOST] + (next_base - oldest->end_seq);
    ledger->lost_unfinished += unfinished;
    ledger->lost_damaged += counts[VEV_LOST] - unfinished;
    count_kinds(view, oldest, counts[VEV_PENDING], ledger->evicted_by_kind);
    return VEV_OK;
}

/* In how many segments a lap can begin, the next one not counted; or could, were they not
 * pinned. */
static uint32_t count_free(const vev_ring *ring)
{
    uint32_t count = 0, spare = atomic_load(&ring->live->spare);
    for (uint32_t s = 0; s < ring->file.geometry.segment_count; s++) {
        uint64_t generation = atomic_load(&ring->live->generations[s]);
        count += s + 1 != spare && (generation == 0 || generation & VEV_GENERATION_RECLAIMED);
    }
    return count;
}

/* Put a ledger on the disk, and remember how long that takes at worst: a disk that was slow once
 * will be so again, and after some twenty ledgers that were not it is forgotten. More than some
 * seconds are no disk's, but of a process that was stopped. */
static vev_status sync_ledger(vev_ring *ring, uint8_t *block)
{
    const uint64_t longest_ns = UINT64_C(4000000000);
    uint64_t began_ns = vev_clock_ticks_ns(), slowest_ns = atomic_load(&ring->ledger_ns);
    vev_status status =
        vev_ring_synced(ring, ring->io->sync_map(ring->io->ctx, block, VEV_HEADER_BLOCK));
    uint64_t took_ns = vev_clock_ticks_ns() - began_ns;
    took_ns = VEV_MIN(took_ns, longest_ns);
    atomic_store(&ring->ledger_ns, VEV_MAX(took_ns, slowest_ns - slowest_ns / 8));
    return status;
}

/* With reclaim_mutex and VEV_LOCK_RECLAIM. */
static vev_status reclaim_locked(vev_ring *ring, bool may_evict, uint32_t seen, uint32_t wanted)
{
    vev_ring *view = ring->reclaimer;
    bool found;
    vev_status status = finish_reclaim(ring, &found);
    if (status || found || count_free(ring) > seen)
        return status;
    status = vev_ring_list(view);
    if (status)
        return status;
    vev_ledger ledger;
    if (!vev_ledger_latest(ring->region, ring->file.uuid, &ledger))
        return VEV_E_CORRUPT;
    uint32_t count = 0;
    while (count < wanted && count + 1 < view->listed_count) {
        uint64_t next_base = view->listed[count + 1].head.base_seq;
        status = count_out(ring, &view->listed[count], next_base, may_evict, &ledger);
        if (status)
            break;
        count++;
    }
    if (count == 0)
        return status ? status : VEV_E_BUSY;
    ledger.version++;
    uint8_t *block = ring->region + VEV_AT_LEDGER + ledger.version % 2 * VEV_HEADER_BLOCK;
    vev_ledger_write(block, ring->file.uuid, &ledger);
    status = sync_ledger(ring, block);
    if (status) {
        /* The segments stay, so this ledger must not count; the other copy does. If the disk has it
         * all the same, a crash finds them evicted and counted so. */
        memset(block, 0, VEV_HEADER_BLOCK);
        return status;
    }
    for (uint32_t i = 0; i < count; i++)
        atomic_store(&ring->live->generations[view->listed[i].segment],
                     view->listed[i].head.generation | VEV_GENERATION_RECLAIMED);
    return VEV_OK;
}

/* Count the oldest segments out, as many as are wanted and at least one, and allow their bytes to
 * be reused; none if others did so since the caller saw how many are free, or records would go for
 * each who waited. The ledger is on disk before anything is destroyed (INV-5). With a lock of its
 * own: the disk may take its time, in which others go on to segments that are free already.
 * VEV_E_FULL when it would cost records that are pending, and they may not be evicted. */
static vev_status reclaim(vev_ring *ring, bool may_evict, uint32_t seen, uint32_t wanted)
{
    pthread_mutex_lock(&ring->reclaim_mutex);
    vev_status status =
        vev_io_lock(ring->io, ring->fd, VEV_LOCK_RECLAIM, VEV_LOCK_EXCLUSIVE, VEV_ROLL_WAIT_MS);
    if (!status) {
        vev_guard guard;
        vev_guard_enter(&guard);
        if (sigsetjmp(guard.jump, 0) == 0) {
            status = reclaim_locked(ring, may_evict, seen, wanted);
            vev_guard_leave(&guard);
        } else {
            status = EIO;
        }
        (void)ring->io->lock(ring->io->ctx, ring->fd, VEV_LOCK_RECLAIM, VEV_LOCK_NONE);
    }
    pthread_mutex_unlock(&ring->reclaim_mutex);
    return status;
}

/* Whether nobody needs the bytes of a segment. */
static bool is_free(const vev_ring *ring, uint32_t segment)
{
    uint64_t generation = atomic_load(&ring->live->generations[segment]);
    uint64_t reclaimed = generation & ~VEV_GENERATION_RECLAIMED;
    return generation == 0 ||
           (generation != reclaimed && !vev_ring_is_pinned(ring, reclaimed, reclaimed));
}

vev_status vev_ring_take_free(vev_ring *ring, bool may_evict, uint32_t *segment_out)
{
    const vev_geometry *geometry = &ring->file.geometry;
    uint64_t active = atomic_load(&ring->live->active);
    uint32_t active_segment = (uint32_t)active & 1023u;
    vev_status failed = VEV_E_BUSY;
    for (uint32_t tries = 0; tries <= geometry->segment_count; tries++) {
        uint32_t seen = count_free(ring);
        for (uint32_t i = 1; i < geometry->segment_count; i++) {
            uint32_t segment = (active_segment + i) % geometry->segment_count;
            if (!is_free(ring, segment))
                continue;
            vev_status status = vev_ring_clear_front(ring, segment);
            if (status == EIO) { /* a bad place on the disk; the next one may do */
                failed = status;
                continue;
            }
            if (status)
                return status;
            ring->took_none = false;
            atomic_store(&ring->live->generations[segment], 0);
            vev_ring_prepare_dictionary(ring);
            *segment_out = segment;
            return VEV_OK;
        }
        /* One bad place is gone around; a disk that takes nothing must not cost the whole
         * backlog. */
        if (failed != VEV_E_BUSY && (tries > 0 || ring->took_none)) {
            ring->took_none = true;
            break;
        }
        vev_status status = reclaim(ring, may_evict && ring->full_policy != VEV_FULL_REFUSE, seen,
                                    1 + atomic_load(&ring->laps_ahead));
        if (status)
            return status == VEV_E_BUSY ? failed : status;
    }
    return failed;
}

/* How many segments are lacking that are to be free at the present speed; `*seen_out` are. */
static uint32_t count_lacking(const vev_ring *ring, uint32_t *seen_out)
{
    uint32_t wanted = atomic_load(&ring->laps_ahead);
    volatile uint32_t count = wanted;
    vev_guard guard;
    if (wanted == 0 || atomic_load(&ring->degraded))
        return 0;
    vev_guard_enter(&guard);
    if (sigsetjmp(guard.jump, 0) == 0) {
        count = count_free(ring);
        vev_guard_leave(&guard);
    }
    *seen_out = count;
    return wanted - VEV_MIN(*seen_out, wanted);
}

uint32_t vev_ring_lacks_free(const vev_ring *ring)
{
    uint32_t ignored = 0;
    return count_lacking(ring, &ignored);
}

void vev_ring_reclaim_ahead(vev_ring *ring)
{
    uint32_t seen = 0, lacks = count_lacking(ring, &seen);
    if (lacks > 0)
        (void)reclaim(ring, ring->full_policy != VEV_FULL_REFUSE, seen, lacks);
}
