/* A segment is cleared as it is written, in steps, in front of its tail.
 *
 * INV-10 `cleared` in the live area, which names the generation, says up to where zeros have been
 *        put over what an earlier lap left. It is moved only by who holds the segment's clear lock,
 *        after the zeros were written, and a place is taken only if the word behind it lies before
 *        that mark. So whoever follows the words meets none of an earlier lap, and nothing is ever
 *        cleared that somebody has taken. Who clears holds a cell as well (INV-7), so that one who
 *        is stopped amid it never clears a later lap.
 */
#include "vev_clear.h"

#include <errno.h>

bool vev_ring_read_cleared(const vev_ring *ring, uint64_t generation, uint32_t *offset_out)
{
    return vev_ring_read_place(ring, &ring->live->cleared, generation, offset_out);
}

void vev_ring_set_cleared(vev_ring *ring, vev_span *span, uint64_t generation, uint32_t offset)
{
    atomic_store(&ring->live->cleared, vev_place_make(generation, offset));
    atomic_store_explicit(&span->cleared, offset, memory_order_release);
}

uint32_t vev_ring_page_end(const vev_geometry *geometry, uint32_t offset)
{
    uint64_t end = vev_align_up((uint64_t)geometry->data_offset + offset, vev_io_granule());
    return (uint32_t)VEV_MIN(end - geometry->data_offset, (uint64_t)geometry->data_size);
}

/* Write zeros, but not behind the end of a file that somebody cut short: it would have its size
 * again, and seem to be whole. */
static vev_status wipe(vev_ring *ring, uint64_t offset, uint64_t size)
{
    uint64_t file_size;
    vev_status status = vev_ring_examine_file(ring, &file_size);
    if (!status && file_size < offset + size)
        status = EIO;
    return status ? status : vev_io_wipe(ring->io, ring->fd, offset, size);
}

vev_status vev_ring_wipe_data(vev_ring *ring, uint32_t segment, uint32_t from, uint32_t to)
{
    const vev_geometry *geometry = &ring->file.geometry;
    uint64_t at = vev_segment_offset(geometry, segment) + geometry->data_offset;
    return to > from ? wipe(ring, at + from, to - from) : VEV_OK;
}

vev_status vev_ring_clear_front(vev_ring *ring, uint32_t segment)
{
    const vev_geometry *geometry = &ring->file.geometry;
    uint64_t at = vev_segment_offset(geometry, segment);
    return wipe(ring, at, geometry->data_offset + vev_ring_page_end(geometry, VEV_CLEAR_MIN));
}

uint32_t vev_ring_clear_step(uint32_t cleared, uint32_t wanted)
{
    return wanted - cleared < 2 * VEV_CLEAR_STEP ? wanted : cleared + VEV_CLEAR_STEP;
}

/* With the clear lock of the segment. */
static vev_status clear_span(vev_ring *ring, vev_span *span, void *argument)
{
    const vev_clearing *c = argument;
    if (atomic_load(&span->generation) != c->generation)
        return VEV_OK; /* not asked for any more */
    if (atomic_load(&ring->live->generations[span->segment]) != c->generation)
        return VEV_E_FULL; /* another process is a lap ahead (INV-7) */
    uint64_t mark = atomic_load(&ring->live->cleared);
    uint32_t from;
    if (!vev_ring_read_cleared(ring, c->generation, &from))
        return VEV_E_FULL;
    uint32_t to = VEV_MAX(vev_ring_page_end(&ring->file.geometry, c->wanted), from);
    vev_status status = vev_ring_wipe_data(ring, span->segment, from, to);
    if (status) {
        /* Once for a lap: the helper, and appends that clear in time, meet the same place again. */
        if (atomic_exchange(&ring->failed_lap, c->generation) != c->generation)
            atomic_fetch_add(&ring->failed_clears, 1);
        return status;
    }
    atomic_store(&ring->failed_lap, 0);
    atomic_store(&ring->failed_clears, 0);
    /* Fails when others went on to the next segment meanwhile: the mark is of that one then. */
    if (!atomic_compare_exchange_strong(&ring->live->cleared, &mark,
                                        vev_place_make(c->generation, to)))
        return VEV_E_FULL;
    if (c->warm && to > from) {
        vev_ring_touch(ring, span->data + from, to - from);
        if (atomic_load(&span->touched) >= from)
            atomic_store(&span->touched, to);
    }
    atomic_store_explicit(&span->cleared, to, memory_order_release);
    return VEV_OK;
}

