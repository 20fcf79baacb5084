/* What is done before an append needs it, by the helper's threads: pages cleared and in memory, the
 * next segment ready, the checkpoint moved. How much, by how fast the ring is filled. */
#include "vev_ahead.h"

#include <errno.h>

#include "vev_checkpoint.h"
#include "vev_clear.h"
#include "vev_guard.h"
#include "vev_reclaim.h"
#include "vev_roll.h"
#include "vev_span.h"

/* Bytes whose page faults are taken ahead, at least, and for how long they are to do at most. A
 * page that is touched is dirty and may be written to the disk before anything stands in it, so a
 * slow log must not run far ahead. */
enum { TOUCH_AHEAD_MIN = 4096, AHEAD_NS = 160 * 1000 * 1000 };
/* The next segment is made ready when the current one is half full, or would be full so soon at the
 * present speed. Records that are pending are evicted for it when it is half full and no sooner:
 * how long a ring of a given size lasts does not depend on speed, but for what comes in the time
 * that a busy disk takes to sync a page, or this one has taken of late; of which a ring keeps free
 * at most one part in so many. */
enum { READY_NS = 640 * 1000 * 1000, SYNC_NS = 32 * 1000 * 1000, FREE_PART = 4 };

/* Map the segment that comes next, clear it as far as it is to be written soon, and take the page
 * faults that its first appends would. */
static void make_ready(vev_ring *ring, uint32_t segment, uint32_t ahead)
{
    const vev_geometry *geometry = &ring->file.geometry;
    vev_span *span = vev_ring_take_ready(ring, segment);
    if (!span && vev_ring_try_map_span(ring, segment, &span))
        return;
    uint32_t wanted = vev_ring_page_end(geometry, VEV_MAX(ahead, (uint32_t)VEV_CLEAR_MIN));
    uint32_t cleared = VEV_MAX(atomic_load(&span->cleared), (uint32_t)VEV_CLEAR_MIN);
    vev_ring_touch(ring, span->base, VEV_HEADER_BLOCK + geometry->dictionary_capacity);
    vev_ring_touch(ring, span->data, cleared);
    /* Who waits for this segment is better off with what there is of it. */
    while (cleared < wanted && atomic_load(&ring->waiting) == 0) {
        uint32_t next = vev_ring_page_end(geometry, vev_ring_clear_step(cleared, wanted));
        if (vev_ring_wipe_data(ring, segment, cleared, next))
            break;
        vev_ring_touch(ring, span->data + cleared, next - cleared);
        cleared = next;
    }
    atomic_store(&span->cleared, cleared);
    atomic_store(&span->touched, cleared);
    ring->ready = span;
    ring->ready_after = atomic_load(&ring->live->active) >> 10;
    atomic_store(&ring->ready_for, segment + 1);
}

/* Returns VEV_E_FULL when there is none to be had without evicting. */
static vev_status prepare_spare(vev_ring *ring, bool may_evict, uint32_t ahead)
{
    volatile vev_status status = VEV_OK;
    if (atomic_load(&ring->degraded) || vev_ring_lock_roll(ring))
        return status;
    vev_guard guard;
    vev_guard_enter(&guard);
    if (sigsetjmp(guard.jump, 0) == 0) {
        uint32_t spare = vev_ring_find_spare(ring), segment = spare - 1;
        if (spare == 0) {
            status = vev_ring_take_free(ring, may_evict, &segment);
            if (status == VEV_OK)
                atomic_store(&ring->live->spare, segment + 1);
        }
        if (status == VEV_OK)
            make_ready(ring, segment, ahead);
        vev_guard_leave(&guard);
    } else {
        vev_ring_degrade(ring, EIO);
    }
    vev_ring_unlock_roll(ring);
    return status;
}

void vev_ring_watch(vev_ring *ring, vev_watch *seen, uint64_t now_ns)
{
    const vev_span *span = atomic_load(&ring->current);
    *seen = (vev_watch){.moved_ns = now_ns, .lap_began_ns = now_ns, .last_lap_ns = UINT64_MAX};
    if (span) {
        seen->generation = atomic_load(&span->generation);
        uint32_t ignored; /* the walk brings the tail to where other processes are */
        (void)vev_ring_tail_index(ring, seen->generation, &ignored);
        seen->tail = atomic_load(&span->tail);
    }
}

static bool is_at_rest(const vev_span *span, const vev_watch *seen)
{
    return atomic_load_explicit(&span->tail, memory_order_relaxed) == seen->tail &&
           atomic_load(&span->generation) == seen->generation;
}

typedef struct look {
    vev_watch *seen;
    uint64_t now_ns;
    vev_pace pace;
    uint32_t segment; /* that was seen, while it was held */
    bool low, half;   /* the next segment is wanted; because this one is half full */
    bool found;       /* which one that is to be is known */
    uint32_t ahead;   /* how many bytes are to be cleared and touched ahead */
    uint32_t wanted;  /* up to where that is in this one */
} look;

