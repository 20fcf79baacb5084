/* Figures. */
#ifndef VEV_STATS_H
#define VEV_STATS_H

#include "vev_ring.h"

vev_status vev_ring_stats(vev_ring *ring, vev_stats *stats);
/* How far syncs have come: up to here every record is committed, or lost for good. */
uint64_t vev_ring_synced_seq(const vev_ring *ring);

#endif
