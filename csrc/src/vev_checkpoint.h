/* Checkpoints of the newest lap (INV-13). */
#ifndef VEV_CHECKPOINT_H
#define VEV_CHECKPOINT_H

#include "vev_ring.h"

/* Bytes between checkpoints in the live area; those on the disk are VEV_CHECKPOINT_SYNCED times as
 * far apart, for each makes the page of a head be written. Tests shorten it. */
extern uint32_t vev__checkpoint_step;
enum { VEV_CHECKPOINT_SYNCED = 16 };
/* The checkpoint of a lap in the live area; 0: none. */
uint32_t vev_ring_checkpoint(const vev_ring *ring, uint64_t generation);
void vev_ring_set_checkpoint(vev_ring *ring, uint64_t generation, uint32_t offset);
/* Bring a tail that stands at damage to the next good record or end. False when there is none. */
bool vev_ring_step_over_damage(const vev_ring *ring, const vev_span *span, uint64_t *tail);
/* The tail with which to begin in a lap: at a checkpoint, or at the first record. Where the record
 * of the live one is damaged, at the next: in front there may be more that recovery, which began
 * there, did not mend, and bytes that look free. */
uint64_t vev_ring_begin_at(const vev_ring *ring, const vev_span *span, uint64_t generation);

/* With sync_mutex: */

/* Walk on over what is committed for good, a number of steps at most: records, and holes whose
 * writers are dead. */
void vev_ring_walk_committed(vev_ring *ring, vev_span *span, uint32_t steps);
/* Tell of where the walk came to, if that is far enough from where the checkpoint is. */
void vev_ring_move_checkpoint(vev_ring *ring);
/* Likewise on the disk, after a sync that covered all that was walked over. Not synced itself: it
 * is there when the page is written the next time, or an earlier one is. */
void vev_ring_move_synced_checkpoint(vev_ring *ring, vev_span *span);

/* Without: who opens the file next, be it that all others died, need not look at what was committed
 * by now. What is walked over here the next sync need not walk over again; while one runs it is
 * left to that. */
void vev_ring_keep_checkpoint(vev_ring *ring);

#endif
