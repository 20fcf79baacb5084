/* What the helper thread does for a ring before an append needs it. */
#ifndef VEV_AHEAD_H
#define VEV_AHEAD_H

#include "vev_ring.h"

/* Where a ring stood when the keeper last found something new in it, when that was, and how many
 * bytes it was. Times are vev_clock_ticks_ns(). */
typedef struct vev_watch {
    uint64_t tail, generation, moved_ns;
    uint32_t recent;
    uint64_t lap_began_ns;    /* when this generation was first seen */
    uint64_t last_lap_ns;     /* how long the one before took to fill; UINT64_MAX: not known */
    uint64_t full_generation; /* in which the next segment could not be had without evicting */
} vev_watch;

/* Begin to watch: all that is there counts as seen. */
void vev_ring_watch(vev_ring *ring, vev_watch *seen, uint64_t now_ns);

/* What this process did to a ring since the last look. Fast: a whole segment at that speed takes
 * less than a second, and the next one has to be ready. Fastest: less than a busy disk's sync. */
typedef enum vev_pace { VEV_PACE_IDLE, VEV_PACE_MOVING, VEV_PACE_FAST, VEV_PACE_FASTEST } vev_pace;

/* At every look: take page faults ahead, have the next segment ready and mapped. Brings `seen` up
 * to date. */
vev_pace vev_ring_keep(vev_ring *ring, vev_watch *seen, uint64_t now_ns);
/* After a sync, which made the kernel protect the pages that it wrote: take the faults of the pages
 * that the next append writes to. They are dirty again by that, so only while there is traffic. */
void vev_ring_rewarm(vev_ring *ring);

#endif