vev_status vev_ring_clear_up_to(vev_ring *ring, vev_clearing *c)
{
    const vev_span *current = atomic_load(&ring->current);
    if (!current || atomic_load(&current->generation) != c->generation)
        return VEV_OK; /* another thread waited and went on */
    uint64_t lock = VEV_LOCK_CLEAR + c->segment;
    vev_status status = vev_io_lock(ring->io, ring->fd, lock, VEV_LOCK_EXCLUSIVE, c->wait_ms);
    if (!status) {
        status = vev_ring_on_current(ring, clear_span, c);
        (void)ring->io->lock(ring->io->ctx, ring->fd, lock, VEV_LOCK_NONE);
    }
    return status == VEV_E_BUSY ? VEV_E_FULL : status;
}

bool vev_ring_is_cleared_by_others(const vev_ring *ring, vev_span *span, uint32_t end)
{
    uint32_t cleared;
    if (!vev_ring_read_cleared(ring, atomic_load(&span->generation), &cleared) || end > cleared)
        return false;
    atomic_store_explicit(&span->cleared, cleared, memory_order_release);
    return true;
}

/* How much an append clears at a time: at speed as much as others use up meanwhile, else a little,
 * and the more the longer a burst goes on without a pause; but then a part of a step at most, so
 * that what is cleared for it stays in small pages (vev_io_wipe()). */
enum { LEAST = 16384 };

static uint32_t step_of_append(const vev_ring *ring, bool at_speed, uint64_t burst_size)
{
    enum { PART = 4 };
    uint64_t step =
        at_speed ? 2 * VEV_CLEAR_STEP : VEV_MIN(burst_size / PART, (uint64_t)VEV_CLEAR_STEP / PART);
    step = VEV_MIN(step, (uint64_t)ring->file.geometry.data_size / PART);
    return (uint32_t)VEV_MAX(step, (uint64_t)LEAST);
}

/* How much of such a step is to be left when the next one is taken, so that other threads find some
 * while it is: nothing of the least one, for it may be that nobody comes. */
static void set_left(vev_ring *ring, uint32_t step)
{
    uint32_t left = step > LEAST ? step / 4 : 0;
    if (left != atomic_load(&ring->clear_left))
        atomic_store(&ring->clear_left, left);
}

void vev_ring_set_speed(vev_ring *ring, bool at_speed)
{
    if (at_speed == atomic_load(&ring->at_speed))
        return;
    atomic_store(&ring->at_speed, at_speed);
    set_left(ring, step_of_append(ring, at_speed, 0));
}

/* How far to clear for an append that comes to `from`. With clear_mutex. */
static uint32_t plan_clearing(vev_ring *ring, uint32_t from, uint64_t now_ns, bool *warm_out)
{
    enum { PAUSE_NS = 10 * 1000 * 1000 };
    /* Another thread may have cleared something since this append began. */
    if (now_ns >= ring->cleared_ns + PAUSE_NS)
        ring->burst_size = 0;
    uint32_t step = step_of_append(ring, atomic_load(&ring->at_speed), ring->burst_size);
    set_left(ring, step);
    ring->burst_size += step;
    ring->cleared_ns = now_ns;
    *warm_out = step > LEAST;
    return (uint32_t)VEV_MIN((uint64_t)from + step, (uint64_t)ring->file.geometry.data_size);
}

vev_status vev_ring_clear_for(vev_ring *ring, uint64_t generation, uint32_t segment,
                              uint32_t wanted, uint64_t now_ns)
{
    enum { BAD_PLACES = 2, WAIT_MS = 100 };
    vev_clearing c = {.generation = generation, .segment = segment, .wait_ms = WAIT_MS};
    pthread_mutex_lock(&ring->clear_mutex);
    c.wanted = plan_clearing(ring, wanted, now_ns, &c.warm);
    vev_status status = vev_ring_clear_up_to(ring, &c);
    pthread_mutex_unlock(&ring->clear_mutex);
    /* A bad place is gone around, but a disk that takes nothing costs no segment after another. */
    return status == EIO && atomic_load(&ring->degraded) == 0 &&
                   atomic_load(&ring->failed_clears) < BAD_PLACES
               ? VEV_E_FULL
               : status;
}

void vev_ring_clear_in_time(vev_ring *ring, uint64_t generation, uint32_t segment, uint32_t cleared,
                            uint64_t now_ns)
{
    if (pthread_mutex_trylock(&ring->clear_mutex) != 0)
        return;
    vev_clearing c = {.generation = generation, .segment = segment};
    c.wanted = plan_clearing(ring, cleared, now_ns, &c.warm);
    (void)vev_ring_clear_up_to(ring, &c);
    pthread_mutex_unlock(&ring->clear_mutex);
}
