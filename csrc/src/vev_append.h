/* Appending to a ring. */
#ifndef VEV_APPEND_H
#define VEV_APPEND_H

#include "vev_ring.h"

vev_status vev_ring_append(vev_ring *ring, const void *payload, size_t size, vev_entry *entry);
/* vev__log_has_room() of one ring. */
bool vev_ring_has_room(const vev_ring *ring, size_t payload_size);

#endif
