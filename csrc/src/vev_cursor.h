/* Reading records. */
#ifndef VEV_CURSOR_H
#define VEV_CURSOR_H

#include "vev_ring.h"

vev_status vev_ring_read(vev_ring *ring, uint64_t from_seq, unsigned state_mask,
                         vev_record *records, size_t record_cap, void *buffer, size_t buffer_size,
                         size_t *count_out, uint64_t *next_out);
vev_status vev_ring_verify(vev_ring *ring, vev_damage *ranges, size_t range_cap, size_t *count_out,
                           uint64_t *checked_out);

#endif