/* How many segments are kept free beside the next one: what is filled while two ledgers come to the
 * disk, if that takes as long as the slowest of late, but for the half of this segment in which the
 * next one is made ready anyway. Of events alone: who counts how many frames still fit (`vevents
 * import`), or writes again what the ring of notes is about to come round to, must find as many
 * kept. `coming`: how many bytes come in READY_NS. */
static uint64_t count_laps_ahead(const vev_ring *ring, const look *l, uint64_t coming,
                                 bool at_speed)
{
    const vev_watch *seen = l->seen;
    const vev_geometry *geometry = &ring->file.geometry;
    uint64_t lap_ns = VEV_MAX(seen->last_lap_ns, UINT64_C(1));
    uint64_t lead_ns = 2 * atomic_load(&ring->ledger_ns);
    if (ring->stream != VEV_EVENTS)
        return 0;
    if (at_speed) {
        lead_ns = VEV_MAX(lead_ns, (uint64_t)SYNC_NS);
    } else {
        /* The last one may have been a burst, or this process have seen its end alone. Not so at
         * speed, where a look that comes late would seem to be a slow log. */
        uint64_t present_ns = geometry->data_size * (uint64_t)READY_NS / VEV_MAX(coming, 1u);
        lap_ns = VEV_MAX(lap_ns, VEV_MAX(l->now_ns - seen->lap_began_ns, present_ns));
    }
    return VEV_MIN((lead_ns + lap_ns / 2) / lap_ns, (uint64_t)geometry->segment_count / FREE_PART);
}

static vev_status keep_span(vev_ring *ring, vev_span *span, void *argument)
{
    look *l = argument;
    vev_watch *seen = l->seen;
    if (is_at_rest(span, seen))
        return VEV_OK;
    /* What an append had to wait for the next segment says nothing of how fast they come. */
    uint64_t held_up_ns = atomic_exchange(&ring->held_up_ns, 0);
    seen->moved_ns = VEV_MIN(seen->moved_ns + held_up_ns, l->now_ns);
    seen->lap_began_ns = VEV_MIN(seen->lap_began_ns + held_up_ns, l->now_ns);
    uint64_t tail = atomic_load_explicit(&span->tail, memory_order_relaxed);
    uint64_t generation = atomic_load(&span->generation);
    uint32_t from = generation == seen->generation ? vev_tail_offset(seen->tail) : 0;
    uint32_t at = vev_tail_offset(tail), data_size = ring->file.geometry.data_size;
    /* Since something came, not since the last look: what came at once after a pause is no stream,
     * be it a frame, or what other processes have written since this one did. */
    uint64_t took_ns = VEV_MAX(l->now_ns - seen->moved_ns, UINT64_C(1));
    if (generation != seen->generation) {
        uint64_t laps = VEV_MAX(generation - seen->generation, UINT64_C(1));
        seen->last_lap_ns = (l->now_ns - seen->lap_began_ns) / laps;
        seen->lap_began_ns = l->now_ns;
    }
    seen->tail = tail;
    seen->generation = generation;
    l->segment = span->segment;
    seen->moved_ns = l->now_ns;
    seen->recent = at - from;
    uint64_t ahead = seen->recent * (uint64_t)AHEAD_NS / took_ns;
    /* A whole segment was full so soon, and so will be the next: a burst alone is no reason to make
     * one dirty from end to end. */
    bool at_speed = seen->last_lap_ns <= AHEAD_NS && ahead >= data_size;
    vev_ring_set_speed(ring, at_speed);
    uint64_t coming = seen->recent * (uint64_t)READY_NS / took_ns;
    uint64_t laps_ahead = count_laps_ahead(ring, l, coming, at_speed);
    atomic_store(&ring->laps_ahead, (uint32_t)laps_ahead);
    /* Else four looks' worth, so that a faster burst still finds warm pages. */
    ahead = at_speed ? data_size : VEV_MIN(ahead, 4ull * seen->recent);
    ahead = VEV_MAX(ahead, (uint64_t)TOUCH_AHEAD_MIN);
    l->ahead = (uint32_t)VEV_MIN(ahead, (uint64_t)data_size);
    l->wanted = (uint32_t)VEV_MIN((uint64_t)at + l->ahead, (uint64_t)data_size);
    l->pace = at_speed && laps_ahead > 0 ? VEV_PACE_FASTEST
              : coming >= data_size      ? VEV_PACE_FAST
                                         : VEV_PACE_MOVING;
    l->half = at >= data_size / 2;
    bool soon = coming >= data_size - at && seen->full_generation != generation;
    uint32_t spare = atomic_load(&ring->live->spare);
    l->found = spare > 0;
    l->low = (l->half || soon) && (spare == 0 || atomic_load(&ring->ready_for) != spare);
    return VEV_OK;
}

