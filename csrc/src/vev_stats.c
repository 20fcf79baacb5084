/* What a ring holds, in figures. */
#include "vev_stats.h"

#include <errno.h>

#include "vev_clock.h"
#include "vev_guard.h"
#include "vev_laps.h"
#include "vev_states.h"

/* How many maps are asked of the disk before they are read: enough to keep its queue filled. */
enum { MAPS_AHEAD = 128 };

/* Ask for the maps of sealed laps that have no tally, from the `asked`-th in the list on. Returns
 * how far that has come. */
static uint32_t prefetch_maps(const vev_ring *ring, uint32_t asked, uint32_t to)
{
    for (; asked < to && asked + 1 < ring->listed_count; asked++) {
        const vev_listed *listed = &ring->listed[asked];
        uint64_t ignored[4];
        if (!vev_ring_read_tally(ring, listed, ignored))
            ring->io->prefetch(ring->io->ctx, ring->fd, vev_ring_map_at(ring, listed),
                               vev_map_bytes(vev_listed_records(listed)));
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
        uint32_t count = vev_listed_records(listed);
        uint32_t used = listed->head.sealed ? listed->head.data_end : ring->file.geometry.data_size;
        uint64_t counts[4], unfinished;
        asked = prefetch_maps(ring, asked, i + MAPS_AHEAD);
        if (i + 1 < ring->listed_count) {
            status = vev_ring_count_sealed(ring, listed, counts, &unfinished);
        } else {
            status = vev_ring_measure_newest(ring, listed, &count, &used);
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
