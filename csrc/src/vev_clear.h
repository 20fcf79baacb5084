/* Clearing: nothing of an earlier lap is in front of who appends (INV-10). */
#ifndef VEV_CLEAR_H
#define VEV_CLEAR_H

#include "vev_ring.h"

/* How much is cleared at a time, while others go on in what is cleared already. */
enum { VEV_CLEAR_STEP = 256 * 1024 };

typedef struct vev_clearing {
    uint64_t generation;
    uint32_t segment, wanted;
    uint32_t wait_ms; /* for who is clearing just now */
    bool warm;        /* take the page faults as well */
} vev_clearing;

/* The next step from `cleared` to `wanted`; the last one is not small, which would cost as much. */
uint32_t vev_ring_clear_step(uint32_t cleared, uint32_t wanted);
/* The least end of whole pages, seen from the data area, at or behind `offset` of it. */
uint32_t vev_ring_page_end(const vev_geometry *geometry, uint32_t offset);
/* Say how far the active segment is cleared. With roll_mutex and VEV_LOCK_ROLL. */
void vev_ring_set_cleared(vev_ring *ring, vev_span *span, uint64_t generation, uint32_t offset);
/* How far it is. False when what is said is of another lap: whoever was going on to that one
 * died. */
bool vev_ring_read_cleared(const vev_ring *ring, uint64_t generation, uint32_t *offset_out);
/* Zeros over data that nobody has taken: in the active segment with its clear lock, in one where no
 * lap has begun yet with roll_mutex and VEV_LOCK_ROLL. */
vev_status vev_ring_wipe_data(vev_ring *ring, uint32_t segment, uint32_t from, uint32_t to);
/* What a lap needs before it can begin: no old head, dictionary or states, and some room. With
 * roll_mutex and VEV_LOCK_ROLL. */
vev_status vev_ring_clear_front(vev_ring *ring, uint32_t segment);

/* Have the active segment cleared as far as is said. VEV_E_FULL: it is not the active one any more,
 * or who is clearing it does not get on: go on in another one. With clear_mutex. */
vev_status vev_ring_clear_up_to(vev_ring *ring, vev_clearing *c);
/* Clear what an append needs, up to `wanted`, and some more, where nobody has done so in time.
 * `now_ns` as vev_clock_boot_ns(). VEV_E_FULL: go on in another segment. */
vev_status vev_ring_clear_for(vev_ring *ring, uint64_t generation, uint32_t segment,
                              uint32_t wanted, uint64_t now_ns);
/* Say whether segments are full as soon as they are begun. */
void vev_ring_set_speed(vev_ring *ring, bool at_speed);
/* Clear more than is `cleared` before others find none, unless somebody does: for an append that
 * leaves less than `clear_left`. What fails is met by who needs it. */
void vev_ring_clear_in_time(vev_ring *ring, uint64_t generation, uint32_t segment, uint32_t cleared,
                            uint64_t now_ns);

/* Whether the segment is cleared up to `end`, by another process. */
bool vev_ring_is_cleared_by_others(const vev_ring *ring, vev_span *span, uint32_t end);
static inline bool vev_ring_is_cleared(const vev_ring *ring, vev_span *span, uint32_t end)
{
    return VEV_LIKELY(end <= atomic_load_explicit(&span->cleared, memory_order_acquire)) ||
           vev_ring_is_cleared_by_others(ring, span, end);
}

#endif
