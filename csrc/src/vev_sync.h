/* How what was appended comes onto the disk (INV-9). */
#ifndef VEV_SYNC_H
#define VEV_SYNC_H

#include "vev_ring.h"

/* Have everything up to `target_seq` on the disk; 0: all that is appended by now. */
vev_status vev_ring_sync(vev_ring *ring, uint64_t target_seq);
/* Whether nothing is left to sync, or nothing can be. */
bool vev_ring_is_durable(vev_ring *ring);

#endif
