/* The records of a lap, one after the other. All with read_mutex held. */
#ifndef VEV_STEP_H
#define VEV_STEP_H

#include "vev_ring.h"

/* How long bytes must have been unreadable before the records in them are given up for good. Tests
 * shorten it. */
extern uint64_t vev__give_up_ns;

/* Bytes of the file into memory; sectors that cannot be read are passed over, and noted. */
vev_status vev_ring_read_part(vev_ring *ring, uint64_t offset, void *buffer, size_t size);
/* Whether bytes could not be read that may be readable again: a controller that is reset, a cable.
 * What is in them is passed over, but not given up. */
bool vev_ring_may_come_back(const vev_ring *ring);

/* Have at least `size` bytes at `offset` of the segment's data area in memory, fewer at its end. */
vev_status vev_ring_load_window(vev_ring *ring, const vev_listed *listed, uint32_t offset,
                                uint32_t size, bool again);
static inline const uint8_t *vev_ring_window_at(const vev_ring *ring, uint32_t offset)
{
    return ring->window + (offset - ring->window_offset);
}

static inline uint32_t vev_ring_window_left(const vev_ring *ring, uint32_t offset)
{
    return ring->window_offset + ring->window_size - offset;
}

typedef enum {
    VEV_STEP_RECORD,
    VEV_STEP_SKIP, /* damage, or a hole: the records up to `index` are lost */
    VEV_STEP_BUSY, /* a record that is being written: it can be read later */
    VEV_STEP_END
} vev_step_kind;

typedef struct vev_step {
    vev_step_kind kind;
    vev_header header; /* of a record */
    uint32_t offset;   /* of the record; of its successor it is offset + size */
    uint32_t size;
    uint32_t index; /* of the record, or of the first one after a skip */
} vev_step;

/* Whether a record of this lap stands at `offset`. `again`: what of it was read before is read
 * again. */
vev_status vev_ring_look_for_record(vev_ring *ring, const vev_listed *listed, const vev_lap *lap,
                                    uint32_t offset, bool again, vev_header *header,
                                    bool *found_out);
/* What stands at `offset`, where the record `index` is expected. */
vev_status vev_ring_step(vev_ring *ring, const vev_listed *listed, const vev_lap *lap,
                         uint32_t offset, uint32_t index, vev_step *s);

#endif
