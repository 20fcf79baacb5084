/* Recovery. */
#ifndef VEV_RECOVER_H
#define VEV_RECOVER_H

#include "vev_ring.h"

/* Rebuild everything that is not a record. With VEV_LOCK_ATTACH, exclusively. */
vev_status vev_ring_rebuild(vev_ring *ring);

#endif
