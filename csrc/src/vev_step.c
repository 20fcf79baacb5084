/* From record to record, by reading.
 *
 * Readers never map the data: they read it through the file, window by window, so that a backlog of
 * a gigabyte costs a window of memory and a failing disk costs an error code. What they read may be
 * changing under them (the newest segment) or be reclaimed meanwhile; the checksum, which covers
 * the generation, tells (INV-4), and a record that does not check in a live segment is looked at
 * twice. */
#include "vev_step.h"

#include <stdlib.h>

#include "vev_checkpoint.h"
#include "vev_clock.h"

/* Bytes of the data area that are read at once: few at first, since a record or two may be all that
 * is wanted, and more with every step of a reader who goes on. */
enum { WINDOW_MIN = 16 * 1024, WINDOW_MAX = 256 * 1024 };

/* ---- reading around bad sectors ---- */

uint64_t vev__give_up_ns = 60000000000u;

vev_status vev_ring_read_part(vev_ring *ring, uint64_t offset, void *buffer, size_t size)
{
    uint64_t unreadable;
    vev_status status = vev_io_read_around(ring->io, ring->fd, offset, buffer, size, &unreadable);
    if (status)
        return status;
    if (unreadable > 0 && ring->unreadable_since_ns == 0) {
        ring->unreadable_since_ns = vev_clock_ticks_ns();
        ring->unreadable_at = offset;
    } else if (unreadable == 0 && offset == ring->unreadable_at) {
        ring->unreadable_since_ns = 0; /* it was for a moment only */
    }
    return VEV_OK;
}

bool vev_ring_may_come_back(const vev_ring *ring)
{
    return ring->unreadable_since_ns != 0 &&
           vev_clock_ticks_ns() - ring->unreadable_since_ns < vev__give_up_ns;
}

/* ---- the window ---- */

vev_status vev_ring_load_window(vev_ring *ring, const vev_listed *listed, uint32_t offset,
                                uint32_t size, bool again)
{
    const vev_geometry *geometry = &ring->file.geometry;
    size = VEV_MIN(size, geometry->data_size - offset);
    if (!again && ring->window_generation == listed->head.generation &&
        offset >= ring->window_offset &&
        (uint64_t)offset + size <= (uint64_t)ring->window_offset + ring->window_size)
        return VEV_OK;
    bool goes_on = ring->window_generation == listed->head.generation &&
                   offset >= ring->window_offset &&
                   offset - ring->window_offset <= ring->window_size;
    uint32_t wanted =
        goes_on ? VEV_MIN(2 * ring->window_size, (uint32_t)WINDOW_MAX) : (uint32_t)WINDOW_MIN;
    wanted = VEV_MIN(VEV_MAX(size, wanted), geometry->data_size - offset);
    if (ring->window_capacity < wanted) {
        uint8_t *grown = realloc(ring->window, wanted);
        if (!grown)
            return VEV_E_NOMEM;
        ring->window = grown;
        ring->window_capacity = wanted;
    }
    ring->window_generation = 0;
    vev_status status = vev_ring_read_part(
        ring, vev_segment_offset(geometry, listed->segment) + geometry->data_offset + offset,
        ring->window, wanted);
    if (status)
        return status;
    ring->window_generation = listed->head.generation;
    ring->window_offset = offset;
    ring->window_size = wanted;
    return VEV_OK;
}

/* ---- stepping ---- */

vev_status vev_ring_look_for_record(vev_ring *ring, const vev_listed *listed, const vev_lap *lap,
                                    uint32_t offset, bool again, vev_header *header,
                                    bool *found_out)
{
    uint32_t data_size = ring->file.geometry.data_size;
    *found_out = false;
    vev_status status = vev_ring_load_window(ring, listed, offset, VEV_RECORD_HEADER, false);
    if (status)
        return status;
    uint32_t size = vev_word_size(vev_load64(vev_ring_window_at(ring, offset)));
    if (size < VEV_RECORD_HEADER || size > data_size - offset)
        return VEV_OK;
    status = vev_ring_load_window(ring, listed, offset, size, again);
    *found_out = !status && vev_record_check(vev_ring_window_at(ring, offset),
                                             vev_ring_window_left(ring, offset), data_size, lap,
                                             offset, header);
    return status;
}

