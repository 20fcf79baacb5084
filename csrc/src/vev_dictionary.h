/* What compresses the records of a segment: its dictionary, and the samples for the next one. */
#ifndef VEV_DICTIONARY_H
#define VEV_DICTIONARY_H

#include "vev_ring.h"

/* Find or digest a dictionary and hold it. VEV_E_CORRUPT when it is none. `bytes` are not in a
 * file's mapping. Any thread. */
vev_status vev_ring_hold_dictionary(vev_ring *ring, const void *bytes, uint32_t size,
                                    vev_dictionary **out);
/* NULL is allowed. */
void vev_ring_drop_dictionary(vev_ring *ring, vev_dictionary *dictionary);
/* Keep a payload as a sample, of a long one the beginning, unless somebody is just doing so. */
void vev_ring_take_sample(vev_samples *samples, const void *payload, size_t size);
/* Make the dictionary for the next segment: the given one with the samples behind it, where matches
 * are cheapest. Without samples or memory, the given one alone. With roll_mutex. */
void vev_ring_prepare_dictionary(vev_ring *ring);

#endif