static vev_status touch_span(vev_ring *ring, vev_span *span, void *argument)
{
    const look *l = argument;
    uint32_t at = vev_tail_offset(atomic_load_explicit(&span->tail, memory_order_relaxed));
    uint32_t touched = VEV_MAX(atomic_load(&span->touched), at);
    uint32_t wanted = VEV_MIN(l->wanted, atomic_load(&span->cleared));
    if (atomic_load(&span->generation) == l->seen->generation && wanted > touched) {
        vev_ring_touch(ring, span->data + touched, wanted - touched);
        atomic_store(&span->touched, wanted);
    }
    return VEV_OK;
}

/* What is to be written soon: cleared, where that has not been done yet, and in memory. What cannot
 * be cleared is met by the append that needs it. */
static void look_ahead(vev_ring *ring, look *l)
{
    const vev_span *span = atomic_load(&ring->current);
    vev_status status = VEV_OK;
    for (uint32_t before = 0, cleared; !status; before = cleared) {
        cleared = atomic_load(&span->cleared);
        if (cleared >= l->wanted || cleared <= before)
            break;
        vev_clearing c = {.generation = l->seen->generation,
                          .segment = l->segment,
                          .wanted = vev_ring_clear_step(cleared, l->wanted),
                          .warm = true};
        pthread_mutex_lock(&ring->clear_mutex);
        status = vev_ring_clear_up_to(ring, &c);
        pthread_mutex_unlock(&ring->clear_mutex);
    }
    vev_status ignored = vev_ring_on_current(ring, touch_span, l);
    (void)ignored;
}

static vev_status rewarm_span(vev_ring *ring, vev_span *span, void *argument)
{
    (void)argument;
    vev_ring_touch(ring, &ring->live->slots[ring->slot], sizeof(vev_slot));
    vev_ring_touch(ring, vev_word_at(span, vev_tail_offset(atomic_load(&span->tail))),
                   VEV_RECORD_ALIGN);
    return VEV_OK;
}

void vev_ring_rewarm(vev_ring *ring)
{
    vev_status ignored = vev_ring_on_current(ring, rewarm_span, NULL);
    (void)ignored;
}

/* Unmap what was written full, so that memory stays at about one segment. */
static void retire_idle_spans(vev_ring *ring)
{
    const vev_span *current = atomic_load(&ring->current);
    bool idle = false;
    for (int s = 0; s < VEV_SPAN_COUNT; s++)
        idle |= &ring->spans[s] != current && atomic_load(&ring->spans[s].generation) != 0;
    if (!idle || pthread_mutex_trylock(&ring->roll_mutex) != 0)
        return;
    vev_guard guard;
    vev_guard_enter(&guard);
    if (sigsetjmp(guard.jump, 0) == 0) {
        vev_ring_retire_spans(ring);
        vev_guard_leave(&guard);
    }
    pthread_mutex_unlock(&ring->roll_mutex);
}

/* Pages of the next segment that are in memory since its last lap may be so in large pieces, of a
 * time when it was written at speed, and each byte that changes in such a piece makes all of it be
 * written. Without a lock, for it may take its time; whatever the segment is by then, nothing is
 * lost by it. */
static void forget_earlier_lap(const vev_ring *ring)
{
    uint32_t ready = atomic_load(&ring->ready_for), size = ring->file.geometry.segment_size;
    if (ready > 0)
        ring->io->forget(ring->io->ctx, ring->fd,
                         vev_segment_offset(&ring->file.geometry, ready - 1), size);
}

vev_pace vev_ring_keep(vev_ring *ring, vev_watch *seen, uint64_t now_ns)
{
    /* Looking closely means writing to the live area, and so a page to the flash whenever the
     * kernel writes back: not for a ring at rest. */
    const vev_span *span = atomic_load(&ring->current);
    if (!span || is_at_rest(span, seen)) {
        if (atomic_load(&ring->waiting) > 0)
            return VEV_PACE_MOVING;
        /* What comes next, after a pause, is no stream. */
        if (now_ns - seen->moved_ns > AHEAD_NS) {
            vev_ring_set_speed(ring, false);
            atomic_store(&ring->laps_ahead, 0);
        }
        return VEV_PACE_IDLE;
    }
    look l = {.seen = seen, .now_ns = now_ns, .pace = VEV_PACE_IDLE};
    if (vev_ring_on_current(ring, keep_span, &l) || l.pace == VEV_PACE_IDLE)
        return VEV_PACE_IDLE;
    vev_ring_keep_checkpoint(ring);
    look_ahead(ring, &l);
    /* Where several are to be free none is waited for here, with the roll lock: who counts them out
     * is at it. */
    l.low = l.low &&
            (l.found || vev_ring_lacks_free(ring) < VEV_MAX(atomic_load(&ring->laps_ahead), 1u));
    if (l.low && prepare_spare(ring, l.half, l.ahead) == VEV_E_FULL)
        seen->full_generation = seen->generation;
    else if (l.low && !atomic_load(&ring->at_speed))
        forget_earlier_lap(ring);
    retire_idle_spans(ring);
    return l.pace;
}