/* Whether the chain goes on at `offset` with record `index` or a later one. */
static vev_status chain_goes_on(vev_ring *ring, const vev_listed *listed, const vev_lap *lap,
                                uint32_t offset, uint32_t index, bool *goes_on_out)
{
    uint32_t data_size = ring->file.geometry.data_size;
    *goes_on_out = false;
    vev_status status = vev_ring_load_window(ring, listed, offset, VEV_RECORD_HEADER, false);
    if (status)
        return status;
    uint64_t word = vev_load64(vev_ring_window_at(ring, offset));
    uint32_t size = vev_word_size(word), end_count;
    vev_header header;
    switch (vev_word_state(word)) {
    case VEV_WORD_FREE: *goes_on_out = word == 0 && !listed->head.sealed; break;
    case VEV_WORD_RESERVED: *goes_on_out = size >= 8 && size <= data_size - 8 - offset; break;
    case VEV_WORD_END:
        *goes_on_out = vev_end_check(word, lap, offset, &end_count) && end_count >= index;
        break;
    default:
        status = vev_ring_look_for_record(ring, listed, lap, offset, false, &header, goes_on_out);
        *goes_on_out = *goes_on_out && header.seq - lap->base_seq >= index;
    }
    return status;
}

/* Whether a free word at `offset` is the end for now: in front of a checkpoint it is damage, which
 * opening did not mend (INV-13). A checkpoint that is none costs a look at what is behind the
 * end. */
static bool is_open_at(const vev_ring *ring, const vev_listed *listed, uint32_t offset)
{
    return !listed->head.sealed && offset >= listed->checkpoint &&
           offset >= vev_ring_checkpoint(ring, listed->head.generation);
}

vev_status vev_ring_step(vev_ring *ring, const vev_listed *listed, const vev_lap *lap,
                         uint32_t offset, uint32_t index, vev_step *out)
{
    uint32_t data_size = ring->file.geometry.data_size;
    out->offset = offset;
    out->size = 0;
    out->index = index;
    out->kind = VEV_STEP_END;
    if (offset > data_size - 8)
        return VEV_OK;
    bool alive = true; /* the owner of the reserved word at the first look */
    for (int look = 0; look < 2; look++) {
        vev_status status = vev_ring_load_window(ring, listed, offset, VEV_RECORD_HEADER, look > 0);
        if (status)
            return status;
        uint64_t word = vev_load64(vev_ring_window_at(ring, offset));
        uint32_t size = vev_word_size(word), state = vev_word_state(word), end_count;
        if (state == VEV_WORD_COMMITTED) {
            bool found;
            status =
                vev_ring_look_for_record(ring, listed, lap, offset, look > 0, &out->header, &found);
            if (status)
                return status;
            if (found && out->header.seq - lap->base_seq >= index) {
                out->kind = VEV_STEP_RECORD;
                out->index = (uint32_t)(out->header.seq - lap->base_seq);
                out->size = size;
                return VEV_OK;
            }
        } else if (vev_end_check(word, lap, offset, &end_count)) {
            out->index = VEV_MAX(index, end_count);
            return VEV_OK;
        } else if (word == 0 && is_open_at(ring, listed, offset)) {
            return VEV_OK;
        } else if (state == VEV_WORD_RESERVED && size >= 8 && size <= data_size - 8 - offset) {
            if (vev_word_is_hole(word)) {
                out->kind = VEV_STEP_SKIP;
                out->size = size;
                out->index = (uint32_t)VEV_MIN((uint64_t)index + vev_word_count(word),
                                               (uint64_t)lap->max_records);
                return VEV_OK;
            }
            if (look == 0) {
                /* The window may be older than the record. And asked before the last look: a writer
                 * that commits and goes in between is seen to have committed. */
                alive = vev_ring_owner_alive(ring, vev_word_high(word));
                continue;
            }
            bool goes_on = alive;
            out->kind = goes_on ? VEV_STEP_BUSY : VEV_STEP_SKIP;
            /* A dead writer's word still says where the next record begins; looking for committed
             * ones only would step over others that are just being written. */
            if (!goes_on)
                status = chain_goes_on(ring, listed, lap, offset + size, index + 1, &goes_on);
            if (status)
                return status;
            if (goes_on) {
                out->size = size;
                out->index = index + 1;
                return VEV_OK;
            }
            out->kind = VEV_STEP_END;
        }
    }
    /* Damage, or the rest of a record whose writer died: look for the next good one. */
    vev_status status = vev_ring_load_window(ring, listed, 0, data_size, true);
    if (status)
        return status;
    uint32_t next = vev_record_resync(ring->window, data_size, data_size, lap, offset, index);
    if (next == data_size) {
        out->index = listed->head.sealed ? VEV_MAX(index, listed->head.record_count) : index;
        return VEV_OK;
    }
    out->kind = VEV_STEP_SKIP;
    out->size = next - offset;
    uint32_t end_count;
    vev_header header;
    if (vev_end_check(vev_load64(vev_ring_window_at(ring, next)), lap, next, &end_count))
        out->index = end_count;
    else if (vev_record_check(vev_ring_window_at(ring, next), vev_ring_window_left(ring, next),
                              data_size, lap, next, &header))
        out->index = (uint32_t)(header.seq - lap->base_seq);
    return VEV_OK;
}
