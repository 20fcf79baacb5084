/* The helper thread of a log: whatever would make an append wait is done here before it is needed.
 * Background sync (of a RAM-first log: of its copy), segments cleared and page faults taken ahead
 * of the tail, old maps undone. A second thread, from when more than the next segment is first to be
 * free, counts segments out: that waits for the disk, and clearing must not. */
#ifndef VEV_KEEPER_H
#define VEV_KEEPER_H

#include "vev_copy.h"

typedef struct vev_keeper vev_keeper;

/* Start the thread for `rings` (VEV_STREAM_COUNT of them). `sync_interval_ms` 0: no syncs. With a
 * `copy`, which is not NULL when the log is RAM-first, its interval counts instead. */
vev_status vev_keeper_start(vev_ring *const *rings, vev_copy *copy, uint32_t sync_interval_ms,
                            vev_keeper **keeper_out);
/* Stop and free. NULL is allowed. */
void vev_keeper_stop(vev_keeper *keeper);
/* In a child of fork(): the thread is not there; forget it. */
void vev_keeper_forget(vev_keeper *keeper);

#endif
