/* Going on to the next segment. */
#ifndef VEV_ROLL_H
#define VEV_ROLL_H

#include "vev_ring.h"

/* Go on to the next segment, unless somebody has done so since `seen_generation`; 0: only follow
 * what another process did. */
vev_status vev_ring_roll(vev_ring *ring, uint64_t seen_generation);

/* roll_mutex and VEV_LOCK_ROLL. VEV_E_BUSY: another process did not give it up in time. */
vev_status vev_ring_lock_roll(vev_ring *ring);
void vev_ring_unlock_roll(vev_ring *ring);

/* With both held: */

/* The next segment, if one is known: 1 + its index; 0: none. It carries no generation but the next
 * one: whoever made it the active one and died then leaves it named. */
uint32_t vev_ring_find_spare(vev_ring *ring);
/* Write to a segment that is active already. */
vev_status vev_ring_adopt(vev_ring *ring, uint64_t generation, uint32_t segment);
/* Find a segment to go on in, and do so. */
vev_status vev_ring_begin_lap(vev_ring *ring, uint64_t generation, uint64_t base_seq);

#endif
