/* Opening a ring. */
#ifndef VEV_OPEN_H
#define VEV_OPEN_H

#include "vev_ring.h"

/* Open the ring at `path`, creating it if absent. The caller holds the directory's lock. */
vev_status vev_ring_open(const vev_io *io, const char *path, const vev_ring_options *options,
                         vev_pool *pool, vev_ring **ring_out);
void vev_ring_close(vev_ring *ring);
/* In a child of fork(): take an own open file and slot. The first call only. */
vev_status vev_ring_reattach(vev_ring *ring);

#endif
