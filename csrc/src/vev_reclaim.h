/* Counting segments out. */
#ifndef VEV_RECLAIM_H
#define VEV_RECLAIM_H

#include "vev_ring.h"

/* How many segments a ring keeps free beside the next one before the helper thread knows its speed.
 * Tests raise it. */
extern uint32_t vev__laps_ahead;

/* Find a segment whose bytes nobody needs, reclaiming as many as it takes, and clear its front.
 * VEV_E_FULL when that would cost records that are pending, and they may not be evicted. With
 * roll_mutex and VEV_LOCK_ROLL. */
vev_status vev_ring_take_free(vev_ring *ring, bool may_evict, uint32_t *segment_out);
/* How many segments are to be counted out so that enough are free at the present speed. */
uint32_t vev_ring_lacks_free(const vev_ring *ring);
/* Count them out. Waits for the disk: not in the thread that keeps the ring. */
void vev_ring_reclaim_ahead(vev_ring *ring);

#endif
