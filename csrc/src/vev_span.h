/* Spans: segments mapped for writing. */
#ifndef VEV_SPAN_H
#define VEV_SPAN_H

#include "vev_ring.h"

/* With roll_mutex: */

/* VEV_E_BUSY when all spans are in use. */
vev_status vev_ring_try_map_span(vev_ring *ring, uint32_t segment, vev_span **span_out);
/* Take the span that was mapped ahead, if it is of this segment; give it back if not. */
vev_span *vev_ring_take_ready(vev_ring *ring, uint32_t segment);
/* The one or the other; waits for a span. */
vev_status vev_ring_map_span(vev_ring *ring, uint32_t segment, vev_span **span_out);
void vev_ring_unmap_span(vev_ring *ring, vev_span *span);
/* Unmap all that nobody writes to any more. */
void vev_ring_retire_spans(vev_ring *ring);

/* With the span held, or roll_mutex: have bits in the word of the head with the kinds of the lap
 * (INV-15). One that says nothing stays as it is. */
void vev_ring_note_kinds(vev_span *span, uint32_t kinds);

#endif
