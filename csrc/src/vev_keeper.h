/* The helper of a log: whatever would make an append wait is done here before it is needed. One
 * thread looks at the rings, clears segments and takes page faults ahead of the tail, and undoes
 * old maps. What waits for the disk has threads of its own, so that nobody else does: background
 * syncs (of a RAM-first log: of its copy), and, from when it is first wanted, counting segments
 * out. */
#ifndef VEV_KEEPER_H
#define VEV_KEEPER_H

#include "vev_copy.h"

typedef struct vev_keeper vev_keeper;

/* Start the threads for `rings` (VEV_STREAM_COUNT of them). `sync_interval_ms` 0: no syncs. With a
 * `copy`, which is not NULL when the log is RAM-first, its interval counts instead. */
vev_status vev_keeper_start(vev_ring *const *rings, vev_copy *copy, uint32_t sync_interval_ms,
                            vev_keeper **keeper_out);
/* Stop and free. NULL is allowed. */
void vev_keeper_stop(vev_keeper *keeper);
/* In a child of fork(): the threads are not there; forget them. */
void vev_keeper_forget(vev_keeper *keeper);

#endif
