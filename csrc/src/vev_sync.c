/* Putting what was appended on the disk, and saying how far that is.
 *
 * INV-9  durable_seq moves only after a sync that returned success and covered every record up to
 *        it; after one failed sync it does not move again until the log is opened anew.
 */
#include "vev_sync.h"

#include "vev_checkpoint.h"
#include "vev_guard.h"
#include "vev_roll.h"

/* VEV_E_FULL: the span is not current any more. */
static vev_status sync_span(vev_ring *ring, vev_span *span, void *argument)
{
    vev_live *live = ring->live;
    uint64_t generation = atomic_load(&span->generation), target_seq = *(uint64_t *)argument;
    vev_status status = (vev_status)atomic_load(&live->sync_error);
    if (status || (target_seq > 0 && atomic_load(&live->durable_seq) >= target_seq))
        return status;
    if (atomic_load(&live->active) >> 10 != generation)
        return VEV_E_FULL;
    uint64_t file_size;
    status = vev_ring_examine_file(ring, &file_size);
    if (status)
        return status;
    vev_ring_walk_committed(ring, span, UINT32_MAX);
    vev_ring_move_checkpoint(ring);
    uint64_t reached = span->lap.base_seq + ring->walk_index - 1;
    uint64_t durable = atomic_load(&live->durable_seq);
    if (durable + 1 < span->lap.base_seq || ring->synced_offset == 0 ||
        atomic_exchange(&ring->marks_dirty, false)) {
        /* More than this segment's data: heads, sealed segments, delivery states. A sealed segment
         * in which somebody is still writing holds the mark back; asked before the sync, since what
         * is committed during it may miss it. */
        if (durable + 1 < span->lap.base_seq && vev_ring_is_pinned(ring, 1, generation - 1))
            reached = durable;
        status = ring->io->sync(ring->io->ctx, ring->fd);
    } else {
        uint32_t end = VEV_MAX(ring->walk_offset, vev_tail_offset(atomic_load(&span->tail)));
        status = end > ring->synced_offset
                     ? ring->io->sync_map(ring->io->ctx, span->data + ring->synced_offset,
                                          end - ring->synced_offset)
                     : VEV_OK;
    }
    if (status) {
        /* After a failed write-back the kernel may call the pages clean, and the next sync would
         * succeed without having written them: no later success can be believed (INV-9). */
        atomic_store(&live->sync_error, (uint32_t)status);
        return status;
    }
    ring->synced_offset = VEV_MAX(ring->walk_offset, 8u);
    vev_ring_move_synced_checkpoint(ring, span);
    while (durable < reached &&
           !atomic_compare_exchange_weak(&live->durable_seq, &durable, reached)) {
    }
    return VEV_OK;
}

/* Whether nothing was appended or marked since the last sync. Without a cell: to announce oneself
 * is to write to the live area, and that is a page of flash every time that nothing else is to be
 * written. */
static bool is_synced(vev_ring *ring)
{
    volatile bool synced = false;
    pthread_mutex_lock(&ring->roll_mutex); /* the span stays mapped */
    vev_guard guard;
    vev_guard_enter(&guard);
    if (sigsetjmp(guard.jump, 0) == 0) {
        const vev_span *span = atomic_load(&ring->current);
        const vev_live *live = ring->live;
        uint64_t walked = ring->walk_generation;
        synced =
            span && ring->synced_offset > 0 && atomic_load(&span->generation) == walked &&
            atomic_load(&live->active) >> 10 == walked && atomic_load(&live->sync_error) == 0 &&
            !atomic_load(&ring->marks_dirty) &&
            ring->synced_offset == VEV_MAX(ring->walk_offset, 8u) &&
            ring->walk_offset <= ring->file.geometry.data_size - 8 &&
            atomic_load_explicit(vev_word_at(span, ring->walk_offset), memory_order_acquire) == 0 &&
            atomic_load(&live->durable_seq) + 1 >= span->lap.base_seq + ring->walk_index;
        vev_guard_leave(&guard);
    }
    pthread_mutex_unlock(&ring->roll_mutex);
    return synced;
}

static vev_status look_for_unsynced(vev_ring *ring, vev_span *span, void *argument)
{
    uint64_t tail = atomic_load_explicit(&span->tail, memory_order_relaxed);
    (void)vev_ring_walk(ring, span, &tail);
    *(bool *)argument =
        atomic_load(&ring->live->sync_error) == 0 &&
        atomic_load(&ring->live->durable_seq) < span->lap.base_seq + vev_tail_index(tail) - 1;
    return VEV_OK;
}

bool vev_ring_is_durable(vev_ring *ring)
{
    bool unsynced = false;
    return vev_ring_on_current(ring, look_for_unsynced, &unsynced) != VEV_OK || !unsynced;
}

vev_status vev_ring_sync(vev_ring *ring, uint64_t target_seq)
{
    if (ring->readonly)
        return VEV_OK;
    pthread_mutex_lock(&ring->sync_mutex);
    vev_status status = VEV_OK;
    while (!is_synced(ring) &&
           (status = vev_ring_on_current(ring, sync_span, &target_seq)) == VEV_E_FULL) {
        status = vev_ring_roll(ring, 0); /* adopts what another process activated */
        if (status)
            break;
    }
    pthread_mutex_unlock(&ring->sync_mutex);
    return status;
}
