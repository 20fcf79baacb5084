/* Syncs. */
#ifndef VEV_SYNC_H
#define VEV_SYNC_H

#include "vev_ring.h"

vev_status vev_ring_sync(vev_ring *ring, uint64_t target_seq);
/* Whether nothing is left to sync, or nothing can be. */
bool vev_ring_is_durable(vev_ring *ring);

#endif
