/* Segments mapped for writing, until nobody writes to them any more. */
#include "vev_span.h"

#include "vev_clock.h"
#include "vev_dictionary.h"
#include "vev_guard.h"

void vev_ring_unmap_span(vev_ring *ring, vev_span *span)
{
    vev_guard_forget(span->base);
    ring->io->unmap(ring->io->ctx, span->base, ring->file.geometry.segment_size);
    span->base = span->data = NULL;
}

void vev_ring_retire_spans(vev_ring *ring)
{
    vev_span *current = atomic_load(&ring->current);
    for (int s = 0; s < VEV_SPAN_COUNT; s++) {
        vev_span *span = &ring->spans[s];
        uint64_t generation = atomic_load(&span->generation);
        if (span == current || generation == 0)
            continue;
        bool used = false;
        for (int i = 0; i < VEV_CELL_COUNT; i++)
            used |= atomic_load(&ring->live->slots[ring->slot].cells[i].generation) == generation;
        if (used)
            continue;
        atomic_store(&span->generation, 0);
        vev_ring_unmap_span(ring, span);
        vev_ring_drop_dictionary(ring, span->dictionary);
        span->dictionary = NULL;
    }
}

vev_status vev_ring_try_map_span(vev_ring *ring, uint32_t segment, vev_span **span_out)
{
    const vev_geometry *geometry = &ring->file.geometry;
    vev_ring_retire_spans(ring);
    for (int s = 0; s < VEV_SPAN_COUNT; s++) {
        vev_span *span = &ring->spans[s];
        if (atomic_load(&span->generation) != 0 || span->base)
            continue;
        vev_status status = vev_ring_check_descriptor(ring);
        if (!status)
            status = ring->io->map(ring->io->ctx, ring->fd, vev_segment_offset(geometry, segment),
                                   geometry->segment_size, true, &span->base);
        if (status) {
            span->base = NULL;
            return status;
        }
        vev_guard_remember(span->base, geometry->segment_size);
        span->segment = segment;
        span->data = span->base + geometry->data_offset;
        atomic_store(&span->touched, 0);
        atomic_store(&span->cleared, 0);
        *span_out = span;
        return VEV_OK;
    }
    return VEV_E_BUSY;
}

vev_span *vev_ring_take_ready(vev_ring *ring, uint32_t segment)
{
    vev_span *span = ring->ready;
    ring->ready = NULL;
    atomic_store(&ring->ready_for, 0);
    if (span && span->segment != segment) {
        vev_ring_unmap_span(ring, span);
        span = NULL;
    }
    /* Another process may have written a lap to it meanwhile. */
    if (span && atomic_load(&ring->live->active) >> 10 != ring->ready_after)
        atomic_store(&span->cleared, 0);
    return span;
}

vev_status vev_ring_map_span(vev_ring *ring, uint32_t segment, vev_span **span_out)
{
    *span_out = vev_ring_take_ready(ring, segment);
    vev_status status = *span_out ? VEV_OK : VEV_E_BUSY;
    for (uint32_t turn = 0; status == VEV_E_BUSY; turn++) {
        status = vev_ring_try_map_span(ring, segment, span_out);
        if (status == VEV_E_BUSY)
            vev_clock_pause(turn);
    }
    return status;
}

void vev_ring_note_kinds(vev_span *span, uint32_t kinds)
{
    uint64_t word = atomic_load(vev_span_kinds(span));
    uint32_t noted;
    while (vev_kinds_read(word, span->lap.seed, &noted) && (noted & kinds) != kinds &&
           !atomic_compare_exchange_weak(vev_span_kinds(span), &word,
                                         vev_kinds_word(span->lap.seed, noted | kinds))) {
    }
    atomic_fetch_or(&span->kinds, kinds);
}
